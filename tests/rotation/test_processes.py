"""Real rotators in processes of their own, killed or stopped at the boundaries of their steps, while programs call.

A process that has everything loaded forks one for each rotator; that one kills or stops itself before or after the
effect of a given number. Afterwards another goes on, and finishes; one that was stopped is then continued.

All boundaries: `.venv/bin/pytest -m slow tests/rotation/test_processes.py`.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from secretsource import SecretReference
from secretsource.backends import Backend
from secretsource.backends.file import FileBackend
from secretsource.backends.layout import rotatable
from secretsource.backends.vault import StaticToken, VaultBackend
from secretsource.testing import Answer, FakeIssuer, Incoming

from ..backends.openbao import OpenBao
from .programs import calling

FIRST = "not-a-real-secret-1"
AT_ONCE = 6

LOADED = """
import http.client, json, os, select, signal, threading
from secretsource import TokenSource
from secretsource.backends.file import FileBackend
from secretsource.backends.vault import StaticToken, VaultBackend
from secretsource.clock import SystemClock
from secretsource.errors import SecretSourceError
from secretsource.rotation import Adapter, Applied, Capabilities, Policy, Preflight, Rotation, Unknown


def say(**what):
    os.write(1, json.dumps(what).encode() + b"\\n")


class Boundaries:
    # Counts what a rotator does, and ends or stops it there.
    def __init__(self, at, how):
        self.at, self.how, self.names = at, how, []

    def passed(self, name):
        self.names.append(name)
        if len(self.names) == self.at:
            # Sent to the process, it would let this thread go on for a moment.
            signal.pthread_kill(threading.get_ident(), getattr(signal, self.how))

    def of(self, name, call):
        def counted(*arguments, **named):
            self.passed("before " + name)
            done = call(*arguments, **named)
            self.passed("after " + name)
            return done
        return counted


class Administrator(Adapter):
    capabilities = Capabilities(chosen=True, slots=1, propagation=0.1, landing=0.4)

    def __init__(self, port):
        self.port = port

    def check(self, client, deadline):
        return Preflight()

    def apply(self, client, secret, deadline):
        if deadline.over():
            return Unknown("no time is left")
        there = http.client.HTTPConnection("127.0.0.1", self.port, timeout=max(0.01, deadline.left()))
        try:
            there.request("POST", "/administrator", json.dumps({"id": client.client_id, "secret": secret.reveal()}))
            answered = there.getresponse().status
        except OSError:
            return Unknown("no answer")
        finally:
            there.close()
        return Applied() if answered == 204 else Unknown("another answer")


def rotate(order):
    boundaries = Boundaries(order["at"], order["how"])
    store = order["reference"].partition(":")[0]
    if store == "file":
        backend = FileBackend()
    else:
        backend = VaultBackend(order["address"], auth=StaticToken(order["token"]))
    for name in ("read_whole", "write_whole"):
        setattr(backend, name, boundaries.of(name, getattr(backend, name)))
    clock = SystemClock()
    clock.sleep = boundaries.of("sleep", clock.sleep)
    source = TokenSource(
        order["reference"], issuer=order["issuer"], stores={store: backend}, timeout=20, clock=clock
    )
    source.prove = boundaries.of("prove", source.prove)
    administrator = Administrator(order["port"])
    administrator.apply = boundaries.of("apply", administrator.apply)
    rotation = Rotation(source, administrator, policy=Policy(**order["policy"]))
    try:
        report = getattr(rotation, order["verb"])()
        said = {"result": report.result, "reason": report.reason}
    except SecretSourceError as error:
        said = {"result": type(error).__name__, "reason": str(error)}
    say(id=order["id"], happened="reported", names=boundaries.names, **said)


children = {}
left = b""
try:
    while True:
        if select.select([0], [], [], 0.01)[0]:
            more = os.read(0, 65536)
            if not more:
                break
            *lines, left = (left + more).split(b"\\n")
            for line in lines:
                order = json.loads(line)
                if "go_on" in order:
                    os.kill(next(pid for pid, id in children.items() if id == order["go_on"]), signal.SIGCONT)
                    continue
                pid = os.fork()
                if pid == 0:
                    try:
                        rotate(order)
                    finally:
                        os._exit(0)
                children[pid] = order["id"]
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                break
            stopped = os.WIFSTOPPED(status)
            say(id=children[pid], happened="stopped" if stopped else "ended")
            if not stopped:
                del children[pid]
finally:
    for pid in children:
        os.kill(pid, signal.SIGKILL)
"""


class Rotators:
    """The process from which rotators are forked."""

    def __init__(self, issuer: FakeIssuer) -> None:
        self._issuer = issuer
        self._numbers = itertools.count(1)
        self._said: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", LOADED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._reader.join(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def start(self, place: Place, verb: str, *, at: int = 0, how: str = "SIGKILL", **policy: Any) -> int:
        number = next(self._numbers)
        self._said[number] = queue.Queue()
        spans = {"wait": 0.2, "soak": 0.2, "command_timeout": 1, "proofs": 2, "every": 0.001}
        order = {"id": number, "verb": verb, "at": at, "how": how, "policy": {**spans, **policy}}
        where = {"issuer": self._issuer.url, "port": int(self._issuer.url.split(":")[2].strip("/"))}
        self._tell({**order, **where, **place._asdict()})
        return number

    def go_on(self, number: int) -> None:
        self._tell({"go_on": number})

    def next(self, number: int) -> dict[str, Any]:
        """What happened next to this one."""
        return self._said[number].get(timeout=60)

    def run(self, place: Place, verb: str, **policy: Any) -> dict[str, Any]:
        """A rotator that is left alone: what it reported."""
        number = self.start(place, verb, **policy)
        report = self.next(number)
        assert report["happened"] == "reported"
        assert self.next(number)["happened"] == "ended"
        return report

    def _tell(self, order: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self._said[said["id"]].put(said)


class Place(NamedTuple):
    """Where one client's secret is."""

    reference: str
    client: str
    address: str = ""
    token: str = ""

    def stores(self) -> Mapping[str, Backend]:
        if self.address:
            return {"bao": VaultBackend(self.address, auth=StaticToken(self.token))}
        return {"file": FileBackend()}

    @property
    def kept(self) -> tuple[str, bool]:
        """The current secret, and whether nothing is under way."""
        reference = SecretReference.parse(self.reference)
        held = rotatable(self.stores()[reference.store], reference).read_held(reference, client_id=None, timeout=20)
        return held.current.reveal(), held.pending is None and held.previous is None and held.state.promoted is None


class Site:
    """An issuer with one slot a client, and an administrator's page; and the rotators that use it."""

    def __init__(self) -> None:
        self.issuer = FakeIssuer(lifetime=1, apis={"/administrator": self._save})
        self.saved: dict[str, list[str]] = {}

    def _save(self, incoming: Incoming) -> Answer:
        asked = json.loads(incoming.body)
        self.saved[asked["id"]].append(asked["secret"])
        self.issuer.set_secret(asked["id"], asked["secret"])
        return Answer(204)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site()
    with site.issuer:
        yield site


@pytest.fixture(scope="module")
def rotators(site: Site) -> Iterator[Rotators]:
    rotators = Rotators(site.issuer)
    try:
        yield rotators
    finally:
        rotators.close()


_numbers = itertools.count(1)


@pytest.fixture(params=["file", "openbao"])
def new_place(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Callable[[], Place]:
    """Makes a client of its own, with its secret at the issuer and in the store."""
    tmp_path.chmod(0o700)
    corner = None
    if request.param == "openbao":
        server: OpenBao = request.getfixturevalue("openbao")
        corner = server.corner(tmp_path, [])
        mount, token = corner.kv(), corner.kept(server.root)

    def make() -> Place:
        client = f"pos-{next(_numbers)}"
        site.saved[client] = []
        site.issuer.add_client(client, FIRST)
        if corner is not None:
            corner.put(f"{mount}/data/{client}", {"data": {"client_id": client, "client_secret": FIRST}})
            return Place(f"bao://{mount}/{client}", client, corner.server.address, token)
        path = tmp_path / f"{client}.json"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            json.dump({"client_id": client, "client_secret": FIRST}, file)
        return Place(f"file://{path}", client)

    return make


@contextmanager
def used(site: Site, place: Place) -> Iterator[None]:
    """A program uses it meanwhile, and none of its calls fails."""
    with calling(site.issuer, place.reference, place.stores, programs=1) as calls:
        yield
    assert calls.failed == []
    assert calls.count > 1


def finished(site: Site, rotators: Rotators, place: Place) -> None:
    """Another process goes on, and nothing is under way any more."""
    for _ in range(5):
        report = rotators.run(place, "resume")
        current, idle = place.kept
        if report["result"] == "done" and idle:
            assert current == (site.saved[place.client] or [FIRST])[-1], "the store has what the issuer has"
            return
    raise AssertionError(f"not finished: {report}")


def killed(site: Site, rotators: Rotators, place: Place, number: int) -> None:
    with used(site, place):
        first = rotators.start(place, "run", at=number)
        assert rotators.next(first)["happened"] == "ended", "it reported, and was not killed"
        finished(site, rotators, place)
    assert len(set(site.saved[place.client])) <= 1


def stopped(site: Site, rotators: Rotators, place: Place, number: int) -> None:
    """Others finish it, and rotate once more, before the first one goes on."""
    with used(site, place):
        first = rotators.start(place, "run", at=number, how="SIGSTOP")
        assert rotators.next(first)["happened"] == "stopped"
        finished(site, rotators, place)
        assert rotators.run(place, "run", force=True)["result"] == "done"
        again = rotators.start(place, "run", at=30, how="SIGKILL", force=True)  # under way, by another that is gone
        assert rotators.next(again)["happened"] == "ended"
        rotators.go_on(first)
        assert rotators.next(first)["happened"] == "reported"
        assert rotators.next(first)["happened"] == "ended"
        finished(site, rotators, place)


def each(
    case: Callable[[Site, Rotators, Place, int], None],
    site: Site,
    rotators: Rotators,
    new_place: Callable[[], Place],
    numbers: list[int],
) -> None:
    with ThreadPoolExecutor(AT_ONCE) as at_once:
        running = [(number, at_once.submit(case, site, rotators, new_place(), number)) for number in numbers]
        wrong = [f"at {number}: {one.exception()!r}" for number, one in running if one.exception() is not None]
    assert wrong == []


def boundaries(rotators: Rotators, place: Place) -> list[str]:
    report = rotators.run(place, "run")
    assert report["result"] == "done", report
    names: list[str] = report["names"]
    return names


def around(names: list[str]) -> list[int]:
    """The boundaries of each call of the issuer, and of each write."""
    return [number for number, name in enumerate(names, 1) if name.split()[1] in ("apply", "write_whole")]


def test_one_that_is_killed_is_finished_by_another(
    site: Site, rotators: Rotators, new_place: Callable[[], Place]
) -> None:
    names = boundaries(rotators, new_place())
    each(killed, site, rotators, new_place, around(names)[1:4])


def test_one_that_is_stopped_does_no_harm_when_it_goes_on(
    site: Site, rotators: Rotators, new_place: Callable[[], Place]
) -> None:
    names = boundaries(rotators, new_place())
    numbers = [number for number in around(names) if names[number - 1].startswith("before")]
    each(stopped, site, rotators, new_place, numbers[1:2])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_at_every_boundary(site: Site, rotators: Rotators, new_place: Callable[[], Place]) -> None:
    names = boundaries(rotators, new_place())
    every = list(range(1, len(names) + 1))
    each(killed, site, rotators, new_place, every)
    each(stopped, site, rotators, new_place, every)


def test_the_signals_are_what_they_are_meant_to_be(
    site: Site, rotators: Rotators, new_place: Callable[[], Place]
) -> None:
    place = new_place()
    first = rotators.start(place, "run", at=3, how="SIGSTOP")
    assert rotators.next(first)["happened"] == "stopped"
    assert place.kept == (FIRST, True)
    rotators.go_on(first)
    assert rotators.next(first)["result"] == "done"
    assert place.kept == (site.saved[place.client][0], True)
