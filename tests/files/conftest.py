"""Directories to lay secret files out in."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory of our own that other users may pass through, below the sticky /tmp."""
    with tempfile.TemporaryDirectory(prefix="secretsource-", ignore_cleanup_errors=True) as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        yield path


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of our own that meets `strict`: nobody else can write to one above it."""
    with _directory(os.environ.get("HOME", "/")) as path:
        yield path


@pytest.fixture(scope="module")
def open_home() -> Iterator[Path]:
    """The same, of root's, and other users may pass through."""
    with _directory("/var/lib" if os.path.isdir("/var/lib") else "/") as path:
        path.chmod(0o755)
        yield path


def _is_ours_alone(folder: Path) -> bool:
    status = folder.stat()
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022


class _directory:
    def __init__(self, base: str) -> None:
        self._base = base

    def __enter__(self) -> Path:
        try:
            self._path = Path(tempfile.mkdtemp(prefix=".secretsource-", dir=self._base)).resolve()
        except OSError:
            pytest.skip(f"nothing can be made in {self._base}")
        if not all(_is_ours_alone(folder) for folder in self._path.parents):
            shutil.rmtree(self._path)
            pytest.skip(f"others may write to {self._base} or above it")
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
