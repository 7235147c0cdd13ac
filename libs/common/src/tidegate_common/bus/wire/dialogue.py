"""What a NATS server says beside messages, and what follows from it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from nats.aio.client import PONG_PROTO
from nats.aio.transport import TcpTransport

from tidegate_common.bus.wire import server_errors
from tidegate_common.bus.wire.connection_log import ConnectionLog
from tidegate_common.bus.wire.greeting import discovered
from tidegate_common.bus.wire.interest import Interest
from tidegate_common.bus.wire.server_errors import ConnectFailed, ServerError
from tidegate_common.bus.wire.tap import Tap

MOST_UNWRITABLE = 100
"""Subjects are made of names: more are not kept."""


class Dialogue(Interest):
    """nats-py's client with another reader: nothing that the server says, or leaves out, makes it raise."""

    def __init__(self, log: ConnectionLog) -> None:
        super().__init__()
        self.log = log
        self._tap: Tap | None = None
        self._opening: asyncio.Future[None] | None = None
        """While a connection is being opened: the server's next PONG, or what keeps it from coming about."""

    def _listen(self, transport: TcpTransport) -> Tap:
        """From here on all bytes come by way of a tap; those that were read before, too."""
        reader: Any = transport._io_reader
        early = bytes(reader._buffer)
        reader._buffer.clear()
        tap = Tap(self._subs, self, self.stats)  # type: ignore[arg-type]  # BusClient has what it needs
        reader.feed_data = tap.feed
        if early:
            tap.feed(early)
        return tap

    async def _end_of_stream(self, transport: TcpTransport) -> None:
        """Nothing comes by way of the stream any more but its end."""
        reader: Any = transport._io_reader
        await reader.read(1)
        raise ConnectFailed("the server has closed the connection")

    def take_line(self, line: bytes) -> None:
        """All but messages. Called from inside the read."""
        word = line[:5].upper()
        if word.startswith(b"PONG"):
            self._take_pong()
        elif word.startswith(b"PING"):
            if self._transport is not None:
                self._transport.write(PONG_PROTO)
        elif word.startswith(b"-ERR"):
            self._take_error(ServerError.of(line))
        elif word.startswith(b"INFO"):
            try:
                info = json.loads(line[5:])
            except ValueError:
                info = None
            if isinstance(info, dict):
                self._learn(info)
        elif not word.startswith(b"+OK"):
            self.take_nonsense(line)

    def take_nonsense(self, line: bytes) -> None:
        self._lose(ConnectFailed(f"what came is not the NATS protocol: {line[:64]!r}"))

    def _take_pong(self) -> None:
        if self._opening is not None:
            if not self._opening.done():
                self._opening.set_result(None)
        elif self._pongs:
            self._pings_outstanding = 0
            self._pongs_received += 1
            asked: asyncio.Future[bool] | None = self._pongs.pop(0)
            if asked is not None and not asked.done():  # whoever asked may have given up
                asked.set_result(True)

    def _take_error(self, error: ServerError) -> None:
        self._err = error
        if error.text.startswith(server_errors.LINE_TOO_LONG):
            self.limits.line_refused()
            self._drop_long_lines()
        if not error.said_only:
            self._lose(error)
        elif error.text.startswith(server_errors.TOO_MANY_SUBSCRIPTIONS):
            self._refused_now += 1
            if self._opening is None and self._refused_now == 1:
                self._count_refused(error)
        else:
            if error.denied is not None:
                self._deny(error.denied, str(error))
            elif error.unwritable is not None and len(self.unwritable) < MOST_UNWRITABLE:
                self.unwritable.add(error.unwritable)
            self.log.said(error)

    def _learn(self, info: dict[str, Any]) -> None:
        """What a server says of itself: at first, and when it changes."""
        self._server_info = {**self._server_info, **info}
        if isinstance(most := info.get("max_payload"), int) and most > 0:
            self._max_payload = most
        if self._current_server is not None and "version" in info:
            self._current_server.server_version = str(info["version"])
        known = {server.uri.netloc for server in self._server_pool}
        self._server_pool += [each for each in discovered(info, self._current_server) if each.uri.netloc not in known]
