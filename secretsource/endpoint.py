"""The token endpoint: what its issuer is like, and the request to it, as pure functions."""

from __future__ import annotations

import base64
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, quote_plus

from .credentials import Binding, ClientCredentials
from .errors import ConfigurationError
from .exchange import Outgoing
from .identity import Identity
from .urls import same_issuer

__all__ = [
    "AUTH_METHODS",
    "IssuerProfile",
    "check_auth_method",
    "check_binding",
    "token_request",
]

AUTH_METHODS = ("client_secret_basic", "client_secret_post")

_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]*")


_PROFILE_CHOICES = {
    "basic_encoding": ("rfc6749", "raw", "raw-latin1"),
    "token_type_missing": ("error", "bearer"),
    "expires_in_missing": ("error", "default_lifetime"),
    "lifetime_field": ("expires_in", "expires_on", "expires_at"),
    "lockout": (False, True),
    "scope_separator": (" ", ","),
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

    def __post_init__(self) -> None:
        for name, known in _PROFILE_CHOICES.items():
            if getattr(self, name) not in known:
                raise ConfigurationError(
                    f"IssuerProfile({name}={getattr(self, name)!r}) is not known", hint=f"It is one of {known}"
                )
        for name in ("endpoint_hosts", "rejected"):
            given = getattr(self, name)
            if not isinstance(given, (tuple, list)) or not all(isinstance(each, str) for each in given):
                raise ConfigurationError(f"IssuerProfile({name}=…) is not a tuple of texts")


def check_binding(
    binding: Binding,
    reference: str,
    *,
    issuer: str | None,
    token_url: str | None,
    environment: str,
    required: bool = False,
) -> None:
    """Raise ConfigurationError if a document says that it is for another issuer or environment than the source's.

    With `required` it has to say both. What is None is not compared.
    """
    if required and not (binding.environment and (binding.issuer or binding.token_url)):
        lacking = "environment" if binding.issuer or binding.token_url else "issuer"
        raise ConfigurationError(
            f"the document at {reference} does not say for which {lacking} it is, which this environment demands; "
            f"nothing was sent",
            hint="secretsource put CLIENT --env ENVIRONMENT writes issuer and environment beside the secret",
        )
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
        raise ConfigurationError(
            "the client ID or the secret holds half a character", hint="Write it anew in the store"
        )
    raise ConfigurationError(
        f"client ID and secret cannot be written as client_secret_basic with "
        f"basic_encoding={profile.basic_encoding!r}: the ID has a ':', or something is outside the encoding",
        hint="Use basic_encoding='rfc6749', or auth_method='client_secret_post'",
    )


_FORM_HEADERS = {"Content-Type": "application/x-www-form-urlencoded"}


def _with_secret_in_body(url: str, form: list[tuple[str, str]], credentials: ClientCredentials) -> Outgoing | None:
    secret = credentials.client_secret.reveal()
    try:
        body = _form([*form, ("client_id", credentials.client_id), ("client_secret", secret)])
    except UnicodeEncodeError:  # it holds the text
        return None
    return Outgoing("POST", url, _FORM_HEADERS, body, echoed=lambda text: _echoes(text, secret))


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
        "POST", url, headers, _form(form), special=special, echoed=lambda text: _echoes(text, secret) or basic in text
    )


def _echoes(text: str, secret: str) -> bool:
    # A short one would be found in any token by chance.
    return text == secret or (len(secret) >= 12 and secret in text)


def _form(pairs: Iterable[tuple[str, str]]) -> bytes:
    return "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs).encode()


def check_auth_method(method: str | None) -> str | None:
    """The method, if it is one of ours. ConfigurationError."""
    if method is None or method in AUTH_METHODS:
        return method
    near = difflib.get_close_matches(str(method), AUTH_METHODS, n=1)
    raise ConfigurationError(
        f"auth_method={method!r} is not known",
        hint=f"Did you mean {near[0]!r}?" if near else f"It is one of {', '.join(AUTH_METHODS)}",
    )
