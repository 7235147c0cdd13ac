"""The portable path: streams within ASGI, on any server, for every request that is not the fast path's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from gateway import frame
from gateway.hub.endings import Ending
from gateway.hub.session import Session
from gateway.sse.endpoint import HEADERS, JOB_PATH, NOTHING_MORE, PATH, StreamEndpoint
from gateway.sse.request import StreamRequest
from tidegate_common.contract.principal import Principal
from tidegate_common.runtime.authentication import PRINCIPAL
from tidegate_common.runtime.guard import ABORT
from tidegate_common.runtime.tasks import end


def stream_routes(endpoint: StreamEndpoint, max_backlog_bytes: int) -> list[BaseRoute]:
    """`/api/sse`, and each job's own stream below it."""
    return [
        Route(path, PortablePath(endpoint, methods, max_backlog_bytes), methods=methods)
        for path, methods in ((PATH, ["GET", "HEAD", "POST", "OPTIONS"]), (JOB_PATH, ["GET", "HEAD", "OPTIONS"]))
    ]


class PortablePath:
    """An ASGI app: it needs `send` itself, since a stream outlives what a Response could do."""

    def __init__(self, endpoint: StreamEndpoint, methods: list[str], max_backlog_bytes: int) -> None:
        self._endpoint = endpoint
        self._methods = methods
        self._max_backlog = max_backlog_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method == "OPTIONS":
            await Response(status_code=204, headers={"allow": ", ".join(self._methods)})(scope, receive, send)
            return
        address = request.client.host if request.client else ""
        self._endpoint.admit(address)
        query = scope["query_string"] if request.method != "POST" else b""  # an EventSource sends no POST, nor a ticket
        principal = scope[PRINCIPAL] = await self._endpoint.identify(query, scope["headers"], address)
        wanted = await self._wanted(principal, request)
        if wanted is None:
            await Response(status_code=204, headers=NOTHING_MORE)(scope, receive, send)
        elif request.method == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await send({"type": "http.response.body", "body": b""})
        else:
            stream = PortableStream(send, scope.get("extensions", {}).get(ABORT), self._max_backlog)
            stream.address = address
            stream.principal = principal
            await stream.run(receive, self._endpoint.open(wanted, stream, stream.start, request.method))

    async def _wanted(self, principal: Principal, request: Request) -> StreamRequest | None:
        if request.method == "POST":
            return await self._endpoint.request_of_body(principal, request)
        query, headers = request.scope["query_string"], request.scope["headers"]
        return await self._endpoint.request_of(principal, query, headers, request.path_params.get("job_id"))


class PortableStream(Session):
    """One task waits for the client's leaving; another writes, as long as there is something to write.

    If the server has no `abort`, a peer that does not read may hold its connection for as long as the server lets
    it; its place among the streams is free after `linger_seconds` all the same.
    """

    __slots__ = ("_abort", "_buffer", "_leaving", "_linger", "_most", "_send", "_size", "_started", "_writing")

    linger_seconds = 5.0
    """How long a peer that does not read may keep an ended stream."""

    def __init__(self, send: Send, abort: Callable[[], object] | None, max_backlog_bytes: int) -> None:
        super().__init__()
        self._send = send
        self._abort = abort
        self._most = max_backlog_bytes
        self._buffer: list[bytes] = []
        self._size = 0
        self._started = 0.0
        self._leaving: asyncio.Task[None]
        self._writing: asyncio.Task[None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self.send = self._keep

    async def run(self, receive: Receive, opening: Awaitable[None]) -> None:
        """Does `opening`, which calls `start`; returns when the client has gone or the stream has been closed.

        The client is listened to from here on: if NATS is away, `opening` may last, and must not outlive the client.
        """
        self._leaving = asyncio.create_task(self._listen(receive))
        try:
            try:
                await opening
            finally:
                if self._started:  # also if `opening` has failed by now: what was started is told, and ended
                    await asyncio.wait([self._leaving])
        finally:
            if self._linger is not None:
                self._linger.cancel()  # the connection may be another request's by then
            await end([self._leaving] if self._writing is None else [self._leaving, self._writing])
            self.lost()

    async def start(self) -> None:
        """Sends the response head, and from now on what is sent; nothing if the client has gone already."""
        if self._leaving.done():
            return
        await self._send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        self._started = asyncio.get_running_loop().time()
        self._write_soon()

    def close(self, ending: Ending, farewell: bytes) -> None:
        if self.ending is None:
            self.ending = ending
            self._keep(farewell)
            self._linger = asyncio.get_running_loop().call_later(self.linger_seconds, self._cut)

    def _cut(self) -> None:
        if self._abort is not None:
            self._abort()
        else:
            self._leaving.cancel()

    def age_seconds(self, now: float) -> float:
        return now - self._started

    def _keep(self, chunks: bytes) -> None:
        self._buffer.append(chunks)
        self._size += len(chunks)
        if self._size > self._most and not self.paused:
            self.set_paused(True)
        if self._started:
            self._write_soon()

    def _write_soon(self) -> None:
        if self._buffer and self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """All that there is, and what comes meanwhile, each time in one piece."""
        with suppress(OSError):  # a server may say so that the client has gone
            while self._buffer:
                body = frame.unchunk(b"".join(self._buffer))
                self._buffer.clear()
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
                self._size = sum(map(len, self._buffer))
                if self.paused and self._size <= self._most // 4:
                    self.set_paused(False)
            if self.ending is not None:
                # By itself: `send` waits until the peer has read what is before it, and only then is the answer over.
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
                return  # with `_writing` as it is: nothing comes after the end
        self._writing = None

    async def _listen(self, receive: Receive) -> None:
        """To the client's leaving; an answer that has come to its end is as good (ASGI, `http.disconnect`)."""
        with suppress(OSError):
            while (await receive())["type"] != "http.disconnect":
                pass
        self.lost()
