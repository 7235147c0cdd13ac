"""The fast path: a stream is opened from its connection's first bytes, and no HTTP server is in between.

Nearly all connections of a gateway are a `GET` for a stream in one piece. Such a one needs no routing, no middleware,
no ASGI scope and no request cycle; on uvicorn's way those are more than half of what accepting it costs. All else
(other paths and methods, a host that is not ours, a body, old HTTP, a head in pieces) is uvicorn's from its first byte,
and goes the portable path.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from http import HTTPStatus
from typing import Any, cast

import httptools
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gateway.sse.cors import Cors
from gateway.sse.endpoint import HEADERS, NOTHING_MORE, PATH, StreamEndpoint
from gateway.sse.request import TICKET_START, StreamRequest
from gateway.sse.socket_stream import SocketStream
from tidegate_common.bus.streams.patience import WAITER
from tidegate_common.errors import TidegateError
from tidegate_common.runtime.discard import Discard
from tidegate_common.runtime.guard import Guard
from tidegate_common.runtime.hosts import Hosts
from tidegate_common.runtime.problems import problem_response, unforeseen_response
from tidegate_common.runtime.refusals import encode_head
from tidegate_common.runtime.uvicorn_http.http_server import HttpServer
from tidegate_common.runtime.uvicorn_http.protocol import BLANKS

STREAM = PATH.encode()
JOBS = STREAM + b"/jobs/"

NOT_FAST = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
"""With one of these headers a request is for uvicorn."""

CLOSE, CHUNKED = (b"connection", b"close"), (b"transfer-encoding", b"chunked")


class RequestHead:
    """A request's line and headers, as the parser tells them."""

    __slots__ = ("closes", "headers", "job_id", "messages", "query", "url")

    def __init__(self) -> None:
        self.closes = False
        """The client sends nothing more on this connection, and is to be told that the answer is the last one."""
        self.url = b""
        self.query = b""
        self.job_id: str | None = None
        """Of a request for a job's own stream."""
        self.headers: list[tuple[bytes, bytes]] = []
        self.messages = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(BLANKS)))

    def on_message_complete(self) -> None:
        self.messages += 1


def read_head(data: bytes, max_bytes: int) -> RequestHead | None:
    """The head in `data`, if that is one whole GET for a stream by HTTP/1.1 without a body; else None."""
    if len(data) > max_bytes or not (data.startswith(b"GET %s" % STREAM) and data.endswith(b"\r\n\r\n")):
        return None
    head = RequestHead()
    parser = httptools.HttpRequestParser(head)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    if head.messages != 1 or parser.get_http_version() != "1.1" or b"#" in head.url:
        return None
    path, _, head.query = head.url.partition(b"?")
    if path != STREAM:
        job_id = path.removeprefix(JOBS)
        if job_id == path or not job_id.isalnum():
            return None  # another path, or an id that is written in an odd way
        head.job_id = job_id.decode()
    for name, value in head.headers:
        if name in NOT_FAST:
            return None
        if name == b"connection":
            option = value.lower()
            if option == b"close":
                head.closes = True
            elif option != b"keep-alive":
                return None
    return head


@lru_cache(maxsize=64)
def stream_head(fields: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The response head of a stream. All that begin within a second have the same date, and nearly always the rest."""
    return encode_head(HTTPStatus.OK, fields)


class FastPath:
    """Makes the connections' first protocols for uvicorn, which takes it for a protocol class."""

    def __init__(
        self, usual: type[Any], endpoint: StreamEndpoint, guard: Guard, hosts: Hosts, cors: Cors, max_backlog_bytes: int
    ) -> None:
        """`usual` makes uvicorn's own protocol."""
        self._usual = usual
        self._endpoint = endpoint
        self._cors = cors
        self._max_backlog = max_backlog_bytes
        self._server: HttpServer | None = None
        self.guard = guard
        self.hosts = hosts

    def __call__(self, **uvicorns: Any) -> FirstProtocol:
        if self._server is None:
            self._server = HttpServer(self._usual, **uvicorns)
        return FirstProtocol(self, self._server)

    def begin(self, head: RequestHead, server: HttpServer, transport: asyncio.Transport, peer: str) -> SocketStream:
        """Answers a request, in a task of its own; gives the stream that it is for."""
        # CORS and the answer's last header are told by the request alone; the date is of when the head goes out.
        own = self._cors.headers(head.headers)
        if head.closes:
            own = [*own, CLOSE]  # RFC 9112, 9.6

        def response_head() -> bytes:
            return stream_head((*server.headers, *HEADERS, *own, CHUNKED))

        stream = SocketStream(transport, server.connections, response_head, self._max_backlog)
        stream.address = server.client(peer, head.headers)
        server.spawn(self._open(head, server, transport, stream))
        return stream

    async def _open(
        self, head: RequestHead, server: HttpServer, transport: asyncio.Transport, stream: SocketStream
    ) -> None:
        answer: Response | None = None
        try:
            self._endpoint.admit(stream.address)
            if TICKET_START in head.query:
                # For this task alone: a ticket's record is waited for as long as its client is there.
                WAITER.set(stream)
            stream.principal = await self._endpoint.identify(head.query, head.headers, stream.address)
            wanted = await self._wanted(head, stream)
            if wanted is None:
                answer = Response(status_code=204, headers=NOTHING_MORE)
            else:
                await self._endpoint.open(wanted, stream, stream.start)
        except (TidegateError, HTTPException) as error:
            what = f"GET {PATH}" if head.job_id is None else f"GET {PATH}/jobs/{head.job_id}"
            self._endpoint.note_refused(stream, what, head.headers, error)
            answer = problem_response(error, head.headers)
        except Exception as error:
            answer = unforeseen_response(error, head.headers)
        if answer is not None and not stream.head_sent and not transport.is_closing():
            headers = (*server.headers, *answer.raw_headers, *self._cors.headers(head.headers), CLOSE)
            told = encode_head(HTTPStatus(answer.status_code), headers) + bytes(answer.body)
            transport.write(told)
            server.connections.discard(stream)
            Discard(transport, server.connections, self.guard, unsent=len(told))

    async def _wanted(self, head: RequestHead, stream: SocketStream) -> StreamRequest | None:
        if head.job_id is None:
            return await self._endpoint.request_of(stream.principal, head.query, head.headers)
        token = WAITER.set(stream)  # a job's record is waited for as long as its watcher is there
        try:
            return await self._endpoint.request_of(stream.principal, head.query, head.headers, head.job_id)
        finally:
            WAITER.reset(token)


class FirstProtocol(asyncio.Protocol):
    """One connection before anybody knows what it is for, and then until its stream's response head goes out."""

    __slots__ = ("_fast", "_server", "_stream", "_transport")

    def __init__(self, fast: FastPath, server: HttpServer) -> None:
        self._fast = fast
        self._server = server
        self._transport: asyncio.Transport
        self._stream: SocketStream | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        guard, connections = self._fast.guard, self._server.connections
        if guard.admits(connections):
            connections.add(self)
            guard.heads.start(self._transport)
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._stream is not None:
            return  # it takes nothing more from its client
        fast, server = self._fast, self._server
        server.connections.discard(self)  # its heir counts in its place, and is not one too many beside it
        peer = self._transport.get_extra_info("peername")
        head = read_head(data, fast.guard.limits.head_bytes) if type(peer) is tuple else None
        if head is None or not fast.hosts.passes(head.headers):
            server.hand_over(self._transport, data)
            return
        fast.guard.heads.stop(self._transport)
        self._stream = fast.begin(head, server, self._transport, str(peer[0]))

    def eof_received(self) -> None:
        if self._stream is not None:
            self._stream.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream is not None:
            self._stream.connection_lost(exc)
            return
        self._server.connections.discard(self)
        self._fast.guard.heads.stop(self._transport)

    def head_late(self) -> None:
        """Nothing has come in all the time that there is for a head: there is nobody to be told."""
        self._fast.guard.count("silent")
        self._transport.close()

    def shutdown(self) -> None:
        """uvicorn's way of asking a connection to end."""
        self._transport.close()

    def abort(self) -> None:
        """The server's way of cutting what has not ended in time."""
        self._transport.abort()
