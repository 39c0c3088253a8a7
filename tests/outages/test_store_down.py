"""A store is out of order, in each of its ways, below a program that needs tokens all the while."""

from __future__ import annotations

from pathlib import Path

import pytest

from secretsource import CredentialsRejected
from secretsource.backends.vault import visit as visit_module
from secretsource.events import CredentialsRecovered, CredentialsStale
from secretsource.testing import TickingClock

from ..stores import CLIENT, B, eventually
from .kept_places import CASES, Place
from .scenario import STALL, Calls, Site, call, landed

LIFETIME = 140.0
"""Seconds: what is dear is read at the third renewal, and what is denied serves until then."""


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vault's backend waits in real time before it asks again."""
    monkeypatch.setattr(visit_module, "WAITS_BETWEEN_ATTEMPTS", (0.002, 0.002))


def living_in(place: Place, clock: TickingClock, timeout: float = 10.0) -> Site:
    return Site(lifetime=LIFETIME, clock=clock, credentials=place.reference, stores=place.stores, timeout=timeout)


def each_renewal(site: Site, clock: TickingClock, times: int) -> Calls:
    seen = Calls()
    for _ in range(times):
        clock.tick(LIFETIME)
        seen.append(call(site.source, clock))
    return seen


@pytest.mark.parametrize("name", CASES)
def test_while_credentials_are_kept_tokens_are_renewed_and_nobody_notices(
    name: str, tmp_path: Path, clock: TickingClock
) -> None:
    case = CASES[name]
    with case.place(tmp_path) as place, living_in(place, clock, case.timeout) as site:
        site.source.token(timeout=20)
        with place.down():
            seen = each_renewal(site, clock, 3)
        assert seen.failures == []
        assert len(seen.tokens) == 3
        assert seen.slowest < case.timeout
        eventually(lambda: site.events.of(CredentialsStale))
        assert each_renewal(site, clock, 1).failures == []
        eventually(lambda: site.events.of(CredentialsRecovered))


@pytest.mark.parametrize("name", CASES)
def test_a_program_that_starts_meanwhile_gets_a_clear_error_quickly_and_a_token_one_back_off_after_it(
    name: str, tmp_path: Path, clock: TickingClock
) -> None:
    case = CASES[name]
    with case.place(tmp_path) as place, living_in(place, clock, case.timeout) as site:
        with place.down():
            seen = Calls([call(site.source, clock)])
            at_once = call(site.source, clock)
        assert seen.slowest < (case.timeout if case.hangs else 0) + STALL
        assert at_once.took < STALL
        for error in (*seen.failures, at_once.outcome):
            assert isinstance(error, case.errors)
            assert place.reference in error.message
            assert case.says in str(error)
            assert error.hint
            assert error.__cause__ is error.__context__ is None
        next_try = site.source.status().next_try
        assert next_try is not None
        assert 0.6 * case.back_off <= next_try <= case.back_off + 0.001
        assert site.issuer.requests == []
        landed(site.source)
        clock.tick(case.back_off + 0.1)
        assert len(site.calls(1, every=1).tokens) == 1


@pytest.mark.parametrize("name", ["vault refused", "aws refused", "file gone", "file half written", "plug-in raising"])
def test_a_secret_that_was_changed_during_the_outage_is_found_within_six_seconds_after_it(
    name: str, tmp_path: Path, clock: TickingClock
) -> None:
    with CASES[name].place(tmp_path) as place, living_in(place, clock) as site:
        site.source.token()
        with place.down():
            site.issuer.set_secret(CLIENT, B)
            clock.tick(LIFETIME)
            seen = site.calls(20, every=0.5)
            assert {type(error) for error in seen.failures} == {CredentialsRejected}
            assert seen.tokens == []
        place.put(B)
        site.calls_until_one_succeeds(within=6, every=0.25)
