"""A store in memory, and what else several test modules need. A real Backend: nothing of ours is replaced by it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from secretsource import Document, SecretReference
from secretsource.events import Event

CLIENT = "pos"
A, B, C, D = (f"not-a-real-secret-{name}" for name in "abcd")
LONG = 60.0  # never waited for: a test that gets near it has failed


class Store:
    """Gives `document`, or raises `failure`. `reads` has the `fresh` of each read so far.

    `ttl` 0 is a store like a file, which may be read at any time; one of seconds is dear, like Vault. Such a one has a
    cache that only a fresh read passes, so that whoever does not ask for that gets what was read first.
    """

    options: frozenset[str] = frozenset()
    eventually_consistent = False

    def __init__(self, ttl: float | None = 0.0, **fields: Any) -> None:
        self.ttl = ttl
        self.document: Any = Document(fields or {"client_id": CLIENT, "client_secret": A})
        self.failure: BaseException | None = None
        self.reads: list[bool] = []
        self.most_at_once = 0
        self.timeouts: list[float] = []
        self._at_once: list[None] = []
        self._open = threading.Event()
        self._open.set()

    def put(self, secret: str, **fields: Any) -> None:
        """`pending=` and `previous=` are secrets beside this one, `valid_for=` is the document's."""
        valid_for = fields.pop("valid_for", None)
        beside = {f"client_secret_{kind}": fields.pop(kind) for kind in ("pending", "previous") if kind in fields}
        self.document = Document(
            {"client_id": CLIENT, "client_secret": secret, **beside, **fields}, valid_for=valid_for
        )

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        self.reads.append(fresh)
        self.timeouts.append(timeout)
        self._at_once.append(None)
        try:
            self.most_at_once = max(self.most_at_once, len(self._at_once))
            given, failure = self.document, self.failure
            assert self._open.wait(LONG)
            if failure is not None:
                raise failure
            return given  # type: ignore[no-any-return] # whatever a test has put there
        finally:
            self._at_once.pop()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Reads that begin inside the `with` end after it, with what was there when they began."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    @property
    def stores(self) -> Mapping[str, Store]:
        """For `stores=`: its reference is "memory://pos"."""
        return {"memory": self}


class Events(list[Event]):
    """A hook that keeps what it is given."""

    __call__ = list.append

    def of(self, *kinds: type[Event]) -> list[Event]:
        return [event for event in list(self) if isinstance(event, kinds)]

    def names(self) -> list[str]:
        return [type(event).__name__ for event in list(self)]


def eventually(true: Callable[[], object], otherwise: str = "it did not come about") -> None:
    """What another thread is about to do: wait for it, but not for ever."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, otherwise
        time.sleep(0.002)


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """Run `work` in so many threads that begin together; what each returned or raised."""
    outcomes: list[Any] = []
    start = threading.Barrier(count)

    def run() -> None:
        start.wait(LONG)
        try:
            outcomes.append(work())
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    return outcomes
