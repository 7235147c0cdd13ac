"""Asks the model, in a span and with figures that follow OpenTelemetry's GenAI conventions. No span for a token."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode

from ai_worker.job_errors import JobError
from ai_worker.models.model import ChatModel, ChatRequest
from ai_worker.models.values import word
from ai_worker.pieces import CandidateEnd, Finish, Piece, Used
from tidegate_common.contract.jobs import Usage
from tidegate_common.telemetry import names
from tidegate_common.telemetry.providers import Telemetry

MOST_TOKENS = 2**31 - 1
"""Of an answer, whatever its asker writes: endpoints, and traces, take no number without end."""

OTHER = "other"
"""The label of a model that is not announced."""


class Asker(Protocol):
    """What is worked on: it carries the trace that events go out with, the calls of the model that were made, and the
    most tokens that each of them may have."""

    trace: Context
    calls: list[Call]
    max_tokens: int | None


class TracedModel:
    """The model, as handlers ask it."""

    def __init__(
        self,
        model: ChatModel,
        default_model: str,
        signals: Telemetry,
        max_tokens: int | None = None,
        label: Callable[[str], str] = lambda _: OTHER,
    ) -> None:
        """`max_tokens` is the operator's limit of an answer, None for none. `label` gives a model's name as metrics,
        and the names of spans, may have it."""
        self._label = label
        self._model = model
        self._max_tokens = max_tokens
        self.default = default_model
        """The model for jobs that name none."""
        self._tracer = signals.tracer
        meter = signals.meter
        self._first = meter.create_histogram(names.METRIC_TIME_TO_FIRST_TOKEN, "s", "Until the first piece")
        self._each = meter.create_histogram(names.METRIC_TIME_PER_OUTPUT_TOKEN, "s", "Per token after the first")
        self._whole = meter.create_histogram(names.METRIC_OPERATION_DURATION, "s", "Of one call of the model")
        self._tokens = meter.create_histogram(names.METRIC_TOKENS, "{token}", "Tokens of one answer, by type")
        self._speed = meter.create_histogram(names.METRIC_TOKENS_PER_SECOND, "{token}/s", "After the first piece")

    @property
    def continues(self) -> bool:
        return self._model.continues

    def limit(self, wanted: int | None = None) -> int | None:
        """The most tokens that an answer may have, if its asker has `wanted` so many; None if nobody says."""
        if wanted is not None:
            return max(1, min(wanted, MOST_TOKENS if self._max_tokens is None else self._max_tokens))
        return self._model.most if self._max_tokens is None else self._max_tokens

    async def ask(self, request: ChatRequest, work: Asker) -> AsyncGenerator[Piece]:
        """The answer, `Finish` last, with a usage that is counted in pieces if the backend counts none.

        `work.trace` is that of the call from here on. Raises JobError.
        """
        if work.max_tokens is not None:  # here, since a handler need not know of it
            most = work.max_tokens if request.max_tokens is None else min(request.max_tokens, work.max_tokens)
            request = msgspec.structs.replace(request, max_tokens=most)
        span = self._span(request, work)
        work.trace = trace.set_span_in_context(span, work.trace)
        measured = Call()
        work.calls.append(measured)
        error_type = ""
        try:
            async with aclosing(self._model.stream(request)) as answer:
                async for piece in answer:
                    measured.take(piece)
                    if not isinstance(piece, Used):
                        yield measured.finish if isinstance(piece, Finish) else piece
        except JobError as error:
            error_type = error.code
            span.set_status(StatusCode.ERROR, error.code)
            span.set_attribute(names.ERROR_TYPE, error.code)
            raise
        finally:
            self._close(span, request, measured, error_type)

    def _span(self, request: ChatRequest, work: Asker) -> Span:
        attributes: dict[str, str | int | float] = {
            names.GEN_AI_OPERATION: "chat",
            names.GEN_AI_PROVIDER: self._model.provider,
            names.GEN_AI_REQUEST_MODEL: word(request.model),
        }
        if request.max_tokens is not None:
            attributes[names.GEN_AI_REQUEST_MAX_TOKENS] = request.max_tokens
        if request.temperature is not None:
            attributes[names.GEN_AI_REQUEST_TEMPERATURE] = request.temperature
        if request.n > 1:
            attributes[names.GEN_AI_REQUEST_CHOICE_COUNT] = request.n
        label = self._label(request.model)
        name = "chat" if label == OTHER else f"chat {label}"
        return self._tracer.start_span(name, work.trace, SpanKind.CLIENT, attributes)

    def _close(self, span: Span, request: ChatRequest, measured: Call, error_type: str) -> None:
        labels = {
            names.GEN_AI_OPERATION: "chat",
            names.GEN_AI_PROVIDER: self._model.provider,
            names.GEN_AI_REQUEST_MODEL: self._label(request.model),
        }
        finish = measured.finish
        usage = finish.usage or Usage()
        span.set_attribute(names.GEN_AI_RESPONSE_MODEL, word(finish.model or request.model))
        if measured.reasons or finish.reason:
            span.set_attribute(names.GEN_AI_FINISH_REASONS, measured.reasons or [finish.reason])
        span.set_attribute(names.GEN_AI_INPUT_TOKENS, usage.prompt_tokens)
        span.set_attribute(names.GEN_AI_OUTPUT_TOKENS, usage.completion_tokens)
        span.end()
        now = time.perf_counter()
        self._whole.record(now - measured.started, {**labels, names.ERROR_TYPE: error_type} if error_type else labels)
        self._tokens.record(usage.prompt_tokens, {**labels, "gen_ai.token.type": "input"})
        self._tokens.record(usage.completion_tokens, {**labels, "gen_ai.token.type": "output"})
        if measured.first is None:
            return
        self._first.record(measured.first - measured.started, labels)
        seconds = now - measured.first
        if measured.pieces > 1 and usage.completion_tokens > 1 and seconds > 0:
            self._each.record(seconds / (usage.completion_tokens - 1), labels)
            self._speed.record(usage.completion_tokens / seconds, labels)


class Call:
    """A call of the model: its times, its end, and what it has used so far. If the backend counts no tokens, a piece
    counts as one."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.first: float | None = None
        self.pieces = 0
        self.reasons: list[str] = []
        self._used = Usage()
        self._end: Finish | None = None

    def take(self, piece: Piece | Used) -> None:
        if isinstance(piece, Used):
            self._used = piece.usage
        elif isinstance(piece, Finish):
            self._end = piece
        elif isinstance(piece, CandidateEnd):
            self.reasons.append(piece.reason)
        else:
            self.pieces += 1
            if self.first is None:
                self.first = time.perf_counter()

    @property
    def usage(self) -> Usage:
        """By the backend's word as far as it has given it."""
        if self._end is not None and self._end.usage is not None:
            return self._end.usage
        return Usage(self._used.prompt_tokens, max(self._used.completion_tokens, self.pieces))

    @property
    def finish(self) -> Finish:
        """What the answer came to so far."""
        return msgspec.structs.replace(self._end or Finish(""), usage=self.usage)
