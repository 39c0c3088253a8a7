"""A rotation all of whose secrets are canaries, and whose parties break where a test says, with all that they know."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from secretsource import Secret, SecretReference
from secretsource.backends import Stored
from secretsource.clock import Deadline
from secretsource.credentials import Document
from secretsource.errors import AccessDenied, BackendUnavailable, ConfigurationError, IssuerUnavailable
from secretsource.rotation import (
    Adapter,
    Applied,
    Capabilities,
    Client,
    Minted,
    Policy,
    Preflight,
    Rotation,
)
from secretsource.state import RotationState
from secretsource.testing import FakeIssuer, TickingClock

from .canaries import SPECIAL, TOKEN, Shape
from .watch import Watch

__all__ = [
    "BREAKS",
    "CLIENT",
    "KINDS",
    "PRINTABLE",
    "Breaks",
    "Crash",
    "MarkedIssuer",
    "Scene",
    "marked_issuer",
    "scene",
]

CLIENT = "pos"
PRINTABLE: Shape = "{}\"+/ %-not-a-real-secret-\\&<'/+ {}"
"""What a secret may be that we choose."""
_PATIENCE = 20.0  # seconds that what hangs hangs at most

Breaks = Callable[[str, Callable[[], Any]], Any]
"""What is done in the place of a call, by who knows this text and could make the call."""


class Crash(BaseException):
    """The end of a process: with its text, which nobody prints in life."""


def _raise(kind: type[BaseException]) -> Breaks:
    def breaks(known: str, call: Callable[[], Any]) -> Any:
        raise kind(known)

    return breaks


def _answer(make: Callable[[str], Any]) -> Breaks:
    return lambda known, call: make(known)


def _chained(kind: type[Exception]) -> Breaks:
    """An error of ours, as people raise it: with another one behind it, whose text is that of a server."""

    def breaks(known: str, call: Callable[[], Any]) -> Any:
        try:
            raise ValueError(known)
        except ValueError as error:
            raise kind("it does not work today") from error

    return breaks


def _lost(kind: type[Exception]) -> Breaks:
    """It is done, and that is not heard."""

    def breaks(known: str, call: Callable[[], Any]) -> Any:
        call()
        raise kind("no answer came")

    return breaks


class Garbage:
    """What a plug-in may return by mistake: everything that it knows, in attributes that ours have as well."""

    def __init__(self, known: str) -> None:
        self.reason = self.hint = self.id = self.secret = self.beside = known

    def __repr__(self) -> str:
        return f"<Garbage {self.reason}>"


BREAKS: dict[str, Breaks] = {
    "unavailable": _chained(BackendUnavailable),
    "denied": _chained(AccessDenied),
    "the issuer is down": _chained(IssuerUnavailable),
    "misconfigured": _chained(ConfigurationError),
    "lost": _lost(BackendUnavailable),
    "RuntimeError": _raise(RuntimeError),
    "KeyError": _raise(KeyError),
    "SystemExit": _raise(SystemExit),
    "KeyboardInterrupt": _raise(KeyboardInterrupt),
    "crash": _raise(Crash),
    "a text": _answer(str),
    "a list": _answer(lambda known: [known]),
    "an object": _answer(Garbage),
    "nothing": _answer(lambda known: None),
}


class MarkedIssuer(FakeIssuer):
    """All of its tokens are one canary."""

    token = ""

    def _token(self, authenticated: Any, form: Any, fault: Any) -> dict[str, Any]:
        return {**super()._token(authenticated, form, fault), "access_token": self.token}


@contextmanager
def marked_issuer(watch: Watch, clock: TickingClock) -> Iterator[MarkedIssuer]:
    with MarkedIssuer(lifetime=600, clock=clock) as issuer:
        issuer.token = watch.canary("token of a probe", TOKEN)
        yield issuer


class _Party:
    """Breaks at its calls as `plan` says, by their names and, where that is said, numbers."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.made: dict[str, int] = {}

    def make(self, name: str, call: Callable[[], Any]) -> Any:
        number = self.made[name] = self.made.get(name, 0) + 1
        plan = self.scene.plan
        breaks = plan.get((name, number)) or plan.get((name, None))
        return call() if breaks is None else breaks(self.scene.known, call)


class Ring(_Party):
    """A store of a third party in memory."""

    options: frozenset[str] = frozenset()
    ttl = 0.0

    def __init__(self, scene: Scene, fields: Mapping[str, str], *, clear: bool = False) -> None:
        super().__init__(scene)
        self._fields: dict[str, Any] = {name: Secret(value) for name, value in fields.items()}
        self._number, self._clear = 1, clear

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        return Document(self.read_whole(reference, timeout=timeout).fields, version=str(self._number))

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        fields = self.fields if self._clear else dict(self._fields)
        stored: Stored = self.make("read", lambda: Stored(fields, str(self._number)))
        return stored

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        def write() -> str:
            if version != str(self._number):
                raise BackendUnavailable("somebody else was faster")
            self._fields = {name: one if isinstance(one, Secret) else Secret(one) for name, one in fields.items()}
            self._number += 1
            return str(self._number)

        written: str = self.make("write", write)
        return written

    @property
    def fields(self) -> dict[str, str]:
        return {name: value.reveal() for name, value in self._fields.items()}


class Administrator(_Party, Adapter):
    """An adapter of a third party, to the issuer of the scene."""

    def __init__(self, scene: Scene, **capabilities: Any) -> None:
        super().__init__(scene)
        said = {"chosen": True, "slots": 1, "propagation": 0.0, "landing": 1.0, **capabilities}
        self._capabilities = Capabilities(**said)
        self._overlap = 0.0 if self._capabilities.single_slot else 1e6
        self._numbers = 0

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        found: Preflight = self.make("check", Preflight)
        return found

    def prepare(self, client: Client) -> None:
        self.make("prepare", lambda: None)

    def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Any:
        return self.make("apply", lambda: self._set(secret))

    def mint(self, client: Client, label: str, deadline: Deadline) -> Any:
        def mint() -> Minted:
            made = Secret(self.scene.new_secret())
            beside = {"api_key": Secret(self.scene.secrets["API key"])}
            return Minted(made, self._set(made).id, beside=beside)

        return self.make("mint", mint)

    def reap(self, client: Client, label: str, deadline: Deadline) -> Any:
        return self.make("reap", Applied)

    def retire(self, client: Client, keep: str | None, gone: str | None, deadline: Deadline) -> Any:
        return self.make("retire", Applied)

    def restore(self, client: Client, deadline: Deadline) -> Any:
        return self.make("restore", Applied)

    def remove(self, client: Client, keep: str | None, gone: str | None, deadline: Deadline) -> Any:
        return self.make("remove", Applied)

    def close(self) -> None:
        self.make("close", lambda: None)

    def _set(self, secret: Secret) -> Applied:
        self._numbers += 1
        self.scene.issuer.set_secret(CLIENT, secret.reveal(), overlap=self._overlap)
        return Applied(id=f"id-{self._numbers}")


KINDS: dict[str, dict[str, Any]] = {
    "one slot": {},
    "two slots": {"slots": 2, "retires": True, "restores": True},
    "generated": {"chosen": False, "slots": 1},
    "generated, two slots": {"chosen": False, "slots": 2, "retires": True},
}


class Scene:
    """A client whose secret is changed. `plan`: what breaks, by the name of a call and its number (None: each one).

    Calls are read and write of the store, the adapter's by their names, and `generate`. `secrets`: all there are.
    """

    def __init__(
        self,
        watch: Watch,
        issuer: MarkedIssuer,
        clock: TickingClock,
        kind: str,
        secrets: dict[str, str],
        *,
        clear: bool = False,
    ) -> None:
        self.watch, self.issuer, self.clock, self.secrets = watch, issuer, clock, secrets
        self.plan: dict[tuple[str, int | None], Breaks] = {}
        issuer.add_client(CLIENT, secrets["current secret"])
        fields = {"client_id": CLIENT, "client_secret": secrets["current secret"]}
        self.store = Ring(self, {**fields, "registration_access_token": secrets["registration token"]}, clear=clear)
        self.administrator = Administrator(self, **KINDS[kind])
        self._generator = _Party(self)
        self._made = 0
        self._hung = threading.Event()

    @property
    def known(self) -> str:
        return " ".join([*self.secrets.values(), self.issuer.token])

    def new_secret(self) -> str:
        """The first time another one than the second time, and the same ones in each scene of a test."""
        self._made += 1
        name = f"new secret {self._made}"
        if name not in self.secrets:
            self.secrets[name] = self.watch.canary(name, PRINTABLE)
        return self.secrets[name]

    def rotation(
        self, *, gates: tuple[object, ...] = (), observers: Any = None, timeout: float = 5.0, **policy: Any
    ) -> Rotation:
        """A new process's, which is looked at."""
        settings = {
            "wait": 20.0, "soak": 30.0, "command_timeout": 5.0, "proofs": 1, "force": True, "accept_gap": True,
            "max_wait": 600.0, **policy,
        }  # fmt: skip
        source = self.watch.source(
            "ring:pos", stores={"ring": self.store}, issuer=self.issuer.url, clock=self.clock, timeout=timeout
        )
        return self.watch.look(
            Rotation(
                source,
                self.administrator,
                policy=Policy(**settings),
                gates=gates,
                observers=observers or self.watch.events,
                generator=lambda: self._generator.make("generate", self.new_secret),
            )
        )

    def hangs(self, known: str, call: Callable[[], Any]) -> Any:
        """Until the scene is over, and then with a text that nobody waits for."""
        self._hung.wait(_PATIENCE)
        raise RuntimeError(known)

    def over(self) -> None:
        """Let go what hangs, and look at the state's text: it is in many a log, and holds no secret."""
        self._hung.set()
        self.watch.write(self.state_text)
        self.watch.write(repr(self.state))

    @property
    def state_text(self) -> str:
        """What it says, too: base64 would hide it from a look at its letters."""
        text = self.store.fields.get("client_secret_rotation", "")
        return text + json.dumps(_said(text)) if text else ""

    @property
    def state(self) -> RotationState | None:
        return RotationState.read(self.store.fields.get("client_secret_rotation", RotationState().text()))


def _said(text: str) -> Any:
    state = RotationState.read(text)
    assert state is not None
    return {name: getattr(state, name) for name in state.__slots__}


def secrets_of(watch: Watch) -> dict[str, str]:
    names = ("current secret", "registration token", "API key")
    return {name: watch.canary(name, SPECIAL) for name in names}


@contextmanager
def scene(watch: Watch, kind: str = "one slot", *, clear: bool = False) -> Iterator[Scene]:
    """One scene, at whose end the state in the store is looked at."""
    clock = TickingClock()
    with marked_issuer(watch, clock) as issuer:
        made = Scene(watch, issuer, clock, kind, secrets_of(watch), clear=clear)
        try:
            yield made
        finally:
            made.over()
