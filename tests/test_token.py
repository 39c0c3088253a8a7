"""Token: masked wherever it is printed, and honest about its age."""

from __future__ import annotations

import copy
import io
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import httpx
import httpx2
import pytest

from secretsource.testing.clock import TickingClock
from secretsource.token import Token

CANARY = "canary-Zq7x.token"

SHOWN: dict[str, Callable[[Token], object]] = {
    "repr": repr,
    "str": str,
    "format": format,
    "format with a width": lambda token: f"Bearer {token:>80}",
    "percent": lambda token: "%s %r" % (token, token),  # noqa: UP031
    "in a dict": lambda token: repr({"token": token}),
    "pprint": pprint.pformat,
    "json with a default": lambda token: json.dumps({"token": token}, default=str),
    "deepcopy": lambda token: repr(copy.deepcopy([token])),
}


@dataclass
class Session:
    token: Token


def made(lifetime: float = 300, clock: TickingClock | None = None, **facts: object) -> Token:
    return Token(CANARY, lifetime=lifetime, clock=clock or TickingClock(), **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_a_mask_is_shown_in_its_place(show: Callable[[Token], object]) -> None:
    shown = str(show(made()))
    assert CANARY not in shown
    assert "Token" in shown


def test_the_mask_names_what_to_use() -> None:
    assert str(made()) == "<Token ⋯ use .authorization>"
    assert made().authorization == f"Bearer {CANARY}"
    assert made().access_token == CANARY


@pytest.mark.parametrize("client", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_client_refuses_the_mask_on_the_spot_and_takes_the_header(client: object) -> None:
    request = client.Request  # type: ignore[attr-defined]
    with pytest.raises(UnicodeEncodeError) as caught:
        request("GET", "https://pos.example.com", headers={"Authorization": f"Bearer {made()}"})
    assert CANARY not in repr(caught.value)
    sent = request("GET", "https://pos.example.com", headers={"Authorization": made().authorization})
    assert sent.headers["Authorization"] == f"Bearer {CANARY}"


def test_it_has_no_dict_and_json_does_not_take_it() -> None:
    with pytest.raises(TypeError):
        vars(made())
    with pytest.raises(TypeError, match="not JSON serializable") as caught:
        json.dumps({"token": made()})
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match="Token is not pickled") as caught:
        pickle.dumps(made(), protocol)
    assert CANARY not in str(caught.value)


def test_logs_tracebacks_and_dataclasses_show_the_mask() -> None:
    stream = io.StringIO()
    logger = logging.Logger("test")  # noqa: LOG001 # its own, known to nobody else
    logger.addHandler(logging.StreamHandler(stream))

    def fail(token: Token) -> None:
        raise ValueError(f"refused: {token}")

    try:
        fail(made())
    except ValueError as error:
        logger.exception("with %s", made())
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "token = <Token ⋯" in shown
    assert stream.getvalue().count("<Token ⋯") == 2
    assert CANARY not in shown + stream.getvalue() + repr(asdict(Session(made())))


def test_copies_are_the_same_object() -> None:
    token = made()
    assert copy.copy(token) is token
    assert copy.deepcopy(token) is token


@pytest.mark.parametrize("name", [*Token.__slots__, "access_token", "expires_in", "anything"])
def test_it_cannot_be_changed(name: str) -> None:
    token = made()
    with pytest.raises(AttributeError):
        setattr(token, name, "other")
    with pytest.raises(AttributeError):
        delattr(token, name)
    assert token.access_token == CANARY


def test_it_says_what_was_granted() -> None:
    token = made(scopes=("orders.read", "stock.read"))
    assert token.scopes == ("orders.read", "stock.read")
    assert token.token_type == "Bearer"
    assert made().scopes == ()


def test_it_ends_its_lifetime_after_it_was_asked_for() -> None:
    clock = TickingClock()
    asked = clock.now()
    clock.tick(4)  # the request took four seconds
    token = made(60, clock, obtained=asked)
    assert (token.age, token.expires_in) == (4, 56)
    assert token.expires_at == datetime.fromtimestamp(asked.wall, UTC) + timedelta(seconds=60)
    assert token.expires_at.utcoffset() == timedelta(0)


def test_it_counts_from_now_if_nobody_says_when_it_was_asked_for() -> None:
    clock = TickingClock()
    token = made(60, clock)
    clock.tick(1)
    assert token.expires_in == 59


def test_what_is_left_never_goes_below_nothing() -> None:
    clock = TickingClock()
    token = made(60, clock)
    clock.tick(61)
    assert token.expires_in == 0
    assert token.age == 61


def test_the_clock_that_says_least_decides_what_is_left() -> None:
    clock = TickingClock()
    token = made(60, clock)
    clock.suspend(30)
    assert token.expires_in == 30
    clock.set_wall(-3600)
    assert token.expires_in == 30
    clock.set_wall(3600 + 20)
    assert token.expires_in == 10
