"""Secrets pasted into a configuration, where only references to them belong. What is found is named, never repeated."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["Pasted", "find"]

# What takes a secret has one of these words in its name, however that is written: clientSecret, api-key, TOKEN_2; but
# not as what is said about it: token_type, secret_engine.
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_WORDS = re.compile(
    r"secret|tokens?|passwords?|passwd|passphrase|pwd|bearer|authorization|assertion|jwt|apikey|clientsecret"
)
_KINDS_OF_KEY = re.compile(r"private|secret|access|api|shared|signing|encryption|account|storage|subscription|client")
_ABOUT_IT = re.compile(
    r"type|types|missing|url|uri|endpoint|format|ttl|domain|engine|use|method|lifetime|name|field|header|expiry|signed|alg"
)
_PATH_WORDS = frozenset(("private", "jwt"))
_FORMS = {
    "a token of Vault": r"(?<![\w.-])(hv[sbr]\.[\w-]{20,}|[sb]\.[A-Za-z0-9]{24}(?![\w.-]))",
    "an access key of AWS": r"(?<![A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])",
    "a JWT": r"eyJ[\w-]{5,4096}\.eyJ[\w-]{5,}\.[\w-]*",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a token of GitHub": r"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{22,}",
    "a token of GitLab": r"(?<!\w)glpat-[\w-]{20,}",
    "a token of Slack": r"(?<!\w)xox[a-z]-[\w-]{10,}",
    "a client secret of Microsoft Entra": r"(?<![\w~.-])[\w~.-]{3}[0-9]Q~[\w~.-]{31,34}(?![\w~.-])",
    "a client secret or a key of Google": r"(?<![\w-])(GOCSPX-[\w-]{20,}|AIza[\w-]{35}|ya29\.[\w-]{20,})",
    "a key of Stripe": r"(?<!\w)[sr]k_(live|test)_\w{16,}",
    "a token of a package registry": r"(?<!\w)(npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,})",
    "a token of Hugging Face": r"(?<!\w)hf_[A-Za-z0-9]{30,}",
    "a key of SendGrid": r"(?<!\w)SG\.[\w-]{20,}\.[\w-]{20,}",
    "a token of Doppler": r"(?<!\w)dp\.[a-z]{2,5}\.[\w-]{20,}",
    # An ARN in a reference has colons, too, and names of AWS may have an "@".
    "a URL with a password": r"(?<![\w+.-])(?!aws:)[a-z][a-z0-9+.-]*://([^/?#\s@:]*:[^/?#\s@]+|[^/?#\s@:]{20,})@",
}
_KNOWN = [(what, re.compile(form)) for what, form in _FORMS.items()]


# Outside of quotes; what is given in it has no blank, a letter and a digit.
_COMMENT = re.compile(r"""(?:[^"'#]|"(?:[^"\\]|\\.)*"|'[^']*')*#(.*)""")
_GIVEN = re.compile(r"""(?<![\w.-])([\w.-]{1,64})["']?\s{0,8}[=:]\s{0,8}["']?([^\s"',;}]{8,256})""")


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
        name = keys[-1]
        takes_secret = _takes_secret(name) or (name == "reference" and "auth" in keys)
        if takes_secret and value != {} and not _may_stand(name, value, is_store):
            return Pasted(keys, "takes a secret, and has something other than a reference to one")
    for number, line in enumerate(text.splitlines(), 1):  # comments, which no parser gives
        what = _form_of(line)
        if what is not None:
            return Pasted(number, f"has {what} in it")
        comment = _COMMENT.match(line[:4096])
        for name, given in _GIVEN.findall(comment[1]) if comment is not None else ():
            if _takes_secret(name) and _resembles_one(given) and not _may_stand(name, given, is_store):
                return Pasted(number, "has a comment with what looks like a secret")
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


def _takes_secret(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words or _ABOUT_IT.fullmatch(words[-1]) or name.lower().replace("-", "_") == "access_key_id":
        return False
    return any(map(_SECRET_WORDS.fullmatch, words)) or ("key" in words and any(map(_KINDS_OF_KEY.fullmatch, words)))


def _resembles_one(text: str) -> bool:
    return any(map(str.isdigit, text)) and any(map(str.isalpha, text)) and "://" not in text


def _form_of(text: str) -> str | None:
    return next((what for what, form in _KNOWN if form.search(text)), None)


def _may_stand(name: str, value: Any, is_store: Callable[[str], bool]) -> bool:
    if not isinstance(value, str):
        return False
    store, colon, _ = value.partition(":")
    words = {word.lower() for word in _WORDS.findall(name)}
    path = "/" in value and not colon and bool(words & _PATH_WORDS)  # which no JWT has
    return path or (colon == ":" and is_store(store))
