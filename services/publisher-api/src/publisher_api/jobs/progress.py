"""Tells those whose jobs wait how far they have got, by `ai_progress` events.

One task does that for all jobs that this process has queued. A job that is taken at once is told nothing. A job that
waits is told after half a second, and again when its figures have changed: the next in line at each look, the others in
turn. So a look costs no more with ten thousand jobs in the queue. How far the queue has come shows which jobs were
taken. A job's record is read only before the job is told something: it may have been cancelled. The events are
volatile, since nobody needs an old one. The position is an estimate, since each fourth job is taken from the upper
levels.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from typing import NamedTuple

import msgspec

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.queue_info import QueueState, queue_state
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.contract.answers import PROGRESS, AiProgress
from tidegate_common.contract.events import JOB, Event
from tidegate_common.contract.jobs import JobState, JobStatus
from tidegate_common.errors import NotFound, TidegateError
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

FIRST_SECONDS = 0.5
EACH_SECONDS = 2.0
NEAR = 20
"""A job that is no further from the front than this is told each EACH_SECONDS."""

MOST_TOLD = 50
"""Jobs, at one look; half of them for those that are near."""

MOST_FOLLOWED = 10_000
"""Jobs. If there are more, those that were queued first are told no more."""

RATE_SECONDS = 60.0
"""The time over which the rate is measured."""


class _QueuedJob:
    def __init__(self, state: JobState, level: int, sequence: int) -> None:
        self.job_id = state.job_id
        self.tail = state.tail
        self.level = level
        self.sequence = sequence
        self.due = time.monotonic() + FIRST_SECONDS
        self.ahead: int | None = None
        """Jobs on its own level that were before it at its first look; None until then."""
        self.given = 0
        """Jobs of its level that had been given to workers at that look."""
        self.told: Estimate | None = None


class Estimate(NamedTuple):
    """Of a waiting job: its position, 1 for the next one, and how long it will wait if that can be said."""

    position: int
    wait_seconds: float | None


class Rate:
    """How fast jobs are taken, by what the queue has given out at several times."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, now: float, given: int) -> None:
        if self._seen and given < self._seen[-1][1]:
            self._seen.clear()  # the queue was made anew
        self._seen.append((now, given))
        while now - self._seen[0][0] > RATE_SECONDS:
            self._seen.popleft()

    def seconds_for(self, jobs: int) -> float | None:
        """How long it takes until so many are taken; None if none was, so that nothing can be said."""
        (since, first), (until, last) = self._seen[0], self._seen[-1]
        if last == first or until == since:
            return None
        return round(jobs * (until - since) / (last - first), 1)


def estimate(level: int, ahead: int, state: QueueState, rate: Rate) -> Estimate:
    """Of a job that has `ahead` others before it on its own level."""
    position = sum(state.waiting[:level]) + ahead + 1
    return Estimate(position, rate.seconds_for(position))


class QueueProgress:
    """`follow` is called for each job that was queued here; `run` runs beside the service."""

    def __init__(self, bus: Bus, records: JobRecords, publisher: EventPublisher) -> None:
        self._bus = bus
        self._records = records
        self._publisher = publisher
        self._followed: dict[str, _QueuedJob] = {}
        self._rate = Rate()
        self._come = asyncio.Event()
        self._silent = Trouble(
            log,
            "nobody is told of a place in the queue for now",
            "places in the queue are told again",
            level=logging.INFO,
        )
        self._broken = Trouble(log, "telling places in the queue fails by a fault of ours", level=logging.ERROR)

    def follow(self, state: JobState, level: int, sequence: int) -> None:
        """Tells this job's asker from now on, as long as the job waits on that level, under that sequence."""
        if state.status is not JobStatus.QUEUED or state.job_id in self._followed:
            return
        while len(self._followed) >= MOST_FOLLOWED:
            del self._followed[next(iter(self._followed))]
        self._followed[state.job_id] = _QueuedJob(state, level, sequence)
        self._come.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._come.wait()
            self._come.clear()
            while self._followed:
                await asyncio.sleep(FIRST_SECONDS)
                try:
                    await self._look()
                    self._silent.over()
                except TidegateError as error:
                    self._silent.note(error)
                except Exception as error:
                    self._broken.note(type(error).__name__, error)

    async def _look(self) -> None:
        if all(each.due > time.monotonic() for each in self._followed.values()):
            return
        state = await queue_state(self._bus)
        now = time.monotonic()
        self._rate.note(now, sum(state.given))
        self._drop_taken(state)
        self._settle(now, state)
        for each, found in self._turn(now, state):
            each.due = now + EACH_SECONDS
            if await self._waits(each):
                await self._tell(each, found)
            else:
                self._followed.pop(each.job_id, None)

    def _drop_taken(self, state: QueueState) -> None:
        self._followed = {
            job_id: each for job_id, each in self._followed.items() if each.sequence > state.reached[each.level]
        }

    def _settle(self, now: float, state: QueueState) -> None:
        """Counts the jobs before each of those whose first look it is."""
        new = [each for each in self._followed.values() if each.ahead is None and each.due <= now]
        behind = self._behind() if new else {}
        for each in new:
            each.ahead = max(0, state.waiting[each.level] - 1 - behind[each.job_id])
            each.given = state.given[each.level]

    def _turn(self, now: float, state: QueueState) -> list[tuple[_QueuedJob, Estimate]]:
        """What is told at this look, and to which: the near, then those that were told nothing yet, then the others."""
        near: list[tuple[_QueuedJob, Estimate]] = []
        others: list[tuple[_QueuedJob, Estimate]] = []
        for each in self._followed.values():
            if each.due <= now:
                ahead = max(0, (each.ahead or 0) - (state.given[each.level] - each.given))
                found = estimate(each.level, ahead, state, self._rate)
                if found == each.told:
                    each.due = now + EACH_SECONDS
                else:
                    (near if found.position <= NEAR else others).append((each, found))
        others.sort(key=lambda pair: (pair[0].told is not None, pair[0].due))
        near = near[: MOST_TOLD // 2]
        return near + others[: MOST_TOLD - len(near)]

    def _behind(self) -> dict[str, int]:
        """For each job, how many that are followed here were queued after it on its level."""
        found: dict[str, int] = {}
        counts: Counter[int] = Counter()
        for each in reversed(self._followed.values()):
            found[each.job_id] = counts[each.level]
            counts[each.level] += 1
        return found

    async def _waits(self, job: _QueuedJob) -> bool:
        try:
            return (await self._records.get(job.job_id)).status is JobStatus.QUEUED
        except NotFound:
            return False

    async def _tell(self, job: _QueuedJob, found: Estimate) -> None:
        job.told = found
        data = AiProgress(job_id=job.job_id, state=JobStatus.QUEUED, **found._asdict())
        event = Event(PROGRESS, msgspec.json.encode(data).decode())
        await self._publisher.volatile(job.tail, event, headers={JOB: job.job_id})
