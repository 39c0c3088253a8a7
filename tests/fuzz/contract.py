"""What holds for every input: a result, or an error of the documented kind that gives away nothing of it."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from secretsource import SecretSourceError

__all__ = ["CANARY", "STAND_IN", "STEERING", "Target", "held", "silent", "text_of"]

T = TypeVar("T")
Target = Callable[[bytes], None]

CANARY = "not-a-real-secret-c4n4ry"
"""What no error may give away. It looks the same in JSON, in a URL and in a header."""

STAND_IN = b"\x1a"
"""One byte (SUB) that stands for the canary in an input: what mutates bytes would not keep a whole one alive."""

STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal or a log takes for more than a character."""

_SECONDS = 5.0
_LARGEST = 65536  # that of a file; what comes from a server is measured by the transport before it is read


def held(target: Target) -> Target:
    """The target with the canary put in, which also fails where it takes too long."""

    @functools.wraps(target)
    def run(data: bytes) -> None:
        began = time.thread_time()
        target(data.replace(STAND_IN, CANARY.encode())[:_LARGEST])
        taken = time.thread_time() - began
        assert taken < _SECONDS, f"{len(data)} bytes took {taken:.1f} s"

    return run


def silent(call: Callable[[], T], *kinds: type[SecretSourceError], shown: bool = False) -> T | None:
    """What the call gives; None where it raises one of these kinds, which must not tell the canary.

    `shown`: the canary stands in the name of something, and names are shown. Any other exception is a finding.
    """
    try:
        return call()
    except kinds as error:
        caught = error
    assert shown or not any(CANARY in text for text in _told(caught)), "the error gives the secret away"
    assert not STEERING.search(str(caught)), "the error carries control characters to a terminal or a log"
    return None


def text_of(data: bytes) -> str:
    """As the operating system gives texts to Python: what is not UTF-8 becomes lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def _told(error: BaseException | None) -> Iterator[str]:
    """All that an exception says and carries, and those behind it."""
    met: set[int] = set()
    while error is not None and id(error) not in met:
        met.add(id(error))
        yield from (str(error), repr(error), repr(error.args), repr(vars(error)))
        error = error.__cause__ or error.__context__
