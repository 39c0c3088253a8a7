"""The command as users run it: a process, at a terminal or not."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from secretsource.cli import main

CANARY = "c4n4ry-not-a-real-secret"
PATIENCE = 60.0
"""Seconds that a test waits for a process on a busy machine, before it gives up."""

_WHERE = Path(__file__).parents[2]
# As in a shell: the tests themselves may be started with the signal ignored, as background jobs are.
_WITH_SIGINT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
_RUN = "import sys; from secretsource.cli import main; sys.exit(main(sys.argv[1:]))\n"
# A session leader without a terminal gets the one that it opens.
_AT_TERMINAL = "import os, sys; os.close(os.open(sys.argv.pop(1), os.O_RDWR))\n"

WITHOUT_RICH = "import sys; sys.modules['rich'] = None\n"


class Ran(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    usual = {name: value for name, value in os.environ.items() if name not in ("PYTHONUNBUFFERED", "NO_COLOR")}
    return {**usual, "PYTHONPATH": str(_WHERE), "PYTHONIOENCODING": "utf-8", "TERM": "xterm", **variables}


def command(*arguments: str, before: str = "") -> list[str]:
    if before:
        return [sys.executable, "-c", before + _RUN, *arguments]
    return [sys.executable, "-m", "secretsource", *arguments]


def process(*arguments: str, text: str = "", before: str = "", **variables: str) -> Ran:
    """Run the command as a process; `before` is Python that goes before it."""
    ended = subprocess.run(
        command(*arguments, before=before),
        input=text,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        env=environment(**variables),
        check=False,
    )
    return Ran(ended.returncode, ended.stdout, ended.stderr)


@contextmanager
def started(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The command, to be interrupted; it is killed if it is still there at the end."""
    child = subprocess.Popen(
        command(*arguments, before=_WITH_SIGINT),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment(**variables),
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def called(*arguments: str, text: str | bytes = "") -> Ran:
    """Call the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    given = io.TextIOWrapper(io.BytesIO(text if isinstance(text, bytes) else text.encode()), encoding="utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdin", given)
        code = main(list(arguments))
    return Ran(code, out.getvalue(), err.getvalue())


class Terminal:
    """The command at a pseudo-terminal, which is its controlling one: what is typed and what is seen."""

    def __init__(self, *arguments: str, before: str = "", **variables: str) -> None:
        self._master, slave = pty.openpty()
        self.seen = ""
        code = _AT_TERMINAL + _WITH_SIGINT + before + _RUN
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-c", code, os.ttyname(slave), *arguments],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=environment(COLUMNS="200", **variables),
                start_new_session=True,
            )
        finally:
            os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        while text not in self.seen:
            assert self._read(), f"ended before {text!r} was seen: {self.seen!r}"

    def end(self) -> Ran:
        """Wait for the end, and give the code and everything that was seen."""
        while self._read():
            pass
        return Ran(self._child.wait(PATIENCE), self.seen, "")

    def _read(self) -> bool:
        until = time.monotonic() + PATIENCE
        ready, _, _ = select.select([self._master], [], [], until - time.monotonic())
        assert ready, f"nothing more was seen after {self.seen!r}"
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # Linux: the last process has left the terminal
            return False
        self.seen += piece.decode("utf-8", "replace")
        return bool(piece)


def plug_in(folder: Path, store: str, code: str) -> str:
    """Install a plug-in for this store: a class `Store` in a module of its own. Returns the folder for the path."""
    module = f"plug_in_for_{store.replace('-', '_')}"
    (folder / f"{module}.py").write_text(code)
    metadata = folder / f"{module}-1.2.3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.2.3\n")
    (metadata / "entry_points.txt").write_text(f"[secretsource.backends]\n{store} = {module}:Store\n")
    return str(folder)


def private(path: Path, content: Mapping[str, Any] | str) -> str:
    """Write a file of mode 0600, and return its reference."""
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(0o600)
    return f"file://{path}"
