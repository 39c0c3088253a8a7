"""Stands beside a program of the user's, as a process of its own, and ends it when its time or its rotator ends.

    python guard.py ROTATOR LIFELINE OUTPUT PROGRAM [ARGUMENT …]

ROTATOR is the process ID of the rotator, which has started this. Standard input is the program's, unread here. LIFELINE
is the number of a descriptor: a line there gives the seconds that the program has from then on, and its end means that
the rotator has died. What happens is said on standard output, a line each: `started PID` or `failed ERRNO`, then
`exit CODE`, `signal NUMBER` or `killed`. OUTPUT is where the program's own output goes, `discard` or `stderr`.

A rotator that was killed or suspended cannot watch its program, and a signal at its death (prctl(2)) would come at the
end of the thread that has started it. This process has one thread and nothing else to do.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOK_EVERY = 0.5  # seconds: another process may hold the other end of the lifeline by a fork


def main(rotator: int, lifeline: int, output: str, argv: list[str]) -> None:
    wakes, wake = os.pipe()
    for end in (wakes, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        program = _started(output, argv)
    except OSError as error:
        _say(f"failed {error.errno}")
        return
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # so that a program that reads nothing is a broken pipe to the rotator
    _say(f"started {program.pid}")
    _say(_watched(program, lifeline, wakes, rotator))


def _started(output: str, argv: list[str]) -> subprocess.Popen[bytes]:
    where = 2 if output == "stderr" else subprocess.DEVNULL
    # With one thread there is no lock that another one could hold at the fork.
    return subprocess.Popen(argv, stdout=where, stderr=where, process_group=0, preexec_fn=_dying_with(os.getpid()))


def _dying_with(guard: int) -> Callable[[], None]:
    """For the child of this process: to be killed when it dies, on Linux."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None

    def bind() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != guard:  # it died before that
                os._exit(1)

    return bind


def _watched(program: subprocess.Popen[bytes], lifeline: int, wakes: int, rotator: int) -> str:
    """Wait for the program's end, and bring it about where that is due. How it ended."""
    ends_at: float | None = None
    said = b""
    with selectors.DefaultSelector() as selector:
        selector.register(lifeline, selectors.EVENT_READ)
        selector.register(wakes, selectors.EVENT_READ)
        while not _has_ended(program):
            left = _LOOK_EVERY if ends_at is None else min(_LOOK_EVERY, ends_at - time.monotonic())
            ready = {key.fd for key, _ in selector.select(max(0.0, left))}
            if wakes in ready:
                os.read(wakes, 4096)
            if lifeline in ready:
                piece = os.read(lifeline, 4096)
                if not piece:
                    return _killed(program)
                said += piece
                if ends_at is None and said.endswith(b"\n"):
                    ends_at = time.monotonic() + float(said)
            if os.getppid() != rotator or (ends_at is not None and time.monotonic() >= ends_at):
                return _killed(program)
    _kill(program)  # what it has left running in its group would be a call without an end
    code = program.wait()
    return f"exit {code}" if code >= 0 else f"signal {-code}"


def _has_ended(program: subprocess.Popen[bytes]) -> bool:
    """Without taking its status, so that its number is nobody else's yet."""
    if not hasattr(os, "waitid"):  # macOS, before Python 3.13
        return program.poll() is not None
    return os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _killed(program: subprocess.Popen[bytes]) -> str:
    _kill(program)
    program.wait()
    return "killed"


def _kill(program: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, signal.SIGKILL)


def _say(line: str) -> None:
    with suppress(OSError):  # nobody listens any more
        os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
