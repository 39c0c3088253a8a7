"""An issuer over real sockets with an administrator for it, a store, and the clock of both, for tests of rotations."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from secretsource import Secret, SecretReference, TokenSource
from secretsource.backends import Stored
from secretsource.clock import Deadline
from secretsource.credentials import Document
from secretsource.errors import BackendUnavailable
from secretsource.events import Event, RotationStep
from secretsource.rotation import (
    Adapter,
    Applied,
    Capabilities,
    Client,
    Minted,
    Policy,
    Preflight,
    Refused,
    Rotation,
    Unknown,
)
from secretsource.testing import FakeIssuer, TickingClock

CLIENT = "pos"
FIRST = "not-a-real-secret-1"
REFERENCE = "memory:pos"


class Memory:
    """A store in memory, written by compare-and-set. `writes` has what each write left there."""

    options: frozenset[str] = frozenset()

    def __init__(self, ttl: float = 0.0, **fields: str) -> None:
        self.ttl = ttl
        self.fields: dict[str, Any] = {name: Secret(value) for name, value in fields.items()}
        self.number = 1
        self.writes: list[dict[str, str]] = []
        self.down = False

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        return Document(self.read_whole(reference, timeout=timeout).fields, version=str(self.number))

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        if self.down:
            raise BackendUnavailable("the store is down")
        return Stored(dict(self.fields), str(self.number))

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        if self.down:
            raise BackendUnavailable("the store is down")
        if version != str(self.number):
            raise BackendUnavailable("somebody else was faster")
        self.fields, self.number = dict(fields), self.number + 1
        self.writes.append(self.clear)
        return str(self.number)

    @property
    def clear(self) -> dict[str, str]:
        return {name: value.reveal() for name, value in self.fields.items()}


class Administrator(Adapter):
    """Saves secrets at a FakeIssuer. `answers`: what it says of its next calls instead of what it did."""

    def __init__(self, issuer: FakeIssuer, clock: TickingClock, **capabilities: Any) -> None:
        said = {"chosen": True, "slots": 1, "propagation": 2.0, "landing": 10.0, **capabilities}
        self._capabilities = Capabilities(**said)
        self._issuer, self._clock = issuer, clock
        self._overlap = 0.0 if self._capabilities.slots == 1 else 1e6
        self.calls: list[str] = []
        self.answers: list[Refused | Unknown] = []
        self.deaf = False
        self.ends: float | None = None
        self.given: list[str] = []
        self.afterwards: Callable[[], object] = lambda: None

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        self.calls.append("check")
        return Preflight(expires=self.ends)

    def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Applied | Refused | Unknown:
        self.calls.append("apply")
        answer = self.answers.pop(0) if self.answers else None
        if not isinstance(answer, Refused) and not self.deaf:
            self._set(client, secret.reveal())
        return answer or Applied(id=f"id-{len(self.given)}")

    def mint(self, client: Client, label: str, deadline: Deadline) -> Minted | Refused | Unknown:
        self.calls.append("mint")
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Refused):
            return answer
        made = f"not-a-real-secret-generated-{secrets.token_hex(8)}"
        self._set(client, made)
        return answer or Minted(Secret(made), id=f"id-{len(self.given)}")

    def reap(self, client: Client, label: str, deadline: Deadline) -> Applied:
        self.calls.append(f"reap {label}")
        return Applied()

    def retire(self, client: Client, keep: str | None, gone: str | None, deadline: Deadline) -> Applied:
        self.calls.append(f"retire {gone}, keep {keep}")
        self._issuer.set_secret(client.client_id, self.given[-1])
        return Applied()

    def _set(self, client: Client, secret: str) -> None:
        self.given.append(secret)
        self._issuer.set_secret(client.client_id, secret, overlap=self._overlap)
        self.afterwards()


class Site:
    """What a test needs: `rotation()` makes a new process's Rotation."""

    def __init__(self, issuer: FakeIssuer, clock: TickingClock, store: Any, **capabilities: Any) -> None:
        self.issuer, self.clock, self.store = issuer, clock, store
        self.administrator = Administrator(issuer, clock, **capabilities)
        self.events: list[Event] = []

    def source(self, **settings: Any) -> TokenSource:
        given = {"stores": {"memory": self.store}, "issuer": self.issuer.url, "clock": self.clock, **settings}
        return TokenSource(REFERENCE, **given)

    def rotation(self, *, gates: tuple[object, ...] = (), generator: Any = None, **policy: Any) -> Rotation:
        said = {"wait": 60.0, "soak": 120.0, "command_timeout": 5.0, "force": True, **policy}
        return Rotation(
            self.source(),
            self.administrator,
            policy=Policy(**said),
            gates=gates,
            observers=self.events.append,
            generator=generator,
        )

    @property
    def steps(self) -> list[str]:
        """What was done, without what was only waited for or asked."""
        quiet = ("wait", "prove")
        made = [one for one in self.events if isinstance(one, RotationStep) and one.step not in quiet]
        return [one.step if one.outcome == "done" else f"{one.step} {one.outcome}" for one in made]


@contextmanager
def site(*, ttl: float = 0.0, **capabilities: Any) -> Iterator[Site]:
    clock = TickingClock()
    with FakeIssuer(lifetime=600, clock=clock) as issuer:
        issuer.add_client(CLIENT, FIRST)
        yield Site(issuer, clock, Memory(ttl, client_id=CLIENT, client_secret=FIRST), **capabilities)
