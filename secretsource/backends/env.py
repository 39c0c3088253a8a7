"""Credentials in environment variables, or in files that variables name.

    env://POS                       POS_CLIENT_ID and POS_CLIENT_SECRET
    env://POS#id=ID,secret=KEY      POS_ID and POS_KEY
    env:#id=APP_ID,secret=APP_KEY   APP_ID and APP_KEY
    env:                            CLIENT_ID and CLIENT_SECRET

Each X may be given as X_FILE instead, the path of a file that holds the text (level `mounted`), never as both. The
secret's X_PENDING and X_PREVIOUS are further candidates; where they are missing, empty or not readable there is none.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..credentials import Document
from ..errors import BackendError, ConfigurationError, MalformedSecret, SecretNotFound
from ..reference import SecretReference
from ..secret import Secret
from .formats import Origin, parse
from .walk import read_text

__all__ = ["EnvBackend"]


class _Variable(NamedTuple):
    """A variable, and the field of the document that its value becomes."""

    name: str
    field: str


class EnvBackend:
    """Reads variables of `environ`; of the process, as they are at each read, if that is None."""

    options: frozenset[str] = frozenset()
    ttl: float | None = None

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = environ

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        """Raises SecretNotFound with the names that were looked for, ConfigurationError where two forms are set.

        A missing client ID is no error here: it may be given beside the reference.
        """
        client, secret = _variables(reference)
        required = self._value(secret, reference)
        if required is None:
            raise self._not_found(secret.name, reference)
        values = {secret.field: required}
        if client is not None:
            values |= self._present(client, self._value(client, reference))
        for kind in ("pending", "previous"):
            candidate = _Variable(f"{secret.name}_{kind.upper()}", f"{secret.field}_{kind}")
            values |= self._present(candidate, self._candidate(candidate, reference))
        names = [secret.name, *([client.name] if client else [])]
        names += [f"{secret.name}_PENDING", f"{secret.name}_PREVIOUS"]
        # Variables stay as they are while the program runs; a file that one names does not.
        from_file = any(self._is_set(f"{name}_FILE") for name in names)
        fields: dict[str, Any] = dict(values)
        return Document(fields, valid_for=0.0 if from_file else None)

    def _present(self, variable: _Variable, value: Secret | None) -> dict[str, Secret]:
        return {} if value is None else {variable.field: value}

    def _value(self, variable: _Variable, reference: SecretReference) -> Secret | None:
        """What the variable, or the file that its _FILE form names, holds; None where neither is set."""
        name, file = variable.name, f"{variable.name}_FILE"
        if self._is_set(name) and self._is_set(file):
            raise ConfigurationError(f"both {name} and {file} are set (for {reference})", hint="Unset one of them")
        for each in (name, file):
            if self._is_set(each) and not self._get(each).reveal():
                raise Origin(reference).error(
                    MalformedSecret, f"cannot be used: the variable {each} is empty", "Give it a value, or unset it"
                )
        if self._is_set(file):
            return self._from_file(file, reference)
        return self._get(name) if self._is_set(name) else None

    def _candidate(self, variable: _Variable, reference: SecretReference) -> Secret | None:
        try:
            return self._value(variable, reference)
        except BackendError:
            return None
        except ConfigurationError:
            if self._is_set(variable.name) and self._is_set(f"{variable.name}_FILE"):
                raise
            return None  # its file is not named by an absolute path

    def _from_file(self, name: str, reference: SecretReference) -> Secret:
        origin = Origin(reference, f"the file that {name} names (for {reference})")
        path = self._get(name)
        if not path.reveal().startswith("/"):
            raise ConfigurationError(
                f"{name} does not name a file by its absolute path (for {reference}); "
                f"its value is not repeated here, in case it is the secret",
                hint=f"Give {name} a path that begins with '/', or put the secret into {name.removesuffix('_FILE')}",
            )
        text = read_text(path.reveal(), level="mounted", reference=reference, called=str(origin))
        value = parse(text, "text", origin)
        assert isinstance(value, Secret)
        return value

    def _is_set(self, name: str) -> bool:
        return name in (os.environ if self._environ is None else self._environ)

    def _get(self, name: str) -> Secret:
        """The one frame that holds a value in clear."""
        return Secret((os.environ if self._environ is None else self._environ)[name])

    def _not_found(self, name: str, reference: SecretReference) -> SecretNotFound:
        names = sorted(filter(str.isprintable, os.environ if self._environ is None else self._environ))
        folded = {each.upper(): each for each in names}
        near = [folded[each] for each in difflib.get_close_matches(name.upper(), folded, n=4, cutoff=0.75)]
        return Origin(reference).error(
            SecretNotFound,
            f"was not found: neither {name} nor {name}_FILE is set",
            f"There is {', '.join(near)}" if near else f"Set {name}, or {name}_FILE to the path of a file",
        )


def _variables(reference: SecretReference) -> tuple[_Variable | None, _Variable]:
    if len(reference.segments) > 1:
        raise ConfigurationError(
            f"{reference} has several parts", hint="Write the prefix of the variables alone, as in env://POS"
        )
    prefix = "".join(f"{segment}_" for segment in reference.segments)
    fields = reference.fields
    if fields is None:
        return _Variable(f"{prefix}CLIENT_ID", "client_id"), _Variable(f"{prefix}CLIENT_SECRET", "client_secret")
    for field in (fields.id, fields.secret):
        if field is not None and ("/" in field or "=" in field):
            raise ConfigurationError(
                f"{reference} names a field that no variable can be called",
                hint="Write variables as in env:#id=APP_ID,secret=APP_KEY",
            )
    secret = _Variable(f"{prefix}{fields.secret}", fields.secret)
    if fields.id is not None:
        return _Variable(f"{prefix}{fields.id}", fields.id), secret
    # Without a prefix, CLIENT_ID may be anybody's.
    return (_Variable(f"{prefix}CLIENT_ID", "client_id") if prefix else None), secret
