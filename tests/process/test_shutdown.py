"""The end of the interpreter: atexit, threads that go on, objects that are taken down, and interpreters inside one."""

from __future__ import annotations

import sys
import time

import pytest

from secretsource.testing import FakeIssuer, Fault

from .programs import script


def test_token_works_in_atexit(issuer: FakeIssuer) -> None:
    printed = script(
        issuer,
        """
        import atexit
        atexit.register(lambda: print("kept" if source.token() is kept else "other"))
        atexit.register(lambda: print(len(new().token().access_token) > 20))
        kept = source.token()
        """,
    )
    assert printed.split() == ["True", "kept"]


def test_a_program_ends_at_once_although_a_request_hangs(issuer: FakeIssuer) -> None:
    issuer.fail(Fault(hang=True))
    began = time.monotonic()
    printed = script(
        issuer,
        """
        try:
            source.token(timeout=0.2)
        except SecretSourceError as error:
            print(type(error).__name__)
        """,
    )
    issuer.release()
    assert printed.split() == ["DeadlineExceeded"]
    assert time.monotonic() - began < 9, "the request itself has ten seconds"


def test_a_program_ends_while_its_daemon_threads_ask_for_tokens(issuer: FakeIssuer) -> None:
    printed = script(
        issuer,
        """
        def ask():
            while True:
                source.token(force=True)

        for _ in range(4):
            threading.Thread(target=ask, daemon=True).start()
        source.token()
        time.sleep(0.3)
        print("the end")
        """,
    )
    assert printed.split() == ["the", "end"]


@pytest.mark.parametrize("what", ["a first token", "a token whose request hangs"])
def test_an_object_that_is_taken_down_with_the_interpreter_has_the_kept_token_or_a_clear_error_at_once(
    issuer: FakeIssuer, what: str
) -> None:
    """No thread runs any more, and nothing can be imported; a request needs both."""
    issuer.fail(Fault(), times=1)
    issuer.fail(Fault(hang=True))
    printed = script(
        issuer,
        f"""
        class Last:
            def __init__(self, source):
                self.source = source

            def __del__(self):
                began = time.monotonic()
                try:
                    print(self.source.token() is kept)
                except SecretSourceError as error:
                    print(error if time.monotonic() - began < 5 else "late")

        kept = source.token()
        sys.modules["keeps it until then"] = Last(source)
        other = new()
        if {what!r} == "a token whose request hangs":
            begin(other)
        sys.modules["keeps that as well"] = Last(other)
        """,
    )
    issuer.release()
    assert sorted(printed.splitlines())[0] == "True"
    assert "the interpreter is shutting down" in printed
    assert len(printed.splitlines()) == 2


def test_an_interpreter_inside_another_has_sources_of_its_own(issuer: FakeIssuer) -> None:
    """As in mod_wsgi. One whose lock is its own cannot load OpenSSL in each version of Python, so that is not tried."""
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    pytest.importorskip(name, reason="this Python has no interpreters inside one")
    printed = script(
        issuer,
        f"""
        import {name} as interpreters

        program = f'''
        import _thread, sys, time
        sys.path[:], sys.argv[:] = {{sys.path!r}}, {{sys.argv!r}}
        from secretsource import ClientCredentials, TokenSource
        source = TokenSource(ClientCredentials("pos", "not-a-real-secret-a"), token_url=sys.argv[1])
        assert source.token() is source.token()
        print(source.token().access_token, flush=True)
        while _thread._count():  # it is not to be closed before its threads have ended
            time.sleep(0.01)
        '''.replace(chr(10) + "        ", chr(10))

        create = interpreters.create
        inside = create("legacy") if sys.version_info >= (3, 13) else create(isolated=False)
        failure = interpreters.run_string(inside, program)
        assert failure is None, failure
        interpreters.destroy(inside)
        print(source.token().access_token)
        """,
    )
    assert len(set(printed.split())) == 2 == issuer.token_requests
