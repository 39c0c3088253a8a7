"""For the tests of programs and plug-ins that use secretsource. Needs nothing but Python (and pytest where it says so).

- `FakeIssuer`: a real authorization server on loopback, with clients, secret changes, faults and a record of requests
- `static_source`: what a TokenSource is to a caller, with a token of your own and no issuer
- `TickingClock`: time that a test moves by hand
- `secret_file`: credentials in a file, with the permissions that the file store asks for
- `BackendContract`: the tests that every backend must pass; subclass it for yours
- `LoopbackServer`: the HTTP server under the issuer, for an API of your own

With pytest, `pytest_plugins = ["secretsource.testing.fixtures"]` in a conftest.py gives the fixtures `fake_issuer`,
`ticking_clock` and `secret_file`.

    >>> from secretsource import TokenSource
    >>> from secretsource.testing import FakeIssuer, Fault
    >>> with FakeIssuer(lifetime=3600) as issuer:
    ...     credentials = issuer.add_client("pos", "not-a-real-secret", scopes=["orders.read"])
    ...     with TokenSource(credentials, issuer=issuer.url, scope="orders.read") as pos:
    ...         token = pos.token()
    ...         with issuer.failing(Fault(status=503)):
    ...             same = pos.token()
    ...         print(issuer.accepts(token.access_token), same is token, issuer.token_requests)
    True True 1
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .clock import TickingClock as TickingClock
    from .contract import BackendContract as BackendContract
    from .faults import Fault as Fault
    from .files import secret_file as secret_file
    from .issuer import FakeIssuer as FakeIssuer
    from .issuer import Grant as Grant
    from .issuer import RecordedRequest as RecordedRequest
    from .loopback import Answer as Answer
    from .loopback import Incoming as Incoming
    from .loopback import LoopbackServer as LoopbackServer
    from .static import StaticSource as StaticSource
    from .static import static_source as static_source

# Loaded at first use: only the contract needs pytest.
_HOMES = {
    "issuer": "FakeIssuer Grant RecordedRequest",
    "faults": "Fault",
    "static": "static_source StaticSource",
    "clock": "TickingClock",
    "files": "secret_file",
    "contract": "BackendContract",
    "loopback": "LoopbackServer Incoming Answer",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "FakeIssuer",
    "Grant",
    "RecordedRequest",
    "Fault",
    "static_source",
    "StaticSource",
    "TickingClock",
    "secret_file",
    "BackendContract",
    "LoopbackServer",
    "Incoming",
    "Answer",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
