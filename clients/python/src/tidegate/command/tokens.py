"""`tidegate token`: a token to try with, as your own back end would make one."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey

from tidegate.command import rights
from tidegate.command.fault import Fault

LEAST_SECRET_BYTES = 32
MOST_SECONDS = 86_400.0
"""The default of TIDEGATE_AUTH_MAX_TOKEN_SECONDS."""
USUAL_SECONDS = 8 * 3600.0
MOST_NAME_BYTES = 200
RUN_SECRET = "auth.secret"
"""Where `make run AUTH=token` keeps its secret, in its data folder."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's arguments."""
    parser = commands.add_parser(
        "token",
        help="make a token to try with",
        description="Prints a token (JWT, HS256) of a user. A user always hears what is sent to them (user:SUB).",
        epilog="The secret is that of --secret-file, else of TIDEGATE_AUTH_SECRET or TIDEGATE_AUTH_SECRET_FILE (of "
        "several the first), else the one that `make run AUTH=token` has made in TIDEGATE_DATA_DIR (.data).",
    )
    parser.add_argument("sub", metavar="SUB", type=_name, help="whose token it is: your own id of the user")
    parser.add_argument("--client", metavar="ID", type=_name, help="the client id of this token's streams")
    how_long = parser.add_mutually_exclusive_group()
    how_long.add_argument("--hours", type=_positive, help="how long it is good: 8, or as long as services allow")
    how_long.add_argument("--seconds", type=_positive, help="the same in seconds")
    parser.add_argument("--secret-file", metavar="FILE", type=Path, help="a file with the secret")
    rights.add(parser)
    parser.set_defaults(run=lambda options: _print(parser, options))


def make(secret: str, sub: str, seconds: float, tidegate: Mapping[str, Any], environ: Mapping[str, str]) -> str:
    """A token of `sub`, whose claim `tidegate` is given; issuer and audience are those of the services' settings."""
    now = time.time()
    claims: dict[str, Any] = {
        "sub": sub,
        "aud": environ.get("TIDEGATE_AUTH_AUDIENCE") or "tidegate",
        "iat": int(now),
        "exp": int(now + seconds),
        "tidegate": dict(tidegate),
    }
    if issuer := environ.get("TIDEGATE_AUTH_ISSUER"):
        claims["iss"] = issuer
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(secret))


def most_seconds(environ: Mapping[str, str]) -> float:
    """The longest life of a token that services allow. Raises Fault."""
    text = environ.get("TIDEGATE_AUTH_MAX_TOKEN_SECONDS") or str(MOST_SECONDS)
    try:
        return _positive(text)
    except argparse.ArgumentTypeError as error:
        raise Fault(f"TIDEGATE_AUTH_MAX_TOKEN_SECONDS: {error}", 2) from None


def find_secret(environ: Mapping[str, str], file: Path | None) -> str:
    """The secret that tokens are signed with. Raises Fault."""
    given, named = environ.get("TIDEGATE_AUTH_SECRET", ""), environ.get("TIDEGATE_AUTH_SECRET_FILE", "")
    if file is None and given and named:
        raise Fault("TIDEGATE_AUTH_SECRET, TIDEGATE_AUTH_SECRET_FILE: one of them, not both", 2)
    if file is not None or named:
        text, where = _read(file or Path(named)), str(file or named)
    elif given:
        text, where = given, "TIDEGATE_AUTH_SECRET"
    else:
        made = Path(environ.get("TIDEGATE_DATA_DIR") or ".data") / RUN_SECRET
        if not made.exists():
            raise Fault("there is no secret: set TIDEGATE_AUTH_SECRET, or start `make run AUTH=token` here first", 2)
        text, where = _read(made), str(made)
    secret = next(filter(None, (part.strip() for part in re.split(r"[,\r\n]", text))), "")
    if len(secret.encode()) < LEAST_SECRET_BYTES:
        raise Fault(f"{where}: a secret has {LEAST_SECRET_BYTES} bytes or more (`tidegate secret` makes one)", 2)
    return secret


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Fault(f"{file} can't be read: {getattr(error, 'strerror', None) or error}", 2) from None


def _print(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    claim = rights.given(parser, options)
    if options.client:
        claim["client"] = options.client
    secret = find_secret(os.environ, options.secret_file)
    longest = most_seconds(os.environ)
    seconds = options.seconds or (options.hours or 0) * 3600 or min(USUAL_SECONDS, longest)
    if seconds > longest:
        text = f"services refuse it unless their TIDEGATE_AUTH_MAX_TOKEN_SECONDS is more than {longest:g}"
        print(f"tidegate: {text}", file=sys.stderr)
    print(make(secret, options.sub, seconds, claim, os.environ))


def _name(text: str) -> str:
    if not (0 < len(text.encode("utf-8", "replace")) <= MOST_NAME_BYTES and text.isprintable()):
        raise argparse.ArgumentTypeError(f"1 to {MOST_NAME_BYTES} bytes without control characters")
    return text


def _positive(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return found
