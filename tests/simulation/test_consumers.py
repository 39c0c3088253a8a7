"""No call fails while some candidate is accepted and the store answers; and each rule of DESIGN section 5 is needed.

The library itself runs, in virtual time, while engines that are killed and people change store and issuer. A rule that
is taken away must give a trace in which a call fails that nothing excuses, or an issuer that is asked too often.

More runs: `.venv/bin/pytest -m slow tests/simulation`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest

from secretsource import rounds
from secretsource.circuit import Circuit
from secretsource.clock import Clock
from secretsource.fetch import Fetcher
from secretsource.resolve import Budget, CredentialsSource, Reading
from secretsource.rounds import Ask, Candidate, Candidates, GiveUp, Read, Recovery

from .changes import (
    PEOPLE,
    Change,
    engine,
    history_of,
    mistaken,
    overlapping,
    store_first,
    store_first_with_previous,
    undone,
)
from .consumer import Consumer, Habits, virtual_time

FILE, DEAR = 0.0, 300.0


class Scenario(NamedTuple):
    """Who changes the secret, how often, and what the store and the program are like."""

    changes: tuple[Change, ...]
    ttl: float = FILE
    lag: float = 0.0
    changed: int = 5
    stall: float = 0.02
    begins_late: bool = False

    def run(self, seed: int) -> Consumer:
        with virtual_time(seed) as dice:
            history = history_of(self.changes, dice, lag=self.lag, count=self.changed)
            begins = dice.uniform(0, history.now) if self.begins_late else 0.0
            consumer = Consumer(history, Habits(self.ttl, stall=self.stall, begins=begins), dice)
            consumer.live(history.now + 10)
        return consumer

    def trouble(self, seeds: Iterable[int]) -> str:
        """What went wrong first, in one of these runs; "" if nothing did."""
        for seed in seeds:
            consumer = self.run(seed)
            wrong = [*consumer.failures, *consumer.asked_too_often(), *consumer.left_behind()]
            if wrong:
                return f"seed {seed}: {wrong[0]}"
        return ""


EVERYTHING = (engine, engine, *PEOPLE, undone, overlapping)
SCENARIOS = {
    "engines": (engine,),
    "people": PEOPLE,
    "everything": EVERYTHING,
}


@pytest.mark.parametrize("begins_late", [False, True], ids=["from the first", "a late starter"])
@pytest.mark.parametrize("lag", [0.0, 1.0], ids=["", "lagging"])
@pytest.mark.parametrize("ttl", [FILE, DEAR], ids=["file", "dear"])
@pytest.mark.parametrize("changes", SCENARIOS.values(), ids=SCENARIOS)
def test_no_call_fails_while_a_candidate_is_accepted_and_the_store_answers(
    changes: tuple[Change, ...], ttl: float, lag: float, begins_late: bool
) -> None:
    scenario = Scenario(changes, ttl, lag, begins_late=begins_late)
    assert scenario.trouble(range(3)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000))
def test_nor_does_one_in_a_thousand_other_runs(seed: int) -> None:
    for ttl in (FILE, DEAR):
        for lag in (0.0, 1.0):
            scenario = Scenario(EVERYTHING, ttl, lag, changed=8, begins_late=seed % 3 == 0)
            assert scenario.trouble([1000 + seed]) == ""


def test_the_runs_meet_what_they_are_about() -> None:
    """Else nothing would be shown: secrets are rejected, others are found, stores are read again."""
    consumer = Scenario(EVERYTHING, DEAR).run(1)
    assert len({asked.secret for asked in consumer.asked if asked.accepted}) > 3
    assert any(not asked.accepted for asked in consumer.asked)
    assert consumer.calls > 100
    assert len(consumer.reads) > 5


def test_a_run_is_the_same_for_the_same_seed() -> None:
    assert Scenario(EVERYTHING).run(7).asked == Scenario(EVERYTHING).run(7).asked


# --- each rule


Removed = Callable[[], AbstractContextManager[object]]


def without_kind(kind: str) -> Removed:
    """Candidates of this kind are not tried."""
    of = Candidates.of

    def fewer(self: Candidates, reading: Reading) -> list[Candidate]:
        return [one for one in of(self, reading) if one.kind != kind or one.kind == "current"]

    return lambda: patch.object(Candidates, "of", fewer)


def no_forced_read() -> AbstractContextManager[object]:
    reading_after = CredentialsSource.reading_after

    def not_again(self: CredentialsSource, *arguments: Any, free: bool = False) -> Reading:
        kept = self.kept
        return kept if kept is not None and not free else reading_after(self, *arguments, free=free)

    return patch.object(CredentialsSource, "reading_after", not_again)


def one_forced_read_in_five_seconds() -> AbstractContextManager[object]:
    stack = ExitStack()
    init = Budget.__init__

    def smaller(self: Budget, size: int, seconds: float, clock: Clock) -> None:
        init(self, 1, seconds, clock)

    stack.enter_context(patch.object(Budget, "__init__", smaller))
    stack.enter_context(patch.object(Budget, "give_back", lambda self: None))
    return stack


def each_secret_once_a_round() -> AbstractContextManager[object]:
    steps = Recovery.steps

    def once(self: Recovery) -> Generator[Ask | Read | GiveUp, Any, None]:
        inner, asked = steps(self), {self._first.value}
        step = next(inner)
        while True:
            if isinstance(step, Ask) and step.candidate.value in asked:
                step = inner.send("rejected")
                continue
            if isinstance(step, Ask):
                asked.add(step.candidate.value)
            step = inner.send((yield step))

    return patch.object(Recovery, "steps", once)


def no_pass_after_a_crossing() -> AbstractContextManager[object]:
    again = Recovery._again

    def not_again(self: Recovery, reading: Reading, *, asked: int, first_pass: bool) -> bool:
        return again(self, reading, asked=asked, first_pass=False)

    return patch.object(Recovery, "_again", not_again)


def open_whatever_the_values() -> AbstractContextManager[object]:
    return patch.object(Circuit, "open_for", lambda self, values: self._state is not None)


class Rule(NamedTuple):
    """A rule by the way in which it is taken away, and where that shows."""

    removed: Removed
    scenario: Scenario


RULES = {
    "a forced read follows a rejection": Rule(no_forced_read, Scenario((engine,), DEAR)),
    "pending is tried": Rule(without_kind("pending"), Scenario((engine,))),
    "previous is tried": Rule(without_kind("previous"), Scenario((store_first_with_previous,), begins_late=True)),
    "the one accepted last is tried": Rule(without_kind("last accepted"), Scenario((store_first,))),
    "further passes follow": Rule(
        lambda: patch.object(rounds, "WAITS_BETWEEN_PASSES", ()), Scenario((engine,), lag=1.0, stall=0.2)
    ),
    "in a further pass all are asked again": Rule(each_secret_once_a_round, Scenario((store_first,), stall=0.5)),
    "one more pass where the issuer may have gone over in between": Rule(
        no_pass_after_a_crossing, Scenario((store_first,), stall=0.5)
    ),
    "four forced reads at once, and one that brings other values is free": Rule(
        one_forced_read_in_five_seconds, Scenario((engine,), DEAR, changed=12)
    ),
    "other values close the circuit": Rule(open_whatever_the_values, Scenario((mistaken,), begins_late=True)),
    "while the circuit is open the store is read": Rule(
        lambda: patch.object(Fetcher, "_may_look_again", lambda self, reading: False),
        Scenario((mistaken,), DEAR, begins_late=True),
    ),
    "past an open circuit it is each candidate's turn": Rule(
        lambda: patch.object(Circuit, "turn", first_only(Circuit.turn)), Scenario((undone,), changed=2)
    ),
    "the circuit opens": Rule(
        lambda: patch.object(Circuit, "open_for", lambda self, values: False), Scenario((undone,), changed=2)
    ),
    "six requests a round at most": Rule(
        lambda: patch.object(rounds, "REQUESTS_PER_ROUND", 100), Scenario((undone,), changed=2, stall=0.0)
    ),
    "the winner is remembered": Rule(
        lambda: patch.object(Candidates, "first", lambda self, reading: self.of(reading)[0]), Scenario((store_first,))
    ),
    "a winner that is on its way out is remembered for a minute only": Rule(
        lambda: patch.object(rounds, "RECENTLY", 10_000.0), Scenario((overlapping,))
    ),
}


def first_only(turn: Callable[..., int | None]) -> Callable[..., int | None]:
    def first(self: Circuit, *, early: bool) -> int | None:
        return None if turn(self, early=early) is None else 0

    return first


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_rule_that_is_taken_away_gives_a_failing_trace(rule: Rule) -> None:
    seeds = range(60)
    with rule.removed():
        trouble = rule.scenario.trouble(seeds)
    assert trouble, "nothing went wrong without it"
    seed = int(trouble.split()[1].rstrip(":"))
    assert rule.scenario.trouble([seed]) == "", "the same run goes well with it"
