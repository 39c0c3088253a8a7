"""Signals that arrive while a token is asked for, and what their handlers may do."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import pytest

from secretsource import ClientCredentials, SecretSourceError, TokenSource
from secretsource.testing import FakeIssuer, Fault

from ..stores import CLIENT, A, eventually

to_a_thread = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system sends no signal to a thread")


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


@to_a_thread
def test_a_signals_handler_may_call_token_while_the_same_thread_waits_in_token(
    source: TokenSource, issuer: FakeIssuer
) -> None:
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


class Interrupted(BaseException):
    """What a handler raises, as Python's own for Ctrl-C raises KeyboardInterrupt."""


@to_a_thread
def test_a_call_that_a_signal_ends_takes_nobody_along_and_the_next_one_joins_its_request(
    source: TokenSource, issuer: FakeIssuer
) -> None:
    issuer.fail(Fault(hang=True), times=1)
    me, other = threading.get_ident(), []

    def interrupt(*_: object) -> None:
        raise Interrupted

    def send() -> None:
        issuer.wait_for_token_requests(1)
        time.sleep(0.2)  # until the main thread waits
        signal.pthread_kill(me, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    threads = [threading.Thread(target=send), threading.Thread(target=lambda: other.append(source.token()))]
    try:
        with pytest.raises(Interrupted):  # noqa: PT012 - the signal comes at any moment from here on
            for thread in threads:
                thread.start()
            source.token()
    finally:
        signal.signal(signal.SIGUSR1, before)
    issuer.release()
    token = source.token()
    for thread in threads:
        thread.join(30)
    assert other == [token]
    assert issuer.token_requests == 1
    assert source.status().orphaned_threads == 0
