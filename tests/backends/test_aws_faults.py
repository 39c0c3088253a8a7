"""What each error of AWS and botocore becomes, and that none of them shows or keeps anything."""

from __future__ import annotations

import itertools
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import trustme

from secretsource import SecretReference
from secretsource.backends.aws import AwsBackend
from secretsource.errors import (
    AccessDenied,
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    DeadlineExceeded,
    MalformedSecret,
    SecretNotFound,
    SecretSourceError,
)
from secretsource.testing import Answer, Fault, Incoming, LoopbackServer

from .layouts import CANARY, revealed, shows
from .secrets_manager import ARN, REGION, REQUEST_ID, Scripted, always, given, refused, session, value

REFERENCE = "aws://prod/pos"
HTML = Answer(200, {"Content-Type": "text/html"}, f"<html>{CANARY}</html>".encode())


def read(backend: AwsBackend, reference: str = REFERENCE, *, timeout: float = 20.0) -> Any:
    return backend.read(SecretReference.parse(reference), fresh=False, timeout=timeout)


def failure(kind: type[SecretSourceError], backend: AwsBackend, reference: str = REFERENCE, **options: Any) -> Any:
    with pytest.raises(kind) as caught:
        read(backend, reference, **options)
    error = caught.value
    assert type(error) is kind
    assert error.hint
    assert reference in str(error)
    assert not shows(error)
    if isinstance(error, BackendError):
        assert (error.reference, error.store) == (reference, "aws")
    return error


# AWS's texts name what they are about; the canary stands for that.
REFUSALS = [
    ("AccessDeniedException", f"User {CANARY} is not authorized", 400, AccessDenied, "secretsmanager:GetSecretValue"),
    ("AccessDeniedException", f"Access to KMS is not allowed {CANARY}", 400, AccessDenied, "kms:Decrypt"),
    ("DecryptionFailure", CANARY, 400, AccessDenied, "Enable the key"),
    ("UnrecognizedClientException", CANARY, 400, AccessDenied, "does not know the access key"),
    ("InvalidSignatureException", CANARY, 400, AccessDenied, "secret access key"),
    ("InvalidSignatureException", f"Signature expired: {CANARY}", 400, ConfigurationError, "clock"),
    ("RequestTimeTooSkewed", CANARY, 400, ConfigurationError, "clock"),
    ("ExpiredTokenException", CANARY, 400, AccessDenied, "have expired"),
    ("ResourceNotFoundException", CANARY, 400, SecretNotFound, f"in {REGION}"),
    ("ResourceNotFoundException", CANARY, 404, SecretNotFound, "AWSCURRENT"),
    ("InvalidRequestException", f"it was marked for deletion {CANARY}", 400, SecretNotFound, "restore-secret"),
    ("InvalidParameterException", CANARY, 400, ConfigurationError, "InvalidParameterException"),
    ("ThrottlingException", CANARY, 400, BackendUnavailable, "throttling"),
    ("TooManyRequestsException", CANARY, 429, BackendUnavailable, "throttling"),
    ("RequestTimeoutException", CANARY, 400, BackendUnavailable, "out of order"),
    ("InternalServiceError", CANARY, 500, BackendUnavailable, "out of order"),
    ("ServiceUnavailable", CANARY, 503, BackendUnavailable, "out of order"),
]


@pytest.mark.parametrize(("code", "text", "status", "kind", "said"), REFUSALS)
def test_each_code_of_aws_has_its_class_and_a_way_out(
    code: str, text: str, status: int, kind: type[SecretSourceError], said: str
) -> None:
    with Scripted(always(refused(code, text, status))) as aws:
        error = failure(kind, aws.backend())
    assert said in str(error)
    if isinstance(error, BackendError):
        assert error.status == code
        assert error.request_id == REQUEST_ID
        assert error.retryable is (kind is BackendUnavailable)


@pytest.mark.parametrize(
    ("answer", "kind", "retryable"),
    [
        (HTML, MalformedSecret, False),
        (Answer(502, {"Content-Type": "text/html"}, f"<html>{CANARY}".encode()), BackendUnavailable, True),
        (Answer(403, {}, f"<html>{CANARY}".encode()), BackendUnavailable, True),
        (Answer(403, {"Content-Type": "application/json"}, b'{"message": "Forbidden"}'), BackendUnavailable, True),
        (Answer(404, {}, f"<html>{CANARY}".encode()), BackendUnavailable, False),
        (Answer(302, {"Location": "https://elsewhere.example"}, b""), BackendUnavailable, False),
        (given({}), MalformedSecret, False),
        (given(value(CANARY, VersionId=None)), MalformedSecret, False),
        (given(value(CANARY, ARN=None)), MalformedSecret, False),
        (given(value(CANARY, SecretBinary="AAAA")), MalformedSecret, False),
        (given(value(CANARY, SecretString=None)), MalformedSecret, False),
        (given(value(CANARY, "AWSPREVIOUS")), MalformedSecret, False),
        (given(value(CANARY), fault=Fault(cut_after=40)), BackendUnavailable, True),
        (given(value(CANARY), fault=Fault(reset=True)), BackendUnavailable, True),
        (given(value("x" * (1 << 20))), BackendUnavailable, True),
    ],
)
def test_an_answer_that_is_none_of_aws_is_an_error_without_its_content(
    answer: Answer, kind: type[BackendError], retryable: bool
) -> None:
    with Scripted(always(answer)) as aws:
        assert failure(kind, aws.backend()).retryable is retryable


@pytest.mark.parametrize("fault", [Fault(hang=True), Fault(drip_body=0.05)])
def test_an_answer_that_does_not_come_to_its_end_ends_the_read_at_its_deadline(fault: Fault) -> None:
    with Scripted(always(given(value(CANARY), fault=fault))) as aws:
        began = time.monotonic()
        failure(DeadlineExceeded, aws.backend(), timeout=0.5)
        assert time.monotonic() - began < 10


def test_one_request_has_no_more_than_its_own_time_outs() -> None:
    with Scripted(always(given(value(CANARY), fault=Fault(hang=True)))) as aws:
        error = failure(BackendUnavailable, aws.backend(connect_timeout=0.1, read_timeout=0.2))
        assert error.retryable


def test_what_is_transient_is_asked_again_and_nothing_else() -> None:
    answers: Iterator[Any] = iter(
        [refused("ThrottlingException"), refused("InternalServiceError", status=500), value("here")]
    )
    with Scripted(lambda asked: next(answers)) as aws:
        assert revealed(read(aws.backend(attempts=3)).text) == "here"
    for code in ("DecryptionFailure", "ResourceNotFoundException"):
        with Scripted(always(refused(code))) as aws:
            with pytest.raises(BackendError):
                read(aws.backend(attempts=3))
            assert len(aws.asked) == 1


def test_a_session_that_has_expired_is_built_anew_once() -> None:
    counter = itertools.count()
    with Scripted(lambda asked: refused("ExpiredTokenException") if next(counter) == 0 else value("here")) as aws:
        backend = aws.backend()
        assert revealed(read(backend).text) == "here"
    with Scripted(always(refused("ExpiredTokenException"))) as aws:
        failure(AccessDenied, aws.backend())
        assert len(aws.asked) == 2


def test_a_partial_arn_is_named_where_nothing_is_found() -> None:
    with Scripted(always(refused("ResourceNotFoundException"))) as aws:
        error = failure(SecretNotFound, aws.backend(), f"aws://{ARN[:-7]}")
    assert "account 123456789012" in str(error)
    assert "six characters at the end" in str(error)


def test_a_request_id_of_an_odd_shape_is_not_kept() -> None:
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-requestid": "<script>"}
    answer = Answer(400, headers, b'{"__type": "AccessDeniedException"}')
    with Scripted(always(answer)) as aws:
        assert failure(AccessDenied, aws.backend()).request_id is None


# --- before anything is sent


@pytest.fixture
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def test_without_credentials_a_region_or_the_profile_nothing_is_sent(
    no_configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Scripted(always(value(CANARY))) as aws:
        assert "no AWS credentials" in str(failure(ConfigurationError, aws.backend(session=None, region=REGION)))
        assert "no region" in str(failure(ConfigurationError, AwsBackend()))
        assert "no such profile" in str(failure(ConfigurationError, AwsBackend(profile="nobody")))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
        assert "not complete" in str(failure(ConfigurationError, AwsBackend(region=REGION)))
        assert aws.asked == []


def test_credentials_that_come_later_are_found(no_configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Scripted(always(value("here"))) as aws:
        backend = aws.backend(session=None, region=REGION)
        failure(ConfigurationError, backend)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        assert revealed(read(backend).text) == "here"


# --- TLS, the proxy and the role, with AWS's own host names


class _Tunnel(socketserver.BaseRequestHandler):
    """One CONNECT through the proxy, to where `AwsHosts` says."""

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.request.recv(1) or b"\r\n\r\n"
        host = head.split()[1].decode().removesuffix(":443")
        hosts: AwsHosts = self.server.hosts  # type: ignore[attr-defined]
        hosts.connected.append(host)
        if host in hosts.dead:
            self.request.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", int(hosts.origin.rpartition(":")[2]))) as there:
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=self._pass_on, args=(there, self.request))
            back.start()
            self._pass_on(self.request, there)
            back.join()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


class AwsHosts:
    """A proxy on loopback behind which AWS's host names are one TLS server of this test."""

    def __init__(self, answer: Callable[[Incoming], Answer], folder: Path) -> None:
        self.dead: set[str] = set()
        self.connected: list[str] = []
        authority = trustme.CA()
        self.authorities = folder / "authorities.pem"
        authority.cert_pem.write_to_path(str(self.authorities))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("*.eu-west-1.amazonaws.com", "*.eu-central-1.amazonaws.com").configure_cert(tls)
        self._server = LoopbackServer(answer, ssl_context=tls)
        self._proxy = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Tunnel)
        self._proxy.daemon_threads = True
        self._proxy.hosts = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._proxy.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def origin(self) -> str:
        return self._server.origin

    @property
    def proxy(self) -> str:
        return f"http://127.0.0.1:{self._proxy.server_address[1]}"

    def __enter__(self) -> AwsHosts:
        self._server.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._proxy.shutdown()
        self._proxy.server_close()
        self._thread.join()


SECRETS = "secretsmanager.eu-west-1.amazonaws.com"
REPLICA = "secretsmanager.eu-central-1.amazonaws.com"
ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<Credentials><AccessKeyId>AKIDASSUMED</AccessKeyId><SecretAccessKey>not-a-real-key</SecretAccessKey>
<SessionToken>not-a-real-token</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials>
<AssumedRoleUser><AssumedRoleId>A:b</AssumedRoleId><Arn>arn:aws:sts::123456789012:assumed-role/pos/s</Arn>
</AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"""
ROLE = "arn:aws:iam::123456789012:role/pos-reader"


def test_a_role_is_assumed_and_its_keys_are_used_over_tls_without_a_key_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms: list[dict[str, list[str]]] = []
    signed_by: list[str] = []

    def answer(incoming: Incoming) -> Answer:
        if incoming.headers["host"].startswith("sts."):
            forms.append(parse_qs(incoming.body.decode()))
            return Answer(200, {"Content-Type": "text/xml"}, ASSUMED.encode())
        signed_by.append(incoming.headers["authorization"].partition("Credential=")[2].partition("/")[0])
        return given(value("here"))

    with AwsHosts(answer, tmp_path) as hosts:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(hosts.authorities))
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
        backend = AwsBackend(session=session(), role_arn=ROLE, external_id="x-1", proxy=hosts.proxy, attempts=1)
        for _ in range(2):
            assert revealed(read(backend).text) == "here"
        assert hosts.connected == ["sts.eu-west-1.amazonaws.com", SECRETS, SECRETS]
    assert signed_by == ["AKIDASSUMED", "AKIDASSUMED"]
    assert [(form["RoleArn"], form["ExternalId"], form["RoleSessionName"]) for form in forms] == [
        ([ROLE], ["x-1"], ["secretsource"])
    ]
    logged = tmp_path / "keys"
    assert not logged.exists() or "SECRET" not in logged.read_text()


def test_a_role_that_may_not_be_assumed_is_denied_with_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = f"<ErrorResponse><Error><Code>AccessDenied</Code><Message>{CANARY}</Message></Error></ErrorResponse>"
    with AwsHosts(lambda _: Answer(403, {"Content-Type": "text/xml"}, refusal.encode()), tmp_path) as hosts:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(hosts.authorities))
        error = failure(AccessDenied, AwsBackend(session=session(), role_arn=ROLE, proxy=hosts.proxy, attempts=1))
    assert "trust policy" in str(error)
    assert error.status == "AccessDenied"


def test_a_region_that_cannot_be_reached_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with AwsHosts(lambda _: given(value("here")), tmp_path) as hosts:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(hosts.authorities))
        hosts.dead.add(SECRETS)
        backend = AwsBackend(session=session(), proxy=hosts.proxy)
        for _ in range(2):
            read(backend, "aws://prod/pos?regions=eu-west-1,eu-central-1")
        assert hosts.connected == [SECRETS, REPLICA, REPLICA]
        hosts.dead.add(REPLICA)
        error = failure(BackendUnavailable, AwsBackend(session=session(), proxy=hosts.proxy, attempts=1))
        assert "through the proxy" in str(error)


def test_a_certificate_that_is_not_trusted_is_refused_and_not_asked_again(tmp_path: Path) -> None:
    with AwsHosts(lambda _: given(value(CANARY)), tmp_path) as hosts:
        error = failure(BackendUnavailable, AwsBackend(session=session(), proxy=hosts.proxy, attempts=3))
        assert hosts.connected == [SECRETS]
    assert not error.retryable
    assert "not trusted" in str(error)
