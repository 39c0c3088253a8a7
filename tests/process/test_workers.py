"""Servers that run an application in several processes: gunicorn and uWSGI, real ones."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from secretsource.testing import FakeIssuer, Fault

from .programs import script

ROOT = Path(__file__).parents[2]
APPLICATION = "tests.process.application:application"
WORKERS = 2

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


class Server:
    """A server with the application, on a socket that listens before it starts; its processes end with the test."""

    def __init__(self, command: list[str], issuer: FakeIssuer, scene: str, log: Path) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        number = self._listener.fileno()
        self._host, self._port = self._listener.getsockname()
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *(part.format(fd=number) for part in command)],
                cwd=ROOT,
                env={**os.environ, "TOKEN_URL": issuer.token_url, "SCENE": scene},
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def get(self, path: str = "/") -> dict[str, Any]:
        connection = HTTPConnection(self._host, self._port, timeout=40)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, self.log.read_text()
        return json.loads(body)  # type: ignore[no-any-return]

    def get_from_each_worker(self, path: str = "/") -> dict[int, list[dict[str, Any]]]:
        """At least two answers of each worker, by process."""
        answers: dict[int, list[dict[str, Any]]] = defaultdict(list)
        end = time.monotonic() + 40
        with ThreadPoolExecutor(8) as clients:
            while time.monotonic() < end:
                for answer in clients.map(self.get, [path] * 8):
                    answers[answer["process"]].append(answer)
                if len(answers) == WORKERS and min(map(len, answers.values())) > 1:
                    return answers
        raise AssertionError(f"{len(answers)} of {WORKERS} workers answered")

    def stop(self) -> int:
        self._listener.close()
        self._process.terminate()
        try:
            return self._process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.wait(30)


@contextmanager
def serving(command: list[str], issuer: FakeIssuer, scene: str, log: Path) -> Iterator[Server]:
    server = Server(command, issuer, scene, log)
    try:
        yield server
    finally:
        status = server.stop()
    assert status == 0, log.read_text()


def gunicorn(worker: str, *options: str) -> list[str]:
    command = ["-m", "gunicorn", "--bind=fd://{fd}", "--no-control-socket", "--graceful-timeout=10"]
    return [*command, f"--workers={WORKERS}", f"--worker-class={worker}", "--threads=2", *options, APPLICATION]


def uwsgi(*options: str) -> list[str]:
    command = ["-c", "import sys, pyuwsgi; pyuwsgi.run(sys.argv[1:])", "--socket=fd://{fd}", "--protocol=http"]
    stopping = ["--master", "--die-on-term", "--worker-reload-mercy=10"]
    return [*command, *stopping, f"--processes={WORKERS}", f"--module={APPLICATION}", *options]


SERVERS = [
    pytest.param(gunicorn("sync", "--preload"), id="gunicorn, preloaded"),
    pytest.param(gunicorn("gthread", "--preload"), id="gunicorn with threads, preloaded", marks=pytest.mark.slow),
    pytest.param(gunicorn("gevent", "--preload"), id="gunicorn with gevent, preloaded"),
    pytest.param(uwsgi(), id="uWSGI"),
    pytest.param(uwsgi("--enable-threads"), id="uWSGI with threads", marks=pytest.mark.slow),
]


@pytest.fixture(autouse=True)
def _there(request: pytest.FixtureRequest) -> None:
    command = getattr(request.node, "callspec", None)
    for name in ("gunicorn", "pyuwsgi", "gevent"):
        if command is not None and name in str(command.params) and importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


@forks
@pytest.mark.parametrize("command", SERVERS)
def test_workers_that_are_forked_while_a_request_is_under_way_have_the_kept_token_and_fetch_the_others(
    command: list[str], issuer: FakeIssuer, tmp_path: Path
) -> None:
    issuer.fail(Fault(), times=1)
    issuer.fail(Fault(hang=True), times=1)
    with serving(command, issuer, "busy", tmp_path / "log") as server:
        others = server.get_from_each_worker("/other")
        kept = server.get_from_each_worker("/")
        issuer.release()
    assert {answer["token"] for answers in kept.values() for answer in answers} != {None}
    assert len({answer["token"] for answers in kept.values() for answer in answers}) == 1
    for answers in others.values():
        assert len({answer["token"] for answer in answers}) == 1
        assert max(answer["seconds"] for answer in answers) < 5, "it waited for a request of its parent"
        assert {answer["orphans"] for answer in answers} == {0}
    assert issuer.token_requests == 2 + WORKERS


@forks
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(gunicorn("gevent"), id="gunicorn with gevent", marks=pytest.mark.slow),
        pytest.param(uwsgi("--lazy-apps"), id="uWSGI, loaded in each worker"),
    ],
)
def test_workers_that_load_the_application_themselves_make_one_request_each(
    command: list[str], issuer: FakeIssuer, tmp_path: Path
) -> None:
    with serving(command, issuer, "cold", tmp_path / "log") as server:
        answers = server.get_from_each_worker()
    assert issuer.token_requests == WORKERS
    for process in answers.values():
        assert len({answer["token"] for answer in process}) == 1
        assert issuer.accepts(process[0]["token"])


@pytest.mark.skipif(sys.platform == "win32", reason="it takes the C library's usleep")
def test_where_threads_stand_still_between_two_calls_a_token_is_renewed_and_nothing_is_left_hanging(
    issuer: FakeIssuer,
) -> None:
    """As in uWSGI without --enable-threads, which keeps Python's lock while it waits for the next request."""
    issuer.lifetime = 5
    printed = script(
        issuer,
        """
        import ctypes
        stand_still = ctypes.PyDLL(None).usleep  # a PyDLL keeps the lock

        source = new(timeout=0.3, refresh_ahead=2.5)  # the time-out of a renewal is over at the next call
        first, orphans = source.token(timeout=8), []
        for _ in range(40):
            stand_still(400_000)
            token = source.token(timeout=8)
            assert token.expires_in > 0
            orphans.append(source.status().orphaned_threads)
            if token is not first:
                break
        print(token is not first, max(orphans))
        """,
    )
    assert printed.split()[0] == "True"
    assert int(printed.split()[1]) <= 1
