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
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import Error as JetStreamError
from nats.js.errors import NotFoundError

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.jobs import JobStates
from tidegate_common.bus.publishing import Publisher
from tidegate_common.contract.jobs import Job, JobState, JobStatus
from tidegate_common.errors import BrokerUnavailable, QueueFull, TidegateError

ACK_WAIT_SECONDS = 10
"""A job whose worker shows no progress for so long is given to another."""

TURNS = (2, 8, 32)
"""Jobs of one owner in the queue from which on another waits on the second, third and fourth level."""

LEVELS = range(len(TURNS) + 1)

HIGHEST_EVERY = 4
"""One job in so many is taken from the highest level."""

POLL_SECONDS = 1.0
"""Between looks at the queue when nothing was said: for jobs that come back since their worker died."""

NO_WAIT_SECONDS = 5.0

STORED_ONCE_SECONDS = 100
"""Within this time the stream takes a repeated job for the one that it has (its window is of 120)."""

_JOB = msgspec.json.Decoder(Job)


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
        _notify(self._bus)
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


def _notify(bus: Bus) -> None:
    bus.client.publish_direct(bus.subjects.job_notices, b"")


async def queue_state(bus: Bus) -> QueueState:
    """How the queue stands. Before the first worker has come, all jobs wait. Raises BrokerUnavailable."""
    stream = bus.subjects.jobs_stream
    waiting, given = [], []
    for level in LEVELS:
        try:
            info: Any = await bus.jetstream.consumer_info(stream, _consumer(level))
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


class Delivery:
    """One job in a worker's hand: acknowledged, kept alive, or given back."""

    def __init__(self, message: Msg, notify: Callable[[], None]) -> None:
        """`notify` tells the workers that there is a job."""
        self._message = message
        self._notify = notify
        self.number: int = message.metadata.num_delivered or 1
        """How often the job was given to a worker."""
        self.headers: dict[str, str] = dict(message.headers or {})
        self.payload: bytes = message.data

    def job(self) -> Job:
        """Raises msgspec.ValidationError or msgspec.DecodeError for a message that is no job."""
        return _JOB.decode(self._message.data)

    async def done(self) -> None:
        """The job leaves the queue, and the server has confirmed it. Raises BrokerUnavailable."""
        await _answered(self._message.ack_sync(timeout=5))

    async def progress(self) -> None:
        """The worker is alive: its time starts anew. Raises BrokerUnavailable."""
        await _answered(self._message.in_progress())

    async def give_back(self, delay: float = 0) -> None:
        """Another worker may have it, after `delay` seconds. Raises BrokerUnavailable."""
        await _answered(self._message.nak(delay=delay or None))
        self._notify()

    async def discard(self) -> None:
        """The message can never be handled: it leaves the queue. Raises BrokerUnavailable."""
        await _answered(self._message.term())


async def _answered(sending: Awaitable[object]) -> None:
    try:
        await sending
    except (nats_errors.Error, TimeoutError, OSError) as error:
        raise BrokerUnavailable("NATS did not take the job's acknowledgement") from error


class JobQueue:
    """The queue as a worker sees it: a durable pull consumer for each level, shared by all workers."""

    def __init__(self, bus: Bus, subscriptions: list[JetStreamContext.PullSubscription]) -> None:
        self._bus = bus
        self._subscriptions = subscriptions
        self._taken = 0
        self._notice = asyncio.Event()
        self._notices = bus.client.subscribe_direct(bus.subjects.job_notices, lambda *_: self._notice.set())

    @classmethod
    async def open(cls, bus: Bus, ack_wait_seconds: float = ACK_WAIT_SECONDS) -> JobQueue:
        """Raises BrokerUnavailable."""
        stream = bus.subjects.jobs_stream
        subscriptions = []
        try:
            for level in LEVELS:
                config = ConsumerConfig(
                    durable_name=_consumer(level),
                    ack_policy=AckPolicy.EXPLICIT,
                    ack_wait=ack_wait_seconds,
                    max_deliver=-1,  # attempts are counted in the job's record: one that was handed back is none
                    filter_subject=bus.subjects.jobs(level),
                    max_ack_pending=10_000,
                )
                await bus.jetstream.add_consumer(stream, config)
                subscriptions.append(await bus.jetstream.pull_subscribe_bind(consumer=_consumer(level), stream=stream))
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not open the job queue") from error
        return cls(bus, subscriptions)

    async def close(self) -> None:
        """Ends the subscriptions; jobs that were on their way come again after the acknowledgement time."""
        self._bus.client.unsubscribe_direct(self._notices)
        try:
            for subscription in self._subscriptions:
                await subscription.unsubscribe()
        except nats_errors.Error as error:
            raise BrokerUnavailable("NATS is away") from error

    async def take(self, wait_seconds: float) -> Delivery | None:
        """The next job, as soon as there is one; None after `wait_seconds`. Raises BrokerUnavailable.

        Asks for one at a time and without waiting at the server: a worker never holds a job that it has no slot for.
        """
        deadline = time.monotonic() + wait_seconds
        while True:
            self._notice.clear()
            order = reversed(LEVELS) if self._taken % HIGHEST_EVERY == HIGHEST_EVERY - 1 else iter(LEVELS)
            for level in order:
                message = await self._try(self._subscriptions[level])
                if message is not None:
                    self._taken += 1
                    return Delivery(message, partial(_notify, self._bus))
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, POLL_SECONDS)):
                    await self._notice.wait()

    async def _try(self, subscription: Any) -> Msg | None:
        """A job of one level, if there is one now. `fetch` of the library would wait for one."""
        try:
            await self._bus.client.publish(
                subscription._nms, json.dumps({"batch": 1, "no_wait": True}).encode(), subscription._deliver
            )
            message: Msg = await subscription._sub.next_msg(timeout=NO_WAIT_SECONDS)
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not give jobs") from error
        status = JetStreamContext.is_status_msg(message)
        if not status:
            return message
        if status == "404":
            return None
        raise BrokerUnavailable(f"NATS does not give jobs (status {status})")

    async def depth(self) -> int:
        """Jobs that wait for a worker. Raises BrokerUnavailable."""
        try:
            infos: list[Any] = [await each.consumer_info() for each in self._subscriptions]
        except (nats_errors.Error, JetStreamError, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not say how long the queue is") from error
        return sum(int(info.num_pending or 0) for info in infos)


def _consumer(level: int) -> str:
    return f"workers-{level}"
