"""The proof of an AWS identity: a signed request to STS that Vault sends on and we do not (AWS IAM login)."""

from __future__ import annotations

import logging
import threading
from base64 import b64encode
from json import dumps
from typing import Any

import botocore.session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from ...errors import ConfigurationError

__all__ = ["signed_identity"]

_BODY = "Action=GetCallerIdentity&Version=2011-06-15"
_signing = threading.local()


def _not_of_ours(record: logging.LogRecord) -> bool:
    """At DEBUG botocore logs what it signs, and so the session token, and the answers that it has credentials from."""
    return not getattr(_signing, "now", False)


def _keep_quiet() -> None:
    # On each logger: a filter does not hold for those below it. Again at each login: modules come later, with theirs.
    for name in ["botocore", "urllib3", *logging.root.manager.loggerDict]:
        if name.partition(".")[0] in ("botocore", "urllib3"):
            logging.getLogger(name).addFilter(_not_of_ours)


def signed_identity(region: str | None, server_id: str | None) -> dict[str, Any]:
    """The parameters of the login. The credentials are found as AWS's own tools find them. ConfigurationError."""
    failure = None
    _signing.now = True
    _keep_quiet()
    try:
        signed = _signed(region, server_id)
        if signed is not None:
            return signed
        failure = "there are none"
    except Exception as error:  # botocore's frames hold the credentials
        failure = type(error).__name__
    finally:
        _signing.now = False
    raise ConfigurationError(
        f"the AWS credentials for the login to Vault cannot be used: {failure}",
        hint="Give the machine, pod or task a role, or set the usual AWS variables",
    )


def _signed(region: str | None, server_id: str | None) -> dict[str, Any] | None:
    session = botocore.session.Session()
    credentials = session.get_credentials()
    if credentials is None:
        return None
    # The global endpoint is signed for us-east-1; Vault's sts_region must fit where another one is given.
    url = f"https://sts.{region}.amazonaws.com/" if region else "https://sts.amazonaws.com/"
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    if server_id:
        headers["X-Vault-AWS-IAM-Server-ID"] = server_id
    request = AWSRequest("POST", url, headers=headers, data=_BODY)
    SigV4Auth(credentials.get_frozen_credentials(), "sts", region or "us-east-1").add_auth(request)
    listed = {name: [value] for name, value in request.headers.items()}
    return {
        "iam_http_request_method": "POST",
        "iam_request_url": b64encode(url.encode()).decode(),
        "iam_request_body": b64encode(_BODY.encode()).decode(),
        "iam_request_headers": b64encode(dumps(listed).encode()).decode(),
    }
