"""Issuers: which adapter a name means, made from the settings of a configuration.

Those of this package stand in a table of strings, a third party's in the entry-point group `secretsource.issuers`; both
are imported when they are named, and not before. What an adapter is, `secretsource.rotation.outcome.Adapter` says.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from ...backends import Backend
from ...config.stores import ConfiguredStores
from ...config.tables import At, check_table, hosts_of, near, pieces, takes_of
from ...errors import ConfigurationError, SecretSourceError, forgetting
from ...plugins import Catalogue, Known, Unusable
from ...reference import SecretReference
from ..outcome import Adapter

__all__ = ["adapter_called", "known_adapters"]

GROUP = "secretsource.issuers"

_BUILT_IN = {
    "auth0": "secretsource.rotation.issuers.auth0:Auth0",
    "command": "secretsource.rotation.issuers.command:Command",
    "entra": "secretsource.rotation.issuers.entra:Entra",
    "keycloak": "secretsource.rotation.issuers.keycloak:Keycloak",
    "manual": "secretsource.rotation.issuers.manual:Manual",
    "okta": "secretsource.rotation.issuers.okta:Okta",
    "orchard": "secretsource.rotation.issuers.orchard:Orchard",
    "orchard-recipe": "secretsource.rotation.issuers.orchard:OrchardRecipe",
    "registration": "secretsource.rotation.issuers.registration:Registration",
    "rfc7592": "secretsource.rotation.issuers.registration:Registration",
}
_CATALOGUE = Catalogue("adapter", GROUP, _BUILT_IN)
_HANDED_OVER = ("stores", "folder")
_SHOWN = ("program", "reveal_to", "ca_file")
_NOT_WRITTEN = (*_HANDED_OVER, "say", "clock")


def known_adapters() -> list[Known]:
    """All adapters of this installation, built-in ones first. Nothing is imported."""
    return _CATALOGUE.built_in() + sorted({one for one in _CATALOGUE.plugged_in() if one.name not in _CATALOGUE})


@forgetting
def adapter_called(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    folder: str | None = None,
    stores: Mapping[str, Backend] | None = None,
    at: At | None = None,
    production: bool = False,
) -> Adapter:
    """The adapter of this name, made with these settings. Raises ConfigurationError, which repeats no value.

    Settings are the arguments of its class as a configuration can write them; `at` is where they stand. Relative paths
    and file references begin in `folder`. A class that takes `stores` or `folder` is given these. In `production` each
    host of `plain_http` needs a reason, as everywhere in a configuration.
    """
    at = at or At("the settings of the issuer's adapter")
    make = _class(name)
    table = dict(settings or {})
    check_table(table, takes_of(make, _NOT_WRITTEN), at)
    taken = inspect.signature(make).parameters
    anchor = _Anchor(folder, stores, production)
    arguments = {
        key: anchor.anchored(key, value, str(taken[key].annotation), at.under(key)) for key, value in table.items()
    }
    handed = {"stores": stores, "folder": folder}
    arguments |= {key: value for key, value in handed.items() if key in taken}
    made = _constructed(make, arguments, table, at)
    if not isinstance(made, Adapter):
        raise ConfigurationError(
            f"the adapter {name!r} makes a {type(made).__name__}, which is no Adapter",
            hint="Its methods are those of secretsource.rotation.outcome.Adapter",
        )
    return made


class _Anchor(NamedTuple):
    """What the values of a configuration become, table by table, before a constructor is given them."""

    folder: str | None
    stores: Mapping[str, Backend] | None
    production: bool

    def anchored(self, key: str, value: Any, annotation: str, at: At) -> Any:
        if key == "plain_http":
            return hosts_of(value, at, production=self.production)
        if isinstance(value, dict):
            return {name: self.anchored(name, inner, "", at.under(name)) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.anchored(key, inner, annotation, at) for inner in value]
        if not isinstance(value, str):
            return value
        if key == "ca_file" or "PathLike" in annotation:
            return os.path.join(self.folder or "", value)
        return self._reference(value, at)

    def _reference(self, text: str, at: At) -> str:
        store, colon, _ = text.partition(":")
        configured = isinstance(self.stores, ConfiguredStores) and store in self.stores
        if not colon or (store != "file" and not configured):
            return text
        try:
            if isinstance(self.stores, ConfiguredStores):
                return self.stores.anchored(text)
            reference = SecretReference.parse(text)
            if reference.absolute or self.folder is None:
                return text
            segments = tuple(part for part in self.folder.split("/") if part) + reference.segments
            return str(replace(reference, segments=segments, absolute=True))
        except ConfigurationError as error:
            failure = at.error(f"cannot be used: {error.message}", error.hint)
        raise failure


def _class(name: str) -> Callable[..., Any]:
    """What makes the adapter of this name; a built-in name cannot be taken."""
    if name in _CATALOGUE:
        return _CATALOGUE.ours(name)  # type: ignore[no-any-return]
    made = _CATALOGUE.loaded(name, _usable, doing="imported", instead="give the adapter itself in code")
    if made is not None:
        return made
    known = sorted({one.name for one in known_adapters()})
    length = f"of {len(name)} characters, not repeated here" if isinstance(name, str) else type(name).__name__
    raise ConfigurationError(
        f"there is no adapter of that name ({length})",
        hint=near(str(name).lower().replace("_", "-"), known, f"Known adapters: {', '.join(known)}"),
    )


def _usable(made: Any) -> Callable[..., Any]:
    if not callable(made):
        raise Unusable(f"it is a {type(made).__name__}, which makes no adapter")
    with suppress(TypeError, ValueError):
        inspect.signature(made)
        return made  # type: ignore[no-any-return]
    raise Unusable("what it takes cannot be told")


def _constructed(make: Callable[..., Any], arguments: Mapping[str, Any], table: Mapping[str, Any], at: At) -> Any:
    failure: ConfigurationError
    try:
        return make(**arguments)
    except SecretSourceError as error:
        failure = at.error(f"cannot be used: {error.message}", error.hint)
        # The path of a program or a file is shown: it is what is to be corrected.
        hidden = {key: value for key, value in table.items() if key not in _SHOWN}
        if any(piece in str(error) for piece in _pieces(hidden)):
            failure = at.error("has a value that cannot be used (not repeated here, in case it is a secret)", None)
    except Exception as error:  # a plug-in's; its text may hold what it was given
        failure = at.error(f"cannot be used: {type(error).__name__} was raised", "Correct its keys, or ask its authors")
    raise failure


def _pieces(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        return [piece for inner in value.values() for piece in _pieces(inner)]
    return pieces(value)
