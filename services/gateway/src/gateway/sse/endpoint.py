"""`/api/sse`: a stream is opened, attached to what it listens to, and left to the hub."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from msgspec import UNSET
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway import frame
from gateway.hub.endings import Back, Ending
from gateway.hub.heartbeat import Heartbeat
from gateway.hub.session import Session
from gateway.settings import GatewaySettings
from gateway.sse import request as stream_request
from gateway.sse.admission import Admission
from gateway.sse.plain import PlainStream
from gateway.sse.slim import SlimStream
from gateway.sse.takeover import DirectTakeover, Takeover, offered
from tidegate_common.contract.ids import EventId
from tidegate_common.errors import Unavailable
from tidegate_common.runtime.problems import note_trace
from tidegate_common.runtime.query import Ignored
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import caller
from tidegate_common.telemetry.providers import Telemetry
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
DIRECT_HEADERS = [*HEADERS, (b"vary", b"Origin")]
"""With what CORS adds where no origin is named: another one's answer differs."""
PATH = "/api/sse"
JOB_PATH = "/api/sse/jobs/{job_id}"
METHODS = ["GET", "HEAD", "POST", "OPTIONS"]

UNAVAILABLE, ERROR = "unavailable", "error"
"""Why a stream was refused that had a place: NATS is away; or a fault of ours."""

MOST_LISTED = 100
"""Names that a client is told to listen to; of more it is told their number."""


def retry_milliseconds(back: Back = Back.SOON) -> int:
    return random.randint(back.least, back.most)


def farewell(ending: Ending) -> bytes:
    """The last chunk of a stream that the gateway ends."""
    back = ending.back
    return frame.chunk(frame.closing(ending.reason, retry_milliseconds(back), back.reconnect))


class Attach(Protocol):
    """The feed's side: makes a session live on `tails`, after `start` has sent the response head."""

    async def attach(
        self,
        session: Session,
        tails: list[str],
        last_event_id: str | None,
        start: Callable[[], Awaitable[None]],
        welcome: Callable[[EventId, bool], bytes],
        since: str | None,
        ends_at: int,
    ) -> None: ...


class StreamEndpoint:
    """An ASGI app: it needs `send` itself, since a stream outlives what a Response could do."""

    def __init__(
        self,
        settings: GatewaySettings,
        admission: Admission,
        attachments: Attach,
        heartbeat: Heartbeat,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._admission = admission
        admission.refused.update(dict.fromkeys((UNAVAILABLE, ERROR), 0))
        self._attachments = attachments
        self._cut_off = {
            Ending.SLOW: Trouble(
                log,
                "a client that reads too slowly was cut off, and gets the rest when it comes back: "
                "see its network, or raise TIDEGATE_MAX_BACKLOG_BYTES",
            ),
            Ending.STALLED: Trouble(
                log,
                f"a peer that acknowledged nothing for {settings.write_timeout_seconds:g} s was cut off "
                "(TIDEGATE_WRITE_TIMEOUT_SECONDS): its network is gone, or it has stopped",
            ),
        }
        self._attaching: set[Session] = set()
        """Whose head is not out yet."""
        self._heartbeat = heartbeat
        self._telemetry = telemetry
        self.ignored = Ignored(settings.ignored_parameters)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method == "OPTIONS":
            await Response(status_code=204, headers={"allow": ", ".join(METHODS)})(scope, receive, send)
            return
        self.admit(request)
        settings = self._settings
        asked = await stream_request.read(request, settings.max_topics, settings.max_body_bytes, self.ignored)
        await self.serve(request, asked, send)

    def admit(self, request: Request) -> None:
        """Raises TooManyConnections, TooManyFromAddress where `request` can't get a stream, whatever it asks for."""
        self._admission.check(_address(request.scope))

    async def serve(self, request: Request, asked: stream_request.StreamRequest, send: Send) -> None:
        """The stream that `asked` is for, which `request` has asked for by way of ASGI."""
        scope, receive = request.scope, request.receive
        if request.method == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await send({"type": "http.response.body", "body": b""})
            return
        takeover = offered(scope)
        stream: SlimStream | PlainStream
        if takeover is not None:
            stream = self._slim(takeover)
        else:
            stream = PlainStream(receive, self._settings.max_backlog_bytes)
        fields = stream_request.Fields.of(scope["headers"])
        try:
            await self._traced(request.method, fields, asked, stream, _address(scope), send)
        finally:
            await stream.run()  # also where attaching has failed after the head: what was started is told, and ended

    async def directly(
        self, query: bytes, headers: list[tuple[bytes, bytes]], address: str, takeover: DirectTakeover
    ) -> None:
        """A stream for a GET that nobody before this endpoint has anything to say to."""
        self._admission.check(address)
        fields = stream_request.Fields.of(headers)
        asked = stream_request.of_query(query, fields, self._settings.max_topics, self.ignored)
        await self._traced("GET", fields, asked, self._slim(takeover), address, None)

    async def _traced(
        self,
        method: str,
        fields: stream_request.Fields,
        asked: stream_request.StreamRequest,
        stream: SlimStream | PlainStream,
        address: str,
        send: Send | None,
    ) -> None:
        """Opens the stream, in a span of its own where it is sampled.

        The span is of the connecting alone: one that stayed open for hours would tell nothing until its end.
        """
        if self._telemetry.tracing:
            route = PATH if asked.job_id is None else JOB_PATH
            span = self._telemetry.tracer.start_span(
                f"{method} {route}",
                caller(fields.context),
                SpanKind.SERVER,
                {"http.request.method": method, "http.route": route, "url.path": route},
            )
            if span.is_recording():
                span.set_attribute(names.CLIENT_ID, asked.client_id)
                if asked.job_id is not None:
                    path = f"{PATH}/jobs/{asked.job_id}"
                    facts = {names.JOB_ID: asked.job_id, names.JOB_TRACE_ID: asked.job_trace_id, "url.path": path}
                    span.set_attributes(facts)
                try:
                    with trace.use_span(span, end_on_exit=True):
                        await self._open(asked, stream, address, send)
                except Exception as error:
                    note_trace(error, trace.format_trace_id(span.get_span_context().trace_id))
                    raise
                return
        await self._open(asked, stream, address, send)

    async def _open(
        self, asked: stream_request.StreamRequest, stream: SlimStream | PlainStream, address: str, send: Send | None
    ) -> None:
        self._admission.enter(address)
        stream.address = address

        self._attaching.add(stream)

        async def start() -> None:
            headers = DIRECT_HEADERS if send is None else HEADERS
            await stream.start(send, headers)  # type: ignore[arg-type]  # a plain one always has its `send`
            self._begun(stream)
            if stream.ending is None:
                self._heartbeat.keep(stream)

        def welcome(position: EventId, resumed: bool) -> bytes:
            known = resumed and asked.last_event_id is not None
            here = str(position).encode()
            told = frame.Connected(
                client_id=asked.client_id,
                resumed=known,
                listening=asked.listening if len(asked.listening) <= MOST_LISTED else len(asked.listening),
                job_id=asked.job_id or UNSET,
            )
            return frame.chunk(frame.connected(told, here, retry_milliseconds()))

        try:
            await self._attachments.attach(
                stream, asked.tails, asked.last_event_id, start, welcome, asked.since, asked.ends_at
            )
        except BaseException as error:
            if stream.ending is Ending.REFUSED:
                self.refused(error)
            raise

    def _begun(self, session: Session) -> None:
        """Counts a stream once: each that has an ending was opened."""
        if session in self._attaching:
            self._attaching.discard(session)
            self._admission.opened()

    def refused(self, error: BaseException) -> None:
        """Counts a stream that `error` has kept from being opened."""
        self._admission.refuse(UNAVAILABLE if isinstance(error, Unavailable) else ERROR)

    def _slim(self, takeover: Takeover | DirectTakeover) -> SlimStream:
        return SlimStream(takeover, self._settings.max_backlog_bytes)

    def left(self, session: Session) -> None:
        """The connection is gone: its place is free. One that left, or was ended, while it was attached was opened."""
        if session.ending is not Ending.REFUSED:
            self._begun(session)
        if session.ending in self._cut_off:
            self._cut_off[session.ending].note()
        self._attaching.discard(session)
        self._heartbeat.forget(session)
        self._admission.leave(session.address)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""
