"""A real OpenBao for rotations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trustme

from ..backends.openbao import OpenBao, Unavailable


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with ExitStack() as running:
        try:
            server = running.enter_context(OpenBao(tmp_path_factory.mktemp("openbao"), trustme.CA()))
        except Unavailable as why:
            pytest.skip(str(why))
        yield server
