"""What other distributions register by entry points: found without importing it, loaded when it is named."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from .errors import ConfigurationError, SecretSourceError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["Catalogue", "Known", "Unusable", "registered"]

T = TypeVar("T")


class Known(NamedTuple):
    """Something that can be named: where it comes from, found without importing it."""

    name: str
    target: str
    distribution: str
    version: str


class Unusable(Exception):
    """What was loaded cannot be used; `why` follows a colon."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


def registered(group: str) -> Iterable[EntryPoint]:
    """The entry points of this group."""
    from importlib.metadata import entry_points  # where a plug-in is meant, and not at each start

    return entry_points(group=group)


class Catalogue:
    """What can be named of one kind: ours, whose names nobody can take, and those of an entry-point group.

    `built_in`: names, and where ours stand as "module:attribute".
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str]) -> None:
        self._kind, self._group, self._built_in = kind, group, built_in

    def __contains__(self, name: object) -> bool:
        return name in self._built_in

    def built_in(self) -> list[Known]:
        return [self._of_ours(name) for name in sorted(self._built_in)]

    def plugged_in(self) -> list[Known]:
        """Also those that claim a name twice, or one of ours."""
        return sorted(_described(point) for point in registered(self._group))

    def called(self, name: str) -> list[Known]:
        """The built-in one of this name alone, else what plug-ins claim it."""
        if name in self._built_in:
            return [self._of_ours(name)]
        return sorted({one for one in self.plugged_in() if one.name == name})

    def ours(self, name: str) -> Any:
        """The built-in one of this name, imported."""
        module, _, attribute = self._built_in[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def loaded(
        self,
        name: str,
        make: Callable[[Any], T],
        *,
        doing: str,
        instead: str,
        passing: tuple[type[SecretSourceError], ...] = (),
    ) -> T | None:
        """What `make` makes of the plug-in of this name; None where there is none.

        Raises ConfigurationError, which repeats nothing that the plug-in raises, where several claim the name, and
        where one cannot be used; `doing` says during what, `instead` is the way out where there are several. What is
        `passing` leaves as it is.
        """
        points = list({_described(point): point for point in registered(self._group) if point.name == name}.values())
        if not points:
            return None
        if len(points) > 1:
            raise ConfigurationError(
                f"the {self._kind} {name!r} is claimed by {len(points)} distributions: "
                f"{', '.join(sorted(' '.join(_distribution(point)) for point in points))}",
                hint=f"Uninstall all but one, or {instead}",
            )
        failure = ""
        try:
            return make(points[0].load())
        except passing:
            raise
        except Unusable as error:
            failure = error.why
        except ModuleNotFoundError as error:
            failure = f"the module {error.name!r} is missing"
        except Exception as error:
            failure = f"{type(error).__name__} while it was {doing}"
        raise ConfigurationError(
            f"the plug-in for the {self._kind} {name!r} ({points[0].value} of {' '.join(_distribution(points[0]))}) "
            f"cannot be used: {failure}",
            hint="Install what it needs, or ask its authors",
        )

    def _of_ours(self, name: str) -> Known:
        return Known(name, self._built_in[name], "secretsource", "built in")


def _described(point: EntryPoint) -> Known:
    return Known(point.name, point.value, *_distribution(point))


def _distribution(point: EntryPoint) -> tuple[str, str]:
    return (point.dist.name, point.dist.version) if point.dist is not None else ("?", "?")
