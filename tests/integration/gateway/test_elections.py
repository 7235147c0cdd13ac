"""The leader of all streams killed in a cluster of three: nobody is refused, neither a publish nor a new stream."""

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.bus import broker
from tests.support.cluster import NAMES, Cluster, leader, made, nats_cluster
from tests.support.gateway import open_stream, running_gateway
from tests.support.identity import AUTH, bearer, token
from tests.support.ports import free_port
from tests.support.processes import running
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tests.support.ways import BOTH_PATHS
from tidegate_common.bus.connection import connect
from tidegate_common.bus.events.history import History
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.contract.subjects import Subjects

SUBJECTS = Subjects.of("tg")
ROUNDS = 24


@pytest.mark.timeout(120)
async def test_an_election_refuses_no_ticket(tmp_path: Path) -> None:
    """Who comes with one is the browser's EventSource, which gives up for good on 503."""
    async with nats_cluster(tmp_path) as cluster, AsyncExitStack() as stack:
        async with connect(cluster.url, SUBJECTS, "test") as bus:
            await made(bus, StreamLimits(replicas=3, identity=True))
            victim = await leader(bus, "KV_TG_TICKETS")
        others = ",".join(cluster.url_of(name) for name in NAMES if name != victim)
        running = await stack.enter_async_context(running_gateway(others, replicas=3, **AUTH))
        api, _ = await stack.enter_async_context(running_publisher(others, replicas=3, **AUTH))
        api.timeout = httpx.Timeout(30)

        async def make() -> str:
            answer = await api.post("/api/auth/tickets", json={}, headers=bearer(token("ann")))
            assert answer.status_code == 201, answer.text
            return str(answer.json()["ticket"])

        async def listen(ticket: str) -> None:
            async with open_stream(running.url, {"ticket": ticket}) as stream:
                await stream.connected()

        before = [await make() for _ in range(4)]
        cluster.servers[victim].run.process.kill()
        await asyncio.gather(*map(listen, before))
        for ticket in await asyncio.gather(*(make() for _ in range(4))):
            await listen(ticket)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
async def test_an_election_refuses_no_publish_and_no_new_stream(tmp_path: Path, how: signal.Signals) -> None:
    """For 5 to 10 seconds all were refused with 503, and a browser's EventSource gives up for good on that.

    A leader that hangs says nothing, where NATS tells at once that one that was killed is gone.
    """
    async with nats_cluster(tmp_path) as cluster, AsyncExitStack() as stack:
        async with connect(cluster.url, SUBJECTS, "test") as bus:
            await made(bus)
            victim = await leader(bus)
        others = ",".join(cluster.url_of(name) for name in NAMES if name != victim)
        # Who is connected to a server that hangs can't know it for a while: that is no election.
        urls = cluster.url if how is signal.SIGKILL else others
        running = await stack.enter_async_context(running_gateway(urls, replicas=3))
        api, _ = await stack.enter_async_context(running_publisher(others, replicas=3))
        api.timeout = httpx.Timeout(30)
        probes: list[tuple[int, dict[str, str]]] = []

        async def send(number: int) -> int:
            answer = await api.post("/api/sse/send", json={"client_id": "a", "event_type": "n", "data": number})
            return answer.status_code

        async def chat() -> int:
            return (await api.post("/api/ai/chat", json={"client_id": "b", "prompt": "hi"})).status_code

        async def listen(number: int) -> int:
            async with open_stream(running.url, {"client_id": f"c{number}"}) as stream:
                await stream.connected()
                return 200

        async def probe() -> None:
            for base in (str(api.base_url), running.url):
                async with httpx.AsyncClient(timeout=10) as client:
                    answer = await client.get(f"{base}/readyz")
                    if answer.json()["faults"] == {}:  # its own connection may have been to the victim
                        probes.append((answer.status_code, answer.json()["dependencies"]))

        cluster.servers[victim].run.process.send_signal(how)
        asked: list[asyncio.Task[int]] = []
        for number in range(ROUNDS):
            asked += [asyncio.create_task(send(number)), asyncio.create_task(listen(number))]
            if number % 4 == 0:
                asked.append(asyncio.create_task(chat()))
            await probe()
            await asyncio.sleep(0.1)
        assert {await each for each in asked} == {200, 202}
        assert {status for status, _ in probes} == {200}
        assert any("TG_EVENTS" in dependencies for _, dependencies in probes), "it names who lacks a leader"
        history = running.gateway.history
        position = await history.position()
        stored = [int(each.payload) async for each in history.after("client.a", 0, position.last)]
        assert sorted(stored) == list(range(ROUNDS)), "each is stored once"
        if how is signal.SIGSTOP:
            cluster.servers[victim].run.process.send_signal(signal.SIGKILL)


@BOTH_PATHS
async def test_a_new_stream_waits_for_a_leader_and_no_longer_than_its_client(tmp_path: Path, streams: str) -> None:
    async with broker(tmp_path) as (server, bus):
        async with running_gateway(server.url, streams=streams, election_seconds=50) as running:
            await bus.jetstream.delete_stream("TG_EVENTS")
            leaders, host = running.gateway.history.leaders, running.url.removeprefix("http://")
            opening = asyncio.create_task(connects(running.url))
            await until(lambda: leaders.waiting == 1, "it waits")
            _, writer = await asyncio.open_connection(*host.split(":"))
            writer.write(b"GET /api/sse?client_id=b HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await until(lambda: leaders.waiting == 2, "another one waits")
            writer.close()
            await until(lambda: leaders.waiting == 1, "it does not any more")
            assert running.gateway.admission.active == 1
            assert not opening.done()
            await ensure_streams(bus, StreamLimits(), update=False)
            assert await opening
            assert running.gateway.hub.ended["client"] >= 1


async def connects(url: str) -> bool:
    async with open_stream(url, {"client_id": "a"}) as stream:
        await stream.connected()
    return True


@pytest.mark.timeout(120)
async def test_services_that_start_before_the_cluster_has_a_leader_wait_for_one(tmp_path: Path) -> None:
    """publisher-api gave up and ended where the three servers had not found each other yet."""
    cluster = Cluster(tmp_path)
    try:
        await cluster.start("n1")
        env = {"TIDEGATE_NATS_URL": cluster.url, "TIDEGATE_REPLICAS": "3", "TIDEGATE_AI_BACKEND": "scripted"}
        ports = {name: free_port() for name in ("publisher_api", "gateway", "ai_worker")}
        async with AsyncExitStack() as stack:
            for name, port in ports.items():
                command = (sys.executable, "-m", name)
                run = await stack.enter_async_context(running(*command, env={**env, "TIDEGATE_PORT": str(port)}))
                await until(lambda run=run: run.said("waiting for NATS to be ready"), f"{name} waits", 30)
            for name in ("n2", "n3"):
                await cluster.start(name)
            client = await stack.enter_async_context(httpx.AsyncClient(timeout=10))

            async def ready() -> bool:
                try:
                    probes = [await client.get(f"http://127.0.0.1:{port}/readyz") for port in ports.values()]
                except httpx.TransportError:
                    return False
                return {probe.status_code for probe in probes} == {200}

            await until(ready, "all are ready", 60)
            async with connect(cluster.url, SUBJECTS, "test") as bus:
                assert (await History(bus).position()).copies
    finally:
        await cluster.aclose()
