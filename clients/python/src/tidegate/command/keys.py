"""`tidegate keys`: keys for your services, in the file that TIDEGATE_API_KEYS_FILE names."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import secrets
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from tomlkit.items import AoT

from tidegate.command import rights
from tidegate.command.fault import Fault
from tidegate.command.keys_file import KeysFile, entry

ID = re.compile(r"[a-z0-9-]{1,32}")
RATE = re.compile(r"[0-9]+(\.[0-9]+)?/[0-9]+")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's arguments."""
    parser = commands.add_parser("keys", help="make, list and revoke keys of services", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    making = verbs.add_parser(
        "add",
        help="make a key",
        description="Makes a key and prints it, once: the file holds only its hash. Services read the file again by "
        "themselves.",
    )
    making.add_argument("id", metavar="ID", type=_id, help="of a-z, 0-9 and -, 32 characters at most: shop, cms-2")
    _add_file(making)
    making.add_argument("--expires", metavar="DATE", type=_moment, help="good until then: 2030-01-31, or with a time")
    making.add_argument("--metrics", action="store_true", help="may read /metrics")
    making.add_argument(
        "--limit", metavar="NAME=RATE/BURST", type=_limit, action="append", help="its own limit, as publishes=100/200"
    )
    rights.add(making)
    making.set_defaults(run=lambda options: _make(making, options))
    listing = verbs.add_parser("list", help="list the keys", description="Lists the keys and what they may do.")
    _add_file(listing)
    listing.set_defaults(run=_list)
    rotating = verbs.add_parser(
        "rotate",
        help="make a new key in place of an old one",
        description="Makes another key of the same id and prints it, once. Both are good until `rotate ID --finish`.",
    )
    rotating.add_argument("id", metavar="ID", help="the key's id")
    rotating.add_argument("--finish", action="store_true", help="take the old key away")
    _add_file(rotating)
    rotating.set_defaults(run=_rotate)
    revoking = verbs.add_parser(
        "revoke", help="take a key away", description="Takes a key out of the file: services refuse it from then on."
    )
    revoking.add_argument("id", metavar="ID", help="the key's id")
    _add_file(revoking)
    revoking.set_defaults(run=_revoke)


def _make(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    key = _new_key(options.id)
    facts: dict[str, Any] = {"id": options.id, "sha256": _hash(key)}
    facts |= rights.given(parser, options)
    if options.metrics:
        facts["metrics"] = True
    if options.limit:
        facts["limits"] = dict(options.limit)
    if options.expires:
        facts["expires"] = options.expires
    with KeysFile(options.file).opened(to_change=True) as entries:
        if any(found.get("id") == options.id for found in entries):
            raise Fault(
                f"{options.file} has a key {options.id} already: choose another id, or rotate or revoke that one"
            )
        entries.append(entry(facts))
    _show(key)


def _rotate(options: argparse.Namespace) -> None:
    key = _new_key(options.id)
    with KeysFile(options.file).opened(to_change=True) as entries:
        found = entries[_place(entries, options)]
        hashes = found.get("sha256")
        known = [hashes] if isinstance(hashes, str) else list(hashes or [])
        if options.finish == (len(known) < 2):
            hint = "it has one key alone" if options.finish else "it has two keys already: finish that first (--finish)"
            raise Fault(f"{options.file}, {options.id}: {hint}")
        found["sha256"] = known[-1] if options.finish else [*known, _hash(key)]
    if not options.finish:
        _show(key)


def _list(options: argparse.Namespace) -> None:
    with KeysFile(options.file).opened() as entries:
        for found in entries:
            facts = found.unwrap()
            name = str(facts.pop("id", "?"))
            hashes = facts.pop("sha256", None)
            if isinstance(hashes, list):
                facts = {"keys": len(hashes), **facts}
            print(f"{name:<12} {'  '.join(f'{field}={_shown(value)}' for field, value in facts.items())}".rstrip())


def _revoke(options: argparse.Namespace) -> None:
    with KeysFile(options.file).opened(to_change=True) as entries:
        del entries[_place(entries, options)]


def _place(entries: AoT, options: argparse.Namespace) -> int:
    """Where the key stands. Raises Fault."""
    ids = [str(found.get("id")) for found in entries]
    if options.id not in ids:
        raise Fault(f"{options.file} has no key {options.id}; it has {', '.join(ids) or 'no keys'}")
    return ids.index(options.id)


def _new_key(key_id: str) -> str:
    return f"tgk_{key_id}_{secrets.token_urlsafe(32)}"


def _hash(key: str) -> str:
    """What the file holds of it. It is random, so one pass of SHA-256 will do."""
    return hashlib.sha256(key.encode()).hexdigest()


def _show(key: str) -> None:
    print("the key is shown this once:", file=sys.stderr)
    print(key)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(one) for one in value)
    if isinstance(value, dict):
        return "{" + " ".join(f"{name}={_shown(one)}" for name, one in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)


def _add_file(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("TIDEGATE_API_KEYS_FILE")
    parser.add_argument(
        "--file",
        metavar="FILE",
        type=Path,
        default=default,
        required=not default,
        help="the keys file, TOML; without it TIDEGATE_API_KEYS_FILE",
    )


def _id(text: str) -> str:
    if not ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no id: of a-z, 0-9 and -, 32 characters at most")
    return text


def _limit(text: str) -> tuple[str, str]:
    name, _, rate = text.partition("=")
    if name not in ("connects", "publishes", "jobs") or not RATE.fullmatch(rate):
        raise argparse.ArgumentTypeError(f"{text!r} is no limit: connects, publishes or jobs, as publishes=100/200")
    return name, rate


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date: 2030-01-31 or 2030-01-31T12:00:00Z") from None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    if found <= datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"{text} has been already")
    return found
