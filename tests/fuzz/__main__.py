"""Fuzzing by hand, guided by what of the library an input reaches: see `targets` for how to run it."""

from __future__ import annotations

import importlib
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

_CORPUS = Path(__file__).with_name("corpus")


def main(arguments: list[str]) -> int:
    try:
        atheris: Any = importlib.import_module("atheris")
    except ModuleNotFoundError:
        print("this needs atheris: .venv/bin/pip install atheris", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["secretsource"]):
        targets = importlib.import_module("tests.fuzz.targets").TARGETS
    name, *options = arguments or [""]
    if name not in targets:
        print(
            f"python -m tests.fuzz TARGET [FILE] [options of libFuzzer]; targets: {', '.join(targets)}", file=sys.stderr
        )
        return 2
    warnings.simplefilter("error")
    if not any(Path(option).exists() for option in options):  # those are the inputs, else the corpus is to grow
        found = tempfile.mkdtemp(prefix=f"fuzz-{name}-")
        print(f"what it finds is kept in {found}", file=sys.stderr)
        options = [f"-artifact_prefix={found}/", "-timeout=20", *options, found, str(_CORPUS / name)]
    atheris.Setup([sys.argv[0], *options], targets[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
