"""Whatever the system answers, a caller gets one of our errors: no foreign exception, no secret, no open descriptor."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secretsource import BackendError, BackendUnavailable, ConfigurationError, SecretReference, SecretSourceError
from secretsource.backends.env import EnvBackend
from secretsource.backends.file import FileBackend
from secretsource.backends.systemd import SystemdBackend
from secretsource.secret import Secret

from ..backends.layouts import CANARY, kubelet, shows, write
from .outcomes import LEVELS, ROOT, named, outcome

POS = {"client_id": "pos", "client_secret": CANARY}


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def failing(number: int, skip: int) -> Callable[..., Any]:
    """A function of os that does its work a few times, and then fails, with the secret in the error."""

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        left = [skip]

        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(number, CANARY, CANARY)
            return real(*args, **kwargs)

        return call

    return wrap


@pytest.mark.parametrize("call", ["open", "stat", "fstat", "readlink", "listdir", "read", "getxattr"])
def test_every_error_of_every_call_of_a_read_is_one_of_ours(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    if not hasattr(os, call):
        pytest.skip(f"there is no os.{call} here")
    mount = kubelet(folder / "pos", POS, mode=0o600, root=0o755)
    for path in ((mount / "..data" / name).resolve() for name in POS):
        path.chmod(0o640)
    where, real, before = SecretReference.parse(f"file://{mount}/"), getattr(os, call), descriptors()
    for number in errno.errorcode:
        for skip in (0, 1, 5):
            monkeypatch.setattr(os, call, failing(number, skip)(real))
            try:
                FileBackend(access="mounted" if call != "getxattr" else "private").read(where, fresh=True, timeout=5)
            except BackendError as error:
                assert CANARY not in str(error)  # noqa: PT017
            finally:
                monkeypatch.setattr(os, call, real)
    assert descriptors() == before


@pytest.mark.parametrize(
    "call", ["open", "stat", "fstat", "read", "write", "fchmod", "fsync", "rename", "listdir", "unlink"]
)
def test_every_error_of_every_call_of_a_write_is_one_of_ours_and_leaves_a_whole_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = write(folder / "secret", CANARY)
    where, real, before = SecretReference.parse(f"file://{path}"), getattr(os, call), descriptors()
    backend = FileBackend()
    version = backend.read_whole(where, timeout=5).version
    for number in (errno.EIO, errno.ENOSPC, errno.EPERM, errno.EROFS, errno.EDQUOT, errno.EBUSY, errno.EMFILE):
        for skip in (0, 1, 5):
            monkeypatch.setattr(os, call, failing(number, skip)(real))
            fields = {"client_secret": Secret(f"{CANARY}-{number}-{skip}")}
            try:
                version = backend.write_whole(where, fields, version=version, timeout=5)
            except BackendError as error:
                named(error)
            finally:
                monkeypatch.setattr(os, call, real)
            stored = backend.read_whole(where, timeout=5)
            assert stored.fields["client_secret"].reveal().startswith(CANARY)
            version = stored.version
    assert {each.name for each in folder.iterdir()} == {"secret", ".secret.lock"}
    assert descriptors() == before


def test_what_is_no_error_of_the_system_goes_through_and_nothing_stays_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    path, before = write(folder / "secret", CANARY), descriptors()
    monkeypatch.setattr(os, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        outcome(path, "private")
    assert descriptors() == before


STARVED = """
import json, os, resource, sys
from secretsource import SecretReference, SecretSourceError
from secretsource.backends.file import FileBackend
path, level = sys.argv[1:]
backend, reference = FileBackend(access=level), SecretReference.parse(f"file://{path}")
backend.read(reference, fresh=True, timeout=5)
first = os.open("/dev/null", os.O_RDONLY)
os.close(first)
outcomes = []
for free in range(16):
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        backend.read(reference, fresh=True, timeout=5)
    except SecretSourceError as error:
        outcomes.append(f"{type(error).__name__} {'EMFILE' in str(error)}")
    else:
        outcomes.append("read")
print(json.dumps(outcomes))
"""


@pytest.mark.parametrize("level", LEVELS)
def test_without_descriptors_the_store_is_unavailable_and_nobody_is_accused(home: Path, level: str) -> None:
    path = write(home / "pos.json")
    child = subprocess.run(
        [sys.executable, "-c", STARVED, path, level], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert child.returncode == 0, child.stderr
    outcomes = json.loads(child.stdout)
    assert outcomes[0] == "BackendUnavailable True"
    assert outcomes[-1] == "read"
    assert outcomes == sorted(outcomes), "it is read as soon as there are enough"
    assert set(outcomes) == {"BackendUnavailable True", "read"}


IMPOSSIBLE = ["/a\0b", "/a\ud800b"]


@pytest.mark.parametrize("path", IMPOSSIBLE, ids=ascii)
@pytest.mark.parametrize(
    "read",
    [
        lambda path: FileBackend(root=path).read(SecretReference.parse("file:a"), fresh=True, timeout=1),
        lambda path: FileBackend(root=path).write_whole(
            SecretReference.parse("file:a"), {"client_secret": "x"}, version=None, timeout=1
        ),
        lambda path: SystemdBackend({"CREDENTIALS_DIRECTORY": path}).read(
            SecretReference.parse("systemd:a"), fresh=True, timeout=1
        ),
        lambda path: EnvBackend({"POS_CLIENT_SECRET_FILE": path}).read(
            SecretReference.parse("env:POS"), fresh=True, timeout=1
        ),
    ],
    ids=["root", "root-written", "systemd", "env"],
)
def test_a_path_that_no_file_can_have_is_an_error_of_ours(path: str, read: Callable[[str], object]) -> None:
    with pytest.raises(ConfigurationError, match="a path that no file can have") as caught:
        read(path)
    assert caught.value.__context__ is None
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("root", "environ"), [("/\udcff\x1b[31m", {}), (None, {"CREDENTIALS_DIRECTORY": "/\udcff\x1b[31m"})]
)
def test_a_path_that_no_terminal_should_print_is_escaped(root: str | None, environ: dict[str, str]) -> None:
    backend = FileBackend(root=root) if root else SystemdBackend(environ)
    where = SecretReference.parse("file:a" if root else "systemd:a")
    with pytest.raises(SecretSourceError) as caught:
        backend.read(where, fresh=True, timeout=1)
    text = str(caught.value)
    assert text.isprintable()
    assert "[31m" in text


def test_a_root_with_odd_characters_is_escaped_where_something_leads_out_of_it(folder: Path) -> None:
    root = folder / "\x1b[31m"
    root.mkdir()
    (root / "up").symlink_to(write(folder / "secret", CANARY))
    with pytest.raises(SecretSourceError, match="is outside of root=") as caught:
        FileBackend(root=root).read(SecretReference.parse("file:up"), fresh=True, timeout=1)
    assert str(caught.value).isprintable()


def test_a_file_named_with_odd_bytes_is_read_through_a_link(folder: Path) -> None:
    odd = os.fsencode(folder) + b"/\xff\x1b"
    with open(os.open(odd, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
        file.write(CANARY)
    (folder / "link").symlink_to(os.fsdecode(odd))
    assert outcome(folder / "link", "private") == "read"
    os.chmod(odd, 0o644)
    assert outcome(folder / "link", "private") == "F05"


def test_a_candidate_on_a_failing_disk_is_not_taken_for_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*POS, "client_secret_pending"):
        write(folder / name, CANARY)
    real = os.open

    def broken(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == "client_secret_pending":
            raise OSError(errno.EIO, CANARY)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", broken)
    with pytest.raises(BackendUnavailable, match="EIO") as caught:
        FileBackend().read(SecretReference.parse(f"file://{folder}/"), fresh=True, timeout=1)
    assert not shows(caught.value)
