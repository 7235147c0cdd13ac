"""A job's events as they come: each once, in order, mended from the stream where NATS did not bring one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History, Stored
from tidegate_common.bus.events.origin import Origin
from tidegate_common.bus.jobs.events import belongs, job_events
from tidegate_common.bus.wire import headers
from tidegate_common.contract.ids import EventId
from tidegate_common.errors import BrokerUnavailable, NotFound

LOOK_SECONDS = 5.0
"""After so long without an event the stream is asked whether there is one."""

AGAIN_SECONDS = 0.5
"""Between two looks at the stream while NATS does not answer."""

PATIENCE_SECONDS = 60.0
"""NATS may be away for so long in one go."""

BACKLOG_BYTES = 1 << 20
"""What may wait for a reader; one that is slower reads the rest from the stream, page by page."""


class Following:
    """Follows jobs on one connection."""

    def __init__(self, bus: Bus, history: History, look_seconds: float = LOOK_SECONDS) -> None:
        self._bus = bus
        self._history = history
        self._look = look_seconds
        self._origin = Origin.of_events(bus.subjects)
        self._feeds: set[_Feed] = set()
        # One listener for all: one that came and went with each job would move the others while they are called.
        bus.on_disconnect.append(self._cut_off)
        bus.on_reconnect.append(self._come_back)

    @contextmanager
    def follow(
        self, job_id: str, tail: str, start: EventId, *, stored: bool = True, patience_seconds: float = PATIENCE_SECONDS
    ) -> Iterator[AsyncGenerator[Stored, None]]:
        """The events of a job whose events address `tail`, after `start` and up to the job's last one.

        What NATS brings is listened for from here on, so a job that is queued inside has no event that is `stored`
        already. Volatile events are left out. The generator raises BrokerUnavailable where NATS was away for
        `patience_seconds`, NotFound where the stream that `start` is a place in does not exist any more.
        """
        feed = _Feed(self._origin, job_id, tail, start.sequence, broken=stored)
        self._feeds.add(feed)
        sid = self._bus.client.subscribe_direct(self._bus.subjects.outbound(tail), feed.take)
        try:
            yield self._events(feed, job_id, start, patience_seconds)
        finally:
            self._bus.client.unsubscribe_direct(sid)
            self._feeds.discard(feed)

    async def _events(self, feed: _Feed, job_id: str, start: EventId, patience: float) -> AsyncGenerator[Stored, None]:
        loop = asyncio.get_running_loop()
        heard, epoch = loop.time(), start.epoch
        while True:
            if feed.broken:
                feed.mend()
                try:
                    position = await self._history.position()
                    if position.place(EventId(epoch, feed.seen)) is None:
                        raise NotFound("the stream that kept the job's events does not exist any more")
                    epoch = position.epoch
                    async for event in job_events(self._history, job_id, feed.tail, feed.seen, position.last):
                        feed.seen = event.sequence
                        yield event
                        if _is_last(event):
                            return
                except BrokerUnavailable:
                    if loop.time() - heard >= patience:
                        raise
                    feed.spoil()
                    await asyncio.sleep(AGAIN_SECONDS)
                    continue
                feed.seen = max(feed.seen, position.last)
            while (live := feed.next()) is not None:
                yield live
                if _is_last(live):
                    return
            if not feed.broken:
                await feed.wait(self._look)
            heard = loop.time()

    def _cut_off(self) -> None:
        for feed in self._feeds:
            feed.spoil()

    async def _come_back(self) -> None:
        for feed in self._feeds:
            feed.spoil()


class _Feed:
    """What NATS has brought of a tail and nobody has taken yet.

    It is `broken` where an event may be missing: then what waits is dropped, and all is read from the stream.
    """

    def __init__(self, origin: Origin, job_id: str, tail: str, seen: int, *, broken: bool) -> None:
        self._origin = origin
        self._job_id = job_id.encode()
        self._waiting: deque[tuple[int, Stored]] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self.tail = tail
        self.broken = broken
        self.seen = seen
        """Sequence up to which all events of the tail were seen, this job's or another's."""

    def take(self, subject: bytes, header: bytes, payload: bytes) -> None:
        """Called by the connection, for any event of the tail."""
        place = None if self.broken else self._origin.republished(header, subject)
        if place is None:
            return  # the stream is about to be read; or no event of the stream
        sequence, last = place
        ours = belongs(header, self._job_id)
        # Of another job's events on the tail it matters only that they were there.
        event = Stored(sequence, self.tail, header if ours else b"", payload if ours else b"")
        self._waiting.append((last, event))
        self._bytes += _size(event)
        if self._bytes > BACKLOG_BYTES:
            self.spoil()
        elif ours:
            self._wake.set()

    def next(self) -> Stored | None:
        """The job's next event, where nothing is missing before it; None for none."""
        while self._waiting and not self.broken:
            last, event = self._waiting.popleft()
            self._bytes -= _size(event)
            if event.sequence <= self.seen:
                continue
            if last > self.seen:
                self.spoil()
                return None
            self.seen = event.sequence
            if event.header:
                return event
        return None

    def spoil(self) -> None:
        self.broken = True
        self._waiting.clear()
        self._bytes = 0
        self._wake.set()

    def mend(self) -> None:
        """What comes from now on counts again: the stream is read up to a place that is asked for after this."""
        self.broken = False
        self._wake.clear()

    async def wait(self, seconds: float) -> None:
        """Until there may be something; after `seconds` without it is broken."""
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
                return
        self.broken = True


def _size(event: Stored) -> int:
    return len(event.header) + len(event.payload) + 100


def _is_last(event: Stored) -> bool:
    return headers.field(event.header, headers.JOB_END) is not None
