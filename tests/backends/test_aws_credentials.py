"""Where the credentials for AWS come from: in time, by nobody's proxy, and for whom they are meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from secretsource import SecretReference
from secretsource.backends.aws import AwsBackend
from secretsource.backends.aws.faults import fault_of
from secretsource.clock import Deadline
from secretsource.errors import AccessDenied, BackendUnavailable, DeadlineExceeded
from secretsource.testing import Answer, Incoming, LoopbackServer

from ..stores import in_threads
from .layouts import CANARY, revealed, shows
from .secrets_manager import ACCESS_KEY, REGION, Scripted, always, given, session, value
from .test_aws_faults import ASSUMED as ASSUMED_ROLE
from .test_aws_faults import ROLE, SECRETS, AwsHosts

FOREVER = "2999-01-01T00:00:00Z"


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_") or name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def read(backend: AwsBackend, reference: str = "aws://prod/pos", *, fresh: bool = False, timeout: float = 20.0) -> Any:
    return backend.read(SecretReference.parse(reference), fresh=fresh, timeout=timeout)


class Program:
    """A credential_process, which is slow or hangs."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._runs = folder, folder / "runs"

    def takes(self, seconds: float, expires: str | None = None) -> None:
        given_out = {"Version": 1, "AccessKeyId": "AKIDPROGRAM", "SecretAccessKey": "testing", "SessionToken": "t"}
        if expires is not None:
            given_out["Expiration"] = expires
        code = self._folder / "program.py"
        code.write_text(
            f"import time; open({str(self._runs)!r}, 'a').write('x'); time.sleep({seconds})\n"
            f"print({json.dumps(given_out)!r})\n"
        )
        (self._folder / "config").write_text(f"[default]\ncredential_process = {sys.executable} -S -E {code}\n")

    @property
    def runs(self) -> int:
        return len(self._runs.read_text()) if self._runs.exists() else 0


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


# --- in time


@pytest.mark.parametrize("fresh", [False, True])
def test_a_program_that_hangs_ends_the_read_at_its_deadline(program: Program, fresh: bool) -> None:
    program.takes(4.0)
    with Scripted(always(value(CANARY))) as aws:
        backend = aws.backend(session=None, region=REGION)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            read(backend, fresh=fresh, timeout=0.5)
        assert time.monotonic() - began < 3.0
        assert "AWS credentials" in str(caught.value)
        assert not shows(caught.value)
        assert aws.asked == []


def test_a_program_that_is_slow_is_started_once_for_all_who_wait(program: Program) -> None:
    program.takes(1.5)
    with Scripted(lambda asked: value("here", str(asked.stage))) as aws:
        backend = aws.backend(session=None, region=REGION)
        with pytest.raises(DeadlineExceeded):
            read(backend, timeout=0.2)  # what it began goes on
        in_threads(4, lambda: read(backend, fresh=True))
    assert program.runs == 1
    assert {asked.key for asked in aws.asked} == {"AKIDPROGRAM"}


def test_credentials_that_are_still_good_serve_while_their_renewal_hangs(program: Program) -> None:
    # They live so short that botocore wants new ones at each request.
    program.takes(0.0, (datetime.now(UTC) + timedelta(minutes=5)).isoformat())
    with Scripted(always(value("here"))) as aws:
        backend = aws.backend(session=None, region=REGION)
        read(backend)
        before = program.runs
        program.takes(6.0, FOREVER)
        # The program was named when the session was made; it is the same file.
        for _ in range(2):
            assert revealed(read(backend).text) == "here"
        assert program.runs == before + 1, "the one that goes on is joined"


def test_clients_for_several_regions_are_made_one_at_a_time(program: Program) -> None:
    program.takes(0.3)
    with Scripted(always(value("here"))) as aws:
        backend = aws.backend(session=None)
        regions = iter(["eu-west-1", "eu-central-1", "us-east-1", "eu-north-1"])
        in_threads(4, lambda: read(backend, f"aws://prod/pos?region={next(regions)}"))
    assert sorted(aws.regions) == ["eu-central-1", "eu-north-1", "eu-west-1", "us-east-1"]
    assert program.runs == 1


def test_no_lock_is_held_while_credentials_are_found(program: Program) -> None:
    program.takes(3.0)
    with Scripted(always(value("here"))) as aws:
        clients = aws.backend(session=None, region=REGION)._calls._clients.get()
        waiting = threading.Thread(target=clients.client, args=(REGION, Deadline(20.0), Deadline(20.0)))
        waiting.start()
        try:
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                clients.client(REGION, Deadline(0.1), Deadline(0.1))
            clients.forget()
            assert time.monotonic() - began < 2.0
        finally:
            waiting.join()


# --- by nobody's proxy


def role_keys(incoming: Incoming) -> Answer:
    """The metadata service of a machine, and that of a container."""
    if incoming.path.endswith("/token"):
        return Answer(200, {}, b"token-of-the-metadata-service")
    if incoming.path.endswith("/security-credentials/"):
        return Answer(200, {}, b"pos")
    keys = {"AccessKeyId": "AKIDROLE", "SecretAccessKey": CANARY, "Token": CANARY, "Expiration": FOREVER}
    return Answer(200, {"Content-Type": "application/json"}, json.dumps({"Code": "Success", **keys}).encode())


@pytest.mark.parametrize("source", ["machine", "container", "profile"])
def test_the_keys_of_a_role_do_not_go_through_the_proxy_of_the_environment(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    met: list[str] = []

    def proxy(incoming: Incoming) -> Answer:
        met.append(incoming.path)
        return Answer(502)

    service, elsewhere = LoopbackServer(role_keys), LoopbackServer(proxy)
    with service, elsewhere, Scripted(always(value("here"))) as aws:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, elsewhere.origin)
        if source == "container":
            monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{service.origin}/keys")
        else:
            monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.origin)
            monkeypatch.setenv("AWS_DEFAULTS_MODE", "auto")
        backend = aws.backend(session=None, region=REGION)
        if source == "profile":  # a role by the machine's own: STS is where it ends here
            config = f"[default]\nrole_arn = {ROLE}\ncredential_source = Ec2InstanceMetadata\nregion = {REGION}\n"
            (tmp_path / "config").write_text(config)
            monkeypatch.setattr("secretsource.backends.aws.wire._Wire.send", by_sts(aws))
        assert revealed(read(backend).text) == "here"
    assert met == []
    assert {asked.key for asked in aws.asked} == {"AKIDASSUMED" if source == "profile" else "AKIDROLE"}


def by_sts(aws: Scripted) -> Any:
    """What the wire does, with an STS that gives the role to everybody."""
    from secretsource.backends.aws import wire
    from secretsource.exchange import Answer as Received

    send = wire._Wire.send

    def sent(self: Any, request: Any) -> Any:
        if not request.url.startswith(aws.origin):
            return wire._received(request.url, Received(200, {"content-type": "text/xml"}, ASSUMED_ROLE.encode()))
        return send(self, request)

    return sent


def test_a_botocore_without_the_attributes_that_are_exchanged_is_left_as_it_is() -> None:
    from secretsource.backends.aws.wire import _ask_directly

    _ask_directly(object())
    _ask_directly(type("Chain", (), {"providers": [object()]})())


def test_the_environment_brings_no_rules_for_endpoints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rules = tmp_path / "models" / "secretsmanager" / "2017-10-17"
    rules.mkdir(parents=True)
    endpoint = {"type": "endpoint", "conditions": [], "endpoint": {"url": "https://elsewhere.example"}}
    (rules / "endpoint-rule-set-1.json").write_text(
        json.dumps({"version": "1.0", "parameters": {}, "rules": [endpoint]})
    )
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path / "models"))
    met: list[str] = []

    def answer(incoming: Incoming) -> Answer:
        met.append(incoming.headers["host"])
        return given(value("here"))

    with AwsHosts(answer, tmp_path) as hosts:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(hosts.authorities))
        hosts.dead.add("elsewhere.example")
        backend = AwsBackend(session=session(), proxy=hosts.proxy, attempts=1)
        assert revealed(read(backend).text) == "here"
    assert met == [SECRETS]


# --- for whom they are meant


def test_the_profile_of_the_environment_does_not_matter_where_a_session_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[profile pos]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = x\n")
    with_keys = session()
    monkeypatch.setenv("AWS_PROFILE", "nope")
    with_profile = boto3.Session(profile_name="pos", region_name=REGION)
    with Scripted(always(value("here"))) as aws:
        for mine in (with_keys, with_profile):
            assert revealed(read(AwsBackend(session=mine, endpoint_url=aws.origin)).text) == "here"
    assert [asked.key for asked in aws.asked] == [ACCESS_KEY, "AKIDPROFILE"]


@pytest.mark.parametrize("where", ["environment", "profile"])
def test_a_role_is_assumed_also_by_credentials_that_are_found(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[tuple[str, str]] = []

    def answer(incoming: Incoming) -> Answer:
        key = incoming.headers["authorization"].partition("Credential=")[2].partition("/")[0]
        host = incoming.headers["host"]
        signed.append((host, key))
        if host.startswith("sts."):
            return Answer(200, {"Content-Type": "text/xml"}, ASSUMED_ROLE.encode())
        return given(value("here"))

    options: dict[str, Any] = {}
    if where == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDBASE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    else:
        (tmp_path / "config").write_text("[profile pos]\naws_access_key_id = AKIDBASE\naws_secret_access_key = x\n")
        options = {"profile": "pos"}
    with AwsHosts(answer, tmp_path) as hosts:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(hosts.authorities))
        backend = AwsBackend(region=REGION, role_arn=ROLE, proxy=hosts.proxy, attempts=1, **options)
        assert revealed(read(backend).text) == "here"
    assert signed == [("sts.eu-west-1.amazonaws.com", "AKIDBASE"), (SECRETS, "AKIDASSUMED")]


def test_a_web_page_in_place_of_sts_is_no_refusal_of_the_role(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Answer(403, {"Content-Type": "text/html"}, f"<html><body>{CANARY}</body></html>".encode())
    with AwsHosts(lambda _: page, tmp_path) as hosts:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(hosts.authorities))
        backend = AwsBackend(session=session(), role_arn=ROLE, proxy=hosts.proxy, attempts=1)
        with pytest.raises(BackendUnavailable) as caught:
            read(backend)
    assert not shows(caught.value)


@pytest.mark.parametrize(
    ("code", "operation"),
    [
        ("ResourceNotFoundException", "GetRoleCredentials"),
        ("ForbiddenException", "GetRoleCredentials"),
        ("InvalidIdentityToken", "AssumeRoleWithWebIdentity"),
        ("AccessDenied", "AssumeRoleWithWebIdentity"),
    ],
)
def test_what_is_refused_with_the_credentials_is_not_said_of_the_secret(code: str, operation: str) -> None:
    from botocore.exceptions import ClientError

    answer: Any = {"Error": {"Code": code, "Message": CANARY}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    fault = fault_of(ClientError(answer, operation), None, REGION)
    error = fault.error(SecretReference.parse("aws://prod/pos"))
    assert type(error) is AccessDenied
    assert "the credentials of its role" in str(error)
    assert CANARY not in f"{error} {vars(error)}"


def test_a_role_that_is_not_there_does_not_make_a_secret_seem_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError

    def session_of(settings: object) -> Any:
        raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "GetRoleCredentials")

    monkeypatch.setattr("secretsource.backends.aws.wire.session_of", session_of)
    with pytest.raises(AccessDenied):
        AwsBackend(region=REGION).read_whole(SecretReference.parse("aws://prod/pos"), timeout=5.0)


def test_a_service_that_cannot_be_reached_may_be_there_later() -> None:
    from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, SSLError

    for kind in (EndpointConnectionError, ConnectTimeoutError):
        fault = fault_of(kind(endpoint_url="https://sts.amazonaws.com/"), None, REGION)
        assert (fault.kind, fault.transient) == (BackendUnavailable, True)
    assert not fault_of(SSLError(endpoint_url="https://sts.amazonaws.com/", error="x"), None, REGION).transient


def test_nothing_secret_is_logged_while_credentials_are_found_on_a_thread_of_their_own() -> None:
    source = """
import json, logging, os, sys
records = []
class Kept(logging.Handler):
    def emit(self, record):
        records.append(f"{record.name} {record.getMessage()} {record.args!r}")
logging.basicConfig(level=1, handlers=[Kept()])
from tests.backends.secrets_manager import *
from tests.backends.test_aws_credentials import role_keys
from secretsource import SecretReference
from secretsource.testing import LoopbackServer
with LoopbackServer(role_keys) as service, Scripted(always(value("here"))) as aws:
    os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"{service.origin}/keys"
    backend = AwsBackend(region=REGION, endpoint_url=aws.origin)
    backend.read(SecretReference.parse("aws://prod/pos"), fresh=False, timeout=60)
assert len(aws.asked) == 1
assert [text for text in records if text.startswith(("botocore", "urllib3", "boto3"))] == []
"""
    variables = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "PATH": os.environ["PATH"]}
    ran = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=100, check=False, env=variables
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
