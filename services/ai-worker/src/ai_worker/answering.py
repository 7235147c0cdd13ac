"""Runs one job from its delivery to its acknowledgement."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing, suppress
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

import msgspec

from ai_worker.conclusion import Conclusion
from ai_worker.errors import BackendFailed, InvalidParams, JobError, JobTimeout, TooManyAttempts, UnknownKind
from ai_worker.fence import Fence
from ai_worker.handlers.handler import Continuing, Handlers, Work
from ai_worker.holders import Holders
from ai_worker.listeners import all_gone
from ai_worker.pieces import Finish
from ai_worker.records import Records
from ai_worker.refusal import refuse
from ai_worker.relay import Pace, Relay, insist
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.dequeue import Delivery
from tidegate_common.bus.jobs.events import read_answer
from tidegate_common.bus.requests.gateways import AllGateways
from tidegate_common.contract.answers import Answer
from tidegate_common.contract.jobs import Job, JobState, JobStatus, OnDisconnect, Usage
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerUnavailable, OtherRelease, Superseded, Unreadable
from tidegate_common.runtime.tasks import end, spawn
from tidegate_common.telemetry import propagation

log = logging.getLogger(__name__)


HAND_BACK_SECONDS = 1.0
"""How long what waits may take to be written before a job is handed back."""

OTHERS_SECONDS = 3_600.0
"""How long a job is left to the workers of another release, which has changed its record."""


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
    FORGOTTEN = "forgotten"
    """It has no record: its asker was told that there is no such job, and it was not run."""
    REFUSED = "refused"
    """Its record can't be read, so that nobody knows whether it has run: it was not run."""
    LEFT = "left"
    """To the worker that has it, which is alive, or to one of another release: it was given out again all the same."""
    ABANDONED = "abandoned"
    """NATS was away too long, or another worker has it: its acknowledgement did not go out."""


class Limits(msgspec.Struct, frozen=True):
    """Of one attempt in seconds, of silence after which a job goes elsewhere, and of attempts that end in silence."""

    job_seconds: float
    ack_seconds: float
    attempts: int
    pace: Pace


class Services(NamedTuple):
    """What every attempt uses."""

    publisher: EventPublisher
    history: History
    subjects: Subjects
    records: Records
    conclusion: Conclusion
    gateways: AllGateways
    holders: Holders


class Answering:
    """One attempt at one job. `stop` may be called at any time, more than once: the first reason counts."""

    def __init__(
        self, job: Job, delivery: Delivery, work: Work, handlers: Handlers, services: Services, limits: Limits
    ) -> None:
        self.job = job
        self._delivery = delivery
        self._work = work
        self._handlers = handlers
        self._history = services.history
        self._publisher = services.publisher
        self._records = services.records
        self._conclusion = services.conclusion
        self._gateways = services.gateways
        self._holders = services.holders
        self._holder = services.holders.new()
        self._limits = limits
        self._trace_id = propagation.trace_id(work.trace)
        self._patience = limits.pace.patience
        self._fence = Fence(services.publisher, services.history, services.subjects, job.job_id, self._is_mine)
        self._relay = Relay(services.publisher, work, job.tail, self._fence, limits.pace)
        self.over = asyncio.Event()
        """Nothing more comes from this attempt."""
        self._before = Usage()
        """Of what is stored of the answer and goes on to count: earlier attempts'."""
        self._stop: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()

    @property
    def attempt(self) -> int:
        """Its number among the job's attempts; 0 before the record has given it one."""
        return self._work.attempt

    def stop(self, reason: Stop) -> None:
        if not self._stop.done():
            self._stop.set_result(reason)

    async def adopt(self, delivery: Delivery) -> None:
        """The job was given here again while it runs: that delivery is the one which counts from now on."""
        self._delivery = delivery
        await self.show_life()

    async def show_life(self) -> None:
        """Tells the queue that the job is in hand; what is not heard is told again."""
        with suppress(BrokerUnavailable):
            await self._delivery.progress()

    async def run(self) -> Outcome:
        """Raises nothing but CancelledError."""
        watching = [spawn(self._watch(), "watching over a job")]
        if self.job.on_disconnect is OnDisconnect.CANCEL:
            watching.append(spawn(self._listen(), "looking for a job's listeners"))
        try:
            with self._holders.holding(self._holder):
                return await self._run()
        except OtherRelease as error:
            # Its workers may take jobs beside this one: it comes again after the acknowledgement time, to one of them.
            return Outcome.LEFT if time.time() - error.written < OTHERS_SECONDS else await self._refuse()
        except Unreadable:
            return await self._refuse()
        except Superseded:
            log.warning("job %s: another attempt has it", self.job.job_id)
            return Outcome.ABANDONED
        except (BrokerUnavailable, TimeoutError) as error:
            log.warning("job %s is left to another worker: %s", self.job.job_id, error)
            return Outcome.ABANDONED
        except Exception:
            log.exception("job %s is left to another worker", self.job.job_id)
            return Outcome.ABANDONED
        finally:
            await end(watching)
            await self._relay.drop()
            await self._fence.aclose()
            self.over.set()

    async def _refuse(self) -> Outcome:
        try:
            await refuse(self._delivery, self._publisher, self._records)
        except BrokerUnavailable as error:
            log.warning("job %s is left to another worker: %s", self.job.job_id, error)
            return Outcome.ABANDONED
        return Outcome.REFUSED

    async def _watch(self) -> None:
        """Shows that the worker is alive, and sees what was not heard: a cancel, or another worker at the job."""
        while True:
            await asyncio.sleep(self._limits.ack_seconds / 3)
            await self.show_life()
            try:
                state = await self._records.get(self.job.job_id)
            except BrokerUnavailable:
                continue
            if state is not None and state.attempt > self._work.attempt > 0:
                self.stop(Stop.TAKEN_OVER)
                return
            if state is not None and state.cancel:
                self.stop(Stop.CANCELLED)

    async def _listen(self) -> None:
        await all_gone(self._gateways, self.job)
        self.stop(Stop.CANCELLED)

    async def _is_mine(self) -> bool:
        """Whether nobody has begun the job since, or has written its last event."""
        state = await self._records.get(self.job.job_id)
        if state is None:
            return True
        # An end that was recorded is written by whoever has the job, for the attempt that recorded it.
        held = state.status.final or state.holder in ("", self._holder)
        return state.attempt == self._work.attempt and held and not state.end

    async def _run(self) -> Outcome:
        state = await self._begin()
        if isinstance(state, Outcome):
            return state
        self._work.attempt = state.attempt
        if state.status.final:
            return await self._settle(state)
        if state.attempt == 1:
            self._fence.begin(1)  # nobody is to be kept out yet: the model is asked meanwhile
        else:
            await insist(lambda: self._fence.raise_(state.attempt), self._patience)
        if state.cancel:
            self.stop(Stop.CANCELLED)
        await self._take_up(state)
        if self._stop.done():
            return await self._stopped(self._stop.result())
        if state.failures >= self._limits.attempts:
            return await self._fail(TooManyAttempts())
        return await self._attempt()

    async def _settle(self, state: JobState) -> Outcome:
        """The job has ended: what its end lacks is done for the attempt that recorded it."""
        if not state.end:
            await insist(lambda: self._fence.raise_(state.attempt), self._patience)
            await insist(lambda: self._conclusion.settle(self.job, state, self._relay), self._patience)
        await insist(self._delivery.done, self._patience)
        return Outcome(state.status.value)

    async def _begin(self) -> JobState | Outcome:
        """The job's record, with a new attempt in it unless it has ended; an outcome where it is not to be run here."""
        job, holder, dead = self.job, self._holder, ""
        while True:
            state = await insist(partial(self._records.begin, job, self._trace_id, holder, dead), self._patience)
            if state is None:
                await insist(self._delivery.done, self._patience)
                return Outcome.FORGOTTEN
            if state.status.final or state.holder in ("", holder):
                return state
            if await insist(partial(self._holders.alive, state.holder), self._patience):
                return Outcome.LEFT
            dead = state.holder

    async def _take_up(self, state: JobState) -> None:
        """What earlier attempts have stored is gone on from, where the handler can, or declared void."""
        if state.attempt == 1:
            return
        job = self.job
        earlier = await insist(
            lambda: read_answer(self._history, job.job_id, job.tail, job.start or state.start), self._patience
        )
        if earlier.whole and not earlier.pieces:
            return
        handler: object = self._handlers.get(job.kind)
        ends_here = self._stop.done() or state.failures >= self._limits.attempts  # whatever the handler says
        going_on = False
        if isinstance(handler, Continuing) and earlier.whole and not ends_here:
            going_on = handler.continues(job.params, earlier)
        if ends_here or going_on:
            self._relay.index = earlier.pieces  # a job that ends here keeps what was shown
            self._before = _so_far(state, earlier)
            self._work.earlier = earlier if going_on else None
        else:
            await self._relay.restart()

    async def _attempt(self) -> Outcome:
        seconds, overdue = self._limits.job_seconds, False
        if self.job.deadline is not None and self.job.deadline - time.time() < seconds:
            seconds, overdue = self.job.deadline - time.time(), True
        if seconds <= 0:
            return await self._fail(JobTimeout(None))
        pump = asyncio.create_task(self._pump())
        try:
            first: set[asyncio.Future[Any]] = {pump, self._stop, self._relay.writing}
            await asyncio.wait(first, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                return await self._ended(pump)
        finally:
            # The generator is closed before anything else is written: nothing can follow the last event.
            await end([pump])
        if self._stop.done():
            return await self._stopped(self._stop.result())
        if self._relay.writing.done():
            return await self._broken_off(self._relay.writing)
        return await self._fail(JobTimeout(None if overdue else seconds))

    async def _pump(self) -> Finish:
        """Hands the handler's pieces to the relay; gives the last one. Raises JobError."""
        handler = self._handlers.get(self.job.kind)
        if handler is None:
            raise UnknownKind
        async with aclosing(handler(self._work, self.job.params)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Finish):
                    # Checked, since it goes into the record: what that can't hold would make it unreadable.
                    return msgspec.convert(msgspec.to_builtins(piece), Finish)
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
        return await self._finish(JobStatus.DONE, finish.reason, finish.usage, finish.model or "")

    async def _stopped(self, reason: Stop) -> Outcome:
        if reason is Stop.CANCELLED:
            return await self._finish(JobStatus.CANCELLED, "cancelled", None, "")
        if reason is Stop.TAKEN_OVER:
            return Outcome.ABANDONED
        try:
            async with asyncio.timeout(HAND_BACK_SECONDS):
                await self._relay.finish()
        except JobError as error:
            return await self._fail(error)
        if not await self._records.requeue(self.job.job_id, self._work.attempt, self._relay.index, self._usage()):
            return Outcome.ABANDONED
        await self._delivery.give_back()
        return Outcome.HANDED_BACK

    async def _finish(self, status: JobStatus, reason: str, usage: Usage | None, model: str) -> Outcome:
        try:
            await self._relay.finish()
        except JobError as error:
            return await self._fail(error)
        counted = self._usage(usage)
        await insist(
            lambda: self._conclusion.done(self.job, self._work.attempt, self._relay, status, reason, counted, model),
            self._patience,
        )
        await insist(self._delivery.done, self._patience)
        return Outcome(status.value)

    async def _broken_off(self, writing: asyncio.Future[None]) -> Outcome:
        try:
            writing.result()
        except JobError as error:
            return await self._fail(error)
        raise AssertionError("writing ends only after the handler has, or with an error")

    async def _fail(self, error: JobError) -> Outcome:
        if not (self._relay.writing.done() and self._relay.writing.exception()):
            try:
                await self._relay.finish()
            except JobError as earlier:  # what waited can't be written, which came before what is at hand
                error = earlier
        log.warning("job %s failed: %s: %s", self.job.job_id, error.code, error, exc_info=error.__cause__)
        await insist(
            lambda: self._conclusion.failed(self.job, self._work.attempt, self._relay, error, self._usage()),
            self._patience,
        )
        bad = isinstance(error, UnknownKind | InvalidParams)
        await insist(self._delivery.discard if bad else self._delivery.done, self._patience)
        return Outcome.FAILED

    def _usage(self, told: Usage | None = None) -> Usage:
        """Of the answer as it is shown. Of this attempt it is what the handler has `told`, else what its calls of the
        model have used so far; where it made none, a piece of text counts as a token."""
        own = told or self._work.used or Usage(completion_tokens=self._relay.taken)
        prompt = self._before.prompt_tokens or own.prompt_tokens  # it counts once, however often it was read
        return Usage(prompt, self._before.completion_tokens + own.completion_tokens)


def _so_far(state: JobState, earlier: Answer) -> Usage:
    """What the stored beginning of an answer has used: as its worker has said that gave the job back, or, where that
    died, as far as the events show it."""
    known = state.usage or Usage()
    if state.pieces == earlier.pieces:
        return known
    return Usage(known.prompt_tokens, (earlier.usage or Usage()).completion_tokens)
