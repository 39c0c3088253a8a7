"""RFC 7592 at servers that we did not write: Authlib's configuration endpoint, and oidc-provider's."""

from __future__ import annotations

import json
import logging
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from secretsource import TokenSource
from secretsource.clock import Deadline
from secretsource.credentials import ClientCredentials
from secretsource.errors import ConfigurationError, IssuerUnavailable, SecretSourceError
from secretsource.rotation.issuers.registration import Registration
from secretsource.rotation.outcome import Adapter, Applied, Client, Minted, Refused, Unknown
from secretsource.secret import Secret
from secretsource.testing import Answer, Fault, Incoming, LoopbackServer

from ...real.authlib_server import AuthlibServer
from ...real.oidc_provider import OidcProvider, Unavailable

SECRET = "not-a-real-secret-first"
SCOPES = ("orders.read",)
LABEL = "secretsource-of-a-test"


@pytest.fixture
def server() -> Iterator[AuthlibServer]:
    with AuthlibServer(client_id="pos", client_secret=SECRET, scopes=SCOPES) as server:
        yield server


@pytest.fixture(scope="module")
def oidc() -> Iterator[OidcProvider]:
    with ExitStack() as running:
        try:
            provider = OidcProvider(client_id="pos", client_secret=SECRET, scopes=SCOPES, management=True)
            yield running.enter_context(provider)
        except Unavailable as why:
            pytest.skip(str(why))


class Relay:
    """Hands requests on to a server, and loses the answers that a test names; what has passed is recorded."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self.passed: list[Incoming] = []
        self.lost: list[str] = []
        self.instead: dict[str, Answer] = {}
        self.server = LoopbackServer(self._answer)

    def _answer(self, incoming: Incoming) -> Answer:
        self.passed.append(incoming)
        if incoming.method in self.instead:
            return self.instead[incoming.method]
        headers = {
            name: incoming.headers[name] for name in ("authorization", "content-type") if name in incoming.headers
        }
        url = f"{self._origin}{incoming.path}"
        request = urllib.request.Request(url, incoming.body or None, headers, method=incoming.method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        if incoming.method in self.lost:
            self.lost.remove(incoming.method)
            return Answer(fault=Fault(reset=True))
        return Answer(status, {"Content-Type": "application/json"}, body)


@pytest.fixture
def relay(server: AuthlibServer) -> Iterator[Relay]:
    relay = Relay(server.issuer)
    with relay.server:
        yield relay


def _soon() -> Deadline:
    return Deadline(20.0)


def _client(server: AuthlibServer, *, uri: str | None = None, current: str | None = None, **beside: str) -> Client:
    texts = {
        "registration_client_uri": uri or server.registration_uri,
        "registration_access_token": server.registration_token,
        **beside,
    }
    kept = {name: Secret(text) for name, text in texts.items() if text}
    held = Secret(server.client_secret if current is None else current)
    return Client("pos", kept, reference="vault://kv/pos", current=held, issuer=server.issuer)


def _gets_a_token(server: AuthlibServer | OidcProvider, secret: Secret) -> bool:
    with TokenSource(ClientCredentials("pos", secret), token_url=server.token_url) as source:
        return source.token(scope="orders.read").expires_in > 0


def _minted(adapter: Registration, client: Client) -> Minted:
    outcome = adapter.mint(client, LABEL, _soon())
    assert isinstance(outcome, Minted), outcome
    _shows_nothing(outcome, adapter, vars(adapter))
    return outcome


def _refused(adapter: Registration, client: Client) -> Refused:
    outcome = adapter.mint(client, LABEL, _soon())
    assert isinstance(outcome, Refused), outcome
    _shows_nothing(outcome, adapter, vars(adapter))
    return outcome


def _shows_nothing(*things: object, more: str = "") -> None:
    shown = " ".join(f"{one} {one!r}" for one in things) + more
    assert "not-a-real-secret" not in shown


def _raised(kind: type[SecretSourceError], work: Callable[[], object]) -> SecretSourceError:
    with pytest.raises(kind) as caught:
        work()
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    _shows_nothing(error, [frame.locals for frame in trace.stack if "/tests/" not in frame.filename])
    return error


def test_it_is_an_adapter_whose_issuer_generates_the_secret() -> None:
    adapter = Registration()
    assert isinstance(adapter, Adapter)
    assert not adapter.capabilities.chosen
    assert adapter.capabilities.single_slot
    assert Registration(slots=2).capabilities.slots == 2


def test_an_update_brings_a_secret_that_gets_a_token(server: AuthlibServer) -> None:
    metadata = dict(server.client_metadata)
    minted = _minted(Registration(), _client(server))
    assert minted.secret == Secret(server.client_secret)
    assert server.client_secret != SECRET
    assert minted.beside is None
    assert minted.expires is None
    assert _gets_a_token(server, minted.secret)
    assert server.client_metadata == metadata


def test_a_new_token_for_the_next_update_is_kept_with_it(server: AuthlibServer) -> None:
    server.rotates_token = True
    adapter = Registration()
    client = _client(server)
    for _ in range(2):
        minted = _minted(adapter, client)
        assert minted.beside == {"registration_access_token": Secret(server.registration_token)}
        client = client._replace(current=minted.secret, beside={**client.beside, **(minted.beside or {})})
        assert _gets_a_token(server, minted.secret)


def test_the_end_of_the_secret_is_told(server: AuthlibServer) -> None:
    server.expires = 2_000_000_000
    assert _minted(Registration(), _client(server)).expires == 2_000_000_000


def test_the_names_of_the_texts_beside_the_secret_may_be_others(server: AuthlibServer) -> None:
    server.rotates_token = True
    texts = {"uri": server.registration_uri, "manage": server.registration_token}
    client = _client(server)._replace(beside={name: Secret(text) for name, text in texts.items()})
    minted = _minted(Registration(uri_field="uri", token_field="manage"), client)
    assert minted.beside == {"manage": Secret(server.registration_token)}


def test_an_address_that_the_server_changes_is_kept_with_it(server: AuthlibServer, relay: Relay) -> None:
    uri = f"{relay.server.origin}/oauth/register/pos"
    minted = _minted(Registration(), _client(server, uri=uri))
    assert minted.beside == {"registration_client_uri": Secret(server.registration_uri)}


def test_one_on_another_host_is_not(server: AuthlibServer, relay: Relay) -> None:
    uri = f"{relay.server.origin.replace('127.0.0.1', 'localhost')}/oauth/register/pos"
    client = _client(server, uri=uri)._replace(issuer="http://localhost:1")
    assert _minted(Registration(), client).beside is None


@pytest.mark.parametrize(("update", "carries"), [("without-secret", False), ("with-secret", True)])
def test_an_update_has_all_that_was_read_but_what_it_must_not_have(
    server: AuthlibServer, relay: Relay, update: Any, carries: bool
) -> None:
    _minted(Registration(update=update), _client(server, uri=f"{relay.server.origin}/oauth/register/pos"))
    read, put = relay.passed
    assert (read.method, put.method) == ("GET", "PUT")
    sent = json.loads(put.body)
    expected = {"client_id", "client_name", "grant_types", "scope", "token_endpoint_auth_method"}
    assert set(sent) == expected | ({"client_secret"} if carries else set())
    assert sent.get("client_secret", SECRET) == SECRET


def test_a_server_that_does_not_change_the_secret_is_known_by_its_answer(server: AuthlibServer) -> None:
    server.rotates = False
    refused = _refused(Registration(), _client(server))
    assert refused.reason == "this server does not change the secret at an update"
    assert refused.beside is None


def test_a_new_token_of_such_a_server_is_handed_over_to_be_kept(server: AuthlibServer) -> None:
    server.rotates, server.rotates_token = False, True
    refused = _refused(Registration(), _client(server))
    assert list(refused.beside or {}) == ["registration_access_token"]


def test_a_token_that_no_store_holds_yet_is_used_for_the_next_call(server: AuthlibServer) -> None:
    server.rotates, server.rotates_token = False, True
    adapter, client = Registration(), _client(server)
    _refused(adapter, client)
    server.rotates = True
    minted = _minted(adapter, client)
    assert minted.beside == {"registration_access_token": Secret(server.registration_token)}


def test_a_token_that_the_store_was_given_meanwhile_wins(server: AuthlibServer) -> None:
    server.rotates, server.rotates_token = False, True
    adapter, client = Registration(), _client(server)
    _refused(adapter, client)
    server.rotates, server.rotates_token = True, False
    server.registration_token = "not-a-real-secret-by-an-administrator"
    client = _client(server)
    assert _minted(adapter, client).beside is None


def test_without_a_secret_to_compare_with_the_update_is_made_all_the_same(server: AuthlibServer) -> None:
    minted = _minted(Registration(), _client(server)._replace(current=None))
    assert minted.secret == Secret(server.client_secret) != Secret(SECRET)
    server.rotates = False
    _refused(Registration(), _client(server)._replace(current=None))


def test_there_is_nothing_to_reap() -> None:
    assert Registration(slots=2).reap(Client("pos"), LABEL, _soon()) == Applied()


def test_a_wrong_token_is_refused_with_a_way_out(server: AuthlibServer) -> None:
    client = _client(server, registration_access_token="not-a-real-secret-wrong")
    refused = _refused(Registration(), client)
    assert server.client_secret == SECRET
    assert "reading the registration" in refused.reason
    assert refused.hint is not None


# --- answers that are lost


def test_where_the_answer_to_the_update_is_lost_a_later_reading_finds_the_secret(
    server: AuthlibServer, relay: Relay
) -> None:
    client = _client(server, uri=f"{relay.server.origin}/oauth/register/pos")
    adapter = Registration()
    relay.lost = ["PUT"]
    assert isinstance(adapter.mint(client, LABEL, _soon()), Unknown)
    live = Secret(server.client_secret)
    assert live != Secret(SECRET)
    minted = _minted(Registration(), client)
    assert minted.secret == live == Secret(server.client_secret)
    assert [one.method for one in relay.passed] == ["GET", "PUT", "GET"]


def test_where_the_answer_to_the_reading_is_lost_nothing_has_changed(server: AuthlibServer, relay: Relay) -> None:
    relay.lost = ["GET"]
    client = _client(server, uri=f"{relay.server.origin}/oauth/register/pos")
    assert isinstance(Registration().mint(client, LABEL, _soon()), Unknown)
    assert server.client_secret == SECRET
    assert [one.method for one in relay.passed] == ["GET"]


@pytest.mark.parametrize("status", [500, 503, 429])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_what_says_nothing_leaves_it_open(server: AuthlibServer, relay: Relay, method: str, status: int) -> None:
    relay.instead = {method: Answer(status)}
    client = _client(server, uri=f"{relay.server.origin}/oauth/register/pos")
    assert isinstance(Registration().mint(client, LABEL, _soon()), Unknown)


@pytest.mark.parametrize("status", [400, 401, 403, 405])
def test_what_refuses_the_update_has_changed_nothing(server: AuthlibServer, relay: Relay, status: int) -> None:
    relay.instead = {"PUT": Answer(status, {}, b'{"error_description": "not-a-real-secret-in-a-body"}')}
    _refused(Registration(), _client(server, uri=f"{relay.server.origin}/oauth/register/pos"))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"not JSON", b'{"client_secret": 7}'])
def test_an_update_that_was_answered_with_nothing_of_use_is_left_open(
    server: AuthlibServer, relay: Relay, body: bytes
) -> None:
    relay.instead = {"PUT": Answer(200, {}, body)}
    client = _client(server, uri=f"{relay.server.origin}/oauth/register/pos")
    assert isinstance(Registration().mint(client, LABEL, _soon()), Unknown)


def test_a_registration_of_another_client_is_not_updated(server: AuthlibServer, relay: Relay) -> None:
    relay.instead = {"GET": Answer(200, {}, b'{"client_id": "other", "client_secret": "not-a-real-secret-other"}')}
    _refused(Registration(), _client(server, uri=f"{relay.server.origin}/oauth/register/pos"))
    assert [one.method for one in relay.passed] == ["GET"]


# --- the check


def test_the_check_sends_nothing_unless_reading_is_safe(server: AuthlibServer, relay: Relay) -> None:
    client = _client(server, uri=f"{relay.server.origin}/oauth/register/pos")
    found = Registration().check(client, _soon())
    assert len(found.cautions) == 2
    assert relay.passed == []
    server.expires = 2_000_000_000
    assert Registration(reading_is_safe=True).check(client, _soon()).expires == 2_000_000_000
    assert [one.method for one in relay.passed] == ["GET"]


@pytest.mark.parametrize("name", ["registration_client_uri", "registration_access_token"])
def test_the_check_names_what_is_missing_beside_the_secret(server: AuthlibServer, name: str) -> None:
    client = _client(server)
    client = client._replace(beside={key: text for key, text in client.beside.items() if key != name})
    error = _raised(ConfigurationError, lambda: Registration().check(client, _soon()))
    assert f"vault://kv/pos has no {name!r}" in str(error)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("https://elsewhere.example/register/pos", "not the issuer's host"),
        ("http://elsewhere.example/register/pos", "plain http"),
        ("not-a-real-secret-pasted", "is not a URL"),
    ],
)
def test_the_token_is_sent_to_the_issuers_host_only(server: AuthlibServer, uri: str, says: str) -> None:
    client = _client(server, uri=uri)
    for work in (lambda: Registration().check(client, _soon()), lambda: Registration().mint(client, LABEL, _soon())):
        assert says in str(_raised(ConfigurationError, work))


def test_another_host_may_be_named(server: AuthlibServer) -> None:
    client = _client(server)._replace(issuer="https://issuer.example")
    _raised(ConfigurationError, lambda: Registration().check(client, _soon()))
    Registration(hosts=["127.0.0.1"]).check(client, _soon())
    assert _gets_a_token(server, _minted(Registration(hosts="127.0.0.1"), client).secret)


def test_a_check_that_reads_raises_what_is_wrong(server: AuthlibServer, relay: Relay) -> None:
    client = _client(server, uri=f"{relay.server.origin}/oauth/register/pos")
    adapter = Registration(reading_is_safe=True)
    for answer, kind in (
        (Answer(401), ConfigurationError),
        (Answer(503), IssuerUnavailable),
        (Answer(200, {}, b'{"client_id": "other"}'), ConfigurationError),
    ):
        relay.instead = {"GET": answer}
        _raised(kind, lambda: adapter.check(client, _soon()))


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"slots": True}, {"update": "with"}, {"landing": -1}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Registration(**wrong)


def test_nothing_is_logged(server: AuthlibServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _minted(Registration(), _client(server))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("secretsource", "http"))]
    _shows_nothing(*ours)


# --- oidc-provider


def _client_of(oidc: OidcProvider, current: str, *, rotates: bool) -> Client:
    beside = {name: Secret(text) for name, text in oidc.registration(rotates=rotates).items()}
    return Client("pos", beside, reference="vault://kv/pos", current=Secret(current), issuer=oidc.issuer)


@pytest.mark.parametrize("update", ["without-secret", "with-secret"])
def test_oidc_provider_changes_the_secret_by_a_policy_and_its_token_each_time(oidc: OidcProvider, update: Any) -> None:
    oidc.set_secret(SECRET)
    client = _client_of(oidc, SECRET, rotates=True)
    adapter = Registration(update=update)
    for _ in range(2):
        minted = _minted(adapter, client)
        assert minted.secret != client.current
        assert minted.beside is not None
        assert set(minted.beside) == {"registration_access_token"}
        assert _gets_a_token(oidc, minted.secret)
        client = client._replace(current=minted.secret, beside={**client.beside, **minted.beside})


def test_oidc_provider_without_one_keeps_the_secret_and_that_is_said(oidc: OidcProvider) -> None:
    oidc.set_secret(SECRET)
    refused = _refused(Registration(), _client_of(oidc, SECRET, rotates=False))
    assert refused.reason == "this server does not change the secret at an update"
    assert _gets_a_token(oidc, Secret(SECRET))


def test_oidc_provider_can_be_read_for_the_check(oidc: OidcProvider) -> None:
    oidc.set_secret(SECRET)
    client = _client_of(oidc, SECRET, rotates=False)
    Registration(reading_is_safe=True).check(client, _soon())
    wrong = client._replace(beside={**client.beside, "registration_access_token": Secret("not-a-real-secret-wrong")})
    _raised(ConfigurationError, lambda: Registration(reading_is_safe=True).check(wrong, _soon()))
