"""The stores of a configuration: their keys are the arguments of their backends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from secretsource import SecretReference, TokenSource
from secretsource.backends import backend_for
from secretsource.backends.aws import AwsBackend
from secretsource.backends.env import EnvBackend
from secretsource.backends.file import FileBackend
from secretsource.backends.vault import VaultBackend
from secretsource.config import Settings

from .cli import plug_in
from .configurations import configuration, refused, written

VAULT = """
[environments.test]
credentials = "vault://kv/{{environment}}/{{client}}"
[environments.test.stores.{name}]
address = "https://vault.example.com"
{lines}
[clients.pos]
"""
PLUG_IN = """
from secretsource import Document
made = []
class Store:
    options = frozenset()
    ttl = None
    def __init__(self, folder: str, *, tries: int = 3, client=None):
        self.given = folder, tries
        made.append(self)
    def read(self, reference, *, fresh, timeout):
        return Document({"client_id": "pos", "client_secret": "not-a-real-secret"})
"""


def vault(folder: Path, lines: str, name: str = "vault") -> Settings:
    return configuration(folder, VAULT.format(lines=lines, name=name)).settings("pos")


def store(settings: Settings, name: str) -> Any:
    assert settings.stores is not None
    return settings.stores[name]


def file_layer(lines: str, *, production: bool = False, name: str = "file") -> str:
    mark = "production = true\n" if production else ""
    table = f"[environments.test.stores.{name}]\n{lines}\n"
    return f'[environments.test]\n{mark}credentials = "{name}:pos.json"\n{table}[clients.pos]\n'


# --- how they are made ------------------------------------------------------------------------------------------------


def test_a_store_is_made_when_a_reference_names_it_and_once_for_all_clients(tmp_path: Path) -> None:
    read = configuration(tmp_path, file_layer('access = "strict"') + "[clients.stock]\n")
    one, other = read.settings("pos").stores, read.settings("stock").stores
    assert one is other
    assert one is not None
    assert one._made == {}
    reference = SecretReference.parse("file:///etc/pos.json")
    assert isinstance(backend_for(reference, one), FileBackend)
    assert backend_for(reference, one) is backend_for(reference, other)


def test_a_client_with_other_keys_has_a_store_of_its_own(tmp_path: Path) -> None:
    text = file_layer('access = "strict"') + '[clients.stock.stores.file]\naccess = "mounted"\n'
    read = configuration(tmp_path, text)
    assert store(read.settings("pos"), "file") is not store(read.settings("stock"), "file")


def test_a_store_of_another_name_says_which_backend_it_is(tmp_path: Path) -> None:
    settings = configuration(tmp_path, file_layer('backend = "file"\naccess = "strict"', name="tills")).settings("pos")
    assert isinstance(store(settings, "tills"), FileBackend)
    assert settings.get("credentials") == f"tills://{tmp_path}/pos.json"


def test_the_root_of_a_file_store_is_relative_to_the_file_and_references_begin_there(tmp_path: Path) -> None:
    settings = configuration(tmp_path, file_layer('root = "secrets"')).settings("pos")
    assert store(settings, "file")._root == f"{tmp_path}/secrets"
    assert settings.get("credentials") == "file:pos.json"


def test_a_plug_in_is_constructed_with_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(plug_in(tmp_path, "tillbox", PLUG_IN))
    text = '[clients.pos]\ncredentials = "tillbox:pos"\n[clients.pos.stores.tillbox]\nfolder = "{client}"\ntries = 5\n'
    read = configuration(tmp_path, text)
    settings = read.settings("pos")
    assert "plug_in_for_tillbox" not in sys.modules
    assert store(settings, "tillbox").given == ("pos", 5)
    sys.modules.pop("plug_in_for_tillbox")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("tries = 5", "stores.tillbox has no 'folder'. It needs folder"),
        ('folder = "a"\ntrees = 5', "stores.tillbox.trees is not known. Did you mean 'tries'?"),
        ('folder = "a"\ntries = "5"', "stores.tillbox.tries is a string, and takes an integer"),
        ('folder = "a"\nclient = "x"', "stores.tillbox.client is not known"),
    ],
)
def test_a_plug_in_is_as_strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, said: str) -> None:
    monkeypatch.syspath_prepend(plug_in(tmp_path, "tillbox", PLUG_IN))
    text = f'[clients.pos]\ncredentials = "tillbox:pos"\nissuer = "https://pos.example.com"\n[clients.pos.stores.tillbox]\n{lines}\n'
    with pytest.raises(Exception, match="tillbox") as caught:
        TokenSource.from_config("pos", path=written(tmp_path, text))
    assert said in str(caught.value)
    sys.modules.pop("plug_in_for_tillbox")


def test_a_plug_in_that_breaks_is_named_without_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = PLUG_IN.replace("made.append(self)", "raise ValueError(folder)")
    monkeypatch.syspath_prepend(plug_in(tmp_path, "tillbox", code))
    text = '[clients.pos]\ncredentials = "tillbox:pos"\n[clients.pos.stores.tillbox]\nfolder = "hunter2"\n'
    with pytest.raises(Exception, match="ValueError was raised") as caught:
        store(configuration(tmp_path, text).settings("pos"), "tillbox")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None
    sys.modules.pop("plug_in_for_tillbox")


def test_a_backend_that_is_missing_matters_only_where_it_is_used(tmp_path: Path) -> None:
    text = '[environments.a.stores.elsewhere]\nkey = "x"\n[environments.b]\n[clients.pos]\ncredentials = "env:POS"\n'
    assert configuration(tmp_path, text).settings("pos", "b").get("credentials") == "env:POS"
    error = refused(tmp_path, text, environment="a")
    assert "environments.a.stores.elsewhere is no backend that is installed" in error


def test_a_misspelt_store_is_answered_with_the_one_that_may_be_meant(tmp_path: Path) -> None:
    assert "Did you mean 'vault'?" in refused(tmp_path, VAULT.format(lines="", name="vualt"))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('acess = "strict"', "environments.test.stores.file.acess is not known. Did you mean 'access'?"),
        ("access = 5", "environments.test.stores.file.access is an integer, and takes a string"),
        ('owners = "root"', "environments.test.stores.file.owners is a string, and takes an array"),
        ("owners = [1.5]", "environments.test.stores.file.owners is an array with a float in it"),
        ("backend = 5", "environments.test.stores.file.backend is no string"),
        ("plain_http = 0", "environments.test.stores.file.plain_http is an integer, and takes a string or an array"),
    ],
)
def test_a_wrong_key_of_a_store_is_named_with_its_place(tmp_path: Path, lines: str, said: str) -> None:
    assert said in refused(tmp_path, file_layer(lines), None)


def test_a_wrong_key_is_named_in_the_layer_where_it_stands(tmp_path: Path) -> None:
    text = (
        '[defaults.stores.vault]\naddress = "https://vault.example.com"\n[environments.a.stores.vault]\nadress = "x"\n'
    )
    assert "environments.a.stores.vault.adress is not known. Did you mean 'address'?" in refused(tmp_path, text, None)


def test_what_cannot_be_written_is_no_key(tmp_path: Path) -> None:
    assert "stores.env.environ is not known" in refused(tmp_path, "[defaults.stores.env]\nenviron = {}\n", None)
    assert "stores.vault.client is not known" in refused(tmp_path, VAULT.format(lines='client = "x"', name="vault"))


def test_a_store_without_keys_is_the_bare_one(tmp_path: Path) -> None:
    settings = configuration(tmp_path, '[clients.pos]\ncredentials = "env:POS"\n[clients.pos.stores.env]\n').settings(
        "pos"
    )
    assert isinstance(backend_for(SecretReference.parse("env:POS"), settings.stores), EnvBackend)


def test_a_value_that_a_store_refuses_is_not_repeated(tmp_path: Path) -> None:
    settings = configuration(tmp_path, file_layer('access = "hunter2-hunter2"')).settings("pos")
    with pytest.raises(Exception, match=r"environments\.test\.stores\.file has a value that cannot be used") as caught:
        store(settings, "file")
    assert "hunter2" not in str(caught.value)


# --- Vault and AWS ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "auth",
    [
        '{ method = "token", reference = "file:token" }',
        '{ method = "token_file", path = "token" }',
        '{ method = "approle", role_id = "pos", secret_id = "file:id", wrapped = true }',
        '{ method = "approle", role_id = "pos", secret_id = "aws://prod/id" }',
        '{ method = "kubernetes", role = "{client}" }',
        '{ method = "kubernetes", role = "pos", jwt = "/var/run/secrets/vault/token" }',
        '{ method = "jwt", role = "pos", jwt = "file:jwt" }',
        '{ method = "aws", role = "pos", server_id = "vault.example.com" }',
        '{ method = "agent" }',
    ],
)
@pytest.mark.parametrize("name", ["vault", "bao"])
def test_every_login_of_vault_can_be_written(tmp_path: Path, auth: str, name: str) -> None:
    assert isinstance(store(vault(tmp_path, f"auth = {auth}", name), name), VaultBackend)


def test_relative_paths_and_references_of_a_login_begin_in_the_folder_of_the_file(tmp_path: Path) -> None:
    made = store(vault(tmp_path, 'auth = { method = "approle", role_id = "pos", secret_id = "file:id" }'), "vault")
    assert [str(one) for one in made.login_references] == [f"file://{tmp_path}/id"]
    made = store(vault(tmp_path, 'auth = { method = "jwt", role = "pos", jwt = "./jwt" }'), "vault")
    assert made._given["auth"]._jwt == f"{tmp_path}/./jwt"
    made = store(vault(tmp_path, 'auth = { method = "token_file", path = "sink" }'), "vault")
    assert made._given["auth"]._path == f"{tmp_path}/sink"


def test_a_second_vault_has_a_name_of_its_own(tmp_path: Path) -> None:
    settings = vault(
        tmp_path, 'backend = "vault"\nauth = { method = "agent" }\nnamespace = "{environment}"', "vault-eu"
    )
    made = store(settings, "vault-eu")
    assert isinstance(made, VaultBackend)
    assert made._given["namespace"] == "test"
    assert made._stores is settings.stores, "by which references in its login are resolved"


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ('"kubernetes"', "stores.vault.auth is not written { method = "),
        ('{ role = "pos" }', "stores.vault.auth is not written { method = "),
        (
            '{ method = "kubernets", role = "pos" }',
            "auth.method is not one that is known (not repeated here). Did you mean",
        ),
        ('{ method = "kubernetes", roll = "pos" }', "stores.vault.auth.roll is not known. Did you mean 'role'?"),
        ('{ method = "kubernetes" }', "stores.vault.auth has no 'role'. It needs role"),
        ('{ method = "kubernetes", role = 5 }', "stores.vault.auth.role is an integer, and takes a string"),
        ('{ method = "approle", role_id = "a", secret_id = "env:X", wrapped = 1 }', "auth.wrapped is an integer, and"),
    ],
)
def test_a_login_is_as_strict(tmp_path: Path, auth: str, said: str) -> None:
    assert said in refused(tmp_path, VAULT.format(lines=f"auth = {auth}", name="vault"), None)


def test_a_store_of_aws_is_constructed_with_its_keys(tmp_path: Path) -> None:
    text = (
        '[clients.pos]\ncredentials = "aws://prod/pos"\n[clients.pos.stores.aws]\nregion = "eu-west-1"\nattempts = 2\n'
    )
    assert isinstance(store(configuration(tmp_path, text).settings("pos"), "aws"), AwsBackend)


# --- production -------------------------------------------------------------------------------------------------------


def test_an_unchecked_file_store_is_refused_in_production(tmp_path: Path) -> None:
    lines = 'access = "unchecked"'
    error = refused(tmp_path, file_layer(lines, production=True))
    assert "environments.test.stores.file.access is unchecked, which is refused in production" in error
    assert isinstance(store(configuration(tmp_path, file_layer(lines)).settings("pos"), "file"), FileBackend)


PLAIN = 'issuer = "http://orchard:8080"\ncredentials = "env:POS"\nplain_http = '


@pytest.mark.parametrize(
    "plain_http", ['"orchard:8080"', '["orchard:8080"]', '[{ host = "orchard:8080", reason = " " }]']
)
def test_plain_http_without_a_reason_is_refused_in_production(tmp_path: Path, plain_http: str) -> None:
    environment = f"[environments.test]\nMARK{PLAIN}{plain_http}\n[clients.pos]\n"
    error = refused(tmp_path, environment.replace("MARK", "production = true\n"))
    assert "environments.test.plain_http lets secrets go without encryption in production" in error
    arguments = configuration(tmp_path, environment.replace("MARK", "")).settings("pos").arguments()
    assert arguments["plain_http"] == ("orchard:8080",)


def test_plain_http_with_a_reason_is_taken_in_production(tmp_path: Path) -> None:
    reason = '[{ host = "orchard:8080", reason = "same pod" }]'
    text = f"[environments.test]\nproduction = true\n{PLAIN}{reason}\n[clients.pos]\n"
    assert configuration(tmp_path, text).settings("pos").arguments()["plain_http"] == ("orchard:8080",)


@pytest.mark.parametrize(
    ("lines", "taken"),
    [
        ("", False),
        ('plain_http = ["vault:8200"]', False),
        ('plain_http = [{ host = "other:8200", reason = "same pod" }]', False),
        ('plain_http = [{ host = "vault:8200", reason = "same pod" }]', True),
    ],
)
def test_a_vault_of_plain_http_needs_a_reason_in_production(tmp_path: Path, lines: str, taken: bool) -> None:
    text = VAULT.format(lines=f'auth = {{ method = "agent" }}\n{lines}', name="vault")
    text = text.replace("https://vault.example.com", "http://vault:8200")
    text = text.replace("[environments.test]", "[environments.test]\nproduction = true", 1)
    if taken:
        assert isinstance(store(configuration(tmp_path, text).settings("pos"), "vault"), VaultBackend)
    else:
        assert "in production" in refused(tmp_path, text)


def test_plain_http_to_loopback_is_taken_in_production(tmp_path: Path) -> None:
    text = VAULT.format(lines='auth = { method = "agent" }', name="vault").replace(
        "https://vault.example.com", "http://127.0.0.1:8100"
    )
    text = text.replace("[environments.test]", "[environments.test]\nproduction = true", 1)
    assert isinstance(store(configuration(tmp_path, text).settings("pos"), "vault"), VaultBackend)
