"""Vault: what is read from a real server, and how each mistake in a reference is told."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from secretsource import SecretReference
from secretsource.backends.vault import StaticToken
from secretsource.credentials import interpret
from secretsource.errors import AccessDenied, ConfigurationError, MalformedSecret, SecretNotFound

from .openbao import Corner, OpenBao
from .vaults import CLIENT_SECRET, SECRETS, Scripted, by_token, failed, failure, read, secret_in

OLD = "not-a-real-secret-of-before"


def reader(corner: Corner, *paths: str) -> str:
    """A token that may read these paths and nothing else."""
    return corner.token(corner.policy(*paths), no_default_policy=True)


# --- KV version 2


def test_a_secret_is_read_with_its_version_and_when_it_was_written(corner: Corner) -> None:
    kv, before = corner.kv(), datetime.now(UTC)
    corner.secret(kv, "prod/pos", OLD)
    corner.secret(kv, "prod/pos", CLIENT_SECRET)
    document = read(corner.by_token(reader(corner, f"{kv}/data/prod/pos")), f"vault://{kv}/prod/pos")
    assert document.version == "2"
    assert document.valid_for is None
    assert abs((document.created - before).total_seconds()) < 60
    meaning = interpret(document, SecretReference.parse(f"vault://{kv}/prod/pos"))
    assert meaning.credentials.client_secret.reveal() == CLIENT_SECRET


def test_one_read_is_one_request(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "prod/pos", CLIENT_SECRET)
    backend, before = corner.by_token(reader(corner, f"{kv}/data/prod/pos")), corner.came(f"{kv}/data/prod/pos")
    read(backend, f"vault://{kv}/prod/pos")
    assert corner.came(f"{kv}/data/prod/pos") - before == 1


def test_a_pinned_version_is_read_and_stays(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", OLD)
    corner.secret(kv, "pos", CLIENT_SECRET)
    backend = corner.by_token(reader(corner, f"{kv}/data/pos"))
    assert secret_in(backend, f"vault://{kv}/pos?version=1") == OLD
    assert read(backend, f"vault://{kv}/pos?version=1").version == "1"


def test_a_mount_with_slashes_is_given_by_an_option(corner: Corner) -> None:
    kv = corner.kv(f"{corner.name}/team/a")
    corner.secret(kv, "prod/pos", CLIENT_SECRET)
    backend = corner.by_token(reader(corner, f"{kv}/data/prod/pos"))
    assert secret_in(backend, f"vault://prod/pos?mount={kv}") == CLIENT_SECRET


@pytest.mark.parametrize(
    "name", ["a b", "50%", "café", "what?", "a#b", "a+b", "a&b=c", "%2e%2e", "...", ".hidden", "a:b@c", "日本", "a;b,c"]
)
def test_odd_names_are_read_back(corner: Corner, name: str) -> None:
    kv = corner.kv()
    reference = SecretReference("vault", (kv, "prod", name))
    backend = corner.by_token(corner.server.root)
    backend.write_whole(reference, {"client_id": "pos", "client_secret": CLIENT_SECRET}, version=None, timeout=10)
    assert secret_in(backend, str(reference)) == CLIENT_SECRET
    listed = corner.api("LIST", f"{kv}/metadata/prod")["data"]["keys"]
    assert listed == [name]


def test_fields_of_any_name_and_depth_can_be_meant(corner: Corner) -> None:
    kv = corner.kv()
    corner.put(f"{kv}/data/pos", {"data": {"oauth": {"app id": "pos", "key": CLIENT_SECRET}, "port": 443}})
    reference = SecretReference.parse(f"vault://{kv}/pos#id=/oauth/app%20id,secret=/oauth/key")
    document = read(corner.by_token(reader(corner, f"{kv}/data/pos")), str(reference))
    assert interpret(document, reference).credentials.client_secret.reveal() == CLIENT_SECRET


def test_a_version_changes_with_what_is_kept(corner: Corner) -> None:
    kv = corner.kv()
    backend = corner.by_token(reader(corner, f"{kv}/data/pos"))
    versions = []
    for secret in (OLD, CLIENT_SECRET):
        corner.secret(kv, "pos", secret)
        versions.append(read(backend, f"vault://{kv}/pos").version)
    assert versions == ["1", "2"]


# --- three ways of not being there


def test_what_never_existed_is_not_found(corner: Corner) -> None:
    kv = corner.kv()
    backend = corner.by_token(reader(corner, f"{kv}/data/nothing"))
    error = failure(SecretNotFound, backend, f"vault://{kv}/nothing", hint=f"vault kv get -mount={kv} nothing")
    assert (error.status, error.store, error.reference) == (404, "vault", f"vault://{kv}/nothing")


def test_what_was_deleted_says_when_and_how_to_get_it_back(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", CLIENT_SECRET)
    corner.api("DELETE", f"{kv}/data/pos")
    error = failure(SecretNotFound, corner.by_token(reader(corner, f"{kv}/data/pos")), f"vault://{kv}/pos")
    assert f"deleted: version 1 on {datetime.now(UTC):%Y-}" in error.message
    assert "undelete" in str(error.hint)
    assert error.status == 404
    assert error.request_id


def test_what_was_destroyed_says_so(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", CLIENT_SECRET)
    corner.api("PUT", f"{kv}/destroy/pos", {"versions": [1]})
    backend = corner.by_token(reader(corner, f"{kv}/data/pos"))
    error = failure(SecretNotFound, backend, f"vault://{kv}/pos", says="destroyed: version 1", hint="anew")
    assert "undelete" not in str(error)


def test_a_version_that_never_was_is_not_found(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", CLIENT_SECRET)
    backend = corner.by_token(reader(corner, f"{kv}/data/pos"))
    failure(SecretNotFound, backend, f"vault://{kv}/pos?version=7", hint="no such version")


# --- the mistakes of the first hour


def test_a_mount_of_version_1_says_kv_1(corner: Corner) -> None:
    kv = corner.kv1()
    corner.api("POST", f"{kv}/pos", {"client_id": "pos", "client_secret": CLIENT_SECRET})
    backend = corner.by_token(reader(corner, f"{kv}/data/pos", f"{kv}/pos"))
    failure(SecretNotFound, backend, f"vault://{kv}/pos", hint=f"{kv!r} is KV version 1: add ?kv=1")


def test_a_mount_of_version_2_read_as_1_says_to_leave_that_out(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", CLIENT_SECRET)
    backend = corner.by_token(reader(corner, f"{kv}/data/pos", f"{kv}/pos"))
    failure(SecretNotFound, backend, f"vault://{kv}/pos?kv=1", hint="leave kv=1 out")


@pytest.mark.parametrize("mount", ["kv", "my-data"])
def test_a_stray_data_shows_the_reference_without_it(corner: Corner, mount: str) -> None:
    kv = corner.kv(f"{corner.name}-{mount}")
    corner.secret(kv, "prod/pos", CLIENT_SECRET)
    backend = corner.by_token(reader(corner, f"{kv}/data/*"))
    failure(SecretNotFound, backend, f"vault://{kv}/data/prod/pos", hint=f"vault://{kv}/prod/pos")


def test_a_stray_data_below_a_mount_with_slashes_keeps_the_option(corner: Corner) -> None:
    kv = corner.kv(f"{corner.name}/a")
    corner.secret(kv, "prod/pos", CLIENT_SECRET)
    backend = corner.by_token(reader(corner, f"{kv}/data/*"))
    failure(SecretNotFound, backend, f"vault://data/prod/pos?mount={kv}", hint=f"vault://prod/pos?mount={kv}")


def test_a_mount_with_slashes_shows_the_option(corner: Corner) -> None:
    kv = corner.kv(f"{corner.name}/team/a")
    corner.secret(kv, "prod/pos", CLIENT_SECRET)
    backend = corner.by_token(corner.token(corner.policy(f"{corner.name}/*")))
    failure(SecretNotFound, backend, f"vault://{kv}/prod/pos", hint=f"vault://prod/pos?mount={kv}")


def test_a_mount_that_there_is_not_is_denied_and_says_both(corner: Corner) -> None:
    """Vault answers 403 for a path below no mount to whoever has no policy for it."""
    backend = corner.by_token(reader(corner, "elsewhere/data/pos"))
    error = failure(AccessDenied, backend, f"vault://{corner.name}-none/pos", hint=f"no mount '{corner.name}-none'")
    assert f"{corner.name}-none/data/pos" in str(error.hint)


def test_a_mount_that_there_is_not_is_not_found_with_a_policy_for_it(corner: Corner) -> None:
    backend = corner.by_token(reader(corner, f"{corner.name}-none/*"))
    failure(SecretNotFound, backend, f"vault://{corner.name}-none/pos", hint=f"no mount '{corner.name}-none'")


def test_another_engine_says_raw(corner: Corner) -> None:
    mount = corner.mount("transit")
    backend = corner.by_token(corner.token(corner.policy(f"{mount}/*")))
    failure(SecretNotFound, backend, f"vault://{mount}/keys/pos", hint="type 'transit': add ?kv=raw")


def test_a_policy_that_is_missing_names_the_path_and_says_that_the_token_is_good(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "prod/pos", CLIENT_SECRET)
    backend = corner.by_token(reader(corner, f"{kv}/data/other"))
    error = failure(AccessDenied, backend, f"vault://{kv}/prod/pos", hint=f"read on the path {kv}/data/prod/pos")
    assert "The token itself is good" in str(error.hint)
    assert (error.status, error.retryable) == (403, False)


def test_a_token_that_was_revoked_says_that_it_has_ended(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "prod/pos", CLIENT_SECRET)
    token = reader(corner, f"{kv}/data/prod/pos")
    corner.api("POST", "auth/token/revoke", {"token": token})
    backend = corner.by_token(token)
    error = failure(AccessDenied, backend, f"vault://{kv}/prod/pos", hint="has ended or was revoked")
    assert "is good" not in str(error.hint)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("vault://kv", "nothing in it"),
        ("vault://kv/pos?kv=3", "unknown engine"),
        ("vault://kv/pos?version=0", "no number above 0"),
        ("vault://kv/pos?version=-1", "no number above 0"),
        ("vault://kv/pos?version=seven", "no number above 0"),
        ("vault://kv/pos?version=1&kv=1", "only KV version 2 keeps"),
        ("vault://kv/pos?version=1&kv=raw", "only KV version 2 keeps"),
        ("vault://pos?mount=/", "no path of a mount"),
    ],
)
def test_a_reference_that_means_nothing_is_refused_and_nothing_is_asked(reference: str, says: str) -> None:
    with Scripted() as server:
        failure(ConfigurationError, by_token(server), reference, says=says)
        assert server.requests == []


# --- KV version 1, auto, raw


def test_version_1_is_read_and_has_a_version_by_its_content(corner: Corner) -> None:
    kv = corner.kv1()
    backend = corner.by_token(reader(corner, f"{kv}/prod/pos"))
    versions = []
    for secret in (OLD, CLIENT_SECRET, CLIENT_SECRET):
        corner.api("POST", f"{kv}/prod/pos", {"client_id": "pos", "client_secret": secret})
        assert secret_in(backend, f"vault://{kv}/prod/pos?kv=1") == secret
        versions.append(read(backend, f"vault://{kv}/prod/pos?kv=1").version)
    assert versions[0] != versions[1] == versions[2]


def test_the_lease_of_version_1_is_no_lease(corner: Corner) -> None:
    kv = corner.kv1()
    corner.api("POST", f"{kv}/pos", {"client_id": "pos", "client_secret": CLIENT_SECRET, "ttl": "3s"})
    assert read(corner.by_token(reader(corner, f"{kv}/pos")), f"vault://{kv}/pos?kv=1").valid_for is None


@pytest.mark.parametrize("version", ["1", "2"])
def test_auto_finds_the_version_and_asks_once(corner: Corner, version: str) -> None:
    kv = corner.kv() if version == "2" else corner.kv1()
    fields = {"client_id": "pos", "client_secret": CLIENT_SECRET}
    corner.put(f"{kv}/data/pos" if version == "2" else f"{kv}/pos", {"data": fields} if version == "2" else fields)
    backend = corner.by_token(reader(corner, f"{kv}/data/pos", f"{kv}/pos"))
    for _ in range(3):
        assert secret_in(backend, f"vault://{kv}/pos?kv=auto") == CLIENT_SECRET
    assert corner.came("sys/internal/ui/mounts") == 1


def test_auto_finds_out_that_a_mount_has_got_versions(corner: Corner) -> None:
    kv = corner.kv1()
    corner.api("POST", f"{kv}/pos", {"client_id": "pos", "client_secret": CLIENT_SECRET})
    backend = corner.by_token(reader(corner, f"{kv}/data/pos", f"{kv}/pos"))
    read(backend, f"vault://{kv}/pos?kv=auto")
    corner.api("POST", f"sys/mounts/{kv}/tune", {"options": {"version": "2"}})
    corner.put(f"{kv}/data/ready", {"data": {}})
    assert secret_in(backend, f"vault://{kv}/pos?kv=auto") == CLIENT_SECRET


def test_auto_finds_a_mount_with_slashes(corner: Corner) -> None:
    kv = corner.kv(f"{corner.name}/team/a")
    corner.secret(kv, "prod/pos", CLIENT_SECRET)
    backend = corner.by_token(reader(corner, f"{kv}/data/prod/pos"))
    assert secret_in(backend, f"vault://{kv}/prod/pos?kv=auto") == CLIENT_SECRET


def test_auto_reads_a_pinned_version(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", OLD)
    corner.secret(kv, "pos", CLIENT_SECRET)
    backend = corner.by_token(reader(corner, f"{kv}/data/pos"))
    assert secret_in(backend, f"vault://{kv}/pos?kv=auto&version=1") == OLD


def test_auto_says_raw_for_another_engine(corner: Corner) -> None:
    mount = corner.mount("transit")
    backend = corner.by_token(corner.token(corner.policy(f"{mount}/*")))
    failure(ConfigurationError, backend, f"vault://{mount}/keys/pos?kv=auto", hint="kv=raw")


def test_auto_that_is_refused_says_what_the_policy_needs(corner: Corner) -> None:
    kv = corner.kv()
    backend = corner.by_token(reader(corner, "elsewhere/data/pos"))
    failure(AccessDenied, backend, f"vault://{kv}/pos?kv=auto", hint=f"no mount {kv!r}")


def test_raw_reads_what_an_engine_makes_with_its_ttl(corner: Corner) -> None:
    """OpenBao's own OIDC issuer makes a token at each read, and says how long it holds."""
    key, role = f"{corner.name}-key", f"{corner.name}-role"
    corner.api("POST", f"identity/oidc/key/{key}", {"allowed_client_ids": ["*"], "algorithm": "ES256"})
    corner.api("POST", f"identity/oidc/role/{role}", {"key": key, "ttl": "100s"})
    way = corner.role(corner.policy(f"identity/oidc/token/{role}"))
    entity = corner.api("POST", "identity/entity", {"name": corner.name})["data"]["id"]
    accessor = corner.api("GET", "sys/auth")["data"][f"{way.mount}/"]["accessor"]
    corner.api(
        "POST", "identity/entity-alias", {"name": way.role_id, "canonical_id": entity, "mount_accessor": accessor}
    )
    reference = SecretReference.parse(f"vault://identity/oidc/token/{role}?kv=raw#id=client_id,secret=token")
    backend = corner.backend(way.login)
    documents = [read(backend, str(reference)) for _ in range(2)]
    secrets = [interpret(one, reference).credentials.client_secret.reveal() for one in documents]
    SECRETS.extend(secrets)
    assert secrets[0].count(".") == 2
    assert documents[0].valid_for == pytest.approx(80)


def test_raw_reads_any_path(corner: Corner) -> None:
    kv = corner.kv1()
    corner.api("POST", f"{kv}/prod/pos", {"client_id": "pos", "client_secret": CLIENT_SECRET})
    backend = corner.by_token(reader(corner, f"{kv}/prod/pos"))
    assert secret_in(backend, f"vault://{kv}/prod/pos?kv=raw") == CLIENT_SECRET


@pytest.mark.parametrize(
    "path", ["auth/token/lookup-self", "ns1/auth/token/lookup-self", "cubbyhole/pos", "SYS/mounts"]
)
def test_raw_does_not_read_what_belongs_to_vault_itself(corner: Corner, path: str) -> None:
    """Whoever edits a reference could have Vault's token sent to an issuer as the client's secret."""
    error = failure(ConfigurationError, corner.by_token(corner.token("default")), f"vault://{path}?kv=raw#id")
    assert "belongs to Vault itself" in str(error)
    assert corner.came("auth/token/lookup-self") == 0


def test_raw_that_is_missing_says_how_to_look(corner: Corner) -> None:
    kv = corner.kv1()
    backend = corner.by_token(reader(corner, f"{kv}/prod/pos"))
    error = failure(SecretNotFound, backend, f"vault://{kv}/prod/pos?kv=raw")
    assert f"vault read {kv}/prod/pos" in str(error.hint)
    assert "-mount=" not in str(error.hint)


# --- namespaces


@pytest.fixture(scope="module")
def namespace(openbao: OpenBao) -> str:
    name = "of-a-team"
    openbao.api("POST", f"sys/namespaces/{name}", {})
    return name


def test_a_secret_and_a_login_in_one_namespace(corner: Corner, namespace: str) -> None:
    kv = corner.kv(namespace=namespace)
    corner.secret(kv, "pos", CLIENT_SECRET, namespace=namespace)
    role = corner.role(corner.policy(f"{kv}/data/pos", namespace=namespace), namespace=namespace)
    assert secret_in(corner.backend(role.login, namespace=namespace), f"vault://{kv}/pos") == CLIENT_SECRET


def test_a_login_in_another_namespace_than_the_secret(corner: Corner, namespace: str) -> None:
    kv = corner.kv(namespace=f"{namespace}")
    corner.secret(kv, "pos", CLIENT_SECRET, namespace=namespace)
    role = corner.role(corner.policy(f"{namespace}/{kv}/data/pos"))
    backend = corner.backend(role.login, namespace=namespace, auth_namespace="root")
    assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET


def test_a_secret_of_another_namespace_is_not_seen(corner: Corner, namespace: str) -> None:
    kv = corner.kv(namespace=namespace)
    corner.secret(kv, "pos", CLIENT_SECRET, namespace=namespace)
    failure(SecretNotFound, corner.by_token(corner.server.root), f"vault://{kv}/pos")


def test_a_namespace_that_there_is_not_says_so(corner: Corner) -> None:
    backend = corner.by_token(corner.server.root, namespace="nobodys")
    failure(SecretNotFound, backend, "vault://kv/pos", hint="namespace")


# --- nothing leads out of the mount


@pytest.mark.parametrize(
    "reference",
    [
        "vault://kv/../../sys/mounts",
        "vault://kv/a/../b",
        "vault://kv/.",
        "vault://kv/%2e%2e/%2e%2e/sys/mounts",
        "vault://kv/%2E./sys",
        "vault://kv/a%2F..%2F..%2Fsys%2Fmounts",
        "vault://kv//sys",
        "vault://kv/%00",
        "vault://../sys/mounts?kv=raw",
    ],
)
def test_a_path_that_leads_elsewhere_is_no_reference(reference: str) -> None:
    failed(ConfigurationError, lambda: SecretReference.parse(reference))


@pytest.mark.parametrize("mount", ["..", "kv/../sys", ".", "kv/./a", "a//b", "kv?x", "kv#x", "%2e%2e", "kv/%2e%2e"])
@pytest.mark.parametrize("kind", ["2", "1", "raw", "auto"])
def test_a_mount_that_leads_elsewhere_is_refused_and_nothing_is_asked(mount: str, kind: str) -> None:
    reference = SecretReference("vault", ("pos",), options=(("kv", kind), ("mount", mount)))
    with Scripted() as server:
        failure(ConfigurationError, by_token(server), str(reference), says="mount")
        assert server.requests == []


@pytest.mark.parametrize("kind", ["2", "1", "raw", "auto"])
@pytest.mark.parametrize("segments", [("kv", "..", "..", "sys", "mounts"), ("..", "sys", "mounts"), ("kv", "a/../b")])
def test_a_reference_that_was_not_parsed_leads_nowhere_either(segments: tuple[str, ...], kind: str) -> None:
    reference = SecretReference("vault", segments, options=(("kv", kind),))
    with Scripted() as server:
        backend = by_token(server)
        failed(ConfigurationError, lambda: backend.read(reference, fresh=True, timeout=5))
        assert server.requests == []


def test_a_name_of_escaped_dots_is_a_name_in_its_mount(corner: Corner) -> None:
    """Decoded once, and sent so that the server decodes it to the same name."""
    kv = corner.kv()
    failure(SecretNotFound, corner.by_token(corner.server.root), f"vault://{kv}/%252e%252e/%252e%252e/sys/mounts")
    assert corner.came(f"{kv}/data/%2e%2e/%2e%2e/sys/mounts") == 1
    assert not any(path.startswith("sys/mounts") for path in corner.paths() if path != f"sys/mounts/{kv}")


# --- what is no credential


def test_a_field_that_is_missing_lists_those_that_there_are(corner: Corner) -> None:
    kv = corner.kv()
    corner.put(f"{kv}/data/pos", {"data": {"user": "pos", "pass": CLIENT_SECRET}})
    reference = SecretReference.parse(f"vault://{kv}/pos")
    document = read(corner.by_token(reader(corner, f"{kv}/data/pos")), str(reference))
    failed(MalformedSecret, lambda: interpret(document, reference), hint="user")


def test_a_token_at_a_reference_with_several_texts_must_be_named(corner: Corner) -> None:
    with Scripted() as server:
        backend = server.backend(StaticToken(f"file://{corner.folder}/many.json"))
        corner.write(corner.folder / "many.json", '{"a": "not-a-real-secret-vault-token", "b": "x"}')
        failure(ConfigurationError, backend, hint="#FIELD")
        assert server.requests == []
