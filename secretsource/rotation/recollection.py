"""What one run knows beside what the store holds: the token endpoint's answers, its own calls, spans of time."""

from __future__ import annotations

from dataclasses import replace

from ..backends import Held
from ..clock import Clock, Instant
from ..errors import SecretSourceError
from ..secret import Secret
from ..state import RotationState, short_name
from ..token import Token
from .decision import FRESH, Evidence, Memory, View, Wish, phase_of
from .parties import Parties
from .probe import Said

__all__ = ["Recollection"]


class Recollection:
    """Begins as that of a process that has just begun; a crash loses it, and nothing else."""

    def __init__(self, parties: Parties) -> None:
        self._parties = parties
        self.memory = Memory()
        self.token: Token | None = None  # got with the secret being taken
        self.unsaid: SecretSourceError | None = None  # why the token endpoint did not answer
        self._evidence = Evidence()
        self._asked: Instant | None = None
        self._about: tuple[object, ...] | None = None
        self._announced: tuple[float | None, Instant] | None = None  # the instant that the store has, and ours
        self._last_noted: float | None = None  # by this run
        self._learned: tuple[str, str | None, float | None] = ("", None, None)
        self._taking: Secret | None = None  # by the rotation under way
        self._overwritten: tuple[str, RotationState] | None = None
        self._spans = _Spans(parties.clock)

    @property
    def has_read(self) -> bool:
        return self._about is not None

    def is_behind(self, held: Held) -> bool:
        """Whether this is what stood there before our own last write: a replica may give it for a while."""
        return self._overwritten == (held.version, held.state)

    def will_write(self, state: RotationState) -> None:
        """It may be written much later than its instants say: this process may be suspended before that."""
        self._spans.begin_when_seen(("claimed", state.claimed), ("promoted", state.promoted))

    def note_written(self, before: Held, state: RotationState) -> None:
        self._overwritten = None if before.state == state else (before.version, before.state)

    def forget_written(self) -> None:
        """The store has lost it, as one does that fails over: what it gives is what there is."""
        self._overwritten = None

    def notice(self, held: Held) -> None:
        """Forget what is no longer so."""
        about = (held.current, held.pending, held.previous, phase_of(held) == "aborting")
        if self._about != about:
            self._about = about
            self.forget_evidence()
            self.memory = self.memory._replace(withdrawn=False, retired=False, removed=False)
        if self._announced is not None and held.state.noted != self._announced[0]:
            self._announced = None  # somebody else announces calls now
        if self._learned[0] != held.state.rotation:
            self._learned = ("", None, None)

    def view(self, held: Held, wish: Wish) -> View:
        """All that the next decision rests on."""
        state, policy, now = held.state, self._parties.policy, self._parties.clock.now()
        self._take_part(held, wish)
        if self._learned[0] and state.pending_id is None:
            held = held._replace(state=replace(state, pending_id=self._learned[1], pending_expires=self._learned[2]))
        urgent = state.compromised or policy.compromised
        since = state.claimed if state.noted is None else state.noted
        age = float("inf") if self._asked is None else self._asked.age(now)
        announced = None if self._announced is None else self._announced[1].age(now)
        return View(
            held,
            self._evidence._replace(age=age),
            policy,
            self._parties.capabilities,
            wish,
            self._parties.due(held),
            open=self.open(state),
            waits=0.0 if urgent else self._spans.left("claimed", state.claimed, policy.wait or 0.0),
            soaks=0.0 if urgent else self._spans.left("promoted", state.promoted, policy.soak or 0.0),
            noted_ago=0.0 if since is None else max(0.0, now.wall - since),
            memory=self.memory._replace(
                announced=announced, reaped=self.memory.reaped and state.noted == self._last_noted
            ),
        )

    def _take_part(self, held: Held, wish: Wish) -> None:
        """Where another one ends the rotation that this run has gone on with, this run was for that one, too."""
        phase = phase_of(held)
        if phase != "idle":
            leaked = self._parties.policy.compromised and not held.state.compromised
            self._taking = None if leaked or phase in ("intended", "aborting") else self.pair(held)[1]
        elif wish == "rotate" and self._taking is not None and held.current == self._taking:
            self.memory, self._taking = Memory(rotated=True), None

    def open(self, state: RotationState) -> float:
        """Seconds for which a call to the issuer may still take effect."""
        return self._spans.left("noted", state.noted, state.open_for)

    def pair(self, held: Held) -> tuple[Secret | None, Secret]:
        """The secret being left, and the one being taken."""
        phase = phase_of(held)
        if phase == "aborting":
            return held.pending, held.current
        if held.pending is not None:
            return held.current, held.pending
        return (held.previous if phase == "soaking" else None), held.current

    def heard(self, view: View, left: Said | None, taken: Said) -> bool:
        """Add what the token endpoint has said; whether that is something new."""
        before = self._evidence
        self._evidence = view.evidence.and_then(
            None if left is None else left.word, taken.word, single_slot=self._parties.capabilities.single_slot
        )
        self._asked = self._parties.clock.now()
        self.unsaid = next((said.error for said in (left, taken) if said is not None and said.error), None)
        self.token = taken.token
        return (before.leaving, before.taking) != (self._evidence.leaving, self._evidence.taking)

    def forget_evidence(self) -> None:
        """The issuer may have changed."""
        self._evidence, self._asked = Evidence(), None

    def announce(self, noted: float | None, at: Instant) -> None:
        self._announced, self._last_noted = (noted, at), noted
        self.forget_evidence()

    def take_up(self) -> float:
        """Seconds left for a call that was announced, which counts as made from now on.

        0, and still announced, if that was too long ago: this process may have been suspended since it was decided.
        """
        age = float("inf") if self._announced is None else self._announced[1].age(self._parties.clock.now())
        if age > FRESH:
            return 0.0
        self._announced = None
        return max(0.0, self._parties.policy.command_timeout - age)

    def learn(self, rotation: str, id: str | None, expires: float | None) -> None:
        """What the issuer calls the pending secret, until that can be written."""
        self._learned = rotation, short_name(id), expires


class _Spans:
    """Spans of time that begin at stored instants.

    Those are of wall clocks, which may be set. So a span is also counted by this process's own clock from when it is
    seen: it is over once that has counted all of it, and not before that has counted what was left at first.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, float, float], tuple[float, float]] = {}
        self._ours: set[tuple[str, float | None]] = set()

    def begin_when_seen(self, *spans: tuple[str, float | None]) -> None:
        self._ours.update(spans)

    def left(self, name: str, since: float | None, seconds: float) -> float:
        if since is None:
            return 0.0
        now = self._clock.now()
        left = max(0.0, min(since + seconds - now.wall, seconds))
        at_first = seconds if (name, since) in self._ours else left
        first, left_then = self._seen.setdefault((name, since, seconds), (now.monotonic, at_first))
        counted = now.monotonic - first
        return 0.0 if counted >= seconds else max(left, left_then - counted)
