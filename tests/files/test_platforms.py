"""Platforms that cannot be had here, by their rules: a process that lacks what they lack.

Windows: nobody's access can be told, so every level but `unchecked` is refused [F16], and the error says what to use.
macOS: no O_PATH and no /proc, so `strict` cannot tell the file system and is refused [F16]; owners, modes, links and
parents are judged as on Linux, and ACLs are not seen. BSD is the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..backends.layouts import CANARY, write
from .outcomes import ROOT

# Everything of the standard library that asks for the platform while it is imported comes first.
WINDOWS = """
import asyncio, logging, os, pathlib, re, socket, ssl, subprocess, sys, tempfile, threading, traceback, tomllib
import pytest
sys.platform = "win32"
for module in ("pwd", "grp", "fcntl"):
    sys.modules[module] = None
for name in ("geteuid", "getuid", "getegid", "getgid", "getgroups", "fchmod", "fchown", "chown", "getxattr", "setxattr",
             "O_NOFOLLOW", "O_CLOEXEC", "O_DIRECTORY", "O_PATH", "O_NONBLOCK", "O_NOCTTY"):
    if hasattr(os, name):
        delattr(os, name)
os.supports_dir_fd.clear()
"""
MACOS = """
import builtins, os, sys
import pytest
sys.platform = "darwin"
for name in ("O_PATH", "getxattr", "setxattr", "removexattr", "listxattr"):
    if hasattr(os, name):
        delattr(os, name)
real = builtins.open
def without_proc(file, *args, **kwargs):
    if str(file).startswith("/proc/"):
        raise FileNotFoundError(2, "No such file or directory")
    return real(file, *args, **kwargs)
builtins.open = without_proc
"""
ASK = """
import json, re
from secretsource import SecretReference, SecretSourceError
from secretsource.backends.env import EnvBackend
from secretsource.backends.file import FileBackend
from secretsource.backends.systemd import SystemdBackend
from secretsource.secret import Secret

def asked(action):
    try:
        found = action()
    except SecretSourceError as error:
        assert error.__context__ is None and error.__cause__ is None
        code = re.search(r"\\[(F\\d\\d)\\]", str(error))
        return [code[1] if code else type(error).__name__, str(error), error.hint]
    return found

def read(reference, backend=None, **arguments):
    def action():
        store = backend or FileBackend(**arguments)
        document = store.read(SecretReference.parse(reference), fresh=True, timeout=5)
        value = document.text or document.fields["client_secret"]
        return value.reveal()
    return asked(action)

def put(reference, value, **arguments):
    def action():
        store, where = FileBackend(**arguments), SecretReference.parse(reference)
        stored = store.read_whole(where, timeout=5)
        store.write_whole(where, {"client_secret": Secret(value)}, version=stored.version, timeout=5)
        return read(reference, **arguments)
    return asked(action)

at = json.loads(input())
LEVELS = ("strict", "private", "mounted", "unchecked")
"""


def ask(platform: str, at: Path, questions: str) -> dict[str, Any]:
    child = subprocess.run(
        [sys.executable, "-c", f"{platform}{ASK}\nprint(json.dumps({questions}))"],
        input=json.dumps(str(at)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert child.returncode == 0, child.stderr
    answers: dict[str, Any] = json.loads(child.stdout)
    assert CANARY not in json.dumps([answer for answer in answers.values() if answer != CANARY])
    return answers


def codes(answers: dict[str, Any]) -> dict[str, str]:
    return {name: answer if isinstance(answer, str) else answer[0] for name, answer in answers.items()}


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Windows answers about a few places."""
    folder = tmp_path_factory.mktemp("windows")
    write(folder / "secret", f"{CANARY}\n")
    write(folder / "closed", CANARY)
    write(folder / "empty", "")
    (folder / "ring").symlink_to("ring")
    (folder / "inner").mkdir()
    (folder / "inner" / "out").symlink_to("../secret")
    os.mkfifo(folder / "fifo")
    return ask(
        WINDOWS,
        folder,
        """{
        **{level: read(f"file://{at}/secret", access=level) for level in LEVELS},
        **{f"directory at {level}": read(f"file://{at}/", access=level) for level in LEVELS},
        **{f"written at {level}": put(f"file://{at}/secret", "new", access=level) for level in LEVELS[:2] + LEVELS[3:]},
        "systemd": read("systemd:secret", SystemdBackend({"CREDENTIALS_DIRECTORY": at})),
        "variable": read("env:POS", EnvBackend({"POS_CLIENT_SECRET_FILE": f"{at}/secret"})),
        "missing": read(f"file://{at}/missing", access="unchecked"),
        "empty": read(f"file://{at}/empty", access="unchecked"),
        "folder": read(f"file://{at}/inner", access="unchecked"),
        "fifo": read(f"file://{at}/fifo", access="unchecked"),
        "console": read("file:///dev/tty", access="unchecked"),
        "ring": read(f"file://{at}/ring", access="unchecked"),
        "within": read("file:secret", root=at, access="unchecked"),
        "outside": read("file:out", root=f"{at}/inner", access="unchecked"),
        "no root": read("file:a", root="/a\\0b", access="unchecked"),
        "owner by name": asked(lambda: FileBackend(owners=["root"])),
        "strictest": list(FileBackend().strictest_level(SecretReference.parse(f"file://{at}/secret"))),
        }""",
    )


def test_on_windows_every_level_says_that_it_cannot_be_checked(windows: dict[str, Any]) -> None:
    for asked in ("strict", "private", "mounted", "systemd", "variable"):
        code, text, hint = windows[asked]
        assert code == "F16"
        assert "cannot be told on this platform" in text
        assert "environment variables, env://NAME" in hint
        assert "FileBackend(access='unchecked')" in hint
    assert windows["unchecked"] == CANARY
    assert windows["strictest"][0] is None
    assert "[F16]" in windows["strictest"][1]


def test_on_windows_no_directory_is_read_and_nothing_written(windows: dict[str, Any]) -> None:
    refused = {name: answer for name, answer in windows.items() if name.startswith(("directory", "written"))}
    assert set(codes(refused).values()) == {"F16"}
    for name in ("directory at unchecked", "written at unchecked"):
        assert "unchecked" not in windows[name][2], "that is what was set already"
        assert "Name one file" in windows[name][2]


def test_on_windows_an_unchecked_file_has_the_same_errors_and_no_others(windows: dict[str, Any]) -> None:
    assert {
        name: code
        for name, code in codes(windows).items()
        if name in {"missing", "empty", "folder", "fifo", "console", "ring", "within", "outside", "no root"}
    } == {
        "missing": "F01",
        "empty": "F12",
        "folder": "F02",
        "fifo": "F02",
        "console": "F02",
        "ring": "BackendUnavailable",
        "within": CANARY,
        "outside": "F09",
        "no root": "ConfigurationError",
    }
    assert "Give the number" in windows["owner by name"][2]


def test_on_windows_a_file_that_the_system_refuses_is_denied(folder: Path) -> None:
    write(folder / "secret", CANARY)
    refusing = WINDOWS + (
        "\nimport builtins\nreal = builtins.open\n"
        "def refused(file, *args, **kwargs):\n"
        "    if str(file).endswith('/secret'):\n"
        "        raise PermissionError(13, 'Permission denied')\n"
        "    return real(file, *args, **kwargs)\n"
        "builtins.open = refused\n"
    )
    answers = ask(refusing, folder, """{"closed": read(f"file://{at}/secret", access="unchecked")}""")
    assert answers["closed"][0] == "AccessDenied"
    assert "is not open to us" in answers["closed"][1]


def test_on_macos_all_but_strict_is_judged_and_strict_says_why_not(home: Path) -> None:
    write(home / "secret", CANARY)
    write(home / "open", CANARY, 0o644)
    write(home / "written", CANARY, 0o606)
    (home / "link").symlink_to("secret")
    (home / "wide").mkdir()
    write(home / "wide" / "secret", CANARY)
    (home / "wide").chmod(0o757)
    os.mkfifo(home / "fifo", 0o600)
    names = ("secret", "open", "written", "link", "wide/secret", "fifo")
    answers = ask(
        MACOS,
        home,
        f"""{{f"{{name}} {{level}}": read(f"file://{{at}}/{{name}}", access=level)
            for name in {names} for level in LEVELS}}""",
    )
    found = codes(answers)
    assert {
        name: [found[f"{name} {level}"] for level in ("strict", "private", "mounted", "unchecked")] for name in names
    } == {
        "secret": ["F16", CANARY, CANARY, CANARY],
        "open": ["F05", "F05", CANARY, CANARY],
        "written": ["F06", "F06", "F06", CANARY],
        "link": ["F09", CANARY, CANARY, CANARY],
        "wide/secret": ["F10", "F10", "F10", CANARY],
        "fifo": ["F02", "F02", "F02", "F02"],
    }
    assert "Set access=private, which does not ask" in answers["secret strict"][2]


def test_on_macos_a_file_is_written_and_read_back(home: Path) -> None:
    write(home / "secret", "old")
    assert ask(MACOS, home, f"""{{"new": put(f"file://{{at}}/secret", "{CANARY}")}}""") == {"new": CANARY}
    assert (home / "secret").stat().st_mode & 0o777 == 0o600
