"""`/api/sse`: a stream is opened, attached to what it listens to, and left to the hub."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

from opentelemetry.trace import Span, SpanKind
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway import frame
from gateway.hub.endings import Ending
from gateway.hub.keeper import Keeper
from gateway.hub.session import Session
from gateway.settings import GatewaySettings
from gateway.sse import request as stream_request
from gateway.sse.admission import Admission
from gateway.sse.plain import PlainStream
from gateway.sse.slim import SlimStream
from gateway.sse.takeover import offered
from tidegate_common.contract.ids import EventId
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import attached, extract
from tidegate_common.telemetry.providers import Telemetry

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
METHODS = ["GET", "HEAD", "POST", "OPTIONS"]

RETRY_MILLISECONDS = (1000, 3000)
"""EventSource waits so long, and without jitter of its own: each client is told another time."""


def retry_milliseconds() -> int:
    return random.randint(*RETRY_MILLISECONDS)


def farewell(ending: Ending) -> bytes:
    """The last chunk of a stream that the gateway ends."""
    return frame.chunk(frame.closing(ending.reason, retry_milliseconds(), ending is not Ending.KICKED))


class Attach(Protocol):
    """The feed's side: makes a session live on `tails`, after `start` has sent the response head."""

    async def attach(
        self,
        session: Session,
        tails: list[str],
        last_event_id: str | None,
        start: Callable[[], Awaitable[None]],
        welcome: Callable[[EventId, bool], bytes],
    ) -> None: ...


class StreamEndpoint:
    """An ASGI app: it needs `send` itself, since a stream outlives what a Response could do."""

    def __init__(
        self,
        settings: GatewaySettings,
        admission: Admission,
        attachments: Attach,
        keeper: Keeper,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._admission = admission
        self._attachments = attachments
        self._keeper = keeper
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method == "OPTIONS":
            await Response(status_code=204, headers={"allow": ", ".join(METHODS)})(scope, receive, send)
            return
        with self._connecting(request) as span:
            asked = await stream_request.read(request, self._settings.max_topics, self._settings.max_body_bytes)
            if span is not None:
                span.set_attribute(names.CLIENT_ID, asked.client_id)
            if request.method == "HEAD":
                await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
                await send({"type": "http.response.body", "body": b""})
                return
            stream = await self._open(request, send, asked)
        await stream.run()

    async def _open(
        self, request: Request, send: Send, asked: stream_request.StreamRequest
    ) -> SlimStream | PlainStream:
        address = request.client.host if request.client else ""
        if request.scope["http_version"] == "1.0" and offered(request.scope) is None:
            raise HTTPException(505, "a stream of this gateway needs HTTP/1.1: uvicorn would send chunks to HTTP/1.0")
        self._admission.enter(address)
        stream = self._stream(request)
        stream.address = address

        async def start() -> None:
            await stream.start(send, HEADERS)
            if stream.ending is None:
                self._keeper.keep(stream)

        def welcome(position: EventId, resumed: bool) -> bytes:
            return frame.chunk(frame.connected(asked.client_id, resumed, str(position).encode(), retry_milliseconds()))

        await self._attachments.attach(stream, asked.tails, asked.last_event_id, start, welcome)
        return stream

    def _stream(self, request: Request) -> SlimStream | PlainStream:
        settings, takeover = self._settings, offered(request.scope)
        if takeover is None:
            return PlainStream(request.receive, settings.max_backlog_bytes)
        return SlimStream(takeover, settings.max_backlog_bytes, settings.socket_send_bytes)

    def left(self, session: Session) -> None:
        """The connection is gone: its place is free."""
        self._admission.leave(session.address)

    @contextlib.contextmanager
    def _connecting(self, request: Request) -> Iterator[Span | None]:
        """A span for the connecting alone: one that stayed open for hours would tell nothing until its end."""
        if not self._telemetry.tracing:
            yield None
            return
        with (
            attached(extract(request.headers)),
            self._telemetry.tracer.start_as_current_span(
                f"{request.method} /api/sse",
                kind=SpanKind.SERVER,
                attributes={"http.request.method": request.method, "http.route": "/api/sse", "url.path": "/api/sse"},
            ) as span,
        ):
            yield span
