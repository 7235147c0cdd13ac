"""Posts to publisher-api over keep-alive connections, each with one request under way, as fast as it answers.

`python -m benchmarks.poster PORT CONNECTIONS SECONDS LINES [BEARER]`: LINES 0 posts single durable sends, else batches
of so many lines. Prints one line of JSON (`Posted`). Written on a bare protocol, so that it leaves the machine to the
server.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import msgspec
import uvloop

from benchmarks.figures import quantile
from benchmarks.server import event


class Posted(msgspec.Struct):
    events: int = 0
    """Confirmed with an id."""
    refused: int = 0
    seconds: float = 0
    cpu_seconds: float = 0
    """Of the poster itself."""
    p99_ms: float = 0
    """Of a request."""


class Connection(asyncio.Protocol):
    """Sends the next request when an answer is complete, until the deadline."""

    def __init__(
        self, posted: Posted, latencies_ms: list[float], port: int, lines: int, deadline: float, bearer: str
    ) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._latencies_ms = latencies_ms
        self._posted, self._port, self._lines, self._deadline = posted, port, lines, deadline
        self._bearer = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._post()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionResetError("publisher-api closed the connection"))

    def data_received(self, piece: bytes) -> None:
        self._got += piece
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            return
        self._latencies_ms.append((time.monotonic() - self._sent) * 1000)
        self._count(head, body)
        self._got = b""
        if time.monotonic() < self._deadline:
            self._post()
        else:
            self.done.set_result(None)
            self._transport.close()

    def _count(self, head: bytes, body: bytes) -> None:
        if self._lines and head[9:12] == b"200":
            answer = json.loads(body)
            self._posted.events += answer["accepted"]
            self._posted.refused += answer["refused"]
        elif head[9:12] == b"202":
            self._posted.events += 1
        else:
            self._posted.refused += self._lines or 1

    def _post(self) -> None:
        line = json.dumps({"client_id": "c1", "event_type": "tick", "data": event()}).encode()
        path, kind = ("batch", "x-ndjson") if self._lines else ("send", "json")
        body = b"\n".join([line] * self._lines) if self._lines else line
        head = f"POST /api/sse/{path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/{kind}\r\n"
        self._sent = time.monotonic()
        self._transport.write(f"{head}{self._bearer}Content-Length: {len(body)}\r\n\r\n".encode() + body)


async def posted(port: int, connections: int, seconds: float, lines: int, bearer: str = "") -> Posted:
    """What a poster in a process of its own came to. Raises RuntimeError if it fails, or if an event is refused."""
    command = ("-m", "benchmarks.poster", str(port), str(connections), str(seconds), str(lines), bearer)
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the poster ended with exit code {process.returncode}")
    result = msgspec.json.decode(said, type=Posted)
    if result.refused:
        raise RuntimeError(f"{result.refused} events were refused")
    return result


async def post(port: int, connections: int, seconds: float, lines: int, bearer: str = "") -> Posted:
    """Raises OSError where publisher-api is not there or hangs up."""
    posted = Posted()
    latencies_ms: list[float] = []
    loop = asyncio.get_running_loop()
    start, cpu = time.monotonic(), time.process_time()
    opened = []
    for _ in range(connections):
        _, made = await loop.create_connection(
            lambda: Connection(posted, latencies_ms, port, lines, start + seconds, bearer), "127.0.0.1", port
        )
        opened.append(made.done)
    await asyncio.gather(*opened)
    posted.seconds, posted.cpu_seconds = time.monotonic() - start, time.process_time() - cpu
    posted.p99_ms = quantile(latencies_ms, 0.99)
    return posted


if __name__ == "__main__":
    port, connections, seconds, lines, bearer = (*sys.argv[1:], "")[:5]
    found = uvloop.run(post(int(port), int(connections), float(seconds), int(lines), bearer))
    print(json.dumps(msgspec.to_builtins(found)))
