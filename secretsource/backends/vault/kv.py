"""What a reference to Vault means, and what the engines answer: KV version 1 and 2, and any other path that is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from ...credentials import Document
from ...errors import ConfigurationError, MalformedSecret, SecretNotFound
from ...reference import SecretReference
from ...secret import Secret
from ..formats import Origin, revealed
from ..walk import version_of
from .answers import Action, Reply, error_of, seconds_in, text_of
from .logins import mount_path

__all__ = [
    "Mounted",
    "Place",
    "advice",
    "deleted",
    "document_of",
    "lifetime_in",
    "mounted_in",
    "place_of",
    "preflight",
    "reading",
    "writing",
]

ENGINES = ("1", "2", "auto", "raw")
# Whoever edits a reference must not have Vault's token sent to an issuer; a namespace may stand before these.
_OF_VAULT = frozenset({"auth", "cubbyhole", "sys"})
_LEASE_SHARE = 0.8
_LONGEST_RAW = 300.0


class Mounted(NamedTuple):
    """A secrets engine: its path without slashes at its ends, its type, and its KV version ("" for none)."""

    path: str
    type: str
    version: str


class Place(NamedTuple):
    """Where a secret is: mount and path in it, with the engine's kind ("1", "2", "raw") and a pinned version."""

    mount: str
    path: str
    kind: str
    version: int | None


def place_of(reference: SecretReference, mounted: Mounted | None = None) -> Place:
    """`mounted` is what Vault says of its mount, for kv=auto. ConfigurationError."""
    kind, mount, version = reference.option("kv") or "2", reference.option("mount"), reference.option("version")
    if kind not in ENGINES:
        raise ConfigurationError(f"{reference} names an unknown engine", hint=f"kv= is one of {', '.join(ENGINES)}")
    if mount is not None:
        mount = mount_path(mount)
    if any(part in ("", ".", "..") or "/" in part for part in reference.segments):  # one that was not parsed
        raise ConfigurationError(f"{reference} leads out of its mount", hint="Write the path without '.' and '..'")
    whole = _whole(reference)
    if kind == "auto":
        if mounted is None:
            return Place(mount or reference.segments[0], whole, "auto", None)
        if mounted.type not in ("kv", "generic"):
            raise ConfigurationError(
                f"{reference} leads to an engine of the type {mounted.type!r}, which is no KV",
                hint="Write kv=raw for what such an engine gives",
            )
        kind, mount = mounted.version or "1", mounted.path
    if kind == "raw":
        if _OF_VAULT.intersection(part.lower() for part in whole.split("/")[:-1]):
            raise ConfigurationError(
                f"{reference} leads to what belongs to Vault itself, such as the token in use",
                hint="Name the path of a secrets engine, such as azure/creds/pos",
            )
        path, mount = whole, ""
    else:
        mount = mount or reference.segments[0]
        path = whole.removeprefix(mount).lstrip("/")
        if not path:
            raise ConfigurationError(
                f"{reference} names a mount and nothing in it",
                hint="Write the path behind the mount: vault://kv/prod/pos",
            )
    if version is not None and kind != "2":
        raise ConfigurationError(f"{reference} has a version, which only KV version 2 keeps", hint="Leave version= out")
    return Place(mount, path, kind, None if version is None else _number(version, reference))


def reading(place: Place) -> Action:
    """The request that reads it."""
    if place.kind == "2":
        return lambda client: client.secrets.kv.v2.read_secret_version(
            place.path, version=place.version, mount_point=place.mount, raise_on_deleted_version=True
        )
    if place.kind == "1":
        return lambda client: client.secrets.kv.v1.read_secret(place.path, mount_point=place.mount)
    return lambda client: client.adapter.get(f"/v1/{quote(place.path)}")


def writing(place: Place, fields: Mapping[str, Any], cas: int) -> Action:
    """The request that writes it, if its version is still `cas` (0: nothing there)."""
    return lambda client: client.secrets.kv.v2.create_or_update_secret(
        place.path, revealed(fields), cas=cas, mount_point=place.mount
    )


def preflight(reference: SecretReference) -> Action:
    """Asks which engine is mounted on the way to this path; Vault answers whoever may do something below it."""
    return lambda client: client.adapter.get(f"/v1/sys/internal/ui/mounts/{quote(_whole(reference))}")


def _whole(reference: SecretReference) -> str:
    mount = reference.option("mount")
    return "/".join([*([] if mount is None else [mount_path(mount)]), *reference.segments])


def mounted_in(reply: Reply) -> Mounted | None:
    """The engine that the answer to `preflight` tells of."""
    data = reply.mapping("data") if reply.good else None
    path, type = (None, None) if data is None else (text_of(data.get("path")), text_of(data.get("type")))
    if data is None or path is None or type is None or not path.reveal().isprintable():
        return None
    options = data.get("options")
    version = text_of(options.get("version")) if isinstance(options, Mapping) else None
    return Mounted(path.reveal().strip("/"), type.reveal(), version.reveal() if version else "")


def document_of(reply: Reply, place: Place, origin: Origin) -> Document:
    """The document in a good answer. Raises MalformedSecret."""
    data = reply.mapping("data")
    if place.kind != "2":
        if data is None:
            raise error_of(
                MalformedSecret, reply, origin, "has no data in it", "Is it the path of a secret, and kv= right?"
            )
        lease = text_of(reply.members.get("lease_id")) if place.kind == "raw" else None
        return Document(
            data,
            version=version_of(*_flat(Document(data).fields) if lease is None else [lease]),
            valid_for=_validity(reply.members.get("lease_duration") if lease is not None else None, data, place),
            leased=lease is not None,
        )
    fields, metadata = reply.mapping("data", "data"), reply.mapping("data", "metadata")
    number = None if metadata is None else metadata.get("version")
    if fields is None or metadata is None or not isinstance(number, int) or isinstance(number, bool):
        raise error_of(
            MalformedSecret,
            reply,
            origin,
            "is not what KV version 2 answers",
            "For KV version 1 add ?kv=1, for another engine ?kv=raw"
            if data is not None
            else "Is it Vault that answers?",
        )
    return Document(fields, version=str(number), created=_moment(text_of(metadata.get("created_time"))))


def lifetime_in(reply: Reply) -> tuple[float | None, float | None]:
    """When the version in a good answer was written, and when Vault ends it, in seconds since 1970."""
    known = reply.mapping("data", "metadata") or {}
    created, expires = (_moment(text_of(known.get(name))) for name in ("created_time", "deletion_time"))
    return (None if created is None else created.timestamp(), None if expires is None else expires.timestamp())


def deleted(reply: Reply, origin: Origin) -> SecretNotFound | None:
    """The error for a version that was there: KV version 2 tells of it with the status of what never was."""
    metadata = reply.mapping("data", "metadata") if reply.status == 404 else None
    if metadata is None:
        return None
    number = metadata.get("version")
    version = f"version {number}" if isinstance(number, int) else "this version"
    if metadata.get("destroyed") is True:
        what, hint = f"was destroyed: {version} is gone for ever", "Write the secret anew with secretsource put"
    else:
        at = _moment(text_of(metadata.get("deletion_time")))
        when = f" on {at:%Y-%m-%d %H:%M} UTC" if at else ""
        what, hint = f"was deleted: {version}{when}", "Run vault kv undelete for that version, or write it anew"
    return error_of(SecretNotFound, reply, origin, what, hint)


def advice(reference: SecretReference, mounted: Mounted | None, status: int, needs: str) -> str:
    """What may be wrong with a reference at which nothing is, or that is refused: the mistakes of the first hour.

    `needs`: the capabilities that were.
    """
    place = place_of(reference, mounted)
    if place.kind == "2" and place.path.startswith("data/") and (mounted is None or mounted.version == "2"):
        stray = 0 if reference.option("mount") else place.mount.count("/") + 1
        segments = (*reference.segments[:stray], *reference.segments[stray + 1 :])
        meant = "" if reference.option("mount") else f"; or, if it is meant, write ?mount={place.mount}"
        return f"Leave 'data/' out, which belongs to Vault's API: {replace(reference, segments=segments)}{meant}"
    usual = f"The token's policy needs {needs} on the path" if status == 403 else "Nothing is at that path"
    if mounted is None:
        where = f" {_policy(place)}" if place.kind in ("1", "2") else ""
        return (
            f"{usual}{where if status == 403 else ''}; or there is no mount "
            f"{place.mount or place.path.split('/')[0]!r} (for one with slashes in it write ?mount=team/a/kv)"
        )
    if mounted.path != place.mount and place.kind in ("1", "2"):
        inner = "/".join([place.mount, place.path]).removeprefix(mounted.path).lstrip("/")
        return f"The mount is {mounted.path!r}: write {reference.store}://{inner}?mount={mounted.path}"
    if place.kind == "2" and mounted.type in ("kv", "generic") and mounted.version != "2":
        return f"{mounted.path!r} is KV version 1: add ?kv=1"
    if place.kind == "1" and mounted.version == "2":
        return f"{mounted.path!r} is KV version 2: leave kv=1 out"
    if mounted.path in _OF_VAULT:
        return f"{mounted.path!r} belongs to Vault itself and keeps no client credentials"
    if place.kind in ("1", "2") and mounted.type not in ("kv", "generic"):
        return f"{mounted.path!r} is an engine of the type {mounted.type!r}: add ?kv=raw"
    if status == 403:
        return f"{usual} {_policy(place)}"
    pinned = "; or it has no such version" if place.version is not None else ""
    command = f"vault read {place.path}" if place.kind == "raw" else f"vault kv get -mount={place.mount} {place.path}"
    return f"{usual}{pinned}. See what {command} says"


def _policy(place: Place) -> str:
    return f"{place.mount}/data/{place.path}" if place.kind == "2" else f"{place.mount}/{place.path}".lstrip("/")


def _number(version: str, reference: SecretReference) -> int:
    if not version.isascii() or not version.isdigit() or len(version) > 18 or int(version) < 1:
        raise ConfigurationError(f"{reference} has a version that is no number above 0", hint="Such as version=7")
    return int(version)


def _validity(lease: object, data: Mapping[str, Any], place: Place) -> float | None:
    """Seconds for which a lease may be used, less a share, so that it is read anew before its end.

    A static role has no lease and says in `ttl` when it is changed next; then it is looked at all the same.
    """
    ends = [each for each in map(seconds_in, (lease, data.get("ttl"))) if each is not None]
    if place.kind != "raw" or not ends:
        return None
    return min(ends if lease else [*ends, _LONGEST_RAW]) * _LEASE_SHARE


def _moment(text: Secret | None) -> datetime | None:
    try:
        moment = None if text is None else datetime.fromisoformat(text.reveal())
    except ValueError:
        return None
    return None if moment is None or moment.tzinfo is None else moment


def _flat(tree: Mapping[str, Any]) -> Iterator[Secret]:
    for name, value in sorted(tree.items()):
        yield Secret(name)
        if isinstance(value, Mapping):
            yield from _flat(value)
        else:
            yield value if isinstance(value, Secret) else Secret(str(value))
