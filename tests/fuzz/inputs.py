"""Inputs for the targets: those of the corpus, changed, and new ones of the words that a target's language has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from .contract import CANARY, STAND_IN
from .targets import TARGETS

__all__ = ["ANSWERS", "ANYTHING", "CHANGED", "CORPUS", "SENTENCES"]

CORPUS = Path(__file__).with_name("corpus")
_SEEDS = {name: [path.read_bytes() for path in sorted((CORPUS / name).iterdir())] for name in TARGETS}

ANYTHING = st.binary(max_size=80) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))

# What is special to one of the languages that are read here.
_SPECIAL = rb"""" ' \" \\ \u0000 \ud800 ` ${x} $(x) {client} { } [ ] [[x]] : ; , = == # ? & @ / // ~ ~0 ~1 .. % %2F %00
    0 -1 1e999 NaN Infinity null true ----- eyJ"""
_ODD = [
    *(
        STAND_IN,
        b"",
        b" ",
        b"\0",
        b"\n",
        b"\r\n",
        b"\r",
        b"\t",
        b"\x1b[2J",
        b"\x7f",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\xff",
    ),
    *(b"\xef\xbb\xbf", b"\xed\xa0\x80", b"1" * 400, b"9" * 5000, b"[" * 70, b"{" * 70, b'{"a":' * 70, b"a." * 70),
    *_SPECIAL.split(),
]


@st.composite
def _changed(draw: st.DrawFn, name: str) -> bytes:
    data = bytearray(draw(st.sampled_from(_SEEDS[name])))
    for _ in range(draw(st.integers(1, 4))):
        start, length = draw(st.integers(0, len(data))), draw(st.integers(0, 12))
        other, begin = draw(st.sampled_from(_SEEDS[name])), draw(st.integers(0, 60))
        pieces = [draw(st.sampled_from(_ODD)), other[begin : begin + 40], bytes(data[start:]), b""]
        data[start : start + length] = draw(st.sampled_from(pieces))
    return bytes(data)


CHANGED = {name: _changed(name) for name in TARGETS}
"""An input of the corpus, cut, repeated and mixed with others."""

_WORDS = {
    "reference": """env: file: vault: bao: aws: systemd: // / . .. a kv prod %2F %23 %E9 ? & = access=unchecked
        format=json kv=raw kv=auto version=7 version= stage= mount=a/b region=eu-west-1 # id= ,secret= /a ~1 ~ sys auth
        arn:aws:secretsmanager: """,
    "url": """http:// https:// HTTP:/ localhost 127.0.0.1 127. .1 0x7f.1 [::1] [ ] % @ : :80 :443 :0 / \\ ? # . .. é ;
        orchard xn-- evil.example""",
    "challenge": """Bearer bearer Basic Negotiate error realm = " \\ , ; / + == invalid_token insufficient_scope a
        Bearer/ error=""",
    "command_line": """token check put config backends demo --env --config --credentials --client-id --issuer --timeout
        --scope --resource --extra --format --json --help --version -v -- - = --auth-method --basic-encoding --pending
        5 1e400 nan a=b""",
    "retry_after": """Thu, Mon, 01 31 00 Jan Feb Dec 2026 1970 9999 0001 00:02:00 23:59:60 : GMT -0000 +2400 UTC EST 120
        -1 . ( )""",
    "variables": """//POS # id= ,secret= CLIENT_ID CLIENT_SECRET POS_CLIENT_ID= POS_CLIENT_SECRET= _FILE= _PENDING=
        _PREVIOUS= pos /""",
    "document": """json toml ini env text # id= secret= /a/b client_id client_secret _pending { } [ ] " ' = : , . a 1
        true export [pos] [DEFAULT] [[a]] \\ ''' ; 1979-05-27 issuer environment""",
    "edits": """json toml ini env # /a/b client_secret new { } [ ] " ' = : , . a k 1 true export [a] [DEFAULT] [[a]]
        \\ ''' ; 1979-05-27 {k=1}""",
    "configuration": """pos production [defaults] [clients.pos] [environments.production] [clients.pos.stores.vault]
        [clients.pos.environments.production] production=true credentials= issuer= scope= timeout= extra= profile=
        plain_http= backend= auth= address= "env://POS" "https://pos.example.com/" "{client}" [ ] { } = , 1 1.5 nan
        true inf 1979-05-27 method= token=""",
    "request": """pos secret orders.read https://api.example.com/ a=b + % : & = " \\ é""",
    "pointer": """/ ~0 ~1 ~ a b 0 1 01 - { } [ ] " : , "a" "b" {"a": [" "x" 1 null""",
}


def _sentences(words: str) -> st.SearchStrategy[bytes]:
    word = st.sampled_from([each.encode() for each in words.split()])
    return st.lists(word | word | st.sampled_from(_ODD), max_size=25).map(b"".join)


SENTENCES = {name: _sentences(words) for name, words in _WORDS.items()}
"""The words of a language in any order, with what is odd in between."""

_MEMBERS = {
    "token_answer": "access_token token_type expires_in expires_on refresh_in scope error error_description error_uri",
    "metadata": "issuer token_endpoint token_endpoint_auth_methods_supported",
    "vault_answer": """data data data metadata request_id lease_id lease_duration errors warnings version created_time
        ttl destroyed deletion_time path type options client_id client_secret""",
    "vault_login": "auth auth client_token lease_duration renewable num_uses request_id errors warnings data",
    "aws_answer": "ARN VersionId VersionStages SecretString SecretBinary CreatedDate __type message Message",
}
_WORDY = """a Bearer bearer 3600 1e5 AWSCURRENT kv 2 kv/ invalid_client invalid_scope ID2055 https://pos.example.com/
    https://pos.example.com/t client_secret_post 2026-01-01T00:00:00Z ResourceNotFoundException 0a1b2c3d-1"""
_TEXTS = [
    *("", "a b", "\ud800", "\x1b[2J", "é" * 9, "permission denied", "Vault is sealed", f"x{CANARY}x", CANARY),
    *_WORDY.split(),
]
_HEADERS = [
    *("Retry-After: 5", "Retry-After: nan", "Content-Type: text/html"),
    *(f"{name}: {CANARY}" for name in ("X-Request-Id", "Location")),
]
_VALUES: st.SearchStrategy[Any] = st.deferred(
    lambda: (
        st.sampled_from(_TEXTS)
        | st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.just(10**400)
        | st.lists(_VALUES, max_size=2)
        | st.dictionaries(st.sampled_from([*" ".join(_MEMBERS.values()).split(), *_TEXTS]), _VALUES, max_size=3)
    )
)


def _object(pairs: list[tuple[str, Any]]) -> str:
    """A JSON object, in which a name may stand twice."""
    return f"{{{', '.join(f'{json.dumps(name)}: {json.dumps(value)}' for name, value in pairs)}}}"


def _answers(name: str) -> st.SearchStrategy[bytes]:
    references = ["//kv/prod/pos\n", "//kv/prod/pos?kv=1\n", "//azure/creds/pos?kv=raw\n"]
    return st.builds(
        lambda first, status, headers, pairs: "".join(
            [first, f"{status}\n", *(f"{line}\n" for line in headers), "\n", _object(pairs)]
        ).encode(),
        st.sampled_from(references if name == "vault_answer" else [""]),
        st.sampled_from([200, 200, 200, 204, 302, 400, 401, 403, 404, 429, 500, 503]),
        st.lists(st.sampled_from(_HEADERS), max_size=2),
        st.lists(st.tuples(st.sampled_from(_MEMBERS[name].split()), _VALUES), max_size=8),
    )


ANSWERS = {name: _answers(name) for name in _MEMBERS}
"""JSON objects of known members with values of every kind, under any status."""
