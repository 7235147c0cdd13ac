"""Publishing, as a use case that knows no HTTP: from a checked request to the bus, within a PRODUCER span."""

from __future__ import annotations

import hashlib
from secrets import token_hex
from typing import NamedTuple

import msgspec
from opentelemetry.trace import Tracer

from publisher_api.requests import Published, event_of
from tidegate_common.bus.control import ASK_SECONDS, AllGateways
from tidegate_common.bus.publishing import Publisher
from tidegate_common.contract.events import RECEIPT, Event, Receipt
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerUnavailable, InvalidField
from tidegate_common.telemetry import names
from tidegate_common.telemetry.sending import producing


class Sent(msgspec.Struct, frozen=True):
    """An event that was accepted: `stored` is None for a volatile one.

    `delivered` counts the connections that it was written to, where `counted` says that this was asked for: None where
    it can't be told. `complete` is False where some gateway did not answer in time.
    """

    stored: Receipt | None
    counted: bool = False
    delivered: int | None = None
    complete: bool = True


class Outgoing(NamedTuple):
    """An event that may be sent: what the caller said, checked, and the caller's idempotency key."""

    tail: str
    published: Published
    event: Event
    key: str | None

    @property
    def message_id(self) -> str | None:
        """The same key for another target is another event."""
        return None if self.key is None else hashlib.sha256(f"{self.tail}\0{self.key}".encode()).hexdigest()[:32]


class Sending:
    """Sends events, one for each call."""

    def __init__(
        self, publisher: Publisher, gateways: AllGateways, subjects: Subjects, tracer: Tracer, max_ttl_seconds: int
    ) -> None:
        self._publisher = publisher
        self._gateways = gateways
        self._subjects = subjects
        self._tracer = tracer
        self._max_ttl = max_ttl_seconds

    def outgoing(self, tail: str, published: Published, key: str | None = None) -> Outgoing:
        """Raises InvalidField."""
        if key is not None and not published.durable:
            raise InvalidField(
                "Idempotency-Key", "only with durable true: a volatile event is kept nowhere to be known by"
            )
        return Outgoing(tail, published, event_of(published, self._max_ttl), key)

    async def send(self, outgoing: Outgoing) -> Sent:
        """Publishes it, and asks the gateways for the receipt where one is wanted.

        Raises TooLarge, BrokerUnavailable: then nothing was confirmed.
        """
        tail, published, event, _ = outgoing
        subject = self._subjects.inbound(tail) if published.durable else self._subjects.outbound(tail)
        with producing(self._tracer, subject) as (span, headers):
            receipt_id = token_hex(16) if published.receipt else None
            if receipt_id is not None:
                headers[RECEIPT] = receipt_id
            if span.is_recording():
                span.set_attribute(names.MESSAGING_BODY_SIZE, len(event.data.encode()))
            if not published.durable:
                await self._publisher.volatile(tail, event, headers=headers)
                stored = None
            else:
                stored = await self._publisher.durable(
                    tail, event, headers=headers, message_id=outgoing.message_id, ttl_seconds=published.ttl
                )
                span.set_attribute(names.MESSAGING_MESSAGE_ID, stored.id)
        if receipt_id is None:
            return Sent(stored)
        if stored is not None and stored.duplicate:
            return Sent(stored, counted=True)  # what was sent before went under another receipt id
        try:
            count = await self._gateways.delivered(tail, receipt_id, ASK_SECONDS)
        except BrokerUnavailable:
            return Sent(stored, counted=True)  # the event was accepted all the same
        return Sent(stored, counted=True, delivered=count.total, complete=count.complete)
