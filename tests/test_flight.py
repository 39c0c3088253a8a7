"""Flights: one body, one result, any number of waiters, and nobody harms anybody."""

from __future__ import annotations

import _thread
import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from secretsource import flight as flight_module
from secretsource.clock import Deadline
from secretsource.errors import BackendUnavailable, DeadlineExceeded, SecretSourceError
from secretsource.events import CircuitClosed, Emitter, Event
from secretsource.flight import Flight, Flights, PerProcess, event_loop_running, ticket
from secretsource.testing.clock import TickingClock

LONG = 60.0  # never waited for: a test that gets near it has failed


class Held:
    """A body that counts its runs and holds until it is let go."""

    def __init__(self, result: object = "result") -> None:
        self.runs = 0
        self.go = threading.Event()
        self._result = result

    def __call__(self, flight: Flight[Any]) -> Any:
        self.runs += 1
        flight.phase = "connect"
        assert self.go.wait(LONG)
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result


@pytest.fixture
def held() -> Iterator[Held]:
    body = Held()
    yield body
    body.go.set()


@pytest.fixture
def flights() -> Flights[Any]:
    return Flights("token", Emitter())


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    eventually(lambda: set(threading.enumerate()) <= before, "a thread stayed behind")


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    """Threads take turns after a few steps, so that they meet where they rarely meet."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def eventually(true: Callable[[], bool], otherwise: str) -> None:
    """Threads end a moment after their result: wait for it, but not for ever."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, otherwise
        time.sleep(0.002)


def get(flights: Flights[Any], body: Callable[[Flight[Any]], Any], seconds: float = LONG, key: str = "key") -> Any:
    """What token() does."""
    deadline = Deadline(seconds)
    return flights.wait(key, flights.join(key, body, deadline), deadline)


async def aget(flights: Flights[Any], body: Callable[[Flight[Any]], Any], seconds: float = LONG) -> Any:
    deadline = Deadline(seconds)
    return await flights.wait_async("key", flights.join("key", body, deadline), deadline)


class Party:
    """Lets a body go when everybody has joined its flight, so that nobody comes too late to share it."""

    def __init__(self, flights: Flights[Any], body: Held, size: int) -> None:
        self.results: list[Any] = []
        self.errors: list[SecretSourceError] = []
        self._flights, self._body = flights, body
        self._to_come = [None] * size  # pop() counts down, and needs no lock

    def _joined(self) -> tuple[Flight[Any], Deadline]:
        deadline = Deadline(LONG)
        flight = self._flights.join("key", self._body, deadline)
        self._to_come.pop()
        if not self._to_come:
            self._body.go.set()
        return flight, deadline

    def guest(self) -> None:
        flight, deadline = self._joined()
        try:
            self.results.append(self._flights.wait("key", flight, deadline))
        except SecretSourceError as error:
            self.errors.append(error)

    async def async_guest(self) -> None:
        flight, deadline = self._joined()
        try:
            self.results.append(await self._flights.wait_async("key", flight, deadline))
        except SecretSourceError as error:
            self.errors.append(error)

    async def asyncio_guests(self, count: int) -> None:
        await asyncio.gather(*(self.async_guest() for _ in range(count)))

    async def trio_guests(self, count: int) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(self.async_guest)


def in_threads(*targets: Callable[[], object]) -> None:
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()


# --- one body


def test_64_threads_share_one_body(flights: Flights[Any], held: Held) -> None:
    party = Party(flights, held, 64)
    in_threads(*[party.guest] * 64)
    assert party.results == ["result"] * 64
    assert held.runs == 1


def test_500_asyncio_tasks_share_one_body_and_one_wake_up(
    flights: Flights[Any], held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    party = Party(flights, held, 500)
    wake_ups: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        call_soon = loop.call_soon_threadsafe

        def counted(callback: Any, *args: Any, **more: Any) -> asyncio.Handle:
            wake_ups.append(callback)
            return call_soon(callback, *args, **more)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        await party.asyncio_guests(500)

    asyncio.run(main())
    assert party.results == ["result"] * 500
    assert held.runs == 1
    assert len(wake_ups) == 1


def test_500_trio_tasks_share_one_body(flights: Flights[Any], held: Held) -> None:
    party = Party(flights, held, 500)
    trio.run(party.trio_guests, 500)
    assert party.results == ["result"] * 500
    assert held.runs == 1


def test_threads_and_several_loops_share_one_body(flights: Flights[Any], held: Held) -> None:
    party = Party(flights, held, 16 + 3 * 40)
    in_threads(
        *[party.guest] * 16,
        lambda: asyncio.run(party.asyncio_guests(40)),
        lambda: asyncio.run(party.asyncio_guests(40)),
        lambda: trio.run(party.trio_guests, 40),
    )
    assert party.results == ["result"] * 136
    assert held.runs == 1


def test_a_loop_goes_on_while_its_tasks_wait(flights: Flights[Any], held: Held) -> None:
    async def main() -> Any:
        waiting = asyncio.create_task(aget(flights, held))
        await asyncio.sleep(0)
        held.go.set()  # were the loop blocked, nobody would get here
        return await waiting

    assert asyncio.run(main()) == "result"


def test_each_key_has_its_own_flight(flights: Flights[Any], held: Held) -> None:
    waiting = flights.join("one", held, Deadline(LONG))
    assert get(flights, lambda flight: "other", key="two") == "other"
    assert not waiting.done()
    assert flights.under_way("one") is waiting
    assert flights.under_way("two") is None


def test_who_comes_after_the_landing_begins_a_new_flight(flights: Flights[Any]) -> None:
    numbers = iter(range(10))
    assert [get(flights, lambda flight: next(numbers)) for _ in range(3)] == [0, 1, 2]


def test_who_waits_for_a_landed_flight_gets_its_result_at_once(flights: Flights[Any], held: Held) -> None:
    held.go.set()
    flight = flights.join("key", held, Deadline(LONG))
    assert flights.wait("key", flight, Deadline(LONG)) == "result"
    assert flights.wait("key", flight, Deadline(0)) == "result"
    assert asyncio.run(flights.wait_async("key", flight, Deadline(0))) == "result"


def test_none_is_a_result_too(flights: Flights[Any]) -> None:
    assert get(flights, lambda flight: None) is None


def test_a_flight_with_a_larger_ticket_began_later(flights: Flights[Any], held: Held) -> None:
    before = ticket()
    flight = flights.join("key", held, Deadline(LONG))
    assert before < flight.ticket < ticket()


# --- who gives up or is cancelled takes nobody along


def test_a_waiter_that_gives_up_takes_nobody_along(flights: Flights[Any], held: Held) -> None:
    flight = flights.join("key", held, Deadline(LONG))
    with pytest.raises(DeadlineExceeded, match=r"no token within 0\.01 s; under way was: ") as caught:
        get(flights, held, seconds=0.01)
    assert caught.value.phase in ("start", "connect")
    assert flights.under_way("key") is flight
    assert flights.orphans == 0
    held.go.set()
    assert flights.wait("key", flight, Deadline(LONG)) == "result"
    assert held.runs == 1


@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), trio.run], ids=["asyncio", "trio"])
def test_a_task_that_gives_up_takes_nobody_along(flights: Flights[Any], held: Held, run: Any) -> None:
    flight = flights.join("key", held, Deadline(LONG))

    async def main() -> None:
        with pytest.raises(DeadlineExceeded):
            await aget(flights, held, seconds=0.01)

    run(main)
    held.go.set()
    assert flights.wait("key", flight, Deadline(LONG)) == "result"


@pytest.mark.parametrize("cancelled", [[0], [4], [0, 4], [0, 1, 2, 3]], ids=str)
def test_cancelled_asyncio_tasks_take_nobody_along(flights: Flights[Any], held: Held, cancelled: list[int]) -> None:
    async def main() -> list[Any]:
        tasks = [asyncio.create_task(aget(flights, held)) for _ in range(5)]
        await asyncio.sleep(0)  # all of them wait now
        for index in cancelled:
            tasks[index].cancel()
        await asyncio.sleep(0)
        held.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    results = asyncio.run(main())
    assert [index for index, result in enumerate(results) if isinstance(result, asyncio.CancelledError)] == cancelled
    assert [result for result in results if not isinstance(result, BaseException)] == ["result"] * (5 - len(cancelled))
    assert held.runs == 1


def test_a_cancelled_trio_task_takes_nobody_along(flights: Flights[Any], held: Held) -> None:
    results: list[Any] = []

    async def wait() -> None:
        results.append(await aget(flights, held))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            first = trio.CancelScope()

            async def cancelled() -> None:
                with first:
                    await wait()

            nursery.start_soon(cancelled)
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()
            await trio.testing.wait_all_tasks_blocked()
            held.go.set()

    trio.run(main)
    assert results == ["result"]
    assert held.runs == 1


def test_a_flight_that_all_have_left_serves_who_comes_next(flights: Flights[Any], held: Held) -> None:
    async def main() -> None:
        task = asyncio.create_task(aget(flights, held))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    held.go.set()
    flight = flights.under_way("key")
    assert flight is None or flights.wait("key", flight, Deadline(LONG)) == "result"
    assert held.runs == 1


@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), trio.run], ids=["asyncio", "trio"])
def test_a_loop_that_ended_meanwhile_harms_nobody(flights: Flights[Any], held: Held, run: Any) -> None:
    flight = flights.join("key", held, Deadline(LONG))

    async def give_up() -> None:
        with pytest.raises(DeadlineExceeded):
            await flights.wait_async("key", flight, Deadline(0.01))

    run(give_up)  # the flight still knows this loop, which is closed now
    threading.Timer(0.05, held.go.set).start()
    assert flights.wait("key", flight, Deadline(LONG)) == "result"


def test_asyncio_run_twice(flights: Flights[Any], held: Held) -> None:
    async def leave() -> None:
        with pytest.raises(DeadlineExceeded):
            await aget(flights, held, seconds=0.01)

    async def stay() -> Any:
        held.go.set()
        return await aget(flights, held)

    flight = flights.join("key", held, Deadline(LONG))
    asyncio.run(leave())
    assert asyncio.run(stay()) == "result"
    assert asyncio.run(stay()) == "result"
    assert flight.done()


# --- run: join and wait in one


def test_all_who_wait_for_a_flight_and_want_a_later_one_share_the_next(flights: Flights[Any], held: Held) -> None:
    first = flights.join("key", held, Deadline(LONG))
    numbers = iter(range(100))
    joined, landed = threading.Event(), threading.Event()
    late: list[Any] = []

    def later(flight: Flight[Any]) -> int:
        return next(numbers)

    async def slow_to_wake() -> None:
        waiting = [
            asyncio.create_task(flights.run_async("key", later, Deadline(LONG), after=ticket())) for _ in range(50)
        ]
        await asyncio.sleep(0)  # all of them wait for the first flight now
        joined.set()
        assert landed.wait(LONG)  # blocks the loop until the next one has come and gone
        late.extend(await asyncio.gather(*waiting))

    def in_time() -> None:
        assert joined.wait(LONG)
        held.go.set()
        late.append(flights.run("key", later, Deadline(LONG), after=ticket()))
        landed.set()

    in_threads(in_time, lambda: asyncio.run(slow_to_wake()))
    assert flights.wait("key", first, Deadline(0)) == "result"
    assert late == [0] * 51


def test_a_call_that_wants_a_later_flight_joins_one_that_began_after_it(flights: Flights[Any], held: Held) -> None:
    mark = ticket()
    flights.join("key", held, Deadline(LONG))
    held.go.set()
    assert flights.run("key", held, Deadline(LONG), after=mark) == "result"


def test_a_flight_may_last_longer_than_the_call_that_began_it(flights: Flights[Any], held: Held) -> None:
    with pytest.raises(DeadlineExceeded, match=r"within 0\.01 s"):
        flights.run("key", held, Deadline(0.01), lasting=Deadline(LONG))
    assert flights.orphans == 0
    held.go.set()
    flight = flights.under_way("key")
    assert flight is None or flights.wait("key", flight, Deadline(LONG)) == "result"
    assert held.runs == 1


def test_a_later_flight_is_not_waited_for_beyond_the_deadline(flights: Flights[Any], held: Held) -> None:
    flights.join("key", held, Deadline(LONG))
    with pytest.raises(DeadlineExceeded, match=r"within 0\.01 s"):
        flights.run("key", held, Deadline(0.01), after=ticket())
    with pytest.raises(DeadlineExceeded, match=r"within 0\.01 s"):
        asyncio.run(flights.run_async("key", held, Deadline(0.01), after=ticket()))
    assert held.runs <= 1


# --- failures


def test_a_failure_is_a_new_exception_for_each_waiter(flights: Flights[Any]) -> None:
    failure = BackendUnavailable("the store is down", store="vault", status=503, retry_after=2.0, hint="Wait")
    body = Held(failure)
    party = Party(flights, body, 8 + 8)
    in_threads(*[party.guest] * 8, lambda: asyncio.run(party.asyncio_guests(8)))
    assert party.results == []
    assert len({id(error) for error in [failure, *party.errors]}) == 17
    for error in party.errors:
        assert type(error) is BackendUnavailable
        assert vars(error) == vars(failure)
        assert str(error) == "the store is down. Wait"
        assert (error.__cause__, error.__context__) == (None, None)
        # From the waiter to result(), and not into the body, whose frames hold more than facts.
        assert [step.name for step in traceback.extract_tb(error.__traceback__)][-1] == "result"
    assert len({id(error.__traceback__) for error in party.errors}) == 16


def test_a_plug_ins_error_that_is_made_in_another_way_reaches_everybody(flights: Flights[Any]) -> None:
    class ShopClosed(BackendUnavailable):
        def __init__(self, shop: str, *, until: int) -> None:
            super().__init__(f"the shop {shop} is closed until {until}")

    def body(flight: Flight[Any]) -> Any:
        raise ShopClosed("Ghent", until=9)

    with pytest.raises(ShopClosed, match="the shop Ghent is closed until 9"):
        get(flights, body, seconds=30)


class Unusual(BaseException):
    pass


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, TimeoutError, Unusual])
def test_whatever_a_body_raises_everybody_is_resolved_and_its_text_does_not_leak(
    flights: Flights[Any], kind: type[BaseException]
) -> None:
    body = Held(kind("s3cr3t"))
    party = Party(flights, body, 4 + 4)
    in_threads(*[party.guest] * 4, lambda: asyncio.run(party.asyncio_guests(4)))
    assert len(party.errors) == 8
    for error in party.errors:
        assert type(error) is SecretSourceError
        assert f"unexpected {kind.__name__} at " in str(error)
        assert "while getting a token" in str(error)
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        assert "s3cr3t" not in shown + repr(vars(error))
    assert flights.under_way("key") is None


# --- bodies that outlive their time


def test_a_body_that_outlives_its_time_is_given_up_by_the_first_waiter(flights: Flights[Any], held: Held) -> None:
    with pytest.raises(DeadlineExceeded, match=r"within 0\.01 s; under way was: "):
        get(flights, held, seconds=0.01)
    assert flights.under_way("key") is None
    assert get(flights, lambda flight: "next") == "next"
    held.go.set()
    eventually(lambda: flights.orphans == 0, "the orphan is counted although its thread has ended")


def hang(flights: Flights[Any], body: Held, key: str = "key") -> None:
    """Begin a flight whose body runs, and give it up."""
    clock = TickingClock()
    runs = body.runs
    flight = flights.join(key, body, Deadline(1, clock))
    eventually(lambda: body.runs > runs, "the body does not begin")
    clock.tick(1)
    with pytest.raises(DeadlineExceeded, match="no token within 1 s; under way was: connect"):
        flights.wait(key, flight, Deadline(LONG, clock))


def test_an_orphan_is_counted_until_its_thread_ends(flights: Flights[Any], held: Held) -> None:
    hang(flights, held)
    assert flights.orphans == 1
    held.go.set()
    eventually(lambda: flights.orphans == 0, "the orphan is counted although its thread has ended")


def test_an_orphan_is_counted_once_however_many_give_it_up(flights: Flights[Any], frequent_switches: None) -> None:
    def four_give_up(key: int) -> None:
        body, clock, barrier = Held(), TickingClock(), threading.Barrier(4)
        deadline = Deadline(1, clock)
        flight = flights.join(key, body, deadline)
        eventually(lambda: body.runs == 1, "the body does not begin")
        clock.tick(1)
        errors: list[DeadlineExceeded] = []

        def give_up() -> None:
            barrier.wait(LONG)
            try:
                flights.wait(key, flight, deadline)
            except DeadlineExceeded as error:
                errors.append(error)

        in_threads(*[give_up] * 4)
        assert len(errors) == 4
        assert flights.orphans == 1
        body.go.set()
        eventually(lambda: flights.orphans == 0, "the orphan does not end")

    for key in range(20):
        four_give_up(key)


def test_nobody_who_comes_later_waits_for_an_orphan(flights: Flights[Any], held: Held) -> None:
    clock = TickingClock()
    flights.join("key", held, Deadline(1, clock))
    eventually(lambda: held.runs == 1, "the body does not begin")
    clock.tick(1)
    # No waiter noticed: who comes next does.
    assert get(flights, lambda flight: "next") == "next"
    assert flights.orphans == 1


def test_what_an_orphan_brings_at_last_reaches_nobody(flights: Flights[Any], held: Held) -> None:
    hang(flights, held)
    other = Held("other")
    flight = flights.join("key", other, Deadline(LONG))
    held.go.set()
    eventually(lambda: flights.orphans == 0, "the orphan does not end")
    assert flights.under_way("key") is flight
    assert not flight.done()
    other.go.set()
    assert flights.wait("key", flight, Deadline(LONG)) == "other"


def test_four_orphans_refuse_a_fifth_until_one_ends(flights: Flights[Any], held: Held) -> None:
    last = Held()
    for number in range(3):
        hang(flights, held, f"key {number}")
    hang(flights, last, "last")
    with pytest.raises(
        DeadlineExceeded, match="4 earlier attempts still hang after their deadline, in: connect"
    ) as caught:
        get(flights, held, key="fifth")
    assert caught.value.phase == "connect"
    assert caught.value.hint
    last.go.set()
    eventually(lambda: flights.orphans == 3, "the orphan does not end")
    assert get(flights, lambda flight: "again", key="fifth") == "again"


def test_a_flight_under_way_is_joined_beside_four_orphans(flights: Flights[Any], held: Held) -> None:
    flight = flights.join("good", held, Deadline(LONG))
    eventually(lambda: held.runs == 1, "the body does not begin")
    for number in range(4):
        hang(flights, held, f"key {number}")
    assert flights.join("good", held, Deadline(LONG)) is flight


def test_a_body_that_has_not_begun_when_it_is_given_up_never_runs(
    flights: Flights[Any], held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[Callable[[], object]] = []
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", lambda run, args: late.append(lambda: run(*args)))
        with pytest.raises(DeadlineExceeded, match="under way was: start"):
            get(flights, held, seconds=0.01)
    assert flights.orphans == 0
    in_threads(*late)
    assert held.runs == 0


def test_who_comes_while_a_flight_is_being_given_up_begins_a_new_one(flights: Flights[Any], held: Held) -> None:
    clock = TickingClock()
    flight = flights.join("key", held, Deadline(1, clock))
    clock.tick(1)
    assert flight.claim()  # by a waiter that a signal interrupts right here
    assert get(flights, lambda flight: "next") == "next"


# --- no thread, signals, forks, shutdown


@pytest.mark.parametrize("refusal", [RuntimeError("can't start new thread"), MemoryError()], ids=["Runtime", "Memory"])
def test_where_no_thread_can_be_started_the_body_runs_here_or_the_flight_fails(
    flights: Flights[Any], monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    def refuse(*args: object) -> int:
        raise refusal

    def body(flight: Flight[Any]) -> str:
        return f"in {threading.current_thread().name}"

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    deadline = Deadline(LONG)
    flight = flights.join("key", body, deadline, here=True)
    assert flights.wait("key", flight, deadline) == f"in {threading.current_thread().name}"
    assert flights.under_way("key") is None

    with pytest.raises(SecretSourceError, match="no thread can be started") as caught:
        get(flights, body)
    assert caught.value.retryable
    assert flights.under_way("key") is None
    assert flights.orphans == 0

    monkeypatch.undo()
    assert get(flights, lambda flight: "again") == "again"


def test_a_signals_code_joins_the_flight_that_the_main_thread_waits_for(flights: Flights[Any], held: Held) -> None:
    seen: list[bool] = []
    results: list[Any] = []

    def on_signal(number: int, frame: object) -> None:
        if seen:
            return
        flight = flights.under_way("key")
        deadline = Deadline(LONG)
        joined = flights.join("key", held, deadline)
        seen.append(joined is flight)
        results.append(flights.wait("key", joined, deadline))

    def body(flight: Flight[Any]) -> Any:
        # More than once: Python does not notice a signal that comes right before it blocks on a lock.
        while not seen:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.02)
        held.go.set()
        return held(flight)

    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        results.append(get(flights, body))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [True]
    assert results == ["result", "result"]
    assert held.runs == 1


def test_a_signals_code_starts_the_flight_that_it_finds_published_but_not_started(
    flights: Flights[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = _thread.start_new_thread
    results: list[Any] = []
    runs: list[int] = []

    def body(flight: Flight[Any]) -> str:
        runs.append(1)
        return "result"

    def interrupted(run: Callable[..., object], args: tuple[Any, ...]) -> int:
        monkeypatch.setattr(_thread, "start_new_thread", start)
        results.append(get(flights, body, seconds=30))  # a signal's code, right before the start
        return start(run, args)

    monkeypatch.setattr(_thread, "start_new_thread", interrupted)
    results.append(get(flights, body, seconds=30))
    assert results == ["result", "result"]
    assert len(runs) == 1


def script(source: str) -> list[str]:
    """The lines that a Python of its own prints. Its warnings about forks beside threads are expected."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split()


def test_a_forked_child_meets_no_flight_of_its_parent() -> None:
    lines = script(
        """
        import os, sys, threading
        from secretsource.clock import Deadline
        from secretsource.events import Emitter
        from secretsource.flight import Flights, PerProcess

        flights = Flights("token", Emitter())
        own = PerProcess(list)
        own.get().append("parent")
        begun, go = threading.Event(), threading.Event()
        results = []

        def body(flight):
            begun.set()
            assert go.wait(30)
            return "parent"

        def wait():
            deadline = Deadline(30)
            results.append(flights.wait("key", flights.join("key", body, deadline), deadline))

        threads = [threading.Thread(target=wait) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert begun.wait(30)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert flights.under_way("key") is None
                assert flights.orphans == 0
                assert own.get() == []
                deadline = Deadline(30)
                assert flights.wait("key", flights.join("key", lambda flight: "child", deadline), deadline) == "child"
                grandchild = os.fork()
                if grandchild == 0:
                    assert flights.wait("key", flights.join("key", lambda flight: "g", deadline), deadline) == "g"
                    os._exit(0)
                status = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])
            finally:
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        assert flights.under_way("key") is not None
        assert own.get() == ["parent"]
        go.set()
        for thread in threads:
            thread.join(30)
        print(*results)
        """
    )
    assert lines == ["0", *["parent"] * 8]


def test_a_flight_begun_at_shutdown_lands() -> None:
    lines = script(
        """
        import atexit
        from secretsource.clock import Deadline
        from secretsource.events import Emitter
        from secretsource.flight import Flights

        flights = Flights("token", Emitter())

        @atexit.register
        def last():
            deadline = Deadline(30)
            print(flights.wait("key", flights.join("key", lambda flight: "landed", deadline, here=True), deadline))
        """
    )
    assert lines == ["landed"]


def test_a_program_ends_although_a_flight_hangs() -> None:
    lines = script(
        """
        import threading
        from secretsource.clock import Deadline
        from secretsource.events import Emitter
        from secretsource.flight import Flights

        begun = threading.Event()
        Flights("token", Emitter()).join("key", lambda flight: begun.set() or threading.Event().wait(600), Deadline(1))
        assert begun.wait(30)
        print("end")
        """
    )
    assert lines == ["end"]


def test_a_short_wait_lasts_until_the_landing_or_its_deadline(
    flights: Flights[Any], held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight_module, "_SLICE", LONG)
    with pytest.raises(DeadlineExceeded):
        get(flights, held, seconds=0.05)
    assert held.runs == 1
    held.go.set()
    eventually(lambda: flights.orphans == 0, "it did not land")
    slow = Held()
    threading.Timer(0.2, slow.go.set).start()
    assert get(flights, slow, seconds=0.9) == "result"


@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), trio.run], ids=["asyncio", "trio"])
def test_a_landed_flight_is_waited_for_by_a_task_no_more(flights: Flights[Any], run: Any) -> None:
    flight = flights.join("key", lambda flight: "result", Deadline(LONG))
    flight.wait(Deadline(LONG))

    async def main() -> bool:
        return await flight.wait_async(Deadline(LONG))

    assert run(main) is True


def test_a_loop_keeps_no_timer_of_a_flight_that_has_landed(flights: Flights[Any], held: Held) -> None:
    timers: list[asyncio.TimerHandle] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        call_later = loop.call_later

        def called(*arguments: Any, **named: Any) -> asyncio.TimerHandle:
            timers.append(call_later(*arguments, **named))
            return timers[-1]

        loop.call_later = called  # type: ignore[method-assign, assignment]
        threading.Timer(0.1, held.go.set).start()
        await aget(flights, held)

    asyncio.run(main())
    assert [timer.cancelled() for timer in timers] == [True]


def test_who_asks_again_in_the_thread_that_began_a_flight_starts_no_other(
    flights: Flights[Any], held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[None] = []
    start = _thread.start_new_thread

    def counted(*arguments: Any) -> int:
        started.append(None)
        return start(*arguments)

    monkeypatch.setattr(_thread, "start_new_thread", counted)
    flights.join("key", held, Deadline(LONG))
    flights.join("key", held, Deadline(LONG))
    assert len(started) == 1
    held.go.set()
    assert get(flights, held) == "result"


@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), trio.run], ids=["asyncio", "trio"])
def test_where_no_thread_can_be_started_a_call_runs_the_body_and_a_task_does_not(
    flights: Flights[Any], run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    def body(flight: Flight[Any]) -> str:
        return "result"

    monkeypatch.setattr(flight_module, "_start_thread", refuse)
    assert flights.run("key", body, Deadline(LONG)) == "result"

    async def main() -> object:
        try:
            return await flights.run_async("key", body, Deadline(LONG))
        except SecretSourceError as error:
            return str(error)

    assert "no thread can be started" in run(main)


def test_the_next_flight_is_run_where_no_thread_can_be_started_too(
    flights: Flights[Any], held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise MemoryError

    flights.join("key", held, Deadline(LONG))
    monkeypatch.setattr(flight_module, "_start_thread", refuse)
    threading.Timer(0.1, held.go.set).start()
    assert flights.run("key", lambda flight: "next", Deadline(LONG), after=ticket()) == "next"


@pytest.mark.parametrize("run", [lambda main: asyncio.run(main()), trio.run], ids=["asyncio", "trio"])
@pytest.mark.parametrize("later", [False, True])
def test_a_flight_lasts_as_long_as_it_is_told_or_as_its_first_call(
    flights: Flights[Any], run: Any, later: bool
) -> None:
    lasts: list[float] = []

    def body(flight: Flight[Any]) -> str:
        lasts.append(flight.deadline.seconds)
        return "result"

    def lasting(seconds: float | None) -> dict[str, Any]:
        earlier = flights.join("key", lambda flight: time.sleep(0.05), Deadline(LONG)) if later else None
        return {
            "lasting": None if seconds is None else Deadline(seconds),
            "after": 0 if earlier is None else ticket(),
        }

    for seconds in (None, 50.0):
        flights.run("key", body, Deadline(40.0), **lasting(seconds))

        async def main(seconds: float | None = seconds) -> None:
            await flights.run_async("key", body, Deadline(40.0), **lasting(seconds))

        run(main)
    assert lasts == [40.0, 40.0, 50.0, 50.0]


def test_who_comes_while_a_flight_is_about_to_land_gets_its_result(flights: Flights[Any], held: Held) -> None:
    deadline = Deadline(0.05)
    flight = flights.join("key", held, deadline)
    assert flight.claim()
    threading.Timer(0.2, lambda: flight.land("result", None)).start()
    assert flights.wait("key", flight, deadline) == "result"


def test_a_waiter_that_comes_at_the_landing_is_woken_once(held: Held) -> None:
    flight: Flight[str] = Flight(Deadline(LONG))
    woken: list[None] = []
    flight.land("result", None)
    flight._when_done(lambda: woken.append(None))
    assert (woken, flight._waking) == ([None], [])


class TakenMeanwhile(list[Any]):
    """Those to be woken, of whom another thread has just taken the last."""

    def pop(self, *_: Any) -> Any:
        self.clear()
        raise IndexError

    def remove(self, _: Any) -> None:
        raise ValueError


def test_a_waiter_that_another_thread_has_just_taken_is_left_to_it() -> None:
    flight: Flight[str] = Flight(Deadline(LONG))
    flight._waking = TakenMeanwhile([pytest.fail])
    flight.land("result", None)
    assert flight.done()
    flight._when_done(lambda: pytest.fail("it is the other thread's"))


def test_an_unforeseen_error_is_told_by_its_innermost_place(flights: Flights[Any]) -> None:
    def body(flight: Flight[Any]) -> None:
        def inner() -> None:
            raise KeyError

        inner()

    with pytest.raises(SecretSourceError, match=rf"KeyError at {__name__}:\d+") as caught:
        get(flights, body)
    line = int(str(caught.value).partition(f"{__name__}:")[2].split()[0])
    source = Path(__file__).read_text().splitlines()
    assert source[line - 1].strip() == "raise KeyError"


# --- events, and what stays


def test_events_come_in_order_after_the_result_is_out() -> None:
    seen: list[tuple[str, bool, Any]] = []
    release = threading.Event()

    def hook(event: Event) -> None:
        assert release.wait(LONG)  # a slow hook keeps no waiter
        seen.append((event.source, flight.done(), flights.under_way("key")))

    flights: Flights[Any] = Flights("token", Emitter(hook))
    go = threading.Event()

    def body(flight: Flight[Any]) -> str:
        assert go.wait(LONG)
        flight.events += [CircuitClosed("one"), CircuitClosed("two")]
        return "result"

    flight = flights.join("key", body, Deadline(LONG))
    go.set()
    assert flights.wait("key", flight, Deadline(LONG)) == "result"
    assert seen == []
    release.set()
    eventually(lambda: len(seen) == 2, "an event is missing")
    assert seen == [("one", True, None), ("two", True, None)]


def test_events_of_a_failed_flight_come_too() -> None:
    seen: list[Event] = []
    flights: Flights[Any] = Flights("token", Emitter(seen.append))

    def body(flight: Flight[Any]) -> str:
        flight.events.append(CircuitClosed("one"))
        raise BackendUnavailable("down")

    with pytest.raises(BackendUnavailable):
        get(flights, body)
    eventually(lambda: seen == [CircuitClosed("one")], "an event is missing")


def test_a_hook_may_begin_a_flight_of_the_same_key() -> None:
    flights: Flights[Any]
    seen: list[Any] = []

    def hook(event: Event) -> None:
        seen.append(get(flights, lambda flight: "from the hook"))

    flights = Flights("token", Emitter(hook))

    def body(flight: Flight[Any]) -> str:
        flight.events.append(CircuitClosed("one"))
        return "result"

    assert get(flights, body) == "result"
    eventually(lambda: seen == ["from the hook"], "the hook is not done")


def test_a_thread_that_logged_is_forgotten_when_it_has_ended(flights: Flights[Any]) -> None:
    before = set(threading.enumerate())

    def body(flight: Flight[Any]) -> threading.Thread:
        return threading.current_thread()  # as logging does; enters a thread that threading did not start

    ours = [get(flights, body) for _ in range(5)]
    eventually(lambda: set(threading.enumerate()) <= before, "a thread is listed for ever")
    assert not before & set(ours)


@pytest.mark.parametrize("slow", [False, True], ids=["at once", "after a switch"])
def test_no_wake_up_is_lost(flights: Flights[Any], slow: bool, frequent_switches: None) -> None:
    def body(flight: Flight[Any]) -> str:
        if slow:
            time.sleep(0)
        return "result"

    def thread() -> None:
        for _ in range(150):
            results.append(get(flights, body))

    async def tasks() -> None:
        for _ in range(50):
            results.extend(await asyncio.gather(*(aget(flights, body) for _ in range(3))))

    async def trio_tasks() -> None:
        for _ in range(50):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(trio_task)

    async def trio_task() -> None:
        results.append(await aget(flights, body))

    results: list[str] = []
    in_threads(thread, thread, thread, lambda: asyncio.run(tasks()), lambda: trio.run(trio_tasks))
    assert results == ["result"] * (3 * 150 + 2 * 150)


# --- where it runs


def test_it_knows_whether_an_event_loop_runs_in_this_thread() -> None:
    async def main() -> bool:
        return event_loop_running()

    async def beside() -> bool:
        return await asyncio.to_thread(event_loop_running)

    assert not event_loop_running()
    assert asyncio.run(main())
    assert trio.run(main)
    assert not asyncio.run(beside())
    assert not event_loop_running()


@pytest.mark.parametrize("there", [None, types.ModuleType("half imported")])
def test_where_no_loop_was_ever_imported_none_runs(
    there: types.ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("asyncio", "trio"):
        monkeypatch.delitem(sys.modules, name)
    if there is not None:
        monkeypatch.setitem(sys.modules, "trio", there)
    assert event_loop_running() is False


def test_a_value_per_process_is_one_for_all_threads() -> None:
    value: PerProcess[list[int]] = PerProcess(list)
    barrier = threading.Barrier(16)
    seen: list[list[int]] = []

    def ask() -> None:
        barrier.wait(LONG)
        seen.append(value.get())

    in_threads(*[ask] * 16)
    assert len({id(one) for one in seen}) == 1
