"""A job's record as the worker changes it. A record that is missing hinders nothing: the answer matters more."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from tidegate_common.bus.jobs import JobStates
from tidegate_common.contract.jobs import JobState, JobStatus, Usage
from tidegate_common.errors import NotFound


class Records:
    """All of its calls raise BrokerUnavailable, and give None where there is no such record."""

    def __init__(self, states: JobStates) -> None:
        self._states = states

    async def get(self, job_id: str) -> JobState | None:
        try:
            return await self._states.get(job_id)
        except NotFound:
            return None

    async def begin(self, job_id: str, attempt: int) -> JobState | None:
        """Running, in attempt `attempt`; left as it is where the job has ended or is to be cancelled."""

        def edit(state: JobState) -> JobState | None:
            if state.status.final or state.cancel:
                return None
            return replace(state, status=JobStatus.RUNNING, attempt=attempt)

        return await self._change(job_id, edit)

    async def requeue(self, job_id: str, attempt: int) -> JobState | None:
        """Queued again, unless a later attempt has begun."""

        def edit(state: JobState) -> JobState | None:
            return None if state.status.final or state.attempt > attempt else replace(state, status=JobStatus.QUEUED)

        return await self._change(job_id, edit)

    async def end(
        self, job_id: str, status: JobStatus, reason: str | None, usage: Usage, error: str | None
    ) -> JobState | None:
        """Ended as `status`; an end that is there already stays."""

        def edit(state: JobState) -> JobState | None:
            if state.status.final:
                return None
            return replace(state, status=status, finish_reason=reason, usage=usage, error=error)

        return await self._change(job_id, edit)

    async def _change(self, job_id: str, edit: Callable[[JobState], JobState | None]) -> JobState | None:
        try:
            return await self._states.change(job_id, edit)
        except NotFound:
            return None
