"""A rotator that ends, or loses an answer, or is suspended at any effect leaves what the next one can finish.

After each effect the invariants are looked at (world.py); at the end nothing is under way, the issuer accepts the
current secret, and nothing is left behind.

Every effect in every manner, and two in a row: `.venv/bin/pytest -m slow tests/rotation/test_crashes.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest

from secretsource.rotation import Report
from secretsource.rotation import decision as decision_module
from secretsource.rotation.recollection import Recollection

from .world import KINDS, MANNERS, Manner, Plan, Process, World, quick, world

SINGLE = "one slot, chosen"
# Effects after which a rotation is given up: right after the claim, while it waits, around the call, before it is kept.
GIVEN_UP_AT = (9, 14, 17, 20, 21, 24, 30)


class Verb(NamedTuple):
    """What the first process is asked, and what those that come after it."""

    asked: str
    then: str
    soaks: bool = False
    leaked: bool = False
    half_done: bool = False


VERBS = {
    "run": Verb("run", "resume"),
    "compromised": Verb("run", "resume", leaked=True),
    "rollback": Verb("rollback", "resume", soaks=True),
    "rollback again": Verb("rollback", "rollback", soaks=True),
    "abort": Verb("abort", "resume", half_done=True),
    "abort again": Verb("abort", "abort", half_done=True),
}


def carried_out(here: World, verb: Verb, plans: list[Plan], given_up_at: int = 0) -> list[Process]:
    """Ask by processes with these plans, one after the other, then by others until nothing is under way."""
    policy = quick(soak=40) if verb.soaks else quick(compromised=verb.leaked)
    if verb.soaks:
        Process(here, quick(soak=40, max_wait=30)).ask("run")
        assert here.store.state.promoted is not None
    if verb.half_done:
        Process(here, quick(), {given_up_at: "adrift"}).ask("run")
    old, here.unwaited = here.store.kept, verb.leaked
    processes = []
    for number, plan in enumerate(plans):
        processes.append(Process(here, policy, plan))
        processes[-1].ask(verb.then if number else verb.asked)
    said = here.finish(policy, verb.then)
    here.wait(60)
    here.look("at the end")
    if here.kind.slots > 1 and {entry.secret for entry in here.entries} != {here.store.kept.current}:
        here.breaks("L3", f"left at the issuer: {[entry.id for entry in here.entries]}")
    promised = {"abort again": old.current, "rollback again": old.previous}
    for name, current in promised.items():
        refused = any(report is not None and not isinstance(report, Report) for report in said)
        if VERBS[name] is verb and here.kind.chosen and not refused and here.store.kept.current != current:
            here.breaks(name, "another secret is the current one")
    return processes


def trouble(kind: str, verb: Verb, manner: Manner, numbers: Iterator[int], *, folder: Path | None = None) -> list[str]:
    """What went wrong where the effect of each of these numbers fails in this manner; up to the last one there is."""
    found = []
    for number in numbers:
        given_up_at = GIVEN_UP_AT[number % len(GIVEN_UP_AT)]
        with world(kind, seed=number, folder=folder) as here:
            [first] = carried_out(here, verb, [{number: manner}], given_up_at)
        found += [f"{kind}, effect {number} {manner}: {broken}" for broken in here.broken[:1]]
        if first.effects < number or len(found) > 3:
            break
    return found


def every(number: int, begins: int = 1) -> Iterator[int]:
    return iter(range(begins, 200, number))


@pytest.mark.parametrize("manner", MANNERS)
def test_a_run_may_end_at_every_effect_in_every_manner(manner: Manner) -> None:
    assert trouble(SINGLE, VERBS["run"], manner, every(1)) == []


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != SINGLE])
def test_so_may_one_with_another_issuer(kind: str, manner: Manner) -> None:
    assert (
        trouble(kind, VERBS["run"], manner, every(3, 1 + (list(KINDS).index(kind) + MANNERS.index(manner)) % 3)) == []
    )


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "run"])
@pytest.mark.parametrize("kind", KINDS)
def test_so_may_every_other_verb(kind: str, verb: str) -> None:
    if verb.startswith("rollback") and not KINDS[kind].chosen:
        with world(kind) as here:
            carried_out(here, VERBS[verb], [])
        assert here.broken == []
        return
    for number, manner in enumerate(MANNERS):
        assert trouble(kind, VERBS[verb], manner, every(11, 1 + 2 * number)) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", KINDS)
def test_so_may_all_of_them_at_every_effect(kind: str, verb: str, manner: Manner) -> None:
    assert trouble(kind, VERBS[verb], manner, every(1)) == []


# --- two in a row


def pairs_of_trouble(
    kind: str, verb: str, numbers: Iterator[tuple[int, int]], manners: tuple[Manner, Manner]
) -> list[str]:
    found = []
    for first, second in numbers:
        with world(kind, seed=first * 100 + second) as here:
            plans: list[Plan] = [{first: manners[0]}, {second: manners[1]}]
            carried_out(here, VERBS[verb], plans, GIVEN_UP_AT[(first + second) % len(GIVEN_UP_AT)])
        found += [f"{kind}, {verb}, effects {first} and {second}, {manners}: {broken}" for broken in here.broken[:1]]
    return found


@pytest.mark.parametrize("manners", [("before", "before"), ("adrift", "adrift"), ("adrift", "late"), ("lost", "after")])
def test_two_may_end_one_after_the_other(manners: tuple[Manner, Manner]) -> None:
    numbers = [(first, 1 + (first * 7) % 36) for first in range(6, 42, 2)]
    assert pairs_of_trouble(SINGLE, "run", iter(numbers), manners) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != SINGLE])
def test_two_may_do_so_with_another_issuer(kind: str) -> None:
    numbers = [(first, 1 + (first * 5) % 30) for first in range(7, 47, 3)]
    assert pairs_of_trouble(kind, "run", iter(numbers), ("adrift", "adrift")) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("second", MANNERS)
@pytest.mark.parametrize("first", ["before", "adrift", "late"])
@pytest.mark.parametrize("verb", ["run", "abort again", "compromised"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_two_may(kind: str, verb: str, first: Manner, second: Manner) -> None:
    step = 1 if verb == "run" and kind == SINGLE else 3
    numbers = ((one, other) for one in range(1, 52, step) for other in range(1, 52, step))
    assert pairs_of_trouble(kind, verb, numbers, (first, second)) == []


# --- suspended


def nothing(here: World) -> None:
    """A machine that sleeps for an hour."""
    here.slept += 3600
    here.wait(5)


def finished(here: World) -> None:
    here.finish(quick(), "run")


def finished_and_begun_again(here: World) -> None:
    here.finish(quick(), "run")
    here.wait(1)
    Process(here, quick(), {20 if here.kind.chosen else 14: "adrift"}).ask("run")


def taken_back(here: World) -> None:
    Process(here, quick()).ask("abort")


def taken_back_half_way(here: World) -> None:
    Process(here, quick(), {12: "adrift"}).ask("abort")


MEANWHILE = (nothing, finished, finished_and_begun_again, taken_back, taken_back_half_way)


def suspended(kind: str, meanwhile: Callable[[World], None], number: int) -> tuple[World, Process]:
    with world(kind, seed=number) as here:
        first = Process(here, quick(), {number: lambda: meanwhile(here)})
        first.ask("run")
        here.finish(quick())
        here.wait(60)
        here.look("at the end")
        if kind.startswith("two") and {entry.secret for entry in here.entries} != {here.store.kept.current}:
            here.breaks("L3", f"left at the issuer: {[entry.id for entry in here.entries]}")
    return here, first


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("kind", KINDS)
def test_one_that_is_suspended_does_no_harm_when_it_goes_on(kind: str, meanwhile: Callable[[World], None]) -> None:
    for number in every(1 if kind == SINGLE and meanwhile is finished_and_begun_again else 4):
        here, first = suspended(kind, meanwhile, number)
        assert here.broken == [], f"suspended at {number}"
        if first.effects < number:
            return


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("kind", KINDS)
def test_nor_does_one_suspended_at_any_effect(kind: str, meanwhile: Callable[[World], None]) -> None:
    for number in every(1):
        here, first = suspended(kind, meanwhile, number)
        assert here.broken == [], f"suspended at {number}"
        if first.effects < number:
            return


# --- with files


@pytest.mark.parametrize("manner", MANNERS)
def test_a_run_may_end_between_any_two_calls_of_the_file_system(manner: Manner, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    numbers = every(4, 1 + MANNERS.index(manner) % 4)
    assert trouble(SINGLE, VERBS["run"], manner, numbers, folder=tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {"pos.json", ".pos.json.lock"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_may_between_all_of_them(kind: str, manner: Manner, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert trouble(kind, VERBS["run"], manner, every(1), folder=tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {"pos.json", ".pos.json.lock"}


# --- the tests can fail


def test_all_effects_are_met() -> None:
    with world("two slots, chosen") as here:
        first = Process(here, quick())
        first.ask("run")
    assert set(first.names) == {"read", "write", "token", "check", "sleep", "prepare", "apply", "retire", "remove"}
    with world("two slots, generated") as here:
        lost = Process(here, quick(), {9: "adrift"})
        lost.ask("run")
        assert lost.names[-1] == "mint"
        here.finish(quick())
    assert "reap" in {name for process in here.processes for name in process.names}
    assert here.minted == 2


def test_without_the_fence_a_late_call_breaks_something() -> None:
    with world(SINGLE) as here, patch.object(Recollection, "open", lambda self, state: 0.0):
        lost = Process(here, quick(), {17: "adrift"})
        lost.ask("run")
        assert lost.names[-1] == "apply"
        Process(here, quick()).ask("abort")
        here.wait(60)
    assert {broken[:2] for broken in here.broken} >= {"S7", "S1"}


def test_without_proofs_something_is_promoted_that_does_not_work() -> None:
    with patch.object(decision_module, "_taken", lambda view: decision_module.Step("promote")):
        found = trouble("one slot, chosen, lagging", VERBS["run"], "before", every(1))
    assert any("S5" in each for each in found)


def test_without_the_wait_consumers_hold_nothing_that_works() -> None:
    with world(SINGLE, ttl=1.0) as here:
        Process(here, quick(wait=0, soak=0)).ask("run")
    assert any(broken.startswith("S2") for broken in here.broken)
