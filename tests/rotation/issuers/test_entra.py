"""Entra's adapter, on a site that behaves as the documentation of Microsoft Graph says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secretsource.errors import ConfigurationError, IssuerUnavailable
from secretsource.rotation import Adapter, Applied, Minted, Refused, Unknown
from secretsource.rotation.issuers import adapter_called
from secretsource.rotation.issuers.entra import Entra
from secretsource.secret import Secret
from secretsource.testing import TickingClock

from .fakes_entra import OBJECT, EntraSite
from .vendors import ADMIN, OLD, failed, holding, kept_login, shows_nothing, soon

LABEL = "secretsource-0123456789abcdef"
NEW = "Xy1-not-a-real-secret-of-the-rotation"
OTHER = "Zz9-not-a-real-secret-of-somebody-else"
DAY = 86400.0


@pytest.fixture
def site() -> Iterator[EntraSite]:
    with EntraSite() as site:
        yield site


@pytest.fixture
def entra(site: EntraSite) -> Entra:
    return Entra(admin=site.admin(), base_url=site.base_url)


def names(site: EntraSite) -> list[str | None]:
    return [one.name for one in site.passwords]


# --- looking


def test_it_is_an_adapter_whose_issuer_generates_and_keeps_several(entra: Entra) -> None:
    can = entra.capabilities
    assert isinstance(entra, Adapter)
    assert (can.chosen, can.single_slot, can.propagation, can.retires, can.restores) == (
        False,
        False,
        60.0,
        True,
        False,
    )


def test_a_check_finds_the_current_secret_and_its_end(entra: Entra, site: EntraSite) -> None:
    site.add(OTHER, "of somebody else")
    found = entra.check(holding(), soon())
    current = site.passwords[0]
    assert (found.cautions, found.secrets, found.current_id) == ([], 2, current.id)
    assert found.expires == pytest.approx(current.ends, abs=1)
    assert {one.method for one in site.requests if one.path != site.token_path} == {"GET"}


@pytest.mark.parametrize("hint", [OLD[:3], None])
def test_what_does_not_tell_the_current_secret_is_a_caution(entra: Entra, site: EntraSite, hint: str | None) -> None:
    site.add(OTHER, hint=hint)
    found = entra.check(holding(), soon())
    assert found.current_id is None
    assert "cannot be told" in found.cautions[0]
    shows_nothing(found)


def test_an_expired_one_is_not_taken_for_the_current_one(entra: Entra, site: EntraSite) -> None:
    site.add(OTHER, hint=OLD[:3], ends=site.clock.now().wall - DAY)
    assert entra.check(holding(), soon()).current_id == site.passwords[0].id


def test_a_table_needs_the_credentials_and_the_issuer(site: EntraSite, tmp_path: Path) -> None:
    made = adapter_called(
        "entra",
        {
            "base_url": f"{site.base_url}/",
            "lifetime": "180d",
            "admin": {"credentials": kept_login(tmp_path), "token_url": site.token_url},
        },
    )
    assert made.check(holding(), soon()).secrets == 1
    [login] = [one for one in site.requests if one.path == site.token_path]
    assert b"%2F.default" in login.body


def test_the_object_id_leads_to_the_application_as_well(site: EntraSite) -> None:
    entra = Entra(admin=site.admin(), base_url=site.base_url, object_id=OBJECT)
    assert entra.check(holding(), soon()).secrets == 1
    client = holding()._replace(client_id="another")
    failed(ConfigurationError, lambda: entra.check(client, soon()), says="another client ID")


def test_an_application_for_personal_accounts_has_room_for_two(entra: Entra, site: EntraSite) -> None:
    site.audience = "AzureADandPersonalMicrosoftAccount"
    assert entra.check(holding(), soon()).secrets == 1
    site.add(OTHER)
    failed(ConfigurationError, lambda: entra.check(holding(), soon()), says="takes no further one")


def test_an_application_that_is_not_there_is_said_with_the_way_out(entra: Entra) -> None:
    for client_id in ("another", "po's'", "a/b"):
        client = holding()._replace(client_id=client_id)
        failed(ConfigurationError, lambda client=client: entra.check(client, soon()), says="answered 404", hint="appId")  # type: ignore[misc]


def test_what_the_rotator_may_not_do_is_said_with_the_permission(entra: Entra, site: EntraSite) -> None:
    site.permitted = False
    failed(ConfigurationError, lambda: entra.check(holding(), soon()), says="answered 403", hint="OwnedBy")


def test_a_check_that_is_throttled_may_be_made_again(entra: Entra, site: EntraSite) -> None:
    site.answer("GET", "/applications", 429, {"error": {"code": "TooManyRequests"}}, Retry_After="1")
    failed(IssuerUnavailable, lambda: entra.check(holding(), soon()), says="answered 429")
    assert entra.check(holding(), soon()).secrets == 1


def test_the_rotator_does_not_rotate_the_client_that_it_logs_in_with(entra: Entra) -> None:
    client = holding()._replace(client_id=ADMIN)
    failed(ConfigurationError, lambda: entra.check(client, soon()), says="rotator itself")


@pytest.mark.parametrize("body", [{}, {"passwordCredentials": None}, {"passwordCredentials": [{"keyId": 7}]}, ["x"]])
def test_a_list_that_is_none_is_not_taken_for_an_empty_one(entra: Entra, site: EntraSite, body: Any) -> None:
    site.answer("GET", "/applications", 200, body)
    failed(IssuerUnavailable, lambda: entra.check(holding(), soon()), says="no list")
    site.answer("GET", "/applications", 200, body)
    assert isinstance(entra.retire(holding(NEW, previous=OLD), None, None, soon()), Unknown)


@pytest.mark.parametrize("lifetime", [0, "0s", "for ever"])
def test_a_lifetime_is_a_duration(site: EntraSite, lifetime: float | str) -> None:
    failed(ConfigurationError, lambda: Entra(admin=site.admin(), base_url=site.base_url, lifetime=lifetime))


# --- pages


def test_all_pages_of_a_list_are_read(entra: Entra, site: EntraSite) -> None:
    site.page = 1
    for number in range(3):
        site.add(f"{number}aa-{OTHER}")
    assert entra.check(holding(), soon()).secrets == 4
    assert site.came("GET", "/applications") == 4


@pytest.mark.parametrize("elsewhere", ["https://graph.example.org", "http://127.0.0.1:1", "http://user@127.0.0.1:1"])
def test_a_page_on_another_site_is_not_asked_for_with_our_token(entra: Entra, site: EntraSite, elsewhere: str) -> None:
    site.page, site.elsewhere = 1, elsewhere
    site.add(OTHER)
    failed(ConfigurationError, lambda: entra.check(holding(), soon()), says="not followed")


def test_pages_without_an_end_come_to_an_end(entra: Entra, site: EntraSite) -> None:
    site.page = 1
    for number in range(30):
        site.add(f"{number:02}a-{OTHER}")
    failed(ConfigurationError, lambda: entra.check(holding(), soon()), says="more than 20 pages")


# --- generating


def test_a_secret_is_generated_with_our_label_and_an_end() -> None:
    clock = TickingClock()
    with EntraSite(clock=clock) as site:
        entra = Entra(admin=site.admin(), base_url=site.base_url, lifetime="180d", clock=clock)
        minted = entra.mint(holding(), LABEL, soon(clock))
        made = site.passwords[1]
        assert isinstance(minted, Minted)
        assert (minted.secret.reveal(), minted.id, made.name) == (made.value, made.id, LABEL)
        assert minted.expires == pytest.approx(clock.now().wall + 180 * DAY, abs=1)
        shows_nothing(minted, more=[made.value])


def test_a_lost_answer_leaves_one_that_is_reaped_by_its_label(entra: Entra, site: EntraSite) -> None:
    site.add(OTHER, "secretsource-of-another-rotation")
    site.lose("POST", "addPassword")
    assert isinstance(entra.mint(holding(), LABEL, soon()), Unknown)
    assert LABEL in names(site)
    assert entra.reap(holding(), LABEL, soon()) == Applied()
    assert names(site) == ["made in the portal", "secretsource-of-another-rotation"]
    assert entra.reap(holding(), LABEL, soon()) == Applied()


def test_a_lost_answer_to_a_removal_is_made_good(entra: Entra, site: EntraSite) -> None:
    entra.mint(holding(), LABEL, soon())
    site.lose("POST", "removePassword")
    assert isinstance(entra.reap(holding(), LABEL, soon()), Unknown)
    assert entra.reap(holding(), LABEL, soon()) == Applied()


def test_one_that_went_while_it_was_removed_is_gone(entra: Entra, site: EntraSite) -> None:
    entra.mint(holding(), LABEL, soon())
    site.lose("POST", "removePassword")
    entra.reap(holding(), LABEL, soon())
    gone = site.passwords[0]
    listed = [site._shown(gone) | {"displayName": LABEL, "keyId": "00000000-0000-4000-8000-000000000000"}]
    site.answer("GET", "/applications", 200, {"passwordCredentials": listed})
    assert entra.reap(holding(), LABEL, soon()) == Applied()


@pytest.mark.parametrize(
    ("longest", "most", "hint"), [(90 * DAY, None, "lower lifetime="), (None, 1, None)], ids=["policy", "too many"]
)
def test_what_graph_says_no_to_is_refused_with_the_way_out(
    entra: Entra, site: EntraSite, longest: float | None, most: int | None, hint: str | None
) -> None:
    site.longest, site.most = longest, most
    outcome = entra.mint(holding(), LABEL, soon())
    assert isinstance(outcome, Refused)
    assert "answered 400" in outcome.reason
    assert (hint or "") in (outcome.hint or "")
    assert len(site.passwords) == 1
    shows_nothing(outcome)


@pytest.mark.parametrize(("status", "kind"), [(429, Unknown), (503, Unknown), (409, Unknown), (403, Refused)])
def test_only_what_graph_said_no_to_is_refused(
    entra: Entra, site: EntraSite, status: int, kind: type[Refused] | type[Unknown]
) -> None:
    site.answer("POST", "addPassword", status, {"error": {"code": OLD, "message": OLD}}, Retry_After="3")
    outcome = entra.mint(holding(), LABEL, soon())
    assert isinstance(outcome, kind)
    assert site.came("POST", "addPassword") == 1
    shows_nothing(outcome)


@pytest.mark.parametrize("body", [{"keyId": "x"}, {"keyId": "x", "secretText": ""}, {"keyId": "x", "secretText": 7}])
def test_an_answer_without_the_secret_is_not_taken_for_one(entra: Entra, site: EntraSite, body: Any) -> None:
    site.answer("POST", "addPassword", 200, body)
    assert isinstance(entra.mint(holding(), LABEL, soon()), Unknown)


# --- retiring


def test_the_previous_secret_is_removed_by_its_id_and_nothing_else(entra: Entra, site: EntraSite) -> None:
    old, other, new = site.passwords[0], site.add(OTHER, "secretsource-of-another-store"), site.add(NEW, LABEL)
    assert entra.retire(holding(NEW), new.id, old.id, soon()) == Applied(new.id)
    assert site.passwords == [other, new]
    assert entra.retire(holding(NEW), new.id, old.id, soon()) == Applied(new.id)
    assert site.came("POST", "removePassword") == 1


def test_one_that_was_made_by_hand_is_told_by_what_is_shown_of_it(entra: Entra, site: EntraSite) -> None:
    other, new = site.add(OTHER), site.add(NEW, LABEL)
    assert entra.retire(holding(NEW, previous=OLD), new.id, None, soon()) == Applied(new.id)
    assert site.passwords == [other, new]
    # Somebody has been quicker: none of what is left can be it.
    assert entra.retire(holding(NEW, previous=OLD), new.id, None, soon()) == Applied(new.id)


def test_an_id_of_an_earlier_secret_does_not_hide_the_one_that_was_put_there_since(
    entra: Entra, site: EntraSite
) -> None:
    earlier, new = site.add(OTHER), site.add(NEW, LABEL)
    assert entra.retire(holding(NEW, previous=OLD), new.id, earlier.id, soon()) == Applied(new.id)
    assert site.passwords == [earlier, new]
    site.add(OLD)
    assert entra.retire(holding(NEW, previous=OLD), new.id, "removed-long-ago", soon()) == Applied(new.id)
    assert site.passwords == [earlier, new]


def test_one_that_an_earlier_call_removed_is_not_looked_for_among_those_that_show_nothing(
    entra: Entra, site: EntraSite
) -> None:
    old, other, new = site.passwords[0], site.add(OTHER, hint=None), site.add(NEW, LABEL)
    site.lose("POST", "removePassword")
    assert isinstance(entra.retire(holding(NEW, previous=OLD), new.id, old.id, soon()), Unknown)
    assert entra.retire(holding(NEW, previous=OLD), new.id, old.id, soon()) == Applied(new.id)
    assert site.passwords == [other, new]


@pytest.mark.parametrize("hint", [OLD[:3], None], ids=["the same", "none"])
def test_what_cannot_be_told_is_left_to_a_person(entra: Entra, site: EntraSite, hint: str | None) -> None:
    site.add(OTHER, hint=hint)
    new = site.add(NEW, LABEL)
    outcome = entra.retire(holding(NEW, previous=OLD), new.id, None, soon())
    assert isinstance(outcome, Refused)
    assert "by hand" not in outcome.reason
    assert "Remove" in (outcome.hint or "")
    assert len(site.passwords) == 3
    shows_nothing(outcome)
    site.passwords = [new]  # the person has
    assert entra.retire(holding(NEW, previous=OLD), new.id, None, soon()) == Applied(new.id)


def test_after_a_leak_a_secret_of_unknown_id_is_left_to_a_person(entra: Entra, site: EntraSite) -> None:
    new = site.add(NEW, LABEL)
    assert isinstance(entra.retire(holding(NEW), new.id, None, soon()), Refused)
    site.passwords[0].ends = site.clock.now().wall - DAY  # one that has ended harms nobody
    assert entra.retire(holding(NEW), new.id, None, soon()) == Applied(new.id)
    assert len(site.passwords) == 2


def test_where_the_one_that_stays_looks_like_the_one_that_goes_nothing_is_removed(
    entra: Entra, site: EntraSite
) -> None:
    site.passwords = []
    site.add("Same-not-a-real-secret-1")
    outcome = entra.retire(holding("Same-not-a-real-secret-1", previous="Same-not-a-real-secret-0"), None, None, soon())
    assert isinstance(outcome, Refused)
    assert len(site.passwords) == 1


def test_a_secret_that_is_given_up_is_removed(entra: Entra, site: EntraSite) -> None:
    pending = site.add(NEW, LABEL)
    assert entra.retire(holding(OLD, pending=NEW), None, pending.id, soon()) == Applied(None)
    assert names(site) == ["made in the portal"]


def test_nothing_is_removed_while_the_one_that_stays_is_not_in_the_list(entra: Entra, site: EntraSite) -> None:
    old = site.passwords[0].id
    assert isinstance(entra.retire(holding(NEW, previous=OLD), "not-there-yet", old, soon()), Unknown)
    assert len(site.passwords) == 1


def test_an_id_of_an_earlier_secret_does_not_keep_one_from_being_given_up(entra: Entra, site: EntraSite) -> None:
    pending = site.add(NEW, LABEL)
    assert entra.retire(holding(OLD, pending=NEW), "removed-long-ago", pending.id, soon()) == Applied(None)
    assert names(site) == ["made in the portal"]


def test_no_value_is_taken_and_nothing_is_taken_back(entra: Entra, site: EntraSite) -> None:
    assert isinstance(entra.apply(holding(), Secret(NEW), soon()), Refused)
    assert isinstance(entra.restore(holding(), soon()), Refused)
    assert site.requests == []


def test_nothing_of_it_shows_a_secret(entra: Entra, site: EntraSite, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    minted = entra.mint(holding(), LABEL, soon())
    entra.retire(holding(NEW, previous=OLD), None, None, soon())
    more = [site.passwords[-1].value]
    shows_nothing(entra, vars(entra), minted, entra.check(holding(), soon()), caplog.text, more=more)
    sent = [json.loads(one.body) for one in site.requests if one.path.endswith("addPassword")]
    assert [set(one["passwordCredential"]) for one in sent] == [{"displayName", "endDateTime"}]
