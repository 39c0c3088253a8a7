"""One exchange over HTTP: a request that is ready to go, and what came back. Both may hold secrets and show a mask."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from .secret import Masked

__all__ = ["Answer", "Outgoing", "request_id_in"]

_DEEPEST = 64
_MOST_VALUES = 40_000
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:=-]{8,128}")


class Outgoing(Masked):
    """A request that is ready to go. Its headers and body hold the secret; only the transport opens it."""

    __slots__ = ("_open", "echoed", "leaving", "method", "special", "url")

    method: str
    url: str
    special: bool
    echoed: Callable[[str], bool]
    leaving: Callable[[], object]
    _open: Any

    def __init__(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        special: bool = False,
        echoed: Callable[[str], bool] = lambda text: False,
        leaving: Callable[[], object] = lambda: None,
    ) -> None:
        """`special`: ID or secret have characters that issuers decode differently (RFC 6749 section 2.3.1).

        `echoed`: whether the secret is in a text that came back. `leaving` is called right before the first byte of it
        leaves: until then the server knows nothing of it.
        """
        for name, value in (
            ("method", method),
            ("url", url),
            ("special", special),
            ("echoed", echoed),
            ("leaving", leaving),
            ("_open", lambda: (headers, body)),
        ):
            object.__setattr__(self, name, value)

    def open(self) -> tuple[Mapping[str, str], bytes | None]:
        content: tuple[Mapping[str, str], bytes | None] = self._open()
        return content


class Answer(Masked):
    """What came back. Its body may hold a token, or a secret that the server echoes."""

    __slots__ = ("_body", "echoed", "headers", "status")

    status: int
    headers: Mapping[str, str]
    echoed: Callable[[str], bool]
    _body: Any

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        echoed: Callable[[str], bool] = lambda text: False,
    ) -> None:
        """`headers` with names in lower case; `echoed` is that of the request."""
        for name, value in (("status", status), ("headers", headers), ("echoed", echoed), ("_body", lambda: body)):
            object.__setattr__(self, name, value)

    def body(self) -> bytes:
        content: bytes = self._body()
        return content

    def members(self) -> tuple[dict[str, Any], str | None]:
        """The members of the JSON object that the body is, or why it is none (RFC 8259; no name twice, no NaN)."""
        value, fault = self.value()
        if fault is not None:
            return {}, fault
        return (value, None) if isinstance(value, dict) else ({}, "is not a JSON object")

    def value(self) -> tuple[Any, str | None]:
        """The JSON value that the body is, or None and why it is none."""
        body = self.body()
        if sum(map(body.count, (b",", b"[", b"{"))) > _MOST_VALUES:  # each costs many times what it has in bytes
            return None, f"holds more than {_MOST_VALUES} values"
        try:
            value = json.loads(body.decode("utf-8"), object_pairs_hook=_no_name_twice, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            return None, "has a name twice or NaN in its JSON" if isinstance(error, _NotStrict) else "is not JSON"
        if _is_deep(value):
            return None, f"is nested deeper than {_DEEPEST} levels"
        return value, None


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


class _NotStrict(ValueError):
    pass


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _NotStrict
    return members


def _no_constant(name: str) -> Any:
    raise _NotStrict


def request_id_in(value: object) -> str | None:
    """What a server calls an exchange, if it has the shape of such a name: it is shown in errors."""
    return value if isinstance(value, str) and _REQUEST_ID.fullmatch(value) else None
