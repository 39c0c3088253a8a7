"""secretsource put: write a client ID and secret where a reference points, and check it."""

from __future__ import annotations

import argparse
import sys
from getpass import getpass
from typing import Any

from ..backends import Writable, backend_for
from ..errors import ConfigurationError
from ..reference import Fields, SecretReference
from ..secret import Secret
from . import check
from .options import add_credentials, add_issuer, add_request

__all__ = ["add_to"]

_LONGEST = 64 * 1024


def add_to(command: argparse.ArgumentParser) -> None:
    add_credentials(command)
    add_issuer(command)
    add_request(command)
    command.description = (
        f"{command.description} The secret is asked for without echo, or read from standard input. "
        "Other fields stay; the secret that was there is kept as the previous one. Then it is checked."
    )
    command.add_argument("--pending", action="store_true", help="write it as the pending secret, beside the one in use")
    command.add_argument("--environment", metavar="NAME", help="bind the document to this environment")
    command.add_argument("--no-token", action="store_true", help="check without a token request")
    command.set_defaults(run=_run, json=False)


def _run(options: argparse.Namespace) -> int:
    reference = SecretReference.parse(options.credentials)
    backend = backend_for(reference)
    if not isinstance(backend, Writable):
        raise ConfigurationError(
            f"the store {reference.store!r} is not written by secretsource",
            hint="Set the variables where the program is started"
            if reference.store == "env"
            else "Write it with the store's own tool, then run secretsource check",
        )
    stored = backend.read_whole(reference, timeout=options.timeout)
    fields = dict(stored.fields)
    secret = _asked_for()
    _set(fields, reference, options, secret)
    version = backend.write_whole(reference, fields, version=stored.version, timeout=options.timeout)
    print(f"written: {reference}, version {version}", file=sys.stderr)
    if options.issuer is None and options.token_url is None:
        options.no_token = True
    return check.run(options)


def _set(fields: dict[str, Any], reference: SecretReference, options: argparse.Namespace, secret: Secret) -> None:
    names = reference.fields or Fields("client_id", "client_secret")
    home = fields
    if names.secret.startswith("/"):
        raise ConfigurationError(
            f"{reference} names its fields by JSON pointers, which put does not write",
            hint="Name the fields plainly, or write the document in an editor and run secretsource check",
        )
    _set_client_id(home, names.id, options.client_id)
    now = home.get(names.secret)
    if options.pending:
        if not isinstance(now, Secret):
            raise ConfigurationError(
                f"there is no {names.secret!r} at {reference} yet, beside which one could be pending",
                hint="Leave --pending out",
            )
        home[f"{names.secret}_pending"] = secret
    else:
        if isinstance(now, Secret) and now != secret:
            home[f"{names.secret}_previous"] = now
        home.pop(f"{names.secret}_pending", None)
        home[names.secret] = secret
    for name in ("issuer", "token_url", "environment"):
        value = getattr(options, name)
        if value is not None and not (name == "token_url" and options.issuer is not None):
            home[name] = Secret(value)


def _set_client_id(home: dict[str, Any], field: str | None, client_id: str | None) -> None:
    if field is None:
        return
    there = home.get(field)
    if isinstance(there, Secret):
        if client_id is not None and there != Secret(client_id):
            raise ConfigurationError(
                f"the document is for the client {there.reveal()!r}, and --client-id is {client_id!r}",
                hint="Name another document, or leave --client-id out",
            )
    elif client_id is None:
        raise ConfigurationError(f"the document has no {field!r} yet", hint="Give --client-id")
    else:
        home[field] = Secret(client_id)


def _asked_for() -> Secret:
    """The secret, typed without echo at a terminal, else all of standard input less one line end."""
    if sys.stdin is None:
        raise ConfigurationError("there is no standard input to read the secret from")
    text = getpass("Client secret: ", stream=sys.stderr) if sys.stdin.isatty() else sys.stdin.read(_LONGEST + 1)
    return _checked(Secret(text))


def _checked(secret: Secret) -> Secret:
    text = secret.reveal()
    text = text.removesuffix("\n").removesuffix("\r")
    fault = (
        "is empty"
        if not text
        else "is longer than 64 KiB"
        if len(text) > _LONGEST
        else None
        if text.isprintable()
        else "has a character in it that cannot be printed"
    )
    if fault is None:
        return Secret(text)
    del text, secret
    raise ConfigurationError(f"what was given as the secret {fault}", hint="Give it as the issuer shows it")
