"""The NATS client that hands messages over as they are read, in the order in which the server wrote them.

nats-py gives each subscription a queue and a task, so that two subjects of one connection can be handed over out of
stream order, and each subscription costs 5 KiB and 50 µs. This subclass calls a plain function instead, from inside the
read (bus/tap.py): 0.5 KiB and 15 µs, and the order of the wire.

It rests on private names of the pinned version; tests/integration/common/test_bus_client.py fails when they move.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from nats.aio.client import PING_PROTO, Client
from nats.protocol import command

from tidegate_common.bus.tap import Deliver, Direct, Tap


class DirectSubscription(Direct):
    """What the client's own subscriptions look like to its reconnecting and closing code, with a plain callback."""

    __slots__ = ("_subject",)

    _queue = ""
    _max_msgs = 0
    _received = 0
    _jsi = None
    _wait_for_msgs_task = None
    _message_iterator = None
    _pending_next_msgs_calls = None

    def __init__(self, subject: str, deliver: Deliver) -> None:
        self._subject = subject
        self.deliver = deliver

    async def _drain(self) -> None:
        """Nothing is queued here, so there is nothing to wait for."""


class BusClient(Client):
    """nats-py's client with `subscribe_direct`, `publish_direct` and `request_direct`."""

    _tap: Tap | None = None

    def subscribe_direct(self, subject: str, deliver: Deliver, *, at_once: bool = True) -> int:
        """Calls `deliver` for each message on `subject`, from inside the read; gives the subscription's id.

        What is sent later on this connection, a request for instance, reaches the server after the subscription;
        unless it is to be sent `at_once` it goes along with that. The subscription outlives reconnects.
        """
        self._sid += 1
        sid: int = self._sid
        self._subs[sid] = cast(Any, DirectSubscription(subject, deliver))
        self._enqueue(command.sub_cmd(subject, "", sid), at_once)
        return sid

    def unsubscribe_direct(self, sid: int, *, at_once: bool = True) -> None:
        """Ends a subscription; messages that are still on their way to it are ignored. `at_once` as above."""
        if self._subs.pop(sid, None) is not None:
            self._enqueue(command.unsub_cmd(sid, 0), at_once)

    def publish_direct(self, subject: str, payload: bytes) -> None:
        """Sends a message without awaiting anything; while NATS is away it is dropped. `subject` has to be legal."""
        self._enqueue(command.pub_cmd(subject, "", payload))

    def at_end_of_read(self, call: Callable[[], object]) -> None:
        """Calls `call` once, when all that one read has brought is handed over. An error of it is logged.

        Where nothing is being read it is called by the event loop, as soon as it can.
        """
        if self._tap is None or not self._tap.at_end_of_read(call):
            asyncio.get_running_loop().call_soon(call)

    async def _read_loop(self) -> None:
        """Runs anew for each connection. From here on its bytes come by way of a tap; what was read before, too."""
        reader: Any = getattr(self._transport, "_io_reader", None)
        if reader is not None:  # a WebSocket has none: its messages come through the parser below
            early, self._tap = bytes(reader._buffer), Tap(self._subs, reader.feed_data, self.stats)
            reader._buffer.clear()
            reader.feed_data = self._tap.feed
            if early:
                self._tap.feed(early)
        await super()._read_loop()

    def request_direct(self, subject: str, reply: bytes, block: bytes, payload: bytes) -> None:
        """As `publish_direct`, with a header block and the subject that the answer is to come to."""
        size = len(block)
        head = b"HPUB %b %b %d %d\r\n" % (subject.encode(), reply, size, size + len(payload))
        self._enqueue(b"%b%b%b\r\n" % (head, block, payload))

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """A PING in line with all else: nats-py's overtakes what waits to be written, its PONG is no word on that."""
        self._pongs.append(asyncio.get_running_loop().create_future() if future is None else future)
        self._enqueue(PING_PROTO)

    def drop_unsent(self) -> None:
        """Forgets what waits to be written: for a connection that was lost, like all that was under way on it.

        Kept, it would be sent after the reconnect, when its sender has been told that it was refused, or has sent it
        again among what comes before it.
        """
        self._pending.clear()
        self._pending_data_size = 0

    async def close(self) -> None:
        """Ends the connection. What is unsent when the server has gone at that moment is dropped."""
        try:
            await super().close()
        except (OSError, RuntimeError):  # what is left is written before it cleans up; uvloop raises the second
            self._subs.clear()
            if self._transport is not None:
                self._transport.close()

    def _enqueue(self, line: bytes, at_once: bool = True) -> None:
        if not self.is_connected:
            return  # reconnecting sends a SUB for each subscription that there is by then; a message is not sent late
        self._pending.append(line)
        self._pending_data_size += len(line)
        if at_once and self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        """As nats-py has it; a block that it can't read is that of a message all the same, which is not to be lost."""
        try:
            found: dict[str, str] | None = await super()._process_headers(headers)
        except Exception:
            return {}
        return found

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        subscription: Any = self._subs.get(sid)
        if type(subscription) is DirectSubscription:
            subscription.deliver(subject, headers or b"", data)
        else:
            await super()._process_msg(sid, subject, reply, data, headers)
