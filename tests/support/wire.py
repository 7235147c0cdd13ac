"""HTTP/1.1 as bytes on a socket: requests that no client library would send, and what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.support.eventstream import EventStreamParser, Received

SECONDS = 10.0
LAST_CHUNK = b"0\r\n\r\n"


class Told(NamedTuple):
    """An answer; of a stream what came up to the first heartbeat, or to what was waited for."""

    status: int
    fields: list[tuple[str, str]]
    """Names in lower case, in the order in which they came."""
    body: bytes
    events: list[Received]

    def field(self, name: str) -> str:
        return ", ".join(value for found, value in self.fields if found == name)

    @property
    def problem(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    def event(self, event_type: str) -> dict[str, Any] | None:
        """Data of the first event of that type."""
        found = next((each for each in self.events if each.event == event_type), None)
        return None if found is None else dict(json.loads(found.data))


def beats(received: Received) -> bool:
    """Whether it is a heartbeat: what the gateway says at once has come before it."""
    return "heartbeat" in (received.comment or "")


async def ask(
    url: str,
    request: bytes,
    between: Callable[[], Awaitable[object]] | None = None,
    last: Callable[[Received], bool] = beats,
    seconds: float = SECONDS,
) -> Told:
    """The answer to `request`, sent as it is, of a stream up to the `last` thing that is waited for.

    With `between`, the request's first byte goes alone, then that is awaited. Raises TimeoutError after `seconds`.
    """
    address = urlsplit(url)
    bodyless = request.lstrip(b"\r\n").startswith(b"HEAD ")
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        async with asyncio.timeout(seconds):
            if between is not None:
                writer.write(request[:1])
                await writer.drain()
                await between()
                request = request[1:]
            writer.write(request)
            return await read_answer(reader, bodyless, last)
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader, bodyless: bool, last: Callable[[Received], bool]) -> Told:
    """What comes, as `ask` gives it."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    told = Told(int(first.split()[1]), fields, b"", [])
    if bodyless or told.status in (204, 304):
        return told
    if told.field("content-length"):
        return told._replace(body=await reader.readexactly(int(told.field("content-length"))))
    events = await _events(reader, "chunked" in told.field("transfer-encoding"), last)
    return told._replace(events=events)


async def _events(reader: asyncio.StreamReader, chunked: bool, last: Callable[[Received], bool]) -> list[Received]:
    """Up to the `last` one, or the end."""
    parser, found = EventStreamParser(), list[Received]()
    while True:
        piece = await (_chunk(reader) if chunked else reader.read(65_536))
        for received in parser.feed(piece):
            found.append(received)
            if last(received):
                return found
        if not piece:
            return found


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:size]
