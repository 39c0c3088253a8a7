"""A secret file replaced as a whole: a new one beside it, made private before it holds anything, then renamed.

Whoever reads meanwhile gets the old one or the new one. Writers take turns at a lock file beside it, `.NAME.lock`,
which stays, since a lock file that is removed can be locked twice. What a killed writer left, the next one removes.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from ..clock import Deadline
from ..errors import AccessDenied, BackendUnavailable
from ..secret import Secret
from .access import POSIX_ACL, is_network, is_shared, kind_of, mount_of, posix_acl, shown, user_name
from .walk import Chain, Opened, Walk, refusal

if sys.platform != "win32":
    import fcntl

__all__ = ["locked", "looked_through", "opened_to_replace", "replace"]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_LOCK = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_ASK_AGAIN = 0.01  # seconds


@contextmanager
def locked(walk: Walk, folder: Chain, name: str, deadline: Deadline) -> Iterator[None]:
    """Be the only writer of this file for a while. Raises BackendUnavailable when another one is, to the end."""
    _check_folder(walk, folder)
    lock = f".{name}.lock"
    fd = _opened_lock(walk, folder, lock)
    while not (_taken(fd) and _stands(fd, folder, lock)):
        if deadline.over():
            raise walk.origin.error(
                BackendUnavailable,
                f"is being written by another process, which holds {shown(walk.path(folder, lock))}",
                "Try again when it is done",
            )
        if _stands(fd, folder, lock):
            time.sleep(_ASK_AGAIN)
        else:  # somebody has removed it, and who comes now locks another one
            fd = _opened_lock(walk, folder, lock)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def opened_to_replace(walk: Walk, folder: Chain, name: str) -> Opened | None:
    """The file as it is, None where there is none. Raises AccessDenied where a rename would not do what is meant."""
    _check_folder(walk, folder)
    try:
        seen = walk.look(folder, name)
    except FileNotFoundError:
        return None
    path = shown(walk.path(folder, name))
    if stat.S_ISLNK(seen.st_mode):
        _refuse(walk, "F09", f"{path} is a symbolic link, which would be replaced", "Name the file that it leads to")
    if not stat.S_ISREG(seen.st_mode):
        _refuse(walk, "F02", f"{path} is a {kind_of(seen.st_mode)}", "Name a regular file")
    if seen.st_nlink > 1:
        _refuse(walk, "F08", f"{path} has {seen.st_nlink} names (hard links), of which one would change", "Remove them")
    opened = walk.file(folder, [name])
    if mount_of(opened.fd) != mount_of(folder[-1].fd):
        _refuse(walk, "F02", f"{path} is mounted there by itself", "Change it where it is mounted from")
    return opened


def looked_through(walk: Walk, folder: Chain, name: str) -> tuple[Opened | None, list[str]]:
    """The file, and what to be careful about with it, found without writing.

    Raises AccessDenied for what could not be replaced. That is so on network file systems and on those of programs:
    another machine's writer may not see our lock, and a rename may be done twice, or be seen late.
    """
    opened = opened_to_replace(walk, folder, name)
    path, directory = shown(walk.path(folder, name)), shown(walk.path(folder))
    mount = mount_of(folder[-1].fd)
    if mount is not None and is_network(mount.kind):
        seen = f"{path} is on a network file system ({mount.kind}), where locks and renames are not to be relied on"
        _refuse(walk, "F15", seen, "Keep it on a local disk of the machine that rotates it")
    own = {"effective_ids": True} if os.access in os.supports_effective_ids else {}
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=folder[-1].fd, **own):
        seen = f"{user_name(os.geteuid())} cannot write to the directory {directory}, where the new file is made"
        _refuse(walk, "F10", seen, "Rotate it as the owner of that directory")
    with suppress(FileNotFoundError):
        _check_lock(walk, walk.look(folder, f".{name}.lock"))
    if opened is not None and not _owner_is_kept(opened):
        _refuse_owner(walk, opened)
    if mount is None:
        return opened, [f"The file system of {path} cannot be told here: over a network, a rotation is not safe"]
    if is_shared(mount.kind):
        caution = f"{path} is shared between machines ({mount.kind}), which do not see each other's locks"
        return opened, [f"{caution}: rotate it from one of them only"]
    return opened, []


def replace(walk: Walk, folder: Chain, name: str, text: Secret, old: Opened | None) -> None:
    """Put a file with this text there, with owner, mode and ACL of the old one, or else ours and mode 0600."""
    directory = folder[-1].fd
    new = f".{name}.{os.urandom(6).hex()}.new"
    walk.at = walk.path(folder, new)
    _sweep(walk, folder, name)
    fd = walk.keep(os.open(new, _NEW, 0o600, dir_fd=directory))
    try:
        _made_alike(walk, fd, old)
        _write(fd, text)
        os.fsync(fd)
        _check_unchanged(walk, folder, name, old)
        os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(new, dir_fd=directory)
        raise
    os.fsync(_readable(walk, folder))


def _check_unchanged(walk: Walk, folder: Chain, name: str, old: Opened | None) -> None:
    """Not everybody who writes the file knows of our lock: an editor does not."""
    try:
        now = _identity(walk.look(folder, name))
    except FileNotFoundError:
        now = None
    if now != (None if old is None else _identity(old.status)):
        raise walk.origin.error(
            BackendUnavailable, "was changed by somebody else meanwhile", "Read it again, and decide again"
        )


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _sweep(walk: Walk, folder: Chain, name: str) -> None:
    """Remove what a killed writer left: who holds the lock is the only one who writes."""
    left = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{12}}\.new")
    for each in os.listdir(_readable(walk, folder)):
        if left.fullmatch(each):
            os.unlink(each, dir_fd=folder[-1].fd)


def _readable(walk: Walk, folder: Chain) -> int:
    """The directory's own descriptor may be one for paths only."""
    return walk.keep(os.open(".", os.O_RDONLY | getattr(os, "O_CLOEXEC", 0), dir_fd=folder[-1].fd))


def _check_folder(walk: Walk, folder: Chain) -> None:
    """Nobody else may put files beside ours: not even a sticky directory will do."""
    directory = folder[-1]
    violation = walk.access.directory(walk.path(folder), directory.fd, directory.status, sticky=False)
    if violation is not None:
        raise refusal(walk.origin, walk.access.level, violation)


def _made_alike(walk: Walk, fd: int, old: Opened | None) -> None:
    # A directory's default one: the group bits of a mode would let those in whom it names.
    if sys.platform == "linux" and posix_acl(fd) is not None:
        os.removexattr(fd, POSIX_ACL)
    if old is None:
        os.fchmod(fd, 0o600)
        return
    new = os.fstat(fd)
    owner = -1 if old.status.st_uid == new.st_uid else old.status.st_uid
    group = -1 if old.status.st_gid == new.st_gid else old.status.st_gid
    kept = owner == group == -1
    if not kept:
        with suppress(PermissionError):
            os.fchown(fd, owner, group)
            kept = True
    if not kept:
        _refuse_owner(walk, old)
    os.fchmod(fd, stat.S_IMODE(old.status.st_mode))
    acl = posix_acl(old.fd)
    if acl is not None and sys.platform == "linux":
        os.setxattr(fd, POSIX_ACL, acl)


def _owner_is_kept(old: Opened) -> bool:
    """Whether we may give a new file this owner and group, as far as can be told without trying it."""
    us = os.geteuid()
    return us == 0 or (old.status.st_uid == us and old.status.st_gid in (os.getegid(), *os.getgroups()))


def _refuse_owner(walk: Walk, old: Opened) -> NoReturn:
    whose = f"{user_name(old.status.st_uid)} and its group {old.status.st_gid}"
    seen = f"{shown(old.path)} belongs to {whose}, which {user_name(os.geteuid())} cannot keep"
    _refuse(walk, "F03", seen, f"Write it as {user_name(old.status.st_uid)}")


def _opened_lock(walk: Walk, folder: Chain, lock: str) -> int:
    walk.at = walk.path(folder, lock)
    fd = walk.keep(os.open(lock, _LOCK, 0o600, dir_fd=folder[-1].fd))
    _check_lock(walk, os.fstat(fd))
    return fd


def _check_lock(walk: Walk, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or status.st_uid not in (0, os.geteuid()):
        _refuse(walk, "F02", f"{shown(walk.at)} is no lock file of ours", "Look who made it, and remove it")


def _stands(fd: int, folder: Chain, lock: str) -> bool:
    """Whether the lock file is still the one that others find."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(lock, dir_fd=folder[-1].fd, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _taken(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return False
    return True


def _write(fd: int, text: Secret) -> None:
    """The one frame that holds the text in clear."""
    left = memoryview(text.reveal().encode())
    while left:
        left = left[os.write(fd, left) :]


def _refuse(walk: Walk, code: str, seen: str, repair: str) -> NoReturn:
    what = f"is not written [{code}]: {seen}"
    raise walk.origin.error(AccessDenied, what, repair)
