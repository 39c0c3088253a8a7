"""Vault: each login on a real server, and by a script what no server here gives."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from secretsource.backends.vault import (
    LOGINS,
    AppRole,
    AwsIam,
    Certificate,
    Jwt,
    Kubernetes,
    StaticToken,
    TokenFile,
    VaultBackend,
    ViaAgent,
)
from secretsource.errors import (
    AccessDenied,
    BackendUnavailable,
    ConfigurationError,
    MalformedSecret,
    SecretNotFound,
)
from secretsource.testing import Answer, Incoming, LoopbackServer

from .openbao import Corner, Role
from .vaults import (
    CLIENT_SECRET,
    DATA,
    LOGIN,
    SECRET_ID,
    SECRETS,
    TOKEN,
    Given,
    Scripted,
    Signer,
    answer,
    errors,
    failed,
    failure,
    login,
    read,
    secret,
    secret_in,
)

pytestmark = pytest.mark.usefixtures("nothing_secret_is_logged")


@pytest.fixture
def kv(corner: Corner) -> str:
    """A mount with a secret at `pos`."""
    mount = corner.kv()
    corner.secret(mount, "pos", CLIENT_SECRET)
    return mount


@pytest.fixture
def policy(corner: Corner, kv: str) -> str:
    """The name of the policy that lets it be read."""
    return corner.policy(f"{kv}/data/pos")


# --- a token


def test_a_static_token_reads(corner: Corner, kv: str, policy: str) -> None:
    assert secret_in(corner.by_token(corner.token(policy)), f"vault://{kv}/pos") == CLIENT_SECRET


def test_a_static_token_in_a_variable_reads(corner: Corner, kv: str, policy: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("POS_VAULT_TOKEN", corner.token(policy))
    assert secret_in(corner.backend(StaticToken("env:#POS_VAULT_TOKEN")), f"vault://{kv}/pos") == CLIENT_SECRET


def test_a_static_token_that_is_exchanged_is_read_anew_after_a_refusal(corner: Corner, kv: str, policy: str) -> None:
    old = corner.token(policy)
    backend = corner.by_token(old)
    read(backend, f"vault://{kv}/pos")
    corner.api("POST", "auth/token/revoke", {"token": old})
    corner.kept(corner.token(policy))
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET


def test_the_file_of_an_agent_is_read_each_time(corner: Corner, kv: str, policy: str) -> None:
    sink, tokens = corner.folder / "sink", [corner.token(policy) for _ in range(2)]
    backend = corner.backend(TokenFile(corner.write(sink, tokens[0])))
    read(backend, f"vault://{kv}/pos")
    corner.write(sink, f"{tokens[1]}\n")
    corner.api("POST", "auth/token/revoke", {"token": tokens[0]})
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET
    assert corner.came(f"{kv}/data/pos") == 3  # the making of it, and one request for each read


def test_a_file_with_an_ended_token_is_denied_and_says_where_to_put_a_new_one(corner: Corner, kv: str) -> None:
    token = corner.token("default")
    corner.api("POST", "auth/token/revoke", {"token": token})
    backend = corner.backend(TokenFile(corner.write(corner.folder / "sink", token)))
    failure(AccessDenied, backend, f"vault://{kv}/pos", hint="put a new one where it is kept")


@pytest.mark.parametrize("content", ["two\nlines", "with a blank ", "tabs\t", "ünlatin-⋯", "x\r\nSet-Cookie: y"])
def test_a_file_that_holds_no_token_is_malformed_and_nothing_is_asked(tmp_path: Path, content: str) -> None:
    SECRETS.append(content)
    (tmp_path / "sink").write_text(content)
    (tmp_path / "sink").chmod(0o600)
    with Scripted() as server:
        failure(MalformedSecret, server.backend(TokenFile(tmp_path / "sink")), says="the file")
        assert server.requests == []


@pytest.mark.parametrize("content", ["with a blank", "ünlatin-⋯"])
def test_a_reference_that_gives_no_token_is_malformed_and_nothing_is_asked(content: str) -> None:
    SECRETS.append(content)
    with Scripted() as server:
        backend = server.backend(StaticToken("given:token"), stores={"given": Given(content)})
        failure(MalformedSecret, backend)
        assert server.requests == []


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with Scripted() as server:
        failure(SecretNotFound, server.backend(TokenFile(tmp_path / "sink")), says=str(tmp_path / "sink"))


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sink").write_text(TOKEN)
    (tmp_path / "sink").chmod(0o666)
    with Scripted() as server:
        failure(AccessDenied, server.backend(TokenFile(tmp_path / "sink")), says="mounted")
        assert server.requests == []


# --- AppRole


def test_an_app_role_logs_in_when_it_is_first_needed_and_once(corner: Corner, kv: str, policy: str) -> None:
    role = corner.role(policy)
    backend = corner.backend(role.login)
    assert corner.came(f"auth/{role.mount}/login") == 0
    for _ in range(3):
        assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET
    assert corner.came(f"auth/{role.mount}/login") == 1


def test_an_app_role_reads_its_secret_id_anew_at_each_login(corner: Corner, kv: str, policy: str) -> None:
    role = corner.role(policy)
    backend = corner.backend(role.login)
    read(backend, f"vault://{kv}/pos")
    corner.api("POST", f"auth/{role.mount}/role/pos/secret-id/destroy", {"secret_id": role.file.read_text()})
    corner.write(role.file, corner.secret_id(role))
    _end_all_tokens(corner, role)
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET
    assert corner.came(f"auth/{role.mount}/login") == 2


def test_a_wrong_secret_id_is_denied_and_the_hint_names_the_causes(corner: Corner, kv: str) -> None:
    role = corner.role("default")
    corner.write(role.file, SECRET_ID)
    error = failure(AccessDenied, corner.backend(role.login), f"vault://{kv}/pos", hint="used up")
    assert error.status == 400
    assert f"auth/{role.mount}" in error.message
    assert corner.came(f"auth/{role.mount}/login") == 1


def test_a_wrong_role_id_is_denied(corner: Corner, kv: str) -> None:
    role = corner.role("default")
    backend = corner.backend(AppRole("00000000-not-a-role", f"file://{role.file}", mount=role.mount))
    failure(AccessDenied, backend, f"vault://{kv}/pos", hint="role ID")


def test_a_login_that_is_not_mounted_is_denied_and_says_so(corner: Corner, kv: str) -> None:
    role = corner.role("default")
    backend = corner.backend(AppRole(role.role_id, f"file://{role.file}", mount="nowhere"))
    failure(AccessDenied, backend, f"vault://{kv}/pos", hint="no AppRole login is mounted there")


def test_a_login_in_a_namespace_that_there_is_not_says_so(corner: Corner, kv: str) -> None:
    role = corner.role("default")
    backend = corner.backend(role.login, auth_namespace="nobodys")
    failure(AccessDenied, backend, f"vault://{kv}/pos", hint="no such namespace")


def test_a_secret_id_file_that_is_missing_is_an_error_of_that_file(corner: Corner, kv: str) -> None:
    role = corner.role("default")
    role.file.unlink()
    failure(SecretNotFound, corner.backend(role.login), f"vault://{kv}/pos", says=str(role.file))
    assert corner.came(f"auth/{role.mount}/login") == 0


# --- AppRole with a wrapped secret ID


@pytest.fixture
def role(corner: Corner, policy: str) -> Role:
    return corner.role(policy)


def wrapped(role: Role) -> AppRole:
    return AppRole(role.role_id, f"file://{role.file}", mount=role.mount, wrapped=True)


def test_a_wrapped_secret_id_is_unwrapped_once_and_serves_further_logins(corner: Corner, kv: str, role: Role) -> None:
    corner.write(role.file, corner.wrapped(f"auth/{role.mount}/role/pos/secret-id"))
    backend = corner.backend(wrapped(role))
    read(backend, f"vault://{kv}/pos")
    _end_all_tokens(corner, role)
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET
    assert corner.came("sys/wrapping/unwrap") == 1
    assert corner.came(f"auth/{role.mount}/login") == 2


def test_a_new_wrapping_token_is_taken_at_the_next_login(corner: Corner, kv: str, role: Role) -> None:
    backend = corner.backend(wrapped(role))
    for _ in range(2):
        corner.write(role.file, corner.wrapped(f"auth/{role.mount}/role/pos/secret-id"))
        assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET
        _end_all_tokens(corner, role)
    assert corner.came("sys/wrapping/unwrap") == 2


def test_a_used_wrapping_token_raises_the_alarm(corner: Corner, kv: str, role: Role) -> None:
    token = corner.wrapped(f"auth/{role.mount}/role/pos/secret-id")
    corner.secrets.append(corner.api("PUT", "sys/wrapping/unwrap", token=token)["data"]["secret_id"])
    corner.write(role.file, token)
    error = failure(AccessDenied, corner.backend(wrapped(role)), f"vault://{kv}/pos", hint="somebody else did")
    assert error.status == 400
    assert corner.came(f"auth/{role.mount}/login") == 0


def test_an_ended_wrapping_token_is_denied(corner: Corner, kv: str, role: Role) -> None:
    corner.write(role.file, corner.wrapped(f"auth/{role.mount}/role/pos/secret-id", ttl="1s"))
    time.sleep(1.6)
    failure(AccessDenied, corner.backend(wrapped(role)), f"vault://{kv}/pos", hint="has ended")


def test_what_was_wrapped_by_another_mount_is_not_unwrapped(corner: Corner, kv: str, role: Role) -> None:
    other = corner.auth("approle", f"{corner.name}-other")
    corner.set_role(other)
    corner.write(role.file, corner.wrapped(f"auth/{other}/role/pos/secret-id"))
    backend = corner.backend(wrapped(role))
    failure(AccessDenied, backend, f"vault://{kv}/pos", says=f"auth/{role.mount}/role/NAME", hint="exchanged it")
    assert corner.came("sys/wrapping/unwrap") == 0
    assert corner.came(f"auth/{role.mount}/login") == 0


def test_what_anybody_wrapped_is_not_unwrapped(corner: Corner, kv: str, role: Role) -> None:
    corner.write(role.file, corner.wrapped("sys/wrapping/wrap", {"secret_id": SECRET_ID}))
    failure(AccessDenied, corner.backend(wrapped(role)), f"vault://{kv}/pos", hint="exchanged it")
    assert corner.came("sys/wrapping/unwrap") == 0


def test_text_that_is_no_wrapping_token_is_denied(corner: Corner, kv: str, role: Role) -> None:
    corner.write(role.file, corner.secret_id(role))
    failure(AccessDenied, corner.backend(wrapped(role)), f"vault://{kv}/pos", hint="or is none")


@pytest.mark.parametrize(
    "path",
    [
        "auth/approle/role/pos/role-id",
        "auth/approle/role/a/b/secret-id",
        "auth/approle2/role/pos/secret-id",
        "auth/approle/login",
        "auth/approle/role/pos/secret-id/destroy",
        "sys/auth/approle/role/pos/secret-id",
    ],
)
def test_a_creation_path_of_another_kind_is_refused(path: str) -> None:
    lookup = answer({"data": {"creation_path": path, "creation_ttl": 60}})
    with Scripted({"/v1/sys/wrapping/lookup": lookup}) as server:
        backend = server.backend(AppRole("role", "given:id", wrapped=True), stores={"given": Given(SECRET_ID)})
        failure(AccessDenied, backend, hint="exchanged it")
        assert server.came() == 1


def test_an_answer_about_a_wrapping_token_without_a_path_is_malformed() -> None:
    with Scripted({"/v1/sys/wrapping/lookup": answer({"data": {}})}) as server:
        backend = server.backend(AppRole("role", "given:id", wrapped=True), stores={"given": Given(SECRET_ID)})
        failure(MalformedSecret, backend, hint="Is it Vault")


# --- Kubernetes


class TokenReview:
    """As much of a Kubernetes API server as a login needs: it says of each JWT whose it is, or that it is nobody's."""

    def __init__(self) -> None:
        self.good: set[str] = set()
        self.account = ("prod", "pos")
        self.audiences = ["https://kubernetes.default.svc"]
        self.server = LoopbackServer(self._answer)

    def _answer(self, incoming: Incoming) -> Answer:
        assert incoming.path == "/apis/authentication.k8s.io/v1/tokenreviews"
        asked = json.loads(incoming.body)
        namespace, name = self.account
        status: dict[str, Any] = {"authenticated": False}
        if asked["spec"]["token"] in self.good:
            user = {"username": f"system:serviceaccount:{namespace}:{name}", "uid": "8d1f", "groups": []}
            status = {"authenticated": True, "user": user, "audiences": self.audiences}
        return answer({**asked, "status": status}, 201)


@pytest.fixture
def cluster() -> Iterator[TokenReview]:
    review = TokenReview()
    with review.server:
        yield review


def service_account(signer: Signer, **claims: Any) -> str:
    about = {
        "namespace": "prod",
        "serviceaccount": {"name": "pos", "uid": "8d1f"},
        "pod": {"name": "pos-0", "uid": "91ab"},
    }
    sub = "system:serviceaccount:prod:pos"
    return signer.jwt(iss="https://kubernetes.default.svc", sub=sub, **{"kubernetes.io": about, **claims})


@pytest.fixture
def kubernetes(corner: Corner, cluster: TokenReview, policy: str) -> str:
    mount = corner.auth("kubernetes")
    authority = trustme.CA().cert_pem.bytes().decode()  # it must be there, and is not used for http
    corner.api(
        "POST",
        f"auth/{mount}/config",
        {"kubernetes_host": cluster.server.origin, "disable_local_ca_jwt": True, "kubernetes_ca_cert": authority},
    )
    role = {
        "bound_service_account_names": ["pos"],
        "bound_service_account_namespaces": ["prod"],
        "token_policies": [policy],
    }
    corner.api("POST", f"auth/{mount}/role/pos", role)
    return mount


def test_a_pod_logs_in_by_its_service_account(corner: Corner, kv: str, cluster: TokenReview, kubernetes: str) -> None:
    jwt = service_account(Signer())
    cluster.good.add(jwt)
    file = corner.write(corner.folder / "jwt", jwt)
    backend = corner.backend(Kubernetes("pos", mount=kubernetes, jwt=str(file)))
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET


def test_a_service_account_token_that_was_replaced_is_read_at_the_next_login(
    corner: Corner, kv: str, cluster: TokenReview, kubernetes: str
) -> None:
    signer, file = Signer(), corner.folder / "jwt"
    backend = corner.backend(Kubernetes("pos", mount=kubernetes, jwt=file))
    for number in range(2):
        jwt = service_account(signer, number=number)
        cluster.good = {jwt}  # the one before is refused from now on
        corner.write(file, jwt)
        assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET
        _end_all_tokens(corner, kubernetes)


@pytest.mark.parametrize(("role", "known"), [("pos", False), ("other", True)])
def test_a_pod_that_is_not_bound_to_the_role_is_denied(
    corner: Corner, kv: str, cluster: TokenReview, kubernetes: str, role: str, known: bool
) -> None:
    jwt = service_account(Signer())
    cluster.good = {jwt} if known else set()
    backend = corner.backend(Kubernetes(role, mount=kubernetes, jwt=corner.write(corner.folder / "jwt", jwt)))
    failure(AccessDenied, backend, f"vault://{kv}/pos", hint="service account", says=repr(role))


def test_without_a_service_account_the_file_is_named() -> None:
    if os.path.exists("/var/run/secrets/kubernetes.io"):
        pytest.skip("this machine is a pod")
    with Scripted() as server:
        failure(SecretNotFound, server.backend(Kubernetes("pos")), says="kubernetes.io/serviceaccount/token")


# --- JWT


@pytest.fixture
def signer() -> Signer:
    return Signer()


@pytest.fixture
def jwt_mount(corner: Corner, signer: Signer, policy: str) -> str:
    mount = corner.auth("jwt")
    corner.api("POST", f"auth/{mount}/config", {"jwt_validation_pubkeys": [signer.public_key]})
    role = {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": ["vault"],
        "bound_claims": {"project": "pos"},
        "token_policies": [policy],
    }
    corner.api("POST", f"auth/{mount}/role/pos", role)
    return mount


GOOD: dict[str, Any] = {"sub": "pipeline", "aud": "vault", "project": "pos"}


def test_a_jwt_logs_in(corner: Corner, kv: str, signer: Signer, jwt_mount: str) -> None:
    backend = corner.backend(Jwt("pos", corner.kept(signer.jwt(**GOOD), "jwt"), mount=jwt_mount))
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET


def test_a_jwt_that_was_replaced_on_disk_is_read_at_the_next_login(
    corner: Corner, kv: str, signer: Signer, jwt_mount: str
) -> None:
    file = corner.write(corner.folder / "jwt", signer.jwt(**GOOD))
    backend = corner.backend(Jwt("pos", str(file), mount=jwt_mount))
    read(backend, f"vault://{kv}/pos")
    corner.write(file, signer.jwt(life=-900, **GOOD))
    _end_all_tokens(corner, jwt_mount)
    failure(AccessDenied, backend, f"vault://{kv}/pos", hint="Has the JWT ended")
    corner.write(file, signer.jwt(**GOOD) + "\n")
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET


@pytest.mark.parametrize(
    ("life", "claims"), [(-900, {}), (600, {"aud": "elsewhere"}), (600, {"project": "stock"})], ids=str
)
def test_a_jwt_that_has_ended_or_is_for_others_is_denied(
    corner: Corner, kv: str, signer: Signer, jwt_mount: str, life: float, claims: dict[str, Any]
) -> None:
    jwt = signer.jwt(life=life, **{**GOOD, **claims})
    backend = corner.backend(Jwt("pos", corner.kept(jwt, "jwt"), mount=jwt_mount))
    error = failure(AccessDenied, backend, f"vault://{kv}/pos", hint="audience", says="'pos'")
    assert error.status == 400


def test_a_jwt_by_somebody_else_is_denied(corner: Corner, kv: str, jwt_mount: str) -> None:
    backend = corner.backend(Jwt("pos", corner.kept(Signer().jwt(**GOOD), "jwt"), mount=jwt_mount))
    failure(AccessDenied, backend, f"vault://{kv}/pos", hint="issuer")


# --- a certificate


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def cert_mount(corner: Corner, authority: trustme.CA, policy: str) -> str:
    mount = corner.auth("cert")
    body = {"certificate": authority.cert_pem.bytes().decode(), "token_policies": [policy], "token_ttl": "1h"}
    corner.api("POST", f"auth/{mount}/certs/pos", body)
    return mount


def certificate(folder: Path, authority: trustme.CA, **times: Any) -> tuple[str, str]:
    made = authority.issue_cert("pos.test", common_name="pos", **times)
    file, key = folder / "client.pem", folder / "client.key"
    for path, blob in ((file, made.cert_chain_pems[0]), (key, made.private_key_pem)):
        path.unlink(missing_ok=True)
        path.touch(0o600)
        blob.write_to_path(path)
    return str(file), str(key)


def by_certificate(corner: Corner, mount: str, files: tuple[str, str], name: str | None = "pos") -> VaultBackend:
    server = corner.server
    return corner.backend(
        Certificate(name, mount=mount), address=server.tls_address, ca_file=server.ca_file, client_cert=files
    )


@pytest.mark.parametrize("name", ["pos", None])
def test_a_certificate_logs_in(
    corner: Corner, kv: str, authority: trustme.CA, cert_mount: str, name: str | None
) -> None:
    backend = by_certificate(corner, cert_mount, certificate(corner.folder, authority), name)
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET


def test_a_certificate_of_another_authority_is_denied(corner: Corner, kv: str, cert_mount: str) -> None:
    backend = by_certificate(corner, cert_mount, certificate(corner.folder, trustme.CA()))
    failure(AccessDenied, backend, f"vault://{kv}/pos", hint="authority that the role trusts")


def test_a_certificate_that_is_renewed_on_disk_is_used_at_the_next_login(
    corner: Corner, kv: str, authority: trustme.CA, cert_mount: str
) -> None:
    backend = by_certificate(corner, cert_mount, certificate(corner.folder, trustme.CA()))
    failure(AccessDenied, backend, f"vault://{kv}/pos")
    certificate(corner.folder, authority)
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET


def test_a_login_with_a_certificate_needs_one() -> None:
    failed(
        ConfigurationError,
        lambda: VaultBackend("https://vault.test", auth=Certificate("pos")),
        says="client_cert=",
    )


def test_a_certificate_that_cannot_be_read_is_an_error_that_names_it(corner: Corner, kv: str, cert_mount: str) -> None:
    missing = str(corner.folder / "none.pem")
    failure(
        ConfigurationError, by_certificate(corner, cert_mount, (missing, missing)), f"vault://{kv}/pos", says=missing
    )


# --- an AWS role

AWS_KEY, AWS_SECRET, AWS_SESSION = "AKIDTESTING", "not-a-real-secret-aws-key", "not-a-real-secret-aws-session"
AWS_LOGIN = "/v1/auth/aws/login"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No AWS credentials anywhere, and nobody is asked for some beyond this machine."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@pytest.fixture
def aws_credentials(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    SECRETS.extend([AWS_SECRET, AWS_SESSION])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", AWS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", AWS_SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", AWS_SESSION)


@pytest.mark.usefixtures("aws_credentials")
@pytest.mark.parametrize(
    ("region", "host", "scope"),
    [(None, "sts.amazonaws.com", "us-east-1"), ("eu-west-1", "sts.eu-west-1.amazonaws.com", "eu-west-1")],
)
def test_an_aws_role_logs_in_by_a_signed_request(region: str | None, host: str, scope: str) -> None:
    with Scripted({AWS_LOGIN: login()}) as server:
        backend = server.backend(AwsIam("pos", server_id="vault.test", region=region))
        assert secret_in(backend) == CLIENT_SECRET
        sent = json.loads(next(one for one in server.requests if one.path == AWS_LOGIN).body)
    assert (sent["role"], sent["iam_http_request_method"]) == ("pos", "POST")
    assert base64.b64decode(sent["iam_request_url"]).decode() == f"https://{host}/"
    assert base64.b64decode(sent["iam_request_body"]) == b"Action=GetCallerIdentity&Version=2011-06-15"
    headers = {name.lower(): value for name, value in json.loads(base64.b64decode(sent["iam_request_headers"])).items()}
    assert headers["x-vault-aws-iam-server-id"] == ["vault.test"]
    assert headers["x-amz-security-token"] == [AWS_SESSION]
    (authorization,) = headers["authorization"]
    assert f"Credential={AWS_KEY}/" in authorization
    assert f"/{scope}/sts/aws4_request" in authorization
    assert "x-vault-aws-iam-server-id" in authorization.partition("SignedHeaders=")[2]
    assert AWS_SECRET not in json.dumps(sent)


@pytest.mark.usefixtures("aws")
def test_without_aws_credentials_the_error_says_what_to_give() -> None:
    with Scripted() as server:
        failure(ConfigurationError, server.backend(AwsIam("pos")), says="there are none", hint="Give the machine")
        assert server.requests == []


@pytest.mark.usefixtures("aws_credentials")
def test_an_aws_role_that_is_refused_is_denied() -> None:
    with Scripted({AWS_LOGIN: errors(400, "entry for role pos not found")}) as server:
        failure(AccessDenied, server.backend(AwsIam("pos")), hint="server_id= and region=")


# --- an agent, a client


def test_an_agent_adds_the_token_and_sees_that_no_browser_asks() -> None:
    def agent(incoming: Incoming) -> Answer:
        if incoming.headers.get("x-vault-request") != "true":
            return errors(412, "missing 'X-Vault-Request' header")
        return errors(400, "token given") if "x-vault-token" in incoming.headers else secret()

    with Scripted({DATA: agent}) as server:
        assert secret_in(server.backend(ViaAgent())) == CLIENT_SECRET
        assert server.came() == 1


def test_a_refusal_through_an_agent_is_denied_after_one_request() -> None:
    with Scripted({DATA: errors(403, "permission denied")}) as server:
        failure(AccessDenied, server.backend(ViaAgent()))
        assert server.came(DATA) == 1


class Client:
    """An hvac.Client of the program's own, closed at the end; the backend must not do that."""

    def __init__(self, **arguments: Any) -> None:
        import hvac

        self.client = hvac.Client(**arguments)
        self.closed = False
        session = self.client.session
        close = session.close

        def closed() -> None:
            self.closed = True
            close()

        session.close = closed


def test_a_client_of_the_program_gives_address_and_token_and_is_left_open(corner: Corner, kv: str, policy: str) -> None:
    own = Client(url=corner.server.address, token=corner.token(policy))
    backend = VaultBackend(client=own.client)
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET
    assert not own.closed
    own.client.token = corner.token(policy)  # it logged in anew
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET
    own.client.token = None
    failure(AccessDenied, backend, f"vault://{kv}/pos")
    own.client.session.close()


def test_the_authorities_of_a_client_are_used(corner: Corner, kv: str, policy: str) -> None:
    server, token = corner.server, corner.token(policy)
    trusting = Client(url=server.tls_address, token=token, verify=str(server.ca_file))
    assert secret_in(VaultBackend(client=trusting.client), f"vault://{kv}/pos") == CLIENT_SECRET
    plain = Client(url=server.tls_address, token=token)
    failure(BackendUnavailable, VaultBackend(client=plain.client), f"vault://{kv}/pos", says="not trusted")
    for one in (trusting, plain):
        one.client.session.close()


def test_a_client_that_verifies_nothing_is_refused(corner: Corner) -> None:
    own = Client(url=corner.server.tls_address, token="", verify=False)
    failed(ConfigurationError, lambda: VaultBackend(client=own.client), says="does not verify")
    own.client.session.close()


@pytest.mark.parametrize("beside", [{"address": "https://vault.test"}, {"auth": ViaAgent()}])
def test_a_client_is_not_given_beside_an_address_or_a_login(beside: dict[str, Any]) -> None:
    own = Client(url="https://vault.test", token="")
    failed(ConfigurationError, lambda: VaultBackend(client=own.client, **beside), hint="Leave")
    own.client.session.close()


def test_what_is_no_client_is_refused() -> None:
    failed(ConfigurationError, lambda: VaultBackend(client=object()), says="not object")


@pytest.mark.parametrize(
    ("make", "rest"),
    [
        (lambda mount: AppRole("role", "given:x", mount=mount), "login"),
        (lambda mount: Jwt("role", "given:x", mount=mount), "login"),
        (lambda mount: Kubernetes("role", mount=mount, jwt="given:x"), "login"),
    ],
    ids=["approle", "jwt", "kubernetes"],
)
@pytest.mark.parametrize("mount", ["team/a", "/team/a/"])
def test_a_login_may_be_mounted_below_others(make: Any, rest: str, mount: str) -> None:
    with Scripted({f"/v1/auth/team/a/{rest}": login()}) as server:
        backend = server.backend(make(mount), stores={"given": Given(SECRET_ID)})
        assert secret_in(backend) == CLIENT_SECRET


# --- what is given wrongly


@pytest.mark.parametrize(
    ("auth", "says"),
    [
        (None, "no login"),
        (TOKEN, "a str, which is no login"),
        (AppRole, "which is no login"),
    ],
)
def test_what_is_no_login_is_refused_at_once(auth: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        VaultBackend("https://vault.test", auth=auth)
    assert TOKEN not in f"{caught.value} {caught.value!r} {vars(caught.value)}"


@pytest.mark.parametrize(
    "make",
    [
        lambda: AppRole("", "env:#ID"),
        lambda: AppRole("role", SECRET_ID),
        lambda: AppRole("role", "env:#ID", mount="../x"),
        lambda: AppRole("role", "env:#ID", mount=""),
        lambda: Kubernetes(""),
        lambda: Jwt("role", "eyJhbGciOi.not-a-real-secret-jwt.x"),
        lambda: TokenFile(""),
        lambda: StaticToken("hvs.not-a-real-secret-vault-token"),
        lambda: Certificate(""),
    ],
)
def test_a_login_with_something_wrong_in_it_is_refused_when_it_is_made(make: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert "not-a-real-secret" not in f"{caught.value} {caught.value!r} {vars(caught.value)}"


def test_every_login_has_a_name_and_shows_nothing() -> None:
    given: dict[str, tuple[Any, ...]] = {
        "token": ("env:#T",),
        "token_file": ("/run/token",),
        "approle": ("role", "env:#ID"),
        "kubernetes": ("role",),
        "jwt": ("role", "env:#JWT"),
        "aws": ("role",),
        "certificate": (),
        "agent": (),
    }
    assert set(given) == set(LOGINS)
    for name, kind in LOGINS.items():
        made: Any = kind
        assert repr(made(*given[name])) == f"<{kind.__name__}>"


@pytest.mark.parametrize("body", [{}, {"auth": None}, {"auth": {}}, {"auth": {"client_token": ""}}, {"auth": []}])
def test_a_login_that_is_answered_without_a_token_is_malformed(body: dict[str, Any]) -> None:
    with Scripted({LOGIN: answer(body)}) as server:
        backend = server.backend(AppRole("role", "given:id"), stores={"given": Given(SECRET_ID)})
        error = failure(MalformedSecret, backend, hint="Is it Vault")
        assert (error.status, server.came()) == (200, 1)


@pytest.mark.parametrize("token", ["with a blank", "line\nend", "⋯"])
def test_a_login_that_gives_what_is_no_token_is_malformed(token: str) -> None:
    SECRETS.append(token)
    with Scripted({LOGIN: login(token)}) as server:
        backend = server.backend(AppRole("role", "given:id"), stores={"given": Given(SECRET_ID)})
        failure(MalformedSecret, backend)
        assert server.came(DATA) == 0


def _end_all_tokens(corner: Corner, of: Role | str) -> None:
    """Every token that was had by this login is dead now."""
    mount = of.mount if isinstance(of, Role) else of
    corner.api("PUT", f"sys/leases/revoke-prefix/auth/{mount}/login")
