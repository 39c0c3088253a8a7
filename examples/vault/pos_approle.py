"""Print two orders of the site; the client secret is kept in Vault, and the program logs in there with an AppRole.

Needs: pip install 'secretsource[vault]'
       VAULT_ADDR=https://vault.example.com POS_URL=https://pos.example.com/ POS_ROLE_ID=…
       the secret ID in the file /run/secrets/pos_secret_id (mode 0600, or mounted), and in Vault, once:

           vault policy write pos-reader reader.hcl
           vault write auth/approle/role/pos token_policies=pos-reader token_ttl=20m token_max_ttl=8h
           vault read auth/approle/role/pos/role-id        → POS_ROLE_ID, which is no secret
           vault write -f auth/approle/role/pos/secret-id  → that file
           secretsource put --credentials vault://kv/prod/pos --issuer https://pos.example.com/ --client-id pos

With `wrapped=True` the file holds a wrapping token instead (vault write -wrap-ttl=5m -f …/secret-id), which is good
once: whoever opens it on the way is found out. A program that starts anew then needs a new one.
"""

import os

import httpx

from secretsource import TokenAuth, TokenSource
from secretsource.backends.vault import AppRole, VaultBackend

SITE = os.environ["POS_URL"]
secret_id = f"file://{os.environ.get('POS_SECRET_ID_FILE', '/run/secrets/pos_secret_id')}?access=mounted"
vault = VaultBackend(
    os.environ["VAULT_ADDR"],
    auth=AppRole(os.environ["POS_ROLE_ID"], secret_id),
    ca_file=os.environ.get("VAULT_CACERT"),
)
pos = TokenSource("vault://kv/prod/pos", stores={"vault": vault}, issuer=SITE, scope="orders.read")

with httpx.Client(base_url=SITE, auth=TokenAuth(pos)) as client:
    answer = client.post("api/graphql", json={"query": "{ orders(first: 2) { id total } }"}).raise_for_status()
for order in answer.json()["data"]["orders"]:
    print(order["id"], order["total"])
