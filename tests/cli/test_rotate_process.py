"""secretsource rotate as a process: at a terminal, without one, and interrupted."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..stores import eventually
from . import PATIENCE, Terminal, called, process, started
from .shops import AT_ONCE as AT_ONCE_AND_QUICKLY
from .shops import OLD, Shop

AT_ONCE = AT_ONCE_AND_QUICKLY[:-2]  # a program gets its usual time


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Shop(tmp_path).open() as shop:
        shop.add("pos")
        yield shop


@pytest.fixture
def production(shop: Shop) -> tuple[str, ...]:
    """The options for a client in production, whose issuer a program asks."""
    return ("pos", "--env", "production", "--config", str(shop.configured()), "--command", str(shop.program))


def alone(shop: Shop) -> tuple[str, ...]:
    return ("--credentials", f"file://{shop.file('pos')}", "--issuer", shop.issuer.url, *AT_ONCE)


# --- confirmation -----------------------------------------------------------------------------------------------------


def test_at_a_terminal_production_is_confirmed_by_a_person_who_is_told_what_it_is(
    shop: Shop, production: tuple[str, ...]
) -> None:
    with Terminal("rotate", "run", *production, *AT_ONCE, "--force") as terminal:
        terminal.wait_for("Write yes to go on: ")
        asked = terminal.seen
        assert shop.changes == []
        terminal.type("yes\n")
        ran = terminal.end()
    for named in ("'production'", "client 'pos'", shop.issuer.url, f"file://{shop.file('pos')}"):
        assert named in asked
    assert ran.code == 0
    assert shop.changes == ["pos"]


def test_whoever_does_not_confirm_changes_nothing(shop: Shop, production: tuple[str, ...]) -> None:
    before = shop.file("pos").read_bytes()
    with Terminal("rotate", "run", *production, "--force") as terminal:
        terminal.wait_for("Write yes to go on: ")
        terminal.type("\n")
        ran = terminal.end()
    assert ran.code == 11
    assert "held: it was not confirmed" in ran.out
    assert shop.file("pos").read_bytes() == before


@pytest.mark.parametrize("action", ["abort", "rollback"])
def test_going_back_is_confirmed_as_well(shop: Shop, production: tuple[str, ...], action: str) -> None:
    with Terminal("rotate", action, *production) as terminal:
        terminal.wait_for("Write yes to go on: ")
        terminal.type("no\n")
        assert terminal.end().code == 11


@pytest.mark.parametrize(
    ("action", "options", "code"),
    [("run", ("--force", "--yes"), 0), ("run", (), 0), ("resume", (), 0), ("plan", (), 0), ("drift", (), 0)],
)
def test_what_is_confirmed_before_or_needs_none_is_not_asked_about(
    shop: Shop, production: tuple[str, ...], action: str, options: tuple[str, ...], code: int
) -> None:
    with Terminal("rotate", action, *production, *AT_ONCE, *options) as terminal:
        ran = terminal.end()
    assert ran.code == code
    assert "Write yes" not in ran.out


def test_without_a_terminal_nothing_is_asked(shop: Shop, production: tuple[str, ...]) -> None:
    ran = shop.looked_through(process("rotate", "run", *production, *AT_ONCE, "--force"))
    assert (ran.code, ran.err) == (0, "")
    assert shop.changes == ["pos"]


# --- a person as adapter ----------------------------------------------------------------------------------------------


def test_at_a_terminal_a_person_is_the_adapter_where_none_is_named(shop: Shop) -> None:
    with Terminal("rotate", "run", *alone(shop), "--force") as terminal:
        terminal.wait_for("Change the secret: the client 'pos'")
        pending = shop.stored("pos")["client_secret_pending"]
        shop.issuer.set_secret("pos", pending)
        ran = terminal.end()
    assert ran.code == 0
    assert pending not in ran.out
    assert OLD not in ran.out
    assert shop.stored("pos")["client_secret"] == pending


def test_the_secret_is_shown_to_the_person_who_asks_for_it(shop: Shop) -> None:
    with Terminal("rotate", "run", *alone(shop), "--force", "--show") as terminal:
        terminal.wait_for("Change the secret: the client 'pos'")
        pending = shop.stored("pos")["client_secret_pending"]
        terminal.wait_for(pending)
        shop.issuer.set_secret("pos", pending)
        assert terminal.end().code == 0


def test_the_secret_is_not_shown_where_there_is_no_terminal(shop: Shop) -> None:
    ran = called("rotate", "run", *alone(shop), "--adapter", "manual", "--force", "--show", "--max-wait", "1s")
    assert ran.code == 2
    assert "standard error is no terminal" in ran.err
    assert "client_secret_pending" not in shop.stored("pos")


# --- interrupted ------------------------------------------------------------------------------------------------------


def test_who_interrupts_it_is_told_how_to_go_on(shop: Shop) -> None:
    waiting = ("--command", str(shop.program), "--force", "--wait", "4m", "--max-wait", "5m")
    with started("rotate", "run", *alone(shop), *waiting) as child:
        assert child.stdout is not None
        while " claim " not in child.stdout.readline():
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130
    assert err.splitlines() == [
        "secretsource: whatever was begun is kept in the store: the same command with rotate resume goes on",
        "secretsource: interrupted",
    ]
    pending = shop.stored("pos")["client_secret_pending"]
    assert shop.rotate("resume").code == 0
    assert shop.stored("pos")["client_secret"] == pending


@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGHUP])
def test_a_file_with_the_secret_for_a_person_goes_with_the_process_that_made_it(shop: Shop, ends: int) -> None:
    file = shop.folder / "revealed"
    manual = ("--adapter", "manual", "--reveal-to", str(file), "--force", "--wait", "0s", "--max-wait", "5m")
    with started("rotate", "run", *alone(shop), *manual) as child:
        eventually(file.exists)
        child.send_signal(ends)
        child.communicate(timeout=PATIENCE)
    assert child.returncode == 128 + ends
    assert not file.exists()
    assert shop.rotate("abort", "--landing", "0s").code in (0, 10)


def test_a_client_of_a_configuration_is_named_in_what_to_do(shop: Shop, production: tuple[str, ...]) -> None:
    with started("rotate", "run", *production, "--force", "--wait", "4m", "--max-wait", "5m") as child:
        assert child.stdout is not None
        while " claim " not in child.stdout.readline():
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130
    assert "secretsource rotate resume pos --env production goes on" in err


def test_a_log_of_everything_has_no_secret_in_it(shop: Shop) -> None:
    ran = shop.looked_through(
        process("rotate", "run", "-v", *alone(shop), "--command", str(shop.program), "--force", "--json")
    )
    assert ran.code == 0
    assert "RotationStep (" in ran.err
    assert shop.changes == ["pos"]
