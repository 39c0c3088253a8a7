from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from secretsource.testing import FakeIssuer, Fault
from secretsource.testing.fixtures import SecretFile, fake_issuer, secret_file

from . import CANARY, PATIENCE, Ran, called, private, process, started

__all__ = ["fake_issuer", "secret_file"]


@pytest.fixture
def issuer(fake_issuer: FakeIssuer) -> FakeIssuer:
    fake_issuer.add_client("pos", CANARY, scopes=["orders.read", "orders.write"])
    return fake_issuer


@pytest.fixture
def kept(secret_file: SecretFile) -> str:
    return secret_file("pos", CANARY)


def refused(ran: Ran, code: int, *words: str) -> None:
    """It failed with this code, said these words on standard error, and nothing on standard output."""
    assert (ran.code, ran.out) == (code, ""), ran
    assert ran.err.startswith(("secretsource: ", "usage: "))
    assert [word for word in words if word not in ran.err] == []
    assert "Traceback" not in ran.err
    assert CANARY not in ran.err


def test_the_token_alone_is_on_standard_output(issuer: FakeIssuer, kept: str) -> None:
    ran = process("token", "--credentials", kept, "--issuer", issuer.url)
    token = ran.out.removesuffix("\n")
    assert (ran.code, ran.err) == (0, "")
    assert len(token.split()) == 1
    assert issuer.accepts(token)


def test_everything_else_is_on_standard_error_also_when_it_logs(issuer: FakeIssuer, kept: str) -> None:
    ran = process("token", "-v", "--credentials", kept, "--issuer", issuer.url)
    token = ran.out.removesuffix("\n")
    assert ran.code == 0
    assert issuer.accepts(token)
    assert "TokenFetched" in ran.err
    assert token not in ran.err
    assert CANARY not in ran.err


def test_the_header_can_be_sent_as_it_stands(issuer: FakeIssuer, kept: str) -> None:
    ran = called("token", "--credentials", kept, "--issuer", issuer.url, "--format", "header")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Authorization: Bearer ")
    assert issuer.accepts(ran.out.removeprefix("Authorization: Bearer ").removesuffix("\n"))


def test_json_is_one_object_with_what_the_issuer_said(issuer: FakeIssuer, kept: str) -> None:
    issuer.lifetime = 600
    scopes = ("--scope", "orders.write", "--scope", "orders.read")
    ran = called("token", "--credentials", kept, "--issuer", issuer.url, *scopes, "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    answer = json.loads(ran.out)
    assert set(answer) == {"access_token", "token_type", "expires_in", "expires_at", "scope"}
    assert issuer.accepts(answer["access_token"])
    assert answer["token_type"] == "Bearer"
    assert answer["scope"] == "orders.read orders.write"
    assert 500 < answer["expires_in"] <= 600
    ends = datetime.fromisoformat(answer["expires_at"])
    assert timedelta(seconds=500) < ends - datetime.now(UTC) <= timedelta(seconds=600)


def test_the_request_is_the_one_that_was_asked_for(issuer: FakeIssuer, kept: str) -> None:
    ran = called(
        *("token", "--credentials", kept, "--token-url", issuer.token_url, "--auth-method", "client_secret_post"),
        *("--scope", "orders.read", "--audience", "stock", "--extra", "tenant=shop=1"),
        *("--resource", "https://a.example/", "--resource", "https://b.example/"),
    )
    assert ran.code == 0
    (request,) = issuer.requests
    assert request.auth_method == "client_secret_post"
    asked = {name: request.form[name] for name in ("scope", "audience", "tenant")}
    assert asked == {"scope": "orders.read", "audience": "stock", "tenant": "shop=1"}
    assert set(request.resources) == {"https://a.example/", "https://b.example/"}


def test_the_client_id_may_stand_beside_a_secret_alone(issuer: FakeIssuer, tmp_path: Path) -> None:
    reference = private(tmp_path / "secret", f"{CANARY}\n")
    ran = called("token", "--credentials", reference, "--client-id", "pos", "--issuer", issuer.url)
    assert issuer.accepts(ran.out.strip())


def test_credentials_come_from_variables(issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POS_CLIENT_ID", "pos")
    monkeypatch.setenv("POS_CLIENT_SECRET", CANARY)
    ran = called("token", "--credentials", "env:POS", "--issuer", issuer.url)
    assert (ran.code, ran.err) == (0, "")
    assert issuer.accepts(ran.out.strip())


# --- what fails, with its exit code -----------------------------------------------------------------------------------


def test_wrong_usage_ends_with_2(issuer: FakeIssuer) -> None:
    refused(called("token", "--issuer", issuer.url), 2, "--credentials")


def test_a_reference_that_is_none_ends_with_2(issuer: FakeIssuer) -> None:
    ran = process("token", "--credentials", "file://host/pos.json", "--issuer", issuer.url)
    refused(ran, 2, "file:///etc/pos/oauth.json")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon", ""])
def test_a_timeout_that_is_no_time_ends_with_2(issuer: FakeIssuer, kept: str, seconds: str) -> None:
    refused(called("token", "--credentials", kept, "--issuer", issuer.url, f"--timeout={seconds}"), 2, "--timeout")
    assert issuer.requests == []


@pytest.mark.parametrize("pairs", [["tenant"], ["=shop"], ["tenant="], ["tenant=a", "tenant=b"]])
def test_an_extra_that_is_no_pair_ends_with_2(issuer: FakeIssuer, kept: str, pairs: list[str]) -> None:
    extras = [word for pair in pairs for word in ("--extra", pair)]
    refused(called("token", "--credentials", kept, "--issuer", issuer.url, *extras), 2, "NAME=VALUE")
    assert issuer.requests == []


def test_neither_issuer_nor_token_url_ends_with_2(kept: str) -> None:
    refused(called("token", "--credentials", kept), 2, "issuer", "token_url")


def test_plain_http_off_loopback_ends_with_2(kept: str) -> None:
    refused(called("token", "--credentials", kept, "--issuer", "http://pos.example.com"), 2, "plain http", "https://")


def test_a_secret_that_is_bound_to_another_issuer_ends_with_2_and_is_not_sent(
    issuer: FakeIssuer, secret_file: SecretFile
) -> None:
    bound = secret_file("pos", CANARY, issuer="https://pos.example.com/")
    refused(called("token", "--credentials", bound, "--issuer", issuer.url), 2, "nothing was sent")
    assert issuer.token_requests == 0


def test_a_missing_secret_ends_with_3(issuer: FakeIssuer, tmp_path: Path) -> None:
    ran = process("token", "--credentials", f"file://{tmp_path}/none.json", "--issuer", issuer.url)
    refused(ran, 3, f"{tmp_path}/none.json does not exist")


def test_a_file_that_others_may_read_ends_with_3_and_the_command_that_mends_it(issuer: FakeIssuer, kept: str) -> None:
    path = Path(kept.removeprefix("file://"))
    path.chmod(0o644)
    refused(process("token", "--credentials", kept, "--issuer", issuer.url), 3, "F05", f"Run chmod 600 {path}")
    assert issuer.token_requests == 0


def test_a_wrong_secret_ends_with_4(issuer: FakeIssuer, kept: str) -> None:
    issuer.set_secret("pos", "another-secret")
    ran = process("token", "--credentials", kept, "--issuer", issuer.url)
    refused(ran, 4, "401 invalid_client ID2055", "OpenIddict holds another secret")


def test_a_scope_that_the_client_may_not_have_ends_with_4(issuer: FakeIssuer, kept: str) -> None:
    ran = called("token", "--credentials", kept, "--issuer", issuer.url, "--scope", "orders.delete")
    refused(ran, 4, "invalid_scope")


def test_an_issuer_that_is_down_ends_with_5(issuer: FakeIssuer, kept: str) -> None:
    with issuer.down():
        ran = process("token", "--credentials", kept, "--token-url", issuer.token_url)
    refused(ran, 5, "cannot be reached: connection refused")


def test_a_deadline_that_passes_ends_with_5(issuer: FakeIssuer, kept: str) -> None:
    with issuer.failing(Fault(hang=True)):
        ran = called("token", "--credentials", kept, "--token-url", issuer.token_url, "--timeout", "0.3")
    refused(ran, 5, "0.3 s")


def test_an_interrupt_while_it_waits_ends_with_130_at_once(issuer: FakeIssuer, kept: str) -> None:
    issuer.fail(Fault(hang=True))
    with started("token", "--credentials", kept, "--issuer", issuer.url, "--timeout", "3600") as child:
        issuer.wait_for_token_requests(1, PATIENCE)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out, err) == (130, "", "secretsource: interrupted\n")


def test_what_an_error_takes_from_a_document_does_not_steer_the_terminal(
    issuer: FakeIssuer, secret_file: SecretFile
) -> None:
    bound = secret_file("pos", CANARY, issuer="https://pos.example.com/\u202eright-to-left")
    ran = called("token", "--credentials", bound, "--token-url", issuer.token_url)
    refused(ran, 2, "https://pos.example.com/")
    assert "\u202e" not in ran.err
