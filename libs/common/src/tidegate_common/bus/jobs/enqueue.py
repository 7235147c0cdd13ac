"""Puts jobs into the queue: each with a record, on its level, and stored once however often it is sent.

The record is made before the job is queued, and a worker runs no job without a record. So a job of which its asker was
told that there is none is never run, though the queue may have stored it: its record is removed before that is said.
(Unless NATS has gone before that as well.)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec
from msgspec.structs import replace

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.priority import JobsInQueue, NewJob, OwnerCounts, level_of
from tidegate_common.bus.jobs.queue_info import is_in_queue, stream_state
from tidegate_common.bus.jobs.records import JobRecords, record_of
from tidegate_common.contract.jobs import Job, JobState, JobStatus
from tidegate_common.errors import BrokerUnavailable, KeyReused, Limited, NotFound, QueueFull, TidegateError, Unreadable

DEAD_JOB_BYTES = 4096
"""Left free in a job's message: if it fails, it is kept together with what is said of that."""

MAX_PER_OWNER = 1_000
"""Jobs that the queue holds of one owner, those in work too."""

JOBS_QUEUED = "jobs_queued"
"""That limit's name."""

QUEUED_SECONDS = 5
"""After so long a few of them may have been done."""

STORED_ONCE_SECONDS = 100
"""Within this time the stream takes a repeated job for the one that it has. (Its window is of 120 seconds.)"""


class QueueWriter:
    """Puts jobs into the queue on one connection."""

    def __init__(
        self,
        bus: Bus,
        publisher: EventPublisher,
        records: JobRecords,
        on_put: Callable[[JobState, int, int], None] = lambda *_: None,
        most: int = MAX_PER_OWNER,
    ) -> None:
        """`on_put` is called with the record of each job that was put into the queue, its level, and its sequence.
        `most` is how many jobs of one owner the queue takes."""
        self._bus = bus
        self._publisher = publisher
        self._records = records
        self._counts = OwnerCounts(self._count)
        self._on_put = on_put
        self._most = most

    async def has_record(self, job_id: str) -> bool:
        """Whether there is such a job. Raises BrokerUnavailable."""
        try:
            await self._records.get(job_id)
        except NotFound:
            return False
        return True

    async def put(self, job: Job, headers: Mapping[str, str], trace_id: str, *, again: bool = False) -> JobState:
        """Records `job` as queued and puts it into the queue; gives its record.

        A caller may repeat what it is not sure of. A job that has a record already is not recorded again, and while it
        is queued it is sent under the same message id, which stores it at most once. With `again`, it has to have one.

        Raises KeyReused if the record is of another request. Raises Limited, QueueFull, BrokerUnavailable, TooLarge:
        then there is no such job, unless it had a record before.
        """
        with self._counts.entry(job.owner or job.tail) as entry:
            state, level = await self._put(job, headers, trace_id, entry, again)
        if level is None:
            return state
        notify(self._bus)
        self._on_put(state, level, entry.sequence or 0)
        return state

    async def _put(
        self, job: Job, headers: Mapping[str, str], trace_id: str, entry: NewJob, again: bool
    ) -> tuple[JobState, int | None]:
        """The job's record, and the level on which it waits if it was put into the queue here."""
        state, revision = record_of(job, trace_id, time.time()), 0
        try:
            # At the same time: each is a round trip to NATS, and a chat's first token waits for them.
            making = asyncio.create_task(_none() if again else self._records.create(state))
            counting = asyncio.create_task(entry.before())
            # Waits for both, whatever becomes of one: if NATS goes, both fail, and the second error would be unheard.
            await asyncio.gather(making, counting, return_exceptions=True)
            revision = making.result()
            count = counting.result()
            if not revision:  # an earlier call has made the record, under the same key or for the same request
                state = await self._earlier(job)
                # As of that call: the time is a part of the message id, and the owner of the subject.
                job = replace(job, created=state.created, owner=state.owner or job.owner)
                if state.status is not JobStatus.QUEUED or await self._is_there(job):
                    return state, None
            if count.of_owner >= self._most:
                text = f"{count.of_owner} of your jobs are in the queue, and {self._most} is the limit"
                raise Limited(JOBS_QUEUED, text, QUEUED_SECONDS)
            level = level_of(count.of_owner)
            entry.sending = asyncio.create_task(self._store(replace(job, revision=revision), level, headers, count))
            entry.sequence = await entry.sending
        except TidegateError:
            # The record goes only if this call has made it: else an earlier call's job may be in the queue. And it
            # stays if a worker has changed it: then this job was stored, though that was not confirmed.
            if revision and await self._is_begun(job.job_id, revision):
                return await self._records.get(job.job_id), None
            raise
        return state, level

    async def _earlier(self, job: Job) -> JobState:
        """The record that the job has already, which is that of the same request."""
        try:
            state = await self._records.get(job.job_id)
        except Unreadable:
            raise KeyReused("another key: what was asked for under this one can't be read") from None
        except NotFound:
            raise BrokerUnavailable("the job's record was removed meanwhile: send it again") from None
        if state.request and job.request and state.request != job.request:
            raise KeyReused("another key, or the same request as the first time")
        return state

    async def _store(self, job: Job, level: int, headers: Mapping[str, str], count: JobsInQueue) -> int:
        """Gives the job's sequence in the queue."""
        subject = self._bus.subjects.job(job.kind, level, job.owner or job.tail)
        # The time tells this record's job from another under the same id that was refused, and has no record. The
        # stream may have that one, and it must not be taken for this.
        message_id = f"{job.job_id}:{job.created}"
        payload = msgspec.json.encode(job)
        try:
            return (await self._publisher.store(subject, payload, dict(headers), message_id, DEAD_JOB_BYTES)).seq
        except QueueFull as error:
            text = f"the queue holds {count.of_all} jobs and takes no more"
            raise QueueFull(text, error.retry_after, count.of_all) from None

    async def _count(self, owner: str) -> JobsInQueue:
        subjects = self._bus.subjects

        async def ask() -> JobsInQueue:
            state = await stream_state(self._bus, subjects.jobs(owner=owner))
            return JobsInQueue(sum(state.subjects.values()), state.messages, state.last_seq)

        return await self._publisher.leaders.outlast(subjects.jobs_stream, ask, repeatable=True)

    async def _is_there(self, job: Job) -> bool:
        """Whether the queue has it and would store it once more all the same, since its window has passed."""
        return time.time() - job.created > STORED_ONCE_SECONDS and await is_in_queue(self._bus, job)

    async def _is_begun(self, job_id: str, revision: int) -> bool:
        """Forgets a job that was not confirmed, unless a worker has it already."""
        try:
            return not await self._records.forget(job_id, revision)
        except BrokerUnavailable:
            return False


def notify(bus: Bus) -> None:
    """Tells the workers that there is a job."""
    bus.client.publish_direct(bus.subjects.job_notices, b"")


async def _none() -> int:
    """The revision of a record that this call does not make."""
    return 0
