"""The state that a store keeps beside a secret: read as it was written, bounded, and nothing else taken for one."""

from __future__ import annotations

import base64
import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretsource.state import LONGEST_STATE, RotationState

INSTANTS = st.one_of(st.none(), st.floats(0, 1e11))
NAMES = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=64)
STATES = st.builds(
    RotationState,
    rotation=NAMES,
    by=NAMES,
    goal=st.sampled_from(["rotate", "abort", "rollback"]),
    compromised=st.booleans(),
    intended=st.booleans(),
    claimed=INSTANTS,
    noted=INSTANTS,
    open_for=st.floats(0, 1e6),
    calls=st.integers(0, 1000),
    promoted=INSTANTS,
    finished=INSTANTS,
    tokens_not_before=INSTANTS,
    expires=INSTANTS,
    pending_expires=INSTANTS,
    pending_id=st.one_of(st.none(), NAMES),
    current_id=st.one_of(st.none(), NAMES),
    previous_id=st.one_of(st.none(), NAMES),
)


def written(**said: Any) -> str:
    return "v1." + base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")


@given(STATES)
def test_a_state_is_read_as_it_was_written_and_is_never_too_long(state: RotationState) -> None:
    assert RotationState.read(state.text()) == state
    assert len(state.text()) <= LONGEST_STATE


def test_the_longest_state_fits() -> None:
    names: dict[str, Any] = dict.fromkeys(("rotation", "by", "pending_id", "current_id", "previous_id"), "x" * 128)
    numbers: dict[str, Any] = {item.name: 1_800_000_000.123 for item in fields(RotationState) if "float" in item.type}
    state = RotationState(goal="rollback", compromised=True, intended=True, calls=999_999, **names, **numbers)
    assert len(numbers) > 5
    assert len(state.text()) <= LONGEST_STATE


def test_what_a_later_version_adds_is_left_alone() -> None:
    assert RotationState.read(written(rotation="a", colour="green")) == RotationState(rotation="a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v2.e30",
        "v1.",
        "v1.not base64!",
        "v1." + base64.urlsafe_b64encode(b"[]").decode(),
        "v1." + base64.urlsafe_b64encode(b"\xff").decode(),
        written(claimed="yesterday"),
        written(claimed=True),
        written(claimed=-1),
        written(claimed=1e300),
        written(goal="drop"),
        written(calls=1.5),
        written(calls=-1),
        written(compromised="yes"),
        written(rotation=None),
        written(rotation="x" * 129),
        written(rotation="a\nb"),
        "v1." + "A" * LONGEST_STATE,
        "v1." + base64.urlsafe_b64encode(b"[" * 1000).decode(),
        "v1." + base64.urlsafe_b64encode(b'{"claimed": NaN}').decode(),
    ],
)
def test_what_is_no_state_is_not_taken_for_one(text: str) -> None:
    assert RotationState.read(text) is None
