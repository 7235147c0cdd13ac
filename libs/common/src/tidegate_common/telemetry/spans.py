"""Sending to the bus, as a span."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Tracer, set_span_in_context

from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import inject, left_out


@contextmanager
def producing(tracer: Tracer, subject: str, name: str) -> Iterator[tuple[Span, dict[str, str]]]:
    """A span for sending to `subject`, which has `name` there, and the headers that carry its context.

    In a trace that is recorded nowhere a span would be made for nothing: there the headers carry the caller's.
    """
    headers: dict[str, str] = {}
    if left_out():
        inject(headers)
        yield INVALID_SPAN, headers
        return
    with tracer.start_as_current_span(f"send {name}", kind=SpanKind.PRODUCER, attributes=_attributes(subject)) as span:
        inject(headers)
        yield span, headers


def producer(tracer: Tracer, subject: str) -> tuple[dict[str, str], Span]:
    """As `producing`, for one of many events that are under way at once: the caller ends the span. Never `left_out`."""
    headers: dict[str, str] = {}
    span = tracer.start_span(f"send {_kind_of(subject)}", kind=SpanKind.PRODUCER, attributes=_attributes(subject))
    inject(headers, set_span_in_context(span))
    return headers, span


def _kind_of(subject: str) -> str:
    """An event's subject without whom it addresses: a name of a span for each user would be a series for each."""
    return ".".join(subject.split(".")[:3])


def _attributes(subject: str) -> dict[str, str]:
    return {
        names.MESSAGING_SYSTEM: "nats",
        names.MESSAGING_OPERATION_NAME: "send",
        names.MESSAGING_OPERATION_TYPE: "send",
        names.MESSAGING_DESTINATION: subject,
    }
