"""The job queue as a worker sees it. How a job gets into it is in enqueue.py, the order of taking in priority.py.

A worker asks for one job at a time, and only when it has a free slot. A request that waited at the server, or one for
several jobs, would bring jobs that nobody here can run yet, and their time would run meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from tidegate_common.bus.connection import Bus
from tidegate_common.bus.jobs.enqueue import notify
from tidegate_common.bus.jobs.priority import LEVELS, turn
from tidegate_common.bus.jobs.queue_info import consumer_info, consumer_of, strays
from tidegate_common.bus.requests.jetstream import STREAM_NOT_FOUND, JetStreamError
from tidegate_common.bus.streams.definitions import SECOND
from tidegate_common.contract.jobs import Job
from tidegate_common.contract.soundness import job_fault, read
from tidegate_common.errors import BrokerUnavailable, QueueGone, QueueRefused

ACK_WAIT_SECONDS = 10
"""A job whose worker shows no progress for so long is given to another."""

ANSWER_SECONDS = 5.0
"""How long NATS has to answer a request for a job."""

POLL_SECONDS = 1.0
"""Between looks at the queue if no notice comes. Nobody gives one of a job that comes back since its worker died."""

_ONE_NOW = json.dumps({"batch": 1, "no_wait": True}).encode()
"""`fetch` of nats-py would wait for a job."""

_JOB = msgspec.json.Decoder(Job)


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
        """Raises Unreadable for a message that is no job, or names what no job of ours can."""
        return read(_JOB, self._message.data, job_fault)

    async def done(self) -> None:
        """The job leaves the queue, and the server has confirmed it. Raises BrokerUnavailable."""
        await _sent(self._message.ack_sync(timeout=ANSWER_SECONDS))

    async def progress(self) -> None:
        """The worker is alive: its time starts anew. Raises BrokerUnavailable."""
        await _sent(self._message.in_progress())

    async def give_back(self) -> None:
        """Another worker may have it, at once. Raises BrokerUnavailable."""
        await _sent(self._message.nak())
        self._notify()

    async def discard(self) -> None:
        """The message can never be handled: it leaves the queue. Raises BrokerUnavailable."""
        await _sent(self._message.term())


async def _sent(sending: Awaitable[object]) -> None:
    try:
        await sending
    except (nats_errors.Error, TimeoutError, OSError) as error:
        raise BrokerUnavailable("NATS did not take the job's acknowledgement") from error


class _Inbox:
    """Asks one level for a job, one question at a time, and hears the answers.

    An answer does not say what it answers: a job comes under its own subject. After a stall of NATS each answer would
    be taken for that of the question before it, for good, and jobs would lie in the inbox of a worker that does not
    know of them. So an inbox whose question was not answered in time is used no more. It stays open for the answer: if
    that is a job, it is given back at once.
    """

    def __init__(self, bus: Bus, level: int, late: Callable[[Msg], Awaitable[None]]) -> None:
        self._client = bus.client
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{bus.subjects.jobs_stream}.{consumer_of(level)}"
        self._subject = bus.client.new_inbox()
        self._late = late
        self._subscription: Subscription | None = None
        self._answer: asyncio.Future[Msg] | None = None
        self.given_up = False

    async def ask(self, seconds: float) -> Msg | None:
        """What the server answers; None, and the inbox is given up, if it does not within `seconds`."""
        if self._subscription is None:
            self._subscription = await self._client.subscribe(self._subject, cb=self._hear)
        self._answer = asyncio.get_running_loop().create_future()
        self.given_up = True  # until the answer is there: this call may be cancelled, too
        await self._client.publish(self._next, _ONE_NOW, self._subject)
        try:
            await asyncio.wait([self._answer], timeout=seconds)
        finally:
            self._answer.cancel()  # what comes from now on is late; an answer that is there stays
        if self._answer.cancelled():
            return None
        self.given_up = False
        return self._answer.result()

    @property
    def open(self) -> bool:
        """Whether it still hears."""
        return self._subscription is not None

    async def _hear(self, message: Msg) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)
            return
        await self._late(message)
        await self.aclose()  # ends this very call where it waits

    async def aclose(self) -> None:
        """Hears no more; whoever waits for an answer has none."""
        if self._answer is not None:
            self._answer.cancel()
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats_errors.Error, OSError):  # the connection is gone, and the inbox with it
                await subscription.unsubscribe()


async def _add_consumer(bus: Bus, level: int, ack_wait_seconds: float) -> None:
    stream, name = bus.subjects.jobs_stream, consumer_of(level)
    config = {
        "durable_name": name,
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(ack_wait_seconds * SECOND),
        "max_deliver": -1,  # attempts are counted in the job's record: one that was handed back is none
        "filter_subject": bus.subjects.jobs(level),
        "replay_policy": "instant",
        "max_ack_pending": 10_000,
    }
    try:
        await bus.api.call(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})
    except JetStreamError as error:
        if error.code == STREAM_NOT_FOUND:
            raise
        raise QueueRefused(
            f"NATS does not make the consumer {name} of {stream} ({error.words}): if it is somebody else's, "
            f"remove it: nats consumer rm {stream} {name}"
        ) from error


def _status(message: Msg) -> str | None:
    """What the server says in place of a job; None for a job.

    A job has a reply subject, for its acknowledgement. Its headers may have a `Status` of their own: they
    are its publisher's.
    """
    return None if message.reply else JetStreamContext.is_status_msg(message)


class JobQueue:
    """The queue as a worker sees it: a durable pull consumer for each level, shared by all workers."""

    def __init__(self, bus: Bus, answer_seconds: float = ANSWER_SECONDS, poll_seconds: float = POLL_SECONDS) -> None:
        """NATS has `answer_seconds` to answer each request for a job."""
        self._bus = bus
        self._poll_seconds = poll_seconds
        self._answer_seconds = answer_seconds
        self._inboxes = [_Inbox(bus, level, self._give_back) for level in LEVELS]
        self._left: list[_Inbox] = []
        """Given up, and not closed: their answers may still come."""
        self._closed = False
        self._taken = 0
        self._notice = asyncio.Event()
        self._notices = bus.client.subscribe_direct(bus.subjects.job_notices, lambda *_: self._notice.set())

    @classmethod
    async def open(
        cls, bus: Bus, ack_wait_seconds: float = ACK_WAIT_SECONDS, answer_seconds: float = ANSWER_SECONDS
    ) -> JobQueue:
        """Raises BrokerUnavailable; QueueRefused, which is one, if NATS has an answer that asks for an operator."""
        for level in LEVELS:
            await _add_consumer(bus, level, ack_wait_seconds)
        return cls(bus, answer_seconds)

    async def close(self) -> None:
        """Ends the subscriptions; jobs that were on their way come again after the acknowledgement time.

        Whoever takes a job meanwhile gets a BrokerUnavailable.
        """
        self._closed = True
        self._bus.client.unsubscribe_direct(self._notices)
        for inbox in (*self._inboxes, *self._left):
            await inbox.aclose()

    async def take(self, wait_seconds: float) -> Delivery | None:
        """The next job, as soon as there is one; None after `wait_seconds`. Raises BrokerUnavailable."""
        deadline = time.monotonic() + wait_seconds
        while True:
            self._notice.clear()  # before the levels are asked: a job that comes meanwhile ends the wait below
            for level in turn(self._taken):
                message = await self._try(level)
                if message is not None:
                    self._taken += 1
                    return Delivery(message, partial(notify, self._bus))
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, self._poll_seconds)):
                    await self._notice.wait()

    async def _try(self, level: int) -> Msg | None:
        """A job of one level, if there is one now. Raises BrokerUnavailable."""
        if self._closed or not self._bus.connected:
            # Not into the client's buffer: the job that such a late request brings would be nobody's.
            raise BrokerUnavailable("NATS is away")
        inbox = self._inboxes[level]
        if inbox.given_up:
            self._left = [each for each in (*self._left, inbox) if each.open]
            inbox = self._inboxes[level] = _Inbox(self._bus, level, self._give_back)
        try:
            message = await inbox.ask(self._answer_seconds)
        except (nats_errors.Error, OSError) as error:
            raise BrokerUnavailable("NATS does not give jobs") from error
        if message is None:
            raise BrokerUnavailable("NATS does not say whether there are jobs")
        status = _status(message)
        if status is None:
            return message
        if status == "404":
            return None
        raise BrokerUnavailable(f"NATS does not give jobs (status {status})")

    async def _give_back(self, message: Msg) -> None:
        """An answer that came too late: if it is a job, nobody has it in hand, and another worker may have it."""
        if _status(message) is None:
            with contextlib.suppress(BrokerUnavailable):
                await Delivery(message, partial(notify, self._bus)).give_back()

    async def strays(self) -> int:
        """Messages that are nobody's jobs here: their subjects name no level. Raises BrokerUnavailable."""
        return await strays(self._bus)

    async def depth(self) -> int:
        """Jobs that wait for a worker. Raises QueueGone, and BrokerUnavailable if NATS does not answer."""
        infos = [await consumer_info(self._bus, level) for level in LEVELS]
        if None in infos:
            raise QueueGone(f"{self._bus.subjects.jobs_stream}, or a consumer of the workers on it, was not there")
        return sum(info["num_pending"] for info in infos if info is not None)
