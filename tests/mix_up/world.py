"""Two issuers that note for whom each token is, the programs of one process, and what they do at the same time."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx
import pytest

from secretsource import CredentialsSource, Document, SecretSourceError, Token, TokenAuth, TokenSource
from secretsource.testing import FakeIssuer, Fault, TickingClock, secret_file
from secretsource.testing.loopback import Answer, Incoming

from ..configurations import written
from ..stores import LONG, Store

__all__ = ["Asked", "Call", "Change", "Ledger", "MixUp", "Party", "World", "worlds"]

# Programs of two environments have one issuer and one reference, and so nothing but the environment apart.
CONFIGURATION = """
[defaults]
timeout = 1000
credentials = "shop:{{client}}.json"
[environments.staging]
issuer = "{blue}"
stores.shop = {{ backend = "file", root = "staging" }}
[environments.production]
issuer = "{blue}"
stores.shop = {{ backend = "file", root = "production" }}
[environments.abroad]
issuer = "{green}"
stores.shop = {{ backend = "file", root = "production" }}
[clients.pos]
[clients.stock]
scope = "a"
extra = {{ tenant = "1" }}
"""
TILLS = ["till-1", "till-2"]  # with one secret, and their client IDs beside the reference
CLIENTS = ["pos", "renamed", "stock", *TILLS, *(f"{e}-{c}" for e in ("s", "p") for c in ("pos", "stock"))]
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class MixUp(AssertionError):
    """Somebody got a token that was asked for by somebody else."""


class Asked(NamedTuple):
    """For whom and for what a token was asked, as the issuer saw it."""

    issuer: str
    client_id: str | None
    auth_method: str | None
    scopes: frozenset[str] = frozenset()
    audience: str | None = None
    resources: frozenset[str] = frozenset()
    extra: frozenset[tuple[str, str]] = frozenset()


class Ledger(FakeIssuer):
    """An issuer that notes who asked for each token, with an API behind it."""

    def __init__(self, clock: TickingClock) -> None:
        super().__init__(lifetime=100, unknown_scope="drop", apis={"/api": self._api}, clock=clock)
        self.asked: dict[str, set[Asked]] = {}

    def begin(self) -> None:
        """No fault and no token of before."""
        self.heal()
        self.asked.clear()

    def _token(self, authenticated: Any, form: Any, fault: Fault) -> dict[str, Any]:
        members = super()._token(authenticated, form, fault)
        form_of = dict(form.parameters)
        for name in ("grant_type", "client_id", "client_secret", "resource"):
            form_of.pop(name, None)
        asked = Asked(
            self.url,
            authenticated[0],
            form.auth_method,
            frozenset(form_of.pop("scope", "").split()),
            form_of.pop("audience", None),
            frozenset(form.resources),
            frozenset(form_of.items()),
        )
        self.asked.setdefault(members["access_token"], set()).add(asked)
        return members

    def _api(self, incoming: Incoming) -> Answer:
        accepted = self.accepts(incoming.headers.get("authorization", "").removeprefix("Bearer "))
        return Answer(200 if accepted else 401)


@dataclass
class Party:
    """A source, and what a token of its plainest request is for. `clients`: what its document may name."""

    name: str
    source: Callable[[], TokenSource]
    issuer: Ledger
    clients: set[str]
    auth_method: str = "client_secret_basic"
    scopes: frozenset[str] = frozenset()
    audience: str | None = None
    resources: frozenset[str] = frozenset()
    extra: Mapping[str, str] = field(default_factory=dict)

    def may_get(self, request: Mapping[str, Any]) -> set[Asked]:
        """What a token for this request may have been asked for; said once more than in the library, and otherwise."""
        scope, resource = request.get("scope", self.scopes), request.get("resource", self.resources)
        plain = Asked(
            self.issuer.url,
            None,
            self.auth_method,
            frozenset(scope.split() if isinstance(scope, str) else scope),
            request.get("audience", self.audience) or None,
            frozenset([resource] if isinstance(resource, str) else resource),
            frozenset({**self.extra, **request.get("extra", {})}.items()),
        )
        return {plain._replace(client_id=client_id) for client_id in self.clients}


class Call(NamedTuple):
    """One call of a party (by number), in one of the ways in which a token can be had."""

    party: int
    way: str
    request: Mapping[str, Any]


class Change(NamedTuple):
    """Something that happens in the world. `which` picks what it happens to."""

    kind: str
    which: int


class World:
    """All parties of one process, anew for each example; the issuers and their sockets stay."""

    def __init__(self, blue: Ledger, green: Ledger, clock: TickingClock, folder: Path) -> None:
        self.blue, self.green, self.clock = blue, green, clock
        self.checked = self.mixed_up = 0
        self._folder = folder
        self._toml = written(folder, CONFIGURATION.format(blue=blue.url, green=green.url))
        self._pool = httpx.Client(verify=NO_TLS, trust_env=False)

    def begin(self) -> None:
        for issuer in (self.blue, self.green):
            issuer.begin()
        self._rotations = 0
        self._got: list[tuple[Party, Token]] = []
        self._wrong: list[BaseException] = []
        self._stores = {name: Store(ttl) for name, ttl in (("pos", 0.0), ("stock", 300.0), ("till", 0.0))}
        self._files = {f"{e[0]}-{c}": (e, c) for e in ("staging", "production") for c in ("pos", "stock")}
        self._issued: dict[str, str] = {}
        for client_id in CLIENTS:
            self._issue(client_id)
        for name in ("pos", "stock", "till-1", *self._files):
            self._publish(name)
        self.parties = [*self._direct(), *self._configured()]

    def end(self) -> None:
        for party in self.parties:
            party.source().close()

    def close(self) -> None:
        self._pool.close()

    def _direct(self) -> Iterator[Party]:
        pos, stock = {"pos", "renamed"}, {"stock"}
        shared = CredentialsSource("memory://pos", stores={"memory": self._stores["pos"]})
        everything: dict[str, Any] = {"scope": "a", "audience": "x", "resource": "https://one.example/"}
        yield self._party("pos at green", self.green, pos, "memory://pos")
        yield self._party("pos at blue", self.blue, pos, "memory://pos")
        yield self._party("pos by post", self.blue, pos, "memory://pos", auth_method="client_secret_post")
        yield self._party("stock at blue", self.blue, stock, "memory://stock")
        yield self._party("till 1", self.blue, {"till-1"}, "memory://till", client_id="till-1")
        yield self._party("till 2", self.blue, {"till-2"}, "memory://till", client_id="till-2")
        yield self._party("shared at blue", self.blue, pos, shared, extra={"tenant": "1"}, **everything)
        yield self._party("shared at green", self.green, pos, shared, extra={"tenant": "1"}, **everything)

    def _configured(self) -> Iterator[Party]:
        for client in ("pos", "stock"):
            for environment, issuer in (("staging", self.blue), ("production", self.blue), ("abroad", self.green)):

                def source(client: str = client, environment: str = environment) -> TokenSource:
                    return TokenSource.from_config(client, environment, path=self._toml)

                clients = {f"{'s' if environment == 'staging' else 'p'}-{client}"}
                party = Party(f"{client} in {environment}", source, issuer, clients)
                stock = replace(party, scopes=frozenset("a"), extra={"tenant": "1"})
                yield stock if client == "stock" else party

    def _party(self, name: str, issuer: Ledger, clients: set[str], credentials: Any, **options: Any) -> Party:
        stores = None
        if isinstance(credentials, str):
            stores = {"memory": self._stores[credentials.removeprefix("memory://")]}
        # The clock of a world leaps by minutes while calls are under way.
        where: dict[str, Any] = {"issuer": issuer.url, "token_url": issuer.token_url, "timeout": 1000}
        source = TokenSource(credentials, stores=stores, **where, **options)
        return Party(
            name,
            lambda: source,
            issuer,
            clients,
            options.get("auth_method", "client_secret_basic"),
            frozenset(options.get("scope", "").split()),
            options.get("audience"),
            frozenset([options["resource"]] if "resource" in options else []),
            options.get("extra", {}),
        )

    # --- what happens

    def step(self, calls: Sequence[Call], changes: Sequence[Change]) -> None:
        """All calls and the changes begin at one moment. Raises MixUp, and whatever else must not come out."""
        tasks = [call for call in calls if call.way in ("atoken", "aheader", "averify")]
        threads = [call for call in calls if call not in tasks]
        works: list[Callable[[], object]] = [lambda call=call: self._call(call) for call in threads]  # type: ignore[misc]
        works += [lambda: asyncio.run(self._tasks(tasks))] if tasks else []
        works += [lambda: self._changes(changes)]
        start = threading.Barrier(len(works))

        def run(work: Callable[[], object]) -> None:
            try:
                start.wait(LONG)
                work()
            except BaseException as error:
                self._wrong.append(error)

        running = [threading.Thread(target=run, args=(work,)) for work in works]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(LONG)
            assert not thread.is_alive()
        for wrong in sorted(self._wrong, key=lambda error: not isinstance(error, MixUp)):
            raise wrong

    def _call(self, call: Call) -> None:
        party = self.parties[call.party % len(self.parties)]
        with suppress(SecretSourceError):  # no token is nobody's token
            source = party.source()
            match call.way:
                case "header":
                    auth = TokenAuth(source, **cast(Any, call.request))
                    answer = self._pool.get(f"{party.issuer.url}api", auth=auth)
                    self._check(party, call.request, answer.request.headers["authorization"].removeprefix("Bearer "))
                case "verify":
                    self._take(party, {}, source.verify())
                case _:
                    request = {**call.request, "force": True} if call.way == "force" else call.request
                    self._take(party, call.request, source.token(**cast(Any, request)))

    async def _tasks(self, calls: Sequence[Call]) -> None:
        async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
            await asyncio.gather(*(self._task(client, call) for call in calls))

    async def _task(self, client: httpx.AsyncClient, call: Call) -> None:
        party = self.parties[call.party % len(self.parties)]
        with suppress(SecretSourceError):
            source = party.source()
            if call.way == "aheader":
                answer = await client.get(f"{party.issuer.url}api", auth=TokenAuth(source, **cast(Any, call.request)))
                self._check(party, call.request, answer.request.headers["authorization"].removeprefix("Bearer "))
            else:
                request: Mapping[str, Any] = {} if call.way == "averify" else call.request
                asked: Coroutine[Any, Any, Token] = (
                    source.averify() if call.way == "averify" else source.atoken(**cast(Any, request))
                )
                self._take(party, request, await asked)

    def _take(self, party: Party, request: Mapping[str, Any], token: Token) -> None:
        self._got.append((party, token))
        self._check(party, request, token.access_token)

    def _check(self, party: Party, request: Mapping[str, Any], access_token: str) -> None:
        asked = self.blue.asked.get(access_token, set()) | self.green.asked.get(access_token, set())
        if not asked & party.may_get(request):
            self.mixed_up += 1
            raise MixUp(f"{party.name} asked for {dict(request)}, and got what {asked} is for")
        self.checked += 1

    def _changes(self, changes: Sequence[Change]) -> None:
        for change in changes:
            self._change(change)

    def _change(self, change: Change) -> None:
        names = sorted(self._issued)
        name = names[change.which % len(names)]
        issuer = (self.blue, self.green)[change.which % 2]
        match change.kind:
            case "time":
                self.clock.tick((1, 60, 75, 92, 101)[change.which % 5])
            case "rotation":
                self._change(Change("secret at the issuers", change.which))
                self._publish(name)
            case "secret at the issuers":
                self._issue(name)
            case "secret in the store":
                self._publish(name)
            case "client ID":
                self._publish("renamed" if change.which % 2 else "pos")
            case "revocation" if self._got:
                party, token = self._got[change.which % len(self._got)]
                party.issuer.revoke(token.access_token)
                with suppress(SecretSourceError):
                    party.source().invalidate(token)
            case "reload":
                with suppress(SecretSourceError):
                    self.parties[change.which % len(self.parties)].source().reload()
            case "close":
                self.parties[-1 - change.which % 6].source().close()  # from_config makes another
            case "narrowed scope":
                issuer.add_client(name, self._issued[name], scopes=["a", "b"][: change.which % 3])
            case "fault":
                issuer.fail(FAULTS[change.which % len(FAULTS)], times=1 + change.which % 3)

    def _issue(self, client_id: str) -> None:
        """A new secret at both issuers."""
        self._rotations += 1
        for each in TILLS if client_id in TILLS else [client_id]:
            self._issued[each] = f"not-a-real-secret-{self._rotations}"
            for issuer in (self.blue, self.green):
                issuer.add_client(each, self._issued[each], scopes=["a", "b"])

    def _publish(self, client_id: str) -> None:
        """Write what the issuers know into the store."""
        secret = self._issued[client_id]
        if client_id in self._files:
            environment, client = self._files[client_id]
            secret_file(self._folder / environment, client_id, secret)
            (self._folder / environment / f"{client_id}.json").replace(self._folder / environment / f"{client}.json")
        elif client_id in TILLS:
            self._stores["till"].document = Document({"client_secret": secret})
        else:
            store = self._stores["pos" if client_id in ("pos", "renamed") else "stock"]
            store.put(secret, client_id=client_id)


FAULTS = [
    Fault(same_token=True),
    Fault(status=503, headers={"Retry-After": "1"}),
    Fault(status=401, body=b'{"error": "invalid_client"}'),
    Fault(same_token=True, latency=0.01),
    Fault(reset=True),
    Fault(cut_after=20),
    Fault(latency=0.02),
    Fault(answer={"expires_in": 0}),
    Fault(answer={"scope": "a"}),
]


@contextmanager
def worlds(folder: Path) -> Iterator[World]:
    """A world whose clock all sources go by, also those that a configuration makes."""
    clock = TickingClock()
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("secretsource.source.SYSTEM_CLOCK", clock)
        patch.setattr("secretsource.resolve.SYSTEM_CLOCK", clock)
        patch.setattr("secretsource.source.monotonic", clock.monotonic)
        blue, green = (stack.enter_context(Ledger(clock)) for _ in range(2))
        world = World(blue, green, clock, folder)
        stack.callback(world.close)
        yield world
