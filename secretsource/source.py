"""TokenSource: keeps tokens and renews them ahead, for threads and event loops alike.

A hit is one attribute read, one clock read and one comparison. Everything else happens in a flight, a thread that
fetches for all who wait, or in nobody's way while a kept token is valid.
"""

from __future__ import annotations

import difflib
import os
import random
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from cachetools import TLRUCache

from .answer import Granted
from .backends import Backend
from .clock import SYSTEM_CLOCK, Clock, Deadline, Instant, checked_seconds
from .credentials import Binding, ClientCredentials
from .discovery import Target
from .endpoint import IssuerProfile
from .errors import (
    ConfigurationError,
    CredentialsRejected,
    DeadlineExceeded,
    SecretSourceError,
    TokenError,
    forgetting,
)
from .events import (
    LOGGER,
    Emitter,
    Event,
    Hook,
    LifetimeAssumed,
    PlainHttpAllowed,
    RefreshFailed,
    ScopeNarrowed,
    TokenFetched,
    TokenRefused,
)
from .fetch import Fetcher
from .flight import Flight, Flights, PerProcess, event_loop_running, ticket
from .identity import Identity
from .reference import SecretReference
from .renewal import Kept, Renewal, Use
from .resolve import CredentialsSource, Reading, credentials_source
from .secret import Fingerprints, Secret
from .token import Token
from .transport import Transport

if TYPE_CHECKING:
    from .config import Settings

__all__ = ["ConfiguredSource", "Status", "TokenRequest", "TokenSource"]

_KEPT_AT_MOST = 256
_WINDOW = 1.0
_REFUSED_AT_MOST = 16
_REFUSED_AGAIN_FOR = 5.0
_FAILURE_SHARED_FOR = (0.6, 1.0)  # drawn from, so that a fleet does not come back in step
_LONGEST_TIMEOUT = 365 * 86400.0
_NEVER = float("-inf")


class TokenRequest(TypedDict, total=False):
    """What one call may ask for instead of the constructor's; `extra` merges by name."""

    scope: str | Iterable[str]
    audience: str
    resource: str | Iterable[str]
    extra: Mapping[str, str]
    timeout: float
    force: bool


@dataclass(frozen=True, slots=True)
class Status:
    """How a source is, for operators and probes; no content. Ages and times in seconds.

    `next_try` and `circuit` are None where nothing waits: the circuit is open while the latter is a number.
    `pending`: the credentials last read have a pending secret beside them.
    """

    credentials: str
    version: str | None
    credentials_age: float | None
    token_life_left: float | None
    token_expires_at: datetime | None
    last_error: str | None
    next_try: float | None
    circuit: float | None
    kept_tokens: int
    orphaned_threads: int
    issuer: str = ""
    pending: bool = False


class _Call:
    """One call: whose token, until when it waits, and which flights are too old for it (`after`, 0: none).

    It is the body of the flight that it begins; that lasts at least as long as the source's own time-out, since it
    serves others, too.
    """

    __slots__ = ("after", "deadline", "identity", "key", "lasting", "outdated", "source")

    def __init__(
        self, source: TokenSource, identity: Identity, key: bytes, deadline: Deadline, lasting: Deadline, after: int
    ) -> None:
        self.source = source
        self.identity = identity
        self.key = key
        self.deadline = deadline
        self.lasting = lasting
        self.after = after
        self.outdated = False

    def __call__(self, flight: Flight[Token]) -> Token:
        return self.source._fetched(self, flight)


class _TokenCache:
    """The tokens of all requests but the default one: bounded, each until it ends.

    The lock is held for a look-up only. A signal's code that interrupts one finds nothing, and fetches.
    """

    def __init__(self, clock: Clock) -> None:
        self._lock = threading.RLock()
        self._busy = False
        self._kept: TLRUCache[bytes, Kept] = TLRUCache(
            _KEPT_AT_MOST, lambda _key, kept, now: now + kept.until_age - kept.token.age, clock.monotonic
        )

    def get(self, key: bytes) -> Kept | None:
        kept: Kept | None = self._during(lambda cache: cache.get(key))
        return kept

    def put(self, key: bytes, kept: Kept) -> None:
        self._during(lambda cache: cache.__setitem__(key, kept))

    def drop(self, gone: Callable[[Kept], bool]) -> bool:
        def drop(cache: TLRUCache[bytes, Kept]) -> bool:
            keys = [key for key, kept in cache.items() if gone(kept)]
            for key in keys:
                cache.pop(key, None)
            return bool(keys)

        return self._during(drop) or False

    def hurry(self) -> None:
        def hurry(cache: TLRUCache[bytes, Kept]) -> None:
            for kept in cache.values():
                kept.hurry()

        self._during(hurry)

    def __len__(self) -> int:
        return self._during(len) or 0

    def _during(self, work: Callable[[TLRUCache[bytes, Kept]], Any]) -> Any:
        # One second: this thread may be wanted by a signal's code that waits for it while it has the lock.
        if not self._lock.acquire(timeout=1.0):
            return None
        try:
            if self._busy:
                return None
            self._busy = True
            try:
                return work(self._kept)
            finally:
                self._busy = False
        finally:
            self._lock.release()


class TokenSource:
    """A valid access token at any moment, from credentials that are read where they are kept.

    `credentials`: a reference, `ClientCredentials`, a `CredentialsSource`, or a callable that returns
    ClientCredentials (called once per refresh). `issuer` is for discovery and names what a document is bound to;
    `token_url` pins the endpoint. `scope` and `resource` are a str or an iterable of str. Times are seconds.
    Constructing does no I/O; raises ConfigurationError. Safe from any thread, event loop and forked child.
    """

    # A configuration says more; see ConfiguredSource.
    _environment = ""
    _require_binding = False

    @forgetting
    def __init__(
        self,
        credentials: str | SecretReference | ClientCredentials | CredentialsSource | Callable[[], ClientCredentials],
        *,
        issuer: str | None = None,
        token_url: str | None = None,
        client_id: str | None = None,
        scope: str | Iterable[str] | None = None,
        audience: str | None = None,
        resource: str | Iterable[str] | None = None,
        extra: Mapping[str, str] | None = None,
        auth_method: str | None = None,
        profile: IssuerProfile | None = None,
        stores: Mapping[str, Backend] | None = None,
        timeout: float = 10.0,
        leeway: float | None = None,
        refresh_ahead: float | None = None,
        default_lifetime: float = 300.0,
        max_stale: float = 86400.0,
        denied_grace: float = 300.0,
        ca_file: str | os.PathLike[str] | None = None,
        proxy: str | None = None,
        plain_http: Iterable[str] = (),
        shared: None = None,
        on_event: Hook | Iterable[Hook] | None = None,
        clock: Clock | None = None,
        **misspelt: Any,
    ) -> None:
        if misspelt:
            raise _unknown_name("TokenSource", next(iter(misspelt)), _CONSTRUCTOR_NAMES)
        if shared is not None:
            raise ConfigurationError("shared= is not in this version", hint="Leave it out: each process has its cache")
        target = Target.of(
            issuer=issuer,
            token_url=token_url,
            auth_method=auth_method,
            profile=profile,
            default_lifetime=checked_seconds("default_lifetime", default_lifetime),
            plain_http=plain_http,
            environment=self._environment,
            require_binding=self._require_binding,
        )
        self._timeout = _timeout(timeout)
        self._renewal = Renewal(
            None if leeway is None else checked_seconds("leeway", leeway, zero=True),
            None if refresh_ahead is None else checked_seconds("refresh_ahead", refresh_ahead),
        )
        self._clock: Clock = clock or SYSTEM_CLOCK
        self._emitter = Emitter(on_event, clock=self._clock)
        self._credentials = credentials_source(
            credentials,
            stores=stores,
            client_id=client_id,
            timeout=timeout,
            max_stale=max_stale,
            denied_grace=denied_grace,
            on_event=on_event,
            clock=clock,
            accept=lambda binding: target.check_binding(binding, self._credentials.name),
        )
        self.plain_http = target.plain_http
        self._name = self._credentials.name
        identity = target.identity(self._name, self._credentials.client_id)
        self._identity = identity.asking(scope=scope, audience=audience, resource=resource, extra=extra)
        self._key = self._identity.digest()
        self._fetcher = Fetcher(
            self._credentials, target, Transport(ca_file=ca_file, proxy=proxy), self._emitter, self._clock
        )
        self._flights: Flights[Token] = Flights(f"token for {self._name}", self._emitter)
        self._fingerprints = Fingerprints()
        self._refused: dict[bytes, None] = {}
        self._failed: dict[bytes, tuple[float, SecretSourceError]] = {}
        self._last_error: str | None = None
        self._not_before = self._not_before_ahead = _NEVER  # seconds since 1970: no older token is kept
        self._closed = False
        self._warned_of_loop = False
        self._client: tuple[str, int] | None = None  # its ID, and the ticket of the reading that named it
        self._default: Kept | None = None
        self._others: PerProcess[_TokenCache] = PerProcess(lambda: _TokenCache(self._clock))
        # The window in which a hit does not look further, and its token; one that is shut ended before all time. The
        # token is written first and never taken out while hits may come: who reads the end has its token, or a newer.
        self._open_until = _NEVER
        self._open: Any = None
        self._emitter.emit(PlainHttpAllowed(self._name, host) for host in target.plain_http)

    @staticmethod
    def from_config(
        client: str,
        environment: str | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        production: bool | None = None,
    ) -> TokenSource:
        """The source that secretsource.toml describes: one object a client, environment and file in this process.

        `environment`: else SECRETSOURCE_ENV, else the only one of the file. `path`: else SECRETSOURCE_CONFIG, else
        secretsource.toml in the working directory. `production=True` asserts that the environment is marked so, False
        that it is not. Raises ConfigurationError.

        Leaving a `with` does not close the object, `close()` does; then the next call makes another. A file that
        changes meanwhile changes nothing for an object that is there.
        """
        from .config import asked_environment, loaded, located  # for who has a configuration

        if not isinstance(client, str):
            raise ConfigurationError(f"the name of a client is a str, not {type(client).__name__}")
        file, asked = located(path), asked_environment(environment)
        source = _configured.get((file, client, asked))
        if source is None or source._closed:
            made = ConfiguredSource(loaded(file).settings(client, asked))
            made.settings.check_production(production)
            # setdefault decides between threads without a lock, which a fork could leave locked.
            source = _configured.setdefault((file, client, made.settings.environment), made)
            if source._closed:  # at this moment, by another thread
                source = _configured[file, client, made.settings.environment] = made
            _configured[file, client, asked] = source
            if source is made:
                LOGGER.info("%s: made for %s", made.name, made.settings)
        source.settings.check_production(production)
        return source

    @property
    def name(self) -> str:
        """The canonical reference, or what stands for one."""
        return self._name

    @property
    def credentials(self) -> CredentialsSource:
        return self._credentials

    @property
    def target(self) -> Target:
        return self._fetcher.target

    @property
    def timeout(self) -> float:
        """Seconds that a call has, unless it says otherwise."""
        return self._timeout

    @property
    def clock(self) -> Clock:
        return self._clock

    # --- the way of a call ---

    def token(self, **request: Unpack[TokenRequest]) -> Token:
        """A valid token, from any thread. Raises SecretSourceError where there is none to be had in time.

        `scope`, `audience`, `resource` replace the constructor's, `extra` merges by name; `timeout` in seconds;
        `force=True` fetches a new one.
        """
        if monotonic() < self._open_until and not request:
            return self._open  # type: ignore[no-any-return]
        call = self._call(request)
        kept = self._lookup(call.key)
        token = self._without_waiting(call, kept)
        if token is not None:
            return token
        self._warn_of_event_loop("token")
        deadline = self._waits(call, kept)
        while True:
            try:
                return self._flights.run(call.key, call, deadline, lasting=call.lasting, after=call.after)
            except SecretSourceError as error:
                failure = error.again()
            token = self._while_it_lives(call, deadline, failure)
            if token is not None:
                return token
            deadline = call.deadline

    async def atoken(self, **request: Unpack[TokenRequest]) -> Token:
        """The same token for a task of asyncio or trio, whose loop goes on while this waits."""
        if monotonic() < self._open_until and not request:
            return self._open  # type: ignore[no-any-return]
        # Apart: what a coroutine may need is allocated each time it is made, for a hit as well.
        return await self._atoken(request)

    async def _atoken(self, request: TokenRequest) -> Token:
        call = self._call(request)
        kept = self._lookup(call.key)
        token = self._without_waiting(call, kept)
        if token is not None:
            return token
        deadline = self._waits(call, kept)
        while True:
            try:
                return await self._flights.run_async(call.key, call, deadline, lasting=call.lasting, after=call.after)
            except SecretSourceError as error:
                failure = error.again()
            token = self._while_it_lives(call, deadline, failure)
            if token is not None:
                return token
            deadline = call.deadline

    def _call(self, request: TokenRequest) -> _Call:
        if self._closed:
            raise ConfigurationError(f"this source of tokens ({self._name}) is closed", hint="Make a new one")
        if not request:
            deadline = Deadline(self._timeout, self._clock)
            return _Call(self, self._identity, self._key, deadline, deadline, 0)
        asked: dict[str, Any] = dict(request)
        timeout = _timeout(asked.pop("timeout", self._timeout))
        force = asked.pop("force", False)
        for name in asked:
            if name not in TokenRequest.__annotations__:
                request.clear()  # type: ignore[attr-defined] # a dict; what was pasted may be in it
                asked.clear()
                raise _unknown_name("token()", name, TokenRequest.__annotations__)
        try:
            identity = self._identity.asking(**asked)
        except ConfigurationError as error:
            failure = error.again()
        else:
            deadline = Deadline(timeout, self._clock)
            lasting = deadline if timeout >= self._timeout else Deadline(self._timeout, self._clock)
            return _Call(self, identity, identity.digest(), deadline, lasting, ticket() if force else 0)
        request.clear()  # type: ignore[attr-defined]
        asked.clear()
        raise failure

    def _lookup(self, key: bytes) -> Kept | None:
        reading = self._credentials.kept
        not_before = None if reading is None else reading.tokens_not_before
        if not_before is not None and not_before > self._not_before:
            self._drop_leaked(not_before)
        return self._default if key == self._key else self._others.get().get(key)

    def _without_waiting(self, call: _Call, kept: Kept | None) -> Token | None:
        """The kept token, if this call need not wait for a new one; a renewal ahead is begun on the way."""
        if call.after or (kept is None and not self._failed):
            return None
        now = self._clock.now()
        if kept is not None:
            use, seconds = self._renewal.use(kept, now, under_way=self._flights.under_way(call.key) is not None)
            if use is Use.HAND_OUT_AND_RENEW:
                self._begin_ahead(call)
            elif use is Use.HAND_OUT and seconds:
                self._open_window(call, kept, now, seconds)
            if use in (Use.HAND_OUT, Use.HAND_OUT_AND_RENEW):
                return kept.token
            if use is Use.WAIT:
                return None
        self._raise_shared(call, now)
        return None

    def _raise_shared(self, call: _Call, now: Instant) -> None:
        """Raise the failure that calls without a token share, if there is one."""
        failed = self._failed.get(call.key)
        if failed is not None and now.monotonic < failed[0]:
            failure = failed[1].again()
            if failure.retry_after is not None:
                failure.retry_after = failed[0] - now.monotonic
            raise failure

    def _begin_ahead(self, call: _Call) -> None:
        failure: SecretSourceError
        try:
            flight = self._flights.join(call.key, call, Deadline(self._timeout, self._clock))
            if flight.started or not flight.done():
                return
            flight.result()
            return
        except SecretSourceError as error:  # four threads hang, or none can be started; the kept token serves on
            failure = error.again()
        self._emitter.emit([self._after_failure(call, failure)])

    def _open_window(self, call: _Call, kept: Kept, now: Instant, seconds: float) -> None:
        """Let calls for the default token through without looking, for a second at most.

        Hits read the system's clock; with another one there is no window, and each call looks.
        """
        if call.key == self._key and self._clock.monotonic == monotonic:
            self._open_until = _NEVER
            self._open = kept.token
            self._open_until = now.monotonic + min(_WINDOW, seconds)
            if self._default is not kept or self._closed:  # dropped meanwhile
                self._open_until = _NEVER

    def _waits(self, call: _Call, kept: Kept | None) -> Deadline:
        """How long a call waits for a new token: not until the kept one that it has all the same has ended."""
        half = 0.0 if kept is None or call.after else kept.life_left(self._clock.now()) / 2
        return Deadline(half, self._clock) if 0 < half < call.deadline.left() else call.deadline

    def _while_it_lives(self, call: _Call, deadline: Deadline, failure: SecretSourceError) -> Token | None:
        """A kept token to its very end, if no new one is to be had. None: there is time to wait on. Else it raises."""
        kept = self._lookup(call.key)
        if kept is not None and not call.after and self._is_alive(kept):
            return kept.token
        if deadline is not call.deadline and isinstance(failure, DeadlineExceeded):
            return None  # its half was over, and the token with it
        raise failure

    def _is_alive(self, kept: Kept) -> bool:
        return kept.life_left(self._clock.now()) > 0

    def _warn_of_event_loop(self, name: str) -> None:
        if not self._warned_of_loop and event_loop_running():
            self._warned_of_loop = True
            warnings.warn(
                f"{name}() waits for a token and stops the event loop of this thread meanwhile; await a{name}() there",
                RuntimeWarning,
                stacklevel=3,
            )

    # --- the way of a flight ---

    def _fetched(self, call: _Call, flight: Flight[Token]) -> Token:
        began = self._clock.monotonic()
        kept = self._lookup(call.key)
        alive = kept is not None and self._is_alive(kept)
        token = None if call.after else self._brought_meanwhile(call, flight, kept, alive)
        if token is not None:
            return token
        asked, failure = True, None
        try:
            admitted = self._fetcher.admit(flight, early=call.after > 0)
            if admitted is not None:
                granted = self._fetcher.fetch(
                    call.identity, flight, admitted, patient=not alive, notice=lambda read: self._notice(call, read)
                )
                return self._granted(call, granted, began, flight.events)
            asked, failure = False, self._fetcher.circuit.error()
        except SecretSourceError as error:
            failure = error.again()
        event = self._after_failure(call, failure, late=max(0.0, self._clock.monotonic() - flight.deadline.ends_at))
        if asked:  # else nothing new has happened: the circuit is open
            flight.events.append(event)
        raise failure

    def _brought_meanwhile(self, call: _Call, flight: Flight[Token], kept: Kept | None, alive: bool) -> Token | None:
        """What another flight has brought that landed between the caller's look and the begin of this one.

        Until that is looked at, this flight counts as the oldest there is: its outcome is not for who forces a new one.
        """
        number, flight.ticket = flight.ticket, 1
        if kept is not None and kept.token.age < kept.refresh_age:
            return kept.token
        if not alive:
            self._raise_shared(call, self._clock.now())
        flight.ticket = number
        return None

    def _granted(self, call: _Call, granted: Granted, began: float, events: list[Event]) -> Token:
        token, name = granted.token, self._name
        self._failed.pop(call.key, None)
        self._last_error = None
        kept = self._renewal.keep(granted)
        if self._was_refused(token):
            # The issuer insists on it. It is handed out for a moment, so that not each call asks again.
            until_age = min(token.lifetime, token.age + _REFUSED_AGAIN_FOR)
            kept = Kept(token, until_age, until_age, insisted=True)
            events.append(TokenRefused(name, again=True))
        self._keep(call, kept)
        events.append(TokenFetched(name, token.scopes, token.lifetime, self._clock.monotonic() - began))
        if granted.assumed:
            events.append(LifetimeAssumed(name, token.lifetime))
        if granted.missing_scopes:
            events.append(ScopeNarrowed(name, granted.missing_scopes))
        return token

    def _keep(self, call: _Call, kept: Kept) -> None:
        other = self._lookup(call.key)
        late = other is not None and other.token.obtained > kept.token.obtained
        leaked = kept.token.obtained.wall < self._not_before
        if late or leaked or call.outdated or self._closed:
            return
        if not self._is_alive(kept):  # used once; an older one that still serves must not be renewed at every call
            if other is not None and self._is_alive(other):
                self._renewal.back_off(other, self._clock.now(), 0.0)
            return
        if call.key == self._key:
            self._default = kept
            now = self._clock.now()
            self._open_window(call, kept, now, kept.refresh_age - kept.token.obtained.age(now))
        else:
            self._others.get().put(call.key, kept)
        if self._closed:  # meanwhile
            self._drop(lambda kept: True)

    def _after_failure(self, call: _Call, failure: SecretSourceError, late: float = 0.0) -> RefreshFailed:
        """Settle when the next attempt is due. `late`: seconds since its time was over, if the process stood still."""
        self._last_error = type(failure).__name__
        now, kept = self._clock.now(), self._lookup(call.key)
        life_left = 0.0 if kept is None else max(0.0, kept.life_left(now))
        asked_to_wait = 0.0 if isinstance(failure, CredentialsRejected) else failure.retry_after or 0.0
        if kept is not None and life_left > 0:
            wait = self._renewal.back_off(kept, now, asked_to_wait)
            if asked_to_wait:  # also once this token has ended
                self._share(call, failure, now.monotonic + asked_to_wait)
        else:
            # Where a read of the store is cheap, each call looks whether the secret has been repaired.
            cheap = isinstance(failure, CredentialsRejected) and self._credentials.cheap
            wait = max(0.0 if cheap else random.uniform(*_FAILURE_SHARED_FOR) - late, asked_to_wait)
            self._share(call, failure, now.monotonic + wait)
        code, status = (failure.error, failure.status) if isinstance(failure, TokenError) else (None, None)
        if isinstance(failure, CredentialsRejected):
            wait = max(wait, self._fetcher.circuit.next_try or 0.0)
        return RefreshFailed(self._name, type(failure).__name__, code, status, life_left, wait, str(failure))

    def _share(self, call: _Call, failure: SecretSourceError, until: float) -> None:
        """Let calls without a token fail with this until then."""
        if len(self._failed) >= _KEPT_AT_MOST:
            self._failed.clear()
        self._failed[call.key] = until, failure.again()

    def _notice(self, call: _Call, reading: Reading) -> None:
        """Drop all tokens when the document names another client. A call that comes late with the older keeps none."""
        known, client = self._client, (reading.credentials.client_id, reading.ticket)
        older = known is not None and client[1] < known[1]
        renamed = known is not None and client[0] != known[0]
        call.outdated = older and renamed
        if older:
            return
        if renamed:
            self._drop(lambda kept: True)
        self._client = client

    def _drop_leaked(self, not_before: float) -> None:
        """Drop tokens that were obtained before a secret that has leaked was changed."""
        now = self._clock.now().wall
        if not_before > now and not_before == self._not_before_ahead:
            return
        # One that lies ahead counts now, for what was obtained before this, and again once it has come.
        since, self._not_before_ahead = min(not_before, now), not_before
        self._drop(lambda kept: kept.token.obtained.wall < since)
        self._not_before = since

    def _drop(self, gone: Callable[[Kept], bool]) -> bool:
        default = self._default
        if default is not None and gone(default):
            self._default, self._open_until = None, _NEVER
        others = self._others.get().drop(gone)
        return others or default is not self._default

    def _was_refused(self, token: Token) -> bool:
        return bool(self._refused) and self._fingerprints.of(Secret(token.access_token)) in self._refused

    # --- what else can be asked of it ---

    @forgetting
    def invalidate(self, token: Token | str) -> None:
        """An API refused this token: drop it, if it is still kept. The next call fetches another."""
        text = Secret(token.access_token if isinstance(token, Token) else token)
        while len(self._refused) >= _REFUSED_AT_MOST:
            self._refused.pop(next(iter(self._refused)), None)
        self._refused[self._fingerprints.of(text)] = None
        # One that the issuer insists on stays for its moment: asking again at once brings the same.
        if self._drop(lambda kept: not kept.insisted and Secret(kept.token.access_token) == text):
            self._emitter.emit([TokenRefused(self._name, again=False)])

    def reload(self) -> None:
        """Read the store anew, past every cache, and close the circuit; kept tokens stay. Returns at once.

        The way in for signals, agents and watchers.
        """
        self._call({})
        self._failed.clear()
        if self._default is not None:
            self._default.hurry()
        self._others.get().hurry()
        self._fetcher.reload()

    def verify(self) -> Token:
        """Store, secret, and a new token beside the kept one: the proof that the credentials work."""
        call = self._call({})
        self._warn_of_event_loop("verify")
        return self._flights.run(b"verify" + call.key, self._verified, call.deadline, after=ticket())

    async def averify(self) -> Token:
        """The same for a task."""
        call = self._call({})
        return await self._flights.run_async(b"verify" + call.key, self._verified, call.deadline, after=ticket())

    def _verified(self, flight: Flight[Token]) -> Token:
        admitted = self._fetcher.admit(flight, fresh=True, early=True)
        if admitted is None:
            raise self._fetcher.circuit.error()
        return self._fetcher.fetch(self._identity, flight, admitted, patient=True).token

    def prove(self, credentials: ClientCredentials, *, binding: Binding) -> Token:
        """A new token for exactly these credentials, asked for as all others are; nothing that is kept changes.

        Whether the issuer accepts them: CredentialsRejected says that it does not. `binding`: whom they are for.
        """
        call = self._call({})
        kind = f"proof {ticket()}".encode()
        return Flights[Token](f"token for {self._name}", self._emitter).run(
            kind, lambda flight: self._fetcher.prove(self._identity, flight, credentials, binding).token, call.deadline
        )

    def status(self) -> Status:
        """How it is, without doing anything."""
        reading, kept, now = self._credentials.kept, self._default, self._clock.monotonic()
        failed = self._failed.get(self._key)
        next_try = kept.next_try if kept is not None else failed[0] if failed is not None else None
        return Status(
            credentials=self._name,
            version=None if reading is None else reading.credentials.version,
            credentials_age=None if reading is None else now - reading.began,
            token_life_left=None if kept is None else max(0.0, kept.life_left(self._clock.now())),
            token_expires_at=None if kept is None else kept.token.expires_at,
            last_error=self._last_error,
            next_try=None if next_try is None or next_try <= now else next_try - now,
            circuit=self._fetcher.circuit.next_try,
            kept_tokens=len(self._others.get()) + (kept is not None),
            orphaned_threads=self._flights.orphans + self._fetcher.orphans + self._credentials.orphans,
            issuer=self._identity.issuer,
            pending=reading is not None and reading.credentials.pending is not None,
        )

    def close(self) -> None:
        """Drop all tokens; later calls are a ConfigurationError. What was given to it stays open."""
        self._closed = True
        self._drop(lambda kept: True)
        self._open = None
        self._failed.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if not hasattr(self, "_key"):  # in a traceback with locals of a constructor that failed
            return "<TokenSource, not made>"
        return f"<TokenSource {self._name} at {self._identity.issuer}>"

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError(
            "a TokenSource is neither pickled nor copied: it holds tokens. Share it inside a process; give another one "
            "the reference, and let it make a source of its own, there or by TokenSource.from_config"
        )


class ConfiguredSource(TokenSource):
    """A source as a configuration describes it. Whoever asks for it again gets the same, so only `close()` closes it.

    Raises ConfigurationError with the place in the file.
    """

    @forgetting
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._environment = settings.environment
        self._require_binding = settings.require_binding
        failure: SecretSourceError | None = None
        try:
            super().__init__(**settings.arguments())
        except ConfigurationError as error:
            failure = settings.explained(error)
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Drop all tokens; later calls are a ConfigurationError, and `from_config` makes another source."""
        for key in [key for key, source in list(_configured.items()) if source is self]:
            _configured.pop(key, None)
        super().close()

    def __exit__(self, *_: object) -> None:
        """Nothing ends: others use it, too."""

    async def __aexit__(self, *_: object) -> None:
        """Nothing ends: others use it, too."""


_configured: dict[tuple[str, str, str], ConfiguredSource] = {}
_CONSTRUCTOR_NAMES = [name for name in TokenSource.__init__.__annotations__ if name not in ("return", "misspelt")]
_MEANT = {"token_endpoint": "token_url", "scopes": "scope", "url": "token_url", "endpoint": "token_url"}


def _unknown_name(where: str, name: str, known: Iterable[str]) -> ConfigurationError:
    if name in ("client_secret", "secret", "password"):
        hint = "A secret does not belong in code: give a reference to where it is kept, such as env://POS"
    else:
        near = _MEANT.get(name) or next(iter(difflib.get_close_matches(name, known, n=1)), None)
        hint = f"Did you mean {near}=?" if near else f"It takes {', '.join(known)}"
    return ConfigurationError(f"{where} takes no {name}=", hint=hint)


def _timeout(value: float) -> float:
    if checked_seconds("timeout", value) > _LONGEST_TIMEOUT:  # which operating systems cannot wait for
        raise ConfigurationError(f"timeout={value!r} is no deadline", hint="A few seconds are usual")
    return float(value)
