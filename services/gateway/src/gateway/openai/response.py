"""An answer on its way to the client: a stream of chunks, or one document."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Send

from gateway.openai.api_errors import ApiError
from gateway.openai.translator import COMMENT, error_event

HOLD_SECONDS = 1.0
"""How long a stream's head waits for the first event: an error until then has an HTTP status of its own."""

STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",
    "x-accel-buffering": "no",
}


class ResponseWriter:
    """A response whose head is sent with its first bytes."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.headers: dict[str, str] = {}
        self.begun = False
        self.wrote = False
        """Since somebody last looked."""
        self.over = False

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Sends a piece of an event stream, the last one without `more`."""
        if not self.begun:
            await self._head(200, {**STREAM_HEADERS, **self.headers})
        self.wrote, self.over = True, not more
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def document(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Sends a whole response in JSON."""
        fields = {"content-type": "application/json", "content-length": str(len(body))}
        await self._head(status, {**fields, **self.headers, **(headers or {})})
        self.over = True
        await self._send({"type": "http.response.body", "body": body})

    async def error(self, error: ApiError) -> None:
        """Ends with `error`: as an event if the head is gone already."""
        if self.begun:
            await self.write(error_event(error), more=False)
        else:
            await self.document(error.body(), error.status, error.headers)

    async def beat(self, seconds: float) -> None:
        """Sends a comment if nothing else was sent for `seconds`, and the head if there was none for HOLD_SECONDS."""
        await asyncio.sleep(HOLD_SECONDS)
        while not self.over:
            if not self.wrote:
                await self.write(COMMENT)
            self.wrote = False
            await asyncio.sleep(seconds)

    async def _head(self, status: int, fields: dict[str, str]) -> None:
        self.begun = True
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})


async def gone(receive: Receive) -> None:
    """Returns when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
