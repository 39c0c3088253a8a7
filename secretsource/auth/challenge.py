"""What an API says with a 401: the challenges of its WWW-Authenticate headers (RFC 9110 section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["refuses_token"]

_PART = re.compile(r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]*))?""")
_LONGEST = 8192


def refuses_token(headers: Iterable[str]) -> bool:
    """Whether a 401 with these headers means the token itself, so that another one may be accepted.

    So if there is no challenge, or one for Bearer without an error or with invalid_token (RFC 6750 section 3.1).
    """
    scheme, bearer, error, any_challenge = "", False, None, False
    for header in headers:
        for match in _PART.finditer(header[:_LONGEST]):
            name, value = match[1].lower(), match[2]
            if value is None:
                scheme, any_challenge = name, True
                bearer = bearer or scheme == "bearer"
            elif scheme == "bearer" and name == "error":
                error = value.strip('"')
    return not any_challenge or (bearer and error in (None, "invalid_token"))
