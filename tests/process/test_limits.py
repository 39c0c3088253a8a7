"""What a process has no more of: threads, memory, descriptors."""

from __future__ import annotations

import _thread
import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from secretsource import BackendUnavailable, ClientCredentials, SecretSourceError, Token, TokenSource
from secretsource.events import Event
from secretsource.testing import FakeIssuer, TickingClock

from ..stores import CLIENT, A, Store, eventually
from .programs import issuer_of_its_own, script

limits = pytest.mark.skipif(sys.platform != "linux", reason="these limits work so on Linux")


# --- threads


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)


@pytest.mark.usefixtures("no_threads")
def test_where_no_thread_can_be_started_token_runs_the_request_itself() -> None:
    with issuer_of_its_own() as token_url:  # it, too, needs threads
        source = TokenSource(ClientCredentials(CLIENT, A), token_url=token_url)
        assert isinstance(source.token(), Token)
        assert source.status().orphaned_threads == 0


def test_where_no_thread_can_be_started_the_kept_token_serves_and_is_renewed_in_the_leeway(
    issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = TickingClock()
    source = TokenSource(ClientCredentials(CLIENT, A), token_url=issuer.token_url, clock=clock)
    token = source.token()
    clock.tick(81)

    def refuse(*_: Any) -> int:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(_thread, "start_new_thread", refuse)
        for _ in range(8):
            assert source.token() is token
            clock.tick(1)
    assert issuer.token_requests == 1
    for _ in range(10):  # until its back-off is over
        source.token()
        eventually(lambda: source._flights.under_way(source._key) is None)  # its time does not go on before
        clock.tick(1)
    issuer.wait_for_token_requests(2)


@pytest.mark.usefixtures("no_threads")
def test_where_no_thread_can_be_started_a_task_gets_an_error_that_says_so() -> None:
    source = TokenSource(ClientCredentials(CLIENT, A), token_url="http://127.0.0.1:9/token")

    async def main() -> None:
        with pytest.raises(SecretSourceError, match="no thread can be started") as caught:
            await source.atoken()
        assert caught.value.retryable

    asyncio.run(main())


@limits
def test_a_user_at_the_systems_limit_of_threads_is_served_and_recovers(issuer: FakeIssuer) -> None:
    printed = script(
        issuer,
        """
        import asyncio, resource

        kept = source.token()
        if os.getuid() == 0:  # whom no such limit holds
            os.setgid(65534)
            os.setuid(65534)
        usual = resource.getrlimit(resource.RLIMIT_NPROC)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, usual[1]))
        try:
            threading.Thread(target=print, args=("a thread was started",)).start()
        except RuntimeError:
            pass
        assert source.token() is kept
        assert source.token(scope="other") is source.token(scope="other")
        try:
            asyncio.run(source.atoken(scope="third"))
        except SecretSourceError as error:
            print(error.retryable, error)
        resource.setrlimit(resource.RLIMIT_NPROC, usual)
        asyncio.run(source.atoken(scope="third"))
        print(source.status().orphaned_threads)
        """,
    )
    if "a thread was started" in printed:
        pytest.skip("this system does not hold that user to its limit")
    refusal, orphans = printed.splitlines()
    assert refusal.startswith("True no thread can be started")
    assert orphans == "0"
    assert issuer.token_requests == 3


# --- memory

OUT_OF_MEMORY = """
import _thread, itertools

start_new_thread = _thread.start_new_thread

class OutOfMemory:
    # Flights that begin from now on get one MemoryError, at this call of a function of ours.

    def __init__(self, at):
        self.at, self.calls, self.raised = at, itertools.count(), False
        _thread.start_new_thread = self.start

    def start(self, target, arguments=(), *more):
        def run():
            sys.setprofile(self.profile)
            target(*arguments, *more)

        return start_new_thread(run, ())

    def profile(self, frame, event, argument):
        ours = frame.f_globals.get("__name__", "").startswith("secretsource.")
        if event == "call" and ours and not self.raised and next(self.calls) == self.at:
            self.raised = True
            sys.setprofile(None)
            raise MemoryError
"""


@pytest.mark.parametrize(
    "step", [pytest.param(1, marks=pytest.mark.slow, id="everywhere"), pytest.param(5, id="in every fifth place")]
)
def test_wherever_memory_runs_out_in_a_flight_its_call_ends_in_time_and_the_next_one_works(
    issuer: FakeIssuer, step: int
) -> None:
    printed = script(
        issuer,
        OUT_OF_MEMORY
        + f"""
failed = 0
for at in itertools.count(step={step}):
    memory, source = OutOfMemory(at), new(timeout=0.2)
    began = time.monotonic()
    try:
        source.token()
    except SecretSourceError:
        failed += 1
    assert time.monotonic() - began < 5, at
    _thread.start_new_thread = start_new_thread
    source.reload()
    assert source.token(force=True, timeout=20) is source.token(), at
    while source.status().orphaned_threads:
        assert time.monotonic() - began < 20, at
        time.sleep(0.01)
    if not memory.raised:
        break
print(at, failed)
""",
        noisy=True,  # Python tells of a thread that ends by an exception
    )
    places, failed = map(int, printed.split())
    assert places > 100
    assert failed > 50 / step


def test_a_store_or_a_hook_that_runs_out_of_memory_is_a_failure_like_another(issuer: FakeIssuer) -> None:
    store = Store()
    store.failure = MemoryError()
    source = TokenSource(
        "memory:pos", stores=store.stores, token_url=issuer.token_url, on_event=_out_of_memory, clock=TickingClock()
    )
    with pytest.raises(BackendUnavailable, match="MemoryError was raised"):
        source.token()
    store.failure = None
    source.reload()
    assert issuer.accepts(source.token().access_token)


def _out_of_memory(_event: Event) -> None:
    raise MemoryError


@limits
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of a process stands there")
def test_a_process_at_its_limit_of_memory_hands_out_what_is_kept_and_recovers(issuer: FakeIssuer) -> None:
    """A thread may still be started there and find no memory for its first step."""
    printed = script(
        issuer,
        """
        import resource

        kept, outcomes = source.token(), []
        usual = resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        for more in (0, 1 << 16, 1 << 18, 1 << 20, 1 << 23, 1 << 25):
            resource.setrlimit(resource.RLIMIT_AS, (size + more, usual[1]))
            began, filled = time.monotonic(), []
            try:
                while more < 1 << 23:
                    filled.append(bytearray(100_000))
            except MemoryError:
                pass
            try:
                source.token(scope=f"scope-{more}", timeout=2)
            except (SecretSourceError, MemoryError):
                pass
            same = source.token() is kept
            filled = None
            resource.setrlimit(resource.RLIMIT_AS, usual)
            assert same
            assert time.monotonic() - began < 8
        source.token(force=True)
        deadline = time.monotonic() + 20
        while source.status().orphaned_threads and time.monotonic() < deadline:
            time.sleep(0.05)
        print(source.status().orphaned_threads)
        """,
        noisy=True,
    )
    assert printed.split() == ["0"]


# --- descriptors


@limits
def test_a_process_without_a_descriptor_left_has_a_clear_error_that_may_be_retried_and_recovers(
    issuer: FakeIssuer, tmp_path: Path
) -> None:
    document = tmp_path / "pos.json"
    document.write_text(f'{{"client_id": "{CLIENT}", "client_secret": "{A}"}}')
    document.chmod(0o600)
    printed = script(
        issuer,
        f"""
        import asyncio, resource

        reader = TokenSource("file://{document}", token_url=sys.argv[1])
        kept = source.token()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        filled = []
        try:
            while True:
                filled.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        for one in (source, reader):
            try:
                one.token(scope="other")
            except SecretSourceError as error:
                print(type(error).__name__, error.retryable, error)
        assert source.token() is kept
        for descriptor in filled:
            os.close(descriptor)
        for one in (source, reader):
            one.reload()
            assert one.token(scope="other") is one.token(scope="other")
            assert one.status().orphaned_threads == 0
        """,
    )
    of_the_issuer, of_the_store = printed.splitlines()
    assert of_the_issuer.startswith("IssuerUnavailable True")
    assert "too many open files" in of_the_issuer
    assert of_the_store.startswith("BackendUnavailable True")
    assert "EMFILE" in of_the_store
    assert {request.status for request in issuer.requests} == {200}
