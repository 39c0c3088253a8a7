"""TokenAuth: a token on each request of httpx and httpx2, sync and async."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import httpx

from ..errors import ConfigurationError
from ..events import Emitter, OriginLeft
from ..source import TokenRequest
from ..token import Token
from ..urls import is_loopback, with_ports
from .challenge import refuses_token

__all__ = ["TokenAuth"]

_TOO_NEW_TO_REPLACE = 1.0
_ORIGINS_AT_MOST = 256
_PORTS = {"https": 443, "http": 80}


class _GivesTokens(Protocol):
    def token(self, **request: Unpack[TokenRequest]) -> Token: ...
    async def atoken(self, **request: Unpack[TokenRequest]) -> Token: ...
    def invalidate(self, token: Token) -> None: ...


if TYPE_CHECKING:
    import httpx2

    class _Auth(httpx.Auth, httpx2.Auth):  # type: ignore[misc]
        pass

elif find_spec("httpx2") is not None:
    import httpx2

    class _Auth(httpx.Auth, httpx2.Auth):
        pass

else:
    _Auth = httpx.Auth


def _parts_of_an_origin() -> Callable[[Any], tuple[Any, ...]]:
    """What tells one origin from another in a URL of httpx or httpx2, in the cheapest way, since each request asks.

    Each public property copies something; where the parsed URL lies as we know it, it is asked itself.
    """
    libraries = [httpx] if find_spec("httpx2") is None else [httpx, httpx2]
    parsed = attrgetter("_uri_reference.scheme", "_uri_reference.host", "_uri_reference.port")
    with suppress(AttributeError):
        if all(parsed(library.URL("https://a:1/")) == ("https", "a", 1) for library in libraries):
            return parsed
    return attrgetter("scheme", "raw_host", "port")


_where = _parts_of_an_origin()


class TokenAuth(_Auth):
    """Sets the Authorization header: `httpx.Client(auth=TokenAuth(source))`, or AsyncClient, or httpx2's.

    A token that the API refuses with 401 is replaced once, if the body can be sent again. Plain http is refused off
    loopback; with `origins` (such as "https://pos.example.com") so is every other origin. `request` (scope,
    timeout, …) goes to `TokenSource.token`. The client that it is given to is not changed.
    """

    def __init__(
        self,
        source: _GivesTokens,
        *,
        origins: str | Iterable[str] | None = None,
        **request: Unpack[TokenRequest],
    ) -> None:
        given: dict[str, Any] = {name: value for name, value in request.items() if value is not None}
        self._source = source
        self._token = partial(source.token, **given) if given else source.token
        self._atoken = partial(source.atoken, **given) if given else source.atoken
        self._plain_http = with_ports(getattr(source, "plain_http", ()))
        self._emitter: Emitter = getattr(source, "_emitter", None) or Emitter()
        self._source_name = getattr(source, "name", type(source).__name__)
        # Origins that have been looked at: where a request goes next is almost always one of them.
        self._known: dict[tuple[Any, ...], str] = {}
        self._only = None if origins is None else _origins(origins)

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        if _where(request.url) not in self._known:
            self._look_at(request.url)
        token = self._token()
        request.headers["Authorization"] = token.authorization
        response = yield request
        if response.status_code == 401 and self._is_worth_another(request, response, token):
            token = self._token()
            request.headers["Authorization"] = token.authorization
            yield request

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        if _where(request.url) not in self._known:
            self._look_at(request.url)
        token = await self._atoken()
        request.headers["Authorization"] = token.authorization
        response = yield request
        if response.status_code == 401 and self._is_worth_another(request, response, token):
            token = await self._atoken()
            request.headers["Authorization"] = token.authorization
            yield request

    def _look_at(self, url: Any) -> None:
        origin = _origin(url)
        if self._only is not None and origin not in self._only:
            raise ConfigurationError(
                f"the token is not sent to {origin}: it is for {', '.join(sorted(self._only))} only",
                hint="Use a client of its own for the other origin, or add it to origins=",
            )
        host = url.host
        if url.scheme != "https" and not is_loopback(host) and origin.partition("://")[2] not in self._plain_http:
            raise ConfigurationError(
                f"the token is not sent to {origin}: plain http would show it to the network",
                hint="Use https; the names in the source's plain_http= are excepted",
            )
        if len(self._known) >= _ORIGINS_AT_MOST:
            return  # each request to one more is looked at anew, and no longer reported
        if self._only is None and self._known:
            self._emitter.emit([OriginLeft(self._source_name, next(iter(self._known.values())), origin)])
        self._known[_where(url)] = origin

    def _is_worth_another(self, request: Any, response: Any, token: Token) -> bool:
        """Drop the token that the API refused; whether to send the request again with another one."""
        # After a redirect it may be another origin that answers, which did not get the token.
        sent = response.request if response.history else request
        if sent.headers.get("Authorization") != token.authorization:
            return False
        if token.age < _TOO_NEW_TO_REPLACE or not refuses_token(response.headers.get_list("www-authenticate")):
            return False
        self._source.invalidate(token)
        return _has_whole_body(request)


def _has_whole_body(request: Any) -> bool:
    try:
        request.content  # noqa: B018 - raises RequestNotRead, of httpx or httpx2, for a stream
    except Exception:
        return False
    return True


def _origins(given: str | Iterable[str]) -> frozenset[str]:
    names = [given] if isinstance(given, str) or not isinstance(given, Iterable) else given
    return frozenset(_origin(_url(name)) for name in names)


def _url(text: str) -> httpx.URL:
    try:
        return httpx.URL(text)
    except (httpx.InvalidURL, TypeError):
        return httpx.URL()


def _origin(url: Any) -> str:
    if url.scheme not in _PORTS or not url.host:
        raise ConfigurationError("an origin is written https://HOST or https://HOST:PORT")
    return f"{url.scheme}://{url.host}:{url.port or _PORTS[url.scheme]}"
