"""Tables of a configuration, held against what takes them: no unknown key, no wrong type, nothing pasted repeated.

What a table takes is a mapping of names to annotations as a constructor's signature has them, such as "str | None".
"""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import ConfigurationError
from ..reference import BUILT_IN_STORES

__all__ = ["NAME", "PLAIN_HTTP", "At", "Takes", "check_table", "hosts_of", "near", "pieces", "takes_of"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
PLAIN_HTTP = "str | list[str | dict[str, str]]"

_WORD = re.compile(r"[a-z][a-z_]{0,39}")
_ARRAYS = {"Iterable", "Sequence", "Collection", "tuple", "list", "set", "frozenset"}
_TABLES = {"Mapping", "dict"}
_WANTED = {"str": "a string", "PathLike": "a string", "Path": "a string", "bool": "true or false"}
_WANTED |= {"int": "an integer", "float": "a number", **dict.fromkeys(_ARRAYS, "an array")}
_WANTED |= dict.fromkeys(_TABLES, "a table of strings")


class At(NamedTuple):
    """A place in a configuration: its file, and the keys that lead there."""

    file: str
    keys: tuple[str, ...] = ()

    def under(self, *keys: str) -> At:
        return self._replace(keys=self.keys + keys)

    def error(self, what: str, hint: str | None) -> ConfigurationError:
        """An error about it: `what` follows its name."""
        return ConfigurationError(f"{self} {what}", hint=hint)

    def __str__(self) -> str:
        return f"{self.file}: {self.path}" if self.keys else self.file

    @property
    def path(self) -> str:
        """Its keys with dots between them. One that may be a secret pasted by mistake is not repeated."""
        befores = ("", *self.keys)
        named = ("environments", "clients", "stores")
        return ".".join(
            key if _WORD.fullmatch(key) or (before in named and NAME.fullmatch(key)) else "…"
            for before, key in zip(befores, self.keys, strict=False)
        )


class Takes(NamedTuple):
    """What a table may have, and what it must have."""

    keys: Mapping[str, str]
    required: tuple[str, ...] = ()


def takes_of(make: Callable[..., Any], leave_out: Iterable[str] = ()) -> Takes:
    """The arguments of a class or a function, less those that no file can give."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = [one for one in inspect.signature(make).parameters.values() if one.kind in by_name]
    written = [one for one in parameters if one.name not in set(leave_out)]
    return Takes(
        {one.name: PLAIN_HTTP if one.name == "plain_http" else _annotation(one) for one in written},
        tuple(one.name for one in written if one.default is one.empty),
    )


def check_table(table: Any, takes: Takes, at: At) -> None:
    """Raise ConfigurationError for a key that is unknown, of a wrong type, or missing."""
    if not isinstance(table, dict):
        raise at.error(f"is {_kind_of(table)}, and takes a table", f"Write [{at.path}] and its keys below")
    for key, value in table.items():
        wanted = takes.keys.get(key)
        if wanted is None:
            raise _unknown(key, takes.keys, at)
        if not _fits(value, wanted):
            raise at.under(key).error(f"is {_kind_of(value)}, and takes {_wanted(wanted)}", None)
    missing = [name for name in takes.required if name not in table]
    if missing:
        raise at.error(f"has no {missing[0]!r}", f"It needs {', '.join(takes.required)}")


def hosts_of(plain_http: str | Sequence[str | Mapping[str, str]], at: At, *, production: bool) -> tuple[str, ...]:
    """The hosts to which secrets may go without encryption; in production each needs a reason beside it."""
    hosts = []
    for entry in [plain_http] if isinstance(plain_http, str) else plain_http:
        if isinstance(entry, Mapping):
            check_table(entry, Takes({"host": "str", "reason": "str"}, ("host", "reason")), at)
        if production and (isinstance(entry, str) or not entry["reason"].strip()):
            raise at.error(
                "lets secrets go without encryption in production, and does not say why",
                'Use https; or, knowing that, write { host = "HOST:PORT", reason = "…" }',
            )
        hosts.append(entry if isinstance(entry, str) else entry["host"])
    return tuple(hosts)


def near(name: str, known: Iterable[str], otherwise: str) -> str:
    """A hint: the known name that may be meant."""
    found = difflib.get_close_matches(name[:64], sorted(known), n=1, cutoff=0.7)
    return f"Did you mean {found[0]!r}?" if found else otherwise


def pieces(value: Any) -> Iterator[str]:
    """What an error could repeat of a value that is neither a URL nor a reference. A short word may be there anyway."""
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from pieces(each)
    elif isinstance(value, str) and value.partition(":")[0] not in ("https", "http", *BUILT_IN_STORES):
        for piece in {value, *value.split()}:
            if len(piece) >= 8:
                yield from (piece, repr(piece)[1:-1])


def _unknown(key: str, known: Iterable[str], at: At) -> ConfigurationError:
    if re.search("secret|password|private_?key", key):
        hint = "A secret does not belong here: credentials names where it is kept, such as env://POS"
    else:
        hint = near(key, known, f"Known here: {', '.join(sorted(known)) or 'no key at all'}")
    if _WORD.fullmatch(key):
        return at.under(key).error("is not known", hint)
    return at.error(
        f"has a key of {len(key)} characters that is not known (not repeated here, in case it is a secret)", hint
    )


def _annotation(parameter: inspect.Parameter) -> str:
    if parameter.annotation is parameter.empty:
        return ""
    return (
        parameter.annotation
        if isinstance(parameter.annotation, str)
        else inspect.formatannotation(parameter.annotation)
    )


def _fits(value: Any, annotation: str) -> bool:
    return any(_fits_one(value, *_parts(one)) for one in _split(annotation, "|"))


def _fits_one(value: Any, name: str, inner: str) -> bool:
    """Whether a TOML value may be given for one type; for a type that we do not know, it may."""
    if name in ("str", "PathLike", "Path"):
        return isinstance(value, str)
    if name == "bool":
        return isinstance(value, bool)
    if name in ("int", "float"):
        number = isinstance(value, int) or (name == "float" and isinstance(value, float) and math.isfinite(value))
        return number and not isinstance(value, bool)
    if name == "Literal":
        return any(type(value) is type(one) and value == one for one in ast.literal_eval(f"[{inner}]"))
    if name in _ARRAYS:
        kinds = [one for one in _split(inner, ",") if one != "..."] or [""]
        return isinstance(value, list) and all(any(_fits(each, kind) for kind in kinds) for each in value)
    if name in _TABLES:
        kind = (_split(inner, ",") or [""])[-1]
        return isinstance(value, dict) and all(_fits(each, kind) for each in value.values())
    return name != "None"


def _wanted(annotation: str) -> str:
    words = []
    for name, inner in map(_parts, _split(annotation, "|")):
        if name == "Literal":
            words.append(f"one of {', '.join(map(str, ast.literal_eval(f'[{inner}]')))}")
        elif name in _ARRAYS and _split(inner, ",")[:1] == ["str"]:
            words.append("an array of strings")
        elif name in _WANTED:
            words.append(_WANTED[name])
    return " or ".join(dict.fromkeys(words))


def _kind_of(value: Any) -> str:
    if isinstance(value, list) and value:
        return f"an array with {' and '.join(dict.fromkeys(map(_kind_of, value)))} in it"
    kinds = {str: "a string", bool: "a boolean", int: "an integer", float: "a float", list: "an array", dict: "a table"}
    return kinds.get(type(value), "a date or time")


def _parts(annotation: str) -> tuple[str, str]:
    name, _, inner = annotation.partition("[")
    return name.rpartition(".")[2], inner.removesuffix("]")


def _split(text: str, mark: str) -> list[str]:
    """The parts between marks that stand outside of all brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == mark and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]
