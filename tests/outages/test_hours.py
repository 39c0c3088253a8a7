"""Outages that last for hours, by a clock that is moved by hand; issuer and store are real, or in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trustme

from secretsource import (
    AccessDenied,
    BackendUnavailable,
    CredentialsRejected,
    IssuerProfile,
    IssuerUnavailable,
    MalformedSecret,
    SecretNotFound,
    SecretSourceError,
)
from secretsource.events import CredentialsDropped, CredentialsRecovered, CredentialsStale, RefreshFailed
from secretsource.testing import Fault, TickingClock

from ..stores import CLIENT, A, B, Store, eventually
from .scenario import OUTAGES, REFERENCE, Calls, Site

MINUTE, HOUR = 60.0, 3600.0
LONGEST_BACK_OFF = 60.0


def gaps_between_attempts(site: Site) -> list[float]:
    return [later.at - earlier.at for earlier, later in pairwise(site.issuer.requests)]


@contextmanager
def without_the_store(site: Site, failure: SecretSourceError | None = None) -> Iterator[None]:
    site.store.failure = failure or BackendUnavailable("the store is down", reference=REFERENCE, hint="Start it")
    try:
        yield
    finally:
        site.store.failure = None


# --- the issuer


def test_for_four_hours_a_token_of_twelve_serves_and_the_issuer_is_asked_once_or_twice_a_minute(
    clock: TickingClock,
) -> None:
    with Site(lifetime=12 * HOUR, clock=clock, refresh_ahead=6 * HOUR) as site:
        kept = site.source.token()
        clock.tick(6 * HOUR)
        with site.down(OUTAGES["503"]):
            seen = site.calls(4 * HOUR, every=15)
        assert seen.tokens == [kept]
        assert seen.failures == []
        gaps = gaps_between_attempts(site)[1:]
        assert max(gaps) <= LONGEST_BACK_OFF + 15
        assert len(gaps) < 4 * 60 * 3, "half a minute on average"
        assert len([gap for gap in gaps[:3] if gap <= 15]) == 3, "the first waits are short"
        after = site.calls(LONGEST_BACK_OFF + 30, every=15)
        assert len(after.tokens) == 2
        assert after.failures == []
        assert site.source.status().last_error is None


def test_the_attempts_grow_denser_towards_the_end_of_the_token(clock: TickingClock) -> None:
    with Site(lifetime=HOUR, clock=clock) as site:
        kept = site.source.token()
        clock.tick(0.8 * HOUR)
        with site.down(OUTAGES["503"]):
            assert site.calls(0.2 * HOUR - 1, every=0.5).tokens == [kept]
        times = [HOUR - (request.at - site.issuer.requests[0].at) for request in site.issuer.requests[1:]]
        for left, next_left in pairwise(times):
            assert left - next_left <= left / 4 + 0.5


@pytest.mark.parametrize("kind", ["refused", "503", "not trusted"])
def test_two_hours_without_a_token_end_within_one_back_off(
    kind: str, clock: TickingClock, authority: trustme.CA, ca_file: Path
) -> None:
    with Site(lifetime=10 * MINUTE, clock=clock, authority=authority, ca_file=ca_file) as site:
        site.source.token()
        with site.down(OUTAGES[kind]):
            seen = site.calls(2 * HOUR, every=120)
        assert len(seen.tokens) == 1
        assert {type(error) for error in seen.failures} == {IssuerUnavailable}
        clock.tick(1.1)
        assert len(site.calls(1, every=1).tokens) == 1, "one back-off later, the first call has a token"


def test_while_nobody_has_a_token_the_issuer_is_asked_twice_a_second_at_most(clock: TickingClock) -> None:
    with Site(clock=clock) as site, site.down(OUTAGES["503"]):
        site.calls(60, every=0.05)
        requests = site.issuer.requests
        assert 60 < len(requests) <= 2 * (requests[-1].at - requests[0].at)


def test_an_issuer_that_flaps_is_not_noticed(clock: TickingClock) -> None:
    """It is up for four seconds of each fifteen: at least once in the last quarter of a token's life."""
    with Site(lifetime=MINUTE, clock=clock) as site:
        seen = Calls()
        for _ in range(40):
            seen += site.calls(4, every=0.5)
            with site.down(OUTAGES["503"]):
                seen += site.calls(11, every=0.5)
        assert seen.failures == []
        assert len(seen.tokens) >= 10
        assert all(call.outcome.lifetime == MINUTE for call in seen if not isinstance(call.outcome, SecretSourceError))
        assert len(site.statuses) <= 20 * len(seen.tokens)


def test_beside_an_issuer_that_hangs_nobody_waits_once_a_renewal_has_failed(clock: TickingClock) -> None:
    with Site(lifetime=MINUTE, clock=clock, timeout=1) as site:
        kept = site.source.token(timeout=20)
        with site.down(OUTAGES["hanging"]):
            clock.tick(0.81 * MINUTE)
            site.calls(1, every=1)
            clock.tick(0.15 * MINUTE)
            seen = site.calls(0.03 * MINUTE, every=1)
        assert seen.tokens == [kept]
        assert seen.failures == []
        assert seen.slowest < 0.7


def test_an_issuer_that_is_slow_is_not_noticed(clock: TickingClock) -> None:
    with Site(lifetime=MINUTE, clock=clock) as site:
        kept = site.source.token()
        site.issuer.latency = 1.0
        for _ in range(2):
            clock.tick(0.81 * MINUTE)
            seen = site.calls(1, every=1)
            assert seen.tokens == [kept]
            assert seen.slowest < 0.8
            kept = site.source.token()
        assert site.issuer.token_requests == 3


# --- the time that the issuer asks for


@pytest.mark.parametrize(("asked", "obeyed"), [(30, 30), (300, 300), (86_400, 300)])
def test_retry_after_is_obeyed_up_to_five_minutes_beside_a_kept_token(
    clock: TickingClock, asked: int, obeyed: int
) -> None:
    with Site(lifetime=HOUR, clock=clock) as site:
        kept = site.source.token()
        clock.tick(0.8 * HOUR)
        site.issuer.fail(Fault(status=429, headers={"Retry-After": str(asked)}), times=1)
        assert site.calls(obeyed - 1, every=1).tokens == [kept]
        assert site.statuses == [200, 429]
        assert len(site.calls(5, every=1).tokens) == 2
        assert site.statuses == [200, 429, 200]


@pytest.mark.parametrize(("asked", "obeyed"), [(30, 30), (300, 300), (86_400, 300)])
def test_retry_after_is_obeyed_up_to_five_minutes_without_a_token(clock: TickingClock, asked: int, obeyed: int) -> None:
    with Site(clock=clock) as site:
        site.issuer.fail(Fault(status=503, headers={"Retry-After": str(asked)}), times=1)
        seen = site.calls(obeyed - 1, every=1)
        assert seen.tokens == []
        told = [error.retry_after for error in seen.failures]
        assert told == [pytest.approx(obeyed - second) for second in range(obeyed - 1)]
        assert site.statuses == [503]
        assert len(site.calls(5, every=1).tokens) == 1


def test_retry_after_outlives_the_token_beside_which_it_came(clock: TickingClock) -> None:
    with Site(lifetime=MINUTE, clock=clock) as site:
        kept = site.source.token()
        clock.tick(0.81 * MINUTE)
        site.issuer.fail(Fault(status=429, headers={"Retry-After": "120"}), times=1)
        seen = site.calls(119, every=1)
        assert seen.tokens == [kept]
        assert isinstance(seen[-1].outcome, IssuerUnavailable)
        assert site.statuses == [200, 429]
        assert len(site.calls(3, every=1).tokens) == 1


# --- the store

Failure = Callable[[], SecretSourceError]
GRACE: dict[str, tuple[Failure, float]] = {
    "down": (lambda: BackendUnavailable("down", reference=REFERENCE, hint="Start it"), 24 * HOUR),
    "half written": (lambda: MalformedSecret("half", reference=REFERENCE, hint="Write it whole"), 24 * HOUR),
    "denied": (lambda: AccessDenied("denied", reference=REFERENCE, hint="Allow it"), 5 * MINUTE),
    "gone": (lambda: SecretNotFound("gone", reference=REFERENCE, hint="Put it there"), 5 * MINUTE),
}


@pytest.mark.parametrize("kind", GRACE)
def test_the_last_good_credentials_get_tokens_until_their_grace_is_over(kind: str, clock: TickingClock) -> None:
    failure, grace = GRACE[kind]
    lifetime = grace / 40
    with Site(lifetime=lifetime, clock=clock, store=Store(ttl=0.0)) as site:
        site.source.token()
        began = clock.monotonic()
        with without_the_store(site, failure()):
            seen = site.calls(grace, every=lifetime / 8)
            assert seen.failures == []
            assert len(seen.tokens) >= 40
            late = site.calls(3 * lifetime, every=lifetime / 8)
            assert late.between(began + grace + 2 * lifetime, float("inf")).tokens == []
            error = late[-1].outcome
            assert type(error) is type(failure())
            assert error.hint
        clock.tick(1.1)
        assert len(site.calls(1, every=1).tokens) == 1
        eventually(lambda: len(site.events.of(CredentialsDropped)) == 1)
        eventually(lambda: site.events.of(CredentialsStale))


def test_a_store_that_flaps_is_not_noticed(clock: TickingClock) -> None:
    with Site(lifetime=MINUTE, clock=clock, store=Store(ttl=0.0)) as site:
        seen = Calls()
        for _ in range(20):
            seen += site.calls(30, every=5)
            with without_the_store(site):
                seen += site.calls(90, every=5)
        assert seen.failures == []
        assert len(seen.tokens) >= 40
        eventually(lambda: len(site.events.of(CredentialsRecovered)) >= 5)


# --- both

ORDERS = ["the store first", "the issuer first"]


@pytest.mark.parametrize("order", ORDERS)
def test_with_both_down_a_kept_token_serves_to_its_end_and_both_may_come_back_in_either_order(
    clock: TickingClock, order: str
) -> None:
    with Site(lifetime=HOUR, clock=clock, store=Store(ttl=0.0)) as site, ExitStack() as store, ExitStack() as issuer:
        kept = site.source.token()
        store.enter_context(without_the_store(site))
        issuer.enter_context(site.down(OUTAGES["refused"]))
        seen = site.calls(HOUR - 1, every=10)
        assert seen.tokens == [kept]
        assert seen.failures == []
        clock.tick(1)
        assert {type(error) for error in site.calls(HOUR, every=60).failures} == {IssuerUnavailable}
        first, second = (store, issuer) if order == ORDERS[0] else (issuer, store)
        first.close()
        clock.tick(1.1)
        # The last good credentials serve for a day, so that the issuer alone is what is needed.
        assert len(site.calls(1, every=1).tokens) == (order == ORDERS[1])
        second.close()
        clock.tick(1.1)
        assert len(site.calls(1, every=1).tokens) == 1


@pytest.mark.parametrize("order", ORDERS)
def test_a_program_that_starts_while_both_are_down_says_what_is_missing_first(clock: TickingClock, order: str) -> None:
    with Site(clock=clock) as site, ExitStack() as store, ExitStack() as issuer:
        store.enter_context(without_the_store(site))
        issuer.enter_context(site.down(OUTAGES["refused"]))
        assert {type(error) for error in site.calls(HOUR, every=60).failures} == {BackendUnavailable}
        first, second = (store, issuer) if order == ORDERS[0] else (issuer, store)
        first.close()
        clock.tick(1.1)
        (error,) = site.calls(1, every=1).failures
        assert type(error) is (IssuerUnavailable if order == ORDERS[0] else BackendUnavailable)
        second.close()
        clock.tick(1.1)
        assert len(site.calls(1, every=1).tokens) == 1


# --- a wrong secret, for hours


@pytest.mark.parametrize(("lockout", "longest"), [(False, 60.0), (True, 300.0)])
def test_a_wrong_secret_is_sent_once_an_interval_for_hours_and_one_that_is_repaired_at_the_issuer_is_found_in_one(
    clock: TickingClock, lockout: bool, longest: float
) -> None:
    with Site(clock=clock, profile=IssuerProfile(lockout=lockout)) as site:
        site.issuer.set_secret(CLIENT, B)
        seen = site.calls(HOUR, every=10)
        assert {type(error) for error in seen.failures} == {CredentialsRejected}
        assert all(error.retry_after is not None and error.retry_after <= longest for error in seen.failures)
        gaps = gaps_between_attempts(site)
        assert max(gaps) <= longest + 10
        assert len(gaps) <= HOUR / (longest * 0.75) + 10
        site.issuer.set_secret(CLIENT, A)
        found = site.calls_until_one_succeeds(within=longest + 6, every=1)
        assert len(found.tokens) == 1


@pytest.mark.parametrize("ttl", [0.0, 300.0])
def test_after_hours_a_secret_that_is_repaired_in_the_store_is_found_within_six_seconds(
    clock: TickingClock, ttl: float
) -> None:
    with Site(clock=clock, store=Store(ttl=ttl)) as site:
        site.issuer.set_secret(CLIENT, B)
        site.calls(HOUR, every=10)
        site.store.put(B)
        site.calls_until_one_succeeds(within=6, every=0.25)


def test_an_outage_while_the_circuit_is_open_changes_nothing_of_the_way_back(clock: TickingClock) -> None:
    with Site(clock=clock) as site:
        site.issuer.set_secret(CLIENT, B)
        site.calls(10 * MINUTE, every=10)
        with site.down(OUTAGES["refused"]), without_the_store(site):
            seen = site.calls(HOUR, every=10)
        assert seen.tokens == []
        assert {type(error) for error in seen.failures} == {CredentialsRejected, IssuerUnavailable}
        site.store.put(B)
        site.calls_until_one_succeeds(within=6, every=0.25)


def test_an_outage_while_the_circuit_is_open_leaves_the_interval_at_its_longest(clock: TickingClock) -> None:
    with Site(clock=clock) as site:
        site.issuer.set_secret(CLIENT, B)
        site.calls(10 * MINUTE, every=10)
        with site.down(OUTAGES["refused"]):
            site.calls(HOUR, every=10)
        site.issuer.set_secret(CLIENT, A)
        site.calls_until_one_succeeds(within=LONGEST_BACK_OFF + 6, every=1)


def test_a_kept_token_serves_to_its_end_beside_an_open_circuit_and_an_outage(clock: TickingClock) -> None:
    with Site(lifetime=HOUR, clock=clock) as site:
        kept = site.source.token()
        site.issuer.set_secret(CLIENT, B)
        seen = site.calls(0.9 * HOUR, every=5)
        with site.down(OUTAGES["refused"]), without_the_store(site):
            seen += site.calls(0.1 * HOUR - 1, every=5)
        assert seen.tokens == [kept]
        assert seen.failures == []
        eventually(lambda: len(site.events.of(RefreshFailed)) > 5)
