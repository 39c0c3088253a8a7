"""Secrets in files, variables and systemd credentials: read well, broken where the secret stands, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest

from secretsource import CredentialsSource, SecretReference, TokenSource
from secretsource.backends.env import EnvBackend
from secretsource.backends.file import FileBackend
from secretsource.backends.systemd import SystemdBackend
from secretsource.errors import (
    AccessDenied,
    BackendError,
    ConfigurationError,
    CredentialsRejected,
    MalformedSecret,
    SecretNotFound,
    SecretSourceError,
)
from secretsource.testing import FakeIssuer

from .canaries import PLAIN, SPECIAL
from .watch import Watch

Document = Callable[[str], str]

DOCUMENTS: dict[str, Document] = {
    "json": lambda s: json.dumps({"client_id": "pos", "client_secret": s}),
    "toml": lambda s: f'client_id = "pos"\nclient_secret = {json.dumps(s, ensure_ascii=False)}\n',
    "ini": lambda s: f"[DEFAULT]\nclient_id = pos\nclient_secret = {s}\n",
    "env": lambda s: f"export client_id=pos\nclient_secret={json.dumps(s, ensure_ascii=False)}\n",
    "text": lambda s: f"{s}\n",
}


def read(reference: str, client_id: str | None = None) -> object:
    return CredentialsSource(reference, client_id=client_id).current()


def source_of(watch: Watch, reference: str, issuer: FakeIssuer) -> TokenSource:
    return watch.source(reference, issuer=issuer.url, client_id="pos")


# --- read well -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [PLAIN, SPECIAL], ids=["plain", "special"])
@pytest.mark.parametrize("format", DOCUMENTS)
def test_a_document_of_each_format(watch: Watch, issuer: FakeIssuer, format: str, shape: str) -> None:
    secret = watch.canary("client secret", shape)
    path = watch.put(f"pos.{format}", DOCUMENTS[format](secret))
    issuer.add_client("pos", secret)
    source = source_of(watch, f"file://{path}", issuer)
    watch.canary_of("access token", watch.gives(source.token).access_token)
    issuer.set_secret("pos", watch.canary("new secret"))
    watch.fails(CredentialsRejected, lambda: source.token(force=True))
    watch.look(source)
    watch.look(FileBackend().read(SecretReference.parse(f"file://{path}"), fresh=True, timeout=5))


def test_a_directory_with_a_file_for_each_field(watch: Watch, issuer: FakeIssuer) -> None:
    secret = watch.canary("client secret", SPECIAL)
    issuer.add_client("pos", secret)
    watch.put("mounted/client_id", "pos")
    watch.put("mounted/client_secret", secret)
    watch.put("mounted/client_secret_previous", watch.canary("previous secret"))
    watch.gives(source_of(watch, f"file://{watch.folder}/mounted/?access=mounted", issuer).token)


def test_a_secret_that_is_changed_in_its_file(watch: Watch, issuer: FakeIssuer) -> None:
    old, new = watch.canary("old secret"), watch.canary("new secret")
    path = watch.put("pos.json", DOCUMENTS["json"](old))
    issuer.add_client("pos", old)
    source = source_of(watch, f"file://{path}", issuer)
    watch.gives(source.token)
    issuer.set_secret("pos", new)
    watch.put("pos.json", DOCUMENTS["json"](new))
    watch.gives(lambda: source.token(force=True))
    watch.put("pos.json", DOCUMENTS["json"](new)[:-5])
    watch.gives(lambda: source.token(force=True))  # the last good one serves, with an event
    assert "CredentialsStale" in watch.events.names()


# --- broken where the secret stands ----------------------------------------------------------------------------------


def cut(document: Document, behind: int) -> Document:
    """It ends so many characters behind the begin of the secret."""
    return lambda s: document(s)[: document("@@@").index("@@@") + behind]


BROKEN: dict[str, tuple[str, Document]] = {
    **{f"{format}, cut at {n}": (format, cut(DOCUMENTS[format], n))
       for format in ("json", "toml", "env") for n in (20, 31)},
    "json, a comma too many": ("json", lambda s: f'{{"client_id": "pos", "client_secret": "{s}",}}'),
    "json, a name twice": ("json", lambda s: f'{{"client_secret": "{s}", "client_secret": "{s}"}}'),
    "json, the secret without quotes": ("json", lambda s: f'{{"client_id": "pos", "client_secret": {s}}}'),
    "json, a text alone": ("json", lambda s: json.dumps(s)),
    "json, the secret alone": ("json", str),
    "json, a list": ("json", lambda s: json.dumps([{"client_id": "pos", "client_secret": s}])),
    "json, a number": ("json", lambda s: f'{{"client_id": "pos", "client_secret": 1, "x": "{s}"}}'),
    "json, an object": ("json", lambda s: json.dumps({"client_id": "pos", "client_secret": {"value": s}})),
    "json, a list of secrets": ("json", lambda s: json.dumps({"client_id": "pos", "client_secret": [s, s]})),
    "json, another name": ("json", lambda s: json.dumps({"client_id": "pos", "clientsecret": s})),
    "json, the secret as a name": ("json", lambda s: json.dumps({"client_id": "pos", s: "client_secret"})),
    "json, the halves as names": ("json", lambda s: json.dumps({s[: len(s) // 2]: s[len(s) // 2 :]})),
    "json, deep": ("json", lambda s: '{"a":' * 200 + json.dumps(s) + "}" * 200),
    "json, NaN": ("json", lambda s: f'{{"client_id": NaN, "client_secret": "{s}"}}'),
    "json, a line end": ("json", lambda s: json.dumps({"client_id": "pos", "client_secret": f"{s}\n"})),
    "json, NUL": ("json", lambda s: json.dumps({"client_id": "pos", "client_secret": f"{s}\0{s}"})),
    "json, half a character": ("json", lambda s: json.dumps({"client_id": "pos", "client_secret": f"{s}\ud800"})),
    "json, an escape that there is not": ("json", lambda s: f'{{"client_id": "pos", "client_secret": "{s}\\q"}}'),
    "json, a control character": ("json", lambda s: f'{{"client_id": "pos", "client_secret": "{s}\x01"}}'),
    "toml, the secret without quotes": ("toml", lambda s: f"client_id = 'pos'\nclient_secret = {s}\n"),
    "toml, the secret alone": ("toml", str),
    "toml, a name twice": ("toml", lambda s: f"client_secret = '{s}'\nclient_secret = '{s}'\n"),
    "toml, a date": ("toml", lambda s: f"client_id = 'pos'\nclient_secret = 2026-01-01\nx = '{s}'\n"),
    "toml, an escape that there is not": ("toml", lambda s: f'client_id = "pos"\nclient_secret = "{s}\\q"\n'),
    "ini, the secret alone": ("ini", str),
    "ini, the secret in two lines": ("ini", lambda s: f"client_id = pos\n{s[:20]}\n{s[20:]}\n"),
    "ini, the secret with an equals sign": ("ini", lambda s: f"{s[:20]}={s[20:]}"),
    "ini, the secret as a section": ("ini", lambda s: f"[{s}]\nclient_id = pos\n"),
    "ini, a name twice": ("ini", lambda s: f"client_secret = {s}\nclient_secret = {s}\n"),
    "ini, the secret behind blanks": ("ini", lambda s: f"client_id = pos\n   {s}\nclient_secret\n"),
    "env, the secret alone": ("env", str),
    "env, the secret with an equals sign": ("env", lambda s: f"S{s[:20]}={s[20:]}"),
    "env, a quote too many": ("env", lambda s: f"client_id=pos\nclient_secret='{s}''\n"),
    "env, a comment": ("env", lambda s: f"client_id=pos\nclient_secret=#{s}\n"),
    "env, a name twice": ("env", lambda s: f"client_secret={s}\nclient_secret={s}\n"),
    "env, a line without a name": ("env", lambda s: f"client_id=pos\n{s}\n"),
    "text, a control character": ("text", lambda s: f"{s}\x07\n"),
    "text, two line ends": ("text", lambda s: f"{s}\n\n"),
    "text, two lines": ("text", lambda s: f"{s}\n{s}\n"),
    "text, a mark of byte order": ("text", lambda s: f"\ufeff{s}"),
    "text, NUL": ("text", lambda s: f"{s}\0"),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_a_document_that_is_broken_at_the_secret(watch: Watch, broken: str) -> None:
    format, document = BROKEN[broken]
    path = watch.put(f"pos.{format}", document(watch.canary("client secret", "{}7notarealsecret7{}")))
    watch.fails(SecretSourceError, lambda: read(f"file://{path}", "pos" if format == "text" else None))


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "utf-8-sig"])
def test_a_document_in_another_encoding(watch: Watch, encoding: str) -> None:
    text = DOCUMENTS["toml"](watch.canary("client secret", SPECIAL))
    path = watch.put("pos.toml", text.encode(encoding))
    watch.fails(MalformedSecret, lambda: read(f"file://{path}"))


@pytest.mark.parametrize("format", DOCUMENTS)
def test_a_document_that_is_read_in_another_format(watch: Watch, format: str) -> None:
    for written, document in DOCUMENTS.items():
        path = watch.put(f"{written}-as-{format}.x", document(watch.canary(f"secret of {written}", "{}notareal{}")))
        watch.ends(lambda path=path: read(f"file://{path}?format={format}"))  # type: ignore[misc]


FIELDS: dict[str, tuple[str, type[SecretSourceError]]] = {
    "a field that there is not": ("#id=client_id,secret=key", MalformedSecret),
    "a pointer into the secret": ("#id=client_id,secret=/client_secret/0", MalformedSecret),
    "a pointer to nothing": ("#/a/b", MalformedSecret),
    "another client": ("", ConfigurationError),
    "an unknown option": ("?version=1", ConfigurationError),
    "an unknown format": ("?format=yaml", ConfigurationError),
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_reference_that_does_not_fit(watch: Watch, field: str) -> None:
    path = watch.put("pos.json", DOCUMENTS["json"](watch.canary("client secret")))
    rest, kind = FIELDS[field]
    watch.fails(kind, lambda: read(f"file://{path}{rest}", "other" if field == "another client" else None))


@pytest.mark.parametrize("binding", ["issuer", "token_url", "environment"])
def test_a_document_that_is_bound_elsewhere(watch: Watch, issuer: FakeIssuer, binding: str) -> None:
    secret = watch.canary("client secret")
    document = {"client_id": "pos", "client_secret": secret, binding: "https://elsewhere.example/"}
    path = watch.put("pos.json", json.dumps(document))
    issuer.add_client("pos", secret)
    source = watch.source(f"file://{path}", issuer=issuer.url)
    watch.ends(source.token)
    watch.look(source)


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o644, 0o666, 0o604])
@pytest.mark.parametrize("level", ["private", "strict"])
def test_a_file_that_others_may_read(watch: Watch, mode: int, level: str) -> None:
    path = watch.put("pos.json", DOCUMENTS["json"](watch.canary("client secret")), mode)
    watch.fails(AccessDenied, lambda: read(f"file://{path}?access={level}"))


def test_a_file_in_a_folder_that_others_may_change(watch: Watch) -> None:
    path = watch.put("open/pos.json", DOCUMENTS["json"](watch.canary("client secret")))
    path.parent.chmod(0o777)
    watch.fails(AccessDenied, lambda: read(f"file://{path}"))


def test_a_link_where_links_are_refused(watch: Watch) -> None:
    path = watch.put("pos.json", DOCUMENTS["json"](watch.canary("client secret")))
    link = watch.folder / "link.json"
    link.symlink_to(path)
    watch.files.placed(link)
    watch.fails(AccessDenied, lambda: read(f"file://{link}?access=strict"))


def test_the_secret_as_a_path(watch: Watch) -> None:
    # Its place is a name, which errors repeat; what holds the secret there is a variable or a field, which they do not.
    secret = watch.canary("client secret")
    for variable in ("POS_CLIENT_SECRET_FILE", "POS_CLIENT_ID_FILE"):
        backend = EnvBackend({"POS_CLIENT_ID": "pos", "POS_CLIENT_SECRET": "x", variable: secret})
        watch.fails(SecretSourceError, lambda backend=backend: _read(backend, "env:POS"), frames=False)  # type: ignore[misc]


# --- variables and credentials of systemd ----------------------------------------------------------------------------


def _read(backend: EnvBackend | SystemdBackend, reference: str) -> object:
    return CredentialsSource(reference, stores={reference.partition(":")[0]: backend}).current()


VARIABLES: dict[str, Callable[[str], Mapping[str, str]]] = {
    "good": lambda s: {"POS_CLIENT_ID": "pos", "POS_CLIENT_SECRET": s},
    "with candidates": lambda s: {
        "POS_CLIENT_ID": "pos", "POS_CLIENT_SECRET": s, "POS_CLIENT_SECRET_PENDING": s, "POS_CLIENT_SECRET_PREVIOUS": s,
    },
    "without an ID": lambda s: {"POS_CLIENT_SECRET": s},
    "an empty ID": lambda s: {"POS_CLIENT_ID": "", "POS_CLIENT_SECRET": s},
    "misspelt": lambda s: {"POS_CLIENT_ID": "pos", "POS_CLIENTSECRET": s},
    "a line end": lambda s: {"POS_CLIENT_ID": "pos", "POS_CLIENT_SECRET": f"{s}\n"},
    "a control character": lambda s: {"POS_CLIENT_ID": "pos", "POS_CLIENT_SECRET": f"{s}\x1b[2J"},
    "bytes that are no text": lambda s: {"POS_CLIENT_ID": "pos", "POS_CLIENT_SECRET": f"{s}\udcff"},
    "as a file": lambda s: {"POS_CLIENT_ID": "pos", "POS_CLIENT_SECRET_FILE": s},
    "as a file that there is not": lambda s: {"POS_CLIENT_ID": "pos", "POS_CLIENT_SECRET_FILE": "/nowhere", "X": s},
    "as both": lambda s: {"POS_CLIENT_ID": "pos", "POS_CLIENT_SECRET_FILE": s, "POS_CLIENT_SECRET": s},
    "a candidate as a file": lambda s: {
        "POS_CLIENT_ID": "pos", "POS_CLIENT_SECRET": s, "POS_CLIENT_SECRET_PENDING_FILE": s,
    },
}  # fmt: skip


@pytest.mark.parametrize("variables", VARIABLES)
def test_variables_of_the_process(watch: Watch, issuer: FakeIssuer, variables: str) -> None:
    secret = watch.canary("client secret")
    for name, value in VARIABLES[variables](secret).items():
        watch.setenv(name, value)
    issuer.add_client("pos", secret)
    source = watch.source("env:POS", issuer=issuer.url)
    watch.ends(source.token)
    watch.look(source)
    watch.look(source.status())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pos.json", DOCUMENTS["json"]),
        ("pos.json", lambda s: DOCUMENTS["json"](s)[:-1]),
        ("pos.toml", DOCUMENTS["json"]),
        ("secret", str),
        ("secret", lambda s: f"{s}\0"),
        ("secret", lambda s: f"{s}\x01"),
        ("other", str),
    ],
)
@pytest.mark.parametrize("reference", ["systemd:pos.json", "systemd:pos.toml#a", "systemd:secret", "systemd:secret#a"])
def test_a_credential_of_systemd(watch: Watch, name: str, content: Document, reference: str) -> None:
    watch.put(f"unit/{name}", content(watch.canary("client secret")), 0o400)
    backend = SystemdBackend({"CREDENTIALS_DIRECTORY": str(watch.folder / "unit")})
    watch.ends(lambda: CredentialsSource(reference, stores={"systemd": backend}, client_id="pos").current())


def test_what_a_document_is_called_may_be_shown_but_not_a_name_that_is_none(watch: Watch) -> None:
    path = watch.put("pos.json", json.dumps({"client_id": "pos", "clientSecret2": "x", "oauth_key": watch.canary("s")}))
    error = watch.fails(BackendError, lambda: read(f"file://{path}"))
    assert "clientSecret2" in str(error)
    assert "oauth_key" in str(error)


def test_a_secret_in_the_place_of_a_path_segment_is_never_a_reference(watch: Watch) -> None:
    given = [f"file:{quote(watch.canary('pasted', SPECIAL))}?{{}}"]
    watch.fails(ConfigurationError, lambda: read(given.pop()))


def test_a_file_that_is_not_there(watch: Watch) -> None:
    watch.canary("client secret")
    assert not Path("nothing.json").exists()
    watch.fails(SecretNotFound, lambda: read("file:nothing.json"))
