"""The login to Vault with an AWS role: its credentials come as those for Secrets Manager do."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secretsource.backends.aws import wire
from secretsource.backends.vault import AwsIam
from secretsource.clock import Deadline
from secretsource.errors import AccessDenied, BackendUnavailable, ConfigurationError, DeadlineExceeded
from secretsource.exchange import Answer, Outgoing
from secretsource.testing import Answer as Answered
from secretsource.testing import Incoming, LoopbackServer

from .test_aws_faults import ASSUMED as ASSUMED_ROLE
from .test_aws_faults import ROLE
from .vaults import CLIENT_SECRET, JWT, Scripted, failure, login, secret_in

pytestmark = pytest.mark.usefixtures("nothing_secret_is_logged")

LOGIN = "/v1/auth/aws/login"
ASSUMED = ASSUMED_ROLE.replace("AssumeRole", "AssumeRoleWithWebIdentity").encode()
XML = {"content-type": "text/xml"}
REFUSED = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>m</Message></Error></ErrorResponse>"


@pytest.fixture(autouse=True)
def web_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A pod with a role, and nothing else of AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / "jwt").write_text(JWT)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "jwt"))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)


class Sts:
    """Stands where our transport is: nothing leaves this machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Answer]) -> None:
        self.urls: list[str] = []
        self.seconds: list[float] = []

        def send(_: Any, outgoing: Outgoing, deadline: Deadline, *, phase: str) -> Answer:
            self.urls.append(outgoing.url)
            self.seconds.append(deadline.seconds)
            return answer()

        monkeypatch.setattr(wire._Transport, "send", send)


def test_the_jwt_of_a_pod_goes_to_sts_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[Incoming] = []

    def answer(incoming: Incoming) -> Answered:
        met.append(incoming)
        return Answered(200, {"Content-Type": "text/xml"}, ASSUMED)

    with LoopbackServer(answer) as elsewhere, Scripted({LOGIN: login()}) as server:
        for name in ("AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL", "HTTP_PROXY", "HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, elsewhere.origin)
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        sts = Sts(monkeypatch, lambda: Answer(200, XML, ASSUMED))
        assert secret_in(server.backend(AwsIam("pos", server_id="vault.test"))) == CLIENT_SECRET
        sent = json.loads(next(one for one in server.requests if one.path == LOGIN).body)
    assert met == []
    assert sts.urls == ["https://sts.eu-west-1.amazonaws.com/"]
    assert max(sts.seconds) <= 7.0
    assert "AKIDASSUMED" in base64.b64decode(sent["iam_request_headers"]).decode()


def test_without_a_region_of_the_environment_that_of_the_login_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    sts = Sts(monkeypatch, lambda: Answer(200, XML, ASSUMED))
    with Scripted({LOGIN: login()}) as server:
        secret_in(server.backend(AwsIam("pos", region="eu-north-1")))
    assert sts.urls == ["https://sts.eu-north-1.amazonaws.com/"]


def late() -> Answer:
    raise DeadlineExceeded("late")


def unreachable() -> Answer:
    raise BackendUnavailable("https://sts.amazonaws.com cannot be reached: its host name is not found")


@pytest.mark.parametrize(
    "answer",
    [
        lambda: Answer(503, XML, b""),
        lambda: Answer(400, XML, REFUSED.replace(b"AccessDenied", b"Throttling")),
        late,
        unreachable,
    ],
)
def test_what_may_pass_is_asked_again_and_can_be_retried(
    answer: Callable[[], Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    sts = Sts(monkeypatch, answer)
    with Scripted() as server:
        error = failure(BackendUnavailable, server.backend(AwsIam("pos")), says="AWS credentials for the login")
        assert server.requests == []
    assert error.retryable
    assert error.store == "vault"
    assert len(sts.urls) == 3
    answers = iter([Answer(503, XML, b""), Answer(200, XML, ASSUMED)])
    Sts(monkeypatch, lambda: next(answers))
    with Scripted({LOGIN: login()}) as server:
        assert secret_in(server.backend(AwsIam("pos"))) == CLIENT_SECRET


def test_a_role_that_aws_refuses_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    Sts(monkeypatch, lambda: Answer(403, XML, REFUSED))
    with Scripted() as server:
        failure(AccessDenied, server.backend(AwsIam("pos")), says="AccessDenied", hint="that role")


def test_a_web_page_in_place_of_sts_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    Sts(monkeypatch, lambda: Answer(403, {"content-type": "text/html"}, b"<html><body>no</body></html>"))
    with Scripted() as server:
        failure(BackendUnavailable, server.backend(AwsIam("pos")))


def test_without_credentials_or_with_half_of_them_it_is_a_matter_of_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_WEB_IDENTITY_TOKEN_FILE")
    with Scripted() as server:
        failure(ConfigurationError, server.backend(AwsIam("pos")), says="there are none", hint="Give the machine")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
        failure(ConfigurationError, server.backend(AwsIam("pos")), says="PartialCredentialsError")
