"""Ends jobs that nobody wants any more."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.events import find_end
from tidegate_common.bus.jobs.records import JobRecords, announce_cancel
from tidegate_common.contract.answers import last_event
from tidegate_common.contract.events import JOB, JOB_END, Event
from tidegate_common.contract.jobs import JobState, JobStatus, Usage
from tidegate_common.telemetry import propagation

CANCELLED = "cancelled"


class Cancelling:
    """A job that waits is ended here, at once; one that a worker has is ended by that worker."""

    def __init__(self, bus: Bus, states: JobRecords, publisher: EventPublisher, history: History) -> None:
        self._bus = bus
        self._states = states
        self._publisher = publisher
        self._history = history

    async def cancel(self, job_id: str) -> JobState:
        """Asks for the job's end, however often; a job that has ended stays as it is.

        Compare-and-set decides between this and a worker that begins the job at that moment. The record keeps the wish
        for a worker that takes the job later, the announcement reaches one that has it now. Raises NotFound,
        BrokerUnavailable: then a repeat does what is still to be done.
        """

        ended_here = False

        def wish(state: JobState) -> JobState | None:
            nonlocal ended_here
            ended_here = state.status is JobStatus.QUEUED
            if ended_here:
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
            # Ended by an earlier call, which did not get so far as to note its event: that may be there all the same.
            found = "" if ended_here else await find_end(self._history, job_id, state.tail, state.start)
            state = await self._note(state, found or await self._say_so(state))
        return state

    async def _say_so(self, state: JobState) -> str:
        """Writes the job's last event; gives its id. The message id is the same for a worker that writes it now."""
        event_type, data = last_event(state)
        headers = {JOB: state.job_id, JOB_END: "1"}
        propagation.inject(headers)
        event = Event(event_type, msgspec.json.encode(data).decode())
        return (await self._publisher.durable(state.tail, event, headers=headers, message_id=f"{state.job_id}:end")).id

    async def _note(self, state: JobState, event_id: str) -> JobState:
        return await self._states.change(
            state.job_id, lambda found: None if found.end else replace(found, end=event_id)
        )
