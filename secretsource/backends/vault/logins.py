"""Logins to Vault: how a program shows who it is. Each reads what it shows anew at each login, since that is rotated.

What is secret is given as a reference (`secret_id="file:/run/secrets/id"`), or as the path of a file where platforms
write one; such a file is read at the access level `mounted`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

from ...clock import Deadline
from ...credentials import Document, interpret
from ...errors import AccessDenied, BackendError, ConfigurationError, MalformedSecret
from ...exchange import Outgoing
from ...reference import SecretReference
from ...secret import Secret
from .. import Backend, backend_for
from ..formats import Origin, parse
from ..walk import read_text
from .answers import NOT_IT, Action, Reply, error_of, seconds_in, text_of

__all__ = [
    "LOGINS",
    "NO_NAMESPACE",
    "AppRole",
    "AwsIam",
    "Certificate",
    "Desk",
    "Jwt",
    "Kubernetes",
    "Login",
    "OfClient",
    "Pass",
    "StaticToken",
    "TokenFile",
    "ViaAgent",
    "pass_of",
]

NO_NAMESPACE = "There is no such namespace: correct namespace= or auth_namespace= of the store"
_SENDABLE = re.compile(r"[\x21-\x7e]+")
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"


class Pass(NamedTuple):
    """A token with which Vault may be asked; None where an agent adds it. `life`: seconds, None: unknown or no end.

    `renewable`, and `uses` that are left (None: not counted), are as Vault said them.
    """

    token: Secret | None
    life: float | None = None
    renewable: bool = False
    uses: int | None = None


class Desk(NamedTuple):
    """What a login is made with. `ask` sends a request and gives the reply, whatever its status, if Vault gave one."""

    ask: Callable[[Action, Secret | None], Reply]
    stores: Mapping[str, Backend] | None
    origin: Origin
    deadline: Deadline

    def secret(self, given: SecretReference | str) -> Secret:
        """The one text at a reference, or in a file whose path is given."""
        if isinstance(given, str):
            called = f"the file {given}"
            text = read_text(given, level="mounted", reference=self.origin.reference, called=called)
            parsed = parse(text, "text", Origin(self.origin.reference, called))
            assert isinstance(parsed, Secret)
            return parsed
        backend = backend_for(given, self.stores)
        document = backend.read(given, fresh=True, timeout=self.deadline.left())
        if document.text is None and (given.fields is None or given.fields.id is not None):
            raise ConfigurationError(
                f"{given} gives several texts, and one is needed to log in to Vault",
                hint=f"Name it: {given}#FIELD" if given.fields is None else "Name one field, #FIELD",
            )
        return _one_text(document, given)

    def token(self, token: Secret, what: str) -> Secret:
        """The same, if a header takes it."""
        if _is_sendable(token):
            return token
        raise self.origin.error(
            MalformedSecret,
            f"cannot be read: {what} is no Vault token, which has neither blanks nor line ends in it",
            "Put the token there, and nothing beside it",
        )

    def no_pass(self, what: str, hint: str, reply: Reply) -> BackendError:
        """The error for an answer without what a login needs."""
        if not reply.good:
            return self.refused(what, hint, reply)
        return error_of(
            MalformedSecret, reply, self.origin, f"cannot be read: the answer to {what} is not one of Vault's", NOT_IT
        )

    def refused(self, what: str, hint: str, reply: Reply) -> AccessDenied:
        if "namespace not found" in reply.says:
            hint = NO_NAMESPACE
        return error_of(
            AccessDenied, reply, self.origin, f"cannot be read: Vault refuses {what} ({reply.status})", hint
        )


def _one_text(document: Document, reference: SecretReference) -> Secret:
    if document.text is None and "client_id" in document.fields:
        names = {name: value for name, value in document.fields.items() if name != "client_id"}
        document = Document(names)
    return interpret(document, reference, client_id="-").credentials.client_secret


class Login(Protocol):
    """A way to a token. `references`: where what it shows is kept. `repeats`: it can be made again at any time.

    `kept`: what it gives is used until its end, and not looked up anew for each visit.
    """

    @property
    def references(self) -> tuple[SecretReference, ...]: ...
    @property
    def kept(self) -> bool: ...
    @property
    def repeats(self) -> bool: ...

    def obtain(self, desk: Desk) -> Pass:
        """A token. Raises AccessDenied, ConfigurationError, and what reading a secret raises."""
        ...


def pass_of(reply: Reply, desk: Desk, what: str, hint: str) -> Pass:
    """The token in the answer to a login or a renewal; any other answer than one is a refusal, says the fact sheet."""
    auth = reply.mapping("auth")
    token = None if auth is None else text_of(auth.get("client_token"))
    if not reply.good or auth is None or token is None or not _is_sendable(token):
        raise desk.no_pass(what, hint, reply)
    uses = auth.get("num_uses")
    return Pass(
        token,
        seconds_in(auth.get("lease_duration")),
        auth.get("renewable") is True,
        uses if isinstance(uses, int) and not isinstance(uses, bool) and uses > 0 else None,
    )


class _Login:
    """What all have in common: a repr that shows where things are and no secret, since none is held."""

    references: tuple[SecretReference, ...] = ()
    kept = True
    repeats = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class StaticToken(_Login):
    """A token that somebody else made; it is renewed where Vault allows it, and cannot be had again.

    `renew=False` for a token with a counted number of uses: to find out how long a token lives costs one.
    """

    repeats = False

    def __init__(self, reference: str | SecretReference, *, renew: bool = True) -> None:
        found = _reference(reference, "reference")
        del reference  # perhaps a token pasted by mistake, which a traceback with locals would show
        if isinstance(found, ConfigurationError):
            raise found
        self._reference = found
        self.renew = renew
        self.references = (self._reference,)

    def obtain(self, desk: Desk) -> Pass:
        return Pass(desk.token(desk.secret(self._reference), f"what {self._reference} gives"))


class TokenFile(_Login):
    """A token in a file that an agent keeps new (a sink of Vault Agent); it is read each time."""

    kept = repeats = False

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = _path(path, "TokenFile")

    def obtain(self, desk: Desk) -> Pass:
        return Pass(desk.token(desk.secret(self._path), f"what is in the file {self._path}"))


class AppRole(_Login):
    """A role ID, and a secret ID kept at a reference; with `wrapped=True` the reference gives a wrapping token for it.

    A wrapping token is good once: a program that starts anew needs a new one.
    """

    def __init__(
        self, role_id: str, secret_id: str | SecretReference, mount: str = "approle", wrapped: bool = False
    ) -> None:
        self._role_id, self._mount, self._wrapped = _text(role_id, "role_id"), mount_path(mount), bool(wrapped)
        found = _reference(secret_id, "secret_id")
        del secret_id
        if isinstance(found, ConfigurationError):
            raise found
        self._secret_id = found
        self.references = (self._secret_id,)
        self._unwrapped: tuple[Secret, Secret] | None = None

    def obtain(self, desk: Desk) -> Pass:
        secret_id = desk.secret(self._secret_id)
        if self._wrapped:
            secret_id = self._unwrap(secret_id, desk)
        reply = desk.ask(
            lambda client: client.auth.approle.login(
                self._role_id, secret_id.reveal(), use_token=False, mount_point=self._mount
            ),
            None,
        )
        return pass_of(
            reply,
            desk,
            f"the login at auth/{self._mount}",
            "The role ID or the secret ID is wrong, used up or has ended, or no AppRole login is mounted there",
        )

    def _unwrap(self, wrapping: Secret, desk: Desk) -> Secret:
        """The secret ID behind a wrapping token. It stays in memory, since the token is good once."""
        kept = self._unwrapped
        if kept is not None and kept[0] == wrapping:
            return kept[1]
        looked_up = desk.ask(lambda client: client.adapter.post("/v1/sys/wrapping/lookup", json=_token(wrapping)), None)
        data = looked_up.mapping("data")
        path = None if data is None else text_of(data.get("creation_path"))
        if not looked_up.good or path is None:
            raise desk.no_pass("the wrapping token", _USED, looked_up)
        if not _is_of_a_role(path, self._mount):
            raise desk.refused(
                f"what is wrapped: it was not made by auth/{self._mount}/role/NAME/secret-id",
                "Somebody may have exchanged it: make a new secret ID, and find out who could write there",
                looked_up,
            )
        reply = desk.ask(lambda client: client.sys.unwrap(), wrapping)
        data = reply.mapping("data")
        secret_id = None if data is None else text_of(data.get("secret_id"))
        if not reply.good or secret_id is None:
            raise desk.no_pass("the wrapping token", _USED, reply)
        self._unwrapped = wrapping, secret_id
        return secret_id


_USED = (
    "It was used before, has ended, or is none. If this program did not use it, somebody else did: "
    "revoke the secret ID. A program that starts anew needs a new one"
)


class _ByJwt(_Login):
    """Shows a JWT for a role. `shown`: where it is kept, or why what was given is no such place."""

    _hint: str

    def __init__(self, role: str, mount: str, shown: SecretReference | str | ConfigurationError) -> None:
        if isinstance(shown, ConfigurationError):
            raise shown
        self._jwt, self._role, self._mount = shown, _text(role, "role"), mount_path(mount)
        self.references = (shown,) if isinstance(shown, SecretReference) else ()

    def obtain(self, desk: Desk) -> Pass:
        jwt = desk.secret(self._jwt)
        reply = desk.ask(lambda client: self._request(client, jwt), None)
        return pass_of(reply, desk, f"the login with the role {self._role!r} at auth/{self._mount}", self._hint)

    def _request(self, client: Any, jwt: Secret) -> Outgoing:
        raise NotImplementedError


class Kubernetes(_ByJwt):
    """A pod's service account. `jwt` is its token's path, best a projected one with an audience, or a reference."""

    _hint = "Is the service account bound to that role, in this namespace, with this audience?"

    def __init__(
        self, role: str, mount: str = "kubernetes", jwt: str | SecretReference | os.PathLike[str] = _SERVICE_ACCOUNT
    ) -> None:
        shown = _place(jwt, "jwt")
        del jwt
        super().__init__(role, mount, shown)

    def _request(self, client: Any, jwt: Secret) -> Outgoing:
        built: Outgoing = client.auth.kubernetes.login(
            self._role, jwt.reveal(), use_token=False, mount_point=self._mount
        )
        return built


class Jwt(_ByJwt):
    """A JWT of a CI system or a workload identity. `jwt`: a reference to it, or the path of its file."""

    _hint = "Has the JWT ended, or another issuer, audience or claim than the role asks for?"

    def __init__(self, role: str, jwt: str | SecretReference | os.PathLike[str], mount: str = "jwt") -> None:
        shown = _place(jwt, "jwt")
        del jwt
        super().__init__(role, mount, shown)

    def _request(self, client: Any, jwt: Secret) -> Outgoing:
        built: Outgoing = client.auth.jwt.jwt_login(self._role, jwt.reveal(), use_token=False, path=self._mount)
        return built


class AwsIam(_Login):
    """The AWS role of this machine, pod or task. Needs the extra `aws`, too.

    `server_id`: the value that Vault demands in X-Vault-AWS-IAM-Server-ID; `region`: that of its STS endpoint.
    """

    def __init__(self, role: str, mount: str = "aws", server_id: str | None = None, region: str | None = None) -> None:
        self._role, self._mount = _text(role, "role"), mount_path(mount)
        self._server_id, self._region = server_id, region

    def obtain(self, desk: Desk) -> Pass:
        if find_spec("botocore") is None:
            raise ConfigurationError(
                "a login to Vault with an AWS role needs botocore", hint="Run pip install 'secretsource[aws]'"
            )
        from .iam import signed_identity

        reply = desk.ask(
            lambda client: client.adapter.post(
                f"/v1/auth/{self._mount}/login",
                json={"role": self._role, **signed_identity(self._region, self._server_id, desk.deadline)},
            ),
            None,
        )
        return pass_of(
            reply,
            desk,
            f"the login with the AWS role for {self._role!r} at auth/{self._mount}",
            "Is this AWS role bound to it? server_id= and region= must be those that Vault is configured with",
        )


class Certificate(_Login):
    """The TLS certificate of the store (`client_cert=`). `name`: the role; without it, any that matches."""

    def __init__(self, name: str | None = None, mount: str = "cert") -> None:
        self._name, self._mount = None if name is None else _text(name, "name"), mount_path(mount)

    def obtain(self, desk: Desk) -> Pass:
        # Not hvac's method for it, which wants to find the certificate's files itself.
        body = {} if self._name is None else {"name": self._name}
        reply = desk.ask(lambda client: client.adapter.post(f"/v1/auth/{self._mount}/login", json=body), None)
        return pass_of(
            reply,
            desk,
            f"the login with a certificate at auth/{self._mount}",
            "Is the certificate of the authority that the role trusts, with a common name, and has it not ended?",
        )


class OfClient(_Login):
    """Whatever token an hvac.Client of the program's own has at the moment."""

    kept = repeats = False

    def __init__(self, client: Any) -> None:
        self._client = client

    def obtain(self, desk: Desk) -> Pass:
        token = self._client.token
        return Pass(desk.token(Secret(token), "what client= has") if token else None)


class ViaAgent(_Login):
    """Through Vault Agent or Proxy, which adds the token itself (auto_auth with use_auto_auth_token)."""

    def obtain(self, desk: Desk) -> Pass:
        return Pass(None)


LOGINS: dict[str, type[Login]] = {
    "token": StaticToken,
    "token_file": TokenFile,
    "approle": AppRole,
    "kubernetes": Kubernetes,
    "jwt": Jwt,
    "aws": AwsIam,
    "certificate": Certificate,
    "agent": ViaAgent,
}
"""By the names that a configuration gives them."""


def mount_path(mount: object) -> str:
    """A mount's path without slashes at its ends; nothing in it may lead elsewhere."""
    path = mount.strip("/") if isinstance(mount, str) else ""
    parts = path.split("/")
    if not path.isprintable() or any(part in ("", ".", "..") for part in parts) or any(c in path for c in "?#%"):
        raise ConfigurationError("mount= is no path of a mount", hint="Write it as in team/a/kv")
    return path


def _is_sendable(token: Secret) -> bool:
    return _SENDABLE.fullmatch(token.reveal()) is not None


def _token(wrapping: Secret) -> dict[str, str]:
    return {"token": wrapping.reveal()}


def _is_of_a_role(path: Secret, mount: str) -> bool:
    parts = path.reveal().removeprefix(f"auth/{mount}/").split("/")
    return (
        path.reveal().startswith(f"auth/{mount}/") and len(parts) == 3 and (parts[0], parts[2]) == ("role", "secret-id")
    )


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ConfigurationError(f"{name}= is a text that is not empty, not {type(value).__name__}")
    return value


def _path(path: object, name: str) -> str:
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ConfigurationError(f"{name} takes the path of a file, not {type(path).__name__}")
    return str(os.fspath(path))


def _reference(given: str | SecretReference, name: str) -> SecretReference | ConfigurationError:
    """The error is returned and not raised from here, where the text is a local."""
    try:
        return SecretReference.parse(given)
    except ConfigurationError as error:
        problem = error.again()
    problem.message = f"{name}= is a reference to a secret: {problem.message}"
    problem.args = (problem.message,)
    return problem


def _place(given: str | SecretReference | os.PathLike[str], name: str) -> SecretReference | str | ConfigurationError:
    """A reference, or the path of a file, which begins with '/'."""
    if isinstance(given, os.PathLike):
        return str(os.fspath(given))
    if isinstance(given, str) and given.startswith("/"):
        return given
    return _reference(given, name)
