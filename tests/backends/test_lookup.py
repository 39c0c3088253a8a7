"""Which backend a reference means: a configured one, a built-in one, or a plug-in's."""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from secretsource.backends import Backend, Writable, backend_for, known_backends
from secretsource.backends.env import EnvBackend
from secretsource.credentials import Document
from secretsource.errors import ConfigurationError, SecretSourceError
from secretsource.reference import BUILT_IN_STORES, SecretReference

SHOP = """
from secretsource.credentials import Document

class ShopBackend:
    options = frozenset({"till"})
    ttl = 60.0

    def read(self, reference, *, fresh, timeout):
        return Document({"client_id": "pos", "client_secret": reference.path})
"""

_numbers = itertools.count(1)


class Fixed:
    """A backend as somebody may give it by stores=."""

    options: frozenset[str] = frozenset()
    ttl: float | None = None

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        return Document("fixed")


class Install(Protocol):
    def __call__(
        self, source: str, *, store: str, distribution: str = "shop", attribute: str = "ShopBackend"
    ) -> str: ...


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a module and the metadata of an installed distribution on the path; gives the module's name."""
    monkeypatch.syspath_prepend(tmp_path)
    modules = []

    def put(source: str, *, store: str, distribution: str = "shop", attribute: str = "ShopBackend") -> str:
        module = f"secretsource_test_plug_in_{next(_numbers)}"
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(source)
        metadata = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (metadata / "entry_points.txt").write_text(f"[secretsource.backends]\n{store} = {module}:{attribute}\n")
        importlib.invalidate_caches()
        return module

    yield put
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def store() -> str:
    """A name of its own for each test: a process keeps what it has found."""
    return f"shop-{next(_numbers)}"


def lookup(text: str, stores: dict[str, Backend] | None = None) -> Backend:
    return backend_for(SecretReference.parse(text), stores)


def refused(text: str, stores: dict[str, Backend] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        lookup(text, stores)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    return str(caught.value)


def test_a_built_in_store_needs_no_configuration_and_is_one_for_the_process() -> None:
    assert type(lookup("env:POS")) is EnvBackend
    assert lookup("env:POS") is lookup("env:STOCK")


@pytest.mark.parametrize("name", BUILT_IN_STORES)
def test_every_built_in_store_is_a_backend(name: str) -> None:
    assert isinstance(lookup(f"{name}:POS"), Backend)


def test_a_file_can_be_written_and_the_environment_cannot() -> None:
    assert isinstance(lookup("file:pos.json"), Writable)
    assert not isinstance(lookup("env:POS"), Writable)


@pytest.mark.parametrize("name", ["env", "vault", "vault-eu"])
def test_a_configured_store_wins_under_any_name(name: str) -> None:
    fixed = Fixed()
    assert lookup(f"{name}://POS", {name: fixed, "other": Fixed()}) is fixed


def test_a_configured_store_wins_also_if_it_looks_empty() -> None:
    class Empty(Fixed):
        def __len__(self) -> int:
            return 0

    empty = Empty()
    assert lookup("env:POS", {"env": empty}) is empty


def test_a_configured_store_is_known_to_its_source_alone() -> None:
    lookup("env:POS", {"env": Fixed()})
    assert type(lookup("env:POS")) is EnvBackend


def test_what_is_no_backend_is_refused() -> None:
    text = refused("vault-eu:POS", {"vault-eu": "https://vault.example.com"})  # type: ignore[dict-item]
    assert "the store 'vault-eu' is a str, which is no Backend" in text


def test_an_option_that_the_store_does_not_take_is_refused() -> None:
    assert "has no option 'kv'" in refused("env:POS?kv=1")


def test_a_plug_in_is_found_by_its_entry_point_and_built_once(install: Install, store: str) -> None:
    install(SHOP, store=store)
    backend = lookup(f"{store}:prod/pos?till=5")
    document = backend.read(SecretReference.parse(f"{store}:prod/pos"), fresh=False, timeout=1)
    assert document.fields["client_secret"].reveal() == "prod/pos"
    assert lookup(f"{store}:other") is backend


def test_a_plug_in_is_imported_when_a_reference_names_it_and_not_before(install: Install, store: str) -> None:
    module = install(SHOP, store=store)
    lookup("env:POS")
    assert store in {known.name for known in known_backends()}
    refused("nobody:POS")
    assert module not in sys.modules
    lookup(f"{store}:POS")
    assert module in sys.modules


@pytest.mark.parametrize("name", BUILT_IN_STORES)
def test_a_plug_in_cannot_take_a_built_in_name(install: Install, name: str) -> None:
    module = install(SHOP, store=name)
    assert type(lookup(f"{name}:POS")).__module__.startswith("secretsource.backends.")
    assert module not in sys.modules


def test_two_distributions_that_claim_one_name_are_both_listed(install: Install, store: str) -> None:
    modules = [install(SHOP, store=store, distribution=name) for name in ("shop-one", "shop-two")]
    text = refused(f"{store}:POS")
    assert f"the store '{store}' is claimed by 2 distributions: shop-one 1.2, shop-two 1.2" in text
    assert not set(modules) & set(sys.modules)
    fixed = Fixed()
    assert lookup(f"{store}:POS", {store: fixed}) is fixed


def test_a_plug_in_whose_own_dependency_is_missing_names_it(install: Install, store: str) -> None:
    module = install("import no_such_module_at_all", store=store)
    text = refused(f"{store}:POS")
    assert f"the plug-in for the store '{store}' ({module}:ShopBackend of shop 1.2) cannot be used" in text
    assert "the module 'no_such_module_at_all' is missing" in text


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("raise ValueError('s3cr3t')", "ValueError"),
        ("s3cr3t ==", "SyntaxError"),
        ("x = 1", "AttributeError"),
        ("class ShopBackend:\n def __init__(self, s3cr3t): pass", "TypeError"),
    ],
)
def test_a_plug_in_that_cannot_be_imported_or_built_is_an_error_without_its_text(
    install: Install, store: str, source: str, kind: str
) -> None:
    install(source, store=store)
    text = refused(f"{store}:POS")
    assert f"{kind} while it was imported and built" in text
    assert "s3cr3t" not in text


def test_what_a_plug_in_says_in_our_own_errors_is_passed_on(install: Install, store: str) -> None:
    install(
        "from secretsource.errors import ConfigurationError\n"
        "def ShopBackend():\n raise ConfigurationError('SHOP_ADDR is not set', hint='Set it')",
        store=store,
    )
    with pytest.raises(SecretSourceError, match=r"^SHOP_ADDR is not set\. Set it$"):
        lookup(f"{store}:POS")


def test_a_plug_in_that_is_no_backend_is_refused(install: Install, store: str) -> None:
    install("class ShopBackend: pass", store=store)
    assert f"the store '{store}' is a ShopBackend, which is no Backend" in refused(f"{store}:POS")


def test_a_plug_in_that_failed_is_tried_again(install: Install, store: str, tmp_path: Path) -> None:
    module = install("raise ValueError", store=store)
    refused(f"{store}:POS")
    (tmp_path / f"{module}.py").write_text(SHOP + "# mended, and of another length\n")
    importlib.invalidate_caches()
    assert type(lookup(f"{store}:POS")).__name__ == "ShopBackend"


@pytest.mark.parametrize("pasted", ["hunter2:word", "p4ssw0rd://x?y=z#w", "s3cr3t-text:a/b"])
def test_an_unknown_store_never_echoes_the_text(pasted: str) -> None:
    text = refused(pasted, {"vault-eu": Fixed()})
    assert f"{len(str(SecretReference.parse(pasted)))} characters" in text
    assert "Known stores: aws, bao, env, file, systemd, vault, vault-eu" in text
    for part in ("hunter2", "word", "p4ssw0rd", "s3cr3t"):
        assert part not in text


def test_a_store_that_is_nearly_known_is_named() -> None:
    assert "Did you mean 'file'?" in refused("flie:pos.json")
    assert "Did you mean 'vault-eu'?" in refused("vault-ue:pos", {"vault-eu": Fixed()})


def test_known_backends_are_listed_with_where_they_come_from(install: Install, store: str) -> None:
    module = install(SHOP, store=store, distribution="shop-list")
    known = known_backends()
    assert [one.name for one in known[: len(BUILT_IN_STORES)]] == list(BUILT_IN_STORES)
    assert all(one.distribution == "secretsource" for one in known[: len(BUILT_IN_STORES)])
    assert (store, f"{module}:ShopBackend", "shop-list", "1.2") in known


def test_no_backend_is_imported_before_a_reference_names_it() -> None:
    source = (
        "import sys, secretsource.backends as b; b.known_backends(); before = set(sys.modules)\n"
        "from secretsource.reference import SecretReference\n"
        "b.backend_for(SecretReference.parse('env:POS'))\n"
        "print(*sorted(n for n in before | set(sys.modules) if n.startswith('secretsource.backends.')))\n"
        "print(*sorted(n for n in before if n.startswith('secretsource.backends.')))"
    )
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    after, before = ran.stdout.split("\n")[:2]
    assert before == ""
    assert "secretsource.backends.env" in after.split()
    assert "secretsource.backends.systemd" not in after.split()
