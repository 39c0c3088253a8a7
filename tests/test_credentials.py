"""Documents and what they mean."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretsource.credentials import Binding, ClientCredentials, Document, interpret
from secretsource.errors import ConfigurationError, MalformedSecret, SecretSourceError
from secretsource.reference import Fields, SecretReference
from secretsource.secret import Secret

CANARY = "canary-Zq7x"
PLAIN = {"client_id": "pos", "client_secret": CANARY}


def meaning(document: Any, reference: str = "file:pos.json", client_id: str | None = None) -> ClientCredentials:
    document = document if isinstance(document, Document) else Document(document)
    return interpret(document, SecretReference.parse(reference), client_id).credentials


def shown(credentials: ClientCredentials | None) -> tuple[str, str] | None:
    return None if credentials is None else (credentials.client_id, credentials.client_secret.reveal())


def refused(
    document: Any,
    reference: str = "file:pos.json",
    client_id: str | None = None,
    kind: type[SecretSourceError] = MalformedSecret,
) -> str:
    """The text of the error, which holds no value."""
    with pytest.raises(kind) as caught:
        meaning(document, reference, client_id)
    error = caught.value
    assert type(error) is kind
    assert CANARY not in str(error) + repr(vars(error))
    assert (error.__cause__, error.__context__) == (None, None)
    if isinstance(error, MalformedSecret):
        assert error.reference == reference
        assert error.store == "file"
    return str(error)


# --- Document


def test_a_document_shows_no_value() -> None:
    document = Document({"client_id": CANARY, "nested": {"list": [CANARY, {"deep": CANARY}]}}, version="1")
    assert CANARY not in f"{document} {document!r} {document.fields} {document.text} {document:>50}"
    assert CANARY not in repr(copy.deepcopy(document).fields)
    assert repr(document) == "<Document ⋯>"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(document)
    with pytest.raises(TypeError):
        vars(document)
    with pytest.raises(AttributeError, match="cannot be changed"):
        document.version = "2"


def test_each_text_becomes_a_secret_where_it_stands() -> None:
    document = Document({"a": "1", "b": {"c": "2"}, "d": ["3", "4"], "e": None, 5: "6"})  # type: ignore[dict-item]
    assert document.fields["a"] == Secret("1")
    assert document.fields["b"]["c"] == Secret("2")
    assert document.fields["d"]["1"] == Secret("4")
    assert document.fields["e"] is None
    assert document.fields["5"] == Secret("6")
    assert document.text is None


def test_what_is_no_text_is_not_kept() -> None:
    document = Document({"number": 12345, "truth": True, "bytes": b"12345", "half": 1.5})
    assert "12345" not in repr(document.fields)
    assert document.names() == ["number", "truth", "bytes", "half"]


@pytest.mark.parametrize("whole", [CANARY, Secret(CANARY)], ids=["str", "Secret"])
def test_a_document_may_be_one_text(whole: str | Secret) -> None:
    document = Document(whole)
    assert document.text == Secret(CANARY)
    assert document.names() == []


@pytest.mark.parametrize("other", [b"bytes", 5, None, ["a"], ("a", "b")])
def test_a_document_is_made_from_nothing_else(other: Any) -> None:
    with pytest.raises(TypeError, match="made from a mapping, a str or a Secret"):
        Document(other)


def test_names_of_nested_values_are_json_pointers() -> None:
    tree = {"id": "1", "a/b": {"c~d": "2", "list": ["3", "4"]}, "plain~": "5", "/odd": "6", "empty": {}}
    document = Document(tree)
    assert document.names() == ["id", "/a~1b/c~0d", "/a~1b/list/0", "/a~1b/list/1", "plain~", "/~1odd"]


names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=4)
trees = st.recursive(st.text(), lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3), max_leaves=6)


@given(st.dictionaries(names, trees, min_size=1, max_size=3))
def test_each_name_can_be_written_in_a_reference_and_finds_its_value(tree: dict[str, Any]) -> None:
    document = Document(tree)
    for name in document.names():
        reference = SecretReference.parse(f"file:pos.json#{Fields(None, name)}")
        trouble = ""
        try:
            interpret(document, reference, "pos")
        except SecretSourceError as error:  # the value may be unfit, or a client_id beside it; the name fits
            trouble = str(error)
        assert "has no field" not in trouble


# --- what a document means


def test_client_id_and_client_secret_are_the_names_if_none_are_given() -> None:
    credentials = meaning(Document({**PLAIN, "note": "for the shop"}, version="7"))
    assert shown(credentials) == ("pos", CANARY)
    assert (credentials.version, credentials.pending, credentials.previous) == ("7", None, None)


def test_other_names_are_given_after_the_hash() -> None:
    document = {"user": "pos", "key": CANARY, "client_id": "x", "client_secret": "y"}
    assert shown(meaning(document, "file:pos.json#id=user,secret=key")) == ("pos", CANARY)


def test_one_field_names_the_secret_alone() -> None:
    assert shown(meaning({"key": CANARY}, "file:pos.json#key", "pos")) == ("pos", CANARY)
    assert shown(meaning({"key": CANARY, "client_id": "pos"}, "file:pos.json#key")) == ("pos", CANARY)


def test_pointers_reach_into_a_document() -> None:
    document = {"shops": [{"a/b": {"id": "pos", "key~": CANARY}}]}
    reference = "file:pos.json#id=/shops/0/a~1b/id,secret=/shops/0/a~1b/key~0"
    assert shown(meaning(document, reference)) == ("pos", CANARY)


def test_a_plain_name_may_hold_what_a_pointer_escapes() -> None:
    assert shown(meaning({"a/b": CANARY}, "file:pos.json#a/b", "pos")) == ("pos", CANARY)


def test_a_plain_text_is_the_secret_of_the_client_id_given_beside_it() -> None:
    credentials = meaning(Document(CANARY, version="3"), "file:pos", "pos")
    assert shown(credentials) == ("pos", CANARY)
    assert credentials.version == "3"


def test_a_plain_text_without_a_client_id_says_how_to_give_one() -> None:
    text = refused(CANARY, "file:pos", kind=ConfigurationError)
    assert "file:pos gives a secret and no client ID" in text
    assert "client_id=" in text


def test_a_plain_text_has_no_fields() -> None:
    text = refused(CANARY, "file:pos#key", "pos")
    assert "is one text and has no field 'key'" in text
    assert "?format=json" in text


def test_a_client_id_beside_the_reference_must_agree_with_the_document() -> None:
    assert shown(meaning(PLAIN, client_id="pos")) == ("pos", CANARY)
    assert shown(meaning({"client_secret": CANARY}, client_id="pos")) == ("pos", CANARY)
    text = refused(PLAIN, client_id="stock", kind=ConfigurationError)
    assert "for another client than client_id='stock'" in text


def test_where_id_and_secret_are_mixed_up_the_secret_is_not_shown() -> None:
    refused(PLAIN, "file:pos.json#id=client_secret,secret=client_id", "pos", kind=ConfigurationError)


def test_a_missing_field_lists_the_names_found_and_the_fragment_that_would_fit() -> None:
    text = refused({"pos": {"user_name": "x", "Client-ID": "pos", "Client-Secret": CANARY}, "note": CANARY})
    assert "has no field 'client_secret'" in text
    assert "It has: /pos/user_name, /pos/Client-ID, /pos/Client-Secret, note." in text
    fits = text.rpartition("write ")[2]
    assert fits == "#id=/pos/Client-ID,secret=/pos/Client-Secret"
    document = {"pos": {"Client-ID": "pos", "Client-Secret": CANARY}}
    assert shown(meaning(document, f"file:pos.json{fits}")) == ("pos", CANARY)


@pytest.mark.parametrize(
    ("found", "fits"),
    [
        (("clientId", "clientSecret"), "#id=clientId,secret=clientSecret"),
        (("CLIENT_ID", "CLIENT_SECRET"), "#id=CLIENT_ID,secret=CLIENT_SECRET"),
        (("username", "password"), "#id=username,secret=password"),
        (("id", "secret"), "#id=id,secret=secret"),
        (("app id", "key"), "#id=app%20id,secret=key"),
    ],
)
def test_common_names_are_known(found: tuple[str, str], fits: str) -> None:
    assert refused(dict.fromkeys(found, CANARY)).endswith(f"write {fits}")


def test_names_that_nobody_knows_are_listed_alone() -> None:
    assert refused({"alpha": CANARY, "beta": CANARY}).endswith("It has: alpha, beta")


def test_a_long_list_of_names_is_cut() -> None:
    text = refused({f"n{number:03}": CANARY for number in range(100)})
    assert "n019, …" in text
    assert "n020" not in text


def test_a_name_that_is_no_word_is_not_shown_since_it_may_be_a_secret() -> None:
    half = json.loads('"\\ud800"')
    text = refused({"\x1b[2Jcleared\n": CANARY, half: CANARY, "alpha": CANARY, "x9Kq2Vb7": CANARY})
    assert "It has: alpha, 3 not shown" in text
    assert text.isprintable()
    assert text.encode()


def test_an_empty_document_says_so() -> None:
    assert refused({}).endswith("The document is empty")


def test_a_name_that_was_not_read_is_no_field_but_listed() -> None:
    text = refused({"client_id": "pos", "client_secret": None})
    assert "has no field 'client_secret'" in text
    assert "It has: client_id, client_secret" in text


@pytest.mark.parametrize(
    ("value", "kind"), [(5, "number"), (True, "truth value"), (1.5, "number"), (b"bytes", "value")], ids=repr
)
def test_a_value_that_is_no_text_is_refused(value: Any, kind: str) -> None:
    text = refused({"client_id": "pos", "client_secret": value})
    assert f"has a {kind} at 'client_secret', not a text" in text
    assert "quotation marks" in text
    assert "at 'client_id'" in refused({"client_id": value, "client_secret": CANARY})


def test_further_fields_where_a_text_is_wanted_are_refused() -> None:
    text = refused({"client_id": "pos", "client_secret": {"value": CANARY}})
    assert "has no text at 'client_secret' but further fields" in text
    assert "/client_secret/value" in text


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("", "is empty"),
        (CANARY + "\n", "ends with a line end"),
        (CANARY + "\r\n", "ends with a line end"),
        ("\t" + CANARY, "has a control character at position 1"),
        (CANARY + "\x00" + CANARY, "has a control character at position 12"),
        (CANARY + "\x7f", "has a control character at position 12"),
        ("é" + CANARY + "\x9f", "has a control character at position 13"),
        ("a\n" + CANARY, "has a control character at position 2"),
        (CANARY + "\ud800", "has half a character (a lone surrogate) at position 12"),
        ("\udfff" + CANARY, "has half a character (a lone surrogate) at position 1"),
    ],
    ids=ascii,
)
def test_a_text_that_cannot_be_sent_is_refused_by_position_and_never_by_value(value: str, fault: str) -> None:
    assert f"the field 'client_secret' {fault}" in refused({"client_id": "pos", "client_secret": value})
    assert f"the field 'client_id' {fault}" in refused({"client_id": value, "client_secret": "x"})
    assert f"its text {fault}" in refused(value, "file:pos", "pos")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_every_other_text_is_a_secret(text: str) -> None:
    assert shown(meaning({"client_id": "pos", "client_secret": text})) == ("pos", text)


# --- pending and previous


def test_pending_and_previous_stand_beside_the_secret_under_its_name() -> None:
    fields = {"client_secret_pending": "new", "client_secret_previous": "old"}
    credentials = meaning(Document({**PLAIN, **fields}, version="4"))
    assert shown(credentials) == ("pos", CANARY)
    assert shown(credentials.pending) == ("pos", "new")
    assert shown(credentials.previous) == ("pos", "old")
    assert credentials.pending is not None
    assert credentials.pending.version == "4"


def test_they_follow_a_renamed_secret_in_its_own_object() -> None:
    document = {
        "a": {"id": "pos", "key": CANARY, "key_pending": "new"},
        "key_pending": "x",
        "client_secret_pending": "y",
    }
    assert shown(meaning(document, "file:pos.json#id=/a/id,secret=/a/key").pending) == ("pos", "new")
    assert meaning(PLAIN | {"key_pending": "x"}).pending is None


def test_a_store_may_keep_them_as_documents_of_their_own() -> None:
    pending = Document({"client_id": "pos", "client_secret": "new"}, version="pending-1")
    previous = Document({"client_id": "pos", "client_secret": "old"}, version="previous-1")
    credentials = meaning(Document(PLAIN, version="1", pending=pending, previous=previous))
    assert shown(credentials.pending) == ("pos", "new")
    assert shown(credentials.previous) == ("pos", "old")
    assert credentials.pending is not None
    assert credentials.pending.version == "pending-1"
    assert credentials.version == "1"


def test_a_plain_text_may_have_a_plain_pending() -> None:
    assert shown(meaning(Document(CANARY, pending=Document("new")), "file:pos", "pos").pending) == ("pos", "new")


@pytest.mark.parametrize("pending", ["", "a\n", "\x00", 5, {"value": "x"}, None], ids=repr)
def test_an_unusable_pending_is_no_candidate(pending: Any) -> None:
    credentials = meaning({**PLAIN, "client_secret_pending": pending, "client_secret_previous": pending})
    assert (shown(credentials), credentials.pending, credentials.previous) == (("pos", CANARY), None, None)


@pytest.mark.parametrize(
    "pending",
    [
        {},
        "new",
        {"client_secret": "new"},
        {"client_id": "pos", "client_secret": ""},
        {"client_id": "", "client_secret": "x"},
    ],
    ids=repr,
)
def test_an_unusable_document_is_no_candidate(pending: Any) -> None:
    credentials = meaning(Document(PLAIN, pending=Document(pending), previous=Document(pending)))
    assert (shown(credentials), credentials.pending, credentials.previous) == (("pos", CANARY), None, None)


def test_a_pending_of_another_client_is_no_candidate_where_the_client_is_given() -> None:
    pending = Document({"client_id": "stock", "client_secret": "new"})
    assert meaning(Document(PLAIN, pending=pending), client_id="pos").pending is None


def test_what_stands_beside_the_secret_in_a_document_of_its_own_is_another_states() -> None:
    # AWS keeps the pending secret as a version of the whole document.
    pending = Document({**PLAIN, "client_secret": "new", "client_secret_previous": CANARY})
    credentials = meaning(Document(PLAIN, pending=pending))
    assert shown(credentials.pending) == ("pos", "new")
    assert credentials.pending is not None
    assert credentials.pending.previous is None


# --- binding


def test_a_document_may_say_what_it_is_for() -> None:
    fields = {"issuer": "https://pos.example.com/", "token_url": "https://x/token", "environment": "production"}
    reading = interpret(Document({**PLAIN, **fields}), SecretReference.parse("file:pos.json"))
    assert reading.binding == Binding("https://pos.example.com/", "https://x/token", "production")
    assert interpret(Document(PLAIN), SecretReference.parse("file:pos.json")).binding == Binding(None, None, None)
    assert interpret(Document(CANARY), SecretReference.parse("file:pos"), "pos").binding == Binding(None, None, None)


def test_the_binding_stands_beside_the_secret() -> None:
    document = Document({"a": {**PLAIN, "issuer": "https://a"}, "issuer": "https://b"})
    reference = SecretReference.parse("file:pos.json#id=/a/client_id,secret=/a/client_secret")
    assert interpret(document, reference).binding.issuer == "https://a"


@pytest.mark.parametrize("value", ["", 5, {"x": "y"}, "a\n"], ids=repr)
def test_a_binding_that_cannot_be_read_ends_the_reading(value: Any) -> None:
    assert "'environment'" in refused({**PLAIN, "environment": value})


# --- ClientCredentials


def test_credentials_show_the_client_id_and_never_the_secret() -> None:
    credentials = ClientCredentials("pos", CANARY, version="1", pending=ClientCredentials("pos", CANARY + "2"))
    assert "'pos'" in repr(credentials)
    assert CANARY not in f"{credentials} {credentials!r} {dataclasses.asdict(credentials)}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(credentials)


def test_credentials_cannot_be_changed() -> None:
    credentials = ClientCredentials("pos", Secret(CANARY))
    with pytest.raises(dataclasses.FrozenInstanceError):
        credentials.client_id = "stock"  # type: ignore[misc]
    assert not hasattr(credentials, "__dict__")
    assert credentials.client_secret.reveal() == CANARY


@pytest.mark.parametrize("client_id", ["", None, 5, b"pos"], ids=repr)
def test_a_client_id_is_a_text_that_is_not_empty(client_id: Any) -> None:
    with pytest.raises(ConfigurationError, match="a client ID is a str"):
        ClientCredentials(client_id, CANARY)


def test_a_client_secret_is_a_text_that_is_not_empty() -> None:
    with pytest.raises(ConfigurationError, match="secret of 'pos' is empty"):
        ClientCredentials("pos", "")
    with pytest.raises(TypeError, match="made from a str"):
        ClientCredentials("pos", None)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["pending", "previous"])
def test_pending_and_previous_have_no_further_ones(kind: str) -> None:
    other: Any = ClientCredentials("pos", "2", pending=ClientCredentials("pos", "3"))
    with pytest.raises(ConfigurationError, match=f"the {kind} credentials of 'pos' have pending or previous ones"):
        ClientCredentials("pos", "1", **{kind: other})
