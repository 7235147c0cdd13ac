"""One connection to NATS after the other: opened, lost, and opened again, for ever or until it makes no sense.

nats-py closes for good on most of what a server can say, and on any error that it does not know; its reader ends with a
future that somebody has cancelled. Here a connection is lost in one way (`_lose`), whatever the cause: at once, with a
reason that is told, and answered by the next one, on which all subscriptions are in force before it counts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, Protocol

from nats import errors as nats_errors
from nats.aio.client import PING_PROTO, Client, Srv
from nats.aio.transport import TcpTransport, Transport
from nats.protocol import command

from tidegate_common.bus.unusable import Unusable
from tidegate_common.bus.wire.addresses import Address, Tls, tls_of
from tidegate_common.bus.wire.connection_log import ConnectionLog
from tidegate_common.bus.wire.dialogue import Dialogue
from tidegate_common.bus.wire.greeting import connect_line, greet
from tidegate_common.bus.wire.key_file import KeyFile
from tidegate_common.bus.wire.limits import NO_MORE
from tidegate_common.bus.wire.server_errors import ConnectFailed, ServerError, explained

OPEN_SECONDS = 5.0
"""How long one attempt may take in all, once TCP is connected with the subscriptions of 10,000 streams."""

DIAL_SECONDS = 3

CLOSE_SECONDS = 2.0
"""How long a server that hangs may take the last of what is sent to it."""

LINE_BYTES = 1 << 20
"""Of the server's first line, which names every server of a cluster."""


class Owner(Protocol):
    """Whose connection it is."""

    def lost(self, error: Exception) -> None:
        """The connection is lost, for that reason. Called before anything of the next one can come."""

    async def back(self) -> None:
        """There is a connection again, with its subscriptions in force."""

    def refuse(self, reason: str) -> None:
        """NATS has refused this process for too long."""


class Link(Dialogue):
    """nats-py's client with another life of its connection."""

    def __init__(self, log: ConnectionLog) -> None:
        super().__init__(log)
        self.unusable = Unusable()
        self.owner: Owner | None = None
        """None until there is a first connection."""
        self._addresses: dict[str, Address] = {}
        self._tls: Tls | None = None
        self._key: KeyFile | None = None
        self._lost_early: Exception | None = None
        """What has ended the connection after it was opened, before that was noticed."""
        self._work: list[asyncio.Task[None]] = []

    # --- opening -----------------------------------------------------------------------------------------------

    async def open_first(self, addresses: list[Address], tls: Tls | None, key: KeyFile | None, **options: Any) -> None:
        """The first connection; tries until there is one. `options` are those of nats-py's `connect`."""
        self._addresses = {address.netloc: address for address in addresses}
        self._tls, self._key = tls, key
        await self.connect([f"nats://{netloc}" for netloc in self._addresses], **options)
        # nats-py makes it with the first request: by then the server may take no more subscriptions.
        await self._init_request_sub()

    async def _select_next_server(self) -> None:
        """Whichever has failed least often since there was a connection.

        Those who lost a server come back spread over a second, not all at once.
        """
        server = min(self._server_pool, key=lambda each: (each.reconnects, random.random()))
        self._current_server = server
        await asyncio.sleep(random.uniform(0.05, 1.0) if server.reconnects else random.uniform(0, 0.2))

    async def _process_connect_init(self) -> None:
        """The first connection, for nats-py's `connect`, which tries again after any of its own errors."""
        server = self._current_server
        assert server is not None
        try:
            await self._open(server)
        except Exception as error:
            raise self._failed(server, error) from error

    async def _open(self, server: Srv) -> None:
        """Raises what keeps a connection to `server`, with all subscriptions in force, from coming about."""
        address = self._address(server)
        self._status = Client.CONNECTING
        transport = self._transport = TcpTransport()
        self._opening, self._lost_early = asyncio.get_running_loop().create_future(), None
        self._refused_now = 0
        self.denied.clear()
        self.unwritable.clear()
        self.limits.opened()
        try:
            await transport.connect(server.uri, LINE_BYTES, DIAL_SECONDS)
            async with asyncio.timeout(OPEN_SECONDS):
                info = await greet(transport, address, self._tls_for, server.tls_name or address.host)
                self._learn(info)
                self._tap = self._listen(transport)
                self._start(self._end_of_stream(transport))
                # By itself: of a refusal that crosses with more of ours on the way, the words can be lost.
                await self._taken(transport, [connect_line(info, address, self._key, self.options["name"])])
                restored = self._restoring()
                needed = sum(map(self._is_needed, restored))
                await self._taken(transport, self._subs_of(restored))
            refused = self._beyond(restored, needed)
        except BaseException:
            self._drop()
            raise
        finally:
            self._opening = None
        self._refused_now, self._counting = 0, None
        self._settle(transport, restored)
        for sid in refused:
            self._refuse(sid, NO_MORE)

    async def _taken(self, transport: TcpTransport, lines: list[bytes]) -> None:
        """Sends `lines` while the connection is being opened, until the server has read them. Raises its error."""
        if self._opening is not None and self._opening.done():
            self._opening.result()  # what came before anything was asked
        self._opening = asyncio.get_running_loop().create_future()
        transport.writelines([*lines, PING_PROTO])
        await self._opening
        if self._lost_early is not None:
            raise self._lost_early

    def _settle(self, transport: TcpTransport, restored: list[int]) -> None:
        """The connection is there: what came and went while it was being opened is told, and all else may be sent."""
        known = set(restored)
        late = [sid for sid in self._subs if sid not in known]
        gone = [command.unsub_cmd(sid, 0) for sid in restored if sid not in self._subs]
        if late or gone:
            transport.writelines([*self._subs_of(late), *gone])
        self._pending.clear()
        self._pending_data_size = 0
        self._pings_outstanding = 0
        self._status = Client.CONNECTED
        self.log.clear()
        self._reading_task = self._work[0]
        self._ping_interval_task = self._start(self._ping_interval())
        self._flusher_task = self._start(self._flusher())

    def _address(self, server: Srv) -> Address:
        return self._addresses[server.uri.netloc]

    def _learn(self, info: dict[str, Any]) -> None:
        """Servers that another one tells of are entered as that one is."""
        known = len(self._server_pool)
        super()._learn(info)
        for server in self._server_pool[known:]:
            assert self._current_server is not None
            host, port = server.uri.hostname or "", server.uri.port or 0
            self._addresses[server.uri.netloc] = self._address(self._current_server)._replace(host=host, port=port)

    def _tls_for(self) -> Tls:
        if self._tls is None:
            self._tls = tls_of("", "", "", first=False)
        return self._tls

    # --- losing, and having again ------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A part of the connection's life: if one ends, the connection has."""
        task = asyncio.create_task(work)
        self._work.append(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if task in self._work:
            self._lose(error if isinstance(error, Exception) else ConnectFailed("it can't be written to"))

    def _lose(self, error: Exception) -> None:
        """The connection is no more, from this moment on."""
        if self._opening is not None:
            if self._opening.done():
                self._lost_early = error
            else:
                self._opening.set_exception(error)
            return
        if not self.is_connected:
            return
        self._err = self._counting or error
        self._status = Client.RECONNECTING
        self._drop()
        self._reconnection_task = asyncio.create_task(self._attempt_reconnect())

    def _drop(self) -> None:
        """Ends what there is of a connection, and all waiting for its answers. What is unsent stays so.

        Kept, it would be sent after the reconnect, when its sender has been told that it was refused, or has sent it
        again among what comes before it.
        """
        if self._tap is not None:
            self._tap.closed = True
        work, self._work = self._work, []
        for task in work:
            task.cancel()
        _abort(self._transport)
        self._pending.clear()
        self._pending_data_size = 0
        asked, self._pongs = [*self._pongs, *self._resp_map.values(), *self._writes], []
        while self._flush_queue is not None and not self._flush_queue.empty():
            self._flush_queue.get_nowait()
        self._writes = []
        for each in asked:
            if each is not None and not each.done():
                each.set_exception(nats_errors.ConnectionReconnectingError())
                each.exception()  # whose asker could not even send the question: nobody waits for it

    async def _process_op_err(self, e: Exception) -> None:
        """nats-py's name for it."""
        self._lose(e)

    async def _attempt_reconnect(self) -> None:
        """Until there is a connection, or this one is closed. Ends with no error of its own."""
        if self.owner is not None:
            self.owner.lost(self._err or ConnectFailed("no reason is known"))
        while not self.is_closed:
            await self._select_next_server()
            server = self._current_server
            assert server is not None
            try:
                await self._open(server)
            except Exception as error:
                server.reconnects += 1
                self._status = Client.RECONNECTING
                self._failed(server, error)
                continue
            # Who failed in this outage may be well in the next one: it comes later then, and not as much later.
            for each in self._server_pool:
                each.reconnects = min(each.reconnects, 1)
            server.reconnects = 0
            self.stats["reconnects"] += 1
            if self.owner is not None:
                await self.owner.back()
            return

    async def _ping_interval(self) -> None:
        while True:
            await asyncio.sleep(self.options["ping_interval"])
            if self._pings_outstanding >= self.options["max_outstanding_pings"]:  # the last one had its time, too
                raise ConnectFailed("the server does not answer any more")
            self._pings_outstanding += 1
            await self._send_ping()

    def _failed(self, server: Srv, error: BaseException) -> nats_errors.Error:
        """Notes what kept a connection to `server` from coming about, and gives it in words."""
        first = self._tls is not None and self._tls.first
        reason = explained(error, tls=self._address(server).tls, first=first)
        if self._key is not None and isinstance(reason, ServerError) and reason.unauthorized:
            reason = ConnectFailed(f"NATS refuses the key of {self._key.variable}", refuses=True)
        if self.log.add(server.uri.netloc, reason) and self.owner is not None:
            self.owner.refuse(self.log.last)
        return reason

    async def close(self) -> None:
        """Ends the connection, for good. What is unsent when the server has gone at that moment is dropped."""
        again, self._reconnection_task = self._reconnection_task, None
        work, self._work = self._work, []  # what ends now ends no connection
        if again is not None and again is not asyncio.current_task():
            again.cancel()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await super().close()
        except (OSError, RuntimeError):  # it writes what is left before it cleans up; uvloop raises the second
            self._subs.clear()
            _abort(self._transport)
        for task in work:
            task.cancel()


def _abort(transport: Transport | None) -> None:
    """Ends it without writing what it still has, which a server that hangs would read when it goes on."""
    if isinstance(transport, TcpTransport) and transport._io_writer is not None:
        transport._io_writer.transport.abort()
