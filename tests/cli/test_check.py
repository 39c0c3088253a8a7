from __future__ import annotations

import json
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from secretsource.testing import FakeIssuer, Fault
from secretsource.testing.fixtures import SecretFile, fake_issuer, secret_file

from . import CANARY, WITHOUT_RICH, Ran, Terminal, called, plug_in, private, process

__all__ = ["fake_issuer", "secret_file"]

NAMES = ["reference", "store", "secret", "permissions", "issuer", "clock", "token", "scope", "life"]
STEERING = "\x1b]0;pwned\x07\u202e"


class Step(NamedTuple):
    status: str
    found: str
    hint: str | None


class Walked(NamedTuple):
    code: int
    steps: dict[str, Step]

    def statuses(self) -> list[str]:
        return [step.status for step in self.steps.values()]

    def failed(self, name: str, code: int) -> Step:
        """The step that failed: this one, with this exit code, and none before it; the rest was skipped."""
        at = NAMES.index(name)
        statuses = self.statuses()
        assert statuses[at] == "failed", self
        assert "failed" not in statuses[:at]
        assert statuses[at + 1 :] == ["skipped"] * (len(NAMES) - at - 1)
        assert self.code == code
        return self.steps[name]


def read(ran: Ran) -> Walked:
    """The one object of --json, whose schema is checked here for every test."""
    assert ran.err == ""
    assert CANARY not in ran.out
    report: dict[str, Any] = json.loads(ran.out)
    assert list(report) == ["version", "ok", "exit_code", "steps"]
    assert report["version"] == 1
    assert report["exit_code"] == ran.code
    assert report["ok"] is (ran.code == 0)
    assert [step["name"] for step in report["steps"]] == NAMES
    for step in report["steps"]:
        assert list(step) == ["name", "status", "found", "hint"]
        assert step["status"] in ("ok", "warning", "failed", "skipped")
        assert isinstance(step["found"], str)
        assert step["found"]
        assert step["hint"] is None or step["hint"]
        assert all(character.isprintable() for character in step["found"] + (step["hint"] or ""))
    steps = {step["name"]: Step(step["status"], step["found"], step["hint"]) for step in report["steps"]}
    assert (ran.code != 0) == any(step.status == "failed" for step in steps.values())
    return Walked(ran.code, steps)


def check(credentials: str, *arguments: str) -> Walked:
    return read(called("check", "--json", "--credentials", credentials, *arguments))


@pytest.fixture
def issuer(fake_issuer: FakeIssuer) -> FakeIssuer:
    fake_issuer.add_client("pos", CANARY, scopes=["orders.read"])
    return fake_issuer


@pytest.fixture
def kept(secret_file: SecretFile) -> str:
    return secret_file("pos", CANARY)


# --- what is found ----------------------------------------------------------------------------------------------------


def test_every_step_says_what_was_found(issuer: FakeIssuer, secret_file: SecretFile) -> None:
    bound = secret_file("pos", CANARY, issuer=issuer.url)
    walked = check(bound, "--issuer", issuer.url, "--scope", "orders.read")
    assert walked.code == 0
    assert walked.statuses() == ["ok"] * 9
    steps = walked.steps
    assert steps["reference"].found == bound
    assert steps["store"].found.startswith("file: FileBackend")
    assert steps["secret"].found.startswith("client ID and secret found, version ")
    assert "written " in steps["secret"].found
    assert "meets level private" in steps["permissions"].found
    assert f"{issuer.token_url} (discovered), client_secret_basic; bound" in steps["issuer"].found
    assert "differ by less than 30 s" in steps["clock"].found
    assert "client_secret_basic" in steps["token"].found
    assert steps["scope"].found == "granted: orders.read"
    assert steps["life"].found.startswith(("3600 s left", "3599 s left", "359"))


def test_on_standard_output_there_is_a_line_for_each_step_and_no_secret(issuer: FakeIssuer, kept: str) -> None:
    ran = process("check", "--credentials", kept, "--issuer", issuer.url)
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[:2] for line in ran.out.splitlines()] == [["ok", name] for name in NAMES]
    assert CANARY not in ran.out


def test_a_hint_follows_the_step_that_failed(issuer: FakeIssuer, tmp_path: Path) -> None:
    ran = called("check", "--credentials", f"file://{tmp_path}/none.json", "--issuer", issuer.url)
    lines = ran.out.splitlines()
    assert (ran.code, ran.err) == (3, "")
    assert lines[2].split()[:2] == ["failed", "secret"]
    assert lines[3].strip() == "→ Create it, or correct the path"
    assert [line.split()[:2] for line in lines[4:]] == [["skipped", name] for name in NAMES[3:]]


def test_no_token_sends_no_token_request(issuer: FakeIssuer, kept: str) -> None:
    walked = check(kept, "--issuer", issuer.url, "--no-token")
    assert walked.code == 0
    assert walked.statuses() == ["ok"] * 6 + ["skipped"] * 3
    assert issuer.token_requests == 0
    assert issuer.requests != []


def test_without_an_issuer_only_the_secret_is_checked(kept: str) -> None:
    walked = check(kept, "--no-token")
    assert walked.code == 0
    assert walked.statuses() == ["ok"] * 4 + ["skipped"] * 5


def test_a_token_url_spares_discovery_and_its_answer_tells_the_time(issuer: FakeIssuer, kept: str) -> None:
    walked = check(kept, "--token-url", issuer.token_url)
    assert walked.statuses() == ["ok"] * 9
    assert f"{issuer.token_url} (configured)" in walked.steps["issuer"].found
    assert {request.path for request in issuer.requests} == {"/connect/token"}


def test_a_token_url_alone_tells_no_time(issuer: FakeIssuer, kept: str) -> None:
    walked = check(kept, "--token-url", issuer.token_url, "--no-token")
    assert walked.statuses() == ["ok"] * 5 + ["skipped"] * 4
    assert issuer.requests == []


def test_variables_are_open_to_the_user_and_no_level_is_claimed(
    issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POS_CLIENT_ID", "pos")
    monkeypatch.setenv("POS_CLIENT_SECRET", CANARY)
    walked = check("env:POS", "--issuer", issuer.url)
    assert walked.statuses() == ["ok"] * 9
    assert walked.steps["reference"].found == "env://POS"
    assert walked.steps["store"].found == "env: EnvBackend, read once"
    assert "this user and to child processes" in walked.steps["permissions"].found
    assert "level" not in walked.steps["permissions"].found


def test_a_file_that_a_variable_names_meets_level_mounted(
    issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    private(tmp_path / "secret", CANARY)
    monkeypatch.setenv("POS_CLIENT_ID", "pos")
    monkeypatch.setenv("POS_CLIENT_SECRET_FILE", str(tmp_path / "secret"))
    walked = check("env:POS", "--issuer", issuer.url)
    assert walked.statuses() == ["ok"] * 9
    assert "meet level mounted" in walked.steps["permissions"].found


def test_a_directory_with_one_file_a_field_is_checked(issuer: FakeIssuer, tmp_path: Path) -> None:
    for name, text in {"client_id": "pos", "client_secret": CANARY}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o444)
    walked = check(f"file://{tmp_path}/?access=mounted", "--issuer", issuer.url)
    assert walked.statuses() == ["ok"] * 9
    assert "meets level mounted" in walked.steps["permissions"].found


def test_credentials_of_systemd_are_checked(
    issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pos.toml").write_text(f'client_id = "pos"\nclient_secret = "{CANARY}"\n')
    (tmp_path / "pos.toml").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    walked = check("systemd:pos.toml", "--issuer", issuer.url)
    assert walked.statuses() == ["ok"] * 9
    assert walked.steps["reference"].found == "systemd://pos.toml"
    assert "meets level mounted" in walked.steps["permissions"].found


# --- each step failing ------------------------------------------------------------------------------------------------


def test_a_reference_that_is_none_fails_the_first_step(issuer: FakeIssuer) -> None:
    failed = check(CANARY, "--issuer", issuer.url).failed("reference", 2)
    assert failed.hint is not None
    assert "env://POS" in failed.hint


def test_a_store_that_nobody_knows_fails_the_second_step(issuer: FakeIssuer) -> None:
    failed = check("fille:pos.json", "--issuer", issuer.url).failed("store", 2)
    assert failed.hint == "Did you mean 'file'?"


def test_a_missing_secret_fails_the_third_step(issuer: FakeIssuer, tmp_path: Path) -> None:
    failed = check(f"file://{tmp_path}/none.json", "--issuer", issuer.url).failed("secret", 3)
    assert "does not exist" in failed.found


def test_a_malformed_secret_fails_the_third_step(issuer: FakeIssuer, tmp_path: Path) -> None:
    reference = private(tmp_path / "pos.json", f'{{"client_secret": "{CANARY}"')
    failed = check(reference, "--issuer", issuer.url).failed("secret", 3)
    assert "json" in failed.found


def test_missing_fields_are_answered_with_those_that_would_fit(issuer: FakeIssuer, tmp_path: Path) -> None:
    reference = private(tmp_path / "pos.json", {"username": "pos", "password": CANARY})
    failed = check(reference, "--issuer", issuer.url).failed("secret", 3)
    assert failed.hint is not None
    assert "#id=username,secret=password" in failed.hint


def test_a_file_that_others_may_read_fails_the_third_step_with_the_command_that_mends_it(
    issuer: FakeIssuer, kept: str
) -> None:
    path = Path(kept.removeprefix("file://"))
    path.chmod(0o644)
    failed = check(kept, "--issuer", issuer.url).failed("secret", 3)
    assert "refused at level private" in failed.found
    assert failed.hint is not None
    assert f"Run chmod 600 {path}" in failed.hint
    assert issuer.requests == []


def test_another_issuer_in_the_metadata_fails_the_fifth_step(issuer: FakeIssuer, kept: str) -> None:
    with issuer.failing(Fault(answer={"issuer": "https://pos.example.com/"}), path="discovery"):
        failed = check(kept, "--issuer", issuer.url).failed("issuer", 2)
    assert "another issuer: https://pos.example.com/" in failed.found
    assert issuer.token_requests == 0


def test_a_binding_to_another_issuer_fails_the_fifth_step(issuer: FakeIssuer, secret_file: SecretFile) -> None:
    bound = secret_file("pos", CANARY, issuer="https://pos.example.com/")
    failed = check(bound, "--issuer", issuer.url).failed("issuer", 2)
    assert "bound to the issuer 'https://pos.example.com/'" in failed.found
    assert failed.hint is not None
    assert issuer.token_requests == 0


def test_an_issuer_that_is_down_fails_the_fifth_step(issuer: FakeIssuer, kept: str) -> None:
    with issuer.down():
        failed = check(kept, "--issuer", issuer.url).failed("issuer", 5)
    assert "connection refused" in failed.found


def test_time_that_runs_out_during_discovery_fails_the_fifth_step(issuer: FakeIssuer, kept: str) -> None:
    with issuer.failing(Fault(hang=True), path="discovery"):
        failed = check(kept, "--issuer", issuer.url, "--timeout", "0.3").failed("issuer", 5)
    assert "0.3 s" in failed.found


def test_a_wrong_secret_fails_the_token_after_the_clock_was_told(issuer: FakeIssuer, kept: str) -> None:
    issuer.set_secret("pos", "another-secret")
    walked = check(kept, "--issuer", issuer.url)
    failed = walked.failed("token", 4)
    assert "401 invalid_client ID2055" in failed.found
    assert failed.hint == "OpenIddict holds another secret for this client ID"
    assert walked.steps["clock"].status == "ok"


def test_a_scope_that_is_refused_fails_the_token(issuer: FakeIssuer, kept: str) -> None:
    failed = check(kept, "--issuer", issuer.url, "--scope", "orders.delete").failed("token", 4)
    assert "invalid_scope" in failed.found
    assert failed.hint is not None


def test_an_answer_that_is_no_token_fails_the_token(issuer: FakeIssuer, kept: str) -> None:
    with issuer.failing(Fault(body=b"<html>" + CANARY.encode())):
        failed = check(kept, "--issuer", issuer.url).failed("token", 4)
    assert "is not JSON" in failed.found


def test_a_plug_in_that_breaks_fails_its_step_without_its_text(
    issuer: FakeIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
class Store:
    options = frozenset()
    ttl = None
    def read(self, reference, *, fresh, timeout):
        raise RuntimeError({CANARY!r})
"""
    monkeypatch.syspath_prepend(plug_in(tmp_path, "breaking", code))
    failed = check("breaking:pos", "--issuer", issuer.url).failed("secret", 1)
    assert failed.found.startswith("unexpected RuntimeError")


# --- what deserves a warning ------------------------------------------------------------------------------------------


def warned(walked: Walked, name: str) -> Step:
    """The only warning, with a hint; the exit code is 0."""
    assert walked.code == 0
    assert [other for other, step in walked.steps.items() if step.status == "warning"] == [name]
    assert walked.steps[name].hint is not None
    return walked.steps[name]


@pytest.mark.parametrize(("seconds", "where"), [(3600, "ahead of"), (-3600, "behind")])
def test_a_clock_that_differs_is_a_warning(issuer: FakeIssuer, kept: str, seconds: float, where: str) -> None:
    told = Fault(headers={"Date": formatdate(time.time() + seconds, usegmt=True)})
    with issuer.failing(told, path="discovery"):
        step = warned(check(kept, "--issuer", issuer.url, "--no-token"), "clock")
    assert where in step.found
    assert "NTP" in (step.hint or "")


def test_the_clock_is_told_also_where_the_token_is_refused(issuer: FakeIssuer, kept: str) -> None:
    issuer.set_secret("pos", "another-secret")
    answer = b'{"error": "invalid_client"}'
    told = Fault(status=401, body=answer, headers={"Date": formatdate(time.time() + 3600, usegmt=True)})
    with issuer.failing(told):
        walked = check(kept, "--token-url", issuer.token_url)
    assert walked.failed("token", 4)
    assert walked.steps["clock"].status == "warning"


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 01 Jan 2024 00:00:00 +99999999999999999999"])
def test_a_date_that_cannot_be_read_tells_no_time(issuer: FakeIssuer, kept: str, date: str) -> None:
    with issuer.failing(Fault(headers={"Date": date}), path="discovery"):
        walked = check(kept, "--issuer", issuer.url, "--no-token")
    assert walked.code == 0
    assert walked.steps["clock"].status == "skipped"


def test_a_date_in_the_old_form_is_in_utc(issuer: FakeIssuer, kept: str) -> None:
    date = time.asctime(time.gmtime())
    with issuer.failing(Fault(headers={"Date": date}), path="discovery"):
        ran = process(*("check", "--json", "--credentials", kept, "--issuer", issuer.url, "--no-token"), TZ="FAR-14")
    assert read(ran).steps["clock"].status == "ok"


def test_fewer_scopes_than_asked_for_are_a_warning(fake_issuer: FakeIssuer, kept: str) -> None:
    fake_issuer.unknown_scope = "drop"
    fake_issuer.add_client("pos", CANARY, scopes=["orders.read"])
    scopes = ("--scope", "orders.read", "--scope", "orders.write")
    step = warned(check(kept, "--issuer", fake_issuer.url, *scopes), "scope")
    assert step.found == "granted: orders.read; asked for and not granted: orders.write"


def test_a_lifetime_that_is_not_told_is_a_warning(issuer: FakeIssuer, kept: str) -> None:
    with issuer.failing(Fault(answer={"expires_in": None})):
        step = warned(check(kept, "--issuer", issuer.url), "life")
    assert "as we assume" in step.found
    assert "expires_in" in (step.hint or "")


@pytest.mark.parametrize("kind", ["pending", "previous"])
def test_that_another_than_the_current_secret_is_accepted_is_a_warning(
    issuer: FakeIssuer, secret_file: SecretFile, kind: str
) -> None:
    kept = secret_file("pos", "not-the-one", **{f"client_secret_{kind}": CANARY})
    walked = check(kept, "--issuer", issuer.url)
    step = warned(walked, "token")
    assert f"the {kind} secret; the issuer rejects the current one" in step.found
    assert f"a {kind} secret beside it" in walked.steps["secret"].found


# --- what comes from elsewhere ----------------------------------------------------------------------------------------


def test_what_an_issuer_says_does_not_steer_a_terminal(issuer: FakeIssuer, kept: str) -> None:
    scope = f"{STEERING}\nok      life  \ud800 orders.read"
    with issuer.failing(Fault(answer={"scope": scope})):
        ran = called("check", "--credentials", kept, "--issuer", issuer.url)
    assert ran.code == 4, "it is refused"
    assert all(character.isprintable() for character in ran.out.replace("\n", ""))


def test_what_a_file_holds_does_not_steer_a_terminal(issuer: FakeIssuer, tmp_path: Path) -> None:
    documents = [{f"{STEERING}id": "pos", "password": CANARY}, {"client_id": f"pos{STEERING}", "client_secret": CANARY}]
    for number, document in enumerate([*documents, {"client_id": "\u202epos", "client_secret": CANARY}]):
        reference = private(tmp_path / f"{number}.json", document)
        ran = called("check", "--credentials", reference, "--issuer", issuer.url)
        assert all(character.isprintable() for character in ran.out.replace("\n", ""))
        assert CANARY not in ran.out


def test_at_a_terminal_the_steps_are_coloured_and_what_an_issuer_says_is_plain(issuer: FakeIssuer, kept: str) -> None:
    pytest.importorskip("rich")
    with (
        issuer.failing(Fault(answer={"scope": ":lock: [red]"})),
        Terminal("check", "--credentials", kept, "--issuer", issuer.url) as terminal,
    ):
        ran = terminal.end()
    assert ran.code == 0
    assert "\x1b[32mok " in ran.out
    assert ":lock: [red]" in ran.out, "as it is, although rich has a meaning for it"


def test_at_a_terminal_without_rich_the_steps_are_plain(issuer: FakeIssuer, kept: str) -> None:
    with Terminal("check", "--credentials", kept, "--issuer", issuer.url, before=WITHOUT_RICH) as terminal:
        ran = terminal.end()
    assert ran.code == 0
    assert [line.split()[:2] for line in ran.out.splitlines()] == [["ok", name] for name in NAMES]


@pytest.mark.parametrize("unfit", ["", "ends with a line end\n", 5])
def test_a_pending_secret_that_cannot_be_used_is_a_warning(secret_file: SecretFile, unfit: object) -> None:
    reference = secret_file("pos", CANARY, client_secret_pending=unfit)
    ran = called("check", "--credentials", reference, "--no-token", "--json")
    step = json.loads(ran.out)["steps"][2]
    assert (step["name"], step["status"]) == ("secret", "warning")
    assert "client_secret_pending cannot be used" in step["found"]
    assert "line end" not in ran.out
