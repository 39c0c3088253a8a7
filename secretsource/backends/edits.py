"""Changing single fields in the text of a secret file, and nothing else.

Only the line of a field is altered, added or taken out, and comments stay. No writer of these formats is needed for
that: a line that might be the right one is altered, and the whole is read again; if it does not hold exactly what was
wanted, the next line is tried. Where none fits, JSON is written anew, its names in their order; a file in another
format stays as it is, and the error says what to write by hand.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from ..errors import ConfigurationError, MalformedSecret
from ..reference import field_of, way_of
from ..secret import Secret
from .formats import Fault, Origin, plain_tree

__all__ = ["WHOLE", "changes_between", "edit"]

WHOLE = "client_secret"
"""What the one secret of a text file is called."""

_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*')"""
_JSON_MEMBER = re.compile(
    r"""(?P<before>[ \t]*)(?P<name>"(?:[^"\\]|\\.)*")(?P<sign>[ \t]*:[ \t]*)"(?:[^"\\]|\\.)*"(?P<rest>[ \t]*,?\s*)"""
)
# Each is a whole parse of the document.
_CANDIDATES_AT_MOST = 32


class _Syntax(NamedTuple):
    """How a format writes a field on a line of its own."""

    name: Callable[[str], str]
    value: Callable[[str], str]
    before: str  # what may stand before a name, as a pattern
    sign: str  # what stands between name and value, as a pattern
    rest: str  # the value and what may follow it, as a pattern; the second group stays
    joined: str  # as `sign`, to write

    def line(self, name: str, value: str) -> str:
        return f"{self.name(name)}{self.joined}{self.value(value)}"


def _in_toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # without control characters the two write a string alike


def _name_in_toml(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _in_toml(name)


def _in_env(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_./:@%+,=~^-]+", text):
        return text
    if "'" not in text and "\\" not in text:
        return f"'{text}'"
    return '"' + re.sub(r'([\\"$`])', r"\\\1", text) + '"'


_SYNTAX = {
    "toml": _Syntax(
        _name_in_toml,
        _in_toml,
        r"[ \t]*",
        r"[ \t]*=[ \t]*",
        rf"({_QUOTED}|(?:[^# \t]++|[ \t]++(?!#|$))*+)([ \t]*(?:#.*)?)",
        " = ",
    ),
    "ini": _Syntax(str, str, r"[ \t]*", r"[ \t]*[=:][ \t]*", r"(.*)()", " = "),
    "env": _Syntax(
        str,
        _in_env,
        r"[ \t]*(?:export[ \t]+)?",
        r"[ \t]*=[ \t]*",
        rf"({_QUOTED}|(?:[^ \t]++|[ \t]++(?!#))*+)((?:[ \t]+#.*)?)",
        "=",
    ),
}


def edit(text: Secret | None, format: str, changes: Mapping[str, Secret | None], origin: Origin) -> Secret:
    """The text with these fields set, or taken out where the new value is None; without a text, a new one.

    Fields are names or JSON pointers. Raises MalformedSecret where the text cannot be read, and ConfigurationError
    with what to do by hand where a field cannot be changed alone.
    """
    for field, value in changes.items():
        if value is not None and _unwritable(value):
            raise ConfigurationError(
                f"{origin} is left as it was: the new value of {field!r} is empty or has a control character in it",
                hint="Take the value as its issuer shows it, without a line end",
            )
    if format == "text":
        return _whole(changes, origin)
    outcome = _edited(text, format, changes)
    if isinstance(outcome, Fault):
        raise origin.error(MalformedSecret, outcome.what, outcome.hint)
    if isinstance(outcome, str):
        raise ConfigurationError(
            f"{origin} is left as it was: its field {outcome!r} cannot be changed without touching what is beside it",
            hint=_by_hand(format, outcome, removed=changes[outcome] is None),
        )
    return outcome


def changes_between(old: Mapping[str, Any], new: Mapping[str, Any], origin: Origin) -> dict[str, Secret | None]:
    """Which fields must be set, or taken out (None), to make the one mapping the other.

    Raises ConfigurationError where something else than a text would be written.
    """
    changes: dict[str, Secret | None] = {}
    _compare(old, new, (), changes, origin)
    return changes


def _compare(
    old: Mapping[str, Any], new: Mapping[str, Any], above: tuple[str, ...], changes: dict[str, Any], origin: Origin
) -> None:
    for name in [*old, *(name for name in new if name not in old)]:
        way = (*above, name)
        before, after = old.get(name), new.get(name)
        after = Secret(after) if isinstance(after, str) else after
        if isinstance(after, Mapping) and (before is None or isinstance(before, Mapping)):
            _compare(before or {}, after, way, changes, origin)
        elif name not in new:
            changes[field_of(way)] = None
        elif isinstance(after, Secret):
            if not (isinstance(before, Secret) and before == after):
                changes[field_of(way)] = after
        elif not _same(before, after):
            raise ConfigurationError(
                f"{origin} is left as it was: what should be written to {field_of(way)!r} is no text",
                hint="Only texts can be written",
            )


def _whole(changes: Mapping[str, Secret | None], origin: Origin) -> Secret:
    secret = changes.get(WHOLE)
    if secret is None or len(changes) > 1:
        raise ConfigurationError(
            f"{origin} is left as it was: a text file holds one secret and no further field",
            hint="Keep the client ID beside the reference, client_id=, or name a .json file, which holds both",
        )
    return Secret(secret.reveal() + "\n")


def _edited(text: Secret | None, format: str, changes: Mapping[str, Secret | None]) -> Secret | Fault | str:
    """The new text, or what is wrong with the old one, or the field that cannot be changed."""
    document = text.reveal() if text is not None else ""
    for field, value in changes.items():
        tree = plain_tree(document, format) if document else {}
        if isinstance(tree, Fault):
            return tree
        way, new = way_of(field), None if value is None else value.reveal()
        wanted = _changed(tree, way, new)
        if wanted is None:
            return field
        if _same(tree, wanted):
            continue
        for candidate in islice(_candidates(document, format, way, new, wanted), _CANDIDATES_AT_MOST):
            if _same(plain_tree(candidate, format), wanted):
                document = candidate
                break
        else:
            return field
    return Secret(document)


def _changed(tree: dict[str, Any], way: tuple[str, ...], value: str | None) -> dict[str, Any] | None:
    wanted = inner = copy.deepcopy(tree)
    for name in way[:-1]:
        inner = inner.setdefault(name, {})
        if not isinstance(inner, dict):
            return None
    if value is None:
        inner.pop(way[-1], None)
    else:
        inner[way[-1]] = value
    return wanted


def _candidates(
    document: str, format: str, way: tuple[str, ...], value: str | None, wanted: dict[str, Any]
) -> Iterator[str]:
    lines = re.findall(r"[^\n]*\n|[^\n]+", document)
    end = "\r\n" if "\r\n" in document else "\n"
    if format == "json":
        yield from islice(_json_lines(lines, way[-1], value, end), _CANDIDATES_AT_MOST - 1)
        written = json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"
        # Half a character can stand in JSON as an escape, and not in UTF-8.
        yield json.dumps(wanted, indent=2) + "\n" if re.search("[\ud800-\udfff]", written) else written
        return
    syntax = _SYNTAX[format]
    stretches = _stretches(lines, format, way)
    inside = [number for stretch in stretches for number in stretch]
    yield from _altered(lines, inside, syntax, way[-1], value)
    if value is not None:
        yield from _added(lines, stretches, format, way, syntax.line(way[-1], value), end)
    # Last, since there may be many: a header may be written in another way than ours.
    yield from _altered(lines, sorted({*range(len(lines))}.difference(inside)), syntax, way[-1], value)


def _json_lines(lines: list[str], name: str, value: str | None, end: str) -> Iterator[str]:
    """With the member changed where each has a line of its own, as an editor's or another program's indentation has."""
    members = [(number, found) for number, line in enumerate(lines) if (found := _JSON_MEMBER.fullmatch(line))]
    new = None if value is None else json.dumps(value, ensure_ascii=False)
    named = [(number, found) for number, found in members if found["name"] in (json.dumps(name), _in_toml(name))]
    for number, found in named:
        before, after = lines[:number], lines[number + 1 :]
        if new is not None:
            yield "".join([*before, found["before"], found["name"], found["sign"], new, found["rest"], *after])
        elif "," in found["rest"]:
            yield "".join([*before, *after])
        else:  # the last one: the comma before it goes as well
            yield re.sub(r",(\s*)\Z", r"\1", "".join(before)) + "".join(after)
    if named or new is None:
        return
    # Behind the one that its name goes on from, as that of a pending secret does, else at the end.
    places = sorted(members, key=lambda member: (_goes_on(name, member[1]["name"]), member[0]), reverse=True)
    for number, found in places:
        line = lines[number].rstrip("\r\n")
        comma = "," if "," in found["rest"] else ""
        added = f"{found['before']}{_in_toml(name)}{found['sign']}{new}{comma}{end}"
        yield "".join([*lines[:number], line, "" if comma else ",", end, added, *lines[number + 1 :]])


def _goes_on(name: str, other: str) -> bool:
    return _in_toml(name).startswith(f"{other[:-1]}_")


def _stretches(lines: list[str], format: str, way: tuple[str, ...]) -> list[range]:
    """Where the lines of the field's section stand, if its header is written as we would."""
    heads = [] if format == "env" else [number for number, line in enumerate(lines) if re.match(r"[ \t]*\[", line)]
    stretches = []
    for section in [way[:-1]] if len(way) > 1 else [("DEFAULT",), ()] if format == "ini" else [()]:
        header = re.compile(rf"[ \t]*{re.escape(_header(format, section))}[ \t]*(?:#.*)?")
        if not section:
            stretches.append(range(heads[0] if heads else len(lines)))
            continue
        for head, until in zip(heads, [*heads[1:], len(lines)], strict=False):
            if header.fullmatch(lines[head].rstrip("\r\n")):
                stretches.append(range(head + 1, until))
    return stretches


def _altered(lines: list[str], numbers: Iterable[int], syntax: _Syntax, name: str, value: str | None) -> Iterator[str]:
    spellings = "|".join(
        {re.escape(name), re.escape(syntax.name(name)), re.escape(f"'{name}'"), re.escape(f'"{name}"')}
    )
    pattern = re.compile(rf"({syntax.before}(?:{spellings}){syntax.sign}){syntax.rest}")
    for index in numbers:
        line = lines[index]
        body = line.rstrip("\r\n")
        found = pattern.fullmatch(body)
        if found is not None:
            new = "" if value is None else f"{found[1]}{syntax.value(value)}{found[3]}{line[len(body) :]}"
            yield "".join([*lines[:index], new, *lines[index + 1 :]])


def _added(
    lines: list[str], stretches: list[range], format: str, way: tuple[str, ...], line: str, end: str
) -> Iterator[str]:
    if format == "env":
        yield _with(lines, len(lines), line + end, end)
        return
    for stretch in stretches:
        yield _with(lines, _after_the_last(lines, stretch.start, stretch.stop), line + end, end)
        yield _with(lines, stretch.start, line + end, end)
    if len(way) > 1:
        gap = end if lines else ""
        yield _with(lines, len(lines), f"{gap}{_header(format, way[:-1])}{end}{line}{end}", end)


def _header(format: str, section: tuple[str, ...]) -> str:
    return f"[{'.'.join(map(_name_in_toml, section)) if format == 'toml' else '.'.join(section)}]"


def _after_the_last(lines: list[str], start: int, until: int) -> int:
    """Behind the last line of this stretch that is neither empty nor a comment."""
    while until > start and re.match(r"[ \t]*(?:[#;]|\r?\n?$)", lines[until - 1]):
        until -= 1
    return until


def _with(lines: list[str], index: int, new: str, end: str) -> str:
    before = "".join(lines[:index])
    return f"{before}{'' if not before or before.endswith(chr(10)) else end}{new}{''.join(lines[index:])}"


def _by_hand(format: str, field: str, *, removed: bool) -> str:
    *section, name = way_of(field)
    place = f" in {'/'.join(section)}" if section else ""
    if removed:
        return f"Take {name!r}{place} out in an editor, then run secretsource check"
    line = f'"{name}": "…"' if format == "json" else _SYNTAX[format].line(name, "…")
    return f"Write {line}{place} in an editor, then run secretsource check"


def _unwritable(value: Secret) -> bool:
    text = value.reveal()
    return not text or _UNWRITABLE.search(text) is not None


def _same(one: Any, other: Any) -> bool:
    """Equal in type as well: 1, 1.0 and true are three values, and NaN is one."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other or (one != one and other != other))
