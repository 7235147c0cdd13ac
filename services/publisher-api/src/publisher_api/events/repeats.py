"""Tells an event that is sent again from another one under the same `Idempotency-Key`.

The stream knows a key for two minutes, and answers whatever comes under it with the first event's place. So what is
stored there is compared: who gets it, its type, its data, and for how long it is replayed. This is asked of the server
only if it says that it has the key already; a first event costs no more.
"""

from __future__ import annotations

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.publisher import Durable
from tidegate_common.bus.wire import headers
from tidegate_common.contract.events import Receipt
from tidegate_common.contract.ids import EventId
from tidegate_common.errors import KeyReused


class Repeats:
    """Compares on one connection."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def check(self, sent: Durable, receipt: Receipt) -> None:
        """Raises KeyReused if `receipt`, a duplicate's, is that of another event than `sent`.

        If the first event is not kept any more, nobody can tell, and its answer stands. Raises BrokerUnavailable.
        """
        first = EventId.parse(receipt.id)
        found = first and await self._bus.api.message(self._bus.subjects.events_stream, seq=first.sequence)
        if not found:
            return
        ttl = None if sent.ttl_seconds is None else f"{sent.ttl_seconds}s".encode()
        same = (
            found.subject == self._bus.subjects.inbound(sent.tail)
            and found.payload == sent.event.data.encode()
            and headers.field(found.block, headers.EVENT_TYPE) == sent.event.type.encode()
            and headers.field(found.block, headers.TTL) == ttl
        )
        if not same:
            raise KeyReused("another key, or the same target, type, data and ttl as the first time")
