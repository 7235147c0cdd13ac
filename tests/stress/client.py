"""A client that comes back with the last id that it saw, and writes down all that it gets."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import cast
from urllib.parse import urlencode

from tests.stress.ledger import Ledger, View
from tests.stress.wire import Frame, StreamReader

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


class StressClient:
    """One client. `port` says where to connect this time."""

    def __init__(
        self, name: str, query: list[tuple[str, str]], targets: tuple[str, ...], ledger: Ledger, port: Callable[[], int]
    ) -> None:
        self.name = name
        self.view = View(targets)
        self.connected = False
        self.transport: asyncio.Transport | None = None
        self.gateway_port = 0
        """Where it is, or was last."""
        self.sequence = 0
        self.reconnects = -1
        self.refused = 0
        self.closings: Counter[str] = Counter()
        self.connects: list[float] = []
        """When it was told `connected`, on time.monotonic."""
        self.replays: list[float] = []
        """Seconds from coming back until all was there that it had missed by then; nothing where that was nothing."""
        self.on_number: Callable[[int], None] | None = None
        self.delay = DELAY_SECONDS
        self._query = urlencode([("client_id", name), *query])
        self._ledger = ledger
        self.port = port
        self._last_id: str | None = None
        self._goal: int | None = None
        self._came_back = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def complete(self) -> bool:
        """Connected, with all that was accepted so far."""
        return self.connected and self.sequence >= self._ledger.latest(self.view.targets)

    @property
    def local_port(self) -> int:
        """Its own port on the present connection, 0 where there is none."""
        name = self.transport.get_extra_info("sockname") if self.transport is not None else None
        return int(name[1]) if name else 0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Leaves for good. Raises what broke the client."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    def request(self) -> bytes:
        resume = f"Last-Event-ID: {self._last_id}\r\n" if self._last_id else ""
        return f"GET /api/sse?{self._query} HTTP/1.1\r\nHost: stress\r\n{resume}\r\n".encode()

    def take(self, frame: Frame) -> None:
        """One event of the stream, as it comes."""
        if frame.id is not None:
            self._last_id = frame.id
            self.sequence = int(frame.id.rpartition("-")[2])
        if frame.event == "connected":
            self.connected = True
            self.connects.append(time.monotonic())
            self.reconnects += 1
            if self.view.start is None:
                self.view.start = self.sequence
        elif frame.event == "gap":
            self.view.gaps += 1
        elif frame.event == "closing":
            self.closings[frame.data.partition('"reason":"')[2].partition('"')[0]] += 1
        else:
            number = int(frame.data.partition(":")[0])
            self.view.numbers.append(number)
            self.view.sequences.append(self.sequence)
            if self.on_number is not None:
                self.on_number(number)
        if self._goal is not None and self.sequence >= self._goal:
            self.replays.append(time.perf_counter() - self._came_back)
            self._goal = None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            ended: asyncio.Future[None] = loop.create_future()
            self.gateway_port = self.port()
            latest = self._ledger.latest(self.view.targets)
            if self.view.start is not None and latest > self.sequence:
                self._goal, self._came_back = latest, time.perf_counter()
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
                self.connected, self.transport, self._goal = False, None, None
            await asyncio.sleep(random.uniform(*self.delay))
