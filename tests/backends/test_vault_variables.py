"""Vault: what a bare store takes from the environment, and that a configured one takes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from secretsource import SecretReference
from secretsource.backends import backend_for
from secretsource.backends.vault import BaoBackend, Jwt, StaticToken, VaultBackend, ViaAgent
from secretsource.backends.vault.variables import settings
from secretsource.errors import ConfigurationError

from .openbao import Corner, server_context
from .vaults import (
    CLIENT_SECRET,
    DATA,
    IN_A_BODY,
    NEW_TOKEN,
    TOKEN,
    Given,
    Scripted,
    answer,
    by_token,
    errors,
    failed,
    failure,
    secret_in,
)

pytestmark = pytest.mark.usefixtures("nothing_secret_is_logged")


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No variable of Vault's, and a home with nothing in it."""
    for name in list(os.environ):
        if name.startswith(("VAULT_", "BAO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


def last_token(server: Scripted) -> str | None:
    return server.tokens(DATA)[-1]


# --- a bare store


def test_a_bare_store_reads_by_the_variables(environ: pytest.MonkeyPatch, corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", CLIENT_SECRET)
    environ.setenv("VAULT_ADDR", corner.server.tls_address)
    environ.setenv("VAULT_CACERT", str(corner.server.ca_file))
    environ.setenv("VAULT_TOKEN", corner.token(corner.policy(f"{kv}/data/pos")))
    assert secret_in(VaultBackend(), f"vault://{kv}/pos") == CLIENT_SECRET


def test_the_variables_are_read_when_the_store_is_first_asked(environ: pytest.MonkeyPatch) -> None:
    backend = VaultBackend()
    assert "by the environment" in repr(backend)
    with Scripted() as server:
        environ.setenv("VAULT_ADDR", server.address)
        environ.setenv("VAULT_TOKEN", TOKEN)
        assert secret_in(backend) == CLIENT_SECRET


def test_an_exchanged_token_variable_is_read_after_a_refusal(environ: pytest.MonkeyPatch) -> None:
    with Scripted() as server:
        environ.setenv("VAULT_ADDR", server.address)
        environ.setenv("VAULT_TOKEN", TOKEN)
        backend = VaultBackend()
        secret_in(backend)
        environ.setenv("VAULT_TOKEN", NEW_TOKEN)
        good = server.script[DATA]
        server.script[DATA] = [errors(403), good]  # type: ignore[list-item]
        assert secret_in(backend) == CLIENT_SECRET
        assert server.tokens(DATA) == [TOKEN, TOKEN, NEW_TOKEN]


def test_a_namespace_and_a_time_come_from_the_variables(environ: pytest.MonkeyPatch) -> None:
    with Scripted() as server:
        environ.setenv("VAULT_ADDR", server.address)
        environ.setenv("VAULT_TOKEN", TOKEN)
        environ.setenv("VAULT_NAMESPACE", "team/a")
        assert secret_in(VaultBackend()) == CLIENT_SECRET
        assert server.requests[0].headers["x-vault-namespace"] == "team/a"


def test_the_bao_store_takes_each_of_its_own_variables_first(environ: pytest.MonkeyPatch) -> None:
    with Scripted() as vault, Scripted() as openbao:
        environ.setenv("VAULT_ADDR", vault.address)
        environ.setenv("VAULT_TOKEN", TOKEN)
        assert secret_in(BaoBackend(), "bao://kv/prod/pos") == CLIENT_SECRET
        assert last_token(vault) == TOKEN
        environ.setenv("BAO_ADDR", openbao.address)
        environ.setenv("BAO_TOKEN", NEW_TOKEN)
        assert secret_in(BaoBackend(), "bao://kv/prod/pos") == CLIENT_SECRET
        assert last_token(openbao) == NEW_TOKEN
        assert secret_in(VaultBackend()) == CLIENT_SECRET
        assert (len(vault.tokens(DATA)), len(openbao.tokens(DATA))) == (2, 1)


def test_the_bare_store_of_each_name_is_built_once() -> None:
    for name in ("vault", "bao"):
        reference = SecretReference.parse(f"{name}://kv/prod/pos")
        assert backend_for(reference) is backend_for(reference)
        assert isinstance(backend_for(reference), VaultBackend)


def test_what_is_given_in_code_wins_over_the_variables(environ: pytest.MonkeyPatch) -> None:
    with Scripted() as server:
        environ.setenv("VAULT_ADDR", server.address)
        environ.setenv("VAULT_TOKEN", TOKEN)
        environ.setenv("VAULT_NAMESPACE", "of-the-shell")
        environ.setenv("VAULT_CLIENT_TIMEOUT", "60s")
        assert secret_in(VaultBackend(namespace="of-the-code", timeout=9)) == CLIENT_SECRET
        assert server.requests[0].headers["x-vault-namespace"] == "of-the-code"


# --- what each variable means


@pytest.fixture
def found(environ: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """The settings by these variables, beside an address and a token."""

    def found(*prefixes: str, **variables: str) -> dict[str, Any]:
        for name, value in {"VAULT_ADDR": "https://vault.test", "VAULT_TOKEN": TOKEN, **variables}.items():
            environ.setenv(name, value)
        return settings(prefixes or ("VAULT",))

    return found


Found = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(
    ("variable", "value", "name", "means"),
    [
        ("CACERT", "/ca.pem", "ca_file", "/ca.pem"),
        ("CAPATH", "/cas", "ca_file", "/cas"),
        ("CLIENT_CERT", "/c.pem", "client_cert", "/c.pem"),
        ("NAMESPACE", "team", "namespace", "team"),
        ("HTTP_PROXY", "http://proxy.test:3128", "proxy", "http://proxy.test:3128"),
        ("CLIENT_TIMEOUT", "30", "timeout", 30.0),
        ("CLIENT_TIMEOUT", "30s", "timeout", 30.0),
        ("CLIENT_TIMEOUT", "2m", "timeout", 120.0),
        ("CLIENT_TIMEOUT", "1h", "timeout", 3600.0),
        ("CLIENT_TIMEOUT", "1500ms", "timeout", 1.5),
        ("AGENT_ADDR", "http://127.0.0.1:8100", "address", "http://127.0.0.1:8100"),
        ("PROXY_ADDR", "http://127.0.0.1:8100", "address", "http://127.0.0.1:8100"),
        ("SKIP_VERIFY", "false", "address", "https://vault.test"),
        ("SKIP_VERIFY", "0", "address", "https://vault.test"),
    ],
)
def test_a_variable_is_obeyed(found: Found, variable: str, value: str, name: str, means: object) -> None:
    assert found(**{f"VAULT_{variable}": value})[name] == means


def test_a_certificate_and_its_key_go_together(found: Found) -> None:
    assert found(VAULT_CLIENT_CERT="/c.pem", VAULT_CLIENT_KEY="/k.pem")["client_cert"] == ("/c.pem", "/k.pem")


def test_what_is_not_set_is_left_to_the_store(found: Found) -> None:
    assert set(found()) == {"address", "auth"}


@pytest.mark.parametrize("text", ["soon", "1d", "-3", "0", "s", "1h30m", "nan"])
def test_a_time_that_is_none_names_the_variable(found: Found, text: str) -> None:
    failed(ConfigurationError, lambda: found(VAULT_CLIENT_TIMEOUT=text), says="VAULT_CLIENT_TIMEOUT")


@pytest.mark.parametrize("value", ["1", "true", "TRUE", "yes", "x"])
@pytest.mark.parametrize("variable", ["VAULT_SKIP_VERIFY", "BAO_SKIP_VERIFY"])
def test_a_verification_that_is_switched_off_is_an_error(found: Found, variable: str, value: str) -> None:
    failed(ConfigurationError, lambda: found("BAO", "VAULT", **{variable: value}), says=variable, hint="BAO_CACERT")


def test_another_server_name_is_an_error(found: Found) -> None:
    failed(
        ConfigurationError, lambda: found(VAULT_TLS_SERVER_NAME="x"), says="VAULT_TLS_SERVER_NAME", hint="VAULT_ADDR"
    )


def test_without_an_address_the_variables_are_named() -> None:
    failed(ConfigurationError, lambda: settings(("BAO", "VAULT")), says="BAO_ADDR or VAULT_ADDR is not set")


def test_an_agent_needs_no_token_and_gets_none_it_was_not_given(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("VAULT_AGENT_ADDR", "http://127.0.0.1:8100")
    assert isinstance(settings(("VAULT",))["auth"], ViaAgent)
    environ.setenv("VAULT_TOKEN", TOKEN)
    assert isinstance(settings(("VAULT",))["auth"], StaticToken)


def test_a_token_that_a_person_left_is_offered_and_not_taken(environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Scripted() as server:
        environ.setenv("VAULT_ADDR", server.address)
        error = failure(ConfigurationError, VaultBackend(), says="VAULT_TOKEN is not set")
        assert "TokenFile" not in str(error)
        (tmp_path / ".vault-token").write_text(TOKEN)
        failure(ConfigurationError, VaultBackend(), hint=f"auth=TokenFile('{tmp_path}/.vault-token')")
        assert server.requests == []


def test_plain_http_in_the_variable_is_refused_off_loopback(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("VAULT_ADDR", "http://vault.test:8200")
    environ.setenv("VAULT_TOKEN", TOKEN)
    failure(ConfigurationError, VaultBackend(), says="plain http")


def test_an_address_with_a_password_in_it_is_not_repeated(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("VAULT_ADDR", f"https://user:{IN_A_BODY}@vault.test")
    environ.setenv("VAULT_TOKEN", TOKEN)
    with pytest.raises(ConfigurationError, match="not repeated here") as caught:
        secret_in(VaultBackend())
    assert IN_A_BODY not in f"{caught.value} {vars(caught.value)}"


def test_a_login_without_an_address_is_an_error() -> None:
    failed(ConfigurationError, lambda: VaultBackend(auth=ViaAgent()), says="without an address")


# --- a configured store


def test_a_configured_store_takes_nothing_from_the_environment(environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    for name, value in {
        "ADDR": "https://elsewhere.test",
        "TOKEN": NEW_TOKEN,
        "NAMESPACE": "elsewhere",
        "CACERT": str(tmp_path / "none.pem"),
        "CAPATH": str(tmp_path / "none"),
        "CLIENT_CERT": str(tmp_path / "none"),
        "CLIENT_TIMEOUT": "nonsense",
        "SKIP_VERIFY": "true",
        "TLS_SERVER_NAME": "elsewhere.test",
        "HTTP_PROXY": "http://elsewhere.test:1",
        "AGENT_ADDR": "http://127.0.0.1:1",
    }.items():
        environ.setenv(f"VAULT_{name}", value)
        environ.setenv(f"BAO_{name}", value)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        environ.setenv(name, "http://127.0.0.1:1")
    environ.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    (tmp_path / ".vault-token").write_text(NEW_TOKEN)
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login pos password {NEW_TOKEN}\n")
    with Scripted(ssl_context=server_context(authority)) as server:
        assert secret_in(by_token(server, ca_file=tmp_path / "ca.pem")) == CLIENT_SECRET
        (request,) = server.requests
    assert request.headers["x-vault-token"] == TOKEN
    assert not {"x-vault-namespace", "authorization"} & set(request.headers)


def test_a_configured_store_without_a_token_sends_none_that_lies_about(
    environ: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environ.setenv("VAULT_TOKEN", NEW_TOKEN)
    (tmp_path / ".vault-token").write_text(NEW_TOKEN)
    with Scripted() as server:
        assert secret_in(server.backend(ViaAgent())) == CLIENT_SECRET
        assert server.tokens(DATA) == [None]


def test_a_login_that_sends_no_token_sends_none_that_lies_about(environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environ.setenv("VAULT_TOKEN", NEW_TOKEN)
    (tmp_path / ".vault-token").write_text(NEW_TOKEN)
    made = answer({"auth": {"client_token": TOKEN, "lease_duration": 60}})
    with Scripted({"/v1/auth/jwt/login": made}) as server:
        backend = server.backend(Jwt("pos", "given:jwt"), stores={"given": Given("not-a-real-secret-jwt")})
        assert secret_in(backend) == CLIENT_SECRET
        assert server.tokens("/v1/auth/jwt/login") == [None]
