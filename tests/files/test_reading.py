"""What is read, from one file and from a directory with one file a field."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from secretsource import (
    AccessDenied,
    ConfigurationError,
    MalformedSecret,
    SecretNotFound,
    SecretReference,
)
from secretsource.backends import walk
from secretsource.backends.file import FileBackend
from secretsource.backends.formats import Origin
from secretsource.credentials import interpret

from ..backends.layouts import (
    CANARY,
    docker,
    kubelet,
    revealed,
    write,
)
from .reads import POS, read, reference, refused


def test_a_document_has_its_fields_its_version_and_its_time(folder: Path) -> None:
    path = write(folder / "pos.json")
    os.utime(path, (1e9, 1e9))
    document = read(path)
    assert revealed(document.fields) == POS
    assert document.created == datetime.fromtimestamp(1e9, UTC)
    assert document.version is not None
    assert len(document.version) == 8
    assert document.version not in CANARY


def test_a_touch_changes_no_version_and_other_content_does(folder: Path) -> None:
    path = write(folder / "pos.json")
    before = read(path).version
    os.utime(path, (1, 1))
    assert read(path).version == before
    write(path, '{"client_id": "pos", "client_secret": "other"}')
    assert read(path).version != before


class NoCalendar:
    @staticmethod
    def fromtimestamp(*_: object) -> datetime:
        raise ValueError("year 33658 is out of range")


def test_a_file_from_a_time_that_no_calendar_knows_has_no_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "pos")
    monkeypatch.setattr(walk, "datetime", NoCalendar)
    assert read(path).created is None


def test_a_file_without_a_known_suffix_is_one_text(folder: Path) -> None:
    text = read(write(folder / "secret", f"{CANARY}\n")).text
    assert text is not None
    assert text.reveal() == CANARY


def test_a_changed_file_is_seen_at_the_next_read(folder: Path) -> None:
    path = write(folder / "secret", "one")
    backend = FileBackend()
    assert backend.ttl == 0
    for value in ("two", "three"):
        write(path, value)
        assert revealed(backend.read(reference(path), fresh=False, timeout=5).text) == value


def test_a_relative_reference_begins_in_the_working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "pos.json")
    monkeypatch.chdir(folder)
    document = FileBackend().read(SecretReference.parse("file:pos.json"), fresh=False, timeout=5)
    assert revealed(document.fields) == POS


def test_a_working_directory_that_is_gone_is_not_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SecretNotFound, match="working directory"):
        FileBackend().read(SecretReference.parse("file:pos.json"), fresh=False, timeout=5)


def test_64_kib_are_not_too_large(folder: Path) -> None:
    assert revealed(read(write(folder / "secret", "x" * 65536)).text) == "x" * 65536


def test_a_broken_document_is_malformed_and_not_repeated(folder: Path) -> None:
    assert "line 1" in refused(MalformedSecret, write(folder / "pos.json", f'{{"client_secret": "{CANARY}'))


def test_a_secret_volume_of_the_kubelet_is_read(folder: Path) -> None:
    mount = kubelet(folder / "pos", {**POS, "other": "not asked for"})
    document = read(f"{mount}/", "access=mounted")
    assert revealed(document.fields) == {**POS, "other": None}
    assert document.version is not None
    assert document.created is not None
    assert revealed(read(mount / "client_secret", "access=mounted").text) == CANARY
    assert "[F05]" in refused(AccessDenied, f"{mount}/")


def test_a_swap_of_the_volume_is_another_version(folder: Path) -> None:
    mount = kubelet(folder / "pos", POS)
    before = read(f"{mount}/", "access=mounted")
    kubelet(mount, {**POS, "client_secret": "new"}, state="2")
    after = read(f"{mount}/", "access=mounted")
    assert before.version != after.version
    assert revealed(after.fields)["client_secret"] == "new"


def test_docker_secrets_are_read_one_file_a_field(folder: Path) -> None:
    secrets = docker(folder / "secrets", {"pos_id": "pos\n", "pos_key": f"{CANARY}\n", "theirs": "x"})
    where = reference(f"{secrets}/", "access=mounted", "id=pos_id,secret=pos_key")
    document = FileBackend().read(where, fresh=False, timeout=5)
    credentials = interpret(document, where).credentials
    assert (credentials.client_id, credentials.client_secret.reveal()) == ("pos", CANARY)
    assert document.fields["theirs"] is None


def test_a_missing_field_lists_the_files_that_are_there(folder: Path) -> None:
    secrets = docker(folder / "secrets", {"pos_id": "pos", "pos_key": "x"})
    where = reference(f"{secrets}/", "access=mounted")
    document = FileBackend().read(where, fresh=False, timeout=5)
    with pytest.raises(MalformedSecret, match="pos_id"):
        interpret(document, where)


def test_candidates_and_bindings_in_a_directory_are_read(folder: Path) -> None:
    more = {"client_secret_pending": "next", "client_secret_previous": "last", "issuer": "https://i", "other": "x"}
    document = read(f"{docker(folder / 'secrets', {**POS, **more})}/", "access=mounted")
    assert revealed(document.fields) == {**POS, **more, "other": None}


def test_a_candidate_that_cannot_be_read_is_none_and_a_needed_field_is_an_error(folder: Path) -> None:
    secrets = docker(folder / "secrets", {**POS, "client_secret_pending": "x", "client_secret_previous": ""})
    (secrets / "client_secret_pending").chmod(0o666)
    document = read(f"{secrets}/", "access=mounted")
    assert document.fields["client_secret_pending"] is None
    assert document.fields["client_secret_previous"] is None
    (secrets / "client_id").chmod(0o666)
    assert "[F06]" in refused(AccessDenied, f"{secrets}/", "access=mounted")
    write(secrets / "client_id", "\n", 0o444)
    assert "client_id) is empty [F12]" in refused(MalformedSecret, f"{secrets}/", "access=mounted")


def test_a_field_in_a_directory_leads_nowhere_else(folder: Path) -> None:
    write(folder / "above", CANARY)
    secrets = docker(folder / "secrets", POS)
    for field in ("..%2Fabove", "../above", "/../above", "..", "%2Fa%2Fb"):
        document = read(f"{secrets}/", "access=mounted", field)
        assert CANARY not in [revealed(value) for name, value in document.fields.items() if name != "client_secret"]


def test_a_directory_has_no_format(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="format="):
        read(f"{docker(folder / 'secrets', POS)}/", "format=json&access=mounted")


def test_unchecked_reads_anything_and_says_so_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(folder / "pos.json", mode=0o666)
    folder.chmod(0o777)
    backend = FileBackend(access="unchecked")
    with caplog.at_level(logging.WARNING, "secretsource"):
        for _ in range(3):
            assert revealed(backend.read(reference(path), fresh=False, timeout=5).fields) == POS
    assert [record.getMessage().partition(":///")[0] for record in caplog.records] == ["file"]
    assert "unchecked" in caplog.text
    assert CANARY not in caplog.text


def test_a_root_holds_what_is_read_links_resolved(folder: Path) -> None:
    root = folder / "root"
    (root / "inner").mkdir(parents=True)
    write(root / "inner" / "pos.json")
    write(folder / "outside.json")
    (root / "in").symlink_to("inner/pos.json")
    (root / "out").symlink_to("../outside.json")
    (root / "up").symlink_to("..")
    backend = FileBackend(root=root)
    for name in ("file:in?format=json", "file:inner/pos.json", f"file://{root}/inner/pos.json"):
        assert revealed(backend.read(SecretReference.parse(name), fresh=False, timeout=5).fields) == POS
    for name in ("file:out?format=json", "file:up/outside.json", f"file://{folder}/outside.json", "file:up/"):
        with pytest.raises(AccessDenied, match="is outside of root="):
            backend.read(SecretReference.parse(name), fresh=False, timeout=5)


def test_one_checked_text_file_is_read_for_other_modules(folder: Path) -> None:
    where = SecretReference.parse("env:POS")
    path = write(folder / "jwt", f"{CANARY}\n", 0o644)
    assert walk.read_text(str(path), level="mounted", reference=where).reveal() == f"{CANARY}\n"
    with pytest.raises(AccessDenied, match="the token file is refused at level private") as caught:
        walk.read_text(str(path), level="private", reference=where, called="the token file")
    assert (caught.value.store, caught.value.reference) == ("env", "env://POS")
    with pytest.raises(ConfigurationError, match="no file can have"):
        walk.read_text("/a\0b", level="private", reference=where)


def test_an_origin_is_called_by_its_reference_or_by_what_says_more() -> None:
    assert str(Origin(SecretReference.parse("file:a"))) == "file:a"
    assert str(Origin(SecretReference.parse("file:a"), "the token file")) == "the token file"
