"""A lean client that comes back at once with the last id that it saw: a thousand of them run in this process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
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
            self._client.answered(self._reader.status)
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
        self.status = 0
        """Of the last refusal."""
        self.token: Callable[[], str] | None = None
        """Asked before each attempt, where services want one."""
        self.ticket: Callable[[str], Awaitable[str]] | None = None
        """Makes a ticket with a token, for a client that can send no header."""
        self._query = self._names = urlencode(listening.query(name))
        self._fields = ""
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

    def come_once(self) -> None:
        """It does not come back when its present connection ends."""
        self._wanted.clear()

    def come_back(self, last_id: str | None = None) -> None:
        """With another last id than its own, where one is given."""
        self.last_id = last_id or self.last_id
        self._wanted.set()

    def show(self, ticket: str) -> None:
        """It comes with `ticket` alone, which says what it hears."""
        self._query = f"ticket={ticket}&_={self.name}" if ticket else self._names

    def answered(self, status: int) -> None:
        """Its attempt has been refused, or its stream is over."""
        if status not in (0, 200):
            self.refused += 1
            self.status = status
        if status == 401:
            self._query = self._names  # a ticket that is good no more

    async def _sign(self) -> None:
        """What the next attempt says of who it is: another token each time, or a ticket for as long as that is good."""
        if self.token is None:
            return
        if self.ticket is None:
            self._fields = f"Authorization: Bearer {self.token()}\r\n"
        elif self._query == self._names:
            self.show(await self.ticket(self.token()))

    def request(self) -> bytes:
        resume = f"Last-Event-ID: {self.last_id}\r\n" if self.last_id else ""
        fields = f"Host: localhost\r\n{self._fields}{resume}"
        return f"GET /api/sse?{self._query} HTTP/1.1\r\n{fields}\r\n".encode()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            await self._sign()
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
