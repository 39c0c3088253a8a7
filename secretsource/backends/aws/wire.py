"""Clients for Secrets Manager: a session of our own, requests by our own transport, and nothing of it in any log.

botocore finds credentials, signs, and reads the answers. What it would send itself goes by our transport instead: one
deadline, no proxy and no session keys by the environment, a size limit, no connection that a fork could share.
Credentials may come from a program or a service that hangs: they are found on a thread of their own.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ...clock import Deadline
from ...errors import BackendUnavailable, ConfigurationError, DeadlineExceeded, MalformedSecret, SecretSourceError
from ...events import Emitter
from ...exchange import Answer, Outgoing
from ...flight import Flight, Flights
from ...secret import Secret
from ...transport import Transport
from .faults import ELSEWHERE, Fault, fault_of
from .place import Place

__all__ = ["Clients", "Settings", "session_of", "within"]

T = TypeVar("T")

_ROLE_SESSION = "secretsource"
_RENEWED_WITHIN = 1.0
_SPARE = 10  # seconds before their end in which credentials do not serve any more
_calling = threading.local()


def _not_of_ours(record: logging.LogRecord) -> bool:
    """At DEBUG botocore logs whole requests and answers, and so secrets and session tokens."""
    return getattr(_calling, "deadline", None) is None


def _keep_quiet() -> None:
    # On each logger: a filter does not hold for those below it. Again at each call: modules come later, with theirs.
    for name in ["botocore", "boto3", "urllib3", *logging.root.manager.loggerDict]:
        if name.partition(".")[0] in ("botocore", "boto3", "urllib3"):
            logging.getLogger(name).addFilter(_not_of_ours)


@contextmanager
def within(deadline: Deadline) -> Iterator[None]:
    """What this thread asks AWS meanwhile has this time, and nothing of it is logged."""
    before = getattr(_calling, "deadline", None)
    _calling.deadline = deadline
    try:
        _keep_quiet()
        yield
    finally:
        _calling.deadline = before


class Settings(NamedTuple):
    """How AWS is reached. `attempt` bounds one request, in seconds."""

    session: Any = None
    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = None
    endpoint_url: str | None = None
    proxy: Secret | None = None
    connect_timeout: float = 2.0
    read_timeout: float = 5.0

    @property
    def attempt(self) -> float:
        return self.connect_timeout + self.read_timeout


class _Made:
    """A session, once there is one, and its clients by region. What is to be made anew is another object."""

    def __init__(self) -> None:
        self.session: Any = None
        self.clients: dict[str | None, Any] = {}

    def ready(self, region: str | None) -> Any:
        """The client, unless it is still to be made or its credentials are to be renewed first."""
        client = self.clients.get(region)
        return None if client is None or self.session.credentials.due else client

    def spare(self, region: str | None) -> Any:
        """The client whose credentials are to be renewed, and still serve if that fails."""
        client = self.clients.get(region)
        return None if client is None or self.session.credentials.ended else client


class Clients:
    """One client a region, and the session they come from, made at the first call. For one process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._flights: Flights[tuple[str | None, Any]] = Flights("AWS client", Emitter())
        self._made = _Made()

    def attempt(self, region: str | None, action: Callable[[Any], T], place: Place, deadline: Deadline) -> T | Fault:
        """What one call gave, or why it gave nothing."""
        used = region
        part = Deadline(min(self._settings.attempt, deadline.left()))
        with within(part):
            try:
                client = self.client(region, part, deadline)
                if not isinstance(client, Fault):
                    used = client.meta.region_name
                    return action(client)
                fault = client
            except Exception as error:
                fault = fault_of(error, place, used)
        if fault.kind is ConfigurationError and fault.status is None:
            self.forget()  # a client keeps that it found no credentials, and they may come
        if fault.kind is DeadlineExceeded and not deadline.over():
            return Fault(BackendUnavailable, fault.what, fault.hint)
        return fault

    def forget(self) -> None:
        """Find the credentials anew at the next call."""
        self._made = _Made()

    def client(self, region: str | None, deadline: Deadline, whole: Deadline) -> Any:
        """The client for a region, with credentials that are good now; a Fault where there are none.

        The caller waits until its `deadline`. The search goes on until the `whole` time is over, so that the next
        attempt finds it under way and does not begin another one.
        """
        while True:
            client = self._made.ready(region)
            if client is not None:
                return client
            spare = self._made.spare(region)  # botocore renews a quarter of an hour ahead
            waiting = deadline if spare is None else Deadline(min(_RENEWED_WITHIN, deadline.left() / 2))
            # One at a time for all regions: a session of botocore is not for several threads.
            lasting = Deadline(max(self._settings.attempt, whole.left()))
            try:
                made_for, client = self._flights.run("client", partial(self._make, region), waiting, lasting=lasting)
            except DeadlineExceeded:
                if spare is None:
                    raise
                made_for, client = region, spare
            if made_for == region:
                return spare if spare is not None and isinstance(client, Fault) else client

    def _make(self, region: str | None, flight: Flight[tuple[str | None, Any]]) -> tuple[str | None, Any]:
        flight.phase = "finding the AWS credentials"
        made = self._made
        with within(flight.deadline):
            try:
                if made.session is None:
                    made.session = session_of(self._settings)
                client = made.clients.get(region)
                if client is None:
                    client = made.session.create_client(
                        "secretsmanager", region_name=region, endpoint_url=self._settings.endpoint_url
                    )
                made.session.renew()
                made.clients[region] = client
                return region, client
            except Exception as error:
                return region, fault_of(error, None, region)


class _Credentials:
    """The credentials of a session as they were when they were renewed last: who signs with them does not wait."""

    def __init__(self, found: Any) -> None:
        self._found = found
        self._frozen: Any = None

    @property
    def due(self) -> bool:
        ends = getattr(self._found, "refresh_needed", None)
        return self._frozen is None or (ends is not None and ends())

    @property
    def ended(self) -> bool:
        ends = getattr(self._found, "refresh_needed", None)
        return self._frozen is None or (ends is not None and ends(_SPARE))

    def renew(self) -> None:
        self._frozen = self._found.get_frozen_credentials()

    def get_frozen_credentials(self) -> Any:
        return self._frozen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found, name)


def session_of(settings: Settings) -> Any:
    """A session of botocore of our own. What it does is to be done `within` a deadline.

    After its `renew()`, which may take time, its `credentials` are there and good.
    """
    from botocore.config import Config
    from botocore.exceptions import NoCredentialsError
    from botocore.session import Session

    class Wired(Session):  # type: ignore[misc] # botocore has no types
        """Also the clients that find credentials (STS, SSO) send by our transport."""

        credentials: _Credentials | None = None
        wire: Any = None

        def create_client(self, *args: Any, **options: Any) -> Any:
            client = super().create_client(*args, **options)
            client._endpoint.http_session = self.wire
            _keep_quiet()
            return client

        def get_credentials(self) -> Any:
            if self.credentials is None:
                if settings.session is None:
                    _ask_directly(self.get_component("credential_provider"))
                    found = super().get_credentials()
                else:
                    found = settings.session.get_credentials()
                if found is not None:
                    self.credentials = _Credentials(_of_role(settings, found, self))
            return self.credentials

        def renew(self) -> None:
            credentials = self.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            credentials.renew()

    nowhere = (None, None, None, None)
    variables = {"data_path": nowhere}  # AWS_DATA_PATH: what lies there may name other endpoints
    if settings.session is not None:
        variables["profile"] = nowhere  # the one that was given has its own, whatever the environment names
    session = Wired(session_vars=variables, profile=settings.profile)
    session.set_default_client_config(
        Config(
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            # One here: repeats are ours, since they share one deadline and go from region to region.
            retries={"mode": "standard", "total_max_attempts": 1},
            ignore_configured_endpoint_urls=True,
            defaults_mode="legacy",  # "auto" asks the metadata service for the region, by the environment's proxy
        )
    )
    proxy = settings.proxy
    session.wire = _Wire(
        _Transport(
            ca_file=session.get_config_variable("ca_bundle"),
            proxy=None if proxy is None else proxy.reveal(),
            connect_timeout=settings.connect_timeout,
        ),
        settings.attempt,
    )
    region = _region(settings.session, session)
    if region is not None:
        session.set_config_variable("region", region)
    return session


def _region(given: Any, own: Any) -> Any:
    """That of the session that was given, else of our own, which knows AWS_DEFAULT_REGION but not AWS_REGION."""
    if given is not None and hasattr(given, "region_name"):
        return given.region_name
    return (given or own).get_config_variable("region") or os.environ.get("AWS_REGION") or None


def _of_role(settings: Settings, found: Any, session: Any) -> Any:
    """The credentials of the role that is to be assumed with those that were found; without one, these."""
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    if settings.role_arn is None:
        return found
    options = {"RoleSessionName": _ROLE_SESSION}
    if settings.external_id is not None:
        options["ExternalId"] = settings.external_id
    # For a session without a region that of its first client, as botocore does it for the roles of profiles.
    region = getattr(session, "_last_client_region_used", None)
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=partial(session.create_client, region_name=region),
        source_credentials=found,
        role_arn=settings.role_arn,
        extra_args=options,
    )
    return DeferredRefreshableCredentials(refresh_using=fetcher.fetch_credentials, method="assume-role")


def _ask_directly(chain: Any) -> None:
    """Take the environment's proxy from between us and the metadata service, whose answers are a role's keys.

    botocore has no setting for it. A container's credentials it asks for without a proxy.
    """
    from botocore.httpsession import URLLib3Session

    for source in getattr(chain, "providers", ()):
        fetcher: Any = getattr(source, "_role_fetcher", None)
        if hasattr(fetcher, "_session"):
            fetcher._session = URLLib3Session(timeout=getattr(fetcher, "_timeout", 1))


class _Transport(Transport):
    unavailable = BackendUnavailable
    unusable = BackendUnavailable


class _Wire:
    """Stands where botocore has its HTTP session."""

    def __init__(self, transport: Transport, attempt: float) -> None:
        self._transport, self._attempt = transport, attempt

    def send(self, request: Any) -> Any:
        calling = getattr(_calling, "deadline", None)
        deadline = Deadline(self._attempt if calling is None else min(self._attempt, calling.left()))
        failure = None
        try:
            answer = self._transport.send(_outgoing(request), deadline, phase="asking AWS")
            _check(request, answer)
            return _received(request.url, answer)
        except SecretSourceError as error:
            failure = error.again()
        raise failure

    def close(self) -> None:
        """There is no connection to close."""


def _outgoing(request: Any) -> Outgoing:
    body = request.body
    headers = {_text(name): _text(value) for name, value in request.headers.items()}
    return Outgoing(request.method, request.url, headers, body.encode() if isinstance(body, str) else body)


def _check(request: Any, answer: Answer) -> None:
    """botocore takes the last of two equal names and makes of a web page an empty answer."""
    if answer.status == 200 and "X-Amz-Target" in request.headers:  # Secrets Manager, which answers JSON
        _, fault = answer.members()
        if fault is not None:
            raise MalformedSecret(f"the answer {fault}", hint=ELSEWHERE)


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
