"""TickingClock: a clock that a test moves by hand."""

from __future__ import annotations

import threading

from ..clock import Instant

__all__ = ["TickingClock"]

_WALL = 1_767_225_600.0  # 2026-01-01T00:00:00Z


class TickingClock:
    """A `secretsource.clock.Clock` that stands still until it is told to move. Safe from any thread.

    `wall`: seconds since the epoch at which it begins. `sleeps`: the seconds of each sleep so far.
    """

    def __init__(self, *, wall: float = _WALL) -> None:
        self._lock = threading.Lock()
        self._instant = Instant(monotonic=1_000.0, boottime=2_000.0, wall=wall)
        self._sleeps: list[float] = []

    def monotonic(self) -> float:
        return self._instant.monotonic

    def now(self) -> Instant:
        return self._instant

    def sleep(self, seconds: float) -> None:
        """Returns at once, that much later."""
        self._move(seconds, seconds, seconds)
        with self._lock:
            self._sleeps.append(seconds)

    @property
    def sleeps(self) -> list[float]:
        with self._lock:
            return list(self._sleeps)

    def tick(self, seconds: float = 1.0) -> None:
        """All three clocks go on."""
        self._move(seconds, seconds, seconds)

    def suspend(self, seconds: float) -> None:
        """The machine sleeps: the monotonic clock stands still, the other two go on."""
        self._move(0.0, seconds, seconds)

    def set_wall(self, delta: float) -> None:
        """Somebody sets the wall clock, forward or (negative) back."""
        with self._lock:
            self._instant = self._instant._replace(wall=self._instant.wall + delta)

    def _move(self, monotonic: float, boottime: float, wall: float) -> None:
        if min(monotonic, boottime) < 0:
            raise ValueError("these clocks do not go back; set_wall() moves the wall clock alone")
        with self._lock:
            now = self._instant
            self._instant = Instant(now.monotonic + monotonic, now.boottime + boottime, now.wall + wall)
