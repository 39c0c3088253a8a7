from __future__ import annotations

from pathlib import Path

import httpx

from secretsource.testing import FakeIssuer, TickingClock
from secretsource.testing.fixtures import SecretFile, fake_issuer, secret_file, ticking_clock

__all__ = ["fake_issuer", "secret_file", "ticking_clock"]


def test_the_fixture_issuer_listens(fake_issuer: FakeIssuer) -> None:
    answer = httpx.get(f"{fake_issuer.url}.well-known/openid-configuration", trust_env=False)
    assert answer.json()["issuer"] == fake_issuer.url


def test_the_fixture_clock_stands_still(ticking_clock: TickingClock) -> None:
    before = ticking_clock.now()
    ticking_clock.tick()
    assert ticking_clock.now().age(before) == -1


def test_the_fixture_file_is_in_the_folder_of_the_test(secret_file: SecretFile, tmp_path: Path) -> None:
    reference = secret_file("pos", "not-a-real-secret")
    assert reference == f"file://{tmp_path}/secrets/pos.json"
