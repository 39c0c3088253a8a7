"""Every way a secret file may lie there, at every level, as whoever runs the tests and as an ordinary user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from secretsource.backends import access
from secretsource.backends.access import Mount

from ..backends.layouts import as_root, write
from .outcomes import LEVELS, outcome, outcomes_of
from .table import CREW, ORDINARY, OURS, READER, ROOTS, Row


def named(row: Row) -> str:
    return row.name


def met(row: Row, at: Path) -> dict[str, str]:
    path = row.make(at)
    return {level: outcome(path, level, row.owners) for level in LEVELS}


@pytest.mark.parametrize("row", OURS, ids=named)
def test_each_level_reads_or_refuses_what_whoever_runs_the_tests_made(home: Path, row: Row) -> None:
    assert met(row, home) == row.outcomes


@as_root
@pytest.mark.parametrize("row", ROOTS, ids=named)
def test_each_level_reads_or_refuses_what_root_has_given_away(home: Path, row: Row) -> None:
    assert met(row, home) == row.outcomes


@as_root
@pytest.mark.parametrize("row", ORDINARY, ids=named)
def test_each_level_reads_or_refuses_for_an_ordinary_user(read_by_another: dict[str, dict[str, str]], row: Row) -> None:
    if row.name not in read_by_another:
        pytest.skip("this file system keeps no ACLs")
    assert read_by_another[row.name] == row.outcomes


@pytest.fixture(scope="module")
def read_by_another(open_home: Path) -> dict[str, dict[str, str]]:
    """All rows in one other process, since to start one takes longer than to read them all."""
    before = os.umask(0o022)
    try:
        rows = list(laid_out(open_home))
    finally:
        os.umask(before)
    asked = [(path, level, row.owners) for row, path in rows for level in LEVELS]
    found = iter(outcomes_of(asked, uid=READER, groups=[CREW]))
    return {row.name: {level: " ".join(next(found)) for level in LEVELS} for row, _ in rows}


def laid_out(base: Path) -> Iterator[tuple[Row, str]]:
    for number, row in enumerate(ORDINARY):
        (base / str(number)).mkdir()
        with suppress(pytest.skip.Exception):
            yield row, str(row.make(base / str(number)))


def test_what_a_stricter_level_reads_every_looser_one_reads() -> None:
    for row in (*OURS, *ROOTS, *ORDINARY):
        reads = [row.outcomes[level] == "read" for level in LEVELS]
        assert reads == sorted(reads), row.name


def test_every_refusal_that_a_layout_can_meet_has_a_row() -> None:
    met = {code for row in (*OURS, *ROOTS, *ORDINARY) for code in row.outcomes.values()}
    assert {code for code in met if code.startswith("F")} == {
        f"F{number:02}"
        for number in range(1, 17)
        if number not in (11, 15, 16)  # what moves, a network, a platform
    }


@pytest.mark.parametrize("kind", ["nfs4", "fuse.sshfs"])
def test_a_network_file_system_is_refused_at_strict_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = write(home / "pos.json")
    monkeypatch.setattr(access, "mount_of", lambda fd: Mount("1", kind))
    assert {level: outcome(path, level) for level in LEVELS} == {
        "strict": "F15",
        "private": "read",
        "mounted": "read",
        "unchecked": "read",
    }


@pytest.mark.parametrize("acl", [b"", b"\2\0\0", b"\2\0\0\0\2"])
def test_an_acl_that_is_none_means_anybody(home: Path, monkeypatch: pytest.MonkeyPatch, acl: bytes) -> None:
    path = write(home / "pos.json", mode=0o640)
    monkeypatch.setattr(access, "posix_acl", lambda fd: acl)
    assert outcome(path, "private") == "F05"
