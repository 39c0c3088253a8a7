"""Secret files are replaced as a whole and keep their owner, mode and ACL; where they could not, nothing is written."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from secretsource import (
    AccessDenied,
    BackendUnavailable,
    ConfigurationError,
    SecretNotFound,
    SecretReference,
    SecretSourceError,
)
from secretsource.backends import Stored, Writable
from secretsource.backends.file import FileBackend
from secretsource.backends.walk import version_of
from secretsource.secret import Secret

from ..backends.layouts import (
    CANARY,
    NOBODY_ELSE,
    as_root,
    as_user,
    grant,
    revealed,
    shows,
    write,
)
from .outcomes import named
from .reads import POS, meanwhile, read, reference
from .table import OURS, ROOTS, Row


def put(path: Path, fields: Mapping[str, Any], options: str = "", version: str | None = "") -> str:
    """Set these fields beside what is there."""
    backend, where = FileBackend(), reference(path, options)
    stored = backend.read_whole(where, timeout=5)
    against = stored.version if version == "" else version
    return backend.write_whole(where, {**stored.fields, **fields}, version=against, timeout=5)


def not_written(error: type[Exception], path: Path, options: str = "", fields: Mapping[str, Any] = POS) -> str:
    where = reference(path, options)
    with pytest.raises(error) as caught:
        FileBackend().write_whole(where, fields, version=None, timeout=0.05)
    assert caught.value.__context__ is None
    return str(caught.value)


def test_it_is_writable() -> None:
    assert isinstance(FileBackend(), Writable)


@pytest.mark.parametrize("name", ["pos.json", "pos.toml", "pos.ini", "pos.env", "pos"])
def test_a_new_file_is_private_and_read_back(folder: Path, name: str) -> None:
    path = folder / name
    assert FileBackend().read_whole(reference(path), timeout=5) == Stored({}, None)
    fields = {"client_secret": Secret(CANARY)} if name == "pos" else {n: Secret(v) for n, v in POS.items()}
    before = os.umask(0)
    try:
        version = put(path, fields)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert (folder / f".{name}.lock").stat().st_mode & 0o777 == 0o600
    document = read(path)
    assert document.version == version
    assert revealed(document.text or document.fields) == (CANARY if name == "pos" else POS)
    stored = FileBackend().read_whole(reference(path), timeout=5)
    assert stored == Stored(fields, version, stored.created)
    assert stored.created == pytest.approx(path.stat().st_mtime, abs=0.001)
    assert {each.name for each in folder.iterdir()} == {name, f".{name}.lock"}


def test_only_what_differs_is_edited(folder: Path) -> None:
    path = write(folder / "pos.toml", '# ours\nclient_id = "pos" # id\nclient_secret = "old"\nnumber = 1\n')
    put(path, {"client_secret": Secret("new"), "issuer": "https://i"})
    assert path.read_text() == (
        '# ours\nclient_id = "pos" # id\nclient_secret = "new"\nnumber = 1\nissuer = "https://i"\n'
    )


def test_a_field_that_is_left_out_is_taken_out(folder: Path) -> None:
    path = write(folder / "pos.json", json.dumps({**POS, "client_secret_previous": "old"}))
    backend, where = FileBackend(), reference(path)
    stored = backend.read_whole(where, timeout=5)
    fields = {name: value for name, value in stored.fields.items() if name != "client_secret_previous"}
    backend.write_whole(where, fields, version=stored.version, timeout=5)
    assert json.loads(path.read_text()) == POS


def test_writing_the_same_again_leaves_the_file_alone(folder: Path) -> None:
    path = write(folder / "pos.json")
    before = path.stat().st_ino
    version = put(path, {})
    assert path.stat().st_ino == before
    assert read(path).version == version


def test_mode_and_owner_are_kept(folder: Path) -> None:
    path = write(folder / "pos.json", mode=0o400)
    put(path, {"client_secret": "new"})
    assert path.stat().st_mode & 0o777 == 0o400
    assert path.stat().st_uid == os.geteuid()


def test_an_acl_is_kept(folder: Path) -> None:
    path = grant(write(folder / "pos.json"), users={0: 4})
    before = os.getxattr(path, "system.posix_acl_access")
    put(path, {"client_secret": "new"})
    assert os.getxattr(path, "system.posix_acl_access") == before


def test_who_reads_meanwhile_gets_the_old_or_the_new(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "pos.json")
    seen = []
    meanwhile(monkeypatch, "rename", lambda: seen.append(read(path)))
    put(path, {"client_secret": "new"})
    assert [revealed(document.fields) for document in (*seen, read(path))] == [POS, {**POS, "client_secret": "new"}]


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_all_is_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, sync, rename = write(folder / "pos.json"), os.fsync, os.rename
    steps = []

    def synced(fd: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        sync(fd)

    def renamed(*args: Any, **kwargs: Any) -> None:
        steps.append("name")
        rename(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    put(path, {"client_secret": "new"})
    assert steps == ["file", "name", "directory"]


def test_nothing_is_in_the_new_file_before_it_is_private(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "pos.json", mode=0o600)
    modes = []

    def look() -> None:
        [new] = folder.glob(".pos.json.*.new")
        modes.append((new.stat().st_mode & 0o777, new.stat().st_size))

    meanwhile(monkeypatch, "fchmod", look)
    put(path, {"client_secret": "new"})
    assert modes == [(0o600, 0)]


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, CANARY)

    path = write(folder / "pos.json")
    version = read(path).version
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(BackendUnavailable, match="ENOSPC") as caught:
        FileBackend().write_whole(reference(path), {**POS, "client_secret": Secret("n")}, version=version, timeout=5)
    assert caught.value.__context__ is None
    assert json.loads(path.read_text()) == POS
    assert {each.name for each in folder.iterdir()} == {"pos.json", ".pos.json.lock"}


@pytest.mark.parametrize("version", [None, "00000000"])
def test_a_write_against_another_version_is_refused(folder: Path, version: str | None) -> None:
    path = write(folder / "pos.json")
    with pytest.raises(BackendUnavailable, match="somebody else") as caught:
        put(path, {"client_secret": Secret("new")}, version=version)
    assert caught.value.retryable
    assert not shows(caught.value)
    assert json.loads(path.read_text()) == POS


def test_a_write_waits_for_the_lock_until_its_time_is_over(folder: Path) -> None:
    path = write(folder / "pos.json")
    with open(folder / ".pos.json.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process" in not_written(BackendUnavailable, path)
    put(path, {"client_secret": "new"})


def test_a_lock_file_that_is_no_file_is_refused(folder: Path) -> None:
    (folder / ".pos.json.lock").symlink_to("elsewhere")
    not_written(BackendUnavailable, folder / "pos.json")
    assert not (folder / "elsewhere").exists()
    (folder / ".pos.json.lock").unlink()
    os.link(write(folder / "x"), folder / ".pos.json.lock")
    assert "no lock file of ours" in not_written(AccessDenied, folder / "pos.json")


def test_a_missing_directory_comes_with_the_command_that_makes_it(folder: Path) -> None:
    text = not_written(SecretNotFound, folder / "no" / "pos.json")
    assert f"mkdir -p -m 700 {folder}/no" in text


def test_links_second_names_and_directories_are_not_replaced(folder: Path) -> None:
    path = write(folder / "real.json")
    (folder / "link.json").symlink_to("real.json")
    assert "[F09]" in not_written(AccessDenied, folder / "link.json")
    os.link(path, folder / "second.json")
    assert "[F08]" in not_written(AccessDenied, path)
    (folder / "dir.json").mkdir()
    assert "[F02]" in not_written(AccessDenied, folder / "dir.json")


@as_root
def test_a_directory_that_others_may_write_to_is_not_written_even_if_sticky(folder: Path) -> None:
    folder.chmod(0o1777)
    assert "[F10]" in not_written(AccessDenied, folder / "pos.json")
    with pytest.raises(AccessDenied):
        FileBackend().read_whole(reference(folder / "pos.json"), timeout=5)


def test_a_file_that_does_not_meet_its_level_is_not_written(folder: Path) -> None:
    assert "[F05]" in not_written(AccessDenied, write(folder / "pos.json", mode=0o644))


@pytest.mark.parametrize(("path", "options"), [("pos/", ""), ("pos.json", "access=mounted")])
def test_what_is_mounted_is_not_written_and_the_error_says_where_to(folder: Path, path: str, options: str) -> None:
    where = SecretReference.parse(f"file://{folder}/{path}{options and '?' + options}")
    for attempt in (
        lambda: FileBackend().read_whole(where, timeout=5),
        lambda: FileBackend().write_whole(where, POS, version=None, timeout=5),
    ):
        with pytest.raises(ConfigurationError, match="kubectl"):
            attempt()


def test_a_root_holds_what_is_written_too(folder: Path) -> None:
    root = folder / "root"
    root.mkdir()
    (root / "up").symlink_to("..")
    backend = FileBackend(root=root)
    backend.write_whole(SecretReference.parse("file:pos.json"), POS, version=None, timeout=5)
    assert json.loads((root / "pos.json").read_text()) == POS
    with pytest.raises(AccessDenied, match="outside of root"):
        backend.write_whole(SecretReference.parse("file:up/pos.json"), POS, version=None, timeout=5)
    assert not (folder / "pos.json").exists()


def test_a_document_that_cannot_be_edited_stays(folder: Path) -> None:
    path = write(folder / "pos.toml", 'x = {client_secret = "old"}\n')
    before = path.read_text()
    with pytest.raises(ConfigurationError, match="in an editor"):
        put(path, {"x": {"client_secret": Secret(CANARY)}})
    assert path.read_text() == before


def test_a_text_file_has_no_room_for_a_second_field(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="one secret"):
        put(write(folder / "secret", "old"), {"client_id": "pos"})


@as_root
def test_an_ordinary_user_writes_in_a_directory_of_its_own_only(folder: Path) -> None:
    own = folder / "own"
    own.mkdir(mode=0o700)
    os.chown(own, NOBODY_ELSE, NOBODY_ELSE)
    assert as_user(f"file://{own}/pos.json", write=POS) == POS
    assert as_user(f"file://{folder}/pos.json", write=POS)["error"] == "AccessDenied"


@as_root
def test_an_owner_that_cannot_be_kept_is_an_error_and_the_file_stays(folder: Path) -> None:
    own = folder / "own"
    own.mkdir(mode=0o700)
    os.chown(own, NOBODY_ELSE, NOBODY_ELSE)
    path = write(own / "pos.json", mode=0o640)
    os.chown(path, 0, NOBODY_ELSE)
    answer = as_user(f"file://{path}", write={"client_secret": "new"})
    assert answer["error"] == "AccessDenied"
    assert "cannot keep" in answer["text"]
    assert CANARY in path.read_text()
    assert sorted(each.name for each in own.iterdir()) == [".pos.json.lock", "pos.json"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="/proc tells which descriptors are open")
def test_no_descriptor_stays_open(folder: Path) -> None:
    path = write(folder / "pos.json")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        put(path, {"client_secret": "new"})
        read(path)
        with pytest.raises(SecretNotFound):
            read(folder / "no")
    assert len(os.listdir("/proc/self/fd")) == before


def everything(folder: Path) -> dict[Path, object]:
    """All that is there, locks left out."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        found[path] = (status.st_ino, status.st_mode, status.st_uid, status.st_nlink, content)
    return {path: what for path, what in found.items() if not path.name.endswith(".lock")}


UNREADABLE = [
    pytest.param(row, id=row.name, marks=as_root if row in ROOTS else [])
    for row in (*OURS, *ROOTS)
    if row.outcomes["private"] not in ("read", "F01")
]


@pytest.mark.parametrize("row", UNREADABLE)
def test_what_private_does_not_read_it_does_not_write_either(home: Path, row: Row) -> None:
    path = Path(row.make(home))
    before = everything(home)
    version = version_of(Secret(path.read_text("latin-1"))) if path.is_file() else None
    where = SecretReference.parse(f"file://{path}")
    with pytest.raises(SecretSourceError) as caught:
        FileBackend().write_whole(where, {"client_secret": Secret("new")}, version=version, timeout=1)
    named(caught.value)
    assert everything(home) == before
