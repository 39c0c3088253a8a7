"""Credentials in access-controlled files: one document, one text, or a directory with one file a field.

A file is read anew for each token request; that costs a fraction of a millisecond, and a change is seen at once.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace as with_changes
from typing import Any, NamedTuple, TypeVar

from ..clock import Deadline
from ..credentials import Document
from ..errors import AccessDenied, BackendError, BackendUnavailable, ConfigurationError
from ..events import LOGGER
from ..reference import DEFAULT_FIELDS, Fields, SecretReference, way_of
from ..secret import Secret
from ..state import LONGEST_STATE
from . import Stored
from .access import CHECKABLE, LEVELS, Access, shown
from .edits import WHOLE, changes_between, edit
from .formats import Origin, format_of, parse
from .layout import DocumentLayout, names_of
from .replace import locked, looked_through, opened_to_replace, replace
from .walk import LARGEST, Chain, Contents, Walk, unwalked, version_of, walked

__all__ = ["FileBackend", "LevelMet"]

_BINDING = ("issuer", "token_url", "environment")

T = TypeVar("T")


class LevelMet(NamedTuple):
    """The strictest level that a file meets (None: not even `mounted`), and why not the next stricter one."""

    level: str | None
    reason: str | None


class FileBackend(DocumentLayout):
    """Reads and writes secret files.

    `access` is the level a file must meet unless its reference says otherwise: strict, private, mounted, or here
    only, unchecked. `root` confines it: relative references begin there, and nothing outside is read, links
    resolved. `owners` are further user names or numbers whose files `mounted` accepts. `post_replace` is called with
    the path after a file was replaced, outside of every lock: it may set an SELinux label, copy the file, or signal a
    program; what it raises is logged, and the file stays written. Constructing does no I/O.

    A document's `version` is eight hex digits of a digest of its content, under a key of this process: equal ones
    mean equal contents, within one process.
    """

    options = frozenset({"format", "access"})
    ttl: float | None = 0.0
    reaches = (
        "Every program that reads this very file by secretsource; "
        "what was copied from it, or read at a start, has the current secret and no other"
    )

    def __init__(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        access: str = "private",
        owners: Iterable[int | str] = (),
        post_replace: Callable[[str], object] | None = None,
    ) -> None:
        if post_replace is not None and not callable(post_replace):
            raise ConfigurationError(
                f"post_replace= is a {type(post_replace).__name__}", hint="Give a function that takes the path"
            )
        self._access = Access.of(access, owners)
        self._root = None if root is None else os.path.abspath(root)
        self._post_replace = post_replace
        self._warned: set[str] = set()

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        """The document, read anew. Raises AccessDenied where the file does not meet its level."""
        access = self._access_of(reference)
        self._warn(access, reference)
        if reference.directory:
            return self._walked(access, reference, lambda walk: self._directory(walk, reference))
        format = format_of(reference.segments[-1], reference)
        if CHECKABLE:
            contents = self._walked(access, reference, lambda walk: self._contents(walk, reference))
        else:
            contents = unwalked(access, Origin(reference), reference.path, self._root)
        fields = parse(contents.text, format, Origin(reference))
        return Document(fields, version=version_of(contents.text), created=contents.modified)

    def strictest_level(self, reference: SecretReference) -> LevelMet:
        """Which level what the reference names meets, for `secretsource check`.

        Raises SecretNotFound and what else has nothing to do with levels.
        """
        reason = None
        for level in LEVELS[:-1]:
            refused = self._refused_at(level, reference)
            if refused is None:
                return LevelMet(level, reason)
            reason = refused
        return LevelMet(None, reason)

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        """Everything in the file, texts as Secrets; the one secret of a text file is called client_secret."""
        format = self._writable(reference)

        def read(walk: Walk) -> Stored:
            folder, name = self._place(walk, reference)
            opened = opened_to_replace(walk, folder, name)
            if opened is None:
                return Stored({}, None)
            text, modified = walk.contents(opened)
            return Stored(
                _tree(text, format, walk.origin), version_of(text), None if modified is None else modified.timestamp()
            )

        return self._writing(reference, read)

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        """Alter the fields that differ, if the file still has this version, and return its new one.

        Raises BackendUnavailable where somebody else was faster, AccessDenied where the file or its directory may not
        be written safely, ConfigurationError where the format does not allow it; the last two say what to do.
        """
        format = self._writable(reference)
        deadline, replaced = Deadline(timeout), list[str]()

        def write(walk: Walk) -> str:
            folder, name = self._place(walk, reference)
            with locked(walk, folder, name, deadline):
                old = opened_to_replace(walk, folder, name)
                text = None if old is None else walk.contents(old).text
                if (None if text is None else version_of(text)) != version:
                    raise walk.origin.error(
                        BackendUnavailable, "was changed by somebody else meanwhile", "Read it again, and decide again"
                    )
                changes = changes_between(_tree(text, format, walk.origin), fields, walk.origin)
                if text is not None and not changes:
                    return version_of(text)
                new = _readable(edit(text, format, changes, walk.origin), walk.origin)
                replace(walk, folder, name, new, old)
                replaced.append(walk.path(folder, name))
            return version_of(new)

        written = self._writing(reference, write)
        for path in replaced:
            self._tell(path, reference)
        return written

    def preflight(self, reference: SecretReference, *, timeout: float) -> Sequence[str]:
        """What to be careful about, found without writing.

        Raises AccessDenied where the file cannot be replaced, ConfigurationError where its format has no room for what
        a rotation keeps; both say what to do.
        """
        format = self._writable(reference)
        if format == "text":
            raise ConfigurationError(
                f"{reference} is one text, which has no room for a pending secret beside the current one",
                hint='Keep both in a .json file, {"client_id": "…", "client_secret": "…"}: secretsource put makes one',
            )

        def look(walk: Walk) -> Sequence[str]:
            folder, name = self._place(walk, reference)
            opened, cautions = looked_through(walk, folder, name)
            if opened is not None:
                _try_out(walk.contents(opened).text, format, reference, walk.origin)
            return cautions

        return self._writing(reference, look)

    def _tell(self, path: str, reference: SecretReference) -> None:
        if self._post_replace is None:
            return
        failed = ""
        try:
            self._post_replace(path)
        except Exception as error:
            failed = type(error).__name__
        if failed:
            LOGGER.warning("%s is written, but post_replace failed: %s", reference, failed)

    def _access_of(self, reference: SecretReference) -> Access:
        level = reference.option("access")
        if level is None:
            return self._access
        if level not in LEVELS[:-1]:
            raise ConfigurationError(f"{reference} names an unknown level", hint=f"Levels: {', '.join(LEVELS[:-1])}")
        return with_changes(self._access, level=level)

    def _warn(self, access: Access, reference: SecretReference) -> None:
        name = str(reference)
        if access.level == "unchecked" and name not in self._warned:
            self._warned.add(name)
            LOGGER.warning("%s is read at level unchecked: nobody looks at who may read or change it", name)

    def _walked(self, access: Access, reference: SecretReference, action: Callable[[Walk], T]) -> T:
        return walked(access, Origin(reference), action, root=self._root)

    def _contents(self, walk: Walk, reference: SecretReference) -> Contents:
        return walk.contents(walk.file(*walk.begin(reference.path)))

    def _directory(self, walk: Walk, reference: SecretReference) -> Document:
        """Read what is needed from one directory, so that an exchange of all its files cannot mix two states."""
        if reference.option("format") is not None:
            raise ConfigurationError(
                f"{reference} is a directory, and format= is for a file",
                hint="Leave format= out: in a directory each file is the text of one field",
            )
        directory = walk.directory(*walk.begin(reference.path))
        folder = walk.published(directory)
        found: dict[str, Any] = dict.fromkeys(walk.names(folder))
        needed, candidates = _needed(reference.fields or DEFAULT_FIELDS)
        read = {name: _field(walk, folder, name) for name in found if name in needed}
        for name in found.keys() & candidates:
            # What is refused or gone is no candidate; a failing disk says nothing about one.
            with suppress(BackendError, FileNotFoundError, NotADirectoryError, PermissionError):
                read[name] = _field(walk, folder, name)
        walk.confirm(directory, folder)
        texts = {name: contents.text for name, contents in sorted(read.items())}
        return Document(
            {**found, **texts},
            version=version_of(*(part for name, text in texts.items() for part in (Secret(name), text))),
            created=max((contents.modified for contents in read.values() if contents.modified), default=None),
        )

    def _refused_at(self, level: str, reference: SecretReference) -> str | None:
        access = with_changes(self._access, level=level)
        action = self._directory if reference.directory else self._contents
        try:
            self._walked(access, reference, lambda walk: action(walk, reference))
        except AccessDenied as error:
            return str(error)
        return None

    def _writable(self, reference: SecretReference) -> str:
        """The format to write; what cannot be written is refused here, with the way to change it elsewhere."""
        if reference.directory or self._access_of(reference).level == "mounted":
            raise ConfigurationError(
                f"{reference} is not written: what is mounted belongs to who mounts it",
                hint="Change it there: kubectl create secret generic NAME --from-file=client_secret=FILE "
                "--dry-run=client -o yaml | kubectl apply -f -, a new Docker secret, or the template of the agent. "
                "A file of your own is named without access=mounted, and without '/' at its end",
            )
        return format_of(reference.segments[-1], reference)

    def _writing(self, reference: SecretReference, action: Callable[[Walk], T]) -> T:
        parent = os.path.dirname(os.path.join(self._root or os.curdir, reference.path))
        missing = f"Run mkdir -p -m 700 {shown(shlex.quote(parent))}"
        return walked(self._access_of(reference), Origin(reference), action, root=self._root, missing=missing)

    def _place(self, walk: Walk, reference: SecretReference) -> tuple[Chain, str]:
        chain, parts = walk.begin(reference.path)
        return walk.directory(chain, parts[:-1]), parts[-1]


def _needed(fields: Fields) -> tuple[set[str], set[str]]:
    """The names of the files that are needed, and of those that may hold further candidates."""
    needed = {name for name in (_flat(fields.id or "client_id"), _flat(fields.secret), *_BINDING) if name}
    secret = _flat(fields.secret)
    return needed, {f"{secret}_pending", f"{secret}_previous"} if secret else set()


def _flat(field: str) -> str | None:
    """The file name that a field means in a directory: a JSON pointer of one part is a name, a longer one nothing."""
    name, *inner = way_of(field)
    return None if inner else name


def _field(walk: Walk, folder: Chain, name: str) -> Contents:
    contents = walk.contents(walk.file(folder, [name]))
    text = parse(contents.text, "text", Origin(walk.origin.reference, f"{walk.origin} (its file {name})"))
    assert isinstance(text, Secret)
    return contents._replace(text=text)


def _readable(text: Secret, origin: Origin) -> Secret:
    """The text itself. Raises ConfigurationError where it could not be read again."""
    if len(text.reveal().encode()) > LARGEST:
        raise ConfigurationError(
            f"{origin} is left as it was: it would be larger than {LARGEST // 1024} KiB, and not be read again",
            hint="Keep the credentials in a file of their own",
        )
    return text


def _try_out(text: Secret, format: str, reference: SecretReference, origin: Origin) -> None:
    """Make each change of a rotation to the text, and throw it away. Raises ConfigurationError where one fails."""
    current, pending, previous, state = names_of(reference)
    longest = Secret("x" * LONGEST_STATE)
    for changes in (
        {pending: longest, state: longest},
        {current: longest, pending: None, previous: longest},
        {previous: None},
    ):
        text = _readable(edit(text, format, changes, origin), origin)


def _tree(text: Secret | None, format: str, origin: Origin) -> dict[str, Any]:
    if text is None:
        return {}
    fields = parse(text, format, origin)
    return {WHOLE: fields} if isinstance(fields, Secret) else fields
