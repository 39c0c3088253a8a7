"""An issuer with dynamic client registration and its management protocol (RFC 7591, RFC 7592).

The client's configuration endpoint and its registration access token are kept beside the secret. An update may bring a
new secret and a new token: both are kept with it. The RFC lets no client choose its secret, and makes no server change
it at an update: whether one does is known when it was asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from ...clock import Deadline, checked_seconds
from ...errors import ConfigurationError, forgetting
from ...exchange import Answer
from ...secret import Secret
from ...transport import Transport
from ...urls import check_url, host_of, without_query
from ..outcome import Adapter, Applied, Capabilities, Client, Minted, Outcome, Preflight, Refused, Unknown
from .admin import Body, Unreached, checked, failure_of, number_at, secret_at, send, text_at

__all__ = ["Registration"]

# What an update must not have in it (RFC 7592 section 2.2).
_NOT_SENT_BACK = {
    "registration_access_token",
    "registration_client_uri",
    "client_secret_expires_at",
    "client_id_issued_at",
}
_UPDATES = ("without-secret", "with-secret")
_HINTS = {
    400: "This server refuses the metadata that it gave itself: change the secret in another way",
    401: "The registration access token is not accepted: have the server's administrator give a new one, and keep it "
    "beside the secret",
    403: "This server lets the client neither read nor change its registration",
    404: "This server has no such client, or no management of registrations",
    405: "This server lets no client change its registration",
}


class Registration(Adapter):
    """Has the server generate a secret by an update of the client's registration (RFC 7592).

    `uri_field` and `token_field` are the names of the texts beside the secret: the client configuration endpoint, which
    is on the issuer's host or one of `hosts`, and the registration access token. `update`: whether it carries the
    current secret, which some servers expect. `reading_is_safe`: this server gives no new token when it is read, so
    that a plan may read it, too. `slots`, `propagation` and `landing` are the issuer's (see `Capabilities`).
    ConfigurationError.
    """

    @forgetting
    def __init__(
        self,
        *,
        uri_field: str = "registration_client_uri",
        token_field: str = "registration_access_token",
        hosts: Iterable[str] = (),
        update: Literal["without-secret", "with-secret"] = "without-secret",
        reading_is_safe: bool = False,
        slots: int = 1,
        propagation: float = 5.0,
        landing: float = 30.0,
        ca_file: str | None = None,
        proxy: str | Secret | None = None,
        plain_http: Iterable[str] = (),
    ) -> None:
        if isinstance(slots, bool) or not isinstance(slots, int) or slots < 1:
            raise ConfigurationError("slots= is a whole number above 0")
        if update not in _UPDATES:
            raise ConfigurationError("update= is not known", hint=f"It is one of {', '.join(_UPDATES)}")
        self._uri, self._token = uri_field, token_field
        self._hosts = {hosts} if isinstance(hosts, str) else set(hosts)
        self._with_secret = update == "with-secret"
        self._reading_is_safe = reading_is_safe
        self._plain_http = (plain_http,) if isinstance(plain_http, str) else tuple(plain_http)
        self._transport = Transport(ca_file=ca_file, proxy=proxy)
        # A token that came in place of a kept one, and that no store holds yet: the kept one is no longer good.
        self._tokens: dict[str, tuple[Secret, Secret]] = {}
        self._capabilities = Capabilities(
            chosen=False,
            slots=slots,
            propagation=checked_seconds("propagation", propagation, zero=True),
            landing=checked_seconds("landing", landing, zero=True),
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        """Whether there is what an update needs, and with `reading_is_safe` whether the server takes it."""
        url = without_query(self._endpoint(client)[0])
        cautions = [
            "whether this server changes a secret at an update is known when it was asked",
            "an answer that is lost may take the registration access token with it",
        ]
        if not self._reading_is_safe:
            return Preflight(cautions)
        answer = checked(self._read(client, deadline), f"reading the registration at {url}", hints=_HINTS)
        if text_at(answer, "client_id") != client.client_id:
            raise ConfigurationError(
                f"the registration at {url} is not that of {client.client_id!r}",
                hint=f"Correct {self._uri!r} beside the secret",
            )
        self._keep_token(client, answer)
        return Preflight(cautions, expires=_expiry(answer))

    def mint(self, client: Client, label: str, deadline: Deadline) -> Minted | Refused | Unknown:
        """Read the registration, and send it back: the answer has what holds from then on.

        A secret found at the reading that the store does not hold is the one that an earlier answer was lost with.
        """
        url, _ = self._endpoint(client)
        read = _good(self._read(client, deadline), f"reading the registration at {without_query(url)}")
        if not isinstance(read, Answer):
            return read
        if text_at(read, "client_id") != client.client_id:
            return Refused(
                f"the registration at {without_query(url)} is not that of this client", f"Correct {self._uri!r}"
            )
        self._keep_token(client, read)
        minted = self._minted(client, read)
        if minted is not None and client.current is not None:
            return minted
        body = Body(json=_update_of(read, client.current if self._with_secret else None))
        what = f"updating the registration at {without_query(url)}"
        updated = _good(self._send(client, "PUT", deadline, body), what)
        if not isinstance(updated, Answer):
            return replace(updated, beside=self._newer(client))
        self._keep_token(client, updated)
        minted = self._minted(client, updated)
        if minted is not None and minted.secret != secret_at(read, "client_secret"):
            return minted
        if text_at(updated, "client_id") is None:
            return Unknown(f"{what}: the answer describes no client", self._newer(client))
        hint = "Change it in another way"
        return Refused("this server does not change the secret at an update", hint, self._newer(client))

    def reap(self, client: Client, label: str, deadline: Deadline) -> Outcome:
        """There is nothing to remove: the next reading has the secret whose answer was lost."""
        return Applied()

    def _endpoint(self, client: Client) -> tuple[str, Secret]:
        """The URL of the client's registration, and the token for it. ConfigurationError."""
        missing = [name for name in (self._uri, self._token) if name not in client.beside]
        if missing:
            raise ConfigurationError(
                f"{client.reference or 'the document'} has no {missing[0]!r} beside the secret",
                hint="The answer to the registration has it; uri_field and token_field are other names for the two",
            )
        url = _address(client.beside[self._uri], self._uri, self._plain_http)
        if host_of(url) not in {host_of(client.issuer), *self._hosts} - {""}:
            raise ConfigurationError(
                f"{self._uri!r} leads to {host_of(url)}, which is not the issuer's host; nothing was sent",
                hint=f"Correct it, or, knowing that, name it: hosts = [{host_of(url)!r}]",
            )
        return url, self._newer_token(client) or client.beside[self._token]

    def _read(self, client: Client, deadline: Deadline) -> Answer | Unreached:
        return self._send(client, "GET", deadline, Body())

    def _send(self, client: Client, method: str, deadline: Deadline, body: Body) -> Answer | Unreached:
        url, token = self._endpoint(client)
        return send(self._transport, method, url, deadline, body=body, authorization=lambda: f"Bearer {token.reveal()}")

    def _keep_token(self, client: Client, answer: Answer) -> None:
        """Remember the token of an answer until a store holds it."""
        token, kept = secret_at(answer, "registration_access_token"), client.beside[self._token]
        if token is not None and token != kept:
            self._tokens[client.client_id] = kept, token

    def _newer_token(self, client: Client) -> Secret | None:
        before, newer = self._tokens.get(client.client_id, (None, None))
        return newer if before is not None and before == client.beside[self._token] else None

    def _newer(self, client: Client) -> dict[str, Secret] | None:
        """What no store holds yet."""
        token = self._newer_token(client)
        return None if token is None else {self._token: token}

    def _minted(self, client: Client, answer: Answer) -> Minted | None:
        """The secret of an answer with all that goes with it, if no store holds that secret."""
        secret = secret_at(answer, "client_secret")
        if secret is None or secret in (client.current, client.previous):
            return None
        beside: dict[str, Secret] = {}
        token = self._newer_token(client)
        if token is not None:
            beside[self._token] = token
        uri = secret_at(answer, "registration_client_uri")
        if uri is not None and uri != client.beside[self._uri] and self._is_ours(client, uri):
            beside[self._uri] = uri
        return Minted(secret, expires=_expiry(answer), beside=beside or None)

    def _is_ours(self, client: Client, uri: Secret) -> bool:
        try:
            self._endpoint(client._replace(beside={**client.beside, self._uri: uri}))
        except ConfigurationError:
            return False
        return True


@forgetting
def _address(uri: Secret, name: str, plain_http: Iterable[str]) -> str:
    """An address is no secret, though it is kept as one; what is none may be a secret. ConfigurationError."""
    return check_url(uri.reveal(), name, plain_http)


def _update_of(answer: Answer, secret: Secret | None) -> Any:
    """What makes the update of a registration that was read: all of its metadata, as RFC 7592 section 2.2 demands."""

    def update() -> Mapping[str, Any]:
        members, _ = answer.members()
        whole = {name: value for name, value in members.items() if name not in _NOT_SENT_BACK | {"client_secret"}}
        return whole if secret is None else {**whole, "client_secret": secret.reveal()}

    return update


def _expiry(answer: Answer) -> float | None:
    """When the secret ends, in seconds since 1970; 0 means never (RFC 7591 section 3.2.1)."""
    return number_at(answer, "client_secret_expires_at") or None


def _good(answer: Answer | Unreached, what: str) -> Answer | Refused | Unknown:
    failure = failure_of(answer, what, hints=_HINTS)
    return answer if failure is None and isinstance(answer, Answer) else failure or Unknown(what)
