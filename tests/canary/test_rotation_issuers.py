"""Each adapter of ours: whole rotations, and sites and programs that give back all that they were given."""

from __future__ import annotations

import itertools
import json
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secretsource.clock import Deadline
from secretsource.errors import ConfigurationError, SecretSourceError
from secretsource.rotation import Adapter, Client, Policy, Rotation
from secretsource.rotation.issuers.command import Command
from secretsource.rotation.issuers.manual import Manual
from secretsource.rotation.issuers.registration import Registration
from secretsource.secret import Secret
from secretsource.state import RotationState
from secretsource.testing import Answer, Fault, Incoming, LoopbackServer, TickingClock

from ..rotation.issuers import test_site_rotations as sites
from ..rotation.issuers import vendors
from ..rotation.issuers.fakes_auth0 import Auth0Site
from ..rotation.issuers.fakes_entra import EntraSite
from ..rotation.issuers.fakes_okta import OktaSite
from ..rotation.issuers.fakes_orchard import API_KEY, OrchardSite
from ..rotation.issuers.test_vendor_rotations import adapter_of
from .canaries import TOKEN
from .cases import the_rest_slow
from .rotations import PRINTABLE, Scene, scene
from .watch import Watch

VERBS = ("plan", "status", "drift", "run", "rollback", "abort")


def ends(watch: Watch, rotation: Rotation, verb: str) -> object:
    ended = watch.ends(getattr(rotation, verb))
    assert not isinstance(ended, BaseException) or isinstance(ended, SecretSourceError), type(ended).__name__
    watch.look(rotation)
    return ended


# --- manual ----------------------------------------------------------------------------------------------------------


class Person:
    """Does what is said, when it is said; `said` is what that was."""

    def __init__(self, it: Scene, *, deaf: bool = False) -> None:
        self._it, self._deaf = it, deaf
        self.said: list[str] = []

    def __call__(self, message: str) -> None:
        self.said.append(message)
        self._it.watch.write(message)
        if not self._deaf:
            self._it.issuer.set_secret("pos", self._it.secrets["new secret 1"])


def by_hand(it: Scene, adapter: Adapter, **policy: Any) -> Rotation:
    it.administrator = adapter  # type: ignore[assignment]
    return it.rotation(**policy)


def test_a_person_is_told_no_secret(watch: Watch) -> None:
    with scene(watch) as it:
        person = Person(it)
        rotation = by_hand(it, Manual(say=person, propagation=0))
        assert watch.gives(rotation.plan).ok
        assert watch.gives(rotation.run).result == "done"
        assert person.said


def test_a_person_who_does_nothing(watch: Watch) -> None:
    with scene(watch) as it:
        manual = Manual(say=Person(it, deaf=True), propagation=0, landing=1)
        for verb in ("run", "run", "status", "abort"):
            ends(watch, by_hand(it, manual, max_wait=30), verb)
        it.clock.tick(100)
        ends(watch, by_hand(it, manual, max_wait=100), "abort")


def test_what_is_said_on_standard_error_holds_no_secret(watch: Watch) -> None:
    with scene(watch) as it:
        ends(watch, by_hand(it, Manual(propagation=0, landing=1), max_wait=30), "run")


def test_a_secret_is_revealed_to_one_file_alone(watch: Watch) -> None:
    with scene(watch) as it:
        path, seen = watch.folder / "revealed", list[tuple[int, str]]()

        def say(message: str) -> None:
            watch.write(message)
            seen.append((stat.S_IMODE(path.stat().st_mode), path.read_text()))
            it.issuer.set_secret("pos", it.secrets["new secret 1"])

        watch.folder.chmod(0o700)
        assert watch.gives(by_hand(it, Manual(say=say, reveal_to=path, propagation=0)).run).result == "done"
        assert seen == [(0o600, f"{it.secrets['new secret 1']}\n")]
        assert not path.exists()


@pytest.mark.parametrize("place", ["there already", "open to others", "no folder", "a link"])
def test_a_file_that_a_secret_is_not_revealed_to(watch: Watch, place: str) -> None:
    watch.folder.chmod(0o777 if place == "open to others" else 0o700)
    path = watch.folder / ("nowhere/revealed" if place == "no folder" else "revealed")
    if place == "there already":
        path.write_text("")
    elif place == "a link":
        path.symlink_to(watch.folder / "elsewhere")
    with scene(watch) as it:
        rotation = by_hand(it, Manual(reveal_to=path, propagation=0, landing=1), max_wait=10)
        assert isinstance(ends(watch, rotation, "run"), ConfigurationError)
        secret = Secret(it.new_secret())
        client = Client("pos", pending=secret)
        watch.ends(lambda: Manual(reveal_to=path).apply(client, secret, Deadline(1.0)))
    assert place == "there already" or not path.exists()


def test_a_secret_is_not_shown_where_there_is_no_terminal(watch: Watch) -> None:
    with scene(watch) as it:
        manual = Manual(show=True, propagation=0, landing=1)
        assert isinstance(ends(watch, by_hand(it, manual, max_wait=10), "run"), ConfigurationError)
        secret = Secret(it.new_secret())
        watch.gives(lambda: manual.apply(Client("pos", pending=secret), secret, Deadline(1.0)))
        watch.look(manual)


# --- command ---------------------------------------------------------------------------------------------------------

PROGRAMS = {
    "refuses": "sys.exit(65)",
    "fails": "sys.exit(1)",
    "succeeds and changes nothing": "sys.exit(0)",
    "raises": "raise RuntimeError(given)",
    "is killed": "os.kill(os.getpid(), 9)",
    "aborts": "os.abort()",
    "hangs": "time.sleep(60)",
}


def program(watch: Watch, name: str) -> Path:
    """It writes what it is given to both streams, and then does that."""
    text = f"#!{sys.executable} -IS\nimport os, resource, sys, time\n"
    text += "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\ngiven = sys.stdin.read()\n"
    text += "for stream in (sys.stdout, sys.stderr):\n    print(given, file=stream, flush=True)\n"
    return watch.put("program", f"{text}{PROGRAMS[name]}\n", 0o700)


@pytest.mark.parametrize("name", the_rest_slow(PROGRAMS, "refuses", "is killed", "raises", "hangs"))
def test_a_program_that_prints_what_it_is_given(watch: Watch, name: str) -> None:
    watch.folder.chmod(0o700)
    watch.setenv("POS_CLIENT_SECRET", watch.canary("a variable of ours"))
    with scene(watch) as it:
        it.watch.files.placed(program(watch, name))
        adapter = watch.look(Command(str(watch.folder / "program"), propagation=0, landing=1))
        rotation = by_hand(it, adapter, command_timeout=0.5 if name == "hangs" else 5, max_wait=2)
        ends(watch, rotation, "run")
        ends(watch, rotation, "status")
        watch.look(adapter)


def test_what_others_see_of_a_program_that_was_given_the_secret(watch: Watch) -> None:
    watch.folder.chmod(0o700)
    path = watch.put(
        "program", f"#!{sys.executable} -IS\nimport sys\nopen('given', 'x').close(), sys.stdin.read()\n", 0o700
    )
    secret = Secret(watch.canary("pending secret", PRINTABLE))
    adapter = Command(str(path), landing=1)
    adapter.prepare(Client("pos"))
    assert adapter._run is not None
    for pid in (adapter._run._program, adapter._run._guard.pid):
        watch.processes.look_at(pid)
    watch.gives(lambda: adapter.apply(Client("pos", pending=secret), secret, Deadline(10.0)))


def test_a_program_with_a_secret_in_its_settings(watch: Watch) -> None:
    secret = watch.canary("in the settings", "{}notarealsecret{}")
    watch.folder.chmod(0o700)
    path = program(watch, "refuses")
    adapter = Command(str(path), environment={"TOKEN": secret}, landing=1)
    client = Client("pos", pending=Secret(watch.canary("pending secret")))
    watch.gives(lambda: adapter.apply(client, client.pending, Deadline(10.0)) if client.pending else None)
    watch.processes._seen.clear()  # where it was asked for
    for argv in (["/nowhere/program", secret], ["/nowhere/program", f"--token={secret}"]):
        # An argument is no place for a secret, and an object has its settings; no message repeats them.
        watch.fails(ConfigurationError, lambda argv=argv: Command(argv).check(client, Deadline(1.0)), frames=False)  # type: ignore[misc]


# --- RFC 7592 --------------------------------------------------------------------------------------------------------


def _everything(known: str, incoming: Incoming) -> dict[str, Any]:
    """What it was sent, and what it knows, under many a name."""
    sent = f"{known} {incoming.headers.get('authorization', '')} {incoming.body.decode('utf-8', 'replace')}"
    names = ("error", "error_description", "message", "errorCode", "errorSummary", "id", "name", "title", "detail")
    return dict.fromkeys(names, sent) | {"Errors": [sent], "errorCauses": [{"errorSummary": sent}]}


Bad = Callable[[str, Incoming], Answer]


def _repeating(status: int) -> Bad:
    def answer(known: str, incoming: Incoming) -> Answer:
        headers = {"Content-Type": "application/json", "X-Request-Id": known.split()[0]}
        return Answer(status, headers, json.dumps(_everything(known, incoming)).encode())

    return answer


BAD: dict[str, Bad] = {
    **{f"{status} that repeats it all": _repeating(status) for status in (200, 201, 400, 401, 403, 404, 409, 429, 500)},
    "cut": lambda known, incoming: Answer(200, {}, json.dumps({"a": known}).encode(), Fault(cut_after=30)),
    "HTML": lambda known, incoming: Answer(502, {"Content-Type": "text/html"}, f"<p>{known}</p>".encode()),
    "a list": lambda known, incoming: Answer(200, {}, json.dumps(known.split()).encode()),
    "broken JSON": lambda known, incoming: Answer(200, {}, json.dumps({"secret": known})[:-5].encode()),
    "a redirect": lambda known, incoming: Answer(307, {"Location": f"https://elsewhere.example/{known.split()[0]}"}),
    "a reset": lambda known, incoming: Answer(fault=Fault(reset=True)),
}
USUAL = ("200 that repeats it all", "broken JSON")


@contextmanager
def registered(watch: Watch, answer: Callable[[str, Incoming], Answer | None], *, update: Any) -> Iterator[Rotation]:
    """A client that is registered at an endpoint, which answers so, or as RFC 7592 says."""
    numbers = itertools.count(1)
    with scene(watch) as it:

        def saves(incoming: Incoming) -> Answer:
            known = " ".join(it.secrets.values())
            bad = answer(known, incoming)
            if bad is not None:
                return bad
            if incoming.method == "PUT":
                it.secrets["current secret"] = watch.canary(f"registered secret {next(numbers)}", PRINTABLE)
                it.secrets["registration token"] = watch.canary(f"registration token {next(numbers)}", TOKEN)
                it.issuer.set_secret("pos", it.secrets["current secret"])
            metadata = {"client_id": "pos", "client_secret": it.secrets["current secret"]}
            metadata |= {"registration_access_token": it.secrets["registration token"]}
            metadata |= {"registration_client_uri": f"{server.origin}/register/pos", "redirect_uris": []}  # type: ignore[dict-item]
            return Answer(200, {"Content-Type": "application/json"}, json.dumps(metadata).encode())

        with LoopbackServer(saves) as server:
            it.secrets["registration token"] = watch.canary("first registration token", TOKEN)
            fields = it.store._fields
            fields["registration_access_token"] = Secret(it.secrets["registration token"])
            fields["registration_client_uri"] = Secret(f"{server.origin}/register/pos")
            adapter = watch.look(Registration(update=update, propagation=0, landing=1, hosts=("127.0.0.1",)))
            yield by_hand(it, adapter, max_wait=200)


UPDATES = ["without-secret", "with-secret"]


@pytest.mark.parametrize("update", UPDATES)
def test_a_client_that_is_registered(watch: Watch, update: str) -> None:
    with registered(watch, lambda known, incoming: None, update=update) as rotation:
        assert watch.gives(rotation.plan).ok
        assert watch.gives(rotation.run).result == "done"
        watch.look(rotation)


@pytest.mark.parametrize("update", the_rest_slow(UPDATES, "without-secret"))
@pytest.mark.parametrize("bad", the_rest_slow(BAD, *USUAL))
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_registration_that_gives_everything_back(watch: Watch, method: str, bad: str, update: str) -> None:
    def answer(known: str, incoming: Incoming) -> Answer | None:
        return BAD[bad](known, incoming) if incoming.method == method else None

    with registered(watch, answer, update=update) as rotation:
        for verb in ("plan", "run", "status", "abort"):
            ends(watch, rotation, verb)


# --- the sites of others ---------------------------------------------------------------------------------------------

KINDS = ["keycloak", "keycloak under a policy", "orchard", "orchard generated", "recipe", "okta", "auth0", "entra"]
DIFFERENT = ("keycloak", "orchard", "recipe", "okta", "auth0", "entra")
_VENDORS = {"okta": OktaSite, "auth0": Auth0Site, "entra": EntraSite}


class Site:
    """One site with a client's secret in a file, all of whose secrets are canaries."""

    def __init__(self, watch: Watch, kind: str) -> None:
        self.watch = watch
        for name in ("OLD", "NEW", "LATER", "ADMIN_SECRET", "API_TOKEN", "IN_A_BODY"):
            watch.canary_of(name, getattr(vendors, name))
        watch.canary_of("API key", API_KEY)
        self.clock = TickingClock()
        if kind in _VENDORS:
            self.site = vendor = _VENDORS[kind](clock=self.clock)
            self.path = watch.put("pos.json", json.dumps({"client_id": "pos", "client_secret": vendors.OLD}))
            self._adapter: Callable[[], Adapter] = lambda: adapter_of(vendor, watch.folder)
        else:
            world = sites.World(kind, watch.folder)
            world.clock.between = self._lands
            self.site, self.path, self.clock, self._adapter = world.site, world.path, world.clock, world.adapter
        for name in ("pos.json", "key", "okta-token"):
            watch.files.placed(watch.folder / name)

    def _lands(self) -> None:
        if isinstance(self.site, OrchardSite):
            self.site.land()

    def answers(self, answer: Callable[[Incoming, Callable[[Incoming], Answer]], Answer]) -> None:
        """Calls to the administrator's API are answered so, by who could answer as usual."""
        if isinstance(self.site, OrchardSite):
            usual, paths = self.site._api, list(self.site.issuer._apis)
            self.site.issuer._apis = dict.fromkeys(paths, lambda incoming: answer(incoming, usual))
            return
        whole, token_path = self.site._answer, self.site.token_path
        self.site.server._answer = lambda incoming: (
            whole(incoming) if incoming.path == token_path else answer(incoming, whole)
        )

    def rotation(self, **policy: Any) -> Rotation:
        said = {"wait": 5, "soak": 5, "max_wait": 600, "force": True, "accept_gap": True, **policy}
        source = self.watch.source(f"file://{self.path}", token_url=self.site.token_url, clock=self.clock)
        adapter = self.watch.look(self._adapter())
        return Rotation(source, adapter, policy=Policy(**said), observers=self.watch.events, generator=self.new)

    def new(self) -> str:
        return self.watch.canary(f"new secret {len(self.watch._canaries._values)}", PRINTABLE)

    def learn(self) -> None:
        """What the site has made, too."""
        tokens = self.site.issuer._grants if isinstance(self.site, OrchardSite) else self.site.tokens
        for number, token in enumerate(list(tokens)):
            self.watch.canary_of(f"token {number}", token)
        with suppress(ValueError, FileNotFoundError):
            for name, text in json.loads(self.path.read_text()).items():
                if name in ("client_secret", "client_secret_pending", "client_secret_previous"):
                    self.watch.canary_of(f"{name} of {self.clock.now().monotonic}", text)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_rotation_at_a_site(watch: Watch, kind: str) -> None:
    made = Site(watch, kind)
    with made.site:
        for verb in ("plan", "run", "status", "drift"):
            rotation = made.rotation()
            ended = ends(watch, rotation, verb)
            made.learn()
            watch.look(ended)
            watch.look(rotation)
        assert not made.site.gives(vendors.OLD)


@pytest.mark.parametrize("bad", the_rest_slow(BAD, "200 that repeats it all"))
@pytest.mark.parametrize("when", the_rest_slow(["everything", "changes", "reads"], "changes"))
@pytest.mark.parametrize("kind", the_rest_slow(KINDS, *DIFFERENT))
def test_a_site_that_gives_everything_back(watch: Watch, kind: str, when: str, bad: str) -> None:
    made = Site(watch, kind)
    known = f"{vendors.OLD} {vendors.ADMIN_SECRET} {vendors.API_TOKEN} {API_KEY}"

    def answer(incoming: Incoming, usual: Callable[[Incoming], Answer]) -> Answer:
        if when == "everything" or (incoming.method == "GET") == (when == "reads"):
            return BAD[bad](known, incoming)
        return usual(incoming)

    made.answers(answer)
    with made.site:
        for verb in ("plan", "run", "status", "abort"):
            rotation = made.rotation(max_wait=20, landing=1)
            ended = ends(watch, rotation, verb)
            made.learn()
            watch.look(ended)
            watch.look(rotation)


def _named_so(value: Any, secret: str) -> Any:
    """The same with the secret as each name that is shown somewhere."""
    if isinstance(value, dict):
        shown = ("id", "name", "displayName", "keyId", "client_name", "description", "label", "kid", "hint")
        return {key: secret if key in shown else _named_so(inner, secret) for key, inner in value.items()}
    return [_named_so(inner, secret) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", the_rest_slow(KINDS, *DIFFERENT))
def test_a_site_whose_names_are_secrets(watch: Watch, kind: str) -> None:
    made = Site(watch, kind)

    def answer(incoming: Incoming, usual: Callable[[Incoming], Answer]) -> Answer:
        given = usual(incoming)
        if not given.body:
            return given
        return replace(given, body=json.dumps(_named_so(json.loads(given.body), vendors.OLD)).encode())

    made.answers(answer)
    with made.site:
        for verb in ("plan", "run", "status"):
            ended = ends(watch, made.rotation(max_wait=20, landing=1), verb)
            made.learn()
            watch.look(ended)
        text = json.loads(made.path.read_text()).get("client_secret_rotation", "")
        watch.write(repr(RotationState.read(text)) if text else "")
