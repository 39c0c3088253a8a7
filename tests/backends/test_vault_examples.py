"""The examples for Vault run as they stand, and their policies let do what they say and no more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from secretsource import AccessDenied, Secret, SecretReference

from ..sites import Site
from .openbao import Corner
from .vaults import Signer

EXAMPLES = Path(__file__).parents[2] / "examples" / "vault"
SECRET = "not-a-real-secret-of-the-example"
ORDERS = "A-1001 18.50\nA-1002 7.20\n"


@pytest.fixture
def site(corner: Corner) -> Iterator[Site]:
    """The site, whose client's secret is where the examples look for it."""
    with Site() as site:
        site.add_client("pos", SECRET)
        corner.kv("kv")
        corner.secret("kv", "prod/pos", SECRET, issuer=site.url)
        yield site
        corner.api("DELETE", "sys/mounts/kv")


def policy(corner: Corner, name: str) -> str:
    """The policy in a file of the examples, under a name of this test's own."""
    own = f"{corner.name}-{name}"
    corner.api("PUT", f"sys/policies/acl/{own}", {"policy": (EXAMPLES / f"{name}.hcl").read_text()})
    return own


def run(program: str, corner: Corner, site: Site, **variables: str) -> str:
    environment = {"PATH": os.environ["PATH"], "POS_URL": site.url, "VAULT_ADDR": corner.server.address, **variables}
    done = subprocess.run(
        [sys.executable, EXAMPLES / program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_program_with_an_approle_prints_orders(corner: Corner, site: Site) -> None:
    mount = corner.auth("approle", "approle")
    try:
        corner.set_role(mount, policy(corner, "reader"), token_ttl="20m", token_max_ttl="8h")
        role_id = corner.api("GET", f"auth/{mount}/role/pos/role-id")["data"]["role_id"]
        made = corner.api("POST", f"auth/{mount}/role/pos/secret-id")["data"]["secret_id"]
        file = corner.write(corner.folder / "pos_secret_id", f"{made}\n")
        assert run("pos_approle.py", corner, site, POS_ROLE_ID=role_id, POS_SECRET_ID_FILE=str(file)) == ORDERS
    finally:
        corner.api("DELETE", f"sys/auth/{mount}")


def test_the_program_in_a_pod_prints_orders(corner: Corner, site: Site) -> None:
    """A JWT login stands in for Kubernetes: to the program it is the same request."""
    signer = Signer()
    mount = corner.auth("jwt", "kubernetes")
    try:
        corner.api("POST", f"auth/{mount}/config", {"jwt_validation_pubkeys": [signer.public_key]})
        role = {
            "role_type": "jwt",
            "bound_audiences": ["vault"],
            "user_claim": "sub",
            "token_policies": [policy(corner, "reader")],
        }
        corner.api("POST", f"auth/{mount}/role/pos", role)
        jwt = corner.write(corner.folder / "token", signer.jwt(sub="system:serviceaccount:shop:pos", aud="vault"))
        assert run("pos_kubernetes.py", corner, site, POS_VAULT_TOKEN=str(jwt)) == ORDERS
    finally:
        corner.api("DELETE", f"sys/auth/{mount}")


def test_the_pod_mounts_the_token_where_the_program_looks_for_it() -> None:
    pod = (EXAMPLES / "pos_kubernetes.yaml").read_text()
    mounted = re.search(r"mountPath: (\S+)", pod)
    path = re.search(r"- serviceAccountToken:\n +path: (\S+)", pod)
    named = re.search(r"POS_VAULT_TOKEN\n +value: (\S+)", pod)
    assert mounted
    assert path
    assert named
    assert f"{mounted[1]}/{path[1]}" == named[1]
    assert named[1] in (EXAMPLES / "pos_kubernetes.py").read_text()


def test_a_reader_reads_and_does_not_write_and_a_rotator_does_both(corner: Corner, site: Site) -> None:
    reference = SecretReference.parse("vault://kv/prod/pos")
    elsewhere = SecretReference.parse("vault://kv/prod/stock")
    corner.secret("kv", "prod/stock", SECRET)
    for name, writes in (("reader", False), ("rotator", True)):
        backend = corner.by_token(corner.token(policy(corner, name)))
        stored = backend.read_whole(reference, timeout=30)
        assert stored.fields["client_secret"] == Secret(SECRET)
        with pytest.raises(AccessDenied):
            backend.read(elsewhere, fresh=True, timeout=30)
        fields = {**stored.fields, "client_secret": Secret(f"{SECRET}-changed")}
        if writes:
            assert backend.write_whole(reference, fields, version=stored.version, timeout=30) == "2"
            assert [one for one in backend.preflight(reference, timeout=30) if "max" not in one] == []
        else:
            with pytest.raises(AccessDenied):
                backend.write_whole(reference, fields, version=stored.version, timeout=30)
