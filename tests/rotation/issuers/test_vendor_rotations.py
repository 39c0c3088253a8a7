"""Whole rotations at Okta, Auth0 and Entra, on sites that behave like them: programs call all the while, none fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from secretsource import SecretSourceError, TokenSource
from secretsource.clock import Clock
from secretsource.rotation import Abort, Adapter, Moment, Policy, Report, Rotation
from secretsource.rotation.issuers.auth0 import Auth0
from secretsource.rotation.issuers.entra import Entra
from secretsource.rotation.issuers.okta import Okta
from secretsource.secret import Secret
from secretsource.testing import TickingClock

from .fakes_auth0 import Auth0Site
from .fakes_entra import EntraSite
from .fakes_okta import OktaSite
from .vendors import API_TOKEN, CANARIES, CLIENT, NEW, OLD, Vendor

LAG = 8.0
"""Seconds; 4 to 18 were seen with new secrets of Entra."""
HOUR = 3600.0
POLICY = Policy(wait=120, soak=300, max_wait=HOUR, force=True)


def written(folder: Path, secret: str = OLD, **more: str) -> Path:
    path = folder / "pos.json"
    path.write_text(json.dumps({"client_id": CLIENT, "client_secret": secret, **more}))
    path.chmod(0o600)
    return path


def held(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def adapter_of(site: Vendor, folder: Path) -> Adapter:
    if isinstance(site, OktaSite):
        token = folder / "okta-token"
        token.write_text(API_TOKEN)
        token.chmod(0o600)
        return Okta(site.origin, api_token=f"file://{token}")
    if isinstance(site, EntraSite):
        return Entra(admin=site.admin(), base_url=site.base_url)
    return Auth0(site.origin, admin=site.admin())


class Clockwork(TickingClock):
    """Time goes on where the rotation waits; then `between` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.between: Callable[[], object] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.tick(seconds)
        self.between()

    @property
    def of_programs(self) -> Clock:
        """The same time; who waits by this one does not call anybody."""
        return _Seen(self)


class _Seen:
    def __init__(self, clock: TickingClock) -> None:
        self.monotonic, self.now, self.sleep = clock.monotonic, clock.now, clock.tick


class Programs:
    """They get a new token again and again, each from a source of its own. `failures`: what they met.

    One that is `keeping` its token may be without a new one for a while, and never without one.
    """

    def __init__(
        self, path: Path, site: Vendor, number: int, clock: Clock | None = None, *, keeping: bool = False
    ) -> None:
        self._keeping = keeping
        self.calls, self.without, self.failures = 0, 0, list[SecretSourceError]()
        self._sources = [TokenSource(f"file://{path}", token_url=site.token_url, clock=clock) for _ in range(number)]

    def call(self, source: TokenSource | None = None) -> None:
        for each in self._sources if source is None else [source]:
            try:
                each.verify()
            except SecretSourceError as error:
                self.without += 1
                if not self._keeping:
                    self.failures.append(error)
            if self._keeping:
                self._use(each)
            self.calls += 1

    def _use(self, source: TokenSource) -> None:
        try:
            source.token()
        except SecretSourceError as error:
            self.failures.append(error)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Each on a thread of its own, all the while."""
        over = threading.Event()

        def work(source: TokenSource) -> None:
            while not over.wait(0.01):
                self.call(source)

        threads = [threading.Thread(target=work, args=(source,)) for source in self._sources]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join(20)

    def close(self) -> None:
        for source in self._sources:
            source.close()


def rotated(
    site: Vendor,
    path: Path,
    *,
    policy: Policy = POLICY,
    work: Callable[[Rotation], Report] = Rotation.run,
    new: str | None = None,
    seen: list[object] | None = None,
    keeping: bool = False,
) -> Report:
    """The report of a rotation: programs call after each step and at each wait of it, and none of these calls fails."""
    clock = site.clock
    assert isinstance(clock, Clockwork)
    programs = Programs(path, site, 1, clock.of_programs, keeping=keeping)

    def watch(event: object) -> None:
        if seen is not None:
            seen.append(event)
        programs.call()

    clock.between = programs.call
    with TokenSource(f"file://{path}", token_url=site.token_url, clock=clock) as source:
        made = None if new is None else lambda: Secret(new)
        rotation = Rotation(source, adapter_of(site, path.parent), policy=policy, observers=watch, generator=made)
        report = work(rotation)
    clock.between = lambda: None
    programs.close()
    assert programs.failures == []
    assert programs.calls > 0
    return report


@pytest.fixture(params=[OktaSite, Auth0Site, EntraSite])
def site(request: pytest.FixtureRequest) -> Iterator[Vendor]:
    with request.param(clock=Clockwork(), lag=LAG) as site:
        yield site


def test_no_call_fails_while_a_secret_is_changed(
    site: Vendor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0, logger="secretsource")
    path, seen = written(tmp_path), list[object]()
    report = rotated(site, path, seen=seen)
    assert (report.result, report.phase) == ("done", "idle")
    document = held(path)
    assert document["client_secret"] != OLD
    assert not {"client_secret_pending", "client_secret_previous"} & document.keys()
    assert site.gives(document["client_secret"])
    assert not site.gives(OLD)
    shown = f"{report} {seen} {caplog.text}"
    assert [one for one in (*CANARIES, document["client_secret"]) if one in shown] == []


def test_no_call_fails_where_the_answer_to_the_change_is_lost(site: Vendor, tmp_path: Path) -> None:
    path = written(tmp_path)
    method, part = ("PATCH", "/clients/") if isinstance(site, Auth0Site) else ("POST", "/secrets")
    site.lose(method, "addPassword" if isinstance(site, EntraSite) else part)
    report = rotated(site, path)
    assert report.result == "done"
    assert site.gives(held(path)["client_secret"])
    assert not site.gives(OLD)
    if isinstance(site, EntraSite):
        assert len(site.passwords) == 1  # what was generated and lost is gone as well
    if isinstance(site, OktaSite):
        assert len(site.kept) == 1


def test_it_can_be_done_again_and_again(site: Vendor, tmp_path: Path) -> None:
    path = written(tmp_path)
    secrets = {OLD}
    for _ in range(2):
        assert rotated(site, path).result == "done"
        secrets.add(held(path)["client_secret"])
    assert len(secrets) == 3
    assert [one for one in secrets if site.gives(one)] == [held(path)["client_secret"]]


def test_a_throttled_change_is_made_later(site: Vendor, tmp_path: Path) -> None:
    path = written(tmp_path)
    method = "PATCH" if isinstance(site, Auth0Site) else "POST"
    part = "addPassword" if isinstance(site, EntraSite) else "/"
    site.answer(method, part, 429, {"error": "too_many_requests"}, Retry_After="1")
    assert rotated(site, path).result == "done"
    assert site.gives(held(path)["client_secret"])


def test_a_refused_change_leaves_all_as_it_was(site: Vendor, tmp_path: Path) -> None:
    path = written(tmp_path)
    method = "PATCH" if isinstance(site, Auth0Site) else "POST"
    part = "addPassword" if isinstance(site, EntraSite) else "/"
    site.answer(method, part, 403, {"errorCode": "E0000006", "errorSummary": NEW})
    report = rotated(site, path, new=NEW)
    assert report.result == "failed"
    assert held(path)["client_secret"] == OLD
    assert "client_secret_pending" not in held(path)
    assert site.gives(OLD)
    assert NEW not in str(report)


def test_no_call_fails_while_auth0_mixes_the_old_and_the_new_secret(tmp_path: Path) -> None:
    """Each request meets a node that knows the one or the other. A program is carried through by the token that it has;
    one that begins at that moment may have to try again."""
    path = written(tmp_path)
    with Auth0Site(clock=Clockwork(), lag=LAG, mixed=True) as site:
        assert rotated(site, path, keeping=True).result == "done"
        assert site.gives(held(path)["client_secret"])


def test_what_other_people_made_in_entra_is_there_afterwards(tmp_path: Path) -> None:
    path = written(tmp_path)
    with EntraSite(clock=Clockwork(), lag=LAG) as site:
        other = site.add("Zz9-not-a-real-secret-of-somebody-else", "secretsource-of-another-store")
        assert rotated(site, path).result == "done"
        assert other in site.passwords
        assert len(site.passwords) == 2


def test_what_entra_does_not_tell_apart_stays_until_a_person_has_removed_it(tmp_path: Path) -> None:
    path = written(tmp_path)
    with EntraSite(clock=Clockwork(), lag=LAG) as site:
        old, other = site.passwords[0], site.add("not-a-real-secret-of-somebody-else")  # begins as the old one does
        report = rotated(site, path)
        assert (report.result, report.phase) == ("failed", "soaking")
        assert "cannot be told" in report.reason
        site.passwords.remove(old)
        other.hint = "Zz9"
        assert rotated(site, path, work=Rotation.resume).result == "done"
        assert other in site.passwords


@pytest.mark.parametrize("kind", [OktaSite, EntraSite])
def test_a_secret_that_has_leaked_is_not_accepted_any_longer_once_it_is_done(
    kind: type[Vendor], tmp_path: Path
) -> None:
    path, leaked = written(tmp_path), OLD
    with kind(clock=Clockwork(), lag=LAG) as site:
        for _ in range(2):  # the first one was made by a person: what the issuer calls it is found out
            assert rotated(site, path, policy=Policy(compromised=True, max_wait=HOUR)).result == "done"
            assert not site.gives(leaked)
            assert leaked not in path.read_text()
            leaked = held(path)["client_secret"]
            assert site.gives(leaked)
            assert len(site.passwords if isinstance(site, EntraSite) else site.kept) == 1  # type: ignore[attr-defined]


class GivesUpOnce:
    """A gate that lets nothing be promoted."""

    def before_promote(self, moment: Moment) -> Abort:
        return Abort("somebody has thought better of it")


@pytest.mark.parametrize("clear", [True, False])
def test_a_secret_that_is_given_up_leaves_its_place_at_okta_free(tmp_path: Path, clear: bool) -> None:
    path, clock = written(tmp_path), Clockwork()
    with OktaSite(clock=clock, clear=clear) as site:
        with TokenSource(f"file://{path}", token_url=site.token_url, clock=clock) as source:
            report = Rotation(source, adapter_of(site, tmp_path), policy=POLICY, gates=[GivesUpOnce()]).run()
        assert report.result == "failed"
        assert [one.value for one in site.kept] == [OLD]
        assert held(path)["client_secret"] == OLD
        assert rotated(site, path).result == "done"
        assert len(site.kept) == 1


def test_okta_goes_back_to_the_previous_secret(tmp_path: Path) -> None:
    path = written(tmp_path)
    patient = Policy(wait=120, soak=720 * HOUR, max_wait=600, force=True)
    with OktaSite(clock=Clockwork()) as site:
        assert rotated(site, path, policy=patient).result == "waiting"
        new = held(path)["client_secret"]
        assert (site.gives(OLD), site.gives(new)) == (True, True)
        seen: list[object] = []
        report = rotated(site, path, work=Rotation.rollback, seen=seen)
        assert report.result == "done", (report, seen[-20:])
        assert held(path)["client_secret"] == OLD
        assert (site.gives(OLD), site.gives(new)) == (True, False)
        assert [one.value for one in site.kept] == [OLD]


@pytest.mark.parametrize("kind", [OktaSite, Auth0Site, EntraSite])
def test_no_call_fails_beside_programs_on_threads_of_their_own(kind: type[Vendor], tmp_path: Path) -> None:
    path = written(tmp_path)
    policy = Policy(wait=0.1, soak=0.1, propagation=0.3, landing=0.1, command_timeout=5, max_wait=60, force=True)
    with kind(lag=0.2) as site, TokenSource(f"file://{path}", token_url=site.token_url) as source:
        programs = Programs(path, site, 3)
        with programs.calling():
            report = Rotation(source, adapter_of(site, tmp_path), policy=policy).run()
        programs.close()
        assert report.result == "done"
        assert programs.failures == []
        assert programs.calls > 0
        assert not site.gives(OLD)
