from __future__ import annotations

import doctest
import importlib
import importlib.util
import subprocess
import sys

import pytest

import secretsource.testing


def test_every_public_name_is_there() -> None:
    for name in secretsource.testing.__all__:
        assert getattr(secretsource.testing, name).__name__ == name
    assert set(secretsource.testing.__all__) <= set(dir(secretsource.testing))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = secretsource.testing.no_such_name


def test_all_but_contract_and_fixtures_need_only_python() -> None:
    names = [name for name in secretsource.testing.__all__ if name != "BackendContract"]
    code = (
        f"import sys; from secretsource.testing import {', '.join(names)}\n"
        "print([name for name in ('pytest', 'httpx', 'httpx2', 'cachetools') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["secretsource.testing", "secretsource.testing.static"])
def test_the_examples_run(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed
