"""The one way to an issuer's administration API: with a token or a kept secret, over TLS, inside one deadline.

What is asked for may hold secrets, and so may what comes back: both are opaque. A request that changes something is
sent once. Whether it can have reached the server is known even where no answer came.
"""

from __future__ import annotations

import json as json_module
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from ...backends import Backend, backend_for
from ...clock import Deadline
from ...config.layers import KEYS
from ...config.tables import At, Takes, check_table, takes_of
from ...credentials import Document, interpret
from ...endpoint import IssuerProfile
from ...errors import ConfigurationError, DeadlineExceeded, IssuerUnavailable, SecretSourceError, forgetting
from ...exchange import Answer, Outgoing
from ...reference import SecretReference
from ...secret import Secret
from ...source import TokenSource
from ...token import Token
from ...transport import Transport
from ...urls import check_url, without_query
from ..outcome import Client, Refused, Unknown

__all__ = [
    "Admin",
    "AdminApi",
    "Body",
    "Unreached",
    "Upload",
    "checked",
    "code_in",
    "failure_of",
    "kept_secret",
    "number_at",
    "secret_at",
    "segment",
    "send",
    "text_at",
]

Admin = TokenSource | Mapping[str, Any]
"""What an adapter logs in with: a TokenSource, or a table of its arguments, `{credentials = "vault://…", token_url =
"…"}`, or `{token = "vault://…#FIELD", scheme = "Bearer"}`, a secret that is itself the authorization."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")  # RFC 9110 section 11.1, less what nobody uses
_SENDABLE = re.compile(r"[\x21-\x7e]+")
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_LOGS_IN: Mapping[str, str] = {"token": "str", "scheme": "str"}
# What the server does not take up now, or may have begun with (RFC 9110 sections 15.5.9 and 15.5.10, RFC 8470 section
# 5.2, RFC 6585 section 4): the same call may be right in a while.
_LATER = {408, 409, 425, 429}
_ELSEWHERE = {301, 307, 308}  # RFC 9110 section 15.4: with these the method stays, so it has not been done here


class Upload(NamedTuple):
    """A part of a multipart form that is a file. `content` is called where the body is built, and gives all of it."""

    name: str
    content: Callable[[], bytes]
    type: str = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Unreached:
    """There is no answer. `sent`: the request may have reached the server; else nothing has changed."""

    sent: bool
    error: SecretSourceError


class Body(NamedTuple):
    """What a request carries, one of three. `Secret`s in it are revealed where the body is built, and nowhere else.

    A callable gives `json`, or `multipart`, there: for what is made from an answer that is not to be laid open.
    """

    json: Any = None
    form: Mapping[str, str | Secret] | None = None
    multipart: Mapping[str, str | Secret | Upload] | Callable[[], Mapping[str, str | Secret | Upload]] | None = None


class AdminApi:
    """An administration API below `base_url`, a TokenSource or a table beside it. ConfigurationError for a wrong one.

    `admin` is what to log in with; see `Admin`. None: the requests carry what proves who asks. `defaults` stand in for
    what a table leaves out. What is below https goes to loopback and to the hosts of `plain_http` only.
    """

    @forgetting
    def __init__(
        self,
        base_url: str,
        *,
        admin: Admin | None,
        defaults: Mapping[str, Any] | None = None,
        stores: Mapping[str, Backend] | None = None,
        ca_file: str | None = None,
        proxy: str | Secret | None = None,
        plain_http: Iterable[str] = (),
    ) -> None:
        hosts = (plain_http,) if isinstance(plain_http, str) else tuple(plain_http)
        self.base_url = check_url(base_url, "base_url", hosts).rstrip("/")
        if "?" in self.base_url:
            raise ConfigurationError(f"base_url has a '?' in it, after {without_query(self.base_url)}")
        self._transport = Transport(ca_file=ca_file, proxy=proxy)
        shared = {"ca_file": ca_file, "proxy": proxy, "plain_http": hosts, **(defaults or {})}
        self._login = None if admin is None else _login(admin, shared, stores)

    def ask(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        form: Mapping[str, str | Secret] | None = None,
        multipart: Mapping[str, str | Secret | Upload]
        | Callable[[], Mapping[str, str | Secret | Upload]]
        | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: Deadline,
    ) -> Answer | Unreached:
        """What the server answers, whatever its status.

        `path` begins with "/", each part of it written by `segment`. `json`: a value, or a callable that gives it.
        A read whose token is refused is asked once more with another; nothing else is repeated.
        """
        url = f"{self.base_url}{path}" + (f"?{urlencode(query)}" if query else "")
        body = Body(json, form, multipart)
        answer = self._asked(method, url, body, headers or {}, deadline, fresh=False)
        if method != "GET" or not isinstance(answer, Answer) or answer.status != 401 or self._login is None:
            return answer
        return self._asked(method, url, body, headers or {}, deadline, fresh=True)

    def refuse_own(self, client: Client) -> None:
        """Raise ConfigurationError if this client is the one that the rotator itself logs in with.

        Its secret would change under the rotator's feet, between two of its calls. May read the store.
        """
        login = self._login
        if login is None:
            return
        same = login.reference == client.reference and client.reference != ""
        if same or login.client_id() == client.client_id:
            raise ConfigurationError(
                f"the client {client.client_id!r} is the one with which the rotator itself logs in",
                hint="Register another client for the rotator, and rotate its secret from elsewhere",
            )

    def close(self) -> None:
        """Drop the tokens of what was made here. A TokenSource that was given stays as it is."""
        if self._login is not None:
            self._login.close()

    def _asked(
        self, method: str, url: str, body: Body, headers: Mapping[str, str], deadline: Deadline, *, fresh: bool
    ) -> Answer | Unreached:
        authorization: Callable[[], str] | None = None
        if deadline.over():
            return Unreached(False, _no_time(deadline))
        if self._login is not None:
            try:
                authorization = self._login.authorization(deadline, fresh=fresh)
            except SecretSourceError as error:
                return Unreached(False, error.again())
        answer = send(self._transport, method, url, deadline, body=body, headers=headers, authorization=authorization)
        if isinstance(answer, Answer) and answer.status == 401 and self._login is not None:
            self._login.refused()
        return answer


def send(
    transport: Transport,
    method: str,
    url: str,
    deadline: Deadline,
    *,
    body: Body = Body(),  # noqa: B008 - immutable
    headers: Mapping[str, str] | None = None,
    authorization: Callable[[], str] | None = None,
) -> Answer | Unreached:
    """One request, sent once. `authorization` gives the value of that header; its result is never a local here.

    Raises ConfigurationError for what cannot be written or sent at all.
    """
    sent: list[bool] = []
    outgoing = _outgoing(method, url, body, headers or {}, authorization, lambda: sent.append(True))
    try:
        return transport.send(outgoing, deadline, phase="administration")
    except ConfigurationError as error:
        wrong = error.again()
    except SecretSourceError as error:
        return Unreached(bool(sent), error.again())
    raise wrong


# --- what it logs in with


class _ByToken:
    """With tokens of a TokenSource."""

    def __init__(self, source: TokenSource, *, ours: bool) -> None:
        self._source, self._ours = source, ours
        self._last: Token | None = None
        self.reference = source.name

    def authorization(self, deadline: Deadline, *, fresh: bool) -> Callable[[], str]:
        self._last = token = self._source.token(timeout=max(deadline.left(), 0.001))
        return lambda: token.authorization

    def refused(self) -> None:
        if self._last is not None:
            self._source.invalidate(self._last)

    def client_id(self) -> str:
        return self._source.credentials.current().client_id

    def close(self) -> None:
        self._last = None
        if self._ours:
            self._source.close()


class _BySecret:
    """With a secret that is kept at a reference, as it stands there."""

    def __init__(self, reference: SecretReference, scheme: str, stores: Mapping[str, Backend] | None) -> None:
        self._reference, self._scheme, self._stores = reference, scheme, stores
        self.reference = str(reference)

    def authorization(self, deadline: Deadline, *, fresh: bool) -> Callable[[], str]:
        secret = kept_secret(self._reference, self._stores, deadline, fresh=fresh)
        if not _is_sendable(secret):
            raise ConfigurationError(
                f"what {self._reference} gives cannot be sent: it is empty, or has a blank or a line end in it",
                hint="Keep the token there, and nothing beside it",
            )
        scheme = self._scheme
        return lambda: f"{scheme} {secret.reveal()}"

    def refused(self) -> None:
        """It is read anew each time."""

    def client_id(self) -> None:
        return None

    def close(self) -> None:
        """Nothing is kept."""


def _login(admin: Any, defaults: Mapping[str, Any], stores: Mapping[str, Backend] | None) -> _ByToken | _BySecret:
    if isinstance(admin, TokenSource):
        return _ByToken(admin, ours=False)
    if not isinstance(admin, Mapping):
        raise ConfigurationError(
            f"admin= is a TokenSource or a table, not {type(admin).__name__}",
            hint='Write admin = { credentials = "…", token_url = "…" }, or { token = "…", scheme = "…" }',
        )
    at = At("admin=")
    table = dict(admin)
    if "token" in table:
        check_table(table, Takes(_LOGS_IN, ("token",)), at)
        scheme = table.get("scheme", "Bearer")
        if not _SCHEME.fullmatch(scheme):
            raise at.error("has a scheme that is none", "Write scheme = 'Bearer', or the word that the issuer expects")
        return _BySecret(SecretReference.parse(table["token"]), scheme, stores)
    whole = {name: value for name, value in {**defaults, **table}.items() if value is not None}
    written = {name: value for name, value in table.items() if name not in ("plain_http", "profile")}
    check_table(written, Takes({**KEYS, "token": "str", "scheme": "str"}, ("credentials",)), at)
    if isinstance(whole.get("profile"), Mapping):
        fields = dict(whole["profile"]).items()
        check_table(dict(whole["profile"]), takes_of(IssuerProfile), at.under("profile"))
        given: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in fields}
        whole["profile"] = IssuerProfile(**given)
    return _ByToken(TokenSource(stores=stores, **whole), ours=True)


def kept_secret(
    reference: SecretReference, stores: Mapping[str, Backend] | None, deadline: Deadline, *, fresh: bool = False
) -> Secret:
    """The one text at a reference. Raises BackendError, ConfigurationError."""
    document = backend_for(reference, stores).read(reference, fresh=fresh, timeout=max(deadline.left(), 0.001))
    if document.text is None and (reference.fields is None or reference.fields.id is not None):
        raise ConfigurationError(
            f"{reference} gives several texts, and one is needed to log in with",
            hint=f"Name it: {reference}#FIELD" if reference.fields is None else "Name one field, #FIELD",
        )
    if document.text is None:
        document = Document({name: value for name, value in document.fields.items() if name != "client_id"})
    return interpret(document, reference, client_id="-").credentials.client_secret


def _is_sendable(secret: Secret) -> bool:
    return _SENDABLE.fullmatch(secret.reveal()) is not None


def _no_time(deadline: Deadline) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"administration: {deadline.seconds:g} s were over before anything was sent",
        phase="administration",
        hint="--command-timeout gives it more time",
    )


# --- what leaves: the frames below hold secrets, and send nothing


def _outgoing(
    method: str,
    url: str,
    body: Body,
    headers: Mapping[str, str],
    authorization: Callable[[], str] | None,
    leaving: Callable[[], object],
) -> Outgoing:
    made = _made(method, url, body, headers, authorization, leaving)
    if isinstance(made, Outgoing):
        return made
    raise ConfigurationError(
        f"the request to {without_query(url)} cannot be written ({made})",
        hint="Does the secret, or what the server answered before, hold something that is no text?",
    )


def _made(
    method: str,
    url: str,
    body: Body,
    headers: Mapping[str, str],
    authorization: Callable[[], str] | None,
    leaving: Callable[[], object],
) -> Outgoing | str:
    try:
        whole, content = dict(headers), None
        if authorization is not None:
            whole["Authorization"] = authorization()
        if body.json is not None:
            value = _laid_open(body.json() if callable(body.json) else body.json)
            content = json_module.dumps(value, allow_nan=False).encode()
            whole.setdefault("Content-Type", "application/json")
        elif body.form is not None:
            content = urlencode([(name, _text(value)) for name, value in body.form.items()]).encode()
            whole["Content-Type"] = "application/x-www-form-urlencoded"
        elif body.multipart is not None:
            boundary = secrets.token_hex(24)
            content = _multipart(body.multipart() if callable(body.multipart) else body.multipart, boundary)
            whole["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        return Outgoing(method, url, whole, content, leaving=leaving)
    except Exception as error:  # its text may hold a secret
        return type(error).__name__


def _laid_open(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Mapping):
        return {name: _laid_open(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_laid_open(inner) for inner in value]
    return value


def _text(value: str | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _multipart(parts: Mapping[str, str | Secret | Upload], boundary: str) -> bytes:
    """A form as RFC 7578 writes it."""
    content = b""
    for name, value in parts.items():
        disposition = f'form-data; name="{quote(name)}"'
        if isinstance(value, Upload):
            head = f'{disposition}; filename="{quote(value.name)}"\r\nContent-Type: {value.type}'
            inner = value.content()
        else:
            head, inner = disposition, _text(value).encode()
        content += f"--{boundary}\r\nContent-Disposition: {head}\r\n\r\n".encode() + inner + b"\r\n"
    return content + f"--{boundary}--\r\n".encode()


def segment(text: str) -> str:
    """A text as one part of a path. ConfigurationError for what no part can be."""
    if text in ("", ".", ".."):
        raise ConfigurationError("an ID that is empty, '.' or '..' cannot be part of a URL")
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:  # it holds the text
        pass
    raise ConfigurationError("an ID that holds half a character cannot be part of a URL")


# --- what came back


def failure_of(
    answer: Answer | Unreached,
    what: str,
    *,
    hints: Mapping[int, str] | None = None,
) -> Refused | Unknown | None:
    """What an answer means to a call that changes something, None where the status says that it was done.

    `what` names the call; `hints` say what to do about a status. Where nothing was sent, nothing has changed: Refused,
    but for what may pass by itself, since a refusal ends the rotation.
    """
    if isinstance(answer, Unreached):
        error = answer.error
        if answer.sent:
            return Unknown(f"{what}: sent, and no answer that can be used ({error.message})")
        reason = f"{what}: nothing was sent ({error.message})"
        return Unknown(reason) if error.retryable else Refused(reason, error.hint)
    status = answer.status
    if 200 <= status < 300:
        return None
    said = f"{what}: answered {status}"
    if status in _ELSEWHERE:
        return Refused(f"{said}, a redirect, which is not followed", "Correct the base URL")
    if 400 <= status < 500 and status not in _LATER:
        return Refused(said, _hint(status, hints))
    return Unknown(said)


def checked(answer: Answer | Unreached, what: str, *, hints: Mapping[int, str] | None = None) -> Answer:
    """The answer to a read, if it is a good one. Raises ConfigurationError, IssuerUnavailable, or why none came."""
    if isinstance(answer, Unreached):
        raise answer.error
    status = answer.status
    if 200 <= status < 300:
        return answer
    if 300 <= status < 500 and status not in _LATER:
        raise ConfigurationError(f"{what}: answered {status}", hint=_hint(status, hints))
    raise IssuerUnavailable(f"{what}: answered {status}", status=status, hint=_hint(status, hints))


def _hint(status: int, hints: Mapping[int, str] | None) -> str | None:
    usual = {
        401: "What it logs in with is not accepted there: see admin",
        403: "What it logs in with may not do this: give it the right to",
        404: "Correct the client ID, or the base URL",
        429: "It is asked too often: try later",
    }
    if 300 <= status < 400:
        return "Redirects are not followed: correct the base URL"
    return (hints or {}).get(status) or usual.get(status)


def secret_at(answer: Answer, *path: str | int) -> Secret | None:
    """The text at this place in the JSON of an answer, if one that is not empty is there."""
    found = _at(answer, path)
    return Secret(found) if isinstance(found, str) and found else None


def text_at(answer: Answer, *path: str | int) -> str | None:
    """A text that is no secret, such as an ID; None for what is none or cannot be shown."""
    found = _at(answer, path)
    return found if isinstance(found, str) and found and found.isprintable() and len(found) <= 2048 else None


def number_at(answer: Answer, *path: str | int) -> float | None:
    found = _at(answer, path)
    return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def code_in(answer: Answer, *path: str | int, known: Iterable[str]) -> str | None:
    """A code at this place, if it is one of those known: nothing else that a server says is repeated."""
    found = _at(answer, path)
    return found if isinstance(found, str) and _CODE.fullmatch(found) and found in set(known) else None


def _at(answer: Answer, path: Sequence[str | int]) -> Any:
    found, _ = answer.value()
    for part in path:
        if isinstance(part, str) and isinstance(found, dict):
            found = found.get(part)
        elif isinstance(part, int) and isinstance(found, list) and 0 <= part < len(found):
            found = found[part]
        else:
            return None
    return found
