"""Reading a secret file in one line, and doing something in the middle of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secretsource import BackendError, SecretReference
from secretsource.backends.file import FileBackend
from secretsource.credentials import Document

from ..backends.layouts import CANARY, shows

POS = {"client_id": "pos", "client_secret": CANARY}


def reference(path: Path | str, options: str = "", fields: str = "") -> SecretReference:
    return SecretReference.parse(f"file://{path}{options and '?' + options}{fields and '#' + fields}")


def read(path: Path | str, options: str = "", fields: str = "", **arguments: Any) -> Document:
    return FileBackend(**arguments).read(reference(path, options, fields), fresh=False, timeout=5)


def refused(error: type[BackendError], path: Path | str, options: str = "", fields: str = "", **arguments: Any) -> str:
    with pytest.raises(error) as caught:
        read(path, options, fields, **arguments)
    failure = caught.value
    assert not shows(failure)
    assert (failure.reference, failure.store) == (str(reference(path, options, fields)), "file")
    assert failure.hint
    return str(failure)


def meanwhile(monkeypatch: pytest.MonkeyPatch, call: str, act: Callable[[], object], *, times: int = 1) -> None:
    """Do something right before the next calls of this function of os."""
    real, left = getattr(os, call), [times]

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            act()
        return real(*args, **kwargs)

    monkeypatch.setattr(os, call, interrupted)


def before_opening(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], object], *, times: int = 1) -> None:
    """Do something between the look at what has this name and its opening."""
    real, left = os.open, [times]

    def interrupted(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == name and left[0] > 0:
            left[0] -= 1
            act()
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", interrupted)
