"""The options that name credentials and an issuer, and what they make."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..endpoint import AUTH_METHODS, IssuerProfile
from ..errors import ConfigurationError
from ..identity import Identity

__all__ = ["add_credentials", "add_issuer", "add_request", "request_of", "target_arguments"]


def add_credentials(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--credentials", required=True, metavar="REFERENCE", help="where they are kept, such as env://POS"
    )
    command.add_argument("--client-id", metavar="ID", help="where the reference gives only the secret")


def add_issuer(command: argparse.ArgumentParser) -> None:
    issuer = command.add_argument_group("issuer")
    issuer.add_argument("--issuer", metavar="URL", help="for discovery")
    issuer.add_argument("--token-url", metavar="URL", help="the token endpoint, without discovery")
    issuer.add_argument("--auth-method", choices=AUTH_METHODS, help="default: what the issuer's metadata offers")
    issuer.add_argument("--basic-encoding", choices=("rfc6749", "raw", "raw-latin1"), default="rfc6749")
    issuer.add_argument("--endpoint-host", action="append", default=[], metavar="HOST", help="another host it may use")
    issuer.add_argument("--ca-file", metavar="FILE", help="certificates of authorities, instead of the system's")
    issuer.add_argument("--proxy", metavar="URL", help="a proxy's URL, or 'env'")
    issuer.add_argument(
        "--plain-http", action="append", default=[], metavar="HOST:PORT", help="send there without encryption"
    )
    issuer.add_argument("--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="for everything (default 10)")


def add_request(command: argparse.ArgumentParser) -> None:
    request = command.add_argument_group("request")
    scope = _sendable("scope", "a scope is printable ASCII without space, quotation mark and backslash")
    audience = _sendable("audience", "an audience is printable ASCII without space")
    resource = _sendable("resource", "a resource is an absolute URI without a fragment")
    request.add_argument("--scope", type=scope, action="append", default=[], metavar="SCOPE", help="may be repeated")
    request.add_argument("--audience", type=audience)
    request.add_argument(
        "--resource", type=resource, action="append", default=[], metavar="URI", help="may be repeated"
    )
    request.add_argument("--extra", action="append", default=[], metavar="NAME=VALUE", help="may be repeated")


def _seconds(text: str) -> float:
    with suppress(ValueError):
        seconds = float(text)
        if 0 < seconds < math.inf:
            return seconds
    raise argparse.ArgumentTypeError("it is a number of seconds above 0")


def _sendable(part: str, shape: str) -> Callable[[str], str]:
    """The type of an option that becomes this part of a request; its refusal does not repeat what was typed."""

    def checked(text: str) -> str:
        request: dict[str, Any] = {part: text}
        with suppress(ConfigurationError):
            Identity("", "", "", "", "").asking(**request)
            return text
        raise argparse.ArgumentTypeError(shape)

    return checked


def target_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What a Target is made from."""
    return {
        "issuer": options.issuer,
        "token_url": options.token_url,
        "auth_method": options.auth_method,
        "profile": IssuerProfile(basic_encoding=options.basic_encoding, endpoint_hosts=tuple(options.endpoint_host)),
        "plain_http": tuple(options.plain_http),
    }


def request_of(options: argparse.Namespace) -> dict[str, Any]:
    """What is asked for."""
    extra: dict[str, str] = {}
    for pair in options.extra:
        name, _, value = pair.partition("=")
        if not name or not value or name in extra or not pair.isprintable():
            raise ConfigurationError("an --extra is not written NAME=VALUE, or a name is given twice")
        extra[name] = value
    return {
        "scope": " ".join(options.scope) or None,
        "audience": options.audience,
        "resource": options.resource or None,
        "extra": extra or None,
    }
