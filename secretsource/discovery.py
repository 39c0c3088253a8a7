"""Discovery: where an issuer's token endpoint is, asked once a day and kept while the issuer is silent."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .answer import retry_after_of
from .clock import WAITS_BETWEEN_ATTEMPTS, Clock, Deadline, pause
from .credentials import Binding
from .endpoint import AUTH_METHODS, IssuerProfile, check_auth_method, check_binding
from .errors import ConfigurationError, InvalidTokenResponse, IssuerUnavailable, SecretSourceError
from .events import DiscoveryFailed, Emitter
from .exchange import Answer, Outgoing
from .flight import Flight, Flights
from .identity import Identity
from .transport import Transport
from .urls import check_url, host_of, http_parts, same_issuer, without_query

__all__ = ["Discovery", "Metadata", "Target", "read_metadata", "well_known_urls"]

_KEPT_FOR = 86400.0
_KEPT_ON_FOR = 60.0
_LONGEST_URL = 1000


@dataclass(frozen=True, slots=True)
class Target:
    """Where tokens come from, as it was configured. `environment` is "" where there is none.

    `require_binding`: only for documents that say for which issuer and environment they are.
    """

    issuer: str | None
    token_url: str | None
    auth_method: str | None
    profile: IssuerProfile
    default_lifetime: float
    plain_http: tuple[str, ...] = ()
    environment: str = ""
    require_binding: bool = False

    @classmethod
    def of(
        cls,
        *,
        issuer: str | None,
        token_url: str | None,
        auth_method: str | None = None,
        profile: IssuerProfile | None = None,
        default_lifetime: float = 300.0,
        plain_http: Iterable[str] = (),
        environment: str = "",
        require_binding: bool = False,
    ) -> Target:
        """A target that a secret may be sent to. ConfigurationError."""
        if not isinstance(plain_http, Iterable):
            raise ConfigurationError("plain_http= is one host or several", hint="Such as plain_http=('orchard:8080',)")
        if profile is not None and not isinstance(profile, IssuerProfile):
            raise ConfigurationError(f"profile= is an IssuerProfile, not {type(profile).__name__}")
        hosts = (plain_http,) if isinstance(plain_http, str) else tuple(plain_http)
        if issuer is None and token_url is None:
            raise ConfigurationError(
                "neither issuer= nor token_url= is given",
                hint="Give issuer='https://…' for discovery, or token_url='https://…/connect/token'",
            )
        if issuer is not None:
            check_url(issuer, "issuer", hosts)
        if token_url is not None:
            check_url(token_url, "token_url", hosts)
        check_auth_method(auth_method)
        profile = profile or IssuerProfile()
        return cls(issuer, token_url, auth_method, profile, default_lifetime, hosts, environment, require_binding)

    @property
    def name(self) -> str:
        return self.issuer or without_query(self.token_url or "")

    def check_binding(self, binding: Binding, reference: str, token_url: str | None = None) -> None:
        """Raise ConfigurationError if a document is bound to something else. `token_url`: the one discovered."""
        check_binding(
            binding,
            reference,
            issuer=self.issuer,
            token_url=token_url or self.token_url,
            environment=self.environment,
            required=self.require_binding,
        )

    def identity(self, credentials: str, client_id: str | None) -> Identity:
        """The identity of the plainest request to this target with these credentials."""
        return Identity(self.environment, self.name, self.auth_method or "", credentials, client_id or "")


class Discovery:
    """The token endpoint of a target: the configured one, or that in the issuer's metadata."""

    def __init__(self, target: Target, transport: Transport, emitter: Emitter, clock: Clock) -> None:
        self._target = target
        self._transport = transport
        self._clock = clock
        self._flights: Flights[Metadata] = Flights("metadata", emitter)
        self._known: tuple[Metadata, float] | None = None

    @property
    def orphans(self) -> int:
        return self._flights.orphans

    def forget(self) -> None:
        """Ask again at the next request."""
        if self._known is not None:
            self._known = self._known[0], 0.0

    def metadata(self, deadline: Deadline, *, patient: bool) -> Metadata:
        """Raises TokenError, DeadlineExceeded (neither while older metadata is known), ConfigurationError."""
        target, known = self._target, self._known
        if target.token_url is not None:
            return Metadata(target.token_url, target.auth_method or "client_secret_basic")
        if known is not None and self._clock.monotonic() < known[1]:
            return known[0]
        if known is not None:  # half of the time is left for the token request, which needs no new metadata
            deadline, patient = Deadline(deadline.left() / 2, self._clock), False
        failure: SecretSourceError
        try:
            return self._flights.run("metadata", lambda flight: self._renewed(flight, patient), deadline)
        except SecretSourceError as error:
            failure = error.again()
        if known is None or isinstance(failure, ConfigurationError):
            raise failure
        self._known = known[0], self._clock.monotonic() + _KEPT_ON_FOR
        return known[0]

    def _renewed(self, flight: Flight[Metadata], patient: bool) -> Metadata:
        issuer = self._target.issuer or ""
        flight.phase = f"discovery at {issuer}"
        known, failure = self._known, None
        try:
            metadata = self._discover(issuer, flight.deadline, patient)
            self._known = metadata, self._clock.monotonic() + _KEPT_FOR * random.uniform(0.9, 1.1)
            return metadata
        except SecretSourceError as error:
            failure = error.again()
        if known is not None and not isinstance(failure, ConfigurationError):
            flight.events.append(DiscoveryFailed(issuer, type(failure).__name__, str(failure)))
        raise failure

    def _discover(self, issuer: str, deadline: Deadline, patient: bool) -> Metadata:
        target = self._target
        failure: SecretSourceError | None = None
        statuses, waits = [], [0.0]
        for url in well_known_urls(issuer):
            answer = self._asked(url, deadline, patient)
            statuses.append(answer.status)
            if answer.status != 200:
                waits.append(retry_after_of(answer, self._clock.now().wall) or 0.0)
                continue
            try:
                return read_metadata(
                    answer, issuer, target.profile, plain_http=target.plain_http, auth_method=target.auth_method
                )
            except InvalidTokenResponse as error:  # a site may answer any address with its start page
                failure = failure or error.again()
        again = max(statuses) >= 500 or 429 in statuses
        raise failure or IssuerUnavailable(
            f"{issuer} publishes no metadata: its two well-known addresses answer {' and '.join(map(str, statuses))}",
            status=max(statuses),
            issuer=issuer,
            retryable=again,
            retry_after=max(waits) or None,
            hint="Is it up? With token_url= this step is spared" if again else "Correct issuer=, or give token_url=",
        )

    def _asked(self, url: str, deadline: Deadline, patient: bool) -> Answer:
        waits = list(WAITS_BETWEEN_ATTEMPTS) if patient else []
        while True:
            outcome: Answer | IssuerUnavailable
            try:
                outcome = self._transport.send(Outgoing("GET", url, {}), deadline, phase="discovery")
            except IssuerUnavailable as error:
                outcome = error.again()
            again = outcome.status >= 500 or outcome.status == 429 if isinstance(outcome, Answer) else outcome.retryable
            asked_to_wait = retry_after_of(outcome, self._clock.now().wall) if isinstance(outcome, Answer) else None
            if not (again and waits and pause(waits.pop(0), asked_to_wait, deadline, self._clock.sleep)):
                if isinstance(outcome, Answer):
                    return outcome
                raise outcome


class Metadata(NamedTuple):
    """What an issuer publishes, as far as it concerns us."""

    token_url: str
    auth_method: str


def well_known_urls(issuer: str) -> tuple[str, str]:
    """Where its metadata may be: OpenID Connect Discovery section 4 appends, RFC 8414 section 3.1 inserts."""
    base = issuer.removesuffix("/")
    scheme, _, rest = base.partition("://")
    host, slash, path = rest.partition("/")
    return (
        f"{base}/.well-known/openid-configuration",
        f"{scheme}://{host}/.well-known/oauth-authorization-server{slash}{path}",
    )


def read_metadata(
    answer: Answer,
    issuer: str,
    profile: IssuerProfile,
    *,
    plain_http: Iterable[str] = (),
    auth_method: str | None = None,
) -> Metadata:
    """The token endpoint and the way to authenticate there. Raises InvalidTokenResponse or ConfigurationError."""
    members, fault = answer.members()
    if fault is not None:
        raise InvalidTokenResponse(
            f"the metadata of {issuer} {fault}",
            issuer=issuer,
            status=answer.status,
            hint="Correct issuer=, or give token_url=",
        )
    _check_issuer(members.get("issuer"), issuer)
    url = members.get("token_endpoint")
    if not isinstance(url, str) or http_parts(url) is None or len(url) > _LONGEST_URL:
        raise InvalidTokenResponse(
            f"the metadata of {issuer} names no token endpoint",
            issuer=issuer,
            hint="Give token_url= beside issuer=, if you know it",
        )
    _check_endpoint(url, issuer, profile, plain_http)
    return Metadata(url, auth_method or _method_offered(members, issuer))


def _check_issuer(found: object, issuer: str) -> None:
    if isinstance(found, str) and same_issuer(found, issuer):
        return
    shown = found if isinstance(found, str) and http_parts(found) is not None and len(found) <= _LONGEST_URL else None
    slash = shown is not None and shown.removesuffix("/") == issuer.removesuffix("/")
    raise ConfigurationError(
        f"the metadata at {issuer} is that of another issuer: {shown or 'none is named'}",
        hint=f"Write issuer={shown!r}: the final slash counts"
        if slash
        else "RFC 8414 section 3.3: the two must be equal",
    )


def _check_endpoint(url: str, issuer: str, profile: IssuerProfile, plain_http: Iterable[str]) -> None:
    if urlsplit(issuer).scheme == "https" and urlsplit(url).scheme == "http":
        raise ConfigurationError(
            f"the metadata of {issuer} names a token endpoint of plain http: {url}",
            hint="The server does not know that it is behind TLS: have its proxy pass X-Forwarded-Proto on",
        )
    host = host_of(url)
    if host != host_of(issuer) and host not in map(str.lower, profile.endpoint_hosts):
        raise ConfigurationError(
            f"the metadata of {issuer} names a token endpoint on another host: {url}",
            hint=f"If that is right: profile=IssuerProfile(endpoint_hosts=({host!r},))",
        )
    check_url(url, "the token endpoint in the metadata", plain_http)


def _method_offered(members: Mapping[str, Any], issuer: str) -> str:
    offered = members.get("token_endpoint_auth_methods_supported")
    if offered is None:  # RFC 8414 section 2: client_secret_basic, if omitted
        return "client_secret_basic"
    for method in AUTH_METHODS:
        if isinstance(offered, list) and method in offered:
            return method
    raise ConfigurationError(
        f"the issuer {issuer} offers neither of {', '.join(AUTH_METHODS)} for its token endpoint",
        hint="Give auth_method=, if you know that it takes one of them all the same",
    )
