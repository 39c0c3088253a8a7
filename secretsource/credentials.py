"""What a store gave (Document), and what it means (ClientCredentials)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from .errors import ConfigurationError, MalformedSecret, SecretSourceError, forgetting
from .reference import DEFAULT_FIELDS, Fields, SecretReference, way_of
from .secret import Masked, Secret
from .state import RotationState

__all__ = ["Document", "ClientCredentials", "Binding", "Meaning", "interpret"]

_BETWEEN_WORDS = re.compile(r"[/_. ~-]+")
_WORD = re.compile(r"(?:[A-Z]{0,3}[a-z]{1,20}(?:[A-Z][a-z]{1,20}){0,5}[A-Z]{0,2}|[A-Z]{1,20})[0-9]{0,3}|[0-9]{1,3}")


class _NotText(NamedTuple):
    """Stands in a document for a value that is neither text nor a mapping; its value is not kept."""

    kind: str


_Tree = Mapping[str, Any]


class Document(Masked):
    """What a store gave: a mapping of names to texts (nested where the store is), or one text.

    `version` is the store's own name for this state, `created` an aware datetime, `valid_for` the seconds the store
    says it holds, `leased` that it was made for this read and another is made for the next. `pending` and `previous`
    are documents where a store keeps them apart. Texts become `Secret`s; a value of None stands for a name that exists
    and was not read.
    """

    __slots__ = ("created", "fields", "leased", "pending", "previous", "text", "valid_for", "version")

    text: Secret | None
    fields: _Tree
    version: str | None
    created: Any
    valid_for: float | None
    leased: bool
    pending: Document | None
    previous: Document | None

    @forgetting
    def __init__(
        self,
        fields: Mapping[str, Any] | Secret | str,
        *,
        version: str | None = None,
        created: Any = None,
        valid_for: float | None = None,
        leased: bool = False,
        pending: Document | None = None,
        previous: Document | None = None,
    ) -> None:
        whole = fields if isinstance(fields, Secret) else Secret(fields) if isinstance(fields, str) else None
        if whole is None and not isinstance(fields, Mapping):
            raise TypeError(f"a Document is made from a mapping, a str or a Secret, not from {type(fields).__name__}")
        for name, value in (
            ("text", whole),
            ("fields", {} if whole is not None else _wrapped(fields)),
            ("version", version),
            ("created", created),
            ("valid_for", valid_for),
            ("leased", bool(leased)),
            ("pending", pending),
            ("previous", previous),
        ):
            object.__setattr__(self, name, value)

    def names(self) -> list[str]:
        """The names of all values, nested ones as JSON pointers."""
        return list(_names(self.fields, ""))


def _wrapped(value: Any) -> Any:
    if isinstance(value, str):
        return Secret(value)
    if value is None or isinstance(value, (Secret, _NotText)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _wrapped(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return {str(index): _wrapped(inner) for index, inner in enumerate(value)}
    return _NotText({"bool": "truth value", "int": "number", "float": "number"}.get(type(value).__name__, "value"))


def _names(tree: _Tree, above: str) -> Iterator[str]:
    for name, value in tree.items():
        escaped = name.replace("~", "~0").replace("/", "~1")
        if isinstance(value, Mapping):
            yield from _names(value, f"{above}/{escaped}")
        else:
            yield f"{above}/{escaped}" if above or name.startswith("/") else name


@dataclass(frozen=True, slots=True, eq=False)
class ClientCredentials:
    """A client ID and its secret, with what may hold beside it while the secret is changed.

    `version` is the store's name for this state. `pending` and `previous` have no further ones of their own.
    """

    client_id: str
    client_secret: Secret
    version: str | None
    pending: ClientCredentials | None
    previous: ClientCredentials | None

    @forgetting
    def __init__(
        self,
        client_id: str,
        client_secret: Secret | str,
        *,
        version: str | None = None,
        pending: ClientCredentials | None = None,
        previous: ClientCredentials | None = None,
    ) -> None:
        if not isinstance(client_id, str) or not client_id:
            raise ConfigurationError("a client ID is a str that is not empty")
        secret = client_secret if isinstance(client_secret, Secret) else Secret(client_secret)
        if not secret.reveal():
            raise ConfigurationError(f"the client secret of {client_id!r} is empty")
        for name, other in (("pending", pending), ("previous", previous)):
            if other is not None and not isinstance(other, ClientCredentials):
                raise ConfigurationError(f"the {name} credentials of {client_id!r} are no ClientCredentials")
            if other is not None and (other.pending is not None or other.previous is not None):
                raise ConfigurationError(f"the {name} credentials of {client_id!r} have pending or previous ones")
        object.__setattr__(self, "client_id", client_id)
        object.__setattr__(self, "client_secret", secret)
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "pending", pending)
        object.__setattr__(self, "previous", previous)


@dataclass(frozen=True, slots=True)
class Binding:
    """What a document says it is for; where it says so, only that may be served."""

    issuer: str | None = None
    token_url: str | None = None
    environment: str | None = None


class Meaning(NamedTuple):
    """A document's credentials, and what it binds them to.

    `apart`: what the documents of pending and previous credentials bind those to, where a store keeps them apart.
    `tokens_not_before`: seconds since 1970; older tokens were obtained with a secret that has leaked.
    """

    credentials: ClientCredentials
    binding: Binding
    apart: Mapping[str, Binding] = {}
    tokens_not_before: float | None = None


def interpret(document: Document, reference: SecretReference, client_id: str | None = None) -> Meaning:
    """Read a document as the reference says. Raises MalformedSecret, with the names found and a fragment that fits.

    `client_id` is the one given beside the reference: needed where the document has none, and equal where it has one.
    """
    return _Reading(document, reference, client_id).meaning()


class _Reading:
    def __init__(self, document: Document, reference: SecretReference, client_id: str | None) -> None:
        self._document = document
        self._reference = reference
        self._client_id = client_id

    def meaning(self) -> Meaning:
        document = self._document
        if document.text is not None:
            return self._whole_text(document.text)
        fields = self._reference.fields or DEFAULT_FIELDS
        home, name = self._home(fields.secret)
        secret = self._text(home, name, fields.secret)
        found = self._client_id_beside(home, fields)
        credentials = ClientCredentials(self._agreed(found), secret, version=document.version)
        # Beside the secret, else at the top: a guard that stands a level too high is meant all the same.
        top = self._document.fields
        binding = Binding(
            *(self._optional(home, key) or self._optional(top, key) for key in ("issuer", "token_url", "environment"))
        )
        state = home.get(f"{name}_rotation")
        # One that cannot be read is for rotators to complain about.
        known = RotationState.read(state.reveal()) if isinstance(state, Secret) else None
        not_before = None if known is None else known.tokens_not_before
        return self._with_others(Meaning(credentials, binding, tokens_not_before=not_before), home, name)

    def _whole_text(self, text: Secret) -> Meaning:
        if self._reference.fields is not None:
            raise self._malformed(
                f"is one text and has no field {self._reference.fields.secret!r}",
                "Leave out what follows '#', or name its format with ?format=json",
            )
        secret = self._checked(text, "its text")
        credentials = ClientCredentials(self._agreed(None), secret, version=self._document.version)
        return self._with_others(Meaning(credentials, Binding()), {}, "")

    def _with_others(self, meaning: Meaning, home: _Tree, name: str) -> Meaning:
        current = meaning.credentials
        others: dict[str, Any] = {}
        bindings: dict[str, Binding] = {}
        for kind, apart in (("pending", self._document.pending), ("previous", self._document.previous)):
            beside = home.get(f"{name}_{kind}")
            if apart is not None:
                found = self._apart(apart)
                if found is not None:
                    others[kind], bindings[kind] = found
            elif isinstance(beside, Secret) and _fault(beside) is None:
                others[kind] = ClientCredentials(current.client_id, beside, version=current.version)
        return meaning._replace(credentials=replace(current, **others), apart=bindings) if others else meaning

    def _apart(self, document: Document) -> tuple[ClientCredentials, Binding] | None:
        # One that cannot be used is no candidate; it must not keep the current one from being used.
        try:
            meaning = interpret(document, self._reference, self._client_id)
        except SecretSourceError:
            return None
        # Its own pending and previous are another state's.
        return replace(meaning.credentials, pending=None, previous=None), meaning.binding

    def _client_id_beside(self, home: _Tree, fields: Fields) -> str | None:
        if fields.id is not None and (self._reference.fields is not None or self._client_id is None):
            tree, name = self._home(fields.id)
            return self._text(tree, name, fields.id).reveal()
        return self._optional(home, "client_id")

    def _agreed(self, found: str | None) -> str:
        if found is not None and self._client_id is not None and found != self._client_id:
            # Not what was found: where id and secret are mixed up, it is the secret.
            raise ConfigurationError(
                f"the document at {self._reference} is for another client than client_id={self._client_id!r}, "
                f"which was given",
                hint="Correct the reference, or leave client_id= out",
            )
        agreed = found if found is not None else self._client_id
        if agreed is None:
            raise ConfigurationError(
                f"{self._reference} gives a secret and no client ID",
                hint="Give client_id= beside it, or keep both in one document and name them #id=FIELD,secret=FIELD",
            )
        return agreed

    def _home(self, field: str) -> tuple[_Tree, str]:
        """The mapping that holds this field, and its name there."""
        *way, name = way_of(field)
        tree: Any = self._document.fields
        for part in way:
            tree = tree.get(part) if isinstance(tree, Mapping) else None
        return (tree if isinstance(tree, Mapping) else {}), name

    def _text(self, home: _Tree, name: str, field: str) -> Secret:
        value = home.get(name)
        if isinstance(value, Secret):
            return self._checked(value, f"the field {field!r}")
        if isinstance(value, Mapping):
            raise self._malformed(f"has no text at {field!r} but further fields", self._that_would_fit())
        if isinstance(value, _NotText):
            raise self._malformed(f"has a {value.kind} at {field!r}, not a text", "Write the value in quotation marks")
        raise self._malformed(f"has no field {field!r}", self._that_would_fit())

    def _optional(self, home: _Tree, name: str) -> str | None:
        return self._text(home, name, name).reveal() if home.get(name) is not None else None

    def _checked(self, value: Secret, where: str) -> Secret:
        fault = _fault(value)
        if fault is not None:
            raise self._malformed(f"cannot be used: {where} {fault}", "Write the value anew in the store")
        return value

    def _that_would_fit(self) -> str:
        # A name may be a secret that stands in its place, or half of one with a "=" in it.
        found = self._document.names()
        names = [name for name in found if _is_a_name(name)]
        if not found:
            return "The document is empty"
        hidden = len(found) - len(names)
        listed = [str(Fields(None, name)) for name in names[:20]] + ["…"] * (len(names) > 20)
        if hidden:
            listed.append(f"{hidden} not shown, since what stands in the place of a name may be a secret")
        client = _nearest(names, ("client_id", "clientid", "id", "username", "app_id"))
        secret = _nearest(
            [name for name in names if name != client],
            ("client_secret", "clientsecret", "secret", "password", "key"),
        )
        if client is None or secret is None:
            return f"It has: {', '.join(listed)}"
        return f"It has: {', '.join(listed)}. If those are meant, write #{Fields(client, secret)}"

    def _malformed(self, what: str, hint: str) -> MalformedSecret:
        return MalformedSecret(
            f"what is kept at {self._reference} {what}",
            reference=str(self._reference),
            store=self._reference.store,
            hint=hint,
        )


def _is_a_name(text: str) -> bool:
    """Whether it consists of words, as names do and random texts hardly ever."""
    words = _BETWEEN_WORDS.split(text)
    return any(words) and all(_WORD.fullmatch(word) for word in words if word)


def _nearest(names: list[str], wanted: tuple[str, ...]) -> str | None:
    plain = {name.rsplit("/", 1)[-1].lower().replace("-", "_"): name for name in names}
    for word in wanted:
        near = difflib.get_close_matches(word, plain, n=1, cutoff=0.75)
        if near:
            return plain[near[0]]
    return None


def _fault(value: Secret) -> str | None:
    """What is wrong with a text, in words that do not repeat it."""
    text = value.reveal()
    if not text:
        return "is empty"
    if text[-1] in "\r\n":
        return "ends with a line end"
    for position, character in enumerate(text):
        if ord(character) < 32 or 127 <= ord(character) < 160:
            return f"has a control character at position {position + 1}"
        if 0xD800 <= ord(character) < 0xE000:
            return f"has half a character (a lone surrogate) at position {position + 1}"
    return None
