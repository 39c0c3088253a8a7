"""Two hundred processes that were started at the same moment, and lose their issuer at the same moment.

Each process is a source of its own. Where nothing spread them, each bucket of these tests would hold all of them.
The shares that are allowed are a third more than the largest of a thousand simulated herds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from secretsource import CredentialsRejected, TokenSource
from secretsource.circuit import Circuit
from secretsource.clock import Instant
from secretsource.testing import TickingClock

from .scenario import OUTAGES, Site, settled

PROCESSES = 200
LIFETIME = 1200.0


def share_of_the_fullest(times: Iterable[float], width: float) -> float:
    """The share of all that fell into one bucket of that many seconds."""
    buckets = Counter(int(time // width) for time in times)
    return max(buckets.values()) / buckets.total()


def all_call(sources: list[TokenSource], clock: TickingClock, seconds: float, *, every: float) -> None:
    """Each of them, for so long."""
    ends_at = clock.monotonic() + seconds
    while clock.monotonic() < ends_at:
        for source in sources:
            source.token()
        settled(*sources)
        clock.tick(every)


@pytest.fixture
def site(clock: TickingClock) -> Iterator[Site]:
    with Site(lifetime=LIFETIME, clock=clock) as site:
        yield site


@pytest.fixture
def herd(site: Site) -> list[TokenSource]:
    """Each has a token of the same moment."""
    sources = [site.another() for _ in range(PROCESSES)]
    for source in sources:
        source.token()
    assert len({request.at for request in site.issuer.requests}) == 1
    return sources


def test_renewals_of_tokens_that_were_had_at_the_same_moment_are_spread_over_a_tenth_of_their_life(
    site: Site, herd: list[TokenSource], clock: TickingClock
) -> None:
    clock.tick(0.7 * LIFETIME - 1)
    all_call(herd, clock, 0.1 * LIFETIME + 4, every=2)
    times = [request.at for request in site.issuer.requests[PROCESSES:]]
    assert len(times) == PROCESSES
    assert share_of_the_fullest(times, width=4) < 0.12


def test_after_an_outage_beside_kept_tokens_the_herd_comes_back_over_a_whole_back_off(
    site: Site, herd: list[TokenSource], clock: TickingClock
) -> None:
    clock.tick(0.8 * LIFETIME)
    with site.down(OUTAGES["refused"]):
        all_call(herd, clock, 40, every=2)
    healed = len(site.issuer.requests)
    all_call(herd, clock, 62, every=2)
    back = [request.at for request in site.issuer.requests[healed:]]
    assert len(back) == PROCESSES
    assert share_of_the_fullest(back, width=2) < 0.25
    assert max(back) - min(back) > 20


class InTurn:
    """A clock that shows what another one shows: processes that know nothing of each other are told one by one."""

    def __init__(self) -> None:
        self.of = TickingClock()

    def monotonic(self) -> float:
        return self.of.monotonic()

    def now(self) -> Instant:
        return self.of.now()

    def sleep(self, seconds: float) -> None:
        self.of.sleep(seconds)


def test_after_an_outage_without_tokens_the_herd_comes_back_over_the_second_or_two_of_its_next_attempts() -> None:
    clock, back = InTurn(), []
    with Site(clock=clock) as site:
        for _ in range(PROCESSES // 4):
            clock.of = TickingClock()
            site.source = site.another()
            with site.down(OUTAGES["refused"]):
                site.calls(15, every=0.1)
            site.calls_until_one_succeeds(within=3, every=0.05)
            back.append(site.issuer.requests[-1].at)
    assert share_of_the_fullest(back, width=0.1) < 0.45
    assert max(back) - min(back) > 0.5


def test_circuits_that_opened_at_the_same_moment_let_their_attempts_through_at_many() -> None:
    """One wrong secret, sent out to all; it is made right at the issuer a while later."""
    attempts = []
    for _ in range(PROCESSES):
        clock = TickingClock()
        circuit, began = Circuit(clock, lockout=False), clock.monotonic()
        circuit.trip(CredentialsRejected("wrong"), b"")
        while clock.monotonic() < began + 600:
            clock.tick(circuit.next_try or 0.0)
            assert circuit.turn(early=False) is not None
        attempts.append(clock.monotonic() - began)
    assert min(attempts) >= 600
    assert max(attempts) <= 660
    assert share_of_the_fullest(attempts, width=2) < 0.15
