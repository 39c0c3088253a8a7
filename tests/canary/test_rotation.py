"""Rotations: each verb in each phase, each party breaking at each call, gates, observers, generators, and a crash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from secretsource import Secret
from secretsource.clock import Deadline
from secretsource.errors import ConfigurationError, SecretSourceError
from secretsource.rotation import (
    Abort,
    Applied,
    Client,
    Hold,
    Minted,
    Moment,
    Policy,
    Preflight,
    Proceed,
    Refused,
    Report,
    Rotation,
    Unknown,
)
from secretsource.rotation.hooks import POINTS
from secretsource.testing import Fault

from .cases import the_rest_slow
from .rotations import BREAKS, KINDS, Breaks, Crash, Scene, scene
from .test_source import REFUSALS
from .watch import Watch

VERBS: dict[str, Callable[[Rotation], object]] = {
    "plan": Rotation.plan,
    "run": Rotation.run,
    "resume": Rotation.resume,
    "status": Rotation.status,
    "abort": Rotation.abort,
    "rollback": Rotation.rollback,
    "drift": Rotation.drift,
    "step": Rotation.step,
}


def ends(it: Scene, verb: str, rotation: Rotation) -> object:
    """It ends in a report or in an error of ours, and all that is left of it is looked at."""
    ended = it.watch.ends(lambda: VERBS[verb](rotation))
    assert not isinstance(ended, BaseException) or isinstance(ended, SecretSourceError), type(ended).__name__
    if isinstance(ended, SecretSourceError):
        assert (ended.__cause__, ended.__context__) == (None, None), "another exception hangs on it"
    it.watch.look(rotation)
    it.watch.write(it.state_text)
    return ended


# --- a good way ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clear", the_rest_slow([False, True], True), ids=["of Secrets", "of texts"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_rotation(watch: Watch, kind: str, clear: bool) -> None:
    with scene(watch, kind, clear=clear) as it:
        rotation = it.rotation()
        watch.gives(rotation.plan)
        watch.gives(rotation.status)
        report = watch.gives(rotation.run)
        assert report.result == "done", report
        watch.gives(rotation.drift)
        watch.look(rotation)


@pytest.mark.parametrize("kind", the_rest_slow(KINDS, "two slots"))
def test_a_rotation_step_by_step(watch: Watch, kind: str) -> None:
    with scene(watch, kind) as it:
        rotation = it.rotation()
        for _ in range(200):
            report = watch.gives(rotation.step)
            watch.look(rotation)  # with its run, what that remembers, and the evidence
            watch.write(it.state_text)
            if report is not None and report.result == "done":
                return
            it.clock.tick(0.0 if report is None else report.retry_after or 1.0)
        raise AssertionError("it has no end")


@pytest.mark.parametrize("kind", the_rest_slow(KINDS, "two slots"))
def test_a_secret_that_leaked_is_replaced(watch: Watch, kind: str) -> None:
    with scene(watch, kind) as it:
        rotation = it.rotation(compromised=True)
        assert watch.gives(rotation.plan).ok
        assert watch.gives(rotation.run).result == "done"
        watch.look(rotation)


def test_a_secret_of_the_usual_generator(watch: Watch) -> None:
    with scene(watch) as it:
        source = watch.source("ring:pos", stores={"ring": it.store}, issuer=it.issuer.url, clock=it.clock)
        policy = Policy(wait=1, soak=1, proofs=1, force=True)
        report = Rotation(source, it.administrator, policy=policy, observers=watch.events).run()
        watch.canary_of("generated secret", it.store.fields["client_secret"])
        watch.look(report)
        watch.look(it.state)


# --- each phase, each verb -------------------------------------------------------------------------------------------


def claimed(it: Scene) -> None:
    it.rotation(wait=3600, max_wait=0).run()
    assert it.rotation().status().phase == "claimed"


def applying(it: Scene) -> None:
    it.plan["apply", None] = lambda known, call: Unknown("no answer")
    it.rotation(wait=0, max_wait=2).run()
    it.plan.clear()
    assert it.rotation().status().phase == "applying"


class _Waits:
    def before_promote(self, moment: Moment) -> Hold:
        return Hold("not today")


def taken(it: Scene) -> None:
    """The issuer has the new secret, and the store does not say so yet."""

    it.rotation(wait=0, gates=(_Waits(),)).run()
    assert it.rotation().status().phase == "applying"


def aborting(it: Scene) -> None:
    taken(it)
    it.clock.tick(60)
    it.plan["apply", None] = lambda known, call: Unknown("no answer")
    it.rotation(max_wait=1).abort()
    it.plan.clear()
    assert it.rotation().status().phase == "aborting"


def intended(it: Scene) -> None:
    it.plan["mint", None] = lambda known, call: Unknown("no answer")
    it.rotation(max_wait=1).run()
    it.plan.clear()
    assert it.rotation().status().phase == "intended"


def soaking(it: Scene) -> None:
    it.rotation(wait=0, soak=36000).run()
    assert it.rotation().status().phase == "soaking"


def drifted(it: Scene) -> None:
    it.issuer.set_secret("pos", "not-a-real-secret-of-somebody-else")


def adopted(it: Scene) -> None:
    it.store._fields["client_secret_pending"] = Secret(it.new_secret())


PHASES: dict[str, tuple[str, Callable[[Scene], object]]] = {
    "idle": ("one slot", lambda it: None),
    "claimed": ("one slot", claimed),
    "applying": ("one slot", applying),
    "taken": ("one slot", taken),
    "aborting": ("one slot", aborting),
    "intended": ("generated", intended),
    "intended, two slots": ("generated, two slots", intended),
    "soaking": ("one slot", soaking),
    "soaking, two slots": ("two slots", soaking),
    "soaking, generated": ("generated", soaking),
    "drifted": ("one slot", drifted),
    "adopted": ("one slot", adopted),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("phase", the_rest_slow(PHASES, "taken"))
def test_each_verb_in_a_phase(watch: Watch, phase: str, verb: str) -> None:
    kind, reach = PHASES[phase]
    with scene(watch, kind) as it:
        reach(it)
        rotation = it.rotation(max_wait=60)
        ends(it, verb, rotation)
        ends(it, "status", rotation)


# --- the store, the adapter and the generator break ------------------------------------------------------------------

PLACES: dict[str, tuple[str, str]] = {
    **{name: (name, "one slot") for name in ("read", "write", "check", "prepare", "apply", "close", "generate")},
    **{name: (name, "generated, two slots") for name in ("mint", "retire")},
    "reap": ("reap", "generated, two slots"),
    "retire, two slots": ("retire", "two slots"),
    "remove": ("remove", "two slots"),
    "restore": ("restore", "two slots"),
    "a claim of what was minted": ("write", "generated"),
}
ON_OUR_THREAD = ("prepare", "close", "generate")
ENDS_OF_A_PROCESS = ("SystemExit", "KeyboardInterrupt", "crash")


def breaking(it: Scene, place: str) -> str:
    """Have what is not called usually be called, too."""
    name, _ = PLACES[place]
    if name == "reap":
        it.plan["mint", 1] = lambda known, call: Unknown("no answer")
    if name == "restore":

        def shut(known: str, call: Callable[[], Any]) -> Any:
            it.issuer.remove_client("pos")
            return call()

        it.plan["retire", 1] = shut
    return name


@pytest.mark.parametrize("breaks", the_rest_slow(BREAKS, "RuntimeError"))
@pytest.mark.parametrize("place", the_rest_slow(PLACES, "apply", "mint", "retire", "write", "read"))
def test_a_party_that_breaks_at_each_call(watch: Watch, place: str, breaks: str) -> None:
    if place in ON_OUR_THREAD and breaks in ENDS_OF_A_PROCESS:
        pytest.skip("an interrupt is left alone")
    with scene(watch, PLACES[place][1]) as it:
        # A store that only says that it writes is asked again and again.
        name = breaking(it, place)
        it.plan[name, 1 if name == "write" else None] = BREAKS[breaks]
        rotation = it.rotation(wait=3, soak=3, max_wait=8)
        for verb in ("plan", "run", "abort"):
            ends(it, verb, rotation)
        it.plan.clear()
        ends(it, "run", it.rotation(max_wait=100))


CALLS = ("check", "apply", "mint", "reap", "retire", "remove")
EFFECTS = [("write", number) for number in range(1, 6)] + [("read", number) for number in range(1, 25, 3)]


@pytest.mark.parametrize("breaks", the_rest_slow(BREAKS, "lost"))
@pytest.mark.parametrize(
    "effect", the_rest_slow(EFFECTS, ("write", 1), ("write", 4)), ids=lambda effect: "{} {}".format(*effect)
)
@pytest.mark.parametrize("kind", the_rest_slow(KINDS, "one slot"))
def test_a_store_that_breaks_once(watch: Watch, kind: str, effect: tuple[str, int], breaks: str) -> None:
    with scene(watch, kind) as it:
        it.plan[effect] = BREAKS[breaks]
        ends(it, "run", it.rotation(wait=1, soak=1))
        it.clock.tick(60)
        ends(it, "run", it.rotation(wait=1, soak=1))


@pytest.mark.parametrize("call", the_rest_slow(["check", "apply", "mint", "read", "write"], "apply", "write"))
def test_a_party_that_hangs_until_its_time_is_over(watch: Watch, call: str) -> None:
    with scene(watch, "generated" if call == "mint" else "one slot") as it:
        it.plan[call, 2 if call == "read" else 1] = it.hangs
        ends(it, "run", it.rotation(timeout=0.3, command_timeout=0.3, max_wait=3))


def secret_in(answer: Callable[[str], object], *, name: str = "new secret 1") -> Callable[[Scene], Breaks]:
    """The call is made, and answered with this secret in it."""

    def of(it: Scene) -> Breaks:
        def breaks(known: str, call: Callable[[], Any]) -> Any:
            call()
            return answer(it.secrets[name])

        return breaks

    return of


ANSWERS: dict[str, tuple[str, Callable[[Scene], Breaks]]] = {
    "an ID that is the secret": ("apply", secret_in(lambda s: Applied(id=s))),
    "an ID with the secret in it": ("apply", secret_in(lambda s: Applied(id=f"id-{s}"))),
    "a refusal that repeats it": ("apply", secret_in(lambda s: Refused(f"no {s} here", f"not {s}"))),
    "no answer but the secret": ("apply", secret_in(lambda s: Unknown(f"it said {s}"))),
    "a preflight that repeats the current one": (
        "check",
        secret_in(lambda s: Preflight((f"{s} is weak",), 1, None, s), name="current secret"),
    ),
    "a minted secret's ID that is the secret": ("mint", secret_in(lambda s: Minted(Secret(s), id=s))),
    "a minted secret in clear": ("mint", secret_in(lambda s: Minted(s))),  # type: ignore[arg-type]
    "a minted secret with a text beside it": (
        "mint",
        secret_in(lambda s: Minted(Secret(s), beside={"key": s})),  # type: ignore[dict-item]
    ),
    "a refusal to mint that repeats the current one": ("mint", secret_in(Refused, name="current secret")),
    "a refusal to retire that repeats it": ("retire", secret_in(lambda s: Refused(s, s))),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_adapter_that_repeats_a_secret(watch: Watch, answer: str) -> None:
    call, of = ANSWERS[answer]
    with scene(watch, {"mint": "generated", "retire": "two slots"}.get(call, "one slot")) as it:
        it.plan[call, None] = of(it)
        for verb in ("plan", "run", "resume", "status", "abort"):
            ends(it, verb, it.rotation(max_wait=100))


MADE: dict[str, Callable[[str], object]] = {
    "too short": lambda s: s[:15],
    "with a line end": lambda s: f"{s}\n",
    "with NUL": lambda s: f"{s}\0",
    "in Unicode": lambda s: f"{s}é",
    "half a character": lambda s: f"{s}\ud800",
    "too long": lambda s: s * 200,
    "in bytes": str.encode,
    "in a list": lambda s: [s],
    "as a Secret with a line end": lambda s: Secret(f"{s}\n"),
    "nothing": lambda s: None,
}


@pytest.mark.parametrize("made", the_rest_slow(MADE, "in a list", "half a character"))
def test_a_bad_secret_of_a_generator(watch: Watch, made: str) -> None:
    with scene(watch) as it:
        it.plan["generate", None] = lambda known, call: MADE[made](call())
        assert isinstance(ends(it, "run", it.rotation()), ConfigurationError)


def test_a_generator_that_gives_the_current_secret(watch: Watch) -> None:
    with scene(watch) as it:
        it.plan["generate", None] = lambda known, call: it.secrets["current secret"]
        assert isinstance(ends(it, "run", it.rotation()), ConfigurationError)


# --- the issuer's token endpoint breaks ------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", the_rest_slow(REFUSALS, "in a description", "as a token"))
@pytest.mark.parametrize("phase", the_rest_slow(["idle", "taken", "soaking"], "taken"))
def test_a_token_endpoint_that_gives_everything_back(watch: Watch, phase: str, refusal: str) -> None:
    with scene(watch, PHASES[phase][0]) as it:
        PHASES[phase][1](it)
        it.issuer.fail(REFUSALS[refusal](" ".join(it.secrets.values())))
        for verb in ("plan", "run", "drift", "abort"):
            ends(it, verb, it.rotation(max_wait=30))
        it.issuer.heal()
        ends(it, "run", it.rotation())


@pytest.mark.parametrize("fault", ["down", "401 for everything", "hanging", "reset"])
@pytest.mark.parametrize("phase", the_rest_slow(["idle", "claimed", "taken", "soaking", "aborting"], "taken"))
def test_a_token_endpoint_that_is_of_no_use(watch: Watch, phase: str, fault: str) -> None:
    faults = {"401 for everything": Fault(status=401), "hanging": Fault(hang=True), "reset": Fault(reset=True)}
    with scene(watch, PHASES[phase][0]) as it:
        PHASES[phase][1](it)
        rotation = it.rotation(max_wait=5, timeout=0.2)
        if fault == "down":
            it.issuer.stop_listening()
        else:
            it.issuer.fail(faults[fault])
        for verb in ("plan", "run", "drift") if fault != "hanging" else ("drift",):
            ends(it, verb, rotation)
        it.issuer.release()


# --- gates and observers ---------------------------------------------------------------------------------------------


class Gate:
    """Has all methods; one of them answers so, knowing everything that there is."""

    def __init__(self, it: Scene, point: str, says: Callable[[str], object]) -> None:
        self._it, self._point, self._says = it, point, says
        self.asked = 0
        for each in POINTS:
            setattr(self, each, lambda *told, each=each: self._answered(each, *told))

    def _answered(self, point: str, moment: Moment, *token: object) -> object:
        self._it.watch.look(moment)
        for one in token:
            self._it.watch.look(one)
        if point != self._point:
            return Proceed()
        self.asked += 1
        return self._says(self._it.known)


def _raises(kind: type[BaseException]) -> Callable[[str], object]:
    def says(known: str) -> object:
        raise kind(known)

    return says


async def _later(known: str) -> object:
    raise RuntimeError(known)


SAYS: dict[str, Callable[[str], object]] = {
    "RuntimeError": _raises(RuntimeError),
    "KeyError": _raises(KeyError),
    "SystemExit": _raises(SystemExit),
    "KeyboardInterrupt": _raises(KeyboardInterrupt),
    "an error of ours": _raises(SecretSourceError),
    "a group": lambda known: _raises(BaseException)(known),
    "later": _later,
    "a text": str,
    "a list": lambda known: [known],
    "a class": lambda known: Proceed,
    "nothing": lambda known: None,
    "hold, and why": Hold,
    "abort, and why": Abort,
}


@pytest.mark.parametrize("says", the_rest_slow(SAYS, "RuntimeError", "hold, and why"))
@pytest.mark.parametrize("point", POINTS)
def test_a_gate_that_breaks(watch: Watch, point: str, says: str) -> None:
    with scene(watch) as it:
        gate = Gate(it, point, SAYS[says])
        rotation = it.rotation(gates=(gate,), max_wait=100)
        ended = ends(it, "run", rotation)
        assert gate.asked
        assert not isinstance(ended, Report) or ended.result != "done"
        ends(it, "abort", rotation)


@pytest.mark.parametrize("point", the_rest_slow(POINTS, "verify"))
def test_a_gate_that_hangs(watch: Watch, point: str) -> None:
    with scene(watch) as it:
        gate = Gate(it, point, lambda known: it.hangs(known, lambda: None))
        rotation = it.rotation(gates=(gate,), max_wait=100)
        rotation._gates._timeout = 0.3
        ends(it, "run", rotation)
        assert gate.asked


@pytest.mark.parametrize("kind", [RuntimeError, KeyError, SystemExit])
def test_an_observer_that_raises_what_it_knows(watch: Watch, kind: type[BaseException]) -> None:
    with scene(watch) as it:

        def observe(event: object) -> None:
            watch.look(event)
            raise kind(it.known)

        ended = ends(it, "run", it.rotation(observers=observe))
        assert isinstance(ended, Report)
        assert ended.result == "done"


# --- a crash ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", the_rest_slow(["before", "after"], "after"))
@pytest.mark.parametrize(
    "effect",
    the_rest_slow([*EFFECTS, *((call, 1) for call in CALLS)], ("write", 2), ("apply", 1)),
    ids=lambda effect: "{} {}".format(*effect),
)
@pytest.mark.parametrize("kind", the_rest_slow(KINDS, "one slot"))
def test_a_crash_at_an_effect(watch: Watch, kind: str, effect: tuple[str, int], when: str) -> None:
    """With a text that a process has in its memory only."""

    def crash(known: str, call: Callable[[], Any]) -> Any:
        if when == "after":
            call()
        raise Crash(known)

    with scene(watch, kind) as it:
        it.plan[effect] = crash
        ends(it, "run", it.rotation(wait=1, soak=1))
        it.clock.tick(60)
        ends(it, "resume", it.rotation(wait=1, soak=1))


def test_a_signal_while_it_waits(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    with scene(watch) as it:
        rotation = it.rotation()
        for number in range(1, 12):
            left = [number]

            def sleep(seconds: float, left: list[int] = left) -> None:
                left[0] -= 1
                if not left[0]:
                    raise KeyboardInterrupt
                it.clock.tick(seconds)

            monkeypatch.setattr(it.clock, "sleep", sleep)
            ended = watch.ends(rotation.run)
            assert isinstance(ended, (KeyboardInterrupt, Report))
            watch.look(rotation)


# --- what is given to others -----------------------------------------------------------------------------------------


def test_what_an_adapter_is_given_shows_nothing(watch: Watch) -> None:
    with scene(watch) as it:
        seen: list[object] = []

        class Looks(type(it.administrator)):  # type: ignore[misc]
            def apply(self, client: Client, secret: Secret, deadline: Deadline) -> Any:
                seen.extend([client, secret, deadline])
                return super().apply(client, secret, deadline)

        it.administrator.__class__ = Looks
        rotation = it.rotation()
        assert watch.gives(rotation.run).result == "done"
        for one in seen:
            watch.look(one)
        parties = rotation._parties
        held = watch.look(parties.read())
        watch.look(parties.client(held))
        watch.look(rotation._stepwise.known.view(held, "rotate"))
        watch.look(Minted(held.current, beside={"key": held.current}))
