"""Changing a secret by staging labels: each step alone, repeated after a crash at each of its calls, and in a race."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

import pytest

from secretsource import SecretReference
from secretsource.backends import Held, Rotatable
from secretsource.backends.aws import AwsBackend, calls, change
from secretsource.backends.aws.staging import LabelsLayout
from secretsource.backends.layout import rotatable
from secretsource.credentials import interpret
from secretsource.errors import (
    AccessDenied,
    BackendUnavailable,
    ConfigurationError,
    MalformedSecret,
    SecretNotFound,
    SecretSourceError,
)
from secretsource.secret import Secret
from secretsource.state import RotationState
from secretsource.testing import Answer

from .layouts import shows
from .secrets_manager import Asked, Scripted, refused
from .staging import READS, Staged

pytestmark = pytest.mark.usefixtures("nothing_secret_is_logged")

REFERENCE = SecretReference.parse("aws://prod/pos")
OLD, NEW, OTHER = (f"not-a-real-secret-{name}" for name in ("old", "new", "other"))
EMPTY = "e" * 32
THEIRS = "d" * 32
DOCUMENT = {"client_id": "pos", "client_secret": OLD, "zone": {"b": 1, "a": [True, None]}, "issuer": "https://pos.test"}

CLAIMED = RotationState(rotation="r1", by="host:1:aa", claimed=100.0)
NOTED = replace(CLAIMED, noted=200.25, open_for=60.0, calls=1)
ABORTING = replace(CLAIMED, goal="abort", noted=300.0, open_for=60.0, calls=1, by="host:2:bb")
PROMOTED = RotationState(rotation="r1", by="host:1:aa", noted=200.25, open_for=60.0, promoted=400.0)
OVER = RotationState(rotation="r1", by="host:1:aa", noted=200.25, open_for=60.0, finished=400.0)
INTENDED = RotationState(rotation="r2", by="host:1:aa", intended=True, noted=10.0, open_for=5.0, calls=1)


ROTATORS: dict[Any, AwsBackend | None] = {}
READY: dict[int, Staged] = {}


def held_by(backend: Rotatable, reference: SecretReference = REFERENCE, client_id: str | None = None) -> Held:
    return backend.read_held(reference, client_id=client_id, timeout=20)


class Store:
    """One secret, and a rotator at it. Rotators are kept, since making one takes botocore a while."""

    def __init__(self, aws: Scripted, value: Any = None, number: int = 0, **options: Any) -> None:
        if value is not None:
            aws.script = value if isinstance(value, Staged) else Staged(value)
        assert isinstance(aws.script, Staged)
        self.aws, self.staged, self._number = aws, aws.script, number
        key = (aws.origin, number, *options.items())
        self.backend = ROTATORS.setdefault(key, None) or aws.backend(**options)
        ROTATORS[key] = self.backend
        layout = self.backend._layout
        assert isinstance(layout, LabelsLayout)
        layout._bases.clear()  # it holds what versions have inside, and here another secret has the same ones

    def another(self, **options: Any) -> Store:
        return Store(self.aws, number=self._number + 1, **options)

    def again(self, **options: Any) -> Store:
        return Store(self.aws, number=self._number, **options)

    @property
    def held(self) -> Held:
        return held_by(self.backend)

    def claim(self, pending: str = NEW, state: RotationState = CLAIMED, held: Held | None = None) -> None:
        held = held or self.held
        self.backend.claim(REFERENCE, held, Secret(pending), state, beside={}, timeout=20)

    def note(self, state: RotationState = NOTED, held: Held | None = None) -> None:
        self.backend.note(REFERENCE, held or self.held, state, timeout=20)

    def promote(self, state: RotationState = PROMOTED, held: Held | None = None, *, keep: bool = True) -> None:
        self.backend.promote(REFERENCE, held or self.held, state, keep_previous=keep, timeout=20)

    def abandon(self, state: RotationState = OVER, held: Held | None = None) -> None:
        self.backend.abandon(REFERENCE, held or self.held, state, timeout=20)

    def drop(self, state: RotationState = OVER, held: Held | None = None) -> str | None:
        return self.backend.drop_previous(REFERENCE, held or self.held, state, timeout=20)


@pytest.fixture(scope="module")
def aws() -> Iterator[Scripted]:
    with Scripted(Staged(DOCUMENT)) as server:
        yield server
    ROTATORS.clear()
    READY.clear()


@pytest.fixture
def store(aws: Scripted) -> Store:
    return Store(aws, DOCUMENT)


@pytest.fixture(autouse=True)
def reads_are_not_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """So what is not seen at once is not there."""
    monkeypatch.setattr(change, "_LOOK_FOR", 0.3)


# --- the steps


def test_pending_is_a_version_of_its_own_with_the_state_inside(store: Store) -> None:
    assert isinstance(store.backend, Rotatable)
    assert rotatable(store.backend, REFERENCE) is store.backend
    store.claim()
    pending = store.staged.labels["AWSPENDING"]
    value = json.loads(store.staged.values[pending] or "")
    assert value == {**DOCUMENT, "client_secret": NEW, "client_secret_rotation": CLAIMED.text()}
    assert [name for name in value if name in DOCUMENT] == list(DOCUMENT)
    held = store.held
    assert (held.current, held.pending, held.previous) == (Secret(OLD), Secret(NEW), None)
    assert (held.client_id, held.state, held.binding.issuer) == ("pos", CLAIMED, "https://pos.test")
    assert store.staged.labels["AWSCURRENT"] == store.staged.first


def test_a_whole_rotation_puts_one_value_and_keeps_its_state_in_labels(store: Store) -> None:
    store.claim()
    store.note()
    assert store.held.state == NOTED
    again = replace(NOTED, noted=260.5, calls=2, by="another:2:bb")
    store.note(again)
    assert store.held.state == again
    store.promote()
    held = store.held
    assert (held.current, held.pending, held.previous, held.state) == (Secret(NEW), None, Secret(OLD), PROMOTED)
    assert store.drop() is None
    held = store.held
    assert (held.current, held.pending, held.previous, held.state) == (Secret(NEW), None, None, OVER)
    assert store.staged.operations.count("PutSecretValue") == 1
    assert store.staged.labels_on(store.staged.first) == set(), "AWS may delete it"
    assert len(store.staged.labels) == 2, "AWSCURRENT, and what says that it is over"


def test_at_once_another_rotation_can_begin(store: Store) -> None:
    for number in range(3):
        state = replace(CLAIMED, rotation=f"r{number}")
        store.claim(f"{NEW}-{number}", state)
        assert store.held.state == state, "nothing of the one before is left in it"
        store.note(replace(state, noted=1.0, calls=1))
        store.promote(replace(PROMOTED, rotation=f"r{number}"))
        store.drop(replace(OVER, rotation=f"r{number}"))
    assert store.staged.secret("AWSCURRENT") == f"{NEW}-2"
    assert len(store.staged.labels) == 2


def test_what_is_given_up_leaves_nothing_behind(store: Store) -> None:
    store.claim()
    store.note()
    store.note(ABORTING)
    assert store.held.state == ABORTING
    store.abandon()
    held = store.held
    assert (held.current, held.pending, held.state) == (Secret(OLD), None, OVER)
    assert {label.split("-")[1] for label in store.staged.labels if label.startswith("secretsource-")} == {"state"}
    store.claim(OTHER)
    assert (store.held.pending, store.held.state) == (Secret(OTHER), CLAIMED)


def test_a_leaked_secret_is_not_kept_as_previous(store: Store) -> None:
    state = replace(CLAIMED, compromised=True, tokens_not_before=130.0)
    store.claim(state=state)
    promoted = replace(PROMOTED, compromised=True, tokens_not_before=450.0)
    store.promote(promoted, keep=False)
    held = store.held
    assert (held.current, held.previous, held.state) == (Secret(NEW), None, promoted)
    assert store.staged.labels_on(store.staged.first) == set()
    store.staged.put(
        store.staged.values[store.staged.first], "AWSPREVIOUS", store.staged.first
    )  # as a crash would leave it
    said = store.drop(replace(OVER, compromised=True))
    assert said is not None
    assert store.staged.first in said
    assert "AWSPREVIOUS" not in store.staged.labels


def test_fields_beside_the_secret_are_kept_and_added_where_it_stands(aws: Scripted) -> None:
    reference = SecretReference.parse("aws://prod/pos#id=/oauth/id,secret=/oauth/key")
    store = Store(aws, {"oauth": {"id": "pos", "key": OLD, "url": "u"}, "client_secret": "not it"})
    held = held_by(store.backend, reference)
    assert dict(held.beside) == {"id": Secret("pos"), "url": Secret("u")}
    store.backend.claim(reference, held, Secret(NEW), CLAIMED, beside={"a/b~c": Secret("beside")}, timeout=20)
    assert held_by(store.backend, reference).pending == Secret(NEW)
    inside = json.loads(store.staged.values[store.staged.labels["AWSPENDING"]] or "")
    assert inside["oauth"] == {
        "id": "pos",
        "key": NEW,
        "url": "u",
        "a/b~c": "beside",
        "key_rotation": CLAIMED.text(),
    }
    assert inside["client_secret"] == "not it"


def test_a_plain_text_keeps_its_state_in_labels_alone(aws: Scripted) -> None:
    store = Store(aws, OLD)
    backend, staged = store.backend, store.staged
    assert any("one text" in said for said in backend.preflight(REFERENCE, timeout=20))
    held = held_by(backend, client_id="pos")
    beside = {"registration_access_token": Secret("i")}
    said = refused_by(lambda: backend.claim(REFERENCE, held, Secret(NEW), CLAIMED, beside=beside, timeout=20))
    assert "JSON object" in said
    backend.claim(REFERENCE, held, Secret(NEW), CLAIMED, beside={"issuer": Secret("i")}, timeout=20)
    assert (staged.secret("AWSPENDING"), staged.secret("AWSCURRENT")) == (NEW, OLD)
    held = held_by(backend, client_id="pos")
    assert (held.state, held.pending) == (CLAIMED, Secret(NEW))
    backend.note(REFERENCE, held, NOTED, timeout=20)
    held = held_by(backend, client_id="pos")
    assert held.state == NOTED
    backend.promote(REFERENCE, held, PROMOTED, keep_previous=True, timeout=20)
    held = held_by(backend, client_id="pos")
    assert (held.current, held.previous, held.state) == (Secret(NEW), Secret(OLD), PROMOTED)


def shows_secrets(error: SecretSourceError) -> bool:
    return any(shows(error, secret) for secret in (OLD, NEW, OTHER))


def refused_by(call: Callable[[], object], kind: type[SecretSourceError] = ConfigurationError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert caught.value.hint
    assert not shows_secrets(caught.value)
    return str(caught.value)


def test_a_generated_secret_is_asked_for_by_one_rotator_only(store: Store) -> None:
    held = store.held
    store.note(INTENDED, held)
    assert store.held.state == INTENDED
    other = store.another()
    refused_by(lambda: other.note(replace(INTENDED, rotation="r3"), held), BackendUnavailable)
    again = replace(INTENDED, noted=50.0, calls=2)
    store.note(again)
    assert (store.held.state, store.held.pending) == (again, None)
    store.claim(state=replace(again, intended=False, claimed=60.0, pending_id="key-1"))
    held = store.held
    assert (held.pending, held.state.pending_id, held.state.intended) == (Secret(NEW), "key-1", False)
    store.abandon()
    assert (store.held.state, store.held.pending) == (OVER, None), "what was asked for is not asked for again"


def test_what_was_asked_for_in_vain_is_given_up(store: Store) -> None:
    store.note(INTENDED)
    store.abandon(OVER)
    assert (store.held.state, store.held.pending) == (OVER, None)
    assert set(store.staged.labels.values()) == {store.staged.first}


# --- what others have left


def test_awspending_that_stays_on_the_current_version_is_none(store: Store) -> None:
    store.staged.labels["AWSPENDING"] = store.staged.first
    assert store.held.pending is None
    assert len(store.backend.preflight(REFERENCE, timeout=20)) == 1
    store.claim()
    assert store.held.pending == Secret(NEW)


def test_awspending_on_a_version_without_a_value_is_none_and_is_moved(store: Store) -> None:
    store.staged.put(None, "AWSPENDING", EMPTY)
    assert store.held.pending is None
    assert any(EMPTY in said for said in store.backend.preflight(REFERENCE, timeout=20))
    store.claim()
    assert store.held.pending == Secret(NEW)
    assert store.staged.labels_on(EMPTY) == set()


def test_a_pending_version_of_ours_that_a_read_does_not_give_yet_is_not_taken_for_none(store: Store) -> None:
    store.claim()
    pending = store.staged.labels["AWSPENDING"]
    store.staged.before = lambda number, asked: (
        refused("ResourceNotFoundException") if asked.body.get("VersionId") == pending else None
    )
    refused_by(lambda: store.held, BackendUnavailable)


def test_a_pending_secret_of_somebody_else_is_adopted(store: Store) -> None:
    store.staged.put({**DOCUMENT, "client_secret": OTHER}, "AWSPENDING", THEIRS)
    held = store.held
    assert (held.pending, held.state) == (Secret(OTHER), RotationState())
    store.note(CLAIMED, held)
    assert store.held.state == CLAIMED
    store.promote()
    assert (store.held.current, store.held.state) == (Secret(OTHER), PROMOTED)


def test_one_for_another_client_or_without_a_secret_is_refused(store: Store) -> None:
    store.staged.put({**DOCUMENT, "client_id": "other"}, "AWSPENDING", THEIRS)
    assert "another client" in refused_by(lambda: store.held)
    store.staged.put({"client_id": "pos"}, "AWSPENDING", THEIRS)
    refused_by(lambda: store.held, MalformedSecret)


def test_a_previous_version_that_cannot_be_used_is_none(store: Store) -> None:
    store.staged.put("{", "AWSPREVIOUS", THEIRS)
    assert store.held.previous is None
    store.staged.put(store.staged.values[store.staged.first], "AWSPREVIOUS", THEIRS)
    assert store.held.previous is None, "the same secret twice"


def test_labels_of_ours_that_nobody_can_read_are_an_error_or_nothing(store: Store) -> None:
    store.staged.labels["secretsource-state-1-00000000-1.1-calls=1"] = store.staged.first  # its digest is another
    store.staged.labels["secretsource-turn-x"] = store.staged.first
    assert store.held.state == RotationState()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"RotationEnabled": True}, "aws_lambda"),
        ({"OwningService": "rds"}, "another service"),
        ({"PrimaryRegion": "eu-central-1"}, "?region=eu-central-1"),
        ({"DeletedDate": 1.7e9}, "restore-secret"),
    ],
)
def test_what_is_somebody_elses_to_change_is_refused(store: Store, more: dict[str, Any], says: str) -> None:
    store.staged.more = more
    assert says in refused_by(lambda: store.backend.preflight(REFERENCE, timeout=20))


def test_replicas_are_mentioned(store: Store) -> None:
    regions = [{"Region": "eu-west-2", "Status": "InSync"}, {"Region": "us-east-1", "Status": "Failed"}]
    store.staged.more = {"ReplicationStatus": regions}
    said = store.backend.preflight(REFERENCE, timeout=20)
    assert "eu-west-2, us-east-1" in said[0]
    assert "us-east-1 is not in sync" in said[1]


def test_pinned_missing_and_refused_ones_are_said(store: Store) -> None:
    pinned = SecretReference.parse("aws://prod/pos?stage=AWSCURRENT")
    refused_by(lambda: rotatable(store.backend, pinned))
    refused_by(lambda: store.backend.preflight(pinned, timeout=20))
    store.staged.before = lambda number, asked: (
        refused("AccessDeniedException") if asked.operation == "ListSecretVersionIds" else None
    )
    said = refused_by(lambda: store.backend.preflight(REFERENCE, timeout=20), AccessDenied)
    assert "ListSecretVersionIds" in said
    store.staged.before = lambda number, asked: None
    del store.staged.labels["AWSCURRENT"]
    assert "secretsource put" in refused_by(lambda: store.held, SecretNotFound)


def test_a_step_without_time_is_not_known_to_be_made(store: Store) -> None:
    held = store.held
    said = refused_by(lambda: store.backend.note(REFERENCE, held, CLAIMED, timeout=1e-9), BackendUnavailable)
    assert "not written in time" in said


def test_a_preflight_writes_nothing_and_says_that_it_does_not_know_the_rights_to(store: Store) -> None:
    said = store.backend.preflight(REFERENCE, timeout=20)
    assert "PutSecretValue and secretsmanager:UpdateSecretVersionStage are granted was not looked at" in said[-1]
    assert set(store.staged.operations) <= set(READS)


# --- programs, meanwhile


def test_programs_see_pending_and_previous_and_what_the_labels_say(store: Store) -> None:
    program = store.aws.backend()

    def seen(backend: AwsBackend, *, fresh: bool) -> list[str | None]:
        document = backend.read(REFERENCE, fresh=fresh, timeout=20)
        meaning = interpret(document, REFERENCE).credentials
        each = (meaning, meaning.pending, meaning.previous)
        return [None if one is None else one.client_secret.reveal() for one in each]

    watching = store.aws.backend(watch_labels=True)
    store.claim()
    assert seen(program, fresh=True) == seen(watching, fresh=False) == [OLD, NEW, None]
    store.note()
    assert seen(program, fresh=True) == [OLD, NEW, None]
    promoted = replace(PROMOTED, tokens_not_before=450.0)
    store.promote(promoted)
    assert seen(program, fresh=True) == seen(watching, fresh=False) == [NEW, None, OLD]
    for backend in (program, watching):
        document = backend.read(REFERENCE, fresh=False, timeout=20)
        said = RotationState.read(document.fields["client_secret_rotation"].reveal())
        assert said is not None
        assert said.tokens_not_before == 450.0
    store.drop()
    assert seen(program, fresh=True) == seen(watching, fresh=False) == [NEW, None, None]


# --- crashes


Step = Callable[[Store], object]
NOTHING: list[Step] = []
CLAIMED_BEFORE: list[Step] = [lambda store: store.claim()]
INTENDED_BEFORE: list[Step] = [lambda store: store.note(replace(INTENDED, rotation="r0"))]
STEPS: dict[str, tuple[list[Step], Step, Callable[[Held], bool]]] = {
    "claim": (NOTHING, lambda store: store.claim(), lambda held: held.pending == Secret(NEW)),
    "note": (
        [lambda store: store.claim()],
        lambda store: store.note(),
        lambda held: held.state == NOTED,
    ),
    "promote": (
        [lambda store: store.claim(), lambda store: store.note()],
        lambda store: store.promote(),
        lambda held: held.current == Secret(NEW) and held.state == PROMOTED,
    ),
    "abandon": (
        [lambda store: store.claim(), lambda store: store.note(ABORTING)],
        lambda store: store.abandon(),
        lambda held: held.pending is None and held.state == OVER,
    ),
    "drop": (
        [lambda store: store.claim(), lambda store: store.promote()],
        lambda store: store.drop(),
        lambda held: held.previous is None and held.state == OVER,
    ),
    "intend": (NOTHING, lambda store: store.note(INTENDED), lambda held: held.state == INTENDED),
    "claim of a generated one": (
        [lambda store: store.note(INTENDED)],
        lambda store: store.claim(state=replace(INTENDED, intended=False)),
        lambda held: held.pending == Secret(NEW) and not held.state.intended,
    ),
}


class Crash:
    """From call `number` on nothing is answered; that one is still done, or not."""

    def __init__(self, staged: Staged, number: int, *, done: bool) -> None:
        self.number, self.done, self.first = number, done, len(staged.calls)
        self.reached = False

    def before(self, number: int, asked: Asked) -> Answer | None:
        reached = number - self.first
        self.reached = self.reached or reached >= self.number
        if reached > self.number or (reached == self.number and not self.done):
            return refused("AccessDeniedException")
        return None

    def after(self, number: int, asked: Asked) -> Answer | None:
        return refused("AccessDeniedException") if number - self.first == self.number else None


@pytest.mark.parametrize("done", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_dies_at_any_of_its_calls_is_made_by_the_next_rotator(aws: Scripted, name: str, done: bool) -> None:
    before, step, made = STEPS[name]
    for number in itertools.count(1):
        store = prepared(aws, before)
        staged, known = store.staged, secrets_in(store.held)
        crash = Crash(staged, number, done=done)
        staged.before, staged.after = crash.before, crash.after
        failure = failure_of(step, store)
        assert failure is None or not shows_secrets(failure)
        if not crash.reached:
            break
        staged.before = staged.after = undisturbed
        following = store.another()
        held = following.held
        lost = known - secrets_in(held)
        assert lost <= ({NEW} if name == "abandon" else {OLD} if name == "drop" else set()), number
        if not made(held):
            step(following)
        assert made(following.held), f"call {number}: {staged.labels}"
        assert len(staged.labels_on(staged.labels["AWSCURRENT"])) < 8
    assert number > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_an_answer_that_is_lost_is_asked_for_again(aws: Scripted, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "WAITS_BETWEEN_ATTEMPTS", (0.001,))
    before, step, made = STEPS[name]
    for number in itertools.count(1):
        store = prepared(aws, before).again(attempts=2)
        first = len(store.staged.calls)

        def lost(at: int, asked: Asked, first: int = first, number: int = number) -> Answer | None:
            return refused("InternalServiceError", status=500) if at - first == number else None

        store.staged.after = lost
        failure = failure_of(step, store)
        assert failure is None or isinstance(failure, BackendUnavailable)
        if not made(store.held):  # as the engine does it
            step(store)
        assert made(store.held), f"call {number}"
        if len(store.staged.calls) - first < number:
            break


def undisturbed(number: int, asked: Asked) -> None:
    """Answer as AWS does."""


def prepared(aws: Scripted, before: list[Step]) -> Store:
    """Those steps are made once; each store begins as they have left it."""
    ready = READY.get(id(before))
    if ready is None:
        store = Store(aws, DOCUMENT)
        for step in before:
            step(store)
        ready = READY[id(before)] = store.staged
    return Store(aws, ready.copy())


def secrets_in(held: Held) -> set[str]:
    return {secret.reveal() for secret in (held.current, held.pending, held.previous) if secret is not None}


def failure_of(step: Step, store: Store) -> SecretSourceError | None:
    try:
        step(store)
    except SecretSourceError as error:
        return error
    return None


# --- races


def outcome_of(step: Step, store: Store) -> Literal["made", "overtaken"]:
    failure = failure_of(step, store)
    if failure is None:
        return "made"
    assert isinstance(failure, BackendUnavailable)
    assert not shows_secrets(failure)
    return "overtaken"


class Race:
    """Two steps decided on one state: the second is made whole right before one of the calls of the first."""

    def __init__(self, store: Store, number: int, other: Callable[[Store, Held], object]) -> None:
        self.held, self.other, self.said = store.held, other, ""
        self._second, self._staged = store.another(), store.staged
        self._at = len(store.staged.calls) + number
        store.staged.before = self._before

    def outcome(self, step: Callable[[Store, Held], object], store: Store) -> str:
        return outcome_of(lambda store: step(store, self.held), store)

    def _before(self, number: int, asked: Asked) -> None:
        if number == self._at:
            self._staged.before = undisturbed
            self.said = outcome_of(lambda store: self.other(store, self.held), self._second)


def run_with(
    aws: Scripted,
    before: list[Step],
    one: Callable[[Store, Held], object],
    other: Callable[[Store, Held], object],
    *,
    lenient: bool = False,
) -> Iterator[tuple[int, str, str, Held, Staged]]:
    """For each call of the first step: its number, both outcomes, and what is held in the end."""
    for number in itertools.count(1):
        store = prepared(aws, before)
        store.staged.lenient = lenient
        race = Race(store, number, other)
        result = race.outcome(one, store)
        if not race.said:
            return
        yield number, result, race.said, store.held, store.staged


def noting(store: Store, held: Held) -> None:
    store.note(NOTED, held)


def abandoning(store: Store, held: Held) -> None:
    store.abandon(OVER, held)


def promoting(store: Store, held: Held) -> None:
    store.promote(PROMOTED, held)


@pytest.mark.parametrize("lenient", [False, True])
def test_of_two_claims_at_most_one_is_made_and_neither_overwrites_the_other(aws: Scripted, lenient: bool) -> None:
    def claim(pending: str) -> Callable[[Store, Held], object]:
        return lambda store, held: store.claim(pending, replace(CLAIMED, rotation=pending[-3:]), held)

    for number, one, other, held, _ in run_with(aws, NOTHING, claim(NEW), claim(OTHER), lenient=lenient):
        assert (one, other) != ("made", "made"), number
        made = NEW if one == "made" else OTHER if other == "made" else None
        assert held.pending == (None if made is None else Secret(made)), number


def test_of_two_who_ask_for_a_generated_secret_at_most_one_does(aws: Scripted) -> None:
    def intend(rotation: str) -> Callable[[Store, Held], object]:
        return lambda store, held: store.note(replace(INTENDED, rotation=rotation), held)

    for before in (NOTHING, INTENDED_BEFORE):
        for number, one, other, held, _ in run_with(aws, before, intend("r1"), intend("r2")):
            assert (one, other) != ("made", "made"), number
            made = "r1" if one == "made" else "r2" if other == "made" else "r0" if before else ""
            assert held.state.rotation == made, number


@pytest.mark.parametrize("lenient", [False, True])
def test_a_secret_is_never_given_up_while_a_call_with_it_is_announced(aws: Scripted, lenient: bool) -> None:
    for one_step, other_step, noted in ((noting, abandoning, 0), (abandoning, noting, 1)):
        for number, one, other, held, staged in run_with(aws, CLAIMED_BEFORE, one_step, other_step, lenient=lenient):
            said = (one, other)
            assert said != ("made", "made"), number
            if said[noted] == "made":
                assert held.pending == Secret(NEW), number
                assert held.state == NOTED
            if said[1 - noted] == "made":
                assert held.pending is None, (number, staged.labels)
                assert held.state == OVER


def test_of_two_notes_at_most_one_is_made_and_none_is_lost(aws: Scripted) -> None:
    for number, one, other, held, _ in run_with(
        aws, CLAIMED_BEFORE, noting, lambda store, held: store.note(ABORTING, held)
    ):
        assert (one, other) != ("made", "made"), number
        if "made" in (one, other):
            assert held.state == (NOTED if one == "made" else ABORTING), number


def test_a_secret_is_not_both_given_up_and_promoted(aws: Scripted) -> None:
    for one_step, other_step, promoted in ((promoting, abandoning, 0), (abandoning, promoting, 1)):
        for number, one, other, held, staged in run_with(aws, CLAIMED_BEFORE, one_step, other_step):
            said = (one, other)
            assert said != ("made", "made"), number
            if said[promoted] == "made":
                assert (held.current, held.state) == (Secret(NEW), PROMOTED), (number, staged.labels)
            if said[1 - promoted] == "made":
                assert (held.current, held.pending, held.state) == (Secret(OLD), None, OVER), (number, staged.labels)


def test_a_promotion_beside_a_note_loses_neither_secret(aws: Scripted) -> None:
    for number, one, _, held, _ in run_with(
        aws,
        CLAIMED_BEFORE,
        promoting,
        lambda store, held: store.note(ABORTING, held),
    ):
        assert secrets_in(held) == {OLD, NEW}, number
        if one == "made":
            assert held.current == Secret(NEW)


@pytest.mark.parametrize("seed", range(3))
def test_rotators_at_once_agree_on_one_pending_secret(store: Store, seed: int) -> None:
    others = [store.another() for _ in range(4)]
    held = store.held
    start = threading.Barrier(len(others))
    said: list[str] = []

    def claim(rotator: Store, number: int) -> None:
        start.wait(20)
        said.append(outcome_of(lambda each: each.claim(f"{NEW}-{number}", held=held), rotator))

    threads = [threading.Thread(target=claim, args=each) for each in zip(others, itertools.count(), strict=False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert said.count("made") <= 1
    if not said.count("made"):  # each saw another one and went back: the engine tries again, after a random pause
        store.claim()
    assert store.held.pending is not None
    assert len([label for label in store.staged.labels if label.startswith("secretsource-")]) <= 1


def test_what_was_read_before_somebody_elses_step_is_not_written_against(store: Store) -> None:
    store.claim()
    held = store.held
    store.note()
    for step in (
        lambda: store.note(ABORTING, held),
        lambda: store.promote(PROMOTED, held),
        lambda: store.abandon(OVER, held),
        lambda: store.drop(OVER, held),
        lambda: store.claim(OTHER, CLAIMED, held),
    ):
        refused_by(step, BackendUnavailable)
    assert store.held.state == NOTED
