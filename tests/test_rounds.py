"""Candidates, a recovery and the circuit, as decisions. What they make of a changed secret: tests/simulation."""

from __future__ import annotations

import itertools

import pytest

from secretsource import ClientCredentials, CredentialsRejected
from secretsource.circuit import Circuit
from secretsource.credentials import Binding
from secretsource.resolve import Reading
from secretsource.rounds import Candidate, Candidates, GiveUp, Read, Recovery, worth_another_pass
from secretsource.testing import TickingClock

from .stores import CLIENT, A, B, C, D


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


def reading(
    current: str, pending: str | None = None, previous: str | None = None, *, changed: float | None = None
) -> Reading:
    beside = [None if secret is None else ClientCredentials(CLIENT, secret) for secret in (pending, previous)]
    credentials = ClientCredentials(CLIENT, current, pending=beside[0], previous=beside[1])
    values = f"{current} {pending} {previous}".encode()
    return Reading(credentials, Binding(), 1, True, 0.0, 0.0, values, changed)


def shown(candidates: list[Candidate]) -> list[tuple[str, str]]:
    return [(candidate.kind, candidate.credentials.client_secret.reveal()) for candidate in candidates]


def named(candidates: Candidates, where: Reading, kind: str) -> Candidate:
    return next(candidate for candidate in candidates.of(where) if candidate.kind == kind)


# --- candidates


def test_candidates_are_current_pending_previous_and_the_one_accepted_last(clock: TickingClock) -> None:
    candidates = Candidates(clock)
    before = reading("last")
    candidates.accepted(candidates.first(before), before, remembered=True)
    assert shown(candidates.of(reading(A, B, C))) == [
        ("current", A),
        ("pending", B),
        ("previous", C),
        ("last accepted", "last"),
    ]


def test_each_value_is_one_candidate(clock: TickingClock) -> None:
    candidates = Candidates(clock)
    candidates.accepted(candidates.first(reading(A)), reading(A), remembered=True)
    assert shown(candidates.of(reading(A, A, A))) == [("current", A)]
    assert shown(candidates.of(reading(B, A, B))) == [("current", B), ("pending", A)]


def test_the_one_accepted_last_is_no_candidate_for_another_client(clock: TickingClock) -> None:
    candidates = Candidates(clock)
    candidates.accepted(candidates.first(reading(A)), reading(A), remembered=True)
    other = reading(B)._replace(credentials=ClientCredentials("other", B))
    assert shown(candidates.of(other)) == [("current", B)]


def test_the_first_is_current_where_none_has_won(clock: TickingClock) -> None:
    assert Candidates(clock).first(reading(A, B, C)).kind == "current"


def test_the_winner_is_first_until_one_of_the_values_changes(clock: TickingClock) -> None:
    candidates, now = Candidates(clock), reading(A, B)
    candidates.accepted(named(candidates, now, "pending"), now, remembered=False)
    clock.tick(86400)
    assert shown([candidates.first(now)]) == [("pending", B)]
    assert shown([candidates.first(reading(A, C))]) == [("current", A)]
    assert shown([candidates.first(reading(B, None, A))]) == [("current", B)]


@pytest.mark.parametrize("kind", ["previous", "last accepted"])
def test_a_winner_that_is_on_its_way_out_is_first_for_a_minute_at_most(clock: TickingClock, kind: str) -> None:
    candidates = Candidates(clock)
    before, now = reading(A), reading(B, None, A) if kind == "previous" else reading(B)
    candidates.accepted(candidates.first(before), before, remembered=True)
    candidates.accepted(named(candidates, now, kind), now, remembered=False)
    for _ in range(5):  # each renewal wins again, which does not lengthen the minute
        assert shown([candidates.first(now)]) == [(kind, A)]
        candidates.accepted(candidates.first(now), now, remembered=True)
        clock.tick(11)
    asked = candidates.first(now)
    clock.tick(6)
    candidates.accepted(asked, now, remembered=True)  # nor does one that was under way when the minute ended
    assert shown([candidates.first(now)]) == [("current", B)]
    candidates.accepted(named(candidates, now, kind), now, remembered=False)  # current was asked, and rejected still
    clock.tick(59)
    assert shown([candidates.first(now)]) == [(kind, A)]
    clock.tick(2)
    assert shown([candidates.first(now)]) == [("current", B)]


def test_the_minute_of_a_winner_begins_anew_among_other_values_and_for_another_winner(clock: TickingClock) -> None:
    candidates, now, then = Candidates(clock), reading(B, None, A), reading(C, None, A)
    candidates.accepted(named(candidates, now, "previous"), now, remembered=False)
    clock.tick(50)
    candidates.accepted(named(candidates, then, "previous"), then, remembered=True)
    clock.tick(20)
    assert shown([candidates.first(then)]) == [("previous", A)]
    candidates.accepted(named(candidates, reading(D), "last accepted"), then, remembered=False)
    clock.tick(50)
    other = Candidates(clock).of(reading(B, None, D))[1]
    candidates.accepted(other, then, remembered=True)
    clock.tick(20)
    assert candidates.winner is other
    assert candidates._winner is not None
    assert candidates._winner.until > clock.monotonic()


def test_a_winner_of_another_client_is_not_asked_first(clock: TickingClock) -> None:
    candidates, now = Candidates(clock), reading(A, B)
    assert candidates.winner is None
    candidates.accepted(named(candidates, now, "pending"), now, remembered=False)
    assert candidates.winner == named(candidates, now, "pending")
    other = now._replace(credentials=ClientCredentials("other", A))
    assert shown([candidates.first(other)]) == [("current", A)]


def test_it_is_told_whether_another_one_won_than_before(clock: TickingClock) -> None:
    candidates, now = Candidates(clock), reading(A, B, C)
    wins = [
        candidates.accepted(named(candidates, now, kind), now, remembered=False)
        for kind in ("current", "current", "pending")
    ]
    assert wins == [False, False, True]
    promoted = reading(B, None, A)
    assert not candidates.accepted(candidates.first(promoted), promoted, remembered=True), (
        "the same value, under another name"
    )


@pytest.mark.parametrize(
    ("where", "worth"),
    [
        (reading(A), False),
        (reading(A, previous=B), False),
        (reading(A, B), True),
        (reading(A, changed=945.0), True),
        (reading(A, changed=940.0), False),
        (reading(A, changed=940.5), True),
    ],
)
def test_another_pass_is_worth_it_while_a_change_is_under_way_or_a_minute_old(where: Reading, worth: bool) -> None:
    assert worth_another_pass(where, 1000.0, may_be_behind=False) is worth
    assert worth_another_pass(where, 1000.0, may_be_behind=True)


def test_what_is_leased_is_other_at_each_read_which_says_nothing() -> None:
    assert not worth_another_pass(reading(A, B, changed=999.0)._replace(leased=True), 1000.0, may_be_behind=True)


# --- a recovery


class Played:
    """The steps of a recovery, as words, while a script says what comes of each."""

    def __init__(
        self,
        clock: TickingClock,
        before: Reading,
        *then: Reading | None,
        refusals: str = "",
        first: str = "rejected",
        attempts: int = 1,
        **may: bool,
    ) -> None:
        """`then` are the readings in turn, the last of them stays; `refusals` one letter a request: r or d, g granted.

        `attempts`: requests that each answer takes.
        """
        candidates = Candidates(clock)
        spent = 1
        recovery = Recovery(
            candidates,
            before,
            candidates.first(before),
            doubtful=first == "doubtful",
            spent=lambda: spent,
            clock=clock,
            **{"may_be_behind": False, "lockout": False, **may},
        )
        readings = list(then or (before,))
        answers = iter(refusals)
        steps = recovery.steps()
        step = next(steps)
        self.words: list[str] = []
        while not isinstance(step, GiveUp):
            if isinstance(step, Read):
                self.words.append(f"read after {step.wait:g}")
                step = steps.send(readings.pop(0) if len(readings) > 1 else readings[0])
                continue
            self.words.append(step.candidate.credentials.client_secret.reveal()[-1])
            spent += attempts
            answer = next(answers, "r")
            if answer == "g":
                self.words.append("granted")
                return
            step = steps.send({"r": "rejected", "d": "doubtful"}[answer])
        self.words.append(step.because)


def test_a_recovery_reads_and_asks_what_was_not_yet_rejected(clock: TickingClock) -> None:
    played = Played(clock, reading(A), reading(B, C, A), refusals="rg")
    assert played.words == ["read after 0", "b", "c", "granted"]


def test_where_nothing_changes_a_rejected_secret_is_not_sent_again(clock: TickingClock) -> None:
    assert Played(clock, reading(A)).words == ["read after 0", "rejected"]


def test_while_a_pending_is_named_three_further_passes_follow_each_with_a_read(clock: TickingClock) -> None:
    passes = ["read after 0", "b", "read after 0.1", "a", "b", "read after 0.5", "a", "b", "rejected"]
    assert Played(clock, reading(A), reading(A, B)).words == passes


def test_six_requests_whose_secrets_were_all_rejected_are_a_rejection_although_a_pass_is_cut_short(
    clock: TickingClock,
) -> None:
    played = Played(clock, reading(A), reading(B, C, D))
    assert played.words == ["read after 0", "b", "c", "d", "read after 0.1", "b", "c", "rejected"]


def test_six_requests_before_each_secret_was_asked_are_no_rejection(clock: TickingClock) -> None:
    played = Played(clock, reading(A), reading(B, C, D), attempts=3)
    assert played.words == ["read after 0", "b", "c", "unavailable"]


def test_after_two_different_rejections_one_more_pass_follows_since_the_issuer_may_have_gone_over_in_between(
    clock: TickingClock,
) -> None:
    assert Played(clock, reading(A), reading(B)).words == ["read after 0", "b", "read after 0.1", "b", "rejected"]


def test_it_is_one_more_pass_and_no_second_one(clock: TickingClock) -> None:
    played = Played(clock, reading(A), reading(B, None, A))
    assert played.words == ["read after 0", "b", "read after 0.1", "b", "a", "rejected"]


def test_what_is_leased_is_not_asked_again(clock: TickingClock) -> None:
    assert Played(clock, reading(A), reading(B)._replace(leased=True)).words == ["read after 0", "b", "rejected"]


def test_where_wrong_secrets_lock_the_client_out_no_further_pass_follows(clock: TickingClock) -> None:
    assert Played(clock, reading(A), reading(B), lockout=True, may_be_behind=True).words == [
        "read after 0",
        "b",
        "rejected",
    ]


def test_a_store_that_may_be_behind_is_read_in_three_further_passes(clock: TickingClock) -> None:
    passes = ["read after 0", "read after 0.1", "a", "read after 0.5", "a", "read after 1.5", "a", "rejected"]
    assert Played(clock, reading(A), may_be_behind=True).words == passes


def test_a_doubtful_refusal_is_one_of_the_secret_only_if_the_store_has_another(clock: TickingClock) -> None:
    assert Played(clock, reading(A), first="doubtful").words == ["read after 0", "doubtful"]
    other = Played(clock, reading(A), reading(B), refusals="dg", first="doubtful").words
    assert other == ["read after 0", "b", "read after 0.1", "b", "granted"]


def test_a_refusal_may_become_doubtful_on_the_way(clock: TickingClock) -> None:
    played = Played(clock, reading(A), reading(B), reading(A), refusals="d")
    assert played.words == ["read after 0", "b", "read after 0.1", "doubtful"]


def test_a_pass_for_which_there_is_no_time_left_is_left_out(clock: TickingClock) -> None:
    assert Played(clock, reading(A), reading(A, B), None).words == ["read after 0", "b", "read after 0.1", "rejected"]


# --- the circuit


REJECTED = CredentialsRejected("no", error="invalid_client", status=401)


def test_a_circuit_opens_for_the_values_that_were_rejected_and_closes_once(clock: TickingClock) -> None:
    circuit = Circuit(clock, lockout=False)
    assert (circuit.next_try, circuit.open_for(b"values"), circuit.close()) == (None, False, False)
    circuit.trip(REJECTED, b"values")
    assert circuit.open_for(b"values")
    assert not circuit.open_for(b"others")
    assert circuit.close()
    assert (circuit.next_try, circuit.close()) == (None, False)


@pytest.mark.parametrize(("lockout", "longest"), [(False, 60.0), (True, 300.0)])
def test_its_intervals_double_from_a_second_to_the_longest_with_jitter(
    clock: TickingClock, lockout: bool, longest: float
) -> None:
    first: set[float] = set()
    for _ in range(20):
        circuit = Circuit(clock, lockout=lockout)
        intervals = [circuit.trip(REJECTED, b"values")]
        for turn in range(14):
            clock.tick(intervals[-1])
            assert circuit.turn(early=False) == turn
            intervals.append(circuit.trip(REJECTED, b"values"))
        assert 0.8 <= intervals[0] <= 1.2
        for before, after in itertools.pairwise(intervals):
            assert min(2 * before, longest) * 0.8 <= after <= min(2 * before, longest)
        assert intervals[-1] >= longest * 0.8
        first.add(intervals[0])
    assert len(first) > 1


def test_one_attempt_is_let_through_an_interval_each_with_the_next_number(clock: TickingClock) -> None:
    circuit = Circuit(clock, lockout=False)
    circuit.trip(REJECTED, b"values")
    assert circuit.turn(early=False) is None
    clock.tick(1.3)
    assert [circuit.turn(early=False) for _ in range(3)] == [0, None, None]
    clock.tick(2.5)
    assert [circuit.turn(early=False) for _ in range(3)] == [1, None, None]


def test_who_hurries_is_let_through_once_in_five_seconds(clock: TickingClock) -> None:
    circuit = Circuit(clock, lockout=False)
    circuit.trip(REJECTED, b"values")
    for _ in range(8):
        clock.tick(60)
        circuit.turn(early=False)  # up to where an interval is a minute
    assert [circuit.turn(early=True) is None for _ in range(3)] == [False, True, True]
    clock.tick(5.1)
    circuit.hurry()
    assert circuit.next_try == 0
    assert circuit.turn(early=False) is not None
    circuit.hurry()
    assert circuit.turn(early=False) is None


def test_its_error_says_when_the_next_attempt_is_due(clock: TickingClock) -> None:
    circuit = Circuit(clock, lockout=False)
    due = circuit.trip(REJECTED, b"values")
    clock.tick(0.5)
    errors = [circuit.error() for _ in range(2)]
    assert errors[0].retry_after == circuit.next_try == pytest.approx(due - 0.5)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == "no"
    circuit.close()  # between the question whether it is open and its error
    assert circuit.error().retry_after == 0
