"""The server of the Vault tests itself: nothing of it is left behind, whatever ends whoever started it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from ..stores import eventually
from .openbao import OpenBao, Unavailable

ROOT = Path(__file__).resolve().parents[2]
STARTER = """
import sys, time, trustme
from pathlib import Path
from tests.backends.openbao import OpenBao
with OpenBao(Path(sys.argv[1]), trustme.CA()) as server:
    print(server.address, flush=True)
    time.sleep(60)
"""


def listens(address: str) -> bool:
    host, _, port = address.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def test_it_ends_with_its_block(tmp_path: Path) -> None:
    try:
        with OpenBao(tmp_path, trustme.CA()) as server:
            assert listens(server.address)
    except Unavailable as why:
        pytest.skip(str(why))
    assert not listens(server.address)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("openbao")  # else it is skipped
def test_it_ends_with_whoever_started_it(tmp_path: Path, number: signal.Signals) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    with starter:
        assert starter.stdout is not None
        address = starter.stdout.readline().strip()
        assert listens(address)
        starter.send_signal(number)
        starter.wait(30)
    eventually(lambda: not listens(address), "it is still there")
