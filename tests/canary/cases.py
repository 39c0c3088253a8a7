"""Which cases of a long list run each time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["the_rest_slow"]


def the_rest_slow(cases: Iterable[Any], *kept: Any) -> list[Any]:
    """Those that are kept run each time, since each stands for several; the others with `-m slow`."""
    given = list(cases)
    assert set(kept) <= set(given), set(kept) - set(given)
    return [case if case in kept else pytest.param(case, marks=pytest.mark.slow) for case in given]
