"""The file of a configuration: where it is, who may change it, and that it can be read and holds no secret."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from ..backends import backends_called
from ..backends.formats import Fault, plain_tree
from ..backends.walk import read_text
from ..errors import AccessDenied, BackendError, ConfigurationError, MalformedSecret, forgetting
from ..reference import BUILT_IN_STORES, SecretReference
from ..secret import Secret
from .layers import Configuration
from .pasted import Pasted, find
from .tables import At

__all__ = ["asked_environment", "loaded", "located"]

FILE_NAME = "secretsource.toml"

_loaded: dict[str, Configuration] = {}


def located(path: str | os.PathLike[str] | None = None, *, upwards: bool = False) -> str:
    """The file that is meant: `path`, else what SECRETSOURCE_CONFIG names, else secretsource.toml in this folder.

    `upwards` also looks in the folders above. The path is absolute and without links. ConfigurationError.
    """
    if path is not None and (not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes)):
        raise ConfigurationError(f"path= is the path of a file, not {type(path).__name__}")
    named = path or os.environ.get("SECRETSOURCE_CONFIG")
    if named and "\0" in os.fspath(named):
        raise ConfigurationError("path= has a NUL in it", hint="Name the file")
    if named:
        return _place(os.path.abspath(named))
    folder = os.getcwd()
    folders = [folder]
    while upwards and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
        folders.append(folder)
    for each in folders:
        if os.path.lexists(os.path.join(each, FILE_NAME)):
            return _place(os.path.join(each, FILE_NAME))
    raise ConfigurationError(
        f"there is no {FILE_NAME} in {folders[0]}{' or above' if upwards else ''}",
        hint="Write one, or name it by path=, --config or SECRETSOURCE_CONFIG",
    )


def asked_environment(name: str | None = None) -> str:
    """The environment that is asked for, "" where none is: the argument, else SECRETSOURCE_ENV."""
    if name is not None and not isinstance(name, str):
        raise ConfigurationError(f"the name of an environment is a str, not {type(name).__name__}")
    return name or os.environ.get("SECRETSOURCE_ENV", "")


@forgetting
def loaded(file: str) -> Configuration:
    """The configuration in this file, as `located` gives it, read anew; equal contents give the same object.

    Raises ConfigurationError, also where others could change the file: who writes it decides where a secret is sent.
    """
    content = _read(file)
    digest = _digest(content)
    known = _loaded.get(file)
    if known is None or known.digest != digest:
        outcome = _tables(content)
        if isinstance(outcome, Fault):
            raise At(file).error(outcome.what, outcome.hint)
        if isinstance(outcome, Pasted):
            raise _about_pasted(outcome, file)
        known = Configuration(file, outcome, digest)
        # Several threads may be here with the same content; one object serves them all.
        first = _loaded.setdefault(file, known)
        if first.digest == digest:
            return first
        _loaded[file] = known
    return known


def _place(path: str) -> str:
    """The real path. The kubelet's folder of the moment (..2026_11_24_…) is left out: it goes at the next update."""
    real = os.path.realpath(path)
    if real != path:
        _read(path)  # each folder and link on the way there is judged, too: who may exchange one chooses the file
    folder, name = os.path.split(real)
    above = os.path.join(os.path.dirname(folder), name)
    return above if os.path.basename(folder).startswith("..") and os.path.lexists(above) else real


def _read(file: str) -> Secret:
    reference = SecretReference("file", tuple(part for part in file.split("/") if part), absolute=True)
    failure: ConfigurationError
    try:
        return read_text(file, level="mounted", reference=reference, called=file)
    except AccessDenied as error:
        hint = (error.hint or "").partition(", or, for file: references")[0]
        failure = ConfigurationError(error.message, hint=f"{hint}. Who can write it decides where a secret is sent")
    except MalformedSecret as error:
        failure = ConfigurationError(error.message, hint="Write it as TOML, in UTF-8 and at most 64 KiB")
    except BackendError as error:
        failure = ConfigurationError(error.message, hint=error.hint)
    raise failure


def _digest(content: Secret) -> bytes:
    return blake2b(content.reveal().encode(), digest_size=16).digest()


def _tables(content: Secret) -> dict[str, Any] | Fault | Pasted:
    """What the file holds. The one frame that has it before it was looked through for secrets."""
    text = content.reveal()
    tables = plain_tree(text, "toml")
    if isinstance(tables, Fault):
        return tables._replace(hint="Mend it there; what it holds is not shown here")
    named = {*BUILT_IN_STORES, *_store_names(tables)}
    return find(text, tables, lambda name: name in named or bool(backends_called(name))) or tables


def _store_names(tree: Any) -> Iterator[str]:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key == "stores" and isinstance(value, dict):
            yield from value
        yield from _store_names(value)


def _about_pasted(pasted: Pasted, file: str) -> ConfigurationError:
    hint = (
        "Take it out, and change it where it is in use: it has been in a file that many may read. "
        "Keep it in a store, and name that: secretsource put writes it there"
    )
    if isinstance(pasted.where, int):
        return At(file).error(f"{pasted.what} (line {pasted.where})", hint)
    return At(file, pasted.where).error(pasted.what, hint)
