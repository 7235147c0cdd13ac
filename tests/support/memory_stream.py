"""The event stream in memory, in the place of NATS: what a gateway's feed hears is what a test lets through.

It answers as NATS does (a position, pages, last events), and brings messages with the header block that JetStream
writes, so that the feed above it is the real one. Time is the loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from tidegate_common.bus.events.history import Position, Stored
from tidegate_common.bus.wire import headers
from tidegate_common.contract.subjects import Subjects, covers
from tidegate_common.errors import BrokerUnavailable

T = TypeVar("T")

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
        self._stored = 0
        """In all its lives."""
        self._lost: list[tuple[Stored, Sequence[str]]] = []
        """What was lost on this connection, and on which tails."""

    def publish(self, tail: str, data: str, lost: Sequence[str] = ()) -> int:
        """Stores an event. If the connection is there, it comes to all subscriptions but those of `lost` tails."""
        sequence = len(self.events) + 1
        self._stored += 1
        previous = max((event.sequence for event in self.events if event.tail == tail), default=0)
        block = headers.block(
            {
                "Tidegate-Event": "n",
                "Nats-Stream": SUBJECTS.events_stream,
                "Nats-Subject": SUBJECTS.inbound(tail),
                "Nats-Sequence": str(sequence),
                "Nats-Time-Stamp": f"2026-01-01T00:00:00.{self._stored:09}Z",
                "Nats-Last-Sequence": str(previous),
            }
        )
        self.events.append(Stored(sequence, tail, block, data.encode()))
        if self.connected:
            self._bring(self.events[-1], lambda tail: tail not in lost)
            if lost:
                self._lost.append((self.events[-1], lost))
        return sequence

    def _bring(self, event: Stored, hears: Callable[[str], bool]) -> None:
        subject = SUBJECTS.outbound(event.tail)
        for heard, deliver in list(self.client.subscriptions.values()):
            if covers(heard, subject) and hears(heard.removeprefix(SUBJECTS.outbound(""))):
                deliver(subject.encode(), event.header, event.payload)

    def bring_late(self) -> None:
        """What was lost last comes after all, as the last words of a stream's old leader do."""
        if self.connected and self._lost:
            event, lost = self._lost.pop()
            self._bring(event, lambda tail: tail in lost)

    def cut(self) -> None:
        """The connection is lost."""
        if self.connected:
            self.connected = False
            self._lost.clear()
            for listener in self.on_disconnect:
                listener()

    async def come_back(self) -> None:
        if not self.connected:
            self.connected = True
            for listener in self.on_reconnect:
                await listener()

    async def position(self) -> Position:
        return await self._answer(lambda: Position(self.epoch, 1 if self.events else 0, len(self.events)))

    patient_position = position

    async def latest(self, tails: Sequence[str], after: int, upto: int = 0) -> dict[str, int]:
        def found() -> dict[str, int]:
            asked = [event for event in self.events[after:] if any(covers(tail, event.tail) for tail in tails)]
            return {event.tail: event.sequence for event in asked}

        return await self._answer(found)

    async def after(self, tail: str, sequence: int, upto: int) -> AsyncIterator[Stored]:
        """In pages of two, so that much happens between them."""
        while sequence < upto:
            found = await self._answer(partial(self._kept, tail, sequence, upto))
            for event in found[:2]:
                yield event
                sequence = event.sequence
            if len(found) <= 2:
                return

    def _kept(self, tail: str, sequence: int, upto: int) -> list[Stored]:
        return [event for event in self.events[sequence:upto] if covers(tail, event.tail)]

    async def _answer(self, answer: Callable[[], T]) -> T:
        """A question is on its way for a moment, and so is the answer: what happens meanwhile is not in it."""
        await self._pass()
        found = answer()
        await self._pass()
        return found

    async def _pass(self) -> None:
        await asyncio.sleep(0)
        if not self.connected:
            raise BrokerUnavailable("NATS is away")
