"""Streams whose attaching goes wrong after their head is out: nobody is left waiting, and nothing is left counted."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.bus import broker
from tests.support.gateway import open_stream, running_gateway
from tests.support.waiting import until
from tests.support.ways import BOTH_PATHS
from tidegate_common.bus.events.history import History, Stored
from tidegate_common.bus.events.publisher import Durable, EventPublisher
from tidegate_common.contract.events import Event


class Broken(History):
    """Fails, in a way that nobody thought of, where a replay begins."""

    def after(self, tail: str, sequence: int, upto: int) -> AsyncIterator[Stored]:
        raise RuntimeError("a fault of ours")


@BOTH_PATHS
async def test_a_stream_whose_replay_fails_unforeseen_is_told_so_and_its_place_is_free(
    tmp_path: Path, streams: str
) -> None:
    """Within ASGI nobody waited for such a stream's end: it stayed in the hub, and its place was never free again."""
    async with broker(tmp_path) as (server, bus), running_gateway(server.url, streams=streams) as running:
        gateway, history = running.gateway, History(bus)
        start = f"{(await history.position()).epoch}-0"
        await EventPublisher(bus, history).durable("client.a", Event("n", "x"), headers={})
        gateway.replay.history = Broken(running.bus)
        async with open_stream(running.url, {"client_id": "a"}, {"last-event-id": start}) as stream:
            assert json.loads((await stream.next("closing")).data)["reason"] == "feed"
            await until(lambda: stream.ended, "the stream ends")
        await until(lambda: gateway.admission.active == 0, "its place is free")
        assert gateway.hub.sessions == {}
        assert gateway.hub.ended["feed"] == 1


@BOTH_PATHS
async def test_a_client_that_leaves_in_its_replay_while_nats_is_away_frees_its_place(
    tmp_path: Path, streams: str
) -> None:
    """Within ASGI its leaving was looked at after the replay alone, which waited for the client or for NATS."""
    async with broker(tmp_path) as (server, bus):
        async with running_gateway(server.url, max_backlog_bytes=20_000, streams=streams) as running:
            gateway, history = running.gateway, History(bus)
            start = f"{(await history.position()).epoch}-0"
            for _ in range(5):
                events = [Durable("client.a", Event("n", "x" * 50_000))] * 40
                await EventPublisher(bus, history).durable_all(events, headers={})
            host, port = running.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port), limit=1024)
            writer.write(f"GET /api/sse?client_id=a&last_event_id={start} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await until(lambda: any(session.room for session in gateway.hub.sessions), "the replay stands still")
            await server.run.stop(signal.SIGKILL)
            await until(lambda: not running.bus.connected, "the gateway notices")
            writer.transport.abort()
            await until(lambda: gateway.admission.active == 0, "its place is free", 5)
            assert gateway.hub.sessions == {}
            assert gateway.hub.ended["client"] == 1
