"""A real worker process on a real nats-server, asked as publisher-api would ask it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from ai_worker.holders import Holders
from ai_worker.lease import Lease
from tests.support.bus import connected
from tests.support.nats import NatsServer, nats_server
from tests.support.ports import free_port
from tests.support.processes import Running, service
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus
from tidegate_common.bus.events.history import History
from tidegate_common.bus.events.publisher import EventPublisher
from tidegate_common.bus.jobs.cancel import announce_cancel
from tidegate_common.bus.jobs.enqueue import QueueWriter
from tidegate_common.bus.jobs.records import JobRecords
from tidegate_common.bus.wire import headers
from tidegate_common.contract.ids import EventId
from tidegate_common.contract.jobs import Job, JobState, JobStatus

TRACE = "0123456789abcdef0123456789abcdef"
PARENT = f"00-{TRACE}-0123456789abcdef-01"
FAST = {"TIDEGATE_SCRIPTED_THINK_SECONDS": "0", "TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0", "TIDEGATE_AI_COALESCE_MS": "0"}
SLOW = {**FAST, "TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0.01"}


class Heard(NamedTuple):
    """One event as a gateway gets it."""

    type: str
    data: dict[str, Any]
    trace_parent: str


class Desk:
    """Asks for jobs and hears what is answered to `client.ann`."""

    def __init__(self, bus: Bus, states: JobRecords) -> None:
        self.bus = bus
        self.states = states
        self.history = History(bus)
        self.publisher = EventPublisher(bus, self.history)
        self.queueing = QueueWriter(bus, self.publisher, states)
        self.events: list[Heard] = []
        bus.client.subscribe_direct(bus.subjects.outbound("client.ann"), self._hear)

    def _hear(self, _: bytes, block: bytes, payload: bytes) -> None:
        event_type = (headers.field(block, headers.EVENT_TYPE) or b"").decode()
        parent = (headers.field(block, headers.TRACE_PARENT) or b"").decode()
        self.events.append(Heard(event_type, json.loads(payload), parent))

    async def ask(self, job_id: str, prompt: str = "hello", kind: str = "chat", **params: Any) -> None:
        await self.put(job_id, kind, {"messages": [{"role": "user", "content": prompt}], **params})

    async def put(self, job_id: str, kind: str, params: dict[str, Any], **more: Any) -> None:
        """Queues a job; `more` are other fields of its message."""
        position = await self.history.position()
        start = str(EventId(position.epoch, position.last))
        fields = {"tail": "client.ann", "created": time.time(), "start": start, **more}
        await self.queueing.put(Job(job_id=job_id, kind=kind, params=params, **fields), {"traceparent": PARENT}, TRACE)

    async def cancel(self, job_id: str) -> None:
        """As publisher-api does: the record first, then whoever may be at work."""
        await self.states.change(job_id, lambda state: replace(state, cancel=True))
        await announce_cancel(self.bus, job_id)

    def of(self, job_id: str) -> list[Heard]:
        return [event for event in self.events if event.data["job_id"] == job_id]

    def text(self, job_id: str) -> str:
        """What a client shows: the pieces since the last restart."""
        shown = ""
        for event in self.of(job_id):
            if event.type == "ai_restart":
                shown = ""
            elif event.type == "ai_response":
                shown += event.data["content"]
        return shown

    async def end(self, job_id: str, seconds: float = 15) -> Heard:
        """The job's last event."""
        await until(lambda: any(event.data.get("done") for event in self.of(job_id)), f"the end of {job_id}", seconds)
        return self.of(job_id)[-1]

    async def state(self, job_id: str, status: JobStatus) -> JobState:
        """The record, once it says `status`."""

        async def reached() -> bool:
            return (await self.states.get(job_id)).status is status

        await until(reached, f"{job_id} is {status}")
        return await self.states.get(job_id)

    async def queue_empty(self) -> None:
        async def empty() -> bool:
            return (await self.bus.jetstream.stream_info("TG_JOBS")).state.messages == 0

        await until(empty, "the queue is empty")


async def job_of(asking: Desk, job_id: str = "j1") -> Job:
    """What is in the queue under that record."""
    created = (await asking.states.get(job_id)).created
    return Job(job_id=job_id, kind="chat", tail="client.ann", params={}, created=created)


def lease(asking: Desk, job: Job) -> Lease:
    """Of one more attempt, whose worker says nothing."""
    subject = asking.bus.subjects.fence(job.job_id)
    return Lease(job, "", asking.states, Holders(asking.bus), asking.publisher, asking.history, subject)


@asynccontextmanager
async def desk(data: Path) -> AsyncIterator[tuple[NatsServer, Desk]]:
    """A server of its own and a desk at it."""
    async with nats_server(data) as nats, connected(nats.url) as bus:
        yield nats, Desk(bus, JobRecords(bus))


@asynccontextmanager
async def worker(nats: NatsServer, env: Mapping[str, str] | None = None) -> AsyncIterator[tuple[Running, str]]:
    """A worker with the scripted model, unless `env` says otherwise, and its address."""
    port = free_port()
    shared = {"TIDEGATE_NATS_URL": nats.url, "TIDEGATE_AI_BACKEND": "scripted", "TIDEGATE_DRAIN_SECONDS": "2"}
    async with service("ai_worker", port, {**shared, **(env or FAST)}) as run:
        yield run, f"http://127.0.0.1:{port}"


@asynccontextmanager
async def office(data: Path, env: Mapping[str, str] | None = None) -> AsyncIterator[Desk]:
    """A server, a worker, and a desk."""
    async with AsyncExitStack() as stack:
        nats, asking = await stack.enter_async_context(desk(data))
        await stack.enter_async_context(worker(nats, env))
        yield asking
