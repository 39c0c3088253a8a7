"""Secrets pasted into a configuration, where only references to them belong. What is found is named, never repeated."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["Pasted", "find"]

_TAKES_SECRET = re.compile(
    r"(.*_)?(secret|secret_id|token|password|passwd|passphrase|pwd|private_key|secret_key|access_key|api_?key|"
    r"assertion|jwt)"
)
_TAKES_PATH = re.compile(r"(.*_)?(private_key|jwt)")
_FORMS = {
    "a token of Vault": r"(?<![\w.-])(hv[sbr]\.[\w-]{20,}|[sb]\.[A-Za-z0-9]{24}(?![\w.-]))",
    "an access key of AWS": r"(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])",
    "a JWT": r"eyJ[\w-]{5,}\.eyJ[\w-]{5,}\.[\w-]*",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a token of GitHub": r"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{22,}",
    "a token of GitLab": r"(?<!\w)glpat-[\w-]{20,}",
    "a token of Slack": r"(?<!\w)xox[a-z]-[\w-]{10,}",
    # An ARN in a reference has colons, too, and names of AWS may have an "@".
    "a URL with a password in it": r"(?<![\w+.-])(?!aws:)[a-z][a-z0-9+.-]*://[^/?#\s@:]*:[^/?#\s@]+@",
}
_KNOWN = [(what, re.compile(form)) for what, form in _FORMS.items()]


class Pasted(NamedTuple):
    """What was found, and where: the keys that lead there, or the number of a line."""

    where: tuple[str, ...] | int
    what: str


def find(text: str, tables: Mapping[str, Any], is_store: Callable[[str], bool]) -> Pasted | None:
    """The first secret in a TOML document, of which both the text and its tables are given.

    A key that takes a secret may have a reference to a store; a path, where a login takes one.
    """
    for keys, value in _leaves(tables, ()):
        for key in keys:
            what = _form_of(key)
            if what is not None:
                return Pasted(keys[: keys.index(key)], f"has {what} as a key")
        what = _form_of(value) if isinstance(value, str) else None
        if what is not None:
            return Pasted(keys, f"is {what}")
        name = keys[-1].lower().replace("-", "_")
        takes_secret = _TAKES_SECRET.fullmatch(name) or (name == "reference" and "auth" in keys)
        if takes_secret and value != {} and not _may_stand(name, value, is_store):
            return Pasted(keys, "takes a secret, and has something other than a reference to one")
    for number, line in enumerate(text.splitlines(), 1):  # comments, which no parser gives
        what = _form_of(line)
        if what is not None:
            return Pasted(number, f"has {what} in it")
    return None


def _leaves(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*keys, key))
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _leaves(inner, keys)
    else:
        yield keys or ("",), value


def _form_of(text: str) -> str | None:
    return next((what for what, form in _KNOWN if form.search(text)), None)


def _may_stand(name: str, value: Any, is_store: Callable[[str], bool]) -> bool:
    if not isinstance(value, str):
        return False
    store, colon, _ = value.partition(":")
    path = value.startswith(("/", "./", "../")) and _TAKES_PATH.fullmatch(name) is not None
    return path or (colon == ":" and is_store(store))
