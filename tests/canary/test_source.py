"""Sources of tokens: what is asked of them, in success and in each way in which an issuer fails them."""

from __future__ import annotations

import asyncio
import base64
import gzip
import html
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import trio
import trustme

from secretsource import ClientCredentials, CredentialsSource, Document, Secret, TokenSource
from secretsource.errors import (
    ConfigurationError,
    CredentialsRejected,
    DeadlineExceeded,
    InvalidTokenResponse,
    IssuerUnavailable,
    MalformedSecret,
    SecretSourceError,
    TokenError,
    TokenRequestRefused,
)
from secretsource.testing import FakeIssuer, Fault, Incoming, LoopbackServer, TickingClock
from secretsource.testing.loopback import Answer

from ..stores import Store, in_threads
from .canaries import PLAIN, SPECIAL, TOKEN, Shape
from .watch import Watch

METHODS = ["client_secret_basic", "client_secret_post"]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(params=[PLAIN, SPECIAL], ids=["plain", "special"])
def secret(request: pytest.FixtureRequest, watch: Watch) -> str:
    return watch.canary("client secret", request.param)


@pytest.fixture
def token(watch: Watch, issuer: FakeIssuer) -> str:
    """What the issuer gives, until it is told otherwise."""
    token = watch.canary("access token", TOKEN)
    issuer.fail(Fault(answer={"access_token": token}))
    return token


@pytest.fixture
def source(watch: Watch, issuer: FakeIssuer, secret: str, token: str) -> TokenSource:
    return watch.source(issuer.add_client("pos", secret), issuer=issuer.url, scope="orders.read")


# --- success ---------------------------------------------------------------------------------------------------------

ASKED: dict[str, Callable[[TokenSource], object]] = {
    "token": lambda source: source.token(),
    "another scope": lambda source: source.token(scope="orders.write", extra={"tenant": "north"}),
    "a forced one": lambda source: source.token(force=True),
    "a header": lambda source: len(source.token().authorization),
    "asyncio": lambda source: asyncio.run(source.atoken()),
    "trio": lambda source: trio.run(source.atoken),
    "verify": lambda source: source.verify(),
    "averify in asyncio": lambda source: asyncio.run(source.averify()),
    "averify in trio": lambda source: trio.run(source.averify),
    "threads": lambda source: in_threads(8, source.token),
    "reload": lambda source: source.reload(),
    "invalidate": lambda source: source.invalidate(source.token()),
    "invalidate a text": lambda source: source.invalidate(source.token().access_token),
    "status": lambda source: source.status(),
    "close": lambda source: source.close(),
    "the source itself": lambda source: source,
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_a_source_gives_shows_nothing(watch: Watch, source: TokenSource, asked: str) -> None:
    watch.gives(source.token)
    watch.gives(lambda: ASKED[asked](source))
    watch.look(source)
    watch.look(source.status())


def test_a_token_waited_for_in_an_event_loop_warns_and_shows_nothing(watch: Watch, source: TokenSource) -> None:
    async def wait() -> object:
        return source.token()

    watch.gives(lambda: asyncio.run(wait()))


def test_a_token_that_is_kept_while_its_renewal_fails_shows_nothing(
    watch: Watch, issuer: FakeIssuer, secret: str
) -> None:
    clock = TickingClock()
    source = watch.source(issuer.add_client("pos", secret), issuer=issuer.url, clock=clock)
    watch.canary_of("kept token", source.token().access_token)
    with issuer.down():
        clock.tick(3600 * 0.995)  # too near its end to be handed out without trying
        watch.gives(source.token)
        clock.tick(3600)
        watch.fails(IssuerUnavailable, source.token)
    watch.look(source.status())


@pytest.mark.parametrize("method", METHODS)
def test_a_secret_that_is_changed_shows_neither(watch: Watch, issuer: FakeIssuer, secret: str, method: str) -> None:
    store, new = Store(), watch.canary("pending secret", SPECIAL)
    issuer.add_client("pos", secret)
    store.put(secret, pending=new, previous=watch.canary("previous secret"))
    source = watch.source("memory:pos", stores=store.stores, issuer=issuer.url, auth_method=method)
    watch.canary_of("first token", source.token().access_token)
    issuer.set_secret("pos", new)
    watch.canary_of("second token", watch.gives(lambda: source.token(force=True)).access_token)
    issuer.set_secret("pos", "not-a-real-secret-of-nobody")
    watch.fails(CredentialsRejected, lambda: source.token(force=True))
    watch.fails(CredentialsRejected, source.verify)
    watch.look(source.status())


# --- what an issuer answers ------------------------------------------------------------------------------------------


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


REFUSALS: dict[str, Callable[[str], Fault]] = {
    "in a description": lambda s: Fault(
        status=401, body=body(error="invalid_client", error_description=f"no {s} here")
    ),
    "as a description": lambda s: Fault(status=400, body=body(error="invalid_client", error_description=s)),
    "as an error": lambda s: Fault(status=401, body=body(error=s)),
    "as an error of the request": lambda s: Fault(status=400, body=body(error=s, error_description=s)),
    "behind a code": lambda s: Fault(status=401, body=body(error="invalid_client", error_uri=f"https://x/ID2055#{s}")),
    "in Okta's members": lambda s: Fault(status=403, body=body(errorCode=s, errorSummary=s, errorId=s)),
    "in HTML": lambda s: Fault(status=502, body=f"<html>{html.escape(s)}</html>".encode()),
    "as text": lambda s: Fault(status=403, headers={"Content-Type": "text/plain"}, body=s.encode()),
    "in a form": lambda s: Fault(status=400, body=f"error=invalid_client&client_secret={quote_plus(s)}".encode()),
    "in a challenge": lambda s: Fault(status=401, headers={"WWW-Authenticate": f'Basic realm="{quote(s)}"'}, body=b""),
    "in a request ID": lambda s: Fault(status=401, headers={"X-Request-Id": quote(s, safe="")}, body=b""),
    "in a time to wait": lambda s: Fault(status=429, headers={"Retry-After": quote(s)}, body=b""),
    "in a redirect": lambda s: Fault(redirect=f"https://elsewhere.example/?client_secret={quote(s)}"),
    "in the names of members": lambda s: Fault(status=400, body=body(**{s: s, "error": "invalid_scope"})),
    "in broken JSON": lambda s: Fault(status=400, body=b'{"error": "' + s.encode()[:20]),
    "in the type of the content": lambda s: Fault(status=500, headers={"Content-Type": quote(s)}, body=b""),
    "in the encoding of the content": lambda s: Fault(status=200, headers={"Content-Encoding": quote(s)}, body=b"{}"),
    "in a cookie": lambda s: Fault(status=503, headers={"Set-Cookie": f"last={quote(s)}"}, body=b""),
    "in the name of a header": lambda s: Fault(status=503, headers={_of_a_name(s): "yes"}, body=b""),
    "with status 200": lambda s: Fault(status=200, body=body(error="invalid_client", error_description=s)),
    "as a token": lambda s: Fault(answer={"access_token": s}),
    "in a token": lambda s: Fault(answer={"access_token": f"at-{s}"}),
    "as a scope": lambda s: Fault(answer={"scope": s}),
    "among the scopes": lambda s: Fault(answer={"scope": f"orders.read {s}"}),
    "as the kind of token": lambda s: Fault(answer={"token_type": s}),
    "as a lifetime": lambda s: Fault(answer={"expires_in": s}),
    "beside a token that is none": lambda s: Fault(answer={"access_token": None, "id_token": s}),
    "in 2 MiB": lambda s: Fault(status=200, body=body(access_token=s), padding=2 << 20),
    "compressed": lambda s: Fault(
        status=200, headers={"Content-Encoding": "gzip"}, body=gzip.compress(body(access_token=s))
    ),
    "cut": lambda s: Fault(status=200, headers=JSON, body=body(access_token=s), cut_after=len(s)),
    "shorter than it says": lambda s: Fault(status=200, headers=JSON, body=body(access_token=s), content_length=900),
}


def _of_a_name(text: str) -> str:
    return "X-" + "".join(each for each in text if each.isascii() and (each.isalnum() or each == "-"))


@pytest.mark.parametrize(("method", "shape"), [("client_secret_post", PLAIN), ("client_secret_basic", SPECIAL)])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_secret_that_an_issuer_gives_back_is_shown_nowhere(
    watch: Watch, issuer: FakeIssuer, refusal: str, method: str, shape: Shape
) -> None:
    secret = watch.canary("client secret", shape)
    credentials = issuer.add_client("pos", secret)
    source = watch.source(credentials, token_url=issuer.token_url, scope="orders.read", auth_method=method)
    issuer.fail(REFUSALS[refusal](secret))
    watch.fails(TokenError, source.token)
    watch.fails(TokenError, source.token)  # the one that callers share
    watch.look(source.status())


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_header_that_an_issuer_gives_back_is_shown_nowhere(watch: Watch, issuer: FakeIssuer, refusal: str) -> None:
    secret = watch.canary("client secret")
    source = watch.source(issuer.add_client("pos", secret), token_url=issuer.token_url, scope="orders.read")
    issuer.fail(REFUSALS[refusal](base64.b64encode(f"pos:{secret}".encode()).decode()))
    watch.fails(TokenError, source.token)


ODD: dict[str, Callable[[str], dict[str, Any]]] = {
    "a token with a blank": lambda t: {"access_token": f"{t} x"},
    "a token with a line end": lambda t: {"access_token": f"{t}\r\nX-Injected: 1"},
    "a token with NUL": lambda t: {"access_token": f"{t}\0"},
    "a token in Unicode": lambda t: {"access_token": f"{t}é"},
    "half a character": lambda t: {"access_token": f"{t}\ud800"},
    "several tokens": lambda t: {"access_token": [t]},
    "another kind": lambda t: {"access_token": t, "token_type": "mac"},
    "no kind": lambda t: {"access_token": t, "token_type": None},
    "a lifetime of words": lambda t: {"access_token": t, "expires_in": "soon"},
    "a lifetime of bool": lambda t: {"access_token": t, "expires_in": True},
    "a scope that is a number": lambda t: {"access_token": t, "scope": 7},
    "an error beside it": lambda t: {"access_token": t, "error": "invalid_request"},
}


@pytest.mark.parametrize("odd", ODD)
def test_a_token_that_cannot_be_used_is_shown_nowhere(watch: Watch, issuer: FakeIssuer, secret: str, odd: str) -> None:
    source = watch.source(issuer.add_client("pos", secret), token_url=issuer.token_url)
    issuer.fail(Fault(answer=ODD[odd](watch.canary("access token", TOKEN))))
    watch.fails(InvalidTokenResponse, source.token)
    watch.fails(InvalidTokenResponse, lambda: asyncio.run(source.atoken()))


@pytest.mark.parametrize("given", ["refresh_token", "id_token", "anything"])
def test_what_comes_beside_a_token_is_not_kept(watch: Watch, issuer: FakeIssuer, secret: str, given: str) -> None:
    source = watch.source(issuer.add_client("pos", secret), token_url=issuer.token_url)
    issuer.fail(Fault(answer={given: watch.canary(given, TOKEN)}))
    watch.gives(source.token)
    watch.look(source)


# --- what happens on the way -----------------------------------------------------------------------------------------


def test_an_issuer_that_refuses_connections(watch: Watch, issuer: FakeIssuer, secret: str) -> None:
    source = watch.source(issuer.add_client("pos", secret), issuer=issuer.url)
    with issuer.down():
        watch.fails(IssuerUnavailable, source.token)
        watch.fails(IssuerUnavailable, source.verify)
        watch.fails(IssuerUnavailable, lambda: asyncio.run(source.atoken()))
        watch.fails(IssuerUnavailable, lambda: trio.run(source.averify))


SLOW = {
    "it hangs": ("client_secret_basic", Fault(hang=True)),
    "it drips its head": ("client_secret_post", Fault(drip_head=0.05)),
    "it drips its body": ("client_secret_basic", Fault(drip_body=0.05)),
}


def test_an_issuer_that_resets_connections(watch: Watch, issuer: FakeIssuer, secret: str) -> None:
    source = watch.source(issuer.add_client("pos", secret), token_url=issuer.token_url)
    with issuer.failing(Fault(reset=True)):
        watch.fails(IssuerUnavailable, source.token)


@pytest.mark.parametrize("slow", SLOW)
@pytest.mark.parametrize("run", ["thread", "asyncio", "trio"])
def test_an_issuer_that_is_slow(watch: Watch, issuer: FakeIssuer, slow: str, run: str) -> None:
    method, fault = SLOW[slow]
    credentials = issuer.add_client("pos", watch.canary("client secret", SPECIAL))
    source = watch.source(credentials, token_url=issuer.token_url, auth_method=method, timeout=0.2, clock=None)
    ask: dict[str, Callable[[], object]] = {
        "thread": source.token,
        "asyncio": lambda: asyncio.run(source.atoken()),
        "trio": lambda: trio.run(source.atoken),
    }
    with issuer.failing(fault):
        watch.fails(DeadlineExceeded, ask[run])
        watch.look(source)  # whose flight may still be under way
    issuer.release()


def _tls(*names: str, authority: trustme.CA, **times: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **times).configure_cert(context)
    return context


@pytest.mark.parametrize("wrong", ["authority", "host name"])
def test_a_certificate_that_is_not_trusted(watch: Watch, secret: str, tmp_path: Path, wrong: str) -> None:
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = _tls("127.0.0.1" if wrong == "authority" else "elsewhere.example",
                   authority=other if wrong == "authority" else authority)  # fmt: skip
    with FakeIssuer(ssl_context=context) as issuer:
        credentials = issuer.add_client("pos", secret)
        source = watch.source(credentials, token_url=issuer.token_url, ca_file=tmp_path / "ca.pem")
        watch.fails(IssuerUnavailable, source.token)
        watch.look(source)


def test_plain_http_where_tls_is_expected_and_the_reverse(watch: Watch, secret: str, issuer: FakeIssuer) -> None:
    issuer.add_client("pos", secret)
    port = issuer.url.rsplit(":", 1)[1].strip("/")
    source = watch.source(ClientCredentials("pos", secret), token_url=f"https://127.0.0.1:{port}/connect/token")
    watch.fails(IssuerUnavailable, source.token)
    with FakeIssuer(ssl_context=_tls("127.0.0.1", authority=trustme.CA())) as other:
        source = watch.source(ClientCredentials("pos", secret), token_url=other.token_url.replace("https", "http"))
        watch.fails(SecretSourceError, source.token)


def test_a_host_that_is_not_found(watch: Watch, secret: str) -> None:
    source = watch.source(ClientCredentials("pos", secret), token_url="https://nowhere.invalid/token", timeout=5)
    watch.fails(SecretSourceError, source.token)


@pytest.mark.parametrize("status", [200, 407, 502])
def test_a_proxy_with_a_password(watch: Watch, secret: str, status: int) -> None:
    password = watch.canary("password of the proxy")

    def answer(incoming: Incoming) -> Answer:
        return Answer(status, {"Proxy-Authenticate": f'Basic realm="{incoming.headers}"'.replace("\n", " ")})

    with LoopbackServer(answer) as proxy:
        url = proxy.origin.replace("http://", f"http://user:{password}@")
        source = watch.source(ClientCredentials("pos", secret), token_url="https://pos.example.com/token", proxy=url)
        watch.fails(IssuerUnavailable, source.token)
        watch.look(source)


def test_a_proxy_of_the_environment_with_a_password(watch: Watch, secret: str) -> None:
    watch.setenv("HTTPS_PROXY", f"http://user:{watch.canary('password of the proxy')}@127.0.0.1:9")
    source = watch.source(ClientCredentials("pos", secret), token_url="https://pos.example.com/token", proxy="env")
    watch.fails(IssuerUnavailable, source.token)


# --- discovery -------------------------------------------------------------------------------------------------------

METADATA: dict[str, Callable[[str, str], Fault]] = {
    "another issuer": lambda url, s: Fault(answer={"issuer": f"https://x.example/{s}"}),
    "no endpoint": lambda url, s: Fault(answer={"token_endpoint": None, "x": s}),
    "an endpoint elsewhere": lambda url, s: Fault(answer={"token_endpoint": f"https://x.example/{s}"}),
    "no JSON": lambda url, s: Fault(status=200, body=f"<html>{s}".encode()),
    "an error": lambda url, s: Fault(status=500, body=s.encode()),
    "a redirect": lambda url, s: Fault(redirect=f"https://x.example/{s}"),
    "methods of its own": lambda url, s: Fault(answer={"token_endpoint_auth_methods_supported": [s]}),
}


@pytest.mark.parametrize("metadata", ["no JSON", "an error", "a redirect"])
def test_metadata_that_cannot_be_used_shows_nothing(
    watch: Watch, issuer: FakeIssuer, secret: str, metadata: str
) -> None:
    source = watch.source(issuer.add_client("pos", secret), issuer=issuer.url)
    issuer.fail(METADATA[metadata](issuer.url, quote(secret)), path="discovery")
    watch.fails(SecretSourceError, source.token)


@pytest.mark.parametrize("metadata", METADATA)
def test_after_metadata_that_cannot_be_used_no_secret_has_left(
    watch: Watch, issuer: FakeIssuer, secret: str, metadata: str
) -> None:
    source = watch.source(issuer.add_client("pos", secret), issuer=issuer.url)
    issuer.fail(METADATA[metadata](issuer.url, "elsewhere"), path="discovery")
    watch.ends(source.token)
    assert "https" not in {request.path for request in issuer.requests}


# --- credentials that are wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_id_and_secret_that_are_swapped(watch: Watch, issuer: FakeIssuer, method: str) -> None:
    secret, store = watch.canary("secret given as the ID", PLAIN), Store()
    store.put("pos", client_id=secret)
    issuer.add_client("pos", secret)
    source = watch.source("memory:pos", stores=store.stores, issuer=issuer.url, auth_method=method)
    # Where the ID belongs there are objects that have it; no message, event or report does.
    watch.fails(CredentialsRejected, source.token, frames=False)
    watch.fails(CredentialsRejected, source.verify, frames=False)
    watch.look(source.status())
    watch.write(f"{source!r} {source.name}")


UNUSABLE = ["\n", "\r\n", "\0", "a\nb", "\x7f", "\x1b[31m", "\ud800"]


@pytest.mark.parametrize("odd", UNUSABLE, ids=ascii)
@pytest.mark.parametrize("where", ["client_secret", "client_id", "client_secret_pending"])
def test_a_secret_with_a_character_that_nothing_can_send(
    watch: Watch, issuer: FakeIssuer, where: str, odd: str
) -> None:
    secret, store = watch.canary("client secret"), Store()
    issuer.add_client("pos", "not-a-real-secret")
    store.put("not-a-real-secret", **{where: f"{secret}{odd}"})
    source = watch.source("memory:pos", stores=store.stores, issuer=issuer.url)
    if where == "client_secret_pending":
        watch.gives(source.token)
    else:
        watch.fails(MalformedSecret, source.token)
    watch.look(source)


@pytest.mark.parametrize("encoding", ["rfc6749", "raw", "raw-latin1"])
def test_a_secret_that_an_encoding_cannot_carry(watch: Watch, issuer: FakeIssuer, encoding: Any) -> None:
    from secretsource import IssuerProfile

    secret = watch.canary("client secret", "{}-not-a-real-secret-⋯-\ud800-{}")
    profile = IssuerProfile(basic_encoding=encoding)
    source = watch.source(ClientCredentials("pos", secret), token_url=issuer.token_url, profile=profile)
    watch.fails(ConfigurationError, source.token)
    source = watch.source(
        ClientCredentials("pos", secret), token_url=issuer.token_url, auth_method="client_secret_post"
    )
    watch.fails(ConfigurationError, source.token)


def test_a_request_that_is_refused(watch: Watch, issuer: FakeIssuer, secret: str) -> None:
    source = watch.source(issuer.add_client("pos", secret, scopes=["orders.read"]), issuer=issuer.url)
    watch.fails(TokenRequestRefused, lambda: source.token(scope="orders.write"))
    watch.look(source.status())


def test_a_source_that_is_closed(watch: Watch, source: TokenSource) -> None:
    source.token()
    source.close()
    watch.fails(ConfigurationError, source.token)
    watch.look(source)


def test_a_key_in_the_query_of_a_token_url(watch: Watch, issuer: FakeIssuer, secret: str) -> None:
    key = watch.canary("key of a gateway")
    source = watch.source(issuer.add_client("pos", secret), token_url=f"{issuer.token_url}?code={key}")
    source.token()
    with issuer.down():
        watch.fails(IssuerUnavailable, lambda: source.token(force=True), frames=False)
    watch.look(source.status())
    watch.write(f"{source!r} {source.name}")


@pytest.fixture
def pasted(watch: Watch) -> Callable[[Callable[[str], object]], None]:
    """Something is tried with a secret that was pasted where none belongs."""

    def try_with(work: Callable[[str], object]) -> None:
        given = [watch.canary("pasted secret")]
        watch.ends(lambda: work(given.pop()))

    return try_with


ARGUMENTS: dict[str, Callable[[str], object]] = {
    "credentials": lambda s: TokenSource(s, issuer="https://pos.example.com"),
    "credentials with a colon": lambda s: TokenSource(f"{s[:9]}:{s[9:]}", issuer="https://pos.example.com"),
    "credentials as a path": lambda s: TokenSource(f"vault:{s}?{s}#{s}", issuer="https://pos.example.com"),
    "client_secret=": lambda s: TokenSource("env:POS", issuer="https://pos.example.com", client_secret=s),
    "password=": lambda s: TokenSource("env:POS", issuer="https://pos.example.com", password=s),
    "proxy=": lambda s: TokenSource("env:POS", issuer="https://pos.example.com", proxy=s),
    "proxy= beside what is wrong": lambda s: TokenSource("env:POS", issuer="no URL", proxy=f"http://u:{s}@h:1"),
    "proxy= with a password": lambda s: TokenSource("env:POS", issuer="https://a.example", proxy=f"socks://u:{s}@h"),
    "token(secret=)": lambda s: TokenSource("env:POS", issuer="https://pos.example.com").token(secret=s),  # type: ignore[call-arg]
    "issuer= with a password": lambda s: TokenSource("env:POS", issuer=f"https://u:{s}@pos.example.com"),
    "a pending secret as a text": lambda s: ClientCredentials("pos", "a", pending=s),  # type: ignore[arg-type]
    "a clock that is none": lambda s: TokenSource(
        "env:POS",
        token_url="https://a.example/t",
        proxy=f"http://u:{s}@h:1",
        clock=5,  # type: ignore[arg-type]
    ),
    "extra= of a token": lambda s: TokenSource("env:POS", token_url="https://a.example/t").token(
        extra={"a": 5, "b": s}  # type: ignore[dict-item]
    ),
    "no client ID": lambda s: ClientCredentials("", s),
    "bytes for a secret": lambda s: ClientCredentials("pos", s.encode()),  # type: ignore[arg-type]
    "a Secret of bytes": lambda s: Secret(s.encode()),  # type: ignore[arg-type]
    "a Document of bytes": lambda s: Document(s.encode()),  # type: ignore[arg-type]
    "bytes for a token": lambda s: TokenSource("env:POS", token_url="https://a.example/t").invalidate(s.encode()),  # type: ignore[arg-type]
    "a user and a password": lambda s: TokenSource(f"vault://user:{s}@kv/pos", token_url="https://a.example/t"),
    "by position": lambda s: TokenSource("env:POS", "pos", s),  # type: ignore[call-arg]
    "a source of credentials": lambda s: CredentialsSource("env:POS", client_secret=s),  # type: ignore[call-arg]
    "a source of credentials, by position": lambda s: CredentialsSource("env:POS", s),  # type: ignore[call-arg, arg-type]
    "token_url= with a password": lambda s: TokenSource("env:POS", token_url=f"https://u:{s}@pos.example.com/t"),
}


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_a_secret_that_is_pasted_where_none_belongs(
    pasted: Callable[[Callable[[str], object]], None], argument: str
) -> None:
    pasted(ARGUMENTS[argument])
