"""Print two orders of the site from a pod, which logs in to Vault with its service account; see pos_kubernetes.yaml.

Needs: pip install 'secretsource[vault]'
       VAULT_ADDR=https://vault.example.com POS_URL=https://pos.example.com/, and the projected token that
       pos_kubernetes.yaml mounts. Kubernetes exchanges that token every hour; it is read anew at each login.
"""

import os

import httpx

from secretsource import TokenAuth, TokenSource
from secretsource.backends.vault import Kubernetes, VaultBackend

SITE = os.environ["POS_URL"]
vault = VaultBackend(
    os.environ["VAULT_ADDR"],
    auth=Kubernetes("pos", jwt=os.environ.get("POS_VAULT_TOKEN", "/var/run/secrets/vault/token")),
    ca_file=os.environ.get("VAULT_CACERT"),
)
pos = TokenSource("vault://kv/prod/pos", stores={"vault": vault}, issuer=SITE, scope="orders.read")

with httpx.Client(base_url=SITE, auth=TokenAuth(pos)) as client:
    answer = client.post("api/graphql", json={"query": "{ orders(first: 2) { id total } }"}).raise_for_status()
for order in answer.json()["data"]["orders"]:
    print(order["id"], order["total"])
