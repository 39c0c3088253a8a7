"""SecretReference: the grammar of references, and that a secret pasted in their place does not come back."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from secretsource.errors import ConfigurationError
from secretsource.reference import BUILT_IN_STORES, Fields, SecretReference, unknown_store

parse = SecretReference.parse


def refused(text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    return caught.value


# --- the rows of the table


def plain(store: str, *segments: str, **more: object) -> SecretReference:
    return SecretReference(store, segments, **more)  # type: ignore[arg-type]


ROWS: dict[str, tuple[SecretReference, str]] = {
    "env://POS": (plain("env", "POS"), "env://POS"),
    "env:POS": (plain("env", "POS"), "env://POS"),
    "env:#id=APP_ID,secret=APP_KEY": (
        plain("env", fields=Fields("APP_ID", "APP_KEY")),
        "env:#id=APP_ID,secret=APP_KEY",
    ),
    "env://#APP_KEY": (plain("env", fields=Fields(None, "APP_KEY")), "env:#APP_KEY"),
    "file:///etc/pos/oauth.json": (
        plain("file", "etc", "pos", "oauth.json", absolute=True),
        "file:///etc/pos/oauth.json",
    ),
    "file:/etc/pos/oauth.json": (
        plain("file", "etc", "pos", "oauth.json", absolute=True),
        "file:///etc/pos/oauth.json",
    ),
    "file:///etc/pos/oauth?format=json&access=strict": (
        plain("file", "etc", "pos", "oauth", absolute=True, options=(("access", "strict"), ("format", "json"))),
        "file:///etc/pos/oauth?access=strict&format=json",
    ),
    "file:pos.json": (plain("file", "pos.json"), "file:pos.json"),
    "file:secrets/pos.json#/pos/secret": (
        plain("file", "secrets", "pos.json", fields=Fields(None, "/pos/secret")),
        "file:secrets/pos.json#/pos/secret",
    ),
    "file:///run/secrets/pos/?access=mounted": (
        plain("file", "run", "secrets", "pos", absolute=True, directory=True, options=(("access", "mounted"),)),
        "file:///run/secrets/pos/?access=mounted",
    ),
    "file:secrets/": (plain("file", "secrets", directory=True), "file:secrets/"),
    "file:%61%20b+c": (plain("file", "a b+c"), "file:a%20b+c"),
    "file:100%2525": (plain("file", "100%25"), "file:100%2525"),
    "systemd:pos.toml#id=client,secret=key": (
        plain("systemd", "pos.toml", fields=Fields("client", "key")),
        "systemd://pos.toml#id=client,secret=key",
    ),
    "systemd:pos?format=json": (plain("systemd", "pos", options=(("format", "json"),)), "systemd://pos?format=json"),
    "vault://kv/prod/pos": (plain("vault", "kv", "prod", "pos"), "vault://kv/prod/pos"),
    "vault:Team%20A/pos?mount=Team%20A&kv=1&version=3": (
        plain("vault", "Team A", "pos", options=(("kv", "1"), ("mount", "Team A"), ("version", "3"))),
        "vault://Team%20A/pos?kv=1&mount=Team%20A&version=3",
    ),
    "bao://kv/prod/pos": (plain("bao", "kv", "prod", "pos"), "bao://kv/prod/pos"),
    "aws://prod/pos": (plain("aws", "prod/pos"), "aws://prod/pos"),
    "aws:prod/pos?regions=eu-west-1,eu-central-1&stage=AWSCURRENT": (
        plain("aws", "prod/pos", options=(("regions", "eu-west-1,eu-central-1"), ("stage", "AWSCURRENT"))),
        "aws://prod/pos?regions=eu-west-1,eu-central-1&stage=AWSCURRENT",
    ),
    "aws://arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/pos-AbCdEf": (
        plain("aws", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/pos-AbCdEf"),
        "aws://arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/pos-AbCdEf",
    ),
    "aws:///prod//pos/./": (plain("aws", "/prod//pos/./"), "aws:///prod//pos/./"),
    "my-store2:/a/b/": (plain("my-store2", "a", "b", absolute=True, directory=True), "my-store2:///a/b/"),
}


@pytest.mark.parametrize("text", ROWS)
def test_a_reference_means_what_the_table_says(text: str) -> None:
    reference, canonical = ROWS[text]
    assert parse(text) == reference
    assert str(parse(text)) == canonical
    assert parse(canonical) == reference


def test_the_path_keeps_its_case_and_gets_its_slashes_back() -> None:
    assert parse("file:///run/Secrets/POS/").path == "/run/Secrets/POS/"
    assert parse("file:secrets/pos.json").path == "secrets/pos.json"
    assert parse("vault://Kv/Prod").path == "Kv/Prod"
    assert parse("aws://prod/pos").path == "prod/pos"
    assert parse("env:#A").path == ""


def test_options_are_asked_for_by_name() -> None:
    reference = parse("file:pos?format=json&access=strict")
    assert (reference.option("format"), reference.option("access"), reference.option("kv")) == ("json", "strict", None)


@pytest.mark.parametrize(
    ("text", "pinned"),
    [
        ("vault://kv/pos?version=3", True),
        ("aws://pos?stage=AWSPREVIOUS", True),
        ("aws://pos?region=eu-west-1", False),
        ("env:POS", False),
    ],
)
def test_one_that_names_a_version_or_a_stage_is_pinned(text: str, pinned: bool) -> None:
    assert parse(text).pinned is pinned


def test_a_reference_is_given_back_as_it_is() -> None:
    reference = parse("env:POS")
    assert parse(reference) is reference


def test_a_reference_does_not_change_and_may_be_a_key() -> None:
    reference = parse("env:POS#secret")
    assert {reference: 1}[parse("env://POS#secret")] == 1
    for one, name in ((reference, "store"), (reference.fields, "secret")):
        with pytest.raises(AttributeError):
            setattr(one, name, "other")


@pytest.mark.parametrize("other", [None, 5, b"env:POS", ["env:POS"]])
def test_only_text_is_a_reference(other: object) -> None:
    with pytest.raises(ConfigurationError, match="a reference is a str"):
        parse(other)  # type: ignore[arg-type]


def test_its_text_after_the_store_may_hold_what_breaks_urlsplit() -> None:
    assert parse("aws:arn:aws:x:[eu]:1").segments == ("arn:aws:x:[eu]:1",)
    assert parse("vault://KV:8200/a@b").segments == ("KV:8200", "a@b")


# --- what is refused, and the way out


REFUSED: dict[str, str] = {
    "": "known stores: aws, bao, env, file, systemd, vault",
    "POS": "such as env://POS",
    "e:POS": "such as env://POS",
    "ENV:POS": "Did you mean 'env'?",
    "FLIE:pos.json": "Did you mean 'file'?",
    " env:POS": "Did you mean 'env'?",
    "9store:pos": "such as env://POS",
    "my_store:pos": "such as env://POS",
    "file:": "the path is empty",
    "file:///": "the path is empty",
    "vault:": "the path is empty",
    "aws:": "Name the secret, as in aws://prod/pos",
    "aws://?region=eu-west-1": "Name the secret",
    "my-store://": "the path is empty",
    "file://etc/pos.json": "An absolute path has three slashes, file:///etc/pos/oauth.json; a relative one has none",
    "file:~/pos.json": "Write the home directory out",
    "file:~ann/pos.json": "Write the home directory out",
    "file:%7E/pos.json": "Write the home directory out",
    "file:///etc//pos": "empty part",
    "file:////etc/pos": "empty part",
    "file:pos//": "empty part",
    "vault://kv//pos": "empty part",
    "file:../pos": "'.' or '..'",
    "file:./pos": "'.' or '..'",
    "file:///etc/%2E%2E/pos": "'.' or '..'",
    "vault://kv/./pos": "'.' or '..'",
    "file:etc%2Fpos": "Write '/' where two names meet",
    "vault://kv/a%2fb": "Write '/' where two names meet",
    "env:///POS": "Leave that '/' out, as in env://prod/pos",
    "env:POS/": "Leave that '/' out",
    "systemd:/run/pos": "Leave that '/' out",
    "vault:///kv/pos": "Leave that '/' out",
    "bao://kv/pos/": "Leave that '/' out",
    "file:100%": "Write '%' itself as %25",
    "file:%zz": "Write '%' itself as %25",
    "file:a%00b": "control character",
    "file:a\nb": "control character",
    "file:a%c2%85b": "control character",
    "aws:a%7Fb": "control character",
    "file:%ff": "not UTF-8",
    "file:\ud800": "not UTF-8",
    "file:%ed%a0%80": "not UTF-8",
    "file:pos?": "name=value",
    "file:pos?format": "name=value",
    "file:pos?format=": "name=value",
    "file:pos?=json": "name=value",
    "file:pos?Format=json": "name=value",
    "file:pos?format=json&": "name=value",
    "file:pos?&format=json": "name=value",
    "file:pos?format=json&format=json": "Give each option once",
    "file:pos?access=unchecked": "Give it in code",
    "file:pos?access=%75nchecked": "Give it in code",
    "file:pos?format=%0a": "control character",
    "file:pos#": "empty",
    "file:pos#a,b": "not written id=FIELD,secret=FIELD",
    "file:pos#a=b": "not written id=FIELD,secret=FIELD",
    "file:pos#id=a": "not written id=FIELD,secret=FIELD",
    "file:pos#secret=b,id=a": "not written id=FIELD,secret=FIELD",
    "file:pos#id=a,password=b": "not written id=FIELD,secret=FIELD",
    "file:pos#ID=a,secret=b": "not written id=FIELD,secret=FIELD",
    "file:pos#id=a,secret=b,extra=c": "unescaped ',' or '='",
    "file:pos#id=a=b,secret=c": "unescaped ',' or '='",
    "file:pos#id=a,secret=b,c": "unescaped ',' or '='",
    "file:pos#id=,secret=b": "empty",
    "file:pos#id=a,secret=": "empty",
    "file:pos#id=a,secret=a": "the same field",
    "file:pos#id=%61,secret=a": "the same field",
    "file:pos#a&b": "unescaped '&' or '#'",
    "file:pos#a#b": "unescaped '&' or '#'",
    "file:pos#/a/~b": "RFC 6901",
    "file:pos#id=/a~,secret=b": "RFC 6901",
    "file:pos#a%0ab": "control character",
}


@pytest.mark.parametrize("text", REFUSED, ids=ascii)
def test_what_is_written_wrong_is_refused_with_the_way_out(text: str) -> None:
    assert REFUSED[text] in str(refused(text))


@pytest.mark.parametrize("field", ["a%25b", "a%2Cb", "a%3Db", "a%26b", "a%23b", "/a~0b/~1c/0", "a?b", "a/b", "~"])
def test_any_name_can_be_written_as_a_field(field: str) -> None:
    assert str(parse(f"file:pos#id=x,secret={field}")) == f"file:pos#id=x,secret={field}"


def test_a_store_takes_the_options_that_it_knows() -> None:
    reference = parse("file:pos?format=json")
    reference.check_options(["access", "format"])
    with pytest.raises(ConfigurationError, match=r"has no option 'format'.*It takes access, owner"):
        reference.check_options(["owner", "access"])
    with pytest.raises(ConfigurationError, match="It takes no options"):
        reference.check_options([])
    with pytest.raises(ConfigurationError, match="Did you mean 'formats'"):
        reference.check_options(["formats"])


def test_an_unknown_store_is_not_repeated_but_a_near_one_named() -> None:
    error = unknown_store("consull", 20, ["consul"])
    assert "Did you mean 'consul'?" in str(error)
    assert "20 characters" in str(error)
    assert "consull" not in str(error)
    assert "Known stores: aws, bao, env, file, shop, systemd, vault" in str(unknown_store("hunter2", 20, ["shop"]))


def test_what_is_hardly_like_a_store_is_not_taken_for_one() -> None:
    assert "Did you mean" not in str(unknown_store("vaxxt", 20))
    assert "Did you mean" not in str(refused("VAXXT:pos"))


def test_a_name_found_in_a_document_is_shown_whatever_it_holds() -> None:
    assert str(Fields("id", "\ud800")) == "id=id,secret=?"


# --- for all texts

# All characters that a reference can hold: none that ends a line or turns it around, no halves of characters.
turning = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
character = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters=turning)
word = st.text(character, min_size=1, max_size=8)
segment = word.map(lambda text: text.replace("/", "·")).filter(lambda text: text not in (".", ".."))
option = st.tuples(st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True), word).filter(
    lambda pair: pair != ("access", "unchecked")
)
options = st.lists(option, max_size=3, unique_by=lambda pair: pair[0]).map(lambda pairs: tuple(sorted(pairs)))
# No "~" in a pointer but escaped.
pointer = st.lists(word, min_size=1, max_size=3).map(
    lambda parts: "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)
)
field = word.filter(lambda text: not text.startswith("/")) | pointer
fields = st.none() | st.builds(Fields, st.none() | field, field).filter(lambda both: both.id != both.secret)


@st.composite
def references(draw: st.DrawFn) -> SecretReference:
    store = draw(st.sampled_from(BUILT_IN_STORES) | st.from_regex(r"[a-z][a-z0-9-]+", fullmatch=True))
    absolute = directory = False
    segments: tuple[str, ...]
    if store == "aws":
        segments = (draw(word),)
    else:
        segments = tuple(draw(st.lists(segment, min_size=0 if store == "env" else 1, max_size=3)))
    if store not in ("aws", "bao", "env", "systemd", "vault"):
        absolute, directory = draw(st.booleans()), draw(st.booleans())
    if store == "file" and not absolute:
        assume(not segments[0].startswith("~"))
    return SecretReference(store, segments, absolute, directory, draw(options), draw(fields))


@given(references())
def test_every_reference_is_read_back_from_its_text(reference: SecretReference) -> None:
    assert parse(str(reference)) == reference


@given(references())
def test_its_text_is_canonical_and_plain_ascii(reference: SecretReference) -> None:
    assert str(parse(str(reference))) == str(reference)
    assert str(reference).isascii()
    assert str(reference).isprintable()
    assert " " not in str(reference)


@given(references(), st.data())
def test_the_order_of_options_means_nothing(reference: SecretReference, data: st.DataObject) -> None:
    text = str(reference)
    assume(reference.options)
    before, _, rest = text.partition("?")
    query, hash_, fragment = rest.partition("#")
    shuffled = data.draw(st.permutations(query.split("&")))
    assert parse(f"{before}?{'&'.join(shuffled)}{hash_}{fragment}") == reference


@given(st.lists(segment, min_size=1, max_size=3))
def test_escaping_more_than_needed_changes_nothing(segments: list[str]) -> None:
    escaped = "/".join("".join(f"%{byte:02x}" for byte in part.encode()) for part in segments)
    assert parse("env:" + escaped) == SecretReference("env", tuple(segments))


# Texts that get far into the parser before they fail.
anything = st.text() | st.lists(
    st.sampled_from(
        [*"abz~%/#?&=,:.", "env:", "file:", "aws:", "//", "%2F", "id=", "secret=", "access=", "\ud800", "é"]
    )
).map("".join)


@given(anything)
@example("file:\ud800")
@example("vault://kv#id=\udfff,secret=x")
def test_any_text_is_a_reference_or_a_configuration_error(text: str) -> None:
    way_out: str | None = None
    reference: SecretReference | None
    try:
        reference = parse(text)
    except ConfigurationError as error:
        reference = None
        way_out = error.hint
    assert way_out if reference is None else parse(str(reference)) == reference


@given(
    st.text(max_size=6), st.sampled_from(["", ":", "env:", "env://", "file:x?", "file:x#", "p4:", "aws:"]), st.text()
)
@example("", "", "hunter2:")
@example("", "env:", "\ud800")
@example("%zz", "file:x#id=", ",")
@example("", "file:x?", "=1&")
@example("\xff", "file:x?a=", "%ff")
def test_a_pasted_secret_does_not_come_back(before: str, where: str, after: str) -> None:
    canary = "Zq7xCanary"
    shown = history = None
    try:
        parse(where + before + canary + after)
    except ConfigurationError as error:
        shown = [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception_only(error))]
        history = error.__context__ or error.__cause__
    assert canary.lower() not in str(shown).lower()
    assert history is None


@given(st.text(min_size=4))
def test_of_what_is_no_reference_only_the_length_is_told(text: str) -> None:
    assume(":" not in text)
    assert f"{len(text)} characters" in str(refused(text))


@pytest.mark.parametrize("secret", ["p4ss:word", "hunter2:#x,y", "ab:%zz", "ghp-abc:a//b", "ab:9z"])
def test_what_looks_like_an_unknown_store_is_not_repeated_either(secret: str) -> None:
    try:
        error = unknown_store(parse(secret).store, len(secret))
    except ConfigurationError as refusal:
        error = refusal
    assert secret.partition(":")[0] not in str(error)
    assert secret.partition(":")[2] not in str(error)


def test_a_very_long_text_is_refused_at_once() -> None:
    assert "300001 characters" in str(refused("X" * 300_000 + ":"))


@pytest.mark.parametrize(
    "text",
    [
        "vault://u:hunter2@kv/pos",
        "vault:u:hunter2@kv",
        "vault://a@b.example:hunter2@kv",
        "shop://u:@a",
        "aws://A:hunter2@b",
    ],
)
def test_a_user_name_and_a_password_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError, match="looks like a user name and a password") as caught:
        parse(text)
    assert "hunter2" not in str(caught.value)


def test_what_only_resembles_them_is_taken() -> None:
    for text in ("vault://kv/user:a@b", "vault://a:b%40c/d", "aws://arn:aws:secretsmanager:eu-west-1:1:secret:a@b"):
        assert parse(str(parse(text))) == parse(text)
