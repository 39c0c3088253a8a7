"""secretsource.toml: what it makes, and secrets that somebody has written into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from secretsource import TokenSource
from secretsource.config import loaded, located
from secretsource.errors import ConfigurationError, CredentialsRejected, SecretSourceError
from secretsource.testing import FakeIssuer

from ..cli import called
from .canaries import SPECIAL
from .cases import the_rest_slow
from .test_files import DOCUMENTS
from .watch import Watch

GOOD = """
[environments.test]
issuer = "{issuer}"
credentials = "file:secrets/{{client}}.json"
[clients.pos]
scope = "orders.read"
"""


@pytest.fixture
def made() -> Iterator[list[TokenSource]]:
    sources: list[TokenSource] = []
    yield sources
    for source in sources:
        source.close()


def test_a_source_of_a_configuration(watch: Watch, issuer: FakeIssuer, made: list[TokenSource]) -> None:
    secret = watch.canary("client secret", SPECIAL)
    issuer.add_client("pos", secret)
    watch.put("secrets/pos.json", DOCUMENTS["json"](secret))
    path = watch.put("secretsource.toml", GOOD.format(issuer=issuer.url), 0o644)
    made.append(source := watch.gives(lambda: TokenSource.from_config("pos", path=path)))
    watch.canary_of("access token", watch.gives(source.token).access_token)
    issuer.set_secret("pos", watch.canary("new secret"))
    watch.fails(CredentialsRejected, lambda: source.token(force=True))
    watch.look(loaded(located(path)))
    watch.look(loaded(located(path)).settings("pos"))
    for arguments in (("config", "pos"), ("config", "pos", "--json"), ("check", "--all"), ("check", "pos", "--json")):
        ran = called(*arguments, "--config", str(path))
        watch.write(ran.err + ran.out)


# Where a secret may be written, each with what stands around it. The first line of each table is good.
PLACES = [
    "[defaults]\n{key} = '{s}'\n",
    "[clients.pos]\n{key} = '{s}'\n",
    "[environments.test]\n{key} = '{s}'\n",
    "[clients.pos.environments.test]\n{key} = '{s}'\n",
    "[defaults.stores.vault]\naddress = 'https://vault.example.com'\n{key} = '{s}'\n",
    "[defaults.stores.vault]\naddress = 'https://vault.example.com'\nauth = {{ method = 'approle', {key} = '{s}' }}\n",
    "[defaults.stores.other]\nbackend = 'aws'\n{key} = '{s}'\n",
    "[defaults.profile]\n{key} = '{s}'\n",
]
KEYS = [
    "client_secret", "credentials", "secret_id", "token", "password", "issuer", "proxy", "auth_method",
    "ca_file", "plain_http", "secret", "client_secert", "auth", "session", "address", "basic_encoding",
]  # fmt: skip


@pytest.mark.parametrize("key", the_rest_slow(KEYS, "client_secret", "credentials", "client_secert", "issuer", "auth"))
@pytest.mark.parametrize("place", range(len(PLACES)))
def test_a_secret_in_the_configuration(watch: Watch, place: int, key: str) -> None:
    secret = watch.canary("written secret", "{}notarealsecret{}")
    text = PLACES[place].format(key=key, s=secret)
    path = watch.put("secretsource.toml", text if "[clients.pos]" in text else f"{text}[clients.pos]\n", 0o644)
    watch.ends(lambda: TokenSource.from_config("pos", "test" if "environments" in text else None, path=path))
    for verb in ("config", "token", "check"):
        ran = called(verb, "pos", "--config", str(path))
        watch.write(ran.err)
        if verb != "config" or ran.code != 0:
            watch.write(ran.out)


ODD = {
    "a known shape": "[defaults]\nscope = 'hvs.{s}{s}'\n[clients.pos]\n",
    "a URL with a password": "[defaults]\nissuer = 'https://user:{s}@pos.example.com'\n[clients.pos]\n",
    "a proxy with a password": "[defaults]\nissuer = 'no URL'\nproxy = 'http://user:{s}@h:1'\n[clients.pos]\n",
    "the name of a key": "[clients.pos]\n'{s}' = 1\n",
    "the name of a store": "[defaults.stores.'{s}']\naddress = 'x'\n[clients.pos]\n",
    "the name of a table": "['{s}']\na = 1\n[clients.pos]\n",
    "a text that is cut": "[clients.pos]\nclient_secret = '{s}",
    "a text without quotes": "[clients.pos]\nclient_secret = {s}\n",
    "a list": "[clients.pos]\nclient_secret = ['{s}', ['{s}']]\n",
    "a table": "[clients.pos.client_secret]\nvalue = '{s}'\n",
    "a placeholder": "[defaults]\ncredentials = 'file:{{client}}{{{s}}}'\n[clients.pos]\n",
    "a comment": "# {s}\n[clients.pos]\nunknown = 1\n",
    "a date": "[clients.pos]\nclient_secret = 2026-01-01 # {s}\n",
    "twice": "[clients.pos]\nclient_secret = '{s}'\nclient_secret = '{s}'\n",
    "no TOML": "{s}",
    "a line end in it": '[clients.pos]\ncredentials = "{s}\\n{s}"\n',
}


@pytest.mark.parametrize("odd", ODD)
def test_a_secret_where_nobody_expects_one(watch: Watch, odd: str) -> None:
    path = watch.put("secretsource.toml", ODD[odd].format(s=watch.canary("written secret", "{}notareal{}")), 0o644)
    watch.fails(SecretSourceError, lambda: TokenSource.from_config("pos", path=path).token(timeout=2))
    for verb in ("token", "check"):
        ran = called(verb, "pos", "--config", str(path), "--timeout", "1")
        watch.write(ran.err + ran.out)


@pytest.mark.parametrize("mode", [0o666, 0o646])
def test_a_configuration_that_others_may_change(watch: Watch, mode: int) -> None:
    secret = watch.canary("written secret")
    path = watch.put("secretsource.toml", f"[clients.pos]\nclient_secret = '{secret}'\n", mode)
    watch.fails(ConfigurationError, lambda: TokenSource.from_config("pos", path=path))
    assert Path(path).exists()
