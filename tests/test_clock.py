"""Three clocks, and deadlines."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretsource.clock import SYSTEM_CLOCK, Deadline, Instant
from secretsource.testing.clock import TickingClock

seconds = st.floats(0, 1e6)


@given(seconds, seconds, st.floats(-1e6, 1e6))
def test_age_is_what_the_clock_says_that_counted_most(monotonic: float, boottime: float, wall: float) -> None:
    then = Instant(0.0, 0.0, 0.0)
    assert then.age(Instant(monotonic, boottime, wall)) == max(monotonic, boottime, wall)


def test_a_suspended_machine_grows_older() -> None:
    clock = TickingClock()
    then = clock.now()
    clock.tick(2)
    clock.suspend(3600)
    assert clock.now().monotonic - then.monotonic == 2
    assert then.age(clock.now()) == 3602


def test_a_wall_clock_set_back_makes_nothing_younger() -> None:
    clock = TickingClock()
    then = clock.now()
    clock.tick(10)
    clock.set_wall(-86400)
    assert then.age(clock.now()) == 10


def test_a_wall_clock_set_forward_counts() -> None:
    clock = TickingClock()
    then = clock.now()
    clock.set_wall(500)
    assert then.age(clock.now()) == 500


def test_the_systems_clocks_are_those_of_the_operating_system() -> None:
    before, now, after = time.monotonic(), SYSTEM_CLOCK.now(), time.monotonic()
    assert before <= now.monotonic <= after
    assert before <= SYSTEM_CLOCK.monotonic()
    assert abs(now.wall - time.time()) < 60
    # Time asleep counts on top, so this clock is never behind (where there is one).
    assert now.boottime >= now.monotonic - 1


def test_a_deadline_counts_down_and_never_below_nothing() -> None:
    clock = TickingClock()
    deadline = Deadline(3, clock)
    assert (deadline.left(), deadline.over(), deadline.seconds) == (3, False, 3)
    clock.tick(2)
    assert (deadline.left(), deadline.over()) == (1, False)
    clock.tick(1)
    assert (deadline.left(), deadline.over()) == (0, True)
    clock.tick(5)
    assert (deadline.left(), deadline.over()) == (0, True)
    assert deadline.seconds == 3


def test_a_deadline_does_not_look_at_the_wall() -> None:
    clock = TickingClock()
    deadline = Deadline(3, clock)
    clock.set_wall(1000)
    clock.suspend(1000)
    assert deadline.left() == 3


@pytest.mark.parametrize("given_seconds", [0, -1])
def test_no_time_at_all_is_over_at_once(given_seconds: float) -> None:
    deadline = Deadline(given_seconds, TickingClock())
    assert deadline.over()
    assert deadline.left() == 0


def test_a_deadline_may_be_endless() -> None:
    assert Deadline(math.inf).left() == math.inf
    assert not Deadline(math.inf).over()
