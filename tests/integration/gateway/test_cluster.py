"""Three NATS servers, streams with three replicas: a server dies under load, and nothing that was accepted is lost."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, leader, made, nats_cluster
from tests.support.gateway import open_stream, running_gateway
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.contract.events import Event
from tidegate_common.contract.subjects import Subjects

SUBJECTS = Subjects.of("tg")
TOTAL = 400


async def publish(bus: Bus, cluster: Cluster, victim: str) -> None:
    """TOTAL events, one after the other; the victim dies after a quarter and comes back after three."""
    publisher = EventPublisher(bus, History(bus), deadline_seconds=30)
    for number in range(TOTAL):
        if number == TOTAL // 4:
            await cluster.servers[victim].run.stop(signal.SIGKILL)
        if number == TOTAL * 3 // 4:
            await cluster.start(victim)
        receipt = await publisher.durable(
            "client.a" if number % 2 else "broadcast", Event("n", str(number)), headers={}
        )
        assert receipt.id


def server_of(bus: Bus, cluster: Cluster) -> str:
    """Name of the server that `bus` is connected to."""
    url = bus.client.connected_url
    assert url is not None
    return next(name for name, server in cluster.servers.items() if server.port == url.port)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("role", ["leader of the stream", "gateway's server", "publisher's server"])
async def test_a_server_that_dies_under_load_costs_a_publisher_time_and_a_client_nothing(
    tmp_path: Path, role: str
) -> None:
    async with nats_cluster(tmp_path) as cluster, connect(cluster.url, SUBJECTS, "publisher") as bus:
        await made(bus)
        async with running_gateway(cluster.url, replicas=3) as running:
            victims = {"gateway's server": running.bus, "publisher's server": bus}
            victim = server_of(victims[role], cluster) if role in victims else await leader(bus)
            async with open_stream(running.url, {"client_id": "a"}) as stream:
                await stream.connected()
                publishing = asyncio.create_task(publish(bus, cluster, victim))
                heard = [await stream.next("n", 60) for _ in range(TOTAL)]
                await publishing
                assert [int(event.data) for event in heard] == list(range(TOTAL))
                places = [int(event.id.split("-")[1]) for event in heard]
                assert places == sorted(places)
                assert not stream.ended
                if role == "gateway's server":
                    assert running.bus.client.stats["reconnects"] == 1
