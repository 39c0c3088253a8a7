"""What holds for one client in one environment, value by value, each with the place where it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..endpoint import IssuerProfile
from ..errors import ConfigurationError
from .stores import ConfiguredStores
from .tables import At, hosts_of, pieces

__all__ = ["Setting", "Settings"]

COMMAND_LINE = "command line"


class Setting(NamedTuple):
    """A value, and where it stands: the table of the file, or the command line."""

    value: Any
    at: At

    @property
    def layer(self) -> str:
        return self.at.path if self.at.keys else COMMAND_LINE


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
    values: Mapping[tuple[str, ...], Setting] = field(repr=False)
    stores: ConfiguredStores | None = field(repr=False)

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
            if name == "rotation":
                continue
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

    @property
    def rotation(self) -> dict[str, Any]:
        """What is said about changing the secret, by its names in the file; `settings` are those of the adapter."""
        said: dict[str, Any] = {}
        for (name, *rest), setting in self.values.items():
            if name == "rotation" and len(rest) == 1:
                said[rest[0]] = setting.value
            elif name == "rotation":
                said.setdefault("settings", {})[rest[1]] = setting.value
        return said

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
