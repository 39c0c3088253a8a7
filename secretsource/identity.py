"""Identity: who asks for what."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .errors import ConfigurationError

__all__ = ["Identity"]

_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 3.3
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_RESERVED_PARAMETERS = {
    "grant_type",
    "scope",
    "audience",
    "resource",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
}


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
