"""The rights that a token or a key gets: their options, and what is made of them."""

from __future__ import annotations

import argparse
from typing import Any

ADMIN = ("dead", "events", "kick", "metrics", "ops", "presence", "revoke")
EVERYTHING = ["user:*", "client:*", "topic:>", "broadcast", "jobs:*"]
LISTS = ("subscribe", "publish", "admin")
LIMITS = ("kinds", "models", "max_tokens", "concurrent", "tokens_per_day")
GRANTS = "user:ID, client:ID, topic:PATTERN, broadcast or jobs:*"


def add(parser: argparse.ArgumentParser) -> None:
    """The options of `given` below."""
    rights = parser.add_argument_group("rights", "What is not named is not allowed. An option can be given again.")
    rights.add_argument("--subscribe", metavar="GRANT", type=_grant, action="append", help=f"may listen to: {GRANTS}")
    rights.add_argument("--publish", metavar="GRANT", type=_grant, action="append", help="may publish to")
    rights.add_argument("--jobs", action="store_true", help="may ask for jobs and completions")
    rights.add_argument("--kinds", metavar="NAMES", type=_names, help="only jobs of these kinds, comma separated")
    rights.add_argument("--models", metavar="NAMES", type=_names, help="only these models, comma separated")
    rights.add_argument("--max-tokens", metavar="N", type=_count, help="tokens of one answer at most")
    rights.add_argument("--concurrent", metavar="N", type=_count, help="jobs at once at most")
    rights.add_argument("--tokens-per-day", metavar="N", type=_count, help="tokens a day at most; wants --max-tokens")
    rights.add_argument(
        "--admin", metavar="NAME", choices=ADMIN, action="append", help=f"may administer: {', '.join(ADMIN)}"
    )
    rights.add_argument("--all", action="store_true", help="every right there is")


def given(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, Any]:
    """The rights that `options` name, as a token's claim and a keys file hold them. Exits if they do not fit."""
    limits = {name: found for name in LIMITS if (found := getattr(options, name)) is not None}
    rights: dict[str, Any] = {name: found for name in LISTS if (found := getattr(options, name))}
    if options.jobs or limits:
        rights["jobs"] = limits
    if options.all and rights:
        parser.error(f"--all is every right, without a limit: leave out {', '.join(rights)}")
    if "tokens_per_day" in limits and "max_tokens" not in limits:
        parser.error("--tokens-per-day wants --max-tokens too: so much is set aside for each answer before it begins")
    return everything() if options.all else rights


def everything() -> dict[str, Any]:
    """Every right there is."""
    return {"subscribe": list(EVERYTHING), "publish": EVERYTHING[:-1], "jobs": {}, "admin": list(ADMIN)}


def _grant(text: str) -> str:
    kind, _, name = text.partition(":")
    if text in ("broadcast", "jobs:*") or (kind in ("user", "client", "topic") and name):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is no grant: {GRANTS}")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError("names, comma separated")
    return names


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)
