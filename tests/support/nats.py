"""A real nats-server with JetStream, on a free port."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.ports import free_port
from tests.support.processes import Running, running
from tests.support.waiting import until


class NatsServer:
    """Where it listens, and the process."""

    def __init__(self, port: int, run: Running) -> None:
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        self.run = run


@asynccontextmanager
async def nats_server(
    data: Path, port: int | None = None, *, jetstream: bool = True, monitor_port: int = 0
) -> AsyncIterator[NatsServer]:
    """A server that keeps its streams below `data`; the same `data` and `port` again is the same server restarted.

    With `monitor_port` it tells there, over HTTP, who is connected and subscribed to what.
    """
    port = port or free_port()
    binary = Path(sys.executable).with_name("nats-server")
    streams = ("-js", "-sd", str(data)) if jetstream else ()
    monitor = ("-m", str(monitor_port)) if monitor_port else ()
    async with running(str(binary), "-a", "127.0.0.1", "-p", str(port), *streams, *monitor) as run:
        await until(lambda: run.said("Server is ready"), "nats-server is ready")
        yield NatsServer(port, run)


@asynccontextmanager
async def nats_configured(file: Path, text: str, port: int | None = None) -> AsyncIterator[NatsServer]:
    """A server that is configured by `text`, which is written to `file`."""
    port = port or free_port()
    file.write_text(f'listen: "127.0.0.1:{port}"\n{text}\n')
    async with running(str(Path(sys.executable).with_name("nats-server")), "-c", str(file)) as run:
        await until(lambda: run.said("Server is ready"), "nats-server is ready")
        yield NatsServer(port, run)
