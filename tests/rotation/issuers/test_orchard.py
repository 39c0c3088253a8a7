"""Orchard's adapters, against a site that behaves as Orchard Core does: its management API, and its imports."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secretsource import AccessDenied, ConfigurationError, IssuerUnavailable
from secretsource.clock import Deadline
from secretsource.rotation.issuers import adapter_called
from secretsource.rotation.issuers.orchard import Orchard, OrchardRecipe, _archive
from secretsource.rotation.outcome import Adapter, Applied, Client, Minted, Refused, Unknown
from secretsource.secret import Secret

from .fakes_orchard import API_KEY, APPLICATION, IMPORT, REMOTE_CLIENT, ROTATE, OrchardSite, _form, application
from .vendors import ADMIN, CLIENT, LATER, NEW, OLD, failed, holding, kept_login, shows_nothing, soon

LABEL = "secretsource-0011223344556677"
EVERY_FLOW = {
    "permissions": [
        "gt:authorization_code",
        "gt:client_credentials",
        "gt:implicit",
        "gt:password",
        "gt:refresh_token",
        "gt:urn:ietf:params:oauth:grant-type:device_code",
        "ept:authorization",
        "ept:pushed_authorization",
        "ept:token",
        "ept:device_authorization",
        "ept:end_session",
        "ept:introspection",
        "ept:revocation",
        "rst:code",
        "rst:id_token",
        "rst:code id_token",
        "rst:none",
        "scp:profile",
        "aud:own",
    ],
    "requirements": ["ft:pkce", "ft:par", "ft:own"],
    "redirectUris": ["https://pos.example.com/a", "https://pos.example.com/b?x=1"],
    "postLogoutRedirectUris": ["https://pos.example.com/out"],
}


@pytest.fixture
def site() -> Iterator[OrchardSite]:
    with OrchardSite() as running:
        yield running


def orchard(site: OrchardSite, **more: Any) -> Orchard:
    return Orchard(site.base_url, admin=site.admin(), **more)


def refused(outcome: object, says: str, hint: str = "") -> None:
    assert isinstance(outcome, Refused), outcome
    assert says in outcome.reason
    assert hint in (outcome.hint or "")
    shows_nothing(outcome, more=[API_KEY])


def as_sets(described: dict[str, Any]) -> dict[str, Any]:
    return {name: sorted(value) if isinstance(value, list) else value for name, value in described.items()}


# --- the management API


def test_is_an_adapter_that_says_what_orchard_can_do(site: OrchardSite) -> None:
    chosen, generated = orchard(site), orchard(site, generated=True)
    assert isinstance(chosen, Adapter)
    assert (chosen.capabilities.chosen, chosen.capabilities.slots, chosen.capabilities.retires) == (True, 1, False)
    assert (generated.capabilities.chosen, generated.capabilities.single_slot) == (False, True)


@pytest.mark.parametrize("more", [{}, EVERY_FLOW, {"roles": [], "permissions": ["gt:client_credentials", "ept:token"]}])
def test_saves_the_secret_and_nothing_else(site: OrchardSite, more: dict[str, Any]) -> None:
    site.application = application(**more)
    before = copy.deepcopy(site.application)
    assert orchard(site).apply(holding(), Secret(NEW), soon()) == Applied()
    assert (site.gives(NEW), site.gives(OLD)) == (True, False)
    assert as_sets(site.application) == as_sets(before)


def test_saving_the_same_secret_again_changes_nothing(site: OrchardSite) -> None:
    adapter = orchard(site)
    assert adapter.apply(holding(), Secret(NEW), soon()) == Applied()
    assert adapter.apply(holding(), Secret(NEW), soon()) == Applied()
    assert site.saves == 1


@pytest.mark.parametrize("flow", EVERY_FLOW["permissions"])
def test_whatever_permission_is_missing_nothing_is_saved_that_changes_more(site: OrchardSite, flow: str) -> None:
    """Either the round trip is exact, or it is refused: what is left of an application is what was there before."""
    left = [one for one in EVERY_FLOW["permissions"] if one != flow]
    site.application = application(**{**EVERY_FLOW, "permissions": left})
    before = copy.deepcopy(site.application)
    outcome = orchard(site).apply(holding(), Secret(NEW), soon())
    assert as_sets(site.application) == as_sets(before)
    assert site.saves == isinstance(outcome, Applied)
    assert isinstance(outcome, (Applied, Refused))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"permissions": ["gt:client_credentials"]}, "would change what it may do: ept:token"),
        ({"permissions": ["gt:client_credentials", "ept:token", "ept:logout"]}, "ept:logout"),
        ({"permissions": ["gt:client_credentials", "ept:token", "rst:token"]}, "rst:token"),
        ({"permissions": ["gt:client_credentials", "ept:token", "scp:"]}, "a role or scope without a name"),
        ({"roles": [""]}, "a role or scope without a name"),
        ({"clientType": "public"}, "is not confidential"),
        ({"applicationType": None}, "no applicationType"),
        ({"consentType": None, "displayName": " "}, "no consentType and no displayName"),
        ({"redirectUris": ["https://pos.example.com/a,b"]}, "a blank or comma"),
        ({"postLogoutRedirectUris": ["https://pos.example.com/a b"]}, "a blank or comma"),
        ({"roles": None}, "no lists of names"),
        ({"permissions": [7]}, "no lists of names"),
    ],
)
def test_what_a_save_would_change_is_refused_before_it(site: OrchardSite, more: dict[str, Any], says: str) -> None:
    site.application = application(**more)
    adapter = orchard(site)
    assert failed(ConfigurationError, lambda: adapter.check(holding(), soon()), says=says).hint
    refused(adapter.apply(holding(), Secret(NEW), soon()), says)
    assert site.changes == 0


def test_settings_of_a_later_version_are_not_cleared(site: OrchardSite) -> None:
    site.more = {"tokenLifetime": 60, "settings": {}}
    adapter = orchard(site)
    failed(ConfigurationError, lambda: adapter.check(holding(), soon()), says="2 settings", hint="generated = true")
    refused(adapter.apply(holding(), Secret(NEW), soon()), "2 settings")
    assert site.changes == 0
    assert orchard(site, generated=True).check(holding(), soon()).secrets == 1


def test_an_answer_with_other_settings_than_before_is_no_proof(site: OrchardSite) -> None:
    site.answer("PUT", APPLICATION, 200, application(roles=["Stock"]))
    outcome = orchard(site).apply(holding(), Secret(NEW), soon())
    assert isinstance(outcome, Unknown)
    assert "not what they were" in outcome.reason


def test_a_role_that_is_gone_is_refused_by_orchard(site: OrchardSite) -> None:
    site.roles = {"Stock"}
    refused(orchard(site).apply(holding(), Secret(NEW), soon()), "answered 400", "Save the application once")
    assert site.gives(OLD)


def test_an_answer_may_come_before_the_change(site: OrchardSite) -> None:
    site.held_back = True
    assert orchard(site).apply(holding(), Secret(NEW), soon()) == Applied()
    assert site.gives(OLD)
    site.land()
    assert (site.gives(OLD), site.gives(NEW)) == (False, True)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_bad_answer_to_a_save_is_unknown(site: OrchardSite, status: int) -> None:
    site.answer("PUT", APPLICATION, status)
    assert isinstance(orchard(site).apply(holding(), Secret(NEW), soon()), Unknown)


def test_a_save_whose_answer_is_lost_is_unknown(site: OrchardSite) -> None:
    site.lose("PUT", APPLICATION)
    outcome = orchard(site).apply(holding(), Secret(NEW), soon())
    assert isinstance(outcome, Unknown)
    shows_nothing(outcome)
    assert site.gives(NEW)


def test_where_reading_fails_nothing_has_changed(site: OrchardSite) -> None:
    site.answer("GET", APPLICATION, 503)
    refused(orchard(site).apply(holding(), Secret(NEW), soon()), "answered 503")
    assert isinstance(orchard(site).apply(holding(), Secret(NEW), Deadline(0.0)), Refused)
    assert site.changes == 0


def test_a_site_that_is_down_changes_nothing(site: OrchardSite) -> None:
    adapter = orchard(site)
    with site.issuer.down():
        assert isinstance(adapter.apply(holding(), Secret(NEW), soon()), Refused)
        failed(IssuerUnavailable, lambda: adapter.check(holding(), soon()))


def test_an_unknown_application_is_named_with_what_earlier_versions_need(site: OrchardSite) -> None:
    adapter = orchard(site)
    failed(ConfigurationError, lambda: adapter.check(Client("other"), soon()), says="404", hint="orchard-recipe")
    refused(adapter.apply(Client("other"), Secret(NEW), soon()), "404")


def test_missing_rights_are_named(site: OrchardSite) -> None:
    site.answer("GET", APPLICATION, 403)
    adapter = orchard(site)
    failed(ConfigurationError, lambda: adapter.check(holding(), soon()), says="403", hint="orchardcore.management")


def test_the_rotators_own_application_is_refused(site: OrchardSite) -> None:
    adapter = orchard(site)
    failed(ConfigurationError, lambda: adapter.check(Client(ADMIN), soon()), says="the rotator itself")


def test_what_check_finds_changes_nothing(site: OrchardSite) -> None:
    assert orchard(site).check(holding(), soon()).secrets == 1
    assert (site.changes, site.saves) == (0, 0)


def test_logs_in_at_the_tenant_for_its_scope_unless_told_otherwise(site: OrchardSite, tmp_path: Path) -> None:
    adapter = Orchard(f"{site.base_url}/", admin={"credentials": kept_login(tmp_path)})
    assert adapter.check(holding(), soon()).secrets == 1


def test_a_client_id_is_escaped_where_it_is_part_of_a_url(site: OrchardSite) -> None:
    odd = "a b&clientId=pos#x"
    refused(orchard(site).apply(Client(odd), Secret(NEW), soon()), "404")
    assert len(site.requests) == 1


# --- generated


def test_a_generated_secret_ends_the_one_before(site: OrchardSite) -> None:
    before = copy.deepcopy(site.application)
    outcome = orchard(site, generated=True).mint(holding(), LABEL, soon())
    assert isinstance(outcome, Minted)
    shows_nothing(outcome, more=[outcome.secret.reveal()])
    assert (site.gives(outcome.secret.reveal()), site.gives(OLD)) == (True, False)
    assert site.application == before


def test_a_generated_secret_whose_answer_is_lost_is_unknown_and_the_next_one_works(site: OrchardSite) -> None:
    adapter = orchard(site, generated=True)
    site.lose("POST", ROTATE)
    assert isinstance(adapter.mint(holding(), LABEL, soon()), Unknown)
    outcome = adapter.mint(holding(), LABEL, soon())
    assert isinstance(outcome, Minted)
    assert site.gives(outcome.secret.reveal())


@pytest.mark.parametrize("body", [None, {}, {"clientId": CLIENT}, {"clientId": "other", "clientSecret": LATER}])
def test_an_answer_without_a_secret_of_this_client_is_unknown(site: OrchardSite, body: Any) -> None:
    site.answer("POST", ROTATE, 200, body)
    outcome = orchard(site, generated=True).mint(holding(), LABEL, soon())
    assert isinstance(outcome, Unknown)
    shows_nothing(outcome)


def test_none_is_generated_for_a_public_application(site: OrchardSite) -> None:
    site.application = application(clientType="public")
    adapter = orchard(site, generated=True)
    failed(ConfigurationError, lambda: adapter.check(holding(), soon()), says="is not confidential")
    refused(adapter.mint(holding(), LABEL, soon()), "is not confidential")
    assert site.changes == 0


def test_none_is_generated_where_the_call_is_not_allowed(site: OrchardSite) -> None:
    site.answer("POST", ROTATE, 403)
    refused(orchard(site, generated=True).mint(holding(), LABEL, soon()), "403", "Manage Applications")
    assert site.gives(OLD)


# --- a recipe

GIVEN: dict[str, Any] = {
    "DisplayName": "Point of sale",
    "ConsentType": "implicit",
    "RedirectUris": "",
    "PostLogoutRedirectUris": "",
    "RoleEntries": ["Point of sale", {"Name": "Stock"}],
    "ScopeEntries": ["orders.read", "stock.write"],
    "AllowPasswordFlow": False,
    "AllowClientCredentialsFlow": True,
    "AllowAuthorizationCodeFlow": False,
    "AllowRefreshTokenFlow": False,
    "AllowHybridFlow": False,
    "AllowImplicitFlow": False,
    "AllowLogoutEndpoint": False,
    "AllowIntrospectionEndpoint": False,
    "AllowRevocationEndpoint": False,
    "RequireProofKeyForCodeExchange": False,
}


@pytest.fixture
def api_key(tmp_path: Path) -> str:
    return kept_key(tmp_path / "key", API_KEY)


def kept_key(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return f"file://{path}"


def recipe(site: OrchardSite, api_key: str, **more: Any) -> OrchardRecipe:
    arguments = {"client_name": REMOTE_CLIENT, "api_key": api_key, "application": GIVEN, **more}
    return OrchardRecipe(site.base_url, **arguments)


def test_a_recipe_changes_the_secret_and_never_says_that_it_has(site: OrchardSite, api_key: str) -> None:
    before = copy.deepcopy(site.application)
    adapter = recipe(site, api_key)
    assert isinstance(adapter, Adapter)
    outcome = adapter.apply(holding(), Secret(NEW), soon())
    assert isinstance(outcome, Unknown)
    shows_nothing(outcome, more=[API_KEY])
    assert (site.gives(NEW), site.gives(OLD)) == (True, False)
    assert as_sets(site.application) == as_sets(before)
    assert adapter.capabilities.chosen
    assert adapter.capabilities.single_slot


def test_a_recipe_that_fails_is_answered_alike(site: OrchardSite, api_key: str) -> None:
    site.fails = True
    assert isinstance(recipe(site, api_key).apply(holding(), Secret(NEW), soon()), Unknown)
    assert site.gives(OLD)


def test_a_recipe_once_more_changes_nothing(site: OrchardSite, api_key: str) -> None:
    adapter = recipe(site, api_key)
    for _ in range(2):
        adapter.apply(holding(), Secret(NEW), soon())
    assert (site.saves, site.gives(NEW)) == (1, True)


def test_the_same_recipe_is_the_same_archive(site: OrchardSite, api_key: str) -> None:
    adapter = recipe(site, api_key)
    for _ in range(2):
        adapter.apply(holding(), Secret(NEW), soon())
    one, other = (_form(incoming)["Content"] for incoming in site.requests)
    assert one == other
    with zipfile.ZipFile(io.BytesIO(one)) as archive:
        assert archive.namelist() == ["Recipe.json"]
        (step,) = json.loads(archive.read("Recipe.json"))["steps"]
    assert (step["name"], step["ClientId"], step["ClientSecret"]) == ("OpenIdApplication", CLIENT, NEW)
    assert step["RoleEntries"] == [{"Name": "Point of sale"}, {"Name": "Stock"}]


def test_what_is_sent_carries_no_secret_outside_its_body(site: OrchardSite, api_key: str) -> None:
    recipe(site, api_key).apply(holding(), Secret(NEW), soon())
    (sent,) = site.requests
    shows_nothing(sent.path, sent.query, dict(sent.headers), more=[API_KEY])
    assert "authorization" not in sent.headers


@pytest.mark.parametrize("which", ["client_name", "key"])
def test_a_wrong_api_key_changes_nothing(site: OrchardSite, tmp_path: Path, api_key: str, which: str) -> None:
    if which == "client_name":
        adapter = recipe(site, api_key, client_name="other")
    else:
        adapter = recipe(site, kept_key(tmp_path / "other", LATER))
    refused(adapter.apply(holding(), Secret(NEW), soon()), "answered 400", "api_key=")
    assert site.gives(OLD)


def test_a_tenant_without_the_feature_is_named(site: OrchardSite, api_key: str) -> None:
    adapter = OrchardRecipe(f"{site.base_url}/other", client_name=REMOTE_CLIENT, api_key=api_key, application=GIVEN)
    refused(adapter.apply(holding(), Secret(NEW), soon()), "answered 404", "Remote Deployment")


@pytest.mark.parametrize("status", [500, 503, 302])
def test_other_answers_to_an_import_are_unknown(site: OrchardSite, api_key: str, status: int) -> None:
    site.answer("POST", IMPORT, status)
    assert isinstance(recipe(site, api_key).apply(holding(), Secret(NEW), soon()), Unknown)


def test_a_lost_answer_to_an_import_is_unknown(site: OrchardSite, api_key: str) -> None:
    site.lose("POST", IMPORT)
    assert isinstance(recipe(site, api_key).apply(holding(), Secret(NEW), soon()), Unknown)
    assert site.gives(NEW)


def test_an_import_may_answer_before_the_change(site: OrchardSite, api_key: str) -> None:
    site.held_back = True
    recipe(site, api_key).apply(holding(), Secret(NEW), soon())
    assert site.gives(OLD)
    site.land()
    assert site.gives(NEW)


@pytest.mark.parametrize("left_out", GIVEN)
def test_a_setting_that_is_left_out_would_be_cleared(site: OrchardSite, api_key: str, left_out: str) -> None:
    given = {name: value for name, value in GIVEN.items() if name != left_out}
    make = lambda: recipe(site, api_key, application=given)  # noqa: E731
    failed(ConfigurationError, make, says=left_out, hint="admin pages")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"ClientSecret": LATER}, "'ClientSecret'"),
        ({"ClientId": "pos"}, "'ClientId'"),
        ({"Type": "public"}, "'Type'"),
        ({"AllowClientCredentialsFlow": False}, "takes the client credentials flow away"),
        ({"AllowClientCredentialsFlow": "yes"}, "a string"),
        ({"ConsentType": "silent"}, "ConsentType"),
        ({"RoleEntries": [""]}, "no name"),
        ({"RoleEntries": [{"name": "Stock"}]}, "no name"),
        ({"RoleEntries": "Stock"}, "a string"),
        ({"DisplayName": "[js: uuid()]"}, "in brackets"),
        ({"ScopeEntries": ["[env: X]"]}, "in brackets"),
        ({"Colour": "red"}, "not known"),
    ],
)
def test_a_setting_that_orchard_would_misread_is_refused(
    site: OrchardSite, api_key: str, more: dict[str, Any], says: str
) -> None:
    failed(ConfigurationError, lambda: recipe(site, api_key, application={**GIVEN, **more}), says=says)


def test_settings_that_are_no_table_are_refused(site: OrchardSite, api_key: str) -> None:
    failed(ConfigurationError, lambda: recipe(site, api_key, application="all"), says="no table", hint="DisplayName")


def test_settings_of_later_versions_may_be_given(site: OrchardSite, api_key: str) -> None:
    more = {
        "RequirePushedAuthorizationRequests": False,
        "AllowDeviceAuthorizationFlow": False,
        "ApplicationType": "web",
    }
    adapter = recipe(site, api_key, application={**GIVEN, **more})
    assert isinstance(adapter.apply(holding(), Secret(NEW), soon()), Unknown)
    assert site.gives(NEW)


def test_a_secret_that_a_recipe_would_run_is_refused(site: OrchardSite, api_key: str) -> None:
    refused(recipe(site, api_key).apply(holding(), Secret("[js: not-a-real-secret()]"), soon()), "as a script")
    assert site.requests == []


def test_check_reads_the_api_key_and_asks_orchard_nothing(site: OrchardSite, api_key: str, tmp_path: Path) -> None:
    found = recipe(site, api_key).check(holding(), soon())
    assert (found.secrets, len(found.cautions)) == (1, 2)
    assert site.requests == []
    (tmp_path / "key").chmod(0o644)
    failed(AccessDenied, lambda: recipe(site, api_key).check(holding(), soon()))
    refused(recipe(site, api_key).apply(holding(), Secret(NEW), soon()), "key")


def test_a_key_that_was_pasted_is_not_repeated(site: OrchardSite) -> None:
    failed(ConfigurationError, lambda: recipe(site, API_KEY))


def test_both_are_made_from_a_configuration(site: OrchardSite, api_key: str) -> None:
    login = {"credentials": "env://ROTATOR"}
    settings = {"base_url": site.base_url, "admin": login, "generated": True}
    assert not adapter_called("orchard", settings).capabilities.chosen
    settings = {"base_url": site.base_url, "client_name": REMOTE_CLIENT, "api_key": api_key, "application": GIVEN}
    assert adapter_called("orchard-recipe", settings).capabilities.chosen


def test_what_orchard_cannot_do_is_refused(site: OrchardSite, api_key: str) -> None:
    for adapter in (orchard(site), recipe(site, api_key)):
        adapter.prepare(holding())
        assert isinstance(adapter.reap(holding(), LABEL, soon()), Refused)
        assert isinstance(adapter.retire(holding(), None, None, soon()), Refused)
        assert isinstance(adapter.restore(holding(), soon()), Refused)
        assert isinstance(adapter.remove(holding(), None, None, soon()), Refused)
        adapter.close()
    assert isinstance(recipe(site, api_key).mint(holding(), LABEL, soon()), Refused)


def test_what_is_to_be_sent_shows_nothing(site: OrchardSite, api_key: str) -> None:
    shows_nothing(orchard(site), recipe(site, api_key), _archive(GIVEN, CLIENT, Secret(NEW)), more=[API_KEY])
