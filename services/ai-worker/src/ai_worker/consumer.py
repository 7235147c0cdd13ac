"""Takes jobs from the work queue, one for each free slot, and runs them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context

from ai_worker.attempt import Attempt
from ai_worker.handlers.handler import Handlers, Work
from ai_worker.outcomes import Outcome, Stop
from tidegate_common.bus.jobs.dequeue import Delivery, JobQueue
from tidegate_common.bus.requests.retry import RETRY_SECONDS
from tidegate_common.contract.jobs import Job
from tidegate_common.errors import QueueGone, QueueRefused, TidegateError, Unreadable
from tidegate_common.runtime.tasks import end, spawn
from tidegate_common.telemetry import names, propagation
from tidegate_common.telemetry.providers import Telemetry
from tidegate_common.telemetry.trouble import Trouble

log = logging.getLogger(__name__)

TAKE_SECONDS = 1.0
"""How long one request for a job waits: stopping waits for it, so that no job is lost on its way here."""

HAND_BACK_SECONDS = 1.0
DEPTH_SECONDS = 5.0
STRAYS_EVERY = 12
"""Looks at the queue's length for one at what in it is nobody's job, which lists all of its subjects."""

Start = Callable[[Job, Delivery, Work], Attempt]
Refuse = Callable[[Delivery, Unreadable], Awaitable[None]]
OpenQueue = Callable[[], Awaitable[JobQueue]]


class JobConsumer:
    """Takes a job only when it has a slot for it: a job that waits in one worker's hand is kept from all others.

    `active` are the jobs in hand, by id; `outcomes` counts how attempts ended; `depth` is the queue's length;
    `strays` are messages in it that no worker takes; `refused` says why NATS does not open it, empty if it does.
    """

    def __init__(
        self,
        open_queue: OpenQueue,
        start: Start,
        refuse: Refuse,
        concurrency: int,
        subject: str,
        handlers: Callable[[], Handlers],
        signals: Telemetry,
    ) -> None:
        self._open_queue = open_queue
        self._start = start
        self._refuse = refuse
        self._slots = asyncio.Semaphore(concurrency)
        self._subject = subject
        self._handlers = handlers
        self._tracer = signals.tracer
        self._queue: JobQueue | None = None
        self._stopping = asyncio.Event()
        self._taking = asyncio.Lock()
        self._tasks: dict[asyncio.Task[None], Attempt] = {}
        self.active: dict[str, Attempt] = {}
        self.outcomes: Counter[str] = Counter()
        self.depth = 0
        self._idle = Trouble(log, "no jobs are taken for now", "jobs are taken again")
        self._gone = Trouble(log, "the queue is opened anew", "the queue is there")
        self._broken = Trouble(log, "taking jobs fails by a fault of ours", level=logging.ERROR)
        self.strays = 0
        self.refused = ""

    async def run(self) -> None:
        """Takes jobs until `drain` is called, whatever happens to NATS."""
        measuring = spawn(self._measure(), "measuring the queue")
        try:
            while not self._stopping.is_set():
                try:
                    await self._take()
                    self._idle.over()
                    self.refused = ""
                except TidegateError as error:
                    self.refused = str(error) if isinstance(error, QueueRefused) else ""
                    self._idle.note(error)
                    await asyncio.sleep(RETRY_SECONDS)
                except Exception as error:
                    self._broken.note(type(error).__name__, error)
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            await end([measuring])

    async def show_life(self) -> None:
        """NATS is back: it may have counted the time of its absence as silence."""
        for attempt in self._tasks.values():
            await attempt.show_life()

    async def renew(self) -> None:
        """The queue is opened anew: the server that came back may not know it any more."""
        queue, self._queue = self._queue, None
        if queue is not None:
            await queue.close()

    def cancel(self, job_id: str) -> None:
        """Stops the job, if it is in hand."""
        if job_id in self.active:
            self.active[job_id].stop(Stop.CANCELLED)

    async def drain(self, seconds: float) -> None:
        """Takes no more; jobs that are not done within `seconds` are given back."""
        self._stopping.set()
        given = asyncio.get_running_loop().time() + seconds
        with suppress(TimeoutError):  # NATS hangs: what it gives later is not acknowledged, and goes to another worker
            async with asyncio.timeout(seconds), self._taking:
                pass  # the request that is under way ends first: it would take again what is given back
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, given - asyncio.get_running_loop().time()))
        for attempt in self._tasks.values():
            attempt.stop(Stop.HANDED_BACK)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(HAND_BACK_SECONDS, seconds / 4))

    async def _take(self) -> None:
        async with self._slots:
            pass  # waits for a free slot; this loop alone takes them
        async with self._taking:
            if self._stopping.is_set():
                return
            if self._queue is None:
                self._queue = await self._open_queue()
            delivery = await self._queue.take(TAKE_SECONDS)
            if delivery is None:
                return
            if self._stopping.is_set():
                await delivery.give_back()
            else:
                await self._begin(delivery)

    async def _begin(self, delivery: Delivery) -> None:
        try:
            job = delivery.job()
        except Unreadable as error:
            await self._refuse(delivery, error)
            return
        running = self.active.get(job.job_id)
        if running is not None and running.job.created == job.created and not running.over.is_set():
            # NATS gave it out again since it did not hear this worker. `created` tells it from a repeat, which may have
            # the same id and is another job.
            await running.adopt(delivery)
            return
        span, work = self._spans(job, delivery)
        with propagation.attached(work.trace):  # the task keeps it, for its logs
            attempt = self._start(job, delivery, work)
            await self._slots.acquire()  # there is one; from here on it is the task's to give back
            self.active[job.job_id] = attempt
            task = spawn(self._run(attempt, span), "a job")
        self._tasks[task] = attempt
        task.add_done_callback(self._tasks.pop)

    def _spans(self, job: Job, delivery: Delivery) -> tuple[Span, Work]:
        """The attempt's span, which has begun, and its work. The wait in the queue is a span that is over already."""
        parent = propagation.extract(delivery.headers)
        destination = f"{self._subject}.{job.kind}"
        # A kind that nobody has a handler for is its asker's word: it makes no name of a span.
        name = destination if job.kind in self._handlers() else self._subject
        attributes: dict[str, str | int] = {
            names.MESSAGING_SYSTEM: "nats",
            names.MESSAGING_DESTINATION: destination,
            names.MESSAGING_MESSAGE_ID: job.job_id,
            names.JOB_ID: job.job_id,
            names.JOB_KIND: job.kind,
        }
        if delivery.number == 1:
            queued = {**attributes, names.MESSAGING_OPERATION_NAME: "queue"}
            start = int(job.created * 1e9)
            self._tracer.start_span(f"queue {name}", parent, SpanKind.INTERNAL, queued, start_time=start).end()
        process = {
            **attributes,
            names.MESSAGING_OPERATION_NAME: "process",
            names.MESSAGING_OPERATION_TYPE: "process",
            names.JOB_DELIVERY: delivery.number,
        }
        span = self._tracer.start_span(f"process {name}", parent, SpanKind.CONSUMER, process)
        return span, Work(job.job_id, 0, set_span_in_context(span, parent))

    async def _run(self, attempt: Attempt, span: Span) -> None:
        outcome = Outcome.ABANDONED
        try:
            outcome = await attempt.run()
        finally:
            span.set_attributes({names.JOB_ATTEMPT: attempt.number, names.JOB_OUTCOME: str(outcome)})
            if outcome is Outcome.FAILED:
                span.set_status(StatusCode.ERROR)
            span.end()
            self._slots.release()
            self.outcomes[outcome] += 1
            if self.active.get(attempt.job.job_id) is attempt:
                del self.active[attempt.job.job_id]
            log.info("job %s: %s", attempt.job.job_id, outcome)

    def _note_strays(self, number: int) -> None:
        if number and number != self.strays:
            log.warning(
                "%d messages in the queue are on subjects that no worker takes jobs from: they count in it until they "
                "are purged",
                number,
            )
        self.strays = number

    async def _measure(self) -> None:
        looks = 0
        while True:
            queue = self._queue
            try:
                if queue is not None:
                    self.depth = await queue.depth()
                    self._gone.over()
                    if looks % STRAYS_EVERY == 0:
                        self._note_strays(await queue.strays())
                    looks += 1
            except TidegateError as error:
                # The last figure stands. The queue is opened anew in any case: if the stream or its consumer was
                # deleted, a request for jobs would hear nothing for ever. `run` says that NATS does not answer.
                if isinstance(error, QueueGone):
                    self._gone.note(error)
                await self.renew()
            except Exception as error:
                self._broken.note(type(error).__name__, error)
            await asyncio.sleep(DEPTH_SECONDS)
