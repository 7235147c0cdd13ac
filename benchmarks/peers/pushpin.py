"""Pushpin, as Debian has it: its processes proxy each new stream to a backend, which tells them to hold it."""

from __future__ import annotations

import asyncio
import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx

from benchmarks.options import Options
from benchmarks.peers.answering import until_answering
from benchmarks.peers.debian import unpacked
from benchmarks.server import Server
from tests.support.ports import free_port
from tests.support.processes import running
from tests.support.waiting import until

CONFIGURATION = string.Template(Path(__file__).with_name("pushpin.conf").read_text())
HOLD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nGrip-Hold: stream\r\nGrip-Channel: all\r\n"
    b"Content-Length: 0\r\n\r\n"
)


async def _backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HOLD)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _streams(port: int) -> bool:
    """Whether a stream can be opened."""
    async with httpx.AsyncClient(timeout=5) as http:
        try:
            async with http.stream("GET", f"http://127.0.0.1:{port}/") as answer:
                return answer.status_code == 200
        except httpx.HTTPError:
            return False


@asynccontextmanager
async def pushpin(options: Options) -> AsyncIterator[Server]:
    """Pushpin with its four processes. Its backend runs in this process and costs it nothing. Raises NotHad."""
    files = unpacked(options, "pushpin")
    folder, port, publish_port = options.folder("pushpin"), free_port(), free_port()
    backend = await asyncio.start_server(_backend, "127.0.0.1", 0, backlog=1024)
    (folder / "routes").write_text(f"* 127.0.0.1:{backend.sockets[0].getsockname()[1]}\n")
    lib = files.path("usr/lib/pushpin")
    written = folder / "pushpin.conf"
    written.write_text(CONFIGURATION.substitute(lib=lib, folder=folder, port=port, publish=publish_port))
    command = (files.path("usr/bin/pushpin"), "--config", str(written), "-m")
    async with backend, running(*command, env=files.env()) as run:
        await until_answering(port, run)
        await until_answering(publish_port, run)
        await until(
            partial(_streams, port), "a stream is held"
        )  # its first process listens before the others are there
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{publish_port}", timeout=60) as http:

            async def publish(text: str) -> None:
                form = {"http-stream": {"content": f"event: tick\ndata: {text}\n\n"}}
                answer = await http.post("/publish/", json={"items": [{"channel": "all", "formats": form}]})
                answer.raise_for_status()

            yield Server("Pushpin", port, "/", [run.process.pid], publish)
