"""The whole way, from a file to a token, at servers that we did not write, and at FakeIssuer."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest

from secretsource import (
    ConfigurationError,
    CredentialsRejected,
    IssuerUnavailable,
    Token,
    TokenRequestRefused,
    TokenSource,
)
from secretsource.cli import main
from secretsource.testing import FakeIssuer, secret_file

from .conftest import SCOPES, Server
from .tls import Tls

NEW = "not-a-real-secret-after-the-change"
DIFFICULT = "not-a-real-secret 100%+a:b/~"


@pytest.fixture(params=["openiddict_like", "authlib_issuer", "oidc_provider"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


def kept(tmp_path: Path, server: Server, secret: str, **more: str) -> str:
    return secret_file(tmp_path / "pos", server.client_id, secret, **more)


@pytest.mark.parametrize("method", [None, "client_secret_basic", "client_secret_post"])
def test_a_token_comes_by_discovery_and_by_each_method(server: Server, tmp_path: Path, method: str | None) -> None:
    reference = kept(tmp_path, server, server.client_secret, issuer=server.issuer)
    with TokenSource(reference, issuer=server.issuer, auth_method=method, scope=SCOPES, timeout=30) as source:
        token = source.token()
        assert token.access_token
        assert 0 < token.expires_in <= 3600
        assert source.token() is token


def test_a_token_comes_without_discovery(server: Server, tmp_path: Path) -> None:
    reference = kept(tmp_path, server, server.client_secret)
    with TokenSource(reference, token_url=server.token_url, timeout=30) as source:
        assert source.token().access_token


def test_a_secret_with_special_characters_is_understood(server: Server, tmp_path: Path) -> None:
    server.set_secret(DIFFICULT)
    reference = kept(tmp_path, server, DIFFICULT)
    with TokenSource(reference, issuer=server.issuer, timeout=30) as source:
        assert source.token().access_token


def test_a_wrong_secret_is_rejected_and_found_when_it_is_repaired(server: Server, tmp_path: Path) -> None:
    reference = kept(tmp_path, server, "not-the-right-secret")
    with TokenSource(reference, issuer=server.issuer, timeout=30) as source:
        with pytest.raises(CredentialsRejected) as caught:
            source.token()
        assert (caught.value.status, caught.value.error) == (401, "invalid_client")
        kept(tmp_path, server, server.client_secret)
        assert source.token().access_token


def test_tasks_and_threads_share_one_token(server: Server, tmp_path: Path) -> None:
    reference = kept(tmp_path, server, server.client_secret)
    tokens: list[Token] = []
    with TokenSource(reference, issuer=server.issuer, timeout=30) as source:
        threads = [threading.Thread(target=lambda: tokens.append(source.token())) for _ in range(16)]
        for thread in threads:
            thread.start()

        async def tasks() -> list[Token]:
            return list(await asyncio.gather(*(source.atoken() for _ in range(50))))

        tokens += asyncio.run(tasks())
        for thread in threads:
            thread.join()
    assert len(set(map(id, tokens))) == 1


@pytest.mark.parametrize("store_first", [True, False], ids=["the file first", "the server first"])
def test_a_change_of_the_secret_fails_no_call(server: Server, tmp_path: Path, store_first: bool) -> None:
    server.set_lifetime(1)
    old = server.client_secret
    reference = kept(tmp_path, server, old)
    with TokenSource(reference, issuer=server.issuer, timeout=30) as source:
        assert source.token().access_token
        if store_first:
            kept(tmp_path, server, NEW)  # and not yet at the server
            assert source.token(force=True).access_token
            server.set_secret(NEW)
        else:
            kept(tmp_path, server, old, client_secret_pending=NEW)
            server.set_secret(NEW)
        for _ in range(3):
            assert source.token(force=True).access_token


def test_a_token_is_renewed_before_it_ends(server: Server, tmp_path: Path) -> None:
    server.set_lifetime(2)
    reference = kept(tmp_path, server, server.client_secret)
    seen: set[str] = set()
    with TokenSource(reference, issuer=server.issuer, timeout=30) as source:
        end = time.monotonic() + 20
        while len(seen) < 3 and time.monotonic() < end:
            seen.add(source.token().access_token)
            time.sleep(0.02)
    assert len(seen) == 3


def test_a_document_bound_elsewhere_is_sent_nowhere(server: Server, tmp_path: Path) -> None:
    reference = kept(tmp_path, server, server.client_secret, issuer="https://staging.example.com/")
    with (
        TokenSource(reference, issuer=server.issuer, timeout=30) as source,
        pytest.raises(ConfigurationError, match=r"bound to the issuer 'https://staging\.example\.com/'"),
    ):
        source.token()


def test_check_walks_all_the_way(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = kept(tmp_path, server, server.client_secret, issuer=server.issuer)
    code = main(["check", "--credentials", reference, "--issuer", server.issuer, "--timeout", "30", "--json"])
    shown = capsys.readouterr().out
    assert code == 0, shown
    assert [step["status"] for step in json.loads(shown)["steps"]].count("ok") >= 8
    assert server.client_secret not in shown


def test_a_scope_that_the_client_may_not_have_is_refused_by_who_refuses_it(tmp_path: Path) -> None:
    with FakeIssuer() as issuer:
        issuer.add_client("pos", "not-a-real-secret", scopes=SCOPES)
        reference = secret_file(tmp_path / "pos", "pos", "not-a-real-secret")
        with TokenSource(reference, issuer=issuer.url) as source, pytest.raises(TokenRequestRefused) as caught:
            source.token(scope="orders.write")
    assert caught.value.error == "invalid_scope"


def test_a_server_with_a_good_certificate_gives_a_token(tls: Tls, tmp_path: Path) -> None:
    with FakeIssuer(ssl_context=tls.good) as issuer:
        issuer.add_client("pos", "not-a-real-secret")
        reference = secret_file(tmp_path / "pos", "pos", "not-a-real-secret")
        with TokenSource(reference, issuer=issuer.url, ca_file=tls.ca_file) as source:
            assert source.token().access_token


@pytest.mark.parametrize("fault", ["wrong_host", "expired", "other_authority", "tls_1_1"])
def test_a_server_with_a_bad_certificate_gets_nothing(tls: Tls, tmp_path: Path, fault: str) -> None:
    with FakeIssuer(ssl_context=getattr(tls, fault)) as issuer:
        issuer.add_client("pos", "not-a-real-secret")
        reference = secret_file(tmp_path / "pos", "pos", "not-a-real-secret")
        with (
            TokenSource(reference, token_url=issuer.token_url, ca_file=tls.ca_file) as source,
            pytest.raises(IssuerUnavailable) as caught,
        ):
            source.token()
        assert not caught.value.retryable
        assert issuer.requests == []
