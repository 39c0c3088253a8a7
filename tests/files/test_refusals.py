"""What a refusal says: what was seen, whose it is, and what mends it. Which level refuses what stands in table.py."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from secretsource import (
    AccessDenied,
    ConfigurationError,
    SecretNotFound,
)
from secretsource.backends import access
from secretsource.backends.access import Access, Mount
from secretsource.backends.file import FileBackend

from ..backends.layouts import (
    NOBODY_ELSE,
    as_root,
    as_user,
    needs_setfacl,
    revealed,
    write,
)
from .reads import POS, read, reference, refused


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nothing.json", "nothing.json does not exist"),
        ("no/pos.json", "/no does not exist"),
        ("a-file/pos.json", "a-file is not a directory"),
        ("x" * 300, "does not exist"),
    ],
)
def test_what_is_missing_is_named(folder: Path, path: str, words: str) -> None:
    write(folder / "a-file")
    assert words in refused(SecretNotFound, folder / path)


def test_a_dangling_link_is_missing_at_its_end(folder: Path) -> None:
    (folder / "link").symlink_to("target")
    assert f"{folder}/target does not exist" in refused(SecretNotFound, folder / "link")


def test_what_is_no_file_is_called_by_its_kind(folder: Path) -> None:
    os.mkfifo(folder / "fifo", 0o600)
    assert "is a FIFO" in refused(AccessDenied, folder / "fifo")
    assert "is a device" in refused(AccessDenied, "/dev/null")
    assert "is a directory. Put '/' after it" in refused(AccessDenied, folder)


@pytest.mark.parametrize(
    ("mode", "code", "who"),
    [(0o604, "[F05]", "everybody can read"), (0o606, "[F06]", "everybody can write"), (0o601, "[F06]", "can execute")],
)
def test_a_file_that_everybody_can_use_is_not_private(folder: Path, mode: int, code: str, who: str) -> None:
    path = write(folder / "pos.json", mode=mode)
    text = refused(AccessDenied, path)
    assert "at level private " + code in text
    assert who in text
    assert f"mode {mode:04o}" in text
    assert f"chmod 600 {path}" in text
    path.chmod(0o600)
    read(path)


@as_root
def test_a_file_that_another_group_can_read_is_not_private(folder: Path) -> None:
    path = write(folder / "pos.json", mode=0o640)
    os.chown(path, 0, NOBODY_ELSE)
    text = refused(AccessDenied, path)
    assert f"[F04]: the group gid {NOBODY_ELSE} can read" in text
    assert "access=mounted" in text


@as_root
def test_our_own_private_group_counts_as_us(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_private_group", lambda gid: gid == NOBODY_ELSE)
    path = write(folder / "pos.json", mode=0o660)
    os.chown(path, 0, NOBODY_ELSE)
    os.chown(folder, 0, NOBODY_ELSE)
    folder.chmod(0o775)
    read(path)
    assert "[F10]" in refused(AccessDenied, path, "access=strict")


def test_a_private_group_is_primary_named_like_its_user_and_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    import grp
    import pwd

    user = pwd.struct_passwd(("app", "x", 1234, 1234, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: user)
    for group, ours in [
        (("app", "x", 1234, []), True),
        (("app", "x", 1234, ["app"]), True),
        (("app", "x", 1234, ["eve"]), False),
        (("users", "x", 1234, []), False),
        (("app", "x", 99, []), False),
    ]:
        monkeypatch.setattr(grp, "getgrgid", lambda gid, group=group: grp.struct_group(group))
        assert access._private_group(group[2]) is ours


@as_root
def test_a_file_of_another_user_is_not_private(folder: Path) -> None:
    path = write(folder / "pos.json")
    os.chown(path, NOBODY_ELSE, 0)
    assert f"[F03]: {path} belongs to uid {NOBODY_ELSE}" in refused(AccessDenied, path)


def test_a_directory_that_others_can_write_to_is_refused_by_name(folder: Path) -> None:
    inner = folder / "open" / "inner"
    inner.mkdir(parents=True)
    path = write(inner / "pos.json")
    (folder / "open").chmod(0o757)
    for level in ("private", "mounted"):
        text = refused(AccessDenied, path, f"access={level}")
        assert f"[F10]: everybody can write to the directory {folder}/open (mode 0757" in text
        assert f"chmod go-w {folder}/open" in text


def test_links_are_followed_and_the_directories_behind_them_are_judged(folder: Path) -> None:
    real = folder / "real"
    real.mkdir()
    write(real / "pos.json")
    (folder / "etc").symlink_to("real")
    (folder / "link").symlink_to("etc/../real/./pos.json")
    (folder / "absolute").symlink_to(folder / "link")
    assert revealed(read(folder / "absolute", "format=json").fields) == POS
    real.chmod(0o777)
    assert f"the directory {real}" in refused(AccessDenied, folder / "absolute", "format=json")


@as_root
def test_a_link_of_another_user_is_not_followed(folder: Path) -> None:
    write(folder / "pos.json")
    (folder / "link").symlink_to("pos.json")
    os.lchown(folder / "link", NOBODY_ELSE, NOBODY_ELSE)
    assert f"[F09]: {folder}/link is a symbolic link of uid {NOBODY_ELSE}" in refused(AccessDenied, folder / "link")


def test_a_path_with_odd_characters_is_shown_escaped(folder: Path) -> None:
    (folder / "link").symlink_to("\x1b[31mred")
    assert "\x1b" not in refused(SecretNotFound, folder / "link")


@needs_setfacl
def test_an_acl_entry_for_somebody_else_is_refused_and_its_repair_works(folder: Path) -> None:
    path = write(folder / "pos.json")
    subprocess.run(["setfacl", "-m", f"u:{NOBODY_ELSE}:r", path], check=True)
    text = refused(AccessDenied, path)
    assert f"[F07]: the user uid {NOBODY_ELSE} can read" in text
    assert f"setfacl -b {path}" in text
    path.chmod(0o600)  # makes the entry ineffective
    read(path)
    subprocess.run(["setfacl", "-b", path], check=True)
    read(path)


def test_strict_wants_a_local_file_system(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(home / "pos.json")
    monkeypatch.setattr(access, "mount_of", lambda fd: Mount("1", "nfs4"))
    assert "[F15]" in refused(AccessDenied, path, "access=strict")
    assert FileBackend().strictest_level(reference(path)).level == "private"
    monkeypatch.setattr(access, "mount_of", lambda fd: None)
    assert "[F16]" in refused(AccessDenied, path, "access=strict")


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse", "fuse.sshfs", "ceph"])
def test_network_file_systems_are_known(kind: str) -> None:
    assert access._NETWORK.fullmatch(kind)
    assert not access._NETWORK.fullmatch("fuseblk")
    assert not access._NETWORK.fullmatch("ext4")


@as_root
def test_mounted_trusts_the_overflow_uid_in_a_user_namespace_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder / "pos.json", mode=0o444)
    os.chown(path, 65534, 65534)
    assert "[F03]" in refused(AccessDenied, path, "access=mounted")
    monkeypatch.setattr(access, "_overflow_uid", lambda: 65534)
    assert revealed(read(path, "access=mounted").fields) == POS
    assert "[F03]" in refused(AccessDenied, path)


@as_root
def test_an_ordinary_user_reads_a_file_of_roots_in_its_group(folder: Path) -> None:
    path = write(folder / "pos.json", mode=0o640)
    os.chown(path, 0, 777)
    assert as_user(str(reference(path)), groups=(777,)) == POS
    assert "is not open to" in as_user(str(reference(path)))["text"]
    path.chmod(0o660)
    assert "[F06]" in as_user(str(reference(path)), groups=(777,))["text"]
    path.chmod(0o644)
    answer = as_user(str(reference(path)), groups=(777,))
    assert answer["error"] == "AccessDenied"
    assert "[F05]" in answer["text"]
    assert f"chown {NOBODY_ELSE} {path}" in answer["text"]


@as_root
def test_a_directory_that_is_closed_to_the_reader_is_denied_by_name(folder: Path) -> None:
    inner = folder / "closed"
    inner.mkdir(mode=0o700)
    write(inner / "pos.json")
    answer = as_user(f"file://{inner}/pos.json")
    assert answer["error"] == "AccessDenied"
    assert f"{inner}/pos.json is not open" in answer["text"]


def test_the_reference_chooses_the_level_and_the_constructor_the_default(folder: Path) -> None:
    path = write(folder / "pos.json", mode=0o644)
    read(path, access="mounted")
    assert "at level private" in refused(AccessDenied, path, "access=private", access="mounted")
    with pytest.raises(ConfigurationError, match="strict, private, mounted"):
        read(path, "access=open")


def test_unknown_levels_and_owners_are_errors() -> None:
    with pytest.raises(ConfigurationError, match="strict, private, mounted, unchecked"):
        FileBackend(access="public")
    with pytest.raises(ConfigurationError, match="no-such-user"):
        FileBackend(owners=["no-such-user"])
    with pytest.raises(ConfigurationError, match="one text"):
        FileBackend(owners="root")
    assert Access.of("mounted", ["root", 7]).owners == {0, 7}


def test_a_file_of_ours_alone_is_strict(home: Path) -> None:
    path = write(home / "pos.json")
    read(path, "access=strict")
    assert FileBackend().strictest_level(reference(path)) == ("strict", None)


@pytest.mark.parametrize(("mode", "level", "code"), [(0o644, "mounted", "[F05]"), (0o666, None, "[F06]")])
def test_the_strictest_level_comes_with_the_reason_against_the_next(
    folder: Path, mode: int, level: str | None, code: str
) -> None:
    met = FileBackend().strictest_level(reference(write(folder / "pos.json", mode=mode)))
    assert met.level == level
    assert met.reason is not None
    assert code in met.reason


def test_the_strictest_level_of_nothing_is_not_found(folder: Path) -> None:
    with pytest.raises(SecretNotFound):
        FileBackend().strictest_level(reference(folder / "pos.json"))
