"""What happened, as frozen dataclasses, and the one emitter: hooks and log.

Events hold names, codes and times, never a secret or a token. Within one flight they reach a hook in order, on the
flight's thread, after its result is out. A hook that raises is logged and changes nothing.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, fields
from typing import Literal

from .clock import SYSTEM_CLOCK, Clock
from .errors import ConfigurationError

__all__ = [
    "Event",
    "CredentialsChanged",
    "CredentialsStale",
    "CredentialsRecovered",
    "CredentialsDropped",
    "CandidateUsed",
    "CandidateRejected",
    "CandidateUnfit",
    "CircuitOpened",
    "CircuitClosed",
    "TokenFetched",
    "DiscoveryFailed",
    "RefreshFailed",
    "ScopeNarrowed",
    "LifetimeAssumed",
    "TokenRefused",
    "OriginLeft",
    "PlainHttpAllowed",
    "RotationStep",
    "Hook",
    "Emitter",
    "LOGGER",
]

LOGGER = logging.getLogger("secretsource")
LOGGER.addHandler(logging.NullHandler())

CandidateKind = Literal["current", "pending", "previous", "last accepted"]


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. `source` names the credentials: a canonical reference, or what stands for one."""

    source: str


@dataclass(frozen=True, slots=True)
class CredentialsChanged(Event):
    """The store gave other values than before. Versions are the store's names for them, or None."""

    old_version: str | None
    new_version: str | None


@dataclass(frozen=True, slots=True)
class CredentialsStale(Event):
    """The store gave nothing usable; the last good credentials serve on. `left`: seconds until they are dropped."""

    error: str
    age: float
    left: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CredentialsRecovered(Event):
    """The store gives usable credentials again."""


@dataclass(frozen=True, slots=True)
class CredentialsDropped(Event):
    """The last good credentials are no longer used; `error` names the class of the failure."""

    error: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CandidateUsed(Event):
    """A token was obtained with another candidate than the one used before."""

    candidate: CandidateKind
    version: str | None


@dataclass(frozen=True, slots=True)
class CandidateRejected(Event):
    """The issuer does not accept this candidate."""

    candidate: CandidateKind
    version: str | None
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class CandidateUnfit(Event):
    """A candidate is left out: its own document is bound to another issuer or environment."""

    candidate: str
    reason: str


@dataclass(frozen=True, slots=True)
class CircuitOpened(Event):
    """All candidates are rejected; the next attempt comes in `retry_after` seconds, or when the store changes."""

    retry_after: float


@dataclass(frozen=True, slots=True)
class CircuitClosed(Event):
    """Token requests are made again."""


@dataclass(frozen=True, slots=True)
class TokenFetched(Event):
    """A token was obtained: its lifetime, and how long it took to get it, in seconds."""

    scopes: tuple[str, ...]
    lifetime: float
    duration: float


@dataclass(frozen=True, slots=True)
class DiscoveryFailed(Event):
    """The issuer's metadata could not be read anew; what it said before is used."""

    error: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RefreshFailed(Event):
    """No token was obtained. `life_left`: seconds that a kept one still serves; `next_try`: seconds to the next try."""

    error: str
    code: str | None
    status: int | None
    life_left: float
    next_try: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ScopeNarrowed(Event):
    """The issuer granted less than was asked for (RFC 6749 section 5.1)."""

    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LifetimeAssumed(Event):
    """The issuer did not say how long the token lives, so `default_lifetime` (seconds) holds."""

    lifetime: float


@dataclass(frozen=True, slots=True)
class TokenRefused(Event):
    """An API refused a token of ours. `again`: the issuer has handed the same token out once more."""

    again: bool


@dataclass(frozen=True, slots=True)
class OriginLeft(Event):
    """A client sends the token to another origin than to the first; `origins=` would refuse that."""

    first: str
    origin: str


@dataclass(frozen=True, slots=True)
class PlainHttpAllowed(Event):
    """A secret or a token may go over plain http to this host, as the code says."""

    host: str


@dataclass(frozen=True, slots=True)
class RotationStep(Event):
    """A step of changing the secret was made, or not: `outcome` is "done", "waiting", "held", "failed" or "unknown".

    `rotation` names the rotation; a step may be told twice, so its key is rotation, step and outcome. `duration` is in
    seconds.
    """

    rotation: str
    step: str
    outcome: str
    duration: float
    reason: str = ""


Hook = Callable[[Event], object]

_LEVELS: dict[type[Event], int] = {
    CredentialsChanged: logging.INFO,
    CredentialsStale: logging.WARNING,
    CredentialsRecovered: logging.INFO,
    CredentialsDropped: logging.WARNING,
    CandidateUsed: logging.INFO,
    CandidateRejected: logging.INFO,
    CandidateUnfit: logging.WARNING,
    CircuitOpened: logging.WARNING,
    CircuitClosed: logging.INFO,
    TokenFetched: logging.DEBUG,
    DiscoveryFailed: logging.WARNING,
    RefreshFailed: logging.WARNING,
    ScopeNarrowed: logging.WARNING,
    LifetimeAssumed: logging.INFO,
    TokenRefused: logging.INFO,
    OriginLeft: logging.WARNING,
    PlainHttpAllowed: logging.WARNING,
    RotationStep: logging.INFO,
}
# Ends the silence after a warning of that kind: the next one is a change of state.
_ENDED_BY: dict[type[Event], type[Event]] = {
    TokenFetched: RefreshFailed,
    CredentialsRecovered: CredentialsStale,
    CircuitClosed: CircuitOpened,
}
_REPEAT_AFTER = 60.0


class Emitter:
    """Hands events to the log and to the hooks. Safe from any thread, and in a forked child: it holds no lock."""

    def __init__(self, hooks: Hook | Iterable[Hook] | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        if hooks is None:
            self._hooks: tuple[Hook, ...] = ()
        elif callable(hooks):
            self._hooks = (hooks,)
        elif isinstance(hooks, Iterable):
            self._hooks = tuple(hooks)
        else:
            raise ConfigurationError(f"on_event= is a callable or several, not {type(hooks).__name__}")
        for hook in self._hooks:
            if not callable(hook) or inspect.iscoroutinefunction(hook):
                raise ConfigurationError(
                    "a hook of on_event= is not a function that can be called from any thread",
                    hint="Give a function that is not async, returns soon, and may run on several threads at once",
                )
        self._clock = clock
        self._warned: dict[tuple[type[Event], str, str], tuple[str | None, float]] = {}

    def emit(self, events: Iterable[Event]) -> None:
        """Deliver in order, in an empty context: nothing that a caller's context variables hold reaches a hook."""
        for event in events:
            Context().run(self._deliver, event)

    def _deliver(self, event: Event) -> None:
        with suppress(Exception):  # a filter or handler of the program's own
            self._log(event)
        for hook in self._hooks:
            failure = None
            try:
                hook(event)
            except (Exception, SystemExit) as error:
                failure = type(error).__name__
            if failure is not None:
                LOGGER.error("a hook for %s raised %s; it was ignored", type(event).__name__, failure)

    def _log(self, event: Event) -> None:
        ended = _ENDED_BY.get(type(event))
        if ended is not None:
            self._warned.pop((ended, event.source, ""), None)
        level = _LEVELS.get(type(event), logging.INFO)
        if level == logging.WARNING and not self._worth_a_warning(event):
            return
        facts = ", ".join(f"{item.name}={_shown(getattr(event, item.name))}" for item in fields(event)[1:])
        LOGGER.log(level, "%s: %s (%s)", event.source, type(event).__name__, facts)

    def _worth_a_warning(self, event: Event) -> bool:
        """Once per change of state, then at most once a minute."""
        # Two hosts of one source are two states, neither of which ends the other.
        key = (type(event), event.source, getattr(event, "host", getattr(event, "origin", "")))
        state, now = getattr(event, "error", None), self._clock.monotonic()
        last = self._warned.get(key)
        if last is not None and last[0] == state and now - last[1] < _REPEAT_AFTER:
            return False
        self._warned[key] = (state, now)
        return True


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
