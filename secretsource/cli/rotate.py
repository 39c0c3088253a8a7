"""secretsource rotate: change the secret itself, at the issuer and in the store, without one failed call.

Exit codes: 0 done, or nothing is due; 10 waiting, a later run goes on; 11 held, by a gate or for a person; 12 failed,
and the old secret works; 13 ambiguous, which secret works is not known; 14 drift, the issuer accepts none of those
that it should; 2 to 5 as elsewhere. With several clients the worst of theirs: 14, 13, 1, 4, 12, 3, 2, 5, 11, 10, 0.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from ..backends import backend_for
from ..backends.layout import rotatable
from ..clock import Deadline
from ..config import DURATIONS, Configuration, Settings, asked_environment, loaded
from ..durations import duration, shown_duration
from ..errors import ConfigurationError, SecretSourceError
from ..reference import SecretReference
from ..rotation.engine import Report, Rotation, Status
from ..rotation.hooks import Answer, Hold, Moment, Proceed, gate_called
from ..rotation.issuers import adapter_called, known_adapters
from ..rotation.outcome import Adapter
from ..rotation.policy import Policy
from ..source import ConfiguredSource
from ..urls import same_issuer
from . import exit_code
from .options import add_credentials, add_issuer, add_request, configuration_of, settings_of
from .progress import Audit, Teller, about_client
from .screen import Screen, printable

__all__ = ["add_to"]

_ACTIONS = {
    "plan": "look whether a rotation can be made, and what it would do; write nothing",
    "run": "change each secret that is due, as far as that can be done now",
    "resume": "go on with what is under way, and begin nothing",
    "status": "show the age of each secret, when it is due, and what is under way",
    "abort": "give the pending secret up, before it is in use",
    "rollback": "go back to the secret that was in use before",
    "drift": "look whether the issuer accepts what the store holds; write nothing",
}
_LOOKS = ("plan", "status", "drift")
_WITHOUT_ADAPTER = ("status", "drift")
_CODES = {"done": 0, "waiting": 10, "held": 11, "failed": 12, "ambiguous": 13, "drift": 14}
_LATER = (10, 11)
# What harms programs now or may do so, then what a person has to mend, then what heals by itself.
_WORST_FIRST = (14, 13, 1, 4, 12, 3, 2, 5, 11, 10, 0)
_UNDER_WAY = ("intended", "claimed", "applying", "aborting")
_LOOKS_AROUND_FOR = 15.0  # seconds, of the thirty that a gate has
_STATES = {"done": "ok", "waiting": "note", "held": "warning"}
_WIDTH_OF_NAMES = 15


def add_to(command: argparse.ArgumentParser) -> None:
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = "\n".join(f"  {name:10}{summary}" for name, summary in _ACTIONS.items())
    command.description = f"{command.description}\n\n{actions}"
    command.epilog = (
        "Exit codes: 0 done or nothing due, 10 waiting, 11 held, 12 failed and the old secret works, 13 ambiguous,\n"
        "14 drift, 2 to 5 as elsewhere; of several clients the worst: 14, 13, 1, 4, 12, 3, 2, 5, 11, 10, 0."
    )
    command.add_argument("action", choices=tuple(_ACTIONS), help="see above")
    add_credentials(command, several=True)
    command.add_argument("--all", action="store_true", help="every client of the environment that has an adapter")
    command.add_argument("--json", action="store_true", help="JSON lines on standard output")
    _add_rotation(command)
    add_issuer(command)
    add_request(command)
    command.set_defaults(run=_run)


def _add_rotation(command: argparse.ArgumentParser) -> None:
    rotation = command.add_argument_group("rotation")
    rotation.add_argument("--adapter", metavar="NAME", help="how the issuer is given the secret")
    rotation.add_argument("--command", metavar="PROGRAM", help="a program that gives it; reads JSON from its input")
    for name, said in (
        ("every", "the age at which a secret is due (90d)"),
        ("wait", "until every program has read the pending secret"),
        ("soak", "for how long the previous secret is kept"),
        ("propagation", "until a change holds on all of the issuer's nodes"),
        ("landing", "for how long a call without an answer may still take effect"),
        ("command-timeout", "for one call to the issuer (30s)"),
        ("max-wait", "for one client in this run (15m)"),
    ):
        rotation.add_argument(f"--{name}", type=_duration, metavar="DURATION", help=said)
    rotation.add_argument("--force", action="store_true", help="although it is not due, or changed within the hour")
    rotation.add_argument("--accept-gap", action="store_true", help="where calls fail until the new secret is stored")
    rotation.add_argument("--compromised", action="store_true", help="it has leaked: wait for nothing, keep nothing")
    rotation.add_argument("--gate", action="append", metavar="NAME", help="has to agree; may be repeated")
    rotation.add_argument("--show", action="store_true", help="adapter manual: show the secret at this terminal")
    rotation.add_argument("--reveal-to", metavar="FILE", help="adapter manual: and put it into a new file, for now")
    rotation.add_argument("--yes", action="store_true", help="ask for no confirmation")
    rotation.add_argument("--audit", metavar="PATH", help="append a JSON line for each step to this file")
    rotation.add_argument("--waiting-ok", action="store_true", help="end with 0 where it would be 10 or 11")


def _duration(text: str) -> float:
    try:
        return duration(text)
    except ConfigurationError:
        pass
    raise argparse.ArgumentTypeError("it is a duration such as 90s, 5m, 1h30m, 24h, 90d")


def _run(options: argparse.Namespace) -> int:
    chosen, skipped = _chosen(options)
    audit = None if options.audit is None else Audit(options.audit)
    screen = None if options.json else Screen(sys.stdout)
    teller = Teller(screen, audit, named=len(chosen) > 1)
    with nullcontext() if audit is None else closing(audit), _ended_in_order():
        work = _Work(teller)
        if options.action == "status" and screen is not None:
            codes = work.table(chosen)
        else:
            codes = [work.code(each) for each in chosen]
    code = _worst(codes)
    if audit is not None and audit.fault is not None:
        print(f"secretsource: the audit is incomplete: {audit.fault}", file=sys.stderr)
        code = _worst([code, 1])
    if options.waiting_ok and code in _LATER:
        code = 0
    if screen is None:
        teller.object("end", {"action": options.action, "exit_code": code, "skipped": skipped})
    elif skipped:
        screen.line(f"skipped, without an adapter in its rotation: {', '.join(skipped)}", "skipped")
    return code


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Have a signal that ends this process let it tidy up: a file with the secret in it may be there for a person."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    known = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))
    numbers = [number for number in known if number is not None and signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _worst(codes: Sequence[int]) -> int:
    return next((code for code in _WORST_FIRST if code in codes), max(codes, default=0))


# --- whose secret


def _chosen(options: argparse.Namespace) -> tuple[list[argparse.Namespace], list[str]]:
    """One Namespace for each client, with `client` in it, and the clients of --all that are left out."""
    if options.all and (options.clients or options.credentials is not None):
        raise ConfigurationError("--all is for every client", hint="Leave out CLIENT and --credentials, or --all")
    if len(options.clients) > 1 and (options.credentials is not None or options.client_id is not None):
        raise ConfigurationError(
            "--credentials and --client-id are for one client", hint="Name one, or write them into the configuration"
        )
    if not options.all:
        asked: list[str | None] = [*dict.fromkeys(options.clients)]
        return [_with_client(options, client) for client in asked or [None]], []
    configuration = configuration_of(options)
    environment = configuration.environment(asked_environment(options.env))
    clients = configuration.clients_of(environment)
    chosen = [client for client in clients if _takes_part(configuration, client, environment, options)]
    if not chosen:
        raise ConfigurationError(
            f"no client of {configuration.file} has an adapter in environment {environment!r}",
            hint=f'Write adapter = "…" into [clients.NAME.rotation]: one of {_adapters()}',
        )
    skipped = [client for client in clients if client not in chosen]
    return [_with_client(options, client) for client in chosen], skipped


def _with_client(options: argparse.Namespace, client: str | None) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(options), "client": client})


def _takes_part(configuration: Configuration, client: str, environment: str, options: argparse.Namespace) -> bool:
    """Whether --all means it: it has an adapter, or can at least be looked at."""
    try:
        settings = configuration.settings(client, environment)
        if options.adapter or options.command or {"adapter", "command"} & set(settings.rotation):
            return True
        if options.action not in _WITHOUT_ADAPTER:
            return False
        reference = SecretReference.parse(settings.get("credentials"))
    except ConfigurationError:
        return True  # which its turn will tell
    with suppress(ConfigurationError):
        rotatable(backend_for(reference, settings.stores), reference)
        return True
    return False


def _adapters() -> str:
    return ", ".join(sorted({adapter.name for adapter in known_adapters()}))


def _settings(options: argparse.Namespace) -> Settings:
    """What holds for this client, with what the options say about its rotation."""
    settings = settings_of(options)
    said = settings.rotation
    typed = {**vars(options), "command": _absolute(options.command)}  # a configured one begins in its file's folder
    given: dict[tuple[str, ...], Any] = {
        ("rotation", name): typed[name] for name in (*DURATIONS, "adapter", "command") if typed[name] is not None
    }
    if options.show:
        given["rotation", "settings", "show"] = True
    if options.reveal_to is not None:
        given["rotation", "settings", "reveal_to"] = os.path.abspath(options.reveal_to)
    if options.command is not None and options.adapter not in (None, "command"):
        raise ConfigurationError("--command goes with --adapter command", hint="Leave one of them out")
    if options.command is not None and not _is_program(options.command):
        raise ConfigurationError(
            f"--command names no program that can be run ({len(options.command)} characters, not repeated here)",
            hint="Give its path, or its name where it is in PATH; arguments go into the configuration",
        )
    if options.command is not None or ("command" in said and "adapter" not in said and options.adapter is None):
        given["rotation", "adapter"] = "command"
    if options.accept_gap:
        given["rotation", "accept_gap"] = True
    if given.get(("rotation", "adapter"), said.get("adapter")) != said.get("adapter"):
        # What is written for one adapter is not for another.
        kept = {keys: one for keys, one in settings.values.items() if keys[:2] != ("rotation", "settings")}
        settings = replace(settings, values=kept)
    return settings.over(given)


def _is_program(name: str) -> bool:
    with suppress(ValueError):  # a NUL in it, or what no file system has
        return shutil.which(name) is not None
    return False


def _absolute(program: str | None) -> str | None:
    return os.path.abspath(program) if program is not None and "/" in program else program


def _policy(settings: Settings, options: argparse.Namespace) -> Policy:
    said = settings.rotation
    names = (*DURATIONS, "proofs", "accept_gap", "owner")
    given: dict[str, Any] = {name: said[name] for name in names if name in said}
    if options.action in _WITHOUT_ADAPTER:
        given.setdefault("wait", 0.0)  # which only who rotates has to know
    return Policy(**given, force=options.force, compromised=options.compromised)


def _adapter(settings: Settings, options: argparse.Namespace) -> Adapter:
    said = settings.rotation
    name = said.get("adapter")
    if name is None:
        if options.action not in _WITHOUT_ADAPTER and not _at_terminal():
            raise ConfigurationError(
                f"{settings} names no adapter, which gives the issuer the new secret",
                hint=f'Give --adapter, or write adapter = "…" into its rotation: one of {_adapters()}',
            )
        name = "manual"
    given = dict(said.get("settings", {}))
    if "command" in said and name == "command":
        given["program"] = said["command"]
    of_rotation = [(keys, one.at.under("rotation")) for keys, one in settings.values.items() if keys[0] == "rotation"]
    at = next((at for keys, at in of_rotation if keys[1] == "settings"), of_rotation[0][1] if of_rotation else None)
    return adapter_called(
        name,
        given,
        folder=None if settings.file is None else os.path.dirname(settings.file),
        stores=settings.stores,
        at=None if at is None else at.under("settings"),
        production=settings.production,
    )


def _at_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


# --- one at a time


class _OneAtATime:
    """A gate: nothing is claimed while another client's secret is being changed at the same issuer.

    What leaked is changed at once. `reason`: why it held; `unread`: clients of whom nothing could be learnt.
    """

    def __init__(
        self, settings: Settings, configuration: Configuration | None, status_of: Callable[[Settings], Status]
    ) -> None:
        self._settings, self._configuration, self._status_of = settings, configuration, status_of
        self.reason: str | None = None
        self.unread: list[str] = []

    def before_claim(self, moment: Moment) -> Answer:
        self.unread, environment, time_for_all = [], self._settings.environment, Deadline(_LOOKS_AROUND_FOR)
        if self._configuration is None or moment.compromised:
            return Proceed()
        for client in self._configuration.clients_of(environment):
            status = None if client == self._settings.client else self._status(client, environment, time_for_all)
            if status is not None and status.phase in _UNDER_WAY and status.reference != moment.reference:
                self.reason = f"the secret of client {client!r} is being changed at the same issuer ({status.phase})"
                return Hold(self.reason)
        return Proceed()

    def _status(self, client: str, environment: str, time_for_all: Deadline) -> Status | None:
        """How far that client's rotation is; None where it has another issuer, or cannot be read: by us, perhaps."""
        assert self._configuration is not None
        with suppress(SecretSourceError):
            settings = self._configuration.settings(client, environment)
            if not _same_issuer(settings, self._settings):
                return None
            if not time_for_all.over():
                return self._status_of(settings)
        self.unread.append(client)
        return None


def _same_issuer(one: Settings, other: Settings) -> bool:
    return any(
        same_issuer(first, second)
        for name in ("issuer", "token_url")
        if (first := one.get(name)) is not None and (second := other.get(name)) is not None
    )


# --- what is done for each


class _Case(NamedTuple):
    """One client: where its secret is, what changes it, and the gate that keeps others from being changed beside it."""

    reference: str
    rotation: Rotation
    gate: _OneAtATime


class _Work:
    """Does what was asked for one client after the other, and tells it."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._last: Status | None = None

    def code(self, options: argparse.Namespace) -> int:
        """The exit code for this client. What goes wrong with one does not keep the others from their turn."""
        settings: Settings | None = None
        failure: SecretSourceError | None = None
        unexpected = ""
        try:
            settings = _settings(options)
            return self._done(settings, options)
        except SecretSourceError as error:
            failure = error.again()
        except KeyboardInterrupt:
            if settings is not None and options.action not in _LOOKS:
                print(f"secretsource: {_how_to_go_on(settings, options)}", file=sys.stderr)
            raise
        except OSError:  # of our own output; all else is classified where it arises
            raise
        except Exception as error:  # its text may hold a secret
            unexpected = type(error).__name__
        return self._failed(settings or Settings.bare(), failure, unexpected)

    def table(self, chosen: Sequence[argparse.Namespace]) -> list[int]:
        """One table with where each client stands."""
        rows, codes = [("client", "age", "due", "phase", "pending for")], []
        for options in chosen:
            self._last = None
            codes.append(self.code(options))
            if self._last is not None:
                rows.append(_row(options.client or self._last.client_id, self._last))
        assert self._teller.screen is not None
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows if len(rows) > 1 else ():
            self._teller.screen.line("  ".join(map(str.ljust, row, widths)).rstrip())
        return codes

    def _done(self, settings: Settings, options: argparse.Namespace) -> int:
        reference, rotation, gate = self._case(settings, options)
        if options.action == "plan":
            return self._plan(settings, rotation)
        if options.action == "status":
            return self._status(settings, rotation)
        if _is_declined(settings, options, reference, rotation):
            report = Report("held", "it was not confirmed", "--yes goes ahead without being asked")
        else:
            report = getattr(rotation, options.action)()
        if gate.reason is not None and gate.reason in report.reason:
            report = replace(report, result="waiting", hint="A later run takes its turn when that one is finished")
        if gate.unread:
            self._note(settings, f"not looked at, since their stores cannot be read: {', '.join(gate.unread)}")
        return self._reported(settings, reference, report)

    def _case(self, settings: Settings, options: argparse.Namespace) -> _Case:
        adapter, policy = _adapter(settings, options), _policy(settings, options)

        def status_of(other: Settings) -> Status:
            return Rotation(ConfiguredSource(other), adapter, policy=Policy(wait=0.0)).status()

        configuration = None if settings.file is None else loaded(settings.file)
        gate = _OneAtATime(settings, configuration, status_of)
        names: list[str] = [*settings.rotation.get("gates", []), *(options.gate or [])]
        source, observer = ConfiguredSource(settings), self._teller.observer(settings)
        gates = [gate, *map(gate_called, dict.fromkeys(names))]
        rotation = Rotation(source, adapter, policy=policy, observers=observer, gates=gates)
        return _Case(source.name, rotation, gate)

    def _plan(self, settings: Settings, rotation: Rotation) -> int:
        plan, teller = rotation.plan(), self._teller
        code = 0 if plan.ok else 1 if plan.error is None else exit_code(plan.error)
        for finding in plan.findings:
            if teller.screen is None:
                teller.object("finding", {**about_client(settings), **asdict(finding)})
            else:
                found = f"{finding.status:8}{finding.name:{_WIDTH_OF_NAMES}}{finding.found}"
                teller.line(settings, found, finding.status, finding.hint, indent=8 + _WIDTH_OF_NAMES)
        if teller.screen is None:
            steps = [printable(step) for step in plan.steps]
            teller.object("plan", {**about_client(settings), "ok": plan.ok, "steps": steps, "exit_code": code})
        for number, step in enumerate(plan.steps if teller.screen is not None else (), 1):
            teller.line(settings, f"{number:2}. {step}")
        return code

    def _status(self, settings: Settings, rotation: Rotation) -> int:
        self._last = status = rotation.status()
        if self._teller.screen is None:
            due = {name: value for name, value in asdict(status.due).items() if name != "age"}
            members = {**asdict(status), **about_client(settings), "due": due, "exit_code": 0}
            self._teller.object("status", members)
        return 0

    def _reported(self, settings: Settings, reference: str, report: Report) -> int:
        code, teller, owner = _CODES[report.result], self._teller, settings.rotation.get("owner")
        if teller.screen is None:
            about = {**about_client(settings), "reference": reference}
            teller.object("result", {**about, "owner": owner, **asdict(report), "exit_code": code})
        else:
            later = report.retry_after
            soon = "" if later is None else f"; the next step can be made in {shown_duration(later)}"
            hint = report.hint or ("A later run goes on, or rotate resume" if report.result == "waiting" else None)
            if owner is not None and code not in (0, 10):
                hint = f"{hint}. It belongs to {owner}" if hint else f"It belongs to {owner}"
            state = _STATES.get(report.result, "failed")
            teller.line(settings, f"{report.result}: {report.reason}{soon}", state, hint)
        return code

    def _note(self, settings: Settings, text: str) -> None:
        if self._teller.screen is None:
            self._teller.object("warning", {**about_client(settings), "reason": text})
        else:
            self._teller.line(settings, text, "warning")

    def _failed(self, settings: Settings, failure: SecretSourceError | None, unexpected: str) -> int:
        code = 1 if failure is None else exit_code(failure)
        said = f"unexpected {unexpected}; this is a bug" if failure is None else str(failure)
        if self._teller.screen is None:
            members = {"error": unexpected or type(failure).__name__, "reason": said, "exit_code": code}
            if failure is not None:
                members |= {"reason": failure.message, "hint": failure.hint, "retry_after": failure.retry_after}
            self._teller.object("error", {**about_client(settings), **members})
        else:
            print(f"secretsource: {self._teller.prefix(settings)}{printable(said)}", file=sys.stderr)
        return code


def _row(client: str, status: Status) -> tuple[str, str, str, str, str]:
    due = status.due
    left = None if due.at is None else due.at - time.time()
    when = "now" if due.now else "not yet"
    if left is not None and due.now is (left <= 0):
        when = f"in {shown_duration(left)}" if left > 0 else f"for {shown_duration(-left)}"
    phase = f"{status.phase}{', compromised' if status.compromised else ''}"
    if status.open:
        phase += f", a call may take effect for {shown_duration(status.open)}"
    return client, _shown(status.age), when, phase, _shown(status.pending_age)


def _shown(seconds: float | None) -> str:
    return "-" if seconds is None else shown_duration(seconds)


def _is_declined(settings: Settings, options: argparse.Namespace, reference: str, rotation: Rotation) -> bool:
    """Whether a person at a terminal was asked about a production environment, and did not agree."""
    if options.yes or not settings.production or options.action not in ("run", "abort", "rollback"):
        return False
    if not _at_terminal() or not sys.stderr.isatty():
        return False
    if options.action == "run":
        status = rotation.status()
        if status.phase == "idle" and not status.due.now:
            return False
    issuer = settings.get("issuer") or settings.get("token_url")
    asked = (
        f"rotate {options.action}: environment {settings.environment!r}, client {settings.client!r}, issuer {issuer}, "
        f"{reference}. Write yes to go on: "
    )
    sys.stderr.write(printable(asked))
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() != "yes"


def _how_to_go_on(settings: Settings, options: argparse.Namespace) -> str:
    verb = options.action if options.action in ("abort", "rollback") else "resume"
    if settings.file is None:
        return f"whatever was begun is kept in the store: the same command with rotate {verb} goes on"
    named = f"{settings.client}{f' --env {settings.environment}' if settings.environment else ''}"
    return f"whatever was begun is kept in the store: secretsource rotate {verb} {named} goes on"
