"""Who changes the secret: engines that may be killed at any step, and people, in each order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from .timeline import History, Kept

__all__ = [
    "PEOPLE",
    "Change",
    "engine",
    "history_of",
    "issuer_first",
    "mistaken",
    "overlapping",
    "store_first",
    "store_first_with_previous",
    "undone",
]

Change = Callable[[History, random.Random], Iterator[None]]


def engine(history: History, dice: random.Random) -> Iterator[None]:
    """Pending in the store, then the issuer, then promoted. What an earlier one has left is adopted."""
    kept = history.store.last
    if not kept.pending:
        kept = kept._replace(pending=history.new_secret())
        history.write(kept)
        yield
    if kept.pending not in history.issuer.last:
        history.wait(history.lag + dice.uniform(0, 2))
        history.apply(kept.pending)
        yield
    history.wait(dice.uniform(0, 2))
    history.write(Kept(kept.pending, previous=kept.current))
    yield
    history.wait(dice.uniform(0, 2))
    history.write(history.store.last._replace(previous=""))


def store_first(history: History, dice: random.Random) -> Iterator[None]:
    """Somebody writes the new secret into the store, and saves it at the issuer later, perhaps much later."""
    history.wait(5.0)  # else no consumer has met the secret before
    secret = history.new_secret()
    history.write(Kept(secret))
    # After a minute consumers ask for the new one again.
    history.wait(dice.choice([dice.uniform(0, 3), dice.uniform(59, 65), dice.uniform(60, 200)]))
    history.apply(secret)
    yield


def store_first_with_previous(history: History, dice: random.Random) -> Iterator[None]:
    """The same, keeping the secret that was there."""
    secret = history.new_secret()
    history.write(Kept(secret, previous=history.store.last.current))
    history.wait(dice.choice([dice.uniform(0, 3), dice.uniform(60, 200)]))
    history.apply(secret)
    yield


def issuer_first(history: History, dice: random.Random) -> Iterator[None]:
    """Somebody saves it at the issuer, and writes it into the store later: a gap that no consumer can bridge."""
    secret = history.new_secret()
    history.apply(secret)
    history.wait(dice.choice([dice.uniform(0, 1), dice.uniform(1, 40)]))
    history.write(Kept(secret))
    yield


def mistaken(history: History, dice: random.Random) -> Iterator[None]:
    """A secret that was never the right one, put into the store and repaired."""
    right = history.store.last
    history.write(Kept(history.new_secret()))
    history.wait(dice.uniform(0, 60))
    history.write(right)
    yield


def undone(history: History, dice: random.Random) -> Iterator[None]:
    """The store gets a wrong secret beside the right one, and the issuer a third; then the issuer goes back."""
    before = history.store.last.current
    history.write(Kept(history.new_secret(), previous=before))
    history.apply(history.new_secret())
    history.wait(dice.uniform(5, 60))
    history.apply(before)
    history.wait(300.0)
    yield


def overlapping(history: History, dice: random.Random) -> Iterator[None]:
    """The store has the new secret, then the issuer accepts both for longer than a minute, then the new one only."""
    before, secret = history.store.last.current, history.new_secret()
    history.write(Kept(secret))
    history.wait(dice.uniform(1, 10))
    history.apply(before, secret)
    history.wait(70.0)
    history.apply(secret)
    yield


PEOPLE = (store_first, store_first_with_previous, issuer_first, mistaken)


def history_of(
    changes: tuple[Change, ...], dice: random.Random, *, lag: float = 0.0, count: int = 6, pause: float = 1.5
) -> History:
    """So many changes, each of which may end at any of its steps, a little apart. People leave engines' work alone."""
    history = History(lag)
    history.wait(3.0)
    for _ in range(count):
        pending = bool(history.store.last.pending)
        change = dice.choice([one for one in changes if one is engine or not pending] or [engine])
        for _ in zip(change(history, dice), range(dice.randint(1, 4)), strict=False):
            pass
        history.wait(dice.choice([0.0, dice.uniform(0, pause), dice.uniform(0, 20 * pause)]))
    return history
