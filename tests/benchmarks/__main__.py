"""All benchmarks and one table: `python tests/benchmarks`. A minute and a half; let nothing else run meanwhile."""

from __future__ import annotations

from itertools import chain

import cold_start
import expiry
import first_token
import header
import hit
import importing
import memory
from measuring import show

if __name__ == "__main__":
    show(
        chain.from_iterable(
            benchmark.rows() for benchmark in (hit, header, cold_start, expiry, importing, first_token, memory)
        ),
    )
