"""What an error of AWS or botocore means, by its code. Its text is matched to choose our words, and never repeated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from ...errors import (
    AccessDenied,
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    DeadlineExceeded,
    MalformedSecret,
    SecretNotFound,
    SecretSourceError,
)
from ...exchange import request_id_in
from ...reference import SecretReference
from .place import CURRENT, Place

__all__ = ["ELSEWHERE", "Fault", "fault_of", "malformed"]

_TRANSIENT = re.compile(
    r"Throttl|TooManyRequests|RequestThrottled|RequestLimitExceeded|SlowDown|RequestTimeout|PriorRequestNotComplete"
    r"|InternalServiceError|InternalFailure|InternalError|ServiceUnavailable|IDPCommunicationError"
)
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9.]{2,80}")  # botocore puts the status where an answer has none
_DENIED = re.compile(r"AccessDenied|NotAuthorized|UnauthorizedOperation|OptInRequired")
_EXPIRED = re.compile(r"ExpiredToken|RequestExpired|TokenRefreshRequired")
_UNKNOWN_KEY = re.compile(r"UnrecognizedClient|InvalidClientTokenId|InvalidAccessKeyId|MissingAuthenticationToken")
_BAD_SIGNATURE = re.compile(r"InvalidSignature|SignatureDoesNotMatch|IncompleteSignature")
_CLOCK = re.compile(r"Signature expired|Signature not yet current|RequestTimeTooSkewed")
ELSEWHERE = "Does endpoint_url= or a proxy lead elsewhere?"
_AGAIN_LATER = "It is tried again; if it stays, look at the AWS Health Dashboard and the way there from this machine"


class Fault(NamedTuple):
    """Why a call gave nothing. `what` follows the reference; `rebuild`: new credentials may help."""

    kind: type[SecretSourceError]
    what: str
    hint: str
    retryable: bool | None = None
    status: int | str | None = None
    request_id: str | None = None
    rebuild: bool = False

    @property
    def transient(self) -> bool:
        return self.kind.retryable if self.retryable is None else self.retryable

    def error(self, reference: SecretReference) -> SecretSourceError:
        message = f"{reference} {self.what}"
        if issubclass(self.kind, BackendError):
            return self.kind(
                message,
                reference=str(reference),
                store=reference.store,
                status=self.status,
                request_id=self.request_id,
                hint=self.hint,
                retryable=self.retryable,
            )
        if issubclass(self.kind, DeadlineExceeded):
            return DeadlineExceeded(message, phase=f"reading {reference}", hint=self.hint)
        return self.kind(message, hint=self.hint)


# By the names of botocore's exceptions, so that nothing is imported; a class stands before its base.
_OF_BOTOCORE: dict[str, tuple[type[SecretSourceError], str, str, bool | None]] = {
    "NoCredentialsError": (
        ConfigurationError,
        "cannot be asked for: there are no AWS credentials",
        "Give the workload a role (IRSA, ECS task, instance profile), or set AWS_PROFILE",
        None,
    ),
    "PartialCredentialsError": (
        ConfigurationError,
        "cannot be asked for: the AWS credentials are not complete",
        "An access key needs its secret access key",
        None,
    ),
    "ProfileNotFound": (
        ConfigurationError,
        "cannot be asked for: there is no such profile in the AWS configuration",
        "Correct profile= or AWS_PROFILE; aws configure list-profiles shows those that there are",
        None,
    ),
    "NoRegionError": (
        ConfigurationError,
        "cannot be asked for: no region is given",
        "Name the secret by its full ARN, add ?region=eu-west-1, or set AWS_REGION",
        None,
    ),
    "UnauthorizedSSOTokenError": (AccessDenied, "is refused: the SSO session has ended", "Run aws sso login", None),
    "SSOTokenLoadError": (AccessDenied, "is refused: there is no SSO session", "Run aws sso login", None),
    "TokenRetrievalError": (AccessDenied, "is refused: the SSO session has ended", "Run aws sso login", None),
    "RefreshWithMFAUnsupportedError": (
        ConfigurationError,
        "cannot be asked for: the profile asks for an MFA code",
        "Name a profile or role that a program can use without one",
        None,
    ),
    "SSLError": (
        BackendUnavailable,
        "cannot be read: TLS to AWS is refused",
        "Correct the certificate or AWS_CA_BUNDLE; verification cannot be switched off",
        False,
    ),
    "UnknownEndpointError": (
        ConfigurationError,
        "cannot be asked for: there is no endpoint for its region",
        "Correct the region",
        None,
    ),
    "EndpointProviderError": (
        ConfigurationError,
        "cannot be asked for: there is no endpoint for its region",
        "Correct the region",
        None,
    ),
    "InvalidRegionError": (
        ConfigurationError,
        "cannot be asked for: its region is no region",
        "Write it as in eu-west-1",
        None,
    ),
    "ParamValidationError": (
        ConfigurationError,
        "cannot be asked for: botocore refuses the request",
        "Correct the secret's name, stage or version",
        None,
    ),
    "CredentialRetrievalError": (
        BackendUnavailable,
        "cannot be asked for: the AWS credentials cannot be fetched",
        "See aws sts get-caller-identity, run as this program",
        None,
    ),
    "HTTPClientError": (BackendUnavailable, "cannot be read: AWS cannot be reached", _AGAIN_LATER, None),
    "ConnectionError": (BackendUnavailable, "cannot be read: AWS cannot be reached", _AGAIN_LATER, None),
    "IncompleteReadError": (BackendUnavailable, "cannot be read: an answer was cut off", _AGAIN_LATER, None),
    "ResponseParserError": (BackendUnavailable, "cannot be read: the answer is not one of AWS", _AGAIN_LATER, None),
    "MetadataRetrievalError": (
        BackendUnavailable,
        "cannot be asked for: the AWS credentials cannot be fetched",
        "Is the metadata service reachable from here?",
        None,
    ),
    "BotoCoreError": (
        ConfigurationError,
        "cannot be asked for: the AWS configuration cannot be used",
        "See aws sts get-caller-identity, run as this program",
        None,
    ),
}


def fault_of(error: Exception, place: Place | None, region: str | None) -> Fault:
    """The meaning of whatever a call raised; without a place, one that was to bring the credentials."""
    if isinstance(error, SecretSourceError):  # of our transport, on its way through botocore
        return Fault(type(error), f"cannot be read: {error.message}", error.hint or _AGAIN_LATER, error.retryable)
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return _of_answer(response, str(getattr(error, "operation_name", "")), place, region)
    for name in (each.__name__ for each in type(error).__mro__):
        if name in _OF_BOTOCORE:
            kind, what, hint, retryable = _OF_BOTOCORE[name]
            return Fault(kind, f"{what} ({type(error).__name__})", hint, retryable)
    return Fault(
        BackendUnavailable,
        f"cannot be read: {type(error).__name__} was raised",
        "Its text is left out, since it may hold what was read",
        False,
    )


def malformed(what: str, hint: str, request_id: str | None = None) -> Fault:
    return Fault(MalformedSecret, what, hint, request_id=request_id)


def _of_answer(response: dict[str, Any], operation: str, place: Place | None, region: str | None) -> Fault:
    problem, metadata = (response.get(name) or {} for name in ("Error", "ResponseMetadata"))
    code, text = str(problem.get("Code", "")), str(problem.get("Message", ""))
    http = metadata.get("HTTPStatusCode")
    http = http if isinstance(http, int) else 0
    status: int | str = code if _CODE.fullmatch(code) else http
    known = next(_meanings(code, text, http, operation, place, region))
    return known._replace(
        status=status,
        request_id=request_id_in(metadata.get("RequestId")),
    )


def _meanings(
    code: str, text: str, http: int, operation: str, place: Place | None, region: str | None
) -> Iterator[Fault]:
    """The first that fits is meant."""
    if _CLOCK.match(code) or (_BAD_SIGNATURE.match(code) and _CLOCK.search(text)):
        yield Fault(
            ConfigurationError, "is refused: this machine's clock is wrong", "Set it by NTP; AWS allows 5 minutes"
        )
    if _EXPIRED.match(code):
        yield Fault(
            AccessDenied,
            "is refused: the AWS credentials have expired",
            "Use ones that renew themselves (a role, SSO), or set new ones and start the program anew",
            rebuild=True,
        )
    if _UNKNOWN_KEY.match(code):
        yield Fault(
            AccessDenied,
            "is refused: AWS does not know the access key",
            "Is it deleted, of another partition, or a temporary one without its session token?",
            rebuild=True,
        )
    if _BAD_SIGNATURE.match(code):
        yield Fault(
            AccessDenied,
            "is refused: the secret access key does not belong to the access key",
            "Correct the AWS credentials of this program",
            rebuild=True,
        )
    if _TRANSIENT.match(code) or http >= 500 or http == 429:
        slowly = "Throttl" in code or "TooMany" in code or http == 429
        yield Fault(
            BackendUnavailable,
            "cannot be read: AWS is throttling the requests" if slowly else "cannot be read: AWS is out of order",
            "It is tried again; the quota is that of the account that reads" if slowly else _AGAIN_LATER,
        )
    if http == 403 and not _CODE.fullmatch(code):  # which tells nothing about the secret, and takes nothing away
        yield Fault(BackendUnavailable, "cannot be read: something before AWS refuses it (403)", ELSEWHERE)
    if not _CODE.fullmatch(code):
        yield Fault(
            BackendUnavailable,
            f"cannot be read: {http or 'something'} was answered that is not of AWS",
            ELSEWHERE,
            False,
        )
    if operation == "AssumeRole":
        yield Fault(
            AccessDenied,
            "cannot be asked for: the role of role_arn= may not be assumed",
            "Its trust policy must name who runs this program, and the external_id= if it asks for one",
        )
    if place is None:
        yield Fault(
            AccessDenied,
            f"cannot be asked for: AWS refuses this program the credentials of its role ({operation})",
            "May the pod, the SSO user or the profile have that role? See aws sts get-caller-identity, run as it",
        )
        return
    if code.startswith("AccessDenied") and re.search(r"\bKMS\b|kms:", text):
        yield Fault(
            AccessDenied,
            "may be read, but not decrypted: its KMS key is refused",
            "Allow kms:Decrypt on the secret's KMS key, in the role's policy and in the key's own",
        )
    if _DENIED.match(code):
        verb = operation or "GetSecretValue"
        yield Fault(
            AccessDenied,
            f"is refused: this identity may not call {verb} there",
            f"Allow secretsmanager:{verb} on it; from another account the secret's own policy must allow it, too"
            + _recipe(place, operation),
        )
    if code.startswith(("DecryptionFailure", "EncryptionFailure")):
        yield Fault(
            AccessDenied,
            "cannot be decrypted: its KMS key is disabled or on its way to deletion",
            "Enable the key, or cancel its deletion",
        )
    if code.startswith("ResourceNotFound"):
        yield _not_found(place, region)
    if code.startswith("InvalidRequest") and "delet" in text:
        yield Fault(
            SecretNotFound,
            "is scheduled for deletion",
            "Take it back with aws secretsmanager restore-secret --secret-id …, or correct the reference",
        )
    if code.startswith("InvalidRequest") and "VersionStage" in text:
        yield _not_found(place, region)
    if code.startswith("LimitExceeded"):
        yield Fault(ConfigurationError, "has reached a quota of versions or labels", "Write less often, or raise it")
    if code.startswith(("Invalid", "Validation", "MalformedPolicy", "ResourceExists", "Precondition")):
        yield Fault(ConfigurationError, f"is refused by AWS ({code})", "Correct the name, region, stage or version")
    yield Fault(
        BackendUnavailable,
        f"cannot be read: {http or 'something'} was answered that is not of Secrets Manager",
        ELSEWHERE,
        False,
    )


def _not_found(place: Place, region: str | None) -> Fault:
    version = f"version {place.version}" if place.version else place.stage or CURRENT
    where = f"in {region or 'the region of the session'}" + (f", account {place.account}" if place.account else "")
    hint = f"Are region, account and name right, and has it a value under {version}?"
    if place.partial:
        hint += " Its ARN lacks the hyphen and six characters at the end: give the full one"
    return Fault(SecretNotFound, f"was not found {where}: no such secret, or it has no {version}", hint)


def _recipe(place: Place, operation: str) -> str:
    if operation != "CreateSecret":
        return ""
    return f". Or have it made: aws secretsmanager create-secret --name {place.secret} --secret-string file://FILE"
