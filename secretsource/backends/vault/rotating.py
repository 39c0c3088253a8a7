"""What a rotation needs of KV version 2 beside reading and writing: rights, room for versions, and their destruction.

Custom metadata is left alone: hvac's call for it would reset delete_version_after as well.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...errors import AccessDenied, SecretSourceError
from ...secret import Secret
from .answers import Action, Reply, error_of
from .kv import Place
from .visit import Visit

__all__ = ["cautions", "destroyed_before"]

_VERSIONS_WANTED = 20
_VERSIONS_USUAL = 10
_NEEDED = {"data": ("read", "update"), "metadata": ("read",), "destroy": ("update",)}


class _Versions(NamedTuple):
    """What is kept at one path: the newest number, those whose content is there, and how many at most (0: not said)."""

    newest: int
    kept: tuple[int, ...]
    most: int


def cautions(visit: Visit, place: Place, program: str) -> list[str]:
    """What to be careful about. Raises AccessDenied where the token may not read and update the secret.

    `program` is what its command line is called, for what it is told to do.
    """
    reply = visit.ask(_capabilities(place))
    if reply.good:
        may = {kind: _rights(reply, _path(place, kind)) for kind in (*_NEEDED, "config")}
    elif reply.refuses:
        may = {}
    else:
        raise visit.refusal(reply)
    found = _forbidden(visit, place, reply, may)
    if not may or "read" in may["metadata"]:
        versions = _versions_in(visit.ask(_metadata(place)))
        if versions is not None:
            found += _few(visit, place, versions.most, may.get("config", frozenset()), program)
    return found


def destroyed_before(visit: Visit, place: Place, number: int, program: str) -> str | None:
    """Destroy all versions before this one; what was left undone of it, with the command that does it."""
    old: Sequence[int] = ()
    try:
        known = visit.ask(_metadata(place))
        while (versions := _versions_in(known)) is not None and versions.newest < number and visit.wait():
            known = visit.ask(_metadata(place))
        if versions is None:
            why = f"{_path(place, 'metadata')} cannot be read ({known.status})"
        elif versions.newest < number:
            why = "the node that was asked lags behind"
        else:
            old = [each for each in versions.kept if each < number]
            reply = visit.ask(_destroying(place, old)) if old else known
            if reply.status in (200, 204):
                return None
            why = f"{_path(place, 'destroy')} cannot be updated ({reply.status})"
    except SecretSourceError as error:
        why = f"{type(error).__name__} when it was asked to"
    which = ",".join(map(str, old or range(max(1, number - _VERSIONS_WANTED), number)))
    command = f"{program} kv destroy -mount={shlex.quote(place.mount)} -versions={which} {shlex.quote(place.path)}"
    return f"Old versions hold the old secret, and were not destroyed: {why}. Run {command}"


def _forbidden(visit: Visit, place: Place, reply: Reply, may: Mapping[str, frozenset[str]]) -> list[str]:
    if not may:
        return [
            "The token may not ask what it may do (sys/capabilities-self, in the policy default), so the rights were "
            "not looked at"
        ]
    missing = {kind: [right for right in rights if right not in may[kind]] for kind, rights in _NEEDED.items()}
    if missing["data"]:
        raise error_of(
            AccessDenied,
            reply,
            visit.origin,
            f"cannot be rotated: the token may not {' and '.join(missing['data'])} {_path(place, 'data')}",
            f"Its policy needs {_rule(place, 'data')}",
        )
    return [
        f"The token may not {rights[0]} {_path(place, kind)}, so old versions will keep the old secret: its policy "
        f"needs {_rule(place, kind)}"
        for kind, rights in missing.items()
        if rights
    ]


def _few(visit: Visit, place: Place, most: int, may: frozenset[str], program: str) -> list[str]:
    """A caution where few versions are kept: the key's number or the mount's holds, whichever is more."""
    if most < _VERSIONS_WANTED and "read" in may:
        reply = visit.ask(_configuration(place))
        most = max(most, _count((reply.mapping("data") or {}).get("max_versions")) or 0)
    most = most or _VERSIONS_USUAL
    if most >= _VERSIONS_WANTED:
        return []
    command = f"{program} kv metadata put -mount={shlex.quote(place.mount)} -max-versions={_VERSIONS_WANTED}"
    return [
        f"Vault keeps {most} versions here, and a rotation writes five: run {command} {shlex.quote(place.path)}, "
        "so that what was there before can be looked up"
    ]


def _path(place: Place, kind: str) -> str:
    return f"{place.mount}/config" if kind == "config" else f"{place.mount}/{kind}/{place.path}"


def _rule(place: Place, kind: str) -> str:
    rights = ", ".join(f'"{right}"' for right in _NEEDED[kind])
    return f'path "{_path(place, kind)}" {{ capabilities = [{rights}] }}'


def _capabilities(place: Place) -> Action:
    return lambda client: client.sys.get_capabilities([_path(place, kind) for kind in (*_NEEDED, "config")])


def _metadata(place: Place) -> Action:
    return lambda client: client.secrets.kv.v2.read_secret_metadata(place.path, mount_point=place.mount)


def _configuration(place: Place) -> Action:
    return lambda client: client.secrets.kv.v2.read_configuration(mount_point=place.mount)


def _destroying(place: Place, versions: Sequence[int]) -> Action:
    return lambda client: client.secrets.kv.v2.destroy_secret_versions(
        place.path, list(versions), mount_point=place.mount
    )


def _rights(reply: Reply, path: str) -> frozenset[str]:
    found = (reply.mapping("data") or {}).get(path)
    rights = {each.reveal() for each in found if isinstance(each, Secret)} if isinstance(found, list) else set()
    return frozenset(rights | {"read", "update"} if "root" in rights else rights)


def _versions_in(reply: Reply) -> _Versions | None:
    data = reply.mapping("data") if reply.good else None
    newest = _count((data or {}).get("current_version"))
    if data is None or newest is None:
        return None
    kept = [
        int(number)
        for number, one in (reply.mapping("data", "versions") or {}).items()
        if number.isascii() and number.isdigit() and isinstance(one, Mapping) and one.get("destroyed") is not True
    ]
    return _Versions(newest, tuple(sorted(kept)), _count(data.get("max_versions")) or 0)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
