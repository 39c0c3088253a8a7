"""Vault: what is imported when, and that no reference leads out of its mount."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Callable
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secretsource import SecretReference
from secretsource.backends.vault import AppRole, Jwt, Kubernetes, StaticToken, VaultBackend
from secretsource.backends.vault.answers import Action
from secretsource.backends.vault.kv import place_of, preflight, reading, writing
from secretsource.backends.vault.wire import VaultTransport, call
from secretsource.clock import Deadline
from secretsource.errors import ConfigurationError
from secretsource.exchange import Answer, Outgoing

from .vaults import CLIENT_SECRET, Scripted

_LOADED = "print(sorted(name for name in ('boto3', 'botocore', 'hvac', 'requests') if name in sys.modules))"


def run(code: str) -> str:
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env={"PATH": "/usr/bin"}
    )
    assert child.returncode == 0, child.stderr
    return child.stdout.strip()


@pytest.mark.parametrize(
    "auth",
    ["ViaAgent()", "AppRole('role', 'env:#ID')", "AwsIam('role')", "Kubernetes('role')", "StaticToken('env:#TOKEN')"],
)
def test_a_store_that_is_only_constructed_imports_no_client(auth: str) -> None:
    code = f"import sys; from secretsource.backends.vault import *; VaultBackend('https://vault.test', auth={auth}); "
    assert run(code + _LOADED) == "[]"


def test_a_bare_store_that_is_only_constructed_imports_no_client() -> None:
    code = "import sys; from secretsource.backends.vault import *; VaultBackend(); "
    assert run(code + _LOADED) == "[]"


def test_a_store_that_reads_imports_nothing_of_aws() -> None:
    with Scripted() as server:
        code = (
            "import sys; from secretsource import *; from secretsource.backends.vault import *; "
            f"backend = VaultBackend({server.address!r}, auth=ViaAgent()); "
            "source = CredentialsSource('vault://kv/prod/pos', stores={'vault': backend}); "
            f"assert source.current().client_secret.reveal() == {CLIENT_SECRET!r}; "
        )
        assert run(code + _LOADED) == "['hvac', 'requests']"


# --- where a request goes


class Recorder(VaultTransport):
    """Sends nothing, and keeps the path as it would go out."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []

    def send(self, outgoing: Outgoing, deadline: Deadline, *, phase: str) -> Answer:
        self.paths.append(httpx.URL(outgoing.url).raw_path.decode("ascii").partition("?")[0])
        return Answer(204, {}, b"")


def sent(action: Action) -> list[str]:
    """The parts of the path of the one request, decoded as a server decodes them."""
    recorder = Recorder()
    call(
        action,
        address="https://vault.test",
        transport=recorder,
        token=None,
        namespace=None,
        deadline=Deadline(10),
    )
    (path,) = recorder.paths
    return [unquote(part) for part in path.split("/")]


_NASTY = st.sampled_from(
    [
        "..",
        ".",
        "%2e%2e",
        "%2E.",
        "%252e%252e",
        "%2F",
        "/",
        "//",
        "\\",
        "%5c",
        "a",
        "data",
        "sys",
        "%00",
        "%0a",
        "?",
        ";",
    ]
)
_RAW = st.lists(st.one_of(_NASTY, st.text(max_size=4)), min_size=1, max_size=6).map("".join)


@pytest.mark.parametrize(
    "login",
    [
        StaticToken,
        lambda pasted: AppRole("role", pasted),
        lambda pasted: Jwt("role", pasted),
        lambda pasted: Kubernetes("role", jwt=pasted),
        lambda pasted: VaultBackend("https://vault.example.com", auth=pasted),
    ],
)
@pytest.mark.parametrize("pasted", ["hvs.not-a-real-token", "s.not:a-real-token"])
def test_a_secret_pasted_where_a_login_belongs_is_in_no_frame(login: Callable[[str], object], pasted: str) -> None:
    shown = ""
    try:
        login(pasted)
    except ConfigurationError as error:
        step = error.__traceback__
        while step is not None and step.tb_frame.f_globals["__name__"] == __name__:
            step = step.tb_next  # this test's own frames have it
        ours = error.with_traceback(step)
        shown = "".join(traceback.TracebackException.from_exception(ours, capture_locals=True).format())
    assert "/secretsource/" in shown
    assert pasted not in shown


@settings(max_examples=400, deadline=None)
@given(raw=_RAW, kind=st.sampled_from(["1", "2", "raw"]))
def test_no_path_of_a_reference_leads_out_of_its_mount(raw: str, kind: str) -> None:
    try:
        reference = SecretReference.parse(f"vault://kv/{raw}".partition("#")[0].partition("?")[0] + f"?kv={kind}")
        place = place_of(reference)
    except ConfigurationError:
        return
    inner = ["data"] if kind == "2" else []
    assert sent(reading(place)) == ["", "v1", "kv", *inner, *reference.segments[1:]]
    assert sent(preflight(reference)) == ["", "v1", "sys", "internal", "ui", "mounts", *reference.segments]
    if kind == "2":
        assert sent(writing(place, {}, 0)) == ["", "v1", "kv", "data", *reference.segments[1:]]


@settings(max_examples=300, deadline=None)
@given(mount=_RAW, kind=st.sampled_from(["1", "2", "raw"]))
def test_no_mount_of_a_reference_leads_elsewhere(mount: str, kind: str) -> None:
    reference = SecretReference("vault", ("prod", "pos"), options=(("kv", kind), ("mount", mount)))
    try:
        place = place_of(reference)
    except ConfigurationError:
        return
    parts = mount.strip("/").split("/")
    assert not {"", ".", ".."} & set(parts)
    inner = ["data"] if kind == "2" else []
    assert sent(reading(place)) == ["", "v1", *parts, *inner, "prod", "pos"]
