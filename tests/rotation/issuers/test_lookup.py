"""Which adapter a name means, and what its settings become."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secretsource.backends import Backend
from secretsource.backends.env import EnvBackend
from secretsource.config.stores import ConfiguredStores, StoreTable
from secretsource.config.tables import At
from secretsource.errors import ConfigurationError
from secretsource.rotation.issuers import _BUILT_IN, adapter_called, known_adapters
from secretsource.rotation.issuers.command import Command
from secretsource.rotation.issuers.manual import Manual
from secretsource.rotation.issuers.registration import Registration

PASTED = "not-a-real-secret-that-was-pasted"

Plugged = Callable[..., None]

_ADAPTER = """
    from secretsource.rotation.outcome import Applied, Capabilities, Preflight
    {outside}

    class Mine:
        capabilities = Capabilities(chosen=True, slots=2)

        def __init__(self, site: str = "", *, ca_file: str | None = None, admin: dict | None = None,
                     plain_http: tuple = (), stores=None, folder=None):
            {inside}
            self.given = locals()

        def check(self, client, deadline): return Preflight()
        def prepare(self, client): ...
        def apply(self, client, secret, deadline): return Applied()
        def mint(self, client, label, deadline): ...
        def reap(self, client, label, deadline): ...
        def retire(self, client, keep, gone, deadline): ...
        def restore(self, client, deadline): ...
        def remove(self, client, keep, gone, deadline): ...
        def close(self): ...
"""


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugged:
    """Installs a distribution with a plug-in: its metadata and its module on sys.path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(distribution: str, name: str, *, inside: str = "pass", outside: str = "", target: str = "") -> None:
        module = f"plugin_of_{distribution.replace('-', '_')}"
        folder = tmp_path / f"{distribution}-1.2.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        target = target or f"{module}:Mine"
        (folder / "entry_points.txt").write_text(f"[secretsource.issuers]\n{name} = {target}\n")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(_ADAPTER.format(inside=inside, outside=outside)))
        monkeypatch.delitem(sys.modules, module, raising=False)
        importlib.invalidate_caches()

    return install


def _given(adapter: Any) -> dict[str, Any]:
    given: dict[str, Any] = adapter.given
    return given


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("manual", Manual, {}),
        ("command", Command, {"program": "true"}),
        ("registration", Registration, {}),
        ("rfc7592", Registration, {}),
    ],
)
def test_a_built_in_adapter_is_made_from_its_name_and_settings(name: str, kind: type, settings: dict[str, Any]) -> None:
    assert isinstance(adapter_called(name, settings), kind)


@pytest.mark.parametrize("name", sorted(_BUILT_IN))
def test_every_built_in_name_leads_to_a_class(name: str) -> None:
    module, _, attribute = _BUILT_IN[name].partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), type)


def test_all_are_listed_without_being_imported(plugged: Plugged) -> None:
    plugged("theirs", "theirs", outside="raise RuntimeError")
    plugged("takes", "okta", outside="raise RuntimeError")
    known = known_adapters()
    names = [one.name for one in known]
    assert names[: len(_BUILT_IN)] == sorted(_BUILT_IN)  # other tests of this process may have plug-ins of their own
    assert names.count("okta") == 1
    assert known[names.index("theirs")][1:] == ("plugin_of_theirs:Mine", "theirs", "1.2")


@pytest.mark.parametrize(
    ("name", "meant"), [("keycloack", "keycloak"), ("Okta", "okta"), ("orchard_recipe", "orchard-recipe")]
)
def test_a_near_miss_gets_the_right_word(name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"Did you mean '{meant}'"):
        adapter_called(name)


def test_an_unknown_name_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="Known adapters: auth0") as raised:
        adapter_called(PASTED)
    assert PASTED not in str(raised.value)


# --- settings


def test_a_key_that_is_near_a_known_one_gets_the_right_word_and_the_place() -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'program'") as raised:
        adapter_called("command", {"programm": "true"}, at=At("secretsource.toml", ("clients", "pos", "rotation")))
    assert str(raised.value).startswith("secretsource.toml: clients.pos.rotation.programm is not known")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigurationError, match="has no 'program'"):
        adapter_called("command")


def test_a_wrong_type_is_named_and_its_value_is_not() -> None:
    with pytest.raises(ConfigurationError, match="landing is a string, and takes a number") as raised:
        adapter_called("command", {"program": "true", "landing": PASTED})
    assert PASTED not in str(raised.value)


def test_what_code_alone_can_give_is_not_a_setting() -> None:
    for key in ("folder", "stores", "say"):
        with pytest.raises(ConfigurationError, match="is not known"):
            adapter_called("manual", {key: "x"})


def test_relative_paths_and_file_references_begin_in_the_folder(plugged: Plugged, tmp_path: Path) -> None:
    plugged("theirs", "theirs")
    folder = str(tmp_path)
    settings = {
        "site": "file:secret.json",
        "ca_file": "ca.pem",
        "admin": {"credentials": "file:admin.json#a", "ca_file": "other.pem", "token_url": "https://example.com/t"},
    }
    given = _given(adapter_called("theirs", settings, folder=folder))
    assert given["site"] == f"file://{folder}/secret.json"
    assert given["ca_file"] == f"{folder}/ca.pem"
    assert given["admin"] == {
        "credentials": f"file://{folder}/admin.json#a",
        "ca_file": f"{folder}/other.pem",
        "token_url": "https://example.com/t",
    }
    assert given["folder"] == folder


def test_absolute_ones_stay(plugged: Plugged) -> None:
    plugged("theirs", "theirs")
    settings = {"site": "file:///etc/secret.json", "ca_file": "/etc/ca.pem", "admin": {"token": "env:#TOKEN"}}
    given = _given(adapter_called("theirs", settings, folder="/srv"))
    assert (given["site"], given["ca_file"]) == ("file:///etc/secret.json", "/etc/ca.pem")
    assert given["admin"] == {"token": "env:#TOKEN"}


def test_a_program_begins_in_the_folder_and_runs_there(tmp_path: Path) -> None:
    adapter = adapter_called("command", {"program": ["./change", "a"]}, folder=str(tmp_path))
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        adapter.check(None, None)  # type: ignore[arg-type]


def test_configured_stores_are_handed_over_and_say_where_their_references_begin(plugged: Plugged) -> None:
    plugged("theirs", "theirs")
    at = At("secretsource.toml")
    stores = ConfiguredStores({"mine": StoreTable(at, {"backend": "file"}, {"backend": at})}, "/srv", production=False)
    given = _given(adapter_called("theirs", {"site": "mine:a.json"}, stores=stores))
    assert given["site"] == "mine:/srv/a.json" or given["site"] == "mine:///srv/a.json"
    assert given["stores"] is stores


def test_stores_of_code_are_handed_over(plugged: Plugged) -> None:
    plugged("theirs", "theirs")
    stores: dict[str, Backend] = {"mine": EnvBackend({})}
    assert _given(adapter_called("theirs", {}, stores=stores))["stores"] is stores


def test_a_reference_that_cannot_be_read_is_named_by_its_place(plugged: Plugged) -> None:
    plugged("theirs", "theirs")
    with pytest.raises(ConfigurationError, match="credentials cannot be used"):
        adapter_called("theirs", {"admin": {"credentials": "file:../a.json"}}, folder="/srv")


def test_in_production_each_plain_host_needs_a_reason(plugged: Plugged) -> None:
    plugged("theirs", "theirs")
    table = {"admin": {"plain_http": [{"host": "a:80", "reason": "in one pod"}]}, "plain_http": ["b:80"]}
    assert _given(adapter_called("theirs", table))["plain_http"] == ("b:80",)
    with pytest.raises(ConfigurationError, match="does not say why"):
        adapter_called("theirs", table, production=True)
    table["plain_http"] = []
    given = _given(adapter_called("theirs", table, production=True))
    assert given["admin"]["plain_http"] == ("a:80",)


# --- plug-ins


def test_a_plug_in_is_made_from_its_entry_point(plugged: Plugged) -> None:
    plugged("theirs", "theirs")
    assert _given(adapter_called("theirs", {"site": "a"}))["site"] == "a"


def test_a_plug_in_cannot_take_a_built_in_name(plugged: Plugged) -> None:
    plugged("theirs", "manual")
    assert isinstance(adapter_called("manual"), Manual)


def test_two_that_claim_one_name_are_an_error_that_lists_both(plugged: Plugged) -> None:
    plugged("first", "theirs")
    plugged("second", "theirs")
    with pytest.raises(ConfigurationError, match=r"claimed by 2 distributions: first 1\.2, second 1\.2"):
        adapter_called("theirs")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ({"outside": f'raise RuntimeError("{PASTED}")'}, "RuntimeError while it was imported"),
        ({"outside": "import no_such_module"}, "the module 'no_such_module' is missing"),
        ({"inside": f'raise RuntimeError("{PASTED}")'}, "RuntimeError was raised"),
        (
            {"inside": "from secretsource.errors import ConfigurationError; raise ConfigurationError(site)"},
            "not repeated",
        ),
        ({"target": "os:sep"}, "it is a str, which makes no adapter"),
        ({"target": "collections:OrderedDict"}, "what it takes cannot be told"),
    ],
)
def test_what_a_plug_in_raises_is_not_repeated(plugged: Plugged, code: dict[str, str], says: str) -> None:
    plugged("theirs", "theirs", **code)
    with pytest.raises(ConfigurationError, match=says) as raised:
        adapter_called("theirs", {"site": PASTED} if code.get("target") is None else {})
    error = raised.value
    assert PASTED not in f"{error} {error.__cause__} {error.__context__}"


def test_what_is_no_adapter_is_said(plugged: Plugged) -> None:
    plugged("theirs", "theirs", target="fractions:Fraction")
    with pytest.raises(ConfigurationError, match="makes a Fraction, which is no Adapter"):
        adapter_called("theirs")


def test_the_path_of_a_program_is_shown(tmp_path: Path) -> None:
    assert os.path.isdir(tmp_path)
    with pytest.raises(ConfigurationError, match="output is a string, and takes one of discard, stderr"):
        adapter_called("command", {"program": "true", "output": "stdout"})
