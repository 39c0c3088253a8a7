"""The command line: secretsource token | check | put | rotate | generate | config | backends | demo.

Every command is `secretsource VERB [CLIENT] [--env E] [--config FILE]`; further options replace or complete what the
configuration says.

Rules: a token goes to standard output alone, all else to standard error. No option takes a secret. What was typed may
be one all the same, so a refusal of the arguments repeats nothing of it; later errors name the reference, the client
and the URL, once they are known to be such. Each failure says what to do.

Exit codes: 0 done, 2 usage or ConfigurationError, 3 BackendError, 4 TokenError, 5 unavailable or out of time,
130 interrupted, 1 anything else. `rotate` adds 10 to 14.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from .. import __version__
from ..errors import (
    BackendError,
    BackendUnavailable,
    ConfigurationError,
    DeadlineExceeded,
    IssuerUnavailable,
    SecretSourceError,
    TokenError,
)
from ..hardening import harden_process
from .screen import printable

__all__ = ["exit_code", "main"]

_VERBS = {
    "token": "print an access token",
    "check": "walk the way from the reference to a token, and say at each step what was found",
    "put": "write a client ID and secret where a reference points, asked for without echo",
    "rotate": "change the secret itself, at the issuer and in the store, without one failed call",
    "generate": "print a new secret",
    "config": "show what holds for a client in an environment, and where it is written",
    "backends": "list the stores that a reference may name",
    "demo": "show the main job on an embedded issuer: two changes of the secret and an outage",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. As the program itself (`arguments` None) it hardens its process."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if arguments is None:
        harden_process()
    if sys.stderr is None:  # closed: print() would write to standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    if sys.stdout is None:
        print("secretsource: standard output is closed", file=sys.stderr)
        return 1
    try:
        options = _parsed(given)
        if options.verbose:
            logging.basicConfig(format="%(name)s: %(message)s", level=logging.INFO, stream=sys.stderr)
            logging.getLogger("secretsource").setLevel(logging.DEBUG)
        code = int(options.run(options))
        if sys.stdout is not None:
            sys.stdout.flush()  # not at exit, where a failure would come too late for the exit code
        return code
    except SecretSourceError as error:
        print(f"secretsource: {printable(str(error))}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("secretsource: interrupted", file=sys.stderr)
        return 130
    except OSError as error:  # of our own output; all else is classified where it arises
        if not isinstance(error, BrokenPipeError):  # who read us has gone; there is nobody to tell
            print(f"secretsource: writing failed: {os.strerror(error.errno or 0)}", file=sys.stderr)
        _leave_output()
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except Exception as error:  # its text may hold a secret
        print(f"secretsource: unexpected {type(error).__name__}; this is a bug", file=sys.stderr)
        return 1


def exit_code(error: SecretSourceError) -> int:
    """The code with which a command ends on this error."""
    if isinstance(error, (BackendUnavailable, IssuerUnavailable, DeadlineExceeded)):
        return 5
    for kind, code in ((ConfigurationError, 2), (BackendError, 3), (TokenError, 4)):
        if isinstance(error, kind):
            return code
    return 1


def _leave_output() -> None:
    """Let the interpreter flush into nothing when it ends: what is left in the buffer would fail once more."""
    with suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that repeats nothing of what was typed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        # argparse writes what was typed in quotes, after what it has to say; the usage shows what may be chosen.
        said = re.split("['\"]", message, maxsplit=1)[0].rstrip(" :")
        print(f"{self.prog}: {said}", file=sys.stderr)
        raise SystemExit(2)

    def names(self) -> list[str]:
        """The long options it takes."""
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]


def _parsed(given: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="secretsource", description="A valid OAuth 2.0 access token, without a secret in your code.")
    parser.add_argument("--version", action="version", version=f"secretsource {__version__}")
    verbs = parser.add_subparsers(title="commands", required=True, parser_class=_Parser)
    asked = next((word for word in given if word in _VERBS), None)
    command = parser
    for verb, summary in _VERBS.items():
        added = verbs.add_parser(verb, help=summary, description=summary[0].upper() + summary[1:] + ".")
        added.add_argument("-v", "--verbose", action="store_true", help="log what happens to standard error")
        if verb == asked:  # only its module is loaded
            command = added
            import_module(f"{__name__}.{verb}").add_to(command)
    options, unknown = parser.parse_known_args(given)
    if hasattr(options, "clients"):  # argparse takes those alone that stand together
        options.clients = [*options.clients, *(word for word in unknown if not word.startswith("-"))]
        unknown = [word for word in unknown if word.startswith("-")]
    if unknown:
        command.error(_about(unknown, command.names()))
    return options


def _about(unknown: Iterable[str], known: list[str]) -> str:
    """What to say about words that no command takes."""
    names = [word.partition("=")[0] for word in unknown if word.startswith("--")]
    if any("secret" in name or "password" in name or name.endswith("token") for name in names):
        return (
            "no option takes a secret, since everybody on this machine could read it. "
            "Keep it in a store (secretsource put asks for it), and give --credentials where it is"
        )
    near = [match for name in names for match in difflib.get_close_matches(name[:40], known, n=1, cutoff=0.7)]
    meant = f". Did you mean {', '.join(dict.fromkeys(near))}?" if near else ""
    return f"it was given what it does not take (not repeated here){meant}"
