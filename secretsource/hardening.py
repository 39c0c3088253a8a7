"""Keeping what a process holds from core dumps, and from other processes of the same user."""

from __future__ import annotations

import sys
from contextlib import suppress

__all__ = ["harden_process"]

_PR_SET_DUMPABLE = 4


def harden_process() -> frozenset[str]:
    """Have nothing of this process written or read from outside; returns which measures hold now.

    "no core dump" (POSIX): none is written, nor for a program that this one starts. "not dumpable" (Linux, prctl(2)):
    no debugger of the same user attaches, /proc shows its memory and environment to root alone, and no program on the
    machine is handed a dump. Forked children stay so; a program that is executed does not. Root is not held off.
    """
    measures = set()
    with suppress(ImportError, OSError, ValueError):  # no POSIX, or not allowed to
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        measures.add("no core dump")
    if sys.platform == "linux":
        with suppress(ImportError, OSError, AttributeError):
            import ctypes

            if ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0:
                measures.add("not dumpable")
    return frozenset(measures)
