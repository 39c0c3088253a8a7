"""Vault: the whole is written by check-and-set, and what cannot be written so is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from secretsource import SecretReference
from secretsource.backends import Writable
from secretsource.backends.vault import VaultBackend
from secretsource.backends.vault import visit as visit_module
from secretsource.errors import AccessDenied, BackendUnavailable, ConfigurationError, MalformedSecret, SecretNotFound
from secretsource.secret import Secret
from secretsource.testing import Answer, Fault, Incoming

from ..stores import in_threads
from .layouts import revealed
from .openbao import Corner
from .vaults import (
    CLIENT_SECRET,
    DATA,
    IN_A_BODY,
    LOGIN,
    Scripted,
    answer,
    by_token,
    errors,
    failed,
    failure,
    secret,
    secret_in,
)

pytestmark = pytest.mark.usefixtures("nothing_secret_is_logged")

FIELDS = {"client_id": "pos", "client_secret": Secret(CLIENT_SECRET)}
OTHER = "not-a-real-secret-of-another-writer"


class Place:
    """A place that nobody has written to, with a token that may write there."""

    def __init__(self, corner: Corner) -> None:
        self.corner, self.kv = corner, corner.kv()
        self.path = f"{self.kv}/data/prod/pos"
        token = corner.token(corner.policy(self.path, capabilities=("read", "create", "update")))
        self.backend = corner.by_token(token)
        self.reference = SecretReference.parse(f"vault://{self.kv}/prod/pos")

    def whole(self) -> tuple[dict[str, Any], str | None]:
        fields, version, *_ = self.backend.read_whole(self.reference, timeout=10)
        return revealed(fields), version

    def write(self, fields: dict[str, Any], version: str | None) -> str:
        return self.backend.write_whole(self.reference, fields, version=version, timeout=10)


@pytest.fixture
def place(corner: Corner) -> Place:
    return Place(corner)


def test_the_backend_can_be_written() -> None:
    assert isinstance(VaultBackend(), Writable)


def test_what_is_not_there_is_created_and_counts_from_1(place: Place) -> None:
    assert place.whole() == ({}, None)
    assert place.write(dict(FIELDS), None) == "1"
    assert place.whole() == (revealed(FIELDS), "1")
    assert secret_in(place.backend, str(place.reference)) == CLIENT_SECRET


def test_an_update_is_the_next_version_and_keeps_what_it_was_given(place: Place) -> None:
    place.corner.put(place.path, {"data": {"a": {"b": "c", "n": [1, None, True, "x"]}, "port": 443, "empty": ""}})
    fields, version, *_ = place.backend.read_whole(place.reference, timeout=10)
    assert place.write({**fields, "client_secret": CLIENT_SECRET}, version) == "2"
    kept = place.corner.api("GET", place.path)["data"]["data"]
    assert kept == {
        "a": {"b": "c", "n": [1, None, True, "x"]},
        "port": 443,
        "empty": "",
        "client_secret": CLIENT_SECRET,
    }


def test_what_was_read_is_masked(place: Place) -> None:
    place.write(dict(FIELDS), None)
    stored = place.backend.read_whole(place.reference, timeout=10)
    assert CLIENT_SECRET not in f"{stored} {stored!r}"


@pytest.mark.parametrize("known", [None, "1", "7"])
def test_who_was_slower_is_refused_and_loses_nothing(place: Place, known: str | None) -> None:
    for value in (CLIENT_SECRET, OTHER):
        place.corner.secret(place.kv, "prod/pos", value)
    error = failed(BackendUnavailable, lambda: place.write(dict(FIELDS), known), says="meanwhile", hint="Read it again")
    assert (error.retryable, error.status, error.reference) == (True, 400, str(place.reference))
    assert place.whole()[0]["client_secret"] == OTHER


def test_of_many_writers_one_wins(place: Place) -> None:
    place.write(dict(FIELDS), None)
    outcomes = in_threads(8, lambda: place.write({"client_id": "pos", "client_secret": OTHER}, "1"))
    assert outcomes.count("2") == 1
    assert sum(type(one) is BackendUnavailable for one in outcomes) == 7


def test_after_a_deleted_version_the_numbers_go_on(place: Place) -> None:
    place.write(dict(FIELDS), None)
    place.corner.api("DELETE", place.path)
    assert place.whole() == ({}, "1")
    assert place.write(dict(FIELDS), "1") == "2"
    place.corner.api("PUT", f"{place.kv}/destroy/prod/pos", {"versions": [2]})
    assert place.whole() == ({}, "2")
    assert place.write(dict(FIELDS), "2") == "3"


def test_after_all_is_deleted_the_numbers_begin_anew(place: Place) -> None:
    place.write(dict(FIELDS), None)
    place.corner.api("DELETE", f"{place.kv}/metadata/prod/pos")
    assert place.whole() == ({}, None)
    assert place.write(dict(FIELDS), None) == "1"


def test_a_mount_that_demands_check_and_set_is_written(place: Place) -> None:
    place.corner.api("POST", f"{place.kv}/config", {"cas_required": True})
    assert place.write(dict(FIELDS), None) == "1"


def test_auto_is_written_where_it_is_version_2(place: Place) -> None:
    reference = SecretReference.parse(f"{place.reference}?kv=auto")
    assert place.backend.write_whole(reference, FIELDS, version=None, timeout=10) == "1"


def test_auto_is_not_written_where_it_is_version_1(corner: Corner) -> None:
    kv = corner.kv1()
    backend, reference = corner.by_token(corner.server.root), SecretReference.parse(f"vault://{kv}/pos?kv=auto")
    failed(
        ConfigurationError,
        lambda: backend.write_whole(reference, FIELDS, version=None, timeout=10),
        hint="enable-versioning",
    )
    assert corner.came(f"{kv}/pos") == 0


@pytest.mark.parametrize(
    ("options", "says"), [("kv=1", "version 2"), ("kv=raw", "version 2"), ("version=1", "one version")]
)
def test_what_has_no_versions_or_only_one_is_not_written_and_nothing_is_asked(options: str, says: str) -> None:
    reference = SecretReference.parse(f"vault://kv/prod/pos?{options}")
    with Scripted() as server:
        backend = by_token(server)
        for work in (
            lambda: backend.read_whole(reference, timeout=10),
            lambda: backend.write_whole(reference, FIELDS, version=None, timeout=10),
        ):
            failed(ConfigurationError, work, says=says)
        assert server.requests == []


def test_a_policy_that_only_reads_is_denied_and_told(corner: Corner) -> None:
    kv = corner.kv()
    backend = corner.by_token(corner.token(corner.policy(f"{kv}/data/pos")))
    reference = SecretReference.parse(f"vault://{kv}/pos")
    hint = f"create and update on the path {kv}/data/pos"
    failed(AccessDenied, lambda: backend.write_whole(reference, FIELDS, version=None, timeout=10), hint=hint)


def test_a_mount_that_is_not_there_is_told_at_the_write(corner: Corner) -> None:
    backend = corner.by_token(corner.token(corner.policy(f"{corner.name}-none/*", capabilities=("create", "update"))))
    reference = SecretReference.parse(f"vault://{corner.name}-none/pos")
    failed(
        SecretNotFound,
        lambda: backend.write_whole(reference, FIELDS, version=None, timeout=10),
        hint="there is no mount",
    )


# --- by a script


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit_module, "WAITS_BETWEEN_ATTEMPTS", (0.002, 0.002))


REFERENCE = SecretReference.parse("vault://kv/prod/pos")


def written(version: int) -> Answer:
    return answer({"data": {"version": version, "created_time": "2026-01-02T03:04:05Z"}})


def test_what_was_written_is_awaited_where_a_standby_lags_behind() -> None:
    answers = [written(3), secret(version=2), secret(version=2), secret(version=3)]
    with Scripted({DATA: answers}) as server:
        assert by_token(server).write_whole(REFERENCE, FIELDS, version="2", timeout=10) == "3"
        assert [one.method for one in server.requests] == ["POST", "GET", "GET", "GET"]
        assert json.loads(server.requests[0].body)["options"] == {"cas": 2}


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("after", [errors(503), errors(403), errors(404), Answer(200, {}, b"{")])
def test_what_was_written_stays_written_where_it_cannot_be_read_back(after: Answer) -> None:
    with Scripted({DATA: [written(3), after]}) as server:
        assert by_token(server).write_whole(REFERENCE, FIELDS, version="2", timeout=10) == "3"
        assert [one.method for one in server.requests].count("POST") == 1


def test_a_standby_that_stays_behind_is_not_awaited_for_ever() -> None:
    def stale(incoming: Incoming) -> Answer:
        return written(3) if incoming.method == "POST" else secret(version=2)

    with Scripted({DATA: stale}) as server:
        assert by_token(server).write_whole(REFERENCE, FIELDS, version="2", timeout=0.7) == "3"


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_write_is_sent_once_whatever_comes_back(status: int) -> None:
    """It may have been done: to send it again would be refused as somebody else's."""
    with Scripted({DATA: errors(status)}) as server:
        backend = by_token(server)
        failed(BackendUnavailable, lambda: backend.write_whole(REFERENCE, FIELDS, version="1", timeout=10))
        assert server.came(DATA) == 1


def test_a_write_whose_answer_is_lost_is_sent_once() -> None:
    with Scripted({DATA: errors(200, fault=Fault(reset=True))}) as server:
        backend = by_token(server)
        failed(BackendUnavailable, lambda: backend.write_whole(REFERENCE, FIELDS, version="1", timeout=10))
        assert server.came(DATA) == 1


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {}}, {"data": {"version": "3"}}, {"data": [3]}])
def test_an_answer_to_a_write_without_a_number_is_malformed(body: dict[str, Any]) -> None:
    with Scripted({DATA: answer(body)}) as server:
        backend = by_token(server)
        failed(MalformedSecret, lambda: backend.write_whole(REFERENCE, FIELDS, version="1", timeout=10))


def test_a_write_that_is_not_understood_shows_nothing_of_it() -> None:
    with Scripted({DATA: errors(400, IN_A_BODY, CLIENT_SECRET)}) as server:
        backend = by_token(server)
        failed(ConfigurationError, lambda: backend.write_whole(REFERENCE, FIELDS, version="1", timeout=10))


def test_what_lies_at_a_path_that_cannot_be_read_is_not_taken_for_nothing() -> None:
    """A page of a proxy with the status 404 says nothing about what is kept."""
    page = Answer(404, {"Content-Type": "text/html"}, b"<html>")
    with Scripted({DATA: page}) as server:
        backend = by_token(server)
        failed(BackendUnavailable, lambda: backend.read_whole(REFERENCE, timeout=10), hint="a proxy in the way")


def test_reading_the_whole_fails_as_reading_does() -> None:
    with Scripted({DATA: errors(503, "Vault is sealed")}) as server:
        backend = by_token(server)
        failed(BackendUnavailable, lambda: backend.read_whole(REFERENCE, timeout=10), says="sealed")
        failure(BackendUnavailable, backend, says="sealed")
        assert server.came(LOGIN) == 0
