"""A stream that has its socket to itself: what is left of a connection is a transport and this one object."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

from starlette.types import Send

from gateway import frame
from gateway.hub.endings import Ending
from gateway.hub.session import Session
from gateway.sse.takeover import DirectTakeover, Takeover

UNREACHED = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
"""How the kernel says that it has given up on a peer; the latter two where routers on the way told it why."""


class SlimStream(Session, asyncio.Protocol):
    """A session that is its own transport's protocol. It ignores what the client still sends."""

    __slots__ = (
        "_backlog",
        "_chunked",
        "_connections",
        "_farewell",
        "_linger",
        "_started",
        "_takeover",
        "_transport",
    )

    linger_seconds = 5.0
    """How long a peer that does not read may keep an ended connection."""

    def __init__(self, takeover: Takeover | DirectTakeover, max_backlog_bytes: int) -> None:
        super().__init__()
        self._takeover: Takeover | DirectTakeover | None = takeover
        """None once it is taken, or lost."""
        self._linger: asyncio.TimerHandle | None = None
        self._farewell = b""
        """Of a stream that was ended before it had its socket."""
        self._backlog = max_backlog_bytes
        self._chunked = takeover.chunked
        self._transport: asyncio.Transport | None = None
        self._connections: set[Any] = set()
        self._started = 0.0
        self.send = _nowhere
        takeover.watch(self.connection_lost)

    async def start(self, send: Send | None, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Sends the response head by way of ASGI, then takes the socket over.

        Without `send` (a DirectTakeover has no such way) the head goes out with the first chunks. Where the client has
        gone meanwhile nothing is sent, and nothing taken: of a closed transport nothing may be asked.
        """
        takeover, self._takeover = self._takeover, None
        if takeover is None or takeover.gone():
            self.lost()
            return
        head = b""
        if isinstance(takeover, DirectTakeover):
            head = takeover.head(headers)
        else:
            assert send is not None
            await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
            if takeover.gone():
                self.lost()
                return
        self._started = asyncio.get_running_loop().time()
        self._transport, self._connections = takeover.take(self)
        transport = self._transport
        transport.set_write_buffer_limits(high=self._backlog)
        write = cast(Callable[[bytes], object], transport.write)
        self.send = write if self._chunked else lambda chunks: write(frame.unchunk(chunks))
        if head:
            self.send = partial(self._send_first, head, self.send)
        if self.ending is not None:
            self._finish(transport, self._farewell)

    def _send_first(self, head: bytes, send: Callable[[bytes], object], chunks: bytes) -> None:
        """Writes the head with the first chunks; from then on there is nothing between the hub and the transport."""
        self.send = send
        send(head + chunks)

    async def run(self) -> None:
        """Nothing is left to do for the request's task."""

    def close(self, ending: Ending, farewell: bytes) -> None:
        if self.ending is not None:
            return
        self.ending = ending
        if self._transport is None:
            self._farewell = farewell  # still being attached: said as soon as the head is out
        else:
            self._finish(self._transport, farewell)

    def _finish(self, transport: asyncio.Transport, farewell: bytes) -> None:
        if not transport.is_closing():
            self.send(farewell)
            if self._chunked:
                self.send(frame.LAST_CHUNK)
        transport.close()
        self._linger = asyncio.get_running_loop().call_later(self.linger_seconds, transport.abort)

    def closing(self) -> bool:
        return self._transport is not None and self._transport.is_closing()

    def age_seconds(self, now: float) -> float:
        return now - self._started

    def shutdown(self) -> None:
        """uvicorn's way of asking a connection to end."""
        self.close(Ending.DRAIN, b"")

    def abort(self) -> None:
        """The server's way of cutting what has not ended in time."""
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        self.set_paused(True)

    def resume_writing(self) -> None:
        self.set_paused(False)

    def eof_received(self) -> None:
        """The client is done: nothing is returned, so the transport closes as soon as it has read what is under way."""
        if self._linger is None and self._transport is not None:
            self._linger = asyncio.get_running_loop().call_later(self.linger_seconds, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._takeover = None
        self._connections.discard(self)
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self.ending is None and isinstance(exc, OSError) and exc.errno in UNREACHED:
            self.ending = Ending.STALLED
        self.lost()
        self._transport = None
        self.send = _nowhere


def _nowhere(_: bytes) -> None:
    """Where a lost connection writes to."""
