"""A secret that is changed by staging labels: pending under AWSPENDING, previous under AWSPREVIOUS.

AWS checks little: what it refuses is a label that is not where the caller says. So each change looks first whether
all is as it was read, makes its mark by a label of its own, looks again, and takes the mark back where somebody else
made one meanwhile. What cannot be undone, to give a pending secret up, is decided by a label that only one place can
have (`secretsource-turn-…`). Each step can be repeated, and whoever comes after a crash finds the state as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from ...clock import Deadline
from ...credentials import Document
from ...errors import (
    BackendUnavailable,
    ConfigurationError,
    DeadlineExceeded,
    MalformedSecret,
    SecretNotFound,
    SecretSourceError,
)
from ...reference import SecretReference, field_of, way_of
from ...secret import Secret
from ...state import RotationState
from .. import Held, Stored
from ..formats import Origin
from ..layout import DocumentLayout
from .calls import (
    Calls,
    Described,
    Value,
    describing,
    format_in,
    getting,
    listing,
    text_of,
    tree_of,
)
from .change import ANEW, Change, made_by_rotators
from .faults import Fault
from .labels import (
    CLAIM,
    given_up,
    intended,
    is_of_state,
    mark,
    ours,
    state_in,
    state_labels,
)
from .place import CURRENT, PENDING, PREVIOUS, Place

__all__ = ["LabelsLayout", "cautions", "says_flat", "with_state"]

_BASES_AT_MOST = 256
_NOT_LOOKED_AT = (
    "whether secretsmanager:PutSecretValue and secretsmanager:UpdateSecretVersionStage are granted was not looked at: "
    "AWS says so only to who writes"
)


class LabelsLayout(DocumentLayout):
    """The steps of a rotation, each a few calls. `place_of` gives the one that is written."""

    reaches = (
        "Programs that read by secretsource see current, pending and previous; those that are given a copy (External "
        "Secrets, the CSI driver, ECS) see AWSCURRENT alone, and need layout='document'"
    )

    def __init__(self, calls: Calls, place_of: Callable[[SecretReference], Place]) -> None:
        self._calls, self._place_of = calls, place_of
        self._bases: dict[tuple[str, str, str], RotationState] = {}

    # --- reading

    def preflight(self, reference: SecretReference, *, timeout: float) -> Sequence[str]:
        place, deadline = self._place_of(reference), Deadline(timeout)
        found = self._described(place, reference, deadline)
        said = cautions(found, place, reference)
        if found.current is None:
            self._nothing(reference)
        self._calls.served(listing(place), place, reference, deadline)
        value = self._value(found.current, place, reference, deadline)
        if format_in(text_of(value, place, reference), place) == "text":
            said.append(
                "its value is one text, which says neither whom it is for, nor that older tokens are to be dropped "
                "(--compromised); a JSON object with client_id and client_secret can"
            )
        pending = found.pending
        if pending is not None and self._pending(found, place, reference, deadline) is None:
            said.append(
                f"AWSPENDING is on version {pending}, which has no value, as a rotation by Lambda leaves it when it "
                f"fails; it is taken off when a pending secret is put there"
            )
        return [*said, _NOT_LOOKED_AT]

    def read_held(self, reference: SecretReference, *, client_id: str | None, timeout: float) -> Held:
        """What is under the three labels. Raises SecretNotFound; ConfigurationError where a document's is under way."""
        place, deadline = self._place_of(reference), Deadline(timeout)
        found = self._described(place, reference, deadline)
        if found.current is None:
            self._nothing(reference)
        value = self._value(found.current, place, reference, deadline)
        held = self._meaning(value, place, reference, client_id)
        if held.pending is not None:
            raise ConfigurationError(
                f"{reference} holds a pending secret inside its document, so its rotation is one of layout='document'",
                hint="Finish or abort it with that layout first",
            )
        pending = self._pending(found, place, reference, deadline)
        taken = None if pending is None else self._meaning(pending, place, reference, client_id)
        if taken is not None and taken.client_id != held.client_id:
            raise ConfigurationError(
                f"AWSPENDING at {reference} is for another client than AWSCURRENT",
                hint="Was it put there by mistake? Then take the label off: aws secretsmanager "
                "update-secret-version-stage --version-stage AWSPENDING --remove-from-version-id …",
            )
        bearer, base = self._bearer(found, pending), (taken or held).state
        if bearer not in (found.current, None) and pending is None:
            base = self._base(found, bearer, place, reference, deadline)
        state = self._read(base, found.on(bearer), reference)
        previous = self._previous(found, place, reference, client_id, deadline)
        return held._replace(
            pending=None if taken is None else taken.current,
            previous=None if previous == held.current else previous,
            state=state,
            version=mark(found),
            created=None if value.created is None else value.created.timestamp(),
        )

    def _described(self, place: Place, reference: SecretReference, deadline: Deadline) -> Described:
        return self._calls.served(describing(place), place, reference, deadline)

    def _value(self, version: str | None, place: Place, reference: SecretReference, deadline: Deadline) -> Value:
        there = place._replace(version=version)
        return self._calls.served(getting(there), there, reference, deadline)

    def _pending(self, found: Described, place: Place, reference: SecretReference, deadline: Deadline) -> Value | None:
        """The version under AWSPENDING; None where there is none, or none with a value."""
        if found.pending is None:
            return None
        there = place._replace(version=found.pending)
        value = self._calls.tried(getting(there), there, deadline)
        if not isinstance(value, Fault):
            return value
        if value.kind is SecretNotFound and value.status == "ResourceNotFoundException":
            # A read may be behind: one of ours has a value, and the list has all that do.
            listed = self._calls.served(listing(place), place, reference, deadline)
            if found.pending not in listed and found.pending not in made_by_rotators(found.current):
                return None
            raise Origin(reference).error(BackendUnavailable, "does not give its AWSPENDING yet", ANEW)
        raise value.error(reference)

    def _previous(
        self,
        found: Described,
        place: Place,
        reference: SecretReference,
        client_id: str | None,
        deadline: Deadline,
    ) -> Secret | None:
        if found.previous is None:
            return None
        there = place._replace(version=found.previous)
        value = self._calls.tried(getting(there), there, deadline)
        if isinstance(value, Fault):
            if value.kind is SecretNotFound:
                return None
            raise value.error(reference)
        try:
            return self._meaning(value, place, reference, client_id).current
        except (MalformedSecret, SecretNotFound, ConfigurationError):
            return None  # it cannot be used, and keeps nobody from going on

    def _meaning(self, value: Value, place: Place, reference: SecretReference, client_id: str | None) -> Held:
        """What one version holds, as if it were a document that is changed alone."""
        held = self._held(reference, Stored(tree_of(value, place, reference), value.version), client_id)
        bases = self._bases
        bases[value.arn, value.version, reference.secret_field] = held.state
        while len(bases) > _BASES_AT_MOST:
            bases.pop(next(iter(bases)), None)
        return held

    def _base(
        self, found: Described, version: str | None, place: Place, reference: SecretReference, deadline: Deadline
    ) -> RotationState:
        """The state inside a version, which never changes."""
        known = self._bases.get((found.arn, version or "", reference.secret_field))
        if known is None:
            value = self._value(version, place, reference, deadline)
            # Whose client it is was looked at before; here the state alone is wanted.
            known = _state_inside(tree_of(value, place, reference), reference)
            self._bases[found.arn, value.version, reference.secret_field] = known
        return known

    def _bearer(self, found: Described, pending: object) -> str | None:
        """The version on which the state is: the pending one, the one that says what was asked for, or the current."""
        if pending is not None:
            return found.pending
        return found.labels.get(intended(found.current or "")) or found.current

    def _read(self, base: RotationState, labels: Iterable[str], reference: SecretReference) -> RotationState:
        state = state_in(base, labels)
        if state is None:
            raise Origin(reference).error(
                MalformedSecret,
                "has labels that begin with secretsource- and are no state of a rotation",
                "Were they put there by a newer secretsource? Use that one; or take them off",
            )
        return state

    def _nothing(self, reference: SecretReference) -> NoReturn:
        raise SecretNotFound(
            f"there is nothing at {reference} yet, so there is no secret to change",
            reference=str(reference),
            store=reference.store,
            hint="Write the first one with secretsource put",
        )

    # --- the steps

    def claim(
        self,
        reference: SecretReference,
        held: Held,
        pending: Secret,
        state: RotationState,
        *,
        beside: Mapping[str, Secret],
        timeout: float,
    ) -> None:
        """A version of its own, made under a name that only one rotator can have, then AWSPENDING moved to it."""
        with self._change(reference, held, timeout) as change:
            if held.pending is not None:
                change.overtaken()
            made = change.make(state, {**_changes(reference, pending, beside)})
            empty = change.found.labels.get(PENDING)  # on the current version, or on one without a value
            if not change.move(PENDING, to=made, leaves=empty):
                change.withdraw({CLAIM: made})
            seen = change.look(lambda now: now.labels.get(PENDING) not in (None, empty))
            asked_for = intended(str(change.found.current))
            same = all(seen.labels.get(label) == change.found.labels.get(label) for label in (CURRENT, asked_for))
            if not same or not {PENDING, CLAIM} <= seen.on(made):
                change.withdraw({PENDING: made, CLAIM: made})
            change.tidy_others(seen, made)

    def note(
        self,
        reference: SecretReference,
        held: Held,
        state: RotationState,
        *,
        beside: Mapping[str, Secret] = {},
        timeout: float,
    ) -> None:
        if beside:
            raise ConfigurationError(
                f"{', '.join(beside)} cannot be kept at {reference} without a new version, which a note is not",
                hint="AwsBackend(layout='document') keeps all in one version",
            )
        with self._change(reference, held, timeout) as change:
            if held.pending is None and state.intended:
                return change.intend(state)
            if held.pending is None:
                return change.say_on_current(state)
            version = str(change.found.pending)
            base = change.base(version)
            labels = dict.fromkeys(state_labels(base, change.found.on(version), state), version)
            change.put_on(labels)
            if not change.take_turn(version, version):
                change.take_off(labels)
                change.move(PENDING, leaves=version)  # who gave it up may have died before this
                change.overtaken()
            seen = change.look(lambda now: labels.keys() <= now.labels.keys())
            if given_up(seen, version, seen.current):
                change.withdraw(labels)
            change.agree(seen, version, labels)
            change.tidy_states(version)
            change.tidy_turns(seen, version)
        return None

    def promote(
        self, reference: SecretReference, held: Held, state: RotationState, *, keep_previous: bool, timeout: float
    ) -> None:
        """Both version IDs are given to AWS, which refuses where AWSCURRENT is not where it was."""
        with self._change(reference, held, timeout) as change:
            found, version, before = change.found, str(change.found.pending), str(change.found.current)
            if held.pending is None:
                change.overtaken()
            base = change.base(version)
            written = state_labels(base, found.on(version), state, of_promotion=True)
            labels = dict.fromkeys(written, version)
            change.put_on(labels)
            seen = change.look(lambda now: labels.keys() <= now.labels.keys())
            change.agree(seen, version, labels)
            if not change.move(CURRENT, to=version, leaves=before):
                change.withdraw(labels)
            seen = change.look(lambda now: now.current == version)
            if seen.current == version and given_up(seen, version, before):
                # Suspended on the way, and meanwhile the secret was given up.
                change.move(CURRENT, to=before, leaves=version)
                change.withdraw(labels)
            if not keep_previous:
                change.move(PREVIOUS, leaves=before)
            change.move(PENDING, leaves=version)
            change.tidy_states(version)
            change.take_off({label: where for label, where in found.labels.items() if label in ours(found.on(before))})
            change.take_off(dict.fromkeys([CLAIM], version))
            change.tidy_turns(seen, version, all_of_them=True)

    def abandon(self, reference: SecretReference, held: Held, state: RotationState, *, timeout: float) -> None:
        with self._change(reference, held, timeout) as change:
            if held.pending is None:
                return change.say_on_current(state)
            found, version, current = change.found, str(change.found.pending), str(change.found.current)
            base = change.base(current)
            # Not looked at while another version is pending.
            labels = dict.fromkeys(state_labels(base, found.on(current), state), current)
            change.put_on(labels)
            if not change.take_turn(version, current):
                change.withdraw(labels)
            # Whoever was noting meanwhile takes that back. Where it stays, a call with this secret is announced.
            seen = change.look(lambda now: not change.foreign(now))
            if change.foreign(seen):
                change.withdraw({**labels, **change.end_of(seen, version)})
            asked_for = found.labels.get(intended(current))
            if asked_for is not None:
                change.move(intended(current), leaves=asked_for)
            change.move(PENDING, leaves=version)
            seen = change.look(lambda now: now.labels.get(PENDING) != version)
            if seen.labels.get(PENDING) == version or seen.current != current:
                change.overtaken()
            change.tidy_states(current)
            change.take_off({label: where for label, where in found.labels.items() if label in ours(found.on(version))})
            change.tidy_turns(seen, version, all_of_them=True)
        return None

    def drop_previous(
        self, reference: SecretReference, held: Held, state: RotationState, *, timeout: float
    ) -> str | None:
        """AWS deletes a version without labels in its own time; it cannot be told to."""
        with self._change(reference, held, timeout) as change:
            previous = change.found.previous
            if previous is not None:
                change.move(PREVIOUS, leaves=previous)
                if change.look(lambda now: now.labels.get(PREVIOUS) != previous).labels.get(PREVIOUS) == previous:
                    change.overtaken()
            change.say_on_current(state)
            if previous is None or not held.state.compromised:
                return None
            return (
                f"AWS keeps version {previous} without a label for a while: who may call GetSecretValue can still read "
                f"the secret that has leaked"
            )

    # --- for a rotation function, which Secrets Manager calls and which keeps no state

    def described(self, reference: SecretReference, *, timeout: float) -> Described:
        return self._described(self._place_of(reference), reference, Deadline(timeout))

    def put_pending(
        self,
        reference: SecretReference,
        token: str,
        pending: Secret,
        *,
        beside: Mapping[str, Secret],
        id: str | None,
        previous_id: str | None,
        rotation_token: Secret | None,
        timeout: float,
    ) -> None:
        """The version of this token, under AWSPENDING; one that is there already stays as it is.

        `id`, `previous_id`: what the issuer calls this secret, and the one that is current until then.
        """
        place, deadline = self._place_of(reference), Deadline(timeout)
        change = self._begun(reference, deadline)
        value = self._value(change.found.current, place, reference, deadline)
        before = _state_inside(tree_of(value, place, reference), reference)
        state = RotationState(
            finished=round(time.time(), 3),
            tokens_not_before=before.tokens_not_before,
            current_id=id,
            previous_id=previous_id,
        )
        text, _ = change.text(value, state, _changes(reference, pending, beside))
        outcome = self._calls.tried(change.putting(token, text, [PENDING], rotation_token), place, deadline)
        if isinstance(outcome, Fault) and outcome.status != "ResourceExistsException":
            raise outcome.error(reference)
        change.look(lambda now: now.labels.get(PENDING) == token)

    def make_current(self, reference: SecretReference, token: str, *, timeout: float) -> None:
        """AWSCURRENT to the version of this token, from where it is. Raises BackendUnavailable where it has moved."""
        change = self._begun(reference, Deadline(timeout))
        if change.found.current != token and not change.move(CURRENT, to=token, leaves=change.found.current):
            change.overtaken()
        change.look(lambda now: now.current == token)
        change.take_off({PENDING: token})  # Secrets Manager may leave it there, and takes both for an end

    def _begun(self, reference: SecretReference, deadline: Deadline) -> Change:
        place = self._place_of(reference)
        return Change(
            self._calls,
            place,
            reference,
            deadline,
            described=lambda: self._described(place, reference, deadline),
            value=lambda version: self._value(version, place, reference, deadline),
            base=lambda found, version: self._base(found, version, place, reference, deadline),
        )

    @contextmanager
    def _change(self, reference: SecretReference, held: Held, timeout: float) -> Iterator[Change]:
        """One change, if all is as it was read. What ran out of time is not known to be made, or not."""
        failure: SecretSourceError
        try:
            change = self._begun(reference, Deadline(timeout))
            if mark(change.found) != held.version:
                change.overtaken()
            yield change
            return
        except DeadlineExceeded:
            failure = Origin(reference).error(BackendUnavailable, "was not written in time, or was", ANEW)
        raise failure


def cautions(found: Described, place: Place, reference: SecretReference) -> list[str]:
    """What to be careful about. Raises ConfigurationError where the secret is somebody else's to change."""
    if found.deleted:
        raise ConfigurationError(
            f"{reference} is scheduled for deletion",
            hint="Take it back with aws secretsmanager restore-secret --secret-id …, or correct the reference",
        )
    if found.rotates:
        raise ConfigurationError(
            f"{reference} is rotated by a Lambda function (RotationEnabled), and two rotators would undo each other",
            hint="Let that function do it (secretsource.rotation.aws_lambda is one), or end it with "
            "aws secretsmanager cancel-rotate-secret --secret-id …",
        )
    if found.owner is not None:
        raise ConfigurationError(
            f"{reference} belongs to another service of AWS, which changes it itself", hint="Rotate it there"
        )
    if found.primary is not None and found.region and found.primary != found.region:
        raise ConfigurationError(
            f"{reference} is a replica in {found.region}, and only its primary secret can be written",
            hint=f"Name that region first: ?region={found.primary}",
        )
    said = []
    if place.partial:
        said.append("its ARN is a partial one, which may mean another secret")
    late = sorted(region for region, state in found.replicas.items() if state != "InSync")
    if found.replicas:
        said.append(f"it is replicated to {', '.join(sorted(found.replicas))}, where programs see each step later")
    if late:
        said.append(f"its replica in {', '.join(late)} is not in sync: programs there may not see the pending secret")
    return said


def with_state(document: Document, reference: SecretReference, labels: Iterable[str]) -> Document:
    """The document with the state that the labels of its version say, for programs to read."""
    if not any(is_of_state(label) for label in labels):
        return document
    field = reference.secret_field
    state = state_in(_state_inside(document.fields, reference), labels)
    if document.text is not None or state is None:
        return document
    return Document(
        _laid(document.fields, way_of(f"{field}_rotation"), Secret(state.text())),
        version=document.version,
        created=document.created,
    )


def says_flat(document: Document, reference: SecretReference, kind: str) -> bool:
    """Whether the document itself names a pending or a previous secret."""
    found = _at(document.fields, f"{reference.secret_field}_{kind}")
    return isinstance(found, Secret) and found != Secret("")


def _at(tree: Any, field: str) -> Any:
    for name in way_of(field):
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree


def _laid(tree: Mapping[str, Any], way: Sequence[str], value: Secret) -> dict[str, Any]:
    if len(way) == 1:
        return {**tree, way[0]: value}
    inner = tree.get(way[0])
    return {**tree, way[0]: _laid(inner if isinstance(inner, Mapping) else {}, way[1:], value)}


def _state_inside(tree: Mapping[str, Any], reference: SecretReference) -> RotationState:
    found = _at(tree, f"{reference.secret_field}_rotation")
    state = RotationState.read(found.reveal()) if isinstance(found, Secret) else None
    return state or RotationState()


def _changes(reference: SecretReference, pending: Secret, beside: Mapping[str, Secret]) -> dict[str, Secret | None]:
    field = reference.secret_field
    # Flat names of the other layout would speak of another secret from now on.
    gone: dict[str, Secret | None] = {f"{field}_pending": None, f"{field}_previous": None}
    return {**gone, field: pending, **{_field_beside(field, name): value for name, value in beside.items()}}


def _field_beside(field: str, name: str) -> str:
    """The field of this name in the same mapping."""
    return field_of((*way_of(field)[:-1], name)) if field.startswith("/") else name
