"""Every reader of what others wrote, given anything: the corpus, any bytes, inputs changed and inputs made up."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secretsource import ConfigurationError, MalformedSecret

from . import contract
from .__main__ import main
from .contract import CANARY, STAND_IN, held, silent
from .inputs import ANSWERS, ANYTHING, CHANGED, CORPUS, SENTENCES
from .targets import TARGETS

lively = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=named)
def test_an_input_of_the_corpus_keeps_the_contract(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_each_target_has_a_corpus_and_each_corpus_a_target() -> None:
    assert {path.parent.name for path in CORPUS.glob("*/*")} == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
@settings(lively, max_examples=40)
@given(data=ANYTHING)
def test_any_bytes_keep_the_contract(name: str, data: bytes) -> None:
    TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@settings(lively, max_examples=80)
@given(data=st.data())
def test_a_changed_input_keeps_the_contract(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(CHANGED[name]))


@pytest.mark.parametrize("name", SENTENCES)
@settings(lively, max_examples=80)
@given(data=st.data())
def test_an_input_made_of_the_words_of_its_language_keeps_the_contract(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(SENTENCES[name]))


@pytest.mark.parametrize("name", ANSWERS)
@settings(lively, max_examples=120)
@given(data=st.data())
def test_an_answer_with_odd_members_keeps_the_contract(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(ANSWERS[name]))


LARGE = {
    "blanks in a line of ini": ("document", b"ini\na" + b" " * 60_000 + b"b"),
    "parts of a key in toml": ("document", b"toml\n" + b"a." * 30_000 + b"a = 1"),
    "levels of json": ("document", b"json\n" + b'{"a":' * 12_000),
    "blanks behind a value of toml": ("edits", b"toml#k\nnew\nk = [1" + b" " * 60_000 + b"]"),
    "blanks in a value of env": ("edits", b"env#k\nnew\nk=a" + b" " * 60_000 + b"b"),
    "tables of toml with the same name in each": (
        "edits",
        b"toml#/a2999/k\nnew\n" + b"".join(b"[a%d]\nk = 1\n" % number for number in range(3000)),
    ),
    "beginnings of a JWT in a configuration": ("configuration", b"pos\n\n# " + b"eyJ" * 20_000),
    "levels of an answer": ("token_answer", b"200\n\n" + b'{"a":' * 12_000),
    "scopes of an answer": ("token_answer", b'200\n\n{"access_token": "a", "scope": "' + b"a " * 30_000 + b'"}'),
    "challenges": ("challenge", b'Bearer a="\\",' * 5_000),
    "words": ("command_line", b"token\n" + b"--scope\na\n" * 1_000),
    "fields of a form": ("request", b"pos\nx\n\n\n\n" + b"a=b\n" * 15_000),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_input_takes_no_longer_than_its_size(name: str) -> None:
    target, data = LARGE[name]
    TARGETS[target](data)


# --- the contract itself


def raising(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(
    "error",
    [
        MalformedSecret(f"no good: {CANARY}"),
        MalformedSecret("no good", hint=f"not {CANARY}"),
        MalformedSecret("no good", status=CANARY),
        MalformedSecret("no good\x1b[2J"),
    ],
)
def test_an_error_that_tells_too_much_is_found(error: Exception) -> None:
    with pytest.raises(AssertionError):
        silent(raising(error), MalformedSecret)


def test_an_error_behind_the_error_is_found() -> None:
    error = MalformedSecret("no good")
    error.__cause__ = ValueError(CANARY)
    with pytest.raises(AssertionError):
        silent(raising(error), MalformedSecret)


@pytest.mark.parametrize("error", [ConfigurationError("of another kind"), ValueError("not ours"), RecursionError()])
def test_an_error_of_another_kind_is_found(error: Exception) -> None:
    with pytest.raises(type(error)):
        silent(raising(error), MalformedSecret)


def test_what_takes_too_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def spin(data: bytes) -> None:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    held(spin)(b"")
    monkeypatch.setattr(contract, "_SECONDS", 0.01)
    with pytest.raises(AssertionError, match="took"):
        held(spin)(b"")


def test_a_stand_in_becomes_the_canary() -> None:
    seen: list[bytes] = []
    held(seen.append)(b"a" + STAND_IN)
    assert seen == [b"a" + CANARY.encode()]


def test_without_atheris_the_command_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert main(["reference"]) == 2
    assert "pip install atheris" in capsys.readouterr().err
