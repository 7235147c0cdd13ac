"""uvicorn's HTTP/1.1 protocol with limits on a connection's size and time, and an end that loses no answer."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tidegate_common.runtime import refusals
from tidegate_common.runtime.discard import Discard, GracefulTransport
from tidegate_common.runtime.guard import ABORT, BODIES, DISCARD_BYTES, Guard, HeadSize, TimeLimit
from tidegate_common.runtime.hosts import AUTHORITY, split_target
from tidegate_common.runtime.refusals import Refusal
from tidegate_common.runtime.uvicorn_http.exchange import Exchange

CONTENT = frozenset({b"content-length", b"transfer-encoding"})
"""Headers that say that a request has content (RFC 9112, 6)."""

FRAMING = CONTENT | {b"connection"}
"""Headers that say where a request ends, and whether another may follow."""

BLANKS = b" \t"
"""They may follow a field's value and are no part of it (RFC 9110, 5.5). The parser leaves them in."""

MAX_PIPELINED = 64
"""Requests that may wait on one connection: each costs a hundred times its bytes."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    guard: Guard
    transport: GracefulTransport

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.bare: asyncio.Transport
        self._time: TimeLimit
        self._size = HeadSize(self.guard.limits.head_bytes)
        self._message = False
        """Whether a request has begun and not ended."""
        self._in_head = True
        """Where in it the parser is, or before the next one."""
        self._replay = False
        """While a head that was read is read again: nothing of it is new."""
        self._deaf = False
        """Nothing more is read: the connection ends, at once or with the answers that are under way."""
        self._last_words: Refusal | None = None
        """Said when those are out."""
        self._running: RequestResponseCycle | None = None
        """Whose answer is being made; others wait behind it."""
        self.half_closed = False
        """The client sends nothing more. It may still read: `nc -N` and some proxies end so what they have asked."""
        self._unwanted = 0
        """Bytes of a body that has its answer already."""

    # The connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.bare = cast(asyncio.Transport, transport)
        admitted = self.guard.admits(self.connections)
        super().connection_made(GracefulTransport(self.bare, self._end))
        if not admitted:
            self.bare.abort()
            return
        self._time = TimeLimit(self.guard, self.bare)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._size.begin_read()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(refusals.INVALID)
        if self._size.read(len(data)):
            self._refuse(refusals.head_large(self.guard.limits.head_bytes))
        self._time.read(len(data))
        self._keep_time()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's never keeps a connection
        """Whether the connection stays open, for the answers to requests that are there as a whole."""
        running = self._running
        if running is None or (running.response_complete and not self.pipeline):
            return False
        if running is self.cycle and self._message and not self._in_head:
            return False  # its body is cut off
        self.half_closed = True
        if self._last_words is None:
            self.cycle.keep_alive = False
        running.message_event.set()  # an app that watches for the client's leaving is told
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._deaf = self.transport.closed = True
        self.guard.forget(self.bare)
        running, self._running = self._running, None
        if running is not None and not running.response_complete:
            # uvicorn tells the request that was read last, and that one may be waiting behind this one.
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """uvicorn's way of asking a connection to end: after the answer that is under way, if there is one."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif self._message:
            self.transport.close()
        else:
            self.bare.close()

    def abort(self) -> None:
        """Cuts the connection: nothing more is waited for."""
        self.bare.abort()

    # The parser's callbacks

    def on_message_begin(self) -> None:
        if self._replay or self._deaf:
            return
        if self._time.of is self.guard.heads and self.cycle is not None:
            self._time.set(None)  # another head has begun: it has its own time
        self._message = self._in_head = True
        self._size.begin()
        self._unwanted = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._replay and self._fits(len(url)):
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes after a chunked body are trailers: they count, and are no headers (RFC 9110, 6.5.1).
        if not self._replay and self._fits(len(name) + len(value) + 4) and self._in_head:
            super().on_header(name, value.rstrip(BLANKS))

    def on_headers_complete(self) -> None:
        if self._replay or self._deaf:
            return
        self._size.begin()  # what comes behind it are trailers
        if self.parser.get_method() == b"CONNECT":
            self._refuse(refusals.INVALID)
        elif self.parser.get_http_version() not in ("1.0", "1.1"):
            self._refuse(refusals.VERSION)
        elif b"#" in self.url:
            self._refuse(refusals.INVALID)  # a target has no fragment (RFC 9112, 3.2)
        elif len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(refusals.PIPELINED)
        else:
            # RFC 9112 3.2.2: of an absolute-form target the host counts, and not the header's. uvicorn drops it.
            authority, self.url = split_target(self.url)
            if authority is not None:
                self.scope["state"][AUTHORITY] = authority
            if self.expect_100_continue and not any(name in CONTENT for name, _ in self.headers):
                self.expect_100_continue = False  # without content there is nothing to go on with (RFC 9110, 10.1.1)
            super().on_headers_complete()
            self._in_head = False
            self._size.moved()

    def on_body(self, body: bytes) -> None:
        if self._deaf:
            return
        self._size.moved()
        super().on_body(body)
        if self.cycle.response_complete:
            self._unwanted += len(body)
            if self._unwanted > DISCARD_BYTES:
                self.bare.abort()

    def on_message_complete(self) -> None:
        # An upgrade that is not done makes its request no other than it is (RFC 9110, 7.8): its body is still to come.
        if self._deaf or self.parser.should_upgrade():
            return
        self._message, self._in_head = False, True
        self._size.moved()
        super().on_message_complete()

    # Answers

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: Any = cycle.scope
        scope["extensions"] = {BODIES: self.guard.bodies, ABORT: self.bare.abort}
        self._running = cycle
        super()._start_asgi_task(cycle, cast(Any, Exchange(app, cycle, self._left)))

    def _left(self) -> bool:
        """Whether an app that asks is to take the client for gone. Then the connection ends."""
        if self.half_closed:
            self.bare.close()
        return self.half_closed

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._time.restart()  # nothing was read while it waited
            self._start_asgi_task(*self.pipeline.pop())
        elif self._last_words is not None:
            self._say(self._last_words)
        else:
            self._keep_time()

    def _refuse(self, refusal: Refusal) -> None:
        """Reads no further and answers with `refusal`: after the answers that earlier requests are still to get."""
        if self._deaf:
            return
        self._deaf = True
        self._time.set(None)
        self.guard.count(refusal.reason)
        begun = self._message and not self._in_head
        if begun and self.pipeline:
            self.pipeline.popleft()  # the request itself, which waits for others and is never to start
        elif begun and self.cycle.response_started:
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()
            return
        elif begun:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._say(refusal)
            return
        if self.pipeline or (self.cycle is not None and not self.cycle.response_complete):
            self._last_words = refusal
        else:
            self._say(refusal)

    def _say(self, refusal: Refusal) -> None:
        asked = self.headers if self._message else ()  # between two messages they are those of the one before
        self.bare.write(refusal.encode(self.server_state.default_headers, asked))
        self.transport.close()

    def _end(self) -> None:
        """Ends the connection once the client has had time to read what was written to it."""
        connections, bare = self.connections, self.bare
        self.connection_lost(None)
        Discard(bare, connections, self.guard, half_closed=self.half_closed)

    # What is read

    def _feed(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if self._deaf:
                    return
                rest = memoryview(rest)[upgrade.args[0] :]
                self._ignore_upgrade()
            if not rest:
                return

    def _ignore_upgrade(self) -> None:
        """Makes a parser that stands behind the request's head and has not read of any upgrade.

        httptools' own takes what follows an upgrade for another protocol's, and reads no further (RFC 9110, 7.8).
        """
        version, method = self.scope["http_version"], self.scope["method"]
        lines = [b"%s: %s\r\n" % header for header in self.headers if header[0] in FRAMING]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._replay = True
        self.parser.feed_data(f"{method} / HTTP/{version}\r\n".encode() + b"".join(lines) + b"\r\n")
        self._replay = False

    def _fits(self, size: int) -> bool:
        if self._size.field(size):
            self._refuse(refusals.head_large(self.guard.limits.head_bytes))
        return not self._deaf

    # Time

    def _keep_time(self) -> None:
        """Lets the time run that the connection's state has."""
        if self._deaf:
            return
        if self._message:
            self._time.set(self.guard.heads if self._in_head else self.guard.pieces)
        elif self.cycle is not None:
            self._time.set(self.guard.idle if self.cycle.response_complete else None)

    def head_late(self) -> None:
        """The time for a head is over."""
        if self.flow.read_paused:
            self.guard.heads.start(self.bare)  # it is not the client that is slow: others of its requests are answered
        elif self._message:
            self._refuse(refusals.head_late(self.guard.limits.head_seconds))
        else:
            self.guard.count("silent")
            self.bare.close()

    def body_late(self) -> None:
        """The time for a body is over."""
        if self.flow.read_paused:
            self.guard.pieces.start(self.bare)
        else:
            self._refuse(refusals.body_late(self.guard.limits.body_seconds))

    def idle_late(self) -> None:
        """The time for another request is over, unless the last answer is still being read."""
        if self.bare.get_write_buffer_size():
            self.transport.close()  # which has a time for that
        else:
            self.bare.close()


def limited(guard: Guard) -> type[Any]:
    """The protocol with these limits: uvicorn makes protocols without arguments of ours."""
    return type(LimitedHttpProtocol.__name__, (LimitedHttpProtocol,), {"guard": guard})
