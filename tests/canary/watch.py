"""Watch: does things with canaries, and searches every place for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import pytest

from secretsource import TokenSource
from secretsource.errors import SecretSourceError
from secretsource.testing import TickingClock

from ..stores import Events
from .canaries import PLAIN, Canaries, Shape
from .objects import shown_by
from .places import Environment, Files, Log, Output, Place, Processes, Spans, Threads, Warned
from .reporters import REPORTERS, Sentry

__all__ = ["Leaked", "Watch"]

_HERE = Path(__file__).parent

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)


class Leaked(AssertionError):
    """A canary has turned up. Says which by its name, where, and how it is written; never its value."""

    def __init__(self, canary: str, place: str, where: str, encoding: str) -> None:
        super().__init__(f"the canary {canary!r} is in {where} ({place}; {encoding})")
        self.canary, self.place, self.encoding = canary, place, encoding


class Watch:
    """Watches all places from its beginning to its end. `folder` is the working directory.

    `events` is a hook; what it is given is searched at the end.
    """

    def __init__(self, folder: Path, output: Output, sentry: Sentry, spans: Spans) -> None:
        self.folder = folder
        self.events = Events()
        self._canaries = Canaries()
        self._sentry = sentry
        self.spans, self.log, self.files = spans, Log(), Files(folder)
        self.processes, self.environment = Processes(), Environment()
        self.places: dict[str, Place] = {
            "log": self.log,
            "warning": Warned(),
            "output": output,
            "file": self.files,
            "process": self.processes,
            "environment": self.environment,
            "thread": Threads(),
            "span": spans,
        }

    # --- canaries, and where they may be

    def canary(self, name: str, shape: Shape = PLAIN) -> str:
        """A new one. Whoever puts it into a file or a variable does so by the methods below."""
        return self._canaries.new(name, shape)

    def canary_of(self, name: str, value: str) -> str:
        """One that a server has made."""
        return self._canaries.add(name, value)

    def put(self, name: str, content: str | bytes, mode: int = 0o600) -> Path:
        """A file with a secret in it. Its path."""
        path = self.folder / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        path.chmod(mode)
        self.files.placed(path)
        return path

    def setenv(self, name: str, value: str) -> None:
        """A variable with a secret in it, which the fixture takes away again."""
        self._patched.setenv(name, value)
        self.environment.placed(name)

    def source(self, credentials: Any, **settings: Any) -> TokenSource:
        """A source whose events are searched, by a clock that does not wait."""
        return TokenSource(credentials, **{"on_event": self.events, "clock": TickingClock(), **settings})

    # --- what is done

    def gives(self, work: Callable[[], T]) -> T:
        """It succeeds, and what it returns shows nothing."""
        return self.look(work())

    def fails(self, kind: type[E], work: Callable[[], object], *, frames: bool = True) -> E:
        """It fails with this kind of error, which shows nothing.

        `frames=False` for what is no secret where it belongs: it may hang on an object that a frame has, and is not
        printed with it.
        """
        error = _outcome(work)
        assert isinstance(error, kind), f"{type(error).__name__} instead of {kind.__name__}"
        if isinstance(error, SecretSourceError):
            assert (error.__cause__, error.__context__) == (None, None), "another exception hangs on it"
        return self.look(error, frames=frames)

    def ends(self, work: Callable[[], object]) -> object:
        """It ends in one way or the other, which shows nothing."""
        return self.look(_outcome(work))

    def look(self, one: T, *, frames: bool = True) -> T:
        """Search an object, and with an exception those who report it."""
        name = type(one).__name__
        self._search("object", shown_by(one, name, frames=frames))
        if isinstance(one, BaseException):
            self._search("traceback", ((f"{name} by {by}", report(one)) for by, report in REPORTERS.items()))
            self._search("Sentry", self._sentry.report(one))
        return one

    def write(self, text: str) -> str:
        """Search what a command wrote."""
        self._search("output", [("what was written", text)])
        return text

    # --- from beginning to end

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        self._sentry.begin()
        with ExitStack() as stack:
            self._patched = stack.enter_context(pytest.MonkeyPatch.context())
            for place in self.places.values():
                stack.enter_context(place.watched())
            yield self
            self.search()

    def search(self) -> None:
        """Every place, for what has come until now."""
        for name, place in self.places.items():
            self._search(name, place.shown())
        self._search("event", (shown for event in list(self.events) for shown in shown_by(event, "an event")))
        self._search("Sentry", self._sentry.end())

    def _search(self, place: str, shown: Iterable[tuple[str, str | bytes]]) -> None:
        found = next(
            ((hit, where) for where, text in shown if (hit := self._canaries.found_in(text)) is not None), None
        )
        if found is not None:
            hit, where = found
            raise Leaked(hit.canary, place, where, hit.encoding) from None


def _outcome(work: Callable[[], object]) -> object:
    try:
        return work()
    except BaseException as error:
        # Without the frames of the test itself, which know the canaries.
        while error.__traceback__ is not None and _is_of_the_test(error.__traceback__):
            error.__traceback__ = error.__traceback__.tb_next
        return error


def _is_of_the_test(trace: TracebackType) -> bool:
    return Path(trace.tb_frame.f_code.co_filename).is_relative_to(_HERE)
