"""One secret in Secrets Manager whose staging labels behave as AWS documents them, for `Scripted` to answer with.

From the API model and the user guide ("Rotate AWS Secrets Manager secrets", "Troubleshoot rotation"): a label is on one
version at a time; UpdateSecretVersionStage fails where RemoveFromVersionId is not the version that has the label, or
is left out while another has it; AWSPREVIOUS goes to where AWSCURRENT leaves; the same ClientRequestToken with another
value is ResourceExistsException, with the same value nothing; a version without labels is in ListSecretVersionIds only
with IncludeDeprecated and never in DescribeSecret; a version without a value is in DescribeSecret only.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from secretsource.testing import Answer

from .secrets_manager import ARN, REGION, Asked, refused

READS = ("GetSecretValue", "DescribeSecret", "ListSecretVersionIds")
MOST_LABELS = 20


class Staged:
    """`lenient`: a label is taken from another version without RemoveFromVersionId, as the text of the operation says,
    and not of the parameter. `before` and `after` see each call, with its number; what they answer is given in place of
    the real answer."""

    def __init__(self, value: str | Mapping[str, Any]) -> None:
        self.first = str(uuid.uuid4())
        text = value if isinstance(value, str) else json.dumps(dict(value))
        self.values: dict[str, str | None] = {self.first: text}
        self.labels: dict[str, str] = {"AWSCURRENT": self.first}
        self.more: dict[str, Any] = {}
        self.lenient = False
        self.calls: list[Asked] = []
        self.before: Callable[[int, Asked], Answer | None] = lambda number, asked: None
        self.after: Callable[[int, Asked], Answer | None] = lambda number, asked: None
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Answer | Mapping[str, Any]:
        with self._lock:
            self.calls.append(asked)
            number = len(self.calls)
        early = self.before(number, asked)
        if early is not None:
            return early
        with self._lock:
            answer: Answer | Mapping[str, Any] = getattr(self, f"_{asked.operation}")(asked.body)
        late = self.after(number, asked)
        return answer if late is None else late

    def copy(self) -> Staged:
        """The same secret again, which goes its own way."""
        twin = Staged("")
        twin.first, twin.values, twin.labels = self.first, dict(self.values), dict(self.labels)
        return twin

    # --- what tests look at

    @property
    def operations(self) -> list[str]:
        return [asked.operation for asked in self.calls]

    def secret(self, label: str, field: str = "client_secret") -> str | None:
        """A field of what is under this label; the whole where that is one text."""
        value = self.values.get(self.labels.get(label, ""))
        if value is None or not value.startswith("{"):
            return value
        found: str | None = json.loads(value).get(field)
        return found

    def put(self, value: str | Mapping[str, Any] | None, label: str, version: str) -> str:
        """What somebody else does."""
        with self._lock:
            self.values[version] = json.dumps(dict(value)) if isinstance(value, Mapping) else value
            self._move(label, version)
        return version

    def labels_on(self, version: str) -> set[str]:
        return {label for label, where in self.labels.items() if where == version}

    # --- what AWS does

    def _GetSecretValue(self, body: Mapping[str, Any]) -> Any:
        version, stage = body.get("VersionId"), body.get("VersionStage")
        if version is None:
            version = self.labels.get(stage or "AWSCURRENT")
        elif stage is not None and self.labels.get(stage) != version:
            return refused("InvalidRequestException", "VersionStage is not on this version")
        value = self.values.get(version or "")
        if value is None:
            return refused("ResourceNotFoundException")
        return {
            "ARN": ARN,
            "Name": "prod/pos",
            "VersionId": version,
            "SecretString": value,
            "VersionStages": sorted(self.labels_on(str(version))),
            "CreatedDate": 1.7e9,
        }

    def _DescribeSecret(self, body: Mapping[str, Any]) -> Any:
        stages: dict[str, list[str]] = {}
        for label, version in self.labels.items():
            stages.setdefault(version, []).append(label)
        return {"ARN": ARN, "Name": "prod/pos", "PrimaryRegion": REGION, "VersionIdsToStages": stages, **self.more}

    def _ListSecretVersionIds(self, body: Mapping[str, Any]) -> Any:
        listed = sorted(
            version
            for version, value in self.values.items()
            if value is not None and (body.get("IncludeDeprecated") or self.labels_on(version))
        )
        start = int(body.get("NextToken", 0))
        more = {"NextToken": str(start + 2)} if len(listed) > start + 2 else {}
        return {"ARN": ARN, "Versions": [{"VersionId": version} for version in listed[start : start + 2]], **more}

    def _PutSecretValue(self, body: Mapping[str, Any]) -> Any:
        token, value = body["ClientRequestToken"], body["SecretString"]
        stages = body.get("VersionStages") or ["AWSCURRENT"]
        held = self.values.get(token)
        if held is not None and held != value:
            return refused("ResourceExistsException")
        if held is None:
            if len(stages) > MOST_LABELS:
                return refused("LimitExceededException")
            if not any(held is not None for held in self.values.values()):
                stages = [*stages, "AWSCURRENT"]
            self.values[token] = value
            for label in stages:
                self._move(label, token)
        return {"ARN": ARN, "VersionId": token, "VersionStages": sorted(self.labels_on(token))}

    def _UpdateSecretVersionStage(self, body: Mapping[str, Any]) -> Any:
        label, leaves, to = body["VersionStage"], body.get("RemoveFromVersionId"), body.get("MoveToVersionId")
        if self.labels.get(label) != leaves and not (self.lenient and leaves is None and label != "AWSCURRENT"):
            return refused("InvalidParameterException", f"{label} is on another version, or on none")
        if to is None:
            if label == "AWSCURRENT":
                return refused("InvalidParameterException", "AWSCURRENT can only be moved")
            self.labels.pop(label, None)
        elif to not in self.values:
            return refused("ResourceNotFoundException")
        elif len(self.labels_on(to)) >= MOST_LABELS:
            return refused("LimitExceededException")
        else:
            self._move(label, to)
        return {"ARN": ARN}

    def _move(self, label: str, to: str) -> None:
        leaves = self.labels.get(label)
        self.labels[label] = to
        if label == "AWSCURRENT" and leaves not in (None, to):
            self.labels["AWSPREVIOUS"] = str(leaves)
            if self.labels["AWSPREVIOUS"] == to:
                del self.labels["AWSPREVIOUS"]
