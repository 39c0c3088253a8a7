"""Commands on a configuration: CLIENT, --env and --config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secretsource.testing import FakeIssuer, secret_file
from secretsource.testing.fixtures import fake_issuer

from ..configurations import written
from . import CANARY, Ran, Terminal, called, process

__all__ = ["fake_issuer"]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SECRETSOURCE_ENV", "SECRETSOURCE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def issuer(fake_issuer: FakeIssuer) -> FakeIssuer:
    fake_issuer.add_client("pos", CANARY, scopes=["orders.read", "orders.write"])
    fake_issuer.add_client("stock", CANARY)
    return fake_issuer


@pytest.fixture
def shop(tmp_path: Path, issuer: FakeIssuer) -> Path:
    for client in ("pos", "stock"):
        secret_file(tmp_path / "secrets", client, CANARY)
    return written(
        tmp_path,
        f"""
[environments.test]
issuer = "{issuer.url}"
[environments.production]
production = true
require_binding = true
issuer = "{issuer.url}"
[environments.empty]
[clients.pos]
scope = "orders.read"
[clients.pos.environments.test]
credentials = "file:secrets/{{client}}.json"
[clients.pos.environments.production]
credentials = "file:production/{{client}}.json"
[clients.stock.environments.test]
credentials = "file:secrets/{{client}}.json"
[clients.till.environments.empty]
credentials = "env:TILL"
""",
    )


def refused(ran: Ran, *words: str) -> None:
    assert (ran.code, ran.out) == (2, ""), ran
    assert ran.err.startswith("secretsource: ")
    assert [word for word in words if word not in ran.err] == [], ran.err
    assert "Traceback" not in ran.err
    assert CANARY not in ran.err


# --- which client, environment and file -------------------------------------------------------------------------------


def test_a_client_gets_its_token_with_nothing_but_its_name(shop: Path, issuer: FakeIssuer) -> None:
    ran = process("token", "pos", "--env", "test", "--config", str(shop))
    assert (ran.code, ran.err) == (0, "")
    assert issuer.accepts(ran.out.strip())
    assert issuer.requests[-1].form["scope"] == "orders.read"


def test_the_environment_comes_from_the_variable_if_it_is_not_given(
    shop: Path, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRETSOURCE_ENV", "test")
    assert issuer.accepts(called("token", "pos").out.strip())
    refused(called("token", "pos", "--env", "empty"), "has no credentials")


def test_options_replace_what_is_configured(shop: Path, issuer: FakeIssuer, tmp_path: Path) -> None:
    kept = secret_file(tmp_path / "kept", "stock", CANARY)
    ran = called("token", "pos", "--env", "test", "--scope", "orders.write", "--extra", "tenant=north")
    assert issuer.accepts(ran.out.strip())
    assert issuer.requests[-1].form["scope"] == "orders.write"
    assert issuer.requests[-1].form["tenant"] == "north"
    assert called("token", "stock", "--env", "test", "--credentials", kept).code == 0
    assert issuer.requests[-1].client_id == "stock"


def test_relative_credentials_on_the_command_line_begin_in_the_working_directory(
    shop: Path, issuer: FakeIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "below"
    secret_file(below, "pos", CANARY)
    monkeypatch.chdir(below)
    ran = called("token", "pos", "--env", "test", "--config", str(shop), "--credentials", "file:pos.json")
    assert issuer.accepts(ran.out.strip())


def test_options_complete_what_is_configured(shop: Path, issuer: FakeIssuer, tmp_path: Path) -> None:
    kept = secret_file(tmp_path / "kept", "pos", CANARY)
    ran = called("token", "pos", "--env", "empty", "--credentials", kept, "--issuer", issuer.url)
    assert issuer.accepts(ran.out.strip())


def test_without_a_client_the_clients_are_listed(shop: Path) -> None:
    for verb in ("token", "check", "put", "config"):
        refused(called(verb), f"no CLIENT of {shop} is given", "It has: pos, stock, till")


def test_without_anything_both_ways_are_named() -> None:
    refused(called("token"), "neither a CLIENT of secretsource.toml nor --credentials", "env://POS")


def test_without_a_configuration_a_client_is_refused(tmp_path: Path) -> None:
    refused(called("token", "pos"), f"there is no secretsource.toml in {tmp_path}", "--config")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("poss", "--env", "test"), "no client of that name (of 4 characters, not repeated here). Did you mean 'pos'?"),
        (
            ("pos", "--env", "tset"),
            "no environment of that name (of 4 characters, not repeated here). Did you mean 'test'",
        ),
        (("pos",), "has 3 environments, and none was named. Name one by argument, --env or SECRETSOURCE_ENV"),
        (("pos", "--env", "test", "--config", "none"), "--config names no file (4 characters, not repeated here)"),
        (("--credentials", "env:POS", "--config", "secretsource.toml"), "--config goes with a CLIENT"),
        (("pos", "--env", "production", "--plain-http", "a:80"), "--plain-http is refused in production"),
    ],
)
def test_what_does_not_fit_ends_with_2(shop: Path, arguments: tuple[str, ...], said: str) -> None:
    refused(called("token", *arguments), said)


def test_a_file_that_is_wrong_ends_with_2_and_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, '[environments.test]\nisuer = "x"\n')
    refused(called("token", "pos"), f"{path}: environments.test.isuer is not known. Did you mean 'issuer'?")


def test_a_file_that_others_may_write_ends_with_2_and_the_command_that_mends_it(shop: Path) -> None:
    shop.chmod(0o666)
    refused(called("token", "pos", "--env", "test"), f"Run chmod go-wx {shop}")


def test_without_a_client_the_environment_is_what_documents_are_bound_to(issuer: FakeIssuer, tmp_path: Path) -> None:
    kept = secret_file(tmp_path / "kept", "pos", CANARY, environment="staging")
    arguments = ("--credentials", kept, "--issuer", issuer.url)
    assert called("token", *arguments, "--env", "staging").code == 0
    refused(
        called("token", *arguments, "--env", "production"), "bound to the environment 'staging'", "nothing was sent"
    )


def test_at_a_terminal_a_file_in_a_folder_above_is_found(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    refused(called("config", "pos", "--env", "test"), f"there is no secretsource.toml in {below}.")
    with Terminal("config", "pos", "--env", "test") as terminal:
        ran = terminal.end()
    assert ran.code == 0, ran
    assert str(shop) in ran.out


# --- config -----------------------------------------------------------------------------------------------------------


def test_config_shows_each_value_with_its_layer(shop: Path, issuer: FakeIssuer) -> None:
    ran = called("config", "pos", "--env", "production")
    assert (ran.code, ran.err) == (0, "")
    first, *lines = ran.out.splitlines()
    assert first == f"client 'pos' in environment 'production' of {shop}: production, require_binding"
    assert [line.split() for line in lines] == [
        ["credentials", f'"file://{shop.parent}/production/pos.json"', "clients.pos.environments.production"],
        ["issuer", f'"{issuer.url}"', "environments.production"],
        ["scope", '"orders.read"', "clients.pos"],
    ]


def test_config_gives_one_object_as_json(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[defaults.stores.vault]\naddress = "https://vault.example.com"\nauth = { method = "agent" }\n'
        '[clients.pos]\ncredentials = "vault://kv/pos"\nextra = { tenant = "north" }\n',
    )
    ran = called("config", "pos", "--json")
    assert json.loads(ran.out) == {
        "version": 1,
        "configuration": str(path),
        "client": "pos",
        "environment": "",
        "production": False,
        "require_binding": False,
        "values": {
            "credentials": {"value": "vault://kv/pos", "layer": "clients.pos"},
            "extra.tenant": {"value": "north", "layer": "clients.pos"},
            "stores.vault.address": {"value": "https://vault.example.com", "layer": "defaults"},
            "stores.vault.auth": {"value": {"method": "agent"}, "layer": "defaults"},
        },
    }


def test_config_needs_no_http_client(shop: Path) -> None:
    code = "import sys, atexit; atexit.register(lambda: print('httpx' in sys.modules, file=sys.stderr))\n"
    ran = process("config", "pos", "--env", "test", "--config", str(shop), before=code)
    assert (ran.code, ran.err) == (0, "False\n")


# --- check ------------------------------------------------------------------------------------------------------------


def test_check_says_which_client_environment_and_file_it_uses(shop: Path) -> None:
    ran = called("check", "pos", "--env", "test")
    assert ran.code == 0, ran
    assert ran.out.splitlines()[0].split(maxsplit=2) == [
        "ok",
        "configuration",
        f"client 'pos' in environment 'test' of {shop}",
    ]
    report = json.loads(called("check", "pos", "--env", "test", "--json").out)
    assert (report["client"], report["environment"], report["configuration"]) == ("pos", "test", str(shop))
    assert [step["status"] for step in report["steps"]] == ["ok"] * 10


@pytest.mark.parametrize("arguments", [("pso", "--env", "test"), ("pos",), ("till", "--env", "production")])
def test_a_configuration_that_does_not_fit_fails_the_first_steps(shop: Path, arguments: tuple[str, ...]) -> None:
    ran = called("check", *arguments, "--json")
    report = json.loads(ran.out)
    assert (ran.code, report["exit_code"]) == (2, 2)
    assert [step["status"] for step in report["steps"]].index("failed") <= 1


def test_check_warns_of_a_reference_that_follows_no_rotation(shop: Path) -> None:
    shop.write_text(shop.read_text() + '[clients.fixed]\ncredentials = "vault://kv/pos?version=7"\n')
    ran = called("check", "fixed", "--env", "test")
    assert "It will not follow a rotation of the secret" in ran.out


def test_check_refuses_a_document_without_the_binding_that_is_demanded(shop: Path, issuer: FakeIssuer) -> None:
    secret_file(shop.parent / "production", "pos", CANARY)
    ran = called("check", "pos", "--env", "production")
    assert ran.code == 2
    assert "does not say for which issuer" in ran.out
    assert issuer.token_requests == 0


def test_check_all_walks_every_client_of_the_environment(shop: Path, issuer: FakeIssuer) -> None:
    ran = called("check", "--all", "--env", "test")
    assert (ran.code, ran.err) == (0, "")
    assert [line for line in ran.out.splitlines() if line.endswith(":")] == ["pos:", "stock:"]
    assert ran.out.splitlines()[-1] == "skipped, without credentials in environment 'test': till"
    assert issuer.token_requests == 2


def test_check_all_ends_with_the_first_failing_code_and_goes_on(shop: Path, issuer: FakeIssuer) -> None:
    (shop.parent / "secrets/pos.json").unlink()
    issuer.set_secret("stock", "another-secret")
    ran = called("check", "--all", "--env", "test", "--json")
    report = json.loads(ran.out)
    assert (ran.code, report["exit_code"], report["ok"], report["version"]) == (3, 3, False, 1)
    assert [(one["client"], one["exit_code"]) for one in report["clients"]] == [("pos", 3), ("stock", 4)]
    assert report["skipped"] == ["till"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--all", "pos", "--env", "test"), "--all is for every client"),
        (("--all", "--credentials", "env:POS"), "--all is for every client"),
        (("--all",), "has 3 environments"),
    ],
)
def test_check_all_with_what_does_not_go_with_it_ends_with_2(shop: Path, arguments: tuple[str, ...], said: str) -> None:
    refused(called("check", *arguments), said)


def test_check_all_without_a_client_that_has_credentials_ends_with_2(tmp_path: Path) -> None:
    written(tmp_path, "[environments.test]\n[clients.pos]\n")
    refused(called("check", "--all"), "no client of", "has credentials in environment 'test'")


# --- put --------------------------------------------------------------------------------------------------------------


def test_put_writes_the_binding_of_the_environment(shop: Path, issuer: FakeIssuer) -> None:
    folder = shop.parent / "production"
    folder.mkdir(mode=0o700)
    ran = called("put", "pos", "--env", "production", "--client-id", "pos", text=f"{CANARY}\n")
    assert ran.code == 0, ran
    document = json.loads((folder / "pos.json").read_text())
    assert document == {
        "client_id": "pos",
        "client_secret": CANARY,
        "issuer": issuer.url,
        "environment": "production",
    }
    assert called("check", "pos", "--env", "production").code == 0


def test_put_does_not_write_into_a_document_of_another_environment(shop: Path, issuer: FakeIssuer) -> None:
    secret_file(shop.parent / "production", "pos", CANARY, environment="staging")
    ran = called("put", "pos", "--env", "production", text="new\n")
    refused(ran, "is bound to another environment than the one given")


def test_put_does_not_write_a_text_where_a_binding_is_demanded(shop: Path) -> None:
    arguments = ("pos", "--env", "production", "--credentials", "file:secret", "--client-id", "pos")
    refused(called("put", *arguments, text="new\n"), "holds one text", ".json")
    ran = called("put", "pos", "--env", "test", *arguments[3:], text=f"{CANARY}\n")
    assert ran.code == 0, ran
    assert (shop.parent / "secret").read_text() == f"{CANARY}\n"
