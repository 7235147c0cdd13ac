"""How a job ends: the one place where that is written, for a worker, for a message that is no job, and for a cancel.

The order of the steps is the promise that a job has one end, and that its asker hears of it:

1. **The record**, by compare-and-set (`JobEnds.record`). Of two that would end a job in the same moment one is stored,
   and the other finds the job ended. What may end a job when is the rule of the three functions below.
2. **What is kept of a failure**, by a worker alone. It comes before the event: if you hear that a job has failed, you
   find it among the dead.
3. **The last event**, made of the record alone. So it is the same, and has the same message id, whoever writes it.
4. **The budget**, if the job has one: what it has used takes the place of what was reserved. A repeat counts nothing.
5. **The event's id, in the record.** From now on nothing of the end is missing.
6. **The acknowledgement**, by whoever has the job's message in hand. Only a job whose end is whole leaves the queue.

A process may die after each of them. Then the job's message comes again, or its asker cancels it again, and whoever
gets it does steps 2 to 5 once more (`JobEnds.complete`). It looks for the last event in the stream first, since the
stream remembers a message id for two minutes only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
from msgspec.structs import replace
from opentelemetry.context import Context

from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import Durable, EventPublisher
from tidegate_common.bus.jobs.budgets import Budgets
from tidegate_common.bus.jobs.events import find_end
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.contract.answers import ERROR, RESPONSE, AiDone, AiError
from tidegate_common.contract.events import JOB, JOB_END, Event
from tidegate_common.contract.jobs import JobState, JobStatus, Usage
from tidegate_common.errors import NotFound
from tidegate_common.telemetry import propagation

CANCELLED = "cancelled"
"""The finish reason of a job that was."""

Store = Callable[[Durable], Awaitable[str]]
"""Stores an event, and gives its id."""


class End(NamedTuple):
    """How an attempt has ended its job: the record's fields."""

    status: JobStatus
    pieces: int
    usage: Usage
    finish_reason: str | None = None
    model: str = ""
    error: str | None = None


def ended(state: JobState, attempt: int, end: End) -> JobState | None:
    """By the attempt of that number, if it is the last one: an attempt that was overtaken ends nothing any more."""
    if state.status.final or state.attempt != attempt:
        return None
    return replace(state, **end._asdict())


def cancelled(state: JobState) -> JobState | None:
    """By a cancel, while the job waits: nobody else has it then. Of a running one the record keeps the wish, for the
    worker that has it or gets it next; only that worker knows what was shown."""
    if state.status is JobStatus.QUEUED:
        usage = state.usage or Usage()
        return replace(state, status=JobStatus.CANCELLED, cancel=True, finish_reason=CANCELLED, usage=usage)
    return None if state.status.final or state.cancel else replace(state, cancel=True)


def refused(state: JobState, error: str) -> JobState | None:
    """By a message that can't be read, while no worker has begun the job. What was begun was read: then it is another
    message that names it."""
    untried = state.status is JobStatus.QUEUED and not state.attempt
    return replace(state, status=JobStatus.FAILED, error=error) if untried else None


def last_event(state: JobState, trace: Context | None = None) -> Durable:
    """The last event of a job that has ended. It carries `trace`, or else the current one."""
    event_type, data = _data(state)
    headers = {JOB: state.job_id, JOB_END: "1"}
    propagation.inject(headers, trace)
    event = Event(event_type, msgspec.json.encode(data).decode())
    return Durable(state.tail, event, f"{state.job_id}:end", headers=headers)


def _data(state: JobState) -> tuple[str, AiDone | AiError]:
    if state.status is JobStatus.FAILED:
        code, _, message = (state.error or "").partition(": ")
        return ERROR, AiError(job_id=state.job_id, code=code or "internal_error", message=message)
    return RESPONSE, AiDone(
        job_id=state.job_id,
        index=state.pieces,
        finish_reason=state.finish_reason or "stop",
        usage=state.usage or Usage(),
        model=state.model,
    )


class JobEnds:
    """Writes ends. All calls raise BrokerUnavailable: then a repeat does what is still to be done."""

    def __init__(self, records: JobRecords, history: History, publisher: EventPublisher, budgets: Budgets) -> None:
        self._records = records
        self._budgets = budgets
        self._history = history
        self._publisher = publisher

    async def record(self, job_id: str, edit: Callable[[JobState], JobState | None]) -> tuple[JobState, bool]:
        """Changes the record as `edit` says. Gives how it stands then, and whether this call has ended the job.

        Raises NotFound.
        """
        here = False

        def noting(state: JobState) -> JobState | None:
            nonlocal here
            edited = edit(state)
            here = edited is not None and edited.status.final
            return edited

        return await self._records.change(job_id, noting), here

    async def complete(
        self,
        state: JobState,
        *,
        look: bool,
        store: Store | None = None,
        trace: Context | None = None,
        keep: Callable[[JobState], Awaitable[None]] | None = None,
    ) -> JobState:
        """Does what the end of a job lacks that has ended as `state` says; gives the record as it stands then.

        `look` for the last event first, unless this very call is the first that can write it. `store` stores an event
        (a worker does that under its fence, and raises Superseded); `keep` keeps a failure among the dead.
        """
        if state.end:
            return state
        event_id = await find_end(self._history, state.job_id, state.tail, state.start) if look else ""
        if not event_id:
            if keep is not None:
                await keep(state)
            event_id = await (store or self._store)(last_event(state, trace))
        await self._budgets.settle(state)
        try:
            return await self._records.change(
                state.job_id, lambda found: None if found.end else replace(found, end=event_id)
            )
        except NotFound:  # it was there for as long as anybody was to read it, or never
            return replace(state, end=event_id)

    async def _store(self, last: Durable) -> str:
        receipt = await self._publisher.durable(
            last.tail, last.event, headers=last.headers or {}, message_id=last.message_id
        )
        return receipt.id
