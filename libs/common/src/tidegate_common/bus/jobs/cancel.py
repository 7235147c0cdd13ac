"""The cancel of a job: a job that waits is ended at once, one that a worker has is ended by that worker.

Compare-and-set on the record decides between a cancel and a worker that begins the job in the same moment. The wish
reaches the worker on two ways: the announcement is quick and may be lost; the record keeps it, and a worker looks there
every few seconds, and when it takes the job.
"""

from __future__ import annotations

from collections.abc import Callable

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.budgets import Budgets
from tidegate_common.bus.jobs.finish import JobEnds, cancelled
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.contract.jobs import JobState, JobStatus
from tidegate_common.errors import BrokerUnavailable


class Cancellation:
    """Asks for the ends of jobs that nobody wants any more."""

    def __init__(self, bus: Bus, records: JobRecords, publisher: EventPublisher, history: History) -> None:
        self._bus = bus
        self._ends = JobEnds(records, history, publisher, Budgets(bus, records, publisher.leaders))

    async def cancel(self, job_id: str) -> JobState:
        """Asks for the job's end, however often; a job that has ended stays as it is.

        Raises NotFound, BrokerUnavailable: then a repeat does what is still to be done.
        """
        state, here = await self._ends.record(job_id, cancelled)
        if not state.status.final:
            await announce_cancel(self._bus, job_id)
        elif state.status is JobStatus.CANCELLED and state.tail:
            # Every other end is for the worker to complete that still has the job's message.
            state = await self._ends.complete(state, look=not here)
        return state


async def announce_cancel(bus: Bus, job_id: str) -> None:
    """Tells the worker that may have the job in hand. Raises BrokerUnavailable."""
    if not bus.connected:
        raise BrokerUnavailable("NATS is away")
    await bus.client.publish(bus.subjects.cancel(job_id), b"")


def on_cancel(bus: Bus, called: Callable[[str], None]) -> Callable[[], None]:
    """Calls `called` with a job's id each time its cancel is announced, until the function returned is called."""
    prefix = len(bus.subjects.cancel(""))

    def receive(subject: bytes, _: bytes, __: bytes) -> None:
        called(subject.decode(errors="replace")[prefix:])

    sid = bus.client.subscribe_direct(bus.subjects.cancel("*"), receive)
    return lambda: bus.client.unsubscribe_direct(sid)
