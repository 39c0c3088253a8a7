"""The examples run as they stand: only the site's address and the platform's folders are put in their place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from secretsource import TokenSource
from secretsource.testing import secret_file

from .sites import Site

EXAMPLES = Path(__file__).parents[1] / "examples"
SECRET = "not-a-real-secret"


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        site.add_client("pos", SECRET)
        yield site


def run(program: str, site: Site, **variables: str) -> str:
    environment = {"PATH": os.environ["PATH"], "POS_URL": site.url, **variables}
    done = subprocess.run(
        [sys.executable, EXAMPLES / program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings(file: str, pattern: str) -> dict[str, str]:
    """The variables that a deployment file sets."""
    return dict(re.findall(pattern, (EXAMPLES / file).read_text(), re.M))


def test_the_sync_client_prints_orders_from_a_file(site: Site, tmp_path: Path) -> None:
    reference = secret_file(tmp_path / "pos", "pos", SECRET, issuer=site.url)
    assert run("pos_graphql.py", site, POS_CREDENTIALS=reference) == "A-1001 18.50\nA-1002 7.20\n"


def test_the_async_client_asks_twenty_times_with_one_token(site: Site) -> None:
    printed = run("pos_graphql_async.py", site, POS_CLIENT_ID="pos", POS_CLIENT_SECRET=SECRET)
    assert printed == "20 answers, 2 orders\n"
    assert site.token_requests == 1


def test_the_container_reads_a_variable_and_a_file(site: Site, tmp_path: Path) -> None:
    variables = settings("container/compose.yaml", r"^ +(POS_\w+): (\S+)$")
    assert variables["POS_CLIENT_SECRET_FILE"] == "/run/secrets/pos_client_secret"
    mounted = tmp_path / "pos_client_secret"
    mounted.write_text(SECRET + "\n")
    mounted.chmod(0o644)  # as Docker mounts it
    variables |= {"POS_CLIENT_SECRET_FILE": str(mounted), "POS_URL": site.url}
    assert "A-1001" in run("pos_graphql.py", site, **variables)


def test_the_pod_reads_a_mounted_secret(site: Site, tmp_path: Path) -> None:
    found = re.findall(r"name: (POS_\w+)\n +value: (\S+)", (EXAMPLES / "kubernetes/pos.yaml").read_text())
    reference = dict(found)["POS_CREDENTIALS"]
    state = tmp_path / "..2026_11_24"
    state.mkdir(mode=0o755)
    for name, text in (("client_id", "pos"), ("client_secret", SECRET)):
        (state / name).write_text(text)
        (state / name).chmod(0o440)
        (tmp_path / name).symlink_to(f"..data/{name}")
    (tmp_path / "..data").symlink_to(state.name)
    reference = reference.replace("/run/secrets/pos/", f"{tmp_path}/")
    assert "A-1001" in run("pos_graphql.py", site, POS_CREDENTIALS=reference)


def test_the_unit_reads_a_credential_of_systemd(site: Site, tmp_path: Path) -> None:
    variables = settings("systemd/pos.service", r"^Environment=(POS_\w+)=(\S+)$")
    credential = tmp_path / "pos.json"
    credential.write_text(f'{{"client_id": "pos", "client_secret": "{SECRET}", "issuer": "{site.url}"}}')
    credential.chmod(0o400)
    variables |= {"CREDENTIALS_DIRECTORY": str(tmp_path), "POS_URL": site.url}
    assert "A-1001" in run("pos_graphql.py", site, **variables)


def configured(site: Site, folder: Path) -> Path:
    """The example's configuration, whose issuers are all this site."""
    text = (EXAMPLES / "environments/secretsource.toml").read_text()
    path = folder / "secretsource.toml"
    path.write_text(re.sub(r'^issuer = "[^"]*"', f'issuer = "{site.url}"', text, flags=re.M))
    return path


@pytest.mark.parametrize("environment", ["development", "staging"])
def test_one_program_runs_in_several_environments(site: Site, tmp_path: Path, environment: str) -> None:
    secret_file(tmp_path / "secrets", "pos", SECRET, environment="development")
    variables = {"POS_CLIENT_ID": "pos", "POS_CLIENT_SECRET": SECRET}
    variables |= {"SECRETSOURCE_ENV": environment, "SECRETSOURCE_CONFIG": str(configured(site, tmp_path))}
    assert run("environments/orders.py", site, **variables) == "A-1001 18.50\nA-1002 7.20\n"


def test_its_production_logs_in_to_vault_with_a_service_account() -> None:
    source = TokenSource.from_config("pos", "production", path=EXAMPLES / "environments/secretsource.toml")
    assert source.name == "vault://kv/production/pos"
    source.close()


def test_its_configuration_is_short() -> None:
    lines = (EXAMPLES / "environments/secretsource.toml").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith("#")]) < 25


def test_the_plug_in_is_found_by_its_name_once_installed(site: Site, tmp_path: Path) -> None:
    # As pip would put it there: its package, and its entry point in a .dist-info folder.
    shutil.copytree(EXAMPLES / "plugin/src/secretsource_sqlite", tmp_path / "secretsource_sqlite")
    project = (EXAMPLES / "plugin/pyproject.toml").read_text()
    entry = re.search(r'^sqlite = "(\S+)"$', project, re.M)
    assert entry is not None
    info = tmp_path / "secretsource_sqlite-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: secretsource-sqlite\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[secretsource.backends]\nsqlite = {entry[1]}\n")
    database = tmp_path / "credentials.db"
    script = (
        "import sqlite3, sys; database = sqlite3.connect(sys.argv[1]); "
        "database.execute('CREATE TABLE credentials (name, version, client_id, client_secret, "
        "client_secret_pending, client_secret_previous)'); "
        "database.execute('INSERT INTO credentials VALUES (?, 1, ?, ?, NULL, NULL)', ['pos', 'pos', sys.argv[2]]); "
        "database.commit()"
    )
    subprocess.run([sys.executable, "-c", script, database, SECRET], check=True, timeout=60)
    reference = f"sqlite://pos?database={database}"
    assert "A-1001" in run("pos_graphql.py", site, POS_CREDENTIALS=reference, PYTHONPATH=str(tmp_path))


def test_the_plug_in_passes_the_contract_of_backends(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES / "plugin/src")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "plugin/tests")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout[-3000:]


# The Dockerfile and the plug-in's package are parts of examples that say it elsewhere.
WITH_A_TOP = [
    path
    for path in sorted(EXAMPLES.rglob("*.*"))
    if path.suffix in (".py", ".yaml", ".service", ".toml") and "src" not in path.parts
]


@pytest.mark.parametrize("example", WITH_A_TOP, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_each_example_says_at_its_top_what_it_needs(example: Path) -> None:
    assert "Needs:" in example.read_text()[:400]
