"""What is exchanged, cut, filled, opened or taken away while it is read: one whole state comes out, or an error."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from secretsource import BackendUnavailable, MalformedSecret, SecretNotFound

from ..backends.layouts import CANARY, NOBODY_ELSE, as_root, grant, kubelet, revealed, shows, write
from .outcomes import named, outcome
from .reads import POS, before_opening, meanwhile, read

# a file


def test_a_file_that_changes_during_the_read_is_read_once_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "secret", "old")
    meanwhile(monkeypatch, "read", lambda: write(path, "new and longer"))
    assert revealed(read(path).text) == "new and longer"


def test_a_file_that_keeps_changing_is_unavailable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "secret", CANARY)
    meanwhile(monkeypatch, "read", lambda: write(path, path.read_bytes() * 2), times=4)
    with pytest.raises(BackendUnavailable, match=r"changed while it was read \[F11\]") as caught:
        read(path)
    assert caught.value.retryable
    assert not shows(caught.value)


@pytest.mark.parametrize("content", ["", "short", "a much longer text than before", "of the same size as it is"])
def test_what_grows_shrinks_or_is_overwritten_comes_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    path = write(folder / "secret", "this is the old secret !!")
    meanwhile(monkeypatch, "read", lambda: write(path, content))
    if content:
        assert revealed(read(path).text) == content
    else:
        assert outcome(path, "private") == "F12"


def test_two_halves_of_two_contents_are_not_put_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = write(folder / "secret", "old half, old half"), os.read
    moments = iter(range(2, 100))

    def halfway(fd: int, size: int) -> bytes:
        piece = real(fd, min(size, 10))
        write(path, "new half, new half")
        os.utime(path, (1, next(moments)))
        return piece

    monkeypatch.setattr(os, "read", halfway)
    with pytest.raises(BackendUnavailable, match="F11"):
        read(path)
    monkeypatch.undo()
    assert revealed(read(path).text) == "new half, new half"


def test_a_file_replaced_after_it_was_opened_is_read_to_its_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, new = write(folder / "secret", "old"), write(folder / "new", "new")
    meanwhile(monkeypatch, "read", lambda: new.replace(path))
    assert revealed(read(path).text) == "old"


@pytest.mark.parametrize("level", ["strict", "private", "mounted", "unchecked"])
def test_a_file_deleted_after_it_was_opened_is_read_to_its_end(
    home: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    path = write(home / "secret", CANARY)
    meanwhile(monkeypatch, "read", path.unlink)
    assert revealed(read(path, access=level).text) == CANARY


def test_a_file_deleted_before_it_was_opened_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "secret", CANARY)
    before_opening(monkeypatch, "secret", path.unlink)
    assert outcome(path, "private") == "F01"


@pytest.mark.parametrize(("mode", "code"), [(0o644, "F05"), (0o602, "F06")])
def test_the_mode_that_counts_is_the_one_that_the_open_file_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int, code: str
) -> None:
    path = write(folder / "secret", CANARY)
    before_opening(monkeypatch, "secret", lambda: path.chmod(mode))
    assert outcome(path, "private") == code


@as_root
def test_the_owner_that_counts_is_the_one_that_the_open_file_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "secret", CANARY)
    before_opening(monkeypatch, "secret", lambda: os.chown(path, NOBODY_ELSE, -1))
    assert outcome(path, "private") == "F03"


def test_an_acl_that_comes_between_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "secret", CANARY)
    grant(write(folder / "probe"), users={NOBODY_ELSE: 4})
    before_opening(monkeypatch, "secret", lambda: grant(path, users={NOBODY_ELSE: 4}))
    assert outcome(path, "private") == "F07"


def test_a_directory_that_is_opened_to_others_between_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = folder / "inner"
    inner.mkdir()
    path = write(inner / "secret", CANARY)
    before_opening(monkeypatch, "inner", lambda: inner.chmod(0o757))
    assert outcome(path, "private") == "F10"


# something else in its place, after the look and before the opening: nothing hangs


def a_fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def a_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)


def a_directory(path: Path) -> None:
    path.mkdir()


def a_device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make devices")
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))


@pytest.mark.parametrize("make", [a_fifo, a_socket, a_directory, a_device])
@pytest.mark.parametrize("level", ["private", "unchecked"])
def test_what_is_no_file_is_refused_even_if_it_comes_after_the_look(
    folder: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], level: str
) -> None:
    path = write(folder / "secret", CANARY)

    def swap() -> None:
        path.unlink()
        make(path)

    before_opening(monkeypatch, "secret", swap)
    assert outcome(path, level) == "F02"


def test_a_link_that_comes_after_the_look_is_judged_as_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = write(home / "secret", CANARY), write(home / "other", "elsewhere")

    def swap() -> None:
        path.unlink()
        path.symlink_to(other)

    before_opening(monkeypatch, "secret", swap)
    assert outcome(path, "strict") == "F09"


@as_root
def test_a_foreign_file_that_comes_after_the_look_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, theirs = write(folder / "secret", CANARY), write(folder / "theirs", "theirs")
    os.chown(theirs, NOBODY_ELSE, NOBODY_ELSE)
    before_opening(monkeypatch, "secret", lambda: theirs.replace(path))
    assert outcome(path, "private") == "F03"


@as_root
def test_a_foreign_link_with_the_number_of_ours_is_not_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "ours", CANARY)
    write(folder / "decoy", "decoy")
    link = folder / "link"
    link.symlink_to("ours")
    number = link.lstat().st_ino

    def swap() -> None:
        link.unlink()
        link.symlink_to("decoy")
        if link.lstat().st_ino != number:
            pytest.skip("this file system gives no number anew")
        os.lchown(link, NOBODY_ELSE, NOBODY_ELSE)

    meanwhile(monkeypatch, "readlink", swap)
    assert outcome(link, "private") == "F09"


def test_a_directory_that_becomes_a_link_after_the_look_is_judged_as_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = home / "inner"
    inner.mkdir()
    path = write(inner / "secret", CANARY)

    def swap() -> None:
        inner.rename(home / "moved")
        inner.symlink_to("moved")

    before_opening(monkeypatch, "inner", swap)
    assert outcome(path, "strict") == "F09"


def test_a_directory_moved_away_is_followed_no_further_than_it_was_judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`..` of a link means the directory that was passed, not where it has been moved since."""
    (folder / "a" / "inner").mkdir(parents=True)
    (folder / "open").mkdir()
    (folder / "open").chmod(0o757)
    write(folder / "a" / "secret", CANARY)
    write(folder / "open" / "secret", "planted")
    (folder / "link").symlink_to("a/inner/../secret")
    before_opening(monkeypatch, "secret", lambda: (folder / "a" / "inner").rename(folder / "open" / "inner"))
    assert outcome(folder / "link", "private") == "read"


# a volume of the kubelet


def test_a_swap_of_the_kubelet_between_two_steps_is_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = kubelet(folder / "pos", POS)

    def swap() -> None:
        kubelet(mount, {**POS, "client_secret": "new"}, state="2")
        shutil.rmtree(mount / "..2026_01_01")

    meanwhile(monkeypatch, "readlink", swap)
    assert revealed(read(f"{mount}/", access="mounted").fields)["client_secret"] == "new"


def test_id_and_secret_come_from_one_state_though_the_kubelet_swaps(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = kubelet(folder / "pos", {"client_id": "old", "client_secret": "old"})
    meanwhile(monkeypatch, "read", lambda: kubelet(mount, {"client_id": "new", "client_secret": "new"}, state="2"))
    assert revealed(read(f"{mount}/", access="mounted").fields) == {"client_id": "new", "client_secret": "new"}


def test_a_binding_that_the_kubelet_is_taking_away_is_not_overlooked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount = kubelet(folder / "pos", {**POS, "issuer": "https://old"})

    def swap() -> None:
        kubelet(mount, {**POS, "issuer": "https://new"}, state="2")
        (mount / "..2026_01_01" / "issuer").unlink()

    meanwhile(monkeypatch, "listdir", swap)
    assert revealed(read(f"{mount}/", access="mounted").fields)["issuer"] == "https://new"


KUBELET = """
import os, shutil, sys
mount, state = sys.argv[1], 0
while True:
    state += 1
    dated = f"{mount}/..state_{state}"
    os.mkdir(dated)
    for name in ("client_id", "client_secret", "issuer", "client_secret_previous"):
        with open(f"{dated}/{name}", "w") as file:
            file.write(str(state))
    os.symlink(os.path.basename(dated), f"{mount}/..data_tmp")
    os.rename(f"{mount}/..data_tmp", f"{mount}/..data")
    if state == 1:
        print(flush=True)
    else:
        shutil.rmtree(f"{mount}/..state_{state - 1}")
"""
RENAMER = """
import os, sys
path, state = sys.argv[1], 0
while True:
    state += 1
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(f"{state:08}" * 1000)
    os.rename(path + ".new", path)
    if state == 1:
        print(flush=True)
"""
REWRITER = """
import os, sys
state = 0
while True:
    state += 1
    with open(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(f"{state:08}" * (1 + state % 500))
    if state == 1:
        print(flush=True)
"""
ROUNDS = 400


def rounds(met: Callable[[], bool]) -> Iterator[int]:
    """So many rounds, and more until what the test is about has been met: on a busy machine processes take turns."""
    for number in itertools.count():
        if number >= ROUNDS and (met() or number >= 50 * ROUNDS):
            return
        yield number


@contextmanager
def restless(script: str, path: Path) -> Iterator[None]:
    """A process that changes what is there, over and over."""
    process = subprocess.Popen([sys.executable, "-ISc", script, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield
        assert process.poll() is None, "it has ended by itself"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_a_restless_kubelet_never_mixes_two_states(folder: Path) -> None:
    seen: Counter[str] = Counter()
    states: set[str] = set()
    with restless(KUBELET, folder):
        for _ in rounds(lambda: len(states) > 1):
            try:
                fields = revealed(read(f"{folder}/", access="mounted").fields)
            except (BackendUnavailable, SecretNotFound) as error:  # both states that it looked at were gone
                seen[named(error)] += 1
                continue
            assert len(set(fields.values())) == 1, fields
            assert fields.keys() >= {"client_id", "client_secret", "issuer", "client_secret_previous"}
            seen["read"] += 1
            states.add(fields["client_id"])
    assert seen["read"] > 0
    assert len(states) > 1, "nothing was exchanged meanwhile"


def test_a_file_that_is_replaced_without_rest_is_read_whole(folder: Path) -> None:
    path = folder / "secret"
    seen: Counter[str] = Counter()
    states: set[str] = set()
    with restless(RENAMER, path):
        for _ in rounds(lambda: len(states) > 1):
            try:
                text = revealed(read(path).text)
            except BackendUnavailable as error:  # it was replaced between look and opening, twice in a row
                seen[named(error)] += 1
                continue
            assert text == text[:8] * 1000
            states.add(text[:8])
    assert seen.keys() <= {"F11"}
    assert len(states) > 1


def test_a_file_that_is_cut_and_filled_without_rest_is_read_whole_or_not_at_all(folder: Path) -> None:
    """As a shell writes it. What lies on several pages, and is overwritten without being cut, could come torn."""
    path = folder / "secret"
    seen: Counter[str] = Counter()
    with restless(REWRITER, path):
        for _ in rounds(lambda: len(seen) > 1):
            try:
                text = revealed(read(path).text)
            except (BackendUnavailable, MalformedSecret) as error:
                seen[named(error)] += 1
                continue
            assert text == text[:8] * (1 + int(text[:8]) % 500)
            seen["read"] += 1
    assert seen.keys() <= {"read", "F11", "F12"}
    assert len(seen) > 1, "it was never read while it was written"
