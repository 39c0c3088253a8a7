"""The shipped contract, on Vault: KV version 2, KV version 1, and what is raw."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from secretsource.backends.vault import VaultBackend
from secretsource.errors import AccessDenied, BackendError, MalformedSecret, SecretNotFound
from secretsource.testing import BackendContract

from .openbao import Corner


class TestVault(BackendContract):
    @pytest.fixture(autouse=True)
    def _mount(self, corner: Corner) -> None:
        self.corner = corner
        self.kv = corner.kv()
        denied = f"{self.kv}/data/denied"
        rules = corner.policy(f"{self.kv}/data/*", capabilities=("read", "create", "update"))
        none = corner.policy(denied, name=f"{rules}-none", capabilities=("deny",))
        for path in ("denied", "deleted", "odd"):
            corner.put(f"{self.kv}/data/{path}", {"data": {"client_id": "pos", "client_secret": "not-a-real-secret"}})
        corner.api("DELETE", f"{self.kv}/data/deleted")
        self.role = corner.role(rules, none)

    def backend(self) -> VaultBackend:
        return self.corner.backend(self.role.login)

    def store(self, fields: Mapping[str, str]) -> str:
        self.change("", fields)
        return f"vault://{self.kv}/pos"

    def change(self, reference: str, fields: Mapping[str, str]) -> None:
        self.corner.put(f"{self.kv}/data/pos", {"data": dict(fields)})

    def missing_reference(self) -> str:
        return f"vault://{self.kv}/nothing"

    def broken_references(self) -> list[tuple[str, type[BackendError]]]:
        return [
            (f"vault://{self.kv}/denied", AccessDenied),
            (f"vault://{self.kv}/deleted", SecretNotFound),
            (f"vault://{self.kv}/pos/below", SecretNotFound),
        ]


class TestVaultVersion1(BackendContract):
    writes = False
    kind = "1"

    @pytest.fixture(autouse=True)
    def _mount(self, corner: Corner) -> None:
        self.corner = corner
        self.kv = corner.kv1()
        self.role = corner.role(corner.policy(f"{self.kv}/*"))

    def backend(self) -> VaultBackend:
        return self.corner.backend(self.role.login)

    def store(self, fields: Mapping[str, str]) -> str:
        self.change("", fields)
        return f"vault://{self.kv}/pos?kv={self.kind}"

    def change(self, reference: str, fields: Mapping[str, str]) -> None:
        self.corner.api("POST", f"{self.kv}/pos", fields)

    def missing_reference(self) -> str:
        return f"vault://{self.kv}/nothing?kv={self.kind}"

    def broken_references(self) -> list[tuple[str, type[BackendError]]]:
        return [("vault://elsewhere/pos?kv=1", AccessDenied)]


class TestVaultRaw(TestVaultVersion1):
    kind = "raw"

    def broken_references(self) -> list[tuple[str, type[BackendError]]]:
        return [
            ("vault://elsewhere/pos?kv=raw", AccessDenied),
            ("vault://identity/oidc/.well-known/keys?kv=raw", MalformedSecret),
        ]
