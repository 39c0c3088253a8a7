"""[rotation] in secretsource.toml: how a secret is changed. Nothing of it is an argument of a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from secretsource import TokenSource
from secretsource.config import DURATIONS, ROTATION
from secretsource.rotation import Policy

from .configurations import configuration, refused

CANARY = "c4n4ry-Not-A-Real-Secret"
LAYERS = {
    "defaults": "[environments.test]\n[clients.pos]\ncredentials = 'env:POS'\n[defaults.rotation]\n{}\n",
    "environments.test": "[clients.pos]\ncredentials = 'env:POS'\n[environments.test.rotation]\n{}\n",
    "clients.pos": "[environments.test]\n[clients.pos]\ncredentials = 'env:POS'\n[clients.pos.rotation]\n{}\n",
    "clients.pos.environments.test": (
        "[environments.test]\n[clients.pos]\ncredentials = 'env:POS'\n[clients.pos.environments.test.rotation]\n{}\n"
    ),
}
SHOP = """
[defaults.rotation]
adapter = "okta"
every = "90d"
owner = "shop@example.com"
settings = { org = "https://login.example.com", admin = { credentials = "vault://kv/okta" } }

[environments.production]
credentials = "vault://kv/{environment}/{client}"
[environments.production.rotation]
every = "60d"
wait = "6m"
soak = 86400
settings = { org = "https://{environment}.example.com" }

[environments.test]
credentials = "file:secrets/{client}.json"

[clients.pos]
[clients.pos.rotation]
wait = "1h30m"
gates = ["freeze", "approval"]
[clients.pos.environments.production.rotation]
accept_gap = true
settings = { app = "{client}" }
"""
ISSUER = """
[clients.pos.environments.test]
issuer = "https://pos.example.com"
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_may_say_it_and_is_named(tmp_path: Path, layer: str) -> None:
    settings = configuration(tmp_path, LAYERS[layer].replace("{}", "every = '30d'")).settings("pos")
    assert settings.rotation == {"every": "30d"}
    assert settings.values["rotation", "every"].layer == layer


def test_the_layers_are_laid_over_one_another_key_by_key(tmp_path: Path) -> None:
    settings = configuration(tmp_path, SHOP).settings("pos", "production")
    assert settings.rotation == {
        "adapter": "okta",
        "every": "60d",
        "owner": "shop@example.com",
        "wait": "1h30m",
        "soak": 86400,
        "gates": ["freeze", "approval"],
        "accept_gap": True,
        "settings": {
            "org": "https://production.example.com",
            "admin": {"credentials": "vault://kv/okta"},
            "app": "pos",
        },
    }
    layers = {".".join(keys[1:]): one.layer for keys, one in settings.values.items() if keys[0] == "rotation"}
    assert layers["settings.org"] == "environments.production"
    assert layers["settings.app"] == "clients.pos.environments.production"
    assert layers["wait"] == "clients.pos"
    assert layers["adapter"] == "defaults"


def test_what_belongs_to_another_environment_does_not_hold(tmp_path: Path) -> None:
    said = configuration(tmp_path, SHOP).settings("pos", "test").rotation
    assert said["every"] == "90d"
    assert said["settings"]["org"] == "https://login.example.com"
    assert "soak" not in said


def test_where_nothing_is_said_there_is_nothing(tmp_path: Path) -> None:
    assert configuration(tmp_path, "[clients.pos]\ncredentials = 'env:POS'\n").settings("pos").rotation == {}


def test_a_source_is_not_given_any_of_it(tmp_path: Path) -> None:
    read = configuration(tmp_path, SHOP)
    assert set(read.settings("pos", "production").arguments()) == {"stores", "credentials"}
    TokenSource.from_config("pos", "test", path=configuration(tmp_path, SHOP + ISSUER).file).close()


def test_its_keys_are_those_of_the_policy_and_the_adapter() -> None:
    ours = {"adapter", "command", "gates", "settings"}
    assert set(ROTATION) - ours == set(Policy.__dataclass_fields__) - {"force", "compromised"}
    assert set(DURATIONS) <= set(Policy.__dataclass_fields__)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", LAYERS)
def test_an_unknown_key_is_named_with_its_place_and_the_nearest_known_one(tmp_path: Path, layer: str) -> None:
    error = refused(tmp_path, LAYERS[layer].replace("{}", "propogation = '30s'"))
    assert f"secretsource.toml: {layer}.rotation.propogation is not known. Did you mean 'propagation'?" in error


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("adapter = 5", "rotation.adapter is an integer, and takes a string"),
        ("every = true", "rotation.every is a boolean, and takes a string or a number"),
        ("wait = ['5m']", "rotation.wait is an array with a string in it, and takes a string or a number"),
        ("soak = 2026-11-24", "rotation.soak is a date or time, and takes a string or a number"),
        ("gates = 'freeze'", "rotation.gates is a string, and takes an array of strings"),
        ("proofs = 2.5", "rotation.proofs is a float, and takes an integer"),
        ("proofs = 0", "rotation.proofs is a whole number above 0"),
        ("accept_gap = 'yes'", "rotation.accept_gap is a string, and takes true or false"),
        ("owner = 1", "rotation.owner is an integer, and takes a string"),
        ("settings = 'org'", "rotation.settings is a string, and takes a table"),
        ("command = 5", "rotation.command is an integer, and takes a string or an array of strings"),
        ("command = ''", "rotation.command is empty"),
        ("command = []", "rotation.command is empty"),
        ("adapter = ' '", "rotation.adapter is empty"),
    ],
)
def test_a_wrong_type_is_answered_with_what_was_found_and_what_is_taken(
    tmp_path: Path, layer: str, line: str, said: str
) -> None:
    assert f"secretsource.toml: {layer}.{said}" in refused(tmp_path, LAYERS[layer].replace("{}", line))


@pytest.mark.parametrize("key", DURATIONS)
@pytest.mark.parametrize("value", ['"5 minutes"', '"5x"', '""', '"-5m"', "-1", "1e300", '"99999d"', '"5m 30s"'])
def test_what_is_no_duration_is_answered_with_how_one_is_written(tmp_path: Path, key: str, value: str) -> None:
    error = refused(tmp_path, LAYERS["clients.pos"].replace("{}", f"{key} = {value}"))
    assert f'secretsource.toml: clients.pos.rotation.{key} is no duration. Write it such as "90s", "5m"' in error


@pytest.mark.parametrize("key", ["every", "command_timeout"])
def test_some_durations_are_more_than_nothing(tmp_path: Path, key: str) -> None:
    error = refused(tmp_path, LAYERS["defaults"].replace("{}", f'{key} = "0s"'))
    assert f"defaults.rotation.{key} is more than 0 seconds" in error


@pytest.mark.parametrize("key", ["wait", "soak", "propagation", "landing", "max_wait"])
@pytest.mark.parametrize("value", ["0", '"0s"', "1.5", '"250ms"', '"1h30m"', '"90"'])
def test_other_durations_may_be_nothing_and_are_written_in_many_ways(tmp_path: Path, key: str, value: str) -> None:
    settings = configuration(tmp_path, LAYERS["defaults"].replace("{}", f"{key} = {value}")).settings("pos")
    Policy(**settings.rotation)


def test_it_belongs_into_a_table_of_those_that_it_is_for(tmp_path: Path) -> None:
    error = refused(tmp_path, '[rotation]\nevery = "30d"\n', None)
    assert "Write [defaults.rotation], or [clients.NAME.rotation]" in error


def test_a_brace_that_is_no_name_is_refused_here_too(tmp_path: Path) -> None:
    error = refused(tmp_path, LAYERS["defaults"].replace("{}", "settings = { org = 'https://{tenant}.example.com' }"))
    assert "defaults.rotation.settings.org has a brace in it that belongs to neither" in error


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("settings = { api_token = '{}' }", "rotation.settings.api_token"),
        ("settings = { admin = { client_secret = '{}' } }", "rotation.settings.admin.client_secret"),
        ("settings = { password = 5 }", "rotation.settings.password"),
        ("token = '{}'", "rotation.token"),
    ],
)
@pytest.mark.parametrize("layer", LAYERS)
def test_no_secret_belongs_into_it(tmp_path: Path, layer: str, line: str, place: str) -> None:
    error = refused(tmp_path, LAYERS[layer].replace("{}", line.replace("{}", CANARY)))
    assert f"{layer}.{place} takes a secret, and has something other than a reference to one" in error
    assert CANARY not in error


def test_a_reference_to_a_secret_may_stand_there(tmp_path: Path) -> None:
    text = LAYERS["defaults"].replace("{}", "settings = { api_token = 'vault://kv/okta#token' }")
    assert configuration(tmp_path, text).settings("pos").rotation["settings"]["api_token"] == "vault://kv/okta#token"


def test_a_secret_as_a_key_of_settings_is_not_repeated(tmp_path: Path) -> None:
    error = refused(
        tmp_path, LAYERS["defaults"].replace("{}", f"[defaults.rotation.settings]\n{'ghp_' + 'a' * 36} = 1")
    )
    assert "has a token of GitHub as a key" in error
    assert "ghp_" not in error


# --- the program ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("'set-secret'", "set-secret"),
        ("'/opt/pos/set-secret'", "/opt/pos/set-secret"),
        ("'bin/set-secret'", "{folder}/bin/set-secret"),
        ("'bin/{client}'", "{folder}/bin/pos"),
        ("['bin/set-secret', '--site', 'north']", ["{folder}/bin/set-secret", "--site", "north"]),
        ("['set-secret', 'a/b']", ["set-secret", "a/b"]),
    ],
)
def test_a_program_with_a_slash_begins_in_the_folder_of_the_file(tmp_path: Path, written: str, meant: object) -> None:
    said = configuration(tmp_path, LAYERS["clients.pos"].replace("{}", f"command = {written}")).settings("pos").rotation
    words = meant if isinstance(meant, list) else [meant]
    expected = [str(word).replace("{folder}", str(tmp_path)) for word in words]
    assert said["command"] == (expected if isinstance(meant, list) else expected[0])
