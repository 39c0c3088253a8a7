"""Faults of an issuer at its token endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from secretsource import (
    CredentialsRejected,
    DeadlineExceeded,
    InvalidTokenResponse,
    IssuerUnavailable,
    SecretSourceError,
    TokenRequestRefused,
)

from .answers import GOOD, IN_A_BODY, SECRET, TOKEN_ANSWER
from .peer import raw, reply
from .rows import Got, Row, rows
from .wire import (
    BREAKS_IN_A_HANDSHAKE,
    COMPRESSED,
    DRIPS,
    EARLY_BREAKS,
    HANDSHAKES,
    MEGABYTES,
    NOT_JSON_BESIDE_A_STATUS,
    NOT_TRUSTED,
    TLS_DRIPS,
    bad_json,
    broken,
    odd_but_whole,
    redirects,
)

AT = "token"
ABSENT: Any = object()


def answer(**members: Any) -> dict[str, Any]:
    """A good answer with other members."""
    return {name: value for name, value in {**TOKEN_ANSWER, **members}.items() if value is not ABSENT}


def literal(name: str, text: str) -> bytes:
    """A good answer with one member written so, as no JSON library would."""
    return f'{json.dumps(answer(**{name: ABSENT}))[:-1]}, "{name}": {text}}}'.encode()


def answers(expected: Any, bodies: Mapping[str, Any], **facts: Any) -> Iterator[Row]:
    return rows(AT, expected, {name: reply(200, body) for name, body in bodies.items()}, **facts)


# --- the members of an answer -----------------------------------------------------------------------------------------

ACCESS_TOKENS: dict[str, Any] = {
    "missing": ABSENT,
    "null": None,
    "a number": 5,
    "true": True,
    "a list": [GOOD],
    "an object": {"value": GOOD},
    "empty": "",
    "blanks": "   ",
    "a blank in it": f"{GOOD} x",
    "a blank behind": f"{GOOD} ",
    "a line and a header": f"{GOOD}\r\nX-Admin: true",
    "a line end": f"{GOOD}\n",
    "NUL": f"{GOOD}\0",
    "a tab": f"{GOOD}\t",
    "DEL": f"{GOOD}\x7f",
    "not ASCII": f"{GOOD}é",
    "half a character": f"{GOOD}\ud800",
    "the client secret": SECRET,
    "the client secret in it": f"eyJ.{SECRET}.x",
}
TOKEN_TYPES: dict[str, Any] = {
    "missing": ABSENT,
    "null": None,
    "a number": 5,
    "true": True,
    "a list": ["Bearer"],
    "an object": {},
    "empty": "",
    "MAC": "MAC",
    "DPoP": "DPoP",
    "N_A": "N_A",
    "a blank before": " Bearer",
    "a blank behind": "Bearer ",
    "a line end": "Bearer\n",
    "wide letters": "Ｂｅａｒｅｒ",
}
LIFETIMES = {
    "true": "true",
    "false": "false",
    "a text of a fraction": '"3600.0"',
    "a text of a negative number": '"-1"',
    "a text with a sign": '"+3600"',
    "an empty text": '""',
    "wide digits": '"３６００"',
    "an underscore": '"1_000"',
    "blanks": '" 3600 "',
    "text NaN": '"NaN"',
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "1e999": "1e999",
    "hexadecimal": "0x10",
    "a leading zero": "0100",
    "5000 digits": "1" * 5000,
    "text of 400 digits": f'"{"1" * 400}"',
    "a list": "[3600]",
    "an object": "{}",
}
LIFETIMES_TAKEN: dict[str, tuple[str, float]] = {
    "null": ("null", 300.0),
    "0": ("0", 0.0),
    "-1": ("-1", -1.0),
    "a fraction of nothing": ("3600.0", 3600.0),
    "a fraction": ("3600.5", 3600.5),
    "an exponent": ("36e2", 3600.0),
    "text": ('"3600"', 3600.0),
    "1e18": ("1e18", 10 * 365 * 86400.0),
    "10**400": ("1" + "0" * 400, 10 * 365 * 86400.0),
    "-10**400": ("-1" + "0" * 400, -10 * 365 * 86400.0),
}
SCOPES: dict[str, Any] = {
    "a list": ["orders.read"],
    "a number": 5,
    "true": True,
    "an object": {},
    "an escape": "orders.read \x1b[2J",
    "NUL": "orders.read\0",
    "lines": "orders.read\nWARNING: forged",
    "half a character": "\ud800",
    "the client secret": SECRET,
}
SCOPES_TAKEN: dict[str, tuple[Any, tuple[str, ...]]] = {
    "null": (None, ()),
    "empty": ("", ()),
    "blanks": ("   ", ()),
    "twice and in disorder": ("b a  b", ("a", "b")),
    "not ASCII": ("bestellungen.löschen", ("bestellungen.löschen",)),
}


def members() -> Iterator[Row]:
    refused = {
        **{f"access_token is {name}": answer(access_token=value) for name, value in ACCESS_TOKENS.items()},
        **{f"token_type is {name}": answer(token_type=value) for name, value in TOKEN_TYPES.items()},
        **{f"expires_in is {name}": literal("expires_in", text) for name, text in LIFETIMES.items()},
        **{f"scope is {name}": answer(scope=value) for name, value in SCOPES.items()},
    }
    yield from answers(InvalidTokenResponse, refused)
    long = "x" * 200_000
    yield from answers(Got(access_token=long), {"access_token of 200 KB": answer(access_token=long)})
    yield from answers(
        InvalidTokenResponse, {"access_token of 2 MB": answer(access_token="x" * 2_000_000)}, says="more than", big=True
    )
    for kind in ("bearer", "BEARER", "bEaReR"):
        yield from answers(Got(), {f"token_type is {kind}": answer(token_type=kind)})
    yield from answers(Got(lifetime=300.0), {"expires_in is missing": answer(expires_in=ABSENT)})
    for name, (text, lifetime) in LIFETIMES_TAKEN.items():
        yield from answers(Got(lifetime=lifetime), {f"expires_in is {name}": literal("expires_in", text)})
    for name, (scope, scopes) in SCOPES_TAKEN.items():
        yield from answers(Got(scopes=scopes), {f"scope is {name}": answer(scope=scope)})
    unknown = {
        "a refresh token": answer(refresh_token=IN_A_BODY),
        "unknown members": answer(id_token=IN_A_BODY, nested={"a": [{"b": IN_A_BODY}]}, **{"": 1, "é": 2}),
        "half a character where nobody looks": answer(unknown="\ud800"),
        "4000 digits where nobody looks": literal("unknown", "1" * 4000),
        "1e999 where nobody looks": literal("unknown", "1e999"),
        "an error of null": answer(error=None),
    }
    yield from answers(Got(), unknown)


# --- errors -----------------------------------------------------------------------------------------------------------

KINDS: dict[str, tuple[type[SecretSourceError], int]] = {
    "R": (CredentialsRejected, 1),
    "F": (TokenRequestRefused, 1),
    "I": (InvalidTokenResponse, 1),
    "U": (IssuerUnavailable, 3),
}
"""The class that a letter stands for below, and how often is asked."""

# fmt: off
ERRORS = """
                         200 400 401 403 404 405 407 408 410 418 425 429 500 501 502 503 504 511 520
none                     I   F   R   F   F   F   F   U   F   F   U   U   U   U   U   U   U   U   U
invalid_request          I   F   R   F   F   F   F   U   F   F   U   U   U   U   U   U   U   U   U
invalid_client           R   R   R   R   R   R   R   U   R   R   U   U   U   U   U   U   U   U   U
invalid_grant            I   F   R   F   F   F   F   U   F   F   U   U   U   U   U   U   U   U   U
unauthorized_client      F   F   R   R   F   F   F   U   F   F   U   U   U   U   U   U   U   U   U
unsupported_grant_type   F   F   R   F   F   F   F   U   F   F   U   U   U   U   U   U   U   U   U
invalid_scope            F   F   R   F   F   F   F   U   F   F   U   U   U   U   U   U   U   U   U
invalid_target           F   F   R   F   F   F   F   U   F   F   U   U   U   U   U   U   U   U   U
access_denied            I   F   R   R   F   F   F   U   F   F   U   U   U   U   U   U   U   U   U
temporarily_unavailable  U   U   R   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U
server_error             U   U   R   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U
slow_down                U   U   R   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U   U
of_its_own               I   F   R   F   F   F   F   U   F   F   U   U   U   U   U   U   U   U   U
"""
# fmt: on

ODD_ERRORS: dict[str, Any] = {
    "a number": 5,
    "true": True,
    "false": False,
    "an object": {"code": "invalid_client"},
    "a list": ["invalid_client"],
    "empty": "",
    "10 KB": "x" * 10_000,
    "escapes": "\x1b]0;forged\x07\r\n",
    "the client secret": SECRET,
    "half a character": "\ud800",
    "in capitals": "INVALID_CLIENT",
    "with a blank": "invalid_client ",
}


def errors() -> Iterator[Row]:
    header, *lines = (line.split() for line in ERRORS.strip().splitlines())
    for code, *letters in lines:
        for status, letter in zip(header, letters, strict=True):
            kind, asked = KINDS[letter]
            body: dict[str, Any] = {
                "error_description": f"{IN_A_BODY} {SECRET}",
                "error_uri": f"https://elsewhere.test/{SECRET}",
            }
            if code != "none":
                body["error"] = code
            yield Row(AT, f"{status} {code}", reply(int(status), body), kind, asked)


def odd_errors() -> Iterator[Row]:
    for name, error in ODD_ERRORS.items():
        body = {**TOKEN_ANSWER, "error": error}
        yield Row(AT, f"200 with an error that is {name}", reply(200, body), InvalidTokenResponse)
        yield Row(AT, f"400 with an error that is {name}", reply(400, body), TokenRequestRefused)
    escaped = rb'{"error": "invalid\u005fclient", "error_description": "\u001b]0;forged\u0007"}'
    yield Row(AT, "an error written with escapes", reply(400, escaped), CredentialsRejected)
    for status in (201, 202, 203, 204, 205, 206, 207, 226):
        content = b"" if status == 204 else TOKEN_ANSWER
        yield Row(AT, f"{status} with a good token", reply(status, content), InvalidTokenResponse)
    for status in (300, 304, 305, 306, 399):
        yield Row(AT, f"{status} with a good token", reply(status, TOKEN_ANSWER), InvalidTokenResponse)
    for status in (600, 999):
        yield Row(AT, f"{status} with a good token", reply(status, TOKEN_ANSWER), IssuerUnavailable, 3)
    yield Row(AT, "101 Switching Protocols", raw(b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n"), IssuerUnavailable, 3)
    for name, content in _beside_a_status({"error": "invalid_client"}).items():
        for status, letter in {400: "F", 401: "R", 403: "F", 503: "U"}.items():
            kind, asked = KINDS[letter]
            yield Row(AT, f"{status} and {name}", reply(status, content), kind, asked)
    page = f"<html><title>{IN_A_BODY}</title>{SECRET}</html>".encode()
    for status, letter in {200: "I", 400: "F", 401: "R", 403: "F", 404: "F", 429: "U", 500: "U", 503: "U"}.items():
        kind, asked = KINDS[letter]
        fault = reply(status, page, {"Content-Type": "text/html", "Server": SECRET, "X-Request-Id": SECRET})
        yield Row(AT, f"a web page with {status}", fault, kind, asked)


def _beside_a_status(good: Any) -> dict[str, bytes]:
    return {name: bad_json(json.dumps(good))[name] for name in NOT_JSON_BESIDE_A_STATUS}


# --- Retry-After ------------------------------------------------------------------------------------------------------

RETRY_AFTER: dict[str, tuple[float | None, int]] = {
    # what it says: what the error says, how often is asked in the ten seconds of a call
    "0": (0.0, 3),
    "1": (1.0, 3),
    "7": (7.0, 2),
    "120": (120.0, 1),
    "301": (300.0, 1),
    "60000": (300.0, 1),  # meant as milliseconds
    "1" + "0" * 30: (300.0, 1),
    "Thu, 01 Jan 2026 00:02:00 GMT": (120.0, 1),
    "Thursday, 01-Jan-26 00:02:00 GMT": (120.0, 1),
    "Thu Jan  1 00:02:00 2026": (120.0, 1),
    "Thu, 01 Jan 1970 00:00:00 GMT": (0.0, 3),
    "Fri, 31 Dec 9999 23:59:59 GMT": (300.0, 1),
    "Fri, 31 Dec 99999 23:59:59 GMT": (None, 3),
    "Thu, 32 Jan 2026 00:02:00 GMT": (None, 3),
    "Thu, 01 Jan 2026 25:61:61 GMT": (None, 3),
    "-1": (None, 3),
    "1.5": (None, 3),
    "1e3": (None, 3),
    "0x10": (None, 3),
    "inf": (None, 3),
    "nan": (None, 3),
    "soon": (None, 3),
    "": (None, 3),
    "500ms": (None, 3),
    "60, 120": (None, 3),
    "²": (None, 3),
}


def retry_after() -> Iterator[Row]:
    for status in (429, 503):
        for text, (seconds, asked) in RETRY_AFTER.items():
            fault = reply(status, {"error": "temporarily_unavailable"}, {"Retry-After": text})
            yield Row(AT, f"{status} Retry-After {text!r}", fault, IssuerUnavailable, asked, retry_after=seconds)
    twice = reply(503, b"", [("Retry-After", "60"), ("Retry-After", "120")])
    yield Row(AT, "Retry-After twice", twice, IssuerUnavailable, 3)


# --- all --------------------------------------------------------------------------------------------------------------


def _on_the_way() -> Iterator[Row]:
    yield from rows(AT, InvalidTokenResponse, redirects("/connect/token", f"/{IN_A_BODY}"))
    yield from rows(AT, InvalidTokenResponse, redirects("/connect/token", f"/{IN_A_BODY}"), method="client_secret_post")
    yield from answers(InvalidTokenResponse, bad_json(json.dumps(TOKEN_ANSWER)))
    yield from rows(AT, IssuerUnavailable, broken(json.dumps(TOKEN_ANSWER).encode()), asked=3)
    yield from rows(AT, Got(), odd_but_whole(json.dumps(TOKEN_ANSWER).encode()))
    yield from rows(AT, InvalidTokenResponse, MEGABYTES, says="more than", big=True)
    yield from rows(AT, InvalidTokenResponse, COMPRESSED, says="compressed", big=True)


def token_rows() -> Iterator[Row]:
    yield from members()
    yield from errors()
    yield from odd_errors()
    yield from retry_after()
    for row in _on_the_way():
        name = f"{row.name}, secret in the body" if row.method == "client_secret_post" else row.name
        yield replace(row, name=name)
    for certificate in NOT_TRUSTED:
        yield Row(
            AT, f"certificate: {certificate}", reply(200, TOKEN_ANSWER), IssuerUnavailable, 0,
            retryable=False, tls=certificate,
        )  # fmt: skip
    for name, fault in HANDSHAKES.items():
        yield Row(AT, name, fault, IssuerUnavailable, 0, retryable=False, tls="good", early=True, says="no TLS")
    yield from rows(AT, IssuerUnavailable, EARLY_BREAKS, asked=0, early=True)
    yield from rows(AT, IssuerUnavailable, BREAKS_IN_A_HANDSHAKE, asked=0, early=True, tls="good")
    yield Row(AT, "nobody listens", raw(b""), IssuerUnavailable, 0, says="connection refused", door="nobody")
    yield Row(AT, "lets nobody in", raw(b""), DeadlineExceeded, 0, door="full", waits=True)
    yield from rows(AT, DeadlineExceeded, DRIPS, waits=True)
    for name, (fault, early) in TLS_DRIPS.items():
        asked = 0 if early else 1
        yield Row(AT, f"{name}, TLS", fault, DeadlineExceeded, asked, tls="good", early=early, waits=True)
