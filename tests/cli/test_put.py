from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from secretsource.backends.formats import Origin, parse
from secretsource.reference import SecretReference
from secretsource.secret import Secret
from secretsource.testing import FakeIssuer
from secretsource.testing.fixtures import fake_issuer

from . import CANARY, PATIENCE, Ran, Terminal, called, environment, plug_in, private, process, started

__all__ = ["fake_issuer"]

OLD = "the-one-before-not-a-real-secret"
NEXT = "the-next-one-not-a-real-secret"
WITHOUT_TERMIOS = "import sys; sys.modules['termios'] = None\n"


@pytest.fixture
def issuer(fake_issuer: FakeIssuer) -> FakeIssuer:
    fake_issuer.add_client("pos", CANARY)
    return fake_issuer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "secrets"
    place.mkdir(mode=0o700)
    return place


def put(reference: str, *arguments: str, text: str | bytes = f"{CANARY}\n") -> Ran:
    return called("put", "--credentials", reference, *arguments, text=text)


def fields_of(path: Path) -> dict[str, str]:
    """The document that the file holds, in the format of its suffix."""
    outcome = parse(Secret(path.read_text()), path.suffix[1:], Origin(SecretReference("file", path.parts[1:])))
    assert isinstance(outcome, dict)
    return {name: value.reveal() if isinstance(value, Secret) else repr(value) for name, value in outcome.items()}


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """All files, less the lock files that stay: what they hold, and their modes."""
    return {
        path.name: (path.read_text(), stat.S_IMODE(path.lstat().st_mode))
        for path in folder.iterdir()
        if path.is_file() and not path.name.endswith(".lock")
    }


def refused(ran: Ran, code: int, *words: str) -> None:
    assert (ran.code, ran.out) == (code, ""), ran
    assert [word for word in words if word not in ran.err] == [], ran.err
    assert "Traceback" not in ran.err
    assert CANARY not in ran.err


# --- a new document ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["json", "toml", "ini", "env"])
def test_a_new_document_is_private_bound_and_checked(issuer: FakeIssuer, folder: Path, format: str) -> None:
    path = folder / f"pos.{format}"
    ran = put(f"file://{path}", "--client-id", "pos", "--issuer", issuer.url, "--env", "test")
    assert ran.code == 0, ran
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert fields_of(path) == {
        "client_id": "pos",
        "client_secret": CANARY,
        "issuer": issuer.url,
        "environment": "test",
    }
    assert ran.err.startswith(f"written: file://{path}\n")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["ok"] * 9
    assert "bound to it by the document" in ran.out
    assert CANARY not in ran.out + ran.err
    assert issuer.token_requests == 1


def test_a_new_text_file_holds_the_secret_alone(issuer: FakeIssuer, folder: Path) -> None:
    ran = put(f"file://{folder}/secret", "--client-id", "pos", "--issuer", issuer.url)
    assert ran.code == 0, ran
    assert state_of(folder) == {"secret": (f"{CANARY}\n", 0o600)}
    assert "without a binding and the previous secret" in ran.err
    assert "not bound by the document" in ran.out


def test_the_secret_of_a_text_file_is_exchanged(issuer: FakeIssuer, folder: Path) -> None:
    reference = private(folder / "secret", f"{OLD}\n")
    assert put(reference, "--client-id", "pos", "--issuer", issuer.url).code == 0
    assert state_of(folder) == {"secret": (f"{CANARY}\n", 0o600)}


@pytest.mark.parametrize("arguments", [(), ("--client-id", "pos", "--pending"), ("--client-id", "pos", "--env", "e")])
def test_what_a_text_file_cannot_hold_is_refused(folder: Path, arguments: tuple[str, ...]) -> None:
    reference = private(folder / "secret", f"{OLD}\n")
    refused(put(reference, *arguments), 2, "one text", ".json")
    assert state_of(folder) == {"secret": (f"{OLD}\n", 0o600)}


def test_a_token_url_is_the_binding_where_there_is_no_issuer(issuer: FakeIssuer, folder: Path) -> None:
    ran = put(f"file://{folder}/pos.json", "--client-id", "pos", "--token-url", issuer.token_url)
    assert ran.code == 0
    assert fields_of(folder / "pos.json")["token_url"] == issuer.token_url


def test_the_fields_are_those_that_the_reference_names(issuer: FakeIssuer, folder: Path) -> None:
    ran = put(f"file://{folder}/pos.json#id=user,secret=key", "--client-id", "pos", "--issuer", issuer.url)
    assert ran.code == 0
    assert fields_of(folder / "pos.json") == {"user": "pos", "key": CANARY, "issuer": issuer.url}


def test_without_an_issuer_no_token_is_asked_for(folder: Path) -> None:
    ran = put(f"file://{folder}/pos.json", "--client-id", "pos")
    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines()] == ["ok"] * 4 + ["skipped"] * 5


def test_no_token_sends_no_token_request(issuer: FakeIssuer, folder: Path) -> None:
    ran = put(f"file://{folder}/pos.json", "--client-id", "pos", "--issuer", issuer.url, "--no-token")
    assert ran.code == 0
    assert issuer.token_requests == 0


def test_the_exit_code_is_that_of_the_check(issuer: FakeIssuer, folder: Path) -> None:
    ran = put(f"file://{folder}/pos.json", "--client-id", "pos", "--issuer", issuer.url, text="mistyped\n")
    assert ran.code == 4
    assert "failed  token" in ran.out
    assert fields_of(folder / "pos.json")["client_secret"] == "mistyped"


def test_what_is_written_stays_where_the_issuer_cannot_be_asked(issuer: FakeIssuer, folder: Path) -> None:
    with issuer.down():
        ran = put(f"file://{folder}/pos.json", "--client-id", "pos", "--token-url", issuer.token_url)
    assert ran.code == 5
    assert fields_of(folder / "pos.json")["client_secret"] == CANARY


def test_a_process_reads_it_from_a_pipe(issuer: FakeIssuer, folder: Path) -> None:
    reference = f"file://{folder}/pos.json"
    arguments = ("--credentials", reference, "--client-id", "pos", "--issuer", issuer.url)
    ran = process("put", *arguments, text=f"{CANARY}\r\n")
    assert ran.code == 0, ran
    assert fields_of(folder / "pos.json")["client_secret"] == CANARY
    assert ran.err.startswith(f"written: {reference}\n")
    assert CANARY not in ran.out + ran.err


# --- a document that is there -----------------------------------------------------------------------------------------


def test_comments_and_other_fields_stay(issuer: FakeIssuer, folder: Path) -> None:
    before = f'# of the shop\nclient_id = "pos"\nclient_secret = "{OLD}" # saved in May\n\n[shop]\nname = "north"\n'
    reference = private(folder / "pos.toml", before)
    assert put(reference, "--issuer", issuer.url).code == 0
    after = (folder / "pos.toml").read_text()
    assert "# of the shop\n" in after
    assert f'client_secret = "{CANARY}" # saved in May\n' in after
    assert after.endswith('[shop]\nname = "north"\n')


def test_other_fields_of_a_json_document_stay(issuer: FakeIssuer, folder: Path) -> None:
    document: dict[str, Any] = {"note": "of the shop", "client_id": "pos", "client_secret": OLD, "tills": [1, 2]}
    assert put(private(folder / "pos.json", document), "--issuer", issuer.url).code == 0
    assert json.loads((folder / "pos.json").read_text()) == {
        **document,
        "client_secret": CANARY,
        "client_secret_previous": OLD,
        "issuer": issuer.url,
    }


def test_the_secret_that_was_there_is_kept_as_the_previous_one(issuer: FakeIssuer, folder: Path) -> None:
    path, reference = folder / "pos.json", private(folder / "pos.json", {"client_id": "pos", "client_secret": OLD})
    ran = put(reference, "--issuer", issuer.url)
    assert ran.code == 0
    assert fields_of(path)["client_secret"] == CANARY
    assert fields_of(path)["client_secret_previous"] == OLD
    assert "a previous secret beside it" in ran.out


def test_the_same_secret_again_changes_nothing(folder: Path) -> None:
    document = {"client_id": "pos", "client_secret": CANARY, "client_secret_previous": OLD}
    reference = private(folder / "pos.json", document)
    before = state_of(folder)
    assert put(reference, "--client-id", "pos").code == 0
    assert state_of(folder) == before


def test_a_pending_secret_stands_beside_the_one_in_use_and_becomes_it(issuer: FakeIssuer, folder: Path) -> None:
    path = folder / "pos.json"
    reference = private(path, {"client_id": "pos", "client_secret": CANARY, "issuer": issuer.url})
    ran = put(reference, "--pending", "--issuer", issuer.url, text=f"{NEXT}\n")
    assert ran.code == 0
    assert "a pending secret beside it" in ran.out
    pending = {"client_id": "pos", "client_secret": CANARY, "client_secret_pending": NEXT, "issuer": issuer.url}
    assert fields_of(path) == pending
    issuer.set_secret("pos", NEXT)
    ran = put(reference, "--issuer", issuer.url, text=f"{NEXT}\n")
    assert ran.code == 0
    promoted = {"client_id": "pos", "client_secret": NEXT, "client_secret_previous": CANARY, "issuer": issuer.url}
    assert fields_of(path) == promoted


def test_a_pending_secret_is_kept_where_a_third_one_is_put(folder: Path) -> None:
    document = {"client_id": "pos", "client_secret": OLD, "client_secret_pending": NEXT}
    assert put(private(folder / "pos.json", document)).code == 0
    assert fields_of(folder / "pos.json") == {
        **document,
        "client_secret": CANARY,
        "client_secret_previous": OLD,
    }


# --- what is refused, and changes nothing -----------------------------------------------------------------------------


@pytest.fixture
def there(folder: Path) -> str:
    document = {"client_id": "pos", "client_secret": OLD, "issuer": "https://pos.example.com/", "environment": "test"}
    return private(folder / "pos.json", document)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--client-id", "stock"), "another client than --client-id"),
        (("--issuer", "https://other.example.com/"), "another issuer than the one given"),
        (("--env", "production"), "another environment than the one given"),
    ],
)
def test_a_document_for_something_else_is_refused(
    folder: Path, there: str, arguments: tuple[str, ...], word: str
) -> None:
    before = state_of(folder)
    ran = put(there, *arguments)
    refused(ran, 2, word)
    assert OLD not in ran.err
    assert arguments[1] not in ran.err
    assert state_of(folder) == before


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        (f"{CANARY}\n{CANARY}\n", "cannot be printed"),
        (f"{CANARY}\n\n", "cannot be printed"),
        (f"{CANARY}\x1b[2J\n", "cannot be printed"),
        (f"{CANARY}\u202e\n", "cannot be printed"),
        (CANARY + "x" * 70_000, "is longer than"),
        (CANARY + "x" * 17_000 + "\n", "is longer than"),
    ],
)
def test_a_text_that_is_no_secret_is_refused(folder: Path, there: str, text: str, word: str) -> None:
    before = state_of(folder)
    refused(put(there, text=text), 2, word)
    assert state_of(folder) == before


def test_bytes_that_are_no_text_are_refused(folder: Path, there: str) -> None:
    before = state_of(folder)
    refused(put(there, text=CANARY.encode() + b"\xff\n"), 2, "not text")
    assert state_of(folder) == before


def test_a_new_document_without_a_client_id_is_refused(folder: Path) -> None:
    refused(put(f"file://{folder}/pos.json"), 2, "Give --client-id")
    assert state_of(folder) == {}


def test_a_pending_secret_beside_nothing_is_refused(folder: Path) -> None:
    refused(put(f"file://{folder}/pos.json", "--client-id", "pos", "--pending"), 2, "Leave --pending out")
    assert state_of(folder) == {}


@pytest.mark.parametrize("option", ["--issuer", "--token-url"])
@pytest.mark.parametrize("url", ["htps://pos.example.com/", "http://pos.example.com/", "pos.example.com"])
def test_an_issuer_that_no_secret_may_be_sent_to_is_refused_and_nothing_is_written(
    folder: Path, option: str, url: str
) -> None:
    name = option.removeprefix("--").replace("-", "_")
    refused(put(f"file://{folder}/pos.json", "--client-id", "pos", option, url), 2, name)
    assert state_of(folder) == {}


def test_a_pending_secret_is_not_overwritten_by_another_pending_one(folder: Path) -> None:
    document = {"client_id": "pos", "client_secret": OLD, "client_secret_pending": NEXT}
    reference = private(folder / "pos.json", document)
    before = state_of(folder)
    ran = put(reference, "--pending")
    refused(ran, 2, "another secret is pending", "without --pending")
    assert OLD not in ran.err
    assert NEXT not in ran.err
    assert state_of(folder) == before
    assert put(reference, "--pending", text=f"{NEXT}\n").code == 0, "the same one is no other"
    assert fields_of(folder / "pos.json") == document


@pytest.mark.parametrize("fields", ["id=/a/id,secret=/a/key", "id=/a/id,secret=key", "/a/key"])
def test_fields_by_json_pointer_are_refused(folder: Path, there: str, fields: str) -> None:
    before = state_of(folder)
    refused(put(f"{there}#{fields}", "--client-id", "pos"), 2, "JSON pointers")
    assert state_of(folder) == before


@pytest.mark.parametrize(
    ("reference", "recipe"),
    [
        ("env:POS", "Set the variables where the program is started"),
        ("systemd:pos.toml", "systemd-creds encrypt"),
        ("file:///run/secrets/pos/?access=mounted", "kubectl"),
        ("file:///run/secrets/pos.json?access=mounted", "kubectl"),
    ],
)
def test_a_store_that_others_write_is_refused_with_the_recipe(reference: str, recipe: str) -> None:
    refused(put(reference, "--client-id", "pos"), 2, "not written", recipe)


def test_a_symbolic_link_is_refused(folder: Path, there: str) -> None:
    (folder / "link.json").symlink_to(folder / "pos.json")
    before = state_of(folder)
    refused(put(f"file://{folder}/link.json"), 3, "symbolic link", "Name the file that it leads to")
    assert state_of(folder) == before
    assert (folder / "link.json").is_symlink()


def test_a_missing_directory_is_refused_with_the_command_that_makes_it(folder: Path) -> None:
    ran = put(f"file://{folder}/shop/pos.json", "--client-id", "pos")
    refused(ran, 3, f"Run mkdir -p -m 700 {folder}/shop")
    assert not (folder / "shop").exists()


@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_directory_that_everybody_may_write_is_refused(folder: Path, there: str, mode: int) -> None:
    before = state_of(folder)
    folder.chmod(mode)
    refused(put(there), 3, "F10")
    folder.chmod(0o700)
    assert state_of(folder) == before


def test_a_closed_standard_input_is_refused(folder: Path, there: str) -> None:
    before = state_of(folder)
    refused(process("put", "--credentials", there, before="import sys; sys.stdin = None\n"), 2, "no standard input")
    assert state_of(folder) == before


# --- stores of others ------------------------------------------------------------------------------------------------

TILL = """
from secretsource import Document, Secret
from secretsource.backends import Stored
kept = {kept}
class Store:
    options = frozenset()
    ttl = None
    def read(self, reference, *, fresh, timeout):
        return Document(kept)
    def read_whole(self, reference, *, timeout):
        fields = {{"client_secret": kept}} if isinstance(kept, str) else kept
        return Stored({{name: Secret(value) for name, value in fields.items()}}, "1")
    def write_whole(self, reference, fields, *, version, timeout):
        global kept
        written.append({{name: value.reveal() for name, value in fields.items()}})
        kept = written[-1]["client_secret"] if isinstance(kept, str) else written[-1]
        return "2"
written = []
"""


@pytest.mark.parametrize(
    ("store", "kept", "fields"),
    [
        ("textbox", repr(OLD), {"client_secret": CANARY}),
        (
            "tillbox",
            repr({"client_secret": OLD}),
            {"client_id": "pos", "client_secret": CANARY, "client_secret_previous": OLD},
        ),
    ],
)
def test_what_is_kept_in_a_store_stays_a_text_or_a_document(
    folder: Path, monkeypatch: pytest.MonkeyPatch, store: str, kept: str, fields: dict[str, str]
) -> None:
    monkeypatch.syspath_prepend(plug_in(folder, store, TILL.format(kept=kept)))
    ran = put(f"{store}:pos", "--client-id", "pos")
    module = sys.modules.pop(f"plug_in_for_{store}")
    assert ran.code == 0, ran
    assert module.written == [fields]
    assert ("as one text" in ran.err) == (len(fields) == 1)


# --- a store that hangs -----------------------------------------------------------------------------------------------

HANGS = """
import os, time
from secretsource import Document, Secret
from secretsource.backends import Stored
class Store:
    options = frozenset()
    ttl = None
    def read_whole(self, reference, *, timeout):
        self.hang("read_whole")
        return Stored({{"client_secret": Secret("old")}}, "1")
    def read(self, reference, *, fresh, timeout):
        self.hang("read")
        return Document({{"client_secret": Secret("old")}})
    def write_whole(self, reference, fields, *, version, timeout):
        self.hang("write_whole")
        return "2"
    def hang(self, call):
        if call == {call!r}:
            os.write(1, b"it hangs\\n")  # no buffer, whose lock the end would wait for
            time.sleep({seconds})
"""


@pytest.mark.parametrize(
    ("call", "phase"), [("read_whole", "reading"), ("read", "reading"), ("write_whole", "The secret may be there now")]
)
def test_a_store_that_hangs_is_waited_for_no_longer_than_the_timeout(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, phase: str
) -> None:
    store = f"hangs-in-{call.replace('_', '-')}"
    monkeypatch.syspath_prepend(plug_in(folder, store, HANGS.format(call=call, seconds=4)))
    began = time.monotonic()
    ran = put(f"{store}:pos", "--client-id", "pos", "--timeout", "0.5")
    assert time.monotonic() - began < 3
    assert ran.code == 5, ran
    assert "within 0.5 s" in ran.err
    assert phase in ran.err
    assert "written" not in ran.err
    assert CANARY not in ran.err


def test_an_interrupt_while_a_store_hangs_ends_with_130(folder: Path) -> None:
    path = plug_in(folder, "stuck", HANGS.format(call="read_whole", seconds=3600))
    where = os.pathsep.join([path, environment()["PYTHONPATH"]])
    with started("put", "--credentials", "stuck:pos", "--timeout", "3600", PYTHONPATH=where) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "it hangs\n"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, err) == (130, "secretsource: interrupted\n")


# --- at a terminal ----------------------------------------------------------------------------------------------------


def test_typed_at_a_terminal_it_is_not_shown(issuer: FakeIssuer, folder: Path) -> None:
    path = folder / "pos.json"
    arguments = ("put", "--credentials", f"file://{path}", "--client-id", "pos", "--issuer", issuer.url)
    with Terminal(*arguments) as terminal:
        terminal.wait_for("Client secret: ")
        terminal.type(f"{CANARY}\n")
        ran = terminal.end()
    assert ran.code == 0, ran
    assert fields_of(path)["client_secret"] == CANARY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "written: " in ran.out
    assert CANARY not in ran.out


@pytest.mark.parametrize(
    ("keys", "code", "word"), [("\x03", 130, "interrupted"), ("\x04", 2, "is empty"), ("\n", 2, "is empty")]
)
def test_whoever_types_nothing_changes_nothing(folder: Path, there: str, keys: str, code: int, word: str) -> None:
    before = state_of(folder)
    with Terminal("put", "--credentials", there) as terminal:
        terminal.wait_for("Client secret: ")
        terminal.type(keys)
        ran = terminal.end()
    assert ran.code == code
    assert word in ran.out
    assert "Traceback" not in ran.out
    assert state_of(folder) == before


def test_what_can_be_refused_is_refused_before_anybody_types(there: str) -> None:
    with Terminal("put", "--credentials", there, "--client-id", "stock") as terminal:
        ran = terminal.end()
    assert ran.code == 2
    assert "Client secret" not in ran.out


def test_a_terminal_that_would_show_it_is_not_asked(folder: Path, there: str) -> None:
    before = state_of(folder)
    with Terminal("put", "--credentials", there, before=WITHOUT_TERMIOS) as terminal:
        ran = terminal.end()
    assert ran.code == 2
    assert "this terminal would show it" in ran.out
    assert state_of(folder) == before
