"""The shape of the package: one way, few dependencies, the field's words, and nothing of the machine it was made on."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import secretsource

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "secretsource"

# The way. A module imports only from those before it; "x." stands for what x has beside its __init__.
ORDER = [
    name
    for line in (
        "errors durations plugins secret state hardening clock reference events flight credentials urls identity tls",
        "exchange transport",
        "backends backends.layout backends.formats backends.access backends.walk backends.edits backends.replace",
        "backends.env backends.file backends.systemd",
        "backends.aws.place backends.aws.faults backends.aws.wire backends.aws.calls backends.aws.labels",
        "backends.aws.change backends.aws.staging",
        "backends.vault.answers backends.vault.wire backends.vault.iam backends.vault.logins backends.vault.tokens",
        "backends.vault.kv backends.vault.visit backends.vault.rotating backends.vault.variables backends.vault",
        "backends.aws",
        "resolve token endpoint answer discovery rounds circuit fetch renewal shared",
        "config.tables config.pasted config.stores config.settings config.layers config.file config source",
        "auth auth.challenge auth.httpx auth.",
        "rotation.policy rotation.generate rotation.outcome rotation.issuers.admin rotation.issuers.",
        "rotation.issuers rotation.hooks rotation.hearsay rotation.decision rotation.probe rotation.parties",
        "rotation.plan rotation.recollection rotation.run",
        "rotation.engine rotation",
        "rotation.",
        "testing.clock testing.faults testing.files testing.loopback testing.issuer testing.static testing.contract",
        "testing.fixtures testing",
        "cli.screen cli cli.options cli.check cli.put cli.",
        "__main__",
    )
    for name in line.split()
]

# Who may import what is not in the standard library.
THIRD_PARTY = {
    "httpx": ("transport", "auth.", "testing.", "cli.demo"),
    "httpx2": ("transport", "auth.", "testing.", "cli.demo"),
    "certifi": ("tls",),
    "cachetools": ("source",),
    "hvac": ("backends.vault.",),
    "boto3": ("backends.aws.",),
    "botocore": ("backends.aws.", "backends.vault.iam"),
    "rich": ("cli.",),
    "pytest": ("testing.",),
}
READS_THE_ENVIRONMENT = ("backends.", "transport", "shared", "config.", "rotation.", "cli.")
FORBIDDEN = {"manager", "provider", "handler", "util", "utils", "helper", "helpers", "core", "context"}
TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "secretsource", "tests", "examples"}


def module_name(path: Path) -> str:
    """`auth.httpx` for secretsource/auth/httpx.py, `auth` for its __init__, "" for the package's own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in SOURCES.items()}
MODULES = [name for name in SOURCES if name]


def is_one_of(module: str, names: tuple[str, ...]) -> bool:
    """Whether it is named, or is or lies in a package that is named with a dot behind."""
    return any(module == name.rstrip(".") or (name.endswith(".") and module.startswith(name)) for name in names)


class Import(NamedTuple):
    line: int
    ours: bool
    name: str


def imports_of(module: str) -> Iterator[Import]:
    """Every import statement in it, also those in functions; ours by their name inside the package."""
    package = SOURCES[module].parent.relative_to(ROOT).parts
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield resolved(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from . import check` means the module of that name, where there is one.
                inner = f"{base}.{alias.name}"
                is_module = inner.removeprefix("secretsource.") in SOURCES and inner != base
                yield resolved(node.lineno, inner if is_module else base)


def resolved(line: int, name: str) -> Import:
    top, _, inner = name.partition(".")
    return Import(line, True, inner) if top == "secretsource" else Import(line, False, top)


def place(module: str) -> int:
    package = module.partition(".")[0] + "."
    if module in ORDER:
        return ORDER.index(module)
    assert package in ORDER, f"{module} has no place in the order of the way: give it one in ORDER"
    return ORDER.index(package)


# --- the way


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_those_before_it(module: str) -> None:
    wrong = [
        f"line {line} imports {name or 'the package'}"
        for line, ours, name in imports_of(module)
        if ours and name and name != module and place(name) > place(module)
    ]
    assert wrong == []


def test_modules_without_a_place_of_their_own_do_not_import_each_other_in_a_ring() -> None:
    ours = {module: {name for _, ours, name in imports_of(module) if ours and name in SOURCES} for module in MODULES}
    left = set(MODULES)
    while free := {module for module in left if not (ours[module] - {module}) & left}:
        left -= free
    assert left == set()


@pytest.mark.parametrize("module", MODULES)
def test_only_the_demo_imports_testing_and_only_main_imports_the_command_line(module: str) -> None:
    for line, ours, name in imports_of(module):
        if ours and name.partition(".")[0] == "testing":
            assert module.startswith("testing") or module == "cli.demo", f"line {line}"
        if ours and name.partition(".")[0] == "cli":
            assert module.startswith("cli") or module == "__main__", f"line {line}"


@pytest.mark.parametrize("module", MODULES)
def test_third_parties_are_imported_only_where_they_belong(module: str) -> None:
    wrong = [
        f"line {line} imports {name}"
        for line, ours, name in imports_of(module)
        if not ours and name not in sys.stdlib_module_names and not is_one_of(module, THIRD_PARTY.get(name, ()))
    ]
    assert wrong == []


def test_the_package_itself_imports_nothing_but_the_standard_library() -> None:
    outside_type_checking = [
        node
        for node in TREES[""].body
        if isinstance(node, (ast.Import, ast.ImportFrom)) and (node.level if isinstance(node, ast.ImportFrom) else 0)
    ]
    assert outside_type_checking == []
    assert {name for _, ours, name in imports_of("") if not ours} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", MODULES)
def test_the_environment_is_read_only_where_that_is_said(module: str) -> None:
    reads = [
        node.lineno
        for node in ast.walk(TREES[module])
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "getenvb"))
        or (isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & {"environ", "getenv"})
    ]
    assert is_one_of(module, READS_THE_ENVIRONMENT) or reads == []


# --- the words


def words(name: str) -> set[str]:
    """The words of a name: `TokenHTTPCache` and `token_http_cache` have the same three."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


@pytest.mark.parametrize("module", MODULES)
def test_names_of_modules_classes_and_functions_use_the_words_of_the_field(module: str) -> None:
    defined = [
        node.name
        for node in ast.walk(TREES[module])
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    ours = [name for name in [module, *defined] if name != "lambda_handler"]  # AWS's own name for what it calls
    assert [name for name in ours if words(name) & FORBIDDEN] == []


def test_the_words_of_a_name_are_found() -> None:
    assert words("_TokenHTTPHandler2") == {"token", "http", "handler"}
    assert words("ssl_context_of") == {"ssl", "context", "of"}
    assert words("HandlesCore") & FORBIDDEN == {"core"}
    assert words("contextual") & FORBIDDEN == set()


# --- what is public

SOURCE_PARAMETERS = (
    "credentials issuer token_url client_id scope audience resource extra auth_method profile stores timeout leeway "
    "refresh_ahead default_lifetime max_stale denied_grace ca_file proxy plain_http on_event clock"
)
MEMBERS = {
    "source.TokenSource": "token atoken invalidate reload verify averify status close from_config "
    "__enter__ __exit__ __aenter__ __aexit__",
    "resolve.CredentialsSource": "current acurrent reload",
    "token.Token": "access_token authorization expires_at expires_in scopes token_type",
    "credentials.ClientCredentials": "client_id client_secret version pending previous",
    "credentials.Document": "fields version created valid_for pending previous",
    "secret.Secret": "reveal",
    "reference.SecretReference": "parse",
    "backends.Backend": "read options ttl",
    "backends.Writable": "read options ttl",
    "auth.httpx.TokenAuth": "",
    "endpoint.IssuerProfile": "basic_encoding endpoint_hosts token_type_missing rejected lockout",
    "backends.env.EnvBackend": "read options ttl",
    "backends.file.FileBackend": "read options ttl",
    "testing.FakeIssuer": "",
    "testing.BackendContract": "",
    "testing.TickingClock": "",
    "testing.static_source": "",
}
PARAMETERS = {
    "source.TokenSource": SOURCE_PARAMETERS,
    "source.TokenSource.token": "request",
    "source.TokenSource.atoken": "request",
    "source.TokenSource.invalidate": "token",
    "resolve.CredentialsSource": "reference stores client_id on_event",
    "credentials.ClientCredentials": "client_id client_secret version pending previous",
    "credentials.Document": "fields version created valid_for pending previous",
    "backends.Backend.read": "reference fresh timeout",
    "backends.env.EnvBackend": "environ",
    "backends.file.FileBackend": "root access owners",
    "auth.httpx.TokenAuth": "source origins request",
}
FACTS = {
    "SecretSourceError": "retryable retry_after hint occurred_at",
    "ConfigurationError": "hint",
    "BackendError": "reference store status request_id",
    "TokenError": "error status vendor_code request_id issuer auth_method",
    "CredentialsRejected": "retry_after",
    "DeadlineExceeded": "phase",
}


def public(path: str) -> Any:
    """What stands at this path, once its module exists."""
    parts = path.split(".")
    module = next((parts[:count] for count in range(len(parts), 0, -1) if ".".join(parts[:count]) in SOURCES), None)
    if module is None:
        pytest.skip(f"{path}: there is no such module yet")
    found: Any = importlib.import_module(".".join(["secretsource", *module]))
    for name in parts[len(module) :]:
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("path", MEMBERS)
def test_every_public_name_of_the_design_is_there_with_its_members(path: str) -> None:
    found = public(path)
    missing = [name for name in MEMBERS[path].split() if not hasattr(found, name)]
    assert missing == []


@pytest.mark.parametrize("path", PARAMETERS)
def test_it_takes_the_parameters_of_the_design(path: str) -> None:
    parameters = inspect.signature(public(path)).parameters
    assert [name for name in PARAMETERS[path].split() if name not in parameters] == []


def test_a_request_may_carry_what_the_design_says() -> None:
    carried = public("source.TokenRequest").__annotations__
    assert set(carried) == {"scope", "audience", "resource", "extra", "timeout", "force"}


def test_a_source_takes_nothing_but_its_credentials_by_position() -> None:
    parameters = inspect.signature(public("source.TokenSource")).parameters.values()
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert [one.name for one in parameters if one.kind in by_position] == ["credentials"]


@pytest.mark.parametrize("name", FACTS)
def test_an_error_carries_the_facts_of_the_design(name: str) -> None:
    error = getattr(secretsource, name)("message")
    assert [fact for fact in FACTS[name].split() if not hasattr(error, fact)] == []


def test_a_configuration_makes_sources_once_there_are_configurations() -> None:
    public("config")
    assert hasattr(public("source.TokenSource"), "from_config")


@pytest.mark.parametrize("name", secretsource.__all__)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(secretsource, name).__name__ == name
    assert name in dir(secretsource)


def test_public_names_are_known_to_type_checkers_too() -> None:
    for node in ast.walk(TREES[""]):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            ours = [one for one in node.body if isinstance(one, ast.ImportFrom) and one.level]
            assert {alias.asname for one in ours for alias in one.names} == set(secretsource.__all__)
            assert set(secretsource._HOME_OF) == set(secretsource.__all__)
            return
    pytest.fail("there is no TYPE_CHECKING block")


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'TokenManager'"):
        _ = secretsource.TokenManager


def test_importing_the_package_imports_nothing_that_costs() -> None:
    costly = ["httpx", "httpx2", "hvac", "boto3", "cachetools", "asyncio", "logging"]
    source = (
        "import sys; before = set(sys.modules); import secretsource\n"
        f"print(*[name for name in {costly} if name in set(sys.modules) - before])\n"
        "print(*[name for name in sys.modules if name.startswith('secretsource.')])"
    )
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "\n\n"


# --- the repository


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """What git keeps, or would."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            timeout=60,
            check=True,
        ).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git, and a checkout")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_nothing_else_stands_at_the_top(files: list[Path]) -> None:
    top = {path.relative_to(ROOT).parts[0] for path in files}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL


def test_no_path_of_this_machine_is_written_down(files: list[Path]) -> None:
    ours = {f"{path}/" for path in (ROOT, ROOT.parent, Path.home(), Path(sys.prefix), Path(sys.base_prefix))} - {"//"}
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in files}
    assert [(str(path), ours_here) for path, text in texts.items() for ours_here in ours if ours_here in text] == []


REGISTRY = re.compile(
    r"https?://[^/\s\"']*(?:pythonhosted|npmjs|artifactory|nexus|mirror)[^/\s\"']*"
    r"|https?://[^\s\"']*/simple\b"
    r"|\"resolved\": *\"https?:"
    r"|--(?:extra-)?index-url\b|--registry\b|--find-links\b"
)


def test_no_registry_of_packages_is_written_down(files: list[Path]) -> None:
    own = Path(__file__).resolve()
    found = {
        str(path): match[0]
        for path in files
        if path != own and (match := REGISTRY.search(path.read_text(encoding="utf-8", errors="replace")))
    }
    assert found == {}
