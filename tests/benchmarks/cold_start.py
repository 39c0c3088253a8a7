"""Everybody asks at once, and there is no token yet."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from statistics import median
from time import perf_counter

import httpx  # noqa: F401 - what a program that uses the token has imported anyway
from measuring import IssuerProcess, Row, show

from secretsource import TokenSource

_LATENCY = 0.1
_THREADS = 64
_TASKS = 500
_TICK = 0.001


def _with_threads(source: TokenSource) -> None:
    _side_by_side_in_threads([source.token] * _THREADS)


def _with_tasks(source: TokenSource) -> None:
    asyncio.run(_all(source.atoken, _TASKS))


def _with_both(source: TokenSource) -> None:
    def loop() -> None:
        asyncio.run(_all(source.atoken, _TASKS // 2))

    _side_by_side_in_threads([*[source.token] * _THREADS, loop, loop])


def _side_by_side_in_threads(calls: list[Callable[[], object]]) -> None:
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        gate.wait()
        call()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def _all(call: Callable[[], Awaitable[object]], tasks: int) -> None:
    await asyncio.gather(*(call() for _ in range(tasks)))


async def _longest_block(call: Callable[[], Awaitable[object]]) -> float:
    """Seconds by which another task of the loop was late at worst, while so many tasks awaited `call`."""
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            due = perf_counter() + _TICK
            await asyncio.sleep(_TICK)
            longest = max(longest, perf_counter() - due)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    await _all(call, _TASKS)
    await asyncio.sleep(2 * _TICK)
    ticking.cancel()
    with suppress(asyncio.CancelledError):
        await ticking
    return longest


def _by_source(source: TokenSource) -> float:
    gc.collect()
    return asyncio.run(_longest_block(source.atoken))


def _by_event() -> float:
    async def measure() -> float:
        event, loop = asyncio.Event(), asyncio.get_running_loop()
        threading.Timer(_LATENCY, loop.call_soon_threadsafe, (event.set,)).start()
        return await _longest_block(event.wait)

    gc.collect()
    return asyncio.run(measure())


def rows(rounds: int = 21) -> Iterator[Row]:
    with IssuerProcess(latency=_LATENCY) as issuer:
        for what, ask in (
            (f"cold start of {_THREADS} threads", _with_threads),
            (f"cold start of {_TASKS} tasks", _with_tasks),
            (f"cold start of {_THREADS} threads and {_TASKS} tasks in two loops", _with_both),
        ):
            most = 0
            for _ in range(5):
                before = issuer.token_requests
                ask(issuer.source())
                most = max(most, issuer.token_requests - before)
            yield Row(what, most, 1, "req", "token requests, the most of 5 rounds")
        blocks = [(_by_source(issuer.source()), _by_event()) for _ in range(rounds)]
    ours = median(one for one, _ in blocks)
    theirs = median(other for _, other in blocks)
    note = f"median of {rounds} rounds {ours * 1000:.1f} ms, a plain Event {theirs * 1000:.1f} ms"
    above = median(one - other for one, other in blocks)
    yield Row(f"longest block of the loop with {_TASKS} tasks", above * 1000, 5, "ms", note)


if __name__ == "__main__":
    show(rows())
