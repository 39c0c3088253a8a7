"""Writing to Secrets Manager: always the whole against the version that was read, by labels that AWS checks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from secretsource import SecretReference
from secretsource.backends.aws import AwsBackend
from secretsource.backends.formats import wrapped
from secretsource.errors import (
    AccessDenied,
    BackendUnavailable,
    ConfigurationError,
    SecretNotFound,
    SecretSourceError,
)

from .layouts import CANARY, revealed, shows
from .secrets_manager import ARN, CURRENT_ID, PENDING_ID, Asked, Moto, Scripted, moto_server, refused, value

NEW = f"{CANARY}-new"
OWN_STAGE = "secretsource-put"


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with moto_server() as server:
        yield server


def write(backend: AwsBackend, reference: str, fields: Any, version: str | None, timeout: float = 20.0) -> str:
    # As `put` gives them: a caller that passes plain texts shows them in its own frame.
    return backend.write_whole(SecretReference.parse(reference), wrapped(fields), version=version, timeout=timeout)


def not_written(kind: type[SecretSourceError], backend: AwsBackend, reference: str, fields: Any, version: Any) -> str:
    fields = wrapped(fields)
    with pytest.raises(kind) as caught:
        write(backend, reference, fields, version)
    assert caught.value.hint
    assert not shows(caught.value)
    return str(caught.value)


def test_one_field_is_altered_and_everything_else_stays_in_its_order(moto: Moto) -> None:
    stored = {"zone": {"b": 1, "a": [True, None, 1.5]}, "client_secret": CANARY, "client_id": "pos", "port": 5432}
    name, backend = moto.create(stored), moto.backend()
    read = backend.read_whole(SecretReference.parse(f"aws://{name}"), timeout=20)
    version = write(backend, f"aws://{name}", {**read.fields, "client_secret": NEW}, read.version)
    assert json.dumps(json.loads(moto.text(name))) == json.dumps({**stored, "client_secret": NEW})
    labels = moto.labels(name)
    assert labels == {"AWSCURRENT": version, "AWSPREVIOUS": read.version}, "our own label is taken off"


def test_a_plain_text_stays_one(moto: Moto) -> None:
    name, backend = moto.create(CANARY), moto.backend()
    read = backend.read_whole(SecretReference.parse(f"aws://{name}"), timeout=20)
    assert revealed(read.fields) == {"client_secret": CANARY}
    write(backend, f"aws://{name}", {"client_secret": NEW}, read.version)
    assert moto.text(name) == NEW
    version = moto.labels(name)["AWSCURRENT"]
    said = not_written(ConfigurationError, backend, f"aws://{name}", {"client_secret": "x", "client_id": "p"}, version)
    assert "one text" in said


def test_what_is_the_same_makes_no_new_version(moto: Moto) -> None:
    name, backend = moto.create({"client_secret": CANARY}), moto.backend()
    version = moto.labels(name)["AWSCURRENT"]
    assert write(backend, f"aws://{name}", {"client_secret": CANARY}, version) == version
    assert moto.labels(name) == {"AWSCURRENT": version}


def test_a_secret_that_is_not_there_is_created_under_a_name_only(moto: Moto) -> None:
    name, backend = moto.fresh_name(), moto.backend()
    version = write(backend, f"aws://{name}", {"client_id": "pos", "client_secret": NEW}, None)
    assert json.loads(moto.text(name)) == {"client_id": "pos", "client_secret": NEW}
    assert moto.labels(name) == {"AWSCURRENT": version}
    text = moto.fresh_name()
    write(backend, f"aws://{text}?format=text", {"client_secret": NEW}, None)
    assert moto.text(text) == NEW
    arn = SecretReference.parse(f"aws://{ARN.replace('prod', 'nothing')}")
    with pytest.raises(SecretNotFound):
        backend.read_whole(arn, timeout=20)


def test_one_that_is_scheduled_for_deletion_is_not_taken_for_a_missing_one(moto: Moto) -> None:
    name = moto.create("x")
    moto.client.delete_secret(SecretId=name)
    with pytest.raises(SecretNotFound, match="restore-secret"):
        moto.backend().read_whole(SecretReference.parse(f"aws://{name}"), timeout=20)


@pytest.mark.parametrize("pinned", ["stage=AWSPREVIOUS", "stage=AWSCURRENT", f"version={CURRENT_ID}"])
def test_a_pinned_reference_is_not_written(moto: Moto, pinned: str) -> None:
    backend, reference = moto.backend(), f"aws://prod/pos?{pinned}"
    not_written(ConfigurationError, backend, reference, {"client_secret": NEW}, None)
    with pytest.raises(ConfigurationError):
        backend.read_whole(SecretReference.parse(reference), timeout=20)


def test_a_value_that_is_too_large_or_no_text_is_not_written(moto: Moto) -> None:
    name, backend = moto.create({"client_secret": CANARY, "port": 1}), moto.backend()
    version = moto.labels(name)["AWSCURRENT"]
    for fields in ({"client_secret": "x" * 65536, "port": 1}, {"client_secret": NEW, "port": 2}):
        not_written(ConfigurationError, backend, f"aws://{name}", fields, version)
    assert moto.labels(name) == {"AWSCURRENT": version}


class Secret:
    """A secret with labels as AWS keeps them, and what a test does between two calls."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {CURRENT_ID: json.dumps({"client_secret": "old"})}
        self.labels: dict[str, str] = {"AWSCURRENT": CURRENT_ID}
        self.exists = True
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}

    def __call__(self, asked: Asked) -> Any:
        early = self.before.pop(asked.operation, lambda: None)()
        answer = early if early is not None else self._answer(asked)
        late = self.after.pop(asked.operation, None)
        return answer if late is None else late

    def _answer(self, asked: Asked) -> Any:
        body = asked.body
        if asked.operation == "GetSecretValue":
            version = self.labels.get(body["VersionStage"])
            if version is None:
                return refused("ResourceNotFoundException")
            return value(self.versions[version], body["VersionStage"], version)
        if asked.operation == "CreateSecret":
            if self.exists:
                return refused("ResourceExistsException")
            self.exists = True
            self.versions[body["ClientRequestToken"]] = body["SecretString"]
            self.labels["AWSCURRENT"] = body["ClientRequestToken"]
            return {"ARN": ARN, "VersionId": body["ClientRequestToken"]}
        if asked.operation == "PutSecretValue":
            stages = [*body["VersionStages"], *([] if self.versions else ["AWSCURRENT"])]
            self.versions[body["ClientRequestToken"]] = body["SecretString"]
            self.labels.update(dict.fromkeys(stages, body["ClientRequestToken"]))
            return {"ARN": ARN, "VersionId": body["ClientRequestToken"], "VersionStages": stages}
        stage, held = body["VersionStage"], self.labels.get(body["VersionStage"])
        if held != body.get("RemoveFromVersionId"):
            return refused("InvalidParameterException", f"attached to version {held}")
        if "MoveToVersionId" in body:
            self.labels[stage] = body["MoveToVersionId"]
        else:
            del self.labels[stage]
        return {"ARN": ARN}

    def overtake(self) -> None:
        self.versions[PENDING_ID] = json.dumps({"client_secret": "theirs"})
        self.labels["AWSCURRENT"] = PENDING_ID


def test_whoever_loses_the_race_between_reading_and_moving_the_label_is_told_and_changes_nothing() -> None:
    for operation in ("GetSecretValue", "PutSecretValue", "UpdateSecretVersionStage"):
        secret = Secret()
        secret.before[operation] = secret.overtake
        with Scripted(secret) as aws:
            said = not_written(BackendUnavailable, aws.backend(), "aws://p", {"client_secret": NEW}, CURRENT_ID)
        assert "changed by somebody else" in said
        assert secret.labels == {"AWSCURRENT": PENDING_ID}, operation


def test_an_answer_that_is_lost_after_the_label_moved_is_no_lost_race() -> None:
    secret = Secret()
    secret.after["UpdateSecretVersionStage"] = refused("InternalServiceError", status=500)
    with Scripted(secret) as aws:
        version = write(aws.backend(attempts=3), "aws://p", {"client_secret": NEW}, CURRENT_ID)
    assert secret.labels == {"AWSCURRENT": version}


def test_an_answer_that_is_lost_after_the_secret_was_created_is_no_lost_race() -> None:
    secret = Secret()
    secret.versions, secret.labels, secret.exists = {}, {}, False
    secret.after["CreateSecret"] = refused("InternalServiceError", status=500)
    with Scripted(secret) as aws:
        version = write(aws.backend(attempts=3), "aws://p", {"client_secret": NEW}, None)
    assert secret.labels["AWSCURRENT"] == version


def test_a_secret_that_was_made_without_a_value_gets_its_first() -> None:
    secret = Secret()
    secret.versions, secret.labels = {}, {}
    with Scripted(secret) as aws:
        backend = aws.backend()
        assert backend.read_whole(SecretReference.parse("aws://p"), timeout=20)[:2] == ({}, None)
        version = write(backend, "aws://p", {"client_secret": NEW}, None)
    assert secret.labels == {"AWSCURRENT": version}


def test_a_read_that_is_stale_at_first_is_waited_for() -> None:
    secret = Secret()
    stale = value(secret.versions[CURRENT_ID])
    with Scripted(secret) as aws:
        reads = iter([None, lambda: stale, lambda: stale])

        def between(asked: Asked) -> Any:
            early = next(reads, None) if asked.operation == "GetSecretValue" else None
            return secret(asked) if early is None else early()

        aws.script = between
        write(aws.backend(), "aws://p", {"client_secret": NEW}, CURRENT_ID)
        assert [asked.operation for asked in aws.asked].count("GetSecretValue") == 4


def test_who_may_not_create_a_secret_is_told_how_to_have_it_made() -> None:
    secret = Secret()
    secret.versions, secret.labels = {}, {}
    secret.before["CreateSecret"] = lambda: refused("AccessDeniedException", CANARY)
    with Scripted(secret) as aws:
        said = not_written(AccessDenied, aws.backend(), "aws://prod/pos", {"client_secret": NEW}, None)
    assert "aws secretsmanager create-secret --name prod/pos" in said


def test_only_the_first_region_is_written() -> None:
    with Scripted(Secret()) as aws:
        write(aws.backend(), "aws://p?regions=eu-west-1,eu-central-1", {"client_secret": NEW}, CURRENT_ID)
        assert set(aws.regions) == {"eu-west-1"}
