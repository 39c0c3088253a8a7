"""Everything that reads what others wrote, as functions that take any bytes and raise nothing while all is well.

Hypothesis drives them in every test run, and so does each file below corpus/, in a folder of the target's name. For
minutes or days, by hand, with atheris (pip install atheris):

    .venv/bin/python -m tests.fuzz                                  the targets
    .venv/bin/python -m tests.fuzz token_answer -max_total_time=90
    .venv/bin/python -m tests.fuzz token_answer FILE                one input again

An input is text in lines, so that a corpus can be read and written by hand. Its first lines say how the rest is read;
an answer is written as HTTP has it. The byte 0x1A stands for the canary (`contract.CANARY`).
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, Literal
from urllib.parse import quote

import boto3
import httpx

from secretsource import (
    Backend,
    BackendError,
    ClientCredentials,
    ConfigurationError,
    Document,
    InvalidTokenResponse,
    IssuerProfile,
    MalformedSecret,
    SecretReference,
    TokenError,
)
from secretsource.answer import Granted, Refusal, read_answer
from secretsource.auth.challenge import refuses_token
from secretsource.backends.aws import AwsBackend
from secretsource.backends.aws import place as aws_place
from secretsource.backends.aws.wire import Clients, Settings, _Wire, session_of
from secretsource.backends.edits import edit
from secretsource.backends.env import EnvBackend
from secretsource.backends.formats import FORMATS, Fault, Origin, parse, parse_bytes, plain_tree, revealed
from secretsource.backends.vault import answers, kv, logins
from secretsource.cli import _parsed
from secretsource.clock import Deadline
from secretsource.config import loaded
from secretsource.config.file import _loaded
from secretsource.credentials import Meaning, interpret
from secretsource.discovery import read_metadata, well_known_urls
from secretsource.endpoint import AUTH_METHODS, token_request
from secretsource.exchange import Answer, Outgoing
from secretsource.flight import PerProcess
from secretsource.identity import Identity
from secretsource.reference import BUILT_IN_STORES, Fields
from secretsource.secret import Secret
from secretsource.testing import TickingClock
from secretsource.transport import Transport
from secretsource.urls import check_url, host_of

from . import oracles
from .contract import CANARY, STEERING, Target, held, silent, text_of

__all__ = ["TARGETS"]

TARGETS: dict[str, Target] = {}

ISSUER = "https://pos.example.com/"
FILE = SecretReference.parse("file:///etc/pos/oauth")
_OF_VAULT = SecretReference.parse("vault://kv/prod/pos")
IDENTITY = Identity("", ISSUER, "client_secret_basic", str(FILE), "pos", scopes=("orders.read",))
CLOCK = TickingClock()


def target(function: Target) -> Target:
    TARGETS[function.__name__] = held(function)
    return TARGETS[function.__name__]


# --- what people write


@target
def reference(data: bytes) -> None:
    """A reference."""
    text = text_of(data)
    parsed = silent(lambda: SecretReference.parse(text), ConfigurationError)
    if parsed is None:
        return
    assert SecretReference.parse(str(parsed)) == parsed
    assert str(parsed).isascii()
    assert str(parsed).isprintable()
    assert len(parsed.options) == sum(map(bool, text.partition("#")[0].partition("?")[2].split("&")))
    assert parsed.option("access") != "unchecked"
    assert not STEERING.search(parsed.path)
    assert parsed.store == "aws" or not any(part in ("", ".", "..") or "/" in part for part in parsed.segments)
    silent(lambda: parsed.check_options(("format", "access")), ConfigurationError, shown=True)
    if parsed.store == "aws":
        silent(lambda: aws_place.place_of(parsed, "eu-west-1"), ConfigurationError, shown=True)
    if parsed.store in ("vault", "bao"):
        place = silent(lambda: kv.place_of(parsed), ConfigurationError, shown=True)
        if place is not None and place.kind == "raw":
            assert not {"auth", "cubbyhole", "sys"}.intersection(place.path.lower().split("/")[:-1])


@target
def url(data: bytes) -> None:
    """A URL, and below it the hosts that may be asked without encryption."""
    text, *plain_http = text_of(data).split("\n")
    accepted = silent(lambda: check_url(text, "token_url", plain_http), ConfigurationError, shown=True)
    if accepted is None:
        return
    # What httpx makes of it is where the secret goes; what it cannot read goes nowhere.
    with contextlib.suppress(httpx.InvalidURL, UnicodeError):
        sent, scheme = httpx.URL(accepted), accepted.partition(":")[0]
        assert (sent.scheme, sent.raw_host.decode(), sent.userinfo) == (scheme.lower(), host_of(accepted), b"")
        if sent.scheme == "http":
            named = {host.lower() if re.search(r":\d+$", host) else f"{host.lower()}:80" for host in plain_http}
            port = 80 if sent.port is None else sent.port
            assert oracles.is_loopback(sent.host) or f"{sent.host}:{port}" in named
        assert {httpx.URL(address).raw_host for address in well_known_urls(accepted)} == {sent.raw_host}


@target
def configuration(data: bytes) -> None:
    """A client and an environment, a line each, and below them a secretsource.toml."""
    client, environment, content = _lines(data, 2)
    tree = plain_tree(content.decode("utf-8", "replace"), "toml")
    shown = _is_shown(tree)
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(content)
        file.flush()
        path = os.path.realpath(file.name)
        found = silent(lambda: loaded(path), ConfigurationError, shown=shown)
        _loaded.pop(path, None)
    assert found is None or not _holds_a_secret(tree)
    known = found and silent(lambda: found.settings(client, environment), ConfigurationError, shown=shown)
    if known:
        unchecked = [
            keys
            for keys, one in known.values.items()
            if keys[0] == "stores" and keys[2] == "access" and one.value == "unchecked"
        ]
        assert not (known.production and unchecked)
        silent(known.arguments, ConfigurationError, shown=shown)
        stores: Mapping[str, Backend] = known.stores or {}
        for name in stores:
            silent(partial(stores.__getitem__, name), ConfigurationError, shown=shown)


@target
def command_line(data: bytes) -> None:
    """The words behind `secretsource`, a line each."""
    words = text_of(data).split("\n")
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code: object = 0
        try:
            _parsed(words)
        except SystemExit as end:
            code = end.code
    assert code in (0, 2)
    assert CANARY not in said.getvalue()


# --- documents


@target
def document(data: bytes) -> None:
    """A format and, behind "#", fields; below it what a file holds."""
    head, content = _lines(data, 1)
    format, kept = _format_and_reference(head, content, FORMATS)
    text = parse_bytes(content)
    if isinstance(text, Fault):
        assert CANARY not in repr(text)
        return
    tree = silent(lambda: parse(text, format, Origin(kept)), MalformedSecret, shown=CANARY in head)
    if tree is None:
        return
    if format == "json":
        assert _written(revealed(tree)) == _written(oracles.strict_json(content))
    _means(Document(tree), kept)


@target
def pointer(data: bytes) -> None:
    """A JSON pointer, and below it a JSON document."""
    way, content = _lines(data, 1)
    kept = silent(lambda: SecretReference.parse(f"{FILE}#{quote(way, errors='replace')}"), ConfigurationError)
    text = parse_bytes(content)
    if kept is None or isinstance(text, Fault) or kept.fields != Fields(None, way):
        return
    tree = silent(lambda: parse(text, "json", Origin(kept)), MalformedSecret, shown=True)
    if tree is None:
        return
    expected = oracles.value_at(way, json.loads(content)) if way.startswith("/") else json.loads(content).get(way)
    meaning = _means(Document(tree), kept)
    if meaning is not None:
        assert meaning.credentials.client_secret.reveal() == expected
    elif isinstance(expected, str) and expected and expected.isprintable():
        raise AssertionError("a text that is there was not found")


@target
def edits(data: bytes) -> None:
    """A format and, behind "#", a field; its new value ("": to be taken out); and below them what a file holds."""
    head, value, content = _lines(data, 2)
    format, kept = _format_and_reference(head, content, FORMATS[:4])
    text, origin = parse_bytes(content), Origin(kept)
    if isinstance(text, Fault):
        return
    field = kept.fields.secret if kept.fields is not None else "client_secret"
    new = Secret(value) if value else None
    before = plain_tree(text.reveal(), format)
    after = silent(
        lambda: edit(text, format, {field: new}, origin), MalformedSecret, ConfigurationError, shown=CANARY in head
    )
    if after is None:
        return
    assert not isinstance(before, Fault)
    after.reveal().encode()  # a file can hold it
    *above, name = field[1:].replace("~1", "\0").split("/") if field.startswith("/") else [field]
    expected = inner = before
    for each in above:
        inner = inner.setdefault(_unescaped(each), {})
    if value:
        inner[_unescaped(name)] = value
    else:
        inner.pop(_unescaped(name), None)
    # As texts: NaN equals itself there, and 1 is neither true nor 1.0.
    assert _written(plain_tree(after.reveal(), format)) == _written(expected)


@target
def variables(data: bytes) -> None:
    """A reference of the store env without its "env:", and below it NAME=value lines."""
    head, content = _lines(data, 1)
    kept = silent(lambda: SecretReference.parse(f"env:{head}"), ConfigurationError)
    pairs = (line.partition("=") for line in text_of(content).split("\n"))
    # Files are another matter, and any on this machine might be named.
    environ = {name: value for name, sign, value in pairs if sign and not value.startswith("/")}
    if kept is None:
        return
    shown = any(CANARY in name for name in (head, *environ))
    found = silent(
        lambda: EnvBackend(environ).read(kept, fresh=True, timeout=5), BackendError, ConfigurationError, shown=shown
    )
    if found is not None:
        _means(found, kept)


# --- answers


@target
def token_answer(data: bytes) -> None:
    """An answer of a token endpoint that knows the secret, and may say it."""
    answer = _answer(data, echoed=_KNOWN_TO_ISSUER.echoed)
    for profile in (IssuerProfile(), _LENIENT):
        outcome = read_answer(
            answer, IDENTITY, profile, obtained=CLOCK.now(), clock=CLOCK, default_lifetime=300, special=True
        )
        if isinstance(outcome, Refusal):
            _check_refusal(outcome)
        else:
            _check_granted(outcome, answer, profile)


@target
def retry_after(data: bytes) -> None:
    """The value of a Retry-After header."""
    text = text_of(data)
    answer = Answer(503, {"retry-after": text}, b"")
    now = CLOCK.now()
    outcome = read_answer(answer, IDENTITY, IssuerProfile(), obtained=now, clock=CLOCK, default_lifetime=300)
    assert isinstance(outcome, Refusal)
    _check_refusal(outcome)
    expected = oracles.seconds_until(text, now.wall)
    assert expected is None or outcome.retry_after == min(expected, 300.0)
    silent(lambda: _raise(answers.failure(answers.read_answer(answer), Origin(FILE), ISSUER)), BackendError)


@target
def metadata(data: bytes) -> None:
    """An answer at an issuer's well-known address."""
    answer = _answer(data)
    told = [str(value) for value in answer.members()[0].values()]
    found = silent(
        lambda: read_metadata(answer, ISSUER, IssuerProfile()),
        InvalidTokenResponse,
        ConfigurationError,
        shown=any(CANARY in text for text in told),
    )
    if found is not None:
        assert httpx.URL(found.token_url).host == "pos.example.com"
        assert httpx.URL(found.token_url).scheme == "https"
        assert found.auth_method in AUTH_METHODS


@target
def challenge(data: bytes) -> None:
    """The WWW-Authenticate headers of a 401, a line each."""
    headers = data.decode("latin-1").split("\n")
    expected = oracles.refuses_token(headers) if sum(map(len, headers)) <= 8192 else None
    found = refuses_token(headers)
    assert found in (True, False)
    assert expected is None or found is expected


@target
def vault_answer(data: bytes) -> None:
    """A reference of the store vault without its "vault:", and below it an answer of Vault."""
    head, content = _lines(data, 1)
    kept = silent(lambda: SecretReference.parse(f"vault:{head}"), ConfigurationError) or _OF_VAULT
    place = silent(lambda: kv.place_of(kept), ConfigurationError, shown=True) or kv.place_of(_OF_VAULT)
    origin = Origin(kept)
    reply = answers.read_answer(_answer(content))
    assert reply.retry_after is None or 0 <= reply.retry_after <= 300
    shown = CANARY in head or CANARY in (reply.request_id or "")
    if reply.good:
        found = silent(lambda: kv.document_of(reply, place, origin), MalformedSecret, shown=shown)
        if found is not None:
            assert found.valid_for is None or 0 < found.valid_for < math.inf
            _means(found, kept)
    error = kv.deleted(reply, origin) or answers.failure(reply, origin, "https://vault.example.com")
    silent(lambda: _raise(error), BackendError, ConfigurationError, shown=shown)
    mounted = kv.mounted_in(reply)
    if mounted is not None:
        assert mounted.path.isprintable()
        silent(lambda: kv.place_of(kept, mounted), ConfigurationError, shown=True)
        with contextlib.suppress(ConfigurationError):  # where the reference itself is wrong for that mount
            assert kv.advice(kept, mounted, reply.status, "read").isprintable()


@target
def vault_login(data: bytes) -> None:
    """An answer of Vault to a login."""
    reply = answers.read_answer(_answer(data))
    desk = logins.Desk(lambda action, token: reply, None, Origin(_OF_VAULT), Deadline(5))
    found = silent(
        lambda: logins.pass_of(reply, desk, "the login at auth/approle", "Correct the role ID"),
        BackendError,
        ConfigurationError,
        shown=CANARY in (reply.request_id or ""),
    )
    if found is not None and found.token is not None:
        assert re.fullmatch("[!-~]+", found.token.reveal())
        assert found.life is None or 0 < found.life < math.inf
        assert found.uses is None or found.uses > 0
        assert CANARY not in repr(found)


@target
def aws_answer(data: bytes) -> None:
    """An answer of Secrets Manager, as botocore reads it."""
    kept = SecretReference.parse("aws://prod/pos")
    _SCRIPTED.answer = _answer(data)
    shown = CANARY in _SCRIPTED.answer.headers.get("x-amzn-requestid", "")
    found = silent(
        lambda: _aws_backend().read(kept, fresh=False, timeout=5), BackendError, ConfigurationError, shown=shown
    )
    if found is not None:
        _means(found, kept)


# --- requests


@target
def request(data: bytes) -> None:
    """Client ID, secret, scope, audience, resource and further parameters, a line each."""
    client_id, secret, scope, audience, resource, extra = _lines(data, 5)
    pairs = dict(line.partition("=")[::2] for line in text_of(extra).split("\n") if "=" in line)
    asked = silent(
        lambda: IDENTITY.asking(scope=scope, audience=audience, resource=[resource] if resource else [], extra=pairs),
        ConfigurationError,
        shown=True,
    )
    credentials = silent(lambda: ClientCredentials(client_id, secret), ConfigurationError, shown=CANARY in client_id)
    if asked is None or credentials is None:
        return
    encodings: tuple[Literal["rfc6749", "raw", "raw-latin1"], ...] = ("rfc6749", "raw", "raw-latin1")
    for encoding in encodings:
        profile = IssuerProfile(basic_encoding=encoding)
        for method in AUTH_METHODS:
            build = partial(token_request, ISSUER, asked, credentials, method, profile)
            outgoing = silent(build, ConfigurationError)
            if outgoing is not None:
                _check_request(outgoing, asked, credentials, method, encoding)


def _check_request(
    outgoing: Outgoing, asked: Identity, credentials: ClientCredentials, method: str, encoding: str
) -> None:
    headers, body = outgoing.open()
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    fields = oracles.form_fields(body or b"")
    expected = [("grant_type", "client_credentials")]
    expected += [("scope", " ".join(asked.scopes))] if asked.scopes else []
    expected += [("audience", asked.audience)] if asked.audience else []
    expected += [("resource", uri) for uri in asked.resources] + list(asked.extra)
    pair = (credentials.client_id, credentials.client_secret.reveal())
    if method == "client_secret_post":
        assert "Authorization" not in headers
        expected += [("client_id", pair[0]), ("client_secret", pair[1])]
    else:
        sides = oracles.basic_pair(headers["Authorization"])
        charset = "latin-1" if encoding == "raw-latin1" else "utf-8"
        read: Callable[[bytes], str] = oracles.unescaped if encoding == "rfc6749" else lambda side: side.decode(charset)
        assert (read(sides[0]), read(sides[1])) == pair
    assert fields == expected
    assert CANARY not in repr(outgoing)


# --- what the targets share


def _lines(data: bytes, count: int) -> list[Any]:
    """The first lines as texts, and all that follows them as bytes."""
    *lines, rest = [*data.split(b"\n", count), *[b""] * count][: count + 1]
    return [*map(text_of, lines), rest]


def _format_and_reference(head: str, content: bytes, formats: Sequence[str]) -> tuple[str, SecretReference]:
    """What the first line says, or any format and no fields where it says nothing that can be used."""
    name, _, fields = head.partition("#")
    kept = silent(lambda: SecretReference.parse(f"{FILE}#{fields}"), ConfigurationError)
    return name if name in formats else formats[len(content) % len(formats)], kept or FILE


def _answer(data: bytes, echoed: Callable[[str], bool] = lambda text: False) -> Answer:
    """An answer written as HTTP has it: status, headers, an empty line, and the body."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.decode("latin-1").split("\n")
    status = int(first) if re.fullmatch("[1-5][0-9][0-9]", first, re.ASCII) else 200
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(status, headers, body, echoed)


def _means(found: Document, kept: SecretReference) -> Meaning | None:
    """What the document means, with what holds for all credentials."""
    shown = any(CANARY in name for name in (str(kept), *found.names()))
    meaning = silent(lambda: interpret(found, kept, None), MalformedSecret, ConfigurationError, shown=shown)
    meaning = meaning or silent(lambda: interpret(found, kept, "pos"), MalformedSecret, ConfigurationError, shown=shown)
    for one in (meaning and (meaning.credentials, meaning.credentials.pending, meaning.credentials.previous)) or ():
        if one is not None:
            assert one.client_id
            for text in (one.client_id, one.client_secret.reveal()):
                assert not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", text)
    assert meaning is None or CANARY not in repr(meaning.credentials.client_secret)
    return meaning


def _check_granted(granted: Granted, answer: Answer, profile: IssuerProfile) -> None:
    token, members = granted.token, oracles.strict_json(answer.body())
    assert members is not None
    assert answer.status == 200
    assert "error" not in members or members["error"] is None
    assert token.access_token == members["access_token"]
    assert re.fullmatch("[!-~]+", token.access_token)
    kind = members.get("token_type")
    assert kind.lower() == "bearer" if kind is not None else profile is _LENIENT
    assert members.get(profile.lifetime_field) not in (math.inf, -math.inf)
    assert math.isfinite(token.lifetime)
    assert 0 <= token.expires_in < math.inf
    assert token.expires_at.tzinfo is not None
    assert granted.refresh_in is None or math.isfinite(granted.refresh_in)
    assert CANARY not in f"{token!r}{token.authorization}{token.scopes}"
    assert not STEERING.search("".join(token.scopes))


def _check_refusal(refusal: Refusal) -> None:
    assert refusal.retry_after is None or 0 <= refusal.retry_after <= 300
    assert refusal.request_id is None or re.fullmatch("[A-Za-z0-9._:=-]{8,128}", refusal.request_id)
    error = refusal.as_error(issuer=ISSUER, reference=str(FILE), auth_method="client_secret_basic")
    silent(lambda: _raise(error), TokenError)


def _raise(error: Exception) -> None:
    raise error


def _written(tree: Any) -> str:
    return json.dumps(tree, sort_keys=True, default=repr)


def _unescaped(part: str) -> str:
    return part.replace("~0", "~").replace("\0", "/")


def _is_shown(tree: Any, above: str = "") -> bool:
    """Whether the canary stands where a configuration has what errors show: a name, a URL, or a reference."""
    if isinstance(tree, dict):
        named = above in ("clients", "environments", "stores") and any(CANARY in name for name in tree)
        return named or any(_is_shown(inner, name) for name, inner in tree.items())
    if isinstance(tree, list):
        return any(_is_shown(inner) for inner in tree)
    return CANARY in str(tree) and str(tree).partition(":")[0] in ("https", "http", *BUILT_IN_STORES)


def _holds_a_secret(tree: Any) -> bool:
    if isinstance(tree, dict):
        return tree.get("client_secret") == CANARY or any(map(_holds_a_secret, tree.values()))
    return isinstance(tree, list) and any(map(_holds_a_secret, tree))


_LENIENT = IssuerProfile(token_type_missing="bearer", expires_in_missing="error", lifetime_field="expires_on")
_KNOWN_TO_ISSUER = token_request(
    f"{ISSUER}connect/token", IDENTITY, ClientCredentials("pos", CANARY), "client_secret_basic", IssuerProfile()
)


class _Scripted(Transport):
    """Gives botocore the answer of the moment, as if it had come."""

    answer: Answer

    def send(self, outgoing: Outgoing, deadline: Deadline, *, phase: str) -> Answer:
        return self.answer


_SCRIPTED = _Scripted()


@cache
def _aws_backend() -> AwsBackend:
    keys = boto3.Session(aws_access_key_id="not-a-real-key", aws_secret_access_key="not-a-real-one")
    settings = Settings(session=keys)
    session = session_of(settings)
    session.wire = _Wire(_SCRIPTED, settings.attempt)
    session.renew()
    clients = Clients(settings)
    clients._made.session = session
    backend = AwsBackend(session=keys, region="eu-west-1", attempts=1)
    backend._calls._clients = PerProcess(lambda: clients)
    # New credentials change nothing about a script.
    clients.forget = lambda: None  # type: ignore[method-assign]
    return backend
