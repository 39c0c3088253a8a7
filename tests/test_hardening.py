"""A hardened process writes no core dump, and no other process of its user reads it. Each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from secretsource.testing import FakeIssuer, Fault

from .stores import CLIENT, A

linux = pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc are Linux's")


def ran(code: str) -> str:
    head = """
        import ctypes, os, resource, signal, sys
        from secretsource import harden_process

        def become_an_ordinary_user():
            if os.getuid() == 0:
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
                ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # to change the user has the same effect

        def in_child(work):
            child = os.fork()
            if child == 0:
                os._exit(work())
            return os.waitpid(child, 0)[1]

        def readable_from_outside():
            me = os.getpid()

            def look():
                try:
                    open(f"/proc/{me}/environ", "rb").close()
                except PermissionError:
                    return 1
                return 0
            return in_child(look) == 0
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@linux
def test_another_process_of_the_same_user_reads_nothing_of_a_hardened_one() -> None:
    printed = ran(
        """
        become_an_ordinary_user()
        print(readable_from_outside())
        print(sorted(harden_process()))
        print(readable_from_outside())
        """
    )
    assert printed.splitlines() == ["True", "['no core dump', 'not dumpable']", "False"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
def test_a_hardened_process_may_write_no_core_dump_nor_may_what_it_starts(tmp_path: Path) -> None:
    printed = ran(
        f"""
        os.chdir({str(tmp_path)!r})
        harden_process()
        print(resource.getrlimit(resource.RLIMIT_CORE))
        print(os.WCOREDUMP(in_child(os.abort)))
        sys.stdout.flush()
        limit = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
        os.execv(sys.executable, [sys.executable, "-c", limit])
        """
    )
    assert printed.splitlines() == ["(0, 0)", "False", "(0, 0)"]
    assert list(tmp_path.iterdir()) == []


@linux
def test_secret_files_can_be_checked_by_a_hardened_process() -> None:
    """It may not look up its own memory in /proc any more, but mounts and access control lists."""
    printed = ran(
        """
        import tempfile
        from secretsource import TokenSource, CredentialsSource
        from secretsource.backends import access
        become_an_ordinary_user()
        harden_process()
        with tempfile.NamedTemporaryFile() as file:
            print(access.mount_of(file.fileno()) is not None, access.posix_acl(file.fileno()))
            file.write(b'{"client_id": "pos", "client_secret": "not-a-real-secret"}')
            file.flush()
            print(CredentialsSource(f"file://{file.name}?format=json").current().client_id)
        """
    )
    assert printed.splitlines() == ["True None", "pos"]


@linux
def test_the_command_line_hardens_itself() -> None:
    with FakeIssuer() as issuer:
        issuer.add_client(CLIENT, A)
        issuer.fail(Fault(hang=True))
        command = [sys.executable, "-m", "secretsource", "token", "--credentials", "env:POS"]
        with subprocess.Popen(
            [*command, "--token-url", issuer.token_url],
            env={"POS_CLIENT_ID": CLIENT, "POS_CLIENT_SECRET": A},
            stderr=subprocess.DEVNULL,
        ) as process:
            issuer.wait_for_token_requests(1, timeout=60)
            limits = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
            process.kill()
        issuer.release()
    assert [line.split()[-3:-1] for line in limits if line.startswith("Max core file size")] == [["0", "0"]]
