"""A site as the first user has it: an issuer, and a GraphQL API behind it, at one address."""

from __future__ import annotations

import json

from secretsource.testing import FakeIssuer
from secretsource.testing.loopback import Answer, Incoming

ORDERS = [{"id": "A-1001", "total": "18.50"}, {"id": "A-1002", "total": "7.20"}]


class Site(FakeIssuer):
    """An issuer with `api/graphql`, which takes its tokens."""

    def __init__(self) -> None:
        super().__init__(apis={"/api/graphql": self._graphql})

    def _graphql(self, incoming: Incoming) -> Answer:
        scheme, _, token = incoming.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not self.accepts(token) or b"orders" not in incoming.body:
            return Answer(401, {"WWW-Authenticate": 'Bearer error="invalid_token"'})
        return Answer(200, {"Content-Type": "application/json"}, json.dumps({"data": {"orders": ORDERS}}).encode())
