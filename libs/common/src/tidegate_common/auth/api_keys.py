"""Keys of services, `tgk_<id>_<secret>`: a file has their SHA-256, with what each may do.

A key is looked up by its digest. No comparison in constant time is needed: whoever measures how long a lookup takes
learns of a digest, and not of the 256 random bits that it is made of. For the same reason one pass of SHA-256 will do,
where a password would need a slow hash.
"""

from __future__ import annotations

import logging
import re
import time
import tomllib
from collections.abc import Callable, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from tidegate_common.auth.claims import check_rights
from tidegate_common.auth.limits import Rate
from tidegate_common.contract.principal import Grants, JobRights, Principal
from tidegate_common.errors import InvalidField, Unauthenticated

log = logging.getLogger(__name__)

KEY = re.compile(r"tgk_([a-z0-9-]{1,32})_([A-Za-z0-9_-]{43})")
"""A key: its id, and 256 random bits in base64url."""

MOST_BYTES = 1 << 20
"""Of the file."""

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key's own limits, `rate/burst`, in place of the common ones."""

    connects: str = ""
    publishes: str = ""
    jobs: str = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[key]]`. What is missing grants nothing."""

    id: Annotated[str, Meta(pattern="^[a-z0-9-]{1,32}$")]
    sha256: Digest | Annotated[list[Digest], Meta(min_length=1)]
    """Of the whole key, in hexadecimal. Several, while a new one takes an old one's place."""
    publish: list[str] = []
    subscribe: list[str] = []
    jobs: JobRights | None = None
    admin: list[str] = []
    metrics: bool = False
    limits: Limits = Limits()
    expires: Annotated[datetime, Meta(tz=True)] | None = None

    @property
    def digests(self) -> list[str]:
        return [self.sha256] if isinstance(self.sha256, str) else self.sha256


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    key: list[Entry] = []


class Known(NamedTuple):
    """A key of the file, and whoever has it."""

    entry: Entry
    principal: Principal


KnownKeys = dict[str, Known]
"""By the digest of the key, in hexadecimal."""


class UnusableKeys(ValueError):
    """A file of keys that can't be used; says where and why."""


class ApiKeys:
    """The keys of a file as it was when it was last good."""

    def __init__(self, known: KnownKeys, clock: Callable[[], float] = time.time) -> None:
        self._known = known
        self._clock = clock
        self.on_change: list[Callable[[Mapping[Principal, Principal | None]], None]] = []
        """Called with the principals that are not good any more as they are, and the one in the place of each: None if
        its key is gone. Two keys of one id have a principal each, so they are told apart."""

    def principal(self, key: str) -> Principal:
        """Raises Unauthenticated."""
        found = self._known.get(sha256(key.encode()).hexdigest()) if KEY.fullmatch(key) else None
        if found is None:
            raise Unauthenticated("unknown")
        principal = found.principal
        if principal.expires and self._clock() >= principal.expires:
            raise Unauthenticated("expired", detail="the key has expired")
        return principal

    def of(self, key_id: str) -> list[Principal]:
        """Whoever has a key of that id: one for each of its digests."""
        return [principal for entry, principal in self._known.values() if entry.id == key_id]

    def use(self, known: KnownKeys) -> None:
        """The keys are these from now on. One that is as it was keeps its principal."""
        before = self._known
        self._known = {
            digest: before[digest] if digest in before and before[digest].entry == each.entry else each
            for digest, each in known.items()
        }
        changed: dict[Principal, Principal | None] = {}
        for digest, (_, principal) in before.items():
            now = self._known.get(digest)
            if now is None or now.principal is not principal:
                changed[principal] = now.principal if now else None
        for listener in self.on_change if changed else ():
            try:
                listener(changed)
            except Exception:  # others have to know all the same
                log.exception("keys that have changed could not be acted on")


def read(path: str) -> bytes:
    """The file as it is. Raises UnusableKeys."""
    try:
        with Path(path).open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UnusableKeys(f"it can't be read ({error.strerror})") from None


def parse(data: bytes) -> KnownKeys:
    """Of TOML, or of JSON with the same shape. Raises UnusableKeys."""
    if len(data) > MOST_BYTES:
        raise UnusableKeys(f"over {MOST_BYTES} bytes")
    try:
        if data.lstrip().startswith(b"{"):
            keys = msgspec.json.decode(data, type=Keys)
        else:
            keys = msgspec.convert(tomllib.loads(data.decode()), Keys)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnusableKeys(str(error)) from None
    found: KnownKeys = {}
    ids: set[str] = set()
    for number, entry in enumerate(keys.key):
        where = f"key[{number}]"
        if entry.id in ids:
            raise UnusableKeys(f"{where}.id: {entry.id} is there twice; several keys of one id are a list of sha256")
        ids.add(entry.id)
        for digest in entry.digests:
            if digest in found:
                raise UnusableKeys(f"{where}.sha256: the same is there twice")
            try:
                found[digest] = Known(entry, principal_of(entry, where))
            except InvalidField as error:
                raise UnusableKeys(str(error)) from None
    return found


def principal_of(entry: Entry, where: str) -> Principal:
    """Whoever has the key. Raises InvalidField."""
    check_rights(entry.admin, entry.jobs, f"{where}.")
    limits = {name: rate for name, rate in msgspec.structs.asdict(entry.limits).items() if rate}
    for name, rate in limits.items():
        try:
            Rate.of(rate)
        except ValueError as error:
            raise InvalidField(f"{where}.limits.{name}", str(error)) from None
    return Principal(
        f"key:{entry.id}",
        key=entry.id,
        subscribe=Grants.of(entry.subscribe, f"{where}.subscribe"),
        publish=Grants.of(entry.publish, f"{where}.publish"),
        jobs=entry.jobs,
        admin=frozenset(entry.admin) | ({"metrics"} if entry.metrics else frozenset()),
        limits=limits,
        expires=entry.expires.timestamp() if entry.expires else 0.0,
    )
