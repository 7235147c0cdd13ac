"""How a stream gets its socket from uvicorn, as a WebSocket does: the protocol hands the transport over.

It rests on private names of the pinned uvicorn; tests/integration/gateway/test_streams.py fails when they move.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from tidegate_common.runtime.protocol import LimitedHttpProtocol

EXTENSION = "tidegate.takeover"


Lost = Callable[[Exception | None], object]
"""Told that a connection is lost, and why, as a protocol is."""


class Watched(Protocol):
    """A protocol that tells one watcher that its connection is lost."""

    watcher: Lost | None


class Takeover:
    """The right to one request's socket. It is bound to its own request: with pipelining the protocol's is another."""

    __slots__ = ("_cycle", "_protocol", "chunked")

    def __init__(self, protocol: TakeoverHttpProtocol, cycle: RequestResponseCycle) -> None:
        self._protocol: TakeoverHttpProtocol | None = protocol
        self._cycle: RequestResponseCycle | None = cycle
        self.chunked = cycle.scope["http_version"] != "1.0"
        """Whether the body is chunked; an HTTP/1.0 client reads to the end of the connection."""

    def watch(self, lost: Lost) -> None:
        """Calls `lost` where the connection is lost before it is taken."""
        assert self._protocol is not None
        self._protocol.watcher = lost
        if self._protocol.half_closed:
            self._protocol.bare.close()

    def gone(self) -> bool:
        """Whether the connection has been lost, or is about to be: then there is nothing to take."""
        assert self._cycle is not None
        if self._cycle.transport.is_closing():
            self._cycle.disconnected = True  # to uvicorn the app has forgotten to answer else
        return self._cycle.disconnected

    def take(self, heir: asyncio.Protocol) -> tuple[asyncio.Transport, set[Any]]:
        """The transport, which `heir` is the protocol of from now on. The request is over for uvicorn.

        Also gives the server's set of connections: `heir` is in it, for the server to end it with `shutdown`, and
        has to take itself out when it is lost.
        """
        protocol, cycle = self._protocol, self._cycle
        assert protocol is not None
        assert cycle is not None
        self._protocol = self._cycle = None
        transport = protocol.bare
        cycle.response_complete = True
        cycle.message_event.set()
        cycle.scope.pop("extensions", None)
        connections: set[Any] = protocol.connections
        protocol.release(heir)
        return transport, connections


class DirectTakeover:
    """The right to a connection that no HTTP server has seen yet, as `Takeover` has it. `state` is the server's."""

    __slots__ = ("_closes", "_keeper", "_state", "_transport", "taken")

    chunked = True

    def __init__(self, keeper: Watched, transport: asyncio.Transport, state: ServerState, closes: bool) -> None:
        """`keeper` is what keeps the connection until then; `closes` is whether the client asked for its end."""
        self._keeper = keeper
        self._transport = transport
        self._state = state
        self._closes = closes
        self.taken = False

    def watch(self, lost: Lost) -> None:
        """As a `Takeover` has it."""
        self._keeper.watcher = lost

    def gone(self) -> bool:
        """As a `Takeover` has it."""
        return self._transport.is_closing()

    def head(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The response's head: the server's own headers (the date), then `headers`, which are legal ones of ours."""
        lines = [b"%s: %s\r\n" % header for header in (*self._state.default_headers, *headers)]
        if self._closes:
            lines.append(b"connection: close\r\n")  # RFC 9112, 9.6
        return b"HTTP/1.1 200 OK\r\n%stransfer-encoding: chunked\r\n\r\n" % b"".join(lines)

    def take(self, heir: asyncio.Protocol) -> tuple[asyncio.Transport, set[Any]]:
        self.taken = True
        self._keeper.watcher = None
        connections: set[Any] = self._state.connections
        connections.discard(self._keeper)
        if not self._transport.is_closing():
            connections.add(heir)
        self._transport.set_protocol(heir)
        return self._transport, connections


class TakeoverHttpProtocol(LimitedHttpProtocol):
    """Offers each request's socket in `scope["extensions"]`."""

    watcher: Lost | None = None

    def eof_received(self) -> bool:  # type: ignore[override]  # as there
        """A stream that nobody may read any more is ended."""
        return self.watcher is None and super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            watcher(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.watcher = None
        scope: Any = cycle.scope
        scope["extensions"] = {EXTENSION: Takeover(self, cycle)}
        super()._start_asgi_task(cycle, app)

    def release(self, heir: asyncio.Protocol) -> None:
        """Gives the transport to `heir` and lets go of everything that would keep the request's memory."""
        self.watcher = None
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        transport = self.bare
        self.guard.forget(transport)
        if not transport.is_closing():
            self.connections.add(heir)  # type: ignore[arg-type]
        self.flow.resume_reading()
        transport.set_protocol(heir)
        empty: Any = None
        self.pipeline.clear()
        self.bare = self.transport = self.flow = self.parser = self.scope = self.headers = empty
        self.cycle = self._running = empty


def offered(scope: Any) -> Takeover | None:
    """The takeover that the server offers for this request, if it does."""
    found = scope.get("extensions", {}).get(EXTENSION)
    return found if isinstance(found, Takeover) else None
