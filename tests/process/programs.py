"""Programs in processes of their own that ask an issuer for tokens."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from secretsource.testing import FakeIssuer

from ..stores import CLIENT, A

# Python 3.12 and newer warn of what is tried here: a fork of a process with threads.
_PYTHON = (sys.executable, "-W", "ignore::DeprecationWarning")

_HEAD = f"""
import os, signal, sys, threading, time, traceback
from secretsource import ClientCredentials, SecretSourceError, TokenSource

def new(**options):
    return TokenSource(ClientCredentials({CLIENT!r}, {A!r}), token_url=sys.argv[1], **options)

def in_child(work):
    # In a fork, with a limit of time: exit code 0 if it returned.
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            work()
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def begin(source, **request):
    # A request under way that hangs: this call gives up, and the flight goes on.
    try:
        source.token(timeout=0.3, **request)
    except SecretSourceError as error:
        assert "under way was: token request" in str(error), error

source = new()
"""


def script(issuer: FakeIssuer, body: str, *, before: str = "", file: Path | None = None, noisy: bool = False) -> str:
    """What a program prints that has a `source`. It ends by itself, and unless `noisy` with no word on standard error.

    `before` runs before anything else. Written to a `file`, it may be imported again by the processes that it spawns.
    """
    code = textwrap.dedent(before) + _HEAD + textwrap.dedent(body)
    if file is None:
        program = ["-c", code]
    else:
        file.write_text(code)
        program = [str(file)]
    done = subprocess.run(
        [*_PYTHON, *program, issuer.token_url], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert noisy or not done.stderr, done.stderr
    return done.stdout


@contextmanager
def running(issuer: FakeIssuer, body: str) -> Iterator[subprocess.Popen[str]]:
    """Such a program while it runs."""
    process = subprocess.Popen(
        [*_PYTHON, "-c", _HEAD + textwrap.dedent(body), issuer.token_url], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


@contextmanager
def issuer_of_its_own() -> Iterator[str]:
    """The token URL of an issuer in a process of its own."""
    code = f"""
import sys
from secretsource.testing import FakeIssuer
with FakeIssuer(lifetime=100) as issuer:
    issuer.add_client({CLIENT!r}, {A!r})
    print(issuer.token_url, flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen([*_PYTHON, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate(timeout=30)
