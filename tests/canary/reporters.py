"""Those who take an exception's traceback with its local variables, each as it does by default or at its frankest."""

from __future__ import annotations

import http.client
import io
import logging
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import httpx
import sentry_sdk
import sentry_sdk.integrations
from rich.traceback import Traceback
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

__all__ = ["REPORTERS", "Sentry"]


def _standard_library(error: BaseException) -> str:
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def _logging(error: BaseException) -> str:
    return logging.Formatter().formatException((type(error), error, error.__traceback__))


def _rich(error: BaseException) -> str:
    trace = Traceback.extract(
        type(error), error, error.__traceback__, show_locals=True, locals_max_length=1000, locals_max_string=100_000,
        locals_hide_dunder=False,
    )  # fmt: skip
    frames = [frame for stack in trace.stacks for frame in stack.frames]
    return "\n".join(
        [f"{stack.exc_type} {stack.exc_value} {getattr(stack, 'notes', '')}" for stack in trace.stacks]
        + [f"{name} = {value}" for frame in frames for name, value in (frame.locals or {}).items()]
    )


def _structlog(error: BaseException) -> str:
    tracebacks = import_module("structlog.tracebacks")
    transform = tracebacks.ExceptionDictTransformer(show_locals=True, locals_max_string=10_000, locals_max_length=100)
    return repr(transform((type(error), error, error.__traceback__)))


def _loguru(error: BaseException) -> str:
    logger, sink = import_module("loguru").logger, io.StringIO()
    # Without the frames above the one that caught it, which are the test's and know the canaries.
    logger.configure(handlers=[{"sink": sink, "diagnose": True, "backtrace": False, "level": 0}])
    logger.opt(exception=error).error("a failure")
    logger.configure(handlers=[])
    return sink.getvalue()


REPORTERS: dict[str, Callable[[BaseException], str]] = {
    "the standard library": _standard_library,
    "logging": _logging,
    "rich": _rich,
    **{
        name: report
        for name, report in (("structlog", _structlog), ("loguru", _loguru))
        if find_spec(name) is not None  # not asked for by the project: where somebody has them
    },
}


class _Kept(Transport):
    """Keeps what would be sent."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.payloads: list[bytes] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.payloads += [item.get_bytes() for item in envelope.items]


class Sentry:
    """Sentry with its default settings: local variables, breadcrumbs, and every integration that finds its library."""

    def __init__(self) -> None:
        self._transport = _Kept()

    @contextmanager
    def installed(self) -> Iterator[Sentry]:
        with _undone():
            sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=self._transport)
            try:
                yield self
            finally:
                sentry_sdk.get_client().close(timeout=0)
                sentry_sdk.get_global_scope().set_client(None)

    def begin(self) -> None:
        self._transport.payloads.clear()
        sentry_sdk.get_isolation_scope().clear_breadcrumbs()

    def report(self, error: BaseException) -> Iterator[tuple[str, bytes]]:
        sentry_sdk.capture_exception(error)
        return self.sent()

    def end(self) -> Iterator[tuple[str, bytes]]:
        """With a last event, which brings the breadcrumbs along."""
        sentry_sdk.capture_message("the end")
        return self.sent()

    def sent(self) -> Iterator[tuple[str, bytes]]:
        payloads, self._transport.payloads = self._transport.payloads, []
        return (("an event", payload) for payload in payloads)


@contextmanager
def _undone() -> Iterator[None]:
    """Take off again what Sentry puts around other libraries, since it does not do so itself."""
    kinds = [threading.Thread, subprocess.Popen, http.client.HTTPConnection, ThreadPoolExecutor, logging.Logger]
    kinds += [httpx.Client, httpx.AsyncClient]
    kinds += [kind for name in ("botocore.client.BaseClient", "flask.Flask", "httpx2.Client", "httpx2.AsyncClient")
              for kind in _there(name)]  # fmt: skip
    before = [(kind, dict(vars(kind))) for kind in kinds]
    hooks = {name: getattr(sys, name) for name in ("excepthook", "unraisablehook")}
    try:
        yield
    finally:
        for kind, attributes in before:
            for name, value in attributes.items():
                if vars(kind).get(name) is not value and not name.startswith("__dict"):
                    setattr(kind, name, value)
        for name, hook in hooks.items():
            setattr(sys, name, hook)
        sentry_sdk.integrations._installed_integrations.clear()
        sentry_sdk.integrations._processed_integrations.clear()


def _there(path: str) -> Iterator[Any]:
    module, _, name = path.rpartition(".")
    if find_spec(module.partition(".")[0]) is not None:
        yield getattr(import_module(module), name)
