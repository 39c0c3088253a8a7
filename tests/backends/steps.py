"""The steps of a rotation in a store, one line each, for the tests of every store that takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secretsource import SecretReference
from secretsource.backends import Backend, Held, Rotatable
from secretsource.backends.layout import rotatable
from secretsource.secret import Secret
from secretsource.state import RotationState

__all__ = ["CURRENT", "PENDING", "Steps", "clear"]

CURRENT, PENDING = "not-a-real-secret-current", "not-a-real-secret-pending"


class Steps:
    """A rotator at one reference. Each step is made against what `held` read, by default right before it."""

    def __init__(self, backend: Backend, reference: str, *, by: str = "one", client_id: str | None = None) -> None:
        self.reference = SecretReference.parse(reference)
        self.store: Rotatable = rotatable(backend, self.reference)
        self.by, self.client_id = by, client_id

    def held(self) -> Held:
        return self.store.read_held(self.reference, client_id=self.client_id, timeout=10)

    def state(self, **said: Any) -> RotationState:
        return RotationState(**{"rotation": "r1", "by": self.by, "claimed": 1000.0, **said})

    def claim(
        self,
        pending: str = PENDING,
        held: Held | None = None,
        *,
        beside: Mapping[str, str] | None = None,
        timeout: float = 10,
        **said: Any,
    ) -> None:
        texts = {name: Secret(text) for name, text in (beside or {}).items()}
        self.store.claim(
            self.reference,
            held or self.held(),
            Secret(pending),
            self.state(**said),
            beside=texts,
            timeout=timeout,
        )

    def note(self, held: Held | None = None, **said: Any) -> None:
        state = self.state(**{"noted": 1001.0, "open_for": 30.0, "calls": 1, **said})
        self.store.note(self.reference, held or self.held(), state, timeout=10)

    def promote(self, held: Held | None = None, *, keep_previous: bool = True, **said: Any) -> None:
        state = self.state(**{"promoted": 1002.0, **said})
        self.store.promote(self.reference, held or self.held(), state, keep_previous=keep_previous, timeout=10)

    def abandon(self, held: Held | None = None) -> None:
        self.store.abandon(self.reference, held or self.held(), RotationState(finished=1003.0), timeout=10)

    def drop(self, held: Held | None = None, *, timeout: float = 10) -> str | None:
        state = RotationState(rotation="r1", by=self.by, finished=1004.0)
        return self.store.drop_previous(self.reference, held or self.held(), state, timeout=timeout)

    def secrets(self) -> tuple[str, str | None, str | None]:
        """Current, pending and previous."""
        held = self.held()
        return held.current.reveal(), clear(held.pending), clear(held.previous)


def clear(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()
