"""What is mounted: real mounts and a real user namespace, where the system lets root make them."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from secretsource import AccessDenied, SecretReference
from secretsource.backends import access
from secretsource.backends.file import FileBackend

from ..backends.layouts import CANARY, NOBODY_ELSE, as_root, by, grant, kubelet, write
from .outcomes import LEVELS, outcome
from .table import READER

pytestmark = as_root

POS = {"client_id": "pos", "client_secret": CANARY}
CLONE_NEWUSER, PR_SET_DUMPABLE = 0x10000000, 4


@contextmanager
def mounted(at: Path, *arguments: str | Path) -> Iterator[Path]:
    try:
        done = subprocess.run(["mount", *arguments, at], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode != 0:
        pytest.skip(f"nothing may be mounted here: {done.stderr.decode().strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


@pytest.fixture
def mounts() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def place(home: Path) -> Path:
    (home / "at").mkdir()
    return home / "at"


def met(path: Path | str) -> str:
    return " ".join(outcome(path, level) for level in LEVELS)


def test_memory_is_a_local_file_system(place: Path, mounts: ExitStack) -> None:
    mounts.enter_context(mounted(place, "-t", "tmpfs", "-o", "mode=0755,size=1m", "tmpfs"))
    path = write(place / "secret", CANARY)
    with open(path, encoding="utf-8") as file:
        mount = access.mount_of(file.fileno())
    assert mount is not None
    assert mount.kind == "tmpfs"
    assert met(path) == "read read read read"


def test_layers_of_a_container_are_a_local_file_system(home: Path, place: Path, mounts: ExitStack) -> None:
    memory = home / "memory"
    memory.mkdir()
    mounts.enter_context(mounted(memory, "-t", "tmpfs", "-o", "mode=0755,size=1m", "tmpfs"))
    for name in ("lower", "upper", "work"):
        (memory / name).mkdir()
    write(memory / "lower" / "secret", CANARY)
    layers = f"lowerdir={memory}/lower,upperdir={memory}/upper,workdir={memory}/work"
    mounts.enter_context(mounted(place, "-t", "overlay", "-o", layers, "overlay"))
    assert met(place / "secret") == "read read read read"
    write(place / "secret", CANARY, 0o604)  # copied up
    assert met(place / "secret") == "F05 F05 read read"


def test_a_volume_of_the_kubelet_in_memory_mounted_read_only(home: Path, place: Path, mounts: ExitStack) -> None:
    (home / "pods").mkdir()
    volume = mounts.enter_context(mounted(home / "pods", "-t", "tmpfs", "-o", "mode=1777,size=1m", "tmpfs"))
    kubelet(volume, POS)
    mounts.enter_context(mounted(place, "--bind", volume))
    subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
    assert met(f"{place}/") == "F10 F05 read read"


def test_a_file_that_is_mounted_by_itself_is_judged_where_it_appears(
    home: Path, place: Path, mounts: ExitStack
) -> None:
    """As Compose does it: what stands above the file on the host is not above it in the container."""
    (home / "open").mkdir()
    (home / "open").chmod(0o777)
    source, target = write(home / "open" / "secret", CANARY), write(place / "secret", "")
    mounts.enter_context(mounted(target, "--bind", source))
    assert met(target) == "read read read read"
    assert met(source) == "F10 F10 F10 read"


def test_a_directory_that_is_mounted_is_judged_with_its_own_mode(home: Path, place: Path, mounts: ExitStack) -> None:
    (home / "open").mkdir()
    write(home / "open" / "secret", CANARY)
    (home / "open").chmod(0o757)
    mounts.enter_context(mounted(place, "--bind", home / "open"))
    assert met(place / "secret") == "F10 F10 F10 read"


def test_a_file_that_is_a_mount_point_is_not_replaced(home: Path, place: Path, mounts: ExitStack) -> None:
    path = write(place / "secret", "there")
    mounts.enter_context(mounted(path, "--bind", write(home / "other", CANARY)))
    with pytest.raises(AccessDenied, match="mounted there by itself"):
        FileBackend().write_whole(
            SecretReference.parse(f"file://{path}"), {"client_secret": "new"}, version=None, timeout=5
        )


# a user namespace, in which those who have no number there all look like the overflow uid


def in_namespace(ours: str, action: Callable[[], Any]) -> Any:
    """What the ordinary user gets in a new user namespace, in which its own uid is mapped so."""
    libc = ctypes.CDLL(None, use_errno=True)

    def inside() -> Any:
        libc.prctl(PR_SET_DUMPABLE, 1)  # who has changed its uid may not write to its own /proc
        if libc.unshare(CLONE_NEWUSER) != 0:
            return None
        access._overflow_uid.cache_clear()
        if ours:
            for name, text in (("setgroups", "deny"), ("uid_map", ours), ("gid_map", ours)):
                with open(f"/proc/self/{name}", "w", encoding="utf-8") as file:
                    file.write(text)
        return action()

    found = by(READER, [], inside)
    if found is None:
        pytest.skip("an ordinary user may make no user namespace here")
    return found


def test_mounted_trusts_who_has_no_number_in_a_user_namespace_and_private_does_not(folder: Path) -> None:
    path = write(folder / "secret", CANARY, 0o444)
    assert in_namespace(f"0 {READER} 1", lambda: met(path)) == "F10 F10 read read"
    os.chown(path, READER, READER)
    path.chmod(0o400)
    assert in_namespace(f"0 {READER} 1", lambda: met(path)) == "F10 F10 read read"


def test_who_has_no_number_itself_takes_nobody_elses_for_its_own(
    open_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In there an attacker's file for a group that we are in looks like one of `nobody` and its private group."""
    monkeypatch.setattr(access, "_private_group", lambda gid: gid == 65534)
    theirs = open_home / "theirs"
    theirs.mkdir()
    path = write(theirs / "secret", CANARY, 0o640)
    os.chown(path, NOBODY_ELSE, READER)
    os.chown(theirs, NOBODY_ELSE, NOBODY_ELSE)
    assert in_namespace("", lambda: outcome(path, "private")) == "F04"
    grant(path, users={READER: 4})
    assert in_namespace("", lambda: outcome(path, "private")) in {"F04", "F07"}
