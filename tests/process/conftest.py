from __future__ import annotations

from collections.abc import Iterator

import pytest

from secretsource import ClientCredentials, TokenSource
from secretsource.testing import FakeIssuer

from ..stores import CLIENT, A


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer(lifetime=100) as issuer:
        issuer.add_client(CLIENT, A)
        yield issuer


@pytest.fixture
def source(issuer: FakeIssuer) -> TokenSource:
    return TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url)
