"""What reading a secret file comes to, in a word, by whoever runs the tests or by another user."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from secretsource import SecretReference, SecretSourceError
from secretsource.backends.file import FileBackend
from secretsource.secret import Secret

from ..backends.layouts import CANARY, by, shows

ROOT = Path(__file__).resolve().parents[2]
LEVELS = ("strict", "private", "mounted", "unchecked")


def outcome(path: str | Path, level: str, owners: Sequence[int] = ()) -> str:
    """`read`, the code of a refusal, or the class of an error without one; `read …` where it is not our secret.

    A path with '/' at its end is a directory.
    """
    found = tried(path, level, owners)
    return found if isinstance(found, str) else named(found)


def tried(path: str | Path, level: str, owners: Sequence[int] = ()) -> str | SecretSourceError:
    backend = FileBackend(access=level, owners=owners)
    try:
        document = backend.read(SecretReference.parse(f"file://{path}"), fresh=True, timeout=5)
    except SecretSourceError as error:
        return error
    value = document.text or document.fields.get("client_secret")
    text = value.reveal() if isinstance(value, Secret) else "nothing"
    return "read" if text == CANARY else f"read {text}"


def named(error: SecretSourceError) -> str:
    """The code of a refusal, else its class; the secret is not in it, and it says what to do."""
    assert not shows(error)
    assert error.hint
    return code_of(error)


def code_of(error: SecretSourceError) -> str:
    code = re.search(r"\[(F\d\d)\]", str(error))
    return code[1] if code else type(error).__name__


def outcomes_of(
    asked: Sequence[tuple[str, str, Sequence[int]]], *, uid: int, groups: Sequence[int] = (), rounds: int = 1
) -> list[dict[str, int]]:
    """How often each outcome came of reading each path at its level with its trusted owners, by this user."""

    def count() -> list[Counter[str]]:
        counts: list[Counter[str]] = [Counter() for _ in asked]
        for _ in range(rounds):
            for seen, (path, level, owners) in zip(counts, asked, strict=True):
                found = tried(path, level, owners)
                if not isinstance(found, str):
                    # To search an error and its trace takes longer than a hundred reads: once of a kind is enough.
                    found = code_of(found) if code_of(found) in seen else named(found)
                seen[found] += 1
        return counts

    answer: list[dict[str, int]] = by(uid, groups, count)
    return answer
