"""What the code of others says: adapters, gates, generators. None of it is kept or shown before it was looked through.

A server may repeat what it was sent, as an error or as a name, and a program may hand that on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

from ..secret import Secret
from ..token import Token
from .generate import Generator
from .outcome import Applied, Minted, Preflight, Refused, Unknown

__all__ = ["fit", "made_by", "outcome_of", "preflight_of"]

_LEFT_OUT = "its text is left out, since a secret is in it"
_SHORTEST = 6  # characters: what is shorter is in many a text by chance

Kept = Secret | Token | None


def fit(text: object, *secrets: Kept) -> str:
    """The text, if it is one and none of these is in it."""
    if not isinstance(text, str):
        return f"no text but a {type(text).__name__}"
    return _LEFT_OUT if _holds(text, secrets) else text


def outcome_of(said: object, *secrets: Kept) -> Applied | Minted | Refused | Unknown:
    """How a call ended, with no secret in its texts; Unknown where that is none of the words for it."""
    match said:
        case Applied():
            return Applied(_name(said.id, secrets), _instant(said.expires))
        case Refused():
            beside = _texts(said.beside)
            more = (*secrets, *beside.values())
            return Refused(fit(said.reason, *more), None if said.hint is None else fit(said.hint, *more), beside)
        case Unknown():
            beside = _texts(said.beside)
            return Unknown(fit(said.reason, *secrets, *beside.values()), beside)
        case Minted():
            return _minted(said, secrets)
    return Unknown(f"the adapter answered by a {type(said).__name__}")


def preflight_of(said: object, *secrets: Kept) -> Preflight | None:
    """What a check found, with no secret in its texts; None where it says nothing."""
    if not isinstance(said, Preflight):
        return None
    cautions = [fit(caution, *secrets) for caution in said.cautions]
    name, end = _name(said.current_id, secrets), _instant(said.expires)
    return said._replace(cautions=cautions, current_id=name, expires=end)


def made_by(generator: Generator) -> Secret | str:
    """A new secret, or why there is none."""
    try:
        made: object = generator()
    except Exception as error:  # its text may hold a secret
        return f"raised {type(error).__name__}"
    made = Secret(made) if isinstance(made, str) else made
    return made if isinstance(made, Secret) else f"gave a {type(made).__name__}"


def _minted(said: Minted, secrets: tuple[Kept, ...]) -> Minted | Unknown:
    secret = _wrapped(said.secret)
    if secret is None:
        return Unknown(f"the adapter gave a {type(said.secret).__name__} as the secret")
    found = _texts(said.beside)
    name = _name(said.id, (*secrets, secret, *found.values()))
    return replace(said, secret=secret, id=name, expires=_instant(said.expires), beside=found)


def _texts(beside: object) -> dict[str, Secret]:
    given = beside if isinstance(beside, Mapping) else {}
    return {name: text for name, one in given.items() if isinstance(name, str) and (text := _wrapped(one)) is not None}


def _wrapped(value: object) -> Secret | None:
    secret = Secret(value) if isinstance(value, str) else value
    return secret if isinstance(secret, Secret) else None


def _name(name: object, secrets: tuple[Kept, ...]) -> str | None:
    return name if isinstance(name, str) and not _holds(name, secrets) else None


def _instant(value: object) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None  # type: ignore[arg-type]


def _holds(text: str, secrets: tuple[Kept, ...]) -> bool:
    """Whether one of these is in the text, as it is or as JSON or a URL write it."""
    for secret in secrets:
        value = "" if secret is None else secret.access_token if isinstance(secret, Token) else secret.reveal()
        if len(value) >= _SHORTEST:
            bare = value.encode("utf-8", "surrogatepass")
            written = {value, json.dumps(value)[1:-1], quote(bare), quote(bare, safe="")}
            if any(each in text for each in written):
                return True
    return False
