"""secretsource demo: the main job on an embedded issuer, on loopback, in about ten seconds.

Threads and tasks call a small GraphQL API. Meanwhile the secret is changed twice, once by the rotation engine and once
by hand, the wrong way round, and then the issuer is out of order for almost the life of a token. No call may fail.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from typing import Any

import httpx

from ..auth.httpx import TokenAuth
from ..clock import Deadline
from ..events import (
    CandidateRejected,
    CandidateUsed,
    CredentialsChanged,
    Event,
    RefreshFailed,
    RotationStep,
    TokenFetched,
)
from ..rotation import Adapter, Applied, Capabilities, Client, Policy, Preflight, Rotation
from ..secret import Secret
from ..source import TokenSource
from ..testing.issuer import FakeIssuer
from ..testing.loopback import Answer, Incoming, LoopbackServer
from .screen import Screen

__all__ = ["add_to"]

_LIFETIME = 2.0
_OUTAGE = 1.7
_THREADS = 4
_TASKS = 8
_PAUSE = 0.02
_STEPS = {
    "claim": "the new secret is in the file, as pending",
    "note": "consumers have had their time; the call is announced in the file",
    "apply": "the issuer has the new secret: the old one is dead from now on",
    "promote": "proved by tokens, and promoted in the file",
    "drop": "the previous secret is out of the file",
}
_QUERY = {"query": "{ orders(first: 2) { id total } }"}
_ORDERS = {"data": {"orders": [{"id": "A-1001", "total": "18.50"}, {"id": "A-1002", "total": "7.20"}]}}


def add_to(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="one JSON object on standard output")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    screen = Screen(sys.stderr if options.json else sys.stdout)
    with tempfile.TemporaryDirectory(prefix="secretsource-demo-") as folder:
        figures = _Demo(folder, screen).run()
    if options.json:
        print(json.dumps(figures))
    else:
        _report(screen, figures)
    return 1 if figures["failed_calls"] else 0


class _Administrator(Adapter):
    """Saves a secret at the issuer, which accepts one of a client at a time: the old one is dead from then on."""

    capabilities = Capabilities(chosen=True, slots=1, propagation=0.4, landing=0.0)

    def __init__(self, issuer: FakeIssuer) -> None:
        self._issuer = issuer

    def check(self, client: Client, deadline: Deadline) -> Preflight:
        return Preflight()

    def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Applied:
        self._issuer.set_secret(client.client_id, secret.reveal())
        return Applied()


class _Demo:
    def __init__(self, folder: str, screen: Screen) -> None:
        self._file = os.path.join(folder, "pos.json")  # the folder's mode is 0700
        self._screen = screen
        self._began = time.monotonic()
        self._issuer = FakeIssuer(lifetime=_LIFETIME)
        self._api = LoopbackServer(self._graphql)
        self._over = threading.Event()
        self._renewed = threading.Event()
        self._calls = _Calls()
        self._events: list[Event] = []
        self._rotated = ""

    def run(self) -> dict[str, Any]:
        with self._issuer, self._api:
            self._issuer.add_client("pos", "demo-secret-1")
            self._write({"client_secret": "demo-secret-1"})
            self._say(f"issuer {self._issuer.url}, GraphQL API {self._api.origin}, credentials in {self._file}")
            with TokenSource(f"file://{self._file}", issuer=self._issuer.url, on_event=self._note) as source:
                workers = self._workers(TokenAuth(source))
                try:
                    outage = self._story()
                finally:
                    self._over.set()
                    for worker in workers:
                        worker.join()
        return self._figures(outage)

    # --- what happens ---

    def _story(self) -> dict[str, Any]:
        self._say(f"{_THREADS} threads and {_TASKS} tasks call the API; a token lives {_LIFETIME:.0f} s")
        time.sleep(0.5)
        self._say(
            "a planned change: secretsource rotates the secret at the issuer, which accepts one at a time", "note"
        )
        self._rotate()
        self._await_renewal()
        self._say("a second change, by hand and without pending: the file first", "note")
        self._write({"client_secret": "demo-secret-3"})
        self._await_renewal()
        self._say("… and the issuer later", "note")
        self._issuer.set_secret("pos", "demo-secret-3")
        self._await_renewal()
        return self._outage()

    def _rotate(self) -> None:
        source = TokenSource(f"file://{self._file}", issuer=self._issuer.url)
        policy = Policy(wait=_LIFETIME, soak=_LIFETIME / 2, command_timeout=5, force=True)
        report = Rotation(source, _Administrator(self._issuer), policy=policy, observers=self._note).run()
        self._rotated = report.result
        self._say(f"rotation: {report.result}, {report.reason}", "note")

    def _outage(self) -> dict[str, Any]:
        calls, failures, tokens = self._calls.made, self._count(RefreshFailed), self._count(TokenFetched)
        self._say(f"the issuer is down, just after a renewal, for {_OUTAGE} s", "note")
        with self._issuer.down():
            time.sleep(_OUTAGE)
            served, fetched = self._calls.made - calls, self._count(TokenFetched) - tokens
        self._say("the issuer is back", "note")
        self._await_renewal()
        time.sleep(0.3)
        return {
            "seconds": _OUTAGE,
            "calls": served,
            "served_by": f"{fetched} new tokens" if fetched else "the kept token",
            "failed_refreshes": self._count(RefreshFailed) - failures,
        }

    def _await_renewal(self) -> None:
        """Wait until the programs have a token that was asked for after this moment."""
        self._renewed.clear()
        self._renewed.wait(2 * _LIFETIME)

    def _write(self, secrets: dict[str, str]) -> None:
        document = {"client_id": "pos", **secrets, "issuer": self._issuer.url}
        new = f"{self._file}.new"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(document, file, indent=2)
        os.replace(new, self._file)

    def _graphql(self, incoming: Incoming) -> Answer:
        scheme, _, token = incoming.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not self._issuer.accepts(token):
            return Answer(401, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(_ORDERS).encode())

    # --- who calls ---

    def _workers(self, auth: TokenAuth) -> list[threading.Thread]:
        targets = [*[self._call_from_a_thread] * _THREADS, self._call_from_tasks]
        workers = [threading.Thread(target=target, args=(auth,)) for target in targets]
        for worker in workers:
            worker.start()
        return workers

    def _call_from_a_thread(self, auth: TokenAuth) -> None:
        with httpx.Client(base_url=self._api.origin, auth=auth, trust_env=False) as client:
            while not self._over.wait(_PAUSE):
                with self._calls.one() as call:
                    call.note(client.post("/graphql", json=_QUERY))

    def _call_from_tasks(self, auth: TokenAuth) -> None:
        async def task(client: httpx.AsyncClient) -> None:
            while not self._over.is_set():
                await asyncio.sleep(_PAUSE)
                with self._calls.one() as call:
                    call.note(await client.post("/graphql", json=_QUERY))

        async def tasks() -> None:
            async with httpx.AsyncClient(base_url=self._api.origin, auth=auth, trust_env=False) as client:
                await asyncio.gather(*(task(client) for _ in range(_TASKS)))

        asyncio.run(tasks())

    # --- what is shown ---

    def _note(self, event: Event) -> None:
        self._events.append(event)
        match event:
            case RotationStep(step="claim" | "note" | "apply" | "promote" | "drop" as step, outcome="done"):
                self._say(f"rotation: {_STEPS[step]}", "note")
            case TokenFetched():
                self._renewed.set()
                self._say(f"a token, {self._issuer.token_requests} token requests so far", "ok")
            case CredentialsChanged():
                self._say(f"the file has changed: version {event.old_version} → {event.new_version}", "ok")
            case CandidateRejected():
                self._say(f"the issuer rejects the {event.candidate} secret; the next one is tried", "warning")
            case CandidateUsed():
                self._say(f"it takes the {event.candidate} secret", "ok")
            case RefreshFailed():
                kept = f"the kept one serves {event.life_left:.1f} s more" if event.life_left else event.reason
                self._say(f"no new token ({event.error}); {kept}", "warning")

    def _say(self, text: str, state: str | None = None) -> None:
        self._screen.line(f"{time.monotonic() - self._began:5.1f} s  {self._calls.made:5} calls  {text}", state)

    def _count(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in tuple(self._events))

    def _figures(self, outage: dict[str, Any]) -> dict[str, Any]:
        changes = [event for event in self._events if isinstance(event, CredentialsChanged)]
        versions = [changes[0].old_version, *(event.new_version for event in changes)] if changes else []
        return {
            "calls": self._calls.made,
            "failed_calls": self._calls.failed,
            "slowest_call_ms": round(self._calls.slowest * 1000, 1),
            "token_requests": self._issuer.token_requests,
            "tokens": self._count(TokenFetched),
            "secret_versions": list(dict.fromkeys(versions)),
            "rotation": self._rotated,
            "rejected_candidates": self._count(CandidateRejected),
            "outage": outage,
            "seconds": round(time.monotonic() - self._began, 1),
        }


class _Calls:
    """Counts API calls, from all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.made = 0
        self.failed = 0
        self.slowest = 0.0

    def one(self) -> _OneCall:
        return _OneCall(self)

    def count(self, good: bool, seconds: float) -> None:
        with self._lock:
            self.made += 1
            self.failed += not good
            self.slowest = max(self.slowest, seconds)


class _OneCall:
    """One call: it has failed unless a good answer was noted."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self._good = False

    def note(self, response: httpx.Response) -> None:
        self._good = response.status_code == 200 and "data" in response.json()

    def __enter__(self) -> _OneCall:
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._calls.count(self._good, time.perf_counter() - self._began)
        return kind is not None and issubclass(kind, Exception)


def _report(screen: Screen, figures: dict[str, Any]) -> None:
    outage = figures["outage"]
    versions = figures["secret_versions"]
    screen.table(
        f"What happened in {figures['seconds']} s",
        [
            ("calls of the API", str(figures["calls"])),
            ("failed calls", str(figures["failed_calls"])),
            ("slowest call", f"{figures['slowest_call_ms']} ms"),
            ("token requests", f"{figures['token_requests']}, for {figures['tokens']} tokens"),
            ("secret versions seen", f"{len(versions)}: {' → '.join(map(str, versions))}"),
            (
                "during the outage",
                f"{outage['calls']} calls in {outage['seconds']} s, served by {outage['served_by']} "
                f"({outage['failed_refreshes']} refreshes failed)",
            ),
        ],
    )
