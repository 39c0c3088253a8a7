"""A source is one per process: it is not handed to another one, and not doubled."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from secretsource import CredentialsSource, TokenAuth, TokenSource
from secretsource.testing import FakeIssuer

from ..stores import CLIENT, A
from .programs import script


@dataclass
class Settings:
    """What a program may keep its source in."""

    source: TokenSource


@pytest.mark.parametrize("take", [pickle.dumps, copy.deepcopy], ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("wrap", [lambda source: source, Settings, TokenAuth], ids=["itself", "settings", "auth"])
def test_a_source_is_neither_pickled_nor_copied_and_says_what_to_do_instead(
    source: TokenSource, take: Any, wrap: Any
) -> None:
    with pytest.raises(TypeError, match=r"reference.*of its own.*TokenSource\.from_config"):
        take(wrap(source))


def test_a_source_with_a_token_is_no_more_pickled_than_one_without(source: TokenSource) -> None:
    token = source.token()
    with pytest.raises(TypeError) as caught:
        pickle.dumps(source)
    assert token.access_token not in str(caught.value)


def test_credentials_that_were_read_are_not_pickled(tmp_path: Path) -> None:
    document = tmp_path / "pos.json"
    document.write_text(f'{{"client_id": "{CLIENT}", "client_secret": "{A}"}}')
    document.chmod(0o600)
    credentials = CredentialsSource(f"file://{document}")
    credentials.current()
    with pytest.raises(TypeError, match="Give the other process the reference"):
        pickle.dumps(credentials)


def test_a_source_that_is_an_argument_of_a_spawned_process_is_refused_before_that_starts(source: TokenSource) -> None:
    process = multiprocessing.get_context("spawn").Process(target=repr, args=(source,))
    with pytest.raises(TypeError, match="the reference"):
        process.start()


def test_a_source_that_is_an_argument_of_a_pools_task_is_refused(source: TokenSource) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        task = pool.submit(repr, source)
        with pytest.raises(TypeError, match="the reference"):
            task.result(60)


def test_a_spawned_process_that_is_given_the_reference_has_a_source_of_its_own(
    issuer: FakeIssuer, tmp_path: Path
) -> None:
    document = tmp_path / "pos.json"
    document.write_text(f'{{"client_id": "{CLIENT}", "client_secret": "{A}"}}')
    document.chmod(0o600)
    printed = script(
        issuer,
        f"""
        import multiprocessing

        def work(reference, token_url):
            print(TokenSource(reference, token_url=token_url).token().access_token, flush=True)

        if __name__ == "__main__":
            work("file://{document}", sys.argv[1])
            process = multiprocessing.get_context("spawn").Process(
                target=work, args=("file://{document}", sys.argv[1])
            )
            process.start()
            process.join(30)
            assert process.exitcode == 0
        """,
        file=tmp_path / "program.py",
    )
    assert len(set(printed.split())) == 2 == issuer.token_requests
