"""pytest fixtures, for `pytest_plugins = ["secretsource.testing.fixtures"]` in a conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from .clock import TickingClock
from .files import secret_file as write_secret_file
from .issuer import FakeIssuer

__all__ = ["SecretFile", "fake_issuer", "ticking_clock", "secret_file"]


class SecretFile(Protocol):
    """What the fixture `secret_file` is."""

    def __call__(self, client_id: str, secret: str, **extra: Any) -> str: ...


@pytest.fixture
def fake_issuer() -> Iterator[FakeIssuer]:
    """A FakeIssuer that listens, with no client as yet."""
    with FakeIssuer() as issuer:
        yield issuer


@pytest.fixture
def ticking_clock() -> TickingClock:
    """A clock that stands still until the test moves it."""
    return TickingClock()


@pytest.fixture
def secret_file(tmp_path: Path) -> SecretFile:
    """Writes `secret_file(client_id, secret, **extra)` into a folder of the test, and returns the reference."""

    def write(client_id: str, secret: str, **extra: Any) -> str:
        return write_secret_file(tmp_path / "secrets", client_id, secret, **extra)

    return write
