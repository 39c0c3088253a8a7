from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from secretsource import (
    AccessDenied,
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    MalformedSecret,
    SecretNotFound,
    SecretReference,
)
from secretsource.backends import Stored, Writable, access, walk
from secretsource.backends.access import Access, Mount
from secretsource.backends.file import FileBackend
from secretsource.backends.formats import Origin
from secretsource.credentials import Document, interpret
from secretsource.secret import Secret

from .layouts import (
    CANARY,
    NOBODY_ELSE,
    as_root,
    as_user,
    docker,
    kubelet,
    needs_setfacl,
    revealed,
    shows,
    vault_agent,
    write,
)

POS = {"client_id": "pos", "client_secret": CANARY}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory of our own that other users may pass through, below the sticky /tmp."""
    with tempfile.TemporaryDirectory(prefix="secretsource-", ignore_cleanup_errors=True) as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        yield path


def reference(path: Path | str, options: str = "", fields: str = "") -> SecretReference:
    return SecretReference.parse(f"file://{path}{options and '?' + options}{fields and '#' + fields}")


def read(path: Path | str, options: str = "", fields: str = "", **arguments: Any) -> Document:
    return FileBackend(**arguments).read(reference(path, options, fields), fresh=False, timeout=5)


def refused(error: type[BackendError], path: Path | str, options: str = "", fields: str = "", **arguments: Any) -> str:
    with pytest.raises(error) as caught:
        read(path, options, fields, **arguments)
    failure = caught.value
    assert not shows(failure)
    assert (failure.reference, failure.store) == (str(reference(path, options, fields)), "file")
    assert failure.hint
    return str(failure)


# what is read


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


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "[F12]"),
        (b"\xef\xbb\xbfx", "[F14]"),
        (CANARY.encode() + b"\xff", "[F14]"),
        (CANARY.encode() + b"\0", "[F14]"),
        (CANARY.encode() * 4000, "[F13]"),
    ],
)
def test_what_is_no_secret_text_is_malformed(folder: Path, content: bytes, code: str) -> None:
    assert code in refused(MalformedSecret, write(folder / "secret", content))


def test_64_kib_are_not_too_large(folder: Path) -> None:
    assert revealed(read(write(folder / "secret", "x" * 65536)).text) == "x" * 65536


def test_a_broken_document_is_malformed_and_not_repeated(folder: Path) -> None:
    assert "line 1" in refused(MalformedSecret, write(folder / "pos.json", f'{{"client_secret": "{CANARY}'))


def test_a_fifo_is_refused_without_waiting(folder: Path) -> None:
    os.mkfifo(folder / "fifo", 0o600)
    assert "[F02]" in refused(AccessDenied, folder / "fifo")
    assert "FIFO" in refused(AccessDenied, folder / "fifo")


@pytest.mark.parametrize("level", ["private", "unchecked"])
def test_a_device_and_a_directory_are_refused_as_files(folder: Path, level: str) -> None:
    assert "[F02]" in refused(AccessDenied, "/dev/null", access=level)
    assert "Put '/' after it" in refused(AccessDenied, folder, access=level)


def test_a_file_is_no_directory(folder: Path) -> None:
    assert "is not a directory" in refused(SecretNotFound, f"{write(folder / 'pos.json')}/")


# what changes under the read


def meanwhile(monkeypatch: pytest.MonkeyPatch, call: str, act: Callable[[], object], times: int = 1) -> None:
    """Do something right before the next calls of this function of os."""
    real, left = getattr(os, call), [times]

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            act()
        return real(*args, **kwargs)

    monkeypatch.setattr(os, call, interrupted)


def test_a_file_that_changes_during_the_read_is_read_once_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "secret", "old")
    meanwhile(monkeypatch, "read", lambda: write(path, "new and longer"))
    assert revealed(read(path).text) == "new and longer"


def test_a_file_that_keeps_changing_is_unavailable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "secret", CANARY)
    meanwhile(monkeypatch, "read", lambda: write(path, path.read_bytes() * 2), times=4)
    assert "[F11]" in refused(BackendUnavailable, path)


def test_a_file_replaced_after_it_was_opened_is_read_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, new = write(folder / "secret", "old"), write(folder / "new", "new")
    meanwhile(monkeypatch, "read", lambda: new.replace(path))
    assert revealed(read(path).text) == "old"


def test_a_swap_of_the_kubelet_between_two_steps_is_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = kubelet(folder / "pos", POS)

    def swap() -> None:
        kubelet(mount, {**POS, "client_secret": "new"}, state="2")
        shutil.rmtree(mount / "..2026_01_01")

    meanwhile(monkeypatch, "readlink", swap)
    assert revealed(read(f"{mount}/", "access=mounted").fields)["client_secret"] == "new"


def test_id_and_secret_come_from_one_state_though_the_kubelet_swaps(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = kubelet(folder / "pos", {"client_id": "old", "client_secret": "old"})
    meanwhile(monkeypatch, "read", lambda: kubelet(mount, {"client_id": "new", "client_secret": "new"}, state="2"))
    assert revealed(read(f"{mount}/", "access=mounted").fields) == {"client_id": "old", "client_secret": "old"}


def test_an_input_error_is_unavailable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(5, CANARY)

    path = write(folder / "secret")
    monkeypatch.setattr(os, "read", broken)
    assert "EIO" in refused(BackendUnavailable, path)


# private, as whoever runs these tests


def test_a_file_of_ours_for_nobody_else_is_private(folder: Path) -> None:
    assert revealed(read(write(folder / "pos.json", mode=0o400)).fields) == POS


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


@as_root
def test_a_directory_of_another_user_is_refused(folder: Path) -> None:
    path = write(folder / "pos.json")
    os.chown(folder, NOBODY_ELSE, 0)
    assert f"belongs to uid {NOBODY_ELSE}" in refused(AccessDenied, path)


@as_root
def test_a_sticky_directory_is_safe_if_it_is_roots_and_not_strict(folder: Path) -> None:
    path = write(folder / "pos.json")
    folder.chmod(0o1777)
    read(path)
    assert "[F10]" in refused(AccessDenied, path, "access=strict")


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


def test_a_ring_of_links_ends(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    assert "too many links" in refused(AccessDenied, folder / "a")


def test_a_path_with_odd_characters_is_shown_escaped(folder: Path) -> None:
    (folder / "link").symlink_to("\x1b[31mred")
    assert "\x1b" not in refused(SecretNotFound, folder / "link")


def test_a_second_name_of_a_file_is_refused(folder: Path) -> None:
    path = write(folder / "pos.json")
    os.link(path, folder / "second")
    assert "[F08]" in refused(AccessDenied, path)
    assert revealed(read(path, "access=mounted").fields) == POS


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


@needs_setfacl
def test_an_acl_that_lets_somebody_write_is_refused_at_every_level(folder: Path) -> None:
    path = write(folder / "pos.json")
    subprocess.run(["setfacl", "-m", f"u:{NOBODY_ELSE}:rw", path], check=True)
    for level in ("private", "mounted"):
        assert "[F06]" in refused(AccessDenied, path, f"access={level}")


@needs_setfacl
@as_root
def test_an_acl_behind_the_private_group_of_a_directory_is_seen(folder: Path) -> None:
    path = write(folder / "pos.json")
    subprocess.run(["setfacl", "-m", f"u:{NOBODY_ELSE}:rwx", folder], check=True)
    assert f"[F10]: the user uid {NOBODY_ELSE} can write" in refused(AccessDenied, path)


# strict


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that no sticky one stands above."""
    base = Path(os.environ.get("HOME", "/"))
    try:
        name = tempfile.mkdtemp(prefix=".secretsource-", dir=base)
    except OSError:
        pytest.skip("there is no home directory to write to")
    try:
        yield Path(name).resolve()
    finally:
        shutil.rmtree(name)


def test_a_file_of_ours_alone_is_strict(home: Path) -> None:
    path = write(home / "pos.json")
    read(path, "access=strict")
    assert FileBackend().strictest_level(reference(path)) == ("strict", None)


def test_strict_follows_no_link_and_allows_no_group(home: Path) -> None:
    path = write(home / "pos.json", mode=0o640)
    assert "[F04]" in refused(AccessDenied, path, "access=strict")
    path.chmod(0o600)
    (home / "link").symlink_to("pos.json")
    assert "[F09]" in refused(AccessDenied, home / "link", "access=strict")
    assert "[F09]" in refused(AccessDenied, f"{kubelet(home / 'volume', POS, root=0o755)}/", "access=strict")
    os.link(path, home / "second")
    assert "[F08]" in refused(AccessDenied, path, "access=strict")


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


# mounted


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


@pytest.mark.parametrize("mode", [0o640, 0o644])
def test_what_vault_agent_renders_is_read_as_mounted(folder: Path, mode: int) -> None:
    path = vault_agent(folder / "vault", json.dumps(POS), mode=mode)
    assert revealed(read(path, "access=mounted").fields) == POS


def test_a_mounted_file_that_others_could_change_is_refused(folder: Path) -> None:
    for mode in (0o646, 0o645):
        assert "[F06]" in refused(AccessDenied, write(folder / "pos.json", mode=mode), "access=mounted")


@as_root
def test_mounted_trusts_named_owners_only(folder: Path) -> None:
    path = write(folder / "pos.json", mode=0o444)
    os.chown(path, NOBODY_ELSE, 0)
    assert "[F03]" in refused(AccessDenied, path, "access=mounted")
    assert revealed(read(path, "access=mounted", owners=[NOBODY_ELSE]).fields) == POS
    assert "[F03]" in refused(AccessDenied, path, owners=[NOBODY_ELSE])


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


# as an ordinary user


@as_root
def test_an_ordinary_user_reads_a_file_of_its_own(folder: Path) -> None:
    path = write(folder / "pos.json")
    os.chown(path, NOBODY_ELSE, NOBODY_ELSE)
    assert as_user(str(reference(path))) == POS
    path.chmod(0o640)
    assert "[F04]" in as_user(str(reference(path)))["text"]


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
def test_an_ordinary_user_reads_a_volume_with_an_fs_group(folder: Path) -> None:
    mount = kubelet(folder / "pos", POS, mode=0o440, root=0o3777)
    for path in [mount, *mount.iterdir(), *(mount / "..data").iterdir()]:
        os.chown(path, 0, 2000, follow_symlinks=False)
    mount.chmod(0o3777)
    assert as_user(f"file://{mount}/?access=mounted", groups=(2000,)) == POS
    assert as_user(f"file://{mount}/", groups=(2000,)) == POS


@as_root
@needs_setfacl
def test_an_acl_entry_for_the_reader_alone_is_private(folder: Path) -> None:
    path = write(folder / "pos.json", mode=0o400)
    subprocess.run(["setfacl", "-m", f"u:{NOBODY_ELSE}:r", path], check=True)
    assert as_user(str(reference(path))) == POS
    subprocess.run(["setfacl", "-m", f"u:{NOBODY_ELSE + 1}:r", path], check=True)
    assert f"the user uid {NOBODY_ELSE + 1} can read" in as_user(str(reference(path)))["text"]


@as_root
def test_a_directory_that_is_closed_to_the_reader_is_denied_by_name(folder: Path) -> None:
    inner = folder / "closed"
    inner.mkdir(mode=0o700)
    write(inner / "pos.json")
    answer = as_user(f"file://{inner}/pos.json")
    assert answer["error"] == "AccessDenied"
    assert f"{inner}/pos.json is not open" in answer["text"]


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


# levels and roots


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


def test_no_error_holds_another_librarys_exception(folder: Path) -> None:
    refused(SecretNotFound, folder / "nothing")
    refused(MalformedSecret, write(folder / "a.toml", f"a = {CANARY}"))
    refused(AccessDenied, write(folder / "b", CANARY, 0o644))


# a platform without the means to check


def test_where_access_cannot_be_told_only_unchecked_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "pos.json", mode=0o666)
    for module in ("file", "walk"):
        monkeypatch.setattr(f"secretsource.backends.{module}.CHECKABLE", False)
    for level in ("strict", "private", "mounted"):
        assert "[F16]" in refused(AccessDenied, path, f"access={level}")
        assert "[F16]" in refused(AccessDenied, f"{folder}/", f"access={level}")
    assert revealed(read(path, access="unchecked").fields) == POS
    assert revealed(read(path, access="unchecked", root=folder).fields) == POS
    assert "outside of root" in refused(AccessDenied, path, access="unchecked", root=folder / "inner")
    assert "does not exist" in refused(SecretNotFound, folder / "no", access="unchecked")
    assert "[F12]" in refused(MalformedSecret, write(folder / "empty", ""), access="unchecked")


# writing


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
    assert FileBackend().read_whole(reference(path), timeout=5) == Stored(fields, version)
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


@needs_setfacl
@as_root
def test_an_acl_is_kept(folder: Path) -> None:
    path = write(folder / "pos.json")
    subprocess.run(["setfacl", "-m", "u:0:r", path], check=True)
    before = os.getxattr(path, "system.posix_acl_access")
    put(path, {"client_secret": "new"})
    assert os.getxattr(path, "system.posix_acl_access") == before


def test_who_reads_meanwhile_gets_the_old_or_the_new(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "pos.json")
    seen = []
    meanwhile(monkeypatch, "rename", lambda: seen.append(read(path)))
    put(path, {"client_secret": "new"})
    assert [revealed(document.fields) for document in (*seen, read(path))] == [POS, {**POS, "client_secret": "new"}]


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
def test_a_file_that_is_a_mount_point_is_not_replaced(folder: Path) -> None:
    path = write(folder / "pos.json")
    other = write(folder / "mounted.json")
    if subprocess.run(["mount", "--bind", other, path], capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing may be mounted here")
    try:
        assert "mounted there by itself" in not_written(AccessDenied, path)
    finally:
        subprocess.run(["umount", path], check=True)


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


def test_one_checked_text_file_is_read_for_other_modules(folder: Path) -> None:
    where = SecretReference.parse("env:POS")
    path = write(folder / "jwt", f"{CANARY}\n", 0o644)
    assert walk.read_text(str(path), level="mounted", reference=where).reveal() == f"{CANARY}\n"
    with pytest.raises(AccessDenied, match="the token file is refused at level private") as caught:
        walk.read_text(str(path), level="private", reference=where, called="the token file")
    assert (caught.value.store, caught.value.reference) == ("env", "env://POS")
    with pytest.raises(ConfigurationError, match="NUL"):
        walk.read_text("/a\0b", level="private", reference=where)


def test_no_descriptor_stays_open(folder: Path) -> None:
    path = write(folder / "pos.json")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        put(path, {"client_secret": "new"})
        read(path)
        with pytest.raises(SecretNotFound):
            read(folder / "no")
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_origin_is_called_by_its_reference_or_by_what_says_more() -> None:
    assert str(Origin(SecretReference.parse("file:a"))) == "file:a"
    assert str(Origin(SecretReference.parse("file:a"), "the token file")) == "the token file"
