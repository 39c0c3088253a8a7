"""What outages are told with."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from secretsource.testing import TickingClock


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return file


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()
