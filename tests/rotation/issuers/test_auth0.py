"""Auth0's adapter, on a site that behaves as Auth0's documentation says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secretsource.errors import ConfigurationError, IssuerUnavailable
from secretsource.rotation import Adapter, Applied, Preflight, Refused, Unknown
from secretsource.rotation.issuers import adapter_called
from secretsource.rotation.issuers.auth0 import Auth0
from secretsource.secret import Secret
from secretsource.testing import TickingClock

from .fakes_auth0 import Auth0Site
from .vendors import ADMIN, CLIENT, NEW, OLD, failed, holding, kept_login, shows_nothing, soon


@pytest.fixture
def site() -> Iterator[Auth0Site]:
    with Auth0Site() as site:
        yield site


@pytest.fixture
def auth0(site: Auth0Site) -> Auth0:
    return Auth0(site.origin, admin=site.admin())


# --- looking


def test_it_is_an_adapter_of_one_slot_that_takes_our_value(auth0: Auth0) -> None:
    can = auth0.capabilities
    assert isinstance(auth0, Adapter)
    assert (can.chosen, can.single_slot, can.propagation, can.retires) == (True, True, 30.0, False)
    assert can.rejected == ("access_denied",)


def test_a_check_asks_for_nothing_secret_and_changes_nothing(auth0: Auth0, site: Auth0Site) -> None:
    site.scopes = (*site.scopes, "read:client_keys")
    assert auth0.check(holding(), soon()) == Preflight((), 1)
    asked = [one for one in site.requests if one.path != site.token_path]
    assert [(one.method, "client_secret" in one.query) for one in asked] == [("GET", False)]


def test_a_table_needs_only_the_credentials(site: Auth0Site, tmp_path: Path) -> None:
    made = adapter_called("auth0", {"base_url": f"{site.origin}/", "admin": {"credentials": kept_login(tmp_path)}})
    assert made.check(holding(), soon()).secrets == 1
    [login] = [one for one in site.requests if one.path == site.token_path]
    assert b"audience=" in login.body
    assert b"%2Fapi%2Fv2%2F" in login.body


@pytest.mark.parametrize(
    "client",
    [
        {"token_endpoint_auth_method": "none"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": None, "client_authentication_methods": {"private_key_jwt": {"credentials": []}}},
    ],
)
def test_an_application_without_a_secret_is_refused(auth0: Auth0, site: Auth0Site, client: dict[str, Any]) -> None:
    site.client = client
    failed(ConfigurationError, lambda: auth0.check(holding(), soon()), says="does not log in with a client secret")


def test_what_depends_on_the_secret_is_a_caution(auth0: Auth0, site: Auth0Site) -> None:
    site.client = {"grant_types": ["authorization_code"], "jwt_configuration": {"alg": "HS256"}}
    grant, signed = auth0.check(holding(), soon()).cautions
    assert "client_credentials" in grant
    assert "HS256" in signed


@pytest.mark.parametrize(
    ("scopes", "client_id", "says", "hint"),
    [((), CLIENT, "answered 403", "update:client_keys"), (("read:clients",), "another", "answered 404", "client ID")],
)
def test_a_check_that_is_refused_says_what_to_do(
    auth0: Auth0, site: Auth0Site, scopes: tuple[str, ...], client_id: str, says: str, hint: str
) -> None:
    site.scopes, site.client_id = scopes, client_id
    failed(ConfigurationError, lambda: auth0.check(holding(), soon()), says=says, hint=hint)


def test_a_check_that_comes_too_often_may_be_made_again(auth0: Auth0, site: Auth0Site) -> None:
    site.answer("GET", "/clients/", 429, {"errorCode": "too_many_requests"}, Retry_After="1")
    failed(IssuerUnavailable, lambda: auth0.check(holding(), soon()), says="answered 429")
    assert auth0.check(holding(), soon()).secrets == 1


def test_the_rotator_does_not_rotate_the_client_that_it_logs_in_with(auth0: Auth0) -> None:
    client = holding()._replace(client_id=ADMIN)
    failed(ConfigurationError, lambda: auth0.check(client, soon()), says="rotator itself")


# --- saving


@pytest.mark.parametrize("shown", [True, False])
def test_our_secret_is_saved_and_nothing_beside_it(auth0: Auth0, site: Auth0Site, shown: bool) -> None:
    site.scopes = (*site.scopes, "read:client_keys") if shown else site.scopes
    assert auth0.apply(holding(pending=NEW), Secret(NEW), soon()) == Applied()
    [saved] = [one for one in site.requests if one.method == "PATCH"]
    assert json.loads(saved.body) == {"client_secret": NEW}
    assert site.gives(NEW)
    assert not site.gives(OLD)


def test_a_lost_answer_is_made_good_by_saving_it_again(auth0: Auth0, site: Auth0Site) -> None:
    site.lose("PATCH", "/clients/")
    lost = auth0.apply(holding(pending=NEW), Secret(NEW), soon())
    assert isinstance(lost, Unknown)
    assert auth0.apply(holding(pending=NEW), Secret(NEW), soon()) == Applied()
    assert site.gives(NEW)
    shows_nothing(lost)


def test_the_old_and_the_new_secret_are_mixed_for_a_while() -> None:
    clock = TickingClock()
    with Auth0Site(clock=clock, lag=30.0, mixed=True) as site:
        Auth0(site.origin, admin=site.admin()).apply(holding(pending=NEW), Secret(NEW), soon())
        assert [site.accepts(CLIENT, NEW, node) for node in (0, 1)] == [True, False]
        assert [site.accepts(CLIENT, OLD, node) for node in (0, 1)] == [False, True]
        clock.tick(31)
        assert site.gives(NEW)


@pytest.mark.parametrize(
    ("scopes", "kind"), [(("read:clients", "update:clients"), Refused), (("read:clients",), Refused)]
)
def test_without_the_right_to_change_keys_nothing_changes(
    auth0: Auth0, site: Auth0Site, scopes: tuple[str, ...], kind: type[Refused]
) -> None:
    site.scopes = scopes
    outcome = auth0.apply(holding(pending=NEW), Secret(NEW), soon())
    assert isinstance(outcome, kind)
    assert "update:client_keys" in (outcome.hint or "")
    assert site.gives(OLD)


@pytest.mark.parametrize(("status", "kind"), [(429, Unknown), (503, Unknown), (400, Refused), (401, Refused)])
def test_only_what_auth0_said_no_to_is_refused(
    auth0: Auth0, site: Auth0Site, status: int, kind: type[Refused] | type[Unknown]
) -> None:
    body = {"statusCode": status, "message": f"Payload validation error: {NEW}", "errorCode": NEW}
    site.answer("PATCH", "/clients/", status, body, Retry_After="2")
    outcome = auth0.apply(holding(pending=NEW), Secret(NEW), soon())
    assert isinstance(outcome, kind)
    assert site.came("PATCH", "/clients/") == 1
    shows_nothing(outcome)


def test_another_value_than_ours_is_not_taken_for_done(auth0: Auth0, site: Auth0Site) -> None:
    site.answer("PATCH", "/clients/", 200, {"client_id": CLIENT, "client_secret": OLD})
    assert isinstance(auth0.apply(holding(pending=NEW), Secret(NEW), soon()), Unknown)


def test_nothing_is_generated_or_retired(auth0: Auth0, site: Auth0Site) -> None:
    client = holding(NEW, previous=OLD)
    for outcome in (
        auth0.mint(client, "secretsource-1", soon()),
        auth0.reap(client, "secretsource-1", soon()),
        auth0.retire(client, None, None, soon()),
        auth0.restore(client, soon()),
        auth0.remove(client, None, None, soon()),
    ):
        assert isinstance(outcome, Refused)
    assert site.requests == []


def test_an_id_with_signs_in_it_stays_one_part_of_the_path(auth0: Auth0, site: Auth0Site) -> None:
    site.client_id = "pos/../a b"
    assert auth0.apply(holding()._replace(client_id=site.client_id), Secret(NEW), soon()) == Applied()


def test_nothing_of_it_shows_a_secret(auth0: Auth0, site: Auth0Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    outcome = auth0.apply(holding(pending=NEW), Secret(NEW), soon())
    shows_nothing(auth0, vars(auth0), outcome, auth0.check(holding(), soon()), caplog.text)
