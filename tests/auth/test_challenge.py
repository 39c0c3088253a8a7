"""challenge: which 401 means the token, so that another one may help."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secretsource.auth.challenge import refuses_token


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        ["Bearer"],
        ["bearer"],
        ["BEARER realm=api"],
        ['Bearer realm="api"'],
        ['Bearer error="invalid_token"'],
        ["Bearer error=invalid_token"],
        ['Bearer realm="api" , error = "invalid_token" , error_description="The token expired"'],
        ['Bearer ERROR="invalid_token"'],
        ['Bearer error_description="insufficient_scope", realm="error=\\"insufficient_scope\\""'],
        ['Bearer realm="a, Basic realm=b"'],
        ['Bearer realm="a \\", error=\\"insufficient_scope"'],
        # several challenges, in one header or in several
        ['Basic realm="a", Bearer realm="b", error="invalid_token"'],
        ['Bearer realm="b", error="invalid_token", Basic realm="a", error="insufficient_scope"'],
        ['Basic realm="a", error="insufficient_scope", Bearer'],
        ['DPoP algs="ES256", error="use_dpop_nonce"', 'Bearer error="invalid_token"'],
        ["Negotiate YWJjZA==, Bearer"],
        ["Negotiate, Bearer", "NTLM"],
        [", , Bearer ,"],
    ],
)
def test_a_bearer_challenge_without_an_error_or_with_invalid_token_means_the_token(headers: list[str]) -> None:
    assert refuses_token(headers)


@pytest.mark.parametrize(
    "headers",
    [
        ['Basic realm="api"'],
        ["Basic"],
        ['Basic realm="Bearer"'],
        ['Basic realm=", Bearer error=invalid_token"'],
        ['Basic realm="\\", Bearer "'],
        ['Basic realm="api", error="invalid_token"'],
        ["Negotiate YWJjZA=="],
        ['DPoP error="invalid_token"'],
        ['XBearer error="invalid_token"'],
        ['Bearer error="insufficient_scope", scope="orders.write"'],
        ["Bearer error=insufficient_scope"],
        ['Bearer realm="api",error="invalid_request"'],
        ['Bearer error=""'],
        ['Basic realm="a", Bearer realm="b", error="insufficient_scope"'],
        ['Bearer error="insufficient_scope", Basic realm="a", error="invalid_token"'],
        ['Basic realm="a"', 'Bearer error="insufficient_scope"'],
    ],
)
def test_any_other_challenge_does_not(headers: list[str]) -> None:
    assert not refuses_token(headers)


_pieces = st.sampled_from(["Bearer", "Basic", "error", "realm", "=", '"', "\\", ",", " ", "invalid_token", "ä", "\x00"])


@settings(max_examples=50)
@given(st.lists(st.lists(_pieces, max_size=30).map("".join) | st.text(max_size=30), max_size=3))
def test_no_header_raises(headers: list[str]) -> None:
    assert refuses_token(headers) in (True, False)


@settings(max_examples=50)
@given(st.text(st.characters(codec="ascii"), max_size=20))
def test_what_stands_in_quotation_marks_is_no_challenge(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    assert not refuses_token([f'Basic realm="{quoted}"'])
    assert refuses_token([f'Bearer realm="{quoted}"'])


@pytest.mark.parametrize("piece", ['a="', '="\\', "a ", 'a="\\"', "a=", '"', "\\", " " * 50, "a" + " " * 50, 'a="b",'])
def test_a_hostile_header_does_not_take_long(piece: str) -> None:
    began = time.process_time()
    refuses_token([piece * (100_000 // len(piece))] * 3)
    assert time.process_time() - began < 1
