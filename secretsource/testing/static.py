"""static_source: what a TokenSource is to its callers, with one token of your own and nothing behind it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from ..clock import SYSTEM_CLOCK, Clock
from ..errors import ConfigurationError
from ..token import Token

if TYPE_CHECKING:
    from ..source import Status

__all__ = ["StaticSource", "static_source"]

_REQUEST = ("scope", "audience", "resource", "extra", "timeout", "force")
_YEAR = 365 * 86_400.0


def static_source(
    access_token: str, *, scopes: Iterable[str] = (), lifetime: float = _YEAR, clock: Clock = SYSTEM_CLOCK
) -> StaticSource:
    """A source that always gives this token, whatever is asked for. `lifetime` in seconds is only what it says.

    >>> static_source("not-a-real-token").token().authorization
    'Bearer not-a-real-token'
    """
    return StaticSource(Token(access_token, lifetime=lifetime, scopes=tuple(scopes), clock=clock))


class StaticSource:
    """Has the methods of a TokenSource. `invalidated`: what callers said was refused, in order."""

    name = "static"

    def __init__(self, token: Token) -> None:
        self.invalidated: list[Token | str] = []
        self._token = token
        self._closed = False

    def token(self, **request: Any) -> Token:
        """The token. Raises ConfigurationError for a parameter that a TokenSource does not know, and once closed."""
        if self._closed:
            raise ConfigurationError("this source is closed", hint="Use it inside its 'with', or make a new one")
        for name in request:
            if name not in _REQUEST:
                raise ConfigurationError(
                    f"a token request has no parameter {name!r}", hint=f"It has: {', '.join(_REQUEST)}"
                )
        return self._token

    async def atoken(self, **request: Any) -> Token:
        return self.token(**request)

    def invalidate(self, token: Token | str) -> None:
        """Noted in `invalidated`; the token stays."""
        self.invalidated.append(token)

    def reload(self) -> None:
        """There is no store to read."""

    def verify(self) -> Token:
        return self.token()

    async def averify(self) -> Token:
        return self.token()

    def status(self) -> Status:
        from ..source import Status  # here, since it loads the HTTP client

        return Status(
            credentials=self.name,
            version=None,
            credentials_age=None,
            token_life_left=self._token.expires_in,
            token_expires_at=self._token.expires_at,
            last_error=None,
            next_try=None,
            circuit=None,
            kept_tokens=0 if self._closed else 1,
            orphaned_threads=0,
        )

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
