"""An event on the bus: its text is the payload, all else is in headers.

So a gateway frames an event without decoding its payload, and you can write one with `nats pub`.
"""

from __future__ import annotations

import msgspec

EVENT_TYPE = "Tidegate-Event"
"""Header: the SSE `event:` of the frame; `message` if it is missing, as in WHATWG HTML 9.2."""

VOLATILE_ID = "Tidegate-Volatile"
"""Header of volatile events only: a unique text, by which overlapping subscriptions tell repeats."""

RECEIPT = "Tidegate-Receipt"
"""Header: under its value, gateways remember for a few seconds to how many connections they wrote the event."""

JOB = "Tidegate-Job"
"""Header: the job that the event belongs to, so that its own stream can pick it out."""

JOB_END = "Tidegate-Job-End"
"""Header, with `1`: the job's last event."""

MESSAGE_ID = "Nats-Msg-Id"
"""Header: JetStream stores one message for it within the stream's duplicate window."""

TTL = "Nats-TTL"
"""Header: for how long JetStream keeps the message, as in `60s`."""

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
"""Header: JetStream stores the message only if the last one on its subject has this sequence."""

EXPECTED_ON = "Nats-Expected-Last-Subject-Sequence-Subject"
"""Header: the subject that `EXPECTED` is about, if it is not the message's own."""

KV_OPERATION = "KV-Operation"
"""Header: a key of a bucket was removed."""

TRACE_PARENT = "traceparent"
TRACE_STATE = "tracestate"


class Event(msgspec.Struct, frozen=True):
    """What is published: `type` stands in `event:`, `data` is the text of `data:` (any line ends)."""

    type: str
    data: str


class Receipt(msgspec.Struct, frozen=True):
    """Answer to a durable publish: the event's id; `duplicate` if the message id had been stored before."""

    id: str
    duplicate: bool = False
