from __future__ import annotations

import threading

import pytest

from secretsource.clock import Clock, Deadline
from secretsource.testing import TickingClock


def test_it_is_a_clock() -> None:
    clock: Clock = TickingClock()
    assert clock.monotonic() == clock.now().monotonic


def test_it_stands_still_until_it_is_moved() -> None:
    clock = TickingClock()
    assert clock.now() == clock.now()


def test_a_tick_moves_all_three_clocks() -> None:
    clock = TickingClock()
    before = clock.now()
    clock.tick(2.5)
    assert [after - old for after, old in zip(clock.now(), before, strict=True)] == [2.5, 2.5, 2.5]


def test_a_suspended_machine_stops_only_the_monotonic_clock() -> None:
    clock = TickingClock()
    before = clock.now()
    clock.suspend(60)
    assert [after - old for after, old in zip(clock.now(), before, strict=True)] == [0, 60, 60]


def test_setting_the_wall_clock_moves_no_other() -> None:
    clock = TickingClock()
    before = clock.now()
    clock.set_wall(-3600)
    assert [after - old for after, old in zip(clock.now(), before, strict=True)] == [0, 0, -3600]


def test_a_sleep_returns_at_once_and_later_and_is_noted() -> None:
    clock = TickingClock()
    deadline = Deadline(5, clock)
    clock.sleep(2)
    clock.sleep(3)
    assert deadline.over()
    assert clock.sleeps == [2, 3]


def test_it_does_not_go_back() -> None:
    clock = TickingClock()
    for move in (clock.tick, clock.suspend, clock.sleep):
        with pytest.raises(ValueError, match="do not go back"):
            move(-1)
    assert clock.sleeps == []


def test_no_tick_of_many_threads_is_lost() -> None:
    clock = TickingClock()
    before = clock.monotonic()

    def tick_often() -> None:
        for _ in range(500):
            clock.tick()

    threads = [threading.Thread(target=tick_often) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.monotonic() - before == 4000
