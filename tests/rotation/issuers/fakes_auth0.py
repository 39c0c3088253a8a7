"""Auth0 as its documentation describes it: one client of the Management API v2, and a token endpoint.

From the vendor's reference of `GET` and `PATCH /api/v2/clients/{id}`, its page on rotating client secrets (one secret;
for up to thirty seconds the old or the new one is accepted), its rate limits, and the 401 `access_denied` with which
its token endpoint answers a wrong secret. `client_secret` is shown to whoever has `read:client_keys`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from secretsource.testing import Answer, Incoming

from .vendors import CLIENT, IN_A_BODY, OLD, Route, Vendor, _json

_CLIENTS = "/api/v2/clients/"


@dataclass
class Auth0Site(Vendor):
    """A change is known `lag` seconds later. `mixed`: to one of two nodes at once, and these answer in turn."""

    scopes: tuple[str, ...] = ("read:clients", "update:clients", "update:client_keys")
    client: dict[str, Any] = field(default_factory=dict)
    client_id: str = CLIENT
    mixed: bool = False
    changes: list[tuple[float, str]] = field(default_factory=list)

    token_path = "/oauth/token"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.changes = [(float("-inf"), OLD)]

    def accepts(self, client_id: str, secret: str, node: int) -> bool:
        seen_until = self.clock.monotonic() - (self.lag if node or not self.mixed else 0.0)
        value = [text for at, text in self.changes if at <= seen_until][-1]
        return client_id == self.client_id and secret == value

    def wrong(self, client_id: str, secret: str) -> Answer:
        return _json(401, {"error": "access_denied", "error_description": f"Unauthorized {secret}"})

    def administer(self, incoming: Incoming, body: Any) -> Route:
        if not self.may(incoming):
            return _error(401, "Unauthorized", "Invalid token", "invalid_token")
        if unquote(incoming.path.removeprefix(_CLIENTS)) != self.client_id:
            return _error(404, "Not Found", "The client does not exist", "inexistent_client")
        if incoming.method == "GET":
            return self._read(incoming)
        if incoming.method == "PATCH":
            return self._update(incoming, body)
        return _error(404, "Not Found", "Not Found", None)

    def _read(self, incoming: Incoming) -> Route:
        if not self.may(incoming, "read:clients", "read:client_keys"):
            return _error(403, "Forbidden", "Insufficient scope, expected any of: read:clients", "insufficient_scope")
        asked = dict(parse_qsl(incoming.query))
        shown = self._shown(incoming)
        if "fields" in asked and asked.get("include_fields", "true") == "true":
            shown = {name: value for name, value in shown.items() if name in asked["fields"].split(",")}
        return Route(200, shown)

    def _update(self, incoming: Incoming, body: Any) -> Route:
        needed = ["update:clients", *(["update:client_keys"] if "client_secret" in body else [])]
        if not all(self.may(incoming, scope) for scope in needed):
            return _error(403, "Forbidden", f"Insufficient scope, expected: {needed}", "insufficient_scope")
        value = body.get("client_secret")
        if set(body) - {"client_secret"} or not isinstance(value, str) or not value:
            return _error(400, "Bad Request", f"Payload validation error: {value} {IN_A_BODY}", "invalid_body")
        self.changes.append((self.clock.monotonic(), value))
        return Route(200, self._shown(incoming))

    def _shown(self, incoming: Incoming) -> dict[str, Any]:
        shown = {
            "client_id": self.client_id,
            "name": "Point of sale",
            "app_type": "non_interactive",
            "token_endpoint_auth_method": "client_secret_post",
            "grant_types": ["client_credentials"],
            "jwt_configuration": {"alg": "RS256", "lifetime_in_seconds": 36000},
        } | self.client
        if self.may(incoming, "read:client_keys"):
            shown["client_secret"] = self.changes[-1][1]
        return shown


def _error(status: int, error: str, message: str, code: str | None) -> Route:
    return Route(status, {"statusCode": status, "error": error, "message": message, "errorCode": code})
