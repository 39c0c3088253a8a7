"""Clocks that jump, machines that sleep, and processes that are stopped for a while."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from secretsource import (
    ClientCredentials,
    CredentialsRejected,
    DeadlineExceeded,
    SecretSourceError,
    TokenSource,
)
from secretsource.clock import Instant, SystemClock
from secretsource.testing import FakeIssuer, Fault, TickingClock

from ..stores import CLIENT, A, B, Store, eventually
from .programs import running

HOUR = 3600.0

Jump = Callable[[TickingClock], None]

jumps = pytest.mark.parametrize(
    "jump",
    [
        pytest.param(lambda clock: clock.suspend(HOUR), id="an hour asleep"),
        pytest.param(lambda clock: clock.set_wall(HOUR), id="an hour forward"),
        pytest.param(lambda clock: clock.set_wall(-HOUR), id="an hour back"),
    ],
)


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    """Its own clock is the system's: whether it takes a token is asked in seconds that really pass."""
    with FakeIssuer(lifetime=100) as issuer:
        issuer.add_client(CLIENT, A)
        yield issuer


def works(source: TokenSource) -> bool:
    try:
        source.token()
    except SecretSourceError:
        return False
    return True


@pytest.fixture
def source(issuer: FakeIssuer, clock: TickingClock) -> TokenSource:
    return TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url, clock=clock)


# --- jumps


@jumps
def test_a_token_is_never_handed_out_after_its_end_and_never_for_longer_than_its_life(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, jump: Jump
) -> None:
    first = source.token()
    wall = clock.now().wall
    jump(clock)
    second = source.token()
    assert (second is first) == (clock.now().wall <= wall)
    for _ in range(30):  # five minutes
        clock.tick(10)
        before = source.token()
        assert before.age < 100
        eventually(lambda: source._flights.under_way(source._key) is None)
    assert issuer.token_requests in (4, 5, 6)  # as without a jump: one in 80 s, and one for what the jump ended


@jumps
def test_a_token_of_another_request_follows_the_same_clocks(
    source: TokenSource, clock: TickingClock, jump: Jump
) -> None:
    first = source.token(scope="other")
    wall = clock.now().wall
    jump(clock)
    assert (source.token(scope="other") is first) == (clock.now().wall <= wall)
    clock.tick(101)
    assert source.token(scope="other") is not first


@jumps
def test_an_open_circuit_is_neither_closed_nor_held_open_by_a_jump(
    issuer: FakeIssuer, clock: TickingClock, jump: Jump
) -> None:
    store = Store(ttl=300.0)
    store.put(B)
    source = TokenSource("memory:pos", stores=store.stores, token_url=issuer.token_url, clock=clock)
    with pytest.raises(CredentialsRejected):
        source.token()
    asked, due = issuer.token_requests, source.status().circuit
    assert due is not None
    jump(clock)
    with pytest.raises(CredentialsRejected):
        source.token()
    assert issuer.token_requests == asked
    assert source.status().circuit == due
    store.put(A)
    for _ in range(10):
        clock.tick(1)
        if works(source):
            break
    assert issuer.accepts(source.token().access_token)


@jumps
def test_a_failed_renewal_is_made_again_within_a_minute_awake(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, jump: Jump
) -> None:
    first = source.token()
    clock.tick(81)
    with issuer.failing(Fault(status=400, body=b'{"error": "invalid_scope"}')):
        assert source.token() is first
        eventually(lambda: source.status().next_try is not None)
    jump(clock)
    for _ in range(5):  # a quarter of the life that was left
        token = source.token()
        clock.tick(1)
    eventually(lambda: source.token() is not first)
    assert issuer.accepts(source.token().access_token)
    assert token.age < 100


@jumps
def test_a_failure_is_shared_for_a_second_and_no_hour(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, jump: Jump
) -> None:
    with issuer.failing(Fault(status=400, body=b'{"error": "invalid_scope"}')), pytest.raises(SecretSourceError):
        source.token()
    jump(clock)
    with pytest.raises(SecretSourceError):
        source.token()
    assert issuer.token_requests == 1
    clock.tick(1)
    assert issuer.accepts(source.token().access_token)


@jumps
def test_a_secret_that_was_changed_during_the_jump_costs_no_call(
    issuer: FakeIssuer, clock: TickingClock, jump: Jump
) -> None:
    """The time for which a read holds counts awake; a secret that is rejected is read again at once."""
    store = Store(ttl=300.0)
    source = TokenSource("memory:pos", stores=store.stores, token_url=issuer.token_url, clock=clock)
    source.token()
    store.put(B)
    issuer.set_secret(CLIENT, B)
    jump(clock)
    clock.tick(101)
    assert issuer.accepts(source.token().access_token)
    assert store.reads == [False, True]


@jumps
def test_the_time_for_which_a_read_holds_does_not_end_early_nor_late(
    issuer: FakeIssuer, clock: TickingClock, jump: Jump
) -> None:
    store = Store(ttl=300.0)
    source = TokenSource("memory:pos", stores=store.stores, token_url=issuer.token_url, clock=clock)
    source.token()
    jump(clock)
    clock.tick(200)
    source.token()
    assert store.reads == [False]
    clock.tick(140)
    source.token()
    assert store.reads == [False, False]


class JumpingClock(SystemClock):
    """The system's, with a wall clock that somebody sets."""

    ahead = 0.0

    def now(self) -> Instant:
        now = super().now()
        return now._replace(wall=now.wall + self.ahead)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_deadline_is_not_moved_by_a_wall_clock_that_is_set(issuer: FakeIssuer, ahead: float) -> None:
    issuer.fail(Fault(hang=True), times=1)
    clock = JumpingClock()
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url, clock=clock)

    def jump() -> None:
        issuer.wait_for_token_requests(1)
        clock.ahead = ahead

    jumping = threading.Thread(target=jump)
    jumping.start()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        source.token(timeout=1)
    assert 0.9 < time.monotonic() - began < 5
    jumping.join(30)
    issuer.release()
    assert issuer.accepts(source.token().access_token)
    assert source.token().expires_in > 90


# --- a process that stood still


def test_after_hours_in_which_a_renewal_stood_still_the_next_call_makes_another(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock
) -> None:
    first = source.token()
    clock.tick(81)
    issuer.fail(Fault(hang=True), times=1)
    assert source.token() is first
    issuer.wait_for_token_requests(2)
    clock.tick(5 * HOUR)
    second = source.token()
    assert second is not first
    assert second.age < 100
    issuer.release()
    eventually(lambda: source.status().orphaned_threads == 0)
    assert source.token() is second, "what came hours late was kept"
    assert issuer.token_requests == 3


def test_a_token_that_comes_late_does_not_take_the_place_of_a_newer_one(
    issuer: FakeIssuer, clock: TickingClock
) -> None:
    """An issuer may let the older token end when it makes a newer one."""
    issuer.fail(Fault(latency=1.0), times=1)
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url, clock=clock)
    late = threading.Thread(target=works, args=(source,))
    late.start()
    issuer.wait_for_token_requests(1)
    clock.tick(11)
    newer = source.token()
    late.join(30)
    eventually(lambda: source.status().orphaned_threads == 0)
    assert source.token() is newer
    assert issuer.token_requests == 2


@pytest.mark.parametrize("kept", [True, False], ids=["of a renewal", "of a first token"])
def test_the_failure_of_a_request_during_which_the_process_stood_still_is_not_shared_afterwards(
    source: TokenSource, issuer: FakeIssuer, clock: TickingClock, kept: bool
) -> None:
    if kept:
        source.token()
        clock.tick(81)
    issuer.fail(Fault(hang=True, reset=True), times=1)
    asking = threading.Thread(target=works, args=(source,))
    asking.start()
    issuer.wait_for_token_requests(2 if kept else 1)
    clock.tick(HOUR)
    issuer.release()  # the request fails now, an hour after its time
    asking.join(30)
    eventually(lambda: source._flights.under_way(source._key) is None)
    eventually(lambda: source.status().orphaned_threads == 0)
    assert issuer.accepts(source.token().access_token)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system stops no process")
@pytest.mark.parametrize("when", ["a first request", "a renewal"])
def test_a_process_that_is_stopped_during_a_request_recovers_and_hands_out_no_token_that_has_ended(
    issuer: FakeIssuer, when: str
) -> None:
    issuer.lifetime = 3
    if when == "a renewal":
        issuer.fail(Fault(), times=1)
    issuer.fail(Fault(hang=True), times=1)
    with running(
        issuer,
        """
        source = new(timeout=1.5)
        began = asked = time.monotonic()
        stood_still = token = None
        while time.monotonic() < began + 60 and (token is None or not stood_still):
            stood_still = stood_still or time.monotonic() - asked > 2
            asked, token = time.monotonic(), None
            try:
                token = source.token()
                assert token.expires_in + time.monotonic() - asked > 0, "it had ended before it was asked for"
            except SecretSourceError:
                time.sleep(0.05)
            time.sleep(0.005)
        while source.status().orphaned_threads and time.monotonic() < began + 60:
            time.sleep(0.01)
        print(token is not None, source.status().orphaned_threads, flush=True)
        """,
    ) as process:
        issuer.wait_for_token_requests(2 if when == "a renewal" else 1, 30)
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)  # longer than the time of the request
        issuer.release()
        process.send_signal(signal.SIGCONT)
        printed, _ = process.communicate(timeout=90)
    assert process.returncode == 0
    assert printed.split() == ["True", "0"]
