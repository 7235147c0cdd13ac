"""What both ways to the socket share: a stream is admitted, attached to what it listens to, and left to the hub."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

from msgspec import UNSET
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from starlette.requests import Request

from gateway import frame
from gateway.hub.endings import Back, Ending
from gateway.hub.heartbeat import Heartbeat
from gateway.hub.session import Session
from gateway.settings import GatewaySettings
from gateway.sse.admission import Admission
from gateway.sse.job_streams import JobStreams
from gateway.sse.request import Fields, Listener, StreamRequest, of_body, of_query, ticket_of
from gateway.sse.withdrawals import Withdrawals
from tidegate_common.auth.identity import Identity
from tidegate_common.bus.streams.patience import WAITER
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.principal import Principal
from tidegate_common.errors import Unauthenticated, Unavailable
from tidegate_common.runtime.problems import REFUSALS, note_trace, trace_of
from tidegate_common.runtime.query import Ignored
from tidegate_common.telemetry import names
from tidegate_common.telemetry.propagation import caller
from tidegate_common.telemetry.providers import Telemetry
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

PATH = "/api/sse"
JOB_PATH = "/api/sse/jobs/{job_id}"

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]
NOTHING_MORE = {"cache-control": "no-store"}
"""Headers of the 204 for a watcher that has all of its job. EventSource comes back after any other answer."""

UNAVAILABLE, ERROR = "unavailable", "error"
"""Why a stream was refused that had a place: NATS is away; or a fault of ours."""

MOST_LISTED = 100
"""Names that a client is told to listen to; of more it is told their number."""


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


class Claims(Protocol):
    """The feed's side: a ticket opens one stream at a time."""

    async def claim(self, session: Session) -> None:
        """Raises Unauthenticated, BrokerUnavailable."""

    def forget(self, session: Session) -> None:
        """The connection of a session that has claimed its ticket is gone."""


class StreamEndpoint:
    """Opens streams. A way to the socket calls `admit`, `identify`, `request_of` and `open`, in this order."""

    def __init__(
        self,
        settings: GatewaySettings,
        identity: Identity,
        ticket_uses: Claims,
        admission: Admission,
        attachments: Attach,
        heartbeat: Heartbeat,
        withdrawals: Withdrawals,
        jobs: JobStreams,
        telemetry: Telemetry,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._ticket_uses = ticket_uses
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
        self._withdrawals = withdrawals
        self._jobs = jobs
        self._telemetry = telemetry
        self._ignored = Ignored(settings.ignored_parameters)

    def admit(self, address: str) -> None:
        """Raises TooManyConnections, TooManyFromAddress if `address` can't get a stream, whatever it asks for.

        Called before a request is read: a hundred topics once cost 28 ms of a client that got 429 all the same.
        """
        self._admission.check(address)

    async def identify(self, query: bytes, headers: Iterable[tuple[bytes, bytes]], address: str) -> Principal:
        """Who asks; a ticket in the `query` says it, too.

        Raises InvalidCredentials, Unauthenticated, Limited, Forbidden, Unavailable.
        """
        ticket = ticket_of(query) if self._settings.asks else None
        principal = await self._identity.authenticator.principal(headers, address, ticket)
        self._identity.limits.connect(principal, address)
        return principal

    async def request_of(
        self, principal: Principal, query: bytes, headers: Iterable[tuple[bytes, bytes]], job_id: str | None = None
    ) -> StreamRequest | None:
        """What a GET of `principal` asks for, and may; None for a watcher that has all of its job.

        Raises InvalidField, Forbidden, Unauthenticated, Unavailable; for a job's own stream NotFound, HTTPException
        (404), too.
        """
        fields = Fields.of(headers)
        try:
            if job_id is not None:
                return await self._jobs.request_of(principal, job_id, query, fields, self._ignored)
            listener = Listener(principal, self._identity.client_ids)
            return of_query(query, fields, listener, self._settings.max_topics, self._ignored)
        except Unavailable as error:
            self._count_refused(error)
            raise

    async def request_of_body(self, principal: Principal, request: Request) -> StreamRequest:
        """The same for a POST. Raises InvalidBody, TooLarge, UnsupportedMedia, too."""
        listener = Listener(principal, self._identity.client_ids)
        most, most_bytes = self._settings.max_topics, self._settings.max_body_bytes
        return await of_body(request, listener, most, most_bytes, self._ignored)

    def note_refused(
        self, stream: Session, what: str, headers: Iterable[tuple[bytes, bytes]], error: Exception
    ) -> None:
        """`error` is the answer to whoever asked for `stream`, outside of ASGI."""
        if isinstance(error, REFUSALS):
            found = trace_of(error, headers)
            note_trace(error, found)
            who = None if stream.principal.is_open else stream.principal
            self._identity.audit_log.refused(who, what, stream.address, found, error)

    async def open(
        self, request: StreamRequest, stream: Session, start: Callable[[], Awaitable[None]], method: str = "GET"
    ) -> None:
        """Makes `stream` live, in a span of its own if it is sampled; `start` sends the response head.

        Raises TooManyConnections, TooManyFromAddress, BrokerUnavailable before that.
        """
        if self._telemetry.tracing:
            with self._span(request, method):
                await self._attach(request, stream, start)
        else:
            await self._attach(request, stream, start)

    @contextmanager
    def _span(self, request: StreamRequest, method: str) -> Iterator[None]:
        """Of the connecting alone: one that stayed open for hours would tell nothing until its end."""
        route = PATH if request.job_id is None else JOB_PATH
        facts = {"http.request.method": method, "http.route": route, "url.path": route}
        span = self._telemetry.tracer.start_span(f"{method} {route}", caller(request.context), SpanKind.SERVER, facts)
        if not span.is_recording():
            yield
            return
        span.set_attribute(names.CLIENT_ID, request.client_id)
        if request.job_id is not None:
            path = f"{PATH}/jobs/{request.job_id}"
            span.set_attributes(
                {names.JOB_ID: request.job_id, names.JOB_TRACE_ID: request.job_trace_id, "url.path": path}
            )
        try:
            with trace.use_span(span, end_on_exit=True):
                yield
        except Exception as error:
            note_trace(error, trace.format_trace_id(span.get_span_context().trace_id))
            raise

    async def _attach(self, request: StreamRequest, stream: Session, start: Callable[[], Awaitable[None]]) -> None:
        self._admission.enter(stream.address)
        if stream.principal.ticket is not None:
            await self._claim(stream)
        self._attaching.add(stream)

        async def begin() -> None:
            self._withdrawals.check(stream, request.client_id)
            await start()
            self._count_opened(stream)
            if stream.ending is None:
                self._heartbeat.keep(stream)
                self._withdrawals.keep(stream, request.client_id)

        def welcome(position: EventId, resumed: bool) -> bytes:
            known = resumed and request.last_event_id is not None
            here = str(position).encode()
            told = frame.Connected(
                client_id=request.client_id,
                resumed=known,
                listening=request.listening if len(request.listening) <= MOST_LISTED else len(request.listening),
                job_id=request.job_id or UNSET,
            )
            return frame.chunk(frame.connected(told, here, Back.SOON.milliseconds()))

        try:
            await self._attachments.attach(
                stream, request.tails, request.last_event_id, begin, welcome, request.since, request.ends_at
            )
        except BaseException as error:
            if stream.ending is Ending.REFUSED:
                self._count_refused(error)
            raise

    async def _claim(self, stream: Session) -> None:
        """The stream's ticket is used: only now, since what is refused must not end the stream that has it."""
        waiter = WAITER.set(stream)
        try:
            await self._ticket_uses.claim(stream)
        except BaseException as error:
            self._admission.leave(stream.address)
            if isinstance(error, Unavailable):
                self._count_refused(error)
            raise
        finally:
            WAITER.reset(waiter)

    def _count_opened(self, session: Session) -> None:
        """Counts a stream once: each that has an ending was opened."""
        if session in self._attaching:
            self._attaching.discard(session)
            self._admission.opened()

    def _count_refused(self, error: BaseException) -> None:
        """Counts a stream that `error` has kept from being opened. One whose token has ended meanwhile is none."""
        if isinstance(error, Unauthenticated):
            return
        self._admission.refuse(UNAVAILABLE if isinstance(error, Unavailable) else ERROR)

    def forget(self, session: Session) -> None:
        """The connection is gone: its place is free. One that left, or was ended, while it was attached was opened."""
        if session.ending is not Ending.REFUSED:
            self._count_opened(session)
        if session.ending in self._cut_off:
            self._cut_off[session.ending].note()
        self._attaching.discard(session)
        self._heartbeat.forget(session)
        self._withdrawals.forget(session)
        if session.principal.ticket is not None:
            self._ticket_uses.forget(session)
        self._admission.leave(session.address)
