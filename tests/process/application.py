"""A web application that asks for a token in each request; what servers with several processes run in the tests.

SCENE says what happens when it is loaded, which with a preloading server is before the fork: nothing ("cold"), or
a token is there and a request for another one is under way ("busy").
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from secretsource import ClientCredentials, SecretSourceError, TokenSource
from tests.stores import CLIENT, A

source = TokenSource(ClientCredentials(CLIENT, A), token_url=os.environ["TOKEN_URL"])

if os.environ["SCENE"] == "busy":
    source.token()
    with suppress(SecretSourceError):
        source.token(scope="other", timeout=0.3)


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """What /SCOPE brings, as JSON; / is the default token."""
    scope = environ["PATH_INFO"].strip("/")
    began = time.monotonic()
    answer: dict[str, object] = {"process": os.getpid()}
    try:
        token = source.token(scope=scope) if scope else source.token()
        answer["token"] = token.access_token
    except SecretSourceError as error:
        answer["error"] = repr(error)
    answer["seconds"] = time.monotonic() - began
    answer["orphans"] = source.status().orphaned_threads
    start_response("200 OK", [("Content-Type", "application/json"), ("Connection", "close")])
    return [json.dumps(answer).encode()]
