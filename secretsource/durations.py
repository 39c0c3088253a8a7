"""Durations as people write and read them."""

from __future__ import annotations

import re

from .errors import ConfigurationError

__all__ = ["duration", "shown_duration"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,6})?(?:ms|[smhdw]))+")
_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,6})?")
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|[smhdw])")
_LONGEST = 10 * 365 * 86400.0


def duration(text: str | float) -> float:
    """Seconds of a duration such as `90s`, `5m`, `1h30m`, `90d`; a number is seconds. ConfigurationError."""
    number = isinstance(text, (int, float)) and not isinstance(text, bool)
    if number or (isinstance(text, str) and _NUMBER.fullmatch(text)):
        seconds = float(text)
    elif isinstance(text, str) and _DURATION.fullmatch(text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST:
        raise ConfigurationError("a duration is not written as one", hint="Such as 90s, 5m, 1h30m, 24h, 90d")
    return seconds


def shown_duration(seconds: float) -> str:
    """In at most two units, for people."""
    whole = round(seconds) if seconds >= 10 else round(seconds, 1)
    if whole < 60:
        return f"{whole:g} s"
    parts = []
    for unit in ("d", "h", "m", "s"):
        number, whole = divmod(int(whole), int(_UNITS[unit]))
        if number:
            parts.append(f"{number} {'min' if unit == 'm' else unit}")
    return " ".join(parts[:2])
