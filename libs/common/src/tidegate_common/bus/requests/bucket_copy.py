"""A bucket as one process has it in its memory: read as a whole, and kept up by what the bucket's stream republishes.

A message that was only published tells nothing: the stream may have refused it. What is republished was stored, and
names its place. All messages of the stream are the bucket's, so their places have no holes, and whoever finds one reads
the bucket again. That is done after each reconnect too, and now and then it is asked what is last (lookout.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import msgspec

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.origin import Origin
from tidegate_common.bus.requests.bucket import REMOVED
from tidegate_common.bus.requests.lookout import Lookout
from tidegate_common.bus.requests.pages import Pages
from tidegate_common.bus.requests.retry import RETRY_SECONDS, insist
from tidegate_common.bus.wire import headers
from tidegate_common.errors import BrokerUnavailable

START_SECONDS = 60.0
"""How long a starting process waits for the bucket: another one may have to make it first."""

READ_SECONDS = 60.0
"""How long reading all of it may take. In a cluster a copy may be behind its leader: then it is read again."""

ALL = ">"
"""What is asked for. All messages of the stream are the bucket's; with its own subjects for a filter the server takes
ten times as long, which makes 20 seconds for 50,000 keys (measured)."""

PAGE = 1000
"""Keys that are asked for at once."""


class _State(msgspec.Struct):
    last_seq: int = 0
    messages: int = 0


class _Info(msgspec.Struct):
    created: str
    state: _State


class _Change(NamedTuple):
    sequence: int
    key: str
    value: bytes | None


class BucketCopy:
    """`values` are those that were stored last, as far as NATS could be asked: while it is away they stay."""

    def __init__(
        self,
        bus: Bus,
        bucket: str,
        republished: Callable[[str], str],
        changed: Callable[[Mapping[str, bytes | None]], None],
        lost: Callable[[Mapping[str, bytes]], Awaitable[None]] | None = None,
    ) -> None:
        """`republished` gives the subject on which the stream republishes a key.

        `changed` is called with the keys that have another value now, None for those that have none.

        `lost` puts back what the bucket had, if it was made anew: by one service alone.
        """
        self.values: dict[str, bytes] = {}
        self._bus = bus
        self._stream, self._prefix = f"KV_{bucket}", f"$KV.{bucket}."
        self._heard_on = republished("*")
        self._skip = len(republished(""))
        self._origin = Origin(self._stream, self._prefix, republished(""))
        self._pages = Pages(bus, self._stream, self._prefix)
        self._changed = changed
        self._lost = lost
        self._created = ""
        """When the bucket was made that was read last."""
        self._upto = 0
        """Everything up to this place of the stream is in `values`."""
        self._waiting: list[_Change] | None = None
        """What is heard while the bucket is read."""
        self._lookout = Lookout(bus, f"the bucket {bucket}", self._look)

    async def start(self, seconds: float = START_SECONDS) -> None:
        """Returns when the bucket was read. Raises BrokerUnavailable after `seconds`."""
        # Before it is read: what is stored from now on is heard.
        self._bus.client.subscribe_direct(self._heard_on, self._hear)
        await insist(self._read, seconds)
        self._bus.on_reconnect.append(self.look_again)

    async def run(self) -> None:
        """Keeps up until it is cancelled."""
        await self._lookout.run()

    def stored(self, key: str, value: bytes | None, sequence: int) -> None:
        """This process has stored it itself, and need not wait until it hears of that."""
        self._take(_Change(sequence, key, value))

    async def look_again(self) -> None:
        """The bucket may be another now, or have more."""
        self._lookout.lacks()

    def _hear(self, subject: bytes, block: bytes, payload: bytes) -> None:
        place = self._origin.republished(block, subject)
        if place is not None:
            removed = headers.field(block, headers.KV_OPERATION) in REMOVED
            self._take(_Change(place[0], subject[self._skip :].decode(), None if removed else payload))

    def _take(self, change: _Change) -> None:
        if self._waiting is not None:
            self._waiting.append(change)
        elif change.sequence == self._upto + 1:
            self._upto = change.sequence
            self._replace({change.key: change.value})
        elif change.sequence > self._upto:
            self._lookout.lacks()

    async def _look(self, behind: bool) -> None:
        """Reads, if the leader has stored more, or if something's time is over there."""
        state = (await self._info()).state
        if behind or state.last_seq != self._upto or state.messages < len(self.values):
            await self._read()

    async def _info(self) -> _Info:
        return msgspec.convert(await self._bus.api.call(f"STREAM.INFO.{self._stream}"), _Info)

    async def _read(self) -> None:
        """Reads all of it. Raises BrokerUnavailable."""
        created = (await self._info()).created
        if self._lost is not None and self._created not in ("", created):
            await self._lost(dict(self.values))
        self._created = created
        waiting: list[_Change] = []
        self._waiting = waiting
        try:
            async with asyncio.timeout(READ_SECONDS):
                while True:
                    state = (await self._info()).state
                    last = await self._bus.api.message(self._stream, last_by_subj=ALL)
                    values, upto = await self._all()
                    if last is None or upto >= last.sequence:
                        break
                    await asyncio.sleep(RETRY_SECONDS)  # a copy that is behind, or the last one's time is over
        except TimeoutError:
            raise BrokerUnavailable("no copy of the bucket has all of it") from None
        finally:
            self._waiting = None
        # What was stored before `last` and is not there any more had its time.
        self._upto = max(upto, state.last_seq)
        gone = {key: None for key in self.values if key not in values}
        self._replace({**gone, **{key: value for key, value in values.items() if self.values.get(key) != value}})
        for change in waiting:
            self._take(change)

    async def _all(self) -> tuple[dict[str, bytes], int]:
        """All values, by their keys, and the place of the last message."""
        values: dict[str, bytes] = {}
        upto, left = 0, 1
        while left:
            ask = {"seq": upto + 1, "next_by_subj": ALL, "batch": PAGE}
            page = await self._pages.page(ask)
            for each in page.events:
                if headers.field(each.header, headers.KV_OPERATION) in REMOVED:
                    values.pop(each.tail, None)
                else:
                    values[each.tail] = each.payload
                upto = each.sequence
            left = page.left
        return values, upto

    def _replace(self, changes: Mapping[str, bytes | None]) -> None:
        for key, value in changes.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        if changes:
            self._changed(changes)
