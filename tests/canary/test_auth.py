"""TokenAuth on the four clients: the token goes to the API and nowhere else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
import trio
from opentelemetry.instrumentation.utils import suppress_http_instrumentation

from secretsource import TokenSource
from secretsource.auth.httpx import TokenAuth
from secretsource.errors import ConfigurationError, CredentialsRejected, SecretSourceError
from secretsource.testing import FakeIssuer, Fault, Incoming, LoopbackServer, TickingClock, static_source
from secretsource.testing.loopback import Answer

from .canaries import SPECIAL, TOKEN
from .cases import the_rest_slow
from .watch import Watch

PLAIN: dict[str, Any] = {"trust_env": False, "timeout": 30, "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
REFUSED = Answer(401, {"WWW-Authenticate": 'Bearer error="invalid_token"'})

Send = Callable[..., int]  # send(auth, url, **what a request may have): the status


def _sync(module: ModuleType) -> Send:
    def send(auth: TokenAuth, url: str, **how: Any) -> int:
        # What a program has recorded of its own requests is its affair.
        with suppress_http_instrumentation(), module.Client(auth=auth, follow_redirects=True, **PLAIN) as client:
            return int(client.post(url, **how).status_code)

    return send


def _async(module: ModuleType, run: Callable[..., Any]) -> Send:
    def send(auth: TokenAuth, url: str, **how: Any) -> int:
        async def sent() -> int:
            async with module.AsyncClient(auth=auth, follow_redirects=True, **PLAIN) as client:
                with suppress_http_instrumentation():
                    return int((await client.post(url, **how)).status_code)

        return int(run(sent))

    return send


SENDS: dict[str, Send] = {
    "httpx": _sync(httpx),
    "httpx in asyncio": _async(httpx, lambda work: asyncio.run(work())),
    "httpx in trio": _async(httpx, trio.run),
    "httpx2": _sync(httpx2),
    "httpx2 in asyncio": _async(httpx2, lambda work: asyncio.run(work())),
    "httpx2 in trio": _async(httpx2, trio.run),
}


class Api:
    """Answers by `answer`, and keeps with which tokens it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[Incoming], Answer] = lambda incoming: Answer()
        self.seen: list[str] = []
        self.server = LoopbackServer(self._answer)

    def _answer(self, incoming: Incoming) -> Answer:
        self.seen.append(incoming.headers.get("authorization", ""))
        return self.answer(incoming)


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    with api.server:
        yield api


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture
def source(watch: Watch, issuer: FakeIssuer, clock: TickingClock) -> TokenSource:
    """With a kept token of some age."""
    secret = watch.canary("client secret", SPECIAL)
    source = watch.source(issuer.add_client("pos", secret), issuer=issuer.url, clock=clock)
    issuer.fail(Fault(answer={"access_token": watch.canary("access token", TOKEN)}), times=1)
    source.token()
    clock.tick(60)
    issuer.fail(Fault(answer={"access_token": watch.canary("second token", TOKEN)}))
    return source


@pytest.fixture(params=the_rest_slow(SENDS, "httpx", "httpx in asyncio", "httpx2 in trio"))
def send(request: pytest.FixtureRequest) -> Send:
    return SENDS[request.param]


def test_a_request_with_a_token(watch: Watch, source: TokenSource, api: Api, send: Send) -> None:
    auth = watch.look(TokenAuth(source, origins=api.server.origin, scope="orders.read"))
    assert watch.gives(lambda: send(auth, api.server.origin)) == 200
    watch.look(auth)
    watch.look(source)


def test_a_token_that_the_api_refuses(watch: Watch, source: TokenSource, api: Api, send: Send) -> None:
    first = source.token().authorization
    api.answer = lambda incoming: REFUSED if incoming.headers["authorization"] == first else Answer()
    auth = TokenAuth(source)
    assert watch.gives(lambda: send(auth, api.server.origin, content=b"orders")) == 200
    assert len(set(api.seen)) == 2
    watch.look(auth)


def test_a_redirect_takes_no_token_to_another_origin(watch: Watch, source: TokenSource, api: Api, send: Send) -> None:
    with LoopbackServer(lambda incoming: Answer(body=incoming.headers.get("authorization", "").encode())) as other:
        api.answer = lambda incoming: Answer(307, {"Location": f"{other.origin}/?from=here"})
        watch.ends(lambda: send(TokenAuth(source), api.server.origin))
        watch.ends(lambda: send(TokenAuth(source, origins=api.server.origin), api.server.origin))


def test_a_token_that_is_not_sent_off(watch: Watch, source: TokenSource, api: Api, send: Send) -> None:
    watch.fails(ConfigurationError, lambda: send(TokenAuth(source), "http://pos.example.com/"))
    auth = TokenAuth(source, origins="https://pos.example.com")
    watch.fails(ConfigurationError, lambda: send(auth, api.server.origin))
    assert api.seen == []


def test_a_token_that_cannot_be_had(watch: Watch, issuer: FakeIssuer, api: Api, send: Send) -> None:
    source = watch.source(issuer.add_client("pos", watch.canary("client secret")), token_url=issuer.token_url)
    issuer.set_secret("pos", watch.canary("new secret"))
    auth = TokenAuth(source)
    watch.fails(CredentialsRejected, lambda: send(auth, api.server.origin))
    with issuer.down():
        watch.fails(SecretSourceError, lambda: send(TokenAuth(source, scope="other"), api.server.origin))
    assert api.seen == []


def test_a_static_token(watch: Watch, api: Api, send: Send) -> None:
    source = watch.look(static_source(watch.canary("static token", TOKEN)))
    assert watch.gives(lambda: send(TokenAuth(source), api.server.origin)) == 200
    watch.look(source.status())


def test_a_token_in_a_text_is_refused_by_the_client(watch: Watch, source: TokenSource, api: Api) -> None:
    with pytest.raises(UnicodeEncodeError) as refused:
        httpx.get(api.server.origin, headers={"Authorization": f"Bearer {source.token()}"})
    watch.write(f"{refused.value} {vars(refused.value)} {refused.value.object!r}")
    assert api.seen == []
