"""Whatever happens at the same time in one process, nobody gets a token that another identity asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyFailure

from secretsource import TokenAuth
from secretsource.clock import SYSTEM_CLOCK
from secretsource.events import Emitter
from secretsource.flight import Flights
from secretsource.identity import Identity
from secretsource.source import _TokenCache

from .world import Call, Change, MixUp, World, worlds

WAYS = ["token", "token", "atoken", "header", "aheader", "force", "verify", "averify"]
CHANGES = [
    "time",
    "time",
    "rotation",
    "secret at the issuers",
    "secret in the store",
    "client ID",
    "revocation",
    "reload",
    "close",
    "narrowed scope",
    "fault",
]
ONE, TWO = "https://one.example/", "https://two.example/"
VALUES: dict[str, list[Any]] = {
    "scope": ["", "a", "b", "a b", ("b", "a", "a")],
    "audience": ["", "x", "y"],
    "resource": [(), ONE, TWO, (TWO, ONE), (ONE, TWO, ONE)],
    "extra": [{"tenant": "1"}, {"tenant": "2"}, {"tenant": "1", "region": "eu"}],
}
requests = st.fixed_dictionaries({}, optional={part: st.sampled_from(values) for part, values in VALUES.items()})
changes = st.builds(Change, st.sampled_from(CHANGES), st.integers(0, 30))


@st.composite
def programs(draw: st.DrawFn) -> list[tuple[list[Call], list[Change]]]:
    """Steps of calls and changes. The parties are few and near to one another, and the requests differ in one part."""
    first, part, plain = draw(st.integers(0, 11)), draw(st.sampled_from(list(VALUES))), draw(requests)
    asked = [plain, *({**plain, part: value} for value in VALUES[part])]
    calls = st.builds(Call, st.integers(first, first + 2), st.sampled_from(WAYS), st.sampled_from(asked))
    steps = st.tuples(st.lists(calls, min_size=4, max_size=14), st.lists(changes, max_size=3))
    return draw(st.lists(steps, min_size=2, max_size=6))


# Several requests find out together that their secret is no longer good, and share what comes of it.
A_SECRET_CHANGES_UNDER_ALL: list[tuple[list[Call], list[Change]]] = [
    ([Call(3, "token", {})], []),
    ([], [Change("rotation", 6), Change("time", 4)]),
    ([Call(3, way, {"scope": scope}) for scope in ("a", "b", "a b", "") for way in ("token", "atoken")], []),
]
EVERY_PARTY: list[tuple[list[Call], list[Change]]] = [
    ([Call(party, way, request) for party in range(14) for way in ("token", "atoken")], [])
    for request in ({}, {"scope": "b"})
]
EACH_PART_OF_A_REQUEST: list[tuple[list[Call], list[Change]]] = [
    ([Call(1, way, {part: value}) for value in values for way in ("token", "atoken")], [])
    for part, values in VALUES.items()
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with worlds(tmp_path_factory.mktemp("world")) as world:
        yield world


def nobody_gets_what_is_not_theirs(world: World, *, examples: int, always_the_same: bool = True) -> None:
    """The property: hypothesis thinks of programs, and each of their steps happens at once."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=always_the_same,
        database=None,
        report_multiple_bugs=False,
        phases=[
            Phase.explicit,
            Phase.generate,
        ],  # threads take another turn at each run, which leaves nothing to shrink
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    @example(EVERY_PARTY)
    @example(EACH_PART_OF_A_REQUEST)
    @example(A_SECRET_CHANGES_UNDER_ALL)
    def run(program: list[tuple[list[Call], list[Change]]]) -> None:
        world.begin()
        try:
            for step in program:
                world.step(*step)
        finally:
            world.end()

    run()


@pytest.mark.slow
def test_nor_does_anybody_in_other_programs_each_time(world: World) -> None:
    nobody_gets_what_is_not_theirs(world, examples=500, always_the_same=False)


def test_nobody_gets_a_token_of_another_identity(world: World) -> None:
    world.checked = 0
    nobody_gets_what_is_not_theirs(world, examples=30)
    assert world.checked > 500, "most calls came to nothing"


# --- the same property fails where a key, a flight or a header is wrong

Plant = Callable[[pytest.MonkeyPatch], None]
EMPTY: dict[str, Any] = {"scopes": (), "resources": (), "extra": ()}
PARTS = Identity._fields


def _one_cache_and_one_set_of_flights(patch: pytest.MonkeyPatch) -> None:
    """What all sources of a process would share by the key of an identity alone, as a fleet shares its tokens."""
    cache, flights = _TokenCache(SYSTEM_CLOCK), Flights[Any]("token", Emitter())
    patch.setattr("secretsource.source._TokenCache", lambda clock: cache)
    patch.setattr("secretsource.source.Flights", lambda *_: flights)


def _a_key_without(part: str) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        whole = Identity.digest
        patch.setattr(Identity, "digest", lambda self: whole(self._replace(**{part: EMPTY.get(part, "")})))

    return plant


def _a_shared_key_without(part: str) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        _one_cache_and_one_set_of_flights(patch)
        _a_key_without(part)(patch)

    return plant


def _one_flight_for_all_requests_of_a_source(patch: pytest.MonkeyPatch) -> None:
    join = Flights.join

    def joined(self: Flights[Any], key: Hashable, *rest: Any, **named: Any) -> Any:
        return join(self, b"same" if isinstance(key, bytes) else key, *rest, **named)

    patch.setattr(Flights, "join", joined)


def _a_cache_that_ignores_its_key(patch: pytest.MonkeyPatch) -> None:
    get, put = _TokenCache.get, _TokenCache.put
    patch.setattr(_TokenCache, "get", lambda self, _: get(self, b"same"))
    patch.setattr(_TokenCache, "put", lambda self, _, kept: put(self, b"same", kept))


def _a_recovery_whose_token_is_for_whoever_waits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Identity, "__eq__", lambda self, other: True)
    patch.setattr(Identity, "__hash__", lambda self: 0)


class _WithoutPart(dict[Any, Any]):
    """The configured sources, with one part of client, environment and file ignored."""

    def __init__(self, ignored: int) -> None:
        super().__init__()
        self.ignored = ignored

    def _key(self, key: Any) -> Any:
        return tuple(part for place, part in enumerate(key) if place != self.ignored)

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(self._key(key), default)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        return super().setdefault(self._key(key), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(self._key(key), value)


def _configured_sources_without(place: int) -> Plant:
    return lambda patch: patch.setattr("secretsource.source._configured", _WithoutPart(place))


def _a_header_of_the_plainest_request(patch: pytest.MonkeyPatch) -> None:
    made = TokenAuth.__init__
    patch.setattr(TokenAuth, "__init__", lambda self, source, **request: made(self, source))


def _one_header_for_all(patch: pytest.MonkeyPatch) -> None:
    made = TokenAuth.__init__
    first: list[Any] = []

    def make(self: TokenAuth, source: Any, **request: Any) -> None:
        first[:] = first or [source]
        made(self, first[0], **request)

    patch.setattr(TokenAuth, "__init__", make)


PLANTED: dict[str, Plant] = {
    **{f"a key without {part}": _a_key_without(part) for part in PARTS[5:]},
    **{f"a shared key without {part}": _a_shared_key_without(part) for part in PARTS[:5]},
    "one flight for all requests of a source": _one_flight_for_all_requests_of_a_source,
    "a cache that ignores its key": _a_cache_that_ignores_its_key,
    "a recovery whose token is for whoever waits": _a_recovery_whose_token_is_for_whoever_waits,
    "configured sources without the client": _configured_sources_without(1),
    "configured sources without the environment": _configured_sources_without(2),
    "a header of the plainest request": _a_header_of_the_plainest_request,
    "one header for all": _one_header_for_all,
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mix_up_is_found(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    world.mixed_up = 0
    with suppress(MixUp, FlakyFailure):  # the latter where it does not show a second time
        nobody_gets_what_is_not_theirs(world, examples=50)
    assert world.mixed_up


def test_a_cache_that_all_sources_share_by_their_keys_would_mix_up_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _one_cache_and_one_set_of_flights(monkeypatch)
    nobody_gets_what_is_not_theirs(world, examples=10)
