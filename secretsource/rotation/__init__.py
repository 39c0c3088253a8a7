"""Changing the secret itself, without one failed call.

    claim pending in the store → wait until consumers hold it → apply at the issuer → prove it with a real token
    → promote (pending to current, current to previous) → soak → retire previous

`Rotation` does it for one client, with an adapter from `rotation.issuers`; `secretsource rotate` for those of a
configuration. The state lives in the store, so that any process may go on after any crash.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine import Rotation as Rotation
    from .engine import Status as Status
    from .generate import generate as generate
    from .hooks import Abort as Abort
    from .hooks import Gate as Gate
    from .hooks import Hold as Hold
    from .hooks import Moment as Moment
    from .hooks import Proceed as Proceed
    from .outcome import Adapter as Adapter
    from .outcome import Applied as Applied
    from .outcome import Capabilities as Capabilities
    from .outcome import Client as Client
    from .outcome import Minted as Minted
    from .outcome import Preflight as Preflight
    from .outcome import Refused as Refused
    from .outcome import Unknown as Unknown
    from .plan import Finding as Finding
    from .plan import Plan as Plan
    from .policy import Due as Due
    from .policy import Policy as Policy
    from .run import Report as Report

# Loaded at first use: an adapter of a third party needs the words and not the engine.
_HOMES = {
    "engine": "Rotation Status",
    "run": "Report",
    "plan": "Plan Finding",
    "policy": "Policy Due",
    "outcome": "Adapter Capabilities Client Preflight Applied Minted Refused Unknown",
    "hooks": "Gate Moment Proceed Hold Abort",
    "generate": "generate",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Rotation",
    "Report",
    "Status",
    "Plan",
    "Finding",
    "Policy",
    "Due",
    "Adapter",
    "Capabilities",
    "Client",
    "Preflight",
    "Applied",
    "Minted",
    "Refused",
    "Unknown",
    "Gate",
    "Moment",
    "Proceed",
    "Hold",
    "Abort",
    "generate",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
