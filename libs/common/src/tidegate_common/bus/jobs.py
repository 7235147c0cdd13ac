"""The job queue and what is known of each job."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import Error as JetStreamError
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.publishing import Publisher
from tidegate_common.contract.jobs import Job, JobState, JobStatus
from tidegate_common.errors import BrokerUnavailable, NotFound, TidegateError

ACK_WAIT_SECONDS = 30
"""A job whose worker shows no progress for so long is given to another."""

MAX_ATTEMPTS = 5
CONSUMER = "workers"

_STATE = msgspec.json.Decoder(JobState)
_JOB = msgspec.json.Decoder(Job)


class JobStates:
    """The KV bucket of job records, one key per job, changed by compare-and-set."""

    def __init__(self, bucket: KeyValue) -> None:
        self._bucket = bucket

    @classmethod
    async def open(cls, bus: Bus) -> JobStates:
        return cls(await bus.jetstream.key_value(bus.subjects.jobs_bucket))

    async def get(self, job_id: str) -> JobState:
        """Raises NotFound, BrokerUnavailable."""
        return (await self._read(job_id))[0]

    async def create(self, state: JobState) -> bool:
        """Keeps a new record; False where the job has one already. Raises BrokerUnavailable."""
        try:
            await self._bucket.create(state.job_id, msgspec.json.encode(state))
        except KeyWrongLastSequenceError:
            return False
        except (nats_errors.Error, TimeoutError) as error:
            raise BrokerUnavailable("NATS did not keep the job's record") from error
        return True

    async def forget(self, job_id: str) -> None:
        """Removes a record, of a job that never came to be. Raises BrokerUnavailable."""
        try:
            await self._bucket.delete(job_id)
        except (nats_errors.Error, TimeoutError) as error:
            raise BrokerUnavailable("NATS did not remove the job's record") from error

    async def change(self, job_id: str, edit: Callable[[JobState], JobState | None]) -> JobState:
        """Replaces the record by what `edit` makes of it (None: leave it), again where another was faster.

        Gives the record as it stands then. Raises NotFound, BrokerUnavailable.
        """
        while True:
            state, revision = await self._read(job_id)
            edited = edit(state)
            if edited is None:
                return state
            edited = msgspec.structs.replace(edited, updated=time.time())
            try:
                await self._bucket.update(job_id, msgspec.json.encode(edited), last=revision)
            except KeyWrongLastSequenceError:
                continue
            except (nats_errors.Error, TimeoutError) as error:
                raise BrokerUnavailable("NATS did not keep the job's record") from error
            return edited

    async def _read(self, job_id: str) -> tuple[JobState, int]:
        try:
            entry = await self._bucket.get(job_id)
        except KeyNotFoundError:
            raise NotFound(f"there is no job {job_id}, or it is not kept any more") from None
        except (nats_errors.Error, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not give the job's record") from error
        return _STATE.decode(entry.value or b"{}"), int(entry.revision or 0)


async def enqueue(
    publisher: Publisher, states: JobStates, bus: Bus, job: Job, headers: Mapping[str, str], trace_id: str
) -> JobState:
    """Records `job` as queued and puts it into the work queue; gives its record.

    A job that has a record already is not recorded again, and while it is queued it is put under the same message id,
    which stores it at most once: so a caller may repeat what it is not sure of. Raises QueueFull, BrokerUnavailable,
    TooLarge: then there is no such job, unless it had a record before.
    """
    now = time.time()
    state = JobState(
        job_id=job.job_id, kind=job.kind, status=JobStatus.QUEUED, created=now, updated=now, trace_id=trace_id
    )
    created = await states.create(state)
    if not created:
        state = await states.get(job.job_id)
        if state.status is not JobStatus.QUEUED:
            return state
    try:
        await publisher.store(bus.subjects.job(job.kind), msgspec.json.encode(job), dict(headers), job.job_id)
    except TidegateError:
        if not created:
            raise  # the record belongs to an earlier call, whose job may be in the queue
        with contextlib.suppress(BrokerUnavailable):
            await states.forget(job.job_id)
        raise
    return state


async def announce_cancel(bus: Bus, job_id: str) -> None:
    """Tells the worker that may have the job in hand. Raises BrokerUnavailable."""
    if not bus.connected:
        raise BrokerUnavailable("NATS is away")
    await bus.client.publish(bus.subjects.cancel(job_id), b"")


class Delivery:
    """One job in a worker's hand: acknowledged, kept alive, or given back."""

    def __init__(self, message: Msg) -> None:
        self._message = message
        self.attempt: int = message.metadata.num_delivered or 1
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

    async def discard(self) -> None:
        """The message can never be handled: it leaves the queue. Raises BrokerUnavailable."""
        await _answered(self._message.term())


async def _answered(sending: Awaitable[object]) -> None:
    try:
        await sending
    except (nats_errors.Error, TimeoutError, OSError) as error:
        raise BrokerUnavailable("NATS did not take the job's acknowledgement") from error


class JobQueue:
    """The work queue as a worker sees it: one durable pull consumer, shared by all workers."""

    def __init__(self, subscription: JetStreamContext.PullSubscription) -> None:
        self._subscription = subscription

    @classmethod
    async def open(cls, bus: Bus, ack_wait_seconds: float = ACK_WAIT_SECONDS) -> JobQueue:
        config = ConsumerConfig(
            durable_name=CONSUMER,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ack_wait_seconds,
            max_deliver=MAX_ATTEMPTS,
            filter_subject=bus.subjects.job("*"),
            max_ack_pending=10_000,
        )
        stream = bus.subjects.jobs_stream
        await bus.jetstream.add_consumer(stream, config)
        return cls(await bus.jetstream.pull_subscribe_bind(consumer=CONSUMER, stream=stream))

    async def close(self) -> None:
        """Ends the subscription; jobs that were on their way to it come again after the acknowledgement time."""
        try:
            await self._subscription.unsubscribe()
        except nats_errors.Error as error:
            raise BrokerUnavailable("NATS is away") from error

    async def take(self, most: int, wait_seconds: float) -> list[Delivery]:
        """Up to `most` jobs, as soon as there is one; none after `wait_seconds`. Raises BrokerUnavailable."""
        try:
            messages = await self._subscription.fetch(most, timeout=wait_seconds)
        except TimeoutError:
            return []
        except (nats_errors.Error, JetStreamError) as error:
            raise BrokerUnavailable("NATS does not give jobs") from error
        return [Delivery(message) for message in messages]

    async def depth(self) -> int:
        """Jobs that wait for a worker. Raises BrokerUnavailable."""
        try:
            info: Any = await self._subscription.consumer_info()
        except (nats_errors.Error, TimeoutError) as error:
            raise BrokerUnavailable("NATS does not say how long the queue is") from error
        return int(info.num_pending or 0)


Cancelled = Callable[[str], None]


def on_cancel(bus: Bus, called: Cancelled) -> Callable[[], None]:
    """Calls `called` with a job's id each time its cancelling is announced, until the function returned is called."""
    prefix = len(bus.subjects.cancel(""))

    def receive(subject: bytes, _: bytes, __: bytes) -> None:
        called(subject.decode()[prefix:])

    sid = bus.client.subscribe_direct(bus.subjects.cancel("*"), receive)
    return lambda: bus.client.unsubscribe_direct(sid)
