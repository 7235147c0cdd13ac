"""TIDEGATE_REPLICAS on a running system: every stream and bucket follows it, and a lost node costs nothing any more."""

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.cluster import NAMES, nats_cluster
from tests.support.ports import free_port
from tests.support.processes import service
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.contract.subjects import Subjects

STREAMS = ("TG_EVENTS", "TG_JOBS", "KV_TG_JOBS_STATE", "KV_TG_JOBS_DEAD")


async def cluster_of(bus: Bus, stream: str) -> Any:
    info = await bus.jetstream.stream_info(stream)
    assert info.cluster is not None
    return info.cluster


@pytest.mark.timeout(180)
async def test_all_streams_and_buckets_follow_the_setting_and_outlive_a_node(tmp_path: Path) -> None:
    """The bucket of jobs' records stayed at one copy. When its node died chat was 503, and all were ready.

    With two of three nodes gone nothing can be stored, which readiness did not say either: the one that is left speaks
    for the streams as if nothing had happened.
    """
    async with nats_cluster(tmp_path) as cluster, AsyncExitStack() as stack:
        env = {"TIDEGATE_NATS_URL": cluster.url, "TIDEGATE_ELECTION_SECONDS": "12", "TIDEGATE_AI_BACKEND": "scripted"}
        async with service("publisher_api", free_port(), env, seconds=60):
            pass  # it makes them, with one copy of each
        bus = await stack.enter_async_context(connect(cluster.url, Subjects.of("tg"), "test"))
        assert [len((await cluster_of(bus, stream)).replicas or []) for stream in STREAMS] == [0, 0, 0, 0]
        env["TIDEGATE_REPLICAS"] = "3"
        ports = {name: free_port() for name in ("publisher_api", "gateway", "ai_worker")}
        runs = {
            name: await stack.enter_async_context(service(name, port, env, seconds=60)) for name, port in ports.items()
        }
        api = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports['publisher_api']}", timeout=30)
        )
        for stream in STREAMS:
            said = f"all 3 copies of the stream {stream} are there"
            await until(lambda said=said: runs["publisher_api"].said(said), said, 30)
            assert len((await cluster_of(bus, stream)).replicas) == 2
        victim = (await cluster_of(bus, "KV_TG_JOBS_STATE")).leader
        await cluster.servers[victim].run.stop(signal.SIGKILL)
        for _ in range(3):
            assert (await api.post("/api/ai/chat", json={"client_id": "a", "prompt": "hi"})).status_code == 202
            assert (await api.post("/api/sse/broadcast", json={"event_type": "n", "data": 1})).status_code == 202
        run = runs["publisher_api"]
        await until(lambda: run.said("2 of 3 copies"), "it says that a copy is missing", 20)

        second = next(name for name in NAMES if name != victim)
        await cluster.servers[second].run.stop(signal.SIGKILL)

        async def unready() -> bool:
            async with httpx.AsyncClient(timeout=10) as client:
                probes = [await client.get(f"http://127.0.0.1:{port}/readyz") for port in ports.values()]
            return {probe.status_code for probe in probes} == {503} and all(
                "TG_EVENTS" in probe.json()["dependencies"] for probe in probes
            )

        await until(unready, "none is ready", 60)
        refused = await api.post("/api/ai/chat", json={"client_id": "a", "prompt": "hi"})
        assert refused.status_code == 503
        await asyncio.gather(*(cluster.start(name) for name in (victim, second)))

        async def accepted() -> bool:
            return (await api.post("/api/ai/chat", json={"client_id": "a", "prompt": "hi"})).status_code == 202

        await until(accepted, "it works again", 60)
