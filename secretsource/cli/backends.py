"""secretsource backends: list the stores that a reference may name."""

from __future__ import annotations

import argparse
import json
import sys

from ..backends import known_backends
from .screen import Screen

__all__ = ["add_to"]


def add_to(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    backends = known_backends()
    if options.json:
        print(json.dumps([backend._asdict() for backend in backends], indent=2))
        return 0
    screen, width = Screen(sys.stdout), max(len(backend.name) for backend in backends)
    for backend in backends:
        screen.line(f"{backend.name:{width}}  {backend.distribution} {backend.version}  {backend.target}")
    return 0
