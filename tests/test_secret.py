"""Secret: nothing shows it but reveal()."""

from __future__ import annotations

import copy
import hmac
import io
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretsource.secret import Fingerprints, Secret

CANARY = "canary-Zq7x"

SHOWN: dict[str, Callable[[Secret], object]] = {
    "repr": repr,
    "str": str,
    "format": format,
    "format with a width": lambda secret: f"{secret:>80}",
    "conversion": lambda secret: f"{secret!r} {secret!s} {secret!a}",
    "percent": lambda secret: "%s %r %a" % (secret, secret, secret),  # noqa: UP031
    "str.format": lambda secret: "{0} {0!r}".format(secret),  # noqa: UP032
    "in a list": lambda secret: str([secret]),
    "in a dict": lambda secret: repr({"client_secret": secret}),
    "pprint": pprint.pformat,
    "json with a default": lambda secret: json.dumps({"client_secret": secret}, default=str),
    "dir": lambda secret: [repr(getattr(secret, name, None)) for name in dir(secret)],
    "slots": lambda secret: [repr(getattr(secret, name)) for name in type(secret).__slots__],
    "copy": lambda secret: repr(copy.copy(secret)),
    "deepcopy": lambda secret: repr(copy.deepcopy({"client_secret": secret})),
}


@dataclass
class Settings:
    name: str
    secret: Secret


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_a_mask_is_shown_in_its_place(show: Callable[[Secret], object]) -> None:
    shown = str(show(Secret(CANARY)))
    assert CANARY not in shown
    assert "Secret" in shown


def test_only_reveal_gives_it() -> None:
    assert Secret(CANARY).reveal() == CANARY
    assert repr(Secret(CANARY)) == "<Secret ⋯ use .reveal()>"


def test_it_has_no_dict_and_no_length_and_is_no_text() -> None:
    secret = Secret(CANARY)
    with pytest.raises(TypeError):
        vars(secret)
    asks: tuple[Callable[[Any], object], ...] = (len, iter, hash, bytes, json.dumps, "".join)
    for ask in asks:
        with pytest.raises(TypeError) as caught:
            ask(secret)
        assert CANARY not in str(caught.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_is_refused_and_says_what_to_do_instead(protocol: int) -> None:
    for holder in (Secret(CANARY), [Secret(CANARY)], Settings("pos", Secret(CANARY))):
        with pytest.raises(TypeError, match=r"not pickled.*the reference") as caught:
            pickle.dumps(holder, protocol)
        assert CANARY not in str(caught.value)


def test_its_state_is_not_given_away_either() -> None:
    with pytest.raises(TypeError, match="is not pickled"):
        Secret(CANARY).__getstate__()


def test_a_log_shows_the_mask() -> None:
    stream = io.StringIO()
    logger = logging.Logger("test")  # noqa: LOG001 # its own, known to nobody else
    logger.addHandler(logging.StreamHandler(stream))
    logger.debug("the secret is %s, or %r", Secret(CANARY), Secret(CANARY))
    logger.debug({"client_secret": Secret(CANARY)})
    assert stream.getvalue().count("<Secret ⋯") == 3
    assert CANARY not in stream.getvalue()


def test_a_traceback_with_local_variables_shows_the_mask() -> None:
    def fail(secret: Secret) -> None:
        settings = {"client_secret": secret}
        raise ValueError(f"{secret} in {settings}")

    try:
        fail(Secret(CANARY))
    except ValueError as error:
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "settings = " in shown
    assert CANARY not in shown


def test_a_dataclass_that_holds_it_can_be_turned_into_a_dict() -> None:
    settings = Settings("pos", Secret(CANARY))
    assert asdict(settings)["secret"] is settings.secret
    assert astuple(settings) == ("pos", settings.secret)
    assert CANARY not in repr(settings) + repr(asdict(settings))


def test_copies_are_the_same_object() -> None:
    secret = Secret(CANARY)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_it_cannot_be_changed() -> None:
    secret = Secret(CANARY)
    for name in ("_reveal", "anything"):
        with pytest.raises(AttributeError, match="cannot be changed"):
            setattr(secret, name, lambda: "other")
        with pytest.raises(AttributeError, match="cannot be changed"):
            delattr(secret, name)
    assert secret.reveal() == CANARY


def test_it_is_made_from_text_alone() -> None:
    for other in (CANARY.encode(), None, 5, Secret(CANARY)):
        with pytest.raises(TypeError, match="made from a str") as caught:
            Secret(other)  # type: ignore[arg-type]
        assert CANARY not in str(caught.value)


@given(st.text(), st.text())
def test_two_are_equal_if_their_texts_are(one: str, other: str) -> None:
    assert Secret(one) == Secret(one)
    assert (Secret(one) == Secret(other)) is (one == other)
    assert (Secret(one) != Secret(other)) is (one != other)


def test_half_a_character_is_compared_like_any_other() -> None:
    # json.loads makes such texts; an encoding error would carry the whole text.
    half = json.loads('"abc\\ud800"')
    assert Secret(half) == Secret(half)
    assert Secret(half) != Secret("abc")
    assert Fingerprints().of(Secret(half))


def test_comparing_takes_the_same_time_wherever_two_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    # No measurement is steady enough on a busy machine: the standard library's promise must do.
    compared: list[str] = []
    constant_time = hmac.compare_digest

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append("once")
        return constant_time(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    assert Secret(CANARY) != Secret("x" + CANARY[1:])
    assert compared == ["once"]


def test_it_never_equals_a_plain_text() -> None:
    assert Secret(CANARY) != CANARY
    assert Secret(CANARY).__eq__(CANARY) is NotImplemented


def test_an_http_client_refuses_a_header_that_was_built_from_the_mask() -> None:
    with pytest.raises(UnicodeEncodeError):
        httpx.Request("GET", "https://pos.example.com", headers={"Authorization": f"Bearer {Secret(CANARY)}"})


@given(st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3))
def test_fingerprints_tell_whether_values_are_the_same(one: list[str], other: list[str]) -> None:
    fingerprints = Fingerprints()
    first, second = (fingerprints.of(*map(Secret, texts)) for texts in (one, other))
    assert (first == second) is (one == other)
    assert first == fingerprints.of(*map(Secret, one))


def test_fingerprints_mean_nothing_outside_their_object() -> None:
    assert Fingerprints().of(Secret(CANARY)) != Fingerprints().of(Secret(CANARY))
    assert CANARY.encode() not in Fingerprints().of(Secret(CANARY))
