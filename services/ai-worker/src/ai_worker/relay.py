"""Writes what a handler yields as events, in order, each stored before the next is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from ai_worker.handlers.handler import Work
from ai_worker.pieces import Reasoning, Text
from tidegate_common.bus.publishing import Publisher
from tidegate_common.contract.answers import AiDone, AiError, AiResponse, AiRestart
from tidegate_common.contract.events import Event
from tidegate_common.contract.jobs import Usage
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.runtime.tasks import end
from tidegate_common.telemetry import propagation

T = TypeVar("T")

BACKLOG = 256
"""Pieces that may wait for the stream; a handler that is faster waits too."""

RETRY_SECONDS = 0.2

Last = AiDone | AiError


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


class Relay:
    """One attempt's events. Message ids come from job, attempt and index, so that a retried one is stored once.

    The first piece leaves at once; what comes within `window` seconds after an event goes into the next one
    together, as long as it is of one type. A window of 0 makes each piece an event.
    Only the first event and the last one carry the trace: a gateway makes a span of each event that does.
    """

    def __init__(self, publisher: Publisher, work: Work, tail: str, *, window: float, patience: float) -> None:
        self._publisher = publisher
        self._work = work
        self._tail = tail
        self._window = window
        self._patience = patience
        self._pieces: asyncio.Queue[Text | Reasoning | Last] = asyncio.Queue(BACKLOG)
        self.index = 0
        self.taken = 0
        """Pieces taken from the handler."""
        self.writing = asyncio.create_task(self._write())
        """Ends after the last event. Raises BrokerUnavailable where NATS was away for longer than `patience`."""

    async def restart(self) -> None:
        """Says that an earlier attempt's events are void. Raises BrokerUnavailable."""
        data = AiRestart(job_id=self._work.job_id, attempt=self._work.attempt)
        await self._store("ai_restart", data, "restart", traced=False)

    async def put(self, piece: Text | Reasoning) -> None:
        """Takes a piece, as soon as there is room."""
        await self._pieces.put(piece)
        self.taken += 1

    async def done(self, reason: str, usage: Usage) -> None:
        """Writes what waits and then the answer's last event. Raises BrokerUnavailable."""
        await self._end(AiDone(job_id=self._work.job_id, index=0, finish_reason=reason, usage=usage))

    async def failed(self, code: str, message: str) -> None:
        """Writes what waits and then `ai_error`. Raises BrokerUnavailable."""
        await self._end(AiError(job_id=self._work.job_id, code=code, message=message))

    async def drop(self) -> None:
        """Writes nothing more."""
        await end([self.writing])

    async def _end(self, last: Last) -> None:
        putting = asyncio.create_task(self._pieces.put(last))
        await asyncio.wait({putting, self.writing}, return_when=asyncio.FIRST_COMPLETED)
        putting.cancel()  # only where writing failed; it took the last event otherwise
        await self.writing

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        piece = await self._pieces.get()
        while not isinstance(piece, AiDone | AiError):
            after: Text | Reasoning | Last | None = None
            content = [piece.content]
            while self._window and after is None and not self._pieces.empty():
                following = self._pieces.get_nowait()
                if type(following) is type(piece):
                    content.append(following.content)
                else:
                    after = following
            next_at = loop.time() + self._window
            await self._content(type(piece), "".join(content))
            if after is None:
                after = await self._pieces.get()
                if not isinstance(after, AiDone | AiError) and self._window and loop.time() < next_at:
                    await asyncio.sleep(next_at - loop.time())
            piece = after
        await self._last(piece)

    async def _content(self, kind: type[Text | Reasoning], content: str) -> None:
        data = AiResponse(job_id=self._work.job_id, index=self.index, content=content)
        event_type = "ai_response" if kind is Text else "ai_reasoning"
        await self._store(event_type, data, str(self.index), traced=self.index == 0)
        self.index += 1

    async def _last(self, last: Last) -> None:
        if isinstance(last, AiDone):
            await self._store(
                "ai_response", msgspec.structs.replace(last, index=self.index), str(self.index), traced=True
            )
        else:
            await self._store("ai_error", last, "error", traced=True)

    async def _store(self, event_type: str, data: msgspec.Struct, part: str, *, traced: bool) -> None:
        headers: dict[str, str] = {}
        if traced:
            propagation.inject(headers, self._work.trace)
        event = Event(event_type, msgspec.json.encode(data).decode())
        message_id = f"{self._work.job_id}:{self._work.attempt}:{part}"
        await insist(
            lambda: self._publisher.durable(self._tail, event, headers=headers, message_id=message_id), self._patience
        )
