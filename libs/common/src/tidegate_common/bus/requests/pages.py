"""Pages of a stream, by direct batch get (ADR-31): each is what the server sent for it, whole, or an error.

Part of an answer may be lost, when a route between two servers breaks for instance. So each message is held against
the one before it, which it names. A page fails if its connection is lost (bus/requests/inbox.py).
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.origin import Origin, Place
from tidegate_common.bus.wire import headers
from tidegate_common.errors import BrokerUnavailable, TooLarge

PAGE_BYTES = 256 << 10
"""The server ends a page with the event that reaches this: it has one at least, and one more than fits at most."""

ON_THE_WAY_BYTES = 48 << 20
"""Of all pages that are asked for at once, at the very most: the server cuts a connection off with 64 MB to come."""

AT_ONCE = 64
"""Pages that are asked for at once: a storm of returning clients must not drown the server's live work."""

TIMEOUT_SECONDS = 5.0

NOTHING, TOO_MANY = 404, 413
"""Statuses that end an answer, beside 204 after its last message."""


class Stored(NamedTuple):
    """One stored event: its sequence, the tail that it addressed, its raw header block and its payload.

    In a bucket the key stands in the place of the tail.
    """

    sequence: int
    tail: str
    header: bytes
    payload: bytes
    left: int = 0
    """How many of what was asked for come after it."""


class Page(NamedTuple):
    """Events in their order, and how many that were asked for as well come after the last of them."""

    events: list[Stored]
    left: int
    upto: int
    """Where the last event on each subject was asked for: the sequence up to which the server has looked."""
    too_many: bool = False


class Pages:
    """Reads pages of one stream on one connection."""

    def __init__(self, bus: Bus, stream: str, prefix: str) -> None:
        """`prefix` stands before the tail in the subjects of `stream`."""
        self._bus = bus
        self._skip = len(prefix)
        self._subject = f"$JS.API.DIRECT.GET.{stream}"
        self._origin = Origin(stream)
        self._slots = asyncio.Semaphore(at_once(bus.client.max_payload))

    async def page(self, ask: dict[str, Any]) -> Page:
        """The first of what `ask` is for. Raises BrokerUnavailable."""
        async with self._slots:
            return await self._ask(msgspec.json.encode({**ask, "max_bytes": PAGE_BYTES}))

    async def _ask(self, ask: bytes) -> Page:
        if not self._bus.connected:
            raise BrokerUnavailable("NATS is away")
        answer = PageCollector(self._origin, self._skip)
        try:
            with self._bus.inbox.collect(self._subject, ask, answer):
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    return await answer.page
        except TimeoutError as error:
            raise BrokerUnavailable("NATS did not send the events that were missed") from error
        except TooLarge as error:  # NATS takes less by now
            raise BrokerUnavailable("NATS can't be asked for the events that were missed") from error


class PageCollector:
    """Makes a page of what comes for one request (Collector, bus/requests/inbox.py), or an error."""

    def __init__(self, origin: Origin, skip: int) -> None:
        """`origin` knows the stream's messages; `skip` characters of a subject are before the tail."""
        self.page: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        self._origin = origin
        self._skip = skip
        self._events: list[Stored] = []
        self._last = 0
        """Sequence of the last message that came, as the next one, or the end, has to name it."""

    def take(self, block: bytes, payload: bytes) -> None:
        if self.page.done():
            return
        place = self._origin.got(block)  # before any status: a publisher may write the first line too
        if place is not None:
            self._add(place, block, payload)
        elif (status := headers.status(block)) == 204:
            self._finish(block)
        elif status is not None:
            self._refuse(status)
        else:
            self._fail("what NATS sent of the stream can't be read")

    def cut_off(self) -> None:
        self._fail("NATS went away")

    def _fail(self, reason: str) -> None:
        if not self.page.done():
            self.page.set_exception(BrokerUnavailable(reason))

    def _add(self, place: Place, block: bytes, payload: bytes) -> None:
        if place.previous != self._last or place.sequence <= self._last:
            self._fail("a part of what NATS sent of the stream was lost")
            return
        self._last = place.sequence
        tail = place.subject.decode("utf-8", "surrogateescape")[self._skip :]  # any bytes: those of no text come back
        self._events.append(Stored(place.sequence, tail, block, payload, place.left))

    def _finish(self, block: bytes) -> None:
        left, last = headers.field(block, headers.PENDING), headers.field(block, headers.LAST_SEQUENCE)
        if last != b"%d" % self._last:
            self._fail("a part of what NATS sent of the stream was lost")
        elif left is None or (left != b"0" and not self._events):
            self._fail("what NATS sent of the stream can't be read")
        else:
            upto = headers.field(block, headers.UP_TO_SEQUENCE) or b"0"
            self.page.set_result(Page(self._events, int(left), int(upto)))

    def _refuse(self, status: int) -> None:
        if status not in (NOTHING, TOO_MANY):
            self._fail(f"NATS refused to read the stream (status {status})")
        elif self._events:
            self._fail("a part of what NATS sent of the stream was lost")
        else:
            self.page.set_result(Page([], 0, 0, status == TOO_MANY))


def at_once(max_payload: int) -> int:
    """How many pages may be asked for at once if an event may have `max_payload` bytes."""
    return max(1, min(AT_ONCE, ON_THE_WAY_BYTES // (PAGE_BYTES + max_payload)))
