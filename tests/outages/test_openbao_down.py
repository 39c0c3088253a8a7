"""A real OpenBao, for itself alone, is sealed, is stopped like a machine that swaps, and goes away."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import trustme

from secretsource import BackendUnavailable, DeadlineExceeded
from secretsource.backends.vault import AppRole
from secretsource.events import CredentialsRecovered, CredentialsStale
from secretsource.testing import TickingClock

from ..backends.openbao import Corner, OpenBao, Unavailable
from ..stores import A, eventually
from .scenario import Calls, Site, call, landed

LIFETIME = 400.0
"""Seconds, which is longer than a secret is kept: each renewal reads."""
TIMEOUT = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    try:
        with OpenBao(tmp_path_factory.mktemp("own-openbao"), trustme.CA()) as server:
            yield server
    except Unavailable as why:
        pytest.skip(str(why))


@contextmanager
def sealed(server: OpenBao) -> Iterator[None]:
    server.seal()
    try:
        yield
    finally:
        server.unseal()


@contextmanager
def stopped(server: OpenBao) -> Iterator[None]:
    """Its sockets are open, and nothing is answered."""
    process = process_of(server)
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def process_of(server: OpenBao) -> int:
    """The server itself, below the shell that ends it."""
    shell = server._process
    assert shell is not None
    if shutil.which("ps") is None:
        pytest.skip("needs ps, to find the server")
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    (found,) = [int(pid) for pid, parent, name in rows if parent == str(shell.pid) and Path(name).name == "bao"]
    return found


WAYS: dict[str, tuple[Callable[[OpenBao], AbstractContextManager[None]], str]] = {
    "sealed": (sealed, "is sealed"),
    "stopped": (stopped, "within 1 s"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_program_lives_through_it_and_one_that_starts_meanwhile_is_told_what_is_wrong(
    way: str, server: OpenBao, tmp_path: Path, clock: TickingClock
) -> None:
    down, says = WAYS[way]
    corner = Corner(server, tmp_path, f"outage-{way}", [])
    kv = corner.kv()
    corner.secret(kv, "pos", A)
    login: AppRole = corner.role(corner.policy(f"{kv}/data/pos")).login
    reference = f"vault://{kv}/pos"

    def stores() -> dict[str, object]:
        return {"vault": corner.backend(login)}  # one for each process, which logs in itself

    with Site(lifetime=LIFETIME, clock=clock, credentials=reference, timeout=TIMEOUT, stores=stores()) as site:
        site.source.token(timeout=20)
        with down(server):
            seen = Calls()
            for _ in range(2):
                clock.tick(LIFETIME)
                seen.append(call(site.source, clock))
            starting = site.another(stores=stores())
            failed = call(starting, clock)
        assert seen.failures == []
        assert len(seen.tokens) == 2
        assert seen.slowest < TIMEOUT
        assert failed.took < 2 * TIMEOUT
        error = failed.outcome
        assert isinstance(error, (BackendUnavailable, DeadlineExceeded))
        assert says in str(error)
        assert getattr(error, "reference", reference) == reference
        assert error.hint
        eventually(lambda: site.events.of(CredentialsStale))
        landed(starting)
        clock.tick(1.1)
        assert starting.token(timeout=20).expires_in > 0
        clock.tick(LIFETIME)
        site.source.token(timeout=20)
        eventually(lambda: site.events.of(CredentialsRecovered))
