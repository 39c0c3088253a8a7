"""What a rotation would do and what stands in its way, found out without writing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ..backends import Held
from ..durations import shown_duration
from ..errors import ConfigurationError, CredentialsRejected, SecretSourceError
from .decision import Phase, phase_of
from .parties import Parties

__all__ = ["Finding", "Plan", "plan_of"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, what was found, and what to do about it."""

    name: str
    status: Literal["ok", "warning", "failed", "skipped"]
    found: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """`steps`: what would be done, in order. `error`: why it cannot be, from the first finding that failed."""

    findings: tuple[Finding, ...]
    steps: tuple[str, ...]
    error: SecretSourceError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


def plan_of(parties: Parties) -> Plan:
    """Look at everything that a rotation needs: binding, permissions, slots, the current secret, who reads it."""
    looking = _Looking(parties)
    findings = tuple(looking.findings())
    return Plan(findings, () if looking.error is not None else tuple(looking.steps()), looking.error)


class _Looking:
    def __init__(self, parties: Parties) -> None:
        self._parties = parties
        self._held: Held | None = None
        self.error: SecretSourceError | None = None

    def findings(self) -> Iterator[Finding]:
        """Each is looked at also where another one failed, as far as it does not need that one."""
        parties = self._parties
        yield self._looked("store", self._store)
        for look in (self._writing, self._binding, self._under_way, self._current, self._issuer):
            name = look.__name__.strip("_").replace("_", " ")
            if self._held is None:
                yield Finding(name, "skipped", "the store could not be read")
            else:
                yield self._looked(name, look)
        yield self._consumers()
        if self._held is not None:
            due = parties.due(self._held)
            yield Finding("due", "ok", due.reason)
        if parties.policy.compromised:
            yield Finding("compromised", "warning", *self._what_may_fail())

    def steps(self) -> Iterator[str]:
        assert self._held is not None
        phase = phase_of(self._held)
        if phase == "idle" and not self._parties.due(self._held).now:
            return
        yield from self._steps_from(phase)
        if self._is_in_the_way(phase):
            yield from self._steps_from("idle")

    def _is_in_the_way(self, phase: Phase) -> bool:
        """Whether what is under way is ended first: the secret that it has made has leaked."""
        assert self._held is not None
        return phase == "soaking" and self._parties.policy.compromised and not self._held.state.compromised

    def _steps_from(self, phase: Phase) -> Iterator[str]:
        policy, can = self._parties.policy, self._parties.capabilities
        if phase == "aborting":
            yield "have the issuer accept the current secret again, prove it, and give the pending one up"
            return
        if phase == "idle" and can.chosen:
            yield "write a new secret into the store as pending"
        if phase in ("idle", "intended") and not can.chosen:
            yield "have the issuer generate a secret, and write it into the store as pending at once"
        if phase in ("idle", "claimed") and policy.wait:
            yield f"wait {shown_duration(policy.wait)}, until consumers hold it"
        if phase in ("idle", "claimed") and can.chosen:
            yield "announce the call in the store, and give the secret to the issuer" + (" (a person does)" * can.asks)
        if phase != "soaking":
            over = f" over {shown_duration(policy.propagation)}" if policy.propagation else ""
            yield f"prove it by {policy.proofs} tokens in a row{over}"
            yield "promote it: pending becomes current" + ("" if policy.compromised else ", current becomes previous")
        if policy.soak:
            yield f"keep the previous one for {shown_duration(policy.soak)}"
        if can.retires:
            yield "have the issuer end the previous one" + (", and look whether all is well" * can.restores)
        yield "take the previous one out of the store"

    def _looked(self, name: str, look: Callable[[], Finding]) -> Finding:
        failure: SecretSourceError
        try:
            return look()
        except SecretSourceError as error:
            failure = error.again()
        self.error = self.error or failure
        return Finding(name, "failed", failure.message, failure.hint)

    def _store(self) -> Finding:
        parties = self._parties
        self._held = parties.read()
        return Finding("store", "ok", f"{parties.name} holds the secret of client {self._held.client_id!r}")

    def _writing(self) -> Finding:
        parties = self._parties
        cautions = parties.store_cautions()
        if cautions:
            return Finding("writing", "warning", "it can be written; but look at what follows", "; ".join(cautions))
        return Finding("writing", "ok", "it can be written, each step against the state that was read")

    def _binding(self) -> Finding:
        assert self._held is not None
        bound, target = self._held.binding, self._parties.target
        issuer = bound.issuer or bound.token_url
        if issuer and (bound.environment or not target.environment):
            place = f" in environment {bound.environment}" if bound.environment else ""
            return Finding("binding", "ok", f"the document is for {issuer}{place}")
        return Finding(
            "binding", "warning", "the document does not say all of whom it is for", "The first step adds it"
        )

    def _under_way(self) -> Finding:
        assert self._held is not None
        phase, state = phase_of(self._held), self._held.state
        if phase == "idle":
            return Finding("under way", "ok", "no rotation is")
        found = f"rotation {state.rotation or 'without a name'} is {phase}, written by {state.by or 'somebody'}"
        hint = "It is gone on with, and no other one begun"
        if self._is_in_the_way(phase):
            hint = "It is ended first, and then another one is made"
        return Finding("under way", "warning", found, hint)

    def _issuer(self) -> Finding:
        parties, can = self._parties, self._parties.capabilities
        assert self._held is not None
        if can.single_slot and not can.chosen and not parties.policy.accept_gap:
            raise ConfigurationError(
                "the issuer generates the secret and ends the old one at once: calls may fail until it is stored",
                hint="--accept-gap takes that upon you",
            )
        found = parties.issuer_preflight(self._held)
        slots = {None: "an unknown number of secrets", 1: "one secret"}.get(can.slots, f"{can.slots} secrets")
        said = f"{type(parties.adapter).__name__}: it accepts {slots} of a client at once, and " + (
            "takes the one that we choose" if can.chosen else "generates them"
        )
        if found.cautions:
            return Finding("issuer", "warning", said, "; ".join(found.cautions))
        return Finding("issuer", "ok", said)

    def _current(self) -> Finding:
        assert self._held is not None
        said = self._parties.probe(self._held, self._held.current)
        if said.error is not None:
            raise said.error.again()
        if said.word == "accepted":
            return Finding("current", "ok", f"{self._parties.target.name} gives a token for it")
        if self._held.pending is not None:
            return Finding(
                "current", "warning", "the issuer no longer accepts it", "It may have the pending one by now"
            )
        raise CredentialsRejected(
            f"{self._parties.target.name} does not accept the current secret of {self._parties.name}",
            issuer=self._parties.target.name,
            hint="Nothing is changed before the store and the issuer agree: secretsource check shows where they do not",
        )

    def _consumers(self) -> Finding:
        parties = self._parties
        reaches: Any = getattr(parties.store, "reaches", "whoever reads this reference gets all three secrets")
        wait = shown_duration(parties.policy.wait or 0.0)
        hint = "A consumer that reads once and never again is not reached: it has to be started anew"
        return Finding("consumers", "ok", f"{reaches}; they are given {wait} to read the pending secret", hint)

    def _what_may_fail(self) -> tuple[str, str]:
        single = self._parties.capabilities.single_slot
        return (
            "nothing is waited for and no previous secret is kept: a consumer that cannot read the store at the moment "
            "of the change fails until it can; there is no way back",
            "Tokens obtained before are dropped by each consumer at its next read of the store. The API may accept "
            "them to their end: where it can, revoke them there"
            + (
                ""
                if single
                else "; the issuer accepts the leaked secret until it is retired, right after the promotion"
            ),
        )
