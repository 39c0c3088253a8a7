"""The command line: secretsource token | check | put | backends | demo.

Rules: a token goes to standard output alone, all else to standard error. No option takes a secret, and nothing that
was typed is repeated in an error, since it may be one. Each failure says what to do.

Exit codes: 0 done, 2 usage or ConfigurationError, 3 BackendError, 4 TokenError, 5 unavailable or out of time,
130 interrupted, 1 anything else.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
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

__all__ = ["exit_code", "main"]

_VERBS = {
    "token": "print an access token",
    "check": "walk the way from the reference to a token, and say at each step what was found",
    "put": "write a client ID and secret where a reference points, asked for without echo",
    "backends": "list the stores that a reference may name",
    "demo": "show the main job on an embedded issuer: two changes of the secret and an outage",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = _parsed(given)
        if options.verbose:
            logging.basicConfig(format="%(name)s: %(message)s", level=logging.INFO, stream=sys.stderr)
        return int(options.run(options))
    except SecretSourceError as error:
        print(f"secretsource: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print("secretsource: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # who read us has gone; there is nobody to tell
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


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser that repeats nothing of what was typed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        known = {*_VERBS, *(name for action in self._actions for name in action.option_strings)}
        choices = message.rpartition("(choose from")
        if choices[1]:
            message = re.sub(r"'[^']*'", "'…'", choices[0]) + "".join(choices[1:])
        else:
            message = re.sub(r"'([^']*)'", lambda quoted: quoted[0] if quoted[1] in known else "'…'", message)
        self.print_usage(sys.stderr)
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(2)


def _parsed(given: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="secretsource", description="A valid OAuth 2.0 access token, without a secret in your code.")
    parser.add_argument("--version", action="version", version=f"secretsource {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    asked = next((word for word in given if word in _VERBS), None)
    for verb, summary in _VERBS.items():
        command = verbs.add_parser(verb, help=summary, description=summary[0].upper() + summary[1:] + ".")
        command.add_argument("-v", "--verbose", action="store_true", help="log what happens to standard error")
        if verb == asked:  # only its module is loaded
            import_module(f"{__name__}.{verb}").add_to(command)
    options, unknown = parser.parse_known_args(given)
    if unknown:
        _refuse(unknown, parser)
    return options


def _refuse(unknown: list[str], parser: argparse.ArgumentParser) -> NoReturn:
    names = [word.partition("=")[0] for word in unknown if re.match(r"--[a-z][a-z-]{0,30}(=|$)", word)]
    if any("secret" in name or "password" in name or "token" in name for name in names):
        print(
            "secretsource: no option takes a secret, since everybody on this machine could read it. "
            "Keep it in a store (secretsource put asks for it), and give --credentials where it is",
            file=sys.stderr,
        )
        raise SystemExit(2)
    others = len(unknown) - len(names)
    parts = [f"unknown: {', '.join(names)}"] if names else []
    parts += [f"{others} more than this command takes (not repeated here)"] if others else []
    parser.error("; ".join(parts))
