"""A server on loopback that does with each connection what a script says, down to the single byte."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Self

Script = Callable[["Line"], None]

_GIVEN_UP_AFTER = 30.0


class Request(NamedTuple):
    path: str
    content: bytes
    """All of it, head included."""


class Line:
    """One connection, as its server sees it."""

    def __init__(self, peer: Peer, connection: socket.socket) -> None:
        self.peer, self._connection = peer, connection

    def read(self) -> Request | None:
        """A whole request; None where the other side goes away before its end."""
        content = b""
        while not (end := content.find(b"\r\n\r\n") + 4) >= 4 or len(content) < end + _length(content[:end]):
            piece = self.receive()
            if not piece:
                return None
            content += piece
            self.peer.received += piece
        return Request(content.split(b" ", 2)[1].decode(), content)

    def receive(self) -> bytes:
        return self._connection.recv(65536)

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def drip(self, data: bytes, seconds: float) -> None:
        """One byte at a time."""
        for position in range(len(data)):
            if self.peer.ending.wait(seconds):
                return
            self.send(data[position : position + 1])

    def hang(self) -> None:
        """Say nothing until the other side goes away."""
        while self.receive():
            pass

    def reset(self) -> None:
        """End the connection by RST."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()


class Peer:
    """Answers by `routes` (path: script), else by `otherwise`. `greeting` is done instead, before anything is read.

    With a `context` it speaks TLS. `places` are the origins that its scripts send others to. One server for many cases:
    `begin()` ends what a case before has left.
    """

    def __init__(self) -> None:
        self.context: ssl.SSLContext | None = None
        self.routes: Mapping[str, Script] = {}
        self.otherwise: Script = reply(404)
        self.greeting: Script | None = None
        self.places: Mapping[str, str] = {}
        self.requests: list[Request] = []
        self.received = bytearray()
        self.connections = 0
        self.ending = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._socket.getsockname()[1]
        self._open: dict[threading.Thread, socket.socket] = {}
        self._accepting = threading.Thread(target=self._accept, daemon=True)

    @property
    def origin(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._accepting.join(_GIVEN_UP_AFTER)
        self.let_go()

    def begin(
        self,
        routes: Mapping[str, Script],
        *,
        otherwise: Script | None = None,
        greeting: Script | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.let_go()
        self.routes, self.greeting, self.context = routes, greeting, context
        self.otherwise = otherwise or reply(404)
        self.requests, self.received, self.connections = [], bytearray(), 0

    def let_go(self) -> None:
        """End every connection, and wait until nobody talks any more."""
        self.ending.set()
        end = time.monotonic() + _GIVEN_UP_AFTER
        while self._open and time.monotonic() < end:
            for thread, connection in list(self._open.items()):
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
                thread.join(0.05)
        assert not self._open, "a script does not end"
        self.ending.clear()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.settimeout(_GIVEN_UP_AFTER)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._open[thread] = connection
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with suppress(OSError):
                self._talk(connection)
        finally:
            self._open.pop(threading.current_thread()).close()

    def _talk(self, connection: socket.socket) -> None:
        if self.greeting is not None:
            self.greeting(Line(self, connection))
            return
        if self.context is not None:
            connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            self._open[threading.current_thread()] = connection
            connection.do_handshake()
        with connection:
            line = Line(self, connection)
            request = line.read()
            if request is None:
                return
            self.requests.append(request)
            self.routes.get(request.path.partition("?")[0], self.otherwise)(line)
            # A close with bytes still unread would be a reset, which may overtake the answer.
            connection.shutdown(socket.SHUT_WR)
            line.hang()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


# --- what a script may be ---------------------------------------------------------------------------------------------

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
_JSON = {"Content-Type": "application/json"}


def head(status: int, headers: Headers = (), *, version: str = "1.1") -> bytes:
    named = headers.items() if isinstance(headers, Mapping) else headers
    lines = [f"HTTP/{version} {status} Some Words", *(f"{name}: {value}" for name, value in named)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def reply(status: int = 200, body: Any = b"", headers: Headers = ()) -> Script:
    """A well-formed answer. A body that is no bytes is written as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = [*(headers.items() if isinstance(headers, Mapping) else headers), ("Content-Length", str(len(content)))]
    return raw(head(status, [*_JSON.items(), *named]) + content)


def raw(data: bytes) -> Script:
    return lambda line: line.send(data)


def dripped(data: bytes, *, after: bytes = b"", seconds: float = 0.02) -> Script:
    """`after` at once, then the data byte by byte."""

    def script(line: Line) -> None:
        line.send(after)
        line.drip(data, seconds)

    return script


def hangs(line: Line) -> None:
    line.hang()


def resets(line: Line) -> None:
    line.reset()


def says_then_resets(data: bytes) -> Script:
    def script(line: Line) -> None:
        line.send(data)
        time.sleep(0.01)  # a RST may overtake what was sent before it; either is the same fault
        line.reset()

    return script


def then_hangs(data: bytes) -> Script:
    def script(line: Line) -> None:
        line.send(data)
        line.hang()

    return script


def closes(line: Line) -> None:
    """With no word."""


def endless(data: bytes, *, after: bytes = b"", bytes_at_most: int = 1 << 40, pause: float = 0.0) -> Script:
    """The same bytes again and again."""

    def script(line: Line) -> None:
        line.send(after)
        sent = 0
        while sent < bytes_at_most and not line.peer.ending.wait(pause):
            line.send(data)
            sent += len(data)

    return script


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def bomb(megabytes: int, *, wbits: int) -> bytes:
    """A stream of zlib that becomes so many megabytes."""
    stream, blanks = zlib.compressobj(9, wbits=wbits), bytes(1 << 20)
    first, again = (stream.compress(blanks) + stream.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + again * (megabytes - 1)
