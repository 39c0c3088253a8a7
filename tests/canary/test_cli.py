"""The command line: a token goes to standard output, a secret nowhere, whatever is typed and whatever fails."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secretsource.testing import FakeIssuer, Fault

from ..cli import Ran, Terminal, called, environment, plug_in, started
from .canaries import SPECIAL, TOKEN
from .cases import the_rest_slow
from .test_files import DOCUMENTS
from .test_source import REFUSALS
from .watch import Watch

JSON = DOCUMENTS["json"]


class Desk:
    """Somebody at the command line, with a client whose secret is a canary."""

    def __init__(self, watch: Watch, issuer: FakeIssuer) -> None:
        self._watch, self._issuer = watch, issuer
        self.secret = watch.canary("client secret", SPECIAL)
        self.path = watch.put("secrets/pos.json", JSON(self.secret))
        issuer.add_client("pos", self.secret)

    @property
    def client(self) -> tuple[str, ...]:
        return "--credentials", f"file://{self.path}", "--issuer", self._issuer.url

    def runs(self, *arguments: str, text: str | bytes = "") -> Ran:
        """In this process, so that all places are seen."""
        ran = called(*arguments, text=text)
        self._watch.write(ran.err)
        self._watch.write(ran.out)
        return ran


@pytest.fixture
def desk(watch: Watch, issuer: FakeIssuer) -> Desk:
    return Desk(watch, issuer)


# --- token -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["token", "json", "header"])
def test_a_token_goes_to_standard_output_alone(watch: Watch, issuer: FakeIssuer, desk: Desk, format: str) -> None:
    token = watch.canary("access token", TOKEN)
    issuer.fail(Fault(answer={"access_token": token}))
    ran = called("token", "-v", *desk.client, "--format", format)
    assert ran.code == 0
    assert token in ran.out
    watch.write(ran.err)
    watch.write(ran.out.replace(token, ""))


@pytest.mark.parametrize("refusal", the_rest_slow(REFUSALS, "in a description", "in HTML", "as a token", "cut"))
def test_a_refusal_that_gives_the_secret_back(issuer: FakeIssuer, desk: Desk, refusal: str) -> None:
    issuer.fail(REFUSALS[refusal](desk.secret))
    assert desk.runs("token", "-v", *desk.client).code in (4, 5)
    assert desk.runs("check", "--json", *desk.client).code in (4, 5)


def test_an_issuer_that_is_down(issuer: FakeIssuer, desk: Desk) -> None:
    with issuer.down():
        assert desk.runs("token", "-v", *desk.client, "--timeout", "1").code == 5
        assert desk.runs("check", "-v", *desk.client, "--timeout", "1").code == 5


# --- check -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--json",), ("-v",), ("--no-token",)])
def test_a_walk_that_ends_well(desk: Desk, arguments: tuple[str, ...]) -> None:
    assert desk.runs("check", *desk.client, *arguments).code == 0


BROKEN: dict[str, Callable[[Watch, str], Path]] = {
    "cut": lambda watch, s: watch.put("pos.json", JSON(s)[:-6]),
    "open to others": lambda watch, s: watch.put("pos.json", JSON(s), 0o644),
    "of another format": lambda watch, s: watch.put("pos.toml", JSON(s)),
    "with another name": lambda watch, s: watch.put("pos.json", json.dumps({"client_id": "pos", "key": s})),
    "with swapped fields": lambda watch, s: watch.put("pos.json", json.dumps({"client_id": s, "client_secret": "pos"})),
    "with unusable candidates": lambda watch, s: watch.put(
        "pos.json", json.dumps({"client_id": "pos", "client_secret": s, "client_secret_pending": f"{s}\n"})
    ),
    "bound elsewhere": lambda watch, s: watch.put(
        "pos.json", json.dumps({"client_id": "pos", "client_secret": s, "issuer": "https://elsewhere.example"})
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("verb", ["token", "check"])
def test_a_document_that_is_not_right(watch: Watch, issuer: FakeIssuer, desk: Desk, verb: str, broken: str) -> None:
    path = BROKEN[broken](watch, desk.secret)
    ran = called(verb, "-v", "--credentials", f"file://{path}", "--issuer", issuer.url)
    watch.write(ran.err)
    if verb == "check" or ran.code != 0:
        watch.write(ran.out)


# --- put -------------------------------------------------------------------------------------------------------------

NEW: dict[str, Callable[[str], str | bytes]] = {
    "one line": lambda s: f"{s}\n",
    "no line end": str,
    "two lines": lambda s: f"{s}\n{s}\n",
    "a line end of Windows": lambda s: f"{s}\r\n",
    "a NUL": lambda s: f"{s}\0\n",
    "a control character": lambda s: f"{s}\x1b[2J\n",
    "too much": lambda s: s * 2000,
    "bytes that are no text": lambda s: s.encode() + b"\xff\n",
    "UTF-16": lambda s: s.encode("utf-16"),
}


@pytest.mark.parametrize("new", NEW)
@pytest.mark.parametrize("format", ["json", "toml", "ini", "env", "text"])
def test_a_secret_that_is_put(watch: Watch, issuer: FakeIssuer, desk: Desk, format: str, new: str) -> None:
    path = watch.put(f"new/pos.{format}", DOCUMENTS[format](watch.canary("old secret")))
    secret = watch.canary("new secret")
    issuer.set_secret("pos", secret)
    client = () if format != "text" else ("--client-id", "pos")
    reference = "--credentials", f"file://{path}", "--issuer", issuer.url, *client
    desk.runs("put", "-v", *reference, text=NEW[new](secret))
    if format != "text":
        desk.runs("put", *reference, "--pending", text=NEW[new](watch.canary("pending secret")))


def test_a_new_document_leaves_nothing_beside_it(watch: Watch, issuer: FakeIssuer, desk: Desk) -> None:
    path = watch.folder / "secrets" / "new.json"
    watch.files.placed(path)
    reference = "--credentials", f"file://{path}", "--client-id", "pos", "--issuer", issuer.url
    assert desk.runs("put", *reference, text=desk.secret).code == 0
    assert desk.secret in json.loads(path.read_text())["client_secret"]


@pytest.mark.parametrize("there", ["cut", "open to others", "of another format"])
def test_what_is_there_and_is_not_right_is_not_written(watch: Watch, desk: Desk, there: str) -> None:
    path = BROKEN[there](watch, desk.secret)
    assert desk.runs("put", "--credentials", f"file://{path}", text=watch.canary("new secret")).code != 0


def test_a_pending_secret_is_not_written_over(watch: Watch, desk: Desk) -> None:
    first = watch.canary("first pending secret")
    assert desk.runs("put", *desk.client, "--pending", "--no-token", text=first).code == 0
    assert desk.runs("put", *desk.client, "--pending", text=watch.canary("second pending secret")).code == 2


def test_a_folder_that_cannot_be_written(watch: Watch, desk: Desk) -> None:
    arguments = ("put", "--credentials", "file:///proc/nowhere/pos.json", "--client-id", "pos")
    assert desk.runs(*arguments, text=watch.canary("new secret")).code == 3


# --- what is typed ---------------------------------------------------------------------------------------------------

TYPED: dict[str, tuple[str, ...]] = {
    "as a verb": ("{}",),
    "as a client": ("token", "{}"),
    "as a second client": ("token", "pos", "{}"),
    "as credentials": ("token", "--credentials", "{}"),
    "as credentials with a colon": ("check", "--credentials", "x:{}"),
    "as an option": ("token", "--{}"),
    "behind an option that there is not": ("token", "--client-secret", "{}"),
    "behind an equals sign": ("token", "--client-secret={}"),
    "as an issuer": ("token", "--credentials", "env:POS", "--issuer", "{}"),
    "in the issuer's URL": ("token", "--credentials", "env:POS", "--issuer", "https://user:{}@pos.example.com"),
    "as a method": ("token", "--auth-method", "{}"),
    "as a time": ("token", "--timeout", "{}"),
    "as a format": ("token", "--format", "{}"),
    "as a configuration": ("config", "--config", "{}"),
    "as a proxy": ("token", "--credentials", "env:POS", "--issuer", "https://pos.example.com", "--proxy", "{}"),
    "in the proxy's URL": ("token", "--credentials", "env:POS", "--issuer", "http://x", "--proxy", "http://u:{}@h:1"),
    "as a scope with a blank": ("token", "--scope", "a {}"),
    "as an extra": ("token", "--credentials", "env:POS", "--issuer", "https://pos.example.com", "--extra", "{}"),
    "behind help": ("{}", "--help"),
}


@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("shape", ["{}notarealsecret{}", SPECIAL], ids=["plain", "special"])
def test_a_secret_that_is_typed_where_none_belongs(watch: Watch, desk: Desk, typed: str, shape: str) -> None:
    secret = watch.canary("typed secret", shape)
    assert desk.runs(*(word.replace("{}", secret) for word in TYPED[typed])).code != 1


@pytest.mark.parametrize("verb", ["backends", "config"])
def test_commands_that_need_no_secret(watch: Watch, desk: Desk, verb: str) -> None:
    watch.setenv("POS_CLIENT_SECRET", watch.canary("in a variable"))
    watch.setenv("VAULT_TOKEN", watch.canary("Vault token"))
    watch.setenv("AWS_SECRET_ACCESS_KEY", watch.canary("AWS secret key"))
    desk.runs(verb, "-v")


PLUG_IN = """
class Store:
    options = frozenset()
    ttl = 0.0

    def read(self, reference, *, fresh, timeout):
        with open({path!r}) as file:
            raise {error}(f"no {{file.read()}} today")
"""


@pytest.mark.parametrize("error", ["RuntimeError", "KeyError", "SystemExit", "KeyboardInterrupt", "OSError"])
@pytest.mark.parametrize("verb", ["token", "check", "put"])
def test_a_plug_in_that_breaks_with_the_secret_in_its_text(
    watch: Watch, issuer: FakeIssuer, tmp_path_factory: pytest.TempPathFactory, verb: str, error: str
) -> None:
    path = watch.put("kept", watch.canary("client secret", SPECIAL))
    name = f"odd-{verb}-{error.lower()}"
    folder = tmp_path_factory.mktemp("plug-in")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(plug_in(folder, name, PLUG_IN.format(path=str(path), error=error)))
        ran = called(verb, "-v", "--credentials", f"{name}:pos", "--issuer", issuer.url)
    assert ran.code != 0
    watch.write(ran.err + ran.out)


# --- as processes ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="what others see of a process is in /proc")
@pytest.mark.parametrize("verb", ["token", "check"])
def test_what_others_see_of_the_process_while_it_asks(watch: Watch, issuer: FakeIssuer, desk: Desk, verb: str) -> None:
    issuer.fail(Fault(hang=True))
    with started(verb, "-v", *desk.client, "--timeout", "30") as child:
        issuer.wait_for_token_requests(1, 60)
        watch.processes.look_at(child.pid)
        issuer.heal()
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0
    watch.write(err)
    if verb == "check":
        watch.write(out)


def test_what_others_see_of_put_while_it_asks_at_a_terminal(watch: Watch, issuer: FakeIssuer, desk: Desk) -> None:
    secret = watch.canary("typed secret")
    issuer.set_secret("pos", secret)
    issuer.fail(Fault(hang=True))
    with Terminal("put", *desk.client, TMPDIR=str(watch.folder)) as terminal:
        terminal.wait_for("Client secret")
        terminal.type(f"{secret}\n")
        issuer.wait_for_token_requests(1, 60)
        watch.processes.look_at(terminal._child.pid)
        issuer.heal()
        ran = terminal.end()
    assert ran.code == 0, ran
    watch.write(ran.out)


def test_an_interrupt_shows_nothing(watch: Watch, issuer: FakeIssuer, desk: Desk) -> None:
    import signal

    issuer.fail(Fault(hang=True))
    with started("token", "-v", *desk.client) as child:
        issuer.wait_for_token_requests(1, 60)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    watch.write(err)


@pytest.mark.slow
def test_the_demo_shows_none_of_its_secrets(watch: Watch) -> None:
    for number in (1, 2, 3):
        watch.canary_of(f"secret {number} of the demo", f"demo-secret-{number}")
    began = time.monotonic()
    ran = called("demo", "--json")
    watch.write(ran.out + ran.err)
    figures: dict[str, Any] = json.loads(ran.out)
    assert figures["failed_calls"] == 0, (figures, time.monotonic() - began, environment())
