"""Runs in sse-starlette's own environment: what its documentation and most of its users do for a broadcast.

`python queue_per_client.py PORT`: GET /stream holds a stream, POST /publish sends the body to all of them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import uvicorn
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

queues: set[asyncio.Queue[str]] = set()


async def stream(request: Request) -> Response:
    queue: asyncio.Queue[str] = asyncio.Queue()

    async def events() -> AsyncIterator[dict[str, str]]:
        queues.add(queue)
        try:
            yield {"event": "connected", "data": "{}"}
            while True:
                yield {"event": "tick", "data": await queue.get()}
        finally:
            queues.discard(queue)

    response: Response = EventSourceResponse(events(), ping=3600)
    return response


async def publish(request: Request) -> Response:
    text = (await request.body()).decode()
    for queue in queues:
        queue.put_nowait(text)
    return Response(status_code=202)


app = Starlette(routes=[Route("/stream", stream), Route("/publish", publish, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning")
