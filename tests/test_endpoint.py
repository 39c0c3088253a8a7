"""endpoint: what is asked, how a client proves itself, and what is made of the answer. No network, no time."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, unquote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secretsource.answer import Granted, Refusal, read_answer
from secretsource.credentials import Binding, ClientCredentials
from secretsource.discovery import well_known_urls
from secretsource.endpoint import IssuerProfile, check_auth_method, check_binding, token_request
from secretsource.errors import (
    ConfigurationError,
    CredentialsRejected,
    InvalidTokenResponse,
    IssuerUnavailable,
    TokenRequestRefused,
)
from secretsource.exchange import Answer, Outgoing
from secretsource.identity import Identity
from secretsource.testing import TickingClock
from secretsource.urls import check_url, http_parts, same_issuer

URL = "https://issuer.test/connect/token"
CLIENT = Identity("", "https://issuer.test/", "", "env://POS", "pos")
CANARY = "canary-7Gq2vB9xLw4t/+ %"
STANDARD = IssuerProfile()


def refused(call: Callable[[], object]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        call()
    return caught.value


# --- identity ------------------------------------------------------------------------------------------------------

# Few characters, those that could be taken for a separator or a length, so that near misses are drawn often.
_names = st.text("a1:,", min_size=1, max_size=3)
_requests = st.fixed_dictionaries(
    {
        "scope": st.sets(_names, max_size=3),
        "audience": st.text("a1:,", max_size=3),
        "resource": st.sets(_names.map(lambda name: f"a:{name}"), max_size=2),
        "extra": st.dictionaries(_names, st.text("a1:\n", min_size=1, max_size=3), max_size=2),
    }
)


@settings(max_examples=200)
@given(_requests, _requests)
def test_two_requests_have_one_digest_only_if_they_are_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (CLIENT.asking(**one).digest() == CLIENT.asking(**other).digest()) == (one == other)


@settings(max_examples=50)
@given(_requests, st.randoms(use_true_random=False))
def test_order_and_repeats_of_scopes_and_resources_do_not_matter(request: dict[str, Any], random: Any) -> None:
    def shuffled(names: set[str]) -> list[str]:
        some = sorted(names) * 2
        random.shuffle(some)
        return some

    once = CLIENT.asking(**request)
    again = CLIENT.asking(
        scope=" ".join(shuffled(request["scope"])),
        audience=request["audience"],
        resource=shuffled(request["resource"]),
        extra=dict(reversed(request["extra"].items())),
    )
    assert again == once
    assert again.digest() == once.digest()


@pytest.mark.parametrize("part", ["environment", "issuer", "auth_method", "credentials", "client_id"])
def test_every_part_of_who_asks_is_in_the_digest(part: str) -> None:
    changed: dict[str, Any] = {part: "another"}
    assert CLIENT._replace(**changed).digest() != CLIENT.digest()


def test_parts_do_not_run_into_each_other() -> None:
    shifted = [
        CLIENT._replace(environment="ab", issuer="c"),
        CLIENT._replace(environment="a", issuer="bc"),
        CLIENT._replace(scopes=("a", "b")),
        CLIENT._replace(scopes=("ab",)),
        CLIENT._replace(scopes=("a",), resources=("b",)),
        CLIENT._replace(resources=("a", "b")),
        CLIENT._replace(extra=(("a", "b"),)),
        CLIENT._replace(audience="a", scopes=("b",)),
        CLIENT._replace(audience="ab"),
    ]
    assert len({identity.digest() for identity in shifted}) == len(shifted)


def test_a_digest_has_16_bytes_whatever_characters_there_are() -> None:
    # Names of files may hold bytes that are no text, which Python gives as half a character.
    strange = CLIENT._replace(credentials="file:\udcff")
    assert len({CLIENT.digest(), strange.digest(), CLIENT._replace(credentials="file:\udcfe").digest()}) == 3
    assert len(strange.digest()) == 16


def test_the_version_of_the_secret_is_no_part_of_the_identity() -> None:
    assert "version" not in Identity._fields


def test_what_is_not_asked_anew_stays_and_extra_merges_by_name() -> None:
    default = CLIENT.asking(scope="b a", audience="api", resource="urn:x", extra={"one": "1", "two": "2"})
    assert default.asking() == default
    assert default.asking(scope=()).scopes == ()
    assert default.asking(audience="").audience == ""
    assert default.asking(scope="c").extra == default.extra
    assert dict(default.asking(extra={"two": "zwei", "three": "3"}).extra) == {"one": "1", "two": "zwei", "three": "3"}


@pytest.mark.parametrize(
    "scope", ['a"b', "a\\b", "ä", "a\x00", "a\x7f", ["a b"], [""], [b"a"], [None], 5, {"a": 5}.items()]
)
def test_a_scope_that_cannot_be_sent_is_refused(scope: Any) -> None:
    assert re.search(r"\bscope\b", str(refused(lambda: CLIENT.asking(scope=scope))))


@pytest.mark.parametrize("audience", ["a b", "a\n", "ä", b"a", 5])
def test_an_audience_that_cannot_be_sent_is_refused(audience: Any) -> None:
    assert "audience" in str(refused(lambda: CLIENT.asking(audience=audience)))


@pytest.mark.parametrize("resource", ["orders", "https://a/#b", "https://a/ b", "https://ä/", [""], [None], 5])
def test_a_resource_is_an_absolute_uri_without_a_fragment(resource: Any) -> None:
    assert re.search(r"\bresource\b", str(refused(lambda: CLIENT.asking(resource=resource))))


@pytest.mark.parametrize(
    "name",
    [
        "grant_type",
        "scope",
        "audience",
        "resource",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
    ],
)
def test_extra_may_not_set_what_the_library_sets(name: str) -> None:
    assert repr(name) in str(refused(lambda: CLIENT.asking(extra={name: CANARY})))
    assert CANARY not in str(refused(lambda: CLIENT.asking(extra={name: CANARY})))


@pytest.mark.parametrize(
    "extra", [{"a": ""}, {"": "a"}, {"a": 5}, {"a": None}, {5: "a"}, {"a": "a\ud800"}, {"a\udfff": "a"}, "a=b", ["a"]]
)
def test_extra_is_a_mapping_of_texts_that_are_not_empty(extra: Any) -> None:
    assert "extra" in str(refused(lambda: CLIENT.asking(extra=extra)))


# --- the request ---------------------------------------------------------------------------------------------------


def asked(
    credentials: ClientCredentials,
    method: str = "client_secret_basic",
    profile: IssuerProfile = STANDARD,
    identity: Identity = CLIENT,
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The headers and the form of the request, as a server reads them."""
    headers, body = token_request(URL, identity, credentials, method, profile).open()
    assert body is not None
    form = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    return {name.lower(): value for name, value in headers.items()}, form


def basic_pair(headers: Mapping[str, str]) -> bytes:
    scheme, _, encoded = headers["authorization"].partition(" ")
    assert scheme == "Basic"
    return base64.b64decode(encoded, validate=True)


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("plain-._~", "plain-._~"),
        (" ", "%20"),
        ("%", "%25"),
        ("&", "%26"),
        ("+", "%2B"),
        (":", "%3A"),
        ("/", "%2F"),
        ("é", "%C3%A9"),
        ("€", "%E2%82%AC"),
        (" %&+£€", "%20%25%26%2B%C2%A3%E2%82%AC"),  # RFC 6749 appendix B
        ("a:b", "a%3Ab"),
    ],
)
def test_basic_form_encodes_id_and_secret(text: str, encoded: str) -> None:
    headers, _ = asked(ClientCredentials(text, text))
    assert basic_pair(headers).decode() == f"{encoded}:{encoded}"


_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=50)
@given(_texts, _texts)
def test_an_issuer_that_form_decodes_basic_finds_id_and_secret_again(client_id: str, secret: str) -> None:
    headers, _ = asked(ClientCredentials(client_id, secret))
    found = basic_pair(headers).decode("ascii").split(":")
    assert [unquote_plus(part) for part in found] == [client_id, secret]
    assert [unquote(part) for part in found] == [client_id, secret]  # some decode only what has a percent sign


@settings(max_examples=50)
@given(_texts, _texts)
def test_an_issuer_that_reads_the_body_finds_id_and_secret_again(client_id: str, secret: str) -> None:
    _, form = asked(ClientCredentials(client_id, secret), "client_secret_post")
    assert form[-2:] == [("client_id", client_id), ("client_secret", secret)]


@pytest.mark.parametrize(
    ("encoding", "secret", "pair"),
    [
        ("raw", "a b%+é€:", b"pos:a b%+\xc3\xa9\xe2\x82\xac:"),
        ("raw-latin1", "a b%+é:", b"pos:a b%+\xe9:"),
    ],
)
def test_an_issuer_that_does_not_decode_gets_the_pair_as_it_is(encoding: Any, secret: str, pair: bytes) -> None:
    headers, _ = asked(ClientCredentials("pos", secret), profile=IssuerProfile(basic_encoding=encoding))
    assert basic_pair(headers) == pair


@pytest.mark.parametrize(
    ("encoding", "client_id", "secret"),
    [("raw", "a:b", CANARY), ("raw-latin1", "a:b", CANARY), ("raw-latin1", "pos", f"{CANARY}€")]
    # ClientCredentials made in code, not by a store, may hold half a character.
    + [(encoding, "pos", f"{CANARY}\ud800") for encoding in ("rfc6749", "raw", "raw-latin1")],
)
def test_what_basic_cannot_carry_is_refused_without_showing_the_secret(
    encoding: Any, client_id: str, secret: str
) -> None:
    profile = IssuerProfile(basic_encoding=encoding)
    error = refused(lambda: asked(ClientCredentials(client_id, secret), profile=profile))
    assert CANARY not in str(error)
    assert error.__context__ is None  # a UnicodeEncodeError holds the whole text


def test_half_a_character_cannot_be_posted_either() -> None:
    error = refused(lambda: asked(ClientCredentials("pos", f"{CANARY}\ud800"), "client_secret_post"))
    assert CANARY not in str(error)
    assert error.__context__ is None


@pytest.mark.parametrize(
    ("method", "encoding", "said"),
    [
        ("client_secret_basic", "rfc6749", "half a character"),
        ("client_secret_post", "raw", "half a character"),
        ("client_secret_basic", "raw", "basic_encoding='raw'"),
    ],
)
def test_what_cannot_be_written_is_told_by_what_would_mend_it(method: str, encoding: Any, said: str) -> None:
    profile = IssuerProfile(basic_encoding=encoding)
    assert said in str(refused(lambda: asked(ClientCredentials("pos", "a\ud800"), method, profile)))


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_request_tells_its_secret_in_what_comes_back(method: str) -> None:
    def echoed(secret: str, text: str) -> bool:
        return token_request(URL, CLIENT, ClientCredentials("pos", secret), method, STANDARD).echoed(text)

    assert echoed("twelve-chars", "twelve-chars")
    assert echoed("twelve-chars", "<twelve-chars>")
    assert echoed("short", "short")
    assert not echoed("eleven-char", "<eleven-char>"), "a short one is found by chance"
    assert not echoed("twelve-chars", "something else")


def test_a_request_tells_its_basic_header_in_what_comes_back() -> None:
    outgoing = token_request(URL, CLIENT, ClientCredentials("pos", "short"), "client_secret_basic", STANDARD)
    sent = outgoing.open()[0]["Authorization"].removeprefix("Basic ")
    assert outgoing.echoed(f"<{sent}>")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize("encoding", ["rfc6749", "raw", "raw-latin1"])
def test_a_request_carries_exactly_one_client_authentication(method: str, encoding: Any) -> None:
    headers, form = asked(ClientCredentials("pos", "secret"), method, IssuerProfile(basic_encoding=encoding))
    names = [name for name, _ in form]
    assert ("authorization" in headers) == (method == "client_secret_basic")
    assert names.count("client_secret") == names.count("client_id") == (method == "client_secret_post")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_no_name_is_repeated_but_resource_and_no_value_is_empty(method: str) -> None:
    identity = CLIENT.asking(scope="b a", audience="api", resource=["urn:x", "urn:y"], extra={"tenant": "ä &="})
    _, form = asked(ClientCredentials("pos", "secret"), method, identity=identity)
    assert form[:6] == [
        ("grant_type", "client_credentials"),
        ("scope", "a b"),
        ("audience", "api"),
        ("resource", "urn:x"),
        ("resource", "urn:y"),
        ("tenant", "ä &="),
    ]
    _, form = asked(ClientCredentials("pos", "secret"), method)
    assert all(value for _, value in form)
    assert len(dict(form)) == len(form) == (1 if method == "client_secret_basic" else 3)


def test_the_request_is_a_posted_form_and_the_secret_is_not_in_its_url() -> None:
    outgoing = token_request(
        f"{URL}?tenant=a", CLIENT, ClientCredentials("pos", CANARY), "client_secret_post", STANDARD
    )
    assert (outgoing.method, outgoing.url) == ("POST", f"{URL}?tenant=a")
    assert token_request(URL, CLIENT, ClientCredentials("pos", "a"), "client_secret_basic", STANDARD).method == "POST"
    assert outgoing.open()[0]["Content-Type"] == "application/x-www-form-urlencoded"


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_request_that_is_ready_does_not_show_the_secret(method: str) -> None:
    outgoing = token_request(URL, CLIENT, ClientCredentials("pos", CANARY), method, STANDARD)
    shown = f"{outgoing!r} {outgoing} {[getattr(outgoing, name) for name in Outgoing.__slots__]!r}"
    assert "canary" not in shown


def test_scopes_may_be_separated_by_commas() -> None:
    identity = CLIENT.asking(scope="b a")
    _, form = asked(ClientCredentials("pos", "secret"), profile=IssuerProfile(scope_separator=","), identity=identity)
    assert ("scope", "a,b") in form


def test_only_the_two_methods_are_known_and_a_near_miss_is_named() -> None:
    assert check_auth_method(None) is None
    assert check_auth_method("client_secret_post") == "client_secret_post"
    assert "Did you mean 'client_secret_basic'" in str(refused(lambda: check_auth_method("client_secret_basc")))
    assert "client_secret_post" in str(refused(lambda: check_auth_method("none")))


# --- the answer: a token ---------------------------------------------------------------------------------------------

GOOD = {"access_token": "abc.def~-+/=", "token_type": "Bearer", "expires_in": 3600}


def read(
    body: object = None,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    identity: Identity = CLIENT,
    profile: IssuerProfile = STANDARD,
    special: bool = False,
    echoed: Callable[[str], bool] = lambda text: False,
) -> Granted | Refusal:
    clock = TickingClock()
    content = body if isinstance(body, bytes) else json.dumps(GOOD if body is None else body).encode()
    answer = Answer(status, headers or {}, content, echoed)
    return read_answer(
        answer, identity, profile, obtained=clock.now(), clock=clock, default_lifetime=300.0, special=special
    )


def granted(body: object = None, **how: Any) -> Granted:
    outcome = read(body, **how)
    assert isinstance(outcome, Granted), outcome
    return outcome


def refusal(body: object = None, status: int = 200, headers: Mapping[str, str] | None = None, **how: Any) -> Refusal:
    outcome = read(body, status, headers, **how)
    assert isinstance(outcome, Refusal), outcome
    return outcome


def test_a_good_answer_is_a_token() -> None:
    token, refresh_in, assumed, missing = granted({**GOOD, "refresh_token": CANARY, "unknown": [1]})
    assert (token.access_token, token.token_type, token.lifetime) == ("abc.def~-+/=", "Bearer", 3600)
    assert (token.expires_in, token.scopes) == (3600, ())
    assert (refresh_in, assumed, missing) == (None, False, ())


@pytest.mark.parametrize(
    "access_token",
    ["", " ", "a b", "a\n", "a\r\nX: y", "a\x00", "a\x7f", "ä", "\ud800", "a\u2028", None, 5, True, ["a"], {"a": "b"}],
)
def test_an_access_token_is_visible_ascii_and_nothing_else(access_token: object) -> None:
    assert "access_token" in refusal({**GOOD, "access_token": access_token}).what


def test_an_answer_without_an_access_token_is_none() -> None:
    assert refusal({"token_type": "Bearer"}).kind == "invalid"


def test_a_long_token_is_a_token() -> None:
    assert len(granted({**GOOD, "access_token": "x" * 200_000}).token.access_token) == 200_000


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER"])
def test_the_case_of_the_token_type_does_not_matter(kind: str) -> None:
    assert granted({**GOOD, "token_type": kind}).token.authorization == "Bearer abc.def~-+/="


@pytest.mark.parametrize("kind", ["DPoP", "mac", "", "Bearer ", "N_A", "bearer\n", 5, True, ["Bearer"], {}])
def test_a_token_of_another_type_is_not_used(kind: object) -> None:
    assert "token_type" in refusal({**GOOD, "token_type": kind}).what


@pytest.mark.parametrize("answer", [{"access_token": "a"}, {"access_token": "a", "token_type": None}])
def test_a_missing_token_type_is_an_error_unless_the_profile_says_otherwise(answer: dict[str, Any]) -> None:
    assert "token_type_missing" in str(refusal(answer).hint)
    assert granted(answer, profile=IssuerProfile(token_type_missing="bearer")).token.token_type == "Bearer"
    refusal({**answer, "token_type": "DPoP"}, profile=IssuerProfile(token_type_missing="bearer"))


def with_expires_in(literal: str) -> bytes:
    return f'{{"access_token": "a", "token_type": "Bearer", "expires_in": {literal}}}'.encode()


@pytest.mark.parametrize(
    ("literal", "lifetime"),
    [("3600", 3600), ("3600.0", 3600), ("0.5", 0.5), ('"12"', 12), ('"0012"', 12), ("0", 0), ("-5", -5), ("1e3", 1000)],
)
def test_expires_in_is_a_number_or_digits(literal: str, lifetime: float) -> None:
    found = granted(with_expires_in(literal))
    assert (found.token.lifetime, found.assumed) == (lifetime, False)


@pytest.mark.parametrize(
    "literal",
    [
        "true",
        "false",
        "1e999",
        "-1e999",
        '"１２"',
        '"1_000"',
        '"12 "',
        '" 12"',
        '"-5"',
        '"+5"',
        '"3600.0"',
        '"1e3"',
        '""',
        '"soon"',
        '"٣"',
        '"²"',
        '"NaN"',
        "[]",
        "[3600]",
        "{}",
        '"' + "9" * 20 + '"',
        '"' + "9" * 400 + '"',
    ],
)
def test_an_expires_in_that_is_neither_is_refused(literal: str) -> None:
    found = refusal(with_expires_in(literal))
    assert (found.kind, "expires_in" in found.what) == ("invalid", True)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "9" * 5000, "0x10", "١٢", "01"])
def test_a_number_that_json_does_not_have_makes_it_no_json(literal: str) -> None:
    assert "JSON" in refusal(with_expires_in(literal)).what


@pytest.mark.parametrize(
    "literal", ["9" * 4000, "1e300", "99999999999", '"9999999999999999999"', "-1e300", "-" + "9" * 4000, "-99999999999"]
)
def test_an_absurd_lifetime_is_cut_to_one_that_a_date_can_say(literal: str) -> None:
    token = granted(with_expires_in(literal)).token
    assert math.isfinite(token.lifetime)
    assert (token.expires_at.year > 2030) == (token.lifetime > 0)
    assert abs(token.lifetime) == 10 * 365 * 86400


@pytest.mark.parametrize("answer", [{"expires_in": None}, {}])
def test_an_answer_without_a_lifetime_has_the_default_one_unless_the_profile_refuses_it(answer: dict[str, Any]) -> None:
    answer = {"access_token": "a", "token_type": "Bearer", **answer}
    found = granted(answer)
    assert (found.token.lifetime, found.assumed) == (300, True)
    assert "expires_in" in refusal(answer, profile=IssuerProfile(expires_in_missing="error")).what


@pytest.mark.parametrize("field", ["expires_on", "expires_at"])
@pytest.mark.parametrize("literal", [str, int, float])
def test_a_profile_may_say_that_the_end_is_a_date(field: Any, literal: Callable[[int], object]) -> None:
    end = int(TickingClock().now().wall) + 90
    profile = IssuerProfile(lifetime_field=field)
    assert (
        granted({**GOOD, field: literal(end) if literal is not str else str(end)}, profile=profile).token.lifetime == 90
    )
    assert granted({**GOOD, field: "0"}, profile=profile).token.expires_in == 0
    assert field in refusal({**GOOD, field: "2026-01-01"}, profile=profile).what
    assert granted({**GOOD, field: None}, profile=profile).assumed


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(1800, 1800), ("1800", 1800), (1.5, 1.5), (True, None), ("soon", None), (None, None), ([], None), ("１２", None)],
)
def test_refresh_in_is_advice_and_ignored_where_it_is_none(value: object, seconds: float | None) -> None:
    assert granted({**GOOD, "refresh_in": value}).refresh_in == seconds


@pytest.mark.parametrize(
    ("scope", "scopes", "missing"),
    [
        (None, ("a", "b"), ()),
        ("", ("a", "b"), ()),
        ("b a", ("a", "b"), ()),
        ("b", ("b",), ("a",)),
        ("c", ("c",), ("a", "b")),
        ("a b c", ("a", "b", "c"), ()),
    ],
)
def test_the_granted_scopes_are_those_of_the_answer_and_missing_ones_are_named(
    scope: str | None, scopes: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    found = granted({**GOOD, "scope": scope}, identity=CLIENT.asking(scope="a b"))
    assert (found.token.scopes, found.missing_scopes) == (scopes, missing)


@pytest.mark.parametrize("scope", [["a"], 5, True, {}])
def test_a_scope_that_is_no_text_is_refused(scope: object) -> None:
    assert "scope" in refusal({**GOOD, "scope": scope}).what


def test_granted_scopes_may_be_separated_by_commas() -> None:
    profile = IssuerProfile(scope_separator=",")
    found = granted({**GOOD, "scope": "a,b"}, identity=CLIENT.asking(scope="a b"), profile=profile)
    assert (found.token.scopes, found.missing_scopes) == (("a", "b"), ())


@pytest.mark.parametrize("name", ["access_token", "scope"])
def test_an_answer_that_gives_the_secret_back_in_the_place_of_something_else_is_no_token(name: str) -> None:
    found = refusal({**GOOD, name: "not-a-real-secret"}, echoed=lambda text: text == "not-a-real-secret")
    assert (found.kind, "gives the client secret back" in found.what) == ("invalid", True)


@pytest.mark.parametrize("scope", [5, ["a"], {}, "a\x1bb", "a\u202eb"])
def test_a_scope_is_a_text_that_may_be_logged(scope: object) -> None:
    found = refusal({**GOOD, "scope": scope}, echoed=lambda text: "x" in text)
    assert (found.kind, "scope" in found.what) == ("invalid", True)


# --- the answer: not one ---------------------------------------------------------------------------------------------

TEXT = json.dumps(GOOD)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"access_token"',
        b"5",
        b"<!DOCTYPE html><title>Sign in</title>",
        b"access_token=abc&token_type=Bearer&expires_in=3600",
        TEXT[:-1].encode(),
        f"{TEXT}{TEXT}".encode(),
        f"[{TEXT}]".encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-32"),
        TEXT.replace("Bearer", "B\xe4rer").encode("latin-1"),
        b'{"access_token": "a", "access_token": "b", "token_type": "Bearer"}',
        b'{"access_token": "a", "token_type": "Bearer", "more": {"a": 1, "a": 1}}',
        b'{"access_token": "a", "token_type": "Bearer", "more": NaN}',
        b"[" * 30_000,
        b'{"a":' * 30_000,
    ],
    ids=range(20),
)
def test_a_body_that_is_not_exactly_one_json_object_is_refused(body: bytes) -> None:
    found = refusal(body)
    assert (found.kind, "JSON" in found.what) == ("invalid", True)


@settings(max_examples=50)
@given(
    st.binary(max_size=60)
    | st.text("{}[]:,\"'\\eE+-.0123456789 truefalsn\x00\ud800", max_size=60).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    )
)
def test_no_body_raises(body: bytes) -> None:
    for status in (200, 401):
        assert isinstance(read(body, status), Refusal)


@pytest.mark.parametrize("error", ["invalid_scope", "", False, 0, {"code": 1}, CANARY])
def test_a_200_with_an_error_is_an_error_whatever_else_it_has(error: object) -> None:
    found = refusal({**GOOD, "error": error})
    assert found.status == 200
    assert "200" in found.what


REJECTED, REFUSED, UNAVAILABLE = "rejected", "refused", "unavailable"


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        # 401 of any kind
        (401, "invalid_client", REJECTED),
        (401, "unauthorized_client", REJECTED),
        (401, "access_denied", REJECTED),
        (401, "invalid_request", REJECTED),
        (401, "no_such_code", REJECTED),
        (401, "temporarily_unavailable", REJECTED),
        (401, None, REJECTED),
        (400, "invalid_client", REJECTED),
        (403, "invalid_client", REJECTED),
        (200, "invalid_client", REJECTED),
        (403, "unauthorized_client", REJECTED),
        (403, "access_denied", REJECTED),
        (403, None, "doubtful"),
        (403, "invalid_scope", REFUSED),
        (403, "no_such_code", "doubtful"),
        (400, "unauthorized_client", REFUSED),
        (400, "access_denied", REFUSED),
        (400, "invalid_scope", REFUSED),
        (400, "invalid_target", REFUSED),
        (400, "invalid_request", REFUSED),
        (400, "invalid_grant", REFUSED),
        (400, "unsupported_grant_type", REFUSED),
        (400, "no_such_code", REFUSED),
        (400, None, REFUSED),
        (404, None, REFUSED),
        (405, None, REFUSED),
        (408, None, UNAVAILABLE),
        (425, None, UNAVAILABLE),
        (429, None, UNAVAILABLE),
        (500, None, UNAVAILABLE),
        (502, None, UNAVAILABLE),
        (503, "invalid_client", UNAVAILABLE),  # something before it answers for an issuer that is down
        (400, "temporarily_unavailable", UNAVAILABLE),
        (400, "server_error", UNAVAILABLE),
        (400, "slow_down", UNAVAILABLE),
        *((status, None, "invalid") for status in (201, 204, 300, 301, 302, 303, 304, 307, 308)),
        (307, "invalid_client", "invalid"),
    ],
)
@pytest.mark.parametrize("broken", [False, True], ids=["json", "html"])
def test_what_a_status_and_an_error_code_mean(status: int, error: str | None, kind: str, broken: bool) -> None:
    body: object = {} if error is None else {"error": error}
    if broken and error is None:
        body = b"<html>"
    found = refusal(body, status)
    assert (found.kind, found.status, found.error) == (kind, status, error if error != "no_such_code" else None)


@pytest.mark.parametrize(
    ("error", "status", "what", "kept"),
    [
        ("invalid_client", 401, "it answered 401 invalid_client", "invalid_client"),
        ("incorrect_client_credentials", 200, "it answered 200 incorrect_client_credentials", ...),
        ("no_such_code", 400, "it answered 400 with an error code of its own", None),
        ("", 400, "it answered 400", None),
        (5, 400, "it answered 400", None),
    ],
)
def test_a_refusal_names_the_code_if_it_is_a_known_one(error: object, status: int, what: str, kept: object) -> None:
    found = refusal({"error": error}, status)
    assert (found.what, found.error) == (what, error if kept is ... else kept)


@pytest.mark.parametrize(("values", "told"), [(40_000, None), (40_001, "holds more than 40000 values")])
def test_an_answer_of_too_many_values_is_not_read(values: int, told: str | None) -> None:
    # The two brackets and the commas between its numbers are what is counted.
    body = f'{{"a": [{",".join(["0"] * (values - 1))}]}}'.encode()
    assert Answer(200, {}, body).members()[1] == told


@pytest.mark.parametrize(("levels", "told"), [(64, None), (65, "is nested deeper than 64 levels")])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_an_answer_is_read_to_64_levels(opening: str, closing: str, levels: int, told: str | None) -> None:
    inner = opening * (levels - 1) + "0" + closing * (levels - 1)
    assert Answer(200, {}, f'{{"a": {inner}}}'.encode()).members()[1] == told


ADDRESS, REDIRECTS, GRANT, ALLOWED = "token endpoint?", "Redirects are not followed", "grant", "allowed to have"


@pytest.mark.parametrize(
    ("status", "error", "kind", "hint"),
    [
        (99, None, "refused", "own log"),
        (100, None, "invalid", ADDRESS),
        (299, None, "invalid", ADDRESS),
        (300, None, "invalid", REDIRECTS),
        (399, None, "invalid", REDIRECTS),
        (400, None, "refused", "own log"),
        (404, None, "refused", ADDRESS),
        (405, None, "refused", ADDRESS),
        (406, None, "refused", "own log"),
        (409, None, "refused", "own log"),
        (410, None, "refused", ADDRESS),
        (411, None, "refused", "own log"),
        (499, None, "refused", "own log"),
        (500, None, "unavailable", "It may pass"),
        (400, "invalid_scope", "refused", ALLOWED),
        (400, "invalid_target", "refused", ALLOWED),
        (400, "unauthorized_client", "refused", GRANT),
        (400, "unsupported_grant_type", "refused", GRANT),
    ],
)
def test_each_refusal_says_what_to_do(status: int, error: str | None, kind: str, hint: str) -> None:
    found = refusal({"error": error}, status)
    assert (found.kind, hint in str(found.hint)) == (kind, True), found.hint


def test_an_answer_that_is_no_token_has_its_status_and_its_name() -> None:
    found = refusal({}, headers={"x-request-id": "request-1"})
    assert (found.status, found.request_id) == (200, "request-1")
    assert refusal({}, headers={"x-request-id": "request-1"}, echoed=lambda text: True).request_id is None


def test_a_profile_may_name_further_codes_for_a_secret_that_is_not_accepted() -> None:
    assert refusal({"error": "bad_key"}, 400, profile=IssuerProfile(rejected=("bad_key",))).kind == "rejected"
    assert refusal({"error": "bad_key"}, 400, profile=IssuerProfile(rejected=("bad_key",))).error == "bad_key"
    assert (
        refusal({"error": "invalid_grant"}, 400, profile=IssuerProfile(rejected=("invalid_grant",))).kind == "rejected"
    )


def test_the_standard_profile_has_no_lockout_and_no_other_hosts() -> None:
    assert (STANDARD.lockout, STANDARD.endpoint_hosts, STANDARD.rejected) == (False, (), ())
    with pytest.raises(AttributeError):
        STANDARD.lockout = True  # type: ignore[misc]


def test_a_profile_is_written_by_name() -> None:
    assert IssuerProfile(lockout=True).lockout
    with pytest.raises(TypeError):
        IssuerProfile("raw")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "wrong",
    [
        {"basic_encoding": "RFC6749"},
        {"token_type_missing": "Bearer"},
        {"expires_in_missing": None},
        {"lifetime_field": "expires"},
        {"lockout": "no"},
        {"scope_separator": ";"},
        {"endpoint_hosts": "login.issuer.test"},
        {"rejected": "bad_key"},
        {"rejected": ("bad_key", 5)},
    ],
    ids=str,
)
def test_a_profile_refuses_unknown_choices_and_a_text_where_a_tuple_belongs(wrong: dict[str, Any]) -> None:
    assert f"IssuerProfile({next(iter(wrong))}=" in str(refused(lambda: IssuerProfile(**wrong)))


@pytest.mark.parametrize(
    "error", ["no_such_code", "Invalid_Client", "invalid_client ", CANARY, "\x1b]0;x\x07", 5, ["a"]]
)
def test_an_error_code_outside_the_closed_list_is_not_repeated(error: object) -> None:
    found = refusal({"error": error}, 400)
    assert found.error is None
    assert str(error) not in f"{found.what} {found.hint}"


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"error_description": "AADSTS7000215: Invalid client secret."}, "AADSTS7000215"),
        ({"error_uri": "https://documentation.openiddict.com/errors/ID2055"}, "ID2055"),
        ({"errorCode": "E0000011"}, "E0000011"),
        ({"error_description": "ID20555 and XID2055 are none"}, None),
        ({"error_description": "ID２０５５"}, None),
        ({"error_description": ["ID2055"]}, None),
        ({"error_description": "ID2055", "error_uri": "ID2052"}, "ID2055"),
        ({}, None),
    ],
)
def test_a_vendor_code_is_one_of_a_closed_list(members: dict[str, Any], code: str | None) -> None:
    found = refusal({"error": "invalid_client", **members}, 401)
    assert found.vendor_code == code
    if code is not None:
        assert code in found.what


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("ID2052", "no application with this client ID"),
        ("ID2055", "another secret for this client ID"),
        ("AADSTS7000215", "not its ID"),
        ("AADSTS7000222", "has expired"),
        ("AADSTS700016", "in this tenant"),
    ],
)
def test_each_known_vendor_code_has_its_hint(code: str, hint: str) -> None:
    found = refusal({"error": "invalid_client", "error_description": f"{code}: no."}, 401)
    assert (found.vendor_code, hint in str(found.hint)) == (code, True)


def test_a_known_vendor_code_is_explained() -> None:
    assert "no permission" in str(refusal({"error": "unauthorized_client", "error_uri": "ID2064"}, 400).hint)
    assert "another secret" in str(refusal({"error": "invalid_client", "error_uri": "x/ID2055"}, 401).hint)


def test_a_wrong_scope_answered_by_openiddicts_id2052_gets_no_hint_about_the_client_id() -> None:
    uri = "https://documentation.openiddict.com/errors/ID2052"
    scope = refusal({"error": "invalid_scope", "error_uri": uri}, 400)
    assert (scope.vendor_code, scope.kind) == ("ID2052", "refused")
    assert "client ID" not in str(scope.hint)
    assert "allowed to have" in str(scope.hint)
    assert "client ID" in str(refusal({"error": "invalid_client", "error_uri": uri}, 401).hint)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("0HN4-ab", None),
        ("0HN4-a_b", "0HN4-a_b"),
        ("0HN4.a:b=c-d", "0HN4.a:b=c-d"),
        ("a" * 128, "a" * 128),
        ("a" * 129, None),
        ("12345678\n", None),
        ("１２３４５６７８", None),
        ("a b c d e f", None),
    ],
)
def test_a_request_id_is_8_to_128_plain_characters(value: str, found: str | None) -> None:
    for name in ("x-request-id", "x-ms-request-id", "x-okta-request-id", "x-correlation-id", "request-id"):
        assert refusal({}, 400, {name: value}).request_id == found


def test_an_unusable_request_id_does_not_hide_another() -> None:
    assert refusal({}, 400, {"x-request-id": "?", "x-correlation-id": "abcdefgh"}).request_id == "abcdefgh"


@pytest.mark.parametrize("status", [429, 503, 400])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("301", 300),
        ("9" * 4000, 300),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30),
        ("Thu, 01 Jan 2026 09:00:00 GMT", 300),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("Thu, 01 Jan 2026 00:00:30 -0000", 30),
        ("Thu, 01 Jan 2026 01:00:30 +0100", 30),
        ("Thu, 01 Jan 0000 00:00:00 GMT", 0),
        ("Thu, 99 Jan 2026 00:00:00 GMT", None),
        ("Thu, 01 Jan 2026 00:00:30 +9999999999", None),
        ("Thu, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("-5", None),
        ("1.5", None),
        ("１２", None),
        ("soon", None),
        ("", None),
        (",", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_at_most_five_minutes(
    status: int, value: str | None, seconds: float | None
) -> None:
    headers = {} if value is None else {"retry-after": value}
    assert refusal({}, status, headers).retry_after == seconds


@settings(max_examples=50)
@given(st.text(max_size=40) | st.from_regex(r"\w{3}, \d{2} \w{3} \d{4} \d\d:\d\d:\d\d \S{1,12}", fullmatch=True))
def test_no_retry_after_raises(value: str) -> None:
    seconds = refusal({}, 503, {"retry-after": value}).retry_after
    assert seconds is None or 0 <= seconds <= 300


def test_a_rejection_of_special_characters_says_how_else_they_may_be_written() -> None:
    assert "basic_encoding" in str(refusal({"error": "invalid_client"}, 401, special=True).hint)
    assert "basic_encoding" not in str(refusal({"error": "invalid_client"}, 401).hint)
    assert "basic_encoding" not in str(refusal({"error": "invalid_scope"}, 400, special=True).hint)
    assert token_request(URL, CLIENT, ClientCredentials("pos", "a+b"), "client_secret_basic", STANDARD).special
    assert token_request(URL, CLIENT, ClientCredentials("p:s", "ab"), "client_secret_basic", STANDARD).special
    assert not token_request(URL, CLIENT, ClientCredentials("pos", "a-b"), "client_secret_basic", STANDARD).special


ECHOED = {
    "error": CANARY,
    "error_description": f"{CANARY} is wrong",
    "error_uri": f"https://issuer.test/?{CANARY}",
    "errorCode": CANARY,
    "access_token": f"{CANARY}\n",
    "token_type": CANARY,
    "expires_in": CANARY,
    "scope": CANARY,
    CANARY: CANARY,
}


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 429, 503])
@pytest.mark.parametrize("body", [ECHOED, {k: v for k, v in ECHOED.items() if k != "error"}, CANARY.encode()])
def test_an_issuer_that_echoes_the_secret_finds_it_in_no_error(status: int, body: object) -> None:
    echoing = ("x-request-id", "retry-after", "location", "www-authenticate")
    found = refusal(body, status, dict.fromkeys(echoing, CANARY))
    error = found.as_error(issuer="i", reference="r", auth_method="m")
    assert "canary" not in f"{found!r} {error} {error!r} {vars(error)!r}"
    assert quote(CANARY) not in str(error)


@pytest.mark.parametrize(
    ("kind", "made", "retryable"),
    [
        ("rejected", CredentialsRejected, False),
        ("doubtful", TokenRequestRefused, False),
        ("refused", TokenRequestRefused, False),
        ("invalid", InvalidTokenResponse, False),
        ("unavailable", IssuerUnavailable, True),
    ],
)
def test_the_error_names_issuer_reference_and_method(kind: Any, made: type[Exception], retryable: bool) -> None:
    facts = Refusal(kind, "it answered 400", 400, "invalid_scope", "ID2055", "request-1", 5.0, "Do this")
    error = facts.as_error(issuer="https://i.test/", reference="env://POS", auth_method="client_secret_post")
    assert type(error) is made
    for named in ("https://i.test/", "env://POS", "client_secret_post", "it answered 400", "Do this"):
        assert named in str(error)
    assert (error.error, error.status, error.vendor_code, error.request_id) == (
        "invalid_scope",
        400,
        "ID2055",
        "request-1",
    )
    assert (error.issuer, error.auth_method) == ("https://i.test/", "client_secret_post")
    assert (error.retry_after, error.hint, error.retryable) == (5.0, "Do this", retryable)


def test_an_answer_does_not_show_its_body() -> None:
    answer = Answer(200, {}, CANARY.encode())
    assert "canary" not in f"{answer!r} {answer} {[getattr(answer, name) for name in Answer.__slots__]!r}"


# --- URLs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.test",
        "https://issuer.test/tenant/",
        "https://issuer.test:8443/connect/token",
        "https://10.0.0.1/",
        "https://[2001:db8::1]:8443/",
        "http://localhost:5001",
        "http://127.0.0.1:5001/a",
        "http://127.8.9.10/",
        "http://[::1]:5001/",
        "HTTPS://Issuer.Test/",
    ],
)
def test_a_secret_may_be_sent_over_https_or_on_loopback(url: str) -> None:
    assert check_url(url, "issuer") == url


def test_an_endpoint_may_have_a_query_and_an_issuer_may_not() -> None:
    assert check_url("https://issuer.test/token?tenant=a", "token_url") == "https://issuer.test/token?tenant=a"
    refused(lambda: check_url("https://issuer.test/?tenant=a", "issuer"))


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.test",
        "http://127.0.0.1.issuer.test/",
        "http://localhost.issuer.test",
        "http://localhost:80.test",
        "http://issuer.test:443/",
        "http://128.0.0.1",
        "http://0.0.0.0/",
        "http://[::2]/",
        "http://127.1/",
        "http://2130706433/",
        "http://xlocalhost/",
        "http://127.0.0.1\\.issuer.test/",
        "http://127.0.0.1%2eissuer.test/",
    ],
)
def test_plain_http_leaves_loopback_never_unless_named(url: str) -> None:
    refused(lambda: check_url(url, "token_url"))


@pytest.mark.parametrize(
    ("url", "plain_http", "allowed"),
    [
        ("http://orchard:8080/a", ["orchard:8080"], True),
        ("http://Orchard:8080/a", ["ORCHARD:8080"], True),
        ("http://orchard/", ["orchard"], True),
        ("http://orchard:80/", ["orchard"], True),
        ("http://orchard/", ["orchard:80"], True),
        ("http://orchard:8080/", ["orchard"], False),
        ("http://orchard:8080/", ["orchard:8081"], False),
        ("http://sub.orchard:8080/", ["orchard:8080"], False),
        ("http://orchard.evil:8080/", ["orchard:8080"], False),
        ("http://orchard:8080/", ["*", "*:8080", "http://orchard:8080"], False),
    ],
)
def test_plain_http_names_exact_hosts_and_ports(url: str, plain_http: list[str], allowed: bool) -> None:
    if allowed:
        assert check_url(url, "token_url", plain_http) == url
    else:
        refused(lambda: check_url(url, "token_url", plain_http))


def test_the_refusal_of_plain_http_says_what_to_write() -> None:
    error = refused(lambda: check_url("http://orchard:8080/token", "token_url"))
    assert "plain_http=('orchard:8080',)" in str(error)


@pytest.mark.parametrize(
    "url",
    [
        CANARY,
        "",
        f"{CANARY}://issuer.test",
        f"ftp://issuer.test/{CANARY}",
        f"file:///{CANARY}",
        f"javascript:{CANARY}",
        f"//issuer.test/{CANARY}",
        f"https:issuer.test/{CANARY}",
        f"https:///{CANARY}",
        f"https://:443/{CANARY}",
        f"https://user:{CANARY.split('/')[0]}@issuer.test/",
        f"https://{CANARY.split('/')[0]}@issuer.test/",
        "https:///canary",
        "https://:443/canary",
        "https://user:canary@issuer.test/",
        "https://issuer.test@canary.test/",
        "https://issuer.test:canary/",
        "https://issuer.test:99999/canary",
        "https://issuer.test:-1/canary",
        "https://[canary/",
        "https://[canary]/",
        "https://issuer.test/ canary",
        "https://issuer.test/\ncanary",
        "https://issuer.tést/canary",
        "https://issuer.test\\canary/",
        "https://issuer.test/#canary",
        "https://issuer.test/?client_secret=canary",
        "http://issuer.test/?client_secret=canary",
        b"https://canary",
        5,
        None,
    ],
)
def test_what_is_no_such_url_is_refused_and_what_may_be_a_secret_is_not_repeated(url: Any) -> None:
    assert "canary" not in str(refused(lambda: check_url(url, "issuer")))


def test_of_what_may_be_a_secret_the_length_is_told() -> None:
    assert "6 characters" in str(refused(lambda: check_url("canary", "issuer")))
    assert "bytes" in str(refused(lambda: check_url(b"canary", "issuer")))  # type: ignore[arg-type]


def test_a_url_in_the_query_of_another_hides_no_fragment() -> None:
    refused(lambda: check_url("https://a.test/token?for=https://b.test#c", "token_url"))
    assert http_parts("https://a.test/token?for=https://b.test") == (
        "https",
        "a.test",
        443,
        "a.test/token?for=https://b.test",
    )


def test_a_secret_in_the_query_of_an_endpoint_is_not_repeated_either() -> None:
    error = refused(lambda: check_url("http://issuer.test/token?client_secret=canary", "token_url"))
    assert "http://issuer.test/token" in str(error)
    assert "canary" not in str(error)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://a.test", "https://a.test/", True),
        ("https://a.test/t", "https://a.test/t", True),
        ("https://a.test/t", "https://a.test/t/", False),
        ("https://a.test", "https://A.test", False),
        ("https://a.test", "https://a.test:443", False),
        ("https://a.test", "http://a.test", False),
        ("https://a.test", "https://a.test.", False),
        ("https://a.test", "https://a.test//", False),
        ("https://a.test/%41", "https://a.test/A", False),
        ("https://a.test", "https://b.test", False),
    ],
)
def test_issuers_are_equal_byte_for_byte_but_for_an_empty_path(one: str, other: str, same: bool) -> None:
    assert same_issuer(one, other) is same_issuer(other, one) is same


@pytest.mark.parametrize(
    ("issuer", "appended", "inserted"),
    [
        ("https://a.test", "https://a.test/W/openid-configuration", "https://a.test/W/oauth-authorization-server"),
        ("https://a.test/", "https://a.test/W/openid-configuration", "https://a.test/W/oauth-authorization-server"),
        (
            "https://a.test:1/t",
            "https://a.test:1/t/W/openid-configuration",
            "https://a.test:1/W/oauth-authorization-server/t",
        ),
        (
            "https://a.test/t/",
            "https://a.test/t/W/openid-configuration",
            "https://a.test/W/oauth-authorization-server/t",
        ),
        (
            "https://a.test/t/u",
            "https://a.test/t/u/W/openid-configuration",
            "https://a.test/W/oauth-authorization-server/t/u",
        ),
    ],
)
def test_openid_appends_its_path_and_oauth_inserts_its_own(issuer: str, appended: str, inserted: str) -> None:
    assert well_known_urls(issuer) == (appended.replace("W", ".well-known"), inserted.replace("W", ".well-known"))


# --- binding -------------------------------------------------------------------------------------------------------

OURS = {"issuer": "https://a.test", "token_url": "https://a.test/token", "environment": "production"}


@pytest.mark.parametrize(
    ("bound", "ours"),
    [
        ({}, OURS),
        ({}, {**OURS, "issuer": None}),
        (OURS, OURS),
        ({"issuer": "https://a.test/"}, OURS),
        ({"token_url": "https://a.test/token"}, {**OURS, "issuer": None}),
        ({"environment": "staging"}, {**OURS, "environment": ""}),
    ],
)
def test_a_document_that_is_for_this_source_or_says_nothing_serves(bound: dict[str, str], ours: dict[str, Any]) -> None:
    check_binding(Binding(**bound), "env://POS", **ours)


@pytest.mark.parametrize(
    ("bound", "lacking"),
    [
        (OURS, None),
        ({"issuer": "https://a.test", "environment": "production"}, None),
        ({"token_url": "https://a.test/token", "environment": "production"}, None),
        ({"issuer": "https://a.test"}, "for which environment it is"),
        ({"token_url": "https://a.test/token"}, "for which environment it is"),
        ({"environment": "production"}, "for which issuer it is"),
        ({}, "for which issuer it is"),
    ],
)
def test_a_document_may_have_to_say_for_which_issuer_and_environment_it_is(
    bound: dict[str, str], lacking: str | None
) -> None:
    ours: dict[str, Any] = OURS
    check_binding(Binding(**bound), "env://POS", **ours)

    def demanded() -> None:
        check_binding(Binding(**bound), "env://POS", required=True, **ours)

    if lacking is None:
        demanded()
    else:
        assert lacking in str(refused(demanded))


@pytest.mark.parametrize(
    ("bound", "ours", "named"),
    [
        ({"issuer": "https://b.test"}, OURS, "bound to the issuer 'https://b.test'"),
        ({"issuer": "https://a.test/t"}, OURS, "issuer"),
        ({"issuer": "https://a.test"}, {**OURS, "issuer": None}, "issuer='https://a.test'"),
        ({"token_url": "https://a.test/token/"}, OURS, "bound to the token_url 'https://a.test/token/'"),
        ({"token_url": "https://a.test/other"}, {**OURS, "issuer": None}, "token_url"),
        ({"issuer": "https://a.test", "token_url": "https://b.test/token"}, OURS, "token_url"),
        ({"environment": "staging"}, OURS, "bound to the environment 'staging'"),
        ({"environment": "Production"}, OURS, "environment"),
    ],
)
def test_a_document_that_is_for_another_ends_the_call(bound: dict[str, str], ours: dict[str, Any], named: str) -> None:
    error = refused(lambda: check_binding(Binding(**bound), "env://POS", **ours))
    assert named in str(error)
    assert "env://POS" in str(error)
