"""A value that shows itself only when asked."""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from typing import Any, NoReturn, Self

from .errors import forgetting

__all__ = ["Secret", "Masked", "Fingerprints"]


class Masked:
    """Shows a mask wherever it is printed, and is neither pickled nor altered.

    The mask holds a character outside Latin-1: an HTTP client refuses a header built from it on the spot.
    """

    __slots__ = ()
    _mask = "⋯"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._mask}>"

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is not pickled: it would leave the process in clear text. "
            f"Give the other process the reference and let it read the store itself."
        )

    def __getstate__(self) -> NoReturn:
        self.__reduce_ex__(0)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed")


class Secret(Masked):
    """A secret text. `reveal()` gives it; printing, formatting, logging and pickling do not.

    Two are compared in constant time. It has no length and no hash.
    """

    __slots__ = ("_reveal",)
    _mask = "⋯ use .reveal()"
    _reveal: Callable[[], str]

    @forgetting
    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a Secret is made from a str, not from {type(text).__name__}")
        # A closure, so that no attribute holds the text: what walks attributes finds a function.
        object.__setattr__(self, "_reveal", lambda: text)

    def reveal(self) -> str:
        """The text itself. Call it where a header, a body or a cipher is built, and nowhere else."""
        return self._reveal()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes_of(self), _bytes_of(other))

    __hash__ = None  # type: ignore[assignment]


class Fingerprints:
    """Names for secret values that are good in this object only: a keyed digest under a key nobody else has.

    They tell whether two values are the same without keeping either, and are never shown.
    """

    __slots__ = ("_key",)

    def __init__(self) -> None:
        self._key = os.urandom(32)

    def of(self, *secrets: Secret) -> bytes:
        """One digest of all given values, in their order."""
        digest = hmac.new(self._key, digestmod="sha256")
        for secret in secrets:
            text = _bytes_of(secret)
            digest.update(len(text).to_bytes(8, "big") + text)
        return digest.digest()


def _bytes_of(secret: Secret) -> bytes:
    # surrogatepass: a UnicodeEncodeError would carry the text.
    return secret.reveal().encode("utf-8", "surrogatepass")
