"""One body, one result, any number of waiters: threads, asyncio and trio tasks.

A body is a synchronous function that runs on a thread of its own. Whoever asks for the same key while it runs waits
for the same result, each with a deadline of its own; who gives up or is cancelled takes nobody along. Nothing here
holds a lock while a body, a waiter or a callback runs, so that a signal's code may join a flight that it interrupted,
and nothing of a parent process is met after a fork.
"""

from __future__ import annotations

import _thread
import itertools
import os
import sys
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from .clock import SYSTEM_CLOCK, Clock, Deadline
from .errors import DeadlineExceeded, SecretSourceError
from .events import Emitter, Event

__all__ = ["Flight", "Flights", "PerProcess", "event_loop_running", "in_time", "ticket"]

T = TypeVar("T")

_ORPHANS_AT_MOST = 4
_SLICE = 1.0
_MOMENT = 0.02
_tickets = itertools.count(1)
_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def ticket() -> int:
    """A number that grows: a flight with a larger one began after this call."""
    return next(_tickets)


def event_loop_running() -> bool:
    """Whether an event loop runs in this thread, so that waiting here would stop it."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return True
    return _trio_here() is not None


def _trio_here() -> Any:
    """The trio module, if the caller is a trio task: in trio's guest mode an asyncio loop runs there as well."""
    trio = sys.modules.get("trio")
    try:
        return trio if trio is not None and trio.lowlevel.in_trio_task() else None
    except AttributeError:  # half imported
        return None


class PerProcess(Generic[T]):
    """A value that is made anew in each forked child: no lock, flight or socket of the parent is met there.

    Its number and the count of forks tell whose it is: uWSGI forks without telling Python, and a process may get the
    number of an ancestor.
    """

    __slots__ = ("_make", "_values")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: dict[tuple[int, int], T] = {}

    def get(self) -> T:
        process = os.getpid(), _forks
        value = self._values.get(process)
        if value is None:
            # setdefault decides between threads without a lock, which a fork could leave locked.
            value = self._values.setdefault(process, self._make())
        return value


class Flight(Generic[T]):
    """One run of a body. Its result, or the facts of its failure, go to every waiter.

    The body notes in `phase` what it is doing, and in `events` what happened; they are delivered when it has landed.
    """

    __slots__ = (
        "_beginning",
        "_ending",
        "_loops",
        "_outcome",
        "_waking",
        "deadline",
        "events",
        "next",
        "phase",
        "started",
        "starter",
        "ticket",
    )

    def __init__(self, deadline: Deadline) -> None:
        self.ticket = ticket()
        self.deadline = deadline
        self.phase = "start"
        self.events: list[Event] = []
        self.next: Flight[T] | None = None  # the one that those share who waited for this one and want a later one
        self.starter = _thread.get_ident()
        self.started = False
        self._beginning = threading.Lock()
        self._ending = threading.Lock()
        self._outcome: tuple[T | None, SecretSourceError | None] | None = None
        self._waking: list[Callable[[], object]] = []
        self._loops: dict[object, Any] = {}

    def done(self) -> bool:
        return self._outcome is not None

    def result(self) -> T:
        """What the body returned. Its failure is raised as a new exception each time, made from the stored facts."""
        assert self._outcome is not None, "the flight is not done"
        value, failure = self._outcome
        if failure is not None:
            raise failure.again()
        return value  # type: ignore[return-value] # only a failure has no value

    def begin(self) -> bool:
        """True for the one caller that is to run the body, or sees to it that nobody will."""
        return self._beginning.acquire(blocking=False)

    def claim(self) -> bool:
        """True for the one caller that is to end this flight."""
        return self._ending.acquire(blocking=False)

    def land(self, value: T | None, failure: SecretSourceError | None) -> None:
        """Set the outcome and wake everybody; only for who has claimed it."""
        self._outcome = (value, failure)
        while self._waking:
            try:
                wake = self._waking.pop()
            except IndexError:  # a waiter took its own
                break
            wake()

    def wait(self, deadline: Deadline) -> bool:
        """Block this thread until the flight is done or one of the two deadlines is over; say whether it is done."""
        return self.wait_seconds(self._time_for(deadline))

    def wait_seconds(self, seconds: float) -> bool:
        if not self.done():
            gate = _thread.allocate_lock()
            gate.acquire()
            self._when_done(gate.release)
            # In slices: CPython does not notice a signal that arrives right before a thread blocks on a lock, and
            # runs its handler when the wait is over.
            while seconds > 0 and not gate.acquire(timeout=min(seconds, _SLICE)):
                seconds -= _SLICE
        return self.done()

    async def wait_async(self, deadline: Deadline) -> bool:
        """The same for a task, whose loop goes on meanwhile."""
        if self._outcome is not None:
            return True
        trio = _trio_here()
        event = self._event_in_asyncio() if trio is None else self._event_in_trio(trio)
        if trio is not None:
            with trio.move_on_after(self._time_for(deadline)):
                await event.wait()
        elif deadline.ends_at >= self.deadline.ends_at:
            await event.wait()  # a timer of the loop sets it when the flight's time is over
        else:
            with suppress(TimeoutError):
                async with sys.modules["asyncio"].timeout(deadline.left()):
                    await event.wait()
        return self._outcome is not None

    def _time_for(self, deadline: Deadline) -> float:
        return min(deadline.left(), self.deadline.left())

    def _when_done(self, wake: Callable[[], object]) -> None:
        self._waking.append(wake)
        if self.done():
            try:
                self._waking.remove(wake)
            except ValueError:  # the landing thread has it
                return
            wake()

    def _event_in_asyncio(self) -> Any:
        asyncio = sys.modules["asyncio"]
        loop = asyncio.get_running_loop()
        event = self._loops.get(loop)
        if event is None:
            event = self._loops[loop] = asyncio.Event()  # no race: a loop runs on one thread
            # One timer for all who have at least as much time as the flight.
            timer = loop.call_later(self.deadline.left(), event.set)

            def wake() -> None:
                event.set()
                timer.cancel()

            self._when_done(lambda: _in_loop(loop.call_soon_threadsafe, wake))
        return event

    def _event_in_trio(self, trio: Any) -> Any:
        token = trio.lowlevel.current_trio_token()
        event = self._loops.get(token)
        if event is None:
            event = self._loops[token] = trio.Event()
            self._when_done(lambda: _in_loop(token.run_sync_soon, event.set))
        return event


def _in_loop(call_soon: Callable[[Callable[[], object]], object], wake: Callable[[], object]) -> None:
    """Wake all tasks of a loop at once: a thousand that wait for one flight cost their loop one call."""
    # The loop may be closed, and nobody waits in it; trio's RunFinishedError is a RuntimeError, too.
    with suppress(RuntimeError):
        call_soon(wake)


class Flights(Generic[T]):
    """The flights under way of one owner, by key. `name` says in messages what they are for."""

    def __init__(self, name: str, emitter: Emitter) -> None:
        self._name = name
        self._emitter = emitter
        self._by_key: PerProcess[dict[Hashable, Flight[T]]] = PerProcess(dict)
        self._running: PerProcess[dict[int, Flight[T]]] = PerProcess(dict)

    @property
    def orphans(self) -> int:
        """Threads that still run although the time of their flight is over."""
        return len(self._hanging())

    def under_way(self, key: Hashable) -> Flight[T] | None:
        """The flight for this key. One whose time is over is ended here, and its thread let go."""
        flight = self._by_key.get().get(key)
        if flight is not None and (flight.deadline.over() or sys.is_finalizing()):
            # Where uWSGI has no threads, ours stand still between two requests, and land if they are let go on.
            if not event_loop_running():
                flight.wait_seconds(_MOMENT)
            self._give_up(key, flight)
            flights = self._by_key.get()
            if flights.get(key) is flight:  # who claimed it has been interrupted just there
                flights.pop(key, None)
            return None
        return flight

    def join(
        self, key: Hashable, body: Callable[[Flight[T]], T], deadline: Deadline, *, here: bool = False
    ) -> Flight[T]:
        """The flight for this key, begun now if there is none.

        Keys are tuples or strings, whose comparison runs no Python code. Where no thread can be started (at
        interpreter shutdown, at the limit of threads), `here=True` runs the body in this one; else the flight fails.
        Raises DeadlineExceeded when four earlier threads still hang.
        """
        flight = self.under_way(key)
        if flight is None:
            hanging = self._hanging()
            if len(hanging) >= _ORPHANS_AT_MOST:
                raise self._too_many_orphans(hanging)
            flight = self._by_key.get().setdefault(key, Flight(deadline))
        # Not only if the flight is new: a signal's code may have interrupted this thread right before it started it.
        if not flight.started and flight.starter == _thread.get_ident():
            try:
                # Not threading.Thread: its start() waits until the new thread has run.
                _start_thread(self._run_apart, key, flight, body)
                flight.started = True
            except (RuntimeError, MemoryError):
                # At its very end an interpreter imports nothing any more, and httpx does so for each request.
                self._run(key, flight, body if here and sys.meta_path else _no_thread)
        return flight

    def run(
        self,
        key: Hashable,
        body: Callable[[Flight[T]], T],
        deadline: Deadline,
        *,
        lasting: Deadline | None = None,
        after: int = 0,
    ) -> T:
        """The result of the flight for this key: one under way, or one begun here.

        The caller waits until its `deadline`; a flight begun here lasts until `lasting`. One with a ticket not larger
        than `after` is waited for, and another one follows it.
        """
        flight = self.join(key, body, lasting or deadline, here=True)
        while flight.wait(deadline) and flight.ticket <= after:
            if flight.next is None:
                flight.next = self.join(key, body, lasting or deadline, here=True)
            flight = flight.next
        return self._result(key, flight, deadline)

    async def run_async(
        self,
        key: Hashable,
        body: Callable[[Flight[T]], T],
        deadline: Deadline,
        *,
        lasting: Deadline | None = None,
        after: int = 0,
    ) -> T:
        """The same for a task of asyncio or trio."""
        flight = self.join(key, body, lasting or deadline)
        while await flight.wait_async(deadline) and flight.ticket <= after:
            if flight.next is None:
                flight.next = self.join(key, body, lasting or deadline)
            flight = flight.next
        return self._result(key, flight, deadline)

    def wait(self, key: Hashable, flight: Flight[T], deadline: Deadline) -> T:
        """The flight's result, or its failure, or DeadlineExceeded."""
        flight.wait(deadline)
        return self._result(key, flight, deadline)

    async def wait_async(self, key: Hashable, flight: Flight[T], deadline: Deadline) -> T:
        """The same for a task of asyncio or trio."""
        await flight.wait_async(deadline)
        return self._result(key, flight, deadline)

    def _run_apart(self, key: Hashable, flight: Flight[T], body: Callable[[Flight[T]], T]) -> None:
        try:
            self._run(key, flight, body)
        finally:
            _leave_no_dummy()

    def _run(self, key: Hashable, flight: Flight[T], body: Callable[[Flight[T]], T]) -> None:
        if not flight.begin():
            return
        running = self._running.get()
        running[id(flight)] = flight
        value: T | None = None
        failure: SecretSourceError | None = None
        try:
            value = body(flight)
        except SecretSourceError as error:
            failure = error.again()  # without the traceback, whose frames hold more than facts
        except BaseException as error:
            failure = _unexpected(self._name, error)
        del running[id(flight)]  # before it lands, since a running flight with an outcome is an orphan
        self._end(key, flight, value, failure)
        self._emitter.emit(flight.events)

    def _end(self, key: Hashable, flight: Flight[T], value: T | None, failure: SecretSourceError | None) -> None:
        if flight.claim():
            # Before it lands: who comes after that begins a new one. Nobody else replaces this entry.
            self._by_key.get().pop(key, None)
            flight.land(value, failure)

    def _give_up(self, key: Hashable, flight: Flight[T]) -> None:
        flight.begin()  # a body that has not begun by now never will
        self._end(key, flight, None, self._deadline_exceeded(flight, flight.deadline))

    def _hanging(self) -> list[Flight[T]]:
        return [flight for flight in self._running.get().copy().values() if flight.done()]

    def _result(self, key: Hashable, flight: Flight[T], deadline: Deadline) -> T:
        if not flight.done() and flight.deadline.ends_at <= deadline.ends_at:
            self._give_up(key, flight)
            flight.wait_seconds(1.0)  # whoever claimed it is about to land it
        if not flight.done():
            raise self._deadline_exceeded(flight, deadline)
        return flight.result()

    def _deadline_exceeded(self, flight: Flight[T], deadline: Deadline) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"no {self._name} within {deadline.seconds:g} s; under way was: {flight.phase}",
            phase=flight.phase,
            hint="timeout= gives it more time; secretsource check shows step by step what is slow",
        )

    def _too_many_orphans(self, hanging: list[Flight[T]]) -> DeadlineExceeded:
        phases = sorted({flight.phase for flight in hanging})
        return DeadlineExceeded(
            f"no {self._name} is tried: {_ORPHANS_AT_MOST} earlier attempts still hang after their deadline, "
            f"in: {', '.join(phases)}",
            phase=phases[0],
            hint="They end when the peer or the name server answers or lets go",
        )


def in_time(call: Callable[[float], T], timeout: float, phase: str, clock: Clock = SYSTEM_CLOCK) -> T:
    """What the call gives, which is told how many seconds it has and is waited for no longer, whatever it does.

    Raises what it raises, and DeadlineExceeded.
    """

    def body(flight: Flight[T]) -> T:
        flight.phase = phase
        return call(flight.deadline.left())

    return Flights[T]("answer", Emitter()).run("call", body, Deadline(timeout, clock))


def _start_thread(target: Callable[..., None], *arguments: object) -> None:
    if sys.is_finalizing():  # Python before 3.12 starts one, which never runs
        raise RuntimeError("the interpreter is shutting down")
    _thread.start_new_thread(target, arguments)


def _no_thread(flight: Flight[Any]) -> Any:
    raise SecretSourceError(
        "no thread can be started: the interpreter is shutting down, or the limit of threads is reached",
        retryable=True,
    )


def _leave_no_dummy() -> None:
    """Take this thread out of threading.enumerate(), as its last act.

    Python before 3.13 keeps for ever what threading.current_thread() (and so logging) enters there for a thread that
    threading did not start.
    """
    if sys.version_info < (3, 13):
        active = vars(threading).get("_active", {})
        if isinstance(active.get(_thread.get_ident()), threading._DummyThread):
            active.pop(_thread.get_ident(), None)


def _unexpected(name: str, error: BaseException) -> SecretSourceError:
    """Type and place of an error that nobody foresaw; its text may hold a secret."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    place = "" if step is None else f" at {step.tb_frame.f_globals.get('__name__')}:{step.tb_lineno}"
    return SecretSourceError(
        f"unexpected {type(error).__name__}{place} while getting a {name}",
        hint="Its text is left out, since it may hold a secret; this is a bug of secretsource or of a plug-in",
    )
