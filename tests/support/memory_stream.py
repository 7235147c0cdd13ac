"""The event stream in memory, in the place of NATS: what a gateway's feed hears is what a test lets through.

It answers as NATS does (a position, pages, last events), and brings messages with the header block that JetStream
writes, so that the feed above it is the real one. Time is the loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from tidegate_common.bus.events.history import Position, Stored
from tidegate_common.bus.wire import headers
from tidegate_common.contract.subjects import Subjects, covers
from tidegate_common.errors import BrokerUnavailable

SUBJECTS = Subjects.of("tg")
Deliver = Callable[[bytes, bytes, bytes], None]


class MemoryClient:
    """The subscriptions of one connection."""

    refusing = False

    def __init__(self) -> None:
        self.subscriptions: dict[int, tuple[str, Deliver]] = {}
        self._sid = 0

    def subscribe_direct(self, subject: str, deliver: Deliver, **_: Any) -> int:
        self._sid += 1
        self.subscriptions[self._sid] = subject, deliver
        return self._sid

    def unsubscribe_direct(self, sid: int, **_: Any) -> None:
        self.subscriptions.pop(sid, None)


class MemoryStream:
    """A stream, the connection to it (a `Bus`), and what reads it (a `History`)."""

    subjects = SUBJECTS

    def __init__(self) -> None:
        self.client = MemoryClient()
        self.connected = True
        self.on_disconnect: list[Callable[[], None]] = []
        self.on_reconnect: list[Callable[[], Awaitable[None]]] = []
        self.epoch = "one"
        self.events: list[Stored] = []
        self.asked = 0
        """Requests so far."""

    def publish(self, tail: str, data: str, lost: Sequence[str] = ()) -> int:
        """Stores an event. If the connection is there, it comes to all subscriptions but those of `lost` tails."""
        sequence = len(self.events) + 1
        previous = max((event.sequence for event in self.events if event.tail == tail), default=0)
        block = headers.block(
            {
                "Tidegate-Event": "n",
                "Nats-Stream": SUBJECTS.events_stream,
                "Nats-Subject": SUBJECTS.inbound(tail),
                "Nats-Sequence": str(sequence),
                "Nats-Time-Stamp": "2026-01-01T00:00:00Z",
                "Nats-Last-Sequence": str(previous),
            }
        )
        self.events.append(Stored(sequence, tail, block, data.encode()))
        if self.connected:
            self._bring(self.events[-1], lost)
        return sequence

    def _bring(self, event: Stored, lost: Sequence[str]) -> None:
        subject = SUBJECTS.outbound(event.tail)
        for heard, deliver in list(self.client.subscriptions.values()):
            if covers(heard, subject) and heard.removeprefix(SUBJECTS.outbound("")) not in lost:
                deliver(subject.encode(), event.header, event.payload)

    def repeat(self) -> None:
        """Brings the event before the last once more: late, as the last words of a stream's old leader are."""
        if self.connected and len(self.events) > 1:
            event = self.events[-2]
            self._bring(event, ())

    def cut(self) -> None:
        """The connection is lost."""
        if self.connected:
            self.connected = False
            for listener in self.on_disconnect:
                listener()

    async def come_back(self) -> None:
        if not self.connected:
            self.connected = True
            for listener in self.on_reconnect:
                await listener()

    async def position(self) -> Position:
        await self._ask()
        return Position(self.epoch, 1 if self.events else 0, len(self.events))

    patient_position = position

    async def latest(self, tails: Sequence[str], after: int, upto: int = 0) -> dict[str, int]:
        await self._ask()
        return {
            event.tail: event.sequence
            for event in self.events[after:]
            if any(covers(tail, event.tail) for tail in tails)
        }

    async def after(self, tail: str, sequence: int, upto: int, page: int = 2) -> AsyncIterator[Stored]:
        """In pages of two, so that much happens between them."""
        while sequence < upto:
            await self._ask()
            found = [event for event in self.events[sequence:upto] if covers(tail, event.tail)]
            for event in found[:page]:
                yield event
                sequence = event.sequence
            if len(found) <= page:
                return

    async def _ask(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.connected:
            raise BrokerUnavailable("NATS is away")
