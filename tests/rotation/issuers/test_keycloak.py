"""Keycloak's adapter, with and without a rotation policy, against a site that behaves as Keycloak is documented to."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secretsource import ConfigurationError, IssuerUnavailable
from secretsource.clock import Deadline
from secretsource.rotation.issuers import adapter_called
from secretsource.rotation.issuers.keycloak import Keycloak
from secretsource.rotation.outcome import Adapter, Applied, Client, Minted, Refused, Unknown
from secretsource.secret import Secret

from .fakes_keycloak import MASK, REALM, UUID, KeycloakSite, RotationPolicy, registered
from .vendors import ADMIN, CLIENT, LATER, NEW, OLD, failed, holding, kept_login, shows_nothing, soon

ONE = f"/admin/realms/{REALM}/clients/{UUID}"
LABEL = "secretsource-0011223344556677"


@pytest.fixture
def site() -> Iterator[KeycloakSite]:
    with KeycloakSite() as running:
        yield running


@pytest.fixture
def ruled() -> Iterator[KeycloakSite]:
    """With a rotation policy that has acted."""
    with KeycloakSite(policy=RotationPolicy()) as running:
        assert running.gives(OLD)
        yield running


def keycloak(site: KeycloakSite, **more: Any) -> Keycloak:
    return Keycloak(site.origin, REALM, admin=site.admin(), clock=site.clock, **more)


def refused(outcome: object, says: str, hint: str = "") -> None:
    assert isinstance(outcome, Refused), outcome
    assert says in outcome.reason
    assert hint in (outcome.hint or "")
    shows_nothing(outcome)


def changes(site: KeycloakSite) -> int:
    """How many calls came that change something."""
    return sum(one.method != "GET" and one.path.startswith("/admin/") for one in site.requests)


# --- a secret of ours


def test_is_an_adapter_that_says_what_keycloak_can_do(site: KeycloakSite) -> None:
    plain, ruled = keycloak(site).capabilities, keycloak(site, policy=True).capabilities
    assert isinstance(keycloak(site), Adapter)
    assert (plain.chosen, plain.slots, plain.retires, plain.restores) == (True, 1, False, False)
    assert (ruled.chosen, ruled.slots, ruled.retires, ruled.restores) == (False, 2, True, False)
    assert plain.rejected == ("unauthorized_client",)


def test_saves_the_secret_and_nothing_else(site: KeycloakSite) -> None:
    before = copy.deepcopy(site.client)
    assert keycloak(site).apply(holding(), Secret(NEW), soon()) == Applied()
    assert (site.gives(OLD), site.gives(NEW)) == (False, True)
    assert site.client == {**before, "secret": NEW}


def test_an_account_that_sees_no_scopes_takes_none_from_the_client(site: KeycloakSite) -> None:
    site.sees_scopes = False
    assert keycloak(site).apply(holding(), Secret(NEW), soon()) == Applied()
    assert site.client["defaultClientScopes"] == ["profile", "roles"]
    assert site.client["optionalClientScopes"] == ["offline_access"]


def test_a_secret_that_is_there_already_is_not_saved_again(site: KeycloakSite) -> None:
    adapter = keycloak(site)
    adapter.apply(holding(), Secret(NEW), soon())
    assert adapter.apply(holding(), Secret(NEW), soon()) == Applied()
    assert site.came("PUT", ONE) == 1


def test_a_save_whose_answer_is_lost_is_unknown(site: KeycloakSite) -> None:
    site.lose("PUT", ONE)
    outcome = keycloak(site).apply(holding(), Secret(NEW), soon())
    assert isinstance(outcome, Unknown)
    shows_nothing(outcome)
    assert site.gives(NEW)


def test_a_save_that_the_server_may_have_begun_is_unknown(site: KeycloakSite) -> None:
    site.answer("PUT", ONE, 503)
    assert isinstance(keycloak(site).apply(holding(), Secret(NEW), soon()), Unknown)


def test_where_reading_fails_nothing_has_changed(site: KeycloakSite) -> None:
    site.answer("GET", ONE, 503)
    refused(keycloak(site).apply(holding(), Secret(NEW), soon()), "answered 503")
    assert changes(site) == 0


def test_a_save_without_the_right_to_is_refused(site: KeycloakSite) -> None:
    site.answer("PUT", ONE, 403)
    refused(keycloak(site).apply(holding(), Secret(NEW), soon()), "403", "manage-clients")


def test_a_site_that_is_down_changes_nothing(site: KeycloakSite) -> None:
    adapter = keycloak(site)
    with site.server.down():
        assert isinstance(adapter.apply(holding(), Secret(NEW), soon()), Refused)
        failed(IssuerUnavailable, lambda: adapter.check(holding(), soon()))


def test_no_time_left_changes_nothing(site: KeycloakSite) -> None:
    assert isinstance(keycloak(site).apply(holding(), Secret(NEW), Deadline(0.0)), Refused)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"publicClient": True}, "has no secret"),
        ({"bearerOnly": True}, "has no secret"),
        ({"clientAuthenticatorType": "client-jwt"}, "does not log in with a client secret"),
        ({"protocol": "saml"}, "another protocol"),
        ({"enabled": False}, "is disabled"),
        ({"secret": "${vault.pos}"}, "a vault of Keycloak's"),
        ({"secret": None}, "does not see the secret"),
    ],
)
@pytest.mark.parametrize("policy", [False, True])
def test_what_has_no_secret_to_be_changed_is_refused(
    site: KeycloakSite, more: dict[str, Any], says: str, policy: bool
) -> None:
    site.client = registered(**more)
    adapter = keycloak(site, policy=policy)
    error = failed(ConfigurationError, lambda: adapter.check(holding(), soon()), says=says)
    assert error.hint
    refused(adapter.mint(holding(), LABEL, soon()) if policy else adapter.apply(holding(), Secret(NEW), soon()), says)
    assert changes(site) == 0


def test_an_account_that_sees_a_mask_writes_no_mask(site: KeycloakSite) -> None:
    site.manages = False
    adapter = keycloak(site)
    failed(ConfigurationError, lambda: adapter.check(holding(), soon()), says="does not see", hint="manage-clients")
    refused(adapter.apply(holding(), Secret(NEW), soon()), "does not see")
    assert MASK not in site.kept


@pytest.mark.parametrize("client_id", ["another", "pos/../../x", "a b&c=d"])
def test_an_unknown_client_is_named(site: KeycloakSite, client_id: str) -> None:
    adapter = keycloak(site)
    failed(
        ConfigurationError, lambda: adapter.check(Client(client_id), soon()), says="there is no client", hint="realm"
    )


def test_an_unknown_realm_is_named(site: KeycloakSite) -> None:
    adapter = Keycloak(site.origin, "other", admin=site.admin())
    failed(ConfigurationError, lambda: adapter.check(holding(), soon()), says="404", hint="realm=")


def test_the_rotators_own_client_is_refused(site: KeycloakSite) -> None:
    adapter = keycloak(site)
    failed(ConfigurationError, lambda: adapter.check(Client(ADMIN), soon()), says="the rotator itself")


def test_what_check_finds_changes_nothing(site: KeycloakSite) -> None:
    before = copy.deepcopy(site.client)
    found = keycloak(site).check(holding(), soon())
    assert (found.secrets, found.expires, list(found.cautions)) == (1, None, [])
    assert (site.client, changes(site)) == (before, 0)


def test_logs_in_at_the_realm_unless_told_otherwise(site: KeycloakSite, tmp_path: Path) -> None:
    login = {"credentials": kept_login(tmp_path)}
    assert Keycloak(site.origin, REALM, admin=login).check(holding(), soon()).secrets == 1


def test_is_made_from_a_configuration(site: KeycloakSite) -> None:
    admin = {"credentials": "env://ROTATOR", "token_url": site.token_url}
    settings = {"base_url": site.origin, "realm": REALM, "admin": admin, "policy": True}
    assert adapter_called("keycloak", settings).capabilities.slots == 2


# --- the wrong mode


def test_without_policy_a_client_under_one_is_refused(ruled: KeycloakSite) -> None:
    adapter = keycloak(ruled)
    failed(ConfigurationError, lambda: adapter.check(holding(), soon()), says="a rotation policy", hint="policy = true")
    refused(adapter.apply(holding(), Secret(NEW), soon()), "a rotation policy", "policy = true")
    assert changes(ruled) == 0


def test_a_save_under_a_policy_would_generate_a_secret_unasked(ruled: KeycloakSite) -> None:
    """Why the mode matters, shown on the site itself."""
    ruled.age_secret()
    ruled._save({**ruled.client, "secret": NEW})
    assert ruled.kept[0] not in (OLD, NEW)


def test_what_a_policy_has_left_is_found_too(site: KeycloakSite) -> None:
    site.policy = RotationPolicy()
    left = site.regenerate()
    site.policy = None
    failed(ConfigurationError, lambda: keycloak(site).check(holding(left), soon()), hint="save the client once")


def test_with_policy_a_client_under_none_is_refused(site: KeycloakSite) -> None:
    adapter = keycloak(site, policy=True)
    says, hint = "no rotation policy acts", "policy = false"
    failed(ConfigurationError, lambda: adapter.check(holding(), soon()), says=says, hint=hint)
    refused(adapter.mint(holding(), LABEL, soon()), says, hint)
    assert site.gives(OLD)


# --- a generated secret beside the one before


def minted(ruled: KeycloakSite, client: Client | None = None) -> Minted:
    outcome = keycloak(ruled, policy=True).mint(client or holding(), LABEL, soon())
    assert isinstance(outcome, Minted)
    shows_nothing(outcome, more=[outcome.secret.reveal()])
    return outcome


def test_a_generated_secret_stands_beside_the_one_before(ruled: KeycloakSite) -> None:
    new = minted(ruled)
    assert (new.id, new.expires) == (
        ruled.attributes["client.secret.creation.time"],
        ruled.clock.now().wall // 1 + 30 * 86400,
    )
    assert ruled.gives(OLD)
    assert ruled.gives(new.secret.reveal())


def test_a_generated_secret_is_kept_even_if_nothing_more_is_learned_of_it(ruled: KeycloakSite) -> None:
    adapter = keycloak(ruled, policy=True)
    ruled.answer("GET", ONE, 200, {"clientId": CLIENT, "access": {}})  # taken by the look before
    refused(adapter.mint(holding(), LABEL, soon()), "does not log in")

    def after_the_change(site: KeycloakSite) -> None:
        site.manages = False

    original = ruled._generated

    def generated() -> str:
        made = original()
        after_the_change(ruled)
        return made

    ruled._generated = generated  # type: ignore[method-assign]
    outcome = adapter.mint(holding(), LABEL, soon())
    assert isinstance(outcome, Minted)
    assert (outcome.id, outcome.expires) == (None, None)


def test_retiring_ends_the_one_before(ruled: KeycloakSite) -> None:
    new = minted(ruled)
    adapter, value = keycloak(ruled, policy=True), new.secret.reveal()
    client = holding(value, previous=OLD)
    assert isinstance(adapter.retire(client, new.id, None, soon()), Applied)
    assert (ruled.gives(OLD), ruled.gives(value)) == (False, True)
    assert isinstance(adapter.retire(client, new.id, None, soon()), Applied)
    assert ruled.came("DELETE", "rotated") == 1


def test_a_lost_answer_to_retiring_is_unknown_and_repeating_it_is_fine(ruled: KeycloakSite) -> None:
    new = minted(ruled)
    adapter, client = keycloak(ruled, policy=True), holding(new.secret.reveal(), previous=OLD)
    ruled.lose("DELETE", "rotated")
    assert isinstance(adapter.retire(client, new.id, None, soon()), Unknown)
    assert isinstance(adapter.retire(client, new.id, None, soon()), Applied)
    assert not ruled.gives(OLD)


def test_the_current_secret_is_not_retired_where_somebody_made_another(ruled: KeycloakSite) -> None:
    new = minted(ruled)
    ruled.regenerate()
    client = holding(new.secret.reveal(), previous=OLD)
    refused(keycloak(ruled, policy=True).retire(client, new.id, None, soon()), "somebody has generated another")
    assert ruled.gives(new.secret.reveal())


def test_a_generated_secret_that_is_given_up_makes_room_for_the_current_one(ruled: KeycloakSite) -> None:
    new = minted(ruled)
    client = holding(pending=new.secret.reveal())
    assert isinstance(keycloak(ruled, policy=True).retire(client, None, new.id, soon()), Applied)
    assert ruled.kept == [OLD]
    assert (ruled.gives(OLD), ruled.gives(new.secret.reveal())) == (True, False)


def test_a_generated_secret_whose_answer_was_lost_is_reaped(ruled: KeycloakSite) -> None:
    adapter = keycloak(ruled, policy=True)
    ruled.lose("POST", "client-secret")
    assert isinstance(adapter.mint(holding(), LABEL, soon()), Unknown)
    lost = ruled.kept[0]
    assert ruled.gives(lost)
    refused(adapter.mint(holding(), LABEL, soon()), "an earlier secret beside")  # it would push the current one out
    assert isinstance(adapter.reap(holding(), LABEL, soon()), Applied)
    assert ruled.kept == [OLD]
    assert minted(ruled).secret.reveal() == ruled.kept[0]
    assert (ruled.gives(OLD), ruled.gives(lost)) == (True, False)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_reaping_goes_on_after_an_answer_was_lost(ruled: KeycloakSite, method: str) -> None:
    adapter = keycloak(ruled, policy=True)
    ruled.lose("POST", "client-secret")
    adapter.mint(holding(), LABEL, soon())
    ruled.lose(method, ONE)
    assert isinstance(adapter.reap(holding(), LABEL, soon()), Unknown)
    assert ruled.gives(OLD)
    assert isinstance(adapter.reap(holding(), LABEL, soon()), Applied)
    assert ruled.gives(OLD)
    assert ruled.kept[0] == OLD


def test_reaping_that_stops_half_way_says_so(ruled: KeycloakSite) -> None:
    adapter = keycloak(ruled, policy=True)
    ruled.lose("POST", "client-secret")
    adapter.mint(holding(), LABEL, soon())
    ruled.answer("DELETE", "rotated", 403)
    outcome = adapter.reap(holding(), LABEL, soon())
    assert isinstance(outcome, Unknown)
    assert "is the main one" in outcome.reason
    assert ruled.gives(OLD)


def test_reaping_touches_nothing_where_nothing_was_generated(ruled: KeycloakSite) -> None:
    assert isinstance(keycloak(ruled, policy=True).reap(holding(), LABEL, soon()), Applied)
    assert changes(ruled) == 0


def test_reaping_leaves_alone_what_it_cannot_tell(ruled: KeycloakSite) -> None:
    ruled.regenerate()
    adapter = keycloak(ruled, policy=True)
    refused(adapter.reap(holding(LATER), LABEL, soon()), "not the one before")
    refused(adapter.reap(Client(CLIENT), LABEL, soon()), "not the one before")
    assert changes(ruled) == 0


def test_an_earlier_secret_that_is_still_accepted_is_not_pushed_out(ruled: KeycloakSite) -> None:
    current = ruled.regenerate()
    adapter = keycloak(ruled, policy=True)
    failed(
        ConfigurationError, lambda: adapter.check(holding(current), soon()), says="earlier secret", hint="invalidate"
    )
    refused(adapter.mint(holding(current), LABEL, soon()), "earlier secret")
    assert ruled.gives(OLD)


def test_two_secrets_of_a_rotation_under_way_are_in_nobodys_way(ruled: KeycloakSite) -> None:
    adapter, new = keycloak(ruled, policy=True), minted(ruled).secret.reveal()
    assert adapter.check(holding(OLD, pending=new), soon()).secrets == 2
    assert adapter.check(holding(new, previous=OLD), soon()).secrets == 2
    refused(adapter.mint(holding(new, previous=OLD), LABEL, soon()), "earlier secret")


def test_an_earlier_secret_at_its_end_is_in_nobodys_way(ruled: KeycloakSite) -> None:
    current = ruled.regenerate()
    ruled.age_rotated()
    assert not ruled.gives(OLD)
    keycloak(ruled, policy=True).check(holding(current), soon())
    minted(ruled, holding(current))
    assert ruled.gives(current)


def test_a_main_secret_at_its_end_is_named_since_both_are_rejected(ruled: KeycloakSite) -> None:
    ruled.age_secret()
    adapter = keycloak(ruled, policy=True)
    assert not ruled.gives(OLD)
    failed(ConfigurationError, lambda: adapter.check(holding(), soon()), says="reached its end", hint="put")
    refused(adapter.mint(holding(), LABEL, soon()), "reached its end")
    refused(adapter.reap(holding(), LABEL, soon()), "reached its end")
    assert changes(ruled) == 0


def test_a_store_that_holds_another_secret_than_keycloak_is_named(ruled: KeycloakSite) -> None:
    failed(
        ConfigurationError, lambda: keycloak(ruled, policy=True).check(holding(LATER), soon()), says="not the current"
    )


def test_check_says_when_the_secret_ends_and_how_long_the_one_before_is_kept(ruled: KeycloakSite) -> None:
    found = keycloak(ruled, policy=True).check(holding(), soon())
    assert found.expires == float(ruled.attributes["client.secret.expiration.time"])
    assert (found.secrets, found.current_id) == (1, ruled.attributes["client.secret.creation.time"])
    assert list(found.cautions) == ["the policy ends the secret before after 2 d, however long the soak is"]


def test_a_policy_that_keeps_nothing_is_refused(ruled: KeycloakSite) -> None:
    assert ruled.policy is not None
    ruled.policy.rotated = 0
    error = failed(ConfigurationError, lambda: keycloak(ruled, policy=True).check(holding(), soon()), says="at once")
    assert "Rotated Secret expiration" in (error.hint or "")


def test_an_account_that_cannot_see_the_policy_is_told_so(ruled: KeycloakSite) -> None:
    ruled.views_realm = False
    (caution,) = keycloak(ruled, policy=True).check(holding(), soon()).cautions
    assert "view-realm" in caution


# --- odd answers


@pytest.mark.parametrize("body", [None, [], {}, {"value": ""}, {"value": 7}])
def test_an_answer_without_a_secret_is_unknown(ruled: KeycloakSite, body: Any) -> None:
    ruled.answer("POST", "client-secret", 200, body)
    outcome = keycloak(ruled, policy=True).mint(holding(), LABEL, soon())
    assert isinstance(outcome, Unknown)


@pytest.mark.parametrize("body", [[], {}, "text", {"clientId": "another"}])
def test_what_is_no_client_is_not_saved(site: KeycloakSite, body: Any) -> None:
    site.answer("GET", ONE, 200, body)
    refused(keycloak(site).apply(holding(), Secret(NEW), soon()), "no client")
    assert changes(site) == 0


def test_the_secret_is_sent_nowhere_but_in_the_body(site: KeycloakSite) -> None:
    keycloak(site).apply(holding(), Secret(NEW), soon())
    (saved,) = (one for one in site.requests if one.method == "PUT")
    assert json.loads(saved.body)["secret"] == NEW
    assert NEW not in f"{saved.path}?{saved.query} {dict(saved.headers)}"


def test_what_keycloak_cannot_do_is_refused(site: KeycloakSite) -> None:
    adapter = keycloak(site)
    assert isinstance(adapter.restore(holding(), soon()), Refused)
    assert isinstance(adapter.remove(holding(), None, None, soon()), Refused)
    adapter.prepare(holding())
    adapter.close()


def test_shows_nothing_of_what_it_logs_in_with(site: KeycloakSite) -> None:
    shows_nothing(keycloak(site), Secret(NEW))
