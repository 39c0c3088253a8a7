"""The walk to a secret file: what it leaves open, what it follows, and where nothing can be judged."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from secretsource import AccessDenied, BackendUnavailable, MalformedSecret, SecretNotFound, SecretReference
from secretsource.backends import walk
from secretsource.backends.access import CHECKABLE, Access
from secretsource.backends.file import FileBackend
from secretsource.backends.formats import Origin
from secretsource.credentials import Document
from secretsource.errors import ConfigurationError
from secretsource.secret import Secret
from secretsource.testing import secret_file

pytestmark = pytest.mark.skipif(not CHECKABLE, reason="there is no walk here")

SECRET = "not-a-real-secret"


def read(reference: str, **how: Any) -> Document:
    return FileBackend(**how).read(SecretReference.parse(reference), fresh=True, timeout=5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory of our own with one file a field."""
    found = tmp_path / "fields"
    found.mkdir(mode=0o700)
    for name in ("client_id", "client_secret", ".hidden"):
        (found / name).write_text(SECRET)
        (found / name).chmod(0o600)
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")
@pytest.mark.parametrize("there", [True, False])
def test_no_descriptor_stays_open(folder: Path, there: bool) -> None:
    def open_now() -> list[str]:
        return sorted(os.listdir("/proc/self/fd"))

    before = open_now()
    for _ in range(5):
        try:
            read(f"file://{folder}/" if there else f"file://{folder}/absent")
        except SecretNotFound:
            assert not there
    assert open_now() == before


def test_a_hidden_file_is_no_field(folder: Path) -> None:
    assert set(read(f"file://{folder}/").fields) == {"client_id", "client_secret"}


def test_a_file_is_no_directory(folder: Path) -> None:
    with pytest.raises(SecretNotFound, match="is not a directory"):
        read(f"file://{folder}/client_id/")


def test_a_directory_whose_data_are_gone_is_not_read_by_itself(folder: Path) -> None:
    (folder / "..data").symlink_to("..2026_01_01")
    with pytest.raises(SecretNotFound):
        read(f"file://{folder}/")


@pytest.mark.parametrize("target", ["./real.json", "../secrets/real.json", "{}/secrets/real.json"])
def test_a_link_is_followed_from_where_it_lies_or_from_the_root(tmp_path: Path, target: str) -> None:
    secret_file(tmp_path / "secrets", "real", SECRET)
    (tmp_path / "secrets" / "pos.json").symlink_to(target.format(tmp_path))
    assert read(f"file://{tmp_path}/secrets/pos.json").fields["client_id"] == Secret("real")


def test_nothing_outside_of_the_root_is_read(tmp_path: Path, folder: Path) -> None:
    secret_file(tmp_path / "inside", "pos", SECRET)
    secret_file(tmp_path, "outside", SECRET)
    (tmp_path / "inside" / "link.json").symlink_to("../outside.json")
    assert read("file:pos.json", root=tmp_path / "inside").fields["client_id"] == Secret("pos")
    for reference in ("file:link.json", f"file://{tmp_path}/outside.json", f"file://{folder}/"):
        with pytest.raises(AccessDenied, match=r"\[F09\].* is outside of root="):
            read(reference, root=tmp_path / "inside")


def test_a_root_that_is_no_directory_holds_nothing(folder: Path) -> None:
    with pytest.raises(SecretNotFound, match="is not a directory"):
        read("file:client_secret", root=folder / "client_id")


@pytest.mark.parametrize("seconds", [10**20, 10**12, -(10**20)])
def test_a_time_out_of_range_is_none(seconds: int) -> None:
    status: Any = SimpleNamespace(st_mtime_ns=seconds * 10**9)
    assert walk._moment(status) is None


@pytest.mark.parametrize("root", ["a\0b", "\ud800"])
def test_a_root_that_nothing_can_be_called_is_a_configuration_error(root: str) -> None:
    with pytest.raises(ConfigurationError, match="no file can have"):
        read("file:pos.json", root=root)


def test_what_grows_while_it_is_read_is_read_once_more_and_then_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def grown(fd: int, size: int) -> None:
        asked.append(size)

    monkeypatch.setattr(walk, "_text", grown)
    with pytest.raises(BackendUnavailable, match=r"\[F11\]"):
        read(f"file://{folder}/client_secret")
    assert asked == [len(SECRET)] * 2


# --- without the means to walk


def unwalked(path: Path | str, *, level: str = "unchecked", root: Path | None = None) -> str:
    origin = Origin(SecretReference.parse("file:pos"))
    return walk.unwalked(Access.of(level), origin, str(path), None if root is None else str(root)).text.reveal()


def test_where_nothing_can_be_judged_only_unchecked_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unwalked(folder / "client_id") == SECRET
    for level in ("strict", "private", "mounted"):
        with pytest.raises(AccessDenied, match=r"\[F16\].*cannot be told on this platform"):
            unwalked(folder / "client_id", level=level)
    monkeypatch.setattr(walk, "CHECKABLE", False)
    with pytest.raises(AccessDenied, match=r"\[F16\].*cannot be told on this platform"):
        read(f"file://{folder}/client_id")
    with pytest.raises(AccessDenied, match=r"\[F16\].*one file can be read, but no directory"):
        read(f"file://{folder}/", access="unchecked")


def test_there_too_nothing_outside_of_the_root_is_read(tmp_path: Path, folder: Path) -> None:
    assert unwalked("client_id", root=folder) == SECRET
    assert unwalked(folder / "client_id", root=folder) == SECRET
    (folder / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").write_text(SECRET)
    for path in ("../outside", "link", tmp_path / "outside"):
        with pytest.raises(AccessDenied, match=r"\[F09\]"):
            unwalked(path, root=folder)


def test_there_too_only_a_file_with_a_text_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfd")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(MalformedSecret):
        unwalked(tmp_path / "bytes")
    with pytest.raises(AccessDenied, match=r"\[F02\].*FIFO"):
        unwalked(tmp_path / "fifo")
    with pytest.raises(SecretNotFound):
        unwalked(tmp_path / "absent")
    with pytest.raises(ConfigurationError, match="no file can have"):
        unwalked("a\0b")
    (tmp_path / "text").write_text(SECRET)
    monkeypatch.setattr(walk, "_text", lambda fd, size: None)
    with pytest.raises(BackendUnavailable):
        unwalked(tmp_path / "text")


# --- a directory with one file a field


def put(folder: Path, name: str, text: str = SECRET, *, modified: float | None = None, mode: int = 0o600) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(mode)
    if modified is not None:
        os.utime(folder / name, (modified, modified))


def texts(document: Document) -> dict[str, str]:
    """Those that were read; of others only the name is known."""
    return {name: value.reveal() for name, value in document.fields.items() if isinstance(value, Secret)}


def test_of_a_directory_what_says_for_whom_it_is_and_further_candidates_are_read_too(folder: Path) -> None:
    names = ["issuer", "token_url", "environment", "client_secret_pending", "client_secret_previous", "other"]
    for name in names:
        put(folder, name, name)
    found = read(f"file://{folder}/")
    assert texts(found) == {"client_id": SECRET, "client_secret": SECRET} | {name: name for name in names[:-1]}
    assert "other" in found.fields


@pytest.mark.parametrize(
    ("fields", "file"), [("/key", "key"), ("id=/client_id,secret=/a~0b", "a~b"), ("id=client_id,secret=key", "key")]
)
def test_a_field_of_a_directory_may_be_written_as_a_pointer(folder: Path, fields: str, file: str) -> None:
    put(folder, file, "found")
    assert texts(read(f"file://{folder}/#{fields}"))[file] == "found"


def test_a_pointer_into_a_field_names_no_file(folder: Path) -> None:
    (folder / "a").mkdir(mode=0o700)
    put(folder / "a", "b")
    assert "b" not in texts(read(f"file://{folder}/#/a/b"))


def test_a_directory_is_as_new_as_the_newest_of_its_fields(folder: Path) -> None:
    put(folder, "client_id", modified=1_000_000_000)
    put(folder, "client_secret", modified=1_100_000_000)
    created = read(f"file://{folder}/").created
    assert created is not None
    assert created.timestamp() == 1_100_000_000


# --- levels


def test_the_strictest_level_is_told_with_what_keeps_it_from_the_next(folder: Path) -> None:
    put(folder, "client_secret", mode=0o644)
    met = FileBackend().strictest_level(SecretReference.parse(f"file://{folder}/client_secret"))
    assert met.level == "mounted"
    assert met.reason is not None
    assert "is refused at level private" in met.reason
    put(folder, "client_secret", mode=0o666)
    for path in ("client_secret", ""):
        met = FileBackend().strictest_level(SecretReference.parse(f"file://{folder}/{path}"))
        assert met.level is None
        assert "is refused at level mounted" in str(met.reason)


def test_a_level_that_there_is_not_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="names an unknown level"):
        read(f"file://{folder}/client_id?access=lax")


def test_only_unchecked_is_warned_of_and_once_a_reference(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend, loud = FileBackend(), FileBackend(access="unchecked")
    for _ in range(2):
        for each in (backend, loud):
            each.read(SecretReference.parse(f"file://{folder}/client_id"), fresh=True, timeout=5)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is read at level unchecked" in caplog.text
    assert {"format", "access"} == FileBackend.options
