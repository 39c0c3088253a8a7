"""What a program has to say about a rotation: gates that must agree before an effect, and observers.

A gate is an object with one or more of the methods of `Gate`, sync or async. It is asked outside of every lock, with a
time-out, and fails closed: an error, silence or anything but an answer holds the rotation where it is.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..clock import SYSTEM_CLOCK, Clock, Deadline
from ..errors import ConfigurationError, DeadlineExceeded, SecretSourceError
from ..events import Emitter
from ..flight import Flight, Flights
from ..plugins import registered
from ..token import Token

__all__ = ["Abort", "Answer", "Gate", "Gates", "Hold", "Moment", "Proceed", "gate_called"]

GROUP = "secretsource.hooks"

Point = Literal["before_claim", "before_apply", "before_promote", "before_retire", "converged", "verify"]
POINTS: tuple[Point, ...] = ("before_claim", "before_apply", "before_promote", "before_retire", "converged", "verify")


@dataclass(frozen=True, slots=True)
class Proceed:
    """Go on."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Not now: nothing is done, and the next run asks again. From `converged`: not all consumers are there yet."""

    reason: str


@dataclass(frozen=True, slots=True)
class Abort:
    """Go back, as far as that is possible; after the promotion it is as Hold."""

    reason: str


Answer = Proceed | Hold | Abort


@dataclass(frozen=True, slots=True)
class Moment:
    """What a gate is told: whose secret, at which step; no content. `version` is the store's name for what is there."""

    reference: str
    client_id: str
    issuer: str
    environment: str
    rotation: str
    compromised: bool
    version: str | None


class Gate(Protocol):
    """All methods are optional. `verify` is given a token obtained with the new secret; None is no answer."""

    def before_claim(self, moment: Moment) -> Answer: ...
    def before_apply(self, moment: Moment) -> Answer: ...
    def before_promote(self, moment: Moment) -> Answer: ...
    def before_retire(self, moment: Moment) -> Answer: ...
    def converged(self, moment: Moment) -> Answer: ...
    def verify(self, moment: Moment, token: Token) -> Answer: ...


class Gates:
    """Several gates as one: the first that does not answer Proceed decides, and an Abort wins over a Hold."""

    def __init__(self, gates: Iterable[object] = (), *, timeout: float = 30.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self._gates: Sequence[object] = tuple(gates)
        self._timeout, self._clock = timeout, clock
        for gate in self._gates:
            if isinstance(gate, type) or not any(callable(getattr(gate, point, None)) for point in POINTS):
                raise ConfigurationError(
                    f"a {gate.__name__ if isinstance(gate, type) else type(gate).__name__} is no gate",
                    hint=f"A gate is an object with one of {', '.join(POINTS)}",
                )

    def ask(self, point: Point, moment: Moment, token: Token | None = None) -> Answer:
        """Proceed only if each gate that has this method says so."""
        worst: Answer = Proceed()
        for gate in self._gates:
            method = getattr(gate, point, None)
            if not callable(method):
                continue
            answer = self._asked(gate, point, method, (moment,) if token is None else (moment, token))
            if isinstance(answer, Abort):
                return answer
            if isinstance(answer, Hold) and isinstance(worst, Proceed):
                worst = answer
        return worst

    def _asked(self, gate: object, point: Point, method: Callable[..., Any], told: tuple[object, ...]) -> Answer:
        name = f"{type(gate).__name__}.{point}"

        def body(flight: Flight[Any]) -> Any:
            flight.phase = name
            said = method(*told)
            return asyncio.run(_awaited(said)) if inspect.isawaitable(said) else said

        answer: Any = None
        try:
            answer = Flights[Any](name, Emitter()).run("gate", body, Deadline(self._timeout, self._clock))
        except SecretSourceError as error:
            # The text of what a gate raises may hold the token that it was given.
            failed = "did not answer in time" if isinstance(error, DeadlineExceeded) else "failed"
            return Hold(f"{name} {failed}")
        if isinstance(answer, (Proceed, Hold, Abort)):
            return answer
        return Hold(f"{name} answered neither Proceed, Hold nor Abort")


async def _awaited(said: Any) -> Any:
    return await said


def gate_called(name: str) -> object:
    """The gate that a distribution has registered under this name in the entry-point group `secretsource.hooks`."""
    points = [point for point in registered(GROUP) if point.name == name]
    if len({point.value for point in points}) != 1:
        known = ", ".join(sorted({point.name for point in registered(GROUP)})) or "none"
        what = "no gate" if not points else f"{len(points)} gates"
        raise ConfigurationError(
            f"there is {what} of that name (of {len(name)} characters, not repeated here)",
            hint=f"Registered in {GROUP}: {known}",
        )
    failure = None
    try:
        made = points[0].load()
        return made() if isinstance(made, type) else made
    except Exception as error:
        failure = type(error).__name__
    raise ConfigurationError(f"the gate {name!r} cannot be loaded: {failure}", hint="Look into its distribution")
