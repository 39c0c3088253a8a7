"""What a row of the matrix is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from secretsource import SecretSourceError

from .answers import (
    GOOD,
    LOGIN_ANSWER,
    LOGIN_PATH,
    METADATA_PATH,
    OAUTH_METADATA_PATH,
    TOKEN_ANSWER,
    TOKEN_PATH,
    VAULT_ANSWER,
    VAULT_PATH,
    metadata_answer,
)
from .peer import Line, Script, reply


@dataclass(frozen=True)
class Got:
    """A token is handed out all the same, and this one."""

    lifetime: float = 3600.0
    scopes: tuple[str, ...] = ()
    access_token: str = GOOD


Expected = type[SecretSourceError] | Got


@dataclass(frozen=True)
class Row:
    """One fault, and what a call ends in.

    `at`: which server misbehaves, at which question. `asked`: how often it is asked that. `retryable` and
    `retry_after` where they are not the usual ones of the class. `says`: words of the error. `tls`: with which
    certificate; `early`: the fault happens before anything is read. `waits`: one would wait for ever. `door`: who is
    behind the port, the server, nobody, or one that lets nobody in. `big`: it is for memory. `builds`: botocore makes
    a client anew for it, whose 8 MiB are not the fault's. `slow`: another row asks the same code the same.
    """

    at: str
    name: str
    fault: Script
    expected: Expected
    asked: int = 1
    retryable: bool | None = None
    retry_after: float | None = None
    says: str = ""
    tls: str | None = None
    early: bool = False
    waits: bool = False
    door: str = "open"
    method: str | None = "client_secret_basic"
    big: bool = False
    builds: bool = False
    slow: bool = False

    @property
    def id(self) -> str:
        return f"{self.at}: {self.name}"


@dataclass(frozen=True)
class Question:
    """What is asked of a server: by which kind of call, at which path, and which other answers it needs for it."""

    call: str
    path: str
    others: Mapping[str, Script]

    def routes(self, fault: Script) -> dict[str, Script]:
        return {**self.others, self.path: fault}


def _good_metadata(line: Line) -> None:
    reply(200, metadata_answer(line.peer.origin))(line)


QUESTIONS = {
    "token": Question("token", TOKEN_PATH, {}),
    "discovery": Question("discovery", METADATA_PATH, {TOKEN_PATH: reply(200, TOKEN_ANSWER)}),
    "token after discovery": Question("discovery", TOKEN_PATH, {METADATA_PATH: _good_metadata}),
    "proxy": Question("proxy", "issuer.test:443", {}),
    "vault read": Question("vault", VAULT_PATH, {LOGIN_PATH: reply(200, LOGIN_ANSWER)}),
    "vault login": Question("vault", LOGIN_PATH, {VAULT_PATH: reply(200, VAULT_ANSWER)}),
    "aws": Question("aws", "/", {}),
}
ALSO_ASKED = {OAUTH_METADATA_PATH, "/v1/sys/internal/ui/mounts/kv/prod/pos"}
"""Where else something may be looked up for a case."""


def rows(at: str, expected: Expected, faults: Mapping[str, Script], **facts: Any) -> Iterator[Row]:
    """Rows that end in the same."""
    for name, fault in faults.items():
        yield Row(at, name, fault, expected, **facts)
