from __future__ import annotations

import base64
import dataclasses
import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import pytest

from secretsource.testing import FakeIssuer, Fault, RecordedRequest, TickingClock

CLIENT, SECRET = "pos client", "not-a-real-secret %+:/ü"
GRANT = {"grant_type": "client_credentials"}


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture
def issuer(clock: TickingClock) -> Iterator[FakeIssuer]:
    with FakeIssuer(clock=clock) as issuer:
        issuer.add_client(CLIENT, SECRET, scopes=["orders.read", "orders.write"])
        yield issuer


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=30, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        yield client


Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(client: httpx.Client, issuer: FakeIssuer) -> Ask:
    def ask(secret: str = SECRET, *, client_id: str = CLIENT, **form: str) -> httpx.Response:
        headers = {"Authorization": basic(client_id, secret)}
        return client.post(issuer.token_url, data={**GRANT, **form}, headers=headers)

    return ask


def basic(client_id: str, secret: str, encode: Callable[[str], str] = lambda text: quote(text, safe="")) -> str:
    return "Basic " + base64.b64encode(f"{encode(client_id)}:{encode(secret)}".encode()).decode()


def error(answer: httpx.Response) -> tuple[int, str, str]:
    members = answer.json()
    return answer.status_code, members["error"], members["error_uri"].rpartition("/")[2]


# what it answers


def test_a_token_is_opaque_and_its_answer_is_not_kept_by_caches(issuer: FakeIssuer, ask: Ask) -> None:
    answer = ask()
    assert answer.status_code == 200
    assert answer.json().keys() == {"access_token", "token_type", "expires_in"}
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 3600)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json()["access_token"] != ask().json()["access_token"]


def test_post_authenticates_too(issuer: FakeIssuer, client: httpx.Client) -> None:
    form = {**GRANT, "client_id": CLIENT, "client_secret": SECRET}
    assert client.post(issuer.token_url, data=form).status_code == 200
    assert issuer.requests[-1].auth_method == "client_secret_post"


def test_the_issuer_ends_in_a_slash_and_both_metadata_documents_name_it(client: httpx.Client) -> None:
    with FakeIssuer(path="/tenant") as issuer:
        origin = issuer.url.removesuffix("/tenant/")
        documents = [
            client.get(f"{origin}/tenant/.well-known/openid-configuration").json(),
            client.get(f"{origin}/.well-known/oauth-authorization-server/tenant").json(),
        ]
        assert documents[0] == documents[1]
        assert documents[0]["issuer"] == issuer.url == f"{origin}/tenant/"
        assert documents[0]["token_endpoint"] == issuer.token_url == f"{origin}/tenant/connect/token"
        assert client.get(f"{origin}/.well-known/openid-configuration").status_code == 404


def test_a_metadata_document_may_be_missing(client: httpx.Client) -> None:
    with FakeIssuer(well_known=["oauth-authorization-server"]) as issuer:
        assert client.get(f"{issuer.url}.well-known/openid-configuration").status_code == 404
        assert client.get(f"{issuer.url}.well-known/oauth-authorization-server").status_code == 200


def test_metadata_lists_the_methods_of_the_clients(client: httpx.Client) -> None:
    with FakeIssuer() as issuer:
        issuer.add_client(CLIENT, SECRET, methods=["client_secret_post"])
        document = client.get(f"{issuer.url}.well-known/openid-configuration").json()
        assert document["token_endpoint_auth_methods_supported"] == ["client_secret_post"]


def test_a_grant_tells_what_was_asked_for(issuer: FakeIssuer, ask: Ask, clock: TickingClock) -> None:
    answer = ask(scope="orders.write orders.read orders.write", audience="api", resource="https://api.example")
    assert "scope" not in answer.json()
    grant = issuer.grant_of(answer.json()["access_token"])
    assert grant is not None
    assert (grant.client_id, grant.scopes, grant.audience) == (CLIENT, ("orders.write", "orders.read"), "api")
    assert grant.resources == ("https://api.example",)
    assert grant.expires_at == clock.now().boottime + 3600


def test_a_token_ends_with_its_lifetime_also_while_the_machine_is_suspended(
    issuer: FakeIssuer, ask: Ask, clock: TickingClock
) -> None:
    issuer.lifetime = 10
    token = ask().json()["access_token"]
    clock.suspend(9)
    clock.set_wall(3600)
    assert issuer.accepts(token)
    clock.tick(1)
    assert not issuer.accepts(token)


def test_a_revoked_or_unknown_token_is_not_accepted(issuer: FakeIssuer, ask: Ask) -> None:
    token = ask().json()["access_token"]
    issuer.revoke(token)
    assert not issuer.accepts(token)
    assert not issuer.accepts("not-a-real-token")


def test_introspection_tells_living_tokens_from_others(
    issuer: FakeIssuer, ask: Ask, client: httpx.Client, clock: TickingClock
) -> None:
    token = ask(scope="orders.read").json()["access_token"]

    def introspect(token: str, secret: str = SECRET) -> httpx.Response:
        headers = {"Authorization": basic(CLIENT, secret)}
        return client.post(issuer.introspection_url, data={"token": token}, headers=headers)

    living = introspect(token).json()
    assert (living["active"], living["client_id"], living["scope"]) == (True, CLIENT, "orders.read")
    assert living["exp"] == clock.now().wall + 3600
    clock.tick(3600)
    assert introspect(token).json() == {"active": False}
    assert error(introspect(token, "not-a-real-secret-either"))[:2] == (401, "invalid_client")


def test_refresh_in_is_given_when_it_is_set(issuer: FakeIssuer, ask: Ask) -> None:
    issuer.refresh_in = 1800
    assert ask().json()["refresh_in"] == 1800


# what it refuses


def test_a_wrong_secret_and_an_unknown_client_are_told_apart(ask: Ask) -> None:
    wrong, unknown = ask("not-a-real-secret-either"), ask(client_id="nobody")
    assert error(wrong) == (401, "invalid_client", "ID2055")
    assert error(unknown) == (401, "invalid_client", "ID2052")
    assert wrong.headers["www-authenticate"].startswith('Basic error="invalid_client"')


def test_an_unknown_scope_is_refused_or_dropped(issuer: FakeIssuer, ask: Ask) -> None:
    assert error(ask(scope="orders.read orders.all")) == (400, "invalid_scope", "ID2052")
    issuer.unknown_scope = "drop"
    assert ask(scope="orders.read orders.all").json()["scope"] == "orders.read"


def test_a_method_that_the_client_may_not_use_is_refused(issuer: FakeIssuer, ask: Ask) -> None:
    issuer.add_client(CLIENT, SECRET, methods=["client_secret_post"])
    assert error(ask()) == (401, "invalid_client", "ID2174")


@pytest.mark.parametrize(
    ("body", "headers", "refusal"),
    [
        ("grant_type=client_credentials&client_id=x&client_secret=y", {"Authorization": "B"}, "ID2087"),
        ("grant_type=client_credentials&client_secret=y", {}, "ID2029"),
        ("grant_type=client_credentials&scope=a&scope=b", {"Authorization": "B"}, "ID2107"),
        ("grant_type=client_credentials&client_id=other", {"Authorization": "B"}, "ID2087"),
        ("grant_type=client_credentials", {"Authorization": "Basic not base64"}, "ID2055"),
        ("grant_type=client_credentials", {"Authorization": "Bearer abc"}, "ID2055"),
        ("grant_type=client_credentials", {"Authorization": "B", "Content-Type": "application/json"}, "ID2082"),
        ("grant_type=client_credentials&scope=\xff", {"Authorization": "B"}, "ID2107"),
        ("grant_type=", {"Authorization": "B"}, "ID2029"),
        ("", {"Authorization": "B"}, "ID2029"),
    ],
)
def test_a_request_that_breaks_the_rfc_is_invalid(
    issuer: FakeIssuer, client: httpx.Client, body: str, headers: Mapping[str, str], refusal: str
) -> None:
    sent = {"Content-Type": "application/x-www-form-urlencoded;charset=UTF-8", **headers}
    if sent.get("Authorization") == "B":
        sent["Authorization"] = basic(CLIENT, SECRET)
    answer = client.post(issuer.token_url, content=body.encode("latin-1"), headers=sent)
    assert error(answer) == (400, "invalid_request", refusal)


def test_a_missing_secret_is_invalid_client(issuer: FakeIssuer, client: httpx.Client) -> None:
    answer = client.post(issuer.token_url, data={**GRANT, "client_id": CLIENT})
    assert error(answer) == (401, "invalid_client", "ID2054")


def test_resource_may_be_repeated(issuer: FakeIssuer, client: httpx.Client) -> None:
    form = {**GRANT, "resource": ["https://a.example", "https://b.example"]}
    answer = client.post(issuer.token_url, data=form, headers={"Authorization": basic(CLIENT, SECRET)})
    assert answer.status_code == 200
    assert issuer.requests[-1].resources == ("https://a.example", "https://b.example")


def test_another_grant_or_http_method_is_refused(issuer: FakeIssuer, client: httpx.Client, ask: Ask) -> None:
    assert error(ask(grant_type="password")) == (400, "unsupported_grant_type", "ID2032")
    assert error(client.get(issuer.token_url)) == (400, "invalid_request", "ID2084")
    assert error(client.post(f"{issuer.url}.well-known/openid-configuration")) == (400, "invalid_request", "ID2084")
    assert issuer.token_requests == 1


def test_an_issuer_that_does_not_decode_takes_the_header_raw(issuer: FakeIssuer, client: httpx.Client) -> None:
    issuer.add_client("a", "not%41real")

    def status(encode: Callable[[str], str]) -> int:
        headers = {"Authorization": basic("a", "not%41real", encode)}
        return client.post(issuer.token_url, data=GRANT, headers=headers).status_code

    assert (status(str), status(quote)) == (401, 200)
    issuer.basic_encoding = "raw"
    assert (status(str), status(quote)) == (200, 401)


# secrets that change


def test_a_new_secret_kills_the_old_one_at_once(issuer: FakeIssuer, ask: Ask) -> None:
    token = ask().json()["access_token"]
    issuer.set_secret(CLIENT, "not-a-real-second-secret")
    assert ask().status_code == 401
    assert ask("not-a-real-second-secret").status_code == 200
    assert issuer.accepts(token)


def test_with_an_overlap_the_old_secret_lives_that_long(issuer: FakeIssuer, ask: Ask, clock: TickingClock) -> None:
    issuer.set_secret(CLIENT, "not-a-real-second-secret", overlap=5)
    clock.tick(4)
    assert ask().status_code == ask("not-a-real-second-secret").status_code == 200
    clock.tick(1)
    assert (ask().status_code, ask("not-a-real-second-secret").status_code) == (401, 200)


def test_a_removed_client_is_unknown(issuer: FakeIssuer, ask: Ask) -> None:
    issuer.remove_client(CLIENT)
    assert error(ask())[2] == "ID2052"


def test_adding_a_client_gives_the_credentials_for_a_source(issuer: FakeIssuer) -> None:
    credentials = issuer.add_client("a", "not-a-real-secret")
    assert (credentials.client_id, credentials.client_secret.reveal()) == ("a", "not-a-real-secret")
    assert issuer.set_secret("a", "not-a-real-second-secret").client_secret.reveal() == "not-a-real-second-secret"


# what it records


def test_a_request_is_recorded_without_its_secret_or_token(issuer: FakeIssuer, client: httpx.Client, ask: Ask) -> None:
    token = ask(scope="orders.read").json()["access_token"]
    client.post(issuer.token_url, data={**GRANT, "client_id": CLIENT, "client_secret": SECRET})
    client.post(f"{issuer.token_url}?client_secret={quote(SECRET)}&tenant=a", headers={"Cookie": quote(SECRET)})
    client.post(issuer.introspection_url, data={"token": token}, headers={"Authorization": basic(CLIENT, SECRET)})
    first, *_, last = issuer.requests
    assert (first.path, first.method, first.status, first.client_id) == ("/connect/token", "POST", 200, CLIENT)
    assert first.form == {"grant_type": "client_credentials", "scope": "orders.read"}
    assert first.headers["content-type"] == "application/x-www-form-urlencoded"
    assert issuer.requests[2].query == {"tenant": "a"}
    assert last.path == "/connect/introspect"
    shown = f"{issuer.requests!r} {issuer!r} {[dataclasses.astuple(simple(seen)) for seen in issuer.requests]}"
    for secret in (SECRET, quote(SECRET), basic(CLIENT, SECRET).removeprefix("Basic "), token):
        assert secret not in shown


def simple(seen: RecordedRequest) -> RecordedRequest:
    return dataclasses.replace(seen, form=dict(seen.form), query=dict(seen.query), headers=dict(seen.headers))


def test_a_record_cannot_be_changed(issuer: FakeIssuer, ask: Ask) -> None:
    ask()
    seen = issuer.requests[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        seen.status = 500  # type: ignore[misc]
    with pytest.raises(TypeError):
        seen.form["scope"] = "x"  # type: ignore[index]
    issuer.requests.clear()
    assert issuer.requests == [seen]


def test_many_threads_are_served_and_counted(issuer: FakeIssuer, ask: Ask) -> None:
    with ThreadPoolExecutor(16) as threads:
        tokens = list(threads.map(lambda _: ask().json()["access_token"], range(128)))
    assert len(set(tokens)) == issuer.token_requests == len(issuer.requests) == 128


def test_waiting_for_a_request_ends_when_it_comes_or_when_the_time_is_over(issuer: FakeIssuer, ask: Ask) -> None:
    with pytest.raises(TimeoutError, match="0 of 1"):
        issuer.wait_for_token_requests(1, timeout=0.01)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(ask)
        issuer.wait_for_token_requests(1)


# faults


def test_a_fault_answers_instead_and_makes_no_token(issuer: FakeIssuer, ask: Ask) -> None:
    issuer.fail(Fault(status=503, headers={"Retry-After": "7"}, body=b"<html>"), times=1)
    answer = ask()
    assert (answer.status_code, answer.headers["retry-after"], answer.text) == (503, "7", "<html>")
    assert [seen.status for seen in issuer.requests] == [503]
    assert ask().status_code == 200


def test_faults_with_a_number_come_in_their_order_and_before_those_without(issuer: FakeIssuer, ask: Ask) -> None:
    issuer.fail(Fault(status=500))
    issuer.fail(Fault(status=501), times=1)
    issuer.fail(Fault(status=502), times=2)
    assert [ask().status_code for _ in range(5)] == [501, 502, 502, 500, 500]
    issuer.heal()
    assert ask().status_code == 200


def test_a_fault_in_a_with_ends_with_it_and_comes_before_an_older_one(issuer: FakeIssuer, ask: Ask) -> None:
    issuer.fail(Fault(status=500))
    with issuer.failing(Fault(status=503)):
        assert ask().status_code == 503
    assert ask().status_code == 500


def test_a_fault_belongs_to_one_endpoint(issuer: FakeIssuer, client: httpx.Client, ask: Ask) -> None:
    metadata = f"{issuer.url}.well-known/openid-configuration"
    with issuer.failing(Fault(answer={"issuer": "http://elsewhere.example/"}), path="discovery"):
        assert client.get(metadata).json()["issuer"] == "http://elsewhere.example/"
        assert ask().status_code == 200
    assert client.get(metadata).json()["issuer"] == issuer.url


def test_members_of_the_answer_may_be_replaced_or_left_out(issuer: FakeIssuer, ask: Ask) -> None:
    with issuer.failing(Fault(answer={"expires_in": "12", "token_type": None})):
        members = ask().json()
        assert members["expires_in"] == "12"
        assert "token_type" not in members
        assert ask("not-a-real-secret-either").status_code == 401


def test_the_same_token_may_be_handed_out_again_with_less_life(
    issuer: FakeIssuer, ask: Ask, clock: TickingClock
) -> None:
    first = ask(scope="orders.read").json()["access_token"]
    issuer.revoke(first)
    clock.tick(600)
    with issuer.failing(Fault(same_token=True)):
        again = ask(scope="orders.read").json()
        other = ask(scope="orders.write").json()
    assert (again["access_token"], again["expires_in"]) == (first, 3000)
    assert other["access_token"] != first


def test_a_redirect_names_where_to_go(issuer: FakeIssuer, ask: Ask) -> None:
    with issuer.failing(Fault(redirect="http://elsewhere.example/")):
        answer = ask()
    assert (answer.status_code, answer.headers["location"]) == (307, "http://elsewhere.example/")


def test_a_padded_answer_is_too_much_and_still_json(issuer: FakeIssuer, ask: Ask) -> None:
    with issuer.failing(Fault(padding=1 << 20)):
        answer = ask()
    assert len(answer.content) > 1 << 20
    assert "access_token" in json.loads(answer.content)


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (Fault(reset=True), httpx.ReadError),
        (Fault(cut_after=10), httpx.RemoteProtocolError),
        (Fault(content_length=10_000), httpx.RemoteProtocolError),
    ],
)
def test_a_broken_connection_is_seen_as_one(issuer: FakeIssuer, ask: Ask, fault: Fault, seen: type[Exception]) -> None:
    issuer.fail(fault, times=1)
    with pytest.raises(seen):
        ask()
    assert ask().status_code == 200
    assert [request.status for request in issuer.requests] == [0 if fault.reset else 200, 200]


def test_a_short_content_length_cuts_the_answer(issuer: FakeIssuer, ask: Ask) -> None:
    with issuer.failing(Fault(content_length=10)):
        assert len(ask().content) == 10


def test_the_answer_is_late_by_the_latency(issuer: FakeIssuer, ask: Ask) -> None:
    issuer.latency = 0.05
    issuer.fail(Fault(latency=0.05))
    began = time.monotonic()
    ask()
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("fault", [Fault(drip_head=0.001), Fault(drip_body=0.001)])
def test_a_drip_takes_its_time_for_each_byte(issuer: FakeIssuer, ask: Ask, fault: Fault) -> None:
    issuer.fail(fault)
    began = time.monotonic()
    assert len(ask().json()["access_token"]) == 64
    assert time.monotonic() - began >= 0.1


def test_a_hanging_answer_comes_when_it_is_released(issuer: FakeIssuer, ask: Ask) -> None:
    issuer.fail(Fault(hang=True), times=1)
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(ask)
        issuer.wait_for_token_requests(1)
        assert ask().status_code == 200
        assert not answer.done()
        issuer.release()
        assert answer.result(30).status_code == 200


# start and stop


def test_while_it_is_down_connections_are_refused_and_it_comes_back_on_its_port(issuer: FakeIssuer, ask: Ask) -> None:
    token, url = ask().json()["access_token"], issuer.url
    with issuer.down(), pytest.raises(httpx.ConnectError):
        ask()
    assert issuer.url == url
    assert ask().status_code == 200
    assert issuer.accepts(token)
    assert issuer.token_requests == 2


def test_open_connections_end_when_it_goes_down(issuer: FakeIssuer) -> None:
    with httpx.Client(trust_env=False) as client:
        client.get(issuer.url)
        with issuer.down(), pytest.raises(httpx.HTTPError):
            client.get(issuer.url)


def test_no_thread_is_left_whatever_was_under_way(client: httpx.Client) -> None:
    before = set(threading.enumerate())
    idle = httpx.Client(trust_env=False)
    with FakeIssuer() as issuer:
        idle.get(issuer.url)
        issuer.fail(Fault(hang=True), times=1, path="discovery")
        issuer.fail(Fault(drip_head=60), times=1, path="discovery")
        issuer.fail(Fault(latency=60), times=1, path="discovery")
        url = f"{issuer.url}.well-known/openid-configuration"
        callers = [threading.Thread(target=_get_what_never_comes, args=(url,)) for _ in range(3)]
        for caller in callers:
            caller.start()
        ends_at = time.monotonic() + 30
        while len(issuer.requests) < 4 and time.monotonic() < ends_at:
            time.sleep(0.005)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    idle.close()
    for caller in callers:
        caller.join(30)
    assert set(threading.enumerate()) <= before


def _get_what_never_comes(url: str) -> None:
    with pytest.raises(httpx.HTTPError):
        httpx.get(url, trust_env=False, timeout=60)


def test_it_may_be_stopped_twice_and_started_again() -> None:
    issuer = FakeIssuer()
    with pytest.raises(RuntimeError, match="started"):
        _ = issuer.url
    issuer.start()
    url = issuer.url
    issuer.stop()
    issuer.stop()
    with issuer:
        assert issuer.url == url
        assert httpx.get(issuer.url, trust_env=False).status_code == 404


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_it_goes_down_also_while_a_forked_child_holds_its_sockets(issuer: FakeIssuer, ask: Ask) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            time.sleep(60)
        finally:
            os._exit(0)
    try:
        with issuer.down(), pytest.raises(httpx.ConnectError):
            ask()
        assert ask().status_code == 200
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_an_answer_in_one_write_costs_little(issuer: FakeIssuer) -> None:
    headers = {"Authorization": basic(CLIENT, SECRET)}
    with httpx.Client(trust_env=False) as client:
        durations = []
        for _ in range(20):
            began = time.monotonic()
            client.post(issuer.token_url, data=GRANT, headers=headers)
            durations.append(time.monotonic() - began)
    assert min(durations) < 0.03  # Nagle's delay alone would be 40 ms
