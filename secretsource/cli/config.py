"""secretsource config: what holds for a client in an environment, each value with the layer that it comes from."""

from __future__ import annotations

import argparse
import json
import sys

from ..config import Settings
from .options import add_client, settings_of
from .screen import Screen

__all__ = ["add_to"]


def add_to(command: argparse.ArgumentParser) -> None:
    add_client(command)
    command.add_argument("--json", action="store_true", help="one JSON object on standard output")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    settings.arguments()  # whether they can be used
    if options.json:
        print(json.dumps(_object(settings), indent=2))
        return 0
    screen = Screen(sys.stdout)
    marks = [mark for mark in ("production", "require_binding") if getattr(settings, mark)]
    screen.line(f"{settings}{': ' if marks else ''}{', '.join(marks)}")
    rows = [(".".join(keys), _written(one.value), one.layer) for keys, one in sorted(settings.values.items())]
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:2]]
    for name, value, layer in rows:
        screen.line(f"{name:{widths[0]}}  {value:{widths[1]}}  {layer}")
    return 0


def _object(settings: Settings) -> dict[str, object]:
    return {
        "version": 1,
        "configuration": settings.file,
        "client": settings.client,
        "environment": settings.environment,
        "production": settings.production,
        "require_binding": settings.require_binding,
        "values": {
            ".".join(keys): {"value": one.value, "layer": one.layer} for keys, one in sorted(settings.values.items())
        },
    }


def _written(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
