"""A small HTTP server on loopback that can also answer badly. `FakeIssuer` stands on it; so may the API of a test.

An answer leaves in one write, without Nagle's delay, and every thread ends with `stop()`.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Self, cast
from urllib.parse import urlsplit

from .faults import Fault

__all__ = ["Incoming", "Answer", "LoopbackServer"]

_ADDRESS = "127.0.0.1"
_BACKLOG = 512
_BODY_AT_MOST = 1 << 20
_IDLE_AT_MOST = 60.0
_STOP_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it arrived. Names of headers are in lower case; headers and body are not shown by repr."""

    method: str
    path: str
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back, and the fault with which it is sent."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    fault: Fault = field(default_factory=Fault)


class LoopbackServer:
    """HTTP, or https with `ssl_context`, on 127.0.0.1. `answer` is called for each request, in that request's thread.

    `host` is only the name that stands in `origin`. Port 0 is any free one, kept over `stop_listening()`.
    A context manager.
    """

    def __init__(
        self,
        answer: Callable[[Incoming], Answer],
        *,
        host: str = _ADDRESS,
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._answer = answer
        self._host = host
        self._port = port
        self._ssl_context = ssl_context
        self._listener: _Listener | None = None
        self._reserved: socket.socket | None = None

    @property
    def origin(self) -> str:
        """Scheme, host and port, without a slash at the end. Known from the first start on."""
        if not self._port:
            raise RuntimeError("the port is known once the server has been started")
        return f"{'https' if self._ssl_context else 'http'}://{self._host}:{self._port}"

    def start(self) -> Self:
        self.start_listening()
        return self

    def stop(self) -> None:
        """End all connections and threads."""
        self.stop_listening()
        self._give_up_port()

    def start_listening(self) -> None:
        if self._listener is None:
            self._give_up_port()
            self._listener = _Listener(self._answer, self._port, self._ssl_context)
            self._port = self._listener.port

    def stop_listening(self) -> None:
        """Connections end at once and new ones are refused. The port stays ours."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
            self._reserved = _bound(self._port)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Connections are refused inside the `with`."""
        self.stop_listening()
        try:
            yield
        finally:
            self.start_listening()

    def release(self) -> None:
        """Let the answers go that hang by `Fault(hang=True)`."""
        if self._listener is not None:
            self._listener.release()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _give_up_port(self) -> None:
        reserved, self._reserved = self._reserved, None
        if reserved is not None:
            reserved.close()


def _bound(port: int) -> socket.socket | None:
    """A socket that has the port and does not listen, so that connections are refused and nobody else gets it."""
    reserved = socket.socket()
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((_ADDRESS, port))
    except OSError:  # where SO_REUSEADDR means less than on Linux: then the port is free for a while
        reserved.close()
        return None
    return reserved


class _Listener:
    """From bind to close: one thread that accepts, and one for each connection."""

    def __init__(self, answer: Callable[[Incoming], Answer], port: int, ssl_context: ssl.SSLContext | None) -> None:
        self.answer = answer
        self.closing = threading.Event()
        self._ssl_context = ssl_context
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._connections: set[socket.socket] = set()
        self._socket = socket.create_server((_ADDRESS, port), backlog=_BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name=f"loopback-{self.port}", daemon=True)
        self._accepting.start()

    def close(self) -> None:
        self.closing.set()
        # Wakes accept(): the first on Linux, also where a forked child holds the socket too; the second elsewhere.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            socket.create_connection((_ADDRESS, self.port), timeout=1).close()
        self._accepting.join(_STOP_WITHIN)
        self._socket.close()
        self.release()
        with self._lock:
            connections, threads = list(self._connections), list(self._threads)
        for connection in connections:
            with suppress(OSError):
                # Not ssl's own shutdown: that one takes the TLS state away from under the thread that reads.
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
        ends_at = time.monotonic() + _STOP_WITHIN
        for thread in threads:
            thread.join(max(0.0, ends_at - time.monotonic()))

    def release(self) -> None:
        with self._lock:
            released, self._released = self._released, threading.Event()
        released.set()

    def hang(self) -> None:
        with self._lock:
            released = self._released
        if not self.closing.is_set():
            released.wait()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if self.closing.is_set():
                connection.close()
                return
            thread = threading.Thread(
                target=self._serve, args=(connection,), name=f"loopback-{self.port}-connection", daemon=True
            )
            with self._lock:
                self._threads.add(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._ssl_context is not None:
                connection.settimeout(_IDLE_AT_MOST)
                connection = self._ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            with self._lock:
                self._connections.add(connection)
            if not self.closing.is_set():
                if isinstance(connection, ssl.SSLSocket):
                    connection.do_handshake()
                _Exchange(connection, self)
        except OSError:
            pass  # the client has gone, or TLS was refused: nothing that anybody could be told
        finally:
            connection.close()
            with self._lock:
                self._connections.discard(connection)
                self._threads.discard(threading.current_thread())


class _Exchange(BaseHTTPRequestHandler):
    """One connection: requests and answers in turn."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = _IDLE_AT_MOST

    def __init__(self, connection: socket.socket, listener: _Listener) -> None:
        self._listener = listener
        super().__init__(connection, (_ADDRESS, 0), cast(Any, None))

    def _exchange(self) -> None:
        length = self.headers.get("content-length", "0")
        if "transfer-encoding" in self.headers or not length.isdecimal() or int(length) > _BODY_AT_MOST:
            self.close_connection = True
            self._send(Answer(status=413))
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            return
        url = urlsplit(self.path)
        headers = {name.lower(): ", ".join(self.headers.get_all(name, [])) for name in self.headers}
        self._send(self._listener.answer(Incoming(self.command, url.path, url.query, headers, body)))

    do_DELETE = do_GET = do_HEAD = do_OPTIONS = do_PATCH = do_POST = do_PUT = _exchange

    def _send(self, answer: Answer) -> None:
        fault = answer.fault
        if fault.hang:
            self._listener.hang()
        if self._listener.closing.wait(fault.latency) if fault.latency else self._listener.closing.is_set():
            self.close_connection = True
            return
        if fault.reset:
            self._reset()
            return
        if fault.disturbs_sending:
            self.close_connection = True
        head, body = self._head(answer), b"" if self.command == "HEAD" else answer.body
        if fault.cut_after is not None:
            body = body[: fault.cut_after]
        if not fault.drip_head and not fault.drip_body:
            self.connection.sendall(head + body)
            return
        self._drip(head, fault.drip_head)
        self._drip(body, fault.drip_body)

    def _head(self, answer: Answer) -> bytes:
        length = len(answer.body) if answer.fault.content_length is None else answer.fault.content_length
        headers = {"Date": formatdate(usegmt=True), "Content-Length": str(length), **answer.headers}
        if self.close_connection:
            headers["Connection"] = "close"
        try:
            phrase = HTTPStatus(answer.status).phrase
        except ValueError:
            phrase = "Unknown"
        lines = [f"HTTP/1.1 {answer.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _drip(self, data: bytes, seconds: float) -> None:
        if not seconds:
            self.connection.sendall(data)
            return
        for position in range(len(data)):
            self.connection.sendall(data[position : position + 1])
            if self._listener.closing.wait(seconds):
                return

    def _reset(self) -> None:
        # With no time to linger a close sends RST, if no other object holds the socket open and no FIN went before.
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed: what arrived is in the records of whoever answers."""
