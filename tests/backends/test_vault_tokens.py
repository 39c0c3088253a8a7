"""Vault: how long a token is used, when another is had, and how often; by a clock of the test, and on a real server."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from secretsource import CredentialsSource
from secretsource.backends.vault import AppRole, StaticToken, ViaAgent
from secretsource.backends.vault import visit as visit_module
from secretsource.backends.vault.logins import Login, Pass
from secretsource.backends.vault.tokens import Counter, Holding, Tokens
from secretsource.clock import SYSTEM_CLOCK, Clock, Deadline
from secretsource.errors import AccessDenied, BackendUnavailable, SecretNotFound, SecretSourceError
from secretsource.secret import Secret
from secretsource.testing import Fault, TickingClock

from ..stores import in_threads
from .openbao import Corner, Role
from .vaults import (
    CLIENT_SECRET,
    DATA,
    LOGIN,
    LOOKUP,
    NEW_TOKEN,
    RENEW,
    SECRET_ID,
    TOKEN,
    Given,
    Scripted,
    answer,
    errors,
    failure,
    login,
    read,
    secret,
    secret_in,
)

pytestmark = pytest.mark.usefixtures("nothing_secret_is_logged")


# --- by a clock of the test: the tokens alone


class Counted(Counter):
    """Gives tokens "1", "2" …, each with this life, and renews them; or raises `failure`."""

    def __init__(self, **given: Any) -> None:
        self.given: dict[str, Any] = {"life": 3600.0, "renewable": True, **given}
        self.obtained = self.renewed = 0
        self.failure: SecretSourceError | None = None
        self.no_renewal: SecretSourceError | None = None
        self.renewal = 3600.0
        self.during: Callable[[], object] = lambda: None

    def until(self, deadline: Deadline) -> Counter:
        return self

    def obtain(self) -> Pass:
        self.during()
        self.obtained += 1
        if self.failure is not None:
            raise self.failure
        return Pass(Secret(str(self.obtained)), **self.given)

    def renew(self, token: Secret) -> Pass:
        self.renewed += 1
        if self.no_renewal is not None:
            raise self.no_renewal
        return Pass(token, self.renewal, True)


class Held:
    """Tokens of one login, with what their test needs to know."""

    def __init__(self, login: Login, clock: Clock | None = None, **given: Any) -> None:
        self.clock = TickingClock()
        self.counter = Counted(**given)
        self.tokens = Tokens(login, clock or self.clock)

    def current(self) -> Holding:
        return self.tokens.current(self.counter, Deadline(30, SYSTEM_CLOCK))

    def after(self, refused: Holding) -> Holding | None:
        return self.tokens.after_refusal(refused, self.counter, Deadline(30, SYSTEM_CLOCK))

    def text(self) -> str:
        token = self.current().token
        assert token is not None
        return token.reveal()


def repeated() -> AppRole:
    return AppRole("role", "env:#NOT_READ")


def given_once() -> StaticToken:
    return StaticToken("env:#NOT_READ")


def test_nobody_logs_in_before_a_token_is_needed_and_then_once() -> None:
    held = Held(repeated())
    assert held.counter.obtained == 0
    assert [held.text() for _ in range(3)] == ["1", "1", "1"]


@pytest.mark.parametrize(("life", "still", "no_more"), [(3600, 3589, 3591), (20, 17.9, 18.1), (1, 0.89, 0.91)])
def test_a_new_token_is_had_before_the_end_of_the_old_one(life: float, still: float, no_more: float) -> None:
    held = Held(repeated(), life=float(life))
    held.text()
    held.clock.tick(still)
    assert held.text() == "1"
    held.clock.tick(no_more - still)
    assert held.text() == "2"


def test_the_life_counts_from_before_the_login() -> None:
    held = Held(repeated(), life=100.0)
    held.counter.during = lambda: held.clock.tick(60)
    held.text()
    held.counter.during = lambda: None
    held.clock.tick(31)
    assert held.text() == "2"


def test_a_token_without_an_end_is_used_on() -> None:
    held = Held(repeated(), life=None)
    held.text()
    held.clock.tick(1e8)
    assert held.text() == "1"


def test_a_token_that_can_be_had_again_is_not_renewed() -> None:
    held = Held(repeated())
    held.text()
    held.clock.tick(3500)
    held.text()
    assert held.counter.renewed == 0


def test_a_token_with_few_uses_is_exchanged_when_they_are_used_up() -> None:
    held = Held(repeated(), uses=2)
    one = held.current()
    one.uses = 0
    assert held.text() == "2"


def test_who_was_held_up_takes_the_token_that_another_has_got() -> None:
    """Between the look at the token and the login a thread may stand still for any time."""
    looked, go_on = threading.Event(), threading.Event()

    class Stopping(TickingClock):
        def monotonic(self) -> float:
            if threading.current_thread() is late:
                looked.set()
                assert go_on.wait(30)
            return super().monotonic()

    held = Held(repeated(), Stopping())
    texts: list[str] = []
    late = threading.Thread(target=lambda: texts.append(held.text()))
    late.start()
    assert looked.wait(30)
    texts.append(held.text())
    go_on.set()
    late.join(30)
    assert (texts, held.counter.obtained) == (["1", "1"], 1)


def test_many_at_once_make_one_login() -> None:
    held = Held(repeated())
    held.counter.during = lambda: time.sleep(0.1)
    assert {one.ticket for one in in_threads(30, held.current)} == {held.current().ticket}
    assert held.counter.obtained == 1


def test_after_a_refusal_all_take_one_new_token() -> None:
    held = Held(repeated())
    refused = held.current()
    held.counter.during = lambda: time.sleep(0.1)
    others = in_threads(30, lambda: held.after(refused))
    assert {one.ticket for one in others} == {held.current().ticket}
    assert held.counter.obtained == 2
    later = held.after(refused)
    assert later is not None
    assert held.counter.obtained == 2


def test_a_token_that_is_the_same_again_is_no_other() -> None:
    held = Held(given_once(), life=None)
    refused = held.current()
    held.counter.obtained = 0
    assert held.after(refused) is None


def test_without_a_token_there_is_no_other() -> None:
    tokens = Tokens(ViaAgent(), TickingClock())
    counter = Counted()
    counter.obtain = lambda: Pass(None)  # type: ignore[method-assign]
    refused = tokens.current(counter, Deadline(30))
    assert tokens.after_refusal(refused, counter, Deadline(30)) is None


def denied() -> AccessDenied:
    return AccessDenied("no", hint="no")


def test_a_login_that_is_refused_is_raised_and_tried_anew_at_the_next_call() -> None:
    held = Held(repeated())
    held.counter.failure = denied()
    for _ in range(2):
        with pytest.raises(AccessDenied):
            held.current()
    held.counter.failure = None
    assert held.text() == "3"


def test_where_no_login_is_possible_any_more_the_token_is_prolonged() -> None:
    """As with a secret ID that is used up."""
    held = Held(repeated(), life=100.0)
    held.text()
    held.counter.failure, held.counter.renewal = denied(), 100.0
    held.clock.tick(95)
    assert held.text() == "1"
    assert held.counter.renewed == 1
    held.clock.tick(80)
    assert held.text() == "1"
    assert (held.counter.obtained, held.counter.renewed) == (2, 1)


def test_a_token_past_its_end_is_not_prolonged() -> None:
    held = Held(repeated(), life=100.0)
    held.text()
    held.counter.failure = denied()
    held.clock.tick(101)
    with pytest.raises(AccessDenied):
        held.current()
    assert held.counter.renewed == 0


def test_a_token_that_cannot_be_renewed_is_not() -> None:
    held = Held(repeated(), life=100.0, renewable=False)
    held.text()
    held.counter.failure = denied()
    held.clock.tick(95)
    with pytest.raises(AccessDenied):
        held.current()
    assert held.counter.renewed == 0


def test_a_token_given_once_is_renewed_in_the_last_third_of_its_life() -> None:
    held = Held(given_once(), life=90.0)
    held.counter.renewal = 90.0
    held.text()
    held.clock.tick(59)
    held.text()
    assert held.counter.renewed == 0
    held.clock.tick(2)
    held.text()
    for _ in range(4):
        held.clock.tick(61)
        held.text()
    assert (held.counter.obtained, held.counter.renewed) == (1, 5)


def test_a_token_given_once_is_renewed_up_to_its_very_end() -> None:
    held = Held(given_once(), life=90.0)
    held.counter.renewal = 90.0
    held.text()
    held.clock.tick(89.9)
    held.text()
    assert (held.counter.obtained, held.counter.renewed) == (1, 1)


def test_a_token_near_its_maximum_is_not_renewed_for_ever() -> None:
    held = Held(given_once(), life=90.0)
    held.counter.renewal = 40.0
    held.text()
    held.clock.tick(61)
    held.text()
    for _ in range(6):
        held.clock.tick(5)
        held.text()
    assert (held.counter.obtained, held.counter.renewed) == (1, 1)
    held.clock.tick(9)
    held.text()
    assert held.counter.obtained == 2  # somebody may have put another one there


@pytest.mark.parametrize("failure", [BackendUnavailable("no", hint="no"), denied()], ids=["unavailable", "denied"])
def test_a_renewal_that_fails_neither_ends_nor_prolongs_the_token(failure: SecretSourceError) -> None:
    held = Held(given_once(), life=90.0)
    held.counter.no_renewal = failure
    before = held.current().ends
    held.clock.tick(61)
    assert held.text() == "1"
    assert held.current().ends == before
    held.clock.tick(30)
    held.text()
    assert held.counter.obtained == 2


# --- on a real server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TickingClock:
    """What our side takes for the time; the server's goes on as it does."""
    clock = TickingClock()
    monkeypatch.setattr(visit_module, "SYSTEM_CLOCK", clock)
    return clock


class Counting:
    """A secret, an AppRole that may read it, and how often each was asked for."""

    def __init__(self, corner: Corner, **settings: Any) -> None:
        self.corner, self.kv = corner, corner.kv()
        corner.secret(self.kv, "pos", CLIENT_SECRET)
        self.policy = corner.policy(f"{self.kv}/data/pos")
        self.role: Role = corner.role(self.policy, **settings)
        self.backend = corner.backend(self.role.login)
        self.reference = f"vault://{self.kv}/pos"
        self._written = self.corner.came(f"{self.kv}/data/pos")

    def read(self) -> str:
        return secret_in(self.backend, self.reference)

    @property
    def logins(self) -> int:
        return self.corner.came(f"auth/{self.role.mount}/login")

    @property
    def reads(self) -> int:
        return self.corner.came(f"{self.kv}/data/pos") - self._written

    def end_all_tokens(self) -> None:
        self.corner.api("PUT", f"sys/leases/revoke-prefix/auth/{self.role.mount}/login")


@pytest.fixture
def counting(corner: Corner) -> Counting:
    return Counting(corner)


def test_forty_sources_of_one_store_make_one_login(counting: Counting) -> None:
    sources = [CredentialsSource(counting.reference, stores={"vault": counting.backend}) for _ in range(40)]
    waiting = iter(sources)
    outcomes = in_threads(40, lambda: next(waiting).current().client_secret.reveal())
    assert outcomes == [CLIENT_SECRET] * 40
    assert (counting.logins, counting.reads) == (1, 40)


def test_fifty_threads_at_a_cold_start_make_one_login_and_one_read(counting: Counting) -> None:
    source = CredentialsSource(counting.reference, stores={"vault": counting.backend})
    outcomes = in_threads(50, lambda: source.current().client_secret.reveal())
    assert outcomes == [CLIENT_SECRET] * 50
    assert (counting.logins, counting.reads) == (1, 1)


def test_fifty_tasks_at_a_cold_start_make_one_login_and_one_read(counting: Counting) -> None:
    source = CredentialsSource(counting.reference, stores={"vault": counting.backend})

    async def all_at_once() -> set[str]:
        found = await asyncio.gather(*(source.acurrent() for _ in range(50)))
        return {one.client_secret.reveal() for one in found}

    assert asyncio.run(all_at_once()) == {CLIENT_SECRET}
    assert (counting.logins, counting.reads) == (1, 1)


def test_a_token_that_was_revoked_is_replaced_by_one_login(counting: Counting) -> None:
    counting.read()
    counting.end_all_tokens()
    assert counting.read() == CLIENT_SECRET
    assert (counting.logins, counting.reads) == (2, 3)


def test_many_readers_of_a_revoked_token_make_one_login(counting: Counting) -> None:
    counting.read()
    counting.end_all_tokens()
    assert in_threads(16, counting.read) == [CLIENT_SECRET] * 16
    assert counting.logins == 2


def test_a_policy_that_forbids_costs_one_login_and_is_denied(counting: Counting) -> None:
    counting.read()
    counting.corner.policy("elsewhere", name=counting.policy)
    failure(AccessDenied, counting.backend, counting.reference, hint="A new login changed nothing")
    assert (counting.logins, counting.reads) == (2, 3)


def test_a_path_that_stays_forbidden_costs_no_login_at_each_read(counting: Counting) -> None:
    counting.read()
    counting.corner.policy("elsewhere", name=counting.policy)
    for _ in range(6):
        failure(AccessDenied, counting.backend, counting.reference)
    assert counting.logins == 2


def test_a_policy_that_the_role_gets_later_comes_with_the_new_login(counting: Counting) -> None:
    corner, role = counting.corner, counting.role
    elsewhere = corner.policy(f"{corner.name}-kv/data/elsewhere", name=f"{corner.name}-elsewhere")
    corner.set_role(role.mount, elsewhere)
    failure(SecretNotFound, counting.backend, f"vault://{corner.name}-kv/elsewhere")
    corner.set_role(role.mount, elsewhere, counting.policy)
    assert counting.read() == CLIENT_SECRET
    assert counting.logins == 2


def test_a_token_is_replaced_before_it_ends_and_not_by_a_refusal(corner: Corner) -> None:
    counting = Counting(corner, token_ttl="1s", token_max_ttl="1s")
    for _ in range(2):
        assert counting.read() == CLIENT_SECRET
        time.sleep(1.3)
    assert counting.read() == CLIENT_SECRET
    assert (counting.logins, counting.reads) == (3, 3)


def test_a_token_with_few_uses_is_replaced_before_it_is_refused(corner: Corner) -> None:
    counting = Counting(corner, token_num_uses=3)
    assert [counting.read() for _ in range(7)] == [CLIENT_SECRET] * 7
    assert (counting.logins, counting.reads) == (3, 7)


def test_a_secret_id_that_is_used_up_lets_the_token_be_renewed(corner: Corner, clock: TickingClock) -> None:
    counting = Counting(corner, token_ttl="60s", token_max_ttl="1h", secret_id_num_uses=1)
    counting.read()
    clock.tick(58)
    assert counting.read() == CLIENT_SECRET
    assert corner.came("auth/token/renew-self") == 1
    assert counting.logins == 2  # the second is refused
    counting.end_all_tokens()
    failure(AccessDenied, counting.backend, counting.reference, hint="used up")


def test_a_periodic_token_given_once_lives_on_by_renewals(corner: Corner, clock: TickingClock) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", CLIENT_SECRET)
    backend = corner.by_token(corner.token("default", corner.policy(f"{kv}/data/pos"), period="3s"))
    ends_at = time.monotonic() + 3.5
    while time.monotonic() < ends_at:
        assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET
        clock.tick(0.9)  # by our clock it ends far sooner
        time.sleep(0.2)
    assert corner.came("auth/token/renew-self") >= 3
    assert corner.came("auth/token/lookup-self") == 1


def test_a_token_given_once_that_has_reached_its_end_says_that_it_cannot_be_had_again(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", CLIENT_SECRET)
    token = corner.token("default", corner.policy(f"{kv}/data/pos"), ttl="1s", explicit_max_ttl="2s")
    backend = corner.by_token(token)
    read(backend, f"vault://{kv}/pos")
    time.sleep(2.3)
    failure(AccessDenied, backend, f"vault://{kv}/pos", hint="cannot be had again")


def test_a_token_of_few_uses_is_asked_about_once_and_used_up(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", CLIENT_SECRET)
    token = corner.token("default", corner.policy(f"{kv}/data/pos"), num_uses=5)
    backend = corner.by_token(token)
    assert [secret_in(backend, f"vault://{kv}/pos") for _ in range(4)] == [CLIENT_SECRET] * 4
    assert corner.came("auth/token/lookup-self") == 1
    failure(AccessDenied, backend, f"vault://{kv}/pos", hint="cannot be had again")


def test_a_token_of_few_uses_is_not_asked_about_where_it_is_not_to_be_renewed(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", CLIENT_SECRET)
    token = corner.token("default", corner.policy(f"{kv}/data/pos"), num_uses=5)
    backend = corner.backend(StaticToken(corner.kept(token), renew=False))
    assert [secret_in(backend, f"vault://{kv}/pos") for _ in range(5)] == [CLIENT_SECRET] * 5
    assert corner.came("auth/token/lookup-self") == 0


def test_a_token_without_an_end_is_asked_about_once(corner: Corner) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", CLIENT_SECRET)
    backend = corner.by_token(corner.server.root)
    for _ in range(3):
        read(backend, f"vault://{kv}/pos")
    assert corner.came("auth/token/lookup-self") == 1


def test_a_batch_token_is_not_renewed(corner: Corner, clock: TickingClock) -> None:
    kv = corner.kv()
    corner.secret(kv, "pos", CLIENT_SECRET)
    token = corner.token("default", corner.policy(f"{kv}/data/pos"), type="batch", ttl="60s")
    backend = corner.by_token(token)
    for _ in range(3):
        assert secret_in(backend, f"vault://{kv}/pos") == CLIENT_SECRET
        clock.tick(25)
    assert corner.came("auth/token/renew-self") == 0


def test_after_a_fork_the_child_logs_in_itself(counting: Counting) -> None:
    counting.read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os._exit(0 if counting.read() == CLIENT_SECRET else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert counting.read() == CLIENT_SECRET
    assert (counting.logins, counting.reads) == (2, 3)


# --- by a script


@pytest.mark.parametrize("status", [400, 403, 500, 503])
def test_a_failing_renewal_leaves_the_reads_alone(clock: TickingClock, status: int) -> None:
    lookup = answer({"data": {"ttl": 90, "creation_ttl": 90, "num_uses": 0, "renewable": True}})
    with Scripted({LOOKUP: lookup, RENEW: errors(status)}) as server:
        backend = server.backend(StaticToken("given:t"), stores={"given": Given(TOKEN)})
        read(backend)
        clock.tick(70)
        assert [secret_in(backend) for _ in range(2)] == [CLIENT_SECRET] * 2
        assert server.tokens(RENEW) == [TOKEN], "not at each read"
        clock.tick(15)
        read(backend)
        assert server.tokens(RENEW) == [TOKEN]


def test_a_login_is_in_vain_only_until_a_read_is_good_again(counting: Counting) -> None:
    counting.read()
    counting.corner.policy("elsewhere", name=counting.policy)
    failure(AccessDenied, counting.backend, counting.reference)
    counting.corner.policy(f"{counting.corner.name}-kv/data/*", name=counting.policy)
    counting.read()
    counting.end_all_tokens()
    assert counting.read() == CLIENT_SECRET, "the note of the login in vain is gone"


def test_a_renewal_that_hangs_leaves_the_reads_their_time(clock: TickingClock) -> None:
    lookup = answer({"data": {"ttl": 90, "creation_ttl": 90, "num_uses": 0, "renewable": True}})
    with Scripted({LOOKUP: lookup, RENEW: errors(200, fault=Fault(hang=True))}) as server:
        backend = server.backend(StaticToken("given:t"), stores={"given": Given(TOKEN)}, timeout=20.0)
        read(backend)
        clock.tick(70)
        assert secret_in(backend) == CLIENT_SECRET


def test_the_new_token_is_sent_after_a_login_and_the_old_one_no_more() -> None:
    script: dict[str, Any] = {LOGIN: [login(TOKEN), login(NEW_TOKEN)], DATA: [errors(403), secret()]}
    with Scripted(script) as server:
        backend = server.backend(AppRole("role", "given:id"), stores={"given": Given(SECRET_ID)})
        assert [secret_in(backend) for _ in range(2)] == [CLIENT_SECRET] * 2
        assert server.tokens(DATA) == [TOKEN, NEW_TOKEN, NEW_TOKEN]
        assert server.tokens(LOGIN) == [None, None]
