"""A job's record as the worker changes it. Compare-and-set decides who has the job, and who ends it."""

from __future__ import annotations

import time
from collections.abc import Callable

from msgspec.structs import replace

from tidegate_common.bus.jobs.enqueue import record_of
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.contract.jobs import Job, JobState, JobStatus, Usage
from tidegate_common.errors import NotFound, Superseded, Unreadable


class Records:
    """All of its calls raise BrokerUnavailable."""

    def __init__(self, states: JobRecords) -> None:
        self._states = states

    async def get(self, job_id: str) -> JobState | None:
        """None where there is no such record (any more)."""
        try:
            return await self._states.get(job_id)
        except NotFound:
            return None

    async def begin(self, job: Job, trace_id: str, holder: str = "", dead: str = "") -> JobState | None:
        """Gives the job to a new attempt, whose number is the record's then; leaves it as it is where it has ended, and
        where a holder has it that is not known to be `dead`.

        A dead one counts as a failure. Called again for the same `holder`, because the first call's answer was lost, it
        changes nothing. None where the job is not to be run: its record was removed, since its asker was told that
        there is no such job, or is that of a repeat. A record that was lost otherwise is made anew. Raises Unreadable
        for one that is there and can't be read: whether the job has run already is not known.
        """

        def edit(state: JobState) -> JobState | None:
            running = state.status is JobStatus.RUNNING
            of_another = state.created != job.created or (running and state.holder not in ("", dead))
            if state.status.final or of_another:
                return None
            attempt, failures = state.attempt + 1, state.failures + running
            return replace(state, status=JobStatus.RUNNING, attempt=attempt, holder=holder, failures=failures)

        new = record_of(job, trace_id, time.time())
        known = (new, job.revision) if job.revision else None
        while True:
            try:
                state = await self._states.change(job.job_id, edit, known)
                return state if state.status.final or state.created == job.created else None
            except Unreadable:
                raise
            except NotFound:
                if not await self._states.may_have_lost(job.created):
                    return None
                known = None
                await self._states.create(new)

    async def requeue(self, job_id: str, attempt: int, pieces: int, usage: Usage) -> bool:
        """Queued again after `pieces` events, unless a later attempt has begun. Gives whether it is."""

        def edit(state: JobState) -> JobState | None:
            if state.status.final or state.attempt != attempt:
                return None
            return replace(state, status=JobStatus.QUEUED, pieces=pieces, usage=usage)

        state = await self._change(job_id, edit)
        return state is not None and state.status is JobStatus.QUEUED

    async def end(self, job_id: str, attempt: int, change: Callable[[JobState], JobState]) -> JobState:
        """Ends the record as `change` has it, once: an end that is there already stays.

        Raises Superseded where a later attempt has the job, or the record is gone.
        """

        def edit(state: JobState) -> JobState | None:
            return None if state.status.final or state.attempt != attempt else change(state)

        state = await self._change(job_id, edit)
        if state is None or not state.status.final:
            raise Superseded("another attempt has begun since")
        return state

    async def refuse(self, job_id: str, error: str) -> JobState | None:
        """Ends the record of a job that can't be read; one that was begun, or has ended, stays. None without a record.

        What was begun was read: it is another message that names it.
        """

        def edit(state: JobState) -> JobState | None:
            untried = state.status is JobStatus.QUEUED and not state.attempt
            return replace(state, status=JobStatus.FAILED, error=error) if untried else None

        return await self._change(job_id, edit)

    async def ended(self, job_id: str, event_id: str) -> None:
        """The job's last event is stored, under `event_id`."""
        await self._change(job_id, lambda state: None if state.end else replace(state, end=event_id))

    async def _change(self, job_id: str, edit: Callable[[JobState], JobState | None]) -> JobState | None:
        try:
            return await self._states.change(job_id, edit)
        except NotFound:
            return None
