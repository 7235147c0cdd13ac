"""Reads a job's own stream within the gateway, for surfaces that make their answers of a job's events.

A reader is a client as a browser is, but for the socket: its session listens to the job's filtered tail. The hub may
end that session before the job's end (`slow`: the backlog is full; `feed`: the stream gives nothing, or is another).
Then the reader attaches again from the last id that it has. So one engine finds holes, repairs them and replays.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec

from gateway import frame
from gateway.feed.attachment import Attachments
from gateway.hub.endings import Ending
from gateway.hub.session import Session
from gateway.hub.tails import filtered
from tidegate_common.bus.requests.retry import insist
from tidegate_common.contract.ids import EventId
from tidegate_common.errors import BrokerUnavailable, NotFound
from tidegate_common.runtime.tasks import end

PATIENCE_SECONDS = 60.0
"""NATS may be away for so long in one go."""

LOOKS = 12
"""In that time, whether it is."""

BACKLOG_BYTES = 1 << 20
"""What may wait for whoever reads. The rest is read from the stream when there is room."""

EVENT_BYTES = 100
"""What an event costs beside its data."""


class _Gap(msgspec.Struct):
    reason: str


_GAP = msgspec.json.Decoder(_Gap)


class JobReader:
    """A job's events, each once and in order, until the job ends: an async context manager, for one task to read."""

    def __init__(
        self,
        attachments: Attachments,
        tail: str,
        job_id: str,
        since: str = "",
        ends_at: int = 0,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Reads what comes after the id `since`, or from now on. `ends_at` is the sequence of the last event of a job
        that has ended: it may have left the stream.
        """
        self._attachments = attachments
        self._tail = filtered(tail, job_id)
        self._place = since.encode()
        """The last id; empty while there is none."""
        self._ends_at = ends_at
        self._patience = patience_seconds
        self._session = _ReaderSession(self._take)
        self._waiting: deque[frame.ParsedEvent] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._attached = False
        self._well = 0.0, b""
        """When, and at which place, nothing but the reading itself was waited for."""
        self._error: Exception | None = None
        self.ended = False
        """The job has ended: nothing comes any more but what waits here."""

    async def __aenter__(self) -> JobReader:
        self._task = asyncio.create_task(self._attend())
        self._look()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._timer.cancel()
        self._session.lost()
        await end([self._task])

    async def attached(self) -> None:
        """Returns as soon as nothing that is stored from now on can be missed. Raises BrokerUnavailable."""
        while not self._attached:
            await self._change()

    async def events(self) -> AsyncIterator[tuple[str, bytes]]:
        """Types and data of the job's events.

        Raises BrokerUnavailable if NATS is away for too long, NotFound if the stream that kept the events is gone.
        """
        while True:
            while self._waiting:
                event = self._waiting.popleft()
                self._size -= len(event.data) + EVENT_BYTES
                if self._session.paused and self._size <= BACKLOG_BYTES // 4:
                    self._session.set_paused(False)
                yield (event.event_type or b"message").decode(), event.data
            if self.ended and self._error is None:
                return
            await self._change()

    async def _change(self) -> None:
        """Returns when there is something new. Raises what keeps the reader from going on."""
        if self._error is not None:
            raise self._error
        self._news.clear()
        await self._news.wait()

    async def _attend(self) -> None:
        """Attached until the job has ended."""
        try:
            while not self.ended:
                # Without a place nothing has begun: whoever asks is refused at once, and may ask again.
                await insist(self._attach, self._patience if self._place else 0)
                await self._session.over
                self.ended = self._session.ending is Ending.DONE
        except Exception as error:
            self._error = error
        self._news.set()

    async def _attach(self) -> None:
        """Attaches with a session of its own. Returns when that is live, or has ended. Raises BrokerUnavailable."""
        self._session = _ReaderSession(self._take)
        place = self._place.decode() or None
        # Not as a last event id: nobody counts a reader among the clients that have come back.
        await self._attachments.attach(
            self._session, [self._tail], None, self._start, self._welcome, place, self._ends_at
        )

    async def _start(self) -> None:
        # A reader that was too slow may be so still. It attaches at once all the same, since presence counts sessions.
        # The replay waits for room, and if there is none for long the hub ends this session too.
        self._session.set_paused(self._size > BACKLOG_BYTES)

    def _welcome(self, position: EventId, _: bool) -> bytes:
        self._place = str(position).encode()
        self._attached = True
        self._news.set()
        return b""

    def _take(self, chunks: bytes) -> None:
        """Called by the hub and by replays, as a socket's write."""
        for event in frame.events(chunks):
            if event.event_type == b"gap":  # ours: no job may name its events so
                # What has `expired` may have been others' events alone. If it was the job's, its indexes show it.
                if _GAP.decode(event.data).reason == "epoch":
                    self._error = NotFound("the stream that kept the job's events does not exist any more")
                continue
            # An event without an id is late: the place is that of a later one.
            self._place = event.event_id or self._place
            self._waiting.append(event)
            self._size += len(event.data) + EVENT_BYTES
        if self._size > BACKLOG_BYTES:
            self._session.set_paused(True)
        self._news.set()

    def _look(self) -> None:
        """Gives up if the stream has given nothing for too long. A session is held while NATS is away."""
        loop, session = asyncio.get_running_loop(), self._session
        live = session.held is None and session.ending is None
        when, place = self._well
        if live or self._waiting or place != self._place:
            self._well = loop.time(), self._place
        elif loop.time() - when >= self._patience:
            self._error = BrokerUnavailable("NATS has given nothing of the job's events for too long")
            self._news.set()
        self._timer = loop.call_later(self._patience / LOOKS, self._look)


class _ReaderSession(Session):
    """One attachment of a reader."""

    __slots__ = ("over",)

    connection = False

    def __init__(self, take: Callable[[bytes], object]) -> None:
        super().__init__()
        self.send = take
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the session is gone from the hub."""

    def close(self, ending: Ending, farewell: bytes) -> None:
        if self.ending is None:
            self.ending = ending
            # Later, as a socket does: whoever ends sessions may be walking over them.
            asyncio.get_running_loop().call_soon(self.lost)

    def lost(self) -> None:
        super().lost()
        if not self.over.done():
            self.over.set_result(None)
