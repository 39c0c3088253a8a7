"""secretsource backends: list the stores that a reference may name."""

from __future__ import annotations

import argparse
import json

from ..backends import known_backends

__all__ = ["add_to"]


def add_to(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    backends = known_backends()
    if options.json:
        print(json.dumps([backend._asdict() for backend in backends], indent=2))
        return 0
    width = max(len(backend.name) for backend in backends)
    for backend in backends:
        print(f"{backend.name:{width}}  {backend.distribution} {backend.version}  {backend.target}")
    return 0
