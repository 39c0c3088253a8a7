"""The options that name a client of a configuration, credentials and an issuer, and what they make."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..config import Configuration, Settings, asked_environment, loaded, located
from ..endpoint import AUTH_METHODS
from ..errors import ConfigurationError
from ..identity import Identity

__all__ = [
    "add_client",
    "add_credentials",
    "add_issuer",
    "add_request",
    "configuration_of",
    "request_of",
    "settings_of",
]

_OF_CONFIGURATION = "of secretsource.toml"


def add_client(command: argparse.ArgumentParser, *, several: bool = False) -> None:
    if several:
        command.add_argument("clients", nargs="*", default=[], metavar="CLIENT", help=f"clients {_OF_CONFIGURATION}")
    else:
        command.add_argument("client", nargs="?", metavar="CLIENT", help=f"a client {_OF_CONFIGURATION}")
    command.add_argument("--env", metavar="ENVIRONMENT", help=f"an environment {_OF_CONFIGURATION}")
    command.add_argument("--config", metavar="FILE", help="another file than ./secretsource.toml")


def add_credentials(command: argparse.ArgumentParser, *, several: bool = False) -> None:
    add_client(command, several=several)
    command.add_argument("--credentials", metavar="REFERENCE", help="where they are kept, such as env://POS")
    command.add_argument("--client-id", metavar="ID", help="where the reference gives only the secret")


def add_issuer(command: argparse.ArgumentParser) -> None:
    issuer = command.add_argument_group("issuer")
    issuer.add_argument("--issuer", metavar="URL", help="for discovery")
    issuer.add_argument("--token-url", metavar="URL", help="the token endpoint, without discovery")
    issuer.add_argument("--auth-method", choices=AUTH_METHODS, help="default: what the issuer's metadata offers")
    issuer.add_argument("--basic-encoding", choices=("rfc6749", "raw", "raw-latin1"), help="default: rfc6749")
    issuer.add_argument("--endpoint-host", action="append", metavar="HOST", help="another host it may use")
    issuer.add_argument("--ca-file", metavar="FILE", help="certificates of authorities, instead of the system's")
    issuer.add_argument("--proxy", metavar="URL", help="a proxy's URL, or 'env'")
    issuer.add_argument("--plain-http", action="append", metavar="HOST:PORT", help="send there without encryption")
    issuer.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="for everything (default 10)")


def add_request(command: argparse.ArgumentParser) -> None:
    request = command.add_argument_group("request")
    scope = _sendable("scope", "a scope is printable ASCII without space, quotation mark and backslash")
    audience = _sendable("audience", "an audience is printable ASCII without space")
    resource = _sendable("resource", "a resource is an absolute URI without a fragment")
    request.add_argument("--scope", type=scope, action="append", metavar="SCOPE", help="may be repeated")
    request.add_argument("--audience", type=audience)
    request.add_argument("--resource", type=resource, action="append", metavar="URI", help="may be repeated")
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


def settings_of(options: argparse.Namespace) -> Settings:
    """What holds: the client's configuration, if one is named, and over it the options that were given."""
    given = _given(options)
    if options.client is None and ("credentials",) in given:
        if options.config is not None:
            raise ConfigurationError("--config goes with a CLIENT", hint="Name one, or leave --config out")
        return Settings.bare(options.env or "").over(given)
    if options.client is None:
        raise _no_client(options)
    settings = configuration_of(options).settings(options.client, asked_environment(options.env))
    if settings.production and ("plain_http",) in given:
        raise ConfigurationError(
            f"--plain-http is refused in production ({settings})",
            hint='Write plain_http = [{ host = "HOST:PORT", reason = "…" }] into the file, if it has to be',
        )
    return settings.over(given)


def configuration_of(options: argparse.Namespace) -> Configuration:
    """The file that --config names, or the one found: at a terminal also in a folder above this one."""
    if options.config is not None and not os.path.isfile(options.config):
        raise ConfigurationError(f"--config names no file ({len(options.config)} characters, not repeated here)")
    return loaded(located(options.config, upwards=sys.stderr.isatty()))


def request_of(settings: Settings) -> dict[str, Any]:
    """What is asked for."""
    arguments = settings.arguments()
    return {name: arguments[name] for name in ("scope", "audience", "resource", "extra") if name in arguments}


def _given(options: argparse.Namespace) -> dict[tuple[str, ...], Any]:
    """The settings that options give, by the names that they have in a configuration."""
    typed = vars(options)
    names = {
        **{name: (name,) for name in ("credentials", "client_id", "issuer", "token_url", "auth_method", "ca_file")},
        **{name: (name,) for name in ("proxy", "plain_http", "timeout", "scope", "audience", "resource")},
        "basic_encoding": ("profile", "basic_encoding"),
        "endpoint_host": ("profile", "endpoint_hosts"),
    }
    given = {keys: typed[name] for name, keys in names.items() if typed.get(name) is not None}
    if ("scope",) in given:
        given["scope",] = " ".join(given["scope",])
    for pair in typed.get("extra", []):
        name, _, value = pair.partition("=")
        if not name or not value or ("extra", name) in given or not pair.isprintable():
            raise ConfigurationError("an --extra is not written NAME=VALUE, or a name is given twice")
        given["extra", name] = value
    return given


def _no_client(options: argparse.Namespace) -> ConfigurationError:
    """The error for a command line that names nothing."""
    file = options.config
    if file is None:
        with suppress(ConfigurationError):
            file = located(upwards=sys.stderr.isatty())
    if file is None:
        return ConfigurationError(
            f"neither a CLIENT {_OF_CONFIGURATION} nor --credentials is given",
            hint="Give --credentials where they are kept, such as env://POS",
        )
    configuration = configuration_of(options)
    return ConfigurationError(
        f"no CLIENT of {configuration.file} is given",
        hint=f"It has: {', '.join(configuration.clients) or 'none'}; or give --credentials",
    )
