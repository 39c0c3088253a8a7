from __future__ import annotations

import json
from pathlib import Path

import pytest

from secretsource import SecretReference
from secretsource.testing import secret_file


def _path(reference: str) -> Path:
    parsed = SecretReference.parse(reference)
    assert str(parsed) == reference
    assert parsed.store == "file"
    return Path(parsed.path)


def test_it_writes_a_document_that_only_its_owner_may_read(tmp_path: Path) -> None:
    path = _path(secret_file(tmp_path / "secrets", "pos", "not-a-real-secret", issuer="https://issuer.example/"))
    assert json.loads(path.read_text()) == {
        "client_id": "pos",
        "client_secret": "not-a-real-secret",
        "issuer": "https://issuer.example/",
    }
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_written_again_it_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = _path(secret_file(tmp_path, "pos", "not-a-real-secret"))
    with path.open() as before:
        assert _path(secret_file(tmp_path, "pos", "not-a-real-second-secret")) == path
        assert json.load(before)["client_secret"] == "not-a-real-secret"
    assert json.loads(path.read_text())["client_secret"] == "not-a-real-second-secret"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("client_id", ["a/b", "..", "100%", "über mut", "a?b#c"])
def test_any_client_id_becomes_a_file_in_that_folder(tmp_path: Path, client_id: str) -> None:
    path = _path(secret_file(tmp_path, client_id, "not-a-real-secret"))
    assert path.parent == tmp_path
    assert json.loads(path.read_text())["client_id"] == client_id
