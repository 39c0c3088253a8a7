"""TokenAuth with httpx and httpx2, sync and async, against an issuer and an API on loopback."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
import trio

from secretsource import TokenSource
from secretsource.auth.httpx import TokenAuth
from secretsource.errors import ConfigurationError, TokenRequestRefused
from secretsource.events import Event, OriginLeft
from secretsource.testing import Answer, FakeIssuer, Fault, Incoming, LoopbackServer, TickingClock, static_source

SECRET = "not-a-real-secret"
# Nothing here speaks TLS: an empty context saves each client the reading of all authorities.
PLAIN: dict[str, Any] = {"trust_env": False, "timeout": 30, "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}


class Api:
    """Takes tokens of the issuer. `challenge` is sent with each 401, None for none at all; `seen` holds the tokens."""

    def __init__(self, issuer: FakeIssuer) -> None:
        self._issuer = issuer
        self.challenge: str | None = 'Bearer error="invalid_token"'
        self.refuses: Callable[[str], bool] = lambda token: not issuer.accepts(token)
        self.seen: list[str] = []
        self.bodies: list[bytes] = []
        self.redirect_to: str | None = None
        self.together = threading.Barrier(10)
        self._server = LoopbackServer(self._answer)

    def __enter__(self) -> Api:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        return self._server.origin

    def _answer(self, incoming: Incoming) -> Answer:
        authorization = incoming.headers.get("authorization", "")
        token = authorization.removeprefix("Bearer ")
        self.seen.append(token)
        self.bodies.append(incoming.body)
        if incoming.path == "/moved" and self.redirect_to is not None:
            return Answer(307, {"Location": self.redirect_to})
        if self.refuses(token):
            return Answer(401, {} if self.challenge is None else {"WWW-Authenticate": self.challenge})
        if incoming.path == "/together":
            self.together.wait(20)
        if incoming.path == "/stream":
            return Answer(body=b"x" * 400, fault=Fault(drip_body=0.05))
        return Answer(body=b"orders")


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture
def issuer(clock: TickingClock) -> Iterator[FakeIssuer]:
    with FakeIssuer(clock=clock) as issuer:
        issuer.add_client("pos", SECRET)
        yield issuer


@pytest.fixture
def api(issuer: FakeIssuer) -> Iterator[Api]:
    with Api(issuer) as api:
        yield api


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def source(issuer: FakeIssuer, clock: TickingClock, events: list[Event]) -> Iterator[TokenSource]:
    credentials = issuer.add_client("pos", SECRET)
    with TokenSource(credentials, issuer=issuer.url, clock=clock, on_event=events.append) as source:
        yield source


# --- the four clients ------------------------------------------------------------------------------------------------

Send = Callable[..., Any]  # send(auth, url, method="GET", **what a request may have): the response, read


def _sync(module: ModuleType) -> Send:
    def send(auth: TokenAuth, url: str, method: str = "GET", *, follow_redirects: bool = False, **how: Any) -> Any:
        with module.Client(auth=auth, **PLAIN, follow_redirects=follow_redirects) as client:
            return client.request(method, url, **how)

    return send


def _async(module: ModuleType, run: Callable[..., Any]) -> Send:
    def send(auth: TokenAuth, url: str, method: str = "GET", *, follow_redirects: bool = False, **how: Any) -> Any:
        async def sent() -> Any:
            async with module.AsyncClient(auth=auth, **PLAIN, follow_redirects=follow_redirects) as client:
                return await client.request(method, url, **how)

        return run(sent)

    return send


def _asyncio(function: Callable[[], Any]) -> Any:
    return asyncio.run(function())


CLIENTS = {
    "httpx": _sync(httpx),
    "httpx async": _async(httpx, _asyncio),
    "httpx2": _sync(httpx2),
    "httpx2 async": _async(httpx2, _asyncio),
}


@pytest.fixture(params=CLIENTS)
def send(request: pytest.FixtureRequest) -> Send:
    return CLIENTS[request.param]


@pytest.mark.parametrize("send", [*CLIENTS.values(), _async(httpx, trio.run)], ids=[*CLIENTS, "httpx on trio"])
def test_each_request_carries_the_token(send: Send, source: TokenSource, issuer: FakeIssuer, api: Api) -> None:
    auth = TokenAuth(source)
    assert [send(auth, api.url).text for _ in range(3)] == ["orders"] * 3
    assert set(api.seen) == {source.token().access_token}
    assert issuer.token_requests == 1


def test_what_it_is_given_is_asked_of_the_source(send: Send, source: TokenSource, issuer: FakeIssuer, api: Api) -> None:
    send(TokenAuth(source, scope="orders.read", audience="pos", timeout=20), api.url)
    grant = issuer.grant_of(api.seen[0])
    assert grant is not None
    assert (grant.scopes, grant.audience) == (("orders.read",), "pos")


def test_what_is_given_as_none_is_left_to_the_source(
    send: Send, source: TokenSource, issuer: FakeIssuer, api: Api
) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("timeout", "scope", "audience", "extra"))
    assert send(TokenAuth(source, **nothing), api.url).status_code == 200
    assert api.seen == [source.token().access_token]
    assert issuer.token_requests == 1


def test_an_authorization_header_of_the_request_gives_way(send: Send, source: TokenSource, api: Api) -> None:
    assert send(TokenAuth(source), api.url, headers={"Authorization": "Bearer another"}).status_code == 200
    assert api.seen == [source.token().access_token]


# --- 401 -------------------------------------------------------------------------------------------------------------


def refused_token(source: TokenSource, issuer: FakeIssuer, clock: TickingClock) -> str:
    """The token that the source keeps, which is two seconds old, and which no API takes any longer."""
    token = source.token().access_token
    clock.tick(2)
    issuer.revoke(token)
    return token


@pytest.mark.parametrize(
    "challenge",
    [
        None,
        "Bearer",
        'Bearer realm="api"',
        'Bearer error="invalid_token", error_description="expired"',
        'Basic realm="a, b", Bearer realm="c", error="invalid_token"',
    ],
)
def test_a_refused_token_is_replaced_and_the_request_sent_again(
    send: Send, source: TokenSource, issuer: FakeIssuer, api: Api, clock: TickingClock, challenge: str | None
) -> None:
    old = refused_token(source, issuer, clock)
    api.challenge = challenge
    response = send(TokenAuth(source), api.url, "POST", content=b"order")
    assert (response.status_code, response.text) == (200, "orders")
    assert api.seen == [old, source.token().access_token]
    assert api.bodies == [b"order", b"order"]
    assert issuer.token_requests == 2


@pytest.mark.parametrize(
    "challenge",
    [
        'Basic realm="api"',
        'Bearer error="insufficient_scope", scope="orders.write"',
        'Basic realm="Bearer"',
        'Bearer error="invalid_request"',
    ],
)
def test_a_401_that_does_not_mean_the_token_is_handed_on(
    send: Send, source: TokenSource, issuer: FakeIssuer, api: Api, clock: TickingClock, challenge: str
) -> None:
    old = refused_token(source, issuer, clock)
    api.challenge = challenge
    response = send(TokenAuth(source), api.url)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, challenge)
    assert api.seen == [old]
    assert source.token().access_token == old


@pytest.mark.parametrize("status", [403, 407, 500])
def test_any_other_status_is_handed_on(
    send: Send, source: TokenSource, issuer: FakeIssuer, clock: TickingClock, status: int
) -> None:
    old = refused_token(source, issuer, clock)
    answer = Answer(status, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
    with LoopbackServer(lambda incoming: answer) as server:
        assert send(TokenAuth(source), server.origin).status_code == status
    assert source.token().access_token == old


@pytest.mark.parametrize(("age", "requests"), [(0.0, 1), (0.9, 1), (1.0, 2)])
def test_a_token_fetched_less_than_a_second_ago_is_not_replaced(
    send: Send, source: TokenSource, issuer: FakeIssuer, api: Api, clock: TickingClock, age: float, requests: int
) -> None:
    token = source.token().access_token
    clock.tick(age)
    issuer.revoke(token)
    assert send(TokenAuth(source), api.url).status_code == (401 if requests == 1 else 200)
    assert (len(api.seen), issuer.token_requests) == (requests, requests)
    assert (source.token().access_token == token) == (requests == 1)


def test_it_is_asked_once_more_and_no_more(
    send: Send, source: TokenSource, issuer: FakeIssuer, api: Api, clock: TickingClock
) -> None:
    source.token()
    clock.tick(2)
    api.refuses = lambda token: True
    assert send(TokenAuth(source), api.url).status_code == 401
    assert len(api.seen) == len(set(api.seen)) == 2
    assert issuer.token_requests == 2


def test_the_first_401_stands_in_the_history(
    send: Send, source: TokenSource, issuer: FakeIssuer, api: Api, clock: TickingClock
) -> None:
    refused_token(source, issuer, clock)
    assert [past.status_code for past in send(TokenAuth(source), api.url).history] == [401]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_body_that_cannot_be_sent_again_is_handed_on_and_the_token_dropped(
    name: str, source: TokenSource, issuer: FakeIssuer, api: Api, clock: TickingClock
) -> None:
    old = refused_token(source, issuer, clock)

    def pieces() -> Iterator[bytes]:
        yield b"order"

    async def pieces_async() -> AsyncIterator[bytes]:
        yield b"order"

    body = pieces_async() if "async" in name else pieces()
    # With a length, since the server of this test takes no chunks.
    response = CLIENTS[name](TokenAuth(source), api.url, "POST", content=body, headers={"Content-Length": "5"})
    assert response.status_code == 401
    assert (api.seen, api.bodies) == ([old], [b"order"])
    assert source.token().access_token != old


@pytest.mark.parametrize("body", [{"content": b"order"}, {"json": {"order": 1}}, {"data": {"order": "1"}}, {}])
def test_a_body_that_is_held_is_sent_again(
    send: Send, source: TokenSource, issuer: FakeIssuer, api: Api, clock: TickingClock, body: dict[str, Any]
) -> None:
    refused_token(source, issuer, clock)
    assert send(TokenAuth(source), api.url, "POST", **body).status_code == 200
    first, second = api.bodies
    assert first == second


def test_fifty_refusals_of_one_token_fetch_one_other(
    source: TokenSource, issuer: FakeIssuer, api: Api, clock: TickingClock
) -> None:
    refused_token(source, issuer, clock)

    async def stampede() -> list[int]:
        limits = httpx.Limits(max_connections=20)
        async with httpx.AsyncClient(auth=TokenAuth(source), **PLAIN, limits=limits) as client:
            return [each.status_code for each in await asyncio.gather(*(client.get(api.url) for _ in range(50)))]

    assert asyncio.run(stampede()) == [200] * 50
    assert issuer.token_requests == 2


def test_a_failing_source_fails_the_request_with_its_own_error(
    send: Send, source: TokenSource, issuer: FakeIssuer, api: Api
) -> None:
    issuer.fail(Fault(status=400, body=b'{"error": "invalid_scope"}'))
    with pytest.raises(TokenRequestRefused):
        send(TokenAuth(source), api.url)
    assert api.seen == []


# --- redirects -------------------------------------------------------------------------------------------------------


def test_a_redirect_to_another_origin_does_not_take_the_token_along(
    send: Send, source: TokenSource, issuer: FakeIssuer, api: Api, clock: TickingClock
) -> None:
    token = source.token().access_token
    clock.tick(2)
    with Api(issuer) as other:
        api.redirect_to = f"{other.url}/orders"
        response = send(TokenAuth(source), f"{api.url}/moved", follow_redirects=True)
        assert other.seen == [""]
    # The other origin refuses what came without a token: that says nothing about ours.
    assert response.status_code == 401
    assert api.seen == [token]
    assert source.token().access_token == token
    assert issuer.token_requests == 1


def test_a_redirect_within_the_origin_does_and_a_refusal_there_counts(
    send: Send, source: TokenSource, issuer: FakeIssuer, api: Api, clock: TickingClock
) -> None:
    old = refused_token(source, issuer, clock)
    api.redirect_to = f"{api.url}/orders"
    assert send(TokenAuth(source), f"{api.url}/moved", follow_redirects=True).status_code == 200
    new = source.token().access_token
    assert api.seen == [old, old, new, new]


# --- where a token may go --------------------------------------------------------------------------------------------

MODULES = {"httpx": httpx, "httpx2": httpx2}


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> ModuleType:
    return MODULES[request.param]


def flow_of(auth: TokenAuth, module: ModuleType, url: str) -> Any:
    """The request as `auth` would have it sent, with no network."""
    flow = auth.sync_auth_flow(module.Request("GET", url))
    request = next(flow)
    flow.close()
    return request


@pytest.mark.parametrize(
    "url",
    [
        "http://pos.test/",
        "http://127.0.0.1.pos.test/",
        "http://10.0.0.1/",
        "http://[::2]/",
        "http://localhost.pos.test/",
    ],
)
def test_plain_http_is_refused_off_loopback(module: ModuleType, url: str) -> None:
    source = static_source("abc")
    with pytest.raises(ConfigurationError, match="plain http"):
        flow_of(TokenAuth(source), module, url)
    with pytest.raises(ConfigurationError, match="plain http"):
        asyncio.run(anext(TokenAuth(source).async_auth_flow(module.Request("GET", url))))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://localhost/", "http://[::1]/", "https://pos.test/", "HTTPS://A/"]
)
def test_https_and_loopback_are_not(module: ModuleType, url: str) -> None:
    assert flow_of(TokenAuth(static_source("abc")), module, url).headers["Authorization"] == "Bearer abc"


@pytest.mark.parametrize("url", ["ftp://pos.test/", "/orders", "unix:///run/a.sock"])
def test_what_has_no_http_origin_gets_no_token(module: ModuleType, url: str) -> None:
    with pytest.raises(ConfigurationError):
        flow_of(TokenAuth(static_source("abc")), module, url)


@pytest.mark.parametrize(
    ("names", "url", "allowed"),
    [
        (["orchard:8080"], "http://orchard:8080/graphql", True),
        (["Orchard:8080"], "http://ORCHARD:8080/graphql", True),
        (["orchard"], "http://orchard/graphql", True),
        (["orchard:80"], "http://orchard/graphql", True),
        (["orchard"], "http://orchard:8080/graphql", False),
        (["orchard:8080"], "http://orchard:8081/graphql", False),
        (["orchard:8080"], "http://a.orchard:8080/graphql", False),
    ],
)
def test_the_plain_hosts_of_the_source_hold_for_the_token_too(
    module: ModuleType, names: list[str], url: str, allowed: bool
) -> None:
    class Source:
        plain_http = tuple(names)
        token = static_source("abc").token
        atoken = static_source("abc").atoken
        invalidate = static_source("abc").invalidate

    if allowed:
        assert flow_of(TokenAuth(Source()), module, url).headers["Authorization"] == "Bearer abc"
    else:
        with pytest.raises(ConfigurationError, match="plain http"):
            flow_of(TokenAuth(Source()), module, url)


@pytest.mark.parametrize("origins", ["https://pos.test", ["https://POS.test:443/ignored", "https://api.test:8443"]])
def test_with_origins_every_other_origin_is_refused(module: ModuleType, origins: Any) -> None:
    auth = TokenAuth(static_source("abc"), origins=origins)
    for url in ("https://pos.test/a", "https://pos.test:443/b", "https://POS.test/c"):
        assert flow_of(auth, module, url).headers["Authorization"] == "Bearer abc"
    for url in ("https://pos.test:8443/", "https://evil.test/", "https://pos.test.evil.test/", "http://pos.test:443/"):
        with pytest.raises(ConfigurationError, match=r"for .*https://pos\.test:443"):
            flow_of(auth, module, url)


@pytest.mark.parametrize(
    "origins", ["pos.test", "", "ftp://pos.test", "https://", "https://pos:port", 5, [None], b"https://a"]
)
def test_origins_that_are_none_are_refused_at_once(origins: Any) -> None:
    with pytest.raises(ConfigurationError, match="https://HOST") as caught:
        TokenAuth(static_source("abc"), origins=origins)
    assert caught.value.__context__ is None


def test_without_origins_a_request_that_leaves_the_first_one_is_an_event_once(
    module: ModuleType, source: TokenSource, events: list[Event]
) -> None:
    auth = TokenAuth(source)
    for url in (
        "https://a.test/",
        "https://a.test/b",
        "https://b.test:8443/",
        "https://b.test:8443/c",
        "https://a.test/",
    ):
        flow_of(auth, module, url)
    left = [event for event in events if isinstance(event, OriginLeft)]
    assert left == [OriginLeft(source.name, "https://a.test:443", "https://b.test:8443")]


def test_at_most_256_origins_are_remembered_and_requests_to_further_ones_go_on(
    module: ModuleType, source: TokenSource, events: list[Event]
) -> None:
    auth, header = TokenAuth(source), source.token().authorization
    for number in range(300):
        assert flow_of(auth, module, f"https://a{number}.test/").headers["Authorization"] == header
    assert len(auth._known) == 256
    assert len([event for event in events if isinstance(event, OriginLeft)]) == 255
    with pytest.raises(ConfigurationError, match="plain http"):
        flow_of(auth, module, "http://a300.test/")
    assert flow_of(auth, module, "https://a299.test/").headers["Authorization"] == header


# --- the client, and other requests ----------------------------------------------------------------------------------


def test_the_client_it_is_given_to_is_not_changed(
    module: ModuleType, source: TokenSource, issuer: FakeIssuer, api: Api, clock: TickingClock
) -> None:
    auth = TokenAuth(source)
    refused_token(source, issuer, clock)
    with module.Client(auth=auth, **PLAIN, headers={"X-Mine": "1"}) as client:
        before = (client.headers.raw, client.auth, dict(client.event_hooks), list(client.cookies))
        assert client.get(api.url).status_code == 200
        assert (client.headers.raw, client.auth, dict(client.event_hooks), list(client.cookies)) == before
        assert "authorization" not in client.headers


def test_one_request_may_have_it_and_the_others_not(source: TokenSource, api: Api) -> None:
    with httpx.Client(**PLAIN) as client:
        assert client.get(api.url, auth=TokenAuth(source)).status_code == 200
        assert client.get(api.url).status_code == 401
    assert api.seen[1] == ""


def test_ten_requests_of_threads_run_together_while_one_streams(
    module: ModuleType, source: TokenSource, api: Api
) -> None:
    with (
        module.Client(auth=TokenAuth(source), **PLAIN) as client,
        client.stream("GET", f"{api.url}/stream") as streaming,
        ThreadPoolExecutor(10) as threads,
    ):
        # The API answers none of them before it has all ten.
        answers = list(threads.map(lambda _: client.get(f"{api.url}/together").status_code, range(10)))
        assert answers == [200] * 10
        assert not streaming.is_stream_consumed


def test_ten_requests_of_tasks_run_together_while_one_streams(
    module: ModuleType, source: TokenSource, api: Api
) -> None:
    async def together() -> list[int]:
        async with (
            module.AsyncClient(auth=TokenAuth(source), **PLAIN) as client,
            client.stream("GET", f"{api.url}/stream") as streaming,
        ):
            found = await asyncio.gather(*(client.get(f"{api.url}/together") for _ in range(10)))
            assert not streaming.is_stream_consumed
            return [each.status_code for each in found]

    assert asyncio.run(together()) == [200] * 10


def test_a_flow_that_is_closed_in_the_middle_harms_nothing(
    module: ModuleType, source: TokenSource, issuer: FakeIssuer, api: Api, clock: TickingClock
) -> None:
    auth = TokenAuth(source)
    flow = auth.sync_auth_flow(module.Request("GET", api.url))
    next(flow)
    flow.close()

    async def closed() -> None:
        flow = auth.async_auth_flow(module.Request("GET", api.url))
        await anext(flow)
        await flow.aclose()

    asyncio.run(closed())
    # Also one that is closed when it has just asked to be sent again.
    refused_token(source, issuer, clock)
    flow = auth.sync_auth_flow(module.Request("GET", api.url))
    request = next(flow)
    flow.send(module.Response(401, request=request))
    flow.close()
    assert _sync(module)(auth, api.url).status_code == 200
    assert issuer.token_requests == 2


def test_a_cancelled_request_harms_no_other(source: TokenSource, issuer: FakeIssuer, api: Api) -> None:
    auth = TokenAuth(source)

    async def cancelled() -> int:
        async with httpx.AsyncClient(auth=auth, **PLAIN) as client:
            issuer.fail(Fault(hang=True), times=1)
            waiting = [asyncio.create_task(client.get(api.url)) for _ in range(2)]
            await asyncio.to_thread(issuer.wait_for_token_requests, 1)
            waiting[0].cancel()
            await asyncio.wait(waiting[:1])
            assert waiting[0].cancelled()
            issuer.release()
            return (await waiting[1]).status_code

    assert asyncio.run(cancelled()) == 200
    assert issuer.token_requests == 1


def test_one_object_serves_two_loops_and_a_thread_at_once(
    module: ModuleType, source: TokenSource, issuer: FakeIssuer, api: Api
) -> None:
    auth, begin = TokenAuth(source), threading.Barrier(3)

    async def ten() -> list[int]:
        async with module.AsyncClient(auth=auth, **PLAIN) as client:
            begin.wait(20)
            return [each.status_code for each in await asyncio.gather(*(client.get(api.url) for _ in range(10)))]

    def one() -> list[int]:
        begin.wait(20)
        return [_sync(module)(auth, api.url).status_code]

    with ThreadPoolExecutor(3) as threads:
        found = [threads.submit(asyncio.run, ten()), threads.submit(asyncio.run, ten()), threads.submit(one)]
        assert [status for each in found for status in each.result(60)] == [200] * 21
    assert asyncio.run(ten_more(auth, api, module)) == 200  # and a third loop, later
    assert issuer.token_requests == 1


async def ten_more(auth: TokenAuth, api: Api, module: ModuleType) -> int:
    async with module.AsyncClient(auth=auth, **PLAIN) as client:
        status: int = (await client.get(api.url)).status_code
        return status


def test_what_it_shows_of_itself_holds_no_token(source: TokenSource, api: Api) -> None:
    auth = TokenAuth(source)
    CLIENTS["httpx"](auth, api.url)
    assert source.token().access_token not in f"{auth!r} {vars(auth)!r}"
