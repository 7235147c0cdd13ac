"""One connection to NATS after the other: opened, lost, and opened again, for ever or until it makes no sense.

nats-py closes for good on most of what a server can say, and on any error that it does not know; its reader ends with a
future that somebody has cancelled. Here a connection is lost in one way (`_lose`), whatever the cause: at once, with a
reason that is told, and answered by the next one, on which all subscriptions are in force before it counts.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from nats import errors as nats_errors
from nats.aio.client import PING_PROTO, PONG_PROTO, Client, Srv
from nats.aio.transport import TcpTransport
from nats.protocol import command

from tidegate_common.bus import server_errors
from tidegate_common.bus.addresses import Address, Tls, tls_of
from tidegate_common.bus.greeting import connect_line, discovered, greet
from tidegate_common.bus.limits import NO_MORE, SPARE_SUBSCRIPTIONS, Limits
from tidegate_common.bus.server_errors import ConnectFailed, ServerError, explained
from tidegate_common.bus.tap import Tap
from tidegate_common.bus.unusable import Unusable

OPEN_SECONDS = 5.0
"""How long one attempt may take in all, once TCP is connected with the subscriptions of 10,000 streams."""

DIAL_SECONDS = 3

CLOSE_SECONDS = 2.0
"""How long a server that hangs may take the last of what is sent to it."""

LINE_BYTES = 1 << 20
"""Of the server's first line, which names every server of a cluster."""


class Link(Client):
    """nats-py's client with another life of its connection. The hooks are set before `open_first`."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limits()
        self.unusable = Unusable()
        self.on_lost: Callable[[Exception], object] = lambda error: None
        """Called with the reason when a connection is lost, before anything of the next one can come."""
        self.on_failed: Callable[[Srv, Exception], object] = lambda server, error: None
        """Called with what kept a connection to a server from coming about."""
        self.on_back: Callable[[], Awaitable[None]] | None = None
        """Called when a connection is there again, its subscriptions in force."""
        self.on_said: Callable[[ServerError], object] = lambda error: None
        """Called with what the server said and went on after."""
        self.denied: dict[str, str] = {}
        """By subject: subscriptions that this process can't do without and the server does not allow."""
        self._addresses: dict[str, Address] = {}
        self._tls: Tls | None = None
        self._tap: Tap | None = None
        self._opening: asyncio.Future[None] | None = None
        self._lost_early: Exception | None = None
        """What has ended the connection after it was opened, before that was noticed."""
        self._refused_now = 0
        """Subscriptions that the server has refused on this connection."""
        self._counting: ServerError | None = None
        """What it has refused the first of them with, while it is being found out how many it takes."""
        self._work: list[asyncio.Task[None]] = []

    # --- opening -----------------------------------------------------------------------------------------------

    async def open_first(self, addresses: list[Address], tls: Tls | None, **options: Any) -> None:
        """The first connection; tries until there is one. `options` are those of nats-py's `connect`."""
        self._addresses = {address.netloc: address for address in addresses}
        self._tls = tls
        await self.connect([f"nats://{netloc}" for netloc in self._addresses], **options)

    async def _select_next_server(self) -> None:
        """Whichever has failed least often. Those who lost a server come back spread over a second, not all at once."""
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
            reason = self._explained(server, error)
            self.on_failed(server, reason)
            raise reason from error

    async def _open(self, server: Srv) -> None:
        """Raises what keeps a connection to `server`, with all subscriptions in force, from coming about."""
        address = self._address(server)
        self._status = Client.CONNECTING
        transport = self._transport = TcpTransport()
        self._opening, self._lost_early = asyncio.get_running_loop().create_future(), None
        self._refused_now = 0
        self.limits.opened()
        try:
            await transport.connect(server.uri, LINE_BYTES, DIAL_SECONDS)
            async with asyncio.timeout(OPEN_SECONDS):
                info = await greet(transport, address, self._tls_for(), server.tls_name or address.host)
                self._learn(info)
                self._tap = self._listen(transport)
                self._start(self._end_of_stream(transport))
                # By itself: of a refusal that crosses with more of ours on the way, the words can be lost.
                await self._taken(transport, [connect_line(info, address, self.options["name"])])
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
        self._reading_task = self._work[0]
        self._ping_interval_task = self._start(self._ping_interval())
        self._flusher_task = self._start(self._flusher())

    def _restoring(self) -> list[int]:
        """The subscriptions in the order in which they are asked for: those first that nothing works without."""
        return sorted(self._subs, key=self._is_needed, reverse=True)  # stable: the older ones come first

    def _is_needed(self, sid: int) -> bool:
        return getattr(self._subs[sid], "refused", None) is None

    def _subs_of(self, sids: list[int]) -> list[bytes]:
        lines = []
        for sid in sids:
            found = self._subs[sid]
            lines.append(command.sub_cmd(found._subject, found._queue, sid))
            self.limits.sent(len(lines[-1]))
            if found._max_msgs:
                lines.append(command.unsub_cmd(sid, max(1, found._max_msgs - found._received)))
        return lines

    def _beyond(self, restored: list[int], needed: int) -> list[int]:
        """The subscriptions that have to go, since the server takes fewer. Raises ConnectFailed: it takes too few.

        It refuses each that is one too many, in the order of the asking, so what it takes is known from their number.
        """
        if not self._refused_now:
            return []
        most = self.limits.subscriptions = len(restored) - self._refused_now
        if needed > most:
            raise ConnectFailed(f"NATS allows a connection {most} subscriptions, this needs {needed}", refuses=True)
        return restored[max(needed, most - SPARE_SUBSCRIPTIONS) :]

    def _refuse(self, sid: int, reason: str) -> None:
        """A subscription is no more; whoever has it is told, from the event loop."""
        subscription: Any = self._subs.pop(sid, None)
        if subscription is not None:
            self._enqueue(command.unsub_cmd(sid, 0))
            asyncio.get_running_loop().call_soon(subscription.refused, subscription._subject, reason)

    def _address(self, server: Srv) -> Address:
        """Of `server`; one that another server told of is entered as the first is."""
        first = next(iter(self._addresses.values()))
        found = self._addresses.get(server.uri.netloc)
        return found or first._replace(host=server.uri.hostname or "", port=server.uri.port or 0)

    def _tls_for(self) -> Tls:
        if self._tls is None:
            self._tls = tls_of("", "", "", first=False)
        return self._tls

    def _learn(self, info: dict[str, Any]) -> None:
        """What a server says of itself: at first, and when it changes."""
        self._server_info = {**self._server_info, **info}
        if isinstance(most := info.get("max_payload"), int) and most > 0:
            self._max_payload = most
        if self._current_server is not None and "version" in info:
            self._current_server.server_version = str(info["version"])
        known = {server.uri.netloc for server in self._server_pool}
        self._server_pool += [each for each in discovered(info, self._current_server) if each.uri.netloc not in known]

    # --- reading -----------------------------------------------------------------------------------------------

    def _listen(self, transport: TcpTransport) -> Tap:
        """From here on all bytes come by way of a tap; those that were read before, too."""
        reader: Any = transport._io_reader
        early = bytes(reader._buffer)
        reader._buffer.clear()
        tap = Tap(self._subs, self, self.stats)  # type: ignore[arg-type]  # BusClient has what it needs
        reader.feed_data = tap.feed
        if early:
            asyncio.get_running_loop().call_soon(tap.feed, early)
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
            self.on_said(error)

    def _count_refused(self, error: ServerError) -> None:
        """The server has refused a subscription, and does not say which: it says so once for each that it refuses.

        So after all that were sent by now it is known how many it takes. Which of them it has not taken shows on the
        next connection, where it is asked for all in an order that tells.
        """
        there, self._counting = len(self._subs), error
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def counted(_: asyncio.Future[bool]) -> None:
            if not answered.cancelled() and answered.exception() is None:
                self.limits.found(there - self._refused_now)
                self._lose(error)

        answered.add_done_callback(counted)
        self._pongs.append(answered)
        self._enqueue(PING_PROTO)

    @property
    def refusing(self) -> bool:
        """Whether the server has refused subscriptions, and which they were shows on the next connection."""
        return self._counting is not None

    def _deny(self, subject: str, reason: str) -> None:
        for sid, subscription in list(self._subs.items()):
            if subscription._subject == subject:
                if self._is_needed(sid):
                    self.denied[subject] = reason
                else:
                    self._refuse(sid, reason)

    def _drop_long_lines(self) -> None:
        for sid, each in list(self._subs.items()):
            size = len(command.sub_cmd(each._subject, each._queue, sid))
            reason = self.limits.refusal(size, 0, spare=False)
            if reason and not self._is_needed(sid):
                self._refuse(sid, reason)

    # --- losing, and having again ------------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A part of the connection's life: where one ends, the connection has."""
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
        if self._transport is not None:
            self._transport.close()
        self._pending.clear()
        self._pending_data_size = 0
        asked, self._pongs = [*self._pongs, *self._resp_map.values()], []
        for each in asked:
            if each is not None and not each.done():
                each.set_exception(nats_errors.ConnectionReconnectingError())
                each.exception()  # whose asker could not even send the question: nobody waits for it

    def _enqueue(self, line: bytes, at_once: bool = True) -> None:
        """Sends `line`, after all that was sent before; while there is no connection it is dropped."""
        if not self.is_connected:
            return
        self._pending.append(line)
        self._pending_data_size += len(line)
        if at_once and self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    async def _process_op_err(self, e: Exception) -> None:
        """nats-py's name for it."""
        self._lose(e)

    async def _attempt_reconnect(self) -> None:
        """Until there is a connection, or this one is closed. Ends with no error of its own."""
        self.on_lost(self._err or ConnectFailed("no reason is known"))
        while not self.is_closed:
            await self._select_next_server()
            server = self._current_server
            assert server is not None
            try:
                await self._open(server)
            except Exception as error:
                server.reconnects += 1
                self._status = Client.RECONNECTING
                self.on_failed(server, self._explained(server, error))
                continue
            server.reconnects = 0
            self.stats["reconnects"] += 1
            if self.on_back is not None:
                await self.on_back()
            return

    async def _ping_interval(self) -> None:
        while self._pings_outstanding < self.options["max_outstanding_pings"]:
            await asyncio.sleep(self.options["ping_interval"])
            self._pings_outstanding += 1
            await self._send_ping()
        raise ConnectFailed("the server does not answer any more")

    def _explained(self, server: Srv, error: BaseException) -> nats_errors.Error:
        tls = self._tls_for()
        return explained(error, tls=self._address(server).tls, first=tls.first)

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
            if self._transport is not None:
                self._transport.close()
        for task in work:
            task.cancel()
