"""What a first try with tokens needs: a secret of this run's own, and a token that may do everything."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tidegate.command import tokens
from tidegate.command.fault import Fault as NoSecret
from tidegate.command.rights import everything

SECRETS = ("TIDEGATE_AUTH_SECRET", "TIDEGATE_AUTH_SECRET_FILE")
GIVEN = (*SECRETS, "TIDEGATE_AUTH_KEYS", "TIDEGATE_AUTH_JWKS_URL")
"""Whoever sets one of these has tokens of their own."""
COMMAND = os.path.relpath(Path(sys.executable).with_name("tidegate"))
USER = "me"
HOURS = 12


def own_secret(environ: Mapping[str, str], data: Path) -> Path | None:
    """The file of a secret that this run makes itself; None if it needs none."""
    needed = environ.get("TIDEGATE_AUTH") == "token" and not any(environ.get(name) for name in GIVEN)
    return data / tokens.RUN_SECRET if needed else None


def keep(secret: Path) -> None:
    """Makes the file, for its owner alone. One that is there stays: its tokens are still good after a restart."""
    with contextlib.suppress(FileExistsError):
        made = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(made, "w") as file:
            file.write(f"{secrets.token_urlsafe(32)}\n")


class Development(NamedTuple):
    """A token of USER with every right."""

    token: str
    hours: float

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Development | None:
        """None if tokens are made elsewhere."""
        if not any(environ.get(name) for name in SECRETS):
            return None  # the secret of an earlier run may still be there, and count no more
        try:
            seconds = min(HOURS * 3600, tokens.most_seconds(environ))
            made = tokens.make(tokens.find_secret(environ, None), USER, seconds, everything(), environ)
        except NoSecret:
            return None
        return cls(made, seconds / 3600)
