"""TokenSource and what happens to a process: fork, signals, shutdown, no more threads."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from secretsource import ClientCredentials, SecretSourceError, Token, TokenSource
from secretsource.testing import FakeIssuer, Fault, TickingClock

from .stores import CLIENT, A, eventually

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer(lifetime=100) as issuer:
        issuer.add_client(CLIENT, A)
        yield issuer


def script(issuer: FakeIssuer, body: str) -> str:
    """What a program prints that has a `source`. It ends by itself, and without a word on standard error."""
    head = """
        import os, signal, sys, threading, time, traceback
        from secretsource import ClientCredentials, SecretSourceError, TokenSource

        def new():
            return TokenSource(ClientCredentials("pos", "not-a-real-secret-a"), token_url=sys.argv[1])

        def in_child(work):
            # In a fork, with a limit of time: exit code 0 if it returned.
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                try:
                    work()
                    sys.stdout.flush()
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(1)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        source = new()
    """
    code = textwrap.dedent(head) + textwrap.dedent(body)
    done = subprocess.run(
        # Python 3.12 and newer warn of what is tried here: a fork of a process with threads.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, issuer.token_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


# --- fork


@forks
def test_a_forked_child_has_the_default_token_and_fetches_the_others_itself(issuer: FakeIssuer) -> None:
    script(
        issuer,
        """
        kept, other = source.token(), source.token(scope="other")

        def child():
            assert source.token() is kept
            assert source.token(scope="other") is not other
            assert source.status().kept_tokens == 2

        assert in_child(child) == 0
        assert source.token(scope="other") is other
        """,
    )
    assert issuer.token_requests == 3


@forks
def test_a_child_that_is_forked_during_a_request_makes_one_of_its_own(issuer: FakeIssuer) -> None:
    issuer.fail(Fault(), times=1)
    issuer.fail(Fault(latency=1.0), times=1)
    script(
        issuer,
        """
        new().token()  # a fork while a thread imports something for the first time is Python's own trouble
        waiting = threading.Thread(target=source.token)
        waiting.start()
        while not source._flights.under_way(source._key):
            time.sleep(0.01)
        time.sleep(0.2)

        def child():
            source.token()
            source.token(force=True)

        assert in_child(child) == 0
        waiting.join(30)
        """,
    )
    assert issuer.token_requests == 4


@forks
def test_children_of_a_busy_parent_neither_hang_nor_share_anything(issuer: FakeIssuer) -> None:
    """Whatever lock a thread of the parent holds at the moment of the fork is not met in the child."""
    script(
        issuer,
        """
        source.token(scope="scope-0")
        stop = threading.Event()

        def busy(number):
            # Hits, which lock our cache. Not requests: OpenSSL has locks of its own that a fork may leave locked.
            while not stop.is_set():
                source.token(scope="scope-0")
                source.invalidate("another token")
                source.status()

        threads = [threading.Thread(target=busy, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(8):
            time.sleep(0.05)
            assert in_child(lambda: (source.token(), source.token(scope="scope-0"), source.verify())) == 0
        stop.set()
        for thread in threads:
            thread.join(30)
        """,
    )
    assert {request.status for request in issuer.requests} == {200}


# --- the end of the interpreter


def test_token_works_in_atexit(issuer: FakeIssuer) -> None:
    printed = script(
        issuer,
        """
        import atexit
        atexit.register(lambda: print("kept" if source.token() is kept else "other"))
        atexit.register(lambda: print(len(new().token().access_token) > 20))
        kept = source.token()
        """,
    )
    assert printed.split() == ["True", "kept"]


def test_a_program_ends_at_once_although_a_request_hangs(issuer: FakeIssuer) -> None:
    issuer.fail(Fault(hang=True))
    began = time.monotonic()
    printed = script(
        issuer,
        """
        try:
            source.token(timeout=0.2)
        except SecretSourceError as error:
            print(type(error).__name__)
        """,
    )
    issuer.release()
    assert printed.split() == ["DeadlineExceeded"]
    assert time.monotonic() - began < 9, "the request itself has ten seconds"


# --- no more threads


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)


@pytest.mark.usefixtures("no_threads")
def test_where_no_thread_can_be_started_token_runs_the_request_itself() -> None:
    # The issuer, too, needs threads: it is another process.
    with _issuer_of_its_own() as token_url:
        source = TokenSource(ClientCredentials(CLIENT, A), token_url=token_url)
        assert isinstance(source.token(), Token)
        assert source.status().orphaned_threads == 0


def test_where_no_thread_can_be_started_the_kept_token_serves_and_is_renewed_in_the_leeway(
    issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = TickingClock()
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url, clock=clock)
    token = source.token()
    clock.tick(81)

    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", refuse)
        for _ in range(8):
            assert source.token() is token
            clock.tick(1)
    assert issuer.token_requests == 1
    for _ in range(10):  # until its back-off is over
        source.token()
        clock.tick(1)
    issuer.wait_for_token_requests(2)


@pytest.mark.usefixtures("no_threads")
def test_where_no_thread_can_be_started_a_task_gets_an_error_that_says_so() -> None:
    import asyncio

    source = TokenSource(ClientCredentials(CLIENT, A), token_url="http://127.0.0.1:9/token")

    async def main() -> None:
        with pytest.raises(SecretSourceError, match="no thread can be started") as caught:
            await source.atoken()
        assert caught.value.retryable

    asyncio.run(main())


class _issuer_of_its_own:
    """An issuer in a process of its own."""

    def __enter__(self) -> str:
        code = """
            import sys
            from secretsource.testing import FakeIssuer
            with FakeIssuer() as issuer:
                issuer.add_client("pos", "not-a-real-secret-a")
                print(issuer.token_url, flush=True)
                sys.stdin.read()
        """
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)


# --- signals


class Signalled:
    """A real signal, sent to this thread as soon as the issuer has a request; what its handler got."""

    def __init__(self, issuer: FakeIssuer, source: TokenSource) -> None:
        self.got: list[Any] = []
        self._issuer, self._source = issuer, source
        self._thread = threading.get_ident()

    def handle(self, *_: object) -> None:
        try:
            self.got.append(self._source.token(timeout=20))
        except SecretSourceError as error:
            self.got.append(error)

    def send(self) -> None:
        self._issuer.wait_for_token_requests(1)
        time.sleep(0.05)  # until the main thread waits; the test holds whether it does or not
        signal.pthread_kill(self._thread, signal.SIGUSR1)
        time.sleep(0.05)
        self._issuer.release()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system sends no signal to a thread")
def test_a_signals_handler_may_call_token_while_the_same_thread_waits_in_token(issuer: FakeIssuer) -> None:
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url)
    issuer.fail(Fault(hang=True), times=1)
    signalled = Signalled(issuer, source)
    before = signal.signal(signal.SIGUSR1, signalled.handle)
    sender = threading.Thread(target=signalled.send)
    try:
        sender.start()
        token = source.token(timeout=20)
        sender.join(30)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert signalled.got == [token]
    assert issuer.token_requests == 1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
def test_a_timers_handler_may_call_everything_in_the_middle_of_anything(issuer: FakeIssuer) -> None:
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url, scope="default")
    calls = 0

    def handle(*_: object) -> None:
        nonlocal calls
        calls += 1
        token = source.token(scope=f"scope-{calls % 3}")
        source.invalidate(token)
        source.status()
        source.reload()
        signal.setitimer(signal.ITIMER_REAL, 0.005)  # not before: a handler may be interrupted, too

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.005)
    try:
        for number in range(60):
            assert issuer.accepts(source.token(scope=f"scope-{number % 3}").access_token)
            source.invalidate(source.token())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert calls > 3
    eventually(lambda: source.status().orphaned_threads == 0)
