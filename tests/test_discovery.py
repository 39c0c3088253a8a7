"""discovery: the token endpoint and the method from an issuer's metadata, and how long they are kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from secretsource.clock import Deadline
from secretsource.credentials import Binding
from secretsource.discovery import Discovery, Metadata, Target, read_metadata
from secretsource.endpoint import IssuerProfile
from secretsource.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InvalidTokenResponse,
    IssuerUnavailable,
    SecretSourceError,
)
from secretsource.events import DiscoveryFailed, Emitter
from secretsource.exchange import Answer
from secretsource.identity import Identity
from secretsource.testing import FakeIssuer, Fault, TickingClock
from secretsource.transport import Transport

from .stores import Events, eventually

STANDARD = IssuerProfile()
ISSUER = "https://issuer.test/tenant"
GOOD = {"issuer": ISSUER, "token_endpoint": "https://issuer.test/tenant/connect/token"}
DAY = 86400.0


# --- what is made of a document --------------------------------------------------------------------------------------


def read(members: object, issuer: str = ISSUER, profile: IssuerProfile = STANDARD, **how: Any) -> Metadata:
    content = members if isinstance(members, bytes) else json.dumps(members).encode()
    return read_metadata(Answer(200, {}, content), issuer, profile, **how)


def refused(call: Callable[[], object], error: type[SecretSourceError] = ConfigurationError) -> str:
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    return str(caught.value)


@pytest.mark.parametrize(
    ("offered", "method"),
    [
        (None, "client_secret_basic"),
        (["client_secret_basic"], "client_secret_basic"),
        (["client_secret_post", "private_key_jwt", "client_secret_basic"], "client_secret_basic"),
        (["private_key_jwt", "client_secret_post"], "client_secret_post"),
    ],
)
def test_basic_is_used_if_listed_or_if_there_is_no_list_and_else_post(offered: object, method: str) -> None:
    assert read({**GOOD, "token_endpoint_auth_methods_supported": offered}).auth_method == method
    assert read(GOOD) == Metadata(GOOD["token_endpoint"], "client_secret_basic")


@pytest.mark.parametrize("offered", [[], ["private_key_jwt", "none"], "client_secret_basic", {}, 5, [None]])
def test_an_issuer_that_offers_neither_is_a_configuration_error(offered: object) -> None:
    members = {**GOOD, "token_endpoint_auth_methods_supported": offered}
    assert "auth_method=" in refused(lambda: read(members))
    assert read(members, auth_method="client_secret_post").auth_method == "client_secret_post"


@pytest.mark.parametrize(
    "found",
    [
        "https://issuer.test/other",
        "https://evil.test/tenant",
        "http://issuer.test/tenant",
        "https://ISSUER.test/tenant",
        "https://issuer.test:443/tenant",
        "https://issuer.test/tenant?",
        "",
        None,
        5,
        [ISSUER],
        "https://u:p@issuer.test",
    ],
)
def test_metadata_of_another_issuer_is_refused(found: object) -> None:
    said = refused(lambda: read({**GOOD, "issuer": found}))
    assert "another issuer" in said
    assert "u:p" not in said


def test_metadata_that_names_no_issuer_is_refused() -> None:
    assert "none is named" in refused(lambda: read({"token_endpoint": GOOD["token_endpoint"]}))


@pytest.mark.parametrize(("ours", "theirs"), [(ISSUER, f"{ISSUER}/"), (f"{ISSUER}/", ISSUER)])
def test_a_difference_of_a_final_slash_prints_the_string_to_write(ours: str, theirs: str) -> None:
    assert f"issuer='{theirs}'" in refused(lambda: read({**GOOD, "issuer": theirs}, ours))


def test_only_a_final_slash_is_said_to_count() -> None:
    assert "the two must be equal" in refused(lambda: read({**GOOD, "issuer": "https://issuer.test/other"}))


@pytest.mark.parametrize(
    ("ours", "theirs"), [("https://a.test", "https://a.test/"), ("https://a.test/", "https://a.test")]
)
def test_a_final_slash_makes_no_difference_where_there_is_no_path(ours: str, theirs: str) -> None:
    assert read({"issuer": theirs, "token_endpoint": "https://a.test/token"}, ours).token_url == "https://a.test/token"


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.test/token",
        "https://sub.issuer.test/token",
        "https://issuer.test.evil.test/",
        "https://127.0.0.1/",
    ],
)
def test_a_token_endpoint_on_another_host_is_refused_unless_the_profile_names_it(url: str) -> None:
    host = url.split("/")[2]
    members = {**GOOD, "token_endpoint": url}
    assert f"endpoint_hosts=('{host}',)" in refused(lambda: read(members))
    assert read(members, profile=IssuerProfile(endpoint_hosts=("other.test", host))).token_url == url
    refused(lambda: read(members, profile=IssuerProfile(endpoint_hosts=("test", "other.test"))))


def test_the_host_may_have_another_port() -> None:
    assert read({**GOOD, "token_endpoint": "https://issuer.test:8443/token"}).token_url.endswith(":8443/token")


@pytest.mark.parametrize("url", ["http://issuer.test/token", "http://127.0.0.1/token"])
def test_a_plain_endpoint_of_an_https_issuer_does_not_know_of_its_tls(url: str) -> None:
    profile = IssuerProfile(endpoint_hosts=("127.0.0.1",))
    said = refused(lambda: read({**GOOD, "token_endpoint": url}, profile=profile, plain_http=("issuer.test",)))
    assert "X-Forwarded-Proto" in said


def test_the_case_of_the_scheme_does_not_matter() -> None:
    assert read({**GOOD, "token_endpoint": "HTTPS://issuer.test/token"}).token_url == "HTTPS://issuer.test/token"
    members = {"issuer": "HTTPS://issuer.test", "token_endpoint": "http://issuer.test/token"}
    assert "X-Forwarded-Proto" in refused(lambda: read(members, "HTTPS://issuer.test", plain_http=("issuer.test",)))


def test_a_plain_endpoint_of_a_plain_issuer_needs_its_own_exception() -> None:
    members = {"issuer": "http://orchard:8080", "token_endpoint": "http://orchard:8081/token"}
    assert "plain_http" in refused(lambda: read(members, "http://orchard:8080", plain_http=("orchard:8080",)))
    assert read(members, "http://orchard:8080", plain_http=("orchard:8080", "orchard:8081")).token_url


@pytest.mark.parametrize(
    "url", [None, "", 5, "token", "/connect/token", "https://u:p@issuer.test/", "ftp://issuer.test"]
)
def test_metadata_without_a_token_endpoint_is_an_invalid_answer(url: object) -> None:
    said = refused(lambda: read({**GOOD, "token_endpoint": url}), InvalidTokenResponse)
    assert "token_url=" in said
    assert "u:p" not in said


def test_a_url_of_a_megabyte_does_not_become_a_message() -> None:
    for name in ("issuer", "token_endpoint"):
        with pytest.raises(SecretSourceError) as caught:
            read({**GOOD, name: "https://other.test/" + "x" * 1_000_000})
        assert len(str(caught.value)) < 2000


def test_a_token_endpoint_has_no_fragment_and_may_have_a_query() -> None:
    refused(lambda: read({**GOOD, "token_endpoint": "https://issuer.test/token#a"}))
    assert read({**GOOD, "token_endpoint": "https://issuer.test/token?a=b"}).token_url.endswith("?a=b")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"issuer": "a", "issuer": "b"}', b'{"a": NaN}', b"\xff"])
def test_a_document_that_is_no_json_object_is_an_invalid_answer(body: bytes) -> None:
    refused(lambda: read(body), InvalidTokenResponse)


# --- what was configured ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"issuer": "http://issuer.test"},
        {"issuer": "https://issuer.test/?a"},
        {"token_url": "http://issuer.test/token"},
        {"issuer": "https://issuer.test", "token_url": "https://issuer.test/#a"},
        {"issuer": "https://issuer.test", "auth_method": "private_key_jwt"},
        {"issuer": "http://orchard:8080", "plain_http": "orchard"},
    ],
)
def test_a_target_that_no_secret_may_be_sent_to_is_refused(given: dict[str, Any]) -> None:
    refused(lambda: Target.of(**{"issuer": None, "token_url": None, **given}))


def test_a_target_is_named_by_its_issuer_or_else_by_its_token_url() -> None:
    assert Target.of(issuer="https://issuer.test", token_url="https://issuer.test/t").name == "https://issuer.test"
    target = Target.of(issuer=None, token_url="http://orchard:8080/t", plain_http="orchard:8080")
    assert (target.name, target.plain_http) == ("http://orchard:8080/t", ("orchard:8080",))
    assert target.identity("env://POS", None) == Identity("", "http://orchard:8080/t", "", "env://POS", "")


def test_a_target_whose_parts_are_of_another_kind_is_refused() -> None:
    where: dict[str, Any] = {"issuer": ISSUER, "token_url": None}
    assert "plain_http=" in refused(lambda: Target.of(**{**where, "plain_http": 5}))
    assert "profile=" in refused(lambda: Target.of(**{**where, "profile": {}}))
    assert "token_url is plain http" in refused(lambda: Target.of(issuer=ISSUER, token_url="http://issuer.test/t"))
    assert "neither issuer= nor token_url=" in refused(lambda: Target.of(issuer=None, token_url=None))


def test_a_target_has_the_profile_that_was_given_or_the_standard_one() -> None:
    other = IssuerProfile(lockout=True)
    assert Target.of(issuer=ISSUER, token_url=None, profile=other).profile is other
    plain = Target.of(issuer=ISSUER, token_url=None)
    assert (plain.profile, plain.default_lifetime, plain.require_binding) == (STANDARD, 300.0, False)


def test_the_identity_of_a_target_has_all_that_tells_it_from_others() -> None:
    target = Target.of(issuer=ISSUER, token_url=None, auth_method="client_secret_post", environment="production")
    assert target.identity("env://POS", "pos") == Identity(
        "production", ISSUER, "client_secret_post", "env://POS", "pos"
    )


@pytest.mark.parametrize(
    ("bound", "named"),
    [
        ({"issuer": "https://evil.test", "environment": "production"}, "bound to the issuer"),
        ({"token_url": "https://evil.test/t", "environment": "production"}, "bound to the token_url"),
        ({"issuer": ISSUER, "environment": "staging"}, "bound to the environment"),
        ({"issuer": ISSUER}, "for which environment"),
    ],
)
def test_a_target_refuses_a_document_for_another(bound: dict[str, str], named: str) -> None:
    given: dict[str, Any] = {"issuer": ISSUER, "environment": "production", "require_binding": True}
    target = Target.of(token_url="https://issuer.test/t", **given)
    target.check_binding(Binding(issuer=ISSUER, environment="production"), "env://POS")
    assert named in refused(lambda: target.check_binding(Binding(**bound), "env://POS"))
    found = Target.of(token_url=None, **given)
    if "token_url" in bound:
        found.check_binding(Binding(**bound), "env://POS")
        found.check_binding(Binding(**bound), "env://POS", bound["token_url"])
        assert named in refused(lambda: found.check_binding(Binding(**bound), "env://POS", "https://issuer.test/t"))


# --- asking for it ---------------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer(path="tenant") as issuer:
        yield issuer


def discovery(
    issuer: FakeIssuer | str, clock: TickingClock, on_event: Events | None = None, **target: Any
) -> Discovery:
    url = issuer if isinstance(issuer, str) else issuer.url
    given: dict[str, Any] = {"issuer": url, "token_url": None, "auth_method": None, "profile": STANDARD, **target}
    return Discovery(Target(default_lifetime=300.0, **given), Transport(), Emitter(on_event, clock=clock), clock)


def ask(discovery: Discovery, *, seconds: float = 10.0, patient: bool = False) -> Metadata:
    return discovery.metadata(Deadline(seconds), patient=patient)


OPENID = "/tenant/.well-known/openid-configuration"
OAUTH = "/.well-known/oauth-authorization-server/tenant"


def paths(issuer: FakeIssuer) -> list[str]:
    return [request.path for request in issuer.requests]


def test_the_first_well_known_path_is_enough(issuer: FakeIssuer, clock: TickingClock) -> None:
    assert ask(discovery(issuer, clock)) == Metadata(issuer.token_url, "client_secret_basic")
    assert paths(issuer) == [OPENID]


@pytest.mark.parametrize("path", ["tenant", ""])
def test_the_second_well_known_path_is_asked_if_the_first_has_nothing(clock: TickingClock, path: str) -> None:
    with FakeIssuer(path=path, well_known=["oauth-authorization-server"]) as issuer:
        assert ask(discovery(issuer, clock)).token_url == issuer.token_url
        tenant = f"/{path}" if path else ""
        assert paths(issuer) == [
            f"{tenant}/.well-known/openid-configuration",
            f"/.well-known/oauth-authorization-server{tenant}",
        ]


def test_an_issuer_without_metadata_is_said(clock: TickingClock) -> None:
    with FakeIssuer(path="tenant", well_known=[]) as issuer:
        with pytest.raises(IssuerUnavailable, match="token_url=") as caught:
            ask(discovery(issuer, clock), patient=True)
        assert (caught.value.status, caught.value.retryable, caught.value.issuer) == (404, False, issuer.url)
        assert paths(issuer) == [OPENID, OAUTH]
    assert clock.sleeps == []


@pytest.mark.parametrize(
    ("first", "second", "retryable"), [(503, 404, True), (404, 503, True), (429, 404, True), (404, 403, False)]
)
def test_an_issuer_that_is_out_of_order_at_either_address_may_be_asked_again(
    issuer: FakeIssuer, clock: TickingClock, first: int, second: int, retryable: bool
) -> None:
    for status in (first, second):
        issuer.fail(Fault(status=status), times=1, path="discovery")
    with pytest.raises(IssuerUnavailable, match=f"{first} and {second}") as caught:
        ask(discovery(issuer, clock))
    assert (caught.value.retryable, caught.value.status) == (retryable, max(first, second))
    assert paths(issuer) == [OPENID, OAUTH]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_of_the_metadata_is_not_followed(issuer: FakeIssuer, clock: TickingClock, status: int) -> None:
    with FakeIssuer(path="tenant") as second:
        issuer.fail(Fault(redirect=f"{second.url}.well-known/openid-configuration", status=status), path="discovery")
        with pytest.raises(IssuerUnavailable, match=str(status)):
            ask(discovery(issuer, clock))
        assert second.requests == []


def test_a_start_page_at_the_first_address_does_not_hide_the_second(issuer: FakeIssuer, clock: TickingClock) -> None:
    issuer.fail(Fault(body=b"<html>"), times=1, path="discovery")
    assert ask(discovery(issuer, clock)).token_url == issuer.token_url


def test_of_two_documents_that_are_none_the_first_is_told(issuer: FakeIssuer, clock: TickingClock) -> None:
    issuer.fail(Fault(body=b"<html>"), times=1, path="discovery")
    issuer.fail(Fault(answer={"token_endpoint": None}), times=1, path="discovery")
    with pytest.raises(InvalidTokenResponse, match="is not JSON") as caught:
        ask(discovery(issuer, clock))
    assert (caught.value.issuer, caught.value.status) == (issuer.url, 200)


@pytest.mark.parametrize(("status", "again"), [(499, False), (500, True), (429, True)])
def test_what_may_pass_is_asked_for_again_by_the_patient(
    issuer: FakeIssuer, clock: TickingClock, status: int, again: bool
) -> None:
    issuer.fail(Fault(status=status), path="discovery")
    with pytest.raises(IssuerUnavailable) as caught:
        ask(discovery(issuer, clock), patient=True)
    assert caught.value.retryable == again
    assert len(issuer.requests) == (6 if again else 2)


def test_an_endpoint_of_plain_http_on_a_host_that_is_excepted_is_taken(issuer: FakeIssuer, clock: TickingClock) -> None:
    issuer.fail(Fault(answer={"token_endpoint": "http://orchard:8080/token"}), path="discovery")
    profile = IssuerProfile(endpoint_hosts=("orchard",))
    found = ask(discovery(issuer, clock, profile=profile, plain_http=("orchard:8080",)))
    assert found.token_url == "http://orchard:8080/token"


def test_discovery_counts_the_threads_that_hang(issuer: FakeIssuer, clock: TickingClock) -> None:
    asked = discovery(issuer, clock)
    ask(asked)
    assert asked.orphans == 0


def test_the_issuers_mismatch_is_found_over_the_wire_too(issuer: FakeIssuer, clock: TickingClock) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ask(discovery(issuer.url.rstrip("/"), clock))
    assert f"issuer={issuer.url!r}" in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert issuer.token_requests == 0


def test_a_hostile_token_endpoint_gets_nothing(issuer: FakeIssuer, clock: TickingClock) -> None:
    issuer.fail(Fault(answer={"token_endpoint": "https://evil.test/token"}), path="discovery")
    with pytest.raises(ConfigurationError, match="another host"):
        ask(discovery(issuer, clock))
    assert ask(discovery(issuer, clock, profile=IssuerProfile(endpoint_hosts=("evil.test",)))).token_url


def test_a_token_url_spares_discovery(clock: TickingClock) -> None:
    for method, used in ((None, "client_secret_basic"), ("client_secret_post", "client_secret_post")):
        found = ask(discovery("https://issuer.test", clock, token_url="https://issuer.test/t", auth_method=method))
        assert found == Metadata("https://issuer.test/t", used)


def test_a_given_method_wins_over_the_metadata(issuer: FakeIssuer, clock: TickingClock) -> None:
    issuer.add_client("pos", "not-a-real-secret", methods=["client_secret_basic"])
    assert ask(discovery(issuer, clock, auth_method="client_secret_post")).auth_method == "client_secret_post"


def test_metadata_is_kept_for_a_day(issuer: FakeIssuer, clock: TickingClock) -> None:
    asked = discovery(issuer, clock)
    ask(asked)
    clock.tick(0.89 * DAY)
    ask(asked)
    assert len(issuer.requests) == 1
    clock.tick(0.22 * DAY)  # the day is drawn between 0.9 and 1.1, so that a fleet does not ask in step
    ask(asked)
    assert len(issuer.requests) == 2


def test_forgotten_metadata_is_asked_for_again(issuer: FakeIssuer, clock: TickingClock) -> None:
    asked = discovery(issuer, clock)
    asked.forget()
    ask(asked)
    asked.forget()
    ask(asked)
    assert len(issuer.requests) == 2


@pytest.mark.parametrize(
    "fault",
    [Fault(status=503), Fault(status=404), Fault(body=b"<html>"), Fault(reset=True), Fault(redirect="https://a.test/")],
)
def test_old_metadata_serves_on_while_the_issuer_gives_no_new(
    issuer: FakeIssuer, clock: TickingClock, fault: Fault
) -> None:
    asked = discovery(issuer, clock)
    known = ask(asked)
    clock.tick(2 * DAY)
    with issuer.failing(fault, path="discovery"):
        assert ask(asked) == known
    clock.tick(61)
    with issuer.down():
        assert ask(asked) == known
    clock.tick(2 * DAY)
    issuer.fail(Fault(answer={"token_endpoint": f"{issuer.url}new"}), path="discovery")
    assert ask(asked).token_url == f"{issuer.url}new"


def test_a_failed_renewal_of_the_metadata_is_an_event_and_a_warning(
    issuer: FakeIssuer, clock: TickingClock, caplog: pytest.LogCaptureFixture
) -> None:
    events = Events()
    asked = discovery(issuer, clock, events)
    known = ask(asked)
    clock.tick(2 * DAY)
    with caplog.at_level(logging.DEBUG, logger="secretsource"), issuer.failing(Fault(status=503), path="discovery"):
        assert ask(asked) == known
        eventually(lambda: events)
    (failed,) = events
    assert isinstance(failed, DiscoveryFailed)
    assert (failed.source, failed.error) == (issuer.url, "IssuerUnavailable")
    assert "503 and 503" in failed.reason
    assert [(record.levelname, failed.reason in record.getMessage()) for record in caplog.records] == [
        ("WARNING", True)
    ]


def test_a_failure_that_reaches_the_caller_is_no_event_beside_it(issuer: FakeIssuer, clock: TickingClock) -> None:
    events = Events()
    asked = discovery(issuer, clock, events)
    with issuer.down(), pytest.raises(IssuerUnavailable):
        ask(asked)
    ask(asked)
    clock.tick(2 * DAY)
    issuer.fail(Fault(answer={"issuer": "https://evil.test/"}), path="discovery")
    with pytest.raises(ConfigurationError):
        ask(asked)
    assert events == []


def test_an_issuer_whose_metadata_hang_leaves_time_for_the_token_request(
    issuer: FakeIssuer, clock: TickingClock
) -> None:
    asked = discovery(issuer, clock)
    known = ask(asked)
    clock.tick(2 * DAY)
    issuer.fail(Fault(hang=True), path="discovery")
    deadline = Deadline(0.6)
    assert asked.metadata(deadline, patient=True) == known
    assert not deadline.over()
    before = len(issuer.requests)
    assert ask(asked) == known  # nor does each call wait for it
    assert len(issuer.requests) == before


def test_new_metadata_that_are_wrong_are_an_error_in_spite_of_older_ones(
    issuer: FakeIssuer, clock: TickingClock
) -> None:
    asked = discovery(issuer, clock)
    ask(asked)
    clock.tick(2 * DAY)
    issuer.fail(Fault(answer={"issuer": "https://evil.test/"}), path="discovery")
    with pytest.raises(ConfigurationError, match="another issuer"):
        ask(asked)


def test_with_no_metadata_known_a_hanging_issuer_is_out_of_time(issuer: FakeIssuer, clock: TickingClock) -> None:
    issuer.fail(Fault(hang=True), path="discovery")
    with pytest.raises(DeadlineExceeded) as caught:
        ask(discovery(issuer, clock), seconds=0.3)
    assert caught.value.phase is not None
    assert caught.value.phase.startswith("discovery")


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(status=429), Fault(reset=True)])
def test_who_is_patient_asks_three_times_while_the_issuer_is_out_of_order(
    issuer: FakeIssuer, clock: TickingClock, fault: Fault
) -> None:
    issuer.fail(fault, times=2, path="discovery")
    assert ask(discovery(issuer, clock), patient=True).token_url == issuer.token_url
    assert paths(issuer) == [OPENID] * 3
    first, second = clock.sleeps
    assert 0.16 <= first <= 0.24
    assert 0.64 <= second <= 0.96


def test_who_is_not_patient_asks_once(issuer: FakeIssuer, clock: TickingClock) -> None:
    issuer.fail(Fault(reset=True), path="discovery")
    with pytest.raises(IssuerUnavailable):
        ask(discovery(issuer, clock))
    assert (paths(issuer), clock.sleeps) == ([OPENID], [])


def test_a_wait_that_the_deadline_would_end_is_not_begun(issuer: FakeIssuer, clock: TickingClock) -> None:
    issuer.fail(Fault(reset=True), path="discovery")
    with pytest.raises(IssuerUnavailable):
        ask(discovery(issuer, clock), seconds=0.15, patient=True)
    assert clock.sleeps == []
