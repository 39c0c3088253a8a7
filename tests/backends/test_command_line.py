"""A person at the command line, with a configuration, and secrets in a real OpenBao and in Secrets Manager."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from secretsource import BackendUnavailable, Secret, SecretReference
from secretsource.testing import Answer, FakeIssuer, LoopbackServer
from secretsource.testing.fixtures import fake_issuer

from ..cli import CANARY, Ran, called
from ..configurations import written
from .openbao import Corner
from .secrets_manager import ACCESS_KEY, REGION, SECRET_KEY, Moto, moto_server

__all__ = ["fake_issuer"]

NEXT = "the-next-one-not-a-real-secret"


@pytest.fixture
def issuer(fake_issuer: FakeIssuer) -> FakeIssuer:
    fake_issuer.add_client("pos", CANARY)
    fake_issuer.add_client("stock", CANARY)
    return fake_issuer


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with moto_server() as moto:
        yield moto


class Desk:
    """Somebody with a configuration of one environment."""

    def __init__(self, file: Path) -> None:
        self._file = str(file)

    def run(self, *arguments: str, text: str = "") -> Ran:
        ran = called(*arguments, "--config", self._file, text=text)
        assert CANARY not in ran.err
        assert CANARY not in ran.out
        assert NEXT not in ran.err + ran.out
        return ran

    def checked(self, *arguments: str) -> dict[str, tuple[str, str]]:
        """What each step found, with its hint."""
        ran = self.run("check", *arguments, "--json")
        steps = json.loads(ran.out)["steps"]
        return {step["name"]: (step["status"], f"{step['found']} {step['hint'] or ''}") for step in steps}


def in_vault(corner: Corner, issuer: FakeIssuer, credentials: str = "", **policy: str) -> Desk:
    """Logged in with a token that may read and write what is for production."""
    mount = corner.kv()
    corner.policy(f"{mount}/data/production/*", capabilities=("read", "create", "update"))
    token = corner.write(corner.folder / "token", corner.token(f"{corner.name}-policy"))
    text = f"""
[environments.production]
production = true
require_binding = true
issuer = "{issuer.url}"
credentials = "{credentials or f"vault://{mount}/{{environment}}/{{client}}"}"

[environments.production.stores.vault]
address = "{corner.server.address}"
auth = {{ method = "token_file", path = "{token}" }}

[clients.pos]
client_id = "pos"

[clients.stock]
client_id = "stock"
"""
    return Desk(written(corner.folder, text))


@pytest.fixture
def vault(corner: Corner, issuer: FakeIssuer) -> Desk:
    return in_vault(corner, issuer)


@pytest.fixture
def aws(moto: Moto, issuer: FakeIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name, value in (("ACCESS_KEY_ID", ACCESS_KEY), ("SECRET_ACCESS_KEY", SECRET_KEY), ("DEFAULT_REGION", REGION)):
        monkeypatch.setenv(f"AWS_{name}", value)
    text = f"""
[environments.production]
production = true
require_binding = true
issuer = "{issuer.url}"
credentials = "aws://{moto.fresh_name()}/{{client}}"

[environments.production.stores.aws]
endpoint_url = "{moto.url}"

[clients.pos]
client_id = "pos"

[clients.stock]
client_id = "stock"
"""
    return Desk(written(tmp_path, text))


@pytest.fixture(params=["vault", "aws"])
def desk(request: pytest.FixtureRequest) -> Desk:
    found: Desk = request.getfixturevalue(request.param)
    return found


def test_a_secret_is_put_checked_and_used(desk: Desk, issuer: FakeIssuer) -> None:
    put = desk.run("put", "pos", text=f"{CANARY}\n")
    assert put.code == 0, put
    assert "written: " in put.err
    steps = desk.checked("pos")
    assert {name for name, (status, _) in steps.items() if status not in ("ok", "warning")} == {"permissions"}, steps
    assert "bound to it by the document" in steps["issuer"][1]
    token = desk.run("token", "pos")
    assert token.code == 0, token
    assert issuer.accepts(token.out.strip())


def test_a_secret_is_changed_by_way_of_a_pending_one(desk: Desk, issuer: FakeIssuer) -> None:
    assert desk.run("put", "pos", text=CANARY).code == 0
    pending = desk.run("put", "pos", "--pending", text=NEXT)
    assert pending.code == 0, pending
    issuer.set_secret("pos", NEXT)
    used = desk.checked("pos")
    assert used["token"][0] in ("ok", "warning"), used
    assert "pending" in used["token"][1]
    promoted = desk.run("put", "pos", text=NEXT)
    assert promoted.code == 0, promoted
    assert "pending" not in desk.checked("pos")["token"][1]


def test_every_client_of_an_environment_is_checked_and_the_first_failure_is_the_exit_code(desk: Desk) -> None:
    assert desk.run("put", "pos", text=CANARY).code == 0
    ran = desk.run("check", "--all", "--env", "production", "--json")
    assert ran.code == 3, "nothing was put for the client stock"
    told = json.loads(ran.out)
    assert [one["client"] for one in told["clients"]] == ["pos", "stock"]
    assert [one["ok"] for one in told["clients"]] == [True, False]
    assert desk.run("put", "stock", text=CANARY).code == 0
    assert desk.run("check", "--all", "--env", "production").code == 0


def test_a_document_of_another_environment_is_not_used_and_not_overwritten(
    vault: Desk, corner: Corner, issuer: FakeIssuer
) -> None:
    corner.secret(f"{corner.name}-kv", "production/pos", CANARY, issuer=issuer.url, environment="staging")
    before = issuer.token_requests
    ran = vault.run("token", "pos")
    assert ran.code == 2
    assert "bound to the environment 'staging'" in ran.err
    assert issuer.token_requests == before
    put = vault.run("put", "pos", text=NEXT)
    assert put.code == 2
    assert "bound to another environment" in put.err


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("{mount}/data/production/pos", "Leave 'data/' out"),
        ("{mount}1/production/pos", "KV version 1: add ?kv=1"),
        ("{mount}/production/pos?kv=1", "KV version 2: leave kv=1 out"),
        ("{mount}/elsewhere/pos", "policy needs read on the path {mount}/data/elsewhere/pos"),
        ("{mount}-x/team/a/production/pos", "?mount={mount}-x/team/a"),
        ("{mount}/production/pos?version=9", "no such version"),
    ],
)
def test_check_has_a_hint_for_the_mistakes_of_the_first_hour(
    corner: Corner, issuer: FakeIssuer, path: str, hint: str
) -> None:
    mount = f"{corner.name}-kv"
    desk = in_vault(corner, issuer, f"vault://{path.format(mount=mount)}")
    corner.kv1(f"{mount}1")
    corner.kv(f"{mount}-x/team/a")
    corner.policy(
        f"{mount}/data/production/*", f"{mount}/data/data/production/*", f"{mount}/production/*",
        f"{mount}1/production/*", f"{mount}1/data/production/*", f"{mount}-x/team/a/data/production/*",
    )  # fmt: skip
    corner.secret(mount, "production/pos", CANARY, issuer=issuer.url, environment="production")
    status, found = desk.checked("pos")["secret"]
    assert status == "failed"
    assert hint.format(mount=mount) in found


@pytest.mark.parametrize(
    ("path", "asked", "hint"),
    [
        ("{mount}1/production/pos", "{mount}1/data/production", "KV version 1: add ?kv=1"),
        ("{mount}/data/production/pos", "{mount}/data/data/production", "Leave 'data/' out"),
        ("{mount}-x/team/a/production/pos", "{mount}-x/data/team/a/production", "?mount={mount}-x/team/a"),
    ],
)
def test_nothing_is_put_where_the_path_is_a_mistake_of_the_first_hour(
    corner: Corner, issuer: FakeIssuer, path: str, asked: str, hint: str
) -> None:
    """To KV version 1 the path of the API is one like any other: the secret would lie there unseen."""
    mount = f"{corner.name}-kv"
    desk = in_vault(corner, issuer, f"vault://{path.format(mount=mount)}")
    corner.kv1(f"{mount}1")
    corner.kv(f"{mount}-x/team/a")
    corner.policy(*(f"{one}*" for one in (f"{mount}1/", f"{mount}/", f"{mount}-x/")), capabilities=("read", "create"))
    ran = desk.run("put", "pos", text=CANARY)
    assert ran.code == 2, ran
    assert "is not written" in ran.err
    assert hint.format(mount=mount) in ran.err
    assert corner.came(asked.format(mount=mount)) == 1, "it was read, and not written"


def test_a_path_that_does_begin_with_data_is_written_with_its_mount(corner: Corner, issuer: FakeIssuer) -> None:
    mount = f"{corner.name}-kv"
    desk = in_vault(corner, issuer, f"vault://data/pos?mount={mount}")
    corner.policy(f"{mount}/data/*", capabilities=("read", "create"))
    ran = desk.run("put", "pos", text=CANARY)
    assert ran.code == 0, ran


def test_check_names_a_token_that_has_ended(corner: Corner, issuer: FakeIssuer) -> None:
    desk = in_vault(corner, issuer)
    ended = corner.token(f"{corner.name}-policy")
    corner.api("POST", "auth/token/revoke", {"token": ended})
    corner.write(corner.folder / "token", ended)
    status, found = desk.checked("pos")["secret"]
    assert status == "failed"
    assert "token" in found
    assert "cannot be had again" in found


@pytest.mark.parametrize("body", [b"<h1>Please log in</h1>", b'{"error": "not_found"}'])
def test_check_names_a_proxy_in_the_way(corner: Corner, issuer: FakeIssuer, body: bytes) -> None:
    desk = in_vault(corner, issuer)
    page = Answer(status=404, headers={"Content-Type": "text/html" if b"<" in body else "application/json"}, body=body)
    with LoopbackServer(lambda incoming: page) as proxy:
        file = corner.folder / "secretsource.toml"
        file.write_text(file.read_text().replace(corner.server.address, proxy.origin))
        status, found = desk.checked("pos")["secret"]
    assert status == "failed"
    assert "a proxy in the way?" in found


def test_what_two_people_put_at_once_is_kept_in_turn(vault: Desk, corner: Corner) -> None:
    """The second one read before the first one wrote."""
    assert vault.run("put", "pos", text=CANARY).code == 0
    backend = corner.by_token((corner.folder / "token").read_text())
    reference = SecretReference.parse(f"vault://{corner.name}-kv/production/pos")
    stored = backend.read_whole(reference, timeout=30)
    assert vault.run("put", "pos", text=NEXT).code in (0, 4)
    with pytest.raises(BackendUnavailable, match="changed by somebody else"):
        backend.write_whole(
            reference, {**stored.fields, "client_secret": Secret("lost")}, version=stored.version, timeout=30
        )


def test_check_warns_of_a_partial_arn_that_works(aws: Desk, moto: Moto, issuer: FakeIssuer, tmp_path: Path) -> None:
    document = {"client_id": "pos", "client_secret": CANARY, "issuer": issuer.url, "environment": "production"}
    name = moto.create(document, f"partial/{moto.fresh_name().replace('-', '_')}")
    arn = moto.client.describe_secret(SecretId=name)["ARN"].rpartition("-")[0]
    status, found = aws.checked("pos", "--credentials", f"aws://{arn}")["store"]
    assert status == "warning"
    assert "partial ARN" in found
