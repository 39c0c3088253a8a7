"""Prints the newest orders of a point-of-sale site: one program for three environments, without a word about any.

Needs: pip install secretsource (in production: secretsource[vault])
       SECRETSOURCE_ENV     development, staging or production
       SECRETSOURCE_CONFIG  where secretsource.toml is, if not in the working directory
       POS_URL              the site, such as https://pos.example.com/
"""

import os

import httpx

from secretsource import TokenAuth, TokenSource

ORDERS = {"query": "{ orders(first: 2) { id total } }"}


def main() -> None:
    site = os.environ["POS_URL"]
    pos = TokenSource.from_config("pos")
    with httpx.Client(base_url=site, auth=TokenAuth(pos, origins=site)) as client:
        answer = client.post("api/graphql", json=ORDERS).raise_for_status().json()
    for order in answer["data"]["orders"]:
        print(order["id"], order["total"])


if __name__ == "__main__":
    main()
