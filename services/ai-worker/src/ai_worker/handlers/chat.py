"""Jobs of the kind `chat`: a conversation's next turn, from the model."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from ai_worker.errors import InvalidParams, JobError, PromptTooLong
from ai_worker.handlers.handler import Work
from ai_worker.models.model import ChatModel, ChatRequest
from ai_worker.pieces import Finish, Piece
from ai_worker.settings import WorkerSettings
from tidegate_common.contract.jobs import ChatParams, Usage
from tidegate_common.telemetry import names
from tidegate_common.telemetry.providers import Telemetry


class Chat:
    """Asks the model, in a span and with figures that follow the GenAI conventions."""

    def __init__(self, model: ChatModel, default_model: str, settings: WorkerSettings, signals: Telemetry) -> None:
        self._model = model
        self._default = default_model
        self._settings = settings
        self._tracer = signals.tracer
        meter = signals.meter
        self._first = meter.create_histogram(names.METRIC_TIME_TO_FIRST_TOKEN, "s", "Until the first piece")
        self._tokens = meter.create_histogram(names.METRIC_TOKENS, "{token}", "Tokens of one answer, by type")
        self._speed = meter.create_histogram(names.METRIC_TOKENS_PER_SECOND, "{token}/s", "After the first piece")

    async def __call__(self, work: Work, params: dict[str, Any]) -> AsyncGenerator[Piece]:
        request = self._request(params)
        span = self._span(request, work)
        work.trace = trace.set_span_in_context(span, work.trace)
        measured = _Measured()
        try:
            async with aclosing(self._model.stream(request)) as answer:
                async for piece in answer:
                    measured.take(piece)
                    yield measured.finish if isinstance(piece, Finish) else piece
        except JobError as error:
            span.set_status(StatusCode.ERROR, error.code)
            span.set_attribute("error.type", error.code)
            raise
        finally:
            self._close(span, request, measured)

    def _request(self, params: dict[str, Any]) -> ChatRequest:
        """Raises InvalidParams, PromptTooLong."""
        try:
            chat = msgspec.convert(params, ChatParams)
        except msgspec.ValidationError as error:
            raise InvalidParams(str(error)) from error
        if not chat.messages:
            raise InvalidParams("messages: at least one")
        if chat.n != 1:
            raise InvalidParams("n: one answer at a time")
        limit = self._settings.ai_max_prompt_chars
        if sum(len(message.content) for message in chat.messages) > limit:
            raise PromptTooLong(f"{limit} characters are allowed")
        most = self._settings.ai_max_tokens
        return ChatRequest(
            messages=chat.messages,
            model=chat.model or self._default,
            max_tokens=min(max(1, chat.max_tokens or most), most),
            temperature=chat.temperature,
        )

    def _span(self, request: ChatRequest, work: Work) -> Span:
        attributes: dict[str, str | int | float] = {
            names.GEN_AI_OPERATION: "chat",
            names.GEN_AI_PROVIDER: self._model.provider,
            names.GEN_AI_REQUEST_MODEL: request.model,
            names.GEN_AI_REQUEST_MAX_TOKENS: request.max_tokens,
        }
        if request.temperature is not None:
            attributes[names.GEN_AI_REQUEST_TEMPERATURE] = request.temperature
        name = f"chat {request.model}".rstrip()
        return self._tracer.start_span(name, work.trace, SpanKind.CLIENT, attributes)

    def _close(self, span: Span, request: ChatRequest, measured: _Measured) -> None:
        labels = {names.GEN_AI_OPERATION: "chat", names.GEN_AI_PROVIDER: self._model.provider}
        finish = measured.finish
        usage = finish.usage or Usage()
        span.set_attribute(names.GEN_AI_RESPONSE_MODEL, finish.model or request.model)
        if finish.reason:
            span.set_attribute(names.GEN_AI_FINISH_REASONS, [finish.reason])
        span.set_attribute(names.GEN_AI_INPUT_TOKENS, usage.prompt_tokens)
        span.set_attribute(names.GEN_AI_OUTPUT_TOKENS, usage.completion_tokens)
        span.end()
        self._tokens.record(usage.prompt_tokens, {**labels, "gen_ai.token.type": "input"})
        self._tokens.record(usage.completion_tokens, {**labels, "gen_ai.token.type": "output"})
        if measured.first is None:
            return
        self._first.record(measured.first - measured.started, labels)
        seconds = time.perf_counter() - measured.first
        if measured.pieces > 1 and seconds > 0:
            self._speed.record(usage.completion_tokens / seconds, labels)


class _Measured:
    """An answer's times and its end. Where the backend counts no tokens, a piece counts as one."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.first: float | None = None
        self.pieces = 0
        self._end: Finish | None = None

    def take(self, piece: Piece) -> None:
        if isinstance(piece, Finish):
            self._end = piece
            return
        self.pieces += 1
        if self.first is None:
            self.first = time.perf_counter()

    @property
    def finish(self) -> Finish:
        """What the answer came to so far."""
        end = self._end or Finish("")
        return msgspec.structs.replace(end, usage=end.usage or Usage(completion_tokens=self.pieces))
