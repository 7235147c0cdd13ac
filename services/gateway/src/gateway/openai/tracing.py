"""A completion's span: from the request to the last byte of its answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode

from gateway.openai.api_errors import ApiError
from gateway.openai.request import Completion
from tidegate_common.contract.jobs import Usage
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import attached, caller, context_fields, extract
from tidegate_common.telemetry.providers import Telemetry


@contextmanager
def serving(telemetry: Telemetry, headers: Iterable[tuple[bytes, bytes]], path: str) -> Iterator[Span]:
    """The request's span, current inside; a bare trace id if spans go nowhere."""
    if not telemetry.tracing:
        with attached(extract(context_fields(headers))):
            yield INVALID_SPAN
        return
    context = caller(context_fields(headers))
    attributes = {"http.request.method": "POST", "http.route": path, "url.path": path}
    with telemetry.tracer.start_as_current_span(f"POST {path}", context, SpanKind.SERVER, attributes) as span:
        yield span


def asked(span: Span, completion: Completion) -> None:
    if span.is_recording():
        span.set_attributes({names.GEN_AI_OPERATION: "chat", names.GEN_AI_REQUEST_MODEL: completion.model})


def answered(span: Span, reason: str | None, usage: Usage | None) -> None:
    if span.is_recording():
        span.set_attribute("http.response.status_code", 200)
        if reason:
            span.set_attribute(names.GEN_AI_FINISH_REASONS, [reason])
        if usage is not None:
            span.set_attribute(names.GEN_AI_INPUT_TOKENS, usage.prompt_tokens)
            span.set_attribute(names.GEN_AI_OUTPUT_TOKENS, usage.completion_tokens)


def failed(span: Span, error: ApiError) -> None:
    if span.is_recording():
        span.set_attribute("http.response.status_code", error.status)
        span.set_attribute("error.type", error.code or str(error.status))
        if error.status >= 500:
            span.set_status(StatusCode.ERROR, error.code)
