"""The plan: all that is needed is looked at, nothing is written, and what fails says what to do."""

from __future__ import annotations

from secretsource import Secret
from secretsource.rotation import Finding, Plan
from secretsource.testing import FakeIssuer

from .site import CLIENT, FIRST, Site, site


def found(plan: Plan, name: str) -> Finding:
    return next(each for each in plan.findings if each.name == name)


def planned(at: Site, **policy: object) -> Plan:
    plan = at.rotation(**policy).plan()  # type: ignore[arg-type]
    assert at.store.writes == []
    assert "apply" not in at.administrator.calls
    assert FIRST not in str(plan)
    return plan


def test_a_plan_without_a_fault_lists_the_steps() -> None:
    with site() as at:
        plan = planned(at)
        assert plan.ok
        assert [each.name for each in plan.findings] == [
            "store",
            "writing",
            "binding",
            "under way",
            "current",
            "issuer",
            "consumers",
            "due",
        ]
        assert len(plan.steps) == 7
        assert "wait 1 min, until consumers hold it" in plan.steps


def test_what_is_not_due_has_no_steps() -> None:
    with site() as at:
        at.rotation().run()
        at.store.writes.clear()
        at.administrator.calls.clear()
        assert planned(at, force=False).steps == ()


def test_a_current_secret_that_is_rejected_fails_it() -> None:
    with site() as at:
        at.issuer.set_secret(CLIENT, "not-a-real-secret-of-somebody")
        plan = planned(at)
        assert not plan.ok
        assert found(plan, "current").status == "failed"
        assert plan.steps == ()


def test_a_store_that_is_down_skips_what_needs_it() -> None:
    with site() as at:
        rotation = at.rotation()
        at.store.down = True
        plan = rotation.plan()
        assert found(plan, "store").status == "failed"
        assert {each.status for each in plan.findings[1:6]} == {"skipped"}


def test_an_issuer_that_generates_the_only_secret_needs_the_gap() -> None:
    with site(chosen=False) as at:
        assert found(planned(at), "issuer").status == "failed"
        assert planned(at, accept_gap=True).ok


def test_what_is_under_way_is_named_and_gone_on_with() -> None:
    with site() as at:
        at.rotation(wait=600, max_wait=10).run()
        at.store.writes.clear()
        plan = planned(at)
        assert found(plan, "under way").status == "warning"
        assert "write a new secret into the store as pending" not in plan.steps


def test_a_leak_says_what_may_fail() -> None:
    with site() as at:
        finding = found(planned(at, compromised=True), "compromised")
        assert finding.status == "warning"
        assert "fails until it can" in finding.found


def test_a_leak_found_in_a_soak_has_the_steps_of_a_rotation_of_its_own() -> None:
    with site() as at:
        at.rotation(soak=7200, max_wait=120).run()
        at.store.writes.clear()
        at.administrator.calls.clear()
        plan = planned(at, compromised=True)
        assert found(plan, "under way").hint == "It is ended first, and then another one is made"
        assert plan.steps[:2] == (
            "take the previous one out of the store",
            "write a new secret into the store as pending",
        )


def test_a_document_for_another_issuer_is_refused_before_anything_is_sent() -> None:
    with site() as at, FakeIssuer() as other:
        at.store.fields["issuer"] = Secret(other.url)
        plan = planned(at)
        assert found(plan, "store").status == "failed"
        assert at.issuer.token_requests == 0
