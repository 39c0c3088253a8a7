"""Prints the newest orders of a point-of-sale site on Orchard Core, through its GraphQL API.

Needs: pip install secretsource
       POS_URL          the site, such as https://pos.example.com/ (its OpenID issuer, too)
       POS_CREDENTIALS  where client ID and secret are kept, such as file:///etc/pos/oauth.json (default: env://POS)

The administrator registers an application at the site: a client ID, type confidential, one long random secret, the
client credentials flow, and the roles that may read orders.
"""

import os

import httpx

from secretsource import TokenAuth, TokenSource

ORDERS = {"query": "{ orders(first: 2) { id total } }"}


def main() -> None:
    site = os.environ["POS_URL"]
    pos = TokenSource(os.environ.get("POS_CREDENTIALS", "env://POS"), issuer=site)
    with httpx.Client(base_url=site, auth=TokenAuth(pos, origins=site)) as client:
        answer = client.post("api/graphql", json=ORDERS).raise_for_status().json()
    for order in answer["data"]["orders"]:
        print(order["id"], order["total"])


if __name__ == "__main__":
    main()
