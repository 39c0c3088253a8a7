"""SecretReference: where credentials are kept. It holds no secret and may be logged.

    reference = store ":" [ "//" ] path [ "?" option *( "&" option ) ] [ "#" fields ]
    fields    = field | "id=" field "," "secret=" field          field = name or /json/pointer

An own parser: `urllib.parse.urlsplit` breaks ARNs and lower-cases mounts. A secret that is pasted where a reference
belongs is never repeated in an error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote_to_bytes

from .errors import ConfigurationError, forgetting

__all__ = ["SecretReference", "Fields", "BUILT_IN_STORES", "DEFAULT_FIELDS", "field_of", "unknown_store", "way_of"]

BUILT_IN_STORES = ("aws", "bao", "env", "file", "systemd", "vault")

_USER_AND_PASSWORD = re.compile(r"(?!arn:)[^/:]*:[^/@]*@")
_STORE = re.compile(r"[a-z][a-z0-9-]+")
_OPTION_NAME = re.compile(r"[a-z][a-z0-9_]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Those of ASCII and Latin-1, line separators, and what turns the direction of writing: it could forge lines of a log.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_BAD_POINTER = re.compile(r"~(?![01])")
# What may stand unescaped in each part; RFC 3986 section 3.3 for the path, less for what has delimiters of its own.
_PLAIN_IN_PATH = "!$&'()*+,;=:@"
_PLAIN_IN_OPTION = "!$'()*+,;:@/"
_PLAIN_IN_FIELD = "!$'()*+;:@/?"


@dataclass(frozen=True, slots=True)
class Fields:
    """Which fields of a document are meant: names or JSON pointers. `id` is None where only the secret is named."""

    id: str | None
    secret: str

    def __str__(self) -> str:
        # errors: a name found in a document may hold what no reference can.
        id, secret = (quote(name or "", safe=_PLAIN_IN_FIELD, errors="replace") for name in (self.id, self.secret))
        return secret if self.id is None else f"id={id},secret={secret}"


DEFAULT_FIELDS = Fields("client_id", "client_secret")


def way_of(field: str) -> tuple[str, ...]:
    """The names that lead to a field: itself, or the parts of a JSON pointer (RFC 6901)."""
    if not field.startswith("/"):
        return (field,)
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in field[1:].split("/"))


def field_of(way: tuple[str, ...]) -> str:
    """The field to which these names lead."""
    if len(way) == 1 and not way[0].startswith("/"):
        return way[0]
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in way)


@dataclass(frozen=True, slots=True)
class SecretReference:
    """A parsed reference. `str()` gives its canonical form, and `parse` of that gives an equal reference.

    `segments` are the decoded parts of the path; `absolute` and `directory` say whether it began and ended with "/".
    `options` are sorted pairs of name and value.
    """

    store: str
    segments: tuple[str, ...]
    absolute: bool = False
    directory: bool = False
    options: tuple[tuple[str, str], ...] = ()
    fields: Fields | None = None

    @classmethod
    @forgetting
    def parse(cls, text: str | SecretReference) -> SecretReference:
        """Read a reference. Raises ConfigurationError, which never repeats the text."""
        if isinstance(text, SecretReference):
            return text
        if not isinstance(text, str):
            raise ConfigurationError(f"a reference is a str, not {type(text).__name__}")
        return _parse(text)

    @property
    def path(self) -> str:
        """The decoded path with its slashes."""
        return self._joined(self.segments)

    @property
    def secret_field(self) -> str:
        """The field of the secret, named or by default."""
        return (self.fields or DEFAULT_FIELDS).secret

    @property
    def pinned(self) -> bool:
        """It names one version, so it never follows a rotation."""
        return self.option("version") is not None or self.option("stage") is not None

    def option(self, name: str) -> str | None:
        return next((value for key, value in self.options if key == name), None)

    def check_options(self, known: Iterable[str]) -> None:
        """Raise ConfigurationError for an option that the store does not take."""
        names = sorted(known)
        for name, _ in self.options:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                takes = f"It takes {', '.join(names)}" if names else "It takes no options"
                raise ConfigurationError(
                    f"the store {self.store!r} has no option {name!r} (in {replace(self, options=(), fields=None)})",
                    hint=f"Did you mean {near[0]!r}?" if near else takes,
                )

    def __str__(self) -> str:
        plain = _PLAIN_IN_PATH + "/" if self.store == "aws" else _PLAIN_IN_PATH
        path = self._joined(tuple(quote(part, safe=plain) for part in self.segments))
        if _USER_AND_PASSWORD.match(path):
            path = path.replace("@", "%40")
        slashes = "//" if path and (self.store != "file" or self.absolute) else ""
        options = "&".join(f"{name}={quote(value, safe=_PLAIN_IN_OPTION)}" for name, value in self.options)
        return (
            f"{self.store}:{slashes}{path}"
            f"{'?' + options if options else ''}{'#' + str(self.fields) if self.fields else ''}"
        )

    def _joined(self, segments: tuple[str, ...]) -> str:
        inner = "/".join(segments)
        return f"{'/' if self.absolute else ''}{inner}{'/' if self.directory and inner else ''}"


def unknown_store(name: str, length: int, configured: Iterable[str] = ()) -> ConfigurationError:
    """The error for a store nobody knows. The text may be a secret pasted by mistake, so it is not in it."""
    known = sorted({*BUILT_IN_STORES, *configured})
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.7)
    return ConfigurationError(
        f"no store is known by what stands before the first ':' of a reference of {length} characters "
        f"(not repeated here, in case it is a secret)",
        hint=f"Did you mean {near[0]!r}?" if near else f"Known stores: {', '.join(known)}",
    )


def _parse(text: str) -> SecretReference:
    store, colon, rest = text.partition(":")
    if not colon or not _STORE.fullmatch(store):
        near = difflib.get_close_matches(store.lower(), BUILT_IN_STORES, n=1, cutoff=0.7) if colon else []
        raise ConfigurationError(
            f"not a reference to a secret: {len(text)} characters that do not begin with a store and ':' "
            f"(not repeated here, in case they are a secret)",
            hint=f"Did you mean {near[0]!r}?"
            if near
            else f"Write where the secret is kept, such as env://POS or file:///etc/pos/oauth.json; "
            f"known stores: {', '.join(BUILT_IN_STORES)}",
        )
    rest, has_fields, fragment = rest.partition("#")
    rest, has_options, query = rest.partition("?")
    slashes = rest.startswith("//")
    if (slashes or store != "file") and _USER_AND_PASSWORD.match(rest.removeprefix("//")):
        raise _wrong(
            store,
            "what stands before an '@' looks like a user name and a password",
            "A store is logged in to by its own configuration; write '@' itself as %40",
        )
    absolute, segments, directory = _path(store, rest[2:] if slashes else rest, slashes)
    options = _options(store, query) if has_options else ()
    fields = _fields(store, fragment) if has_fields else None
    return SecretReference(store, segments, absolute, directory, options, fields)


def _path(store: str, raw: str, slashes: bool) -> tuple[bool, tuple[str, ...], bool]:
    if store == "aws":  # names and ARNs are opaque: slashes anywhere belong to the name
        if not raw:
            raise _wrong(store, "the path is empty", "Name the secret, as in aws://prod/pos")
        return False, (_decoded(store, raw),), False
    if raw == "" and store == "env":
        return False, (), False
    absolute, directory = raw.startswith("/"), raw.endswith("/")
    if store == "file":
        if slashes and not absolute:
            raise _wrong(
                store,
                "what follows file:// would be a host name",
                "An absolute path has three slashes, file:///etc/pos/oauth.json; "
                "a relative one has none, file:pos.json",
            )
        if _decoded(store, raw).startswith("~"):
            raise _wrong(store, "'~' is not expanded", "Write the home directory out, file:///home/pos/oauth.json")
    elif store in BUILT_IN_STORES and (absolute or directory):
        raise _wrong(store, "the path begins or ends with '/'", f"Leave that '/' out, as in {store}://prod/pos")
    inner = raw[absolute : len(raw) - (directory and len(raw) > 1)]
    return absolute, tuple(_segment(store, part) for part in inner.split("/")), directory and len(raw) > 1


def _segment(store: str, raw: str) -> str:
    if not raw:
        raise _wrong(store, "the path is empty or has an empty part", "Write one '/' between two names")
    text = _decoded(store, raw)
    if text in (".", ".."):
        raise _wrong(store, "the path has a '.' or '..' in it", "Write the path without them")
    if "/" in text:
        raise _wrong(store, "the path has an escaped '/' (%2F) in it", "Write '/' where two names meet")
    return text


def _options(store: str, query: str) -> tuple[tuple[str, str], ...]:
    options: dict[str, str] = {}
    for item in query.split("&"):
        name, equals, raw = item.partition("=")
        if not _OPTION_NAME.fullmatch(name) or not equals or not raw:
            raise _wrong(store, "an option is not written name=value", "Write options as ?format=json&access=strict")
        if name in options:
            raise _wrong(store, "an option is given twice", "Give each option once")
        options[name] = _decoded(store, raw)
    if options.get("access") == "unchecked":
        raise _wrong(
            store,
            "access=unchecked is refused in a reference, since whoever edits it could disarm the check",
            "Give it in code, stores={'file': FileBackend(access='unchecked')}",
        )
    return tuple(sorted(options.items()))


def _fields(store: str, fragment: str) -> Fields:
    shape = "After '#' comes one field, or id=FIELD,secret=FIELD; in a field % , = & # are %25 %2C %3D %26 %23"
    if any(mark in fragment for mark in "&#"):
        raise _wrong(store, "a field after '#' has an unescaped '&' or '#'", shape)
    if "=" not in fragment and "," not in fragment:
        return Fields(None, _field(store, fragment, shape))
    first, _, second = fragment.partition(",")
    if not first.startswith("id=") or not second.startswith("secret="):
        raise _wrong(store, "the fields after '#' are not written id=FIELD,secret=FIELD", shape)
    fields = Fields(_field(store, first[3:], shape), _field(store, second[7:], shape))
    if fields.id == fields.secret:
        raise _wrong(store, "client ID and secret are the same field", shape)
    return fields


def _field(store: str, raw: str, shape: str) -> str:
    if not raw or "=" in raw or "," in raw:
        raise _wrong(store, "a field after '#' is empty or has an unescaped ',' or '='", shape)
    text = _decoded(store, raw)
    if text.startswith("/") and _BAD_POINTER.search(text):
        raise _wrong(store, "a JSON pointer has '~' without 0 or 1", "Write ~0 for '~' and ~1 for '/' (RFC 6901)")
    return text


def _decoded(store: str, raw: str) -> str:
    if _BAD_ESCAPE.search(raw):
        raise _wrong(store, "a '%' is not followed by two hexadecimal digits", "Write '%' itself as %25")
    try:
        text = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeError:  # also a lone surrogate, which is no UTF-8 to begin with
        text = "\x00"
    if _CONTROL.search(text):
        raise _wrong(store, "it has a control character, or bytes that are not UTF-8", "Write it as printable text")
    return text


def _wrong(store: str, what: str, hint: str) -> ConfigurationError:
    # A store's name is repeated only where we know it: "p4ss:word" is a reference to the store p4ss, too.
    whose = f"to the store {store!r} " if store in BUILT_IN_STORES else ""
    return ConfigurationError(f"this reference {whose}cannot be read: {what}", hint=hint)
