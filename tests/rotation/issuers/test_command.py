"""The adapter that runs a program: real programs, shell and Python scripts, in a folder of the test."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from secretsource.clock import Deadline
from secretsource.errors import ConfigurationError
from secretsource.rotation.issuers.command import Command
from secretsource.rotation.outcome import Adapter, Applied, Client, Refused, Unknown
from secretsource.secret import Secret

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="programs are run on POSIX systems")

SECRET = 'not-a-real-secret-"of the\u2028 rotation'
CLIENT = Client("pos")
_LONG = 60.0  # seconds: far more than anything here takes

Script = Callable[..., str]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Makes an executable script in a folder of its own, and gives its path."""

    def make(text: str, *, interpreter: str = "/bin/sh", name: str = "change", mode: int = 0o700) -> str:
        path = tmp_path / name
        path.write_text(f"#!{interpreter}\n{textwrap.dedent(text)}", encoding="utf-8")
        path.chmod(mode)
        return str(path)

    return make


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """No process of the test outlives it: each script writes its process ID to a file whose name begins with `pid`."""
    yield
    for pid in _pids(tmp_path):
        assert _gone(pid), f"process {pid} is still there"


def _pids(folder: Path) -> list[int]:
    return [int(text) for path in folder.glob("pid*") if (text := path.read_text().strip())]


def _gone(pid: int) -> bool:
    return _soon(lambda: not _alive(pid))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return f"{pid} (" in (stat := Path(f"/proc/{pid}/stat").read_text()) and ") Z " not in stat
    except FileNotFoundError:
        return not Path("/proc/self").exists()


def _soon(done: Callable[[], bool], seconds: float = 20.0) -> bool:
    ends_at = time.monotonic() + seconds
    while not done():
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.01)
    return True


def _apply(program: str | list[str], *, seconds: float = _LONG, folder: Path | None = None, **given: object) -> object:
    command = Command(program, folder=None if folder is None else str(folder), **given)  # type: ignore[arg-type]
    try:
        return command.apply(CLIENT, Secret(SECRET), Deadline(seconds))
    finally:
        command.close()


def test_it_is_an_adapter_that_takes_our_secret_at_an_issuer_with_one_slot() -> None:
    command = Command("true")
    assert isinstance(command, Adapter)
    assert command.capabilities.chosen
    assert command.capabilities.single_slot


def test_a_program_is_given_id_and_secret_as_json_and_its_end_with_0_means_that_it_is_done(
    script: Script, tmp_path: Path
) -> None:
    assert _apply(script(f"cat > {tmp_path}/given")) == Applied()
    assert json.loads((tmp_path / "given").read_text()) == {"client_id": "pos", "client_secret": SECRET}


def test_arguments_follow_the_path_and_neither_they_nor_the_environment_hold_the_secret(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "not-a-real-secret-of-the-rotator")
    program = script(f'cat > /dev/null; env > {tmp_path}/env; echo "$@" > {tmp_path}/arguments')
    assert _apply([program, "--realm", "a b"], environment={"REALM": "pos"}) == Applied()
    variables = (tmp_path / "env").read_text()
    assert "REALM=pos" in variables
    assert "PATH=" in variables
    assert "not-a-real-secret" not in variables
    assert (tmp_path / "arguments").read_text() == "--realm a b\n"


def test_65_means_that_it_was_refused(script: Script) -> None:
    outcome = _apply(script("cat > /dev/null; exit 65"))
    assert isinstance(outcome, Refused)


@pytest.mark.parametrize(
    ("end", "said"), [("exit 1", "exit status 1"), ("exit 64", "exit status 64"), ("kill -TERM $$", "SIGTERM")]
)
def test_any_other_end_leaves_open_whether_it_was_done(script: Script, end: str, said: str) -> None:
    outcome = _apply(script(f"cat > /dev/null; {end}"))
    assert isinstance(outcome, Unknown)
    assert said in outcome.reason


def test_a_program_that_says_done_and_has_not_read_its_input_is_not_believed(script: Script, tmp_path: Path) -> None:
    command = Command(script(f"exec < /dev/null; touch {tmp_path}/closed; sleep 0.3"))
    command.prepare(CLIENT)
    assert _soon((tmp_path / "closed").exists)
    assert isinstance(command.apply(CLIENT, Secret(SECRET), Deadline(_LONG)), Unknown)


def test_a_program_that_ends_before_it_was_given_the_secret_has_changed_nothing(script: Script) -> None:
    command = Command(script("exit 3"))
    run = command._started()
    try:
        assert _soon(run.has_ended)
        outcome = run.fed("pos", Secret(SECRET), Deadline(_LONG))
    finally:
        run.close()
    assert isinstance(outcome, Refused)
    assert "exit status 3" in outcome.reason


def test_it_is_started_when_it_is_prepared_and_fed_when_it_is_applied(script: Script, tmp_path: Path) -> None:
    command = Command(script(f"echo $$ > {tmp_path}/pid; cat > {tmp_path}/given"))
    command.prepare(CLIENT)
    assert _soon(lambda: bool(_pids(tmp_path)))
    first = _pids(tmp_path)
    command.prepare(CLIENT)  # the one that waits is good for this call, too
    assert command.apply(CLIENT, Secret(SECRET), Deadline(_LONG)) == Applied()
    assert _pids(tmp_path) == first


def test_close_ends_one_that_was_not_used_and_it_gets_nothing(script: Script, tmp_path: Path) -> None:
    command = Command(script(f"echo $$ > {tmp_path}/pid; cat > {tmp_path}/given; touch {tmp_path}/acted"))
    command.prepare(CLIENT)
    assert _soon(lambda: bool(_pids(tmp_path)))
    command.close()
    command.close()
    assert _gone(_pids(tmp_path)[0])
    assert not (tmp_path / "given").exists() or (tmp_path / "given").read_text() == ""


def test_a_prepared_one_that_has_ended_meanwhile_is_started_again(script: Script, tmp_path: Path) -> None:
    command = Command(script(f"if mkdir {tmp_path}/once 2> /dev/null; then exit 1; fi; cat > {tmp_path}/given"))
    command.prepare(CLIENT)
    run = command._run
    assert run is not None
    assert _soon(run.has_ended)
    assert command.apply(CLIENT, Secret(SECRET), Deadline(_LONG)) == Applied()


def test_its_group_is_killed_when_its_time_is_over(script: Script, tmp_path: Path) -> None:
    program = script(f"cat > /dev/null; sleep 300 & echo $! > {tmp_path}/pid-child; echo $$ > {tmp_path}/pid; wait")
    outcome = _apply(program, seconds=1.0)
    assert isinstance(outcome, Unknown)
    assert "killed" in outcome.reason
    assert all(_gone(pid) for pid in _pids(tmp_path))


def test_what_it_leaves_running_in_its_group_is_killed_when_it_has_ended(script: Script, tmp_path: Path) -> None:
    program = script(f"cat > /dev/null; sleep 300 & echo $! > {tmp_path}/pid-child")
    assert _apply(program) == Applied()
    assert _gone(_pids(tmp_path)[0])


def test_one_that_reads_nothing_is_killed_in_time_however_long_the_secret_is(script: Script) -> None:
    command = Command(script("exec sleep 300"))
    outcome = command.apply(CLIENT, Secret("not-a-real-secret-" * 100_000), Deadline(1.0))
    assert isinstance(outcome, Unknown)


def test_a_long_secret_arrives_whole(script: Script, tmp_path: Path) -> None:
    long = "not-a-real-secret-" * 20_000
    command = Command(script(f"sleep 0.2; cat > {tmp_path}/given"))
    assert command.apply(CLIENT, Secret(long), Deadline(_LONG)) == Applied()
    assert json.loads((tmp_path / "given").read_text())["client_secret"] == long


def test_nothing_is_started_where_no_time_is_left(script: Script, tmp_path: Path) -> None:
    assert isinstance(_apply(script(f"touch {tmp_path}/ran"), seconds=0.0), Unknown)
    assert not (tmp_path / "ran").exists()


# --- the death of the rotator

_ROTATOR = """
import sys, threading
from pathlib import Path
from secretsource.clock import Deadline
from secretsource.rotation.issuers.command import Command
from secretsource.rotation.outcome import Client
from secretsource.secret import Secret

command = Command(sys.argv[1])
# On a thread that ends, as the engine's does: the program must not die with it.
thread = threading.Thread(target=command.prepare, args=(Client("pos"),))
thread.start()
thread.join()
Path(sys.argv[2]).touch()
if sys.argv[3] == "apply":
    command.apply(Client("pos"), Secret("not-a-real-secret-of-a-process"), Deadline(float(sys.argv[4])))
else:
    sys.stdin.read()
"""


@pytest.fixture
def rotator(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a rotator that prepares the program, and then waits or applies."""
    running: list[subprocess.Popen[bytes]] = []

    def start(program: str, then: str, seconds: float = _LONG) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _ROTATOR, program, str(tmp_path / "prepared"), then, str(seconds)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        running.append(process)
        assert _soon((tmp_path / "prepared").exists, 60)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def test_it_dies_with_a_rotator_that_is_killed_before_it_was_fed(
    script: Script, tmp_path: Path, rotator: Callable[..., subprocess.Popen[bytes]]
) -> None:
    given = tmp_path / "given"
    program = script(
        f"trap '' TERM HUP; echo $$ > {tmp_path}/pid; cat > {given}\n"
        f"test -s {given} && touch {tmp_path}/acted; sleep 300"
    )
    process = rotator(program, "wait")
    assert _soon(lambda: bool(_pids(tmp_path)))
    assert _alive(_pids(tmp_path)[0])
    process.kill()
    assert _gone(_pids(tmp_path)[0])
    assert not (tmp_path / "acted").exists()


def test_it_dies_with_a_rotator_that_is_killed_while_it_works(
    script: Script, tmp_path: Path, rotator: Callable[..., subprocess.Popen[bytes]]
) -> None:
    program = script(f"cat > /dev/null; sleep 300 & echo $! > {tmp_path}/pid-child; echo $$ > {tmp_path}/pid; wait")
    process = rotator(program, "apply")
    assert _soon(lambda: len(_pids(tmp_path)) == 2)
    process.kill()
    assert all(_gone(pid) for pid in _pids(tmp_path))


def test_its_time_ends_also_while_the_rotator_is_suspended(
    script: Script, tmp_path: Path, rotator: Callable[..., subprocess.Popen[bytes]]
) -> None:
    program = script(f"cat > /dev/null; echo $$ > {tmp_path}/pid; exec sleep 300")
    process = rotator(program, "apply", 3.0)
    assert _soon(lambda: bool(_pids(tmp_path)))
    process.send_signal(signal.SIGSTOP)
    try:
        assert _gone(_pids(tmp_path)[0])
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2)")
def test_it_dies_with_the_guard_beside_it(script: Script, tmp_path: Path) -> None:
    command = Command(script(f"echo $$ > {tmp_path}/pid; cat > /dev/null; exec sleep 300"))
    command.prepare(CLIENT)
    assert _soon(lambda: bool(_pids(tmp_path)))
    run = command._run
    assert run is not None
    run._guard.kill()
    assert _gone(_pids(tmp_path)[0])
    assert run.has_ended()
    command.close()


# --- which program


def test_a_relative_path_begins_in_the_folder_where_it_then_runs(script: Script, tmp_path: Path) -> None:
    script("cat > given")
    assert _apply("./change", folder=tmp_path) == Applied()
    assert (tmp_path / "given").exists()


def test_a_name_is_looked_for_in_path(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(f"cat > {tmp_path}/given")
    monkeypatch.setenv("PATH", f".:{tmp_path}:/usr/bin:/bin")
    assert _apply("change") == Applied()


@pytest.mark.parametrize("name", ["no-such-program", "./no-such-program", "true --flag"])
def test_a_program_that_is_not_there_is_an_error_of_the_check(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no program"):
        Command(name, folder=str(tmp_path)).check(CLIENT, Deadline(_LONG))


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_program_that_others_may_write_to_is_refused(script: Script, mode: int) -> None:
    program = script("exit 0", mode=mode)
    with pytest.raises(ConfigurationError, match="can be changed by others") as raised:
        Command(program).check(CLIENT, Deadline(_LONG))
    assert f"chmod go-w {program}" in str(raised.value)
    with pytest.raises(ConfigurationError):
        Command(program).prepare(CLIENT)


def test_a_program_in_a_folder_that_others_may_write_to_is_refused(script: Script, tmp_path: Path) -> None:
    inner = tmp_path / "open"
    inner.mkdir()
    program = script("exit 0", name="open/change")
    inner.chmod(0o777)
    with pytest.raises(ConfigurationError, match="can be exchanged"):
        Command(program).check(CLIENT, Deadline(_LONG))


def test_a_link_is_judged_by_what_it_leads_to(script: Script, tmp_path: Path) -> None:
    program = script("exit 0", mode=0o722)
    (tmp_path / "link").symlink_to(program)
    with pytest.raises(ConfigurationError, match="can be changed by others"):
        Command(str(tmp_path / "link")).check(CLIENT, Deadline(_LONG))


def test_a_link_in_a_folder_that_others_may_write_to_is_refused(script: Script, tmp_path: Path) -> None:
    script("exit 0")
    for name in ("open", "inner"):
        (tmp_path / name).mkdir()
    (tmp_path / "open" / "change").symlink_to("../change")
    (tmp_path / "open" / "folder").symlink_to(tmp_path)
    (tmp_path / "inner" / "change").symlink_to("../open/folder/change")
    (tmp_path / "open").chmod(0o777)
    for program in ("open/change", "open/folder/change", "inner/change"):
        with pytest.raises(ConfigurationError, match="can be exchanged"):
            Command(str(tmp_path / program)).check(CLIENT, Deadline(_LONG))
    (tmp_path / "open").chmod(0o755)
    for program in ("open/change", "open/folder/change", "inner/change"):
        Command(str(tmp_path / program)).check(CLIENT, Deadline(_LONG))


def test_a_link_is_run_under_its_own_name(script: Script, tmp_path: Path) -> None:
    program = script(f'cat > /dev/null; echo "$0" > {tmp_path}/name')
    (tmp_path / "link").symlink_to(program)
    assert _apply(str(tmp_path / "link")) == Applied()
    assert (tmp_path / "name").read_text() == f"{tmp_path}/link\n"


def test_a_file_that_cannot_be_executed_is_refused(script: Script) -> None:
    with pytest.raises(ConfigurationError, match="cannot be executed"):
        Command(script("exit 0", mode=0o600)).check(CLIENT, Deadline(_LONG))


def test_a_script_without_an_interpreter_is_an_error_before_anything_is_begun(script: Script) -> None:
    with pytest.raises(ConfigurationError, match="names an interpreter in its first line that is not there"):
        Command(script("exit 0", interpreter="/no/such/interpreter")).check(CLIENT, Deadline(_LONG))


@pytest.mark.skipif(sys.platform != "linux", reason="how a program begins is the system's own affair")
def test_a_file_that_does_not_begin_as_a_program_is_refused_too(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("exit 0\n")
    program.chmod(0o700)
    with pytest.raises(ConfigurationError, match="does not begin as a program does"):
        Command(str(program)).check(CLIENT, Deadline(_LONG))


def test_a_folder_that_is_not_there_is_an_error_when_it_is_prepared(script: Script, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be started in"):
        Command(script("exit 0"), folder=str(tmp_path / "none")).prepare(CLIENT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"program": ""},
        {"program": []},
        {"program": "a\0b"},
        {"program": "true", "output": "stdout"},
        {"program": "true", "slots": 0},
        {"program": "true", "landing": -1},
        {"program": "true", "environment": {"A": "b\0"}},
    ],
)
def test_wrong_settings_are_refused_at_once(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        Command(**wrong)  # type: ignore[arg-type]


# --- what is shown


def test_what_it_writes_is_discarded_and_nothing_shows_the_secret(
    script: Script, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    program = script("tee /dev/stderr; exit 7")
    command = Command(program)
    outcome = command.apply(CLIENT, Secret(SECRET), Deadline(_LONG))
    written = capfd.readouterr()
    shown = f"{outcome!r} {command!r} {vars(command)!r} {caplog.text} {written.out} {written.err}"
    assert "not-a-real-secret" not in shown


def test_what_it_writes_goes_to_standard_error_where_that_is_asked_for(
    script: Script, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _apply(script("cat > /dev/null; echo from the program"), output="stderr") == Applied()
    assert capfd.readouterr() == ("", "from the program\n")


def test_no_traceback_holds_the_secret_among_its_locals(script: Script) -> None:
    program = script("cat > /dev/null; exec sleep 300")

    class Interrupted(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(Interrupted) as raised:
            _apply(program)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    frame = raised.value.__traceback__
    while frame is not None:
        if "secretsource" in frame.tb_frame.f_code.co_filename and "tests" not in frame.tb_frame.f_code.co_filename:
            assert "not-a-real-secret" not in repr(frame.tb_frame.f_locals)
        frame = frame.tb_next


def test_a_python_program_works_as_the_shell_does(script: Script, tmp_path: Path) -> None:
    program = script(
        f"""
        import json, sys
        given = json.load(sys.stdin)
        open({shlex.quote(str(tmp_path / "given"))!r}, "w").write(given["client_secret"])
        sys.exit(65 if given["client_id"] != "pos" else 0)
        """,
        interpreter=sys.executable,
    )
    assert _apply(program) == Applied()
    assert (tmp_path / "given").read_text() == SECRET
