"""A rotation's steps as changes of one document, in a store that can do no more than replace the whole."""

from __future__ import annotations

import base64
import copy
import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretsource import Document, SecretReference
from secretsource.backends import Rotatable, Stored, Writable
from secretsource.backends.env import EnvBackend
from secretsource.backends.layout import DocumentLayout, rotatable
from secretsource.backends.systemd import SystemdBackend
from secretsource.credentials import Binding
from secretsource.errors import BackendUnavailable, ConfigurationError, MalformedSecret, SecretNotFound
from secretsource.secret import Secret
from secretsource.state import LONGEST_STATE, RotationState

from ..stores import in_threads
from .layouts import revealed, shows
from .steps import CURRENT, PENDING, Steps

REFERENCE = "memory://pos"
STATE = "client_secret_rotation"


class Memory:
    """A `Writable` that has not heard of rotations. `lags`: how many writes ago its reads are from."""

    options: frozenset[str] = frozenset()
    ttl: float | None = 0.0

    def __init__(self, fields: Mapping[str, Any] | None = None, *, wrap: bool = True) -> None:
        self.states: list[dict[str, Any]] = [] if fields is None else [dict(fields)]
        self.lags = 0
        self.writes = 0
        self.timeouts: list[float] = []
        self._wrap = wrap
        self._lock = threading.Lock()

    @property
    def fields(self) -> Any:
        return revealed(self.states[-1])

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        return Document(self.states[-1], version=str(len(self.states)))

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        self.timeouts.append(timeout)
        number = len(self.states) - self.lags
        if not number:
            return Stored({}, None)
        fields = copy.deepcopy(self.states[number - 1])
        return Stored(wrapped(fields) if self._wrap else revealed(fields), str(number), 5.0, 6.0)

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        self.timeouts.append(timeout)
        with self._lock:
            if version != (str(len(self.states)) if self.states else None):
                raise BackendUnavailable(f"{reference} was changed", reference=str(reference), store="memory")
            self.states.append(dict(fields))
            self.writes += 1
            return str(len(self.states))


def wrapped(value: Any) -> Any:
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, dict):
        return {name: wrapped(inner) for name, inner in value.items()}
    return [wrapped(inner) for inner in value] if isinstance(value, list) else value


def memory(**more: Any) -> Memory:
    return Memory({"client_id": "pos", "client_secret": CURRENT, **more})


def steps(store: Memory, reference: str = REFERENCE, **more: Any) -> Steps:
    return Steps(store, reference, **more)


def texts(store: Memory) -> dict[str, Any]:
    """What the store holds, without the state."""
    return {name: value for name, value in store.fields.items() if name != STATE}


# --- the steps


def test_any_writable_store_is_rotatable() -> None:
    store = memory()
    assert isinstance(store, Writable)
    assert not isinstance(store, Rotatable)
    made = rotatable(store, SecretReference.parse(REFERENCE))
    assert isinstance(made, Rotatable)
    assert (made.options, made.ttl) == (store.options, store.ttl)
    assert made.read(SecretReference.parse(REFERENCE), fresh=True, timeout=1).version == "1"
    assert list(made.preflight(SecretReference.parse(REFERENCE), timeout=1)) == []
    assert isinstance(made, DocumentLayout)
    assert made.reaches
    assert made.copied is False


@pytest.mark.parametrize("wrap", [True, False], ids=["secrets", "plain-texts-of-a-plug-in"])
def test_the_steps_of_a_rotation_write_what_they_say_and_nothing_else(wrap: bool) -> None:
    others = {"issuer": "https://i", "port": 443, "list": ["a", {"b": None}], "x": {"client_secret": "not this"}}
    store = Memory({"client_id": "pos", "client_secret": CURRENT, **others}, wrap=wrap)
    one = steps(store)
    before = one.held()
    assert (before.client_id, one.secrets(), before.state) == ("pos", (CURRENT, None, None), RotationState())
    assert (before.created, before.expires) == (5.0, 6.0)
    assert before.binding == Binding(issuer="https://i")

    one.claim()
    assert texts(store) == {"client_id": "pos", "client_secret": CURRENT, "client_secret_pending": PENDING, **others}
    assert (one.secrets(), one.held().state) == ((CURRENT, PENDING, None), one.state())

    one.note()
    assert one.secrets() == (CURRENT, PENDING, None)
    assert one.held().state == one.state(noted=1001.0, open_for=30.0, calls=1)

    one.promote()
    assert texts(store) == {"client_id": "pos", "client_secret": PENDING, "client_secret_previous": CURRENT, **others}

    assert one.drop() is None
    assert texts(store) == {"client_id": "pos", "client_secret": PENDING, **others}
    assert one.held().state == RotationState(rotation="r1", by="one", finished=1004.0)
    assert store.writes == 4


def test_a_promotion_that_keeps_nothing_leaves_the_old_secret_nowhere() -> None:
    store = memory(client_secret_previous="not-a-real-secret-older")
    one = steps(store)
    one.claim()
    one.promote(keep_previous=False)
    assert texts(store) == {"client_id": "pos", "client_secret": PENDING}


def test_what_is_abandoned_is_gone_and_the_current_secret_stays() -> None:
    store = memory()
    one = steps(store)
    one.claim()
    one.abandon()
    assert texts(store) == {"client_id": "pos", "client_secret": CURRENT}
    assert one.held().state == RotationState(finished=1003.0)


def test_texts_to_be_kept_beside_it_are_written_with_the_claim_and_read_back() -> None:
    store = memory(registration_access_token="old")
    one = steps(store)
    assert revealed(one.held().beside) == {"client_id": "pos", "registration_access_token": "old"}
    one.claim(beside={"registration_access_token": "new", "_odd": "x"})
    assert store.fields["registration_access_token"] == "new"
    assert revealed(one.held().beside) == {"client_id": "pos", "registration_access_token": "new", "_odd": "x"}


def test_what_is_kept_beside_it_never_takes_the_place_of_a_secret() -> None:
    store = memory()
    steps(store).claim(beside={"client_secret": "a", "client_secret_pending": "b", STATE: "c"})
    assert texts(store) == {"client_id": "pos", "client_secret": CURRENT, "client_secret_pending": PENDING}
    assert steps(store).held().state.rotation == "r1"


@pytest.mark.parametrize(
    ("fields", "way"),
    [("id=/a/b,secret=/a/c", ("a",)), ("id=/a/b,secret=/x~1y/z/c", ("x/y", "z")), ("id=/a/b,secret=c", ())],
)
def test_the_names_follow_that_of_the_secret_wherever_it_stands(fields: str, way: tuple[str, ...]) -> None:
    document: dict[str, Any] = {"a": {"b": "pos"}, "top": {"n": 1}}
    home = document
    for name in way:
        home = home.setdefault(name, {})
    home["c"] = CURRENT
    store = Memory(document)
    one = steps(store, f"{REFERENCE}#{fields}")
    one.claim()
    one.note()
    one.promote()
    written = store.fields
    for name in way:
        written = written[name]
    assert (written["c"], written["c_previous"], written["c_rotation"][:3]) == (PENDING, CURRENT, "v1.")
    assert (store.fields["a"]["b"], store.fields["top"]) == ("pos", {"n": 1})
    one.drop()
    assert one.secrets() == (PENDING, None, None)


def test_a_client_id_from_beside_the_reference_will_do() -> None:
    store = Memory({"client_secret": CURRENT})
    one = steps(store, client_id="pos")
    one.claim()
    assert one.held().client_id == "pos"
    assert "client_id" not in store.fields


# --- what is refused


def test_a_second_claim_is_refused_and_the_pending_secret_stays() -> None:
    store = memory()
    one = steps(store)
    one.claim()
    with pytest.raises(BackendUnavailable, match="never overwritten") as caught:
        one.claim("not-a-real-secret-other")
    assert caught.value.retryable
    assert not shows(caught.value, "not-a-real-secret")
    assert one.secrets() == (CURRENT, PENDING, None)


def test_a_promotion_without_a_pending_secret_leaves_the_current_one() -> None:
    store = memory()
    with pytest.raises(BackendUnavailable, match="no pending secret"):
        steps(store).promote()
    assert texts(store) == {"client_id": "pos", "client_secret": CURRENT}


@pytest.mark.parametrize("step", ["claim", "note", "promote", "abandon", "drop"])
def test_each_step_against_an_older_state_is_refused_and_writes_nothing(step: str) -> None:
    store = memory(**({} if step == "claim" else {"client_secret_pending": PENDING}))
    one, two = steps(store), steps(store, by="two")
    held = one.held()
    two.note()
    before = copy.deepcopy(store.fields)
    with pytest.raises(BackendUnavailable) as caught:
        getattr(one, step)(held=held)
    assert not shows(caught.value, "not-a-real-secret")
    assert store.fields == before


@pytest.mark.parametrize("step", ["note", "promote", "abandon", "drop"])
def test_what_a_replica_that_lags_gives_is_not_written_over_what_was_decided_on(step: str) -> None:
    """The store would take it: its version is the one that was decided on."""
    store = memory()
    one = steps(store)
    one.claim()
    held, before = one.held(), copy.deepcopy(store.fields)
    store.lags = 1
    with pytest.raises(BackendUnavailable):
        getattr(one, step)(held=held)
    assert store.fields == before


def test_of_many_rotators_one_claims_and_the_others_see_it() -> None:
    store = memory()
    rotators = [steps(store, by=f"rotator-{number}") for number in range(8)]
    seen = [one.held() for one in rotators]
    waiting = list(zip(rotators, seen, strict=True))

    def claim() -> str:
        one, held = waiting.pop()
        one.claim(f"not-a-real-secret-of-{one.by}", held)
        return one.by

    outcomes = in_threads(8, claim)
    [winner] = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert sum(type(outcome) is BackendUnavailable for outcome in outcomes) == 7
    held = rotators[0].held()
    assert (held.state.by, revealed({"": held.pending})) == (winner, {"": f"not-a-real-secret-of-{winner}"})


def test_a_step_has_one_time_for_both_of_its_calls() -> None:
    store = memory()
    one = steps(store)
    held = one.held()
    store.timeouts.clear()
    one.claim(held=held, timeout=7)
    assert len(store.timeouts) == 2
    assert 7 >= store.timeouts[0] >= store.timeouts[1] > 0


@pytest.mark.parametrize("document", [None, {}])
def test_where_nothing_is_there_is_nothing_to_change(document: dict[str, Any] | None) -> None:
    with pytest.raises(SecretNotFound, match="nothing at memory:") as caught:
        steps(Memory(document)).held()
    assert "secretsource put" in str(caught.value.hint)


def test_a_secret_in_a_list_is_refused_before_anything_is_written() -> None:
    store = Memory({"client_id": "pos", "clients": [{"client_secret": CURRENT}]})
    with pytest.raises(ConfigurationError, match="in a list"):
        steps(store, f"{REFERENCE}#id=client_id,secret=/clients/0/client_secret").held()
    assert store.writes == 0


def test_a_pinned_reference_is_refused_with_what_to_leave_out() -> None:
    with pytest.raises(ConfigurationError, match="names one version") as caught:
        rotatable(memory(), SecretReference.parse("vault://kv/pos?version=3"))
    assert "version=" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("backend", "reference", "recipe"),
    [(EnvBackend({}), "env://POS", "NAME_CLIENT_SECRET_PENDING"), (SystemdBackend({}), "systemd:pos.json", "restart")],
)
def test_what_is_not_written_here_comes_with_the_recipe(backend: Any, reference: str, recipe: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        rotatable(backend, SecretReference.parse(reference))
    assert recipe in str(caught.value.hint)


# --- the state


def state_of(text: Any) -> RotationState:
    return steps(memory(**{STATE: text})).held().state


def encoded(text: str) -> str:
    return "v1." + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v2.e30",
        "e30",
        "v1.",
        "v1.%%%",
        "v1.e30\n",
        encoded("[]"),
        encoded("not json"),
        encoded('{"claimed": NaN}'),
        encoded('{"claimed": "1"}'),
        encoded('{"claimed": -1}'),
        encoded('{"claimed": 1e999}'),
        encoded('{"calls": true}'),
        encoded('{"calls": 1.5}'),
        encoded('{"goal": "other"}'),
        encoded('{"compromised": 1}'),
        encoded('{"by": "a\\nb"}'),
        encoded(json.dumps({"by": "x" * 129})),
        encoded("[" * 900),
        encoded(json.dumps({"later": "x" * LONGEST_STATE})),
        {"claimed": 1},
        5,
    ],
    ids=lambda text: repr(text)[:30],
)
def test_a_state_that_this_version_does_not_read_stops_everything(text: Any) -> None:
    """It may be a later version's, in the middle of a rotation."""
    with pytest.raises(MalformedSecret, match="no state of a rotation") as caught:
        state_of(text)
    assert "newer secretsource" in str(caught.value.hint)
    assert not shows(caught.value, "not-a-real-secret")


def test_no_state_is_the_state_of_a_secret_that_was_never_rotated() -> None:
    assert steps(memory()).held().state == RotationState()


def test_what_a_later_version_says_beside_is_passed_over() -> None:
    assert state_of(encoded('{"by": "x", "later": [1]}')) == RotationState(by="x")


NAMES = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=36)
MOMENTS = st.none() | st.floats(min_value=0, max_value=4e9)


@given(
    state=st.builds(
        RotationState,
        rotation=NAMES,
        by=NAMES,
        goal=st.sampled_from(["rotate", "abort"]),
        compromised=st.booleans(),
        intended=st.booleans(),
        open_for=st.floats(min_value=0, max_value=1e6),
        calls=st.integers(min_value=0, max_value=999),
        **dict.fromkeys(("claimed", "noted", "promoted", "finished", "tokens_not_before", "expires"), MOMENTS),
        **dict.fromkeys(("pending_id", "current_id", "previous_id"), st.none() | NAMES),
    )
)
def test_a_state_is_read_back_as_it_was_written_and_is_short(state: RotationState) -> None:
    text = state.text()
    assert len(text) <= LONGEST_STATE
    assert RotationState.read(text) == state


@pytest.mark.parametrize("by", ["x" * 129, "a\nb", "é" * 128 + "x"])
def test_a_state_that_could_not_be_read_again_is_not_written(by: str) -> None:
    store = memory()
    with pytest.raises(ConfigurationError, match="cannot be kept") as caught:
        steps(store, by=by).claim()
    assert not shows(caught.value, "not-a-real-secret")
    assert store.writes == 0


def test_a_state_that_is_too_long_in_all_is_not_written() -> None:
    store = memory()
    long = "é" * 128
    with pytest.raises(ConfigurationError, match="cannot be kept"):
        steps(store).claim(pending_id=long, current_id=long, previous_id=long)
    assert store.writes == 0
