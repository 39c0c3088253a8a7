"""The example runs as it stands, and its policies allow what the backend does and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..sites import Site
from .secrets_manager import ACCESS_KEY, REGION, SECRET_KEY, moto_server

EXAMPLE = Path(__file__).parents[2] / "examples/aws"
SECRET = "not-a-real-secret"


def test_the_program_asks_its_site_with_a_secret_from_secrets_manager() -> None:
    with Site() as site, moto_server() as moto:
        site.add_client("pos", SECRET)
        name = moto.create({"client_id": "pos", "client_secret": SECRET, "issuer": site.url})
        environment = {
            "PATH": os.environ["PATH"],
            "POS_URL": site.url,
            "POS_CREDENTIALS": f"aws://{name}?region={REGION}",
            "POS_AWS_ENDPOINT": moto.url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        done = subprocess.run(
            [sys.executable, EXAMPLE / "pos.py"], env=environment, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    assert "A-1001" in done.stdout


def statements(policy: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((EXAMPLE / policy).read_text())["Statement"]
    return found


def allowed(policy: str) -> set[str]:
    actions = [statement["Action"] for statement in statements(policy)]
    return {action for each in actions for action in ([each] if isinstance(each, str) else each)}


def test_readers_may_read_and_rotators_change_and_neither_creates_or_deletes() -> None:
    assert allowed("reader.json") == {"secretsmanager:GetSecretValue", "kms:Decrypt"}
    writes = {f"secretsmanager:{verb}" for verb in ("GetSecretValue", "PutSecretValue", "UpdateSecretVersionStage")}
    assert writes <= allowed("rotator.json")
    assert not any(word in action for action in allowed("rotator.json") for word in ("Create", "Delete", "*"))


@pytest.mark.parametrize("policy", ["reader.json", "rotator.json"])
def test_a_policy_is_for_one_secret_and_for_its_key_through_secrets_manager_alone(policy: str) -> None:
    secret, key = statements(policy)
    assert secret["Resource"].endswith(":secret:prod/pos-??????")
    assert "kms:ViaService" in key["Condition"]["StringEquals"]
