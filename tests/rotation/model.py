"""An explicit-state model of a rotation: every order in which rotators, calls, consumers and time can go on.

Breadth-first, so that the first trace that breaks an invariant is a shortest one. Time is abstract: an announced call
is open until "time" passes, which is not before all calls that left in time have landed or are lost. A suspended
rotator is one that makes no step for a while; a crashed one has forgotten all. A write is made against what was read:
what others have written meanwhile makes it fail, which here is a step that is not made.

What is checked:

S1  the issuer accepts what the store names as current, pending or previous (or a generated one that is being written)
S2  each consumer's snapshot contains a secret that the issuer accepts
S3  idle and quiet: the issuer accepts the current secret, and nothing that nobody holds
S4  at most one pending secret, never overwritten by another
S5  promoted only what the issuer accepts
S6  retired and dropped only after the promotion, with the current one accepted
S7  no claim and no abandon while an earlier call can still land
S9  each effect at the issuer comes after its note
C1  no consumer's call fails
D1  "drift" is said only where the issuer accepts neither
L1  from everywhere idle can be reached, once nothing fails any more
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

NOBODY = -1  # no secret
_REMOVALS = "reap", "withdraw", "retire"
_OF_ONE_LABEL = 8  # secrets generated under one rotation's label


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The world, then the guards, all of them in place."""

    rotators: int = 2
    consumers: int = 2
    rotations: int = 2
    chosen: bool = True
    slots: int = 1
    aborts: bool = False
    rolls_back: bool = False
    refuses: Literal["", "new", "old"] = ""
    calls: bool = False  # consumers' calls, request by request
    falls_back: bool = False  # within the soak the issuer may lose a change, as a replica does that takes over
    meddling: int = 0  # how often somebody swaps the current and the pending secret at the issuer
    # What holds it together.
    adopts: bool = True
    waits: bool = True
    fences: bool = True
    quarantines: bool = True
    proves: bool = True
    abort_proves: bool = True
    rechecks: bool = True
    in_order: bool = True
    misses: int = 3
    drifts_while_open: bool = False
    soaks: bool = True
    reaps: bool = True
    withdraws: bool = True
    notes: bool = True
    notes_removals: bool = True  # of what was generated in vain, or is withdrawn
    keeps_only_its_own: bool = True
    rolls_back_in_time: bool = True  # where secrets are retired: not once that may have begun


class Store(NamedTuple):
    current: int = 0
    pending: int = NOBODY
    previous: int = NOBODY
    aborting: bool = False
    intended: bool = False
    called: bool = False
    open: bool = False
    promoted: bool = False

    @property
    def secrets(self) -> tuple[int, int, int]:
        return self.current, self.pending, self.previous

    @property
    def pair(self) -> tuple[int, int]:
        """The secret that is left, and the one that is taken."""
        if self.aborting:
            return self.pending, self.current
        if self.pending != NOBODY:
            return self.current, self.pending
        return self.previous if self.promoted else NOBODY, self.current

    @property
    def idle(self) -> bool:
        return self.pending == NOBODY and not self.intended and not self.promoted


class Ready(NamedTuple):
    """A call that is announced and not made; of kind "keep": a generated secret that is not written yet."""

    kind: str
    secret: int
    fresh: bool = True
    mine: bool = True  # nobody has announced another since, or changed the secrets


class Rotator(NamedTuple):
    """What one knows that the store does not. `said`: 0 and 1 for rejected and accepted, of the pair's secrets."""

    said: tuple[int, ...] = ()
    misses: int = 0
    ready: tuple[Ready, ...] = ()
    refused: bool = False
    done: bool = False  # retired, withdrawn or reaped


class Consumer(NamedTuple):
    """`asking`: which pass its call is in, 0 if it is in none, then what was rejected in it. A pass -n is to read."""

    snapshot: tuple[int, int, int] = (0, NOBODY, NOBODY)
    winner: int = NOBODY
    last: int = NOBODY
    asking: tuple[int, ...] = ()


class Call(NamedTuple):
    """On its way to the issuer. `fenced`: it left in time, so it lands before its announcement is over, or never."""

    kind: str
    secret: int
    fenced: bool


class State(NamedTuple):
    issuer: frozenset[int]
    store: Store
    soaking: bool
    consumers: tuple[Consumer, ...]
    rotators: tuple[Rotator, ...]
    flights: tuple[Call, ...] = ()
    begun: int = 0
    meddled: int = 0

    @property
    def quiet(self) -> bool:
        """No call can land any more."""
        return not self.flights and not self.store.open and not any(each.ready for each in self.rotators)


class Edge(NamedTuple):
    """A step: who, what, where it leads. `good`: it brings a rotation forward. `broken`: the invariant it breaks."""

    name: str
    after: State
    by: int = NOBODY
    good: bool = True
    broken: str = ""


class Found(NamedTuple):
    """`broken`: each broken invariant with the number of steps of a shortest trace."""

    states: int
    broken: dict[str, int]


def label_of(secret: int) -> int:
    return secret // _OF_ONE_LABEL


class Model:
    """The steps that a design allows."""

    def __init__(self, design: Design) -> None:
        self.design = design

    def first(self) -> State:
        design = self.design
        return State(frozenset({0}), Store(), False, (Consumer(),) * design.consumers, (Rotator(),) * design.rotators)

    # --- the search

    def check(self, limit: int = 1_000_000) -> Found:
        """All that can be reached, and what is broken there."""
        first = _sorted(self.first())
        seen: dict[State, int] = {first: 0}
        back: dict[State, list[State]] = {}
        queue, broken = deque([first]), dict[str, int]()
        while queue:
            state = queue.popleft()
            depth = seen[state]
            for invariant in self.broken_in(state):
                broken.setdefault(invariant, depth)
            for edge in self.steps(state):
                if edge.broken:
                    broken.setdefault(edge.broken, depth + 1)
                after = _sorted(edge.after)
                if after not in seen:
                    seen[after] = depth + 1
                    queue.append(after)
                    assert len(seen) <= limit, f"more than {limit} states"
                if edge.good:
                    back.setdefault(after, []).append(state)
        stuck = set(seen) - _reaching([state for state in seen if state.store.idle and state.quiet], back)
        if stuck:
            broken["L1"] = min(seen[state] for state in stuck)
        return Found(len(seen), dict(sorted(broken.items())))

    def trace(self, invariant: str) -> list[str]:
        """The names of the steps of a shortest trace that breaks it; empty where it holds (L1 is not searched)."""
        first = _sorted(self.first())
        way: dict[State, tuple[State, str] | None] = {first: None}
        queue = deque([first])

        def told(state: State, *last: str) -> list[str]:
            names = list(last)
            while (step := way[state]) is not None:
                state, name = step
                names.append(name)
            return names[::-1]

        while queue:
            state = queue.popleft()
            if invariant in self.broken_in(state):
                return told(state)
            for edge in self.steps(state):
                name = edge.name if edge.by == NOBODY else f"{edge.by}: {edge.name}"
                if edge.broken == invariant:
                    return told(state, name)
                after = _sorted(edge.after)
                if after not in way:
                    way[after] = (state, name)
                    queue.append(after)
        return []

    def reachable(self) -> list[State]:
        first = self.first()
        seen, queue = {_sorted(first)}, deque([_sorted(first)])
        while queue:
            for edge in self.steps(queue.popleft()):
                after = _sorted(edge.after)
                if after not in seen:
                    seen.add(after)
                    queue.append(after)
        return list(seen)

    def broken_in(self, state: State) -> Iterator[str]:
        design, store = self.design, state.store
        named = set(store.secrets)
        in_hand = {ready.secret for each in state.rotators for ready in each.ready if ready.kind == "keep"}
        if not state.issuer & (named | in_hand) and not (not design.chosen and design.slots == 1 and store.intended):
            yield "S1"
        one_by_one = not design.chosen and design.slots == 1  # its calls fail for a moment, and that is said
        if not one_by_one and any(not state.issuer & set(each.snapshot) for each in state.consumers):
            yield "S2"
        if store.idle and state.quiet and (store.current not in state.issuer or state.issuer - named):
            yield "S3"

    # --- the steps

    def steps(self, state: State) -> Iterator[Edge]:
        yield from self._time(state)
        yield from self._issuer(state)
        for number in range(len(state.consumers)):
            yield from self._consumer(state, number)
        for number in range(len(state.rotators)):
            yield from self.of_rotator(state, number)

    def _time(self, state: State) -> Iterator[Edge]:
        store = state.store
        busy = any(each.asking for each in state.consumers)  # a call's passes take seconds, a fence a minute
        if store.open and not busy and not any(call.fenced for call in state.flights):
            rotators = tuple(
                each._replace(said=(), misses=0, ready=tuple(map(_too_old, each.ready))) for each in state.rotators
            )
            yield Edge("time", state._replace(store=store._replace(open=False), rotators=rotators))
        if state.soaking and all(each.snapshot == store.secrets for each in state.consumers):
            rotators = tuple(each._replace(said=(), misses=0) for each in state.rotators)
            yield Edge("soaked", state._replace(soaking=False, rotators=rotators))

    def _issuer(self, state: State) -> Iterator[Edge]:
        design, store = self.design, state.store
        for index, call in enumerate(state.flights):
            left = state._replace(flights=state.flights[:index] + state.flights[index + 1 :])
            yield Edge("lost", left)
            yield Edge("lands", self._effect(left, call.kind, call.secret)[0])
        if design.falls_back and state.soaking and store.promoted:
            yield Edge("falls back", state._replace(issuer=frozenset({0})), good=False)
        if state.meddled < design.meddling and store.pending != NOBODY:
            other = frozenset({store.current, store.pending}) - state.issuer
            yield Edge("somebody else", state._replace(issuer=other, meddled=state.meddled + 1), good=False)

    def _effect(self, state: State, kind: str, secret: int) -> tuple[State, int]:
        """What a call does at the issuer; and the secret that it has generated."""
        issuer, design = state.issuer, self.design
        if kind in ("apply", "back"):
            if design.slots == 1:
                return state._replace(issuer=frozenset({secret})), NOBODY
            return state._replace(issuer=issuer | {secret} if len(issuer) < design.slots else issuer), NOBODY
        if kind == "mint":
            if design.slots != 1 and len(issuer) >= design.slots:
                return state, NOBODY
            made = self._unused(state, secret)
            return state._replace(issuer=frozenset({made}) if design.slots == 1 else issuer | {made}), made
        if kind == "reap":
            return state._replace(issuer=frozenset(each for each in issuer if label_of(each) != secret)), NOBODY
        return state._replace(issuer=issuer - {secret}), NOBODY  # withdraw, retire

    @staticmethod
    def _unused(state: State, label: int) -> int:
        used = set(state.issuer) | set(state.store.secrets)
        for consumer in state.consumers:
            used |= {*consumer.snapshot, consumer.winner, consumer.last, *consumer.asking[1:]}
        used |= {ready.secret for each in state.rotators for ready in each.ready if ready.kind != "mint"}
        used |= {call.secret for call in state.flights if call.kind not in ("mint", "reap")}
        return next(each for each in range(label * _OF_ONE_LABEL, (label + 1) * _OF_ONE_LABEL) if each not in used)

    # --- consumers: DESIGN 5

    def _consumer(self, state: State, number: int) -> Iterator[Edge]:
        consumer, secrets = state.consumers[number], state.store.secrets

        def to(**changes: object) -> State:
            changed = consumer._replace(**changes)  # type: ignore[arg-type]
            return state._replace(consumers=(*state.consumers[:number], changed, *state.consumers[number + 1 :]))

        def read(**changes: object) -> State:
            same = consumer.snapshot == secrets
            return to(snapshot=secrets, winner=consumer.winner if same else NOBODY, **changes)

        if not consumer.asking and consumer.snapshot != secrets:
            yield Edge("refresh", read())
        if not self.design.calls:
            return
        if not consumer.asking:
            secret = consumer.winner if consumer.winner != NOBODY else consumer.snapshot[0]
            if secret in state.issuer:
                yield Edge("call", to(winner=secret, last=secret))
            else:
                yield Edge("call rejected", to(asking=(-1,)))
        elif consumer.asking[0] < 0:
            yield Edge("forced read", read(asking=(-consumer.asking[0],)))
        else:
            there, *rejected = consumer.asking
            left = [each for each in (*consumer.snapshot, consumer.last) if each not in (NOBODY, *rejected)]
            if not left:
                if there >= 4:
                    yield Edge("call fails", to(asking=()), broken="C1")
                else:
                    yield Edge("another pass", to(asking=(-there - 1,)))
            elif left[0] in state.issuer:
                yield Edge("call", to(winner=left[0], last=left[0], asking=()))
            else:
                yield Edge("rejected", to(asking=(there, *sorted({*rejected, left[0]}))))

    # --- rotators

    def of_rotator(self, state: State, number: int) -> Iterator[Edge]:
        rotator = state.rotators[number]
        if rotator != Rotator():
            yield Edge("crash", _with(state, number, Rotator()), number, good=False)
        if rotator.ready:
            steps = self._with_a_call(state, number, rotator.ready[0])
        else:
            steps = chain(self._asking(state, number), self._deciding(state, number))
        for edge in steps:
            yield edge._replace(by=number)

    def _with_a_call(self, state: State, number: int, ready: Ready) -> Iterator[Edge]:
        design, store, rotator = self.design, state.store, state.rotators[number]
        if ready.kind == "keep":
            if store.intended and (ready.mine or not design.keeps_only_its_own):
                kept = store._replace(pending=ready.secret, intended=False, open=store.open and ready.mine)
                yield Edge("keep", self._wrote(state, number, kept, Rotator()), broken=self._claimed(state, number))
            else:
                yield Edge("forget", _with(state, number, Rotator()))
            return
        if ready.kind == "retire":
            pass  # by name, and never given again: whenever it lands
        elif ready.fresh:
            yield Edge("stale", _with(state, number, rotator._replace(ready=(_too_old(ready),))), good=False)
        elif ready.mine and self._still_meant(store, ready):
            noted = store._replace(open=True, called=True)
            again = rotator._replace(ready=(ready._replace(fresh=True),))
            yield Edge("note again", self._wrote(state, number, noted, again))
        else:
            yield Edge("forget", _with(state, number, Rotator()))
        if not ready.fresh and design.rechecks:
            return
        broken = "" if store.open or store.called or ready.kind == "retire" else "S9"
        calmer = rotator._replace(said=(), misses=0, ready=(), done=ready.mine and ready.kind in _REMOVALS)
        if len(state.flights) < 2:
            call = Call(ready.kind, ready.secret, ready.fresh and design.notes)
            flying = _with(state, number, calmer._replace(done=False))._replace(flights=(*state.flights, call))
            yield Edge("late", flying, good=False, broken=broken)
        if design.refuses == {"apply": "new", "mint": "new", "back": "old"}.get(ready.kind, "-"):
            yield Edge("refused", _with(state, number, calmer._replace(refused=True)), broken=broken)
            return
        after, made = self._effect(state, ready.kind, ready.secret)
        if made != NOBODY:
            calmer = calmer._replace(ready=(Ready("keep", made, mine=ready.mine),))
        yield Edge(ready.kind, _with(after, number, calmer), broken=broken)

    @staticmethod
    def _still_meant(store: Store, ready: Ready) -> bool:
        if ready.kind in ("mint", "reap"):
            return store.intended
        return store.pending != NOBODY and store.aborting == (ready.kind in ("back", "withdraw"))

    def _asking(self, state: State, number: int) -> Iterator[Edge]:
        """One request: about the secret that is left, then about the one that is taken."""
        rotator = state.rotators[number]
        leaving, taking = state.store.pair
        first, second = (leaving, taking) if self.design.in_order else (taking, leaving)
        if len(rotator.said) != 1 and leaving != NOBODY:
            yield Edge("ask", _with(state, number, rotator._replace(said=(int(first in state.issuer),))))
            return
        words = (0, int(taking in state.issuer))
        if leaving != NOBODY:
            words = (rotator.said[0], int(second in state.issuer))
            words = words if self.design.in_order else (words[1], words[0])
        misses = min(rotator.misses + 1, self.design.misses) if not any(words) else 0
        yield Edge("ask", _with(state, number, rotator._replace(said=words, misses=misses)))

    def _deciding(self, state: State, number: int) -> Iterator[Edge]:
        design, store, rotator = self.design, state.store, state.rotators[number]
        said = rotator.said if len(rotator.said) == 2 else ()
        open_ = store.open and design.fences
        if rotator.misses >= design.misses and said and (not open_ or design.drifts_while_open):
            broken = "D1" if state.issuer & set(store.pair) else ""
            yield Edge("drift", state, good=False, broken=broken)
        if store.pending != NOBODY:
            yield from self._pending(state, number, said)
        elif store.intended:
            yield from self._intended(state, number, said)
        else:
            if store.promoted:
                yield from self._promoted(state, number, said)
            elif not open_ and state.begun < design.rotations and said[1:] == (1,):
                yield from self._begin(state, number)
        if not design.adopts and store.pending != NOBODY and state.begun < design.rotations:
            yield from self._begin(state, number)

    def _begin(self, state: State, number: int) -> Iterator[Edge]:
        label = state.begun + 1
        begun = state._replace(begun=label)
        if self.design.chosen:
            claimed = state.store._replace(pending=label * _OF_ONE_LABEL, aborting=False, called=False)
            yield Edge("claim", self._wrote(begun, number, claimed, Rotator()), good=False, broken=self._claimed(state))
        else:
            noted = state.store._replace(intended=True)
            ready = Rotator(ready=(Ready("mint", label),))
            yield Edge("intend", self._noted(begun, number, noted, ready), good=False, broken=self._claimed(state))

    def _intended(self, state: State, number: int, said: tuple[int, ...]) -> Iterator[Edge]:
        design, store, rotator = self.design, state.store, state.rotators[number]
        several = design.slots != 1
        if store.open and design.fences:
            if several and rotator.done:  # what was reaped under the last note has landed
                yield Edge("note", self._noted(state, number, store, Rotator(ready=(Ready("mint", state.begun),))))
            return
        if several and design.reaps and not rotator.done:
            reaping = Rotator(ready=(Ready("reap", state.begun, mine=True),), refused=rotator.refused)
            if design.notes_removals:
                yield Edge("note", self._noted(state, number, store, reaping))
            else:
                yield Edge("note", _with(state, number, reaping))
            return
        yield Edge("note", self._noted(state, number, store, Rotator(ready=(Ready("mint", state.begun),))))
        if (design.aborts or rotator.refused) and said[1:] == (1,):
            over = store._replace(intended=False, called=False)
            good = bool(rotator.refused)
            yield Edge("abandon", self._wrote(state, number, over, Rotator()), good=good, broken=self._claimed(state))

    def _pending(self, state: State, number: int, said: tuple[int, ...]) -> Iterator[Edge]:
        design, store, rotator = self.design, state.store, state.rotators[number]
        open_ = store.open and design.fences
        several = design.slots != 1
        everywhere = all(store.pending in each.snapshot for each in state.consumers) or not design.waits
        over = store._replace(pending=NOBODY, aborting=False, called=False)
        back = Ready("withdraw", store.pending) if several else Ready("back", store.current)
        if store.aborting:
            if not open_ and said == (0, 1):
                yield Edge("abandon", self._wrote(state, number, over, Rotator()), broken=self._given_up(state))
            unsure = several and not design.chosen and not rotator.done  # it may not be accepted for now only
            if not open_ and said and (said[0] == 1 or (unsure and said[1] == 1)):
                yield Edge("note", self._noted(state, number, store, Rotator(ready=(back,))))
                if rotator.refused:
                    forward = store._replace(aborting=False)
                    yield Edge("turn", self._wrote(state, number, forward, Rotator()))
            return
        taken = said == (0, 1) or (said == (1, 1) and several and everywhere)
        if taken or not design.proves:
            promoted = Store(store.pending, NOBODY, store.current, open=store.open, promoted=True)
            broken = "" if store.pending in state.issuer else "S5"
            after = self._wrote(state, number, promoted, Rotator())._replace(soaking=True)
            yield Edge("promote", after, broken=broken)
        if said == (1, 0) and design.chosen and (everywhere or store.called) and not open_:
            yield Edge("note", self._noted(state, number, store, Rotator(ready=(Ready("apply", store.pending),))))
        if not (design.aborts or rotator.refused):
            return
        quarantined = not open_ or not design.quarantines
        left_over = several and not design.withdraws  # the issuer still accepts it, and nobody will hold it
        if quarantined and (said == (1, 0) or not design.abort_proves or (left_over and said == (1, 1))):
            after = self._wrote(state, number, over, Rotator())
            yield Edge("abandon", after, good=rotator.refused, broken=self._given_up(state))
        gone_over = said == (0, 1) if design.chosen and not several else said and said[0] == 1 and several
        if quarantined and gone_over and (design.chosen or several):
            if several and not design.notes_removals:
                yield Edge("note back", _with(state, number, Rotator(ready=(back,))), good=rotator.refused)
            else:
                noted = store._replace(aborting=True)
                after = self._noted(state, number, noted, Rotator(ready=(back,)))
                yield Edge("note back", after, good=rotator.refused)

    def _promoted(self, state: State, number: int, said: tuple[int, ...]) -> Iterator[Edge]:
        design, store, rotator = self.design, state.store, state.rotators[number]
        if said[1:] != (1,):
            return
        kept = design.slots == 1 or state.soaking or not design.rolls_back_in_time
        if design.rolls_back and design.chosen and not store.open and kept and state.begun < design.rotations:
            claimed = Store(store.current, store.previous, store.previous)
            after = self._wrote(state._replace(begun=state.begun + 1), number, claimed, Rotator())
            yield Edge("roll back", after, good=False, broken=self._claimed(state))
        if state.soaking and design.soaks:
            return
        broken = "" if store.current in state.issuer and store.pending == NOBODY else "S6"
        if design.slots != 1 and not rotator.done:
            yield Edge("decide to retire", _with(state, number, Rotator(ready=(Ready("retire", store.previous),))))
            return
        over = Store(store.current, open=store.open)
        yield Edge("drop", self._wrote(state, number, over, Rotator())._replace(soaking=state.soaking), broken=broken)

    # --- writes

    def _noted(self, state: State, number: int, store: Store, rotator: Rotator) -> State:
        if not self.design.notes:
            return _with(state._replace(store=store._replace(open=state.store.open)), number, rotator)
        return self._wrote(state, number, store._replace(open=True, called=True), rotator, announced=True)

    @staticmethod
    def _wrote(state: State, number: int, store: Store, rotator: Rotator, *, announced: bool = False) -> State:
        """Others see it when they read next, which is before their next decision."""
        before = state.store
        changed = (before.secrets, before.aborting, before.promoted) != (store.secrets, store.aborting, store.promoted)
        rotators = list(state.rotators)
        for index, each in enumerate(rotators):
            ready = tuple(call._replace(mine=call.mine and not announced and not changed) for call in each.ready)
            other = Rotator(ready=ready) if changed else each._replace(ready=ready, done=each.done and not announced)
            rotators[index] = rotator if index == number else other
        return state._replace(store=store, rotators=tuple(rotators))

    @staticmethod
    def _can_land(state: State, number: int) -> bool:
        """A call of somebody else, or of a dead one, may still take effect."""
        waiting = (
            ready.fresh and ready.kind not in ("keep", "retire")
            for index, each in enumerate(state.rotators)
            for ready in each.ready
            if index != number
        )
        return any(call.kind != "retire" for call in state.flights) or any(waiting)

    def _claimed(self, state: State, keeper: int = NOBODY) -> str:
        if state.store.pending != NOBODY:
            return "S4"
        return "S7" if self._can_land(state, keeper) else ""

    def _given_up(self, state: State) -> str:
        return "S7" if self._can_land(state, NOBODY) else ""


def _with(state: State, number: int, rotator: Rotator) -> State:
    return state._replace(rotators=(*state.rotators[:number], rotator, *state.rotators[number + 1 :]))


def _too_old(ready: Ready) -> Ready:
    return ready._replace(fresh=ready.kind in ("keep", "retire"))


def _sorted(state: State) -> State:
    """One of those that differ only in who is who."""
    return state._replace(
        consumers=tuple(sorted(state.consumers)),
        rotators=tuple(sorted(state.rotators)),
        flights=tuple(sorted(state.flights)),
    )


def _reaching(ends: list[State], back: dict[State, list[State]]) -> set[State]:
    seen, queue = set(ends), deque(ends)
    while queue:
        for before in back.get(queue.popleft(), ()):
            if before not in seen:
                seen.add(before)
                queue.append(before)
    return seen
