"""When a kept token is handed out, renewed, waited for: decisions without I/O."""

from __future__ import annotations

import random
from enum import Enum
from typing import NamedTuple

from .answer import Granted
from .clock import Instant
from .token import Token

__all__ = ["Kept", "Renewal", "Use"]

_LEEWAY = 30.0
_LONGEST_BACK_OFF = 60.0
_SHORTEST_BACK_OFF = 0.05


class Use(Enum):
    """What a call does with a kept token."""

    HAND_OUT = "hand it out"
    HAND_OUT_AND_RENEW = "hand it out, and begin its renewal"
    WAIT = "wait for its renewal, and hand it out if that fails"
    NONE = "it has ended"


class Kept:
    """A token in use. Ages count from when it was asked for; `next_try` (monotonic) is set by a failed renewal.

    `insisted`: an API refused it, and the issuer handed it out again.
    """

    __slots__ = ("delay", "insisted", "next_try", "refresh_age", "token", "until_age")

    def __init__(self, token: Token, refresh_age: float, until_age: float, insisted: bool = False) -> None:
        self.token = token
        self.refresh_age = refresh_age
        self.until_age = until_age
        self.insisted = insisted
        self.next_try: float | None = None
        self.delay: float | None = None

    def life_left(self, now: Instant) -> float:
        """Seconds to its very end; below 0 after that."""
        return self.until_age - self.token.obtained.age(now)

    def hurry(self) -> None:
        """Forget that a renewal failed."""
        self.next_try = self.delay = None


class Renewal(NamedTuple):
    """How early tokens are renewed; seconds before their end, None for what is usual."""

    leeway: float | None
    ahead: float | None

    def leeway_of(self, lifetime: float) -> float:
        """The seconds before its end in which a token is not handed out without trying for another."""
        return min(_LEEWAY if self.leeway is None else self.leeway, lifetime / 10)

    def keep(self, granted: Granted) -> Kept:
        """The point of renewal is drawn per token, so that a fleet does not renew in step."""
        token, lifetime = granted.token, granted.token.lifetime
        if granted.refresh_in is not None and 0 < granted.refresh_in < lifetime:
            age = granted.refresh_in
        elif self.ahead is not None:
            age = lifetime - min(self.ahead, lifetime / 2)
        else:
            age = lifetime * random.uniform(0.7, 0.8)
        return Kept(token, min(age, lifetime - self.leeway_of(lifetime)), lifetime)

    def use(self, kept: Kept, now: Instant, *, under_way: bool) -> tuple[Use, float]:
        """What a call does with it now, and for how many seconds every call does just that."""
        age = kept.token.obtained.age(now)
        if age < kept.refresh_age:
            return Use.HAND_OUT, kept.refresh_age - age
        if age >= kept.until_age:
            return Use.NONE, 0.0
        in_leeway = age >= kept.until_age - self.leeway_of(kept.until_age)
        backs_off = kept.next_try is not None and now.monotonic < kept.next_try
        if backs_off and not under_way:
            assert kept.next_try is not None
            return Use.HAND_OUT, 0.0 if in_leeway else min(kept.next_try - now.monotonic, kept.until_age - age)
        if in_leeway and kept.delay is None:  # once a renewal has failed, nobody waits for the next one
            return Use.WAIT, 0.0
        return Use.HAND_OUT if under_way else Use.HAND_OUT_AND_RENEW, 0.0

    def back_off(self, kept: Kept, now: Instant, retry_after: float) -> float:
        """Seconds to the next attempt after a failed one, doubling with full jitter and shrinking with its life."""
        longest = min(_LONGEST_BACK_OFF, kept.life_left(now) / 4)
        kept.delay = min(longest, 1.0 if kept.delay is None else kept.delay * 2)
        wait = max(_SHORTEST_BACK_OFF, random.uniform(0, kept.delay), retry_after)
        kept.next_try = now.monotonic + wait
        return wait
