"""How the job queue stands: what its stream holds, and how far the consumers of its levels have come."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.jobs.priority import LEVELS
from tidegate_common.bus.requests.jetstream import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND, JetStreamError
from tidegate_common.contract.jobs import Job
from tidegate_common.contract.text import UNREADABLE
from tidegate_common.errors import NotSent

STATE_SECONDS = 2.0
"""How long the queue's leader has to tell how it stands. If there is none, nobody answers."""


def consumer_of(level: int) -> str:
    """Name of the durable consumer of a level, which all workers share."""
    return f"workers-{level}"


class StreamState(msgspec.Struct):
    """The queue's messages, the last one's sequence, and how many there are on each of the subjects asked for."""

    messages: int = 0
    last_seq: int = 0
    subjects: dict[str, int] = {}


class _Named(msgspec.Struct):
    job_id: str = ""
    created: float = 0


_NAMED = msgspec.json.Decoder(_Named)


class QueueState(NamedTuple):
    """How the queue stands, by level."""

    waiting: tuple[int, ...]
    """Jobs that no worker has been given yet."""
    given: tuple[int, ...]
    """How often a job was given to a worker since the queue was made."""
    reached: tuple[int, ...]
    """All jobs of the level up to this sequence were given to a worker."""


async def stream_state(bus: Bus, subjects: str) -> StreamState:
    """What the queue holds, those in work too. Raises BrokerUnavailable."""
    stream = bus.subjects.jobs_stream
    try:
        info = await bus.api.call(f"STREAM.INFO.{stream}", {"subjects_filter": subjects}, STATE_SECONDS)
    except JetStreamError as error:
        if error.code == STREAM_NOT_FOUND:
            raise NotSent("the job queue does not exist") from error
        raise
    return msgspec.convert(info["state"], StreamState)


async def is_in_queue(bus: Bus, job: Job) -> bool:
    """Whether the queue holds this job, in work or not. Raises BrokerUnavailable.

    It reads all jobs of the owner, one by one: a subject names the owner, and no job.
    """
    sequence, subjects = 1, bus.subjects.jobs(owner=job.owner or job.tail)
    stream = bus.subjects.jobs_stream
    while (found := await bus.api.message(stream, seq=sequence, next_by_subj=subjects)) is not None:
        if _named(found.payload) == _Named(job.job_id, job.created):
            return True
        sequence = found.sequence + 1
    return False


async def strays(bus: Bus) -> int:
    """How many messages are in the queue on subjects that no worker of this release takes jobs from.

    They are somebody else's, or another release's. Raises BrokerUnavailable.
    """
    state = await stream_state(bus, ">")
    levels = [[str(level)] for level in LEVELS]
    # tg.jobs.<kind>.<level>.<owner>
    return sum(number for subject, number in state.subjects.items() if subject.split(".")[3:4] not in levels)


def _named(message: bytes) -> _Named | None:
    """None for a message that is no job."""
    try:
        return _NAMED.decode(message)
    except UNREADABLE:
        return None


async def consumer_info(bus: Bus, level: int) -> dict[str, Any] | None:
    """How the consumer of `level` stands, in JetStream's words; None if there is none. Raises BrokerUnavailable."""
    try:
        return await bus.api.call(f"CONSUMER.INFO.{bus.subjects.jobs_stream}.{consumer_of(level)}")
    except JetStreamError as error:
        if error.code in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
            return None
        raise


async def queue_state(bus: Bus) -> QueueState:
    """How the queue stands. Before the first worker has come, all jobs wait. Raises BrokerUnavailable."""
    levels = []
    for level in LEVELS:
        info = await consumer_info(bus, level)
        if info is None:
            levels.append((sum((await stream_state(bus, bus.subjects.jobs(level))).subjects.values()), 0, 0))
        else:
            given = info["delivered"]
            levels.append((info["num_pending"], given["consumer_seq"], given["stream_seq"]))
    return QueueState(*zip(*levels, strict=True))
