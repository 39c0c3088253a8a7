"""What can go wrong, as one tree.

    SecretSourceError
    ├── ConfigurationError         what was written is wrong: correct it
    ├── BackendError               the store of the credentials
    │   ├── SecretNotFound
    │   ├── AccessDenied           also every refused file permission
    │   ├── MalformedSecret
    │   └── BackendUnavailable     retryable
    ├── TokenError                 the authorization server
    │   ├── CredentialsRejected    it does not accept this client ID and secret
    │   ├── TokenRequestRefused    it refuses what was asked for
    │   ├── InvalidTokenResponse   its answer cannot be used
    │   └── IssuerUnavailable      retryable
    └── DeadlineExceeded           also a TimeoutError

An error holds facts only: never a secret, a token, a body, or another library's exception.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import ParamSpec, Self, TypeVar

__all__ = [
    "SecretSourceError",
    "ConfigurationError",
    "BackendError",
    "SecretNotFound",
    "AccessDenied",
    "MalformedSecret",
    "BackendUnavailable",
    "TokenError",
    "CredentialsRejected",
    "TokenRequestRefused",
    "InvalidTokenResponse",
    "IssuerUnavailable",
    "DeadlineExceeded",
]


class SecretSourceError(Exception):
    """Base of all errors of this library.

    `retryable`: the same call may succeed later. `retry_after`: seconds until it is worth trying, or None.
    `hint`: what to do about it. `occurred_at`: aware UTC datetime.
    """

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = retry_after
        self.occurred_at = datetime.now(UTC)
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def again(self) -> Self:
        """The same facts as a new exception, so that many threads can raise one failure without sharing it."""
        # Not copy.copy: it calls the class, and a third party's subclass may take other arguments.
        twin = type(self).__new__(type(self))
        twin.args = self.args
        twin.__dict__.update(self.__dict__)
        return twin


_P = ParamSpec("_P")
_T = TypeVar("_T")


def forgetting(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """For what a secret may be given to: what it raises about that leaves from a frame without its arguments.

    A traceback with local variables would show them.
    """

    @functools.wraps(function)
    def called(*given: _P.args, **named: _P.kwargs) -> _T:
        try:
            return function(*given, **named)
        except SecretSourceError as error:
            failure: Exception = error.again()
        except Exception as error:
            failure = error.with_traceback(None)
            failure.__context__ = None
        del given
        named.clear()
        raise failure

    return called


class ConfigurationError(SecretSourceError):
    """A reference, an option, a URL or the environment is wrong; trying again changes nothing."""


class BackendError(SecretSourceError):
    """A store did not give the credentials. `reference` and `store` name it; `status` is its code, if it has one."""

    def __init__(
        self,
        message: str,
        *,
        reference: str | None = None,
        store: str | None = None,
        status: int | str | None = None,
        request_id: str | None = None,
        hint: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, retryable=retryable, retry_after=retry_after)
        self.reference = reference
        self.store = store
        self.status = status
        self.request_id = request_id


class SecretNotFound(BackendError):
    """The store answers, and has nothing under that name."""


class AccessDenied(BackendError):
    """The store refuses to give the secret, or its file may be read or changed by others."""


class MalformedSecret(BackendError):
    """What the store holds cannot be used as a client ID and secret."""


class BackendUnavailable(BackendError):
    """The store does not answer as it should; it may do so later (except where its certificate is refused)."""

    retryable = True


class TokenError(SecretSourceError):
    """The authorization server gave no token.

    `error` is its OAuth code (RFC 6749 section 5.2), `vendor_code` its own, from a closed list.
    """

    def __init__(
        self,
        message: str,
        *,
        error: str | None = None,
        status: int | None = None,
        vendor_code: str | None = None,
        request_id: str | None = None,
        issuer: str | None = None,
        auth_method: str | None = None,
        hint: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, retryable=retryable, retry_after=retry_after)
        self.error = error
        self.status = status
        self.vendor_code = vendor_code
        self.request_id = request_id
        self.issuer = issuer
        self.auth_method = auth_method


class CredentialsRejected(TokenError):
    """The client ID and secret are not accepted. `retry_after`: seconds until the next attempt is made."""


class TokenRequestRefused(TokenError):
    """The credentials may be right; what is asked for (scope, grant, resource) is refused."""


class InvalidTokenResponse(TokenError):
    """The answer cannot be used: not a token, a redirect, too large, or not what its type says."""


class IssuerUnavailable(TokenError):
    """The authorization server cannot be reached or answers that it is out of order."""

    retryable = True


class DeadlineExceeded(SecretSourceError, TimeoutError):
    """The time given was not enough. `phase` says what was under way."""

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        phase: str | None = None,
        hint: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, retryable=retryable, retry_after=retry_after)
        self.phase = phase
