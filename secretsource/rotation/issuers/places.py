"""Whether others can exchange what lies at a path: judged directory by directory, as for secret files."""

from __future__ import annotations

import os
from pathlib import Path

from ...backends.access import CHECKABLE, Access, Violation
from ...errors import ConfigurationError

__all__ = ["check_platform", "exchangeable"]


def check_platform(what: str) -> None:
    """Raise ConfigurationError where it cannot be told who may write to a file."""
    if not CHECKABLE:
        raise ConfigurationError(f"{what} works on POSIX systems only", hint="Use the adapter manual, without a file")


def exchangeable(path: str) -> Violation | None:
    """Why others could exchange the file at this absolute path, links resolved. OSError for what cannot be opened."""
    access = Access.of("private")
    for folder in Path(path).parents:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            violation = access.directory(str(folder), fd, os.fstat(fd))
        finally:
            os.close(fd)
        if violation is not None:
            return violation
    return None
