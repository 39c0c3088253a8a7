"""Whom a rotation deals with: the store, the issuer by its adapter, and its token endpoint, each asked in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from ..backends import Held
from ..backends.layout import rotatable
from ..clock import Deadline
from ..errors import ConfigurationError
from ..flight import in_time
from ..secret import Secret
from ..source import TokenSource
from .generate import Generator, generate
from .outcome import Adapter, Client, Preflight
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
        found = in_time(
            lambda left: self.adapter.check(self.client(held), limit), seconds, "asking the issuer", self.clock
        )
        self._expires = found.expires
        return found

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
        made = self._generator()
        secret = made if isinstance(made, Secret) else Secret(made)
        del made
        fault = _fault(secret, held)
        if fault is None:
            return secret
        del secret
        raise ConfigurationError(f"the generator's secret {fault}", hint="secretsource generate makes one of 256 bits")

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


def _fault(secret: Secret, held: Held) -> str | None:
    """What is wrong with a secret that is to become the new one, in words that do not repeat it."""
    text = secret.reveal()
    if len(text) < 16 or len(set(text)) < 8:
        return "is too short, or too much alike"
    if not text.isascii() or not text.isprintable() or len(text) > 4096:
        return "has other characters in it than printable ASCII, or too many"
    return "is one that is there already" if secret in (held.current, held.pending, held.previous) else None
