"""The error tree: what a caller may catch, and what an error carries."""

from __future__ import annotations

import inspect
import pickle
from datetime import UTC, datetime

import pytest

from secretsource import errors
from secretsource.errors import (
    AccessDenied,
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    CredentialsRejected,
    DeadlineExceeded,
    InvalidTokenResponse,
    IssuerUnavailable,
    MalformedSecret,
    SecretNotFound,
    SecretSourceError,
    TokenError,
    TokenRequestRefused,
)

TREE: dict[type[SecretSourceError], type[SecretSourceError]] = {
    ConfigurationError: SecretSourceError,
    BackendError: SecretSourceError,
    SecretNotFound: BackendError,
    AccessDenied: BackendError,
    MalformedSecret: BackendError,
    BackendUnavailable: BackendError,
    TokenError: SecretSourceError,
    CredentialsRejected: TokenError,
    TokenRequestRefused: TokenError,
    InvalidTokenResponse: TokenError,
    IssuerUnavailable: TokenError,
    DeadlineExceeded: SecretSourceError,
}
RETRYABLE = {BackendUnavailable, IssuerUnavailable, DeadlineExceeded}
# One of each kind of constructor, with every fact it takes.
FULL = [
    SecretSourceError("it went wrong", hint="Mend it", retryable=True, retry_after=1.5),
    ConfigurationError("it is written wrong", hint="Write it right"),
    AccessDenied("no", reference="file:///x", store="file", status="F04", request_id="req-12345", hint="chmod 600 /x"),
    BackendUnavailable("not now", store="vault", status=503, retryable=False, retry_after=2),
    CredentialsRejected(
        "rejected",
        error="invalid_client",
        status=401,
        vendor_code="ID2055",
        request_id="req-12345",
        issuer="https://pos.example.com/",
        auth_method="client_secret_basic",
        retry_after=4.0,
    ),
    DeadlineExceeded("too late", phase="connect", hint="Give it more time"),
]


def test_the_tree_is_the_one_that_is_drawn() -> None:
    defined = {value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__}
    assert defined == {SecretSourceError, *TREE}
    assert {error.__name__ for error in defined} == set(errors.__all__)
    assert {error: error.__bases__[0] for error in TREE} == TREE
    assert errors.__doc__ is not None
    assert all(error.__name__ in errors.__doc__ for error in defined)


def test_only_a_deadline_is_a_timeout_error() -> None:
    assert {error.__name__ for error in TREE if issubclass(error, TimeoutError)} == {"DeadlineExceeded"}


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_what_may_pass_by_itself_is_retryable_unless_said_otherwise(kind: type[SecretSourceError]) -> None:
    assert kind("message").retryable is (kind in RETRYABLE)
    assert kind("message", retryable=True).retryable is True
    assert kind("message", retryable=False).retryable is False


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_its_text_holds_the_message_and_the_way_out(kind: type[SecretSourceError]) -> None:
    assert str(kind("the store is gone")) == "the store is gone"
    assert str(kind("the store is gone", hint="Start it")) == "the store is gone. Start it"


def test_it_says_when_it_occurred() -> None:
    before = datetime.now(UTC)
    error = SecretSourceError("now")
    assert before <= error.occurred_at <= datetime.now(UTC)
    assert error.occurred_at.utcoffset() is not None


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_again_keeps_every_fact_in_a_new_exception_without_a_history(error: SecretSourceError) -> None:
    raised: SecretSourceError | None = None
    try:
        try:
            raise ValueError("s3cr3t of another library")
        except ValueError as cause:
            raise error.again() from cause
    except SecretSourceError as caught:
        raised = caught
    assert raised is not None
    assert raised.__traceback__ is not None

    again = raised.again()
    assert again is not raised
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert (again.args, str(again)) == (error.args, str(error))
    assert (again.__traceback__, again.__cause__, again.__context__) == (None, None, None)


def test_again_serves_a_plug_ins_error_that_is_made_in_another_way() -> None:
    class BranchClosed(BackendUnavailable):
        def __init__(self, branch: str, *, until: int) -> None:
            super().__init__(f"the branch {branch} is closed", store="branch")
            self.until = until

    class BranchLate(DeadlineExceeded):
        def __init__(self, branch: str, minutes: int) -> None:
            super().__init__(f"the branch {branch} opens in {minutes} minutes")

    closed = BranchClosed("Ghent", until=9).again()
    assert (str(closed), closed.until, closed.store, closed.retryable) == (
        "the branch Ghent is closed",
        9,
        "branch",
        True,
    )
    assert str(BranchLate("Ghent", 5).again()) == "the branch Ghent opens in 5 minutes"


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_reaches_another_process_with_its_facts(error: SecretSourceError, protocol: int) -> None:
    other = pickle.loads(pickle.dumps(error, protocol))
    assert type(other) is type(error)
    assert vars(other) == vars(error)
    assert str(other) == str(error)
