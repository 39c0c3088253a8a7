"""CredentialsSource: what a reference means, read when due, and what serves while it cannot be read."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from secretsource import (
    AccessDenied,
    BackendError,
    BackendUnavailable,
    ClientCredentials,
    ConfigurationError,
    CredentialsSource,
    DeadlineExceeded,
    Document,
    MalformedSecret,
    Secret,
    SecretNotFound,
    SecretReference,
    SecretSourceError,
    TokenSource,
)
from secretsource.clock import Deadline
from secretsource.credentials import Binding
from secretsource.endpoint import check_binding
from secretsource.events import CredentialsChanged, CredentialsDropped, CredentialsStale
from secretsource.flight import ticket
from secretsource.resolve import Budget
from secretsource.testing import TickingClock, secret_file

from .stores import CLIENT, A, B, C, Events, Store, eventually, in_threads

CANARY = "not-a-real-secret-canary"


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture
def events() -> Events:
    return Events()


Make = Callable[..., CredentialsSource]


@pytest.fixture
def source_of(clock: TickingClock, events: Events) -> Make:
    def make(store: Store, **options: Any) -> CredentialsSource:
        return CredentialsSource("memory://pos", stores=store.stores, clock=clock, on_event=events, **options)

    return make


def secret_of(source: CredentialsSource) -> str:
    return source.current().client_secret.reveal()


# --- when it is read


def test_constructing_reads_nothing(source_of: Make) -> None:
    store = Store()
    source_of(store)
    assert store.reads == []


def test_a_cheap_store_is_read_each_time(source_of: Make) -> None:
    store = Store(ttl=0)
    source = source_of(store)
    assert secret_of(source) == A
    store.put(B)
    assert secret_of(source) == B
    assert store.reads == [False, False]


def test_a_store_that_cannot_change_is_read_once(source_of: Make, clock: TickingClock) -> None:
    store = Store(ttl=None)
    source = source_of(store)
    source.current()
    clock.tick(86400 * 365)
    source.current()
    assert store.reads == [False]


def test_a_dear_store_is_read_when_its_ttl_is_over_give_or_take_a_tenth(source_of: Make, clock: TickingClock) -> None:
    lasted = []
    for _ in range(20):
        store = Store(ttl=300)
        source = source_of(store)
        source.current()
        began = clock.monotonic()
        clock.tick(269)
        source.current()
        assert len(store.reads) == 1
        while len(store.reads) == 1:
            clock.tick(3)
            source.current()
        lasted.append(clock.monotonic() - began)
        assert lasted[-1] <= 333
    assert len(set(lasted)) > 3, "drawn each time, so that a fleet does not read in step"


@pytest.mark.parametrize("ttl", [None, 300.0])
def test_a_lease_ends_earlier_than_the_ttl_and_is_not_stretched(
    source_of: Make, clock: TickingClock, ttl: float | None
) -> None:
    for _ in range(10):
        store = Store(ttl=ttl)
        store.put(A, valid_for=20)
        source = source_of(store)
        source.current()
        clock.tick(17.9)
        source.current()
        assert len(store.reads) == 1
        clock.tick(2.2)
        source.current()
        assert len(store.reads) == 2


def test_one_read_at_a_time_serves_all_who_ask(source_of: Make) -> None:
    store = Store()
    source = source_of(store)
    with store.held():
        threads = [threading.Thread(target=source.current) for _ in range(16)]
        for thread in threads:
            thread.start()
        eventually(lambda: store.reads)
    for thread in threads:
        thread.join(30)
    assert store.most_at_once == 1
    assert len(store.reads) < 16


def test_a_read_has_the_time_that_is_left(source_of: Make) -> None:
    store = Store()
    source_of(store, timeout=7.5).current()
    assert store.timeouts == [7.5]


def test_a_read_that_takes_too_long_ends_at_the_deadline_and_is_counted(source_of: Make) -> None:
    store = Store()
    source = CredentialsSource("memory://pos", stores=store.stores, timeout=0.1)
    with store.held():
        with pytest.raises(DeadlineExceeded) as caught:
            source.current()
        assert source.orphans == 1
    assert caught.value.phase == "reading memory://pos"
    eventually(lambda: source.orphans == 0)


# --- alone, for whoever has a fetcher of his own


def test_current_gives_the_credentials_of_a_file(tmp_path: Path) -> None:
    reference = secret_file(tmp_path / "secrets", CLIENT, A, client_secret_pending=B)
    credentials = CredentialsSource(reference).current()
    assert credentials.client_id == CLIENT
    assert credentials.client_secret == Secret(A)
    assert credentials.pending is not None
    assert credentials.pending.client_secret == Secret(B)
    assert credentials.previous is None


def test_acurrent_is_the_same_for_asyncio_and_trio(source_of: Make) -> None:
    store = Store(ttl=300)
    source = source_of(store)

    async def main() -> ClientCredentials:
        return await source.acurrent()

    first, second = asyncio.run(main()), trio.run(main)
    assert first is second is source.current()
    assert len(store.reads) == 1


def test_acurrent_raises_what_current_raises(source_of: Make) -> None:
    store = Store()
    store.failure = SecretNotFound("nothing there", reference="memory://pos")

    async def main() -> ClientCredentials:
        return await source_of(store).acurrent()

    with pytest.raises(SecretNotFound):
        asyncio.run(main())


def test_a_client_id_is_given_beside_a_reference_that_has_only_the_secret(clock: TickingClock) -> None:
    store = Store()
    store.document = Document(A)
    source = CredentialsSource("memory://pos", client_id=CLIENT, stores=store.stores, clock=clock)
    assert source.client_id == source.current().client_id == CLIENT


def test_its_name_is_the_canonical_reference(source_of: Make) -> None:
    source = source_of(Store())
    assert source.name == str(source.reference) == "memory://pos"
    assert source.reference == SecretReference.parse("memory://pos")


def test_reload_returns_at_once_and_reads_past_every_cache(source_of: Make, events: Events) -> None:
    store = Store(ttl=300)
    source = source_of(store)
    source.current()
    store.put(B)
    with store.held():
        source.reload()  # would not return if it waited
        eventually(lambda: store.reads == [False, True])
    eventually(lambda: events.of(CredentialsChanged))
    assert secret_of(source) == B
    assert store.reads == [False, True]


def test_a_reload_during_a_read_is_followed_by_another_read(source_of: Make) -> None:
    """Else what that read brings, which was there before the signal, would hold for a whole TTL."""
    store = Store(ttl=300)
    source = source_of(store)
    with store.held():
        reader = threading.Thread(target=source.current)
        reader.start()
        eventually(lambda: store.reads)
        store.put(B)
        source.reload()
    reader.join(30)
    assert secret_of(source) == B
    assert store.reads == [False, True]
    assert secret_of(source) == B
    assert len(store.reads) == 2


def test_after_a_reload_that_fails_the_last_good_credentials_serve(source_of: Make, events: Events) -> None:
    store = Store(ttl=300)
    source = source_of(store)
    source.current()
    store.failure = BackendUnavailable("down", reference="memory://pos")
    source.reload()
    eventually(lambda: events.of(CredentialsStale))
    assert secret_of(source) == A


def test_a_reload_before_the_first_read_is_that_read(source_of: Make) -> None:
    store = Store(ttl=300)
    source = source_of(store)
    source.reload()
    assert secret_of(source) == A
    assert store.reads == [True]


def test_a_reload_while_four_reads_hang_does_not_raise() -> None:
    store = Store()
    source = CredentialsSource("memory://pos", stores=store.stores, timeout=0.02)
    with store.held():
        for _ in range(4):
            with pytest.raises(DeadlineExceeded):
                source.current()
        assert source.orphans == 4
        source.reload()
        with pytest.raises(DeadlineExceeded, match="still hang"):
            source.current()
        assert len(store.reads) == 4
    eventually(lambda: source.orphans == 0)
    assert CredentialsSource("memory://pos", stores=store.stores).current().client_id == CLIENT


# --- what changed


def test_changed_values_are_an_event_with_both_versions(source_of: Make, events: Events) -> None:
    store = Store()
    source = source_of(store)
    store.document = Document({"client_id": CLIENT, "client_secret": A}, version="1")
    source.current()
    store.document = Document({"client_id": CLIENT, "client_secret": B}, version="2")
    source.current()
    source.current()
    eventually(lambda: events)
    assert events == [CredentialsChanged("memory://pos", "1", "2")]


def test_another_version_with_the_same_values_is_no_change(source_of: Make, events: Events) -> None:
    store = Store()
    source = source_of(store)
    store.document = Document({"client_id": CLIENT, "client_secret": A}, version="1")
    source.current()
    store.document = Document({"client_id": CLIENT, "client_secret": A}, version="2")
    assert source.current().version == "2"
    assert events == []


@pytest.mark.parametrize("beside", ["pending", "previous"])
def test_a_candidate_beside_is_a_change_too(source_of: Make, events: Events, beside: str) -> None:
    store = Store()
    source = source_of(store)
    source.current()
    store.put(A, **{beside: B})
    source.current()
    eventually(lambda: events.of(CredentialsChanged))


@pytest.mark.parametrize("beside", ["pending", "previous"])
@pytest.mark.parametrize("unusable", ["", None, 5, "ends with a line end\n"])
def test_a_candidate_that_cannot_be_used_is_no_candidate(source_of: Make, beside: str, unusable: object) -> None:
    store = Store()
    store.put(A, **{beside: unusable})
    credentials = source_of(store).current()
    assert (credentials.pending, credentials.previous) == (None, None)


# --- when it cannot be read


def test_while_the_store_is_down_the_last_good_credentials_serve_for_max_stale(
    source_of: Make, clock: TickingClock, events: Events
) -> None:
    store = Store(ttl=10)
    source = source_of(store, max_stale=100)
    source.current()
    store.failure = BackendUnavailable("down", reference="memory://pos", retry_after=3)
    clock.tick(50)
    assert secret_of(source) == A
    eventually(lambda: events)
    assert events == [CredentialsStale("memory://pos", "BackendUnavailable", 50.0, 100.0, "down")]
    clock.tick(99)
    assert secret_of(source) == A
    clock.tick(2)
    with pytest.raises(BackendUnavailable) as caught:
        source.current()
    assert caught.value.retry_after == 3
    eventually(lambda: events.of(CredentialsDropped))


def test_a_lease_holds_longer_than_the_ttl_and_what_is_only_valid_for_a_time_does_not(
    source_of: Make, clock: TickingClock
) -> None:
    for leased, reads in ((False, 2), (True, 1)):
        store = Store(ttl=300.0)
        store.document = Document({"client_id": CLIENT, "client_secret": A}, valid_for=3600, leased=leased)
        source = source_of(store)
        source.current()
        clock.tick(400)
        source.current()
        assert len(store.reads) == reads


def test_a_store_that_hangs_is_given_a_third_of_the_time_once_there_is_something_to_fall_back_to(
    source_of: Make, clock: TickingClock
) -> None:
    store = Store()
    source = source_of(store)
    for _ in range(2):
        source.reading(Deadline(9.0, clock), [])
    source.reading_after(ticket(), Deadline(9.0, clock), [])
    source.reading_after(ticket(), Deadline(9.0, clock), [], whole=True)
    assert store.timeouts == [9.0, 3.0, 3.0, 9.0], "all of it where nothing else is to be done in that time"


@pytest.mark.parametrize("asynchronous", [False, True], ids=["current", "acurrent"])
def test_a_store_that_hangs_and_heeds_no_time_out_is_left_behind_and_that_is_said_once(
    events: Events, asynchronous: bool
) -> None:
    store = Store()
    source = CredentialsSource("memory://pos", stores=store.stores, timeout=0.4, on_event=events)
    source.current()
    store.failure = BackendUnavailable("it hung, and then it failed")
    with store.held():
        credentials = asyncio.run(source.acurrent()) if asynchronous else source.current()
        assert credentials.client_secret.reveal() == A
    eventually(lambda: source.orphans == 0 and len(store.reads) == 2)
    assert len(events.of(CredentialsStale)) == 1


def test_many_who_wait_for_a_store_that_hangs_say_so_once(events: Events) -> None:
    store = Store()
    source = CredentialsSource("memory://pos", stores=store.stores, timeout=0.4, on_event=events)
    source.current()

    async def many() -> None:
        await asyncio.gather(*(source.acurrent() for _ in range(20)))

    with store.held():
        asyncio.run(many())
    assert len(events.of(CredentialsStale)) == 1


def test_a_denial_that_comes_after_its_callers_have_gone_on_counts_as_one() -> None:
    store = Store()
    source = CredentialsSource("memory://pos", stores=store.stores, timeout=0.4, denied_grace=0)
    source.current()
    store.failure = AccessDenied("no")
    with store.held():
        assert source.current().client_secret.reveal() == A
    eventually(lambda: isinstance(source.failure, AccessDenied))
    source.reload()
    eventually(lambda: source.kept is None)


def test_a_failure_that_comes_late_is_no_trouble_for_what_was_read_after_it() -> None:
    store = Store()
    source = CredentialsSource("memory://pos", stores=store.stores, timeout=0.2)
    source.current()
    store.failure = BackendUnavailable("late")
    with store.held():
        source.current()
        eventually(lambda: source._flights.under_way("read") is None)
        good, store.failure = Store(), None
        good.put(B)
        store.read = good.read  # type: ignore[method-assign]
        source.reload()
        eventually(lambda: secret_of(source) == B)
    eventually(lambda: source.orphans == 0)
    assert source.failure is None


def test_a_reload_gives_the_store_all_of_the_time(source_of: Make) -> None:
    store = Store(ttl=300.0)
    source = source_of(store, timeout=9.0)
    source.current()
    source.reload()
    eventually(lambda: store.timeouts == [9.0, 9.0])


def test_a_store_that_hangs_is_not_waited_for_at_each_call(source_of: Make, clock: TickingClock) -> None:
    store = Store()
    source = source_of(store, timeout=9.0)
    source.current()
    reading = store.read

    def hang(*arguments: Any, **options: Any) -> Document:
        clock.tick(options["timeout"])
        return reading(*arguments, **options)

    store.read = hang  # type: ignore[method-assign]
    store.failure = BackendUnavailable("it hangs")
    for _ in range(8):
        source.reading(Deadline(9.0, clock), [])
        clock.tick(1.0)
    assert len(store.reads) == 2, "the good one, and one that hung for 3 s: not again for 9 s"


def test_what_cannot_be_read_is_asked_for_again_after_a_second(source_of: Make, clock: TickingClock) -> None:
    store = Store()
    source = source_of(store)
    for failing in (False, True):
        if failing:
            store.failure = AccessDenied("no", reference="memory://pos")
        source.current()
    asked = len(store.reads)
    clock.tick(0.9)
    source.current()
    assert len(store.reads) == asked
    clock.tick(0.2)
    source.current()
    assert len(store.reads) == asked + 1


def test_with_nothing_kept_the_failure_is_shared_for_a_second(source_of: Make, clock: TickingClock) -> None:
    store = Store()
    store.failure = SecretNotFound("nothing there", reference="memory://pos")
    source = source_of(store)
    failures = []
    for _ in range(3):
        with pytest.raises(SecretNotFound) as caught:
            source.current()
        failures.append(caught.value)
    assert len(store.reads) == 1
    assert len(set(map(id, failures))) == 3, "each is an exception of its own"
    clock.tick(1.1)
    store.failure = None
    assert secret_of(source) == A


@pytest.mark.parametrize("kind", [AccessDenied, SecretNotFound])
def test_denied_or_gone_credentials_serve_for_the_grace_and_are_dropped(
    source_of: Make, clock: TickingClock, events: Events, kind: type[AccessDenied]
) -> None:
    store = Store()
    source = source_of(store, denied_grace=30)
    source.current()
    clock.tick(1000)  # how old they are does not matter
    store.failure = kind("no", reference="memory://pos")
    source.current()
    clock.tick(29)
    assert secret_of(source) == A
    clock.tick(2)
    with pytest.raises(kind):
        source.current()
    eventually(lambda: events.of(CredentialsDropped))
    assert events.names() == ["CredentialsStale", "CredentialsStale", "CredentialsDropped"]
    store.failure = None
    clock.tick(1.1)
    assert secret_of(source) == A


def test_the_grace_begins_anew_once_the_store_has_given_them_again(source_of: Make, clock: TickingClock) -> None:
    store = Store()
    source = source_of(store, denied_grace=30)
    denied = AccessDenied("no", reference="memory://pos")
    for failure in (None, denied, None, denied):
        store.failure = failure
        source.current()
        clock.tick(20)
    store.failure = denied
    assert secret_of(source) == A


def test_max_stale_counts_from_the_first_failed_read_however_long_the_program_has_been_up(
    source_of: Make, clock: TickingClock, events: Events
) -> None:
    store = Store(ttl=None)
    source = source_of(store, max_stale=100)
    source.current()
    clock.tick(86400 * 30)
    store.failure = BackendUnavailable("down", reference="memory://pos")
    assert reading_after(source, ticket(), clock) == A
    assert secret_of(source) == A
    clock.tick(99)
    assert reading_after(source, ticket(), clock) == A
    clock.tick(2)
    with pytest.raises(BackendUnavailable):
        reading_after(source, ticket(), clock)
    eventually(lambda: events.names() == ["CredentialsStale", "CredentialsStale", "CredentialsDropped"])


@pytest.mark.parametrize("first", [0, 1])
def test_the_grace_ends_although_the_store_flaps_between_denied_and_down(
    source_of: Make, clock: TickingClock, first: int
) -> None:
    store = Store()
    source = source_of(store, denied_grace=30)
    source.current()
    failures = AccessDenied("no", reference="memory://pos"), BackendUnavailable("down", reference="memory://pos")
    for number in range(6 + first):  # the grace counts from the first denial
        store.failure = failures[(number + first) % 2]
        assert secret_of(source) == A
        clock.tick(5)
    with pytest.raises(BackendError):
        source.current()


def test_of_a_half_written_document_the_last_good_one_serves_loudly(
    source_of: Make, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store()
    source = source_of(store)
    source.current()
    store.document = Document({"client_id": CLIENT})
    with caplog.at_level(logging.WARNING, logger="secretsource"):
        assert secret_of(source) == A
        eventually(lambda: caplog.records)
    eventually(lambda: events.of(CredentialsStale))
    assert "MalformedSecret" in caplog.text


def test_a_half_written_file_leaves_the_last_good_credentials(tmp_path: Path, clock: TickingClock) -> None:
    reference = secret_file(tmp_path / "secrets", CLIENT, A)
    source = CredentialsSource(reference, clock=clock)
    source.current()
    (tmp_path / "secrets" / f"{CLIENT}.json").write_text('{"client_id": "po')
    assert secret_of(source) == A
    os.unlink(tmp_path / "secrets" / f"{CLIENT}.json")
    clock.tick(1.1)
    assert secret_of(source) == A
    secret_file(tmp_path / "secrets", CLIENT, B)
    clock.tick(1.1)
    assert secret_of(source) == B


@pytest.mark.parametrize(
    ("document", "failure", "why"),
    [
        (Document({"client_id": CLIENT, "client_secret": f"{CANARY}\n"}), None, "client_secret"),
        (Document({"client_id": CLIENT, "key": CANARY}), None, "client_secret"),
        (None, ValueError(CANARY), "ValueError was raised"),
    ],
    ids=["malformed", "another field", "raised"],
)
def test_what_serves_on_and_what_is_dropped_is_said_with_the_reason_and_no_secret(
    source_of: Make,
    clock: TickingClock,
    events: Events,
    caplog: pytest.LogCaptureFixture,
    document: Document | None,
    failure: Exception | None,
    why: str,
) -> None:
    store = Store()
    source = source_of(store, max_stale=10)
    source.current()
    store.document, store.failure = document, failure
    with caplog.at_level(0, logger="secretsource"):
        assert secret_of(source) == A
        clock.tick(11)
        with pytest.raises(SecretSourceError) as caught:
            source.current()
        eventually(lambda: events.names() == ["CredentialsStale", "CredentialsDropped"])
    for event in events.of(CredentialsStale, CredentialsDropped):
        assert isinstance(event, (CredentialsStale, CredentialsDropped))
        assert event.reason == str(caught.value)
        assert why in event.reason
    assert CANARY not in f"{list(events)} {caplog.text}"
    assert str(caught.value) in caplog.text


@pytest.mark.parametrize("bound", [{"environment": "production"}, {"issuer": "https://production.example"}])
def test_a_document_that_is_not_accepted_does_not_take_the_place_of_the_last_good_one(
    source_of: Make, clock: TickingClock, bound: dict[str, str]
) -> None:
    def accept(binding: Binding) -> None:
        check_binding(binding, "memory://pos", issuer="https://test.example", token_url="", environment="test")

    store = Store()
    store.put(A, environment="test")
    source = source_of(store, accept=accept)
    source.current()
    store.put(B, **bound)
    with pytest.raises(ConfigurationError, match="nothing was sent"):
        source.current()
    store.failure = BackendUnavailable("down", reference="memory://pos")
    assert secret_of(source) == A
    clock.tick(1.1)
    store.failure = None
    store.put(C, environment="test")
    assert secret_of(source) == C


class OwnError(BackendUnavailable):
    """A third party's, that takes other arguments than ours."""

    def __init__(self, answer: int) -> None:
        super().__init__(f"it answered {answer}")


@pytest.mark.parametrize(
    ("failure", "kind", "shown"),
    [
        (ValueError(CANARY), BackendUnavailable, "ValueError"),
        (KeyError(CANARY), BackendUnavailable, "KeyError"),
        (TimeoutError(CANARY), BackendUnavailable, "TimeoutError"),
        (OwnError(503), OwnError, "it answered 503"),
        (SystemExit(CANARY), SecretSourceError, "SystemExit"),
    ],
)
def test_what_a_plug_in_raises_becomes_ours_without_its_text(
    source_of: Make, failure: BaseException, kind: type[SecretSourceError], shown: str
) -> None:
    store = Store()
    store.failure = failure
    with pytest.raises(kind) as caught:
        source_of(store).current()
    shows = "".join(traceback.format_exception(caught.value))
    assert shown in str(caught.value)
    assert CANARY not in shows
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("wrong", [None, CANARY, CANARY.encode(), {"client_id": CLIENT, "client_secret": CANARY}, 5])
def test_what_is_no_document_is_refused_and_the_last_good_credentials_serve(source_of: Make, wrong: object) -> None:
    store = Store()
    source = source_of(store)
    source.current()
    store.document = wrong
    assert secret_of(source) == A
    fresh = source_of(store)
    with pytest.raises(MalformedSecret) as caught:
        fresh.current()
    assert type(wrong).__name__ in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("lease", ["300", float("nan"), True, object()])
def test_a_lease_that_is_no_number_is_refused_and_the_last_good_credentials_serve(
    source_of: Make, lease: object
) -> None:
    store = Store()
    source = source_of(store)
    source.current()
    store.document = Document({"client_id": CLIENT, "client_secret": B}, valid_for=lease)  # type: ignore[arg-type]
    assert secret_of(source) == A
    with pytest.raises(MalformedSecret):
        source_of(store).current()


# --- reads after a rejection


def reading_after(source: CredentialsSource, mark: int, clock: TickingClock) -> str:
    return source.reading_after(mark, Deadline(10, clock), []).credentials.client_secret.reveal()


def test_a_forced_read_passes_the_caches(source_of: Make, clock: TickingClock) -> None:
    store = Store(ttl=300)
    source = source_of(store)
    source.current()
    store.put(B)
    assert reading_after(source, ticket(), clock) == B
    assert store.reads == [False, True]


def test_a_read_that_began_after_the_mark_serves(source_of: Make, clock: TickingClock) -> None:
    store = Store(ttl=300)
    source = source_of(store)
    mark = ticket()
    for _ in range(3):
        reading_after(source, mark, clock)
    assert store.reads == [True]


def test_a_read_that_is_not_fresh_does_not_serve_for_a_forced_one(source_of: Make, clock: TickingClock) -> None:
    store = Store(ttl=300)
    source = source_of(store)
    mark = ticket()
    source.current()
    reading_after(source, mark, clock)
    assert store.reads == [False, True]


def test_dear_stores_have_four_forced_reads_and_one_more_each_five_seconds(
    source_of: Make, clock: TickingClock
) -> None:
    store = Store(ttl=300)
    source = source_of(store)
    source.current()

    def forced(times: int) -> int:
        before = len(store.reads)
        for _ in range(times):
            assert reading_after(source, ticket(), clock) == A
        return len(store.reads) - before

    assert forced(10) == 4
    clock.tick(5.1)
    assert forced(3) == 1
    clock.tick(200)
    assert forced(10) == 4


def test_a_forced_read_that_brings_other_values_is_free(source_of: Make, clock: TickingClock) -> None:
    store = Store(ttl=300)
    source = source_of(store)
    source.current()
    for number in range(12):
        store.put(f"{A}{number}")
        assert reading_after(source, ticket(), clock) == f"{A}{number}"
    assert len(store.reads) == 13


@pytest.mark.parametrize("ttl", [0.0, None])
def test_cheap_stores_have_any_number_of_forced_reads(source_of: Make, clock: TickingClock, ttl: float | None) -> None:
    store = Store(ttl=ttl)
    source = source_of(store)
    source.current()
    for _ in range(12):
        reading_after(source, ticket(), clock)
    assert len(store.reads) == 13


@pytest.mark.parametrize("ttl", [0.0, 300.0])
def test_a_forced_read_of_a_store_that_is_down_asks_once_and_gives_the_last_good_credentials(
    source_of: Make, clock: TickingClock, ttl: float
) -> None:
    store = Store(ttl=ttl)
    source = source_of(store)
    source.current()
    store.failure = BackendUnavailable("down", reference="memory://pos")
    assert reading_after(source, ticket(), clock) == A
    assert store.reads == [False, True]


def test_a_forced_read_that_meets_one_of_a_store_that_goes_down_ends(source_of: Make, clock: TickingClock) -> None:
    store = Store(ttl=300)
    source = source_of(store)
    mark = ticket()
    source.current()  # began after the mark, and is no fresh one
    store.failure = BackendUnavailable("down", reference="memory://pos")
    assert reading_after(source, mark, clock) == A
    assert store.reads == [False, True]


def test_a_budget_refills_to_its_size_and_no_further(clock: TickingClock) -> None:
    budget = Budget(2, 5.0, clock)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    clock.tick(4.9)
    assert not budget.take()
    clock.tick(0.2)
    assert budget.take()
    budget.give_back()
    assert [budget.take() for _ in range(2)] == [True, False]
    clock.tick(3600)
    assert [budget.take() for _ in range(3)] == [True, True, False]


# --- what else may stand for credentials


def test_a_token_source_takes_four_forms_of_credentials_and_no_other() -> None:
    given = ClientCredentials(CLIENT, A)
    store = Store()
    for credentials in (
        "env://POS",
        SecretReference.parse("env://POS"),
        given,
        CredentialsSource("memory://pos", stores=store.stores),
        lambda: given,
    ):
        TokenSource(credentials, token_url="http://127.0.0.1:9/token")
    for wrong in (None, 5, b"env://POS", {"client_id": CLIENT}):
        with pytest.raises(ConfigurationError, match="credentials cannot be a"):
            TokenSource(wrong, token_url="http://127.0.0.1:9/token")  # type: ignore[arg-type]


@pytest.mark.parametrize("beside", [{"client_id": CLIENT}, {"stores": {}}])
def test_client_id_and_stores_go_with_a_reference_only(beside: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="go with a reference"):
        TokenSource(ClientCredentials(CLIENT, A), token_url="http://127.0.0.1:9/token", **beside)  # type: ignore[arg-type]


def test_an_unknown_store_is_named_when_the_source_is_made() -> None:
    with pytest.raises(ConfigurationError):
        CredentialsSource("nosuchstore:pos")


def test_threads_and_their_failures_share_one_read(source_of: Make) -> None:
    store = Store(ttl=300)
    store.failure = AccessDenied("no", reference="memory://pos")
    source = source_of(store)
    outcomes = in_threads(16, source.current)
    assert [type(outcome) for outcome in outcomes] == [AccessDenied] * 16
    assert len(store.reads) == 1
    assert len(set(map(id, outcomes))) == 16


def test_the_promoted_secret_is_the_same_credentials_to_whoever_compares_values(
    source_of: Make, events: Events
) -> None:
    store = Store()
    source = source_of(store)
    store.put(A, pending=B)
    before = source.current()
    store.put(B, previous=A)
    after = source.current()
    assert before.pending is not None
    assert before.pending.client_secret == after.client_secret
    assert after.previous is not None
    assert after.previous.client_secret == before.client_secret != Secret(C)
