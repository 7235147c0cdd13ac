"""A stream without a leader: publishes wait for one, within bounds.

A deleted stream looks to a publisher as one in an election does: nobody is there for it.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bus import broker
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams

EVENT = {"client_id": "a", "event_type": "n"}
LONG = {"publish_deadline_seconds": 0.3, "election_seconds": 50}


async def those_who_wait(client: httpx.AsyncClient) -> int:
    lines = (await client.get("/metrics")).text.splitlines()
    return int(float(next(line for line in lines if line.startswith("tidegate_requests_waiting")).split()[-1]))


async def wait_for(client: httpx.AsyncClient, number: int) -> None:
    async def there() -> bool:
        return await those_who_wait(client) == number

    await until(there, f"{number} wait")


async def kept(bus: Bus) -> list[int]:
    history = History(bus)
    return [int(each.payload) async for each in history.after("client.a", 0, (await history.position()).last)]


async def test_publishes_wait_for_the_stream_s_leader_and_are_stored_once_and_in_order(tmp_path: Path) -> None:
    """Each was refused three seconds after it had come, long before another leader was elected."""
    async with broker(tmp_path) as (server, bus), running_publisher(server.url, **LONG) as (client, _):
        await bus.jetstream.delete_stream("TG_EVENTS")
        sending = [
            asyncio.create_task(client.post("/api/sse/send", json={**EVENT, "data": number})) for number in (0, 1)
        ]
        lines = "\n".join(json.dumps({**EVENT, "data": number}) for number in range(2, 500))
        sending.append(
            asyncio.create_task(
                client.post("/api/sse/batch", content=lines, headers={"content-type": "application/x-ndjson"})
            )
        )
        sending.append(asyncio.create_task(client.post("/api/ai/chat", json={"client_id": "b", "prompt": "hi"})))
        await wait_for(client, 4)
        await asyncio.wait(sending, timeout=1)
        assert not any(each.done() for each in sending)
        await ensure_streams(bus, StreamLimits(), update=False)
        answers = [await each for each in sending]
        assert [answer.status_code for answer in answers] == [202, 202, 200, 202]
        assert answers[2].json()["accepted"] == 498
        stored = await kept(bus)
        assert sorted(stored) == list(range(500))
        assert [each for each in stored if each > 1] == list(range(2, 500))
        await wait_for(client, 0)


@pytest.mark.parametrize("bound", [{"max_waiting": 3}, {"max_waiting_bytes": 3 * 10_100}], ids=["number", "bytes"])
async def test_those_who_wait_are_bounded_in_number_and_in_bytes(tmp_path: Path, bound: dict[str, Any]) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url, **LONG, **bound) as (client, _):
        await bus.jetstream.delete_stream("TG_EVENTS")
        body = {**EVENT, "data": "x" * 10_000}
        sending = [asyncio.create_task(client.post("/api/sse/send", json=body)) for _ in range(3)]
        await wait_for(client, 3)
        refused = await client.post("/api/sse/send", json=body)
        assert (refused.status_code, int(refused.headers["retry-after"])) == (503, 5)
        assert refused.json()["detail"] == "NATS is away or has no leader, and no more requests may wait"
        assert 'reason="too_many_waiting"} 1' in (await client.get("/metrics")).text.replace("1.0", "1")
        await ensure_streams(bus, StreamLimits(), update=False)
        assert [(await each).status_code for each in sending] == [202] * 3


async def test_the_whole_of_a_batch_counts_while_a_part_of_it_waits(tmp_path: Path) -> None:
    """Its first lines alone were counted, while all of its body is kept."""
    async with broker(tmp_path) as (server, bus):
        async with running_publisher(server.url, **LONG, max_waiting_bytes=50_000) as (client, _):
            await bus.jetstream.delete_stream("TG_EVENTS")
            lines = "\n".join([json.dumps({**EVENT, "data": "x" * 100})] * 400)
            assert len(lines) > 50_000
            headers = {"content-type": "application/x-ndjson"}
            refused = (await client.post("/api/sse/batch", content=lines, headers=headers)).json()
            assert (refused["accepted"], refused["refused"]) == (0, 400)
            assert "no more requests may wait" in refused["results"][0]["detail"]


@pytest.mark.parametrize(
    ("path", "body"), [("/api/sse/send", {**EVENT, "data": 1}), ("/api/ai/chat", {"client_id": "a", "prompt": "x"})]
)
async def test_a_wait_ends_when_its_client_leaves(tmp_path: Path, path: str, body: dict[str, Any]) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url, **LONG) as (client, _):
        await bus.jetstream.delete_stream("TG_EVENTS")
        content = json.dumps(body).encode()
        _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        await wait_for(client, 1)
        writer.close()
        await wait_for(client, 0)
        await ensure_streams(bus, StreamLimits(), update=False)
        assert (await client.post("/api/sse/send", json={**EVENT, "data": 2})).status_code == 202
        assert await kept(bus) == [2], "what nobody waited for was not stored"


async def test_after_the_time_of_an_election_publishes_are_refused_by_the_deadline_again(tmp_path: Path) -> None:
    """The bound is of the stream's being without a leader, so that a lasting loss holds nobody up for long."""
    async with broker(tmp_path) as (server, bus):
        short = {"publish_deadline_seconds": 0.2, "election_seconds": 2.0}
        async with running_publisher(server.url, **short) as (client, _):
            await bus.jetstream.delete_stream("TG_EVENTS")
            loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
            first = await client.post("/api/sse/send", json={**EVENT, "data": 1})
            assert (first.status_code, loop.time() - began >= 1.95) == (503, True)
            began = loop.time()
            second = await client.post("/api/sse/send", json={**EVENT, "data": 1})
            assert (second.status_code, loop.time() - began < 1.9) == (503, True)
            assert 'reason="no_leader"} 2' in (await client.get("/metrics")).text.replace("2.0", "2")
