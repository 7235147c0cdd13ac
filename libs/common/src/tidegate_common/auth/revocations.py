"""Who is not to come any more: the list that all processes have, in the bucket `TG_REVOKED` and in their memories.

A token's `iat` counts in whole seconds with most issuers. So a token that was issued in the second of its revocation
is revoked, even if it was issued after it: the next second's is good.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from heapq import nlargest

import msgspec

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.bucket import Bucket
from tidegate_common.bus.requests.bucket_copy import BucketCopy
from tidegate_common.contract.principal import Principal
from tidegate_common.contract.revocation import KINDS, Revocation, key_of
from tidegate_common.contract.soundness import read
from tidegate_common.errors import BrokerUnavailable, NotFound, Unauthenticated, Unreadable

log = logging.getLogger(__name__)

TRIES = 5
"""Of one change: somebody else may have changed the same one meanwhile."""

AT_ONCE = 64
"""Revocations that are put back at once."""

REMOVED_SECONDS = 3600
"""How long the bucket keeps the trace of one that was taken back."""

_REVOCATION = msgspec.json.Decoder(Revocation)


class Revocations:
    """The list. `check` costs some looks into dictionaries. While NATS is away, the last known list holds."""

    def __init__(self, bus: Bus, token_seconds: float, *, keeps: bool = False) -> None:
        """`token_seconds`: for how long at most a token may still be good, the leeway included.

        `keeps`: whether this process puts back what it knows, if the bucket was lost, as publisher-api alone does.
        """
        self._bus = bus
        self._bucket = Bucket(bus, bus.subjects.revoked_bucket)
        lost = self._put_back if keeps else None
        self._copy = BucketCopy(bus, bus.subjects.revoked_bucket, bus.subjects.revoked, self._changed, lost)
        self._token_seconds = token_seconds
        self._by_key: dict[str, Revocation] = {}
        self._named: dict[str, dict[str, Revocation]] = {kind: {} for kind in KINDS}
        self.on_change: list[Callable[[Sequence[Revocation]], None]] = []
        """Called with those that are new. Some may come together, after a reconnect for instance."""

    async def start(self) -> None:
        """Reads the list. Raises BrokerUnavailable."""
        await self._copy.start()

    async def run(self) -> None:
        """Keeps up until it is cancelled."""
        await self._copy.run()

    async def look_again(self) -> None:
        """The bucket may have been made anew."""
        await self._copy.look_again()

    def revoked(self, principal: Principal, client_id: str = "") -> bool:
        """Whether `principal` is not to come, or not as that client."""
        return bool(self._by_key) and any(
            found is not None and found.applies(principal, client_id)
            for found in (
                self._named["sub"].get(principal.subject),
                self._named["jti"].get(principal.token_id),
                self._named["key"].get(principal.key),
                self._named["client_id"].get(client_id or principal.client),
            )
        )

    def check(self, principal: Principal, client_id: str = "") -> None:
        """Raises Unauthenticated."""
        if self.revoked(principal, client_id):
            raise Unauthenticated("revoked", who=principal.name)

    def latest(self, most: int, named: tuple[str, str] | None = None) -> tuple[list[Revocation], int]:
        """The `most` that were made last, the newest first, and how many there are; if `named` is given, of that."""
        if named is None:
            found = list(self._by_key.values())
        else:
            found = [each for each in [self._named[named[0]].get(named[1])] if each is not None]
        now = time.time()
        there = [each for each in found if not each.until or each.until > now]
        return nlargest(most, there, key=lambda each: each.at), len(there)

    async def revoke(self, kind: str, value: str, before: float = 0.0) -> Revocation:
        """Revokes what `kind`, one of KINDS, and `value` name; `before` as a Revocation has it.

        Gives what is stored then: what an earlier one of the same revokes stays revoked. Raises BrokerUnavailable.
        """
        now, key = time.time(), key_of(kind, value)
        until = 0.0 if kind == "key" else max(now, before) + self._token_seconds
        wanted = Revocation(**{kind: value}, before=before, until=until, at=now)
        for _ in range(TRIES):
            entry = await self._bucket.get(key)
            there = self._decoded(key, entry.value) if entry and entry.value else None
            joined = there.joined(wanted) if there else wanted
            payload = msgspec.json.encode(joined)
            revision = await self._bucket.put(key, payload, entry.revision if entry else 0, _ttl(joined, now))
            if revision:
                self._copy.stored(key, payload, revision)
                return joined
        raise BrokerUnavailable("others revoke the same just now")

    async def take_back(self, kind: str, value: str) -> None:
        """Raises NotFound, BrokerUnavailable."""
        key = key_of(kind, value)
        for _ in range(TRIES):
            entry = await self._bucket.get(key)
            if entry is None or entry.value is None:
                raise _unknown(kind)
            revision = await self._bucket.remove(key, entry.revision, REMOVED_SECONDS)
            if revision:
                self._copy.stored(key, None, revision)
                return
        raise BrokerUnavailable("others revoke the same just now")

    async def _put_back(self, values: Mapping[str, bytes]) -> None:
        """Who was revoked stays so, whatever becomes of the bucket. What somebody has stored in the new one counts."""
        now = time.time()
        held = [(key, value, self._by_key[key]) for key, value in values.items() if key in self._by_key]
        there = [each for each in held if not each[2].until or each[2].until > now]
        for first in range(0, len(there), AT_ONCE):
            await asyncio.gather(
                *(self._bucket.put(key, value, 0, _ttl(of, now)) for key, value, of in there[first : first + AT_ONCE])
            )
        if there:
            log.warning("the bucket of revocations was made anew: %d were put back", len(there))

    def _changed(self, changes: Mapping[str, bytes | None]) -> None:
        new = []
        for key, value in changes.items():
            old = self._by_key.pop(key, None)
            if old is not None:
                kind, name = old.names
                del self._named[kind][name]
            found = self._decoded(key, value) if value is not None else None
            if found is not None:
                kind, name = found.names
                self._by_key[key] = self._named[kind][name] = found
                new.append(found)
        for listener in self.on_change if new else ():
            try:
                listener(new)
            except Exception:  # others have to know all the same
                log.exception("a revocation could not be acted on")

    def _decoded(self, key: str, value: bytes) -> Revocation | None:
        try:
            return read(_REVOCATION, value, lambda found: "" if found.fits(key) else "names")
        except Unreadable as error:
            self._bus.foreign.note("revocation", key, str(error))
            return None


def _ttl(revocation: Revocation, now: float) -> int | None:
    """For how many seconds it is kept; None: without an end."""
    return math.ceil(revocation.until - now) if revocation.until else None


def _unknown(kind: str) -> NotFound:
    return NotFound(f"no revocation of this {kind} is in force")
