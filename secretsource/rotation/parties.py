"""Whom a rotation deals with: the store, the issuer by its adapter, and its token endpoint, each asked in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from ..backends import Held
from ..backends.layout import rotatable
from ..clock import Deadline
from ..errors import ConfigurationError, SecretSourceError
from ..events import LOGGER
from ..flight import in_time
from ..secret import Secret
from ..source import TokenSource
from ..token import Token
from .generate import Generator, generate
from .hearsay import fit, made_by, outcome_of, preflight_of
from .outcome import Adapter, Applied, Client, Minted, Preflight, Refused, Unknown
from .policy import Due, Policy
from .probe import Said, probe

__all__ = ["Parties"]

T = TypeVar("T")

_CONSUMERS_NEED = 60.0
_OF_A_FILE = 5.0
_SOAK_OF_SEVERAL = 86400.0


class Parties:
    """Raises ConfigurationError where the secret cannot be changed. `policy` has no None left in it."""

    def __init__(self, source: TokenSource, adapter: Adapter, policy: Policy, generator: Generator | None) -> None:
        if not isinstance(adapter, Adapter):
            raise ConfigurationError(
                f"a {type(adapter).__name__} is no adapter", hint="See secretsource.rotation.Adapter"
            )
        self.source, self.adapter, self.target = source, adapter, source.target
        self.reference = source.credentials.reference
        self.name = str(self.reference)
        self.store = rotatable(source.credentials.backend, self.reference)
        can = adapter.capabilities
        self.capabilities = replace(can, lockout=can.lockout or self.target.profile.lockout)
        self.policy = self._settled(policy)
        self.clock = source.clock
        self._generator = generator or generate
        self._expires: float | None = None

    def read(self) -> Held:
        """What the store holds. Raises BackendError, and ConfigurationError where that is for somebody else."""
        client_id = self.source.credentials.client_id
        held = self.in_time(
            lambda left: self.store.read_held(self.reference, client_id=client_id, timeout=left), "reading the store"
        )
        self.target.check_binding(held.binding, self.name)
        return held

    def probe(self, held: Held, secret: Secret) -> Said:
        return probe(self.source, held, secret, self.capabilities.rejected)

    def store_cautions(self) -> Sequence[str]:
        return self.in_time(lambda left: self.store.preflight(self.reference, timeout=left), "asking the store")

    def issuer_preflight(self, held: Held) -> Preflight:
        seconds = self.source.timeout
        limit = Deadline(seconds, self.clock)
        # What an adapter gives is no local here: it may be anything.
        found = in_time(
            lambda left: preflight_of(self.adapter.check(self.client(held), limit), *_secrets_in(held)),
            seconds,
            "asking the issuer",
            self.clock,
        )
        if found is None:
            raise ConfigurationError(f"{type(self.adapter).__name__}.check gave no Preflight", hint="It gives one")
        self._expires = found.expires
        return found

    def prepare(self, held: Held) -> None:
        """Raises SecretSourceError where the adapter cannot be made ready for a call."""
        failure: SecretSourceError
        try:
            self.adapter.prepare(self.client(held))
            return
        except SecretSourceError as error:
            failure = error.again()
        except Exception as error:
            failure = ConfigurationError(
                f"{type(self.adapter).__name__}.prepare raised {type(error).__name__}",
                hint="Its text is left out, since it may hold a secret; this is a bug of the adapter",
            )
        raise failure

    def close(self) -> None:
        """What the adapter raises is logged by its type: it undoes nothing."""
        failed = ""
        try:
            self.adapter.close()
        except Exception as error:
            failed = type(error).__name__
        if failed:
            LOGGER.warning("%s: %s.close raised %s", self.name, type(self.adapter).__name__, failed)

    def asked(self, call: Callable[[], object], held: Held) -> Applied | Minted | Refused | Unknown:
        """How a call to the adapter ended, whatever it gives or raises, with no secret in its texts."""
        known = _secrets_in(held)
        try:
            return outcome_of(call(), *known)  # no local: it may be anything
        except ConfigurationError as error:
            return outcome_of(Refused(error.message, error.hint), *known)
        except Exception as error:  # its text may hold a secret
            return Unknown(f"{type(self.adapter).__name__} raised {type(error).__name__}")

    def reason(self, text: object, held: Held, token: Token | None) -> str:
        """Why a gate says what it says, if no secret is in it."""
        return fit(text, *_secrets_in(held), token)

    def client(self, held: Held) -> Client:
        secrets = held.current, held.pending, held.previous
        return Client(held.client_id, held.beside, self.target.environment, self.name, *secrets, self.target.name)

    def due(self, held: Held) -> Due:
        return Due.of(held, self.policy, self.now(), name=self.name, expires=self._expires)

    def now(self) -> float:
        """Seconds since 1970, as they are stored."""
        return round(self.clock.now().wall, 3)

    def in_time(self, call: Callable[[float], T], phase: str) -> T:
        return in_time(call, self.source.timeout, phase, self.clock)

    def new_secret(self, held: Held) -> Secret:
        made = made_by(self._generator)
        fault = f"generator {made}" if isinstance(made, str) else _fault(made, held)
        if fault is None:
            assert isinstance(made, Secret)
            return made
        del made
        raise ConfigurationError(f"the {fault}", hint="secretsource generate makes one of 256 bits")

    def missing_binding(self, held: Held) -> Mapping[str, Secret]:
        """What the document should be bound to and is not yet."""
        target, bound = self.target, held.binding
        wanted = {"environment": None if bound.environment else target.environment or None}
        if not bound.issuer and not bound.token_url:
            wanted["issuer" if target.issuer else "token_url"] = target.issuer or target.token_url
        return {name: Secret(value) for name, value in wanted.items() if value}

    def _settled(self, policy: Policy) -> Policy:
        """The policy with defaults that fit this store and issuer."""
        ttl, capabilities = self.store.ttl, self.capabilities
        wait = policy.wait
        if wait is None:
            if getattr(self.store, "copied", False):
                raise ConfigurationError(
                    f"what reads {self.reference} reads copies, and only you know how soon those follow",
                    hint="Give --wait (wait= in the configuration): the longest time until every copy is new",
                )
            wait = ttl * 1.1 + _CONSUMERS_NEED if ttl else _OF_A_FILE
        several = capabilities.retires and not capabilities.single_slot
        return policy.settled(
            wait=wait,
            soak=_SOAK_OF_SEVERAL if several else wait,
            propagation=capabilities.propagation,
            landing=capabilities.landing,
        )


def _secrets_in(held: Held) -> tuple[Secret | None, ...]:
    return (held.current, held.pending, held.previous, *held.beside.values())


def _fault(secret: Secret, held: Held) -> str | None:
    """What is wrong with a secret that is to become the new one, in words that do not repeat it."""
    text = secret.reveal()
    if len(text) < 16 or len(set(text)) < 8:
        return "generator's secret is too short, or too much alike"
    if not text.isascii() or not text.isprintable() or len(text) > 4096:
        return "generator's secret has other characters in it than printable ASCII, or too many"
    return (
        "generator's secret is one that is there already"
        if secret in (held.current, held.pending, held.previous)
        else None
    )
