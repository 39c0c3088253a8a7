"""The real decision, asked everywhere: in each state of the model, and for each combination of what it looks at.

First the model's: whatever step `decide` gives there, the model allows. Then the product of the small domains that a
View is made of, possible or not: the rules of safety hold for each step. Then from each of them on, beside an issuer
that does as it is told: there is an end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple, get_args

import pytest

from secretsource.backends import Held
from secretsource.credentials import Binding
from secretsource.rotation.decision import (
    FRESH,
    Call,
    Evidence,
    Memory,
    Step,
    View,
    Wish,
    Word,
    decide,
    phase_of,
)
from secretsource.rotation.outcome import Capabilities
from secretsource.rotation.policy import Due, Policy
from secretsource.secret import Secret
from secretsource.state import RotationState

from .model import NOBODY, Design, Model, Rotator, State

NOW = 1_000_000.0
INF = float("inf")
POLICY = Policy(wait=30, soak=30, propagation=4, landing=30, accept_gap=True)
LEAKED = Policy(wait=30, soak=30, propagation=4, landing=30, accept_gap=True, compromised=True)
DUE = Due(True, "it was asked for", None, None)
NOT_DUE = Due(False, "it is due in 3 d", None, None)
WISHES: tuple[Wish, ...] = get_args(Wish)
CURRENT, PENDING, PREVIOUS = (Secret(f"not-a-real-secret-{name}") for name in ("current", "pending", "previous"))
ENDS = {"done", "held", "failed", "drift", "refuse"}
LOOKS = {"prove", "wait", *ENDS}


@cache
def capabilities(
    chosen: bool, slots: int | None, retires: bool = False, restores: bool = False, lockout: bool = False
) -> Capabilities:
    return Capabilities(
        chosen=chosen, slots=slots, retires=retires, restores=restores, lockout=lockout, propagation=4.0, landing=30.0
    )


def held(state: RotationState, *, pending: bool = False, previous: bool = False) -> Held:
    return Held("pos", CURRENT, PENDING if pending else None, PREVIOUS if previous else None, state, "7", Binding())


def ripe(leaving: Word | None, taking: Word, *, single_slot: bool, age: float = 0.0) -> Evidence:
    """The same said often enough and over enough time."""
    evidence = Evidence()
    for _ in range(4):
        evidence = evidence.and_then(leaving, taking, single_slot=single_slot)._replace(age=4.0)
    return evidence._replace(age=age)


# --- evidence


def test_a_pair_counts_as_a_proof_where_the_one_is_taken_and_the_other_left() -> None:
    one = Evidence().and_then("rejected", "accepted", single_slot=True)
    two = one._replace(age=3.0).and_then("rejected", "accepted", single_slot=True)
    assert (one.proofs, one.proved_for, two.proofs, two.proved_for) == (1, 0.0, 2, 3.0)
    assert two.age == 0.0


def test_both_accepted_is_a_proof_only_where_there_is_more_than_one_slot() -> None:
    assert Evidence().and_then("accepted", "accepted", single_slot=True).proofs == 0
    assert Evidence().and_then("accepted", "accepted", single_slot=False).proofs == 1
    assert Evidence().and_then("unknown", "accepted", single_slot=True).proofs == 0
    assert Evidence().and_then(None, "accepted", single_slot=True).proofs == 1


@pytest.mark.parametrize("words", [("accepted", "rejected"), ("rejected", "rejected"), ("rejected", "unknown")])
def test_proofs_begin_anew_after_another_answer(words: tuple[Word, Word]) -> None:
    proved = ripe("rejected", "accepted", single_slot=True)
    after = proved.and_then(*words, single_slot=True)
    assert (after.proofs, after.proved_for) == (0, 0.0)
    assert (after.leaving, after.taking) == words


def test_returns_are_counted_over_their_time() -> None:
    one = Evidence().and_then("accepted", "rejected", single_slot=True)
    two = one._replace(age=2.5).and_then("accepted", "rejected", single_slot=True)
    assert (one.returns, one.returned_for, two.returns, two.returned_for) == (1, 0.0, 2, 2.5)
    assert two.and_then("accepted", "accepted", single_slot=False).returns == 0


def test_misses_a_moment_apart_are_one() -> None:
    evidence = Evidence().and_then("rejected", "rejected", single_slot=True)
    assert evidence.misses == 1
    assert evidence._replace(age=0.3).and_then("rejected", "rejected", single_slot=True).misses == 1
    assert evidence._replace(age=1.0).and_then("rejected", "rejected", single_slot=True).misses == 2
    assert evidence._replace(age=1.0).and_then(None, "rejected", single_slot=True).misses == 2
    assert evidence._replace(age=1.0).and_then("accepted", "rejected", single_slot=True).misses == 0
    assert evidence._replace(age=1.0).and_then("unknown", "rejected", single_slot=True).misses == 0


def test_what_came_before_the_first_look_does_not_count_as_time() -> None:
    assert Evidence().age == INF
    assert Evidence().and_then("rejected", "accepted", single_slot=True).proved_for == 0.0
    assert Evidence().and_then("accepted", "rejected", single_slot=True).returned_for == 0.0


# --- the states of the model


class Covered(NamedTuple):
    design: Design
    capabilities: tuple[Capabilities, ...]
    leaked: bool = False


COVERED = {
    "one slot": Covered(Design(consumers=1, aborts=True), (capabilities(True, 1), capabilities(True, 1, lockout=True))),
    "one slot, rolls back": Covered(
        Design(rotators=2, consumers=1, rolls_back=True, aborts=True), (capabilities(True, 1),)
    ),
    "two slots": Covered(
        Design(consumers=1, rotations=1, slots=2, aborts=True),
        (capabilities(True, 2, True), capabilities(True, None, True), capabilities(True, 2, True, True)),
    ),
    "generated": Covered(
        Design(consumers=1, rotations=1, slots=2, chosen=False, aborts=True),
        (capabilities(False, 2, True), capabilities(False, None, True)),
    ),
    "generated, one slot": Covered(
        Design(consumers=1, rotations=1, chosen=False, aborts=True), (capabilities(False, 1),)
    ),
    "refused": Covered(Design(consumers=1, aborts=True, refuses="new"), (capabilities(True, 1),)),
    "refused, two slots": Covered(
        Design(consumers=1, rotations=1, slots=2, aborts=True, refuses="new"), (capabilities(True, 2, True),)
    ),
    "not taken back": Covered(Design(consumers=1, aborts=True, refuses="old"), (capabilities(True, 1),)),
    "leaked": Covered(Design(consumers=1, aborts=True, waits=False, soaks=False), (capabilities(True, 1),), True),
    "leaked, generated": Covered(
        Design(rotators=1, consumers=1, rotations=1, slots=2, chosen=False, waits=False, soaks=False, aborts=True),
        (capabilities(False, 2, True),),
        True,
    ),
}


def views(state: State, number: int, covered: Covered) -> Iterator[View]:
    """What a process sees that stands in the model's state and knows what that rotator knows."""
    store, rotator = state.store, state.rotators[number]
    ready = rotator.ready[0] if rotator.ready else None
    taken = Held(
        "pos",
        Secret(f"not-a-real-secret-{store.current}"),
        None if store.pending == NOBODY else Secret(f"not-a-real-secret-{store.pending}"),
        None if store.previous == NOBODY else Secret(f"not-a-real-secret-{store.previous}"),
        RotationState(
            rotation="a1",
            goal="abort" if store.aborting else "rotate",
            compromised=covered.leaked,
            intended=store.intended,
            claimed=NOW if store.pending != NOBODY else None,
            noted=NOW if store.called or store.open else None,
            open_for=60.0 if store.called or store.open else 0.0,
            calls=int(store.called),
            promoted=NOW if store.promoted else None,
            pending_id="p" if store.pending != NOBODY else None,
            current_id="c",
            previous_id="v",
        ),
        "7",
        Binding(),
    )
    reason = "the issuer refused it" if rotator.refused else None
    memory = Memory(
        announced=None if ready is None or not ready.mine else 0.0 if ready.fresh else 60.0,
        call=_call_of(ready.kind if ready else "apply"),
        refused=None if store.aborting else reason,
        kept_out=reason if store.aborting else None,
        reaped=rotator.done,
        retired=rotator.done,
        withdrawn=rotator.done,
    )
    everywhere = all(store.pending in each.snapshot for each in state.consumers)
    for can in covered.capabilities:
        known = [Evidence()]
        if len(rotator.said) == 2:
            words: list[Word] = ["accepted" if each else "rejected" for each in rotator.said]
            leaving = words[0] if store.pair[0] != NOBODY else None
            single = can.single_slot
            known = [ripe(leaving, words[1], single_slot=single), ripe(leaving, words[1], single_slot=single, age=9.0)]
            known.append(Evidence().and_then(leaving, words[1], single_slot=single))
        for said, wish, removed in itertools.product(known, WISHES, (False, True) if can.restores else (False,)):
            if wish == "rollback" and not covered.design.rolls_back:
                continue
            if wish == "resume" and not store.idle:
                continue  # the same as "rotate"
            yield View(
                taken,
                said,
                LEAKED if covered.leaked else POLICY,
                can,
                wish,
                DUE,
                open=20.0 if store.open else 0.0,
                waits=0.0 if covered.leaked or store.pending == NOBODY or everywhere else 20.0,
                soaks=20.0 if state.soaking and not covered.leaked else 0.0,
                noted_ago=40.0,
                memory=memory._replace(removed=removed),
            )


def _call_of(kind: str) -> Call:
    return {"mint": "mint", "reap": "reap", "withdraw": "withdraw"}.get(kind, "apply")  # type: ignore[return-value]


ALLOWED_AS = {
    "claim": {"claim", "roll back"},
    "note": {"note", "note again", "note back"},
    "apply": {"apply", "back", "refused"},
    "mint": {"mint", "refused"},
    "retire": {"decide to retire"},
    "remove": {"drop"},
}


@pytest.mark.parametrize("name", COVERED)
def test_the_model_allows_what_is_decided_in_each_of_its_states(name: str) -> None:
    covered = COVERED[name]
    model, asked, kinds = Model(covered.design), 0, set[str]()
    for state in model.reachable():
        for number, rotator in enumerate(state.rotators):
            if any(ready.kind in ("keep", "retire") for ready in rotator.ready):
                continue  # nothing is decided before that is done
            known = state
            if (
                rotator.ready and not rotator.ready[0].mine
            ):  # others have gone on, so it is forgotten with the next read
                known = state._replace(rotators=(Rotator(),) * len(state.rotators))
            names = {edge.name for edge in model.of_rotator(known, number)}
            ends = state.begun == covered.design.rotations  # of the model, which begins no other
            for view in views(state, number, covered):
                step = decide(view)
                asked += 1
                kinds.add(step.kind)
                if step.kind in LOOKS or (step.kind in ("claim", "intend") and ends):
                    continue
                assert ALLOWED_AS.get(step.kind, {step.kind}) & names, (step, names, state, number, view)
    assert asked > 200
    assert {"prove", "wait", "promote", "drop", "note"} <= kinds


# --- the product


class Case(NamedTuple):
    """The words and numbers of a View; the rest follows."""

    name: str
    held: Held


def _phases() -> Iterator[Case]:
    noted: dict[str, Any] = {"rotation": "a1", "noted": NOW, "open_for": 60.0, "current_id": "c", "previous_id": "v"}
    yield Case("idle", held(RotationState(**noted)))
    yield Case("idle, with a previous", held(RotationState(), previous=True))
    yield Case("intended", held(RotationState(**noted, intended=True, calls=1)))
    yield Case("intended again", held(RotationState(**noted, intended=True, calls=2)))
    yield Case("put there by somebody", held(RotationState(), pending=True))
    for goal in ("rotate", "rollback"):
        with_goal: dict[str, Any] = {**noted, "goal": goal, "claimed": NOW, "pending_id": "p"}
        yield Case(f"claimed, {goal}", held(RotationState(**{**with_goal, "noted": None}), pending=True, previous=True))
        yield Case(f"applying, {goal}", held(RotationState(**with_goal, calls=1), pending=True))
    yield Case("applying, no names", held(RotationState(rotation="a1", claimed=NOW, noted=NOW, calls=2), pending=True))
    aborting: dict[str, Any] = {**noted, "goal": "abort", "claimed": NOW, "pending_id": "p", "calls": 2}
    yield Case("aborting", held(RotationState(**aborting), pending=True))
    yield Case("soaking", held(RotationState(**noted, promoted=NOW), previous=True))
    yield Case("soaking, back", held(RotationState(**noted, promoted=NOW, goal="rollback"), previous=True))
    yield Case("soaking, none kept", held(RotationState(**noted, promoted=NOW)))


PHASES = {case.name: case.held for case in _phases()}
CAPABILITIES = [
    capabilities(chosen, slots, retires, restores)
    for chosen, slots, retires, restores in itertools.product((True, False), (1, 2, None), (True, False), (True, False))
    if retires or not restores
]
WORDS: tuple[Word, ...] = get_args(Word)


def _evidence(here: Held, single_slot: bool) -> Iterator[Evidence]:
    pair = here.pending is not None or (here.previous is not None and here.state.promoted is not None)
    yield Evidence()
    for leaving, taking in itertools.product(WORDS if pair else (None,), WORDS):
        for age in (0.0, 30.0):
            yield ripe(leaving, taking, single_slot=single_slot, age=age)
        yield Evidence().and_then(leaving, taking, single_slot=single_slot)


def _memories(here: Held, can: Capabilities) -> Iterator[Memory]:
    phase = phase_of(here)
    yield Memory()
    for refused in (None, "the issuer refused it"):
        yield Memory(refused=refused, kept_out="the issuer refused it")
        yield Memory(refused=refused)
        for announced, call in itertools.product((4.9, 30.0), _announcements(phase, can)):
            yield Memory(refused=refused, announced=announced, call=call)
        if phase == "intended":
            yield Memory(refused=refused, reaped=True)
    if phase == "soaking":
        yield Memory(retired=True)
        yield Memory(retired=True, removed=True)
    if phase == "aborting":
        yield Memory(withdrawn=True)
    if phase == "idle":
        yield Memory(rotated=True)
        yield Memory(abandoned=True)
        yield Memory(abandoned=True, refused="the issuer refused it")


def _announcements(phase: str, can: Capabilities) -> Iterator[Call]:
    several = not can.single_slot
    if phase == "intended":
        yield "mint"
        if several:
            yield "reap"
    elif phase not in ("idle", "soaking"):
        if can.chosen:
            yield "apply"
        if several and can.retires and phase == "aborting":
            yield "withdraw"


def product(name: str) -> Iterator[View]:
    here = PHASES[name]
    phase = phase_of(here)
    leaked = here._replace(state=replace(here.state, compromised=True))
    for can in CAPABILITIES:
        if can.restores and phase != "soaking":
            continue  # what was retired is of no concern before
        wishes = [wish for wish in WISHES if wish != "resume" or phase in ("idle", "intended")]
        for said, memory, wish, open_ in itertools.product(
            list(_evidence(here, can.single_slot)), list(_memories(here, can)), wishes, (0.0, 20.0)
        ):
            waits = (0.0, 20.0) if phase in ("claimed", "applying") else (0.0,)
            soaks = (0.0, 20.0) if phase == "soaking" else (0.0,)
            for wait, soak in itertools.product(waits, soaks):
                view = View(here, said, POLICY, can, wish, DUE, open_, wait, soak, 40.0, memory)
                yield view
                if not (wait or soak):
                    yield view._replace(held=leaked, policy=LEAKED)
            if phase == "idle":
                yield View(here, said, POLICY, can, wish, NOT_DUE, open_, memory=memory)
            elif not can.chosen:
                yield View(here, said, POLICY, can, wish, DUE, open_, noted_ago=700.0, memory=memory)


def broken_rule(view: View, step: Step) -> str:
    """The rule of safety that a step does not keep."""
    said, memory, can, here = view.evidence, view.memory, view.capabilities, view.held
    phase, fresh, kind = phase_of(here), said.age <= FRESH, step.kind
    announced = memory.announced is not None and memory.announced <= FRESH
    proved = said.proofs >= view.policy.proofs and said.proved_for >= (view.policy.propagation or 0.0)
    returned = said.returns >= view.policy.proofs and said.returned_for >= (view.policy.propagation or 0.0)
    match kind:
        case "claim" | "intend":
            if view.open or here.pending is not None:
                return "nothing is begun while a call is open, or something pending"
            if not (said.taking == "accepted" and fresh):
                return "nothing is begun before the current secret is proved"
            if view.wish == "resume":
                return "resume begins nothing"
            if (kind == "claim") != can.chosen:
                return "only what is chosen is claimed first"
            if phase != "idle" and view.wish != "rollback":
                return "only a way back begins before the end"
            if phase == "soaking" and can.retires and not can.single_slot and not view.soaks:
                return "there is no way back to what may be retired at this moment"
            if memory.refused is not None and phase == "idle":
                return "what was refused is not begun again"
        case "adopt":
            if view.open:
                return "an adoption does not end a fence"
        case "abandon":
            if view.open:
                return "nothing is given up while a call is open"
            if not fresh or not (proved if said.taking == "accepted" else returned and phase != "aborting"):
                return "nothing is given up before the current secret is proved"
        case "apply" | "mint" | "reap" | "withdraw":
            if not announced or memory.call != kind:
                return "no call without its fresh note"
            if (kind == "apply" and not can.chosen) or (kind == "mint" and can.chosen):
                return "only what the issuer can do"
            if kind in ("reap", "withdraw") and can.single_slot:
                return "what has one slot removes nothing"
        case "note":
            if view.open and memory.announced is None and not memory.reaped:
                return "no other call is announced while one is open"
            if phase not in ("intended",) and memory.announced is None and not fresh:
                return "no call is announced on old evidence"
        case "promote":
            if not (proved and fresh and said.taking == "accepted"):
                return "no promotion without proof"
            if can.single_slot and said.leaving != "rejected":
                return "no promotion while the other one is accepted, in a single slot"
            if view.waits and said.leaving == "accepted":
                return "no promotion before consumers hold it"
            if phase == "aborting":
                return "what is being given up is not promoted"
        case "retire" | "remove" | "drop":
            if phase != "soaking" or view.soaks or not (fresh and said.taking == "accepted"):
                return "nothing is retired or dropped before its time"
            if kind == "retire" and not can.retires:
                return "only what the issuer can do"
            if kind == "drop" and can.retires and not memory.retired:
                return "nothing is dropped that the issuer still accepts"
        case "restore":
            if not (memory.retired and said.taking == "rejected"):
                return "only what was retired is restored"
        case "drift":
            often = max(said.misses, said.returns) >= 3
            if view.open or not often or said.taking != "rejected" or not fresh:
                return "drift is said after three misses, with no call open"
        case "wait":
            if step.wait <= 0:
                return "a wait lasts"
            if view.held.state.compromised and not view.open and step.wait > 60:
                return "what has leaked is not waited for"
    return ""


@pytest.mark.parametrize("name", PHASES)
def test_each_decision_keeps_the_rules(name: str) -> None:
    asked = 0
    for view in product(name):
        step = decide(view)
        asked += 1
        if fault := broken_rule(view, step):
            pytest.fail(f"{fault}: {step} for {view}")
    assert asked > 5000


# --- an end


class Walk:
    """What a run does beside an issuer that obeys, or says no: a step takes effect at once, a wait takes its time."""

    def __init__(self, here: Held, can: Capabilities, wish: Wish, accepted: frozenset[str], says_no_to: str) -> None:
        self.can, self.wish, self.says_no_to = can, wish, says_no_to
        self.accepted = set(accepted)
        self.secrets = {"current": here.current, "pending": here.pending, "previous": here.previous}
        self.state, self.now, self.memory, self.evidence = here.state, NOW, Memory(), Evidence()
        self.asked = self.announced = -INF
        self.generated = 0
        self.steps: list[str] = []

    def view(self) -> View:
        state, now = self.state, self.now
        current, pending, previous = self.secrets.values()
        assert current is not None
        return View(
            Held("pos", current, pending, previous, state, "7", Binding()),
            self.evidence._replace(age=now - self.asked),
            POLICY,
            self.can,
            self.wish,
            DUE,
            open=_left(state.noted, state.open_for, now),
            waits=_left(state.claimed, 30.0, now),
            soaks=_left(state.promoted, 30.0, now),
            noted_ago=now - (state.noted or state.claimed or now),
            memory=self.memory._replace(announced=None if self.announced < 0 else now - self.announced),
        )

    def to_its_end(self) -> str:
        for _ in range(1500):
            view = self.view()
            step = decide(view)
            if fault := broken_rule(view, step):
                pytest.fail(f"{fault}: {step} for {view} after {self.steps}")
            if step.kind in ENDS:
                return step.kind
            words = f"{step.kind} {step.call if step.kind == 'note' else ''}{' back' if step.back else ''}".strip()
            if step.kind != "wait":
                again = self.steps[-1:] == [words] and (step.kind != "prove" or view.evidence.age < 0.04)
                assert not again, f"the same twice: {self.steps} {step} {view}"
            self.steps.append(words)
            self.now += step.wait
            self.make(step)
        pytest.fail(f"no end: {self.steps[-40:]}")

    def make(self, step: Step) -> None:
        before, memory, state = dict(self.secrets), self.memory, self.state
        phase = phase_of(self.view().held)
        match step.kind:
            case "prove":
                leaving: str | None = "current" if before["pending"] else "previous" if phase == "soaking" else None
                taking = "pending" if before["pending"] else "current"
                if phase == "aborting":
                    leaving, taking = "pending", "current"
                left = self._said(leaving) if leaving is not None and before[leaving] is not None else None
                self.evidence = self.view().evidence.and_then(
                    left, self._said(taking), single_slot=self.can.single_slot
                )
                self.asked = self.now
            case "adopt":
                self.state = RotationState(claimed=self.now)
            case "claim":
                back = self.wish == "rollback"
                self.secrets["pending"] = before["previous"] if back else Secret(f"not-a-real-secret-{self.now}")
                self.state = RotationState(claimed=self.now, goal="rollback" if back else "rotate", current_id="c")
            case "note" | "intend":
                changes: dict[str, Any] = {"goal": "abort"} if step.back else {}
                changes |= {"intended": True, "current_id": "c"} if step.kind == "intend" else {}
                calls = 1 if step.kind == "intend" else state.calls + 1
                self.state = replace(state, noted=self.now, open_for=60.0, calls=calls, **changes)
                self.memory = memory._replace(call=step.call, reaped=False)
                self.announced, self.evidence = self.now, Evidence()
            case "apply":
                self._called("current" if step.back else "pending")
            case "mint" | "reap" | "withdraw" | "retire":
                self._called(step.kind)
            case "remove":
                self.memory = memory._replace(removed=True)
            case "restore":
                self.memory = memory._replace(retired=False)
            case "turn":
                self.state = replace(state, goal="rotate")
            case "promote":
                self.secrets = {"current": before["pending"], "pending": None, "previous": before["current"]}
                over = RotationState(noted=state.noted, open_for=state.open_for, promoted=self.now, goal=state.goal)
                self.state = replace(over, current_id=state.pending_id, previous_id=state.current_id)
            case "abandon" | "drop":
                self.secrets["pending" if step.kind == "abandon" else "previous"] = None
                self.state = RotationState(noted=state.noted, open_for=state.open_for, current_id=state.current_id)
                self.memory = memory._replace(abandoned=True) if step.kind == "abandon" else Memory(rotated=True)
        if step.kind not in ("wait", "prove"):
            self.now += 0.05
        if self.secrets != before or phase != phase_of(self.view().held):
            self.evidence = Evidence()
            self.memory = self.memory._replace(withdrawn=False, retired=False, removed=False)

    def _said(self, name: str) -> Word:
        secret = self.secrets[name]
        return "accepted" if secret is not None and secret.reveal() in self.accepted else "rejected"

    def _called(self, kind: str) -> None:
        self.announced, self.evidence = -INF, Evidence()
        secret = self.secrets.get("previous" if kind == "retire" else "pending" if kind == "withdraw" else kind)
        if kind in ("current", "pending", "mint") and self.says_no_to == ("old" if kind == "current" else "new"):
            refused = {"kept_out" if kind == "current" else "refused": "it does not want to"}
            self.memory = self.memory._replace(**refused)  # type: ignore[arg-type]
            return
        if kind == "mint":
            self.generated += 1
            secret = self.secrets["pending"] = Secret(f"not-a-real-secret-generated-{self.generated}")
            self.state = replace(self.state, intended=False, claimed=self.now, pending_id="p")
        if kind in ("mint", "current", "pending"):
            assert secret is not None
            self.accepted = {secret.reveal()} | (set() if self.can.single_slot else self.accepted)
            return
        if secret is not None:
            self.accepted.discard(secret.reveal())
        done = {"reap": "reaped", "withdraw": "withdrawn", "retire": "retired"}[kind]
        self.memory = self.memory._replace(**{done: True})  # type: ignore[arg-type]


def _left(since: float | None, seconds: float, now: float) -> float:
    return 0.0 if since is None else max(0.0, since + seconds - now)


KINDS_OF_ISSUERS = [
    capabilities(True, 1),
    capabilities(True, None),
    capabilities(True, 2, True),
    capabilities(True, None, True),
    capabilities(True, 2, True, True),
    capabilities(False, 1),
    capabilities(False, 2),
    capabilities(False, 2, True),
    capabilities(False, None, True),
]


def _walks(name: str) -> Iterator[Walk]:
    here = PHASES[name]
    names = {"current": here.current, "pending": here.pending, "previous": here.previous}
    there = [secret.reveal() for secret in names.values() if secret is not None]
    wishes = WISHES if phase_of(here) in ("idle", "soaking") else ("rotate", "abort", "rollback")
    for can, wish, says_no_to in itertools.product(KINDS_OF_ISSUERS, wishes, ("", "new", "old")):
        for count in range(2 if can.single_slot else 3):
            for accepted in itertools.combinations(there, count):
                yield Walk(here, can, wish, frozenset(accepted), says_no_to)


@pytest.mark.parametrize("name", PHASES)
def test_each_walk_comes_to_an_end(name: str) -> None:
    here = PHASES[name]
    for walk in _walks(name):
        known = {here.current.reveal(), *([here.pending.reveal()] if here.pending is not None else [])}
        works = bool(known & walk.accepted)
        end = walk.to_its_end()
        told = (end, walk.wish, walk.can, walk.says_no_to, walk.accepted, walk.steps)
        if end == "done" and not {"wait", "prove"}.issuperset(walk.steps):
            assert phase_of(walk.view().held) == "idle", told
            assert walk.secrets["current"] is not None, told
            assert walk.secrets["current"].reveal() in walk.accepted, told
        if not works and phase_of(here) not in ("intended", "idle"):
            continue  # drift, or what a person has to look at
        if here.current.reveal() in walk.accepted:
            assert end != "drift", told
            if walk.wish in ("rotate", "resume") and not walk.says_no_to:
                assert end in ("done", "failed"), told
            # What the issuer has no name for, or cannot remove, cannot be taken back while it accepts both.
            named = here.state.pending_id is not None if walk.can.retires else walk.can.chosen
            if walk.wish == "abort" and not walk.says_no_to and here.pending is not None and named:
                assert end == "done", told
