"""Folders as orchestrators lay them out, an ordinary user to read them, and a look into errors for a canary."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from secretsource import SecretSourceError
from secretsource.secret import Secret

CANARY = "not-a-real-secret-c4n4ry"
NOBODY_ELSE = 54321
"""A uid without an entry in the user database."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away and become another user")

needs_setfacl = pytest.mark.skipif(shutil.which("setfacl") is None, reason="setfacl is not installed")

_AS_USER = """
import json, os, sys
from secretsource import SecretReference, SecretSourceError
from secretsource.backends.file import FileBackend
from secretsource.backends.systemd import SystemdBackend
todo = json.load(sys.stdin)
# Only now: the interpreter's own modules may be closed to that user.
os.setgroups(todo["groups"]); os.setgid(todo["uid"]); os.setuid(todo["uid"])
backend = FileBackend(**todo["arguments"]) if todo["environ"] is None else SystemdBackend(todo["environ"])
reference = SecretReference.parse(todo["reference"])
try:
    if todo["write"] is None:
        document = backend.read(reference, fresh=True, timeout=5)
    else:
        stored = backend.read_whole(reference, timeout=5)
        backend.write_whole(reference, {**stored.fields, **todo["write"]}, version=stored.version, timeout=5)
        document = backend.read(reference, fresh=True, timeout=5)
except SecretSourceError as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error)}))
else:
    fields = {"": document.text} if document.text else document.fields
    print(json.dumps({name: value.reveal() for name, value in fields.items() if value is not None}))
"""


def as_user(
    reference: str,
    *,
    uid: int = NOBODY_ELSE,
    groups: tuple[int, ...] = (),
    environ: Mapping[str, str] | None = None,
    write: Mapping[str, str] | None = None,
    **arguments: Any,
) -> dict[str, str]:
    """What an ordinary user reads there: the fields, or the class and text of the error."""
    todo = {
        "reference": reference,
        "uid": uid,
        "groups": groups,
        "environ": environ,
        "write": write,
        "arguments": arguments,
    }
    child = subprocess.run(
        [sys.executable, "-c", _AS_USER],
        input=json.dumps(todo),
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        check=False,
    )
    assert child.returncode == 0, child.stderr
    answer: dict[str, str] = json.loads(child.stdout)
    return answer


def write(
    path: Path, text: str | bytes = f'{{"client_id": "pos", "client_secret": "{CANARY}"}}', mode: int = 0o600
) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def kubelet(
    folder: Path, fields: Mapping[str, str], *, mode: int = 0o644, root: int = 0o1777, state: str = "1"
) -> Path:
    """A Secret volume: the files in a dated directory, `..data` leading there, a link for each name."""
    folder.mkdir(exist_ok=True)
    folder.chmod(root)
    dated = folder / f"..2026_01_0{state}"
    dated.mkdir(mode=0o755)
    for name, value in fields.items():
        write(dated / name, value, mode)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data_tmp").symlink_to(dated.name)
    (folder / "..data_tmp").rename(folder / "..data")
    return folder


def docker(folder: Path, fields: Mapping[str, str], *, mode: int = 0o444) -> Path:
    """/run/secrets of Docker and Compose: plain files that everybody in the container may read."""
    folder.mkdir(mode=0o755)
    for name, value in fields.items():
        write(folder / name, value, mode)
    return folder


def vault_agent(folder: Path, text: str, *, mode: int = 0o640) -> Path:
    """A template that Vault Agent has rendered."""
    folder.mkdir(mode=0o755)
    return write(folder / "pos.json", text, mode)


def systemd(folder: Path, credentials: Mapping[str, str], *, mode: int = 0o400) -> Path:
    """What a unit's $CREDENTIALS_DIRECTORY names."""
    folder.mkdir(mode=0o700)
    for name, text in credentials.items():
        write(folder / name, text, mode)
    folder.chmod(0o500)
    return folder


def revealed(value: Any) -> Any:
    """The same mapping with its secrets in clear, to compare it."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Mapping):
        return {name: revealed(inner) for name, inner in value.items()}
    return [revealed(inner) for inner in value] if isinstance(value, list) else value


def shows(error: SecretSourceError, canary: str = CANARY) -> bool:
    """Whether an error, or a local of one of our frames that it came through, holds the canary."""
    assert error.__cause__ is None
    assert error.__context__ is None
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [frame for frame in trace.stack if "/secretsource/" in frame.filename]
    assert ours
    return canary in f"{error} {error!r} {vars(error)} {error.args} {[frame.locals for frame in ours]}"
