"""Where a secret may turn up without an object that somebody holds: logs, output, files, processes, spans."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ..stores import eventually
from .objects import shown_by

__all__ = ["Environment", "Files", "Log", "Output", "Place", "Processes", "Spans", "Threads", "Warned"]

Shown = Iterator[tuple[str, str | bytes]]


class Place(Protocol):
    """One that is watched between `watched()` and its end. `shown` tells what has turned up, and where in it."""

    def watched(self) -> AbstractContextManager[object]: ...
    def shown(self) -> Shown: ...


class Log(logging.Handler):
    """Every record of every logger, with its arguments and attributes, and the exceptions among those."""

    def __init__(self) -> None:
        super().__init__(level=0)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.exc_text = None  # as the next one would write it, too
        self.records.append(record)

    @contextmanager
    def watched(self) -> Iterator[None]:
        root = logging.getLogger()
        loggers = [root, *(one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger))]
        before = [(one, one.level, one.disabled) for one in loggers]
        alone = [one for one in loggers if not one.propagate]
        for one in loggers:
            one.setLevel(1)
            one.disabled = False
        for one in (root, *alone):
            one.addHandler(self)
        try:
            yield
        finally:
            for one in (root, *alone):
                one.removeHandler(self)
            for one, level, disabled in before:
                one.setLevel(level)
                one.disabled = disabled

    def shown(self) -> Shown:
        for record in self.records:
            where = f"a record of {record.name}, {record.levelname}"
            yield where, record.getMessage()
            yield from shown_by(vars(record), where)


class Warned:
    """What is warned of, whatever a filter would make of it."""

    def __init__(self) -> None:
        self._seen: list[warnings.WarningMessage] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as self._seen:
            warnings.simplefilter("always")
            yield

    def shown(self) -> Shown:
        for warning in self._seen:
            yield f"a {warning.category.__name__}", f"{warning.message} {warning.message!r} {warning.line}"


class Output:
    """What this process and its children write to the file descriptors 1 and 2."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    @contextmanager
    def watched(self) -> Iterator[None]:
        self._capture.readouterr()
        yield

    def shown(self) -> Shown:
        written = self._capture.readouterr()
        yield "standard output", written.out
        yield "standard error", written.err


class Files:
    """All files below a folder, which is the working directory and has the temporary files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, bytes] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        yield

    def placed(self, path: Path) -> None:
        """The test itself has put a secret there."""
        self._known[path] = b""

    def shown(self) -> Shown:
        for path in sorted(self._folder.rglob("*")):
            yield "the name of a file", path.name
            if path.is_file() and path not in self._known:
                yield f"the file {path.suffix or 'without a suffix'}", path.read_bytes()


class Processes:
    """The arguments and the environment of each child process, and of children whose /proc was read."""

    def __init__(self) -> None:
        self._seen: list[tuple[str, str | bytes]] = []
        self._expected: Callable[[str], bool] = lambda name: False

    @contextmanager
    def watched(self) -> Iterator[None]:
        start: Any = subprocess.Popen.__init__

        def started(child: Any, args: Any, *more: Any, **how: Any) -> None:
            given = how.get("env")
            self._seen.append(("the arguments of a process", os.fsencode(repr(args))))
            self._seen.append(("the environment of a process", repr(dict(os.environ if given is None else given))))
            start(child, args, *more, **how)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(subprocess.Popen, "__init__", started)
            yield

    def look_at(self, pid: int) -> None:
        """While it runs: what everybody may see of it, and what its user may."""
        proc = Path(f"/proc/{pid}")
        eventually((proc / "cmdline").read_bytes, "it does not run")  # empty for a moment
        for name, what in (("cmdline", "arguments"), ("environ", "environment"), ("comm", "name")):
            self._seen.append((f"the {what} of a running process", (proc / name).read_bytes()))

    def shown(self) -> Shown:
        yield from self._seen


class Environment:
    """What this process adds to its environment, which every child inherits."""

    def __init__(self) -> None:
        self._before: dict[str, str] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        self._before = dict(os.environ)
        yield

    def placed(self, name: str) -> None:
        """The test itself has put a secret there."""
        self._before[name] = os.environ[name]

    def shown(self) -> Shown:
        for name, value in os.environ.items():
            if self._before.get(name) != value:
                yield f"the variable {name}", value


class Threads:
    """The names of threads that run at the end."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        yield

    def shown(self) -> Shown:
        for thread in threading.enumerate():
            yield "the name of a thread", thread.name


class Spans:
    """What OpenTelemetry records of httpx, where somebody has all headers recorded."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider()
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    @property
    def tracer(self) -> Any:
        return self._provider.get_tracer("tests.canary")

    @contextmanager
    def installed(self) -> Iterator[Spans]:
        with pytest.MonkeyPatch.context() as patched:
            for side in ("REQUEST", "RESPONSE"):
                patched.setenv(f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_{side}", ".*")
            instrumentor = HTTPXClientInstrumentor()
            instrumentor.instrument(tracer_provider=self._provider)
        try:
            yield self
        finally:
            instrumentor.uninstrument()
            self._provider.shutdown()

    @contextmanager
    def watched(self) -> Iterator[None]:
        self._exporter.clear()
        yield

    def shown(self) -> Shown:
        for span in self._exporter.get_finished_spans():
            yield "a span", span.to_json()
