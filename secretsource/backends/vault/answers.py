"""What Vault answers, read once: status, content with every text a Secret, and which known phrases it says.

Vault tells little by status alone, so its texts decide the wording of an error, and never what is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from ...errors import (
    AccessDenied,
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    MalformedSecret,
    SecretNotFound,
    SecretSourceError,
)
from ...exchange import Answer, Outgoing, request_id_in
from ...secret import Secret
from ..formats import Origin, wrapped

__all__ = ["NOT_IT", "Action", "Reply", "error_of", "failure", "is_transient", "read_answer", "seconds_in", "text_of"]

Action = Callable[[Any], Outgoing]
"""Makes one request with the hvac client that it is given, which does not send it, and returns what that returns."""

E = TypeVar("E", bound=BackendError)

# What Vault answers so has its list of errors.
_SAID_BY_ERRORS = frozenset({400, 401, 403, 404, 407})
_TRANSIENT = frozenset({412, 429, 472, 473, 500, 502, 503, 504})
_LONGEST_RETRY_AFTER = 300.0
_LONGEST_LIFE = 1e10
_PHRASES = (
    "1 error occurred",
    "check-and-set parameter did not match",
    "invalid path for a versioned",
    "invalid token",
    "is not initialized",
    "namespace not found",
    "no handler for route",
    "permission denied",
    "sealed",
    "wrapping token is not valid or does not exist",
)
_UNAVAILABLE = {
    412: (
        "has not caught up with what was written elsewhere yet",
        "It is asked again; if it stays so, ask its operator",
    ),
    429: ("refuses more requests for now (its rate limit)", "Raise the quota, or let fewer programs read at once"),
    472: (
        "is a disaster recovery secondary, which serves nobody",
        "Give address= the primary, or a name that leads to it",
    ),
    473: (
        "is a performance standby that cannot answer this",
        "Give address= the active node, or a name that leads to it",
    ),
    500: ("has an internal error", "Its own log says why"),
    502: ("is not reached by what stands before it", "Is it up? A proxy or load balancer answers for it"),
    503: ("is not available", "Is it starting, or being maintained?"),
    504: ("is not reached in time by what stands before it", "Is it up? A proxy or load balancer answers for it"),
}
NOT_IT = "Is it Vault that answers there?"
_CORRECT = {400: "Correct the reference", 405: "Correct the reference", 501: "Its operator runs the init command"}


class Reply(NamedTuple):
    """An answer: its members (texts are Secrets; empty where it is no JSON object), and what its texts say.

    `foreign`: a web page, or an error without the list of texts that each of Vault's has.
    """

    status: int
    members: Mapping[str, Any]
    fault: str | None
    foreign: bool
    says: frozenset[str]
    retry_after: float | None
    request_id: str | None

    def __repr__(self) -> str:
        # A traceback with locals shows it, and its members' names may be anything.
        return f"<Reply {self.status}>"

    @property
    def good(self) -> bool:
        return self.status == 200 and self.fault is None

    @property
    def refuses(self) -> bool:
        """Whether Vault itself refuses it."""
        return self.status == 403 and not self.foreign

    def mapping(self, *path: str) -> Mapping[str, Any] | None:
        """The mapping at this path, None where there is none."""
        found: Any = self.members
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else None


def read_answer(answer: Answer) -> Reply:
    """Everything in clear text ends here."""
    members, fault = answer.members()
    request_id = request_id_in(members.get("request_id"))
    texts = [text.lower() for name in ("errors", "warnings") for text in _texts(members.get(name))]
    return Reply(
        answer.status,
        wrapped(members),
        fault,
        "html" in answer.headers.get("content-type", "")
        or (answer.status in _SAID_BY_ERRORS and not {"errors", "data"} & members.keys()),
        frozenset(phrase for phrase in _PHRASES if any(phrase in text for text in texts)),
        _seconds(answer.headers.get("retry-after", "")),
        None if request_id is None or answer.echoed(request_id) else request_id,
    )


def is_transient(reply: Reply) -> bool:
    """Whether asking again in a moment may help. A sealed Vault stays so until somebody comes."""
    return reply.status in _TRANSIENT and "sealed" not in reply.says


def failure(reply: Reply, origin: Origin, address: str, hint: str | None = None) -> SecretSourceError:
    """The error for an answer that is none; `hint` says more where the status alone does not."""
    status = reply.status
    if reply.foreign:
        hint = f"What came back is not like Vault: is it Vault that answers at {address}, or a proxy in the way?"
        if status in _SAID_BY_ERRORS:  # which tells nothing about the secret, and takes nothing away
            what = f"cannot be read: something before Vault answers ({status})"
            return error_of(BackendUnavailable, reply, origin, what, hint)
    if status == 403:
        return error_of(AccessDenied, reply, origin, "is refused (403)", hint or "Which policy has the token?")
    if status == 404:
        return error_of(SecretNotFound, reply, origin, "was not found (404)", hint or "Correct the reference")
    if status in _UNAVAILABLE or (status >= 500 and status not in (501, 505)):
        what, usual = _UNAVAILABLE.get(status, ("is out of order", "Its own log says why"))
        if "sealed" in reply.says:
            what, usual = "is sealed", "Its operator unseals it; until then it gives nothing"
        if "is not initialized" in reply.says:
            what, usual = "is not initialized", "Its operator runs the init command"
        error = error_of(
            BackendUnavailable, reply, origin, f"cannot be read: Vault at {address} {what} ({status})", hint or usual
        )
        error.retry_after = reply.retry_after
        return error
    if 200 <= status < 300:
        fault = reply.fault or f"has the status {status} and no content"
        return error_of(
            MalformedSecret, reply, origin, f"cannot be read: the answer of {address} {fault}", hint or NOT_IT
        )
    what = (
        f"sends elsewhere ({status}), which is not followed: the token would go there"
        if 300 <= status < 400
        else "is not initialized (501)"
        if status == 501
        else f"does not understand what is asked ({status})"
    )
    return ConfigurationError(
        f"{origin} cannot be read: Vault at {address} {what}",
        hint=hint or _CORRECT.get(status) or ("Write the address of the active node" if status < 400 else NOT_IT),
    )


def error_of(kind: type[E], reply: Reply, origin: Origin, what: str, hint: str) -> E:
    """An error with the facts of this reply."""
    error = origin.error(kind, what, hint)
    error.status, error.request_id = reply.status, reply.request_id
    return error


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _seconds(text: str) -> float | None:
    with suppress(ValueError):
        seconds = float(text)
        if seconds >= 0:
            return min(seconds, _LONGEST_RETRY_AFTER)
    return None


def seconds_in(value: object) -> float | None:
    """A number of seconds above 0 and below what a clock can count, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < _LONGEST_LIFE:
        return None
    return float(value)


def text_of(value: object) -> Secret | None:
    """A text that is not empty, else None."""
    return value if isinstance(value, Secret) and value != Secret("") else None
