"""Stores of credentials: what a backend is, and which one a reference means.

A backend is a class with `options`, `ttl` and `read`. Those of this package stand in a table of strings, a third
party's in the entry-point group `secretsource.backends` under the name of its scheme; both are imported when a
reference names them, and not before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from ..credentials import Binding, Document
from ..errors import ConfigurationError, SecretSourceError
from ..flight import PerProcess
from ..plugins import Catalogue, Known
from ..reference import SecretReference, unknown_store
from ..secret import Secret
from ..state import RotationState

__all__ = [
    "Backend",
    "Writable",
    "Stored",
    "Rotatable",
    "Held",
    "backend_for",
    "backends_called",
    "known_backends",
]

GROUP = "secretsource.backends"


@runtime_checkable
class Backend(Protocol):
    """A store that can be read.

    `options`: the names that a reference to it may carry. `ttl`: seconds for which a read holds; 0 where reading is
    so cheap that each token request reads anew, None where the store cannot change while the program runs. A store that
    may answer with what was there a moment ago, as replicas do, has `eventually_consistent = True` as well: a rejected
    secret is then read and tried again a few times.
    """

    @property
    def options(self) -> frozenset[str]: ...
    @property
    def ttl(self) -> float | None: ...

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        """The document that the reference names, read within `timeout` seconds.

        `fresh=True` passes every cache that the backend knows of. Called from any thread, also from several at once
        for different references. Raises a BackendError whose message holds nothing that was read, or
        ConfigurationError.
        """
        ...


class Stored(NamedTuple):
    """The whole of what is kept at one place, nested mappings of Secrets, with its version (None: nothing there).

    `created`, `expires`: when this version was written and when the store ends it, in seconds since 1970, if known.
    """

    fields: dict[str, Any]
    version: str | None
    created: float | None = None
    expires: float | None = None


@runtime_checkable
class Writable(Backend, Protocol):
    """A store that can also be written, always the whole against the version that was read."""

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        """Everything at this place. An empty one, with version None, where there is nothing yet."""
        ...

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        """Replace it all, if its version is still the one given, and return the new version.

        Raises BackendUnavailable where somebody else was faster: read again, and decide again.
        """
        ...


class Held(NamedTuple):
    """What a store holds of one client while its secret is changed.

    `version`: what the next write is made against. `beside`: the other texts of the same mapping. `created`: seconds
    since 1970 at which this state was written, `expires` at which the store itself ends it; None where not known.
    """

    client_id: str
    current: Secret
    pending: Secret | None
    previous: Secret | None
    state: RotationState
    version: str
    binding: Binding
    beside: Mapping[str, Secret] = {}
    created: float | None = None
    expires: float | None = None


@runtime_checkable
class Rotatable(Backend, Protocol):
    """A store in which a secret can be changed step by step, each against the state that was read.

    Each write raises BackendUnavailable where somebody else was faster, or where it is not known whether it was
    written: read again, and decide again. All raise BackendError and ConfigurationError, whose texts hold no secret.
    `state` is what is to be kept from then on.
    """

    def preflight(self, reference: SecretReference, *, timeout: float) -> Sequence[str]:
        """Look, without writing, whether all that follows can be written; what to be careful about.

        Raises AccessDenied or ConfigurationError, with the way out, where it cannot.
        """
        ...

    def read_held(self, reference: SecretReference, *, client_id: str | None, timeout: float) -> Held:
        """What is there now, past every cache."""
        ...

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
        """Put this beside the current secret as pending, where none is pending. `beside`: further texts to keep."""
        ...

    def note(
        self,
        reference: SecretReference,
        held: Held,
        state: RotationState,
        *,
        beside: Mapping[str, Secret] = {},
        timeout: float,
    ) -> None:
        """Keep another state beside the same secrets: a call is announced, or a goal changed. `beside`: as in claim."""
        ...

    def promote(
        self, reference: SecretReference, held: Held, state: RotationState, *, keep_previous: bool, timeout: float
    ) -> None:
        """Pending becomes current, and current previous, or nothing."""
        ...

    def abandon(self, reference: SecretReference, held: Held, state: RotationState, *, timeout: float) -> None:
        """Take the pending secret out."""
        ...

    def drop_previous(
        self, reference: SecretReference, held: Held, state: RotationState, *, timeout: float
    ) -> str | None:
        """Take the previous secret out, and destroy older versions that held it; what was left undone of the latter."""
        ...


_BUILT_IN = {
    "aws": "secretsource.backends.aws:AwsBackend",
    "bao": "secretsource.backends.vault:BaoBackend",
    "env": "secretsource.backends.env:EnvBackend",
    "file": "secretsource.backends.file:FileBackend",
    "systemd": "secretsource.backends.systemd:SystemdBackend",
    "vault": "secretsource.backends.vault:VaultBackend",
}

_CATALOGUE = Catalogue("store", GROUP, _BUILT_IN)

_bare: PerProcess[dict[str, Backend]] = PerProcess(dict)


def backend_for(reference: SecretReference, stores: Mapping[str, Backend] | None = None) -> Backend:
    """The backend that a reference means: a configured store, else a built-in one, else a plug-in's.

    There is one bare backend a name and process. Raises ConfigurationError.
    """
    name = reference.store
    configured = {} if stores is None else stores
    if not isinstance(configured, Mapping):
        raise ConfigurationError(f"stores= is a mapping of names to stores, not {type(configured).__name__}")
    backend = configured[name] if name in configured else _bare.get().get(name)
    if backend is None:
        backend = _bare.get().setdefault(name, _made(reference, configured))
    if not isinstance(backend, Backend):
        raise ConfigurationError(
            f"the store {name!r} is a {type(backend).__name__}, which is no Backend",
            hint="A backend has options, ttl and read(reference, *, fresh, timeout)",
        )
    reference.check_options(backend.options)
    return backend


def known_backends() -> list[Known]:
    """All backends of this installation, built-in ones first. Nothing is imported."""
    return _CATALOGUE.built_in() + _CATALOGUE.plugged_in()


def backends_called(name: str) -> list[Known]:
    """The built-in backend of this name alone, else what plug-ins claim it. Nothing is imported."""
    return _CATALOGUE.called(name)


def _made(reference: SecretReference, configured: Mapping[str, Backend]) -> Backend:
    """The bare backend of this reference's name."""
    name = reference.store
    if name in _CATALOGUE:
        return _CATALOGUE.ours(name)()  # type: ignore[no-any-return]
    made: Backend | None = _CATALOGUE.loaded(
        name,
        lambda kind: kind(),
        doing="imported and built",
        instead="give the store yourself by stores=",
        passing=(SecretSourceError,),
    )
    if made is None:
        raise unknown_store(name, len(str(reference)), configured)
    return made
