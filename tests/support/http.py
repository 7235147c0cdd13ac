"""HTTP as bytes on a socket: servers of the tests' own, and clients that do what no library lets one do."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.waiting import until
from tidegate_common.runtime import problems
from tidegate_common.runtime.body import read_body
from tidegate_common.runtime.environment import CommonSettings
from tidegate_common.runtime.guard import Guard
from tidegate_common.runtime.server import Server, server

BODY_LIMIT = 100_000


class Answer(NamedTuple):
    """What a client has read: the status, 0 for none, the head in lower case, and the body as it came."""

    status: int
    head: bytes
    body: bytes


def answer_in(data: bytes) -> Answer:
    """The final answer that `data` begins with; answers of 1xx before it are passed over."""
    while True:
        head, _, rest = data.partition(b"\r\n\r\n")
        status = int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else 0
        if not 100 <= status < 200:
            return Answer(status, head.lower(), rest)
        data = rest


class Served(NamedTuple):
    """A server of `app()`, and what it holds its connections to."""

    port: int
    guard: Guard
    server: Server

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)


def app() -> Starlette:
    """`/read` reads its body and says how long it was, `/stream` says its answer in two pieces, the rest is 404."""

    async def read(request: Request) -> Response:
        body = await read_body(request, BODY_LIMIT)
        return PlainTextResponse(str(len(body)))

    async def stream(_: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one,"
            yield b"two"

        return StreamingResponse(pieces())

    made = Starlette(routes=[Route("/read", read, methods=["POST"]), Route("/stream", stream, methods=["GET", "POST"])])
    problems.install(made)
    return made


@asynccontextmanager
async def served(application: Any = None, **limits: Any) -> AsyncIterator[Served]:
    """`application` (or `app()`) on a free port, with `limits` in place of the usual ones."""
    settings = CommonSettings(port=0, drain_seconds=2.0)
    guard = Guard(replace(settings.http_limits(), **limits))
    made = server(application or app(), settings, guard=guard)
    task = asyncio.create_task(made.serve())
    await until(lambda: made.started, "the server listens")
    try:
        yield Served(made.port, guard, made)
    finally:
        made.should_exit = True
        await task


def head(line: str, *headers: str) -> bytes:
    """A request's head, with a Host."""
    return "\r\n".join((line, "Host: 127.0.0.1", *headers, "", "")).encode()


def send_then_read(port: int, data: bytes, size: int = 0, *, answered: bool = False) -> bytes:
    """What a client that reads nothing before it has sent all gets: `data`, then `size` bytes; b"" for a reset.

    With `answered` it sends the bytes when the answer has come already, to be sure that it is an early one.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=20) as own:
        try:
            own.sendall(data)
            if answered:
                select.select([own], [], [], 20)
            piece = b"x" * 65_536
            for _ in range(size // len(piece)):
                own.sendall(piece)
            own.sendall(piece[: size % len(piece)])
            return b"".join(iter(lambda: own.recv(65_536), b""))
        except (BrokenPipeError, ConnectionResetError):
            return b""


async def exchange(port: int, *pieces: bytes, seconds: float = 10) -> bytes:
    """All that comes back until the server ends the connection; `pieces` go out as segments of their own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.001 if len(pieces) > 1 else 0)
        return await asyncio.wait_for(reader.read(), seconds)
    finally:
        writer.close()
