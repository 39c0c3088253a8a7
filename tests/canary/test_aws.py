"""Secrets Manager: keys and session tokens of AWS and the secrets behind them, by moto and by a script."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest

from secretsource import CredentialsSource, SecretReference
from secretsource.backends.aws import AwsBackend
from secretsource.backends.formats import wrapped
from secretsource.errors import BackendUnavailable, CredentialsRejected, SecretSourceError
from secretsource.testing import Answer, FakeIssuer, Fault, Incoming, LoopbackServer

from ..backends.secrets_manager import REGION, Asked, Moto, Scripted, given, moto_server, refused, value
from .canaries import SPECIAL, Canaries
from .cases import the_rest_slow
from .watch import Watch

REFERENCE = "aws://prod/pos"
EXPIRES = "2040-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with moto_server() as moto:
        yield moto


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)


@pytest.fixture
def keys(watch: Watch) -> tuple[str, str]:
    """The secret key and the session token of this process."""
    return watch.canary("AWS secret key"), watch.canary("AWS session token")


@pytest.fixture
def session(keys: tuple[str, str]) -> Any:
    return boto3.Session("AKIDTESTING", *keys, region_name=REGION)


class Stored(NamedTuple):
    """What somebody has put into Secrets Manager, before anybody watched: boto3 logs what it sends."""

    name: str
    old: str
    new: str


@pytest.fixture
def stored(moto: Moto) -> Stored:
    canaries = Canaries()
    old, new = canaries.new("client secret", SPECIAL), canaries.new("new client secret", SPECIAL)
    name = moto.create({"client_id": "pos", "client_secret": old})
    moto.put(name, {"client_id": "pos", "client_secret": new}, "AWSPENDING")
    return Stored(name, old, new)


# --- a good way ------------------------------------------------------------------------------------------------------


def test_a_secret_that_is_changed(stored: Stored, moto: Moto, watch: Watch, session: Any, issuer: FakeIssuer) -> None:
    watch.canary_of("client secret", stored.old)
    watch.canary_of("new client secret", stored.new)
    backend = watch.look(AwsBackend(session=session, endpoint_url=moto.url))
    issuer.add_client("pos", stored.old)
    source = watch.source(f"aws://{stored.name}", stores={"aws": backend}, issuer=issuer.url)
    watch.canary_of("access token", watch.gives(source.token).access_token)
    issuer.set_secret("pos", stored.new)
    watch.gives(lambda: source.token(force=True))
    issuer.set_secret("pos", "not-a-real-secret-of-nobody")
    watch.fails(CredentialsRejected, lambda: source.token(force=True))
    watch.look(source)
    watch.look(backend)


def test_a_secret_that_is_written(stored: Stored, moto: Moto, watch: Watch, session: Any) -> None:
    watch.canary_of("client secret", stored.old)
    backend, reference = (
        AwsBackend(session=session, endpoint_url=moto.url),
        SecretReference.parse(f"aws://{stored.name}"),
    )
    before = watch.gives(lambda: backend.read_whole(reference, timeout=20))
    fields = wrapped({"client_id": "pos", "client_secret": watch.canary("written secret", SPECIAL)})
    watch.gives(lambda: backend.write_whole(reference, fields, version=before.version, timeout=20))
    watch.fails(SecretSourceError, lambda: backend.write_whole(reference, fields, version=before.version, timeout=20))


def test_keys_of_the_environment_and_of_a_profile(watch: Watch, keys: tuple[str, str]) -> None:
    watch.setenv("AWS_ACCESS_KEY_ID", "AKIDTESTING")
    watch.setenv("AWS_SECRET_ACCESS_KEY", keys[0])
    watch.setenv("AWS_SESSION_TOKEN", keys[1])
    profile = f"[other]\naws_access_key_id = AKIDOTHER\naws_secret_access_key = {watch.canary('key of a profile')}\n"
    watch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(watch.put("credentials", profile)))
    with Scripted(lambda asked: value(secret)) as aws:
        secret = watch.canary("client secret", SPECIAL)
        for settings in ({}, {"profile": "other"}):
            backend = AwsBackend(endpoint_url=aws.origin, region=REGION, **settings)  # type: ignore[arg-type]
            watch.gives(lambda backend=backend: read(backend))  # type: ignore[misc]
            watch.look(backend)
    assert {asked.key for asked in aws.asked} == {"AKIDTESTING", "AKIDOTHER"}


def test_keys_of_a_service_that_gives_them(watch: Watch) -> None:
    answered = {"AccessKeyId": "AKIDROLE", "SecretAccessKey": watch.canary("key of the role"), "Expiration": EXPIRES}
    answered["Token"] = watch.canary("token of the role")
    authorization = watch.canary("token for the service")

    def answer(incoming: Incoming) -> Answer:
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(answered).encode())

    with LoopbackServer(answer) as service, Scripted(lambda asked: value("not-a-real-secret")) as aws:
        watch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{service.origin}/keys")
        watch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", authorization)
        backend = AwsBackend(endpoint_url=aws.origin, region=REGION)
        watch.gives(lambda: read(backend))
        watch.look(backend)


@pytest.mark.parametrize("script", ["prints them", "prints no JSON", "ends badly"])
def test_keys_of_a_program_that_gives_them(watch: Watch, script: str) -> None:
    key = watch.canary("key of the program")
    said = {"Version": 1, "AccessKeyId": "AKIDPROGRAM", "SecretAccessKey": key, "SessionToken": key}
    text = json.dumps(said) if script == "prints them" else f"no {key} today"
    program = watch.put("program", f"#!/bin/sh\ncat <<'EOF'\n{text}\nEOF\nexit {int(script == 'ends badly')}\n", 0o700)
    config = watch.put("config", f"[default]\ncredential_process = {program}\nregion = {REGION}\n")
    watch.setenv("AWS_CONFIG_FILE", str(config))
    with Scripted(lambda asked: value("not-a-real-secret")) as aws:
        backend = AwsBackend(endpoint_url=aws.origin)
        watch.ends(lambda: read(backend))
        watch.look(backend)


# --- what AWS answers ------------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    secret: str
    key: str
    token: str

    def __repr__(self) -> str:
        return "<Shown>"


def _all(shown: Shown) -> str:
    return f"{shown.secret} {shown.key} {shown.token}"


def _refused(shown: Shown, code: str, status: int) -> Answer:
    return refused(code, _all(shown), status)


ANSWERS: dict[str, Callable[[Shown], Answer | Mapping[str, Any]]] = {
    **{
        f"{code} {status}": partial(_refused, code=code, status=status)
        for code, status in (
            ("AccessDeniedException", 400), ("DecryptionFailure", 400), ("InvalidSignatureException", 400),
            ("ExpiredTokenException", 400), ("ResourceNotFoundException", 400), ("InvalidRequestException", 400),
            ("ThrottlingException", 400), ("InternalServiceError", 500), ("InvalidParameterException", 400),
        )
    },
    "a code that is a secret": lambda shown: refused(shown.key, shown.secret),
    "HTML": lambda shown: Answer(403, {"Content-Type": "text/html"}, f"<p>{_all(shown)}</p>".encode()),
    "a body that is cut": lambda shown: given(value(_all(shown)), fault=Fault(cut_after=150)),
    "a body that is no JSON": lambda shown: Answer(200, {}, f'{{"SecretString": "{shown.token}'.encode()),
    "a reset": lambda shown: given({}, fault=Fault(reset=True)),
    "a redirect": lambda shown: Answer(307, {"Location": f"https://elsewhere.example/?{shown.token}"}),
    "a secret that is no text": lambda shown: value(None, SecretString={"a": shown.secret}),  # type: ignore[arg-type]
    "a secret in bytes": lambda shown: value(None, SecretBinary="bm90LWEtc2VjcmV0/w=="),  # type: ignore[arg-type]
    "a document that is cut": lambda shown: value(f'{{"client_id": "pos", "client_secret": "{shown.token}'),
    "a document of other names": lambda shown: value(json.dumps({"a": shown.secret})),
    "headers that are secrets": lambda shown: Answer(500, {"x-amzn-errortype": shown.key, "x-a": shown.token}, b""),
    "too much": lambda shown: Answer(200, {}, json.dumps(value(_all(shown))).encode() + b" " * (2 << 20)),
}  # fmt: skip


def read(backend: AwsBackend, reference: str = REFERENCE, timeout: float = 20.0) -> object:
    return backend.read(SecretReference.parse(reference), fresh=True, timeout=timeout)


USUAL = (
    "AccessDeniedException 400", "ThrottlingException 400", "a code that is a secret", "HTML", "a body that is cut",
    "a body that is no JSON", "a document that is cut", "headers that are secrets",
)  # fmt: skip


@pytest.mark.parametrize("answer", the_rest_slow(ANSWERS, *USUAL))
def test_an_answer_of_aws(watch: Watch, session: Any, keys: tuple[str, str], answer: str) -> None:
    shown = Shown(watch.canary("client secret", SPECIAL), *keys)
    with Scripted(lambda asked: ANSWERS[answer](shown)) as aws:
        backend = AwsBackend(session=session, endpoint_url=aws.origin, attempts=1)
        source = CredentialsSource(REFERENCE, stores={"aws": backend}, on_event=watch.events)
        watch.fails(SecretSourceError, source.current)


@pytest.mark.parametrize("answer", the_rest_slow(ANSWERS, "a body that is cut", "HTML", "AccessDeniedException 400"))
def test_an_answer_of_aws_to_who_writes(watch: Watch, session: Any, keys: tuple[str, str], answer: str) -> None:
    shown = Shown(watch.canary("client secret", SPECIAL), *keys)
    fields, reference = wrapped({"client_id": "pos", "client_secret": shown.secret}), SecretReference.parse(REFERENCE)

    def script(asked: Asked) -> Answer | Mapping[str, Any]:
        if asked.operation == "GetSecretValue":
            return value(json.dumps({"client_id": "pos", "client_secret": "not-a-real-secret"}))
        return ANSWERS[answer](shown)  # which is not always one that a writer minds

    with Scripted(script) as aws:
        backend = AwsBackend(session=session, endpoint_url=aws.origin, attempts=1)
        watch.ends(lambda: backend.write_whole(reference, fields, version="1" * 32, timeout=20))


def test_an_aws_that_is_down_or_slow(watch: Watch, session: Any, keys: tuple[str, str]) -> None:
    with Scripted(lambda asked: given({}, fault=Fault(hang=True))) as aws:
        backend = AwsBackend(session=session, endpoint_url=aws.origin, attempts=1, read_timeout=0.2)
        watch.fails(SecretSourceError, lambda: read(backend))
        watch.fails(SecretSourceError, lambda: read(backend, timeout=0.2))
    watch.fails(BackendUnavailable, lambda: read(backend))


PASTED: dict[str, Callable[[str], object]] = {
    "a session": lambda s: AwsBackend(session=s),
    "a key": lambda s: AwsBackend(aws_secret_access_key=s),  # type: ignore[call-arg]
    "a role": lambda s: AwsBackend(role_arn=s),
    "a region": lambda s: AwsBackend(region=s),
    "an endpoint with a password": lambda s: AwsBackend(endpoint_url=f"https://user:{s}@aws.example.com"),
    "a proxy that is none": lambda s: AwsBackend(proxy=s),
    "a proxy beside what is wrong": lambda s: AwsBackend(proxy=f"http://user:{s}@proxy:1", attempts=99),
    "a proxy that is down": lambda s: read(
        AwsBackend(session=boto3.Session("a", "b"), region=REGION, proxy=f"http://user:{s}@127.0.0.1:9", attempts=1)
    ),
}


@pytest.mark.parametrize("pasted", PASTED)
def test_a_secret_that_is_pasted_where_none_belongs(watch: Watch, pasted: str) -> None:
    one = [watch.canary("pasted", "{}notarealsecret{}")]
    watch.ends(lambda: PASTED[pasted](one.pop()))
