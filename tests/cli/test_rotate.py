"""secretsource rotate: each action, how it ends, and what it leaves at the issuer and in the store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from secretsource.testing import Fault, secret_file

from . import called
from .shops import AT_ONCE, OLD, OTHER, Shop, lines, plugged_in, the

ACTIONS = ("plan", "run", "resume", "status", "abort", "rollback", "drift")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SECRETSOURCE_ENV", "SECRETSOURCE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path).open() as shop:
        shop.add("pos")
        yield shop


# --- run --------------------------------------------------------------------------------------------------------------


def test_a_run_changes_the_secret_at_the_issuer_and_in_the_store(shop: Shop) -> None:
    ran = shop.rotate("run", "--force")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1] == "done: the secret is changed"
    assert shop.changes == ["pos"]
    stored = shop.stored("pos")
    assert stored["client_secret"] != OLD
    assert {"client_secret_pending", "client_secret_previous"} & set(stored) == set()
    assert stored["issuer"] == shop.issuer.url
    token = called("token", "--credentials", f"file://{shop.file('pos')}", "--issuer", shop.issuer.url)
    assert shop.issuer.accepts(token.out.strip())


def test_a_run_shows_each_step(shop: Shop) -> None:
    told = [line.split()[1:3] for line in shop.rotate("run", "--force").out.splitlines()[:-1]]
    wanted = ["claim", "note", "apply", "promote", "drop"]
    assert [step for step, outcome in told if outcome == "done" and step in wanted] == wanted


def test_what_is_not_due_is_left_alone(shop: Shop) -> None:
    before = shop.file("pos").read_bytes()
    ran = shop.rotate("run")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("done: nothing is due: it is due in ")
    assert shop.file("pos").read_bytes() == before
    assert shop.issuer.token_requests == 0


def test_a_secret_is_not_changed_twice_within_an_hour_unless_forced(shop: Shop) -> None:
    assert shop.rotate("run", "--every", "1ms").code == 0
    again = shop.rotate("run", "--every", "1ms")
    assert again.code == 0
    assert "less than an hour ago" in again.out
    assert shop.changes == ["pos"]
    assert shop.rotate("run", "--force").code == 0
    assert shop.changes == ["pos", "pos"]


def test_a_run_that_has_to_wait_longer_than_it_may_ends_with_10(shop: Shop) -> None:
    ran = shop.rotate("run", "--force", "--wait", "2h", "--max-wait", "0")
    assert (ran.code, ran.err) == (10, "")
    *_, said, hint = ran.out.splitlines()
    assert said.startswith("waiting: until consumers hold the pending secret; the next step can be made in ")
    assert said.endswith((" in 2 h", " in 1 h 59 min"))
    assert hint == "→ A later run goes on, or rotate resume"
    assert "client_secret_pending" in shop.stored("pos")
    assert shop.changes == []


def test_waiting_and_held_may_be_declared_no_failure(shop: Shop) -> None:
    ran = shop.rotate("run", "--force", "--wait", "1h", "--max-wait", "0", "--waiting-ok")
    assert ran.code == 0
    assert "waiting: " in ran.out


def test_a_later_run_goes_on_with_the_same_pending_secret(shop: Shop) -> None:
    shop.rotate("run", "--force", "--wait", "1h", "--max-wait", "0")
    pending = shop.stored("pos")["client_secret_pending"]
    assert shop.rotate("run").code == 0
    assert shop.stored("pos")["client_secret"] == pending


def test_a_long_soak_is_finished_by_a_later_run(shop: Shop) -> None:
    ran = shop.rotate("run", "--force", "--soak", "1h", "--max-wait", "30s")
    assert ran.code == 10
    assert "waiting: the previous secret is kept" in ran.out
    assert shop.stored("pos")["client_secret_previous"] == OLD
    assert shop.rotate("run").code == 0
    assert "client_secret_previous" not in shop.stored("pos")


def test_a_secret_that_leaked_is_neither_waited_for_nor_kept(shop: Shop) -> None:
    ran = shop.rotate("run", "--compromised", "--wait", "1h", "--soak", "1h")
    assert ran.code == 0
    assert OLD not in shop.file("pos").read_text()


def test_a_refusal_ends_with_12_and_the_old_secret_works(shop: Shop) -> None:
    shop.status, shop.takes = 65, False
    ran = shop.rotate("run", "--force", "--waiting-ok")
    assert (ran.code, ran.err) == (12, "")
    assert "failed: " in ran.out
    assert shop.stored("pos")["client_secret"] == OLD
    assert "client_secret_pending" not in shop.stored("pos")
    assert called("token", "--credentials", f"file://{shop.file('pos')}", "--issuer", shop.issuer.url).code == 0


def test_where_no_token_tells_which_secret_works_it_ends_with_13(shop: Shop) -> None:
    shop.goes_down, shop.status = True, 1
    ran = shop.rotate("run", "--force", "--max-wait", "1s", "--timeout", "1")
    assert ran.code == 13
    assert "ambiguous: " in ran.out


def test_where_the_issuer_accepts_none_of_them_it_ends_with_14(shop: Shop) -> None:
    shop.rotate("run", "--force", "--wait", "1h", "--max-wait", "0")
    shop.issuer.set_secret("pos", OTHER)
    assert shop.rotate("run").code == 14
    assert shop.changes == []


def test_a_store_that_refuses_is_an_error_of_the_store(shop: Shop) -> None:
    shop.file("pos").chmod(0o644)
    ran = shop.rotate("run")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("secretsource: ")


def test_an_issuer_that_is_down_is_unavailable(shop: Shop) -> None:
    with shop.issuer.failing(Fault(status=503)):
        assert shop.rotate("run", "--force", "--timeout", "1").code == 5
    assert "client_secret_pending" not in shop.stored("pos")


def test_a_current_secret_that_is_not_accepted_is_drift_before_anything_is_claimed(shop: Shop) -> None:
    shop.issuer.set_secret("pos", OTHER)
    before = shop.file("pos").read_bytes()
    assert shop.rotate("run", "--force").code == 14
    assert shop.file("pos").read_bytes() == before


# --- gates ------------------------------------------------------------------------------------------------------------

GATE = """
from secretsource.rotation import Abort, Hold, Proceed
class Made:
    def {point}(self, moment, token=None):
        assert moment.client_id == "pos"
        return {answer}
"""
_numbers = itertools.count(1)


def gate(folder: Path, monkeypatch: pytest.MonkeyPatch, point: str, answer: str) -> str:
    """A gate that gives this answer, by its name."""
    plugs = folder / "plugs"
    plugs.mkdir()
    name = f"gate_{next(_numbers)}"  # a module stays loaded after its test
    code = GATE.format(point=point, answer=answer)
    monkeypatch.syspath_prepend(plugged_in(plugs, "secretsource.hooks", name, code))
    return name


def test_a_gate_that_holds_ends_with_11(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = gate(tmp_path, monkeypatch, "before_apply", "Hold('the shop is open')")
    ran = shop.rotate("run", "--force", "--gate", name)
    assert ran.code == 11
    assert "held: before_apply: the shop is open" in ran.out
    assert "client_secret_pending" in shop.stored("pos")
    assert shop.rotate("run", "--gate", name, "--waiting-ok").code == 0
    assert shop.changes == []


def test_a_gate_of_the_configuration_is_asked_too(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = gate(tmp_path, monkeypatch, "before_claim", "Abort('not in december')")
    shop.configured(rotation=f'gates = ["{name}"]')
    ran = shop.of("run", "pos", "--force")
    assert ran.code == 12
    assert "not in december" in ran.out
    assert shop.stored("pos")["client_secret"] == OLD


def test_force_does_not_set_a_gate_aside(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = gate(tmp_path, monkeypatch, "before_claim", "None")
    ran = shop.rotate("run", "--force", "--gate", name)
    assert ran.code == 11
    assert "answered neither Proceed, Hold nor Abort" in ran.out


def test_a_gate_that_is_not_registered_is_refused_before_anything_is_done(shop: Shop) -> None:
    ran = shop.rotate("run", "--force", "--gate", OTHER)
    assert (ran.code, ran.out) == (2, "")
    assert f"no gate of that name (of {len(OTHER)} characters" in ran.err


# --- resume, abort, rollback ------------------------------------------------------------------------------------------


def test_resume_begins_nothing(shop: Shop) -> None:
    before = shop.file("pos").read_bytes()
    ran = shop.rotate("resume", "--force")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "done: nothing is under way\n"
    assert shop.file("pos").read_bytes() == before


def test_resume_goes_on(shop: Shop) -> None:
    shop.rotate("run", "--force", "--wait", "1h", "--max-wait", "0")
    assert shop.rotate("resume", "--wait", "1h", "--max-wait", "0").code == 10
    assert shop.rotate("resume").code == 0
    assert shop.changes == ["pos"]


def test_resume_does_not_end_with_0_while_a_call_may_take_effect(shop: Shop) -> None:
    # Announced with the time that it has, and the issuer's: the answer of a call says little.
    assert shop.rotate("run", "--force", "--landing", "1h").code == 0
    ran = shop.rotate("resume", "--landing", "1h", "--max-wait", "0")
    assert ran.code == 10
    assert "a call to the issuer may still take effect" in ran.out


def test_abort_gives_the_pending_secret_up(shop: Shop) -> None:
    shop.rotate("run", "--force", "--wait", "1h", "--max-wait", "0")
    ran = shop.rotate("abort")
    assert ran.code == 0
    assert {"client_secret_pending", "client_secret_previous"} & set(shop.stored("pos")) == set()
    assert shop.stored("pos")["client_secret"] == OLD
    assert shop.changes == []


def test_abort_where_nothing_is_under_way_changes_nothing(shop: Shop) -> None:
    before = shop.file("pos").read_bytes()
    assert shop.rotate("abort").code == 0
    assert shop.file("pos").read_bytes() == before


def test_rollback_takes_the_previous_secret_back(shop: Shop) -> None:
    shop.rotate("run", "--force", "--soak", "1h", "--max-wait", "10s")
    new = shop.stored("pos")["client_secret"]
    ran = shop.rotate("rollback")
    assert ran.code == 0, ran
    assert shop.stored("pos")["client_secret"] == OLD
    assert new not in ran.out
    assert shop.changes == ["pos", "pos"]


def test_rollback_without_a_previous_secret_is_refused(shop: Shop) -> None:
    ran = shop.rotate("rollback")
    assert (ran.code, ran.out) == (2, "")
    assert "no previous secret to go back to" in ran.err


# --- plan, drift, status ----------------------------------------------------------------------------------------------


def test_a_plan_says_what_was_found_and_what_would_be_done_and_writes_nothing(shop: Shop) -> None:
    before = shop.file("pos").read_bytes()
    ran = shop.rotate("plan", "--force", "--wait", "6m", "--soak", "1h")
    assert (ran.code, ran.err) == (0, "")
    found = [line.split()[:2] for line in ran.out.splitlines() if not line.startswith(" ")]
    assert ["ok", "store"] in found
    assert ["ok", "current"] in found
    steps = [line for line in ran.out.splitlines() if line.startswith(" 2.")]
    assert steps == [" 2. wait 6 min, until consumers hold it"]
    assert shop.file("pos").read_bytes() == before
    assert [path.name for path in shop.file("pos").parent.iterdir()] == ["pos.json"]
    assert shop.changes == []


def test_a_plan_that_fails_ends_with_the_code_of_what_failed(shop: Shop) -> None:
    shop.issuer.set_secret("pos", OTHER)
    ran = shop.rotate("plan", "--force")
    assert ran.code == 4
    assert any(line.startswith("failed  current") for line in ran.out.splitlines())
    assert " 1. " not in ran.out
    shop.file("pos").chmod(0o644)
    assert shop.rotate("plan").code == 3


def test_a_plan_says_what_may_fail_where_the_secret_has_leaked(shop: Shop) -> None:
    ran = shop.rotate("plan", "--compromised")
    assert ran.code == 0
    assert "warning compromised" in ran.out


def test_a_plan_for_machines_is_a_line_for_each_finding_and_one_with_the_steps(shop: Shop) -> None:
    told = lines(shop.rotate("plan", "--force", "--json"))
    findings = [one for one in told if one["event"] == "finding"]
    assert {"name", "status", "found", "hint", "client", "environment"} <= set(findings[0])
    plan = the(told, "plan")
    assert plan["ok"] is True
    assert plan["steps"][0] == "write a new secret into the store as pending"
    assert plan["exit_code"] == 0


def test_drift_is_found_and_nothing_is_written(shop: Shop) -> None:
    before = shop.file("pos").read_bytes()
    assert shop.rotate("drift").code == 0
    shop.issuer.set_secret("pos", OTHER)
    ran = shop.rotate("drift")
    assert ran.code == 14
    assert ran.out.startswith("drift: the issuer accepts none of the secrets that are kept\n→ ")
    assert shop.file("pos").read_bytes() == before


def test_status_is_a_table(shop: Shop) -> None:
    shop.rotate("run", "--force", "--wait", "1h", "--max-wait", "0")
    ran = shop.rotate("status")
    assert (ran.code, ran.err) == (0, "")
    heading, row = ran.out.splitlines()
    assert heading.split() == ["client", "age", "due", "phase", "pending", "for"]
    assert row.startswith("pos ")
    assert "claimed" in row


def test_status_for_machines_has_all_of_it(shop: Shop) -> None:
    shop.rotate("run", "--force", "--wait", "1h", "--max-wait", "0")
    status = the(lines(shop.rotate("status", "--json")), "status")
    assert status["phase"] == "claimed"
    assert status["client_id"] == "pos"
    assert status["reference"] == f"file://{shop.file('pos')}"
    assert status["issuer"] == shop.issuer.url
    assert 0 <= status["pending_age"] < 60
    assert set(status["due"]) == {"now", "reason", "at"}
    assert status["open"] == 0


def test_status_asks_the_issuer_nothing_and_needs_no_adapter(shop: Shop) -> None:
    before = len(shop.issuer.requests)
    alone = ("--credentials", f"file://{shop.file('pos')}", "--issuer", shop.issuer.url)
    assert called("rotate", "status", *alone).code == 0
    assert len(shop.issuer.requests) == before


# --- what is given ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_takes_every_option(shop: Shop, action: str, tmp_path: Path) -> None:
    gap = ("--accept-gap", "--yes", "--audit", str(tmp_path / "audit"), "--waiting-ok")
    timed = ("--command-timeout", "30s", "--max-wait", "1m", "--every", "30d")
    scope = ("--scope", "orders.read", "--auth-method", "client_secret_post", "--client-id", "pos")
    ran = shop.rotate(action, *gap, *timed, *scope)
    assert ran.code == (2 if action == "rollback" else 0), ran
    if action == "rollback":
        assert "no previous secret" in ran.err


def test_a_token_url_serves_as_well_as_an_issuer(shop: Shop) -> None:
    alone = ("--credentials", f"file://{shop.file('pos')}", "--token-url", shop.issuer.token_url)
    assert called("rotate", "run", *alone, "--adapter", "shop", *AT_ONCE, "--force").code == 0
    assert shop.changes == ["pos"]


@pytest.mark.parametrize(
    "option", ["--wait", "--soak", "--propagation", "--landing", "--command-timeout", "--max-wait"]
)
@pytest.mark.parametrize("text", ["5x", "", "-1s", "soon", OTHER])
def test_what_is_no_duration_is_refused_and_not_repeated(option: str, text: str) -> None:
    ran = called("rotate", "status", option, text)
    assert (ran.code, ran.out) == (2, "")
    assert f"argument {option}: it is a duration such as 90s, 5m" in ran.err or text.startswith("-")
    assert OTHER not in ran.err


def test_without_an_adapter_and_a_terminal_the_adapters_are_listed(shop: Shop) -> None:
    alone = ("--credentials", f"file://{shop.file('pos')}", "--issuer", shop.issuer.url)
    for action in ("run", "plan", "resume", "abort", "rollback"):
        ran = called("rotate", action, *alone)
        assert (ran.code, ran.out) == (2, "")
        assert "names no adapter" in ran.err
        assert all(name in ran.err for name in ("auth0", "command", "entra", "keycloak", "manual", "okta", "orchard"))


def test_an_unknown_adapter_is_answered_with_the_one_that_may_be_meant_and_not_repeated(shop: Shop) -> None:
    alone = ("--credentials", f"file://{shop.file('pos')}", "--issuer", shop.issuer.url)
    assert "Did you mean 'keycloak'?" in called("rotate", "run", *alone, "--adapter", "keyclaok").err
    ran = called("rotate", "run", *alone, "--adapter", OTHER)
    assert (ran.code, ran.out) == (2, "")
    assert OTHER not in ran.err


def test_a_program_is_an_adapter_of_its_own(shop: Shop) -> None:
    alone = ("--credentials", f"file://{shop.file('pos')}", "--issuer", shop.issuer.url)
    program = ("--command", str(shop.program), *AT_ONCE[:-2], "--force")
    assert shop.looked_through(called("rotate", "run", *alone, *program)).code == 0
    assert shop.changes == ["pos"]
    assert "Command: it accepts" in called("rotate", "plan", *alone, *program, "--adapter", "command").out


def test_a_program_goes_with_its_own_adapter_alone(shop: Shop) -> None:
    ran = shop.rotate("run", "--adapter", "okta", "--command", str(shop.program))
    assert (ran.code, ran.out) == (2, "")
    assert "--command goes with --adapter command" in ran.err


@pytest.mark.parametrize("program", [f"/{OTHER}", OTHER, f"{OTHER}\0", ""])
def test_what_is_no_program_is_refused_and_not_repeated(shop: Shop, program: str) -> None:
    alone = ("--credentials", f"file://{shop.file('pos')}", "--issuer", shop.issuer.url)
    ran = called("rotate", "run", *alone, "--command", program)
    assert (ran.code, ran.out) == (2, "")
    assert "--command names no program that can be run" in ran.err
    assert OTHER not in ran.err


def test_a_secret_that_a_store_cannot_change_is_answered_with_the_recipe(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POS_CLIENT_ID", "pos")
    monkeypatch.setenv("POS_CLIENT_SECRET", OLD)
    ran = called(
        "rotate", "run", "--credentials", "env:POS", "--issuer", shop.issuer.url, "--command", str(shop.program)
    )
    assert (ran.code, ran.out) == (2, "")
    assert "is not written by secretsource" in ran.err


def test_nothing_that_was_typed_as_a_client_is_repeated(shop: Shop) -> None:
    shop.configured()
    ran = shop.of("run", "pos", OTHER)
    assert ran.code == 2
    assert f"no client of that name (of {len(OTHER)} characters" in ran.err


def test_a_document_for_another_issuer_is_refused(shop: Shop) -> None:
    secret_file(shop.folder / "secrets", "pos", OLD, issuer="https://pos.example.com/")
    ran = shop.rotate("run", "--force")
    assert ran.code == 2
    assert shop.issuer.token_requests == 0
