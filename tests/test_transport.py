"""transport: against real sockets. What goes wrong ends in time, in one error of ours, and shows no secret."""

from __future__ import annotations

import base64
import logging
import os
import pickle
import pprint
import re
import select
import socket
import ssl
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, quote_plus

import httpx
import pytest
import trustme

from secretsource import TokenSource
from secretsource import transport as transport_module
from secretsource.answer import Refusal, read_answer
from secretsource.clock import Deadline
from secretsource.credentials import ClientCredentials
from secretsource.endpoint import IssuerProfile, token_request
from secretsource.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidTokenResponse,
    IssuerUnavailable,
    SecretSourceError,
)
from secretsource.exchange import Answer, Outgoing
from secretsource.identity import Identity
from secretsource.testing import Answer as Reply
from secretsource.testing import FakeIssuer, Fault, LoopbackServer, TickingClock
from secretsource.testing.loopback import Incoming
from secretsource.transport import Transport

SECRET = "canary-7Gq2vB9xLw4t/+ %é"
CREDENTIALS = ClientCredentials("pos", SECRET)
IDENTITY = Identity("", "https://issuer.test/", "", "env://POS", "pos")
METHODS = ["client_secret_basic", "client_secret_post"]
LONG = 10.0
SHORT = 0.5


def request_to(url: str, method: str = "client_secret_basic") -> Outgoing:
    return token_request(url, IDENTITY, CREDENTIALS, method, IssuerProfile())


def send(
    url: str, transport: Transport | None = None, *, seconds: float = LONG, method: str = "client_secret_basic"
) -> Answer:
    return (transport or Transport()).send(request_to(url, method), Deadline(seconds), phase="token request")


def failure(
    url: str, transport: Transport | None = None, *, seconds: float = LONG, method: str = "client_secret_basic"
) -> SecretSourceError:
    """The error that sending ends in, looked through for the secret and for what may hold it."""
    with pytest.raises(SecretSourceError) as caught:
        send(url, transport, seconds=seconds, method=method)
    assert_clean(caught.value)
    return caught.value


def forms_of_the_secret() -> list[str]:
    basic = request_to("https://issuer.test/").open()[0]["Authorization"]
    plain_pair = base64.b64encode(f"pos:{SECRET}".encode()).decode()
    alone = base64.b64encode(SECRET.encode()).decode()
    return ["canary", quote(SECRET, safe=""), quote_plus(SECRET), basic.split()[1], plain_pair, alone]


def assert_clean(error: BaseException) -> None:
    """No other library's exception hangs on it, and no form of the secret is in it or in the frames behind it."""
    assert (error.__cause__, error.__context__) == (None, None)
    for value in (*vars(error).values(), *error.args):
        assert type(value).__module__ in ("builtins", "datetime"), value
    shown = f"{error} {error!r} {pprint.pformat(vars(error))} {pickle.dumps((error.args, vars(error)))!r}"
    shown += "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert [form for form in forms_of_the_secret() if form in shown] == []


# --- servers that say what a test wants ------------------------------------------------------------------------------


class Peer:
    """Listens on loopback and does with each connection what a function says. `received` is what came, in pieces."""

    def __init__(self, talk: Callable[[Peer, socket.socket], None]) -> None:
        self._talk = talk
        self.connections = 0
        self.received = bytearray()
        self.ending = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ending.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        with connection, suppress(OSError):
            self._talk(self, connection)

    def read_head(self, connection: socket.socket) -> bytes:
        """The request up to its blank line; more of it stays in `received`."""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(4096)
            if not piece:
                break
            head += piece
        self.received += head
        return head

    def drip(self, connection: socket.socket, data: bytes, seconds: float = 0.05) -> None:
        for position in range(len(data)):
            if self.ending.wait(seconds):
                return
            connection.sendall(data[position : position + 1])


def answering(data: bytes) -> Callable[[Peer, socket.socket], None]:
    """Reads the request, writes this, and closes."""

    def talk(peer: Peer, connection: socket.socket) -> None:
        peer.read_head(connection)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):  # a close with unread bytes would be a reset, which may overtake the answer
            pass

    return talk


def says_nothing(peer: Peer, connection: socket.socket) -> None:
    peer.ending.wait(10)


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer() as issuer:
        issuer.add_client("pos", SECRET)
        yield issuer


@dataclass(frozen=True)
class Tls:
    """An authority, and server contexts of which only `good` is what it should be."""

    authority: trustme.CA
    ca_file: Path
    good: ssl.SSLContext
    wrong_host: ssl.SSLContext
    expired: ssl.SSLContext
    not_yet: ssl.SSLContext
    other_authority: ssl.SSLContext
    for_issuer_test: ssl.SSLContext


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    def context(authority: trustme.CA, *names: str, **times: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*(names or ("127.0.0.1", "localhost")), **times).configure_cert(context)
        return context

    authority, now = trustme.CA(), datetime.now(UTC)
    ca_file = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    return Tls(
        authority,
        ca_file,
        context(authority),
        context(authority, "elsewhere.test"),
        context(authority, not_before=now - timedelta(days=9), not_after=now - timedelta(days=2)),
        context(authority, not_before=now + timedelta(days=2), not_after=now + timedelta(days=9)),
        context(trustme.CA()),
        context(authority, "issuer.test"),
    )


# --- what it does when all is well -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_comes_back_whatever_its_status(issuer: FakeIssuer, method: str) -> None:
    answer = send(issuer.token_url, method=method)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.members()[0]["token_type"] == "Bearer"
    issuer.fail(Fault(status=503, headers={"Retry-After": "7"}))
    answer = send(issuer.token_url, method=method)
    assert (answer.status, answer.headers["retry-after"]) == (503, "7")
    assert [request.auth_method for request in issuer.requests] == [method, method]


def test_neither_compression_nor_a_lasting_connection_is_asked_for(issuer: FakeIssuer) -> None:
    send(issuer.token_url)
    headers = issuer.requests[0].headers
    assert (headers["accept-encoding"], headers["connection"]) == ("identity", "close")
    assert headers["accept"] == "application/json"


def test_each_request_has_a_connection_of_its_own() -> None:
    with Peer(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")) as peer:
        transport = Transport()
        for _ in range(3):
            send(f"http://127.0.0.1:{peer.port}/", transport)
        assert peer.connections == 3


SECRET_LIKE_AN_ID = "canary-that-looks-like-an-id"
PAIR_LIKE_AN_ID = base64.b64encode(f"pos:{SECRET_LIKE_AN_ID}".encode()).decode()


@pytest.mark.parametrize(
    ("method", "echoed"),
    [
        ("client_secret_basic", SECRET_LIKE_AN_ID),
        ("client_secret_basic", PAIR_LIKE_AN_ID),
        ("client_secret_post", f"id:{SECRET_LIKE_AN_ID}"),
    ],
)
def test_a_request_id_that_repeats_the_secret_is_not_taken(issuer: FakeIssuer, method: str, echoed: str) -> None:
    issuer.fail(Fault(status=400, headers={"X-Request-Id": echoed, "X-Correlation-Id": "abcdefgh"}))
    credentials = ClientCredentials("pos", SECRET_LIKE_AN_ID)
    outgoing = token_request(issuer.token_url, IDENTITY, credentials, method, IssuerProfile())
    answer = Transport().send(outgoing, Deadline(LONG), phase="token request")
    assert answer.headers["x-request-id"] == echoed
    clock = TickingClock()
    refusal = read_answer(answer, IDENTITY, IssuerProfile(), obtained=clock.now(), clock=clock, default_lifetime=300)
    assert isinstance(refusal, Refusal)
    assert refusal.request_id == "abcdefgh"


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_a_certificate_of_the_given_authority_is_accepted(tls: Tls, scheme: str) -> None:
    with FakeIssuer(ssl_context=tls.good) as issuer:
        issuer.add_client("pos", SECRET)
        assert send(issuer.token_url.replace("https", scheme), Transport(ca_file=tls.ca_file)).status == 200


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("wrong_host", "for another (host name|address)"),
        ("expired", "has expired"),
        ("not_yet", "not valid yet"),
        ("other_authority", "authority that is not trusted"),
    ],
)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_every_other_certificate_is_refused_before_the_secret_leaves(
    tls: Tls, fault: str, said: str, host: str
) -> None:
    with FakeIssuer(ssl_context=getattr(tls, fault), host=host) as issuer:
        error = failure(issuer.token_url, Transport(ca_file=tls.ca_file))
        assert issuer.requests == []
    assert type(error) is IssuerUnavailable
    assert not error.retryable
    assert error.hint is not None
    assert re.search(said, str(error))


def test_an_authority_that_nobody_named_is_not_trusted(tls: Tls) -> None:
    with FakeIssuer(ssl_context=tls.good) as issuer:
        error = failure(issuer.token_url)
        assert issuer.requests == []
    assert "not trusted" in str(error)
    assert not error.retryable


def _speaks_tls_1_1(context: ssl.SSLContext) -> bool:
    """Whether a client of this OpenSSL that wants nothing newer gets through to such a server."""
    client = _only_tls_1_1(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with LoopbackServer(lambda incoming: Reply(), ssl_context=context) as server:
        host, _, port = server.origin.removeprefix("https://").partition(":")
        try:
            with socket.create_connection((host, int(port)), 5) as plain, client.wrap_socket(plain):
                return True
        except OSError:
            return False


def _only_tls_1_1(context: ssl.SSLContext) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL 3 has no cipher left for it otherwise
    return context


def test_tls_1_1_is_not_spoken(tls: Tls) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.authority.issue_cert("127.0.0.1").configure_cert(context)
    if not _speaks_tls_1_1(_only_tls_1_1(context)):
        pytest.skip(f"{ssl.OPENSSL_VERSION} cannot serve TLS 1.1 any more")
    with FakeIssuer(ssl_context=context) as issuer:
        error = failure(issuer.token_url, Transport(ca_file=tls.ca_file))
        assert issuer.requests == []
    assert type(error) is IssuerUnavailable
    assert not error.retryable
    assert "no longer safe" in str(error)


def test_a_port_that_speaks_no_tls_gets_no_request() -> None:
    def talk(peer: Peer, connection: socket.socket) -> None:
        peer.received += connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Peer(talk) as peer:
        error = failure(f"https://127.0.0.1:{peer.port}/")
        assert peer.received.startswith(b"\x16\x03")  # a handshake, and nothing else
    assert type(error) is IssuerUnavailable
    assert "no TLS" in str(error)
    assert not error.retryable


def broken_pem(tmp_path: Path) -> Path:
    path = tmp_path / "broken.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n")
    return path


@pytest.mark.parametrize(
    "make", [broken_pem, lambda folder: folder / "absent.pem", lambda folder: folder, lambda folder: "a\x00b"]
)
def test_a_ca_file_that_is_none_is_a_configuration_error(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    error = failure("https://127.0.0.1:1/", Transport(ca_file=make(tmp_path)))
    assert type(error) is ConfigurationError
    assert "ca_file" in str(error)
    assert "PEM" in str(error)


# --- redirects -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", METHODS)
def test_a_redirect_takes_the_secret_nowhere(issuer: FakeIssuer, status: int, method: str) -> None:
    with Peer(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")) as second:
        for target in (f"http://127.0.0.1:{second.port}/", f"//127.0.0.1:{second.port}/", issuer.introspection_url):
            issuer.fail(Fault(redirect=target, status=status), times=1)
            assert send(issuer.token_url, method=method).status == status
        assert second.connections == 0
    assert {request.path for request in issuer.requests} == {"/connect/token"}


# --- the deadline ----------------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2000\r\n\r\n"


def drips_a_handshake(peer: Peer, connection: socket.socket) -> None:
    peer.drip(connection, b"\x16\x03\x03\x40\x00" + bytes(1000))


def drips_a_head(peer: Peer, connection: socket.socket) -> None:
    peer.read_head(connection)
    peer.drip(connection, b"HTTP/1.1 200 OK\r\n" + b"X-Name: value\r\n" * 100)


def drips_a_body(peer: Peer, connection: socket.socket) -> None:
    peer.read_head(connection)
    connection.sendall(HEAD)
    peer.drip(connection, b" " * 1000)


def drips_chunks(peer: Peer, connection: socket.socket) -> None:
    peer.read_head(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    peer.drip(connection, b"1\r\n \r\n" * 200)


def drips_100_continue(peer: Peer, connection: socket.socket) -> None:
    peer.read_head(connection)
    for _ in range(200):
        if peer.ending.wait(0.05):
            return
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def ended_by_the_deadline(url: str, transport: Transport | None = None) -> DeadlineExceeded:
    began = time.monotonic()
    error = failure(url, transport, seconds=SHORT)
    assert time.monotonic() - began < SHORT + 1
    assert isinstance(error, DeadlineExceeded)
    assert error.phase == "token request"
    assert "0.5 s" in str(error)
    assert error.retryable
    return error


@pytest.mark.parametrize(
    ("scheme", "talk"),
    [
        ("https", drips_a_handshake),
        ("https", says_nothing),
        ("http", says_nothing),
        ("http", drips_a_head),
        ("http", drips_a_body),
        ("http", drips_chunks),
        ("http", drips_100_continue),
    ],
)
def test_a_peer_that_drips_or_says_nothing_is_ended_by_the_deadline(
    scheme: str, talk: Callable[[Peer, socket.socket], None]
) -> None:
    with Peer(talk) as peer:
        ended_by_the_deadline(f"{scheme}://127.0.0.1:{peer.port}/token")


@pytest.mark.parametrize("fault", [Fault(drip_head=0.05), Fault(drip_body=0.05), Fault(hang=True)])
def test_so_is_one_that_drips_inside_tls(tls: Tls, fault: Fault) -> None:
    with FakeIssuer(ssl_context=tls.good) as issuer:
        issuer.add_client("pos", SECRET)
        issuer.fail(fault)
        ended_by_the_deadline(issuer.token_url, Transport(ca_file=tls.ca_file))


def test_a_redirect_to_where_nothing_can_be_is_an_answer_like_another(issuer: FakeIssuer) -> None:
    issuer.fail(Fault(redirect="http://[nowhere"), times=1)
    answer = send(issuer.token_url)
    assert (answer.status, answer.headers.get("location")) == (307, None)


def test_a_slow_answer_that_is_whole_in_time_is_taken() -> None:
    def talk(peer: Peer, connection: socket.socket) -> None:
        peer.read_head(connection)
        peer.drip(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 0.01)

    with Peer(talk) as peer:
        assert send(f"http://127.0.0.1:{peer.port}/").body() == b"{}"


# --- answers that are none -------------------------------------------------------------------------------------------

RESET = Fault(reset=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nBad Name: canary\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: canary\x00\r\n\r\n{}",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46" * 10,
        b"HTTP/1.1 200 OK\r\nX: " + b"canary" * 50_000,
    ],
    ids=range(13),
)
def test_an_answer_that_is_cut_off_or_no_http_is_the_issuers_outage(data: bytes, method: str) -> None:
    with Peer(answering(data)) as peer:
        error = failure(f"http://127.0.0.1:{peer.port}/token", method=method)
    assert type(error) is IssuerUnavailable
    assert error.retryable
    assert "broke its answer off, or speaks no HTTP" in str(error)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fault", [Fault(cut_after=5), Fault(content_length=5000), RESET], ids=["cut", "long", "reset"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_so_is_one_that_is_cut_or_reset_by_a_server(tls: Tls, fault: Fault, method: str, encrypted: bool) -> None:
    with FakeIssuer(ssl_context=tls.good if encrypted else None) as issuer:
        issuer.add_client("pos", SECRET)
        issuer.fail(fault)
        error = failure(issuer.token_url, Transport(ca_file=tls.ca_file), method=method)
    assert type(error) is IssuerUnavailable
    assert error.retryable
    assert "handshake" not in str(error)


def test_a_body_longer_than_its_length_is_cut_there() -> None:
    with Peer(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}canary")) as peer:
        assert send(f"http://127.0.0.1:{peer.port}/").body() == b"{}"


@pytest.mark.parametrize(
    "fault",
    [Fault(padding=1024 * 1024), Fault(status=503, body=b"x" * 1_500_000), Fault(body=b"x" * (1024 * 1024 + 1))],
)
def test_more_than_a_mebibyte_is_refused(issuer: FakeIssuer, fault: Fault) -> None:
    issuer.fail(fault)
    error = failure(issuer.token_url)
    assert type(error) is InvalidTokenResponse
    assert error.status == (fault.status or 200)
    assert "1048576 bytes" in str(error)


def test_a_mebibyte_is_not_too_much(issuer: FakeIssuer) -> None:
    issuer.fail(Fault(body=b"x" * (1024 * 1024)))
    assert len(send(issuer.token_url).body()) == 1024 * 1024


def test_an_endless_body_is_not_read_to_its_end() -> None:
    def talk(peer: Peer, connection: socket.socket) -> None:
        peer.read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not peer.ending.is_set():
            connection.sendall(bytes(65536))

    with Peer(talk) as peer:
        assert "more than" in str(failure(f"http://127.0.0.1:{peer.port}/"))


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "GZIP", "zstd", "identity, gzip", "gzip, identity", "x"])
def test_a_compressed_answer_is_refused_unread(issuer: FakeIssuer, encoding: str) -> None:
    issuer.fail(Fault(body=b"canary", headers={"Content-Encoding": encoding}))
    error = failure(issuer.token_url)
    assert type(error) is InvalidTokenResponse
    assert "compressed" in str(error)
    issuer.fail(Fault(headers={"Content-Encoding": "Identity"}), times=1)
    assert send(issuer.token_url).status == 200


def test_html_comes_back_as_the_answer_that_it_is(issuer: FakeIssuer) -> None:
    issuer.fail(Fault(body=b"<html>canary", headers={"Content-Type": "text/html"}))
    answer = send(issuer.token_url)
    assert answer.members() == ({}, "is not JSON")
    assert "canary" not in repr(answer)


# --- nobody there ----------------------------------------------------------------------------------------------------


def test_a_refused_connection_is_said_and_may_be_tried_again(issuer: FakeIssuer) -> None:
    with issuer.down():
        error = failure(issuer.token_url)
    assert type(error) is IssuerUnavailable
    assert error.retryable
    assert "connection refused" in str(error)


def test_a_name_that_is_not_found_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "canary")

    monkeypatch.setattr(socket, "getaddrinfo", not_found)  # so that no resolver beyond loopback is asked
    error = failure("https://issuer.test/token")
    assert type(error) is IssuerUnavailable
    assert error.retryable
    assert "host name is not found" in str(error)


@pytest.mark.parametrize("url", ["https://" + "a" * 64 + ".test/", "https://a..test/", "https://xn--a.test/"])
def test_a_host_name_that_cannot_be_is_not_tried_again(url: str) -> None:
    error = failure(url)
    assert type(error) is ConfigurationError


def test_a_query_is_sent_and_not_shown(issuer: FakeIssuer) -> None:
    send(f"{issuer.token_url}?key=abc123")
    assert issuer.requests[0].query == {"key": "abc123"}
    issuer.fail(RESET)
    error = failure(f"{issuer.token_url}?key=abc123")
    assert "/connect/token" in str(error)
    assert "abc123" not in str(error)


# --- the environment -------------------------------------------------------------------------------------------------


def test_nothing_in_the_environment_is_obeyed(tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text(
        "machine 127.0.0.1 login canary password canary\ndefault login canary password c\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.ca_file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tls.ca_file.parent))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    heads: list[str] = []

    def api(incoming: Incoming) -> Reply:
        heads.append(incoming.headers["authorization"])
        return Reply(body=b"{}")

    with Peer(says_nothing) as proxy, LoopbackServer(api, ssl_context=tls.good) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy.port}")
        assert send(server.origin, Transport(ca_file=tls.ca_file)).status == 200
        assert "not trusted" in str(failure(server.origin))
        assert proxy.connections == 0
    assert heads == [request_to(server.origin).open()[0]["Authorization"]]
    assert not (tmp_path / "keys").exists()


# --- proxies ---------------------------------------------------------------------------------------------------------

PROXY_PASSWORD = "proxy-canary-5dK"


class ConnectProxy(Peer):
    """Passes every CONNECT on to one port of loopback. `heads` are the requests that it got."""

    def __init__(self, upstream: int, context: ssl.SSLContext | None = None) -> None:
        self.heads: list[bytes] = []
        self._upstream = upstream
        self._context = context
        super().__init__(lambda peer, connection: self._tunnel(connection))

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://user:{PROXY_PASSWORD}@127.0.0.1:{self.port}"

    def _tunnel(self, connection: socket.socket) -> None:
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True)
        with connection:
            self.heads.append(self.read_head(connection))
            if not self.heads[-1].startswith(b"CONNECT "):
                connection.sendall(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", self._upstream), 10) as upstream:
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self._relay(connection, upstream)

    @staticmethod
    def _relay(one: socket.socket, other: socket.socket) -> None:
        """On one thread: OpenSSL lets only one at a time read from or write to a connection."""
        with suppress(OSError):
            while True:
                buffered = isinstance(one, ssl.SSLSocket) and one.pending()
                ready = [one] if buffered else select.select([one, other], [], [], LONG)[0]
                pieces = [(source, source.recv(65536)) for source in ready]
                if not pieces or any(not piece for _, piece in pieces):
                    break
                for source, piece in pieces:
                    (other if source is one else one).sendall(piece)
        for each in (one, other):
            with suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)


@pytest.fixture
def far_issuer(tls: Tls) -> Iterator[FakeIssuer]:
    """An issuer whose name resolves nowhere: it is reached through a proxy or not at all."""
    with FakeIssuer(host="issuer.test", ssl_context=tls.for_issuer_test) as issuer:
        issuer.add_client("pos", SECRET)
        yield issuer


def port_of(issuer: FakeIssuer) -> int:
    return int(issuer.url.rstrip("/").rpartition(":")[2])


@pytest.mark.parametrize("encrypted", [False, True], ids=["http", "https"])
def test_a_proxy_passes_tls_on_and_sees_no_secret(
    tls: Tls, far_issuer: FakeIssuer, encrypted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with ConnectProxy(port_of(far_issuer), tls.good if encrypted else None) as proxy:
        answer = send(far_issuer.token_url, Transport(ca_file=tls.ca_file, proxy=proxy.url))
        assert answer.status == 200
        (head,) = proxy.heads
    assert head.startswith(f"CONNECT issuer.test:{port_of(far_issuer)} ".encode())
    login = base64.b64encode(f"user:{PROXY_PASSWORD}".encode())
    assert b"Proxy-Authorization: Basic " + login in head
    assert request_to("https://issuer.test/").open()[0]["Authorization"].encode() not in head
    assert not (tmp_path / "keys").exists()


def test_a_proxy_whose_certificate_is_not_trusted_gets_no_password(tls: Tls, far_issuer: FakeIssuer) -> None:
    with ConnectProxy(port_of(far_issuer), tls.expired) as proxy:
        error = failure(far_issuer.token_url, Transport(ca_file=tls.ca_file, proxy=proxy.url))
        assert proxy.heads == []
    assert "has expired" in str(error)
    assert not error.retryable


def test_the_certificate_behind_a_proxy_is_looked_at(tls: Tls) -> None:
    with (
        FakeIssuer(host="issuer.test", ssl_context=tls.good) as issuer,
        ConnectProxy(port_of(issuer)) as proxy,
    ):
        error = failure(issuer.token_url, Transport(ca_file=tls.ca_file, proxy=proxy.url))
        assert issuer.requests == []
    assert "another host name" in str(error)
    assert PROXY_PASSWORD not in str(error)


def test_loopback_is_reached_without_the_proxy(issuer: FakeIssuer) -> None:
    with Peer(says_nothing) as proxy:
        transport = Transport(proxy=f"http://127.0.0.1:{proxy.port}")
        assert send(issuer.token_url, transport).status == 200
        assert proxy.connections == 0


def drips_a_connect(peer: Peer, connection: socket.socket) -> None:
    peer.read_head(connection)
    peer.drip(connection, b"HTTP/1.1 200 OK\r\n" + b"X-Name: value\r\n" * 100)


def test_a_proxy_that_drips_is_ended_by_the_deadline() -> None:
    with Peer(drips_a_connect) as proxy:
        transport = Transport(proxy=f"http://user:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}")
        ended_by_the_deadline("https://issuer.test/token", transport)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 6\r\n\r\ncanary",
        b"HTTP/1.1 502 canary\r\nContent-Length: 0\r\n\r\n",
        b"",
        b"canary",
    ],
)
def test_what_a_proxy_refuses_is_an_outage_that_names_it_and_not_its_password(data: bytes) -> None:
    with Peer(answering(data)) as proxy:
        url = f"http://user:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}"
        error = failure("https://issuer.test/token", Transport(proxy=url))
    assert_shows_no_proxy_password(error)
    assert type(error) is IssuerUnavailable
    assert error.retryable
    assert "proxy" in str(error)


def assert_shows_no_proxy_password(error: BaseException) -> None:
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    login = base64.b64encode(f"user:{PROXY_PASSWORD}".encode()).decode()
    for form in (PROXY_PASSWORD, login):
        assert form not in f"{error} {error!r} {vars(error)!r} {shown}"


def test_a_proxy_that_is_not_there_is_named_as_the_one_that_refused() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://user:{PROXY_PASSWORD}@127.0.0.1:{closed.getsockname()[1]}"
        error = failure("https://issuer.test/token", Transport(proxy=url))
    assert "proxy" in str(error)
    assert "connection refused" in str(error)
    assert_shows_no_proxy_password(error)


@pytest.mark.parametrize(
    "proxy",
    [
        PROXY_PASSWORD,
        "",
        "Env",
        "127.0.0.1:3128",
        f"user:{PROXY_PASSWORD}@127.0.0.1:3128",
        f"socks9://user:{PROXY_PASSWORD}@127.0.0.1:1",
        f"http://user:{PROXY_PASSWORD}@",
        f"http://user:{PROXY_PASSWORD}@127.0.0.1:port",
        f"http://user:{PROXY_PASSWORD}@[127.0.0.1",
        5,
    ],
)
def test_what_is_no_proxy_is_a_configuration_error_that_does_not_repeat_it(proxy: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Transport(proxy=proxy)
    assert "http://HOST:PORT" in str(caught.value)
    assert PROXY_PASSWORD not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", [True, False], ids=["url", "without scheme"])
def test_proxy_env_takes_the_environments_proxy(
    tls: Tls, far_issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: bool
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    transport = Transport(ca_file=tls.ca_file, proxy="env")
    with ConnectProxy(port_of(far_issuer)) as proxy:
        monkeypatch.setenv(variable, proxy.url if scheme else proxy.url.removeprefix("http://"))
        assert send(far_issuer.token_url, transport).status == 200
        assert len(proxy.heads) == 1


def test_proxy_env_heeds_no_proxy(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def not_found(host: object, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "not found")

    with Peer(says_nothing) as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "elsewhere.test,issuer.test")
        monkeypatch.setattr(socket, "getaddrinfo", not_found)  # where it would go without the proxy
        failure("https://issuer.test/token", Transport(proxy="env"))
        assert proxy.connections == 0
    assert asked == ["issuer.test"]


def test_a_wrong_proxy_in_the_environment_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"gopher://user:{PROXY_PASSWORD}@127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    error = failure("https://issuer.test/token", Transport(proxy="env"))
    assert type(error) is ConfigurationError
    assert_shows_no_proxy_password(error)


# --- nothing stays ---------------------------------------------------------------------------------------------------


def watching() -> int:
    """How many threads are somewhere in the transport."""
    threads = (traceback.walk_stack(frame) for frame in sys._current_frames().values())
    return sum(any(frame.f_code.co_filename == Transport.send.__code__.co_filename for frame, _ in t) for t in threads)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="file descriptors are counted by means of /proc")
def test_no_thread_and_no_socket_is_left(tls: Tls) -> None:
    faults = [Fault(), Fault(drip_body=0.02), RESET, Fault(cut_after=3), Fault(padding=2_000_000), Fault(status=307)]
    with FakeIssuer(ssl_context=tls.good) as issuer, FakeIssuer(ssl_context=tls.expired) as expired:
        issuer.add_client("pos", SECRET)
        transport = Transport(ca_file=tls.ca_file)
        before = len(os.listdir("/proc/self/fd"))
        for fault in faults * 2:
            issuer.fail(fault, times=1)
            with suppress(SecretSourceError):
                send(issuer.token_url, transport, seconds=0.3 if fault.drip_body else 60)
            with suppress(SecretSourceError):
                send(expired.token_url, transport, seconds=60)
        with issuer.down(), suppress(SecretSourceError):
            send(issuer.token_url, transport)
        ends_at = time.monotonic() + 5
        while (watching() or len(os.listdir("/proc/self/fd")) > before) and time.monotonic() < ends_at:
            time.sleep(0.02)
        assert watching() == 0
        assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("method", METHODS)
def test_no_log_at_any_level_and_no_attribute_holds_the_secret(
    issuer: FakeIssuer, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection"):
        caplog.set_level(1, name)
    transport = Transport()
    for fault in (Fault(), RESET, Fault(cut_after=3), Fault(status=400), Fault(redirect="https://other.test/")):
        issuer.fail(fault, times=1)
        with suppress(SecretSourceError):
            send(issuer.token_url, transport, method=method)
    assert "connect_tcp" not in caplog.text  # httpcore would log the headers of answers
    with httpx.Client(trust_env=False) as client:
        client.get(issuer.url)
    assert "connect_tcp" in caplog.text  # a program's own requests are logged as ever
    shown = caplog.text + pprint.pformat(vars(transport))
    assert [form for form in forms_of_the_secret() if form in shown] == []


def test_certificates_of_authorities_are_read_anew_after_a_refused_one(tls: Tls, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(ca_file)
    transport = Transport(ca_file=ca_file)
    with FakeIssuer(ssl_context=tls.good) as issuer:
        issuer.add_client("pos", SECRET)
        failure(issuer.token_url, transport)
        # One that was refused may have been exchanged: the next attempt looks.
        tls.authority.cert_pem.write_to_path(ca_file)
        assert send(issuer.token_url, transport).status == 200


def test_certificates_exchanged_after_a_refusal_are_found_at_the_next_call_of_a_source(
    tls: Tls, tmp_path: Path
) -> None:
    ca_file, clock = tmp_path / "ca.pem", TickingClock()
    trustme.CA().cert_pem.write_to_path(ca_file)
    with FakeIssuer(ssl_context=tls.good) as issuer:
        issuer.add_client("pos", SECRET)
        source = TokenSource(CREDENTIALS, issuer=issuer.url, ca_file=ca_file, clock=clock)
        with pytest.raises(IssuerUnavailable, match="not trusted"):
            source.token()
        tls.authority.cert_pem.write_to_path(ca_file)
        clock.tick(1.1)
        assert issuer.accepts(source.token().access_token)


def test_a_host_that_lets_nobody_in_is_given_up_after_the_time_for_connecting() -> None:
    with socket.socket() as full, ExitStack() as fillers:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # its queue is full then, and further connections wait for ever
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(full.getsockname())
        url, deadline = f"http://127.0.0.1:{full.getsockname()[1]}/", Deadline(LONG)
        with pytest.raises(IssuerUnavailable, match="cannot be reached") as caught:
            Transport(connect_timeout=0.2).send(Outgoing("GET", url, {}), deadline, phase="a request")
        assert caught.value.retryable
        assert deadline.left() > LONG / 2


def test_the_time_for_connecting_is_shared_among_the_addresses_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def addresses(*place: Any, **how: Any) -> list[str]:
        asked.append((*place, how))
        return ["dead", "dead", "dead", "alive"]

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    for given, left in ((60.0, 2.0), (1.0, 1.0)):
        info = {"host": "issuer.test", "port": 443, "timeout": given}
        transport_module._Watchdog(Deadline(8.0)).trace("connection.connect_tcp.started", info)
        assert info["timeout"] == pytest.approx(left, abs=0.5)
    assert asked == [("issuer.test", 443, {"type": socket.SOCK_STREAM})] * 2
    late = {"host": "issuer.test", "port": 443, "timeout": 60.0}
    transport_module._Watchdog(Deadline(0.0)).trace("connection.connect_tcp.started", late)
    assert 0 < float(str(late["timeout"])) < 0.01


def test_no_single_step_is_given_more_time_than_there_is_left() -> None:
    assert Transport()._time(Deadline(5.0, TickingClock())).as_dict() == dict.fromkeys(
        ("connect", "read", "write", "pool"), 5.0
    )
    assert Transport(connect_timeout=2.0)._time(Deadline(5.0, TickingClock())).connect == 2.0
    assert Transport(connect_timeout=9.0)._time(Deadline(5.0, TickingClock())).connect == 5.0
    assert Transport()._time(Deadline(0.0, TickingClock())).read == 0.001


def test_what_other_threads_log_of_their_own_requests_is_kept() -> None:
    record = logging.LogRecord("httpx", logging.INFO, __file__, 1, "their request", (), None)
    kept: list[Any] = []
    theirs = threading.Thread(target=lambda: kept.append(logging.getLogger("httpx").filter(record)))
    theirs.start()
    theirs.join()
    assert kept != [False]


def test_what_is_no_path_of_a_file_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ca_file= is the path of a file, not int"):
        Transport(ca_file=5)  # type: ignore[arg-type]


def test_what_is_logged_while_a_request_of_ours_is_sent_is_dropped() -> None:
    transport_module._sending.now = True
    try:
        for name in ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy"):
            record = logging.LogRecord(name, logging.DEBUG, __file__, 1, SECRET, (), None)
            assert not logging.getLogger(name).filter(record), name
    finally:
        transport_module._sending.now = False


@pytest.mark.parametrize(
    ("reason", "said", "again"),
    [
        ("WRONG_VERSION_NUMBER", "speaks no TLS on this port", False),
        ("UNSUPPORTED_PROTOCOL", "no longer safe", False),
        ("WRONG_SSL_VERSION", "no longer safe", False),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "no longer safe", False),
        ("UNEXPECTED_EOF_WHILE_READING", "broke the TLS connection off (UNEXPECTED_EOF_WHILE_READING)", True),
        (None, "broke the TLS connection off (no reason given)", True),
    ],
)
def test_what_openssl_says_is_told_in_our_words(reason: str | None, said: str, again: bool) -> None:
    error = ssl.SSLError()
    error.reason = reason  # type: ignore[assignment]
    found = transport_module._classified(error, "https://issuer.test/")
    assert isinstance(found, transport_module._Fault)
    assert (said in found.what, found.retryable) == (True, again)


def test_the_first_cause_is_told_however_the_errors_hang_together() -> None:
    first, last = OSError(111, "refused"), httpx.ConnectError("")
    last.__context__, first.__context__ = first, last
    found = transport_module._classified(last, "https://issuer.test/")
    assert isinstance(found, transport_module._Fault)
    assert os.strerror(111).lower() in found.what
    other = httpx.ConnectError("")
    other.__cause__, other.__context__ = OSError(111, "refused"), ssl.SSLCertVerificationError()
    found = transport_module._classified(other, "https://issuer.test/")
    assert os.strerror(111).lower() in str(found)


def test_without_a_proxy_in_the_environment_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    assert Transport(proxy="env")._proxy_for("https://issuer.test/") is None
    monkeypatch.setenv("https_proxy", "proxy.test:8080")
    found = Transport(proxy="env")._proxy_for("https://issuer.test/")
    assert found is not None
    assert found.reveal() == "http://proxy.test:8080"
    assert Transport(proxy="env")._proxy_for("https://127.0.0.1/") is None
