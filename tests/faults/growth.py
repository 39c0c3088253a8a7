"""What the big rows cost in resident memory: `python -m tests.faults.growth` prints bytes by row, as JSON.

A process of its own, since Python's own count of memory does not see what OpenSSL or zlib would take.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from secretsource import SecretSourceError

from .bench import Bench, Certificates, gone_within, sockets_to
from .rows import QUESTIONS, Row
from .table import ROWS

_HERE = Path("/proc/self")
MEASURABLE = (_HERE / "clear_refs").exists()
"""Whether the system keeps the most that a process has had, and forgets it when asked to."""


def measured(bench: Bench, row: Row) -> int:
    source = bench.prepared(row, QUESTIONS[row.at])
    sockets = sockets_to(bench.ports)
    (_HERE / "clear_refs").write_text("5")
    before = _bytes("VmRSS")
    with suppress(SecretSourceError):
        source.token()
    growth = _bytes("VmHWM") - before
    assert gone_within(5.0, source, bench.ports, sockets) == []
    return growth


def _bytes(name: str) -> int:
    (line,) = [line for line in (_HERE / "status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024


def main() -> None:
    big = [row for row in ROWS if row.big]
    with tempfile.TemporaryDirectory() as folder:
        certificates = Certificates.made_in(Path(folder))
        os.environ["AWS_CA_BUNDLE"] = str(certificates.ca_file)
        with Bench(certificates) as bench:
            for at in {row.at for row in big}:  # what is made once for all calls is made now
                measured(bench, next(row for row in ROWS if row.at == at))
            json.dump({row.id: measured(bench, row) for row in big}, sys.stdout)


if __name__ == "__main__":
    main()
