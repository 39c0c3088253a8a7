from __future__ import annotations

import asyncio

import pytest

from secretsource import ConfigurationError
from secretsource.testing import static_source


def test_it_gives_its_token_whatever_is_asked_for() -> None:
    source = static_source("not-a-real-token", scopes=["orders.read"])
    token = source.token(scope="orders.write", audience="a", resource="https://r", extra={}, timeout=1, force=True)
    assert token.authorization == "Bearer not-a-real-token"
    assert token.scopes == ("orders.read",)
    assert token is source.token() is source.verify()


def test_it_gives_the_same_token_to_tasks() -> None:
    async def both() -> bool:
        async with static_source("not-a-real-token") as source:
            return await source.atoken(scope="x") is await source.averify() is source.token()

    assert asyncio.run(both())


def test_a_parameter_that_a_token_source_does_not_know_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="scope"):
        static_source("not-a-real-token").token(scopes="orders.read")


def test_a_refused_token_stays_and_is_noted() -> None:
    source = static_source("not-a-real-token")
    token = source.token()
    source.invalidate(token)
    source.reload()
    assert source.invalidated == [token]
    assert source.token() is token


def test_once_closed_it_gives_nothing() -> None:
    with static_source("not-a-real-token") as source:
        assert source.status()["closed"] is False
    assert source.status()["closed"] is True
    with pytest.raises(ConfigurationError):
        source.token()


def test_the_token_is_never_shown() -> None:
    source = static_source("not-a-real-token")
    assert "not-a-real-token" not in f"{source!r} {source.token()!r} {source.token()} {source.status()}"
