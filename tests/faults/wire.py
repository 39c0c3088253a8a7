"""Faults that any server over HTTP may have, whatever it is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from .answers import IN_A_BODY, SECRET
from .peer import (
    Line,
    Script,
    bomb,
    chunk,
    closes,
    dripped,
    endless,
    hangs,
    head,
    raw,
    reply,
    resets,
    says_then_resets,
    then_hangs,
)

NOT_TRUSTED = ("wrong host", "expired", "not yet valid", "other authority", "signed by itself", "TLS 1.1")

# --- redirects --------------------------------------------------------------------------------------------------------


def redirects(same_path: str, other_path: str) -> dict[str, Script]:
    """To strangers, to the same server, and to nowhere that makes sense."""
    targets: dict[str, Callable[[Line], list[str]]] = {
        "http elsewhere": lambda line: [f"{line.peer.places['http']}{same_path}"],
        "https elsewhere": lambda line: [f"{line.peer.places['https']}{same_path}"],
        "elsewhere without a scheme": lambda line: [line.peer.places["http"].removeprefix("http:") + same_path],
        "another path here": lambda line: [other_path],
        "itself": lambda line: [f"{line.peer.origin}{same_path}"],
        "nowhere": lambda line: [],
        "nothing": lambda line: [""],
        "two places": lambda line: [line.peer.places["http"], line.peer.places["https"]],
    }
    made = {
        f"{status} to {name}": _redirect(status, target)
        for status in (300, 301, 302, 303, 307, 308)
        for name, target in targets.items()
    }
    return {**made, "a page with a meta refresh": _meta_refresh}


def _redirect(status: int, target: Callable[[Line], list[str]]) -> Script:
    return lambda line: reply(status, {}, [("Location", place) for place in target(line)])(line)


def _meta_refresh(line: Line) -> None:
    place = line.peer.places["http"]
    page = f'<html><meta http-equiv="refresh" content="0; url={place}"></html>'.encode()
    reply(200, page, {"Content-Type": "text/html", "Refresh": f"0; url={place}"})(line)


# --- JSON that is none ------------------------------------------------------------------------------------------------


def bad_json(good: str) -> dict[str, bytes]:
    """What is not exactly one JSON object, made from one."""
    inside, deep = good[1:-1], '{"":' * 100_000
    return {
        "nothing": b"",
        "blanks": b"   ",
        "null": b"null",
        "a list": f"[{good}]".encode(),
        "a number": b"5",
        "a text": json.dumps(good).encode(),
        "a form": b"access_token=x&token_type=bearer",
        "a web page": f"<html>{IN_A_BODY}{SECRET}</html>".encode(),
        "XML": b'<?xml version="1.0"?><token/>',
        "two objects": f"{good}{good}".encode(),
        "something behind it": f"{good} x".encode(),
        "NUL behind it": f"{good}\0".encode(),
        "a prefix against hijacking": f")]}}',\n{good}".encode(),
        "a comment": f"/* {IN_A_BODY} */ {good}".encode(),
        "single quotes": good.replace('"', "'").encode(),
        "a comma at the end": f"{good[:-1]},}}".encode(),
        "half of it": good[: len(good) // 2].encode(),
        "a BOM": b"\xef\xbb\xbf" + good.encode(),
        "UTF-16": good.encode("utf-16"),
        "UTF-16 without a mark": good.encode("utf-16-le"),
        "UTF-32": good.encode("utf-32"),
        "Latin-1": f'{{"a": "é", {inside}}}'.encode("latin-1"),
        "overlong UTF-8": f'{{"a": "X", {inside}}}'.encode().replace(b"X", b"\xc0\x80"),
        "a surrogate in UTF-8": f'{{"a": "X", {inside}}}'.encode().replace(b"X", b"\xed\xa0\x80"),
        "a control character in a text": f'{{"a": "\x01", {inside}}}'.encode(),
        "a bad escape": f'{{"a": "\\x41", {inside}}}'.encode(),
        "a name twice": f"{{{inside}, {inside}}}".encode(),
        "a name twice inside": f'{{{inside}, "a": {{"b": 1, "b": 1}}}}'.encode(),
        "a name twice by escapes": f'{{{inside}, "a": 1, "\\u0061": 2}}'.encode(),
        "NaN": f'{{{inside}, "a": NaN}}'.encode(),
        "Infinity": f'{{{inside}, "a": [-Infinity]}}'.encode(),
        "5000 digits": f'{{{inside}, "a": {"1" * 5000}}}'.encode(),
        "200 000 lists deep": f'{{{inside}, "a": {"[" * 200_000}{"]" * 200_000}}}'.encode(),
        "100 000 objects deep": f'{{{inside}, "a": {deep}1{"}" * 100_001}'.encode(),
        "100 000 lists side by side": f'{{{inside}, "a": [{"[]," * 99_999}[]]}}'.encode(),
        "a mebibyte of blanks": b" " * (1 << 20),
    }


NOT_JSON_BESIDE_A_STATUS = ("nothing", "null", "a list", "UTF-16", "a name twice", "200 000 lists deep", "5000 digits")


# --- HTTP that is none, or broken off ---------------------------------------------------------------------------------

_CHUNKED = head(200, {"Transfer-Encoding": "chunked"})


def broken(good: bytes) -> dict[str, Script]:
    half = good[: len(good) // 2]
    twice = [("Content-Length", str(len(good))), ("Content-Length", str(len(good) + 1))]
    texts = {
        "Content-Length too long": head(200, {"Content-Length": str(len(good) + 100)}) + good,
        "Content-Length of 10**30": head(200, {"Content-Length": "1" + "0" * 30}) + good,
        "Content-Length negative": head(200, {"Content-Length": "-1"}) + good,
        "Content-Length twice, not the same": head(200, twice) + good,
        "Content-Length a text": head(200, {"Content-Length": "many"}) + good,
        "Content-Length with a sign": head(200, {"Content-Length": f"+{len(good)}"}) + good,
        "Content-Length in hexadecimal": head(200, {"Content-Length": "0x5"}) + good,
        "cut in the status line": b"HTTP/1.1 20",
        "cut in the head": head(200, {"X-Name": IN_A_BODY})[:-6],
        "cut in the body": head(200, {"Content-Length": str(len(good))}) + half,
        "cut in a chunk": _CHUNKED + chunk(half) + b"50\r\n" + half,
        "cut between two chunks": _CHUNKED + chunk(good),
        "cut in the trailer": _CHUNKED + chunk(good) + b"0\r\nX-Name: ",
        "a chunk of no length": _CHUNKED + b"zz\r\n" + good,
        "a chunk of negative length": _CHUNKED + b"-5\r\n" + good,
        "a chunk with a length of a megabyte of digits": _CHUNKED + b"1" * 1_000_000,
        "a chunk longer than it says": _CHUNKED + b"5\r\n" + good + b"\r\n0\r\n\r\n",
        "Transfer-Encoding gzip, chunked": head(200, {"Transfer-Encoding": "gzip, chunked"}) + good,
        "Transfer-Encoding unknown": head(200, {"Transfer-Encoding": "x"}) + good,
        "no HTTP: SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
        "no HTTP: HTTP/2": b"\0\0\x12\4\0\0\0\0\0" + bytes(18),
        "no HTTP: a TLS alert": b"\x15\x03\x01\x00\x02\x02\x46",
        "no HTTP: JSON alone": good,
        "no HTTP: HTTP/0.9": b"<html>" + IN_A_BODY.encode(),
        "a status that is no number": b"HTTP/1.1 abc Words\r\n\r\n" + good,
        "a status of two digits": b"HTTP/1.1 20 Words\r\n\r\n" + good,
        "a header with NUL": head(200, {"X-Name": "\0"}) + good,
        "a header with a bare line feed": b"HTTP/1.1 200 OK\r\nX-Na\nme: x\r\n\r\n" + good,
        "a header without a colon": b"HTTP/1.1 200 OK\r\nX-Name\r\n\r\n" + good,
        "a header name with a blank": b"HTTP/1.1 200 OK\r\nX Name: x\r\n\r\n" + good,
        "a header of 300 KB": head(200, {"X-Name": "x" * 300_000}) + good,
        "10 000 headers": head(200, [("X-Name", "xxxxxxxxxx")] * 10_000) + good,
    }
    return {
        **{name: raw(data) for name, data in texts.items()},
        "closed with no word": closes,
        "reset after the request": resets,
        "reset in the head": says_then_resets(b"HTTP/1.1 200 OK\r\nX-Na"),
        "reset in the body": says_then_resets(head(200, {"Content-Length": "100000"}) + half),
        "an endless head": endless(b"X-Name: value\r\n" * 1000, after=b"HTTP/1.1 200 OK\r\n"),
        "an endless header": endless(b"x" * 65536, after=b"HTTP/1.1 200 OK\r\nX-Name: "),
        "an endless trailer": endless(b"X-Name: value\r\n" * 1000, after=_CHUNKED + chunk(good) + b"0\r\n"),
    }


def odd_but_whole(good: bytes) -> dict[str, Script]:
    """What is unusual and still says exactly one thing."""
    length = {"Content-Length": str(len(good))}
    half = len(good) // 2
    whole = head(200, length) + good
    chunks = chunk(good[:half]) + chunk(good[half:])
    texts = {
        "no length": head(200) + good,
        "HTTP/1.0": head(200, version="1.0") + good,
        "Content-Length twice the same": head(200, [*length.items(), *length.items()]) + good,
        "more than its length": whole + IN_A_BODY.encode(),
        "a second answer behind it": whole + head(200, length) + good,
        "chunks": _CHUNKED + chunks + b"0\r\n\r\n",
        "chunks with extensions": _CHUNKED + chunks.replace(b"\r\n", b";x=y\r\n", 1) + b"0\r\n\r\n",
        "a trailer": _CHUNKED + chunks + b"0\r\nContent-Encoding: gzip\r\n\r\n",
        "100 Continue before it": b"HTTP/1.1 100 Continue\r\n\r\n" + whole,
        "103 Early Hints a thousand times": b"HTTP/1.1 103 X\r\nLink: <x>\r\n\r\n" * 1000 + whole,
        "another content type": head(200, {**length, "Content-Type": "text/html; charset=utf-16"}) + good,
        "cookies": head(200, [*length.items(), ("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")]) + good,
        "an encoding of identity": head(200, {**length, "Content-Encoding": "Identity"}) + good,
        "a redirect header with 200": head(200, {**length, "Location": "http://elsewhere.test/"}) + good,
    }
    return {**{name: raw(data) for name, data in texts.items()}, "one byte in a packet": dripped(whole, seconds=0.001)}


# --- too much ---------------------------------------------------------------------------------------------------------

_20_MB = 20_000_000
_PIECE = b"x" * 65536


def _too_much(status: int = 200, headers: Mapping[str, str] | None = None) -> Script:
    length = {"Content-Length": str(_20_MB)} if headers is None else headers
    return endless(_PIECE, after=head(status, length), bytes_at_most=_20_MB)


MEGABYTES: dict[str, Script] = {
    "20 MB": _too_much(),
    "20 MB with 401": _too_much(401),
    "20 MB with 503": _too_much(503),
    "20 MB in chunks": endless(chunk(_PIECE), after=_CHUNKED, bytes_at_most=_20_MB),
    "20 MB in one chunk": endless(_PIECE, after=_CHUNKED + b"%x\r\n" % _20_MB, bytes_at_most=_20_MB),
    "20 MB in small chunks": endless(chunk(b"x" * 100) * 100, after=_CHUNKED, bytes_at_most=_20_MB),
    "no end": endless(_PIECE, after=head(200)),
    "no end in chunks": endless(chunk(_PIECE), after=_CHUNKED),
    "one byte more than a mebibyte": reply(200, b" " * ((1 << 20) + 1)),
}

_BOMB = bomb(200, wbits=31)


def _encoded(*encodings: str, body: bytes = _BOMB) -> Script:
    return reply(200, body, [("Content-Encoding", encoding) for encoding in encodings])


COMPRESSED: dict[str, Script] = {
    "a bomb of gzip": _encoded("gzip"),
    "a bomb of x-gzip": _encoded("x-gzip"),
    "a bomb of deflate": _encoded("deflate", body=bomb(200, wbits=15)),
    "br": _encoded("br"),
    "zstd": _encoded("zstd"),
    "compress": _encoded("compress"),
    "an encoding that nobody knows": _encoded(IN_A_BODY),
    "an encoding without a name": _encoded(""),
    "GZIP in capitals": _encoded("GZIP"),
    "identity and gzip": _encoded("identity, gzip"),
    "gzip a hundred times": _encoded(", ".join(["gzip"] * 100)),
    "a hundred headers of gzip": _encoded(*["gzip"] * 100),
    "gzip with 401": reply(401, _BOMB, {"Content-Encoding": "gzip"}),
    "gzip with 503": reply(503, _BOMB, {"Content-Encoding": "gzip"}),
}

# --- before the request -----------------------------------------------------------------------------------------------

HANDSHAKES: dict[str, Script] = {
    "plain http on the port of TLS": raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "SSH on the port of TLS": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
}
EARLY_BREAKS: dict[str, Script] = {"closed before the request": closes, "reset before the request": resets}


def _hears_then(fault: Script) -> Script:
    def script(line: Line) -> None:
        line.receive()
        fault(line)

    return script


# Not before it: where a reset is there first, CPython 3.11 leaves the socket of the client to its garbage collection.
BREAKS_IN_A_HANDSHAKE: dict[str, Script] = {
    "closed in the handshake": _hears_then(closes),
    "reset in the handshake": _hears_then(resets),
}

# --- no end -----------------------------------------------------------------------------------------------------------

_HEAD = head(200, {"Content-Length": "100000"})
DRIPS: dict[str, Script] = {
    "no answer": hangs,
    "a drip of the status line": dripped(b"HTTP/1.1 200 " + b"O" * 1000),
    "a drip of the head": dripped(b"X-Name: value\r\n" * 1000, after=b"HTTP/1.1 200 OK\r\n"),
    "a drip of the body": dripped(b" " * 1000, after=_HEAD),
    "a drip of chunks": dripped(chunk(b" ") * 1000, after=_CHUNKED),
    "a drip of trailers": dripped(b"X-Name: value\r\n" * 1000, after=_CHUNKED + chunk(b"{}") + b"0\r\n"),
    "a drip of 100 Continue": dripped(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "100 Continue without end": endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 20, pause=0.005),
    "a head and nothing more": then_hangs(_HEAD),
    "a body that stops": then_hangs(_HEAD + b"{" + b" " * 1000),
    "chunks that stop": then_hangs(_CHUNKED + chunk(b"{}")),
}

# It is one transport that reads every answer; where it is not a token that is asked for, these show that it does.
FEW_DRIPS = ("no answer", "a drip of the head", "a drip of the body")
FEW_TLS_DRIPS = ("a drip of the handshake",)

_HANDSHAKE = b"\x16\x03\x03\x40\x00" + bytes(1000)
TLS_DRIPS: dict[str, tuple[Script, bool]] = {
    "no handshake": (hangs, True),
    "a drip of the handshake": (dripped(_HANDSHAKE), True),
    "a handshake that stops": (then_hangs(_HANDSHAKE[:100]), True),
    "no answer": (hangs, False),
    "a drip of the head": (DRIPS["a drip of the head"], False),
    "a drip of the body": (DRIPS["a drip of the body"], False),
    "a drip of chunks": (DRIPS["a drip of chunks"], False),
}
