"""Orchard Core as it behaves: the management API of 4.0, the import of remote deployments, and OpenIddict's tokens.

From Orchard Core's documentation and the behaviour of its endpoints as of 2026 (4.0 is not released yet): a PUT
replaces all settings, refuses members that it does not know, and works permissions out of the flows that are allowed;
an answer describes the application without its secret; `credentials:rotate` gives a secret once. The import answers 200
even where its recipe has failed. There is one secret; the token endpoint is `FakeIssuer`, which is like OpenIddict.
Assumed: what a missing permission is answered. Not compared with Orchard Core itself.
"""

from __future__ import annotations

import io
import json
import secrets
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from email import message_from_bytes
from typing import Any, Self
from urllib.parse import parse_qs

from secretsource import ClientCredentials, TokenSource
from secretsource.clock import SYSTEM_CLOCK, Clock
from secretsource.testing import Answer, FakeIssuer, Fault, Incoming

from .vendors import ADMIN, ADMIN_SECRET, CLIENT, IN_A_BODY, OLD

TENANT = "shop"
APPLICATION = f"/{TENANT}/api/openid/applications/by-client-id"
ROTATE = f"/{TENANT}/api/openid/applications/credentials:rotate"
IMPORT = f"/{TENANT}/OrchardCore.Deployment.Remote/ImportRemoteInstance/Import"
REMOTE_CLIENT, API_KEY = "rotator", "not-a-real-secret-api-key"
SCOPE = "orchardcore.management"
_FLOWS = "Password ClientCredentials AuthorizationCode DeviceAuthorization RefreshToken Hybrid Implicit"
_MEMBERS = {
    *("clientId", "displayName", "clientType", "applicationType", "consentType", "clientSecret"),
    *("redirectUris", "postLogoutRedirectUris", "roles", "scopes"),
    *(f"allow{flow}Flow" for flow in _FLOWS.split()),
    *("allowLogoutEndpoint", "allowIntrospectionEndpoint", "allowRevocationEndpoint"),
    *("requireProofKeyForCodeExchange", "requirePushedAuthorizationRequests"),
}
_SETS = ("roles", "permissions", "requirements", "redirectUris", "postLogoutRedirectUris")


def application(**more: Any) -> dict[str, Any]:
    """What is kept of a program that asks for tokens of its own."""
    return {
        "id": "4nxq1k8dq6v2wy9c5m3b7t0rzj",
        "clientId": CLIENT,
        "displayName": "Point of sale",
        "clientType": "confidential",
        "applicationType": "web",
        "consentType": "implicit",
        "roles": ["Point of sale", "Stock"],
        "permissions": ["gt:client_credentials", "ept:token", "scp:orders.read", "scp:stock.write"],
        "requirements": [],
        "redirectUris": [],
        "postLogoutRedirectUris": [],
        **more,
    }


class OrchardSite:
    """A tenant of Orchard Core on loopback.

    `held_back`: answers come before the change, which waits for `land()`; with a `lag` that lets go what has waited so
    many seconds of `clock`. `fails`: what an import holds fails. `more`: members of a later version in what describes
    the application.
    """

    def __init__(self, *, held_back: bool = False, lag: float = 0.0, clock: Clock = SYSTEM_CLOCK) -> None:
        self.held_back, self.lag, self.clock = held_back or bool(lag), lag, clock
        self.application = application()
        self.roles, self.scopes = {"Point of sale", "Stock", "Editor"}, {"orders.read", "stock.write", "profile"}
        self.secret = OLD
        self.fails = False
        self.more: dict[str, Any] = {}
        self.requests: list[Incoming] = []
        self.saves = 0
        self._waiting: list[tuple[float, Callable[[], None]]] = []
        self._planned: list[tuple[str, str, Answer | None]] = []
        self._lock = threading.RLock()
        apis: dict[str, Callable[[Incoming], Answer]] = dict.fromkeys((APPLICATION, ROTATE, IMPORT), self._api)
        self.issuer = FakeIssuer(path=TENANT, apis=apis, clock=clock)

    def __enter__(self) -> Self:
        self.issuer.start()
        self.issuer.add_client(CLIENT, OLD)
        self.issuer.add_client(ADMIN, ADMIN_SECRET, scopes=[SCOPE])
        return self

    def __exit__(self, *_: object) -> None:
        self.issuer.stop()

    @property
    def base_url(self) -> str:
        return self.issuer.url.rstrip("/")

    @property
    def token_url(self) -> str:
        return self.issuer.token_url

    def admin(self) -> TokenSource:
        """What the rotator logs in with."""
        credentials = ClientCredentials(ADMIN, ADMIN_SECRET)
        return TokenSource(credentials, token_url=self.token_url, scope=SCOPE, clock=self.clock)

    # --- what a test asks for

    def lose(self, method: str, path: str) -> None:
        """The next such call takes effect, and its answer does not arrive."""
        self._planned.append((method, path, None))

    def answer(self, method: str, path: str, status: int, body: Any = None) -> None:
        """The next such call changes nothing and is answered so."""
        self._planned.append((method, path, _json(status, body)))

    def land(self) -> None:
        """What was answered before it was committed is committed now."""
        with self._lock:
            over = self.clock.monotonic() - self.lag
            landing = [change for since, change in self._waiting if since <= over]
            self._waiting = [one for one in self._waiting if one[0] > over]
            for change in landing:
                change()

    def gives(self, secret: str) -> bool:
        with self._lock:
            return self.secret == secret

    @property
    def changes(self) -> int:
        """How many calls came that change something."""
        return sum(one.method != "GET" for one in self.requests)

    # --- its answers

    def _api(self, incoming: Incoming) -> Answer:
        with self._lock:
            self.requests.append(incoming)
            planned = next((one for one in self._planned if one[:2] == (incoming.method, incoming.path)), None)
            if planned is not None:
                self._planned.remove(planned)
                if planned[2] is not None:
                    return planned[2]
            answer = self._import(incoming) if incoming.path == IMPORT else self._managed(incoming)
            return answer if planned is None else replace(answer, fault=Fault(reset=True))

    def _managed(self, incoming: Incoming) -> Answer:
        scheme, _, token = incoming.headers.get("authorization", "").partition(" ")
        grant = self.issuer.grant_of(token) if scheme == "Bearer" else None
        if grant is None:
            return Answer(401)
        if SCOPE not in grant.scopes:
            return _problem(403)
        client_id = parse_qs(incoming.query).get("clientId", [""])[0]
        if not client_id:
            return _problem(400)
        match incoming.method, incoming.path:
            case "GET", path if path == APPLICATION:
                return self._described() if client_id == self.application["clientId"] else _problem(404)
            case "PUT", path if path == APPLICATION:
                return self._put(client_id, json.loads(incoming.body))
            case "POST", path if path == ROTATE:
                if client_id != self.application["clientId"]:
                    return _problem(404)
                if self.application["clientType"] != "confidential":
                    return _problem(400)
                made = f"generated-{secrets.token_hex(32)}"
                self._commit(self.application, made)
                return _json(200, {"clientId": client_id, "clientSecret": made})
        return Answer(405)

    def _described(self) -> Answer:
        return _json(200, {**self.application, **self.more})

    def _put(self, client_id: str, body: dict[str, Any]) -> Answer:
        if not set(body) <= _MEMBERS:
            return _problem(400)
        given = {"applicationType": "web", "consentType": "explicit", "roles": [], "scopes": [], **body}
        kinds = (
            ("clientType", ("public", "confidential")),
            ("applicationType", ("web", "native")),
            ("consentType", ("explicit", "implicit", "external", "systematic")),
        )
        names = (*given["roles"], *given["scopes"])
        if any(given.get(name) not in known for name, known in kinds) or not all(one.strip() for one in names):
            return _problem(400)
        if not (given.get("displayName") or "").strip() or given.get("clientId") != client_id:
            return _problem(400)
        if client_id != self.application["clientId"]:
            return _problem(404)
        if not set(given["roles"]) <= self.roles or not set(given["scopes"]) <= self.scopes | {"openid"}:
            return _problem(400)
        if given["clientType"] == "public" and given.get("clientSecret"):
            return _problem(400)
        self._update(given)
        return self._described()

    def _update(self, given: dict[str, Any]) -> None:
        """Nothing is written where all of it is there already."""
        after = {
            **self.application,
            **{name: given.get(name) for name in ("displayName", "clientType", "applicationType", "consentType")},
            "roles": sorted(given["roles"]),
            "permissions": sorted(_permissions(set(self.application["permissions"]), given)),
            "requirements": sorted(_requirements(set(self.application["requirements"]), given)),
            "redirectUris": _uris(given.get("redirectUris")),
            "postLogoutRedirectUris": _uris(given.get("postLogoutRedirectUris")),
        }
        same = all(
            set(after[name]) == set(value) if name in _SETS else after[name] == value
            for name, value in self.application.items()
        )
        secret = given.get("clientSecret") or self.secret
        if not same or secret != self.secret:
            self._commit(after, secret)

    def _commit(self, application: dict[str, Any], secret: str) -> None:
        def committed() -> None:
            with self._lock:
                self.application, self.secret = application, secret
                self.saves += 1
                self.issuer.set_secret(CLIENT, secret)

        if self.held_back:
            self._waiting.append((self.clock.monotonic(), committed))
        else:
            committed()

    def _import(self, incoming: Incoming) -> Answer:
        if incoming.method != "POST":
            return Answer(405)
        form = _form(incoming)
        if (form.get("ClientName"), form.get("ApiKey")) != (REMOTE_CLIENT.encode(), API_KEY.encode()):
            return Answer(400, {"Content-Type": "text/plain"}, b"The Api Key was not recognized " + IN_A_BODY.encode())
        try:
            with zipfile.ZipFile(io.BytesIO(form["Content"])) as archive:
                steps = json.loads(archive.read("Recipe.json"))["steps"]
            if not self.fails:
                for step in steps:
                    self._step(step)
        except Exception:
            pass  # Orchard logs it, and answers as if all were well
        return Answer(200)

    def _step(self, step: dict[str, Any]) -> None:
        if step["name"] != "OpenIdApplication" or step["ClientId"] != self.application["clientId"]:
            raise ValueError
        given = {f"{name[0].lower()}{name[1:]}": value for name, value in step.items()}
        given |= {
            "clientType": step.get("Type"),
            "applicationType": self.application["applicationType"],
            "roles": [one["Name"] for one in step.get("RoleEntries", [])],
            "scopes": [one["Name"] for one in step.get("ScopeEntries", [])],
        }
        self._update(given)


def _permissions(before: set[str], given: dict[str, Any]) -> set[str]:
    """How the flows that are allowed become permissions of a confidential application. Others stay."""

    def allows(*flows: str) -> bool:
        return any(given.get(f"allow{flow}") for flow in flows)

    code, hybrid, implicit = "AuthorizationCodeFlow", "HybridFlow", "ImplicitFlow"
    device, refresh, password = "DeviceAuthorizationFlow", "RefreshTokenFlow", "PasswordFlow"
    after = {one for one in before if not one.startswith("scp:")}
    device_grant = "gt:urn:ietf:params:oauth:grant-type:device_code"
    for permission, on in (
        ("gt:authorization_code", allows(code, hybrid)),
        ("gt:client_credentials", allows("ClientCredentialsFlow")),
        ("gt:implicit", allows(hybrid, implicit)),
        ("gt:password", allows(password)),
        ("gt:refresh_token", allows(refresh)),
        (device_grant, allows(device)),
        ("ept:authorization", allows(code, hybrid, implicit)),
        ("ept:pushed_authorization", allows(code, hybrid, implicit)),
        ("ept:token", allows(code, hybrid, "ClientCredentialsFlow", device, password, refresh)),
        ("ept:device_authorization", allows(device)),
        ("ept:end_session", allows("LogoutEndpoint")),
        ("ept:introspection", allows("IntrospectionEndpoint")),
        ("ept:revocation", allows("RevocationEndpoint")),
        ("rst:code", allows(code)),
        ("rst:id_token", allows(implicit)),
        ("rst:code id_token", allows(hybrid)),
        *((f"rst:{types}", False) for types in ("token", "id_token token", "code token", "code id_token token")),
    ):
        (after.add if on else after.discard)(permission)
    if not allows("LogoutEndpoint"):
        after.discard("ept:logout")
    return after | {f"scp:{scope}" for scope in given["scopes"]}


def _requirements(before: set[str], given: dict[str, Any]) -> set[str]:
    after = before - {"ft:pkce", "ft:par"}
    if given.get("requireProofKeyForCodeExchange"):
        after.add("ft:pkce")
    if given.get("requirePushedAuthorizationRequests"):
        after.add("ft:par")
    return after


def _uris(text: str | None) -> list[str]:
    return sorted({one for one in (text or "").replace(",", " ").split(" ") if one})


def _form(incoming: Incoming) -> dict[str, bytes]:
    head = f"Content-Type: {incoming.headers['content-type']}\r\n\r\n".encode()
    parts = message_from_bytes(head + incoming.body).get_payload()
    assert isinstance(parts, list)
    return {
        str(part.get_param("name", header="content-disposition")): _bytes(part.get_payload(decode=True))  # type: ignore[union-attr]
        for part in parts
    }


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value


def _problem(status: int) -> Answer:
    return _json(status, {"title": "It was not done", "detail": IN_A_BODY, "status": status})


def _json(status: int, body: Any = None) -> Answer:
    content = b"" if body is None else json.dumps(body).encode()
    return Answer(status, {"Content-Type": "application/json", "Cache-Control": "no-store"}, content)
