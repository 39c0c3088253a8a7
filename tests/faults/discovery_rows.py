"""Faults of an issuer at its metadata, and of a proxy before it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from secretsource import ConfigurationError, DeadlineExceeded, InvalidTokenResponse, IssuerUnavailable

from .answers import IN_A_BODY, TOKEN_ANSWER, TOKEN_PATH, metadata_answer
from .peer import Line, Script, raw, reply
from .rows import Got, Row, rows
from .wire import (
    BREAKS_IN_A_HANDSHAKE,
    COMPRESSED,
    DRIPS,
    EARLY_BREAKS,
    FEW_DRIPS,
    FEW_TLS_DRIPS,
    HANDSHAKES,
    MEGABYTES,
    NOT_TRUSTED,
    TLS_DRIPS,
    bad_json,
    broken,
    odd_but_whole,
    redirects,
)

AT = "discovery"
PROXY = "proxy"


def published(**changes: Any) -> Script:
    """Metadata that are right but for these members; one that is a function gets the line."""

    def script(line: Line) -> None:
        made = {name: value(line) if callable(value) else value for name, value in changes.items()}
        members = {**metadata_answer(line.peer.origin), **made}
        reply(200, {name: value for name, value in members.items() if value != "absent"})(line)

    return script


def _origin(text: str) -> Callable[[Line], str]:
    """{here}, {http} and {https} of it are the origins."""
    return lambda line: text.format(here=line.peer.origin, port=line.peer.port, **line.peer.places)


ANOTHER_ISSUER: dict[str, Script] = {
    f"the issuer is {name}": published(issuer=value)
    for name, value in {
        "missing": "absent",
        "null": None,
        "a number": 5,
        "a list": _origin("[{here}]"),
        "empty": "",
        "a stranger": _origin("{https}"),
        "in capitals": lambda line: line.peer.origin.upper(),
        "with a path": _origin("{here}/tenant"),
        "with a query": _origin("{here}?x=1"),
        "by another name of the host": _origin("http://localhost:{port}"),
        "very long": "https://elsewhere.test/" + IN_A_BODY * 1000,
    }.items()
}
NO_ENDPOINT: dict[str, Script] = {
    f"the token endpoint is {name}": published(token_endpoint=value)
    for name, value in {
        "missing": "absent",
        "null": None,
        "a number": 5,
        "a list": ["https://elsewhere.test/"],
        "empty": "",
        "relative": TOKEN_PATH,
        "without a scheme": "//elsewhere.test/token",
        "ftp": "ftp://elsewhere.test/",
        "javascript": "javascript:alert(1)",
        "a file": "file:///etc/passwd",
        "with a password": f"https://user:{IN_A_BODY}@elsewhere.test/",
        "with a line end": "https://elsewhere.test/\r\nX-Admin: true",
        "with a name outside ASCII": "https://elsewhere.tést/",
        "with a port that is none": "https://elsewhere.test:99999/",
        "very long": "https://elsewhere.test/" + "x" * 5000,
    }.items()
}
ENDPOINTS_ELSEWHERE: dict[str, Script] = {
    f"the token endpoint is {name}": published(token_endpoint=value)
    for name, value in {
        "on a stranger": "https://elsewhere.test/token",
        "on loopback by another name": lambda line: line.peer.places["http"].replace("127.0.0.1", "localhost"),
        "on a name that ends in ours": "https://x.127.0.0.1.elsewhere.test/token",
        "with a fragment": _origin("{here}/token#x"),
    }.items()
}
METHODS: dict[str, Script] = {
    f"the methods are {name}": published(token_endpoint_auth_methods_supported=value)
    for name, value in {"none": [], "others": ["private_key_jwt", "none"], "a text": "client_secret_basic"}.items()
}
METADATA = '{"issuer": "http://127.0.0.1", "token_endpoint": "http://127.0.0.1/token"}'


def _as_metadata(script: Callable[[bytes], dict[str, Script]], name: str) -> Script:
    return lambda line: script(json.dumps(metadata_answer(line.peer.origin)).encode())[name](line)


def discovery_rows() -> Iterator[Row]:
    yield from rows(AT, ConfigurationError, {**ANOTHER_ISSUER, **ENDPOINTS_ELSEWHERE, **METHODS}, method=None)
    plain = published(token_endpoint=_origin("{http}/token"))
    yield Row(AT, "an endpoint of plain http", plain, ConfigurationError, tls="good", says="plain http")
    yield from rows(AT, InvalidTokenResponse, NO_ENDPOINT)
    not_json = {name: reply(200, body) for name, body in bad_json(METADATA).items()}
    yield from rows(AT, InvalidTokenResponse, not_json)
    yield from rows(AT, InvalidTokenResponse, MEGABYTES, says="more than", big=True)
    yield from rows(AT, InvalidTokenResponse, COMPRESSED, says="compressed", big=True)
    for name in broken(b"{}"):
        yield Row(AT, name, _as_metadata(broken, name), IssuerUnavailable, 3)
    for name in odd_but_whole(b"{}"):
        yield Row(AT, name, _as_metadata(odd_but_whole, name), Got())
    away = redirects("/.well-known/openid-configuration", f"/{IN_A_BODY}")
    page = {"a page with a meta refresh": away.pop("a page with a meta refresh")}
    yield from rows(AT, InvalidTokenResponse, page)
    yield from rows(AT, IssuerUnavailable, away, retryable=False, says="publishes no metadata")
    for status in (201, 202, 204, 206, 304, 400, 401, 403, 404, 405, 407, 408, 410, 418):
        fault = reply(status, b"" if status in (204, 304) else {"error": IN_A_BODY})
        yield Row(AT, str(status), fault, IssuerUnavailable, retryable=False)
    for status in (429, 500, 501, 502, 503, 504, 511):
        yield Row(AT, str(status), reply(status, {"error": IN_A_BODY}), IssuerUnavailable, 3)
    for certificate in NOT_TRUSTED:
        yield Row(
            AT, f"certificate: {certificate}", reply(200), IssuerUnavailable, 0, retryable=False, tls=certificate
        )  # fmt: skip
    for name, fault in HANDSHAKES.items():
        yield Row(AT, name, fault, IssuerUnavailable, 0, retryable=False, tls="good", early=True)
    yield from rows(AT, IssuerUnavailable, EARLY_BREAKS, asked=0, early=True)
    yield from rows(AT, IssuerUnavailable, BREAKS_IN_A_HANDSHAKE, asked=0, early=True, tls="good")
    yield Row(AT, "nobody listens", raw(b""), IssuerUnavailable, 0, door="nobody")
    for name, fault in DRIPS.items():
        yield Row(AT, name, fault, DeadlineExceeded, waits=True, slow=name not in FEW_DRIPS)
    for name, (fault, early) in TLS_DRIPS.items():
        asked, slow = 0 if early else 1, name not in FEW_TLS_DRIPS
        yield Row(AT, f"{name}, TLS", fault, DeadlineExceeded, asked, tls="good", early=early, waits=True, slow=slow)
    # Known metadata do not make a token endpoint a better one.
    after = "token after discovery"
    yield from rows(after, InvalidTokenResponse, redirects(TOKEN_PATH, f"/{IN_A_BODY}"))
    yield Row(after, "all is well", reply(200, TOKEN_ANSWER), Got())


# --- a proxy ----------------------------------------------------------------------------------------------------------


def proxy_rows() -> Iterator[Row]:
    refusals: dict[str, Script] = {
        str(status): reply(status, f"{IN_A_BODY}".encode())
        for status in (301, 307, 400, 401, 403, 404, 407, 429, 500, 502, 503, 504)
    }
    yield from rows(PROXY, IssuerUnavailable, refusals, asked=3)
    for name, fault in HANDSHAKES.items():
        yield Row(PROXY, f"{name} in a tunnel", _in_a_tunnel(fault), IssuerUnavailable, retryable=False, says="no TLS")
    closing = {"a tunnel that is closed": raw(b"HTTP/1.1 200 OK\r\n\r\n"), "closed with no word": raw(b"")}
    yield from rows(PROXY, IssuerUnavailable, closing, asked=3)
    yield Row(PROXY, "nobody listens", raw(b""), IssuerUnavailable, 0, door="nobody", says="through the proxy")
    for name in ("no answer", "a drip of the status line", "a drip of the head", "a drip of 100 Continue"):
        yield Row(PROXY, name, DRIPS[name], DeadlineExceeded, waits=True)
    for name in ("a drip of the handshake", "a handshake that stops"):
        fault = TLS_DRIPS[name][0]
        yield Row(PROXY, f"{name} in a tunnel", _in_a_tunnel(fault), DeadlineExceeded, waits=True)


def _in_a_tunnel(fault: Script) -> Script:
    def script(line: Line) -> None:
        line.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        line.receive()  # a handshake begins
        fault(line)

    return script
