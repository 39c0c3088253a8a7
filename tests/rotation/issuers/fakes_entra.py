"""Microsoft Entra as its documentation describes it: an application's passwords in Graph v1.0, and a token endpoint.

From the vendor's reference of `addPassword`, `removePassword` and `passwordCredential` (generated value, shown once,
`keyId`, `hint` of three characters, `displayName`, `endDateTime`, two years unless told otherwise, 204 to a removal,
the application named by its object ID or by `(appId='…')`), its page on error answers, AADSTS7000215 and AADSTS7000222.
That a new password is not accepted for some seconds is an observation of its users (microsoft-graph-docs 17966).
Assumed: what `removePassword` answers to an unknown keyId, and that a list with a next page says so beside it.
"""

from __future__ import annotations

import re
import secrets
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from secretsource.testing import Answer, Incoming

from .vendors import CLIENT, IN_A_BODY, OLD, Route, Vendor, _json, iso

TENANT = "11111111-2222-4333-8444-555555555555"
OBJECT = "99999999-8888-4777-a666-555555555555"
_YEAR = 365 * 86400.0


@dataclass
class Password:
    id: str
    value: str
    name: str | None
    ends: float
    since: float
    hint: str | None


@dataclass
class EntraSite(Vendor):
    """`page`: so many passwords are on a page of the list; `elsewhere`: the next one is said to be on that site.

    `longest`: the seconds that a policy of the tenant allows. `most`: how many passwords an application may have.
    """

    scopes: tuple[str, ...] = ("https://graph.microsoft.com/.default",)
    page: int | None = None
    elsewhere: str | None = None
    longest: float | None = None
    most: int | None = None
    audience: str = "AzureADMyOrg"
    permitted: bool = True
    passwords: list[Password] = field(default_factory=list)

    token_path = f"/{TENANT}/oauth2/v2.0/token"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.passwords = []
        self.add(OLD, "made in the portal", since=float("-inf"))

    @property
    def base_url(self) -> str:
        return f"{self.origin}/v1.0"

    def add(
        self,
        value: str,
        name: str | None = None,
        *,
        since: float | None = None,
        ends: float | None = None,
        hint: str | None = "",
    ) -> Password:
        """Somebody else adds one. `hint`: its first three characters, unless told otherwise."""
        ends = self.clock.now().wall + 2 * _YEAR if ends is None else ends
        since = self.clock.monotonic() + self.lag if since is None else since
        one = Password(str(uuid.uuid4()), value, name, ends, since, value[:3] if hint == "" else hint)
        self.passwords.append(one)
        return one

    def accepts(self, client_id: str, secret: str, node: int) -> bool:
        now = self.clock.now()
        return client_id == CLIENT and any(
            one.value == secret and one.since <= now.monotonic and now.wall < one.ends for one in self.passwords
        )

    def wrong(self, client_id: str, secret: str) -> Answer:
        expired = any(one.value == secret and one.ends <= self.clock.now().wall for one in self.passwords)
        code, why = (
            (7000222, "The provided client secret keys are expired.") if expired else (7000215, "Invalid secret")
        )
        return _json(
            401,
            {
                "error": "invalid_client",
                "error_description": f"AADSTS{code}: {why} {secret}",
                "error_codes": [code],
                "trace_id": str(uuid.uuid4()),
            },
        )

    def administer(self, incoming: Incoming, body: Any) -> Route:
        if not self.may(incoming):
            return _error(401, "InvalidAuthenticationToken", f"Access token validation failure {IN_A_BODY}")
        if not self.permitted:
            return _error(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
        match = re.fullmatch(r"/v1\.0/applications(?:\(appId='([^']*)'\)|/([^/]*))(?:/(\w+))?", unquote(incoming.path))
        if match is None or (match[1] or match[2]) != (CLIENT if match[1] is not None else OBJECT):
            return _error(404, "Request_ResourceNotFound", "Resource does not exist or is not reachable.")
        if incoming.method == "GET" and match[3] is None:
            return self._read(int(dict(parse_qsl(incoming.query)).get("$skiptoken", "0")), incoming)
        if incoming.method == "POST" and match[3] == "addPassword":
            return self._add((body or {}).get("passwordCredential") or {})
        if incoming.method == "POST" and match[3] == "removePassword":
            return self._remove(body["keyId"])
        return _error(400, "Request_BadRequest", "Not supported")

    def _read(self, start: int, incoming: Incoming) -> Route:
        end = len(self.passwords) if self.page is None else start + self.page
        shown = {
            "id": OBJECT,
            "appId": CLIENT,
            "signInAudience": self.audience,
            "passwordCredentials": [self._shown(one) for one in self.passwords[start:end]],
        }
        if end < len(self.passwords):
            site = self.elsewhere or self.origin
            shown["passwordCredentials@odata.nextLink"] = f"{site}{incoming.path}?$skiptoken={end}"
        return Route(200, shown)

    def _add(self, asked: dict[str, Any]) -> Route:
        if self.most is not None and len(self.passwords) >= self.most:
            return _error(400, "Request_BadRequest", f"Too many passwords {IN_A_BODY}")
        ends = self.clock.now().wall + 2 * _YEAR
        if "endDateTime" in asked:
            ends = datetime.fromisoformat(asked["endDateTime"]).timestamp()
        if self.longest is not None and ends - self.clock.now().wall > self.longest:
            return _error(400, "CredentialInvalidLifetimeAsPerAppPolicy", "Credential lifetime exceeds the max value")
        value = f"{secrets.token_urlsafe(3)[:3]}8Q~not-a-real-secret-{secrets.token_urlsafe(12)}"
        one = self.add(value, asked.get("displayName"), ends=ends)
        return Route(200, self._shown(one) | {"secretText": value})

    def _remove(self, key_id: str) -> Route:
        one = next((one for one in self.passwords if one.id == key_id), None)
        if one is None:
            return _error(400, "Request_BadRequest", f"No password credential found with keyId {IN_A_BODY}")
        self.passwords.remove(one)
        return Route(204)

    def _shown(self, one: Password) -> dict[str, Any]:
        return {
            "customKeyIdentifier": None,
            "displayName": one.name,
            "endDateTime": iso(one.ends),
            "hint": one.hint,
            "keyId": one.id,
            "secretText": None,
            "startDateTime": iso(one.ends - 2 * _YEAR),
        }


def _error(status: int, code: str, message: str) -> Route:
    return Route(status, {"error": {"code": code, "message": message, "innerError": {"request-id": str(uuid.uuid4())}}})
