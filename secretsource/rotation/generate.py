"""New client secrets."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from ..errors import ConfigurationError
from ..secret import Secret

__all__ = ["FEWEST_BITS", "Generator", "generate"]

FEWEST_BITS = 256
_MOST_BITS = 4096
# The unreserved characters of RFC 3986 section 2.3 that token_urlsafe uses: whoever decodes them, and how often, they
# stay the same (RFC 6749 section 2.3.1 and its implementations differ on all others).
Generator = Callable[[], "Secret | str"]


def generate(bits: int = FEWEST_BITS) -> Secret:
    """A secret of so many random bits, in unreserved characters: 43 of them for 256 bits. ConfigurationError."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not FEWEST_BITS <= bits <= _MOST_BITS:
        raise ConfigurationError(f"a secret has {FEWEST_BITS} to {_MOST_BITS} random bits")
    return Secret(secrets.token_urlsafe((bits + 7) // 8))
