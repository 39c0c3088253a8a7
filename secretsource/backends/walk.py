"""The way to a secret file: component by component from /, each opened without following links, and judged.

Links are followed by hand, so that the directories they lead through are judged, too. What was looked up is compared
with what was opened, and what was read with what is there afterwards; where they differ, all is done once more.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from ..errors import AccessDenied, BackendError, BackendUnavailable, ConfigurationError, MalformedSecret, SecretNotFound
from ..reference import SecretReference
from ..secret import Fingerprints, Secret
from .access import CHECKABLE, Access, Violation, kind_of, shown, user_name
from .formats import Fault, Origin, parse_bytes

__all__ = [
    "LARGEST",
    "Chain",
    "Contents",
    "Directory",
    "Opened",
    "Walk",
    "read_text",
    "refusal",
    "unwalked",
    "version_of",
    "walked",
]

LARGEST = 64 * 1024  # bytes

_FINGERPRINTS = Fingerprints()
_LINKS_AT_MOST = 40  # as Linux, path_resolution(7)
_SWAPPED = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)  # what to open a link, a file and a socket fails with
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_DIRECTORY = _FLAGS | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_PATH", getattr(os, "O_SEARCH", os.O_RDONLY))
_LISTED = _FLAGS | getattr(os, "O_DIRECTORY", 0) | os.O_RDONLY
# Neither a FIFO without a writer nor a terminal may hold us up, should one be put there after the look.
_FILE = _FLAGS | os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)

T = TypeVar("T")


class Directory(NamedTuple):
    """An open directory; it stays open until the walk ends."""

    name: str
    fd: int
    status: os.stat_result


Chain = tuple[Directory, ...]
"""A directory with all those above it, from / on, without links."""


class Opened(NamedTuple):
    """An open file that its level allows to read."""

    path: str
    fd: int
    status: os.stat_result


class Contents(NamedTuple):
    """What a file holds, and since when (aware UTC; None for a time out of its range)."""

    text: Secret
    modified: datetime | None


class _Changed(Exception):
    """Something else is there than a moment ago."""


class _Failed(NamedTuple):
    """Why a system call, or what it found, ended a walk, and where."""

    code: int | None
    at: str
    again: bool


class Walk:
    """One walk, and all descriptors that it opens. With `root`, nothing outside that directory is given."""

    def __init__(self, access: Access, origin: Origin, root: str | None = None) -> None:
        self.access = access
        self.origin = origin
        self.at = "the working directory"  # for the error about a failed system call
        self.links = 0
        self._root = root
        self._within: os.stat_result | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def begin(self, path: str) -> tuple[Chain, list[str]]:
        """Where the walk to this path begins, and the parts that follow."""
        _check_path(self.origin, path, self._root)
        if self._root is None and not path.startswith("/"):
            path = os.path.join(os.getcwd(), path)
        chain: Chain = (self._enter((), "/"),)
        if self._root is not None:
            root = self._directory(chain, self._root.split("/"))
            self._within = root[-1].status
            chain = chain if path.startswith("/") else root
        return chain, path.split("/")

    def directory(self, chain: Chain, parts: Iterable[str]) -> Chain:
        """Follow the parts to a directory."""
        return self._contained(self._directory(chain, parts))

    def file(self, chain: Chain, parts: Iterable[str]) -> Opened:
        """Follow the parts to a file, and open it for reading."""
        chain, name, seen = self._follow(chain, parts, to_file=True)
        if seen is None:
            raise self._refused(
                Violation(
                    "F02", f"{shown(self.path(chain))} is a directory", "Put '/' after it if each file in it is a field"
                )
            )
        self._contained(chain)
        return self._opened(chain, name, seen)

    def names(self, chain: Chain) -> list[str]:
        """The names in this directory, hidden ones left out."""
        self.at = self.path(chain)
        fd = self.keep(os.open(".", _LISTED, dir_fd=chain[-1].fd))
        return sorted(name for name in os.listdir(fd) if not name.startswith("."))

    def published(self, chain: Chain) -> Chain:
        """Where the kubelet keeps what is in this directory: what its link `..data` leads to. Else itself."""
        try:
            os.stat("..data", dir_fd=chain[-1].fd, follow_symlinks=False)
        except FileNotFoundError:
            return chain
        return self.directory(chain, ["..data"])

    def confirm(self, chain: Chain, published: Chain) -> None:
        """Make sure that `..data` leads there still; only when it no longer does are files taken away from there."""
        if not _same(self.published(chain)[-1].status, published[-1].status):
            raise _Changed

    def contents(self, opened: Opened) -> Contents:
        """Read a file to its end. Raises MalformedSecret where it is no text."""
        before = opened.status
        self.at = opened.path
        outcome = _text(opened.fd, before.st_size)
        after = os.fstat(opened.fd)
        if outcome is None or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise _Changed
        if isinstance(outcome, Fault):
            raise self.origin.error(
                MalformedSecret, f"cannot be used: {shown(opened.path)} {outcome.what}", outcome.hint
            )
        return Contents(outcome, _moment(after))

    def look(self, chain: Chain, name: str) -> os.stat_result:
        """What stands under this name, links not followed."""
        self.at = self.path(chain, name)
        return os.stat(name, dir_fd=chain[-1].fd, follow_symlinks=False)

    def keep(self, fd: int) -> int:
        """Close this descriptor when the walk ends."""
        self._open.callback(os.close, fd)
        return fd

    def path(self, chain: Chain, name: str = "") -> str:
        return "/" + "/".join([directory.name for directory in chain[1:]] + [name] * bool(name))

    def _directory(self, chain: Chain, parts: Iterable[str]) -> Chain:
        return self._follow(chain, parts, to_file=False)[0]

    def _follow(self, chain: Chain, parts: Iterable[str], *, to_file: bool) -> tuple[Chain, str, os.stat_result | None]:
        """Follow parts and links; with `to_file` up to the name of what is no link, and its status."""
        ahead = list(parts)[::-1]
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                chain = chain[:-1] or chain
                continue
            seen = self.look(chain, part)
            if stat.S_ISLNK(seen.st_mode):
                target = self._target(chain, part, seen)
                chain = chain[:1] if target.startswith("/") else chain
                ahead += target.split("/")[::-1]
            elif to_file and not ahead and not stat.S_ISDIR(seen.st_mode):
                return chain, part, seen
            else:
                chain = (*chain, self._enter(chain, part))
        return chain, "", None

    def _enter(self, chain: Chain, name: str) -> Directory:
        self.at = path = self.path(chain, name) if chain else "/"
        fd = self.keep(os.open(name, _DIRECTORY, dir_fd=chain[-1].fd if chain else None))
        status = os.fstat(fd)
        violation = self.access.directory(path, fd, status)
        if violation is not None:
            raise self._refused(violation)
        return Directory(name, fd, status)

    def _target(self, chain: Chain, name: str, seen: os.stat_result) -> str:
        self.links += 1
        violation = self.access.link(self.path(chain, name), seen)
        if self.links > _LINKS_AT_MOST:
            violation = Violation("F09", f"{shown(self.at)} leads through too many links", "Name the file itself")
        if violation is not None:
            raise self._refused(violation)
        target = os.readlink(name, dir_fd=chain[-1].fd)
        if not _same(seen, self.look(chain, name)):
            raise _Changed
        return target

    def _opened(self, chain: Chain, name: str, seen: os.stat_result) -> Opened:
        self.at = path = self.path(chain, name)
        if not stat.S_ISREG(seen.st_mode):
            raise self._refused(Violation("F02", f"{shown(path)} is a {kind_of(seen.st_mode)}", "Name a regular file"))
        fd = self.keep(os.open(name, _FILE, dir_fd=chain[-1].fd))
        status = os.fstat(fd)
        if not _same(seen, status) or not stat.S_ISREG(status.st_mode):
            raise _Changed
        sticky = bool(chain[-1].status.st_mode & stat.S_ISVTX)
        violation = self.access.file(path, fd, status, sticky=sticky)
        if violation is not None:
            raise self._refused(violation)
        return Opened(path, fd, status)

    def _contained(self, chain: Chain) -> Chain:
        root = self._within
        if root is None or any(_same(root, directory.status) for directory in chain):
            return chain
        seen = f"{shown(self.path(chain))} is outside of root={shown(self._root or '')}"
        raise self._refused(Violation("F09", seen, "Keep it below that directory"))

    def _refused(self, violation: Violation) -> AccessDenied:
        return refusal(self.origin, self.access.level, violation)


def walked(
    access: Access, origin: Origin, action: Callable[[Walk], T], *, root: str | None = None, missing: str = ""
) -> T:
    """The result of an action on a new walk; once more if something changed under it.

    Raises BackendErrors for what the system refuses; `missing` is the hint where there is nothing.
    """
    if not CHECKABLE:
        raise _uncheckable(access, origin)
    outcome = _attempt(access, origin, action, root)
    if isinstance(outcome, _Failed) and outcome.again:
        outcome = _attempt(access, origin, action, root)
    if isinstance(outcome, _Failed):
        raise _error(origin, outcome, missing)
    return outcome


def unwalked(access: Access, origin: Origin, path: str, root: str | None = None) -> Contents:
    """What a file holds, on a platform without the means to walk. Nothing is judged, so only `unchecked` may."""
    if access.level != "unchecked":
        raise _uncheckable(access, origin)
    _check_path(origin, path, root)
    place = os.path.realpath(os.path.join(root or "", path))
    if root is not None and not Path(place).is_relative_to(os.path.realpath(root)):
        raise refusal(origin, access.level, Violation("F09", f"it is outside of root={shown(root)}", "Keep it below"))
    outcome = _plainly(place)
    if isinstance(outcome, Violation):
        raise refusal(origin, access.level, outcome)
    if isinstance(outcome, _Failed):
        raise _error(origin, outcome, "")
    if isinstance(outcome, Fault):
        raise origin.error(MalformedSecret, f"cannot be used: {shown(place)} {outcome.what}", outcome.hint)
    return outcome


def read_text(
    path: str, *, level: str, reference: SecretReference, called: str = "", owners: Sequence[int | str] = ()
) -> Secret:
    """The whole of one text file, its final line end included, if it meets the level (see access.py).

    `called` is what messages call it, by default the reference. Raises BackendErrors; relative paths are relative to
    the working directory.
    """
    origin = Origin(reference, called)
    return walked(Access.of(level, owners), origin, lambda walk: walk.contents(walk.file(*walk.begin(path))).text)


def refusal(origin: Origin, level: str, violation: Violation) -> AccessDenied:
    """The error for what a level does not allow."""
    what = f"is refused at level {level} [{violation.code}]: {violation.seen}"
    return origin.error(AccessDenied, what, violation.repair)


def version_of(*texts: Secret) -> str:
    """A name for a content: eight hex digits of a digest under a key of this process.

    It tells whether contents are the same and nothing else, so it may be shown; a touched file keeps its version.
    """
    return _FINGERPRINTS.of(*texts).hex()[:8]


def _uncheckable(access: Access, origin: Origin) -> AccessDenied:
    seen = "who may read a file cannot be told on this platform"
    repair = "Use environment variables, env://NAME, or in code FileBackend(access='unchecked')"
    if access.level == "unchecked":
        seen = "on this platform one file can be read, but no directory, and nothing is written"
        repair = "Name one file, or use environment variables, env://NAME"
    return refusal(origin, access.level, Violation("F16", seen, repair))


def _check_path(origin: Origin, path: str, root: str | None) -> None:
    """Variables and code may give what no file can be called; the system calls' own errors are no OSErrors then."""
    try:
        impossible = b"\0" in os.fsencode(path) + os.fsencode(root or "")
    except UnicodeEncodeError:
        impossible = True
    if impossible:
        raise ConfigurationError(f"{origin} leads to a path that no file can have", hint="Correct that path")


def _plainly(path: str) -> Contents | Fault | Violation | _Failed:
    try:
        kind = os.stat(path).st_mode
        if not stat.S_ISREG(kind):  # to open a console, a pipe or a FIFO may wait for ever
            return Violation("F02", f"{shown(path)} is a {kind_of(kind)}", "Name a regular file")
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            text = _text(file.fileno(), status.st_size)
    except OSError as error:
        return _Failed(error.errno or 0, path, False)
    if text is None:
        return _Failed(None, path, False)
    return text if isinstance(text, Fault) else Contents(text, _moment(status))


def _attempt(access: Access, origin: Origin, action: Callable[[Walk], T], root: str | None) -> T | _Failed:
    with Walk(access, origin, root) as walk:
        try:
            return action(walk)
        except _Changed:
            return _Failed(None, walk.at, True)
        except OSError as error:
            # Something else stands where a directory or a file was seen, or the kubelet took away what a link led to.
            swapped = error.errno in _SWAPPED or (error.errno == errno.ENOENT and walk.links > 0)
            return _Failed(error.errno or 0, walk.at, swapped)


def _error(origin: Origin, failed: _Failed, missing: str) -> BackendError:
    at = shown(failed.at)
    match failed.code:
        case None:
            return origin.error(
                BackendUnavailable, f"changed while it was read [F11]: {at}", "Write it anew and rename it into place"
            )
        case errno.ENOENT | errno.ENAMETOOLONG:
            return origin.error(
                SecretNotFound, f"was not found [F01]: {at} does not exist", missing or "Create it, or correct the path"
            )
        case errno.ENOTDIR:
            return origin.error(
                SecretNotFound,
                f"was not found [F01]: {at} is not a directory",
                "Correct the path; a '/' at its end means a directory with one file a field",
            )
        case errno.EACCES | errno.EPERM:
            return origin.error(
                AccessDenied,
                f"is refused by the system: {at} is not open to {user_name(os.geteuid()) if CHECKABLE else 'us'}",
                "Run as its owner, or change owner and mode",
            )
        case code:
            name = errno.errorcode.get(code, str(code))
            return origin.error(
                BackendUnavailable, f"cannot be read: {name} at {at}", "Look at the file system, and try again"
            )


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    # The number of what was removed may be given to what somebody else makes then.
    return (one.st_dev, one.st_ino, one.st_uid) == (other.st_dev, other.st_ino, other.st_uid)


def _moment(status: os.stat_result) -> datetime | None:
    try:
        return datetime.fromtimestamp(status.st_mtime_ns / 1e9, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _text(fd: int, size: int) -> Secret | Fault | None:
    """What this descriptor gives, None if that is not `size` bytes. The one frame that holds it in clear."""
    if size > LARGEST:
        return Fault(f"is larger than {LARGEST // 1024} KiB [F13]", "Name the file that holds only the credentials")
    content = b""
    while len(content) <= size:
        piece = os.read(fd, size + 1 - len(content))
        if not piece:
            break
        content += piece
    return parse_bytes(content) if len(content) == size else None
