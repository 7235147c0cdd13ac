"""The job queue: fair between those who ask, bounded, and each job kept until its end is certain.

A work queue serves first come first, so that one client's 1,000 jobs would stand before another's one. Here a job waits
on one of a few levels, by how many jobs of its owner are in the queue already, and workers look at the lower levels
first: a client's k-th job waits for others' jobs up to about their 4k-th. So that the highest level moves however
many come on the lower ones, each fourth job is taken from the highest that has one.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from nats import errors as nats_errors
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.jobs import JobStates
from tidegate_common.bus.publishing import Publisher
from tidegate_common.contract.jobs import Job, JobState, JobStatus
from tidegate_common.errors import BrokerUnavailable, QueueFull, TidegateError

TURNS = (2, 8, 32)
"""Jobs of one owner in the queue from which on another waits on the second, third and fourth level."""

LEVELS = range(len(TURNS) + 1)

NO_WAIT_SECONDS = 5.0

STORED_ONCE_SECONDS = 100
"""Within this time the stream takes a repeated job for the one that it has (its window is of 120)."""


def consumer_of(level: int) -> str:
    """Name of the durable consumer of a level, which all workers share."""
    return f"workers-{level}"


class _State(msgspec.Struct):
    messages: int = 0
    subjects: dict[str, int] = {}


class _Info(msgspec.Struct):
    state: _State | None = None


_INFO = msgspec.json.Decoder(_Info)


class QueueState(NamedTuple):
    """By level: the jobs that no worker has been given yet, and how many were given since the queue was made."""

    waiting: tuple[int, ...]
    given: tuple[int, ...]


def record_of(job: Job, trace_id: str, now: float) -> JobState:
    """The record of a job that has just been queued."""
    return JobState(
        job_id=job.job_id,
        kind=job.kind,
        status=JobStatus.QUEUED,
        created=job.created,
        updated=now,
        trace_id=trace_id,
        tail=job.tail,
        start=job.start,
    )


class Queueing:
    """Puts jobs into the queue."""

    def __init__(self, bus: Bus, publisher: Publisher, states: JobStates) -> None:
        self._bus = bus
        self._publisher = publisher
        self._states = states
        self._under_way: Counter[str] = Counter()
        """Jobs by owner that are on their way to the queue, which does not count them yet."""
        self.on_put: Callable[[JobState, int], None] | None = None
        """Called with the record of each job that was put into the queue, and its level."""

    async def put(self, job: Job, headers: Mapping[str, str], trace_id: str) -> JobState:
        """Records `job` as queued and puts it into the queue; gives its record.

        A job that has a record already is not recorded again, and while it is queued it is put under the same message
        id, which stores it at most once: so a caller may repeat what it is not sure of. Raises QueueFull,
        BrokerUnavailable, TooLarge: then there is no such job, unless it had a record before.
        """
        now = time.time()
        owner = job.owner or job.tail
        self._under_way[owner] += 1
        revision = 0
        try:
            state = record_of(job, trace_id, now)
            # At the same time: a chat waits for neither longer than it has to.
            making = asyncio.create_task(self._states.create(state))
            counting = asyncio.create_task(self._count(owner))
            await asyncio.wait({making, counting})
            revision = making.result()
            outstanding, held = counting.result()
            if not revision:
                state = await self._states.get(job.job_id)
                if state.status is not JobStatus.QUEUED:
                    return state
                if outstanding and now - state.created > STORED_ONCE_SECONDS:
                    return state  # in the queue, as far as can be told: it must not be there twice
            level = bisect.bisect(TURNS, outstanding + self._under_way[owner] - 1)
            subject = self._bus.subjects.job(job.kind, level, owner)
            queued = msgspec.structs.replace(job, revision=revision)
            try:
                await self._publisher.store(subject, msgspec.json.encode(queued), dict(headers), job.job_id)
            except QueueFull as error:
                raise QueueFull(f"the queue holds {held} jobs and takes no more", error.retry_after, held) from None
        except TidegateError:
            if revision:  # otherwise the record belongs to an earlier call, whose job may be in the queue
                with contextlib.suppress(BrokerUnavailable):
                    await self._states.forget(job.job_id)
            raise
        finally:
            self._under_way[owner] -= 1
            if not self._under_way[owner]:
                del self._under_way[owner]
        notify(self._bus)
        if self.on_put is not None:
            self.on_put(state, level)
        return state

    async def _count(self, owner: str) -> tuple[int, int]:
        """Jobs of `owner` in the queue, those in work too, and all there are. Raises BrokerUnavailable."""
        ask = msgspec.json.encode({"subjects_filter": self._bus.subjects.jobs(owner=owner)})
        state = _INFO.decode(await _asked(self._bus, f"STREAM.INFO.{self._bus.subjects.jobs_stream}", ask)).state
        if state is None:
            raise BrokerUnavailable("the job queue does not exist")
        return sum(state.subjects.values()), state.messages


def notify(bus: Bus) -> None:
    """Tells the workers that there is a job."""
    bus.client.publish_direct(bus.subjects.job_notices, b"")


async def queue_state(bus: Bus) -> QueueState:
    """How the queue stands. Before the first worker has come, all jobs wait. Raises BrokerUnavailable."""
    stream = bus.subjects.jobs_stream
    waiting, given = [], []
    for level in LEVELS:
        try:
            info: Any = await bus.jetstream.consumer_info(stream, consumer_of(level))
        except NotFoundError:
            ask = msgspec.json.encode({"subjects_filter": bus.subjects.jobs(level)})
            state = _INFO.decode(await _asked(bus, f"STREAM.INFO.{stream}", ask)).state
            waiting.append(sum(state.subjects.values()) if state else 0)
            given.append(0)
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not say how long the queue is") from error
        else:
            waiting.append(int(info.num_pending or 0))
            given.append(int(info.delivered.consumer_seq if info.delivered else 0))
    return QueueState(tuple(waiting), tuple(given))


async def _asked(bus: Bus, call: str, body: bytes) -> bytes:
    try:
        if not bus.connected:
            raise BrokerUnavailable("NATS is away")
        return bytes((await bus.client.request(f"$JS.API.{call}", body, timeout=NO_WAIT_SECONDS)).data)
    except (nats_errors.Error, TimeoutError) as error:
        raise BrokerUnavailable("NATS does not answer for the job queue") from error
