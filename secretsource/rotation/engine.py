"""Rotation: the change of one client's secret, as programs and the command line ask for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..clock import Deadline
from ..events import Emitter, Hook
from ..source import TokenSource
from .decision import Phase, Wish, phase_of
from .generate import Generator
from .hooks import Gates
from .outcome import Adapter
from .parties import Parties
from .plan import Plan, plan_of
from .policy import Due, Policy
from .recollection import Recollection
from .run import Report, Result, Run

__all__ = ["Report", "Result", "Rotation", "Status"]


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


class Rotation:
    """The change of one client's secret, in the store that `source` reads and at its issuer, by an adapter.

        Rotation(source, Keycloak("https://sso.example.com", "pos", admin=admin), policy=Policy(wait=360)).run()

    `observers` are hooks for events (`RotationStep`); `gates` have to agree before an effect. `generator` makes the new
    secret. Raises ConfigurationError where the secret cannot be changed. Not for several threads at once; several
    processes are fine.
    """

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
        self._parties = Parties(source, adapter, policy or Policy(), generator)
        self._gates = Gates(gates, clock=self._parties.clock)
        self._emitter = Emitter(observers, clock=self._parties.clock)
        self._stepwise = self._new_run()

    @property
    def policy(self) -> Policy:
        """With the defaults that fit this store and issuer."""
        return self._parties.policy

    def plan(self) -> Plan:
        """What would be done, and what stands in the way. Writes nothing, and raises nothing that a finding can say."""
        return plan_of(self._parties)

    def run(self) -> Report:
        """Change the secret if that is due, as far as it can be done within `policy.max_wait`.

        What another run has begun is gone on with. Raises SecretSourceError where nothing was done, or where the store
        or the issuer stays unavailable.
        """
        return self._new_run().go("rotate")

    def resume(self) -> Report:
        """Go on with what is under way, and begin nothing."""
        return self._new_run().go("resume")

    def abort(self) -> Report:
        """Give the pending secret up, and have the issuer accept the current one again, if it no longer does."""
        return self._new_run().go("abort")

    def rollback(self) -> Report:
        """Abort; or, once promoted, make the previous secret the current one, by a rotation of its own."""
        return self._new_run().go("rollback")

    def step(self, wish: Wish = "rotate") -> Report | None:
        """Make one step, and remember what it showed; a Report where there is none to be made now."""
        report = self._stepwise.step(wish, Deadline(0.0, self._parties.clock))
        if report is not None:
            self._parties.close()
        return report

    def status(self) -> Status:
        """Where it stands. Only the store is read."""
        parties = self._parties
        held = parties.read()
        state, due = held.state, parties.due(held)
        return Status(
            parties.name,
            held.client_id,
            parties.target.name,
            parties.target.environment,
            phase_of(held),
            state.rotation,
            state.by,
            state.compromised,
            due.age,
            due,
            None if held.pending is None or state.claimed is None else max(0.0, parties.now() - state.claimed),
            Recollection(parties).open(state),
        )

    def drift(self) -> Report:
        """Whether the issuer accepts what the store says that it does. Writes nothing."""
        parties = self._parties
        held = parties.read()
        phase, rotation = phase_of(held), held.state.rotation
        kinds = {"current": held.current, "pending": held.pending, "previous": held.previous}
        said = {kind: parties.probe(held, secret) for kind, secret in kinds.items() if secret is not None}
        unsaid = next((each.error for each in said.values() if each.error is not None), None)
        if unsaid is not None and said["current"].word != "accepted":
            raise unsaid.again()
        accepted = [f"the {kind} secret" for kind, each in said.items() if each.word == "accepted"]
        found = f"the issuer accepts {' and '.join(accepted) or 'none of the secrets that are kept'}"
        if said["current"].word == "accepted" or (
            phase in ("applying", "aborting") and "the pending secret" in accepted
        ):
            return Report("done", found, None, phase, rotation)
        hint = (
            "Make the store and the issuer name the same one: secretsource put writes the one that the issuer has; "
            "or save the current one at the issuer"
        )
        if Recollection(parties).open(held.state):
            return Report("ambiguous", f"{found}, and a call may still take effect", hint, phase, rotation)
        return Report("drift", found, hint, phase, rotation)

    def _new_run(self) -> Run:
        return Run(self._parties, self._gates, self._emitter)
