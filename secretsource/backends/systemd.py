"""Credentials that systemd gives to a unit, below $CREDENTIALS_DIRECTORY (LoadCredential=, SetCredential= and kin)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..credentials import Document
from ..errors import ConfigurationError, SecretNotFound
from ..reference import SecretReference
from .access import Access, shown
from .formats import Origin, format_of, parse
from .walk import Contents, Walk, version_of, walked

__all__ = ["SystemdBackend"]

_DIRECTORY = "CREDENTIALS_DIRECTORY"


class SystemdBackend:
    """Reads a unit's credentials at level `mounted`; the directory is the one that `environ` names at each read."""

    options = frozenset({"format"})
    ttl: float | None = None  # systemd fixes them when the unit starts

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = environ

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        """Raises SecretNotFound, which tells a missing variable, directory and file apart."""
        if len(reference.segments) > 1:
            raise ConfigurationError(
                f"{reference} has several parts, and a unit's credentials have no directories",
                hint="Write the credential's name alone, as in systemd:pos.toml",
            )
        name = reference.path
        format = format_of(name, reference)
        origin = Origin(reference)
        directory = self._directory(origin)
        contents = walked(
            Access.of("mounted"),
            origin,
            lambda walk: _read(walk, directory, name),
            missing=f"Is it the directory of a unit that runs no longer? ${_DIRECTORY} names {shown(directory)}",
        )
        fields = parse(contents.text, format, origin)
        return Document(fields, version=version_of(contents.text), created=contents.modified)

    def _directory(self, origin: Origin) -> str:
        directory = (os.environ if self._environ is None else self._environ).get(_DIRECTORY)
        if not directory:
            raise origin.error(
                SecretNotFound,
                f"was not found: ${_DIRECTORY} is not set",
                "systemd sets it for a unit with LoadCredential= or SetCredential=; "
                "outside of one, use a file: or env: reference",
            )
        if not os.path.isabs(directory):
            raise ConfigurationError(
                f"${_DIRECTORY} is not an absolute path (for {origin})", hint="systemd sets it; do not set it by hand"
            )
        return directory


def _read(walk: Walk, directory: str, name: str) -> Contents:
    folder = walk.directory(*walk.begin(directory))
    names = walk.names(folder)
    if name not in names:
        raise walk.origin.error(
            SecretNotFound,
            f"was not found: the unit has no credential {name!r}",
            f"It has {', '.join(map(ascii, names))}" if names else "It has none: add LoadCredential= to the unit",
        )
    return walk.contents(walk.file(folder, [name]))
