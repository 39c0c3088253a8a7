"""What an API says with a 401: the challenges of its WWW-Authenticate headers (RFC 9110 section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["refuses_token"]

_PART = re.compile(r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]*))?""")
_ESCAPED = re.compile(r"\\(.)")
_LONGEST = 8192


def refuses_token(headers: Iterable[str]) -> bool:
    """Whether a 401 with these headers means the token itself, so that another one may be accepted.

    So if there is no challenge, or one for Bearer without an error or with invalid_token (RFC 6750 section 3.1).
    """
    scheme, bearer, error, any_challenge = "", False, None, False
    for header in headers:
        end = 0
        for match in _PART.finditer(header[:_LONGEST]):
            name, value = match[1].lower(), match[2]
            begins = not end or "," in header[end : match.start()]  # else it belongs to the token68 of a scheme
            end = match.end()
            if value is None and begins:
                scheme, any_challenge = name, True
                bearer = bearer or scheme == "bearer"
            elif value is not None and scheme == "bearer" and name == "error":
                error = _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value
    return not any_challenge or (bearer and error in (None, "invalid_token"))
