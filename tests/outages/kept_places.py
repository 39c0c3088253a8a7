"""Stores that can be taken down, each in its ways: Vault and AWS by scripts, files, one in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from secretsource import (
    AccessDenied,
    BackendUnavailable,
    DeadlineExceeded,
    MalformedSecret,
    SecretNotFound,
    SecretReference,
    SecretSourceError,
)
from secretsource.testing import Answer, Fault, secret_file

from ..backends import secrets_manager, vaults
from ..stores import CLIENT, A, Store

Down = Callable[[], AbstractContextManager[None]]


class Place(NamedTuple):
    """Where the credentials are kept, how they are changed there, and how it goes out of order."""

    reference: str
    stores: Mapping[str, Any] | None
    put: Callable[[str], object]
    down: Down


class Case(NamedTuple):
    """`back_off`: seconds until a program that has nothing asks again."""

    place: Callable[[Path], AbstractContextManager[Place]]
    error: type[SecretSourceError]
    says: str
    back_off: float = 1.0
    hangs: bool = False

    @property
    def timeout(self) -> float:
        """Seconds that a call has; a store that hangs gets a third of them where there is something to fall back to."""
        return 1.2 if self.hangs else 10.0

    @property
    def errors(self) -> tuple[type[SecretSourceError], ...]:
        """Of a store that hangs, its own time-out and that of the call end at the same moment."""
        return (self.error, DeadlineExceeded) if self.hangs else (self.error,)


# --- Vault

HANGS = Fault(hang=True)


def vault(bad: Answer | None = None) -> Callable[[Path], AbstractContextManager[Place]]:
    """Vault that answers each read with `bad` while it is down; None: it refuses connections."""

    @contextmanager
    def place(_: Path) -> Iterator[Place]:
        with vaults.Scripted() as server:

            def put(secret: str) -> None:
                server.script[vaults.DATA] = vaults.secret(secret)

            @contextmanager
            def down() -> Iterator[None]:
                if bad is None:
                    with server.server.down():
                        yield
                    return
                good, server.script[vaults.DATA] = server.script[vaults.DATA], bad
                try:
                    yield
                finally:
                    if server.script[vaults.DATA] is bad:
                        server.script[vaults.DATA] = good
                    server.server.release()

            put(A)
            yield Place(vaults.REFERENCE, {"vault": vaults.by_token(server)}, put, down)

    return place


# --- AWS


def aws(bad: Answer | None = None) -> Callable[[Path], AbstractContextManager[Place]]:
    @contextmanager
    def place(_: Path) -> Iterator[Place]:
        answers: list[Answer | Mapping[str, Any]] = [{}]

        def answer(asked: secrets_manager.Asked) -> Answer | Mapping[str, Any]:
            if isinstance(answers[-1], Answer) or asked.stage in (None, "AWSCURRENT"):
                return answers[-1]
            return secrets_manager.refused("ResourceNotFoundException")  # no pending, no previous

        def put(secret: str) -> None:
            document = json.dumps({"client_id": CLIENT, "client_secret": secret})
            answers[0] = secrets_manager.value(document, version=f"{len(secret):032}")

        with secrets_manager.Scripted(answer) as server:

            @contextmanager
            def down() -> Iterator[None]:
                if bad is None:
                    with server._server.down():
                        yield
                    return
                answers.append(bad)
                try:
                    yield
                finally:
                    answers.pop()
                    server._server.release()

            put(A)
            yield Place("aws://prod/pos", {"aws": server.backend(read_timeout=5.0)}, put, down)

    return place


# --- files


def file(damage: Callable[[Path], object]) -> Callable[[Path], AbstractContextManager[Place]]:
    """A file that is damaged while it is down."""

    @contextmanager
    def place(folder: Path) -> Iterator[Place]:
        def put(secret: str) -> str:
            return secret_file(folder / "secrets", CLIENT, secret)

        path = Path("/", *SecretReference.parse(put(A)).segments)

        @contextmanager
        def down() -> Iterator[None]:
            whole = path.read_bytes()
            damage(path)
            try:
                yield
            finally:
                # In one step and with a new inode, as it is put back by hand or by an agent.
                put(json.loads(whole)["client_secret"])

        yield Place(str(SecretReference("file", path.parts[1:], absolute=True)), None, put, down)

    return place


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


# --- in memory


@contextmanager
def held(_: Path) -> Iterator[Place]:
    """A plug-in whose library knows no time-out."""
    store = Store(ttl=300.0)
    yield Place("memory://pos", store.stores, store.put, store.held)


@contextmanager
def raising(_: Path) -> Iterator[Place]:
    """A plug-in that raises what it should not."""
    store = Store(ttl=300.0)

    @contextmanager
    def down() -> Iterator[None]:
        store.failure = OSError("not-a-real-secret-in-a-text")
        try:
            yield
        finally:
            store.failure = None

    yield Place("memory://pos", store.stores, store.put, down)


CASES = {
    "vault refused": Case(vault(), BackendUnavailable, "cannot be reached"),
    "vault hanging": Case(vault(vaults.errors(200, fault=HANGS)), BackendUnavailable, "within", hangs=True),
    "vault sealed": Case(vault(vaults.errors(503, "Vault is sealed")), BackendUnavailable, "is sealed"),
    "vault limited": Case(vault(vaults.errors(429, Retry_After="60")), BackendUnavailable, "429", back_off=60),
    "aws refused": Case(aws(), BackendUnavailable, "cannot be reached"),
    "aws hanging": Case(aws(secrets_manager.given({}, fault=HANGS)), BackendUnavailable, "within", hangs=True),
    "aws 500": Case(
        aws(secrets_manager.refused("InternalServiceError", status=500)), BackendUnavailable, "out of order"
    ),
    "aws throttled": Case(aws(secrets_manager.refused("ThrottlingException")), BackendUnavailable, "throttling"),
    "file gone": Case(file(Path.unlink), SecretNotFound, "does not exist"),
    "file half written": Case(file(cut), MalformedSecret, "not valid json"),
    "file emptied": Case(file(lambda path: path.write_bytes(b"")), MalformedSecret, "is empty"),
    "file open to others": Case(file(lambda path: path.chmod(0o644)), AccessDenied, "everybody can read"),
    "plug-in hanging": Case(held, DeadlineExceeded, "within", hangs=True),
    "plug-in raising": Case(raising, BackendUnavailable, "OSError"),
}
