"""secretsource.toml: where it is, what it may say, and what holds for a client."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import pytest

from secretsource import ConfigurationError, IssuerProfile, TokenSource
from secretsource.config import KEYS, Configuration, loaded, located
from secretsource.config.tables import takes_of

from .configurations import configuration, refused, written

SHOP = """
[defaults]
scope = "orders.read"
timeout = 5

[environments.development]
issuer = "http://127.0.0.1:5001"
credentials = "file:secrets/{client}.json"

[environments.production]
production = true
issuer = "https://pos.example.com"
credentials = "vault://kv/{environment}/{client}"

[clients.pos]
[clients.stock]
scope = ["stock.read", "stock.write"]
timeout = 7

[clients.stock.environments.production]
credentials = "aws://prod/stock"
timeout = 9
"""
LAYERS = {
    "defaults": "[defaults]\n{}\n[environments.test]\n[clients.pos]\n",
    "environments.test": "[environments.test]\n{}\n[clients.pos]\n",
    "clients.pos": "[environments.test]\n[clients.pos]\n{}\n",
    "clients.pos.environments.test": "[environments.test]\n[clients.pos.environments.test]\n{}\n",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SECRETSOURCE_ENV", "SECRETSOURCE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


# --- what holds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "environment", "timeout", "layer"),
    [
        ("pos", "development", 5, "defaults"),
        ("stock", "development", 7, "clients.stock"),
        ("stock", "production", 9, "clients.stock.environments.production"),
    ],
)
def test_the_nearest_layer_holds_and_is_named(
    tmp_path: Path, client: str, environment: str, timeout: int, layer: str
) -> None:
    settings = configuration(tmp_path, SHOP).settings(client, environment)
    assert settings.get("timeout") == timeout
    assert settings.values["timeout",].layer == layer


@pytest.mark.parametrize("over", range(1, 4))
def test_each_layer_goes_over_those_below(tmp_path: Path, over: int) -> None:
    layers = list(LAYERS)
    text = "".join(
        f"[{name}]\ntimeout = {number + 1}\n" if number <= over else f"[{name}]\n" for number, name in enumerate(layers)
    )
    # TOML wants each table once: [environments.test] before the client's own stands there anyway.
    settings = configuration(tmp_path, text + "[environments.other]\n").settings("pos", "test")
    by_strength = ["defaults", "environments.test", "clients.pos", "clients.pos.environments.test"]
    assert settings.values["timeout",].layer == by_strength[over]


def test_both_names_are_put_into_texts(tmp_path: Path) -> None:
    read = configuration(tmp_path, SHOP)
    assert read.settings("pos", "production").get("credentials") == "vault://kv/production/pos"
    assert read.settings("stock", "production").get("credentials") == "aws://prod/stock"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("issuer", '"https://{client}.{environment}.example.com"'),
        ("scope", '["{client}.read", "{environment}"]'),
        ("audience", '"{client}"'),
        ("client_id", '"{client}-{environment}"'),
        ("resource", '"https://{client}"'),
    ],
)
def test_names_are_put_into_every_text(tmp_path: Path, key: str, value: str) -> None:
    text = f'[environments.test]\n[clients.pos]\ncredentials = "env:POS"\n{key} = {value}\n'
    found = str(configuration(tmp_path, text).settings("pos").get(key))
    assert "{" not in found
    assert "pos" in found


@pytest.mark.parametrize("text", ["env://{clinet}", "env://{}", "env://{client", "env://client}", "env://{Client}"])
def test_nothing_else_may_stand_in_braces(tmp_path: Path, text: str) -> None:
    error = refused(tmp_path, f'[clients.pos]\ncredentials = "{text}"\n')
    assert "clients.pos.credentials has a brace in it that belongs to neither" in error


def test_a_misspelt_name_in_braces_is_answered_with_the_one_that_is_meant(tmp_path: Path) -> None:
    assert "Did you mean 'client'?" in refused(tmp_path, '[clients.pos]\ncredentials = "env://{clinet}"\n')


def test_the_environment_in_braces_needs_one(tmp_path: Path) -> None:
    assert "no environments" in refused(tmp_path, '[clients.pos]\ncredentials = "env://{environment}"\n')


def test_other_braces_stay_in_extra_parameters(tmp_path: Path) -> None:
    text = """[clients.pos]\ncredentials = "env:POS"\nextra = { claims = '{"a": "{client}"}' }\n"""
    assert configuration(tmp_path, text).settings("pos").arguments()["extra"] == {"claims": '{"a": "pos"}'}


def test_extra_profile_and_stores_are_laid_over_by_their_keys(tmp_path: Path) -> None:
    text = """
[defaults]
extra = { tenant = "north", region = "eu" }
profile = { lockout = true, endpoint_hosts = ["login.example.com"] }
[defaults.stores.file]
root = "secrets"
[environments.test]
credentials = "file:pos.json"
extra = { tenant = "south" }
profile = { basic_encoding = "raw" }
[environments.test.stores.file]
access = "strict"
[clients.pos]
"""
    settings = configuration(tmp_path, text).settings("pos", "test")
    arguments = settings.arguments()
    assert arguments["extra"] == {"tenant": "south", "region": "eu"}
    profile = IssuerProfile(lockout=True, endpoint_hosts=("login.example.com",), basic_encoding="raw")
    assert arguments["profile"] == profile
    assert settings.values["stores", "file", "root"].layer == "defaults"
    assert settings.values["stores", "file", "access"].layer == "environments.test"


def test_relative_files_begin_in_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    read = configuration(folder, SHOP.replace("[clients.pos]", '[clients.pos]\nca_file = "ca.pem"'))
    settings = read.settings("pos", "development")
    assert settings.get("credentials") == f"file://{folder}/secrets/pos.json"
    assert settings.get("ca_file") == f"{folder}/ca.pem"


def test_the_keys_are_the_arguments_of_a_token_source() -> None:
    taken = set(inspect.signature(TokenSource.__init__).parameters) - {"self", "misspelt"}
    assert set(KEYS) | {"stores"} == taken - {"on_event", "clock", "shared"}


# --- environments and clients -----------------------------------------------------------------------------------------


def test_the_only_environment_need_not_be_named(tmp_path: Path) -> None:
    read = configuration(tmp_path, '[environments.test]\ncredentials = "env:POS"\n[clients.pos]\n')
    assert read.settings("pos").environment == "test"


def test_of_several_environments_one_has_to_be_named(tmp_path: Path) -> None:
    assert "--env or SECRETSOURCE_ENV: development, production" in refused(tmp_path, SHOP)


@pytest.mark.parametrize(("name", "said"), [("prodution", "Did you mean 'production'?"), ("p4ss", "It has: develop")])
def test_an_unknown_environment_is_answered_with_those_that_are_there(tmp_path: Path, name: str, said: str) -> None:
    error = refused(tmp_path, SHOP, environment=name)
    assert said in error
    assert name not in error


@pytest.mark.parametrize(("name", "said"), [("stok", "Did you mean 'stock'?"), ("p4ss", "It has: pos, stock")])
def test_an_unknown_client_is_answered_with_those_that_are_there(tmp_path: Path, name: str, said: str) -> None:
    error = refused(tmp_path, SHOP, name, "production")
    assert said in error
    assert name not in error


def test_a_file_without_environments_serves_alone(tmp_path: Path) -> None:
    assert configuration(tmp_path, '[clients.pos]\ncredentials = "env:POS"\n').settings("pos").environment == ""


@pytest.mark.parametrize("name", ["../etc", "a/b", "a?b", "a#b", "a b", "", "é", "a.b", "-a", "x" * 65])
@pytest.mark.parametrize("kind", ["clients", "environments"])
def test_names_cannot_change_the_reference_that_they_are_put_into(tmp_path: Path, kind: str, name: str) -> None:
    error = refused(tmp_path, f'[{kind}."{name}"]\n', None)
    assert f"{kind} has a name of {len(name)} characters that is not one" in error


def test_a_client_without_credentials_is_refused_and_not_counted(tmp_path: Path) -> None:
    text = '[environments.a]\n[environments.b]\n[clients.pos.environments.a]\ncredentials = "env:POS"\n'
    assert "has no credentials" in refused(tmp_path, text, environment="b")
    read = configuration(tmp_path, text)
    assert (read.clients_of("a"), read.clients_of("b")) == (["pos"], [])


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS)
def test_an_unknown_key_is_named_with_its_place_and_the_nearest_known_one(tmp_path: Path, layer: str) -> None:
    error = refused(tmp_path, LAYERS[layer].replace("{}", 'isuer = "https://pos.example.com"'), None)
    assert f"{tmp_path}/secretsource.toml: {layer}.isuer is not known. Did you mean 'issuer'?" in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[enviroments.a]\n", "enviroments is not known. Did you mean 'environments'?"),
        ('issuer = "https://pos.example.com"\n', "setting outside of all tables. Write [defaults] above 'issuer'"),
        ("[defaults]\nproduction = true\n", "defaults.production is not known"),
        (
            "[environments.a]\n[clients.pos.environments.a]\nproduction = true\n",
            "environments.a.production is not known",
        ),
        (
            "[environments.test]\n[clients.pos.environments.tset]\n",
            "is no environment of this file. Did you mean 'test'?",
        ),
        ("[defaults.profile]\nlock_out = true\n", "defaults.profile.lock_out is not known. Did you mean 'lockout'?"),
        ("clients = 3\n", "clients is an integer, and takes a table"),
        ("[clients]\npos = 3\n", "clients.pos is an integer, and takes a table"),
        ("[defaults]\non_event = 'x'\n", "defaults.on_event is not known"),
    ],
)
def test_what_no_table_takes_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text, None)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("issuer = 5", "issuer is an integer, and takes a string"),
        ("issuer = true", "issuer is a boolean, and takes a string"),
        ("issuer = 2026-11-24", "issuer is a date or time, and takes a string"),
        ("credentials = ['env:POS']", "credentials is an array with a string in it, and takes a string"),
        ("scope = [1, 'a']", "scope is an array with an integer and a string in it, and takes a string or an array of"),
        ("timeout = '5'", "timeout is a string, and takes a number"),
        ("timeout = true", "timeout is a boolean, and takes a number"),
        ("timeout = nan", "timeout is a float, and takes a number"),
        ("extra = 'a=b'", "extra is a string, and takes a table"),
        ("extra = { tenant = 5 }", "extra.tenant is an integer, and takes a string"),
        ("profile = { lockout = 1 }", "profile.lockout is an integer, and takes true or false"),
        ("profile = { basic_encoding = 'row' }", "profile.basic_encoding is a string, and takes one of rfc6749, raw,"),
        ("profile = { endpoint_hosts = 'a' }", "profile.endpoint_hosts is a string, and takes an array"),
        ("auth_method = 'post'", "auth_method is a string, and takes one of client_secret_basic, client_secret_post"),
        ("plain_http = [5]", "plain_http is an array with an integer in it, and takes a string or an array"),
        ("plain_http = [{ host = 'a:80' }]", "plain_http has no 'reason'"),
        ("stores = 'file'", "stores is a string, and takes a table"),
        ("stores = { file = 'x' }", "stores.file is no table"),
    ],
)
def test_a_wrong_type_is_answered_with_what_was_found_and_what_is_taken(
    tmp_path: Path, layer: str, line: str, said: str
) -> None:
    assert f"{layer}.{said}" in refused(tmp_path, LAYERS[layer].replace("{}", line), None)


def test_what_is_no_toml_is_answered_with_line_and_column_and_nothing_of_it(tmp_path: Path) -> None:
    error = refused(tmp_path, '[defaults]\nscope = "orders.read\nhunter2\n', None)
    assert "secretsource.toml is not valid toml (line 2, column" in error
    assert "orders" not in error
    assert "hunter2" not in error


def test_an_empty_file_is_refused_without_advice_to_write_a_secret_into_it(tmp_path: Path) -> None:
    error = refused(tmp_path, "", None)
    assert "is empty" in error
    assert "Write it as TOML" in error


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("issuer = 'http://pos.example.com'", "plain http"),
        ("timeout = -1", "timeout=-1 is not a number of seconds"),
        ("issuer = 'https://pos.example.com?x=1'", "issuer has a '#' or '?'"),
        ("extra = { scope = 'x' }", "extra= may not set 'scope'"),
    ],
)
def test_what_a_source_refuses_is_told_with_client_environment_and_file(tmp_path: Path, line: str, said: str) -> None:
    lines = "" if line.startswith("issuer") else "issuer = 'https://pos.example.com'\n"
    path = written(tmp_path, f"[environments.test]\n[clients.pos]\ncredentials = 'env:POS'\n{lines}{line}\n")
    with pytest.raises(ConfigurationError) as caught:
        TokenSource.from_config("pos", path=path)
    assert f"client 'pos' in environment 'test' of {path}: " in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("key", ["timeout", "leeway", "max_stale"])
def test_a_number_of_four_hundred_digits_is_no_time(tmp_path: Path, key: str) -> None:
    lines = "issuer = 'https://pos.example.com'\ncredentials = 'env:POS'\n"
    path = written(tmp_path, f"[clients.pos]\n{lines}{key} = {'9' * 400}\n")
    with pytest.raises(ConfigurationError, match="more digits than any time has") as caught:
        TokenSource.from_config("pos", path=path)
    assert caught.value.__context__ is None


def test_a_value_that_stands_in_the_reference_too_hides_no_other_error(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "[clients.billing-service]\naudience = 'billing-service'\nissuer = 'https://pos.example.com'\n"
        "credentials = 'file:/etc/billing-service/pos.json?acces=strict'\n",
    )
    with pytest.raises(ConfigurationError, match="has no option 'acces'") as caught:
        TokenSource.from_config("billing-service", path=path)
    assert caught.value.hint == "Did you mean 'access'?"


def test_a_reference_that_is_none_is_told_with_its_place(tmp_path: Path) -> None:
    error = refused(tmp_path, '[clients.pos]\ncredentials = "hunter2-hunter2"\n')
    assert "clients.pos.credentials cannot be used: not a reference to a secret: 15 characters" in error
    assert "hunter2" not in error


# --- where the file is ------------------------------------------------------------------------------------------------


def test_the_file_is_the_one_given_else_that_of_the_variable_else_the_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, of_variable, here = (
        written(tmp_path, "[defaults]\n", name) for name in ("a.toml", "b.toml", "secretsource.toml")
    )
    assert located() == str(here)
    monkeypatch.setenv("SECRETSOURCE_CONFIG", str(of_variable))
    assert located() == str(of_variable)
    assert located(given) == str(given)


def test_a_folder_above_is_looked_at_only_when_that_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "[defaults]\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert located(upwards=True) == str(path)
    with pytest.raises(ConfigurationError, match=r"there is no secretsource\.toml in .*/a/b\. .*SECRETSOURCE_CONFIG"):
        located()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        loaded(located(tmp_path / "none.toml"))


@pytest.mark.parametrize("path", [5, b"secretsource.toml", "a\0b"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"path= is the path of a file|path= has a NUL"):
        located(path)


@pytest.mark.parametrize("names", [(["pos"],), ("pos", ["test"]), (5,), ("pos", 5)])
def test_what_is_no_name_is_refused(tmp_path: Path, names: Any) -> None:
    path = written(tmp_path, "[environments.test]\n[clients.pos]\ncredentials = 'env:POS'\n")
    with pytest.raises(ConfigurationError, match="is a str, not"):
        TokenSource.from_config(*names, path=path)


def test_a_link_means_the_file_that_it_leads_to(tmp_path: Path) -> None:
    path = written(tmp_path, "[defaults]\n")
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "shop.toml"
    link.symlink_to(path)
    assert located(link) == str(path)


def test_the_folder_of_a_config_map_is_the_one_that_stays(tmp_path: Path) -> None:
    state = tmp_path / "..2026_11_24"
    state.mkdir()
    written(state, "[defaults]\n")
    (tmp_path / "..data").symlink_to(state.name)
    (tmp_path / "secretsource.toml").symlink_to("..data/secretsource.toml")
    assert located(tmp_path / "secretsource.toml") == str(tmp_path / "secretsource.toml")
    assert isinstance(loaded(located(tmp_path / "secretsource.toml")), Configuration)


# --- who may change it ------------------------------------------------------------------------------------------------


def test_who_may_read_it_does_not_matter(tmp_path: Path) -> None:
    path = written(tmp_path, "[defaults]\n")
    path.chmod(0o444)
    assert loaded(str(path)).clients == []


@pytest.mark.parametrize("mode", [0o666, 0o646])
def test_a_file_that_others_may_write_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path, "[defaults]\n")
    path.chmod(mode)
    with pytest.raises(ConfigurationError) as caught:
        loaded(str(path))
    assert "everybody can write to" in str(caught.value) or "group" in str(caught.value)
    assert f"Run chmod go-wx {path}" in str(caught.value)
    assert "decides where a secret is sent" in str(caught.value)
    assert caught.value.__context__ is None


def test_a_folder_above_that_others_may_write_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    path = written(folder, "[defaults]\n")
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match=f"Run chmod go-w {folder}"):
        loaded(str(path))


def test_a_link_in_a_folder_that_others_may_write_is_refused_as_well(tmp_path: Path) -> None:
    """Who can exchange the link chooses which file decides where a secret is sent."""
    path = written(tmp_path, "[defaults]\n")
    folder = tmp_path / "open"
    folder.mkdir()
    (folder / "secretsource.toml").symlink_to(path)
    folder.chmod(0o777)
    with pytest.raises(ConfigurationError, match=f"Run chmod go-w {folder}"):
        located(folder / "secretsource.toml")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "[defaults]\n")
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigurationError, match="belongs to uid 12345") as caught:
        loaded(str(path))
    assert "FileBackend" not in str(caught.value)


# --- types of a constructor -------------------------------------------------------------------------------------------


def test_what_a_constructor_takes_is_found_in_its_signature() -> None:
    def make(
        a: str, *, b: int | None = None, plain_http: tuple[str, ...] = (), session: object = None, **more: int
    ) -> None: ...

    takes = takes_of(make, ("session",))
    assert list(takes.keys) == ["a", "b", "plain_http"]
    assert takes.required == ("a",)
