"""Code of others that the way calls: stores, functions, hooks and logging of a program that break or tell too much."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from secretsource import ClientCredentials, Document, SecretReference
from secretsource.errors import (
    AccessDenied,
    BackendUnavailable,
    MalformedSecret,
    SecretSourceError,
)
from secretsource.events import Event
from secretsource.testing import FakeIssuer

from ..stores import Store
from .canaries import SPECIAL
from .watch import Watch


def _chained(secret: str) -> None:
    try:
        raise ValueError(secret)
    except ValueError as error:
        raise BackendUnavailable("it is down") from error


def _in_context(secret: str) -> None:
    try:
        raise KeyError(secret)
    except KeyError:
        raise AccessDenied("no")  # noqa: B904 - as people write it


def _raise(error: BaseException) -> None:
    raise error


BREAKS: dict[str, Callable[[str], object]] = {
    "RuntimeError": lambda s: _raise(RuntimeError(s)),
    "KeyError": lambda s: dict[str, str]()[s],
    "an error of Unicode": lambda s: f"{s}⋯".encode("ascii"),
    "an error of a number": int,
    "OSError": lambda s: open(f"/nowhere/{s}"),  # noqa: SIM115 - it is not there
    "AssertionError": lambda s: _raise(AssertionError(f"assert {s!r} == 1")),
    "SystemExit": lambda s: _raise(SystemExit(s)),
    "KeyboardInterrupt": lambda s: _raise(KeyboardInterrupt(s)),
    "CancelledError": lambda s: _raise(asyncio.CancelledError(s)),
    "GeneratorExit": lambda s: _raise(GeneratorExit(s)),
    "an error of ours behind which another is": _chained,
    "an error of ours beside which another is": _in_context,
    "a group": lambda s: _raise(ExceptionGroup(s, [ValueError(s)])),
    "the secret itself": str,
    "a list": lambda s: [s],
    "a mapping": lambda s: {"client_id": "pos", "client_secret": s},
    "a document with another name": lambda s: Document({"key": s}),
    "a document of text": Document,
    "credentials where a document belongs": lambda s: ClientCredentials("pos", s),
    "nothing": lambda s: None,
}


class Odd:
    """A store that does this with its secret."""

    options: frozenset[str] = frozenset()
    ttl: float | None = 0.0

    def __init__(self, breaks: Callable[[str], Any], secret: str) -> None:
        self._breaks, self._secret = breaks, [secret]

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Any:
        return self._breaks(self._secret[0])

    def caution(self, reference: SecretReference) -> str:
        raise RuntimeError(self._secret[0])


@pytest.mark.parametrize("breaks", BREAKS)
def test_a_store_that_breaks(watch: Watch, issuer: FakeIssuer, breaks: str) -> None:
    store = Odd(BREAKS[breaks], watch.canary("client secret", SPECIAL))
    source = watch.source("odd:pos", stores={"odd": store}, issuer=issuer.url)
    watch.fails(SecretSourceError, source.token)
    watch.fails(SecretSourceError, lambda: asyncio.run(source.atoken()))
    watch.look(source.status())
    watch.look(source)


@pytest.mark.parametrize("breaks", [name for name in BREAKS if "document" not in name])
def test_a_function_for_credentials_that_breaks(watch: Watch, issuer: FakeIssuer, breaks: str) -> None:
    store = Odd(BREAKS[breaks], watch.canary("client secret", SPECIAL))
    reference = SecretReference.parse("odd:pos")
    source = watch.source(lambda: store.read(reference, fresh=True, timeout=1), issuer=issuer.url)
    watch.fails(SecretSourceError, source.token)
    watch.look(source.status())


def _hook(raised: Callable[[], BaseException]) -> Callable[[Event], None]:
    def hook(event: Event) -> None:
        raise raised()

    return hook


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, KeyError])
def test_a_hook_that_raises_what_it_knows(watch: Watch, issuer: FakeIssuer, kind: type[BaseException]) -> None:
    known = [watch.canary("what the hook knows")]
    secret = watch.canary("client secret")
    source = watch.source(issuer.add_client("pos", secret), issuer=issuer.url, on_event=_hook(lambda: kind(known[0])))
    watch.gives(source.token)
    issuer.set_secret("pos", "not-a-real-secret-of-nobody")
    watch.fails(SecretSourceError, lambda: source.token(force=True))


def test_a_hook_is_given_nothing_secret(watch: Watch, issuer: FakeIssuer) -> None:
    store, new = Store(), watch.canary("pending secret")
    old = watch.canary("client secret", SPECIAL)
    issuer.add_client("pos", old)
    store.put(old, pending=new)
    source = watch.source("memory:pos", stores=store.stores, issuer=issuer.url)
    watch.canary_of("first token", source.token().access_token)
    issuer.set_secret("pos", new)
    watch.canary_of("second token", source.token(force=True).access_token)
    store.failure = MalformedSecret("half of it")
    source.reload()
    watch.gives(lambda: source.token(force=True))
    assert {"CandidateRejected", "CandidateUsed", "CredentialsStale"} <= set(watch.events.names())


class Frank(logging.Filter):
    """A filter of a program that looks at everything a record has."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.everything = {name: repr(value) for name, value in vars(record).items()}
        return True


def test_a_program_that_logs_all_there_is(watch: Watch, issuer: FakeIssuer) -> None:
    watch.log.addFilter(Frank())
    source = watch.source(issuer.add_client("pos", watch.canary("client secret")), issuer=issuer.url)
    watch.canary_of("access token", source.token().access_token)
    with issuer.down():
        watch.fails(SecretSourceError, source.verify)
