"""What is asked of Vault for one reference before one deadline: with a token, once more after a refusal, patiently."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from ...clock import SYSTEM_CLOCK, WAITS_BETWEEN_ATTEMPTS, Deadline, pause
from ...errors import BackendError, BackendUnavailable, ConfigurationError, DeadlineExceeded, SecretSourceError
from ...reference import SecretReference
from ...secret import Secret
from .. import Backend
from ..formats import Origin
from .answers import NOT_IT, Action, Reply, failure, is_transient, seconds_in
from .kv import Mounted, Place, advice, mounted_in, place_of, preflight, reading
from .logins import NO_NAMESPACE, Desk, Login, Pass, pass_of
from .tokens import Holding, Tokens, worth_asking

__all__ = ["Vault", "Visit"]

T = TypeVar("T")

_TIMEOUT = 5.0
_IN_VAIN_FOR = 60.0
_NOTED_AT_MOST = 256


class Vault:
    """One Vault in one process: where it is, how it is reached, the token in use, and the mounts that are known."""

    def __init__(self, given: Mapping[str, Any], stores: Mapping[str, Backend] | None) -> None:
        self.address: str = given["address"]
        self.timeout: float = given["timeout"] or _TIMEOUT
        self.namespace: str | None = given["namespace"]
        self.auth_namespace: str | None = given["auth_namespace"] or given["namespace"]
        self.login: Login = given["auth"]
        self.stores = stores
        from .wire import VaultTransport, call  # and with it hvac, at the first visit

        self.transport = VaultTransport(
            ca_file=given["ca_file"], client_cert=given["client_cert"], proxy=given["proxy"]
        )
        self.has_certificate = given["client_cert"] is not None
        self.call = call
        self.tokens = Tokens(self.login, SYSTEM_CLOCK)
        self.mounts: dict[str, Mounted] = {}
        self._in_vain: dict[str, float] = {}

    def new_login_is_in_vain(self, reference: SecretReference) -> bool:
        """Whether one has just shown that it is not for the token that this is refused."""
        return self._in_vain.get(str(reference), 0.0) > SYSTEM_CLOCK.monotonic()

    def forget_vain_login(self, reference: SecretReference) -> None:
        self._in_vain.pop(str(reference), None)

    def note_vain_login(self, reference: SecretReference) -> None:
        """For a minute, else a forbidden path would cost a login at each read, and each leaves a token behind."""
        while len(self._in_vain) >= _NOTED_AT_MOST:
            self._in_vain.pop(next(iter(self._in_vain)), None)
        self._in_vain[str(reference)] = SYSTEM_CLOCK.monotonic() + _IN_VAIN_FOR


class Visit:
    """Raises BackendError, ConfigurationError."""

    def __init__(self, vault: Vault, origin: Origin, deadline: Deadline) -> None:
        self._vault, self.origin, self._deadline = vault, origin, deadline
        self._held: Holding | None = None

    def until(self, deadline: Deadline) -> Visit:
        """For a login, whose errors go to the readers of other references as well and so name the store."""
        reference = self.origin.reference
        return Visit(self._vault, Origin(reference, f"the store {reference.store!r}"), deadline)

    def ask(self, action: Action, *, repeated: bool = True) -> Reply:
        """The reply, whatever its status. `repeated`: asked again after what may pass."""
        tokens = self._vault.tokens
        held = self._after_login(lambda: tokens.current(self, self._deadline))
        reply = self._with(held, action, repeated)
        if reply.refuses and not self._vault.new_login_is_in_vain(self.origin.reference):
            # An ended token and a policy that forbids look alike, and a new login brings new policies, too.
            refused = held
            other = self._after_login(lambda: tokens.after_refusal(refused, self, self._deadline))
            if other is not None:
                held = other
                reply = self._with(held, action, repeated)
                if reply.refuses:
                    self._vault.note_vain_login(self.origin.reference)
        self._held = held
        if reply.good:
            self._vault.forget_vain_login(self.origin.reference)
            if worth_asking(self._vault.login, held):
                self._ask_about(held)
        return reply

    def found(self, place: Place, *, anew: bool = False) -> Place:
        """The place behind kv=auto; which engine it is in is asked once, or `anew`."""
        mounted = None if anew else self._vault.mounts.get(place.path)
        if mounted is None:
            reply = self.ask(preflight(self.origin.reference))
            mounted = mounted_in(reply)
            if mounted is None:
                raise self.refusal(reply)
            self._vault.mounts[place.path] = mounted
        return place_of(self.origin.reference, mounted)

    def refusal(self, reply: Reply, *, needs: str = "read") -> SecretSourceError:
        """The error for this reply; where the reference may be wrong, Vault is asked what is mounted there."""
        hint = None
        if reply.status in (403, 404) and not reply.foreign:
            if "namespace not found" in reply.says:
                hint = NO_NAMESPACE
            else:
                hint = advice(self.origin.reference, self._mounted(), reply.status, needs)
            if reply.status == 403:
                hint = self._with_the_token(hint, reply)
        return failure(reply, self.origin, self._vault.address, hint)

    def check_new(self, place: Place) -> None:
        """Raise ConfigurationError where writing would not make what the reference names.

        To KV version 1 the path of the API is one like any other, and the secret would lie there unseen.
        """
        mounted = self._mounted()
        # A path that does begin so is written with its mount in mount=.
        stray = place.path.startswith("data/") and self.origin.reference.option("mount") is None
        if stray or (mounted is not None and (mounted.path, mounted.version) != (place.mount, "2")):
            raise ConfigurationError(
                f"{self.origin} is not written: there is nothing yet, and its path looks wrong",
                hint=advice(self.origin.reference, mounted, 404, "create"),
            )

    def await_version(self, place: Place, number: int) -> None:
        """Wait until what was written can be read, since a standby may lag behind; at most until the deadline."""
        with suppress(SecretSourceError):  # written it is, whatever the answers say now
            while True:
                version = (self.ask(reading(place)).mapping("data", "metadata") or {}).get("version")
                current = not isinstance(version, int) or version >= number
                if current or not self.wait():
                    return

    def wait(self) -> bool:
        """Pause before asking again for what a standby may not have yet; False where there is no time left for it."""
        return pause(0.1, None, self._deadline, time.sleep)

    def obtain(self) -> Pass:
        if self._vault.has_certificate:
            self._vault.transport.forget()  # it may have been renewed on disk
        return self._vault.login.obtain(self._desk())

    def renew(self, token: Secret) -> Pass:
        reply = self._for_login(lambda client: client.auth.token.renew_self(), token, repeated=False)
        return pass_of(reply, self._desk(), "to renew the token", "It lives to its end")

    def _desk(self) -> Desk:
        return Desk(self._for_login, self._vault.stores, self.origin, self._deadline)

    def _for_login(self, action: Action, token: Secret | None, *, repeated: bool = True) -> Reply:
        """The reply where that says something about the login."""
        waits = list(WAITS_BETWEEN_ATTEMPTS) if repeated else []
        reply = self._patiently(action, token, self._vault.auth_namespace, waits)
        if not reply.good and (reply.foreign or reply.status not in (400, 403, 404)):
            raise failure(reply, self.origin, self._vault.address)
        return reply

    def _with(self, held: Holding, action: Action, repeated: bool) -> Reply:
        waits = list(WAITS_BETWEEN_ATTEMPTS) if repeated else []
        reply = self._patiently(action, held.token, self._vault.namespace, waits)
        if held.uses is not None:
            held.uses -= 1
        return reply

    def _patiently(self, action: Action, token: Secret | None, namespace: str | None, waits: list[float]) -> Reply:
        while True:
            outcome = self._once(action, token, namespace)
            again = outcome.retryable if isinstance(outcome, SecretSourceError) else is_transient(outcome)
            if not again or not waits or not pause(waits.pop(0), outcome.retry_after, self._deadline, time.sleep):
                if isinstance(outcome, SecretSourceError):
                    raise outcome
                return outcome

    def _once(self, action: Action, token: Secret | None, namespace: str | None) -> Reply | SecretSourceError:
        vault = self._vault
        try:
            return vault.call(
                action,
                address=vault.address,
                transport=vault.transport,
                token=token,
                namespace=namespace,
                deadline=self._deadline,
            )
        except DeadlineExceeded:
            failure: SecretSourceError = self._late()
        except SecretSourceError as error:
            failure = error.again()
        if isinstance(failure, BackendError):
            failure.reference, failure.store = str(self.origin.reference), self.origin.reference.store
            failure.hint = failure.hint or NOT_IT
            if str(self.origin) not in failure.message:
                failure.message = f"{self.origin} cannot be read: {failure.message}"
                failure.args = (failure.message,)
        return failure

    def _late(self) -> BackendUnavailable:
        return self.origin.error(
            BackendUnavailable,
            f"cannot be read: Vault at {self._vault.address} gave no whole answer within {self._deadline.seconds:g} s",
            "Is it slow or unreachable? timeout= of the store gives it more time",
        )

    def _after_login(self, get: Callable[[], T]) -> T:
        """What `get` gives; its failure, which may be that of a login begun for another reference, becomes ours."""
        failure: SecretSourceError
        try:
            return get()
        except DeadlineExceeded:
            failure = self.origin.error(
                BackendUnavailable,
                f"cannot be read: no login to Vault at {self._vault.address} within {self._deadline.seconds:g} s",
                "Is Vault slow, or where its login is kept? timeout= of the store gives it more time",
            )
        except SecretSourceError as error:
            failure = error.again()
        if isinstance(failure, BackendError) and failure.store == self.origin.reference.store:
            failure.reference = str(self.origin.reference)
        raise failure

    def _mounted(self) -> Mounted | None:
        """What is mounted there. It only words an error, so it is asked once, and nobody logs in for it."""
        held = self._held
        if held is None or (held.uses is not None and held.uses <= 0):
            return None
        try:
            return mounted_in(self._with(held, preflight(self.origin.reference), False))
        except SecretSourceError:
            return None

    def _ask_about(self, held: Holding) -> None:
        """How long the token lives and whether it can be renewed, where its policies let it ask."""
        try:
            reply = self._for_login(lambda client: client.auth.token.lookup_self(), held.token, repeated=False)
        except SecretSourceError:
            return
        data = reply.mapping("data") or {}
        life, first, uses = seconds_in(data.get("ttl")), seconds_in(data.get("creation_ttl")), data.get("num_uses")
        if reply.good and life is not None:
            left = uses if isinstance(uses, int) and uses > 0 else None  # this question is counted already
            self._vault.tokens.learn(held, life, max(first or life, life), data.get("renewable") is True, left)

    def _with_the_token(self, hint: str, reply: Reply) -> str:
        """The hint with what is known of the token, the likelier one first."""
        if self._held is None or self._held.token is None:
            return f"{hint}. No token was sent: it is that of the agent that counts"
        if self._vault.login.repeats:
            return f"{hint}. A new login changed nothing"
        if "1 error occurred" in reply.says and "invalid token" not in reply.says:  # the words of a policy's refusal
            return f"{hint}. The token itself is good"
        return (
            f"The token has ended or was revoked, and cannot be had again: put a new one where it is kept. Else: {hint}"
        )
