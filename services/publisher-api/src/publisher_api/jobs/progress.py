"""Tells those whose jobs wait how far they have got.

One task for all jobs that this process has queued. A job that is taken at once is not told anything; who waits gets an
`ai_progress` event after half a second, and whenever the figures have changed at a look. The events are volatile:
nobody needs an old one. The place is an estimate, since each fourth job is taken from the upper levels.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from typing import NamedTuple

import msgspec

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.jobs import JobStates
from tidegate_common.bus.levels import QueueState, queue_state
from tidegate_common.bus.publishing import Publisher
from tidegate_common.contract.answers import PROGRESS, AiProgress
from tidegate_common.contract.events import JOB, Event
from tidegate_common.contract.jobs import JobState, JobStatus
from tidegate_common.errors import NotFound, TidegateError

log = logging.getLogger(__name__)

FIRST_SECONDS = 0.5
EACH_SECONDS = 2.0
MOST_FOLLOWED = 10_000
"""Jobs; of more, those that were queued first are told no more."""

RATE_SECONDS = 60.0
"""Over which it is measured how fast jobs are taken."""


class _Followed:
    def __init__(self, state: JobState, level: int) -> None:
        self.job_id = state.job_id
        self.tail = state.tail
        self.level = level
        self.due = time.monotonic() + FIRST_SECONDS
        self.ahead: int | None = None
        """Jobs on its own level that were before it when `given` was looked at; None before the first look."""
        self.given = 0
        self.told: tuple[int, float | None] | None = None


class Place(NamedTuple):
    """Of a waiting job: 1 for the next one."""

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
        """How long it takes to take so many; None where none was taken, so that nothing can be said."""
        (since, first), (until, last) = self._seen[0], self._seen[-1]
        if last == first or until == since:
            return None
        return round(jobs * (until - since) / (last - first), 1)


def place(level: int, ahead: int, state: QueueState, rate: Rate) -> Place:
    """Where a job stands that has `ahead` others before it on its own level."""
    position = sum(state.waiting[:level]) + ahead + 1
    return Place(position, rate.seconds_for(position))


class Progress:
    """`follow` is called for each job that was queued here; `run` runs beside the service."""

    def __init__(self, bus: Bus, states: JobStates, publisher: Publisher) -> None:
        self._bus = bus
        self._states = states
        self._publisher = publisher
        self._followed: dict[str, _Followed] = {}
        self._rate = Rate()
        self._come = asyncio.Event()

    def follow(self, state: JobState, level: int) -> None:
        """Tells this job's asker from now on, as long as it waits."""
        if state.status is not JobStatus.QUEUED or state.job_id in self._followed:
            return
        while len(self._followed) >= MOST_FOLLOWED:
            del self._followed[next(iter(self._followed))]
        self._followed[state.job_id] = _Followed(state, level)
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
                except TidegateError as error:
                    log.info("nobody is told of a place in the queue for now: %s", error)
                except Exception:
                    log.exception("nobody is told of a place in the queue for now")

    async def _look(self) -> None:
        now = time.monotonic()
        due = [each for each in self._followed.values() if each.due <= now]
        if not due:
            return
        state = await queue_state(self._bus)
        self._rate.note(now, sum(state.given))
        behind = self._behind()
        for each in due:
            each.due = now + EACH_SECONDS
            if not await self._waits(each):
                del self._followed[each.job_id]
                continue
            if each.ahead is None:
                each.ahead = max(0, state.waiting[each.level] - 1 - behind[each.job_id])
                each.given = state.given[each.level]
            ahead = max(0, each.ahead - (state.given[each.level] - each.given))
            await self._tell(each, place(each.level, ahead, state, self._rate))

    def _behind(self) -> dict[str, int]:
        """For each job, how many that are followed here were queued after it on its level."""
        found: dict[str, int] = {}
        counts: Counter[int] = Counter()
        for each in reversed(self._followed.values()):
            found[each.job_id] = counts[each.level]
            counts[each.level] += 1
        return found

    async def _waits(self, job: _Followed) -> bool:
        try:
            return (await self._states.get(job.job_id)).status is JobStatus.QUEUED
        except NotFound:
            return False

    async def _tell(self, job: _Followed, found: Place) -> None:
        if job.told == found:
            return
        job.told = found
        data = AiProgress(job_id=job.job_id, state=JobStatus.QUEUED, **found._asdict())
        event = Event(PROGRESS, msgspec.json.encode(data).decode())
        await self._publisher.volatile(job.tail, event, headers={JOB: job.job_id})
