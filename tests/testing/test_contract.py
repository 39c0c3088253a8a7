"""BackendContract, tried on a backend that keeps it and on others that each break it in one way."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from secretsource import Document, MalformedSecret, SecretNotFound, SecretReference
from secretsource.backends import Stored
from secretsource.errors import BackendError, BackendUnavailable
from secretsource.testing import BackendContract


class Memory:
    """A store in a dictionary; a Writable."""

    options = frozenset({"format"})
    ttl = 300.0

    def __init__(self, kept: dict[str, dict[str, Any]]) -> None:
        self.kept = kept

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        stored = self.read_whole(reference, timeout=timeout)
        if stored.version is None:
            raise self.error(SecretNotFound, reference, "nothing is kept there")
        if "client_id" not in stored.fields:
            raise self.error(MalformedSecret, reference, "it has no client_id")
        return Document(stored.fields, version=stored.version)

    def read_whole(self, reference: SecretReference, *, timeout: float) -> Stored:
        fields = self.kept.get(reference.path)
        return Stored({}, None) if fields is None else Stored(dict(fields), self.version(fields))

    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        if self.read_whole(reference, timeout=timeout).version != version:
            raise self.error(BackendUnavailable, reference, "somebody else was faster")
        self.kept[reference.path] = dict(fields)
        return self.version(fields)

    def version(self, fields: Mapping[str, Any]) -> str:
        return f"v{hash(tuple(sorted(fields.items())))}"

    def error(self, kind: type[BackendError], reference: SecretReference, what: str) -> BackendError:
        return kind(what, reference=str(reference), store=reference.store, hint="Look there")


class OfMemory(BackendContract):
    made = Memory

    @pytest.fixture(autouse=True)
    def _kept(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {"odd": {"client_secret": "not-a-real-secret"}}

    def backend(self) -> Memory:
        return self.made(self.kept)

    def store(self, fields: Mapping[str, str]) -> str:
        self.kept["pos"] = dict(fields)
        return "memory:pos"

    def change(self, reference: str, fields: Mapping[str, str]) -> None:
        self.kept["pos"] = dict(fields)

    def missing_reference(self) -> str:
        return "memory:nothing-here"

    def broken_references(self) -> list[tuple[str, type[BackendError]]]:
        return [("memory:odd", MalformedSecret)]


class TestMemory(OfMemory):
    """The whole contract."""


class Talkative(Memory):
    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        document = super().read(reference, fresh=fresh, timeout=timeout)
        logging.getLogger("a.chatty.sdk").debug("got %s", document.fields["client_secret"].reveal())
        return document


class Chained(Memory):
    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        try:
            return Document(self.kept[reference.path])
        except KeyError:
            raise self.error(SecretNotFound, reference, "nothing is kept there") from None


class Caching(Memory):
    def __init__(self, kept: dict[str, dict[str, Any]]) -> None:
        super().__init__(kept)
        self.cache: dict[str, Document] = {}

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        if reference.path not in self.cache:
            self.cache[reference.path] = super().read(reference, fresh=fresh, timeout=timeout)
        return self.cache[reference.path]


class Boundless(Memory):
    ttl = -1


class Tolerant(Memory):
    options = frozenset({"format", "no_such_option"})


class Overwriting(Memory):
    def write_whole(
        self, reference: SecretReference, fields: Mapping[str, Any], *, version: str | None, timeout: float
    ) -> str:
        self.kept[reference.path] = dict(fields)
        return self.version(fields)


class Unversioned(Memory):
    def version(self, fields: Mapping[str, Any]) -> str:
        return "latest"


class Repeating(Memory):
    def error(self, kind: type[BackendError], reference: SecretReference, what: str) -> BackendError:
        return super().error(kind, reference, f"{what}, but only {self.kept}")


@pytest.mark.parametrize(
    ("made", "broken"),
    [
        (Talkative, "test_nothing_read_is_shown_or_logged"),
        (Chained, "test_what_is_missing_is_not_found"),
        (Repeating, "test_what_is_missing_is_not_found"),
        (Caching, "test_a_fresh_read_sees_a_change_at_once"),
        (Unversioned, "test_version_is_a_text_or_none_and_changes_with_the_content"),
        (Boundless, "test_declares_its_options_and_its_ttl"),
        (Tolerant, "test_refuses_an_option_that_it_does_not_declare"),
        (Overwriting, "test_a_write_against_an_old_version_is_refused_and_loses_nothing"),
    ],
)
def test_each_breach_fails_the_test_that_is_named_after_it(
    made: type[Memory],
    broken: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    contract = OfMemory()
    contract.made = made
    contract.kept = {}
    given = (caplog, capfd) if broken == "test_nothing_read_is_shown_or_logged" else ()
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(contract, broken)(*given)


def test_a_forked_child_that_differs_or_dies_is_noticed() -> None:
    module = sys.modules[BackendContract.__module__]
    assert module._in_child(lambda: True)
    assert not module._in_child(lambda: False)
    assert not module._in_child(lambda: bool(1 / 0))
