"""The token request at servers that we did not write, and at FakeIssuer, with a plain httpx.

Where they differ is in the tests whose names say "differ".
"""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from urllib.parse import quote, quote_plus

import httpx
import pytest

from secretsource.testing import FakeIssuer, Fault

from .authlib_server import AuthlibServer
from .conftest import Server
from .oidc_provider import OidcProvider
from .tls import Tls

Ask = Callable[..., httpx.Response]

_GRANT = {"grant_type": "client_credentials"}
_DIFFICULT = "not-a-real-secret 100%+a:b/~"


@pytest.fixture(params=["openiddict_like", "authlib_issuer", "oidc_provider"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


def _basic(server: Server, secret: str | None = None, *, plus: bool = False) -> dict[str, str]:
    encode = quote_plus if plus else lambda text: quote(text, safe="")
    pair = f"{encode(server.client_id)}:{encode(server.client_secret if secret is None else secret)}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _by_basic(client: httpx.Client, server: Server, secret: str | None = None, **form: str) -> httpx.Response:
    return client.post(server.token_url, data={**_GRANT, **form}, headers=_basic(server, secret))


def _by_post(client: httpx.Client, server: Server, secret: str | None = None) -> httpx.Response:
    secret = server.client_secret if secret is None else secret
    return client.post(server.token_url, data={**_GRANT, "client_id": server.client_id, "client_secret": secret})


def test_metadata_names_the_issuer_and_the_token_endpoint(server: Server, client: httpx.Client) -> None:
    metadata = client.get(f"{server.issuer.rstrip('/')}/.well-known/openid-configuration").json()
    assert metadata["issuer"] == server.issuer
    assert metadata["token_endpoint"] == server.token_url
    assert "client_secret_basic" in metadata["token_endpoint_auth_methods_supported"]


def test_basic_gets_a_bearer_token(server: Server, client: httpx.Client) -> None:
    answer = _by_basic(client, server, scope="orders.read")
    assert answer.status_code == 200
    assert answer.json()["token_type"] == "Bearer"
    assert answer.json()["expires_in"] == 3600
    assert answer.json().get("scope", "orders.read") == "orders.read"
    assert answer.headers["cache-control"] == "no-store"


def test_post_gets_a_bearer_token(server: Server, client: httpx.Client) -> None:
    assert _by_post(client, server).json()["token_type"] == "Bearer"


def test_no_scope_is_needed(server: Server, client: httpx.Client) -> None:
    assert _by_basic(client, server).status_code == 200


def test_each_token_is_another_one(server: Server, client: httpx.Client) -> None:
    assert len({_by_basic(client, server).json()["access_token"] for _ in range(3)}) == 3


@pytest.mark.parametrize("ask", [_by_basic, _by_post])
def test_a_difficult_secret_arrives_percent_encoded(server: Server, client: httpx.Client, ask: Ask) -> None:
    server.set_secret(_DIFFICULT)
    assert ask(client, server).status_code == 200


def test_servers_differ_about_a_secret_outside_ascii(server: Server, client: httpx.Client) -> None:
    server.set_secret("not-a-real-secret-ü")
    answer = _by_basic(client, server)
    if isinstance(server, OidcProvider):
        assert answer.status_code == 400  # RFC 6749 appendix A.2 allows ASCII only
    else:
        assert answer.status_code == 200


def test_servers_differ_in_taking_a_plus_for_a_space(server: Server, client: httpx.Client) -> None:
    server.set_secret("not a real secret")
    answer = client.post(server.token_url, data=_GRANT, headers=_basic(server, plus=True))
    assert answer.status_code == (
        401 if isinstance(server, AuthlibServer) else 200
    )  # it decodes only what has a percent sign


@pytest.mark.parametrize("ask", [_by_basic, _by_post])
def test_a_wrong_secret_is_invalid_client(server: Server, client: httpx.Client, ask: Ask) -> None:
    answer = ask(client, server, "not-a-real-secret-either")
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_a_wrong_basic_secret_is_challenged(server: Server, client: httpx.Client) -> None:
    answer = _by_basic(client, server, "not-a-real-secret-either")
    assert answer.headers["www-authenticate"].lower().startswith("basic")


def test_a_changed_secret_holds_at_once_and_the_old_one_no_longer(server: Server, client: httpx.Client) -> None:
    old = server.client_secret
    server.set_secret("not-a-real-second-secret")
    assert _by_basic(client, server).status_code == 200
    assert _by_basic(client, server, old).status_code == 401


def test_a_lifetime_may_be_changed(server: Server, client: httpx.Client) -> None:
    server.set_lifetime(2)
    assert _by_basic(client, server).json()["expires_in"] == 2


def test_an_unknown_grant_is_refused(server: Server, client: httpx.Client) -> None:
    answer = client.post(server.token_url, data={"grant_type": "no-such-grant"}, headers=_basic(server))
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")


def test_servers_differ_about_a_repeated_parameter(server: Server, client: httpx.Client) -> None:
    headers = {**_basic(server), "Content-Type": "application/x-www-form-urlencoded"}
    body = "grant_type=client_credentials&scope=orders.read&scope=orders.read"
    answer = client.post(server.token_url, content=body, headers=headers)
    if isinstance(server, AuthlibServer):
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_servers_differ_about_an_unknown_scope(server: Server, client: httpx.Client) -> None:
    answer = _by_basic(client, server, scope="orders.read no.such.scope")
    if not isinstance(server, AuthlibServer | OidcProvider):
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")
    else:  # left out, and the answer says what was granted
        assert (answer.status_code, answer.json()["scope"]) == (200, "orders.read")


def test_a_raw_basic_header_with_a_percent_in_it_is_refused_or_misread(server: Server, client: httpx.Client) -> None:
    server.set_secret("not-a-real-secret%41")
    raw = base64.b64encode(f"{server.client_id}:{server.client_secret}".encode()).decode()
    answer = client.post(server.token_url, data=_GRANT, headers={"Authorization": f"Basic {raw}"})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_a_good_certificate_is_accepted(tls: Tls) -> None:
    context = ssl.create_default_context(cafile=str(tls.ca_file))
    with FakeIssuer(ssl_context=tls.good) as issuer, httpx.Client(verify=context, trust_env=False) as client:
        assert issuer.url.startswith("https://")
        assert client.get(f"{issuer.url}.well-known/openid-configuration").json()["issuer"] == issuer.url


@pytest.mark.parametrize("fault", ["wrong_host", "expired", "other_authority", "tls_1_1"])
def test_every_other_certificate_is_refused_before_a_request_leaves(tls: Tls, fault: str) -> None:
    context = ssl.create_default_context(cafile=str(tls.ca_file))
    with (
        FakeIssuer(ssl_context=getattr(tls, fault)) as issuer,
        httpx.Client(verify=context, trust_env=False) as client,
    ):
        with pytest.raises(httpx.ConnectError, match="VERSION" if fault == "tls_1_1" else "verify failed"):
            client.get(issuer.url)
        assert issuer.requests == []


def test_an_issuer_with_tls_stops_also_while_a_client_never_shakes_hands(tls: Tls) -> None:
    before = set(threading.enumerate())
    with FakeIssuer(ssl_context=tls.good) as issuer:
        url = httpx.URL(issuer.url)
        silent = socket.create_connection((url.host, url.port or 0), timeout=30)
    with silent, suppress(ConnectionResetError):  # reset, if it was not yet accepted
        assert silent.recv(1) == b""
    assert set(threading.enumerate()) <= before


def test_faults_work_over_tls_too(tls: Tls) -> None:
    context = ssl.create_default_context(cafile=str(tls.ca_file))
    with FakeIssuer(ssl_context=tls.good) as issuer, httpx.Client(verify=context, trust_env=False) as client:
        url = f"{issuer.url}.well-known/openid-configuration"
        for fault in (Fault(reset=True), Fault(cut_after=5)):
            issuer.fail(fault, times=1, path="discovery")
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                client.get(url)
        assert client.get(url).status_code == 200
