"""Runs one job from its delivery to its acknowledgement."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from enum import StrEnum
from typing import Any

import msgspec

from ai_worker.errors import BackendFailed, InvalidParams, JobError, JobTimeout, TooManyAttempts, UnknownKind
from ai_worker.handlers.handler import Handlers, Work
from ai_worker.pieces import Finish, Reasoning, Text
from ai_worker.records import Records
from ai_worker.relay import Relay, insist
from tidegate_common.bus.publishing import Publisher
from tidegate_common.bus.queue import Delivery
from tidegate_common.contract.jobs import Job, JobStatus, Usage
from tidegate_common.errors import BrokerUnavailable
from tidegate_common.runtime.tasks import end

MAX_ATTEMPTS = 5

log = logging.getLogger(__name__)


class Stop(StrEnum):
    """Why a job is stopped from outside."""

    CANCELLED = "cancelled"
    HANDED_BACK = "handed_back"
    TAKEN_OVER = "taken_over"


class Outcome(StrEnum):
    """How an attempt ended; the label of the jobs metric."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    HANDED_BACK = "handed_back"
    """Another worker has it now."""
    ABANDONED = "abandoned"
    """NATS was away too long, or another worker has it: its acknowledgement did not go out."""


class Limits(msgspec.Struct, frozen=True):
    """Seconds: of one job, without an acknowledgement until a job goes elsewhere, of text in one event."""

    job_seconds: float
    ack_seconds: float
    window: float


class Answering:
    """One attempt at one job. `stop` may be called at any time, more than once: the first reason counts."""

    def __init__(
        self,
        job: Job,
        delivery: Delivery,
        work: Work,
        handlers: Handlers,
        publisher: Publisher,
        records: Records,
        limits: Limits,
    ) -> None:
        self.job = job
        self._delivery = delivery
        self._work = work
        self._handlers = handlers
        self._records = records
        self._limits = limits
        self._relay = Relay(publisher, work, job.tail, window=limits.window, patience=limits.ack_seconds)
        self.over = asyncio.Event()
        """Nothing more comes from this attempt."""
        self._stop: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()

    def stop(self, reason: Stop) -> None:
        if not self._stop.done():
            self._stop.set_result(reason)

    async def run(self) -> Outcome:
        """Raises nothing but CancelledError."""
        watching = asyncio.create_task(self._watch())
        try:
            return await self._run()
        except BrokerUnavailable as error:
            log.warning("job %s is left to another worker: %s", self.job.job_id, error)
            return Outcome.ABANDONED
        except Exception:
            log.exception("job %s is left to another worker", self.job.job_id)
            return Outcome.ABANDONED
        finally:
            await end([watching])
            await self._relay.drop()
            self.over.set()

    async def _watch(self) -> None:
        """Shows that the worker is alive, and sees what was not heard: a cancel, or another worker at the job."""
        while True:
            await asyncio.sleep(self._limits.ack_seconds / 3)
            try:
                await self._delivery.progress()
                state = await self._records.get(self.job.job_id)
            except BrokerUnavailable:
                continue
            if state is not None and state.attempt > self._work.attempt:
                self.stop(Stop.TAKEN_OVER)
            elif state is not None and state.cancel:
                self.stop(Stop.CANCELLED)

    async def _run(self) -> Outcome:
        patience = self._limits.ack_seconds
        job_id, attempt = self.job.job_id, self._work.attempt
        state = await insist(lambda: self._records.begin(job_id, attempt), patience)
        if state is not None and state.status.final:
            await insist(self._delivery.done, patience)  # a worker died between the record and this
            return Outcome(state.status.value)
        if state is not None and state.cancel:
            self.stop(Stop.CANCELLED)
        elif attempt >= MAX_ATTEMPTS:
            return await self._fail(TooManyAttempts())
        elif attempt > 1:
            await self._relay.restart()
        return await self._attempt()

    async def _attempt(self) -> Outcome:
        if self._stop.done():
            return await self._stopped(self._stop.result())
        pump = asyncio.create_task(self._pump())
        try:
            first: set[asyncio.Future[Any]] = {pump, self._stop, self._relay.writing}
            await asyncio.wait(
                first,
                timeout=self._limits.job_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if pump.done():
                return await self._ended(pump)
        finally:
            # The generator is closed before anything else is written: nothing can follow the last event.
            await end([pump])
        if self._stop.done():
            return await self._stopped(self._stop.result())
        if self._relay.writing.done():
            self._relay.writing.result()
        return await self._fail(JobTimeout(self._limits.job_seconds))

    async def _pump(self) -> Finish:
        """Hands the handler's pieces to the relay; gives the last one. Raises JobError."""
        handler = self._handlers.get(self.job.kind)
        if handler is None:
            raise UnknownKind
        async with aclosing(handler(self._work, self.job.params)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Finish):
                    return piece
                if isinstance(piece, Text | Reasoning):
                    await self._relay.put(piece)
        return Finish("stop")

    async def _ended(self, pump: asyncio.Task[Finish]) -> Outcome:
        error = pump.exception()
        if isinstance(error, JobError):
            return await self._fail(error)
        if error is not None:
            log.error("job %s: the handler failed", self.job.job_id, exc_info=error)
            return await self._fail(BackendFailed())
        finish = pump.result()
        usage = finish.usage or Usage(completion_tokens=self._relay.taken)
        await self._relay.done(finish.reason, usage)
        await self._conclude(JobStatus.DONE, finish.reason, usage, None)
        return Outcome.DONE

    async def _stopped(self, reason: Stop) -> Outcome:
        if reason is Stop.CANCELLED:
            usage = Usage(completion_tokens=self._relay.taken)
            await self._relay.done("cancelled", usage)
            await self._conclude(JobStatus.CANCELLED, "cancelled", usage, None)
            return Outcome.CANCELLED
        await self._relay.drop()
        if reason is Stop.TAKEN_OVER:
            return Outcome.ABANDONED
        await self._records.requeue(self.job.job_id, self._work.attempt)
        await self._delivery.give_back()
        return Outcome.HANDED_BACK

    async def _fail(self, error: JobError) -> Outcome:
        log.warning("job %s failed: %s: %s", self.job.job_id, error.code, error, exc_info=error.__cause__)
        await self._relay.failed(error.code, str(error))
        usage = Usage(completion_tokens=self._relay.taken)
        bad = isinstance(error, UnknownKind | InvalidParams)
        leave = self._delivery.discard if bad else self._delivery.done
        await self._conclude(JobStatus.FAILED, None, usage, f"{error.code}: {error}", leave)
        return Outcome.FAILED

    async def _conclude(
        self,
        status: JobStatus,
        reason: str | None,
        usage: Usage,
        error: str | None,
        leave: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """The record, then the acknowledgement (`leave`): a job that is not done for sure comes again."""
        patience = self._limits.ack_seconds
        await insist(lambda: self._records.end(self.job.job_id, status, reason, usage, error), patience)
        await insist(leave or self._delivery.done, patience)
