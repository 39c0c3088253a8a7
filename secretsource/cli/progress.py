"""What is told of a rotation: lines for people, JSON lines for machines, and an audit that is only appended to."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..config import Settings
from ..errors import ConfigurationError
from ..events import Event, RotationStep
from .screen import Screen, printable

__all__ = ["Audit", "Teller", "clean"]

_STATES = {"done": "ok", "waiting": "note", "held": "warning", "failed": "failed", "unknown": "warning"}
_SAID_AT_THE_END = ("done", "held", "failed", "drift")
_VERSION = 1


class Audit:
    """Appends one JSON line for each step to a file; one that is made is for this user alone. No secret is in it.

    Raises ConfigurationError where it cannot be opened. A line that cannot be written stops no rotation that is under
    way: `fault` says why, afterwards.
    """

    def __init__(self, path: str) -> None:
        self.fault: str | None = None
        failure = None
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY
            flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
            self._file = os.open(path, flags, 0o600)
            status = os.fstat(self._file)
            self._regular = stat.S_ISREG(status.st_mode)
            if self._regular and (status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid())):
                os.close(self._file)
                failure = "others than you may write it (chmod 600 it, or name another)"
        except (OSError, ValueError) as error:
            failure = os.strerror(getattr(error, "errno", None) or 0) if isinstance(error, OSError) else "it is no path"
        if failure is not None:
            raise ConfigurationError(
                f"the file of --audit cannot be appended to ({len(path)} characters, not repeated here): {failure}",
                hint="Name a file in a folder that is there; nothing was begun",
            )
        self._actor = f"{_user()}@{socket.gethostname()}:{os.getpid()}"

    def step(self, settings: Settings, event: RotationStep) -> None:
        line = {
            "instant": _instant(),
            "environment": settings.environment,
            "client": settings.client or settings.get("client_id", ""),
            "issuer": settings.get("issuer") or settings.get("token_url") or "",
            "reference": event.source,
            "rotation": event.rotation,
            "step": event.step,
            "outcome": event.outcome,
            "reason": event.reason,
            "actor": self._actor,
        }
        written = f"{json.dumps(clean(line))}\n".encode()
        try:
            # In one write, so that the lines of several rotators do not mix.
            if os.write(self._file, written) != len(written):
                self.fault = self.fault or "a line was cut short"
            if self._regular:
                os.fsync(self._file)
        except OSError as error:
            self.fault = self.fault or os.strerror(error.errno or 0)

    def close(self) -> None:
        os.close(self._file)


@dataclass(frozen=True, slots=True)
class Teller:
    """Where it is told: JSON lines on standard output, or lines on the screen. `named`: each line names its client."""

    screen: Screen | None
    audit: Audit | None = None
    named: bool = False

    def object(self, event: str, members: Mapping[str, Any]) -> None:
        """One JSON line."""
        sys.stdout.write(f"{json.dumps({'version': _VERSION, 'event': event, **clean(members)})}\n")
        sys.stdout.flush()

    def line(
        self, settings: Settings, text: str, state: str | None = None, hint: str | None = None, *, indent: int = 0
    ) -> None:
        """One line on the screen, and its hint below it."""
        assert self.screen is not None
        self.screen.line(f"{self.prefix(settings)}{text}", state)
        if hint:
            self.screen.line(f"{self.prefix(settings)}{'':{indent}}→ {hint}", state)

    def prefix(self, settings: Settings) -> str:
        return f"{settings.client}: " if self.named and settings.client else ""

    def observer(self, settings: Settings) -> Any:
        """A hook for the events of this client's rotation."""

        def told(event: Event) -> None:
            if not isinstance(event, RotationStep):
                return
            if self.audit is not None:
                self.audit.step(settings, event)
            if self.screen is None:
                members = {name: getattr(event, name) for name in ("rotation", "step", "outcome", "reason")}
                about = {"instant": _instant(), **about_client(settings), "reference": event.source}
                self.object("step", {**about, **members, "duration": round(event.duration, 3)})
            elif event.step not in _SAID_AT_THE_END:
                now = f"{datetime.now():%H:%M:%S}"
                said = f"{now}  {event.step:9}{event.outcome:9}{event.reason}".rstrip()
                self.line(settings, said, _STATES.get(event.outcome))

        return told


def about_client(settings: Settings) -> dict[str, str]:
    return {"client": settings.client, "environment": settings.environment}


def clean(members: Mapping[str, Any]) -> dict[str, Any]:
    """The same with nothing in its texts that steers a terminal."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in members.items()}


def _instant() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _user() -> str:
    """Who runs this, by the system and not by a variable that anybody can set."""
    if not hasattr(os, "getuid"):
        return os.getlogin()
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
