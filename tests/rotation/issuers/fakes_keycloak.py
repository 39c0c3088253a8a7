"""Keycloak as its documentation and its administration API describe it: a realm's clients, and its token endpoint.

From the server administration guide (clients, client secret rotation), the REST API's reference, and the behaviour of
the endpoints as of 2026: a PUT takes what is left out for no change, except that it switches authorization services off
and that scopes which are named replace all others; a secret's places and ends are attributes of the client; a policy
acts after a save, where the main secret has reached its end, and at a first token; without one, a save clears what a
policy has left. A wrong secret is 401 unauthorized_client, an unknown client 401 invalid_client. Assumed: what an
account without its roles is answered. Not compared with Keycloak itself.
"""

from __future__ import annotations

import copy
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from secretsource.testing import Answer, Incoming

from .vendors import CLIENT, IN_A_BODY, OLD, Route, Vendor, _json

REALM = "shop"
UUID = "5f1e7a52-6d0b-4b5e-9a0c-3c1f6a4f8b11"
MASK = "**********"
_CLIENTS = f"/admin/realms/{REALM}/clients"
_PROFILES = f"/admin/realms/{REALM}/client-policies/profiles"
_ROTATED = ("client.secret.rotated", "client.secret.rotated.creation.time", "client.secret.rotated.expiration.time")
_ENDS = "client.secret.expiration.time"
_MADE = "client.secret.creation.time"


@dataclass
class RotationPolicy:
    """Seconds: how long a main secret lives, and how long the one before is kept."""

    expiration: int = 30 * 86400
    rotated: int = 2 * 86400


def registered(**more: Any) -> dict[str, Any]:
    """What Keycloak keeps of a client that logs in with a secret."""
    return {
        "id": UUID,
        "clientId": CLIENT,
        "name": "Point of sale",
        "enabled": True,
        "protocol": "openid-connect",
        "publicClient": False,
        "bearerOnly": False,
        "serviceAccountsEnabled": True,
        "authorizationServicesEnabled": True,
        "clientAuthenticatorType": "client-secret",
        "secret": OLD,
        "redirectUris": ["https://pos.example.com/*"],
        "notBefore": 0,
        "attributes": {_MADE: "1700000000", "post.logout.redirect.uris": "+"},
        "defaultClientScopes": ["profile", "roles"],
        "optionalClientScopes": ["offline_access"],
        "protocolMappers": [{"name": "site", "protocol": "openid-connect", "config": {"claim.name": "site"}}],
        **more,
    }


@dataclass
class KeycloakSite(Vendor):
    """`manages`, `sees_scopes`, `views_realm`: what the rotator's account may."""

    policy: RotationPolicy | None = None
    client: dict[str, Any] = field(default_factory=registered)
    manages: bool = True
    sees_scopes: bool = True
    views_realm: bool = True

    token_path = f"/realms/{REALM}/protocol/openid-connect/token"

    @property
    def attributes(self) -> dict[str, str]:
        found: dict[str, str] = self.client["attributes"]
        return found

    @property
    def kept(self) -> list[str]:
        """The main secret, and the rotated one."""
        return [self.client["secret"], *filter(None, [self.attributes.get(_ROTATED[0])])]

    def age_secret(self) -> None:
        """The main secret has reached its end."""
        self.attributes[_ENDS] = str(self._now() - 1)

    def age_rotated(self) -> None:
        self.attributes[_ROTATED[2]] = str(self._now() - 1)

    def regenerate(self) -> str:
        """Somebody does it in the console."""
        with self.lock:
            return self._generated()

    # --- tokens

    def accepts(self, client_id: str, secret: str, node: int) -> bool:
        if client_id != self.client["clientId"] or not self.client["enabled"]:
            return False
        rotated = self.attributes.get(_ROTATED[0]) == secret and not self._is_over(_ROTATED[2], unless_said=True)
        if secret != self.client["secret"] and not rotated:
            return False
        if self._is_over(_ENDS, unless_said=False):
            return False
        if self.policy is not None:
            self.attributes.setdefault(_ENDS, str(self._now() + self.policy.expiration))
        return True

    def wrong(self, client_id: str, secret: str) -> Answer:
        known = client_id == self.client["clientId"]
        error = "unauthorized_client" if known else "invalid_client"
        return _json(401, {"error": error, "error_description": f"Invalid client credentials {IN_A_BODY}"})

    # --- the administrator's API

    def administer(self, incoming: Incoming, body: Any) -> Route:
        if not self.may(incoming):
            return Route(401, {"error": "HTTP 401 Unauthorized"})
        one = f"{_CLIENTS}/{self.client['id']}"
        match incoming.method, incoming.path:
            case "GET", path if path == _CLIENTS:
                wanted = parse_qs(incoming.query).get("clientId", [""])[0]
                return Route(200, [self._shown()] if wanted == self.client["clientId"] else [])
            case "GET", path if path == one:
                return Route(200, self._shown())
            case "GET", path if path == _PROFILES:
                return Route(200, self._profiles()) if self.views_realm else _FORBIDDEN
            case _ if not self.manages:
                return _FORBIDDEN
            case "PUT", path if path == one:
                return self._save(body)
            case "GET", path if path == f"{one}/client-secret":
                return Route(200, {"type": "secret", "value": self.client["secret"]})
            case "POST", path if path == f"{one}/client-secret":
                if body is None or incoming.headers.get("content-type") != "application/json":
                    return Route(415, {"error": "HTTP 415 Unsupported Media Type"})
                return Route(200, {"type": "secret", "value": self._generated()})
            case "GET", path if path == f"{one}/client-secret/rotated":
                rotated = self.attributes.get(_ROTATED[0])
                return Route(200, {"type": "secret", "value": rotated}) if rotated else _NOT_FOUND
            case "DELETE", path if path == f"{one}/client-secret/rotated":
                self._forget_rotated()
                return Route(204)
        return _NOT_FOUND

    def _shown(self) -> dict[str, Any]:
        shown = copy.deepcopy(self.client)
        shown["access"] = {"view": True, "configure": self.manages, "manage": self.manages}
        if not shown["authorizationServicesEnabled"]:
            del shown["authorizationServicesEnabled"]
        if not self.manages:
            shown["secret"] = MASK
        if not self.sees_scopes:
            shown["defaultClientScopes"] = shown["optionalClientScopes"] = []
        return shown

    def _save(self, body: dict[str, Any]) -> Route:
        if body.get("clientId") != self.client["clientId"]:
            return Route(409, {"errorMessage": "Client already exists"})
        if body.get("defaultClientScopes") is not None or body.get("optionalClientScopes") is not None:
            self.client["defaultClientScopes"] = self.client["optionalClientScopes"] = []
        attributes = {**self.attributes, **(body.get("attributes") or {})}
        self.client |= {name: value for name, value in body.items() if value is not None and name != "access"}
        self.client["attributes"] = attributes
        self.client["authorizationServicesEnabled"] = body.get("authorizationServicesEnabled") is True
        if self.policy is None:
            self._forget_rotated()
            attributes.pop(_ENDS, None)
        elif self._is_over(_ENDS, unless_said=False):
            self._generated()
        else:
            attributes.setdefault(_ENDS, str(self._now() + self.policy.expiration))
        return Route(204)

    def _generated(self) -> str:
        before, self.client["secret"] = self.client["secret"], f"generated-{secrets.token_urlsafe(24)}"
        now = self._now()
        self._forget_rotated()
        self.attributes[_MADE] = str(now)
        if self.policy is None:
            self.attributes.pop(_ENDS, None)
        else:
            self.attributes[_ENDS] = str(now + self.policy.expiration)
            if self.policy.rotated > 0:
                self.attributes.update(zip(_ROTATED, (before, str(now), str(now + self.policy.rotated)), strict=True))
        return str(self.client["secret"])

    def _profiles(self) -> dict[str, Any]:
        if self.policy is None:
            return {"profiles": []}
        periods = {"expiration-period": self.policy.expiration, "rotated-expiration-period": str(self.policy.rotated)}
        executor = {"executor": "secret-rotation", "configuration": periods}
        others = {"executor": "secure-session", "configuration": {}}
        return {"profiles": [{"name": "rotating", "executors": [others, executor]}]}

    def _forget_rotated(self) -> None:
        for name in _ROTATED:
            self.attributes.pop(name, None)

    def _is_over(self, name: str, *, unless_said: bool) -> bool:
        ends = self.attributes.get(name)
        return unless_said if ends is None else int(ends) < self._now()

    def _now(self) -> int:
        return int(self.clock.now().wall)


_FORBIDDEN = Route(403, {"error": "HTTP 403 Forbidden", "error_description": IN_A_BODY})
_NOT_FOUND = Route(404, {"error": f"Could not find it {IN_A_BODY}"})
