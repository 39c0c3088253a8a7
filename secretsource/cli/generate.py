"""secretsource generate: print a new secret."""

from __future__ import annotations

import argparse

from ..rotation.generate import FEWEST_BITS, generate

__all__ = ["add_to"]


def add_to(command: argparse.ArgumentParser) -> None:
    command.description = (
        f"{command.description} It has only characters that every encoding leaves as they are, and is all that "
        "standard output gets."
    )
    command.add_argument("--bits", type=int, default=FEWEST_BITS, metavar="N", help=f"random bits ({FEWEST_BITS})")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    print(generate(options.bits).reveal())
    return 0
