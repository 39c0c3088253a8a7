"""What comes next in the change of a secret: a pure function of the store's state, the token endpoint and the clock.

The state lives in the store, so that any process may go on where another one died. The token endpoint is the oracle:
whether a call to the issuer has taken effect, only a token can tell. A call that was announced is *open* until it can
no longer take effect; meanwhile nothing is claimed and nothing is given up.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..backends import Held
from ..durations import shown_duration
from .outcome import Capabilities
from .policy import Due, Policy

__all__ = ["FRESH", "Call", "Evidence", "Kind", "Memory", "Phase", "Step", "View", "Wish", "Word", "decide", "phase_of"]

Word = Literal["accepted", "rejected", "unknown"]
Wish = Literal["rotate", "resume", "abort", "rollback"]
Phase = Literal["idle", "intended", "claimed", "applying", "aborting", "soaking"]
Call = Literal["apply", "mint", "reap", "withdraw", "retire"]
Kind = Literal[
    "prove",
    "wait",
    "claim",
    "adopt",
    "intend",
    "mint",
    "reap",
    "note",
    "apply",
    "turn",
    "withdraw",
    "promote",
    "retire",
    "restore",
    "remove",
    "drop",
    "abandon",
    "done",
    "held",
    "failed",
    "drift",
    "refuse",
]

FRESH = 5.0
"""Seconds for which an announcement, and what the token endpoint said, may be acted on."""

_MISSES = 3
_BETWEEN_MISSES = 1.0
_ASK_AGAIN = (1.0, 10.0)  # seconds: the first pause, and the longest
_ASK_AGAIN_OF_LOCKOUT = 60.0
_GENERATED_MUST_WORK_WITHIN = 600.0
_CALLS_OF_A_GAP = 3
_CALLS_IN_VAIN = 5


class Evidence(NamedTuple):
    """What the token endpoint said about the secret being left, then about the one being taken, since these are held.

    `proofs`: pairs in a row after which the one is taken, over `proved_for` seconds; `returns`: pairs in a row with the
    one being left accepted and the other rejected; `misses`: with both rejected. `age`: seconds since the last pair.
    """

    leaving: Word | None = None
    taking: Word | None = None
    proofs: int = 0
    proved_for: float = 0.0
    returns: int = 0
    returned_for: float = 0.0
    misses: int = 0
    age: float = float("inf")

    def and_then(self, leaving: Word | None, taking: Word, *, single_slot: bool) -> Evidence:
        """With one more pair, which came `age` seconds after the last."""
        taken = taking == "accepted" and (leaving in (None, "rejected") or not single_slot)
        returned = leaving == "accepted" and taking == "rejected"
        missed = leaving in (None, "rejected") and taking == "rejected"
        return Evidence(
            leaving,
            taking,
            self.proofs + 1 if taken else 0,
            self.proved_for + self.age if taken and self.proofs else 0.0,
            self.returns + 1 if returned else 0,
            self.returned_for + self.age if returned and self.returns else 0.0,
            # Two a moment apart are one look: a change in between may have crossed both.
            self.misses + (not self.misses or self.age >= _BETWEEN_MISSES) if missed else 0,
            0.0,
        )


class Memory(NamedTuple):
    """What only this run knows. `announced`: seconds since it announced a call, `call`, that it has not made yet.

    `unwanted`: why a gate said no, `refused`: why the issuer did, `kept_out`: why it does not take the current secret
    back. `reaped`, `withdrawn`, `retired`, `removed`: done, as far as it answered. `rotated`, `abandoned`: this run has
    ended a rotation.
    """

    announced: float | None = None
    call: Call = "apply"
    unwanted: str | None = None
    refused: str | None = None
    kept_out: str | None = None
    reaped: bool = False
    withdrawn: bool = False
    retired: bool = False
    removed: bool = False
    rotated: bool = False
    abandoned: bool = False


class View(NamedTuple):
    """All that a decision rests on. `open`, `waits`, `soaks`: seconds for which a call may still take effect, consumers
    may not hold the pending secret, and the previous one is kept. `noted_ago`: since a call was last announced, or else
    since the pending secret is there."""

    held: Held
    evidence: Evidence
    policy: Policy
    capabilities: Capabilities
    wish: Wish
    due: Due
    open: float = 0.0
    waits: float = 0.0
    soaks: float = 0.0
    noted_ago: float = 0.0
    memory: Memory = Memory()


class Step(NamedTuple):
    """What to do next. `wait`: seconds until the next look. `back`: the current secret is to be the only one again.

    `call`: what a note announces.
    """

    kind: Kind
    reason: str = ""
    wait: float = 0.0
    back: bool = False
    hint: str | None = None
    call: Call = "apply"


def phase_of(held: Held) -> Phase:
    """How far the rotation in this store is."""
    state = held.state
    if held.pending is not None:
        return "aborting" if state.goal == "abort" else "applying" if state.calls else "claimed"
    if state.intended:
        return "intended"
    return "idle" if state.promoted is None else "soaking"


def decide(view: View) -> Step:
    """The next step. The same view gives the same step, whoever asks."""
    match phase_of(view.held):
        case "idle":
            return _idle(view)
        case "intended":
            return _intended(view)
        case "soaking":
            return _soaking(view)
        case "aborting":
            return _aborting(view)
    if view.held.state.claimed is None:
        if view.open:
            return _closing(view)
        return Step("adopt", "a pending secret that somebody else has put there")
    unwanted = view.wish == "abort" or (view.wish == "rollback" and view.held.state.goal != "rollback")
    # An issuer also refuses what it has already.
    refused = view.memory.refused is not None and view.evidence.taking != "accepted"
    return _going_back(view) if unwanted or refused or view.memory.unwanted is not None else _going_on(view)


# --- nothing under way


def _idle(view: View) -> Step:
    memory, said = view.memory, view.evidence
    if memory.abandoned or _said_no(memory):
        reason = _said_no(memory) or "the rotation was taken back"
        return Step("done" if view.wish in ("abort", "rollback") else "failed", reason)
    if memory.rotated:
        return Step("done", "the secret is changed")
    if view.wish in ("resume", "abort") and not view.open:
        return Step("done", "nothing is under way")
    if view.wish == "rollback" and view.held.previous is None:
        return Step("refuse", "there is no previous secret to go back to", hint="Put the right one there by put")
    if view.wish == "rotate" and not view.due.now:
        return Step("done", f"nothing is due: {view.due.reason}")
    if view.open:
        return _closing(view)
    if said.taking == "rejected" and said.misses >= _MISSES and said.age <= FRESH:
        return _drift("the issuer does not accept the current secret, and no rotation is under way")
    if said.taking != "accepted" or said.age > FRESH:
        return _look(view, "whether the issuer accepts the current secret")
    if view.capabilities.chosen:
        return Step("claim", view.due.reason)
    if view.wish == "rollback":
        return _no_way_back("this issuer chooses its secrets itself")
    if view.capabilities.single_slot and not view.policy.accept_gap:
        return Step(
            "refuse",
            "the issuer generates the secret and ends the old one at once: calls may fail until the new one is stored",
            hint="--accept-gap takes that upon you; an adapter that gives the issuer our secret has no gap",
        )
    return Step("intend", view.due.reason, call="mint")


# --- a generated secret was asked for, and is not held


def _intended(view: View) -> Step:
    memory, said, capabilities = view.memory, view.evidence, view.capabilities
    if memory.announced is not None and not capabilities.chosen and (memory.refused is None or memory.call == "reap"):
        return _announced(view)
    # What was reaped under the last note has landed.
    unwanted = view.wish in ("abort", "rollback") or _said_no(memory) is not None or capabilities.chosen
    if view.open and (unwanted or not memory.reaped):
        return _closing(view)
    lost = memory.refused is None or view.held.state.calls > 1
    if lost and not (capabilities.single_slot or capabilities.chosen or memory.reaped):
        return Step("note", "a secret may have been generated whose value nobody holds", call="reap")
    if unwanted:
        if said.taking == "accepted":
            if _proved(said.proofs, said.proved_for, view.policy) and said.age <= FRESH:
                return Step("abandon", _said_no(memory) or "it was asked for")
            return _look(view, "whether the issuer accepts the current secret", every=_spacing(view.policy))
        if said.taking != "rejected" or said.misses < _MISSES or said.age > FRESH:
            return _look(view, "whether the issuer accepts the current secret")
        if not capabilities.single_slot:
            return _drift("the issuer does not accept the current secret")
        return _no_way_back("the issuer has generated another secret, whose value was lost on the way")
    if capabilities.single_slot and view.held.state.calls >= _CALLS_OF_A_GAP and not view.policy.force:
        return Step(
            "held",
            f"{view.held.state.calls} generated secrets were lost on the way",
            hint="See why its answers do not arrive, then run secretsource rotate run --force",
        )
    return Step("note", "another secret is asked for, since the value of the last one was lost", call="mint")


# --- a pending secret is held


def _going_on(view: View) -> Step:
    said, state = view.evidence, view.held.state
    if view.memory.announced is not None:
        return _announced(view)
    # Somebody may have given it to the issuer already; one that locks clients out is not asked for that.
    asked = said.taking is not None or view.capabilities.lockout
    if view.waits and not state.calls and asked and said.taking != "accepted":
        return Step("wait", "until consumers hold the pending secret", view.waits)
    if said.taking is None:
        return _look(view, "which secrets the issuer accepts")
    if said.taking == "accepted":
        return _taken(view)
    if "unknown" in (said.leaving, said.taking):
        return _look(view, "the token endpoint does not say")
    if said.leaving == "rejected":
        return _both_rejected(view)
    if view.open:
        return _look(view, "the call has not taken effect yet", until=view.open)
    if not view.capabilities.chosen:
        if view.noted_ago < _GENERATED_MUST_WORK_WITHIN:
            return _look(view, "the generated secret is not accepted yet")
        return _going_back(view)
    if said.age > FRESH:
        return Step("prove", "which secrets the issuer accepts")
    if state.calls >= _CALLS_IN_VAIN and not view.capabilities.asks:
        return _going_back(view)
    return Step("note", "a call is announced" if not state.calls else "the call has not taken effect: once more")


def _taken(view: View) -> Step:
    """The issuer accepts the pending secret."""
    said, policy = view.evidence, view.policy
    if view.capabilities.single_slot and said.leaving != "rejected":
        return _look(view, "the issuer accepts both: not all of it has changed yet")
    if said.leaving == "accepted" and view.waits:
        return Step("wait", "until consumers hold the pending secret", view.waits)
    if not _proved(said.proofs, said.proved_for, policy):
        return _look(view, f"proof {said.proofs} of {policy.proofs} of the pending secret", every=_spacing(policy))
    return Step("promote") if said.age <= FRESH else Step("prove", "the proofs are too old")


def _going_back(view: View) -> Step:
    """The pending secret is to be given up before it is promoted."""
    said, policy, capabilities = view.evidence, view.policy, view.capabilities
    if view.open:
        return _closing(view)
    if said.taking is None or "unknown" in (said.leaving, said.taking):
        return _look(view, "which secrets the issuer accepts")
    if said.taking == "rejected" and said.leaving == "rejected":
        return _both_rejected(view)
    if said.leaving == "accepted" and _can_withdraw(view) and (said.taking == "accepted" or not capabilities.chosen):
        if said.age > FRESH:
            return Step("prove", "which secrets the issuer accepts")
        return Step("note", "the pending secret is withdrawn", back=True, call="withdraw")
    if said.taking == "rejected":
        if _proved(said.returns, said.returned_for, policy) and said.age <= FRESH:
            return Step("abandon", _said_no(view.memory) or _why_back(view))
        return _look(view, f"proof {said.returns} of {policy.proofs} of the current secret", every=_spacing(policy))
    # The issuer has taken the pending one already.
    if (
        capabilities.chosen
        and view.memory.kept_out is None
        and not (capabilities.retires and said.leaving == "accepted")
    ):
        if said.age > FRESH:
            return Step("prove", "which secrets the issuer accepts")
        return Step("note", "the current secret is put back", back=True)
    if view.wish in ("abort", "rollback"):
        return _no_way_back("the issuer has taken the new secret, and cannot be given the old one")
    hint = "The issuer has the new secret: secretsource rotate run goes on"
    return Step("held", _said_no(view.memory) or "", hint=hint)


def _aborting(view: View) -> Step:
    """The current secret is being put back; the pair is turned: the pending one is left."""
    said, policy = view.evidence, view.policy
    if view.memory.announced is not None:
        return _announced(view, back=True)
    if said.taking is None or "unknown" in (said.leaving, said.taking):
        return _look(view, "which secrets the issuer accepts")
    if said.leaving == "rejected" and said.taking == "rejected":
        return _both_rejected(view)
    if view.open:
        return _look(view, "an earlier call may still take effect", until=view.open)
    if said.taking == "accepted":
        unsure = said.leaving == "accepted" or not (view.capabilities.chosen or view.memory.withdrawn)
        if unsure and _can_withdraw(view):
            if said.age > FRESH:
                return Step("prove", "which secrets the issuer accepts")
            return Step("note", "the pending secret is withdrawn", back=True, call="withdraw")
        if said.leaving == "accepted" and view.capabilities.single_slot:
            return _look(view, "the issuer accepts both: not all of it has changed yet")
        if _proved(said.proofs, said.proved_for, policy) and said.age <= FRESH:
            return Step("abandon", "the current secret is back")
        return _look(view, f"proof {said.proofs} of {policy.proofs} of the current secret", every=_spacing(policy))
    if said.age > FRESH:
        return Step("prove", "which secrets the issuer accepts")
    if view.memory.kept_out is not None or not view.capabilities.chosen:
        return Step("turn", "the issuer does not take the old secret back, so it goes forward")
    return Step("note", "the current secret is put back", back=True)


# --- promoted


def _soaking(view: View) -> Step:
    said, capabilities, memory = view.evidence, view.capabilities, view.memory
    if view.wish == "abort":
        hint = "secretsource rotate rollback takes the previous one back"
        return Step("refuse", "the new secret is in use, so there is nothing to abort", hint=hint)
    if view.wish == "rollback" and view.held.state.goal != "rollback":
        if view.held.state.compromised or view.held.previous is None:
            return _no_way_back("a secret that has leaked is not taken back, and none is kept")
        if not capabilities.chosen:
            return _no_way_back("this issuer chooses its secrets itself")
        if capabilities.retires and not capabilities.single_slot and not view.soaks:
            return _no_way_back("the issuer may be ending the previous secret at this moment")
        if view.open:
            return _closing(view)
        if said.taking == "accepted" and said.age <= FRESH:
            return Step("claim", "the previous secret is taken back")
        if said.taking != "rejected":
            return _look(view, "whether the issuer accepts the current secret")
    elif view.soaks:
        return Step("wait", "the previous secret is kept", view.soaks)
    if said.taking == "rejected":
        if memory.retired and capabilities.restores:
            return Step("restore", "the current secret is not accepted after the previous one was retired")
        if view.open or max(said.misses, said.returns) < _MISSES or said.age > FRESH:
            return _look(view, "the issuer does not accept the current secret", every=_BETWEEN_MISSES)
        return _drift(
            "the issuer accepts the previous secret and not the current one"
            if said.leaving == "accepted"
            else "the issuer accepts neither the current nor the previous secret"
        )
    if said.taking != "accepted" or said.age > FRESH:
        return _look(view, "whether the issuer accepts the current secret")
    if capabilities.retires and not memory.retired:
        if view.held.state.previous_id is not None:
            return Step("retire", "the previous secret has served its time")
        # Without the issuer's name for it, a call that lands late could end another one.
        if memory.announced is not None:
            return _announced(view)
        return _closing(view) if view.open else Step("note", "the previous secret has served its time", call="retire")
    if capabilities.restores and not memory.removed:
        return Step("remove", "the current secret is accepted without the previous one")
    return Step("drop", "the previous secret has served its time")


# --- what recurs


def _announced(view: View, *, back: bool = False) -> Step:
    """The call that is announced; announced once more, if this process has been stopped for a while since."""
    call, seconds = view.memory.call, view.memory.announced
    if seconds is not None and seconds <= FRESH:
        return Step(call, back=back and call == "apply")
    return Step("note", "its announcement is too old", back=back, call=call)


def _can_withdraw(view: View) -> bool:
    """Whether the issuer can end the pending secret, and it alone."""
    ids = view.held.state.pending_id, view.held.state.current_id
    return view.capabilities.retires and not view.capabilities.single_slot and any(ids)


def _why_back(view: View) -> str:
    if view.wish in ("abort", "rollback"):
        return "it was asked for"
    return f"{view.held.state.calls} calls to the issuer had no effect"


def _said_no(memory: Memory) -> str | None:
    return memory.unwanted or memory.refused


def _proved(count: int, seconds: float, policy: Policy) -> bool:
    return count >= policy.proofs and seconds >= (policy.propagation or 0.0)


def _spacing(policy: Policy) -> float:
    return (policy.propagation or 0.0) / max(1, policy.proofs - 1)


def _look(view: View, reason: str, *, every: float | None = None, until: float | None = None) -> Step:
    """Ask the token endpoint, if it was not asked a moment ago."""
    said = view.evidence
    if every is None:
        first, longest = _ASK_AGAIN
        every = min(first * 1.5 ** min(said.returns, 20), longest)
    if until is not None:
        every = min(every, max(until, 0.05))
    if view.capabilities.lockout and "rejected" in (said.leaving, said.taking):
        every = max(every, _ASK_AGAIN_OF_LOCKOUT)
    left = every - said.age
    return Step("prove", reason) if left <= 0 else Step("wait", reason, left)


def _closing(view: View) -> Step:
    left = shown_duration(view.open)
    return Step("wait", f"a call to the issuer may still take effect, for {left}", view.open)


def _both_rejected(view: View) -> Step:
    # Until a change holds on all nodes of the issuer, one may have rejected the old secret and another the new one.
    spreading = view.held.state.calls > 0 and view.noted_ago < (view.policy.propagation or 0.0)
    if view.open or spreading:
        return _look(view, "the issuer accepts neither secret for now", until=view.open or None)
    if view.evidence.misses < _MISSES or view.evidence.age > FRESH:
        return _look(view, "the issuer accepts neither secret", every=_BETWEEN_MISSES)
    return _drift("the issuer accepts neither the current nor the pending secret")


def _drift(what: str) -> Step:
    return Step(
        "drift",
        f"{what}: somebody has changed it, or the client is disabled, or this is another issuer",
        hint="secretsource rotate drift says which one it accepts; put writes the one that it has into the store",
    )


def _no_way_back(why: str) -> Step:
    return Step("refuse", f"it cannot go back: {why}", hint="Go on with secretsource rotate run")
