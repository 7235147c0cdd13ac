"""A client of a job's own stream, that comes back with its last id until it is told to stay away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import cast

from tests.stress.answers.accounts import Seen, Wanted
from tests.stress.wire import Frame, StreamReader

DELAY_SECONDS = (0.02, 0.3)
"""Before coming back."""


class _Connection(asyncio.Protocol):
    def __init__(self, watcher: Watcher, ended: asyncio.Future[None]) -> None:
        self._watcher = watcher
        self._ended = ended
        self.reader = StreamReader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._watcher.request())

    def data_received(self, data: bytes) -> None:
        for frame in self.reader.feed(data):
            self._watcher.take(frame)
        if self._transport is not None and (self.reader.ended or self.reader.status not in (0, 200)):
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


class Watcher:
    """`port` says where to connect this time."""

    def __init__(self, wanted: Wanted, port: Callable[[], int]) -> None:
        self.seen = Seen(wanted)
        self.told_away = False
        """The gateway answered 204: nothing more is to be had."""
        self.refused: dict[int, int] = {}
        self.reconnects = -1
        self.connected = False
        self.transport: asyncio.Transport | None = None
        self._port = port
        self._last_id: str | None = None
        self._task = asyncio.create_task(self._run())

    @property
    def done(self) -> bool:
        return self._task.done()

    @property
    def local_port(self) -> int:
        name = self.transport.get_extra_info("sockname") if self.transport is not None else None
        return int(name[1]) if name else 0

    def request(self) -> bytes:
        resume = f"Last-Event-ID: {self._last_id}\r\n" if self._last_id else ""
        return f"GET /api/sse/jobs/{self.seen.wanted.job_id} HTTP/1.1\r\nHost: localhost\r\n{resume}\r\n".encode()

    def take(self, frame: Frame) -> None:
        if frame.id is not None:
            self._last_id = frame.id
        if frame.event == "gap":
            self.seen.gaps += 1
        elif frame.event == "connected":
            self.connected = True
        elif frame.event not in ("closing", "ai_progress"):
            self.seen.frames.append(frame)

    async def stop(self) -> None:
        """Raises what broke the watcher."""
        if not self._task.done():
            self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.told_away:
            ended: asyncio.Future[None] = loop.create_future()
            try:
                transport, connection = await loop.create_connection(
                    lambda ended=ended: _Connection(self, ended),  # type: ignore[misc]
                    "127.0.0.1",
                    self._port(),
                )
                self.transport = transport
                await ended
                status = connection.reader.status
                self.told_away = status == 204
                self.reconnects += status == 200
                if status not in (0, 200, 204):
                    self.refused[status] = self.refused.get(status, 0) + 1
            except OSError:
                pass
            finally:
                if self.transport is not None:
                    self.transport.abort()
                    self.transport = None
            if not self.told_away:
                await asyncio.sleep(random.uniform(*DELAY_SECONDS))
