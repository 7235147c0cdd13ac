"""Both kinds of stream on a real server and a real socket, read as raw bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from starlette.applications import Starlette

from gateway import frame
from gateway.hub.endings import Ending
from gateway.hub.session import Session
from gateway.settings import GatewaySettings
from gateway.sse.cors import Cors
from gateway.sse.fastpath import FastPath
from gateway.sse.portable import PortableStream, stream_routes
from gateway.sse.request import StreamRequest
from gateway.sse.socket_stream import SocketStream
from tests.support.waiting import until
from tidegate_common.contract.principal import OPEN, Principal
from tidegate_common.runtime.guard import Guard
from tidegate_common.runtime.hosts import Hosts
from tidegate_common.runtime.server import Server, server
from tidegate_common.runtime.uvicorn_http.protocol import limited

HELLO, BYE = frame.chunk(b"data: hello\n\n"), frame.chunk(b"data: bye\n\n")
REQUEST = b"GET /api/sse HTTP/1.1\r\nHost: localhost\r\n\r\n"
BACKLOG = 65_536
KINDS = pytest.mark.parametrize("kind", [SocketStream, PortableStream])


class Streams:
    """An endpoint that opens a stream for each request, whatever it asks for."""

    def __init__(self) -> None:
        self.opened: list[Session] = []
        self.lost: list[Session] = []
        self.server: Server

    def admit(self, _: str) -> None:
        """There is always room."""

    async def identify(self, *_: object) -> Principal:
        return OPEN

    async def request_of(self, *_: object) -> StreamRequest:
        return StreamRequest("ann", [], None, ())

    async def open(self, _: StreamRequest, stream: Session, start: Callable[[], Awaitable[None]], *__: object) -> None:
        stream.on_lost = self.lost.append
        await start()
        stream.send(HELLO)
        self.opened.append(stream)


@asynccontextmanager
async def serving(kind: type[Session]) -> AsyncIterator[Streams]:
    streams: Any = Streams()
    settings = GatewaySettings(nats_url="nats://127.0.0.1:1", port=0, drain_seconds=1.0)
    guard = Guard(settings.http_limits())
    protocol: Any = limited(guard)
    if kind is SocketStream:
        protocol = FastPath(protocol, streams, guard, Hosts(()), Cors((), ()), BACKLOG)
    app = Starlette(routes=stream_routes(streams, BACKLOG))
    streams.server = server(app, settings, protocol=protocol, guard=guard)
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


async def read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    """What a client gets of a connection that is cut off: what had come before that."""
    found = b""
    with suppress(ConnectionError):
        while piece := await asyncio.wait_for(reader.read(1 << 20), 5):
            found += piece
    return found


@KINDS
async def test_the_body_is_chunked_and_ends_with_the_farewell_and_the_last_chunk(kind: type[Session]) -> None:
    async with serving(kind) as streams:
        reader, writer, stream = await opened(streams)
        assert type(stream) is kind
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-type: text/event-stream; charset=utf-8\r\n" in head
        assert b"transfer-encoding: chunked\r\n" in head
        assert await asyncio.wait_for(reader.readexactly(len(HELLO)), 5) == HELLO
        stream.close(Ending.IDLE, BYE)
        end = BYE + frame.LAST_CHUNK
        assert await asyncio.wait_for(reader.readexactly(len(end)), 5) == end
        await until(lambda: streams.lost == [stream], "the stream is lost once")
        assert stream.ending is Ending.IDLE
        if kind is SocketStream:
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_another_request_follows_a_stream_that_has_ended_within_asgi(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing that was left of the stream cuts it off: its time to be read was over in the middle of the next."""
    monkeypatch.setattr(PortableStream, "linger_seconds", 0.1)
    async with serving(PortableStream) as streams:
        reader, writer, stream = await opened(streams)
        stream.close(Ending.IDLE, BYE)
        await asyncio.wait_for(reader.readuntil(frame.LAST_CHUNK), 5)
        writer.write(REQUEST)
        await asyncio.wait_for(reader.readuntil(HELLO), 5)
        over = asyncio.get_running_loop().time() + 0.2
        await until(lambda: asyncio.get_running_loop().time() > over, "the first one's time is over")
        assert [session.ending for session in streams.opened] == [Ending.IDLE, None]
        writer.close()


@KINDS
async def test_a_client_that_leaves_is_reported_once(kind: type[Session]) -> None:
    async with serving(kind) as streams:
        _, writer, stream = await opened(streams)
        writer.close()
        await until(lambda: bool(streams.lost), "the stream is lost")
        stream.send(HELLO)
        stream.lost()
        assert streams.lost == [stream]
        assert stream.ending is Ending.CLIENT


async def test_an_http_1_0_client_gets_no_chunks() -> None:
    async with serving(SocketStream) as streams:
        reader, writer, stream = await opened(streams, b"GET /api/sse HTTP/1.0\r\n\r\n")
        assert type(stream) is PortableStream
        stream.close(Ending.IDLE, BYE)
        head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert body == b"data: hello\n\ndata: bye\n\n"
        writer.close()


@KINDS
async def test_what_follows_on_the_connection_does_not_disturb_the_stream(kind: type[Session]) -> None:
    async with serving(kind) as streams:
        reader, writer, stream = await opened(streams)
        writer.write(b"\0garbage" if kind is SocketStream else REQUEST)
        await asyncio.wait_for(reader.readuntil(HELLO), 5)
        stream.send(BYE)
        assert await asyncio.wait_for(reader.readexactly(len(BYE)), 5) == BYE
        assert len(streams.opened) == 1
        writer.close()


@KINDS
async def test_a_peer_that_does_not_read_is_paused(kind: type[Session]) -> None:
    async with serving(kind) as streams:
        _, writer, stream = await opened(streams)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(64):
            stream.send(frame.chunk(b"x" * 262_144))
        await until(lambda: stream.paused, "the stream is paused")
        writer.transport.abort()
        await until(lambda: bool(streams.lost), "the stream is lost")


@KINDS
async def test_a_peer_that_does_not_read_its_farewell_is_cut_off(
    kind: type[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "linger_seconds", 0.1)
    async with serving(kind) as streams:
        reader, writer, stream = await opened(streams)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(64):
            stream.send(frame.chunk(b"x" * 262_144))
        await until(lambda: stream.paused, "the stream is paused")
        stream.close(Ending.SLOW, BYE)
        await until(lambda: streams.lost == [stream], "the stream is lost", 5)
        await until(lambda: not streams.server.server_state.connections, "its connection is gone, too")
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert not (await read_to_the_end(reader)).endswith(frame.LAST_CHUNK)
        writer.close()


@KINDS
async def test_a_server_that_stops_ends_open_streams_in_time(kind: type[Session]) -> None:
    async with serving(kind) as streams:
        reader, writer, stream = await opened(streams)
        streams.server.should_exit = True
        if kind is PortableStream:  # which the hub drains: the server asks nothing of it
            stream.close(Ending.DRAIN, BYE)
        await until(lambda: streams.lost == [stream], "the stream has ended", 5)
        assert (await asyncio.wait_for(reader.read(), 5)).endswith(frame.LAST_CHUNK)
        writer.close()
