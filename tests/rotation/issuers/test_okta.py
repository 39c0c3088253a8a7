"""Okta's adapter, on a site that behaves as Okta's documentation says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secretsource.errors import ConfigurationError, IssuerUnavailable
from secretsource.rotation import Adapter, Applied, Refused, Unknown
from secretsource.rotation.issuers import adapter_called
from secretsource.rotation.issuers.okta import Okta
from secretsource.secret import Secret

from .fakes_okta import OktaSite
from .vendors import ADMIN, API_TOKEN, CLIENT, LATER, NEW, OLD, failed, holding, shows_nothing, soon

NOBODY_ELSES = "not-a-real-secret-of-somebody-else"


@pytest.fixture
def site() -> Iterator[OktaSite]:
    with OktaSite() as site:
        yield site


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "okta-token"
    path.write_text(API_TOKEN)
    path.chmod(0o600)
    return f"file://{path}"


@pytest.fixture
def okta(site: OktaSite, token_file: str) -> Okta:
    return Okta(site.origin, api_token=token_file)


def values(site: OktaSite) -> dict[str, bool]:
    return {one.value: one.active for one in site.kept}


# --- looking


def test_it_is_an_adapter_of_two_slots_that_takes_our_value_and_can_take_a_retirement_back(okta: Okta) -> None:
    can = okta.capabilities
    assert isinstance(okta, Adapter)
    assert (can.chosen, can.slots, can.retires, can.restores) == (True, 2, True, True)


def test_a_check_finds_the_current_secret_and_changes_nothing(okta: Okta, site: OktaSite) -> None:
    found = okta.check(holding(), soon())
    assert found == ([], 1, None, site.kept[0].id)
    assert {one.method for one in site.requests} == {"GET"}


def test_a_check_with_a_token_of_okta_itself_works_too(site: OktaSite) -> None:
    site.scopes = ("okta.apps.manage",)
    assert Okta(site.origin, admin=site.admin()).check(holding(), soon()).secrets == 1


@pytest.mark.parametrize("current", [OLD, None])
def test_two_secrets_leave_no_place_and_the_way_out_is_the_inactive_one(
    okta: Okta, site: OktaSite, current: str | None
) -> None:
    site.add(NOBODY_ELSES, active=False)
    failed(ConfigurationError, lambda: okta.check(holding(current), soon()), says="two secrets", hint="inactive one")


def test_two_active_secrets_leave_no_place_either(okta: Okta, site: OktaSite) -> None:
    site.add(NOBODY_ELSES)
    failed(ConfigurationError, lambda: okta.check(holding(), soon()), says="two secrets", hint="Deactivate and delete")


def test_the_previous_secret_beside_the_current_one_is_a_caution_since_one_may_go_back_to_it(
    okta: Okta, site: OktaSite
) -> None:
    site.add(NEW)
    assert okta.check(holding(NEW, previous=OLD), soon()).cautions == [
        "the previous secret is still in Okta, which takes no third one beside it"
    ]


@pytest.mark.parametrize(
    ("app", "says"),
    [
        (
            {"credentials": {"oauthClient": {"client_id": "another", "token_endpoint_auth_method": "none"}}},
            "has another client ID",
        ),
        (
            {"credentials": {"oauthClient": {"client_id": CLIENT, "token_endpoint_auth_method": "private_key_jwt"}}},
            "does not log in with a client secret",
        ),
        ({"status": "INACTIVE"}, "is not active"),
    ],
)
def test_an_application_of_another_kind_is_refused(okta: Okta, site: OktaSite, app: dict[str, Any], says: str) -> None:
    site.app = app
    failed(ConfigurationError, lambda: okta.check(holding(), soon()), says=says)


def test_an_application_that_is_not_there_hints_at_its_id(site: OktaSite, token_file: str) -> None:
    site.app_id = "0oa1chosen"
    failed(
        ConfigurationError,
        lambda: Okta(site.origin, api_token=token_file).check(holding(), soon()),
        says="answered 404",
        hint="app_id=",
    )
    assert Okta(site.origin, api_token=token_file, app_id="0oa1chosen").check(holding(), soon()).secrets == 1


def test_a_refused_api_token_is_a_configuration_error_that_shows_nothing(okta: Okta, tmp_path: Path) -> None:
    (tmp_path / "okta-token").write_text("not-a-real-secret-api-token-of-yesterday")
    failed(ConfigurationError, lambda: okta.check(holding(), soon()), says="answered 401", hint="API token")


@pytest.mark.parametrize(("status", "kind"), [(429, IssuerUnavailable), (503, IssuerUnavailable)])
def test_a_check_that_comes_too_often_or_too_early_may_be_made_again(
    okta: Okta, site: OktaSite, status: int, kind: type[IssuerUnavailable]
) -> None:
    site.answer("GET", "/apps/", status, {"errorCode": "E0000047"}, Retry_After="1")
    failed(kind, lambda: okta.check(holding(), soon()), says=f"answered {status}")
    assert okta.check(holding(), soon()).secrets == 1


@pytest.mark.parametrize("body", [{"secrets": []}, [{"id": 7, "status": "ACTIVE"}], ["x"], [{"id": "x"}]])
def test_a_list_that_is_none_is_not_taken_for_an_empty_one(okta: Okta, site: OktaSite, body: Any) -> None:
    site.answer("GET", "/secrets", 200, body)
    failed(IssuerUnavailable, lambda: okta.check(holding(), soon()), says="no list")
    site.answer("GET", "/secrets", 200, body)
    assert isinstance(okta.apply(holding(pending=NEW), Secret(NEW), soon()), Unknown)
    assert site.came("POST", "/secrets") == 0


def test_the_rotator_does_not_rotate_the_client_that_it_logs_in_with(site: OktaSite) -> None:
    okta = Okta(site.origin, admin=site.admin())
    client = holding()._replace(client_id=ADMIN)
    failed(ConfigurationError, lambda: okta.check(client, soon()), says="rotator itself")


def test_one_login_is_needed_and_no_more(site: OktaSite, token_file: str) -> None:
    failed(ConfigurationError, lambda: Okta(site.origin), says="one of api_token= and admin=")
    failed(ConfigurationError, lambda: Okta(site.origin, api_token=token_file, admin=site.admin()), says="one of")


def test_a_configuration_can_name_it(site: OktaSite, token_file: str) -> None:
    made = adapter_called("okta", {"base_url": site.origin, "api_token": token_file, "app_id": CLIENT})
    assert made.check(holding(), soon()).secrets == 1


# --- adding


@pytest.mark.parametrize(("clear", "hashed"), [(True, True), (True, False), (False, True), (False, False)])
def test_our_secret_is_added_and_both_are_accepted(okta: Okta, site: OktaSite, clear: bool, hashed: bool) -> None:
    site.clear, site.hashed = clear, hashed
    outcome = okta.apply(holding(pending=NEW), Secret(NEW), soon())
    assert outcome == Applied(site.kept[1].id)
    assert site.gives(OLD)
    assert site.gives(NEW)


@pytest.mark.parametrize(("clear", "hashed"), [(True, False), (False, True)])
def test_a_lost_answer_makes_no_second_copy(okta: Okta, site: OktaSite, clear: bool, hashed: bool) -> None:
    site.clear, site.hashed = clear, hashed
    site.lose("POST", "/secrets")
    lost = okta.apply(holding(pending=NEW), Secret(NEW), soon())
    assert isinstance(lost, Unknown)
    assert okta.apply(holding(pending=NEW), Secret(NEW), soon()) == Applied(site.kept[1].id)
    assert site.came("POST", "/secrets") == 1
    shows_nothing(lost)


def test_what_okta_does_not_show_cannot_be_told_apart_and_is_not_refused(okta: Okta, site: OktaSite) -> None:
    site.clear = site.hashed = False
    site.lose("POST", "/secrets")
    okta.apply(holding(pending=NEW), Secret(NEW), soon())
    assert isinstance(okta.apply(holding(pending=NEW), Secret(NEW), soon()), Unknown)
    assert site.came("POST", "/secrets") == 1


def test_an_inactive_one_of_the_same_value_is_activated(okta: Okta, site: OktaSite) -> None:
    there = site.add(NEW, active=False)
    assert okta.apply(holding(pending=NEW), Secret(NEW), soon()) == Applied(there.id)
    assert site.gives(NEW)


def test_no_third_secret_is_added(okta: Okta, site: OktaSite) -> None:
    site.add(NOBODY_ELSES, active=False)
    outcome = okta.apply(holding(pending=NEW), Secret(NEW), soon())
    assert isinstance(outcome, Refused)
    assert "two secrets" in outcome.reason
    assert "inactive" in (outcome.hint or "")
    assert site.came("POST", "/secrets") == 0


def test_what_somebody_adds_at_that_moment_is_refused_by_okta_without_its_words(okta: Okta, site: OktaSite) -> None:
    body = {"errorCode": "E0000001", "errorSummary": f"Api validation failed: {NEW}"}
    site.answer("POST", "/secrets", 400, body)
    outcome = okta.apply(holding(pending=NEW), Secret(NEW), soon())
    assert isinstance(outcome, Refused)
    assert "answered 400" in outcome.reason
    shows_nothing(outcome)


@pytest.mark.parametrize(("status", "kind"), [(429, Unknown), (500, Unknown), (403, Refused), (404, Refused)])
def test_only_what_okta_said_no_to_is_refused(
    okta: Okta, site: OktaSite, status: int, kind: type[Refused] | type[Unknown]
) -> None:
    site.answer("POST", "/secrets", status, {"errorCode": "E0000006"}, Retry_After="2")
    assert isinstance(okta.apply(holding(pending=NEW), Secret(NEW), soon()), kind)


def test_another_value_than_ours_is_not_taken_for_done(okta: Okta, site: OktaSite) -> None:
    site.answer("POST", "/secrets", 201, {"id": "ocs1", "client_secret": "not-a-real-secret-made-by-okta"})
    assert isinstance(okta.apply(holding(pending=NEW), Secret(NEW), soon()), Unknown)


def test_a_site_that_is_down_ends_no_rotation(okta: Okta, site: OktaSite) -> None:
    with site.server.down():
        outcome = okta.apply(holding(pending=NEW), Secret(NEW), soon())
    assert isinstance(outcome, Unknown)
    assert "nothing was sent" in outcome.reason


def test_neither_a_secret_nor_a_label_is_asked_for(okta: Okta, site: OktaSite) -> None:
    assert isinstance(okta.mint(holding(), "secretsource-1", soon()), Refused)
    assert isinstance(okta.reap(holding(), "secretsource-1", soon()), Refused)
    assert site.requests == []


# --- retiring


@pytest.mark.parametrize("known", ["by value", "by hash", "by ID", "by age"])
def test_the_previous_secret_is_deactivated_then_deleted(okta: Okta, site: OktaSite, known: str) -> None:
    old, new = site.kept[0], site.add(NEW)
    site.clear, site.hashed = known == "by value", known == "by hash"
    keep, gone = (new.id, old.id) if known == "by ID" else (None, None)
    client = holding(NEW, previous=OLD)
    assert isinstance(okta.retire(client, keep, gone, soon()), Applied)
    assert values(site) == {OLD: False, NEW: True}
    assert isinstance(okta.remove(client, keep, gone, soon()), Applied)
    assert values(site) == {NEW: True}


def test_a_retirement_is_taken_back(okta: Okta, site: OktaSite) -> None:
    site.add(NEW)
    client = holding(NEW, previous=OLD)
    okta.retire(client, None, None, soon())
    assert isinstance(okta.restore(client, soon()), Applied)
    assert values(site) == {OLD: True, NEW: True}


@pytest.mark.parametrize("verb", ["retire", "remove"])
def test_to_do_it_twice_after_a_lost_answer_changes_nothing_more(okta: Okta, site: OktaSite, verb: str) -> None:
    site.add(NEW)
    client = holding(NEW, previous=OLD)
    if verb == "remove":
        okta.retire(client, None, None, soon())
    site.lose("POST" if verb == "retire" else "DELETE", "/secrets/")
    assert isinstance(getattr(okta, verb)(client, None, None, soon()), Unknown)
    assert isinstance(getattr(okta, verb)(client, None, None, soon()), Applied)
    assert values(site) == ({OLD: False, NEW: True} if verb == "retire" else {NEW: True})


def test_what_somebody_else_put_in_the_place_of_the_previous_one_stays(okta: Okta, site: OktaSite) -> None:
    old = site.kept.pop()
    site.add(NEW)
    site.add(NOBODY_ELSES)
    client = holding(NEW, previous=OLD)
    for keep, gone in ((None, None), (site.kept[0].id, old.id)):
        assert isinstance(okta.retire(client, keep, gone, soon()), Applied)
        assert isinstance(okta.remove(client, keep, gone, soon()), Applied)
    assert values(site) == {NEW: True, NOBODY_ELSES: True}


def test_an_inactive_one_of_somebody_else_is_not_deleted(okta: Okta, site: OktaSite) -> None:
    old = site.kept.pop()
    site.add(NEW)
    site.add(NOBODY_ELSES, active=False)
    assert isinstance(okta.remove(holding(NEW, previous=OLD), None, old.id, soon()), Applied)
    assert values(site) == {NEW: True, NOBODY_ELSES: False}


def test_after_a_leak_the_other_one_of_the_two_is_deactivated(okta: Okta, site: OktaSite) -> None:
    site.add(NEW)
    assert isinstance(okta.retire(holding(NEW), None, None, soon()), Applied)
    assert values(site) == {OLD: False, NEW: True}


def test_a_secret_that_is_given_up_is_deleted_so_that_its_place_is_free(okta: Okta, site: OktaSite) -> None:
    added = site.add(NEW)
    client = holding(OLD, pending=NEW)
    assert isinstance(okta.retire(client, None, added.id, soon()), Applied)
    assert values(site) == {OLD: True}
    assert okta.check(holding(), soon()).secrets == 1


def test_nothing_is_given_up_by_its_age(okta: Okta, site: OktaSite) -> None:
    site.add(NEW)
    site.clear = site.hashed = False
    outcome = okta.retire(holding(OLD, pending=NEW), None, None, soon())
    assert isinstance(outcome, Refused)
    assert "cannot be told" in outcome.reason
    assert values(site) == {OLD: True, NEW: True}


def test_two_of_one_age_are_not_told_apart_by_it(okta: Okta, site: OktaSite) -> None:
    site.add(NEW, created=site.kept[0].created)
    site.clear = site.hashed = False
    assert isinstance(okta.retire(holding(NEW, previous=OLD), None, None, soon()), Refused)
    assert values(site) == {OLD: True, NEW: True}


def test_the_last_active_secret_is_never_deactivated(okta: Okta, site: OktaSite) -> None:
    new = site.add(NEW, active=False)
    outcome = okta.retire(holding(NEW, previous=OLD), new.id, site.kept[0].id, soon())
    assert isinstance(outcome, Refused)
    assert "inactive" in outcome.reason
    site.kept.remove(new)
    assert isinstance(okta.retire(holding(NEW, previous=OLD), new.id, site.kept[0].id, soon()), Refused)
    assert values(site) == {OLD: True}


def test_what_was_deactivated_is_told_by_being_the_only_one(okta: Okta, site: OktaSite) -> None:
    new = site.add(NEW)
    site.kept[0].active = False
    site.clear = site.hashed = False
    assert isinstance(okta.restore(holding(NEW, previous=OLD), soon()), Applied)
    new.active = site.kept[0].active = False
    assert isinstance(okta.restore(holding(NEW, previous=OLD), soon()), Refused)


@pytest.mark.parametrize("verb", ["retire", "restore", "remove"])
def test_a_list_that_cannot_be_had_stops_each_of_them(okta: Okta, site: OktaSite, verb: str) -> None:
    site.answer("GET", "/secrets", 429, {"errorCode": "E0000047"}, Retry_After="1")
    given = (soon(),) if verb == "restore" else (None, None, soon())
    assert isinstance(getattr(okta, verb)(holding(NEW, previous=OLD), *given), Unknown)
    assert {one.method for one in site.requests} == {"GET"}


def test_nothing_of_it_shows_a_secret(okta: Okta, site: OktaSite, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    site.add(LATER)
    outcomes = [
        okta.apply(holding(pending=NEW), Secret(NEW), soon()),
        okta.retire(holding(NEW, previous=OLD), "x", "y", soon()),
        okta.check(holding(LATER, previous=OLD), soon()),
    ]
    shows_nothing(okta, vars(okta), *outcomes, caplog.text)
