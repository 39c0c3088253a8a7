"""Rotations in files, OpenBao and Secrets Manager, and by the rotation function: whole, broken, and killed ones."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from secretsource.backends.aws import AwsBackend
from secretsource.backends.vault import visit as visit_module
from secretsource.errors import SecretSourceError
from secretsource.rotation import Hold, Moment, Policy, Report, Rotation
from secretsource.rotation.aws_lambda import rotation_function
from secretsource.testing import Answer

from ..backends.conftest import openbao
from ..backends.corrected_moto import corrected
from ..backends.openbao import OpenBao
from ..backends.secrets_manager import REGION, Asked, Moto, Scripted
from ..backends.staging import READS, Staged
from ..backends.vaults import DATA, REFERENCE, answer, by_token, secret
from ..backends.vaults import Scripted as ScriptedVault
from ..cli import environment
from . import test_aws, test_vault
from .canaries import PLAIN, SPECIAL, Canaries
from .cases import the_rest_slow
from .rotations import BREAKS, CLIENT, PRINTABLE, Scene, scene
from .test_files import DOCUMENTS
from .watch import Watch

__all__ = ["openbao"]

FORMATS = ("json", "toml", "ini", "env")


class Place:
    """A client whose secret is kept in a store of ours; `scene` has its issuer, administrator and clock."""

    def __init__(self, watch: Watch, it: Scene, reference: str, backend: Any = None, timeout: float = 20.0) -> None:
        self.watch, self.it, self.reference, self._timeout = watch, it, reference, timeout
        self._stores = {} if backend is None else {reference.partition(":")[0]: backend}

    def rotation(self, *, gates: tuple[object, ...] = (), new: Callable[[], str] | None = None, **policy: Any) -> Any:
        settings = {"wait": 5.0, "soak": 5.0, "proofs": 1, "force": True, "max_wait": 60.0, **policy}
        source = self.watch.source(
            self.reference, stores=self._stores, issuer=self.it.issuer.url, clock=self.it.clock, timeout=self._timeout
        )
        return self.watch.look(
            Rotation(
                source,
                self.it.administrator,
                policy=Policy(**settings),
                gates=gates,
                observers=self.watch.events,
                generator=new or self.it.new_secret,
            )
        )

    def goes_through_all(self) -> None:
        """Each verb, as far as it comes, and a whole rotation."""
        watch = self.watch
        for verb in ("plan", "status", "drift"):
            watch.gives(getattr(self.rotation(), verb))
        waiting = watch.gives(self.rotation(wait=3600, max_wait=0).run)
        assert (waiting.result, waiting.phase) == ("waiting", "claimed"), waiting
        for verb in ("plan", "status", "drift", "abort"):
            watch.gives(getattr(self.rotation(), verb))
        assert watch.gives(self.rotation().run).result == "done"
        assert watch.gives(self.rotation(soak=3600).run).phase == "soaking"
        for verb in ("plan", "status", "rollback"):
            watch.ends(getattr(self.rotation(), verb))
        assert watch.gives(self.rotation(compromised=True).run).result == "done"

    def ends(self, verb: str, **settings: Any) -> object:
        ended = self.watch.ends(getattr(self.rotation(**settings), verb))
        assert isinstance(ended, (Report, SecretSourceError)) or verb == "plan", type(ended).__name__
        return ended


# --- files -----------------------------------------------------------------------------------------------------------


@contextmanager
def kept_in_file(watch: Watch, format: str = "json", shape: str = PLAIN) -> Iterator[tuple[Place, Path]]:
    with scene(watch) as it:
        it.secrets["new secret 1"], it.secrets["new secret 2"] = watch.canary("new 1", shape), watch.canary("new 2")
        it.secrets["current secret"] = watch.canary("secret in the file", SPECIAL if shape == PRINTABLE else PLAIN)
        it.issuer.set_secret(CLIENT, it.secrets["current secret"])
        path = watch.put(f"pos.{format}", DOCUMENTS[format](it.secrets["current secret"]))
        yield Place(watch, it, f"file://{path}"), path


@pytest.mark.parametrize("shape", the_rest_slow([PLAIN, PRINTABLE], PRINTABLE), ids=["plain", "special"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_each_format(watch: Watch, format: str, shape: str) -> None:
    with kept_in_file(watch, format, shape) as (place, path):
        if format == "json":
            place.goes_through_all()
        assert watch.gives(place.rotation().run).result == "done"
        left = sorted(each.name for each in watch.folder.iterdir())
        assert left == sorted([path.name, f".{path.name}.lock"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_text(path.read_text()[:-20]),
    "cut in the secret": lambda path: path.write_text(path.read_text()[:60]),
    "open to others": lambda path: path.chmod(0o644),
    "gone": Path.unlink,
    "a state that is none": lambda path: path.write_text(path.read_text().replace('"v1.', '"v9.')),
    "a list": lambda path: path.write_text(json.dumps([path.read_text()])),
    "another client's": lambda path: path.write_text(path.read_text().replace('"pos"', '"stock"')),
}


@pytest.mark.parametrize("damage", the_rest_slow(DAMAGE, "cut", "cut in the secret", "a state that is none"))
@pytest.mark.parametrize("point", the_rest_slow(["before_claim", "before_apply", "before_promote"], "before_apply"))
def test_a_file_that_is_damaged_in_the_middle(watch: Watch, damage: str, point: str) -> None:
    with kept_in_file(watch) as (place, path):

        def harm(moment: Moment) -> Hold:
            DAMAGE[damage](path)
            return Hold("it was damaged")

        gate = type("Gate", (), {point: staticmethod(harm)})()
        place.ends("run", gates=(gate,))
        for verb in ("plan", "run", "status", "abort"):
            watch.ends(getattr(place.rotation(), verb))


_KILLED = """
import os, signal, sys
from secretsource import TokenSource
from secretsource.rotation import Applied, Capabilities, Policy, Preflight, Rotation, Adapter
class Nothing(Adapter):
    capabilities = Capabilities(chosen=True, slots=1)
    def check(self, client, deadline):
        return Preflight()
reference, issuer, new = sys.argv[1:]
os.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
source = TokenSource(reference, issuer=issuer)
Rotation(source, Nothing(), policy=Policy(wait=5, force=True), generator=lambda: open(new).read()).run()
"""


def test_a_writer_that_is_killed_between_write_and_rename(watch: Watch) -> None:
    with kept_in_file(watch) as (place, _path):
        new = watch.put("new", place.it.secrets["new secret 1"])
        arguments = [sys.executable, "-c", textwrap.dedent(_KILLED), place.reference, place.it.issuer.url, str(new)]
        ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=environment(), check=False)
        watch.write(ended.stdout + ended.stderr)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        new.unlink()
        (left,) = watch.folder.glob(".pos.json.*.new")
        assert stat.S_IMODE(left.stat().st_mode) == 0o600
        assert place.it.secrets["new secret 1"] in left.read_text()
        assert watch.gives(place.rotation().run).result == "done"
        assert not left.exists()
        assert not [*watch.folder.glob(".pos.json.*.new")]


# --- OpenBao ---------------------------------------------------------------------------------------------------------


def test_a_rotation_in_a_real_openbao(watch: Watch, openbao: OpenBao) -> None:
    corner = openbao.corner(watch.folder, [])
    mount = corner.kv()
    paths = [f"{mount}/{kind}/pos" for kind in ("data", "metadata", "destroy")]
    token = corner.token(corner.policy(*paths, capabilities=("read", "create", "update")))
    watch.canary_of("Vault token", token)
    with scene(watch) as it:
        it.secrets["current secret"] = watch.canary("secret in Vault", SPECIAL)
        it.issuer.set_secret(CLIENT, it.secrets["current secret"])
        corner.secret(mount, "pos", it.secrets["current secret"])
        backend = watch.look(corner.by_token(token))
        watch.files.placed(watch.folder / f"{corner.name}-token")
        Place(watch, it, f"vault://{mount}/pos", backend).goes_through_all()
        watch.look(backend)


@pytest.mark.parametrize("bad", the_rest_slow(test_vault.ANSWERS, "403 that repeats it all", "200 that repeats it all"))
@pytest.mark.parametrize("when", ["reading", "writing"])
def test_an_answer_of_vault(watch: Watch, monkeypatch: pytest.MonkeyPatch, when: str, bad: str) -> None:
    monkeypatch.setattr(visit_module, "WAITS_BETWEEN_ATTEMPTS", (0.002, 0.002))
    shown = test_vault.Shown(watch)
    with scene(watch) as it, ScriptedVault() as vault:
        it.issuer.set_secret(CLIENT, shown.client_secret)
        backend = by_token(vault, shown.token)
        wrong = test_vault.ANSWERS[bad](shown)
        vault.script[DATA] = lambda incoming: (
            wrong if (incoming.method != "GET") == (when == "writing") else secret(shown.client_secret)
        )
        vault.script["/v1/sys/capabilities-self"] = wrong
        vault.script[DATA.replace("/data/", "/metadata/")] = answer({"errors": shown.all}, 403)
        place = Place(watch, it, REFERENCE, backend)
        for verb in ("plan", "run", "status"):
            watch.ends(getattr(place.rotation(max_wait=3), verb))


# --- Secrets Manager -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with corrected() as server:
        yield server


@pytest.fixture
def stored(moto: Moto) -> tuple[str, str]:
    """What was put there before anybody watched: boto3 logs what it sends. Its name, and the secret."""
    secret = Canaries().new("current secret", SPECIAL)
    return moto.create({"client_id": CLIENT, "client_secret": secret}), secret


@pytest.fixture
def session(watch: Watch) -> Any:
    keys = watch.canary("AWS secret key"), watch.canary("AWS session token")
    return boto3.Session("AKIDTESTING", *keys, region_name=REGION)


@pytest.mark.parametrize("whole", the_rest_slow([False, True], False), ids=["one", "each verb"])
@pytest.mark.parametrize("layout", ["labels", "document"])
def test_a_rotation_in_secrets_manager(
    stored: tuple[str, str], moto: Moto, watch: Watch, session: Any, layout: Any, whole: bool
) -> None:
    name, current = stored
    with scene(watch) as it:
        it.secrets["current secret"] = watch.canary_of("secret in AWS", current)
        it.issuer.set_secret(CLIENT, current)
        backend = AwsBackend(session=session, endpoint_url=moto.url, layout=layout)
        place = Place(watch, it, f"aws://{name}", backend)
        if whole:
            place.goes_through_all()
        assert watch.gives(place.rotation().run).result == "done"
        watch.look(backend)


class Answers:
    """Secrets Manager, which answers each writing call, or each reading one, badly."""

    def __init__(self, staged: Staged, bad: Answer | Mapping[str, Any], when: str) -> None:
        self._staged, self._bad, self._when = staged, bad, when

    def __call__(self, asked: Asked) -> Answer | Mapping[str, Any]:
        reads = asked.operation in READS
        return self._bad if reads == (self._when == "reading") else self._staged(asked)


@pytest.mark.parametrize("bad", the_rest_slow(test_aws.ANSWERS, "AccessDeniedException 400"))
@pytest.mark.parametrize("when", ["reading", "writing"])
@pytest.mark.parametrize("layout", the_rest_slow(["labels", "document"], "labels"))
def test_an_answer_of_aws(watch: Watch, session: Any, layout: Any, when: str, bad: str) -> None:
    current = watch.canary("secret in AWS", SPECIAL)
    shown = test_aws.Shown(current, watch.canary("another key"), watch.canary("another token"))
    staged = Staged({"client_id": CLIENT, "client_secret": current})
    with scene(watch) as it, Scripted(Answers(staged, test_aws.ANSWERS[bad](shown), when)) as aws:
        it.issuer.set_secret(CLIENT, current)
        backend = AwsBackend(session=session, endpoint_url=aws.origin, attempts=1, layout=layout)
        place = Place(watch, it, "aws://prod/pos", backend, timeout=1.0)
        for verb in ("plan", "status"):
            watch.ends(getattr(place.rotation(), verb))
        rotation = place.rotation()
        for _ in range(3):  # and no run: what says that it writes, and does not, is written to without an end
            watch.ends(rotation.step)
            watch.look(rotation)


# --- the rotation function -------------------------------------------------------------------------------------------

STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")


class Left:
    """The time that Lambda leaves."""

    def get_remaining_time_in_millis(self) -> int:
        return 30_000


class Function:
    """The rotation function, called by its events with a RotationToken."""

    def __init__(self, watch: Watch, it: Scene, backend: AwsBackend, arn: str, token: str) -> None:
        self._watch, self._arn, self._token = watch, arn, token
        self._rotation_token = watch.canary("RotationToken", "{}-not-a-real-rotation-token-{}")
        self._function = watch.look(
            rotation_function(
                it.administrator, backend=backend, clock=it.clock, issuer=it.issuer.url, generator=it.new_secret
            )
        )

    def steps(self, **more: Any) -> None:
        for step in STEPS:
            given = [{"Step": step, "SecretId": self._arn, "ClientRequestToken": self._token, **more}]
            given[0].setdefault("RotationToken", self._rotation_token)
            ended = self._watch.ends(lambda given=given: self._function(given.pop(), Left()))  # type: ignore[misc]
            assert ended is None or isinstance(ended, SecretSourceError), type(ended).__name__


@contextmanager
def function(watch: Watch, session: Any) -> Iterator[tuple[Function, Scene, Staged, Scripted]]:
    with scene(watch) as it:
        current = it.secrets["current secret"] = watch.canary("secret in AWS", SPECIAL)
        it.issuer.set_secret(CLIENT, current)
        staged, token = Staged({"client_id": CLIENT, "client_secret": current}), str(uuid.uuid4())
        staged.values[token] = None
        staged.labels["AWSPENDING"] = token
        staged.more |= {"RotationEnabled": True}
        with Scripted(staged) as aws:
            backend = AwsBackend(session=session, endpoint_url=aws.origin, attempts=1)
            arn = f"arn:aws:secretsmanager:{REGION}:123456789012:secret:prod/pos-AbCdEf"
            yield Function(watch, it, backend, arn, token), it, staged, aws


def test_the_four_events_of_a_rotation_function(watch: Watch, session: Any) -> None:
    with function(watch, session) as (pos, it, _staged, aws):
        pos.steps()
        assert it.administrator.made["apply"] == 1
        assert len([asked for asked in aws.asked if asked.body.get("RotationToken")]) == 1


@pytest.mark.parametrize("breaks", the_rest_slow(BREAKS, "RuntimeError"))
@pytest.mark.parametrize("call", ["check", "prepare", "apply", "close"])
def test_an_adapter_that_breaks_in_a_rotation_function(watch: Watch, session: Any, call: str, breaks: str) -> None:
    if call != "check" and breaks in ("SystemExit", "KeyboardInterrupt", "crash"):
        pytest.skip("an interrupt is left alone")
    with function(watch, session) as (pos, it, _staged, _aws):
        it.plan[call, None] = BREAKS[breaks]
        pos.steps()


@pytest.mark.parametrize("bad", the_rest_slow(test_aws.ANSWERS, "HTML"))
@pytest.mark.parametrize("when", ["reading", "writing"])
def test_an_answer_of_aws_to_a_rotation_function(watch: Watch, session: Any, when: str, bad: str) -> None:
    with function(watch, session) as (pos, it, staged, aws):
        shown = test_aws.Shown(it.secrets["current secret"], watch.canary("a key"), watch.canary("a token"))
        aws.script = Answers(staged, test_aws.ANSWERS[bad](shown), when)
        pos.steps()


@pytest.mark.parametrize("member", ["Step", "RotationToken"])
def test_an_event_with_a_secret_where_none_belongs(watch: Watch, session: Any, member: str) -> None:
    with function(watch, session) as (pos, _it, _staged, _aws):
        pos.steps(**{member: watch.canary("pasted", PLAIN)})
