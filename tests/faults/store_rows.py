"""Faults of Vault, at the login and at the read, and of AWS Secrets Manager."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from secretsource import (
    AccessDenied,
    BackendUnavailable,
    ConfigurationError,
    MalformedSecret,
    SecretNotFound,
    SecretSourceError,
)

from .answers import AWS_ANSWER, CLIENT, FIELDS, IN_A_BODY, LOGIN_ANSWER, LOGIN_PATH, SECRET, VAULT_ANSWER, VAULT_PATH
from .peer import raw, reply
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
    NOT_JSON_BESIDE_A_STATUS,
    NOT_TRUSTED,
    TLS_DRIPS,
    bad_json,
    broken,
    odd_but_whole,
    redirects,
)

READ, LOGIN, AWS = "vault read", "vault login", "aws"


def _says(*errors: str) -> dict[str, Any]:
    return {"errors": [*errors, IN_A_BODY]}


def _anywhere(at: str, path: str, good: Any, malformed: type[SecretSourceError], asked: int) -> Iterator[Row]:
    """What may go wrong with any answer of a store; `asked` times where that may pass."""
    text = json.dumps(good)
    yield from rows(at, malformed, {name: reply(200, body) for name, body in bad_json(text).items()})
    yield from rows(at, BackendUnavailable, broken(text.encode()), asked=asked)
    yield from rows(at, Got(), odd_but_whole(text.encode()))
    for certificate in NOT_TRUSTED:
        yield Row(
            at, f"certificate: {certificate}", reply(200), BackendUnavailable, 0, retryable=False, tls=certificate
        )  # fmt: skip
    for name, fault in HANDSHAKES.items():
        yield Row(at, name, fault, BackendUnavailable, 0, retryable=False, tls="good", early=True)
    yield from rows(at, BackendUnavailable, EARLY_BREAKS, asked=0, early=True)
    yield from rows(at, BackendUnavailable, BREAKS_IN_A_HANDSHAKE, asked=0, early=True, tls="good")
    yield Row(at, "nobody listens", raw(b""), BackendUnavailable, 0, door="nobody", builds=True)
    yield Row(at, "lets nobody in", raw(b""), BackendUnavailable, 0, door="full", waits=True, builds=True)
    for name, fault in DRIPS.items():
        yield Row(at, name, fault, BackendUnavailable, waits=True, slow=name not in FEW_DRIPS)
    for name, (fault, early) in TLS_DRIPS.items():
        times = 0 if early else 1
        slow = name not in FEW_TLS_DRIPS
        yield Row(at, f"{name}, TLS", fault, BackendUnavailable, times, tls="good", early=early, waits=True, slow=slow)


# --- Vault ------------------------------------------------------------------------------------------------------------

VAULT_STATUSES: dict[int, tuple[type[SecretSourceError], int]] = {
    # what the class is, and how often is asked
    201: (MalformedSecret, 1),
    202: (MalformedSecret, 1),
    204: (MalformedSecret, 1),
    206: (MalformedSecret, 1),
    304: (ConfigurationError, 1),
    401: (ConfigurationError, 1),
    402: (ConfigurationError, 1),
    405: (ConfigurationError, 1),
    407: (ConfigurationError, 1),
    408: (ConfigurationError, 1),
    410: (ConfigurationError, 1),
    412: (BackendUnavailable, 3),
    418: (ConfigurationError, 1),
    429: (BackendUnavailable, 3),
    472: (BackendUnavailable, 3),
    473: (BackendUnavailable, 3),
    500: (BackendUnavailable, 3),
    501: (ConfigurationError, 1),
    502: (BackendUnavailable, 3),
    503: (BackendUnavailable, 3),
    504: (BackendUnavailable, 3),
    505: (ConfigurationError, 1),
    520: (BackendUnavailable, 1),
}


def _vault_anywhere(at: str, path: str, good: Any) -> Iterator[Row]:
    yield from _anywhere(at, path, good, MalformedSecret, 3)
    yield from rows(at, MalformedSecret, MEGABYTES, says="more than", big=True)
    yield from rows(at, MalformedSecret, COMPRESSED, says="compressed", big=True)
    away = redirects(path, f"/{IN_A_BODY}")
    page = {"a page with a meta refresh": away.pop("a page with a meta refresh")}
    yield from rows(at, MalformedSecret, page)
    yield from rows(at, ConfigurationError, away, says="not followed")
    for status, (kind, asked) in VAULT_STATUSES.items():
        yield Row(at, str(status), reply(status, b"" if status in (204, 304) else _says("no")), kind, asked)
    yield Row(at, "sealed", reply(503, _says("Vault is sealed")), BackendUnavailable, says="is sealed")
    odd = {"errors that are a text": {"errors": IN_A_BODY}, "errors that are none": {"errors": [7, None, [IN_A_BODY]]}}
    yield from rows(at, BackendUnavailable, {name: reply(500, body) for name, body in odd.items()}, asked=3)
    later = {"60": (60.0, 1), "86400": (300.0, 1), "-1": (None, 3), "soon": (None, 3), "nan": (None, 3), "": (None, 3)}
    for text, (seconds, asked) in later.items():
        fault = reply(429, _says("rate limit"), {"Retry-After": text})
        yield Row(at, f"Retry-After {text!r}", fault, BackendUnavailable, asked, retry_after=seconds)


def _vault_read() -> Iterator[Row]:
    yield from _vault_anywhere(READ, VAULT_PATH, VAULT_ANSWER)
    read: Mapping[str, Any] = VAULT_ANSWER["data"]
    shapes: dict[str, Any] = {
        "no data": {},
        "data of null": {"data": None},
        "data that is a list": {"data": [FIELDS]},
        "no data in the data": {"data": {"metadata": read["metadata"]}},
        "data of version 1": {"data": FIELDS},
        "no metadata": {"data": {"data": FIELDS}},
        "a version that is a text": {"data": {**read, "metadata": {"version": "1"}}},
        "no field": {"data": {**read, "data": {}}},
        "another field": {"data": {**read, "data": {"client_id": CLIENT, "password": SECRET}}},
        "a secret of null": {"data": {**read, "data": {**FIELDS, "client_secret": None}}},
        "a secret that is a number": {"data": {**read, "data": {**FIELDS, "client_secret": 5}}},
        "a secret that is a list": {"data": {**read, "data": {**FIELDS, "client_secret": [SECRET]}}},
        "an empty secret": {"data": {**read, "data": {**FIELDS, "client_secret": ""}}},
        "a secret with a line end": {"data": {**read, "data": {**FIELDS, "client_secret": f"{SECRET}\n"}}},
        "an error beside no data": {"errors": [IN_A_BODY]},
    }
    yield from rows(READ, MalformedSecret, {name: reply(200, body) for name, body in shapes.items()})
    deleted = {"data": {"data": None, "metadata": {**read["metadata"], "deletion_time": "2026-01-02T03:04:05Z"}}}
    destroyed = {"data": {"data": None, "metadata": {**read["metadata"], "destroyed": True}}}
    gone = {"not found": _says(), "a version that was deleted": deleted, "one that was destroyed": destroyed}
    yield from rows(READ, SecretNotFound, {name: reply(404, body) for name, body in gone.items()})
    yield Row(READ, "400", reply(400, _says("no")), ConfigurationError)
    yield Row(READ, "403", reply(403, _says("permission denied")), AccessDenied)
    for name in NOT_JSON_BESIDE_A_STATUS:
        body = bad_json(json.dumps(_says("permission denied")))[name]
        yield Row(READ, f"403 and {name}", reply(403, body), BackendUnavailable)
        yield Row(READ, f"500 and {name}", reply(500, body), BackendUnavailable, 3)
    page = f"<html>{IN_A_BODY}".encode()
    for status in (400, 401, 403, 404, 407):
        fault = reply(status, page, {"Content-Type": "text/html"})
        yield Row(READ, f"{status} and a page", fault, BackendUnavailable)


def _vault_login() -> Iterator[Row]:
    yield from _vault_anywhere(LOGIN, LOGIN_PATH, LOGIN_ANSWER)
    auth: Mapping[str, Any] = LOGIN_ANSWER["auth"]
    shapes: dict[str, Any] = {
        "no auth": {},
        "auth of null": {"auth": None},
        "auth that is a list": {"auth": [auth]},
        "no token": {"auth": {"lease_duration": 3600}},
        "a token of null": {"auth": {**auth, "client_token": None}},
        "an empty token": {"auth": {**auth, "client_token": ""}},
        "a token that is a number": {"auth": {**auth, "client_token": 5}},
        "a token with a line and a header": {"auth": {**auth, "client_token": "x\r\nX-Admin: true"}},
        "a token outside ASCII": {"auth": {**auth, "client_token": "é"}},
        "a token with a blank": {"auth": {**auth, "client_token": "a b"}},
    }
    yield from rows(LOGIN, MalformedSecret, {name: reply(200, body) for name, body in shapes.items()})
    for status in (400, 403, 404):
        yield Row(LOGIN, str(status), reply(status, _says("no")), AccessDenied)


# --- AWS --------------------------------------------------------------------------------------------------------------

AWS_ERRORS: dict[str, tuple[int, type[SecretSourceError], int]] = {
    # the status that comes with it, what the class is, and how often is asked: once more with credentials found anew
    "AccessDeniedException": (400, AccessDenied, 1),
    "DecryptionFailure": (400, AccessDenied, 1),
    "UnrecognizedClientException": (400, AccessDenied, 2),
    "InvalidSignatureException": (400, AccessDenied, 2),
    "ExpiredTokenException": (400, AccessDenied, 2),
    "RequestTimeTooSkewed": (400, ConfigurationError, 1),
    "InvalidParameterException": (400, ConfigurationError, 1),
    "ResourceNotFoundException": (400, SecretNotFound, 1),
    "ThrottlingException": (400, BackendUnavailable, 1),
    "TooManyRequestsException": (429, BackendUnavailable, 1),
    "RequestLimitExceeded": (503, BackendUnavailable, 1),
    "SlowDown": (503, BackendUnavailable, 1),
    "InternalServiceError": (500, BackendUnavailable, 1),
    "ServiceUnavailable": (503, BackendUnavailable, 1),
}


def _aws() -> Iterator[Row]:
    yield from _anywhere(AWS, "/", AWS_ANSWER, MalformedSecret, 1)
    yield from rows(AWS, BackendUnavailable, MEGABYTES, says="more than", big=True)
    yield from rows(AWS, BackendUnavailable, COMPRESSED, says="compressed", big=True)
    away = redirects("/", f"/{IN_A_BODY}")
    page = {"a page with a meta refresh": away.pop("a page with a meta refresh")}
    yield from rows(AWS, MalformedSecret, page)
    yield from rows(AWS, BackendUnavailable, away, retryable=False)
    for code, (status, kind, asked) in AWS_ERRORS.items():
        fault = reply(status, {"__type": code, "message": IN_A_BODY})
        yield Row(AWS, code, fault, kind, asked, builds=asked > 1)
    shapes: dict[str, Any] = {
        "an empty object": {},
        "no value": _without("SecretString"),
        "a value of null": {**AWS_ANSWER, "SecretString": None},
        "a value that is a number": {**AWS_ANSWER, "SecretString": 5},
        "a value that is an object": {**AWS_ANSWER, "SecretString": FIELDS},
        "an empty value": {**AWS_ANSWER, "SecretString": ""},
        "SecretBinary": {**_without("SecretString"), "SecretBinary": "eyJhIjogMX0="},
        "SecretBinary beside it": {**AWS_ANSWER, "SecretBinary": "AAAA"},
        "no ARN": _without("ARN"),
        "no version": _without("VersionId"),
        "no stages": _without("VersionStages"),
        "another stage": {**AWS_ANSWER, "VersionStages": ["AWSPENDING"]},
        "another field": {**AWS_ANSWER, "SecretString": json.dumps({"client_id": CLIENT, "password": SECRET})},
        "a secret that is a number": {**AWS_ANSWER, "SecretString": json.dumps({**FIELDS, "client_secret": 5})},
        "an empty secret": {**AWS_ANSWER, "SecretString": json.dumps({**FIELDS, "client_secret": ""})},
    }
    yield from rows(AWS, MalformedSecret, {name: reply(200, body) for name, body in shapes.items()})
    for name in NOT_JSON_BESIDE_A_STATUS:
        body = bad_json(json.dumps({"message": IN_A_BODY}))[name]
        yield Row(AWS, f"400 and {name}", reply(400, body), BackendUnavailable, retryable=False)
    page_of = f"<html>{IN_A_BODY}".encode()
    for status, retryable in {400: False, 401: False, 403: True, 404: False, 429: True, 500: True, 502: True}.items():
        fault = reply(status, page_of, {"Content-Type": "text/html"})
        yield Row(AWS, f"{status} and a page", fault, BackendUnavailable, retryable=retryable)
    # Secrets Manager has no checksum of its own: TLS and the length are what guards an answer.
    yield Row(AWS, "a wrong CRC", reply(200, AWS_ANSWER, {"x-amz-crc32": "1"}), Got())


def _without(name: str) -> dict[str, Any]:
    return {each: value for each, value in AWS_ANSWER.items() if each != name}


def store_rows() -> Iterator[Row]:
    yield from _vault_read()
    yield from _vault_login()
    yield from _aws()
