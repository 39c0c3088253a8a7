"""Credentials files as the file store wants them."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..reference import SecretReference

__all__ = ["secret_file"]


def secret_file(directory: str | os.PathLike[str], client_id: str, secret: str, **extra: Any) -> str:
    """Write a JSON document with these credentials, and return its `file:` reference.

    The directory is made with mode 0700, the file with 0600. Called again for the same client it replaces the file in
    one step, as a careful administrator does. `extra` are further members, as `client_secret_pending` or `issuer`.
    """
    folder = Path(directory).absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{quote(client_id, safe='')}.json"
    half_written = folder / f".{secrets.token_hex(8)}"
    descriptor = os.open(half_written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump({"client_id": client_id, "client_secret": secret, **extra}, file)
    half_written.replace(path)
    return str(SecretReference("file", path.parts[1:], absolute=True))
