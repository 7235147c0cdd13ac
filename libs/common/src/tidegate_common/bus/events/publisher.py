"""Writes events: durable ones through JetStream, which gives them their id, volatile ones to whoever listens now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count
from secrets import token_hex
from typing import NamedTuple

from nats import errors as nats_errors

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.refusals import AWAY, Refusals
from tidegate_common.bus.events.writer import Ack, Message, PubAck, StreamWriter, late
from tidegate_common.bus.streams.leaders import NO_STREAM, Leaders
from tidegate_common.bus.streams.patience import Patience
from tidegate_common.bus.wire import headers as header_blocks
from tidegate_common.contract.events import EVENT_TYPE, MESSAGE_ID, TTL, VOLATILE_ID, Event, Receipt
from tidegate_common.contract.ids import EventId
from tidegate_common.errors import BrokerUnavailable, NotSent, TidegateError, TooLarge


class Durable(NamedTuple):
    """An event to be stored for `tail`; the other fields are as `EventPublisher.durable` has them."""

    tail: str
    event: Event
    message_id: str | None = None
    ttl_seconds: int | None = None
    headers: Mapping[str, str] | None = None
    """Instead of those of the call."""


class EventPublisher:
    """Publishes on one connection. A durable event is confirmed by the stream before a call returns."""

    def __init__(
        self, bus: Bus, history: History, deadline_seconds: float = 3.0, leaders: Leaders | None = None
    ) -> None:
        """`leaders` has the deadline, if it is given, and waits for elections as it says."""
        leaders = leaders or Leaders(bus, Patience(deadline_seconds=deadline_seconds))
        self._bus = bus
        self._history = history
        self.leaders = leaders
        self._deadline = leaders.patience.deadline_seconds
        self.refusals = Refusals()
        self._writer = StreamWriter(bus, leaders, self.refusals)
        # A uuid for each message took 8 % of a batch's time; a name that no other process has drawn does as well.
        self._name, self._count = token_hex(12), count(1)
        self.published = {"durable": 0, "volatile": 0}

    async def durable(
        self,
        tail: str,
        event: Event,
        *,
        headers: Mapping[str, str],
        message_id: str | None = None,
        ttl_seconds: int | None = None,
    ) -> Receipt:
        """Stores `event` for `tail` and gives its id.

        The same `message_id` within the stream's duplicate window stores nothing and gives the first one's id; without
        one, nothing is a duplicate: what the stream knows already is what this call has sent before.
        `headers` are sent along (trace context). Raises BrokerUnavailable if the stream did not confirm within
        the deadline, TooLarge.
        """
        (found,) = await self.durable_all([Durable(tail, event, message_id, ttl_seconds)], headers=headers)
        if isinstance(found, TidegateError):
            raise found
        return found

    async def durable_all(
        self, events: Sequence[Durable], *, headers: Mapping[str, str]
    ) -> list[Receipt | TidegateError]:
        """As `durable`, for each of them, stored in their order. One's error stops no other."""
        messages = [self._message_of(each, headers) for each in events]
        stored = await self._writer.store([each for each in messages if isinstance(each, Message)])
        epoch: str | TidegateError = ""
        if any(isinstance(each, PubAck) and each.epoch is None for each in stored):
            epoch = await self._ask_epoch()
        found = iter(stored)
        return [
            message if isinstance(message, TooLarge) else self._receipt(each, next(found), epoch)
            for each, message in zip(events, messages, strict=True)
        ]

    async def volatile(self, tail: str, event: Event, *, headers: Mapping[str, str]) -> None:
        """Hands `event` to whoever listens for `tail` now; waits if NATS is away for a moment.

        Raises BrokerUnavailable, TooLarge.
        """
        payload = event.data.encode()
        fields = {**headers, EVENT_TYPE: event.type, VOLATILE_ID: self._new_id()}
        block = header_blocks.block(fields)
        self._check_size(block, payload)
        subject = self._bus.subjects.outbound(tail)

        async def send() -> None:
            if not self._bus.connected:
                raise NotSent("NATS is away: nothing was published")
            try:
                await self._bus.client.publish(subject, payload, headers=fields)
            except nats_errors.MaxPayloadError:  # it takes less, since this waited
                self._check_size(block, payload)
                raise
            except nats_errors.Error as error:
                raise BrokerUnavailable("NATS is away: nothing was published") from error

        try:
            await self.leaders.outlast(NO_STREAM, send)
        except NotSent:
            self.refusals.counts[AWAY] += 1
            raise
        self.published["volatile"] += 1

    async def store(
        self, subject: str, payload: bytes, fields: Mapping[str, str], message_id: str | None, room: int = 0
    ) -> Ack:
        """Puts one message into the stream that `subject` belongs to, sent again under one id until the deadline.

        It is to leave `room` bytes of what NATS takes. Raises BrokerUnavailable, QueueFull (a stream that discards new
        messages is full), TooLarge.
        """
        message = self._message(subject, payload, fields, message_id)
        self._check_size(message.block, payload, room)
        (found,) = await self._writer.store([message])
        if isinstance(found, TidegateError):
            raise found
        return found.ack

    def _message_of(self, durable: Durable, headers: Mapping[str, str]) -> Message | TooLarge:
        fields = {**(headers if durable.headers is None else durable.headers), EVENT_TYPE: durable.event.type}
        if durable.ttl_seconds is not None:
            fields[TTL] = f"{durable.ttl_seconds}s"
        subject = self._bus.subjects.inbound(durable.tail)
        try:
            return self._message(subject, durable.event.data.encode(), fields, durable.message_id)
        except TooLarge as error:
            return error

    def _message(self, subject: str, payload: bytes, fields: Mapping[str, str], message_id: str | None) -> Message:
        """Raises TooLarge."""
        block = header_blocks.block({**fields, MESSAGE_ID: message_id or self._new_id()})
        self._check_size(block, payload)
        return Message(subject, payload, block)

    async def _ask_epoch(self) -> str | TidegateError:
        """Within a deadline too: an event that is stored gets its id soon, or is late.

        An answer that was asked for before the stream was doubted says nothing of what is stored after it.
        """
        writer, doubts = self._writer, self._writer.doubts
        if writer.epoch is not None:
            return writer.epoch
        try:
            async with asyncio.timeout(self._deadline):
                epoch = (await self._history.position()).epoch
        except BrokerUnavailable as error:
            return error
        except TimeoutError:
            return late()
        if writer.doubts == doubts:
            writer.epoch = epoch
        return epoch

    def _receipt(
        self, durable: Durable, stored: PubAck | TidegateError, epoch: str | TidegateError
    ) -> Receipt | TidegateError:
        """`epoch` is that of an event that was stored when none was known."""
        if isinstance(stored, TidegateError):
            return stored
        if stored.epoch is not None:
            epoch = stored.epoch
        if isinstance(epoch, TidegateError):
            return epoch
        self.published["durable"] += 1
        return Receipt(str(EventId(epoch, stored.ack.seq)), stored.ack.duplicate and durable.message_id is not None)

    def _new_id(self) -> str:
        return f"{self._name}{next(self._count):09x}"  # all of one length: what is allowed at most is the same for all

    def _check_size(self, block: bytes, payload: bytes, room: int = 0) -> None:
        """Raises TooLarge if the server would close the connection: headers count for it, too."""
        limit = int(self._bus.client.max_payload) - len(block) - room
        if len(payload) > limit:
            raise TooLarge("the event's data", max(0, limit))
