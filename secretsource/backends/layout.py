"""A secret that is changed inside one document: pending, previous and the state are flat names beside it.

The names follow the secret's own: `client_secret_pending`, `client_secret_previous`, `client_secret_rotation`. Each
step is one write of the whole against the version that was read, so any `Writable` store can do it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..clock import Deadline
from ..credentials import Document, interpret
from ..errors import BackendUnavailable, ConfigurationError, MalformedSecret, SecretNotFound
from ..reference import SecretReference, way_of
from ..secret import Secret
from ..state import LONGEST_STATE, RotationState
from . import Backend, Held, Rotatable, Stored, Writable

__all__ = ["DocumentLayout", "names_of", "rotatable"]

_STATE = "rotation"


class DocumentLayout:
    """What makes a `Writable` backend `Rotatable`. A base class, for a backend that may add to what it does.

    `reaches` says in a sentence which programs see the pending secret, `copied` whether the store is read through
    something that keeps a copy, so that nobody knows when the last one is renewed.
    """

    reaches: str = "Every program that reads this document by secretsource; what is copied from it has the current one"

    @property
    def copied(self) -> bool:
        return False

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
        if held.pending is not None:
            raise _conflict(reference, "has a pending secret already, which is never overwritten")
        self._write(reference, held, {"_pending": pending}, state, timeout, beside)

    def note(
        self,
        reference: SecretReference,
        held: Held,
        state: RotationState,
        *,
        beside: Mapping[str, Secret] = {},
        timeout: float,
    ) -> None:
        self._write(reference, held, {}, state, timeout, beside)

    def promote(
        self, reference: SecretReference, held: Held, state: RotationState, *, keep_previous: bool, timeout: float
    ) -> None:
        if held.pending is None:
            raise _conflict(reference, "has no pending secret that could be made the current one")
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
        if stored.version is None or not stored.fields:
            raise SecretNotFound(
                f"there is nothing at {reference} yet, so there is no secret to change",
                reference=str(reference),
                store=reference.store,
                hint="Write the first one with secretsource put",
            )
        meaning = interpret(Document(stored.fields, version=stored.version), reference, client_id)
        way, name = _way(reference)
        home = _mapping(stored.fields, way)
        if name not in home:
            raise ConfigurationError(
                f"the secret at {reference} stands in a list, where there is no room for a pending one beside it",
                hint="Keep it in an object of its own, with a name",
            )
        kept = home.get(f"{name}_{_STATE}")
        state = RotationState() if kept is None else _state_in(kept)
        if state is None:
            raise MalformedSecret(
                f"the field {name}_{_STATE} at {reference} is no state of a rotation that this version reads",
                reference=str(reference),
                store=reference.store,
                hint="Was it written by a newer secretsource? Use that one; or take the field out in an editor",
            )
        return Held(
            meaning.credentials.client_id,
            meaning.credentials.client_secret,
            _of(home, f"{name}_pending"),
            _of(home, f"{name}_previous"),
            state,
            stored.version,
            meaning.binding,
            {key: text for key in home if key not in _names(name) and (text := _of(home, key)) is not None},
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
        beside: Mapping[str, Secret] = {},
    ) -> str:
        """Write the document that was read, with these changes to the fields that follow the secret's name.

        The new version.
        """
        deadline = Deadline(timeout)
        text = state.text()
        if RotationState.read(text) != state:
            raise ConfigurationError(
                f"the state of the rotation at {reference} cannot be kept: a name in it is too long or not printable",
                hint=f"All together take at most {LONGEST_STATE} characters",
            )
        stored = self.read_whole(reference, timeout=deadline.left())
        # An older state of a replica must not be written over the one that was decided on, which the store would allow.
        if stored.version != held.version:
            raise _conflict(reference, "was changed by somebody else meanwhile")
        way, name = _way(reference)
        home = {**_mapping(stored.fields, way)}
        home |= {key: value for key, value in beside.items() if key not in _names(name)}
        for kind, value in {**changes, f"_{_STATE}": Secret(text)}.items():
            if value is None:
                home.pop(f"{name}{kind}", None)
            else:
                home[f"{name}{kind}"] = value
        fields = _put_in(stored.fields, way, home)
        return self.write_whole(reference, fields, version=held.version, timeout=deadline.left())


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


def _conflict(reference: SecretReference, what: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"{reference} {what}",
        reference=str(reference),
        store=reference.store,
        hint="Read it again, and decide again",
    )


def names_of(reference: SecretReference) -> tuple[str, str, str, str]:
    """The fields of the secret, the pending and the previous one, and the state, as the reference writes them."""
    return _names(reference.secret_field)


def _names(name: str) -> tuple[str, str, str, str]:
    """What a rotation writes for the secret of this name."""
    return (name, f"{name}_pending", f"{name}_previous", f"{name}_{_STATE}")


def _way(reference: SecretReference) -> tuple[tuple[str, ...], str]:
    """The names of the mappings that lead to the secret, and its own."""
    *way, name = way_of(reference.secret_field)
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
    """The text of this name, None where there is none. A plug-in's store may give it in clear."""
    value = home.get(name)
    text = Secret(value) if isinstance(value, str) else value
    return text if isinstance(text, Secret) and text != Secret("") else None


def _state_in(value: object) -> RotationState | None:
    text = value.reveal() if isinstance(value, Secret) else value
    return RotationState.read(text) if isinstance(text, str) else None
