"""A kept token, against the dict and the look at the clock that people write."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from time import perf_counter

from measuring import IssuerProcess, Row, show, side_by_side

from secretsource import TokenSource

_CALLS = 500  # short rounds, so that both ways of one meet the same machine
_CALLS_PER_THREAD = 40_000  # long enough that the threads take the interpreter from each other
_THREADS = 8
_MARGIN = 30
_SCOPE = "orders.read"


class NaiveTokens:
    """What people write: tokens by scope, each with the moment at which it ends."""

    def __init__(self) -> None:
        self._tokens = {_SCOPE: ("not-a-real-token", time.time() + 3600)}

    def token(self, scope: str) -> str:
        kept = self._tokens.get(scope)
        if kept is not None and time.time() < kept[1] - _MARGIN:
            return kept[0]
        raise NotImplementedError("the fetch; no call of this benchmark comes here")

    async def atoken(self, scope: str) -> str:
        kept = self._tokens.get(scope)
        if kept is not None and time.time() < kept[1] - _MARGIN:
            return kept[0]
        raise NotImplementedError("the fetch; no call of this benchmark comes here")


# Each way has loops of its own: the interpreter specializes a loop for the class that it meets there.


def _hit_ours(source: TokenSource, calls: int) -> None:
    for _ in repeat(None, calls):
        source.token()


def _hit_theirs(naive: NaiveTokens, calls: int) -> None:
    for _ in repeat(None, calls):
        naive.token(_SCOPE)


async def _await_ours(source: TokenSource) -> float:
    began = perf_counter()
    for _ in repeat(None, _CALLS):
        await source.atoken()
    return (perf_counter() - began) / _CALLS


async def _await_theirs(naive: NaiveTokens) -> float:
    began = perf_counter()
    for _ in repeat(None, _CALLS):
        await naive.atoken(_SCOPE)
    return (perf_counter() - began) / _CALLS


def _alone(hit: Callable[[int], None]) -> float:
    began = perf_counter()
    hit(_CALLS)
    return (perf_counter() - began) / _CALLS


def _in_threads(hit: Callable[[int], None]) -> float:
    """Seconds per call of all threads together: the inverse of their throughput."""
    began: list[float] = []
    ended: list[float] = []
    gate = threading.Barrier(_THREADS)

    def run() -> None:
        gate.wait()
        began.append(perf_counter())
        hit(_CALLS_PER_THREAD)
        ended.append(perf_counter())

    threads = [threading.Thread(target=run) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (max(ended) - min(began)) / (_THREADS * _CALLS_PER_THREAD)


def rows() -> Iterator[Row]:
    naive = NaiveTokens()
    with IssuerProcess() as issuer:
        source = issuer.source()
        source.token()

    def ours(calls: int) -> None:
        _hit_ours(source, calls)

    def theirs(calls: int) -> None:
        _hit_theirs(naive, calls)

    def row(what: str, one: Callable[[], float], other: Callable[[], float], rounds: int) -> Row:
        pair = side_by_side(one, other, rounds=rounds)
        note = f"fastest round {pair.ours * 1e9:.0f} ns, naive {pair.theirs * 1e9:.0f} ns"
        return Row(what, pair.ratio, 0.9, "×", note)

    yield row("token(), by the naive dict and time()", lambda: _alone(ours), lambda: _alone(theirs), 5000)
    yield row("the same in 8 threads", lambda: _in_threads(ours), lambda: _in_threads(theirs), 60)
    with asyncio.Runner() as runner:
        yield row(
            "await atoken(), by the same in a coroutine",
            lambda: runner.run(_await_ours(source)),
            lambda: runner.run(_await_theirs(naive)),
            5000,
        )


if __name__ == "__main__":
    show(rows())
