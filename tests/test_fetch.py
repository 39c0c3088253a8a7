"""One token: candidates, rounds, retries and the circuit, against an issuer over real sockets."""

from __future__ import annotations

import itertools
import json
import ssl
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from secretsource import (
    AccessDenied,
    BackendUnavailable,
    ClientCredentials,
    ConfigurationError,
    CredentialsRejected,
    CredentialsSource,
    DeadlineExceeded,
    Document,
    InvalidTokenResponse,
    IssuerProfile,
    IssuerUnavailable,
    MalformedSecret,
    SecretNotFound,
    SecretSourceError,
    TokenRequestRefused,
    TokenSource,
)
from secretsource.answer import Granted
from secretsource.clock import SYSTEM_CLOCK, Deadline
from secretsource.discovery import Target
from secretsource.events import (
    CandidateRejected,
    CandidateUsed,
    CircuitClosed,
    CircuitOpened,
    CredentialsChanged,
    Emitter,
    RefreshFailed,
)
from secretsource.fetch import Fetcher
from secretsource.flight import Flight, Flights
from secretsource.testing import FakeIssuer, Fault, TickingClock, secret_file
from secretsource.transport import Transport

from .stores import CLIENT, A, B, C, D, Events, Store, eventually, in_threads

LIFETIME = 5.0


class Clock(TickingClock):
    """Does what it is told whenever somebody sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] = lambda: None

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.meanwhile()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def issuer(clock: Clock) -> Iterator[FakeIssuer]:
    with FakeIssuer(lifetime=LIFETIME, clock=clock) as issuer:
        issuer.add_client(CLIENT, A)
        yield issuer


@pytest.fixture(params=[0.0, 300.0], ids=["cheap", "dear"])
def store(request: pytest.FixtureRequest) -> Store:
    return Store(ttl=request.param)


class Program:
    """A program with one source, which lets each token end before it asks for the next one."""

    def __init__(self, server: FakeIssuer, store: Store, clock: Clock, **options: Any) -> None:
        self.events = Events()
        self.source = TokenSource(
            "memory:pos",
            stores=store.stores,
            clock=clock,
            on_event=self.events,
            **{"token_url": server.token_url, **options},
        )
        self._issuer, self._clock = server, clock
        self._asked = 0

    def statuses(self) -> list[int]:
        """What the token requests since the last look were answered."""
        answered = [request.status for request in self._issuer.requests if request.path.endswith("/connect/token")]
        asked, self._asked = self._asked, len(answered)
        return answered[asked:]

    def take(self, **request: Any) -> None:
        """A token, which is accepted."""
        assert self._issuer.accepts(self.source.token(**request).access_token)

    def renew(self) -> list[int]:
        """A new token, and what the requests for it were answered."""
        self._clock.tick(LIFETIME + 0.1)
        self.take()
        return self.statuses()

    def fail(self, **request: Any) -> CredentialsRejected:
        with pytest.raises(CredentialsRejected) as caught:
            self.source.token(**request)
        return caught.value

    def kinds(self, kind: type[CandidateUsed | CandidateRejected]) -> list[str]:
        return [event.candidate for event in list(self.events) if isinstance(event, kind)]


@pytest.fixture
def program(issuer: FakeIssuer, store: Store, clock: Clock) -> Program:
    return Program(issuer, store, clock)


# --- a secret is changed, in each order in which people do it


def test_pending_first_then_the_issuer_then_promoted(issuer: FakeIssuer, store: Store, program: Program) -> None:
    assert program.renew() == [200]
    store.put(A, pending=B)
    assert program.renew() == [200]
    issuer.set_secret(CLIENT, B)
    assert program.renew() == [401, 200]
    assert program.renew() == [200], "the winner is remembered"
    store.put(B, previous=A)
    assert program.renew() == [200]
    store.put(B)
    assert program.renew() == [200]
    eventually(lambda: program.kinds(CandidateUsed) == ["pending"])


def test_pending_is_given_up_again(issuer: FakeIssuer, store: Store, program: Program) -> None:
    program.renew()
    store.put(A, pending=B)
    program.renew()
    store.put(A)
    assert program.renew() == [200]


def test_the_store_first_and_the_issuer_later(issuer: FakeIssuer, store: Store, program: Program, clock: Clock) -> None:
    program.renew()
    store.put(B)
    program.source.reload()
    eventually(lambda: program.events.of(CredentialsChanged))
    assert program.renew() == [401, 200], "the store has it no more, and it is still the right one"
    for _ in range(4):
        assert program.renew() == [200], "the winner is remembered for a minute"
    clock.tick(60)
    assert program.renew() == [401, 200]
    issuer.set_secret(CLIENT, B)
    assert program.renew() == [401, 200]
    assert program.renew() == [200]
    eventually(lambda: program.kinds(CandidateUsed) == ["current"])


def test_the_issuer_first_and_the_store_before_the_kept_token_has_ended(
    issuer: FakeIssuer, store: Store, program: Program, clock: Clock
) -> None:
    issuer.lifetime = 100.0
    program.source.token()
    clock.tick(81)
    issuer.set_secret(CLIENT, B)
    for tenths in range(400):
        if tenths == 80:
            store.put(B)
        program.take()
        eventually(lambda: program.source._flights.under_way(program.source._key) is None)
        clock.tick(0.1)
    assert program.statuses()[-1] == 200


@pytest.mark.parametrize("overlap", [0.0, 20.0])
def test_no_pending_and_the_issuer_and_the_store_at_once(
    issuer: FakeIssuer, store: Store, program: Program, overlap: float
) -> None:
    program.renew()
    issuer.set_secret(CLIENT, B, overlap=overlap)
    store.put(B)
    for _ in range(6):
        assert program.renew()[-1] == 200


def test_previous_is_tried_by_a_program_that_starts_after_the_store_was_changed(
    issuer: FakeIssuer, store: Store, program: Program, clock: Clock
) -> None:
    store.put(B, previous=A)
    assert program.renew() == [401, 200]
    assert program.renew() == [200]
    clock.tick(60)
    assert program.renew() == [401, 200], "a winner on its way out is remembered for a minute"
    issuer.set_secret(CLIENT, B)
    assert program.renew() == [401, 200]
    eventually(lambda: program.kinds(CandidateUsed) == ["previous", "current"])


def test_a_file_is_changed_in_each_order_without_a_failed_call(
    issuer: FakeIssuer, clock: Clock, tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    source = TokenSource(secret_file(folder, CLIENT, A), token_url=issuer.token_url, clock=clock)

    def renew() -> None:
        clock.tick(LIFETIME + 0.1)
        assert issuer.accepts(source.token().access_token)

    renew()
    for step in (
        lambda: secret_file(folder, CLIENT, A, client_secret_pending=B),
        lambda: issuer.set_secret(CLIENT, B),
        lambda: secret_file(folder, CLIENT, B, client_secret_previous=A),
        lambda: secret_file(folder, CLIENT, C),
        lambda: issuer.set_secret(CLIENT, C),
        lambda: (issuer.set_secret(CLIENT, D), secret_file(folder, CLIENT, D)),
    ):
        step()
        renew()
        renew()


# --- a round


def test_while_a_pending_is_named_all_are_asked_again_in_further_passes_six_requests_at_most(
    issuer: FakeIssuer, store: Store, program: Program, clock: Clock
) -> None:
    store.put(B, pending=C)
    program.fail()
    assert program.statuses() == [401] * 6
    assert clock.sleeps == [pytest.approx(0.1, rel=0.2), pytest.approx(0.5, rel=0.2)]
    eventually(lambda: program.kinds(CandidateRejected) == ["current", "pending"] * 3)
    assert len(store.reads) == 1 + 3, "one to begin with, and one forced read a pass"
    assert store.reads[1:] == [True] * 3


def test_six_rejections_are_a_rejection_and_open_the_circuit_although_the_last_pass_is_cut_short(
    issuer: FakeIssuer, store: Store, program: Program, clock: Clock
) -> None:
    program.take()
    issuer.set_secret(CLIENT, "not-a-real-secret-that-nobody-knows")
    store.put(B, pending=C, previous=D)  # and A, which was accepted last
    clock.tick(LIFETIME + 0.1)
    program.fail()
    assert program.statuses() == [200, *[401] * 6]
    assert program.source.status().circuit


def test_three_further_passes_follow_a_change_of_the_last_minute(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store()
    program = Program(issuer, store, clock)
    _known_but_never_accepted(issuer, program)
    store.put(B)
    program.fail()
    assert program.statuses() == [401] * 4
    assert clock.sleeps[2:] == [pytest.approx(seconds, rel=0.2) for seconds in (0.1, 0.5, 1.5)]


def test_without_a_change_a_rejected_secret_is_not_sent_again(
    issuer: FakeIssuer, store: Store, program: Program, clock: Clock
) -> None:
    store.put(B)
    program.fail()
    assert program.statuses() == [401]
    assert clock.sleeps == []


def test_a_change_of_more_than_a_minute_ago_is_worth_no_further_pass(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store()
    program = Program(issuer, store, clock)
    _known_but_never_accepted(issuer, program)
    store.put(B)
    program.source._credentials.current()
    clock.tick(61)
    program.fail()
    assert program.statuses() == [401]


def _known_but_never_accepted(issuer: FakeIssuer, program: Program) -> None:
    """The first secret has been read, and is no candidate any more once the store has another."""
    with issuer.down(), pytest.raises(IssuerUnavailable):
        program.source.token()
    program._clock.tick(1.1)
    program.statuses()


def test_a_store_that_may_be_behind_is_read_and_tried_again_a_few_times(issuer: FakeIssuer, clock: Clock) -> None:
    """The secret was changed, and a standby still gives the old one."""
    store = Store(ttl=300.0)
    store.eventually_consistent = True
    program = Program(issuer, store, clock)
    issuer.set_secret(CLIENT, B)

    def the_standby_catches_up() -> None:
        if issuer.token_requests == 2:
            store.put(B)

    clock.meanwhile = the_standby_catches_up
    program.take()
    assert program.statuses() == [401, 401, 200]


def test_a_store_that_may_be_behind_sends_a_wrong_secret_four_times_and_where_that_locks_out_once(
    issuer: FakeIssuer, clock: Clock
) -> None:
    for lockout, requests in ((False, 4), (True, 1)):
        store = Store(ttl=300.0)
        store.eventually_consistent = True
        store.put(B)
        program = Program(issuer, store, clock, profile=IssuerProfile(lockout=lockout))
        program.statuses()
        program.fail()
        assert program.statuses() == [401] * requests


def test_leased_credentials_that_are_rejected_are_not_leased_again_and_again(issuer: FakeIssuer, clock: Clock) -> None:
    """A store that makes a new pair at each read, as a dynamic engine does, and an issuer that takes none of them."""
    store = Store(ttl=300.0)
    store.eventually_consistent = True
    numbers = itertools.count()
    reading = store.read

    def lease(*arguments: Any, **options: Any) -> Document:
        fields = {"client_id": CLIENT, "client_secret": f"{D}-{next(numbers)}"}
        store.document = Document(fields, valid_for=3600, leased=True)
        return reading(*arguments, **options)

    store.read = lease  # type: ignore[method-assign]
    program = Program(issuer, store, clock)
    for _ in range(60):
        program.fail()
        clock.tick(1.0)
    assert len(store.reads) == 2, "the first, and one after the rejection"
    assert len(program.statuses()) < 10


@pytest.mark.parametrize(
    "bound", [{"issuer": "https://staging.example.com/"}, {"token_url": "https://staging.example.com/t"}]
)
@pytest.mark.parametrize("kind", ["pending", "previous"])
def test_a_candidate_whose_own_document_is_for_another_issuer_is_not_sent(
    issuer: FakeIssuer, clock: Clock, kind: str, bound: dict[str, str]
) -> None:
    """As a version of its own in Secrets Manager; the client there may even be accepted here."""
    store = Store()
    stranger = Document({"client_id": CLIENT, "client_secret": A, **bound})
    fields = {"client_id": CLIENT, "client_secret": B, "token_url": issuer.token_url}
    store.document = Document(fields, **{kind: stranger})  # type: ignore[arg-type]
    program = Program(issuer, store, clock)
    program.fail()
    assert program.statuses() == [401]
    eventually(lambda: "CandidateUnfit" in program.events.names())


def test_nor_if_the_credentials_were_handed_over(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store()
    stranger = Document({"client_id": CLIENT, "client_secret": A, "issuer": "https://staging.example.com/"})
    store.document = Document({"client_id": CLIENT, "client_secret": B}, pending=stranger)
    credentials = CredentialsSource("memory:pos", stores=store.stores, clock=clock)
    with TokenSource(credentials, issuer=issuer.url, clock=clock) as source, pytest.raises(CredentialsRejected):
        source.token()
    assert issuer.token_requests == 1


@pytest.mark.parametrize("failure", [BackendUnavailable("down"), SecretNotFound("gone"), MalformedSecret("half")])
def test_verify_proves_nothing_by_what_is_kept(issuer: FakeIssuer, clock: Clock, failure: SecretSourceError) -> None:
    store = Store()
    program = Program(issuer, store, clock)
    program.take()
    store.failure = failure
    with pytest.raises(type(failure)):
        program.source.verify()
    assert program.source.status().kept_tokens == 1


def test_a_candidate_whose_own_document_is_for_this_issuer_is_used(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store()
    fields = {"client_id": CLIENT, "token_url": issuer.token_url}
    store.document = Document({**fields, "client_secret": B}, pending=Document({**fields, "client_secret": A}))
    program = Program(issuer, store, clock)
    program.take()
    assert program.statuses() == [401, 200]


@pytest.mark.parametrize("where", ["store", "issuer"])
def test_what_comes_between_two_passes_is_found(issuer: FakeIssuer, clock: Clock, where: str) -> None:
    store = Store()
    program = Program(issuer, store, clock)
    _known_but_never_accepted(issuer, program)
    store.put(B)

    def before_the_second_pass() -> None:
        if issuer.token_requests == 2:
            if where == "store":
                store.put(A)
            else:
                issuer.set_secret(CLIENT, B)

    clock.meanwhile = before_the_second_pass
    program.take()
    assert program.statuses() == [401, 401, 200]


def test_further_passes_stay_inside_the_deadline(issuer: FakeIssuer, store: Store, clock: Clock) -> None:
    program = Program(issuer, store, clock, timeout=0.3)
    store.put(B, pending=C)
    program.fail()
    assert program.statuses() == [401] * 4
    assert sum(clock.sleeps) < 0.3


def test_a_rejection_after_an_unavailable_issuer_is_followed_by_the_other_candidates(
    issuer: FakeIssuer, store: Store, program: Program
) -> None:
    store.put(B, pending=A)
    issuer.fail(Fault(status=503), times=1)
    assert program.renew() == [503, 401, 200]


REJECTED = [
    (401, None),
    (401, "invalid_client"),
    (401, "invalid_scope"),
    (400, "invalid_client"),
    (403, "invalid_client"),
    (401, "unauthorized_client"),
    (403, "unauthorized_client"),
    (401, "access_denied"),
    (403, "access_denied"),
]
REFUSED = [
    (400, "invalid_scope"),
    (400, "invalid_target"),
    (400, "unsupported_grant_type"),
    (400, "unauthorized_client"),
    (400, "access_denied"),
    (400, "invalid_request"),
    (400, None),
    (404, None),
]


def answered(status: int, error: str | None) -> Fault:
    return Fault(status=status, body=b"<html>" if error is None else json.dumps({"error": error}).encode())


@pytest.mark.parametrize(("status", "error"), REJECTED)
def test_rejected_is_followed_by_the_other_candidates(
    issuer: FakeIssuer, clock: Clock, status: int, error: str | None
) -> None:
    store = Store()
    store.put(B, pending=A)
    issuer.fail(answered(status, error), times=1)
    assert Program(issuer, store, clock).renew() == [status, 200]


@pytest.mark.parametrize(("status", "error"), REFUSED)
def test_any_other_refusal_is_final_and_asks_no_candidate(
    issuer: FakeIssuer, clock: Clock, status: int, error: str | None
) -> None:
    store = Store()
    store.put(B, pending=A)
    program = Program(issuer, store, clock)
    issuer.fail(answered(status, error), times=1)
    with pytest.raises(TokenRequestRefused) as caught:
        program.source.token()
    assert caught.value.error == error
    assert not caught.value.retryable
    assert program.statuses() == [status]
    assert clock.sleeps == []
    assert program.source.status().circuit is None


def test_a_further_code_of_a_profile_is_a_rejection(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store()
    store.put(B, pending=A)
    issuer.fail(answered(400, "bad_client"), times=1)
    assert Program(issuer, store, clock, profile=IssuerProfile(rejected=("bad_client",))).renew() == [400, 200]


def test_a_403_without_an_oauth_error_is_refused_if_the_store_has_no_other_secret(
    issuer: FakeIssuer, store: Store, program: Program
) -> None:
    store.put(A, pending=B)
    issuer.fail(answered(403, None), times=1)
    with pytest.raises(TokenRequestRefused):
        program.source.token()
    assert program.statuses() == [403]
    assert program.source.status().circuit is None, "a gateway has answered, perhaps: the secret may be right"


def test_a_403_without_an_oauth_error_is_a_rejection_if_the_store_has_another_secret(
    issuer: FakeIssuer, clock: Clock
) -> None:
    store = Store(ttl=300)
    program = Program(issuer, store, clock)
    program.renew()
    store.put(B)
    issuer.set_secret(CLIENT, B)
    issuer.fail(answered(403, None), times=1)
    assert program.renew() == [403, 200]


def test_after_a_doubtful_403_the_kept_token_serves_and_the_next_attempt_is_backed_off(
    issuer: FakeIssuer, clock: Clock
) -> None:
    issuer.lifetime = 100.0
    program = Program(issuer, Store(), clock)
    kept = program.source.token()
    clock.tick(85)
    with issuer.failing(answered(403, None)):
        assert program.source.token() is kept
        eventually(lambda: program.events.of(RefreshFailed))
        assert program.source.status().next_try is not None


# --- what follows a rejection is one at a time


def test_fifty_requests_whose_secret_has_just_been_changed_have_one_recovery(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store(ttl=300)
    program = Program(issuer, store, clock, scope="default")
    program.renew()
    issuer.set_secret(CLIENT, B)
    store.put(B)
    numbers = itertools.count()
    tokens = in_threads(50, lambda: program.source.token(scope=f"scope-{next(numbers)}"))
    assert {issuer.accepts(token.access_token) for token in tokens} == {True}
    assert len({token.access_token for token in tokens}) == 50
    assert store.reads == [False, True], "one forced read served all"
    statuses = program.statuses()
    assert statuses.count(200) == 50
    assert statuses.count(401) <= 50
    eventually(lambda: program.kinds(CandidateUsed) == ["current"])


def test_the_failure_of_a_recovery_serves_all(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store(ttl=300)
    store.put(B)
    program = Program(issuer, store, clock)
    numbers = itertools.count()
    outcomes = in_threads(20, lambda: program.source.token(scope=f"scope-{next(numbers)}"))
    assert {type(outcome) for outcome in outcomes} == {CredentialsRejected}
    assert {outcome.retry_after is not None for outcome in outcomes} == {True}
    assert len(program.statuses()) <= 20, "the first requests run side by side, and none comes after them"
    # One forced read; and who comes when the circuit is open already may have the store looked at once.
    assert store.reads in ([False, True], [False, True, True])
    eventually(lambda: program.events.of(CircuitOpened))
    assert len(program.events.of(CircuitOpened)) == 1


def test_the_failure_of_a_recovery_serves_all_also_if_the_store_has_changed(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store(ttl=300)
    program = Program(issuer, store, clock)
    program.renew()
    issuer.set_secret(CLIENT, C)
    store.put(B)
    numbers = itertools.count()
    outcomes = in_threads(20, lambda: program.source.token(scope=f"scope-{next(numbers)}"))
    assert {type(outcome) for outcome in outcomes} == {CredentialsRejected}
    assert len(program.statuses()) <= 20 + 5
    eventually(lambda: program.events.of(CircuitOpened))
    assert len(program.events.of(CircuitOpened)) == 1


def test_a_candidate_that_a_recovery_found_for_another_request_may_be_rejected_again(
    issuer: FakeIssuer, clock: Clock
) -> None:
    """Then there is another recovery; the round ends with six requests all the same."""
    store = Store()
    store.put(B, pending=A)
    program = Program(issuer, store, clock)
    assert program.renew() == [401, 200]
    issuer.set_secret(CLIENT, C)
    program.fail(scope="other", force=True)
    assert len(program.statuses()) <= 6


# --- the circuit


@pytest.mark.parametrize("ttl", [0.0, 300.0], ids=["cheap", "dear"])
def test_a_thousand_calls_with_a_wrong_secret_make_at_most_four_requests_in_five_seconds(
    issuer: FakeIssuer, clock: Clock, ttl: float
) -> None:
    store = Store(ttl=ttl)
    store.put(B)
    program = Program(issuer, store, clock)
    for _ in range(1000):
        error = program.fail()
        assert error.retry_after is not None
        clock.tick(0.005)
    assert 2 <= len(program.statuses()) <= 4
    store.put(A)
    if ttl == 0:
        program.take()  # each call looks into a cheap store
        return
    for _ in range(60):
        clock.tick(0.1)
        with suppress(CredentialsRejected):
            program.take()
            break
    else:
        pytest.fail("a dear store is asked once in 5 s, and a failure is shared for 1 s")
    assert len(store.reads) <= 6


def test_while_the_circuit_is_open_each_call_reads_a_cheap_store_once(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store()
    store.put(B)
    program = Program(issuer, store, clock)
    program.fail()
    before = len(store.reads)
    for number in range(1, 6):
        program.fail()
        assert len(store.reads) == before + number


def test_while_the_circuit_is_open_a_dear_store_is_read_once_in_five_seconds(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store(ttl=300)
    store.put(B)
    program = Program(issuer, store, clock)
    program.fail()
    before = len(store.reads)
    for _ in range(29):
        program.fail()
        clock.tick(0.5)
    assert len(store.reads) == before + 3


def test_an_open_circuit_lets_one_candidate_through_an_interval_each_in_turn(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store()
    store.put(B, pending=C)
    program = Program(issuer, store, clock)
    error = program.fail()
    program.statuses()
    eventually(lambda: program.events.of(CircuitOpened))
    program.events.clear()
    for _ in range(4):
        assert error.retry_after is not None
        clock.tick(error.retry_after - 0.01)
        program.fail()
        assert program.statuses() == []
        clock.tick(0.02)
        error = program.fail()
        assert program.statuses() == [401]
    eventually(lambda: program.kinds(CandidateRejected) == ["current", "pending"] * 2)
    assert program.events.of(CircuitOpened) == [], "it has been open all the time"


def test_the_error_of_an_open_circuit_and_the_status_say_when_the_next_attempt_is_due(
    issuer: FakeIssuer, clock: Clock
) -> None:
    store = Store()
    store.put(B)
    program = Program(issuer, store, clock)
    first = program.fail()
    assert first.retry_after == program.source.status().circuit
    assert 0.8 <= (first.retry_after or 0) <= 1.2
    clock.tick(0.5)
    assert program.fail().retry_after == pytest.approx((first.retry_after or 0) - 0.5)


def test_a_lock_out_makes_the_intervals_longer(issuer: FakeIssuer, clock: Clock) -> None:
    longest = []
    for lockout in (False, True):
        store = Store()
        store.put(B)
        program = Program(issuer, store, clock, profile=IssuerProfile(lockout=lockout))
        for _ in range(12):
            clock.tick(program.fail().retry_after or 0)
        longest.append(program.fail().retry_after or 0)
    assert longest[0] <= 60 < 240 <= longest[1] <= 300


def test_an_accepted_attempt_closes_the_circuit(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store()
    store.put(B)
    program = Program(issuer, store, clock)
    error = program.fail()
    issuer.set_secret(CLIENT, B)
    clock.tick(error.retry_after or 0)
    program.take()
    assert program.source.status().circuit is None
    eventually(lambda: program.events.of(CircuitClosed))


def test_other_values_close_the_circuit_also_if_they_are_wrong_too(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store()
    store.put(B)
    program = Program(issuer, store, clock)
    program.fail()
    program.statuses()
    store.put(C)
    program.fail()
    assert 1 <= len(program.statuses()) <= 6
    eventually(lambda: len(program.events.of(CircuitOpened)) == 2)


def test_a_kept_token_serves_on_while_the_circuit_is_open(issuer: FakeIssuer, clock: Clock) -> None:
    issuer.lifetime = 100.0
    program = Program(issuer, Store(), clock)
    kept = program.source.token()
    issuer.set_secret(CLIENT, B)
    clock.tick(85)
    for _ in range(149):
        assert program.source.token() is kept
        clock.tick(0.1)
    assert program.source.status().circuit is not None
    clock.tick(0.2)
    program.fail()


@pytest.mark.parametrize("way", ["force", "verify", "reload"])
def test_who_asks_for_it_tries_once_in_five_seconds_past_an_open_circuit(
    issuer: FakeIssuer, store: Store, clock: Clock, way: str
) -> None:
    store.put(B)
    program = Program(issuer, store, clock)

    def get() -> None:
        if way == "reload":
            program.source.reload()
        if way == "verify":
            assert issuer.accepts(program.source.verify().access_token)
        else:
            program.take(force=way == "force")

    def ask() -> list[int]:
        with pytest.raises(CredentialsRejected):
            get()
        return program.statuses()

    for _ in range(8):  # up to where an interval is longer than all that follows
        clock.tick(program.fail().retry_after or 0)
    program.fail()
    program.statuses()
    assert ask() == [401]
    assert ask() == []
    clock.tick(5.1)
    assert ask() == [401]
    clock.tick(5.1)
    issuer.set_secret(CLIENT, B)
    get()


# --- an issuer that is out of order


def test_without_a_token_three_attempts_are_made(issuer: FakeIssuer, store: Store, clock: Clock) -> None:
    program = Program(issuer, store, clock)
    issuer.fail(Fault(status=503), times=2)
    assert program.renew() == [503, 503, 200]
    assert clock.sleeps == [pytest.approx(0.2, rel=0.21), pytest.approx(0.8, rel=0.21)]
    clock.tick(LIFETIME + 0.1)
    issuer.fail(Fault(status=500), times=4)
    with pytest.raises(IssuerUnavailable) as caught:
        program.source.token()
    assert caught.value.status == 500
    assert caught.value.retryable
    assert program.statuses() == [500, 500, 500]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(issuer: FakeIssuer, clock: Clock, status: int) -> None:
    issuer.fail(Fault(status=status), times=1)
    assert Program(issuer, Store(), clock).renew() == [status, 200]


def test_a_connection_that_is_refused_or_reset_is_tried_again(issuer: FakeIssuer, clock: Clock) -> None:
    program = Program(issuer, Store(), clock)
    issuer.fail(Fault(reset=True), times=2)
    assert program.renew() == [0, 0, 200]
    clock.tick(LIFETIME + 0.1)
    with issuer.down(), pytest.raises(IssuerUnavailable):
        program.source.token()
    assert len(clock.sleeps) == 4


def test_an_answer_that_is_no_token_is_not_tried_again(issuer: FakeIssuer, clock: Clock) -> None:
    program = Program(issuer, Store(), clock)
    issuer.fail(Fault(body=b"<html>hello</html>"), times=1)
    with pytest.raises(SecretSourceError):
        program.source.token()
    assert program.statuses() == [200]
    assert clock.sleeps == []


def test_a_failed_verification_of_the_certificate_is_not_tried_again(clock: Clock) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with FakeIssuer(ssl_context=context, clock=clock) as issuer:
        credentials = issuer.add_client(CLIENT, A)
        source = TokenSource(credentials, token_url=issuer.token_url, clock=clock)
        with pytest.raises(IssuerUnavailable) as caught:
            source.token()
        assert not caught.value.retryable
        assert clock.sleeps == []
        assert issuer.requests == []


def test_the_failure_is_shared_for_a_second(issuer: FakeIssuer, clock: Clock) -> None:
    program = Program(issuer, Store(), clock)
    with issuer.failing(Fault(status=503)):
        errors = [type(outcome) for outcome in in_threads(16, program.source.token)]
        assert errors == [IssuerUnavailable] * 16
        assert len(program.statuses()) == 3
    with pytest.raises(IssuerUnavailable):
        program.source.token()
    assert program.statuses() == []
    clock.tick(1.1)
    program.take()


def test_the_wait_that_the_issuer_asks_for_is_obeyed_between_attempts(issuer: FakeIssuer, clock: Clock) -> None:
    program = Program(issuer, Store(), clock)
    issuer.fail(Fault(status=429, headers={"Retry-After": "4"}), times=1)
    assert program.renew() == [429, 200]
    assert clock.sleeps == [4.0]


@pytest.mark.parametrize(("asked", "obeyed"), [(30, 30), (4000, 300)])
def test_the_wait_that_the_issuer_asks_for_is_obeyed_between_calls_up_to_five_minutes(
    issuer: FakeIssuer, clock: Clock, asked: int, obeyed: int
) -> None:
    program = Program(issuer, Store(), clock)
    issuer.fail(Fault(status=503, headers={"Retry-After": str(asked)}), times=1)
    for left in (obeyed, obeyed - 10, 1):
        with pytest.raises(IssuerUnavailable) as caught:
            program.source.token()
        assert caught.value.retry_after == pytest.approx(left)
        clock.tick(10 if left == obeyed else left - 1 if left > 1 else 1.1)
    assert program.statuses() == [503]
    assert program.renew() == [200]


def test_it_is_obeyed_also_once_the_kept_token_has_ended(issuer: FakeIssuer, clock: Clock) -> None:
    program = Program(issuer, Store(), clock)
    kept = program.source.token()
    clock.tick(LIFETIME * 0.85)
    issuer.fail(Fault(status=503, headers={"Retry-After": "60"}), times=1)
    assert program.source.token() is kept
    eventually(lambda: program.events.of(RefreshFailed))
    clock.tick(LIFETIME * 0.2)
    with pytest.raises(IssuerUnavailable):
        program.source.token()
    assert program.statuses() == [200, 503]
    clock.tick(60)
    program.take()


# --- a store that fails


@pytest.mark.parametrize(
    "failure",
    [AccessDenied("no", reference="memory://pos"), BackendUnavailable("down", reference="memory://pos")],
)
def test_a_store_that_fails_before_anything_was_read_is_its_error_and_nothing_is_sent(
    issuer: FakeIssuer, store: Store, program: Program, failure: SecretSourceError
) -> None:
    store.failure = failure
    for _ in range(2):
        with pytest.raises(type(failure)) as caught:
            program.source.token()
        assert caught.value is not failure
    assert issuer.requests == []
    assert len(store.reads) == 1
    assert program.source.status().last_error == type(failure).__name__
    eventually(lambda: program.events.of(RefreshFailed))


def test_while_the_store_is_down_tokens_are_got_with_the_last_good_credentials(
    issuer: FakeIssuer, store: Store, program: Program, clock: Clock
) -> None:
    program.renew()
    store.failure = BackendUnavailable("down", reference="memory://pos")
    clock.tick(400)
    assert program.renew() == [200]


def test_a_rejection_while_the_store_is_down_ends_in_the_rejection(
    issuer: FakeIssuer, store: Store, program: Program
) -> None:
    program.renew()
    store.failure = BackendUnavailable("down", reference="memory://pos")
    issuer.set_secret(CLIENT, B)
    program._clock.tick(LIFETIME + 0.1)
    program.fail()
    assert program.statuses() == [401]
    assert len(store.reads) <= 4


def test_a_recovery_whose_read_hangs_leaves_time_for_the_pending_secret(issuer: FakeIssuer) -> None:
    store = Store()
    store.put(B, pending=A)
    source = TokenSource("memory:pos", stores=store.stores, token_url=issuer.token_url, timeout=2)
    issuer.add_client(CLIENT, B)
    source.token()
    issuer.set_secret(CLIENT, A)
    store.ttl = 300.0
    with store.held():
        assert issuer.accepts(source.token(scope="a").access_token)


def test_a_recovery_whose_read_hangs_ends_at_the_deadline(issuer: FakeIssuer) -> None:
    store = Store(ttl=300)
    store.put(B)
    source = TokenSource("memory:pos", stores=store.stores, token_url=issuer.token_url, timeout=1.0)
    source._credentials.current()
    with store.held():
        with pytest.raises(DeadlineExceeded) as caught:
            source.token()
        assert source.status().orphaned_threads >= 1
    assert "a rejection" in str(caught.value) or "reading" in str(caught.value)
    eventually(lambda: source.status().orphaned_threads == 0)


def test_a_read_is_shared_by_requests_that_come_at_once(issuer: FakeIssuer) -> None:
    store = Store(ttl=300)
    source = TokenSource("memory:pos", stores=store.stores, token_url=issuer.token_url)
    outcomes: list[object] = []
    with store.held():
        threads = [
            threading.Thread(target=lambda scope=f"s{number}": outcomes.append(source.token(scope=scope)))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: store.reads)
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 8
    assert store.reads == [False]


# --- binding


@pytest.mark.parametrize(
    ("bound", "named"),
    [
        ({"issuer": "https://production.example"}, "https://production.example"),
        ({"token_url": "https://production.example/token"}, "https://production.example/token"),
    ],
)
def test_a_document_for_another_issuer_ends_the_call_before_anything_is_sent(
    issuer: FakeIssuer, store: Store, clock: Clock, bound: dict[str, str], named: str
) -> None:
    store.put(A, **bound)
    program = Program(issuer, store, clock, issuer=issuer.url)
    with pytest.raises(ConfigurationError, match="nothing was sent") as caught:
        program.source.token()
    assert named in str(caught.value)
    assert issuer.requests == []


def test_a_document_for_another_issuer_is_refused_also_where_the_token_endpoint_is_discovered(
    issuer: FakeIssuer, clock: Clock
) -> None:
    store = Store()
    store.put(A, issuer="https://production.example")
    program = Program(issuer, store, clock, issuer=issuer.url, token_url=None)
    with pytest.raises(ConfigurationError, match="nothing was sent"):
        program.source.token()
    assert issuer.token_requests == 0


def test_a_document_that_must_be_bound_and_is_not_ends_each_request_before_anything_is_sent(
    issuer: FakeIssuer, store: Store
) -> None:
    """Also for credentials that were accepted elsewhere, as those of a program's own CredentialsSource."""
    credentials = CredentialsSource("memory:pos", stores=store.stores)
    target = replace(Target.of(issuer=issuer.url, token_url=None), require_binding=True)
    fetcher = Fetcher(credentials, target, Transport(), Emitter(), SYSTEM_CLOCK)
    identity = target.identity(credentials.name, None)

    def body(flight: Flight[Granted]) -> Granted:
        admitted = fetcher.admit(flight)
        assert admitted is not None
        return fetcher.fetch(identity, flight, admitted, patient=False)

    with pytest.raises(ConfigurationError, match="does not say for which issuer"):
        Flights[Granted]("token", Emitter()).run("token", body, Deadline(60.0))
    assert issuer.token_requests == 0


def test_a_document_for_an_issuer_names_issuer_to_a_source_with_only_a_token_url(
    issuer: FakeIssuer, store: Store, program: Program
) -> None:
    store.put(A, issuer=issuer.url)
    with pytest.raises(ConfigurationError, match="issuer="):
        program.source.token()
    assert issuer.requests == []


def test_a_document_for_this_issuer_is_served(issuer: FakeIssuer, store: Store, clock: Clock) -> None:
    store.put(A, issuer=issuer.url, token_url=issuer.token_url, environment="production")
    assert Program(issuer, store, clock, issuer=issuer.url).renew() == [200]


def test_a_document_for_another_issuer_leaves_the_kept_token_whatever_its_client(
    issuer: FakeIssuer, clock: Clock
) -> None:
    store = Store()
    program = Program(issuer, store, clock, issuer=issuer.url)
    kept = program.source.token()
    store.put(B, client_id="other", issuer="https://production.example")
    clock.tick(LIFETIME * 0.85)
    assert program.source.token() is kept
    eventually(lambda: program.events.of(RefreshFailed))
    assert program.source.token() is kept
    clock.tick(LIFETIME * 0.1)
    assert program.source.token() is kept
    assert program.statuses() == [200]


def test_a_document_for_another_issuer_that_is_read_after_a_rejection_is_not_sent(
    issuer: FakeIssuer, clock: Clock
) -> None:
    store = Store(ttl=300)
    program = Program(issuer, store, clock, issuer=issuer.url)
    program.renew()
    issuer.set_secret(CLIENT, B)
    store.put(B, issuer="https://production.example")
    clock.tick(LIFETIME + 0.1)
    with pytest.raises(ConfigurationError, match="nothing was sent"):
        program.source.token()
    assert program.statuses() == [401]


# --- another client


def test_a_document_with_another_client_id_drops_the_tokens(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store()
    program = Program(issuer, store, clock)
    olds = [program.source.token(), program.source.token(scope="other")]
    issuer.add_client("new", B)
    store.put(B, client_id="new")
    program.source.token(scope="third")
    news = [program.source.token(), program.source.token(scope="other")]
    assert all(new is not old for new, old in zip(news, olds, strict=True))
    grants = [issuer.grant_of(token.access_token) for token in news]
    assert [grant and grant.client_id for grant in grants] == ["new", "new"]


def test_another_client_id_that_is_read_after_a_rejection_drops_the_tokens(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store(ttl=300)
    program = Program(issuer, store, clock)
    old = program.source.token()
    issuer.set_secret(CLIENT, C)
    issuer.add_client("new", B)
    store.put(B, client_id="new")
    program.source.token(scope="other")
    assert program.source.token() is not old


def test_another_secret_keeps_the_tokens(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store()
    program = Program(issuer, store, clock)
    kept = program.source.token()
    issuer.set_secret(CLIENT, B)
    store.put(B)
    program.source.token(scope="other")
    assert program.source.token() is kept


# --- found by attacking


def test_a_program_that_starts_while_the_issuer_goes_over_gets_a_token() -> None:
    with FakeIssuer(latency=0.1) as issuer:
        issuer.add_client(CLIENT, A)
        credentials = ClientCredentials(CLIENT, B, previous=ClientCredentials(CLIENT, A))

        def administrator() -> None:
            issuer.wait_for_token_requests(1)  # the new secret has been rejected, and its answer is on its way
            issuer.set_secret(CLIENT, B)

        saving = threading.Thread(target=administrator)
        saving.start()
        with TokenSource(credentials, token_url=issuer.token_url) as source:
            assert issuer.accepts(source.token().access_token)
        saving.join()


def test_where_wrong_secrets_lock_the_client_rejected_ones_are_not_asked_once_more(issuer: FakeIssuer) -> None:
    credentials = ClientCredentials(CLIENT, B, previous=ClientCredentials(CLIENT, C))
    with (
        TokenSource(credentials, token_url=issuer.token_url, profile=IssuerProfile(lockout=True)) as source,
        pytest.raises(CredentialsRejected),
    ):
        source.token()
    assert issuer.token_requests == 2


def test_requests_that_were_used_up_by_an_unavailable_issuer_are_no_rejection(issuer: FakeIssuer, clock: Clock) -> None:
    for status in (503, 503, 401, 503, 503, 401):
        issuer.fail(Fault(status=status), times=1)
    others = ClientCredentials(CLIENT, C), ClientCredentials(CLIENT, A)
    credentials = ClientCredentials(CLIENT, B, pending=others[0], previous=others[1])
    with TokenSource(credentials, token_url=issuer.token_url, clock=clock) as source:
        with pytest.raises(IssuerUnavailable, match="too often to try every secret"):
            source.token()
        assert source.status().circuit is None


@pytest.mark.parametrize("where", ["access_token", "scope"])
def test_a_secret_that_is_given_back_as_a_token_or_scope_is_not_handed_out(issuer: FakeIssuer, where: str) -> None:
    secret = "not-a-real-secret-that-is-given-back"
    issuer.set_secret(CLIENT, secret)
    issuer.fail(Fault(answer={where: secret}))
    with TokenSource(ClientCredentials(CLIENT, secret), token_url=issuer.token_url) as source:
        with pytest.raises(InvalidTokenResponse) as caught:
            source.token()
        assert secret not in str(caught.value)


def test_a_short_secret_that_is_found_in_a_token_by_chance_does_no_harm(issuer: FakeIssuer) -> None:
    issuer.set_secret(CLIENT, "ab")
    issuer.fail(Fault(answer={"access_token": "xxabxx"}))
    with TokenSource(ClientCredentials(CLIENT, "ab"), token_url=issuer.token_url) as source:
        assert source.token().access_token == "xxabxx"


def test_swapped_fields_show_the_secret_in_no_error(issuer: FakeIssuer) -> None:
    secret = "not-a-real-secret-in-the-wrong-field"
    with TokenSource(ClientCredentials(secret, CLIENT), token_url=issuer.token_url) as source:
        with pytest.raises(CredentialsRejected) as caught:
            source.token()
        shown = f"{caught.value} {vars(caught.value)} {source.status()} {source!r}"
        assert secret not in shown


def test_a_source_that_could_not_be_made_can_be_shown_in_a_traceback() -> None:
    secret = "not-a-real-secret:pasted"
    try:
        TokenSource(secret, token_url="https://pos.example.com/connect/token")
    except ConfigurationError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "not made" in repr(TokenSource.__new__(TokenSource)), "nor does its frame fail to show it"
    assert shown.count(secret) == shown.count("secret = '")  # in the frame of this test only


def test_a_document_of_another_client_drops_no_token_before_that_client_has_one(
    issuer: FakeIssuer, clock: Clock
) -> None:
    store = Store()
    issuer.lifetime = 100
    program = Program(issuer, store, clock)
    program.take()
    kept = program.source.token()
    store.document = Document({"client_id": "somebody-else", "client_secret": A})
    clock.tick(81)
    program.source.token()  # begins a renewal, which is rejected
    eventually(lambda: program.events.of(RefreshFailed))
    assert program.source.token() is kept


# --- what a fetcher tells, and what it forgets


def test_who_runs_out_of_time_is_told_whose_token_it_was_for(issuer: FakeIssuer) -> None:
    source = TokenSource("memory:pos", stores=Store().stores, token_url=issuer.token_url)
    fetcher, flight = source._fetcher, Flight[Any](Deadline(0.3))
    admitted = fetcher.admit(flight)
    assert admitted is not None
    issuer.fail(Fault(hang=True))
    with pytest.raises(DeadlineExceeded) as caught:
        fetcher.fetch(source._identity, flight, admitted, patient=False)
    assert str(caught.value).startswith("no token for memory://pos: token request: no whole answer")
    assert caught.value.args[0] == caught.value.message
    assert flight.phase.startswith("token request to")


def test_a_reload_forgets_what_the_issuer_published_and_whom_the_transport_trusts(
    issuer: FakeIssuer, clock: Clock
) -> None:
    program = Program(issuer, Store(), clock, token_url=None, issuer=issuer.url)
    program.take()
    trusted = program.source._fetcher._transport._context
    program.source.reload()
    assert program.source._fetcher._transport._context is not trusted
    program.take(force=True)
    assert [request.method for request in issuer.requests] == ["GET", "POST", "GET", "POST"]


def test_a_fetcher_tells_what_was_accepted_and_what_hangs(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    fetcher = program.source._fetcher
    assert fetcher.accepted is None
    program.take()
    assert fetcher.accepted is not None
    assert fetcher.accepted.kind == "current"
    assert fetcher.orphans == 0
    monkeypatch.setattr(Flights, "orphans", property(lambda self: 2))
    assert fetcher.orphans == 4, "recoveries, and discovery"


def test_the_circuit_is_said_to_be_closed_when_other_values_come_and_only_if_it_was_open(
    issuer: FakeIssuer, clock: Clock
) -> None:
    store = Store()
    program = Program(issuer, store, clock)
    program.take()
    issuer.set_secret(CLIENT, D)
    clock.tick(LIFETIME + 0.1)
    program.fail()
    store.put(B)
    clock.tick(5)
    program.fail()

    def told() -> list[str]:
        return [name for name in program.events.names() if name.startswith("Circuit")]

    eventually(lambda: len(told()) >= 3)
    assert told() == ["CircuitOpened", "CircuitClosed", "CircuitOpened"]


def test_each_verification_reads_the_store_however_dear_it_is(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store(ttl=300.0)
    program = Program(issuer, store, clock)
    for _ in range(6):
        program.source.verify()
    assert store.reads == [True] * 6


def test_an_issuer_that_is_down_is_told_by_whose_token_it_was_asked_for(
    issuer: FakeIssuer, store: Store, clock: Clock
) -> None:
    program = Program(issuer, store, clock, issuer=issuer.url)
    with issuer.down(), pytest.raises(IssuerUnavailable) as caught:
        program.source.token()
    error = caught.value
    assert str(error).startswith(f"no token from {issuer.url} for memory://pos (client_secret_basic): ")
    assert (error.issuer, error.auth_method, error.args) == (issuer.url, "client_secret_basic", (error.message,))


def test_a_rejection_of_a_secret_with_special_characters_says_so(issuer: FakeIssuer, clock: Clock) -> None:
    issuer.fail(Fault(status=401, body=b'{"error": "invalid_client"}'))
    for secret, told in (("not+a real/secret", True), ("not-a-real-secret", False)):
        store = Store()
        store.put(secret)
        assert ("basic_encoding" in str(Program(issuer, store, clock).fail().hint)) == told


def test_one_candidate_for_this_issuer_does_not_let_another_pass_that_is_not(issuer: FakeIssuer, clock: Clock) -> None:
    store = Store()
    fields = {"client_id": CLIENT, "token_url": issuer.token_url}
    stranger = Document({"client_id": CLIENT, "client_secret": A, "token_url": "https://staging.example.com/t"})
    store.document = Document(
        {**fields, "client_secret": B}, pending=Document({**fields, "client_secret": C}), previous=stranger
    )
    program = Program(issuer, store, clock)
    program.fail()
    assert 200 not in program.statuses()
    assert program.kinds(CandidateUsed) == []


def test_an_answer_that_is_not_read_to_its_end_is_its_error(issuer: FakeIssuer, store: Store, clock: Clock) -> None:
    issuer.fail(Fault(padding=2 * 1024 * 1024))
    with pytest.raises(InvalidTokenResponse, match=r"no token from .* more than"):
        Program(issuer, store, clock).source.token()
