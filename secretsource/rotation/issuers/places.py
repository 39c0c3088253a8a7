"""Whether others can exchange what lies at a path: judged directory by directory, as for secret files."""

from __future__ import annotations

import errno
import os

from ...backends.access import CHECKABLE, Access, Violation
from ...errors import ConfigurationError

__all__ = ["check_platform", "exchangeable"]

_LINKS_AT_MOST = 40  # as Linux, path_resolution(7)


def check_platform(what: str) -> None:
    """Raise ConfigurationError where it cannot be told who may write to a file."""
    if not CHECKABLE:
        raise ConfigurationError(f"{what} works on POSIX systems only", hint="Use the adapter manual, without a file")


def exchangeable(path: str) -> Violation | None:
    """Why others could exchange the file at this absolute path, or a link on the way to it. OSError for what fails."""
    access = Access.of("private")
    at, ahead, links = "/", path.split("/")[::-1], 0
    violation = _judged(access, at)
    while ahead and violation is None:
        part = ahead.pop()
        if part in ("", "."):
            continue
        if part == "..":
            at = os.path.dirname(at)
            continue
        there = os.path.join(at, part)
        if os.path.islink(there):
            links += 1
            if links > _LINKS_AT_MOST:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink(there)
            ahead += target.split("/")[::-1]
            at = "/" if target.startswith("/") else at
        elif ahead:
            at = there
            violation = _judged(access, at)
    return violation


def _judged(access: Access, folder: str) -> Violation | None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return access.directory(folder, fd, os.fstat(fd))
    finally:
        os.close(fd)
