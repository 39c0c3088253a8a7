"""Clients for Secrets Manager: a session of our own, requests by our own transport, and nothing of it in any log.

botocore finds credentials, signs, and reads the answers. What it would send itself goes by our transport instead: one
deadline, no proxy and no session keys by the environment, a size limit, no connection that a fork could share.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from ...clock import Deadline
from ...errors import BackendUnavailable, ConfigurationError, DeadlineExceeded, SecretSourceError
from ...exchange import Answer, Outgoing
from ...secret import Secret
from ...transport import Transport
from .faults import Fault, fault_of
from .place import Place

__all__ = ["Clients", "Settings"]

T = TypeVar("T")

_ROLE_SESSION = "secretsource"
_calling = threading.local()


def _not_of_ours(record: logging.LogRecord) -> bool:
    """At DEBUG botocore logs whole requests and answers, and so secrets and session tokens."""
    return getattr(_calling, "deadline", None) is None


def _keep_quiet() -> None:
    # On each logger: a filter does not hold for those below it. Again at each call: modules come later, with theirs.
    for name in ["botocore", "boto3", "urllib3", *logging.root.manager.loggerDict]:
        if name.partition(".")[0] in ("botocore", "boto3", "urllib3"):
            logging.getLogger(name).addFilter(_not_of_ours)


class Settings(NamedTuple):
    """How AWS is reached. `attempt` bounds one request, in seconds."""

    session: Any
    profile: str | None
    role_arn: str | None
    external_id: str | None
    endpoint_url: str | None
    proxy: Secret | None
    connect_timeout: float
    read_timeout: float

    @property
    def attempt(self) -> float:
        return self.connect_timeout + self.read_timeout


class Clients:
    """One client a region, and the session they come from, made at the first call. For one process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[str | None, Any] = {}

    def attempt(self, region: str | None, action: Callable[[Any], T], place: Place, deadline: Deadline) -> T | Fault:
        """What one call gave, or why it gave nothing."""
        client = None
        _calling.deadline = part = Deadline(min(self._settings.attempt, deadline.left()))
        try:
            _keep_quiet()
            client = self._client(region, part)
            return action(client)
        except Exception as error:
            fault = fault_of(error, place, region if client is None else client.meta.region_name)
        finally:
            _calling.deadline = None
        if fault.kind is ConfigurationError and fault.status is None:
            self.forget()  # a client keeps that it found no credentials, and they may come
        if fault.kind is DeadlineExceeded and not deadline.over():
            return Fault(BackendUnavailable, fault.what, fault.hint)
        return fault

    def forget(self) -> None:
        """Find the credentials anew at the next call."""
        self._session, self._clients = None, {}

    def _client(self, region: str | None, deadline: Deadline) -> Any:
        client = self._clients.get(region)
        if client is None:
            # Not only the importing takes time: credentials may be fetched for the first client.
            if not self._lock.acquire(timeout=deadline.left()):
                raise DeadlineExceeded("another thread is still fetching the AWS credentials")
            try:
                clients, session = self._clients, self._session
                client = clients.get(region)
                if client is None:
                    if session is None:
                        self._session = session = _session(self._settings)
                    client = session.create_client(
                        "secretsmanager", region_name=region, endpoint_url=self._settings.endpoint_url
                    )
                    clients[region] = client
            finally:
                self._lock.release()
        return client


def _session(settings: Settings) -> Any:
    """A session of botocore of our own, with the credentials that are to be used."""
    from botocore.config import Config
    from botocore.session import Session

    _keep_quiet()

    class Wired(Session):  # type: ignore[misc] # botocore has no types
        """Also the clients that find credentials (STS, SSO) send by our transport."""

        def create_client(self, *args: Any, **options: Any) -> Any:
            client = super().create_client(*args, **options)
            client._endpoint.http_session = self.wire
            _keep_quiet()
            return client

    session = Wired(profile=settings.profile)
    session.set_default_client_config(
        Config(
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            # One here: repeats are ours, since they share one deadline and go from region to region.
            retries={"mode": "standard", "total_max_attempts": 1},
            ignore_configured_endpoint_urls=True,
        )
    )
    proxy = settings.proxy
    session.wire = _Wire(
        _Transport(
            ca_file=session.get_config_variable("ca_bundle"),
            proxy=None if proxy is None else proxy.reveal(),
            connect_timeout=settings.connect_timeout,
        )
    )
    region = _region(settings.session, session)
    if region is not None:
        session.set_config_variable("region", region)
    if settings.session is not None or settings.role_arn is not None:
        session.register_component("credential_provider", _Given(_credentials(settings, session)))
    return session


def _region(given: Any, own: Any) -> Any:
    """That of the session that was given, else of our own, which knows AWS_DEFAULT_REGION but not AWS_REGION."""
    if given is not None and hasattr(given, "region_name"):
        return given.region_name
    return (given or own).get_config_variable("region") or os.environ.get("AWS_REGION") or None


def _credentials(settings: Settings, session: Any) -> Any:
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
    from botocore.exceptions import NoCredentialsError

    found = (settings.session or session).get_credentials()
    if settings.role_arn is None or found is None:
        if found is None:
            raise NoCredentialsError
        return found
    options = {"RoleSessionName": _ROLE_SESSION}
    if settings.external_id is not None:
        options["ExternalId"] = settings.external_id
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=session.create_client,
        source_credentials=found,
        role_arn=settings.role_arn,
        extra_args=options,
    )
    return DeferredRefreshableCredentials(refresh_using=fetcher.fetch_credentials, method="assume-role")


class _Given:
    """Stands where botocore looks for credentials."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    def load_credentials(self) -> Any:
        return self._credentials


class _Transport(Transport):
    unavailable = BackendUnavailable
    unusable = BackendUnavailable


class _Wire:
    """Stands where botocore has its HTTP session."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def send(self, request: Any) -> Any:
        # Credentials may be renewed on a thread that is none of our calls.
        deadline = getattr(_calling, "deadline", None) or Deadline(10.0)
        failure = None
        try:
            return _received(request.url, self._transport.send(_outgoing(request), deadline, phase="asking AWS"))
        except SecretSourceError as error:
            failure = error.again()
        raise failure

    def close(self) -> None:
        """There is no connection to close."""


def _outgoing(request: Any) -> Outgoing:
    body = request.body
    headers = {_text(name): _text(value) for name, value in request.headers.items()}
    return Outgoing(request.method, request.url, headers, body.encode() if isinstance(body, str) else body)


def _received(url: str, answer: Answer) -> Any:
    from botocore.awsrequest import AWSResponse

    return AWSResponse(url, answer.status, answer.headers, _Body(answer))


class _Body:
    """An answer's body as botocore reads one."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        yield self._answer.body()


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
