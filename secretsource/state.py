"""Where the change of a secret stands, as the store keeps it beside the secret: instants and names, no secret.

Its text is `v1.` and base64url of compact JSON. Rotators read and write it; programs look at `tokens_not_before` only.
"""

from __future__ import annotations

import base64
import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

__all__ = ["LONGEST_STATE", "RotationState", "short_name"]

LONGEST_STATE = 2048  # characters
_PREFIX = "v1."
_LONGEST_NAME = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationState:
    """Instants are seconds since 1970 by the rotator's wall clock; None: not yet, or not known.

    `rotation` names the rotation, `by` who wrote this last. `goal` is "abort" once the current secret is being put back
    at the issuer, and "rollback" where the pending one was used before. `intended`: a secret that the issuer generates
    was asked for, and is not held yet. `noted`: the last call to the issuer was announced, and may take effect for
    `open_for` seconds from then; `calls` counts them. `finished`: the last change of the secret was made.
    `tokens_not_before`: older tokens were obtained with a secret that leaked. `expires`: when the issuer itself ends
    the current secret, and the `…_id`s are what it calls the secrets.
    """

    rotation: str = ""
    by: str = ""
    goal: Literal["rotate", "abort", "rollback"] = "rotate"
    compromised: bool = False
    intended: bool = False
    claimed: float | None = None
    noted: float | None = None
    open_for: float = 0.0
    calls: int = 0
    promoted: float | None = None
    finished: float | None = None
    tokens_not_before: float | None = None
    expires: float | None = None
    pending_expires: float | None = None
    pending_id: str | None = None
    current_id: str | None = None
    previous_id: str | None = None

    def text(self) -> str:
        """As it is kept."""
        said = {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name]}
        written = json.dumps(said, separators=(",", ":"), sort_keys=True).encode()
        return _PREFIX + base64.urlsafe_b64encode(written).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> RotationState | None:
        """The state in a text; None where it is none of this version."""
        if not text.startswith(_PREFIX) or len(text) > LONGEST_STATE:
            return None
        inner = text[len(_PREFIX) :]
        try:
            said = json.loads(base64.b64decode(inner + "=" * (-len(inner) % 4), altchars=b"-_", validate=True))
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict):
            return None
        known = {name: value for name, value in said.items() if name in _DEFAULTS}  # a later version may say more
        return cls(**known) if all(_fits(name, value) for name, value in known.items()) else None


def short_name(name: str | None) -> str | None:
    """What an issuer calls a secret, if it fits into a state."""
    fits = name is not None and name.isascii() and name.isprintable() and 0 < len(name) <= _LONGEST_NAME
    return name if fits else None


_DEFAULTS: dict[str, Any] = {item.name: item.default for item in fields(RotationState)}
_NUMBERS = {"claimed", "noted", "open_for", "promoted", "finished", "tokens_not_before", "expires", "pending_expires"}


def _fits(name: str, value: object) -> bool:
    if value is None:
        return _DEFAULTS[name] is None
    if name in ("compromised", "intended"):
        return isinstance(value, bool)
    if name == "goal":
        return value in ("rotate", "abort", "rollback")
    if name == "calls":
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1_000_000
    if name in _NUMBERS:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value) and 0 <= value < 1e12  # type: ignore[arg-type, operator]
    return isinstance(value, str) and len(value) <= _LONGEST_NAME and value.isprintable()
