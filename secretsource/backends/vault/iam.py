"""The proof of an AWS identity: a signed request to STS that Vault sends on and we do not (AWS IAM login)."""

from __future__ import annotations

from base64 import b64encode
from json import dumps
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from ...clock import Deadline
from ...errors import BackendUnavailable, ConfigurationError, DeadlineExceeded, SecretSourceError
from ..aws.faults import Fault, fault_of
from ..aws.wire import Settings, session_of, within

__all__ = ["signed_identity"]

_BODY = "Action=GetCallerIdentity&Version=2011-06-15"


def signed_identity(region: str | None, server_id: str | None, deadline: Deadline) -> dict[str, Any]:
    """The parameters of the login. The credentials are found anew, as by AWS's own tools, but by our own transport.

    Raises ConfigurationError where there are none, BackendUnavailable, AccessDenied where AWS refuses to give them.
    """
    with within(deadline):
        try:
            return _signed(region, server_id)
        except Exception as error:  # botocore's frames hold the credentials
            failure = _failure(error, fault_of(error, None, region))
    raise failure


def _failure(error: Exception, fault: Fault) -> SecretSourceError:
    why = error.message if isinstance(error, SecretSourceError) else str(fault.status or type(error).__name__)
    hint = fault.hint
    if fault.kind is ConfigurationError:
        why = "there are none" if why == "NoCredentialsError" else why
        hint = "Give the machine, pod or task a role, or set the usual AWS variables"
    # Late is AWS here, and not Vault.
    kind = BackendUnavailable if fault.kind is DeadlineExceeded else fault.kind
    what = f"the AWS credentials for the login to Vault cannot be used: {why}"
    return kind(what, hint=hint, retryable=fault.retryable)


def _signed(region: str | None, server_id: str | None) -> dict[str, Any]:
    session = session_of(Settings())
    if region is not None and session.get_config_variable("region") is None:
        session.set_config_variable("region", region)
    session.renew()
    # The global endpoint is signed for us-east-1; Vault's sts_region must fit where another one is given.
    url = f"https://sts.{region}.amazonaws.com/" if region else "https://sts.amazonaws.com/"
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    if server_id:
        headers["X-Vault-AWS-IAM-Server-ID"] = server_id
    request = AWSRequest("POST", url, headers=headers, data=_BODY)
    SigV4Auth(session.credentials.get_frozen_credentials(), "sts", region or "us-east-1").add_auth(request)
    listed = {name: [value] for name, value in request.headers.items()}
    return {
        "iam_http_request_method": "POST",
        "iam_request_url": b64encode(url.encode()).decode(),
        "iam_request_body": b64encode(_BODY.encode()).decode(),
        "iam_request_headers": b64encode(dumps(listed).encode()).decode(),
    }
