"""What stood where at which moment: a store and an issuer whose whole history is known before anybody asks them.

Consumers change neither, so each is simulated by itself, on a clock of its own, against the same history.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Generic, NamedTuple, TypeVar

__all__ = ["FOUND_AT_ISSUER", "FOUND_IN_STORE", "History", "Kept", "Timeline"]

# Seconds in which a repaired secret is found: a dear store is read again after 5 s; an open circuit lets one request
# through in 60 s at least, with one of up to four candidates.
FOUND_IN_STORE = 6.0
FOUND_AT_ISSUER = 4 * 60 + 6.0

T = TypeVar("T")


class Kept(NamedTuple):
    """What a document in the store holds; "" where there is none."""

    current: str
    pending: str = ""
    previous: str = ""

    @property
    def values(self) -> set[str]:
        return {value for value in self if value}


class Timeline(Generic[T]):
    """A value that is another one from certain moments on."""

    def __init__(self, value: T) -> None:
        self._moments: list[float] = [0.0]
        self._values: list[T] = [value]

    @property
    def last(self) -> T:
        return self._values[-1]

    @property
    def values(self) -> list[T]:
        """Each that it has had."""
        return list(self._values)

    def becomes(self, value: T, moment: float) -> None:
        assert moment >= self._moments[-1], "a history is written forwards"
        self._moments.append(moment)
        self._values.append(value)

    def at(self, moment: float) -> T:
        return self._values[bisect_right(self._moments, max(0.0, moment)) - 1]

    def changes(self, since: float, until: float) -> list[float]:
        return [moment for moment in self._moments if since <= moment <= until]


class History:
    """What the store held and which secrets the issuer accepted, up to `now`, which goes on while it is written.

    `lag`: by how many seconds a read of the store may be behind, at most.
    """

    def __init__(self, lag: float = 0.0) -> None:
        self.lag = lag
        self.now = 0.0
        self._number = 0
        first = self.new_secret()
        self.store = Timeline(Kept(first))
        self.issuer = Timeline(frozenset({first}))

    def new_secret(self) -> str:
        self._number += 1
        return f"not-a-real-secret-{self._number}"

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def write(self, kept: Kept) -> None:
        """Put this into the store."""
        self.store.becomes(kept, self.now)

    def apply(self, *secrets: str) -> None:
        """Have the issuer accept these, and no others."""
        self.issuer.becomes(frozenset(secrets), self.now)

    def changes(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """When store or issuer changed."""
        return sorted({*self.store.changes(since, until), *self.issuer.changes(since, until)})

    def excuses(self, known: Timeline[str], since: float, until: float) -> bool:
        """Whether a call between these moments may fail.

        It may while neither the store nor what the consumer last got a token with (`known`) is accepted, and for a
        while after: until the store is read again, or, if the issuer was repaired, the circuit lets a request through.
        """
        begins = since - FOUND_AT_ISSUER
        moments = sorted({max(0.0, begins), *self.changes(begins, until), *known.changes(begins, until)})
        for moment, repaired in zip(moments, [*moments[1:], until], strict=True):
            if not (self.store.at(moment).values | {known.at(moment)}) & self.issuer.at(moment):
                at_issuer = bool(self.issuer.changes(repaired, repaired))
                if repaired + (FOUND_AT_ISSUER if at_issuer else FOUND_IN_STORE + self.lag) >= since:
                    return True
        return False
