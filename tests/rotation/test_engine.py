"""Whole rotations: the steps that they make, what each leaves in the store, and how they end."""

from __future__ import annotations

from typing import Any

import pytest

from secretsource import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    IssuerUnavailable,
    Secret,
    Token,
    TokenSource,
)
from secretsource.rotation import Abort, Hold, Moment, Policy, Proceed, Refused, Rotation, Unknown
from secretsource.state import RotationState

from ..stores import eventually
from .site import CLIENT, FIRST, Memory, Site, site

WHOLE = ["claim", "note", "apply", "promote", "drop", "done"]


def state(at: Site) -> RotationState:
    found = RotationState.read(at.store.clear["client_secret_rotation"])
    assert found is not None
    return found


def test_a_rotation_makes_its_steps_in_order_and_four_writes() -> None:
    with site() as at:
        report = at.rotation().run()
        assert (report.result, at.steps) == ("done", WHOLE)
        claimed, noted, promoted, over = at.store.writes
        new = at.store.clear["client_secret"]
        assert claimed["client_secret"] == FIRST
        assert claimed["client_secret_pending"] == noted["client_secret_pending"] == new
        assert (promoted["client_secret"], promoted["client_secret_previous"]) == (new, FIRST)
        assert "client_secret_pending" not in promoted
        assert sorted(over) == ["client_id", "client_secret", "client_secret_rotation", "issuer"]
        assert len(new) >= 43
        assert FIRST not in str(over)


def test_it_waits_and_soaks_as_the_policy_says() -> None:
    with site() as at:
        began = at.clock.monotonic()
        at.rotation(wait=60, soak=120).run()
        assert 180 <= at.clock.monotonic() - began < 200


def test_a_run_ends_waiting_where_the_time_is_longer_than_it_may_stay_and_another_goes_on() -> None:
    with site() as at:
        report = at.rotation(soak=7200).run()
        assert (report.result, report.phase) == ("waiting", "soaking")
        assert report.retry_after == pytest.approx(7200, abs=10)
        assert at.rotation(soak=7200).resume().result == "waiting"
        at.clock.tick(7200)
        assert at.rotation(soak=7200).resume().result == "done"
        assert at.steps.count("claim") == at.steps.count("apply") == 1


def test_resume_begins_nothing_and_waits_for_an_open_call() -> None:
    with site() as at:
        assert at.rotation().resume().reason == "nothing is under way"
        at.rotation(soak=0, landing=600).run()
        report = at.rotation(max_wait=5).resume()
        assert (report.result, report.phase) == ("waiting", "idle")
        at.clock.tick(700)
        assert at.rotation().resume().result == "done"
        assert at.steps.count("claim") == 1


def test_what_is_not_due_is_left_alone() -> None:
    with site() as at:
        at.rotation().run()
        at.events.clear()
        report = at.rotation(force=False).run()
        assert report.result == "done"
        assert "less than an hour ago" in report.reason
        at.clock.tick(7200)
        assert "it is due in" in at.rotation(force=False).run().reason
        at.clock.tick(100 * 86400)
        assert at.rotation(force=False).run().reason == "the secret is changed"


def test_two_runs_by_force_make_two_rotations_and_never_beside_an_open_call() -> None:
    with site() as at:
        at.rotation(wait=0, soak=0).run()
        first, began = state(at), at.clock.monotonic()
        at.rotation(wait=0, soak=0).run()
        assert at.clock.monotonic() - began > 5
        assert state(at).rotation != first.rotation
        assert at.steps == WHOLE * 2


def test_a_pending_secret_that_a_person_has_put_there_is_adopted() -> None:
    with site() as at:
        at.store.fields["client_secret_pending"] = Secret("not-a-real-secret-2")
        assert at.rotation().run().result == "done"
        assert at.steps == ["adopt", *WHOLE[1:]]
        assert at.store.clear["client_secret"] == "not-a-real-secret-2"


def test_one_that_the_issuer_has_already_is_promoted_at_once() -> None:
    with site() as at:
        at.store.fields["client_secret_pending"] = Secret("not-a-real-secret-2")
        at.issuer.set_secret(CLIENT, "not-a-real-secret-2")
        began = at.clock.monotonic()
        assert at.rotation(soak=0).run().result == "done"
        assert at.administrator.calls == ["check"]
        assert at.clock.monotonic() - began < 30


# --- what the issuer says


def test_a_lost_answer_is_found_out_at_the_token_endpoint() -> None:
    with site() as at:
        at.administrator.answers = [Unknown("no answer")]
        assert at.rotation().run().result == "done"
        assert at.administrator.calls.count("apply") == 1


def test_a_lost_call_is_made_again_once_it_can_no_longer_take_effect() -> None:
    with site() as at:
        at.administrator.deaf, at.administrator.answers = True, [Unknown("no answer")]
        rotation = at.rotation(max_wait=70)
        assert rotation.run().result == "waiting"
        at.administrator.deaf = False
        assert at.rotation().run().result == "done"
        assert at.administrator.calls.count("apply") == 2
        assert at.steps.count("claim") == 1


def test_calls_that_have_no_effect_are_given_up_after_a_few() -> None:
    with site() as at:
        at.administrator.deaf = True
        report = at.rotation(max_wait=3600).run()
        assert (report.result, report.reason) == ("failed", "5 calls to the issuer had no effect")
        assert at.administrator.calls.count("apply") == 5
        assert at.store.clear["client_secret"] == FIRST


def test_a_person_is_given_all_the_time_and_told_again_by_each_process() -> None:
    with site(asks=True, landing=900) as at:
        at.administrator.deaf = True
        assert at.rotation(max_wait=70).run().result == "waiting"
        assert at.rotation(max_wait=30).run().result == "waiting"
        assert at.administrator.calls.count("apply") == 2
        assert at.steps.count("note") == 1


def test_a_secret_that_the_issuer_ends_soon_is_due_whatever_its_age() -> None:
    with site() as at:
        at.rotation().run()
        at.clock.tick(30 * 86400)
        assert "due in" in at.rotation(force=False).run().reason
        ends = at.clock.now().wall + 86400
        at.administrator.ends = ends
        assert at.rotation(force=False).run().reason == "the secret is changed"


def test_a_missing_right_to_end_the_old_secret_is_a_failure_and_no_matter_of_waiting() -> None:
    with site(slots=2, retires=True) as at:
        at.administrator.retire = lambda *_: Refused("no right")  # type: ignore[assignment, method-assign]
        report = at.rotation(soak=0).run()
        assert (report.result, report.phase) == ("failed", "soaking")
        assert "no right" in report.reason


def test_a_refused_secret_is_given_up_after_the_quarantine_and_the_next_run_makes_another() -> None:
    with site() as at:
        at.administrator.answers = [Refused("too long")]
        report = at.rotation().run()
        assert report.result == "failed"
        assert "too long" in report.reason
        assert at.steps[-2:] == ["abandon", "failed failed"]
        assert at.store.clear["client_secret"] == FIRST
        refused = at.store.writes[0]["client_secret_pending"]
        assert "client_secret_pending" not in at.store.clear
        assert at.rotation().run().result == "done"
        assert at.store.clear["client_secret"] not in (FIRST, refused)


def test_an_issuer_that_is_down_before_anything_is_begun_is_an_error() -> None:
    with site() as at:
        at.issuer.stop_listening()
        with pytest.raises(IssuerUnavailable):
            at.rotation().run()
        assert at.store.writes == []


def test_an_issuer_that_is_down_after_the_call_leaves_it_ambiguous() -> None:
    with site() as at:
        at.administrator.afterwards = at.issuer.stop_listening
        report = at.rotation(max_wait=100).run()
        assert (report.result, report.phase) == ("ambiguous", "applying")
        at.issuer.start_listening()
        assert at.rotation().run().result == "done"


def test_several_slots_keep_the_old_one_to_the_end_of_the_soak() -> None:
    with site(slots=2, retires=True) as at:
        assert at.rotation(soak=600).run().result == "done"
        assert at.steps == ["claim", "note", "apply", "promote", "note", "retire", "drop", "done"]
        assert at.administrator.calls[-1] == "retire None, keep id-1"
        assert at.rotation(soak=0).run().result == "done"
        assert at.administrator.calls[-1] == "retire id-1, keep id-2"


# --- generated secrets


def test_a_generated_secret_of_several_is_kept_at_once_and_promoted_after_the_wait() -> None:
    with site(chosen=False, slots=2, retires=True) as at:
        assert at.rotation(soak=0).run().result == "done"
        assert at.steps == ["intend", "mint", "claim", "promote", "note", "retire", "drop", "done"]
        assert at.store.clear["client_secret"] == at.administrator.given[-1]


def test_a_generated_secret_of_one_needs_the_gap_to_be_accepted() -> None:
    with site(chosen=False) as at:
        with pytest.raises(ConfigurationError, match="accept-gap"):
            at.rotation().run()
        assert at.store.writes == []
        began = at.clock.monotonic()
        assert at.rotation(accept_gap=True, wait=600, soak=0).run().result == "done"
        assert at.clock.monotonic() - began < 60  # a wait would only lengthen the gap
        assert at.store.clear["client_secret"] == at.administrator.given[-1]


def test_a_generated_secret_whose_answer_is_lost_is_reaped_and_another_is_asked_for() -> None:
    with site(chosen=False, slots=3, retires=True) as at:
        at.administrator.answers = [Unknown("no answer")]
        assert at.rotation(soak=0).run().result == "done"
        rotation = state(at).rotation
        assert at.administrator.calls == [
            "check",
            "mint",
            f"reap secretsource-{rotation}",
            "mint",
            "retire None, keep id-2",
        ]


def test_the_only_secret_lost_on_the_way_is_asked_for_again_and_after_three_a_person_is_needed() -> None:
    with site(chosen=False) as at:
        at.administrator.answers = [Unknown("no answer")] * 3
        report = at.rotation(accept_gap=True, force=False).run()
        assert (report.result, report.phase) == ("held", "intended")
        assert at.administrator.calls.count("mint") == 3
        assert at.rotation(accept_gap=True, soak=0).run().result == "done"


def test_what_a_refusal_brings_along_is_kept_beside_the_secret() -> None:
    with site(chosen=False, slots=2, retires=True) as at:
        token = Secret("not-a-real-registration-token")
        at.administrator.answers = [Refused("not here", beside={"registration_access_token": token})]
        assert at.rotation().run().result == "failed"
        assert at.store.clear["registration_access_token"] == token.reveal()
        assert at.store.clear["client_secret"] == FIRST


# --- the way back


def test_abort_gives_up_what_was_only_claimed() -> None:
    with site() as at:
        at.rotation(wait=600, max_wait=10).run()
        report = at.rotation().abort()
        assert (report.result, at.steps[-2:]) == ("done", ["abandon", "done"])
        assert at.store.clear["client_secret"] == FIRST
        assert "client_secret_pending" not in at.store.clear


def test_abort_puts_the_current_secret_back_where_the_issuer_has_the_new_one() -> None:
    with site() as at:
        at.rotation(propagation=60, max_wait=62).run()
        assert at.administrator.calls[-1] == "apply"
        report = at.rotation().abort()
        assert report.result == "done"
        assert at.administrator.given[-1] == FIRST
        assert at.store.clear["client_secret"] == FIRST
        at.source().token()


def test_an_abort_that_was_killed_is_gone_on_with_by_a_run() -> None:
    with site() as at:
        at.rotation(propagation=60, max_wait=62).run()
        report = at.rotation(max_wait=17).abort()
        assert (report.result, report.phase) == ("waiting", "aborting")
        report = at.rotation().run()
        assert report.result == "failed"
        assert at.store.clear["client_secret"] == FIRST


def test_rollback_of_what_is_promoted_is_a_rotation_of_its_own() -> None:
    with site() as at:
        at.rotation(soak=7200, max_wait=120).run()
        new = at.store.clear["client_secret"]
        report = at.rotation(soak=0).rollback()
        assert report.result == "done"
        assert at.store.clear["client_secret"] == FIRST
        assert new not in at.store.clear.values()
        at.source().token()


def test_a_rollback_that_waits_is_gone_on_with_by_another_rollback() -> None:
    with site() as at:
        at.rotation(soak=7200, max_wait=120).run()
        assert at.rotation(wait=600, max_wait=30).rollback().phase == "claimed"
        assert at.rotation(soak=0).rollback().result == "done"
        assert at.store.clear["client_secret"] == FIRST


@pytest.mark.parametrize("verb", ["abort", "rollback"])
def test_there_is_no_way_back_without_a_previous_secret(verb: str) -> None:
    with site() as at:
        at.rotation(soak=0).run()
        at.clock.tick(60)
        if verb == "abort":
            assert at.rotation().abort().reason == "nothing is under way"
        else:
            with pytest.raises(ConfigurationError, match="no previous secret"):
                at.rotation().rollback()


# --- a secret that has leaked


def test_a_leaked_secret_is_changed_without_waiting_and_not_kept() -> None:
    with site() as at:
        began = at.clock.monotonic()
        assert at.rotation(compromised=True).run().result == "done"
        assert at.clock.monotonic() - began < 10
        assert all("client_secret_previous" not in written for written in at.store.writes)
        assert state(at).tokens_not_before == pytest.approx(at.clock.now().wall, abs=10)


def test_consumers_drop_older_tokens_when_they_read_the_store() -> None:
    with site(ttl=300) as at:
        source = at.source()
        old = source.token()
        at.clock.tick(1)
        at.rotation(compromised=True).run()
        assert source.token() is old
        source.reload()
        eventually(lambda: source.token() is not old)


def test_while_older_tokens_are_dropped_each_consumer_keeps_its_new_one() -> None:
    with site(ttl=300) as at:
        at.rotation(wait=0, compromised=True, landing=600, max_wait=0.5).run()
        assert state(at).tokens_not_before > at.clock.now().wall + 500  # type: ignore[operator]
        source = at.source()
        tokens = set()
        for _ in range(50):
            tokens.add(source.token().access_token)
            at.clock.tick(5)
        assert len(tokens) == 1


def test_they_drop_them_also_while_the_issuer_gives_no_other() -> None:
    with site(ttl=300) as at:
        source = at.source()
        source.token()
        at.clock.tick(1)
        at.rotation(compromised=True).run()
        at.issuer.stop_listening()
        at.clock.tick(560)  # the token would live for 39 s more
        with pytest.raises(IssuerUnavailable):
            source.token(force=True)
        with pytest.raises(IssuerUnavailable):
            source.token()


def test_there_is_no_way_back_to_a_leaked_secret() -> None:
    with site(slots=2, retires=True) as at:
        at.administrator.retire = lambda *_: Unknown("no answer")  # type: ignore[assignment, method-assign]
        assert at.rotation(compromised=True).run().result == "held"
        with pytest.raises(ConfigurationError, match="cannot go back"):
            at.rotation().rollback()


@pytest.mark.parametrize("several", [{}, {"slots": 2, "retires": True}])
def test_a_leak_found_while_a_rotation_soaks_ends_that_and_begins_another(several: dict[str, Any]) -> None:
    with site(**several) as at:
        at.rotation(soak=7200, max_wait=120).run()
        leaked = at.store.clear["client_secret"]
        assert at.rotation(compromised=True).run().result == "done"
        assert leaked not in at.store.clear.values()
        assert at.steps.count("claim") == 2


def test_an_abort_does_not_forget_an_earlier_leak() -> None:
    with site() as at:
        at.rotation(compromised=True).run()
        leaked = state(at).tokens_not_before
        at.clock.tick(7200)
        at.rotation(wait=600, max_wait=30).run()
        at.rotation().abort()
        assert state(at).tokens_not_before == leaked


# --- drift


def test_a_current_secret_that_the_issuer_no_longer_accepts_is_drift_and_nothing_is_written() -> None:
    with site() as at:
        at.issuer.set_secret(CLIENT, "not-a-real-secret-of-somebody")
        report = at.rotation().run()
        assert report.result == "drift"
        assert at.store.writes == []
        assert at.rotation().drift().result == "drift"


def test_both_rejected_is_drift_only_after_three_looks_and_no_open_call() -> None:
    with site() as at:
        at.rotation(propagation=60, max_wait=62).run()
        at.issuer.set_secret(CLIENT, "not-a-real-secret-of-somebody")
        asked, began = at.issuer.token_requests, at.clock.monotonic()
        report = at.rotation().run()
        assert report.result == "drift"
        assert at.issuer.token_requests - asked >= 6
        assert at.clock.monotonic() - began > 10


def test_drift_is_none_where_the_issuer_accepts_the_current_secret() -> None:
    with site() as at:
        assert at.rotation().drift().result == "done"
        at.rotation(propagation=60, max_wait=62).run()
        assert at.rotation().drift().result == "done"


# --- gates


class Gate:
    def __init__(self, point: str, answer: Any) -> None:
        self.told: list[Moment] = []

        def ask(moment: Moment, *rest: object) -> Any:
            self.told.append(moment)
            return answer

        setattr(self, point, ask)


@pytest.mark.parametrize(
    ("point", "phase"),
    [
        ("before_claim", "idle"),
        ("before_apply", "claimed"),
        ("before_promote", "applying"),
        ("verify", "applying"),
        ("before_retire", "soaking"),
    ],
)
def test_a_gate_that_holds_keeps_it_where_it_is(point: str, phase: str) -> None:
    with site() as at:
        gate = Gate(point, Hold("the window is shut"))
        report = at.rotation(gates=(gate,)).run()
        assert (report.result, report.phase) == ("held", phase)
        assert report.reason == f"{point}: the window is shut"
        assert gate.told[0].client_id == CLIENT
        at.clock.tick(60)
        assert at.rotation(gates=(Gate(point, Proceed()),)).run().result == "done"


def test_consumers_that_have_not_converged_are_waited_for() -> None:
    with site() as at:
        gate, began = Gate("converged", Hold("two of nine")), at.clock.monotonic()
        report = at.rotation(gates=(gate,), max_wait=300).run()
        assert (report.result, report.phase) == ("waiting", "claimed")
        assert at.clock.monotonic() - began > 280
        assert len(gate.told) > 10


def test_a_gate_that_has_aborted_leaves_what_another_has_promoted_meanwhile() -> None:
    with site(slots=2, retires=True) as at:

        class Late:
            def verify(self, moment: Moment, token: Token) -> Any:
                at.rotation(soak=0, max_wait=200).run()
                return Abort("no")

        report = at.rotation(gates=(Late(),), soak=0, max_wait=200).run()
        assert report.phase in ("idle", "soaking")
        at.source().token()


@pytest.mark.parametrize("point", ["before_apply", "before_promote", "verify"])
def test_a_gate_that_aborts_takes_it_back(point: str) -> None:
    with site() as at:
        report = at.rotation(gates=(Gate(point, Abort("no")),)).run()
        assert (report.result, report.reason) == ("failed", "no")
        assert at.store.clear["client_secret"] == FIRST
        assert "client_secret_pending" not in at.store.clear
        at.source().token()


def test_a_gate_that_aborts_before_the_claim_leaves_everything() -> None:
    with site() as at:
        assert at.rotation(gates=(Gate("before_claim", Abort("no")),)).run().result == "failed"
        assert at.store.writes == []


def test_verify_gets_a_token_of_the_new_secret() -> None:
    class Verifying:
        tokens: list[Token]

        def verify(self, moment: Moment, token: Token) -> Any:
            self.tokens = [token]
            return Proceed()

    with site() as at:
        gate = Verifying()
        at.rotation(gates=(gate,)).run()
        assert at.issuer.accepts(gate.tokens[0].access_token)


# --- what else may happen


def test_a_store_that_is_down_is_an_error_where_nothing_was_begun() -> None:
    with site() as at:
        rotation = at.rotation()
        at.store.down = True
        with pytest.raises(BackendUnavailable):
            rotation.run()


def test_a_store_that_says_it_writes_and_does_not_is_an_error_after_a_few_writes() -> None:
    class Forgetful(Memory):
        asked = 0

        def write_whole(self, *_: object, **__: object) -> str:
            self.asked += 1
            return "2"

    with site() as at:
        at.store = store = Forgetful(client_id=CLIENT, client_secret=FIRST)
        with pytest.raises(BackendError, match="gives what was there before"):
            at.rotation().run()
        assert 1 < store.asked < 10


def test_an_observer_that_raises_changes_nothing() -> None:
    with site() as at:
        source, policy = at.source(), Policy(wait=0, soak=0, force=True)
        raising = Rotation(source, at.administrator, policy=policy, observers=lambda event: 1 / 0)
        assert raising.run().result == "done"


@pytest.mark.parametrize(
    "made", ["brief", "a" * 40, "not-a-real-secret-1", "unprintable-\x00-secret-value", "näive-secret-value-1"]
)
def test_a_generator_that_makes_no_good_secret_is_refused_without_repeating_it(made: str) -> None:
    with site() as at:
        with pytest.raises(ConfigurationError) as caught:
            at.rotation(generator=lambda: made).run()
        assert made not in str(caught.value)
        assert at.store.writes == []


def test_status_tells_where_it_stands_without_asking_the_issuer() -> None:
    with site() as at:
        at.rotation(propagation=60, max_wait=62).run()
        asked = at.issuer.token_requests
        status = at.rotation().status()
        assert (status.phase, status.client_id) == ("applying", CLIENT)
        assert status.pending_age == pytest.approx(61, abs=5)
        assert 0 < status.open <= 15
        assert at.issuer.token_requests == asked


def test_step_by_step_it_comes_to_the_same_end() -> None:
    with site() as at:
        rotation = at.rotation(wait=0, soak=0)
        report = None
        for _ in range(60):
            report = rotation.step()
            if report is not None and report.result != "waiting":
                break
            at.clock.tick(1)
        assert report is not None
        assert report.result == "done"
        assert at.steps == WHOLE


def test_an_environment_whose_secrets_are_variables_prints_the_recipe() -> None:
    with site() as at:
        source = TokenSource("env:POS", issuer=at.issuer.url)
        with pytest.raises(ConfigurationError, match="NAME_CLIENT_SECRET_PENDING"):
            Rotation(source, at.administrator)
