"""The protocol of a rotation holds in every order of events, and each of its guards is needed.

WHOLE has all guards in place: the number of states says that the model still goes everywhere. Where a broken invariant
stands there, it is the world's doing: a third party at the issuer needs a person, a leaked secret is not waited for. A
row of GUARDS takes one guard away (or two, where each alone is enough), and says all that breaks then, with the length
of a shortest trace.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import pytest

from .model import Design, Found, Model

SMALL = {"rotators": 2, "consumers": 1, "rotations": 1}
TWICE = {"rotators": 2, "consumers": 1, "rotations": 2}
THREE = {"rotators": 3, "consumers": 3, "rotations": 3}
GENERATED = {"chosen": False, "slots": 2}
LEAKED = {"waits": False, "soaks": False}

WHOLE: dict[str, tuple[dict[str, Any], int, dict[str, int]]] = {
    "one rotator, one consumer": ({"rotators": 1, "consumers": 1, "rotations": 1}, 55, {}),
    "two of each": ({}, 486, {}),
    "three of each": (THREE, 2780, {}),
    "aborts": ({"aborts": True}, 1276, {}),
    "aborts and rolls back": ({**TWICE, "aborts": True, "rolls_back": True}, 2342, {}),
    "two slots": ({**TWICE, "slots": 2}, 2165, {}),
    "two slots, aborts": ({**TWICE, "slots": 2, "aborts": True}, 4443, {}),
    "two slots, rolls back": ({**TWICE, "slots": 2, "rolls_back": True}, 2478, {}),
    "generated": ({**SMALL, **GENERATED}, 1568, {}),
    "generated, aborts": ({**SMALL, **GENERATED, "aborts": True}, 2333, {}),
    "generated, one slot": ({**SMALL, "chosen": False}, 984, {}),
    "generated, one slot, aborts": ({**SMALL, "chosen": False, "aborts": True}, 991, {}),
    "each new secret is refused": ({**TWICE, "refuses": "new"}, 1242, {}),
    "each new secret is refused, two slots": ({**TWICE, "slots": 2, "refuses": "new"}, 3876, {}),
    "none is generated": ({**TWICE, **GENERATED, "refuses": "new"}, 701, {}),
    # The first one is lost on the way, and no other is given: what the issuer accepts, nobody has.
    "none but one is generated, one slot": ({**TWICE, "chosen": False, "refuses": "new"}, 801, {"L1": 4}),
    "the old secret is not taken back": ({**TWICE, "aborts": True, "refuses": "old"}, 1488, {}),
    "consumers call": ({**TWICE, "calls": True}, 3240, {}),
    "consumers call, aborts": ({**SMALL, "calls": True, "aborts": True}, 2775, {}),
    "consumers call, two slots, aborts": ({**SMALL, "slots": 2, "calls": True, "aborts": True}, 2385, {}),
    "consumers call, generated": ({**SMALL, **GENERATED, "calls": True}, 4548, {}),
    "consumers call, leaked": ({**SMALL, **LEAKED, "calls": True}, 1775, {"S2": 6}),
    "somebody else at the issuer": ({**SMALL, "meddling": 2}, 1411, {"L1": 7, "S2": 3, "S5": 7}),
    "a replica without the change": ({**SMALL, "falls_back": True}, 322, {"L1": 11}),
}

LARGE: dict[str, tuple[dict[str, Any], int]] = {
    "four rotations": ({**THREE, "rotations": 4}, 4708),
    "three rotators, aborts": ({**THREE, "rotations": 2, "aborts": True}, 4251),
    "aborts and rolls back, three rotations": ({**TWICE, "rotations": 3, "aborts": True, "rolls_back": True}, 9712),
    "generated, two rotations, aborts": ({**TWICE, **GENERATED, "aborts": True}, 18423),
    "generated, two rotations": ({**TWICE, **GENERATED}, 8820),
    "consumers call, leaked, two rotations": ({**TWICE, **LEAKED, "calls": True}, 12517),
    "consumers call, two rotations, aborts": ({**TWICE, "calls": True, "aborts": True}, 12562),
}


class Guard(NamedTuple):
    """`named`: the invariant for whose sake it is there."""

    world: dict[str, Any]
    without: dict[str, Any]
    named: str
    broken: dict[str, int]


GUARDS: dict[str, Guard] = {
    "adopt": Guard(TWICE, {"adopts": False}, "S4", {"L1": 8, "S1": 8, "S2": 9, "S4": 3}),
    "wait": Guard(TWICE, {"waits": False}, "S2", {"S2": 6}),
    "fence": Guard(
        TWICE,
        {"fences": False},
        "S7",
        {"D1": 43, "L1": 29, "S1": 34, "S2": 35, "S3": 35, "S5": 29, "S6": 34, "S7": 20},
    ),
    "fence, where one aborts": Guard(
        {**SMALL, "aborts": True}, {"fences": False}, "S7", {"D1": 26, "S1": 10, "S2": 11, "S3": 11, "S7": 9}
    ),
    "quarantine before an abort": Guard(
        {**TWICE, "aborts": True}, {"quarantines": False}, "S7", {"S1": 10, "S2": 11, "S3": 11, "S7": 9}
    ),
    "proof before the promotion": Guard(TWICE, {"proves": False}, "S5", {"L1": 3, "S5": 3}),
    "proof of the current before an abort": Guard(
        {**TWICE, "aborts": True}, {"abort_proves": False}, "S1", {"S1": 9, "S2": 10, "S3": 9}
    ),
    "a fresh note when the call leaves": Guard(
        {**SMALL, "aborts": True},
        {"rechecks": False},
        "S7",
        {"D1": 31, "S1": 11, "S2": 12, "S3": 11, "S7": 11, "S9": 11},
    ),
    "note before the call": Guard(SMALL, {"notes": False}, "S9", {"S9": 7}),
    "note before the call, where one aborts": Guard(
        {**SMALL, "aborts": True},
        {"notes": False},
        "S9",
        {"D1": 18, "S1": 10, "S2": 11, "S3": 10, "S7": 9, "S9": 7},
    ),
    "note before what was generated in vain is removed": Guard(
        {**SMALL, **GENERATED, "rotators": 1},
        {"notes_removals": False},
        "S7",
        {"L1": 11, "S1": 22, "S2": 22, "S3": 26, "S5": 16, "S6": 25, "S7": 11},
    ),
    "note before the pending one is withdrawn": Guard(
        {**SMALL, "slots": 2, "aborts": True},
        {"notes_removals": False},
        "S9",
        {"L1": 14, "S1": 20, "S2": 20, "S3": 24, "S5": 14, "S6": 23, "S7": 8, "S9": 6},
    ),
    "first the one that is left, then the one that is taken": Guard(
        {**TWICE, "misses": 1, "drifts_while_open": True}, {"in_order": False}, "D1", {"D1": 10}
    ),
    "three misses before it is drift": Guard(
        {**SMALL, "meddling": 2}, {"misses": 1}, "D1", {"D1": 7, "L1": 7, "S2": 3, "S5": 7}
    ),
    "wait and soak, two slots": Guard({**SMALL, "slots": 2}, LEAKED, "S2", {"S2": 13}),
    "wait and soak, generated": Guard({**SMALL, **GENERATED}, LEAKED, "S2", {"S2": 11}),
    "soak before the previous one is dropped": Guard(
        {**SMALL, "falls_back": True}, {"soaks": False}, "S1", {"L1": 11, "S1": 14, "S2": 15, "S3": 15, "S6": 14}
    ),
    "orphans are reaped": Guard({**SMALL, **GENERATED}, {"reaps": False}, "L1", {"L1": 4}),
    "what is given up is withdrawn": Guard(
        {**SMALL, **GENERATED, "aborts": True}, {"withdraws": False}, "S3", {"S3": 8}
    ),
    "a generated secret is kept under its own note only": Guard(
        {**SMALL, **GENERATED},
        {"keeps_only_its_own": False},
        "S7",
        {"L1": 7, "S1": 17, "S2": 17, "S3": 20, "S5": 11, "S6": 20, "S7": 6, "S9": 11},
    ),
    "a generated secret is kept under its own note only, one slot": Guard(
        {**SMALL, "chosen": False},
        {"keeps_only_its_own": False},
        "S7",
        {"L1": 7, "S1": 8, "S3": 16, "S5": 10, "S6": 15, "S7": 6, "S9": 10},
    ),
    "no way back once the previous one is retired": Guard(
        {**TWICE, "slots": 2, "rolls_back": True},
        {"rolls_back_in_time": False},
        "S5",
        {"L1": 23, "S1": 29, "S2": 29, "S3": 32, "S5": 23, "S6": 32},
    ),
}


@cache
def check(design: Design) -> Found:
    return Model(design).check()


@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_protocol_holds(name: str) -> None:
    world, states, broken = WHOLE[name]
    assert check(Design(**world)) == (states, broken)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_the_whole_protocol_holds_in_larger_worlds(name: str) -> None:
    world, states = LARGE[name]
    found = check(Design(**world))
    assert (found.states, set(found.broken) - ({"S2"} if "leaked" in name else set())) == (states, set())


@pytest.mark.parametrize("name", GUARDS)
def test_each_guard_is_needed(name: str) -> None:
    guard = GUARDS[name]
    assert guard.named not in check(Design(**guard.world)).broken
    assert check(Design(**{**guard.world, **guard.without})).broken == guard.broken


@pytest.mark.parametrize("name", ["adopt", "wait", "proof before the promotion"])
def test_a_trace_tells_how_an_invariant_breaks(name: str) -> None:
    guard = GUARDS[name]
    trace = Model(Design(**{**guard.world, **guard.without})).trace(guard.named)
    assert len(trace) == guard.broken[guard.named]


def test_what_holds_has_no_trace() -> None:
    assert Model(Design(rotators=1, consumers=1, rotations=1)).trace("S1") == []
