"""HashiCorp Vault and OpenBao: KV version 1 and 2, and whatever else gives a client ID and secret when it is read.

    VaultBackend("https://vault.example.com", auth=Kubernetes("pos"))

Built bare, as a reference `vault://` does, it takes VAULT_* from the environment; `bao://` takes BAO_* first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

from ...clock import Deadline, checked_seconds
from ...credentials import Document
from ...errors import BackendUnavailable, ConfigurationError, SecretSourceError, forgetting
from ...flight import PerProcess
from ...reference import SecretReference
from ...secret import Secret
from ...state import RotationState
from ...urls import check_url
from .. import Backend, Held, Stored, backend_for
from ..formats import Origin
from ..layout import DocumentLayout
from .answers import error_of
from .kv import Place, deleted, document_of, lifetime_in, place_of, reading, writing
from .logins import (
    LOGINS,
    AppRole,
    AwsIam,
    Certificate,
    Jwt,
    Kubernetes,
    Login,
    OfClient,
    StaticToken,
    TokenFile,
    ViaAgent,
)
from .rotating import cautions, destroyed_before
from .variables import settings
from .visit import Vault, Visit

__all__ = [
    "LOGINS",
    "AppRole",
    "AwsIam",
    "BaoBackend",
    "Certificate",
    "Jwt",
    "Kubernetes",
    "StaticToken",
    "TokenFile",
    "VaultBackend",
    "ViaAgent",
]


class VaultBackend(DocumentLayout):
    """Reads and writes secrets in Vault. Constructing does no I/O.

    `auth` is how it logs in; `namespace` that of the secrets, `auth_namespace` that of the login, if it is another.
    `ca_file` are the authorities it trusts instead of the system's, `client_cert` a PEM file or a pair of them.
    `timeout` bounds one visit (login, read and repeats) in seconds, by default 5. `stores` are those that references in
    `auth` may name. `client` is an hvac.Client that is logged in: its address, namespace and certificates are used, and
    the token that it has at each visit; its session is not, and it is left open.
    """

    options = frozenset({"mount", "version", "kv"})
    ttl: float | None = 300.0
    eventually_consistent = True  # a standby may lag behind
    reaches = (
        "Every program that reads this path by secretsource, within its store's ttl; "
        "what Vault Agent or an operator renders from client_secret alone has the current secret and no other"
    )
    _prefixes: tuple[str, ...] = ("VAULT",)  # of the variables
    _program = "vault"

    @forgetting
    def __init__(
        self,
        address: str | None = None,
        *,
        auth: Login | None = None,
        namespace: str | None = None,
        auth_namespace: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        client_cert: str | tuple[str, str] | None = None,
        proxy: str | None = None,
        plain_http: Iterable[str] = (),
        timeout: float | None = None,
        client: Any = None,
        stores: Mapping[str, Backend] | None = None,
    ) -> None:
        if auth is not None and (isinstance(auth, type) or not hasattr(auth, "obtain")):
            kind = type(auth).__name__
            del auth  # perhaps a token
            raise ConfigurationError(
                f"auth= is a {kind}, which is no login",
                hint=f"Logins: {', '.join(login.__name__ for login in LOGINS.values())}; "
                "a token is StaticToken('env:#NAME')",
            )
        if find_spec("hvac") is None:
            raise ConfigurationError("the store 'vault' needs hvac", hint="Run pip install 'secretsource[vault]'")
        given: dict[str, Any] = {
            "address": address,
            "auth": auth,
            "namespace": namespace,
            "auth_namespace": auth_namespace,
            "ca_file": ca_file,
            "client_cert": client_cert,
            "proxy": Secret(proxy) if isinstance(proxy, str) else proxy,  # it may hold a password
            "plain_http": (plain_http,) if isinstance(plain_http, str) else tuple(plain_http),
            "timeout": None if timeout is None else checked_seconds("timeout", timeout),
        }
        if client is not None:
            given |= _of_client(client, given)
        bare = given["address"] is None
        if bare and auth is not None:
            raise ConfigurationError("auth= is given without an address", hint="VaultBackend('https://…', auth=…)")
        self._given = given if bare else _checked(given)
        self._stores = stores
        self._vault: PerProcess[Vault] = PerProcess(self._opened)

    def __repr__(self) -> str:
        # Also of one that was refused while it was built: a traceback may show it.
        return f"<VaultBackend {getattr(self, '_given', {}).get('address') or 'by the environment'}>"

    @property
    def login_references(self) -> tuple[SecretReference, ...]:
        """Where what it logs in with is kept."""
        login = self._given["auth"]
        return () if login is None else tuple(login.references)

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        """The document, read from Vault. Raises BackendError; a 403 is one only after a new login.

        `fresh` makes no difference: nothing that is read is kept here.
        """
        named, visit = place_of(reference), self._visit(reference, timeout)
        place = visit.found(named) if named.kind == "auto" else named
        reply = visit.ask(reading(place))
        if named.kind == "auto" and reply.status in (403, 404) and (new := visit.found(named, anew=True)) != place:
            place, reply = new, visit.ask(reading(new))  # the mount was exchanged, or has got versions
        if not reply.good:
            raise deleted(reply, visit.origin) or visit.refusal(reply)
        return document_of(reply, place, visit.origin)

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        """Everything at this path of KV version 2, texts as Secrets; `version` is its number."""
        visit, place = self._to_write(reference, timeout)
        reply = visit.ask(reading(place))
        known = reply.mapping("data", "metadata")
        if reply.status == 404 and not reply.foreign:
            # Nothing yet, or a deleted version, after which the numbers go on.
            number = None if known is None else known.get("version")
            if number is None:
                visit.check_new(place)
            return Stored({}, None if number is None else str(number))
        if not reply.good:
            raise visit.refusal(reply)
        document_of(reply, place, visit.origin)
        fields = dict(reply.mapping("data", "data") or {})
        return Stored(fields, str((known or {})["version"]), *lifetime_in(reply))

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        """Write by check-and-set, wait until it can be read, and return the new version's number.

        Raises BackendUnavailable where somebody else was faster.
        """
        visit, place = self._to_write(reference, timeout)
        reply = visit.ask(writing(place, fields, int(version or 0)), repeated=False)
        if reply.status == 400 and "check-and-set parameter did not match" in reply.says:
            what = "was changed by somebody else meanwhile"
            raise error_of(BackendUnavailable, reply, visit.origin, what, "Read it again, and decide again")
        number = (reply.mapping("data") or {}).get("version")
        if not reply.good or not isinstance(number, int):
            raise visit.refusal(reply, needs="create and update")
        visit.await_version(place, number)
        return str(number)

    @property
    def copied(self) -> bool:
        """Whether an agent stands between, which may keep what it has read."""
        return isinstance(self._vault.get().login, ViaAgent)

    def preflight(self, reference: SecretReference, *, timeout: float) -> Sequence[str]:
        """What to be careful about. Raises AccessDenied where the token may not read and update the secret."""
        deadline = Deadline(timeout)
        found = cautions(*self._to_write(reference, deadline.left()), self._program)
        ends = self.read_whole(reference, timeout=deadline.left()).expires
        if ends is not None:
            at = datetime.fromtimestamp(ends, UTC)
            found.append(
                f"Vault deletes what is at {reference} on {at:%Y-%m-%d %H:%M} UTC, and each version as long after it "
                "was written (delete_version_after): rotate before that, or take the limit off"
            )
        return found

    def drop_previous(
        self, reference: SecretReference, held: Held, state: RotationState, *, timeout: float
    ) -> str | None:
        """Take the previous secret out, and destroy all older versions; what was left undone of the latter."""
        deadline = Deadline(timeout)
        try:
            version: str | BackendUnavailable = self._write(
                reference, held, {"_previous": None}, state, deadline.left()
            )
        except BackendUnavailable as error:
            version = error.again()
        if isinstance(version, BackendUnavailable):
            failure, found = version, self._dropped(reference, held, state, deadline)
            if found is None:
                raise failure
            version = found
        return destroyed_before(*self._to_write(reference, deadline.left()), int(version), self._program)

    def _dropped(self, reference: SecretReference, held: Held, state: RotationState, deadline: Deadline) -> str | None:
        """The version that the write has made, if it is there though its answer was lost."""
        with suppress(SecretSourceError):
            now = self.read_held(reference, client_id=held.client_id, timeout=deadline.left())
            if now.version != held.version and now.previous is None and now.state == state:
                return now.version
        return None

    def _to_write(self, reference: SecretReference, timeout: float) -> tuple[Visit, Place]:
        place, visit = place_of(reference), self._visit(reference, timeout)
        if place.kind == "auto":
            place = visit.found(place)
        if place.kind != "2":
            raise ConfigurationError(
                f"{reference} is not written: only KV version 2 can tell whether somebody else has written meanwhile",
                hint="Write it with vault kv put, or enable versioning: vault kv enable-versioning",
            )
        if place.version is not None:
            raise ConfigurationError(f"{reference} names one version, which does not change", hint="Leave version= out")
        return visit, place

    def _visit(self, reference: SecretReference, timeout: float) -> Visit:
        self._check_ring(reference)
        vault = self._vault.get()
        return Visit(vault, Origin(reference), Deadline(min(timeout, vault.timeout)))

    def _opened(self) -> Vault:
        given = self._given
        if given["address"] is None:
            found = settings(self._prefixes)  # where the code says nothing
            given = _checked({**given, **{name: value for name, value in found.items() if given[name] is None}})
        return Vault(given, self._stores)

    def _check_ring(self, reference: SecretReference) -> None:
        """Raise ConfigurationError where the way to log in leads back to a store that is on it already."""
        waiting: list[tuple[tuple[Any, ...], tuple[str, ...]]] = [((self,), (reference.store,))]
        while waiting:
            met, way = waiting.pop()
            for needed in getattr(met[-1], "login_references", ()):
                other, on = backend_for(needed, getattr(met[-1], "_stores", None)), (*way, needed.store)
                back = next((place for place, one in enumerate(met) if one is other), None)
                if back is not None:
                    raise ConfigurationError(
                        f"to log in, the store {way[back]!r} needs itself: {' → '.join(on[back:])}",
                        hint="Keep what it logs in with in another store, such as a file",
                    )
                waiting.append(((*met, other), on))


class BaoBackend(VaultBackend):
    """The same for OpenBao: built bare, it takes BAO_* before VAULT_*."""

    _prefixes = ("BAO", "VAULT")
    _program = "bao"


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """The settings of a Vault that a secret may be fetched from. ConfigurationError."""
    address, auth = check_url(given["address"], "address", given["plain_http"]).rstrip("/"), given["auth"]
    if "?" in address or address.endswith("/v1"):
        raise ConfigurationError("address= is more than an address", hint="Write https://HOST:PORT, without /v1")
    if auth is None:
        raise ConfigurationError(
            f"there is no login to Vault at {address}",
            hint="Give auth=, such as AppRole(role_id, 'file:/run/secrets/id'), Kubernetes('pos'), ViaAgent()",
        )
    if isinstance(auth, Certificate) and given["client_cert"] is None:
        raise ConfigurationError("a login with a certificate needs client_cert=", hint="A PEM file, or a pair of them")
    for name in ("namespace", "auth_namespace"):
        namespace = given[name]
        if namespace is not None and not (isinstance(namespace, str) and namespace and namespace.isprintable()):
            raise ConfigurationError(f"{name}= is a text that is not empty")
    return {**given, "address": address}


def _of_client(client: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """What an hvac.Client of the program's own says; what is given beside it wins."""
    if given["address"] is not None or given["auth"] is not None:
        raise ConfigurationError("client= has an address and a login", hint="Leave address and auth= out")
    adapter = getattr(client, "adapter", None)
    if adapter is None or not hasattr(client, "url"):
        raise ConfigurationError(
            f"client= is an hvac.Client, not {type(client).__name__}", hint="Give address= and auth= instead"
        )
    sent = getattr(adapter, "_kwargs", {})
    if sent.get("verify") is False:
        raise ConfigurationError("client= does not verify certificates", hint="Give it the file of the authority")
    found = {
        "address": client.url,
        "auth": OfClient(client),
        "namespace": adapter.namespace,
        "ca_file": sent["verify"] if isinstance(sent.get("verify"), (str, os.PathLike)) else None,
        "client_cert": sent.get("cert"),
    }
    return {name: value for name, value in found.items() if given[name] is None}
