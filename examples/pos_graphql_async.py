"""The same as pos_graphql.py for asyncio: many questions at once, one token for all.

Needs: pip install secretsource
       POS_URL and POS_CREDENTIALS, as pos_graphql.py has them
"""

import asyncio
import os

import httpx

from secretsource import TokenAuth, TokenSource

ORDERS = {"query": "{ orders(first: 2) { id total } }"}


async def main() -> None:
    site = os.environ["POS_URL"]
    pos = TokenSource(os.environ.get("POS_CREDENTIALS", "env://POS"), issuer=site)
    async with httpx.AsyncClient(base_url=site, auth=TokenAuth(pos, origins=site)) as client:
        answers = await asyncio.gather(*(client.post("api/graphql", json=ORDERS) for _ in range(20)))
    orders = {order["id"] for answer in answers for order in answer.raise_for_status().json()["data"]["orders"]}
    print(f"{len(answers)} answers, {len(orders)} orders")


if __name__ == "__main__":
    asyncio.run(main())
