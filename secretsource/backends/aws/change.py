"""One step of a rotation by staging labels, as calls: marks made, looked at again, and taken back."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from ...clock import Deadline, pause
from ...errors import BackendUnavailable, ConfigurationError, DeadlineExceeded, SecretSourceError
from ...reference import SecretReference
from ...secret import Secret
from ...state import RotationState
from ..edits import WHOLE
from ..formats import Origin
from .calls import Action, Calls, Described, Value, edited, format_in, listing, origin_of, text_of
from .faults import Fault
from .labels import CLAIM, PREFIX, given_up, intended, is_of_state, is_turn, next_turn, ours, state_labels, turns
from .place import CURRENT, PENDING, Place

__all__ = ["ANEW", "Change", "made_by_rotators"]

ANEW = "Read it again, and decide again"

_NAMESPACE = uuid.UUID("4f6c7a52-6d0e-5d3b-9a53-0b6f1c0d7e21")
_ATTEMPTS_AT_MOST = 200
_TURNS_KEPT = 6
_LOOK_EVERY = 0.1
_LOOK_FOR = 5.0  # seconds in which a label that was put somewhere is found there
_BINDING = ("issuer", "token_url", "environment")  # which has no place in one text, and is not missed there


class Change:
    """The calls of one step. `found` is how the secret was when the step began."""

    def __init__(
        self,
        calls: Calls,
        place: Place,
        reference: SecretReference,
        deadline: Deadline,
        *,
        described: Callable[[], Described],
        value: Callable[[str | None], Value],
        base: Callable[[Described, str], RotationState],
    ) -> None:
        """`described`: how the secret is now; `value`: of a version; `base`: the state inside a version."""
        self._calls, self._place, self._reference, self._deadline = calls, place, reference, deadline
        self._described, self._value, self._base = described, value, base
        self.found = described()

    def overtaken(self) -> NoReturn:
        raise Origin(self._reference).error(BackendUnavailable, "was changed by somebody else meanwhile", ANEW)

    def withdraw(self, labels: Mapping[str, str]) -> NoReturn:
        """Take these off again: somebody else was faster."""
        self.take_off(labels)
        self.overtaken()

    def base(self, version: str) -> RotationState:
        return self._base(self.found, version)

    def look(self, until: Callable[[Described], bool]) -> Described:
        """How it is now, once that is seen; or after a while, since a read may be behind."""
        limit = Deadline(min(_LOOK_FOR, self._deadline.left()))
        while True:
            now = self._described()
            if until(now) or not pause(_LOOK_EVERY, None, limit, time.sleep):
                return now

    def agree(self, seen: Described, version: str, labels: Mapping[str, str]) -> None:
        """Withdraw unless all is as it was, save for these labels of ours."""
        foreign = self.foreign(seen) - labels.keys()
        same = (seen.current, seen.pending) == (self.found.current, version)
        if foreign or not same or any(seen.labels.get(label) != where for label, where in labels.items()):
            self.withdraw(labels)

    def foreign(self, seen: Described) -> set[str]:
        """States and claims that others have put on another version than the current one meanwhile."""
        known = set(ours(self.found.labels))
        return {
            label
            for label in ours(seen.labels)
            if label not in known
            and (is_of_state(label) or label == CLAIM)
            and seen.labels[label] != self.found.current
        }

    def end_of(self, seen: Described, version: str) -> dict[str, str]:
        """The label that says of this pending version that it is given up."""
        found = turns(seen, version)
        current = str(self.found.current)
        return {f"{PREFIX}turn-{number}-{version}": current for number, where in found.items() if where == current}

    def take_turn(self, version: str, where: str) -> bool:
        """Whether the next turn of this pending version is on `where`: on itself, or on the current one for its end."""
        current = self.found.current
        if given_up(self.found, version, current):
            return where == current
        label = next_turn(self.found, version)
        self.move(label, to=where)
        seen = self.look(lambda now: label in now.labels)
        return seen.labels.get(label) == where and given_up(seen, version, current) == (where == current)

    # --- labels

    def move(self, label: str, *, to: str | None = None, leaves: str | None = None) -> bool:
        """Put a label on a version, take it off one, or both; False where AWS says that it is not there."""
        asked = {"MoveToVersionId": to, "RemoveFromVersionId": leaves}

        def call(client: Any, region: str | None) -> bool:
            client.update_secret_version_stage(
                SecretId=self._place.secret_in(region),
                VersionStage=label,
                **{name: version for name, version in asked.items() if version is not None},
            )
            return True

        outcome = self._calls.tried(lambda region: lambda client: call(client, region), self._place, self._deadline)
        if not isinstance(outcome, Fault):
            return True
        if outcome.status == "InvalidParameterException":
            # Perhaps only the answer to the first attempt was lost.
            seen = self.look(lambda now: now.labels.get(label) not in (None, leaves)) if to is not None else None
            return seen is not None and seen.labels.get(label) == to
        raise outcome.error(self._reference)

    def put_on(self, labels: Mapping[str, str]) -> None:
        for label, version in labels.items():
            if self.found.labels.get(label) != version:
                self.move(label, to=version)

    def take_off(self, labels: Mapping[str, str]) -> None:
        """As far as it can be done: labels of ours that stay mislead nobody."""
        for label, version in labels.items():
            failed = None
            try:
                self.move(label, leaves=version)
            except SecretSourceError as error:
                failed = type(error)
            if failed is DeadlineExceeded:
                return

    def tidy_states(self, version: str) -> None:
        """What the state on this version was before this change."""
        self.take_off({label: version for label in ours(self.found.on(version)) if is_of_state(label)})

    def tidy_turns(self, seen: Described, version: str, *, all_of_them: bool = False) -> None:
        found = turns(seen, version)
        kept = 0 if all_of_them else _TURNS_KEPT
        for number in sorted(found)[: max(0, len(found) - kept)]:
            self.take_off({f"{PREFIX}turn-{number}-{version}": found[number]})

    def tidy_others(self, seen: Described, made: str) -> None:
        """What earlier rotations have left on versions that are nothing any more."""
        kept = {seen.current, seen.previous, made}
        left = {label: where for label, where in seen.labels.items() if where not in kept}
        left |= {label: str(seen.current) for label in seen.on(seen.current) if is_turn(label)}
        self.take_off({label: where for label, where in left.items() if label in ours([label])})

    # --- versions

    def make(self, state: RotationState, changes: Mapping[str, Secret | None]) -> str:
        """A new version under a label of ours: the current document with these fields changed and this state inside.

        Its ID follows from the current one and the number of the attempt, so that of two rotators one is refused.
        """
        place, reference, deadline, found = self._place, self._reference, self._deadline, self.found
        value = self._value(found.current)
        text, stages = self.text(value, state, changes)
        used = self._calls.served(listing(place), place, reference, deadline)
        token = next(
            (name for name in made_by_rotators(found.current) if name not in used and not found.on(name)), None
        )
        if token is None:
            raise ConfigurationError(
                f"{reference} has {_ATTEMPTS_AT_MOST} versions of rotations that came to nothing",
                hint="See why they did; AWS deletes versions without labels in its own time",
            )

        outcome = self._calls.tried(self.putting(token, text, stages), place, deadline)
        if isinstance(outcome, Fault):
            if outcome.status == "ResourceExistsException":
                self.overtaken()
            raise outcome.error(reference)
        seen = self.look(lambda now: now.labels.get(CLAIM) not in (None, found.labels.get(CLAIM)))
        known = {*ours(found.labels), *stages}
        foreign = [label for label in ours(seen.labels) if label not in known and is_of_state(label)]
        held = (CURRENT, PENDING, intended(str(found.current)))
        same = all(seen.labels.get(label) == found.labels.get(label) for label in held)
        if foreign or not same or seen.labels.get(CLAIM) != token:
            self.withdraw(dict.fromkeys(stages, token))
        return token

    def putting(
        self, token: str, text: Secret, stages: list[str], rotation_token: Secret | None = None
    ) -> Action[bool]:
        def put(client: Any, region: str | None) -> bool:
            client.put_secret_value(
                SecretId=self._place.secret_in(region),
                ClientRequestToken=token,
                SecretString=text.reveal(),
                VersionStages=stages,
                **_handed_on(rotation_token),
            )
            return True

        return lambda region: lambda client: put(client, region)

    def text(
        self, value: Value, state: RotationState, changes: Mapping[str, Secret | None]
    ) -> tuple[Secret, list[str]]:
        place, reference = self._place, self._reference
        old = text_of(value, place, reference)
        stages = [CLAIM]
        if format_in(old, place) == "text":
            changes = {field: one for field, one in changes.items() if one is not None and field not in _BINDING}
            if set(changes) - {WHOLE}:
                raise ConfigurationError(
                    f"{reference} holds one text, the secret, and further fields have no place in it",
                    hint='Make it a JSON object, {"client_id": …, "client_secret": …}, with secretsource put',
                )
            stages += state_labels(RotationState(), (), state)
        else:
            changes = {**changes, f"{reference.secret_field}_rotation": Secret(state.text())}
        new = edited(old, changes, place, reference, origin_of(reference, old, place)) if changes else old
        return new, stages

    def intend(self, state: RotationState) -> None:
        """Say what will be asked of the issuer, as only one rotator can: the next one makes another version."""
        found, current = self.found, str(self.found.current)
        label = intended(current)
        before = found.labels.get(label)
        made = self.make(state, {})
        moved = self.move(label, to=made, leaves=before)
        seen = self.look(lambda now: now.labels.get(label) not in (None, before))
        if not moved or seen.labels.get(label) != made or seen.current != current:
            self.withdraw({label: made, CLAIM: made})
        self.tidy_others(seen, made)

    def say_on_current(self, state: RotationState) -> None:
        """The state of a secret of which none is pending."""
        found, current = self.found, str(self.found.current)
        labels = dict.fromkeys(state_labels(self.base(current), found.on(current), state), current)
        self.put_on(labels)
        asked_for = found.labels.get(intended(current))
        if asked_for is not None:
            self.move(intended(current), leaves=asked_for)
        seen = self.look(lambda now: labels.keys() <= now.labels.keys() and intended(current) not in now.labels)
        if seen.current != current or intended(current) in seen.labels:
            self.withdraw(labels)
        self.tidy_states(current)
        if asked_for is not None:
            self.take_off({label: asked_for for label in ours(found.on(asked_for)) if label != intended(current)})


def _handed_on(rotation_token: Secret | None) -> dict[str, str]:
    """The argument for it, which no frame that makes a call keeps as a local."""
    return {} if rotation_token is None else {"RotationToken": rotation_token.reveal()}


def made_by_rotators(current: str | None) -> Iterator[str]:
    """The IDs of the versions that rotators make while this one is current, in order."""
    return (str(uuid.uuid5(_NAMESPACE, f"{current}:{number}")) for number in range(_ATTEMPTS_AT_MOST))
