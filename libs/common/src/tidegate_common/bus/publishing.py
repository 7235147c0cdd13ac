"""Writes events: durable ones through JetStream, which gives them their id, volatile ones to whoever listens now."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping

import msgspec
import stamina
from nats import errors as nats_errors

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.history import History
from tidegate_common.contract.events import EVENT_TYPE, MESSAGE_ID, VOLATILE_ID, Event, Receipt
from tidegate_common.contract.ids import EventId
from tidegate_common.errors import BrokerUnavailable, QueueFull, TooLarge

ATTEMPT_SECONDS = 2.0


class _ApiError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: _ApiError | None = None


_ACK = msgspec.json.Decoder(_Ack)
_STREAM_FULL = {10077, 10122}  # maximum messages exceeded; its reservation-time sibling


class _TryAgain(Exception):
    """The server was away or between leaders: the same message id may be sent again."""


class Publisher:
    """Publishes on one connection. A durable event is confirmed by the stream before a call returns."""

    def __init__(self, bus: Bus, history: History, deadline_seconds: float = 3.0) -> None:
        self._bus = bus
        self._history = history
        self._epoch: str | None = None
        self._last = 0
        self._deadline = deadline_seconds
        self.published = {"durable": 0, "volatile": 0}
        bus.on_reconnect.append(self._forget_epoch)

    async def _forget_epoch(self) -> None:
        # The server that came back may have lost the stream, which was then made anew: ask before the next id.
        self._epoch = None

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
        `headers` are sent along (trace context). Raises BrokerUnavailable where the stream did not confirm within
        the deadline, TooLarge.
        """
        fields = {**headers, EVENT_TYPE: event.type}
        if ttl_seconds is not None:
            fields["Nats-TTL"] = f"{ttl_seconds}s"
        ack = await self.store(self._bus.subjects.inbound(tail), event.data.encode(), fields, message_id)
        if not ack.duplicate:
            if ack.seq <= self._last:
                self._epoch = None  # the stream counts from the start again: it was made anew
            self._last = ack.seq
        if self._epoch is None:
            self._epoch = (await self._history.position()).epoch
        self.published["durable"] += 1
        return Receipt(str(EventId(self._epoch, ack.seq)), ack.duplicate and message_id is not None)

    async def volatile(self, tail: str, event: Event, *, headers: Mapping[str, str]) -> None:
        """Hands `event` to whoever listens for `tail` now. Raises BrokerUnavailable, TooLarge."""
        payload = event.data.encode()
        self._check_size(payload)
        if not self._bus.connected:
            raise BrokerUnavailable("NATS is away: nothing was published")
        fields = {**headers, EVENT_TYPE: event.type, VOLATILE_ID: uuid.uuid4().hex}
        try:
            await self._bus.client.publish(self._bus.subjects.outbound(tail), payload, headers=fields)
        except nats_errors.Error as error:
            raise BrokerUnavailable("NATS is away: nothing was published") from error
        self.published["volatile"] += 1

    async def store(self, subject: str, payload: bytes, fields: dict[str, str], message_id: str | None) -> _Ack:
        """Puts one message into the stream that `subject` belongs to, sent again under one id until the deadline.

        Raises BrokerUnavailable, QueueFull (a stream that discards new messages is full), TooLarge.
        """
        self._check_size(payload)
        fields = {**fields, MESSAGE_ID: message_id or uuid.uuid4().hex}
        with contextlib.suppress(_TryAgain):
            return await self._store_once(subject, payload, fields)  # nearly always: without the loop's cost
        try:
            async for attempt in stamina.retry_context(
                on=_TryAgain,
                attempts=None,
                timeout=self._deadline,
                wait_initial=0.05,
                wait_max=0.5,
                wait_jitter=0.1,
            ):
                with attempt:
                    return await self._store_once(subject, payload, fields)
        except _TryAgain as error:
            raise BrokerUnavailable("NATS did not confirm in time: the event was not accepted") from error
        raise AssertionError("unreachable")

    async def _store_once(self, subject: str, payload: bytes, fields: dict[str, str]) -> _Ack:
        if not self._bus.connected:
            # Never into the client's buffer: it would be sent after the caller was told that it was refused.
            raise _TryAgain("NATS is away")
        try:
            answer = await self._bus.client.request(subject, payload, timeout=ATTEMPT_SECONDS, headers=fields)
        except (nats_errors.Error, TimeoutError) as error:
            if isinstance(error, nats_errors.NoRespondersError):
                self._epoch = None  # no leader, or no stream: the next one may be another
            raise _TryAgain(str(error)) from error
        ack = _ACK.decode(answer.data)
        if ack.error is not None:
            if ack.error.err_code in _STREAM_FULL:
                raise QueueFull("the queue is full", retry_after=5)
            raise _TryAgain(ack.error.description)
        return ack

    def _check_size(self, payload: bytes) -> None:
        limit = int(self._bus.client.max_payload) - 4096  # headers count too
        if len(payload) > limit:
            raise TooLarge("the event's data", limit)
