"""An identity provider: serves a JWKS on a real port, and does what a bad one does."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.signing import jwks


class Provider:
    """`answer` is what it says, whole: status line, headers and body. With `holds`, it says no more than that, and
    with `drips` these bytes again and again."""

    def __init__(self) -> None:
        self.url = ""
        self.asked = 0
        self.holds = False
        self.drips = b""
        self.answer = b""

    def serve(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        """Answers so from now on."""
        head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers])
        self.answer = head.encode() + b"\r\n\r\n" + body

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            writer.write(self.answer)
            await writer.drain()
            while self.drips and not reader.at_eof():
                writer.write(self.drips)
                await writer.drain()
                await asyncio.sleep(0.05)
            if self.holds:
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def provider(tls: ssl.SSLContext | None = None) -> AsyncIterator[Provider]:
    """One that serves a set of no keys."""
    found = Provider()
    found.serve(jwks())
    server = await asyncio.start_server(found.take, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    found.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
    async with server:
        yield found
