"""Fault: one way in which an answer may be wrong, late or cut short."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Fault"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with an answer; what is left out stays as it would be. Times are real seconds.

    What is answered: `status`, `headers` (over the usual ones), `body` (the raw bytes, so also JSON that is cut or no
    JSON at all), `redirect` (a Location, with status 307 unless told otherwise), `answer` (members over those of a good
    JSON answer; None leaves a member out), `padding` (that many blanks after the body: still JSON, but too much of it),
    `same_token` (the token of the last equal request once more). With `status`, `body` or `redirect` no token is made.

    How it is sent: `latency` before the first byte, `hang` until `release()`, `drip_head` and `drip_body` (seconds
    between two bytes), `cut_after` (bytes of the body, then the connection ends), `content_length` (the length that the
    head claims), `reset` (the connection is reset instead of answered). The connection ends after each of these.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)
    answer: Mapping[str, Any] = field(default_factory=dict, repr=False)
    redirect: str | None = None
    padding: int = 0
    same_token: bool = False
    latency: float = 0.0
    hang: bool = False
    drip_head: float = 0.0
    drip_body: float = 0.0
    cut_after: int | None = None
    content_length: int | None = None
    reset: bool = False

    @property
    def replaces_answer(self) -> bool:
        """Whether the request is not looked at, because the answer is given here."""
        return self.status is not None or self.body is not None or self.redirect is not None

    @property
    def disturbs_sending(self) -> bool:
        return bool(
            self.hang
            or self.drip_head
            or self.drip_body
            or self.reset
            or self.cut_after is not None
            or self.content_length is not None
        )
