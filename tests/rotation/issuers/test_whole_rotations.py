"""Whole rotations by a program, by a person, and by the update of a registration."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from secretsource import ConfigurationError, SecretReference, TokenSource
from secretsource.events import Event
from secretsource.rotation import Adapter, Policy, Report, Rotation
from secretsource.rotation.issuers.command import Command
from secretsource.rotation.issuers.manual import Manual
from secretsource.rotation.issuers.registration import Registration
from secretsource.testing import Answer, FakeIssuer, Incoming, TickingClock

from ...real.authlib_server import AuthlibServer
from ..site import CLIENT, FIRST, REFERENCE, Memory
from .test_registration import Relay

SCOPES = ("orders.read",)


@dataclass
class Shop:
    """An issuer with one slot, a store, and the clock of both."""

    issuer: FakeIssuer
    clock: TickingClock
    store: Memory
    events: list[Event] = field(default_factory=list)

    def rotation(self, adapter: Adapter, **policy: Any) -> Rotation:
        said = {"wait": 60.0, "soak": 120.0, "command_timeout": 30.0, "max_wait": 4000.0, "force": True, **policy}
        source = TokenSource(REFERENCE, stores={"memory": self.store}, issuer=self.issuer.url, clock=self.clock)
        return Rotation(source, adapter, policy=Policy(**said), observers=self.events.append)

    def works(self) -> bool:
        with TokenSource(REFERENCE, stores={"memory": self.store}, issuer=self.issuer.url, clock=self.clock) as source:
            return source.token().expires_in > 0

    def shows_nothing(self, *things: object) -> None:
        shown = " ".join(f"{one} {one!r}" for one in (*self.events, *things))
        secrets = {text for written in self.store.writes for name, text in written.items() if "client_secret" in name}
        # The state, which is no secret, is kept under a name that begins like one.
        assert [one for one in secrets if not one.startswith("v1.") and one in shown] == []


@pytest.fixture
def shop() -> Iterator[Shop]:
    def save(incoming: Incoming) -> Answer:
        given = json.loads(incoming.body)
        issuer.set_secret(given["client_id"], given["client_secret"])
        return Answer(204)

    clock = TickingClock()
    with FakeIssuer(lifetime=600, clock=clock, apis={"/save": save}) as issuer:
        issuer.add_client(CLIENT, FIRST)
        yield Shop(issuer, clock, Memory(client_id=CLIENT, client_secret=FIRST))


@pytest.fixture
def program(shop: Shop, tmp_path: Path) -> Callable[[str], str]:
    """Makes a program that saves what it is given at the issuer, and ends as the text says."""

    def make(end: str, *, before: str = "") -> str:
        path = tmp_path / "change"
        source = f"""\
            #!{sys.executable}
            import os, sys, urllib.request
            given = sys.stdin.buffer.read()
            print(given)
            {before}
            urllib.request.urlopen({f"{shop.issuer.url.rstrip('/')}/save"!r}, given, timeout=20).close()
            {end}
            """
        path.write_text(textwrap.dedent(source))
        path.chmod(0o700)
        return str(path)

    return make


def test_a_program_changes_the_secret(shop: Shop, program: Callable[..., str]) -> None:
    report = shop.rotation(Command(program("sys.exit(0)"))).run()
    assert report.result == "done"
    assert shop.store.clear["client_secret"] != FIRST
    assert shop.works()
    shop.shows_nothing(report)


def test_one_that_is_killed_when_it_has_done_it_has_done_it(shop: Shop, program: Callable[..., str]) -> None:
    report = shop.rotation(Command(program("os.kill(os.getpid(), 9)"))).run()
    assert report.result == "done"
    assert shop.works()
    shop.shows_nothing(report)


def test_one_that_refuses_leaves_the_old_secret(shop: Shop, program: Callable[..., str]) -> None:
    report = shop.rotation(Command(program("", before="sys.exit(65)"))).run()
    assert report.result == "failed"
    assert shop.store.clear["client_secret"] == FIRST
    assert "client_secret_pending" not in shop.store.clear
    assert shop.works()
    shop.shows_nothing(report)


def test_a_person_changes_the_secret_by_what_is_read_in_the_store(shop: Shop) -> None:
    said: list[str] = []

    def person(text: str) -> None:
        said.append(text)
        assert f"the client {CLIENT!r} at {shop.issuer.url}" in text
        assert f"Read it at {SecretReference.parse(REFERENCE)}, field client_secret_pending" in text
        shop.issuer.set_secret(CLIENT, shop.store.clear["client_secret_pending"])

    report = shop.rotation(Manual(say=person, slots=1)).run()
    assert report.result == "done"
    assert len(said) == 1
    assert shop.works()
    shop.shows_nothing(report, *said)


def test_until_the_person_has_done_it_the_old_secret_works_and_another_run_goes_on(shop: Shop) -> None:
    said: list[str] = []
    report = shop.rotation(Manual(say=said.append, slots=1), max_wait=600.0).run()
    assert report.result == "waiting"
    assert shop.works()
    shop.issuer.set_secret(CLIENT, shop.store.clear["client_secret_pending"])
    assert shop.works()
    report = shop.rotation(Manual(say=said.append, slots=1)).resume()
    assert report.result == "done"
    assert len(said) == 2  # the other process says it, too
    shop.shows_nothing(report, *said)


def test_an_abort_has_the_person_put_the_old_secret_back(shop: Shop) -> None:
    said: list[str] = []

    def person(text: str) -> None:
        said.append(text)
        if text.startswith("Put the current secret back"):
            shop.issuer.set_secret(CLIENT, shop.store.clear["client_secret"])

    shop.rotation(Manual(say=said.append, slots=1, landing=60.0), max_wait=100.0).run()
    shop.issuer.set_secret(CLIENT, shop.store.clear["client_secret_pending"])
    report = shop.rotation(Manual(say=person, slots=1, landing=60.0)).abort()
    assert report.result == "done"
    assert shop.store.clear["client_secret"] == FIRST
    assert shop.works()
    shop.shows_nothing(report, *said)


# --- RFC 7592, at Authlib


@pytest.fixture
def server() -> Iterator[AuthlibServer]:
    with AuthlibServer(client_id=CLIENT, client_secret=FIRST, scopes=SCOPES) as server:
        server.rotates_token = True
        yield server


def _rotated(server: AuthlibServer, store: Memory, **policy: Any) -> Report:
    clock = TickingClock()
    source = TokenSource(REFERENCE, stores={"memory": store}, token_url=server.token_url, clock=clock)
    said = {"accept_gap": True, "force": True, "wait": 0.0, "soak": 0.0, **policy}
    return Rotation(source, Registration(), policy=Policy(**said)).run()


def _store(server: AuthlibServer, uri: str) -> Memory:
    return Memory(
        client_id=CLIENT,
        client_secret=FIRST,
        registration_client_uri=uri,
        registration_access_token=server.registration_token,
    )


def test_an_update_changes_the_secret_and_the_next_one_has_its_token(server: AuthlibServer) -> None:
    store = _store(server, server.registration_uri)
    for _ in range(2):
        assert _rotated(server, store).result == "done"
        assert store.clear["client_secret"] == server.client_secret
        assert store.clear["registration_access_token"] == server.registration_token


def test_an_update_whose_answer_was_lost_is_found_again(server: AuthlibServer) -> None:
    server.rotates_token = False
    relay = Relay(server.issuer)
    with relay.server:
        store = _store(server, f"{relay.server.origin}/oauth/register/{CLIENT}")
        relay.lost = ["PUT"]
        assert _rotated(server, store).result == "done"
        assert [one.method for one in relay.passed] == ["GET", "PUT", "GET"]
    assert store.clear["client_secret"] == server.client_secret != FIRST


def test_without_a_word_about_the_gap_nothing_is_begun(server: AuthlibServer) -> None:
    store = _store(server, server.registration_uri)
    with pytest.raises(ConfigurationError, match="calls may fail"):
        _rotated(server, store, accept_gap=False)
    assert (store.writes, server.client_secret) == ([], FIRST)
