"""What the fakes of Okta, Auth0 and Entra share: one loopback server with a token endpoint and an administrator's API.

Each fake says in its docstring what it was written from. None of them was compared with the real thing.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, unquote_plus

import pytest

from secretsource import ClientCredentials, SecretSourceError, TokenSource
from secretsource.clock import SYSTEM_CLOCK, Clock, Deadline
from secretsource.rotation import Client
from secretsource.secret import Secret
from secretsource.testing import Answer, Fault, Incoming, LoopbackServer

CLIENT = "pos"
OLD, NEW, LATER, ADMIN_SECRET, API_TOKEN, IN_A_BODY = (
    f"not-a-real-secret-{name}"
    for name in ("old-of-the-client", "new-of-the-client", "later-of-the-client", "admin", "api-token", "in-a-body")
)
CANARIES = [OLD, NEW, LATER, ADMIN_SECRET, API_TOKEN, IN_A_BODY]
ADMIN = "rotator"


@dataclass
class Planned:
    """What happens once to a request of this method whose path has this in it: the change is made and its answer lost,
    or it is answered without a look at it."""

    method: str
    part: str
    lost: bool = False
    instead: Answer | None = None


@dataclass
class Token:
    client_id: str
    scopes: tuple[str, ...]


class Route(NamedTuple):
    """What an administrator's call is answered with: a status and JSON (None: no content)."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = {}


@dataclass
class Vendor:
    """A vendor's site on loopback. A subclass has `token_path`, `accepts`, `wrong` and `administer`.

    `lag`: seconds of `clock` until a change has reached all nodes. `scopes`: what the rotator's own token may.
    `lifetime`: seconds for which tokens are good.
    """

    clock: Clock = SYSTEM_CLOCK
    lag: float = 0.0
    scopes: tuple[str, ...] = ()
    lifetime: int = 3600
    requests: list[Incoming] = field(default_factory=list)
    token_answers: list[int] = field(default_factory=list)

    token_path = "/token"

    def __post_init__(self) -> None:
        self.server = LoopbackServer(self._answer)
        self.lock = threading.RLock()
        self.tokens: dict[str, Token] = {}
        self._planned: list[Planned] = []

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop()

    @property
    def origin(self) -> str:
        return self.server.origin

    @property
    def token_url(self) -> str:
        return f"{self.origin}{self.token_path}"

    def admin(self, **more: Any) -> TokenSource:
        """What the rotator logs in with."""
        return TokenSource(ClientCredentials(ADMIN, ADMIN_SECRET), token_url=self.token_url, clock=self.clock, **more)

    # --- what a test asks for

    def lose(self, method: str, part: str) -> None:
        """The next such call takes effect, and its answer does not arrive."""
        self._planned.append(Planned(method, part, lost=True))

    def answer(self, method: str, part: str, status: int, body: Any = None, **headers: str) -> None:
        """The next such call changes nothing and is answered so."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._planned.append(Planned(method, part, instead=_json(status, body, named)))

    def came(self, method: str, part: str) -> int:
        with self.lock:
            return sum(one.method == method and part in one.path for one in self.requests)

    def gives(self, secret: str) -> bool:
        """Whether the token endpoint accepts this secret of the client now, on all nodes."""
        return all(self.accepts(CLIENT, secret, node) for node in range(2))

    # --- what a vendor is

    def accepts(self, client_id: str, secret: str, node: int) -> bool:
        raise NotImplementedError

    def wrong(self, client_id: str, secret: str) -> Answer:
        """What a wrong secret is answered with."""
        raise NotImplementedError

    def administer(self, incoming: Incoming, body: Any) -> Route:
        raise NotImplementedError

    def may(self, incoming: Incoming, *scopes: str) -> bool:
        """Whether the call came with a token of the rotator that has one of these scopes."""
        scheme, _, text = incoming.headers.get("authorization", "").partition(" ")
        token = self.tokens.get(text) if scheme.lower() == "bearer" else None
        return token is not None and token.client_id == ADMIN and (not scopes or bool({*scopes} & {*token.scopes}))

    # --- the server

    def _answer(self, incoming: Incoming) -> Answer:
        with self.lock:
            self.requests.append(incoming)
            if incoming.path == self.token_path:
                return self._token(incoming)
            planned = self._next(incoming)
            if planned is not None and planned.instead is not None:
                return planned.instead
            route = self.administer(incoming, json.loads(incoming.body) if incoming.body else None)
            if planned is not None:
                return Answer(fault=Fault(reset=True))
            return _json(route.status, route.body, route.headers)

    def _next(self, incoming: Incoming) -> Planned | None:
        for planned in self._planned:
            if planned.method == incoming.method and planned.part in incoming.path:
                self._planned.remove(planned)
                return planned
        return None

    def _token(self, incoming: Incoming) -> Answer:
        form = dict(parse_qsl(incoming.body.decode("ascii"), keep_blank_values=True))
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, encoded = incoming.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            pair = base64.b64decode(encoded).decode().partition(":")
            client_id, secret = unquote_plus(pair[0]), unquote_plus(pair[2])
        if form.get("grant_type") != "client_credentials":
            return _json(400, {"error": "unsupported_grant_type"})
        node = len(self.token_answers) % 2
        good = secret == ADMIN_SECRET if client_id == ADMIN else self.accepts(client_id, secret, node)
        if not good:
            wrong = self.wrong(client_id, secret)
            self.token_answers.append(wrong.status)
            return wrong
        text = secrets.token_urlsafe(24)
        scopes = self.scopes if client_id == ADMIN else tuple(form.get("scope", "").split())
        self.tokens[text] = Token(client_id, scopes)
        self.token_answers.append(200)
        granted = {"access_token": text, "token_type": "Bearer", "expires_in": self.lifetime}
        return _json(200, granted | ({"scope": " ".join(scopes)} if scopes else {}))


def _json(status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
    if body is None:
        return Answer(status, headers or {})
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(body).encode())


def iso(seconds: float) -> str:
    """As these vendors write an instant."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))


# --- what tests of adapters share


def soon(clock: Clock = SYSTEM_CLOCK) -> Deadline:
    return Deadline(10.0, clock)


def shows_nothing(*things: object, more: Sequence[str] = ()) -> None:
    """Nothing secret is in what these show of themselves."""
    shown = " ".join(f"{one} {one!r}" for one in things)
    assert [one for one in (*CANARIES, *more) if one in shown] == []


def failed(
    kind: type[SecretSourceError], work: Callable[[], object], *, says: str = "", hint: str = ""
) -> SecretSourceError:
    """The error that this ends in, looked through for anything secret."""
    with pytest.raises(kind) as caught:
        work()
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame.locals for frame in trace.stack if "/tests/" not in frame.filename]
    shows_nothing(error, error.args, vars(error), frames)
    assert says in error.message
    assert hint in (error.hint or "")
    return error


def holding(current: str | None = OLD, pending: str | None = None, previous: str | None = None) -> Client:
    """The client, with what its store holds."""
    now, next, last = (None if one is None else Secret(one) for one in (current, pending, previous))
    return Client(CLIENT, {}, "production", "file:/pos.json", now, next, last)


def kept_login(folder: Path) -> str:
    """A reference to the rotator's credentials in a file."""
    path = folder / "rotator.json"
    path.write_text(json.dumps({"client_id": ADMIN, "client_secret": ADMIN_SECRET}))
    path.chmod(0o600)
    return f"file://{path}"
