"""An issuer that a program of the user's can change.

The program is given `{"client_id": …, "client_secret": …}` on standard input. It reads that to its end before it does
anything; where it gets nothing, or something that is no whole JSON document, it does nothing. Its exit status is the
answer: 0, sent and accepted; 65, refused and nothing has changed (EX_DATAERR of sysexits.h); anything else, a signal
included, and it is not known whether the secret has changed. It may be run again with a secret that it has set before,
and with the old one, which puts that back.

It runs in a process group of its own, which is killed when its time is over, when it has ended, and when the rotator
dies. In its environment are PATH, HOME, the language, and what is given; the secret is neither there nor in an
argument.
"""

from __future__ import annotations

import errno
import json
import os
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from ...backends.access import shown, user_name
from ...clock import Deadline, checked_seconds
from ...errors import ConfigurationError, forgetting
from ...secret import Secret
from ..outcome import Adapter, Applied, Capabilities, Client, Outcome, Preflight, Refused, Unknown
from .places import check_platform, exchangeable

__all__ = ["Command"]

_REFUSED = 65
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
_STARTS_WITHIN = 10.0
_ENDS_WITHIN = 5.0
_GUARD = str(Path(__file__).with_name("guard.py"))

_OUTPUTS = ("discard", "stderr")


class Command(Adapter):
    """Runs a program that has the issuer accept a secret; see above for what it is given and what it answers.

    `program`: its path or name, or a list of that and its arguments. A relative path begins in `folder`, where the
    program runs; a name is looked for in PATH. Neither it nor a folder above it may be writable by others. `slots`,
    `propagation` and `landing` are the issuer's (see `Capabilities`). `environment` is added to the program's.
    `output`: what it writes is discarded, or goes to our standard error, also if it is the secret. ConfigurationError.
    """

    @forgetting
    def __init__(
        self,
        program: str | Sequence[str],
        *,
        slots: int | None = 1,
        propagation: float = 5.0,
        landing: float = 30.0,
        environment: Mapping[str, str] | None = None,
        output: Literal["discard", "stderr"] = "discard",
        folder: str | None = None,
    ) -> None:
        argv = (program,) if isinstance(program, str) else tuple(program)
        if not argv or not all(isinstance(each, str) and "\0" not in each for each in argv) or not argv[0]:
            raise ConfigurationError("program= is no program", hint="Write a path, or a list of a path and arguments")
        if output not in _OUTPUTS:
            raise ConfigurationError("output= is not known", hint=f"It is one of {', '.join(_OUTPUTS)}")
        if slots is not None and (isinstance(slots, bool) or not isinstance(slots, int) or slots < 1):
            raise ConfigurationError("slots= is a whole number above 0")
        variables = dict(environment or {})
        if not all(isinstance(each, str) and "\0" not in each for pair in variables.items() for each in pair):
            raise ConfigurationError("environment= is a table of texts")
        self._argv = argv
        self._environment = variables
        self._output = output
        self._folder = os.path.abspath(folder) if folder else os.getcwd()
        self._found: str | None = None
        self._run: _Run | None = None
        self._capabilities = Capabilities(
            chosen=True,
            slots=slots,
            propagation=checked_seconds("propagation", propagation, zero=True),
            landing=checked_seconds("landing", landing, zero=True),
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        """Whether there is such a program, and nobody else can change it. It is not run. ConfigurationError."""
        self._located()
        return Preflight()

    def prepare(self, client: Client) -> None:
        """Start the program: it waits for its input. ConfigurationError where it does not start."""
        if self._run is None or self._run.has_ended():
            self.close()
            self._run = self._started()

    def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Outcome:
        """Give it the secret, and wait for its end."""
        if deadline.over():
            self.close()
            return Unknown("no time was left; the program was given nothing")
        self.prepare(client)
        run, self._run = self._run, None
        assert run is not None
        try:
            return run.fed(client.client_id, secret, deadline)
        finally:
            run.close()

    def close(self) -> None:
        """Kill a program that waits for its input."""
        run, self._run = self._run, None
        if run is not None:
            run.close()

    def _started(self) -> _Run:
        if not sys.executable or not os.path.isfile(_GUARD) or getattr(sys, "frozen", False):
            raise ConfigurationError(
                "the adapter command needs a Python interpreter to watch the program, and there is none",
                hint="Run secretsource from an ordinary installation",
            )
        variables = {name: os.environ[name] for name in _KEPT if name in os.environ}
        return _Run([self._located(), *self._argv[1:]], self._output, {**variables, **self._environment}, self._folder)

    def _located(self) -> str:
        """The program's path, the same each time. ConfigurationError where there is none, or others may change it."""
        check_platform("the adapter command")
        name = self._argv[0]
        path = self._found
        if path is None and "/" in name:
            path = os.path.join(self._folder, name)
        elif path is None:
            folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
            path = shutil.which(name, path=os.pathsep.join(each for each in folders if os.path.isabs(each)))
        if path is None or not os.path.exists(path):
            raise ConfigurationError(
                f"there is no program {shown(name)} {'in PATH' if path is None else f'at {shown(path)}'}",
                hint='Write the path of one; arguments are further items: program = ["PATH", "ARGUMENT"]',
            )
        _check_unalterable(path)  # which stays as it is: what is behind a link may look at its own name
        if not os.path.isfile(path) or not os.access(path, os.X_OK):
            raise ConfigurationError(f"{shown(path)} cannot be executed", hint=f"Run chmod u+x {shown(path)}")
        _check_startable(path)
        self._found = path
        return path


def _check_unalterable(path: str) -> None:
    """Who can exchange the program is given the secret. Raises ConfigurationError."""
    status = os.stat(path)
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"the program {shown(path)} belongs to {user_name(status.st_uid)}, who may exchange it",
            hint="Use a program of root's or of the user that runs secretsource",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):  # with an ACL the group's bits are the most that it gives
        raise ConfigurationError(
            f"the program {shown(path)} can be changed by others (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"Run chmod go-w {shown(path)}",
        )
    violation, failure = None, ""
    try:
        violation = exchangeable(path)
    except OSError as error:
        failure = f"{os.strerror(error.errno or 0).lower()} on the way to it"
    if failure:
        raise ConfigurationError(f"whether others can exchange the program {shown(path)} cannot be told: {failure}")
    if violation is not None:
        raise ConfigurationError(f"the program {shown(path)} can be exchanged: {violation.seen}", hint=violation.repair)


class _Run:
    """One run of the program, from its start on, with the guard beside it."""

    def __init__(self, argv: Sequence[str], output: str, environment: Mapping[str, str], folder: str) -> None:
        pipes = [os.pipe() for _ in range(3)]
        (stdin, self._stdin), (self._report, said), (lifeline, self._lifeline) = pipes
        self._open = [self._stdin, self._report, self._lifeline]
        guard = _guarded(argv, output, environment, folder, (stdin, said, lifeline))
        for fd in (stdin, said, lifeline):
            os.close(fd)
        if isinstance(guard, OSError):
            for fd in list(self._open):
                self._shut(fd)
            raise ConfigurationError(
                f"the program {shown(argv[0])} cannot be started in {shown(folder)} "
                f"({errno.errorcode.get(guard.errno or 0, '?')})",
                hint="Is the folder there, and may this user have further processes?",
            )
        self._guard = guard
        os.set_blocking(self._stdin, False)
        self._said = b""
        self._program = 0
        self._begin(argv[0])

    def has_ended(self) -> bool:
        return self._line(0.0) is not None

    def fed(self, client_id: str, secret: Secret, deadline: Deadline) -> Outcome:
        """What came of it, once it was given the secret."""
        ended = self._line(0.0)
        if ended is not None:
            return Refused(f"the program ended before it was given the secret ({_in_words(ended)})")
        with suppress(BrokenPipeError):
            os.write(self._lifeline, f"{deadline.left():.3f}\n".encode())
        whole = _write(self._stdin, client_id, secret, deadline)
        self._shut(self._stdin)
        ended = self._line(deadline.left() + _ENDS_WITHIN)
        if ended in (None, "killed"):
            return Unknown(f"the program did not end within {deadline.seconds:g} s, and was killed")
        if not whole and ended == "exit 0":
            return Unknown("the program has not read its input, and says that it is done")
        if ended == "exit 0":
            return Applied()
        if ended == f"exit {_REFUSED}":
            return Refused("the program says that it was refused, and that nothing has changed")
        return Unknown(f"the program does not say whether it was done ({_in_words(ended)})")

    def close(self) -> None:
        """End whatever is left of it."""
        for fd in list(self._open):
            if fd != self._report:
                self._shut(fd)
        # The end of its lifeline has the guard kill the program; should the guard be dead or held, we do.
        with suppress(subprocess.TimeoutExpired):
            self._guard.wait(_ENDS_WITHIN)
        if self._guard.poll() is None or self._line(0.0) is None:
            for group in (self._program, self._guard.pid):
                if group:
                    with suppress(ProcessLookupError, PermissionError):
                        os.killpg(group, signal.SIGKILL)
        self._guard.wait()
        self._shut(self._report)

    def _begin(self, path: str) -> None:
        word, _, number = (self._line(_STARTS_WITHIN) or "").partition(" ")
        if word == "started":
            self._program = int(number)
            return
        self.close()
        why = errno.errorcode.get(int(number), number) if word == "failed" else "what watches it does not run"
        raise ConfigurationError(
            f"the program {shown(path)} cannot be started ({why})",
            hint="Is it executable, and has a script its #! line?",
        )

    def _line(self, seconds: float) -> str | None:
        """What the guard says of the end, after what it has said of the start; None where nothing is said in time."""
        ends_at = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._report, selectors.EVENT_READ)
            while b"\n" not in self._said:
                if not selector.select(max(0.0, ends_at - time.monotonic())):
                    return None
                piece = os.read(self._report, 4096)
                self._said += piece or b"lost\n"
        line, _, rest = self._said.partition(b"\n")
        if line.startswith(b"started"):
            self._said = rest
        return line.decode("ascii", "replace")

    def _shut(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            os.close(fd)


def _guarded(
    argv: Sequence[str], output: str, environment: Mapping[str, str], folder: str, ends: tuple[int, int, int]
) -> subprocess.Popen[bytes] | OSError:
    stdin, said, lifeline = ends
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", _GUARD, str(os.getpid()), str(lifeline), output, *argv],
            stdin=stdin,
            stdout=said,
            stderr=subprocess.DEVNULL if output == "discard" else None,
            pass_fds=(lifeline,),
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    except OSError as error:
        return error


def _write(fd: int, client_id: str, secret: Secret, deadline: Deadline) -> bool:
    """Write all of it, as fast as it is read; whether it was taken. What is written is no local of any frame here."""
    written = 0
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_WRITE)
        while written < len(_document(client_id, secret)):
            if not selector.select(deadline.left()):
                return False
            try:
                written += os.write(fd, _document(client_id, secret)[written:])
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return False
    return True


def _document(client_id: str, secret: Secret) -> bytes:
    return json.dumps({"client_id": client_id, "client_secret": secret.reveal()}).encode()


def _in_words(ended: str) -> str:
    word, _, number = ended.partition(" ")
    if word == "exit":
        return f"exit status {number}"
    if word == "signal":
        with suppress(ValueError):
            return f"ended by {signal.Signals(int(number)).name}"
    return "what watches it has ended" if word == "lost" else ended


def _check_startable(path: str) -> None:
    """Raise ConfigurationError for what the system would not start, before anything else is done."""
    try:
        with open(path, "rb") as file:
            first = file.readline(512)
    except OSError:
        return  # it may be executed and not read
    if first.startswith(b"#!"):
        words = first[2:].split()
        if not words or not os.access(words[0], os.X_OK):
            raise ConfigurationError(
                f"{shown(path)} names an interpreter in its first line that is not there", hint="Correct that line"
            )
    elif sys.platform == "linux" and not first.startswith(b"\x7fELF"):
        raise ConfigurationError(
            f"{shown(path)} does not begin as a program does", hint="Begin a script with #!/bin/sh"
        )
