from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from secretsource.cli import demo
from secretsource.testing import FakeIssuer

from . import PATIENCE, called, process, started


def test_no_call_fails_through_two_changes_of_the_secret_and_an_outage(tmp_path: Path) -> None:
    ran = process("demo", "--json", TMPDIR=str(tmp_path))
    assert ran.code == 0, ran.err
    figures: dict[str, Any] = json.loads(ran.out)
    assert figures["calls"] > 100
    assert figures["failed_calls"] == 0
    assert figures["rejected_candidates"] >= 1
    assert figures["rotation"] == "done"
    assert len(figures["secret_versions"]) >= 3  # a document may have gone before anybody read it
    assert figures["tokens"] >= 3
    assert figures["token_requests"] > figures["tokens"]
    assert figures["outage"]["calls"] > 0
    assert figures["outage"]["served_by"] == "the kept token"
    assert "demo-secret" not in ran.out + ran.err
    assert "the issuer is back" in ran.err  # it is shown live, beside the JSON
    assert list(tmp_path.iterdir()) == []


class RefusingAtFirst(FakeIssuer):
    """Its first tokens are refused by the API."""

    refusals = 5

    def accepts(self, access_token: str) -> bool:
        if self.refusals > 0:
            self.refusals -= 1
            return False
        return super().accepts(access_token)


def test_a_failed_call_is_counted_in_plain_text_and_in_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "FakeIssuer", RefusingAtFirst)
    monkeypatch.setitem(sys.modules, "rich", None)
    threads = set(threading.enumerate())
    ran = called("demo")
    assert (ran.code, ran.err) == (1, "")
    assert "\x1b" not in ran.out
    table = dict(line.strip().split("  ", 1) for line in ran.out.partition("What happened in")[2].splitlines()[1:])
    assert 1 <= int(table["failed calls"].strip()) <= RefusingAtFirst.refusals
    assert int(table["calls of the API"].strip()) > 100
    assert set(table) >= {"token requests", "secret versions seen", "during the outage"}
    assert set(threading.enumerate()) == threads
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_ends_it_with_130_and_leaves_no_file(tmp_path: Path) -> None:
    with started("demo", TMPDIR=str(tmp_path)) as child:
        assert child.stdout is not None
        assert "issuer http://127.0.0.1" in child.stdout.readline()
        assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o700]
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, err) == (130, "secretsource: interrupted\n")
    assert list(tmp_path.iterdir()) == []
