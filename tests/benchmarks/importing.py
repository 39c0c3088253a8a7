"""What `import secretsource` adds to a bare Python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from time import perf_counter

from measuring import Row, show, side_by_side

_UNWANTED = ("httpx", "httpx2", "hvac", "boto3", "cachetools")


def _seconds(code: str) -> float:
    began = perf_counter()
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
    return perf_counter() - began


def rows() -> Iterator[Row]:
    _seconds("import secretsource")  # writes the byte code
    pair = side_by_side(lambda: _seconds("import secretsource"), lambda: _seconds("pass"), rounds=40)
    note = f"fastest round {pair.ours * 1000:.1f} ms, bare Python {pair.theirs * 1000:.1f} ms"
    yield Row("import secretsource, over bare Python", pair.difference * 1000, 20, "ms", note)
    code = f"import sys, secretsource; print(*[name for name in {_UNWANTED!r} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    note = f"it imports {', '.join(found)}" if found else f"none of {', '.join(_UNWANTED)}"
    yield Row("third-party libraries that it imports", len(found), 0, "", note)


if __name__ == "__main__":
    show(rows())
