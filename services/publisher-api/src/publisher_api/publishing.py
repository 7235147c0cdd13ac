"""Publishing, as a use case that knows no HTTP: from a checked request to the bus, within a PRODUCER span."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from secrets import token_hex

import msgspec
from opentelemetry.trace import Span, SpanKind, Tracer

from publisher_api.requests import LINE, Published, event_of, line_tail_of
from tidegate_common.bus.control import ASK_SECONDS, AllGateways
from tidegate_common.bus.publishing import Publisher
from tidegate_common.contract.events import RECEIPT, Receipt
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerUnavailable, TidegateError
from tidegate_common.runtime.body import decode
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import inject

WINDOW = 256
"""Lines of a batch that are on their way at once."""


class Sent(msgspec.Struct, frozen=True):
    """An event that was accepted: `stored` is None for a volatile one.

    `delivered` counts the connections that it was written to, where `counted` says that this was asked for: None where
    it can't be told. `complete` is False where some gateway did not answer in time.
    """

    stored: Receipt | None
    counted: bool = False
    delivered: int | None = None
    complete: bool = True


class LineResult(msgspec.Struct, frozen=True):
    """What became of one line: how it was sent, or its error."""

    line: int
    sent: Sent | None
    error: TidegateError | None


@contextmanager
def producing(tracer: Tracer, subject: str) -> Iterator[tuple[Span, dict[str, str]]]:
    """A span for sending to `subject`, and the headers that carry its context."""
    attributes = {
        names.MESSAGING_SYSTEM: "nats",
        names.MESSAGING_OPERATION_NAME: "send",
        names.MESSAGING_OPERATION_TYPE: "send",
        names.MESSAGING_DESTINATION: subject,
    }
    with tracer.start_as_current_span(f"send {subject}", kind=SpanKind.PRODUCER, attributes=attributes) as span:
        headers: dict[str, str] = {}
        inject(headers)
        yield span, headers


def message_id(tail: str, key: str | None) -> str | None:
    """The message id of an idempotency key: the same key for another target is another event."""
    return None if key is None else hashlib.sha256(f"{tail}\0{key}".encode()).hexdigest()[:32]


class Sending:
    """Sends events one by one and in batches."""

    def __init__(
        self, publisher: Publisher, gateways: AllGateways, subjects: Subjects, tracer: Tracer, max_ttl_seconds: int
    ) -> None:
        self._publisher = publisher
        self._gateways = gateways
        self._subjects = subjects
        self._tracer = tracer
        self._max_ttl = max_ttl_seconds

    async def send(self, tail: str, published: Published, key: str | None = None) -> Sent:
        """Publishes to `tail`, and asks the gateways for the receipt where one is wanted.

        Raises InvalidField, TooLarge, BrokerUnavailable: then nothing was accepted.
        """
        event = event_of(published, self._max_ttl)
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
                    tail, event, headers=headers, message_id=message_id(tail, key), ttl_seconds=published.ttl
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

    async def batch(self, lines: Iterable[bytes], key: str | None = None) -> list[LineResult]:
        """Publishes each line that is not empty, in their order, WINDOW at a time; one bad line stops no other.

        Once NATS is away, the lines of later windows are refused without a try.
        """
        results: list[LineResult] = []
        away: BrokerUnavailable | None = None
        for window in _windows(lines):
            if away is not None:
                results += [LineResult(number, None, away) for number, _ in window]
                continue
            done = await asyncio.gather(*(self._line(number, line, key) for number, line in window))
            results += done
            away = next((found.error for found in done if isinstance(found.error, BrokerUnavailable)), None)
        return results

    async def _line(self, number: int, line: bytes, key: str | None) -> LineResult:
        try:
            found = decode(LINE, line)
            line_key = None if key is None else f"{key}:{number}"
            return LineResult(number, await self.send(line_tail_of(found), found, line_key), None)
        except TidegateError as error:
            return LineResult(number, None, error)


def _windows(lines: Iterable[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """(line number from 1, line) of the lines that are not empty, WINDOW at a time."""
    window: list[tuple[int, bytes]] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            window.append((number, line))
        if len(window) == WINDOW:
            yield window
            window = []
    if window:
        yield window
