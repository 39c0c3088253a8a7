"""Every public object that holds a secret or stands near one, and what it is not meant for."""

from __future__ import annotations

import json
import marshal
import multiprocessing
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest

import secretsource
from secretsource import ClientCredentials, CredentialsSource, Document, Secret, SecretReference, Token, TokenSource
from secretsource.errors import SecretSourceError
from secretsource.exchange import Answer, Outgoing
from secretsource.testing import FakeIssuer, TickingClock, static_source

from ..stores import Store
from .canaries import SPECIAL, TOKEN
from .watch import Watch


def nested(secret: str) -> Document:
    return Document({"client_id": "pos", "deep": {"client_secret": secret, "list": [secret, None, 5]}})


HOLDERS: dict[str, Callable[[str], object]] = {
    "Secret": Secret,
    "Token": lambda s: Token(s, lifetime=60, scopes=("orders.read",)),
    "Document of fields": nested,
    "Document of one text": Document,
    "Document with others": lambda s: Document({"a": s}, pending=nested(s), previous=Document(s), version="7"),
    "ClientCredentials": lambda s: ClientCredentials(
        "pos", s, version="7", pending=ClientCredentials("pos", s), previous=ClientCredentials("pos", Secret(s))
    ),
    "Outgoing": lambda s: Outgoing("POST", "https://pos.example.com", {"Authorization": s}, s.encode()),
    "Answer": lambda s: Answer(200, {}, s.encode()),
    "TokenSource": lambda s: TokenSource(ClientCredentials("pos", s), issuer="https://pos.example.com"),
    "TokenSource of a function": lambda s: TokenSource(
        lambda: ClientCredentials("pos", s), issuer="https://pos.example.com"
    ),
    "TokenSource with a proxy": lambda s: TokenSource(
        "env:POS", token_url="https://pos.example.com", proxy=f"http://user:{quote(s, safe='')}@proxy.example:1"
    ),
    "CredentialsSource": lambda s: _read(Store(client_id="pos", client_secret=s)),
    "StaticSource": static_source,
    "several of them": lambda s: {"a": [Secret(s), (Secret(s), {"b": ClientCredentials("pos", s)})]},
}


def _read(store: Store) -> CredentialsSource:
    source = CredentialsSource("memory:pos", stores=store.stores, clock=TickingClock())
    source.current()
    source.reload()
    return source


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_holds_a_secret_does_not_show_it(watch: Watch, holder: str) -> None:
    watch.look(HOLDERS[holder](watch.canary("held", TOKEN)))


def _sent_to_a_process(one: object) -> None:
    pool = multiprocessing.get_context("spawn")
    process = pool.Process(target=print, args=(one,))
    process.start()
    process.join(30)


MISUSES: dict[str, Callable[[Any], object]] = {
    "a process": _sent_to_a_process,
    "marshal": marshal.dumps,
    "json": json.dumps,
    "an index": lambda one: one[0],
    "a call": lambda one: one(),
    "a sum": lambda one: one + "x",
    "an order": lambda one: sorted([one, one]),
    "a comparison with a text": lambda one: one == "x",
    "a key": lambda one: {one: 1},
    "a number": int,
    "bytes": bytes,
    "a loop": list,
    "a width": len,
    "a wrong format": lambda one: format(one, "q"),
    "a wrong placeholder": lambda one: "%d" % one,  # noqa: UP031
    "an encoding": lambda one: f"{one}".encode("latin-1"),
    "another value": lambda one: setattr(one, "anything", 1),
    "a name that there is not": lambda one: one.anything,
    "its inside set by pickle": lambda one: pickle.loads(pickle.dumps(one)),
}


@pytest.mark.parametrize("holder", ["Secret", "Token", "Document of fields", "ClientCredentials", "TokenSource"])
def test_what_it_is_not_meant_for_shows_nothing(watch: Watch, holder: str) -> None:
    one = HOLDERS[holder](watch.canary("held", TOKEN))
    for misuse in MISUSES.values():
        watch.ends(lambda misuse=misuse: misuse(one))  # type: ignore[misc]


def test_all_that_is_public_is_looked_at(watch: Watch) -> None:
    held = {holder.split()[0] for holder in HOLDERS}
    kinds = {name for name in secretsource.__all__ if isinstance(getattr(secretsource, name), type)}
    errors = {name for name in kinds if issubclass(getattr(secretsource, name), SecretSourceError)}
    # The rest holds no secret: names of places, switches, protocols and what happened.
    assert kinds - errors - held <= {"Backend", "IssuerProfile", "SecretReference", "TokenAuth", "Writable"}, (
        kinds - errors - held
    )


@pytest.mark.parametrize(
    "wrong",
    ["not a reference", "env:{}", "file:{}", "{}", "vault://{}?x={}", "aws://a?region={}#{}", "https://u:{}@h/"],
)
def test_a_reference_that_is_none_is_not_repeated(watch: Watch, wrong: str) -> None:
    given = [wrong.replace("{}", f"{watch.canary('pasted', SPECIAL)} ")]
    watch.ends(lambda: SecretReference.parse(given.pop()))


def test_a_fake_issuer_shows_no_secret_of_its_clients(watch: Watch, issuer: FakeIssuer) -> None:
    secret = watch.canary("client secret")
    source = watch.source(issuer.add_client("pos", secret), issuer=issuer.url, auth_method="client_secret_post")
    watch.canary_of("access token", source.token().access_token)
    watch.write(f"{issuer!r} {issuer} {issuer.requests!r}")
    for request in issuer.requests:
        watch.look([request.form, request.headers, request.query])


def test_errors_that_a_program_makes_itself_are_passed_on_as_they_are(watch: Watch) -> None:
    error = SecretSourceError("nothing", hint="nothing")
    assert watch.look(error.again()).occurred_at <= datetime.now(UTC)
