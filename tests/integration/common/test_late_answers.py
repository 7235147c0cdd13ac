"""NATS answers a request for a job after its worker has given it up."""

import asyncio
from pathlib import Path

import pytest

from tests.integration.common.test_jobs import put, taken
from tests.support.bus import broker
from tests.support.processes import paused
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.jobs.dequeue import JobQueue
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.errors import BrokerUnavailable

PATIENCE = 0.2
LONG = 60.0


async def given_up(queue: JobQueue) -> None:
    with pytest.raises(BrokerUnavailable):
        await queue.take(0)


async def unacknowledged(bus: Bus) -> int:
    return int((await bus.jetstream.consumer_info("TG_JOBS", "workers-0")).num_ack_pending or 0)


async def test_after_a_stall_each_request_has_its_own_answer_again(tmp_path: Path) -> None:
    """Each answer was taken for that of the request before it, for ever: a job lay in the inbox until the next look."""
    async with broker(tmp_path) as (nats, bus):
        states, queue = JobRecords(bus), await JobQueue.open(bus, LONG, PATIENCE)
        async with paused(nats.run):
            await given_up(queue)
            await given_up(queue)
        await until(lambda: queue_answers(queue), "NATS goes on")
        for number in range(4):
            await put(bus, states, f"j{number}", f"client.c{number}")
        assert (await taken(queue)).job().job_id == "j0"
        assert await unacknowledged(bus) == 1, "no job is held that nobody has in hand"
        other = await JobQueue.open(bus, LONG)
        assert [(await taken(other)).number for _ in range(3)] == [1, 1, 1]


async def queue_answers(queue: JobQueue) -> bool:
    try:
        assert await queue.take(0) is None
    except BrokerUnavailable:
        return False
    return True


async def test_a_job_that_comes_too_late_is_given_back_at_once(tmp_path: Path) -> None:
    """It lay in the inbox of a worker that did not know of it, until its time for acknowledging was over."""
    async with broker(tmp_path) as (nats, bus):
        states, queue = JobRecords(bus), await JobQueue.open(bus, LONG, PATIENCE)
        other = await JobQueue.open(bus, LONG)
        await put(bus, states, "j1")

        async def is_waiting() -> bool:
            return bool((await bus.jetstream.consumer_info("TG_JOBS", "workers-0")).num_pending)

        await until(is_waiting, "the consumer has heard of what was stored")
        async with paused(nats.run):
            await given_up(queue)
        delivery = await taken(other)
        assert (delivery.job().job_id, delivery.number) == ("j1", 2)


async def test_who_takes_while_the_queue_is_closed_is_told_at_once_and_it_does_not_hear_again(tmp_path: Path) -> None:
    async with broker(tmp_path) as (nats, bus):
        queue = await JobQueue.open(bus, LONG, LONG)
        assert await queue.take(0) is None
        async with paused(nats.run):
            taking = asyncio.create_task(queue.take(LONG))
            await asyncio.sleep(0)
            await queue.close()
            with pytest.raises(BrokerUnavailable):
                await asyncio.wait_for(taking, 5)
        await given_up(queue)
