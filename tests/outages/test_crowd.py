"""A thousand callers, half of them threads and half of them tasks, and one wrong secret."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secretsource import CredentialsRejected, SecretSourceError, Token, TokenSource
from secretsource.testing import TickingClock, secret_file

from ..stores import CLIENT, A, B, C, Store, in_threads
from .scenario import Site, acall, call

THREADS = TASKS = 500
FOUND_WITHIN = 6.0

Outcome = Token | SecretSourceError


def wave(*sources: TokenSource) -> list[Outcome]:
    """What a thousand callers get who call at once, each one of the sources in turn."""
    turns = [sources[number % len(sources)] for number in range(THREADS)]
    left = list(turns)

    async def tasks() -> list[Outcome]:
        return [one.outcome for one in await asyncio.gather(*(acall(source) for source in turns))]

    of_tasks: list[Outcome] = []
    loop = threading.Thread(target=lambda: of_tasks.extend(asyncio.run(tasks())))
    loop.start()
    of_threads: list[Outcome] = in_threads(THREADS, lambda: call(left.pop()).outcome)
    loop.join()
    assert len(of_threads + of_tasks) == THREADS + TASKS
    return of_threads + of_tasks


def all_fail(clock: TickingClock, *sources: TokenSource) -> None:
    """For five seconds: each caller, each time, with an exception of its own; and single callers between the waves."""
    for tenths in range(50):
        if tenths % 25 == 0:
            outcomes = wave(*sources)
            assert {type(outcome) for outcome in outcomes} == {CredentialsRejected}
            assert len({id(outcome) for outcome in outcomes}) == THREADS + TASKS
        assert isinstance(call(sources[0]).outcome, CredentialsRejected)
        clock.tick(0.1)


def all_get_a_token(site: Site) -> None:
    site.calls_until_one_succeeds(within=FOUND_WITHIN, every=0.1)
    assert len(set(wave(site.source))) == 1


def test_four_token_requests_in_five_seconds_and_a_secret_that_is_repaired_in_the_store_is_found_in_six(
    clock: TickingClock,
) -> None:
    with Site(clock=clock) as site:
        site.issuer.set_secret(CLIENT, B)
        all_fail(clock, site.source)
        assert 2 <= site.issuer.token_requests <= 4
        site.store.put(B)
        all_get_a_token(site)


def test_one_that_is_repaired_at_the_issuer_in_the_first_seconds_is_found_in_six(clock: TickingClock) -> None:
    with Site(clock=clock) as site:
        site.issuer.set_secret(CLIENT, B)
        all_fail(clock, site.source)
        site.issuer.set_secret(CLIENT, A)
        all_get_a_token(site)


class ReplicatedStore(Store):
    """It may give what was there before."""

    eventually_consistent = True


def with_a_pending_secret() -> Store:
    store = Store(ttl=300.0)
    store.put(A, pending=C)
    return store


FURTHER_PASSES: dict[str, Callable[[], Store]] = {
    "a pending secret is named": with_a_pending_secret,
    "the store may give what was there before": lambda: ReplicatedStore(ttl=300.0),
}


@pytest.mark.parametrize("why", FURTHER_PASSES)
def test_where_further_passes_are_made_there_are_eight_token_requests_in_five_seconds(
    why: str, clock: TickingClock
) -> None:
    with Site(clock=clock, store=FURTHER_PASSES[why]()) as site:
        site.issuer.set_secret(CLIENT, B)
        all_fail(clock, site.source)
        assert 4 <= site.issuer.token_requests <= 8


def test_nor_are_there_more_than_eight_after_a_change_of_the_last_minute(clock: TickingClock) -> None:
    with Site(lifetime=1, clock=clock) as site:
        site.source.token()
        site.store.put(C)
        site.issuer.set_secret(CLIENT, B)
        clock.tick(1)
        before = site.issuer.token_requests
        all_fail(clock, site.source)
        assert 4 <= site.issuer.token_requests - before <= 8


def test_each_of_several_sources_of_one_reference_has_its_own_four(clock: TickingClock) -> None:
    with Site(clock=clock) as site:
        site.issuer.set_secret(CLIENT, B)
        sources = [site.another(scope=f"scope-{number}") for number in range(10)]
        all_fail(clock, *sources)
        asked = Counter(request.form["scope"] for request in site.issuer.requests)
        assert len(asked) == 10
        assert max(asked.values()) <= 4


# --- in real time

Kept = tuple[dict[str, Any], Callable[[str], object]]


def in_a_file(folder: Path) -> Kept:
    def put(secret: str) -> str:
        return secret_file(folder / "secrets", CLIENT, secret)

    return {"credentials": put(A)}, put


def in_a_dear_store(_: Path) -> Kept:
    store = Store(ttl=300.0)
    return {"store": store}, store.put


STORES = {"file": in_a_file, "dear": in_a_dear_store}


@pytest.mark.parametrize("where", ["file", pytest.param("dear", marks=pytest.mark.slow)])
def test_a_thousand_callers_in_real_time(where: str, tmp_path: Path) -> None:
    """Each calls a few times a second, and all of them go on until they have a token."""
    options, put = STORES[where](tmp_path)
    with Site(**options) as site:
        site.issuer.set_secret(CLIENT, B)
        source, failures = site.source, Counter[type[SecretSourceError]]()
        give_up_at = time.monotonic() + 60

        def until_there_is_a_token() -> Token:
            while True:
                outcome = call(source).outcome
                if isinstance(outcome, Token):
                    return outcome
                failures[type(outcome)] += 1
                assert time.monotonic() < give_up_at
                time.sleep(0.3)

        async def in_a_task() -> Token:
            while True:
                outcome = (await acall(source)).outcome
                if isinstance(outcome, Token):
                    return outcome
                failures[type(outcome)] += 1
                assert time.monotonic() < give_up_at
                await asyncio.sleep(0.3)

        async def in_tasks() -> list[Token]:
            return await asyncio.gather(*(in_a_task() for _ in range(TASKS)))

        repaired: list[tuple[int, float]] = []

        def repair() -> None:
            site.issuer.wait_for_token_requests(1)
            time.sleep(5)
            repaired.append((site.issuer.token_requests, time.monotonic()))
            put(B)

        repairing = threading.Thread(target=repair)
        repairing.start()
        of_tasks: list[Token] = []
        loop = threading.Thread(target=lambda: of_tasks.extend(asyncio.run(in_tasks())))
        loop.start()
        of_threads = in_threads(THREADS, until_there_is_a_token)
        loop.join()
        repairing.join()
        ((requests, at),) = repaired
        assert 2 <= requests <= 4
        assert time.monotonic() - at < FOUND_WITHIN + 1
        assert len(of_threads + of_tasks) == THREADS + TASKS
        assert len(set(of_threads + of_tasks)) == 1
        assert set(failures) == {CredentialsRejected}
