"""What an issuer can do, and how a call to it ended: the words that adapters and engine share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from ..clock import Deadline
from ..secret import Secret

__all__ = ["Adapter", "Applied", "Capabilities", "Client", "Minted", "Outcome", "Preflight", "Refused", "Unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the issuer can do. Times are seconds.

    `chosen`: it takes a secret that we choose; else it generates one. `slots`: how many secrets of a client it accepts
    at once, None where that is not known. `propagation`: until a change holds on all of its nodes. `landing`: how long
    a call whose answer was lost may still take effect. `retires`: an old secret stays until it is removed by a call.
    `restores`: one that was retired can be brought back until it is removed for good. `rejected`: OAuth error codes,
    beyond RFC 6749's, with which it answers to a wrong secret. `lockout`: wrong secrets lock the client, so it is asked
    rarely. `asks`: a person does it, so that a call lasts as long as that takes.
    """

    chosen: bool
    slots: int | None
    propagation: float = 5.0
    landing: float = 30.0
    retires: bool = False
    restores: bool = False
    rejected: tuple[str, ...] = ()
    lockout: bool = False
    asks: bool = False

    @property
    def single_slot(self) -> bool:
        return self.slots == 1


class Client(NamedTuple):
    """The client whose secret is changed. `beside`: the other texts of its document, such as a registration token.

    `current`, `pending`, `previous` are what the store holds now: by these an adapter tells the client's secrets from
    those that other people have made, where it has no name for them yet. `issuer` is that of its tokens, or the token
    URL.
    """

    client_id: str
    beside: Mapping[str, Secret] = {}
    environment: str = ""
    reference: str = ""
    current: Secret | None = None
    pending: Secret | None = None
    previous: Secret | None = None
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """The issuer says that it has done it. `id`: its name for the secret, `expires`: when that ends (since 1970)."""

    id: str | None = None
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Minted:
    """A secret that the issuer has generated. `beside`: further texts that must be kept with it, such as a new token
    for the next call."""

    secret: Secret
    id: str | None = None
    expires: float | None = None
    beside: Mapping[str, Secret] | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The issuer has not done it, and no secret has changed. `beside`: what must be kept all the same."""

    reason: str
    hint: str | None = None
    beside: Mapping[str, Secret] | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """It is not known whether it was done: no answer, or one that says nothing. `beside`: as in Refused."""

    reason: str
    beside: Mapping[str, Secret] | None = None


Outcome = Applied | Refused | Unknown


class Preflight(NamedTuple):
    """What `check` found: cautions for the person, the number of secrets that are there, when the current one ends.

    `current_id`: what the issuer calls the current secret, where that can be told.
    """

    cautions: Sequence[str] = ()
    secrets: int | None = None
    expires: float | None = None
    current_id: str | None = None


@runtime_checkable
class Adapter(Protocol):
    """Changes a client's secret at one issuer. Called from one thread at a time; texts in it hold no secret.

    What cannot be told apart from success is Unknown: the token endpoint tells. Nothing is repeated inside: the engine
    knows when that is safe. A class that derives from this one defines what its capabilities say, and `check`.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        """Look, without changing anything, whether a rotation can be made.

        Raises ConfigurationError, with the way out, where it cannot; IssuerUnavailable.
        """
        ...

    def prepare(self, client: Client) -> None:
        """Do what takes time before a call is announced, such as the start of a program. Nothing takes effect yet."""
        return

    def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Outcome:
        """Have the issuer accept this secret. (`chosen`)"""
        return _NOT_HERE

    def mint(self, client: Client, label: str, deadline: Deadline) -> Minted | Refused | Unknown:
        """Have it generate one, findable by this label where it has labels. (not `chosen`)"""
        return _NOT_HERE

    def reap(self, client: Client, label: str, deadline: Deadline) -> Outcome:
        """Remove what was generated under this label, whose value nobody holds. (not `chosen`, more than one slot)"""
        return _NOT_HERE

    def retire(self, client: Client, keep: str | None, gone: str | None, deadline: Deadline) -> Outcome:
        """Have the issuer accept `keep` and no longer `gone`, by its names for them. (`retires`)

        None: not known. Where neither is, the newest is kept. What other people made is left alone.
        """
        return _NOT_HERE

    def restore(self, client: Client, deadline: Deadline) -> Outcome:
        """Take the last `retire` back. (`restores`)"""
        return _NOT_HERE

    def remove(self, client: Client, keep: str | None, gone: str | None, deadline: Deadline) -> Outcome:
        """Remove for good what was retired. (`restores`)"""
        return _NOT_HERE

    def close(self) -> None:
        """End what `prepare` began and no call has used."""
        return


_NOT_HERE = Refused("this issuer has no such call")
