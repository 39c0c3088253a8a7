"""Whole rotations of a secret in Secrets Manager by the engine, in both layouts, while programs call."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from secretsource import ConfigurationError, SecretReference, TokenSource
from secretsource.backends.aws import AwsBackend
from secretsource.errors import BackendUnavailable
from secretsource.rotation import Policy, Rotation
from secretsource.secret import Secret
from secretsource.testing import FakeIssuer, TickingClock

from ..rotation.site import Administrator
from .corrected_moto import corrected
from .secrets_manager import Moto, Scripted
from .staging import Staged

OLD = "not-a-real-secret-old"
POLICY = {"wait": 60.0, "soak": 120.0, "command_timeout": 5.0, "force": True, "max_wait": 3600.0}


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with corrected() as server:
        yield server


class Clockwork(TickingClock):
    """Where a rotation waits, a program calls."""

    def __init__(self) -> None:
        super().__init__()
        self.programs: list[TokenSource] = []
        self.calls = 0

    def sleep(self, seconds: float) -> None:
        self.tick(seconds)
        for program in self.programs:
            program.token(force=True)
            self.calls += 1


class World:
    def __init__(self, name: str, backend: AwsBackend, issuer: FakeIssuer, clock: Clockwork, **can: Any) -> None:
        self.name, self.backend, self.issuer, self.clock = name, backend, issuer, clock
        self.administrator = Administrator(issuer, clock, **can)

    def source(self, clock: TickingClock, backend: AwsBackend | None = None) -> TokenSource:
        stores = {"aws": backend or self.backend}
        return TokenSource(f"aws://{self.name}", issuer=self.issuer.url, stores=stores, clock=clock)

    def program(self, backend: AwsBackend) -> TokenSource:
        """Whose time goes on without its waiting for anything."""
        clock = TickingClock()
        clock.monotonic, clock.now, clock.sleep = self.clock.monotonic, self.clock.now, self.clock.tick  # type: ignore[method-assign]
        source = self.source(clock, backend)
        self.clock.programs.append(source)
        return source

    def rotation(self, **policy: Any) -> Rotation:
        return Rotation(self.source(self.clock), self.administrator, policy=Policy(**{**POLICY, **policy}))


@pytest.fixture
def clock() -> Clockwork:
    return Clockwork()


@pytest.fixture
def issuer(clock: Clockwork) -> Iterator[FakeIssuer]:
    with FakeIssuer(clock=clock, lifetime=600) as issuer:
        issuer.add_client("pos", OLD)
        yield issuer


@pytest.mark.parametrize("layout", ["labels", "document"])
def test_no_call_of_a_program_fails_while_a_secret_is_rotated_twice(
    moto: Moto, issuer: FakeIssuer, clock: Clockwork, layout: Any
) -> None:
    name = moto.create({"client_id": "pos", "client_secret": OLD})
    world = World(name, moto.backend(layout=layout), issuer, clock)
    world.program(moto.backend(layout=layout))
    world.program(moto.backend())  # one that has not been told of the layout
    world.program(moto.backend(watch_labels=True))
    for number in (1, 2):
        report = world.rotation().run()
        assert (report.result, report.phase) == ("done", "idle"), report
        assert json.loads(moto.text(name))["client_secret"] == world.administrator.given[-1]
        assert len(world.administrator.given) == number
    assert clock.calls > 20
    labels = moto.labels(name)
    if layout == "labels":
        assert set(labels) - {"AWSCURRENT"} == {label for label in labels if label.startswith("secretsource-state-")}
    else:
        assert set(labels) == {"AWSCURRENT", "AWSPREVIOUS"}


def test_a_leaked_secret_goes_at_once(moto: Moto, issuer: FakeIssuer, clock: Clockwork) -> None:
    name = moto.create({"client_id": "pos", "client_secret": OLD})
    world = World(name, moto.backend(), issuer, clock)
    report = world.rotation(compromised=True, wait=None, soak=None).run()
    assert report.result == "done"
    assert "AWSPREVIOUS" not in moto.labels(name)
    document = moto.backend().read(SecretReference.parse(f"aws://{name}"), fresh=True, timeout=20)
    assert document.previous is None
    assert document.fields["client_secret"] == Secret(world.administrator.given[-1])


def test_a_generated_secret_is_kept_where_the_issuer_has_room_for_two(
    moto: Moto, issuer: FakeIssuer, clock: Clockwork
) -> None:
    name = moto.create({"client_id": "pos", "client_secret": OLD})
    world = World(name, moto.backend(), issuer, clock, chosen=False, slots=2, retires=True)
    world.program(moto.backend())
    assert world.rotation().run().result == "done"
    assert json.loads(moto.text(name))["client_secret"] == world.administrator.given[-1]


def test_what_is_taken_back_is_as_if_nothing_had_been(moto: Moto, issuer: FakeIssuer, clock: Clockwork) -> None:
    name = moto.create({"client_id": "pos", "client_secret": OLD})
    world = World(name, moto.backend(), issuer, clock)
    world.program(moto.backend())
    assert world.rotation(max_wait=0.0).run().result == "waiting"
    assert "AWSPENDING" in moto.labels(name)
    report = world.rotation().abort()
    assert report.result == "done", report
    assert json.loads(moto.text(name))["client_secret"] == OLD
    assert "AWSPENDING" not in moto.labels(name)
    report = world.rotation(soak=1e6, max_wait=600.0).run()
    assert (report.result, report.phase) == ("waiting", "soaking")
    assert json.loads(moto.text(name))["client_secret"] != OLD
    report = world.rotation().rollback()
    assert report.result == "done", report
    assert json.loads(moto.text(name))["client_secret"] == OLD


def test_two_rotators_at_once_change_the_secret_once(issuer: FakeIssuer) -> None:
    """In real time, since two wait beside each other."""
    staged = Staged({"client_id": "pos", "client_secret": OLD})
    clock = Clockwork()
    with Scripted(staged) as aws, FakeIssuer(lifetime=600) as issuer:
        issuer.add_client("pos", OLD)
        backends = [aws.backend(), aws.backend()]
        policy = Policy(wait=0.3, soak=0.3, propagation=0.2, landing=0.5, command_timeout=2.0, max_wait=60.0)
        administrators = [Administrator(issuer, clock, propagation=0.2, landing=0.5) for _ in backends]
        results: list[str] = []

        def rotate(number: int) -> None:
            source = TokenSource("aws://prod/pos", issuer=issuer.url, stores={"aws": backends[number]})
            results.append(Rotation(source, administrators[number], policy=policy).run().result)

        threads = [threading.Thread(target=rotate, args=(number,)) for number in range(len(backends))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert results == ["done", "done"]
        given = {secret for each in administrators for secret in each.given}
        assert len(given) == 1, "both gave the issuer one secret"
        assert staged.secret("AWSCURRENT") in given


# --- the document layout


def test_in_the_document_layout_all_is_inside_awscurrent(moto: Moto) -> None:
    name = moto.create({"client_id": "pos", "client_secret": OLD})
    backend, reference = moto.backend(layout="document"), SecretReference.parse(f"aws://{name}")
    assert (backend.copied, moto.backend().copied) == (True, False)
    assert "External Secrets" in backend.reaches
    assert "External Secrets" in moto.backend().reaches
    assert list(backend.preflight(reference, timeout=20)) == []
    held = backend.read_held(reference, client_id=None, timeout=20)
    backend.claim(reference, held, Secret("not-a-real-secret-new"), held.state, beside={}, timeout=20)
    value = json.loads(moto.text(name))
    assert (value["client_secret"], value["client_secret_pending"]) == (OLD, "not-a-real-secret-new")
    for one in (backend, moto.backend()):
        document = one.read(reference, fresh=True, timeout=20)
        assert document.pending is None
    with pytest.raises(BackendUnavailable):
        backend.note(reference, held, held.state, timeout=20)
    with pytest.raises(ConfigurationError, match="layout='document'"):
        moto.backend().read_held(reference, client_id=None, timeout=20)


def test_the_document_layout_refuses_what_it_cannot_keep_or_another_one_has_begun(moto: Moto) -> None:
    backend = moto.backend(layout="document")
    with pytest.raises(ConfigurationError, match="JSON object"):
        backend.preflight(SecretReference.parse(f"aws://{moto.create(OLD)}"), timeout=20)
    name = moto.create({"client_id": "pos", "client_secret": OLD})
    moto.put(name, {"client_id": "pos", "client_secret": "x"}, "AWSPENDING")
    with pytest.raises(ConfigurationError, match="another version under AWSPENDING"):
        backend.preflight(SecretReference.parse(f"aws://{name}"), timeout=20)
    with pytest.raises(ConfigurationError, match="layout="):
        moto.backend(layout="both")


def test_moto_as_corrected_refuses_what_aws_refuses(moto: Moto) -> None:
    name = moto.create({"client_secret": OLD})
    token = "0" * 36
    client, exceptions = moto.client, moto.client.exceptions
    given = {"SecretId": name, "ClientRequestToken": token, "VersionStages": ["AWSPENDING"]}
    client.put_secret_value(**given, SecretString="one")
    client.put_secret_value(**given, SecretString="one")
    with pytest.raises(exceptions.ResourceExistsException):
        client.put_secret_value(**given, SecretString="two")
    current = moto.labels(name)["AWSCURRENT"]
    for label, more in (
        ("AWSPENDING", {"MoveToVersionId": current}),
        ("AWSPENDING", {"MoveToVersionId": token, "RemoveFromVersionId": current}),
        ("AWSCURRENT", {"RemoveFromVersionId": current}),
    ):
        with pytest.raises(exceptions.InvalidParameterException):
            client.update_secret_version_stage(SecretId=name, VersionStage=label, **more)
    client.update_secret_version_stage(
        SecretId=name, VersionStage="AWSCURRENT", MoveToVersionId=token, RemoveFromVersionId=current
    )
    assert client.get_secret_value(SecretId=name)["SecretString"] == "one"
    assert moto.labels(name) == {"AWSCURRENT": token, "AWSPENDING": token, "AWSPREVIOUS": current}
    with pytest.raises(exceptions.InvalidRequestException):
        client.rotate_secret(SecretId=name)
    client.update_secret_version_stage(SecretId=name, VersionStage="AWSPREVIOUS", RemoveFromVersionId=current)
    assert current not in client.describe_secret(SecretId=name)["VersionIdsToStages"]
    listed = client.list_secret_version_ids(SecretId=name, IncludeDeprecated=True)["Versions"]
    assert {version["VersionId"] for version in listed} == {token, current}
