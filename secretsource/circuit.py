"""The circuit: while every secret is rejected, the issuer is not asked again and again. A decision without I/O."""

from __future__ import annotations

import random
from typing import NamedTuple

from .clock import Clock
from .errors import SecretSourceError
from .resolve import Budget

__all__ = ["Circuit"]

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0
_LONGEST_DELAY_WITH_LOCKOUT = 300.0


class _Open(NamedTuple):
    values: bytes
    next_try: float
    delay: float
    turn: int


class Circuit:
    """Closed while secrets are accepted. Open, it lets one request with one candidate through per interval.

    The interval is 1 s at first and doubles to 60 s, to 5 min where the issuer locks clients out, with jitter.
    """

    def __init__(self, clock: Clock, *, lockout: bool) -> None:
        self._clock = clock
        self._longest = _LONGEST_DELAY_WITH_LOCKOUT if lockout else _LONGEST_DELAY
        self._state: _Open | None = None
        self._last_error: SecretSourceError | None = None
        self._early = Budget(1, 5.0, clock)

    @property
    def next_try(self) -> float | None:
        """Seconds until an attempt is let through; None while it is closed."""
        state = self._state
        return None if state is None else max(0.0, state.next_try - self._clock.monotonic())

    def open_for(self, values: bytes) -> bool:
        """Whether it is open, and these values are those that were rejected."""
        state = self._state
        return state is not None and state.values == values

    def error(self) -> SecretSourceError:
        """What is raised while it is open, with the time of the next attempt."""
        assert self._last_error is not None
        error = self._last_error.again()
        error.retry_after = self.next_try or 0.0  # it may have been closed a moment ago
        return error

    def trip(self, error: SecretSourceError, values: bytes) -> float:
        """Open it, or let it stay open with this newer error; seconds to the next attempt."""
        self._last_error = error
        if not self.open_for(values):
            delay = _FIRST_DELAY * random.uniform(0.8, 1.2)
            self._state = _Open(values, self._clock.monotonic() + delay, delay, 0)
        return self.next_try or 0.0

    def close(self) -> bool:
        """Close it; True if it was open."""
        was_open, self._state = self._state is not None, None
        return was_open

    def hurry(self) -> None:
        """Let an attempt through now, at most once in 5 s."""
        state = self._state
        if state is not None and self._early.take():
            self._state = state._replace(next_try=self._clock.monotonic())

    def turn(self, *, early: bool) -> int | None:
        """The number of the attempt that may be made now, or None. It is claimed by being asked for."""
        state, now = self._state, self._clock.monotonic()
        if state is None:
            return 0
        if now < state.next_try and not (early and self._early.take()):
            return None
        delay = min(self._longest, state.delay * 2) * random.uniform(0.8, 1.0)
        self._state = state._replace(next_try=now + delay, delay=delay, turn=state.turn + 1)
        return state.turn
