"""A stream within ASGI, for any server: the portable path, and the reference that the tests run on too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from starlette.types import Receive, Send

from gateway import frame
from gateway.hub.endings import Ending
from gateway.hub.session import Session
from tidegate_common.runtime.tasks import end

LINGER_SECONDS = 5.0
"""How long a peer that does not read may keep an ended stream. ASGI has no way to cut its connection."""


class PlainStream(Session):
    """A task writes, woken once for all that came meanwhile; others wait for the client's leaving and for the end."""

    __slots__ = ("_backlog", "_buffer", "_given_up", "_leaving", "_life", "_receive", "_size", "_started", "_wake")

    def __init__(self, receive: Receive, max_backlog_bytes: int) -> None:
        super().__init__()
        self._receive = receive
        self._backlog = max_backlog_bytes
        self._buffer: list[bytes] = []
        self._size = 0
        self._started = 0.0
        self._life: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._given_up = asyncio.Event()
        self.send = self._keep
        self._leaving: asyncio.Task[None] = asyncio.create_task(self._listen())

    async def start(self, send: Send, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Sends the response head, and from now on what `send` takes; nothing where the client has gone already."""
        if self._leaving.done():
            return
        self._started = asyncio.get_running_loop().time()
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        self._life = asyncio.create_task(self._live(send))

    async def run(self) -> None:
        """Returns when the client has gone or the stream is closed; at once for one that was never started."""
        try:
            if self._life is not None:
                await asyncio.wait([self._life])
        finally:
            await end([self._leaving] if self._life is None else [self._life, self._leaving])
            self.lost()  # a task that is cancelled before its first step has not said so

    async def _live(self, send: Send) -> None:
        """To the connection's end. Not for `run` to see: by then the stream may have been attached for a long time."""
        tasks: list[asyncio.Task[object]] = [
            asyncio.create_task(self._write(send)),
            self._leaving,
            asyncio.create_task(self._given_up.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.lost()
            await end(tasks)

    def close(self, ending: Ending, farewell: bytes) -> None:
        if self.ending is None:
            self.ending = ending
            self._keep(farewell)
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._given_up.set)

    def age_seconds(self, now: float) -> float:
        return now - self._started

    def _keep(self, chunks: bytes) -> None:
        self._buffer.append(chunks)
        self._size += len(chunks)
        if self._size > self._backlog and not self.paused:
            self.set_paused(True)
        self._wake.set()

    async def _write(self, send: Send) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            last = self.ending is not None
            body = frame.unchunk(b"".join(self._buffer))
            self._buffer.clear()
            await send({"type": "http.response.body", "body": body, "more_body": not last})
            if last:
                return
            self._size = sum(map(len, self._buffer))
            if self.paused and self._size <= self._backlog // 4:
                self.set_paused(False)

    async def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while (await self._receive())["type"] != "http.disconnect":
                pass
        if self._life is None:
            self.lost()
