"""Work in forks: so many at once, each with a limit of time, and nothing of it left running."""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

__all__ = ["in_forks"]

Task = TypeVar("Task")
Slot = TypeVar("Slot")


def in_forks(
    tasks: Sequence[Task], slots: Sequence[Slot], work: Callable[[Task, Slot], int], seconds: Callable[[Task], float]
) -> Iterator[tuple[Task, int | None]]:
    """Each task with the exit code that `work` gave in a fork, None where its time was over. A slot is used by one."""
    waiting, free = list(reversed(tasks)), list(slots)
    running: dict[int, tuple[Task, Slot, float]] = {}
    try:
        while waiting or running:
            while free and waiting:
                task, slot = waiting.pop(), free.pop()
                child = os.fork()
                if not child:
                    _work(lambda task=task, slot=slot: work(task, slot))  # type: ignore[misc]
                running[child] = task, slot, time.monotonic() + seconds(task)
            time.sleep(0.005)
            for child, (task, slot, end) in list(running.items()):
                done, status = os.waitpid(child, os.WNOHANG)
                if done or time.monotonic() > end:
                    del running[child]
                    free.append(slot)
                    yield task, os.waitstatus_to_exitcode(status) if done else None
                    _end(child, reaped=bool(done))
    finally:
        for child in running:
            _end(child)


def _work(work: Callable[[], int]) -> None:
    code = 70
    try:
        os.setsid()
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _end(group: int, *, reaped: bool = False) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    if not reaped:
        os.waitpid(group, 0)
