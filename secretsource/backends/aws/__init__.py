"""AWS Secrets Manager: a JSON object with the fields, or one text that is the secret.

    AwsBackend(region="eu-west-1", role_arn="arn:aws:iam::123456789012:role/pos-reader")

Built bare, as a reference `aws://` does, it takes credentials and region where every AWS SDK does, and AWS_CA_BUNDLE;
no endpoint and no proxy.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

from ...clock import Deadline, checked_seconds, pause
from ...credentials import Document
from ...errors import (
    BackendUnavailable,
    ConfigurationError,
    DeadlineExceeded,
    MalformedSecret,
    SecretNotFound,
    forgetting,
)
from ...events import LOGGER
from ...reference import SecretReference
from ...secret import Secret
from ...state import RotationState
from ...transport import Transport
from ...urls import check_url
from .. import Held, Stored
from ..edits import WHOLE, changes_between
from ..formats import Origin, parse
from ..layout import DocumentLayout
from .calls import (
    Calls,
    Value,
    describing,
    edited,
    format_in,
    getting,
    origin_of,
    text_of,
    tree_of,
)
from .faults import Fault
from .labels import PUT
from .place import CURRENT, PENDING, PREVIOUS, Place, checked_region, place_of
from .staging import LabelsLayout, cautions, says_flat, with_state
from .wire import Settings

__all__ = ["AwsBackend"]

_KNOWN_AT_MOST = 256
_READ_BACK_EVERY = 0.2
_PARTIAL = "It is a partial ARN, which may mean another secret: give the full one, with six characters behind the name"
_CHANGED = "was changed by somebody else meanwhile"
_LAYOUTS = ("labels", "document")
_KINDS = {PENDING: "pending", PREVIOUS: "previous"}


class _Known(NamedTuple):
    """The documents of a secret that were read last, by their labels."""

    arn: str
    documents: Mapping[str, Document]

    def under(self, arn: str, current: str | None) -> Mapping[str, Document]:
        """Those that were read beside this current version."""
        held = self.documents.get(CURRENT)
        return self.documents if self.arn == arn and held is not None and held.version == current else {}


class AwsBackend:
    """Reads and writes secrets in AWS Secrets Manager. Constructing does no I/O and imports no botocore.

    `session` is a boto3 Session whose credentials and region are used, or `profile` names one of the AWS
    configuration; with `role_arn` (and `external_id`) that role is assumed by them. `region` is for references
    without one. `proxy` is None, a URL or "env". One request is given `connect_timeout` plus `read_timeout` seconds
    and is made at most `attempts` times a region, all inside the time of the read. A read within the TTL asks for
    AWSCURRENT; with `watch_labels` for the labels first (DescribeSecret), and only for values that are not held.
    `layout` says how a secret is rotated: "labels" keeps pending and previous apart, as AWS does it; "document" keeps
    them beside the secret in AWSCURRENT, for fleets that are given copies of that.
    """

    options = frozenset({"region", "regions", "stage", "version", "format"})
    ttl: float | None = 300.0
    eventually_consistent = True

    @forgetting
    def __init__(
        self,
        *,
        session: Any = None,
        profile: str | None = None,
        region: str | None = None,
        role_arn: str | None = None,
        external_id: str | None = None,
        endpoint_url: str | None = None,
        proxy: str | None = None,
        connect_timeout: float = 2.0,
        read_timeout: float = 5.0,
        attempts: int = 3,
        watch_labels: bool = False,
        layout: Literal["labels", "document"] = "labels",
    ) -> None:
        if find_spec("boto3") is None:
            raise ConfigurationError("the store aws needs boto3", hint="Run pip install 'secretsource[aws]'")
        for name, text in (("profile", profile), ("role_arn", role_arn), ("external_id", external_id)):
            if text is not None and (not isinstance(text, str) or not text):
                raise ConfigurationError(f"{name}= is a text that is not empty")
        if role_arn is not None and not (role_arn.startswith("arn:") and ":role/" in role_arn):
            raise ConfigurationError(
                "role_arn= is not the ARN of a role", hint="It reads arn:aws:iam::ACCOUNT:role/NAME"
            )
        if external_id is not None and role_arn is None:
            raise ConfigurationError("external_id= goes with role_arn=", hint="Give role_arn=, too")
        if session is not None and not callable(getattr(session, "get_credentials", None)):
            raise ConfigurationError(f"session= is a boto3 Session, not {type(session).__name__}")
        if session is not None and profile is not None:
            raise ConfigurationError("session= and profile= both say whose credentials", hint="Give one of them")
        if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= 10:
            raise ConfigurationError(f"attempts={attempts!r} is not a number from 1 to 10")
        if not isinstance(watch_labels, bool):
            raise ConfigurationError(f"watch_labels= is True or False, not {type(watch_labels).__name__}")
        if layout not in _LAYOUTS:
            raise ConfigurationError("layout= is 'labels' or 'document'")
        if endpoint_url is not None:
            check_url(endpoint_url, "endpoint_url")
        Transport(proxy=proxy)  # says what is wrong with it
        settings = Settings(
            session=session,
            profile=profile,
            role_arn=role_arn,
            external_id=external_id,
            endpoint_url=endpoint_url,
            proxy=None if proxy is None else Secret(proxy),
            connect_timeout=checked_seconds("connect_timeout", connect_timeout),
            read_timeout=checked_seconds("read_timeout", read_timeout),
        )
        self._region = None if region is None else checked_region(region, "region=")
        self._watch_labels = watch_labels
        self._calls = Calls(settings, attempts)
        self._apart = layout == "labels"
        self.labels = LabelsLayout(self._calls, self._writable)
        self._layout: LabelsLayout | _InDocument = self.labels if self._apart else _InDocument(self)
        self._known: dict[str, _Known] = {}
        self._warned: set[str] = set()

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        """The document under AWSCURRENT, or under the stage and version that the reference names.

        A forced read also brings AWSPENDING and AWSPREVIOUS; they go on standing beside the same AWSCURRENT. Raises
        BackendError, ConfigurationError, DeadlineExceeded.
        """
        place, deadline = self._place(reference), Deadline(timeout)
        if place.pinned:
            return self._document(self._value(place, reference, deadline), place, reference)
        if fresh:
            return self._read_fresh(place, reference, deadline)
        if self._watch_labels:
            return self._read_by_labels(place, reference, deadline)
        value = self._value(place, reference, deadline)
        current = self._document(value, place, reference)
        known = self._known.get(str(reference))
        beside = known.under(value.arn, value.version) if known is not None else {}
        return self._together(reference, value.arn, {**beside, CURRENT: current})

    def caution(self, reference: SecretReference) -> str | None:
        """What to look at in a reference that works, for `secretsource check`."""
        return _PARTIAL if place_of(reference, self._region).partial else None

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        """Everything under AWSCURRENT; the one secret of a plain text is called client_secret."""
        place = self._writable(reference)
        value = self._current(place, reference, Deadline(timeout))
        return Stored({}, None) if value is None else Stored(tree_of(value, place, reference), value.version)

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        """Alter the fields that differ, if AWSCURRENT is still this version, and return the new one's ID.

        The new version gets AWSCURRENT by UpdateSecretVersionStage, which AWS refuses where that label has moved.
        With version None a secret is created, or one without a value gets its first. Raises BackendUnavailable where
        somebody else was faster.
        """
        place, deadline, origin = self._writable(reference), Deadline(timeout), Origin(reference)
        now = self._current(place, reference, deadline)
        if (None if now is None else now.version) != version:
            raise origin.error(BackendUnavailable, _CHANGED, "Read it again, and decide again")
        text = None if now is None else text_of(now, place, reference)
        changes = changes_between({} if now is None else tree_of(now, place, reference), fields, origin)
        if now is not None and not changes:
            return now.version
        if format_in(text, place) == "text" and set(fields) != {WHOLE}:
            raise ConfigurationError(
                f"{reference} is left as it was: it holds one text, the secret, and no further field",
                hint="Give the client ID beside the reference, or make its value a JSON object",
            )
        new = edited(text, changes, place, reference, origin)
        token = str(uuid.uuid4())
        if now is not None or not self._created(place, reference, new, token, deadline):
            self._put(place, reference, new, token, version, deadline)
        self._read_back(place, reference, token, version, deadline)
        return token

    @property
    def copied(self) -> bool:
        """Whether programs are given copies, of which only the operator knows how soon they follow."""
        return self._layout.copied

    @property
    def reaches(self) -> str:
        """Which programs see a secret while it is changed."""
        return self._layout.reaches

    def preflight(self, reference: SecretReference, *, timeout: float) -> Sequence[str]:
        """Raises AccessDenied, or ConfigurationError where the secret is a Lambda function's or a replica."""
        return self._layout.preflight(reference, timeout=timeout)

    def read_held(self, reference: SecretReference, *, client_id: str | None, timeout: float) -> Held:
        return self._layout.read_held(reference, client_id=client_id, timeout=timeout)

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
        self._layout.claim(reference, held, pending, state, beside=beside, timeout=timeout)

    def note(
        self,
        reference: SecretReference,
        held: Held,
        state: RotationState,
        *,
        beside: Mapping[str, Secret] = {},
        timeout: float,
    ) -> None:
        self._layout.note(reference, held, state, beside=beside, timeout=timeout)

    def promote(
        self, reference: SecretReference, held: Held, state: RotationState, *, keep_previous: bool, timeout: float
    ) -> None:
        self._layout.promote(reference, held, state, keep_previous=keep_previous, timeout=timeout)

    def abandon(self, reference: SecretReference, held: Held, state: RotationState, *, timeout: float) -> None:
        self._layout.abandon(reference, held, state, timeout=timeout)

    def drop_previous(
        self, reference: SecretReference, held: Held, state: RotationState, *, timeout: float
    ) -> str | None:
        return self._layout.drop_previous(reference, held, state, timeout=timeout)

    # reading

    def _place(self, reference: SecretReference) -> Place:
        place = place_of(reference, self._region)
        if place.partial and place.secret not in self._warned:
            self._warned.add(place.secret)
            LOGGER.warning("%s: %s", reference, _PARTIAL)
        return place

    def _read_fresh(self, place: Place, reference: SecretReference, deadline: Deadline) -> Document:
        if not self._apart:
            value = self._value(place, reference, deadline)
            return self._together(reference, value.arn, {CURRENT: self._document(value, place, reference)})
        # In this order nothing is missed while labels move on: pending becomes current, current previous.
        pending = self._candidate(place._replace(stage=PENDING), reference, deadline)
        value = self._value(place, reference, deadline)
        current = self._document(value, place, reference)
        previous = self._candidate(place._replace(stage=PREVIOUS), reference, deadline)
        known = self._known.get(str(reference))
        before = known.under(value.arn, value.version) if known is not None else {}
        documents = {CURRENT: current}
        for label, found in ((PENDING, pending), (PREVIOUS, previous)):
            document = before.get(label) if isinstance(found, Fault) else found
            if document is not None:
                documents[label] = document
        return self._together(reference, value.arn, documents)

    def _candidate(self, place: Place, reference: SecretReference, deadline: Deadline) -> Document | Fault | None:
        """The document beside AWSCURRENT there; None where there is none, a Fault where that cannot be found out."""
        share = Deadline(deadline.left() / 3)  # what hangs here must leave time for AWSCURRENT
        found = self._calls.tried(getting(place), place, share, attempts=1)
        if isinstance(found, Fault):
            return found if found.kind in (BackendUnavailable, DeadlineExceeded) else None
        try:
            return self._document(found, place, reference)
        except MalformedSecret:
            return None

    def _read_by_labels(self, place: Place, reference: SecretReference, deadline: Deadline) -> Document:
        found = self._calls.served(describing(place), place, reference, deadline)
        if found.current is None:
            raise Origin(reference).error(
                SecretNotFound, f"has no value under {CURRENT}", "Put one there, or correct the reference"
            )
        known = self._known.get(str(reference))
        held = known.documents.values() if known is not None and known.arn == found.arn else ()
        by_version = {document.version: document for document in held}
        documents: dict[str, Document] = {}
        for label in (CURRENT, PENDING, PREVIOUS) if self._apart else (CURRENT,):
            version = found.labels.get(label)
            document = by_version.get(version)
            if version is not None and document is None:
                there = place._replace(version=version)
                if label == CURRENT:
                    document = self._document(self._value(there, reference, deadline), place, reference)
                else:
                    candidate = self._candidate(there, reference, deadline)
                    document = None if isinstance(candidate, Fault) else candidate
            if document is not None:
                # What the labels say changes, while the version does not.
                documents[label] = with_state(document, reference, found.on(version))
        return self._together(reference, found.arn, documents)

    def _together(self, reference: SecretReference, arn: str, documents: Mapping[str, Document]) -> Document:
        """One document with its candidates, which are kept for the next read."""
        known = self._known
        known.pop(str(reference), None)
        known[str(reference)] = _Known(arn, documents)
        while len(known) > _KNOWN_AT_MOST:
            known.pop(next(iter(known)), None)
        current = documents[CURRENT]
        others = {
            label: one
            for label, one in documents.items()
            # Those inside the document are what it is rotated by, whatever the labels are on.
            if one.version != current.version and not says_flat(current, reference, _KINDS[label])
        }
        return Document(
            current.fields if current.text is None else current.text,
            version=current.version,
            created=current.created,
            pending=others.get(PENDING),
            previous=others.get(PREVIOUS),
        )

    def _value(self, place: Place, reference: SecretReference, deadline: Deadline) -> Value:
        return self._calls.served(getting(place), place, reference, deadline)

    def _document(self, value: Value, place: Place, reference: SecretReference) -> Document:
        text = text_of(value, place, reference)
        fields = parse(text, format_in(text, place), origin_of(reference, text, place))
        document = Document(fields, version=value.version, created=value.created)
        return with_state(document, reference, value.stages)

    # writing

    def _writable(self, reference: SecretReference) -> Place:
        place = self._place(reference)
        if place.pinned:
            raise ConfigurationError(
                f"{reference} is not written: it names one version, and a version does not change",
                hint="Leave stage= and version= out; a write makes a new version, which becomes AWSCURRENT",
            )
        return place._replace(regions=place.regions[:1])  # the others are replicas, which AWS writes

    def _current(self, place: Place, reference: SecretReference, deadline: Deadline) -> Value | None:
        found = self._calls.tried(getting(place), place, deadline)
        if not isinstance(found, Fault):
            return found
        # By its kind, too: the SSO service has the same code for a role that is not there.
        if found.kind is SecretNotFound and found.status == "ResourceNotFoundException" and not place.by_arn:
            return None
        raise found.error(reference)

    def _created(self, place: Place, reference: SecretReference, new: Secret, token: str, deadline: Deadline) -> bool:
        """Whether the secret was made; not where there is one, which has no value yet."""

        def create(client: Any) -> bool:
            client.create_secret(Name=place.secret, ClientRequestToken=token, SecretString=new.reveal())
            return True

        outcome = self._calls.tried(lambda _: create, place, deadline)
        if isinstance(outcome, Fault) and outcome.status != "ResourceExistsException":
            raise outcome.error(reference)
        return outcome is True

    def _put(
        self, place: Place, reference: SecretReference, new: Secret, token: str, version: str | None, deadline: Deadline
    ) -> None:
        """A new version under a label of our own, then AWSCURRENT from the version that was read to the new one."""

        def put(client: Any) -> bool:
            answer = client.put_secret_value(
                SecretId=place.secret, ClientRequestToken=token, SecretString=new.reveal(), VersionStages=[PUT]
            )
            return CURRENT in answer.get("VersionStages", ())  # AWS gives it to a first version by itself

        def move(client: Any) -> bool:
            leaves = {} if version is None else {"RemoveFromVersionId": version}
            client.update_secret_version_stage(
                SecretId=place.secret, VersionStage=CURRENT, MoveToVersionId=token, **leaves
            )
            return True

        def tidy(client: Any) -> bool:
            client.update_secret_version_stage(SecretId=place.secret, VersionStage=PUT, RemoveFromVersionId=token)
            return True

        moved: bool | Fault = self._calls.served(lambda _: put, place, reference, deadline)
        if not moved:
            moved = self._calls.tried(lambda _: move, place, deadline)
        # Whoever writes next takes the label over, should this fail.
        self._calls.tried(lambda _: tidy, place, deadline, attempts=1)
        if not isinstance(moved, Fault):
            return
        if moved.status != "InvalidParameterException":
            raise moved.error(reference)
        now = self._current(place, reference, deadline)
        if now is None or now.version != token:  # else only the answer to the first attempt was lost
            raise Origin(reference).error(BackendUnavailable, _CHANGED, "Read it again, and decide again")

    def _read_back(
        self, place: Place, reference: SecretReference, token: str, version: str | None, deadline: Deadline
    ) -> None:
        """Wait until a read finds the new version, or one newer than that; no longer than there is time."""
        while True:
            now = self._calls.tried(getting(place), place, deadline, attempts=1)
            if not isinstance(now, Fault) and now.version != version:
                return
            if not pause(_READ_BACK_EVERY, None, deadline, time.sleep):
                LOGGER.warning("%s is written as version %s, which a read does not find yet", reference, token)
                return


class _InDocument(DocumentLayout):
    """A secret that is changed inside the document under AWSCURRENT, which copies of it hold whole."""

    reaches = (
        "Programs that read by secretsource see current, pending and previous, and so do those that are given a copy "
        "of the whole value (External Secrets, the CSI driver, ECS) once it is made anew, if they read the names "
        "client_secret_pending and client_secret_previous in it"
    )

    def __init__(self, backend: AwsBackend) -> None:
        self._backend = backend

    @property
    def copied(self) -> bool:
        return True

    def preflight(self, reference: SecretReference, *, timeout: float) -> Sequence[str]:
        backend, deadline = self._backend, Deadline(timeout)
        place = backend._writable(reference)
        found = backend._calls.served(describing(place), place, reference, deadline)
        said = cautions(found, place, reference)
        value = backend._value(place, reference, deadline)
        if format_in(text_of(value, place, reference), place) == "text":
            raise ConfigurationError(
                f"{reference} holds one text, and a pending secret has no place in it",
                hint='Make it a JSON object, {"client_id": …, "client_secret": …}; or rotate it by layout="labels"',
            )
        if found.pending is not None:
            raise ConfigurationError(
                f"{reference} has another version under AWSPENDING: it is being rotated by layout='labels', or by hand",
                hint="Finish that first, or take the label off by aws secretsmanager update-secret-version-stage",
            )
        return said

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        return self._backend.read_whole(reference, timeout=timeout)

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        return self._backend.write_whole(reference, fields, version=version, timeout=timeout)
