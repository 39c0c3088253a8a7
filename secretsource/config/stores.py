"""The stores of a configuration: constructed when a reference first names one, from keys that are its arguments."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ..backends import Backend, backends_called, known_backends
from ..errors import ConfigurationError, SecretSourceError
from ..reference import BUILT_IN_STORES, SecretReference
from ..urls import http_parts, is_loopback, with_ports
from .tables import At, Takes, check_table, hosts_of, near, pieces, takes_of

__all__ = ["ConfiguredStores", "StoreTable"]

_NOT_WRITTEN = ("session", "client", "stores", "environ", "post_replace")
_PATHS = ("ca_file", "client_cert", "path", "root")


class StoreTable(NamedTuple):
    """What holds for one store: its keys, where each stands, and where the first of them does."""

    at: At
    keys: dict[str, Any]
    places: dict[str, At]

    def place(self, key: str) -> At:
        return self.places[key].under(key)


class ConfiguredStores(Mapping[str, Backend]):
    """The stores of one environment by name. Relative paths begin in `folder`.

    Constructing does no I/O, and imports no plug-in; looking a store up may raise ConfigurationError.
    """

    def __init__(self, tables: Mapping[str, StoreTable], folder: str, *, production: bool) -> None:
        self._tables = tables
        self._folder = folder
        self._production = production
        self._made: dict[str, Backend] = {}

    def __getitem__(self, name: str) -> Backend:
        backend = self._made.get(name)
        # setdefault decides between threads without a lock: one store too many has been constructed, and is dropped.
        return self._made.setdefault(name, self._make(name)) if backend is None else backend

    def __contains__(self, name: object) -> bool:
        return name in self._tables  # Mapping's own would construct it

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)

    def check(self, *, installed: bool = True) -> None:
        """Raise ConfigurationError for a key that a store does not take, or a backend that is not `installed`.

        Plug-ins are not imported for it: what they take is known when a reference names them.
        """
        for name in self._tables:
            kind = self._kind(name)
            if kind in BUILT_IN_STORES or (installed and not backends_called(kind)):
                self._checked(name)

    def check_production(self) -> None:
        """Raise ConfigurationError for what disarms a check, or goes without encryption and does not say why."""
        for table in self._tables.values():
            hosts: tuple[str, ...] = ()
            if table.keys.get("access") == "unchecked":
                raise table.place("access").error(
                    "is unchecked, which is refused in production", "Name the level that its files meet"
                )
            if "plain_http" in table.keys:
                hosts = hosts_of(table.keys["plain_http"], table.place("plain_http"), production=True)
            for key, value in table.keys.items():
                parts = http_parts(value) if key != "proxy" else None
                if parts is None or parts[0] != "http" or is_loopback(parts[1]):
                    continue
                host = f"{parts[1]}:{parts[2]}"
                if host not in with_ports(hosts):
                    raise table.place(key).error(
                        "is plain http, which is refused in production",
                        f'Write https://; or, knowing that, plain_http = [{{ host = "{host}", reason = "…" }}]',
                    )

    def anchored(self, text: str) -> str:
        """The reference; its path begins in the folder, if it is a relative one of a file store without a root."""
        reference = SecretReference.parse(text)
        rooted = reference.store in self._tables and "root" in self._tables[reference.store].keys
        if self._kind(reference.store) != "file" or reference.absolute or rooted:
            return text
        segments = tuple(part for part in self._folder.split("/") if part) + reference.segments
        return str(replace(reference, segments=segments, absolute=True))

    def _kind(self, name: str) -> str:
        """The name of the backend behind a store."""
        return str(self._tables[name].keys.get("backend", name) if name in self._tables else name)

    def _checked(self, name: str) -> tuple[Callable[..., Any], Mapping[str, Any], Mapping[str, Any]]:
        """The backend of a store, what its module has, and the keys. Raises ConfigurationError."""
        table = self._tables[name]
        make, module = self._backend(name)
        keys = {key: value for key, value in table.keys.items() if key != "backend"}
        takes = takes_of(make, _NOT_WRITTEN)
        for key, value in keys.items():
            check_table({key: value}, Takes(takes.keys), table.places[key])
        check_table(keys, takes, table.at)
        if "auth" in keys:
            _login(module, keys["auth"], table.place("auth"))
        return make, module, keys

    def _make(self, name: str) -> Backend:
        table = self._tables[name]
        make, module, keys = self._checked(name)
        arguments = self._arguments(make, keys)
        if "plain_http" in keys:
            arguments["plain_http"] = hosts_of(
                keys["plain_http"], table.place("plain_http"), production=self._production
            )
        if "auth" in keys:
            login, given = _login(module, keys["auth"], table.place("auth"))
            arguments["auth"] = _constructed(login, self._arguments(login, given), table.place("auth"))
        if "stores" in inspect.signature(make).parameters:
            arguments["stores"] = self  # by which references in its login are resolved
        return _constructed(make, arguments, table.at)  # type: ignore[no-any-return] # backend_for looks at it

    def _arguments(self, make: Callable[..., Any], keys: Mapping[str, Any]) -> dict[str, Any]:
        taken = inspect.signature(make).parameters
        return {key: self._argument(key, value, str(taken[key].annotation)) for key, value in keys.items()}

    def _argument(self, key: str, value: Any, annotation: str) -> Any:
        if isinstance(value, list):
            return tuple(self._argument(key, each, annotation) for each in value)
        if not isinstance(value, str):
            return value
        store, colon, _ = value.partition(":")
        if key not in _PATHS and colon and self._kind(store) == "file":
            return self.anchored(value)
        is_path = key in _PATHS or ("PathLike" in annotation and not (colon and self._is_store(store)))
        return os.path.join(self._folder, value) if is_path else value

    def _is_store(self, name: str) -> bool:
        return name in self._tables or bool(backends_called(name))

    def _backend(self, name: str) -> tuple[Callable[..., Any], Mapping[str, Any]]:
        at, kind = self._tables[name].at, self._kind(name)
        found = backends_called(kind)
        if not found:
            names = sorted({one.name for one in known_backends()})
            raise at.error(
                "is no backend that is installed, and names none",
                near(kind, names, f'Write backend = "…", one of {", ".join(names)}'),
            )
        if len(found) > 1:
            raise at.error(
                f"is claimed by {len(found)} distributions: "
                f"{', '.join(sorted(f'{one.distribution} {one.version}' for one in found))}",
                "Uninstall all but one",
            )
        target, failure = found[0].target, ""
        module_name, _, attribute = target.partition(":")
        try:
            module = importlib.import_module(module_name)
            return getattr(module, attribute), vars(module)
        except ModuleNotFoundError as error:
            failure = f"the module {error.name!r} is missing"
        except Exception as error:  # a plug-in's; its text may hold anything
            failure = f"{type(error).__name__} while it was imported"
        raise at.error(f"cannot be used: {failure} ({target})", "Install what its backend needs")


def _login(module: Mapping[str, Any], table: Any, at: At) -> tuple[Callable[..., Any], Mapping[str, Any]]:
    """The class of a login, and its keys. Raises ConfigurationError."""
    logins: Mapping[str, Callable[..., Any]] = module.get("LOGINS", {})
    method = table.get("method") if isinstance(table, dict) else None
    if not isinstance(method, str):
        raise at.error('is not written { method = "…", … }', f"Methods: {', '.join(logins)}")
    if method not in logins:
        raise at.under("method").error(
            "is not one that is known (not repeated here)", near(method, logins, f"Methods: {', '.join(logins)}")
        )
    given = {key: value for key, value in table.items() if key != "method"}
    check_table(given, takes_of(logins[method], _NOT_WRITTEN), at)
    return logins[method], given


def _constructed(make: Callable[..., Any], arguments: Mapping[str, Any], at: At) -> Any:
    failure: ConfigurationError
    try:
        return make(**arguments)
    except SecretSourceError as error:
        failure = at.error(f"cannot be used: {error.message}", error.hint)
        if any(piece in str(error) for piece in pieces(list(arguments.values()))):
            failure = at.error("has a value that cannot be used (not repeated here, in case it is a secret)", None)
    except Exception as error:  # a plug-in's; its text may hold what it was given
        failure = at.error(f"cannot be used: {type(error).__name__} was raised", "Correct its keys, or ask its authors")
    raise failure
