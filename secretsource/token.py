"""Token: an access token and how long it lives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from .clock import SYSTEM_CLOCK, Clock, Instant
from .secret import Masked

__all__ = ["Token"]


class Token(Masked):
    """An access token (RFC 6749 section 5.1). Printing and formatting show a mask; it is not pickled.

    `scopes` are the granted ones; `token_type` is always "Bearer".
    """

    __slots__ = ("_clock", "_text", "lifetime", "obtained", "scopes", "token_type")
    _mask = "⋯ use .authorization"

    scopes: tuple[str, ...]
    token_type: str
    lifetime: float
    obtained: Instant
    _clock: Clock
    _text: str

    def __init__(
        self,
        access_token: str,
        *,
        lifetime: float,
        scopes: tuple[str, ...] = (),
        token_type: str = "Bearer",
        obtained: Instant | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`lifetime` counts in seconds from `obtained`: the moment before it was asked for."""
        keep = object.__setattr__
        keep(self, "_text", access_token)
        keep(self, "_clock", clock)
        keep(self, "lifetime", lifetime)
        keep(self, "scopes", scopes)
        keep(self, "token_type", token_type)
        keep(self, "obtained", clock.now() if obtained is None else obtained)

    @property
    def access_token(self) -> str:
        """The token itself."""
        return self._text

    @property
    def authorization(self) -> str:
        """The value of an Authorization header (RFC 6750 section 2.1)."""
        return f"{self.token_type} {self._text}"

    @property
    def expires_at(self) -> datetime:
        """When it ends, as an aware UTC datetime."""
        return datetime.fromtimestamp(self.obtained.wall, UTC) + timedelta(seconds=self.lifetime)

    @property
    def expires_in(self) -> float:
        """Seconds left, by the clock that says the least; never below 0."""
        return max(0.0, self.lifetime - self.age)

    @property
    def age(self) -> float:
        """Seconds since it was asked for."""
        return self.obtained.age(self._clock.now())
