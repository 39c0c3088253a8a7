"""What cannot be ended from here, a plug-in or a name server that hangs: its threads are counted, and callers go."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import boto3
import pytest

from secretsource import ClientCredentials, DeadlineExceeded, SecretSourceError, TokenSource
from secretsource.backends.aws import AwsBackend
from secretsource.backends.vault import StaticToken, VaultBackend
from secretsource.testing import FakeIssuer

from ..stores import CLIENT, LONG, A, Store, eventually
from .answers import AWS_KEY, AWS_SESSION, SECRET_ID
from .bench import Bench, gone_within, secrets_in, shown_by, threads_at_work

SHORT = 0.2
BOUND = 4
NAME = "elsewhere.test"


def asked_in_vain(source: TokenSource, number: int) -> SecretSourceError:
    """A call that ends in time, of a scope of its own, so that no call before it answers for it."""
    began = time.monotonic()
    with pytest.raises(SecretSourceError) as caught:
        source.token(scope=f"scope.{number}")
    assert time.monotonic() - began < SHORT + 1
    assert isinstance(caught.value, DeadlineExceeded)
    assert caught.value.hint
    assert secrets_in(shown_by(caught.value)) == []
    return caught.value


def counted_and_bounded(source: TokenSource, let_go: Callable[[], object]) -> None:
    numbers = itertools.count()

    def refused_at_once() -> bool:
        said = str(asked_in_vain(source, next(numbers)))
        assert source.status().orphaned_threads <= BOUND
        return "still hang" in said

    eventually(refused_at_once, "it goes on making threads")
    assert source.status().orphaned_threads == BOUND
    let_go()
    eventually(lambda: source.status().orphaned_threads == 0 and not threads_at_work(), "its threads stay")


def test_a_plug_in_that_hangs_holds_four_threads_and_they_end_with_it() -> None:
    store = Store()
    with FakeIssuer() as issuer:
        issuer.add_client(CLIENT, A)
        source = TokenSource("memory://pos", token_url=issuer.token_url, stores=store.stores, timeout=SHORT)
        with ExitStack() as holding:
            holding.enter_context(store.held())
            counted_and_bounded(source, holding.close)
        assert issuer.token_requests == 0
        assert issuer.accepts(source.token(timeout=LONG).access_token)


class Names:
    """A resolver that hangs at one name."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._answering = threading.Event()
        self._ask = socket.getaddrinfo

    def look_up(self, host: Any, *given: Any, **options: Any) -> Any:
        if host == "127.0.0.1":
            return self._ask(host, *given, **options)
        self.asked.append(str(host))
        assert self._answering.wait(LONG)
        raise socket.gaierror(socket.EAI_NONAME, "not found")

    def answer(self) -> None:
        self._answering.set()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.look_up)
    yield names
    names.answer()
    eventually(lambda: not threads_at_work(), "a look-up hangs on")


CREDENTIALS = ClientCredentials(CLIENT, A)


def at_the_token_endpoint() -> TokenSource:
    return TokenSource(CREDENTIALS, token_url=f"https://{NAME}/token", timeout=SHORT)


def at_the_metadata() -> TokenSource:
    return TokenSource(CREDENTIALS, issuer=f"https://{NAME}", timeout=SHORT)


def at_the_proxy() -> TokenSource:
    return TokenSource(CREDENTIALS, token_url="https://issuer.test/token", proxy=f"http://{NAME}:1", timeout=SHORT)


def at_vault() -> TokenSource:
    given = Store(client_secret=SECRET_ID)
    vault = VaultBackend(f"https://{NAME}", auth=StaticToken("given:t#client_secret"), stores={"given": given})
    return _through(vault, "vault://kv/prod/pos")


def at_aws() -> TokenSource:
    session = boto3.Session("AKIDTESTING", AWS_KEY, AWS_SESSION, region_name="eu-west-1")
    return _through(AwsBackend(session=session), "aws://prod/pos")


def _through(store: Any, reference: str) -> TokenSource:
    stores = {reference.partition(":")[0]: store}
    return TokenSource(reference, token_url="http://127.0.0.1:1/token", stores=stores, timeout=SHORT)


@pytest.mark.parametrize("made", [at_the_token_endpoint, at_the_metadata, at_the_proxy, at_vault, at_aws])
def test_a_name_server_that_hangs_holds_four_threads_and_they_end_with_it(
    made: Callable[[], TokenSource], names: Names
) -> None:
    counted_and_bounded(made(), names.answer)
    assert names.asked
    assert len(names.asked) <= BOUND


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What every name leads to."""
    found: list[tuple[str, int]] = []
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in found]
    )
    return found


def test_addresses_that_let_nobody_in_share_the_time_of_a_call(bench: Bench, addresses: list[tuple[str, int]]) -> None:
    addresses += [bench.full.getsockname()] * 8
    source = at_the_token_endpoint()
    asked_in_vain(source, 0)
    assert gone_within(1.0, source, set(), 0) == []


def test_an_address_that_lets_nobody_in_leaves_time_for_the_next_one(
    bench: Bench, addresses: list[tuple[str, int]]
) -> None:
    with FakeIssuer() as issuer:
        issuer.add_client(CLIENT, A)
        port = int(issuer.url.rstrip("/").rpartition(":")[2])
        addresses += [bench.full.getsockname(), ("127.0.0.1", port)]
        url = f"http://{NAME}:{port}/connect/token"
        source = TokenSource(CREDENTIALS, token_url=url, plain_http=(f"{NAME}:{port}",), timeout=3.0)
        assert issuer.accepts(source.token().access_token)
