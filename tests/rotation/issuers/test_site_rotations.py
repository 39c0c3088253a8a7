"""Whole rotations at Keycloak and Orchard, on sites that behave like them: no call fails of a program meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from secretsource import TokenSource
from secretsource.rotation import Abort, Adapter, Moment, Policy, Report, Rotation
from secretsource.rotation.issuers.keycloak import Keycloak
from secretsource.rotation.issuers.orchard import Orchard, OrchardRecipe
from secretsource.testing import TickingClock

from .fakes_keycloak import REALM, UUID, KeycloakSite, RotationPolicy
from .fakes_orchard import API_KEY, APPLICATION, IMPORT, REMOTE_CLIENT, ROTATE, OrchardSite
from .test_orchard import GIVEN, kept_key
from .vendors import CANARIES, CLIENT, OLD

ONE = f"/admin/realms/{REALM}/clients/{UUID}"
POLICY = Policy(wait=60, soak=120, max_wait=3600, force=True)
PATIENT = Policy(wait=60, soak=30 * 86400, max_wait=600, force=True)
ACCEPTING = Policy(wait=60, soak=120, max_wait=3600, force=True, accept_gap=True)


class Clockwork(TickingClock):
    """Time goes on where the rotation waits; meanwhile the site goes on, and a program calls."""

    between: Callable[[], object] = staticmethod(lambda: None)

    def sleep(self, seconds: float) -> None:
        for _ in range(2):
            self.tick(seconds / 2)
            self.between()


class _OfTheProgram:
    """The same time; who waits by this one calls nobody."""

    def __init__(self, clock: TickingClock) -> None:
        self.monotonic, self.now, self.sleep = clock.monotonic, clock.now, clock.tick


class World:
    """One site, a client's secret in a file there, and a program that gets tokens with it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.clock = Clockwork()
        self.site: KeycloakSite | OrchardSite
        if kind.startswith("keycloak"):
            ruled = RotationPolicy() if kind == "keycloak under a policy" else None
            self.site = KeycloakSite(clock=self.clock, policy=ruled)
        else:
            self.site = OrchardSite(clock=self.clock, lag=7.0 if "lag" in kind else 0.0)
        self.path = folder / "pos.json"
        self.write(OLD)
        self.calls, self.failures = 0, list[Exception]()

    def write(self, secret: str) -> None:
        self.path.write_text(json.dumps({"client_id": CLIENT, "client_secret": secret}))
        self.path.chmod(0o600)

    @property
    def held(self) -> dict[str, str]:
        document: dict[str, str] = json.loads(self.path.read_text())
        return document

    def adapter(self) -> Adapter:
        site = self.site
        if isinstance(site, KeycloakSite):
            ruled = site.policy is not None
            return Keycloak(site.origin, REALM, admin=site.admin(), policy=ruled, clock=self.clock)
        if "recipe" in self.kind:
            key = kept_key(self.folder / "key", API_KEY)
            return OrchardRecipe(site.base_url, client_name=REMOTE_CLIENT, api_key=key, application=GIVEN)
        return Orchard(site.base_url, admin=site.admin(), generated="generated" in self.kind)

    def rotate(
        self,
        work: Callable[[Rotation], Report] = Rotation.run,
        *,
        policy: Policy = POLICY,
        gates: tuple[object, ...] = (),
        seen: list[object] | None = None,
    ) -> Report:
        """The report of a rotation; the program calls after each step and at each wait of it."""
        clock = _OfTheProgram(self.clock)
        program = TokenSource(f"file://{self.path}", token_url=self.site.token_url, clock=clock)

        def call(event: object = None) -> None:
            if seen is not None and event is not None:
                seen.append(event)
            if isinstance(self.site, OrchardSite):
                self.site.land()
            self.calls += 1
            try:
                program.verify()
            except Exception as error:
                self.failures.append(error)

        self.clock.between = call
        with TokenSource(f"file://{self.path}", token_url=self.site.token_url, clock=self.clock) as source:
            report = work(Rotation(source, self.adapter(), policy=policy, observers=call, gates=gates))
        self.clock.between = lambda: None
        program.close()
        return report

    def done(self) -> None:
        """The new secret is in the file and at the issuer, the old one nowhere, and no call has failed."""
        assert self.held["client_secret"] != OLD
        assert not {"client_secret_pending", "client_secret_previous"} & self.held.keys()
        assert self.site.gives(self.held["client_secret"])
        assert not self.site.gives(OLD)
        assert (self.failures, self.calls > 10) == ([], True)


NO_GAP = ["keycloak", "keycloak under a policy", "orchard", "orchard with a lag", "recipe", "recipe with a lag"]
CHANGES = {
    "keycloak": ("PUT", ONE),
    "keycloak under a policy": ("POST", "client-secret"),
    "orchard": ("PUT", APPLICATION),
    "orchard with a lag": ("PUT", APPLICATION),
    "recipe": ("POST", IMPORT),
    "recipe with a lag": ("POST", IMPORT),
}


@pytest.mark.parametrize("kind", NO_GAP)
def test_no_call_fails_while_a_secret_is_changed(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0, logger="secretsource")
    world, seen = World(kind, tmp_path), list[object]()
    with world.site:
        report = world.rotate(seen=seen)
        assert (report.result, report.phase) == ("done", "idle"), (report, seen)
        world.done()
    shown = f"{report} {seen} {caplog.text}"
    assert [one for one in (*CANARIES, API_KEY, world.held["client_secret"]) if one in shown] == []


@pytest.mark.parametrize("kind", NO_GAP)
def test_no_call_fails_where_the_answer_to_the_change_is_lost(kind: str, tmp_path: Path) -> None:
    world = World(kind, tmp_path)
    with world.site:
        world.site.lose(*CHANGES[kind])
        assert world.rotate().result == "done"
        world.done()
        if isinstance(world.site, KeycloakSite):
            assert world.site.kept == [world.held["client_secret"]]


@pytest.mark.parametrize("kind", ["keycloak", "keycloak under a policy", "orchard", "recipe"])
def test_it_can_be_done_again_and_again(kind: str, tmp_path: Path) -> None:
    world, secrets = World(kind, tmp_path), {OLD}
    with world.site:
        for _ in range(2):
            assert world.rotate().result == "done"
            secrets.add(world.held["client_secret"])
        assert len(secrets) == 3
        assert [one for one in secrets if world.site.gives(one)] == [world.held["client_secret"]]
        world.done()


@pytest.mark.parametrize("kind", ["keycloak", "keycloak under a policy", "orchard", "recipe"])
def test_a_refused_change_leaves_all_as_it_was(kind: str, tmp_path: Path) -> None:
    world = World(kind, tmp_path)
    with world.site:
        world.site.answer(*CHANGES[kind], 403)
        assert world.rotate().result == "failed"
        assert world.held["client_secret"] == OLD
        assert "client_secret_pending" not in world.held
        assert world.site.gives(OLD)
        assert world.failures == []


def test_a_recipe_that_fails_is_found_out_and_goes_on_once_it_works(tmp_path: Path) -> None:
    world = World("recipe", tmp_path)
    assert isinstance(world.site, OrchardSite)
    with world.site:
        world.site.fails = True
        report = world.rotate(policy=Policy(wait=60, soak=120, max_wait=300, force=True))
        assert report.result == "waiting"
        assert (world.held["client_secret"], world.failures) == (OLD, [])
        world.site.fails = False
        assert world.rotate(Rotation.resume).result == "done"
        world.done()


class ThinksBetterOfIt:
    """A gate that lets nothing be promoted."""

    def before_promote(self, moment: Moment) -> Abort:
        return Abort("somebody has thought better of it")


@pytest.mark.parametrize("kind", ["keycloak", "keycloak under a policy", "orchard"])
def test_a_secret_that_is_given_up_leaves_the_current_one(kind: str, tmp_path: Path) -> None:
    world = World(kind, tmp_path)
    with world.site:
        report = world.rotate(gates=(ThinksBetterOfIt(),))
        assert report.result == "failed", report
        assert world.held["client_secret"] == OLD
        assert world.site.gives(OLD)
        if isinstance(world.site, KeycloakSite):
            assert world.site.kept == [OLD]


@pytest.mark.parametrize("kind", ["keycloak", "orchard"])
def test_it_goes_back_to_the_previous_secret(kind: str, tmp_path: Path) -> None:
    world = World(kind, tmp_path)
    with world.site:
        assert world.rotate(policy=PATIENT).result == "waiting"
        new = world.held["client_secret"]
        assert world.rotate(Rotation.rollback).result == "done"
        assert world.held["client_secret"] == OLD
        assert (world.site.gives(OLD), world.site.gives(new)) == (True, False)
        assert world.failures == []


@pytest.mark.parametrize("kind", ["keycloak", "keycloak under a policy", "orchard", "recipe"])
def test_plan_writes_nothing_at_any_time(kind: str, tmp_path: Path) -> None:
    world = World(kind, tmp_path)
    with world.site:
        assert world.site.gives(OLD)  # a policy begins to act with the first token
        for _ in range(2):
            before, arrived = world.path.read_bytes(), len(world.site.requests)
            with TokenSource(f"file://{world.path}", token_url=world.site.token_url, clock=world.clock) as source:
                plan = Rotation(source, world.adapter(), policy=POLICY).plan()
            assert plan.ok, plan
            assert world.path.read_bytes() == before
            asked = [one.method for one in world.site.requests[arrived:] if "/token" not in one.path]
            assert set(asked) <= {"GET"}
            assert world.rotate(policy=PATIENT).result == "waiting"


def test_under_a_policy_the_secret_is_due_before_it_ends(tmp_path: Path) -> None:
    world = World("keycloak under a policy", tmp_path)
    policy = Policy(every=365 * 86400, wait=60, soak=120, max_wait=3600)
    with world.site:
        assert world.rotate().result == "done"
        made = world.held["client_secret"]
        assert world.rotate(policy=policy).reason.startswith("nothing is due")
        world.clock.tick(28 * 86400)
        assert world.rotate(policy=policy).result == "done"
        assert world.held["client_secret"] != made
        world.done()


def test_a_generated_secret_of_a_single_place_takes_somebody_to_accept_the_gap(tmp_path: Path) -> None:
    world = World("orchard generated", tmp_path)
    with world.site:
        with pytest.raises(Exception, match="generates the secret"):
            world.rotate()
        assert world.failures == []
        assert (
            world.rotate(policy=Policy(wait=60, soak=120, max_wait=3600, force=True, accept_gap=True)).result == "done"
        )
        assert world.site.gives(world.held["client_secret"])


def test_a_generated_secret_that_is_lost_is_generated_again(tmp_path: Path) -> None:
    world = World("orchard generated", tmp_path)
    with world.site:
        world.site.lose("POST", ROTATE)
        assert world.rotate(policy=ACCEPTING).result == "done"
        assert world.site.gives(world.held["client_secret"])
        assert world.failures != []  # the gap, which somebody has accepted
