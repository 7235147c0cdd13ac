"""A stream that has its socket to itself: what is left of a connection is a transport and this one object."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from gateway import frame
from gateway.hub.endings import Ending
from gateway.hub.session import Session

UNREACHED = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
"""How the kernel says that it has given up on a peer. The latter two are what routers on the way told it."""


class SocketStream(Session, asyncio.Protocol):
    """A session that is its own transport's protocol, from its response head on. It ignores what the client sends."""

    __slots__ = ("_backlog", "_connections", "_farewell", "_head", "_linger", "_started", "_transport")

    linger_seconds = 5.0
    """How long a peer that does not read may keep an ended connection."""

    def __init__(
        self, transport: asyncio.Transport, connections: set[Any], head: Callable[[], bytes], max_backlog_bytes: int
    ) -> None:
        """`connections` is the server's set, which it ends by `shutdown` and then `abort`.

        `head` makes the response head, at the moment when it goes out. Until then another protocol has `transport`, and
        passes its end on: uvloop arms a socket anew when it gets another protocol, for many in one system call if that
        is not done in the read of each.
        """
        super().__init__()
        self._transport = transport
        self._connections = connections
        self._head: Callable[[], bytes] | None = head
        """None once it is out."""
        self._backlog = max_backlog_bytes
        self._farewell = b""
        """Of a stream that was ended before its head was out."""
        self._linger: asyncio.TimerHandle | None = None
        self._started = 0.0
        self.send = _nowhere
        connections.add(self)

    @property
    def head_sent(self) -> bool:
        """Whether the response head is out: from then on there is no other answer."""
        return self._head is None

    async def start(self) -> None:
        """Sends the response head, with the first chunks.

        If the client has gone meanwhile, nothing is sent: uvloop refuses whatever is asked of a closed transport.
        """
        if self._transport.is_closing():
            self.lost()
            return
        assert self._head is not None
        head, self._head = self._head(), None
        self._transport.set_protocol(self)
        self._started = asyncio.get_running_loop().time()
        self._transport.set_write_buffer_limits(high=self._backlog)
        write = cast(Callable[[bytes], object], self._transport.write)
        self.send = partial(self._send_first, head, write)
        if self.ending is not None:
            self._finish(self._farewell)

    def _send_first(self, head: bytes, write: Callable[[bytes], object], chunks: bytes) -> None:
        """Writes the head with the first chunks; from then on there is nothing between the hub and the transport."""
        self.send = write
        write(head + chunks)

    def close(self, ending: Ending, farewell: bytes) -> None:
        if self.ending is not None:
            return
        self.ending = ending
        if self.head_sent:
            self._finish(farewell)
        else:
            self._farewell = farewell  # still being attached: said as soon as the head is out

    def _finish(self, farewell: bytes) -> None:
        if not self._transport.is_closing():
            self.send(farewell)
            self.send(frame.LAST_CHUNK)
        self._transport.close()
        self._give_time()

    def _give_time(self) -> None:
        """`close` waits for a peer to read what is under way: this one for so long, and then no more."""
        if self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(self.linger_seconds, self._transport.abort)

    def closing(self) -> bool:
        return self._transport.is_closing()

    def age_seconds(self, now: float) -> float:
        return now - self._started

    def shutdown(self) -> None:
        """uvicorn's way of asking a connection to end. The hub drains one that is still being attached."""
        if self.head_sent:
            self.close(Ending.DRAIN, b"")

    def abort(self) -> None:
        """The server's way of cutting what has not ended in time."""
        self._transport.abort()

    def pause_writing(self) -> None:
        self.set_paused(True)

    def resume_writing(self) -> None:
        self.set_paused(False)

    def eof_received(self) -> None:
        """The client is done: nothing is returned, so the transport closes as soon as it has read what is under way."""
        self._give_time()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self.ending is None and isinstance(exc, OSError) and exc.errno in UNREACHED:
            self.ending = Ending.STALLED
        self.lost()
        self.send = _nowhere


def _nowhere(_: bytes) -> None:
    """Where a stream writes to that has not begun, or is lost."""
