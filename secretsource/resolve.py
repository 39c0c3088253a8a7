"""CredentialsSource: the credentials of one reference, read when due.

What was read last and was good is kept. While the store is down or holds half a document, it serves on, with an
event; where access is denied or the secret is gone, for a short grace only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from .backends import Backend, backend_for
from .clock import SYSTEM_CLOCK, Clock, Deadline, checked_seconds
from .credentials import Binding, ClientCredentials, Document, Meaning, interpret
from .errors import (
    AccessDenied,
    BackendUnavailable,
    ConfigurationError,
    DeadlineExceeded,
    MalformedSecret,
    SecretNotFound,
    SecretSourceError,
    forgetting,
)
from .events import (
    CredentialsChanged,
    CredentialsDropped,
    CredentialsRecovered,
    CredentialsStale,
    Emitter,
    Event,
    Hook,
)
from .flight import Flight, Flights, ticket
from .reference import SecretReference
from .secret import Fingerprints, Secret

__all__ = ["Budget", "CredentialsSource", "Reading", "credentials_source"]

_ASK_AGAIN_AFTER = 1.0
_LONGEST_PAUSE = 30.0
_TTL_SPREAD = 0.1


class Reading(NamedTuple):
    """One good read. Times are monotonic seconds.

    `ticket` is that of its flight, `began` when that began, `due` when the next read is. `values` is a fingerprint of
    all candidates, `changed` when they last became others (None: never since the first read). `leased`: the store made
    them for this read, and makes others for the next. `apart`: what pending and previous are bound to, where those have
    documents of their own. `tokens_not_before`: as in `Meaning`.
    """

    credentials: ClientCredentials
    binding: Binding
    ticket: int
    fresh: bool
    began: float
    due: float
    values: bytes
    changed: float | None
    leased: bool = False
    apart: Mapping[str, Binding] = {}
    tokens_not_before: float | None = None


class _Lease(NamedTuple):
    """For how long the store says that a document holds, and whether that was made for this read alone."""

    seconds: float | None = None
    leased: bool = False


class _Trouble(NamedTuple):
    """Why the last read failed, when that was, until when it is not repeated, since when reads fail and are denied."""

    error: SecretSourceError
    noted: float
    until: float
    since: float
    denied_since: float | None


class Budget:
    """A bucket of `size` permissions, one back every `seconds`."""

    def __init__(self, size: int, seconds: float, clock: Clock) -> None:
        self._size, self._seconds, self._clock = size, seconds, clock
        self._used, self._since = 0.0, clock.monotonic()

    def take(self) -> bool:
        # Two threads may take the same permission: one read more, for which a lock is not worth it.
        now = self._clock.monotonic()
        self._used = max(0.0, self._used - (now - self._since) / self._seconds)
        self._since = now
        if self._used > self._size - 1:
            return False
        self._used += 1
        return True

    def give_back(self) -> None:
        self._used = max(0.0, self._used - 1)


class CredentialsSource:
    """The client credentials that a reference names, for whoever has a token fetcher of his own.

    `client_id` goes with a reference that gives only the secret. `timeout` bounds a read, `max_stale` how long the
    last good credentials serve while the store is down, `denied_grace` how long while it denies them; all in seconds.
    Constructing does no I/O. Safe from any thread, event loop and forked child.
    """

    @forgetting
    def __init__(
        self,
        reference: str | SecretReference,
        *,
        stores: Mapping[str, Backend] | None = None,
        client_id: str | None = None,
        timeout: float = 10.0,
        max_stale: float = 86400.0,
        denied_grace: float = 300.0,
        on_event: Hook | Iterable[Hook] | None = None,
        clock: Clock | None = None,
        accept: Callable[[Binding], object] | None = None,
    ) -> None:
        """`accept` is asked about each document that is bound, and raises ConfigurationError for a wrong one."""
        self._accept = accept
        self._reference = SecretReference.parse(reference)
        self._backend = backend_for(self._reference, stores)
        self._client_id = client_id
        self._ttl = self._backend.ttl
        self._may_be_behind = bool(getattr(self._backend, "eventually_consistent", False))
        self._prepare(str(self._reference), timeout, max_stale, denied_grace, on_event, clock)

    def _prepare(
        self,
        name: str,
        timeout: float,
        max_stale: float,
        denied_grace: float,
        on_event: Hook | Iterable[Hook] | None,
        clock: Clock | None,
    ) -> None:
        self.name = name
        self._timeout = checked_seconds("timeout", timeout)
        self._max_stale = checked_seconds("max_stale", max_stale, zero=True)
        self._denied_grace = checked_seconds("denied_grace", denied_grace, zero=True)
        self._clock: Clock = clock or SYSTEM_CLOCK
        self._emitter = Emitter(on_event, clock=self._clock)
        self._flights: Flights[Reading] = Flights("secret", self._emitter)
        self._fingerprints = Fingerprints()
        self._budget = Budget(4, 5.0, self._clock)
        self._kept: Reading | None = None
        self._trouble: _Trouble | None = None
        self._reloaded = 0  # a read with a ticket up to this one no longer counts

    @property
    def reference(self) -> SecretReference:
        return self._reference

    @property
    def backend(self) -> Backend:
        return self._backend

    @property
    def client_id(self) -> str | None:
        """The client ID given beside the reference."""
        return self._client_id

    @property
    def cheap(self) -> bool:
        """Whether a read costs so little that each attempt may make one."""
        return self._ttl is None or self._ttl == 0

    @property
    def may_be_behind(self) -> bool:
        """Whether the store may give what was there a moment ago, as a standby or a replica does."""
        return self._may_be_behind

    @property
    def failure(self) -> SecretSourceError | None:
        """Why the last read failed; None where it did not."""
        return None if self._trouble is None else self._trouble.error.again()

    @property
    def kept(self) -> Reading | None:
        """The last good read, whether due or not."""
        return self._kept

    @property
    def orphans(self) -> int:
        """Reads that hang although their time is over."""
        return self._flights.orphans

    def current(self) -> ClientCredentials:
        """The credentials, from the last read if that is not due. Raises BackendError, ConfigurationError."""
        events: list[Event] = []
        try:
            return self.reading(self._deadline(), events).credentials
        finally:
            self._emitter.emit(events)

    async def acurrent(self) -> ClientCredentials:
        """The same for a task of asyncio or trio."""
        kept = self._not_due()
        if kept is not None:
            return kept.credentials
        body, deadline = self._body(fresh=False), self._deadline()
        waits = self._waits(deadline)
        try:
            reading = await self._flights.run_async("read", body, waits, lasting=deadline, after=self._reloaded)
            return reading.credentials
        except DeadlineExceeded as error:
            failure = error.again()
        events: list[Event] = []
        try:
            return self._left_behind(failure, waits, events).credentials
        finally:
            self._emitter.emit(events)

    def reload(self) -> None:
        """Have the store read anew, past every cache; returns at once. For signals and watchers."""
        self._reloaded = ticket()
        trouble = self._trouble
        if trouble is not None:
            self._trouble = trouble._replace(until=0.0)
        with suppress(DeadlineExceeded):  # four reads hang: the next call says so
            self._flights.join("read", self._body(fresh=True, whole=True), self._deadline())

    def reading(self, deadline: Deadline, events: list[Event]) -> Reading:
        """The last good read if it is not due, else a new one. What happens meanwhile is added to `events`."""
        kept = self._not_due()
        if kept is not None:
            return kept
        body, waits = self._body(fresh=False), self._waits(deadline)
        try:
            return self._flights.run("read", body, waits, lasting=deadline, after=self._reloaded)
        except DeadlineExceeded as error:
            failure = error.again()
        return self._left_behind(failure, waits, events)

    def reading_after(
        self, mark: int, deadline: Deadline, events: list[Event], *, free: bool = False, whole: bool = False
    ) -> Reading:
        """A read that began after `mark` was drawn; the last good one where no further read is allowed by now.

        `whole`: there is nothing else to be done in the time.
        """
        kept = self._kept
        if kept is not None and kept.ticket > mark and (kept.fresh or self.cheap):
            return kept
        if kept is not None and kept.leased:
            free = False  # other values are no news: each read brings some, and costs the store a lease
        if kept is not None and not (free or self.cheap or self._budget.take()):
            return kept
        waits = deadline if whole else self._waits(deadline)
        try:
            reading = self._fresh(mark, deadline, waits, whole)
        except DeadlineExceeded as error:
            failure = error.again()
        else:
            if kept is not None and reading.values != kept.values and not (free or self.cheap or kept.leased):
                self._budget.give_back()
            return reading
        if whole:
            raise failure
        return self._left_behind(failure, waits, events)

    def _fresh(self, mark: int, deadline: Deadline, waits: Deadline, whole: bool) -> Reading:
        body = self._body(fresh=True, whole=whole)
        while True:
            known = self._kept
            reading = self._flights.run("read", body, waits, lasting=deadline, after=mark)
            # Once more after a read that was under way and is not a fresh one; not if the store gave nothing new.
            if reading.fresh or self.cheap or reading is known:
                return reading

    def _waits(self, deadline: Deadline) -> Deadline:
        """A store that hangs must leave time to get a token with what is kept, also one that heeds no time-out."""
        return deadline if self._kept is None else Deadline(deadline.left() / 2, self._clock)

    def _left_behind(self, failure: DeadlineExceeded, waited: Deadline, events: list[Event]) -> Reading:
        """The last good read, while the one that was waited for goes on."""
        kept, trouble = self._kept, self._trouble
        if kept is None:
            raise failure
        if trouble is not None and trouble.noted > waited.ends_at - waited.seconds:
            return kept  # another waiter has said so
        return self._after_failure(failure, waited.seconds, events)

    def _deadline(self) -> Deadline:
        return Deadline(self._timeout, self._clock)

    def _not_due(self) -> Reading | None:
        kept, trouble, now = self._kept, self._trouble, self._clock.monotonic()
        if kept is not None and now < kept.due and kept.ticket > self._reloaded:
            return kept
        if trouble is not None and now < trouble.until:
            if kept is None:
                raise trouble.error.again()
            return kept
        return None

    def _body(self, *, fresh: bool, whole: bool = False) -> Callable[[Flight[Reading]], Reading]:
        return lambda flight: self._read(flight, fresh, whole)

    def _read(self, flight: Flight[Reading], fresh: bool, whole: bool) -> Reading:
        flight.phase = f"reading {self.name}"
        began = self._clock.monotonic()
        fresh = fresh or (self._kept is not None and self._kept.ticket <= self._reloaded)
        # Less than its callers wait: a store that heeds the time-out can say what is wrong.
        share = 1.0 if whole or self._kept is None else 1 / 3
        meaning, lease, failure = self._outcome(fresh, flight.deadline.left() * share)
        if meaning is None:
            assert failure is not None
            known = self._already_known(flight, failure, began)
            if known is not None:
                return known
            return self._after_failure(failure, self._clock.monotonic() - began, flight.events)
        if self._accept is not None:
            self._accept(meaning.binding)  # what it refuses does not take the place of what was good
        old = self._kept
        if old is not None and old.ticket > flight.ticket:  # this one was given up, and another came meanwhile
            return old
        if self._trouble is not None and old is not None:
            flight.events.append(CredentialsRecovered(self.name))
        values = self._values(meaning.credentials)
        changed = old.changed if old is not None else None
        if old is not None and old.values != values:
            changed = began
            versions = old.credentials.version, meaning.credentials.version
            flight.events.append(CredentialsChanged(self.name, *versions))
        due = self._due(began, lease)
        kept = Reading(
            meaning.credentials,
            meaning.binding,
            flight.ticket,
            fresh,
            began,
            due,
            values,
            changed,
            leased=lease.leased,
            apart=meaning.apart,
            tokens_not_before=meaning.tokens_not_before,
        )
        self._kept, self._trouble = kept, None
        return kept

    def _outcome(self, fresh: bool, timeout: float) -> tuple[Meaning | None, _Lease, SecretSourceError | None]:
        try:
            return *self._load(fresh, timeout), None
        except SecretSourceError as error:
            return None, _Lease(), error.again()
        except Exception as error:  # a plug-in's; its text may hold what it read
            kind = type(error).__name__
        return (
            None,
            _Lease(),
            BackendUnavailable(
                f"{self.name} cannot be read: {kind} was raised",
                reference=self.name,
                hint="Its text is left out, since it may hold what was read; a backend raises a BackendError",
            ),
        )

    def _load(self, fresh: bool, timeout: float) -> tuple[Meaning, _Lease]:
        document = self._backend.read(self._reference, fresh=fresh, timeout=timeout)
        if not isinstance(document, Document):
            raise MalformedSecret(
                f"the backend of {self.name} gave a {type(document).__name__} and not a Document",
                reference=self.name,
                store=self._reference.store,
                hint="This is a bug of that backend",
            )
        lease = document.valid_for
        if lease is not None and (isinstance(lease, bool) or not isinstance(lease, (int, float)) or lease != lease):
            raise MalformedSecret(
                f"the backend of {self.name} gave a valid_for that is no number of seconds",
                reference=self.name,
                store=self._reference.store,
                hint="This is a bug of that backend",
            )
        return interpret(document, self._reference, self._client_id), _Lease(lease, document.leased)

    def _due(self, began: float, lease: _Lease) -> float:
        spread = random.uniform(1 - _TTL_SPREAD, 1 + _TTL_SPREAD)
        times = [] if self._ttl is None or lease.leased else [self._ttl * spread]
        if lease.seconds is not None:
            times.append(lease.seconds * min(spread, 1.0))  # a lease is not stretched
        return began + min(times, default=float("inf"))

    def _values(self, credentials: ClientCredentials) -> bytes:
        none = Secret("")
        pending, previous = (one.client_secret if one else none for one in (credentials.pending, credentials.previous))
        return self._fingerprints.of(Secret(credentials.client_id), credentials.client_secret, pending, previous)

    def _already_known(self, flight: Flight[Reading], failure: SecretSourceError, began: float) -> Reading | None:
        """What is kept, if this failure is no news: another read came meanwhile, or its callers have gone on."""
        kept, trouble = self._kept, self._trouble
        if kept is None or kept.ticket > flight.ticket:
            return kept
        if trouble is None or trouble.noted <= began:
            return None
        denied_since = trouble.denied_since
        if denied_since is None and isinstance(failure, (AccessDenied, SecretNotFound)):
            denied_since = self._clock.monotonic()
        self._trouble = trouble._replace(error=failure, denied_since=denied_since)
        return kept

    def _after_failure(self, failure: SecretSourceError, took: float, events: list[Event]) -> Reading:
        """The last good read, if that may still serve; else the failure is raised. `took`: seconds of the read."""
        now, kept = self._clock.monotonic(), self._kept
        denied_since = None if self._trouble is None else self._trouble.denied_since
        if denied_since is None and isinstance(failure, (AccessDenied, SecretNotFound)):
            denied_since = now  # a store that is down in between does not take the denial back
        since = now if self._trouble is None else self._trouble.since
        # Each call waits for a store that hangs; without anything to serve meanwhile there is no use in not asking it.
        pause = _ASK_AGAIN_AFTER if kept is None else min(max(_ASK_AGAIN_AFTER, 3 * took), _LONGEST_PAUSE)
        self._trouble = _Trouble(failure, now, now + pause, since, denied_since)
        if kept is None:
            raise failure.again()
        ends = since + self._max_stale if denied_since is None else denied_since + self._denied_grace
        left = ends - now
        kind = type(failure).__name__
        if left <= 0:
            self._kept = None
            events.append(CredentialsDropped(self.name, kind, str(failure)))
            raise failure.again()
        events.append(CredentialsStale(self.name, kind, now - kept.began, left, str(failure)))
        return kept


class _GivenCredentials(CredentialsSource):
    """Credentials that a program hands over: a constant, or what its callable returns at each refresh."""

    def __init__(
        self,
        given: ClientCredentials | Callable[[], ClientCredentials],
        timeout: float,
        max_stale: float,
        denied_grace: float,
        on_event: Hook | Iterable[Hook] | None,
        clock: Clock | None,
    ) -> None:
        self._given = given
        self._accept = None
        self._client_id = None
        self._ttl = 0.0 if callable(given) else None
        self._may_be_behind = False
        name = (
            f"the callable {getattr(given, '__qualname__', type(given).__name__)}"
            if callable(given)
            else "the given credentials"
        )
        self._prepare(name, timeout, max_stale, denied_grace, on_event, clock)

    @property
    def reference(self) -> SecretReference:
        raise ConfigurationError(f"these credentials are {self.name} and have no reference")

    def _load(self, fresh: bool, timeout: float) -> tuple[Meaning, _Lease]:
        credentials = self._given() if callable(self._given) else self._given
        if not isinstance(credentials, ClientCredentials):
            if isinstance(credentials, Coroutine):
                credentials.close()
            raise ConfigurationError(
                f"{self.name} gave a {type(credentials).__name__}",
                hint="It returns ClientCredentials, without awaiting",
            )
        return Meaning(credentials, Binding()), _Lease()


def credentials_source(
    credentials: str | SecretReference | ClientCredentials | CredentialsSource | Callable[[], ClientCredentials],
    *,
    stores: Mapping[str, Backend] | None,
    client_id: str | None,
    timeout: float,
    max_stale: float,
    denied_grace: float,
    on_event: Hook | Iterable[Hook] | None,
    clock: Clock | None,
    accept: Callable[[Binding], object],
) -> CredentialsSource:
    """A CredentialsSource from whatever a TokenSource takes for one. ConfigurationError."""
    if isinstance(credentials, (str, SecretReference)):
        return CredentialsSource(
            credentials,
            stores=stores,
            client_id=client_id,
            timeout=timeout,
            max_stale=max_stale,
            denied_grace=denied_grace,
            on_event=on_event,
            clock=clock,
            accept=accept,
        )
    if client_id is not None or stores is not None:
        raise ConfigurationError(
            "client_id= and stores= go with a reference", hint="These credentials come with their own client ID"
        )
    if isinstance(credentials, CredentialsSource):
        return credentials
    if isinstance(credentials, ClientCredentials) or callable(credentials):
        return _GivenCredentials(credentials, timeout, max_stale, denied_grace, on_event, clock)
    raise ConfigurationError(
        f"credentials cannot be a {type(credentials).__name__}",
        hint="Give a reference, ClientCredentials, a CredentialsSource, or a callable that returns ClientCredentials",
    )
