"""The big rows once more, by what the system says of a process's memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .growth import MEASURABLE
from .table import ROWS

GROWTH = 5 << 20


@pytest.mark.skipif(not MEASURABLE, reason="the system does not say what a process has had at most")
def test_no_answer_however_big_makes_a_process_grow_by_five_mebibytes() -> None:
    measuring = [sys.executable, "-m", "tests.faults.growth"]
    root = Path(__file__).parents[2]
    done = subprocess.run(measuring, cwd=root, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    growth: dict[str, int] = json.loads(done.stdout)
    assert growth.keys() == {row.id for row in ROWS if row.big}
    assert {row: size for row, size in growth.items() if size >= GROWTH} == {}
