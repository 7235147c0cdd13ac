"""Writes what a handler yields as events, in order, each stored before the next is sent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec

from ai_worker.errors import JobError, OutputTooLarge
from ai_worker.fence import Fence
from ai_worker.halves import Halves
from ai_worker.handlers.handler import Work
from ai_worker.pieces import Artifact, CandidateEnd, Piece, Progress, Reasoning, Segment, Text
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.contract import answers
from tidegate_common.contract.answers import AiArtifact, AiDone, AiError, AiProgress, AiResponse, AiTranscript
from tidegate_common.contract.events import JOB, JOB_END, Event
from tidegate_common.errors import BrokerUnavailable, Superseded, TooLarge
from tidegate_common.runtime.tasks import end
from tidegate_common.telemetry import propagation

log = logging.getLogger(__name__)

T = TypeVar("T")

BACKLOG = 256
"""Pieces that may wait for the stream; a handler that is faster waits too."""

RETRY_SECONDS = 0.2

TEXT_BYTES = 60_000
"""Text whose event would be a longer line is split: lines of over 64 kB stop many a client for good."""

_ESCAPED = re.compile("[\u2028\u2029\x85]")
_GROWTH = 4
"""Bytes, at most, by which such a character grows: gateways write it as an escape."""


async def insist(action: Callable[[], Awaitable[T]], seconds: float) -> T:
    """What `action` gives, tried again while NATS is away. Raises BrokerUnavailable after `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            return await action()
        except BrokerUnavailable:
            if loop.time() >= deadline:
                raise
            await asyncio.sleep(RETRY_SECONDS)


class Pace(msgspec.Struct, frozen=True):
    """How pieces become events: what comes within `seconds` after an event goes into the next one, which is sent
    sooner once `size` characters wait. With 0 seconds each piece is an event. `patience`: how long NATS may be away.
    """

    seconds: float
    size: int
    patience: float


def merged(pieces: Iterable[Piece]) -> list[Piece]:
    """`pieces` with each run of text of one type and candidate as one, and each run of progress as its last.

    The order is kept for each candidate: those of several come mixed, and no one shows them as one text.
    """
    found: list[Piece] = []
    last: dict[int, int] = {}
    for piece in pieces:
        candidate = getattr(piece, "candidate", -1)
        place = last.get(candidate)
        before = None if place is None else found[place]
        if isinstance(piece, Text | Reasoning) and type(before) is type(piece):
            assert place is not None
            found[place] = msgspec.structs.replace(piece, content=before.content + piece.content)
        elif isinstance(piece, Progress) and isinstance(before, Progress):
            assert place is not None
            found[place] = piece
        else:
            last[candidate] = len(found)
            found.append(piece)
    return found


def _growth(piece: Piece) -> int:
    """Bytes by which a gateway makes the event of a text longer, at most."""
    if not isinstance(piece, Text | Reasoning) or piece.content.isascii():
        return 0
    return _GROWTH * len(_ESCAPED.findall(piece.content))


class Relay:
    """One attempt's events. Message ids come from job, attempt and index, so that a retried one is stored once.

    The first piece leaves at once. One event is under way at a time, so that none can overtake another; what comes
    meanwhile goes into the next, so that a slow stream makes larger events and not a longer queue.
    Only the first event and the last one carry the trace: a gateway makes a span of each event that does.
    """

    def __init__(self, publisher: EventPublisher, work: Work, tail: str, fence: Fence, pace: Pace) -> None:
        self._publisher = publisher
        self._work = work
        self._tail = tail
        self._fence = fence
        self._pace = pace
        self._halves = Halves()
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
        data = answers.AiRestart(job_id=self._work.job_id, attempt=self._work.attempt)
        await self._store(answers.RESTART, msgspec.json.encode(data), f"{self._work.attempt}:restart")

    async def put(self, piece: Piece) -> None:
        """Takes a piece, as soon as there is room. Raises TypeError, ValueError for what no handler may yield."""
        await self._room.wait()
        self.taken += isinstance(piece, Text | Reasoning)
        for each in self._halves.take(piece):
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
        for each in self._halves.flush():
            self._queue(each)
        self._enough.set()
        self._come.set()
        await self.writing

    async def drop(self) -> None:
        """Writes nothing more."""
        await end([self.writing])

    async def last(self, event_type: str, data: AiDone | AiError) -> str:
        """Writes the job's last event, once for all attempts; gives its id. Raises BrokerUnavailable, Superseded."""
        return await self._store(event_type, msgspec.json.encode(data), "end")

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
                await self._event(piece)

    def _take(self) -> list[Piece]:
        """All that waits, joined where that is to be."""
        taken = merged(self._waiting) if self._pace.seconds else list(self._waiting)
        self._waiting.clear()
        self._size = 0
        self._room.set()
        if not self._finishing:
            self._come.clear()
            self._enough.clear()
        return taken

    async def _event(self, piece: Piece) -> None:
        """Stores `piece` as one event; its text as several, where one would be too large."""
        text = isinstance(piece, Text | Reasoning) and len(piece.content) > 1
        try:
            event_type, data = self._data(piece)
            encoded = msgspec.json.encode(data)
        except Exception as error:  # what a handler has made its piece of, which another attempt would make again
            log.exception("job %s: a piece of the answer can't be written", self._work.job_id)
            raise JobError("A piece of the answer can't be written.") from error
        if not text or len(encoded) + _growth(piece) <= TEXT_BYTES:
            try:
                await self._store(event_type, encoded, f"{self._work.attempt}:{self.index}")
            except TooLarge as error:
                if not text:
                    raise OutputTooLarge(error.limit) from error
            else:
                self.index += 1
                return
        assert isinstance(piece, Text | Reasoning)
        middle = len(piece.content) // 2
        for content in (piece.content[:middle], piece.content[middle:]):
            await self._event(msgspec.structs.replace(piece, content=content))

    def _data(self, piece: Piece) -> tuple[str, msgspec.Struct]:
        job_id, index = self._work.job_id, self.index
        if isinstance(piece, Text | Reasoning):
            event_type = answers.RESPONSE if isinstance(piece, Text) else answers.REASONING
            return event_type, AiResponse(job_id=job_id, index=index, content=piece.content, candidate=piece.candidate)
        if isinstance(piece, CandidateEnd):
            return answers.RESPONSE, AiResponse(
                job_id=job_id, index=index, content="", candidate=piece.candidate, finish_reason=piece.reason
            )
        if isinstance(piece, Progress):
            return answers.PROGRESS, AiProgress(
                job_id=job_id, state="running", index=index, fraction=piece.fraction, note=piece.note
            )
        if isinstance(piece, Artifact):
            content = None if piece.content is None else base64.b64encode(piece.content).decode()
            return answers.ARTIFACT, AiArtifact(
                job_id=job_id,
                index=index,
                name=piece.name,
                media_type=piece.media_type,
                content=content,
                url=piece.url,
                final=piece.final,
                candidate=piece.candidate,
            )
        assert isinstance(piece, Segment)
        return answers.TRANSCRIPT, AiTranscript(
            job_id=job_id,
            index=index,
            segment=piece.number,
            text=piece.text,
            start=piece.start,
            end=piece.end,
            confidence=piece.confidence,
            final=piece.final,
        )

    async def _store(self, event_type: str, data: bytes, part: str) -> str:
        """Stores an event under the fence; gives its id."""
        headers = {JOB: self._work.job_id}
        if part == "end":
            headers[JOB_END] = "1"
        if not self._traced or part == "end":
            self._traced = True
            propagation.inject(headers, self._work.trace)
        event = Event(event_type, data.decode())
        message_id = f"{self._work.job_id}:{part}"

        async def store() -> str:
            receipt = await self._publisher.durable(
                self._tail, event, headers={**headers, **await self._fence.headers()}, message_id=message_id
            )
            return receipt.id

        try:
            return await insist(store, self._pace.patience)
        except Superseded:
            if not await insist(lambda: self._fence.renew(self._work.attempt), self._pace.patience):
                raise
            return await insist(store, self._pace.patience)
