"""Completions, as a use case that knows no HTTP: a job is queued, read, and cancelled if nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
from opentelemetry.trace import Tracer

from gateway.feed.attachment import Attachments
from gateway.feed.reader import JobReader
from gateway.hub.hub import Hub
from gateway.hub.tails import filtered
from gateway.openai.caller import Caller
from gateway.openai.request import Completion
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.budgets import Budgets
from tidegate_common.bus.jobs.cancel import Cancellation
from tidegate_common.bus.jobs.enqueue import MAX_PER_OWNER, QueueWriter
from tidegate_common.bus.jobs.events import end_place
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.jobs.submit import JobSubmitter
from tidegate_common.bus.requests.retry import insist
from tidegate_common.contract.budget import Allowance
from tidegate_common.contract.ids import keyed_id, new_job_id
from tidegate_common.contract.jobs import CHAT, Job, JobState, OnDisconnect, request_hash
from tidegate_common.contract.subjects import job_tail, user_tail
from tidegate_common.errors import BrokerUnavailable, NotFound
from tidegate_common.runtime.tasks import end, spawn
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

GRACE_SECONDS = 3.0
"""A worker ends a job if no gateway has said for so long that somebody waits for it."""

CANCEL_SECONDS = 30.0
"""How long a cancel is tried while NATS is away."""

STOP_SECONDS = 0.5
"""Cancels that are under way have so long when the gateway stops."""


class Completions:
    """Jobs of the kind `chat` whose askers wait for them."""

    def __init__(
        self,
        bus: Bus,
        hub: Hub,
        attachments: Attachments,
        history: History,
        publisher: EventPublisher,
        tracer: Tracer,
        seconds: float,
        most: int = MAX_PER_OWNER,
    ) -> None:
        """`seconds` is how long a job may take, with its time in the queue. `most` jobs of one owner may be there."""
        records = JobRecords(bus, publisher.leaders, publisher.refusals)
        self._hub = hub
        self._attachments = attachments
        self._history = history
        self._seconds = seconds
        queue = QueueWriter(bus, publisher, records, most=most)
        budgets = Budgets(bus, records, publisher.leaders)
        self._submitter = JobSubmitter(bus, history, queue, budgets, tracer)
        self.refused = self._submitter.refused
        self._cancellation = Cancellation(bus, records, publisher, history)
        self._cancels: set[asyncio.Task[None]] = set()
        self._uncancelled = Trouble(
            log, "a job could not be cancelled at once: its worker finds out that nobody waits for it"
        )

    @asynccontextmanager
    async def begin(
        self, asked: Completion, caller: Caller, told: Callable[[Allowance], object]
    ) -> AsyncIterator[tuple[JobState, JobReader]]:
        """Queues the job, once for one `caller.key`, and reads it. Left before the job's end by the last one of its
        callers here, it is cancelled. `told` hears what the caller's budget of tokens leaves, if it has one.

        Raises Forbidden, Unauthenticated, Limited, QueueFull, BrokerUnavailable, TooLarge: then there is no such job;
        KeyReused: it is of another request.
        """
        begun: tuple[JobState, JobReader] | None = None
        try:
            async with AsyncExitStack() as stack:
                begun = await self._begin(asked, caller, told, stack)
                yield begun
        finally:  # The reader has left by now: one that is still there is another caller's.
            if begun is not None and caller.cancel:
                state, reader = begun
                if not reader.ended and not self._is_read(state):
                    self._spawn_cancel(state.job_id)

    async def _begin(
        self, asked: Completion, caller: Caller, told: Callable[[Allowance], object], stack: AsyncExitStack
    ) -> tuple[JobState, JobReader]:
        if caller.key is None:
            # The reader attaches before the job is queued: no event is stored by then that would have to be read back.
            # Its place and the job's start are asked for at the same moment, which is one request to NATS.
            job_id = new_job_id()
            reader = await stack.enter_async_context(JobReader(self._attachments, job_tail(job_id), job_id))
            job = await self._draft(asked, caller, job_id)
            await reader.attached()
            return await self._submitter.submit(job, caller.principal, told), reader
        job = await self._draft(asked, caller, keyed_id("chat", caller.name, caller.key))
        state = await self._submitter.submit(job, caller.principal, told)
        # There may have been this job before: all of it is read, from its own start on.
        ends_at = end_place(state, await self._history.patient_position()) if state.end else 0
        reader = JobReader(self._attachments, state.tail, state.job_id, state.start, ends_at)
        return state, await stack.enter_async_context(reader)

    def _is_read(self, state: JobState) -> bool:
        """Whether another caller here waits for the job. Whoever watches its stream does not count."""
        sessions = self._hub.listening(filtered(state.tail, state.job_id))
        return any(not session.connection for session in sessions)

    async def aclose(self) -> None:
        """Returns when the cancels that are under way are through."""
        if self._cancels:
            await asyncio.wait(self._cancels, timeout=STOP_SECONDS)
        await end(self._cancels)

    async def _draft(self, asked: Completion, caller: Caller, job_id: str) -> Job:
        params = msgspec.to_builtins(asked.params)
        return await self._submitter.draft(
            job_id,
            CHAT,
            params,
            principal=caller.principal,
            request="" if caller.key is None else request_hash(params, user_tail(asked.user) if asked.user else ""),
            owner=caller.owner(asked.user),
            seconds=self._seconds,
            # The front cancels the job itself as soon as the caller goes. This is for a gateway that died with it, or
            # could not reach NATS then.
            on_disconnect=OnDisconnect.CANCEL if caller.cancel else OnDisconnect.CONTINUE,
            grace_seconds=GRACE_SECONDS,
        )

    def _spawn_cancel(self, job_id: str) -> None:
        task = spawn(self._cancel(job_id), "cancelling a job")
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)

    async def _cancel(self, job_id: str) -> None:
        """Ends the job if it waits, tells its worker if it runs."""
        try:
            await insist(lambda: self._cancellation.cancel(job_id), CANCEL_SECONDS)
        except NotFound:
            pass
        except BrokerUnavailable as error:
            self._uncancelled.note(error)
