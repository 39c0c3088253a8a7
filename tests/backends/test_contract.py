"""The shipped contract, on our own backends and each of their shapes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from secretsource.backends.env import EnvBackend
from secretsource.backends.file import FileBackend
from secretsource.backends.systemd import SystemdBackend
from secretsource.errors import AccessDenied, BackendError, MalformedSecret
from secretsource.testing import BackendContract


def _write(path: Path, text: str, mode: int = 0o600) -> None:
    """Into a new file that takes the old one's place, as whoever rotates a secret does it."""
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=mode)
    new.write_text(text)
    new.chmod(mode)
    new.replace(path)


class TestJsonFile(BackendContract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        _write(tmp_path / "open.json", json.dumps({"client_secret": "not-a-real-secret"}), 0o644)
        _write(tmp_path / "half.json", '{"client_id": "pos", "client_secret": "not-a-re')

    def backend(self) -> FileBackend:
        return FileBackend()

    def store(self, fields: Mapping[str, str]) -> str:
        reference = f"file://{self.folder}/pos.json"
        self.change(reference, fields)
        return reference

    def change(self, reference: str, fields: Mapping[str, str]) -> None:
        _write(self.folder / "pos.json", json.dumps(dict(fields)))

    def missing_reference(self) -> str:
        return f"file://{self.folder}/nothing.json"

    def broken_references(self) -> list[tuple[str, type[BackendError]]]:
        return [
            (f"file://{self.folder}/open.json", AccessDenied),
            (f"file://{self.folder}/half.json", MalformedSecret),
        ]


class _OfLines(TestJsonFile):
    """Files with a line for each field."""

    suffix = ""
    head = ""

    def store(self, fields: Mapping[str, str]) -> str:
        reference = f"file://{self.folder}/pos.{self.suffix}"
        self.change(reference, fields)
        return reference

    def change(self, reference: str, fields: Mapping[str, str]) -> None:
        lines = [
            f'{name} = "{value}"' if self.suffix == "toml" else f"{name}={value}" for name, value in fields.items()
        ]
        _write(self.folder / f"pos.{self.suffix}", "\n".join([self.head, *lines, ""]))

    def missing_reference(self) -> str:
        return f"file://{self.folder}/nothing.{self.suffix}"


class TestTomlFile(_OfLines):
    suffix = "toml"


class TestEnvFile(_OfLines):
    suffix = "env"


class TestIniFile(_OfLines):
    suffix = "ini"


class TestTextFile(TestJsonFile):
    def store(self, fields: Mapping[str, str]) -> str:
        self.change("", fields)
        return f"file://{self.folder}/secret"

    def change(self, reference: str, fields: Mapping[str, str]) -> None:
        _write(self.folder / "secret", fields["client_secret"] + "\n")


class TestDirectory(TestJsonFile):
    """One file a field, as Docker mounts secrets."""

    writes = False

    def store(self, fields: Mapping[str, str]) -> str:
        (self.folder / "pos").mkdir(mode=0o755)
        self.change("", fields)
        return f"file://{self.folder}/pos/?access=mounted"

    def change(self, reference: str, fields: Mapping[str, str]) -> None:
        for name, value in fields.items():
            _write(self.folder / "pos" / name, value, 0o444)

    def missing_reference(self) -> str:
        return f"file://{self.folder}/nothing/?access=mounted"


class TestVariables(BackendContract):
    @pytest.fixture(autouse=True)
    def _variables(self) -> None:
        self.environ: dict[str, str] = {"ODD_CLIENT_SECRET": ""}

    def backend(self) -> EnvBackend:
        return EnvBackend(self.environ)

    def store(self, fields: Mapping[str, str]) -> str:
        self.change("", fields)
        return "env://POS"

    def change(self, reference: str, fields: Mapping[str, str]) -> None:
        self.environ.update({f"POS_{name.upper()}": value for name, value in fields.items()})

    def missing_reference(self) -> str:
        return "env://NOTHING_HERE"

    def broken_references(self) -> list[tuple[str, type[BackendError]]]:
        return [("env://ODD", MalformedSecret)]


class TestVariablesThatNameFiles(TestVariables):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path, _variables: None) -> None:
        self.folder = tmp_path

    def change(self, reference: str, fields: Mapping[str, str]) -> None:
        for name, value in fields.items():
            _write(self.folder / name, f"{value}\n", 0o444)
            self.environ[f"POS_{name.upper()}_FILE"] = str(self.folder / name)


class TestSystemd(BackendContract):
    @pytest.fixture(autouse=True)
    def _unit(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        _write(tmp_path / "half.json", '{"client_secret": "not-a-re', 0o400)

    def backend(self) -> SystemdBackend:
        return SystemdBackend({"CREDENTIALS_DIRECTORY": str(self.folder)})

    def store(self, fields: Mapping[str, str]) -> str:
        self.change("", fields)
        return "systemd:pos.json"

    def change(self, reference: str, fields: Mapping[str, str]) -> None:
        _write(self.folder / "pos.json", json.dumps(dict(fields)), 0o400)

    def missing_reference(self) -> str:
        return "systemd:nothing.json"

    def broken_references(self) -> list[tuple[str, type[BackendError]]]:
        return [("systemd:half.json", MalformedSecret)]
