"""One run: reads where a rotation stands, has the next step decided, makes it, and reads again.

Each step may be the last one that this process makes: another goes on from what the store holds. No lock is held;
where two are at work, the store's compare-and-set lets one of them go first, and the other reads again.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..backends import Held
from ..clock import Deadline
from ..errors import BackendError, BackendUnavailable, ConfigurationError, DeadlineExceeded, SecretSourceError
from ..events import Emitter, Event, RotationStep
from ..flight import in_time
from ..secret import Secret
from ..state import RotationState, short_name
from .decision import Memory, Phase, Step, View, Wish, decide, phase_of
from .hooks import Abort, Gates, Hold, Moment, Point
from .outcome import Applied, Minted, Outcome, Preflight, Refused, Unknown
from .parties import Parties
from .recollection import Recollection

__all__ = ["Report", "Result", "Run"]

Result = Literal["done", "waiting", "held", "failed", "ambiguous", "drift"]

_LONGEST_SLEEP = 15.0
_SHORTEST_SLEEP = 0.001  # instants are stored in milliseconds: a wall clock may not show less
_BETWEEN_READS = 0.2
_READS_THAT_MAY_BE_BEHIND = 25
_OVERTAKEN_AT_MOST = 50
_VANISH_AT_MOST = 3
_ATTEMPTS_TO_KEEP = 20


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


class _NotWritten(Exception):
    """Ends a step whose write was not made, or perhaps was."""

    def __init__(self, error: SecretSourceError) -> None:
        super().__init__()
        self.error = error


class _Stopped(Exception):
    """Ends a step to which a gate does not agree: with a report, with a wait, or (None) to be decided again."""

    def __init__(self, instead: Report | Step | None) -> None:
        super().__init__()
        self.instead = instead


class Run:
    """The steps that one process makes. What it knows beside the store is in `known`."""

    def __init__(self, parties: Parties, gates: Gates, emitter: Emitter) -> None:
        self._parties, self._gates, self._emitter = parties, gates, emitter
        self._clock, self._policy, self._adapter = parties.clock, parties.policy, parties.adapter
        self._by = f"{ascii(socket.gethostname())[1:-1][:60]}:{os.getpid()}:{secrets.token_hex(4)}"
        self.known = Recollection(parties)
        self._events: list[Event] = []
        self._vanished = 0  # writes that were never seen again
        self._lost = 0  # steps in a row whose read or write was not made
        self._waited_for = ""
        self._asked_when_it_ends = self._asked_a_person = False
        self._undone = ""  # what could not be done of what was promised

    def go(self, wish: Wish) -> Report:
        """Steps, until there is none to be made within the policy's `max_wait`."""
        deadline = Deadline(self._policy.max_wait, self._clock)
        try:
            while True:
                report = self.step(wish, deadline)
                if report is not None:
                    return report
        finally:
            self._parties.close()

    def step(self, wish: Wish, deadline: Deadline) -> Report | None:
        """One step, after which the observers are told what happened; a Report where there is none to be made."""
        try:
            try:
                held = self._read()
            except (BackendUnavailable, DeadlineExceeded) as error:
                failure: SecretSourceError = error.again()
            else:
                return self._decided(held, wish, deadline)
            self._overtaken(failure, deadline)
            return None
        finally:
            self._emit()

    def _emit(self) -> None:
        events, self._events = self._events, []
        self._emitter.emit(events)

    def _read(self) -> Held:
        held = self._parties.read()
        for _ in range(_READS_THAT_MAY_BE_BEHIND):
            if not self.known.is_behind(held):
                break
            self._clock.sleep(_BETWEEN_READS)
            held = self._parties.read()
        else:
            self.known.forget_written()
            self._vanished += 1
            if self._vanished > _VANISH_AT_MOST:
                raise BackendError(
                    f"{self._parties.name} says that it is written, and gives what was there before",
                    reference=self._parties.name,
                    store=self._parties.reference.store,
                    hint="Is what is read another copy than what is written? Find that out first",
                )
        return held

    def _decided(self, held: Held, wish: Wish, deadline: Deadline) -> Report | None:
        self.known.notice(held)
        view = self.known.view(held, wish)
        step = decide(view)
        if step.kind == "done" and wish == "rotate" and not view.due.now and self._ends_soon(held):
            return None
        began = self._clock.monotonic()
        instead: Report | Step | None = None
        failure: SecretSourceError | None = None
        try:
            instead = self._made(step, view, deadline)
        except _Stopped as caught:
            instead = caught.instead
        except _NotWritten as caught:
            failure = caught.error.again()
        if failure is not None:
            self._tell(step, held, "unknown", began, type(failure).__name__)
            self._overtaken(failure, deadline)
            return None
        self._lost = 0
        return self._wait(instead, view, deadline) if isinstance(instead, Step) else instead

    def _ends_soon(self, held: Held) -> bool:
        """Whether the issuer says that the secret ends before its age would make it due; asked once in a run."""
        if self._asked_when_it_ends:
            return False
        self._asked_when_it_ends = True
        with suppress(SecretSourceError):  # nothing is due, so nothing has to be possible
            self._parties.issuer_preflight(held)
        return self._parties.due(held).now

    def _overtaken(self, failure: SecretSourceError, deadline: Deadline) -> None:
        """Have all read and decided again, a moment later: another was faster, the store is down, or an answer lost.

        The failure is raised where nothing was read yet, or too often, or there is no time left.
        """
        self._lost += 1
        pause = min(_BETWEEN_READS * 1.5**self._lost, 5.0) * (0.5 + secrets.randbelow(100) / 100)
        if not self.known.has_read or self._lost > _OVERTAKEN_AT_MOST or pause > deadline.left():
            raise failure
        self._clock.sleep(pause)

    def _made(self, step: Step, view: View, deadline: Deadline) -> Report | None:
        match step.kind:
            case "wait":
                return self._wait(step, view, deadline)
            case "prove":
                return self._prove(step, view)
            case "done" | "held" | "failed" | "drift" as result:
                self._tell(step, view.held, result, self._clock.monotonic(), step.reason)
                return _report(result, step._replace(hint=step.hint or self._undone or None), view)
            case "refuse":
                raise ConfigurationError(f"{self._parties.name}: {step.reason}", hint=step.hint)
            case "claim":
                self._claim(step, view)
            case "adopt":
                self._adopt(step, view)
            case "turn":
                self._write_note(step, view.held, replace(view.held.state, goal="rotate", by=self._by))
            case "intend" | "note":
                self._note(step, view)
            case "apply":
                self._apply(step, view)
            case "mint":
                self._mint(step, view)
            case "promote":
                self._promote(step, view)
            case "abandon":
                self._abandon(step, view)
            case "reap" | "withdraw" | "retire" | "restore" | "remove":
                return self._end_at_the_issuer(step, view)
            case "drop":
                self._drop(step, view)
        return None

    # --- looking and waiting

    def _wait(self, step: Step, view: View, deadline: Deadline) -> Report | None:
        if step.wait > deadline.left():
            phase, words = phase_of(view.held), (view.evidence.leaving, view.evidence.taking)
            lost = "accepted" not in words and phase in ("intended", "applying", "aborting")
            if self.known.unsaid is not None and not lost:
                raise self.known.unsaid.again()
            return _report("ambiguous" if lost else "waiting", step, view, retry_after=step.wait)
        self._remind(view)
        if step.reason != self._waited_for:
            self._waited_for = step.reason
            self._tell(step, view.held, "waiting", self._clock.monotonic(), step.reason)
            self._emit()  # before it waits, for who looks on
        self._clock.sleep(min(max(step.wait, _SHORTEST_SLEEP), _LONGEST_SLEEP))  # meanwhile another may have gone on
        return None

    def _remind(self, view: View) -> None:
        """Have a person told once more what to do, where another process has told it before."""
        held, phase = view.held, phase_of(view.held)
        if self._asked_a_person or not self._parties.capabilities.asks or phase not in ("applying", "aborting"):
            return
        secret = held.current if phase == "aborting" else held.pending
        if secret is not None and view.open > self._policy.command_timeout:
            step, client = Step("apply", back=phase == "aborting"), self._parties.client(held)
            seconds = self._policy.command_timeout
            self._asked_a_person = True
            self._called(step, held, seconds, lambda limit: self._adapter.apply(client, secret, limit))

    def _prove(self, step: Step, view: View) -> Report | None:
        """Ask about the one being left, then about the one being taken.

        A change in between can make both look accepted, and never both rejected.
        """
        held, began = view.held, self._clock.monotonic()
        leaving, taking = self.known.pair(held)
        left = None if leaving is None else self._parties.probe(held, leaving)
        taken = self._parties.probe(held, taking)
        if self.known.heard(view, left, taken):
            words = ", ".join(said.word for said in (left, taken) if said is not None)
            self._tell(step, held, "done", began, words)
        if self.known.unsaid is not None and phase_of(held) == "idle":
            raise self.known.unsaid.again()
        return None

    # --- writing the store

    def _claim(self, step: Step, view: View) -> None:
        parties, held = self._parties, view.held
        self._ask_gates("before_claim", step, view)
        found = self._preflight(held)
        back = view.wish == "rollback"
        pending = held.previous if back else parties.new_secret(held)
        assert pending is not None, "decided so only where there is a previous one"
        state = self._begun(
            held.state,
            claimed=parties.now(),
            goal="rollback" if back else "rotate",
            current_id=short_name(found.current_id) or held.state.current_id,
        )
        beside = parties.missing_binding(held)
        self._write(
            step,
            held,
            state,
            lambda left: parties.store.claim(parties.reference, held, pending, state, beside=beside, timeout=left),
        )

    def _adopt(self, step: Step, view: View) -> None:
        """Begin with a pending secret that somebody else has put there."""
        held = view.held
        self._ask_gates("before_claim", step, view)
        found = self._preflight(held)
        current_id = short_name(found.current_id) or held.state.current_id
        state = self._begun(held.state, claimed=self._parties.now(), current_id=current_id)
        self._write_note(step, held, state, self._parties.missing_binding(held))

    def _note(self, step: Step, view: View) -> None:
        """Announce a call to the issuer, with the instant from which it may take effect."""
        held = view.held
        if step.kind == "intend":
            self._ask_gates("before_claim", step, view)
            found = self._preflight(held)
            self._ask_gates("before_apply", step, view)
            current_id = short_name(found.current_id) or held.state.current_id
            state = self._begun(held.state, intended=True, current_id=current_id)
        else:
            if not (step.back or view.memory.announced is not None or held.state.intended):  # else they were asked
                self._ask_gates("converged", step, view)
                self._ask_gates("before_retire" if step.call == "retire" else "before_apply", step, view)
            state = replace(held.state, goal="abort") if step.back else held.state
        if step.call in ("apply", "mint"):
            self._parties.prepare(held)
        state = replace(
            state,
            by=self._by,
            noted=self._parties.now(),
            open_for=max(self._policy.open_for, view.open),  # an earlier one may be open yet
            calls=state.calls + 1,
            # A leak found while the last rotation soaks is not what that one was for.
            compromised=state.compromised or (self._policy.compromised and step.call != "retire"),
        )
        at = self._clock.now()
        self._write_note(step, held, state)
        self.known.announce(state.noted, at)
        self._remember(call=step.call, reaped=False)

    def _promote(self, step: Step, view: View) -> None:
        parties, held, state = self._parties, view.held, view.held.state
        self._ask_gates("verify", step, view)
        self._ask_gates("before_promote", step, view)
        compromised, now = state.compromised or self._policy.compromised, parties.now()
        promoted = replace(
            self._over(state),
            compromised=compromised,
            goal=state.goal,
            promoted=now,
            tokens_not_before=now if compromised else state.tokens_not_before,
            expires=state.pending_expires,
            current_id=state.pending_id,
            previous_id=state.current_id,
        )
        self._write(
            step,
            held,
            promoted,
            lambda left: parties.store.promote(
                parties.reference, held, promoted, keep_previous=not compromised, timeout=left
            ),
        )

    def _abandon(self, step: Step, view: View) -> None:
        parties, held = self._parties, view.held
        over = self._over(held.state)
        if held.state.compromised:  # nothing was changed, so no token is too old for it
            over = replace(over, tokens_not_before=None)
        self._write(step, held, over, lambda left: parties.store.abandon(parties.reference, held, over, timeout=left))
        memory = self.known.memory
        self._remember(abandoned=True, unwanted=memory.unwanted or memory.refused or step.reason)

    def _drop(self, step: Step, view: View) -> None:
        parties, held, state = self._parties, view.held, view.held.state
        if not parties.capabilities.retires:
            self._ask_gates("converged", step, view)
            self._ask_gates("before_retire", step, view)
        over = replace(self._over(state), finished=state.promoted)
        undone: list[str] = []

        def write(left: float) -> None:
            said = parties.store.drop_previous(parties.reference, held, over, timeout=left)
            undone.extend([said] if said else [])

        self._write(step, held, over, write)
        for self._undone in undone:
            self._tell(step, held, "unfinished", self._clock.monotonic(), self._undone)
        # One that leaked is not done with by a rotation that had begun before that was known.
        self.known.memory = Memory(rotated=state.compromised or not self._policy.compromised)

    # --- calling the issuer

    def _apply(self, step: Step, view: View) -> None:
        held = view.held
        secret = held.current if step.back else held.pending
        assert secret is not None, "decided so only where one is pending"
        client, seconds = self._parties.client(held), self.known.take_up()
        if not seconds:
            return
        self._asked_a_person = True
        outcome = self._called(step, held, seconds, lambda limit: self._adapter.apply(client, secret, limit))
        if isinstance(outcome, Applied) and not step.back:
            self.known.learn(held.state.rotation, outcome.id, outcome.expires)

    def _mint(self, step: Step, view: View) -> None:
        held = view.held
        client, seconds, label = self._parties.client(held), self.known.take_up(), _label(held.state)
        if not seconds:
            return
        outcome = self._called(step, held, seconds, lambda limit: self._adapter.mint(client, label, limit))
        if isinstance(outcome, Minted):
            self._keep_minted(held, outcome)
        elif outcome.beside:
            kept = outcome.beside
            self._keep(step, held, held.state, lambda now, left: self._noted(now, held.state, kept, left))

    def _keep_minted(self, held: Held, minted: Minted) -> None:
        parties = self._parties
        state = replace(
            held.state,
            intended=False,
            by=self._by,
            claimed=parties.now(),
            pending_id=short_name(minted.id),
            pending_expires=minted.expires,
        )
        beside = {**parties.missing_binding(held), **(minted.beside or {})}

        def claim(now: Held, left: float) -> None:
            parties.store.claim(parties.reference, now, minted.secret, state, beside=beside, timeout=left)

        self._keep(Step("claim", "the issuer has generated it"), held, state, claim)

    def _keep(self, step: Step, held: Held, state: RotationState, write: Callable[[Held, float], None]) -> None:
        """Write what the issuer has handed out: nobody else has it, so this is tried for longer than other writes."""
        begun = held.state.rotation, held.state.intended, held.state.noted
        for attempt in range(_ATTEMPTS_TO_KEEP):
            now = held
            try:
                self._write(step, now, state, lambda left, now=now: write(now, left))  # type: ignore[misc]
                return
            except _NotWritten:
                self._clock.sleep(min(_BETWEEN_READS * 1.5**attempt, 5.0))
            try:
                held = self._parties.read()
            except (BackendUnavailable, DeadlineExceeded):
                continue
            if (held.state.rotation, held.state.intended, held.state.noted) != begun:
                return  # it is there; or somebody else goes on, and what was generated is reaped by its label

    def _end_at_the_issuer(self, step: Step, view: View) -> Report | None:
        """Calls that end a secret, by the issuer's names for them, so that one which lands late ends no other."""
        held, state, adapter, client = view.held, view.held.state, self._adapter, self._parties.client(view.held)
        keep, gone = state.current_id, state.previous_id
        announced = step.kind in ("reap", "withdraw") or (step.kind == "retire" and gone is None)
        if step.kind == "retire" and not announced:
            self._ask_gates("converged", step, view)
            self._ask_gates("before_retire", step, view)
        call: Callable[[Deadline], Outcome] = {
            "reap": lambda limit: adapter.reap(client, _label(state), limit),
            "withdraw": lambda limit: adapter.retire(client, keep, state.pending_id, limit),
            "retire": lambda limit: adapter.retire(client, keep, gone, limit),
            "restore": lambda limit: adapter.restore(client, limit),
            "remove": lambda limit: adapter.remove(client, keep, gone, limit),
        }[step.kind]
        seconds = self._policy.command_timeout
        if announced:
            seconds = self.known.take_up()
            if not seconds:
                return None
        outcome = self._called(step, held, seconds, call)
        done = isinstance(outcome, Applied)
        if step.kind == "restore":
            self._remember(retired=False)
            hint = "See why the issuer does not accept the current secret before the old one is retired again"
            return _report("held" if done else "ambiguous", step._replace(hint=hint), view)
        if not done:
            hint = getattr(outcome, "hint", None) or "Run it again: it goes on from here"
            reason = f"{step.kind}: {getattr(outcome, 'reason', 'the adapter answered another call')}"
            # A missing right does not go away by itself; the current secret works.
            result: Result = "failed" if isinstance(outcome, Refused) else "held"
            return replace(_report(result, step, view), reason=reason, hint=hint)
        done_so = {"reap": "reaped", "withdraw": "withdrawn", "retire": "retired", "remove": "removed"}
        self._remember(**{done_so[step.kind]: True})
        return None

    def _called(self, step: Step, held: Held, seconds: float, call: Callable[[Deadline], Any]) -> Any:
        """How a call ended, which lasts no longer than it was announced for, whatever the adapter does."""
        began, limit = self._clock.monotonic(), Deadline(seconds, self._clock)
        outcome: Any
        try:
            outcome = in_time(
                lambda left: self._parties.asked(lambda: call(limit), held),
                seconds,
                f"{step.kind} at the issuer",
                self._clock,
            )
        except SecretSourceError as error:
            outcome = Unknown(type(error).__name__)
        self.known.forget_evidence()
        if isinstance(outcome, Refused) and step.kind in ("apply", "mint"):
            reason = f"the issuer refused it: {outcome.reason}"
            self._remember(**{"kept_out" if step.back else "refused": reason})
        how = "failed" if isinstance(outcome, Refused) else "unknown" if isinstance(outcome, Unknown) else "done"
        self._tell(step, held, how, began, getattr(outcome, "reason", ""))
        return outcome

    # --- what steps are made of

    def _write(self, step: Step, held: Held, state: RotationState, write: Callable[[float], object]) -> None:
        began = self._clock.monotonic()
        failure: SecretSourceError
        self.known.will_write(state)
        try:
            self._parties.in_time(write, f"writing the store ({step.kind})")
        except (BackendUnavailable, DeadlineExceeded) as error:
            failure = error.again()
        else:
            self.known.note_written(held, state)
            self._tell(step, held, "done", began, step.reason, rotation=state.rotation)
            return
        raise _NotWritten(failure)

    def _write_note(
        self, step: Step, held: Held, state: RotationState, beside: Mapping[str, Secret] | None = None
    ) -> None:
        self._write(step, held, state, lambda left: self._noted(held, state, beside or {}, left))

    def _noted(self, held: Held, state: RotationState, beside: Mapping[str, Secret], left: float) -> None:
        self._parties.store.note(self._parties.reference, held, state, beside=beside, timeout=left)

    def _preflight(self, held: Held) -> Preflight:
        """All that can be found out before anything is changed. Raises what stands in the way."""
        self._parties.store_cautions()
        return self._parties.issuer_preflight(held)

    def _ask_gates(self, point: Point, step: Step, view: View) -> None:
        """Return where they agree. One that aborts is remembered, and the next decision goes back."""
        held, target, began = view.held, self._parties.target, self._clock.monotonic()
        moment = Moment(
            self._parties.name,
            held.client_id,
            target.name,
            target.environment,
            held.state.rotation,
            held.state.compromised or self._policy.compromised,
            held.version,
        )
        answer = self._gates.ask(point, moment, self.known.token if point == "verify" else None)
        if not isinstance(answer, (Hold, Abort)):
            return
        answer = replace(answer, reason=self._parties.reason(answer.reason, held, self.known.token))
        self._tell(step, held, "held", began, f"{point}: {answer.reason}")
        if isinstance(answer, Abort) and point in ("before_apply", "before_promote", "verify"):
            self._remember(unwanted=answer.reason)
            raise _Stopped(None)
        if isinstance(answer, Hold) and point == "converged":
            raise _Stopped(Step("wait", f"{point}: {answer.reason}", _LONGEST_SLEEP))
        result: Result = "failed" if isinstance(answer, Abort) and point == "before_claim" else "held"
        raise _Stopped(replace(_report(result, step, view), reason=f"{point}: {answer.reason}"))

    def _begun(self, before: RotationState, **changes: Any) -> RotationState:
        """The state with which a rotation begins."""
        compromised = self._policy.compromised
        return replace(
            RotationState(
                rotation=secrets.token_hex(8),
                by=self._by,
                compromised=compromised,
                finished=before.finished,
                # A store that keeps this state to the end has no later one to say how old a token may be.
                tokens_not_before=self._parties.now() + self._policy.open_for
                if compromised
                else before.tokens_not_before,
                expires=before.expires,
                current_id=before.current_id,
            ),
            **changes,
        )

    def _over(self, state: RotationState) -> RotationState:
        """What is kept of a state when its rotation is over: also until when its calls may take effect."""
        return RotationState(
            rotation=state.rotation,
            by=self._by,
            noted=state.noted,
            open_for=state.open_for,
            finished=state.finished,
            tokens_not_before=state.tokens_not_before,
            expires=state.expires,
            current_id=state.current_id,
        )

    def _remember(self, **changes: Any) -> None:
        self.known.memory = self.known.memory._replace(**changes)

    def _tell(
        self, step: Step, held: Held, outcome: str, began: float, reason: str = "", *, rotation: str | None = None
    ) -> None:
        seconds = self._clock.monotonic() - began
        name = rotation or held.state.rotation
        self._events.append(RotationStep(self._parties.name, name, step.kind, outcome, seconds, reason))


def _report(result: Result, step: Step, view: View, *, retry_after: float | None = None) -> Report:
    return Report(result, step.reason, step.hint, phase_of(view.held), view.held.state.rotation, retry_after)


def _label(state: RotationState) -> str:
    return f"secretsource-{state.rotation}"
