"""The key of an identity: another one for whatever differs, and the same for what does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from secretsource.identity import Identity

PLAIN = Identity("", "", "", "", "")
# Few characters, all of which could be taken for a length or for what separates two parts.
texts = st.text("1:2,a", max_size=4)
names = st.text("1:2,a", min_size=1, max_size=3)
pairs = st.lists(
    st.tuples(names, st.text("1:2,\n", min_size=1, max_size=3)), max_size=2, unique_by=lambda pair: pair[0]
)
of_type: dict[str, st.SearchStrategy[Any]] = {
    "scopes": st.sets(names, max_size=3).map(lambda some: tuple(sorted(some))),
    "resources": st.sets(names.map("a:{}".format), max_size=2).map(lambda some: tuple(sorted(some))),
    "extra": pairs.map(lambda some: tuple(sorted(some))),
}
strategies = {part: of_type.get(part, texts) for part in Identity._fields}
identities = st.builds(Identity, **strategies)
quick = settings(max_examples=150, deadline=None, derandomize=True, database=None)
planted = settings(quick, max_examples=2000, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


def _differing_in_one_part(run: settings) -> None:
    @run
    @given(st.data(), identities, st.sampled_from(Identity._fields))
    def differ(data: st.DataObject, one: Identity, part: str) -> None:
        other = one._replace(**{part: data.draw(strategies[part], part)})
        assert (one.digest() == other.digest()) == (one == other)

    differ()


def _cut_in_two_ways(run: settings) -> None:
    """The same characters in the same order, divided among the parts at other places."""
    places = st.lists(st.integers(0, 9), min_size=len(Identity._fields) - 1, max_size=len(Identity._fields) - 1)

    def cut(text: str, at: list[int]) -> Identity:
        ends = sorted(at)
        parts = [text[begin:end] for begin, end in zip([0, *ends], [*ends, None], strict=True)]
        environment, issuer, auth_method, credentials, client_id, scopes, audience, resource, extra = parts
        who = PLAIN._replace(environment=environment, issuer=issuer, auth_method=auth_method, credentials=credentials)
        return who._replace(
            client_id=client_id,
            scopes=tuple(scopes),
            audience=audience,
            resources=(resource,) if resource else (),
            extra=tuple(zip(extra[::2], extra[1::2], strict=False)),
        )

    @run
    @given(st.text("1:,", min_size=3, max_size=9), places, places)
    def differ(text: str, here: list[int], there: list[int]) -> None:
        one, other = cut(text, here), cut(text, there)
        assume(one != other)
        assert one.digest() != other.digest()

    differ()


def test_two_that_differ_in_one_part_have_two_keys() -> None:
    _differing_in_one_part(quick)


def test_no_part_runs_into_another() -> None:
    _cut_in_two_ways(quick)


@quick
@given(st.lists(names, max_size=3), st.lists(names.map("a:{}".format), max_size=3))
def test_order_and_repeats_do_not_matter(scopes: list[str], resources: list[str]) -> None:
    once = PLAIN.asking(scope=scopes, resource=resources)
    again = PLAIN.asking(scope=[*reversed(scopes), *scopes], resource=[*reversed(resources), *resources])
    assert once.digest() == again.digest()


@pytest.mark.parametrize("part", Identity._fields)
def test_a_key_without_a_part_is_found(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, empty = Identity.digest, getattr(PLAIN, part)
    monkeypatch.setattr(Identity, "digest", lambda self: whole(self._replace(**{part: empty})))
    with pytest.raises(AssertionError):
        _differing_in_one_part(planted)


def _joined(self: Identity) -> bytes:
    return "".join(str(part) for part in self).encode()


def _separated(self: Identity) -> bytes:
    return ",".join([*self[:5], *self.scopes, self.audience, *self.resources, *map(":".join, self.extra)]).encode()


@pytest.mark.parametrize("key", [_joined, _separated])
def test_a_key_without_lengths_is_found(key: Callable[[Identity], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Identity, "digest", key)
    with pytest.raises(AssertionError):
        _cut_in_two_ways(planted)
