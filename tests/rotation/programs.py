"""Programs that call while a secret is changed: real TokenSources on threads, whose tokens live for a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from secretsource import SecretSourceError, TokenSource
from secretsource.backends import Backend
from secretsource.testing import FakeIssuer

__all__ = ["Calls", "calling"]

_PAUSE = 0.02


class Calls:
    """How many calls were made, and why some failed."""

    def __init__(self) -> None:
        self.count = 0
        self.failed: list[str] = []


@contextmanager
def calling(
    issuer: FakeIssuer, reference: str, stores: Callable[[], Mapping[str, Backend]], *, programs: int = 2
) -> Iterator[Calls]:
    """Programs that call inside the `with`, each with stores of its own."""
    calls, over = Calls(), threading.Event()

    def live(source: TokenSource) -> None:
        with source:
            while not over.is_set():
                calls.count += 1
                try:
                    token = source.token()
                    if not issuer.accepts(token.access_token):
                        calls.failed.append("a token that the issuer does not know, or that has ended")
                except SecretSourceError as error:
                    calls.failed.append(f"{type(error).__name__}: {error}")
                time.sleep(_PAUSE)

    sources = [
        TokenSource(reference, issuer=issuer.url, stores=stores(), timeout=20, refresh_ahead=0.5)
        for _ in range(programs)
    ]
    threads = [threading.Thread(target=live, args=(source,)) for source in sources]
    for source in sources:
        source.token()
    for thread in threads:
        thread.start()
    try:
        yield calls
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
