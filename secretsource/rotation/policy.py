"""How and when a secret is changed, and whether it is due."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any

from ..backends import Held
from ..durations import duration, shown_duration
from ..errors import ConfigurationError

__all__ = ["Due", "Policy"]

_JITTER = 0.1
_NOT_AGAIN_WITHIN = 3600.0
_SHARE_BEFORE_EXPIRY = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Seconds; None where the default depends on store and issuer.

    `every`: the age at which the secret is due, give or take a tenth. `wait`: until consumers hold the pending secret.
    `soak`: for how long the previous one stays. `propagation`, `landing`: as the adapter says, if None.
    `command_timeout` bounds a call to the issuer, `max_wait` one run. `proofs`: tokens in a row that prove a secret.
    `force` sets aside the due date and the hour between two rotations. `compromised`: the secret has leaked: nothing is
    waited for, nothing kept. `accept_gap`: calls may fail while a single-slot issuer generates a secret.
    """

    every: float = 90 * 86400.0
    wait: float | None = None
    soak: float | None = None
    propagation: float | None = None
    landing: float | None = None
    command_timeout: float = 30.0
    max_wait: float = 900.0
    proofs: int = 3
    force: bool = False
    accept_gap: bool = False
    compromised: bool = False
    owner: str | None = None

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("every", "wait", "soak", "propagation", "landing", "command_timeout", "max_wait"):
                if value is not None:
                    object.__setattr__(self, item.name, duration(value))
            elif item.name == "proofs" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigurationError("proofs= is a whole number above 0")
        if not self.command_timeout:
            raise ConfigurationError("command_timeout= is more than 0 seconds")
        if self.every == 0:
            raise ConfigurationError("every= is more than 0 seconds", hint="Such as 90d")
        if self.compromised:
            object.__setattr__(self, "wait", 0.0)
            object.__setattr__(self, "soak", 0.0)

    def settled(self, **defaults: Any) -> Policy:
        """The same with these in the place of what is None."""
        return replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})

    @property
    def open_for(self) -> float:
        """Seconds from its announcement for which a call may take effect."""
        return self.command_timeout + (self.landing or 0.0)


@dataclass(frozen=True, slots=True)
class Due:
    """Whether a secret is to be changed now. `at`: seconds since 1970, None if its age is not known; `age`: seconds."""

    now: bool
    reason: str
    at: float | None
    age: float | None

    @classmethod
    def of(cls, held: Held, policy: Policy, now: float, *, name: str, expires: float | None = None) -> Due:
        """`name` draws the jitter, the same at each look. `expires`: when the issuer ends the secret."""
        changed = held.state.finished or held.state.promoted or held.created
        age = None if changed is None else max(0.0, now - changed)
        recently = held.state.finished is not None and 0 <= now - held.state.finished < _NOT_AGAIN_WITHIN
        if policy.force or policy.compromised:
            return cls(True, "it was asked for", None, age)
        moments = []
        if changed is not None:
            moments.append(changed + policy.every * (1 + _JITTER * _drawn(name)))
        for end in (held.expires, expires, held.state.expires):
            if end is not None:
                life = end - (changed if changed is not None and changed < end else now)
                moments.append(end - min(max(_SHARE_BEFORE_EXPIRY * life, (policy.wait or 0.0) + 3600.0), life / 2))
        at = min(moments, default=None)
        if recently:
            return cls(False, "it was changed less than an hour ago", at, age)
        if at is None:
            return cls(True, "its age is not known", None, age)
        if now < at:
            return cls(False, f"it is due in {shown_duration(at - now)}", at, age)
        return cls(True, f"it has been due for {shown_duration(now - at)}", at, age)


def _drawn(name: str) -> float:
    """A number from -1 to 1 that belongs to this name."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:4], "big") / 2**31 - 1
