"""TokenSource: how a token is kept and renewed, called from threads."""

from __future__ import annotations

import _thread
import copy
import gc
import itertools
import math
import pickle
import random
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from secretsource import (
    BackendUnavailable,
    ClientCredentials,
    ConfigurationError,
    CredentialsRejected,
    CredentialsSource,
    DeadlineExceeded,
    Document,
    IssuerUnavailable,
    SecretSourceError,
    Token,
    TokenRequestRefused,
    TokenSource,
)
from secretsource.clock import Instant
from secretsource.events import (
    CredentialsChanged,
    CredentialsStale,
    Event,
    LifetimeAssumed,
    PlainHttpAllowed,
    RefreshFailed,
    ScopeNarrowed,
    TokenRefused,
)
from secretsource.testing import FakeIssuer, Fault, TickingClock, secret_file

from .stores import CLIENT, LONG, A, B, Events, Store, eventually, in_threads

CANARY = "not-a-real-secret-canary"
NOWHERE = "http://127.0.0.1:9/token"  # nothing listens there, and nothing is sent
GIVEN = "the given credentials"
# An issuer that repeats the secret where it should say what is wrong.
ECHO = b'{"error": "%s", "error_description": "' + CANARY.encode() + b'"}'


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def issuer(clock: TickingClock) -> Iterator[FakeIssuer]:
    with FakeIssuer(lifetime=100, clock=clock) as issuer:
        issuer.add_client(CLIENT, A)
        yield issuer


Make = Callable[..., TokenSource]


@pytest.fixture
def source_of(issuer: FakeIssuer, clock: TickingClock, events: Events, monkeypatch: pytest.MonkeyPatch) -> Make:
    # Hits read the system's clock themselves: here that is the ticking one, so that their window is tested, too.
    monkeypatch.setattr("secretsource.source.monotonic", clock.monotonic)

    def make(**options: Any) -> TokenSource:
        credentials = options.pop("credentials", ClientCredentials(CLIENT, A))
        return TokenSource(
            credentials, **{"token_url": issuer.token_url, "clock": clock, "on_event": events, **options}
        )

    return make


@pytest.fixture
def source(source_of: Make) -> TokenSource:
    return source_of()


def landed(source: TokenSource) -> None:
    """Wait until nothing is under way for the default token."""
    eventually(lambda: source._flights.under_way(source._key) is None)


# --- a kept token


def test_a_token_is_fetched_once_and_kept(source: TokenSource, issuer: FakeIssuer, clock: TickingClock) -> None:
    token = source.token()
    assert issuer.accepts(token.access_token)
    for _ in range(69):
        clock.tick(1)
        assert source.token() is token
    assert issuer.token_requests == 1


def test_each_distinct_request_is_a_kept_token_of_its_own(source_of: Make, issuer: FakeIssuer) -> None:
    source = source_of(scope="a b", audience="api", resource="https://one.example", extra={"x": "1"})
    requests: list[dict[str, Any]] = [
        {},
        {"scope": "c"},
        {"scope": ()},
        {"audience": "other"},
        {"resource": ["https://one.example", "https://two.example"]},
        {"extra": {"y": "2"}},
        {"extra": {"x": "2"}},
    ]
    tokens = [source.token(**request) for request in requests]
    assert len({token.access_token for token in tokens}) == len(requests) == issuer.token_requests
    assert [source.token(**request) for request in requests] == tokens
    assert issuer.token_requests == len(requests)
    assert source.status().kept_tokens == len(requests)


def test_each_part_of_a_request_replaces_the_constructors_and_extra_merges(source_of: Make, issuer: FakeIssuer) -> None:
    source = source_of(scope="a b", audience="api", resource="https://one.example", extra={"x": "1", "y": "2"})
    source.token(scope=["c"], extra={"x": "3", "z": "4"})
    (request,) = issuer.requests
    assert dict(request.form) == {
        "grant_type": "client_credentials",
        "scope": "c",
        "audience": "api",
        "resource": "https://one.example",
        "x": "3",
        "y": "2",
        "z": "4",
    }


@pytest.mark.parametrize(
    "request_",
    [
        {"scope": "b a"},
        {"scope": ["a", "b", "a"]},
        {"audience": "api"},
        {"extra": {}},
        {"timeout": 5},
        {"force": False},
    ],
)
def test_a_request_equal_to_the_default_is_the_default(
    source_of: Make, issuer: FakeIssuer, request_: dict[str, Any]
) -> None:
    source = source_of(scope="a b", audience="api")
    assert source.token(**request_) is source.token()
    assert issuer.token_requests == source.status().kept_tokens == 1


def test_the_order_of_scopes_and_resources_does_not_matter(source: TokenSource, issuer: FakeIssuer) -> None:
    one = source.token(scope="a b", resource=["https://one.example", "https://two.example"])
    other = source.token(scope=["b", "a"], resource=["https://two.example", "https://one.example"])
    assert one is other


def test_at_most_256_other_tokens_are_kept(source: TokenSource, issuer: FakeIssuer) -> None:
    first = source.token()
    others = [source.token(scope=f"scope-{number}") for number in range(258)]
    assert source.status().kept_tokens == 257
    assert source.token() is first, "the default has a place of its own"
    assert source.token(scope="scope-257") is others[-1]
    assert source.token(scope="scope-0") is not others[0]


@pytest.mark.parametrize("request_", [{}, {"scope": "other"}])
@pytest.mark.parametrize(
    "pass_time",
    [
        lambda clock: clock.tick(101),
        lambda clock: (clock.suspend(101), clock.tick(1)),
        lambda clock: (clock.set_wall(101), clock.tick(1)),
    ],
    ids=["monotonic", "suspended", "wall"],
)
def test_a_token_ends_by_whichever_clock_says_so_first(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, pass_time: Any, request_: dict[str, Any]
) -> None:
    token = source.token(**request_)
    pass_time(clock)
    assert source.token(**request_) is not token
    assert issuer.token_requests == 2


def test_a_wall_clock_that_is_set_back_lengthens_no_token(source: TokenSource, clock: TickingClock) -> None:
    token = source.token()
    clock.set_wall(-86400)
    clock.tick(1.1)
    assert source.token() is token
    clock.tick(100)
    assert source.token() is not token


def test_a_hit_reads_all_clocks_at_least_once_a_second(source: TokenSource, clock: TickingClock) -> None:
    token = source.token()
    clock.tick(5)
    source.token()
    clock.suspend(1000)
    clock.tick(1.01)
    assert source.token() is not token


def test_hits_of_one_second_read_all_clocks_once(
    source: TokenSource, clock: TickingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = source.token()
    looks: list[None] = []
    now = clock.now

    def looked() -> Instant:
        looks.append(None)
        return now()

    monkeypatch.setattr(clock, "now", looked)
    for second in range(1, 4):
        clock.tick(1)
        assert [source.token() for _ in range(10)] == [token] * 10
        # One more where the token's own age is asked for.
        assert len(looks) <= 2 * second


def test_hits_see_when_a_token_was_dropped_meanwhile(source: TokenSource, clock: TickingClock) -> None:
    token, call, kept = source.token(), source._call({}), source._default
    assert kept is not None
    source.invalidate(token)
    source._open_window(call, kept, clock.now(), 1.0)  # by who has looked before
    another = source.token()
    assert another is not token
    kept = source._default
    assert kept is not None
    source.close()
    source._default = kept  # put there by a flight that landed meanwhile
    source._open_window(call, kept, clock.now(), 1.0)
    with pytest.raises(ConfigurationError, match="closed"):
        source.token()


def test_a_clock_that_is_not_the_systems_is_read_at_each_call(issuer: FakeIssuer, clock: TickingClock) -> None:
    clock.tick(1e9)  # later than any machine that runs this
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url, clock=clock)
    token = source.token()
    clock.tick(101)
    assert source.token() is not token


def test_a_hit_never_passes_the_refresh_point_unseen(source_of: Make, issuer: FakeIssuer, clock: TickingClock) -> None:
    source = source_of(refresh_ahead=30)
    token = source.token()
    clock.tick(69.9)
    assert source.token() is token
    clock.tick(0.2)
    assert source.token() is token
    issuer.wait_for_token_requests(2)


def test_a_hit_never_passes_the_end_of_a_token_whose_renewal_is_put_off(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, events: Events
) -> None:
    issuer.lifetime = 3
    token = source.token()
    clock.tick(2.5)
    with issuer.failing(Fault(status=503, headers={"Retry-After": "60"})):
        assert source.token() is token
        landed(source)
        assert source.token() is token
        clock.tick(0.6)  # less than a second later, and the token has ended
        with pytest.raises(IssuerUnavailable):
            source.token()


def test_64_threads_make_one_request_for_a_cold_start(source: TokenSource, issuer: FakeIssuer) -> None:
    issuer.latency = 0.2
    tokens = in_threads(64, source.token)
    assert set(map(id, tokens)) == {id(tokens[0])}
    assert isinstance(tokens[0], Token)
    assert issuer.token_requests == 1


def test_twenty_scopes_at_a_cold_start_ask_for_the_metadata_once(source_of: Make, issuer: FakeIssuer) -> None:
    source, numbers = source_of(issuer=issuer.url, token_url=None), itertools.count()
    issuer.fail(Fault(latency=0.2), times=1, path="discovery")
    tokens = in_threads(20, lambda: source.token(scope=f"scope-{next(numbers)}"))
    assert all(issuer.accepts(token.access_token) for token in tokens)
    assert [request.method for request in issuer.requests].count("GET") == 1
    assert issuer.token_requests == 20


def test_threads_that_share_a_failure_raise_exceptions_of_their_own(source: TokenSource, issuer: FakeIssuer) -> None:
    issuer.fail(Fault(status=400, body=b'{"error": "invalid_scope"}'))
    outcomes = in_threads(32, source.token)
    assert {type(outcome) for outcome in outcomes} == {TokenRequestRefused}
    assert len(set(map(id, outcomes))) == 32
    assert issuer.token_requests == 1


def test_a_caller_who_looked_before_a_flight_landed_and_began_one_after_it_makes_no_request(
    source: TokenSource, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That gap is too small to be met by chance; so another call is made where the thread is started."""
    real, outcomes = _thread.start_new_thread, list[Any]()

    def start(*arguments: Any) -> int:
        monkeypatch.setattr(_thread, "start_new_thread", real)
        source._flights._by_key.get().clear()  # as if this flight had not been published yet
        outcomes.append(source.token())
        return real(*arguments)

    monkeypatch.setattr(_thread, "start_new_thread", start)
    outcomes.append(source.token())
    assert outcomes[0] is outcomes[1]
    assert issuer.token_requests == 1


def test_each_waiter_has_a_deadline_of_its_own_and_takes_nobody_along(issuer: FakeIssuer) -> None:
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url)
    issuer.fail(Fault(hang=True), times=1)
    tokens: list[Token] = []
    patient = threading.Thread(target=lambda: tokens.append(source.token()))
    patient.start()
    issuer.wait_for_token_requests(1)
    with pytest.raises(DeadlineExceeded) as caught:
        source.token(timeout=0.05)
    assert "token request" in str(caught.value)
    assert isinstance(caught.value, TimeoutError)
    issuer.release()
    patient.join(30)
    assert [issuer.accepts(token.access_token) for token in tokens] == [True]
    assert issuer.token_requests == 1


def test_the_flight_of_a_caller_without_time_goes_on_for_whoever_comes_next(issuer: FakeIssuer) -> None:
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url)
    issuer.fail(Fault(hang=True), times=1)
    with pytest.raises(DeadlineExceeded, match="no token for the given credentials within"):
        source.token(timeout=0.1)
    issuer.release()
    assert issuer.accepts(source.token().access_token)
    assert issuer.token_requests == 1


def test_one_deadline_bounds_the_store_and_the_request(issuer: FakeIssuer) -> None:
    store = Store()
    source = TokenSource("memory:pos", stores=store.stores, token_url=issuer.token_url, timeout=0.3)
    issuer.fail(Fault(hang=True))
    with pytest.raises(DeadlineExceeded):
        source.token()
    assert store.timeouts[0] <= 0.3
    issuer.release()


def test_the_time_that_a_token_lives_counts_from_before_the_request(issuer: FakeIssuer) -> None:
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url)
    issuer.latency = 0.3
    assert source.token().expires_in <= 100 - 0.3


def test_four_flights_that_hang_are_enough_and_the_kept_token_serves_on(
    issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that does not answer hangs, and knows no time-out."""
    issuer.lifetime = 3600
    source = TokenSource("memory:pos", stores=Store().stores, token_url=issuer.token_url, timeout=0.05)
    kept = source.token(timeout=30)
    answers, look_up = threading.Event(), socket.getaddrinfo

    def hang(*asked: Any, **options: Any) -> Any:
        answers.wait(LONG)
        return look_up(*asked, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    for number in range(100):
        with pytest.raises(DeadlineExceeded):
            source.token(scope=f"scope-{number}")
        if source.status().orphaned_threads == 4:  # on a busy machine one may not get as far as to hang
            break
    with pytest.raises(DeadlineExceeded, match="still hang"):
        source.token(scope="another")
    assert source.token() is kept
    answers.set()
    eventually(lambda: source.status().orphaned_threads == 0)


def test_callers_share_a_failure_without_a_thread_for_each(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.fail(Fault(status=503, headers={"Retry-After": "30"}))
    with pytest.raises(IssuerUnavailable) as caught:
        source.token()
    assert caught.value.retry_after == 30
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: pytest.fail("a thread was started"))
    clock.tick(10)
    with pytest.raises(IssuerUnavailable) as caught:
        source.token()
    assert caught.value.retry_after == pytest.approx(20), "what is left of it"


class Interrupted(TickingClock):
    """A clock that is looked at in the middle of something, where a signal's code has its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.signal: Callable[[], object] | None = None

    def monotonic(self) -> float:
        signal, self.signal = self.signal, None
        if signal is not None:
            signal()
        return super().monotonic()


def kept_among_others(source: TokenSource) -> Any:
    source.token(scope="a")
    return source._others.get()


def test_code_of_a_signal_that_interrupts_a_look_up_finds_nothing_and_breaks_nothing(issuer: FakeIssuer) -> None:
    clock = Interrupted()
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url, clock=clock)
    cache = kept_among_others(source)
    key = source._identity.asking(scope="a").digest()
    found: list[Any] = []
    clock.signal = lambda: found.extend([cache.get(key), len(cache), cache.drop(lambda kept: True)])
    assert cache.get(key) is not None
    assert found == [None, 0, False]
    assert len(cache) == 1


def test_a_look_up_waits_for_another_thread_but_not_for_ever(source: TokenSource) -> None:
    cache = kept_among_others(source)
    key = source._identity.asking(scope="a").digest()

    def hold(seconds: float) -> threading.Thread:
        held = threading.Event()

        def work() -> None:
            with cache._lock:
                held.set()
                time.sleep(seconds)

        thread = threading.Thread(target=work)
        thread.start()
        assert held.wait(30)
        return thread

    for seconds, found in ((0.1, True), (2.5, False)):
        thread = hold(seconds)
        assert (cache.get(key) is not None) == found
        thread.join()


def test_an_issuer_that_fails_once_is_asked_again_by_who_has_no_token_that_lives(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock
) -> None:
    source.token()
    clock.tick(101)
    issuer.fail(Fault(status=503), times=1)
    assert issuer.accepts(source.token().access_token)


def test_a_forced_call_passes_the_open_circuit_once(source_of: Make, issuer: FakeIssuer) -> None:
    source = source_of(credentials=ClientCredentials(CLIENT, B))
    made = []
    for force in (False, True, True):
        with pytest.raises(CredentialsRejected):
            source.token(force=force)
        made.append(issuer.token_requests)
    assert made[0] < made[1] == made[2]


def test_an_issuer_that_is_slower_than_what_is_left_of_a_token_makes_no_call_fail(issuer: FakeIssuer) -> None:
    """In the leeway each call waits, some of them until the kept token has ended."""
    issuer.lifetime, issuer.latency = 1, 0.35
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url)
    end = time.monotonic() + 4

    def calls() -> int:
        count = 0
        while time.monotonic() < end:
            source.token()
            count += 1
            time.sleep(0.005)
        return count

    assert [outcome for outcome in in_threads(4, calls) if not isinstance(outcome, int)] == []


def test_a_hook_that_is_told_of_a_hanging_store_may_ask_for_the_same_token(issuer: FakeIssuer) -> None:
    """It is called when the result of its flight is out."""
    store, seen = Store(), []
    sources: list[TokenSource] = []

    def ask_again(event: Event) -> None:
        if isinstance(event, CredentialsStale):
            seen.append(sources[0].token(scope="a", timeout=LONG))

    source = TokenSource("memory:pos", stores=store.stores, token_url=issuer.token_url, timeout=1, on_event=ask_again)
    sources.append(source)
    source.token(timeout=LONG)
    with store.held():
        token = source.token(scope="a")
        eventually(lambda: seen == [token])


def test_a_token_of_the_client_that_the_document_no_longer_names_is_not_kept(
    issuer: FakeIssuer, clock: TickingClock
) -> None:
    issuer.add_client("renamed", B)
    store = Store()
    source = TokenSource("memory://pos", stores=store.stores, token_url=issuer.token_url, clock=clock)
    issuer.fail(Fault(hang=True), times=1)
    late = threading.Thread(target=source.token)
    late.start()
    issuer.wait_for_token_requests(1)
    store.document = Document({"client_id": "renamed", "client_secret": B})
    newer = source.token(scope="a")
    issuer.release()
    late.join(LONG)
    assert source.token(scope="a") is newer, "what came late has dropped it"
    grant = issuer.grant_of(source.token().access_token)
    assert grant is not None
    assert grant.client_id == "renamed"


# --- refresh ahead


def test_a_call_from_between_70_and_80_percent_of_the_lifetime_on_begins_a_renewal_and_does_not_wait(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock
) -> None:
    points = []
    for number in range(1, 16):
        token, began = source.token(), clock.monotonic()
        while issuer.token_requests == number:
            assert source.token() is token
            landed(source)
            clock.tick(0.25)
            assert clock.monotonic() < began + 90
        points.append(clock.monotonic() - began - 0.25)
        assert source.token() is not token
    assert 70 <= min(points) < max(points) <= 80.25
    assert len(set(points)) > 4, "drawn once per token"


def test_an_idle_program_asks_for_nothing(source: TokenSource, issuer: FakeIssuer, clock: TickingClock) -> None:
    source.token()
    before = threading.active_count()
    clock.tick(10_000)
    assert threading.active_count() <= before
    assert issuer.token_requests == 1


def test_no_call_waits_while_the_kept_token_is_valid(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock
) -> None:
    token = source.token()
    issuer.fail(Fault(hang=True), times=1)
    clock.tick(81)
    for _ in range(80):
        assert source.token() is token  # each would wait for ever
        clock.tick(0.1)
    issuer.wait_for_token_requests(2)
    issuer.release()
    landed(source)
    assert source.token() is not token
    assert issuer.token_requests == 2


def test_the_issuer_may_say_when_to_renew(source: TokenSource, issuer: FakeIssuer, clock: TickingClock) -> None:
    issuer.refresh_in = 20
    source.token()
    clock.tick(19.9)
    source.token()
    landed(source)
    assert issuer.token_requests == 1
    clock.tick(0.2)
    source.token()
    issuer.wait_for_token_requests(2)


@pytest.mark.parametrize("refresh_in", [0, -1, 100, 5000])
def test_a_refresh_in_outside_the_lifetime_is_not_obeyed(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, refresh_in: float
) -> None:
    issuer.refresh_in = refresh_in
    token = source.token()
    clock.tick(69)
    assert source.token() is token
    landed(source)
    assert issuer.token_requests == 1
    clock.tick(12)
    assert source.token() is token
    issuer.wait_for_token_requests(2)


@pytest.mark.parametrize(("ahead", "point"), [(40, 60.0), (5000, 50.0), (11, 89.0)])
def test_refresh_ahead_is_seconds_before_the_end_and_half_of_the_lifetime_at_most(
    source_of: Make, issuer: FakeIssuer, clock: TickingClock, ahead: float, point: float
) -> None:
    source = source_of(refresh_ahead=ahead)
    source.token()
    clock.tick(point - 0.1)
    source.token()
    landed(source)
    assert issuer.token_requests == 1
    clock.tick(0.2)
    source.token()
    issuer.wait_for_token_requests(2)


# --- leeway


def test_in_the_last_tenth_a_call_waits_for_a_new_token(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock
) -> None:
    token = source.token()
    clock.tick(90.1)
    new = source.token()
    assert new is not token
    assert source.token() is new


@pytest.mark.parametrize(
    ("options", "lifetime", "leeway"),
    [
        ({}, 100, 10.0),
        ({}, 3600, 30.0),
        ({"leeway": 60}, 3600, 60.0),
        ({"leeway": 4000}, 3600, 360.0),
        ({"leeway": 5}, 100, 5.0),
    ],
)
def test_the_leeway_is_thirty_seconds_or_what_is_given_and_a_tenth_of_the_lifetime_at_most(
    source_of: Make,
    issuer: FakeIssuer,
    clock: TickingClock,
    options: dict[str, float],
    lifetime: float,
    leeway: float,
) -> None:
    issuer.lifetime = lifetime
    source = source_of(**options)
    token = source.token()
    clock.tick(lifetime - leeway - 0.1)
    issuer.fail(Fault(hang=True), times=1)
    assert source.token() is token  # would wait
    issuer.wait_for_token_requests(2)
    issuer.release()
    landed(source)
    token = source.token()
    clock.tick(lifetime - leeway + 0.1)
    assert source.token() is not token


@pytest.mark.parametrize("late", [{"refresh_ahead": 1}, {"refresh_in": 99}])
def test_a_renewal_is_due_with_the_leeway_at_the_latest(
    source_of: Make, issuer: FakeIssuer, clock: TickingClock, late: dict[str, float]
) -> None:
    issuer.refresh_in = late.pop("refresh_in", None)
    source = source_of(**late)
    token = source.token()
    clock.tick(90.1)
    assert source.token() is not token


def test_in_the_leeway_the_kept_token_is_handed_out_to_its_true_end_if_there_is_no_new_one(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock
) -> None:
    token = source.token()
    clock.tick(90.5)
    with issuer.down():
        for _ in range(94):
            assert source.token() is token
            clock.tick(0.1)
        clock.tick(0.2)
        with pytest.raises(IssuerUnavailable):
            source.token()


def test_a_token_that_was_refused_while_a_call_waited_for_another_is_not_handed_out(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock
) -> None:
    token = source.token()
    clock.tick(95)
    issuer.fail(Fault(hang=True, status=400, body=b'{"error": "invalid_scope"}'), times=1)
    outcomes: list[Any] = []
    waiting = threading.Thread(target=lambda: outcomes.extend(in_threads(1, source.token)))
    waiting.start()
    issuer.wait_for_token_requests(2)
    source.invalidate(token)
    issuer.release()
    waiting.join(30)
    assert [type(outcome) for outcome in outcomes] == [TokenRequestRefused]


def test_in_the_leeway_a_caller_without_time_gets_the_kept_token(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock
) -> None:
    token = source.token()
    clock.tick(95)
    issuer.fail(Fault(hang=True), times=1)
    assert source.token(timeout=0.05) is token
    issuer.wait_for_token_requests(2)
    issuer.release()
    landed(source)
    assert source.token() is not token


# --- when the renewal fails


def test_when_the_renewal_fails_the_kept_token_serves_on_to_its_end(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock
) -> None:
    token = source.token()
    clock.tick(81)
    with issuer.failing(Fault(status=503)):
        for _ in range(188):
            assert source.token() is token
            landed(source)
            clock.tick(0.1)
        assert 5 < issuer.token_requests < 80, "it tries on, and not at each call"
        assert issuer.accepts(source.token().access_token)
    clock.tick(5)
    assert source.token() is not token


def has_failed(events: Events, times: int) -> None:
    eventually(lambda: len(events.of(RefreshFailed)) >= times)


def back_off(source: TokenSource, clock: TickingClock, events: Events, attempts: int) -> list[RefreshFailed]:
    """The failures of so many attempts, each made as soon as it is due."""
    for times in range(1, attempts + 1):
        source.token()
        has_failed(events, times)
        landed(source)
        next_try = source.status().next_try
        assert next_try is not None
        clock.tick(next_try + 0.001)
    return [event for event in events if isinstance(event, RefreshFailed)]


def test_the_next_attempt_comes_after_a_second_doubling_to_a_minute(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.lifetime = 10_000
    source.token()
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    clock.tick(8001)
    with issuer.failing(Fault(status=503)):
        failures = back_off(source, clock, events, 9)
    assert [failure.next_try for failure in failures] == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])
    assert issuer.token_requests == 1 + 9, "one request an attempt while a token is kept"


def test_no_wait_is_longer_than_a_quarter_of_the_life_that_is_left_nor_shorter_than_50_ms(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.lifetime = 10
    source.token()
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    clock.tick(8.001)
    with issuer.failing(Fault(status=503)):
        failures = back_off(source, clock, events, 9)
    for failure in failures:
        assert failure.next_try == pytest.approx(max(0.05, failure.life_left / 4))


def test_the_waits_have_full_jitter(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.lifetime = 10_000
    source.token()
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    clock.tick(8001)
    with issuer.failing(Fault(status=503)):
        failures = back_off(source, clock, events, 4)
    assert [failure.next_try for failure in failures] == [0.05] * 4


@pytest.mark.parametrize(("asked", "obeyed"), [(120, 120), (7200, 300)])
def test_the_wait_that_the_issuer_asks_for_is_obeyed_up_to_five_minutes(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, events: Events, asked: int, obeyed: int
) -> None:
    issuer.lifetime = 10_000
    token = source.token()
    clock.tick(8001)
    issuer.fail(Fault(status=503, headers={"Retry-After": str(asked)}), times=1)
    source.token()
    eventually(lambda: events.of(RefreshFailed))
    landed(source)
    for _ in range(3):
        clock.tick(obeyed / 3 - 1)
        assert source.token() is token
        landed(source)
    assert issuer.token_requests == 2
    clock.tick(3.1)
    assert source.token() is token
    landed(source)
    assert source.token() is not token


def test_a_failed_renewal_is_an_event_with_the_life_that_is_left(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, events: Events
) -> None:
    source.token()
    clock.tick(81)
    with issuer.failing(Fault(status=400, body=b'{"error": "invalid_scope"}')):
        source.token()
        eventually(lambda: events.of(RefreshFailed))
    (failure,) = events.of(RefreshFailed)
    assert isinstance(failure, RefreshFailed)
    assert (failure.error, failure.code, failure.status) == ("TokenRequestRefused", "invalid_scope", 400)
    assert failure.life_left == pytest.approx(19)
    assert source.status().last_error == "TokenRequestRefused"


@pytest.mark.parametrize(
    ("fault", "code"),
    [(Fault(status=400, body=ECHO % b"invalid_scope"), "400 invalid_scope"), (None, "401 invalid_client")],
    ids=["refused", "rejected"],
)
def test_a_failed_renewal_says_why_and_shows_no_secret(
    source_of: Make,
    issuer: FakeIssuer,
    clock: TickingClock,
    events: Events,
    caplog: pytest.LogCaptureFixture,
    fault: Fault | None,
    code: str,
) -> None:
    issuer.set_secret(CLIENT, CANARY)
    source = source_of(credentials=ClientCredentials(CLIENT, CANARY))
    token = source.token()
    clock.tick(81)
    issuer.set_secret(CLIENT, B)
    if fault is not None:
        issuer.fail(fault)
    with caplog.at_level(0, logger="secretsource"):
        assert source.token() is token
        has_failed(events, 1)
    (failure,) = events.of(RefreshFailed)
    assert isinstance(failure, RefreshFailed)
    assert GIVEN in failure.reason
    assert f"it answered {code}" in failure.reason
    assert failure.reason in caplog.text
    for secret in (CANARY, token.access_token):
        assert secret not in f"{list(events)} {caplog.text}"


@pytest.mark.parametrize("kept", [True, False])
def test_the_next_attempt_with_a_rejected_secret_is_that_of_the_circuit(
    source: TokenSource,
    issuer: FakeIssuer,
    clock: TickingClock,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
    kept: bool,
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: low)  # so the renewal alone would wait for 50 ms
    if kept:
        source.token()
        clock.tick(81)
    issuer.set_secret(CLIENT, B)
    with nullcontext() if kept else pytest.raises(CredentialsRejected):
        source.token()
    has_failed(events, 1)
    (failure,) = events.of(RefreshFailed)
    assert isinstance(failure, RefreshFailed)
    assert failure.next_try == source.status().circuit == pytest.approx(0.8)


def test_a_renewal_ahead_that_can_start_no_thread_is_an_event_and_backs_off_while_the_kept_token_serves(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[None] = []

    def refuse(*_: Any) -> int:
        refused.append(None)
        raise RuntimeError("can't start new thread")

    kept = source.token()
    clock.tick(81)
    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", refuse)
        for attempts in (1, 2):
            for _ in range(10):
                assert source.token() is kept
            assert len(refused) == len(events.of(RefreshFailed)) == attempts
            next_try = source.status().next_try
            assert next_try is not None
            clock.tick(next_try + 0.001)
    failure = events.of(RefreshFailed)[0]
    assert isinstance(failure, RefreshFailed)
    assert "no thread can be started" in failure.reason
    assert failure.life_left == pytest.approx(19)
    assert source.token() is kept
    issuer.wait_for_token_requests(2)


def test_a_renewal_that_succeeds_after_a_failure_begins_the_back_off_anew(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, events: Events
) -> None:
    source.token()
    for _ in range(2):
        clock.tick(81)
        issuer.fail(Fault(status=503), times=1)
        events.clear()
        (failure,) = back_off(source, clock, events, 1)
        assert failure.next_try <= 1
        source.token()
        landed(source)
    assert source.status().last_error is None


# --- lifetimes


def test_a_token_without_expires_in_lives_for_default_lifetime_and_that_is_an_event(
    source_of: Make, issuer: FakeIssuer, clock: TickingClock, events: Events
) -> None:
    source = source_of(default_lifetime=50)
    issuer.fail(Fault(answer={"expires_in": None}), times=1)
    token = source.token()
    assert token.expires_in == 50
    eventually(lambda: events.of(LifetimeAssumed) == [LifetimeAssumed(GIVEN, 50)])
    clock.tick(51)
    assert source.token() is not token


@pytest.mark.parametrize("lifetime", [0, -5])
def test_a_token_that_lives_for_no_time_is_used_once_and_not_kept(
    source: TokenSource, issuer: FakeIssuer, lifetime: int
) -> None:
    with issuer.failing(Fault(answer={"expires_in": lifetime})):
        first, second = source.token(), source.token()
    assert first is not second
    assert issuer.token_requests == 2
    assert source.status().kept_tokens == 0


@pytest.mark.parametrize("lifetime", [0, -5])
def test_an_issuer_of_tokens_that_have_ended_is_not_asked_at_each_call_while_an_older_one_serves(
    source: TokenSource,
    issuer: FakeIssuer,
    clock: TickingClock,
    monkeypatch: pytest.MonkeyPatch,
    lifetime: int,
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    kept = source.token()
    clock.tick(81)
    with issuer.failing(Fault(answer={"expires_in": lifetime})):
        for attempts in (1, 2):
            for _ in range(10):
                assert source.token() is kept
                landed(source)
            assert issuer.token_requests == 1 + attempts
            clock.tick(1.001)
    clock.tick(2)
    assert source.token() is kept
    landed(source)
    assert source.token() is not kept


def test_a_default_lifetime_longer_than_a_date_can_say_is_cut(source_of: Make, issuer: FakeIssuer) -> None:
    source = source_of(default_lifetime=1e12)
    issuer.fail(Fault(answer={"expires_in": None}), times=1)
    token = source.token()
    assert 2030 < token.expires_at.year < 2100
    assert source.status().token_expires_at == token.expires_at


@pytest.mark.parametrize("lifetime", [1, 2, 5])
def test_a_short_lived_token_is_asked_for_once_a_life(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, lifetime: int
) -> None:
    issuer.lifetime = lifetime
    for _ in range(200):
        assert issuer.accepts(source.token().access_token)
        landed(source)
        clock.tick(lifetime / 20)
    assert 9 <= issuer.token_requests <= 16


def test_scopes_that_are_not_granted_are_an_event(source_of: Make, issuer: FakeIssuer, events: Events) -> None:
    issuer.add_client(CLIENT, A, scopes=["a"])
    issuer.unknown_scope = "drop"
    assert source_of(scope="a b").token().scopes == ("a",)
    eventually(lambda: events.of(ScopeNarrowed) == [ScopeNarrowed(GIVEN, ("b",))])


# --- force


def test_force_fetches_a_new_token_which_is_kept(source: TokenSource, issuer: FakeIssuer) -> None:
    old = source.token()
    new = source.token(force=True)
    assert new is not old
    assert source.token() is new


def test_a_hundred_forced_calls_make_at_most_two_requests(source: TokenSource, issuer: FakeIssuer) -> None:
    source.token()
    issuer.fail(Fault(hang=True), times=1)
    calling: list[None] = []

    def forced() -> Token:
        calling.append(None)
        return source.token(force=True)

    def release() -> None:
        eventually(lambda: len(calling) == 100)
        issuer.wait_for_token_requests(2)
        time.sleep(0.3)  # from the mark that each has set until it waits
        issuer.release()

    releasing = threading.Thread(target=release)
    releasing.start()
    tokens = in_threads(100, forced)
    releasing.join(30)
    assert {isinstance(token, Token) for token in tokens} == {True}
    assert issuer.token_requests <= 1 + 2


def test_if_a_forced_call_fails_the_error_is_raised_and_the_kept_token_stays(
    source: TokenSource, issuer: FakeIssuer
) -> None:
    kept = source.token()
    with issuer.down(), pytest.raises(IssuerUnavailable):
        source.token(force=True)
    assert source.token() is kept


def test_a_forced_call_joins_no_flight_that_began_before_it(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock
) -> None:
    source.token()
    clock.tick(81)
    issuer.fail(Fault(hang=True), times=1)
    source.token()
    issuer.wait_for_token_requests(2)
    forced: list[Token] = []
    caller = threading.Thread(target=lambda: forced.append(source.token(force=True)))
    caller.start()
    caller.join(0.1)
    assert forced == []
    issuer.release()
    caller.join(30)
    assert issuer.token_requests == 3
    assert [issuer.accepts(token.access_token) for token in forced] == [True]


def test_a_forced_call_does_not_share_an_earlier_failure(source: TokenSource, issuer: FakeIssuer) -> None:
    with issuer.down(), pytest.raises(IssuerUnavailable):
        source.token()
    assert issuer.accepts(source.token(force=True).access_token)
    assert issuer.accepts(source.token().access_token)


# --- invalidate


@pytest.mark.parametrize("request_", [{}, {"scope": "other"}])
def test_a_refused_token_is_dropped_with_an_event(
    source: TokenSource, issuer: FakeIssuer, events: Events, request_: dict[str, Any]
) -> None:
    token = source.token(**request_)
    source.invalidate(token)
    assert events.of(TokenRefused) == [TokenRefused(GIVEN, again=False)]
    assert source.token(**request_) is not token
    assert issuer.token_requests == 2


def test_it_may_be_named_by_its_text(source: TokenSource) -> None:
    token = source.token()
    source.invalidate(token.access_token)
    assert source.token() is not token


def test_a_token_that_is_no_longer_kept_drops_nothing(source: TokenSource, issuer: FakeIssuer, events: Events) -> None:
    old = source.token()
    new = source.token(force=True)
    other = source.token(scope="other")
    for _ in range(3):
        source.invalidate(old)
    assert source.token() is new
    assert source.token(scope="other") is other
    assert events.of(TokenRefused) == []


def test_fifty_callers_whose_token_was_refused_make_one_request(source: TokenSource, issuer: FakeIssuer) -> None:
    token = source.token()
    issuer.latency = 0.1

    def refused() -> Token:
        source.invalidate(token)
        return source.token()

    assert token not in in_threads(50, refused)
    assert issuer.token_requests == 2


def test_a_refused_token_that_the_issuer_hands_out_again_starts_no_new_request_within_five_seconds(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, events: Events
) -> None:
    token = source.token()
    with issuer.failing(Fault(same_token=True)):
        source.invalidate(token)
        for _ in range(10):
            assert source.token().access_token == token.access_token
            source.invalidate(token)  # the API refuses it again
            clock.tick(0.49)
        assert issuer.token_requests == 2
        eventually(lambda: TokenRefused(GIVEN, again=True) in events)
        clock.tick(0.2)
        assert source.token().access_token == token.access_token
        assert issuer.token_requests == 3, "it is not kept"
    clock.tick(5.1)
    assert source.token().access_token != token.access_token


# --- reload and verify


def test_reload_returns_at_once_reads_past_every_cache_and_keeps_the_tokens(
    source_of: Make, issuer: FakeIssuer, clock: TickingClock, events: Events
) -> None:
    store = Store(ttl=300)
    source = source_of(credentials="memory:pos", stores=store.stores)
    tokens = [source.token(), source.token(scope="other")]
    store.put(B)
    with store.held():
        source.reload()
        eventually(lambda: store.reads == [False, True])
    eventually(lambda: events.of(CredentialsChanged))
    assert [source.token(), source.token(scope="other")] == tokens
    issuer.set_secret(CLIENT, B)
    clock.tick(101)
    assert issuer.accepts(source.token().access_token)
    assert [request.status for request in issuer.requests[2:]] == [200]


@pytest.mark.parametrize("request_", [{}, {"scope": "other"}])
def test_after_a_reload_a_renewal_that_was_put_off_is_made_at_the_next_call(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, events: Events, request_: dict[str, Any]
) -> None:
    source.token(**request_)
    clock.tick(81)
    issuer.fail(Fault(status=503, headers={"Retry-After": "60"}), times=1)
    source.token(**request_)
    eventually(lambda: events.of(RefreshFailed))
    clock.tick(1)
    source.token(**request_)
    assert issuer.token_requests == 2
    clock.tick(1.1)
    source.reload()
    source.token(**request_)
    issuer.wait_for_token_requests(3)


def test_after_a_reload_a_shared_failure_is_shared_no_longer(source: TokenSource, issuer: FakeIssuer) -> None:
    with issuer.down(), pytest.raises(IssuerUnavailable):
        source.token()
    source.reload()
    assert issuer.accepts(source.token().access_token)


def test_verify_gets_a_new_token_past_every_cache_and_does_not_touch_the_kept_one(
    source_of: Make, issuer: FakeIssuer
) -> None:
    store = Store(ttl=300)
    source = source_of(credentials="memory:pos", stores=store.stores)
    kept = source.token()
    proof = source.verify()
    assert issuer.accepts(proof.access_token)
    assert proof is not kept
    assert source.token() is kept
    assert store.reads == [False, True]
    issuer.set_secret(CLIENT, B)
    with pytest.raises(CredentialsRejected):
        source.verify()
    assert source.token() is kept


def test_verify_with_another_client_in_the_store_leaves_the_kept_token(source_of: Make, issuer: FakeIssuer) -> None:
    store = Store()
    source = source_of(credentials="memory:pos", stores=store.stores)
    kept = source.token()
    issuer.add_client("new", B)
    store.put(B, client_id="new")
    grant = issuer.grant_of(source.verify().access_token)
    assert grant is not None
    assert grant.client_id == "new"
    assert source.token() is kept


def test_verify_joins_no_verification_that_began_before_it(source: TokenSource, issuer: FakeIssuer) -> None:
    issuer.fail(Fault(hang=True), times=1)
    threads = [threading.Thread(target=source.verify) for _ in range(2)]
    threads[0].start()
    issuer.wait_for_token_requests(1)
    threads[1].start()
    threads[1].join(0.1)
    issuer.release()
    for thread in threads:
        thread.join(30)
    assert issuer.token_requests == 2


# --- status, close, and what it looks like


def test_status_tells_how_it_is_and_no_content(
    source_of: Make, issuer: FakeIssuer, clock: TickingClock, events: Events
) -> None:
    store = Store()
    source = source_of(credentials="memory:pos", stores=store.stores)
    empty = source.status()
    assert (empty.credentials, empty.credentials_age, empty.token_life_left) == ("memory://pos", None, None)
    assert (empty.kept_tokens, empty.orphaned_threads, empty.last_error) == (0, 0, None)
    assert store.reads == []
    token = source.token()
    clock.tick(90)
    issuer.fail(Fault(status=503), times=1)
    source.token()
    landed(source)
    status = source.status()
    assert (status.credentials_age, status.token_life_left) == (0.0, 10.0)
    assert status.token_expires_at == token.expires_at
    assert status.last_error == "IssuerUnavailable"
    assert status.next_try is not None
    assert status.circuit is None
    for secret in (A, token.access_token):
        assert secret not in repr(status)


def test_status_names_the_issuer_and_says_whether_a_secret_is_pending(source_of: Make, issuer: FakeIssuer) -> None:
    store = Store()
    source = source_of(credentials="memory:pos", stores=store.stores, issuer=issuer.url)
    assert (source.status().issuer, source.status().pending) == (issuer.url, False)
    source.token()
    assert not source.status().pending
    store.put(A, pending=B)
    source.token(force=True)
    assert source.status().pending
    assert source_of(token_url=NOWHERE).status().issuer == NOWHERE


def test_a_closed_source_has_dropped_its_tokens_and_refuses_calls(source: TokenSource, issuer: FakeIssuer) -> None:
    source.token()
    source.token(scope="other")
    source.close()
    source.close()
    assert source.status().kept_tokens == 0
    for call in (
        source.token,
        lambda: source.token(scope="other"),
        lambda: source.token(force=True),
        source.verify,
        source.reload,
    ):
        with pytest.raises(ConfigurationError, match="closed"):
            call()
    assert issuer.token_requests == 2


def test_a_flight_that_lands_after_the_close_keeps_nothing(source: TokenSource, issuer: FakeIssuer) -> None:
    issuer.fail(Fault(hang=True), times=1)
    tokens: list[Token] = []
    caller = threading.Thread(target=lambda: tokens.append(source.token()))
    caller.start()
    issuer.wait_for_token_requests(1)
    source.close()
    issuer.release()
    caller.join(30)
    assert len(tokens) == 1, "who waited is served"
    assert source.status().kept_tokens == 0


def test_a_with_closes_it_and_nothing_that_it_was_given(issuer: FakeIssuer) -> None:
    credentials = CredentialsSource("memory:pos", stores=Store().stores)
    with TokenSource(credentials, token_url=issuer.token_url) as source:
        source.token()
    with pytest.raises(ConfigurationError, match="closed"):
        source.token()
    assert credentials.current().client_id == CLIENT


@pytest.mark.parametrize("pickled", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_is_never_pickled_and_says_what_to_do_instead(
    source: TokenSource, pickled: Callable[[object], object]
) -> None:
    source.token()
    with pytest.raises(TypeError, match="reference"):
        pickled(source)


def test_its_repr_names_the_credentials_and_the_issuer(source_of: Make, issuer: FakeIssuer) -> None:
    source = source_of(credentials="memory:pos", stores=Store().stores)
    token = source.token()
    assert repr(source) == f"<TokenSource memory://pos at {issuer.token_url}>"
    assert A not in repr(vars(source))
    assert token.access_token not in repr(vars(source))


# --- what is asked of it wrongly


def test_constructing_does_no_input_or_output(tmp_path: Path) -> None:
    store = Store()
    before = threading.active_count()
    TokenSource("memory:pos", stores=store.stores, issuer="https://issuer.example")
    TokenSource(f"file://{tmp_path}/not/there.json", token_url=NOWHERE, ca_file=tmp_path / "not-there.pem")
    assert store.reads == []
    assert threading.active_count() == before


def test_a_host_that_may_be_asked_over_plain_http_is_an_event_at_the_start(events: Events) -> None:
    TokenSource("env:POS", token_url="http://orchard:8080/token", plain_http="orchard:8080", on_event=events)
    assert events == [PlainHttpAllowed("env://POS", "orchard:8080")]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("scopes", "scope="),
        ("token_endpoint", "token_url="),
        ("isuer", "issuer="),
        ("time_out", "timeout="),
        ("client_secret", "reference"),
        ("secret", "reference"),
        ("nothing_like_it", "token_url"),
    ],
)
def test_a_near_miss_among_the_arguments_is_told_the_right_word(wrong: str, right: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TokenSource("env:POS", **{"token_url": NOWHERE, wrong: CANARY})  # type: ignore[arg-type]
    assert wrong in str(caught.value)
    assert right in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(("wrong", "right"), [("scopes", "scope="), ("audiance", "audience="), ("refresh", "force")])
def test_a_near_miss_among_the_parameters_of_a_call_is_told_the_right_word(wrong: str, right: str) -> None:
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=NOWHERE)
    with pytest.raises(ConfigurationError) as caught:
        source.token(**{wrong: "a"})  # type: ignore[arg-type]
    assert right in str(caught.value)


def shown(error: BaseException) -> str:
    """A traceback with the locals of all frames but this test's own."""
    steps = traceback.TracebackException.from_exception(error, capture_locals=True)
    steps.stack[:] = [frame for frame in steps.stack if frame.filename != __file__]
    return "".join(steps.format())


@pytest.mark.parametrize(
    "made",
    [
        lambda: TokenSource("env://POS", client_secret=CANARY, token_url=NOWHERE),
        lambda: TokenSource(f"{CANARY}://{CANARY}", token_url=NOWHERE),
        lambda: TokenSource(ClientCredentials(CLIENT, A), token_url=NOWHERE).token(client_secret=CANARY),  # type: ignore[call-arg]
    ],
)
def test_a_secret_where_something_else_belongs_is_in_no_frame_of_the_traceback(made: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made()
    assert CANARY not in shown(caught.value)


@pytest.mark.parametrize("name", ["leeway", "refresh_ahead", "default_lifetime", "timeout"])
def test_seconds_that_are_none_are_refused_by_name(name: str) -> None:
    options: dict[str, Any] = {name: -1}
    with pytest.raises(ConfigurationError, match=f"{name}="):
        TokenSource("env:POS", token_url=NOWHERE, **options)


def test_no_leeway_at_all_may_be_asked_for(source_of: Make, issuer: FakeIssuer, clock: TickingClock) -> None:
    source = source_of(leeway=0, refresh_ahead=1)
    token = source.token()
    clock.tick(98.9)
    assert source.token() is token
    assert issuer.token_requests == 1


def test_it_says_its_name_and_what_plain_http_it_allows() -> None:
    source = TokenSource("env:POS", token_url="http://orchard:8080/token", plain_http="orchard:8080")
    assert (source.name, source.plain_http) == ("env://POS", ("orchard:8080",))


def test_the_proxy_and_the_authorities_are_those_that_were_given() -> None:
    given = ClientCredentials(CLIENT, A)
    with pytest.raises(IssuerUnavailable, match="through the proxy"):
        TokenSource(given, token_url="https://issuer.test/token", proxy="http://127.0.0.1:9").token(timeout=5)
    with pytest.raises(ConfigurationError, match=r"no-such\.pem"):
        TokenSource(given, token_url="https://127.0.0.1:9/token", ca_file="no-such.pem").token()


async def async_hook(event: object) -> None:
    """What a program may take for a hook."""


@pytest.mark.parametrize(
    "options",
    [
        {"token_url": None},
        {"token_url": "http://issuer.example/token"},
        {"issuer": "not a url"},
        {"timeout": 0},
        {"timeout": "10"},
        {"timeout": True},
        {"timeout": math.nan},
        {"timeout": math.inf},
        {"leeway": -1},
        {"refresh_ahead": 0},
        {"default_lifetime": 0},
        {"max_stale": -1},
        {"denied_grace": None},
        {"auth_method": "client_secret_jwt"},
        {"scope": 'a"b'},
        {"resource": "no-uri"},
        {"extra": {"scope": "x"}},
        {"shared": "redis://127.0.0.1"},
        {"profile": {}},
        {"on_event": 5},
        {"on_event": async_hook},
        {"on_event": [print, async_hook]},
        {"ca_file": 5},
        {"stores": 5},
        {"plain_http": 5},
    ],
)
def test_an_argument_that_makes_no_sense_is_refused_when_the_source_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        TokenSource("env:POS", **{"token_url": NOWHERE, **options})


@pytest.mark.parametrize("request_", [{"timeout": 0}, {"timeout": math.inf}, {"scope": 'a"b'}, {"extra": {"x": ""}}])
def test_a_parameter_that_makes_no_sense_is_refused_and_nothing_is_sent(
    source: TokenSource, issuer: FakeIssuer, request_: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        source.token(**request_)
    assert issuer.requests == []


# --- credentials that a program hands over


def test_a_callable_is_called_once_per_refresh(source_of: Make, issuer: FakeIssuer, clock: TickingClock) -> None:
    calls = itertools.count(1)
    called: list[int] = []

    def credentials() -> ClientCredentials:
        called.append(next(calls))
        return ClientCredentials(CLIENT, A)

    source = source_of(credentials=credentials)
    assert called == []
    for number in range(1, 4):
        for _ in range(5):
            source.token()
        assert len(called) == number
        clock.tick(101)
    assert issuer.token_requests == 3


def test_a_callable_is_asked_again_after_a_rejection(source_of: Make, issuer: FakeIssuer) -> None:
    secrets = iter([B, A])
    source = source_of(credentials=lambda: ClientCredentials(CLIENT, next(secrets)))
    assert issuer.accepts(source.token().access_token)
    assert [request.status for request in issuer.requests] == [401, 200]


def test_a_callable_may_give_a_pending_secret(source_of: Make, issuer: FakeIssuer) -> None:
    given = ClientCredentials(CLIENT, B, pending=ClientCredentials(CLIENT, A))
    assert issuer.accepts(source_of(credentials=lambda: given).token().access_token)


def test_a_coroutine_function_is_refused_and_leaves_no_warning(
    source_of: Make, recwarn: pytest.WarningsRecorder
) -> None:
    async def credentials() -> ClientCredentials:
        return ClientCredentials(CLIENT, A)

    with pytest.raises(ConfigurationError, match="await"):
        source_of(credentials=credentials).token()
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("given", [None, A, (CLIENT, CANARY), {"client_secret": CANARY}])
def test_a_callable_that_gives_something_else_is_refused(source_of: Make, given: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        source_of(credentials=lambda: given).token()
    assert type(given).__name__ in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("error", [ValueError, RuntimeError, SystemExit])
def test_the_text_of_what_a_callable_raises_never_shows(
    source_of: Make, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def credentials() -> ClientCredentials:
        raise error(CANARY)

    source = source_of(credentials=credentials)
    with caplog.at_level(0), pytest.raises(SecretSourceError) as caught:
        source.token()
    assert error.__name__ in str(caught.value)
    assert CANARY not in "".join(traceback.format_exception(caught.value)) + caplog.text
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_while_a_callable_fails_what_it_gave_last_serves(
    source_of: Make, issuer: FakeIssuer, clock: TickingClock
) -> None:
    failing: list[Exception] = []

    def credentials() -> ClientCredentials:
        for error in failing:
            raise error
        return ClientCredentials(CLIENT, A)

    source = source_of(credentials=credentials)
    source.token()
    clock.tick(101)
    failing.append(ValueError(CANARY))
    assert issuer.accepts(source.token().access_token)


def test_one_credentials_source_may_serve_several_token_sources(source_of: Make, issuer: FakeIssuer) -> None:
    store = Store(ttl=300)
    shared = CredentialsSource("memory:pos", stores=store.stores)
    for source in (source_of(credentials=shared), source_of(credentials=shared, scope="other")):
        assert issuer.accepts(source.token().access_token)
    assert store.reads == [False]


def test_max_stale_and_denied_grace_reach_the_credentials(
    source_of: Make, issuer: FakeIssuer, clock: TickingClock
) -> None:
    store = Store()
    source = source_of(credentials="memory:pos", stores=store.stores, max_stale=150)
    source.token()
    store.failure = BackendUnavailable("down", reference="memory://pos")
    clock.tick(101)
    assert issuer.accepts(source.token().access_token)
    clock.tick(151)
    with pytest.raises(BackendUnavailable):
        source.token()


# --- a document for something else, and a refusal that may mean the secret


@pytest.mark.parametrize(
    ("bound", "options"),
    [
        ({"issuer": "https://production.example"}, {"token_url": None}),
        ({"issuer": "https://production.example"}, {}),
        ({"token_url": "https://production.example/token"}, {}),
    ],
    ids=["issuer, by discovery", "issuer", "token_url"],
)
@pytest.mark.parametrize(
    "spoil",
    [Path.unlink, lambda path: path.chmod(0o666), lambda path: path.write_text('{"client_id": "po')],
    ids=["gone", "denied", "half written"],
)
def test_a_document_for_another_issuer_does_not_take_the_place_of_the_last_good_credentials(
    source_of: Make,
    issuer: FakeIssuer,
    clock: TickingClock,
    tmp_path: Path,
    bound: dict[str, str],
    options: dict[str, Any],
    spoil: Callable[[Path], object],
) -> None:
    folder = tmp_path / "secrets"
    source = source_of(credentials=secret_file(folder, CLIENT, A), **{"issuer": issuer.url, **options})
    source.token()
    asked = len(issuer.requests)
    secret_file(folder, CLIENT, B, **bound)
    clock.tick(101)
    with pytest.raises(ConfigurationError, match="nothing was sent"):
        source.token()
    assert len(issuer.requests) == asked
    spoil(folder / f"{CLIENT}.json")
    clock.tick(1.1)
    assert issuer.accepts(source.token().access_token)


def test_with_a_document_for_another_issuer_not_even_the_metadata_is_asked_for(
    source_of: Make, issuer: FakeIssuer, tmp_path: Path
) -> None:
    reference = secret_file(tmp_path / "secrets", CLIENT, A, issuer="https://production.example")
    with pytest.raises(ConfigurationError, match="nothing was sent"):
        source_of(credentials=reference, issuer=issuer.url, token_url=None).token()
    assert issuer.requests == []


def test_after_a_403_with_a_code_of_the_vendors_own_another_secret_in_the_store_is_used(
    source_of: Make, issuer: FakeIssuer, clock: TickingClock
) -> None:
    store = Store(ttl=300)
    source = source_of(credentials="memory:pos", stores=store.stores)
    source.token()
    clock.tick(101)
    with issuer.failing(Fault(status=403, body=b'{"error": "forbidden_by_vendor"}')):
        with pytest.raises(TokenRequestRefused):
            source.token()
        assert source.status().circuit is None, "with no other secret it is no rejection"
    clock.tick(1.1)
    issuer.set_secret(CLIENT, B)
    store.put(B)
    issuer.fail(Fault(status=403, body=b'{"error": "forbidden_by_vendor"}'), times=1)
    assert issuer.accepts(source.token().access_token)
    assert [request.status for request in issuer.requests] == [200, 403, 403, 200]


# --- what is bounded, and what is let go


def test_at_most_sixteen_refused_tokens_are_remembered(source: TokenSource) -> None:
    for number in range(20):
        source.invalidate(f"token-{number}")
        assert len(source._refused) == min(number + 1, 16)


def test_a_refused_token_of_somebody_else_shortens_the_life_of_no_other(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, events: Events
) -> None:
    source.invalidate("somebody else's")
    token = source.token()
    clock.tick(6)
    assert source.token() is token
    assert issuer.token_requests == 1
    eventually(lambda: "TokenFetched" in events.names())
    assert events.of(TokenRefused) == []


def test_failures_of_at_most_256_requests_are_shared(source_of: Make) -> None:
    source = source_of(token_url=NOWHERE, timeout=1)
    failure = IssuerUnavailable("down")
    for number in range(300):
        source._share(source._call({"scope": f"scope-{number}"}), failure, 1e9)
        assert len(source._failed) <= 256


def test_a_closed_source_holds_no_token_and_no_failure(source: TokenSource, issuer: FakeIssuer) -> None:
    source.token()
    issuer.fail(Fault(status=400, body=b'{"error": "invalid_scope"}'))
    with pytest.raises(TokenRequestRefused):
        source.token(scope="b")
    source.close()
    assert (source._default, source._open, source._failed, source.status().kept_tokens) == (None, None, {}, 0)


def test_the_threads_that_hang_are_counted_wherever_they_hang(
    source: TokenSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secretsource.flight.Flights.orphans", property(lambda self: 1))
    assert source.status().orphaned_threads == 4, "tokens, recoveries, discovery, and reads of the store"


def test_a_year_is_the_longest_time_out() -> None:
    TokenSource("env:POS", token_url=NOWHERE, timeout=365 * 86400)
    with pytest.raises(ConfigurationError, match="timeout="):
        TokenSource("env:POS", token_url=NOWHERE, timeout=365 * 86400 + 1)


@pytest.mark.parametrize("name", ["client_secret", "secret", "password"])
def test_where_a_secret_is_not_given_is_said(name: str) -> None:
    given: dict[str, Any] = {name: CANARY}
    with pytest.raises(ConfigurationError, match="give a reference to where it is kept"):
        TokenSource("env:POS", token_url=NOWHERE, **given)
