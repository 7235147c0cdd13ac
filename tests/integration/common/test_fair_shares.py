"""On which level of the queue a job waits, and that every level moves."""

import asyncio
import time
from collections import Counter
from pathlib import Path

from tests.support.bus import broker
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.dequeue import Delivery, JobQueue
from tidegate_common.bus.jobs.enqueue import QueueWriter
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.contract.jobs import Job, JobState


class Asking:
    """Puts jobs into the queue; `levels` is where each has come, by its id."""

    def __init__(self, bus: Bus, states: JobRecords) -> None:
        self._queue = QueueWriter(bus, EventPublisher(bus, History(bus)), states, self._note)
        self.levels: dict[str, int] = {}

    def _note(self, state: JobState, level: int, _: int) -> None:
        self.levels[state.job_id] = level

    async def put(self, owner: str, number: int = 0) -> None:
        job = Job(job_id=f"{owner}-{number}", kind="chat", tail=f"client.{owner}", params={}, created=time.time())
        await self._queue.put(job, {}, "trace")


async def asking(bus: Bus) -> Asking:
    return Asking(bus, JobRecords(bus))


async def taken(queue: JobQueue) -> Delivery:
    delivery = await queue.take(5)
    assert delivery is not None, "no job came"
    return delivery


def levels_of(jobs: dict[str, int]) -> dict[int, int]:
    return dict(Counter(jobs.values()))


async def test_jobs_that_are_asked_for_at_once_count_only_those_before_them(tmp_path: Path) -> None:
    """Each of a burst counted all the others: 33 at once stood on the last level, and three had no first two."""
    async with broker(tmp_path) as (_, bus):
        desk = await asking(bus)
        await asyncio.gather(*(desk.put("three", number) for number in range(3)))
        assert desk.levels == {"three-0": 0, "three-1": 0, "three-2": 1}
        desk.levels.clear()
        await asyncio.gather(*(desk.put("many", number) for number in range(33)))
        assert levels_of(desk.levels) == {0: 2, 1: 6, 2: 24, 3: 1}


async def test_jobs_that_follow_close_upon_each_other_are_counted_once(tmp_path: Path) -> None:
    """What has been sent to the queue is counted by it, and must not be counted here as under way as well."""
    async with broker(tmp_path) as (_, bus):
        desk = await asking(bus)
        putting = []
        for number in range(40):
            putting.append(asyncio.create_task(desk.put("many", number)))
            await asyncio.sleep(0.0003)  # some of those before it are on their way, some are there
        await asyncio.gather(*putting)
        assert levels_of(desk.levels) == {0: 2, 1: 6, 2: 24, 3: 8}


async def test_every_level_moves_while_all_the_others_have_jobs(tmp_path: Path) -> None:
    """Each fourth job came from the highest level alone: what waited between stood still, a client's third job too."""
    async with broker(tmp_path) as (_, bus):
        desk, queue = await asking(bus), await JobQueue.open(bus)
        for number in range(60):
            await desk.put("hog", number)
        for number in range(3):
            await desk.put("ann", number)
        for number in range(96):
            await desk.put(f"new{number}")
        found = Counter[int]()
        order = []
        for _ in range(96):
            delivery = await taken(queue)
            order.append(delivery.job().job_id)
            found[desk.levels[order[-1]]] += 1
            await delivery.done()
        assert order.index("ann-1") < 6, "first two jobs wait for nobody's third"
        assert "ann-2" in order
        assert found[0] == 4 * 18
        assert found[1] == 7, "all that it had; its other turns went to the next levels"
        assert found[2] >= 4 * 2
        assert found[3] >= 4


async def test_a_job_that_was_handed_back_on_a_middle_level_is_the_next_there(tmp_path: Path) -> None:
    """It waited for ever, in the middle of its answer, while the first and the last level had jobs."""
    async with broker(tmp_path) as (_, bus):
        desk, queue = await asking(bus), await JobQueue.open(bus)
        for number in range(33):
            await desk.put("hog", number)
        back = next(each for each in [await taken(queue) for _ in range(4)] if desk.levels[each.job().job_id] == 1)
        await back.give_back()
        for number in range(20):
            await desk.put(f"new{number}")
        assert back.job().job_id in [(await taken(queue)).job().job_id for _ in range(12)]
