"""Reading from Secrets Manager: what a reference means, which versions are read, and how clients are made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from secretsource import ConfigurationError, SecretReference, TokenSource
from secretsource.backends import Backend, Writable
from secretsource.backends.aws import AwsBackend
from secretsource.backends.aws.place import RegionMemory, place_of
from secretsource.clock import Deadline
from secretsource.credentials import Document, interpret
from secretsource.errors import BackendError, DeadlineExceeded, MalformedSecret, SecretNotFound
from secretsource.testing import Answer, BackendContract, FakeIssuer, Fault, TickingClock

from ..stores import in_threads
from .layouts import CANARY, revealed, shows
from .secrets_manager import (
    ACCESS_KEY,
    ARN,
    CURRENT_ID,
    PENDING_ID,
    REGION,
    SECRET_KEY,
    Asked,
    Moto,
    Scripted,
    always,
    moto_server,
    refused,
    session,
    value,
)

DOCUMENT = {"client_id": "pos", "client_secret": CANARY}


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with moto_server() as server:
        yield server


def read(backend: AwsBackend, reference: str, *, fresh: bool = False, timeout: float = 20.0) -> Document:
    return backend.read(SecretReference.parse(reference), fresh=fresh, timeout=timeout)


def wrong(reference: str, region: str | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        place_of(SecretReference.parse(reference), region)
    assert caught.value.hint
    return str(caught.value)


class TestSecretsManager(BackendContract):
    @pytest.fixture(autouse=True)
    def _server(self, moto: Moto) -> None:
        self.moto = moto

    def backend(self) -> AwsBackend:
        return self.moto.backend()

    def store(self, fields: Mapping[str, str]) -> str:
        return f"aws://{self.moto.create(fields)}"

    def change(self, reference: str, fields: Mapping[str, str]) -> None:
        self.moto.put(SecretReference.parse(reference).path, fields)

    def missing_reference(self) -> str:
        return f"aws://{self.moto.fresh_name()}"

    def broken_references(self) -> list[tuple[str, type[BackendError]]]:
        half, deleted = self.moto.create('{"client_id": "pos", "client_secret": "not-a-re'), self.moto.create("x")
        self.moto.client.delete_secret(SecretId=deleted)
        return [
            (f"aws://{half}", MalformedSecret),
            (f"aws://{self.moto.create(bytes([0, 255]))}", MalformedSecret),
            (f"aws://{deleted}", SecretNotFound),
        ]


# --- what a reference means


@pytest.mark.parametrize(
    ("reference", "store", "regions"),
    [
        ("aws://prod/pos", None, ()),
        ("aws://prod/pos", "eu-west-1", ("eu-west-1",)),
        ("aws://prod/pos?region=us-gov-west-1", "eu-west-1", ("us-gov-west-1",)),
        ("aws://prod/pos?regions=eu-west-1,eu-central-1", None, ("eu-west-1", "eu-central-1")),
        (f"aws://{ARN}", None, ("eu-west-1",)),
        (f"aws://{ARN}?regions=eu-west-1,eu-central-1", None, ("eu-west-1", "eu-central-1")),
    ],
)
def test_the_region_comes_from_the_reference_its_arn_or_the_store(
    reference: str, store: str | None, regions: tuple[str, ...]
) -> None:
    assert place_of(SecretReference.parse(reference), store).regions == regions


def test_a_replica_has_the_arn_with_the_region_exchanged() -> None:
    place = place_of(SecretReference.parse(f"aws://{ARN}?regions=eu-west-1,eu-central-1"), None)
    assert place.secret_in("eu-central-1") == ARN.replace("eu-west-1", "eu-central-1")
    assert not place.partial


@pytest.mark.parametrize(
    ("reference", "store", "said"),
    [
        (f"aws://{ARN}?region=us-east-1", None, "in eu-west-1 by its ARN and in us-east-1 by its options"),
        (f"aws://{ARN}?regions=us-east-1,eu-west-1", None, "in us-east-1 by its options"),
        (f"aws://{ARN}", "us-east-1", "by the region= of the store"),
        ("aws://p?region=eu-west-1&regions=eu-west-1", None, "region= and regions="),
        ("aws://p?regions=eu-west-1,eu-west-1", None, "twice"),
        ("aws://p?region=Ireland", None, "not the name of a region"),
        ("aws://p?regions=eu-west-1,", None, "not the name of a region"),
        ("aws://p?version=7", None, "32 to 64 characters"),
        ("aws://p?format=yaml", None, "unknown format"),
        (f"aws://{'p' * 513}", None, "at most 512"),
        ("aws://prod/pos:client_secret", None, "after '#'"),
        ("aws://arn:aws:s3:::bucket", None, "not one of a secret"),
        (f"aws://{ARN}{'x' * 2048}", None, "2048"),
    ],
)
def test_what_contradicts_itself_or_names_nothing_is_refused(reference: str, store: str | None, said: str) -> None:
    assert said in wrong(reference, store)


@pytest.mark.parametrize(
    ("behind", "ours"),
    [
        (":client_secret::", "#client_secret"),
        (":client_secret:AWSPREVIOUS:", "?stage=AWSPREVIOUS#client_secret"),
        (f":::{CURRENT_ID}", f"?version={CURRENT_ID}"),
    ],
)
def test_an_arn_as_ecs_writes_it_is_refused_with_the_reference_to_write(behind: str, ours: str) -> None:
    assert f"Write aws://{ARN}{ours}" in wrong(f"aws://{ARN}{behind}")


def test_a_partial_arn_is_read_with_one_warning(moto: Moto, caplog: pytest.LogCaptureFixture) -> None:
    name = moto.create(DOCUMENT, f"partial/{moto.fresh_name().replace('-', '_')}")
    arn = moto.client.describe_secret(SecretId=name)["ARN"]
    backend = moto.backend()
    for _ in range(2):
        assert read(backend, f"aws://{arn[:-7]}").version == read(backend, f"aws://{arn}").version
    warnings = [record.getMessage() for record in caplog.records if record.name == "secretsource"]
    assert len(warnings) == 1
    assert "partial ARN" in warnings[0]


@pytest.mark.parametrize("moment", ["2026-01-01", None])
def test_a_time_of_writing_without_a_zone_is_left_out(moment: str | None) -> None:
    with Scripted(always(value("s", CreatedDate=moment))) as aws:
        assert read(aws.backend(), f"aws://{ARN}").created is None


def test_a_region_that_hangs_leaves_the_other_one_its_share_of_the_time() -> None:
    hanging = Answer(fault=Fault(hang=True))
    with Scripted(lambda asked: hanging if asked.region == "eu-west-1" else value("s")) as aws:
        document = read(aws.backend(), "aws://prod/pos?regions=eu-west-1,eu-central-1", timeout=6.0)
    assert document.text is not None


# --- what it is built from


@pytest.mark.parametrize(
    "options",
    [
        {"region": "Ireland"},
        {"profile": ""},
        {"role_arn": "pos-reader"},
        {"external_id": "x"},
        {"session": "default"},
        {"session": session(), "profile": "p"},
        {"attempts": 0},
        {"attempts": True},
        {"connect_timeout": 0},
        {"read_timeout": "5"},
        {"watch_labels": "yes"},
        {"endpoint_url": "http://secrets.example.com"},
        {"endpoint_url": "localhost:4566"},
        {"proxy": "socks5://p:1"},
    ],
)
def test_what_it_cannot_be_built_from_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        AwsBackend(**options)


def test_it_declares_what_the_design_says() -> None:
    backend = AwsBackend()
    assert isinstance(backend, Backend)
    assert isinstance(backend, Writable)
    assert backend.options == {"region", "regions", "stage", "version", "format"}
    assert (backend.ttl, backend.eventually_consistent) == (300.0, True)


def test_a_source_that_reads_here_imports_no_hvac(moto: Moto) -> None:
    name = moto.create(DOCUMENT)
    source = (
        "import sys\n"
        "from secretsource import CredentialsSource\n"
        "from secretsource.backends.aws import AwsBackend\n"
        f"stores = {{'aws': AwsBackend(endpoint_url={moto.url!r})}}\n"
        f"CredentialsSource('aws://{name}?region={REGION}', stores=stores, timeout=60).current()\n"
        "print('botocore' in sys.modules, 'hvac' in sys.modules)"
    )
    variables = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", source]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True, env=variables)
    assert ran.stdout == "True False\n"


def test_importing_and_building_it_imports_no_botocore() -> None:
    source = (
        "import sys; from secretsource.backends.aws import AwsBackend; AwsBackend(region='eu-west-1')\n"
        "print([name for name in sys.modules if name.partition('.')[0] in ('boto3', 'botocore', 'urllib3')])"
    )
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"


def test_without_boto3_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match="needs boto3") as caught:
        AwsBackend()
    assert "pip install 'secretsource[aws]'" in (caught.value.hint or "")


# --- what a value means


@pytest.mark.parametrize(
    ("stored", "options", "fields"),
    [
        (json.dumps(DOCUMENT), "", DOCUMENT),
        ('\n {"client_secret": "s", "port": 5432}', "", None),
        (CANARY, "", CANARY),
        (f"{CANARY}\n", "", CANARY),
        ('"quoted"', "", '"quoted"'),
        ("{brace", "?format=text", "{brace"),
        ("client_id=pos\nclient_secret=x", "?format=env", {"client_id": "pos", "client_secret": "x"}),
        (b'{"client_secret": "x"}', "?format=json", {"client_secret": "x"}),
    ],
)
def test_an_object_is_a_mapping_and_everything_else_one_text_unless_its_format_is_named(
    moto: Moto, stored: str | bytes, options: str, fields: Any
) -> None:
    document = read(moto.backend(), f"aws://{moto.create(stored)}{options}")
    if fields is not None:
        assert revealed(document.text if document.text is not None else document.fields) == fields
    assert document.created is not None
    assert document.created.tzinfo is not None


@pytest.mark.parametrize(
    ("stored", "options", "said"),
    [
        ('{"client_secret": "not-a-re', "", "format=text if it is none"),
        ("{}x", "", "not valid json"),
        (b"text", "", "is binary"),
        (b"\xff", "?format=text", "not UTF-8"),
        ("[1]", "?format=json", "not a JSON object"),
    ],
)
def test_a_value_that_is_not_what_it_seems_is_malformed(
    moto: Moto, stored: str | bytes, options: str, said: str
) -> None:
    with pytest.raises(MalformedSecret, match=said) as caught:
        read(moto.backend(), f"aws://{moto.create(stored)}{options}")
    assert caught.value.store == "aws"
    assert not shows(caught.value)


def test_a_field_of_a_plain_text_is_malformed_with_a_way_out(moto: Moto) -> None:
    reference = SecretReference.parse(f"aws://{moto.create(CANARY)}#client_secret")
    with pytest.raises(MalformedSecret, match="format=json"):
        interpret(read(moto.backend(), str(reference)), reference, "pos")


# --- which versions are read


def test_a_read_within_the_ttl_is_one_call_and_a_forced_one_brings_the_candidates() -> None:
    texts = {"AWSCURRENT": "now", "AWSPENDING": "next", "AWSPREVIOUS": "last"}

    def script(asked: Asked) -> Mapping[str, Any]:
        stage = str(asked.stage)
        return value(texts[stage], stage, (stage * 5)[:32])

    with Scripted(script) as aws:
        backend = aws.backend()
        first = read(backend, "aws://prod/pos")
        assert [asked.stage for asked in aws.asked] == ["AWSCURRENT"]
        assert (first.pending, first.previous) == (None, None)
        forced = read(backend, "aws://prod/pos", fresh=True)
        assert [asked.stage for asked in aws.asked[1:]] == ["AWSPENDING", "AWSCURRENT", "AWSPREVIOUS"]
        later = read(backend, "aws://prod/pos")
        assert len(aws.asked) == 5
        for document in (forced, later):
            assert document.pending is not None
            assert document.previous is not None
            assert revealed(document.pending.text) == "next"
            assert revealed(document.previous.text) == "last"


def test_candidates_are_forgotten_with_the_current_version_beside_which_they_stood(moto: Moto) -> None:
    name = moto.create("one")
    moto.put(name, "two", "AWSPENDING")
    backend = moto.backend()
    assert read(backend, f"aws://{name}", fresh=True).pending is not None
    assert read(backend, f"aws://{name}").pending is not None
    moto.promote(name)
    promoted = read(backend, f"aws://{name}")
    assert revealed(promoted.text) == "two"
    assert promoted.pending is None
    again = read(backend, f"aws://{name}", fresh=True)
    assert again.previous is not None
    assert revealed(again.previous.text) == "one"


def test_a_pending_label_that_stays_on_the_current_version_is_no_candidate() -> None:
    labels = ["AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"]
    with Scripted(always(value("s", VersionStages=labels))) as aws:
        document = read(aws.backend(), "aws://prod/pos", fresh=True)
    assert (document.pending, document.previous) == (None, None)


@pytest.mark.parametrize(
    "answer",
    [
        refused("AccessDeniedException"),
        refused("ResourceNotFoundException"),
        refused("DecryptionFailure"),
        refused("ThrottlingException"),
        refused("InternalServiceError", status=500),
        value("{half", "AWSPENDING", PENDING_ID),
        value("", "AWSPENDING", PENDING_ID),
    ],
)
def test_a_candidate_that_cannot_be_read_never_stops_the_current_secret(answer: Any) -> None:
    with Scripted(lambda asked: value("now") if asked.stage == "AWSCURRENT" else answer) as aws:
        document = read(aws.backend(), "aws://prod/pos", fresh=True)
    assert revealed(document.text) == "now"
    assert (document.pending, document.previous) == (None, None)


@pytest.mark.parametrize(
    "answer",
    [refused("ThrottlingException"), Answer(403, {}, b"<html>a proxy's"), Answer(404, {}, b"<html>a proxy's")],
)
def test_a_candidate_that_is_known_survives_a_read_that_tells_nothing_of_it(answer: Answer) -> None:
    throttled = False

    def script(asked: Asked) -> Any:
        if asked.stage == "AWSCURRENT":
            return value("now")
        return answer if throttled else value("next", str(asked.stage), PENDING_ID)

    with Scripted(script) as aws:
        backend = aws.backend()
        read(backend, "aws://prod/pos", fresh=True)
        throttled = True
        assert read(backend, "aws://prod/pos", fresh=True).pending is not None


def test_watching_labels_reads_only_values_that_it_does_not_hold(moto: Moto) -> None:
    labels = {"AWSCURRENT": CURRENT_ID}

    def script(asked: Asked) -> Any:
        if asked.operation == "DescribeSecret":
            return {"ARN": ARN, "VersionIdsToStages": {version: [label] for label, version in labels.items()}}
        version = asked.body["VersionId"]
        return value(f"text of {version[0]}", "any", version)

    with Scripted(script) as aws:
        backend = aws.backend(watch_labels=True)
        for _ in range(2):
            assert revealed(read(backend, "aws://prod/pos").text) == "text of 1"
        assert [asked.operation for asked in aws.asked] == ["DescribeSecret", "GetSecretValue", "DescribeSecret"]
        labels["AWSPENDING"] = PENDING_ID
        document = read(backend, "aws://prod/pos")
        assert document.pending is not None
        assert revealed(document.pending.text) == "text of 2"
        assert len(aws.asked) == 5
        labels.clear()
        labels.update(AWSCURRENT=PENDING_ID, AWSPREVIOUS=CURRENT_ID)
        promoted = read(backend, "aws://prod/pos")
        assert (promoted.version, promoted.previous and promoted.previous.version) == (PENDING_ID, CURRENT_ID)
        assert len(aws.asked) == 6, "both values were held"
        labels.clear()
        with pytest.raises(SecretNotFound):
            read(backend, "aws://prod/pos")


def test_a_pinned_reference_reads_that_version_alone(moto: Moto) -> None:
    name = moto.create("one")
    second = moto.put(name, "two")
    moto.put(name, "three")
    backend = moto.backend()
    assert revealed(read(backend, f"aws://{name}?stage=AWSPREVIOUS", fresh=True).text) == "two"
    assert revealed(read(backend, f"aws://{name}?version={second}").text) == "two"
    assert revealed(read(backend, f"aws://{name}?stage=AWSPREVIOUS&version={second}").text) == "two"
    with pytest.raises(SecretNotFound):
        read(backend, f"aws://{name}?stage=AWSCURRENT&version={second}")


def test_a_read_that_finds_no_time_is_over_its_deadline() -> None:
    with Scripted(always(value("s"))) as aws, pytest.raises(DeadlineExceeded):
        read(aws.backend(), "aws://prod/pos", timeout=0.0)


# --- clients and sessions


def test_fifty_threads_make_one_client(moto: Moto) -> None:
    reference, backend = f"aws://{moto.create(DOCUMENT)}", moto.backend()
    found = in_threads(50, lambda: read(backend, reference).version)
    assert len(set(found)) == 1, found
    assert len(backend._calls._clients.get()._made.clients) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_makes_a_client_of_its_own(moto: Moto) -> None:
    backend = moto.backend()
    read(backend, f"aws://{moto.create(DOCUMENT)}")
    parents = backend._calls._clients.get()
    child = os.fork()
    if child == 0:
        os._exit(0 if backend._calls._clients.get() is not parents else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_the_session_that_was_given_is_used_for_credentials_and_left_as_it_was() -> None:
    mine = session("eu-central-1")
    before = vars(mine._session).keys()
    with Scripted(always(value("s"))) as aws:
        read(aws.backend(session=mine), "aws://prod/pos")
        assert [(asked.key, asked.region) for asked in aws.asked] == [(ACCESS_KEY, "eu-central-1")]
    assert vars(mine._session).keys() == before
    assert mine._session.get_default_client_config() is None


def test_a_profile_of_the_aws_configuration_gives_keys_and_region(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "[profile pos]\nregion = eu-north-1\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = x\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    with Scripted(always(value("s"))) as aws:
        read(aws.backend(session=None, profile="pos"), "aws://prod/pos")
        assert [(asked.key, asked.region) for asked in aws.asked] == [("AKIDPROFILE", "eu-north-1")]


@pytest.mark.parametrize("variable", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_built_bare_it_takes_keys_and_region_from_the_environment(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDVARIABLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv(variable, "eu-south-1")
    with Scripted(always(value("s"))) as aws:
        read(aws.backend(session=None), "aws://prod/pos")
        assert [(asked.key, asked.region) for asked in aws.asked] == [("AKIDVARIABLE", "eu-south-1")]


def test_the_environment_leads_to_no_endpoint_no_proxy_and_no_key_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    with Scripted(always(value("elsewhere"))) as other, Scripted(always(value("here"))) as aws:
        elsewhere = other.origin
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SECRETS_MANAGER", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy"):
            monkeypatch.setenv(name, elsewhere)
        monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
        assert revealed(read(aws.backend(), "aws://prod/pos").text) == "here"
        bare = AwsBackend(session=session(), attempts=1)
        client = bare._calls._clients.get().client(REGION, Deadline(20.0), Deadline(20.0))
        # No request: the endpoint is what matters.
        assert client.meta.endpoint_url == f"https://secretsmanager.{REGION}.amazonaws.com"
        assert other.asked == []


def test_tests_of_a_program_may_use_the_mock_of_moto() -> None:
    from moto import mock_aws

    with mock_aws():
        session().client("secretsmanager").create_secret(Name="prod/pos", SecretString="mocked")
        assert revealed(read(AwsBackend(session=session()), "aws://prod/pos").text) == "mocked"


# --- several regions


def test_a_region_that_is_out_of_order_is_passed_over_and_remembered() -> None:
    down = {"eu-west-1"}

    def script(asked: Asked) -> Any:
        return refused("InternalServiceError", status=500) if asked.region in down else value(f"of {asked.region}")

    reference = f"aws://{ARN}?regions=eu-west-1,eu-central-1"
    with Scripted(script) as aws:
        backend = aws.backend()
        for _ in range(2):
            assert revealed(read(backend, reference).text) == "of eu-central-1"
        assert aws.regions == ["eu-west-1", "eu-central-1", "eu-central-1"]
        assert aws.asked[1].body["SecretId"] == ARN.replace("eu-west-1", "eu-central-1")
        down.symmetric_difference_update({"eu-west-1", "eu-central-1"})
        assert revealed(read(backend, reference).text) == "of eu-west-1", "the other one is still there"


def test_a_region_that_refuses_ends_the_read() -> None:
    with Scripted(always(refused("AccessDeniedException"))) as aws:
        with pytest.raises(BackendError):
            read(aws.backend(attempts=3), "aws://p?regions=eu-west-1,eu-central-1")
        assert aws.regions == ["eu-west-1"]


def test_the_first_region_is_asked_again_after_a_minute() -> None:
    clock = TickingClock()
    memory, regions = RegionMemory(clock), ("a", "b", "c")
    memory.serves(regions, "b")
    assert memory.order(regions) == ("b", "a", "c")
    clock.tick(30)
    memory.serves(regions, "b")
    clock.tick(31)
    assert memory.order(regions) == regions
    assert memory.order(()) == (None,)


# --- nothing is shown


def test_nothing_secret_is_logged_even_at_debug_and_other_calls_still_log() -> None:
    source = """
import logging, sys, threading
records = []
class Kept(logging.Handler):
    def emit(self, record):
        records.append((threading.current_thread().name, record.name, f"{record.getMessage()} {record.args!r}"))
logging.basicConfig(level=1, handlers=[Kept()])
from tests.backends.secrets_manager import *
from secretsource import SecretReference
canary = "not-a-real-secret-canary"
with Scripted(lambda asked: value(canary) if asked.operation == "GetSecretValue" else {}) as aws:
    backend = aws.backend()
    for fresh in (False, True):
        backend.read(SecretReference.parse("aws://prod/pos"), fresh=fresh, timeout=20)
    ours = [text for _, _, text in records]
    assert not any(s in text for text in ours for s in (canary, SECRET_KEY, SESSION_TOKEN)), ours
    del records[:]
    # Somebody else's calls, in a thread of their own, while ours go on.
    mine = session().client("secretsmanager", endpoint_url=aws.origin)
    other = threading.Thread(target=lambda: mine.get_secret_value(SecretId="x"), name="theirs")
    other.start()
    backend.read(SecretReference.parse("aws://prod/pos"), fresh=False, timeout=20)
    other.join()
    assert any(thread == "theirs" and name.startswith("botocore") for thread, name, _ in records)
    assert not any(thread == "MainThread" and canary in text for thread, _, text in records)
"""
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr[-3000:]


# --- the whole way


def test_a_source_goes_through_a_change_of_the_secret_without_one_failed_call(moto: Moto) -> None:
    old, new = "not-a-real-secret-old", "not-a-real-secret-new"
    with FakeIssuer(lifetime=3600) as issuer:
        issuer.add_client("pos", old, scopes=["orders.read"])
        name = moto.create({"client_id": "pos", "client_secret": old})
        with TokenSource(f"aws://{name}", issuer=issuer.url, stores={"aws": moto.backend()}) as source:
            assert issuer.accepts(source.token().access_token)
            moto.put(name, {"client_id": "pos", "client_secret": new}, "AWSPENDING")
            issuer.set_secret("pos", new)
            assert issuer.accepts(source.token(force=True).access_token)
            moto.promote(name)
            source.reload()
            assert issuer.accepts(source.token(force=True).access_token)
