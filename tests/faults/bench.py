"""What is called in a case, and what must hold after the call whatever the fault was."""

from __future__ import annotations

import base64
import os
import pprint
import socket
import ssl
import sys
import time
import traceback
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import boto3
import trustme

import secretsource
from secretsource import ClientCredentials, SecretReference, SecretSourceError, Token, TokenSource
from secretsource.backends.aws import AwsBackend
from secretsource.backends.vault import AppRole, VaultBackend
from secretsource.backends.vault import wire as _hvac  # noqa: F401 - so that no first row pays for the import
from secretsource.clock import Clock
from secretsource.credentials import Document
from secretsource.secret import Secret
from secretsource.testing import TickingClock

from .answers import (
    AWS_ANSWER,
    AWS_KEY,
    AWS_SESSION,
    CLIENT,
    SECRET,
    SECRET_ID,
    SECRETS,
    TOKEN_ANSWER,
    TOKEN_PATH,
)
from .peer import Peer, Script, reply
from .rows import Question, Row

WAIT, UNHURRIED = 0.3, 10.0
"""Seconds that a call is given where the fault is that it would wait for ever, and elsewhere."""


# --- the sources that are called --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """How a token is asked for: `origin` is where the server of the case is, `timeout` the time it is given."""

    origin: str
    issuer: str
    ca_file: Path
    method: str | None
    timeout: float
    clock: Clock | None

    def token(self) -> TokenSource:
        return self._direct(token_url=f"{self.origin}{TOKEN_PATH}")

    def discovery(self) -> TokenSource:
        return self._direct(issuer=self.origin)

    def proxy(self) -> TokenSource:
        return self._direct(token_url="https://issuer.test/token", proxy=self.origin)

    def vault(self) -> TokenSource:
        return self._through("vault://kv/prod/pos", vault=self.vault_store())

    def aws(self) -> TokenSource:
        return self._through("aws://prod/pos", aws=self.aws_store())

    def vault_store(self) -> VaultBackend:
        login = AppRole("role", "given:secret-id")
        stores = {"given": _Given()}
        return VaultBackend(self.origin, auth=login, ca_file=self.ca_file, timeout=self.timeout, stores=stores)

    def aws_store(self) -> AwsBackend:
        return _aws_store(self.origin, self.timeout)

    def _direct(self, **where: Any) -> TokenSource:
        return self._source(ClientCredentials(CLIENT, SECRET), timeout=self.timeout, **where)

    def _through(self, reference: str, **stores: Any) -> TokenSource:
        """A source whose issuer is well, and whose own time is longer than the store's."""
        return self._source(reference, token_url=f"{self.issuer}{TOKEN_PATH}", stores=stores, timeout=UNHURRIED)

    def _source(self, credentials: Any, **options: Any) -> TokenSource:
        return TokenSource(credentials, ca_file=self.ca_file, auth_method=self.method, clock=self.clock, **options)


@lru_cache
def _aws_store(origin: str, timeout: float) -> AwsBackend:
    """One for many calls: botocore takes longer and more memory to make a client than any fault may."""
    return AwsBackend(
        session=boto3.Session("AKIDTESTING", AWS_KEY, AWS_SESSION, region_name="eu-west-1"),
        endpoint_url=origin,
        attempts=1,
        connect_timeout=timeout * 0.9,
        read_timeout=timeout * 0.1,  # one attempt has the sum of both
    )


class _Given:
    """The store that keeps Vault's secret ID."""

    options: frozenset[str] = frozenset()
    ttl: float | None = 300.0

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        return Document(Secret(SECRET_ID))


# --- the servers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificates:
    """Server contexts by the fault of their certificate, and the authority that the calls trust."""

    ca_file: Path
    contexts: dict[str, ssl.SSLContext]

    @classmethod
    def made_in(cls, folder: Path) -> Certificates:
        ours, now = trustme.CA(), datetime.now(UTC)
        ca_file = folder / "authority.pem"
        ours.cert_pem.write_to_path(ca_file)
        day = timedelta(days=1)
        contexts = {
            "good": _context(ours),
            "wrong host": _context(ours, "elsewhere.test"),
            "expired": _context(ours, not_before=now - 9 * day, not_after=now - 2 * day),
            "not yet valid": _context(ours, not_before=now + 2 * day, not_after=now + 9 * day),
            "other authority": _context(trustme.CA()),
            "signed by itself": _signed_by_itself(folder),
            "TLS 1.1": only_tls_1_1(_context(ours)),
        }
        return cls(ca_file, contexts)


def speaks_tls_1_1(server: ssl.SSLContext) -> bool:
    """Whether a client that wants nothing newer gets through to it: a system may forbid that."""
    client = only_tls_1_1(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)
    try:
        for end in ends * 3:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLError:
        return False
    return ends[0].version() == "TLSv1.1"


def _context(authority: trustme.CA, *names: str, **times: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1",)), **times).configure_cert(context)
    return context


def _signed_by_itself(folder: Path) -> ssl.SSLContext:
    """A server that shows an authority's own certificate."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.private_key_pem.write_to_path(folder / "itself.pem")
    authority.cert_pem.write_to_path(folder / "itself.pem", append=True)
    context.load_cert_chain(folder / "itself.pem")
    return context


def only_tls_1_1(context: ssl.SSLContext) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL 3 has no cipher left for it otherwise
    return context


class Bench:
    """The server with the fault, an issuer that is well, and two strangers who would give a token to anybody."""

    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates
        self.peer, self.issuer, self.stranger, self.tls_stranger = Peer(), Peer(), Peer(), Peer()
        self._stack = ExitStack()

    def __enter__(self) -> Bench:
        for server in (self.peer, self.issuer, self.stranger, self.tls_stranger):
            self._stack.enter_context(server)
        self.nobody = self._stack.enter_context(socket.socket())
        self.nobody.bind(("127.0.0.1", 0))
        self.full = self._stack.enter_context(socket.socket())
        self._fill(self.full)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _fill(self, listener: socket.socket) -> None:
        """Its queue is full then, and further connections wait for ever."""
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = self._stack.enter_context(socket.socket())
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(listener.getsockname())

    def prepared(self, row: Row, question: Question) -> TokenSource:
        """The servers are as the case wants them, and this source is to be called."""
        closed = {"nobody": self.nobody, "full": self.full}.get(row.door)
        context = None if row.tls is None else self.certificates.contexts[row.tls]
        timeout = WAIT if row.waits else UNHURRIED
        # With a clock that stands still but for pauses, three attempts take no time.
        clock = None if row.waits else TickingClock()
        if question.call == "aws" and closed is None:
            self._warm_up(row.tls is not None, timeout)
        self._begin(context, {} if row.early else question.routes(row.fault), row.fault if row.early else None)
        origin = self.peer.origin if closed is None else f"http://127.0.0.1:{closed.getsockname()[1]}"
        call = Call(origin, self.issuer.origin, self.certificates.ca_file, row.method, timeout, clock)
        source: TokenSource = getattr(call, question.call)()
        return source

    def _warm_up(self, tls: bool, timeout: float) -> None:
        """Until botocore has a client: that takes longer than any fault may."""
        self._begin(self.certificates.contexts["good"] if tls else None, {"/": reply(200, AWS_ANSWER)}, None)
        reference = SecretReference.parse("aws://prod/pos")
        while not self.peer.requests:
            with suppress(SecretSourceError):
                _aws_store(self.peer.origin, timeout).read(reference, fresh=False, timeout=UNHURRIED)

    def _begin(self, context: ssl.SSLContext | None, routes: Mapping[str, Script], greeting: Script | None) -> None:
        good = reply(200, TOKEN_ANSWER)
        self.peer.begin(routes, context=context, greeting=greeting)
        self.issuer.begin({TOKEN_PATH: good})
        self.stranger.begin({}, otherwise=good)
        self.tls_stranger.begin({}, otherwise=good, context=self.certificates.contexts["good"])
        self.peer.places = {"http": self.stranger.origin, "https": self.tls_stranger.origin}

    @property
    def ports(self) -> set[int]:
        """Where the connections of a call lead to."""
        return {self.peer.port, self.full.getsockname()[1]}

    @property
    def strangers_met(self) -> int:
        return self.stranger.connections + self.tls_stranger.connections

    def asked(self, path: str) -> int:
        return sum(request.path == path for request in self.peer.requests)

    @property
    def paths(self) -> set[str]:
        return {request.path for request in self.peer.requests}

    @property
    def told(self) -> set[str]:
        """The secrets that the server with the fault was sent."""
        received = self.peer.received.decode("latin-1")
        return {one for one in SECRETS if any(form in received for form in forms_of(one))}


# --- what came of it --------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    token: Token | None
    error: SecretSourceError | None
    seconds: float
    growth: int
    """Bytes of Python objects at the worst moment."""


def called(source: TokenSource) -> Outcome:
    token, error = None, None
    with _traced() as growth:
        began = time.monotonic()
        try:
            token = source.token()
        except SecretSourceError as raised:
            error = raised
        seconds = time.monotonic() - began
    return Outcome(token, error, seconds, growth())


@contextmanager
def _traced() -> Iterator[Callable[[], int]]:
    peak = 0
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    try:
        yield lambda: peak - before
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()


def shown_by(error: SecretSourceError) -> str:
    """Everything that a report may show of it, with the locals of the frames that are not the tests'."""
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame.locals for frame in trace.stack if "/tests/" not in frame.filename]
    return f"{error} {error!r} {error.args!r} {pprint.pformat(vars(error))} {frames!r}"


def forms_of(secret: str) -> set[str]:
    """Plain, and as it is sent."""
    pair = f"{CLIENT}:{quote(secret, safe='')}"
    return {secret, quote_plus(secret), *(base64.b64encode(text.encode()).decode() for text in (secret, pair))}


def secrets_in(text: str) -> list[str]:
    return [one for one in SECRETS if any(form in text for form in forms_of(one))]


_DESCRIPTORS = "/proc/self/fd"
_PACKAGE = str(Path(secretsource.__file__).parent)


def threads_at_work() -> list[str]:
    """Where threads are that are inside secretsource, the servers of `secretsource.testing` excepted."""
    stacks = [list(traceback.walk_stack(frame)) for frame in sys._current_frames().values()]
    files = [[frame.f_code.co_filename for frame, _ in stack] for stack in stacks]
    return [next(name for name in names if name.startswith(_PACKAGE)) for names in files if _is_ours(names)]


def _is_ours(files: list[str]) -> bool:
    return any(name.startswith(_PACKAGE) for name in files) and not any("/testing/" in name for name in files)


def sockets_to(ports: set[int]) -> int:
    """How many open sockets of this process lead to these ports; 0 where the system does not list them."""
    count = 0
    for descriptor in os.listdir(_DESCRIPTORS) if os.path.isdir(_DESCRIPTORS) else ():
        with suppress(OSError):  # it has no other end, or is gone meanwhile
            if os.readlink(f"{_DESCRIPTORS}/{descriptor}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(descriptor))) as twin:
                    count += twin.getpeername()[1] in ports
    return count


def gone_within(seconds: float, source: TokenSource, ports: set[int], before: int) -> list[str]:
    """What is still there of a call when so many seconds are over, beside the sockets that were there before."""
    end = time.monotonic() + seconds
    while left := [
        *threads_at_work(),
        *[f"{count} sockets" for count in [sockets_to(ports) - before] if count > 0],
        *[f"{count} orphans" for count in [source.status().orphaned_threads] if count],
    ]:
        if time.monotonic() > end:
            return left
        time.sleep(0.005)
    return []
