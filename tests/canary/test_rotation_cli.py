"""`secretsource rotate` and `secretsource generate`: no secret in what they write, whatever fails and is typed."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from secretsource.testing import Fault

from ..cli import PATIENCE, Ran, called, started
from ..cli.shops import AT_ONCE, Shop
from .canaries import SPECIAL
from .cases import the_rest_slow
from .test_source import REFUSALS
from .watch import Watch

ACTIONS = ("plan", "run", "resume", "status", "abort", "rollback", "drift")
SHOWN = {"lines": ("-v",), "JSON": ("-v", "--json"), "audited": ("--audit", "audit.jsonl", "--json")}


class Counter:
    """Where somebody rotates the secret of the client pos by the command line; `shop.set` is its adapter."""

    def __init__(self, watch: Watch, shop: Shop) -> None:
        self._watch, self.shop = watch, shop
        self.secret = watch.canary("client secret", SPECIAL)
        shop.add("pos", self.secret)
        shop.issuer.set_secret("pos", self.secret)
        watch.files.placed(shop.file("pos"))
        self.known: list[str] = [self.secret]
        self._usual = shop.set
        shop.set = self._set  # type: ignore[method-assign]
        self.breaks: Callable[[str], int] | None = None

    def _set(self, client_id: str, client_secret: str) -> int:
        self._watch.canary_of(f"new secret {len(self.known)}", client_secret)
        self.known.append(client_secret)
        if self.breaks is not None:
            return self.breaks(" ".join(self.known))
        return self._usual(client_id, client_secret)

    def rotates(self, action: str, *arguments: str) -> Ran:
        reference = f"file://{self.shop.file('pos')}"
        alone = ("--credentials", reference, "--issuer", self.shop.issuer.url, "--adapter", "shop")
        ran = called("rotate", action, *alone, *AT_ONCE, "--max-wait", "1s", *arguments)
        for name, value in json.loads(self.shop.file("pos").read_text()).items():
            if name in ("client_secret", "client_secret_pending", "client_secret_previous"):
                self._watch.canary_of(f"{name} {len(self.known)}", value)
                self.known.append(value)
        self._watch.write(ran.out)
        self._watch.write(ran.err)
        return ran


@pytest.fixture
def counter(watch: Watch, tmp_path: Path) -> Iterator[Counter]:
    with Shop(tmp_path).open() as shop:
        yield Counter(watch, shop)


@pytest.mark.parametrize("shown", the_rest_slow(SHOWN, "lines", "audited"))
def test_each_action(counter: Counter, shown: str) -> None:
    for action in ACTIONS:
        assert counter.rotates(action, *SHOWN[shown]).code in (0, 2)
    assert counter.rotates("run", "--force", "--soak", "1h", *SHOWN[shown]).code == 10
    for action in ACTIONS:
        assert counter.rotates(action, *SHOWN[shown]).code in (0, 2, 10)
    assert counter.rotates("run", "--compromised", *SHOWN[shown]).code in (0, 10)


def _breaks(kind: type[BaseException]) -> Callable[[str], int]:
    def set_secret(known: str) -> int:
        raise kind(known)

    return set_secret


ENDS: dict[str, Callable[[str], int]] = {
    "refused": lambda known: 65,
    "unknown": lambda known: 1,
    "RuntimeError": _breaks(RuntimeError),
    "OSError": _breaks(OSError),
    "SystemExit": _breaks(SystemExit),
    "KeyboardInterrupt": _breaks(KeyboardInterrupt),
}


@pytest.mark.parametrize("end", the_rest_slow(ENDS, "RuntimeError", "refused"))
@pytest.mark.parametrize("shown", the_rest_slow(SHOWN, "audited"))
def test_an_adapter_that_fails(counter: Counter, shown: str, end: str) -> None:
    counter.breaks = ENDS[end]
    assert counter.rotates("run", "--force", *SHOWN[shown]).code in (10, 12, 13)
    for action in ("plan", "status", "drift", "abort"):
        counter.rotates(action, *SHOWN[shown])


@pytest.mark.parametrize("refusal", the_rest_slow(REFUSALS, "in a description"))
@pytest.mark.parametrize("shown", the_rest_slow(SHOWN, "JSON"))
def test_an_issuer_that_gives_the_secret_back(counter: Counter, shown: str, refusal: str) -> None:
    counter.shop.issuer.fail(REFUSALS[refusal](counter.secret))
    for action in ("plan", "run", "drift"):
        counter.rotates(action, "--force", "--timeout", "2", *SHOWN[shown])


@pytest.mark.parametrize("shown", the_rest_slow(SHOWN, "lines"))
def test_an_issuer_that_is_down(counter: Counter, shown: str) -> None:
    with counter.shop.issuer.down():
        for action in ("plan", "run", "drift", "status"):
            counter.rotates(action, "--force", "--timeout", "1", *SHOWN[shown])


DOCUMENTS: dict[str, Callable[[str], str]] = {
    "cut": lambda text: text[:-20],
    "a list": lambda text: f"[{text}]",
    "a state that is none": lambda text: text.replace("{", '{"client_secret_rotation": "v1.", ', 1),
    "a secret as the state": lambda text: text.replace('"client_secret"', '"client_secret_rotation"'),
}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_that_is_broken(watch: Watch, counter: Counter, document: str) -> None:
    path = watch.put("secrets/broken.json", DOCUMENTS[document](counter.shop.file("pos").read_text()))
    for action in ACTIONS:
        alone = ("--credentials", f"file://{path}", "--issuer", counter.shop.issuer.url, "--adapter", "shop")
        ran = called("rotate", action, *alone, *AT_ONCE, "--json", "-v")
        assert ran.code != 0
        watch.write(ran.out + ran.err)


TYPED: dict[str, tuple[str, ...]] = {
    "as an action": ("rotate", "{}"),
    "as a client": ("rotate", "run", "{}"),
    "as an adapter": ("rotate", "run", "--credentials", "env:POS", "--adapter", "{}"),
    "as a program": ("rotate", "run", "--credentials", "env:POS", "--client-secret", "{}"),
    "as a duration": ("rotate", "run", "--wait", "{}"),
    "as a gate": ("rotate", "plan", "--credentials", "file:pos.json", "--issuer", "http://127.0.0.1:9", "--gate", "{}"),
    "as bits": ("generate", "--bits", "{}"),
    "as an argument": ("generate", "{}"),
}


@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("shape", the_rest_slow(["{}notarealsecret{}", SPECIAL], SPECIAL), ids=["plain", "special"])
def test_a_secret_that_is_typed_where_none_belongs(watch: Watch, counter: Counter, typed: str, shape: str) -> None:
    secret = watch.canary("typed", shape)
    ran = called(*(word.replace("{}", secret) for word in TYPED[typed]))
    assert ran.code == 2
    watch.write(ran.out + ran.err)


def test_the_file_of_the_audit_is_not_repeated(watch: Watch, counter: Counter) -> None:
    assert counter.rotates("run", "--audit", f"/nowhere/{watch.canary('typed', '{}notarealsecret{}')}").code == 2


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="what others see of a process is in /proc")
def test_what_others_see_of_the_process_while_it_asks(watch: Watch, counter: Counter) -> None:
    counter.shop.issuer.fail(Fault(hang=True))
    reference = f"file://{counter.shop.file('pos')}"
    alone = ("--credentials", reference, "--issuer", counter.shop.issuer.url, "--command", str(counter.shop.program))
    with started("rotate", "run", "--force", *alone, *AT_ONCE, "--timeout", "30") as child:
        counter.shop.issuer.wait_for_token_requests(1, PATIENCE)
        watch.processes.look_at(child.pid)
        child.send_signal(signal.SIGINT)
        counter.shop.issuer.heal()
        out, err = child.communicate(timeout=PATIENCE)
    watch.write(out + err)


def test_a_generated_secret_goes_to_standard_output_alone(watch: Watch) -> None:
    ran = called("generate", "-v")
    assert ran.code == 0
    secret = watch.canary_of("generated secret", ran.out.strip())
    assert ran.out == f"{secret}\n"
    watch.write(ran.err)
