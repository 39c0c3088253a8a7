"""Two rotators at once on each store: one rotation comes of it, one secret reaches the issuer, and no call fails."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from secretsource import Secret, SecretReference, TokenSource
from secretsource.backends import Backend, Stored
from secretsource.backends.file import FileBackend
from secretsource.backends.layout import rotatable
from secretsource.backends.vault import StaticToken
from secretsource.clock import Deadline
from secretsource.rotation import Adapter, Applied, Capabilities, Client, Policy, Preflight, Report, Rotation
from secretsource.testing import FakeIssuer

from ..backends.corrected_moto import corrected
from ..backends.openbao import OpenBao
from ..backends.secrets_manager import Moto
from ..stores import in_threads
from .programs import calling
from .site import CLIENT, FIRST, Memory
from .world import KINDS, Process, quick, world

ROTATORS = 2


class Place(NamedTuple):
    """Where the secret is: a reference, and what makes a store of one's own for it."""

    reference: str
    stores: Callable[[], Mapping[str, Backend]]


class _Guarded(Memory):
    """A store for several threads."""

    def __init__(self) -> None:
        super().__init__(client_id=CLIENT, client_secret=FIRST)
        self._lock = threading.Lock()

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        with self._lock:
            return super().write_whole(reference, fields, version=version, timeout=timeout)

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        with self._lock:
            return super().read_whole(reference, timeout=timeout)


class _Administrator(Adapter):
    """Saves a secret in the one slot that there is. `saved` has all that any of them has saved."""

    capabilities = Capabilities(chosen=True, slots=1, propagation=0.3, landing=1.0)

    def __init__(self, issuer: FakeIssuer, saved: list[str]) -> None:
        self._issuer, self._saved = issuer, saved

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        return Preflight()

    def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Applied:
        self._saved.append(secret.reveal())
        self._issuer.set_secret(client.client_id, secret.reveal())
        return Applied()


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer(lifetime=1) as issuer:
        issuer.add_client(CLIENT, FIRST)
        yield issuer


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with corrected() as moto:
        yield moto


@pytest.fixture(params=["memory", "file", "openbao", "aws"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    first = {"client_id": CLIENT, "client_secret": FIRST}
    match request.param:
        case "memory":
            memory = _Guarded()
            return Place("memory:pos", lambda: {"memory": memory})
        case "file":
            tmp_path.chmod(0o700)
            path = tmp_path / "pos.json"
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                json.dump(first, file)
            return Place(f"file://{path}", lambda: {"file": FileBackend()})
        case "openbao":
            server: OpenBao = request.getfixturevalue("openbao")
            corner = server.corner(tmp_path, [])
            mount, token = corner.kv(), corner.kept(server.root)
            corner.secret(mount, "pos", FIRST)
            return Place(f"bao://{mount}/pos", lambda: {"bao": corner.backend(StaticToken(token))})
    aws: Moto = request.getfixturevalue("moto")
    name = aws.create(first)
    return Place(f"aws://{name}", lambda: {"aws": aws.backend()})


def test_of_two_rotators_at_once_one_rotation_comes(place: Place, issuer: FakeIssuer) -> None:
    saved: list[str] = []
    policy = Policy(every=0.001, wait=0.3, soak=0.5, command_timeout=5)

    def rotate() -> Report:
        source = TokenSource(place.reference, issuer=issuer.url, stores=place.stores(), timeout=20)
        return Rotation(source, _Administrator(issuer, saved), policy=policy).run()

    with calling(issuer, place.reference, place.stores) as calls:
        outcomes = in_threads(ROTATORS, rotate)
        seen = calls.count
    assert [getattr(outcome, "result", outcome) for outcome in outcomes] == ["done"] * ROTATORS
    assert len(set(saved)) == 1, "one secret"
    reference = SecretReference.parse(place.reference)
    store = rotatable(place.stores()[reference.store], reference)
    held = store.read_held(reference, client_id=None, timeout=20)
    assert held.current.reveal() == saved[0]
    assert (held.pending, held.previous) == (None, None)
    assert seen > 10
    assert calls.failed == []


@pytest.mark.parametrize("kind", KINDS)
def test_whichever_of_two_makes_the_next_step_one_rotation_comes(kind: str) -> None:
    """By force, so that nothing but having taken part tells the one that the other has ended it."""
    for seed in range(8):
        with world(kind, seed=seed) as here:
            rotators = [Process(here, quick()) for _ in range(ROTATORS)]
            said: list[Report | None] = [None] * ROTATORS
            while None in said:
                number = here.dice.choice([number for number, report in enumerate(said) if report is None])
                report = rotators[number].ask("step", "rotate")
                if isinstance(report, Report) and report.result in ("waiting", "ambiguous"):
                    here.wait(min(report.retry_after or 1.0, 1.0))
                elif isinstance(report, Report):
                    said[number] = report
        assert {report.result for report in said if report is not None} == {"done"}, f"seed {seed}"
        assert len({report.rotation for report in said if report is not None}) == 1, f"seed {seed}"
        assert len({kept.current for kept in here.history.store.values}) == 2, f"seed {seed}: before and after"
        assert here.broken == []
