"""A secret that is changed inside one document: pending, previous and the state are flat names beside it.

The names follow the secret's own: `client_secret_pending`, `client_secret_previous`, `client_secret_rotation`. Each
step is one write of the whole against the version that was read, so any `Writable` store can do it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..credentials import Document, interpret
from ..errors import ConfigurationError, MalformedSecret
from ..reference import Fields, SecretReference
from ..secret import Secret
from ..state import LONGEST_STATE, RotationState
from . import Backend, Held, Rotatable, Stored, Writable

__all__ = ["DocumentLayout", "rotatable"]

_DEFAULT_FIELDS = Fields("client_id", "client_secret")
_STATE = "rotation"

_Change = dict[str, "Secret | None"]


class DocumentLayout:
    """What makes a `Writable` backend `Rotatable`. A base class, for a backend that may add to what it does."""

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        raise NotImplementedError

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        raise NotImplementedError

    def preflight(self, reference: SecretReference, *, timeout: float) -> Sequence[str]:
        return ()

    def read_held(self, reference: SecretReference, *, client_id: str | None, timeout: float) -> Held:
        """What is there now. Raises ConfigurationError where there is no document with the secret in a field."""
        return self._held(reference, self.read_whole(reference, timeout=timeout), client_id)

    def claim(
        self,
        reference: SecretReference,
        held: Held,
        pending: Secret,
        state: RotationState,
        *,
        beside: Mapping[str, Secret],
        timeout: float,
    ) -> None:
        self._write(reference, held, {**beside, "_pending": pending}, state, timeout)

    def note(self, reference: SecretReference, held: Held, state: RotationState, *, timeout: float) -> None:
        self._write(reference, held, {}, state, timeout)

    def promote(
        self, reference: SecretReference, held: Held, state: RotationState, *, keep_previous: bool, timeout: float
    ) -> None:
        previous = held.current if keep_previous else None
        self._write(reference, held, {"": held.pending, "_pending": None, "_previous": previous}, state, timeout)

    def abandon(self, reference: SecretReference, held: Held, state: RotationState, *, timeout: float) -> None:
        self._write(reference, held, {"_pending": None}, state, timeout)

    def drop_previous(
        self, reference: SecretReference, held: Held, state: RotationState, *, timeout: float
    ) -> str | None:
        self._write(reference, held, {"_previous": None}, state, timeout)
        return None

    def _held(self, reference: SecretReference, stored: Stored, client_id: str | None) -> Held:
        if stored.version is None:
            raise ConfigurationError(
                f"there is nothing at {reference} yet, so there is no secret to change",
                hint="Write the first one with secretsource put",
            )
        meaning = interpret(Document(stored.fields, version=stored.version), reference, client_id)
        way, name = _way(reference)
        home = _mapping(stored.fields, way)
        state = home.get(f"{name}_{_STATE}")
        known = RotationState.read(state.reveal()) if isinstance(state, Secret) else RotationState()
        if known is None:
            raise MalformedSecret(
                f"the field {name}_{_STATE} at {reference} is no state of a rotation that this version reads",
                reference=str(reference),
                store=reference.store,
                hint="Was it written by a newer secretsource? Use that one; or take the field out in an editor",
            )
        kinds = {f"{name}{kind}" for kind in ("", "_pending", "_previous", f"_{_STATE}")}
        return Held(
            meaning.credentials.client_id,
            meaning.credentials.client_secret,
            _of(home, f"{name}_pending"),
            _of(home, f"{name}_previous"),
            known,
            stored.version,
            meaning.binding,
            {key: value for key, value in home.items() if isinstance(value, Secret) and key not in kinds},
            stored.created,
            stored.expires,
        )

    def _write(
        self,
        reference: SecretReference,
        held: Held,
        changes: Mapping[str, Secret | None],
        state: RotationState,
        timeout: float,
    ) -> None:
        """Write the document that was read, with these changes; a name that begins with "_" follows the secret's."""
        stored = self.read_whole(reference, timeout=timeout)
        way, name = _way(reference)
        text = state.text()
        assert len(text) <= LONGEST_STATE, "all texts in a state are bounded"
        home: dict[str, Any] = dict(_mapping(stored.fields, way))
        for key, value in {**changes, f"_{_STATE}": Secret(text)}.items():
            field = f"{name}{key}" if not key or key.startswith("_") else key
            if value is None:
                home.pop(field, None)
            else:
                home[field] = value
        # Against what was decided on, not against what was just read for the other fields.
        self.write_whole(reference, _put_in(stored.fields, way, home), version=held.version, timeout=timeout)


class _Written(DocumentLayout):
    """The layout on a backend that has not heard of it."""

    def __init__(self, backend: Writable) -> None:
        self._backend = backend
        self.options, self.ttl = backend.options, backend.ttl

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        return self._backend.read(reference, fresh=fresh, timeout=timeout)

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        return self._backend.read_whole(reference, timeout=timeout)

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        return self._backend.write_whole(reference, fields, version=version, timeout=timeout)


_RECIPES = {
    "env": "Variables cannot change while a program runs. Start it with NAME_CLIENT_SECRET_PENDING beside "
    "NAME_CLIENT_SECRET, save the new secret at the issuer, and start it again with the new one alone; or name files "
    "by NAME_FILE and rotate what they are written from",
    "systemd": "Change it where the unit takes it from, restart the unit, and save the new secret at the issuer then",
}


def rotatable(backend: Backend, reference: SecretReference) -> Rotatable:
    """The backend as one in which a secret can be changed. ConfigurationError, with the recipe, where it cannot."""
    if reference.pinned:
        raise ConfigurationError(
            f"{reference} names one version, which does not change, and a program that reads it never sees another",
            hint="Leave version= and stage= out, here and in the programs",
        )
    if isinstance(backend, Rotatable):
        return backend
    if isinstance(backend, Writable):
        return _Written(backend)
    raise ConfigurationError(
        f"the store {reference.store!r} is not written by secretsource, so a secret in it cannot be rotated",
        hint=_RECIPES.get(reference.store, "Rotate it with the store's own tool, or keep it in vault, aws or a file"),
    )


def _way(reference: SecretReference) -> tuple[tuple[str, ...], str]:
    """The names of the mappings that lead to the secret, and its own."""
    field = (reference.fields or _DEFAULT_FIELDS).secret
    if not field.startswith("/"):
        return (), field
    *way, name = (part.replace("~1", "/").replace("~0", "~") for part in field[1:].split("/"))
    return tuple(way), name


def _mapping(tree: Mapping[str, Any], way: tuple[str, ...]) -> Mapping[str, Any]:
    for name in way:
        inner = tree.get(name)
        tree = inner if isinstance(inner, Mapping) else {}
    return tree


def _put_in(tree: Mapping[str, Any], way: tuple[str, ...], home: dict[str, Any]) -> dict[str, Any]:
    if not way:
        return home
    return {**tree, way[0]: _put_in(tree[way[0]], way[1:], home)}


def _of(home: Mapping[str, Any], name: str) -> Secret | None:
    value = home.get(name)
    return value if isinstance(value, Secret) and value != Secret("") else None
