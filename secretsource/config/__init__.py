"""secretsource.toml: clients, environments and stores as plain values. No secret belongs in it, and none is accepted.

What holds for a client: `clients.C.environments.E` over `clients.C` over `environments.E` over `defaults`, key by key;
`extra`, `profile` and each store are laid over one another by their own keys. In every text `{client}` and
`{environment}` stand for the two names, and nothing else may stand in braces (in `extra`, other braces stay).
Relative paths, and relative `file:` references, begin in the folder of the file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple

from ..backends import known_backends
from ..backends.formats import Fault, plain_tree
from ..backends.walk import read_text
from ..endpoint import AUTH_METHODS, IssuerProfile
from ..errors import AccessDenied, BackendError, ConfigurationError, MalformedSecret
from ..reference import BUILT_IN_STORES, SecretReference
from ..secret import Secret
from .pasted import Pasted, find
from .stores import ConfiguredStores, StoreTable
from .tables import NAME, PLAIN_HTTP, At, Takes, check_table, hosts_of, near, pieces, takes_of

__all__ = ["KEYS", "Configuration", "Setting", "Settings", "asked_environment", "loaded", "located"]

FILE_NAME = "secretsource.toml"
COMMAND_LINE = "command line"

KEYS = {
    **dict.fromkeys(("credentials", "issuer", "token_url", "client_id", "audience", "ca_file", "proxy"), "str"),
    **dict.fromkeys(("scope", "resource"), "str | list[str]"),
    **dict.fromkeys(("timeout", "leeway", "refresh_ahead", "default_lifetime", "max_stale", "denied_grace"), "float"),
    "auth_method": f"Literal{list(AUTH_METHODS)}",
    "plain_http": PLAIN_HTTP,
    "extra": "dict",
    "profile": "dict",
}
_LAYER = {**KEYS, "stores": "dict"}
_ENVIRONMENT = {**_LAYER, "production": "bool", "require_binding": "bool"}
_STORE_NAME = re.compile(r"[a-z][a-z0-9-]+")
_BRACES = re.compile(r"\{([^{}]*)\}|[{}]")


class Setting(NamedTuple):
    """A value, and where it stands: the table of the file, or the command line."""

    value: Any
    at: At

    @property
    def layer(self) -> str:
        return self.at.path if self.at.keys else COMMAND_LINE


_Values = dict[tuple[str, ...], Setting]


@dataclass(frozen=True)
class Settings:
    """What holds for one client in one environment. Names of values are tuples: ("issuer",), ("extra", "tenant").

    `file` is None, and `client` and `environment` may be "", where there is no configuration.
    """

    file: str | None
    client: str
    environment: str
    production: bool
    require_binding: bool
    values: Mapping[tuple[str, ...], Setting]
    stores: ConfiguredStores | None

    @classmethod
    def bare(cls, environment: str = "") -> Settings:
        """Those of whoever has no configuration: none."""
        return cls(None, "", environment, False, False, {}, None)

    def over(self, given: Mapping[tuple[str, ...], Any]) -> Settings:
        """The same with values that were given on the command line."""
        additions = {keys: Setting(value, At(COMMAND_LINE)) for keys, value in given.items()}
        return replace(self, values={**self.values, **additions})

    def get(self, name: str, default: Any = None) -> Any:
        setting = self.values.get((name,))
        return default if setting is None else setting.value

    def arguments(self) -> dict[str, Any]:
        """The arguments of TokenSource. Raises ConfigurationError."""
        if ("credentials",) not in self.values:
            raise ConfigurationError(f"{self} has no credentials", hint='Write credentials = "…", such as "env://POS"')
        arguments: dict[str, Any] = {"stores": self.stores}
        for (name, *rest), setting in self.values.items():
            if rest and name != "stores":
                arguments.setdefault(name, {})[rest[0]] = setting.value
            elif not rest:
                arguments[name] = setting.value
        if "profile" in arguments:
            fields = arguments["profile"].items()
            given: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in fields}
            arguments["profile"] = IssuerProfile(**given)
        if "plain_http" in arguments:
            at = self.values["plain_http",].at.under("plain_http")
            arguments["plain_http"] = hosts_of(arguments["plain_http"], at, production=self.production)
        return arguments

    def check_production(self, asked: bool | None) -> None:
        """Raise ConfigurationError if the environment is not what the caller asserts."""
        if asked is not None and asked is not self.production:
            raise ConfigurationError(
                f"{self} {'is' if self.production else 'is not'} marked production = true, "
                f"and production={asked} was asserted",
                hint="Name another environment, or correct the mark",
            )

    def explained(self, error: ConfigurationError) -> ConfigurationError:
        """The error with the place of what it is about; a value that may be a secret pasted by mistake is left out."""
        if self.file is None:
            return error.again()
        text, shown = str(error), f"{self} {self.get('credentials', '')}"
        for keys, setting in self.values.items():
            # Those three have been looked at: what is none of what they take was not let through.
            checked = keys[0] in ("credentials", "auth_method", "profile")
            if not checked and any(piece in text and piece not in shown for piece in pieces(setting.value)):
                place = setting.at.under(*keys)
                return place.error("cannot be used (its value is not repeated here, in case it is a secret)", None)
        return ConfigurationError(f"{self}: {error.message}", hint=error.hint)

    def __str__(self) -> str:
        if self.file is None:
            return "the command line"
        where = f" in environment {self.environment!r}" if self.environment else ""
        return f"client {self.client!r}{where} of {self.file}"


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
        if ca_file is not None:
            values["ca_file",] = ca_file._replace(value=os.path.join(self._folder, ca_file.value))
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


_loaded: dict[str, Configuration] = {}


def located(path: str | os.PathLike[str] | None = None, *, upwards: bool = False) -> str:
    """The file that is meant: `path`, else what SECRETSOURCE_CONFIG names, else secretsource.toml in this folder.

    `upwards` also looks in the folders above. The path is absolute and without links. ConfigurationError.
    """
    if path is not None and (not isinstance(path, (str, os.PathLike)) or isinstance(os.fspath(path), bytes)):
        raise ConfigurationError(f"path= is the path of a file, not {type(path).__name__}")
    named = path or os.environ.get("SECRETSOURCE_CONFIG")
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
    return name or os.environ.get("SECRETSOURCE_ENV", "")


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
    return find(text, tables, lambda name: name in named or name in {one.name for one in known_backends()}) or tables


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


def _flat(layer: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values of a layer that others are laid over, one by one."""
    for key, value in layer.items():
        if key in ("extra", "profile"):
            yield from (((key, name), inner) for name, inner in value.items())
        elif key == "stores":
            yield from (((key, store, name), inner) for store, keys in value.items() for name, inner in keys.items())
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
