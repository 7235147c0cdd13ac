from pathlib import Path

import msgspec

from tests.support.bus import SUBJECTS, broker
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.jobs import JobStates, on_cancel
from tidegate_common.bus.queue import JobQueue
from tidegate_common.contract.jobs import JobStatus

CHAT = {"client_id": "a", "prompt": "hi"}


async def test_a_chat_is_a_job_in_the_queue_with_a_record(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        started = await client.post("/api/ai/chat", json=CHAT | {"max_tokens": 7})
        assert started.status_code == 202
        job_id = started.json()["job_id"]
        record = (await client.get(f"/api/ai/chat/{job_id}")).json()
        assert (record["status"], record["trace_id"]) == ("queued", started.json()["trace_id"])
        delivery = await (await JobQueue.open(bus)).take(5)
        assert delivery is not None
        job = delivery.job()
        assert (job.job_id, job.kind, job.tail) == (job_id, "chat", "client.a")
        assert job.params["messages"] == [{"role": "user", "content": "hi"}]
        assert job.params["max_tokens"] == 7
        assert started.json()["trace_id"] in delivery.headers["traceparent"]


async def test_the_same_key_starts_one_chat(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        key = {"idempotency-key": "k"}
        first, again = [(await client.post("/api/ai/chat", json=CHAT, headers=key)).json() for _ in range(2)]
        assert first == again
        queue = await JobQueue.open(bus)
        delivery = await queue.take(5)
        assert delivery is not None
        await delivery.done()
        assert await queue.take(0.2) is None


async def test_cancelling_is_recorded_and_announced_however_often(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        heard: list[str] = []
        on_cancel(bus, heard.append)
        job_id = (await client.post("/api/ai/chat", json=CHAT)).json()["job_id"]
        for _ in range(2):
            answer = await client.delete(f"/api/ai/chat/{job_id}")
            assert (answer.status_code, answer.json()["cancel"]) == (202, True)
        await until(lambda: heard == [job_id, job_id], "both are announced")


async def test_a_job_that_nobody_knows_is_not_found(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (client, _):
        for job_id in ("0" * 32, "nonsense"):
            for answer in (await client.get(f"/api/ai/chat/{job_id}"), await client.delete(f"/api/ai/chat/{job_id}")):
                assert (answer.status_code, answer.json()["type"]) == (404, "urn:tidegate:problem:not-found")


async def test_a_full_queue_answers_503_and_leaves_no_record(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_publisher(server.url, jobs_max_queued=1) as (client, _):
        key = {"idempotency-key": "second"}
        await client.post("/api/ai/chat", json=CHAT)
        full = await client.post("/api/ai/chat", json=CHAT, headers=key)
        assert (full.status_code, full.json()["type"]) == (503, "urn:tidegate:problem:queue-full")
        assert int(full.headers["retry-after"]) > 0
        again = await client.post("/api/ai/chat", json=CHAT, headers=key)
        assert again.status_code == 503, "the key was not used up by the refusal"


async def test_a_refused_repeat_leaves_the_first_job_s_record(tmp_path: Path) -> None:
    """With the queue full and the duplicate window over, a repeat took away the record of a job that was queued."""
    async with broker(tmp_path) as (server, bus), running_publisher(server.url, jobs_max_queued=1) as (client, _):
        config = (await bus.jetstream.stream_info(SUBJECTS.jobs_stream)).config
        config.duplicate_window = 0.1
        await bus.jetstream.update_stream(config)
        key = {"idempotency-key": "k"}
        job_id = (await client.post("/api/ai/chat", json=CHAT, headers=key)).json()["job_id"]

        async def refused() -> bool:
            return (await client.post("/api/ai/chat", json=CHAT, headers=key)).status_code == 503

        await until(refused, "the repeat is no duplicate any more")
        assert (await client.get(f"/api/ai/chat/{job_id}")).json()["status"] == "queued"


async def test_cancelling_a_job_that_has_ended_answers_200_and_changes_nothing(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        job_id = (await client.post("/api/ai/chat", json=CHAT)).json()["job_id"]
        states = await JobStates.open(bus)
        ended = await states.change(job_id, lambda state: msgspec.structs.replace(state, status=JobStatus.DONE))
        answer = await client.delete(f"/api/ai/chat/{job_id}")
        assert (answer.status_code, msgspec.convert(answer.json(), type(ended))) == (200, ended)
