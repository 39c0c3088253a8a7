"""secretsource put: write a client ID and secret where a reference points, and check it."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from getpass import GetPassWarning, getpass
from typing import Any

from ..backends import Stored, Writable, backend_for
from ..backends.edits import WHOLE
from ..backends.file import FileBackend
from ..backends.formats import format_of
from ..clock import checked_seconds
from ..config import Settings
from ..errors import BackendUnavailable, ConfigurationError, DeadlineExceeded, SecretSourceError
from ..flight import in_time
from ..reference import DEFAULT_FIELDS, SecretReference
from ..secret import Secret
from ..urls import same_issuer
from . import check
from .options import add_credentials, add_issuer, add_request, settings_of

__all__ = ["add_to"]

_LONGEST = 16 * 1024  # characters: what is read is at most 64 KiB, with the pending and the previous one

_PERHAPS_WRITTEN = "The secret may be there now: look with secretsource check before you repeat it"

_RECIPES = {
    "env": "Set the variables where the program is started, or keep the secret in a file that NAME_FILE names",
    "systemd": "Change it where the unit takes it from (systemd-creds encrypt --name=NAME FILE TARGET for "
    "LoadCredentialEncrypted=NAME:TARGET), and restart the unit",
}


def add_to(command: argparse.ArgumentParser) -> None:
    add_credentials(command)
    add_issuer(command)
    add_request(command)
    command.description = (
        f"{command.description} The secret is asked for without echo, or read from standard input. "
        "Other fields stay; the secret that was there is kept as the previous one. Then it is checked."
    )
    command.add_argument("--pending", action="store_true", help="write it as the pending secret, beside the one in use")
    command.add_argument("--no-token", action="store_true", help="check without a token request")
    command.set_defaults(run=_run, json=False, all=False)


def _run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    reference = SecretReference.parse(settings.arguments()["credentials"])
    backend = backend_for(reference, settings.stores)
    if not isinstance(backend, Writable):
        raise ConfigurationError(
            f"the store {reference.store!r} is not written by secretsource",
            hint=_RECIPES.get(reference.store, "Write it with the store's own tool") + "; then run secretsource check",
        )
    has_issuer = settings.get("issuer") is not None or settings.get("token_url") is not None
    if has_issuer:
        check.target_of(settings)  # what is written binds every program that reads it
    timeout = checked_seconds("timeout", settings.get("timeout", 10.0))
    stored = in_time(lambda left: backend.read_whole(reference, timeout=left), timeout, "reading what is there")
    # What can be refused is refused before anybody types a secret.
    if _holds_one_text(backend, reference, stored, timeout):
        document, note = (
            _one_text(reference, settings, options),
            "; as one text, without a binding and the previous secret",
        )
    else:
        document, note = _document(stored.fields, reference, settings, pending=options.pending), ""
    fields = document(_asked_for())
    _write(lambda left: backend.write_whole(reference, fields, version=stored.version, timeout=left), timeout)
    print(f"written: {reference}{note}", file=sys.stderr)
    if not has_issuer:
        options.no_token = True
    return check.run(options)


def _write(call: Callable[[float], object], timeout: float) -> None:
    """Where it is not known whether it was written, say so: who repeats it blindly may mix secrets up."""
    failure: SecretSourceError
    try:
        in_time(call, timeout, "writing the secret")
        return
    except KeyboardInterrupt:
        print(f"secretsource: {_PERHAPS_WRITTEN}", file=sys.stderr)
        raise
    except (BackendUnavailable, DeadlineExceeded) as error:
        failure = error.again()
    if "somebody else" not in failure.message:
        failure.hint = f"{_PERHAPS_WRITTEN}. {failure.hint or ''}".rstrip()
    raise failure


def _holds_one_text(backend: Writable, reference: SecretReference, stored: Stored, timeout: float) -> bool:
    if isinstance(backend, FileBackend):
        return format_of(reference.segments[-1], reference) == "text"
    if set(stored.fields) != {WHOLE}:
        return False
    # A document with that one field is no text, which the whole does not tell.
    document = in_time(lambda left: backend.read(reference, fresh=True, timeout=left), timeout, "reading what is there")
    return document.text is not None


def _one_text(
    reference: SecretReference, settings: Settings, options: argparse.Namespace
) -> Callable[[Secret], dict[str, Any]]:
    # A configuration always names an environment; one that was typed, or demands a binding, is meant to be written.
    bound = settings.require_binding or (settings.file is None and settings.environment != "")
    if settings.get("client_id") is None or options.pending or bound:
        raise ConfigurationError(
            f"{reference} holds one text, the secret, and neither a client ID nor anything else",
            hint="Give --client-id, and no --pending or --env; or name a .json file, which holds all of it",
        )
    return lambda secret: {WHOLE: secret}


def _document(
    stored: Mapping[str, Any], reference: SecretReference, settings: Settings, *, pending: bool
) -> Callable[[Secret], dict[str, Any]]:
    """What makes the new fields of a document from the new secret. Raises ConfigurationError."""
    names = reference.fields or DEFAULT_FIELDS
    if any(name is not None and name.startswith("/") for name in (names.id, names.secret)):
        raise ConfigurationError(
            f"{reference} names its fields by JSON pointers, which put does not write",
            hint="Name the fields plainly, or write the document in an editor and run secretsource check",
        )
    now = stored.get(names.secret)
    if pending and not isinstance(now, Secret):
        raise ConfigurationError(
            f"there is no {names.secret!r} at {reference} yet, beside which one could be pending",
            hint="Leave --pending out",
        )
    client_id, binding = _client_id(stored, names.id, settings.get("client_id")), _binding(stored, reference, settings)
    next_one, previous = f"{names.secret}_pending", f"{names.secret}_previous"

    def fields(secret: Secret) -> dict[str, Any]:
        if pending:
            there = stored.get(next_one)
            if isinstance(there, Secret) and there != secret:
                raise ConfigurationError(
                    f"another secret is pending at {reference}, and the issuer may take it already",
                    hint=f"Promote it by secretsource put without --pending, or take {next_one!r} out in an editor",
                )
            return {**stored, **client_id, next_one: secret, **binding}
        new = {**stored, **client_id, names.secret: secret, **binding}
        if new.get(next_one) == secret:
            del new[next_one]
        if isinstance(now, Secret) and now != secret:
            new[previous] = now
        return new

    return fields


def _client_id(stored: Mapping[str, Any], field: str | None, client_id: str | None) -> dict[str, Secret]:
    there = None if field is None else stored.get(field)
    if isinstance(there, Secret):
        if client_id is not None and there != Secret(client_id):
            # Neither of the two: where ID and secret are mixed up, it is the secret.
            raise ConfigurationError(
                "the document is for another client than --client-id",
                hint="Name another document, or leave --client-id out",
            )
    elif field is not None:
        if client_id is None:
            raise ConfigurationError(f"the document has no {field!r} yet", hint="Give --client-id")
        return {field: Secret(client_id)}
    return {}


def _binding(stored: Mapping[str, Any], reference: SecretReference, settings: Settings) -> dict[str, Secret]:
    """The binding to write. One that is there is not changed: its secrets would go to where they do not belong."""
    name = "issuer" if settings.get("issuer") is not None else "token_url"
    wanted = {name: settings.get(name), "environment": settings.environment}
    new = {name: Secret(value) for name, value in wanted.items() if value}
    for name, value in new.items():
        there = stored.get(name)
        if isinstance(there, Secret) and not same_issuer(there.reveal(), value.reveal()):
            raise ConfigurationError(
                f"the document at {reference} is bound to another {name} than the one given",
                hint=f"Name another document, or correct the {name}; a binding is changed in an editor",
            )
    return new


def _asked_for() -> Secret:
    """The secret, typed without echo at a terminal, else all of standard input less one line end."""
    if sys.stdin is None:
        raise ConfigurationError("there is no standard input to read the secret from")
    text = _typed() if sys.stdin.isatty() else _piped()
    if text is None:
        raise ConfigurationError(
            "the secret cannot be read: this terminal would show it, or standard input is not text",
            hint="Give it as text on standard input",
        )
    return _checked(text)


def _typed() -> Secret | None:
    with warnings.catch_warnings(), suppress(GetPassWarning):
        warnings.simplefilter("error", GetPassWarning)  # else it would be typed for all to see
        try:
            return Secret(getpass("Client secret: ", stream=sys.stderr))
        except EOFError:
            return Secret("")
    return None


def _piped() -> Secret | None:
    with suppress(UnicodeDecodeError):
        return Secret(sys.stdin.read(_LONGEST + 3))
    return None


def _checked(secret: Secret) -> Secret:
    text = secret.reveal()
    text = text.removesuffix("\n").removesuffix("\r")
    fault = (
        "is empty"
        if not text
        else f"is longer than {_LONGEST // 1024} KiB"
        if len(text) > _LONGEST
        else None
        if text.isprintable()
        else "has a character in it that cannot be printed"
    )
    if fault is None:
        return Secret(text)
    del text, secret
    raise ConfigurationError(f"what was given as the secret {fault}", hint="Give it as the issuer shows it")
