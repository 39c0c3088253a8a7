"""Outages at odd moments: of the name server, in the midst of discovery, of a peer that leaves its connection open."""

from __future__ import annotations

import _thread
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from secretsource import DeadlineExceeded, IssuerUnavailable, SecretSourceError
from secretsource.events import DiscoveryFailed
from secretsource.testing import Fault, TickingClock

from ..stores import eventually
from .scenario import OUTAGES, STALL, Calls, Site, call, settled

LIFETIME = 100.0
TIMEOUT = 0.5
NAME = "orchard.test"
DAY = 86_400.0


# --- the name server


class NameServer:
    """Knows one name. `answer`: 'found', 'not found', or None, and then it does not answer until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: str | None = "found"
        self.released = threading.Event()
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)  # so that no resolver beyond loopback is asked

    def _look_up(self, host: Any, *rest: Any, **more: Any) -> Any:
        if host not in (NAME, NAME.encode()):
            return self._real(host, *rest, **more)
        if self.answer is None:
            assert self.released.wait(60)
        elif self.answer == "not found":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self._real("127.0.0.1", *rest, **more)

    @contextmanager
    def down(self, answer: str | None) -> Iterator[None]:
        self.answer = answer
        try:
            yield
        finally:
            self.answer = "found"
            self.released.set()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    return NameServer(monkeypatch)


@pytest.fixture
def named(clock: TickingClock) -> Iterator[Site]:
    """A site whose issuer has a name."""
    with Site(lifetime=LIFETIME, clock=clock, timeout=TIMEOUT) as site:
        port = site.issuer.url.rstrip("/").rpartition(":")[2]
        place = {"token_url": f"http://{NAME}:{port}/connect/token", "plain_http": [f"{NAME}:{port}"]}
        site.source = site.another(**place)
        yield site


def test_while_names_are_not_found_the_kept_token_serves_and_then_the_error_says_so(
    named: Site, names: NameServer, clock: TickingClock
) -> None:
    kept = named.source.token()
    with names.down("not found"):
        seen = named.calls(LIFETIME, every=1)
        assert seen.tokens == [kept]
        assert seen.failures == []
        (error,) = named.calls(1, every=1).failures
    assert isinstance(error, IssuerUnavailable)
    assert "its host name is not found" in error.message
    assert "memory://pos" in error.message
    assert error.hint
    clock.tick(1.1)
    assert len(named.calls(1, every=1).tokens) == 1


def test_a_name_server_that_does_not_answer_costs_four_threads_and_they_go_when_it_does(
    named: Site, names: NameServer, clock: TickingClock
) -> None:
    kept = named.source.token()
    ends_at, before = clock.monotonic() + LIFETIME, _thread._count()
    with names.down(None):
        seen = Calls()
        while clock.monotonic() < ends_at:
            seen.append(call(named.source, clock))
            clock.tick(2)
        assert seen.tokens == [kept]
        assert seen.failures == []
        assert seen.slowest < TIMEOUT + STALL
        clock.tick(LIFETIME)
        for _ in range(6):
            failed = call(named.source, clock)
            assert isinstance(failed.outcome, DeadlineExceeded)
            assert failed.took < TIMEOUT + STALL
            clock.tick(1.1)
        assert named.source.status().orphaned_threads <= 4
        assert "still hang" in str(failed.outcome)
    eventually(lambda: named.source.status().orphaned_threads == 0)
    clock.tick(1.1)
    assert len(named.calls(1, every=1).tokens) == 1
    eventually(lambda: _thread._count() <= before)


# --- in the midst of discovery


def test_an_issuer_that_goes_down_while_it_sends_its_metadata_is_asked_again_when_it_is_back() -> None:
    with Site(discovery=True) as site:
        site.issuer.fail(Fault(drip_body=1), path="discovery", times=1)
        seen = Calls()
        asking = threading.Thread(target=lambda: seen.append(call(site.source)))
        asking.start()
        eventually(lambda: site.issuer.requests)
        with site.issuer.down():  # whatever is half sent ends here
            asking.join()
        assert site.statuses == []
        (failed,) = seen
        assert isinstance(failed.outcome, IssuerUnavailable)
        assert failed.outcome.hint
        assert failed.took < OUTAGES["refused"].longest + STALL
        site.calls_until_one_succeeds(within=5)


def test_an_issuer_that_goes_down_between_its_metadata_and_the_token_is_asked_for_the_token_alone_when_it_is_back(
    clock: TickingClock,
) -> None:
    with Site(clock=clock, discovery=True) as site:
        with site.issuer.failing(Fault(status=503)):
            assert isinstance(call(site.source, clock).outcome, IssuerUnavailable)
        clock.tick(1.1)
        site.calls_until_one_succeeds(within=1)
        asked = [request.path.rpartition("/")[2] for request in site.issuer.requests]
        assert asked == ["openid-configuration", "token", "token", "token", "token"]


def test_metadata_that_are_a_day_old_serve_through_an_outage_of_hours(clock: TickingClock) -> None:
    with Site(lifetime=2 * DAY, clock=clock, discovery=True) as site:
        kept = site.source.token()
        clock.tick(1.6 * DAY)
        with site.issuer.failing(Fault(status=503), path="discovery"):
            seen = site.calls(10, every=1)
            eventually(lambda: site.events.of(DiscoveryFailed))
        assert len(seen.tokens) == 2
        assert seen.tokens[0] is kept


def test_retry_after_counts_for_the_metadata_too(clock: TickingClock) -> None:
    with Site(clock=clock, discovery=True) as site:
        site.issuer.fail(Fault(status=503, headers={"Retry-After": "120"}), path="discovery", times=2)
        assert site.calls(119, every=1).tokens == []
        assert len(site.issuer.requests) == 2, "at either address"


# --- what is left open


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"))


@pytest.mark.parametrize("kind", OUTAGES)
def test_no_descriptor_is_left_open_after_an_outage(kind: str, authority: trustme.CA, ca_file: Path) -> None:
    with Site(authority=authority, ca_file=ca_file, timeout=0.4) as site:
        site.source.token()
        before = descriptors()
        with site.down(OUTAGES[kind]):
            for _ in range(2):
                assert isinstance(failed_by_force(site), SecretSourceError)
        site.source.token(force=True, timeout=10)
        settled(site.source)
        eventually(lambda: descriptors() <= before)


def failed_by_force(site: Site) -> SecretSourceError | None:
    try:
        site.source.token(force=True)
    except SecretSourceError as error:
        return error
    return None


def test_a_peer_that_is_gone_and_leaves_its_connection_open_ends_at_the_deadline(clock: TickingClock) -> None:
    """No packet ever comes again: as after a power cut, or behind a firewall that forgot the connection."""
    with Site(lifetime=LIFETIME, clock=clock, timeout=1) as site:
        kept = site.source.token()
        clock.tick(0.81 * LIFETIME)
        with site.down(OUTAGES["frozen"]):
            seen = Calls(call(site.source, clock) for _ in range(100))
            assert seen.tokens == [kept]
            assert seen.slowest < 0.8
            settled(site.source)
        assert site.source.status().orphaned_threads == 0
        clock.tick(5)
        site.calls_until_one_succeeds(within=1)
        assert site.source.token() is not kept
