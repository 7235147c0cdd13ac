"""Attempts that come late to their fence: none is raised over that of a later one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from opentelemetry.context import Context

from ai_worker.fence import Fence
from ai_worker.handlers.handler import Work
from ai_worker.pieces import Text
from ai_worker.records import Records
from ai_worker.relay import Pace, Relay
from tests.integration.ai_worker.support import Desk, desk
from tests.support.nats import nats_server
from tests.support.waiting import until
from tidegate_common.contract.jobs import Job
from tidegate_common.errors import BrokerUnavailable, Superseded


class Attempt:
    """What one attempt has in hand, as the record numbers it."""

    def __init__(self, asking: Desk, number: int) -> None:
        self.number = number
        self.asked = asyncio.Event()
        """The record was asked; `go_on` keeps back what it said."""
        self.go_on = asyncio.Event()
        self.go_on.set()
        self._records = Records(asking.states)
        self.fence = Fence(asking.publisher, asking.history, asking.bus.subjects, "j1", self._mine)
        work = Work("j1", number, Context())
        self.relay = Relay(asking.publisher, work, "client.ann", self.fence, Pace(0, 1_000, 5))

    async def _mine(self) -> bool:
        state = await self._records.get("j1")
        self.asked.set()
        await self.go_on.wait()
        return state is None or state.attempt == self.number

    async def say(self, text: str) -> None:
        index = self.relay.index
        await self.relay.put(Text(text))
        await until(lambda: self.relay.index > index, f"{text} is stored")


async def job_of(asking: Desk) -> Job:
    """What is in the queue under the record of j1."""
    created = (await asking.states.get("j1")).created
    return Job(job_id="j1", kind="chat", tail="client.ann", params={}, created=created)


async def attempts(asking: Desk, count: int) -> list[Attempt]:
    """The record has seen so many begin, each dying before it wrote."""
    await asking.ask("j1")
    job = await job_of(asking)
    for _ in range(count):
        await Records(asking.states).begin(job, "")
    return [Attempt(asking, number) for number in range(1, count + 1)]


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
            await second.relay.restart()
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
        await asking.ask("j1")
        job = await job_of(asking)
        for _ in range(2):
            await Records(asking.states).begin(job, "")
        second, third = Attempt(asking, 2), Attempt(asking, 3)
        await second.fence.raise_(2)
        second.asked.clear()
        second.go_on.clear()
        renewing = asyncio.create_task(second.fence.renew(2))
        await second.asked.wait()
        await Records(asking.states).begin(job, "")
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
        assert await first.fence.renew(1)
        job = await job_of(asking)
        await Records(asking.states).begin(job, "")
        await asking.bus.jetstream.purge_stream("TG_EVENTS", subject=asking.bus.subjects.fence("j1"))
        assert not await first.fence.renew(1)


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
