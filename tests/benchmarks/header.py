"""A token on a request of httpx and httpx2, against setting the header by hand."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from types import ModuleType
from typing import Any

import httpx
from measuring import IssuerProcess, Row, show, side_by_side

from secretsource import TokenAuth

_REQUESTS = 300
_URL = "https://pos.example.com/api/graphql"


def _new(library: ModuleType) -> list[Any]:
    """Requests as a client builds them, none of which has the header yet."""
    client = library.Client()
    return [client.build_request("POST", _URL, json={"query": "{ orders { id } }"}) for _ in range(_REQUESTS)]


def _by_hand(requests: list[Any], value: str) -> float:
    began = perf_counter()
    for request in requests:
        request.headers["Authorization"] = value
    return (perf_counter() - began) / len(requests)


def _by_auth(requests: list[Any], auth: TokenAuth) -> float:
    began = perf_counter()
    for request in requests:
        next(auth.sync_auth_flow(request))
    return (perf_counter() - began) / len(requests)


def rows() -> Iterator[Row]:
    with IssuerProcess() as issuer:
        source = issuer.source()
        value = source.token().authorization
    auth = TokenAuth(source)
    libraries: list[ModuleType] = [httpx]
    try:
        import httpx2
    except ImportError:
        print("httpx2 is not installed, and not measured")
    else:
        libraries.append(httpx2)
    for library in libraries:
        requests = _new(library)

        def fresh(requests: list[Any] = requests) -> list[Any]:
            for request in requests:
                request.headers.pop("Authorization", None)
            return requests

        pair = side_by_side(lambda: _by_auth(fresh(), auth), lambda: _by_hand(fresh(), value), rounds=300)
        note = f"fastest round {pair.ours * 1e9:.0f} ns, by hand {pair.theirs * 1e9:.0f} ns"
        yield Row(f"a token on a request of {library.__name__}, by the header set by hand", pair.ratio, 2.0, "×", note)


if __name__ == "__main__":
    show(rows())
