"""A key-value bucket of NATS: a stream that keeps the last message on each subject, which is a key (ADR-8)."""

from __future__ import annotations

from typing import NamedTuple

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.requests.jetstream import WRONG_LAST_SEQUENCE, JetStreamError
from tidegate_common.bus.wire import headers
from tidegate_common.contract.events import EXPECTED, KV_OPERATION, TTL

REMOVED = {b"DEL", b"PURGE"}


class Entry(NamedTuple):
    """What a key has. `value` is None if it was removed."""

    value: bytes | None
    revision: int


class Bucket:
    """The bucket of that name, which need not be there yet. All calls raise what those of JetStreamApi do.

    Values are read from the leader alone: a copy may be behind, and compare-and-set needs what was written last.
    """

    def __init__(self, bus: Bus, name: str) -> None:
        self._api = bus.api
        self.stream = f"KV_{name}"
        self.prefix = f"$KV.{name}."

    async def get(self, key: str) -> Entry | None:
        """None if the key was never there."""
        found = await self._api.message(self.stream, last_by_subj=f"{self.prefix}{key}")
        if found is None:
            return None
        removed = headers.field(found.block, headers.KV_OPERATION) in REMOVED
        return Entry(None if removed else found.payload, found.sequence)

    async def put(self, key: str, value: bytes, expected: int | None = None, ttl: int | None = None) -> int:
        """Sets the key, and gives its revision: 0, and nothing was set, if it is not at the revision `expected`.

        It is kept for `ttl` seconds, else as long as the bucket keeps anything. Raises TooLarge, too.
        """
        return await self._store(key, value, _kept_for(ttl), expected)

    async def create(self, key: str, value: bytes, ttl: int | None = None) -> int:
        """As `put`, if the key is not there, or was removed."""
        revision = await self.put(key, value, 0, ttl)
        if not revision:
            there = await self.get(key)
            if there is not None and there.value is None:
                revision = await self.put(key, value, there.revision, ttl)
        return revision

    async def remove(self, key: str, expected: int, ttl: int | None = None) -> int:
        """Removes the key; gives the revision, 0 if the key was not at the revision `expected`.

        The removal itself is kept for `ttl` seconds, else as long as the bucket keeps anything.
        """
        return await self._store(key, b"", {KV_OPERATION: "DEL", **_kept_for(ttl)}, expected)

    async def _store(self, key: str, value: bytes, fields: dict[str, str], expected: int | None) -> int:
        if expected is not None:
            fields[EXPECTED] = str(expected)
        try:
            return await self._api.store(f"{self.prefix}{key}", value, fields)
        except JetStreamError as error:
            if error.code in WRONG_LAST_SEQUENCE:
                return 0
            raise


def _kept_for(ttl: int | None) -> dict[str, str]:
    return {} if ttl is None else {TTL: f"{ttl}s"}
