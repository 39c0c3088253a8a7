"""A rotation function for AWS Lambda, which Secrets Manager calls in four steps whenever a secret is due.

Its handler is `secretsource.rotation.aws_lambda.lambda_handler`, set up by the function's environment variables:

    SECRETSOURCE_ISSUER             the issuer, or SECRETSOURCE_TOKEN_URL, or both
    SECRETSOURCE_ADAPTER            how a secret is set there: keycloak, okta, …, or that of a distribution
    SECRETSOURCE_ADAPTER_SETTINGS   the adapter's arguments as a JSON object, with references in the place of secrets
    SECRETSOURCE_SCOPE, SECRETSOURCE_AUDIENCE, SECRETSOURCE_AUTH_METHOD
                                    what a token is asked for with, as programs do it
    SECRETSOURCE_CLIENT_ID          where the secret's value is one text
    SECRETSOURCE_FIELDS             such as id=app_id,secret=app_key, where its fields have other names
    SECRETSOURCE_WAIT               how long programs are given to read the pending secret before it is set, such as 6m;
                                    0 if absent: those that use secretsource read it when the old one is refused
    SECRETSOURCE_AWS_ENDPOINT       a VPC endpoint of Secrets Manager without private DNS

or written out, with an adapter of your own:

    lambda_handler = rotation_function(Keycloak(…), issuer="https://sso.example.com", scope="orders.read")

Each step can be repeated: a secret that is pending is never made anew, and one that works is not set again. The time
of the function (its time-out, at most 15 minutes) bounds all of a step: the wait, and the tokens that prove a secret,
which are spread over the time that a change needs at the issuer. The secret before is not kept for a soak: an issuer
that takes two at once is told to end the one under AWSPREVIOUS when the next is made, if it can tell that one by its
name or value. Any other is left to people.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, NoReturn

from ..backends import Held
from ..backends.aws import AwsBackend
from ..clock import SYSTEM_CLOCK, Clock, Deadline
from ..durations import duration
from ..errors import (
    BackendUnavailable,
    ConfigurationError,
    CredentialsRejected,
    IssuerUnavailable,
    forgetting,
)
from ..events import LOGGER
from ..reference import SecretReference
from ..secret import Secret
from ..source import TokenSource
from ..state import short_name
from .generate import Generator
from .issuers import adapter_called
from .outcome import Adapter, Applied, Minted, Outcome, Refused, Unknown
from .parties import Parties
from .policy import Policy

__all__ = ["lambda_handler", "rotation_function"]

Function = Callable[[Mapping[str, Any], Any], None]

_STEPS = {
    "createSecret": "create",
    "create_secret": "create",
    "setSecret": "set",
    "set_secret": "set",
    "testSecret": "test",
    "test_secret": "test",
    "finishSecret": "finish",
    "finish_secret": "finish",
}
_AT_THE_END = 2.0  # seconds that are left for saying what went wrong
_ASKED_EVERY = 1.0
_CALL_AT_MOST = 30.0
_SOURCES_AT_MOST = 64
_TOKEN = re.compile(r"[A-Za-z0-9-]{32,64}")


class _Event(NamedTuple):
    """What Secrets Manager asks for. `token` is the ID of the version that is to become the current one."""

    step: str
    secret: str
    token: str
    rotation_token: Secret | None


@forgetting
def lambda_handler(event: Mapping[str, Any], context: Any) -> None:
    """One step of a rotation. Raises SecretSourceError, whose text holds no secret; Secrets Manager tries again."""
    _of_the_environment()(event, context)


@forgetting
def rotation_function(
    adapter: Adapter,
    *,
    wait: str | float = 0.0,
    fields: str | None = None,
    backend: AwsBackend | None = None,
    generator: Generator | None = None,
    clock: Clock = SYSTEM_CLOCK,
    **source: Any,
) -> Function:
    """A rotation function that sets secrets by this adapter; `source` are the arguments of TokenSource.

    `wait`: seconds, or a duration, that programs are given to read the pending secret. `fields`: the fragment of a
    reference, `id=…,secret=…`. Raises ConfigurationError.
    """
    can = adapter.capabilities
    if can.asks:
        raise ConfigurationError(
            f"a {type(adapter).__name__} asks a person, and nobody is there when a Lambda function runs",
            hint="Use secretsource rotate for it",
        )
    if not can.chosen and can.slots == 1:
        raise ConfigurationError(
            "this issuer generates the secret and ends the old one at once: one lost answer would lock the client out",
            hint="Use secretsource rotate --accept-gap for it, or an adapter that gives the issuer our secret",
        )
    rotator = _Rotator(adapter, Policy(wait=duration(wait)), fields, backend or AwsBackend(), generator, clock, source)
    return rotator.called


@cache
def _of_the_environment() -> Function:
    name = _variable("ADAPTER")
    if not name:
        raise ConfigurationError(
            "SECRETSOURCE_ADAPTER is not set", hint="It names the issuer's adapter, such as keycloak"
        )
    settings = _settings(Secret(_variable("ADAPTER_SETTINGS") or "{}"))
    options = ("issuer", "token_url", "client_id", "scope", "audience", "auth_method", "fields", "wait")
    given: dict[str, Any] = {option: _variable(option.upper()) for option in options}
    endpoint = _variable("AWS_ENDPOINT")
    if endpoint:
        given["backend"] = AwsBackend(endpoint_url=endpoint)
    return rotation_function(adapter_called(name, settings), **{key: one for key, one in given.items() if one})


def _variable(name: str) -> str | None:
    return os.environ.get(f"SECRETSOURCE_{name}") or None


def _settings(text: Secret) -> dict[str, Any]:
    settings: Any = None
    with suppress(ValueError, RecursionError):
        settings = json.loads(text.reveal())
    if isinstance(settings, dict):
        return settings
    raise ConfigurationError(
        "SECRETSOURCE_ADAPTER_SETTINGS is no JSON object", hint='Such as {"url": "https://sso.example.com"}'
    )


class _Rotator:
    """Makes the steps, for any number of secrets."""

    def __init__(
        self,
        adapter: Adapter,
        policy: Policy,
        fields: str | None,
        backend: AwsBackend,
        generator: Generator | None,
        clock: Clock,
        source: Mapping[str, Any],
    ) -> None:
        self._adapter, self._policy, self._fields = adapter, policy, fields
        self._backend, self._generator, self._clock = backend, generator, clock
        self._source = dict(source)
        self._parties: dict[str, Parties] = {}
        self._lock = threading.Lock()
        self._of("aws://configured/so-far")  # says now what is wrong with the arguments

    @forgetting
    def called(self, event: Mapping[str, Any], context: Any) -> None:
        read = _read(event)
        step = _Step(self._of(f"aws://{read.secret}"), self._backend, read, _time(context), self._clock)
        if step.is_to_be_made():
            getattr(step, read.step)()
            LOGGER.info("%s: %s is done", step.name, read.step)

    def _of(self, text: str) -> Parties:
        reference = SecretReference.parse(text if self._fields is None else f"{text}#{self._fields}")
        with self._lock:
            known = self._parties.get(text)
            if known is not None:
                return known
        stores = {"aws": self._backend}
        source = TokenSource(str(reference), **{"stores": stores, "clock": self._clock, **self._source})
        made = Parties(source, self._adapter, self._policy, self._generator)
        with self._lock:
            while len(self._parties) >= _SOURCES_AT_MOST:
                self._parties.pop(next(iter(self._parties)))
            return self._parties.setdefault(text, made)


class _Step:
    """One step for one version of one secret."""

    def __init__(self, parties: Parties, backend: AwsBackend, event: _Event, seconds: float, clock: Clock) -> None:
        self._parties, self._labels, self._event, self._clock = parties, backend.labels, event, clock
        self._adapter, self._can = parties.adapter, parties.capabilities
        self._deadline = Deadline(max(1.0, seconds - _AT_THE_END), clock)
        self.name = parties.name

    def is_to_be_made(self) -> bool:
        """Whether it is; not where this version is the current one already. Raises what stands in the way."""
        token = self._event.token
        found = self._labels.described(self._parties.reference, timeout=self._seconds())
        if not found.rotates:
            raise ConfigurationError(
                f"{self.name} has no rotation enabled",
                hint="A rotation function is for secrets whose rotation is one: aws secretsmanager rotate-secret",
            )
        if found.current == token:
            return False
        if found.labels.get("AWSPENDING") != token:
            raise ConfigurationError(
                f"{self.name} has no version {token} under AWSPENDING, so there is nothing to make current",
                hint="Another rotation may have begun: see aws secretsmanager describe-secret --secret-id …",
            )
        return True

    # --- the four

    def create(self) -> None:
        held = self._held()
        if held.pending is not None:
            return
        found = self._parties.issuer_preflight(held)  # what would stand in the way is found before anything is changed
        current_id = short_name(found.current_id) or held.state.current_id
        if self._can.retires and held.previous is not None and (found.secrets is None or found.secrets > 1):
            self._end_the_previous(held, current_id)
        beside = dict(self._parties.missing_binding(held))
        if self._can.chosen:
            self._put(self._parties.new_secret(held), beside, None, current_id)
            return
        client, label = self._parties.client(held), f"secretsource-{self._event.token}"
        # An earlier attempt may have died with a secret that nobody holds.
        reaped = self._parties.asked(lambda: self._adapter.reap(client, label, self._call()), held)
        self._check(reaped, "removing what an earlier attempt generated")
        minted = self._parties.asked(lambda: self._adapter.mint(client, label, self._call()), held)
        if not isinstance(minted, Minted):
            self._check(minted, "generating a secret")
            return
        self._put(minted.secret, {**beside, **(minted.beside or {})}, minted.id, current_id)

    def set(self) -> None:
        held = self._pending()
        if self._accepts(held) or not self._can.chosen:
            return
        said = self._parties.probe(held, held.current)
        if said.word == "rejected" and not self._patiently(held):
            raise CredentialsRejected(
                f"the issuer accepts neither the current nor the pending secret of {self.name}",
                hint="Somebody has changed it there: put that one under AWSCURRENT, or set the pending one by hand",
                issuer=self._parties.target.name,
            )
        if said.word == "rejected":
            return
        if self._parties.policy.wait:
            self._wait()
            held = self._pending()
        client, pending = self._parties.client(held), _of(held.pending)
        try:
            self._parties.prepare(held)
            outcome = self._parties.asked(lambda: self._adapter.apply(client, pending, self._call()), held)
        finally:
            self._parties.close()
        if isinstance(outcome, Refused):
            self._check(outcome, "setting the secret")
        if not self._patiently(held):  # also what looks done: the token endpoint is the one to ask
            raise IssuerUnavailable(
                f"the issuer does not accept the pending secret of {self.name} yet",
                hint="Secrets Manager tries again; a longer time-out of the function gives it more time",
                issuer=self._parties.target.name,
            )

    def test(self) -> None:
        """A token with it; with the current one where Secrets Manager tries out the function on an empty version."""
        held = self._held()
        if held.pending is None:
            said = self._parties.probe(held, held.current)
            accepted = said.word == "accepted"
        else:
            accepted = self._patiently(held, self._parties.policy.proofs)
        if not accepted:
            self._not_accepted("current" if held.pending is None else "pending")

    def finish(self) -> None:
        """Much may have happened since it was tested."""
        if not self._accepts(self._pending()):
            self._not_accepted("pending")
        self._labels.make_current(self._parties.reference, self._event.token, timeout=self._seconds())

    # --- what they are made of

    def _held(self) -> Held:
        return self._parties.read()

    def _pending(self) -> Held:
        held = self._held()
        if held.pending is None:
            raise BackendUnavailable(
                f"{self.name} has no value under AWSPENDING",
                hint="The step createSecret puts one there; Secrets Manager begins anew with it",
                reference=self.name,
                store="aws",
            )
        return held

    def _not_accepted(self, which: str) -> NoReturn:
        raise CredentialsRejected(
            f"the issuer does not accept the {which} secret of {self.name}",
            hint="See whether it was set: the step setSecret does it",
            issuer=self._parties.target.name,
        )

    def _put(self, secret: Secret, beside: Mapping[str, Secret], id: str | None, previous_id: str | None) -> None:
        event = self._event
        self._labels.put_pending(
            self._parties.reference,
            event.token,
            secret,
            beside=beside,
            id=short_name(id),
            previous_id=previous_id,
            rotation_token=event.rotation_token,
            timeout=self._seconds(),
        )

    def _end_the_previous(self, held: Held, keep: str | None) -> None:
        """So that there is room for the new one. Without a name, an adapter would have to go by the age of secrets."""
        gone = None if held.state.previous_id == keep else held.state.previous_id
        if keep is None and gone is None:
            LOGGER.warning("%s: the issuer has no name for its secrets, so the previous one is not ended", self.name)
            return
        if self._parties.probe(held, held.current).word != "accepted":
            raise CredentialsRejected(
                f"the issuer does not accept the current secret of {self.name}",
                hint="Put the right one there first",
                issuer=self._parties.target.name,
            )
        client = self._parties.client(held)
        ended = self._parties.asked(lambda: self._adapter.retire(client, keep, gone, self._call()), held)
        if self._can.restores and isinstance(ended, Applied):
            ended = self._parties.asked(lambda: self._adapter.remove(client, keep, gone, self._call()), held)
        if isinstance(ended, Refused):  # then there may be room beside it
            LOGGER.warning("%s: the previous secret is not ended: %s. %s", self.name, ended.reason, ended.hint or "")
            return
        self._check(ended, "ending the previous secret")

    def _accepts(self, held: Held) -> bool:
        said = self._parties.probe(held, _of(held.pending))
        if said.error is not None:
            raise said.error.again()
        return said.word == "accepted"

    def _patiently(self, held: Held, proofs: int = 1) -> bool:
        """Whether it is accepted, in the time that a change needs to hold everywhere and an answer to come late.

        So many `proofs` in a row are spread over the time that it needs to hold, or over what is left.
        """
        propagation = self._parties.policy.propagation or 0.0
        spread = propagation if proofs > 1 else 0.0
        limit = Deadline(
            min(self._deadline.left(), propagation + self._can.landing + spread + _ASKED_EVERY), self._clock
        )
        accepted, apart = 0, 0.0
        while True:
            said = self._parties.probe(held, _of(held.pending))
            if said.word == "accepted":
                accepted += 1
                if accepted >= proofs:
                    return True
                if accepted == 1:
                    apart = max(0.0, min(spread, self._deadline.left() - _ASKED_EVERY)) / (proofs - 1)
                self._clock.sleep(apart)
                continue
            accepted = 0
            if limit.left() <= _ASKED_EVERY:
                if said.error is not None:
                    raise said.error.again()
                return False
            self._clock.sleep(_ASKED_EVERY)

    def _wait(self) -> None:
        seconds = self._parties.policy.wait or 0.0
        if seconds + _CALL_AT_MOST > self._deadline.left():
            raise ConfigurationError(
                f"the function has no time to wait {seconds:g} s before it sets the secret of {self.name}",
                hint="Give it a longer time-out, or SECRETSOURCE_WAIT a shorter time",
            )
        self._clock.sleep(seconds)

    def _call(self) -> Deadline:
        return Deadline(min(_CALL_AT_MOST, self._deadline.left()), self._clock)

    def _seconds(self) -> float:
        return max(0.5, min(_CALL_AT_MOST, self._deadline.left()))

    def _check(self, outcome: Outcome | Minted, what: str) -> None:
        if isinstance(outcome, Refused):
            raise ConfigurationError(f"{self.name}: the issuer refused {what}: {outcome.reason}", hint=outcome.hint)
        if isinstance(outcome, Unknown):
            raise IssuerUnavailable(
                f"{self.name}: it is not known whether {what} was done: {outcome.reason}",
                hint="Secrets Manager tries again",
                issuer=self._parties.target.name,
            )
        assert isinstance(outcome, (Applied, Minted))


def _of(secret: Secret | None) -> Secret:
    assert secret is not None
    return secret


def _read(event: Mapping[str, Any]) -> _Event:
    found = [event.get(name) for name in ("Step", "SecretId", "ClientRequestToken")]
    step, secret, token = (text if isinstance(text, str) else "" for text in found)
    rotation_token = event.get("RotationToken")
    if step not in _STEPS or not secret or not _TOKEN.fullmatch(token):
        raise ConfigurationError(
            "the event is not one of a rotation",
            hint="Secrets Manager gives Step (createSecret, setSecret, testSecret, finishSecret), SecretId and "
            "ClientRequestToken",
        )
    return _Event(_STEPS[step], secret, token, Secret(rotation_token) if isinstance(rotation_token, str) else None)


def _time(context: Any) -> float:
    """Seconds that the function may still run."""
    left = getattr(context, "get_remaining_time_in_millis", None)
    failed = False
    milliseconds: Any = None
    try:
        milliseconds = left() if callable(left) else None
    except Exception:
        failed = True
    if failed or isinstance(milliseconds, bool) or not isinstance(milliseconds, (int, float)):
        return 60.0
    return milliseconds / 1000
