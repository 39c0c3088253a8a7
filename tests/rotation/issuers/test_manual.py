"""The adapter that tells a person what to do."""

from __future__ import annotations

import logging
import os
import pty
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from secretsource.clock import Deadline
from secretsource.errors import ConfigurationError
from secretsource.rotation.issuers.manual import Manual
from secretsource.rotation.outcome import Adapter, Client, Unknown
from secretsource.secret import Secret

OLD, NEW = "not-a-real-secret-old", "not-a-real-secret-new"
CLIENT = Client(
    "pos",
    environment="production",
    reference="vault://kv/prod/pos",
    current=Secret(OLD),
    pending=Secret(NEW),
    issuer="https://pos.example.com",
)

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files are judged on POSIX systems")


def _soon() -> Deadline:
    return Deadline(20.0)


def _told(secret: str = NEW, client: Client = CLIENT, **given: Any) -> tuple[Manual, str]:
    """What is said when this secret is applied; the secret is not in it."""
    said: list[str] = []
    manual = Manual(say=said.append, **given)
    assert isinstance(manual.apply(client, Secret(secret), _soon()), Unknown)
    text = "\n".join(said)
    assert OLD not in text
    assert NEW not in text
    return manual, text


def test_it_is_an_adapter_that_a_person_is_behind() -> None:
    manual = Manual()
    assert isinstance(manual, Adapter)
    assert manual.capabilities.asks
    assert manual.capabilities.chosen
    assert manual.capabilities.landing == 900
    assert Manual(slots=1).capabilities.single_slot


def test_it_says_which_client_where_and_where_the_secret_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Manual().apply(CLIENT, Secret(NEW), _soon())
    assert isinstance(outcome, Unknown)
    assert outcome.reason == "a person does it"
    said = capsys.readouterr()
    assert said.out == ""
    for part in ("'pos'", "https://pos.example.com", "environment production", "vault://kv/prod/pos"):
        assert part in said.err
    assert "the pending one" in said.err
    assert "client_secret_pending" in said.err
    assert NEW not in said.err


def test_a_named_field_is_said() -> None:
    _, text = _told(client=CLIENT._replace(reference="file:///etc/pos.json#id=app,secret=key"))
    assert "field key_pending" in text


def test_little_is_said_where_little_is_known() -> None:
    _, text = _told(client=Client("pos"))
    assert text.startswith("Change the secret: the client 'pos' must have the pending one\nRead it where it is kept")


def test_on_the_way_back_it_says_to_put_the_current_one_back() -> None:
    _, text = _told(OLD)
    assert text.startswith("Put the current secret back")
    assert "field client_secret (" in text
    assert "AWSCURRENT" in text


def test_instructions_are_added() -> None:
    _, text = _told(instructions="Security → Applications → Edit")
    assert "Security → Applications → Edit" in text


def test_said_again_it_is_a_reminder() -> None:
    said: list[str] = []
    manual = Manual(say=said.append)
    for secret in (NEW, NEW, OLD, NEW):
        manual.apply(CLIENT, Secret(secret), _soon())
    assert [text.partition(":")[0] for text in said] == [
        "Change the secret",
        "Still to be done",
        "Put the current secret back",
        "Change the secret",
    ]


def test_the_check_cautions_that_a_person_is_needed_and_writes_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    found = Manual(reveal_to=tmp_path / "secret").check(CLIENT, _soon())
    assert "a person" in found.cautions[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [{"instructions": "\x1b[2J"}, {"instructions": 7}, {"instructions": "x" * 5000}, {"slots": 0}, {"landing": -1}],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Manual(**wrong)


# --- to a file


def test_a_file_has_the_secret_for_us_alone_until_it_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "secret"
    before = os.umask(0)
    try:
        manual, text = _told(reveal_to=path)
    finally:
        os.umask(before)
    assert str(path) in text
    assert path.read_text() == f"{NEW}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    manual.check(CLIENT, _soon())
    manual.apply(CLIENT, Secret(NEW), _soon())
    assert path.exists()
    manual.close()
    assert not path.exists()
    manual.close()


def test_another_secret_takes_the_place_of_the_first(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    manual, _ = _told(reveal_to=tmp_path / "secret")
    manual.apply(CLIENT, Secret(OLD), _soon())
    assert (tmp_path / "secret").read_text() == f"{OLD}\n"
    manual.close()


def test_a_file_that_is_there_is_neither_written_nor_removed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "secret"
    path.write_text("something")
    with pytest.raises(ConfigurationError, match="it is there already"):
        Manual(reveal_to=path).check(CLIENT, _soon())
    manual, text = _told(reveal_to=path)
    assert "It was not written" in text
    assert "client_secret_pending" in text
    manual.close()
    assert path.read_text() == "something"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "secret").symlink_to(tmp_path / "elsewhere")
    _, text = _told(reveal_to=tmp_path / "secret")
    assert "It was not written" in text
    assert not (tmp_path / "elsewhere").exists()


def test_what_somebody_else_has_put_there_meanwhile_stays(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "secret"
    manual, _ = _told(reveal_to=path)
    path.rename(tmp_path / "moved")
    path.write_text("something")
    manual.close()
    assert path.read_text() == "something"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_that_others_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigurationError, match="others can write"):
        Manual(reveal_to=folder / "secret").check(CLIENT, _soon())
    _, text = _told(reveal_to=folder / "secret")
    assert "It was not written" in text
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_not_there_or_behind_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name, says in (("none", "no such file"), ("link", "through a link")):
        with pytest.raises(ConfigurationError, match=says):
            Manual(reveal_to=tmp_path / name / "secret").check(CLIENT, _soon())


# --- to a terminal


def test_it_is_shown_to_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigurationError, match="no terminal"):
        Manual(show=True).check(CLIENT, _soon())
    Manual(show=True).apply(CLIENT, Secret(NEW), _soon())
    assert NEW not in "".join(capsys.readouterr())


@pytest.mark.parametrize(("secret", "shown"), [(NEW, True), (f"{NEW}\x1b[2J", False)])
def test_a_terminal_shows_it_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch, secret: str, shown: bool) -> None:
    ours, theirs = pty.openpty()
    try:
        with open(theirs, "w", encoding="utf-8") as terminal:
            monkeypatch.setattr(sys, "stderr", terminal)
            manual = Manual(show=True)
            manual.check(CLIENT, _soon())
            manual.apply(CLIENT, Secret(secret), _soon())
            terminal.flush()
            monkeypatch.undo()
            seen = os.read(ours, 65536)
            while b"The rotation goes on" not in seen or seen.count(b"\n") < 4:
                seen += os.read(ours, 65536)
    finally:
        os.close(ours)
    assert (NEW in seen.decode()) is shown
    assert b"\x1b[2J" not in seen


def test_nothing_else_shows_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tmp_path.chmod(0o700)
    manual, _ = _told(reveal_to=tmp_path / "secret")
    assert NEW not in f"{manual!r} {vars(manual)!r} {caplog.text}"
    manual.close()
