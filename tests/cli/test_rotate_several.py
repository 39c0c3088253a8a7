"""secretsource rotate on a configuration: several clients, one after the other, and one at a time at each issuer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from secretsource.cli.rotate import _worst

from . import called
from .shops import OLD, OTHER, Shop, lines, the


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SECRETSOURCE_ENV", "SECRETSOURCE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path).open() as shop:
        for client in ("pos", "stock"):
            shop.add(client)
        yield shop


def claim(shop: Shop, client: str) -> None:
    """Begin a rotation of this client's secret, and leave it waiting."""
    assert shop.of("run", client, "--force", "--wait", "1h", "--max-wait", "0").code == 10


# --- several clients --------------------------------------------------------------------------------------------------


def test_all_clients_are_taken_one_after_the_other(shop: Shop) -> None:
    shop.configured()
    ran = shop.of("run", "--all", "--force")
    assert (ran.code, ran.err) == (0, "")
    assert shop.changes == ["pos", "stock"]
    assert [line for line in ran.out.splitlines() if "done:" in line] == [
        "pos: done: the secret is changed",
        "stock: done: the secret is changed",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("run", "pos", "stock", "--env", "test", "--force"),
        ("run", "--env", "test", "pos", "--force", "stock"),
        ("--env", "test", "run", "--force", "pos", "stock"),
        ("run", "pos", "--env", "test", "stock", "--force", "pos"),
    ],
)
def test_clients_may_stand_anywhere_and_are_taken_once(shop: Shop, words: tuple[str, ...]) -> None:
    shop.configured()
    assert called("rotate", *words).code == 0
    assert shop.changes == ["pos", "stock"]


def test_one_that_fails_keeps_no_other_from_its_turn(shop: Shop) -> None:
    shop.configured()
    shop.file("pos").chmod(0o644)
    ran = shop.of("run", "--all", "--force")
    assert ran.code == 3
    assert ran.err.startswith("secretsource: pos: ")
    assert shop.changes == ["stock"]


def test_the_worst_end_counts(shop: Shop) -> None:
    shop.configured('[clients.stock.rotation]\nwait = "1h"\nmax_wait = 0\n')
    assert shop.of("run", "--all", "--force").code == 10
    assert shop.of("run", "--all", "--force", "--waiting-ok").code == 0
    shop.issuer.set_secret("pos", OTHER)
    ran = shop.of("run", "--all", "--force", "--waiting-ok")
    assert ran.code == 14


def test_what_is_worse_is_defined() -> None:
    order = [14, 13, 1, 4, 12, 3, 2, 5, 11, 10, 0]
    for number, code in enumerate(order):
        assert _worst(order[number:][::-1]) == code
    text = " ".join(called("rotate", "--help").out.split())
    assert f"of several clients the worst: {', '.join(map(str, order))}." in text


def test_clients_without_an_adapter_are_left_out_of_all_and_named(shop: Shop) -> None:
    text = shop.configured().read_text().replace('adapter = "shop"\n', "")
    (shop.folder / "secretsource.toml").write_text(text + '[clients.pos.rotation]\nadapter = "shop"\n')
    ran = shop.of("run", "--all", "--force")
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "skipped, without an adapter in its rotation: stock"
    assert shop.changes == ["pos"]
    end = json.loads(shop.of("run", "--all", "--json").out.splitlines()[-1])
    assert end == {"version": 1, "event": "end", "action": "run", "exit_code": 0, "skipped": ["stock"]}
    assert shop.of("run", "--all", "--force", "--adapter", "shop").code == 0
    assert shop.changes == ["pos", "pos", "stock"]


def test_all_is_nothing_where_no_client_has_an_adapter(shop: Shop) -> None:
    text = shop.configured().read_text().replace('adapter = "shop"\n', "")
    (shop.folder / "secretsource.toml").write_text(text)
    ran = shop.of("run", "--all")
    assert (ran.code, ran.out) == (2, "")
    assert "has an adapter in environment 'test'" in ran.err
    assert "keycloak" in ran.err


@pytest.mark.parametrize("given", [("pos",), ("--credentials", "env:POS")])
def test_all_goes_with_no_other_choice(shop: Shop, given: tuple[str, ...]) -> None:
    shop.configured()
    ran = called("rotate", "run", "--all", "--env", "test", *given)
    assert (ran.code, ran.out) == (2, "")
    assert "--all is for every client" in ran.err


def test_options_for_one_client_are_refused_for_several(shop: Shop) -> None:
    shop.configured()
    ran = shop.of("run", "pos", "stock", "--credentials", f"file://{shop.file('pos')}")
    assert (ran.code, ran.out) == (2, "")
    assert "--credentials and --client-id are for one client" in ran.err


def test_without_a_client_the_clients_are_listed(shop: Shop) -> None:
    shop.configured()
    ran = shop.of("run")
    assert (ran.code, ran.out) == (2, "")
    assert "It has: pos, stock" in ran.err


# --- what the configuration says --------------------------------------------------------------------------------------


def test_what_the_configuration_says_holds_and_options_go_over_it(shop: Shop) -> None:
    shop.configured('[clients.pos.rotation]\nwait = "2h"\nmax_wait = "0s"\nevery = "1ms"\n')
    ran = shop.of("run", "pos")
    assert ran.code == 10
    assert re.search(r"can be made in (2 h|1 h 59 min)\n", ran.out)
    assert shop.of("run", "pos", "--wait", "0", "--max-wait", "1m").code == 0
    assert shop.of("run", "stock").out.startswith("done: nothing is due")


def test_an_adapter_that_is_given_by_option_gets_none_of_the_settings_of_another(shop: Shop) -> None:
    shop.configured(rotation='settings = { org = "https://login.example.com" }')
    ran = shop.of("run", "pos")
    assert ran.code == 2
    assert "secretsource.toml: defaults.rotation.settings.org is not known" in ran.err
    shop.configured(rotation=f'command = "{shop.program}"\nsettings = {{ org = "https://login.example.com" }}')
    assert shop.of("plan", "pos", "--adapter", "command").code == 0


def test_a_program_of_the_configuration_is_the_adapter_where_none_is_named(shop: Shop) -> None:
    text = shop.configured().read_text().replace('adapter = "shop"', 'command = ["./set-secret"]')
    (shop.folder / "secretsource.toml").write_text(text.replace('command_timeout = "500ms"\n', ""))
    assert shop.of("run", "pos", "--force").code == 0
    assert shop.changes == ["pos"]


def test_what_holds_is_shown_with_where_it_is_written(shop: Shop) -> None:
    shop.configured('[clients.pos.rotation]\nwait = "6m"\nsettings = { org = "https://{client}.example.com" }\n')
    ran = called("config", "pos", "--env", "test")
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["rotation.adapter", '"shop"', "defaults"] in rows
    assert ["rotation.wait", '"6m"', "clients.pos"] in rows
    assert ["rotation.settings.org", '"https://pos.example.com"', "clients.pos"] in rows
    values = json.loads(called("config", "pos", "--env", "test", "--json").out)["values"]
    assert values["rotation.soak"] == {"value": 0, "layer": "defaults"}


# --- one at a time ----------------------------------------------------------------------------------------------------


def test_no_secret_is_claimed_while_another_is_being_changed_at_the_issuer(shop: Shop) -> None:
    shop.configured()
    claim(shop, "stock")
    before = shop.file("pos").read_bytes()
    ran = shop.of("run", "pos", "--force")
    assert ran.code == 10
    assert "the secret of client 'stock' is being changed at the same issuer (claimed)" in ran.out
    assert "→ A later run takes its turn when that one is finished" in ran.out
    assert shop.file("pos").read_bytes() == before
    assert shop.of("run", "pos", "--force", "--waiting-ok").code == 0


def test_a_run_of_all_finishes_what_is_under_way_and_the_others_take_their_turn(shop: Shop) -> None:
    shop.configured()
    claim(shop, "stock")
    assert shop.of("run", "--all", "--force").code == 10
    assert shop.changes == ["stock"]
    assert shop.of("run", "--all", "--force").code == 0
    assert shop.changes[1] == "pos"


def test_what_is_under_way_is_gone_on_with_beside_another(shop: Shop) -> None:
    shop.configured()
    claim(shop, "stock")
    waiting = ("--force", "--wait", "1h", "--max-wait", "0")
    assert shop.rotate("run", *waiting).code == 10  # who has no configuration knows of no others
    assert shop.of("run", "pos").code == 0
    assert shop.changes == ["pos"]


def test_one_that_only_soaks_keeps_nobody_waiting(shop: Shop) -> None:
    shop.configured()
    assert shop.of("run", "stock", "--force", "--soak", "1h", "--max-wait", "20s").code == 10
    assert "client_secret_previous" in shop.stored("stock")
    assert shop.of("run", "pos", "--force").code == 0


def test_another_issuer_keeps_nobody_waiting(shop: Shop) -> None:
    shop.configured()
    claim(shop, "stock")
    shop.configured('[clients.stock.environments.test]\nissuer = "https://other.example.com"\n')
    assert shop.of("run", "pos", "--force").code == 0


def test_a_store_that_cannot_be_read_keeps_nobody_waiting_and_is_named(shop: Shop) -> None:
    shop.configured()
    shop.file("stock").chmod(0o644)
    ran = shop.of("run", "pos", "--force")
    assert ran.code == 0
    assert "not looked at, since their stores cannot be read: stock" in ran.out
    told = lines(shop.of("run", "pos", "--force", "--json"))
    assert the(told, "warning")["reason"].endswith(": stock")


def test_a_client_that_is_configured_wrongly_keeps_nobody_waiting(shop: Shop) -> None:
    shop.configured('[clients.stock.stores.vault]\naddress = "https://{tenant}.example.com"\n')
    ran = shop.of("run", "pos", "--force")
    assert ran.code == 0
    assert "cannot be read: stock" in ran.out


def test_a_secret_that_leaked_waits_for_nobody(shop: Shop) -> None:
    shop.configured()
    claim(shop, "stock")
    assert shop.of("run", "pos", "--compromised").code == 0
    assert OLD not in shop.file("pos").read_text()


# --- status -----------------------------------------------------------------------------------------------------------


def test_status_of_all_is_one_table(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.configured('[clients.till]\ncredentials = "env:TILL"\n', clients=("pos", "stock"))
    claim(shop, "stock")
    ran = shop.of("status", "--all")
    assert (ran.code, ran.err[:26]) == (2, "secretsource: till: the st")
    heading, pos, stock = ran.out.splitlines()
    assert heading.split() == ["client", "age", "due", "phase", "pending", "for"]
    assert pos.split()[0] == "pos"
    assert pos.split()[-2:] == ["idle", "-"]
    assert "claimed" in stock
    assert heading.index("phase") == pos.index("idle") == stock.index("claimed")


def test_status_leaves_out_what_nobody_rotates(shop: Shop) -> None:
    text = shop.configured('[clients.till]\ncredentials = "env:TILL"\n').read_text().replace('adapter = "shop"\n', "")
    (shop.folder / "secretsource.toml").write_text(text)
    ran = shop.of("status", "--all")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["client", "pos", "stock", "skipped,"]
    assert "till" in ran.out


def test_status_of_all_for_machines_is_a_line_for_each(shop: Shop) -> None:
    shop.configured()
    told = lines(shop.of("status", "--all", "--json"))
    assert [(one["event"], one["client"], one["phase"]) for one in told] == [
        ("status", "pos", "idle"),
        ("status", "stock", "idle"),
    ]


def test_drift_of_all_needs_no_adapter(shop: Shop) -> None:
    text = shop.configured(rotation='owner = "shop@example.com"').read_text().replace('adapter = "shop"\n', "")
    (shop.folder / "secretsource.toml").write_text(text)
    shop.issuer.set_secret("stock", OTHER)
    ran = shop.of("drift", "--all")
    assert (ran.code, ran.err) == (14, "")
    assert "pos: done: the issuer accepts the current secret" in ran.out
    assert "stock: drift: the issuer accepts none of the secrets that are kept" in ran.out
    assert "It belongs to shop@example.com" in ran.out


# --- for machines -----------------------------------------------------------------------------------------------------


def test_a_run_for_machines_is_json_lines_alone(shop: Shop) -> None:
    shop.configured()
    ran = shop.of("run", "--all", "--force", "--json")
    assert (ran.code, ran.err) == (0, "")
    told = lines(ran)
    results = [one for one in told if one["event"] == "result"]
    assert [(one["client"], one["result"], one["exit_code"]) for one in results] == [
        ("pos", "done", 0),
        ("stock", "done", 0),
    ]
    assert set(results[0]) == {
        *("version", "event", "client", "environment", "reference", "owner", "exit_code"),
        *("result", "reason", "hint", "phase", "rotation", "retry_after"),
    }
    step = next(one for one in told if one["event"] == "step" and one["step"] == "claim")
    assert set(step) == {
        *("version", "event", "instant", "client", "environment", "reference"),
        *("rotation", "step", "outcome", "reason", "duration"),
    }
    assert step["environment"] == "test"
    assert step["rotation"] == results[0]["rotation"]


def test_an_error_for_machines_is_a_line_too(shop: Shop) -> None:
    shop.configured()
    shop.file("pos").chmod(0o644)
    told = lines(shop.of("run", "pos", "--force", "--json"))
    error = the(told, "error")
    assert (error["client"], error["error"], error["exit_code"]) == ("pos", "AccessDenied", 3)
    assert error["hint"]


# --- audit ------------------------------------------------------------------------------------------------------------


def test_each_step_is_one_line_of_the_audit(shop: Shop) -> None:
    shop.configured()
    path = shop.folder / "audit.jsonl"
    assert shop.of("run", "--all", "--force", "--audit", str(path)).code == 0
    assert path.stat().st_mode & 0o7777 == 0o600
    audited = [json.loads(line) for line in path.read_text().splitlines()]
    names = ["instant", "environment", "client", "issuer", "reference", "rotation", "step", "outcome"]
    names += ["reason", "actor"]
    assert all(list(line) == names for line in audited)
    wanted = ["claim", "note", "apply", "promote", "drop"]
    for client in ("pos", "stock"):
        made = [line for line in audited if line["client"] == client and line["step"] in wanted]
        assert [line["step"] for line in made] == wanted
        assert {line["environment"] for line in made} == {"test"}
        assert {line["reference"] for line in made} == {f"file://{shop.file(client)}"}
    secrets = {OLD, *(shop.stored(client)["client_secret"] for client in ("pos", "stock"))}
    assert not any(secret in path.read_text() for secret in secrets)


@pytest.mark.parametrize("made", ["a link", "for all"])
def test_an_audit_that_others_lead_or_write_is_refused_before_anything_is_begun(shop: Shop, made: str) -> None:
    path = shop.folder / "audit.jsonl"
    if made == "a link":
        path.symlink_to(shop.folder / "elsewhere.jsonl")
    else:
        path.touch()
        path.chmod(0o666)
    ran = shop.of("run", "--all", "--force", "--audit", str(path))
    assert ran.code == 2
    assert shop.changes == []
    assert not (shop.folder / "elsewhere.jsonl").exists()


def test_an_audit_is_only_appended_to_and_keeps_its_mode(shop: Shop) -> None:
    shop.configured()
    path = shop.folder / "audit.jsonl"
    path.write_text("what was there\n")
    path.chmod(0o640)
    shop.of("run", "pos", "--force", "--audit", str(path))
    assert path.read_text().startswith('what was there\n{"instant": ')
    assert path.stat().st_mode & 0o7777 == 0o640


def test_an_audit_that_cannot_be_written_to_is_refused_before_anything_is_done(shop: Shop) -> None:
    shop.configured()
    ran = shop.of("run", "pos", "--force", "--audit", str(shop.folder / OTHER / "audit"))
    assert (ran.code, ran.out) == (2, "")
    assert "No such file or directory" in ran.err
    assert shop.changes == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_audit_that_is_full_stops_no_rotation_and_is_no_success(shop: Shop) -> None:
    shop.configured()
    ran = shop.of("run", "pos", "--force", "--audit", "/dev/full")
    assert ran.code == 1
    assert "the audit is incomplete: No space left on device" in ran.err
    assert shop.changes == ["pos"]
