"""The rotation function, by its four events: at moto as corrected, and at a secret that fails where a test says so."""

from __future__ import annotations

import itertools
import json
import logging
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from secretsource import ConfigurationError, CredentialsRejected, IssuerUnavailable, SecretReference
from secretsource.backends.aws import AwsBackend
from secretsource.errors import BackendUnavailable, SecretSourceError
from secretsource.rotation import Adapter, Refused, Unknown, aws_lambda
from secretsource.rotation.aws_lambda import lambda_handler, rotation_function
from secretsource.rotation.issuers.entra import Entra
from secretsource.rotation.issuers.keycloak import Keycloak
from secretsource.rotation.issuers.okta import Okta
from secretsource.secret import Secret
from secretsource.state import RotationState
from secretsource.testing import Answer, FakeIssuer, Incoming, LoopbackServer, TickingClock

from ..backends.corrected_moto import corrected
from ..backends.layouts import shows
from ..backends.secrets_manager import ACCESS_KEY, REGION, SECRET_KEY, Asked, Moto, Scripted, refused
from ..backends.staging import Staged
from .issuers.fakes_entra import EntraSite
from .issuers.fakes_keycloak import REALM, KeycloakSite, RotationPolicy
from .issuers.fakes_okta import OktaSite
from .issuers.vendors import API_TOKEN, CANARIES, CLIENT, Vendor
from .issuers.vendors import OLD as FIRST
from .site import Administrator

OLD = "not-a-real-secret-old"
ROTATION_TOKEN = "not-a-real-rotation-token-not-a-real-rotation-token"
FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:rotate-pos"
STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")
SNAKES = ("create_secret", "set_secret", "test_secret", "finish_secret")


class Remaining:
    """What Lambda hands over beside the event."""

    def __init__(self, seconds: float = 300.0) -> None:
        self.get_remaining_time_in_millis = lambda: int(seconds * 1000)


class Pos:
    """An application at an issuer, its secret in a Secrets Manager, and a function that rotates it."""

    def __init__(self, issuer: FakeIssuer, clock: TickingClock, secret: str, backend: AwsBackend, **said: Any) -> None:
        self.issuer, self.clock, self.secret, self.backend = issuer, clock, secret, backend
        options = {name: said.pop(name) for name in ("wait", "client_id", "fields") if name in said}
        self.administrator = Administrator(issuer, clock, **said)
        self.function = rotation_function(
            self.administrator, backend=backend, clock=clock, issuer=issuer.url, **options
        )
        self.token = ""

    def event(self, step: str, **more: Any) -> dict[str, Any]:
        return {"Step": step, "SecretId": self.secret, "ClientRequestToken": self.token, **more}

    def make(self, *steps: str, **more: Any) -> None:
        for step in steps:
            self.function(self.event(step, **more), Remaining())

    def fails(self, kind: type[SecretSourceError], step: str, says: str = ".") -> None:
        with pytest.raises(kind, match=says) as caught:
            self.make(step)
        assert not any(shows(caught.value, each) for each in (OLD, ROTATION_TOKEN, *self.administrator.given))


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture
def issuer(clock: TickingClock) -> Iterator[FakeIssuer]:
    with FakeIssuer(clock=clock) as issuer:
        issuer.add_client("pos", OLD)
        yield issuer


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with corrected() as server:
        yield server


class AtMoto(Pos):
    """`begin` is what Secrets Manager does before it calls the function."""

    def __init__(self, moto: Moto, issuer: FakeIssuer, clock: TickingClock, value: Any = None, **said: Any) -> None:
        name = moto.create(value or {"client_id": "pos", "client_secret": OLD, "note": "kept"})
        self.moto, self.name = moto, name
        arn = moto.client.describe_secret(SecretId=name)["ARN"]
        super().__init__(issuer, clock, arn, moto.backend(region=None), **said)

    def begin(self) -> None:
        rules = {"AutomaticallyAfterDays": 30}
        self.token = self.moto.client.rotate_secret(
            SecretId=self.name, RotationLambdaARN=FUNCTION, RotationRules=rules
        )["VersionId"]

    def value(self, stage: str) -> dict[str, Any]:
        text = self.moto.client.get_secret_value(SecretId=self.name, VersionStage=stage)["SecretString"]
        found: dict[str, Any] = json.loads(text)
        return found


@pytest.fixture
def pos(moto: Moto, issuer: FakeIssuer, clock: TickingClock) -> AtMoto:
    return AtMoto(moto, issuer, clock)


# --- the four steps


@pytest.mark.parametrize("steps", [STEPS, SNAKES])
def test_four_steps_change_the_secret_in_the_store_and_at_the_issuer(pos: AtMoto, steps: tuple[str, ...]) -> None:
    pos.begin()
    before = pos.moto.labels(pos.name)["AWSCURRENT"]
    pos.make(*steps)
    labels = pos.moto.labels(pos.name)
    assert (labels["AWSCURRENT"], labels["AWSPREVIOUS"]) == (pos.token, before)
    assert labels.get("AWSPENDING") in (None, pos.token)
    value = pos.value("AWSCURRENT")
    assert value["client_secret"] == pos.administrator.given[-1] != OLD
    assert (value["client_id"], value["note"], value["issuer"]) == ("pos", "kept", pos.issuer.url)
    assert pos.administrator.calls == ["check", "apply"]
    pos.begin()
    pos.make(*steps)
    assert pos.value("AWSCURRENT")["client_secret"] == pos.administrator.given[-1]


def test_each_step_can_be_repeated_and_an_end_is_an_end(pos: AtMoto) -> None:
    pos.begin()
    for step in STEPS:
        pos.make(step, step)
    assert pos.administrator.calls == ["check", "apply"], "what works is not set again"
    pos.make(*STEPS)
    assert pos.moto.labels(pos.name)["AWSCURRENT"] == pos.token
    versions = pos.moto.client.list_secret_version_ids(SecretId=pos.name, IncludeDeprecated=True)["Versions"]
    assert len(versions) == 2


def test_an_empty_version_under_awspending_is_given_a_value_with_that_token(pos: AtMoto) -> None:
    pos.begin()
    versions = pos.moto.client.list_secret_version_ids(SecretId=pos.name)["Versions"]
    assert pos.token not in [version["VersionId"] for version in versions]
    pos.make("createSecret")
    assert pos.value("AWSPENDING")["client_secret"] not in (OLD, "")
    assert pos.moto.labels(pos.name)["AWSPENDING"] == pos.token


def test_programs_read_pending_current_and_previous_meanwhile(pos: AtMoto) -> None:
    reference, program = SecretReference.parse(f"aws://{pos.name}"), pos.moto.backend()
    pos.begin()
    document = program.read(reference, fresh=True, timeout=20)
    assert document.pending is None
    pos.make("createSecret")
    document = program.read(reference, fresh=True, timeout=20)
    assert document.pending is not None
    pos.make(*STEPS)
    document = program.read(reference, fresh=True, timeout=20)
    assert document.previous is not None
    assert document.previous.fields["client_secret"] == Secret(OLD)
    said = RotationState.read(document.fields["client_secret_rotation"].reveal())
    assert said is not None
    assert said.finished


def test_a_plain_text_with_the_client_id_of_the_function_is_rotated(
    moto: Moto, issuer: FakeIssuer, clock: TickingClock
) -> None:
    pos = AtMoto(moto, issuer, clock, OLD, client_id="pos")
    pos.begin()
    pos.make(*STEPS)
    assert moto.text(pos.name) == pos.administrator.given[-1]


def test_fields_with_other_names_are_named(moto: Moto, issuer: FakeIssuer, clock: TickingClock) -> None:
    value = {"app": {"id": "pos", "key": OLD}}
    pos = AtMoto(moto, issuer, clock, value, fields="id=/app/id,secret=/app/key")
    pos.begin()
    pos.make(*STEPS)
    assert pos.value("AWSCURRENT")["app"]["key"] == pos.administrator.given[-1]


# --- proofs


def test_a_secret_is_proved_by_tokens_over_the_time_that_a_change_needs(pos: AtMoto) -> None:
    pos.begin()
    pos.make("createSecret", "setSecret")
    began, asked = pos.clock.monotonic(), pos.issuer.token_requests
    pos.make("testSecret")
    assert pos.issuer.token_requests - asked == 3
    assert pos.clock.monotonic() - began >= pos.administrator.capabilities.propagation


def test_one_that_is_no_longer_accepted_after_its_test_is_not_made_current(pos: AtMoto) -> None:
    pos.begin()
    pos.make(*STEPS[:3])
    pos.issuer.set_secret("pos", OLD)
    pos.fails(CredentialsRejected, "finishSecret", "pending secret")
    with pos.issuer.down():
        pos.fails(IssuerUnavailable, "finishSecret")
    assert pos.value("AWSCURRENT")["client_secret"] == OLD
    pos.make(*STEPS)
    assert pos.value("AWSCURRENT")["client_secret"] == pos.administrator.given[-1]


def test_nobody_is_asked_about_a_version_that_is_current_already(pos: AtMoto) -> None:
    pos.begin()
    pos.make(*STEPS)
    with pos.issuer.down():
        pos.make("finishSecret")


# --- what stands in the way


def test_only_a_secret_whose_rotation_is_on_and_a_token_that_is_pending_are_served(pos: AtMoto) -> None:
    pos.token = str(uuid.uuid4())
    pos.fails(ConfigurationError, "createSecret", "no rotation enabled")
    pos.begin()
    begun, pos.token = pos.token, str(uuid.uuid4())
    pos.fails(ConfigurationError, "createSecret", "under AWSPENDING")
    pos.token = begun
    pos.moto.client.cancel_rotate_secret(SecretId=pos.name)
    pos.fails(ConfigurationError, "createSecret", "no rotation enabled")


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"Step": "createSecret"},
        {"Step": "deleteSecret", "SecretId": "s", "ClientRequestToken": "a" * 36},
        {"Step": "createSecret", "SecretId": "s", "ClientRequestToken": "short"},
        {"Step": 1, "SecretId": "s", "ClientRequestToken": "a" * 36},
    ],
)
def test_other_events_are_refused(pos: AtMoto, event: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="not one of a rotation"):
        pos.function(event, None)


def test_a_step_before_its_time_fails_and_changes_nothing(pos: AtMoto) -> None:
    pos.begin()
    pos.fails(BackendUnavailable, "setSecret", "no value under AWSPENDING")
    pos.fails(BackendUnavailable, "finishSecret", "no value under AWSPENDING")
    assert pos.value("AWSCURRENT")["client_secret"] == OLD
    pos.make("testSecret")  # which proves the current one, as Secrets Manager does when a rotation is set up
    pos.make("createSecret")
    pos.fails(CredentialsRejected, "testSecret", "pending secret")
    assert pos.value("AWSCURRENT")["client_secret"] == OLD


def test_what_the_issuer_answers_is_not_believed_but_the_token_endpoint(pos: AtMoto) -> None:
    pos.begin()
    pos.make("createSecret")
    pos.administrator.answers = [Refused("it is too short", "Make a longer one")]
    pos.fails(ConfigurationError, "setSecret", "too short")
    pos.administrator.deaf = True
    pos.fails(IssuerUnavailable, "setSecret", "not accept the pending secret")
    pos.administrator.deaf = False
    pos.administrator.answers = [Unknown("no answer")]
    pos.make("setSecret", "testSecret", "finishSecret")
    assert pos.value("AWSCURRENT")["client_secret"] == pos.administrator.given[-1]


def test_a_secret_that_somebody_has_changed_at_the_issuer_is_not_overwritten(pos: AtMoto) -> None:
    pos.begin()
    pos.make("createSecret")
    pos.issuer.set_secret("pos", "not-a-real-secret-of-somebody")
    pos.fails(CredentialsRejected, "setSecret", "neither")
    assert "apply" not in pos.administrator.calls


def test_an_issuer_that_is_down_is_tried_later(pos: AtMoto) -> None:
    pos.begin()
    pos.make("createSecret")
    with pos.issuer.down():
        pos.fails(IssuerUnavailable, "setSecret")
        pos.fails(IssuerUnavailable, "testSecret")
    pos.make("setSecret", "testSecret", "finishSecret")


def test_programs_are_given_time_and_no_more_than_the_function_has(
    moto: Moto, issuer: FakeIssuer, clock: TickingClock
) -> None:
    pos = AtMoto(moto, issuer, clock, wait="6m")
    pos.begin()
    pos.make("createSecret")
    pos.fails(ConfigurationError, "setSecret", "no time to wait 360 s")
    began = clock.monotonic()
    pos.function(pos.event("setSecret"), Remaining(900.0))
    assert clock.monotonic() - began >= 360


# --- issuers of other kinds


def test_where_the_issuer_names_no_secret_none_is_ended(moto: Moto, issuer: FakeIssuer, clock: TickingClock) -> None:
    pos = AtMoto(moto, issuer, clock, slots=2, retires=True)
    for _ in range(2):
        pos.begin()
        pos.make(*STEPS)
    assert pos.administrator.calls == ["check", "apply"] * 2


def test_names_of_secrets_that_the_issuer_generated_are_kept_for_their_end(
    moto: Moto, issuer: FakeIssuer, clock: TickingClock
) -> None:
    pos = AtMoto(moto, issuer, clock, slots=2, retires=True, chosen=False)
    for _ in range(3):
        pos.begin()
        pos.make(*STEPS)
    retired = [call for call in pos.administrator.calls if call.startswith("retire")]
    assert retired == ["retire None, keep id-1", "retire id-1, keep id-2"]


def test_a_generated_secret_is_put_at_once_where_the_issuer_has_room_for_two(
    moto: Moto, issuer: FakeIssuer, clock: TickingClock
) -> None:
    pos = AtMoto(moto, issuer, clock, slots=2, chosen=False)
    pos.begin()
    pos.make(*STEPS)
    assert pos.administrator.calls == ["check", f"reap secretsource-{pos.token}", "mint"]
    assert pos.value("AWSCURRENT")["client_secret"] == pos.administrator.given[-1]
    for more in ({"chosen": False, "slots": 1}, {"asks": True}):
        with pytest.raises(ConfigurationError, match="secretsource rotate"):
            rotation_function(Administrator(issuer, clock, **more), issuer=issuer.url)
    with pytest.raises(ConfigurationError):
        rotation_function(pos.administrator)


# --- at the vendors' sites


class AtVendor(AtMoto):
    """The same at a site that behaves like a vendor's."""

    def __init__(self, moto: Moto, site: Vendor, adapter: Adapter, clock: TickingClock) -> None:
        self.moto, self.site, self.clock = moto, site, clock
        self.name = moto.create({"client_id": CLIENT, "client_secret": FIRST})
        self.secret = moto.client.describe_secret(SecretId=self.name)["ARN"]
        self.function = rotation_function(
            adapter, backend=moto.backend(region=None), clock=clock, token_url=site.token_url
        )
        self.made: list[str] = [FIRST]

    def rotate(self) -> None:
        self.begin()
        self.make(*STEPS)
        self.made.append(self.value("AWSCURRENT")["client_secret"])

    def refuses(self, says: str) -> None:
        self.begin()
        with pytest.raises(ConfigurationError, match=says) as caught:
            self.make("createSecret")
        assert not any(shows(caught.value, each) for each in (*CANARIES, *self.made))

    @property
    def accepted(self) -> list[bool]:
        """Of all that were ever current, whether the site still takes it."""
        return [self.site.gives(one) for one in self.made]


@pytest.fixture
def okta(clock: TickingClock) -> Iterator[OktaSite]:
    with OktaSite(clock=clock) as site:
        yield site


@pytest.fixture
def entra(clock: TickingClock) -> Iterator[EntraSite]:
    with EntraSite(clock=clock, lag=8.0) as site:
        yield site


def at_okta(moto: Moto, site: OktaSite, clock: TickingClock, folder: Path) -> AtVendor:
    token = folder / "okta-token"
    token.write_text(API_TOKEN)
    token.chmod(0o600)
    return AtVendor(moto, site, Okta(site.origin, api_token=f"file://{token}"), clock)


def at_entra(moto: Moto, site: EntraSite, clock: TickingClock) -> AtVendor:
    return AtVendor(moto, site, Entra(admin=site.admin(), base_url=site.base_url, clock=clock), clock)


def test_at_okta_the_previous_secret_is_ended_when_the_next_but_one_is_made(
    moto: Moto, okta: OktaSite, clock: TickingClock, tmp_path: Path
) -> None:
    pos = at_okta(moto, okta, clock, tmp_path)
    pos.rotate()
    assert pos.accepted == [True, True]
    assert okta.came("POST", "/lifecycle/") == okta.came("DELETE", "/") == 0, "there is no previous one yet"
    pos.rotate()
    assert pos.accepted == [False, True, True]
    pos.rotate()
    assert pos.accepted == [False, False, True, True]
    assert len(okta.kept) == 2


@pytest.mark.parametrize("made_by", ["somebody before", "somebody after"])
@pytest.mark.parametrize("active", [True, False])
def test_at_okta_the_secret_of_somebody_else_stays(
    moto: Moto, okta: OktaSite, clock: TickingClock, tmp_path: Path, made_by: str, active: bool
) -> None:
    pos = at_okta(moto, okta, clock, tmp_path)
    if made_by == "somebody after":
        pos.rotate()
        okta.kept = [one for one in okta.kept if one.value != FIRST]
    other = okta.add("not-a-real-secret-of-somebody", active=active)
    pos.refuses("two secrets in Okta already")
    assert other in okta.kept
    assert other.active is active
    assert pos.accepted[-1]


def test_where_okta_shows_nothing_of_its_secrets_none_is_ended(
    moto: Moto, okta: OktaSite, clock: TickingClock, tmp_path: Path
) -> None:
    okta.clear = okta.hashed = False
    pos = at_okta(moto, okta, clock, tmp_path)
    pos.rotate()
    # Somebody has gone back by hand: what is newest in Okta is not what programs use.
    labels = moto.labels(pos.name)
    moto.client.update_secret_version_stage(
        SecretId=pos.name,
        VersionStage="AWSCURRENT",
        MoveToVersionId=labels["AWSPREVIOUS"],
        RemoveFromVersionId=labels["AWSCURRENT"],
    )
    pos.refuses("two secrets in Okta already")
    assert pos.accepted == [True, True]


def test_at_entra_the_previous_secret_is_ended_when_the_next_but_one_is_made(
    moto: Moto, entra: EntraSite, clock: TickingClock
) -> None:
    pos = at_entra(moto, entra, clock)
    pos.rotate()
    assert pos.accepted == [True, True]
    assert entra.came("POST", "removePassword") == 0, "there is no previous one yet"
    pos.rotate()
    assert pos.accepted == [False, True, True]
    pos.rotate()
    assert pos.accepted == [False, False, True, True]


def test_at_entra_what_looks_like_the_previous_secret_and_is_of_somebody_else_stays(
    moto: Moto, entra: EntraSite, clock: TickingClock, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = [entra.add("not-a-real-secret-of-somebody", since=0.0), entra.add("another-one", hint=None, since=0.0)]
    pos = at_entra(moto, entra, clock)
    pos.rotate()
    assert "is not ended" not in caplog.text, "there is no previous one yet"
    for _ in range(2):
        pos.rotate()
    assert all(one in entra.passwords for one in theirs)
    assert pos.accepted == [True, False, True, True], "the first one has no name that was kept"
    assert "which secret in Entra is to go cannot be told" in caplog.text
    assert not any(each in caplog.text for each in (*CANARIES, *pos.made))


def test_under_a_policy_of_keycloak_the_previous_secret_is_ended_and_that_of_somebody_else_stays(
    moto: Moto, clock: TickingClock
) -> None:
    with KeycloakSite(clock=clock, policy=RotationPolicy()) as site:
        adapter = Keycloak(site.origin, REALM, admin=site.admin(), policy=True, clock=clock)
        pos = AtVendor(moto, site, adapter, clock)
        assert pos.accepted == [True], "with the first token the policy acts"
        pos.rotate()
        assert pos.accepted == [True, True]
        pos.rotate()
        assert pos.accepted == [False, True, True]
        pos.made[1] = site.attributes["client.secret.rotated"] = "not-a-real-secret-of-somebody"
        pos.refuses("earlier secret beside the main one")
        assert pos.accepted == [False, True, True]


@dataclass
class LaggingSite(OktaSite):
    """One of its two nodes has a new secret when `spread` seconds have gone."""

    spread: float = 20.0

    def accepts(self, client_id: str, secret: str, node: int) -> bool:
        known = super().accepts(client_id, secret, node)
        return known and (node == 0 or secret == FIRST or self.clock.monotonic() >= self.spread)


def test_a_secret_that_one_node_does_not_take_yet_is_waited_for_and_not_for_ever(
    moto: Moto, clock: TickingClock, tmp_path: Path
) -> None:
    with LaggingSite(clock=clock) as site:
        pos = at_okta(moto, site, clock, tmp_path)
        site.spread = clock.monotonic() + 20.0
        pos.rotate()
        assert clock.monotonic() >= site.spread
        site.spread = clock.monotonic() + 1e6
        pos.begin()
        pos.make("createSecret", "setSecret")
        began = clock.monotonic()
        with pytest.raises(CredentialsRejected, match="pending secret"):
            pos.make("testSecret")
        assert clock.monotonic() - began < 120
        began, site.spread = clock.monotonic(), 0.0
        pos.function(pos.event("testSecret"), Remaining(6.0))
        assert clock.monotonic() - began < 6, "the function has no more time"


# --- crashes


class Events:
    """Secrets Manager, which begins anew with the first step where one has failed."""

    def __init__(self, staged: Staged, pos: Pos) -> None:
        self.staged, self.pos = staged, pos
        staged.more = {"RotationEnabled": True}
        pos.token = str(uuid.uuid4())
        staged.put(None, "AWSPENDING", pos.token)

    def run(self) -> None:
        for _ in range(4):
            try:
                self.pos.make(*STEPS, RotationToken=ROTATION_TOKEN)
                return
            except SecretSourceError as error:
                given = self.pos.administrator.given
                assert not any(shows(error, each) for each in (OLD, ROTATION_TOKEN, *given))  # noqa: PT017 # some do
        raise AssertionError("it came to no end")


@pytest.fixture(scope="module")
def aws() -> Iterator[Scripted]:
    with Scripted(Staged("")) as server:
        yield server


@pytest.fixture(scope="module")
def at_staged(aws: Scripted) -> AwsBackend:
    return aws.backend(attempts=1)


@pytest.mark.parametrize("done", [pytest.param(False, marks=pytest.mark.slow), True])
def test_it_comes_to_an_end_whichever_call_it_dies_at(
    aws: Scripted, at_staged: AwsBackend, issuer: FakeIssuer, clock: TickingClock, done: bool
) -> None:
    for number in itertools.count(1):
        aws.script = staged = Staged({"client_id": "pos", "client_secret": OLD})
        issuer.set_secret("pos", OLD)
        pos = Pos(issuer, clock, "prod/pos", at_staged)
        events = Events(staged, pos)
        at = staged.after if done else staged.before

        def dies(count: int, asked: Asked, number: int = number) -> Answer | None:
            return refused("AccessDeniedException") if count == number else None

        staged.before, staged.after = (at, dies) if done else (dies, at)
        events.run()
        assert staged.secret("AWSCURRENT") == pos.administrator.given[-1]
        assert issuer.token_requests > 0
        assert len({asked.body["SecretString"] for asked in staged.calls if asked.operation == "PutSecretValue"}) <= 2
        if len(staged.calls) < number:
            break
    assert number > 10


def test_the_rotation_token_goes_to_putsecretvalue_and_into_no_log(
    aws: Scripted,
    at_staged: AwsBackend,
    issuer: FakeIssuer,
    clock: TickingClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    aws.script = staged = Staged({"client_id": "pos", "client_secret": OLD})
    with caplog.at_level(logging.DEBUG):
        pos = Pos(issuer, clock, "prod/pos", at_staged)
        Events(staged, pos).run()
    assert [asked.body.get("RotationToken") for asked in staged.calls if asked.operation == "PutSecretValue"] == [
        ROTATION_TOKEN
    ]
    assert all("RotationToken" not in asked.body for asked in staged.calls if asked.operation != "PutSecretValue")
    logged = caplog.text
    assert not any(each in logged for each in (OLD, ROTATION_TOKEN, *pos.administrator.given))


def test_no_frame_of_ours_holds_what_is_sent_while_it_is_sent(
    aws: Scripted, at_staged: AwsBackend, issuer: FakeIssuer, clock: TickingClock
) -> None:
    aws.script = staged = Staged({"client_id": "pos", "client_secret": OLD})
    pos = Pos(issuer, clock, "prod/pos", at_staged)
    events, caller = Events(staged, pos), threading.get_ident()
    seen: list[str] = []

    def look(number: int, asked: Asked) -> None:
        if asked.operation == "PutSecretValue":
            frame: FrameType | None = sys._current_frames()[caller]
            while frame is not None:
                if Path(frame.f_code.co_filename).is_relative_to(Path(aws_lambda.__file__).parents[1]):
                    seen.append(f"{frame.f_code.co_name} {dict(frame.f_locals)!r}")
                frame = frame.f_back

    staged.before = look
    events.run()
    assert any(each.startswith("put ") for each in seen), "the call was seen from within"
    sent = next(asked.body["SecretString"] for asked in staged.calls if asked.operation == "PutSecretValue")
    secrets = (OLD, ROTATION_TOKEN, json.loads(sent)["client_secret"])
    # The event is what Lambda gave.
    inner = [each for each in seen if not each.startswith("called ")]
    assert not any(secret in each for secret in secrets for each in inner)


def test_where_awscurrent_has_moved_meanwhile_it_is_not_moved_again(
    aws: Scripted, at_staged: AwsBackend, issuer: FakeIssuer, clock: TickingClock
) -> None:
    aws.script = staged = Staged({"client_id": "pos", "client_secret": OLD})
    pos = Pos(issuer, clock, "prod/pos", at_staged)
    Events(staged, pos)
    pos.make(*STEPS[:3])

    def overtakes(number: int, asked: Asked) -> None:
        if asked.body.get("VersionStage") == "AWSCURRENT" and asked.operation == "UpdateSecretVersionStage":
            staged.before = Staged("").before
            staged.put({"client_id": "pos", "client_secret": "not-a-real-secret-of-somebody"}, "AWSCURRENT", "f" * 32)

    staged.before = overtakes
    pos.fails(BackendUnavailable, "finishSecret", "changed by somebody else")
    assert staged.labels["AWSCURRENT"] == "f" * 32


# --- as Lambda runs it

PROGRAM = """
import json, sys, urllib.request
asked = urllib.request.Request(sys.argv[1], data=sys.stdin.buffer.read(), method="POST")
urllib.request.urlopen(asked, timeout=20)
"""


def test_lambda_handler_is_set_up_by_the_environment(
    moto: Moto, issuer: FakeIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = moto.create({"client_id": "pos", "client_secret": OLD})
    program = tmp_path / "set-secret.py"
    program.write_text(PROGRAM)

    def save(incoming: Incoming) -> Answer:
        said = json.loads(incoming.body)
        issuer.set_secret(said["client_id"], said["client_secret"])
        return Answer(200, {}, b"{}")

    with LoopbackServer(save) as administration:
        settings = {"program": [sys.executable, str(program), administration.origin], "propagation": 1}
        variables = {
            "SECRETSOURCE_ISSUER": issuer.url,
            "SECRETSOURCE_ADAPTER": "command",
            "SECRETSOURCE_ADAPTER_SETTINGS": json.dumps(settings),
            "SECRETSOURCE_AWS_ENDPOINT": moto.url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        for variable, text in variables.items():
            monkeypatch.setenv(variable, text)
        aws_lambda._of_the_environment.cache_clear()
        token = moto.client.rotate_secret(
            SecretId=name, RotationLambdaARN=FUNCTION, RotationRules={"AutomaticallyAfterDays": 30}
        )["VersionId"]
        for step in STEPS:
            lambda_handler({"Step": step, "SecretId": name, "ClientRequestToken": token}, Remaining())
    aws_lambda._of_the_environment.cache_clear()
    assert moto.labels(name)["AWSCURRENT"] == token
    assert json.loads(moto.text(name))["client_secret"] != OLD


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({}, "SECRETSOURCE_ADAPTER is not set"),
        ({"SECRETSOURCE_ADAPTER": "command", "SECRETSOURCE_ADAPTER_SETTINGS": f"[{OLD}"}, "no JSON object"),
    ],
)
def test_what_is_missing_in_the_environment_is_said(
    variables: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws_lambda._of_the_environment.cache_clear()
    for variable, text in variables.items():
        monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigurationError, match=says) as caught:
        lambda_handler({}, None)
    assert not shows(caught.value, OLD)
