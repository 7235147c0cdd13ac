"""Ends jobs that nobody wants any more."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.jobs import JobStates, announce_cancel
from tidegate_common.bus.publishing import Publisher
from tidegate_common.contract.answers import RESPONSE, AiDone
from tidegate_common.contract.events import JOB, JOB_END, Event
from tidegate_common.contract.jobs import JobState, JobStatus, Usage
from tidegate_common.telemetry import propagation

CANCELLED = "cancelled"


class Cancelling:
    """A job that waits is ended here, at once; one that a worker has is ended by that worker."""

    def __init__(self, bus: Bus, states: JobStates, publisher: Publisher) -> None:
        self._bus = bus
        self._states = states
        self._publisher = publisher

    async def cancel(self, job_id: str) -> JobState:
        """Asks for the job's end, however often; a job that has ended stays as it is.

        Compare-and-set decides between this and a worker that begins the job at that moment. The record keeps the wish
        for a worker that takes the job later, the announcement reaches one that has it now. Raises NotFound,
        BrokerUnavailable: then a repeat does what is still to be done.
        """

        def wish(state: JobState) -> JobState | None:
            if state.status is JobStatus.QUEUED:
                return replace(
                    state,
                    status=JobStatus.CANCELLED,
                    cancel=True,
                    finish_reason=CANCELLED,
                    usage=state.usage or Usage(),
                )
            return None if state.status.final or state.cancel else replace(state, cancel=True)

        state = await self._states.change(job_id, wish)
        if not state.status.final:
            await announce_cancel(self._bus, job_id)
        elif state.status is JobStatus.CANCELLED and not state.end and state.tail:
            state = await self._say_so(state)
        return state

    async def _say_so(self, state: JobState) -> JobState:
        """Writes the job's last event. Its message id keeps it from being there twice: a worker may write it, too."""
        data = AiDone(job_id=state.job_id, index=state.pieces, finish_reason=CANCELLED, usage=state.usage or Usage())
        headers = {JOB: state.job_id, JOB_END: "1"}
        propagation.inject(headers)
        event = Event(RESPONSE, msgspec.json.encode(data).decode())
        written = await self._publisher.durable(state.tail, event, headers=headers, message_id=f"{state.job_id}:end")
        return await self._states.change(
            state.job_id, lambda found: None if found.end else replace(found, end=written.id)
        )
