"""Token: an access token and how long it lives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from .clock import SYSTEM_CLOCK, Clock, Instant
from .secret import Masked

__all__ = ["Token"]


class Token(Masked):
    """An access token (RFC 6749 section 5.1). Printing and formatting show a mask; it is not pickled.

    `authorization` is the value of an Authorization header, `scopes` are the granted ones, `lifetime` is in seconds.
    """

    __slots__ = ("_boottime", "_clock", "_monotonic", "_wall", "authorization", "lifetime", "scopes")
    _mask = "⋯ use .authorization"

    authorization: str
    scopes: tuple[str, ...]
    lifetime: float
    _clock: Clock
    _monotonic: float
    _boottime: float
    _wall: float

    def __init__(
        self,
        access_token: str,
        *,
        lifetime: float,
        scopes: tuple[str, ...] = (),
        obtained: Instant | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`lifetime` counts in seconds from `obtained`: the moment before it was asked for."""
        keep = object.__setattr__
        # As a header has it, since that is what is wanted on each request (RFC 6750 section 2.1).
        keep(self, "authorization", f"Bearer {access_token}")
        keep(self, "lifetime", lifetime)
        keep(self, "scopes", scopes)
        keep(self, "_clock", clock)
        monotonic, boottime, wall = clock.now() if obtained is None else obtained
        keep(self, "_monotonic", monotonic)
        keep(self, "_boottime", boottime)
        keep(self, "_wall", wall)

    @property
    def access_token(self) -> str:
        """The token itself."""
        return self.authorization[7:]

    @property
    def token_type(self) -> str:
        return "Bearer"

    @property
    def obtained(self) -> Instant:
        """The moment from which its lifetime counts."""
        return Instant(self._monotonic, self._boottime, self._wall)

    @property
    def expires_at(self) -> datetime:
        """When it ends, as an aware UTC datetime."""
        return datetime.fromtimestamp(self._wall, UTC) + timedelta(seconds=self.lifetime)

    @property
    def expires_in(self) -> float:
        """Seconds left, by the clock that says the least; never below 0."""
        return max(0.0, self.lifetime - self.age)

    @property
    def age(self) -> float:
        """Seconds since it was asked for."""
        return self.obtained.age(self._clock.now())
