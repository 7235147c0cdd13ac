import asyncio
import time
from pathlib import Path

import msgspec
import pytest

from tests.support.bus import broker, connected
from tests.support.nats import nats_server
from tests.support.processes import paused
from tests.support.raw import RawPublisher
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.cancel import announce_cancel, on_cancel
from tidegate_common.bus.jobs.dequeue import Delivery, JobQueue
from tidegate_common.bus.jobs.enqueue import QueueWriter
from tidegate_common.bus.jobs.priority import LEVELS
from tidegate_common.bus.jobs.queue_info import QueueState, consumer_of, queue_state
from tidegate_common.bus.jobs.records import JobRecords, record_of
from tidegate_common.bus.streams.definitions import StreamLimits
from tidegate_common.contract.jobs import Job, JobState, JobStatus
from tidegate_common.errors import BrokerUnavailable, NotFound, QueueFull, QueueGone, TooLarge


def job(job_id: str, owner: str = "") -> Job:
    return Job(job_id=job_id, kind="chat", tail="client.a", params={}, created=time.time(), owner=owner)


async def put(bus: Bus, states: JobRecords, job_id: str, owner: str = "") -> None:
    queueing = QueueWriter(bus, EventPublisher(bus, History(bus)), states)
    await queueing.put(job(job_id, owner), {"traceparent": "t"}, "trace")


async def taken(queue: JobQueue) -> Delivery:
    delivery = await queue.take(5)
    assert delivery is not None, "no job came"
    return delivery


async def test_a_job_is_taken_once_with_its_headers_and_leaves_the_queue_when_done(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        states, queue = JobRecords(bus), await JobQueue.open(bus)
        await put(bus, states, "j1")
        assert (await states.get("j1")).status is JobStatus.QUEUED
        assert await queue.depth() == 1
        delivery = await taken(queue)
        assert (delivery.job().job_id, delivery.number, delivery.headers["traceparent"]) == ("j1", 1, "t")
        await delivery.progress()
        await delivery.done()
        assert await queue.take(0.2) is None
        assert (await bus.jetstream.stream_info("TG_JOBS")).state.messages == 0


async def test_a_job_that_is_given_back_comes_again_as_the_next_attempt(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        states, queue = JobRecords(bus), await JobQueue.open(bus)
        await put(bus, states, "j1")
        await (await taken(queue)).give_back()
        again = await taken(queue)
        assert again.number == 2
        await again.discard()


async def test_a_full_queue_refuses_and_nothing_is_half_done(tmp_path: Path) -> None:
    async with broker(tmp_path, StreamLimits(max_jobs=1)) as (_, bus):
        states = JobRecords(bus)
        await put(bus, states, "j1")
        with pytest.raises(QueueFull, match="holds 1 jobs") as refused:
            await put(bus, states, "j2")
        assert refused.value.queued == 1
        with pytest.raises(NotFound):
            await states.get("j2")


async def test_a_queue_that_is_full_by_its_bytes_refuses_too(tmp_path: Path) -> None:
    """Only jobs were counted: ten thousand of a megabyte each could fill the disk."""
    async with broker(tmp_path, StreamLimits(max_job_bytes=1_500)) as (_, bus):
        states = JobRecords(bus)
        with pytest.raises(QueueFull, match="takes no more"):
            await asyncio.gather(*(put(bus, states, f"j{number}") for number in range(10)))
        assert 0 < (await bus.jetstream.stream_info("TG_JOBS")).state.messages < 10


async def test_a_queue_can_be_closed_when_nats_is_gone(tmp_path: Path) -> None:
    """It raised, and with that ended what looks for a queue that was deleted and opens it anew."""
    async with broker(tmp_path) as (_, bus):
        queue = await JobQueue.open(bus)
        assert await queue.take(0) is None
        await bus.client.close()
        await queue.close()


async def test_one_job_of_another_owner_is_taken_before_the_rest_of_many(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        states, queue = JobRecords(bus), await JobQueue.open(bus)
        for number in range(100):
            await put(bus, states, f"many-{number}", "client.many")
        await put(bus, states, "one", "client.one")
        state = await queue_state(bus)
        assert (state.waiting, state.given) == ((3, 6, 24, 68), (0,) * len(LEVELS))
        order = [(await taken(queue)).job().job_id for _ in range(101)]
        assert order[:5] == ["many-0", "many-1", "one", "many-2", "many-3"]
        assert (await queue_state(bus)).waiting == (0,) * len(LEVELS)


async def test_a_worker_that_waits_is_told_of_a_new_job(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        await JobQueue.open(bus)
        states, queue = JobRecords(bus), JobQueue(bus, poll_seconds=60)
        waiting = asyncio.create_task(queue.take(60))
        await asyncio.sleep(0)
        await put(bus, states, "j1")
        async with asyncio.timeout(20):
            assert await waiting, "it was found by looking, not by being told"


async def test_the_queues_state_is_known_before_a_worker_has_come(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        await put(bus, JobRecords(bus), "j1")
        assert await queue_state(bus) == QueueState((1, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))


async def test_a_job_that_is_put_twice_is_queued_once_and_keeps_its_record(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        states, queue = JobRecords(bus), await JobQueue.open(bus)
        await put(bus, states, "j1")
        await put(bus, states, "j1")
        delivery = await taken(queue)
        await states.change("j1", lambda state: msgspec.structs.replace(state, status=JobStatus.RUNNING))
        await put(bus, states, "j1")
        assert (await states.get("j1")).status is JobStatus.RUNNING
        await delivery.done()
        assert await queue.take(0.2) is None


async def test_records_change_by_compare_and_set_and_an_unknown_one_is_not_found(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        states = JobRecords(bus)
        await put(bus, states, "j1")

        def cancel(state: JobState) -> JobState:
            return msgspec.structs.replace(state, cancel=True)

        assert (await states.change("j1", cancel)).cancel
        assert (await states.change("j1", lambda _: None)).cancel
        with pytest.raises(NotFound):
            await states.get("nobody")


async def test_a_cancel_is_heard_by_whoever_listens(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        heard: list[str] = []
        stop = on_cancel(bus, heard.append)
        await announce_cancel(bus, "j1")
        await until(lambda: heard == ["j1"], "the cancel is heard")
        stop()
        await announce_cancel(bus, "j2")
        await History(bus).position()  # answered after what was sent before it
        assert heard == ["j1"]


async def test_a_job_whose_message_has_a_header_status_is_a_job(tmp_path: Path) -> None:
    """Its own header was read as the server's word that there are no jobs, or that the consumer is gone."""
    async with broker(tmp_path) as (_, bus):
        queue, raw = await JobQueue.open(bus), RawPublisher(bus)
        for status in ("404", "409", "503"):
            block = f"NATS/1.0\r\nStatus: {status}\r\nDescription: Consumer Deleted\r\n\r\n".encode()
            await raw.store("tg.jobs.chat.0.client.a", block, msgspec.json.encode(job(f"j{status}")))
            delivery = await taken(queue)
            assert delivery.job().job_id == f"j{status}"
            await delivery.done()


async def test_a_record_with_copied_headers_of_jetstream_s_is_changed_at_its_own_revision(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        states, raw = JobRecords(bus), RawPublisher(bus)
        state = JobState(job_id="j1", kind="chat", tail="client.a", status=JobStatus.QUEUED, created=1.0, updated=1.0)
        block = b"NATS/1.0\r\nNats-Sequence: 900\r\nnats-sequence: 901\r\nNats-Stream: X\r\nNats-Subject: y\r\n\r\n"
        await raw.store("$KV.TG_JOBS_STATE.j1", block, msgspec.json.encode(state))
        async with asyncio.timeout(5):
            changed = await states.change("j1", lambda each: msgspec.structs.replace(each, attempt=2))
        assert changed.attempt == (await states.get("j1")).attempt == 2


async def test_a_record_that_is_larger_than_nats_takes_is_too_large_and_nothing_is_away(tmp_path: Path) -> None:
    """It was answered as if NATS were away, so whoever had asked came again with the same, for ever."""
    async with nats_server(tmp_path, config="max_payload: 20000") as nats, connected(nats.url) as bus:
        states = JobRecords(bus)
        large = record_of(job("j1", "o" * 600), "trace", 1.0)
        await nats.reload("max_payload: 500")
        with pytest.raises(BrokerUnavailable):  # the server has told nobody: this costs the connection
            await states.create(large)
        await until(lambda: bus.losses == 1 and bus.connected, "it is back")
        with pytest.raises(TooLarge):
            await states.create(large)


async def test_a_queue_that_is_gone_is_told_from_one_that_nats_says_nothing_of(tmp_path: Path) -> None:
    """NATS only hung, and the worker's log had it that the queue was opened anew, as if it had been deleted."""
    async with broker(tmp_path) as (server, bus):
        queue = await JobQueue.open(bus)
        async with paused(server.run):
            with pytest.raises(BrokerUnavailable) as hung:
                await queue.depth()
        assert not isinstance(hung.value, QueueGone)
        await bus.jetstream.delete_consumer(bus.subjects.jobs_stream, consumer_of(0))
        with pytest.raises(QueueGone):
            await queue.depth()
        await bus.jetstream.delete_stream(bus.subjects.jobs_stream)
        with pytest.raises(QueueGone):
            await queue.depth()
