from __future__ import annotations

import asyncio

import httpx
import pytest

from secretsource import ConfigurationError, TokenAuth, TokenSource
from secretsource.testing import TickingClock, static_source


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


def test_it_is_what_a_token_source_is() -> None:
    of_rotations = {"credentials", "target", "prove", "timeout", "clock"}
    public = {name for name in vars(TokenSource) if not name.startswith("_")} - {"from_config"} - of_rotations
    assert public <= set(dir(static_source("not-a-real-token")))


@pytest.mark.parametrize("age", [0, 5])
def test_token_auth_takes_it(age: int) -> None:
    clock = TickingClock()
    source = static_source("not-a-real-token", clock=clock)
    clock.tick(age)
    seen = []

    def api(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return httpx.Response(401)

    transport = httpx.MockTransport(api)
    with httpx.Client(auth=TokenAuth(source), transport=transport, base_url="https://api.example") as client:
        assert client.get("/").status_code == 401
    assert set(seen) == {"Bearer not-a-real-token"}
    assert source.invalidated == ([source.token()] if age else [])


def test_once_closed_it_gives_nothing() -> None:
    with static_source("not-a-real-token") as source:
        assert source.status().kept_tokens == 1
    assert source.status().kept_tokens == 0
    with pytest.raises(ConfigurationError):
        source.token()


def test_the_token_is_never_shown() -> None:
    source = static_source("not-a-real-token")
    assert "not-a-real-token" not in f"{source!r} {source.token()!r} {source.token()} {source.status()}"
