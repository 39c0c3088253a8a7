"""What the tests of the Vault backend share: a Vault that answers by a script, canaries, a look into every error."""

from __future__ import annotations

import base64
import json
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from secretsource import Document, SecretReference, SecretSourceError
from secretsource.backends.vault import StaticToken, VaultBackend
from secretsource.secret import Secret
from secretsource.testing import Answer, Fault, Incoming, LoopbackServer

CLIENT_SECRET, TOKEN, NEW_TOKEN, SECRET_ID, JWT, WRAPPING, IN_A_BODY = (
    f"not-a-real-secret-{name}"
    for name in ("of-the-client", "vault-token", "new-vault-token", "secret-id", "jwt", "wrapping-token", "in-a-body")
)
CANARIES = [CLIENT_SECRET, TOKEN, NEW_TOKEN, SECRET_ID, JWT, WRAPPING, IN_A_BODY]
SECRETS: list[str] = []
"""What a test must not see, beside the canaries; the fixture that looks at the log empties it."""

REFERENCE = "vault://kv/prod/pos"
DATA = "/v1/kv/data/prod/pos"
LOGIN = "/v1/auth/approle/login"
PREFLIGHT = "/v1/sys/internal/ui/mounts/kv/prod/pos"
LOOKUP = "/v1/auth/token/lookup-self"
RENEW = "/v1/auth/token/renew-self"
REQUEST_ID = "8c1f2a90-1d5e-4c55-9b57-2f0c8f1f7a11"

E = TypeVar("E", bound=SecretSourceError)
Script = Answer | list[Answer] | Callable[[Incoming], Answer]


# --- answers


def answer(body: Any, status: int = 200, *, fault: Fault | None = None, **headers: str) -> Answer:
    """JSON, with headers whose names have "_" for "-"."""
    named = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return Answer(status, named, json.dumps(body).encode(), fault or Fault())


def secret(client_secret: str = CLIENT_SECRET, version: int = 1, **fields: Any) -> Answer:
    """What KV version 2 answers."""
    data = {"client_id": "pos", "client_secret": client_secret, **fields}
    metadata = {
        "created_time": "2026-01-02T03:04:05.678901234Z",
        "deletion_time": "",
        "destroyed": False,
        "version": version,
        "custom_metadata": None,
    }
    return answer({"request_id": REQUEST_ID, "data": {"data": data, "metadata": metadata}})


def login(token: str = TOKEN, **auth: Any) -> Answer:
    return answer({"auth": {"client_token": token, "lease_duration": 3600, "renewable": True, "num_uses": 0, **auth}})


def errors(status: int, *texts: str, fault: Fault | None = None, **headers: str) -> Answer:
    """An error as Vault answers it; a canary stands in it."""
    return answer({"request_id": REQUEST_ID, "errors": [*texts, IN_A_BODY]}, status, fault=fault, **headers)


class Scripted:
    """Vault by a script: for each path an answer, answers in turn (the last stays), or a function. Else a bare 404."""

    def __init__(self, script: Mapping[str, Script] | None = None, **server: Any) -> None:
        self.script: dict[str, Script] = {DATA: secret(), LOGIN: login(), **(script or {})}
        self.requests: list[Incoming] = []
        self.server = LoopbackServer(self._answer, **server)

    def __enter__(self) -> Scripted:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    @property
    def address(self) -> str:
        return self.server.origin

    def came(self, path: str = "") -> int:
        """How many requests came to this path, or in all."""
        return sum(not path or one.path == path for one in self.requests)

    def tokens(self, path: str) -> list[str | None]:
        """With which Vault token each request to this path came."""
        return [one.headers.get("x-vault-token") for one in self.requests if one.path == path]

    def backend(self, auth: Any, **settings: Any) -> VaultBackend:
        return VaultBackend(settings.pop("address", self.address), auth=auth, **settings)

    def _answer(self, incoming: Incoming) -> Answer:
        self.requests.append(incoming)
        scripted = self.script.get(incoming.path, answer({"errors": []}, 404))
        if isinstance(scripted, list):
            return scripted.pop(0) if len(scripted) > 1 else scripted[0]
        return scripted if isinstance(scripted, Answer) else scripted(incoming)


class Given:
    """A store in memory that gives one text, for what a login needs. `reads` counts."""

    options: frozenset[str] = frozenset()
    ttl: float | None = 300.0

    def __init__(self, text: str) -> None:
        self.text: str | SecretSourceError = text
        self.reads = 0

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        self.reads += 1
        if isinstance(self.text, SecretSourceError):
            raise self.text
        return Document(Secret(self.text))


def by_token(server: Scripted, token: str = TOKEN, **settings: Any) -> VaultBackend:
    """With a token that is not asked about, so that only the reads are seen."""
    return server.backend(StaticToken("given:token", renew=False), stores={"given": Given(token)}, **settings)


# --- reading


def read(backend: Any, reference: str = REFERENCE, *, timeout: float = 10.0) -> Document:
    document: Document = backend.read(SecretReference.parse(reference), fresh=True, timeout=timeout)
    return document


def secret_in(backend: Any, reference: str = REFERENCE) -> str:
    """The client secret that is read there."""
    value = read(backend, reference).fields["client_secret"]
    assert isinstance(value, Secret)
    return value.reveal()


def failure(
    kind: type[E], backend: Any, reference: str = REFERENCE, *, timeout: float = 10.0, hint: str = "", says: str = ""
) -> E:
    """The error of this very class that reading ends in, looked through for anything secret."""
    return failed(kind, lambda: read(backend, reference, timeout=timeout), hint=hint, says=says)


def failed(kind: type[E], work: Callable[[], object], *, hint: str = "", says: str = "") -> E:
    with pytest.raises(kind) as caught:
        work()
    error = caught.value
    assert type(error) is kind
    assert_shows_nothing(error)
    assert error.hint
    assert hint in error.hint
    assert says in error.message
    return error


def known_secrets() -> list[str]:
    return [*CANARIES, *SECRETS]


def assert_shows_nothing(error: SecretSourceError) -> None:
    """No other library's exception hangs on it, and nothing secret is in it or in the frames behind it."""
    assert (error.__cause__, error.__context__) == (None, None)
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame.locals for frame in trace.stack if "/tests/" not in frame.filename]
    shown = f"{error} {error!r} {error.args!r} {vars(error)!r} {frames!r}"
    assert [one for one in known_secrets() if one in shown] == []


def reprs_of(backend: VaultBackend) -> str:
    """What every object in and under a backend shows of itself."""
    found: list[object] = []
    waiting: list[object] = [backend]
    while waiting:
        one = waiting.pop()
        if any(one is other for other in found):
            continue
        found.append(one)
        names = [
            *getattr(one, "__dict__", {}),
            *(n for kind in type(one).__mro__ for n in getattr(kind, "__slots__", ())),
        ]
        values = [getattr(one, name, None) for name in names if isinstance(name, str)]
        if isinstance(one, (dict, list, tuple)):
            values += one.values() if isinstance(one, dict) else one
        waiting += [
            value
            for value in values
            if type(value).__module__.startswith("secretsource") or isinstance(value, (dict, list, tuple))
        ]
    return " ".join(f"{one!r} {one}" for one in found)


class Record(logging.Handler):
    """Everything that any logger says, at every level."""

    def __init__(self) -> None:
        super().__init__(level=0)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name} {record.getMessage()} {record.args!r} {record.exc_text or ''}")

    def shows(self, secrets: Iterable[str]) -> list[str]:
        return [line for line in self.lines if any(one in line for one in secrets)]


# --- JWTs


class Signer:
    """Signs JWTs with ES256."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_key(self) -> str:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def jwt(self, *, life: float = 600, **claims: Any) -> str:
        now = int(time.time())
        body = {"iat": now - 1000, "nbf": now - 1000, "exp": now + int(life), **claims}
        signed = ".".join(_base64(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT"}, body))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        made = f"{signed}.{_base64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
        SECRETS.append(made)
        return made


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
