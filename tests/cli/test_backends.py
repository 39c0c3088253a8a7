from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import called, plug_in, process

BREAKS_WHEN_IMPORTED = "raise SystemExit('imported')"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = plug_in(tmp_path, "keyring", BREAKS_WHEN_IMPORTED)
    monkeypatch.syspath_prepend(path)
    return path


def test_built_in_stores_are_listed_with_where_they_come_from() -> None:
    ran = process("backends")
    assert (ran.code, ran.err) == (0, "")
    names = [line.split()[0] for line in ran.out.splitlines()]
    assert names[:6] == ["aws", "bao", "env", "file", "systemd", "vault"]
    assert "secretsource built in  secretsource.backends.file:FileBackend" in ran.out


def test_a_plug_in_is_listed_with_its_distribution_and_not_imported(installed: str) -> None:
    ran = called("backends")
    assert (ran.code, ran.err) == (0, "")
    assert "keyring  plug-in-for-keyring 1.2.3  plug_in_for_keyring:Store" in ran.out.splitlines()


def test_as_json_there_is_one_list_of_objects(installed: str) -> None:
    ran = called("backends", "--json")
    assert (ran.code, ran.err) == (0, "")
    backends = json.loads(ran.out)
    assert [set(backend) for backend in backends] == [{"name", "target", "distribution", "version"}] * len(backends)
    assert {
        "name": "keyring",
        "target": "plug_in_for_keyring:Store",
        "distribution": "plug-in-for-keyring",
        "version": "1.2.3",
    } in backends
    built_in = [backend["name"] for backend in backends if backend["version"] == "built in"]
    assert built_in == ["aws", "bao", "env", "file", "systemd", "vault"]


def test_two_plug_ins_of_one_name_are_both_listed(installed: str, tmp_path: Path) -> None:
    other = tmp_path / "other-2.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 2.0\n")
    (other / "entry_points.txt").write_text("[secretsource.backends]\nkeyring = elsewhere:Store\n")
    listed = [line for line in called("backends").out.splitlines() if line.startswith("keyring ")]
    assert len(listed) == 2


def test_what_a_plug_in_calls_itself_does_not_steer_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plug_in(tmp_path, "keyring", BREAKS_WHEN_IMPORTED)
    metadata = tmp_path / "plug_in_for_keyring-1.2.3.dist-info" / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: plug\x1b]0;pwned\x07\nVersion: 1.2.3\n")
    monkeypatch.syspath_prepend(path)
    ran = called("backends")
    assert "pwned" in ran.out
    assert all(character.isprintable() for character in ran.out.replace("\n", ""))
