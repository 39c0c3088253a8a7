"""How late a call ends where the other side hangs or drips: `.venv/bin/python -m tests.faults` in the project's folder.

Two minutes by hand, while the machine does nothing else. Each row is called five times with 0.3 s of time; printed is
by how many milliseconds the calls overran it, in the middle and at most. More than 100 ms is too much, and the exit
code 1 then. Less than none: AWS has a time-out for connecting that is a little shorter.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from secretsource import SecretSourceError

from .bench import WAIT, Bench, Certificates
from .rows import QUESTIONS, Row
from .table import ROWS

_TIMES = 5
_TOO_LATE = 0.1


def overruns(bench: Bench, row: Row) -> list[float]:
    """In seconds. The first call, which makes what later ones find, is left out."""
    seconds = []
    for _ in range(_TIMES + 1):
        source = bench.prepared(row, QUESTIONS[row.at])
        began = time.perf_counter()
        try:
            source.token()
        except SecretSourceError:
            seconds.append(time.perf_counter() - began - WAIT)
    return seconds[1:]


def main() -> int:
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates.made_in(Path(folder))
        os.environ["AWS_CA_BUNDLE"] = str(certificates.ca_file)
        with Bench(certificates) as bench:
            print(f"{'ms over the deadline':54} middle   most")
            for row in ROWS:
                if row.waits:
                    late = overruns(bench, row)
                    worst = max(worst, *late)
                    print(f"{row.id:54} {statistics.median(late) * 1000:6.1f} {max(late) * 1000:6.1f}")
    print(f"{'the worst':54} {'':6} {worst * 1000:6.1f}")
    return worst > _TOO_LATE


if __name__ == "__main__":
    sys.exit(main())
