"""The way to an administration API: what leaves, what is known where no answer comes, and what an answer means."""

from __future__ import annotations

import json
import logging
import socket
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from secretsource import TokenSource
from secretsource.backends.env import EnvBackend
from secretsource.clock import Deadline
from secretsource.errors import (
    AccessDenied,
    ConfigurationError,
    CredentialsRejected,
    DeadlineExceeded,
    IssuerUnavailable,
    SecretSourceError,
)
from secretsource.exchange import Answer as Exchanged
from secretsource.rotation.issuers.admin import (
    AdminApi,
    Unreached,
    Upload,
    checked,
    code_in,
    failure_of,
    number_at,
    secret_at,
    segment,
    text_at,
)
from secretsource.rotation.outcome import Client, Refused, Unknown
from secretsource.secret import Secret
from secretsource.testing import Answer, FakeIssuer, Fault, Incoming, LoopbackServer

NEW, ADMIN, API_TOKEN, IN_A_BODY = (
    f"not-a-real-secret-{name}" for name in ("of-the-client", "of-the-rotator", "api-token", "in-a-body")
)
CANARIES = (NEW, ADMIN, API_TOKEN, IN_A_BODY)
STORES = {"env": EnvBackend({"ROTATOR_CLIENT_ID": "rotator", "ROTATOR_CLIENT_SECRET": ADMIN, "OKTA": API_TOKEN})}


class Api:
    """An API that records what comes, and answers as a test says: with one answer, or by a function."""

    def __init__(self) -> None:
        self.requests: list[Incoming] = []
        self.answer: Answer | Callable[[Incoming], Answer] = Answer(200, {}, b"{}")
        self.server = LoopbackServer(self._answer)

    def _answer(self, incoming: Incoming) -> Answer:
        self.requests.append(incoming)
        return self.answer(incoming) if callable(self.answer) else self.answer


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    with api.server:
        yield api


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer() as issuer:
        issuer.add_client("rotator", ADMIN)
        yield issuer


def _soon(seconds: float = 20.0) -> Deadline:
    return Deadline(seconds)


def _said(status: int, body: Any = None, **headers: str) -> Answer:
    return Answer(status, headers, json.dumps({"error_description": IN_A_BODY} if body is None else body).encode())


def _bare(api: Api, **given: Any) -> AdminApi:
    return AdminApi(f"{api.server.origin}/admin/", admin=None, **given)


def _by_token(api: Api, issuer: FakeIssuer, **more: Any) -> AdminApi:
    table = {"credentials": "env://ROTATOR", "token_url": issuer.token_url, **more}
    return AdminApi(api.server.origin, admin=table, stores=STORES)


def _raised(kind: type[SecretSourceError], work: Callable[[], object]) -> SecretSourceError:
    with pytest.raises(kind) as caught:
        work()
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame.locals for frame in trace.stack if "/tests/" not in frame.filename]
    _shows_nothing(error, vars(error), frames)
    return error


def _shows_nothing(*things: object) -> None:
    shown = " ".join(f"{one} {one!r}" for one in things)
    assert [one for one in CANARIES if one in shown] == []


# --- what leaves


def test_json_with_secrets_in_it_is_sent_to_a_path_below_the_base_url(api: Api) -> None:
    document = {"secret": Secret(NEW), "nested": [{"again": Secret(NEW)}], "count": 1, "nothing": None}
    answer = _bare(api).ask("PUT", "/clients/pos", json=document, query={"a": "b c"}, deadline=_soon())
    assert isinstance(answer, Exchanged)
    (incoming,) = api.requests
    assert (incoming.method, incoming.path, incoming.query) == ("PUT", "/admin/clients/pos", "a=b+c")
    assert incoming.headers["content-type"] == "application/json"
    assert json.loads(incoming.body) == {"secret": NEW, "nested": [{"again": NEW}], "count": 1, "nothing": None}
    assert "authorization" not in incoming.headers


def test_what_was_read_can_be_sent_back_without_being_laid_open(api: Api) -> None:
    api.answer = _said(200, {"name": "pos", "secret": IN_A_BODY})
    read = _bare(api).ask("GET", "/clients/pos", deadline=_soon())
    assert isinstance(read, Exchanged)
    secret = Secret(NEW)
    _bare(api).ask(
        "PUT", "/clients/pos", json=lambda: {**read.members()[0], "secret": secret.reveal()}, deadline=_soon()
    )
    assert json.loads(api.requests[-1].body) == {"name": "pos", "secret": NEW}


def test_a_form_is_sent(api: Api) -> None:
    _bare(api).ask("POST", "/x", form={"id": "a&b", "secret": Secret(NEW)}, deadline=_soon())
    (incoming,) = api.requests
    assert incoming.headers["content-type"] == "application/x-www-form-urlencoded"
    assert dict(parse_qsl(incoming.body.decode())) == {"id": "a&b", "secret": NEW}


def test_a_multipart_form_is_sent_whose_file_is_made_where_the_body_is(api: Api) -> None:
    secret = Secret(NEW)
    parts: dict[str, str | Secret | Upload] = {
        "Key": secret,
        "Content": Upload('a "b".zip', lambda: secret.reveal().encode(), "application/zip"),
    }
    _bare(api).ask("POST", "/x", multipart=parts, deadline=_soon())
    _bare(api).ask("POST", "/x", multipart=lambda: parts, deadline=_soon())
    for incoming in api.requests:
        kind, _, boundary = incoming.headers["content-type"].partition("; boundary=")
        assert kind == "multipart/form-data"
        assert incoming.body.decode() == (
            f'--{boundary}\r\nContent-Disposition: form-data; name="Key"\r\n\r\n{NEW}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="Content"; filename="a%20%22b%22.zip"\r\n'
            f"Content-Type: application/zip\r\n\r\n{NEW}\r\n--{boundary}--\r\n"
        )


def test_headers_may_be_given(api: Api) -> None:
    _bare(api).ask("PATCH", "/x", json={}, headers={"Content-Type": "application/merge-patch+json"}, deadline=_soon())
    assert api.requests[0].headers["content-type"] == "application/merge-patch+json"


@pytest.mark.parametrize(
    "wrong",
    [{"json": {"a": float("nan")}}, {"json": lambda: 1 / 0}, {"json": {"a": object()}}, {"form": {"a": "\ud800"}}],
)
def test_a_body_that_cannot_be_written_is_an_error_that_shows_nothing(api: Api, wrong: Mapping[str, Any]) -> None:
    more = {**wrong, "json": {**wrong["json"], "b": Secret(NEW)}} if isinstance(wrong.get("json"), dict) else wrong
    _raised(ConfigurationError, lambda: _bare(api).ask("PUT", "/x", **more, deadline=_soon()))
    assert api.requests == []


def test_a_segment_is_one_part_of_a_path() -> None:
    assert segment("a/b?c#d é") == "a%2Fb%3Fc%23d%20%C3%A9"
    for wrong in ("", ".", "..", "\ud800"):
        with pytest.raises(ConfigurationError):
            segment(wrong)


def test_it_goes_over_plain_http_only_to_loopback_and_to_hosts_that_are_named() -> None:
    with pytest.raises(ConfigurationError, match="plain http"):
        AdminApi("http://keycloak:8080", admin=None)
    AdminApi("http://keycloak:8080", admin=None, plain_http=("keycloak:8080",))
    with pytest.raises(ConfigurationError, match=r"has a '\?'"):
        AdminApi("https://example.com/?a=b", admin=None)


# --- what it logs in with


def test_a_table_makes_a_token_source_whose_token_goes_along(api: Api, issuer: FakeIssuer) -> None:
    issuer.add_client("rotator", ADMIN, scopes=["manage"])
    admin = _by_token(api, issuer, scope="manage")
    for _ in range(2):
        assert isinstance(admin.ask("GET", "/x", deadline=_soon()), Exchanged)
    assert issuer.token_requests == 1
    scheme, _, token = api.requests[0].headers["authorization"].partition(" ")
    assert scheme == "Bearer"
    assert issuer.accepts(token)
    _shows_nothing(vars(admin), admin)


def test_defaults_stand_in_for_what_the_table_leaves_out(api: Api, issuer: FakeIssuer) -> None:
    defaults = {"token_url": issuer.token_url, "issuer": None}
    admin = AdminApi(api.server.origin, admin={"credentials": "env://ROTATOR"}, defaults=defaults, stores=STORES)
    assert isinstance(admin.ask("GET", "/x", deadline=_soon()), Exchanged)


def test_a_token_source_may_be_given_and_stays_open(api: Api, issuer: FakeIssuer) -> None:
    source = TokenSource("env://ROTATOR", token_url=issuer.token_url, stores=STORES)
    admin = AdminApi(api.server.origin, admin=source)
    assert isinstance(admin.ask("GET", "/x", deadline=_soon()), Exchanged)
    admin.close()
    assert issuer.accepts(source.token().access_token)


def test_one_that_was_made_is_closed(api: Api, issuer: FakeIssuer) -> None:
    admin = _by_token(api, issuer)
    admin.close()
    answer = admin.ask("GET", "/x", deadline=_soon())
    assert isinstance(answer, Unreached)
    assert not answer.sent


def test_a_secret_at_a_reference_goes_along_under_its_scheme(api: Api) -> None:
    admin = AdminApi(api.server.origin, admin={"token": "env:#OKTA", "scheme": "SSWS"}, stores=STORES)
    admin.ask("GET", "/x", deadline=_soon())
    assert api.requests[0].headers["authorization"] == f"SSWS {API_TOKEN}"
    bearer = AdminApi(api.server.origin, admin={"token": "env:#OKTA"}, stores=STORES)
    bearer.ask("GET", "/x", deadline=_soon())
    assert api.requests[1].headers["authorization"] == f"Bearer {API_TOKEN}"


def test_a_secret_in_a_document_is_named_by_its_field(api: Api, tmp_path: Path) -> None:
    path = tmp_path / "okta.json"
    path.write_text(json.dumps({"client_id": "pos", "api_token": API_TOKEN, "other": "x"}))
    path.chmod(0o600)
    admin = AdminApi(api.server.origin, admin={"token": f"file://{path}#api_token"})
    admin.ask("GET", "/x", deadline=_soon())
    assert api.requests[0].headers["authorization"] == f"Bearer {API_TOKEN}"
    whole = AdminApi(api.server.origin, admin={"token": f"file://{path}"})
    answer = whole.ask("GET", "/x", deadline=_soon())
    assert isinstance(answer, Unreached)
    assert "Name it" in str(answer.error)


def test_a_secret_that_no_header_takes_is_not_sent(api: Api) -> None:
    stores = {"env": EnvBackend({"OKTA": f"{API_TOKEN}\nX-Other: 1"})}
    answer = AdminApi(api.server.origin, admin={"token": "env:#OKTA"}, stores=stores).ask("GET", "/x", deadline=_soon())
    assert isinstance(answer, Unreached)
    assert not answer.sent
    _shows_nothing(answer, answer.error)
    assert api.requests == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"credential": "env://ROTATOR"},
        {"credentials": "env://ROTATOR"},
        {"token_url": "https://example.com/token"},
        {"token": "env:#OKTA", "scheme": "a b"},
        {"token": "env:#OKTA", "token_url": "https://example.com/token"},
        {"token": NEW},
        {"credentials": NEW, "token_url": "https://example.com/token"},
        {"credentials": "env://A", "token_url": "https://example.com/token", "profile": {"lockouts": True}},
        NEW,
        7,
    ],
)
def test_a_wrong_login_is_refused_and_not_repeated(wrong: Any) -> None:
    _raised(ConfigurationError, lambda: AdminApi("https://example.com", admin=wrong))


def test_a_profile_in_the_table_is_taken(api: Api, issuer: FakeIssuer) -> None:
    admin = _by_token(api, issuer, profile={"rejected": ["wrong_key"]}, plain_http=["a:80"])
    assert isinstance(admin.ask("GET", "/x", deadline=_soon()), Exchanged)


# --- a refused token


def test_a_read_whose_token_is_refused_is_asked_once_more_with_another(api: Api, issuer: FakeIssuer) -> None:
    admin = _by_token(api, issuer)
    admin.ask("GET", "/x", deadline=_soon())
    refused = api.requests[0].headers["authorization"]
    api.answer = lambda incoming: _said(401 if incoming.headers["authorization"] == refused else 200)
    answer = admin.ask("GET", "/x", deadline=_soon())
    assert isinstance(answer, Exchanged)
    assert answer.status == 200
    assert issuer.token_requests == 2
    api.answer = _said(401)
    answer = admin.ask("GET", "/x", deadline=_soon())
    assert isinstance(answer, Exchanged)
    assert answer.status == 401
    assert len(api.requests) == 5


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
def test_what_changes_something_is_sent_once_whatever_is_answered(api: Api, issuer: FakeIssuer, method: str) -> None:
    admin = _by_token(api, issuer)
    api.answer = _said(401)
    answer = admin.ask(method, "/x", deadline=_soon())
    assert isinstance(answer, Exchanged)
    assert len(api.requests) == 1
    failure = failure_of(answer, "changing it")
    assert isinstance(failure, Refused)
    assert "not accepted" in str(failure.hint)
    admin.ask(method, "/x", deadline=_soon())
    assert api.requests[1].headers["authorization"] != api.requests[0].headers["authorization"]


# --- no answer


def test_where_nothing_listens_nothing_was_sent(api: Api) -> None:
    with api.server.down():
        answer = _bare(api).ask("PUT", "/x", json={"a": Secret(NEW)}, deadline=_soon())
    assert isinstance(answer, Unreached)
    assert not answer.sent
    assert isinstance(answer.error, IssuerUnavailable)
    # It may pass by itself: a refusal would end the rotation.
    failure = failure_of(answer, "changing it")
    assert isinstance(failure, Unknown)
    assert "nothing was sent" in failure.reason
    _shows_nothing(failure, answer)


def test_where_tls_fails_nothing_was_sent_and_it_is_refused(api: Api) -> None:
    address = api.server.origin.removeprefix("http://")
    answer = AdminApi(f"https://{address}", admin=None).ask("PUT", "/x", json={}, deadline=_soon())
    assert isinstance(answer, Unreached)
    assert not answer.sent
    assert isinstance(failure_of(answer, "changing it"), Refused)
    assert api.requests == []


def test_where_there_is_no_token_nothing_was_sent(api: Api, issuer: FakeIssuer) -> None:
    issuer.set_secret("rotator", "not-a-real-secret-another")
    answer = _by_token(api, issuer).ask("PUT", "/x", json={}, deadline=_soon())
    assert isinstance(answer, Unreached)
    assert isinstance(answer.error, CredentialsRejected)
    assert isinstance(failure_of(answer, "changing it"), Refused)
    assert api.requests == []


@pytest.mark.parametrize(
    "fault", [Fault(reset=True), Fault(cut_after=1), Fault(content_length=100), Fault(cut_after=0)], ids=str
)
def test_where_the_answer_is_cut_it_was_sent(api: Api, fault: Fault) -> None:
    api.answer = Answer(200, {}, b'{"secret": "' + IN_A_BODY.encode() + b'"}', fault)
    answer = _bare(api).ask("PUT", "/x", json={"a": Secret(NEW)}, deadline=_soon())
    assert isinstance(answer, Unreached)
    assert answer.sent
    failure = failure_of(answer, "changing it")
    assert isinstance(failure, Unknown)
    _shows_nothing(failure, answer, vars(answer.error))


@pytest.mark.parametrize(
    "unusable", [Answer(200, {"Content-Encoding": "gzip"}, b"{}"), Answer(200, {}, b"x" * (1 << 20) + b"x")]
)
def test_where_the_answer_cannot_be_used_it_was_sent(api: Api, unusable: Answer) -> None:
    api.answer = unusable
    answer = _bare(api).ask("PUT", "/x", json={}, deadline=_soon())
    assert isinstance(answer, Unreached)
    assert answer.sent


def test_where_the_answer_is_late_it_was_sent(api: Api) -> None:
    api.answer = Answer(200, {}, b"{}", Fault(hang=True))
    answer = _bare(api).ask("PUT", "/x", json={}, deadline=_soon(0.5))
    assert isinstance(answer, Unreached)
    assert answer.sent
    assert isinstance(answer.error, DeadlineExceeded)


def test_where_no_connection_is_made_in_time_nothing_was_sent() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(address)
            answer = AdminApi(f"http://127.0.0.1:{address[1]}", admin=None).ask(
                "PUT", "/x", json={}, deadline=_soon(0.5)
            )
        finally:
            for one in waiting:
                one.close()
    assert isinstance(answer, Unreached)
    assert not answer.sent


def test_where_no_time_is_left_nothing_is_sent(api: Api, issuer: FakeIssuer) -> None:
    answer = _by_token(api, issuer).ask("PUT", "/x", json={}, deadline=_soon(0.0))
    assert isinstance(answer, Unreached)
    assert not answer.sent
    assert (api.requests, issuer.requests) == ([], [])


# --- what an answer means


def _answered(status: int, body: bytes = b"") -> Exchanged:
    return Exchanged(status, {}, body)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_these_say_that_it_was_done(status: int) -> None:
    assert failure_of(_answered(status), "changing it") is None
    assert checked(_answered(status), "reading it").status == status


@pytest.mark.parametrize("status", [301, 307, 308, 400, 401, 403, 404, 405, 410, 412, 413, 422, 423])
def test_these_say_that_nothing_has_changed(status: int) -> None:
    failure = failure_of(_answered(status), "changing it")
    assert isinstance(failure, Refused)
    assert str(status) in failure.reason
    _raised(ConfigurationError, lambda: checked(_answered(status), "reading it"))


@pytest.mark.parametrize("status", [302, 303, 408, 409, 425, 429, 500, 501, 502, 503, 504, 599])
def test_these_say_nothing(status: int) -> None:
    assert isinstance(failure_of(_answered(status), "changing it"), Unknown)
    if status >= 400:
        _raised(IssuerUnavailable, lambda: checked(_answered(status), "reading it"))


def test_a_hint_for_a_status_wins_over_the_usual_one() -> None:
    failure = failure_of(_answered(403), "changing it", hints={403: "Ask Bob"})
    assert isinstance(failure, Refused)
    assert failure.hint == "Ask Bob"
    assert _raised(ConfigurationError, lambda: checked(_answered(403), "it", hints={403: "Ask Bob"})).hint == "Ask Bob"


def test_a_read_that_got_no_answer_raises_why() -> None:
    _raised(AccessDenied, lambda: checked(Unreached(False, AccessDenied("closed")), "reading it"))


def test_values_are_found_by_their_place_and_secrets_stay_masked() -> None:
    body = {"id": "a", "list": [{"secret": IN_A_BODY, "at": 7}], "no": "", "flag": True, "bad": "a\nb"}
    answer = _answered(200, json.dumps(body).encode())
    assert text_at(answer, "id") == "a"
    assert number_at(answer, "list", 0, "at") == 7
    found = secret_at(answer, "list", 0, "secret")
    assert found == Secret(IN_A_BODY)
    _shows_nothing(found, answer)
    assert secret_at(answer, "no") is None
    assert text_at(answer, "bad") is None
    assert number_at(answer, "flag") is None
    places: list[tuple[str | int, ...]] = [("list", 1), ("list", "0"), ("id", "x"), ("none",), (0,)]
    for path in places:
        assert secret_at(answer, *path) is None
    assert text_at(_answered(200, b"not JSON"), "id") is None


def test_a_code_is_repeated_only_if_it_is_known() -> None:
    answer = _answered(400, json.dumps({"error": "invalid_client_metadata", "other": IN_A_BODY}).encode())
    assert code_in(answer, "error", known=["invalid_client_metadata"]) == "invalid_client_metadata"
    assert code_in(answer, "error", known=["other"]) is None
    assert code_in(answer, "other", known=["other"]) is None


# --- itself


def test_the_client_that_it_logs_in_with_is_refused(api: Api, issuer: FakeIssuer) -> None:
    admin = _by_token(api, issuer)
    admin.refuse_own(Client("pos", reference="env://POS"))
    for own in (Client("rotator", reference="env://OTHER"), Client("pos", reference="env://ROTATOR")):
        with pytest.raises(ConfigurationError, match="the rotator itself logs in"):
            admin.refuse_own(own)


def test_a_kept_token_is_refused_by_its_reference_alone(api: Api) -> None:
    admin = AdminApi(api.server.origin, admin={"token": "env:#OKTA"}, stores=STORES)
    admin.refuse_own(Client("pos", reference="env://POS"))
    with pytest.raises(ConfigurationError):
        admin.refuse_own(Client("pos", reference="env:#OKTA"))
    _bare(api).refuse_own(Client("pos", reference="env:#OKTA"))


def test_nothing_is_logged(api: Api, issuer: FakeIssuer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    api.answer = _said(500)
    _by_token(api, issuer).ask("PUT", "/x", json={"a": Secret(NEW)}, deadline=_soon())
    _shows_nothing(caplog.text)
