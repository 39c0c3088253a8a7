"""The three clocks, and deadlines.

A token ends by whichever clock says so first: the monotonic one stands still while a machine is suspended, the
suspend-aware one is not on every system, and the wall clock is what the issuer means but may be set at any time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol

from .errors import ConfigurationError

__all__ = [
    "Clock",
    "SystemClock",
    "SYSTEM_CLOCK",
    "Instant",
    "Deadline",
    "checked_seconds",
    "WAITS_BETWEEN_ATTEMPTS",
    "pause",
]

# Seconds, where whom we ask is unavailable: short, since somebody waits, and few, since a circuit or a cache follows.
WAITS_BETWEEN_ATTEMPTS = (0.2, 0.8)


class Instant(NamedTuple):
    """One moment, in seconds, as the three clocks show it."""

    monotonic: float
    boottime: float
    wall: float

    def age(self, now: Instant) -> float:
        """Seconds from this moment to `now`, by the clock that counted most."""
        return max(now.monotonic - self.monotonic, now.boottime - self.boottime, now.wall - self.wall)


class Clock(Protocol):
    """Where time comes from, all in seconds. `secretsource.testing.TickingClock` is one for tests."""

    def monotonic(self) -> float: ...
    def now(self) -> Instant: ...
    def sleep(self, seconds: float, /) -> None: ...


class SystemClock:
    """The clocks of the operating system."""

    monotonic = staticmethod(time.monotonic)

    def sleep(self, seconds: float, /) -> None:
        time.sleep(seconds)  # looked up now: gevent may have exchanged it since this module was loaded

    if hasattr(time, "CLOCK_BOOTTIME"):

        def now(self) -> Instant:
            return Instant(time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time())

    else:  # macOS counts time asleep in its monotonic clock's raw sibling only; Windows in neither

        def now(self) -> Instant:
            monotonic = time.monotonic()
            return Instant(monotonic, monotonic, time.time())


SYSTEM_CLOCK = SystemClock()


def checked_seconds(name: str, value: float, *, zero: bool = False) -> float:
    """The value, if it is a number of seconds above 0 (or 0, with `zero`). ConfigurationError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (value > 0 or (zero and value == 0)):
        raise ConfigurationError(f"{name}={value!r} is not a number of seconds above 0")
    with suppress(OverflowError):
        return float(value)
    raise ConfigurationError(f"{name}= has more digits than any time has")


class Deadline:
    """The end of the time a call has, over everything that is done for it."""

    __slots__ = ("_clock", "ends_at", "seconds")

    def __init__(self, seconds: float, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self.seconds = seconds
        self.ends_at = clock.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.ends_at - self._clock.monotonic())

    def over(self) -> bool:
        return self._clock.monotonic() >= self.ends_at


def pause(seconds: float, retry_after: float | None, deadline: Deadline, sleep: Callable[[float], None]) -> bool:
    """Wait before the next attempt, give or take a fifth; False if the deadline would be over by then."""
    seconds = max(seconds * random.uniform(0.8, 1.2), retry_after or 0.0)
    if seconds >= deadline.left():
        return False
    sleep(seconds)
    return True
