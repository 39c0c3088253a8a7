"""One token: candidates, rounds, retries, circuit.

A rejected secret is not the end: the store is read anew, and every candidate is tried before a call fails. What
follows a rejection happens once, whoever asked, and its outcome serves all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from .answer import Granted, Refusal, read_answer
from .circuit import Circuit
from .clock import WAITS_BETWEEN_ATTEMPTS, Clock, pause
from .credentials import Binding, ClientCredentials
from .discovery import Discovery, Metadata, Target
from .endpoint import token_request
from .errors import (
    ConfigurationError,
    CredentialsRejected,
    DeadlineExceeded,
    IssuerUnavailable,
    SecretSourceError,
    TokenError,
)
from .events import CandidateRejected, CandidateUnfit, CandidateUsed, CircuitClosed, CircuitOpened, Emitter
from .exchange import Answer
from .flight import Flight, Flights, ticket
from .identity import Identity
from .resolve import Budget, CredentialsSource, Reading
from .rounds import REQUESTS_PER_ROUND, Ask, Candidate, Candidates, GiveUp, Read, Recovery
from .transport import Transport
from .urls import without_query

__all__ = ["Admitted", "Fetcher"]


class Admitted(NamedTuple):
    """What a token request may be made with: the credentials read, or, past an open circuit, one of them only."""

    reading: Reading
    only: Candidate | None


class _Recovered(NamedTuple):
    """What a recovery found: the candidate that is accepted, and the token that it got, for this identity."""

    identity: Identity
    granted: Granted
    candidate: Candidate
    reading: Reading


class Fetcher:
    """Gets tokens from one issuer with one source of credentials. Called on flights' threads, several at once."""

    def __init__(
        self, credentials: CredentialsSource, target: Target, transport: Transport, emitter: Emitter, clock: Clock
    ) -> None:
        self._credentials = credentials
        self._target = target
        self._transport = transport
        self._clock = clock
        self._discovery = Discovery(target, transport, emitter, clock)
        self._candidates = Candidates(clock)
        self._circuit = Circuit(clock, lockout=target.profile.lockout)
        self._reads_while_open = Budget(1, 5.0, clock)
        self._recoveries: Flights[_Recovered] = Flights(f"token for {credentials.name}", emitter)

    @property
    def accepted(self) -> Candidate | None:
        """The candidate with which the last token was obtained."""
        return self._candidates.winner

    @property
    def circuit(self) -> Circuit:
        return self._circuit

    @property
    def target(self) -> Target:
        return self._target

    @property
    def orphans(self) -> int:
        return self._recoveries.orphans + self._discovery.orphans

    def reload(self) -> None:
        """Have the store read anew in the background, discover anew, and let one attempt through the circuit."""
        self._discovery.forget()
        self._transport.forget()
        self._circuit.hurry()
        self._credentials.reload()

    def admit(self, flight: Flight[Any], *, fresh: bool = False, early: bool = False) -> Admitted | None:
        """Read the credentials if due, and pass the circuit; None while it is open and it is nobody's turn.

        `fresh` reads past every cache. `early` may pass once in 5 s all the same. Raises what the store raises.
        """
        flight.phase = f"reading {self._credentials.name}"
        mark = ticket()
        if fresh:
            reading = self._credentials.reading_after(mark, flight.deadline, flight.events, free=True, whole=True)
            failure = self._credentials.failure
            if failure is not None:
                raise failure  # what is kept would prove nothing of what is in the store
        else:
            reading = self._credentials.reading(flight.deadline, flight.events)
        if self._circuit.open_for(reading.values) and self._may_look_again(reading):
            reading = self._credentials.reading_after(mark, flight.deadline, flight.events, free=True)
        if not self._circuit.open_for(reading.values):
            self._close_circuit(flight)  # other values than those that were rejected
            return Admitted(reading, None)
        turn = self._circuit.turn(early=early)
        if turn is None:
            return None
        candidates = self._candidates.of(reading)
        return Admitted(reading, candidates[turn % len(candidates)])

    def _may_look_again(self, reading: Reading) -> bool:
        """Whether the store is read while the circuit is open. A lease is other each time, which says nothing."""
        return self._credentials.cheap or (not reading.leased and self._reads_while_open.take())

    def fetch(
        self,
        identity: Identity,
        flight: Flight[Any],
        admitted: Admitted,
        *,
        patient: bool,
        notice: Callable[[Reading], object] | None = None,
    ) -> Granted:
        """A new token. `patient` asks up to three times where the issuer is unavailable.

        `notice` is called with the reading that has got the token.
        Raises TokenError, ConfigurationError, DeadlineExceeded, or what the store raises.
        """
        flight.phase = f"discovery at {self._target.name}"
        try:
            metadata = self._discovery.metadata(flight.deadline, patient=patient)
            return _Round(self, identity, flight, metadata, patient).granted(admitted, notice)
        except DeadlineExceeded as error:
            failure = error.again()
        if self._credentials.name not in failure.message:
            _reword(failure, f"no token for {self._credentials.name}: {failure.message}")
        raise failure

    def prove(
        self, identity: Identity, flight: Flight[Any], credentials: ClientCredentials, binding: Binding
    ) -> Granted:
        """A token for exactly these credentials, beside candidates and circuit. Raises as `fetch` does."""
        flight.phase = f"discovery at {self._target.name}"
        metadata = self._discovery.metadata(flight.deadline, patient=True)
        self._target.check_binding(binding, self._credentials.name, metadata.token_url)
        return _Round(self, identity, flight, metadata, patient=True).proof(Candidate("pending", credentials, b""))

    def _close_circuit(self, flight: Flight[Any]) -> None:
        if self._circuit.close():
            flight.events.append(CircuitClosed(self._credentials.name))


class _Round:
    """The token requests made for one identity in one flight, at most six."""

    def __init__(
        self, fetcher: Fetcher, identity: Identity, flight: Flight[Any], metadata: Metadata, patient: bool
    ) -> None:
        self._fetcher = fetcher
        self._identity = identity
        self._flight = flight
        self._metadata = metadata
        self._patient = patient
        self._requests = 0

    def granted(self, admitted: Admitted, notice: Callable[[Reading], object] | None) -> Granted:
        reading, only = admitted
        self._check_binding(reading)
        reading = self._fitting(reading)
        first = only or self._fetcher._candidates.first(reading)
        if first.value not in {each.value for each in self._fetcher._candidates.of(reading)}:
            first = self._fetcher._candidates.first(reading)  # it was its turn, and is for somebody else
        while True:
            mark = ticket()
            outcome = self._ask(first)
            if isinstance(outcome, Granted):
                self._accepted(first, reading, remembered=only is None)
                if notice is not None:
                    notice(reading)
                return outcome
            if outcome.kind not in ("rejected", "doubtful"):
                raise self._error(outcome)
            if only is not None or self._requests >= REQUESTS_PER_ROUND:
                if outcome.kind == "rejected":
                    self._rejected(first, outcome)
                raise self._tripped(outcome, reading)
            recovered = self._recovered(reading, first, outcome, mark)
            if recovered.identity == self._identity:
                if notice is not None:
                    notice(recovered.reading)
                return recovered.granted
            # Found for another request: ours is made with it.
            first, reading = recovered.candidate, recovered.reading

    def proof(self, candidate: Candidate) -> Granted:
        outcome = self._ask(candidate)
        if isinstance(outcome, Granted):
            return outcome
        raise self._error(outcome)

    def _recovered(self, reading: Reading, first: Candidate, refusal: Refusal, mark: int) -> _Recovered:
        """What the recovery under way for these credentials finds; it is begun here if there is none."""

        before = list(self._flight.events)

        def body(flight: Flight[_Recovered]) -> _Recovered:
            flight.events.extend(before)  # what happened before is told before
            self._flight.events.clear()
            carried_on = _Round(self._fetcher, self._identity, flight, self._metadata, self._patient)
            carried_on._requests = self._requests
            return carried_on._recover(reading, first, refusal, mark)

        recoveries, deadline = self._fetcher._recoveries, self._flight.deadline
        self._flight.phase = f"recovery from a rejection by {self._fetcher._target.name}"
        return recoveries.run("recovery", body, deadline)

    def _recover(self, before: Reading, first: Candidate, refusal: Refusal, mark: int) -> _Recovered:
        fetcher, reading = self._fetcher, before
        self._check_circuit(before)
        if refusal.kind == "rejected":
            self._rejected(first, refusal)
        recovery = Recovery(
            fetcher._candidates,
            before,
            first,
            doubtful=refusal.kind == "doubtful",
            spent=lambda: self._requests,
            clock=fetcher._clock,
            may_be_behind=fetcher._credentials.may_be_behind,
            lockout=fetcher._target.profile.lockout,
        )
        steps = recovery.steps()
        step = next(steps)
        while True:
            if isinstance(step, Read):
                again = self._read_again(step.wait, before, mark)
                reading = again or reading
                step = steps.send(again)
            elif isinstance(step, Ask):
                outcome = self._ask(step.candidate)
                if isinstance(outcome, Granted):
                    self._accepted(step.candidate, reading, remembered=False)
                    return _Recovered(self._identity, outcome, step.candidate, reading)
                if outcome.kind not in ("rejected", "doubtful"):
                    raise self._error(outcome)
                self._rejected(step.candidate, outcome)
                refusal = outcome
                step = steps.send(outcome.kind)
            else:
                raise self._given_up(step, refusal, reading)

    def _given_up(self, step: GiveUp, refusal: Refusal, reading: Reading) -> SecretSourceError:
        if step.because == "unavailable":
            return self._error(Refusal("unavailable", "it was unavailable too often to try every secret"))
        return self._error(refusal) if step.because == "doubtful" else self._tripped(refusal, reading)

    def _read_again(self, wait: float, before: Reading, mark: int) -> Reading | None:
        """What the store gives after `wait` seconds; None if the deadline would be over by then."""
        flight, credentials = self._flight, self._fetcher._credentials
        known = credentials.kept
        if wait:
            if not pause(wait, None, flight.deadline, self._fetcher._clock.sleep):
                return None
            mark = ticket()
        elif known is not None and known.values != before.values:
            return self._usable(known)  # what the store has given another request meanwhile
        flight.phase = f"reading {credentials.name} after a rejection"
        # Time for another candidate, if there is one that was not asked yet.
        whole = bool(wait) or len(self._fetcher._candidates.of(before)) == 1
        return self._usable(credentials.reading_after(mark, flight.deadline, flight.events, whole=whole))

    def _usable(self, reading: Reading) -> Reading:
        self._check_circuit(reading)
        self._check_binding(reading)
        return self._fitting(reading)

    def _check_circuit(self, reading: Reading) -> None:
        circuit = self._fetcher._circuit
        if circuit.open_for(reading.values):  # an earlier recovery has found out meanwhile
            raise circuit.error()

    def _ask(self, candidate: Candidate) -> Granted | Refusal:
        """One candidate's answer. Raises what the transport raises, after the last attempt."""
        waits = list(WAITS_BETWEEN_ATTEMPTS) if self._patient else []
        while True:
            outcome = self._ask_once(candidate)
            if isinstance(outcome, Granted):
                return outcome
            if isinstance(outcome, Refusal):
                again, retry_after = outcome.kind == "unavailable", outcome.retry_after
            else:
                again, retry_after = outcome.retryable, None
            again = again and bool(waits) and self._requests < REQUESTS_PER_ROUND
            clock = self._fetcher._clock
            if not again or not pause(waits.pop(0), retry_after, self._flight.deadline, clock.sleep):
                if isinstance(outcome, Refusal):
                    return outcome
                raise outcome

    def _ask_once(self, candidate: Candidate) -> Granted | Refusal | IssuerUnavailable:
        fetcher, url = self._fetcher, self._metadata.token_url
        self._requests += 1
        self._flight.phase = f"token request to {without_query(url)}"
        profile = fetcher._target.profile
        outgoing = token_request(url, self._identity, candidate.credentials, self._metadata.auth_method, profile)
        obtained = fetcher._clock.now()  # before it is sent: the token may be made at any moment after that
        outcome: Answer | TokenError
        try:
            outcome = fetcher._transport.send(outgoing, self._flight.deadline, phase="token request")
        except TokenError as error:
            outcome = error.again()
        if isinstance(outcome, TokenError):
            self._name(outcome)
            if isinstance(outcome, IssuerUnavailable):
                return outcome
            raise outcome
        return read_answer(
            outcome,
            self._identity,
            profile,
            obtained=obtained,
            clock=fetcher._clock,
            default_lifetime=fetcher._target.default_lifetime,
            special=outgoing.special,
        )

    def _accepted(self, candidate: Candidate, reading: Reading, *, remembered: bool) -> None:
        fetcher, events = self._fetcher, self._flight.events
        if fetcher._candidates.accepted(candidate, reading, remembered=remembered):
            name, version = fetcher._credentials.name, candidate.credentials.version
            events.append(CandidateUsed(name, candidate.kind, version))
        fetcher._close_circuit(self._flight)

    def _rejected(self, candidate: Candidate, refusal: Refusal) -> None:
        name, version = self._fetcher._credentials.name, candidate.credentials.version
        event = CandidateRejected(name, candidate.kind, version, refusal.status, refusal.error)
        self._flight.events.append(event)

    def _tripped(self, refusal: Refusal, reading: Reading) -> SecretSourceError:
        error, circuit = self._error(refusal), self._fetcher._circuit
        if isinstance(error, CredentialsRejected):
            opens = not circuit.open_for(reading.values)
            error.retry_after = circuit.trip(error, reading.values)
            if opens:
                self._flight.events.append(CircuitOpened(self._fetcher._credentials.name, error.retry_after))
        return error

    def _error(self, refusal: Refusal) -> SecretSourceError:
        return refusal.as_error(
            issuer=self._fetcher._target.name,
            reference=self._fetcher._credentials.name,
            auth_method=self._metadata.auth_method,
        )

    def _name(self, failure: TokenError) -> None:
        """Say in an error of the transport, too, whose token it was about."""
        named = Refusal("unavailable", failure.message)
        _reword(failure, str(self._error(named)))
        failure.issuer = self._fetcher._target.name
        failure.auth_method = self._metadata.auth_method

    def _fitting(self, reading: Reading) -> Reading:
        """The reading without the candidates whose own documents are for another issuer or environment."""
        if not reading.apart:
            return reading
        fetcher, credentials = self._fetcher, reading.credentials
        for kind, binding in reading.apart.items():
            if binding == reading.binding:
                continue
            try:
                fetcher._target.check_binding(binding, fetcher._credentials.name, self._metadata.token_url)
            except ConfigurationError as error:
                without: dict[str, Any] = {kind: None}
                credentials = replace(credentials, **without)
                self._flight.events.append(CandidateUnfit(fetcher._credentials.name, kind, error.message))
        return reading._replace(credentials=credentials, apart={})

    def _check_binding(self, reading: Reading) -> None:
        fetcher = self._fetcher
        fetcher._target.check_binding(reading.binding, fetcher._credentials.name, self._metadata.token_url)


def _reword(failure: SecretSourceError, message: str) -> None:
    failure.message = message
    failure.args = (message,)
