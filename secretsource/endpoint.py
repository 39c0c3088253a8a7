"""The token endpoint as pure functions: who asks for what, the request, its answer, and discovery.

Nothing here does I/O or keeps state, and nothing raises while it holds an answer's body.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, quote_plus, urlsplit

from .clock import Clock, Instant
from .credentials import Binding, ClientCredentials
from .errors import (
    ConfigurationError,
    CredentialsRejected,
    InvalidTokenResponse,
    IssuerUnavailable,
    TokenError,
    TokenRequestRefused,
)
from .secret import Masked
from .token import Token

__all__ = [
    "AUTH_METHODS",
    "Answer",
    "Granted",
    "Identity",
    "IssuerProfile",
    "Metadata",
    "Outgoing",
    "Refusal",
    "check_binding",
    "check_url",
    "read_answer",
    "read_metadata",
    "same_issuer",
    "token_request",
    "well_known_urls",
]

AUTH_METHODS = ("client_secret_basic", "client_secret_post")

_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 3.3
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]*")
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")
_RESERVED_PARAMETERS = {"grant_type", "scope", "audience", "resource", "client_id", "client_secret"} | {
    "client_assertion",
    "client_assertion_type",
}
# Codes of RFC 6749 and 8707, and GitHub's. What else an issuer calls an error may be anything, a secret that it
# echoes included, and is not repeated.
_ERROR_CODES = {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "invalid_scope"} | {
    "unsupported_grant_type",
    "invalid_target",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    "slow_down",
    "incorrect_client_credentials",
}
_VENDOR_CODE = re.compile(r"\b(ID[0-9]{4}|AADSTS[0-9]{5,7}|E[0-9]{7})\b")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:=-]{8,128}")
_REQUEST_ID_HEADERS = ("x-request-id", "x-ms-request-id", "x-okta-request-id", "x-correlation-id", "request-id")
_LONGEST_URL = 1000
_LONGEST_RETRY_AFTER = 300.0
_LONGEST_LIFETIME = 10 * 365 * 86400.0

_VENDOR_HINTS = {
    "ID2052": "OpenIddict knows no application with this client ID",
    "ID2055": "OpenIddict holds another secret for this client ID",
    "ID2064": "the application has no permission for the client credentials grant in OpenIddict",
    "AADSTS7000215": "Entra holds another secret for this client ID (the secret's value is needed, not its ID)",
    "AADSTS7000222": "the secret has expired in Entra",
    "AADSTS700016": "Entra knows no application with this client ID in this tenant",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerProfile:
    """In what an issuer differs from the standards. The default is an issuer that does not.

    `basic_encoding`: how client_secret_basic writes ID and secret (`raw` where the issuer does not decode them,
    RFC 6749 section 2.3.1). `endpoint_hosts`: other hosts that its endpoints may be on. `token_type_missing`,
    `expires_in_missing`: `error`, or what is assumed. `lifetime_field`: where the answer says how long a token lives;
    the other two hold seconds since 1970. `rejected`: further OAuth error codes that mean that the secret is not
    accepted. `lockout`: wrong secrets lock the client, so it is asked rarely. `scope_separator`: between scopes.
    """

    basic_encoding: Literal["rfc6749", "raw", "raw-latin1"] = "rfc6749"
    endpoint_hosts: tuple[str, ...] = ()
    token_type_missing: Literal["error", "bearer"] = "error"
    expires_in_missing: Literal["error", "default_lifetime"] = "default_lifetime"
    lifetime_field: Literal["expires_in", "expires_on", "expires_at"] = "expires_in"
    rejected: tuple[str, ...] = ()
    lockout: bool = False
    scope_separator: Literal[" ", ","] = " "


class Identity(NamedTuple):
    """Who asks for what: the one key of cache, flight and lock. The version of the secret is no part of it."""

    environment: str
    issuer: str
    auth_method: str
    credentials: str
    client_id: str
    scopes: tuple[str, ...] = ()
    audience: str = ""
    resources: tuple[str, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()

    def asking(
        self,
        *,
        scope: str | Iterable[str] | None = None,
        audience: str | None = None,
        resource: str | Iterable[str] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> Identity:
        """The same with another request: each given part replaces, `extra` merges by name. ConfigurationError."""
        return self._replace(
            scopes=self.scopes if scope is None else _scopes(scope),
            audience=self.audience if audience is None else _audience(audience),
            resources=self.resources if resource is None else _resources(resource),
            extra=self.extra if extra is None else _extra(self.extra, extra),
        )

    def digest(self) -> bytes:
        """16 bytes that stand for it; every part is written with its length, so no two run into each other."""
        parts = (
            *self[:5],
            self.audience,
            *self.scopes,
            "\n",
            *self.resources,
            "\n",
            *(p for e in self.extra for p in e),
        )
        text = "".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _scopes(scope: str | Iterable[str]) -> tuple[str, ...]:
    names = scope.split() if isinstance(scope, str) else _listed("scope", scope)
    for name in names:
        if not isinstance(name, str) or not _SCOPE_TOKEN.fullmatch(name):
            raise ConfigurationError(
                f"a scope cannot be sent: {name!r}",
                hint='Scopes are printable ASCII without space, " and \\; several are written "a b" or ["a", "b"]',
            )
    return tuple(sorted(set(names)))


def _audience(audience: str) -> str:
    if not isinstance(audience, str) or (audience and not _PRINTABLE.fullmatch(audience)):
        raise ConfigurationError("an audience is one str of printable characters")
    return audience


def _resources(resource: str | Iterable[str]) -> tuple[str, ...]:
    uris = [resource] if isinstance(resource, str) else _listed("resource", resource)
    for uri in uris:
        if not isinstance(uri, str) or not _PRINTABLE.fullmatch(uri) or ":" not in uri or "#" in uri:
            raise ConfigurationError(
                f"a resource cannot be sent: {uri!r}", hint="It is an absolute URI without '#' (RFC 8707 section 2)"
            )
    return tuple(sorted(set(uris)))


def _extra(default: Iterable[tuple[str, str]], extra: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if not isinstance(extra, Mapping):
        raise ConfigurationError(f"extra= is a mapping of names to texts, not {type(extra).__name__}")
    for name, value in extra.items():
        if name in _RESERVED_PARAMETERS:
            raise ConfigurationError(
                f"extra= may not set {name!r}", hint="It has an argument of its own, or belongs to the library"
            )
        if not _is_text(name) or not _is_text(value):
            raise ConfigurationError(f"the extra parameter {name!r} is not a str that is not empty and can be encoded")
    return tuple(sorted({**dict(default), **extra}.items()))


def _listed(argument: str, given: Iterable[str]) -> list[str]:
    if not isinstance(given, Iterable):
        raise ConfigurationError(f"{argument}= is a str or an iterable of str, not {type(given).__name__}")
    return list(given)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and not any("\ud800" <= each <= "\udfff" for each in value)


# --- URLs ----------------------------------------------------------------------------------------------------------


def check_url(url: str, name: str, plain_http: Iterable[str] = ()) -> str:
    """The URL, if a secret may be sent there: https, http on loopback, or a host that `plain_http` names exactly."""
    parts = _split(url)
    if parts is None:
        raise ConfigurationError(f"{name} is not a URL: {_for_message(url)}", hint="Write https://HOST/PATH")
    scheme, host, port, path_on = parts
    if "#" in path_on or (name == "issuer" and "?" in path_on):
        raise ConfigurationError(
            f"{name} has a '#' or '?' in it, after {without_query(url)}",
            hint="RFC 6749 section 3.2, RFC 8414 section 2",
        )
    if scheme == "http" and not is_loopback(host) and f"{host}:{port}" not in with_ports(plain_http):
        raise ConfigurationError(
            f"{name} is plain http, which would show the secret and the token to the network: {without_query(url)}",
            hint=f"Write https://, or, knowing that, plain_http=({f'{host}:{port}'!r},)",
        )
    return url


def is_loopback(host: str) -> bool:
    return _LOOPBACK.fullmatch(host) is not None


def host_of(url: str) -> str:
    parts = _split(url)
    return parts[1] if parts else ""


def _split(url: str) -> tuple[str, str, int, str] | None:
    """Scheme, host, port, and what follows; None for what is no http URL, or has a user name in it."""
    if not isinstance(url, str) or not _PRINTABLE.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname or ""
    if parts.scheme not in ("https", "http") or not _HOST.fullmatch(host) or "@" in parts.netloc:
        return None
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80), url.split("://", 1)[1]


def _for_message(url: object) -> str:
    # A user name and password may stand in it, or a secret instead of it.
    return f"{len(url)} characters, not repeated here" if isinstance(url, str) else type(url).__name__


def without_query(url: str) -> str:
    """The URL without what follows '?' or '#': a secret has no place there, and yet some are written there."""
    return re.split(r"[?#]", url, maxsplit=1)[0]


def with_ports(hosts: Iterable[str]) -> set[str]:
    """The names of `plain_http`, each with its port."""
    return {host.lower() if re.search(r":\d+$", host) else f"{host.lower()}:80" for host in hosts}


def same_issuer(one: str, other: str) -> bool:
    """Whether two issuer identifiers are equal; an empty path equals "/" (RFC 3986 section 6.2.3)."""
    return _with_path(one) == _with_path(other)


def _with_path(issuer: str) -> str:
    return issuer + "/" if issuer.count("/") == 2 else issuer


def check_binding(binding: Binding, reference: str, *, issuer: str | None, token_url: str, environment: str) -> None:
    """Raise ConfigurationError if a document says that it is for another issuer or environment than the source's."""
    if binding.issuer is not None and issuer is None:
        raise ConfigurationError(
            f"the document at {reference} is bound to the issuer {binding.issuer}, and the source has only a token URL",
            hint=f"Give issuer={binding.issuer!r} beside token_url=",
        )
    for name, bound, ours, equal in (
        ("issuer", binding.issuer, issuer, same_issuer),
        ("token_url", binding.token_url, token_url, str.__eq__),
        ("environment", binding.environment, environment or None, str.__eq__),
    ):
        if bound is not None and ours is not None and not equal(bound, ours):
            raise ConfigurationError(
                f"the document at {reference} is bound to the {name} {bound!r}, and the source has {ours!r}; "
                f"nothing was sent",
                hint=f"Correct the reference or the {name}, or the document if it is for both",
            )


# --- the request ---------------------------------------------------------------------------------------------------


class Outgoing(Masked):
    """A request that is ready to go. Its headers and body hold the secret; only the transport opens it."""

    __slots__ = ("_open", "echoed", "method", "special", "url")

    method: str
    url: str
    special: bool
    echoed: Callable[[str], bool]
    _open: Any

    def __init__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        special: bool = False,
        echoed: Callable[[str], bool] = lambda text: False,
    ) -> None:
        """`special`: ID or secret have characters that issuers decode differently (RFC 6749 section 2.3.1).

        `echoed`: whether the secret is in a text that came back.
        """
        for name, value in (
            ("method", method),
            ("url", url),
            ("special", special),
            ("echoed", echoed),
            ("_open", lambda: (headers, body)),
        ):
            object.__setattr__(self, name, value)

    def open(self) -> tuple[Mapping[str, str], bytes | None]:
        content: tuple[Mapping[str, str], bytes | None] = self._open()
        return content


def token_request(
    url: str, identity: Identity, credentials: ClientCredentials, auth_method: str, profile: IssuerProfile
) -> Outgoing:
    """The client credentials request (RFC 6749 section 4.4.2). ConfigurationError where the method cannot carry it."""
    form = [("grant_type", "client_credentials")]
    if identity.scopes:
        form.append(("scope", profile.scope_separator.join(identity.scopes)))
    if identity.audience:
        form.append(("audience", identity.audience))
    form += [("resource", uri) for uri in identity.resources]
    form += identity.extra
    if auth_method == "client_secret_post":
        outgoing = _with_secret_in_body(url, form, credentials)
    else:
        outgoing = _with_secret_in_header(url, form, credentials, profile.basic_encoding)
    if outgoing is not None:
        return outgoing
    if auth_method == "client_secret_post" or profile.basic_encoding == "rfc6749":
        raise ConfigurationError(f"ID or secret of the client {credentials.client_id!r} hold half a character")
    raise ConfigurationError(
        f"the client {credentials.client_id!r} cannot be written as client_secret_basic with "
        f"basic_encoding={profile.basic_encoding!r}: its ID has a ':', or something is outside the encoding",
        hint="Use basic_encoding='rfc6749', or auth_method='client_secret_post'",
    )


_FORM_HEADERS = {"Content-Type": "application/x-www-form-urlencoded"}


def _with_secret_in_body(url: str, form: list[tuple[str, str]], credentials: ClientCredentials) -> Outgoing | None:
    secret = credentials.client_secret.reveal()
    try:
        body = _form([*form, ("client_id", credentials.client_id), ("client_secret", secret)])
    except UnicodeEncodeError:  # it holds the text
        return None
    return Outgoing("POST", url, _FORM_HEADERS, body, echoed=lambda text: secret in text)


def _with_secret_in_header(
    url: str, form: list[tuple[str, str]], credentials: ClientCredentials, encoding: str
) -> Outgoing | None:
    client_id, secret = credentials.client_id, credentials.client_secret.reveal()
    special = not (_UNRESERVED.fullmatch(client_id) and _UNRESERVED.fullmatch(secret))
    if encoding != "rfc6749" and ":" in client_id:
        return None
    try:
        if encoding == "rfc6749":
            # A space becomes %20, not "+": issuers that decode both ways agree on it.
            pair = f"{quote(client_id, safe='')}:{quote(secret, safe='')}".encode()
        else:
            pair = f"{client_id}:{secret}".encode("latin-1" if encoding == "raw-latin1" else "utf-8")
    except UnicodeEncodeError:
        return None
    basic = base64.b64encode(pair).decode()
    headers = {**_FORM_HEADERS, "Authorization": f"Basic {basic}"}
    return Outgoing(
        "POST", url, headers, _form(form), special=special, echoed=lambda text: secret in text or basic in text
    )


def _form(pairs: Iterable[tuple[str, str]]) -> bytes:
    return "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs).encode()


# --- the answer ----------------------------------------------------------------------------------------------------


class Answer(Masked):
    """What came back. Its body may hold a token, or a secret that the server echoes."""

    __slots__ = ("_body", "echoed", "headers", "status")

    status: int
    headers: Mapping[str, str]
    echoed: Callable[[str], bool]
    _body: Any

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        echoed: Callable[[str], bool] = lambda text: False,
    ) -> None:
        """`headers` with names in lower case; `echoed` is that of the request."""
        for name, value in (("status", status), ("headers", headers), ("echoed", echoed), ("_body", lambda: body)):
            object.__setattr__(self, name, value)

    def body(self) -> bytes:
        content: bytes = self._body()
        return content

    def members(self) -> tuple[dict[str, Any], str | None]:
        """The members of the JSON object that the body is, or why it is none (RFC 8259; no name twice, no NaN)."""
        try:
            value = json.loads(
                self.body().decode("utf-8"), object_pairs_hook=_no_name_twice, parse_constant=_no_constant
            )
        except (ValueError, RecursionError) as error:
            return {}, "has a name twice or NaN in its JSON" if isinstance(error, _NotStrict) else "is not JSON"
        return (value, None) if isinstance(value, dict) else ({}, "is not a JSON object")


class _NotStrict(ValueError):
    pass


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _NotStrict
    return members


def _no_constant(name: str) -> Any:
    raise _NotStrict


class Granted(NamedTuple):
    """A token, with what its answer said beside it. `assumed`: it did not say how long the token lives."""

    token: Token
    refresh_in: float | None
    assumed: bool
    missing_scopes: tuple[str, ...]


RefusalKind = Literal["rejected", "doubtful", "refused", "invalid", "unavailable"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no token: facts, from which errors are made.

    `rejected`: this client ID and secret are not accepted. `doubtful`: perhaps that, perhaps something before the
    issuer answered. `refused`: the request is. `invalid`: the answer is none. `unavailable`: later, perhaps.
    """

    kind: RefusalKind
    what: str
    status: int | None = None
    error: str | None = None
    vendor_code: str | None = None
    request_id: str | None = None
    retry_after: float | None = None
    hint: str | None = None
    retryable: bool | None = None

    def as_error(self, *, issuer: str, reference: str, client_id: str, auth_method: str) -> TokenError:
        """The error to raise; it names the client, its reference and the issuer."""
        made: type[TokenError] = {
            "rejected": CredentialsRejected,
            "doubtful": TokenRequestRefused,
            "refused": TokenRequestRefused,
            "invalid": InvalidTokenResponse,
            "unavailable": IssuerUnavailable,
        }[self.kind]
        return made(
            f"no token from {issuer} for the client {client_id!r} ({reference}, {auth_method}): {self.what}",
            error=self.error,
            status=self.status,
            vendor_code=self.vendor_code,
            request_id=self.request_id,
            issuer=issuer,
            auth_method=auth_method,
            hint=self.hint,
            retryable=self.retryable,
            retry_after=self.retry_after,
        )


def read_answer(
    answer: Answer,
    identity: Identity,
    profile: IssuerProfile,
    *,
    obtained: Instant,
    clock: Clock,
    default_lifetime: float,
    special: bool = False,
) -> Granted | Refusal:
    """A token answer (RFC 6749 section 5), strictly: what is not exactly a bearer token is a Refusal."""
    members, fault = answer.members()
    if answer.status != 200 or members.get("error") is not None:
        return _refusal(answer, members, profile, obtained, special)
    if fault is not None:
        return _invalid(answer, f"its answer {fault}", "Is this the token endpoint?")
    text = members.get("access_token")
    if not isinstance(text, str) or not _PRINTABLE.fullmatch(text):
        return _invalid(answer, "its answer has no access_token of visible ASCII characters")
    kind = members.get("token_type")
    if kind is None and profile.token_type_missing == "error":
        return _invalid(
            answer,
            "its answer has no token_type",
            "If it means a bearer token: IssuerProfile(token_type_missing='bearer')",
        )
    if kind is not None and (not isinstance(kind, str) or kind.lower() != "bearer"):
        return _invalid(answer, "the token_type of its answer is not Bearer", "Only bearer tokens are used")
    lifetime, fault = _lifetime(members, profile, obtained)
    if fault is not None:
        return _invalid(answer, fault)
    scope = members.get("scope")
    if scope is not None and not isinstance(scope, str):
        return _invalid(answer, "the scope of its answer is not a text")
    granted = identity.scopes if not scope else tuple(sorted(set(scope.replace(profile.scope_separator, " ").split())))
    refresh_in = _seconds(members.get("refresh_in"))
    return Granted(
        Token(
            text,
            lifetime=default_lifetime if lifetime is None else lifetime,
            scopes=identity.scopes if granted == identity.scopes else granted,
            obtained=obtained,
            clock=clock,
        ),
        refresh_in,
        lifetime is None,
        tuple(name for name in identity.scopes if name not in granted),
    )


def _lifetime(members: Mapping[str, Any], profile: IssuerProfile, obtained: Instant) -> tuple[float | None, str | None]:
    """Seconds from `obtained`, None where the answer does not say, or what is wrong."""
    field = profile.lifetime_field
    value = members.get(field)
    if value is None:
        if profile.expires_in_missing == "error":
            return None, f"its answer has no {field}"
        return None, None
    seconds = _seconds(value)
    if seconds is None:
        return None, f"the {field} of its answer is neither a number nor digits"
    if field != "expires_in":
        seconds -= obtained.wall
    return max(-_LONGEST_LIFETIME, min(seconds, _LONGEST_LIFETIME)), None


def _seconds(value: object) -> float | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return float(max(-1e15, min(value, 1e15)))  # an int may be too large for a float


def _invalid(answer: Answer, what: str, hint: str | None = None) -> Refusal:
    return Refusal("invalid", what, status=answer.status, request_id=_request_id(answer), hint=hint)


def _refusal(
    answer: Answer, members: Mapping[str, Any], profile: IssuerProfile, now: Instant, special: bool
) -> Refusal:
    status, code = answer.status, members.get("error")
    if not isinstance(code, str) or (code not in _ERROR_CODES and code not in profile.rejected):
        code = "unknown" if isinstance(code, str) and code else None
    vendor_code = _vendor_code(members)
    kind, hint = _classified(status, code, profile)
    if vendor_code in _VENDOR_HINTS:
        hint = _VENDOR_HINTS[vendor_code]
    elif kind == "rejected" and special:
        hint = (
            "ID or secret have special characters: if they are right, this issuer may want "
            "IssuerProfile(basic_encoding='raw') or auth_method='client_secret_post'"
        )
    codes = " ".join(filter(None, (code if code != "unknown" else "with an error code of its own", vendor_code)))
    return Refusal(
        kind,
        f"it answered {status}{' ' + codes if codes else ''}",
        status=status,
        error=code if code != "unknown" else None,
        vendor_code=vendor_code,
        request_id=_request_id(answer),
        retry_after=_retry_after(answer.headers.get("retry-after"), now.wall),
        hint=hint,
    )


def _classified(status: int, code: str | None, profile: IssuerProfile) -> tuple[RefusalKind, str | None]:
    if 300 <= status < 400:
        return "invalid", "Redirects are not followed, since they would take the secret along: correct the URL"
    later = code in ("server_error", "temporarily_unavailable", "slow_down")
    if status in (408, 425, 429) or status >= 500 or (later and status != 401):
        return "unavailable", None
    if (
        status == 401
        or code == "invalid_client"
        or (code is not None and code in profile.rejected)
        or (status == 403 and code in ("unauthorized_client", "access_denied"))
    ):
        return "rejected", "Compare the client ID and secret in the store with those at the issuer"
    if status == 403 and code is None:
        return "doubtful", "No OAuth error came with it: a firewall or gateway before the issuer may have answered"
    if status in (404, 405, 410):
        return "refused", "Is this the token endpoint? Give issuer= for discovery, or correct token_url="
    if code in ("invalid_scope", "invalid_target"):
        return "refused", "Ask for what the client is allowed to have, or have the administrator allow it"
    if code in ("unauthorized_client", "unsupported_grant_type"):
        return "refused", "The administrator has to allow the client credentials grant for this client"
    if 100 <= status < 300:
        return "invalid", None
    return "refused", None


def _vendor_code(members: Mapping[str, Any]) -> str | None:
    for name in ("error_description", "error_uri", "errorCode", "error_codes"):
        value = members.get(name)
        match = _VENDOR_CODE.search(value) if isinstance(value, str) else None
        if match:
            return match[1]
    return None


def _request_id(answer: Answer) -> str | None:
    values = (answer.headers.get(name, "") for name in _REQUEST_ID_HEADERS)
    return next((value for value in values if _REQUEST_ID.fullmatch(value) and not answer.echoed(value)), None)


def _retry_after(value: str | None, wall: float) -> float | None:
    """Seconds to wait (RFC 9110 section 10.2.3: seconds, or a date), at most five minutes."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        seconds = float(value[:10])
    else:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - wall
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return max(0.0, min(seconds, _LONGEST_RETRY_AFTER))


# --- discovery -----------------------------------------------------------------------------------------------------


class Metadata(NamedTuple):
    """What an issuer publishes, as far as it concerns us."""

    token_url: str
    auth_method: str


def well_known_urls(issuer: str) -> tuple[str, str]:
    """Where its metadata may be: OpenID Connect Discovery section 4 appends, RFC 8414 section 3.1 inserts."""
    base = issuer.removesuffix("/")
    scheme, _, rest = base.partition("://")
    host, slash, path = rest.partition("/")
    return (
        f"{base}/.well-known/openid-configuration",
        f"{scheme}://{host}/.well-known/oauth-authorization-server{slash}{path}",
    )


def read_metadata(
    answer: Answer,
    issuer: str,
    profile: IssuerProfile,
    *,
    plain_http: Iterable[str] = (),
    auth_method: str | None = None,
) -> Metadata:
    """The token endpoint and the way to authenticate there. Raises InvalidTokenResponse or ConfigurationError."""
    members, fault = answer.members()
    if fault is not None:
        raise InvalidTokenResponse(f"the metadata of {issuer} {fault}", issuer=issuer, status=answer.status)
    _check_issuer(members.get("issuer"), issuer)
    url = members.get("token_endpoint")
    if not isinstance(url, str) or _split(url) is None or len(url) > _LONGEST_URL:
        raise InvalidTokenResponse(
            f"the metadata of {issuer} names no token endpoint",
            issuer=issuer,
            hint="Give token_url= beside issuer=, if you know it",
        )
    _check_endpoint(url, issuer, profile, plain_http)
    return Metadata(url, auth_method or _method_offered(members, issuer))


def _check_issuer(found: object, issuer: str) -> None:
    if isinstance(found, str) and same_issuer(found, issuer):
        return
    shown = found if isinstance(found, str) and _split(found) is not None and len(found) <= _LONGEST_URL else None
    slash = shown is not None and shown.removesuffix("/") == issuer.removesuffix("/")
    raise ConfigurationError(
        f"the metadata at {issuer} is that of another issuer: {shown or 'none is named'}",
        hint=f"Write issuer={shown!r}: the final slash counts"
        if slash
        else "RFC 8414 section 3.3: the two must be equal",
    )


def _check_endpoint(url: str, issuer: str, profile: IssuerProfile, plain_http: Iterable[str]) -> None:
    if urlsplit(issuer).scheme == "https" and urlsplit(url).scheme == "http":
        raise ConfigurationError(
            f"the metadata of {issuer} names a token endpoint of plain http: {url}",
            hint="The server does not know that it is behind TLS: have its proxy pass X-Forwarded-Proto on",
        )
    host = host_of(url)
    if host != host_of(issuer) and host not in profile.endpoint_hosts:
        raise ConfigurationError(
            f"the metadata of {issuer} names a token endpoint on another host: {url}",
            hint=f"If that is right: profile=IssuerProfile(endpoint_hosts=({host!r},))",
        )
    check_url(url, "the token endpoint in the metadata", plain_http)


def _method_offered(members: Mapping[str, Any], issuer: str) -> str:
    offered = members.get("token_endpoint_auth_methods_supported")
    if offered is None:  # RFC 8414 section 2: client_secret_basic, if omitted
        return "client_secret_basic"
    for method in AUTH_METHODS:
        if isinstance(offered, list) and method in offered:
            return method
    raise ConfigurationError(
        f"the issuer {issuer} offers neither of {', '.join(AUTH_METHODS)} for its token endpoint",
        hint="Give auth_method=, if you know that it takes one of them all the same",
    )


def check_auth_method(method: str | None) -> str | None:
    """The method, if it is one of ours. ConfigurationError."""
    if method is None or method in AUTH_METHODS:
        return method
    near = difflib.get_close_matches(str(method), AUTH_METHODS, n=1)
    raise ConfigurationError(
        f"auth_method={method!r} is not known",
        hint=f"Did you mean {near[0]!r}?" if near else f"It is one of {', '.join(AUTH_METHODS)}",
    )
