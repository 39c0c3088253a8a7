"""Events: in order, to every hook and to the log, and nothing that a hook does matters."""

from __future__ import annotations

import contextvars
import dataclasses
import inspect
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from secretsource import events
from secretsource.events import (
    LOGGER,
    CandidateRejected,
    CandidateUnfit,
    CandidateUsed,
    CircuitClosed,
    CircuitOpened,
    CredentialsChanged,
    CredentialsDropped,
    CredentialsRecovered,
    CredentialsStale,
    DiscoveryFailed,
    Emitter,
    Event,
    LifetimeAssumed,
    OriginLeft,
    PlainHttpAllowed,
    RefreshFailed,
    RotationStep,
    ScopeNarrowed,
    TokenFetched,
    TokenRefused,
)
from secretsource.testing.clock import TickingClock

SOURCE = "file:///etc/pos.json"
FETCHED = TokenFetched(SOURCE, ("orders.read", "stock.read"), 300.0, 0.1234)
CHANGED = CredentialsChanged(SOURCE, "1", "2")
OPENED = CircuitOpened(SOURCE, 1.0)
CLOSED = CircuitClosed(SOURCE)

# One of each, with the level at which it is logged.
ALL: dict[Event, int] = {
    CHANGED: logging.INFO,
    CredentialsStale(SOURCE, "BackendUnavailable", 10.0, 20.0): logging.WARNING,
    CredentialsDropped(SOURCE, "AccessDenied"): logging.WARNING,
    CandidateUsed(SOURCE, "pending", None): logging.INFO,
    CandidateRejected(SOURCE, "current", "2", 401, "invalid_client"): logging.INFO,
    CandidateUnfit(SOURCE, "pending", "it is bound to another issuer"): logging.WARNING,
    OPENED: logging.WARNING,
    CLOSED: logging.INFO,
    FETCHED: logging.DEBUG,
    RefreshFailed(SOURCE, "IssuerUnavailable", None, 503, 12.0, 1.5): logging.WARNING,
    ScopeNarrowed(SOURCE, ("stock.write",)): logging.WARNING,
    LifetimeAssumed(SOURCE, 300.0): logging.INFO,
    TokenRefused(SOURCE, True): logging.INFO,
    OriginLeft(SOURCE, "https://pos.example.com", "https://other.example.com"): logging.WARNING,
    PlainHttpAllowed(SOURCE, "orchard:8080"): logging.WARNING,
    RotationStep(SOURCE, "83cea5b2007cd30a", "promote", "done", 0.1): logging.INFO,
    CredentialsRecovered(SOURCE): logging.INFO,
    DiscoveryFailed(SOURCE, "IssuerUnavailable", "it is down"): logging.WARNING,
}


def failed(error: str = "IssuerUnavailable", source: str = SOURCE) -> RefreshFailed:
    return RefreshFailed(source, error, None, None, 60.0, 1.0)


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def log() -> Iterator[list[logging.LogRecord]]:
    kept, level = Kept(), LOGGER.level
    LOGGER.addHandler(kept)
    LOGGER.setLevel(logging.DEBUG)
    yield kept.records
    LOGGER.setLevel(level)
    LOGGER.removeHandler(kept)


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


def test_every_kind_of_event_has_an_example_here() -> None:
    kinds = {value for _, value in inspect.getmembers(events, inspect.isclass) if issubclass(value, Event)}
    assert kinds - {Event} == {type(event) for event in ALL}


@pytest.mark.parametrize("event", ALL, ids=lambda event: type(event).__name__)
def test_it_is_logged_at_its_level_with_its_facts(event: Event, log: list[logging.LogRecord]) -> None:
    Emitter().emit([event])
    assert [(record.levelno, record.name) for record in log] == [(ALL[event], "secretsource")]
    message = log[0].getMessage()
    assert message.startswith(f"{SOURCE}: {type(event).__name__} (")
    assert all(f"{field.name}=" in message for field in dataclasses.fields(event)[1:])


def test_what_is_logged_reads_well(log: list[logging.LogRecord]) -> None:
    Emitter().emit([FETCHED, CHANGED])
    assert [record.getMessage() for record in log] == [
        f"{SOURCE}: TokenFetched (scopes=orders.read stock.read, lifetime=300.0, duration=0.1)",
        f"{SOURCE}: CredentialsChanged (old_version=1, new_version=2)",
    ]


@pytest.mark.parametrize("event", ALL, ids=lambda event: type(event).__name__)
def test_an_event_cannot_be_changed(event: Event) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.source = "other"  # type: ignore[misc]
    assert not hasattr(event, "__dict__")


def test_they_arrive_in_order_at_each_hook() -> None:
    first: list[Event] = []
    second: list[Event] = []
    Emitter([first.append, second.append]).emit([OPENED, CLOSED, FETCHED, CHANGED])
    assert first == second == [OPENED, CLOSED, FETCHED, CHANGED]


def test_one_hook_needs_no_list_and_none_is_needed() -> None:
    seen: list[Event] = []
    Emitter(seen.append).emit(iter([FETCHED]))
    Emitter(()).emit([FETCHED])
    Emitter(None).emit([FETCHED])
    assert seen == [FETCHED]


def test_a_hook_sees_no_context_variable_of_the_caller_and_leaves_none_behind() -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
    seen: list[str] = []

    def hook(event: Event) -> None:
        seen.append(tenant.get())
        tenant.set("hook")

    tenant.set("caller")
    Emitter(hook).emit([FETCHED, CHANGED])
    assert seen == ["nobody", "nobody"]
    assert tenant.get() == "caller"


def test_a_hook_that_raises_changes_nothing_and_its_text_is_not_logged(log: list[logging.LogRecord]) -> None:
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("s3cr3t")

    Emitter([broken, seen.append]).emit([FETCHED, CHANGED])
    assert seen == [FETCHED, CHANGED]
    errors = [record for record in log if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == [
        "a hook for TokenFetched raised RuntimeError; it was ignored",
        "a hook for CredentialsChanged raised RuntimeError; it was ignored",
    ]
    assert not [record for record in log if record.exc_info or record.exc_text or "s3cr3t" in record.getMessage()]


def test_a_warning_comes_once_and_then_once_a_minute(log: list[logging.LogRecord], clock: TickingClock) -> None:
    emitter = Emitter(clock=clock)
    emitter.emit([failed()] * 3)
    clock.tick(59)
    emitter.emit([failed()])
    assert len(log) == 1
    clock.tick(1)
    emitter.emit([failed()] * 2)
    assert len(log) == 2
    clock.tick(59)
    emitter.emit([failed()])
    assert len(log) == 2


def test_another_failure_is_another_state(log: list[logging.LogRecord], clock: TickingClock) -> None:
    kinds = ["IssuerUnavailable", "CredentialsRejected", "CredentialsRejected", "IssuerUnavailable"]
    Emitter(clock=clock).emit(map(failed, kinds))
    logged = [kind for record in log for kind in set(kinds) if kind in record.getMessage()]
    assert logged == ["IssuerUnavailable", "CredentialsRejected", "IssuerUnavailable"]


@pytest.mark.parametrize(
    ("warning", "end"),
    [
        (failed(), FETCHED),
        (CredentialsStale(SOURCE, "BackendUnavailable", 1.0, None), CredentialsRecovered(SOURCE)),
        (OPENED, CLOSED),
    ],
    ids=lambda event: type(event).__name__,
)
def test_after_it_has_ended_it_is_news_again(
    warning: Event, end: Event, log: list[logging.LogRecord], clock: TickingClock
) -> None:
    Emitter(clock=clock).emit([warning, warning, end, warning])
    assert len([record for record in log if record.levelno == logging.WARNING]) == 2


def test_each_source_has_a_state_of_its_own(log: list[logging.LogRecord], clock: TickingClock) -> None:
    other = dataclasses.replace(FETCHED, source="env://STOCK")
    Emitter(clock=clock).emit([failed(), failed(source="env://STOCK"), other, failed()])
    assert len([record for record in log if record.levelno == logging.WARNING]) == 2


def test_each_host_that_is_reached_by_plain_http_is_logged(log: list[logging.LogRecord], clock: TickingClock) -> None:
    hosts = ["orchard:8080", "vault:8200", "orchard:8080"]
    Emitter(clock=clock).emit(PlainHttpAllowed(SOURCE, host) for host in hosts)
    assert [record.getMessage().rpartition("=")[2] for record in log] == ["orchard:8080)", "vault:8200)"]


def test_each_origin_that_a_token_goes_to_is_logged_once(log: list[logging.LogRecord], clock: TickingClock) -> None:
    origins = [f"https://{name}.test:443" for name in "bcbdcb"]
    Emitter(clock=clock).emit(OriginLeft(SOURCE, "https://a.test:443", origin) for origin in origins)
    assert [record.getMessage()[-len("b.test:443)") :] for record in log] == [
        "b.test:443)",
        "c.test:443)",
        "d.test:443)",
    ]


def test_a_hook_gets_every_event_also_those_that_are_not_logged(clock: TickingClock) -> None:
    seen: list[Event] = []
    Emitter(seen.append, clock=clock).emit([failed()] * 5)
    assert len(seen) == 5


def test_what_is_not_a_warning_is_logged_each_time(log: list[logging.LogRecord], clock: TickingClock) -> None:
    Emitter(clock=clock).emit([CHANGED, CHANGED])
    assert len(log) == 2


def test_many_threads_may_emit_at_once() -> None:
    seen: list[Event] = []
    emitter = Emitter(seen.append)
    threads = [threading.Thread(target=emitter.emit, args=([failed(), FETCHED] * 25,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(seen) == 8 * 50


def test_a_program_that_does_not_set_up_logging_hears_nothing() -> None:
    source = "from secretsource.events import *; Emitter().emit([CircuitOpened('env:POS', 1.0)])"
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    assert (ran.stdout, ran.stderr) == ("", "")
