"""Microsoft Entra: an application has any number of client secrets, which Entra generates and shows once.

Made from Microsoft's documentation and tested on a site that behaves like it. It was never run against Entra itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ...backends import Backend
from ...clock import SYSTEM_CLOCK, Clock, Deadline
from ...durations import duration
from ...errors import ConfigurationError, IssuerUnavailable
from ...exchange import Answer
from ...secret import Secret
from ...urls import http_parts
from ..outcome import Adapter, Applied, Capabilities, Client, Minted, Outcome, Preflight, Refused, Unknown
from .admin import Admin, AdminApi, Unreached, checked, code_in, failure_of, secret_at, segment, text_at

__all__ = ["Entra"]

_GRAPH = "https://graph.microsoft.com/v1.0"
_PROPAGATION = 60.0  # seconds; 4 to 18 were seen, and nothing is promised
_SELECT = "id,appId,signInAudience,passwordCredentials"
_LIST = "passwordCredentials"
_PAGES_AT_MOST = 20
_OF_PERSONS = ("AzureADandPersonalMicrosoftAccount", "PersonalMicrosoftAccount")
_MOST_OF_PERSONS = 2
_HINTS = {
    401: "What it logs in with needs a token for Microsoft Graph: scope = 'https://graph.microsoft.com/.default'",
    403: "Grant the rotator Application.ReadWrite.OwnedBy, and make it an owner of the application",
    404: "Entra has no such application in this tenant: the client ID is its appId; object_id= names it otherwise",
}
_OF_POLICIES = {
    "CredentialInvalidLifetimeAsPerAppPolicy": "A policy of the tenant allows secrets a shorter life: lower lifetime=",
    "CredentialTypeNotAllowedAsPerAppPolicy": "A policy of the tenant allows this application no client secrets",
}
_BY_HAND = "Remove the one that is to go in the Entra admin center, under Certificates & secrets, and run it again"


class _Password(NamedTuple):
    """A client secret in the list. `may_be`: whether it can have this value, None where Entra does not show that."""

    id: str
    name: str | None
    expires: float | None
    may_be: Callable[[Secret], bool | None]


class Entra(Adapter):
    """The client secrets of an application in Microsoft Entra, by Microsoft Graph. `base_url` is another one in a
    national cloud.

    `admin` logs in for Graph with Application.ReadWrite.OwnedBy, as an owner of the application; a table of it needs
    the credentials and the issuer. The application is found by the client ID, or by `object_id`. A new secret lives for
    `lifetime`, a duration such as "180d", and is named after its rotation: by that one whose value was lost is removed.

    The previous secret is removed by its ID. Of one that was not made here Entra shows no more than the first three
    characters: where these do not tell it from others, a person has to remove it. Nothing else is ever removed.
    """

    def __init__(
        self,
        *,
        admin: Admin,
        object_id: str | None = None,
        lifetime: float | str = "365d",
        base_url: str = _GRAPH,
        stores: Mapping[str, Backend] | None = None,
        ca_file: str | None = None,
        proxy: str | Secret | None = None,
        plain_http: Iterable[str] = (),
        clock: Clock = SYSTEM_CLOCK,
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
        self._object_id, self._clock = object_id, clock
        self._lifetime = duration(lifetime)
        if not self._lifetime:
            raise ConfigurationError("lifetime= is more than 0 seconds", hint="Such as 180d")

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(chosen=False, slots=None, propagation=_PROPAGATION, retires=True)

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        """Raises ConfigurationError where the application is another one, or has no room for a further secret."""
        self._api.refuse_own(client)
        what = f"the application {client.client_id!r} in Entra"
        pages = [checked(page, what, hints=_HINTS) for page in self._pages(client, deadline)]
        app_id, audience = text_at(pages[0], "appId"), text_at(pages[0], "signInAudience")
        if app_id is not None and app_id.lower() != client.client_id.lower():
            raise ConfigurationError(
                f"the application of this object ID in Entra has another client ID than {client.client_id!r}",
                hint="Correct object_id=, or leave it out",
            )
        listed = _listed(pages)
        if listed is None:
            raise IssuerUnavailable(f"{what}: the answer has no list of its secrets")
        if audience in _OF_PERSONS and len(listed) >= _MOST_OF_PERSONS:
            raise ConfigurationError(
                f"{what} has {len(listed)} secrets, and takes no further one, since personal accounts may use it",
                hint="Remove the one that no program uses, in the Entra admin center under Certificates & secrets",
            )
        current = _only(self._alive(listed), client.current)
        cautions = []
        if current is None:
            cautions.append(
                f"which of its {len(listed)} secrets is the current one cannot be told: a person may have to remove it"
            )
        expires, id = (None, None) if current is None else (current.expires, current.id)
        return Preflight(cautions, len(listed), expires, id)

    def mint(self, client: Client, label: str, deadline: Deadline) -> Minted | Refused | Unknown:
        """Have a secret generated that is named `label`."""
        ends = self._clock.now().wall + self._lifetime
        asked = {"displayName": label, "endDateTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends))}
        path = f"{self._app(client)}/addPassword"
        answer = self._api.ask("POST", path, json={"passwordCredential": asked}, deadline=deadline)
        failed = failure_of(answer, "adding a secret in Entra", hints=_HINTS)
        if isinstance(failed, Refused):
            return Refused(failed.reason, _hint_of_policy(answer) or failed.hint)
        if failed is not None or not isinstance(answer, Answer):
            return failed or Unknown("adding a secret in Entra: no answer")
        secret = secret_at(answer, "secretText")
        if secret is None:
            return Unknown("adding a secret in Entra: the answer has no secret in it")
        return Minted(secret, text_at(answer, "keyId"), _instant(text_at(answer, "endDateTime")) or ends)

    def reap(self, client: Client, label: str, deadline: Deadline) -> Outcome:
        """Remove the secrets of this name."""
        listed = self._list(client, deadline)
        if not isinstance(listed, list):
            return listed
        return self._remove(client, [one for one in listed if one.name == label], deadline) or Applied()

    def retire(self, client: Client, keep: str | None, gone: str | None, deadline: Deadline) -> Outcome:
        """Remove the previous secret for good, or the pending one where that is given up."""
        listed = self._list(client, deadline)
        if not isinstance(listed, list):
            return listed
        if keep is not None and all(one.id != keep for one in listed):
            # It may be the name of an earlier one, where somebody has written another one into the store since.
            if client.current is None or not any(one.may_be(client.current) for one in listed if one.id != gone):
                return Unknown("the secret that is to stay is not in Entra's list, or not yet")
            keep = None
        goes = _leaving(listed, self._alive(listed), client, keep, gone)
        if goes is None:
            return Refused("which secret in Entra is to go cannot be told", _BY_HAND)
        return self._remove(client, goes, deadline) or Applied(keep)

    # --- calls

    def _list(self, client: Client, deadline: Deadline) -> list[_Password] | Refused | Unknown:
        pages = self._pages(client, deadline)
        good: list[Answer] = []
        for page in pages:
            failed = failure_of(page, "listing the secrets in Entra", hints=_HINTS)
            if failed is not None or not isinstance(page, Answer):
                return failed or Unknown("listing the secrets in Entra: no answer")
            good.append(page)
        listed = _listed(good)
        return Unknown("listing the secrets in Entra: the answer has no list of them") if listed is None else listed

    def _pages(self, client: Client, deadline: Deadline) -> list[Answer | Unreached]:
        """All pages of the list, the last one perhaps a failure. ConfigurationError where they lead elsewhere."""
        pages = [self._api.ask("GET", self._app(client), query={"$select": _SELECT}, deadline=deadline)]
        while (link := _next(pages[-1])) is not None:
            # The next page is asked for with the rotator's token.
            if not link.startswith(f"{self._api.base_url}/") or http_parts(link) is None:
                raise ConfigurationError(
                    f"Graph names a next page that is not below {self._api.base_url}, which is not followed",
                    hint="Correct base_url=",
                )
            if len(pages) >= _PAGES_AT_MOST:
                raise ConfigurationError(f"Graph lists the application's secrets on more than {_PAGES_AT_MOST} pages")
            pages.append(self._api.ask("GET", link.removeprefix(self._api.base_url), deadline=deadline))
        return pages

    def _remove(self, client: Client, goes: Iterable[_Password], deadline: Deadline) -> Refused | Unknown | None:
        for one in goes:
            path = f"{self._app(client)}/removePassword"
            answer = self._api.ask("POST", path, json={"keyId": one.id}, deadline=deadline)
            failed = failure_of(answer, "removing a secret in Entra", hints=_HINTS)
            if isinstance(failed, Refused) and isinstance(answer, Answer) and answer.status in (400, 404):
                left = self._list(client, deadline)  # an earlier call may have done it
                if isinstance(left, list) and all(other.id != one.id for other in left):
                    continue
            if failed is not None:
                return failed
        return None

    def _alive(self, listed: Iterable[_Password]) -> list[_Password]:
        now = self._clock.now().wall
        return [one for one in listed if one.expires is None or one.expires > now]

    def _app(self, client: Client) -> str:
        if self._object_id is not None:
            return f"/applications/{segment(self._object_id)}"
        quoted = client.client_id.replace("'", "''")  # OData 4.01, URL conventions, section 4.3
        return f"/applications(appId='{segment(quoted)}')"


def _login_of(base_url: Any, admin: Admin) -> dict[str, Any]:
    """What a table of `admin` may leave out: the scope that stands for all that was granted for Graph."""
    parts = http_parts(base_url)
    if not isinstance(admin, Mapping) or parts is None:
        return {}
    return {"scope": f"{parts[0]}://{parts[3].partition('/')[0]}/.default"}


def _hint_of_policy(answer: Answer | Unreached) -> str | None:
    if isinstance(answer, Unreached):
        return None
    code = code_in(answer, "error", "code", known=_OF_POLICIES)
    return None if code is None else _OF_POLICIES[code]


# --- which is which


def _leaving(
    listed: Iterable[_Password], alive: Iterable[_Password], client: Client, keep: str | None, gone: str | None
) -> list[_Password] | None:
    """What is to be removed: one, or none where it is there no longer. None: that cannot be told."""
    leaving = client.pending or client.previous
    named = [one for one in listed if one.id == gone and one.id != keep]
    # A name of an earlier secret, where somebody has written another one into the store since, is nobody's name now.
    if gone is not None and (leaving is None or any(one.may_be(leaving) is not False for one in named)):
        return named
    others = [one for one in alive if one.id != keep]
    if not others:
        return []
    if leaving is None:
        return None
    found = [one for one in others if one.may_be(leaving) or (one.may_be(leaving) is None and gone is None)]
    # Where the one that stays is not known by its ID, it must not look like the one that goes.
    stays = keep is None and client.current is not None and any(one.may_be(client.current) for one in found)
    if len(found) > 1 or stays or any(one.may_be(leaving) is None for one in found):
        return None
    return found


def _only(listed: Iterable[_Password], secret: Secret | None) -> _Password | None:
    """The only one that can have this value."""
    found = [one for one in listed if secret is None or one.may_be(secret) is not False]
    return found[0] if len(found) == 1 else None


def _listed(pages: Iterable[Answer]) -> list[_Password] | None:
    """What the pages list, None where they list no secrets."""
    listed: list[_Password] = []
    for page in pages:
        members, _ = page.members()
        found = members.get(_LIST, members.get("value"))
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            return None
        for one in found:
            password = _password(one)
            if password is None:
                return None
            listed.append(password)
    return listed


def _password(one: Mapping[str, Any]) -> _Password | None:
    id, name, ends, shown = (one.get(key) for key in ("keyId", "displayName", "endDateTime", "hint"))
    if not isinstance(id, str) or not id or not id.isprintable():
        return None
    hint = Secret(shown) if isinstance(shown, str) and len(shown) >= 3 else None

    def may_be(secret: Secret) -> bool | None:
        return None if hint is None else _begins(secret, hint)

    return _Password(id, name if isinstance(name, str) else None, _instant(ends), may_be)


def _begins(secret: Secret, hint: Secret) -> bool:
    return secret.reveal().startswith(hint.reveal())


def _next(page: Answer | Unreached) -> str | None:
    if isinstance(page, Unreached) or not 200 <= page.status < 300:
        return None
    return text_at(page, f"{_LIST}@odata.nextLink") or text_at(page, "@odata.nextLink")


def _instant(text: object) -> float | None:
    """Seconds since 1970; None where it is not said."""
    try:
        instant = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return None if instant is None or instant.tzinfo is None else instant.timestamp()
