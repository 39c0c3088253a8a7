"""secretsource generate: a new secret, and nothing else, on standard output."""

from __future__ import annotations

import re

import pytest

from . import called, process


def test_a_secret_of_256_bits_is_all_that_is_printed() -> None:
    ran = process("generate")
    assert (ran.code, ran.err) == (0, "")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", ran.out)


def test_no_two_are_alike() -> None:
    assert len({called("generate").out for _ in range(50)}) == 50


@pytest.mark.parametrize(("bits", "characters"), [(256, 43), (257, 44), (384, 64), (512, 86), (4096, 683)])
def test_it_may_be_longer(bits: int, characters: int) -> None:
    ran = called("generate", "--bits", str(bits))
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.out.strip()) == characters


@pytest.mark.parametrize("bits", ["0", "-1", "128", "255", "4097", "many", "256.5", ""])
def test_what_is_too_few_too_many_or_no_number_is_refused(bits: str) -> None:
    ran = called("generate", f"--bits={bits}")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err
    assert "Traceback" not in ran.err
