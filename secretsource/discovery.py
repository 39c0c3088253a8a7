"""Discovery: where an issuer's token endpoint is, asked once a day and kept while the issuer is silent."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .clock import Clock, Deadline
from .endpoint import (
    Answer,
    Identity,
    IssuerProfile,
    Metadata,
    Outgoing,
    check_auth_method,
    check_url,
    read_metadata,
    well_known_urls,
)
from .errors import ConfigurationError, IssuerUnavailable, SecretSourceError
from .transport import Transport

__all__ = ["Discovery", "Target", "pause"]

WAITS_BETWEEN_ATTEMPTS = (0.2, 0.8)
_KEPT_FOR = 86400.0
_KEPT_ON_FOR = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where tokens come from, as it was configured. `environment` is "" where there is none."""

    issuer: str | None
    token_url: str | None
    auth_method: str | None
    profile: IssuerProfile
    default_lifetime: float
    plain_http: tuple[str, ...] = ()
    environment: str = ""

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
    ) -> Target:
        """A target that a secret may be sent to. ConfigurationError."""
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
        return cls(issuer, token_url, auth_method, profile or IssuerProfile(), default_lifetime, hosts)

    @property
    def name(self) -> str:
        return self.issuer or self.token_url or ""

    def identity(self, credentials: str, client_id: str | None) -> Identity:
        """The identity of the plainest request to this target with these credentials."""
        return Identity(self.environment, self.name, self.auth_method or "", credentials, client_id or "")


class Discovery:
    """The token endpoint of a target: the configured one, or that in the issuer's metadata."""

    def __init__(self, target: Target, transport: Transport, clock: Clock) -> None:
        self._target = target
        self._transport = transport
        self._clock = clock
        self._known: tuple[Metadata, float] | None = None

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
            metadata = self._discover(target.issuer or "", deadline, patient)
            self._known = metadata, self._clock.monotonic() + _KEPT_FOR * random.uniform(0.9, 1.1)
            return metadata
        except SecretSourceError as error:
            failure = error.again()
        if known is None or isinstance(failure, ConfigurationError):
            raise failure
        self._known = known[0], self._clock.monotonic() + _KEPT_ON_FOR
        return known[0]

    def _discover(self, issuer: str, deadline: Deadline, patient: bool) -> Metadata:
        target = self._target
        status = 0
        for url in well_known_urls(issuer):
            answer = self._asked(url, deadline, patient)
            status = answer.status
            if status == 200:
                return read_metadata(
                    answer, issuer, target.profile, plain_http=target.plain_http, auth_method=target.auth_method
                )
        raise IssuerUnavailable(
            f"{issuer} publishes no metadata: its two well-known addresses do not answer 200, the second {status}",
            status=status,
            issuer=issuer,
            retryable=status >= 500 or status == 429,
            hint="Correct issuer=, or give token_url=",
        )

    def _asked(self, url: str, deadline: Deadline, patient: bool) -> Answer:
        waits = list(WAITS_BETWEEN_ATTEMPTS) if patient else []
        while True:
            failure: IssuerUnavailable | None = None
            try:
                answer = self._transport.send(Outgoing("GET", url, {}), deadline, phase="discovery")
            except IssuerUnavailable as error:
                failure = error.again()
            if failure is None and answer.status < 500:
                return answer
            again = bool(waits) and (failure is None or failure.retryable)
            if not again or not pause(waits.pop(0), None, deadline, self._clock.sleep):
                if failure is not None:
                    raise failure
                return answer


def pause(seconds: float, retry_after: float | None, deadline: Deadline, sleep: Callable[[float], None]) -> bool:
    """Wait before the next attempt, give or take a fifth; False if the deadline would be over by then."""
    seconds = max(seconds * random.uniform(0.8, 1.2), retry_after or 0.0)
    if seconds >= deadline.left():
        return False
    sleep(seconds)
    return True
