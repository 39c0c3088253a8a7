"""One world in virtual time for the real `Rotation`: a store, an issuer, a clock, and processes that end at any effect.

Each call of store, token endpoint, administrator's API, file system and sleep is an effect. Effects are counted, and
each may end its process before or after it, or lose its answer, or land late. What must hold (S1 to S9 of the protocol)
is looked at after each. All runs on one thread: what a thread of its own would do is done at once.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import json
import os
import random
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, TypeVar
from unittest.mock import patch

from secretsource import Document, SecretReference, SecretSourceError, TokenSource
from secretsource.backends import Stored
from secretsource.backends.file import FileBackend
from secretsource.clock import Deadline, Instant
from secretsource.errors import BackendUnavailable, ConfigurationError, IssuerUnavailable
from secretsource.events import Event
from secretsource.exchange import Answer
from secretsource.rotation import (
    Applied,
    Capabilities,
    Client,
    Minted,
    Policy,
    Preflight,
    Refused,
    Report,
    Rotation,
    Unknown,
)
from secretsource.secret import Secret
from secretsource.state import RotationState

from ..simulation.consumer import CLIENT, Consumer, Habits, virtual_time
from ..simulation.timeline import History, Kept, Timeline

__all__ = ["KINDS", "MANNERS", "Crash", "Kind", "Manner", "Plan", "Process", "Program", "World", "quick", "world"]

T = TypeVar("T")

Plan = Mapping[int, "Manner | Callable[[], object]"]
Manner = Literal["before", "after", "lost", "failed", "late", "adrift"]
MANNERS: tuple[Manner, ...] = ("before", "after", "lost", "failed", "late", "adrift")
_BEGINS = 1000.0
_AN_EFFECT_TAKES = 0.02
_TOKENS_LIVE = 3600
_FOUND_AFTER_AN_OUTAGE = 40.0  # a store that fails is asked again after half a minute at most


class Crash(BaseException):
    """The process ends here: nothing of ours may catch this."""


def quick(**changes: Any) -> Policy:
    """A policy whose spans are short, and whose rotations are due at once."""
    spans = {"wait": 2.0, "soak": 3.0, "command_timeout": 2.0}
    return Policy(**{**spans, "force": True, "accept_gap": True, **changes})


class Kind(NamedTuple):
    """What an issuer is like. Seconds: `commit` from an answer until it holds, `propagation` until on all nodes."""

    chosen: bool
    slots: int
    restores: bool = False
    commit: float = 0.0
    propagation: float = 0.0
    nodes: int = 1
    lockout: bool = False

    @property
    def gap(self) -> bool:
        return self.slots == 1 and not self.chosen

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            chosen=self.chosen,
            slots=self.slots,
            propagation=self.propagation + 0.3,
            landing=3.0 + self.commit,
            retires=self.slots > 1,
            restores=self.restores,
            lockout=self.lockout,
        )


KINDS = {
    "one slot, chosen": Kind(chosen=True, slots=1),
    "one slot, chosen, lagging": Kind(chosen=True, slots=1, commit=1.0, propagation=0.8, nodes=3),
    "one slot, generated": Kind(chosen=False, slots=1),
    "two slots, chosen": Kind(chosen=True, slots=2, restores=True),
    "two slots, generated": Kind(chosen=False, slots=2),
    "two slots, generated, lagging": Kind(chosen=False, slots=2, commit=1.0, propagation=0.8, nodes=3),
}


class _Entry(NamedTuple):
    """A secret at the issuer, under the issuer's name for it."""

    id: str
    secret: str
    label: str = ""
    active: bool = True


class World:
    """What is there beside the processes. `broken` is what must not be, in words.

    `ttl`: for how long a consumer holds what it has read; S2 is about those, unless nobody has waited for them
    (`unwaited`: it has leaked, or a clock was set forward over the wait). `interfered`: somebody else has changed
    store or issuer, so that nothing is asked but that it is reported.
    """

    def __init__(self, kind: Kind, dice: random.Random, *, ttl: float = 1.0, folder: Path | None = None) -> None:
        self.kind, self.dice, self.ttl = kind, dice, ttl
        self.history = History()
        self.at = self.history.now = _BEGINS
        self.set_by = 0.0  # how far somebody has set the wall clocks
        self.slept = 0.0  # for how long machines were suspended
        self.down = Timeline(False)  # the store
        self.took: list[str] = []
        self.broken: list[str] = []
        self.gaps: list[tuple[float, float]] = []
        self._gap_since: float | None = None
        self.interfered = False
        self.unwaited = False
        self.flying: list[str] = []
        self.secrets: list[str] = []
        self.proven: set[tuple[int, str]] = set()
        self.processes: list[Process] = []
        self.running: Process | None = None
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        self._ids = itertools.count(1)
        self.minted = 0
        first = self.history.store.last.current
        self.secrets.append(first)
        self.store = _Memory(self, first) if folder is None else _File(self, first, folder)
        self.entries = [_Entry("id-0", first)]
        self.nodes = [Timeline(frozenset({first})) for _ in range(kind.nodes)]
        self._heard = [0] * kind.nodes

    def new_secret(self) -> str:
        secret = f"not-a-real-secret-{len(self.secrets) + 1:04}-abcdefghijkl"
        self.secrets.append(secret)
        return secret

    # --- time

    def wait(self, seconds: float) -> None:
        """What is due by then comes about, each at its moment."""
        until = self.at + seconds
        while self._queue and self._queue[0][0] <= until:
            moment, _, what = heapq.heappop(self._queue)
            self.at = self.history.now = max(self.at, moment)
            what()
            self.look("on its own")
        self.at = self.history.now = until

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.at + seconds, next(self._numbers), what))

    @property
    def quiet(self) -> bool:
        return not self._queue

    @property
    def now(self) -> Instant:
        return Instant(self.at, self.at + self.slept, self.at + self.slept + self.set_by)

    # --- the issuer

    def change(self, entries: list[_Entry]) -> None:
        """The issuer keeps these from now on, and answers by them as soon as each node has heard of it."""
        self.entries, change = entries, next(self._numbers)
        accepted = frozenset(entry.secret for entry in entries if entry.active)
        for number in range(len(self.nodes)):
            lag = self.kind.commit + self.dice.uniform(0, self.kind.propagation)

            def heard(number: int = number) -> None:
                if self._heard[number] > change:
                    return  # of a later one already
                self._heard[number] = change
                self.nodes[number].becomes(accepted, self.at)
                self.history.issuer.becomes(frozenset().union(*(node.last for node in self.nodes)), self.at)

            if lag:
                self.later(lag, heard)
            else:
                heard()

    def at_issuer(self, secret: str) -> _Entry | None:
        return next((entry for entry in self.entries if entry.secret == secret), None)

    def send(self, what: str, act: Callable[[], T]) -> Callable[[], T]:
        """A call on its way: it may land at another moment than that at which it was sent."""
        self.flying.append(what)

        def land() -> T:
            self.flying.remove(what)
            return act()

        return land

    def set(self, secret: str) -> Applied | Refused:
        there = self.at_issuer(secret)
        if self.kind.slots == 1:
            if there is None:
                self.change([_Entry(f"id-{next(self._ids)}", secret)])
            return Applied()
        others = [entry for entry in self.entries if entry.secret != secret]
        if there is None and len(others) >= self.kind.slots:
            return Refused("all slots are taken")
        entry = (there or _Entry(f"id-{next(self._ids)}", secret))._replace(active=True)
        self.change([*others, entry])
        return Applied(entry.id)

    def mint(self, label: str) -> Minted | Refused:
        if len(self.entries) >= self.kind.slots > 1:
            return Refused("all slots are taken")
        self.minted += 1
        made = _Entry(f"id-{next(self._ids)}", self.new_secret(), label)
        self.change([made] if self.kind.slots == 1 else [*self.entries, made])
        return Minted(Secret(made.secret), made.id)

    def reap(self, label: str) -> Applied:
        kept = self.store.kept
        for entry in self.entries:
            if entry.label == label and entry.secret in kept.values:
                self.breaks("S6", f"a secret that the store holds was reaped: {entry.id}")
        self.change([entry for entry in self.entries if entry.label != label])
        return Applied()

    def retire(self, keep: str | None, gone: str | None, client: Client) -> Applied:
        if gone is None and client.previous is not None:
            found = self.at_issuer(client.previous.reveal())
            gone = None if found is None else found.id
        left = keep or self.entries[-1].id

        def ends(entry: _Entry) -> bool:
            return entry.id == gone if gone is not None else entry.id != left

        if self.kind.restores and client.pending is None:
            self.change([entry._replace(active=entry.active and not ends(entry)) for entry in self.entries])
        else:
            self.change([entry for entry in self.entries if not ends(entry)])
        current = self.at_issuer(self.store.kept.current)
        if not self.interfered and (current is None or not current.active):
            self.breaks("S6", "the current secret was retired")
        return Applied()

    def restore(self) -> Applied:
        self.change([entry._replace(active=True) for entry in self.entries])
        return Applied()

    def remove(self, gone: str | None) -> Applied:
        self.change([entry for entry in self.entries if entry.active or (gone is not None and entry.id != gone)])
        return Applied()

    # --- what must hold

    def breaks(self, rule: str, how: str) -> None:
        if not self.interfered:
            self.broken.append(f"{rule} at {self.at - _BEGINS:.2f}, after {' | '.join(self.took[-8:])}: {how}")

    def look(self, after: str) -> None:
        """S1, S2 and S3, as they stand now."""
        kept, state = self.store.kept, self.store.state
        held = [node.at(self.at) & kept.values for node in self.nodes]
        if not all(held):
            if self.kind.gap:
                self._gap_since = self.at if self._gap_since is None else self._gap_since
                return
            self.breaks("S1", f"the issuer accepts none that the store holds, {after}")
        elif self._gap_since is not None:
            self.gaps.append((self._gap_since, self.at))
            self._gap_since = None
        if self.kind.slots == 1 and self.kind.chosen and not {entry.secret for entry in self.entries} <= kept.values:
            self.breaks("S1", f"the issuer has one that the store does not hold, {after}")
        if not (self.unwaited or self.kind.gap):
            since = self.at - self.ttl
            for moment in [since, *self.history.store.changes(since, self.at)]:
                if not all(self.history.store.at(moment).values & node.at(self.at) for node in self.nodes):
                    self.breaks("S2", f"a consumer that has read {self.at - moment:.2f} s ago has none that works")
        idle = not kept.pending and not state.intended and state.promoted is None
        if idle and self.quiet and not all(kept.current in node.at(self.at) for node in self.nodes):
            self.breaks("S3", f"nothing is under way, and the current secret is not accepted, {after}")

    def wrote(self, by: Process, before: Kept, state_before: RotationState) -> None:
        """S4, S5 and S7 of a write that was made."""
        kept, state = self.store.kept, self.store.state
        self.history.write(kept)
        promoted = kept.current != before.current
        ended = bool(before.pending) and not kept.pending and not promoted
        if before.pending and kept.pending and kept.pending != before.pending:
            self.breaks("S4", "a pending secret was overwritten")
        if promoted and kept.current != before.pending:
            self.breaks("S4", "what became current was not pending")
        if promoted and (by.number, kept.current) not in self.proven:
            self.breaks("S5", "promoted without a token")
        if promoted and not all(kept.current in node.at(self.at) for node in self.nodes):
            self.breaks("S5", "promoted while it is not accepted everywhere")
        claimed = bool(kept.pending) and not before.pending and not state_before.intended
        begun = claimed or (state.intended and not state_before.intended)
        ended = ended or (state_before.intended and not state.intended and not kept.pending)
        # Those that end a secret name it, and do no harm however late.
        flying = [call for call in self.flying if call in ("apply", "mint")]
        if (begun or ended) and flying:
            self.breaks("S7", f"{'begun' if begun else 'given up'} while a call may land: {flying}")

    def called(self, what: str, secret: str, timeout: float, named: str | None) -> None:
        """S9 of a call that leaves now. `named`: which secret it ends, by the issuer's name; None: by what is there."""
        kept, said = self.store.kept, self.store.state
        wall = self.now.wall
        if what in ("apply", "mint"):
            if said.noted is None or not said.calls:
                self.breaks("S9", f"{what} without a note")
            elif not self.set_by and wall - said.noted > timeout + _AN_EFFECT_TAKES:
                self.breaks("S9", f"{what} {wall - said.noted:.2f} s after its note")
        aim = kept.current if said.goal == "abort" else kept.pending
        if what == "apply" and secret != aim:
            self.breaks("S9", "applied another secret than the one that the store says")
        if what in ("mint", "reap") and not said.intended:
            self.breaks("S9", f"{what} without an intention in the store")
        if what in ("retire", "remove") and named is None and said.promoted is None and not kept.pending:
            self.breaks("S9", f"{what} with nothing in the store that says so")

    def shown(self, text: str) -> None:
        """S8 of anything that somebody may see."""
        for secret in self.secrets:
            if secret in text:
                self.breaks("S8", f"a secret is in {text!r}")

    @property
    def idle(self) -> bool:
        kept, state = self.store.kept, self.store.state
        return not (kept.pending or kept.previous or state.intended or state.promoted is not None)

    def finish(self, policy: Policy, verb: str = "resume") -> list[Report | SecretSourceError | None]:
        """What new processes say, one after the other, until nothing is under way; L1 if that does not come about.

        Where the verb cannot be done any more, they go on by `resume`.
        """
        said: list[Report | SecretSourceError | None] = []
        for _ in range(20):
            report = Process(self, policy).ask(verb)
            said.append(report)
            if self.quiet and self.idle and isinstance(report, Report) and report.result in ("done", "failed"):
                return said
            if isinstance(report, ConfigurationError) or verb == "run":
                verb = "resume"
            self.wait(getattr(report, "retry_after", None) or 5.0)
        self.breaks("L1", f"it does not come to an end: {said[-1]}")
        return said

    # --- other people

    def put(self, secret: str) -> None:
        """Somebody writes a secret over the current one, as an editor does."""
        self.interfered = True
        self.store.edit({"client_secret": secret})
        self.history.write(self.store.kept)

    def touch(self) -> None:
        """Somebody writes another field of the document: whoever has read it before is too late."""
        self.store.edit({"touched": str(next(self._numbers))})

    def save_at_issuer(self, secret: str) -> None:
        """Somebody saves a secret in the administrator's pages."""
        self.interfered = True
        self.change([_Entry(f"id-{next(self._ids)}", secret)])


class _Memory:
    """A document with compare-and-set. `edit` is what people do."""

    name = "memory:pos"

    def __init__(self, world: World, first: str) -> None:
        self._world = world
        self.fields: dict[str, str] = {"client_id": CLIENT, "client_secret": first}
        self._version = 1

    @property
    def backend(self) -> Any:
        return self

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        return Stored({name: Secret(value) for name, value in self.fields.items()}, str(self._version))

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        if version != str(self._version):
            raise BackendUnavailable("somebody else was faster", reference=self.name)
        self.fields = {name: value.reveal() for name, value in fields.items()}
        self._version += 1
        return str(self._version)

    def edit(self, changes: Mapping[str, str]) -> None:
        self.fields = {**self.fields, **changes}
        self._version += 1

    @property
    def kept(self) -> Kept:
        fields = self.fields
        return Kept(
            fields["client_secret"], fields.get("client_secret_pending", ""), fields.get("client_secret_previous", "")
        )

    @property
    def state(self) -> RotationState:
        return _state_of(self.fields.get("client_secret_rotation", ""))


@cache
def _state_of(text: str) -> RotationState:
    state = RotationState.read(text) if text else RotationState()
    assert state is not None
    return state


class _File(_Memory):
    """The same in a real file, by the real backend."""

    def __init__(self, world: World, first: str, folder: Path) -> None:
        super().__init__(world, first)
        self.path = folder / "pos.json"
        self.name = f"file://{self.path}"
        self._backend = FileBackend()
        self._put()

    @property
    def backend(self) -> Any:
        return self._backend

    def _put(self) -> None:
        self.path.unlink(missing_ok=True)
        with open(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            json.dump(self.fields, file)

    def edit(self, changes: Mapping[str, str]) -> None:
        self.fields = json.loads(self.path.read_text())
        super().edit(changes)
        self._put()

    @property
    def kept(self) -> Kept:
        self.fields = json.loads(self.path.read_text())
        return super().kept

    @property
    def state(self) -> RotationState:
        self.fields = json.loads(self.path.read_text())
        return super().state


class Process:
    """A rotator. `plan` says what becomes of its effects, by number: a manner, or something that happens before it.

    The latter is how a process is suspended: what others do meanwhile.
    """

    def __init__(self, world: World, policy: Policy, plan: Plan | None = None) -> None:
        self.world, self.policy = world, policy
        self.plan = dict(plan or {})
        self.number = len(world.processes)
        world.processes.append(self)
        self.dead = False
        self.effects = 0
        self.names: list[str] = []
        self.clock = _Clock(self)
        self.source = TokenSource(
            world.store.name,
            stores={world.store.name.partition(":")[0]: _Store(self)},
            token_url="https://issuer.example/token",
            auth_method="client_secret_post",
            clock=self.clock,
        )
        self.source._fetcher._transport.answer = self._token  # type: ignore[attr-defined]
        self.rotation = Rotation(
            self.source, _Adapter(self), policy=policy, observers=self._notice, generator=world.new_secret
        )

    def ask(self, verb: str, *arguments: str) -> Report | SecretSourceError | None:
        """What the verb comes to; None if the process has ended on the way."""
        world, outer = self.world, self.world.running
        world.running = self
        try:
            report: Report | SecretSourceError | None = getattr(self.rotation, verb)(*arguments)
        except Crash:
            report = None
        except SecretSourceError as error:
            report = error.again()
        finally:
            world.running = outer
        if self.dead:
            assert not isinstance(report, Report), "a process has gone on after its end"
            world.look("after a crash")
            return None
        world.shown(repr(report) + str(report))
        return report

    def effect(
        self,
        name: str,
        do: Callable[[], T],
        *,
        lost: Callable[[], T],
        latest: float = 2.0,
        flies: bool = False,
        lands: bool = True,
    ) -> T:
        """Do it, or what the plan says. `lost`: what is seen of it without an answer; `latest`: when it may land."""
        if self.dead:
            raise Crash
        self.effects += 1
        self.names.append(name)
        world, manner = self.world, self.plan.get(self.effects)
        world.took.append(f"{self.number}.{self.effects} {name}{f' ({manner})' if isinstance(manner, str) else ''}")
        world.wait(_AN_EFFECT_TAKES)
        if callable(manner):
            manner()
            manner = None
        if not lands:
            manner = "failed" if manner == "late" else "before" if manner == "adrift" else manner
        if manner == "before":
            self._ends()
        if manner == "failed":
            return lost()
        act = world.send(name, do) if flies else do
        if manner in ("late", "adrift"):

            def land() -> None:
                with suppress(SecretSourceError):  # nobody is there to be told
                    act()

            world.later(latest, land)
            if manner == "adrift":
                self._ends()
            return lost()
        answer = act()
        world.look(f"after {name}")
        if manner == "after":
            self._ends()
        return lost() if manner == "lost" else answer

    def _ends(self) -> None:
        self.dead = True
        raise Crash

    def _token(self, secret: str) -> Answer:
        def unheard() -> Answer:
            raise IssuerUnavailable("no answer", retryable=True)

        def answer() -> Answer:
            accepted = secret in self.world.dice.choice(self.world.nodes).at(self.world.at)
            kind = {"content-type": "application/json"}
            if not accepted:
                return Answer(401, kind, b'{"error": "invalid_client"}')
            self.world.proven.add((self.number, secret))
            members = {"access_token": f"token-{self.effects}", "token_type": "Bearer", "expires_in": _TOKENS_LIVE}
            return Answer(200, kind, json.dumps(members).encode())

        return self.effect("token", answer, lost=unheard)

    def _notice(self, event: Event) -> None:
        self.world.shown(repr(event) + str(event))


class Program(Consumer):
    """A program that lives through what happens in a world. What fails while the store is down is no failure."""

    def __init__(self, world: World, habits: Habits, dice: random.Random) -> None:
        super().__init__(world.history, habits._replace(begins=max(_BEGINS, habits.begins)), dice)
        self._world = world
        self.failed: list[str] = []  # excused or not

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        if self._world.down.at(self.clock.at):
            self._take_time()
            raise BackendUnavailable("no answer", reference=str(reference))
        return super().read(reference, fresh=fresh, timeout=timeout)

    def _accepts(self, secret: str) -> bool:
        return secret in self._dice.choice(self._world.nodes).at(self.clock.at)

    def _failed(self, why: object) -> None:
        since = self._began - _FOUND_AFTER_AN_OUTAGE
        was_down = self._world.down.at(since) or self._world.down.changes(since, self.clock.at)
        if not was_down:
            self.failed.append(f"call {self.calls} at {self._began:.3f}: {why}")
            super()._failed(why)


class _Clock:
    """The world's, as long as the process lives. Only sleeping is an effect: a look at the clock changes nothing."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def monotonic(self) -> float:
        return self.now().monotonic

    def now(self) -> Instant:
        if self._process.dead:
            raise Crash
        return self._process.world.now

    def sleep(self, seconds: float) -> None:
        self._process.effect("sleep", lambda: self._process.world.wait(seconds), lost=lambda: None, lands=False)


class _Store:
    """The world's store, as one process meets it."""

    options: frozenset[str] = frozenset({"format", "access"})
    ttl = 0.0

    def __init__(self, process: Process) -> None:
        self._process = process

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        raise AssertionError("a rotator reads the whole")

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        def read() -> Stored:
            self._reachable()
            stored: Stored = self._process.world.store.backend.read_whole(reference, timeout=timeout)
            return stored

        return self._process.effect("read", read, lost=self._unheard)

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        process = self._process
        world = process.world

        def write() -> str:
            self._reachable()
            before, state = world.store.kept, world.store.state
            try:
                written: str = world.store.backend.write_whole(reference, fields, version=version, timeout=timeout)
            finally:  # it may be written although the process has ended on the way
                if (world.store.kept, world.store.state) != (before, state):
                    world.wrote(process, before, state)
            return written

        return process.effect("write", write, lost=self._unheard)

    def _reachable(self) -> None:
        if self._process.world.down.last:
            self._unheard()

    def _unheard(self) -> NoReturn:
        raise BackendUnavailable("no answer", reference=self._process.world.store.name)


class _Adapter:
    """The world's issuer, as one process meets it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def capabilities(self) -> Capabilities:
        return self._process.world.kind.capabilities

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        def unheard() -> Preflight:
            raise IssuerUnavailable("no answer", retryable=True)

        def look() -> Preflight:
            world = self._process.world
            there = None if client.current is None else world.at_issuer(client.current.reveal())
            return Preflight(current_id=there.id if there is not None and world.kind.slots > 1 else None)

        return self._process.effect("check", look, lost=unheard)

    def prepare(self, client: Client) -> None:
        self._process.effect("prepare", lambda: None, lost=lambda: None)

    def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Any:
        value = secret.reveal()
        return self._call("apply", lambda: self._process.world.set(value), deadline, value)

    def mint(self, client: Client, label: str, deadline: Deadline) -> Any:
        return self._call("mint", lambda: self._process.world.mint(label), deadline)

    def reap(self, client: Client, label: str, deadline: Deadline) -> Any:
        return self._call("reap", lambda: self._process.world.reap(label), deadline)

    def retire(self, client: Client, keep: str | None, gone: str | None, deadline: Deadline) -> Any:
        return self._call("retire", lambda: self._process.world.retire(keep, gone, client), deadline, named=gone)

    def restore(self, client: Client, deadline: Deadline) -> Any:
        return self._call("restore", lambda: self._process.world.restore(), deadline)

    def remove(self, client: Client, keep: str | None, gone: str | None, deadline: Deadline) -> Any:
        return self._call("remove", lambda: self._process.world.remove(gone), deadline, named=gone)

    def close(self) -> None:
        """Nothing is kept open."""

    def _call(
        self, what: str, act: Callable[[], Any], deadline: Deadline, secret: str = "", named: str | None = ""
    ) -> Any:
        process = self._process
        world, timeout = process.world, process.policy.command_timeout
        sent = False

        def go() -> Any:
            nonlocal sent
            sent = True
            return act()

        def checked() -> Any:
            if deadline.over():
                return Unknown("there is no time left")
            world.called(what, secret, timeout, named)
            return go()

        # A call that lands late was sent at once.
        late = process.plan.get(process.effects + 1) in ("late", "adrift")
        if late:
            world.called(what, secret, timeout, named)
        # By then it has taken effect, also where the issuer commits after it has answered.
        landing = (process.rotation.policy.landing or 0.0) - world.kind.commit
        return process.effect(
            what,
            go if late else checked,
            lost=lambda: Unknown("no answer"),
            latest=max(0.0, min(deadline.left(), timeout) + landing - 0.2),
            flies=True,
        )


# What changes a file, or may leave one behind.
_FILE_CALLS = ("open", "write", "fsync", "rename", "unlink", "fchmod", "fchown")


def _counted(name: str, real: Callable[..., Any], world: World) -> Callable[..., Any]:
    """A call of the operating system that is an effect of the process that makes it."""

    def call(*arguments: Any, **named: Any) -> Any:
        process = world.running
        looks = name == "open" and not arguments[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)
        if process is None or looks:
            return real(*arguments, **named)

        def failed() -> Any:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        return process.effect(f"os.{name}", lambda: real(*arguments, **named), lost=failed, lands=False)

    return call


@contextmanager
def world(kind: Kind | str, *, seed: int = 0, ttl: float = 1.0, folder: Path | None = None) -> Iterator[World]:
    """A world, while which there are no threads, and the same random numbers for the same seed."""
    with virtual_time(seed) as dice, patch.object(secrets, "randbelow", dice.randrange):
        made = World(KINDS[kind] if isinstance(kind, str) else kind, dice, ttl=ttl, folder=folder)
        if folder is None:
            yield made
            return
        with ExitStack() as stack:
            for name in _FILE_CALLS:
                stack.enter_context(patch.object(os, name, _counted(name, getattr(os, name), made)))
            yield made
