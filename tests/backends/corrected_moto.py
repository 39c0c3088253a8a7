"""moto's Secrets Manager, corrected where it differs from AWS in what a rotation rests on.

`corrected()` patches moto's models while it is open. The rows, each as AWS documents it:

- PutSecretValue with a token that is there and another value: ResourceExistsException, also while the version is under
  AWSPENDING (moto overwrites it). With the same value, or on a version without one, no error.
- A label is on one version at a time. UpdateSecretVersionStage without RemoveFromVersionId fails where another version
  has the label, with it where that version has not (moto checks AWSCURRENT alone, and leaves the label on both).
- AWSCURRENT cannot be taken off, only moved; what GetSecretValue gives without a stage moves with it (moto: the old).
- PutSecretValue under AWSCURRENT leaves the other labels of the version before alone (moto takes all of them off).
- A secret that is scheduled for deletion takes no value.
- At most 20 labels a version.
- Versions without a label are not in DescribeSecret, and in ListSecretVersionIds only with IncludeDeprecated; versions
  without a value are in DescribeSecret alone (moto lists both in both).
- RotateSecret needs a function, and fails while AWSPENDING is on a version that is not current; one that is both is
  fine (moto: the other way round). It leaves AWSPENDING on a version without a value, and calls the function after
  that: here the test calls it.
- Calls are made one at a time (moto's server is threaded, its models are not).
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from moto.secretsmanager.exceptions import (
    InvalidParameterException,
    InvalidRequestException,
    ResourceExistsException,
    SecretNotFoundException,
)
from moto.secretsmanager.models import FakeSecret, SecretsManagerBackend
from moto.secretsmanager.responses import SecretsManagerResponse

from .secrets_manager import Moto, moto_server

_MOST_LABELS = 20
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def corrected() -> Iterator[Moto]:
    with (
        patch.object(SecretsManagerBackend, "put_secret_value", _put_secret_value),
        patch.object(SecretsManagerBackend, "update_secret_version_stage", _update_secret_version_stage),
        patch.object(SecretsManagerBackend, "rotate_secret", _rotate_secret),
        patch.object(FakeSecret, "_form_version_ids_to_stages", _labelled),
        patch.object(SecretsManagerResponse, "list_secret_version_ids", _list_secret_version_ids),
        moto_server() as moto,
    ):
        yield moto


def _of(backend: Any, secret_id: str) -> Any:
    if not backend._is_valid_identifier(secret_id):
        raise SecretNotFoundException
    secret = backend.secrets[secret_id]
    if secret.is_deleted():
        raise InvalidRequestException("You can't perform this operation on the secret because it was marked deleted.")
    return secret


def _holder(secret: Any, label: str) -> str | None:
    return next((name for name, version in secret.versions.items() if label in version["version_stages"]), None)


def _move(secret: Any, label: str, to: str | None) -> None:
    before = _holder(secret, label)
    if before is not None:
        secret.versions[before]["version_stages"].remove(label)
    if to is not None:
        secret.versions[to]["version_stages"].append(label)
    if label == "AWSCURRENT":
        secret.set_default_version_id(to)
        if before not in (None, to):
            _move(secret, "AWSPREVIOUS", before)
        if _holder(secret, "AWSPREVIOUS") == to:
            _move(secret, "AWSPREVIOUS", None)


def _has_value(version: Any) -> bool:
    return "secret_string" in version or "secret_binary" in version


def _put_secret_value(
    self: Any,
    secret_id: str,
    secret_string: str,
    secret_binary: str,
    client_request_token: str,
    version_stages: list[str],
) -> str:
    with _ONE_AT_A_TIME:
        secret = _of(self, secret_id)
        token = self._from_client_request_token(client_request_token)
        there = secret.versions.get(token)
        given = {"secret_string": secret_string, "secret_binary": secret_binary}
        given = {name: value for name, value in given.items() if value is not None}
        if there is not None and _has_value(there):
            if any(there.get(name) != given.get(name) for name in ("secret_string", "secret_binary")):
                raise ResourceExistsException("a version with this token has another value")
            return str(secret.to_short_dict(include_version_stages=True, version_id=token))
        if len(version_stages) > _MOST_LABELS:
            raise InvalidParameterException("too many labels")
        if not any(_has_value(version) for version in secret.versions.values()):
            version_stages = [*version_stages, "AWSCURRENT"]
        kept = there["version_stages"] if there is not None else []
        secret.versions[token] = {"version_id": token, "version_stages": kept, "createdate": 1.7e9, **given}
        for label in dict.fromkeys(version_stages):
            _move(secret, label, token)
        return str(secret.to_short_dict(include_version_stages=True, version_id=token))


def _update_secret_version_stage(
    self: Any, secret_id: str, version_stage: str, remove_from_version_id: str, move_to_version_id: str
) -> tuple[str, str]:
    with _ONE_AT_A_TIME:
        secret = _of(self, secret_id)
        if _holder(secret, version_stage) != (remove_from_version_id or None):
            raise InvalidParameterException(f"{version_stage} is on another version, or on none")
        if version_stage == "AWSCURRENT" and not move_to_version_id:
            raise InvalidParameterException("AWSCURRENT can only be moved")
        if move_to_version_id and move_to_version_id not in secret.versions:
            raise InvalidParameterException("not a version")
        if move_to_version_id and len(secret.versions[move_to_version_id]["version_stages"]) >= _MOST_LABELS:
            raise InvalidParameterException("too many labels")
        _move(secret, version_stage, move_to_version_id or None)
        return secret.arn, secret.name


def _rotate_secret(
    self: Any,
    secret_id: str,
    client_request_token: str | None = None,
    rotation_lambda_arn: str | None = None,
    rotation_rules: dict[str, Any] | None = None,
    rotate_immediately: bool = True,
) -> str:
    with _ONE_AT_A_TIME:
        secret = _of(self, secret_id)
        function = rotation_lambda_arn or secret.rotation_lambda_arn
        if not function:
            raise InvalidRequestException("no Lambda rotation function ARN is associated with this secret")
        pending = _holder(secret, "AWSPENDING")
        token = client_request_token or str(uuid.uuid4())
        if pending not in (None, _holder(secret, "AWSCURRENT"), token):
            raise InvalidRequestException("A previous rotation isn't complete. That rotation will be reattempted.")
        if token not in secret.versions:
            secret.versions[token] = {"version_id": token, "version_stages": [], "createdate": 1.7e9}
        _move(secret, "AWSPENDING", token)
        secret.rotation_requested = secret.rotation_enabled = True
        secret.rotation_lambda_arn = function
        return str(json.dumps({"ARN": secret.arn, "Name": secret.name, "VersionId": token}))


def _labelled(self: Any) -> dict[str, list[str]]:
    return {name: version["version_stages"] for name, version in self.versions.items() if version["version_stages"]}


def _list_secret_version_ids(self: Any) -> str:
    with _ONE_AT_A_TIME:
        secret = _of(self.backend, self._get_param("SecretId", if_none=""))
        everything = self._get_bool_param("IncludeDeprecated", False)
        listed = [
            {"VersionId": name, "VersionStages": version["version_stages"], "CreatedDate": version["createdate"]}
            for name, version in secret.versions.items()
            if _has_value(version) and (everything or version["version_stages"])
        ]
        return json.dumps({"ARN": secret.arn, "Name": secret.name, "Versions": listed})
