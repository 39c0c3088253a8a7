"""The tests that every backend must pass, for this one. Needs: pip install pytest ./examples/plugin"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest
from secretsource_sqlite import COLUMNS, SqliteBackend

from secretsource.testing import BackendContract


class TestSqliteBackend(BackendContract):
    @pytest.fixture(autouse=True)
    def _database(self, tmp_path: Path) -> None:
        self.path = tmp_path / "credentials.db"
        self.version = 0
        with sqlite3.connect(self.path) as database:
            database.execute(f"CREATE TABLE credentials (name PRIMARY KEY, version, {', '.join(COLUMNS)})")
        database.close()

    def backend(self) -> SqliteBackend:
        return SqliteBackend()

    def store(self, fields: Mapping[str, str]) -> str:
        self.version += 1
        row = ["pos", self.version, *(fields.get(name) for name in COLUMNS)]
        with sqlite3.connect(self.path) as database:
            database.execute(f"REPLACE INTO credentials VALUES ({', '.join('?' * len(row))})", row)
        database.close()
        return f"sqlite://pos?database={self.path}"

    def change(self, reference: str, fields: Mapping[str, str]) -> None:
        self.store(fields)

    def missing_reference(self) -> str:
        return f"sqlite://nobody?database={self.path}"
