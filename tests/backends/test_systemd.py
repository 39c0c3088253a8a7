from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from secretsource import (
    AccessDenied,
    ConfigurationError,
    MalformedSecret,
    SecretNotFound,
    SecretReference,
    SecretSourceError,
)
from secretsource.backends import Writable
from secretsource.backends.systemd import SystemdBackend
from secretsource.credentials import Document, interpret

from .layouts import CANARY, NOBODY_ELSE, as_root, as_user, grant, revealed, shows, systemd

TOML = f'client = "pos"\nkey = "{CANARY}"\n'


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="secretsource-", ignore_cleanup_errors=True) as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        yield path


def read(reference: str, environ: Mapping[str, str]) -> Document:
    return SystemdBackend(environ).read(SecretReference.parse(reference), fresh=False, timeout=1)


def refused(error: type[SecretSourceError], reference: str, environ: Mapping[str, str]) -> str:
    with pytest.raises(error) as caught:
        read(reference, environ)
    assert not shows(caught.value)
    assert caught.value.hint
    return str(caught.value)


def test_a_credential_is_read_in_the_format_of_its_suffix(folder: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(systemd(folder / "unit", {"pos.toml": TOML, "secret": f"{CANARY}\n"}))}
    reference = "systemd:pos.toml#id=client,secret=key"
    document = read(reference, environ)
    credentials = interpret(document, SecretReference.parse(reference)).credentials
    assert (credentials.client_id, credentials.client_secret.reveal()) == ("pos", CANARY)
    assert document.version is not None
    assert revealed(read("systemd:secret", environ).text) == CANARY
    assert revealed(read("systemd:pos.toml?format=text", environ).text) == TOML.removesuffix("\n")


def test_credentials_are_fixed_while_the_unit_runs_and_not_written() -> None:
    assert SystemdBackend().ttl is None
    assert not isinstance(SystemdBackend(), Writable)


def test_the_environment_of_the_process_is_asked_at_each_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = SystemdBackend()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(systemd(folder / "unit", {"secret": CANARY})))
    assert revealed(backend.read(SecretReference.parse("systemd:secret"), fresh=False, timeout=1).text) == CANARY


@pytest.mark.parametrize("environ", [{}, {"CREDENTIALS_DIRECTORY": ""}])
def test_outside_of_a_unit_the_error_says_so(environ: Mapping[str, str]) -> None:
    text = refused(SecretNotFound, "systemd:secret", environ)
    assert "$CREDENTIALS_DIRECTORY is not set" in text
    assert "LoadCredential=" in text


def test_a_missing_directory_is_told_from_a_missing_file(folder: Path) -> None:
    text = refused(SecretNotFound, "systemd:secret", {"CREDENTIALS_DIRECTORY": str(folder / "gone")})
    assert f"{folder}/gone does not exist" in text
    environ = {"CREDENTIALS_DIRECTORY": str(systemd(folder / "unit", {"a": "1", "b": "2"}))}
    text = refused(SecretNotFound, "systemd:secret", environ)
    assert "no credential 'secret'" in text
    assert "'a', 'b'" in text


def test_an_empty_directory_hints_at_the_unit(folder: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(systemd(folder / "unit", {}))}
    assert "add LoadCredential=" in refused(SecretNotFound, "systemd:secret", environ)


def test_a_relative_directory_and_several_parts_are_errors() -> None:
    refused(ConfigurationError, "systemd:secret", {"CREDENTIALS_DIRECTORY": "here"})
    assert "no directories" in refused(ConfigurationError, "systemd:a/b", {})


def test_a_broken_credential_is_malformed(folder: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(systemd(folder / "unit", {"a.json": f'{{"{CANARY}', "b": ""}))}
    assert "line 1" in refused(MalformedSecret, "systemd:a.json", environ)
    assert "[F12]" in refused(MalformedSecret, "systemd:b", environ)


def test_what_others_could_change_is_refused(folder: Path) -> None:
    unit = systemd(folder / "unit", {"secret": CANARY}, mode=0o666)
    assert "[F06]" in refused(AccessDenied, "systemd:secret", {"CREDENTIALS_DIRECTORY": str(unit)})


@as_root
def test_a_unit_of_an_ordinary_user_reads_through_the_acl_that_systemd_sets(folder: Path) -> None:
    unit = systemd(folder / "unit", {"pos.json": f'{{"client_id": "pos", "client_secret": "{CANARY}"}}'})
    grant(unit / "pos.json", users={NOBODY_ELSE: 4})
    grant(unit, users={NOBODY_ELSE: 5})
    answer = as_user("systemd:pos.json", environ={"CREDENTIALS_DIRECTORY": str(unit)})
    assert answer == {"client_id": "pos", "client_secret": CANARY}
    assert as_user(f"file://{unit}/pos.json") == answer, "and such a file is private, too"


@as_root
def test_a_unit_whose_user_owns_the_credentials_reads_them(folder: Path) -> None:
    unit = systemd(folder / "unit", {"secret": CANARY})
    for path in (unit, unit / "secret"):
        os.chown(path, NOBODY_ELSE, NOBODY_ELSE)
    assert as_user("systemd:secret", environ={"CREDENTIALS_DIRECTORY": str(unit)}) == {"": CANARY}
