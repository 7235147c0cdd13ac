import time
from pathlib import Path

import msgspec
import pytest

from tests.support.bus import broker
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.history import History
from tidegate_common.bus.jobs import JobQueue, JobStates, announce_cancel, enqueue, on_cancel
from tidegate_common.bus.publishing import Publisher
from tidegate_common.bus.streams import StreamLimits
from tidegate_common.contract.jobs import Job, JobState, JobStatus
from tidegate_common.errors import NotFound, QueueFull


def job(job_id: str) -> Job:
    return Job(job_id=job_id, kind="chat", tail="client.a", params={"messages": []}, created=time.time())


async def put(bus: Bus, states: JobStates, job_id: str) -> None:
    await enqueue(Publisher(bus, History(bus)), states, bus, job(job_id), {"traceparent": "t"}, "trace")


async def test_a_job_is_taken_once_with_its_headers_and_leaves_the_queue_when_done(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        states, queue = await JobStates.open(bus), await JobQueue.open(bus)
        await put(bus, states, "j1")
        assert (await states.get("j1")).status is JobStatus.QUEUED
        assert await queue.depth() == 1
        (delivery,) = await queue.take(5, 5)
        assert (delivery.job().job_id, delivery.attempt, delivery.headers["traceparent"]) == ("j1", 1, "t")
        await delivery.progress()
        await delivery.done()
        assert await queue.take(5, 0.2) == []
        assert (await bus.jetstream.stream_info("TG_JOBS")).state.messages == 0


async def test_a_job_that_is_given_back_comes_again_as_the_next_attempt(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        states, queue = await JobStates.open(bus), await JobQueue.open(bus)
        await put(bus, states, "j1")
        await (await queue.take(1, 5))[0].give_back()
        (again,) = await queue.take(1, 5)
        assert again.attempt == 2
        await again.discard()


async def test_a_full_queue_refuses_and_nothing_is_half_done(tmp_path: Path) -> None:
    async with broker(tmp_path, StreamLimits(max_jobs=1)) as (_, bus):
        states = await JobStates.open(bus)
        await put(bus, states, "j1")
        with pytest.raises(QueueFull):
            await put(bus, states, "j2")
        with pytest.raises(NotFound):
            await states.get("j2")


async def test_a_job_that_is_put_twice_is_queued_once_and_keeps_its_record(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        states, queue = await JobStates.open(bus), await JobQueue.open(bus)
        await put(bus, states, "j1")
        await put(bus, states, "j1")
        (delivery,) = await queue.take(5, 5)
        await states.change("j1", lambda state: msgspec.structs.replace(state, status=JobStatus.RUNNING))
        await put(bus, states, "j1")
        assert (await states.get("j1")).status is JobStatus.RUNNING
        await delivery.done()
        assert await queue.take(5, 0.2) == []


async def test_records_change_by_compare_and_set_and_an_unknown_one_is_not_found(tmp_path: Path) -> None:
    async with broker(tmp_path) as (_, bus):
        states = await JobStates.open(bus)
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
