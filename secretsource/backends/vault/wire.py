"""The one way to Vault: hvac says what goes where, and our own transport sends it.

hvac's client is given an adapter of ours that only builds the request. So no redirect is followed, no .netrc and no
environment is read, TLS is verified as everywhere else, answers have a limit, a drip ends at the deadline, status and
headers are kept, and no frame of hvac holds a secret while something is sent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import hvac
from hvac.adapters import Adapter

from ...clock import Deadline
from ...errors import BackendUnavailable, MalformedSecret, SecretSourceError
from ...exchange import Outgoing
from ...secret import Secret
from ...transport import Transport
from .answers import Action, Reply, read_answer

__all__ = ["VaultTransport", "call"]


class VaultTransport(Transport):
    unavailable = BackendUnavailable
    unusable = MalformedSecret


def call(
    action: Action,
    *,
    address: str,
    transport: Transport,
    token: Secret | None,
    namespace: str | None,
    deadline: Deadline,
) -> Reply:
    """The answer to one request, whatever its status. Raises BackendUnavailable, MalformedSecret, DeadlineExceeded."""
    return read_answer(transport.send(_outgoing(action, _Adapter(address, token, namespace)), deadline, phase="Vault"))


def _outgoing(action: Action, adapter: _Adapter) -> Outgoing:
    """What hvac would send. Its frames, which hold that in clear text, end here."""
    # With a token given, if only an empty one, hvac looks for none in the environment or the home directory.
    ours: Any = lambda **_: adapter  # noqa: E731 - hvac calls what it takes for a class
    client = hvac.Client(url=adapter.address, token="", adapter=ours)
    failure: SecretSourceError
    try:
        return action(client)
    except SecretSourceError as error:
        failure = error.again()
    except Exception as error:
        failure = MalformedSecret(f"hvac could not ask Vault at {adapter.address} ({type(error).__name__})")
    raise failure


class _Adapter(Adapter):  # type: ignore[misc] # hvac has no types
    def __init__(self, address: str, token: Secret | None, namespace: str | None) -> None:
        # Not super(): that makes a session of requests, which nothing here uses.
        self.address, self._token, self._namespace = address, token, namespace
        self.token = ""  # what hvac shows; ours is revealed where the header is built

    def get_login_token(self, response: object) -> str:
        raise NotImplementedError("logins are made with use_token=False")

    def request(
        self, method: str, url: str, headers: Any = None, raise_exception: bool = True, **given: Any
    ) -> Outgoing:
        """Build the request and send nothing: hvac hands on what comes back without a look at it."""
        return self._outgoing(method.upper(), url, given.get("params"), given.get("json"))

    def _outgoing(self, method: str, path: str, params: Mapping[str, Any] | None, body: Any) -> Outgoing:
        # X-Vault-Request: an agent or a proxy may demand it against forged requests.
        headers = {"X-Vault-Request": "true"}
        if self._token is not None:
            headers["X-Vault-Token"] = self._token.reveal()
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        query = f"?{urlencode(params)}" if params else ""
        sent = f"{headers.get('X-Vault-Token', '')} {'' if content is None else content.decode()}"
        return Outgoing(method, f"{self.address}{path}{query}", headers, content, echoed=lambda text: text in sent)
