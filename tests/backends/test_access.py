"""What each level says of one file or directory: the code, what was seen, and the command that mends it.

Here modes, owners and ACLs are told and not made, so that nothing depends on who runs the tests, or where.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from secretsource.backends import access
from secretsource.backends.access import Access, Violation, kind_of, mount_of, posix_acl
from secretsource.errors import ConfigurationError

pytestmark = pytest.mark.skipif(not access.CHECKABLE, reason="there are no owners and modes here")

US, OUR_GROUP, ANOTHER, CREW = 61_000, 61_001, 61_002, 61_003
PATH = "/etc/pos/it's"


@pytest.fixture(autouse=True)
def who(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """We are an ordinary user of one group, and there is no ACL; `who(0)` makes us root."""
    monkeypatch.setattr(os, "geteuid", lambda: US)
    monkeypatch.setattr(os, "getegid", lambda: OUR_GROUP)
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(access, "posix_acl", lambda fd: None)
    monkeypatch.setattr(access, "_overflow_uid", lambda: None)
    monkeypatch.setattr(access, "mount_of", lambda fd: access.Mount("1", "ext4"))
    return lambda uid: monkeypatch.setattr(os, "geteuid", lambda: uid)


def status(mode: int, uid: int = US, gid: int = CREW, links: int = 1) -> os.stat_result:
    return os.stat_result((mode, 5, 1, links, uid, gid, 10, 0, 0, 0))


def file(level: str, mode: int, uid: int = US, gid: int = CREW, *, links: int = 1, sticky: bool = False) -> Any:
    seen = status(stat.S_IFREG | mode, uid, gid, links)
    return Access.of(level, [ANOTHER]).file(PATH, -1, seen, sticky=sticky)


def directory(level: str, mode: int, uid: int = US, **how: bool) -> Any:
    return Access.of(level, [ANOTHER]).directory(PATH, -1, status(stat.S_IFDIR | mode, uid), **how)


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def told(found: Violation | None) -> str:
    return "" if found is None else f"{found.code} {found.seen}: {found.repair}"


overflow_uid = access._overflow_uid.__wrapped__  # without its memory, and without what stands for it below
CHMOD = "Run chmod 600 '/etc/pos/it'\"'\"'s'"


@pytest.mark.parametrize(
    ("level", "mode", "uid", "expected"),
    [
        ("strict", 0o600, US, []),
        ("strict", 0o600, 0, ["F03", "Run chown", "or set access=private, which"]),
        ("strict", 0o640, US, ["F04", "the group gid 61003 can read", CHMOD, "or set access=private, which"]),
        ("strict", 0o620, US, ["F06", "the group gid 61003 can write to"]),
        ("private", 0o600, US, []),
        ("private", 0o600, 0, []),
        ("private", 0o600, ANOTHER, ["F03", "belongs to uid 61002", "we are 61000", "Run chown 61000"]),
        ("private", 0o640, US, ["F04", "the group gid 61003 can read", CHMOD, "or set access=mounted if"]),
        ("private", 0o604, US, ["F05", "everybody can read", CHMOD]),
        ("private", 0o604, 0, ["F05", "everybody can read", "Run chown 61000", "and chmod 600"]),
        ("private", 0o602, US, ["F06", "everybody can write to"]),
        ("private", 0o601, US, ["F06", "everybody can execute /etc/pos"]),
        ("private", 0o610, US, ["F06", "the group gid 61003 can execute"]),
        ("mounted", 0o644, 0, []),
        ("mounted", 0o644, ANOTHER, []),
        ("mounted", 0o644, CREW, ["F03", "FileBackend(owners=…)"]),
        ("mounted", 0o664, 0, ["F06", "the group gid 61003 can write to", "Run chmod go-wx"]),
        ("mounted", 0o645, 0, ["F06", "everybody can execute", "Run chmod go-wx"]),
        ("unchecked", 0o777, ANOTHER, []),
    ],
)
def test_a_file_is_judged_by_its_owner_and_mode(level: str, mode: int, uid: int, expected: list[str]) -> None:
    found = told(file(level, mode, uid))
    assert [part for part in expected if part not in found] == []
    assert bool(found) == bool(expected)


def test_a_group_of_ours_may_read_what_is_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    assert file("private", 0o640, 0, OUR_GROUP) is None
    assert file("private", 0o640, 0, CREW).code == "F04"
    monkeypatch.setattr(os, "getgroups", lambda: [CREW])
    assert file("private", 0o640, 0, CREW) is None
    assert file("private", 0o660, 0, CREW).code == "F06"
    assert file("private", 0o640, US, CREW).code == "F04"


def test_root_is_not_told_to_take_a_service_its_file_away(who: Callable[[int], None]) -> None:
    who(0)
    assert "Read it as that group does (sudo -g gid 61003 …)" in told(file("private", 0o640, 0))
    assert "(sudo -g gid 61003 …)" in told(file("strict", 0o640, 0))
    assert "sudo" not in told(file("private", 0o604, 0))


@pytest.mark.parametrize("links", [1, 2])
@pytest.mark.parametrize(("level", "sticky"), [("private", False), ("mounted", True), ("mounted", False)])
def test_a_second_name_is_refused_where_others_may_have_given_it(level: str, sticky: bool, links: int) -> None:
    found = told(file(level, 0o600, links=links, sticky=sticky))
    assert found.startswith("F08") == (links > 1 and (level, sticky) != ("mounted", False))


USER, OF_GROUP, GROUP, MASK = 0x02, 0x04, 0x08, 0x10


@pytest.mark.parametrize(
    ("entries", "uid", "expected"),
    [
        ([(USER, 4, 0)], US, ""),
        ([(USER, 4, US)], US, ""),
        ([(USER, 4, ANOTHER)], US, "F07 the user uid 61002 can read"),
        ([(USER, 6, ANOTHER)], US, "F06 the user uid 61002 can write to"),
        ([(GROUP, 4, OUR_GROUP)], 0, ""),
        ([(GROUP, 4, CREW)], 0, "F04 the group gid 61003 can read"),
        ([(OF_GROUP, 4, 0)], 0, "F04 the group gid 61003 can read"),
        ([(USER, 4, OUR_GROUP)], 0, "F07 the user uid 61001 can read"),
        ([(MASK, 4, 0)], US, ""),
    ],
)
def test_an_acl_is_judged_entry_by_entry(
    entries: Sequence[tuple[int, int, int]], uid: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "posix_acl", lambda fd: acl(*entries))
    found = told(file("private", 0o660, uid))
    assert found.startswith(expected)
    assert bool(found) == bool(expected)
    if "the user" in expected:
        assert "Run setfacl -b" in found


def test_the_files_own_group_is_one_like_another_in_an_acl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "posix_acl", lambda fd: acl((OF_GROUP, 4, 0)))
    assert file("private", 0o660, 0, OUR_GROUP) is None
    assert file("private", 0o660, 0, CREW).code == "F04"


def test_an_acl_that_cannot_be_read_may_mean_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "posix_acl", lambda fd: acl((USER, 4, US)) + b"?")
    assert told(file("private", 0o640)).startswith("F05 everybody can read")


@pytest.mark.parametrize(
    ("level", "mode", "uid", "sticky", "expected"),
    [
        ("private", 0o755, US, True, []),
        ("private", 0o755, 0, True, []),
        ("private", 0o755, ANOTHER, True, ["F10", "belongs to uid 61002", "Run chown 61000"]),
        ("private", 0o775, US, True, ["F10", "the group gid 61003 can write to", "Run chmod go-w "]),
        ("private", 0o1777, 0, True, []),
        ("private", 0o1777, 0, False, ["F10", "everybody can write to", "a directory of its own"]),
        ("private", 0o1777, US, True, ["F10", "a directory of its own"]),
        ("strict", 0o1777, 0, True, ["F10", "a directory of its own"]),
        ("mounted", 0o1777, ANOTHER, True, []),
        ("mounted", 0o777, ANOTHER, True, ["F10", "Run chmod go-w "]),
        ("unchecked", 0o777, CREW, True, []),
    ],
)
def test_a_directory_on_the_way_is_judged_by_who_may_exchange_what_is_in_it(
    level: str, mode: int, uid: int, sticky: bool, expected: list[str]
) -> None:
    found = told(directory(level, mode, uid, sticky=sticky))
    assert [part for part in expected if part not in found] == []
    assert bool(found) == bool(expected)


@pytest.mark.parametrize(
    ("level", "uid", "expected"),
    [
        ("strict", US, "Name the file that it leads to"),
        ("private", US, ""),
        ("private", 0, ""),
        ("private", ANOTHER, "is a symbolic link of uid 61002: Run chown -h"),
        ("mounted", ANOTHER, ""),
        ("unchecked", CREW, ""),
    ],
)
def test_a_link_is_followed_if_it_is_of_somebody_trusted(level: str, uid: int, expected: str) -> None:
    found = told(Access.of(level, [ANOTHER]).link(PATH, status(stat.S_IFLNK | 0o777, uid)))
    assert expected in found
    assert bool(found) == bool(expected)


@pytest.mark.parametrize(("kind", "code"), [("ext4", ""), ("nfs4", "F15"), ("fuse.sshfs", "F15"), (None, "F16")])
def test_strict_asks_where_a_file_lies(kind: str | None, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "mount_of", lambda fd: None if kind is None else access.Mount("1", kind))
    assert told(file("strict", 0o600))[:3] == code
    assert file("private", 0o600) is None


def test_owners_are_names_or_numbers() -> None:
    assert Access.of("mounted", [0, "root"]).owners == {0}
    for wrong in ("root", ["no-such-user-here"]):
        with pytest.raises(ConfigurationError, match="owners="):
            Access.of("mounted", wrong)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (stat.S_IFREG, "file"),
        (stat.S_IFDIR, "directory"),
        (stat.S_IFLNK, "symbolic link"),
        (stat.S_IFIFO, "FIFO"),
        (stat.S_IFSOCK, "socket"),
        (stat.S_IFCHR, "device"),
        (stat.S_IFBLK, "device"),
    ],
)
def test_each_kind_of_a_directory_entry_has_its_word(kind: int, word: str) -> None:
    assert kind_of(kind | 0o600) == word


# --- what the kernel tells


@pytest.fixture
def descriptor() -> Iterator[int]:
    found = os.open(__file__, os.O_RDONLY)
    yield found
    os.close(found)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fdinfo"), reason="needs Linux's /proc")
def test_the_mount_of_a_descriptor_is_that_of_its_path(descriptor: int) -> None:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
        kinds = {fields[0]: fields[fields.index("-") + 1] for fields in map(str.split, lines)}
    found = mount_of(descriptor)
    assert found is not None
    assert kinds[found.id] == found.kind
    proc = os.open("/proc/self/status", os.O_RDONLY)
    try:
        assert kinds[getattr(mount_of(proc), "id", "")] == getattr(mount_of(proc), "kind", "") == "proc"
    finally:
        os.close(proc)


@pytest.mark.parametrize(
    "given", [FileNotFoundError(), PermissionError(), "", "pos:\t0\n", "mnt_id:\n", "mnt_id:\t0\n"], ids=ascii
)
def test_a_mount_that_is_not_told_is_none(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(path: str, **how: Any) -> io.StringIO:
        if isinstance(given, OSError):
            raise given
        return io.StringIO(given if "fdinfo" in path else "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n")

    monkeypatch.setattr(builtins, "open", opened)
    assert mount_of(3) is None


FIRST, ANOTHER_ONE = "         0          0 4294967295\n", "         0     100000      65536\n"


@pytest.mark.parametrize(
    ("map", "number", "found"),
    [
        (FIRST, "65534\n", None),
        (ANOTHER_ONE, "65534\n", 65534),
        (FIRST + ANOTHER_ONE, "65534\n", 65534),
        (ANOTHER_ONE, "", None),
        (None, "65534\n", None),
    ],
)
def test_who_has_no_number_here_is_somebody_only_in_a_user_namespace(
    map: str | None, number: str, found: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: str, **how: Any) -> io.StringIO:
        if map is None:
            raise FileNotFoundError
        return io.StringIO({"/proc/self/uid_map": map, "/proc/sys/kernel/overflowuid": number}[path])

    monkeypatch.setattr(builtins, "open", opened)
    assert overflow_uid() == found


def test_who_may_be_anybody_is_not_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_overflow_uid", lambda: US)
    monkeypatch.setattr(access, "posix_acl", lambda fd: acl((USER, 4, US)))
    assert told(file("private", 0o640)).startswith("F07")
    monkeypatch.setattr(access, "_overflow_uid", lambda: CREW)
    assert file("mounted", 0o644, CREW) is None
    assert file("private", 0o644, CREW).code == "F03"


@pytest.mark.skipif(not hasattr(os, "getxattr"), reason="needs Linux's ACLs")
@pytest.mark.parametrize("number", [errno.ENODATA, errno.EOPNOTSUPP, errno.EBADF, errno.EIO])
def test_an_acl_that_is_not_there_is_none_and_one_that_cannot_be_read_is_an_error(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def failing(target: object, name: str) -> bytes:
        asked.append(target)
        raise OSError(number, "")

    monkeypatch.setattr(os, "getxattr", failing)
    if number == errno.EIO:
        with pytest.raises(OSError, match=str(number)):
            posix_acl(3)
    else:
        assert posix_acl(3) is None
    assert asked == ([3, "/proc/self/fd/3"] if number == errno.EBADF else [3])
