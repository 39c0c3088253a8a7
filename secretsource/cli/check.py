"""secretsource check: walk the way from the reference to a token, and say at each step what was found."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from ..answer import Granted
from ..backends import Backend, backend_for
from ..clock import SYSTEM_CLOCK, Deadline, checked_seconds
from ..config import Settings, asked_environment
from ..credentials import Document, Meaning, interpret
from ..discovery import Discovery, Target
from ..errors import ConfigurationError, SecretSourceError
from ..events import Emitter
from ..exchange import Answer, Outgoing
from ..fetch import Fetcher
from ..flight import Flight, Flights
from ..reference import SecretReference
from ..resolve import CredentialsSource
from ..transport import Transport
from . import exit_code
from .options import (
    add_credentials,
    add_issuer,
    add_request,
    configuration_of,
    request_of,
    settings_of,
)
from .screen import Screen, printable

__all__ = ["add_to", "run", "target_of"]

_SKEW_THAT_MATTERS = 30.0
_STEPS = (
    "reference",
    "store",
    "secret",
    "permissions",
    "issuer",
    "clock",
    "token",
    "scope",
    "life",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what was found, and what to do about it where it failed or deserves a warning."""

    name: str
    status: Literal["ok", "warning", "failed", "skipped"]
    found: str
    hint: str | None = None


def add_to(command: argparse.ArgumentParser) -> None:
    add_credentials(command)
    add_issuer(command)
    add_request(command)
    command.add_argument("--all", action="store_true", help="every client of the environment, one after the other")
    command.add_argument("--no-token", action="store_true", help="stop before the token request")
    command.add_argument("--json", action="store_true", help="one JSON object on standard output")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Walk, and report; the exit code is that of the first failed step."""
    if options.all:
        return _run_all(options)
    screen = None if options.json else Screen(sys.stdout)
    report = _report(_Walk(options), screen)
    if options.json:
        print(json.dumps({"version": 1, **report}, indent=2))
    return int(report["exit_code"])


def _run_all(options: argparse.Namespace) -> int:
    """Walk for every client that has credentials in the environment; the exit code is the first failing one."""
    if options.client is not None or options.credentials is not None:
        raise ConfigurationError("--all is for every client", hint="Leave out CLIENT and --credentials, or --all")
    configuration = configuration_of(options)
    environment = configuration.environment(asked_environment(options.env))
    clients = configuration.clients_of(environment)
    skipped = [client for client in configuration.clients if client not in clients]
    if not clients:
        raise ConfigurationError(
            f"no client of {configuration.file} has credentials in environment {environment!r}",
            hint='Write credentials = "…" for them',
        )
    screen = None if options.json else Screen(sys.stdout)
    reports = []
    for client in clients:
        if screen is not None:
            screen.line(f"{client}:")
        report = _report(_Walk(argparse.Namespace(**{**vars(options), "client": client})), screen)
        reports.append({"client": client, **report})
    code = next((int(report["exit_code"]) for report in reports if report["exit_code"]), 0)
    if screen is not None and skipped:
        screen.line(f"skipped, without credentials in environment {environment!r}: {', '.join(skipped)}", "skipped")
    if options.json:
        summary = {"version": 1, "ok": code == 0, "exit_code": code, "clients": reports, "skipped": skipped}
        print(json.dumps(summary, indent=2))
    return code


def _report(walk: _Walk, screen: Screen | None) -> dict[str, Any]:
    """Walk to the end, show each step when it is done, and give them all for JSON."""
    steps = []
    for step in walk.steps():
        steps.append({name: _printable(value) for name, value in asdict(step).items()})
        if screen is not None:
            screen.line(f"{step.status:8}{step.name:15}{step.found}", step.status)
            if step.hint:
                screen.line(f"{'':23}→ {step.hint}", step.status)
    return {"ok": walk.code == 0, "exit_code": walk.code, **walk.about, "steps": steps}


def _printable(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


class _Listening(Transport):
    """A transport that remembers how far the issuer's clock is from ours."""

    skew: float | None = None

    def send(self, outgoing: Outgoing, deadline: Deadline, *, phase: str) -> Answer:
        answer = super().send(outgoing, deadline, phase=phase)
        with suppress(LookupError, ValueError, TypeError, OverflowError):  # no Date that can be read: nothing is known
            told = parsedate_to_datetime(answer.headers["date"])
            # RFC 9110 section 5.6.7: a date that names no zone is in UTC, too.
            self.skew = told.replace(tzinfo=told.tzinfo or UTC).timestamp() - time.time()
        return answer


class _Walk:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.code = 0
        self.about: dict[str, str | None] = {}
        self._names: tuple[str, ...] = _STEPS
        if options.client is None:
            self._begin(settings_of(options))
        else:  # what is wrong with a configuration is a step of the walk
            self._names = ("configuration", *_STEPS)

    def _begin(self, settings: Settings) -> None:
        self._settings = settings
        self._transport = _Listening(ca_file=settings.get("ca_file"), proxy=settings.get("proxy"))
        self._timeout = checked_seconds("timeout", settings.get("timeout", 10.0))
        self._deadline = Deadline(self._timeout)

    def steps(self) -> Iterator[Step]:
        """The steps, each made when it is asked for; after a failed one the rest is skipped."""
        done = 0
        try:
            for step in self._walk():
                done += 1
                yield step
            return
        except SecretSourceError as error:
            self.code = exit_code(error)
            failed = Step(self._names[done], "failed", error.message, error.hint)
        except Exception as error:  # a plug-in's; its text may hold what it read
            self.code = 1
            failed = Step(self._names[done], "failed", f"unexpected {type(error).__name__}", "This is a bug")
        yield failed
        for name in self._names[done + 1 :]:
            yield Step(name, "skipped", "a step before failed")

    def _walk(self) -> Iterator[Step]:
        options = self._options
        if options.client is not None:
            self._begin(settings_of(options))
            yield self._configuration()
        settings = self._settings
        reference = SecretReference.parse(settings.arguments()["credentials"])
        yield _reference(reference)
        backend = backend_for(reference, settings.stores)
        yield _store(backend, reference)
        document = Flights[Document]("secret", Emitter()).run(
            "check", lambda flight: backend.read(reference, fresh=True, timeout=flight.deadline.left()), self._deadline
        )
        meaning = interpret(document, reference, settings.get("client_id"))
        yield _secret(backend, reference, document, meaning)
        yield _permissions(backend, reference, document)
        if settings.get("issuer") is None and settings.get("token_url") is None and options.no_token:
            for name in _STEPS[4:]:
                yield Step(name, "skipped", "neither --issuer nor --token-url is given")
            return
        target = target_of(settings)
        metadata = Discovery(target, self._transport, Emitter(), SYSTEM_CLOCK).metadata(self._deadline, patient=False)
        target.check_binding(meaning.binding, str(reference), metadata.token_url)
        how = "configured" if target.token_url else "discovered"
        bound = "bound to it by the document" if meaning.binding.issuer else "not bound by the document"
        found = f"token endpoint {metadata.token_url} ({how}), {metadata.auth_method}; {bound}"
        yield Step("issuer", "ok", found, _not_obeyed(metadata.token_url, settings.get("ca_file")))
        if options.no_token:
            yield self._clock()
            for name in _STEPS[6:]:
                yield Step(name, "skipped", "--no-token")
            return
        # A token's answer tells the time, too, where there is no discovery: it is asked for before the clock is told.
        outcome: tuple[Granted, str] | SecretSourceError
        try:
            outcome = self._granted(target, reference)
        except SecretSourceError as error:
            outcome = error.again()
        yield self._clock()
        if isinstance(outcome, SecretSourceError):
            raise outcome
        granted, kind = outcome
        yield _token(kind, metadata.auth_method)
        yield self._scope(granted)
        yield _life(granted)

    def _configuration(self) -> Step:
        settings = self._settings
        self.about = {
            "client": settings.client,
            "environment": settings.environment,
            "configuration": settings.file,
        }
        marks = [mark for mark in ("production", "require_binding") if getattr(settings, mark)]
        return Step("configuration", "ok", f"{settings}{': ' if marks else ''}{', '.join(marks)}")

    def _granted(self, target: Target, reference: SecretReference) -> tuple[Granted, str]:
        settings = self._settings
        client_id = settings.get("client_id")
        credentials = CredentialsSource(reference, stores=settings.stores, client_id=client_id, timeout=self._timeout)
        fetcher = Fetcher(credentials, target, self._transport, Emitter(), SYSTEM_CLOCK)
        identity = target.identity(str(reference), client_id).asking(**request_of(settings))

        def body(flight: Flight[Granted]) -> Granted:
            admitted = fetcher.admit(flight)
            assert admitted is not None, "the circuit of a new fetcher is closed"
            return fetcher.fetch(identity, flight, admitted, patient=True)

        granted = Flights[Granted]("token", Emitter()).run("check", body, self._deadline)
        accepted = fetcher.accepted
        return granted, accepted.kind if accepted is not None else "current"

    def _clock(self) -> Step:
        skew = self._transport.skew
        if skew is None:
            return Step("clock", "skipped", "the issuer has not told its time")
        if abs(skew) < _SKEW_THAT_MATTERS:
            return Step("clock", "ok", f"the issuer's clock and ours differ by less than {_SKEW_THAT_MATTERS:.0f} s")
        return Step(
            "clock",
            "warning",
            f"the issuer's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours",
            "Have both machines set their clocks by NTP",
        )

    def _scope(self, granted: Granted) -> Step:
        scopes = " ".join(granted.token.scopes) or "none named"
        if granted.missing_scopes:
            return Step(
                "scope",
                "warning",
                f"granted: {scopes}; asked for and not granted: {' '.join(granted.missing_scopes)}",
                "Have the administrator allow these scopes for this client, or do not ask for them",
            )
        return Step("scope", "ok", f"granted: {scopes}")


def target_of(settings: Settings) -> Target:
    """Where tokens come from. ConfigurationError."""
    arguments = settings.arguments()
    names = ("issuer", "token_url", "auth_method", "profile", "plain_http")
    failure: ConfigurationError
    try:
        return Target.of(
            **{"issuer": None, "token_url": None, **{name: arguments[name] for name in names if name in arguments}},
            environment=settings.environment,
            require_binding=settings.require_binding,
        )
    except ConfigurationError as error:
        failure = settings.explained(error)
    raise failure


def _reference(reference: SecretReference) -> Step:
    if reference.pinned:
        return Step(
            "reference", "warning", f"{reference} names one version", "It will not follow a rotation of the secret"
        )
    return Step("reference", "ok", str(reference))


def _store(backend: Backend, reference: SecretReference) -> Step:
    found = f"{reference.store}: {type(backend).__name__}{_ttl(backend)}"
    caution = getattr(backend, "caution", None)
    said = None if caution is None else caution(reference)
    return Step("store", "ok" if said is None else "warning", found, said)


def _ttl(backend: Backend) -> str:
    if backend.ttl is None:
        return ", read once"
    return ", read for each token" if backend.ttl == 0 else f", read every {backend.ttl:.0f} s"


def _secret(backend: Backend, reference: SecretReference, document: Document, meaning: Meaning) -> Step:
    credentials = meaning.credentials
    written, version = document.created, credentials.version if backend.ttl else None
    if version is None and isinstance(written, datetime):
        # A file's own version is a digest under a key of this process: when it was written can be compared.
        version = f"{written:%Y-%m-%dT%H:%M:%SZ}"
    parts = ["client ID and secret found", f"version {version or 'unknown'}"]
    if isinstance(written, datetime) and written.tzinfo is not None:  # a plug-in may not know
        parts.append(f"written {_ago((datetime.now(UTC) - written).total_seconds())} ago")
    name = reference.fields.secret if reference.fields else "client_secret"
    unusable = []
    for kind in ("pending", "previous"):
        if getattr(credentials, kind) is not None:
            parts.append(f"a {kind} secret beside it")
        elif f"{name}_{kind}" in document.fields:
            unusable.append(f"{name}_{kind}")
    if unusable:
        found = f"{', '.join(parts)}; {' and '.join(unusable)} cannot be used and will not be tried"
        return Step("secret", "warning", found, "Write it anew: it is empty, no text, or has a control character in it")
    return Step("secret", "ok", ", ".join(parts))


def _ago(seconds: float) -> str:
    for unit, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"


def _permissions(backend: Backend, reference: SecretReference, document: Document) -> Step:
    if reference.store == "env":
        files = "; the files that they name meet level mounted" if document.valid_for == 0 else ""
        return Step("permissions", "ok", f"variables are open to root, to this user and to child processes{files}")
    if reference.store == "systemd":
        return Step("permissions", "ok", "meets level mounted: nobody but root and this user can change it")
    strictest = getattr(backend, "strictest_level", None)
    if strictest is None:
        return Step("permissions", "skipped", f"a matter of the store {reference.store!r}")
    met: Any = strictest(reference)
    if met.level is None:
        return Step("permissions", "warning", "no level is met", met.reason)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    return Step("permissions", "ok", f"meets level {met.level}{'; root may read it whatever its mode' if root else ''}")


def _token(kind: str, method: str) -> Step:
    if kind == "current":
        return Step("token", "ok", f"obtained with {method}")
    return Step(
        "token",
        "warning",
        f"obtained with {method} and the {kind} secret; the issuer rejects the current one",
        "Finish the change of the secret: the store and the issuer have to name the same one as current",
    )


def _not_obeyed(url: str, ca_file: str | None) -> str | None:
    names = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
    if not names or ca_file is not None or not url.startswith("https:"):
        return None
    return f"{' and '.join(names)} are set and not obeyed: other authorities than the system's go into --ca-file"


def _life(granted: Granted) -> Step:
    token = granted.token
    found = f"{token.expires_in:.0f} s left, to {token.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    if granted.assumed:
        return Step("life", "warning", f"{found}, as we assume", "The issuer does not say expires_in")
    return Step("life", "ok", found)
