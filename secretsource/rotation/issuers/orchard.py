"""Orchard Core with OpenIddict: one secret for an application, which ends the one before as soon as it is saved.

`Orchard` uses the management API of 4.0; `OrchardRecipe` the import that earlier versions have for remote deployments.
Made from Orchard Core's documentation and behaviour, and tested on a site that behaves like it. Neither was ever run
against Orchard Core itself.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ...backends import Backend
from ...clock import Deadline
from ...config.tables import At, Takes, check_table
from ...errors import ConfigurationError, SecretSourceError, forgetting
from ...exchange import Answer
from ...reference import SecretReference
from ...secret import Secret
from ..outcome import Adapter, Applied, Capabilities, Client, Minted, Outcome, Preflight, Refused, Unknown
from .admin import Admin, AdminApi, Upload, checked, failure_of, kept_secret, secret_at, text_at

__all__ = ["Orchard", "OrchardRecipe"]

_APPLICATION = "/api/openid/applications/by-client-id"
_ROTATE = "/api/openid/applications/credentials:rotate"
_SCOPE = "orchardcore.management"
_RIGHTS = (
    f"The rotator's application needs the scope {_SCOPE}, and a role with Access Remote Management and Manage "
    "Applications"
)
_HINTS = {
    401: _RIGHTS,
    403: _RIGHTS,
    404: "Correct the client ID and base_url=, with the tenant's prefix. Before Orchard Core 4.0 there is no such API: "
    "the adapters orchard-recipe and manual are for that",
}
_SAVE_IT = "Save the application once in Orchard's admin pages, or rotate it by the adapter manual"

# --- what the management API says of an application, and what it takes

_DESCRIBED = {"id", "clientId", "displayName", "clientType", "applicationType", "consentType"}
_LISTED = ("roles", "permissions", "requirements", "redirectUris", "postLogoutRedirectUris")
_CODE, _HYBRID, _IMPLICIT = "allowAuthorizationCodeFlow", "allowHybridFlow", "allowImplicitFlow"
_PASSWORD, _CLIENT, _DEVICE = "allowPasswordFlow", "allowClientCredentialsFlow", "allowDeviceAuthorizationFlow"
_REFRESH, _LOGOUT = "allowRefreshTokenFlow", "allowLogoutEndpoint"
_DEVICE_GRANT = "gt:urn:ietf:params:oauth:grant-type:device_code"
_OF_A_SCOPE = "scp:"
# By which permission each setting is known.
_KNOWN_BY = {
    _CODE: "rst:code",
    _HYBRID: "rst:code id_token",
    _IMPLICIT: "rst:id_token",
    _PASSWORD: "gt:password",
    _CLIENT: "gt:client_credentials",
    _DEVICE: _DEVICE_GRANT,
    _REFRESH: "gt:refresh_token",
    _LOGOUT: "ept:end_session",
    "allowIntrospectionEndpoint": "ept:introspection",
    "allowRevocationEndpoint": "ept:revocation",
}
_REQUIRED_BY = {"requireProofKeyForCodeExchange": "ft:pkce", "requirePushedAuthorizationRequests": "ft:par"}
# Which permissions Orchard then gives a confidential application: those with any of these settings, and no others of
# these. What is not listed here it leaves as it is.
_GIVEN_FOR = {
    **{permission: {setting} for setting, permission in _KNOWN_BY.items()},
    "gt:authorization_code": {_CODE, _HYBRID},
    "gt:implicit": {_HYBRID, _IMPLICIT},
    "ept:authorization": {_CODE, _HYBRID, _IMPLICIT},
    "ept:pushed_authorization": {_CODE, _HYBRID, _IMPLICIT},
    "ept:device_authorization": {_DEVICE},
    "ept:token": {_CODE, _HYBRID, _CLIENT, _DEVICE, _PASSWORD, _REFRESH},
    "rst:token": set[str](),
    "rst:id_token token": set[str](),
    "rst:code token": set[str](),
    "rst:code id_token token": set[str](),
}
_LOGOUT_ONCE = "ept:logout"  # its name before OpenIddict 6; taken away with the new one, and not put back


class Orchard(Adapter):
    """The secret of an application in a tenant of Orchard Core 4.0, at `base_url` with the tenant's prefix.

    `admin` logs in for the scope orchardcore.management, at the tenant's own token endpoint unless it says otherwise.

    Saving an application replaces all of its settings. So they are read first, and nothing is saved unless what would
    be written is just what is there, and the new secret. `generated` has Orchard make the secret instead, which touches
    nothing else; but calls may fail until that has arrived and is kept.
    """

    def __init__(
        self,
        base_url: str,
        *,
        admin: Admin,
        generated: bool = False,
        stores: Mapping[str, Backend] | None = None,
        ca_file: str | None = None,
        proxy: str | Secret | None = None,
        plain_http: Iterable[str] = (),
    ) -> None:
        defaults = {"scope": _SCOPE}
        if not isinstance(admin, Mapping) or "issuer" not in admin:
            defaults["token_url"] = f"{base_url.rstrip('/') if isinstance(base_url, str) else ''}/connect/token"
        self._api = AdminApi(
            base_url,
            admin=admin,
            defaults=defaults,
            stores=stores,
            ca_file=ca_file,
            proxy=proxy,
            plain_http=plain_http,
        )
        self._generated = generated

    @property
    def capabilities(self) -> Capabilities:
        # It may answer before it commits: a change can take effect after a good answer, and after a bad one.
        return Capabilities(chosen=not self._generated, slots=1, propagation=5.0, landing=30.0)

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        """Raises ConfigurationError also where saving the application would change more than its secret."""
        self._api.refuse_own(client)
        answer = self._described(client, deadline)
        fault = _unfit(answer, client.client_id) if self._generated else _settings(answer, client.client_id)
        if isinstance(fault, Refused):
            raise ConfigurationError(fault.reason, hint=fault.hint)
        return Preflight(secrets=1)

    def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Outcome:
        """Save the application as it is, with this secret. The same once more changes nothing."""
        before = self._read(client, deadline)
        if isinstance(before, Refused):
            return before
        settings = _settings(before, client.client_id)
        if isinstance(settings, Refused):
            return settings
        answer = self._api.ask(
            "PUT",
            _APPLICATION,
            query={"clientId": client.client_id},
            json={**settings, "clientSecret": secret},
            deadline=deadline,
        )
        what = "saving the application in Orchard"
        failed = failure_of(answer, what, hints={**_HINTS, 400: _SAVE_IT})
        if failed is not None or not isinstance(answer, Answer):
            return failed or Unknown(what)
        if _settings(answer, client.client_id) != settings:
            return Unknown(f"{what}: its settings are not what they were before, says the answer")
        return Applied()

    def mint(self, client: Client, label: str, deadline: Deadline) -> Minted | Refused | Unknown:
        """Have Orchard generate the secret. Each call does so anew, and it is told only once."""
        before = self._read(client, deadline)
        fault = before if isinstance(before, Refused) else _unfit(before, client.client_id)
        if fault is not None:
            return fault
        answer = self._api.ask("POST", _ROTATE, query={"clientId": client.client_id}, deadline=deadline)
        what = "having a secret generated in Orchard"
        failed = failure_of(answer, what, hints=_HINTS)
        if failed is not None or not isinstance(answer, Answer):
            return failed or Unknown(what)
        secret = secret_at(answer, "clientSecret")
        if secret is None or text_at(answer, "clientId") != client.client_id:
            return Unknown(f"{what}: the answer has no secret of this client in it")
        return Minted(secret)

    def _described(self, client: Client, deadline: Deadline) -> Answer:
        answer = self._api.ask("GET", _APPLICATION, query={"clientId": client.client_id}, deadline=deadline)
        return checked(answer, f"the application {client.client_id!r} in Orchard", hints=_HINTS)

    def _read(self, client: Client, deadline: Deadline) -> Answer | Refused:
        """For a call that changes something: up to here, nothing has changed."""
        try:
            return self._described(client, deadline)
        except SecretSourceError as error:
            return Refused(error.message, error.hint)


def _unfit(answer: Answer, client_id: str) -> Refused | None:
    """Why this application's secret cannot be changed."""
    members, fault = answer.members()
    what = f"the application {client_id!r} in Orchard"
    if fault is not None or members.get("clientId") != client_id:
        return Refused(f"{what}: the answer does not describe it", "Does base_url= lead to Orchard Core 4.0?")
    if members.get("clientType") != "confidential":
        return Refused(f"{what} has no secret: it is not confidential", "Make it a confidential client")
    return None


def _settings(answer: Answer, client_id: str) -> dict[str, Any] | Refused:
    """What to write so that the application stays as it is described; Refused where nothing that is written does that.

    There is no secret in it, nor in the answer.
    """
    unfit = _unfit(answer, client_id)
    if unfit is not None:
        return unfit
    members, _ = answer.members()
    what = f"the application {client_id!r} in Orchard"
    others = len(members.keys() - _DESCRIBED - set(_LISTED))
    if others:
        return Refused(
            f"{what} has {others} settings that are not known here, which saving it might clear",
            "generated = true leaves them alone, with a gap until the new secret is kept; the adapter manual has none",
        )
    texts = {name: members.get(name) for name in ("displayName", "applicationType", "consentType")}
    unset = sorted(name for name, text in texts.items() if not isinstance(text, str) or not text.strip())
    if unset:
        return Refused(f"{what} has no {' and no '.join(unset)}, which saving it would set", _SAVE_IT)
    lists = {name: _names(members.get(name)) for name in _LISTED}
    if None in lists.values():
        return Refused(f"{what}: its roles, permissions or URIs are no lists of names", _SAVE_IT)
    roles, permissions, requirements, redirects, after_logout = (set(lists[name] or ()) for name in _LISTED)
    settings: dict[str, Any] = {setting: permission in permissions for setting, permission in _KNOWN_BY.items()}
    scopes = sorted(one.removeprefix(_OF_A_SCOPE) for one in permissions if one.startswith(_OF_A_SCOPE))
    changed = sorted(permissions ^ _given(permissions, settings))
    if changed or "" in (*scopes, *roles):
        return Refused(
            f"saving {what} would change what it may do: {', '.join(changed) or 'a role or scope without a name'}",
            _SAVE_IT,
        )
    if any(_separated(one) for one in (*redirects, *after_logout)):
        return Refused(f"{what} has a URI with a blank or comma in it, which saving it would cut in two", _SAVE_IT)
    return {
        "clientId": client_id,
        "clientType": "confidential",
        **texts,
        **settings,
        **{setting: requirement in requirements for setting, requirement in _REQUIRED_BY.items()},
        "roles": sorted(roles),
        "scopes": scopes,
        "redirectUris": " ".join(sorted(redirects)),
        "postLogoutRedirectUris": " ".join(sorted(after_logout)),
    }


def _given(permissions: Collection[str], settings: Mapping[str, bool]) -> set[str]:
    """The permissions after an application with these is saved with these settings, as Orchard works them out."""
    left = {one for one in permissions if one not in _GIVEN_FOR}
    if not settings[_LOGOUT]:
        left.discard(_LOGOUT_ONCE)
    return left | {one for one, needs in _GIVEN_FOR.items() if any(settings[setting] for setting in needs)}


def _names(value: Any) -> Sequence[str] | None:
    return value if isinstance(value, list) and all(isinstance(one, str) for one in value) else None


def _separated(uri: str) -> bool:
    return uri.split() != [uri] or "," in uri


# --- earlier versions: a recipe, imported as a remote deployment

_IMPORT = "/OrchardCore.Deployment.Remote/ImportRemoteInstance/Import"
_SEEN_TO_HERE = ("ClientId", "ClientSecret", "Type")
_FLAGS = (
    "AllowPasswordFlow",
    "AllowClientCredentialsFlow",
    "AllowAuthorizationCodeFlow",
    "AllowRefreshTokenFlow",
    "AllowHybridFlow",
    "AllowImplicitFlow",
    "AllowLogoutEndpoint",
    "AllowIntrospectionEndpoint",
    "AllowRevocationEndpoint",
    "RequireProofKeyForCodeExchange",
)
_TEXTS = ("DisplayName", "ConsentType", "RedirectUris", "PostLogoutRedirectUris")
_ENTRIES = ("RoleEntries", "ScopeEntries")
_IN_LATER_VERSIONS = {
    "RequirePushedAuthorizationRequests": "bool",
    "AllowDeviceAuthorizationFlow": "bool",
    "ApplicationType": "str",
}
_TAKES = Takes(
    {
        **dict.fromkeys(_TEXTS, "str"),
        **dict.fromkeys(_FLAGS, "bool"),
        **dict.fromkeys(_ENTRIES, "list[str | dict[str, str]]"),
        **_IN_LATER_VERSIONS,
    },
    (*_TEXTS, *_ENTRIES, *_FLAGS),
)
_CONSENTS = ("explicit", "external", "implicit", "systematic")
_STEP = "OpenIdApplication"
_FIRST_OF_1980 = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive can say
_IMPORT_HINTS = {
    400: "Correct client_name= and api_key=: they are those of a Remote Client in Orchard's admin pages",
    404: "Correct base_url=, with the tenant's prefix; is its feature Remote Deployment on?",
}


class OrchardRecipe(Adapter):
    """The secret of an application in a tenant of Orchard Core before 4.0, by a recipe that is imported there.

    `client_name` and `api_key`, a reference to it, are those of a Remote Client of the tenant, whose features Remote
    Deployment and OpenID Management are on. The import replaces all settings of the application, and what a recipe
    leaves out it clears. So `application` gives them all, by the names of the recipe step OpenIdApplication.

    Orchard answers alike where the recipe has failed, so whether it was done is known from the token endpoint alone. It
    loads the tenant anew after an import.
    """

    @forgetting
    def __init__(
        self,
        base_url: str,
        *,
        client_name: str,
        api_key: str,
        application: Mapping[str, Any],
        stores: Mapping[str, Backend] | None = None,
        ca_file: str | None = None,
        proxy: str | Secret | None = None,
        plain_http: Iterable[str] = (),
    ) -> None:
        self._api = AdminApi(base_url, admin=None, ca_file=ca_file, proxy=proxy, plain_http=plain_http)
        self._client_name = client_name
        self._api_key = SecretReference.parse(api_key)
        self._application = _checked_application(application)
        self._stores = stores

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(chosen=True, slots=1, propagation=10.0, landing=60.0)

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        """Whether the API key can be read. Orchard itself is not asked: it has nothing that only looks."""
        kept_secret(self._api_key, self._stores, deadline)
        return Preflight(
            (
                "that the API key is right shows when the secret is applied, and that the recipe works, from the token "
                "endpoint",
                f"the import replaces all settings of the application {client.client_id!r} by those given here",
            ),
            secrets=1,
        )

    def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Refused | Unknown:
        """Import a recipe with this secret. Never known to be done."""
        if _is_script(secret):
            return Refused("a recipe would run a secret in brackets as a script", "Generate one without brackets")
        try:
            key = kept_secret(self._api_key, self._stores, deadline)
        except SecretSourceError as error:
            return Refused(error.message, error.hint)
        archive = Upload("Recipe.zip", _archive(self._application, client.client_id, secret), "application/zip")
        answer = self._api.ask(
            "POST",
            _IMPORT,
            multipart={"ClientName": self._client_name, "ApiKey": key, "Content": archive},
            deadline=deadline,
        )
        failed = failure_of(answer, "importing a recipe in Orchard", hints=_IMPORT_HINTS)
        return failed or Unknown("Orchard has taken the recipe, which does not say that it has worked")


def _checked_application(application: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as a recipe writes them. Raises ConfigurationError, which repeats none."""
    at = At("application=")
    if not isinstance(application, Mapping):
        raise at.error("is no table", f"Give all settings of the application: {', '.join(_TAKES.required)}")
    ours = next((name for name in _SEEN_TO_HERE if name in application), None)
    if ours is not None:
        raise at.error(f"has {ours!r}, which is seen to here", "Leave it out")
    missing = [name for name in _TAKES.required if name not in application]
    if missing:
        raise at.error(
            f"has no {', '.join(missing)}, which the import would clear",
            "Write each setting as it stands in the application in Orchard's admin pages",
        )
    check_table(dict(application), _TAKES, at)
    if application["ConsentType"] not in _CONSENTS:
        raise at.error("has a ConsentType that Orchard does not know", f"It is one of {', '.join(_CONSENTS)}")
    if not application["AllowClientCredentialsFlow"]:
        raise at.error("takes the client credentials flow away", "AllowClientCredentialsFlow has to be true")
    whole = {name: _entries(value, at) if name in _ENTRIES else value for name, value in application.items()}
    texts = [value for value in whole.values() if isinstance(value, str)]
    texts += [entry["Name"] for name in _ENTRIES for entry in whole[name]]
    if any(_is_script(Secret(text)) for text in texts):
        raise at.error("has a text in brackets, which a recipe would run as a script", "Write it without them")
    return whole


def _entries(value: Sequence[str | Mapping[str, str]], at: At) -> list[dict[str, str]]:
    """Roles or scopes: names, or tables of a name as in a recipe."""
    entries = [{"Name": one} if isinstance(one, str) else dict(one) for one in value]
    if any(set(one) != {"Name"} or not one["Name"].strip() for one in entries):
        raise at.error("has a role or scope that is no name", 'Write ["Name"], or [{ Name = "Name" }]')
    return entries


def _is_script(secret: Secret) -> bool:
    text = secret.reveal().strip()
    return text.startswith("[") and text.endswith("]")


def _archive(application: Mapping[str, Any], client_id: str, secret: Secret) -> Callable[[], bytes]:
    """A zip archive with a recipe in it, made where the body is: the same bytes each time."""

    def content() -> bytes:
        step = {
            "name": _STEP,
            "ClientId": client_id,
            "Type": "confidential",
            **application,
            "ClientSecret": secret.reveal(),
        }
        recipe = json.dumps({"name": "secretsource", "steps": [step]}, indent=2, sort_keys=True)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as written:
            entry = zipfile.ZipInfo("Recipe.json", _FIRST_OF_1980)
            entry.create_system = 0  # else it depends on where this runs
            written.writestr(entry, recipe)
        return archive.getvalue()

    return content
