"""Auth0: an application has one client secret, whose value may be ours. The old one ends when the new one is saved.

Made from Auth0's documentation and tested on a site that behaves like it. It was never run against Auth0 itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...backends import Backend
from ...clock import Deadline
from ...errors import ConfigurationError
from ...exchange import Answer
from ...secret import Secret
from ..outcome import Adapter, Applied, Capabilities, Client, Outcome, Preflight, Unknown
from .admin import Admin, AdminApi, checked, failure_of, secret_at, segment, text_at

__all__ = ["Auth0"]

_PROPAGATION = 30.0  # seconds for which Auth0 says that the old one or the new one may be accepted
_WITH_A_SECRET = ("client_secret_basic", "client_secret_post")
_ASKED = "client_id,token_endpoint_auth_method,client_authentication_methods,grant_types,jwt_configuration"
_SCOPES = "read:clients, update:clients and update:client_keys"
_HINTS = {
    401: "What it logs in with needs a token for the Management API: audience = 'https://DOMAIN/api/v2/'",
    403: f"Allow the rotator's application {_SCOPES} of the Management API",
    404: "Auth0 has no such application in this tenant: correct the client ID, or base_url",
}


class Auth0(Adapter):
    """The client secret of an Auth0 application. `base_url` is the tenant's own, such as "https://example.eu.auth0.com".

    `admin` logs in for the Management API with read:clients, update:clients and update:client_keys; a table of it needs
    the credentials only.

    One secret is accepted, so programs have to try the pending one before this is changed. For half a minute the old
    and the new one are mixed: each request meets the one or the other.
    """

    def __init__(
        self,
        base_url: str,
        *,
        admin: Admin,
        stores: Mapping[str, Backend] | None = None,
        ca_file: str | None = None,
        proxy: str | Secret | None = None,
        plain_http: Iterable[str] = (),
    ) -> None:
        self._api = AdminApi(
            base_url,
            admin=admin,
            defaults=_login_of(base_url, admin),
            stores=stores,
            ca_file=ca_file,
            proxy=proxy,
            plain_http=plain_http,
        )

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(chosen=True, slots=1, propagation=_PROPAGATION, rejected=("access_denied",))

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        """Raises ConfigurationError where the application does not log in with a secret. The right to change it shows
        only when it is changed."""
        self._api.refuse_own(client)
        query = {"fields": _ASKED, "include_fields": "true"}
        answer = self._api.ask("GET", _path(client), query=query, deadline=deadline)
        answer = checked(answer, f"the application {client.client_id!r} in Auth0", hints=_HINTS)
        members, _ = answer.members()
        method = text_at(answer, "token_endpoint_auth_method")
        if (method is not None and method not in _WITH_A_SECRET) or members.get("client_authentication_methods"):
            raise ConfigurationError(
                f"the application {client.client_id!r} in Auth0 does not log in with a client secret",
                hint="Its authentication method has to be Client Secret, by Post or Basic",
            )
        return Preflight(tuple(_cautions(answer, members)), 1)

    def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Outcome:
        """Save the secret in the place of the one that is there. To do it twice changes nothing more."""
        answer = self._api.ask("PATCH", _path(client), json={"client_secret": secret}, deadline=deadline)
        failed = failure_of(answer, "saving the secret in Auth0", hints=_HINTS)
        if failed is not None or not isinstance(answer, Answer):
            return failed or Unknown("saving the secret in Auth0: no answer")
        given = secret_at(answer, "client_secret")  # shown to whoever may read it
        if given is not None and given != secret:
            return Unknown("saving the secret in Auth0: it has another value than the one that was sent")
        return Applied()


def _login_of(base_url: Any, admin: Admin) -> dict[str, Any]:
    """What a table of `admin` may leave out: the tenant's own token endpoint, and its Management API."""
    if not isinstance(admin, Mapping) or not isinstance(base_url, str):
        return {}
    site = base_url.rstrip("/")
    return {"audience": f"{site}/api/v2/"} | ({} if "issuer" in admin else {"token_url": f"{site}/oauth/token"})


def _path(client: Client) -> str:
    return f"/api/v2/clients/{segment(client.client_id)}"


def _cautions(answer: Answer, members: Mapping[str, Any]) -> Iterable[str]:
    grants = members.get("grant_types")
    if isinstance(grants, list) and "client_credentials" not in grants:
        yield "the application is not allowed the client_credentials grant"
    if text_at(answer, "jwt_configuration", "alg") == "HS256":
        yield "its ID tokens are signed with the client secret (HS256), so those issued before end with the old one"
