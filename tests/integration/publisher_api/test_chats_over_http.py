import time
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from tests.support.bus import SUBJECTS, broker
from tests.support.publisher import running_publisher
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import PAGE, History, Stored
from tidegate_common.bus.events.publisher import Durable, EventPublisher
from tidegate_common.bus.jobs.cancel import on_cancel
from tidegate_common.bus.jobs.dead import DeadJobs
from tidegate_common.bus.jobs.dequeue import JobQueue
from tidegate_common.bus.jobs.enqueue import QueueWriter
from tidegate_common.bus.jobs.events import read_answer
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.wire import headers
from tidegate_common.bus.wire.headers import field
from tidegate_common.contract.answers import AiDone, AiResponse
from tidegate_common.contract.events import JOB, JOB_END, Event
from tidegate_common.contract.jobs import DeadJob, Job, JobStatus, OnDisconnect, Usage

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


async def test_cancelling_what_a_worker_has_is_recorded_and_announced_however_often(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        heard: list[str] = []
        on_cancel(bus, heard.append)
        job_id = (await client.post("/api/ai/chat", json=CHAT)).json()["job_id"]
        await JobRecords(bus).change(job_id, lambda state: replace(state, status=JobStatus.RUNNING))
        for _ in range(2):
            answer = await client.delete(f"/api/ai/chat/{job_id}")
            assert (answer.status_code, answer.json()["cancel"]) == (202, True)
        await until(lambda: heard == [job_id, job_id], "both are announced")


async def events(bus: Bus, tail: str) -> list[Stored]:
    history = History(bus)
    return [stored async for stored in history.after(tail, 0, (await history.position()).last)]


async def test_a_job_that_waits_is_cancelled_at_once_and_its_end_is_written_once(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        job_id = (await client.post("/api/ai/chat", json=CHAT)).json()["job_id"]
        for _ in range(2):
            answer = await client.delete(f"/api/ai/chat/{job_id}")
            assert (answer.status_code, answer.json()["status"], answer.json()["finish_reason"]) == (
                200,
                "cancelled",
                "cancelled",
            )
        (last,) = await events(bus, "client.a")
        data = msgspec.json.decode(last.payload)
        assert (data["done"], data["finish_reason"], data["index"]) == (True, "cancelled", 0)
        assert (field(last.header, headers.JOB), field(last.header, headers.JOB_END)) == (job_id.encode(), b"1")
        assert answer.json()["end"].endswith(f"-{last.sequence}")


async def test_a_cancel_that_could_not_be_written_is_finished_by_a_repeat(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        job_id = (await client.post("/api/ai/chat", json=CHAT)).json()["job_id"]
        states = JobRecords(bus)
        await states.change(job_id, lambda state: replace(state, status=JobStatus.CANCELLED, pieces=3))
        assert (await client.delete(f"/api/ai/chat/{job_id}")).json()["end"]
        (last,) = await events(bus, "client.a")
        assert msgspec.json.decode(last.payload)["index"] == 3


async def test_an_end_that_is_in_the_stream_is_found_and_not_written_again(tmp_path: Path) -> None:
    """After the stream's window for duplicates the message id alone does not keep a second end away."""
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        job_id = (await client.post("/api/ai/chat", json=CHAT)).json()["job_id"]
        await JobRecords(bus).change(job_id, lambda state: replace(state, status=JobStatus.CANCELLED))
        written = await EventPublisher(bus, History(bus)).durable(
            "client.a", Event("ai_response", "{}"), headers={JOB: job_id, JOB_END: "1"}
        )
        assert (await client.delete(f"/api/ai/chat/{job_id}")).json()["end"] == written.id
        assert len(await events(bus, "client.a")) == 1


async def test_a_job_for_nobody_has_its_own_stream_and_any_kind_may_be_asked_for(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        body = {"kind": "image.progressive", "params": {"width": 10}, "deadline_seconds": 60, "on_disconnect": "cancel"}
        started = (await client.post("/api/ai/jobs", json={**body, "grace_seconds": 3})).json()
        assert started["stream"] == f"/api/sse/jobs/{started['job_id']}"
        delivery = await (await JobQueue.open(bus)).take(5)
        assert delivery is not None
        job = delivery.job()
        assert (job.kind, job.params, job.tail) == ("image.progressive", {"width": 10}, f"job.{job.job_id}")
        assert (job.on_disconnect, job.grace_seconds) == ("cancel", 3)
        assert job.deadline is not None
        assert 50 < job.deadline - job.created < 61
        record = (await client.get(f"/api/ai/jobs/{job.job_id}")).json()
        assert (record["status"], record["answer"]) == ("queued", {})
        assert (await client.delete(f"/api/ai/jobs/{job.job_id}")).json()["status"] == "cancelled"


async def test_a_job_has_its_calls_whoever_has_chosen_its_id(tmp_path: Path) -> None:
    """A worker ran it, and its record could be asked for by nobody: HTTP took ids of 32 digits alone."""
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        job = Job(job_id="report-7", kind="count", tail="client.a", params={}, created=time.time())
        await QueueWriter(bus, EventPublisher(bus, History(bus)), JobRecords(bus)).put(job, {}, "")
        assert (await client.get("/api/ai/jobs/report-7")).json()["status"] == "queued"
        assert (await client.delete("/api/ai/jobs/report-7")).json()["status"] == "cancelled"


async def test_jobs_for_nobody_count_for_the_address_that_asks_behind_a_trusted_proxy_too(tmp_path: Path) -> None:
    """Each was its own owner, and so its first job: one caller's thousand stood before all who name a client."""
    async with (
        broker(tmp_path) as (server, bus),
        running_publisher(server.url, trusted_proxies=("127.0.0.1",)) as (client, _),
    ):
        for _ in range(3):
            await client.post("/api/ai/chat", json={"prompt": "x"})
        other = await client.post("/api/ai/chat", json={"prompt": "x"}, headers={"x-forwarded-for": "2001:db8::7"})
        record = (await client.get(f"/api/ai/chat/{other.json()['job_id']}")).text
        assert "2001" not in record, "whoever knows a job's id sees its record"
        await client.post("/api/ai/chat", json=CHAT)
        found = await bus.jetstream.stream_info(SUBJECTS.jobs_stream, subjects_filter=">")
        assert found.state.subjects == {
            "tg.jobs.chat.0.address.127%2E0%2E0%2E1": 2,
            "tg.jobs.chat.1.address.127%2E0%2E0%2E1": 1,
            "tg.jobs.chat.0.address.2001%3Adb8%3A%3A7": 1,
            "tg.jobs.chat.0.client.a": 1,
        }


async def test_the_same_key_for_nobody_starts_one_job(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, _), running_publisher(server.url) as (client, _):
        key = {"idempotency-key": "k"}
        first, again = [(await client.post("/api/ai/chat", json={"prompt": "x"}, headers=key)).json() for _ in range(2)]
        assert first["job_id"] == again["job_id"]


async def test_an_answer_can_be_read_as_one_document_so_far_and_whole(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        job_id = (await client.post("/api/ai/chat", json=CHAT)).json()["job_id"]
        publisher = EventPublisher(bus, History(bus))

        async def write(data: AiResponse | AiDone) -> None:
            event = Event("ai_response", msgspec.json.encode(data).decode())
            await publisher.durable("client.a", event, headers={JOB: job_id})

        await write(AiResponse(job_id=job_id, index=0, content="Hello "))
        await write(AiResponse(job_id=job_id, index=1, content="you", candidate=1))
        found = (await client.get(f"/api/ai/chat/{job_id}")).json()["answer"]
        assert (found["candidates"], found["pieces"]) == ([{"content": "Hello "}, {"content": "you"}], 2)
        await write(AiDone(job_id=job_id, index=2, content="there", finish_reason="stop", usage=Usage(1, 2)))
        found = (await client.get(f"/api/ai/chat/{job_id}")).json()["answer"]
        assert (found["candidates"][0], found["done"]) == ({"content": "Hello there", "finish_reason": "stop"}, True)


async def test_the_document_of_a_job_that_has_ended_is_read_up_to_its_end(tmp_path: Path) -> None:
    """All that came to the same topic since was read too: each look at an old answer cost as much as a day's events."""
    async with broker(tmp_path) as (_, bus):
        history = History(bus)
        publisher = EventPublisher(bus, history)
        start = await publisher.durable("topic.t", Event("note", "{}"), headers={})
        data = AiDone(job_id="j", index=0, content="Hello", finish_reason="stop", usage=Usage(1, 2))
        event = Event("ai_response", msgspec.json.encode(data).decode())
        ended = await publisher.durable("topic.t", event, headers={JOB: "0" * 32, JOB_END: "1"})
        for _ in range(3):
            notes = [Durable("topic.t", Event("note", "{}")) for _ in range(PAGE)]
            await publisher.durable_all(notes, headers={})
        answer = await read_answer(history, "0" * 32, "topic.t", start.id, ended.id)
        assert (answer.candidates[0].content, answer.done) == ("Hello", True)
        assert history.pages == 1


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("chat", {"prompt": "x", "deadline_seconds": 0}, "deadline_seconds"),
        ("chat", {"prompt": "x", "on_disconnect": "die"}, "on_disconnect"),
        ("chat", {"prompt": "x", "grace_seconds": 3601}, "grace_seconds"),
        ("chat", {"prompt": "x", "stop": ["", "a"]}, "stop[0]"),
        ("chat", {"prompt": "x", "top_p": 1.5}, "top_p"),
        ("chat", {"prompt": "x", "client_id": "a", "topic": "b"}, "client_id"),
        ("jobs", {"kind": "a b"}, "kind"),
        ("jobs", {"kind": "a", "params": []}, "params"),
        ("jobs", {"kind": "a", "prompt": "x"}, None),
    ],
)
async def test_what_is_wrong_with_a_job_is_said_and_nothing_is_queued(
    tmp_path: Path, path: str, body: dict[str, object], field: str | None
) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        refused = await client.post(f"/api/ai/{path}", json=body)
        assert (refused.status_code, refused.json().get("field")) == (422, field) or field is None
        assert refused.status_code == 422
        assert (await bus.jetstream.stream_info(SUBJECTS.jobs_stream)).state.messages == 0


async def test_who_waits_is_told_the_place_and_who_is_taken_at_once_is_not(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        heard: list[tuple[bytes, dict[str, object]]] = []

        def hear(_: bytes, block: bytes, payload: bytes) -> None:
            heard.append((field(block, headers.JOB) or b"", msgspec.json.decode(payload)))

        for name in "ab":
            bus.client.subscribe_direct(bus.subjects.outbound(f"client.{name}"), hear)
        queue = await JobQueue.open(bus)
        first = (await client.post("/api/ai/chat", json=CHAT)).json()["job_id"]
        delivery = await queue.take(5)
        assert delivery is not None
        await JobRecords(bus).change(first, lambda state: replace(state, status=JobStatus.RUNNING))
        second = (await client.post("/api/ai/chat", json=CHAT)).json()["job_id"]
        third = (await client.post("/api/ai/chat", json={"client_id": "b", "prompt": "x"})).json()["job_id"]
        await until(lambda: {job for job, _ in heard} == {second.encode(), third.encode()}, "both are told")
        told = {data["job_id"]: (data["state"], data["position"]) for _, data in heard}
        assert told == {second: ("queued", 1), third: ("queued", 2)}
        assert await queue.take(5)
        await JobRecords(bus).change(second, lambda state: replace(state, status=JobStatus.RUNNING))
        await until(lambda: heard[-1][1].get("position") == 1 and heard[-1][0] == third.encode(), "it has moved up")
        assert "wait_seconds" in heard[-1][1]


async def test_a_dead_job_is_listed_looked_at_tried_again_once_and_forgotten(tmp_path: Path) -> None:
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        dead = DeadJobs(bus)
        ids = [str(number) * 32 for number in range(3)]
        for number, job_id in enumerate(ids):
            tail = f"job.{job_id}" if number == 1 else "client.a"
            job = Job(job_id=job_id, kind="chat", tail=tail, params={"x": number}, created=1, deadline=2)
            await dead.keep(DeadJob(job=job, error="backend_error: x", attempts=1, failed=10.0 + number))
        listed = (await client.get("/api/ai/dead", params={"limit": 2})).json()
        assert ([each["job_id"] for each in listed["jobs"]], listed["total"]) == ([ids[2], ids[1]], 3)
        assert (await client.get(f"/api/ai/dead/{ids[1]}")).json()["job"]["params"] == {"x": 1}
        retried = (await client.post(f"/api/ai/dead/{ids[1]}/retry", json={})).json()
        assert retried["retry_of"] == ids[1]
        delivery = await (await JobQueue.open(bus)).take(5)
        assert delivery is not None
        job = delivery.job()
        assert (job.job_id, job.tail, job.params) == (retried["job_id"], f"job.{retried['job_id']}", {"x": 1})
        assert (job.deadline, job.start != "") == (None, True)
        again = await client.post(f"/api/ai/dead/{ids[1]}/retry", json={})
        assert again.status_code == 404, "it is not dead any more"
        assert (await client.delete(f"/api/ai/dead/{ids[0]}")).status_code == 204
        assert (await client.delete(f"/api/ai/dead/{ids[0]}")).status_code == 404
        assert (await client.get("/api/ai/dead")).json()["total"] == 1
        assert (await client.get("/api/ai/dead", params={"limit": "0"})).json()["field"] == "limit"


async def test_a_dead_job_that_is_tried_again_does_not_end_for_want_of_listeners(tmp_path: Path) -> None:
    """Nobody listens to a job of days ago: it was cancelled after its grace period, and nothing of it was left."""
    async with broker(tmp_path) as (server, bus), running_publisher(server.url) as (client, _):
        job_id = "0" * 32
        job = Job(job_id=job_id, kind="chat", tail=f"job.{job_id}", params={}, created=1, owner="key.x")
        job = replace(job, on_disconnect=OnDisconnect.CANCEL, grace_seconds=3.0)
        await DeadJobs(bus).keep(DeadJob(job=job, error="backend_error: x", attempts=1, failed=2))
        await client.post(f"/api/ai/dead/{job_id}/retry", json={})
        delivery = await (await JobQueue.open(bus)).take(5)
        assert delivery is not None
        assert (delivery.job().on_disconnect, delivery.job().owner) == ("continue", "key.x")


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
        states = JobRecords(bus)
        ended = await states.change(job_id, lambda state: replace(state, status=JobStatus.DONE))
        answer = await client.delete(f"/api/ai/chat/{job_id}")
        assert (answer.status_code, msgspec.convert(answer.json(), type(ended))) == (200, ended)
