"""secretsource.toml files of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from secretsource.config import Configuration, loaded, located
from secretsource.errors import ConfigurationError

__all__ = ["configuration", "refused", "written"]


def written(folder: Path, text: str, name: str = "secretsource.toml") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o644)
    return path


def configuration(folder: Path, text: str) -> Configuration:
    return loaded(located(written(folder, text)))


def refused(folder: Path, text: str, client: str | None = "pos", environment: str | None = None) -> str:
    """The text of the error about this file, or about this client of it."""
    path = written(folder, text)

    def read() -> None:
        found = loaded(located(path))
        if client is not None:
            found.settings(client, environment).arguments()

    with pytest.raises(ConfigurationError) as caught:
        read()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)
