"""What a kept token costs beside its own text."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Iterator

from measuring import IssuerProcess, Row, show

_TOKENS = 200
_WARM_UP = 400


def rows() -> Iterator[Row]:
    with IssuerProcess() as issuer:
        source = issuer.source()
        tracemalloc.start()
        # What any request leaves behind once (the interpreter's free lists, caches of httpx) is no token's cost.
        for number in range(_WARM_UP):
            source.token(scope=f"warm.{number % 20:03}", force=True)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(_TOKENS):
            source.token(scope=f"orders.{number:03}")
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        requests = issuer.token_requests
        texts = sum(sys.getsizeof(source.token(scope=f"orders.{number:03}").access_token) for number in range(_TOKENS))
        assert issuer.token_requests == requests, "a token was not kept"
    note = f"of {_TOKENS} tokens, whose texts take {texts / _TOKENS:.0f} bytes each"
    yield Row("a kept token, beside its text", (taken - texts) / _TOKENS, 700, "bytes", note)


if __name__ == "__main__":
    show(rows())
