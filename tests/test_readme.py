"""The README is true: its Python runs, its commands exist, its two commands stand as agreed."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from secretsource.cli import _parsed, main

from .sites import ORDERS, Site

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.S)
COMMANDS = re.findall(r"^secretsource .*$", README, re.M)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with Site() as site:
        site.add_client("pos", "not-a-real-secret")
        monkeypatch.setenv("POS_CLIENT_ID", "pos")
        monkeypatch.setenv("POS_CLIENT_SECRET", "not-a-real-secret")
        yield site


def test_its_python_runs_from_top_to_bottom(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block.replace("https://pos.example.com/", site.url), "README.md", "exec"), names)
    assert str({"data": {"orders": ORDERS}}) in capsys.readouterr().out
    assert names["mine"].token().access_token  # type: ignore[attr-defined]
    names["client"].close()  # type: ignore[attr-defined]


def test_its_first_python_is_ten_lines_at_most() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line]) <= 10


def test_its_commands_run(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMANDS
    for command in COMMANDS:
        arguments = shlex.split(command.replace("https://pos.example.com/", site.url))
        assert main(arguments[1:]) == 0, capsys.readouterr()


def test_its_commands_for_a_configuration_are_understood() -> None:
    commands = re.findall(r"^    (secretsource .*)$", README, re.M)
    assert len(commands) >= 3
    for command in commands:
        assert _parsed(shlex.split(command, comments=True)[1:]).run


def test_its_two_commands_stand_near_the_top_as_agreed() -> None:
    lines = README.splitlines()
    start = "python3 -m venv .venv && .venv/bin/pip install -q "
    demo = lines.index(start + "'.[cli]' && .venv/bin/secretsource demo")
    tests = lines.index(start + "-e '.[test]' && .venv/bin/pytest -n 2 --dist loadfile")
    assert demo < tests < 45


def test_its_links_lead_somewhere() -> None:
    anchors = {re.sub(r"[^a-z ]", "", line.lower()).strip().replace(" ", "-") for line in README.splitlines()}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists() or target.removeprefix("#") in anchors, target


def test_its_tree_of_errors_is_that_of_the_module() -> None:
    from secretsource import errors

    tree = README[README.index("SecretSourceError      ") : README.index("also a TimeoutError")]
    assert set(re.findall(r"(?:── |^)(\w+)", tree, re.M)) == set(errors.__all__)


def test_it_warns_of_nothing(site: Site) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(BLOCKS[0].replace("https://pos.example.com/", site.url), {})
