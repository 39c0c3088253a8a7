"""Changing a secret step by step: reads where it stands, has the next step decided, makes it, and reads again.

Each step may be the last one that this process makes: another goes on from what the store holds. No lock is held;
where two are at work, the store's compare-and-set lets one of them go first, and the other reads again.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from ..backends import Held
from ..backends.layout import rotatable
from ..clock import Deadline, Instant
from ..errors import BackendUnavailable, ConfigurationError, DeadlineExceeded, SecretSourceError
from ..events import Emitter, Event, Hook, RotationStep
from ..flight import in_time
from ..secret import Secret
from ..source import TokenSource
from ..state import RotationState
from ..token import Token
from .decision import Evidence, Memory, Phase, Step, View, Wish, decide, phase_of
from .generate import Generator, generate
from .hooks import Abort, Gates, Hold, Moment, Point
from .outcome import Adapter, Applied, Client, Minted, Outcome, Refused, Unknown
from .policy import Due, Policy
from .probe import Said, probe

__all__ = ["Report", "Result", "Rotation", "Status"]

T = TypeVar("T")

Result = Literal["done", "waiting", "held", "failed", "ambiguous", "drift"]

_CONSUMERS_NEED = 60.0
_OF_A_FILE = 5.0
_SOAK_OF_SEVERAL = 86400.0
_LONGEST_SLEEP = 15.0
_BETWEEN_READS = 0.2
_READS_THAT_MAY_BE_BEHIND = 25
_OVERTAKEN_AT_MOST = 50
_LOST_AT_MOST = 20


@dataclass(frozen=True, slots=True)
class Report:
    """How far it came. `retry_after`: seconds until the next step can be made, None where that is not known.

    "done": also where nothing was due. "failed": the old secret works. "ambiguous": which one works is not known.
    """

    result: Result
    reason: str
    hint: str | None = None
    phase: Phase = "idle"
    rotation: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Where a rotation stands, without content. Times in seconds; `open`: a call may take effect for so long."""

    reference: str
    client_id: str
    issuer: str
    environment: str
    phase: Phase
    rotation: str
    by: str
    compromised: bool
    age: float | None
    due: Due
    pending_age: float | None
    open: float


class _Unavailable(Exception):
    """Ends a step whose write was not made, or perhaps was."""

    def __init__(self, error: SecretSourceError) -> None:
        super().__init__()
        self.error = error


class Rotation:
    """The change of one client's secret, in the store that `source` reads and at its issuer, by an adapter.

        Rotation(source, Keycloak("https://sso.example.com", "pos", admin=admin), policy=Policy(wait="6m")).run()

    `observers` are hooks for events (`RotationStep`); `gates` have to agree before an effect. `generator` makes the new
    secret. Raises ConfigurationError where the secret cannot be changed. Not for several threads at once; several
    processes are fine.
    """

    # What this run knows and the store does not. Times are the clock's own.
    _memory: Memory
    _evidence: Evidence
    _held: tuple[object, ...] | None  # the secrets about which there is evidence
    _asked_at: Instant | None
    _announced: tuple[float | None, Instant] | None  # the instant that the store has, and ours
    _wrote: tuple[str, RotationState] | None  # what stood there before our last write
    _learned: tuple[str, str | None, float | None]  # of a rotation: the issuer's name for its secret, and its end
    _unsaid: SecretSourceError | None
    _token: Token | None
    _expires: float | None
    _spans: dict[tuple[str, float, float], tuple[float, float]]
    _lost: int  # steps in a row whose read or write was not made
    _said_last: str
    _waited_for: str

    def __init__(
        self,
        source: TokenSource,
        adapter: Adapter,
        *,
        policy: Policy | None = None,
        observers: Hook | Iterable[Hook] = (),
        gates: Iterable[object] = (),
        generator: Generator | None = None,
    ) -> None:
        if not isinstance(adapter, Adapter):
            raise ConfigurationError(
                f"a {type(adapter).__name__} is no adapter", hint="See secretsource.rotation.Adapter"
            )
        self.source = source
        self.adapter = adapter
        self.reference = source.credentials.reference
        self.store = rotatable(source.credentials.backend, self.reference)
        self.capabilities = adapter.capabilities
        self.policy = self._settled(policy or Policy())
        self._clock = source.clock
        self._timeout = source.timeout
        self._emitter = Emitter(observers, clock=self._clock)
        self._gates = Gates(gates, clock=self._clock)
        self._generator = generator or generate
        self._by = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._events: list[Event] = []
        self._forget()

    # --- what can be asked of it ---

    def run(self) -> Report:
        """Change the secret if that is due, as far as it can be done within `policy.max_wait`.

        What another run has begun is gone on with. Raises SecretSourceError where nothing was done, or where the store
        stays unavailable.
        """
        return self._go("rotate")

    def resume(self) -> Report:
        """Go on with what is under way, and begin nothing."""
        return self._go("resume")

    def abort(self) -> Report:
        """Give the pending secret up, and have the issuer accept the current one again, if it no longer does."""
        return self._go("abort")

    def rollback(self) -> Report:
        """Abort; or, once promoted, make the previous secret the current one, by a rotation of its own."""
        return self._go("rollback")

    def step(self, wish: Wish = "rotate") -> Report | None:
        """Make one step; a Report where there is none to be made now."""
        return self._told(wish, Deadline(0.0, self._clock))

    def status(self) -> Status:
        """Where it stands. Only the store is read."""
        held = self._read()
        state, now = held.state, self._now()
        return Status(
            str(self.reference),
            held.client_id,
            self.source.target.name,
            self.source.target.environment,
            phase_of(held),
            state.rotation,
            state.by,
            state.compromised,
            self._due(held).age,
            self._due(held),
            None if held.pending is None or state.claimed is None else max(0.0, now - state.claimed),
            self._left("noted", state.noted, state.open_for),
        )

    def drift(self) -> Report:
        """Whether the issuer accepts what the store says that it does. Writes nothing."""
        held = self._read()
        phase = phase_of(held)
        kinds = {"current": held.current, "pending": held.pending, "previous": held.previous}
        said = {kind: self._probe(held, secret) for kind, secret in kinds.items() if secret is not None}
        unknown = next((each.error for each in said.values() if each.word == "unknown"), None)
        if unknown is not None:
            raise unknown.again()
        accepted = [kind for kind, each in said.items() if each.word == "accepted"]
        expected = {"current"} if phase in ("idle", "soaking", "claimed") else {"current", "pending"}
        found = f"the issuer accepts {' and '.join(f'the {kind} secret' for kind in accepted) or 'none of them'}"
        if expected & set(accepted):
            return Report("done", found, phase=phase, rotation=held.state.rotation)
        hint = (
            "Make the store and the issuer name the same one: secretsource put writes the one that the issuer has; "
            "or save the current one at the issuer"
        )
        if self._left("noted", held.state.noted, held.state.open_for):
            return Report("ambiguous", f"{found}, and a call may still take effect", hint, phase, held.state.rotation)
        return Report("drift", found, hint, phase, held.state.rotation)

    # --- the way of a run ---

    def _go(self, wish: Wish) -> Report:
        self._forget()
        deadline = Deadline(self.policy.max_wait, self._clock)
        try:
            while True:
                report = self._told(wish, deadline)
                if report is not None:
                    return report
        finally:
            self.adapter.close()

    def _told(self, wish: Wish, deadline: Deadline) -> Report | None:
        """One step, with what happened told to the observers after it."""
        try:
            return self._step(wish, deadline)
        finally:
            events, self._events = self._events, []
            self._emitter.emit(events)

    def _step(self, wish: Wish, deadline: Deadline) -> Report | None:
        try:
            held = self._read()
        except (BackendUnavailable, DeadlineExceeded) as error:
            failure = error.again()
        else:
            return self._decided(held, wish, deadline)
        self._overtaken(failure, deadline)
        return None

    def _decided(self, held: Held, wish: Wish, deadline: Deadline) -> Report | None:
        self._notice(held)
        view = self._view(held, wish)
        step = decide(view)
        began = self._clock.monotonic()
        try:
            report = self._made(step, view, deadline)
        except _Unavailable as caught:
            failure = caught.error.again()
        else:
            self._lost = 0
            return report
        self._tell(step, held, "unknown", began, type(failure).__name__)
        self._overtaken(failure, deadline)
        return None

    def _overtaken(self, failure: SecretSourceError, deadline: Deadline) -> None:
        """Read again and decide again, a moment later; the failure is raised where nothing was read yet, or too often.

        Somebody else was faster, or the store is down, or an answer was lost.
        """
        self._lost += 1
        pause = min(_BETWEEN_READS * 1.5**self._lost, 5.0) * (0.5 + secrets.randbelow(100) / 100)
        if self._held is None or self._lost > _OVERTAKEN_AT_MOST or pause > deadline.left():
            raise failure
        self._clock.sleep(pause)

    def _made(self, step: Step, view: View, deadline: Deadline) -> Report | None:
        held, state = view.held, view.held.state
        match step.kind:
            case "wait":
                return self._wait(step, view, deadline)
            case "prove":
                return self._prove(step, view)
            case "done" | "held" | "failed" | "drift" as result:
                if result != "done" or step.reason:
                    self._tell(step, held, result, self._clock.monotonic(), step.reason)
                return self._report(result, step, view)
            case "refuse":
                raise ConfigurationError(f"{self.reference}: {step.reason}", hint=step.hint)
            case "adopt":
                pending = self._fresh(state, claimed=self._now(), calls=0)
                self._write(
                    step, held, lambda left: self.store.note(self.reference, held, pending, timeout=left), pending
                )
            case "claim":
                return self._claim(step, view)
            case "intend" | "note":
                return self._note(step, view)
            case "apply":
                self._apply(step, view)
            case "mint":
                self._mint(step, view)
            case "turn":
                forward = replace(state, goal="rotate", by=self._by)
                self._write(
                    step, held, lambda left: self.store.note(self.reference, held, forward, timeout=left), forward
                )
                self._memory = self._memory._replace(refused=None)
            case "promote":
                return self._promote(step, view)
            case "abandon":
                over = RotationState(
                    rotation=state.rotation,
                    by=self._by,
                    noted=state.noted,
                    open_for=state.open_for,
                    finished=state.finished,
                    tokens_not_before=state.tokens_not_before if not state.compromised else None,
                    expires=state.expires,
                    current_id=state.current_id,
                )
                self._write(step, held, lambda left: self.store.abandon(self.reference, held, over, timeout=left), over)
                self._memory = self._memory._replace(abandoned=True)
            case "reap":
                outcome = self._called(
                    step, held, lambda limit: self.adapter.reap(self._client(held), _label(state), limit)
                )
                self._memory = self._memory._replace(reaped=isinstance(outcome, Applied))
                return None if isinstance(outcome, Applied) else self._stuck(outcome, step, view)
            case "withdraw" | "retire" | "remove" | "restore":
                return self._at_the_issuer(step, view)
            case "drop":
                return self._drop(step, view)
        return None

    # --- steps ---

    def _wait(self, step: Step, view: View, deadline: Deadline) -> Report | None:
        if step.wait > deadline.left():
            words = view.evidence.leaving, view.evidence.taking
            phase = phase_of(view.held)
            lost = "accepted" not in words and phase in ("intended", "applying", "aborting")
            if self._unsaid is not None and not lost:
                raise self._unsaid.again()
            return self._report("ambiguous" if lost else "waiting", step, view, retry_after=step.wait)
        if step.reason != self._waited_for:
            self._waited_for = step.reason
            self._tell(step, view.held, "waiting", self._clock.monotonic(), step.reason)
        self._clock.sleep(min(step.wait, _LONGEST_SLEEP))
        return None

    def _prove(self, step: Step, view: View) -> Report | None:
        """Ask about the one being left, then about the one being taken."""
        held, began = view.held, self._clock.monotonic()
        leaving, taking = self._pair(held)
        left = None if leaving is None else self._probe(held, leaving)
        taken = self._probe(held, taking)
        self._unsaid = next((each.error for each in (left, taken) if each is not None and each.error), None)
        self._token = taken.token
        self._evidence = view.evidence.and_then(
            None if left is None else left.word, taken.word, single_slot=self.capabilities.single_slot
        )
        self._asked_at = self._clock.now()
        words = f"{'' if left is None else f'{left.word}, '}{taken.word}"
        if words != self._said_last:
            self._said_last = words
            self._tell(step, held, "done", began, words)
        if self._unsaid is not None and phase_of(held) == "idle":
            raise self._unsaid.again()
        return None

    def _claim(self, step: Step, view: View) -> Report | None:
        held = view.held
        stopped = self._passed("before_claim", step, view)
        if stopped is not None:
            return stopped
        self._preflight(held)
        if view.wish == "rollback":
            assert held.previous is not None
            pending, goal = held.previous, "rollback"
        else:
            pending, goal = self._new_secret(held), "rotate"
        state = self._fresh(held.state, claimed=self._now(), goal=goal)
        self._write(
            step,
            held,
            lambda left: self.store.claim(
                self.reference, held, pending, state, beside=self._binding(held), timeout=left
            ),
            state,
        )
        return None

    def _note(self, step: Step, view: View) -> Report | None:
        held, state = view.held, view.held.state
        if step.kind == "intend":
            stopped = self._passed("before_claim", step, view)
            if stopped is None:
                self._preflight(held)
                stopped = self._passed("before_apply", step, view)
            if stopped is not None:
                return stopped
            noted = self._fresh(state, intended=True)
        else:
            again = self._memory.announced is not None
            stopped = None if step.back or again else self._passed("converged", step, view)
            stopped = stopped or (None if step.back or again else self._passed("before_apply", step, view))
            if stopped is not None or (self._memory.refused is not None and not step.back):
                return stopped
            noted = replace(state, goal="abort") if step.back else state
        self.adapter.prepare(self._client(held))
        policy = self.policy
        noted = replace(
            noted,
            by=self._by,
            noted=self._now(),
            open_for=policy.open_for,
            calls=noted.calls + 1,
            compromised=noted.compromised or policy.compromised,
        )
        began = self._clock.now()
        self._write(step, held, lambda left: self.store.note(self.reference, held, noted, timeout=left), noted)
        self._announced = noted.noted, began
        self._memory = self._memory._replace(reaped=False)
        self._evidence = Evidence()
        return None

    def _apply(self, step: Step, view: View) -> None:
        held = view.held
        secret = held.current if step.back else held.pending
        assert secret is not None
        outcome = self._called(step, held, lambda limit: self.adapter.apply(self._client(held), secret, limit))
        self._evidence = Evidence()
        if isinstance(outcome, Refused):
            self._memory = self._memory._replace(refused=f"the issuer refused it: {outcome.reason}")
        if isinstance(outcome, Applied) and not step.back:
            self._learned = (held.state.rotation, outcome.id, outcome.expires)

    def _mint(self, step: Step, view: View) -> None:
        held, state = view.held, view.held.state
        outcome = self._called(step, held, lambda limit: self.adapter.mint(self._client(held), _label(state), limit))
        self._evidence = Evidence()
        if isinstance(outcome, Refused):
            self._memory = self._memory._replace(refused=f"the issuer refused it: {outcome.reason}")
        if isinstance(outcome, Minted):
            self._keep(held, outcome)

    def _keep(self, held: Held, minted: Minted) -> None:
        """Write what the issuer has generated: nobody else has it, so this is tried for longer than other writes."""
        claimed = replace(
            held.state,
            intended=False,
            by=self._by,
            claimed=self._now(),
            pending_id=minted.id,
            pending_expires=minted.expires,
        )
        beside = {**self._binding(held), **(minted.beside or {})}
        step = Step("claim", "the issuer has generated it")
        for attempt in range(_LOST_AT_MOST):
            now = held

            def write(left: float, now: Held = now) -> None:
                self.store.claim(self.reference, now, minted.secret, claimed, beside=beside, timeout=left)

            try:
                self._write(step, now, write, claimed)
                return
            except _Unavailable:
                self._clock.sleep(min(0.2 * 1.5**attempt, 5.0))
            try:
                held = self._read()
            except (BackendUnavailable, DeadlineExceeded):
                continue
            if held.pending == minted.secret:
                return
            if held.state.rotation != claimed.rotation or not held.state.intended:
                return  # somebody else goes on; what was generated is reaped by its label

    def _promote(self, step: Step, view: View) -> Report | None:
        held, state = view.held, view.held.state
        stopped = self._passed("verify", step, view) or self._passed("before_promote", step, view)
        if stopped is not None or self._memory.refused is not None:
            return stopped
        compromised, now = state.compromised or self.policy.compromised, self._now()
        promoted = RotationState(
            rotation=state.rotation,
            by=self._by,
            compromised=compromised,
            noted=state.noted,
            open_for=state.open_for,
            promoted=now,
            finished=state.finished,
            tokens_not_before=now if compromised else state.tokens_not_before,
            expires=state.pending_expires,
            current_id=state.pending_id,
            previous_id=state.current_id,
        )
        self._write(
            step,
            held,
            lambda left: self.store.promote(
                self.reference, held, promoted, keep_previous=not compromised, timeout=left
            ),
            promoted,
        )
        return None

    def _at_the_issuer(self, step: Step, view: View) -> Report | None:
        """Calls that end a secret, by the issuer's names for them, so that one which lands late ends no other."""
        held, state, adapter = view.held, view.held.state, self.adapter
        client, keep, gone = self._client(held), state.current_id, state.previous_id
        if step.kind == "retire":
            stopped = self._passed("converged", step, view) or self._passed("before_retire", step, view)
            if stopped is not None:
                return stopped
        if step.kind == "restore":
            outcome = self._called(step, held, lambda limit: adapter.restore(client, limit))
            self._memory = self._memory._replace(retired=False)
            return self._report("held" if isinstance(outcome, Applied) else "ambiguous", step, view)
        if step.kind == "withdraw":
            outcome = self._called(step, held, lambda limit: adapter.retire(client, keep, state.pending_id, limit))
        elif step.kind == "retire":
            outcome = self._called(step, held, lambda limit: adapter.retire(client, keep, gone, limit))
            self._memory = self._memory._replace(retired=isinstance(outcome, Applied))
        else:
            outcome = self._called(step, held, lambda limit: adapter.remove(client, keep, gone, limit))
            self._memory = self._memory._replace(removed=isinstance(outcome, Applied))
        if step.kind != "remove":
            self._evidence = Evidence()
        return None if isinstance(outcome, Applied) else self._stuck(outcome, step, view)

    def _drop(self, step: Step, view: View) -> Report | None:
        held, state = view.held, view.held.state
        if not self.capabilities.retires:
            stopped = self._passed("converged", step, view) or self._passed("before_retire", step, view)
            if stopped is not None:
                return stopped
        over = RotationState(
            rotation=state.rotation,
            by=self._by,
            noted=state.noted,
            open_for=state.open_for,
            finished=state.promoted,
            tokens_not_before=state.tokens_not_before,
            expires=state.expires,
            current_id=state.current_id,
        )
        left_undone: list[str | None] = []
        self._write(
            step,
            held,
            lambda left: left_undone.append(self.store.drop_previous(self.reference, held, over, timeout=left)),
            over,
        )
        for text in filter(None, left_undone):
            self._events.append(RotationStep(str(self.reference), state.rotation, "drop", "unfinished", 0.0, text))
        answered = state.compromised or not self.policy.compromised
        self._memory = Memory(rotated=answered)
        return None

    # --- what steps are made of ---

    def _read(self) -> Held:
        """What the store holds now, and not what it held before our own last write."""
        for _ in range(_READS_THAT_MAY_BE_BEHIND):
            held = self._in_time(
                lambda left: self.store.read_held(
                    self.reference, client_id=self.source.credentials.client_id, timeout=left
                ),
                "reading the store",
            )
            if self._wrote is None or (held.version, held.state) != self._wrote:
                break
            self._clock.sleep(_BETWEEN_READS)
        self.source.target.check_binding(held.binding, str(self.reference))
        return held

    def _notice(self, held: Held) -> None:
        """Forget what is no longer so."""
        secrets_held = (held.current, held.pending, held.previous, phase_of(held) == "aborting")
        if self._held is None or secrets_held != self._held:
            self._held, self._evidence, self._said_last = secrets_held, Evidence(), ""
        if self._announced is not None and held.state.noted != self._announced[0]:
            self._announced = None  # another one announces calls now, or this one's was given up
        if self._learned[0] != held.state.rotation:
            self._learned = ("", None, None)

    def _view(self, held: Held, wish: Wish) -> View:
        state, now = held.state, self._clock.now()
        if self._learned[0] and held.pending is not None and state.pending_id is None:
            held = held._replace(state=replace(state, pending_id=self._learned[1], pending_expires=self._learned[2]))
        policy = self.policy
        urgent = state.compromised or policy.compromised
        asked = None if self._asked_at is None else self._asked_at.age(now)
        announced = None if self._announced is None else self._announced[1].age(now)
        return View(
            held,
            self._evidence._replace(age=float("inf") if asked is None or self._evidence.taking is None else asked),
            policy,
            self.capabilities,
            wish,
            self._due(held),
            open=self._left("noted", state.noted, state.open_for),
            waits=0.0 if urgent else self._left("claimed", state.claimed, policy.wait or 0.0),
            soaks=0.0 if urgent else self._left("promoted", state.promoted, policy.soak or 0.0),
            noted_ago=0.0 if state.noted is None else max(0.0, now.wall - state.noted),
            memory=self._memory._replace(announced=announced),
        )

    def _left(self, name: str, since: float | None, seconds: float) -> float:
        """Seconds left of a span that began at a stored instant.

        Stored instants are of wall clocks, which may be set: once seen, a span is also counted by this process's own
        clock. It is over when that has counted all of it, and not before that has counted what was left at first.
        """
        if since is None:
            return 0.0
        now, wall = self._clock.monotonic(), self._clock.now().wall
        left = max(0.0, min(since + seconds - wall, seconds))
        first, left_then = self._spans.setdefault((name, since, seconds), (now, left))
        if now - first >= seconds:
            return 0.0
        return max(left, left_then - (now - first))

    def _write(self, step: Step, held: Held, write: Callable[[float], object], state: RotationState) -> None:
        began = self._clock.monotonic()
        failure: SecretSourceError
        try:
            self._in_time(write, f"writing the store ({step.kind})")
        except (BackendUnavailable, DeadlineExceeded) as error:
            failure = error.again()
        else:
            self._wrote = (held.version, held.state) if held.state != state else None
            self._tell(step, held, "done", began, step.reason, rotation=state.rotation)
            return
        raise _Unavailable(failure)

    def _called(self, step: Step, held: Held, call: Callable[[Deadline], Any]) -> Any:
        """A call to the issuer, which ends with its announcement's time whatever the adapter does."""
        began, seconds = self._clock.monotonic(), self.policy.command_timeout
        if step.kind in ("apply", "mint") and self._announced is not None:
            seconds = max(0.0, seconds - self._announced[1].age(self._clock.now()))
        self._announced = None
        limit = Deadline(seconds, self._clock)
        outcome: Any
        try:
            outcome = in_time(lambda left: call(limit), seconds, f"{step.kind} at the issuer", self._clock)
        except ConfigurationError as error:
            outcome = Refused(error.message, error.hint)
        except SecretSourceError as error:
            outcome = Unknown(type(error).__name__)
        said = (
            "done"
            if isinstance(outcome, (Applied, Minted))
            else "failed"
            if isinstance(outcome, Refused)
            else "unknown"
        )
        self._tell(step, held, said, began, getattr(outcome, "reason", ""))
        return outcome

    def _stuck(self, outcome: Outcome, step: Step, view: View) -> Report:
        reason = f"{step.kind} at the issuer: {getattr(outcome, 'reason', '')}"
        hint = getattr(outcome, "hint", None) or "Run it again: it goes on from here"
        return replace(self._report("held", step, view), reason=reason, hint=hint)

    def _probe(self, held: Held, secret: Secret) -> Said:
        return probe(self.source, held.client_id, secret, self.capabilities.rejected)

    def _pair(self, held: Held) -> tuple[Secret | None, Secret]:
        if phase_of(held) == "aborting":
            return held.pending, held.current
        if held.pending is not None:
            return held.current, held.pending
        previous = held.previous if phase_of(held) == "soaking" else None
        return previous, held.current

    def _passed(self, point: Point, step: Step, view: View) -> Report | None:
        """None where the gates agree; one that aborts is remembered, and the next decision goes back."""
        held = view.held
        target = self.source.target
        moment = Moment(
            str(self.reference),
            held.client_id,
            target.name,
            target.environment,
            held.state.rotation,
            held.state.compromised or self.policy.compromised,
            held.version,
        )
        token: Token | None = None
        if point == "verify":
            token = self._token
            if token is None:
                return None
        began = self._clock.monotonic()
        answer = self._gates.ask(point, moment, token)
        if isinstance(answer, Hold):
            self._tell(step, held, "held", began, f"{point}: {answer.reason}")
            result: Result = "waiting" if point == "converged" else "held"
            return replace(self._report(result, step, view), reason=answer.reason)
        if isinstance(answer, Abort):
            self._tell(step, held, "held", began, f"{point}: {answer.reason}")
            if point == "before_claim":
                return replace(self._report("failed", step, view), reason=answer.reason)
            if point in ("before_retire", "converged"):
                return replace(self._report("held", step, view), reason=answer.reason)
            self._memory = self._memory._replace(refused=answer.reason)
            self._evidence = Evidence()
        return None

    def _preflight(self, held: Held) -> None:
        """All that can be found out before anything is changed. Raises what stands in the way."""
        self._in_time(lambda left: self.store.preflight(self.reference, timeout=left), "asking the store")
        limit = Deadline(self._timeout, self._clock)
        self._expires = in_time(
            lambda left: self.adapter.check(self._client(held), limit), self._timeout, "asking the issuer", self._clock
        ).expires

    def _new_secret(self, held: Held) -> Secret:
        made = self._generator()
        secret = made if isinstance(made, Secret) else Secret(made)
        del made
        fault = _fault(secret, held)
        if fault is None:
            return secret
        del secret
        raise ConfigurationError(f"the generator's secret {fault}", hint="secretsource generate makes one of 256 bits")

    def _binding(self, held: Held) -> Mapping[str, Secret]:
        """What the document should be bound to and is not yet."""
        target, bound = self.source.target, held.binding
        wanted = {"environment": None if bound.environment else target.environment or None}
        if not bound.issuer and not bound.token_url:
            wanted["issuer" if target.issuer else "token_url"] = target.issuer or target.token_url
        return {name: Secret(value) for name, value in wanted.items() if value}

    def _fresh(self, before: RotationState, **changes: Any) -> RotationState:
        """The state with which a rotation begins."""
        now = self._now()
        compromised = self.policy.compromised
        return replace(
            RotationState(
                rotation=secrets.token_hex(8),
                by=self._by,
                compromised=compromised,
                finished=before.finished,
                # AWS keeps this one to the end, so it says how late the old secret may have got a token.
                tokens_not_before=now + self.policy.open_for if compromised else before.tokens_not_before,
                expires=before.expires,
                current_id=before.current_id,
            ),
            **changes,
        )

    def _client(self, held: Held) -> Client:
        return Client(held.client_id, held.beside, self.source.target.environment, str(self.reference))

    def _due(self, held: Held) -> Due:
        return Due.of(held, self.policy, self._now(), name=f"{self.reference}", expires=self._expires)

    def _now(self) -> float:
        return round(self._clock.now().wall, 3)

    def _in_time(self, call: Callable[[float], T], phase: str) -> T:
        return in_time(call, self._timeout, phase, self._clock)

    def _tell(
        self, step: Step, held: Held, outcome: str, began: float, reason: str = "", *, rotation: str | None = None
    ) -> None:
        seconds = self._clock.monotonic() - began
        name = rotation or held.state.rotation
        self._events.append(RotationStep(str(self.reference), name, step.kind, outcome, seconds, reason))

    def _report(self, result: Result, step: Step, view: View, *, retry_after: float | None = None) -> Report:
        return Report(result, step.reason, step.hint, phase_of(view.held), view.held.state.rotation, retry_after)

    def _forget(self) -> None:
        """As a process that has just begun."""
        self._memory, self._evidence = Memory(), Evidence()
        self._held = self._asked_at = self._announced = self._wrote = None
        self._unsaid = self._token = self._expires = None
        self._learned = ("", None, None)
        self._spans = {}
        self._lost = 0
        self._said_last = self._waited_for = ""

    def _settled(self, policy: Policy) -> Policy:
        """The policy with defaults that fit this store and issuer."""
        ttl, capabilities = self.store.ttl, self.capabilities
        wait = policy.wait
        if wait is None:
            if getattr(self.store, "copied", False):
                raise ConfigurationError(
                    f"what reads {self.reference} reads copies, and only you know how soon those follow",
                    hint="Give --wait (wait= in the configuration): the longest time until every copy is new",
                )
            wait = ttl * 1.1 + _CONSUMERS_NEED if ttl else _OF_A_FILE
        several = capabilities.retires and not capabilities.single_slot
        return policy.settled(
            wait=wait,
            soak=_SOAK_OF_SEVERAL if several else wait,
            propagation=capabilities.propagation,
            landing=capabilities.landing,
        )


def _label(state: RotationState) -> str:
    return f"secretsource-{state.rotation}"


def _fault(secret: Secret, held: Held) -> str | None:
    """What is wrong with a secret that is to become the new one, in words that do not repeat it."""
    text = secret.reveal()
    if len(text) < 16 or len(set(text)) < 8:
        return "is too short, or too much alike"
    if not text.isascii() or not text.isprintable() or len(text) > 4096:
        return "has other characters in it than printable ASCII, or too many"
    return "is one that is there already" if secret in (held.current, held.pending, held.previous) else None
