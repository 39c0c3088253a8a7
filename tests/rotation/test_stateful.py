"""Whatever happens in whatever order: rotators, crashes, late calls, outages, clocks, other people. No call fails.

Hypothesis chooses what happens next; programs with the whole library call after each rule, a moment behind.
"""

from __future__ import annotations

import random
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from secretsource.rotation import Report

from ..simulation.consumer import Habits
from .world import KINDS, MANNERS, Process, Program, World, quick, world

_BEHIND = 6.0  # what a program meets in a call that takes long must have happened by then
_WISHES = ["rotate", "rotate", "resume", "abort", "rollback"]
_VERBS = ["run", "run", "resume", "abort", "rollback"]


class Rotations(RuleBasedStateMachine):
    """Two rotators on one client, which programs use meanwhile."""

    kinds = tuple(KINDS)

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(self.kinds))
        self.rooms = ExitStack()
        self.here: World = self.rooms.enter_context(world(kind, seed=data.draw(st.integers(0, 99))))
        self.rotators = [Process(self.here, quick()), Process(self.here, quick(soak=20))]
        self.programs = [Program(self.here, Habits(ttl), random.Random(7)) for ttl in (0.0, 300.0)]
        self.here.wait(10)

    def teardown(self) -> None:
        if not hasattr(self, "rooms"):
            return
        try:
            if self.here.down.last:
                self.here.down.becomes(False, self.here.at)
            if not self.here.interfered:
                self.here.wait(60)
                self.here.finish(quick())
                self.here.wait(60)
                self.here.look("at the end")
            assert self.here.broken == []
        finally:
            self.rooms.close()

    def rotator(self, who: int) -> Process:
        """A new process in the place of one that has ended."""
        if self.rotators[who].dead:
            self.rotators[who] = Process(self.here, self.rotators[who].policy)
        return self.rotators[who]

    def call(self) -> None:
        for program in self.programs:
            program.live(self.here.at - _BEHIND, pace=0.6)

    def usable(self) -> bool:
        return not self.here.interfered

    # --- rotators

    @precondition(usable)
    @rule(who=st.integers(0, 1), wish=st.sampled_from(_WISHES), steps=st.integers(1, 12))
    def goes_on(self, who: int, wish: str, steps: int) -> None:
        for _ in range(steps):
            report = self.rotator(who).ask("step", wish)
            if isinstance(report, Report) and report.result in ("waiting", "ambiguous"):
                self.here.wait(min(report.retry_after or 1.0, 5.0))
            elif report is not None:
                return

    @precondition(usable)
    @rule(who=st.integers(0, 1), verb=st.sampled_from(_VERBS))
    def runs(self, who: int, verb: str) -> None:
        self.rotator(who).ask(verb)

    @precondition(usable)
    @rule(who=st.integers(0, 1), in_so_many=st.integers(1, 40), manner=st.sampled_from(MANNERS))
    def is_to_fail(self, who: int, in_so_many: int, manner: str) -> None:
        rotator = self.rotator(who)
        rotator.plan[rotator.effects + in_so_many] = manner  # type: ignore[assignment]

    @precondition(usable)
    @rule(in_so_many=st.integers(1, 40), verb=st.sampled_from(_VERBS))
    def is_to_be_suspended_while_the_other_one_runs(self, in_so_many: int, verb: str) -> None:
        rotator = self.rotator(0)
        rotator.plan[rotator.effects + in_so_many] = lambda: self.rotator(1).ask(verb)

    @rule(who=st.integers(0, 1))
    def ends(self, who: int) -> None:
        self.rotators[who].dead = True

    # --- what they live in

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.here.wait(seconds)

    @rule()
    def the_store_is_down_or_up(self) -> None:
        self.here.down.becomes(not self.here.down.last, self.here.at)

    @rule(who=st.integers(0, 1), in_so_many=st.integers(1, 20))
    def the_document_is_touched_in_between(self, who: int, in_so_many: int) -> None:
        rotator = self.rotator(who)
        rotator.plan[rotator.effects + in_so_many] = self.here.touch

    @rule(seconds=st.sampled_from([-7200.0, -20.0, -1.0]))
    def clocks_are_set_back(self, seconds: float) -> None:
        self.here.set_by = max(-900.0, self.here.set_by + seconds)

    @precondition(lambda self: not self.here.flying)
    @rule(seconds=st.sampled_from([1.0, 20.0, 7200.0]))
    def clocks_are_set_forward(self, seconds: float) -> None:
        """Not while a call may land, of which a new process knows by the wall clock only; nor does it wait then."""
        self.here.set_by += seconds
        self.here.unwaited = True

    @rule(seconds=st.sampled_from([5.0, 3600.0]))
    def the_machine_sleeps(self, seconds: float) -> None:
        if not self.here.flying:
            self.here.slept += seconds
            self.here.unwaited = True

    # --- other people

    @precondition(lambda self: self.usable() and self.here.idle and self.here.quiet and not self.here.down.last)
    @rule(at_the_issuer=st.booleans())
    def somebody_interferes(self, at_the_issuer: bool) -> None:
        """Only that it is said is asked for, and that nothing is made worse."""
        here, right = self.here, self.here.store.kept.current
        secret = here.new_secret()
        if at_the_issuer:
            here.save_at_issuer(secret)
        else:
            here.put(secret)
        here.wait(5)
        before = here.store.kept, list(here.entries)
        drift = Process(here, quick()).ask("drift")
        assert isinstance(drift, Report)
        assert drift.result in ("drift", "ambiguous")
        report = Process(here, quick()).ask("run")
        assert isinstance(report, Report)
        assert report.result == "drift"
        assert (here.store.kept, here.entries) == before
        here.put(secret if at_the_issuer else right)
        here.wait(80)
        here.interfered = False
        if here.kind.nodes > 1:  # until all of them have heard of it, no program can know
            self.call()
            for program in self.programs:
                program.failures.clear()

    # --- what must hold

    @invariant()
    def no_call_has_failed(self) -> None:
        if not hasattr(self, "rooms"):
            return
        assert self.here.broken == []
        self.call()
        assert [program.failures for program in self.programs] == [[], []]


class OfOneSlot(Rotations):
    kinds = ("one slot, chosen",)


QUICK = settings(
    max_examples=10,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_no_call_fails_whatever_happens() -> None:
    run_state_machine_as_test(Rotations, settings=QUICK)


def test_nor_with_one_slot() -> None:
    run_state_machine_as_test(OfOneSlot, settings=QUICK)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nor_in_many_more_orders() -> None:
    many = settings(
        QUICK, max_examples=1500, stateful_step_count=40, derandomize=False, phases=[Phase.generate, Phase.shrink]
    )
    run_state_machine_as_test(Rotations, settings=many)
