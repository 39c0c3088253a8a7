from __future__ import annotations

import contextlib
import json
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secretsource import ConfigurationError, MalformedSecret, SecretReference
from secretsource.backends.edits import changes_between, edit
from secretsource.backends.formats import FORMATS, Fault, Origin, format_of, parse, parse_bytes
from secretsource.secret import Secret

from .layouts import CANARY, revealed, shows

ORIGIN = Origin(SecretReference.parse("file:///etc/pos/oauth.json"))
STRUCTURED = ("json", "toml", "ini", "env")


def read(text: str, format: str) -> Any:
    return revealed(parse(Secret(text), format, ORIGIN))


def refused(text: str, format: str) -> MalformedSecret:
    secret = Secret(text)
    with pytest.raises(MalformedSecret) as caught:
        parse(secret, format, ORIGIN)
    error = caught.value
    assert not shows(error)
    assert (error.reference, error.store) == ("file:///etc/pos/oauth.json", "file")
    assert error.hint
    return error


def edited(text: str | None, format: str, **changes: str | None) -> str:
    secrets = {name: None if value is None else Secret(value) for name, value in changes.items()}
    return edit(None if text is None else Secret(text), format, secrets, ORIGIN).reveal()


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("oauth.json", "json"),
        ("OAUTH.JSON", "json"),
        ("pos.toml", "toml"),
        ("pos.ini", "ini"),
        ("pos.env", "env"),
        (".env", "env"),
        ("pos", "text"),
        ("json", "text"),
        ("pos.yaml", "text"),
        ("pos.json.bak", "text"),
    ],
)
def test_the_suffix_names_the_format_and_anything_else_is_text(name: str, format: str) -> None:
    assert format_of(name, SecretReference.parse("file:///x")) == format


def test_the_option_wins_over_the_suffix() -> None:
    assert format_of("a.json", SecretReference.parse("file:///a.json?format=ini")) == "ini"


def test_an_unknown_format_is_an_error_that_lists_the_formats() -> None:
    with pytest.raises(ConfigurationError, match="json, toml, ini, env, text"):
        format_of("a", SecretReference.parse("file:///a?format=yaml"))


def test_a_format_is_never_guessed_from_the_content() -> None:
    assert read('{"client_secret": "x"}', "text") == '{"client_secret": "x"}'


@pytest.mark.parametrize(
    ("text", "value"), [("x", "x"), ("x\n", "x"), ("x\r\n", "x"), ("x\n\n", "x\n"), (" x \n", " x "), ("x\r", "x\r")]
)
def test_exactly_one_line_end_is_taken_off_a_text(text: str, value: str) -> None:
    assert read(text, "text") == value


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("text", ["", "\n"])
def test_nothing_is_an_error_in_every_format(text: str, format: str) -> None:
    assert "[F12]" in str(refused(text, format))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty [F12]"),
        (b"\xef\xbb\xbf{}", "byte order mark [F14]"),
        ("x".encode("utf-16"), "byte order mark [F14]"),
        (b"ab\0c", "NUL at byte 3 [F14]"),
        (b"ab\xffc", "not UTF-8 at byte 3 [F14]"),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_their_place(content: bytes, words: str) -> None:
    fault = parse_bytes(content)
    assert isinstance(fault, Fault)
    assert words in fault.what


def test_values_stay_what_they_are_so_that_an_int_can_be_called_no_text() -> None:
    assert read('{"a": 1, "b": [true, "x"], "c": {"d": null}}', "json") == {"a": 1, "b": [True, "x"], "c": {"d": None}}
    assert read("a = 1\n[b]\nc = 'x'", "toml") == {"a": 1, "b": {"c": "x"}}


@pytest.mark.parametrize(
    "text",
    [
        f'{{"{CANARY}": 1, "{CANARY}": 2}}',
        f'{{"a": {{"{CANARY}": 1, "{CANARY}": 2}}}}',
        f'{{"a": NaN, "b": "{CANARY}"}}',
        f'{{"a": -Infinity, "b": "{CANARY}"}}',
        f'{{"a": 1e999, "b": "{CANARY}"}}',
        f'{{"a": {"9" * 5000}, "b": "{CANARY}"}}',
        f'{{"a": "{CANARY}"',
        f'["{CANARY}"]',
        f'"{CANARY}"',
        f'{{"a": {"[" * 30000}"{CANARY}"',
        f'{{"a": {"[" * 100}"{CANARY}"{"]" * 100}}}',
    ],
)
def test_json_with_a_trap_is_refused_and_not_repeated(text: str) -> None:
    refused(text, "json")


def test_an_error_of_json_and_toml_says_line_and_column() -> None:
    assert "line 2, column 2" in str(refused(f'{{"a":\n "{CANARY}', "json"))
    assert "line 2, column 5" in str(refused(f"a = 1\nb = {CANARY}", "toml"))


@pytest.mark.parametrize(
    "text",
    [f"a = '{CANARY}'\na = 2", f"{CANARY}", f"a = '{CANARY}", f"{'.'.join('a' * 200)} = '{CANARY}'", f"a=[{CANARY}"],
)
def test_toml_with_a_trap_is_refused_and_not_repeated(text: str) -> None:
    refused(text, "toml")


def test_ini_sections_are_mappings_and_default_stands_at_the_top_without_being_inherited() -> None:
    text = "top = 1\n[DEFAULT]\nShared = 2\n[pos]\nclient_id = pos\n; comment\nclient_secret: a%b;#c ${x}\n"
    assert read(text, "ini") == {
        "top": "1",
        "Shared": "2",
        "pos": {"client_id": "pos", "client_secret": "a%b;#c ${x}"},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"a = {CANARY}\na = 2", "line 2"),
        (f"[a]\nb = {CANARY}\n[a]\n", "line 3"),
        (f"a = 1\n{CANARY}", "line 2"),
        (f"a = {CANARY}\n[DEFAULT]\na = 2", "at its top"),
        (f"a = {CANARY}\n[a]\nb = 2", "at its top"),
    ],
)
def test_ini_with_a_trap_is_refused_and_not_repeated(text: str, words: str) -> None:
    assert words in str(refused(text, "ini"))


def test_env_understands_quotes_and_export_and_expands_nothing() -> None:
    text = (
        "# comment\n\n"
        "A=1\n"
        "export B = two words # comment\r\n"
        "C='single $HOME \\n \"x\" # kept'\n"
        'D="double \\"q\\" \\\\ \\n $HOME `id` # kept" # comment\n'
        "E=$(id)${HOME}`id`\n"
        "F=\n"
        "G=a#b\n"
        "H='two\nlines'"
    )
    assert read(text, "env") == {
        "A": "1",
        "B": "two words",
        "C": 'single $HOME \\n "x" # kept',
        "D": 'double "q" \\ \n $HOME `id` # kept',
        "E": "$(id)${HOME}`id`",
        "F": "",
        "G": "a#b",
        "H": "two\nlines",
    }


@pytest.mark.parametrize(
    "text",
    [f"A=1\n{CANARY}", f"A=1\nA={CANARY}", f"\nA='{CANARY}", f'\nA="{CANARY}"x', f"\nA=#{CANARY}", f"\n={CANARY}"],
)
def test_env_with_a_trap_is_refused_with_its_line(text: str) -> None:
    assert "line 2" in str(refused(text, "env"))


@pytest.mark.parametrize("text", ["A=" + " " * 65000 + "\0", "A=" + "' " * 32000, 'A="' + "\\" * 65000, "a\n" * 32000])
def test_a_hostile_env_text_takes_no_time(text: str) -> None:
    refused(text, "env") if not text.startswith("A= ") else read(text, "env")


SPECIAL = st.text(alphabet="ab=:[]{}\"'\\#;,.\n\r\t 01-_$%~/\x00\u00a0\u2028\ud800é", max_size=60)


@settings(max_examples=400, deadline=None)
@given(text=st.one_of(st.text(max_size=60), SPECIAL), format=st.sampled_from(FORMATS))
def test_whatever_the_text_is_it_is_read_or_malformed(text: str, format: str) -> None:
    secret = Secret(CANARY + text)
    error = None
    try:
        parse(secret, format, ORIGIN)
    except MalformedSecret as caught:
        error = caught
    assert error is None or not shows(error)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=40))
def test_whatever_the_bytes_are_they_are_a_text_or_a_fault(content: bytes) -> None:
    outcome = parse_bytes(content)
    assert isinstance(outcome, (Fault, Secret))


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(alphabet=st.characters(exclude_categories=("Cc", "Cs"), codec="utf-8"), min_size=1, max_size=20)
# What an ini line cannot hold: blanks at its ends, which any reader takes off.
TRIMMED = VALUES.filter(lambda value: value == value.strip())


@pytest.mark.parametrize("format", STRUCTURED)
@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_an_edit_changes_exactly_what_was_asked_for(format: str, data: st.DataObject) -> None:
    values = TRIMMED if format == "ini" else VALUES
    before = data.draw(st.dictionaries(NAMES, values, max_size=4))
    changes = data.draw(st.dictionaries(NAMES, values, min_size=1, max_size=3))
    removed = data.draw(st.sampled_from([*before, None])) if before else None
    text = edited(None, format, **before) if before else None
    wanted = {**before, **changes}
    asked: dict[str, str | None] = dict(changes)
    if removed is not None and removed not in changes:
        del wanted[removed]
        asked[removed] = None
    assert read(edited(text, format, **asked), format) == wanted


@settings(max_examples=150, deadline=None)
@given(text=SPECIAL, value=TRIMMED, format=st.sampled_from(STRUCTURED))
def test_an_edit_of_any_text_gives_exactly_the_change_or_leaves_it(text: str, value: str, format: str) -> None:
    with contextlib.suppress(MalformedSecret, ConfigurationError):
        before = read(text, format)
        after = read(edited(text, format, client_secret=value), format)
        assert after == {**before, "client_secret": value}


def test_json_keeps_the_order_of_its_names_and_is_indented() -> None:
    assert edited('{"b": 1, "client_secret": "old", "a": "é"}', "json", client_secret="new", c="x") == (
        '{\n  "b": 1,\n  "client_secret": "new",\n  "a": "é",\n  "c": "x"\n}\n'
    )


JSON = """\
{
    "client_id": "pos",
    "number": 1.10,
    "client_secret" : "old",
    "other": {
\t"client_secret": "not this"
    }
}"""


def test_json_with_a_line_for_each_member_keeps_all_other_lines() -> None:
    new = edited(JSON, "json", client_secret='n"é', client_secret_pending="next")
    line = '    "client_secret" : "n\\"é",\n    "client_secret_pending" : "next",\n'
    assert new == JSON.replace('    "client_secret" : "old",\n', line)
    assert edited(new, "json", client_secret="old", client_secret_pending=None) == JSON


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_json_keeps_its_commas_where_the_last_member_comes_and_goes(end: str) -> None:
    text = end.join(["{", '  "a": "1",', '  "key": "2"', "}", ""])
    more = end.join(["{", '  "a": "1",', '  "key": "2",', '  "key_previous": "3"', "}", ""])
    assert edited(text, "json", key_previous="3") == more
    assert edited(more, "json", key_previous=None) == text
    assert edited(text, "json", a=None) == end.join(["{", '  "key": "2"', "}", ""])
    assert read(edited(text, "json", a=None, key=None), "json") == {}


def test_json_fields_are_addressed_by_pointers_and_made_where_missing() -> None:
    text = edit(
        Secret('{"prod": {"key": "old"}}'), "json", {"/prod/key": Secret("new"), "/a~1b/x": Secret("y")}, ORIGIN
    )
    assert json.loads(text.reveal()) == {"prod": {"key": "new"}, "a/b": {"x": "y"}}


def test_json_that_holds_half_a_character_stays_writable() -> None:
    assert read(edited('{"odd": "\\ud800"}', "json", a="x"), "json")["a"] == "x"


TOML = """\
# who we are
client_id = "pos"   # the site
"client_secret" = 'old' # renewed in May
number = 1

# not ours
[other]
client_secret = "not this"
list = [
  "client_secret = 1",
]
"""


def test_toml_keeps_comments_and_everything_else() -> None:
    new = edited(TOML, "toml", client_secret='n"e\\w', client_secret_pending="next")
    assert new == TOML.replace("'old'", '"n\\"e\\\\w"').replace(
        "number = 1\n", 'number = 1\nclient_secret_pending = "next"\n'
    )
    assert tomllib.loads(edited(new, "toml", client_secret_pending=None)) == {
        **tomllib.loads(TOML),
        "client_secret": 'n"e\\w',
    }


def test_toml_fields_of_a_table_are_changed_added_and_made() -> None:
    changes = {"/other/client_secret": Secret("new"), "/other/client_id": Secret("id"), "/third.x/key": Secret("k")}
    new = tomllib.loads(edit(Secret(TOML), "toml", changes, ORIGIN).reveal())
    assert new["client_secret"] == "old"
    assert new["other"]["client_secret"] == "new"
    assert new["other"]["client_id"] == "id"
    assert new["third.x"] == {"key": "k"}


@pytest.mark.parametrize("text", ['client_secret = """a\nb"""\n', 'x = {client_secret = "a"}\n', "a.b = 1\n"])
def test_toml_that_cannot_be_changed_in_one_line_stays_and_says_what_to_write(text: str) -> None:
    field = {"c": "client_secret", "x": "/x/client_secret", "a": "/a/b/c"}[text[0]]
    with pytest.raises(ConfigurationError, match="in an editor") as caught:
        edit(Secret(text), "toml", {field: Secret(CANARY)}, ORIGIN)
    assert not shows(caught.value)


INI = "; ours\n[pos]\nclient_id = pos\nclient_secret : old\n\n# theirs\n[other]\nclient_secret = not this\n"


def test_ini_keeps_comments_and_everything_else() -> None:
    changes = {"/pos/client_secret": Secret("new"), "/pos/client_secret_pending": Secret("next")}
    new = edit(Secret(INI), "ini", changes, ORIGIN).reveal()
    assert new == INI.replace(": old\n", ": new\nclient_secret_pending = next\n")


def test_ini_fields_at_the_top_go_before_any_section_or_into_default() -> None:
    assert edited(INI, "ini", issuer="x").startswith("issuer = x\n")
    assert edited("[DEFAULT]\na = 1\n[b]\nc = 2\n", "ini", d="3") == "[DEFAULT]\na = 1\nd = 3\n[b]\nc = 2\n"


def test_a_value_that_ini_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot be changed"):
        edited("a = 1\n", "ini", client_secret=" blanks ")


def test_env_keeps_comments_export_and_line_ends() -> None:
    text = "# ours\r\nexport KEY='old' # May\r\nOTHER=1"
    new = edited(text, "env", KEY="a b$c", KEY_PENDING="it's")
    assert new == "# ours\r\nexport KEY='a b$c' # May\r\nOTHER=1\r\nKEY_PENDING=\"it's\"\r\n"


def test_a_text_file_is_replaced_as_a_whole() -> None:
    assert edited("old\n", "text", client_secret="new") == "new\n"
    assert edited(None, "text", client_secret="new") == "new\n"


def test_a_text_file_takes_no_further_field() -> None:
    with pytest.raises(ConfigurationError, match="client_id="):
        edited("old", "text", client_secret="new", client_id="pos")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", ["", f"{CANARY}\n", f"{CANARY}\x1b", f"{CANARY}\ud800"])
def test_what_no_client_secret_can_be_is_not_written(value: str, format: str) -> None:
    secret = Secret(value)
    with pytest.raises(ConfigurationError) as caught:
        edit(None, format, {"client_secret": secret}, ORIGIN)
    assert not shows(caught.value)


def test_changes_are_found_in_nested_mappings_and_name_what_goes() -> None:
    old = parse(Secret('{"a": "1", "b": {"c": "2", "d": "3"}, "n": 1}'), "json", ORIGIN)
    assert isinstance(old, dict)
    new = {"a": Secret("1"), "b": {"c": "new"}, "n": 1, "x/y": {"z": "4"}}
    changes = changes_between(old, new, ORIGIN)
    assert revealed(changes) == {"/b/c": "new", "/b/d": None, "/x~1y/z": "4"}


def test_only_texts_are_written() -> None:
    with pytest.raises(ConfigurationError, match="no text"):
        changes_between({}, {"a": 5}, ORIGIN)
