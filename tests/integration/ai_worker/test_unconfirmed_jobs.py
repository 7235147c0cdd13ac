"""Jobs that the queue has stored without saying so: their askers were told that there is no such job."""

import asyncio
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.integration.ai_worker.support import Desk, desk, lease, worker
from tests.integration.common.test_jobs import job
from tests.support.waiting import until
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.dequeue import JobQueue
from tidegate_common.bus.jobs.enqueue import STORED_ONCE_SECONDS, QueueWriter
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.contract.jobs import Job, JobStatus
from tidegate_common.errors import BrokerUnavailable, NotFound


def hasty(asking: Desk) -> QueueWriter:
    """Gives up after one try."""
    return QueueWriter(asking.bus, EventPublisher(asking.bus, asking.history, 0.1), asking.states)


async def confirming(asking: Desk, confirms: bool) -> None:
    """Whether the queue says that it has stored a job, which it does in any case."""
    config = (await asking.bus.jetstream.stream_info("TG_JOBS")).config
    config.no_ack = not confirms
    await asking.bus.jetstream.update_stream(config)


async def queued(asking: Desk) -> int:
    return (await asking.bus.jetstream.stream_info("TG_JOBS")).state.messages


def chat(job_id: str) -> Job:
    params = {"messages": [{"role": "user", "content": "hello"}]}
    return Job(job_id=job_id, kind="chat", tail="client.ann", params=params, created=time.time())


async def test_a_job_that_was_refused_is_not_run_and_a_repeat_of_it_is_run_once(tmp_path: Path) -> None:
    """The refused one ran, its record made anew, and whoever repeated it without a key paid for two answers."""
    async with desk(tmp_path) as (nats, asking):
        await confirming(asking, False)
        putting = (hasty(asking).put(chat(job_id), {}, "") for job_id in ("j1", "j2"))
        assert {type(each) for each in await asyncio.gather(*putting, return_exceptions=True)} == {BrokerUnavailable}
        for job_id in ("j1", "j2"):
            with pytest.raises(NotFound):
                await asking.states.get(job_id)
        await confirming(asking, True)
        await asking.queueing.put(chat("j2"), {}, "")
        assert await queued(asking) == 3
        async with worker(nats) as (run, _):
            await asking.end("j2")
            await asking.queue_empty()
            await until(lambda: run.count("forgotten") == 2, "both that were refused are passed over")
        assert asking.of("j1") == []
        assert sum("done" in event.data and event.data["done"] for event in asking.of("j2")) == 1
        with pytest.raises(NotFound):
            await asking.states.get("j1")


async def test_a_job_that_a_worker_has_before_it_is_given_up_is_there(tmp_path: Path) -> None:
    """Its record was removed under its worker, which then could not end it."""
    async with desk(tmp_path) as (_, asking):
        await confirming(asking, False)
        putting = asyncio.create_task(hasty(asking).put(job("j1"), {}, ""))
        delivery = await (await JobQueue.open(asking.bus)).take(5)
        assert delivery is not None
        assert await lease(asking, delivery.job()).acquire()
        assert (await putting).status is JobStatus.RUNNING
        assert (await asking.states.get("j1")).attempt == 1


async def test_a_record_that_was_lost_with_its_bucket_is_made_anew(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking):
        await asking.ask("j1")
        await asking.bus.jetstream.delete_key_value("TG_JOBS_STATE")
        await ensure_streams(asking.bus, StreamLimits(), update=False)
        async with worker(nats):
            assert (await asking.end("j1")).data["finish_reason"] == "stop"
            await asking.state("j1", JobStatus.DONE)


async def test_a_repeat_puts_a_job_that_the_queue_does_not_have_though_its_owner_has_others_there(
    tmp_path: Path,
) -> None:
    """After the time in which repeats are told by their message id it was called queued, and was not there."""
    async with desk(tmp_path) as (_, asking):
        old = time.time() - STORED_ONCE_SECONDS - 1
        for job_id in ("j1", "j2"):
            await asking.queueing.put(replace(chat(job_id), created=old), {}, "")
        delivery = await (await JobQueue.open(asking.bus)).take(5)
        assert delivery is not None
        assert delivery.job().job_id == "j1"
        await delivery.done()
        config = (await asking.bus.jetstream.stream_info("TG_JOBS")).config
        config.duplicate_window = 0.1
        await asking.bus.jetstream.update_stream(config)

        async def there_again() -> bool:
            await asking.queueing.put(chat("j1"), {}, "")
            return await queued(asking) == 2

        await until(there_again, "it is no duplicate any more")
        for job_id in ("j1", "j2"):
            await asking.queueing.put(chat(job_id), {}, "")
        assert await queued(asking) == 2, "what the queue has is not put there again"
