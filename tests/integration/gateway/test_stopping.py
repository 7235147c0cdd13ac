"""A gateway process that is told to stop while not everybody reads what it says."""

import asyncio
import signal
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from tests.support.bus import broker
from tests.support.gateway import open_stream
from tests.support.ports import free_port
from tests.support.processes import service
from tests.support.ways import BOTH_PATHS
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.contract.events import Event


async def cut(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


@BOTH_PATHS
async def test_peers_that_do_not_read_hold_up_no_stop_and_are_no_error(tmp_path: Path, streams: str) -> None:
    """It waited for them for the drain time once more, after that for the closing, and logged an error about them."""
    port, drain_seconds = free_port(), 2
    async with broker(tmp_path) as (server, bus), AsyncExitStack() as exits:
        env = {
            "TIDEGATE_NATS_URL": server.url,
            "TIDEGATE_DRAIN_SECONDS": str(drain_seconds),
            "TIDEGATE_STREAMS": streams,
        }
        run = await exits.enter_async_context(service("gateway", port, env))
        for _ in range(20):  # so many that telling them takes all of its time
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            exits.push_async_callback(cut, writer)
            writer.write(b"GET /api/sse HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await reader.readuntil(b"event: connected")
        stream = await exits.enter_async_context(open_stream(f"http://127.0.0.1:{port}"))
        for _ in range(3):  # more than the kernel takes for a peer, less than the gateway keeps for it
            await EventPublisher(bus, History(bus)).durable("broadcast", Event("n", "x" * 300_000), headers={})
        for _ in range(3):
            await stream.next("n")
        began = time.monotonic()
        assert await run.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 2 * drain_seconds
        assert not run.said('"ERROR"'), run.output
