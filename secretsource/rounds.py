"""Which secret is tried when: candidates, the remembered winner, and the circuit, as decisions without I/O.

While a secret is changed, store and issuer disagree for a while, in either order. So several secrets may be the right
one, and which one was accepted last is remembered by its value. When none is, the circuit keeps the issuer from being
asked again and again.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from .clock import Clock
from .credentials import ClientCredentials
from .errors import SecretSourceError
from .events import CandidateKind
from .resolve import Budget, Reading
from .secret import Fingerprints

__all__ = ["Candidate", "Candidates", "Circuit", "worth_another_pass"]

RECENTLY = 60.0
_FIRST_DELAY = 1.0
_LONGEST_DELAY = 60.0
_LONGEST_DELAY_WITH_LOCKOUT = 300.0


class Candidate(NamedTuple):
    """A secret that may be the right one now; `value` is its fingerprint."""

    kind: CandidateKind
    credentials: ClientCredentials
    value: bytes


class _Winner(NamedTuple):
    """The candidate that was accepted last, among which values, and until when it is asked first."""

    candidate: Candidate
    among: bytes
    until: float


class Candidates:
    """The secrets of a reading in the order in which they are tried, and the memory of the one that won."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._fingerprints = Fingerprints()
        self._winner: _Winner | None = None

    @property
    def winner(self) -> Candidate | None:
        """The one that was accepted last."""
        return None if self._winner is None else self._winner.candidate

    def of(self, reading: Reading) -> list[Candidate]:
        """Each value once: current, pending, previous, and the one accepted last even if the store has it no more.

        (People write the store first and the issuer later.)
        """
        current = reading.credentials
        found: list[tuple[CandidateKind, ClientCredentials | None]] = [
            ("current", current),
            ("pending", current.pending),
            ("previous", current.previous),
        ]
        if self._winner is not None and self._winner.candidate.credentials.client_id == current.client_id:
            found.append(("last accepted", self._winner.candidate.credentials))
        candidates: dict[bytes, Candidate] = {}
        for kind, credentials in found:
            if credentials is not None:
                value = self._fingerprints.of(credentials.client_secret)
                candidates.setdefault(value, Candidate(kind, credentials, value))
        return list(candidates.values())

    def first(self, reading: Reading) -> Candidate:
        """The remembered winner while the values are those among which it won, else current."""
        candidates, winner = self.of(reading), self._winner
        if winner is not None and winner.among == reading.values and self._clock.monotonic() < winner.until:
            return next((one for one in candidates if one.value == winner.candidate.value), candidates[0])
        return candidates[0]

    def accepted(self, candidate: Candidate, reading: Reading) -> bool:
        """Remember the winner: one that is on its way out for a minute only. True if it is another than before."""
        before, now = self._winner, self._clock.monotonic()
        same = before is not None and before.candidate.value == candidate.value
        until = float("inf")
        if candidate.kind in ("previous", "last accepted"):
            until = now + RECENTLY
            if before is not None and same and before.among == reading.values and now < before.until < until:
                until = before.until  # won again before current was asked again
        self._winner = _Winner(candidate, reading.values, until)
        return candidate.kind != "current" if before is None else not same


def worth_another_pass(reading: Reading, now: float, *, may_be_behind: bool) -> bool:
    """Whether all candidates may be asked again: a change is under way, or came less than a minute ago.

    `may_be_behind`: one may be under way unseen, since the store may still give what was there before. What is leased
    is other at each read, which says nothing.
    """
    if reading.leased:
        return False
    changed_recently = reading.changed is not None and now - reading.changed < RECENTLY
    return may_be_behind or changed_recently or reading.credentials.pending is not None


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
