"""Gates: each must agree, and whatever is no agreement holds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from secretsource import ConfigurationError, Token
from secretsource.rotation import Abort, Hold, Moment, Proceed
from secretsource.rotation.hooks import Gates, gate_called

MOMENT = Moment("file:pos.json", "pos", "https://issuer.example", "production", "r1", False, "1")
CANARY = "not-a-real-secret-in-a-gate"


class Gate:
    def __init__(self, answer: Callable[..., Any]) -> None:
        self.before_apply = answer


def raising(_: Moment) -> Any:
    raise ValueError(CANARY)


async def agreeing(_: Moment) -> Any:
    await asyncio.sleep(0)
    return Proceed()


async def async_raising(_: Moment) -> Any:
    raise ValueError(CANARY)


def leaving(_: Moment) -> Any:
    raise SystemExit(CANARY)


def test_a_gate_that_has_nothing_to_say_is_not_asked() -> None:
    assert Gates([Gate(raising)]).ask("before_claim", MOMENT) == Proceed()


@pytest.mark.parametrize("answer", [lambda _: Proceed(), agreeing])
def test_all_agree(answer: Callable[..., Any]) -> None:
    assert Gates([Gate(answer), Gate(answer)]).ask("before_apply", MOMENT) == Proceed()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (raising, "failed"),
        (async_raising, "failed"),
        (leaving, "failed"),
        (lambda _: None, "neither"),
        (lambda _: True, "neither"),
        (lambda _: "proceed", "neither"),
        (lambda: Proceed(), "failed"),
    ],
)
def test_whatever_is_no_answer_holds(answer: Callable[..., Any], reason: str) -> None:
    said = Gates([Gate(answer)]).ask("before_apply", MOMENT)
    assert isinstance(said, Hold)
    assert reason in said.reason
    assert CANARY not in said.reason


def test_one_that_hangs_holds() -> None:
    over = threading.Event()
    said = Gates([Gate(lambda _: over.wait(60))], timeout=0.1).ask("before_apply", MOMENT)
    over.set()
    assert said == Hold("Gate.before_apply did not answer in time")


def test_an_abort_wins_over_a_hold_and_a_hold_over_agreement() -> None:
    hold, abort = Gate(lambda _: Hold("not now")), Gate(lambda _: Abort("never"))
    assert Gates([Gate(agreeing), hold]).ask("before_apply", MOMENT) == Hold("not now")
    assert Gates([hold, abort]).ask("before_apply", MOMENT) == Abort("never")


def test_verify_is_given_the_token() -> None:
    class Verifying:
        def verify(self, moment: Moment, token: Token) -> Any:
            return Proceed() if token.access_token == "t" else Hold("another token")

    assert Gates([Verifying()]).ask("verify", MOMENT, Token("t", lifetime=60)) == Proceed()


@pytest.mark.parametrize("wrong", [object(), Gate, lambda: None, 7])
def test_what_is_no_gate_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="is no gate"):
        Gates([wrong])


def test_a_gate_that_nobody_has_registered_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        gate_called(CANARY)
    assert CANARY not in str(caught.value)


@pytest.fixture
def registered(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "gates-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gates\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[secretsource.hooks]\nwindow = gates_of_a_test:Window\nlost = no.such:X\n")
    (tmp_path / "gates_of_a_test.py").write_text("class Window:\n    def before_claim(self, moment):\n        ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_registered_gate_is_found_by_its_name(registered: None) -> None:
    assert type(gate_called("window")).__name__ == "Window"


def test_one_that_cannot_be_loaded_is_an_error(registered: None) -> None:
    with pytest.raises(ConfigurationError, match="cannot be loaded: ModuleNotFoundError"):
        gate_called("lost")
