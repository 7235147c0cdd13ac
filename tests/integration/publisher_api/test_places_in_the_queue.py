"""Who waits is told how far it has got, at a cost that does not grow with the queue."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from publisher_api.jobs import progress
from publisher_api.jobs.progress import MOST_TOLD, QueueProgress
from tests.support.bus import broker
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.dequeue import JobQueue
from tidegate_common.bus.jobs.enqueue import QueueWriter
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.contract.jobs import Job, JobStatus
from tidegate_common.runtime.tasks import end

LOOKS = "$JS.API.CONSUMER.INFO.TG_JOBS.workers-0"
READS = "$JS.API.STREAM.MSG.GET.KV_TG_JOBS_STATE"
TOLD = "tg.out.client."


class Desk:
    """Puts jobs into the queue; `heard` are the subjects of what follows from that, as the server wrote them."""

    def __init__(self, bus: Bus, states: JobRecords) -> None:
        publisher = EventPublisher(bus, History(bus))
        self.progress = QueueProgress(bus, states, publisher)
        self._queue = QueueWriter(bus, publisher, states, self.progress.follow)
        self.heard: list[str] = []
        for subject in (LOOKS, READS, f"{TOLD}>"):
            bus.client.subscribe_direct(subject, lambda subject, *_: self.heard.append(subject.decode()))

    async def put(self, *names: str) -> None:
        jobs = (Job(job_id=each, kind="chat", tail=f"client.{each}", params={}, created=time.time()) for each in names)
        await asyncio.gather(*(self._queue.put(each, {}, "") for each in jobs))

    def told(self) -> set[str]:
        return {each.removeprefix(TOLD) for each in self.heard if each.startswith(TOLD)}

    def looks(self) -> list[list[str]]:
        """What was heard in each look."""
        found: list[list[str]] = []
        for each in self.heard:
            if each == LOOKS:
                found.append([])
            else:
                found[-1].append(each)
        return found


@asynccontextmanager
async def desk(data: Path) -> AsyncIterator[tuple[Bus, Desk]]:
    async with broker(data) as (_, bus):
        found = Desk(bus, JobRecords(bus))
        running = asyncio.create_task(found.progress.run())
        try:
            yield bus, found
        finally:
            await end([running])


async def test_a_look_at_many_that_wait_costs_no_more_and_all_are_told_in_turn(tmp_path: Path) -> None:
    """Each look read the record of each job: two thousand took 0.8 s of every two."""
    async with desk(tmp_path) as (_, asking):
        names = {f"c{number}" for number in range(2 * MOST_TOLD + 20)}
        await asking.put(*names)
        await until(lambda: asking.told() == names, "all are told")
        for look in asking.looks():
            assert look.count(READS) <= MOST_TOLD
            assert len(look) <= 2 * MOST_TOLD
        assert len(asking.looks()) >= 3


async def test_who_was_taken_is_told_no_more_though_its_worker_has_not_begun_it_yet(tmp_path: Path) -> None:
    async with desk(tmp_path) as (bus, asking):
        queue = await JobQueue.open(bus)
        await asking.put("a")
        await asking.put("b")
        assert await queue.take(5)
        await until(lambda: asking.told() == {"b"}, "the other is told")
        assert asking.heard.count(READS) == 1


async def test_who_is_followed_no_more_since_others_came_disturbs_no_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that had ended and was dropped in that moment ended the look for all."""
    monkeypatch.setattr(progress, "MOST_FOLLOWED", 1)
    async with desk(tmp_path) as (bus, asking):
        await asking.put("a")
        states = JobRecords(bus)
        later = replace(await states.get("a"), job_id="b")
        await states.change("a", lambda state: replace(state, status=JobStatus.CANCELLED))
        reads = asking.heard.count(READS)
        bus.client.subscribe_direct(READS, lambda *_: asking.progress.follow(later, 0, 99))
        await until(lambda: asking.heard.count(READS) == reads + 2, "both were looked at")
        assert "nobody is told" not in caplog.text
