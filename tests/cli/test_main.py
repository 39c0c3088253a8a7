from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from . import CANARY, PATIENCE, called, command, environment, plug_in, process

VERBS = ("token", "check", "put", "rotate", "generate", "config", "backends", "demo")
UNSET = "env:SECRETSOURCE_TEST_UNSET"
NOWHERE = "http://127.0.0.1:9/"


def test_help_and_backends_load_no_http_client_no_rich_and_no_testing_package() -> None:
    script = """
import sys
from secretsource.cli import main
for arguments in (["--help"], ["--version"], ["backends"], ["backends", "--json"]):
    assert main(arguments) == 0
loaded = {"httpx", "httpx2", "rich", "cachetools", "asyncio", "secretsource.testing", "secretsource.source"}
print(sorted(loaded & set(sys.modules)), file=sys.stderr)
"""
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, env=environment(), check=False
    )
    assert (child.returncode, child.stderr) == (0, "[]\n")


def test_the_version_is_printed() -> None:
    from secretsource import __version__

    assert called("--version") == (0, f"secretsource {__version__}\n", "")


def test_the_installed_command_is_the_same_as_the_module() -> None:
    script = Path(sys.executable).with_name("secretsource")
    if not script.exists():
        pytest.skip("the package is not installed in this environment")
    child = subprocess.run(
        [script, "--help"], capture_output=True, text=True, timeout=PATIENCE, env=environment(), check=False
    )
    assert (child.returncode, child.stdout.split()) == (0, called("--help").out.split())


@pytest.mark.parametrize("verb", VERBS)
def test_each_command_describes_itself(verb: str) -> None:
    ran = called(verb, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: secretsource {verb} ")


@pytest.mark.parametrize("verb", VERBS)
def test_no_option_takes_a_secret(verb: str) -> None:
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", called(verb, "--help").out))
    assert "--help" in options
    telling = {name for name in options if re.search("secret|password|passphrase|token$|key", name)}
    assert telling <= {"--no-token"}


@pytest.mark.parametrize("option", ["--client-secret", "--secret", "--password", "--access-token"])
@pytest.mark.parametrize("joined", [True, False])
def test_who_tries_to_give_a_secret_is_told_where_it_belongs(option: str, joined: bool) -> None:
    given = [f"{option}={CANARY}"] if joined else [option, CANARY]
    ran = called("token", "--credentials", UNSET, "--issuer", NOWHERE, *given)
    assert (ran.code, ran.out) == (2, "")
    assert "no option takes a secret" in ran.err
    assert "secretsource put" in ran.err
    assert CANARY not in ran.err


def test_a_misspelt_option_is_answered_with_the_one_that_may_be_meant() -> None:
    ran = called("token", "--credentials", UNSET, "--issuer", NOWHERE, "--scop", "orders.read")
    assert (ran.code, ran.out) == (2, "")
    assert "Did you mean --scope?" in ran.err


def test_options_are_not_abbreviated() -> None:
    ran = called("token", "--cred", UNSET, "--issuer", NOWHERE)
    assert (ran.code, ran.out) == (2, "")
    assert "--credentials" in ran.err


def test_without_a_command_the_commands_are_listed() -> None:
    ran = called()
    assert (ran.code, ran.out) == (2, "")
    assert all(verb in ran.err for verb in VERBS)


CREDENTIALS = ("--credentials", UNSET)
SLOTS: Sequence[tuple[str, ...]] = [
    ("{}",),
    ("--{}",),
    ("-v{}",),
    ("--version={}",),
    *((verb, "{}") for verb in ("backends", "demo")),
    *((verb, "--json={}") for verb in ("check", "backends", "demo")),
    *((verb, *CREDENTIALS, "{}") for verb in ("token", "check", "put")),
    *((verb, "--credentials", "{}") for verb in ("token", "check", "put")),
    *((verb, "{}") for verb in ("token", "check", "put", "config")),
    *((verb, "pos", "--config", "{}") for verb in ("token", "check", "put", "config")),
    *((verb, "pos", "--env", "{}") for verb in ("token", "check", "put", "config")),
    *((verb, "--config", "{}") for verb in ("token", "check", "put", "config")),
    ("check", "--all", "--env", "{}"),
    ("check", "--all", "--config", "{}"),
    ("check", "--all", "{}"),
    *(("token", *CREDENTIALS, "--issuer", NOWHERE, prefix) for prefix in ("--{}", "-{}", "-v{}", "--client-secret={}")),
    *(
        ("token", *CREDENTIALS, "--issuer", NOWHERE, option, "{}")
        for option in ("--client-secret", "--format", "--auth-method", "--basic-encoding", "--timeout", "--extra")
    ),
    *(
        ("token", *CREDENTIALS, "--issuer", NOWHERE, option, "{}")
        for option in ("--scope", "--audience", "--resource", "--endpoint-host", "--plain-http", "--proxy")
    ),
    *((verb, *CREDENTIALS, option, "{}") for verb in ("token", "check") for option in ("--issuer", "--token-url")),
    ("check", *CREDENTIALS, "--no-token={}"),
    ("put", *CREDENTIALS, "--pending={}"),
    ("generate", "{}"),
    ("generate", "--bits", "{}"),
    ("rotate", "{}"),
    ("rotate", "{}", "pos"),
    *(("rotate", action, "{}") for action in ("plan", "run", "status")),
    ("rotate", "run", "pos", "--config", "{}"),
    ("rotate", "run", "pos", "{}", "--env", "{}"),
    ("rotate", "run", "--all", "--env", "{}"),
    ("rotate", "run", "--credentials", "{}", "--adapter", "manual"),
    *(
        ("rotate", "run", *CREDENTIALS, "--issuer", NOWHERE, option, "{}")
        for option in ("--adapter", "--command", "--wait", "--max-wait", "--gate", "--client-secret")
    ),
    ("rotate", "run", *CREDENTIALS, "--issuer", NOWHERE, "--adapter", "manual", "--gate", "{}"),
    ("rotate", "run", *CREDENTIALS, "--issuer", NOWHERE, "--adapter", "manual", "--reveal-to", "{}"),
    ("rotate", "run", *CREDENTIALS, "--issuer", NOWHERE, "--audit", "nowhere/to/be/found/{}"),
    ("rotate", "run", *CREDENTIALS, "--issuer", NOWHERE, "--force={}"),
]
ODD = st.text(st.sampled_from("'\"(){}=,:/#?%&~\\ \n\t\x1b-+@é\u202e\ud800"), max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SLOTS), ODD, ODD)
def test_nothing_that_was_typed_is_repeated(slot: tuple[str, ...], before: str, after: str) -> None:
    typed = f"{before}{CANARY}{after}"
    ran = called(*(word.replace("{}", typed) for word in slot))
    assert ran.code in (2, 3)
    assert CANARY not in ran.out + ran.err
    assert "Traceback" not in ran.err
    assert ran.err or slot[0] == "check"  # which tells on standard output


def test_nothing_that_was_typed_is_repeated_by_the_real_process() -> None:
    ran = process("token", "--credentials", CANARY, "--issuer", NOWHERE)
    assert (ran.code, ran.out) == (2, "")
    assert f"{len(CANARY)} characters" in ran.err
    assert CANARY not in ran.err
    assert "Traceback" not in ran.err


def test_an_unexpected_error_is_named_without_its_text_and_without_a_traceback(tmp_path: Path) -> None:
    path = plug_in(
        tmp_path,
        "moody",
        f"""
class Store:
    ttl = None
    @property
    def options(self):
        raise RuntimeError({CANARY!r})
    def read(self, reference, *, fresh, timeout): ...
""",
    )
    code = f"import sys; sys.path.insert(0, {path!r})\n"
    ran = process("token", "--credentials", "moody:pos", "--issuer", NOWHERE, before=code)
    assert ran == (1, "", "secretsource: unexpected RuntimeError; this is a bug\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        child = subprocess.run(
            command("backends"), stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), timeout=PATIENCE
        )
    assert (child.returncode, child.stderr) == (1, "secretsource: writing failed: No space left on device\n")


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        child = subprocess.run(
            command("backends"), stdout=gone, stderr=subprocess.PIPE, text=True, env=environment(), timeout=PATIENCE
        )
    assert (child.returncode, child.stderr) == (1, "")


def test_an_output_whose_encoding_has_no_arrows_gets_question_marks() -> None:
    ran = process("check", *CREDENTIALS, PYTHONIOENCODING="ascii")
    assert (ran.code, ran.err) == (3, "")
    assert " ? Set SECRETSOURCE_TEST_UNSET_CLIENT_SECRET" in ran.out


def test_with_standard_error_closed_nothing_but_a_token_is_on_standard_output() -> None:
    command = (
        f"{sys.executable} -m secretsource token --credentials env:NOWHERE_TO_BE_FOUND --issuer http://127.0.0.1:9/"
    )
    done = subprocess.run(["sh", "-c", f"{command} 2>&-"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, "")


def test_with_standard_output_closed_there_is_no_success() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m secretsource backends >&-"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "standard output is closed" in done.stderr
