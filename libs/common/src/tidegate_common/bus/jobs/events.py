"""Reads a job's events back from the stream."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tidegate_common.bus.events.history import History, Position, Stored
from tidegate_common.bus.wire import headers
from tidegate_common.contract.answers import Answer, AnswerBuilder
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.jobs import JobState
from tidegate_common.errors import NotFound


def belongs(header: bytes, job_id: bytes) -> bool:
    """Whether an event with this header block is the job's."""
    return headers.field(header, headers.JOB) == job_id


async def job_events(history: History, job_id: str, tail: str, after: int, upto: int) -> AsyncIterator[Stored]:
    """The job's events with sequences over `after` up to `upto`, in order. Raises BrokerUnavailable."""
    wanted = job_id.encode()
    async for stored in history.after(tail, after, upto):
        if belongs(stored.header, wanted):
            yield stored


def end_place(state: JobState, position: Position) -> int:
    """The sequence of the last event of a job that has ended; 0 for one that has not, as far as its record says.

    `position` is of after the record was read. Raises NotFound if that event has left the stream, and so all of the
    job: whoever waited for it would wait for ever.
    """
    if EventId.parse(state.end) is None:
        return 0
    place = _place(state.end, position)
    if place is None or place < position.first:
        raise NotFound(f"the events of job {state.job_id} are not kept any more")
    return place


async def read_answer(history: History, job_id: str, tail: str, start: str, end: str = "") -> Answer:
    """What the stream keeps of a job's answer by now; `start` and `end` as its record has them.

    If the job has ended, nothing after its end is read, which may be much on a busy topic. Raises BrokerUnavailable.
    """
    position = await history.position()
    after = _place(start, position)
    if after is None:
        return Answer(whole=False)
    upto = _place(end, position)
    found = AnswerBuilder()
    async for stored in job_events(history, job_id, tail, after, position.last if upto is None else upto):
        found.take((headers.field(stored.header, headers.EVENT_TYPE) or b"").decode(errors="replace"), stored.payload)
    return found.answer()


async def find_end(history: History, job_id: str, tail: str, start: str) -> str:
    """Event id of the job's last event, if the stream has it; empty otherwise. Raises BrokerUnavailable."""
    position = await history.position()
    after = _place(start, position)
    if after is None:
        return ""
    async for stored in job_events(history, job_id, tail, after, position.last):
        if headers.field(stored.header, headers.JOB_END) is not None:
            return str(EventId(position.epoch, stored.sequence))
    return ""


def _place(event_id: str, position: Position) -> int | None:
    """The sequence of an id that a record has; None if it has none, or one of a life of the stream that is over."""
    parsed = EventId.parse(event_id)
    return None if parsed is None else position.place(parsed)
