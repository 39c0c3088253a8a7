"""Vault: every answer that may come, at the read and at the login; its error, and how often was asked."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from secretsource.backends.vault import AppRole, StaticToken, VaultBackend, ViaAgent
from secretsource.backends.vault import visit as visit_module
from secretsource.errors import (
    AccessDenied,
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    MalformedSecret,
    SecretNotFound,
    SecretSourceError,
)
from secretsource.testing import Answer, Fault

from ..stores import in_threads
from .openbao import Corner, OpenBao, Unavailable, server_context
from .vaults import (
    CLIENT_SECRET,
    DATA,
    IN_A_BODY,
    LOGIN,
    LOOKUP,
    NEW_TOKEN,
    PREFLIGHT,
    REFERENCE,
    REQUEST_ID,
    SECRET_ID,
    TOKEN,
    Given,
    Scripted,
    answer,
    by_token,
    errors,
    failed,
    failure,
    login,
    read,
    secret,
    secret_in,
)

pytestmark = pytest.mark.usefixtures("nothing_secret_is_logged")

JSON = {"Content-Type": "application/json"}
PAGE = Answer(200, {"Content-Type": "text/html"}, f"<html>Please sign in {IN_A_BODY}</html>".encode())


class Case(NamedTuple):
    """An answer at the read, what it becomes there, and how often is asked; `status` None: the same as the answer's."""

    answer: Answer
    kind: type[SecretSourceError]
    asked: int = 1
    says: str = ""
    hint: str = ""
    retry_after: float | None = None
    status: int | None = None
    request_id: str | None = REQUEST_ID
    retryable: bool = False


def transient(status: int, says: str, hint: str) -> Case:
    return Case(errors(status, "no"), BackendUnavailable, 3, says, hint, retryable=True)


def page_of_a_proxy(status: int) -> Case:
    """It tells nothing about the secret, so nothing that is known is dropped for it."""
    return Case(
        page(status), BackendUnavailable, 1, f"({status})", "a proxy in the way", request_id=None, retryable=True
    )


def page(status: int) -> Answer:
    return Answer(status, PAGE.headers, PAGE.body)


ANYWHERE = {
    "200 that is not JSON": Case(
        Answer(200, JSON, f"{{{IN_A_BODY}".encode()), MalformedSecret, 1, "is not JSON", "Is it Vault", request_id=None
    ),
    "200 that is empty": Case(Answer(200, JSON), MalformedSecret, 1, "is not JSON", "Is it Vault", request_id=None),
    "200 with a list": Case(
        answer([IN_A_BODY]), MalformedSecret, 1, "is not a JSON object", "Is it Vault", request_id=None
    ),
    "200 with a name twice": Case(
        Answer(200, JSON, f'{{"a": "{IN_A_BODY}", "a": "{IN_A_BODY}"}}'.encode()),
        MalformedSecret,
        1,
        "a name twice",
        "Is it Vault",
        request_id=None,
    ),
    "200 in another encoding": Case(
        Answer(200, JSON, b'{"a": "\xff"}'), MalformedSecret, 1, "is not JSON", "Is it Vault", request_id=None
    ),
    "a web page": Case(PAGE, MalformedSecret, 1, "is not JSON", "a proxy in the way", request_id=None),
    "204": Case(Answer(204), MalformedSecret, 1, "", "Is it Vault", request_id=None),
    "202": Case(errors(202), MalformedSecret, 1, "status 202", "Is it Vault"),
    "301": Case(
        errors(301, Location="https://elsewhere.test/"), ConfigurationError, 1, "sends elsewhere (301)", "active"
    ),
    "302": Case(
        errors(302, Location="https://elsewhere.test/"), ConfigurationError, 1, "sends elsewhere (302)", "active"
    ),
    "307": Case(
        errors(307, Location="https://elsewhere.test/"), ConfigurationError, 1, "sends elsewhere (307)", "active"
    ),
    "308": Case(
        errors(308, Location="https://elsewhere.test/"), ConfigurationError, 1, "sends elsewhere (308)", "active"
    ),
    "304": Case(Answer(304), ConfigurationError, 1, "(304)", "active"),
    "401": Case(errors(401), ConfigurationError, 1, "(401)", "Is it Vault"),
    "402": Case(errors(402), ConfigurationError, 1, "(402)"),
    "405": Case(errors(405, "unsupported operation"), ConfigurationError, 1, "(405)"),
    "407 and a page": page_of_a_proxy(407),
    "412": transient(412, "caught up", "asked again"),
    "429": transient(429, "rate limit", "quota"),
    "472": transient(472, "disaster recovery", "the primary"),
    "473": transient(473, "performance standby", "the active node"),
    "500": transient(500, "internal error", "log"),
    "501": Case(errors(501, "Vault is not initialized"), ConfigurationError, 1, "not initialized (501)", "init"),
    "502": transient(502, "what stands before it (502)", "proxy"),
    "502 and a page": Case(
        page(502), BackendUnavailable, 3, "(502)", "a proxy in the way", request_id=None, retryable=True
    ),
    "503": transient(503, "is not available", "maintained"),
    "503 sealed": Case(
        errors(503, "Vault is sealed"), BackendUnavailable, 1, "is sealed (503)", "unseals it", retryable=True
    ),
    "504": transient(504, "in time", "proxy"),
    "505": Case(errors(505), ConfigurationError, 1, "(505)"),
    "520": Case(errors(520), BackendUnavailable, 1, "out of order (520)", "log", retryable=True),
    "compressed": Case(
        Answer(200, {**JSON, "Content-Encoding": "gzip"}, gzip.compress(IN_A_BODY.encode())),
        MalformedSecret,
        1,
        "compressed",
        request_id=None,
    ),
    "too much": Case(
        Answer(200, JSON, b'{"data": "' + b"x" * (1 << 20) + b'"}'), MalformedSecret, 1, "more than", request_id=None
    ),
    "cut": Case(
        errors(200, fault=Fault(cut_after=9)),
        BackendUnavailable,
        3,
        "broke its answer off",
        status=0,
        request_id=None,
        retryable=True,
    ),
    "reset": Case(
        errors(200, fault=Fault(reset=True)), BackendUnavailable, 3, status=0, request_id=None, retryable=True
    ),
}
AT_THE_READ = {
    **ANYWHERE,
    "no data": Case(answer({"request_id": REQUEST_ID}), MalformedSecret, 1, "not what KV version 2 answers"),
    "no data in data": Case(
        answer({"request_id": REQUEST_ID, "data": {"client_secret": IN_A_BODY}}), MalformedSecret, 1, hint="?kv=1"
    ),
    "no mapping in data": Case(
        answer({"request_id": REQUEST_ID, "data": {"data": IN_A_BODY, "metadata": {"version": 1}}}), MalformedSecret
    ),
    "no metadata": Case(answer({"request_id": REQUEST_ID, "data": {"data": {"a": IN_A_BODY}}}), MalformedSecret),
    "a version that is no number": Case(
        answer({"request_id": REQUEST_ID, "data": {"data": {}, "metadata": {"version": IN_A_BODY}}}), MalformedSecret
    ),
    "a version that is a truth value": Case(
        answer({"request_id": REQUEST_ID, "data": {"data": {}, "metadata": {"version": True}}}), MalformedSecret
    ),
    "400": Case(errors(400, "no"), ConfigurationError, 1, "(400)", "Correct the reference"),
    "403": Case(errors(403, "permission denied"), AccessDenied, 1, "is refused (403)", "policy"),
    "403 and a page": Case(
        page(403), BackendUnavailable, 1, hint="a proxy in the way", request_id=None, retryable=True
    ),
    "404": Case(errors(404), SecretNotFound, 1, "was not found (404)", "Nothing is at that path"),
    "404 and a page": Case(
        page(404), BackendUnavailable, 1, hint="a proxy in the way", request_id=None, retryable=True
    ),
}
AT_THE_LOGIN = {
    **ANYWHERE,
    **{
        str(status): Case(errors(status, "no"), AccessDenied, 1, f"({status})", "secret ID is wrong")
        for status in (400, 403, 404)
    },
}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit_module, "WAITS_BETWEEN_ATTEMPTS", (0.002, 0.002))


def by_role(server: Scripted, **settings: Any) -> VaultBackend:
    return server.backend(AppRole("role", "given:id"), stores={"given": Given(SECRET_ID)}, **settings)


def checked(case: Case, error: SecretSourceError) -> None:
    assert error.retryable is case.retryable
    assert error.retry_after == case.retry_after
    if isinstance(error, BackendError):
        assert error.status == ((case.answer.status if case.status is None else case.status) or None)
        assert (error.reference, error.store) == (REFERENCE, "vault")
        assert error.request_id == case.request_id


@pytest.mark.parametrize("name", AT_THE_READ)
def test_an_answer_to_a_read_has_its_error(name: str) -> None:
    case = AT_THE_READ[name]
    with Scripted({DATA: case.answer}) as server:
        error = failure(case.kind, by_token(server), says=case.says, hint=case.hint)
        checked(case, error)
        assert server.came(DATA) == case.asked
        assert server.came() - server.came(PREFLIGHT) == case.asked


@pytest.mark.parametrize("name", AT_THE_LOGIN)
def test_an_answer_to_a_login_has_its_error(name: str) -> None:
    case = AT_THE_LOGIN[name]
    with Scripted({LOGIN: case.answer}) as server:
        error = failure(case.kind, by_role(server), says=case.says, hint=case.hint)
        checked(case, error)
        assert server.came(LOGIN) == server.came() == case.asked


@pytest.mark.parametrize("path", [DATA, LOGIN])
@pytest.mark.parametrize(
    "fault",
    [Fault(hang=True), Fault(drip_body=0.05), Fault(drip_head=0.05)],
    ids=["hang", "drip of the body", "drip of the head"],
)
def test_an_answer_that_does_not_end_ends_in_time(path: str, fault: Fault) -> None:
    good = secret() if path == DATA else login()
    slow = Answer(200, good.headers, good.body, fault)
    with Scripted({path: slow}) as server:
        began = time.monotonic()
        error = failure(BackendUnavailable, by_role(server, timeout=0.5), hint="timeout= of the store", says="0.5 s")
        assert time.monotonic() - began < 10
        assert error.retryable
        assert (error.reference, error.store) == (REFERENCE, "vault")
        assert server.came(path) == 1


def test_the_time_that_a_reader_gives_counts_where_it_is_shorter() -> None:
    with Scripted({DATA: errors(200, fault=Fault(hang=True))}) as server:
        began = time.monotonic()
        failure(BackendUnavailable, by_token(server, timeout=60), timeout=0.3, says="0.3 s")
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("status", [412, 429, 472, 473, 500, 502, 503, 504])
@pytest.mark.parametrize("path", [DATA, LOGIN])
def test_what_passes_is_asked_again_and_the_secret_read(path: str, status: int) -> None:
    with Scripted({path: [errors(status), secret() if path == DATA else login()]}) as server:
        assert secret_in(by_role(server)) == CLIENT_SECRET
        assert server.came(path) == 2


def test_nothing_listens() -> None:
    with Scripted() as server:
        backend = by_token(server)
        with server.server.down():
            error = failure(BackendUnavailable, backend, says="connection refused", hint="Is it up")
            assert error.retryable
        assert secret_in(backend) == CLIENT_SECRET


def test_a_character_set_beside_the_type_changes_nothing() -> None:
    """hvac alone then sees no JSON, and takes a deleted version for a good one."""
    headers = {"Content-Type": "application/json; charset=utf-8"}
    gone = {"data": {"data": None, "metadata": {"version": 3, "deletion_time": "2026-01-02T03:04:05Z"}}}
    with Scripted({DATA: [Answer(200, headers, secret().body), Answer(404, headers, answer(gone).body)]}) as server:
        backend = by_token(server)
        assert secret_in(backend) == CLIENT_SECRET
        failure(SecretNotFound, backend, says="was deleted: version 3 on 2026-01-02 03:04 UTC")


def test_a_redirect_is_not_followed_and_the_token_goes_nowhere() -> None:
    with Scripted() as elsewhere, Scripted() as server:
        for status in (301, 302, 303, 307, 308):
            server.script[DATA] = errors(status, Location=f"{elsewhere.address}{DATA}")
            failure(ConfigurationError, by_token(server), says="not followed")
            server.script[LOGIN] = errors(status, Location=f"{elsewhere.address}{LOGIN}")
            failure(ConfigurationError, by_role(server), says="not followed")
        assert elsewhere.requests == []


# --- Retry-After


@pytest.mark.parametrize("path", [DATA, LOGIN])
def test_a_time_to_wait_that_is_too_long_is_told_and_not_waited_for(path: str) -> None:
    with Scripted({path: errors(429, Retry_After="60")}) as server:
        error = failure(BackendUnavailable, by_role(server))
        assert error.retry_after == 60
        assert server.came(path) == 1


def test_a_time_to_wait_is_waited_for() -> None:
    with Scripted({DATA: [errors(429, Retry_After="1"), secret()]}) as server:
        began = time.monotonic()
        assert secret_in(by_token(server)) == CLIENT_SECRET
        assert time.monotonic() - began >= 1


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "Wed, 21 Oct 2026 07:28:00 GMT", ""])
def test_a_time_to_wait_that_is_none_is_left_out(value: str) -> None:
    with Scripted({DATA: errors(429, Retry_After=value)}) as server:
        assert failure(BackendUnavailable, by_token(server)).retry_after is None
        assert server.came(DATA) == 3


def test_a_longer_time_to_wait_counts_as_five_minutes() -> None:
    with Scripted({DATA: errors(429, Retry_After="86400")}) as server:
        assert failure(BackendUnavailable, by_token(server)).retry_after == 300
        assert server.came(DATA) == 1


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e999", "true", "-7", '"60"'])
def test_a_life_that_is_none_makes_the_token_one_of_unknown_life(number: str) -> None:
    body = f'{{"auth": {{"client_token": "{TOKEN}", "lease_duration": {number}, "renewable": true}}}}'.encode()
    granted = Answer(200, {"Content-Type": "application/json"}, body)
    with Scripted({LOGIN: granted, DATA: secret()}) as server:
        assert (
            secret_in(server.backend(AppRole("role", "file:id"), stores={"file": Given("not-a-real-secret-id")}))
            == CLIENT_SECRET
        )


@pytest.mark.parametrize("moment", ["2026-01-01", "2026-01-01T00:00:00", "soon", ""])
def test_a_time_of_writing_without_a_zone_is_left_out(moment: str) -> None:
    data = {"data": {"client_id": "pos", "client_secret": CLIENT_SECRET}}
    with Scripted({DATA: answer({"data": {**data, "metadata": {"version": 1, "created_time": moment}}})}) as server:
        assert read(by_token(server)).created is None


# --- what an answer must not do


@pytest.mark.parametrize("request_id", ["short", IN_A_BODY + " with blanks", "x" * 129, 7, None, ["a"]])
def test_a_request_id_that_is_none_is_left_out(request_id: Any) -> None:
    with Scripted({DATA: answer({"request_id": request_id, "errors": []}, 500)}) as server:
        assert failure(BackendUnavailable, by_token(server)).request_id is None


@pytest.mark.parametrize(
    "texts", [None, IN_A_BODY, {"a": IN_A_BODY}, [IN_A_BODY, 7, None, {"sealed": IN_A_BODY}], [[IN_A_BODY]]]
)
def test_errors_of_another_shape_are_not_read(texts: Any) -> None:
    with Scripted({DATA: answer({"errors": texts, "warnings": texts}, 500)}) as server:
        failure(BackendUnavailable, by_token(server), says="internal error")


def test_an_answer_to_what_is_only_asked_for_a_hint_may_be_anything() -> None:
    for odd in (PAGE, errors(500), errors(307), answer({"data": {"path": 7, "type": []}}), answer([])):
        with Scripted({DATA: errors(404), PREFLIGHT: odd}) as server:
            failure(SecretNotFound, by_token(server), hint="Nothing is at that path")
            assert server.came(PREFLIGHT) == 1


def test_a_refused_read_is_one_login_more_and_no_further_one() -> None:
    """Also not for the question that only words the error."""
    refusal = errors(403, "1 error occurred:\n\t* permission denied\n\n")
    logins = [login(TOKEN), login(NEW_TOKEN), login(f"{NEW_TOKEN}-2")]
    with Scripted({LOGIN: logins, DATA: refusal, PREFLIGHT: refusal}) as server:
        failure(AccessDenied, by_role(server))
        assert (server.came(LOGIN), server.came(DATA), server.came(PREFLIGHT)) == (2, 2, 1)


def test_a_secret_that_is_not_there_needs_no_further_login() -> None:
    with Scripted({DATA: errors(404), PREFLIGHT: errors(403, "preflight capability check returned 403")}) as server:
        failure(SecretNotFound, by_role(server), hint="no mount 'kv'")
        assert (server.came(LOGIN), server.came(DATA), server.came(PREFLIGHT)) == (1, 1, 1)


def test_a_login_that_fails_for_many_readers_names_the_reference_of_each() -> None:
    slow = errors(400, "invalid role or secret ID", fault=Fault(latency=0.3))
    names = ["vault://kv/prod/pos", "vault://kv/prod/stock", "vault://kv/prod/till"]
    with Scripted({LOGIN: slow}) as server:
        backend, waiting = by_role(server), iter(names)
        outcomes = in_threads(3, lambda: read(backend, next(waiting)))
        assert server.came(LOGIN) == 1
    assert sorted(one.reference for one in outcomes) == names
    for error in outcomes:
        assert type(error) is AccessDenied
        assert not any(name in str(error) for name in names if name != error.reference)


def test_a_refusal_through_an_agent_says_whose_token_counts() -> None:
    with Scripted({DATA: errors(403, "permission denied")}) as server:
        failure(AccessDenied, server.backend(ViaAgent()), hint="that of the agent")


# --- raw leases


@pytest.mark.parametrize(
    ("lease", "ttl", "valid"),
    [
        (100, None, 80),
        (100_000, None, 80_000),
        (0, 50, 40),
        (0, 100_000, 240),
        (100, 50, 40),
        (0, 0, None),
        (-5, None, None),
        ("9", "8", None),
    ],
)
def test_what_is_raw_holds_as_long_as_its_lease_less_a_fifth(lease: Any, ttl: Any, valid: float | None) -> None:
    data = {"client_id": "pos", "client_secret": CLIENT_SECRET, **({} if ttl is None else {"ttl": ttl})}
    body = {"lease_id": "azure/creds/pos/x1", "lease_duration": lease, "data": data}
    with Scripted({"/v1/azure/creds/pos": answer(body)}) as server:
        document = read(by_token(server), "vault://azure/creds/pos?kv=raw")
        assert document.valid_for == valid


def test_what_is_raw_has_its_lease_for_a_version() -> None:
    data = {"client_id": "pos", "client_secret": CLIENT_SECRET}
    one, other = (answer({"lease_id": f"azure/creds/pos/{name}", "lease_duration": 9, "data": data}) for name in "ab")
    with Scripted({"/v1/azure/creds/pos": [one, one, other]}) as server:
        backend = by_token(server)
        versions = [read(backend, "vault://azure/creds/pos?kv=raw").version for _ in range(3)]
        assert versions[0] == versions[1] != versions[2]


@pytest.mark.parametrize("kind", ["1", "raw"])
@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": []}, {"data": IN_A_BODY}])
def test_an_answer_without_data_is_malformed(kind: str, body: dict[str, Any]) -> None:
    with Scripted({"/v1/kv/prod/pos": answer(body)}) as server:
        failure(MalformedSecret, by_token(server), f"{REFERENCE}?kv={kind}", says="no data in it", hint="kv= right")


# --- the real server: sealed, not initialized, over its rate


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OpenBao]:
    """One that is not initialized."""
    try:
        with OpenBao(tmp_path, trustme.CA(), initialized=False) as server:
            yield server
    except Unavailable as why:
        pytest.skip(str(why))


def test_a_server_that_is_sealed_or_not_initialized_says_so_and_serves_once_it_is_unsealed(own_server: OpenBao) -> None:
    backend = VaultBackend(
        own_server.address, auth=StaticToken("given:token"), stores={"given": Given("not-a-real-secret-token")}
    )
    failure(BackendUnavailable, backend, says="is sealed (503)", hint="unseals it")
    own_server.initialize()
    error = failure(BackendUnavailable, backend, says="is sealed (503)", hint="unseals it")
    assert error.retryable
    own_server.unseal()
    failure(AccessDenied, backend)
    own_server.seal()
    failure(BackendUnavailable, backend, says="is sealed (503)")


def test_a_rate_quota_of_the_server_is_told_and_passes(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", CLIENT_SECRET)
    backend = corner.by_token(corner.token(corner.policy(f"{kv}/data/pos")))
    read(backend, f"vault://{kv}/pos")
    quota = f"sys/quotas/rate-limit/{corner.name}"
    corner.api("POST", quota, {"path": f"{kv}/", "rate": 0.01, "interval": "60s"})
    try:
        error = failed(
            BackendUnavailable, lambda: [read(backend, f"vault://{kv}/pos") for _ in range(4)], says="rate limit"
        )
        assert (error.status, error.retryable) == (429, True)
    finally:
        corner.api("DELETE", quota)
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET


# --- TLS


def test_the_authority_that_is_given_is_trusted_and_no_other(corner: Corner, tmp_path: Path) -> None:
    """hvac with a session of one's own forgets the file."""
    kv, server = corner.kv(), corner.server
    corner.secret(kv, "pos", CLIENT_SECRET)
    token = corner.token(corner.policy(f"{kv}/data/pos"))
    backend = corner.by_token(token, address=server.tls_address, ca_file=server.ca_file)
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    for wrong in (tmp_path / "other.pem", None):
        backend = corner.by_token(token, address=server.tls_address, ca_file=wrong)
        error = failure(BackendUnavailable, backend, f"vault://{kv}/pos", says="not trusted", hint="ca_file=")
        assert not error.retryable


@pytest.mark.parametrize("fault", ["wrong host", "expired"])
def test_a_certificate_with_a_fault_is_not_trusted_and_the_token_not_sent(fault: str, tmp_path: Path) -> None:
    authority, now = trustme.CA(), datetime.now(UTC)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = (
        server_context(authority, "elsewhere.test")
        if fault == "wrong host"
        else server_context(authority, not_before=now - timedelta(days=9), not_after=now - timedelta(days=2))
    )
    with Scripted(ssl_context=context) as server:
        says = "another address" if fault == "wrong host" else "expired"
        error = failure(BackendUnavailable, by_token(server, ca_file=tmp_path / "ca.pem"), says=says)
        assert not error.retryable
        assert server.requests == []


def test_an_authority_that_is_exchanged_on_disk_is_trusted_without_a_restart(tmp_path: Path) -> None:
    one, other = trustme.CA(), trustme.CA()
    one.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Scripted(ssl_context=server_context(other)) as server:
        backend = by_token(server, ca_file=tmp_path / "ca.pem")
        failure(BackendUnavailable, backend, says="not trusted")
        other.cert_pem.write_to_path(tmp_path / "ca.pem")
        assert secret_in(backend) == CLIENT_SECRET


def test_plain_http_is_refused_off_loopback_unless_it_is_named() -> None:
    auth = StaticToken("env:#NOT_READ")
    failed(ConfigurationError, lambda: VaultBackend("http://vault.test:8200", auth=auth), says="plain http")
    failed(
        ConfigurationError,
        lambda: VaultBackend("http://vault.test:8200", auth=auth, plain_http="other.test:8200"),
        hint="plain_http=('vault.test:8200',)",
    )
    VaultBackend("http://vault.test:8200", auth=auth, plain_http="vault.test:8200")
    VaultBackend("http://127.0.0.1:8200", auth=auth)


@pytest.mark.parametrize(
    "address",
    [
        "vault.test:8200",
        "https://vault.test/v1",
        "https://vault.test/?x=1",
        "https://user:not-a-real-secret-vault-token@vault.test",
        "",
        "ftp://vault.test",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated_where_it_may_hold_a_secret(address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        VaultBackend(address, auth=StaticToken("env:#NOT_READ"))
    assert "not-a-real-secret" not in f"{caught.value!s} {vars(caught.value)}"


def test_an_address_may_have_a_path_before_the_api() -> None:
    with Scripted({f"/vault{DATA}": secret()}) as server:
        assert secret_in(by_token(server, address=f"{server.address}/vault/")) == CLIENT_SECRET


def test_the_question_about_a_token_may_be_answered_with_anything() -> None:
    """A token without the policy default may not ask about itself; it reads all the same."""
    for odd in (errors(403), errors(500), PAGE, answer([]), answer({"data": {"ttl": "x", "creation_ttl": None}})):
        with Scripted({LOOKUP: odd}) as server:
            backend = server.backend(StaticToken("given:t"), stores={"given": Given("not-a-real-secret-vault-token")})
            assert [secret_in(backend) for _ in range(2)] == [CLIENT_SECRET] * 2
            assert (server.came(DATA), server.came(LOOKUP)) == (2, 1)
