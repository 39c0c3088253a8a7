"""Okta as its documentation describes it: the client secrets of an application, and a token endpoint.

From the vendor's guide on rotating client secrets and from the models of its SDKs (ids, `created`, `status`,
`client_secret`, `secret_hash`, two at most, only an inactive one can be deleted), and E0000001, E0000007, E0000011 and
E0000047 from its list of error codes. `secret_hash` is the first half of the value's SHA-256 in base64url: so it is in
both of the guide's examples. Assumed, since nothing says so: which status and code the third secret is refused with.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

from secretsource.testing import Answer, Incoming

from .vendors import API_TOKEN, CLIENT, IN_A_BODY, OLD, Route, Vendor, _json, iso

_APPS = "/api/v1/apps/"


@dataclass
class Kept:
    id: str
    value: str
    created: float
    active: bool = True


@dataclass
class OktaSite(Vendor):
    """`clear`: the list shows the values, as the guide has it. `hashed`: it shows their hashes. `app_id`: as the client
    ID, unless somebody chose that."""

    clear: bool = True
    hashed: bool = True
    app_id: str = CLIENT
    app: dict[str, Any] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)

    token_path = "/oauth2/default/v1/token"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._made = 0
        self.kept = [self._new(OLD, 1_700_000_000.0)]

    def _new(self, value: str, created: float | None = None) -> Kept:
        self._made += 1
        # The clock has seconds: two that were made within one are told apart by nothing.
        return Kept(f"ocs{self._made:017d}", value, float(int(created or self.clock.now().wall)))

    def add(self, value: str, *, active: bool = True, created: float | None = None) -> Kept:
        """Somebody else adds one."""
        one = self._new(value, created)
        one.active = active
        self.kept.append(one)
        return one

    def accepts(self, client_id: str, secret: str, node: int) -> bool:
        return client_id == CLIENT and any(one.active and one.value == secret for one in self.kept)

    def wrong(self, client_id: str, secret: str) -> Answer:
        return _json(401, {"error": "invalid_client", "error_description": f"The client secret {secret} is invalid."})

    def administer(self, incoming: Incoming, body: Any) -> Route:
        allowed = incoming.headers.get("authorization") == f"SSWS {API_TOKEN}" or self.may(incoming, "okta.apps.manage")
        if not allowed:
            return _error(401, "E0000011", f"Invalid token provided {IN_A_BODY}")
        if not incoming.path.startswith(_APPS):
            return _error(404, "E0000022", "The endpoint does not support the provided HTTP method")
        app_id, _, rest = incoming.path.removeprefix(_APPS).partition("/")
        if app_id != self.app_id:
            return _error(404, "E0000007", f"Not found: Resource not found: {app_id} (AppInstance)")
        if not rest and incoming.method == "GET":
            return Route(200, self._app())
        parts = rest.split("/")
        if parts[:2] != ["credentials", "secrets"]:
            return _error(404, "E0000022", "The endpoint does not support the provided HTTP method")
        return self._secrets(incoming.method, parts[2:], body)

    def _secrets(self, method: str, rest: list[str], body: Any) -> Route:
        if not rest:
            return Route(200, [self._shown(one) for one in self.kept]) if method == "GET" else self._create(body or {})
        one = next((one for one in self.kept if one.id == rest[0]), None)
        if one is None:
            return _error(404, "E0000007", f"Not found: Resource not found: {rest[0]}")
        if method == "DELETE":
            if one.active:
                return _error(400, "E0000001", f"Api validation failed: an active secret {IN_A_BODY}")
            self.kept.remove(one)
            return Route(204)
        if rest[1:] == ["lifecycle", "deactivate"]:
            if sum(other.active for other in self.kept) == 1 and one.active:
                return _error(400, "E0000001", "Api validation failed: the last active secret")
            one.active = False
        elif rest[1:] == ["lifecycle", "activate"]:
            one.active = True
        return Route(200, self._shown(one))

    def _create(self, body: dict[str, Any]) -> Route:
        value = body.get("client_secret") or "generated-by-okta"
        if len(self.kept) >= 2:
            return _error(400, "E0000001", f"Api validation failed: client_secret {value}: at most two")
        if not 14 <= len(value) <= 100 or not value.isascii():
            return _error(400, "E0000001", f"Api validation failed: client_secret {value}")
        return Route(201, self._shown(self.add(value, active=body.get("status", "ACTIVE") == "ACTIVE"), always=True))

    def _shown(self, one: Kept, *, always: bool = False) -> dict[str, Any]:
        digest = hashlib.sha256(one.value.encode()).digest()[:16]
        shown = {
            "id": one.id,
            "created": iso(one.created),
            "lastUpdated": iso(one.created),
            "status": "ACTIVE" if one.active else "INACTIVE",
        }
        if self.clear or always:
            shown["client_secret"] = one.value
        if self.hashed:
            shown["secret_hash"] = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        return shown

    def _app(self) -> dict[str, Any]:
        return {
            "id": self.app_id,
            "status": "ACTIVE",
            "signOnMode": "OPENID_CONNECT",
            "credentials": {
                "oauthClient": {"client_id": CLIENT, "token_endpoint_auth_method": "client_secret_basic"},
            },
            "settings": {"oauthClient": {"grant_types": ["client_credentials"]}},
        } | self.app


def _error(status: int, code: str, summary: str) -> Route:
    return Route(status, {"errorCode": code, "errorSummary": summary, "errorLink": code, "errorCauses": []})
