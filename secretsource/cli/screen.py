"""Lines and tables on a terminal: coloured where rich is installed, plain everywhere else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO

__all__ = ["Screen", "printable"]

_COLOURS = {"ok": "green", "failed": "bold red", "warning": "yellow", "skipped": "dim", "note": "cyan"}


def printable(text: str) -> str:
    """The text without what steers a terminal or cannot be encoded: it may come from a file or a server."""
    return "".join(character if character.isprintable() else "�" for character in text)


class Screen:
    """Writes to a stream, which is never standard output where that is for a token or JSON."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console: Any = _console(stream)

    def line(self, text: str = "", state: str | None = None) -> None:
        text = self._encodable(text)
        if self._console is None:
            self._stream.write(f"{text}\n")  # in one piece: several threads may write
            self._stream.flush()
        else:
            self._console.print(
                text, style=_COLOURS.get(state or "", ""), markup=False, emoji=False, highlight=False, soft_wrap=True
            )

    def table(self, title: str, rows: Iterable[tuple[str, str]]) -> None:
        """Two columns: what, and how much of it."""
        shown = [(self._encodable(name), self._encodable(value)) for name, value in rows]
        self.line()
        if self._console is None:
            width = max(len(name) for name, _ in shown)
            self.line(title)
            for name, value in shown:
                self.line(f"  {name:{width}}  {value}")
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(title=title, show_header=False, title_justify="left")
        for name, value in shown:
            table.add_row(Text(name), Text(value))
        self._console.print(table)

    def _encodable(self, text: str) -> str:
        """What can be shown there: arrows and the like are not in every encoding."""
        encoding = self._stream.encoding or "utf-8"
        return printable(text).encode(encoding, "replace").decode(encoding)


def _console(stream: TextIO) -> Any:
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream)
