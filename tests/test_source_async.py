"""TokenSource, called from event loops: asyncio and trio, several at once, and beside threads."""

from __future__ import annotations

import asyncio
import pickle
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
import trio.testing

from secretsource import (
    ClientCredentials,
    ConfigurationError,
    DeadlineExceeded,
    IssuerUnavailable,
    SecretSourceError,
    Token,
    TokenRequestRefused,
    TokenSource,
)
from secretsource.testing import FakeIssuer, Fault, TickingClock

from .stores import CLIENT, LONG, A, Store, eventually, in_threads


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer(lifetime=100) as issuer:
        issuer.add_client(CLIENT, A)
        yield issuer


@pytest.fixture
def source(issuer: FakeIssuer) -> TokenSource:
    return TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url)


Run = Callable[[Callable[[], Awaitable[Any]]], Any]


def in_asyncio(main: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await main()

    return asyncio.run(run())


@pytest.fixture(params=[in_asyncio, trio.run], ids=["asyncio", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param  # type: ignore[no-any-return]


async def many(source: TokenSource, count: int, **request: Any) -> list[Any]:
    """What so many tasks of this loop get."""
    outcomes: list[Any] = []

    async def one() -> None:
        try:
            outcomes.append(await source.atoken(**request))
        except SecretSourceError as error:
            outcomes.append(error)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(one)
    else:
        await asyncio.gather(*(one() for _ in range(count)))
    return outcomes


# --- one request


def test_500_tasks_make_one_request_for_a_cold_start(source: TokenSource, issuer: FakeIssuer, run: Run) -> None:
    issuer.latency = 0.2
    tokens = run(lambda: many(source, 500))
    assert len(tokens) == 500
    assert set(map(id, tokens)) == {id(tokens[0])}
    assert isinstance(tokens[0], Token)
    assert issuer.token_requests == 1


def test_two_loops_trio_and_threads_together_make_one_request(source: TokenSource, issuer: FakeIssuer) -> None:
    issuer.fail(Fault(hang=True), times=1)
    outcomes: list[Any] = []
    parties = [
        lambda: outcomes.extend(in_asyncio(lambda: many(source, 100))),
        lambda: outcomes.extend(in_asyncio(lambda: many(source, 100))),
        lambda: outcomes.extend(trio.run(lambda: many(source, 100))),
        lambda: outcomes.extend(in_threads(64, source.token)),
    ]
    threads = [threading.Thread(target=party) for party in parties]
    for thread in threads:
        thread.start()
    issuer.wait_for_token_requests(1)
    issuer.release()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert len(outcomes) == 364
    assert set(map(id, outcomes)) == {id(outcomes[0])}
    assert issuer.token_requests == 1


def test_asyncio_run_twice_and_trio_share_the_kept_token(source: TokenSource, issuer: FakeIssuer) -> None:
    tokens = [in_asyncio(source.atoken), in_asyncio(source.atoken), trio.run(source.atoken), source.token()]
    assert set(map(id, tokens)) == {id(tokens[0])}
    assert issuer.token_requests == 1


def test_a_loop_that_ended_while_it_waited_does_not_disturb_the_next_one(
    source: TokenSource, issuer: FakeIssuer, run: Run
) -> None:
    issuer.fail(Fault(hang=True), times=1)

    async def impatient() -> None:
        with pytest.raises(DeadlineExceeded):
            await source.atoken(timeout=0.05)

    run(impatient)
    issuer.release()
    token = run(source.atoken)
    assert issuer.accepts(token.access_token)
    assert issuer.token_requests == 1


def test_a_loop_goes_on_while_a_task_waits(source: TokenSource, issuer: FakeIssuer) -> None:
    issuer.fail(Fault(hang=True), times=1)

    async def main() -> Token:
        waiting = asyncio.create_task(source.atoken())
        for _ in range(10_000):
            if issuer.token_requests:
                break
            await asyncio.sleep(0.002)
        assert not waiting.done()
        issuer.release()  # a loop that stood still would never get here
        return await waiting

    assert issuer.accepts(in_asyncio(main).access_token)


def test_a_failure_reaches_each_task_as_an_exception_of_its_own(
    source: TokenSource, issuer: FakeIssuer, run: Run
) -> None:
    issuer.fail(Fault(status=400, body=b'{"error": "invalid_scope"}'))
    outcomes = run(lambda: many(source, 50))
    assert {type(outcome) for outcome in outcomes} == {TokenRequestRefused}
    assert len(set(map(id, outcomes))) == 50
    assert issuer.token_requests == 1


# --- each its own


def test_each_task_has_a_deadline_of_its_own_and_takes_nobody_along(
    source: TokenSource, issuer: FakeIssuer, run: Run
) -> None:
    issuer.fail(Fault(hang=True), times=1)
    patient: list[Token] = []
    waiting = threading.Thread(target=lambda: patient.append(source.token()))
    waiting.start()
    issuer.wait_for_token_requests(1)

    async def impatient() -> None:
        with pytest.raises(DeadlineExceeded):
            await source.atoken(timeout=0.05)

    run(impatient)
    issuer.release()
    waiting.join(LONG)
    assert [issuer.accepts(token.access_token) for token in patient] == [True]


def test_a_cancelled_asyncio_task_takes_nobody_along(source: TokenSource, issuer: FakeIssuer) -> None:
    issuer.fail(Fault(hang=True), times=1)

    async def main() -> Token:
        tasks = [asyncio.create_task(source.atoken()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        await asyncio.to_thread(issuer.wait_for_token_requests, 1)
        issuer.release()
        first, second = await asyncio.gather(*tasks[1:])
        assert first is second
        return first

    token = in_asyncio(main)
    assert source.token() is token
    assert issuer.token_requests == 1


def test_a_cancelled_trio_task_takes_nobody_along(source: TokenSource, issuer: FakeIssuer) -> None:
    issuer.fail(Fault(hang=True), times=1)
    tokens: list[Token] = []

    async def wait() -> None:
        tokens.append(await source.atoken())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            async with trio.open_nursery() as cancelled:
                cancelled.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                cancelled.cancel_scope.cancel()
            assert tokens == []
            await trio.to_thread.run_sync(lambda: issuer.wait_for_token_requests(1))
            issuer.release()

    trio.run(main)
    assert len(tokens) == 1
    assert issuer.token_requests == 1


def test_a_program_whose_only_task_was_cancelled_has_the_token_all_the_same(
    source: TokenSource, issuer: FakeIssuer
) -> None:
    issuer.fail(Fault(hang=True), times=1)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(source.atoken(), 0.05)

    in_asyncio(main)
    issuer.release()
    eventually(lambda: source.status().kept_tokens == 1)
    assert issuer.accepts(in_asyncio(source.atoken).access_token)
    assert issuer.token_requests == 1


# --- the same rules as for threads


def test_requests_force_and_parameters_are_those_of_token(source: TokenSource, issuer: FakeIssuer, run: Run) -> None:
    async def main() -> None:
        token = await source.atoken()
        assert await source.atoken() is token
        assert await source.atoken(scope="other") is not token
        new = await source.atoken(force=True)
        assert new is not token
        assert source.token() is new
        with pytest.raises(ConfigurationError, match="scope="):
            await source.atoken(scopes="a")  # type: ignore[call-arg]

    run(main)
    assert issuer.token_requests == 3


def test_a_forced_task_joins_no_flight_that_began_before_it(issuer: FakeIssuer, run: Run) -> None:
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url)
    issuer.fail(Fault(hang=True), times=1)
    first = threading.Thread(target=source.token)
    first.start()
    issuer.wait_for_token_requests(1)
    threading.Timer(0.2, issuer.release).start()
    run(lambda: many(source, 1, force=True))
    first.join(LONG)
    assert issuer.token_requests == 2


def test_the_flight_of_a_task_without_time_goes_on_for_whoever_comes_next(issuer: FakeIssuer, run: Run) -> None:
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url)
    issuer.fail(Fault(hang=True), times=1)
    [outcome] = run(lambda: many(source, 1, timeout=0.1))
    assert isinstance(outcome, DeadlineExceeded)
    issuer.release()
    assert issuer.accepts(source.token().access_token)
    assert issuer.token_requests == 1


def test_a_hundred_forced_tasks_make_at_most_two_requests(source: TokenSource, issuer: FakeIssuer, run: Run) -> None:
    issuer.latency = 0.3
    tokens = run(lambda: many(source, 100, force=True))
    assert {isinstance(token, Token) for token in tokens} == {True}
    assert issuer.token_requests <= 2


def test_no_task_waits_while_the_kept_token_is_valid_and_in_the_leeway_it_does(issuer: FakeIssuer, run: Run) -> None:
    clock = TickingClock()
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url, clock=clock)
    token = source.token()
    clock.tick(81)
    issuer.fail(Fault(hang=True), times=1)
    assert run(source.atoken) is token  # would wait for ever
    issuer.wait_for_token_requests(2)
    issuer.release()
    eventually(lambda: source._flights.under_way(source._key) is None)
    assert run(source.atoken) is not token
    clock.tick(90.5)
    token = source.token()
    assert issuer.token_requests == 3
    clock.tick(90.5)
    with issuer.down():
        assert run(source.atoken) is token, "to its true end, if there is no new one"
    clock.tick(10)
    assert run(source.atoken) is not token


def test_an_issuer_that_is_down_is_its_error(issuer: FakeIssuer, run: Run) -> None:
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url, clock=TickingClock())

    async def main() -> None:
        with issuer.down(), pytest.raises(IssuerUnavailable):
            await source.atoken()

    run(main)


def test_averify_gets_a_new_token_and_does_not_touch_the_kept_one(issuer: FakeIssuer, run: Run) -> None:
    store = Store(ttl=300)
    source = TokenSource("memory:pos", stores=store.stores, token_url=issuer.token_url)
    kept = run(source.atoken)
    proof = run(source.averify)
    assert issuer.accepts(proof.access_token)
    assert proof is not kept
    assert run(source.atoken) is kept
    assert store.reads == [False, True]


def test_averify_joins_no_verification_that_began_before_it(issuer: FakeIssuer, run: Run) -> None:
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url)
    issuer.fail(Fault(hang=True), times=1)
    first = threading.Thread(target=source.verify)
    first.start()
    issuer.wait_for_token_requests(1)
    threading.Timer(0.2, issuer.release).start()
    run(source.averify)
    first.join(LONG)
    assert issuer.token_requests == 2


def test_an_async_with_closes_it(source: TokenSource, run: Run) -> None:
    async def main() -> None:
        async with source as same:
            assert same is source
            await source.atoken()
        for call in (source.atoken, source.averify):
            with pytest.raises(ConfigurationError, match="closed"):
                await call()

    run(main)


def test_a_token_given_to_a_task_is_not_pickled(source: TokenSource, run: Run) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(run(source.atoken))


# --- token() on a loop


@pytest.mark.parametrize("name", ["token", "verify"])
def test_a_blocking_call_on_a_running_loop_warns_once_and_names_the_other_one(
    source: TokenSource, issuer: FakeIssuer, run: Run, name: str
) -> None:
    call = getattr(source, name)

    async def main() -> None:
        with pytest.warns(RuntimeWarning, match=f"await a{name}") as warned:
            call()
        assert [warning.filename for warning in warned] == [__file__], "it points at the caller"
        source.invalidate(source.token() if name == "token" else await source.atoken())
        call()  # any warning is an error here

    run(main)
    assert issuer.token_requests >= 2


def test_a_blocking_call_that_need_not_wait_does_not_warn(source: TokenSource, run: Run) -> None:
    source.token()

    async def main() -> Token:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return source.token()

    assert run(main) is source.token()
