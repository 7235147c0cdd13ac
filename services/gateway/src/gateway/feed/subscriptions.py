"""From NATS to the hub: one subscription per audience, each event encoded once, in the parser's own call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from types import MethodType

from opentelemetry.trace import SpanKind

from gateway import frame
from gateway.feed.holes import HoleDetector
from gateway.feed.other_streams import OtherStreams
from gateway.feed.receipts import Receipts
from gateway.hub.endings import Ending
from gateway.hub.hub import Audience, Hub
from gateway.hub.session import Session
from gateway.hub.tails import split
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.origin import Origin, stamp
from tidegate_common.bus.jobs.events import belongs
from tidegate_common.bus.wire import headers
from tidegate_common.bus.wire.limits import NO_MORE
from tidegate_common.bus.wire.tap import Deliver
from tidegate_common.bus.wire.unusable import shown
from tidegate_common.errors import SubscriptionRefused
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import extract
from tidegate_common.telemetry.providers import Telemetry

SAMPLED = b"13579bdf"
"""Last digits of a `traceparent` whose trace is recorded: bit 0 of its flags, beside others (W3C Trace Context)."""

LATENCY_EVERY = 64
"""One event in so many has its delivery latency measured: parsing a time stamp costs more than framing an event."""


_NEVER = 1 << 64


class Subscriptions:
    """The hub's interest, kept in NATS subscriptions. `epoch` names the life of the stream that sequences are of."""

    def __init__(self, bus: Bus, hub: Hub, receipts: Receipts, telemetry: Telemetry) -> None:
        self._bus = bus
        self._hub = hub
        self._receipts = receipts
        self._tracer = telemetry.tracer
        self._tracing = telemetry.tracing
        self._latency = telemetry.meter.create_histogram(
            names.METRIC_DELIVERY_LATENCY, "s", "From an event's storing to its writing, one event in 64"
        )
        self._origin = Origin.of_events(bus.subjects)
        self.other_streams = OtherStreams()
        self._count = 0
        self._chunk_of: tuple[int, bytes] = (0, b"")
        self.holes = HoleDetector(hub, bus.subjects)
        self.on_restart: Callable[[], None] | None = None
        """Called before an event is handed on whose sequence is below one before it: the stream was made anew."""
        self.on_doubt: Callable[[], None] | None = None
        """Called where an event's sequence is not over `placed`, though none higher came: was the stream made anew?"""
        self.placed = 0
        """The stream's last sequence when it was last asked for."""
        self.highest = 0
        """The last sequence heard on any tail; 0 for none since the connection, or the stream, is another."""
        self._id_prefix = b""
        self.received = 0
        self._refused: dict[str, str] = {}
        """By tail that somebody listens to: why NATS brings nothing on it."""
        self._over: dict[str, int] = {}
        """By the filtered tail of a job that has ended: the sequence of its last event."""

    @property
    def epoch(self) -> str:
        """The life of the stream that ids are of; empty while it is not known."""
        return self._id_prefix[:-1].decode()

    @epoch.setter
    def epoch(self, epoch: str) -> None:
        prefix = b"%b-" % epoch.encode()
        if self._id_prefix and prefix != self._id_prefix:
            self._over.clear()  # sequences of another life
        self._id_prefix = prefix

    def subscribe(self, audience: Audience) -> None:
        # Whoever needs it asks for the stream's position next: one write to NATS for all who came meanwhile, not one
        # each (25 µs). Ends go along with the next thing that is said, an announcement within a second.
        tail, job_id = split(audience.tail)
        subject = self._bus.subjects.outbound(tail)
        # A `partial` takes four objects, 264 bytes, for each client, which are not in a cache when its event comes.
        receive: Deliver = MethodType(self._receive, audience)
        if job_id:
            receive = partial(self._receive_for, audience, job_id.encode())
            self.holes.filtered.setdefault(tail, []).append(audience)
        try:
            audience.subscription = self._bus.client.subscribe_direct(
                subject, receive, at_once=False, refused=self._refuse
            )
        except SubscriptionRefused as error:
            self._refused[audience.tail] = str(error)

    def unsubscribe(self, audience: Audience) -> None:
        tail, job_id = split(audience.tail)
        if job_id:
            filtered = self.holes.filtered
            filtered[tail].remove(audience)
            if not filtered[tail]:
                del filtered[tail]
            self._over.pop(audience.tail, None)
        self._refused.pop(audience.tail, None)
        self._bus.client.unsubscribe_direct(audience.subscription, at_once=False)

    def check(self, tails: Iterable[str]) -> None:
        """Raises SubscriptionRefused where NATS may bring nothing on some of `tails`: no stream beats a deaf one."""
        if self._bus.client.refusing:
            raise SubscriptionRefused(NO_MORE)
        for tail in tails if self._refused else ():
            if tail in self._refused:
                raise SubscriptionRefused(self._refused[tail])

    def _refuse(self, subject: str, reason: str) -> None:
        """NATS does not take a subscription (any more). Streams end; one that is being attached looks for itself."""
        tail = subject[len(self._bus.subjects.outbound("")) :]
        exact = self._hub.audience(tail)
        for audience in ([] if exact is None else [exact]) + self.holes.filtered.get(tail, []):
            self._refused[audience.tail] = reason
            for session in (*audience.live, *audience.joining):
                if session.epoch:
                    self._hub.end(session, Ending.FEED)

    def event_id(self, sequence: int) -> bytes:
        """What stands in `id:` for a place in the stream."""
        return b"%b%d" % (self._id_prefix, sequence)

    def chunk(self, event_id: bytes | None, header: bytes, payload: bytes) -> bytes:
        """A stored event as a chunk for sockets; without an id where None is given."""
        event_type = headers.field(header, headers.EVENT_TYPE) or b""
        return frame.chunk(frame.event(event_id, event_type, payload))

    def _receive(self, audience: Audience, subject: bytes, header: bytes, payload: bytes) -> None:
        self.received += 1
        place = self._origin.republished(header, subject)
        receipt_id = headers.field(header, headers.RECEIPT) if header.find(headers.RECEIPT) > 0 else None
        if place is None:
            volatile_id = headers.field(header, headers.VOLATILE_ID) or b"%d" % self.received
            if header.find(headers.SEQUENCE) >= 0:
                volatile_id = self.other_streams.take(subject, header)
            chunk = self.chunk(None, header, payload)
            if receipt_id is None:
                self._hub.volatile(audience, volatile_id, chunk)
            else:
                self._receipts.volatile(receipt_id, audience, volatile_id, chunk)
        else:
            number, previous = place
            if number < self.highest or number <= self.placed:
                self._look_back(number)
            self.highest = number
            self.holes.follow(audience, subject, number, previous)
            if number != self._chunk_of[0]:  # several audiences may match one event: it is encoded once
                self._chunk_of = (number, self.chunk(self.event_id(number), header, payload))
            if receipt_id is None:
                self._hub.durable(audience, number, self._chunk_of[1])
            else:
                self._receipts.durable(receipt_id, audience, number, self._chunk_of[1])
            if not self._id_prefix:
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
        place = self._origin.republished(header, subject)
        if place is None:
            return
        number, previous = place
        if not ours:
            if number < self.highest or number <= self.placed:
                self._look_back(number)
            self.highest = number
            self.holes.follow(audience, subject, number, previous)
        elif header.find(headers.JOB_END) > 0:
            self.over(audience.tail, number)
            self._at_end_of_pass(partial(self._end, audience))

    @staticmethod
    def _read_instead(audience: Audience) -> None:
        """The stream's epoch is not known yet: what was held of it has no whole id. Nobody is live before it is."""
        for session in audience.joining:
            if session.held is not None:
                session.held.break_off()

    def _look_back(self, number: int) -> None:
        """An event came whose sequence is no new one: it was late, or the stream was made anew."""
        if number < self.highest and self.on_restart is not None:
            # The server writes in stream order over all subjects. No position of a session means anything now.
            self.on_restart()
        elif number <= self.placed and self.on_doubt is not None:
            self.on_doubt()

    def over(self, tail: str, sequence: int) -> None:
        """The last event of the job whose own stream is `tail` has been seen."""
        self._over[tail] = sequence

    def finish(self, session: Session) -> None:
        """Ends a session of a job's own stream that has the job's last event."""
        for tail in session.tails:
            if session.held is None and session.position >= self._over.get(tail, _NEVER):
                self._hub.end(session, Ending.DONE)

    def _end(self, audience: Audience) -> None:
        for session in tuple(audience.live):
            self.finish(session)

    def forget(self) -> None:
        """What comes from now on does not follow on what came before: another connection, or another stream."""
        self.highest = 0
        self._chunk_of = (0, b"")
        self.holes.forget()

    def _measure(self, header: bytes) -> None:
        when = stamp(header)
        if when is not None:
            stored = datetime.fromisoformat(when.decode("latin-1")[:26].rstrip("Z") + "+00:00").timestamp()
            self._at_end_of_pass(lambda: self._latency.record(max(0.0, time.time() - stored)))

    def _trace(self, audience: Audience, subject: bytes, header: bytes, payload: bytes) -> None:
        """A span up to the sockets' writes, one for an event and gateway, where the event's trace is recorded."""
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
