"""The job queue: fair between those who ask, bounded, and each job kept until its end is certain.

A work queue serves first come first, so that one client's 1,000 jobs would stand before another's one. Here a job waits
on one of a few levels, by how many jobs of its owner are in the queue before it, and workers look at the lower levels
first: a client's k-th job waits for others' jobs up to about their 4k-th. So that every level moves however many come
on the others, the upper ones have turns of their own (queue.py).
"""

from __future__ import annotations

import asyncio
import bisect
import time
from collections.abc import Callable, Mapping

import msgspec
from msgspec.structs import replace

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.levels import TURNS, holds
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.jobs.shares import Entry, Shares
from tidegate_common.contract.jobs import Job, JobState, JobStatus
from tidegate_common.errors import BrokerUnavailable, KeyReused, NotFound, QueueFull, TidegateError, Unreadable

DEAD_JOB_BYTES = 4096
"""Left free in a job's message: where it fails, it is kept with what is said of that."""

STORED_ONCE_SECONDS = 100
"""Within this time the stream takes a repeated job for the one that it has (its window is of 120)."""


def record_of(job: Job, trace_id: str, now: float) -> JobState:
    """The record of a job that has just been queued."""
    return JobState(
        job_id=job.job_id,
        kind=job.kind,
        status=JobStatus.QUEUED,
        created=job.created,
        updated=now,
        trace_id=trace_id,
        tail=job.tail,
        owner=job.owner,
        start=job.start,
        request=job.request,
    )


class QueueWriter:
    """Puts jobs into the queue."""

    def __init__(
        self,
        bus: Bus,
        publisher: EventPublisher,
        states: JobRecords,
        on_put: Callable[[JobState, int, int], None] = lambda *_: None,
    ) -> None:
        """`on_put` is called with the record of each job that was put into the queue, its level, and its sequence."""
        self._bus = bus
        self._publisher = publisher
        self._states = states
        self._shares = Shares(bus, publisher.leaders)
        self._on_put = on_put

    async def put(self, job: Job, headers: Mapping[str, str], trace_id: str) -> JobState:
        """Records `job` as queued and puts it into the queue; gives its record.

        A job that has a record already is not recorded again, and while it is queued it is put under the same message
        id, which stores it at most once: so a caller may repeat what it is not sure of. Raises KeyReused where the
        record is of another request. Raises QueueFull, BrokerUnavailable, TooLarge: then there is no such job, unless
        it had a record before. Where the queue has it all the same, since it was stored and that was not confirmed, no
        worker runs it: it has no record.
        """
        with self._shares.entry(job.owner or job.tail) as entry:
            state, level = await self._put(job, headers, trace_id, entry)
        if level is None:
            return state
        notify(self._bus)
        self._on_put(state, level, entry.sequence or 0)
        return state

    async def _put(
        self, job: Job, headers: Mapping[str, str], trace_id: str, entry: Entry
    ) -> tuple[JobState, int | None]:
        """The job's record, and the level on which it waits, where it was put into the queue."""
        state, revision = record_of(job, trace_id, time.time()), 0
        try:
            # At the same time: a chat waits for neither longer than it has to.
            making = asyncio.create_task(self._states.create(state))
            counting = asyncio.create_task(entry.before())
            await asyncio.gather(making, counting, return_exceptions=True)  # hears both: NATS may have gone for both
            revision = making.result()
            before, held = counting.result()
            if not revision:
                state = await self._earlier(job)
                job = replace(job, created=state.created, owner=state.owner or job.owner)
                if state.status is not JobStatus.QUEUED or await self._is_there(job):
                    return state, None
            level = bisect.bisect(TURNS, before)
            try:
                entry.sequence = await self._store(replace(job, revision=revision), level, headers)
            except QueueFull as error:
                raise QueueFull(f"the queue holds {held} jobs and takes no more", error.retry_after, held) from None
        except TidegateError:
            # Where there was a record before it belongs to an earlier call, whose job may be in the queue.
            if revision and await self._is_begun(job.job_id, revision):
                return await self._states.get(job.job_id), None
            raise
        return state, level

    async def _earlier(self, job: Job) -> JobState:
        """The record that the job has already, which is that of the same request."""
        try:
            state = await self._states.get(job.job_id)
        except Unreadable:
            raise KeyReused("another key: what was asked for under this one can't be read") from None
        except NotFound:
            raise BrokerUnavailable("the job's record was removed meanwhile: send it again") from None
        if state.request and job.request and state.request != job.request:
            raise KeyReused("another key, or the same request as the first time")
        return state

    async def _store(self, job: Job, level: int, headers: Mapping[str, str]) -> int:
        subject = self._bus.subjects.job(job.kind, level, job.owner or job.tail)
        # Of this record alone: the stream may know the message of another, which was refused and is not to be run.
        message_id = f"{job.job_id}:{job.created}"
        payload = msgspec.json.encode(job)
        return (await self._publisher.store(subject, payload, dict(headers), message_id, DEAD_JOB_BYTES)).seq

    async def _is_there(self, job: Job) -> bool:
        """Whether the queue has it and would store it once more all the same."""
        return time.time() - job.created > STORED_ONCE_SECONDS and await holds(self._bus, job)

    async def _is_begun(self, job_id: str, revision: int) -> bool:
        """Forgets a job that was not confirmed, unless a worker has it already."""
        try:
            return not await self._states.forget(job_id, revision)
        except BrokerUnavailable:
            return False


def notify(bus: Bus) -> None:
    """Tells the workers that there is a job."""
    bus.client.publish_direct(bus.subjects.job_notices, b"")
