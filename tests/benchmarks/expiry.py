"""Sixteen callers and tokens of three seconds: nobody waits for a renewal."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from time import perf_counter

from measuring import IssuerProcess, Row, show

from secretsource import Token, TokenSource

_CALLERS = 16
_LIFETIME = 3.0
_LATENCY = 0.1
_SECONDS = 12.0
_PAUSE = 0.001


class _Seen:
    """What the callers of one way met: the tokens, by identity, and the longest call in seconds."""

    def __init__(self) -> None:
        self.tokens: dict[int, object] = {}
        self.worst = 0.0

    def note(self, token: object, seconds: float) -> None:
        self.tokens[id(token)] = token
        self.worst = max(self.worst, seconds)


def _in_threads(ways: list[tuple[Callable[[], object], _Seen]], pause: float) -> None:
    """So many callers for each of the ways, all at the same time."""
    gate = threading.Barrier(len(ways) * _CALLERS)

    def run(call: Callable[[], object], seen: _Seen) -> None:
        gate.wait()
        end = perf_counter() + _SECONDS
        while perf_counter() < end:
            began = perf_counter()
            token = call()
            seen.note(token, perf_counter() - began)
            if pause:
                time.sleep(pause)

    threads = [threading.Thread(target=run, args=way) for way in ways for _ in range(_CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def _in_tasks(source: TokenSource, constant: Token, ours: _Seen, theirs: _Seen) -> None:
    end = perf_counter() + _SECONDS

    async def same() -> Token:
        return constant

    async def run(call: Callable[[], object], seen: _Seen) -> None:
        while perf_counter() < end:
            began = perf_counter()
            token = await call()  # type: ignore[misc]
            seen.note(token, perf_counter() - began)
            await asyncio.sleep(_PAUSE)

    await asyncio.gather(
        *(run(source.atoken, ours) for _ in range(_CALLERS)), *(run(same, theirs) for _ in range(_CALLERS))
    )


def _per_expiry(what: str, seen: _Seen, requests: int) -> Row:
    # A token that nobody saw would be a request too many: between two of them there is one expiry.
    note = f"{requests} requests, {len(seen.tokens)} tokens seen in {_SECONDS:g} s"
    return Row(f"token requests per expiry, {what}", requests / len(seen.tokens), 1, "req", note)


def _above(what: str, ours: _Seen, theirs: _Seen) -> Row:
    note = f"worst call {ours.worst * 1000:.2f} ms, of a constant at the same time {theirs.worst * 1000:.2f} ms"
    return Row(f"worst call above that of a constant, {what}", (ours.worst - theirs.worst) * 1000, 5, "ms", note)


def rows() -> Iterator[Row]:
    with IssuerProcess(lifetime=_LIFETIME, latency=_LATENCY) as issuer:
        for what in ("16 threads flat out", "16 threads, 1 ms apart", "16 tasks, 1 ms apart"):
            before, source = issuer.token_requests, issuer.source()
            constant = source.token()
            ours, theirs = _Seen(), _Seen()
            if what == "16 threads flat out":
                _in_threads([(source.token, ours)], 0)
            elif what == "16 threads, 1 ms apart":
                _in_threads([(source.token, ours), (lambda: constant, theirs)], _PAUSE)  # noqa: B023 - over by then
            else:
                asyncio.run(_in_tasks(source, constant, ours, theirs))
            time.sleep(2 * _LATENCY)  # a renewal under way at the end
            ours.note(source.token(), 0.0)
            yield _per_expiry(what, ours, issuer.token_requests - before)
            if theirs.tokens:
                yield _above(what, ours, theirs)


if __name__ == "__main__":
    show(rows())
