"""Fixtures: `authlib_issuer`, `oidc_provider` and `openiddict_like` (all with the same surface), and `tls`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from secretsource.testing import FakeIssuer

from .authlib_server import AuthlibServer
from .oidc_provider import OidcProvider, Unavailable
from .tls import Tls

CLIENT_ID = "pos-client"
SECRET = "not-a-real-secret"
SCOPES = ("orders.read",)


class Server(Protocol):
    """An authorization server with one client, which may have `orders.read`."""

    @property
    def issuer(self) -> str: ...
    @property
    def token_url(self) -> str: ...
    @property
    def client_id(self) -> str: ...
    @property
    def client_secret(self) -> str: ...
    def set_secret(self, client_secret: str) -> None: ...
    def set_lifetime(self, seconds: int) -> None: ...


class OpenIddictLike:
    """A FakeIssuer with the surface of the real ones, to be compared with them."""

    def __init__(self, issuer: FakeIssuer) -> None:
        self._issuer = issuer
        self.client_id = CLIENT_ID
        self.client_secret = SECRET
        issuer.add_client(CLIENT_ID, SECRET, scopes=SCOPES)

    @property
    def issuer(self) -> str:
        return self._issuer.url

    @property
    def token_url(self) -> str:
        return self._issuer.token_url

    def set_secret(self, client_secret: str) -> None:
        self.client_secret = client_secret
        self._issuer.set_secret(CLIENT_ID, client_secret)

    def set_lifetime(self, seconds: int) -> None:
        self._issuer.lifetime = seconds


@pytest.fixture
def openiddict_like() -> Iterator[OpenIddictLike]:
    with FakeIssuer() as issuer:
        yield OpenIddictLike(issuer)


@pytest.fixture
def authlib_issuer() -> Iterator[AuthlibServer]:
    with AuthlibServer(client_id=CLIENT_ID, client_secret=SECRET, scopes=SCOPES) as server:
        yield server


@pytest.fixture(scope="session")
def _oidc_provider() -> Iterator[OidcProvider]:
    with ExitStack() as running:
        try:
            server = running.enter_context(OidcProvider(client_id=CLIENT_ID, client_secret=SECRET, scopes=SCOPES))
        except Unavailable as why:
            pytest.skip(str(why))
        yield server


@pytest.fixture
def oidc_provider(_oidc_provider: OidcProvider) -> OidcProvider:
    """One process for all tests, with the secret and the lifetime set back for each."""
    _oidc_provider.set_secret(SECRET)
    _oidc_provider.set_lifetime(3600)
    return _oidc_provider


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls.made(tmp_path_factory.mktemp("tls"))
