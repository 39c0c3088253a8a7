"""Vault: each login, each answer that it may give, and its tokens; some by a script, some on a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from secretsource import CredentialsSource, SecretReference
from secretsource.backends.vault import (
    AppRole,
    AwsIam,
    Jwt,
    Kubernetes,
    StaticToken,
    TokenFile,
    VaultBackend,
    ViaAgent,
)
from secretsource.backends.vault import visit as visit_module
from secretsource.credentials import Document
from secretsource.errors import BackendUnavailable, SecretSourceError
from secretsource.secret import Secret
from secretsource.testing import Answer, FakeIssuer, Fault, Incoming

from ..backends.conftest import openbao
from ..backends.openbao import OpenBao
from ..backends.vaults import DATA, LOGIN, REFERENCE, Scripted, answer, login, read, secret
from .canaries import SPECIAL
from .cases import the_rest_slow
from .watch import Watch

__all__ = ["openbao"]

AUTH = "/v1/auth"
LOGINS = (LOGIN, f"{AUTH}/kubernetes/login", f"{AUTH}/jwt/login", f"{AUTH}/aws/login", f"{AUTH}/cert/login")
LOOKUP, UNWRAP = "/v1/sys/wrapping/lookup", "/v1/sys/wrapping/unwrap"
OF_A_ROLE = answer({"data": {"creation_path": "auth/approle/role/pos/secret-id", "creation_ttl": 60}})


class Shown:
    """What a program shows to Vault, each a canary of its own, and what Vault shows it."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.client_secret = watch.canary("client secret", SPECIAL)
        self.token, self.new_token = watch.canary("Vault token"), watch.canary("new Vault token")
        self.secret_id, self.jwt = watch.canary("secret ID"), watch.canary("JWT", "{}.not-a-real-jwt.{}")
        self.wrapping = watch.canary("wrapping token")
        watch.setenv("CANARY_TOKEN", self.token)
        for name, value in (("AWS_SECRET_ACCESS_KEY", "AWS secret key"), ("AWS_SESSION_TOKEN", "AWS session token")):
            watch.setenv(name, watch.canary(value))
        watch.setenv("AWS_ACCESS_KEY_ID", "AKIDTESTING")
        watch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def _file(self, name: str, text: str) -> str:
        return str(self._watch.put(name, text))

    @property
    def all(self) -> list[str]:
        return [self.client_secret, self.token, self.secret_id, self.jwt, self.wrapping]

    def logins(self) -> dict[str, Callable[[], Any]]:
        return {
            "a static token": lambda: StaticToken("env:#CANARY_TOKEN"),
            "a token that is not renewed": lambda: StaticToken("env:#CANARY_TOKEN", renew=False),
            "a file with a token": lambda: TokenFile(self._file("sink", self.token)),
            "an AppRole": lambda: AppRole("role", f"file://{self._file('secret-id', self.secret_id)}"),
            "a wrapped secret ID": lambda: AppRole(
                "role", f"file://{self._file('wrapping', self.wrapping)}", wrapped=True
            ),
            "Kubernetes": lambda: Kubernetes("pos", jwt=self._file("jwt", self.jwt)),
            "a JWT": lambda: Jwt("pos", f"file://{self._file('jwt', self.jwt)}?access=mounted"),
            "an AWS role": lambda: AwsIam("pos", server_id="vault.example", region="eu-west-1"),
            "an agent": ViaAgent,
        }


NAMES = [
    "a static token", "a token that is not renewed", "a file with a token", "an AppRole", "a wrapped secret ID",
    "Kubernetes", "a JWT", "an AWS role", "an agent",
]  # fmt: skip


@pytest.fixture
def shown(watch: Watch) -> Shown:
    return Shown(watch)


@pytest.fixture
def vault(shown: Shown) -> Iterator[Scripted]:
    script: dict[str, Any] = {path: login(shown.token) for path in LOGINS}
    script |= {DATA: secret(shown.client_secret), LOOKUP: OF_A_ROLE}
    script[UNWRAP] = answer({"data": {"secret_id": shown.secret_id}})
    with Scripted(script) as server:
        yield server


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit_module, "WAITS_BETWEEN_ATTEMPTS", (0.002, 0.002))


def backend_of(vault: Scripted, shown: Shown, name: str) -> VaultBackend:
    return vault.backend(shown.logins()[name](), namespace="team")


def test_each_login_is_tried(shown: Shown) -> None:
    assert set(shown.logins()) == set(NAMES)


# --- a good way ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_each_login_reads_a_secret(watch: Watch, shown: Shown, vault: Scripted, issuer: FakeIssuer, name: str) -> None:
    backend = watch.look(backend_of(vault, shown, name))
    issuer.add_client("pos", shown.client_secret)
    source = watch.source(REFERENCE, stores={"vault": backend}, issuer=issuer.url)
    watch.canary_of("access token", watch.gives(source.token).access_token)
    watch.look(backend)
    watch.look(source)
    watch.look(read(backend))


@pytest.mark.parametrize("name", ["a static token", "an AppRole"])
def test_a_token_that_ended_is_replaced(watch: Watch, shown: Shown, vault: Scripted, name: str) -> None:
    backend = backend_of(vault, shown, name)
    watch.gives(lambda: read(backend))
    vault.script[DATA] = [answer({"errors": [f"permission denied {shown.token}"]}, 403), secret(shown.client_secret)]
    vault.script[LOGIN] = login(shown.new_token)
    watch.ends(lambda: read(backend))
    watch.look(backend)


# --- what Vault answers ----------------------------------------------------------------------------------------------


def _everything(shown: Shown) -> dict[str, Any]:
    return {"errors": shown.all, "warnings": shown.all, "data": None, "auth": None}


def _repeats_it_all(shown: Shown, status: int) -> Answer:
    return answer(_everything(shown), status)


ANSWERS: dict[str, Callable[[Shown], Answer]] = {
    **{
        f"{status} that repeats it all": partial(_repeats_it_all, status=status)
        for status in (200, 400, 403, 404, 412, 429, 473, 500, 502, 503)
    },
    "HTML": lambda shown: Answer(200, {"Content-Type": "text/html"}, f"<p>{'<br>'.join(shown.all)}".encode()),
    "cut": lambda shown: answer(_everything(shown), fault=Fault(cut_after=60)),
    "too long": lambda shown: Answer(200, {}, json.dumps(_everything(shown)).encode() + b" " * (2 << 20)),
    "reset": lambda shown: Answer(fault=Fault(reset=True)),
    "a redirect": lambda shown: Answer(307, {"Location": f"https://elsewhere.example/?token={shown.token}"}),
    "headers that repeat it": lambda shown: Answer(
        403, {"X-Token": shown.token, "X-Request-Id": shown.secret_id, "Warning": shown.jwt}, b"{}"
    ),
    "a list": lambda shown: Answer(200, {}, json.dumps(shown.all).encode()),
    "names that are secrets": lambda shown: answer({"data": {"data": dict.fromkeys(shown.all, "x")}}),
    "fields of another kind": lambda shown: answer({"data": {"data": {"client_secret": [shown.client_secret]}}}),
    "a version that is a secret": lambda shown: answer(
        {"data": {"data": {"client_id": "pos", "client_secret": 1}, "metadata": {"version": shown.client_secret}}}
    ),
    "a login that is odd": lambda shown: login(f"{shown.token}\r\nX: y", lease_duration=shown.token),
    "a token with a blank": lambda shown: login(f"{shown.token} {shown.secret_id}"),
}


@pytest.mark.parametrize("name", the_rest_slow(["an AppRole", "a static token"], "an AppRole"))
@pytest.mark.parametrize("bad", ANSWERS)
def test_an_answer_to_a_read(watch: Watch, shown: Shown, vault: Scripted, bad: str, name: str) -> None:
    backend = backend_of(vault, shown, name)
    vault.script[DATA] = ANSWERS[bad](shown)
    source = CredentialsSource(REFERENCE, stores={"vault": backend}, on_event=watch.events)
    watch.fails(SecretSourceError, source.current)
    if "names" not in bad:  # which are no secrets; only messages are spared them
        watch.fails(SecretSourceError, lambda: read(backend))
    watch.look(backend)


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("status", [400, 403, 500])
def test_a_request_id_that_is_what_was_sent(
    watch: Watch, shown: Shown, vault: Scripted, name: str, status: int
) -> None:
    def echo(incoming: Incoming) -> Answer:
        sent = {**json.loads(incoming.body or b"{}"), "token": incoming.headers.get("x-vault-token")}
        given = next((sent[key] for key in ("secret_id", "jwt", "token") if sent.get(key)), None)
        return answer({"errors": [], "request_id": given}, status)

    backend = backend_of(vault, shown, name)
    vault.script = dict.fromkeys((*LOGINS, LOOKUP, UNWRAP, DATA), echo)
    watch.fails(SecretSourceError, lambda: read(backend))


@pytest.mark.parametrize(
    "name", the_rest_slow(["an AppRole", "a wrapped secret ID", "Kubernetes", "a JWT", "an AWS role"], "an AppRole")
)
@pytest.mark.parametrize("bad", ANSWERS)
def test_an_answer_to_a_login(watch: Watch, shown: Shown, vault: Scripted, bad: str, name: str) -> None:
    backend = backend_of(vault, shown, name)
    vault.script |= dict.fromkeys((*LOGINS, LOOKUP), ANSWERS[bad](shown))
    watch.fails(SecretSourceError, lambda: read(backend))


@pytest.mark.parametrize("bad", ["200 that repeats it all", "400 that repeats it all", "cut", "HTML", "a list"])
def test_an_answer_to_the_exchange_of_a_wrapping_token(watch: Watch, shown: Shown, vault: Scripted, bad: str) -> None:
    backend = backend_of(vault, shown, "a wrapped secret ID")
    vault.script[UNWRAP] = ANSWERS[bad](shown)
    watch.fails(SecretSourceError, lambda: read(backend))


@pytest.mark.parametrize("name", NAMES)
def test_a_vault_that_is_down(watch: Watch, shown: Shown, vault: Scripted, name: str) -> None:
    backend = backend_of(vault, shown, name)
    with vault.server.down():
        watch.fails(BackendUnavailable, lambda: read(backend))


@pytest.mark.parametrize("name", ["a static token", "an AppRole", "a JWT"])
def test_a_vault_that_is_slow(watch: Watch, shown: Shown, vault: Scripted, name: str) -> None:
    backend = backend_of(vault, shown, name)
    vault.script = dict.fromkeys((*LOGINS, DATA), Answer(body=b"{}", fault=Fault(hang=True)))
    watch.fails(SecretSourceError, lambda: read(backend, timeout=0.2))


# --- what is shown, and is odd ---------------------------------------------------------------------------------------

ODD: list[Callable[[str], str]] = [
    lambda s: f"{s}\n{s}", lambda s: f"{s}\0", lambda s: f"{s} ", lambda s: f"{s}é", lambda s: f"{s}\r\nX: y",
    lambda s: f'{{"token": "{s}"', lambda s: f"{s}\ud800",
]  # fmt: skip


@pytest.mark.parametrize("odd", range(len(ODD)))
@pytest.mark.parametrize("login_of", [TokenFile, lambda path: StaticToken(f"file://{path}"),
                                      lambda path: AppRole("role", f"file://{path}"),
                                      lambda path: AppRole("role", f"file://{path}", wrapped=True),
                                      lambda path: Kubernetes("pos", jwt=path), lambda path: Jwt("pos", path)],
                         ids=["file", "token", "secret ID", "wrapping token", "account", "JWT"])  # fmt: skip
def test_what_is_shown_to_vault_and_is_odd(
    watch: Watch, shown: Shown, vault: Scripted, odd: int, login_of: Callable[[Any], Any]
) -> None:
    path = watch.put("odd", ODD[odd](watch.canary("odd")))
    watch.ends(lambda: read(vault.backend(login_of(path))))


PASTED: dict[str, Callable[[str], object]] = {
    "a token as a reference": StaticToken,
    "a secret ID as a reference": lambda s: AppRole("role", s),
    "a JWT as a reference": lambda s: Jwt("pos", f"{s}.{s}.{s}"),
    "a password in the address": lambda s: VaultBackend(f"https://user:{s}@vault.example.com", auth=ViaAgent()),
    "a proxy that is none": lambda s: VaultBackend("https://vault.example.com", auth=ViaAgent(), proxy=s),
    "a proxy beside what is wrong": lambda s: VaultBackend("vault", auth=ViaAgent(), proxy=f"http://u:{s}@h:1"),
    "a token by name": lambda s: VaultBackend("https://vault.example.com", token=s),  # type: ignore[call-arg]
    "a token as a login": lambda s: VaultBackend("https://vault.example.com", auth=s),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("pasted", PASTED)
def test_a_secret_that_is_pasted_where_a_place_belongs(watch: Watch, pasted: str) -> None:
    given = [watch.canary("pasted", "{}notarealsecret{}")]
    watch.ends(lambda: PASTED[pasted](given.pop()))


@pytest.mark.parametrize("variable", ["VAULT_TOKEN", "BAO_TOKEN", "VAULT_ADDR", "VAULT_PROXY_ADDR", "VAULT_HTTP_PROXY",
                                      "VAULT_NAMESPACE", "VAULT_CACERT", "VAULT_CLIENT_TIMEOUT"])  # fmt: skip
@pytest.mark.parametrize("reference", ["vault://kv/pos", "bao://kv/pos"])
def test_the_variables_of_vault_with_a_secret_in_them(watch: Watch, variable: str, reference: str) -> None:
    secret = watch.canary("in a variable")
    watch.setenv("VAULT_ADDR", "http://127.0.0.1:9")
    watch.setenv("VAULT_TOKEN", watch.canary("Vault token"))
    watch.setenv(variable, secret if variable.endswith("TOKEN") else f"http://user:{secret}@127.0.0.1:9")
    source = CredentialsSource(reference, timeout=2, on_event=watch.events)
    watch.fails(SecretSourceError, source.current, frames=False)


class Ring:
    """A store that a login reads, and that fails with what it knows."""

    options: frozenset[str] = frozenset()
    ttl: float | None = 0.0

    def __init__(self, text: str) -> None:
        self._text = Secret(text)

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        raise RuntimeError(f"no {self._text.reveal()} today")


def test_a_store_of_the_secret_id_that_breaks_with_it_in_its_text(watch: Watch, vault: Scripted) -> None:
    stores: Mapping[str, Any] = {"ring": Ring(watch.canary("secret ID"))}
    backend = vault.backend(AppRole("role", "ring:id"), stores=stores)
    source = CredentialsSource(REFERENCE, stores={"vault": backend}, on_event=watch.events)
    watch.fails(SecretSourceError, source.current)


# --- a real server ---------------------------------------------------------------------------------------------------


def test_a_real_server_from_the_login_to_a_token(watch: Watch, openbao: OpenBao, issuer: FakeIssuer) -> None:
    secrets: list[str] = []
    corner = openbao.corner(watch.folder, secrets)
    old, new = watch.canary("client secret", SPECIAL), watch.canary("new client secret", SPECIAL)
    mount = corner.kv()
    corner.secret(mount, "pos", old)
    role = corner.role(corner.policy(f"{mount}/data/pos"))
    watch.files.placed(role.file)
    watch.canary_of("secret ID", role.file.read_text())
    issuer.add_client("pos", old)
    backend = corner.backend(role.login)
    source = watch.source(f"vault://{mount}/pos", stores={"vault": backend}, issuer=issuer.url)
    watch.gives(source.token)
    corner.secret(mount, "pos", new)
    issuer.set_secret("pos", new)
    watch.gives(lambda: source.token(force=True))
    corner.write(role.file, watch.canary("wrong secret ID"))
    watch.fails(SecretSourceError, lambda: read(corner.backend(role.login), f"vault://{mount}/pos"))
    watch.fails(SecretSourceError, lambda: read(backend, f"vault://{mount}/other"))
    watch.fails(SecretSourceError, lambda: read(corner.by_token(watch.canary("Vault token")), f"vault://{mount}/pos"))
    watch.files.placed(watch.folder / f"{corner.name}-token")
    wrapping = watch.canary_of("wrapping token", corner.wrapped(f"auth/{role.mount}/role/pos/secret-id"))
    corner.write(role.file, wrapping)
    first, second = (
        corner.backend(AppRole(role.role_id, f"file://{role.file}", mount=role.mount, wrapped=True)) for _ in range(2)
    )
    watch.gives(lambda: read(first, f"vault://{mount}/pos"))
    watch.fails(SecretSourceError, lambda: read(second, f"vault://{mount}/pos"))
    watch.look(backend)


def test_a_real_server_writes_a_secret(watch: Watch, openbao: OpenBao) -> None:
    corner = openbao.corner(watch.folder, [])
    mount = corner.kv()
    token = corner.token(corner.policy(f"{mount}/data/pos", capabilities=("read", "create", "update")))
    watch.canary_of("Vault token", token)
    backend = corner.by_token(token)
    watch.files.placed(watch.folder / f"{corner.name}-token")
    reference = SecretReference.parse(f"vault://{mount}/pos")
    stored = backend.read_whole(reference, timeout=10)
    fields = {"client_id": "pos", "client_secret": Secret(watch.canary("client secret", SPECIAL))}
    watch.gives(lambda: backend.write_whole(reference, fields, version=stored.version, timeout=10))
    watch.look(backend.read_whole(reference, timeout=10))
    watch.fails(SecretSourceError, lambda: backend.write_whole(reference, fields, version=stored.version, timeout=10))
    watch.fails(
        SecretSourceError,
        lambda: backend.write_whole(SecretReference.parse(f"vault://{mount}/x"), fields, version=None, timeout=10),
    )
