"""One attempt at a job, from its delivery to its acknowledgement: acquire it, resume or restart its answer, run its
handler, finish it.

A worker may die anywhere in between. Then nobody acknowledges the job, NATS gives it to another worker, and that
worker's attempt takes the same four steps (`Attempt._run`). By the record it knows how far the dead one came:

- **queued**: it had not acquired the job, or had just handed it back. This attempt is the next, and nobody has failed.
- **running**, and its holder does not answer: it counts as a failure. What is stored of the answer is read. If the
  handler can go on from that, it does, and nobody sees a thing; else `ai_restart` declares it void.
- **ended**: it died as it finished. Nothing is run, and the end is completed (bus/jobs/finish.py).

A worker that was only paused finds out when it comes back: the stream refuses its next event (lease.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec

from ai_worker.event_writer import EventWriter, Pace
from ai_worker.handlers.handler import Handlers, ResumableHandler, Work
from ai_worker.holders import Holders
from ai_worker.job_errors import BackendFailed, JobError, UnknownKind
from ai_worker.lease import HeldByAnother, Lease
from ai_worker.listeners import all_gone
from ai_worker.outcomes import (
    Outcome,
    Result,
    Stop,
    dead_job,
    end_of,
    hindrance,
    result_of,
    time_limit,
    used,
    used_before,
)
from ai_worker.pieces import Finish
from ai_worker.refusal import refuse
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.dead import DeadJobs
from tidegate_common.bus.jobs.dequeue import Delivery
from tidegate_common.bus.jobs.events import read_answer
from tidegate_common.bus.jobs.finish import JobEnds, ended
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.requests.gateways import AllGateways
from tidegate_common.bus.requests.retry import insist
from tidegate_common.contract.answers import Answer
from tidegate_common.contract.jobs import Job, JobState, OnDisconnect, Usage
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerUnavailable, NotFound, OtherRelease, Superseded, Unreadable
from tidegate_common.runtime.tasks import end, spawn
from tidegate_common.telemetry import propagation

log = logging.getLogger(__name__)

T = TypeVar("T")

HAND_BACK_SECONDS = 1.0
"""How long what waits may take to be written before a job is handed back."""

OTHERS_SECONDS = 3_600.0
"""How long a job is left to the workers of another release, which has changed its record."""


class AttemptLimits(msgspec.Struct, frozen=True):
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
    records: JobRecords
    ends: JobEnds
    dead: DeadJobs
    gateways: AllGateways
    holders: Holders


class Attempt:
    """One attempt at one job. `stop` may be called at any time, more than once: the first reason counts."""

    def __init__(
        self, job: Job, delivery: Delivery, work: Work, handlers: Handlers, services: Services, limits: AttemptLimits
    ) -> None:
        self.job = job
        self._delivery = delivery
        self._work = work
        self._handlers = handlers
        self._services = services
        self._limits = limits
        self._lease = Lease(
            job,
            propagation.trace_id(work.trace),
            services.records,
            services.holders,
            services.publisher,
            services.history,
            services.subjects.fence(job.job_id),
        )
        self._writer = EventWriter(services.publisher, work, job.tail, self._lease.fence, limits.pace)
        self.over = asyncio.Event()
        """Nothing more comes from this attempt."""
        self._before = Usage()
        """Of what is stored of the answer and goes on to count: earlier attempts'."""
        self._stop: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()

    @property
    def number(self) -> int:
        """Among the job's attempts; 0 before the record has given it one."""
        return self._lease.attempt

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
            with self._services.holders.holding(self._lease.holder):
                return await self._run()
        except HeldByAnother:
            return Outcome.LEFT
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
            await self._writer.drop()
            await self._lease.fence.aclose()
            self.over.set()

    async def _run(self) -> Outcome:
        # 1. Acquire.
        state = await self._insist(self._lease.acquire)
        if state is None:
            await self._insist(self._delivery.done)
            return Outcome.FORGOTTEN
        if state.status.final:
            return await self._complete(state)
        self._work.attempt = state.attempt
        stopped = self._stop.result() if self._stop.done() else None
        hindered = stopped or hindrance(self.job, state, self._limits.attempts, time.time())
        # 2. Resume or restart.
        if state.attempt == 1:
            self._lease.fence.begin(1)  # nobody is to be kept out yet: the model is asked meanwhile
        else:
            # Before the answer is read: nothing is added any more to what is found there.
            await self._insist(lambda: self._lease.fence.raise_(state.attempt))
            await self._resume(state, ends_here=hindered is not None)
        # 3. Run, and 4. finish.
        return await self._finish(hindered or await self._run_handler())

    async def _complete(self, state: JobState) -> Outcome:
        """The job has ended: what its end lacks is done for the attempt that recorded it."""
        if not state.end:
            # Before the look for the last event: the attempt that recorded the end can't write it after that.
            await self._insist(lambda: self._lease.fence.raise_(state.attempt))
            await self._write_end(state, look=True)
        await self._insist(self._delivery.done)
        return Outcome(state.status.value)

    async def _resume(self, state: JobState, ends_here: bool) -> None:
        """Goes on from what earlier attempts have stored, if the handler can, or declares it void."""
        history, job = self._services.history, self.job
        earlier = await self._insist(lambda: read_answer(history, job.job_id, job.tail, job.start or state.start))
        if earlier.whole and not earlier.pieces:
            return
        goes_on = not ends_here and self._can_go_on(earlier)
        if goes_on or ends_here:
            self._writer.index = earlier.pieces  # a job that ends here keeps what was shown
            self._before = used_before(state, earlier)
            self._work.earlier = earlier if goes_on else None
        else:
            await self._writer.restart()

    def _can_go_on(self, earlier: Answer) -> bool:
        handler: object = self._handlers.get(self.job.kind)
        return earlier.whole and isinstance(handler, ResumableHandler) and handler.continues(self.job.params, earlier)

    async def _run_handler(self) -> Result:
        """Ends when the handler has, or is to: on a stop, a piece that can't be written, or after its time."""
        if self._stop.done():
            return self._stop.result()  # the model is not asked
        seconds, late = time_limit(self.job, self._limits.job_seconds, time.time())
        handling = asyncio.create_task(self._handle())
        writing = self._writer.writing
        first: set[asyncio.Future[Any]] = {handling, self._stop, writing}
        try:
            await asyncio.wait(first, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return result_of(handling, self._stop, writing, late)
        finally:
            # The generator is closed before anything else is written: nothing can follow the last event.
            await end([handling])

    async def _handle(self) -> Finish:
        """Hands the handler's pieces to the writer; gives the last one. Raises JobError."""
        handler = self._handlers.get(self.job.kind)
        if handler is None:
            raise UnknownKind
        try:
            async with aclosing(handler(self._work, self.job.params)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Finish):
                        # Checked, since it goes into the record: what that can't hold would make it unreadable.
                        return msgspec.convert(msgspec.to_builtins(piece), Finish)
                    await self._writer.put(piece)
        except JobError:
            raise
        except Exception as error:
            log.exception("job %s: the handler failed", self.job.job_id)
            raise BackendFailed from error
        return Finish("stop")

    async def _finish(self, result: Result) -> Outcome:
        if result is Stop.TAKEN_OVER:
            return Outcome.ABANDONED
        try:
            async with asyncio.timeout(HAND_BACK_SECONDS if result is Stop.HANDED_BACK else None):
                await self._writer.finish()
        except JobError as error:
            # Of a piece that waited: it came before the end that is at hand, and another attempt would yield it again.
            result = error
        if result is Stop.HANDED_BACK:
            return await self._hand_back()
        if isinstance(result, JobError):
            log.warning("job %s failed: %s: %s", self.job.job_id, result.code, result, exc_info=result.__cause__)
        told = result.usage if isinstance(result, Finish) else None
        edit = partial(ended, attempt=self.number, end=end_of(result, self._writer.index, self._usage(told)))
        try:
            state, here = await self._insist(lambda: self._services.ends.record(self.job.job_id, edit))
        except NotFound:
            raise Superseded("the job's record is gone") from None
        if not state.status.final:
            raise Superseded("another attempt has begun since")
        await self._write_end(state, look=not here)
        await self._insist(self._delivery.done)
        return Outcome(state.status.value)

    async def _write_end(self, state: JobState, *, look: bool) -> None:
        """All that comes between the record and the acknowledgement, under the fence."""
        complete = partial(
            self._services.ends.complete, store=self._writer.store, trace=self._work.trace, keep=self._keep
        )
        await self._insist(lambda: complete(msgspec.structs.replace(state, tail=self.job.tail), look=look))

    async def _keep(self, state: JobState) -> None:
        dead = dead_job(self.job, state)
        if dead is not None:
            await self._services.dead.keep(dead)

    async def _hand_back(self) -> Outcome:
        if not await self._lease.give_back(self._writer.index, self._usage()):
            return Outcome.ABANDONED
        await self._delivery.give_back()
        return Outcome.HANDED_BACK

    def _usage(self, told: Usage | None = None) -> Usage:
        """Of the answer as it is shown. Of this attempt it is what the handler has `told`, else what its calls of the
        model have used so far; if it made none, a piece of text counts as a token."""
        return used(self._before, told or self._work.used or Usage(completion_tokens=self._writer.taken))

    async def _refuse(self) -> Outcome:
        try:
            await refuse(self._delivery, self._services.ends)
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
                state = await self._lease.record()
            except BrokerUnavailable:
                continue
            if state is not None and state.attempt > self.number > 0:
                self.stop(Stop.TAKEN_OVER)
                return
            if state is not None and state.cancel:
                self.stop(Stop.CANCELLED)

    async def _listen(self) -> None:
        await all_gone(self._services.gateways, self.job)
        self.stop(Stop.CANCELLED)

    async def _insist(self, action: Callable[[], Awaitable[T]]) -> T:
        return await insist(action, self._limits.pace.patience)
