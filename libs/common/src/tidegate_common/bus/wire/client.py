"""The NATS client that hands messages over as they are read, in the order in which the server wrote them.

nats-py gives each subscription a queue and a task, so that two subjects of one connection can be handed over out of
stream order, and each subscription costs 5 KiB and 50 µs. This subclass calls a plain function instead, from inside the
read (tap.py): 0.5 KiB and 15 µs, and the order of the wire. How a connection is opened, lost and had again is in
link.py.

It rests on private names of the pinned version; tests/integration/common/test_bus_client.py fails when they move.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from nats import errors as nats_errors
from nats.aio.client import PING_PROTO
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import Header
from nats.protocol import command

from tidegate_common.bus import unusable
from tidegate_common.bus.wire.link import Link
from tidegate_common.bus.wire.tap import Deliver, Direct
from tidegate_common.errors import SubscriptionRefused

Refused = Callable[[str, str], object]
"""Takes a subject, and why nothing comes on it any more."""

NO_HEADERS = 12
"""Bytes of a header block without a field."""

INBOX_CHARS = 66
"""Of the subject that nats-py makes for an answer, with the longest of our prefixes."""


class DirectSubscription(Direct):
    """What the client's own subscriptions look like to its reconnecting and closing code, with a plain callback."""

    __slots__ = ("_subject", "refused")

    _queue = ""
    _max_msgs = 0
    _received = 0
    _jsi = None
    _wait_for_msgs_task = None
    _message_iterator = None
    _pending_next_msgs_calls = None

    def __init__(self, subject: str, deliver: Deliver, refused: Refused | None = None) -> None:
        self._subject = subject
        self.deliver = deliver
        self.refused = refused
        """None if nothing works without it."""

    async def _drain(self) -> None:
        """Nothing is queued here, so there is nothing to wait for."""


class BusClient(Link):
    """nats-py's client with `subscribe_direct`, `publish_direct` and `request_direct`."""

    def subscribe_direct(
        self, subject: str, deliver: Deliver, *, at_once: bool = True, refused: Refused | None = None
    ) -> int:
        """Calls `deliver` for each message on `subject`, from inside the read; gives the subscription's id.

        What is sent later on this connection, a request for instance, reaches the server after the subscription;
        unless it is to be sent `at_once` it goes along with that. The subscription outlives reconnects.

        One that can be done without has `refused`, which is called, later and never from inside this call, if NATS
        does not take the subscription (again). Raises SubscriptionRefused if it is known that it would not.
        """
        line = command.sub_cmd(subject, "", self._sid + 1)
        reason = self.limits.refusal(len(line), len(self._subs), spare=refused is not None)
        if reason:
            raise SubscriptionRefused(reason)
        self._sid += 1
        sid: int = self._sid
        self._subs[sid] = cast(Any, DirectSubscription(subject, deliver, refused))
        self.limits.sent(len(line))
        self._enqueue(line, at_once)
        return sid

    def unsubscribe_direct(self, sid: int, *, at_once: bool = True) -> None:
        """Ends a subscription; messages that are still on their way to it are ignored. `at_once` as above."""
        if self._subs.pop(sid, None) is not None:
            self._enqueue(command.unsub_cmd(sid, 0), at_once)

    def publish_direct(self, subject: str, payload: bytes) -> None:
        """Sends a message without awaiting anything; while NATS is away it is dropped. `subject` has to be legal.

        Raises MaxPayloadError of nats-py.
        """
        head = b"PUB %b %d\r\n" % (subject.encode(), len(payload))
        self._check(len(head), len(payload))
        self._enqueue(b"%b%b\r\n" % (head, payload))

    def request_direct(self, subject: str, reply: bytes, block: bytes, payload: bytes) -> None:
        """As `publish_direct`, with a header block and the subject that the answer is to come to."""
        size = len(block)
        head = b"HPUB %b %b %d %d\r\n" % (subject.encode(), reply, size, size + len(payload))
        self._check(len(head), size + len(payload))
        self._enqueue(b"%b%b%b\r\n" % (head, block, payload))

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """As nats-py's, but for two things: while NATS is away it raises ConnectionReconnectingError, where nats-py
        would send the message later, when its sender has been told that it was refused; and headers count in what is
        allowed at most (MaxPayloadError), as they do for the server, which closes the connection otherwise.
        """
        self._check_publish(len(subject) + len(reply), payload, headers)
        await super().publish(subject, payload, reply, headers)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, str] | None = None,
    ) -> Msg:
        """As nats-py's, which keeps a future for ever for each question that `publish` does not send."""
        self._check_publish(len(subject) + INBOX_CHARS, payload, headers)
        return await super().request(subject, payload, timeout, old_style, headers)

    def at_end_of_read(self, call: Callable[[], object]) -> None:
        """Calls `call` once, when all that one read has brought is handed over. An error of it is logged.

        If nothing is being read, it is called by the event loop, as soon as it can.
        """
        if self._tap is None or not self._tap.at_end_of_read(call):
            asyncio.get_running_loop().call_soon(call)

    def take_message(self, sid: int, subject: bytes, reply: bytes, header: bytes, payload: bytes) -> None:
        """What nats-py does with a message, without a way to raise: its own reader ends with the first error."""
        subscription: Subscription | None = self._subs.get(sid)
        if subscription is None:
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(payload)
        subscription._received += 1
        if 0 < subscription._max_msgs <= subscription._received:
            self._subs.pop(sid, None)
        try:
            message = self.msg_class(
                _client=self,
                subject=subject.decode(errors="replace"),  # a job's is anybody's: dropped, it would come again
                reply=reply.decode(),
                data=payload,
                headers=_fields(header),
                _sid=sid,
            )
        except UnicodeDecodeError as error:
            self.unusable.add(unusable.SUBJECT, subject, error)
            return
        size = subscription._pending_size + len(payload)
        if subscription._pending_queue.full() or 0 < subscription._pending_bytes_limit <= size:
            self.unusable.add(unusable.SLOW, subject)
            return
        subscription._pending_size = size
        subscription._pending_queue.put_nowait(message)

    def take_failure(self, subject: bytes, error: Exception) -> None:
        self.unusable.add(unusable.HANDLER, subject, error)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """A PING in line with all else: nats-py's overtakes what waits to be written, its PONG is no word on that."""
        if not self.is_connected:
            raise nats_errors.ConnectionReconnectingError
        self._pongs.append(cast(Any, future))
        self._enqueue(PING_PROTO)

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:
        if self.is_connected:  # opening a connection sends a SUB for each subscription; a message is not sent late
            await super()._send_command(cmd, priority)

    def _check_publish(self, names: int, payload: bytes, headers: Mapping[str, str] | None) -> None:
        """As `_check`, of what nats-py puts together, with `names` of so many characters.

        Raises ConnectionReconnectingError, too.
        """
        if not self.is_connected:
            raise nats_errors.ConnectionReconnectingError
        self._check(names + 32, len(payload) + _size(headers))

    def _check(self, head: int, size: int) -> None:
        """Whether a message may be sent. Raises MaxPayloadError, BadSubjectError: NATS would close the connection."""
        if size > self._max_payload:
            raise nats_errors.MaxPayloadError
        if head > self.limits.line:
            raise nats_errors.BadSubjectError
        self.limits.sent(head)


def _size(headers: Mapping[str, str] | None) -> int:
    """Of the header block that nats-py makes of `headers`, or more."""
    if headers is None:
        return 0
    return NO_HEADERS + sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())


def _fields(block: bytes) -> dict[str, str] | None:
    """A header block as nats-py gives it: names to values, and the status of a control message."""
    if not block:
        return None
    first, _, rest = block.partition(b"\r\n")
    found = Link._parse_header_lines(rest)
    status, _, description = first[8:].strip().partition(b" ")
    if status.isdigit():
        found[Header.STATUS.value] = status.decode()
        if description:
            found[Header.DESCRIPTION.value] = description.decode("utf-8", "replace")
    return found or None
