"""The one way out: httpx with our own TLS context, one deadline, a size limit, and no redirects.

Each request has a connection of its own. No exception of httpx leaves here, since they hold requests and so secrets:
each is caught and classified, and ours is raised after the `except` block.
"""

from __future__ import annotations

import _thread
import encodings.idna  # noqa: F401 - socket imports it at its first look-up of a name; see _NO_TLS about forks
import errno
import logging
import os
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

from .clock import Deadline
from .errors import (
    BackendError,
    ConfigurationError,
    DeadlineExceeded,
    InvalidTokenResponse,
    IssuerUnavailable,
    SecretSourceError,
    TokenError,
)
from .exchange import Answer, Outgoing
from .flight import PerProcess
from .secret import Secret
from .tls import certificate_fault, checked_certificate, trusting
from .urls import is_loopback, without_query

__all__ = ["Transport"]

_LARGEST_ANSWER = 1024 * 1024
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
_UNREACHED = "Is it up, is its address right, and may this machine reach it?"
_NO_DESCRIPTORS = "Raise the limit of open files (ulimit -n), or find what leaves them open"
# For plain http, where httpx would otherwise make one for each request: OpenSSL holds a lock meanwhile, which a fork
# would leave locked in the child.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# httpx imports httpcore when it makes its first transport. Here, and not on the thread of a first request: a fork
# meanwhile would leave the child half a module.
httpx.HTTPTransport(verify=_NO_TLS, trust_env=False).close()


_sending = threading.local()


def _not_of_ours(record: logging.LogRecord) -> bool:
    """At DEBUG httpcore logs the headers of answers, which may echo a secret; httpx logs whole URLs at INFO."""
    return not getattr(_sending, "now", False)


for _name in ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy"):
    logging.getLogger(_name).addFilter(_not_of_ours)


class _Fault(NamedTuple):
    """Why there is no answer."""

    what: str
    hint: str
    retryable: bool = True


class _Unusable(Exception):
    """An answer that is not read to its end."""

    def __init__(self, what: str, status: int, hint: str) -> None:
        super().__init__()
        self.what, self.status, self.hint = what, status, hint


class Transport:
    """Sends requests to an issuer. Safe from any thread, and in a forked child: it keeps no connection.

    `unavailable` and `unusable` are the errors that it raises, which a subclass for another kind of server exchanges.
    """

    unavailable: type[TokenError] | type[BackendError] = IssuerUnavailable
    unusable: type[TokenError] | type[BackendError] = InvalidTokenResponse

    def __init__(
        self,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        client_cert: str | tuple[str, str] | None = None,
        proxy: str | Secret | None = None,
        connect_timeout: float | None = None,
    ) -> None:
        """`client_cert`: a PEM file with certificate and key, or a pair of files.

        `connect_timeout`: seconds for that part alone, where giving up early leaves time to ask elsewhere.
        """
        if ca_file is not None and not isinstance(ca_file, (str, os.PathLike)):
            raise ConfigurationError(f"ca_file= is the path of a file, not {type(ca_file).__name__}")
        self._ca_file = None if ca_file is None else os.fspath(ca_file)
        self._client_cert = checked_certificate(client_cert)
        if proxy is not None and not isinstance(proxy, (str, Secret)):
            raise _no_proxy("proxy=")
        self._proxy = Secret(proxy) if isinstance(proxy, str) else proxy  # it may hold a password
        if self._proxy is not None and self._proxy != Secret("env") and not _is_proxy(self._proxy):
            raise _no_proxy("proxy=")
        self._connect_timeout = connect_timeout
        self._context = self._trust_anew()

    def send(self, outgoing: Outgoing, deadline: Deadline, *, phase: str) -> Answer:
        """The answer, whatever its status. Raises IssuerUnavailable, InvalidTokenResponse, DeadlineExceeded."""
        _sending.now = True
        try:
            return self._sent(outgoing, deadline, phase)
        finally:
            _sending.now = False

    def _sent(self, outgoing: Outgoing, deadline: Deadline, phase: str) -> Answer:
        failure: SecretSourceError
        url = without_query(outgoing.url)
        proxy = self._proxy_for(url)
        context = self._context.get() if proxy is not None or urlsplit(url).scheme == "https" else None
        with _Watchdog(deadline, outgoing.leaving) as watchdog:
            try:
                with _client(context, proxy) as client:
                    request = _request(client, outgoing, self._time(deadline), watchdog.trace)
                    with _unrecorded():
                        response = client.send(request, stream=True)
                    try:
                        return _answer(response, outgoing)
                    finally:
                        response.close()
            except _Unusable as error:
                failure = self.unusable(error.what, status=error.status, hint=error.hint)
            except Exception as error:
                failure = self._failure(_classified(error, url if proxy is None else f"{url} through the proxy"))
        if deadline.over():
            failure = DeadlineExceeded(
                f"{phase}: no whole answer from {url} within {deadline.seconds:g} s",
                phase=phase,
                hint="Is it slow or unreachable from here? timeout= gives it more time",
            )
        elif isinstance(failure, self.unavailable) and not failure.retryable:
            self.forget()  # the certificates of the authorities may have been exchanged meanwhile
        raise failure

    def _time(self, deadline: Deadline) -> httpx.Timeout:
        left = max(deadline.left(), 0.001)
        return httpx.Timeout(left, connect=min(left, self._connect_timeout or left))

    def _failure(self, fault: _Fault | ConfigurationError) -> SecretSourceError:
        if isinstance(fault, ConfigurationError):
            return fault
        return self.unavailable(fault.what, hint=fault.hint, retryable=fault.retryable)

    def forget(self) -> None:
        """Read the certificates of the authorities anew at the next request."""
        self._context = self._trust_anew()

    def _trust_anew(self) -> PerProcess[ssl.SSLContext]:
        return PerProcess(lambda: trusting(self._ca_file, self._client_cert))

    def _proxy_for(self, url: str) -> Secret | None:
        host = urlsplit(url).hostname or ""
        if self._proxy is None or is_loopback(host):
            return None
        if self._proxy != Secret("env"):
            return self._proxy
        proxy = _proxy_from_environment(url, host)
        if proxy is not None and not _is_proxy(proxy):
            raise _no_proxy("what the environment names for this URL")
        return proxy


class _Watchdog:
    """Ends a connection at the deadline, whatever it is doing: time-outs of single reads never end a drip."""

    def __init__(self, deadline: Deadline, leaving: Callable[[], object] = lambda: None) -> None:
        self._deadline = deadline
        self._leaving = leaving
        self._finished = _thread.allocate_lock()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> _Watchdog:
        self._finished.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.release()
        while self._sockets:
            self._sockets.pop().close()

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """httpcore's `trace` extension: it hands over the socket as soon as that is connected."""
        if event == "connection.connect_tcp.started":
            # The time-out counts for each address of a name anew: a dead one must leave some to the others. That
            # costs a second look-up, since httpcore does not show its own.
            addresses = socket.getaddrinfo(info["host"], info["port"], type=socket.SOCK_STREAM)
            info["timeout"] = min(info["timeout"], max(self._deadline.left(), 0.001) / len(addresses))
        if event == "connection.connect_tcp.complete":
            # A duplicate: TLS takes the file descriptor out of the socket that it wraps.
            self._sockets.append(info["return_value"].get_extra_info("socket").dup())
            with suppress(RuntimeError):  # no thread at shutdown: the time-outs of single reads remain
                _thread.start_new_thread(self._watch, ())
        if event == "http11.send_request_headers.started":
            self._leaving()

    def _watch(self) -> None:
        seconds = min(self._deadline.left(), threading.TIMEOUT_MAX)
        if self._finished.acquire(timeout=seconds):
            self._finished.release()
            return
        for connection in tuple(self._sockets):
            with suppress(OSError):  # the peer was faster
                connection.shutdown(socket.SHUT_RDWR)


def _client(context: ssl.SSLContext | None, proxy: Secret | None) -> httpx.Client:
    transport = httpx.HTTPTransport(
        verify=context or _NO_TLS,
        trust_env=False,
        proxy=None if proxy is None else _httpx_proxy(proxy, context),
        limits=httpx.Limits(max_keepalive_connections=0),
    )
    hooks = {"response": [_leads_nowhere]}
    return httpx.Client(transport=transport, trust_env=False, follow_redirects=False, event_hooks=hooks)


def _leads_nowhere(response: httpx.Response) -> None:
    """httpx makes the request to follow, secret and all, although nobody sends it, and fails where it cannot."""
    response.headers.pop("location", None)


def _httpx_proxy(proxy: Secret, context: ssl.SSLContext | None) -> httpx.Proxy:
    url = httpx.URL(proxy.reveal())
    # TLS to the proxy itself: httpcore's own context would obey SSLKEYLOGFILE and SSL_CERT_FILE.
    return httpx.Proxy(url, ssl_context=context if url.scheme == "https" else None)


def _unrecorded() -> AbstractContextManager[object]:
    """OpenTelemetry may have been told to record all headers, and so the secret: it leaves these requests out."""
    tracing: Any = sys.modules.get("opentelemetry.instrumentation.utils")
    suppressed: Callable[[], AbstractContextManager[object]]
    suppressed = getattr(tracing, "suppress_http_instrumentation", nullcontext)
    return suppressed()


def _request(client: httpx.Client, outgoing: Outgoing, time: httpx.Timeout, trace: object) -> httpx.Request:
    headers, body = outgoing.open()
    return client.build_request(
        outgoing.method,
        outgoing.url,
        headers={**_HEADERS, **headers},
        content=body,
        timeout=time,
        extensions={"trace": trace},
    )


def _answer(response: httpx.Response, outgoing: Outgoing) -> Answer:
    url = without_query(outgoing.url)
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise _Unusable(
            f"{url} answered {response.status_code} with a compressed body, which was not asked for",
            response.status_code,
            "Does something in the way compress all answers, whatever Accept-Encoding says?",
        )
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > _LARGEST_ANSWER:
            body.clear()
            raise _Unusable(
                f"{url} answered {response.status_code} with more than {_LARGEST_ANSWER} bytes",
                response.status_code,
                "Is its address right?",
            )
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, bytes(body), outgoing.echoed)


def _classified(error: Exception, url: str) -> _Fault | ConfigurationError:
    """Ours for an error of httpx: its type and the operating system's or OpenSSL's reason, never its text."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _Fault(
                f"{url} is not trusted: {certificate_fault(cause)}",
                retryable=False,
                hint="Correct the host name, the certificate, or ca_file=; verification cannot be switched off",
            )
        if isinstance(cause, ssl.SSLError):
            return _tls_fault(cause, url)
        if isinstance(cause, socket.gaierror):
            return _Fault(f"{url} cannot be reached: its host name is not found", hint=_UNREACHED)
        if isinstance(cause, OSError) and cause.errno is not None:
            hint = _NO_DESCRIPTORS if cause.errno in (errno.EMFILE, errno.ENFILE) else _UNREACHED
            return _Fault(f"{url} cannot be reached: {os.strerror(cause.errno).lower()}", hint=hint)
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError)):  # the last: no host name
        return ConfigurationError(
            f"{url} cannot be requested ({type(error).__name__})", hint="Correct the host name in it"
        )
    if isinstance(error, httpx.ProxyError):
        return _Fault(f"{url} cannot be reached: it refuses", hint="Ask who runs the proxy")
    if isinstance(error, httpx.RemoteProtocolError):
        return _Fault(f"{url} broke its answer off, or speaks no HTTP", hint=_UNREACHED)
    return _Fault(f"{url} cannot be reached ({type(error).__name__})", hint=_UNREACHED)


def _tls_fault(error: ssl.SSLError, url: str) -> _Fault:
    reason = error.reason or "no reason given"
    if reason == "WRONG_VERSION_NUMBER":
        return _Fault(f"{url} speaks no TLS on this port", retryable=False, hint="Is the port right?")
    if "PROTOCOL" in reason or "VERSION" in reason:
        return _Fault(
            f"{url} speaks only a version of TLS that is no longer safe", retryable=False, hint="It needs TLS 1.2"
        )
    return _Fault(f"{url} broke the TLS connection off ({reason})", hint=_UNREACHED)


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes[::-1]


def _proxy_from_environment(url: str, host: str) -> Secret | None:
    from urllib import request

    proxies = request.getproxies_environment()
    found = proxies.get(urlsplit(url).scheme) or proxies.get("all")
    if not found or request.proxy_bypass(host):
        return None
    return Secret(found if "://" in found else f"http://{found}")  # as others read it


def _is_proxy(proxy: Secret) -> bool:
    try:
        parts = urlsplit(proxy.reveal())
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text holds the URL
        return False


def _no_proxy(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{what} is not the URL of a proxy",
        hint="Write http://HOST:PORT, with USER:PASSWORD@ before HOST where it asks for them, or proxy='env'",
    )
