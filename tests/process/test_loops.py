"""Event loops: many after one another, several at once, asyncio, trio and anyio, and tasks that are cancelled."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio

from secretsource import ClientCredentials, SecretSourceError, Token, TokenSource
from secretsource.flight import Flight, ticket
from secretsource.testing import FakeIssuer, Fault, TickingClock

from ..stores import CLIENT, LONG, A, eventually

BACKENDS = ["asyncio", "trio"]


def in_loop(backend: str, main: Callable[[], Any]) -> Any:
    return anyio.run(main, backend=backend)


# --- one after another


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hundred_loops_after_one_another_share_a_token_and_its_renewal(issuer: FakeIssuer, backend: str) -> None:
    clock = TickingClock()
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url, clock=clock)
    loops: list[weakref.ref[Any]] = []

    async def main() -> Token:
        if backend == "asyncio":
            loops.append(weakref.ref(asyncio.get_running_loop()))
        return await source.atoken()

    tokens = []
    for _ in range(100):
        tokens.append(in_loop(backend, main))
        clock.tick(2)
        if clock.monotonic() >= 1_080:  # a renewal may be under way; its loop ends, and it goes on
            eventually(lambda: source._flights.under_way(source._key) is None)
    assert len(set(map(id, tokens))) == issuer.token_requests
    assert issuer.token_requests in (2, 3)
    gc.collect()
    assert [loop for loop in loops if loop() is not None] == [], "a loop that has ended is kept"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_flight_whose_loop_has_ended_lands_and_keeps_nothing_of_it(
    source: TokenSource, issuer: FakeIssuer, backend: str
) -> None:
    since = ticket()
    issuer.fail(Fault(hang=True), times=1)

    async def main() -> None:
        with anyio.move_on_after(0.05):
            await source.atoken()

    for _ in range(10):
        in_loop(backend, main)
    issuer.release()
    eventually(lambda: source.status().kept_tokens == 1)
    assert issuer.token_requests == 1
    _no_flight_is_kept(since)


def _no_flight_is_kept(since: int) -> None:
    def kept() -> list[object]:
        gc.collect()
        # Not isinstance, which asks dead proxies.
        return [one for one in gc.get_objects() if type(one) is Flight and one.ticket > since]

    eventually(lambda: not kept(), "a flight is kept by somebody")


# --- several at once


def test_loops_of_three_kinds_at_once_whose_tasks_come_and_go_share_each_request(
    source: TokenSource, issuer: FakeIssuer
) -> None:
    issuer.latency = 0.05
    outcomes: list[tuple[str, Token]] = []
    start = threading.Barrier(6)

    async def main() -> None:
        for number in range(10):
            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(one, f"scope-{number}")
                    tasks.start_soon(hasty, f"scope-{number}")

    async def one(scope: str) -> None:
        outcomes.append((scope, await source.atoken(scope=scope)))

    async def hasty(scope: str) -> None:
        with anyio.move_on_after(0.01):
            await source.atoken(scope=scope)

    def party(run: Callable[[], object]) -> None:
        start.wait(LONG)
        run()

    runs = [
        lambda: asyncio.run(main()),
        lambda: trio.run(main),
        lambda: anyio.run(main, backend="trio"),
    ]
    threads = [threading.Thread(target=party, args=(run,)) for run in runs * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert len(outcomes) == 600
    assert len({token.access_token for _, token in outcomes}) == 10 == issuer.token_requests
    assert source.status().orphaned_threads == 0


def test_trio_in_guest_mode_on_an_asyncio_loop_waits_as_trio(source: TokenSource, issuer: FakeIssuer) -> None:
    """As in a graphical program; both loops go on meanwhile."""
    issuer.latency = 0.1
    tokens: list[Token] = []

    async def guest() -> None:
        tokens.append(await source.atoken())

    async def host() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def done(outcome: Any) -> None:
            ended.set()
            outcome.unwrap()

        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done,
            host_uses_signal_set_wakeup_fd=True,
        )
        tokens.append(await source.atoken())
        await ended.wait()

    asyncio.run(host())
    assert len(tokens) == 2
    assert tokens[0] is tokens[1]
    assert issuer.token_requests == 1


# --- cancellation


@pytest.mark.parametrize("cancelled", [[0], [2], [0, 1], [0, 1, 2]], ids=["first", "last", "all but one", "all"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_cancelled_waiters_take_nobody_along_and_leave_nothing_behind(
    source: TokenSource, issuer: FakeIssuer, backend: str, cancelled: list[int]
) -> None:
    """Whoever began the request may go, too; what is raised where nobody sees it fails the test as a warning."""
    since = ticket()
    issuer.fail(Fault(hang=True), times=1)
    noise: list[dict[str, Any]] = []
    tokens: dict[int, Token] = {}
    scopes: dict[int, anyio.CancelScope] = {}

    async def wait(number: int) -> None:
        with anyio.CancelScope() as scopes[number]:
            tokens[number] = await source.atoken()

    async def main() -> None:
        if backend == "asyncio":
            asyncio.get_running_loop().set_exception_handler(lambda _loop, facts: noise.append(facts))
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(wait, number)
                await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(issuer.wait_for_token_requests, 1)
            for number in cancelled:
                scopes[number].cancel()
            await anyio.wait_all_tasks_blocked()
            assert tokens == {}
            issuer.release()

    in_loop(backend, main)
    assert sorted(tokens) == [number for number in range(3) if number not in cancelled]
    eventually(lambda: source.status().kept_tokens == 1)
    assert all(token is source.token() for token in tokens.values())
    assert issuer.token_requests == 1
    assert source.status().orphaned_threads == 0
    _no_flight_is_kept(since)
    assert noise == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_waiters_that_are_all_cancelled_leave_no_unseen_failure_behind(
    source: TokenSource, issuer: FakeIssuer, backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio would log "exception was never retrieved" for a future of its own."""
    since = ticket()
    issuer.fail(Fault(status=400, latency=0.2, body=b'{"error": "invalid_scope"}'), times=1)

    async def main() -> None:
        with anyio.move_on_after(0.05):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(source.atoken)
        await anyio.sleep(0.3)

    in_loop(backend, main)
    eventually(lambda: source.status().last_error == "TokenRequestRefused")
    _no_flight_is_kept(since)
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def test_a_cancelled_task_of_a_task_group_ends_at_once_and_its_siblings_get_their_token(
    source: TokenSource, issuer: FakeIssuer
) -> None:
    issuer.fail(Fault(hang=True), times=1)

    async def fail() -> None:
        await asyncio.to_thread(issuer.wait_for_token_requests, 1)
        raise SecretSourceError("not-a-real-failure")

    async def main() -> Token:
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - it is the group that raises
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(source.atoken())
                tasks.create_task(fail())
        assert len(caught.value.exceptions) == 1
        issuer.release()
        return await source.atoken()

    assert issuer.accepts(asyncio.run(main()).access_token)
    assert issuer.token_requests == 1
