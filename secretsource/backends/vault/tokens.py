"""The Vault token in use: obtained when it is first needed, one login at a time, and anew before it ends.

No thread renews it: reads are rare, and each looks first how long the token still lives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ...clock import Clock, Deadline
from ...errors import AccessDenied, SecretSourceError
from ...events import Emitter
from ...flight import Flight, Flights, ticket
from ...secret import Secret
from .logins import Login, Pass, StaticToken

__all__ = ["Counter", "Holding", "Tokens", "worth_asking"]

_MARGIN = 10.0
_SHARE_LEFT_AT_RENEWAL = 1 / 3
_RENEWED_WITHIN = 1.0
_NEXT_RENEWAL = 30.0


class Holding:
    """A token that was obtained, with when it ends by our monotonic clock (None: not known, or never)."""

    __slots__ = ("asked", "ends", "first_life", "life", "not_before", "renewable", "ticket", "token", "uses")

    def __init__(self, given: Pass, began: float, first_life: float | None = None) -> None:
        self.ticket = ticket()
        self.token: Secret | None = given.token
        self.life = given.life
        self.first_life = given.life if first_life is None else first_life
        self.ends = None if given.life is None else began + given.life
        self.renewable = given.renewable
        self.uses = given.uses
        self.asked = False  # whether Vault was asked how long it lives
        self.not_before = 0.0  # when it is tried to renew it again

    def left(self, now: float) -> float:
        return float("inf") if self.ends is None else self.ends - now

    def is_good(self, now: float) -> bool:
        """Neither used up nor about to end."""
        if self.uses is not None and self.uses <= 0:
            return False
        return self.left(now) > (0.0 if self.life is None else min(_MARGIN, self.life / 10))

    def is_to_be_renewed(self, now: float) -> bool:
        if not self.renewable or self.life is None or now < self.not_before:
            return False
        return 0 < self.left(now) < self.life * _SHARE_LEFT_AT_RENEWAL


class Counter(Protocol):
    """Where tokens are had, before one deadline."""

    def until(self, deadline: Deadline) -> Counter: ...
    def obtain(self) -> Pass: ...
    def renew(self, token: Secret) -> Pass: ...


class Tokens:
    """The tokens of one store in one process."""

    def __init__(self, login: Login, clock: Clock) -> None:
        self._login, self._clock = login, clock
        self._flights: Flights[Holding] = Flights("Vault token", Emitter())
        self._held: Holding | None = None

    def current(self, counter: Counter, deadline: Deadline) -> Holding:
        """The token in use; a new one where there is none or it is about to end."""
        held, now = self._held, self._clock.monotonic()
        if held is not None and self._login.kept and not self._login.repeats and held.is_to_be_renewed(now):
            return self._flights.run("login", self._body(self._renewed, counter, held), deadline)
        if held is None or not self._login.kept or not held.is_good(now):
            return self._flights.run("login", self._body(self._logged_in, counter, held), deadline)
        return held

    def after_refusal(self, refused: Holding, counter: Counter, deadline: Deadline) -> Holding | None:
        """Another token than the one refused; None where there is no other."""
        held = self._held
        if held is None or held.ticket <= refused.ticket:
            body = self._body(lambda counter, _: self._logged_in(counter, None), counter, held)
            held = self._flights.run("login", body, deadline, after=refused.ticket)
        return None if held.token is None or held.token == refused.token else held

    def learn(self, held: Holding, life: float, first_life: float, renewable: bool, uses: int | None) -> None:
        """What Vault says of a token that somebody else made."""
        held.life, held.first_life, held.ends = life, first_life, self._clock.monotonic() + life
        held.renewable, held.uses = renewable, uses

    def _body(
        self, make: Callable[[Counter, Holding | None], Holding], counter: Counter, held: Holding | None
    ) -> Callable[[Flight[Holding]], Holding]:
        """`held` is what the caller has seen: another that was obtained meanwhile serves as well."""

        def body(flight: Flight[Holding]) -> Holding:
            flight.phase = "login to Vault"
            now = self._held
            if now is not None and now is not held and self._login.kept and now.is_good(self._clock.monotonic()):
                return now
            self._held = new = make(counter.until(flight.deadline), held)
            return new

        return body

    def _logged_in(self, counter: Counter, held: Holding | None) -> Holding:
        began = self._clock.monotonic()
        refused: AccessDenied | None = None
        try:
            return Holding(counter.obtain(), began)
        except AccessDenied as error:
            refused = error.again()
        # What it logs in with may be used up while the token itself may still be prolonged.
        if held is not None and held.renewable and held.left(began) > 0:
            return self._renewed(counter, held)
        raise refused

    def _renewed(self, counter: Counter, held: Holding | None) -> Holding:
        """The same token with a longer life, else as it was: a failed renewal neither ends nor prolongs it."""
        assert held is not None
        assert held.token is not None
        began = self._clock.monotonic()
        try:
            given = counter.until(Deadline(_RENEWED_WITHIN)).renew(held.token)
        except SecretSourceError:
            held.not_before = began + _NEXT_RENEWAL  # it is still good, and the reads have better uses for their time
            return held
        new = Holding(given._replace(token=held.token, uses=held.uses), began, held.first_life)
        new.asked = held.asked
        if new.life is not None and new.first_life is not None and new.life < new.first_life * 0.99:
            new.renewable = False  # its maximum is near: to renew it once more adds nothing
        return new


def worth_asking(login: Login, held: Holding) -> bool:
    """Whether to ask Vault, once, how long a token lives that somebody else made."""
    if held.asked or held.token is None or not isinstance(login, StaticToken) or not login.renew:
        return False
    held.asked = True
    return True
