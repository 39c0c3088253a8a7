"""Every fault of the table: what it ends in, when, and that nothing is given away or left behind."""

from __future__ import annotations

import ssl

import pytest

from secretsource.backends.vault import visit

from .answers import AWS_SESSION, SECRET, SECRET_ID, VAULT_TOKEN
from .bench import UNHURRIED, WAIT, Bench, called, gone_within, secrets_in, shown_by, sockets_to, speaks_tls_1_1
from .rows import ALSO_ASKED, QUESTIONS, Got, Row
from .table import ROWS

OVERRUN = 1.0  # seconds
GROWTH = 5 << 20
# What a server is told at most, where it is asked its question.
TOLD = {
    "token": {SECRET},
    "token after discovery": {SECRET},
    "vault read": {SECRET_ID, VAULT_TOKEN},
    "vault login": {SECRET_ID},
    "aws": {AWS_SESSION},
}
# And where all is well at that, further on.
TOLD_AFTERWARDS = {"discovery": {SECRET}, "vault login": {VAULT_TOKEN}}


def test_no_two_rows_are_the_same_case() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)


@pytest.fixture(autouse=True)
def _surroundings(bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(visit, "WAITS_BETWEEN_ATTEMPTS", (0.002, 0.002))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bench.certificates.ca_file))
    caplog.set_level(1)


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.id, marks=[pytest.mark.slow] if row.slow else []) for row in ROWS]
)
def test_a_fault_ends_as_it_should_and_in_time(row: Row, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    if row.tls == "TLS 1.1" and not speaks_tls_1_1(bench.certificates.contexts[row.tls]):
        pytest.skip(f"{ssl.OPENSSL_VERSION} cannot serve TLS 1.1 any more")
    question = QUESTIONS[row.at]
    source = bench.prepared(row, question)
    before = sockets_to(bench.ports)

    outcome = called(source)

    # in time, in bounds, and nothing stays
    assert outcome.seconds < (WAIT if row.waits else UNHURRIED) + OVERRUN
    assert outcome.growth < GROWTH or row.builds
    assert gone_within(1.0, source, bench.ports, before) == []
    # what it ends in
    if isinstance(row.expected, Got):
        assert outcome.error is None
        assert outcome.token is not None
        assert outcome.token.access_token == row.expected.access_token
        assert (outcome.token.lifetime, outcome.token.scopes) == (row.expected.lifetime, row.expected.scopes)
    else:
        error = outcome.error
        assert outcome.token is None
        assert error is not None
        assert type(error) is row.expected, str(error)
        assert error.hint
        assert row.says in str(error)
        assert error.retryable is (type(error).retryable if row.retryable is None else row.retryable)
        if row.retry_after is not None:
            assert error.retry_after == row.retry_after
        assert (error.__cause__, error.__context__) == (None, None)
        assert secrets_in(shown_by(error)) == []
        assert source.status().kept_tokens == 0
    assert secrets_in(caplog.text) == []
    assert secrets_in(repr(source) + repr(source.status())) == []
    # who was asked, and what each was told
    assert bench.strangers_met == 0
    assert bench.asked(question.path) in ((row.asked, 0) if row.waits else (row.asked,))  # a busy machine may be late
    assert bench.paths <= {question.path, *question.others, *ALSO_ASKED}
    well = isinstance(row.expected, Got)
    assert bench.told <= TOLD.get(row.at, set()) | (TOLD_AFTERWARDS.get(row.at, set()) if well else set())
    assert row.asked or not bench.told or row.at == "vault read"  # which has logged in before
    assert bool(bench.issuer.requests) is (well and question.call in ("vault", "aws"))
