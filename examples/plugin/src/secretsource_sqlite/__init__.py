"""A backend for secretsource: client credentials in a table of an SQLite database.

sqlite://pos?database=/var/lib/app/credentials.db names the row "pos" of the table `credentials`, which has the columns
name, client_id, client_secret, client_secret_pending, client_secret_previous and version.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from secretsource import BackendUnavailable, ConfigurationError, Document, SecretNotFound, SecretReference

COLUMNS = ("client_id", "client_secret", "client_secret_pending", "client_secret_previous")


class SqliteBackend:
    """Reads one row at each token request."""

    options = frozenset({"database"})
    ttl = 0.0

    def read(self, reference: SecretReference, *, fresh: bool, timeout: float) -> Document:
        name = str(reference)
        path = reference.option("database")
        if path is None:
            raise ConfigurationError(f"{name} names no file", hint="Write sqlite://NAME?database=/path/to/file.db")
        failure = row = None
        try:
            file = f"{Path(path).absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(file, timeout=timeout, uri=True)) as database:
                query = f"SELECT version, {', '.join(COLUMNS)} FROM credentials WHERE name = ?"
                row = database.execute(query, [reference.path]).fetchone()
        except sqlite3.Error as error:
            failure = error.sqlite_errorname  # its text may hold what was read
        if failure is not None:
            raise BackendUnavailable(f"{name} cannot be read: {failure}", reference=name, store=reference.store)
        if row is None:
            hint = "Add it to the table credentials"
            raise SecretNotFound(f"no row for {name}", reference=name, store=reference.store, hint=hint)
        version, *texts = row
        fields = {name: text for name, text in zip(COLUMNS, texts, strict=True) if text}
        return Document(fields, version=str(version))
