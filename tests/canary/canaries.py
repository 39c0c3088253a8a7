"""Canaries: secrets with a name, which are found in whatever way they are written."""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
import secrets
import string
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple
from urllib.parse import quote, quote_plus

__all__ = ["ENCODINGS", "Canaries", "Found", "Shape", "in_base64"]

_LETTERS = string.ascii_letters + string.digits
_HALVES_FROM = 12

Shape = str
"""A text in which `{}` stands for what makes it unique; with one on each side, each half is unique, too."""

PLAIN: Shape = "{}-not-a-real-secret-{}"
SPECIAL: Shape = "{}\"+/ %é-not-a-real-secret-\\&<'/+ ü{}"
"""Written differently in each encoding, and no header takes it as it is."""
TOKEN: Shape = "{}~+/._-not-a-real-token-_.+/~{}"
"""What RFC 6750 allows in a token."""


class Found(NamedTuple):
    """Which canary, and how it is written there; never its value."""

    canary: str
    encoding: str


def in_base64(data: bytes, offset: int, *, urlsafe: bool = False) -> str:
    """What of the base64 of a longer text is the same whatever stands before and behind `data`."""
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    whole = encode(bytes(offset) + data).decode().rstrip("=")
    return whole[(0, 2, 3)[offset] : (offset + len(data)) * 8 // 6]


def _in_base64(text: str, offset: int, urlsafe: bool) -> str:
    return in_base64(_utf8(text), offset, urlsafe=urlsafe)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _hex(text: str) -> str:
    return binascii.hexlify(_utf8(text)).decode()


def _quoted(text: str, safe: str) -> str:
    return quote(_utf8(text), safe=safe)


def _lower_percent(text: str) -> str:
    return re.sub("%..", lambda escape: escape[0].lower(), quote(_utf8(text), safe=""))


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "lower case": str.lower,
    "upper case": str.upper,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "Latin-1": lambda text: text.encode("raw_unicode_escape").decode("utf-8", "surrogateescape"),
    "repr": lambda text: repr(text)[1:-1],
    "repr of bytes": lambda text: repr(_utf8(text))[2:-1],
    "HTML": html.escape,
    "URL": partial(_quoted, safe=""),
    "URL with slashes": partial(_quoted, safe="/"),
    "URL in lower case": _lower_percent,
    "form": lambda text: quote_plus(_utf8(text)),
    "hex": _hex,
    "hex in upper case": lambda text: _hex(text).upper(),
    **{
        f"{name} at offset {offset}": partial(_in_base64, offset=offset, urlsafe=urlsafe)
        for name, urlsafe in (("base64", False), ("base64url", True))
        for offset in range(3)
    },
}


class Canaries:
    """The canaries of one test."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}
        self._needles: dict[str, Found] = {}
        self._shortest = 0
        self._clear: set[str] = set()  # texts that were looked through for all of these: most come again and again

    def __repr__(self) -> str:
        return f"<Canaries {', '.join(self._values)}>"

    def new(self, name: str, shape: Shape = PLAIN) -> str:
        """One that is nowhere else."""
        return self.add(name, shape.format(_unique(), _unique()))

    def add(self, name: str, value: str) -> str:
        """One that somebody else has made, as a server a token."""
        if self._values.get(name) == value:
            return value
        self._values.setdefault(name, value)
        for part, text in _parts(value):
            for encoding, encode in ENCODINGS.items():
                self._needles.setdefault(encode(text), Found(name, f"{encoding}{part}"))
        # Longer ones first, so that a whole one is not called a half.
        self._needles = dict(sorted(self._needles.items(), key=lambda item: -len(item[0])))
        self._shortest = min(map(len, self._needles))
        self._clear.clear()
        return value

    def found_in(self, text: str | bytes | bytearray) -> Found | None:
        """The first canary in it."""
        if not isinstance(text, str):
            text = text.decode("utf-8", "surrogateescape")
        if text in self._clear or len(text) < self._shortest:
            return None
        # Not one regular expression: at some hundred needles that takes fourteen times as long.
        found = next((found for needle, found in self._needles.items() if needle in text), None)
        if found is None:
            self._clear.add(text)
        return found


def _unique() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(12))


def _parts(value: str) -> Iterator[tuple[str, str]]:
    yield "", value
    if len(value) >= _HALVES_FROM:
        yield ", its first half", value[: len(value) // 2]
        yield ", its last half", value[len(value) // 2 :]
