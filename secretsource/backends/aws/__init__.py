"""AWS Secrets Manager: a JSON object with the fields, or one text that is the secret.

    AwsBackend(region="eu-west-1", role_arn="arn:aws:iam::123456789012:role/pos-reader")

Built bare, as a reference `aws://` does, it takes credentials and region where every AWS SDK does, and AWS_CA_BUNDLE;
no endpoint and no proxy.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeAlias, TypeVar

from ...clock import SYSTEM_CLOCK, WAITS_BETWEEN_ATTEMPTS, Deadline, checked_seconds, pause
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
from ...flight import PerProcess
from ...reference import SecretReference
from ...secret import Secret
from ...transport import Transport
from ...urls import check_url
from .. import Stored
from ..edits import WHOLE, changes_between, edit
from ..formats import Fault as Unreadable
from ..formats import Origin, parse, parse_bytes
from .faults import Fault, malformed
from .place import CURRENT, PENDING, PREVIOUS, Place, RegionMemory, checked_region, place_of
from .wire import Clients, Settings

__all__ = ["AwsBackend"]

T = TypeVar("T")

# From a region to a call that is made with its client.
_Action: TypeAlias = Callable[[str | None], Callable[[Any], T | Fault]]

_LARGEST = 65536  # bytes of a secret value
_KNOWN_AT_MOST = 256
_OWN_STAGE = "secretsource-put"
_READ_BACK_EVERY = 0.2
_PARTIAL = "It is a partial ARN, which may mean another secret: give the full one, with six characters behind the name"
_CHANGED = "was changed by somebody else meanwhile"


class _Value(NamedTuple):
    """One version of a secret. `content`: its text, or why its bytes are none."""

    arn: str
    version: str
    stages: tuple[str, ...]
    created: datetime | None
    content: Secret | Unreadable
    binary: bool


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
        self._attempts = attempts
        self._watch_labels = watch_labels
        self._clients = PerProcess(lambda: Clients(settings))
        self._memory = RegionMemory(SYSTEM_CLOCK)
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
        return Stored({}, None) if value is None else Stored(self._tree(value, place, reference), value.version)

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
        text = None if now is None else self._text(now, place, reference)
        changes = changes_between({} if now is None else self._tree(now, place, reference), fields, origin)
        if now is not None and not changes:
            return now.version
        format = _format(text, place)
        if format == "text" and set(fields) != {WHOLE}:
            raise ConfigurationError(
                f"{reference} is left as it was: it holds one text, the secret, and no further field",
                hint="Give the client ID beside the reference, or make its value a JSON object",
            )
        new = _without_line_end(edit(text, format, changes, origin))
        if _size(new) > _LARGEST:
            raise ConfigurationError(
                f"{reference} is left as it was: its new value has more than {_LARGEST} bytes",
                hint="Take out what does not belong there",
            )
        token = str(uuid.uuid4())
        if now is not None or not self._created(place, reference, new, token, deadline):
            self._put(place, reference, new, token, version, deadline)
        self._read_back(place, reference, token, version, deadline)
        return token

    # reading

    def _place(self, reference: SecretReference) -> Place:
        place = place_of(reference, self._region)
        if place.partial and place.secret not in self._warned:
            self._warned.add(place.secret)
            LOGGER.warning("%s: %s", reference, _PARTIAL)
        return place

    def _read_fresh(self, place: Place, reference: SecretReference, deadline: Deadline) -> Document:
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
        found = self._tried(_getting(place), place, share, attempts=1)
        if isinstance(found, Fault):
            return found if found.kind in (BackendUnavailable, DeadlineExceeded) else None
        try:
            return self._document(found, place, reference)
        except MalformedSecret:
            return None

    def _read_by_labels(self, place: Place, reference: SecretReference, deadline: Deadline) -> Document:
        arn, labels = self._served(_describing(place), place, reference, deadline)
        if CURRENT not in labels:
            raise Origin(reference).error(
                SecretNotFound, f"has no value under {CURRENT}", "Put one there, or correct the reference"
            )
        known = self._known.get(str(reference))
        held = known.documents.values() if known is not None and known.arn == arn else ()
        by_version = {document.version: document for document in held}
        documents: dict[str, Document] = {}
        for label in (CURRENT, PENDING, PREVIOUS):
            version = labels.get(label)
            document = by_version.get(version)
            if version is not None and document is None:
                there = place._replace(version=version)
                if label == CURRENT:
                    document = self._document(self._value(there, reference, deadline), place, reference)
                else:
                    found = self._candidate(there, reference, deadline)
                    document = None if isinstance(found, Fault) else found
            if document is not None:
                documents[label] = document
        return self._together(reference, arn, documents)

    def _together(self, reference: SecretReference, arn: str, documents: Mapping[str, Document]) -> Document:
        """One document with its candidates, which are kept for the next read."""
        known = self._known
        known.pop(str(reference), None)
        known[str(reference)] = _Known(arn, documents)
        while len(known) > _KNOWN_AT_MOST:
            known.pop(next(iter(known)), None)
        current = documents[CURRENT]
        others = {label: one for label, one in documents.items() if one.version != current.version}
        return Document(
            current.fields if current.text is None else current.text,
            version=current.version,
            created=current.created,
            pending=others.get(PENDING),
            previous=others.get(PREVIOUS),
        )

    def _value(self, place: Place, reference: SecretReference, deadline: Deadline) -> _Value:
        return self._served(_getting(place), place, reference, deadline)

    def _document(self, value: _Value, place: Place, reference: SecretReference) -> Document:
        text = self._text(value, place, reference)
        fields = parse(text, _format(text, place), _origin(reference, text, place))
        return Document(fields, version=value.version, created=value.created)

    def _text(self, value: _Value, place: Place, reference: SecretReference) -> Secret:
        if value.binary and place.format is None:
            raise Origin(reference).error(
                MalformedSecret, "is binary (SecretBinary)", "Say what it holds, ?format=json, or store it as text"
            )
        if isinstance(value.content, Unreadable):
            raise Origin(reference).error(MalformedSecret, value.content.what, value.content.hint)
        return value.content

    # calls

    def _served(self, action: _Action[T], place: Place, reference: SecretReference, deadline: Deadline) -> T:
        outcome = self._tried(action, place, deadline, attempts=self._attempts)
        if isinstance(outcome, Fault):
            raise outcome.error(reference)
        return outcome

    def _tried(self, action: _Action[T], place: Place, deadline: Deadline, *, attempts: int) -> T | Fault:
        """What the first region gave that can serve. Only what is transient is repeated, elsewhere first."""
        fault = Fault(DeadlineExceeded, "was not read: there was no time for it", "timeout= gives it more time")
        for number in range(attempts):
            wait = WAITS_BETWEEN_ATTEMPTS[min(number, len(WAITS_BETWEEN_ATTEMPTS)) - 1]
            if number and not pause(wait, None, deadline, time.sleep):
                break
            regions = self._memory.order(place.regions)
            for asked, region in enumerate(regions):
                if deadline.over():
                    return fault
                # One that hangs leaves the others their share of the time.
                share = Deadline(deadline.left() / (len(regions) - asked))
                outcome = self._once(region, action(region), place, share)
                if not isinstance(outcome, Fault):
                    self._memory.serves(place.regions, region)
                    return outcome
                fault = outcome
                if not fault.transient:
                    return fault
        return fault

    def _once(
        self, region: str | None, action: Callable[[Any], T | Fault], place: Place, deadline: Deadline
    ) -> T | Fault:
        outcome = self._clients.get().attempt(region, action, place, deadline)
        if isinstance(outcome, Fault) and outcome.rebuild and not deadline.over():
            self._clients.get().forget()
            outcome = self._clients.get().attempt(region, action, place, deadline)
        return outcome

    # writing

    def _writable(self, reference: SecretReference) -> Place:
        place = self._place(reference)
        if place.pinned:
            raise ConfigurationError(
                f"{reference} is not written: it names one version, and a version does not change",
                hint="Leave stage= and version= out; a write makes a new version, which becomes AWSCURRENT",
            )
        return place._replace(regions=place.regions[:1])  # the others are replicas, which AWS writes

    def _current(self, place: Place, reference: SecretReference, deadline: Deadline) -> _Value | None:
        found = self._tried(_getting(place), place, deadline, attempts=self._attempts)
        if not isinstance(found, Fault):
            return found
        # By its kind, too: the SSO service has the same code for a role that is not there.
        if found.kind is SecretNotFound and found.status == "ResourceNotFoundException" and not place.by_arn:
            return None
        raise found.error(reference)

    def _tree(self, value: _Value, place: Place, reference: SecretReference) -> dict[str, Any]:
        text = self._text(value, place, reference)
        fields = parse(text, _format(text, place), _origin(reference, text, place))
        return {WHOLE: fields} if isinstance(fields, Secret) else fields

    def _created(self, place: Place, reference: SecretReference, new: Secret, token: str, deadline: Deadline) -> bool:
        """Whether the secret was made; not where there is one, which has no value yet."""

        def create(client: Any) -> bool:
            client.create_secret(Name=place.secret, ClientRequestToken=token, SecretString=new.reveal())
            return True

        outcome = self._tried(lambda _: create, place, deadline, attempts=self._attempts)
        if isinstance(outcome, Fault) and outcome.status != "ResourceExistsException":
            raise outcome.error(reference)
        return outcome is True

    def _put(
        self, place: Place, reference: SecretReference, new: Secret, token: str, version: str | None, deadline: Deadline
    ) -> None:
        """A new version under a label of our own, then AWSCURRENT from the version that was read to the new one."""

        def put(client: Any) -> bool:
            answer = client.put_secret_value(
                SecretId=place.secret, ClientRequestToken=token, SecretString=new.reveal(), VersionStages=[_OWN_STAGE]
            )
            return CURRENT in answer.get("VersionStages", ())  # AWS gives it to a first version by itself

        def move(client: Any) -> bool:
            leaves = {} if version is None else {"RemoveFromVersionId": version}
            client.update_secret_version_stage(
                SecretId=place.secret, VersionStage=CURRENT, MoveToVersionId=token, **leaves
            )
            return True

        def tidy(client: Any) -> bool:
            client.update_secret_version_stage(
                SecretId=place.secret, VersionStage=_OWN_STAGE, RemoveFromVersionId=token
            )
            return True

        moved: bool | Fault = self._served(lambda _: put, place, reference, deadline)
        if not moved:
            moved = self._tried(lambda _: move, place, deadline, attempts=self._attempts)
        # Whoever writes next takes the label over, should this fail.
        self._tried(lambda _: tidy, place, deadline, attempts=1)
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
            now = self._tried(_getting(place), place, deadline, attempts=1)
            if not isinstance(now, Fault) and now.version != version:
                return
            if not pause(_READ_BACK_EVERY, None, deadline, time.sleep):
                LOGGER.warning("%s is written as version %s, which a read does not find yet", reference, token)
                return


def _format(text: Secret | None, place: Place) -> str:
    """What `format=` says; else JSON where it begins as an object does, and one text where it does not."""
    if place.format is not None:
        return place.format
    return "json" if text is None or text.reveal().lstrip().startswith("{") else "text"


def _origin(reference: SecretReference, text: Secret, place: Place) -> Origin:
    if place.format is None and _format(text, place) == "json":
        return Origin(reference, f"{reference} (read as JSON, since it begins with '{{'; ?format=text if it is none)")
    return Origin(reference)


def _getting(place: Place) -> _Action[_Value]:
    asked: dict[str, str] = {}
    if place.version is not None:
        asked["VersionId"] = place.version
    if place.stage is not None or place.version is None:
        asked["VersionStage"] = place.stage or CURRENT
    return lambda region: (
        lambda client: _value(
            client.get_secret_value(SecretId=place.secret_in(region), **asked), asked.get("VersionStage")
        )
    )


def _value(answer: Mapping[str, Any], stage: str | None) -> _Value | Fault:
    """The one frame that holds a value as AWS gave it."""
    request_id = answer.get("ResponseMetadata", {}).get("RequestId")
    arn, version = answer.get("ARN"), answer.get("VersionId")
    if not isinstance(arn, str) or not isinstance(version, str) or not arn or not version:
        return malformed(
            "came without its ARN or VersionId", "Does endpoint_url= or a proxy lead elsewhere?", request_id
        )
    text, content = answer.get("SecretString"), answer.get("SecretBinary")
    if (text is None) == (content is None):
        both = "both text and binary" if text is not None else "neither text nor binary"
        return malformed(f"came as {both}", "Write its value anew", request_id)
    stages = tuple(answer.get("VersionStages") or ())
    if stage is not None and stage not in stages:
        return malformed(
            f"came as a version that is not under {stage}", "Try again; its labels may be moving", request_id
        )
    created = answer.get("CreatedDate")
    return _Value(
        arn,
        version,
        stages,
        created if isinstance(created, datetime) and created.tzinfo is not None else None,
        Secret(text) if isinstance(text, str) else parse_bytes(bytes(content or b"")),
        text is None,
    )


def _describing(place: Place) -> _Action[tuple[str, dict[str, str]]]:
    return lambda region: lambda client: _labels(client.describe_secret(SecretId=place.secret_in(region)))


def _labels(answer: Mapping[str, Any]) -> tuple[str, dict[str, str]] | Fault:
    arn = answer.get("ARN")
    if not isinstance(arn, str) or not arn:
        return malformed("came without its ARN", "Does endpoint_url= or a proxy lead elsewhere?")
    stages = answer.get("VersionIdsToStages") or {}
    return arn, {label: version for version, labels in stages.items() for label in labels}


def _without_line_end(text: Secret) -> Secret:
    return Secret(text.reveal().removesuffix("\n"))


def _size(text: Secret) -> int:
    return len(text.reveal().encode("utf-8", "surrogatepass"))
