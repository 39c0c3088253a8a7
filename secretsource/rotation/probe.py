"""Which secrets the issuer accepts: asked of its token endpoint, by the requests that programs make."""

from __future__ import annotations

from typing import NamedTuple

from ..backends import Held
from ..credentials import ClientCredentials
from ..errors import CredentialsRejected, SecretSourceError, TokenError, TokenRequestRefused
from ..secret import Secret
from ..source import TokenSource
from ..token import Token
from .decision import Word

__all__ = ["Said", "probe"]


class Said(NamedTuple):
    """`error`: why the endpoint has not said. `token` is that of a secret that it accepts."""

    word: Word
    token: Token | None = None
    error: SecretSourceError | None = None


def probe(source: TokenSource, held: Held, secret: Secret, rejected: tuple[str, ...] = ()) -> Said:
    """What the token endpoint says about one secret. `rejected`: error codes with which this issuer says no.

    Raises ConfigurationError, and TokenRequestRefused where another secret would not help.
    """
    failure: SecretSourceError
    try:
        return Said("accepted", source.prove(ClientCredentials(held.client_id, secret), binding=held.binding))
    except SecretSourceError as error:
        failure = error.again()
    if isinstance(failure, CredentialsRejected) or (isinstance(failure, TokenError) and failure.error in rejected):
        return Said("rejected")
    # A 403 without an OAuth error may come from something before the issuer.
    doubtful = isinstance(failure, TokenRequestRefused) and failure.status == 403 and failure.error is None
    if (
        doubtful
        or failure.retryable
        or (isinstance(failure, TokenError) and not isinstance(failure, TokenRequestRefused))
    ):
        return Said("unknown", error=failure)
    raise failure
