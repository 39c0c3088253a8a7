"""URLs that a secret or a token is sent to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from .errors import ConfigurationError

__all__ = ["check_url", "host_of", "http_parts", "is_loopback", "same_issuer", "with_ports", "without_query"]

_PRINTABLE = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")


def check_url(url: str, name: str, plain_http: Iterable[str] = ()) -> str:
    """The URL, if a secret may be sent there: https, http on loopback, or a host that `plain_http` names exactly."""
    parts = http_parts(url)
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
    parts = http_parts(url)
    return parts[1] if parts else ""


def http_parts(url: str) -> tuple[str, str, int, str] | None:
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
    usual = 443 if parts.scheme == "https" else 80
    return parts.scheme, host, usual if port is None else port, url.split("://", 1)[1]


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
