"""A program with one TokenSource in virtual time: all of the library, but for the socket and the threads.

Reads and requests take time on the consumer's own clock and meet what stood there at that moment. What a thread of its
own would do is done at once, so that a run is the same for the same seed.
"""

from __future__ import annotations

import _thread
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch
from urllib.parse import parse_qs

from secretsource import Document, SecretReference, SecretSourceError, TokenSource, flight, source
from secretsource.clock import Deadline, Instant
from secretsource.events import Event, RefreshFailed
from secretsource.exchange import Answer, Outgoing

from .timeline import History, Timeline

__all__ = ["Asked", "Consumer", "Habits", "virtual_time"]

CLIENT = "pos"


class Habits(NamedTuple):
    """`ttl` of the store in seconds (0: a file).

    `stall`: how often an operation takes `stalled` seconds and not milliseconds. `begins`: when the program starts.
    """

    ttl: float
    stall: float = 0.02
    stalled: float = 1.5
    lifetime: float = 1.0
    begins: float = 0.0


class Asked(NamedTuple):
    """One token request: when it met the issuer, with which secret, and whether that was accepted."""

    at: float
    secret: str
    accepted: bool


class VirtualClock:
    """Goes on when somebody sleeps or waits for something."""

    def __init__(self, begins: float) -> None:
        self.at = begins

    def monotonic(self) -> float:
        return self.at

    def now(self) -> Instant:
        return Instant(self.at, self.at, self.at)

    def sleep(self, seconds: float) -> None:
        self.at += seconds


class _AtOnce:
    """What the flights use of `_thread`, for one thread that does everything itself."""

    allocate_lock = staticmethod(_thread.allocate_lock)
    get_ident = staticmethod(_thread.get_ident)

    @staticmethod
    def start_new_thread(work: Callable[..., object], arguments: tuple[Any, ...]) -> int:
        work(*arguments)
        return 0


@contextmanager
def virtual_time(seed: int) -> Iterator[random.Random]:
    """No threads, and the same random numbers for the same seed."""
    state = random.getstate()
    random.seed(seed)
    try:
        with patch.object(flight, "_thread", _AtOnce), patch.object(source, "Transport", _Wire):
            yield random.Random(seed)
    finally:
        random.setstate(state)


class _Wire:
    """The transport, whose requests are answered by the consumer that sends them."""

    def __init__(self, **settings: object) -> None:
        self.answer: Callable[[str], Answer] | None = None

    def send(self, outgoing: Outgoing, deadline: Deadline, *, phase: str) -> Answer:
        _, body = outgoing.open()
        assert self.answer is not None
        return self.answer(parse_qs((body or b"").decode())["client_secret"][0])

    def forget(self) -> None:
        """There are no certificates."""


class Consumer:
    """A program that calls several times a second. `failures` are the calls that nothing excuses."""

    options: frozenset[str] = frozenset()

    def __init__(self, history: History, habits: Habits, dice: random.Random) -> None:
        self._history, self._habits, self._dice = history, habits, dice
        self.clock = VirtualClock(habits.begins)
        self.ttl = habits.ttl
        self.eventually_consistent = history.lag > 0
        self.known = Timeline("")
        self.asked: list[Asked] = []
        self.reads: list[float] = []
        self.failures: list[str] = []
        self.calls = 0
        self._tokens = 0
        self._began = habits.begins
        self._source = TokenSource(
            "simulated:pos",
            stores={"simulated": self},
            token_url="https://issuer.example/token",
            auth_method="client_secret_post",
            on_event=self._notice,
            clock=self.clock,
        )
        self._source._fetcher._transport.answer = self._answer  # type: ignore[attr-defined]

    def live(self, until: float, pace: float = 0.3) -> None:
        """Call until then, every `pace` seconds or so."""
        while self.clock.at < until:
            self.calls += 1
            self._began = self.clock.at
            try:
                self._source.token()
            except SecretSourceError as error:
                self._failed(error)
            self.clock.at += self._dice.uniform(0, 2 * pace)

    # --- what else must not be

    def asked_too_often(self) -> list[str]:
        """Rejected requests while nothing changed: more than eight in 5 s, or in the minute after the first ten."""
        rejected = [asked.at for asked in self.asked if not asked.accepted]
        changes = sorted([*self._history.changes(), self._habits.begins])
        found = []
        for begins, ends in zip(changes, [*changes[1:], self.clock.at], strict=True):
            begins += self._history.lag  # until all see it
            here = [at for at in rejected if begins <= at < ends]
            burst = max((sum(at <= other < at + 5 for other in here) for at in here), default=0)
            quiet = sum(begins + 10 <= at < begins + 70 for at in here)
            if burst > 8 or quiet > 8:
                found.append(f"after {begins:.3f}: {burst} rejected requests in 5 s, {quiet} in a quiet minute")
        return found

    def left_behind(self) -> list[str]:
        """Tokens got with another secret than current, though the issuer has accepted that for long.

        For a minute, that is, and for as long as the store is not read again.
        """
        store, issuer, long = self._history.store, self._history.issuer, 64 + 1.1 * self.ttl
        found = []
        for asked in self.asked:
            begins = asked.at - long
            moments = [begins, *self._history.changes(begins, asked.at)]
            elsewhere = all(
                asked.secret != store.at(moment).current and store.at(moment).current in issuer.at(moment)
                for moment in moments
            )
            if asked.accepted and elsewhere and begins > 0:
                found.append(f"at {asked.at:.3f}: with a secret that is on its way out")
        return found

    # --- the store and the issuer, as it meets them

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        self._take_time()
        self.reads.append(self.clock.at)
        kept = self._history.store.at(self.clock.at - self._dice.uniform(0, self._history.lag))
        beside = {"client_secret_pending": kept.pending, "client_secret_previous": kept.previous}
        fields = {"client_id": CLIENT, "client_secret": kept.current, **beside}
        self._take_time()
        return Document({name: value for name, value in fields.items() if value})

    def _answer(self, secret: str) -> Answer:
        self._take_time()
        at, accepted = self.clock.at, self._accepts(secret)
        self.asked.append(Asked(at, secret, accepted))
        if accepted:
            self.known.becomes(secret, at)
        self._tokens += 1
        members = {"access_token": f"token-{self._tokens}", "token_type": "Bearer", "expires_in": self._habits.lifetime}
        self._take_time()
        if not accepted:
            return Answer(401, {"content-type": "application/json"}, b'{"error": "invalid_client"}')
        return Answer(200, {"content-type": "application/json"}, json.dumps(members).encode())

    def _accepts(self, secret: str) -> bool:
        return secret in self._history.issuer.at(self.clock.at)

    def _take_time(self) -> None:
        stalls = self._dice.random() < self._habits.stall
        self.clock.at += self._dice.uniform(0, self._habits.stalled) if stalls else self._dice.uniform(0.001, 0.02)

    # --- what is a failure

    def _notice(self, event: Event) -> None:
        # A renewal that fails after the kept token has ended: a call that came meanwhile has waited for it.
        if isinstance(event, RefreshFailed) and event.life_left == 0:
            self._failed(f"{event.error}: {event.reason}")

    def _failed(self, why: object) -> None:
        if not self._history.excuses(self.known, self._began, self.clock.at):
            self.failures.append(f"call {self.calls} at {self._began:.3f}: {why}")
