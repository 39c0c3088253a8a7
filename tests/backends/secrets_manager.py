"""Secrets Manager for tests: moto's server, and one that answers by a script what moto does not.

Where moto differs from AWS nothing here is built on it: values are asked for with their label, AWSCURRENT is moved with
RemoveFromVersionId, a label goes to one version at a time, errors are told apart by their code and not by their status.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from secretsource.backends.aws import AwsBackend
from secretsource.testing import Answer, Fault, Incoming, LoopbackServer

REGION = "eu-west-1"
ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = "AKIDTESTING", "testing-secret-access-key", "testing-session-token"
CURRENT_ID, PENDING_ID, PREVIOUS_ID = (f"{digit}" * 32 for digit in "123")
ARN = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:prod/pos-AbCdEf"
REQUEST_ID = "0d0f9a3c-testing-request-id"

_numbers = itertools.count(1)


def session(region: str | None = REGION) -> Any:
    """An explicit session, so that nothing of the machine's AWS configuration is used."""
    return boto3.Session(ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, region_name=region)


class Moto:
    """moto's server, with a name of its own for each secret."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = session().client("secretsmanager", endpoint_url=url)

    def backend(self, **options: Any) -> AwsBackend:
        return AwsBackend(**{"session": session(), "endpoint_url": self.url, **options})

    def fresh_name(self) -> str:
        return f"test/pos-of-test-{next(_numbers)}"

    def create(self, value: str | bytes | Mapping[str, Any], name: str | None = None) -> str:
        """Its name."""
        name = name or self.fresh_name()
        self.client.create_secret(Name=name, **_as_value(value))
        return name

    def put(self, name: str, value: str | bytes | Mapping[str, Any], stage: str = "AWSCURRENT") -> str:
        """The version's ID."""
        answer = self.client.put_secret_value(SecretId=name, VersionStages=[stage], **_as_value(value))
        version: str = answer["VersionId"]
        return version

    def promote(self, name: str) -> None:
        """AWSPENDING to AWSCURRENT, which takes AWSPREVIOUS along; then AWSPENDING is taken off."""
        labels = self.labels(name)
        pending = labels["AWSPENDING"]
        for stage, target in (("AWSCURRENT", {"MoveToVersionId": pending}), ("AWSPENDING", {})):
            self.client.update_secret_version_stage(
                SecretId=name, VersionStage=stage, RemoveFromVersionId=labels[stage], **target
            )

    def labels(self, name: str) -> dict[str, str]:
        versions = self.client.describe_secret(SecretId=name)["VersionIdsToStages"]
        return {label: version for version, labels in versions.items() for label in labels}

    def text(self, name: str) -> str:
        value: str = self.client.get_secret_value(SecretId=name, VersionStage="AWSCURRENT")["SecretString"]
        return value


@contextmanager
def moto_server() -> Iterator[Moto]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield Moto(f"http://{host}:{port}")
    finally:
        server.stop()


def _as_value(value: str | bytes | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(value, bytes):
        return {"SecretBinary": value}
    return {"SecretString": value if isinstance(value, str) else json.dumps(dict(value))}


class Asked:
    """One call as it arrived."""

    def __init__(self, incoming: Incoming) -> None:
        self.operation = incoming.headers.get("x-amz-target", "").partition(".")[2]
        scope = re.search(r"Credential=([^/]+)/\d+/([^/]+)/", incoming.headers.get("authorization", ""))
        self.key, self.region = (scope[1], scope[2]) if scope else ("", "")
        self.body: dict[str, Any] = json.loads(incoming.body or b"{}")

    @property
    def stage(self) -> str | None:
        return self.body.get("VersionStage")


class Scripted:
    """Answers each call with what `script` returns for it: an Answer, or a mapping as AWS would give it."""

    def __init__(self, script: Callable[[Asked], Answer | Mapping[str, Any]]) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self._server = LoopbackServer(self._answer)

    def __enter__(self) -> Scripted:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    @property
    def origin(self) -> str:
        return self._server.origin

    def backend(self, **options: Any) -> AwsBackend:
        return AwsBackend(**{"session": session(), "endpoint_url": self.origin, "attempts": 1, **options})

    @property
    def regions(self) -> list[str]:
        return [asked.region for asked in self.asked]

    def _answer(self, incoming: Incoming) -> Answer:
        asked = Asked(incoming)
        self.asked.append(asked)
        answer = self.script(asked)
        return answer if isinstance(answer, Answer) else given(answer)


def given(body: Mapping[str, Any], status: int = 200, fault: Fault | None = None) -> Answer:
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-requestid": REQUEST_ID}
    return Answer(status, headers, json.dumps(dict(body)).encode(), fault or Fault())


def refused(code: str, message: str = "", status: int = 400) -> Answer:
    return given({"__type": code, "message": message}, status)


def value(text: str, stage: str = "AWSCURRENT", version: str = CURRENT_ID, **members: Any) -> dict[str, Any]:
    """What GetSecretValue answers."""
    answer = {
        "ARN": ARN,
        "Name": "prod/pos",
        "VersionId": version,
        "SecretString": text,
        "VersionStages": [stage],
        "CreatedDate": 1.7e9,
    }
    return {name: member for name, member in {**answer, **members}.items() if member is not None}


def always(answer: Answer | Mapping[str, Any]) -> Callable[[Asked], Answer | Mapping[str, Any]]:
    return lambda asked: answer
