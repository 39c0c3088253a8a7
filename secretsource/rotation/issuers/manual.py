"""An issuer that a person changes: says what goes where, and the token endpoint tells when it is done."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from ...backends.access import shown
from ...clock import Deadline, checked_seconds
from ...errors import ConfigurationError, forgetting
from ...reference import SecretReference
from ...secret import Secret
from ..outcome import Adapter, Capabilities, Client, Outcome, Preflight, Unknown
from .places import check_platform, exchangeable

__all__ = ["Manual"]

_LONGEST = 4000  # characters


class Manual(Adapter):
    """Tells a person to give the issuer the secret. It goes on by itself once a token is obtained with that.

    `instructions` are added to what is said. The secret is not shown: whoever does it reads it in the store. With
    `reveal_to` it is also written to a new file, mode 0600, in a folder that is ours alone, until the run is over; with
    `show=True` to the terminal that standard error is. `landing`: seconds for which somebody may still do it after
    it was said. `slots` and `propagation` are the issuer's (see `Capabilities`). `say` is called with each message,
    which holds no secret; by default it goes to standard error. ConfigurationError.
    """

    @forgetting
    def __init__(
        self,
        *,
        instructions: str | None = None,
        reveal_to: str | os.PathLike[str] | None = None,
        show: bool = False,
        slots: int | None = None,
        propagation: float = 5.0,
        landing: float = 900.0,
        say: Callable[[str], object] | None = None,
    ) -> None:
        if instructions is not None and not (
            isinstance(instructions, str)
            and len(instructions) <= _LONGEST
            and instructions.replace("\n", "").isprintable()
        ):
            raise ConfigurationError(f"instructions= is no printable text of up to {_LONGEST} characters")
        if slots is not None and (isinstance(slots, bool) or not isinstance(slots, int) or slots < 1):
            raise ConfigurationError("slots= is a whole number above 0")
        self._instructions = instructions
        self._path = None if reveal_to is None else os.path.abspath(os.fspath(reveal_to))
        self._show = show
        self._say = say or _to_standard_error
        self._told: tuple[str, Secret] | None = None
        self._made: tuple[int, int] | None = None
        self._capabilities = Capabilities(
            chosen=True,
            slots=slots,
            propagation=checked_seconds("propagation", propagation, zero=True),
            landing=checked_seconds("landing", landing, zero=True),
            asks=True,
        )

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        """Whether the secret can be shown where that is asked for. ConfigurationError."""
        if self._path is not None:
            check_platform("reveal_to=")
            fault = _fault_of_place(self._path)
            if fault is None and os.path.lexists(self._path) and self._made is None:
                fault = "it is there already, perhaps from a run that was killed: remove it"
            if fault is not None:
                raise ConfigurationError(
                    f"the secret cannot be written to {shown(self._path)}: {fault}",
                    hint="Name a new file in a folder that is yours alone (chmod 700)",
                )
        if self._show and _terminal() is None:
            raise ConfigurationError(
                "the secret is to be shown, and standard error is no terminal",
                hint="Run it at a terminal, or leave show out and read the secret in the store",
            )
        return Preflight(("a person has to change the secret at the issuer",))

    def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Outcome:
        """Say what to do. It returns at once: a person is slower than any deadline."""
        if self._told == (client.client_id, secret):
            self._say(f"Still to be done: {_where(client)} does not accept the secret yet")
            return Unknown("a person does it")
        self.close()
        self._say(self._message(client, secret))
        self._told = client.client_id, secret
        terminal = _terminal() if self._show else None
        if terminal is not None:
            _reveal(terminal, secret)
        return Unknown("a person does it")

    def close(self) -> None:
        """Remove the file with the secret, if it is still the one that was made here."""
        made, self._made, self._told = self._made, None, None
        if made is None or self._path is None:
            return
        with suppress(OSError):
            status = os.lstat(self._path)
            if (status.st_dev, status.st_ino) == made:
                os.unlink(self._path)

    def _message(self, client: Client, secret: Secret) -> str:
        back = client.pending is not None and secret == client.current and secret != client.pending
        what = "Put the current secret back" if back else "Change the secret"
        lines = [f"{what}: {_where(client)} must have the {'current' if back else 'pending'} one", _kept(client, back)]
        if self._path is not None:
            made = _written(self._path, secret)
            if isinstance(made, str):
                lines.append(f"It was not written to {shown(self._path)}: {made}")
            else:
                self._made = made
                lines.append(f"It is also in the file {shown(self._path)}, which is removed when this run is over")
        if self._instructions is not None:
            lines.append(self._instructions)
        lines.append("The rotation goes on by itself once a token is obtained with it")
        return "\n".join(lines)


def _where(client: Client) -> str:
    issuer = f" at {client.issuer}" if client.issuer else ""
    environment = f" (environment {client.environment})" if client.environment else ""
    return f"the client {client.client_id!r}{issuer}{environment}"


def _kept(client: Client, back: bool) -> str:
    if not client.reference:
        return "Read it where it is kept"
    fields = SecretReference.parse(client.reference).fields
    name = "client_secret" if fields is None else fields.secret
    field, label = (name, "AWSCURRENT") if back else (f"{name}_pending", "AWSPENDING")
    return f"Read it at {client.reference}, field {field} (where AWS keeps it as a version of its own, {label})"


def _terminal() -> TextIO | None:
    stream = sys.stderr
    try:
        return stream if stream is not None and stream.isatty() else None
    except (AttributeError, ValueError):  # another kind of stream, or a closed one
        return None


def _to_standard_error(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _fault_of_place(path: str) -> str | None:
    """Why a secret may not be written there."""
    folder = os.path.dirname(path)
    try:
        if os.path.realpath(folder) != folder:
            return f"{shown(folder)} leads through a link"
        status = os.stat(folder)
        if status.st_uid != os.geteuid():
            return f"{shown(folder)} is not ours"
        if status.st_mode & 0o022:
            return f"others can write to {shown(folder)}"
        violation = exchangeable(path)
    except OSError as error:
        return os.strerror(error.errno or 0).lower()
    return None if violation is None else violation.seen


# --- what shows the secret


def _written(path: str, secret: Secret) -> tuple[int, int] | str:
    """Write it to a new file: what identifies that, or why there is none."""
    fault = _fault_of_place(path)
    if fault is not None:
        return fault
    fd = -1
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | os.O_CLOEXEC, 0o600)
        os.fchmod(fd, 0o600)
        status = os.fstat(fd)
        _write(fd, secret)
        return status.st_dev, status.st_ino
    except OSError as error:
        if fd >= 0:
            with suppress(OSError):
                os.unlink(path)
        return os.strerror(error.errno or 0).lower()
    finally:
        if fd >= 0:
            os.close(fd)


def _write(fd: int, secret: Secret) -> None:
    written = 0
    while written < len(_bytes(secret)):
        written += os.write(fd, _bytes(secret)[written:])


def _bytes(secret: Secret) -> bytes:
    return f"{secret.reveal()}\n".encode("utf-8", "surrogatepass")


def _reveal(terminal: TextIO, secret: Secret) -> None:
    if not _is_printable(secret):
        terminal.write("The secret has characters that a terminal does not show: read it in the store\n")
        return
    terminal.write(_line(secret))
    terminal.flush()


def _is_printable(secret: Secret) -> bool:
    return secret.reveal().isprintable()


def _line(secret: Secret) -> str:
    return f"{secret.reveal()}\n"
