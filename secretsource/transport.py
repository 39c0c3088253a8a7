"""The one way out: httpx with our own TLS context, one deadline, a size limit, and no redirects.

Each request has a connection of its own. No exception of httpx leaves here, since they hold requests and so secrets:
each is caught and classified, and ours is raised after the `except` block.
"""

from __future__ import annotations

import _thread
import encodings.idna  # noqa: F401 - socket imports it at its first look-up of a name; see _NO_TLS about forks
import logging
import os
import socket
import ssl
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx

from .answer import Answer
from .clock import Deadline
from .endpoint import Outgoing
from .errors import ConfigurationError, DeadlineExceeded, InvalidTokenResponse, IssuerUnavailable, SecretSourceError
from .flight import PerProcess
from .secret import Secret
from .urls import is_loopback, without_query

__all__ = ["Transport"]

_LARGEST_ANSWER = 1024 * 1024
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
_UNREACHED = "Is it up, is its address right, and may this machine reach it?"
# OpenSSL's verify codes, in our words.
_CERTIFICATE_FAULTS = {
    9: "its certificate is not valid yet",
    10: "its certificate has expired",
    18: "its certificate is signed by itself",
    19: "its certificate comes from an authority that is not trusted",
    20: "its certificate comes from an authority that is not trusted",
    21: "its certificate comes from an authority that is not trusted",
    62: "its certificate is for another host name",
    64: "its certificate is for another address",
}


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


class Transport:
    """Sends token and metadata requests. Safe from any thread, and in a forked child: it keeps no connection."""

    def __init__(self, *, ca_file: str | os.PathLike[str] | None = None, proxy: str | None = None) -> None:
        if ca_file is not None and not isinstance(ca_file, (str, os.PathLike)):
            raise ConfigurationError(f"ca_file= is the path of a file, not {type(ca_file).__name__}")
        self._ca_file = None if ca_file is None else os.fspath(ca_file)
        if proxy is not None and not isinstance(proxy, str):
            raise _no_proxy("proxy=")
        self._proxy = None if proxy is None else Secret(proxy)  # it may hold a password
        if self._proxy is not None and proxy != "env" and not _is_proxy(self._proxy):
            raise _no_proxy("proxy=")
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
        with _Watchdog(deadline) as watchdog:
            try:
                with _client(context, proxy) as client:
                    request = _request(client, outgoing, deadline.left(), watchdog.trace)
                    response = client.send(request, stream=True)
                    try:
                        return _answer(response, outgoing)
                    finally:
                        response.close()
            except InvalidTokenResponse as error:
                failure = error.again()
            except Exception as error:
                failure = _classified(error, url if proxy is None else f"{url} through the proxy")
        if deadline.over():
            failure = DeadlineExceeded(
                f"{phase}: no whole answer from {url} within {deadline.seconds:g} s",
                phase=phase,
                hint="Is it slow or unreachable from here? timeout= gives it more time",
            )
        elif isinstance(failure, IssuerUnavailable) and not failure.retryable:
            self.forget()  # the certificates of the authorities may have been exchanged meanwhile
        raise failure

    def forget(self) -> None:
        """Read the certificates of the authorities anew at the next request."""
        self._context = self._trust_anew()

    def _trust_anew(self) -> PerProcess[ssl.SSLContext]:
        return PerProcess(lambda: _trusting(self._ca_file))

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

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._finished = _thread.allocate_lock()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> _Watchdog:
        self._finished.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._finished.release()
        while self._sockets:
            self._sockets.pop().close()

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """httpcore's `trace` extension: it hands over the socket as soon as that is connected."""
        if event == "connection.connect_tcp.complete":
            # A duplicate: TLS takes the file descriptor out of the socket that it wraps.
            self._sockets.append(info["return_value"].get_extra_info("socket").dup())
            with suppress(RuntimeError):  # no thread at shutdown: the time-outs of single reads remain
                _thread.start_new_thread(self._watch, ())

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
    return httpx.Client(transport=transport, trust_env=False, follow_redirects=False)


def _httpx_proxy(proxy: Secret, context: ssl.SSLContext | None) -> httpx.Proxy:
    url = httpx.URL(proxy.reveal())
    # TLS to the proxy itself: httpcore's own context would obey SSLKEYLOGFILE and SSL_CERT_FILE.
    return httpx.Proxy(url, ssl_context=context if url.scheme == "https" else None)


def _request(client: httpx.Client, outgoing: Outgoing, seconds: float, trace: object) -> httpx.Request:
    headers, body = outgoing.open()
    return client.build_request(
        outgoing.method,
        outgoing.url,
        headers={**_HEADERS, **headers},
        content=body,
        timeout=httpx.Timeout(max(seconds, 0.001)),
        extensions={"trace": trace},
    )


def _answer(response: httpx.Response, outgoing: Outgoing) -> Answer:
    url = without_query(outgoing.url)
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise InvalidTokenResponse(
            f"{url} answered {response.status_code} with a compressed body, which was not asked for",
            status=response.status_code,
        )
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > _LARGEST_ANSWER:
            body.clear()
            raise InvalidTokenResponse(
                f"{url} answered {response.status_code} with more than {_LARGEST_ANSWER} bytes",
                status=response.status_code,
            )
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, bytes(body), outgoing.echoed)


def _classified(error: Exception, url: str) -> SecretSourceError:
    """Ours for an error of httpx: its type and the operating system's or OpenSSL's reason, never its text."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            fault = _CERTIFICATE_FAULTS.get(cause.verify_code, f"its certificate is refused (code {cause.verify_code})")
            return IssuerUnavailable(
                f"{url} is not trusted: {fault}",
                retryable=False,
                hint="Correct the host name, the certificate, or ca_file=; verification cannot be switched off",
            )
        if isinstance(cause, ssl.SSLError):
            return _tls_fault(cause, url)
        if isinstance(cause, socket.gaierror):
            return IssuerUnavailable(f"{url} cannot be reached: its host name is not found", hint=_UNREACHED)
        if isinstance(cause, OSError) and cause.errno is not None:
            return IssuerUnavailable(f"{url} cannot be reached: {os.strerror(cause.errno).lower()}", hint=_UNREACHED)
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError)):  # the last: no host name
        return ConfigurationError(f"{url} cannot be requested ({type(error).__name__})")
    if isinstance(error, httpx.ProxyError):
        return IssuerUnavailable(f"{url} cannot be reached: it refuses", hint="Ask who runs the proxy")
    if isinstance(error, httpx.RemoteProtocolError):
        return IssuerUnavailable(f"{url} broke its answer off, or speaks no HTTP", hint=_UNREACHED)
    return IssuerUnavailable(f"{url} cannot be reached ({type(error).__name__})", hint=_UNREACHED)


def _tls_fault(error: ssl.SSLError, url: str) -> IssuerUnavailable:
    reason = error.reason or "no reason given"
    if reason == "WRONG_VERSION_NUMBER":
        return IssuerUnavailable(f"{url} speaks no TLS on this port", retryable=False, hint="Is the port right?")
    if "PROTOCOL" in reason or "VERSION" in reason:
        return IssuerUnavailable(
            f"{url} speaks only a version of TLS that is no longer safe", retryable=False, hint="It needs TLS 1.2"
        )
    return IssuerUnavailable(f"{url} broke the TLS connection off ({reason})", hint=_UNREACHED)


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes[::-1]


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if hasattr(context, "keylog_filename"):
        context.keylog_filename = None  # type: ignore[assignment] # SSLKEYLOGFILE would have the session keys written
    failure = None
    try:
        if ca_file is None:
            _trust_the_system(context)
        else:
            context.load_verify_locations(ca_file)
    except (OSError, ValueError) as error:  # SSLError is an OSError; a NUL in the name
        failure = type(error).__name__
    if failure is not None:
        name = "what this system trusts" if ca_file is None else f"ca_file={ca_file!r}"
        raise ConfigurationError(
            f"{name} cannot be used as certificates of authorities ({failure})",
            hint="Give ca_file=, a file of one or more certificates in PEM form",
        )
    return context


def _trust_the_system(context: ssl.SSLContext) -> None:
    """The system's authorities, or certifi's where there are none. SSL_CERT_FILE and SSL_CERT_DIR are not obeyed."""
    if sys.platform == "win32":
        for store in ("CA", "ROOT"):
            for certificate, encoding, _ in ssl.enum_certificates(store):
                if encoding == "x509_asn":
                    context.load_verify_locations(cadata=certificate)
        return
    paths = ssl.get_default_verify_paths()
    file = paths.openssl_cafile if os.path.isfile(paths.openssl_cafile) else None
    folder = paths.openssl_capath if _has_entries(paths.openssl_capath) else None
    if file is None and folder is None:
        import certifi

        file = certifi.where()
    context.load_verify_locations(file, folder)


def _has_entries(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


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
