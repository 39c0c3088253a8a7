"""Vault with a source above it: what serves on when Vault does not, rings of stores, and tokens over a change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from secretsource import CredentialsSource, Document, SecretReference, TokenSource
from secretsource.backends import Backend
from secretsource.backends.vault import AppRole, Jwt, StaticToken, VaultBackend
from secretsource.backends.vault import visit as visit_module
from secretsource.errors import (
    AccessDenied,
    BackendUnavailable,
    ConfigurationError,
    MalformedSecret,
    SecretNotFound,
    SecretSourceError,
)
from secretsource.events import CredentialsChanged, CredentialsDropped, CredentialsRecovered, CredentialsStale
from secretsource.testing import Answer, FakeIssuer, Fault, TickingClock

from ..stores import Events, eventually
from .openbao import Corner
from .vaults import (
    CLIENT_SECRET,
    DATA,
    LOGIN,
    REFERENCE,
    SECRET_ID,
    TOKEN,
    Given,
    Scripted,
    answer,
    assert_shows_nothing,
    errors,
    failed,
    failure,
    login,
    reprs_of,
    secret,
    secret_in,
)

pytestmark = pytest.mark.usefixtures("nothing_secret_is_logged")

OTHER, THIRD = (f"not-a-real-secret-{name}" for name in ("of-later", "of-even-later"))
LONGER_THAN_THE_TTL = 400.0
METADATA = {"version": 1, "deletion_time": "2026-01-02T03:04:05Z", "destroyed": False}

KEPT: dict[str, tuple[Answer, type[SecretSourceError]]] = {
    **{f"{status}": (errors(status), BackendUnavailable) for status in (412, 429, 472, 473, 500, 502, 503, 504)},
    "sealed": (errors(503, "Vault is sealed"), BackendUnavailable),
    "reset": (errors(200, fault=Fault(reset=True)), BackendUnavailable),
    "cut": (errors(200, fault=Fault(cut_after=5)), BackendUnavailable),
    "redirect": (errors(307, Location="https://elsewhere.test"), ConfigurationError),
    "400": (errors(400), ConfigurationError),
    "405": (errors(405), ConfigurationError),
    "501": (errors(501), ConfigurationError),
    **{
        f"{status} of a proxy": (Answer(status, {"Content-Type": "text/html"}, b"<html>"), BackendUnavailable)
        for status in (403, 404)
    },
    "no JSON": (Answer(200, {}, b"{"), MalformedSecret),
    "no data": (answer({"data": {}}), MalformedSecret),
    "204": (Answer(204), MalformedSecret),
    "a field is missing": (secret(client_secret=""), MalformedSecret),
    "a field of another type": (
        answer({"data": {"data": {"client_id": "pos", "client_secret": 7}, "metadata": {"version": 2}}}),
        MalformedSecret,
    ),
}
DROPPED: dict[str, tuple[dict[str, Any], type[SecretSourceError]]] = {
    "403": ({DATA: errors(403)}, AccessDenied),
    "404": ({DATA: errors(404)}, SecretNotFound),
    "deleted": ({DATA: answer({"data": {"data": None, "metadata": METADATA}}, 404)}, SecretNotFound),
    "destroyed": (
        {DATA: answer({"data": {"data": None, "metadata": {**METADATA, "destroyed": True}}}, 404)},
        SecretNotFound,
    ),
    **{
        f"{status} at the login": ({DATA: errors(403), LOGIN: errors(status)}, AccessDenied)
        for status in (400, 403, 404)
    },
}


class Watched:
    """A source above a scripted Vault, by a clock of the test."""

    def __init__(self, server: Scripted) -> None:
        self.server, self.clock, self.events = server, TickingClock(), Events()
        backend = server.backend(AppRole("role", "given:id"), stores={"given": Given(SECRET_ID)})
        self.source = CredentialsSource(REFERENCE, stores={"vault": backend}, on_event=self.events, clock=self.clock)

    def secret(self) -> str:
        return self.source.current().client_secret.reveal()

    def fails(self, kind: type[SecretSourceError]) -> None:
        with pytest.raises(kind) as caught:
            self.source.current()
        assert type(caught.value) is kind
        assert_shows_nothing(caught.value)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit_module, "WAITS_BETWEEN_ATTEMPTS", (0.002, 0.002))


@pytest.mark.parametrize("name", KEPT)
def test_the_last_good_credentials_serve_for_a_day_where_vault_does_not(name: str) -> None:
    bad, kind = KEPT[name]
    with Scripted() as server:
        watched = Watched(server)
        assert watched.secret() == CLIENT_SECRET
        server.script[DATA] = bad
        for _ in range(3):
            watched.clock.tick(LONGER_THAN_THE_TTL)
            assert watched.secret() == CLIENT_SECRET
        eventually(lambda: watched.events.of(CredentialsStale))
        (first, *_) = watched.events.of(CredentialsStale)
        assert isinstance(first, CredentialsStale)
        assert first.error == kind.__name__
        watched.clock.tick(86_400)
        watched.fails(kind)
        eventually(lambda: len(watched.events.of(CredentialsDropped)) == 1)
        server.script[DATA] = secret(OTHER, version=2)
        watched.clock.tick(2)
        assert watched.secret() == OTHER


@pytest.mark.parametrize("name", DROPPED)
def test_what_is_denied_or_gone_serves_for_a_short_grace_only(name: str) -> None:
    bad, kind = DROPPED[name]
    with Scripted() as server:
        watched, good = Watched(server), dict(server.script)
        assert watched.secret() == CLIENT_SECRET
        server.script.update(bad)
        watched.clock.tick(LONGER_THAN_THE_TTL)
        assert watched.secret() == CLIENT_SECRET  # denied for the first time
        watched.clock.tick(299)
        assert watched.secret() == CLIENT_SECRET
        watched.clock.tick(2)
        watched.fails(kind)
        eventually(lambda: len(watched.events.of(CredentialsDropped)) == 1)
        server.script.update(good)
        watched.clock.tick(2)
        assert watched.secret() == CLIENT_SECRET


def test_a_denial_that_passes_within_the_grace_is_recovered_from() -> None:
    with Scripted() as server:
        watched = Watched(server)
        watched.secret()
        server.script[DATA] = errors(403)
        watched.clock.tick(LONGER_THAN_THE_TTL)
        watched.secret()
        server.script[DATA] = secret(OTHER, version=2)
        watched.clock.tick(2)
        assert watched.secret() == OTHER
        eventually(lambda: watched.events.of(CredentialsChanged))
        assert watched.events.of(CredentialsRecovered)
        (changed,) = watched.events.of(CredentialsChanged)
        assert isinstance(changed, CredentialsChanged)
        assert (changed.old_version, changed.new_version) == ("1", "2")


def test_a_vault_that_is_not_reached_leaves_the_credentials() -> None:
    with Scripted() as server:
        watched = Watched(server)
        watched.secret()
        with server.server.down():
            watched.clock.tick(LONGER_THAN_THE_TTL)
            assert watched.secret() == CLIENT_SECRET
        eventually(lambda: watched.events.names() == ["CredentialsStale"])


# --- rings


def with_secret_id_in(reference: str, stores: dict[str, Backend]) -> VaultBackend:
    return VaultBackend("http://127.0.0.1:1", auth=AppRole("role", reference), stores=stores)


def test_a_store_that_needs_itself_to_log_in_prints_the_ring() -> None:
    stores: dict[str, Backend] = {}
    stores["vault"] = with_secret_id_in("vault://kv/approle#secret_id", stores)
    error = failure(ConfigurationError, stores["vault"], hint="another store")
    assert "vault → vault" in error.message


@pytest.mark.parametrize("names", [("vault-a", "vault-b"), ("vault-a", "vault-b", "vault-c")], ids=len)
def test_a_ring_over_several_stores_is_printed(names: tuple[str, ...]) -> None:
    stores: dict[str, Backend] = {}
    for name, needed in zip(names, (*names[1:], names[0]), strict=True):
        stores[name] = with_secret_id_in(f"{needed}://kv/approle#secret_id", stores)
    for start in names:
        error = failure(ConfigurationError, stores[start], f"{start}://kv/pos", hint="another store")
        ring = names[names.index(start) :] + names[: names.index(start) + 1]
        assert " → ".join(ring) in error.message


def test_a_ring_further_on_is_found_as_well() -> None:
    stores: dict[str, Backend] = {}
    stores["vault-b"] = with_secret_id_in("vault-c://kv/approle#secret_id", stores)
    stores["vault-c"] = with_secret_id_in("vault-b://kv/approle#secret_id", stores)
    stores["vault-a"] = with_secret_id_in("vault-b://kv/approle#secret_id", stores)
    error = failure(ConfigurationError, stores["vault-a"], "vault-a://kv/pos", hint="another store")
    assert "vault-b → vault-c → vault-b" in error.message
    assert len(error.message) < 200


def test_a_ring_is_found_before_anything_is_written() -> None:
    stores: dict[str, Backend] = {}
    backend = stores["vault"] = with_secret_id_in("vault://kv/approle#secret_id", stores)
    assert isinstance(backend, VaultBackend)
    reference = SecretReference.parse("vault://kv/pos")
    failed(
        ConfigurationError, lambda: backend.write_whole(reference, {}, version=None, timeout=5), says="vault → vault"
    )


def test_two_stores_may_log_in_by_the_same_third_one() -> None:
    given = Given(SECRET_ID)
    with Scripted() as server:
        stores: dict[str, Backend] = {"given": given}
        stores["vault-b"] = server.backend(AppRole("role", "given:id"), stores=stores)
        backend = server.backend(AppRole("role", "vault-b://kv/prod/pos#client_secret"), stores=stores)
        assert secret_in(backend) == CLIENT_SECRET
        assert server.came(LOGIN) == 2


def test_a_secret_id_kept_in_another_vault_logs_in(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", CLIENT_SECRET)
    role = corner.role(corner.policy(f"{kv}/data/pos"))
    corner.put(f"{kv}/data/approle", {"data": {"secret_id": role.file.read_text()}})
    other = corner.by_token(corner.token(corner.policy(f"{kv}/data/approle", name=f"{corner.name}-approle")))
    login = AppRole(role.role_id, f"vault-b://{kv}/approle#secret_id", mount=role.mount)
    assert secret_in(corner.backend(login, stores={"vault-b": other}), f"vault://{kv}/pos") == CLIENT_SECRET


@pytest.mark.parametrize(
    ("failing", "kind"),
    [
        (BackendUnavailable("down", hint="wait"), BackendUnavailable),
        (SecretNotFound("gone", hint="look"), SecretNotFound),
        (AccessDenied("closed", hint="open"), AccessDenied),
    ],
)
def test_a_store_that_a_login_needs_and_that_fails_is_the_error(
    failing: SecretSourceError, kind: type[SecretSourceError]
) -> None:
    given = Given(SECRET_ID)
    given.text = failing
    with Scripted() as server:
        error = failure(kind, server.backend(AppRole("role", "given:id"), stores={"given": given}))
        assert error.message == failing.message
        assert server.requests == []


def test_a_store_that_a_login_needs_and_that_hangs_ends_in_time() -> None:
    class Hanging(Given):
        def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
            assert gate.wait(60)
            return super().read(reference, fresh=fresh, timeout=timeout)

    gate = threading.Event()
    with Scripted() as server:
        backend = server.backend(AppRole("role", "given:id"), stores={"given": Hanging(SECRET_ID)}, timeout=0.3)
        failure(BackendUnavailable, backend, says="no login to Vault", hint="where its login is kept")
        assert server.requests == []
        gate.set()


# --- tokens, end to end


class Shop:
    """An issuer, a secret in a real Vault, and a source of tokens over both."""

    def __init__(self, corner: Corner, issuer: FakeIssuer) -> None:
        self.corner, self.issuer, self.kv, self.events = corner, issuer, corner.kv(), Events()
        issuer.add_client("pos", CLIENT_SECRET)
        self.put(CLIENT_SECRET)
        role = corner.role(corner.policy(f"{self.kv}/data/pos"))
        self.source = TokenSource(
            f"vault://{self.kv}/pos",
            issuer=issuer.url,
            stores={"vault": corner.backend(role.login)},
            on_event=self.events,
        )

    def put(self, client_secret: str) -> None:
        self.corner.secret(self.kv, "pos", client_secret)

    def new_token(self) -> bool:
        return self.issuer.accepts(self.source.token(force=True).access_token)


def test_no_call_fails_where_the_secret_is_changed_in_vault_first(corner: Corner) -> None:
    with FakeIssuer() as issuer:
        shop = Shop(corner, issuer)
        with shop.source:
            assert shop.new_token()
            shop.put(OTHER)
            assert shop.new_token()
            issuer.set_secret("pos", OTHER)
            assert shop.new_token()
            assert shop.new_token()
        eventually(lambda: "CredentialsChanged" in shop.events.names())


def test_no_call_fails_where_the_secret_is_changed_in_vault_a_moment_later(corner: Corner) -> None:
    with FakeIssuer() as issuer:
        shop = Shop(corner, issuer)
        with shop.source:
            assert shop.new_token()
            issuer.set_secret("pos", OTHER)
            later = threading.Timer(0.2, shop.put, [OTHER])
            later.start()
            assert shop.new_token()
            later.join()
            issuer.set_secret("pos", THIRD)
            shop.put(THIRD)
            assert shop.new_token()


def test_tokens_go_on_while_vault_is_down() -> None:
    clock, events = TickingClock(), Events()
    with FakeIssuer(lifetime=60) as issuer, Scripted() as server:
        issuer.add_client("pos", CLIENT_SECRET)
        backend = server.backend(AppRole("role", "given:id"), stores={"given": Given(SECRET_ID)})
        stores = {"vault": backend}
        with TokenSource(REFERENCE, issuer=issuer.url, stores=stores, on_event=events, clock=clock) as source:
            tokens = {source.token().access_token}
            with server.server.down():
                for _ in range(3):
                    clock.tick(LONGER_THAN_THE_TTL)
                    tokens.add(source.token().access_token)
            assert len(tokens) == 4
            eventually(lambda: "CredentialsStale" in events.names())
            clock.tick(LONGER_THAN_THE_TTL)
            source.token()
            eventually(lambda: "CredentialsRecovered" in events.names())


def test_tokens_go_on_while_a_login_is_refused(corner: Corner) -> None:
    """Vault is up and its token has ended; the secret ID was destroyed."""
    with FakeIssuer() as issuer:
        shop = Shop(corner, issuer)
        with shop.source:
            assert shop.new_token()
            mount = f"{corner.name}-approle"
            corner.api("DELETE", f"auth/{mount}/role/pos")
            corner.api("PUT", f"sys/leases/revoke-prefix/auth/{mount}/login")
            shop.source.reload()
            eventually(lambda: "CredentialsStale" in shop.events.names())
            assert shop.new_token()


# --- nothing is shown


LOGINS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "token": (lambda: StaticToken("given:token"), {}),
    "approle": (lambda: AppRole("role", "given:id"), {LOGIN: login()}),
    "wrapped": (
        lambda: AppRole("role", "given:id", wrapped=True),
        {
            "/v1/sys/wrapping/lookup": answer({"data": {"creation_path": "auth/approle/role/pos/secret-id"}}),
            "/v1/sys/wrapping/unwrap": answer({"data": {"secret_id": SECRET_ID}}),
        },
    ),
    "jwt": (lambda: Jwt("role", "given:jwt"), {"/v1/auth/jwt/login": login()}),
}


@pytest.mark.parametrize("name", LOGINS)
def test_no_object_of_ours_shows_what_it_holds(name: str) -> None:
    make, script = LOGINS[name]
    with Scripted(script) as server:
        backend = server.backend(make(), stores={"given": Given(TOKEN)})
        assert secret_in(backend) == CLIENT_SECRET
        shown = reprs_of(backend)
        assert "Holding" in shown  # it has been looked into
        assert [one for one in (CLIENT_SECRET, TOKEN, SECRET_ID) if one in shown] == []
