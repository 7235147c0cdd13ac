"""`/v1`: from OpenAI's requests to the use cases and back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
from opentelemetry.trace import Span
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from gateway.feed.reader import JobReader
from gateway.openai import tracing
from gateway.openai.api_errors import NOT_AGAIN, OVERLOADED, SERVER, ApiError, api_error, no_such_model
from gateway.openai.authority import Authority
from gateway.openai.caller import Caller, caller_of
from gateway.openai.completions import Completions
from gateway.openai.model_list import ModelList, may_use
from gateway.openai.rate_headers import rate_headers
from gateway.openai.request import Completion, read
from gateway.openai.response import ResponseWriter, gone
from gateway.openai.translator import ChunkHead, ChunkTranslator, completion
from gateway.settings import GatewaySettings
from gateway.sse.admission import Admission
from tidegate_common.auth.identity import Identity
from tidegate_common.contract.answers import AnswerBuilder
from tidegate_common.contract.budget import Allowance
from tidegate_common.contract.jobs import CHAT
from tidegate_common.errors import TidegateError
from tidegate_common.runtime.authentication import principal_of
from tidegate_common.runtime.body import read_body
from tidegate_common.runtime.hosts import problem
from tidegate_common.runtime.problems import REFUSALS, mark_refused
from tidegate_common.runtime.tasks import end
from tidegate_common.telemetry import names
from tidegate_common.telemetry.logging import mark_said
from tidegate_common.telemetry.providers import Telemetry

log = logging.getLogger(__name__)

MOUNT = "/v1"
PATH = f"{MOUNT}/chat/completions"
LATE_SECONDS = 5.0
"""A job's worker ends it at its deadline. If none does, the front gives up so much later."""

STOP_SECONDS = 1.0


class OpenAiFront:
    """The routes, and what they share."""

    def __init__(
        self,
        settings: GatewaySettings,
        completions: Completions,
        models: ModelList,
        identity: Identity,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._limits = identity.limits
        self._authority = Authority(identity)
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
        return Mount(MOUNT, app)

    async def drain(self, seconds: float) -> None:
        """Takes no more completions; those that there are have `seconds` to end, and are then ended with an error."""
        self.admission.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            self._stopping.set()
            with suppress(TimeoutError):  # a client that does not read may hold its last event up
                async with asyncio.timeout(min(STOP_SECONDS, seconds / 8)):
                    await self._idle.wait()
        await self._completions.aclose()

    async def _list(self, request: Request) -> Response:
        return _json({"object": "list", "data": await self._models.all(principal_of(request))})

    async def _model(self, request: Request) -> Response:
        return _json(await self._models.one(principal_of(request), request.path_params["model"]))

    async def complete(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One completion, from its request to the end of its answer."""
        request = Request(scope, receive)
        writer = ResponseWriter(send)
        with tracing.serving(self._telemetry, scope["headers"], PATH) as span:
            try:
                self.admission.check("")
                caller = caller_of(request)
                self._count(caller, writer)
                with self._authority.over(caller.principal) as lost:
                    asked = await self._asked(request, caller)
                    if lost.done():  # the body may have come slowly
                        raise lost.result()
                    tracing.asked(span, asked)
                    with self._place():
                        await self._answer(asked, caller, writer, receive, span, lost)
            except _Gone:
                span.set_attribute("error.type", "client_gone")
            except Exception as error:
                if isinstance(error, REFUSALS):
                    mark_refused(scope, error)
                found = api_error(error)
                if found.status == 500 and not isinstance(error, TidegateError):
                    log.error("unforeseen error", exc_info=error)
                tracing.failed(span, found)
                await writer.error(found)

    async def _asked(self, request: Request, caller: Caller) -> Completion:
        """Raises what `read` does, and Forbidden, Unauthenticated; ApiError for a model that the caller may not use."""
        caller.principal.check_job(CHAT)  # before the body: a refusal is cheap
        asked = read(await read_body(request, self._settings.max_completion_bytes))
        if not may_use(caller.principal, asked.model):
            raise no_such_model(asked.model)
        return asked

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Raises TooManyConnections if there is none."""
        self.admission.enter("")
        self.admission.opened()
        self._idle.clear()
        try:
            yield
        finally:
            self.admission.leave("")
            if not self.admission.active:
                self._idle.set()

    def _count(self, caller: Caller, writer: ResponseWriter) -> None:
        """Raises Limited."""
        try:
            self._limits.job(caller.principal, caller.address)
        finally:
            allowance = self._limits.jobs_left(caller.principal, caller.address)
            if allowance is not None:
                writer.headers |= rate_headers("requests", *allowance)

    async def _answer(
        self,
        asked: Completion,
        caller: Caller,
        writer: ResponseWriter,
        receive: Receive,
        span: Span,
        lost: asyncio.Future[ApiError],
    ) -> None:
        def told(allowance: Allowance) -> None:
            writer.headers |= rate_headers("tokens", *allowance)

        async with self._completions.begin(asked, caller, told) as (job, reader):
            writer.headers["x-request-id"] = job.job_id
            span.set_attribute(names.JOB_ID, job.job_id)
            head = ChunkHead(job.job_id, int(job.created), asked.model)
            if asked.stream:
                work = self._stream(reader, ChunkTranslator(head, asked.params.n, asked.include_usage), writer, span)
            else:
                work = self._whole(reader, head, writer, span)
            await self._while_wanted(work, receive, writer, asked.stream, lost)

    async def _stream(self, reader: JobReader, chunks: ChunkTranslator, writer: ResponseWriter, span: Span) -> None:
        async for event_type, data in reader.events():
            found = chunks.take(event_type, data)
            if found:
                if not writer.begun:
                    span.add_event("first chunk")
                await writer.write(found, more=not chunks.over)
        if not chunks.over:
            raise ApiError(500, "The answer's end can't be read.", SERVER, code="internal_error", headers=NOT_AGAIN)
        tracing.answered(span, chunks.finish_reason, chunks.usage)

    async def _whole(self, reader: JobReader, head: ChunkHead, writer: ResponseWriter, span: Span) -> None:
        found = AnswerBuilder()
        async for event_type, data in reader.events():
            found.take(event_type, data)
        answer = found.answer()
        body = completion(head, answer)
        tracing.answered(span, answer.finish_reason, answer.usage)
        await writer.document(body)

    async def _while_wanted(
        self,
        work: Coroutine[Any, Any, None],
        receive: Receive,
        writer: ResponseWriter,
        beating: bool,
        lost: asyncio.Future[ApiError],
    ) -> None:
        """Does `work` until its end. Raises _Gone if the client goes away before, ApiError if time is over, or if the
        right to it is `lost`."""
        working = asyncio.create_task(work)
        leaving = asyncio.create_task(gone(receive))
        stopping = asyncio.create_task(self._stopping.wait())
        tasks: list[asyncio.Future[Any]] = [working, leaving, stopping, lost]
        seconds = self._settings.completion_seconds + LATE_SECONDS
        beats = [asyncio.create_task(writer.beat(self._settings.heartbeat_seconds))] if beating else []
        try:
            await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if working.done() or writer.over:  # the server calls it a disconnect, too, when all has been sent
                return await working
            if leaving.done():
                raise _Gone
            if lost.done():
                raise lost.result()
            if stopping.done():
                message = "This gateway is being stopped."
                raise ApiError(503, message, OVERLOADED, code="stopping", headers={"Retry-After": "1"})
            raise ApiError(504, "The answer was not there in time.", SERVER, code="timeout")
        finally:
            await end([*tasks, *beats])


def refusal(scope: Scope, error: TidegateError) -> Response:
    """What is refused before its endpoint: below `/v1` it is answered in OpenAI's shape, else by problem details."""
    if scope["path"] == MOUNT or scope["path"].startswith(f"{MOUNT}/"):
        return api_error(error).response()
    return problem(scope, error)


class _Endpoint:
    """An ASGI app: it needs `send` and `receive` themselves."""

    def __init__(self, front: OpenAiFront) -> None:
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._front.complete(scope, receive, send)


class _Gone(Exception):
    """The client has gone away: nobody is to be told."""


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, REFUSALS):
        mark_refused(request.scope, error)
    found = api_error(error)
    if found.status == 500:
        log.error("unforeseen error", exc_info=error)
        mark_said(error)
    return found.response()


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
