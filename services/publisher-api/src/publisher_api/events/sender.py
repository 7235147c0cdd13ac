"""Publishing, as a use case that knows no HTTP: from a checked request to the bus, within a PRODUCER span."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from secrets import token_hex
from typing import NamedTuple

import msgspec
from opentelemetry.trace import Span, StatusCode, Tracer

from publisher_api.bodies import Published, Target, event_of
from publisher_api.events.repeats import Repeats
from tidegate_common.bus.events.publisher import Durable, EventPublisher
from tidegate_common.bus.requests.gateways import ASK_SECONDS, AllGateways
from tidegate_common.contract.events import RECEIPT, Event, Receipt
from tidegate_common.contract.ids import keyed_id
from tidegate_common.contract.principal import Principal
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerUnavailable, InvalidField, TidegateError
from tidegate_common.runtime.tasks import end
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import inject, left_out
from tidegate_common.telemetry.spans import producer


class Sent(msgspec.Struct, frozen=True):
    """An event that was accepted: `stored` is None for a volatile one.

    `delivered` counts the connections that it was written to, if `counted` says that this was asked for: None if
    it can't be told. `complete` is False if some gateway did not answer in time.
    """

    stored: Receipt | None
    counted: bool = False
    delivered: int | None = None
    complete: bool = True


class OutgoingEvent(NamedTuple):
    """An event that may be sent: what the caller said, checked, and the message's id if there is an idempotency key."""

    target: Target
    published: Published
    event: Event
    message_id: str | None

    @property
    def tail(self) -> str:
        return self.target.tail


class EventSender:
    """Sends events."""

    def __init__(
        self,
        publisher: EventPublisher,
        repeats: Repeats,
        gateways: AllGateways,
        subjects: Subjects,
        tracer: Tracer,
        max_ttl_seconds: int,
    ) -> None:
        self._publisher = publisher
        self._repeats = repeats
        self._gateways = gateways
        self._subjects = subjects
        self._tracer = tracer
        self._max_ttl = max_ttl_seconds

    def outgoing(
        self, principal: Principal, target: Target, published: Published, key: str | None = None
    ) -> OutgoingEvent:
        """An event that `principal` sends. Raises InvalidField; Forbidden, Unauthenticated if it may not."""
        if key is not None and not published.durable:
            raise InvalidField(
                "Idempotency-Key", "only with durable true: a volatile event is kept nowhere to be known by"
            )
        event = event_of(published, self._max_ttl)
        principal.check_publishes(*target)
        # Of the key alone: under it another event, to whomever, is refused (repeats.py).
        message_id = None if key is None else keyed_id("event", *principal.key_words(key))
        return OutgoingEvent(target, published, event, message_id)

    async def send(self, outgoing: OutgoingEvent) -> Sent:
        """Publishes it, and asks the gateways for the receipt if one is wanted.

        Raises TooLarge, BrokerUnavailable: then nothing was confirmed; KeyReused, and nothing was sent.
        """
        (found,) = await self.send_all([outgoing])
        if isinstance(found, TidegateError):
            raise found
        return found

    async def send_all(self, lines: Sequence[OutgoingEvent]) -> list[Sent | TidegateError]:
        """As `send`, for each of them, in their order: what follows on a durable event is sent when that is stored.

        Durable ones in a row are on their way together. One's error stops no other.
        """
        letters = self._letters(lines)
        receipts: list[asyncio.Task[None]] = []
        try:
            for durable, run in groupby(letters, _is_durable):
                together = list(run)
                await (self._store(together) if durable else self._hand_over(together))
                for letter in together:
                    letter.close()
                    if letter.receipt_id is not None and isinstance(letter.found, Sent):
                        receipts.append(asyncio.create_task(self._count(letter, letter.receipt_id)))
            if receipts:
                await asyncio.wait(receipts)
                for each in receipts:
                    each.result()
        finally:
            await end(receipts)
            for letter in letters:
                letter.close()
        return [letter.found for letter in letters]

    def _letters(self, lines: Sequence[OutgoingEvent]) -> list[_Letter]:
        """`lines`, each with its headers, and a span of its own if the trace is recorded."""
        if left_out():  # for all of them: a line of a batch costs 18 µs so
            shared: dict[str, str] = {}
            inject(shared)
            return [_Letter(line, shared, None) for line in lines]
        return [_Letter(line, *producer(self._tracer, self._subject(line))) for line in lines]

    def _subject(self, line: OutgoingEvent) -> str:
        return self._subjects.inbound(line.tail) if line.published.durable else self._subjects.outbound(line.tail)

    async def _store(self, letters: Sequence[_Letter]) -> None:
        stored = await self._publisher.durable_all([each.durable() for each in letters], headers={})
        repeated = []
        for letter, found in zip(letters, stored, strict=True):
            letter.found = Sent(found) if isinstance(found, Receipt) else found
            if isinstance(found, Receipt) and found.duplicate:
                repeated.append(self._compare(letter, found))
        if repeated:
            await asyncio.gather(*repeated)

    async def _compare(self, letter: _Letter, receipt: Receipt) -> None:
        """A repeat has the first one's answer only if it is the same event."""
        try:
            await self._repeats.check(letter.durable(), receipt)
        except TidegateError as error:
            letter.found = error

    async def _hand_over(self, letters: Sequence[_Letter]) -> None:
        for letter in letters:
            try:
                await self._publisher.volatile(letter.line.tail, letter.line.event, headers=letter.headers)
                letter.found = Sent(None)
            except TidegateError as error:
                letter.found = error

    async def _count(self, letter: _Letter, receipt_id: str) -> None:
        """Asks the gateways to how many connections it was written."""
        stored = letter.found.stored if isinstance(letter.found, Sent) else None
        letter.found = Sent(stored, counted=True)
        if stored is not None and stored.duplicate:
            return  # what was sent before went under another receipt id
        with suppress(BrokerUnavailable):  # the event was accepted all the same
            count = await self._gateways.delivered(letter.line.tail, receipt_id, ASK_SECONDS)
            letter.found = Sent(stored, counted=True, delivered=count.total, complete=count.complete)


class _Letter:
    """A line under way. `found` is what became of it."""

    __slots__ = ("_span", "found", "headers", "line", "receipt_id")

    def __init__(self, line: OutgoingEvent, headers: Mapping[str, str], span: Span | None) -> None:
        self.line = line
        self.headers = headers
        self._span = span
        self.receipt_id = token_hex(16) if line.published.receipt else None
        if self.receipt_id is not None:
            self.headers = {**headers, RECEIPT: self.receipt_id}
        if span is not None and span.is_recording():
            span.set_attribute(names.MESSAGING_BODY_SIZE, len(line.event.data.encode()))
        self.found: Sent | TidegateError = _NOT_SENT

    def durable(self) -> Durable:
        line = self.line
        return Durable(line.tail, line.event, line.message_id, line.published.ttl, self.headers)

    def close(self) -> None:
        """Ends the span, with what became of the line."""
        span, self._span = self._span, None
        if span is None:
            return
        if isinstance(self.found, TidegateError):
            span.record_exception(self.found)
            span.set_status(StatusCode.ERROR, f"{type(self.found).__name__}: {self.found}")
        elif self.found.stored is not None:
            span.set_attribute(names.MESSAGING_MESSAGE_ID, self.found.stored.id)
        span.end()


_NOT_SENT = BrokerUnavailable("it was not sent")


def _is_durable(letter: _Letter) -> bool:
    return letter.line.published.durable
