"""Two gateways on one NATS: each hears what its own clients asked for, and one takes over what the other had."""

import asyncio
import json
import re
import signal
from pathlib import Path

import httpx

from tests.support.gateway import Stream, open_stream
from tests.support.stack import stack
from tests.support.waiting import until


async def metric(client: httpx.AsyncClient, gateway: str, name: str) -> float:
    text = (await client.get(f"{gateway}/metrics")).text
    found = re.search(rf"^{name}\{{.*\}} (\S+)$", text, re.M)
    assert found, text
    return float(found[1])


async def answer_of(stream: Stream, job_id: str) -> list[dict[str, object]]:
    """All `ai_response` pieces of a job, once it is done."""
    pieces: list[dict[str, object]] = []
    while not (pieces and pieces[-1]["done"]):
        data = json.loads((await stream.next("ai_response", 30)).data)
        if data["job_id"] == job_id:
            pieces.append(data)
    return pieces


async def record_of(client: httpx.AsyncClient, job_id: str) -> dict[str, object]:
    """The job's record once it is final: it is written after the answer's last event."""
    found: dict[str, object] = {}

    async def final() -> bool:
        found.update((await client.get(f"/api/ai/chat/{job_id}")).json())
        return "finish_reason" in found

    await until(final, "the record is final")
    return found


async def test_each_gateway_delivers_to_its_own_clients_and_hears_no_other_s(tmp_path: Path) -> None:
    async with stack(tmp_path, gateways=2) as running, httpx.AsyncClient(base_url=running.publisher) as client:
        one, two = running.gateways
        async with open_stream(one, {"client_id": "ann"}) as ann, open_stream(two, {"client_id": "bob"}) as bob:
            await ann.connected()
            await bob.connected()
            for target in ("ann", "bob", "ann"):
                await client.post("/api/sse/send", json={"client_id": target, "event_type": "n", "data": target})
            await client.post("/api/sse/broadcast", json={"event_type": "n", "data": "all"})
            assert [(await ann.next()).data for _ in range(3)] == ["ann", "ann", "all"]
            assert [(await bob.next()).data for _ in range(2)] == ["bob", "all"]
            assert await metric(client, one, "tidegate_messages_sent_total") == 3
            assert await metric(client, two, "tidegate_messages_sent_total") == 2


async def test_a_client_of_a_killed_gateway_goes_on_at_the_other_where_it_was(tmp_path: Path) -> None:
    async with stack(tmp_path, gateways=2) as running, httpx.AsyncClient(base_url=running.publisher) as client:
        one, two = running.gateways

        async def send(number: int) -> None:
            event = {"client_id": "ann", "event_type": "n", "data": number}
            assert (await client.post("/api/sse/send", json=event)).status_code == 202

        async with open_stream(one, {"client_id": "ann"}) as stream:
            await stream.connected()
            await send(1)
            last_id = (await stream.next()).id
            assert await running.processes["gateway-0"].stop(signal.SIGKILL) == -signal.SIGKILL
            await until(lambda: stream.ended, "the stream breaks")
        for number in (2, 3):
            await send(number)
        async with open_stream(two, {"client_id": "ann"}, {"last-event-id": last_id}) as stream:
            assert (await stream.connected())["resumed"]
            await send(4)
            assert [(await stream.next()).data for _ in range(3)] == ["2", "3", "4"]


async def test_presence_is_true_again_soon_after_a_gateway_was_killed(tmp_path: Path) -> None:
    async with stack(tmp_path, gateways=2) as running, httpx.AsyncClient(base_url=running.publisher) as client:

        async def counted(connections: int) -> bool:
            answer = await client.get("/api/presence/clients/ann")
            return bool(answer.json() == {"connections": connections})

        one, two = running.gateways
        async with open_stream(one, {"client_id": "ann"}) as first, open_stream(two, {"client_id": "ann"}) as second:
            await first.connected()
            await second.connected()
            await until(lambda: counted(2), "both count")
            assert await running.processes["gateway-0"].stop(signal.SIGKILL) == -signal.SIGKILL
            await until(lambda: counted(1), "the dead gateway's connection does not count")
            event = {"client_id": "ann", "event_type": "n", "data": 1, "receipt": True}
            assert (await client.post("/api/sse/send", json=event)).json()["delivered"] == 1


async def test_a_chat_streams_its_answer_in_order_and_a_cancel_ends_it(tmp_path: Path) -> None:
    env = {"TIDEGATE_SCRIPTED_THINK_SECONDS": "0.05", "TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0.005"}
    async with stack(tmp_path, env) as running, httpx.AsyncClient(base_url=running.publisher) as client:
        async with open_stream(running.gateways[0], {"client_id": "ann"}) as stream:
            await stream.connected()
            started = await client.post("/api/ai/chat", json={"client_id": "ann", "prompt": "你好"})
            pieces = await answer_of(stream, started.json()["job_id"])
            text = "".join(str(piece["content"]) for piece in pieces)
            assert re.search("[\u4e00-\u9fff]", text), text
            assert pieces[-1]["finish_reason"] == "stop"
            assert any(event.event == "ai_reasoning" for event in stream.events)
            indexes = [json.loads(event.data)["index"] for event in stream.events if event.event.startswith("ai_")]
            assert indexes == list(range(len(indexes)))
            record = await record_of(client, started.json()["job_id"])
            assert (record["status"], record["finish_reason"]) == ("done", "stop")
            assert record["usage"] == pieces[-1]["usage"]

            long = await client.post("/api/ai/chat", json={"client_id": "ann", "prompt": "[long]"})
            await stream.next("ai_response")
            await client.delete(f"/api/ai/chat/{long.json()['job_id']}")
            async with asyncio.timeout(10):
                assert (await answer_of(stream, long.json()["job_id"]))[-1]["finish_reason"] == "cancelled"
            record = await record_of(client, long.json()["job_id"])
            assert record["status"] == "cancelled"


async def test_every_service_stops_cleanly_when_it_is_told_to(tmp_path: Path) -> None:
    async with stack(tmp_path) as running, open_stream(running.gateways[0]) as stream:
        await stream.connected()
        for name, process in running.processes.items():
            assert await process.stop() == 0, f"{name}: {process.output[-5:]}"
        await until(lambda: stream.ended, "the stream ends")
        assert stream.events[-1].event == "closing"
