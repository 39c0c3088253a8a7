"""What a token endpoint answers, read strictly: a token, or the facts of a refusal.

Nothing here does I/O, and nothing raises while it holds a body.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple

from .clock import Clock, Instant
from .endpoint import IssuerProfile
from .errors import (
    CredentialsRejected,
    InvalidTokenResponse,
    IssuerUnavailable,
    TokenError,
    TokenRequestRefused,
)
from .exchange import Answer, request_id_in
from .identity import Identity
from .token import Token

__all__ = ["Answer", "Granted", "Refusal", "read_answer", "retry_after_of"]

_PRINTABLE = re.compile(r"[\x21-\x7e]+")
# Codes of RFC 6749 and 8707, and GitHub's. What else an issuer calls an error may be anything, a secret that it
# echoes included, and is not repeated.
_ERROR_CODES = {
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "invalid_scope",
    "unsupported_grant_type",
    "invalid_target",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    "slow_down",
    "incorrect_client_credentials",
}
_VENDOR_CODE = re.compile(r"\b(ID[0-9]{4}|AADSTS[0-9]{5,7}|E[0-9]{7})\b")
_REQUEST_ID_HEADERS = ("x-request-id", "x-ms-request-id", "x-okta-request-id", "x-correlation-id", "request-id")
_LONGEST_RETRY_AFTER = 300.0
_LONGEST_LIFETIME = 10 * 365 * 86400.0

_NOT_STANDARD = "It does not keep to RFC 6749 section 5.1: show that to whoever runs the issuer"
_ADDRESS = "Is this the token endpoint? Give issuer= for discovery, or correct token_url="
_OUT_OF_ORDER = "It may pass; if it stays, the issuer's own log or status page says why"

_VENDOR_HINTS = {
    "ID2052": "OpenIddict knows no application with this client ID",
    "ID2055": "OpenIddict holds another secret for this client ID",
    "ID2064": "the application has no permission for the client credentials grant in OpenIddict",
    "AADSTS7000215": "Entra holds another secret for this client ID (the secret's value is needed, not its ID)",
    "AADSTS7000222": "the secret has expired in Entra",
    "AADSTS700016": "Entra knows no application with this client ID in this tenant",
}


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

    def as_error(self, *, issuer: str, reference: str, auth_method: str) -> TokenError:
        """The error to raise. It does not name the client: where ID and secret were swapped, that is the secret."""
        made: type[TokenError] = {
            "rejected": CredentialsRejected,
            "doubtful": TokenRequestRefused,
            "refused": TokenRequestRefused,
            "invalid": InvalidTokenResponse,
            "unavailable": IssuerUnavailable,
        }[self.kind]
        return made(
            f"no token from {issuer} for {reference} ({auth_method}): {self.what}",
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
        return _invalid(answer, f"its answer {fault}", _ADDRESS)
    text = members.get("access_token")
    if not isinstance(text, str) or not _PRINTABLE.fullmatch(text):
        return _invalid(answer, "its answer has no access_token of visible ASCII characters")
    scope = members.get("scope")
    if any(isinstance(each, str) and answer.echoed(each) for each in (text, scope)):
        return _invalid(answer, "its answer gives the client secret back where a token or a scope belongs")
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
    if scope is not None and not (isinstance(scope, str) and scope.isprintable()):  # it is logged
        return _invalid(answer, "the scope of its answer is not a text of printable characters")
    granted = identity.scopes if not scope else tuple(sorted(set(scope.replace(profile.scope_separator, " ").split())))
    refresh_in = _seconds(members.get("refresh_in"))
    return Granted(
        Token(
            text,
            lifetime=min(default_lifetime, _LONGEST_LIFETIME) if lifetime is None else lifetime,
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


def _invalid(answer: Answer, what: str, hint: str = _NOT_STANDARD) -> Refusal:
    return Refusal("invalid", what, status=answer.status, request_id=_request_id(answer), hint=hint)


def _refusal(
    answer: Answer, members: Mapping[str, Any], profile: IssuerProfile, now: Instant, special: bool
) -> Refusal:
    status, code = answer.status, members.get("error")
    if not isinstance(code, str) or (code not in _ERROR_CODES and code not in profile.rejected):
        code = "unknown" if isinstance(code, str) and code else None
    vendor_code = _vendor_code(members)
    kind, hint = _classified(status, code, profile)
    if vendor_code in _VENDOR_HINTS and code in ("invalid_client", "unauthorized_client"):
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
        retry_after=retry_after_of(answer, now.wall),
        hint=hint,
    )


def _classified(status: int, code: str | None, profile: IssuerProfile) -> tuple[RefusalKind, str]:
    if 300 <= status < 400:
        return "invalid", "Redirects are not followed, since they would take the secret along: correct the URL"
    later = code in ("server_error", "temporarily_unavailable", "slow_down")
    if status in (408, 425, 429) or status >= 500 or (later and status != 401):
        return "unavailable", _OUT_OF_ORDER
    if (
        status == 401
        or code == "invalid_client"
        or (code is not None and code in profile.rejected)
        or (status == 403 and code in ("unauthorized_client", "access_denied"))
    ):
        return "rejected", "Compare the client ID and secret in the store with those at the issuer"
    if status == 403 and code in (None, "unknown"):
        return "doubtful", "No OAuth error came with it: a firewall or gateway before the issuer may have answered"
    if status in (404, 405, 410):
        return "refused", _ADDRESS
    if code in ("invalid_scope", "invalid_target"):
        return "refused", "Ask for what the client is allowed to have, or have the administrator allow it"
    if code in ("unauthorized_client", "unsupported_grant_type"):
        return "refused", "The administrator has to allow the client credentials grant for this client"
    if 100 <= status < 300:
        return "invalid", _ADDRESS
    return "refused", "The issuer's own log says what it does not accept"


def _vendor_code(members: Mapping[str, Any]) -> str | None:
    for name in ("error_description", "error_uri", "errorCode"):
        value = members.get(name)
        match = _VENDOR_CODE.search(value) if isinstance(value, str) else None
        if match:
            return match[1]
    return None


def _request_id(answer: Answer) -> str | None:
    values = (answer.headers.get(name, "") for name in _REQUEST_ID_HEADERS)
    return next((value for value in values if request_id_in(value) and not answer.echoed(value)), None)


def retry_after_of(answer: Answer, wall: float) -> float | None:
    """Seconds to wait (RFC 9110 section 10.2.3: seconds, or a date), at most five minutes."""
    value = answer.headers.get("retry-after")
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
