"""The example of a rotation function runs as it stands, with no more rights than its policy gives."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..rotation.issuers.fakes_orchard import OrchardSite
from ..rotation.issuers.vendors import ADMIN, ADMIN_SECRET, CLIENT, OLD
from .corrected_moto import corrected
from .secrets_manager import ACCESS_KEY, REGION, SECRET_KEY

EXAMPLE = Path(__file__).parents[2] / "examples/aws"
STEPS = ("createSecret", "setSecret", "testSecret", "finishSecret")

AS_LAMBDA = """
import json, runpy, sys
function = runpy.run_path(sys.argv[1])["lambda_handler"]
for event in json.loads(sys.argv[2]):
    function(event, None)
"""


def test_its_four_steps_change_the_secret_with_the_calls_that_its_policy_allows() -> None:
    with OrchardSite() as site, corrected() as moto:
        name = moto.create({"client_id": CLIENT, "client_secret": OLD})
        administrator = moto.create({"client_id": ADMIN, "client_secret": ADMIN_SECRET})
        token = moto.client.rotate_secret(
            SecretId=name,
            RotationLambdaARN="arn:aws:lambda:eu-west-1:123456789012:function:rotate-pos",
            RotationRules={"AutomaticallyAfterDays": 30},
        )["VersionId"]
        arn = moto.client.describe_secret(SecretId=name)["ARN"]
        events = [{"Step": step, "SecretId": arn, "ClientRequestToken": token} for step in STEPS]
        environment = {
            "PATH": os.environ["PATH"],
            "POS_URL": f"{site.base_url}/",
            "POS_ADMINISTRATOR": f"aws://{administrator}",
            "POS_AWS_ENDPOINT": moto.url,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        done = subprocess.run(
            [sys.executable, "-c", AS_LAMBDA, EXAMPLE / "rotation_lambda.py", json.dumps(events)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stderr
        new = json.loads(moto.text(name))["client_secret"]
        assert new == site.secret != OLD
        assert moto.labels(name)["AWSCURRENT"] == token
        assert not any(secret in done.stdout + done.stderr for secret in (OLD, new, ADMIN_SECRET))


def statements() -> dict[str, dict[str, Any]]:
    policy = json.loads((EXAMPLE / "rotation_lambda.json").read_text())
    return {statement["Sid"]: statement for statement in policy["Statement"]}


def test_its_policy_has_the_least_rights() -> None:
    found = statements()
    secret = found["RotateOneSecretThatThisFunctionIsSetFor"]
    assert secret["Resource"].endswith(":secret:prod/pos-??????")
    assert "secretsmanager:resource/AllowRotationLambdaArn" in secret["Condition"]["StringEquals"]
    actions = {
        action
        for each in found.values()
        for action in ([each["Action"]] if isinstance(each["Action"], str) else each["Action"])
    }
    assert not any(re.search(r"Create(?!LogStream)|Delete|RotateSecret|\*", action) for action in actions)
    used = set(re.findall(r"client\.(\w+)\(", source("staging.py") + source("change.py") + source("calls.py")))
    calls = {f"secretsmanager:{''.join(word.title() for word in name.split('_'))}" for name in used}
    assert calls == set(secret["Action"])


def source(name: str) -> str:
    return (Path(__file__).parents[2] / "secretsource/backends/aws" / name).read_text()
