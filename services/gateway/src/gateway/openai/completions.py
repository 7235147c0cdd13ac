"""Completions, as a use case that knows no HTTP: a job is queued, followed, and cancelled where nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import NamedTuple

import msgspec
from opentelemetry.trace import Tracer

from gateway.openai.request import Completion
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History, Stored
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.cancel import Cancelling
from tidegate_common.bus.jobs.enqueue import QueueWriter
from tidegate_common.bus.jobs.events import job_events
from tidegate_common.bus.jobs.following import Following
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.jobs.submit import JobSubmitter
from tidegate_common.bus.wire import headers
from tidegate_common.contract.ids import EventId, keyed_id
from tidegate_common.contract.jobs import CHAT, Job, JobState, OnDisconnect, request_hash
from tidegate_common.errors import BrokerUnavailable, NotFound
from tidegate_common.runtime.tasks import end, spawn
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

GRACE_SECONDS = 3.0
"""A worker ends a job of which no gateway has said for so long that somebody waits for it."""

CANCEL_SECONDS = 30.0
"""How long a cancel is tried while NATS is away."""

AGAIN_SECONDS = 0.5


class Caller(NamedTuple):
    """Who asks: `name` is a tail's tokens, made of the key or else of the address. `key` is the idempotency key."""

    name: str
    key: str | None = None
    cancel: bool = True
    """Whether the job is cancelled when the caller goes away."""


class Running:
    """A job that is being followed. `over` once its last event was given."""

    def __init__(self, state: JobState, events: AsyncGenerator[Stored, None]) -> None:
        self.job_id = state.job_id
        self.created = int(state.created)
        self.over = False
        self._events = events

    async def events(self) -> AsyncIterator[tuple[str, bytes]]:
        """Types and data of the job's events, in order, each once.

        Raises BrokerUnavailable, NotFound where they are not kept any more.
        """
        async with aclosing(self._events):
            async for stored in self._events:
                self.over = headers.field(stored.header, headers.JOB_END) is not None
                yield (headers.field(stored.header, headers.EVENT_TYPE) or b"").decode(errors="replace"), stored.payload
        if not self.over:
            raise NotFound("the job's events are not kept any more")


class Completions:
    """Jobs of the kind `chat` whose askers wait for them."""

    def __init__(self, bus: Bus, history: History, publisher: EventPublisher, tracer: Tracer, seconds: float) -> None:
        """`seconds` is how long a job may take, with its time in the queue."""
        states = JobRecords(bus, publisher.leaders, publisher.refusals)
        self._history = history
        self._seconds = seconds
        self._following = Following(bus, history)
        self._submitter = JobSubmitter(bus, history, QueueWriter(bus, publisher, states), tracer)
        self._cancelling = Cancelling(bus, states, publisher, history)
        self._waiting: Counter[str] = Counter()
        self._cancels: set[asyncio.Task[None]] = set()
        self._uncancelled = Trouble(log, "a job could not be cancelled, and runs to its end")

    @asynccontextmanager
    async def begin(self, asked: Completion, caller: Caller) -> AsyncIterator[Running]:
        """Queues the job, once for one `caller.key`, and follows it. Left before the job's end by the last one of its
        callers here, it is cancelled.

        Raises QueueFull, BrokerUnavailable, TooLarge: then there is no such job; KeyReused: it is of another request.
        """
        job = await self._draft(asked, caller)
        start = EventId.parse(job.start)
        assert start is not None, "a draft has its start"
        async with AsyncExitStack() as stack:
            events: AsyncGenerator[Stored, None] | None = None
            if caller.key is None:  # nothing of it can be stored yet: it is followed before it is queued
                events = stack.enter_context(self._following.follow(job.job_id, job.tail, start, stored=False))
            state = await self._submitter.submit(job)
            if events is None:
                events = await self._again(state, start, stack)
            running = Running(state, events)
            self._waiting[job.job_id] += 1
            try:
                yield running
            finally:
                self._waiting[job.job_id] -= 1
                last = not self._waiting[job.job_id]
                if last:
                    del self._waiting[job.job_id]
                if last and caller.cancel and not running.over:
                    self._spawn_cancel(job.job_id)

    def waiting(self, job_id: str) -> int:
        """How many callers wait for the job here."""
        return self._waiting.get(job_id, 0)

    async def aclose(self) -> None:
        """Returns when the cancels that are under way are through."""
        if self._cancels:
            await asyncio.wait(self._cancels, timeout=AGAIN_SECONDS)
        await end(self._cancels)

    async def _again(self, state: JobState, start: EventId, stack: AsyncExitStack) -> AsyncGenerator[Stored, None]:
        """The events of a job that there may have been before: from its own start on."""
        position = await self._history.position()
        begun = EventId.parse(state.start) or start
        ended = EventId.parse(state.end)
        after, upto = position.place(begun), position.place(ended) if ended is not None else None
        if after is not None and upto is not None:
            return _kept(self._history, state, after, upto)
        return stack.enter_context(self._following.follow(state.job_id, state.tail, begun))

    async def _draft(self, asked: Completion, caller: Caller) -> Job:
        params = msgspec.to_builtins(asked.params)
        return await self._submitter.draft(
            CHAT,
            params,
            job_id="" if caller.key is None else keyed_id("chat", caller.name, caller.key),
            request="" if caller.key is None else request_hash(params, asked.user),
            owner=asked.user or caller.name,
            seconds=self._seconds,
            # The front cancels the job itself as soon as the caller goes: this is for a gateway that died with it.
            on_disconnect=OnDisconnect.CANCEL if caller.cancel else OnDisconnect.CONTINUE,
            grace_seconds=GRACE_SECONDS,
        )

    def _spawn_cancel(self, job_id: str) -> None:
        task = spawn(self._cancel(job_id), "cancelling a job")
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)

    async def _cancel(self, job_id: str) -> None:
        """Ends the job where it waits, tells its worker where it runs; tried again while NATS is away."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CANCEL_SECONDS
        while True:
            try:
                await self._cancelling.cancel(job_id)
                return
            except NotFound:
                return
            except BrokerUnavailable as error:
                if loop.time() >= until:
                    self._uncancelled.note(error)
                    return
            await asyncio.sleep(AGAIN_SECONDS)


async def _kept(history: History, state: JobState, start: int, upto: int) -> AsyncGenerator[Stored, None]:
    """The events of a job that has ended, as far as they are kept."""
    async for stored in job_events(history, state.job_id, state.tail, start, upto):
        yield stored
