"""A configuration as it was read: its layers, checked, and laid over one another for a client in an environment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from ..durations import duration
from ..endpoint import AUTH_METHODS, IssuerProfile
from ..errors import ConfigurationError, forgetting
from .settings import Setting, Settings
from .stores import ConfiguredStores, StoreTable
from .tables import NAME, PLAIN_HTTP, At, Takes, check_table, hosts_of, near, takes_of

__all__ = ["DURATIONS", "KEYS", "ROTATION", "Configuration"]

KEYS = {
    **dict.fromkeys(("credentials", "issuer", "token_url", "client_id", "audience", "ca_file", "proxy"), "str"),
    **dict.fromkeys(("scope", "resource"), "str | list[str]"),
    **dict.fromkeys(("timeout", "leeway", "refresh_ahead", "default_lifetime", "max_stale", "denied_grace"), "float"),
    "auth_method": f"Literal{list(AUTH_METHODS)}",
    "plain_http": PLAIN_HTTP,
    "extra": "dict",
    "profile": "dict",
}
# What is said about changing the secret itself: no argument of a source.
DURATIONS = ("every", "wait", "soak", "propagation", "landing", "command_timeout", "max_wait")
ROTATION = {
    **dict.fromkeys(("adapter", "owner"), "str"),
    "command": "str | list[str]",
    **dict.fromkeys(DURATIONS, "str | float"),
    "proofs": "int",
    "accept_gap": "bool",
    "gates": "list[str]",
    "settings": "dict",
}
_LAYER = {**KEYS, "stores": "dict", "rotation": "dict"}
_ENVIRONMENT = {**_LAYER, "production": "bool", "require_binding": "bool"}
_STORE_NAME = re.compile(r"[a-z][a-z0-9-]+")
_BRACES = re.compile(r"\{([^{}]*)\}|[{}]")

_Values = dict[tuple[str, ...], Setting]


class Configuration:
    """One file as it was read: checked, and without a secret that could be told as such."""

    def __init__(self, file: str, tables: dict[str, Any], digest: bytes = b"") -> None:
        """Raises ConfigurationError for unknown keys and wrong types anywhere in it."""
        self.file = file
        self.digest = digest
        self._folder = os.path.dirname(file)
        self._tables = tables
        self._stores: dict[tuple[str, str], ConfiguredStores] = {}
        self._check(At(file))

    @property
    def clients(self) -> list[str]:
        return sorted(self._tables.get("clients", {}))

    @property
    def environments(self) -> list[str]:
        return sorted(self._tables.get("environments", {}))

    def environment(self, name: str | None) -> str:
        """The environment of that name, or the only one ("" where there is none at all). ConfigurationError."""
        names = self.environments
        if name:
            return self._known("environment", name, names)
        if len(names) > 1:
            raise ConfigurationError(
                f"{self.file} has {len(names)} environments, and none was named",
                hint=f"Name one by argument, --env or SECRETSOURCE_ENV: {', '.join(names)}",
            )
        return names[0] if names else ""

    def clients_of(self, environment: str) -> list[str]:
        """Those that have credentials in this environment."""
        return [client for client in self.clients if ("credentials",) in self._layered(client, environment)]

    @forgetting
    def settings(self, client: str, environment: str | None = None) -> Settings:
        """What holds for this client. Raises ConfigurationError."""
        environment = self.environment(environment)
        client = self._known("client", client, self.clients)
        values = {
            keys: Setting(_filled(one.value, keys, one.at.under(*keys), client, environment), one.at)
            for keys, one in self._layered(client, environment).items()
        }
        marks = self._tables.get("environments", {}).get(environment, {})
        production = marks.get("production", False)
        stores = self._stores_of(values, environment, production=production)
        stores.check()
        if production:
            stores.check_production()
        self._anchor(values, stores)
        require_binding = marks.get("require_binding", False)
        return Settings(self.file, client, environment, production, require_binding, values, stores)

    def _known(self, what: str, name: str, names: list[str]) -> str:
        if name in names:
            return name
        raise ConfigurationError(
            f"{self.file} has no {what} of that name (of {len(name)} characters, not repeated here)"
            if isinstance(name, str)
            else f"the name of a {what} is a str, not {type(name).__name__}",
            hint=near(str(name), names, f"It has: {', '.join(names) or f'no {what} at all'}"),
        )

    def _layered(self, client: str | None, environment: str) -> _Values:
        """The values that hold, as they are written, each with the layer that it comes from."""
        tables, file = self._tables, self.file
        of_environment = tables.get("environments", {}).get(environment, {})
        of_client = tables.get("clients", {}).get(client, {}) if client is not None else {}
        values: _Values = {}
        for layer, keys in (
            (tables.get("defaults", {}), ("defaults",)),
            (of_environment, ("environments", environment)),
            (of_client, ("clients", client or "")),
            (
                of_client.get("environments", {}).get(environment, {}),
                ("clients", client or "", "environments", environment),
            ),
        ):
            values.update((name, Setting(value, At(file, keys))) for name, value in _flat(layer))
        return values

    def _stores_of(self, values: _Values, environment: str, *, production: bool) -> ConfiguredStores:
        """The stores of these values; those of equal ones in one environment are the same."""
        tables: dict[str, StoreTable] = {}
        for keys, setting in values.items():
            if keys[0] == "stores":
                place = setting.at.under(*keys[:2])
                table = tables.setdefault(keys[1], StoreTable(place, {}, {}))
                table.keys[keys[2]], table.places[keys[2]] = setting.value, place
        written = json.dumps({name: table.keys for name, table in tables.items()}, sort_keys=True, default=str)
        made = ConfiguredStores(tables, self._folder, production=production)
        return self._stores.setdefault((environment, written), made)

    def _anchor(self, values: _Values, stores: ConfiguredStores) -> None:
        """Have relative paths begin in the file's folder."""
        ca_file, credentials = values.get(("ca_file",)), values.get(("credentials",))
        command = values.get(("rotation", "command"))
        if ca_file is not None:
            values["ca_file",] = ca_file._replace(value=os.path.join(self._folder, ca_file.value))
        if command is not None:
            program, *rest = command.value if isinstance(command.value, list) else [command.value]
            if "/" in program:  # else it is looked up as a shell does
                program = os.path.join(self._folder, program)
            values["rotation", "command"] = command._replace(value=[program, *rest] if rest else program)
        if credentials is not None:
            failure = None
            try:
                values["credentials",] = credentials._replace(value=stores.anchored(credentials.value))
            except ConfigurationError as error:
                failure = credentials.at.under("credentials").error(f"cannot be used: {error.message}", error.hint)
            if failure is not None:
                raise failure

    def _check(self, at: At) -> None:
        tables = self._tables
        hint = next((f"Write [defaults] above {key!r}" for key in tables if key in KEYS), None)
        if "rotation" in tables:
            hint = "Write [defaults.rotation], or [clients.NAME.rotation]"
        if hint is not None:
            raise at.error("has a setting outside of all tables", hint)
        check_table(tables, Takes(dict.fromkeys(("defaults", "environments", "clients"), "dict")), at)
        _check_layer(tables.get("defaults", {}), _LAYER, at.under("defaults"))
        for name, table in _named(tables, "environments", at):
            _check_layer(table, _ENVIRONMENT, at.under("environments", name))
        for name, table in _named(tables, "clients", at):
            place = at.under("clients", name)
            _check_layer(table, {**_LAYER, "environments": "dict"}, place)
            for environment, inner in _named(table, "environments", place):
                if environment not in self.environments:
                    raise place.under("environments", environment).error(
                        "is no environment of this file", near(environment, self.environments, "Define it, or leave it")
                    )
                _check_layer(inner, _LAYER, place.under("environments", environment))
        for environment in self.environments or [""]:
            for client in (None, *self.clients):
                self._stores_of(self._layered(client, environment), environment, production=False)
        for stores in self._stores.values():
            stores.check(installed=False)
        self._stores.clear()  # nothing was filled into their texts


def _named(tables: Mapping[str, Any], kind: str, at: At) -> Iterator[tuple[str, Any]]:
    """The tables of clients or environments, whose names go into references and URLs."""
    for name, table in tables.get(kind, {}).items():
        if not NAME.fullmatch(name):
            raise at.under(kind).error(
                f"has a name of {len(name)} characters that is not one",
                "Names are 1 to 64 letters, digits, - and _, and begin with a letter or digit",
            )
        yield name, table


def _check_layer(layer: Any, known: Mapping[str, str], at: At) -> None:
    check_table(layer, Takes(known), at)
    check_table(layer.get("extra", {}), Takes(dict.fromkeys(layer.get("extra", {}), "str")), at.under("extra"))
    check_table(layer.get("profile", {}), takes_of(IssuerProfile), at.under("profile"))
    hosts_of(layer.get("plain_http", ()), at.under("plain_http"), production=False)
    _check_rotation(layer.get("rotation", {}), at.under("rotation"))
    for name, table in layer.get("stores", {}).items():
        if not _STORE_NAME.fullmatch(name):
            raise at.under("stores").error(
                f"has a name of {len(name)} characters that no reference can begin with",
                "Names are two or more of a-z 0-9 -, beginning with a letter",
            )
        if not isinstance(table, dict):
            raise at.under("stores", name).error("is no table", f"Write [{at.path}.stores.{name}] and its keys below")
        if not isinstance(table.get("backend", ""), str):
            raise at.under("stores", name, "backend").error("is no string", None)
        if "plain_http" in table:
            place = at.under("stores", name)
            check_table({"plain_http": table["plain_http"]}, Takes({"plain_http": PLAIN_HTTP}), place)
            hosts_of(table["plain_http"], place.under("plain_http"), production=False)


def _check_rotation(table: Any, at: At) -> None:
    check_table(table, Takes(ROTATION), at)
    for key in DURATIONS:
        if key not in table:
            continue
        seconds = -1.0
        with suppress(ConfigurationError):
            seconds = duration(table[key])
        if seconds < 0:
            raise at.under(key).error("is no duration", 'Write it such as "90s", "5m", "1h30m", "90d"')
        if not seconds and key in ("every", "command_timeout"):
            raise at.under(key).error("is more than 0 seconds", None)
    if table.get("proofs", 1) < 1:
        raise at.under("proofs").error("is a whole number above 0", None)
    for key in ("adapter", "command"):
        named = table.get(key, "-")
        if not (named if isinstance(named, str) else next(iter(named), "")).strip():
            raise at.under(key).error("is empty", "Name one, or leave it out")


def _flat(layer: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values of a layer that others are laid over, one by one."""
    for key, value in layer.items():
        if key in ("extra", "profile"):
            yield from (((key, name), inner) for name, inner in value.items())
        elif key == "stores":
            yield from (((key, store, name), inner) for store, keys in value.items() for name, inner in keys.items())
        elif key == "rotation":
            yield from (((key, name), inner) for name, inner in value.items() if name != "settings")
            yield from (((key, "settings", name), inner) for name, inner in value.get("settings", {}).items())
        elif key in KEYS:
            yield (key,), value


def _filled(value: Any, keys: tuple[str, ...], at: At, client: str, environment: str) -> Any:
    """The value with the names of client and environment put in."""
    if isinstance(value, list):
        return [_filled(each, keys, at, client, environment) for each in value]
    if isinstance(value, dict):
        return {key: _filled(inner, keys, at, client, environment) for key, inner in value.items()}
    if not isinstance(value, str):
        return value
    names = {"client": client, "environment": environment}

    def fill(found: re.Match[str]) -> str:
        name = names.get(found[1] or "")
        if name:
            return name
        if keys[0] == "extra":
            return found[0]
        if found[1] == "environment":
            raise at.error("has {environment} in it, and this file has no environments", "Define one, or leave it out")
        raise at.error(
            "has a brace in it that belongs to neither {client} nor {environment}",
            near(found[1] or "", names, "Nothing else can stand in braces"),
        )

    return _BRACES.sub(fill, value)
