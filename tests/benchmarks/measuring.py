"""What the benchmarks share: the table's rows, timing two ways side by side, an issuer in a process of its own."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from types import TracebackType
from typing import Any, NamedTuple, Self

from secretsource import ClientCredentials, TokenSource
from secretsource.testing import FakeIssuer

__all__ = ["IssuerProcess", "Pair", "Row", "show", "side_by_side"]

_CLIENT, _SECRET = "pos", "not-a-real-secret"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing measured. `note` says what the number comes from."""

    what: str
    measured: float
    target: float
    unit: str
    note: str = ""

    @property
    def verdict(self) -> str:
        return "met" if self.measured <= self.target else "missed"


def show(rows: Iterable[Row]) -> None:
    """The table, line by line as the rows come."""
    print(f"{'':60} {'measured':>10} {'target':>8}  {'':6} {'verdict':8}")
    for row in rows:
        numbers = f"{row.measured:10.4g} {row.target:8g}  {row.unit:6}"
        print(f"{row.what:60} {numbers} {row.verdict:8} {row.note}", flush=True)


class Pair(NamedTuple):
    """Two ways, timed alternately: the median of each round's ratio and difference, and each one's fastest round."""

    ratio: float
    difference: float
    ours: float
    theirs: float


def side_by_side(ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int) -> Pair:
    """Each returns what it measured in one round. A round is both of them, so that what slows one slows the other."""
    measured: list[tuple[float, float]] = []
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            if number % 2:
                theirs_first = theirs()
                measured.append((ours(), theirs_first))
            else:
                measured.append((ours(), theirs()))
    finally:
        gc.enable()
    return Pair(
        median(one / other for one, other in measured),
        median(one - other for one, other in measured),
        min(one for one, _ in measured),
        min(other for _, other in measured),
    )


class IssuerProcess:
    """A FakeIssuer in another process, where its work takes neither our interpreter lock nor our memory."""

    def __init__(self, **settings: Any) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, its_end = spawn.Pipe()
        self._process = spawn.Process(target=_issue, args=(its_end, settings), daemon=True)

    @property
    def token_requests(self) -> int:
        """How many have arrived so far."""
        self._pipe.send(True)
        count: int = self._pipe.recv()
        return count

    def source(self) -> TokenSource:
        """A new source of its tokens, which has none yet."""
        return TokenSource(ClientCredentials(_CLIENT, _SECRET), token_url=self._token_url, timeout=60)

    def __enter__(self) -> Self:
        self._process.start()
        self._token_url: str = self._pipe.recv()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pipe.send(False)
        self._process.join()


def _issue(pipe: Connection, settings: dict[str, Any]) -> None:
    with FakeIssuer(**settings) as issuer:
        issuer.add_client(_CLIENT, _SECRET)
        pipe.send(issuer.token_url)
        while pipe.recv():
            pipe.send(issuer.token_requests)
