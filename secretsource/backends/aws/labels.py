"""Staging labels of our own, on the versions of a secret that is being changed.

What changes beside the same secrets is kept in labels, since a version cannot be altered and new ones are counted:

    secretsource-claim                      the version that a rotator has made last
    secretsource-state-3-5e1f09ab-1.1-…     the state, as far as it differs from the one inside the version
    secretsource-promoted-4-5e1f09ab-1.1-…  the same, from when the version is AWSCURRENT
    secretsource-turn-2-VERSION             on VERSION: the change before turn 2 was made, and it stays pending;
                                            on the current version: VERSION is given up, and nothing is changed any more
    secretsource-intended-VERSION           while VERSION is current, this one says what was asked of the issuer

A label is on one version at a time, so whoever puts a turn on its version first decides.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from ...state import RotationState
from .calls import Described
from .place import CURRENT, PENDING, PREVIOUS

__all__ = [
    "CLAIM",
    "PREFIX",
    "PUT",
    "given_up",
    "intended",
    "is_of_state",
    "is_turn",
    "mark",
    "next_turn",
    "ours",
    "state_in",
    "state_labels",
    "turns",
]

PREFIX = "secretsource-"
CLAIM = "secretsource-claim"
PUT = "secretsource-put"

_LONGEST_LABEL = 256
_STATE = re.compile(r"secretsource-(state|promoted)-(\d{1,6})-([0-9a-f]{8})-(\d)\.(\d)-(.*)", re.DOTALL)
_TURN = re.compile(r"secretsource-turn-(\d{1,6})-(.+)")
_CHUNK = _LONGEST_LABEL - len("secretsource-promoted-999999-01234567-9.9-")
_CHUNKS_AT_MOST = 9
_DEFAULTS = asdict(RotationState())
_SAFE = "+=.:-"


class _Group(NamedTuple):
    """One writing of the state. `changes`: fields and their values."""

    number: int
    digest: str
    of_promotion: bool
    changes: Mapping[str, Any]
    labels: tuple[str, ...]


def ours(labels: Iterable[str]) -> list[str]:
    """Those that rotators put there."""
    return sorted(label for label in labels if label.startswith(PREFIX) and label != PUT)


def is_of_state(label: str) -> bool:
    return _STATE.fullmatch(label) is not None


def mark(described: Described) -> str:
    """A name for all that a change is made against: which version is which, and every label of ours."""
    labels = [PENDING, PREVIOUS, *ours(described.labels)]
    lines = "\n".join(f"{label} {described.labels.get(label, '')}" for label in labels)
    return f"{described.current}:{described.pending or ''}:{hashlib.sha256(lines.encode()).hexdigest()[:16]}"


def intended(current: str) -> str:
    return f"{PREFIX}intended-{current}"


def next_turn(described: Described, version: str) -> str:
    return f"{PREFIX}turn-{max(turns(described, version), default=0) + 1}-{version}"


def turns(described: Described, version: str) -> dict[int, str]:
    """The turns of this pending version, and where they are."""
    found = ((_TURN.fullmatch(label), where) for label, where in described.labels.items())
    return {int(turn[1]): where for turn, where in found if turn is not None and turn[2] == version}


def is_turn(label: str) -> bool:
    return _TURN.fullmatch(label) is not None


def given_up(described: Described, version: str, current: str | None) -> bool:
    """Whether the last turn of this pending version is its end."""
    found = turns(described, version)
    return bool(found) and found[max(found)] == current


def state_labels(
    base: RotationState, there: Iterable[str], state: RotationState, *, of_promotion: bool = False
) -> tuple[str, ...]:
    """The labels that say this state on a version that holds `base` inside and has these labels."""
    groups = _groups(there)
    spoken = {name for group in groups for name in group.changes}
    inside = asdict(base)
    said = {name: value for name, value in asdict(state).items() if name in spoken or value != inside[name]}
    # A label is never written twice: two rotators at once write two, and the greater number is the newer one.
    number = max((group.number for group in groups), default=0) + 1
    text = "&".join(f"{name}={_written(value)}" for name, value in sorted(said.items()))
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)] or [""]
    assert len(chunks) <= _CHUNKS_AT_MOST, "all texts in a state are bounded"
    kind = "promoted" if of_promotion else "state"
    return tuple(
        f"{PREFIX}{kind}-{number}-{digest}-{index}.{len(chunks)}-{chunk}" for index, chunk in enumerate(chunks, 1)
    )


def state_in(base: RotationState, labels: Iterable[str]) -> RotationState | None:
    """The state of a version that holds `base` inside and has these labels; None where it cannot be read."""
    labels = list(labels)
    promoted = CURRENT in labels
    values: dict[str, Any] = asdict(base)
    number, before = 0, values
    for group in _groups(labels):
        if group.of_promotion and not promoted:
            continue
        if group.number != number:
            number, before = group.number, dict(values)
        _lay(values, group.changes, before)
    return _made(values)


def _lay(values: dict[str, Any], changes: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Changes over what is there. Of two that were written at once, both hold, the more careful one first."""
    twice = {name for name in changes if values[name] != before[name] and changes[name] != values[name]}
    if "goal" in twice and values["goal"] == "abort":
        changes = {**changes, "goal": "abort"}
    if "noted" in twice and _ends(values) > _ends({**values, **changes}):
        changes = {name: value for name, value in changes.items() if name not in ("noted", "open_for")}
    values.update(changes)


def _ends(values: Mapping[str, Any]) -> float:
    return (values["noted"] or 0.0) + (values["open_for"] or 0.0)


def _groups(labels: Iterable[str]) -> list[_Group]:
    """All that are complete, the oldest first."""
    parts: dict[tuple[int, str, bool, int], dict[int, tuple[str, str]]] = {}
    for label in labels:
        found = _STATE.fullmatch(label)
        if found is not None:
            kind, number, digest, index, count, text = found.groups()
            parts.setdefault((int(number), digest, kind == "promoted", int(count)), {})[int(index)] = (text, label)
    groups = []
    for (number, digest, of_promotion, count), chunks in sorted(parts.items()):
        if sorted(chunks) != list(range(1, count + 1)):
            continue
        text = "".join(chunks[index][0] for index in range(1, count + 1))
        changes = _read(text) if hashlib.sha256(text.encode()).hexdigest()[:8] == digest else None
        if changes is not None:
            groups.append(_Group(number, digest, of_promotion, changes, tuple(label for _, label in chunks.values())))
    return groups


def _written(value: Any) -> str:
    return quote(json.dumps(value), safe=_SAFE).replace("%", "@")


def _read(text: str) -> dict[str, Any] | None:
    """The fields in a label's text. Those that a later version may have are left out."""
    changes: dict[str, Any] = {}
    for pair in filter(None, text.split("&")):
        name, _, value = pair.partition("=")
        if name not in _DEFAULTS:
            continue
        try:
            changes[name] = json.loads(unquote(value.replace("@", "%"), errors="strict"))
        except (ValueError, RecursionError):
            return None
    # Judged as they would be inside a version: a label may be anybody's.
    return changes if _made({**_DEFAULTS, **changes}) is not None else None


def _made(values: Mapping[str, Any]) -> RotationState | None:
    return RotationState.read(RotationState(**values).text())
