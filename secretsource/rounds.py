"""Which secret is tried when: candidates, the remembered winner, and the round, as decisions without I/O.

While a secret is changed, store and issuer disagree for a while, in either order. So several secrets may be the right
one, and which one was accepted last is remembered by its value.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Literal, NamedTuple

from .clock import Clock
from .credentials import ClientCredentials
from .events import CandidateKind
from .resolve import Reading
from .secret import Fingerprints

__all__ = ["REQUESTS_PER_ROUND", "Ask", "Candidate", "Candidates", "GiveUp", "Read", "Recovery", "worth_another_pass"]

RECENTLY = 60.0
REQUESTS_PER_ROUND = 6
WAITS_BETWEEN_PASSES = (0.1, 0.5, 1.5)


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

    def accepted(self, candidate: Candidate, reading: Reading, *, remembered: bool) -> bool:
        """Remember the winner: one that is on its way out for a minute only. True if it is another than before.

        `remembered`: it was asked since it had won before, so that its minute goes on.
        """
        before = self._winner
        same = before is not None and before.candidate.value == candidate.value
        until = float("inf")
        if candidate.kind in ("previous", "last accepted"):
            until = self._clock.monotonic() + RECENTLY
            if remembered and before is not None and same and before.among == reading.values:
                until = before.until
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


class Ask(NamedTuple):
    """Make a token request with this candidate, and say how it was refused: "rejected" or "doubtful"."""

    candidate: Candidate


class Read(NamedTuple):
    """Read the store anew after so many seconds, and give what was read: None where there is no time for it."""

    wait: float


class GiveUp(NamedTuple):
    """No secret is the right one: each was rejected, or it is doubtful, or the issuer was unavailable too often."""

    because: Literal["rejected", "doubtful", "unavailable"]


class Recovery:
    """What follows a rejection: reads of the store and requests in turn, until one of those gets a token.

    `before` is the reading with which `first` was refused. `spent` counts the requests of this round, repeated ones
    included. `lockout`: the issuer locks clients out that come with wrong secrets.
    """

    def __init__(
        self,
        candidates: Candidates,
        before: Reading,
        first: Candidate,
        *,
        doubtful: bool,
        spent: Callable[[], int],
        clock: Clock,
        may_be_behind: bool,
        lockout: bool,
    ) -> None:
        self._candidates = candidates
        self._before = before
        self._first = first
        self._doubtful = doubtful
        self._spent = spent
        self._clock = clock
        self._may_be_behind = may_be_behind and not lockout
        self._lockout = lockout

    def steps(self) -> Generator[Ask | Read | GiveUp, Any, None]:
        """The next step each, for the outcome of the one before. Who gets a token leaves it there."""
        rejected = {self._first.value}  # in this pass
        passes = 0
        wait: float | None = 0.0
        waits = iter(WAITS_BETWEEN_PASSES)
        while wait is not None:
            reading = yield Read(wait)
            if reading is None:
                break
            if passes:
                rejected.clear()  # in a further pass all are asked again
            if self._doubtful and reading.values == self._before.values:
                yield GiveUp("doubtful")
            for candidate in self._candidates.of(reading):
                if candidate.value in rejected:
                    continue
                if self._spent() >= REQUESTS_PER_ROUND:
                    # In a further pass each was rejected before, but for one that this read has brought: six are six.
                    yield GiveUp("rejected" if passes else "unavailable")
                self._doubtful = (yield Ask(candidate)) == "doubtful"
                rejected.add(candidate.value)
            passes += 1
            again = self._again(reading, asked=len(rejected), first_pass=passes == 1)
            wait = next(waits, None) if again and self._spent() < REQUESTS_PER_ROUND else None
        yield GiveUp("rejected")

    def _again(self, reading: Reading, *, asked: int, first_pass: bool) -> bool:
        # Between two requests the issuer may have gone over to one that it had rejected: once more, then.
        crossed = first_pass and asked > 1 and not self._lockout and not reading.leased
        now = self._clock.monotonic()
        return crossed or worth_another_pass(reading, now, may_be_behind=self._may_be_behind)
