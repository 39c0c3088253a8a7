"""What pytest is told: to note which test runs which lines, to run chosen tests only, or to run them once a mutant."""

from __future__ import annotations

import _thread
import gc
import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

from .forking import in_forks
from .mutants import Mutant

__all__ = ["Chosen", "InPlace", "Noted", "KILLED", "NOT_HERE", "SURVIVED", "TIMED_OUT"]

SURVIVED, KILLED, TIMED_OUT, NOT_HERE = 0, 1, 3, 4


class Noted:
    """Writes for each test that passes how long it takes, and with `package` the lines of it that it runs."""

    def __init__(self, path: Path, package: Path | None) -> None:
        self._path = path
        self._package = package
        self._files: dict[CodeType, str | None] = {}
        self._lines: set[tuple[str, int]] = set()
        self._tests: dict[str, dict[str, Any]] = {}

    def pytest_sessionstart(self) -> None:
        if self._package is None:
            return
        threading.settrace(self._trace)
        start = _thread.start_new_thread

        def started(function: Callable[..., object], args: tuple[Any, ...], *named: Any) -> int:
            def run(*args: Any, **kwargs: Any) -> None:
                sys.settrace(self._trace)
                function(*args, **kwargs)

            return start(run, args, *named)

        _thread.start_new_thread = started

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._lines = set()
        if self._package is not None:
            sys.settrace(self._trace)
        yield
        sys.settrace(None)
        if item.nodeid in self._tests:
            self._tests[item.nodeid]["lines"] = sorted(self._lines)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self._tests[report.nodeid] = {"seconds": report.duration}

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(json.dumps(self._tests))

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        if code not in self._files:
            inside = self._package is not None and code.co_filename.startswith(str(self._package))
            self._files[code] = code.co_filename if inside else None
        if self._files[code] is None:
            return None
        self._lines.add((code.co_filename, frame.f_lineno))
        return self._trace


class _Failing:
    """Whether the first failure was a time-out."""

    timed_out = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and "Timeout (>" in report.longreprtext:
            self.timed_out = True


class Chosen(_Failing):
    """Runs these tests only, in this order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._places = {test: place for place, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self._places]
        items[:] = sorted(chosen, key=lambda item: self._places[item.nodeid])


class InPlace(_Failing):
    """Collects once, and meets each mutant in a fork in which the functions of its module are others.

    No file is changed, so that a program that a test starts sees no mutant: who survives is met again by a copy.
    """

    def __init__(
        self,
        file: str,
        mutants: Sequence[Mutant],
        tests_of: Callable[[Mutant], list[str]],
        seconds: Callable[[Mutant], float],
        note: Callable[[Mutant, int | None], object],
        at_once: int,
    ) -> None:
        self._file, self._mutants, self._at_once = file, mutants, at_once
        self._tests_of, self._seconds, self._note = tests_of, seconds, note

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}

        def meet(mutant: Mutant, _: int) -> int:
            if not _replace_functions(self._file, mutant.text):
                return NOT_HERE
            chosen = [items[test] for test in self._tests_of(mutant)]
            for item, following in zip(chosen, [*chosen[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.testsfailed:
                    return TIMED_OUT if self.timed_out else KILLED
            return SURVIVED

        gc.freeze()
        for mutant, code in in_forks(self._mutants, range(self._at_once), meet, self._seconds):
            self._note(mutant, code)
        return True


def _replace_functions(file: str, text: str) -> int:
    """Give the living functions of a module the code that they have in this text; how many are now others."""
    news: dict[tuple[str, int], CodeType] = {}

    def walk(code: CodeType) -> None:
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                news.setdefault((inner.co_qualname, inner.co_firstlineno), inner)
                walk(inner)

    walk(compile(text, file, "exec", dont_inherit=True))
    replaced = 0
    gc.unfreeze()
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and function.__code__.co_filename == file:
            code = function.__code__
            new = news.get((code.co_qualname, code.co_firstlineno), code)
            if new != code and new.co_freevars == code.co_freevars:
                function.__code__ = new
                replaced += 1
    return replaced
