"""`tidegate`: reads the arguments and says what went wrong.

Exit codes: 0 done; 1 it can't be done; 2 the arguments or the environment can't be used.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence
from typing import NoReturn

from tidegate.command.fault import Fault

try:
    from tidegate.command import keys, tokens
except ModuleNotFoundError as error:  # joserfc or tomlkit: whoever only listens to events does not need them
    missing = str(error.name).partition(".")[0]
    sys.exit(f"tidegate: {missing} is missing: pip install 'tidegate[command]'")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command and exits."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        given.run(given)
    except Fault as fault:
        print(f"tidegate: {fault}", file=sys.stderr)
        sys.exit(fault.code)
    sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidegate", description="Tokens to try Tidegate with, and keys for your services."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    tokens.add(commands)
    keys.add(commands)
    secret = commands.add_parser(
        "secret",
        help="make a secret that tokens are signed with",
        description="Prints a new random secret of 43 characters, for TIDEGATE_AUTH_SECRET.",
    )
    secret.set_defaults(run=lambda _: print(secrets.token_urlsafe(32)))
    return parser
