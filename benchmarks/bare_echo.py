"""`python -m benchmarks.bare_echo PORT`: a yardstick, the least that Starlette on uvicorn does for a request with JSON.

It reads a durable send as publisher-api does, and gives the body back in place of storing it.
"""

from __future__ import annotations

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


async def echo(request: Request) -> Response:
    return JSONResponse(await request.json(), 202)


app = Starlette(routes=[Route("/api/sse/send", echo, methods=["POST"])])

if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )
