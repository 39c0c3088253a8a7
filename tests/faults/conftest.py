"""The servers, once for all rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .bench import Bench, Certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.made_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def bench(certificates: Certificates) -> Iterator[Bench]:
    with Bench(certificates) as bench:
        yield bench
