"""How a job ends: its record, what is kept of a failure, its last event, and only then its place in the queue."""

from __future__ import annotations

import time

from msgspec.structs import replace

from ai_worker.errors import RETRIABLE, JobError
from ai_worker.records import Records
from ai_worker.relay import Relay
from tidegate_common.bus.events.history import History
from tidegate_common.bus.jobs.dead import DeadJobs
from tidegate_common.bus.jobs.events import find_end
from tidegate_common.contract.answers import last_event
from tidegate_common.contract.jobs import DeadJob, Job, JobState, JobStatus, Usage
from tidegate_common.contract.text import mended

WORD_CHARACTERS = 200
"""Of a finish reason and of a model's name, which are the backend's words."""

ERROR_CHARACTERS = 2_000


class Conclusion:
    """Ends jobs. The record comes first: of two that would end a job, compare-and-set lets one.

    All raise BrokerUnavailable; what was not done by then is done by whoever gets the job next, with `settle`.
    """

    def __init__(self, records: Records, dead: DeadJobs, history: History) -> None:
        self._records = records
        self._dead = dead
        self._history = history

    async def done(
        self, job: Job, attempt: int, relay: Relay, status: JobStatus, reason: str, usage: Usage, model: str
    ) -> None:
        """`done` or `cancelled`, for `reason`. Raises Superseded."""
        pieces = relay.index
        reason, model = mended(reason)[:WORD_CHARACTERS], mended(model)[:WORD_CHARACTERS]

        def change(state: JobState) -> JobState:
            return replace(state, status=status, finish_reason=reason, usage=usage, model=model, pieces=pieces)

        await self._end(job, await self._records.end(job.job_id, attempt, change), relay)

    async def failed(self, job: Job, attempt: int, relay: Relay, error: JobError, usage: Usage) -> None:
        """Failed with `error`. Raises Superseded."""
        pieces = relay.index
        text = mended(f"{error.code}: {error}")[:ERROR_CHARACTERS]

        def change(state: JobState) -> JobState:
            return replace(state, status=JobStatus.FAILED, error=text, usage=usage, pieces=pieces)

        await self._end(job, await self._records.end(job.job_id, attempt, change), relay)

    async def settle(self, job: Job, state: JobState, relay: Relay) -> None:
        """A job that has ended, whose last event may be missing: who ended it died before it was stored."""
        if not state.end:
            found = await find_end(self._history, job.job_id, job.tail, job.start)
            if found:
                await self._records.ended(job.job_id, found)
            else:
                await self._end(job, state, relay)

    async def _end(self, job: Job, state: JobState, relay: Relay) -> None:
        if state.status is JobStatus.FAILED and _code(state) in RETRIABLE:
            dead = DeadJob(
                job=job,
                error=state.error or "",
                attempts=state.attempt,
                failed=state.updated or time.time(),
                trace_id=state.trace_id,
            )
            await self._dead.keep(dead)
        await self._records.ended(job.job_id, await relay.last(*last_event(state)))


def _code(state: JobState) -> str:
    return (state.error or "").partition(": ")[0]
