"""Greenlets: a process that gevent has patched, early or after our modules were loaded."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from secretsource.testing import FakeIssuer, Fault

from ..stores import CLIENT, A
from .programs import script

pytest.importorskip("gevent")

PATCH = """
from gevent import monkey
monkey.patch_all()
"""
GREENLETS = """
import gevent

beats = []

def beat():
    # What stops the hub would leave a gap here.
    while True:
        beats.append(time.monotonic())
        gevent.sleep(0.01)

def longest_gap():
    return max(later - earlier for earlier, later in zip(beats, beats[1:]))

beating = gevent.spawn(beat)
"""


patched = pytest.mark.parametrize(
    "early", [pytest.param(True, id="early", marks=pytest.mark.slow), pytest.param(False, id="late")]
)


def test_a_thousand_greenlets_make_one_request_and_the_hub_goes_on(issuer: FakeIssuer) -> None:
    issuer.latency = 1.0
    printed = script(
        issuer,
        GREENLETS
        + """
waiting = [gevent.spawn(source.token) for _ in range(1000)]
gevent.joinall(waiting, raise_error=True)
print(len(set(id(one.value) for one in waiting)), longest_gap(), source.status().orphaned_threads)
""",
        before=PATCH,
    )
    tokens, gap, orphans = printed.split()
    assert (tokens, orphans) == ("1", "0")
    assert float(gap) < 0.8, "the hub stood still during the request"
    assert issuer.token_requests == 1


def test_a_greenlet_that_is_killed_or_out_of_time_takes_nobody_along(issuer: FakeIssuer) -> None:
    issuer.latency = 0.5
    printed = script(
        issuer,
        GREENLETS
        + """
def impatient():
    with gevent.Timeout(0.1):
        source.token()

first, second, hasty, last = (gevent.spawn(one) for one in (source.token, source.token, impatient, source.token))
gevent.sleep(0.2)
first.kill()
last.kill()
token = second.get(timeout=20)
assert isinstance(hasty.exception, gevent.Timeout), hasty.exception
assert source.token() is token
print("one token")
""",
        # A greenlet that ends by an exception is reported.
        before=PATCH + "import gevent.hub\ngevent.hub.Hub.NOT_ERROR += (__import__('gevent').Timeout,)\n",
    )
    assert printed.split() == ["one", "token"]
    assert issuer.token_requests == 1


@patched
def test_the_pause_before_another_attempt_stops_no_greenlet(issuer: FakeIssuer, early: bool) -> None:
    """Late, as by `gunicorn --preload`: the modules have been loaded before gevent changes what they use."""
    issuer.fail(Fault(status=503), times=2)
    printed = script(
        issuer,
        f"{'' if early else PATCH}{GREENLETS}"
        + """
began = len(beats)
assert source.token() is source.token()
print(len(beats) - began)
""",
        before=PATCH if early else "",
    )
    assert int(printed) >= 10, "greenlets ran on during the pauses"
    assert issuer.token_requests == 3


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_issuer(authority: trustme.CA) -> Iterator[FakeIssuer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with FakeIssuer(latency=0.3, host="localhost", ssl_context=context) as issuer:
        issuer.add_client(CLIENT, A)
        yield issuer


@patched
def test_tls_works_for_greenlets(tls_issuer: FakeIssuer, authority: trustme.CA, tmp_path: Path, early: bool) -> None:
    authorities = tmp_path / "authorities.pem"
    authority.cert_pem.write_to_path(str(authorities))
    printed = script(
        tls_issuer,
        f"{'' if early else PATCH}{GREENLETS}"
        + f"""
safe = new(ca_file={str(authorities)!r})
waiting = [gevent.spawn(safe.token) for _ in range(50)]
gevent.joinall(waiting, raise_error=True)
print(len(set(id(one.value) for one in waiting)))
""",
        before=PATCH if early else "",
    )
    assert printed.split() == ["1"]
    assert tls_issuer.token_requests == 1


def test_a_child_of_a_patched_parent_fetches_for_itself_while_a_greenlet_waits(issuer: FakeIssuer) -> None:
    if sys.platform == "win32":
        pytest.skip("this system has no fork")
    issuer.fail(Fault(hang=True), times=1)
    script(
        issuer,
        GREENLETS
        + """
begin(source)
waiting = gevent.spawn(source.token)
gevent.sleep(0.1)
assert in_child(lambda: source.token(timeout=8)) == 0
""",
        before=PATCH,
    )
    issuer.release()
    assert issuer.token_requests == 2
