"""The fixture `watch`, and the servers that cases talk to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from secretsource.testing import FakeIssuer

from .places import Output, Spans
from .reporters import Sentry
from .watch import Watch


@pytest.fixture(scope="package")
def sentry() -> Iterator[Sentry]:
    with Sentry().installed() as sentry:
        yield sentry


@pytest.fixture(scope="package")
def spans() -> Iterator[Spans]:
    with Spans().installed() as spans:
        yield spans


@pytest.fixture
def watching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], sentry: Sentry, spans: Spans
) -> Callable[[], AbstractContextManager[Watch]]:
    """What begins to watch; its end searches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda: Watch(tmp_path, Output(capfd), sentry, spans).watching()


@pytest.fixture
def watch(watching: Callable[[], AbstractContextManager[Watch]]) -> Iterator[Watch]:
    with watching() as watch:
        yield watch


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer() as issuer:
        yield issuer
