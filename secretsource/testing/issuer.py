"""FakeIssuer: an authorization server on loopback that behaves like OpenIddict in Orchard Core.

One secret per application, `connect/token`, an issuer whose URL ends in a slash, opaque tokens, and refusals that carry
OpenIddict's codes. It is as strict as a real one, and fails in the ways that a test asks for.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, unquote_plus

from ..clock import SYSTEM_CLOCK, Clock
from ..credentials import ClientCredentials
from ..secret import Secret
from .faults import Fault
from .loopback import Answer, Incoming, LoopbackServer

__all__ = ["FakeIssuer", "Grant", "RecordedRequest", "Endpoint"]

Endpoint = Literal["token", "discovery", "introspect"]

_FORM = "application/x-www-form-urlencoded"
_JSON = {"Content-Type": "application/json;charset=UTF-8", "Cache-Control": "no-store", "Pragma": "no-cache"}
_METHODS = ("client_secret_basic", "client_secret_post")
_WELL_KNOWN = ("openid-configuration", "oauth-authorization-server")
# What a record never holds.
_SENSITIVE_PARAMETERS = {"client_secret", "client_assertion", "assertion", "token", "refresh_token", "code", "password"}
_SENSITIVE_HEADERS = {"authorization", "proxy-authorization", "cookie"}


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that arrived, without what is secret in it.

    `status` is what was answered (0: the connection was reset). `auth_method` is "client_secret_basic",
    "client_secret_post" or None. `form` has the first value of each parameter, `resources` all of that one. Names of
    `headers` are in lower case. `at`: seconds of the issuer's monotonic clock.
    """

    path: str
    method: str
    status: int
    client_id: str | None
    auth_method: str | None
    form: Mapping[str, str]
    resources: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    at: float


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token stands for. `expires_at`: seconds of the issuer's suspend-aware clock."""

    client_id: str
    scopes: tuple[str, ...]
    audience: str | None
    resources: tuple[str, ...]
    expires_at: float


@dataclass(slots=True)
class _Client:
    secrets: list[tuple[Secret, float | None]]  # each with the moment at which it dies
    scopes: frozenset[str] | None
    methods: frozenset[str]


@dataclass(slots=True)
class _Planned:
    fault: Fault
    endpoint: Endpoint
    left: int | None


class FakeIssuer:
    """An authorization server for tests, over real sockets. Start it by `with`, or by `start()` and `stop()`.

        with FakeIssuer(lifetime=3) as issuer:
            credentials = issuer.add_client("pos", "not-a-real-secret", scopes=["orders.read"])
            source = TokenSource(credentials, issuer=issuer.url)

    `lifetime`: seconds that a token lives; `refresh_in`: given in the answer if not None; `latency`: real seconds
    before each answer; all three may be set at any time. `path` puts the issuer below a tenant's prefix.
    `basic_encoding="raw"` takes the Basic header without form-decoding it, as some issuers do.
    `unknown_scope="drop"` grants less instead of refusing. `well_known`: the metadata documents that there are.
    `apis`: further paths of the same site, such as the API behind it; they are not recorded and have no faults.
    `host` is the name in the URLs; it always listens on 127.0.0.1, with TLS if there is an `ssl_context`.
    Everything may be called from any thread.
    """

    def __init__(
        self,
        *,
        lifetime: float = 3600,
        refresh_in: float | None = None,
        latency: float = 0.0,
        path: str = "",
        basic_encoding: Literal["form", "raw"] = "form",
        unknown_scope: Literal["refuse", "drop"] = "refuse",
        well_known: Collection[str] = _WELL_KNOWN,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        apis: Mapping[str, Callable[[Incoming], Answer]] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.lifetime = lifetime
        self.refresh_in = refresh_in
        self.latency = latency
        self.basic_encoding: Literal["form", "raw"] = basic_encoding
        self.unknown_scope = unknown_scope
        self._clock = clock
        self._server = LoopbackServer(self._answer, host=host, port=port, ssl_context=ssl_context)
        self._tenant = f"/{path.strip('/')}" if path.strip("/") else ""
        self._endpoints: dict[str, Endpoint] = {
            f"{self._tenant}/connect/token": "token",
            f"{self._tenant}/connect/introspect": "introspect",
        }
        # OpenID Connect appends its path to the issuer's, RFC 8414 inserts its own before it.
        if "openid-configuration" in well_known:
            self._endpoints[f"{self._tenant}/.well-known/openid-configuration"] = "discovery"
        if "oauth-authorization-server" in well_known:
            self._endpoints[f"/.well-known/oauth-authorization-server{self._tenant}"] = "discovery"
        self._apis = dict(apis or {})
        self._lock = threading.Lock()
        self._recorded = threading.Condition(self._lock)
        self._clients: dict[str, _Client] = {}
        self._grants: dict[str, Grant] = {}
        self._revoked: set[str] = set()
        self._last_tokens: dict[tuple[object, ...], str] = {}
        self._planned: list[_Planned] = []
        self._requests: list[RecordedRequest] = []
        self._token_requests = 0

    def __repr__(self) -> str:
        return f"<FakeIssuer of {len(self._clients)} clients>"

    # where it is

    @property
    def url(self) -> str:
        """The issuer. Known once it has been started."""
        return f"{self._server.origin}{self._tenant}/"

    @property
    def token_url(self) -> str:
        return f"{self.url}connect/token"

    @property
    def introspection_url(self) -> str:
        return f"{self.url}connect/introspect"

    def start(self) -> Self:
        self._server.start()
        return self

    def stop(self) -> None:
        """End all connections and threads. It may be started again, on the same port if that is still free."""
        self._server.stop()

    def start_listening(self) -> None:
        self._server.start_listening()

    def stop_listening(self) -> None:
        """From now on connections are refused; those that are open end. The port is kept."""
        self._server.stop_listening()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Connections are refused inside the `with`."""
        with self._server.down():
            yield

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # clients

    def add_client(
        self,
        client_id: str,
        secret: str,
        *,
        scopes: Iterable[str] | None = None,
        methods: Iterable[str] = _METHODS,
    ) -> ClientCredentials:
        """Register a confidential client. `scopes` it may have (None: any), `methods` to prove itself.

        Returns what a TokenSource takes as credentials.
        """
        client = _Client([(Secret(secret), None)], None if scopes is None else frozenset(scopes), frozenset(methods))
        with self._lock:
            self._clients[client_id] = client
        return ClientCredentials(client_id, secret)

    def set_secret(self, client_id: str, secret: str, *, overlap: float = 0.0) -> ClientCredentials:
        """Replace a client's secret. The old one dies at once, or after `overlap` seconds of the issuer's clock."""
        with self._lock:
            client, now = self._clients[client_id], self._clock.now().boottime
            olds = [(old, now + overlap if dies is None else dies) for old, dies in client.secrets] if overlap else []
            client.secrets = [(Secret(secret), None), *olds]
        return ClientCredentials(client_id, secret)

    def remove_client(self, client_id: str) -> None:
        with self._lock:
            del self._clients[client_id]

    # tokens

    def accepts(self, access_token: str) -> bool:
        """Whether an API would take this token now."""
        return self.grant_of(access_token) is not None

    def grant_of(self, access_token: str) -> Grant | None:
        """What this token stands for, or None if it is unknown, revoked or past its end."""
        with self._lock:
            return self._grant_of(access_token)

    def revoke(self, access_token: str) -> None:
        """Accept this token no longer."""
        with self._lock:
            self._revoked.add(access_token)

    # what arrived

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests so far, in the order in which they arrived. Recorded before they are answered."""
        with self._lock:
            return list(self._requests)

    @property
    def token_requests(self) -> int:
        """How many POSTs came to the token endpoint."""
        with self._lock:
            return self._token_requests

    def wait_for_token_requests(self, count: int, timeout: float = 10.0) -> None:
        """Return as soon as so many have arrived in all. Raises TimeoutError."""
        with self._recorded:
            if not self._recorded.wait_for(lambda: self._token_requests >= count, timeout):
                raise TimeoutError(f"{self._token_requests} of {count} token requests arrived in {timeout} s")

    # faults

    def fail(self, fault: Fault, *, times: int | None = None, path: Endpoint = "token") -> None:
        """Answer with this fault, the next `times` requests or until `heal()`.

        Those with a number come first, in the order in which they were given; then the newest without.
        """
        self._plan(fault, times, path)

    @contextmanager
    def failing(self, fault: Fault, *, path: Endpoint = "token") -> Iterator[None]:
        """Answer with this fault inside the `with`."""
        planned = self._plan(fault, None, path)
        try:
            yield
        finally:
            with self._lock:
                self._planned = [other for other in self._planned if other is not planned]

    def heal(self) -> None:
        """Forget all faults, and let the answers go that hang."""
        with self._lock:
            self._planned.clear()
        self.release()

    def release(self) -> None:
        """Let the answers go that hang by `Fault(hang=True)`."""
        self._server.release()

    def _plan(self, fault: Fault, times: int | None, endpoint: Endpoint) -> _Planned:
        planned = _Planned(fault, endpoint, times)
        with self._lock:
            self._planned.append(planned)
        return planned

    def _next_fault(self, endpoint: Endpoint | None) -> Fault:
        here = [planned for planned in self._planned if planned.endpoint == endpoint]
        for planned in here:
            if planned.left:
                planned.left -= 1
                return planned.fault
        return next((planned.fault for planned in reversed(here) if planned.left is None), Fault())

    # answers

    def _answer(self, incoming: Incoming) -> Answer:
        api = self._apis.get(incoming.path)
        if api is not None:
            return api(incoming)
        endpoint = self._endpoints.get(incoming.path)
        form = _Form(incoming, self.basic_encoding)
        with self._lock:
            fault = self._next_fault(endpoint)
            status, headers, body = _given(fault) if fault.replaces_answer else self._considered(endpoint, form, fault)
            self._record(endpoint, form, 0 if fault.reset else status)
        overridden = {name.lower() for name in fault.headers}
        headers = {name: value for name, value in headers.items() if name.lower() not in overridden}
        sent = replace(fault, latency=fault.latency + self.latency)
        return Answer(status, {**headers, **fault.headers}, body + b" " * fault.padding, sent)

    def _considered(self, endpoint: Endpoint | None, form: _Form, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        try:
            match endpoint:
                case None:
                    return 404, {}, b""
                case "discovery":
                    form.require_method("GET")
                    members = self._metadata()
                case "introspect":
                    self._authenticated(form)
                    members = self._introspection(form)
                case "token":
                    form.require("grant_type")
                    if form.parameters["grant_type"] != "client_credentials":
                        raise _Refusal(400, "unsupported_grant_type", "ID2032", "This grant type is not supported.")
                    members = self._token(self._authenticated(form), form, fault)
        except _Refusal as refusal:
            return refusal.status, refusal.headers, json.dumps(refusal.members).encode()
        members = {name: value for name, value in {**members, **fault.answer}.items() if value is not None}
        return 200, _JSON, json.dumps(members).encode()

    def _metadata(self) -> dict[str, Any]:
        methods = {method for client in self._clients.values() for method in client.methods}
        return {
            "issuer": self.url,
            "token_endpoint": self.token_url,
            "introspection_endpoint": self.introspection_url,
            "grant_types_supported": ["client_credentials"],
            "response_types_supported": [],
            "token_endpoint_auth_methods_supported": sorted(methods or _METHODS),
            "introspection_endpoint_auth_methods_supported": sorted(methods or _METHODS),
        }

    def _authenticated(self, form: _Form) -> tuple[str, _Client]:
        client_id, secret, method = form.client_authentication()
        client = self._clients.get(client_id)
        if client is None:
            raise _Refusal(401, "invalid_client", "ID2052", "The client_id is not valid.")
        if method not in client.methods:
            raise _Refusal(401, "invalid_client", "ID2174", f"The client may not use {method}.")
        now = self._clock.now().boottime
        living = [known for known, dies in client.secrets if dies is None or now < dies]
        if not any(known == secret for known in living):
            raise _Refusal(401, "invalid_client", "ID2055", "The client credentials are not valid.")
        return client_id, client

    def _token(self, authenticated: tuple[str, _Client], form: _Form, fault: Fault) -> dict[str, Any]:
        client_id, client = authenticated
        asked = tuple(dict.fromkeys(form.parameters.get("scope", "").split()))
        granted = tuple(scope for scope in asked if client.scopes is None or scope in client.scopes)
        if granted != asked and self.unknown_scope == "refuse":
            raise _Refusal(400, "invalid_scope", "ID2052", "The scope is not valid.")
        audience = form.parameters.get("audience")
        now = self._clock.now().boottime
        identity = (client_id, granted, audience, form.resources)
        token = self._last_tokens.get(identity) if fault.same_token else None
        lifetime = self.lifetime
        if token is not None:
            lifetime = max(0, int(self._grants[token].expires_at - now))
        else:
            token = secrets.token_urlsafe(48)
            self._grants[token] = Grant(client_id, granted, audience, form.resources, now + lifetime)
            self._last_tokens[identity] = token
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": lifetime,
            "refresh_in": self.refresh_in,
            "scope": None if granted == asked else " ".join(granted),
        }

    def _introspection(self, form: _Form) -> dict[str, Any]:
        form.require("token")
        grant = self._grant_of(form.parameters["token"])
        if grant is None:
            return {"active": False}
        now = self._clock.now()
        return {
            "active": True,
            "iss": self.url,
            "client_id": grant.client_id,
            "sub": grant.client_id,
            "token_type": "Bearer",
            "scope": " ".join(grant.scopes) or None,
            "aud": grant.audience or list(grant.resources) or None,
            "exp": int(now.wall + grant.expires_at - now.boottime),
        }

    def _grant_of(self, access_token: str) -> Grant | None:
        grant = self._grants.get(access_token)
        if grant is None or access_token in self._revoked or self._clock.now().boottime >= grant.expires_at:
            return None
        return grant

    def _record(self, endpoint: Endpoint | None, form: _Form, status: int) -> None:
        incoming = form.incoming
        self._requests.append(
            RecordedRequest(
                path=incoming.path,
                method=incoming.method,
                status=status,
                client_id=form.client_id,
                auth_method=form.auth_method,
                form=_without_sensitive(form.parameters),
                resources=form.resources,
                query=_without_sensitive(dict(parse_qsl(incoming.query, keep_blank_values=True))),
                headers=MappingProxyType(
                    {name: value for name, value in incoming.headers.items() if name not in _SENSITIVE_HEADERS}
                ),
                at=self._clock.monotonic(),
            )
        )
        if endpoint == "token" and incoming.method == "POST":
            self._token_requests += 1
            self._recorded.notify_all()


def _given(fault: Fault) -> tuple[int, dict[str, str], bytes]:
    """The answer that stands in a fault."""
    if fault.redirect is not None:
        return fault.status or 307, {"Location": fault.redirect}, fault.body or b""
    if fault.body is None:
        return fault.status or 200, {}, b""
    return fault.status or 200, _JSON, fault.body


def _without_sensitive(parameters: Mapping[str, str]) -> Mapping[str, str]:
    kept = {name: value for name, value in parameters.items() if name.lower() not in _SENSITIVE_PARAMETERS}
    return MappingProxyType(kept)


class _Form:
    """A request to an endpoint that takes a form, read leniently for the record and checked strictly for the answer."""

    def __init__(self, incoming: Incoming, basic_encoding: Literal["form", "raw"]) -> None:
        self.incoming = incoming
        self._pairs = _pairs(incoming.body)
        self._basic = _basic(incoming.headers.get("authorization"), basic_encoding)
        # RFC 6749 section 3.2: a parameter without a value counts as left out.
        self.parameters = {name: value for name, value in reversed(self._pairs or []) if value}
        self.resources = tuple(value for name, value in self._pairs or [] if name == "resource")

    @property
    def client_id(self) -> str | None:
        return self._basic[0] if self._basic is not None else self.parameters.get("client_id")

    @property
    def auth_method(self) -> str | None:
        if self._basic is not None:
            return "client_secret_basic"
        return "client_secret_post" if "client_secret" in self.parameters else None

    def require_method(self, method: str) -> None:
        if self.incoming.method != method:
            raise _invalid_request("ID2084", "This HTTP method is not valid here.")

    def require(self, parameter: str) -> None:
        """A POST of a readable form without repeated parameters, and this one among them."""
        self.require_method("POST")
        content_type = self.incoming.headers.get("content-type")
        if content_type is None:
            raise _invalid_request("ID2081", "The Content-Type header is missing.")
        if content_type.partition(";")[0].strip().lower() != _FORM:
            raise _invalid_request("ID2082", "The Content-Type header is not valid.")
        if self._pairs is None:
            raise _invalid_request("ID2107", "The form is malformed.")
        names = [name for name, _ in self._pairs if name != "resource"]
        if len(names) != len(set(names)):
            raise _invalid_request("ID2107", "A parameter is given more than once.")
        if parameter not in self.parameters:
            raise _invalid_request("ID2029", f"The parameter {parameter} is missing.")

    def client_authentication(self) -> tuple[str, Secret, str]:
        """Client ID, secret and method, of exactly one authentication (RFC 6749 section 2.3)."""
        header, in_body = "authorization" in self.incoming.headers, "client_secret" in self.parameters
        if (header and in_body) or "client_assertion" in self.parameters:
            raise _invalid_request("ID2087", "More than one client authentication is given, or one not supported.")
        if header:
            if self._basic is None:
                raise _invalid_request("ID2055", "The Authorization header cannot be read.")
            client_id, secret = self._basic
            if self.parameters.get("client_id", client_id) != client_id:
                raise _invalid_request("ID2087", "Two different client IDs are given.")
            return client_id, Secret(secret), "client_secret_basic"
        if "client_id" not in self.parameters:
            raise _invalid_request("ID2029", "The parameter client_id is missing.")
        if not in_body:
            raise _Refusal(401, "invalid_client", "ID2054", "The parameter client_secret is missing.")
        return self.parameters["client_id"], Secret(self.parameters["client_secret"]), "client_secret_post"


def _pairs(body: bytes) -> list[tuple[str, str]] | None:
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=1_000)
    except ValueError:
        return None


def _basic(header: str | None, encoding: Literal["form", "raw"]) -> tuple[str, str] | None:
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8" if encoding == "raw" else "ascii")
        client_id, colon, secret = text.partition(":")
        if not colon:
            return None
        if encoding == "raw":
            return client_id, secret
        return unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except ValueError:
        return None


class _Refusal(Exception):
    """An error answer (RFC 6749 section 5.2) with OpenIddict's code for it."""

    def __init__(self, status: int, error: str, code: str, description: str) -> None:
        super().__init__(error)
        self.status = status
        self.members = {
            "error": error,
            "error_description": description,
            "error_uri": f"https://documentation.openiddict.com/errors/{code}",
        }

    @property
    def headers(self) -> dict[str, str]:
        if self.status != 401:
            return _JSON
        facts = ", ".join(f'{name}="{text}"' for name, text in self.members.items())
        return {**_JSON, "WWW-Authenticate": f"Basic {facts}"}


def _invalid_request(code: str, description: str) -> _Refusal:
    return _Refusal(400, "invalid_request", code, description)
