"""A valid OAuth 2.0 access token for your program, without a secret in its code.

The way, in one direction; each module imports only from those before it:

    reference → backend → credentials → token request → token → cache → caller

    >>> from secretsource import SecretReference
    >>> str(SecretReference.parse("env:POS"))
    'env://POS'
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as typing has it, whose import would cost more than all the rest
if TYPE_CHECKING:
    from typing import Any

    from .auth.httpx import TokenAuth as TokenAuth
    from .backends import Backend as Backend
    from .backends import Writable as Writable
    from .credentials import ClientCredentials as ClientCredentials
    from .credentials import Document as Document
    from .endpoint import IssuerProfile as IssuerProfile
    from .errors import AccessDenied as AccessDenied
    from .errors import BackendError as BackendError
    from .errors import BackendUnavailable as BackendUnavailable
    from .errors import ConfigurationError as ConfigurationError
    from .errors import CredentialsRejected as CredentialsRejected
    from .errors import DeadlineExceeded as DeadlineExceeded
    from .errors import InvalidTokenResponse as InvalidTokenResponse
    from .errors import IssuerUnavailable as IssuerUnavailable
    from .errors import MalformedSecret as MalformedSecret
    from .errors import SecretNotFound as SecretNotFound
    from .errors import SecretSourceError as SecretSourceError
    from .errors import TokenError as TokenError
    from .errors import TokenRequestRefused as TokenRequestRefused
    from .hardening import harden_process as harden_process
    from .reference import SecretReference as SecretReference
    from .resolve import CredentialsSource as CredentialsSource
    from .secret import Secret as Secret
    from .source import TokenSource as TokenSource
    from .token import Token as Token

# Loaded at first use, so that importing the package costs nothing.
_HOMES = {
    "errors": (
        "SecretSourceError ConfigurationError BackendError SecretNotFound AccessDenied MalformedSecret "
        "BackendUnavailable TokenError CredentialsRejected TokenRequestRefused InvalidTokenResponse "
        "IssuerUnavailable DeadlineExceeded"
    ),
    "secret": "Secret",
    "reference": "SecretReference",
    "credentials": "ClientCredentials Document",
    "backends": "Backend Writable",
    "resolve": "CredentialsSource",
    "token": "Token",
    "endpoint": "IssuerProfile",
    "source": "TokenSource",
    "auth.httpx": "TokenAuth",
    "hardening": "harden_process",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

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
    "Secret",
    "SecretReference",
    "ClientCredentials",
    "Document",
    "Backend",
    "Writable",
    "CredentialsSource",
    "Token",
    "IssuerProfile",
    "TokenSource",
    "TokenAuth",
    "harden_process",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
