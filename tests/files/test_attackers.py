"""Another user who moves, links and plants without rest wherever it may: nothing of its choice is ever handed out.

An attack that needs luck is given some hundred chances here; nothing waits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..backends.layouts import CANARY, as_root, write
from .outcomes import outcomes_of
from .table import READER

pytestmark = as_root

ATTACKER = 54333
GUARDED = ("strict", "private", "mounted")
ROUNDS = 50

_BEGIN = """
import os, sys
uid, place, aim = int(sys.argv[1]), *sys.argv[2:4]
os.setgroups([]); os.setgid(uid); os.setuid(uid)

def planted(path):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), "w") as file:
        file.write("planted")

def attempt(call, *args):
    try:
        call(*args)
    except OSError:
        pass

def away(path):
    for _ in range(50):  # let it stand for a moment
        attempt(os.lstat, path)
    for call, what in ((os.unlink, path), (os.unlink, path + "/secret"), (os.rmdir, path)):
        attempt(call, what)
"""

# It puts everything that it can make under one name in turn, in a directory that everybody may write to.
PLANT = (
    _BEGIN
    + """
def folder(inside):
    os.mkdir(place)
    inside(place + "/secret")

made = [
    lambda: planted(place),
    lambda: os.mkfifo(place),
    lambda: os.symlink(aim + "/secret", place),
    lambda: os.link(aim + "/secret", place),
    lambda: os.rename(aim + "/secret", place),
    lambda: os.symlink(aim, place),
    lambda: os.rename(aim, place),
    lambda: folder(planted),
    lambda: folder(os.mkfifo),
    lambda: folder(lambda path: os.symlink(aim + "/secret", path)),
    lambda: folder(lambda path: os.link(aim + "/secret", path)),
    lambda: os.symlink(place, place),
    lambda: os.symlink("/dev/tty", place),
]
turn = 0
while True:
    attempt(made[turn % len(made)])
    away(place)
    turn += 1
    if turn == len(made):
        print(flush=True)
"""
)

# It owns a directory on the way, and exchanges the victim's own tree below it for others.
EXCHANGE = (
    _BEGIN
    + """
aside, turn = place + ".aside", 0
while True:
    attempt(os.rename, place, aside)
    if turn % 4 == 0:
        attempt(os.symlink, aim, place)
    elif turn % 4 == 1:
        attempt(os.mkdir, place)
        attempt(planted, place + "/secret")
    elif turn % 4 == 2:
        attempt(os.mkfifo, place)
    else:
        attempt(planted, place)
    away(place)
    attempt(os.rename, aside, place)
    turn += 1
    if turn == 4:
        print(flush=True)
"""
)


@contextmanager
def attacked(script: str, place: Path, aim: Path) -> Iterator[None]:
    attacker = subprocess.Popen(
        [sys.executable, "-ISc", script, str(ATTACKER), str(place), str(aim)], stdout=subprocess.PIPE
    )
    try:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == b"\n"
        yield
        assert attacker.poll() is None, "it has ended by itself"
    finally:
        attacker.send_signal(signal.SIGKILL)
        attacker.communicate()


def victims_own(path: Path, victim: int, text: str = CANARY) -> Path:
    path.mkdir()
    os.chown(write(path / "secret", text), victim, victim)
    os.chown(path, victim, victim)
    path.chmod(0o711)
    return path


def read(paths: list[Path], victim: int, levels: tuple[str, ...] = GUARDED, *, kinds: int = 1) -> set[str]:
    """Every outcome that there was; so many kinds are waited for, for a while, on a machine that is busy elsewhere."""
    asked = [(str(path), level, ()) for path in paths for level in levels]
    seen: set[str] = set()
    for turn in range(40):
        seen |= {each for counts in outcomes_of(asked, uid=victim, rounds=ROUNDS) for each in counts}
        if turn >= 2 and len(seen) >= kinds:
            break
    return seen


@pytest.mark.parametrize("victim", [0, READER])
def test_what_is_planted_in_a_sticky_directory_is_never_handed_out(folder: Path, victim: int) -> None:
    """Nor is another secret of the victim's that a link or a second name leads to."""
    aim = victims_own(folder / "aim", victim)
    sticky = folder / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    with attacked(PLANT, sticky / "drop", aim):
        seen = read([sticky / "drop", sticky / "drop" / "secret"], victim, kinds=4)
    assert not {each for each in seen if each.startswith("read")}, seen
    assert len(seen) >= 4, "the attacker was not seen at work"


@pytest.mark.parametrize("victim", [0, READER])
def test_a_file_of_ours_in_a_sticky_directory_stays_ours(folder: Path, victim: int) -> None:
    aim = victims_own(folder / "aim", victim, "decoy")
    sticky = folder / "sticky"
    sticky.mkdir()
    ours = victims_own(sticky / "ours", victim)
    sticky.chmod(0o1777)
    with attacked(EXCHANGE, ours, aim):
        assert read([ours / "secret"], victim, ("private", "mounted")) == {"read"}


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("victim", [0, READER])
def test_below_a_directory_of_another_user_nothing_is_read_whatever_stands_there(
    folder: Path, victim: int, depth: int
) -> None:
    aim = victims_own(folder / "aim", victim)
    path = folder
    for number in range(3):
        path = path / f"d{number}"
        path.mkdir()
        os.chown(path, ATTACKER if number == depth else victim, -1)
        path.chmod(0o755)
    below = folder.joinpath(*[f"d{number}" for number in range(depth + 1)])
    os.chown(write(path / "secret", CANARY), victim, victim)
    exchanged = below / (f"d{depth + 1}" if depth < 2 else "secret")
    with attacked(EXCHANGE, exchanged, aim):
        assert read([path / "secret"], victim) == {"F10"}


@pytest.mark.parametrize("victim", [0, READER])
def test_below_a_directory_that_everybody_can_write_to_nothing_is_read(folder: Path, victim: int) -> None:
    aim = victims_own(folder / "aim", victim)
    open_to_all = folder / "open"
    open_to_all.mkdir()
    ours = victims_own(open_to_all / "ours", victim)
    open_to_all.chmod(0o777)
    with attacked(EXCHANGE, ours, aim):
        assert read([ours / "secret"], victim) == {"F10"}


def test_unchecked_may_be_led_astray_but_never_waits_or_breaks(folder: Path) -> None:
    aim = victims_own(folder / "aim", READER)
    open_to_all = folder / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    drop = open_to_all / "drop"
    with attacked(PLANT, drop, aim):
        seen = read([drop, drop / "secret"], READER, ("unchecked",), kinds=4)
    assert len(seen) >= 4, "the attacker was not seen at work"
    assert seen <= {"read", "read planted", "F01", "F02", "F09", "F11", "F12", "BackendUnavailable", "AccessDenied"}
