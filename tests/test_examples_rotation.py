"""The schedules of examples/rotation: their syntax, and that the commands in them do what they say."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secretsource.config import Settings, loaded, located
from secretsource.rotation import Policy
from secretsource.rotation.issuers import adapter_called

from .cli import called
from .cli.shops import Shop

EXAMPLES = Path(__file__).parents[1] / "examples" / "rotation"
COMMAND = "rotate run --all --env production --waiting-ok"


def text(name: str) -> str:
    return (EXAMPLES / name).read_text()


def unit(name: str) -> configparser.ConfigParser:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment, method-assign]
    read.read_string(text(name))
    return read


def documents(name: str) -> list[Any]:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all(text(name)))


def cron_line() -> re.Match[str]:
    """Its one line: when, who, what."""
    found = re.findall(r"^\d.*$", text("pos.cron"), re.M)
    assert len(found) == 1
    line = re.fullmatch(r"(\S+ \S+ \S+ \S+ \S+) (\S+) (.+)", found[0])
    assert line is not None
    return line


def commands() -> dict[str, list[str]]:
    """The words of each command line, from the program on."""
    cron = re.search(r"\$\((.*) 2>&1\)", cron_line()[3])
    workflow = re.search(r"- run: (secretsource .*)", text("github-actions.yaml"))
    pod = re.search(r"command: \[(.*)\]", text("cronjob.yaml"))
    assert cron
    assert workflow
    assert pod
    return {
        "cron": shlex.split(cron[1]),
        "systemd": shlex.split(unit("pos-rotation.service")["Service"]["ExecStart"].replace("%S", "/var/lib")),
        "pod": pod[1].split(", "),
        "workflow": shlex.split(workflow[1]),
    }


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    with Shop(tmp_path).open() as shop:
        for client in ("pos", "stock"):
            shop.add(client)
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("SECRETSOURCE_ENV", raising=False)
        monkeypatch.setenv("SECRETSOURCE_CONFIG", str(shop.configured(rotation='every = "1ms"')))
        yield shop


@pytest.mark.parametrize("where", ["cron", "systemd", "pod", "workflow"])
def test_each_command_changes_what_is_due_in_production_and_asks_nothing(shop: Shop, where: str) -> None:
    program, *words = commands()[where]
    assert Path(program).name == "secretsource"
    assert " ".join(words).startswith(COMMAND)
    if "--audit" in words:
        words[words.index("--audit") + 1] = str(shop.folder / "audit.jsonl")
    assert shop.looked_through(called(*words)).code == 0
    assert shop.changes == ["pos", "stock"]
    assert called(*words).code == 0
    assert shop.changes == ["pos", "stock"]
    assert (shop.folder / "audit.jsonl").exists() == ("--audit" in words)


@pytest.mark.parametrize("example", sorted(EXAMPLES.iterdir()), ids=lambda path: str(path.name))
def test_each_says_at_its_top_what_it_needs(example: Path) -> None:
    assert "Needs:" in example.read_text()[:400]


# --- cron


def test_cron_runs_it_once_an_hour_by_a_user_of_its_own() -> None:
    when, user, what = cron_line().groups()
    assert when == "17 * * * *"
    assert user == "pos-rotator"
    assert not re.search(r"(?<!\\)%", what)  # which cron takes for a line end
    assert text("pos.cron").endswith("\n")


@pytest.mark.parametrize(("code", "mail"), [(0, ""), (14, "something is wrong\n")])
def test_cron_mails_only_where_something_is_wrong(tmp_path: Path, code: int, mail: str) -> None:
    program = tmp_path / "secretsource"
    program.write_text(f"#!/bin/sh\necho something is wrong >&2\nexit {code}\n")
    program.chmod(0o700)
    what = cron_line()[3].replace("\\%", "%").replace("/opt/pos/bin/secretsource", str(program))
    done = subprocess.run(["/bin/sh", "-c", what], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (mail, "")


# --- systemd


def test_the_timer_starts_the_service_every_hour_also_after_a_night_off() -> None:
    timer = unit("pos-rotation.timer")
    assert dict(timer["Timer"]) == {"OnCalendar": "hourly", "RandomizedDelaySec": "10m", "Persistent": "yes"}
    assert timer["Install"]["WantedBy"] == "timers.target"
    service = unit("pos-rotation.service")["Service"]
    assert service["Type"] == "oneshot"
    assert service["Environment"] == "SECRETSOURCE_CONFIG=/etc/pos/secretsource.toml"


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    for name in ("pos-rotation.service", "pos-rotation.timer"):
        (tmp_path / name).write_text(text(name).replace("/opt/pos/bin/secretsource", "/bin/true"))
    units = [str(tmp_path / "pos-rotation.service"), str(tmp_path / "pos-rotation.timer")]
    done = subprocess.run(
        [analyze, "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False
    )
    assert [line for line in done.stderr.splitlines() if "pos-rotation" in line] == []


# --- Kubernetes


def test_the_jobs_of_the_pod_do_not_overlap_and_are_not_repeated() -> None:
    account, job = documents("cronjob.yaml")
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 3600
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert pod["restartPolicy"] == "Never"
    assert account["metadata"]["namespace"] == job["metadata"]["namespace"]


def test_the_pod_has_the_configuration_and_the_token_where_they_are_looked_for() -> None:
    (_, job) = documents("cronjob.yaml")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounted = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounted)
    assert container["env"] == [
        {"name": "SECRETSOURCE_CONFIG", "value": f"{mounted['configuration']}/secretsource.toml"}
    ]
    assert f'jwt = "{mounted["vault-token"]}/token"' in text("secretsource.toml")
    assert 'role = "pos-rotator"' in text("secretsource.toml")


# --- GitHub Actions


def test_the_workflow_runs_alone_and_has_no_secret() -> None:
    (workflow,) = documents("github-actions.yaml")
    assert workflow[True]["schedule"] == [{"cron": "17 * * * *"}]  # YAML 1.1 takes "on" for true
    assert workflow["permissions"] == {"contents": "read", "id-token": "write"}
    assert workflow["concurrency"] == {"group": "rotation", "cancel-in-progress": False}
    assert "secrets." not in text("github-actions.yaml")
    steps = workflow["jobs"]["rotate"]["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)


# --- the configuration


@pytest.mark.parametrize(("client", "every"), [("pos", 90), ("stock", 30)])
def test_the_configuration_holds_and_its_adapter_can_be_made(client: str, every: int) -> None:
    settings: Settings = loaded(located(EXAMPLES / "secretsource.toml")).settings(client, "production")
    said = settings.rotation
    assert settings.get("credentials") == f"vault://kv/production/{client}"
    policy = Policy(**{name: value for name, value in said.items() if name not in ("adapter", "settings")})
    assert policy.every == every * 86400
    assert policy.wait is not None
    assert policy.wait >= 300 * 1.1 + 60
    adapter = adapter_called(said["adapter"], said["settings"], stores=settings.stores, production=True)
    assert adapter.capabilities.chosen
    assert settings.stores is not None
    assert settings.stores["vault"].ttl == 300
