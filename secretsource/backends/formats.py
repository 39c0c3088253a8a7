"""The text of a secret file as nested mappings. The format is named, or comes from the suffix; it is never guessed.

    json   an object; no name twice, no NaN or Infinity
    toml   as TOML 1.0 says
    ini    sections are mappings; keys before any section or in [DEFAULT] stand at the top, and no section inherits
           them; no interpolation, no inline comments, names keep their case
    env    NAME=value lines; quotes and `export` are understood, nothing is expanded: $ and ` stand for themselves
    text   the whole is one secret; one final line end is taken off

Texts become Secrets, other values stay what they are. No error repeats anything of the content: parsers put it into
theirs, so those end in the leaf functions here, which return a Fault instead.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeVar

from ..errors import BackendError, ConfigurationError, MalformedSecret
from ..reference import SecretReference
from ..secret import Secret

__all__ = ["FORMATS", "Fault", "Origin", "format_of", "parse", "parse_bytes", "plain_tree", "revealed", "wrapped"]

FORMATS = ("json", "toml", "ini", "env", "text")

_DEEPEST = 64
_MOST_DOTS = 1000
_AT_TOML = re.compile(r"\(at line (\d+), column (\d+)\)$")
_INI_LINE = re.compile(r"(?P<option>[^=:]*)(?P<vi>[=:])\s*(?P<value>.*)")
_ENV_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_ENV_NAME = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*")
_ENV_QUOTED = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_ENV_ESCAPE = re.compile(r'\\([nrt\\"$`])')
_ENV_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}

E = TypeVar("E", bound=BackendError)


class Fault(NamedTuple):
    """What is wrong with a text, in words that do not repeat it, after "is" or "has"."""

    what: str
    hint: str = "Mend it where it is kept; what it holds is not shown here"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a text comes from, for errors: its reference, and what it is called where that says more."""

    reference: SecretReference
    called: str = ""

    def __str__(self) -> str:
        return self.called or str(self.reference)

    def error(self, kind: type[E], what: str, hint: str) -> E:
        """An error about it: `what` follows its name."""
        return kind(f"{self} {what}", reference=str(self.reference), store=self.reference.store, hint=hint)


def format_of(name: str, reference: SecretReference) -> str:
    """The format that `format=` names, else the one that the suffix of this file name means, else text.

    Raises ConfigurationError for a format that there is not.
    """
    chosen = reference.option("format")
    if chosen is None:
        suffix = name.lower().rpartition(".")[2] if "." in name else ""
        return suffix if suffix in FORMATS else "text"
    if chosen not in FORMATS:
        raise ConfigurationError(f"{reference} names an unknown format", hint=f"Formats: {', '.join(FORMATS)}")
    return chosen


def parse(text: Secret, format: str, origin: Origin) -> dict[str, Any] | Secret:
    """Read a text as nested mappings of Secrets, or one Secret where the format is text.

    Raises MalformedSecret, with a line number where there is one and nothing of the content.
    """
    outcome = _parsed(text, format)
    if isinstance(outcome, Fault):
        raise origin.error(MalformedSecret, outcome.what, outcome.hint)
    return outcome


def parse_bytes(content: bytes) -> Secret | Fault:
    """The text that these bytes hold: UTF-8 without a byte order mark and without NUL."""
    if not content:
        return Fault("is empty [F12]", "Write the secret into it, or correct the reference")
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return Fault("begins with a byte order mark [F14]", "Save it as UTF-8 without a byte order mark")
    if b"\0" in content:
        return Fault(f"has a NUL at byte {content.index(0) + 1} [F14]", "Save it as UTF-8 text")
    try:
        return Secret(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Fault(f"is not UTF-8 at byte {error.start + 1} [F14]", "Save it as UTF-8 text")


def plain_tree(text: str, format: str) -> dict[str, Any] | Fault:
    """Nested mappings of plain values. Everything that a parser raises ends here."""
    read = _READERS[format]
    try:
        tree = read(text)
        return tree if isinstance(tree, Fault) else _checked(tree)
    except RecursionError:
        return Fault(f"is nested deeper than {_DEEPEST} levels")
    except Exception:  # whatever it is, it may hold the document
        return Fault(f"is not valid {format}")


def _parsed(text: Secret, format: str) -> dict[str, Any] | Secret | Fault:
    plain = text.reveal()
    if format == "text":
        plain = plain.removesuffix("\n").removesuffix("\r") if plain.endswith("\n") else plain
        return Secret(plain) if plain else Fault("is empty [F12]", "Write the secret into it")
    if not plain.strip():
        return Fault("is empty [F12]", "Write the secret into it, or correct the reference")
    tree = plain_tree(plain, format)
    return tree if isinstance(tree, Fault) else {name: wrapped(value) for name, value in tree.items()}


def wrapped(value: Any) -> Any:
    """The same tree with each text in it a Secret."""
    if isinstance(value, str):
        return Secret(value)
    if isinstance(value, dict):
        return {name: wrapped(inner) for name, inner in value.items()}
    return [wrapped(inner) for inner in value] if isinstance(value, list) else value


def revealed(value: Any) -> Any:
    """The tree in clear text, for who sends it."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, dict):
        return {name: revealed(inner) for name, inner in value.items()}
    return [revealed(inner) for inner in value] if isinstance(value, list) else value


def _checked(tree: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [tree]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return tree
    raise RecursionError


class _Refused(ValueError):
    """What a reader does not accept though the parser would; its text holds nothing of the content."""


def _json(text: str) -> dict[str, Any] | Fault:
    try:
        tree = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        return Fault(f"is not valid json (line {error.lineno}, column {error.colno})")
    except _Refused as error:
        return Fault(str(error))
    if not isinstance(tree, dict):
        return Fault(f"is not a JSON object but a {type(tree).__name__}", 'Write {"client_id": …, "client_secret": …}')
    return tree


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise _Refused("has a name twice in one object")
    return tree


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _Refused("has a number that is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise _Refused("has NaN or Infinity in it, which JSON does not know")


def _toml(text: str) -> dict[str, Any] | Fault:
    import tomllib  # here and below where it is needed: a start without such a file does not pay for it

    # A key of n parts takes it n² steps.
    if any(line.count(".") > _MOST_DOTS for line in text.split("\n") if not line.lstrip().startswith("#")):
        return Fault(f"has a line with more than {_MOST_DOTS} dots")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _AT_TOML.search(str(error))
        return Fault(f"is not valid toml (line {at[1]}, column {at[2]})" if at else "is not valid toml at its end")


def _ini(text: str) -> dict[str, Any] | Fault:
    import configparser

    class Parser(configparser.RawConfigParser):
        OPTCRE = _INI_LINE  # its own takes n² steps for n blanks

    # No file can hold a NUL, so no section of it has this name; none is the default, so nothing is inherited.
    top = "\0"
    parser = Parser(default_section="\0\0", empty_lines_in_values=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(f"[{top}]\n{text}")
    except (configparser.DuplicateOptionError, configparser.DuplicateSectionError) as error:
        return Fault(f"has a name twice (line {(error.lineno or 1) - 1})")
    except configparser.ParsingError as error:
        return Fault(f"is not valid ini (line {error.errors[0][0] - 1})" if error.errors else "is not valid ini")
    tree: dict[str, Any] = {}
    for section in parser.sections():
        keys = dict(parser.items(section))
        additions = keys if section in (top, "DEFAULT") else {section: keys}
        if tree.keys() & additions.keys():
            return Fault("has a name twice at its top (keys before any section and in [DEFAULT] stand together)")
        tree.update(additions)
    return tree


def _env(text: str) -> dict[str, Any] | Fault:
    text = text.replace("\r\n", "\n")
    tree: dict[str, Any] = {}
    position = 0
    while position < len(text):
        if blank := _ENV_BLANK.match(text, position):
            position = blank.end()
            continue
        name = _ENV_NAME.match(text, position)
        if name is None:
            fault = Fault("is not valid env", "Write NAME=value lines, comments on lines of their own")
        elif name[1] in tree:
            fault = Fault("has a name twice")
        else:
            value, end = _env_value(text, name.end())
            if not isinstance(value, Fault):
                tree[name[1]], position = value, end
                continue
            fault = value
        return Fault(f"{fault.what} (line {text.count(chr(10), 0, position) + 1})", fault.hint)
    return tree


def _env_value(text: str, start: int) -> tuple[str | Fault, int]:
    """The value that begins here, and where the next line begins."""
    if text[start : start + 1] in ("'", '"'):
        quoted = _ENV_QUOTED.match(text, start)
        rest = quoted and _ENV_BLANK.match(text, quoted.end())
        if quoted is None or rest is None:
            return Fault("has a quotation mark without its pair", "Close it, or put the other kind around the value"), 0
        if quoted[1] is not None:
            return quoted[1], rest.end()
        return _ENV_ESCAPE.sub(lambda found: _ENV_ESCAPES.get(found[1], found[1]), quoted[2]), rest.end()
    end = text.find("\n", start)
    line = text[start:] if end < 0 else text[start:end]
    if line.startswith("#"):  # a value for some programs, a comment for others
        return Fault("has a '#' where a value begins", "Put the value in quotation marks"), 0
    for comment in (" #", "\t#"):
        line = line.partition(comment)[0]
    return line.strip(" \t"), start + len(line) if end < 0 else end + 1


_READERS: dict[str, Callable[[str], dict[str, Any] | Fault]] = {
    "json": _json,
    "toml": _toml,
    "ini": _ini,
    "env": _env,
}
