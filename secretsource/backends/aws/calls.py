"""Calls to Secrets Manager: from region to region, and what comes back as plain values."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias, TypeVar

from ...clock import SYSTEM_CLOCK, WAITS_BETWEEN_ATTEMPTS, Deadline, pause
from ...errors import ConfigurationError, DeadlineExceeded, MalformedSecret
from ...flight import PerProcess
from ...reference import SecretReference
from ...secret import Secret
from ..edits import WHOLE, edit
from ..formats import Fault as Unreadable
from ..formats import Origin, parse, parse_bytes
from .faults import ELSEWHERE, Fault, malformed
from .place import CURRENT, PENDING, PREVIOUS, Place, RegionMemory
from .wire import Clients, Settings

__all__ = [
    "Action",
    "Calls",
    "Described",
    "Value",
    "describing",
    "edited",
    "format_in",
    "getting",
    "listing",
    "origin_of",
    "text_of",
    "tree_of",
]

T = TypeVar("T")

Action: TypeAlias = Callable[[str | None], Callable[[Any], T | Fault]]
"""From a region to a call that is made with its client."""

_PAGES_AT_MOST = 50
_LARGEST = 65536  # bytes of a secret value


class Value(NamedTuple):
    """One version of a secret. `content`: its text, or why its bytes are none."""

    arn: str
    version: str
    stages: tuple[str, ...]
    created: datetime | None
    content: Secret | Unreadable
    binary: bool


class Described(NamedTuple):
    """A secret without its values. `labels`: which version each is on. `rotates`: a Lambda function changes it.

    `primary`: the region that it is replicated from; `replicas`: regions and the states of those.
    """

    arn: str
    labels: Mapping[str, str]
    region: str = ""
    rotates: bool = False
    deleted: bool = False
    primary: str | None = None
    replicas: Mapping[str, str] = {}
    owner: str | None = None

    @property
    def current(self) -> str | None:
        return self.labels.get(CURRENT)

    @property
    def pending(self) -> str | None:
        """The version under AWSPENDING, which may stay on the one that has become current."""
        version = self.labels.get(PENDING)
        return None if version == self.current else version

    @property
    def previous(self) -> str | None:
        version = self.labels.get(PREVIOUS)
        return None if version == self.current else version

    def on(self, version: str | None) -> frozenset[str]:
        """The labels of this version."""
        return frozenset(label for label, where in self.labels.items() if where == version)


class Calls:
    """Makes calls, and repeats what is transient. For all threads."""

    def __init__(self, settings: Settings, attempts: int) -> None:
        self._attempts = attempts
        self._clients = PerProcess(lambda: Clients(settings))
        self._memory = RegionMemory(SYSTEM_CLOCK)

    def served(self, action: Action[T], place: Place, reference: SecretReference, deadline: Deadline) -> T:
        """What a region gave. Raises what the last one said."""
        outcome = self.tried(action, place, deadline)
        if isinstance(outcome, Fault):
            raise outcome.error(reference)
        return outcome

    def tried(self, action: Action[T], place: Place, deadline: Deadline, *, attempts: int | None = None) -> T | Fault:
        """What the first region gave that can serve. Only what is transient is repeated, elsewhere first."""
        fault = Fault(DeadlineExceeded, "was not read: there was no time for it", "timeout= gives it more time")
        for number in range(attempts or self._attempts):
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


def getting(place: Place) -> Action[Value]:
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


def describing(place: Place) -> Action[Described]:
    return lambda region: (
        lambda client: _described(client.describe_secret(SecretId=place.secret_in(region)), client.meta.region_name)
    )


def listing(place: Place) -> Action[frozenset[str]]:
    """The versions that hold a value, also those without a label."""

    def listed(client: Any, region: str | None) -> frozenset[str]:
        found: set[str] = set()
        more: dict[str, Any] = {}
        for _ in range(_PAGES_AT_MOST):
            answer = client.list_secret_version_ids(
                SecretId=place.secret_in(region), IncludeDeprecated=True, MaxResults=100, **more
            )
            found.update(str(version.get("VersionId")) for version in answer.get("Versions") or ())
            if not answer.get("NextToken"):
                break
            more = {"NextToken": answer["NextToken"]}
        return frozenset(found)

    return lambda region: lambda client: listed(client, region)


def _value(answer: Mapping[str, Any], stage: str | None) -> Value | Fault:
    """The one frame that holds a value as AWS gave it."""
    request_id = answer.get("ResponseMetadata", {}).get("RequestId")
    arn, version = answer.get("ARN"), answer.get("VersionId")
    if not isinstance(arn, str) or not isinstance(version, str) or not arn or not version:
        return malformed("came without its ARN or VersionId", ELSEWHERE, request_id)
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
    return Value(
        arn,
        version,
        stages,
        created if isinstance(created, datetime) and created.tzinfo is not None else None,
        Secret(text) if isinstance(text, str) else parse_bytes(bytes(content or b"")),
        text is None,
    )


def _described(answer: Mapping[str, Any], region: str) -> Described | Fault:
    arn = answer.get("ARN")
    if not isinstance(arn, str) or not arn:
        return malformed("came without its ARN", ELSEWHERE)
    stages = answer.get("VersionIdsToStages") or {}
    replicas = answer.get("ReplicationStatus") or ()
    return Described(
        arn,
        {label: version for version, labels in stages.items() for label in labels},
        region,
        rotates=bool(answer.get("RotationEnabled")),
        deleted=answer.get("DeletedDate") is not None,
        primary=answer.get("PrimaryRegion"),
        replicas={str(one.get("Region")): str(one.get("Status")) for one in replicas},
        owner=answer.get("OwningService"),
    )


# --- what a value holds


def text_of(value: Value, place: Place, reference: SecretReference) -> Secret:
    """Raises MalformedSecret."""
    if value.binary and place.format is None:
        raise Origin(reference).error(
            MalformedSecret, "is binary (SecretBinary)", "Say what it holds, ?format=json, or store it as text"
        )
    if isinstance(value.content, Unreadable):
        raise Origin(reference).error(MalformedSecret, value.content.what, value.content.hint)
    return value.content


def tree_of(value: Value, place: Place, reference: SecretReference) -> dict[str, Any]:
    """Nested mappings of Secrets; a plain text is called client_secret. Raises MalformedSecret."""
    text = text_of(value, place, reference)
    fields = parse(text, format_in(text, place), origin_of(reference, text, place))
    return {WHOLE: fields} if isinstance(fields, Secret) else fields


def format_in(text: Secret | None, place: Place) -> str:
    """What `format=` says; else JSON where it begins as an object does, and one text where it does not."""
    if place.format is not None:
        return place.format
    return "json" if text is None or text.reveal().lstrip().startswith("{") else "text"


def origin_of(reference: SecretReference, text: Secret, place: Place) -> Origin:
    if place.format is None and format_in(text, place) == "json":
        return Origin(reference, f"{reference} (read as JSON, since it begins with '{{'; ?format=text if it is none)")
    return Origin(reference)


def edited(
    old: Secret | None, changes: Mapping[str, Secret | None], place: Place, reference: SecretReference, origin: Origin
) -> Secret:
    """The new text of a value, without a line end. Raises ConfigurationError where it is larger than AWS takes."""
    new = _without_line_end(edit(old, format_in(old, place), changes, origin))
    if _size_of(new) > _LARGEST:
        raise ConfigurationError(
            f"{reference} is left as it was: its new value has more than {_LARGEST} bytes",
            hint="Take out what does not belong there",
        )
    return new


def _without_line_end(text: Secret) -> Secret:
    return Secret(text.reveal().removesuffix("\n"))


def _size_of(text: Secret) -> int:
    """In bytes."""
    return len(text.reveal().encode("utf-8", "surrogatepass"))
