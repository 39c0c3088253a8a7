"""What each level makes of each way a secret file may lie there. One row a layout; its columns are the levels."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..backends.layouts import CANARY, NOBODY_ELSE, docker, grant, kubelet, systemd, write
from .outcomes import LEVELS

READER, CREW = 54320, 777
"""An ordinary user without an entry in the user database, and a group that it is in."""
AGENT = 100
"""The uid that Vault Agent runs as in the injector's image."""
POS = {"client_id": "pos", "client_secret": CANARY}


class Row(NamedTuple):
    """A layout, made in an empty directory of ours, and what strict, private, mounted and unchecked make of it."""

    name: str
    make: Callable[[Path], Path | str]
    expected: str
    owners: tuple[int, ...] = ()

    @property
    def outcomes(self) -> dict[str, str]:
        return dict(zip(LEVELS, self.expected.split(), strict=True))


def file(mode: int = 0o600, *, uid: int = -1, gid: int = -1, text: str | bytes | None = None) -> Callable[[Path], Path]:
    def make(at: Path) -> Path:
        path = at / ("pos.json" if text is None else "secret")
        path = write(path, mode=mode) if text is None else write(path, text, mode)
        os.chown(path, uid, gid)
        return path

    return make


def below(mode: int, *, uid: int = -1, gid: int = -1, depth: int = 1, reader: int = -1) -> Callable[[Path], Path]:
    """Our private file below a directory of this mode and owner."""

    def make(at: Path) -> Path:
        inner = at.joinpath("odd", *"abc"[: depth - 1])
        inner.mkdir(parents=True)
        path = write(inner / "pos.json")
        os.chown(path, reader, -1)
        os.chown(at / "odd", uid, gid)
        (at / "odd").chmod(mode)
        return path

    return make


def links(*targets: str, owner: int = -1, reader: int = -1) -> Callable[[Path], Path]:
    """Links in a row: l1 leads to l2 … leads to the last target, beside dir/pos.json."""

    def make(at: Path) -> Path:
        (at / "dir").mkdir()
        os.chown(write(at / "dir" / "pos.json"), reader, -1)
        for number, target in enumerate(targets, 1):
            link = at / f"l{number}.json"
            link.symlink_to(target.format(at=at))
            os.lchown(link, owner, -1)
        return at / "l1.json"

    return make


def chain(length: int) -> Callable[[Path], Path]:
    return links(*[f"l{number}.json" for number in range(2, length + 1)], "dir/pos.json")


def through(target: str, then: str = "pos.json", mode: int = 0o755) -> Callable[[Path], Path]:
    """A link to a directory on the way."""

    def make(at: Path) -> Path:
        links(target)(at)
        (at / "dir").chmod(mode)
        return at / "l1.json" / then

    return make


def there_and_back(at: Path) -> Path:
    (at / "open").mkdir()
    (at / "open").chmod(0o757)
    return links("open/../dir/pos.json")(at)


def second_name(at: Path) -> Path:
    path = write(at / "pos.json")
    os.link(path, at / "second")
    return path


def fifo(at: Path) -> Path:
    os.mkfifo(at / "pos.json", 0o600)
    return at / "pos.json"


def unix_socket(at: Path) -> Path:
    here = os.getcwd()
    os.chdir(at)  # the address of a socket is short, the path of a test's directory may not be
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("pos.json")
    finally:
        os.chdir(here)
    return at / "pos.json"


def acl(
    mode: int = 0o600,
    *,
    users: dict[int, int] | None = None,
    groups: dict[int, int] | None = None,
    then: int | None = None,
) -> Callable[[Path], Path]:
    def make(at: Path) -> Path:
        path = grant(write(at / "pos.json", mode=mode), users=users, groups=groups)
        if then is not None:
            path.chmod(then)
        return path

    return make


def acl_above(*, default: bool = False) -> Callable[[Path], Path]:
    def make(at: Path) -> Path:
        path = below(0o755)(at)
        grant(path.parent, users={NOBODY_ELSE: 7}, default=default)
        return path

    return make


def volume(
    mode: int, *, root: int, owner: int = -1, group: int = -1, dated: int = 0o755, one: str = ""
) -> Callable[[Path], str]:
    """A Secret volume of the kubelet, as a directory, or one file of it."""

    def make(at: Path) -> str:
        mount = kubelet(at / "pos", POS, mode=mode, root=root)
        for path in (mount / "..data").iterdir():
            os.chown(path, owner, group)
        for path in (mount, (mount / "..data").resolve()):
            os.chown(path, -1, group)
        mount.chmod(root)
        (mount / "..data").resolve().chmod(dated)
        return f"{mount}/{one}"

    return make


def container_secrets(mode: int, owner: int = -1) -> Callable[[Path], str]:
    def make(at: Path) -> str:
        secrets = docker(at / "secrets", POS, mode=mode)
        for path in secrets.iterdir():
            os.chown(path, owner, -1)
        return f"{secrets}/"

    return make


def rendered(mode: int, owner: int) -> Callable[[Path], Path]:
    """What Vault Agent renders into the memory that it shares with the program: a sticky directory of root's."""

    def make(at: Path) -> Path:
        path = write(at / "pos.json", mode=mode)
        os.chown(path, owner, -1)
        at.chmod(0o1777)
        return path

    return make


def unit(*, by_acl: bool) -> Callable[[Path], Path]:
    """What systemd gives to a service: root's with an ACL entry for its user, or the user's where there are no ACLs."""

    def make(at: Path) -> Path:
        credentials = systemd(at / "unit", {"pos.json": f'{{"client_secret": "{CANARY}"}}'})
        for path, bits in ((credentials / "pos.json", 4), (credentials, 5)):
            if by_acl:
                grant(path, users={READER: bits})
            else:
                os.chown(path, READER, READER)
        return credentials / "pos.json"

    return make


def several(first: Callable[[Path], Path], then: Callable[[Path], object]) -> Callable[[Path], Path]:
    def make(at: Path) -> Path:
        path = first(at)
        then(path)
        return path

    return make


OURS = [
    Row("a file of ours alone", file(), "read read read read"),
    Row("one that is not even writable", file(0o400), "read read read read"),
    Row("nothing", lambda at: at / "pos.json", "F01 F01 F01 F01"),
    Row("no directory", lambda at: at / "no" / "pos.json", "F01 F01 F01 F01"),
    Row("a file where a directory belongs", lambda at: write(at / "a") / "pos.json", "F01 F01 F01 F01"),
    Row("a file named as a directory", lambda at: f"{write(at / 'a')}/", "F01 F01 F01 F01"),
    Row("a name too long", lambda at: at / ("x" * 256), "F01 F01 F01 F01"),
    Row("a path too long", lambda at: at.joinpath(*["x" * 100] * 50), "F01 F01 F01 F01"),
    Row("a directory", lambda at: at, "F02 F02 F02 F02"),
    Row("a FIFO", fifo, "F02 F02 F02 F02"),
    Row("a socket", unix_socket, "F02 F02 F02 F02"),
    Row("a device", lambda at: "/dev/null", "F02 F02 F02 F02"),
    Row("readable by everybody", file(0o644), "F05 F05 read read"),
    Row("readable by others, not the group", file(0o604), "F05 F05 read read"),
    Row("writable by everybody", file(0o602), "F06 F06 F06 read"),
    Row("executable by everybody", file(0o601), "F06 F06 F06 read"),
    Row("two names", second_name, "F08 F08 read read"),
    Row("a link", links("dir/pos.json"), "F09 read read read"),
    Row("an absolute link", links("{at}/dir/pos.json"), "F09 read read read"),
    Row("a link through ..", links("dir/../dir/./pos.json"), "F09 read read read"),
    Row("a link above the root", links("/../../..{at}/dir/pos.json"), "F09 read read read"),
    Row("a link through a directory", through("dir"), "F09 read read read"),
    Row("forty links", chain(40), "F09 read read read"),
    Row("forty-one links", chain(41), "F09 F09 F09 F09"),
    Row("a link to itself", links("l1.json"), "F09 F09 F09 F09"),
    Row("a ring of links", links("l2.json", "l1.json"), "F09 F09 F09 F09"),
    Row("a link to nothing", links("nothing"), "F09 F01 F01 F01"),
    Row("a link to a directory", links("dir"), "F09 F02 F02 F02"),
    Row("a link into an open directory", through("dir", mode=0o757), "F09 F10 F10 read"),
    Row("a link through an open directory and back", there_and_back, "F09 F10 F10 read"),
    Row("below what everybody can write to", below(0o757), "F10 F10 F10 read"),
    Row("far below what everybody can write to", below(0o757, depth=4), "F10 F10 F10 read"),
    Row("below what everybody can pass through", below(0o711), "read read read read"),
    Row("an ACL lets a user read", acl(users={NOBODY_ELSE: 4}), "F04 F07 read read"),
    Row("an ACL lets a group read", acl(groups={NOBODY_ELSE: 4}), "F04 F04 read read"),
    Row("an ACL lets a user write", acl(users={NOBODY_ELSE: 6}), "F06 F06 F06 read"),
    Row("an ACL lets a group execute", acl(groups={NOBODY_ELSE: 1}), "F06 F06 F06 read"),
    Row("an ACL lets root read", acl(users={0: 4}), "F04 read read read"),
    Row("an ACL without effect", acl(users={NOBODY_ELSE: 7}, then=0o600), "read read read read"),
    Row("an ACL that gives nothing", acl(users={NOBODY_ELSE: 0}), "read read read read"),
    Row("below what an ACL lets a user write to", acl_above(), "F10 F10 F10 read"),
    Row("below what an ACL opens for what is new", acl_above(default=True), "read read read read"),
    Row("an empty file", file(text=""), "F12 F12 F12 F12"),
    Row("nothing but a line end", file(text="\r\n"), "F12 F12 F12 F12"),
    Row("64 KiB and a byte", file(text="x" * 65537), "F13 F13 F13 F13"),
    Row("a byte order mark", file(text=b"\xef\xbb\xbf" + CANARY.encode()), "F14 F14 F14 F14"),
    Row("UTF-16", file(text=CANARY.encode("utf-16")), "F14 F14 F14 F14"),
    Row("a NUL", file(text=CANARY.encode() + b"\0"), "F14 F14 F14 F14"),
    Row("not UTF-8", file(text=CANARY.encode() + b"\xff"), "F14 F14 F14 F14"),
    Row("a surrogate", file(text=CANARY.encode() + b"\xed\xa0\x80"), "F14 F14 F14 F14"),
    Row("a volume of the kubelet", volume(0o644, root=0o755), "F09 F05 read read"),
    Row("a volume with defaultMode 0400", volume(0o400, root=0o755), "F09 read read read"),
    Row("one file of a volume", volume(0o644, root=0o755, one="client_secret"), "F09 F05 read read"),
    Row("Docker's secrets", container_secrets(0o444), "F05 F05 read read"),
]
"""As whoever runs the tests."""

ROOTS = [
    Row("of another user", file(0o644, uid=NOBODY_ELSE), "F03 F03 F03 read"),
    Row("of another user who is trusted", file(0o644, uid=NOBODY_ELSE), "F03 F03 read read", (NOBODY_ELSE,)),
    Row("readable by a group", file(0o640, gid=NOBODY_ELSE), "F04 F04 read read"),
    Row("writable by a group", file(0o620, gid=NOBODY_ELSE), "F06 F06 F06 read"),
    Row("executable by a group", file(0o610, gid=NOBODY_ELSE), "F06 F06 F06 read"),
    Row("a link of another user", links("dir/pos.json", owner=NOBODY_ELSE), "F09 F09 F09 read"),
    Row("below what another user owns", below(0o755, uid=NOBODY_ELSE), "F10 F10 F10 read"),
    Row("far below what another user owns", below(0o700, uid=NOBODY_ELSE, depth=4), "F10 F10 F10 read"),
    Row("below what a trusted owner owns", below(0o755, uid=NOBODY_ELSE), "F10 F10 read read", (NOBODY_ELSE,)),
    Row("below what a group can write to", below(0o775, gid=NOBODY_ELSE), "F10 F10 F10 read"),
    Row("in a sticky directory of root's", below(0o1777), "F10 read read read"),
    Row(
        "two names in a sticky directory of root's",
        several(below(0o1777), lambda path: os.link(path, path.with_name("second"))),
        "F10 F08 F08 read",
    ),
    Row("in a sticky directory of another user's", below(0o1777, uid=NOBODY_ELSE), "F10 F10 F10 read"),
    Row("a volume on a sticky mount", volume(0o644, root=0o1777), "F10 F05 read read"),
    Row("Compose's, of its user on the host", container_secrets(0o644, 1000), "F03 F03 F03 read"),
    Row("Vault Agent's", rendered(0o644, AGENT), "F10 F03 F03 read"),
    Row("Vault Agent's, which is trusted", rendered(0o640, AGENT), "F10 F03 read read", (AGENT,)),
]
"""As root, who alone can give files away."""

ORDINARY = [
    Row("a file of its own", file(uid=READER), "read read read read"),
    Row("its own, readable by its group", file(0o640, uid=READER, gid=READER), "F04 F04 read read"),
    Row("root's, closed", file(), "AccessDenied AccessDenied AccessDenied AccessDenied"),
    Row("root's, for a group it is in", file(0o640, gid=CREW), "F03 read read read"),
    Row("root's, which that group can change", file(0o660, gid=CREW), "F03 F06 F06 read"),
    Row("root's, readable by everybody", file(0o644), "F03 F05 read read"),
    Row("another user's, readable by everybody", file(0o644, uid=NOBODY_ELSE), "F03 F03 F03 read"),
    Row("another user's, for a group it is in", file(0o640, uid=NOBODY_ELSE, gid=CREW), "F03 F03 F03 read"),
    Row("in a directory of its own", below(0o700, uid=READER, reader=READER), "read read read read"),
    Row("in one that it can only pass through", below(0o711, reader=READER), "read read read read"),
    Row("in one that is closed", below(0o700, reader=READER), "AccessDenied AccessDenied AccessDenied AccessDenied"),
    Row("in another user's", below(0o755, uid=NOBODY_ELSE, reader=READER), "F10 F10 F10 read"),
    Row("in one for a group it is in", below(0o775, gid=CREW, reader=READER), "F10 F10 F10 read"),
    Row("in a sticky directory of root's", below(0o1777, reader=READER), "F10 read read read"),
    Row("in a sticky one of its own", below(0o1777, uid=READER, reader=READER), "F10 F10 F10 read"),
    Row("in a sticky one of another's", below(0o1777, uid=NOBODY_ELSE, reader=READER), "F10 F10 F10 read"),
    Row("a link of root's", links("dir/pos.json", reader=READER), "F09 read read read"),
    Row("a link of its own", links("dir/pos.json", owner=READER, reader=READER), "F09 read read read"),
    Row("a link of another's", links("dir/pos.json", owner=NOBODY_ELSE, reader=READER), "F09 F09 F09 read"),
    Row(
        "a second name that another gave it",
        several(below(0o1777, reader=READER), lambda path: os.link(path, path.with_name("second"))),
        "F10 F08 F08 read",
    ),
    Row("root's with an ACL entry for it", acl(users={READER: 4}), "F03 read read read"),
    Row("with one for somebody else, too", acl(users={READER: 4, NOBODY_ELSE: 4}), "F03 F07 read read"),
    Row("with one for a foreign group, too", acl(users={READER: 4}, groups={NOBODY_ELSE: 4}), "F03 F04 read read"),
    Row("with one for a group it is in", acl(groups={CREW: 4}), "F03 read read read"),
    Row("kubelet's default", volume(0o644, root=0o1777), "F10 F05 read read"),
    Row("an fsGroup", volume(0o440, root=0o3777, group=CREW, dated=0o2755), "F10 read read read"),
    Row(
        "one file with an fsGroup",
        volume(0o440, root=0o3777, group=CREW, dated=0o2755, one="client_secret"),
        "F10 read read read",
    ),
    Row("a projected token of its own", volume(0o600, root=0o1777, owner=READER), "F10 read read read"),
    Row("Docker's or Podman's", container_secrets(0o444), "F03 F05 read read"),
    Row("Compose's, its own on the host", container_secrets(0o600, READER), "read read read read"),
    Row("Vault Agent's", rendered(0o644, AGENT), "F10 F03 F03 read"),
    Row("Vault Agent's, which is trusted", rendered(0o644, AGENT), "F10 F03 read read", (AGENT,)),
    Row("Vault Agent's, run as the same user", rendered(0o600, READER), "F10 read read read"),
    Row("systemd's, by an ACL entry", unit(by_acl=True), "F03 read read read"),
    Row("systemd's, where there are no ACLs", unit(by_acl=False), "read read read read"),
]
"""As an ordinary user, in the group CREW; root lays out."""
