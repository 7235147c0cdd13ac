"""`/v1`: from OpenAI's requests to the use cases and back."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from gateway.openai.chunks import Chunks, Head, completion
from gateway.openai.completions import Caller, Completions, Running
from gateway.openai.errors import OVERLOADED, SERVER, ApiError, api_error
from gateway.openai.models import ModelList
from gateway.openai.request import Completion, read
from gateway.openai.writing import Writer, gone
from gateway.settings import GatewaySettings
from gateway.sse.admission import Admission
from tidegate_common.contract.answers import Answer
from tidegate_common.contract.jobs import OnDisconnect
from tidegate_common.contract.subjects import encode_token
from tidegate_common.errors import InvalidField, TidegateError
from tidegate_common.runtime.body import read_body
from tidegate_common.runtime.tasks import end
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import attached, caller, extract
from tidegate_common.telemetry.providers import Telemetry

log = logging.getLogger(__name__)

PATH = "/v1/chat/completions"
ON_DISCONNECT = "Tidegate-On-Disconnect"
REQUEST_HEADERS = [
    "authorization",
    "idempotency-key",
    "openai-organization",
    "openai-project",
    ON_DISCONNECT.lower(),
    *(
        f"x-stainless-{name}"
        for name in (
            "arch",
            "helper-method",
            "lang",
            "os",
            "package-version",
            "retry-count",
            "runtime",
            "runtime-version",
            "timeout",
        )
    ),
]
"""What OpenAI's clients send from a page of another origin."""

LATE_SECONDS = 5.0
"""A job's worker ends it at its deadline; where none does, the front gives up so much later."""

STOP_SECONDS = 1.0

_KEY = re.compile(r"[\x21-\x7e]{1,128}")


class OpenAiFront:
    """The routes, and what they share."""

    def __init__(
        self, settings: GatewaySettings, completions: Completions, models: ModelList, telemetry: Telemetry
    ) -> None:
        self._settings = settings
        self._completions = completions
        self._models = models
        self._telemetry = telemetry
        self.admission = Admission(settings.max_completions, 0)
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def routes(self) -> Mount:
        app = Starlette(
            routes=[
                Route("/chat/completions", _Endpoint(self), methods=["POST"]),
                Route("/models", self._list, methods=["GET"]),
                Route("/models/{model:path}", self._model, methods=["GET"]),
            ]
        )
        for kind in (TidegateError, HTTPException, Exception):
            app.add_exception_handler(kind, _refuse)
        return Mount("/v1", app)

    async def drain(self, seconds: float) -> None:
        """Takes no more completions; those that there are have `seconds` to end, and are then ended with an error."""
        self.admission.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            self._stopping.set()
            with suppress(TimeoutError):  # a client that does not read may hold its last event up
                async with asyncio.timeout(STOP_SECONDS):
                    await self._idle.wait()
        await self._completions.aclose()

    async def _list(self, _: Request) -> Response:
        return _json({"object": "list", "data": await self._models.all()})

    async def _model(self, request: Request) -> Response:
        return _json(await self._models.one(request.path_params["model"]))

    async def complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One completion, from its request to the end of its answer."""
        request = Request(scope, receive)
        writer = Writer(send)
        with self._span(request) as span:
            try:
                asked = read(await read_body(request, self._settings.max_completion_bytes))
                asking = _caller(request)
                if asked.stream and scope["http_version"] == "1.0":
                    raise ApiError(505, "A stream needs HTTP/1.1.", code="http_version")
                _describe(span, asked)
                self.admission.enter("")
                self._idle.clear()
                try:
                    await self._answer(asked, asking, writer, receive, span)
                finally:
                    self.admission.leave("")
                    if not self.admission.active:
                        self._idle.set()
            except _Gone:
                span.set_attribute("error.type", "client_gone")
            except Exception as error:
                found = api_error(error)
                if found.status == 500 and not isinstance(error, TidegateError):
                    log.error("unforeseen error", exc_info=error)
                _failed(span, found)
                await writer.error(found)

    async def _answer(self, asked: Completion, asking: Caller, writer: Writer, receive: Receive, span: Span) -> None:
        async with self._completions.begin(asked, asking) as running:
            writer.headers["x-request-id"] = running.job_id
            span.set_attribute(names.JOB_ID, running.job_id)
            head = Head(running.job_id, running.created, asked.model)
            if asked.stream:
                work = self._stream(running, Chunks(head, asked.params.n, asked.include_usage), writer, span)
            else:
                work = self._whole(running, head, writer, span)
            await self._while_wanted(work, receive, writer if asked.stream else None)

    async def _stream(self, running: Running, chunks: Chunks, writer: Writer, span: Span) -> None:
        async for event_type, data in running.events():
            found = chunks.take(event_type, data)
            if found:
                if not writer.begun:
                    span.add_event("first chunk")
                await writer.write(found, more=not chunks.over)
        _finished(span, chunks.finish_reason, chunks.usage)

    async def _whole(self, running: Running, head: Head, writer: Writer, span: Span) -> None:
        answer = Answer()
        async for event_type, data in running.events():
            answer.take(event_type, data)
        body = completion(head, answer)
        _finished(span, answer.finish_reason, answer.usage)
        await writer.document(body)

    async def _while_wanted(self, work: Coroutine[Any, Any, None], receive: Receive, beating: Writer | None) -> None:
        """Does `work` until its end. Raises _Gone where the client goes away before, ApiError where time is over."""
        working = asyncio.create_task(work)
        leaving = asyncio.create_task(gone(receive))
        stopping = asyncio.create_task(self._stopping.wait())
        tasks: list[asyncio.Task[Any]] = [working, leaving, stopping]
        seconds = self._settings.completion_seconds + LATE_SECONDS
        beats = [] if beating is None else [asyncio.create_task(beating.beat(self._settings.heartbeat_seconds))]
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            if leaving.done():
                raise _Gone
            if stopping.done():
                message = "This gateway is being stopped."
                raise ApiError(503, message, OVERLOADED, code="stopping", headers={"Retry-After": "1"})
            raise ApiError(504, "The answer was not there in time.", SERVER, code="timeout")
        finally:
            await end([*tasks, *beats])

    @contextmanager
    def _span(self, request: Request) -> Iterator[Span]:
        """The request's span, current inside; a bare trace id where spans go nowhere."""
        if not self._telemetry.tracing:
            with attached(extract(request.headers)):
                yield INVALID_SPAN
            return
        context = caller(request.headers.get("traceparent"), request.headers.get("tracestate"))
        attributes = {"http.request.method": "POST", "http.route": PATH, "url.path": PATH}
        with self._telemetry.tracer.start_as_current_span(f"POST {PATH}", context, SpanKind.SERVER, attributes) as span:
            yield span


class _Endpoint:
    """An ASGI app: it needs `send` and `receive` themselves."""

    def __init__(self, front: OpenAiFront) -> None:
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._front.complete(scope, receive, send)


class _Gone(Exception):
    """The client has gone away: nobody is to be told."""


async def _refuse(_: Request, error: Exception) -> Response:
    found = api_error(error)
    if found.status == 500:
        log.error("unforeseen error", exc_info=error)
    return found.response()


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")


def _caller(request: Request) -> Caller:
    """Who asks, and what they want to become of the job when they go. Raises InvalidField."""
    secret = request.headers.get("authorization")
    if secret:
        name = f"key.{hashlib.sha256(secret.encode()).hexdigest()[:32]}"
    else:
        name = f"address.{encode_token(request.client.host if request.client else 'none')}"
    key = request.headers.get("idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidField("Idempotency-Key", "1 to 128 visible ASCII characters")
    # Who sends a key means to come back.
    wish = request.headers.get(ON_DISCONNECT.lower(), OnDisconnect.CANCEL if key is None else OnDisconnect.CONTINUE)
    if wish not in tuple(OnDisconnect):
        raise InvalidField(ON_DISCONNECT, "cancel or continue")
    return Caller(name, key, wish == OnDisconnect.CANCEL)


def _describe(span: Span, asked: Completion) -> None:
    if span.is_recording():
        span.set_attributes({names.GEN_AI_OPERATION: "chat", names.GEN_AI_REQUEST_MODEL: asked.model})


def _finished(span: Span, reason: str | None, usage: Any) -> None:
    if span.is_recording():
        span.set_attribute("http.response.status_code", 200)
        if reason:
            span.set_attribute(names.GEN_AI_FINISH_REASONS, [reason])
        if usage is not None:
            span.set_attribute(names.GEN_AI_INPUT_TOKENS, usage.prompt_tokens)
            span.set_attribute(names.GEN_AI_OUTPUT_TOKENS, usage.completion_tokens)


def _failed(span: Span, error: ApiError) -> None:
    if span.is_recording():
        span.set_attribute("http.response.status_code", error.status)
        span.set_attribute("error.type", error.code or str(error.status))
        if error.status >= 500:
            span.set_status(StatusCode.ERROR, error.code)
