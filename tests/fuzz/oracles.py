"""Other readings of what the library reads, written from the standards alone, strict and slow.

Each gives None where an input does not follow its standard: then there is nothing to compare with.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

__all__ = [
    "basic_pair",
    "form_fields",
    "is_loopback",
    "refuses_token",
    "seconds_until",
    "strict_json",
    "unescaped",
    "value_at",
]

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_ELEMENT = re.compile(rf"(?:{_QUOTED}|[^,\"])*")
_PARAMETER = re.compile(rf"({_TOKEN})[ \t]*=[ \t]*({_TOKEN}|{_QUOTED})")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_IMF_DATE = re.compile(
    rf"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) ({'|'.join(_MONTHS)}) (\d{{4}}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII
)


def refuses_token(headers: Iterable[str]) -> bool | None:
    """What WWW-Authenticate says of the token (RFC 9110 section 11.6.1, RFC 6750 section 3.1)."""
    challenges: list[tuple[str, dict[str, str]]] = []
    for header in headers:
        found = _challenges(header)
        if found is None:
            return None
        challenges += found
    bearers = [parameters for scheme, parameters in challenges if scheme == "bearer"]
    if len(bearers) > 1:
        return None
    return not challenges or (bool(bearers) and bearers[0].get("error", "invalid_token") == "invalid_token")


def _challenges(header: str) -> list[tuple[str, dict[str, str]]] | None:
    challenges: list[tuple[str, dict[str, str]]] = []
    position = 0
    while position <= len(header):
        element = _ELEMENT.match(header, position)
        if element is None or header[element.end() : element.end() + 1] not in ("", ","):
            return None
        position = element.end() + 1
        text = element[0].strip(" \t")
        scheme, space, rest = text.partition(" ")
        parameter = _PARAMETER.fullmatch(text)
        if parameter is None and text:
            if not re.fullmatch(_TOKEN, scheme):
                return None
            challenges.append((scheme.lower(), {}))
            rest = rest.strip(" ")
            parameter = _PARAMETER.fullmatch(rest)
            if space and parameter is None and (not _TOKEN68.fullmatch(rest) or re.fullmatch(f"{_TOKEN}=+", rest)):
                return None  # the last may be a parameter without its value
        if parameter is not None:
            name, value = parameter[1].lower(), parameter[2]
            if not challenges or name in challenges[-1][1]:
                return None
            quoted = value.startswith('"')
            challenges[-1][1][name] = re.sub(r"\\(.)", r"\1", value[1:-1]) if quoted else value
    return challenges


def seconds_until(text: str, wall: float) -> float | None:
    """Retry-After (RFC 9110 section 10.2.3): a count of seconds, or a date in the one form that may be sent."""
    if re.fullmatch("0|[1-9][0-9]{0,300}", text):
        return float(text)
    date = _IMF_DATE.fullmatch(text)
    if date is None:
        return None
    day, month, year, hour, minute, second = date.groups()
    ordered = (year, _MONTHS.index(month) + 1, day, hour, minute, second)
    try:
        moment = datetime.fromisoformat("{}-{:02}-{}T{}:{}:{}+00:00".format(*ordered))
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - wall)


def strict_json(content: bytes) -> Any:
    """What it holds, None where a name stands twice in an object (RFC 8259 section 4) or a number is none."""
    faults: list[str] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) < len(pairs):
            faults.append("a name twice")
        return dict(pairs)

    found = json.loads(content, object_pairs_hook=members, parse_constant=faults.append)
    return None if faults else found


def value_at(pointer: str, document: Any) -> Any:
    """What a JSON pointer leads to (RFC 6901 section 4), None where that is nothing."""
    found = document
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and re.fullmatch("0|[1-9][0-9]{0,9}", name) and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def basic_pair(header: str) -> tuple[bytes, bytes]:
    """The two sides of the colon in an Authorization header (RFC 7617 section 2)."""
    scheme, _, credentials = header.partition(" ")
    client_id, colon, secret = base64.b64decode(credentials, validate=True).partition(b":")
    assert (scheme, colon) == ("Basic", b":")
    return client_id, secret


def form_fields(body: bytes) -> list[tuple[str, str]]:
    """The fields of an application/x-www-form-urlencoded body."""
    return parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict")


def is_loopback(host: str) -> bool:
    """Whether a connection to this host cannot leave the machine, whatever name servers say."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def unescaped(part: bytes) -> str:
    """A part of client_secret_basic as an issuer reads it (RFC 6749 section 2.3.1 and appendix B)."""
    assert re.fullmatch(rb"(?:[A-Za-z0-9*._~+-]|%[0-9A-F]{2})*", part)
    return unquote(part.decode("ascii").replace("+", " "), errors="strict")
