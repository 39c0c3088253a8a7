"""Okta: an application has two client secrets at most, whose values may be ours, and each can be switched off and on.

Made from Okta's documentation and tested on a site that behaves like it. It was never run against Okta itself.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...backends import Backend
from ...clock import Deadline
from ...errors import ConfigurationError, IssuerUnavailable
from ...exchange import Answer
from ...secret import Secret
from ..outcome import Adapter, Applied, Capabilities, Client, Outcome, Preflight, Refused, Unknown
from .admin import Admin, AdminApi, Unreached, checked, failure_of, secret_at, segment, text_at

__all__ = ["Okta"]

_MOST = 2
_WITH_A_SECRET = ("client_secret_basic", "client_secret_post", "client_secret_jwt")
_RIGHTS = "It needs the right to manage applications: an API token of such an administrator, or okta.apps.manage"
_HINTS = {401: "Okta does not accept the API token: it ends after 30 days without use", 403: _RIGHTS}
_BY_HAND = "See the application in Okta's Admin Console, under General, Client Credentials"


class _Kept(NamedTuple):
    """A secret in the application's list. `has` compares its value with another, as far as Okta shows it."""

    id: str
    active: bool
    created: str
    has: Callable[[Secret], bool]


_List = list[_Kept]


class Okta(Adapter):
    """The client secrets of an Okta application, below `base_url` such as "https://example.okta.com".

    `api_token` is a reference to an API token, sent as SSWS; else `admin` is what to log in with for the scopes
    okta.apps.manage. `app_id`: where somebody has chosen the client ID, which is the application's ID otherwise.

    A new secret takes the second place, and both are accepted. The previous one is deactivated first, which can be
    taken back, and deleted once the new one works without it. A secret that others have made is not touched.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_token: str | None = None,
        admin: Admin | None = None,
        app_id: str | None = None,
        stores: Mapping[str, Backend] | None = None,
        ca_file: str | None = None,
        proxy: str | Secret | None = None,
        plain_http: Iterable[str] = (),
    ) -> None:
        if (api_token is None) == (admin is None):
            raise ConfigurationError(
                "Okta is logged into with one of api_token= and admin=",
                hint="Write api_token = 'vault://…#FIELD', a reference to an API token",
            )
        login = {"token": api_token, "scheme": "SSWS"} if admin is None else admin
        self._api = AdminApi(base_url, admin=login, stores=stores, ca_file=ca_file, proxy=proxy, plain_http=plain_http)
        self._app_id = app_id

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(chosen=True, slots=_MOST, propagation=10.0, retires=True, restores=True)

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        """Raises ConfigurationError where no place is free, or where the application is another kind of client."""
        self._api.refuse_own(client)
        hints = {**_HINTS, 404: "Okta has no such application: is its ID another one than the client ID? Give app_id="}
        answer = checked(self._api.ask("GET", self._app(client), deadline=deadline), self._what(client), hints=hints)
        _check_app(answer, client)
        answer = checked(self._ask_list(client, deadline), f"{self._what(client)}, its secrets", hints=_HINTS)
        listed = _listed(answer)
        if listed is None:
            raise IssuerUnavailable(f"{self._what(client)}, its secrets: the answer is no list of them")
        current = _one(listed, client.current, None) or (listed[0] if len(listed) == 1 else None)
        cautions = []
        if len(listed) >= _MOST:
            other = _one([one for one in listed if one is not current], client.previous, None)
            if other is None:
                raise _full(listed, current)
            cautions.append("the previous secret is still in Okta, which takes no third one beside it")
        if current is None:
            cautions.append("which of its secrets is the current one cannot be told from what Okta shows")
        return Preflight(cautions, len(listed), None, None if current is None else current.id)

    def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Outcome:
        """Add the secret, or activate it where it is already in the list."""
        listed = self._list(client, deadline)
        if not isinstance(listed, list):
            return listed
        there = _one(listed, secret, None)
        if there is not None:
            return Applied(there.id) if there.active else self._switch(client, there, "activate", deadline)
        if len(listed) >= _MOST:
            # Where Okta does not show what would tell them apart, one of them may be this one already.
            if _are_told(listed, client):
                full = _full(listed, _one(listed, client.current, None))
                return Refused(full.message, full.hint)
            return Unknown("the application has two secrets, and Okta does not show whether this is one of them")
        answer = self._api.ask("POST", self._secrets(client), json={"client_secret": secret}, deadline=deadline)
        failed = failure_of(answer, "adding a secret in Okta", hints={**_HINTS, 400: _BY_HAND})
        if failed is not None or not isinstance(answer, Answer):
            return failed or Unknown("adding a secret in Okta: no answer")
        given = secret_at(answer, "client_secret")
        if given is not None and given != secret:
            return Unknown("adding a secret in Okta: it has another value than the one that was sent")
        return Applied(text_at(answer, "id"))

    def retire(self, client: Client, keep: str | None, gone: str | None, deadline: Deadline) -> Outcome:
        """Deactivate the previous secret. One that is given up before it is promoted is deleted as well."""
        listed = self._list(client, deadline)
        if not isinstance(listed, list):
            return listed
        plan = _leaving(listed, client, keep, gone)
        if not isinstance(plan, list):
            return plan
        for one in plan:
            outcome = self._switch(client, one, "deactivate", deadline) if one.active else Applied(one.id)
            if isinstance(outcome, Applied) and client.pending is not None:
                outcome = self._delete(client, one, deadline)
            if not isinstance(outcome, Applied):
                return outcome
        return Applied(keep)

    def restore(self, client: Client, deadline: Deadline) -> Outcome:
        """Activate the previous secret again."""
        listed = self._list(client, deadline)
        if not isinstance(listed, list):
            return listed
        inactive = [one for one in listed if not one.active]
        previous = _one(listed, client.previous, None) or (inactive[0] if len(inactive) == 1 else None)
        if previous is None:
            return Refused("which secret was deactivated in Okta cannot be told", f"{_BY_HAND}, and activate it")
        return Applied(previous.id) if previous.active else self._switch(client, previous, "activate", deadline)

    def remove(self, client: Client, keep: str | None, gone: str | None, deadline: Deadline) -> Outcome:
        """Delete the previous secret, if it is inactive."""
        listed = self._list(client, deadline)
        if not isinstance(listed, list):
            return listed
        stays, goes = _one(listed, client.current, keep), _all(listed, client.previous, gone)
        inactive = [one for one in listed if not one.active and one is not stays]
        if goes or gone is not None:
            inactive = [one for one in inactive if one in goes]
        for one in inactive:
            outcome = self._delete(client, one, deadline)
            if not isinstance(outcome, Applied):
                return outcome
        return Applied(keep)

    # --- calls

    def _list(self, client: Client, deadline: Deadline) -> _List | Refused | Unknown:
        answer = self._ask_list(client, deadline)
        failed = failure_of(answer, "listing the secrets in Okta", hints=_HINTS)
        if failed is not None or not isinstance(answer, Answer):
            return failed or Unknown("listing the secrets in Okta: no answer")
        listed = _listed(answer)
        return Unknown("listing the secrets in Okta: the answer is no list of them") if listed is None else listed

    def _ask_list(self, client: Client, deadline: Deadline) -> Answer | Unreached:
        return self._api.ask("GET", self._secrets(client), deadline=deadline)

    def _switch(self, client: Client, one: _Kept, verb: str, deadline: Deadline) -> Outcome:
        path = f"{self._secrets(client)}/{segment(one.id)}/lifecycle/{verb}"
        answer = self._api.ask("POST", path, deadline=deadline)
        return failure_of(answer, f"to {verb} a secret in Okta", hints=_HINTS) or Applied(one.id)

    def _delete(self, client: Client, one: _Kept, deadline: Deadline) -> Outcome:
        answer = self._api.ask("DELETE", f"{self._secrets(client)}/{segment(one.id)}", deadline=deadline)
        if isinstance(answer, Answer) and answer.status == 404:  # an earlier call has done it
            return Applied(one.id)
        return failure_of(answer, "to delete a secret in Okta", hints=_HINTS) or Applied(one.id)

    def _app(self, client: Client) -> str:
        return f"/api/v1/apps/{segment(self._app_id or client.client_id)}"

    def _secrets(self, client: Client) -> str:
        return f"{self._app(client)}/credentials/secrets"

    def _what(self, client: Client) -> str:
        return f"the application of {client.client_id!r} in Okta"


def _check_app(answer: Answer, client: Client) -> None:
    client_id = text_at(answer, "credentials", "oauthClient", "client_id")
    if client_id is not None and client_id != client.client_id:
        raise ConfigurationError(
            f"the application of this ID in Okta has another client ID than {client.client_id!r}",
            hint="Give the ID of the application whose client ID it is: app_id=",
        )
    method = text_at(answer, "credentials", "oauthClient", "token_endpoint_auth_method")
    if method is not None and method not in _WITH_A_SECRET:
        raise ConfigurationError(
            f"the application of {client.client_id!r} in Okta does not log in with a client secret",
            hint="Its client authentication has to be Client secret",
        )
    if text_at(answer, "status") == "INACTIVE":
        raise ConfigurationError(
            f"the application of {client.client_id!r} in Okta is not active", hint="Activate it first"
        )


def _full(listed: Sequence[_Kept], current: _Kept | None) -> ConfigurationError:
    left_over = any(not one.active and one is not current for one in listed)
    return ConfigurationError(
        "the application has two secrets in Okta already, which takes no third one",
        hint=f"Delete the inactive one, if nothing is to go back to it. {_BY_HAND}"
        if left_over
        else f"Deactivate and delete the one that no program uses. {_BY_HAND}",
    )


# --- which is which


def _leaving(listed: _List, client: Client, keep: str | None, gone: str | None) -> _List | Refused:
    """The secrets that are to be retired. The one that stays is never among them, and is active."""
    given_up = client.pending is not None
    stays = _one(listed, client.current, keep)
    goes = [one for one in _all(listed, client.pending or client.previous, gone) if one is not stays]
    if stays is not None and not stays.active:
        return Refused("the secret that is to stay is inactive in Okta", f"{_BY_HAND}, and activate it")
    if stays is None and goes:
        others = [one for one in listed if one.active and one not in goes]
        return goes if others else Refused("no other secret in Okta is active", _BY_HAND)
    if goes or (stays is not None and (gone is not None or _are_told(listed, client, of_the_leaving=True))):
        return goes  # or none of them, where it is there no longer
    active = sorted((one for one in listed if one.active), key=lambda one: one.created)
    if given_up or (stays is None and len({one.created for one in active}) < len(active)):
        return Refused("which secret is to be retired cannot be told from what Okta shows", _BY_HAND)
    stays = stays or (active[-1] if active else None)
    return [one for one in active if one is not stays]


def _one(listed: Iterable[_Kept], secret: Secret | None, id: str | None) -> _Kept | None:
    """The one of this value, the active one first; else the one of this ID."""
    found = sorted(_all(listed, secret, id), key=lambda one: (secret is None or not one.has(secret), not one.active))
    return found[0] if found else None


def _all(listed: Iterable[_Kept], secret: Secret | None, id: str | None) -> _List:
    return [one for one in listed if (secret is not None and one.has(secret)) or one.id == id]


def _are_told(listed: Iterable[_Kept], client: Client, *, of_the_leaving: bool = False) -> bool:
    """Whether Okta shows enough to compare values: then one that is not found is not there."""
    if of_the_leaving and client.pending is None and client.previous is None:
        return False
    held = [secret for secret in (client.current, client.pending, client.previous) if secret is not None]
    return any(one.has(secret) for one in listed for secret in held)


def _listed(answer: Answer) -> _List | None:
    """What an answer lists, None where it is no list of secrets. Their values stay in this frame and in closures."""
    found, _ = answer.value()
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        return None
    listed = [_kept(one) for one in found]
    whole = [one for one in listed if one is not None]
    return whole if len(whole) == len(listed) else None


def _kept(one: Mapping[str, Any]) -> _Kept | None:
    id, status, created = one.get("id"), one.get("status"), one.get("created")
    value, digest = one.get("client_secret"), one.get("secret_hash")
    if not isinstance(id, str) or not id or not id.isprintable() or status not in ("ACTIVE", "INACTIVE"):
        return None
    kept = Secret(value) if isinstance(value, str) and value else None
    sum_of = Secret(digest) if isinstance(digest, str) and digest else None

    def has(secret: Secret) -> bool:
        return (kept is not None and kept == secret) or (sum_of is not None and sum_of == _digest(secret))

    return _Kept(id, status == "ACTIVE", created if isinstance(created, str) else "", has)


def _digest(secret: Secret) -> Secret:
    """As `secret_hash` shows a value in the examples of Okta's guide: the first half of its SHA-256."""
    digest = hashlib.sha256(secret.reveal().encode("utf-8", "surrogatepass")).digest()[:16]
    return Secret(base64.urlsafe_b64encode(digest).decode().rstrip("="))
