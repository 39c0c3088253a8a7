"""Durations, and when a secret is due."""

from __future__ import annotations

from typing import Any

import pytest

from secretsource import ConfigurationError, Secret
from secretsource.backends import Held
from secretsource.credentials import Binding
from secretsource.durations import duration, shown_duration
from secretsource.rotation import Due, Policy
from secretsource.state import RotationState

NOW = 1_800_000_000.0
DAY = 86400.0


def held(*, created: float | None = None, expires: float | None = None, **state: Any) -> Held:
    secret = Secret("not-a-real-secret-1")
    return Held("pos", secret, None, None, RotationState(**state), "1", Binding(), {}, created, expires)


def due(now: Held, name: str = "file:pos.json", expires: float | None = None, **policy: Any) -> Due:
    return Due.of(now, Policy(**policy).settled(wait=60.0), NOW, name=name, expires=expires)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("90d", 90 * DAY),
        ("2w", 14 * DAY),
        ("0s", 0),
        ("250ms", 0.25),
        ("30", 30),
        (45, 45),
        (0.5, 0.5),
    ],
)
def test_a_duration_is_read(text: str | float, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 m", "-5m", "5y", "1e3s", "5m!", "99999999d", float("nan"), True, None])
def test_what_is_no_duration_says_how_one_is_written(text: Any) -> None:
    with pytest.raises(ConfigurationError, match="Such as 90s, 5m"):
        duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0.4 s"), (59, "59 s"), (60, "1 min"), (5400, "1 h 30 min"), (90 * DAY, "90 d")]
)
def test_a_duration_is_shown_in_two_units_at_most(seconds: float, text: str) -> None:
    assert shown_duration(seconds) == text


def test_a_secret_is_due_at_its_age_give_or_take_a_tenth() -> None:
    assert not due(held(finished=NOW - 80 * DAY)).now
    assert due(held(finished=NOW - 100 * DAY)).now
    moments = {due(held(finished=NOW - DAY), name=f"file:{number}.json").at or 0 for number in range(50)}
    assert len(moments) == 50
    assert max(moments) - min(moments) > 10 * DAY
    assert all(80 * DAY <= at - NOW <= 98 * DAY for at in moments)


def test_the_moment_is_the_same_at_each_look() -> None:
    assert due(held(finished=NOW - DAY)).at == due(held(finished=NOW - DAY)).at


def test_the_age_counts_from_the_writing_where_it_was_never_rotated() -> None:
    assert not due(held(created=NOW - DAY)).now
    assert due(held(created=NOW - 200 * DAY)).age == 200 * DAY
    assert due(held(created=NOW - 200 * DAY, finished=NOW - DAY)).age == DAY


def test_a_secret_of_unknown_age_is_due() -> None:
    found = due(held())
    assert found.now
    assert (found.at, found.age) == (None, None)


@pytest.mark.parametrize("who", ["store", "issuer", "state"])
def test_it_is_due_before_the_store_or_the_issuer_ends_it(who: str) -> None:
    def ending(at: float) -> Due:
        if who == "store":
            return due(held(finished=NOW - 30 * DAY, expires=at))
        if who == "issuer":
            return due(held(finished=NOW - 30 * DAY), expires=at)
        return due(held(finished=NOW - 30 * DAY, expires=at if who == "state" else None))

    assert ending(NOW + DAY).now
    assert not ending(NOW + 20 * DAY).now
    assert ending(NOW - DAY).now


def test_it_is_not_due_within_an_hour_of_the_last_change_but_by_force() -> None:
    recent = held(finished=NOW - 600, expires=NOW + 60)
    assert due(recent).reason == "it was changed less than an hour ago"
    assert due(recent, force=True).now
    assert due(recent, compromised=True).now


def test_a_clock_that_was_set_back_makes_no_negative_age() -> None:
    found = due(held(finished=NOW + DAY))
    assert found.age == 0
    assert not found.now


def test_a_leaked_secret_is_waited_for_by_nobody() -> None:
    policy = Policy(compromised=True, wait=300, soak=DAY)
    assert (policy.wait, policy.soak) == (0, 0)


@pytest.mark.parametrize(
    "wrong", [{"proofs": 0}, {"proofs": True}, {"wait": "soon"}, {"every": 0}, {"command_timeout": "0s"}]
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Policy(**wrong)
