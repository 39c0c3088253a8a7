"""The issuer is down for seconds of real time, in each way, under one thread and one task that call all the while.

All kinds are lived through at once, each at a site of its own; the tests look at what the callers saw.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from secretsource import IssuerUnavailable, SecretSourceError, Token
from secretsource.source import Status

from .scenario import BACK_OFF, OUTAGES, REFERENCE, STALL, Calls, Site

LIFETIME = 2.4
LEEWAY = LIFETIME / 10
AT_ONCE = 0.8
"""Seconds. A call that waited for a renewal that hangs would take longer."""


class Story(NamedTuple):
    """What was seen: the kept token and when it was had, calls during the outage, how it was then, calls after it."""

    kept: Token
    obtained: float
    seen: tuple[Calls, Calls]
    status: Status
    healed: float
    after: Calls
    again: Calls


def lived_through(name: str, authority: trustme.CA, ca_file: Path) -> Story:
    outage = OUTAGES[name]
    with Site(lifetime=LIFETIME, authority=authority, ca_file=ca_file, timeout=outage.timeout) as site:
        obtained = time.monotonic()
        kept = site.source.token()
        with site.down(outage):
            seen = site.thread_and_task_call(LIFETIME + BACK_OFF)
            status = site.source.status()
        healed = time.monotonic()
        after = site.calls_until_one_succeeds(within=10)
        return Story(kept, obtained, seen, status, healed, after, site.calls(LIFETIME * 0.6))


@pytest.fixture(scope="module")
def stories(authority: trustme.CA, ca_file: Path) -> dict[str, Story]:
    told: dict[str, Story] = {}
    threads = [
        threading.Thread(target=lambda name=name: told.update({name: lived_through(name, authority, ca_file)}))
        for name in OUTAGES
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert told.keys() == OUTAGES.keys()
    return told


@pytest.fixture(params=OUTAGES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def story(stories: dict[str, Story], name: str) -> Story:
    return stories[name]


def test_every_call_gets_the_kept_token_at_once_up_to_its_leeway(story: Story) -> None:
    for calls in story.seen:
        calls = calls.between(story.obtained, story.obtained + LIFETIME - LEEWAY)
        assert calls.tokens == [story.kept]
        assert calls.failures == []
        assert calls.slowest < AT_ONCE


def test_no_call_fails_that_ended_while_the_kept_token_lived_and_none_gets_it_later(story: Story) -> None:
    end = story.obtained + LIFETIME
    for calls in story.seen:
        assert calls.tokens == [story.kept]
        early = [one for one in calls if one.at + one.took < end and isinstance(one.outcome, SecretSourceError)]
        assert early == []
        assert calls.between(end + 0.5, float("inf")).tokens == []


def test_no_call_waits_longer_than_its_timeout_or_for_three_attempts(story: Story, name: str) -> None:
    for calls in story.seen:
        assert calls.slowest < OUTAGES[name].longest + STALL


def test_without_a_token_the_error_is_clear(story: Story, name: str) -> None:
    for calls in story.seen:
        assert calls.failures
        for error in calls.failures:
            assert type(error) is OUTAGES[name].error
            assert OUTAGES[name].says in str(error)
            assert error.__cause__ is error.__context__ is None
            assert error.retryable is (name != "not trusted")


@pytest.mark.parametrize("name", OUTAGES)
def test_without_a_token_the_error_names_the_reference_and_the_way_out(stories: dict[str, Story], name: str) -> None:
    for calls in stories[name].seen:
        assert [error for error in calls.failures if REFERENCE not in error.message or not error.hint] == []


def test_it_is_said_what_failed_and_when_the_next_attempt_is_due(story: Story, name: str) -> None:
    assert story.status.last_error == OUTAGES[name].error.__name__
    assert story.status.next_try is None or story.status.next_try <= BACK_OFF
    for calls in story.seen:
        for error in calls.failures:
            if isinstance(error, IssuerUnavailable) and error.retry_after is not None:
                assert error.retry_after <= 1


def test_afterwards_it_recovers_by_itself_within_one_back_off(story: Story, name: str) -> None:
    # An attempt that began during the outage comes to its end first.
    assert story.after[-1].at - story.healed < BACK_OFF + OUTAGES[name].longest + STALL
    (token,) = story.after.tokens
    assert story.again.tokens == [token]
    assert story.again.failures == []
