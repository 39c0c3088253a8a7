"""What the environment says about Vault, for a store that is built bare: VAULT_*, and BAO_* for OpenBao.

Read by us and not by hvac, which knows half of them and picks a developer's token up in silence.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from ...errors import ConfigurationError
from .logins import Login, StaticToken, ViaAgent

__all__ = ["settings"]

_OFF = ("", "0", "f", "false")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def settings(prefixes: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of a VaultBackend, by the first of the prefixes that has each. Raises ConfigurationError."""
    return _Variables(prefixes).settings()


class _Variables:
    def __init__(self, prefixes: tuple[str, ...]) -> None:
        # Never a local of a frame, where a traceback would show all of it.
        self._environ, self._prefixes = os.environ, prefixes

    def settings(self) -> dict[str, Any]:
        for name, instead in (
            ("SKIP_VERIFY", "Trust the server's authority by {prefix}_CACERT; verification cannot be switched off"),
            ("TLS_SERVER_NAME", "Write the name that the certificate has in {prefix}_ADDR"),
        ):
            variable, value = self._named(name)
            if value.lower() not in _OFF:
                raise ConfigurationError(
                    f"{variable} is set, and is not obeyed", hint=instead.format(prefix=self._prefixes[0])
                )
        agent = self._value("PROXY_ADDR") or self._value("AGENT_ADDR")
        address = agent or self._value("ADDR")
        if not address:
            names = " or ".join(f"{prefix}_ADDR" for prefix in self._prefixes)
            raise ConfigurationError(
                f"there is no address of Vault: {names} is not set",
                hint="Set it, or give the store in code or in secretsource.toml with its address",
            )
        if "://" not in address:
            raise ConfigurationError(
                f"{self._address_variable()} does not begin with https:// or http://", hint="Write https://HOST:PORT"
            )
        certificate, key = self._value("CLIENT_CERT"), self._value("CLIENT_KEY")
        found = {
            "address": address,
            "auth": self._login(via_agent=bool(agent)),
            "namespace": self._value("NAMESPACE") or None,
            "ca_file": self._value("CACERT") or self._value("CAPATH") or None,
            "client_cert": (certificate, key) if certificate and key else certificate or None,
            "proxy": self._value("HTTP_PROXY") or None,
            "timeout": self._seconds("CLIENT_TIMEOUT"),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _login(self, *, via_agent: bool) -> Login:
        variable, token = self._named("TOKEN")
        if token:
            return StaticToken(f"env:#{variable}")
        if via_agent:
            return ViaAgent()
        # What `vault login` leaves there is a person's; a program must be told to use it.
        left = os.path.join(os.path.expanduser("~"), ".vault-token")
        offer = f", or, for the token that `vault login` left, auth=TokenFile({left!r})" if os.path.exists(left) else ""
        raise ConfigurationError(
            f"there is no login to Vault: {self._prefixes[0]}_TOKEN is not set",
            hint=f"Set it, or give the store a login: VaultBackend(address, auth=AppRole(…)){offer}",
        )

    def _seconds(self, name: str) -> float | None:
        variable, text = self._named(name)
        if not text:
            return None
        digits = text.rstrip("mshMSH")
        with suppress(ValueError, KeyError):
            seconds = float(digits) * _UNITS[text[len(digits) :].lower() or "s"]
            if 0 < seconds < 1e6:
                return seconds
        raise ConfigurationError(f"{variable} is no time", hint="Such as 30s, or 30 for seconds")

    def _address_variable(self) -> str:
        named = (self._named(name) for name in ("PROXY_ADDR", "AGENT_ADDR", "ADDR"))
        return next(variable for variable, value in named if value)

    def _value(self, name: str) -> str:
        return self._named(name)[1]

    def _named(self, name: str) -> tuple[str, str]:
        """The variable that says it, and what it says."""
        for prefix in self._prefixes:
            variable = f"{prefix}_{name}"
            if self._environ.get(variable):
                return variable, self._environ[variable]
        return f"{self._prefixes[0]}_{name}", ""
