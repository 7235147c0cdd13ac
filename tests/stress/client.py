"""A lean client that comes back at once with the last id that it saw: a thousand of them run in this process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import cast
from urllib.parse import urlencode

from tests.stress.ledger import Ledger
from tests.stress.listener import Listener, Listening
from tests.stress.wire import StreamReader

DELAY_SECONDS = (0.02, 0.3)
"""Before coming back."""


class _Connection(asyncio.Protocol):
    def __init__(self, client: StressClient, ended: asyncio.Future[None]) -> None:
        self._client = client
        self._ended = ended
        self._reader = StreamReader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._client.request())

    def data_received(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            self._client.take(frame)
        if self._transport is not None and (self._reader.ended or self._reader.status not in (0, 200)):
            self._client.refused += self._reader.status not in (0, 200)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


class StressClient(Listener):
    """It ignores `retry:`, so that it is back before its gateway has forgotten it. `leave` keeps it away."""

    def __init__(self, name: str, listening: Listening, ledger: Ledger, port: Callable[[], int]) -> None:
        super().__init__(name, listening, ledger, port)
        self.transport: asyncio.Transport | None = None
        self.delay = DELAY_SECONDS
        self._query = urlencode(listening.query(name))
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    def leave(self) -> None:
        """Goes, and stays away until it is told to come back."""
        self._wanted.clear()
        if self.transport is not None:
            self.transport.abort()

    def come_back(self, last_id: str | None = None) -> None:
        """With another last id than its own, where one is given."""
        self.last_id = last_id or self.last_id
        self._wanted.set()

    def request(self) -> bytes:
        resume = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        return f"GET /api/sse?{self._query} HTTP/1.1\r\nHost: localhost\r\n{resume}\r\n".encode()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            ended: asyncio.Future[None] = loop.create_future()
            self.gateway_port = self.port()
            self.coming()
            try:
                connection = await loop.create_connection(
                    lambda ended=ended: _Connection(self, ended),  # type: ignore[misc]
                    "127.0.0.1",
                    self.gateway_port,
                )
                self.transport = connection[0]
                await ended
            except OSError:
                pass
            finally:
                if self.transport is not None:
                    self.transport.abort()
                self.transport = None
                self.gone()
            await asyncio.sleep(random.uniform(*self.delay))
