"""npm's oidc-provider, an OpenID-certified server, as a child process on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

__all__ = ["OidcProvider", "Unavailable"]

_HERE = Path(__file__).parent
_INSTALL_WITHIN = 120.0
_READY_WITHIN = 30.0


class Unavailable(Exception):
    """Why it cannot run on this machine."""


class OidcProvider:
    """One client, whose secret and lifetime (whole seconds) may be changed while it runs. A context manager.

    With `management` the client's registration can be read and updated (RFC 7592). Entering raises Unavailable where
    Node or npm is missing, or the package cannot be installed.
    """

    def __init__(
        self, *, client_id: str, client_secret: str, scopes: tuple[str, ...], management: bool = False
    ) -> None:
        self.client_id = client_id
        self.client_secret = client_secret
        self.issuer = ""
        self.token_url = ""
        self._scopes = scopes
        self._management = management
        self._process: subprocess.Popen[bytes] | None = None

    def set_secret(self, client_secret: str) -> None:
        self._control(client_secret=client_secret)
        self.client_secret = client_secret

    def set_lifetime(self, seconds: int) -> None:
        self._control(lifetime=seconds)

    def registration(self, *, rotates: bool) -> dict[str, str]:
        """The URI of the client's registration, and a new token for it. `rotates`: an update changes the secret."""
        return self._control(rotates=rotates)

    def __enter__(self) -> Self:
        node, folder = _program("node"), _installed()
        with tempfile.TemporaryDirectory() as run:
            log, ready = Path(run, "log"), Path(run, "ready")
            with log.open("wb") as output:
                process = self._process = subprocess.Popen(
                    [node, "server.mjs", ready], cwd=folder, stdin=subprocess.PIPE, stdout=output, stderr=output
                )
            try:
                self._begin(process, ready, log)
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _begin(self, process: subprocess.Popen[bytes], ready: Path, log: Path) -> None:
        options = {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "scope": " ".join(self._scopes),
            "management": self._management,
        }
        assert process.stdin is not None
        process.stdin.write(json.dumps(options).encode() + b"\n")
        process.stdin.flush()
        ends_at = time.monotonic() + _READY_WITHIN
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > ends_at:
                raise Unavailable(f"oidc-provider does not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        self.issuer = json.loads(ready.read_text())["issuer"]
        self.token_url = f"{self.issuer}/token"

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(10)
        if process.stdin is not None:
            process.stdin.close()

    def _control(self, **changes: Any) -> dict[str, str]:
        request = urllib.request.Request(f"{self.issuer}/control", json.dumps(changes).encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=10) as answer:
            said: dict[str, str] = json.loads(answer.read())
        return said


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"oidc-provider needs {name}, which is not on this machine")
    return found


def _installed() -> Path:
    """The folder with our script and its packages; installed once per user and version of these files."""
    sources = [_HERE / "package.json", _HERE / "server.mjs"]
    name = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    # What is in there gets executed, so nobody else may have made it.
    cache = Path(tempfile.gettempdir(), f"secretsource-oidc-provider-{os.getuid()}")
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.is_symlink() or cache.stat().st_uid != os.getuid() or cache.stat().st_mode & 0o077:
        raise Unavailable(f"{cache} is not ours alone")
    folder = cache / name
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as fresh:
            for source in sources:
                shutil.copy(source, fresh)
            _install(fresh)
            try:
                os.rename(fresh, folder)
            except OSError:  # another run was faster
                if not folder.exists():
                    raise
    return folder


def _install(folder: str) -> None:
    quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--no-update-notifier", "--ignore-scripts", "--silent"]
    briefly = ["--fetch-retries=1", "--fetch-timeout=20000"]
    try:
        ended = subprocess.run(
            [_program("npm"), "install", *quiet, *briefly],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_INSTALL_WITHIN,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"npm did not install oidc-provider within {_INSTALL_WITHIN:.0f} s") from None
    if ended.returncode:
        raise Unavailable(f"npm cannot install oidc-provider (it ended with {ended.returncode})")
