"""Folders as orchestrators lay them out, an ordinary user to read them, and a look into errors for a canary."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import struct
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from secretsource import SecretReference, SecretSourceError
from secretsource.backends.file import FileBackend
from secretsource.backends.systemd import SystemdBackend
from secretsource.secret import Secret

CANARY = "not-a-real-secret-c4n4ry"
NOBODY_ELSE = 54321
"""A uid without an entry in the user database."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away and become another user")

needs_setfacl = pytest.mark.skipif(shutil.which("setfacl") is None, reason="setfacl is not installed")


def by(uid: int, groups: Sequence[int], action: Callable[[], Any]) -> Any:
    """What another user gets of an action, as JSON has it, in a process that is forked for it and ends in a minute."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other tests' threads may be there; it needs none of them
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            os.setgroups(groups)
            os.setgid(uid)
            os.setuid(uid)
            answer = {"done": action()}
        except BaseException:
            answer = {"failed": traceback.format_exc()}
        with open(writing, "w", encoding="utf-8") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    assert text, "it has waited for something"
    answer = json.loads(text)
    assert "done" in answer, answer["failed"]
    return answer["done"]


def as_user(
    reference: str,
    *,
    uid: int = NOBODY_ELSE,
    groups: Sequence[int] = (),
    environ: Mapping[str, str] | None = None,
    write: Mapping[str, str] | None = None,
    **arguments: Any,
) -> dict[str, str]:
    """What an ordinary user reads there: the fields, or the class and text of the error."""

    def action() -> dict[str, str]:
        backend = FileBackend(**arguments) if environ is None else SystemdBackend(environ)
        where = SecretReference.parse(reference)
        try:
            if write is not None:
                assert isinstance(backend, FileBackend)
                stored = backend.read_whole(where, timeout=5)
                backend.write_whole(where, {**stored.fields, **write}, version=stored.version, timeout=5)
            document = backend.read(where, fresh=True, timeout=5)
        except SecretSourceError as error:
            return {"error": type(error).__name__, "text": str(error)}
        fields = {"": document.text} if document.text else document.fields
        return {name: value.reveal() for name, value in fields.items() if isinstance(value, Secret)}

    answer: dict[str, str] = by(uid, groups, action)
    return answer


def write(
    path: Path, text: str | bytes = f'{{"client_id": "pos", "client_secret": "{CANARY}"}}', mode: int = 0o600
) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def grant(
    path: Path,
    *,
    users: Mapping[int, int] | None = None,
    groups: Mapping[int, int] | None = None,
    default: bool = False,
) -> Path:
    """Give this path a POSIX ACL that adds these users and groups, as setfacl -m does, but without that program."""
    mode, nobody = path.stat().st_mode, 0xFFFFFFFF
    owner, group, everybody = (mode >> shift & 7 for shift in (6, 3, 0))
    entries = [(0x01, owner, nobody), (0x04, group, nobody), (0x20, everybody, nobody)]
    entries += [(0x02, bits, uid) for uid, bits in (users or {}).items()]
    entries += [(0x08, bits, gid) for gid, bits in (groups or {}).items()]
    mask = 0
    for tag, bits, _ in entries:
        mask |= bits if tag in (0x02, 0x04, 0x08) else 0
    packed = [struct.pack("<HHI", *entry) for entry in sorted([*entries, (0x10, mask, nobody)])]
    if sys.platform != "linux":
        pytest.skip("POSIX ACLs are set here as Linux keeps them")
    try:
        os.setxattr(
            path, f"system.posix_acl_{'default' if default else 'access'}", struct.pack("<I", 2) + b"".join(packed)
        )
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
            raise
        pytest.skip("this file system keeps no ACLs")
    return path


def kubelet(
    folder: Path, fields: Mapping[str, str], *, mode: int = 0o644, root: int | None = None, state: str = "1"
) -> Path:
    """A Secret volume: the files in a dated directory, `..data` leading there, a link for each name.

    `root` is the mode of the mount; the kubelet's is sticky, and root's, which only root can lay out.
    """
    folder.mkdir(exist_ok=True)
    folder.chmod(root or (0o1777 if os.geteuid() == 0 else 0o755))
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
