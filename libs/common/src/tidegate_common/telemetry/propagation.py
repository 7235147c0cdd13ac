"""Trace context in and out of headers (W3C Trace Context), HTTP's and NATS's alike.

Every request has a trace id, also if nothing is exported: the answer and the logs carry it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()

STATE_CHARACTERS = 512
"""What is kept of a `tracestate` (W3C Trace Context, 3.3.1.5); a caller may send ten thousand."""

LONG_MEMBER = 128
"""A member of the list that is longer goes first if the whole is too long (same place)."""

_IDS = RandomIdGenerator()


def context_fields(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The carrier that a request's headers (names in lower case) are, as W3C Trace Context reads them.

    Several `traceparent` are none (3.2.1), several `tracestate` are one list (3.3.1).
    """
    parents, states = list[bytes](), list[bytes]()
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    if len(parents) != 1:
        return {}
    found = {"traceparent": parents[0].decode("latin-1")}
    if states:
        found["tracestate"] = b",".join(states).decode("latin-1")
    return found


def extract(carrier: Mapping[str, str]) -> Context:
    """The context that `carrier` holds; a new, unsampled trace if it holds none."""
    context = caller(carrier)
    if trace.get_current_span(context).get_span_context().is_valid:
        return context
    fresh = SpanContext(_IDS.generate_trace_id(), _IDS.generate_span_id(), is_remote=False, trace_flags=TraceFlags(0))
    return trace.set_span_in_context(NonRecordingSpan(fresh), Context())


def caller(carrier: Mapping[str, str]) -> Context:
    """The context that `carrier` holds; an empty one if it holds none: there the sampler decides."""
    if not carrier:
        return Context()
    state = carrier.get("tracestate", "")
    if len(state) > STATE_CHARACTERS:
        carrier = {**carrier, "tracestate": bounded(state)}
    return _PROPAGATOR.extract(carrier, context=Context())


def bounded(tracestate: str) -> str:
    """`tracestate`, or as many of its members as are within what has to be kept: whole ones, from the left."""
    if len(tracestate) <= STATE_CHARACTERS:
        return tracestate
    kept, room = [], STATE_CHARACTERS + 1
    for member in tracestate.split(","):
        room -= 0 if len(member) > LONG_MEMBER else len(member) + 1
        if room < 0:
            break
        if len(member) <= LONG_MEMBER:
            kept.append(member)
    return ",".join(kept)


def inject(carrier: dict[str, str], context: Context | None = None) -> None:
    """Writes `context`, or the current one, into `carrier`."""
    _PROPAGATOR.inject(carrier, context=context)
    if len(carrier.get("tracestate", "")) > STATE_CHARACTERS:  # of a context that was made elsewhere
        carrier["tracestate"] = bounded(carrier["tracestate"])


def trace_id(context: Context | None = None) -> str:
    """The trace id of `context`, or of the current one: 32 hexadecimal digits, or empty if there is none."""
    found = trace.get_current_span(context).get_span_context()
    return trace.format_trace_id(found.trace_id) if found.is_valid else ""


def trace_id_of(carrier: Mapping[str, str]) -> str:
    """The trace id of what `carrier` holds, or a new one. Without a carrier no context is made for it."""
    return trace_id(extract(carrier)) if carrier else trace.format_trace_id(_IDS.generate_trace_id())


def left_out() -> bool:
    """Whether the sampler has decided already that what happens now is recorded by nobody."""
    span = trace.get_current_span()
    return not span.is_recording() and span.get_span_context().is_valid


@contextmanager
def attached(context: Context) -> Iterator[None]:
    """`context` is the current one inside."""
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)
