"""What a connection is until its first bytes have come: a stream that is asked for plainly, or uvicorn's.

Nearly all connections of a gateway are a `GET /api/sse` of the own origin in one piece. Such a one needs no routing, no
CORS, no ASGI scope and no request cycle; on uvicorn's way those are more than half of what accepting it costs. What
is anything else (other paths and methods, another origin, a host that is not ours, a body, old HTTP, a head in pieces)
is uvicorn's from its first byte.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

import httptools
from starlette.exceptions import HTTPException
from starlette.responses import Response
from uvicorn import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from gateway.sse.takeover import DirectTakeover, Lost
from tidegate_common.errors import TidegateError
from tidegate_common.runtime.discard import Discard
from tidegate_common.runtime.guard import Guard
from tidegate_common.runtime.hosts import Hosts
from tidegate_common.runtime.problems import problem_response, unforeseen_response
from tidegate_common.runtime.protocol import BLANKS

NOT_PLAIN = frozenset({b"origin", b"content-length", b"transfer-encoding", b"expect", b"upgrade"})
"""With one of these headers a request is for uvicorn."""


class Open(Protocol):
    """The endpoint's way in. Raises TidegateError or HTTPException where there is to be no stream."""

    def __call__(
        self, query: bytes, headers: list[tuple[bytes, bytes]], address: str, takeover: DirectTakeover
    ) -> Awaitable[None]: ...


class Head:
    """A request's line and headers, as the parser tells them."""

    __slots__ = ("closes", "headers", "messages", "url")

    def __init__(self) -> None:
        self.closes = False
        """The client sends nothing more on this connection, and is to be told that the answer is the last one."""
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.messages = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(BLANKS)))

    def on_message_complete(self) -> None:
        self.messages += 1


def plain(data: bytes, path: bytes, max_bytes: int) -> Head | None:
    """The head in `data`, where that is one whole GET for `path` by HTTP/1.1 without a body; else None."""
    if len(data) > max_bytes or not (data.startswith(b"GET %s" % path) and data.endswith(b"\r\n\r\n")):
        return None
    head = Head()
    parser = httptools.HttpRequestParser(head)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    if head.messages != 1 or parser.get_http_version() != "1.1" or head.url.partition(b"?")[0] != path:
        return None
    if b"#" in head.url:
        return None
    for name, value in head.headers:
        if name in NOT_PLAIN:
            return None
        if name == b"connection":
            option = value.lower()
            if option == b"close":
                head.closes = True
            elif option != b"keep-alive":
                return None
    return head


class Front:
    """Makes the connections' first protocols for uvicorn, which takes it for a protocol class."""

    def __init__(self, usual: type[Any], open_stream: Open, path: str, guard: Guard, hosts: Hosts) -> None:
        """`usual` makes uvicorn's own protocol."""
        self.usual = usual
        self.open_stream = open_stream
        self.path = path.encode()
        self.hosts = hosts
        self.guard = guard
        self.max_header_bytes = guard.limits.head_bytes

    def __call__(self, config: Config, server_state: ServerState, **more: Any) -> FrontProtocol:
        def usual() -> asyncio.Protocol:
            made: asyncio.Protocol = self.usual(config=config, server_state=server_state, **more)
            return made

        return FrontProtocol(self, usual, config.loaded_app, server_state)


class FrontProtocol(asyncio.Protocol):
    """One connection before anybody knows what it is for."""

    __slots__ = ("_app", "_data", "_front", "_state", "_transport", "_usual", "watcher")

    def __init__(self, front: Front, usual: Callable[[], asyncio.Protocol], app: Any, state: ServerState) -> None:
        self._front = front
        self._usual = usual
        self._app = app
        self._state = state
        self._transport: asyncio.Transport
        self._data = False
        self.watcher: Lost | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        connections: set[Any] = self._state.connections
        guard = self._front.guard
        if guard.admits(connections):
            connections.add(self)
            guard.heads.start(self._transport)
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._data:
            return  # a stream is being opened, and takes nothing more from its client
        self._data = True
        peer = self._transport.get_extra_info("peername")
        head = plain(data, self._front.path, self._front.max_header_bytes) if type(peer) is tuple else None
        if head is None or not self._front.hosts.passes(head.headers):
            self._hand_over(data)
            return
        self._front.guard.heads.stop(self._transport)
        address = self._forwarded(str(peer[0]), head.headers)
        task = asyncio.get_running_loop().create_task(self._open(head, address))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._front.guard.heads.stop(self._transport)
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            watcher(exc)

    def head_late(self) -> None:
        """Nothing has come in all the time that there is for a head: there is nobody to be told."""
        self._front.guard.count("silent")
        self._transport.close()

    def shutdown(self) -> None:
        """uvicorn's way of asking a connection to end. One that is being opened has been drained by the hub."""
        if not self._data:
            self._transport.close()

    def abort(self) -> None:
        """The server's way of cutting what has not ended in time."""
        self._transport.abort()

    async def _open(self, head: Head, address: str) -> None:
        takeover = DirectTakeover(self, self._transport, self._state, head.closes)
        try:
            await self._front.open_stream(head.url.partition(b"?")[2], head.headers, address, takeover)
        except (TidegateError, HTTPException) as error:
            if not takeover.taken:
                self._answer(problem_response(error, head.headers))
        except Exception as error:
            answer = unforeseen_response(error, head.headers)
            if not takeover.taken:
                self._answer(answer)

    def _answer(self, response: Response) -> None:
        """Writes a whole response; the connection ends with it. Nothing where the client has gone meanwhile."""
        self.watcher = None
        if self._transport.is_closing():
            return
        headers = [*self._state.default_headers, *response.raw_headers, (b"vary", b"Origin"), (b"connection", b"close")]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        self._transport.write(b"%s%s\r\n%s" % (STATUS_LINE[response.status_code], lines, response.body))
        connections: set[Any] = self._state.connections
        connections.discard(self)
        Discard(self._transport, connections, self._front.guard)

    def _hand_over(self, data: bytes) -> None:
        self._state.connections.discard(self)
        usual = self._usual()
        self._transport.set_protocol(usual)
        usual.connection_made(self._transport)
        usual.data_received(data)

    def _forwarded(self, peer: str, headers: list[tuple[bytes, bytes]]) -> str:
        """The client's address: what a trusted proxy names, by uvicorn's own rules, or the peer's."""
        if isinstance(self._app, ProxyHeadersMiddleware) and peer in self._app.trusted_hosts:
            named = [value for name, value in headers if name == b"x-forwarded-for"]
            if named:
                host, _ = self._app.trusted_hosts.get_trusted_client_address(b", ".join(named).decode("latin-1"))
                return host or peer
        return peer
