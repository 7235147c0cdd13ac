"""From NATS to the hub: one subscription per audience, each event encoded once, in the parser's own call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from types import MethodType

from opentelemetry.trace import SpanKind

from gateway.feed.holes import HoleDetector
from gateway.feed.life import StreamLife
from gateway.feed.other_streams import OtherStreams
from gateway.feed.receipts import Receipts
from gateway.feed.replay import stored_chunk
from gateway.feed.stream_ends import StreamEnds
from gateway.hub.endings import Ending
from gateway.hub.hub import Audience, Hub
from gateway.hub.tails import split
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.origin import Origin, stamp
from tidegate_common.bus.jobs.events import belongs
from tidegate_common.bus.unusable import shown
from tidegate_common.bus.wire import headers
from tidegate_common.bus.wire.limits import NO_MORE
from tidegate_common.bus.wire.tap import Deliver
from tidegate_common.errors import SubscriptionRefused
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import extract
from tidegate_common.telemetry.providers import Telemetry

SAMPLED = b"13579bdf"
"""Last digits of a `traceparent` whose trace is recorded: bit 0 of its flags, beside others (W3C Trace Context)."""

LATENCY_EVERY = 64
"""One event in so many has its delivery latency measured: parsing a time stamp costs more than framing an event."""


class Subscriptions:
    """The hub's interest, kept in NATS subscriptions."""

    def __init__(
        self,
        bus: Bus,
        hub: Hub,
        life: StreamLife,
        holes: HoleDetector,
        receipts: Receipts,
        stream_ends: StreamEnds,
        telemetry: Telemetry,
    ) -> None:
        self._bus = bus
        self._hub = hub
        self._life = life
        self._holes = holes
        self._receipts = receipts
        self._stream_ends = stream_ends
        self._tracer = telemetry.tracer
        self._tracing = telemetry.tracing
        self._latency = telemetry.meter.create_histogram(
            names.METRIC_DELIVERY_LATENCY, "s", "From an event's storing to its writing, one event in 64"
        )
        self._origin = Origin.of_events(bus.subjects)
        self.other_streams = OtherStreams()
        self._count = 0
        self._framed: tuple[int, bytes, bytes] = (0, b"", b"")
        """The last event's sequence, its header block, and the chunk that was made of it."""
        self.received = 0
        self._refused: dict[str, str] = {}
        """By tail that somebody listens to: why NATS brings nothing on it."""
        hub.interest = self

    def subscribe(self, audience: Audience) -> None:
        # Whoever needs it asks for the stream's position next: one write to NATS for all who came meanwhile, not one
        # each (25 µs). Ends go along with the next thing that is said, an announcement within a second.
        tail, job_id = split(audience.tail)
        subject = self._bus.subjects.outbound(tail)
        # A `partial` takes four objects, 264 bytes, for each client, which are not in a cache when its event comes.
        receive: Deliver = MethodType(self._receive, audience)
        if job_id:
            receive = partial(self._receive_for, audience, job_id.encode())
        try:
            audience.subscription = self._bus.client.subscribe_direct(
                subject, receive, at_once=False, refused=self._refuse
            )
        except SubscriptionRefused as error:
            self._refused[audience.tail] = str(error)

    def unsubscribe(self, audience: Audience) -> None:
        self._stream_ends.drop(audience.tail)
        self._refused.pop(audience.tail, None)
        self._bus.client.unsubscribe_direct(audience.subscription, at_once=False)

    def check(self, tails: Iterable[str]) -> None:
        """Raises SubscriptionRefused if NATS may bring nothing on some of `tails`: no stream beats a deaf one."""
        if self._bus.client.refusing:
            raise SubscriptionRefused(NO_MORE)
        for tail in tails if self._refused else ():
            if tail in self._refused:
                raise SubscriptionRefused(self._refused[tail])

    def _refuse(self, subject: str, reason: str) -> None:
        """NATS does not take a subscription (any more). Streams end; one that is being attached looks for itself."""
        tail = subject[len(self._bus.subjects.outbound("")) :]
        for audience in [each for each in self._hub.everyone() if split(each.tail)[0] == tail]:
            self._refused[audience.tail] = reason
            for session in (*audience.live, *audience.joining):
                if session.position >= 0:
                    self._hub.end(session, Ending.FEED)

    def _receive(self, audience: Audience, subject: bytes, header: bytes, payload: bytes) -> None:
        self.received += 1
        place = self._origin.republished(header, subject)
        receipt_id = headers.field(header, headers.RECEIPT) if header.find(headers.RECEIPT) > 0 else None
        if place is None:
            volatile_id = headers.field(header, headers.VOLATILE_ID) or b"%d" % self.received
            if header.find(headers.SEQUENCE) >= 0:
                volatile_id = self.other_streams.take(subject, header)
            chunk = stored_chunk(None, header, payload)
            if receipt_id is None:
                self._hub.volatile(audience, volatile_id, chunk)
            else:
                self._receipts.volatile(receipt_id, audience, volatile_id, chunk)
        else:
            number, previous = place
            # Before the event is handed on: if one is missing before it, those who are live are held by then.
            self._holes.follow(audience, subject, number, previous)
            framed = self._framed
            # Several audiences may match one event: it is encoded once, unless its id is not whole yet. Its sequence is
            # not enough: another life of the stream gives that again. The header's time stamp tells the two apart.
            if number != framed[0] or header != framed[1] or not self._life.prefix:
                chunk = stored_chunk(self._life.event_id(number), header, payload)
                self._framed = framed = (number, header, chunk)
            if receipt_id is None:
                self._hub.durable(audience, number, framed[2])
            else:
                self._receipts.durable(receipt_id, audience, number, framed[2])
            if not self._life.prefix:
                self._read_instead(audience)
            self._count += 1
            if self._count % LATENCY_EVERY == 0:
                self._measure(header)
        if self._tracing and header.find(headers.TRACE_PARENT) > 0:
            self._trace(audience, subject, header, payload)

    def _receive_for(self, audience: Audience, job_id: bytes, subject: bytes, header: bytes, payload: bytes) -> None:
        """As `_receive`, for one job's own stream: of what else goes to the tail only the places count."""
        ours = belongs(header, job_id)
        if ours:
            self._receive(audience, subject, header, payload)
            if header.find(headers.JOB_END) < 0:
                return
        place = self._origin.republished(header, subject)
        if place is None:
            return
        if ours:
            self._stream_ends.note(audience.tail, place[0])
            # Not now: a session's position, which says that it has the event, may move at the end of the pass only.
            self._at_end_of_pass(partial(self._stream_ends.finish_all, audience))
        else:
            self._holes.follow(audience, subject, *place)

    @staticmethod
    def _read_instead(audience: Audience) -> None:
        """The stream's epoch is not known yet: what was held of it has no whole id. Nobody is live before it is."""
        for session in audience.joining:
            if session.held is not None:
                session.held.break_off()

    def _measure(self, header: bytes) -> None:
        when = stamp(header)
        if when is not None:
            stored = datetime.fromisoformat(when.decode("latin-1")[:26].rstrip("Z") + "+00:00").timestamp()
            self._at_end_of_pass(lambda: self._latency.record(max(0.0, time.time() - stored)))

    def _trace(self, audience: Audience, subject: bytes, header: bytes, payload: bytes) -> None:
        """A span up to the sockets' writes, one for an event and gateway, if the event's trace is recorded."""
        parent = headers.field(header, headers.TRACE_PARENT)
        if not parent or parent[-1] not in SAMPLED:
            return
        carrier = {"traceparent": parent.decode("latin-1")}
        state = headers.field(header, headers.TRACE_STATE)
        if state is not None:
            carrier["tracestate"] = state.decode("latin-1")
        span = self._tracer.start_span(
            "deliver",
            context=extract(carrier),
            kind=SpanKind.CONSUMER,
            attributes={
                names.MESSAGING_SYSTEM: "nats",
                names.MESSAGING_OPERATION_NAME: "deliver",
                names.MESSAGING_OPERATION_TYPE: "process",
                names.MESSAGING_DESTINATION: shown(subject),
                names.MESSAGING_BODY_SIZE: len(payload),
                names.CONNECTIONS: len(audience.live) + len(audience.joining),
            },
        )
        self._at_end_of_pass(span.end)

    @staticmethod
    def _at_end_of_pass(call: Callable[[], None]) -> None:
        # The hub's flush has run by then: it comes at the end of this read, or was scheduled before this.
        asyncio.get_running_loop().call_soon(call)
