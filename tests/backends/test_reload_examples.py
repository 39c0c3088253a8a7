"""The examples of programs that are told of a change run as they stand: by signal, directory, agent and event."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from secretsource.testing import secret_file

from ..sites import Site
from ..stores import eventually
from .openbao import Corner
from .secrets_manager import ACCESS_KEY, REGION, SECRET_KEY, moto_server

EXAMPLES = Path(__file__).parents[2] / "examples" / "reload"
OLD, NEW = "not-a-real-secret-old", "not-a-real-secret-new"


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        site.add_client("pos", OLD)
        yield site


class Program:
    """A running example, and what it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def says(self, text: str, times: int = 1) -> None:
        eventually(lambda: sum(text in line for line in list(self.lines)) >= times or self.process.poll() is not None)
        assert sum(text in line for line in self.lines) >= times, "".join(self.lines)

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait(30)
            self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()


@contextmanager
def running(name: str, site: Site, **variables: str) -> Iterator[Program]:
    environment = {"PATH": os.environ["PATH"], "POS_URL": site.url, "POS_PAUSE": "0.2", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(EXAMPLES / name)]
    process = subprocess.Popen(
        command, env={**environment, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    program = Program(process)
    try:
        program.says("ready")
        program.says("2 orders")
        yield program
    finally:
        program.end()
    assert process.returncode == 0, "".join(program.lines)


def change(reference: str, issuer: str) -> None:
    """As others do it: a new file, renamed."""
    path = Path(reference.removeprefix("file://"))
    new = path.with_suffix(".new")
    new.write_text(
        json.dumps({"client_id": "pos", "client_secret": OLD, "client_secret_pending": NEW, "issuer": issuer})
    )
    new.chmod(0o600)
    new.replace(path)


def test_a_change_of_the_directory_is_noticed_each_time(site: Site, tmp_path: Path) -> None:
    reference = secret_file(tmp_path / "pos", "pos", OLD, issuer=site.url)
    with running("pos_told.py", site, POS_CREDENTIALS=reference) as program:
        change(reference, site.url)
        program.says("CredentialsChanged")
        secret_file(tmp_path / "pos", "pos", OLD, issuer=site.url)
        program.says("CredentialsChanged", times=2)


def test_a_signal_has_the_store_read(site: Site, tmp_path: Path) -> None:
    reference = secret_file(tmp_path / "pos", "pos", OLD, issuer=site.url)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    link = f"file://{elsewhere}/oauth.json"
    (elsewhere / "oauth.json").symlink_to(reference.removeprefix("file://"))  # its own directory does not change
    with running("pos_told.py", site, POS_CREDENTIALS=link) as program:
        change(reference, site.url)
        program.process.send_signal(signal.SIGHUP)
        program.says("CredentialsChanged")


def test_an_agent_renders_all_three_secrets_and_tells_the_program(corner: Corner, site: Site, tmp_path: Path) -> None:
    """A real agent with the file as it stands, but for addresses, folders and the program that it signals."""
    mount = corner.kv()
    corner.secret(mount, "prod/pos", OLD, issuer=site.url, client_secret_pending=NEW)
    role = corner.role(corner.policy(f"{mount}/data/prod/pos"))
    told, role_id = tmp_path / "told", corner.write(tmp_path / "role-id", role.role_id)
    text = (EXAMPLES / "agent.hcl").read_text()
    for written, ours in {
        "https://vault.example.com": corner.server.address,
        '"approle"': f'"approle"\n    mount_path = "auth/{role.mount}"',
        "/etc/pos/role-id": str(role_id),
        "/etc/pos/secret-id": str(role.file),
        "kv/data/prod/pos": f"{mount}/data/prod/pos",
        "/run/pos/oauth.json": str(tmp_path / "oauth.json"),
        '"pkill", "-HUP", "-f", "pos_told.py"': f'"touch", "{told}"',
    }.items():
        assert written in text
        text = text.replace(written, ours)
    (tmp_path / "agent.hcl").write_text(text)
    with corner.server.agent(tmp_path / "agent.hcl"):
        eventually(told.exists)
    rendered: dict[str, Any] = json.loads((tmp_path / "oauth.json").read_text())
    assert (rendered["client_secret"], rendered["client_secret_pending"]) == (OLD, NEW)
    assert (tmp_path / "oauth.json").stat().st_mode & 0o777 == 0o600


def test_an_event_in_the_queue_has_the_store_read(site: Site) -> None:
    with moto_server() as moto:
        name = moto.create({"client_id": "pos", "client_secret": OLD, "issuer": site.url})
        sqs = boto3.client(
            "sqs",
            region_name=REGION,
            endpoint_url=moto.url,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        queue = sqs.create_queue(QueueName="pos")["QueueUrl"]
        variables = {
            "POS_QUEUE": queue,
            "POS_CREDENTIALS": f"aws://{name}",
            "POS_AWS_ENDPOINT": moto.url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        with running("pos_events.py", site, **variables) as program:
            moto.put(name, {"client_id": "pos", "client_secret": OLD, "issuer": site.url, "more": "x"}, "AWSPENDING")
            moto.put(name, {"client_id": "pos", "client_secret": NEW, "issuer": site.url}, "AWSPENDING")
            sqs.send_message(QueueUrl=queue, MessageBody=json.dumps({"detail": {"eventName": "PutSecretValue"}}))
            program.says("CredentialsChanged")


def test_the_pattern_of_the_rule_is_one_for_both_calls_of_a_rotation() -> None:
    pattern = json.loads((EXAMPLES / "events.json").read_text())
    assert set(pattern["detail"]["eventName"]) == {"PutSecretValue", "UpdateSecretVersionStage"}
    assert all(isinstance(value, list) for value in (pattern["source"], pattern["detail-type"]))
