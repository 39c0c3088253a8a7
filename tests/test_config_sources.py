"""From a configuration to a token, and no way from one environment into another."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from secretsource import ConfigurationError, TokenSource
from secretsource.config import Settings
from secretsource.source import ConfiguredSource, _configured
from secretsource.testing import FakeIssuer, secret_file
from secretsource.testing.fixtures import fake_issuer

from .configurations import written
from .stores import in_threads

__all__ = ["fake_issuer"]

SECRET = "not-a-real-secret"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRETSOURCE_ENV", "SECRETSOURCE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def issuer(fake_issuer: FakeIssuer) -> FakeIssuer:
    fake_issuer.add_client("pos", SECRET, scopes=["orders.read"])
    fake_issuer.add_client("stock", SECRET)
    return fake_issuer


@pytest.fixture
def staging() -> Iterator[FakeIssuer]:
    with FakeIssuer() as issuer:
        issuer.add_client("pos", SECRET)
        yield issuer


@pytest.fixture
def shop(tmp_path: Path, issuer: FakeIssuer, staging: FakeIssuer) -> Path:
    """A file with two environments, each with an issuer and documents of its own."""
    for environment, of in (("staging", staging), ("production", issuer)):
        for client in ("pos", "stock"):
            secret_file(tmp_path / environment, client, SECRET, issuer=of.url, environment=environment)
    return written(
        tmp_path,
        f"""
[defaults]
credentials = "file:{{environment}}/{{client}}.json"
[environments.staging]
issuer = "{staging.url}"
[environments.production]
production = true
require_binding = true
issuer = "{issuer.url}"
[clients.pos]
[clients.pos.environments.production]
scope = "orders.read"
[clients.stock]
""",
    )


def refused(path: Path, client: str = "pos", environment: str | None = "production") -> str:
    """The text of the error with which a token is refused."""
    source = TokenSource.from_config(client, environment, path=path)
    with pytest.raises(ConfigurationError) as caught:
        source.token()
    source.close()
    return str(caught.value)


# --- a token ----------------------------------------------------------------------------------------------------------


def test_a_client_of_a_file_gets_a_token(shop: Path, issuer: FakeIssuer) -> None:
    token = TokenSource.from_config("pos", "production", path=shop, production=True).token()
    assert issuer.accepts(token.access_token)
    assert token.scopes == ("orders.read",)


def test_the_environment_and_the_file_may_come_from_variables(
    shop: Path, staging: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRETSOURCE_ENV", "staging")
    monkeypatch.setenv("SECRETSOURCE_CONFIG", str(shop))
    source = TokenSource.from_config("pos")
    assert staging.accepts(source.token().access_token)
    assert source is TokenSource.from_config("pos", "staging", path=shop)
    assert TokenSource.from_config("pos", "production") is not source, "the argument goes over the variable"


def test_its_path_is_logged_once(shop: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "secretsource"):
        for _ in range(3):
            TokenSource.from_config("pos", "staging", path=shop)
    said = [record.getMessage() for record in caplog.records if str(shop) in record.getMessage()]
    assert len(said) == 1
    assert "client 'pos' in environment 'staging'" in said[0]


# --- one object a client, environment and file ------------------------------------------------------------------------


def test_whoever_asks_again_gets_the_same_object(shop: Path, tmp_path: Path) -> None:
    source = TokenSource.from_config("pos", "staging", path=shop)
    assert TokenSource.from_config("pos", "staging", path=str(shop)) is source
    assert TokenSource.from_config("pos", "production", path=shop) is not source
    assert TokenSource.from_config("stock", "staging", path=shop) is not source
    link = tmp_path / "link.toml"
    link.symlink_to(shop)
    assert TokenSource.from_config("pos", "staging", path=link) is source


def test_threads_that_ask_together_get_one_object(shop: Path) -> None:
    found = in_threads(16, lambda: TokenSource.from_config("pos", "staging", path=shop))
    assert {id(each) for each in found} == {id(found[0])}
    assert isinstance(found[0], TokenSource)


def test_leaving_a_with_does_not_close_it(shop: Path, staging: FakeIssuer) -> None:
    with TokenSource.from_config("pos", "staging", path=shop) as source:
        token = source.token()
    assert source.token() is token
    assert TokenSource.from_config("pos", "staging", path=shop) is source


def test_leaving_an_async_with_does_not_close_it(shop: Path) -> None:
    import asyncio

    async def work() -> None:
        async with TokenSource.from_config("pos", "staging", path=shop) as source:
            token = await source.atoken()
        assert await source.atoken() is token

    asyncio.run(work())


def test_after_close_another_one_is_made(shop: Path) -> None:
    source = TokenSource.from_config("pos", "staging", path=shop)
    source.close()
    with pytest.raises(ConfigurationError, match="is closed"):
        source.token()
    other = TokenSource.from_config("pos", "staging", path=shop)
    assert other is not source
    assert other.token().access_token


def test_one_that_was_closed_at_this_moment_is_not_given_out(shop: Path) -> None:
    source = TokenSource.from_config("pos", "staging", path=shop)
    TokenSource.close(source)  # as close() does before it is taken out
    another = TokenSource.from_config("pos", "staging", path=shop)
    assert another is not source
    assert another.token() is TokenSource.from_config("pos", "staging", path=shop).token()


def test_the_name_of_a_client_is_a_text(shop: Path) -> None:
    with pytest.raises(ConfigurationError, match="name of a client is a str"):
        TokenSource.from_config(b"pos", "staging", path=shop)  # type: ignore[arg-type]


def test_a_file_that_changes_changes_nothing_for_an_object_that_is_there(shop: Path, staging: FakeIssuer) -> None:
    source = TokenSource.from_config("pos", "staging", path=shop)
    shop.write_text("this is no TOML")
    assert TokenSource.from_config("pos", "staging", path=shop) is source
    assert staging.accepts(source.token().access_token)
    source.close()
    with pytest.raises(ConfigurationError, match="is not valid toml"):
        TokenSource.from_config("pos", "staging", path=shop)


def test_the_only_environment_is_found_without_reading_the_file_again(tmp_path: Path) -> None:
    text = '[environments.test]\nissuer = "https://pos.example.com"\ncredentials = "env:POS"\n[clients.pos]\n'
    path = written(tmp_path, text)
    source = TokenSource.from_config("pos", path=path)
    path.unlink()
    assert TokenSource.from_config("pos", path=path) is source
    assert TokenSource.from_config("pos", "test", path=path) is source


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_after_a_fork_the_child_has_it_too(shop: Path) -> None:
    source = TokenSource.from_config("pos", "staging", path=shop)
    child = os.fork()
    if child == 0:
        good = TokenSource.from_config("pos", "staging", path=shop) is source and source.token().access_token
        made = TokenSource.from_config("stock", "production", path=shop).token().access_token
        os._exit(0 if good and made else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- environments that cannot be mixed up -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "asserted", "said"),
    [("staging", True, "is not marked production = true"), ("production", False, "is marked production = true")],
)
def test_an_assertion_about_production_holds_or_is_an_error(
    shop: Path, environment: str, asserted: bool, said: str
) -> None:
    for _ in range(2):  # for a new object as for one that is there
        with pytest.raises(ConfigurationError, match=said):
            TokenSource.from_config("pos", environment, path=shop, production=asserted)
        TokenSource.from_config("pos", environment, path=shop)
    TokenSource.from_config("pos", environment, path=shop, production=not asserted)


def test_a_document_of_staging_is_refused_in_production_before_anything_is_sent(
    shop: Path, issuer: FakeIssuer, staging: FakeIssuer
) -> None:
    (shop.parent / "production/pos.json").write_bytes((shop.parent / "staging/pos.json").read_bytes())
    error = refused(shop)
    assert "is bound to the issuer" in error
    assert "nothing was sent" in error
    assert (issuer.token_requests, staging.token_requests) == (0, 0)


def test_the_environment_alone_keeps_two_of_one_issuer_apart(shop: Path, issuer: FakeIssuer) -> None:
    secret_file(shop.parent / "production", "pos", SECRET, issuer=issuer.url, environment="staging")
    error = refused(shop)
    assert "is bound to the environment 'staging', and the source has 'production'" in error
    assert issuer.token_requests == 0


@pytest.mark.parametrize(
    ("bound", "lacking"),
    [({}, "issuer"), ({"environment": "production"}, "issuer"), ({"issuer": None}, "environment")],
)
def test_a_document_without_a_binding_is_refused_where_one_is_demanded(
    shop: Path, issuer: FakeIssuer, bound: dict[str, str | None], lacking: str
) -> None:
    binding = {name: issuer.url if value is None else value for name, value in bound.items()}
    secret_file(shop.parent / "production", "pos", SECRET, **binding)
    error = refused(shop)
    assert f"does not say for which {lacking} it is" in error
    assert "secretsource put CLIENT --env ENVIRONMENT" in error
    assert issuer.requests == []


def test_a_token_url_is_a_binding_too(shop: Path, issuer: FakeIssuer) -> None:
    secret_file(shop.parent / "production", "pos", SECRET, token_url=issuer.token_url, environment="production")
    assert TokenSource.from_config("pos", "production", path=shop).token().access_token


def test_where_none_is_demanded_a_document_without_a_binding_serves(shop: Path, staging: FakeIssuer) -> None:
    secret_file(shop.parent / "staging", "pos", SECRET)
    assert staging.accepts(TokenSource.from_config("pos", "staging", path=shop).token().access_token)


def test_the_environment_is_part_of_the_identity(shop: Path) -> None:
    given: dict[tuple[str, ...], str] = {("credentials",): "env:POS", ("issuer",): "https://pos.example.com"}
    keys = [ConfiguredSource(Settings.bare(name).over(given))._key for name in ("a", "b", "")]
    assert len(set(keys)) == 3


def test_nobody_waits_for_another_one_s_file(shop: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "held.toml"
    os.mkfifo(fifo, 0o600)
    with pytest.raises(ConfigurationError, match="is a FIFO"):
        TokenSource.from_config("pos", "staging", path=fifo)
    assert threading.active_count() < 50


def test_to_close_one_takes_out_that_one_only(shop: Path) -> None:
    closed = TokenSource.from_config("pos", "staging", path=shop)
    other = TokenSource.from_config("stock", "staging", path=shop)
    closed.close()
    assert [source for source in _configured.values() if source is closed] == []
    assert TokenSource.from_config("stock", "staging", path=shop) is other
