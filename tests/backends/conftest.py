"""Fixtures for the Vault backend: a real OpenBao, and a watch over everything that is logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from . import vaults
from .openbao import Corner, OpenBao, Unavailable


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with ExitStack() as running:
        try:
            server = running.enter_context(OpenBao(tmp_path_factory.mktemp("openbao"), trustme.CA()))
        except Unavailable as why:
            pytest.skip(str(why))
        yield server


@pytest.fixture
def corner(openbao: OpenBao, tmp_path: Path, nothing_secret_is_logged: None) -> Corner:
    """The test's own place on the real server."""
    return openbao.corner(tmp_path, vaults.SECRETS)


@pytest.fixture
def nothing_secret_is_logged() -> Iterator[None]:
    """At its end, the test has logged nothing secret at any level of any logger."""
    record, root = vaults.Record(), logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", *root.manager.loggerDict)}
    for name in levels:
        logging.getLogger(name).setLevel(1)
    root.addHandler(record)
    try:
        yield
    finally:
        root.removeHandler(record)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    secrets = vaults.known_secrets()
    vaults.SECRETS.clear()
    assert record.shows(secrets) == []
