"""A shop whose clients' secrets are rotated: one secret each at the issuer, files as stores, a program as adapter."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from secretsource.testing import FakeIssuer, Fault, secret_file
from secretsource.testing.loopback import Answer, Incoming

from ..configurations import written
from . import Ran, called

OLD = "not-a-real-secret-but-the-old-one"
OTHER = "not-a-real-secret-but-another-one"
# What was announced is over after half a second, whatever became of it.
AT_ONCE = ("--wait", "0", "--soak", "0", "--propagation", "0", "--landing", "0", "--command-timeout", "500ms")
OPEN: list[Shop] = []

_PROGRAM = """#!{python} -IS
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", {port}, timeout=20)
connection.request("POST", "/admin", sys.stdin.buffer.read())
sys.exit(int(connection.getresponse().read()))
"""


_ADAPTER = """
import sys
from secretsource.rotation import Applied, Capabilities, Preflight, Refused, Unknown
class Made:
    capabilities = Capabilities(chosen=True, slots=1, propagation=0, landing=0)
    def apply(self, client, secret, deadline):
        status = sys.modules["tests.cli.shops"].OPEN[-1].set(client.client_id, secret.reveal())
        return Applied() if status == 0 else Refused("it said 65") if status == 65 else Unknown("no answer")
    def check(self, client, deadline):
        return Preflight()
    def prepare(self, client): ...
    def close(self): ...
    def mint(self, client, label, deadline): ...
    def reap(self, client, label, deadline): ...
    def retire(self, client, keep, gone, deadline): ...
    def restore(self, client, deadline): ...
    def remove(self, client, keep, gone, deadline): ...
"""


class Shop:
    """An issuer that is administered by the adapter "shop", or by a program at `program` which asks `/admin`.

    `status`: what both end with; `takes`: whether the new secret is taken; `goes_down`: whether the token endpoint is
    out of order afterwards.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.issuer = FakeIssuer(apis={"/admin": self._administer})
        self.status, self.takes, self.goes_down = 0, True, False
        self.changes: list[str] = []
        self.program = folder / "set-secret"

    @contextmanager
    def open(self) -> Iterator[Shop]:
        plugs = self.folder / "adapters"
        plugs.mkdir()
        with self.issuer as issuer, pytest.MonkeyPatch.context() as patched:
            patched.syspath_prepend(plugged_in(plugs, "secretsource.issuers", "shop", _ADAPTER))
            port = issuer.url.split(":")[2].partition("/")[0]
            self.program.write_text(_PROGRAM.format(python=sys.executable, port=port))
            self.program.chmod(0o700)
            OPEN.append(self)
            yield self
            OPEN.remove(self)

    def _administer(self, incoming: Incoming) -> Answer:
        given = json.loads(incoming.body)
        assert set(given) == {"client_id", "client_secret"}
        return Answer(body=str(self.set(**given)).encode())

    def set(self, client_id: str, client_secret: str) -> int:
        """What the administration does with a new secret, and says of it."""
        if self.takes:
            self.changes.append(client_id)
            self.issuer.set_secret(client_id, client_secret)
        if self.goes_down:
            self.issuer.fail(Fault(status=503))
        return self.status

    def add(self, client: str, secret: str = OLD, **extra: Any) -> str:
        """A client of the issuer, whose secret is in a file; the reference to that."""
        self.issuer.add_client(client, OLD)
        return secret_file(self.folder / "secrets", client, secret, **extra)

    def file(self, client: str) -> Path:
        return self.folder / "secrets" / f"{client}.json"

    def stored(self, client: str) -> dict[str, str]:
        return dict(json.loads(self.file(client).read_text()))

    def configured(self, text: str = "", *, rotation: str = "", clients: tuple[str, ...] = ("pos", "stock")) -> Path:
        """secretsource.toml: environments test and production, whose clients are these."""
        tables = "".join(f"[clients.{client}]\n" for client in clients)
        return written(
            self.folder,
            f"""
[defaults]
issuer = "{self.issuer.url}"
credentials = "file:secrets/{{client}}.json"
[defaults.rotation]
adapter = "shop"
command_timeout = "500ms"
wait = 0
soak = 0
propagation = 0
landing = 0
{rotation}
[environments.test]
[environments.production]
production = true
{tables}
{text}
""",
        )

    def rotate(self, action: str, *arguments: str) -> Ran:
        """The command from options alone, for the client pos."""
        reference = f"file://{self.file('pos')}"
        alone = ("--credentials", reference, "--issuer", self.issuer.url, "--adapter", "shop")
        return self.looked_through(called("rotate", action, *alone, *AT_ONCE, *arguments))

    def of(self, action: str, *arguments: str) -> Ran:
        """The command on the configuration."""
        return self.looked_through(called("rotate", action, "--env", "test", *arguments))

    def looked_through(self, ran: Ran) -> Ran:
        """The same; no secret is in it, neither an old nor a new one."""
        shown = ran.out + ran.err
        held = [value for path in self.folder.glob("secrets/*.json") for value in json.loads(path.read_text()).values()]
        for secret in {OLD, OTHER, *(value for value in held if len(value) > 16 and not value.startswith("http"))}:
            assert secret not in shown
        assert "Traceback" not in shown
        return ran


def lines(ran: Ran) -> list[dict[str, Any]]:
    """What --json gave, less the final line."""
    told = [json.loads(line) for line in ran.out.splitlines()]
    assert all(one["version"] == 1 for one in told)
    assert told[-1]["event"] == "end"
    assert told[-1]["exit_code"] == ran.code
    return told[:-1]


def the(told: list[dict[str, Any]], event: str) -> dict[str, Any]:
    """The only one of this kind."""
    (one,) = [each for each in told if each["event"] == event]
    return one


def plugged_in(folder: Path, group: str, name: str, code: str) -> str:
    """Install what is called `Made` in this code under a name of an entry-point group; the folder for the path."""
    module = f"plugged_in_as_{name}"
    (folder / f"{module}.py").write_text(code)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:Made\n")
    return str(folder)
