"""Writes what a handler yields as events, in order, each stored before the next is sent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque

import msgspec

from ai_worker.handlers.handler import Work
from ai_worker.job_errors import JobError, OutputTooLarge
from ai_worker.lease import Fence
from ai_worker.piece_events import event_of, halves, merged, too_long
from ai_worker.piece_sanitizer import PieceSanitizer
from ai_worker.pieces import Piece, Reasoning, Text
from tidegate_common.bus.events.publisher import Durable, EventPublisher
from tidegate_common.bus.requests.retry import insist
from tidegate_common.contract.answers import RESTART, AiRestart
from tidegate_common.contract.events import JOB, Event
from tidegate_common.errors import Superseded, TooLarge
from tidegate_common.runtime.tasks import end
from tidegate_common.telemetry import propagation

log = logging.getLogger(__name__)

BACKLOG = 256
"""Pieces that may wait for the stream; a handler that is faster waits too."""


class Pace(msgspec.Struct, frozen=True):
    """How pieces become events: what comes within `seconds` after an event goes into the next one, which is sent
    sooner once `size` characters wait. With 0 seconds each piece is an event. `patience`: how long NATS may be away.
    """

    seconds: float
    size: int
    patience: float


class EventWriter:
    """One attempt's events.

    One event is under way at a time: so none can overtake another, even if one has to be sent again. What comes
    meanwhile goes into the next, so that a slow stream makes larger events and not a longer queue. The first piece
    leaves at once.

    An event's message id is made of job, attempt and index. One that is sent again, since its confirmation was lost, is
    stored once. Only the first event carries the trace: a gateway makes a span of each event that does.
    """

    def __init__(self, publisher: EventPublisher, work: Work, tail: str, fence: Fence, pace: Pace) -> None:
        self._publisher = publisher
        self._work = work
        self._tail = tail
        self._fence = fence
        self._pace = pace
        self._sanitizer = PieceSanitizer()
        self._waiting: deque[Piece] = deque()
        self._size = 0
        """Characters that wait."""
        self._finishing = False
        self._come = asyncio.Event()
        """Something waits, or nothing more comes."""
        self._enough = asyncio.Event()
        """The next event is not to be waited for any longer."""
        self._room = asyncio.Event()
        self._room.set()
        self._traced = False
        self.index = 0
        """Of the next event."""
        self.taken = 0
        """Pieces of text taken from the handler."""
        self.writing = asyncio.create_task(self._write())
        """Ends after `finish`. Raises BrokerUnavailable (NATS was away for too long), Superseded, and JobError for a
        piece that can't be written."""

    async def restart(self) -> None:
        """Says that an earlier attempt's events are void. Raises BrokerUnavailable, Superseded."""
        data = AiRestart(job_id=self._work.job_id, attempt=self._work.attempt)
        await self._event(RESTART, msgspec.json.encode(data), "restart")

    async def put(self, piece: Piece) -> None:
        """Takes a piece, as soon as there is room. Raises TypeError, ValueError for what no handler may yield."""
        await self._room.wait()
        self.taken += isinstance(piece, Text | Reasoning)
        for each in self._sanitizer.take(piece):
            self._queue(each)

    def _queue(self, piece: Piece) -> None:
        self._waiting.append(piece)
        if len(self._waiting) >= BACKLOG:
            self._room.clear()
            self._enough.set()
        if isinstance(piece, Text | Reasoning):
            self._size += len(piece.content)
            if self._size >= self._pace.size:
                self._enough.set()
        self._come.set()

    async def finish(self) -> None:
        """Writes what waits; takes nothing more. Raises as `writing` does."""
        self._finishing = True
        for each in self._sanitizer.flush():
            self._queue(each)
        self._enough.set()
        self._come.set()
        await self.writing

    async def drop(self) -> None:
        """Writes nothing more."""
        await end([self.writing])

    async def store(self, event: Durable) -> str:
        """Stores an event under the fence; gives its id. Raises BrokerUnavailable, Superseded, TooLarge."""

        async def once() -> str:
            headers = {**(event.headers or {}), **await self._fence.headers()}
            return (
                await self._publisher.durable(event.tail, event.event, headers=headers, message_id=event.message_id)
            ).id

        try:
            return await insist(once, self._pace.patience)
        except Superseded:
            # By a later attempt's fence, or by none: the stream's limits may have dropped this one's.
            if not await insist(self._fence.renew, self._pace.patience):
                raise
            return await insist(once, self._pace.patience)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        next_at = 0.0
        while True:
            await self._come.wait()
            if not self._waiting:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(next_at):
                    await self._enough.wait()
            next_at = loop.time() + self._pace.seconds
            for piece in self._take():
                await self._piece(piece)

    def _take(self) -> list[Piece]:
        """All that waits, joined if there is a window."""
        taken = merged(self._waiting) if self._pace.seconds else list(self._waiting)
        self._waiting.clear()
        self._size = 0
        self._room.set()
        if not self._finishing:
            self._come.clear()
            self._enough.clear()
        return taken

    async def _piece(self, piece: Piece) -> None:
        """Stores `piece` as one event, or a text as several if one would be too large."""
        try:
            event_type, data = event_of(piece, self._work.job_id, self.index)
            encoded = msgspec.json.encode(data)
        except Exception as error:  # what a handler has made its piece of, which another attempt would make again
            log.exception("job %s: a piece of the answer can't be written", self._work.job_id)
            raise JobError("A piece of the answer can't be written.") from error
        parts = halves(piece)
        if not parts or not too_long(piece, encoded):
            try:
                await self._event(event_type, encoded, str(self.index))
            except TooLarge as error:
                if not parts:
                    raise OutputTooLarge(error.limit) from error
            else:
                self.index += 1
                return
        for part in parts:
            await self._piece(part)

    async def _event(self, event_type: str, data: bytes, part: str) -> None:
        headers = {JOB: self._work.job_id}
        if not self._traced:
            self._traced = True
            propagation.inject(headers, self._work.trace)
        message_id = f"{self._work.job_id}:{self._work.attempt}:{part}"
        await self.store(Durable(self._tail, Event(event_type, data.decode()), message_id, headers=headers))
