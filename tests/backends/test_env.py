from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from secretsource import (
    AccessDenied,
    BackendError,
    ConfigurationError,
    MalformedSecret,
    SecretNotFound,
    SecretReference,
)
from secretsource.backends import Writable
from secretsource.backends.env import EnvBackend
from secretsource.credentials import Document, interpret
from secretsource.errors import SecretSourceError

from .layouts import CANARY, revealed, shows, write


def read(reference: str, environ: Mapping[str, str]) -> Document:
    return EnvBackend(environ).read(SecretReference.parse(reference), fresh=False, timeout=1)


def fields(reference: str, environ: Mapping[str, str]) -> dict[str, str]:
    return dict(revealed(read(reference, environ).fields))


def refused(error: type[SecretSourceError], reference: str, environ: Mapping[str, str]) -> str:
    with pytest.raises(error) as caught:
        read(reference, environ)
    failure = caught.value
    assert not shows(failure)
    assert failure.hint
    if isinstance(failure, BackendError):
        assert (failure.reference, failure.store) == (str(SecretReference.parse(reference)), "env")
    return str(failure)


@pytest.mark.parametrize(
    ("reference", "environ", "names"),
    [
        ("env://POS", ("POS_CLIENT_ID", "POS_CLIENT_SECRET"), ("client_id", "client_secret")),
        ("env:POS", ("POS_CLIENT_ID", "POS_CLIENT_SECRET"), ("client_id", "client_secret")),
        ("env:", ("CLIENT_ID", "CLIENT_SECRET"), ("client_id", "client_secret")),
        ("env:#id=APP_ID,secret=APP_KEY", ("APP_ID", "APP_KEY"), ("APP_ID", "APP_KEY")),
        ("env://POS#id=ID,secret=KEY", ("POS_ID", "POS_KEY"), ("ID", "KEY")),
        ("env://POS#KEY", ("POS_CLIENT_ID", "POS_KEY"), ("client_id", "KEY")),
    ],
)
def test_each_form_of_reference_means_its_variables(
    reference: str, environ: tuple[str, str], names: tuple[str, str]
) -> None:
    values = dict(zip(environ, ("pos", CANARY), strict=True))
    pending = {f"{environ[1]}_PENDING": "next", f"{environ[1]}_PREVIOUS": "last"}
    document = read(reference, values | pending)
    assert revealed(document.fields) == {
        names[0]: "pos",
        names[1]: CANARY,
        f"{names[1]}_pending": "next",
        f"{names[1]}_previous": "last",
    }
    credentials = interpret(document, SecretReference.parse(reference)).credentials
    assert credentials.client_id == "pos"
    assert credentials.pending is not None
    assert credentials.pending.client_secret.reveal() == "next"


def test_without_a_prefix_and_an_id_no_variable_is_guessed_for_the_id() -> None:
    assert fields("env:#APP_KEY", {"APP_KEY": "x", "CLIENT_ID": "somebody's"}) == {"APP_KEY": "x"}


def test_the_client_id_may_be_missing_and_given_beside() -> None:
    document = read("env://POS", {"POS_CLIENT_SECRET": CANARY})
    assert interpret(document, SecretReference.parse("env://POS"), "pos").credentials.client_id == "pos"


def test_variables_cannot_change_and_the_process_is_read_at_each_read(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = EnvBackend()
    assert backend.ttl is None
    assert backend.options == frozenset()
    assert not isinstance(backend, Writable)
    for value in ("one", "two"):
        monkeypatch.setenv("POS_CLIENT_SECRET", value)
        document = backend.read(SecretReference.parse("env://POS"), fresh=False, timeout=1)
        assert revealed(document.fields)["client_secret"] == value
        assert document.valid_for is None


def test_a_variable_may_name_a_file_whose_text_is_read_whatever_its_suffix(tmp_path: Path) -> None:
    path = write(tmp_path / "secret.json", f"{CANARY}\n", 0o644)
    document = read("env://POS", {"POS_CLIENT_ID": "pos", "POS_CLIENT_SECRET_FILE": str(path)})
    assert revealed(document.fields) == {"client_id": "pos", "client_secret": CANARY}
    assert document.valid_for == 0, "the file may change, the variable cannot"


def test_every_variable_may_be_a_file(tmp_path: Path) -> None:
    names = ["APP_ID", "APP_KEY", "APP_KEY_PENDING", "APP_KEY_PREVIOUS"]
    environ = {f"{name}_FILE": str(write(tmp_path / name, f"value of {name}\n")) for name in names}
    assert fields("env:#id=APP_ID,secret=APP_KEY", environ) == {
        "APP_ID": "value of APP_ID",
        "APP_KEY": "value of APP_KEY",
        "APP_KEY_pending": "value of APP_KEY_PENDING",
        "APP_KEY_previous": "value of APP_KEY_PREVIOUS",
    }


@pytest.mark.parametrize("name", ["POS_CLIENT_ID", "POS_CLIENT_SECRET", "POS_CLIENT_SECRET_PENDING"])
def test_both_forms_at_once_are_an_error_that_names_them(name: str) -> None:
    environ = {"POS_CLIENT_ID": "pos", "POS_CLIENT_SECRET": CANARY, name: CANARY, f"{name}_FILE": f"/{CANARY}"}
    text = refused(ConfigurationError, "env://POS", environ)
    assert f"both {name} and {name}_FILE" in text


def test_what_is_set_and_empty_is_malformed() -> None:
    for name in ("POS_CLIENT_ID", "POS_CLIENT_SECRET", "POS_CLIENT_SECRET_FILE"):
        environ = {"POS_CLIENT_ID": "pos", name: ""}
        if name == "POS_CLIENT_ID":
            environ["POS_CLIENT_SECRET"] = CANARY
        assert f"the variable {name} is empty" in refused(MalformedSecret, "env://POS", environ)


def test_what_is_not_set_is_not_found_and_near_names_are_listed() -> None:
    environ = {"POS_CLIENT_SECRT": CANARY, "pos_client_secret": CANARY, "PATH": "/bin"}
    text = refused(SecretNotFound, "env://POS", environ)
    assert "neither POS_CLIENT_SECRET nor POS_CLIENT_SECRET_FILE is set" in text
    assert "POS_CLIENT_SECRT" in text
    assert "pos_client_secret" in text
    assert "PATH" not in text


@pytest.mark.parametrize("value", ["", "FILE"])
def test_a_candidate_that_is_empty_or_cannot_be_read_is_none(tmp_path: Path, value: str) -> None:
    environ = {"POS_CLIENT_SECRET": CANARY}
    if value:
        environ["POS_CLIENT_SECRET_PENDING_FILE"] = str(tmp_path / "nothing")
        environ["POS_CLIENT_SECRET_PREVIOUS_FILE"] = str(write(tmp_path / "open", "x", 0o666))
    else:
        environ |= {"POS_CLIENT_SECRET_PENDING": "", "POS_CLIENT_SECRET_PREVIOUS_FILE": ""}
    assert fields("env://POS", environ) == {"client_secret": CANARY}


@pytest.mark.parametrize("kind", ["PENDING", "PREVIOUS"])
def test_a_relative_path_to_a_candidate_does_not_stop_the_current_secret(kind: str) -> None:
    environ = {"POS_CLIENT_SECRET": CANARY, f"POS_CLIENT_SECRET_{kind}_FILE": "secrets/other"}
    assert fields("env://POS", environ) == {"client_secret": CANARY}


def test_an_error_about_the_file_names_its_variable(tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    text = refused(SecretNotFound, "env://POS", {"POS_CLIENT_SECRET_FILE": str(path)})
    assert "the file that POS_CLIENT_SECRET_FILE names (for env://POS)" in text
    assert f"{path} does not exist" in text
    write(path, CANARY, 0o666)
    assert "[F06]" in refused(AccessDenied, "env://POS", {"POS_CLIENT_SECRET_FILE": str(path)})
    write(path, "\n")
    assert "[F12]" in refused(MalformedSecret, "env://POS", {"POS_CLIENT_SECRET_FILE": str(path)})


def test_a_secret_where_a_path_belongs_is_not_repeated() -> None:
    text = refused(ConfigurationError, "env://POS", {"POS_CLIENT_SECRET_FILE": CANARY})
    assert "POS_CLIENT_SECRET_FILE" in text


@pytest.mark.parametrize("reference", ["env://A/B", "env://POS#/pointer", "env:#id=A%3DB,secret=C"])
def test_what_no_variable_can_be_called_is_an_error(reference: str) -> None:
    refused(ConfigurationError, reference, {})
