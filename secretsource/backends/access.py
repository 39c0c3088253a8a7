"""Who may read and who may change a secret file: what each access level allows.

    strict      ours alone: no link, no group, no sticky directory on the way, no network file system
    private     ours alone, or root's and readable by a group we are in
    mounted     readable by whomever, changed by nobody but root, us and trusted owners: what an orchestrator mounts
    unchecked   anything

What is judged is an open descriptor, so that it cannot be exchanged between the check and the read. "We" are the
effective user and its own private group. POSIX ACLs are judged entry by entry; those of NFSv4 and macOS are not seen.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from ..errors import ConfigurationError

if sys.platform != "win32":
    import grp
    import pwd

__all__ = [
    "CHECKABLE",
    "LEVELS",
    "POSIX_ACL",
    "Access",
    "Violation",
    "is_network",
    "is_shared",
    "kind_of",
    "mount_of",
    "posix_acl",
    "shown",
    "user_name",
]

LEVELS = ("strict", "private", "mounted", "unchecked")
CHECKABLE = hasattr(os, "geteuid") and {os.open, os.stat, os.readlink} <= os.supports_dir_fd

POSIX_ACL = "system.posix_acl_access"

_READ, _WRITE, _EXECUTE = 4, 2, 1
_ALL = _READ | _WRITE | _EXECUTE
_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP, _ACL_MASK = 0x02, 0x04, 0x08, 0x10
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|ceph|coda|davfs|glusterfs|gpfs|lustre|beegfs|orangefs|ocfs2|gfs2|fuse(\..*)?"
)
# Of the machine around a virtual one, which may write there, too.
_SHARED = re.compile(r"virtiofs|vboxsf|prl_fs|vmhgfs|hgfs|drvfs")


class Violation(NamedTuple):
    """What a level does not allow: its code, what was seen, and what mends it."""

    code: str
    seen: str
    repair: str


class _Grant(NamedTuple):
    """What the group bits of a mode give to one user or group."""

    kind: str
    id: int
    bits: int

    def __str__(self) -> str:
        if self.kind == "all":
            return "everybody"
        return f"the user {user_name(self.id)}" if self.kind == "user" else f"the group {_group_name(self.id)}"


@dataclass(frozen=True, slots=True)
class Access:
    """One level, with the further owners that `mounted` trusts."""

    level: str
    owners: frozenset[int] = frozenset()

    @classmethod
    def of(cls, level: str, owners: Iterable[int | str] = ()) -> Access:
        """Raises ConfigurationError for an unknown level or user name."""
        if level not in LEVELS:
            raise ConfigurationError(f"there is no access level {level!r}", hint=f"Levels: {', '.join(LEVELS)}")
        if isinstance(owners, str):
            raise ConfigurationError("owners= is one text", hint="Give a list of user names or numbers")
        return cls(level, frozenset(_uid(owner) for owner in owners))

    def link(self, path: str, status: os.stat_result) -> Violation | None:
        """Whether a symbolic link may be followed."""
        if self.level == "unchecked" or (self.level != "strict" and status.st_uid in self._trusted()):
            return None
        seen = f"{shown(path)} is a symbolic link"
        if self.level == "strict":
            return Violation("F09", seen, "Name the file that it leads to")
        owner = user_name(status.st_uid)
        return Violation("F09", f"{seen} of {owner}", f"Run chown -h {_us()} {_quoted(path)}")

    def directory(self, path: str, fd: int, status: os.stat_result, *, sticky: bool = True) -> Violation | None:
        """Whether a directory may stand on the way: nobody else may exchange what is in it."""
        if self.level == "unchecked":
            return None
        owner = user_name(status.st_uid)
        seen = f"the directory {shown(path)} (mode {_octal(status)}, owner {owner})"
        if status.st_uid not in self._trusted():
            return Violation("F10", f"{seen} belongs to {owner}", f"Run chown {_us()} {_quoted(path)}")
        of_root = status.st_uid == 0 or status.st_uid != os.geteuid()
        if status.st_mode & stat.S_ISVTX and of_root and sticky and self.level != "strict":
            return None  # only a file's owner can exchange it there, and that one is judged
        who = next(self._others(fd, status, _WRITE), None)
        if who is None:
            return None
        if status.st_mode & stat.S_ISVTX:
            return Violation("F10", f"{who} can write to {seen}", "Keep the file in a directory of its own")
        return Violation("F10", f"{who} can write to {seen}", f"Run chmod go-w {_quoted(path)}")

    def file(self, path: str, fd: int, status: os.stat_result, *, sticky: bool) -> Violation | None:
        """Whether a file may be read, whose descriptor this is, and whether it lies in a sticky directory."""
        if self.level == "unchecked":
            return None
        return (
            self._owner(path, status)
            or self._mode(path, fd, status)
            or self._names(path, status, sticky)
            or self._elsewhere(path, fd)
        )

    def _owner(self, path: str, status: os.stat_result) -> Violation | None:
        owners = {os.geteuid()} if self.level == "strict" else self._trusted()
        if status.st_uid in owners:
            return None
        seen = f"{shown(path)} belongs to {user_name(status.st_uid)} (mode {_octal(status)}), we are {_us()}"
        if self.level == "mounted":
            return Violation(
                "F03",
                seen,
                f"Run chown root {_quoted(path)}, run the program as its owner, or, for file: references, "
                f"trust its owner by FileBackend(owners=…)",
            )
        return Violation("F03", seen, f"Run chown {_us()} {_quoted(path)}{self._or_another_level()}")

    def _mode(self, path: str, fd: int, status: os.stat_result) -> Violation | None:
        bits = _ALL if self.level != "mounted" else _WRITE | _EXECUTE
        who = next(self._others(fd, status, bits), None)
        if who is None:
            return None
        seen = f"{shown(path)} (mode {_octal(status)}, owner {user_name(status.st_uid)})"
        repair = self._tightening(path, who, status) + self._or_another_level()
        if who.bits & (_WRITE | _EXECUTE):
            able = "write to" if who.bits & _WRITE else "execute"
            return Violation("F06", f"{who} can {able} {seen}", repair)
        code = "F05" if who.kind == "all" else "F07" if who.kind == "user" else "F04"
        return Violation(code, f"{who} can read {seen}", repair)

    def _tightening(self, path: str, who: _Grant, status: os.stat_result) -> str:
        if who.kind == "user":
            return f"Run setfacl -b {_quoted(path)}"
        if self.level == "mounted":
            return f"Run chmod go-wx {_quoted(path)}"
        if os.geteuid() == 0 and who.kind == "group":  # a service may read it by that group: do not take that away
            group = _group_name(who.id)
            return f"Read it as that group does (sudo -g {group} …), or run chmod 600 {_quoted(path)}"
        if status.st_uid == os.geteuid():
            return f"Run chmod 600 {_quoted(path)}"
        return f"Run chown {_us()} {_quoted(path)} and chmod 600 {_quoted(path)}"

    def _or_another_level(self) -> str:
        return {
            "strict": ", or set access=private, which allows what is usual on servers",
            "private": ", or set access=mounted if an orchestrator mounts it",
        }.get(self.level, "")

    def _names(self, path: str, status: os.stat_result, sticky: bool) -> Violation | None:
        # Where a system allows it, anybody may give another file of ours the name that is expected in /tmp.
        if status.st_nlink <= 1 or (self.level == "mounted" and not sticky):
            return None
        return Violation(
            "F08",
            f"{shown(path)} has {status.st_nlink} names (hard links)",
            f"Remove the others, find them by: find / -xdev -inum {status.st_ino}",
        )

    def _elsewhere(self, path: str, fd: int) -> Violation | None:
        if self.level != "strict":
            return None
        mount = mount_of(fd)
        if mount is None:
            return Violation(
                "F16", f"the file system of {shown(path)} cannot be told here", "Set access=private, which does not ask"
            )
        if is_network(mount.kind):
            return Violation(
                "F15",
                f"{shown(path)} is on a network file system ({mount.kind})",
                "Keep it on a local disk, or set access=private",
            )
        return None

    def _trusted(self) -> set[int]:
        trusted = {0, os.geteuid()}
        if self.level == "mounted":
            trusted |= self.owners
            overflow = _overflow_uid()
            if overflow is not None:
                trusted.add(overflow)
        return trusted

    def _others(self, fd: int, status: os.stat_result, bits: int) -> Iterator[_Grant]:
        """Who, besides us, has one of these bits, and may not have it at this level."""
        everyone = status.st_mode & _ALL
        if everyone & bits:
            yield _Grant("all", -1, everyone & bits)
        if not status.st_mode >> 3 & bits:
            return
        if self.level == "strict":
            yield _Grant("group", status.st_gid, status.st_mode >> 3 & bits)
            return
        for grant in _grants(fd, status):
            allowed = grant.bits & bits == _READ and status.st_uid == 0 and grant.kind == "group" and _in(grant.id)
            if grant.bits & bits and not _is_us(grant) and not allowed:
                yield grant._replace(bits=grant.bits & bits)


class Mount(NamedTuple):
    """The mount that a descriptor is on, and the type of its file system."""

    id: str
    kind: str


def mount_of(fd: int) -> Mount | None:
    """The mount that a descriptor is on, or None where /proc does not tell."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8") as lines:
            mount_id = next(line.split()[1] for line in lines if line.startswith("mnt_id:"))
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
            kind = next(line.partition(" - ")[2].split()[0] for line in lines if line.split()[0] == mount_id)
    except (FileNotFoundError, PermissionError, StopIteration, IndexError):
        return None
    return Mount(mount_id, kind)


def is_network(kind: str) -> bool:
    """Whether a file system of this type may be another machine's, or a program's own."""
    return _NETWORK.fullmatch(kind) is not None


def is_shared(kind: str) -> bool:
    """Whether it is a folder that a virtual machine shares with the one around it."""
    return _SHARED.fullmatch(kind) is not None


def kind_of(mode: int) -> str:
    """What a directory entry is, in a word or two."""
    kinds = (
        (stat.S_ISDIR, "directory"),
        (stat.S_ISLNK, "symbolic link"),
        (stat.S_ISFIFO, "FIFO"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISCHR, "device"),
        (stat.S_ISBLK, "device"),
    )
    return next((word for test, word in kinds if test(mode)), "file")


def shown(path: str) -> str:
    """A path for a message: links and variables may lead to names that no terminal should print."""
    return path if path.isprintable() else ascii(path)


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def posix_acl(fd: int) -> bytes | None:
    """A descriptor's extended POSIX ACL as the kernel gives it, None where there is none."""
    if sys.platform != "linux":
        return None
    # An O_PATH descriptor has no attributes of its own, but its entry in /proc leads to them.
    for target in (fd, f"/proc/self/fd/{fd}"):
        try:
            return os.getxattr(target, POSIX_ACL)
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
                return None
            if error.errno != errno.EBADF:
                raise
    return None


def _grants(fd: int, status: os.stat_result) -> list[_Grant]:
    """To whom the group bits of a mode give what: to its group, or to all that an ACL names there."""
    acl = posix_acl(fd)
    bits = status.st_mode >> 3 & _ALL
    if acl is None:
        return [_Grant("group", status.st_gid, bits)]
    # With an ACL the group bits are its mask (acl(5)), the most that anybody named there can have.
    if len(acl) % 8 != 4:  # a file system in user space may give anything, and it may mean anybody
        return [_Grant("all", -1, bits)]
    kinds = {_ACL_USER: "user", _ACL_GROUP_OBJ: "group", _ACL_GROUP: "group"}
    return [
        _Grant(kinds[tag], status.st_gid if tag == _ACL_GROUP_OBJ else id, given & bits)
        for tag, given, id in struct.iter_unpack("<HHI", acl[4:])
        if tag in kinds
    ]


def _is_us(grant: _Grant) -> bool:
    if grant.id == _overflow_uid():  # that may be us, and is everybody else who has no number here
        return False
    if grant.kind == "user":
        return grant.id in (0, os.geteuid())
    return _private_group(grant.id)


def _private_group(gid: int) -> bool:
    """Whether this group is the effective user's alone: its primary one, named like it, without other members."""
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return user.pw_gid == gid and user.pw_name == group.gr_name and set(group.gr_mem) <= {user.pw_name}


def _in(gid: int) -> bool:
    return gid == os.getegid() or gid in os.getgroups()


@cache
def _overflow_uid() -> int | None:
    """The uid that stands for all those without one in this user namespace; None in the first, where it is a user."""
    try:
        with open("/proc/self/uid_map", encoding="utf-8") as lines:
            if [line.split() for line in lines] == [["0", "0", "4294967295"]]:
                return None
        with open("/proc/sys/kernel/overflowuid", encoding="utf-8") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _uid(owner: int | str) -> int:
    if isinstance(owner, int):
        return owner
    if CHECKABLE:
        with suppress(KeyError):
            return pwd.getpwnam(owner).pw_uid
    raise ConfigurationError(f"owners= names the user {owner!r}, who is unknown here", hint="Give the number (uid)")


def _us() -> str:
    uid = os.geteuid()
    name = user_name(uid)
    return str(uid) if name.startswith("uid ") else name


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"


def _octal(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"


def _quoted(path: str) -> str:
    return shown(shlex.quote(path))
