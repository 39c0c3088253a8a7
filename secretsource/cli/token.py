"""secretsource token: print an access token."""

from __future__ import annotations

import argparse
import json

from ..source import ConfiguredSource
from .options import add_credentials, add_issuer, add_request, settings_of

__all__ = ["add_to"]


def add_to(command: argparse.ArgumentParser) -> None:
    add_credentials(command)
    add_issuer(command)
    add_request(command)
    command.add_argument(
        "--format",
        choices=("token", "json", "header"),
        default="token",
        help="the token alone, its answer as JSON, or a header line",
    )
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    token = ConfiguredSource(settings_of(options)).token()
    if options.format == "header":
        print(f"Authorization: {token.authorization}")
    elif options.format == "json":
        members = {
            "access_token": token.access_token,
            "token_type": token.token_type,
            "expires_in": int(token.expires_in),
            "expires_at": token.expires_at.isoformat(timespec="seconds"),
            "scope": " ".join(token.scopes),
        }
        print(json.dumps(members))
    else:
        print(token.access_token)
    return 0
