"""Three NATS servers on hosts of their own: the network between them goes, and no connection of ours notices."""

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.support.cluster import NAMES, Cluster, leader, made, nats_cluster
from tests.support.gateway import open_stream, running_gateway
from tests.support.network import Network, network
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.contract.events import Event
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerUnavailable

SUBJECTS = Subjects.of("tg")


async def isolate(net: Network, cluster: Cluster, name: str) -> None:
    """The others lose `name`; returns when they have noticed. Clients of `name` keep their connections."""
    others = [other for other in NAMES if other != name]
    for other in others:
        await net.part(name, other)
    closed = "Router connection closed"
    before = {each: cluster.servers[each].run.count(closed) for each in NAMES}
    await until(
        lambda: all(cluster.servers[each].run.count(closed) > before[each] for each in NAMES), "the routes end", 30
    )


async def rejoin(net: Network, name: str) -> None:
    for other in NAMES:
        if other != name:
            await net.heal(name, other)


async def publish(bus: Bus, first: int, count: int) -> None:
    publisher = EventPublisher(bus, History(bus), deadline_seconds=30)
    for number in range(first, first + count):
        await publisher.durable("client.a", Event("n", str(number)), headers={})


async def everything(history: History, upto: int) -> list[int]:
    """The sequences read, by a reader that begins again when it is told that the stream can't be read now."""
    while True:
        try:
            return [stored.sequence async for stored in history.after("client.a", 0, upto)]
        except BrokerUnavailable:
            continue


async def lasts(history: History, upto: int) -> dict[str, int] | None:
    """What is last, as a reader hears it that asks again when it is told that the stream can't be read now."""
    while True:
        try:
            return await history.latest(["client.a", "client.quiet"], 0, upto)
        except BrokerUnavailable:
            continue


@pytest.mark.timeout(120)
async def test_a_replica_that_is_behind_does_not_pass_for_the_whole_stream(tmp_path: Path) -> None:
    async with network(*NAMES) as net, nats_cluster(tmp_path, net) as cluster:
        async with connect(cluster.url_of("n1"), SUBJECTS, "publisher") as bus:
            await made(bus)
            leading = await leader(bus)
            late = next(name for name in NAMES if name not in (leading, "n1"))
            async with connect(cluster.url_of(late), SUBJECTS, "reader") as reader:
                history = History(reader)
                await history.position()
                await isolate(net, cluster, late)
                await publish(bus, 0, 300)
                last = (await History(bus).position()).last
                reading = asyncio.create_task(everything(history, last))
                asking = asyncio.create_task(lasts(history, last))
                await asyncio.wait([reading, asking], timeout=2)
                await rejoin(net, late)
                assert await reading == list(range(1, 301))
                assert await asking == {"client.a": 300}


@pytest.mark.timeout(120)
async def test_events_that_a_split_network_kept_from_a_gateway_reach_its_clients_when_it_has_healed(
    tmp_path: Path,
) -> None:
    async with network(*NAMES) as net, nats_cluster(tmp_path, net) as cluster:
        async with connect(cluster.url_of("n1"), SUBJECTS, "publisher") as bus:
            await made(bus)
            leading = await leader(bus)
            far = next(name for name in NAMES if name not in (leading, "n1"))
            async with running_gateway(cluster.url_of(far), replicas=3, audit_seconds=1, election_seconds=1) as running:
                async with open_stream(running.url, {"client_id": "a"}) as stream:
                    await stream.connected()
                    await publish(bus, 0, 10)
                    await isolate(net, cluster, far)
                    await publish(bus, 10, 10)
                    async with httpx.AsyncClient(timeout=10) as http:

                        async def unready() -> bool:
                            probe = await http.get(f"{running.url}/readyz")
                            assert "TG_EVENTS" in probe.json()["dependencies"]
                            return probe.status_code == 503

                        await until(unready, "it has waited for a leader for long enough")
                    assert not stream.ended
                    await rejoin(net, far)
                    heard = [await stream.next("n", 60) for _ in range(20)]
                    assert [int(event.data) for event in heard] == list(range(20))
                    await publish(bus, 20, 10)
                    later = [await stream.next("n", 30) for _ in range(10)]
                    assert [int(event.data) for event in later] == list(range(20, 30))
                    assert running.bus.client.stats["reconnects"] == 0
