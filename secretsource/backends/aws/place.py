"""What a reference to Secrets Manager means: which secret, in which regions, which of its versions."""

from __future__ import annotations

import re
from typing import NamedTuple

from ...clock import Clock
from ...errors import ConfigurationError
from ...reference import Fields, SecretReference
from ..formats import FORMATS

__all__ = ["CURRENT", "PENDING", "PREVIOUS", "Place", "RegionMemory", "checked_region", "place_of"]

CURRENT, PENDING, PREVIOUS = "AWSCURRENT", "AWSPENDING", "AWSPREVIOUS"

_ARN = re.compile(r"arn:(aws[a-z-]*):secretsmanager:([a-z0-9-]+):([0-9]{12}):secret:(.+)")
_NAME = re.compile(r"[A-Za-z0-9/_+=.@!-]+")
_SUFFIX = re.compile(r".-[A-Za-z0-9]{6}$")
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}")
_REMEMBERED = 60.0


class Place(NamedTuple):
    """`secret` is a name or an ARN; no region in `regions`: that of the session. `account` is known from an ARN."""

    secret: str
    regions: tuple[str, ...]
    stage: str | None = None
    version: str | None = None
    format: str | None = None
    account: str | None = None

    @property
    def pinned(self) -> bool:
        return self.stage is not None or self.version is not None

    @property
    def by_arn(self) -> bool:
        return self.account is not None

    @property
    def partial(self) -> bool:
        """An ARN without the six characters that AWS puts behind the name: it may mean another secret."""
        return self.by_arn and not _SUFFIX.search(self.secret)

    def secret_in(self, region: str | None) -> str:
        """The secret's ID in this region: a replica has the same name and suffix."""
        if region is None or not self.by_arn:
            return self.secret
        start, _, rest = self.secret.partition(":secretsmanager:")
        return f"{start}:secretsmanager:{region}:{rest.partition(':')[2]}"


class RegionMemory:
    """Which of several regions served last; it is asked first for a minute, so that a dead one is not met each time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._served: dict[tuple[str, ...], tuple[str, float]] = {}

    def order(self, regions: tuple[str, ...]) -> tuple[str | None, ...]:
        served, until = self._served.get(regions, (None, 0.0))
        if served is None or self._clock.monotonic() >= until:
            return regions or (None,)
        return (served, *(region for region in regions if region != served))

    def serves(self, regions: tuple[str, ...], region: str | None) -> None:
        """Note it, unless it is the first: to that one the way back is found by time alone."""
        if region is None or region == regions[0]:
            self._served.pop(regions, None)
        elif self.order(regions)[0] != region:
            self._served[regions] = (region, self._clock.monotonic() + _REMEMBERED)


def place_of(reference: SecretReference, region: str | None) -> Place:
    """Read a reference; `region` is the store's own. Raises ConfigurationError."""
    secret = reference.path
    arn = _arn(secret, reference) if secret.startswith("arn:") else None
    if arn is None:
        _check_name(secret, reference)
    format, stage, version = (reference.option(name) for name in ("format", "stage", "version"))
    if format is not None and format not in FORMATS:
        raise ConfigurationError(f"{reference} names an unknown format", hint=f"Formats: {', '.join(FORMATS)}")
    if version is not None and not 32 <= len(version) <= 64:
        raise ConfigurationError(
            f"{reference} names a version that is none: a version ID has 32 to 64 characters",
            hint="Take it from aws secretsmanager list-secret-version-ids; a label such as AWSPREVIOUS is a stage=",
        )
    if stage is not None and len(stage) > 256:
        raise ConfigurationError(f"{reference} names a stage of more than 256 characters", hint="Correct stage=")
    regions = _regions(reference, arn[2] if arn else None, region)
    return Place(secret, regions, stage, version, format, arn[3] if arn else None)


def checked_region(region: object, where: str) -> str:
    if not isinstance(region, str) or not _REGION.fullmatch(region):
        raise ConfigurationError(f"{where} is not the name of a region", hint="Write it as in eu-west-1")
    return region


def _regions(reference: SecretReference, of_arn: str | None, of_store: str | None) -> tuple[str, ...]:
    one, several = reference.option("region"), reference.option("regions")
    if one is not None and several is not None:
        raise ConfigurationError(f"{reference} has region= and regions=", hint="Write all of them in regions=")
    listed = () if one is None and several is None else tuple((several or one or "").split(",") if several else [one])
    for region in listed:
        checked_region(region, f"what {reference} names in region{'s' if several else ''}=")
    if len(set(listed)) < len(listed):
        raise ConfigurationError(f"{reference} names a region twice", hint="Name each once, the primary one first")
    regions = tuple(str(region) for region in listed) or ((of_store,) if of_store else ())
    if of_arn is None:
        return regions
    if regions and regions[0] != of_arn:
        raise ConfigurationError(
            f"{reference} is in {of_arn} by its ARN and in {regions[0]} by "
            f"{'its options' if listed else 'the region= of the store'}",
            hint=f"Leave the region out, or name {of_arn} first",
        )
    return regions or (of_arn,)


def _arn(secret: str, reference: SecretReference) -> re.Match[str]:
    found = _ARN.fullmatch(secret)
    if found is None or len(secret) > 2048:
        raise ConfigurationError(
            f"the ARN in {reference} is not one of a secret",
            hint="It reads arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-XXXXXX, at most 2048 characters",
        )
    name, *more = found[4].split(":")
    if more:
        raise ConfigurationError(
            f"{reference} has a key, stage or version behind its ARN, as Amazon ECS writes it",
            hint=f"Write {_in_our_words(secret[: found.start(4)] + name, *more[:3])}",
        )
    _check_name(name, reference)
    return found


def _in_our_words(arn: str, key: str = "", stage: str = "", version: str = "") -> str:
    options = tuple((name, value) for name, value in (("stage", stage), ("version", version)) if value)
    return str(SecretReference("aws", (arn,), options=options, fields=Fields(None, key) if key else None))


def _check_name(name: str, reference: SecretReference) -> None:
    if len(name) > 512 or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{reference} does not name a secret: a name has at most 512 letters, digits and / _ + = . @ ! -",
            hint="Write aws://NAME or aws://ARN; a field of it comes after '#', a stage or version after '?'",
        )
