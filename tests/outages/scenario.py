"""The words in which an outage is told: who is down and how, and what the callers saw meanwhile.

with site.down(OUTAGES["503"]):
    seen = site.calls(60)
assert seen.tokens == [kept]
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

import trustme

from secretsource import (
    DeadlineExceeded,
    IssuerUnavailable,
    SecretSourceError,
    Token,
    TokenSource,
)
from secretsource.clock import SYSTEM_CLOCK, WAITS_BETWEEN_ATTEMPTS, Clock
from secretsource.testing import FakeIssuer, Fault

from ..stores import CLIENT, A, Events, Store, eventually

REFERENCE = "memory://pos"
BACK_OFF = 1.0
"""Seconds for which callers without a token share a failure."""
STALL = 2.0
"""Seconds that a busy machine may add to a call."""


class Call(NamedTuple):
    """One call: when it began, by the source's clock; how many real seconds it took; what came of it."""

    at: float
    took: float
    outcome: Token | SecretSourceError


class Calls(list[Call]):
    """Calls in the order in which they were made."""

    @property
    def tokens(self) -> list[Token]:
        """Each token once."""
        return list(dict.fromkeys(call.outcome for call in self if isinstance(call.outcome, Token)))

    @property
    def failures(self) -> list[SecretSourceError]:
        return [call.outcome for call in self if not isinstance(call.outcome, Token)]

    @property
    def slowest(self) -> float:
        return max(call.took for call in self)

    def between(self, start: float, end: float) -> Calls:
        """Those that began then."""
        return Calls(call for call in self if start <= call.at < end)


def call(source: TokenSource, clock: Clock = SYSTEM_CLOCK) -> Call:
    at, began = clock.monotonic(), time.monotonic()
    outcome: Token | SecretSourceError
    try:
        outcome = source.token()
    except SecretSourceError as error:
        outcome = error
    return Call(at, time.monotonic() - began, outcome)


async def acall(source: TokenSource) -> Call:
    at = time.monotonic()
    outcome: Token | SecretSourceError
    try:
        outcome = await source.atoken()
    except SecretSourceError as error:
        outcome = error
    return Call(at, time.monotonic() - at, outcome)


def settled(*sources: TokenSource) -> None:
    """Wait until no renewal is under way, so that a clock moved by hand does not outrun one."""
    for source in sources:
        eventually(lambda source=source: source._flights.under_way(source._key) is None)  # type: ignore[misc]


def landed(source: TokenSource) -> None:
    """Wait also until whatever was given up has ended: its failure counts from then."""
    settled(source)
    eventually(lambda: source.status().orphaned_threads == 0)


class Site:
    """An issuer, a store in memory and a program with one source between them.

    With `authority` the issuer speaks TLS. `clock` is that of issuer and source.
    """

    def __init__(
        self,
        *,
        lifetime: float = 3600,
        clock: Clock = SYSTEM_CLOCK,
        authority: trustme.CA | None = None,
        store: Store | None = None,
        discovery: bool = False,
        **options: Any,
    ) -> None:
        self.clock, self.authority = clock, authority
        self.context = None if authority is None else ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certify(authority)
        self.issuer = FakeIssuer(lifetime=lifetime, clock=clock, ssl_context=self.context)
        self.issuer.add_client(CLIENT, A)
        self.store = store or Store(ttl=300.0)
        self.events = Events()
        self._discovery, self._options = discovery, options

    def __enter__(self) -> Self:
        self.issuer.start()
        self.source = self.another()
        return self

    def __exit__(self, *_: object) -> None:
        self.issuer.stop()

    def another(self, **options: Any) -> TokenSource:
        """A source as another process has it."""
        place = {"issuer": self.issuer.url} if self._discovery else {"token_url": self.issuer.token_url}
        given = {"stores": self.store.stores, "clock": self.clock, "on_event": self.events, **place, **self._options}
        return TokenSource(given.pop("credentials", REFERENCE), **{**given, **options})

    def certify(self, authority: trustme.CA | None) -> None:
        """From now on the issuer shows a certificate of this authority."""
        if authority is not None and self.context is not None:
            authority.issue_cert("127.0.0.1").configure_cert(self.context)

    def down(self, outage: Outage) -> AbstractContextManager[None]:
        """The issuer is, inside the `with`."""
        return outage.of(self)

    def calls(self, seconds: float, *, every: float = 0.005) -> Calls:
        """What one caller sees who calls so often for so long."""
        ends_at, seen = self.clock.monotonic() + seconds, Calls()
        while self.clock.monotonic() < ends_at:
            seen.append(call(self.source, self.clock))
            self._pass(every)
        return seen

    def calls_until_one_succeeds(self, within: float, *, every: float = 0.005) -> Calls:
        ends_at, seen = self.clock.monotonic() + within, Calls()
        while not seen or isinstance(seen[-1].outcome, SecretSourceError):
            assert self.clock.monotonic() < ends_at, f"not within {within} s: {seen[-1:]}"
            seen.append(call(self.source, self.clock))
            self._pass(every)
        return seen

    def _pass(self, seconds: float) -> None:
        if self.clock is not SYSTEM_CLOCK:
            settled(self.source)
        self.clock.sleep(seconds)

    async def task_calls(self, seconds: float, *, every: float = 0.02) -> Calls:
        """The same by a task of a loop, in real time."""
        ends_at, seen = time.monotonic() + seconds, Calls()
        while time.monotonic() < ends_at:
            seen.append(await acall(self.source))
            await asyncio.sleep(every)
        return seen

    def thread_and_task_call(self, seconds: float) -> tuple[Calls, Calls]:
        """What a thread and a task see that call at the same time."""
        of_tasks: list[Calls] = []
        loop = threading.Thread(target=lambda: of_tasks.append(asyncio.run(self.task_calls(seconds))))
        loop.start()
        of_threads = self.calls(seconds)
        loop.join()
        return of_threads, of_tasks[0]

    @property
    def statuses(self) -> list[int]:
        """What the token requests were answered that arrived."""
        return [request.status for request in self.issuer.requests if request.path.endswith("/connect/token")]


class Outage(NamedTuple):
    """A way in which an issuer is out of order, and the error that callers without a token get."""

    of: Callable[[Site], AbstractContextManager[None]]
    error: type[SecretSourceError]
    says: str

    @property
    def timeout(self) -> float:
        """Seconds for a call: few where an error comes no earlier."""
        return 1.5 if self.error is DeadlineExceeded else 10.0

    @property
    def longest(self) -> float:
        """Seconds that a call takes without a token: its whole time, or the waits between three attempts."""
        return 1.5 if self.error is DeadlineExceeded else 1.2 * sum(WAITS_BETWEEN_ATTEMPTS)


@contextmanager
def hanging(site: Site) -> Iterator[None]:
    with site.issuer.failing(Fault(hang=True)), site.issuer.failing(Fault(hang=True), path="discovery"):
        try:
            yield
        finally:
            site.issuer.release()


@contextmanager
def frozen(site: Site) -> Iterator[None]:
    """Connections are accepted by the operating system, and nobody ever reads from them."""
    with site.issuer.down(), socket.create_server(("127.0.0.1", urlsplit(site.issuer.url).port or 0)):
        yield


@contextmanager
def distrusted(site: Site) -> Iterator[None]:
    """Somebody has exchanged the certificate for one of an authority that nobody here trusts."""
    site.certify(trustme.CA())
    try:
        yield
    finally:
        site.certify(site.authority)


def answering(status: int, **headers: str) -> Callable[[Site], AbstractContextManager[None]]:
    fault = Fault(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})

    @contextmanager
    def of(site: Site) -> Iterator[None]:
        with site.issuer.failing(fault), site.issuer.failing(fault, path="discovery"):
            yield

    return of


OUTAGES = {
    "refused": Outage(lambda site: site.issuer.down(), IssuerUnavailable, "connection refused"),
    "hanging": Outage(hanging, DeadlineExceeded, "within"),
    "frozen": Outage(frozen, DeadlineExceeded, "within"),
    "503": Outage(answering(503), IssuerUnavailable, "503"),
    "429 with Retry-After": Outage(answering(429, Retry_After="1"), IssuerUnavailable, "429"),
    "not trusted": Outage(distrusted, IssuerUnavailable, "is not trusted"),
}
