"""The end of a connection whose client may still send: what comes is thrown away until it has read its answer."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from typing import Any

from tidegate_common.runtime.guard import DISCARD_BYTES, PIECE_BYTES, Guard

HURRY_SECONDS = 1.0
"""At the stop of the process: the answer is written, and nothing else is waited for."""


class Discard(asyncio.Protocol):
    """Half-closes, then reads to the client's own end.

    Closing at once would answer what the client still sends with a reset, and a reset takes the answer away from a
    client that has not read it yet (RFC 9112, 9.6).
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        connections: set[Any],
        guard: Guard,
        *,
        half_closed: bool = False,
        unsent: int = -1,
    ) -> None:
        """Takes `transport` over: all that is to be written has been. `connections` is the server's set.

        Of a client that has `half_closed` nothing more comes: its connection is over when the answer is out. `unsent`
        are the bytes that the peer lacks still at most, if that is known: then the kernel need not be asked.
        """
        self._transport = transport
        self._connections = connections
        self._guard = guard
        self._left = DISCARD_BYTES
        self._piece = 0
        self._unsent = _unsent(transport) if unsent is None else unsent
        self._hurry: asyncio.TimerHandle | None = None
        guard.forget(transport)
        transport.set_protocol(self)
        if transport.is_closing():
            return
        connections.add(self)
        guard.pieces.start(transport)
        guard.totals.start(transport)
        if half_closed:
            transport.close()
        else:
            transport.resume_reading()
            transport.write_eof()
        if guard.stopping:
            self.shutdown()

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        self._piece += len(data)
        if self._left < 0:
            self._transport.abort()
        elif self._piece >= PIECE_BYTES:
            self._piece = 0
            self._guard.pieces.restart(self._transport)

    def eof_received(self) -> None:
        """The client has ended, too: nothing is returned, so the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._guard.forget(self._transport)
        if self._hurry is not None:
            self._hurry.cancel()

    def body_late(self) -> None:
        """The time is over, unless the client still reads its answer, however slowly."""
        before, self._unsent = self._unsent, _unsent(self._transport)
        if 0 < self._unsent < before:
            self._guard.pieces.restart(self._transport)
        else:
            self._transport.abort()

    def shutdown(self) -> None:
        """The server's way of asking a connection to end."""
        if self._hurry is None:
            self._hurry = asyncio.get_running_loop().call_later(HURRY_SECONDS, self._hurry_up)

    def _hurry_up(self) -> None:
        self._hurry = None
        if _unsent(self._transport):
            self.shutdown()  # the answer itself is not out yet: for that the server has a time of its own
        else:
            self._transport.abort()

    def abort(self) -> None:
        """The server's way of cutting what has not ended in time."""
        self._transport.abort()


def _unsent(transport: asyncio.Transport) -> int:
    """Bytes that the peer has not acknowledged: in the process, and in the kernel as far as it tells."""
    kept = transport.get_write_buffer_size()
    if transport.is_closing():
        return kept
    try:
        told = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return kept
    return kept + int.from_bytes(told, sys.byteorder)


class GracefulTransport(asyncio.Transport):
    """What uvicorn writes an answer to: `close` is the protocol's own way to end, and nothing is written after it."""

    def __init__(self, bare: asyncio.Transport, end: Any) -> None:
        """`end` is called by the first `close`."""
        super().__init__()
        self.bare = bare
        self._end = end
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.is_closing():
            self.bare.write(data)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._end()

    def abort(self) -> None:
        self.bare.abort()

    def is_closing(self) -> bool:
        return self.closed or self.bare.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.bare.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self.bare.pause_reading()

    def resume_reading(self) -> None:
        self.bare.resume_reading()
