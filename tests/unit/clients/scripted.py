"""A server of plain TCP that gives one written answer to each connection, in turn, and keeps what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def answer(status: str, body: str = "", *fields: str) -> str:
    """A whole answer with a body and header fields."""
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *fields, "", body])


class Scripted:
    """`url`, and the head of each request so far, as text and as bytes.

    An answer that ends in `HOLD` is left open for `say`.
    """

    HOLD = "\0hold"

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[str] = []
        self.heads: list[bytes] = []
        self.held: list[asyncio.StreamWriter] = []

    def say(self, text: str) -> None:
        """Writes more on the newest connection that is left open."""
        self.held[-1].write(text.encode())


@asynccontextmanager
async def scripted(answers: Sequence[str]) -> AsyncIterator[Scripted]:
    """Serves `answers`, one a connection; the last again for all that come later."""
    server = Scripted()
    released = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(server.requests)
        server.heads.append(await reader.readuntil(b"\r\n\r\n"))
        server.requests.append(server.heads[-1].decode(errors="replace"))
        text = answers[min(number, len(answers) - 1)]
        writer.write(text.removesuffix(Scripted.HOLD).encode())
        if text.endswith(Scripted.HOLD):
            server.held.append(writer)
            await released.wait()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.url = "http://127.0.0.1:%d/api/sse" % listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        released.set()
        listening.close()
        await listening.wait_closed()
