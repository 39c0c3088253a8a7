"""Keycloak: one secret that is ours to choose; or, under its rotation policy, a generated one beside the one before.

Made from Keycloak's documentation and the behaviour of its administration API, and tested on a site that behaves like
it. It was never run against Keycloak itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ...backends import Backend
from ...clock import SYSTEM_CLOCK, Clock, Deadline
from ...durations import shown_duration
from ...errors import ConfigurationError, IssuerUnavailable, SecretSourceError
from ...exchange import Answer
from ...secret import Secret
from ..outcome import Adapter, Applied, Capabilities, Client, Minted, Outcome, Preflight, Refused, Unknown
from .admin import Admin, AdminApi, checked, failure_of, secret_at, segment, text_at

__all__ = ["Keycloak"]

_HINTS = {
    403: "The rotator's account needs the role manage-clients of realm-management in this realm",
    404: "Correct base_url= and realm=: is it the realm's name as it stands in its URL?",
}
_BY_HAND = "See the client in Keycloak's console, under Credentials"
_MASK = "**********"
_IN_A_VAULT = "${vault."
_MADE = "client.secret.creation.time"
_ENDS = "client.secret.expiration.time"
_ROTATED_ENDS = "client.secret.rotated.expiration.time"
# An account that may not see them is shown none, and Keycloak would take them from the client.
_LEFT_AS_THEY_ARE = ("defaultClientScopes", "optionalClientScopes")
_OF_THE_POLICY = "secret-rotation"
_KEPT_FOR = "rotated-expiration-period"
_KEPT_UNLESS_SAID = 2 * 86400.0
_LOOK_AFTERWARDS = 5.0  # seconds: what was generated must be kept soon


class _Registered(NamedTuple):
    """A client as it is registered. `ends`, `rotated_ends`: seconds since 1970.

    `fault`: why it cannot be worked with, and what to do. `rotated`: the secret before, while Keycloak accepts it.
    """

    path: str
    representation: Answer
    secret: Secret
    made: str | None
    ends: float | None
    fault: tuple[str, str] | None
    rotated: Secret | None = None
    rotated_ends: float | None = None


class Keycloak(Adapter):
    """The secret of a client in a realm of Keycloak, below `base_url` such as "https://sso.example.com".

    `admin` logs in with the role manage-clients; its token endpoint is that of the realm unless it says otherwise.

    Without a rotation policy the secret is ours, and saving it ends the one before at once. With `policy`, which a
    client policy of the realm must bear out, Keycloak generates it and accepts the one before until that is retired or
    has reached its end; where the main one has reached its own end, it accepts neither.
    """

    def __init__(
        self,
        base_url: str,
        realm: str,
        *,
        admin: Admin,
        policy: bool = False,
        stores: Mapping[str, Backend] | None = None,
        ca_file: str | None = None,
        proxy: str | Secret | None = None,
        plain_http: Iterable[str] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        whose = base_url.rstrip("/") if isinstance(base_url, str) else ""
        token_url = f"{whose}/realms/{segment(realm)}/protocol/openid-connect/token"
        elsewhere = isinstance(admin, Mapping) and ("issuer" in admin or "token_url" in admin or "token" in admin)
        self._api = AdminApi(
            base_url,
            admin=admin,
            defaults=None if elsewhere else {"token_url": token_url},
            stores=stores,
            ca_file=ca_file,
            proxy=proxy,
            plain_http=plain_http,
        )
        self._realm = realm
        self._policy = policy
        self._clock = clock
        self._capabilities = Capabilities(
            chosen=not policy,
            slots=2 if policy else 1,
            retires=policy,
            rejected=("unauthorized_client",),
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        """Raises ConfigurationError also where `policy` is not what acts on the client."""
        self._api.refuse_own(client)
        found = self._look(client, deadline)
        unfit = self._unfit(found, client)
        if unfit is not None and not self._is_under_way(found, client):
            raise ConfigurationError(unfit.reason, hint=unfit.hint)
        if not self._policy:
            return Preflight((), 1, None, found.made)
        return Preflight(self._overlap(deadline), 1 if found.rotated is None else 2, found.ends, found.made)

    def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Outcome:
        """Save the client as it is, with this secret."""
        found = self._fit(client, deadline)
        if isinstance(found, Refused):
            return found
        if found.secret == secret:
            return Applied()
        return self._save(found, secret, deadline) or Applied()

    def mint(self, client: Client, label: str, deadline: Deadline) -> Minted | Refused | Unknown:
        """Have the policy put a new secret beside the current one. Keycloak keeps no label."""
        found = self._fit(client, deadline)
        if isinstance(found, Refused):
            return found
        # Keycloak asks for a body, and looks for nothing in it.
        answer = self._api.ask("POST", f"{found.path}/client-secret", json={}, deadline=deadline)
        what = "having a secret generated in Keycloak"
        failed = failure_of(answer, what, hints=_HINTS)
        if failed is not None or not isinstance(answer, Answer):
            return failed or Unknown(what)
        secret = secret_at(answer, "value")
        if secret is None:
            return Unknown(f"{what}: the answer has no secret in it")
        now = self._looked(client, Deadline(min(_LOOK_AFTERWARDS, deadline.left())))
        if isinstance(now, Refused) or now.secret != secret:
            return Minted(secret)
        return Minted(secret, now.made, now.ends)

    def reap(self, client: Client, label: str, deadline: Deadline) -> Outcome:
        """Make the current secret the main one again, where one that nobody holds has taken its place."""
        found = self._looked(client, deadline)
        if isinstance(found, Refused):
            return found
        if found.secret == client.current or (client.current is None and found.rotated is None):
            return Applied(found.made)
        return self._put_back(found, client, deadline)

    def retire(self, client: Client, keep: str | None, gone: str | None, deadline: Deadline) -> Outcome:
        """End the secret before; or, where the new one is given up, make the current secret the main one again."""
        found = self._looked(client, deadline)
        if isinstance(found, Refused):
            return found
        if client.pending is not None and found.secret == client.pending:
            return self._put_back(found, client, deadline)
        if client.current is not None and found.secret != client.current:
            return Refused(
                "the main secret in Keycloak is not the current one: somebody has generated another", _BY_HAND
            )
        if found.rotated is None:
            return Applied(found.made)
        return self._end_rotated(found, deadline) or Applied(found.made)

    # --- what is there

    def _looked(self, client: Client, deadline: Deadline) -> _Registered | Refused:
        """For a call that changes something: up to here, nothing has changed."""
        try:
            found = self._look(client, deadline)
        except SecretSourceError as error:
            return Refused(error.message, error.hint)
        return found if found.fault is None else Refused(*found.fault)

    def _fit(self, client: Client, deadline: Deadline) -> _Registered | Refused:
        found = self._looked(client, deadline)
        return found if isinstance(found, Refused) else self._unfit(found, client) or found

    def _look(self, client: Client, deadline: Deadline) -> _Registered:
        """Raises ConfigurationError where there is no such client, IssuerUnavailable, DeadlineExceeded."""
        what, clients = f"the client {client.client_id!r} in Keycloak", f"/admin/realms/{segment(self._realm)}/clients"
        query = {"clientId": client.client_id}
        answer = checked(self._api.ask("GET", clients, query=query, deadline=deadline), what, hints=_HINTS)
        uuid = _uuid_in(answer, client.client_id)
        if uuid is None:
            raise ConfigurationError(
                f"there is no client {client.client_id!r} in the realm {self._realm!r} that the rotator may see",
                hint=f"Correct the client ID or the realm. {_HINTS[403]}",
            )
        path = f"{clients}/{segment(uuid)}"
        answer = checked(self._api.ask("GET", path, deadline=deadline), what, hints=_HINTS)
        now = self._clock.now().wall
        found = _registered(path, answer, client.client_id, now)
        if found is None:
            raise IssuerUnavailable(f"{what}: the answer is no client")
        if found.fault is not None or (found.rotated_ends is not None and found.rotated_ends <= now):
            return found
        answer = self._api.ask("GET", f"{path}/client-secret/rotated", deadline=deadline)  # type: ignore[assignment]
        if isinstance(answer, Answer) and answer.status == 404:
            return found
        return found._replace(rotated=secret_at(checked(answer, f"{what}, its rotated secret", hints=_HINTS), "value"))

    def _unfit(self, found: _Registered, client: Client) -> Refused | None:
        """Why no rotation may begin with it."""
        what = f"the client {client.client_id!r} in Keycloak"
        if found.fault is not None:
            return Refused(*found.fault)
        if not self._policy and (found.ends is not None or found.rotated is not None):
            return Refused(
                f"a rotation policy acts on {what}, under which saving it may generate a secret that nobody asked for",
                "Write policy = true. Where the policy was taken away, save the client once in Keycloak's console, "
                "which clears what it has left",
            )
        if self._policy and found.ends is None:
            return Refused(
                f"no rotation policy acts on {what}: generating a secret would end the current one at once",
                "Write policy = false. Where a policy has just been added, get a token once, after which it acts",
            )
        if found.rotated is not None:
            return Refused(
                f"{what} has an earlier secret beside the main one, which a rotation would push out",
                f"Once no program uses it, invalidate the rotated secret. {_BY_HAND}",
            )
        if self._policy and client.current is not None and found.secret != client.current:
            return Refused(
                f"the main secret of {what} is not the current one of the store",
                "Write the one that Keycloak has into the store, by secretsource put",
            )
        return None

    def _is_under_way(self, found: _Registered, client: Client) -> bool:
        """Whether both secrets in Keycloak are those of a rotation of ours."""
        if not self._policy or found.fault is not None or found.rotated is None:
            return False
        return (found.secret, found.rotated) in (
            (client.pending, client.current),
            (client.current, client.previous),
        )

    def _overlap(self, deadline: Deadline) -> list[str]:
        """Cautions about how long the policy keeps the secret before. Raises ConfigurationError where it keeps none."""
        path = f"/admin/realms/{segment(self._realm)}/client-policies/profiles"
        answer = self._api.ask("GET", path, deadline=deadline)
        kept = _kept_for(answer) if isinstance(answer, Answer) and answer.status == 200 else []
        if not kept:
            return ["how long the policy keeps the secret before cannot be seen: that takes the role view-realm"]
        if max(kept) <= 0:
            raise ConfigurationError(
                "the rotation policy in Keycloak ends the secret before at once",
                hint="Give its executor secret-rotation a Rotated Secret expiration that is longer than the soak",
            )
        return [f"the policy ends the secret before after {shown_duration(min(kept))}, however long the soak is"]

    # --- what changes it

    def _save(self, found: _Registered, secret: Secret, deadline: Deadline) -> Refused | Unknown | None:
        """All of it as it was read a moment ago, and this secret: some of what is left out Keycloak switches off."""
        written = _with(found.representation, secret)
        answer = self._api.ask("PUT", found.path, json=written, deadline=deadline)
        return failure_of(answer, "saving the client in Keycloak", hints=_HINTS)

    def _end_rotated(self, found: _Registered, deadline: Deadline) -> Refused | Unknown | None:
        answer = self._api.ask("DELETE", f"{found.path}/client-secret/rotated", deadline=deadline)
        if isinstance(answer, Answer) and answer.status == 404:  # an earlier call has done it
            return None
        return failure_of(answer, "invalidating the rotated secret in Keycloak", hints=_HINTS)

    def _put_back(self, found: _Registered, client: Client, deadline: Deadline) -> Outcome:
        """The current secret, which is the rotated one, becomes the main one; there is no moment without it."""
        if client.current is None or found.rotated != client.current:
            return Refused("the current secret is not the one before the main one in Keycloak", _BY_HAND)
        failed = self._save(found, client.current, deadline)
        if failed is not None:
            return failed
        left = self._end_rotated(found, deadline)
        return Applied(found.made) if left is None else Unknown(f"the current secret is the main one; {left.reason}")


# --- what its answers say: their secrets stay in these frames and in what is opaque


def _uuid_in(answer: Answer, client_id: str) -> str | None:
    listed, _ = answer.value()
    for position, one in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(one, dict) and one.get("clientId") == client_id:
            return text_at(answer, position, "id")
    return None


def _registered(path: str, answer: Answer, client_id: str, now: float) -> _Registered | None:
    members, fault = answer.members()
    if fault is not None or members.get("clientId") != client_id:
        return None
    attributes = members.get("attributes")
    if not isinstance(attributes, dict):
        attributes = {}
    secret = members.get("secret")
    ends = _seconds(attributes.get(_ENDS))
    return _Registered(
        path,
        answer,
        Secret(secret if isinstance(secret, str) else ""),
        text_at(answer, "attributes", _MADE),
        ends,
        _fault(members, client_id, ends, now),
        rotated_ends=_seconds(attributes.get(_ROTATED_ENDS)),
    )


def _fault(members: Mapping[str, Any], client_id: str, ends: float | None, now: float) -> tuple[str, str] | None:
    what, secret = f"the client {client_id!r} in Keycloak", members.get("secret")
    if members.get("protocol") not in (None, "openid-connect"):
        return f"{what} speaks another protocol than OpenID Connect", "Name a client of OpenID Connect"
    if members.get("publicClient") is True or members.get("bearerOnly") is True:
        return f"{what} has no secret: it is public, or only takes tokens", "Switch its Client authentication on"
    if members.get("clientAuthenticatorType") != "client-secret":
        return (
            f"{what} does not log in with a client secret",
            "Its Client Authenticator, under Credentials, has to be Client Id and Secret",
        )
    if members.get("enabled") is False:
        return f"{what} is disabled", "Enable it first"
    if secret == _MASK or not isinstance(secret, str) or not secret:
        return f"the rotator's account does not see the secret of {what}", _HINTS[403]
    if secret.startswith(_IN_A_VAULT):
        return f"the secret of {what} is kept in a vault of Keycloak's, to which it only refers", "Change it there"
    if ends is not None and ends <= now:
        return (
            f"the secret of {what} has reached its end: it accepts neither that nor the one before",
            f"Regenerate it, and write it into the store by secretsource put. {_BY_HAND}",
        )
    return None


def _with(representation: Answer, secret: Secret) -> Callable[[], dict[str, Any]]:
    """What is written, made where the body is."""

    def written() -> dict[str, Any]:
        members, _ = representation.members()
        return {**{name: value for name, value in members.items() if name not in _LEFT_AS_THEY_ARE}, "secret": secret}

    return written


def _kept_for(answer: Answer) -> list[float]:
    """For how many seconds each of the realm's rotation policies keeps the secret before."""
    members, _ = answer.members()
    return [
        _KEPT_UNLESS_SAID if seconds is None else seconds
        for profile in _dicts(members.get("profiles"))
        for executor in _dicts(profile.get("executors"))
        if executor.get("executor") == _OF_THE_POLICY
        for configuration in [*_dicts([executor.get("configuration")]), {}][:1]
        for seconds in [_seconds(configuration.get(_KEPT_FOR))]
    ]


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _seconds(value: Any) -> float | None:
    """A number of seconds that may be written as a text."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 12:
        return float(value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else None
