"""A secret is changed in a file: only its own lines, whoever else writes, and whenever a rotator is killed."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from secretsource import AccessDenied, BackendUnavailable, ConfigurationError, SecretReference, SecretSourceError
from secretsource.backends import Rotatable, access, replace
from secretsource.backends.file import FileBackend
from secretsource.backends.walk import LARGEST
from secretsource.state import LONGEST_STATE, RotationState

from ..backends.layouts import NOBODY_ELSE, as_root, by, grant, shows, write
from ..backends.steps import CURRENT, PENDING, Steps
from ..stores import in_threads
from .outcomes import ROOT
from .reads import meanwhile

JSON = f"""{{
    "client_id": "pos",
    "port": 1.10,
    "client_secret": "{CURRENT}",
    "list": [1, "client_secret"]
}}
"""
TOML = f"""# ours
client_id = "pos"  # the site
client_secret = '{CURRENT}' # of May

[other]
client_secret = "not this" # theirs
"""
INI = f"; ours\n[DEFAULT]\nclient_id = pos\nclient_secret : {CURRENT}\n\n# theirs\n[other]\nclient_secret = not this\n"
ENV = f"# ours\r\nexport client_id=pos\r\nexport client_secret='{CURRENT}' # of May\r\nOTHER=1\r\n"
FORMATS = {"json": JSON, "toml": TOML, "ini": INI, "env": ENV}


def rotator(path: Path, fields: str = "", **settings: Any) -> Steps:
    return Steps(FileBackend(**settings), f"file://{path}{fields and '#' + fields}")


def lines(path: Path) -> list[str]:
    return path.read_bytes().decode().splitlines()


def without_ours(path: Path) -> list[str]:
    """The lines that no rotation adds, in their order, whatever secret and quotation marks there are."""
    ours = ("client_secret_pending", "client_secret_previous", "client_secret_rotation")
    left = [line for line in lines(path) if not any(name in line for name in ours)]
    return [re.sub("[\"']|,$", "", line.replace(PENDING, CURRENT)) for line in left]


def refused(kind: type[SecretSourceError], path: Path, says: str = "", hint: str = "", **settings: Any) -> str:
    """What the preflight says, which has written nothing."""
    folder = path.parent
    before = {each.name: each.lstat().st_mtime_ns for each in folder.iterdir()}
    one = rotator(path, **settings)
    with pytest.raises(kind) as caught:
        one.store.preflight(one.reference, timeout=5)
    assert not shows(caught.value, "not-a-real-secret")
    assert says in str(caught.value)
    assert hint in str(caught.value.hint)
    assert {each.name: each.lstat().st_mtime_ns for each in folder.iterdir()} == before
    return str(caught.value)


def cautions(path: Path, fields: str = "") -> list[str]:
    one = rotator(path, fields)
    return list(one.store.preflight(one.reference, timeout=5))


# --- the steps


def test_it_is_rotatable_and_says_whom_it_reaches() -> None:
    backend = FileBackend()
    assert isinstance(backend, Rotatable)
    assert "this very file" in backend.reaches
    assert backend.copied is False


@pytest.mark.parametrize("format", FORMATS)
def test_each_step_edits_only_the_lines_of_the_secret(folder: Path, format: str) -> None:
    path = write(folder / f"pos.{format}", FORMATS[format])
    before = without_ours(path)
    one = rotator(path)
    assert cautions(path) == []
    held = one.held()
    assert (held.client_id, one.secrets(), held.state) == ("pos", (CURRENT, None, None), RotationState())
    assert held.created == pytest.approx(path.stat().st_mtime, abs=0.001)

    one.claim()
    assert (one.secrets(), without_ours(path)) == ((CURRENT, PENDING, None), before)
    assert len(lines(path)) == len(FORMATS[format].splitlines()) + 2
    one.note()
    assert (one.secrets(), without_ours(path)) == ((CURRENT, PENDING, None), before)
    assert one.held().state == one.state(noted=1001.0, open_for=30.0, calls=1)
    one.promote()
    assert (one.secrets(), without_ours(path)) == ((PENDING, None, CURRENT), before)
    assert one.drop() is None
    assert (one.secrets(), without_ours(path)) == ((PENDING, None, None), before)
    assert len(lines(path)) == len(FORMATS[format].splitlines()) + 1
    assert one.held().state.finished == 1004.0
    assert path.read_bytes().endswith(FORMATS[format].encode()[-2:])


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_abandoned_leaves_the_file_as_it_was_but_for_the_state(folder: Path, format: str) -> None:
    path = write(folder / f"pos.{format}", FORMATS[format])
    one = rotator(path)
    one.claim()
    one.abandon()
    assert [line.rstrip(",") for line in lines(path) if "_rotation" not in line] == [
        line.rstrip(",") for line in FORMATS[format].splitlines()
    ]


NESTED = {
    "json": f'{{\n  "a": {{\n    "b": "pos",\n    "c": "{CURRENT}"\n  }},\n  "c": "not this"\n}}\n',
    "toml": f'c = "not this"\n[a] # ours\nb = "pos"\nc = "{CURRENT}" # of May\n',
    "ini": f"c = not this\n[a]\nb = pos\nc = {CURRENT}\n",
}


@pytest.mark.parametrize("format", NESTED)
def test_the_names_follow_a_secret_that_a_pointer_names(folder: Path, format: str) -> None:
    path = write(folder / f"pos.{format}", NESTED[format])
    one = rotator(path, "id=/a/b,secret=/a/c")
    assert cautions(path, "id=/a/b,secret=/a/c") == []
    for step in (one.claim, one.note, one.promote):
        step()
    assert one.secrets() == (PENDING, None, CURRENT)
    one.drop()
    left = [line.rstrip(",") for line in lines(path) if "c_rotation" not in line]
    assert left == [line.rstrip(",") for line in NESTED[format].replace(CURRENT, PENDING).splitlines()]


def test_variables_named_by_the_reference_are_followed(folder: Path) -> None:
    path = write(folder / "pos.env", f"APP_ID=pos\nAPP_KEY={CURRENT}\n")
    one = rotator(path, "id=APP_ID,secret=APP_KEY")
    assert cautions(path, "id=APP_ID,secret=APP_KEY") == []
    one.claim()
    assert lines(path)[:3] == ["APP_ID=pos", f"APP_KEY={CURRENT}", f"APP_KEY_pending={PENDING}"]


# --- before the first effect


@pytest.mark.parametrize("name", ["secret", "pos.txt"])
def test_a_text_file_has_no_room_and_the_recipe_is_printed(folder: Path, name: str) -> None:
    refused(ConfigurationError, write(folder / name, CURRENT), "no room", ".json")


@pytest.mark.parametrize(("path", "options"), [("pos/", ""), ("pos.json", "?access=mounted")])
def test_what_is_mounted_is_not_rotated(folder: Path, path: str, options: str) -> None:
    where = SecretReference.parse(f"file://{folder}/{path}{options}")
    with pytest.raises(ConfigurationError, match="who mounts it") as caught:
        FileBackend().preflight(where, timeout=5)
    assert "kubectl" in str(caught.value.hint)


def test_links_and_second_names_are_refused(folder: Path) -> None:
    path = write(folder / "pos.json", JSON)
    (folder / "link.json").symlink_to("pos.json")
    refused(AccessDenied, folder / "link.json", "[F09]", "Name the file")
    os.link(path, folder / "second.json")
    refused(AccessDenied, path, "[F08]")


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs", "smb3"])
def test_a_network_file_system_is_refused(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None may be mounted here: what the kernel says of it is given instead."""
    path = write(folder / "pos.json", JSON)
    monkeypatch.setattr(replace, "mount_of", lambda fd: access.Mount("1", kind))
    refused(AccessDenied, path, f"[F15]: {path} is on a network file system ({kind})", "local disk")


@pytest.mark.parametrize(
    ("mount", "says"),
    [
        (access.Mount("1", "virtiofs"), "from one of them only"),
        (None, "cannot be told"),
        (access.Mount("1", "xfs"), ""),
    ],
)
def test_a_file_system_that_is_shared_or_not_known_is_a_caution(
    folder: Path, mount: access.Mount | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder / "pos.json", JSON)
    monkeypatch.setattr(replace, "mount_of", lambda fd: mount)
    assert [says in caution for caution in cautions(path)] == [True] * bool(says)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pos.toml", f'x = {{client_id = "pos", client_secret = "{CURRENT}"}}\n'),
        ("pos.toml", f'x.client_id = "pos"\nx.client_secret = """{CURRENT}"""\n'),
    ],
)
def test_a_document_whose_lines_cannot_be_edited_is_refused_with_what_to_write(
    folder: Path, name: str, text: str
) -> None:
    path = write(folder / name, text)
    refused(
        ConfigurationError,
        path,
        "cannot be changed without",
        "in an editor",
        fields="id=/x/client_id,secret=/x/client_secret",
    )


def test_a_file_that_would_grow_beyond_what_is_read_is_refused(folder: Path) -> None:
    filler = "x" * (LARGEST - len(JSON) - LONGEST_STATE)
    path = write(folder / "pos.json", JSON.replace('"list"', f'"filler": "{filler}", "list"'))
    assert path.stat().st_size <= LARGEST
    refused(ConfigurationError, path, "larger than 64 KiB", "a file of their own")


def test_what_could_not_be_read_again_is_not_written(folder: Path) -> None:
    path = write(folder / "pos.json", JSON)
    with pytest.raises(ConfigurationError, match="64 KiB") as caught:
        rotator(path).claim("not-a-real-secret-" + "x" * LARGEST)
    assert not shows(caught.value, "not-a-real-secret")
    assert path.read_text() == JSON


def test_a_lock_file_that_is_none_of_ours_is_refused(folder: Path) -> None:
    path = write(folder / "pos.json", JSON)
    (folder / ".pos.json.lock").mkdir()
    refused(AccessDenied, path, "no lock file of ours")


@as_root
def test_a_directory_or_an_owner_that_another_user_cannot_keep_is_refused(folder: Path) -> None:
    own = folder / "own"
    own.mkdir(mode=0o750)
    path = write(own / "pos.json", JSON, 0o640)

    def tried(uid: int, groups: list[int]) -> str:
        def action() -> str:
            one = rotator(path)
            try:
                return str(list(one.store.preflight(one.reference, timeout=5)))
            except SecretSourceError as error:
                return str(error)

        found: str = by(uid, groups, action)
        return found

    os.chown(own, 0, NOBODY_ELSE)
    os.chown(path, 0, NOBODY_ELSE)
    assert "cannot write to the directory" in tried(NOBODY_ELSE, [NOBODY_ELSE])
    os.chown(own, NOBODY_ELSE, NOBODY_ELSE)
    assert "cannot keep" in tried(NOBODY_ELSE, [NOBODY_ELSE])
    os.chown(path, NOBODY_ELSE, 4321)
    path.chmod(0o600)
    assert "cannot keep" in tried(NOBODY_ELSE, [NOBODY_ELSE])
    assert tried(NOBODY_ELSE, [NOBODY_ELSE, 4321]) == "[]"


def test_owner_mode_and_acl_are_the_same_after_a_whole_rotation(folder: Path) -> None:
    path = grant(write(folder / "pos.json", JSON, 0o400), users={0: 4})
    before = (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode, os.getxattr(path, access.POSIX_ACL))
    one = rotator(path)
    for step in (one.claim, one.note, one.promote, one.drop):
        step()
    assert before == (
        path.stat().st_uid, path.stat().st_gid, path.stat().st_mode, os.getxattr(path, access.POSIX_ACL)
    )  # fmt: skip


# --- others who write


@pytest.mark.parametrize("call", ["fchmod", "write", "fsync"])
def test_a_writer_who_knows_no_lock_is_noticed_up_to_the_rename(
    folder: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder / "pos.json", JSON)
    theirs = JSON.replace('"pos"', '"POS"')
    one = rotator(path)
    held = one.held()
    real, done = getattr(os, call), list[int]()

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        if not done and any(folder.glob(".pos.json.*.new")):
            done.append(path.write_text(theirs))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, call, interrupted)
    with pytest.raises(BackendUnavailable, match="somebody else"):
        one.claim(held=held)
    assert done
    assert path.read_text() == theirs
    assert {each.name for each in folder.iterdir()} == {"pos.json", ".pos.json.lock"}


def test_a_file_that_was_put_there_or_taken_away_meanwhile_is_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder / "pos.json", JSON)
    one = rotator(path)
    held = one.held()
    meanwhile(monkeypatch, "fsync", path.unlink)
    with pytest.raises(BackendUnavailable, match="somebody else"):
        one.claim(held=held)
    assert not path.exists()
    meanwhile(monkeypatch, "fsync", lambda: write(path, JSON))
    with pytest.raises(BackendUnavailable, match="somebody else"):
        FileBackend().write_whole(one.reference, {"client_id": "x"}, version=None, timeout=5)
    assert path.read_text() == JSON


def test_a_lock_that_somebody_has_removed_is_not_taken_for_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "pos.json", JSON)
    one, lock = rotator(path), folder / ".pos.json.lock"
    held = one.held()
    real = fcntl.flock
    removed = list[int]()

    def flock(fd: int, operation: int) -> None:
        real(fd, operation)
        if not removed:
            removed.append(os.fstat(fd).st_ino)
            lock.unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    one.claim(held=held)
    assert lock.exists()
    assert one.secrets() == (CURRENT, PENDING, None)


def test_of_many_threads_one_claims_and_the_others_see_it(folder: Path) -> None:
    path = write(folder / "pos.toml", TOML)
    rotators = [Steps(FileBackend(), f"file://{path}", by=f"rotator-{number}") for number in range(6)]
    seen = [(one, one.held()) for one in rotators]

    def claim() -> str:
        one, held = seen.pop()
        one.claim(f"not-a-real-secret-of-{one.by}", held)
        return one.by

    outcomes = in_threads(6, claim)
    [winner] = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert sum(type(outcome) is BackendUnavailable for outcome in outcomes) == 5
    assert {(one.held().state.by, one.secrets()[1]) for one in rotators} == {(winner, f"not-a-real-secret-of-{winner}")}


CLAIMS = """
import sys
from secretsource.backends.file import FileBackend
from secretsource.errors import BackendUnavailable
from tests.backends.steps import Steps

one = Steps(FileBackend(), f"file://{sys.argv[1]}", by=sys.argv[2])
held = one.held()
print("ready", flush=True)
sys.stdin.readline()
try:
    one.claim(f"not-a-real-secret-of-{one.by}", held)
    print("claimed")
except BackendUnavailable:
    print("sees", one.held().state.by)
"""


def test_of_many_processes_one_claims_and_the_others_see_it(folder: Path) -> None:
    path = write(folder / "pos.json", JSON)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMS, path, f"process-{number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for number in range(4)
    ]  # fmt: skip
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        said = [child.communicate(timeout=60)[0].strip() for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    held = rotator(path).held()
    assert sorted(said) == ["claimed", *[f"sees {held.state.by}"] * 3]
    assert held.pending is not None
    assert held.pending.reveal() == f"not-a-real-secret-of-{held.state.by}"


# --- killed


KILLED = """
import json, os, signal, sys
from pathlib import Path
from secretsource.backends.file import FileBackend
from secretsource.errors import BackendUnavailable
from tests.backends.steps import Steps

EFFECTS = ("open", "fchmod", "fchown", "write", "fsync", "rename", "unlink", "setxattr", "removexattr")
path, name = Path(sys.argv[1]), sys.argv[2]
before = path.read_bytes()
one = Steps(FileBackend(), f"file://{path}")
old = one.secrets()


def killed(number, after):
    left = [number]

    def wrap(real):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0 and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = real(*args, **kwargs)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return done
        return call

    held = one.held()
    for effect in EFFECTS:
        setattr(os, effect, wrap(getattr(os, effect)))
    getattr(one, name)(held=held)
    os._exit(0)


found, number, ended = [], 0, False
while not ended and number < 200:
    number += 1
    for after in (False, True):
        path.write_bytes(before)
        child = os.fork()
        if child == 0:
            killed(number, after)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        left = one.secrets()
        modes = {path.with_name(each).stat().st_mode & 0o777 for each in os.listdir(path.parent)}
        # The lock is free, and the step can be made by who comes next.
        try:
            getattr(one, name)()
        except BackendUnavailable:
            assert left != old
        found.append([left, one.secrets(), sorted(modes), len(os.listdir(path.parent))])
print(json.dumps([old, found]))
"""
AFTER = {
    "claim": (CURRENT, PENDING, None),
    "note": (CURRENT, PENDING, None),
    "promote": (PENDING, None, CURRENT),
    "abandon": (CURRENT, None, None),
    "drop": (PENDING, None, None),
}


@pytest.mark.parametrize("step", AFTER)
def test_a_rotator_killed_at_any_effect_leaves_the_old_or_the_new_state_and_no_lock(folder: Path, step: str) -> None:
    path = write(folder / "pos.json", JSON)
    one = rotator(path)
    for earlier in {"claim": [], "drop": [one.claim, one.promote]}.get(step, [one.claim]):
        earlier()
    old = one.secrets()
    child = subprocess.run(
        [sys.executable, "-c", KILLED, path, step], capture_output=True, text=True, timeout=100, check=False, cwd=ROOT
    )
    assert child.returncode == 0, child.stderr
    seen, found = json.loads(child.stdout)
    assert tuple(seen) == old
    assert {tuple(left) for left, *_ in found} == {old, AFTER[step]}
    assert {tuple(last) for _, last, *_ in found} == {AFTER[step]}, "the next one makes the step, or finds it made"
    assert all(modes == [0o600] for _, _, modes, _ in found)
    assert all(beside == 2 for *_, beside in found), "what a killed one left is gone"
    assert len(found) > 20


def test_a_rotator_that_is_stopped_with_the_lock_holds_others_up_for_their_time_only(folder: Path) -> None:
    path = write(folder / "pos.json", JSON)
    one = rotator(path)
    with open(folder / ".pos.json.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        with pytest.raises(BackendUnavailable, match="another process"):
            one.claim(timeout=0.1)
        assert time.monotonic() - began < 30
    one.claim()


# --- after a replacement


def test_what_follows_a_replacement_is_told_the_path_when_all_is_done(folder: Path) -> None:
    path, told = write(folder / "pos.json", JSON), []

    def look(at: str) -> None:
        with open(folder / ".pos.json.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it
        told.append((at, PENDING in Path(at).read_text()))

    one = rotator(path, post_replace=look)
    one.claim()
    assert told == [(str(path), True)]


def test_nothing_is_told_of_what_was_not_written(folder: Path) -> None:
    path, told = write(folder / "pos.json", JSON), list[str]()
    backend = FileBackend(post_replace=told.append)
    one = Steps(backend, f"file://{path}")
    stored = backend.read_whole(one.reference, timeout=5)
    backend.write_whole(one.reference, stored.fields, version=stored.version, timeout=5)
    with pytest.raises(BackendUnavailable):
        backend.write_whole(one.reference, {}, version="00000000", timeout=5)
    assert list(one.store.preflight(one.reference, timeout=5)) == []
    assert told == []


def test_the_failure_of_what_follows_is_logged_by_its_class_and_changes_nothing(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(path: str) -> None:
        raise RuntimeError(CURRENT)

    path = write(folder / "pos.json", JSON)
    with caplog.at_level(logging.DEBUG):
        rotator(path, post_replace=fails).claim()
    assert rotator(path).secrets() == (CURRENT, PENDING, None)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "post_replace failed: RuntimeError" in record.getMessage()
    assert "not-a-real-secret" not in f"{caplog.text} {record.args} {record.exc_info}"


def test_what_cannot_be_called_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="post_replace="):
        FileBackend(post_replace="systemctl reload pos")  # type: ignore[arg-type]
