"""A writer that is killed at any step leaves the old file or the new one, whole, and nothing that stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from secretsource import SecretReference
from secretsource.backends.file import FileBackend
from secretsource.secret import Secret

from ..backends.layouts import NOBODY_ELSE, grant, write
from .outcomes import ROOT, outcome

KILLED = """
import json, os, signal, sys
from secretsource import SecretReference
from secretsource.backends.file import FileBackend
from secretsource.secret import Secret

EFFECTS = ("open", "fchmod", "fchown", "write", "fsync", "rename", "unlink", "setxattr", "removexattr")
path, mode, first = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "first"
reference = SecretReference.parse(f"file://{path}")


def killed(step, after):
    left = [step]

    def wrap(real):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = real(*args, **kwargs)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return done
        return call

    for name in EFFECTS:
        if hasattr(os, name):
            setattr(os, name, wrap(getattr(os, name)))
    backend = FileBackend()
    stored = backend.read_whole(reference, timeout=5)
    backend.write_whole(reference, {"client_secret": Secret("new")}, version=stored.version, timeout=5)
    os._exit(0)


def look():
    folder = os.path.dirname(path)
    beside = sorted(name for name in os.listdir(folder) if name not in ("secret", ".secret.lock"))
    modes = [os.stat(f"{folder}/{name}").st_mode & 0o777 for name in beside]
    if not os.path.exists(path):
        return [None, None, modes]
    with open(path) as file:
        return [file.read().strip(), os.stat(path).st_mode & 0o777, modes]


FileBackend().read_whole(reference, timeout=5)
left = []
step, ended = 0, False
while not ended and step < 200:
    step += 1
    for after in (False, True):
        if os.path.exists(path):
            os.unlink(path)
        if not first:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write("old")
            os.chmod(path, mode)
        child = os.fork()
        if child == 0:
            killed(step, after)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        left.append(look())
print(json.dumps(left))
"""


@pytest.mark.parametrize("first", [True, False], ids=["a-new-file", "one-that-is-there"])
def test_a_writer_killed_at_any_step_leaves_a_whole_file_and_what_the_next_one_removes(
    folder: Path, first: bool
) -> None:
    path = folder / "secret"
    child = subprocess.run(
        [sys.executable, "-c", KILLED, path, str(0o400), "first" if first else "there"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
    )
    assert child.returncode == 0, child.stderr
    left = json.loads(child.stdout)
    old = (None, None) if first else ("old", 0o400)
    new = ("new", 0o600) if first else ("new", 0o400)
    assert {(text, mode) for text, mode, _ in left} == {old, new}
    assert any(beside for *_, beside in left), "no step is known to leave something"
    assert all(len(beside) <= 1 and set(beside) <= {0o600, 0o400} for *_, beside in left)
    assert left[-1] == [*new, []], "the last one was not killed, and has removed what the others left"
    assert len(left) > 20


def test_what_a_killed_writer_left_goes_and_what_only_looks_like_it_stays(folder: Path) -> None:
    left = write(folder / ".secret.0123456789ab.new", "half")
    others = [".secret.new", ".secret.0123456789aB.new", ".secret.x.0123456789ab.new", ".other.0123456789ab.new"]
    for name in others:
        write(folder / name, "theirs")
    where = SecretReference.parse(f"file://{folder}/secret")
    FileBackend().write_whole(where, {"client_secret": Secret("new")}, version=None, timeout=5)
    assert not left.exists()
    assert {each.name for each in folder.iterdir()} == {"secret", ".secret.lock", *others}


@pytest.mark.parametrize("mode", [None, 0o600, 0o640])
def test_a_default_acl_of_the_directory_lets_nobody_into_the_new_file(folder: Path, mode: int | None) -> None:
    """With mode 0640 the entries that the new file inherits would take effect."""
    path = folder / "secret"
    if mode is not None:
        write(path, "old", mode)
        os.chown(path, -1, os.getegid())
        if outcome(path, "private") != "read old":
            pytest.skip("our group is not ours alone")
    grant(folder, users={NOBODY_ELSE: 7}, default=True)
    where = SecretReference.parse(f"file://{path}")
    backend = FileBackend()
    stored = backend.read_whole(where, timeout=5)
    backend.write_whole(where, {"client_secret": Secret("new")}, version=stored.version, timeout=5)
    assert "system.posix_acl_access" not in os.listxattr(path)
    assert path.stat().st_mode & 0o777 == (mode or 0o600)
    assert outcome(path, "private") == "read new"
