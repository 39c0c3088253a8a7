"""BackendContract: the tests that every backend must pass.

    class TestMyBackend(BackendContract):
        @pytest.fixture(autouse=True)
        def _store(self):
            self.server = FakeServerOfMine()

        def backend(self):
            return MyBackend(self.server.address)

        def store(self, fields):
            self.server.put("app/pos", dict(fields))
            return "mine:app/pos"

        def change(self, reference, fields):
            self.server.put("app/pos", dict(fields))

        def missing_reference(self):
            return "mine:app/nothing-here"

pytest collects it under the name of the subclass. Each test gets a new object of the class.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import logging
import os
import pickle
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from ..backends import Backend, Writable, backend_for
from ..credentials import Document, interpret
from ..errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    DeadlineExceeded,
    SecretNotFound,
    SecretSourceError,
)
from ..reference import SecretReference
from ..secret import Secret

__all__ = ["BackendContract"]

_CLIENT_ID = "contract-client"
_CANARY = "not-a-real-secret-canary-7f3a91"
_CHANGED = "not-a-real-secret-canary-after-change-c20b54"
_LOSER = "not-a-real-secret-canary-of-the-loser-91e07d"
_TIMEOUT = 10.0
_CHILD_WITHIN = 30.0


class BackendContract:
    """Subclass it with a name that begins with Test, and give the four methods that raise NotImplementedError here.

    `changes = False` for a store that cannot change while the program runs, `writes = False` where a Writable refuses
    to write references of this shape (with a ConfigurationError, which is tested).
    """

    changes: bool = True
    writes: bool = True

    def backend(self) -> Backend:
        """A backend that reads the store of this test."""
        raise NotImplementedError

    def store(self, fields: Mapping[str, str]) -> str:
        """Put a document with `client_id` and `client_secret` into the store, and return its reference.

        A store that keeps one text keeps the secret.
        """
        raise NotImplementedError

    def change(self, reference: str, fields: Mapping[str, str]) -> None:
        """Replace that document, behind the backend's back."""
        raise NotImplementedError

    def missing_reference(self) -> str:
        """A well-formed reference under which the store has nothing. A Writable can write there."""
        raise NotImplementedError

    def broken_references(self) -> Iterable[tuple[str, type[BackendError]]]:
        """Further references that cannot be read, each with the error that must be raised: denied, malformed …"""
        return ()

    # what it declares

    def test_declares_its_options_and_its_ttl(self) -> None:
        backend = self.backend()
        assert isinstance(backend, Backend), "a backend has options, ttl and read"
        assert isinstance(backend.options, frozenset), "options is a frozenset"
        assert all(isinstance(option, str) for option in backend.options), "options are names"
        ttl = backend.ttl
        assert ttl is None or (isinstance(ttl, (int, float)) and not isinstance(ttl, bool) and ttl >= 0), (
            "ttl is a number of seconds, or None where the store cannot change"
        )

    def test_read_takes_fresh_and_timeout_by_name(self) -> None:
        parameters = inspect.signature(self.backend().read).parameters
        for name in ("fresh", "timeout"):
            assert name in parameters, f"read takes {name}="
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY, f"{name} is given by name only"

    def test_refuses_an_option_that_it_does_not_declare(self) -> None:
        reference = SecretReference.parse(self.store(_fields(_CANARY)))
        options = tuple(sorted([*reference.options, ("no_such_option", "x")]))
        with pytest.raises(ConfigurationError):
            backend_for(dataclasses.replace(reference, options=options), {reference.store: self.backend()})

    # what it reads

    def test_reads_what_was_stored(self) -> None:
        reference = self.store(_fields(_CANARY))
        document = _read(self.backend(), reference)
        assert isinstance(document, Document), "read gives a Document"
        assert _secret(document, reference) == _CANARY, "the secret is the one that was stored"

    def test_version_is_a_text_or_none_and_changes_with_the_content(self) -> None:
        reference, backend = self.store(_fields(_CANARY)), self.backend()
        before = _read(backend, reference).version
        assert before is None or isinstance(before, str), "a version is a str, or None"
        self._change(reference)
        after = _read(backend, reference, fresh=True).version
        assert before is None or before != after, "other content has another version"

    def test_a_fresh_read_sees_a_change_at_once(self) -> None:
        reference, backend = self.store(_fields(_CANARY)), self.backend()
        _read(backend, reference)
        self._change(reference)
        assert _secret(_read(backend, reference, fresh=True), reference) == _CHANGED, "fresh=True passes every cache"

    def test_sixteen_threads_read_the_same(self) -> None:
        reference, backend = self.store(_fields(_CANARY)), self.backend()
        with ThreadPoolExecutor(16) as threads:
            documents = list(threads.map(lambda _: _read(backend, reference), range(64)))
        assert {_secret(document, reference) for document in documents} == {_CANARY}
        assert len({document.version for document in documents}) == 1, "the same content has the same version"

    def test_a_short_timeout_ends_in_an_answer_or_in_an_error_of_ours(self) -> None:
        reference, backend = self.store(_fields(_CANARY)), self.backend()
        began = time.monotonic()
        with contextlib.suppress(DeadlineExceeded, BackendUnavailable):
            backend.read(SecretReference.parse(reference), fresh=True, timeout=0.001)
        assert time.monotonic() - began < _TIMEOUT, "read looks at its timeout"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_forked_child_can_read(self) -> None:
        reference, backend = self.store(_fields(_CANARY)), self.backend()
        _read(backend, reference)
        assert _in_child(lambda: _secret(_read(backend, reference, fresh=True), reference) == _CANARY)

    # what it must not show

    def test_nothing_read_is_shown_or_logged(
        self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        backend = self.backend()
        reference = self.store(_fields(_CANARY))
        with _everything_logged(caplog), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            document = _read(backend, reference)
            _read(backend, reference, fresh=True)
            with pytest.raises(SecretSourceError):
                _read(backend, self.missing_reference())
        printed = capfd.readouterr()
        for where, text in [
            ("the document", f"{document!r} {document!s} {document:>9}"),
            ("the backend", repr(backend)),
            ("the log", "\n".join(_shown(record) for record in caplog.records)),
            ("standard output or error", printed.out + printed.err),
            ("a warning", " ".join(str(warning.message) for warning in warned)),
        ]:
            assert _CANARY not in text, f"the secret shows in {where}"

    def test_a_document_is_not_pickled(self) -> None:
        document = _read(self.backend(), self.store(_fields(_CANARY)))
        with pytest.raises(TypeError):
            pickle.dumps(document)

    # how it fails

    def test_what_is_missing_is_not_found(self) -> None:
        self.store(_fields(_CANARY))
        self._fails(self.missing_reference(), SecretNotFound)

    def test_what_cannot_be_read_is_an_error_of_its_class(self) -> None:
        broken = list(self.broken_references())
        if not broken:
            pytest.skip("no broken_references() are given")
        for reference, error in broken:
            self._fails(reference, error)

    # what a store that can be written does

    def test_the_whole_is_read_back_as_it_was_written(self) -> None:
        backend, reference = self._writable(), SecretReference.parse(self.missing_reference())
        nothing = _whole(backend, reference)
        assert nothing == ({}, None), "where nothing is, read_whole gives an empty mapping and version None"
        fields = {**_fields(_CANARY), "issuer": "https://issuer.example/"}
        version = backend.write_whole(reference, fields, version=None, timeout=_TIMEOUT)
        assert _whole(backend, reference) == (fields, version), "what is read is what was written"
        assert _secret(_read(backend, str(reference), fresh=True), str(reference)) == _CANARY

    def test_a_write_against_an_old_version_is_refused_and_loses_nothing(self) -> None:
        backend, reference = self._writable(), SecretReference.parse(self.missing_reference())
        first = backend.write_whole(reference, _fields(_CANARY), version=None, timeout=_TIMEOUT)
        second = backend.write_whole(reference, _fields(_CHANGED), version=first, timeout=_TIMEOUT)
        assert second != first, "each write has its own version"
        for old in (first, None):
            with pytest.raises(BackendUnavailable) as caught:
                backend.write_whole(reference, _fields(_LOSER), version=old, timeout=_TIMEOUT)
            _check_error(caught.value, str(reference), (_LOSER, _CANARY, _CHANGED))
        assert _whole(backend, reference) == (_fields(_CHANGED), second), "a refused write changes nothing"

    def test_what_is_not_written_says_so(self) -> None:
        backend = self.backend()
        if self.writes or not isinstance(backend, Writable):
            pytest.skip("nothing is refused because of its shape")
        with pytest.raises(ConfigurationError) as caught:
            backend.write_whole(
                SecretReference.parse(self.missing_reference()), _fields(_CANARY), version=None, timeout=_TIMEOUT
            )
        assert caught.value.hint, "the error says how to change it instead"
        assert _CANARY not in f"{caught.value} {vars(caught.value)}", "an error holds nothing that was written"

    def _writable(self) -> Writable:
        backend = self.backend()
        if not self.writes or not isinstance(backend, Writable):
            pytest.skip("this backend does not write")
        return backend

    def _change(self, reference: str) -> None:
        if not self.changes:
            pytest.skip("this store does not change while the program runs")
        self.change(reference, _fields(_CHANGED))

    def _fails(self, reference: str, error: type[BackendError]) -> None:
        with pytest.raises(error) as caught:
            _read(self.backend(), reference)
        _check_error(caught.value, reference, (_CANARY, _CHANGED))


def _fields(secret: str) -> dict[str, str]:
    return {"client_id": _CLIENT_ID, "client_secret": secret}


def _read(backend: Backend, reference: str, *, fresh: bool = False) -> Document:
    return backend.read(SecretReference.parse(reference), fresh=fresh, timeout=_TIMEOUT)


def _whole(backend: Writable, reference: SecretReference) -> tuple[dict[str, str], str | None]:
    """What is kept there, its texts in clear whether the backend wraps them or not."""
    fields, version, *_ = backend.read_whole(reference, timeout=_TIMEOUT)
    clear = {name: value.reveal() if isinstance(value, Secret) else value for name, value in fields.items()}
    return clear, version


def _secret(document: Document, reference: str) -> str:
    """The secret that the document means, wherever in it the store keeps it."""
    meaning = interpret(document, SecretReference.parse(reference), _CLIENT_ID)
    return meaning.credentials.client_secret.reveal()


def _check_error(error: BackendError, reference: str, secrets: Iterable[str]) -> None:
    canonical = str(SecretReference.parse(reference))
    assert error.reference == canonical, "an error names its reference in canonical form"
    assert error.store == canonical.partition(":")[0], "an error names its store"
    assert error.hint, "an error says what to do, in its hint"
    assert error.__cause__ is None, "an error holds no exception of another library: raise it outside the except block"
    assert error.__context__ is None, (
        "an error holds no exception of another library: raise it outside the except block"
    )
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=False).format())
    shown += repr(error) + repr(vars(error)) + repr(error.args)
    assert not any(secret in shown for secret in secrets), "an error holds nothing that was read"


@contextlib.contextmanager
def _everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with contextlib.ExitStack() as levels:
        for name in [None, *logging.root.manager.loggerDict]:
            levels.enter_context(caplog.at_level(1, logger=name))
        yield


def _shown(record: logging.LogRecord) -> str:
    return f"{record.getMessage()} {record.args!r} {record.exc_text or ''} {record.exc_info!r}"


def _in_child(check: Callable[[], bool]) -> bool:
    """Whether a forked child finds the same; the child ends for sure."""
    with warnings.catch_warnings():
        # Python 3.12 and newer warn of forking with threads: that is what a program does that meets this.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os._exit(0 if check() else 1)
        finally:  # also where the check raised: nothing of the parent's pytest may run here
            os._exit(2)
    ends_at = time.monotonic() + _CHILD_WITHIN
    while time.monotonic() < ends_at:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
