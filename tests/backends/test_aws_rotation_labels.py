"""The state of a rotation as labels: whatever it is, it is read as it was written, and what is broken says nothing."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from secretsource.backends.aws.labels import state_in, state_labels
from secretsource.state import RotationState

NAMES = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=128).filter(str.isprintable)
INSTANTS = st.none() | st.floats(0, 1e11, allow_nan=False)
STATES = st.builds(
    RotationState,
    rotation=st.text("0123456789abcdef", max_size=16),
    by=NAMES,
    goal=st.sampled_from(["rotate", "abort", "rollback"]),
    compromised=st.booleans(),
    claimed=INSTANTS,
    noted=INSTANTS,
    open_for=st.floats(0, 1e6),
    calls=st.integers(0, 1000),
    promoted=INSTANTS,
    pending_id=st.none() | st.uuids().map(str),
)


@given(STATES, st.lists(STATES, min_size=1, max_size=3))
def test_the_last_state_that_was_written_is_read(inside: RotationState, written: list[RotationState]) -> None:
    labels: list[str] = []
    for state in written:
        labels += state_labels(inside, labels, state)
        assert state_in(inside, labels) == state
        assert state_in(inside, reversed(labels)) == state
    assert all(len(label) <= 256 for label in labels)


@given(STATES, STATES)
def test_what_is_said_of_a_promotion_holds_from_then_on(inside: RotationState, state: RotationState) -> None:
    labels = state_labels(inside, (), state, of_promotion=True)
    assert state_in(inside, labels) == inside
    assert state_in(inside, [*labels, "AWSCURRENT"]) == state


@given(STATES, STATES, st.data())
def test_half_a_state_is_none(inside: RotationState, state: RotationState, data: st.DataObject) -> None:
    labels = list(state_labels(inside, (), state))
    labels.pop(data.draw(st.integers(0, len(labels) - 1)))
    assert state_in(inside, labels) == inside


@given(st.lists(st.text(max_size=40).map("secretsource-state-".__add__), max_size=4))
def test_other_labels_say_nothing(labels: list[str]) -> None:
    assert state_in(RotationState(calls=2), labels) == RotationState(calls=2)


def test_of_two_states_that_were_written_at_once_the_more_careful_one_holds() -> None:
    inside = RotationState(rotation="r", claimed=1.0)
    one = replace(inside, noted=10.0, open_for=600.0, calls=1)
    other = replace(inside, noted=20.0, open_for=30.0, calls=1, goal="abort")
    labels = [*state_labels(inside, (), one), *state_labels(inside, (), other)]
    for order in (labels, labels[::-1]):
        said = state_in(inside, order)
        assert said is not None
        assert (said.goal, said.noted, said.open_for) == ("abort", 10.0, 600.0)
