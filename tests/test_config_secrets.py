"""No secret belongs in a configuration: one that is there is refused, and never repeated."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secretsource import SecretSourceError, TokenSource

from .configurations import configuration, refused, written

CANARY = "c4n4ry-Not-A-Real-Secret"
# Put together here, so that no scanner takes them for real ones.
KNOWN = {
    "Vault": "hvs." + "CAESINotARealToken0123456789",
    "old Vault": "s." + "aB3dE5fG7hI9jK1lM3nO5pQ7",
    "AWS": "AKIA" + "IOSFODNN7EXAMPLE",
    "session of AWS": "ASIA" + "IOSFODNN7EXAMPLE",
    "JWT": "eyJhbGciOiJub25lIn0." + "eyJzdWIiOiJub2JvZHkifQ.c2ln",
    "PEM": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "GitHub": "ghp_" + "0123456789abcdefABCDEF0123456789abcd",
    "Slack": "xoxb-" + "123456789012-not-a-real-one",
    "URL": "https://pos:" + "hunter2@pos.example.com",
    "user of a URL": "https://notarealtokennotarealtoken" + "@pos.example.com",
    "Entra": "abc8Q~" + "notarealsecret-notarealsecret-1234",
    "Google": "GOCSPX-" + "notarealsecretnotarealsecret",
    "Google API": "AIza" + "NotARealKeyNotARealKeyNotARealKey123",
    "Stripe": "sk_live_" + "notarealkeynotarealkey",
    "npm": "npm_" + "notArealTokennotArealTokennotArealTok",
    "Hugging Face": "hf_" + "notArealTokennotArealTokennotArea",
    "SendGrid": "SG." + "notarealkeynotarealkey.notarealkeynotarealkeynotareal",
    "Doppler": "dp.st." + "notarealtokennotarealtokennot",
}
TAKING = (
    "client_secret",
    "secret_id",
    "token",
    "password",
    "private_key",
    "secret",
    "api_key",
    "subject_token",
    "Api-Key",
    "clientSecret",
    "accessToken",
    "secret_value",
    "client_secret_2",
    "tokens",
    "subscription_key",
    "clientsecret",
    "sharedSecret",
    "signing-key",
    "bearer",
    "Authorization",
)


@pytest.mark.parametrize("key", TAKING)
@pytest.mark.parametrize(
    ("table", "place"),
    [
        ("[defaults]\n{}", "defaults"),
        ("[clients.pos]\n{}", "clients.pos"),
        ("[defaults.extra]\n{}", "defaults.extra"),
        ("[defaults.stores.vault]\nauth.{}", "defaults.stores.vault.auth"),
        ("[environments.a.x.y]\n{}", "environments.a.x.y"),
        ("[[clients.pos.tills]]\n{}", "clients.pos.tills"),
    ],
)
def test_a_key_that_takes_a_secret_has_a_reference_or_is_refused(
    tmp_path: Path, table: str, place: str, key: str
) -> None:
    error = refused(tmp_path, table.replace("{}", f'{key} = "{CANARY}"') + "\n", None)
    shown = key if key.replace("_", "").isalpha() and key.islower() else "…"
    assert f"secretsource.toml: {place}.{shown} takes a secret, and has something other than a reference" in error
    assert CANARY not in error
    assert "secretsource put" in error


@pytest.mark.parametrize("value", ["5", "true", '["a"]', '"/etc/secret"', '"unknown:pos"', '"env"', '""'])
def test_what_is_no_reference_is_refused_whatever_it_is(tmp_path: Path, value: str) -> None:
    assert "takes a secret" in refused(tmp_path, f"[defaults.extra]\npassword = {value}\n", None)


def test_a_client_may_be_called_like_a_secret(tmp_path: Path) -> None:
    text = '[defaults]\ncredentials = "env:{client}"\nextra = { reference = "A-1001" }\n[clients.token]\n'
    assert configuration(tmp_path, text).settings("token").get("credentials") == "env:token"


@pytest.mark.parametrize("value", ["env:POS", "file:///run/secrets/id", "aws://prod/id", "vault-eu://kv/id"])
def test_a_reference_to_a_known_store_may_stand_there(tmp_path: Path, value: str) -> None:
    text = f"""
[defaults.stores.vault-eu]
backend = "vault"
address = "https://vault.example.com"
[defaults.stores.vault]
address = "https://vault.example.com"
auth = {{ method = "approle", role_id = "{CANARY}", secret_id = "{value}" }}
[clients.pos]
client_id = "{CANARY}"
"""
    assert configuration(tmp_path, text).clients == ["pos"]


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("[defaults]\nscope = '{}'\n", "defaults.scope"),
        ("[defaults]\nscope = ['orders.read', '{}']\n", "defaults.scope"),
        ("[defaults]\nproxy = '{}'\n", "defaults.proxy"),
        ("[clients.pos]\nclient_id = '{}'\n", "clients.pos.client_id"),
        ("[clients.pos.extra]\ntenant = 'a {} b'\n", "clients.pos.extra.tenant"),
        ("[clients.pos.extra]\n'{}' = 'a'\n", "clients.pos.extra"),
        ("['{}']\n", "secretsource.toml"),
    ],
)
def test_a_secret_of_a_known_form_is_refused_under_any_key(tmp_path: Path, line: str, place: str, kind: str) -> None:
    error = refused(tmp_path, line.replace("{}", KNOWN[kind]), None)
    assert place in error
    assert "Take it out" in error
    assert KNOWN[kind] not in error


@pytest.mark.parametrize("kind", KNOWN)
def test_a_secret_in_a_comment_is_refused_with_its_line(tmp_path: Path, kind: str) -> None:
    error = refused(tmp_path, f"[defaults]\n\n# scope = {KNOWN[kind]}\n", None)
    assert "in it (line 3)" in error
    assert KNOWN[kind] not in error


@pytest.mark.parametrize("key", ["client_secret", "old-password", "POS_TOKEN", "apiKey"])
def test_a_comment_that_gives_a_value_to_what_takes_a_secret_is_refused(tmp_path: Path, key: str) -> None:
    error = refused(tmp_path, f"[defaults]\n# {key} = '{CANARY}'   # was this\n", None)
    assert "a comment with what looks like a secret (line 2)" in error
    assert CANARY not in error


def test_a_comment_that_names_where_a_secret_is_kept_may_stand(tmp_path: Path) -> None:
    text = (
        "[defaults]\n# secret_id = 'file:/run/secrets/id', and no token = \"…\" here\n# the secret is rotated weekly\n"
    )
    assert configuration(tmp_path, text + "[clients.pos]\n").clients == ["pos"]


@pytest.mark.parametrize(
    "comment",
    [
        'client_id = "pos", client_secret = "{}"',
        'pos = {{ client_id = "pos", client_secret = "{}" }}',
        "client_secret={}",
        "client_secret: {}",
    ],
)
def test_a_comment_may_hide_one_in_many_ways(tmp_path: Path, comment: str) -> None:
    error = refused(tmp_path, f"[clients.pos]\nclient_id = 'a'  # {comment.format(CANARY)}\n", None)
    assert "a comment with what looks like a secret (line 2)" in error


@pytest.mark.parametrize(
    "line",
    [
        "extra = { requested_token_type = 'urn:ietf:params:oauth:token-type:jwt' }",
        "extra = { requested_token_use = 'on_behalf_of', cookie_domain = 'a.example.com' }",
        "extra = { client_assertion_type = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer' }",
        "extra = { token_type = 'Bearer', token_format = 'jwt', secret_engine = 'kv' }",
        "scope = 'a'  # from ssh://git@github.com/acme/deploy.git",
        "scope = 'a'  # Okta: token_endpoint = 'https://acme.okta.com/oauth2/v1/token'",
        "scope = 'a'  # token_lifetime = '12hours12', client_secret = '...', secret = 'kv/prod/pos'",
        "credentials = 'env:#id=A,secret=POS_SECRET_2'  # the second one",
        "credentials = 'vault://team@acme/pos'",
    ],
)
def test_what_is_said_about_secrets_is_no_secret(tmp_path: Path, line: str) -> None:
    assert configuration(tmp_path, f"[clients.pos]\n{line}\n").clients == ["pos"]


@pytest.mark.parametrize("key", ["token_endpoint", "token_uri", "tokenUrl"])
def test_a_near_miss_of_token_url_is_told_as_one(tmp_path: Path, key: str) -> None:
    error = refused(tmp_path, f"[clients.pos]\n{key} = 'https://pos.example.com/connect/token'\n", None)
    assert "takes a secret" not in error


def test_a_long_comment_is_looked_through_in_no_time(tmp_path: Path) -> None:
    text = f"[clients.pos]\n# {'x' * 30_000}\n# {'a.' * 15_000}=\n"
    assert configuration(tmp_path, text).clients == ["pos"]


def test_escapes_do_not_hide_one(tmp_path: Path) -> None:
    hidden = "\\u0068" + KNOWN["Vault"][1:]
    assert "defaults.scope is a token of Vault" in refused(tmp_path, f'[defaults]\nscope = "{hidden}"\n', None)


def test_what_only_resembles_a_secret_is_taken(tmp_path: Path) -> None:
    text = """
# Tokens come from https://pos.example.com/connect/token; see s.example.com and key AKIA.
[environments.test]
token_url = "https://pos.example.com/connect/token"
audience = "s.orders"
resource = ["https://pos.example.com/a@b", "urn:pos:orders"]
scope = "3fa85f64-5717-4562-b3fc-2c963f66afa6/.default"
client_id = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
credentials = "aws://arn:aws:secretsmanager:eu-west-1:123456789012:secret:pos@home-AbCdEf"
profile = { token_type_missing = "bearer" }
[clients.pos]
"""
    assert configuration(tmp_path, text).settings("pos").get("audience") == "s.orders"


PLACES = [
    *(
        f"[defaults]\n{key} = '{{}}'\n"
        for key in ("issuer", "token_url", "scope", "audience", "resource", "auth_method", "ca_file", "proxy")
    ),
    *(f"[clients.pos]\n{key} = '{{}}'\n" for key in ("credentials", "timeout", "plain_http", "stores", "production")),
    "[defaults]\nscope = ['a b', '{}']\nresource = ['{}']\nplain_http = ['{}']\n",
    "[defaults]\nplain_http = [{ host = '{}', reason = '' }]\n",
    "[defaults]\n'{}' = 'x'\n",
    "['{}']\nx = 1\n",
    "'{}' = 1\n",
    "[defaults]\nextra = { '{}' = 5 }\n",
    "[defaults]\nextra = { scope = '{}' }\n",
    "[defaults]\nprofile = { basic_encoding = '{}' }\n",
    "[defaults]\nprofile = { '{}' = true }\n",
    "[defaults]\nprofile = { rejected = '{}' }\n",
    "[defaults.stores.file]\naccess = '{}'\n",
    "[defaults.stores.file]\nowners = ['{}']\n",
    "[defaults.stores.file]\nbackend = '{}'\n",
    "[defaults.stores.file]\n'{}' = 5\n",
    "[defaults.stores.'{}']\nx = 5\n",
    "[defaults.stores.vault]\naddress = '{}'\n",
    "[defaults.stores.vault]\nauth = '{}'\n",
    "[defaults.stores.vault]\nauth = { method = '{}' }\n",
    "[defaults.stores.vault]\nauth = { method = 'token', reference = '{}' }\n",
    "[defaults.stores.vault]\nauth = { method = 'agent', '{}' = 1 }\n",
    "[defaults]\nscope = '{{}'\n",
    "[defaults]\nclient_secret = '{}'\n",
    '[defaults]\nscope = "{}\n',
    "{}\n",
    "# {}\n[defaults]\nx = 1\n",
]
ODD = st.text(st.sampled_from('"(){}=,:/#?%&~\\ \t-+@é$[]'), max_size=5)


@settings(max_examples=250, deadline=None)
@example("[defaults.stores.file]\naccess = '{}'\n", "", "://", False)
@given(st.sampled_from(PLACES), ODD, ODD, st.booleans())
def test_no_error_repeats_what_was_pasted_at_any_place(place: str, before: str, after: str, production: bool) -> None:
    text = place.replace("{}", f"{before}{CANARY}{after}")
    rest = {
        "credentials": "[environments.test]\ncredentials = 'file:pos.json'\n",
        "issuer": "issuer = 'https://pos.example.com'\n",
        "production": f"production = {str(production).lower()}\n",
    }
    text += "".join(rest.values()) + ("" if "[clients.pos]" in place else "[clients.pos]\n")
    with tempfile.TemporaryDirectory() as folder:
        path, failure = written(Path(folder), text), None
        try:
            TokenSource.from_config("pos", path=path).close()
        except SecretSourceError as error:
            failure = error
        if failure is not None:
            assert CANARY not in f"{failure} {failure!r} {failure.hint}"
            assert failure.__context__ is None
