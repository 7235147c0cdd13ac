"""Attempts that come late to their fence: none is raised over that of a later one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from opentelemetry.context import Context

from ai_worker.event_writer import EventWriter, Pace
from ai_worker.handlers.handler import Work
from ai_worker.lease import Fence
from ai_worker.pieces import Text
from tests.integration.ai_worker.support import Desk, desk, job_of, lease
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.contract.jobs import Job
from tidegate_common.errors import BrokerUnavailable, Superseded


class Attempt:
    """What one attempt has in hand, which has the job by the record."""

    def __init__(self, asking: Desk, job: Job) -> None:
        self.asked = asyncio.Event()
        """The record was asked; `go_on` keeps back what it said."""
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.lease = lease(asking, job)
        self.fence = Fence(asking.publisher, asking.history, asking.bus.subjects.fence("j1"), "j1", self._mine)
        self._work = Work("j1", 0, Context())
        self.writer = EventWriter(asking.publisher, self._work, "client.ann", self.fence, Pace(0, 1_000, 5))

    async def acquire(self) -> None:
        state = await self.lease.acquire()
        assert state is not None
        self._work.attempt = state.attempt

    async def _mine(self) -> bool:
        mine = await self.lease.is_mine()
        self.asked.set()
        await self.go_on.wait()
        return mine

    async def say(self, text: str) -> None:
        index = self.writer.index
        await self.writer.put(Text(text))
        await until(lambda: self.writer.index > index, f"{text} is stored")


async def attempts(asking: Desk, count: int) -> list[Attempt]:
    """The record has seen so many begin, each dying before it wrote."""
    await asking.ask("j1")
    job = await job_of(asking)
    found = [Attempt(asking, job) for _ in range(count)]
    for each in found:
        await each.acquire()
    return found


async def test_an_attempt_that_pauses_before_its_fence_is_raised_stays_out_of_a_later_ones_answer(
    tmp_path: Path,
) -> None:
    """The second came back, took the third's fence for an earlier one and declared the third's answer void."""
    async with desk(tmp_path) as (_, asking):
        _, second, third = await attempts(asking, 3)
        await third.fence.raise_(3)
        await third.say("The answer ")
        with pytest.raises(Superseded):
            await second.fence.raise_(2)
        with pytest.raises(Superseded):
            await second.writer.restart()
        await third.say("is 42.")
        assert asking.text("j1") == "The answer is 42."


async def test_a_first_attempt_that_comes_to_its_fence_late_stays_out(tmp_path: Path) -> None:
    async with desk(tmp_path) as (_, asking):
        first, second = await attempts(asking, 2)
        await second.fence.raise_(2)
        with pytest.raises(Superseded):
            await first.fence.raise_(1)
        await second.say("It is there.")


async def test_a_pause_between_asking_the_record_and_renewing_the_fence_lets_nobody_in(tmp_path: Path) -> None:
    """Who had been told that the job was still its own then read a later fence, and raised its own over that."""
    async with desk(tmp_path) as (_, asking):
        _, second = await attempts(asking, 2)
        third = Attempt(asking, await job_of(asking))
        await second.fence.raise_(2)
        second.asked.clear()
        second.go_on.clear()
        renewing = asyncio.create_task(second.fence.renew())
        await second.asked.wait()
        await third.acquire()
        await third.fence.raise_(3)
        await third.say("The answer ")
        second.go_on.set()
        assert not await renewing
        await third.say("is 42.")


async def test_a_first_attempt_whose_fence_was_dropped_asks_before_it_raises_another(tmp_path: Path) -> None:
    async with desk(tmp_path) as (_, asking):
        (first,) = await attempts(asking, 1)
        await first.fence.raise_(1)
        await asking.bus.jetstream.purge_stream("TG_EVENTS", subject=asking.bus.subjects.fence("j1"))
        assert await first.fence.renew()
        await Attempt(asking, await job_of(asking)).acquire()
        await asking.bus.jetstream.purge_stream("TG_EVENTS", subject=asking.bus.subjects.fence("j1"))
        assert not await first.fence.renew()


async def test_a_fence_that_nats_was_away_for_is_raised_when_it_is_back(tmp_path: Path) -> None:
    async with desk(tmp_path) as (nats, asking):
        (first,) = await attempts(asking, 1)
        await nats.run.stop()
        await until(lambda: not asking.bus.connected, "the connection is lost")
        first.fence.begin(1)
        with pytest.raises(BrokerUnavailable):
            await first.fence.headers()
        async with nats_server(tmp_path, nats.port):
            await until(lambda: asking.bus.connected, "NATS is back")
            await first.say("It is there.")
