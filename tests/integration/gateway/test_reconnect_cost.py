"""What it costs NATS that a gateway's connection was lost."""

from pathlib import Path

import pytest

from gateway.hub.endings import Ending
from tests.stress.proxy import Cut, fault_proxy
from tests.support.bus import broker
from tests.support.feed import write
from tests.support.gateway import running_gateway
from tests.support.hub import Peer
from tests.support.waiting import until
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher

CLIENTS = 1_000


async def _start() -> None:
    """A head that nobody reads."""


@pytest.mark.parametrize("missed", [0, 3])
async def test_a_thousand_clients_cost_few_requests_beside_those_for_what_was_missed(
    tmp_path: Path, missed: int
) -> None:
    """Each asked for a page of each of its tails, though nothing was missed: 1,002 requests, and 1.9 s."""
    async with (
        broker(tmp_path) as (server, bus),
        fault_proxy(server.port) as way,
        running_gateway(f"nats://127.0.0.1:{way.port}", audit_seconds=0) as running,
    ):
        gateway, publisher = running.gateway, EventPublisher(bus, History(bus))
        peers = [Peer() for _ in range(CLIENTS)]
        for number, peer in enumerate(peers):
            tails = [f"client.c{number}", "broadcast"]
            await gateway.attachments.attach(peer, tails, None, _start, lambda _, __: b"hello")
        await write(publisher, "before", "broadcast")
        await until(lambda: all(b"data: before\n" in b"".join(peer.writes) for peer in peers), "all have it")
        asked: list[bytes] = []
        bus.client.subscribe_direct("$JS.API.>", lambda subject, *_: asked.append(subject))
        way.refusing = True
        way.cut_all(Cut.RST)
        await until(lambda: not running.bus.connected, "NATS is out of reach")
        for number in range(missed):
            await write(publisher, f"missed {number}", f"client.c{number}")
        await bus.round_trip()
        asked.clear()
        way.refusing = False
        await until(lambda: running.bus.connected, "NATS is back")
        await until(lambda: all(peer.held is None for peer in peers), "all are live")
        await bus.round_trip()
        assert len(asked) <= 10 + missed
        for number, peer in enumerate(peers):
            assert (b"data: missed %d\n" % number in b"".join(peer.writes)) == (number < missed)
            gateway.hub.end(peer, Ending.CLIENT)
            peer.lost()
