"""`python -m benchmarks.paced_endpoint PORT`: speaks OpenAI's chat completions; each token is the time of its writing.

50 tokens a second, on the dot, as many as `max_tokens` asks for. What a client reads tells how long it was on its way.
`GET /stream` is an answer without an end, for a load client that can't post.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

PER_SECOND = 50
MODEL = "paced"


async def health(_: Request) -> Response:
    return Response()


async def models(_: Request) -> Response:
    return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": "t"}]})


async def chat(request: Request) -> Response:
    body = await request.json()
    return StreamingResponse(answer(int(body["max_tokens"])), media_type="text/event-stream")


async def stream(_: Request) -> Response:
    return StreamingResponse(answer(sys.maxsize), media_type="text/event-stream")


async def answer(tokens: int) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number in range(tokens):
        await asyncio.sleep(start + number / PER_SECOND - loop.time())
        yield chunk({"content": f"{time.monotonic_ns()};"})
    yield chunk({}, "stop")
    yield b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    made = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices}
    return b"data: " + json.dumps(made).encode() + b"\n\n"


def main() -> None:
    routes = [
        Route("/readyz", health),
        Route("/v1/models", models),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/stream", stream),
    ]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
