"""From NATS to the hub: one subscription per audience, each event encoded once, in the parser's own call."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial

from opentelemetry.trace import SpanKind

from gateway import frame
from gateway.hub.hub import Audience, Hub
from tidegate_common.bus import headers
from tidegate_common.bus.connection import Bus
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import extract
from tidegate_common.telemetry.providers import Telemetry

log = logging.getLogger(__name__)

SAMPLED = b"13579bdf"
"""Last digits of a `traceparent` whose trace is recorded: bit 0 of its flags, beside others (W3C Trace Context)."""

LATENCY_EVERY = 64
"""One event in so many has its delivery latency measured: parsing a time stamp costs more than framing an event."""


class Subscriptions:
    """The hub's interest, kept in NATS subscriptions. `epoch` names the life of the stream that sequences are of."""

    def __init__(self, bus: Bus, hub: Hub, telemetry: Telemetry) -> None:
        self._bus = bus
        self._hub = hub
        self._telemetry = telemetry
        self._latency = telemetry.meter.create_histogram(
            names.METRIC_DELIVERY_LATENCY, "s", "From an event's storing to its writing, one event in 64"
        )
        self._count = 0
        self._chunk_of: tuple[int, bytes] = (0, b"")
        self.epoch = ""
        self.received = 0
        self.malformed = 0

    def subscribe(self, audience: Audience) -> None:
        subject = self._bus.subjects.outbound(audience.tail)
        audience.subscription = self._bus.client.subscribe_direct(subject, partial(self._receive, audience))

    def unsubscribe(self, audience: Audience) -> None:
        self._bus.client.unsubscribe_direct(audience.subscription)

    def chunk(self, sequence: int, header: bytes, payload: bytes) -> bytes:
        """The stored event as a chunk for sockets."""
        event_type = headers.field(header, headers.EVENT_TYPE) or b""
        return frame.chunk(frame.event(b"%s-%d" % (self.epoch.encode(), sequence), event_type, payload))

    def _receive(self, audience: Audience, subject: bytes, header: bytes, payload: bytes) -> None:
        self.received += 1
        sequence = headers.field(header, headers.SEQUENCE)
        if sequence is None:
            event_type = headers.field(header, headers.EVENT_TYPE) or b""
            volatile_id = headers.field(header, headers.VOLATILE_ID) or b"%d" % self.received
            self._hub.volatile(audience, volatile_id, frame.chunk(frame.event(None, event_type, payload)))
        else:
            if not sequence.isdigit():
                self.malformed += 1
                return
            number = int(sequence)
            if number != self._chunk_of[0]:  # several audiences may match one event: it is encoded once
                self._chunk_of = (number, self.chunk(number, header, payload))
            self._hub.durable(audience, number, self._chunk_of[1])
            self._count += 1
            if self._count % LATENCY_EVERY == 0:
                self._measure(header)
        if self._telemetry.tracing:
            self._trace(audience, subject, header, payload)

    def _measure(self, header: bytes) -> None:
        stamp = headers.field(header, headers.TIMESTAMP)
        if stamp is not None:
            stored = datetime.fromisoformat(stamp.decode()[:26].rstrip("Z") + "+00:00").timestamp()
            self._at_end_of_pass(lambda: self._latency.record(max(0.0, time.time() - stored)))

    def _trace(self, audience: Audience, subject: bytes, header: bytes, payload: bytes) -> None:
        """A span up to the sockets' writes, one for an event and gateway, where the event's trace is recorded."""
        parent = headers.field(header, headers.TRACE_PARENT)
        if not parent or parent[-1] not in SAMPLED:
            return
        carrier = {"traceparent": parent.decode()}
        state = headers.field(header, headers.TRACE_STATE)
        if state is not None:
            carrier["tracestate"] = state.decode()
        span = self._telemetry.tracer.start_span(
            "deliver",
            context=extract(carrier),
            kind=SpanKind.CONSUMER,
            attributes={
                names.MESSAGING_SYSTEM: "nats",
                names.MESSAGING_OPERATION_NAME: "deliver",
                names.MESSAGING_OPERATION_TYPE: "process",
                names.MESSAGING_DESTINATION: subject.decode(),
                names.MESSAGING_BODY_SIZE: len(payload),
                names.CONNECTIONS: len(audience.live) + len(audience.joining),
            },
        )
        self._at_end_of_pass(span.end)

    @staticmethod
    def _at_end_of_pass(call: Callable[[], None]) -> None:
        # The hub's flush was scheduled before this, so it has run by then.
        asyncio.get_running_loop().call_soon(call)
