"""A secret is changed in Vault: rights and room are looked at before, and old versions are destroyed after it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from secretsource import SecretReference
from secretsource.backends import Held, Rotatable
from secretsource.backends.layout import rotatable
from secretsource.backends.vault import BaoBackend, StaticToken, VaultBackend, ViaAgent
from secretsource.backends.vault import visit as visit_module
from secretsource.errors import AccessDenied, BackendUnavailable, ConfigurationError, SecretNotFound
from secretsource.state import RotationState
from secretsource.testing import Answer, Fault, Incoming

from ..stores import in_threads
from .openbao import Corner, _binary
from .steps import CURRENT, PENDING, Steps
from .vaults import DATA, Scripted, answer, assert_shows_nothing, by_token, errors, failed, secret

pytestmark = pytest.mark.usefixtures("nothing_secret_is_logged")

RIGHTS = {"data": ("read", "update"), "metadata": ("read",), "destroy": ("update",)}


class Rotated:
    """A client's document on the real server, which keeps 20 versions, and a rotator that may do what it needs."""

    def __init__(self, corner: Corner, **rights: tuple[str, ...]) -> None:
        self.corner, self.kv = corner, corner.kv()
        corner.secrets.append(PENDING)
        corner.secret(self.kv, "prod/pos", CURRENT, issuer="https://i")
        self.tune(max_versions=20)
        self.reference = f"vault://{self.kv}/prod/pos"
        self.steps = self.rotator("one", **rights)

    def rotator(self, by: str, **rights: tuple[str, ...]) -> Steps:
        """With a token that has these rights by the kind of path, else those that a rotation needs."""
        policies = [
            self.corner.policy(self.path(kind), name=f"{self.corner.name}-{by}-{kind}", capabilities=each)
            for kind, each in {**RIGHTS, **rights}.items()
            if each
        ]
        token = self.corner.token(*policies)
        backend = self.corner.backend(StaticToken(self.corner.kept(token, by)))
        return Steps(backend, self.reference, by=by)

    def path(self, kind: str) -> str:
        return f"{self.kv}/config" if kind == "config" else f"{self.kv}/{kind}/prod/pos"

    def tune(self, **settings: Any) -> None:
        self.corner.api("POST", self.path("metadata"), settings)

    def destroyed(self) -> dict[int, bool]:
        versions = self.corner.api("GET", self.path("metadata"))["data"]["versions"]
        return {int(number): one["destroyed"] for number, one in versions.items()}

    def cautions(self) -> list[str]:
        return list(self.steps.store.preflight(self.steps.reference, timeout=10))

    def rotate(self) -> str | None:
        for step in (self.steps.claim, self.steps.note, self.steps.promote):
            step()
        return self.steps.drop()


@pytest.fixture
def rotated(corner: Corner) -> Rotated:
    return Rotated(corner)


# --- the steps


def test_it_is_rotatable_and_says_whom_it_reaches() -> None:
    assert isinstance(VaultBackend(), Rotatable)
    assert "Vault Agent" in VaultBackend.reaches


def test_each_step_is_one_version_and_the_old_ones_are_destroyed_at_the_end(rotated: Rotated) -> None:
    one = rotated.steps
    assert rotated.cautions() == []
    assert (one.secrets(), one.held().version, one.held().binding.issuer) == ((CURRENT, None, None), "1", "https://i")
    one.claim()
    assert (one.secrets(), one.held().version) == ((CURRENT, PENDING, None), "2")
    one.note()
    assert one.held().state == one.state(noted=1001.0, open_for=30.0, calls=1)
    one.promote()
    assert (one.secrets(), one.held().version) == ((PENDING, None, CURRENT), "4")
    assert not any(rotated.destroyed().values())
    assert one.drop() is None
    assert (one.secrets(), one.held().version) == ((PENDING, None, None), "5")
    assert rotated.destroyed() == {1: True, 2: True, 3: True, 4: True, 5: False}
    assert one.held().state.finished == 1004.0


def test_after_a_leak_nothing_keeps_the_old_secret(rotated: Rotated) -> None:
    one = rotated.steps
    one.claim(compromised=True)
    one.promote(keep_previous=False)
    assert one.secrets() == (PENDING, None, None)
    assert one.drop() is None
    for version in (1, 2, 3):
        with pytest.raises(AssertionError, match="404"):
            rotated.corner.api("GET", f"{rotated.path('data')}?version={version}")


def test_versions_that_were_only_deleted_are_destroyed_too(rotated: Rotated) -> None:
    rotated.corner.secret(rotated.kv, "prod/pos", CURRENT)
    rotated.corner.api("POST", f"{rotated.kv}/delete/prod/pos", {"versions": [1]})
    assert rotated.rotate() is None
    assert [number for number, gone in rotated.destroyed().items() if not gone] == [6]


def test_what_is_abandoned_leaves_the_current_secret(rotated: Rotated) -> None:
    rotated.steps.claim()
    rotated.steps.abandon()
    assert rotated.steps.secrets() == (CURRENT, None, None)
    assert not any(rotated.destroyed().values())


def test_when_a_version_was_written_and_when_vault_ends_it_are_known(rotated: Rotated) -> None:
    rotated.tune(delete_version_after="2h")
    held = rotated.steps.held()
    assert held.created is not None
    assert abs(datetime.now(UTC).timestamp() - held.created) < 600
    assert held.expires is None
    rotated.steps.claim()
    held = rotated.steps.held()
    assert held.created is not None
    assert held.expires == pytest.approx(held.created + 7200, abs=1)
    [caution] = rotated.cautions()
    assert "delete_version_after" in caution


def test_a_rotation_leaves_settings_and_custom_metadata_alone(rotated: Rotated) -> None:
    rotated.tune(custom_metadata={"owner": "shop"}, delete_version_after="2h", cas_required=True)
    before = rotated.corner.api("GET", rotated.path("metadata"))["data"]
    assert rotated.rotate() is None
    after = rotated.corner.api("GET", rotated.path("metadata"))["data"]
    names = ("custom_metadata", "delete_version_after", "cas_required", "max_versions")
    assert [after[name] for name in names] == [before[name] for name in names]


def test_of_many_rotators_one_claims_and_the_others_see_it(rotated: Rotated) -> None:
    rotators = [rotated.rotator(f"rotator-{number}") for number in range(6)]
    seen = [(one, one.held()) for one in rotators]

    def claim() -> str:
        one, held = seen.pop()
        one.claim(f"{PENDING}-of-{one.by}", held)
        return one.by

    outcomes = in_threads(6, claim)
    [winner] = [outcome for outcome in outcomes if isinstance(outcome, str)]
    losses = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    assert [type(loss) for loss in losses] == [BackendUnavailable] * 5
    for loss in losses:
        assert_shows_nothing(loss)
    assert {(one.held().state.by, one.secrets()[1]) for one in rotators} == {(winner, f"{PENDING}-of-{winner}")}
    assert rotators[0].held().version == "2"


# --- before the first effect


@pytest.mark.parametrize(
    ("rights", "missing"), [(("read",), "update"), (("update",), "read"), (("create", "list"), "read and update")]
)
def test_a_token_that_may_not_write_the_secret_is_refused_before_anything(
    corner: Corner, rights: tuple[str, ...], missing: str
) -> None:
    rotated = Rotated(corner, data=rights)
    rule = f'path "{rotated.path("data")}" {{ capabilities = ["read", "update"] }}'
    failed(AccessDenied, rotated.cautions, says=f"may not {missing} {rotated.path('data')}", hint=rule)
    assert len(rotated.destroyed()) == 1


@pytest.mark.parametrize("kind", ["metadata", "destroy"])
def test_a_token_that_may_not_destroy_is_a_caution_and_the_drop_says_what_is_left(corner: Corner, kind: str) -> None:
    rotated = Rotated(corner, **{kind: ()})
    [caution] = rotated.cautions()
    assert f'path "{rotated.path(kind)}" {{ capabilities = ["{RIGHTS[kind][0]}"] }}' in caution
    left = rotated.rotate()
    assert rotated.steps.secrets() == (PENDING, None, None)
    assert left is not None
    assert f"{rotated.path(kind)} cannot be" in left
    assert "(403)" in left
    command = f"vault kv destroy -mount={rotated.kv} -versions=1,2,3,4 prod/pos"
    assert left.endswith(f"Run {command}")
    run(rotated, command)
    assert rotated.destroyed() == {1: True, 2: True, 3: True, 4: True, 5: False}


def run(rotated: Rotated, command: str) -> None:
    """What a person does who is told to, with OpenBao's own program."""
    server = rotated.corner.server
    environ = {"BAO_ADDR": server.address, "BAO_TOKEN": server.root, "HOME": str(rotated.corner.folder)}
    words = [_binary(), *command.split()[1:]]
    subprocess.run(words, env=environ, check=True, timeout=60, capture_output=True)


def test_few_versions_are_a_caution_with_the_command_that_keeps_more(rotated: Rotated) -> None:
    rotated.tune(max_versions=0, custom_metadata={"owner": "shop"}, delete_version_after="2h")
    [caution] = rotated.cautions()
    command = f"vault kv metadata put -mount={rotated.kv} -max-versions=20 prod/pos"
    assert "keeps 10 versions" in caution
    assert command in caution
    run(rotated, command)
    assert rotated.cautions() == []
    kept = rotated.corner.api("GET", rotated.path("metadata"))["data"]
    assert (kept["custom_metadata"], kept["delete_version_after"]) == ({"owner": "shop"}, "2h0m0s")


def test_the_mount_may_keep_enough(corner: Corner) -> None:
    rotated = Rotated(corner, config=("read",))
    corner.api("POST", rotated.path("config"), {"max_versions": 30})
    rotated.tune(max_versions=5)
    assert rotated.cautions() == []
    corner.api("POST", rotated.path("config"), {"max_versions": 12})
    [caution] = rotated.cautions()
    assert "keeps 12 versions" in caution


def test_a_token_that_may_not_ask_for_its_rights_is_a_caution(rotated: Rotated) -> None:
    paths = {rotated.path(kind): {"capabilities": list(each)} for kind, each in RIGHTS.items()}
    name = f"{rotated.corner.name}-bare"
    rotated.corner.api("PUT", f"sys/policies/acl/{name}", {"policy": json.dumps({"path": paths})})
    token = rotated.corner.token(name, no_default_policy=True)
    backend = rotated.corner.by_token(token)
    one = Steps(backend, rotated.reference)
    [caution] = list(one.store.preflight(one.reference, timeout=10))
    assert "sys/capabilities-self" in caution
    assert one.secrets() == (CURRENT, None, None)


def test_root_may_do_everything(rotated: Rotated) -> None:
    one = Steps(rotated.corner.by_token(rotated.corner.server.root), rotated.reference)
    assert list(one.store.preflight(one.reference, timeout=10)) == []


@pytest.mark.parametrize("option", ["kv=1", "kv=raw", "version=1"])
def test_what_cannot_be_changed_by_check_and_set_is_refused_and_nothing_is_asked(option: str) -> None:
    reference = SecretReference.parse(f"vault://kv/prod/pos?{option}")
    with Scripted() as server:
        failed(ConfigurationError, lambda: by_token(server).preflight(reference, timeout=10))
        assert server.requests == []
    if option == "version=1":
        failed(ConfigurationError, lambda: rotatable(by_token(server), reference), hint="version=")


def test_what_is_not_there_is_found_before_the_first_write(rotated: Rotated) -> None:
    rotated.corner.api("DELETE", rotated.path("metadata"))
    failed(SecretNotFound, rotated.steps.held, says="nothing at", hint="secretsource put")


@pytest.mark.parametrize("way", ["DELETE", "destroy"])
def test_what_was_deleted_is_nothing_to_rotate(rotated: Rotated, way: str) -> None:
    if way == "DELETE":
        rotated.corner.api("DELETE", rotated.path("data"))
    else:
        rotated.corner.api("POST", rotated.path("destroy"), {"versions": [1]})
    failed(SecretNotFound, rotated.steps.held, says="nothing at")


def test_a_mount_of_another_name_is_found_by_auto(rotated: Rotated) -> None:
    one = Steps(rotated.corner.by_token(rotated.corner.server.root), f"{rotated.reference}?kv=auto")
    assert list(one.store.preflight(one.reference, timeout=10)) == []
    one.claim()
    assert one.secrets() == (CURRENT, PENDING, None)


# --- by a script


REFERENCE = "vault://kv/prod/pos"
METADATA = "/v1/kv/metadata/prod/pos"
DESTROY = "/v1/kv/destroy/prod/pos"
CAPABILITIES = "/v1/sys/capabilities-self"


class Kv:
    """One document of KV version 2 by a script. `lags`: how many versions behind the next reads are."""

    def __init__(self, *, current: str = CURRENT) -> None:
        self.versions = [{"client_id": "pos", "client_secret": current}]
        self.destroyed: set[int] = set()
        self.after_writing: Callable[[], Answer] | None = None
        self.lags: list[int] = []

    @property
    def script(self) -> dict[str, Any]:
        return {DATA: self.data, METADATA: self.metadata, DESTROY: self.destroy}

    def newest(self) -> int:
        return len(self.versions) - (self.lags.pop(0) if self.lags else 0)

    def data(self, incoming: Incoming) -> Answer:
        if incoming.method == "GET":
            newest = self.newest()
            fields = dict(self.versions[newest - 1])
            return secret(fields.pop("client_secret"), version=newest, **fields)
        sent = json.loads(incoming.body)
        if sent["options"]["cas"] != len(self.versions):
            return errors(400, "check-and-set parameter did not match the current version")
        self.versions.append(sent["data"])
        special, self.after_writing = self.after_writing, None
        return special() if special else answer({"data": {"version": len(self.versions)}})

    def metadata(self, incoming: Incoming) -> Answer:
        newest = self.newest()
        each = {str(number): {"destroyed": number in self.destroyed} for number in range(1, newest + 1)}
        return answer({"data": {"current_version": newest, "max_versions": 20, "versions": each}})

    def destroy(self, incoming: Incoming) -> Answer:
        self.destroyed.update(json.loads(incoming.body)["versions"])
        return Answer(204, {}, b"")


def lost() -> Answer:
    return answer({}, fault=Fault(reset=True))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit_module, "WAITS_BETWEEN_ATTEMPTS", (0.002, 0.002))


@pytest.mark.parametrize("step", ["claim", "note", "promote", "abandon"])
def test_a_write_whose_answer_is_lost_is_found_to_be_done_and_not_made_again(step: str) -> None:
    kv = Kv()
    with Scripted(kv.script) as server:
        one = Steps(by_token(server), REFERENCE)
        if step != "claim":
            one.claim()
        kv.after_writing = lost
        before = len(kv.versions)
        error = failed(BackendUnavailable, getattr(one, step))
        assert error.retryable
        assert len(kv.versions) == before + 1
        held = one.held()
        assert held.version == str(before + 1)
        assert held.state.rotation == ("" if step == "abandon" else "r1")


def test_a_second_write_after_a_lost_answer_is_refused() -> None:
    kv = Kv()
    with Scripted(kv.script) as server:
        one = Steps(by_token(server), REFERENCE)
        held = one.held()
        kv.after_writing = lost
        failed(BackendUnavailable, lambda: one.claim(held=held))
        failed(BackendUnavailable, lambda: one.claim(f"{PENDING}-of-another", held), says="meanwhile")
        assert [version.get("client_secret_pending") for version in kv.versions] == [None, PENDING]


def test_a_drop_whose_answer_is_lost_destroys_all_the_same() -> None:
    kv = Kv()
    with Scripted(kv.script) as server:
        one = Steps(by_token(server), REFERENCE)
        one.claim()
        one.promote()
        kv.after_writing = lost
        assert one.drop() is None
        assert (len(kv.versions), kv.destroyed) == (4, {1, 2, 3})


def test_a_drop_that_was_not_written_destroys_nothing() -> None:
    kv = Kv()
    with Scripted(kv.script) as server:
        one = Steps(by_token(server), REFERENCE)
        one.claim()
        one.promote()
        held = one.held()
        one.note()
        failed(BackendUnavailable, lambda: one.drop(held), says="meanwhile")
        assert kv.destroyed == set()


@pytest.mark.parametrize("step", ["note", "promote", "abandon", "drop"])
def test_what_a_standby_gives_that_lags_is_never_written(step: str) -> None:
    """The active node would take it, since the version that was decided on is its newest."""
    kv = Kv()
    with Scripted(kv.script) as server:
        one = Steps(by_token(server), REFERENCE)
        one.claim()
        held = one.held()
        kv.lags = [1]
        failed(BackendUnavailable, lambda: getattr(one, step)(held=held))
        assert len(kv.versions) == 2


def test_a_decision_on_what_a_standby_gave_that_lags_is_refused_by_the_active_node() -> None:
    kv = Kv()
    with Scripted(kv.script) as server:
        one = Steps(by_token(server), REFERENCE)
        one.claim()
        kv.lags = [1, 1]
        failed(BackendUnavailable, lambda: one.claim(f"{PENDING}-of-another"), says="meanwhile")
        assert [version.get("client_secret_pending") for version in kv.versions] == [None, PENDING]


def test_a_standby_that_lags_does_not_hide_a_version_from_destruction() -> None:
    kv = Kv()
    with Scripted(kv.script) as server:
        one = Steps(by_token(server), REFERENCE)
        one.claim()
        one.promote()
        held = one.held()
        kv.lags = [0, 1, 1, 0, 1, 2, 1]  # before the write, after it until it is seen, and then for the versions
        assert one.drop(held) is None
        assert (kv.lags, kv.destroyed) == ([], {1, 2, 3})


@pytest.mark.parametrize(
    ("path", "reply", "says"),
    [
        (METADATA, errors(403), "metadata/prod/pos cannot be read (403)"),
        (METADATA, answer({"data": {}}), "cannot be read (200)"),
        (DESTROY, errors(403), "destroy/prod/pos cannot be updated (403)"),
        (DESTROY, errors(503), "cannot be updated (503)"),
        (DESTROY, errors(200, fault=Fault(reset=True)), "BackendUnavailable when it was asked to"),
        (METADATA, answer({"data": {"current_version": 1, "versions": {}}}), "lags behind"),
    ],
)
def test_the_drop_never_fails_for_what_cannot_be_destroyed(path: str, reply: Answer, says: str) -> None:
    kv = Kv()
    with Scripted({**kv.script, path: reply}) as server:
        one = Steps(by_token(server, timeout=2.0), REFERENCE)
        one.claim()
        one.promote()
        left = one.drop()
        assert left is not None
        assert says in left
        assert "vault kv destroy -mount=kv -versions=1,2,3 prod/pos" in left
        assert "not-a-real-secret" not in left
        assert one.secrets() == (PENDING, None, None)


def test_openbao_is_told_its_own_program() -> None:
    kv = Kv()
    with Scripted({**kv.script, DESTROY: errors(403)}) as server:
        store = by_token(server)
        backend = BaoBackend(server.address, auth=store._given["auth"], stores=store._stores)
        one = Steps(backend, "bao://kv/prod/pos")
        one.claim()
        assert "Run bao kv destroy" in str(one.drop())


@pytest.mark.parametrize(
    ("reply", "error"),
    [(errors(503), BackendUnavailable), (errors(404), SecretNotFound), (errors(400), ConfigurationError)],
)
def test_rights_that_cannot_be_asked_for_now_are_an_error(reply: Answer, error: type[Any]) -> None:
    with Scripted({CAPABILITIES: reply}) as server:
        failed(error, lambda: by_token(server).preflight(SecretReference.parse(REFERENCE), timeout=10))


@pytest.mark.parametrize("rights", [None, "read", [1, None], {}, []])
def test_an_answer_about_rights_that_is_none_gives_none(rights: Any) -> None:
    data = {"kv/data/prod/pos": rights}
    with Scripted({CAPABILITIES: answer({"data": data})}) as server:
        failed(AccessDenied, lambda: by_token(server).preflight(SecretReference.parse(REFERENCE), timeout=10))


def test_what_an_agent_stands_before_is_copied() -> None:
    assert VaultBackend("http://127.0.0.1:1", auth=ViaAgent()).copied is True
    assert VaultBackend("http://127.0.0.1:1", auth=StaticToken("env:#T")).copied is False


def test_an_agent_that_the_environment_names_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VAULT_TOKEN", "VAULT_PROXY_ADDR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VAULT_AGENT_ADDR", "http://127.0.0.1:1")
    assert VaultBackend().copied is True


def test_the_state_is_no_secret_and_the_rest_is_masked(rotated: Rotated) -> None:
    rotated.steps.claim()
    held: Held = rotated.steps.held()
    assert "not-a-real-secret" not in f"{held!r} {held}"
    assert held.state == RotationState(rotation="r1", by="one", claimed=1000.0)
