"""Forked children: what they have of their parent, and what they must not meet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from secretsource.testing import FakeIssuer, Fault

from .programs import script

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


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


def test_a_child_whose_fork_python_was_not_told_of_makes_a_request_of_its_own(issuer: FakeIssuer) -> None:
    """As uWSGI forks: none of Python's own hooks has run in the child."""
    issuer.fail(Fault(hang=True), times=1)
    script(
        issuer,
        """
        import ctypes
        begin(source)
        sys.stdout.flush()
        child = ctypes.PyDLL(None).fork()
        if child == 0:
            signal.alarm(30)
            began = time.monotonic()
            source.token(timeout=8)
            os._exit(source.status().orphaned_threads or time.monotonic() - began > 5)
        assert os.waitpid(child, 0)[1] == 0
        """,
    )
    issuer.release()
    assert issuer.token_requests == 2


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


def test_children_that_are_forked_again_and_again_while_requests_are_under_way_fetch_for_themselves(
    issuer: FakeIssuer,
) -> None:
    """As Celery's prefork does: a child ends after some tasks, and a busy parent forks the next one."""
    printed = script(
        issuer,
        """
        import multiprocessing

        def task(number):
            token = source.token(scope=f"scope-{number % 2}", timeout=8)
            return os.getpid(), token.access_token, source.status().orphaned_threads

        stop = threading.Event()

        def busy():
            while not stop.is_set():
                source.token(force=True)

        source.token()
        parent = [threading.Thread(target=busy) for _ in range(2)]
        for thread in parent:
            thread.start()
        with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=2) as pool:
            outcomes = pool.map_async(task, range(16), chunksize=1).get(40)
        stop.set()
        for thread in parent:
            thread.join(30)
        children, tokens, orphans = map(set, zip(*outcomes))
        print(len(children), orphans)
        assert source.token().access_token not in tokens
        """,
    )
    children, _, orphans = printed.partition(" ")
    assert int(children) >= 8
    assert orphans.strip() == "{0}"
    assert {request.status for request in issuer.requests} == {200}


@pytest.mark.parametrize("method", ["fork", pytest.param("forkserver", marks=pytest.mark.slow), "spawn"])
def test_a_pool_that_begins_while_a_request_hangs_gets_tokens_of_its_own(
    issuer: FakeIssuer, tmp_path: Path, method: str
) -> None:
    issuer.fail(Fault(hang=True), times=1)
    printed = script(
        issuer,
        f"""
        import multiprocessing

        def task(number):
            return os.getpid(), source.token(timeout=8).access_token

        if __name__ == "__main__":
            begin(source)
            with multiprocessing.get_context({method!r}).Pool(2) as pool:
                outcomes = set(pool.map_async(task, range(20), chunksize=1).get(40))
            children, tokens = map(set, zip(*outcomes))
            print(len(outcomes), len(children), len(tokens))
        """,
        file=tmp_path / "program.py",
    )
    issuer.release()
    outcomes, children, tokens = map(int, printed.split())
    assert outcomes == children == tokens == issuer.token_requests - 1
