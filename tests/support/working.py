"""A worker whose answers a test writes: jobs come from the real queue, events go to the real stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from msgspec.structs import replace

from tests.support.bus import SUBJECTS
from tests.support.least_rights import as_service
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.cancel import on_cancel
from tidegate_common.bus.jobs.dequeue import JobQueue
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.bus.streams.patience import Patience
from tidegate_common.contract import events
from tidegate_common.contract.answers import AiDone, AiError, AiResponse, AiRestart
from tidegate_common.contract.events import Event
from tidegate_common.contract.jobs import ChatParams, Job, JobState, JobStatus, Usage
from tidegate_common.runtime.tasks import end


class Turn:
    """One attempt at a job. What it says is stored before a call returns."""

    def __init__(self, job: Job, headers: dict[str, str], worker: ScriptedWorker) -> None:
        self.job = job
        self.headers = headers
        self.params = msgspec.convert(job.params, ChatParams)
        self.cancelled = asyncio.Event()
        self._worker = worker
        self._index = 0
        self.over = False

    @property
    def prompt(self) -> str:
        return self.params.messages[-1].content

    async def text(self, content: str, candidate: int = 0, reason: str | None = None) -> None:
        data = AiResponse(
            job_id=self.job.job_id, index=self._next(), content=content, candidate=candidate, finish_reason=reason
        )
        await self._store("ai_response", data)

    async def reasoning(self, content: str) -> None:
        await self._store("ai_reasoning", AiResponse(job_id=self.job.job_id, index=self._next(), content=content))

    async def restart(self) -> None:
        self._index = 0
        await self._store("ai_restart", AiRestart(job_id=self.job.job_id, attempt=2))

    async def done(self, reason: str = "stop", usage: Usage | None = None, model: str = "") -> None:
        data = AiDone(
            job_id=self.job.job_id, index=self._next(), finish_reason=reason, usage=usage or Usage(3, 2), model=model
        )
        status = JobStatus.CANCELLED if reason == "cancelled" else JobStatus.DONE
        await self._end("ai_response", data, status)

    async def fail(self, code: str, message: str = "It did not work.") -> None:
        await self._end("ai_error", AiError(job_id=self.job.job_id, code=code, message=message), JobStatus.FAILED)

    def _next(self) -> int:
        self._index += 1
        return self._index - 1

    async def _end(self, event_type: str, data: msgspec.Struct, status: JobStatus) -> None:
        self.over = True
        await self._worker.states.change(self.job.job_id, lambda state: replace(state, status=status))
        event_id = await self._store(event_type, data, {events.JOB_END: "1"})
        await self._worker.states.change(self.job.job_id, lambda state: replace(state, end=event_id))

    async def _store(self, event_type: str, data: msgspec.Struct, more: dict[str, str] | None = None) -> str:
        event = Event(event_type, msgspec.json.encode(data).decode())
        headers = {events.JOB: self.job.job_id, **(more or {})}
        return (await self._worker.publisher.durable(self.job.tail, event, headers=headers)).id


Script = Callable[[Turn], Awaitable[None]]


def begun(state: JobState) -> JobState | None:
    """None if the job has ended: it was cancelled while it waited, and nobody is to work at it."""
    return None if state.status.final else replace(state, status=JobStatus.RUNNING)


class ScriptedWorker:
    """Runs `script` for each job, all at once. A job whose script has not ended it when it is cancelled ends so.

    `turns` are those that have begun: the job's record says by then that it runs.
    """

    def __init__(self, bus: Bus, states: JobRecords, script: Script) -> None:
        self.bus = bus
        self.states = states
        self.publisher = EventPublisher(bus, History(bus), 10)
        self.turns: list[Turn] = []
        self._taken: list[Turn] = []
        """A cancel may come between the record's change and its answer."""
        self._script = script
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, queue: JobQueue) -> None:
        while True:
            delivery = await queue.take(5)
            if delivery is not None:
                turn = Turn(delivery.job(), delivery.headers, self)
                self._taken.append(turn)
                self._tasks.add(asyncio.create_task(self._answer(turn)))
                await delivery.done()

    async def _answer(self, turn: Turn) -> None:
        state = await self.states.change(turn.job.job_id, begun)
        if state.status.final:
            return
        self.turns.append(turn)
        working: asyncio.Task[Any] = asyncio.ensure_future(self._script(turn))
        cancelled = asyncio.create_task(turn.cancelled.wait())
        await asyncio.wait({working, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await end([working])
            await turn.done("cancelled", Usage())
        await end([cancelled])
        working.cancelled() or working.result()

    def cancel(self, job_id: str) -> None:
        for turn in self._taken:
            if turn.job.job_id == job_id and not turn.over:
                turn.cancelled.set()

    async def aclose(self) -> None:
        for task in self._tasks:
            if task.done():
                task.result()
        await end(self._tasks)


async def hello(turn: Turn) -> None:
    """Thinks, and answers in two pieces, each candidate."""
    await turn.reasoning("Hm.")
    for candidate in range(turn.params.n):
        await turn.text("Hello", candidate)
        await turn.text(" world", candidate, "stop" if turn.params.n > 1 else None)
    await turn.done(model="scripted-1")


@asynccontextmanager
async def scripted_worker(url: str, script: Script = hello) -> AsyncIterator[ScriptedWorker]:
    """A worker of its own connection."""
    async with connect(as_service(url, "ai-worker"), SUBJECTS, "ai-worker") as bus:
        # As patient as a worker is: a server that has just come back may not have all of its streams yet.
        leaders = Leaders(bus, Patience(deadline_seconds=10, election_seconds=10))
        worker = ScriptedWorker(bus, JobRecords(bus, leaders), script)
        stop = on_cancel(bus, worker.cancel)
        queue = await JobQueue.open(bus)
        running = asyncio.create_task(worker.run(queue))
        try:
            yield worker
        finally:
            await end([running])
            stop()
            await worker.aclose()


def some_job(job_id: str, tail: str, start: str) -> Job:
    """A chat that nobody has queued."""
    return Job(job_id=job_id, kind="chat", tail=tail, params={"messages": []}, created=time.time(), start=start)
