"""Both kinds of stream on a real server and a real socket, read as raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gateway import frame
from gateway.hub.endings import Ending
from gateway.hub.session import Session
from gateway.settings import GatewaySettings
from gateway.sse.plain import PlainStream
from gateway.sse.slim import SlimStream
from gateway.sse.takeover import TakeoverHttpProtocol, offered
from tests.support.waiting import until
from tidegate_common.runtime.guard import Guard
from tidegate_common.runtime.protocol import LimitedHttpProtocol, limited
from tidegate_common.runtime.server import Server, server

HELLO, BYE = frame.chunk(b"data: hello\n\n"), frame.chunk(b"data: bye\n\n")
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
KINDS = pytest.mark.parametrize("kind", ["slim", "plain"])


class Streams:
    """An ASGI app that opens a stream for each request."""

    def __init__(self) -> None:
        self.opened: list[SlimStream | PlainStream] = []
        self.lost: list[Session] = []
        self.server: Server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        takeover = offered(scope)
        stream = SlimStream(takeover, 65_536) if takeover else PlainStream(receive, 65_536)
        stream.on_lost = self.lost.append
        await stream.start(send, [(b"content-type", b"text/event-stream")])
        stream.send(HELLO)
        self.opened.append(stream)
        await stream.run()


@asynccontextmanager
async def serving(kind: str) -> AsyncIterator[Streams]:
    streams = Streams()
    settings = GatewaySettings(nats_url="nats://127.0.0.1:1", port=0, drain_seconds=1.0)
    protocol = limited(Guard(settings.http_limits()), TakeoverHttpProtocol if kind == "slim" else LimitedHttpProtocol)
    streams.server = server(streams, settings, protocol=protocol)
    task = asyncio.create_task(streams.server.serve())
    await until(lambda: streams.server.started, "the server listens")
    try:
        yield streams
    finally:
        for stream in streams.opened:
            stream.close(Ending.DRAIN, b"")
        streams.server.should_exit = True
        await asyncio.wait_for(task, 10)


async def opened(streams: Streams, request: bytes = REQUEST) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", streams.server.port)
    writer.write(request)
    await until(lambda: bool(streams.opened), "the stream is open")
    return reader, writer, streams.opened[-1]


@KINDS
async def test_the_body_is_chunked_and_ends_with_the_farewell_and_the_last_chunk(kind: str) -> None:
    async with serving(kind) as streams:
        reader, writer, stream = await opened(streams)
        assert type(stream) is (SlimStream if kind == "slim" else PlainStream)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-type: text/event-stream\r\n" in head
        assert b"transfer-encoding: chunked\r\n" in head
        assert await asyncio.wait_for(reader.readexactly(len(HELLO)), 5) == HELLO
        stream.close(Ending.IDLE, BYE)
        end = BYE + frame.LAST_CHUNK
        assert await asyncio.wait_for(reader.readexactly(len(end)), 5) == end
        await until(lambda: streams.lost == [stream], "the stream is lost once")
        assert stream.ending is Ending.IDLE
        if kind == "slim":
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


@KINDS
async def test_a_client_that_leaves_is_reported_once(kind: str) -> None:
    async with serving(kind) as streams:
        _, writer, stream = await opened(streams)
        writer.close()
        await until(lambda: bool(streams.lost), "the stream is lost")
        stream.send(HELLO)
        stream.lost()
        assert streams.lost == [stream]
        assert stream.ending is Ending.CLIENT


@KINDS
async def test_an_http_1_0_client_gets_no_chunks(kind: str) -> None:
    async with serving(kind) as streams:
        reader, writer, stream = await opened(streams, b"GET / HTTP/1.0\r\n\r\n")
        stream.close(Ending.IDLE, BYE)
        head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert body == b"data: hello\n\ndata: bye\n\n"
        writer.close()


@KINDS
async def test_a_pipelined_request_does_not_disturb_the_stream(kind: str) -> None:
    async with serving(kind) as streams:
        reader, writer, stream = await opened(streams, REQUEST + REQUEST)
        writer.write(b"\0garbage" if kind == "slim" else b"")
        await asyncio.wait_for(reader.readuntil(HELLO), 5)
        stream.send(BYE)
        assert await asyncio.wait_for(reader.readexactly(len(BYE)), 5) == BYE
        assert len(streams.opened) == 1
        writer.close()


@KINDS
async def test_a_peer_that_does_not_read_is_paused(kind: str) -> None:
    async with serving(kind) as streams:
        _, writer, stream = await opened(streams)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(64):
            stream.send(frame.chunk(b"x" * 262_144))
        await until(lambda: stream.paused, "the stream is paused")
        writer.transport.abort()
        await until(lambda: bool(streams.lost), "the stream is lost")


async def test_a_server_that_stops_ends_open_streams_in_time() -> None:
    async with serving("slim") as streams:
        reader, writer, stream = await opened(streams)
        streams.server.should_exit = True
        await until(lambda: streams.lost == [stream], "the stream has ended", 5)
        assert (await asyncio.wait_for(reader.read(), 5)).endswith(frame.LAST_CHUNK)
        writer.close()


def test_uvicorn_has_the_private_names_that_the_takeover_rests_on() -> None:
    names = {"_start_asgi_task", "_unset_keepalive_if_required"}
    assert names <= set(vars(HttpToolsProtocol))
    attributes = set(HttpToolsProtocol.__init__.__code__.co_names)
    assert {"connections", "transport", "flow", "cycle", "parser", "scope", "headers", "pipeline"} <= attributes
    assert {"response_complete", "chunked_encoding", "message_event", "transport", "scope"} <= set(
        RequestResponseCycle.__init__.__code__.co_names
    )
