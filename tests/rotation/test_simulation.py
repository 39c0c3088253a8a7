"""Programs that live through rotations of every sort: killed, doubled, suspended, taken back, late, lagging.

First rotators make a history of store and issuer, in virtual time; then programs replay it, with the whole library.
No call fails; only where a single-slot issuer generates the secret there is a gap, whose length is shown.

A thousand more runs: `.venv/bin/pytest -m slow tests/rotation/test_simulation.py`.
"""

from __future__ import annotations

import random

import pytest

from ..simulation.consumer import Habits
from .world import KINDS, MANNERS, Plan, Process, Program, World, quick, world

FILE, DEAR = 0.0, 300.0
VERBS = ("run", "run", "run", "resume", "abort", "rollback")


def plan(here: World, dice: random.Random) -> Plan:
    """Nothing, or one or two effects that go wrong, or another rotator that comes in between."""
    made: Plan = {}
    for _ in range(dice.choice([0, 1, 1, 2])):
        made = {**made, dice.randint(1, 45): dice.choice(MANNERS)}
    if dice.random() < 0.2:
        made = {**made, dice.randint(1, 45): lambda: Process(here, quick()).ask(dice.choice(VERBS))}
    return made


def rotated(here: World, dice: random.Random, times: int) -> None:
    """So many rotators, one after the other, each with a fate of its own; the last one is left alone."""
    here.wait(3)
    for _ in range(times):
        policy = quick(compromised=True) if dice.random() < 0.1 else quick(soak=dice.choice([3, 20]))
        here.unwaited = here.unwaited or policy.compromised
        Process(here, policy, plan(here, dice)).ask(dice.choice(VERBS))
        here.wait(dice.choice([0, dice.uniform(0, 2), dice.uniform(0, 20)]))
    here.finish(quick())
    here.wait(10)


def lived(seed: int, *, times: int = 4) -> tuple[World, list[Program]]:
    """What one seed gives: the world, and programs that lived in it."""
    kind = list(KINDS)[seed % len(KINDS)]
    with world(kind, seed=seed) as here:
        dice = random.Random(seed)
        rotated(here, dice, times)
        programs = []
        for ttl in (FILE, DEAR):
            programs.append(Program(here, Habits(ttl, begins=dice.choice([0.0, dice.uniform(1000, here.at)])), dice))
            programs[-1].live(here.at)
    return here, programs


def trouble(seed: int) -> list[str]:
    here, programs = lived(seed)
    # Where there is a gap, calls may fail in it, and until the store is read again.
    failed = [each for program in programs for each in (program.failures if here.kind.gap else program.failed)]
    return [f"seed {seed}, {list(KINDS)[seed % len(KINDS)]}: {what}" for what in [*here.broken[:2], *failed[:2]]]


@pytest.mark.parametrize("tens", range(6))
def test_no_call_fails_and_nothing_breaks(tens: int) -> None:
    assert [what for seed in range(10 * tens, 10 * tens + 10) for what in trouble(seed)] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("tens", range(100))
def test_nor_in_a_thousand_other_runs(tens: int) -> None:
    assert [what for seed in range(1000 + 10 * tens, 1010 + 10 * tens) for what in trouble(seed)] == []


def test_the_runs_meet_what_they_are_about() -> None:
    here, programs = lived(6, times=6)
    assert len({asked.secret for asked in programs[0].asked if asked.accepted}) >= 2
    assert any(not asked.accepted for asked in programs[0].asked)
    assert sum(program.calls for program in programs) > 100
    assert len(here.processes) > 5
    assert lived(6, times=6)[1][0].asked == programs[0].asked, "a run is the same for the same seed"


def test_a_change_at_the_issuer_first_fails_calls() -> None:
    """Else nothing would be shown by the programs."""
    with world("one slot, chosen") as here:
        here.wait(10)
        secret = here.new_secret()
        here.save_at_issuer(secret)
        here.wait(10)
        here.put(secret)
        here.wait(10)
        program = Program(here, Habits(FILE), random.Random(1))
        program.live(here.at)
    assert program.failed
    assert program.failures == [], "which is excused, since nobody could have got a token"


@pytest.mark.parametrize("ttl", [FILE, DEAR], ids=["a file", "a store read every 300 s"])
@pytest.mark.parametrize("kind", ["one slot, chosen", "two slots, chosen"])
def test_two_rotations_within_five_seconds_fail_no_call(kind: str, ttl: float) -> None:
    short = quick(wait=0.3, soak=0.3, command_timeout=0.4, landing=0.3, propagation=0.2)
    for seed in range(10):
        with world(kind, seed=seed, ttl=0.2) as here:
            here.wait(20)
            began, first = here.at, here.store.kept.current
            for _ in range(2):
                report = Process(here, short).ask("run")
                assert getattr(report, "result", "") == "done", report
            took, last = here.at - began, here.store.kept.current
            here.wait(20)
            program = Program(here, Habits(ttl), random.Random(seed))
            program.live(here.at)
        assert took < 5
        assert last != first
        assert len(here.secrets) == 3
        assert here.broken == []
        assert program.failed == [], f"seed {seed}"
        assert program.asked[-1].secret == last


def test_the_gap_of_a_single_slot_that_is_generated_is_as_long_as_it_takes_to_write_it() -> None:
    with world("one slot, generated") as here:
        Process(here, quick()).ask("run")
    [(began, ended)] = here.gaps
    print(f"\nthe gap: {ended - began:.3f} s, from the issuer's change to the write of the store")
    assert 0 < ended - began < 0.2, "two reads and a write of 0.02 s each"


@pytest.mark.parametrize(("manner", "longest"), [("lost", 8.0), ("adrift", 14.0), ("after", 14.0)])
def test_a_generated_secret_that_is_lost_makes_a_gap_until_the_next_one(manner: str, longest: float) -> None:
    with world("one slot, generated") as here:
        Process(here, quick(), {9: manner}).ask("run")  # type: ignore[dict-item]
        here.finish(quick())
    gap = sum(ended - began for began, ended in here.gaps)
    print(f"\nthe gap: {gap:.3f} s, of which a call is open for 5 s")
    assert here.minted == 2
    assert 0 < gap < longest
