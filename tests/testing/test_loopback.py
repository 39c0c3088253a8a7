from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx
import pytest

from secretsource.testing import Answer, Fault, Incoming, LoopbackServer


def test_an_api_of_ones_own_sees_the_request_and_answers() -> None:
    def answer(incoming: Incoming) -> Answer:
        said = f"{incoming.method} {incoming.path} {incoming.query} {incoming.headers['x-it']} {incoming.body.decode()}"
        return Answer(201, {"X-Own": "1"}, said.encode())

    with LoopbackServer(answer) as server, httpx.Client(base_url=server.origin, trust_env=False) as client:
        got = client.put("/orders?id=1", content="body", headers={"X-It": "2"})
    assert (got.status_code, got.headers["x-own"], got.text) == (201, "1", "PUT /orders id=1 2 body")


def test_a_request_is_not_shown_with_what_it_carries() -> None:
    shown = repr(
        Incoming("POST", "/", "q=not-a-real-secret", {"authorization": "not-a-real-secret"}, b"not-a-real-secret")
    )
    assert "not-a-real-secret" not in shown
    assert "not-a-real-secret" not in repr(Answer(body=b"not-a-real-secret", fault=Fault(body=b"not-a-real-secret")))


def test_many_requests_go_over_one_connection() -> None:
    with LoopbackServer(lambda _: Answer()) as server, httpx.Client(base_url=server.origin, trust_env=False) as client:
        ports = {client.get("/").extensions["network_stream"].get_extra_info("client_addr")[1] for _ in range(5)}
    assert len(ports) == 1


def test_head_has_no_body_and_an_odd_status_is_sent_as_it_is() -> None:
    with (
        LoopbackServer(lambda _: Answer(299, body=b"abc")) as server,
        httpx.Client(base_url=server.origin, trust_env=False) as client,
    ):
        assert (client.head("/").content, client.get("/").content) == (b"", b"abc")
        assert client.get("/").status_code == 299


@pytest.mark.parametrize("length", ["Transfer-Encoding: chunked", "Content-Length: 9999999", "Content-Length: -1"])
def test_a_body_without_a_length_or_too_large_is_refused(length: str) -> None:
    with LoopbackServer(lambda _: Answer()) as server:
        url = urlsplit(server.origin)
        with socket.create_connection((str(url.hostname), int(url.port or 0)), timeout=30) as connection:
            connection.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode())
            with connection.makefile("rb") as answer:
                assert answer.read().startswith(b"HTTP/1.1 413 ")
