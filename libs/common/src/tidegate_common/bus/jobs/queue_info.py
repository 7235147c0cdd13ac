"""How the job queue stands: what its stream holds, and how far the consumers of its levels have come."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from nats import errors as nats_errors
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.jobs.priority import LEVELS
from tidegate_common.bus.requests.messages import message
from tidegate_common.contract.jobs import Job
from tidegate_common.contract.text import UNREADABLE
from tidegate_common.errors import BrokerUnavailable, NotSent

STATE_SECONDS = 2.0
"""How long the queue's leader has to tell how it stands: where there is none, nobody answers."""

ANSWER_SECONDS = 5.0
"""How long NATS has for an answer."""


def consumer_of(level: int) -> str:
    """Name of the durable consumer of a level, which all workers share."""
    return f"workers-{level}"


class StreamState(msgspec.Struct):
    """The queue's messages, the last one's sequence, and how many there are on each of the subjects asked for."""

    messages: int = 0
    last_seq: int = 0
    subjects: dict[str, int] = {}


class _Info(msgspec.Struct):
    state: StreamState | None = None


class _Named(msgspec.Struct):
    job_id: str = ""
    created: float = 0


_INFO = msgspec.json.Decoder(_Info)
_NAMED = msgspec.json.Decoder(_Named)


class QueueState(NamedTuple):
    """By level: the jobs that no worker has been given yet, and how many were given since the queue was made."""

    waiting: tuple[int, ...]
    given: tuple[int, ...]
    reached: tuple[int, ...]
    """All jobs of the level up to this sequence were given to a worker."""


async def stream_state(bus: Bus, subjects: str) -> StreamState:
    """What the queue holds, those in work too. Raises BrokerUnavailable."""
    ask = msgspec.json.encode({"subjects_filter": subjects})
    try:
        if not bus.connected:
            raise NotSent("NATS is away")
        call = f"$JS.API.STREAM.INFO.{bus.subjects.jobs_stream}"
        state = _INFO.decode((await bus.client.request(call, ask, timeout=STATE_SECONDS)).data).state
    except (nats_errors.Error, TimeoutError) as error:
        raise BrokerUnavailable("NATS does not answer for the job queue") from error
    if state is None:
        raise NotSent("the job queue does not exist, or has no leader")
    return state


async def holds(bus: Bus, job: Job) -> bool:
    """Whether the queue holds this job, in work or not; reads all of its owner's. Raises BrokerUnavailable."""
    sequence, subjects = 1, bus.subjects.jobs(owner=job.owner or job.tail)
    while (found := await message(bus, bus.subjects.jobs_stream, sequence, subjects)) is not None:
        if _named(found.payload) == _Named(job.job_id, job.created):
            return True
        sequence = found.sequence + 1
    return False


async def strays(bus: Bus) -> int:
    """How many messages are in the queue on subjects that no worker of this release takes jobs from.

    They are somebody else's, or another release's. Raises BrokerUnavailable.
    """
    state = await stream_state(bus, ">")
    levels = {str(level) for level in LEVELS}
    place = len(bus.subjects.jobs().split(".")) - 2
    return sum(number for subject, number in state.subjects.items() if _token(subject, place) not in levels)


def _token(subject: str, place: int) -> str:
    """Empty where the subject has none there."""
    return (subject.split(".")[place : place + 1] or [""])[0]


def _named(message: bytes) -> _Named | None:
    """None for a message that is no job."""
    try:
        return _NAMED.decode(message)
    except UNREADABLE:
        return None


async def queue_state(bus: Bus) -> QueueState:
    """How the queue stands. Before the first worker has come, all jobs wait. Raises BrokerUnavailable."""
    levels = []
    for level in LEVELS:
        try:
            info: Any = await bus.jetstream.consumer_info(bus.subjects.jobs_stream, consumer_of(level))
        except NotFoundError:
            levels.append((sum((await stream_state(bus, bus.subjects.jobs(level))).subjects.values()), 0, 0))
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not say how long the queue is") from error
        else:
            given = info.delivered
            levels.append((int(info.num_pending or 0), given.consumer_seq or 0, given.stream_seq or 0))
    return QueueState(*zip(*levels, strict=True))
