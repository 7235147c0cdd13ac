"""A gateway, a scripted worker and OpenAI's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace
from openai import AsyncOpenAI

from tests.support.gateway import RunningGateway, running_gateway
from tests.support.nats import nats_server
from tests.support.waiting import until
from tests.support.working import Script, ScriptedWorker, hello, scripted_worker
from tidegate_common.bus.jobs.budgets import Budgets
from tidegate_common.bus.streams.leaders import Leaders
from tidegate_common.contract.jobs import Usage

ASK: list[Any] = [{"role": "user", "content": "Say hello."}]


class Front(NamedTuple):
    gateway: RunningGateway
    worker: ScriptedWorker
    client: AsyncOpenAI

    async def status(self, job_id: str | None) -> str:
        """What the job's record says."""
        return (await self.worker.states.get(job_id or "")).status.value

    async def becomes(self, status: str, job_id: str | None) -> None:
        """Waits until the job's record says `status`. Raises AssertionError with what it says instead."""

        async def there() -> bool:
            return await self.status(job_id) == status

        try:
            await until(there, f"the job is {status}")
        except AssertionError as error:
            error.add_note(f"its record: {await self.worker.states.get(job_id or '')}")
            raise

    async def settle(self, job_id: str, usage: Usage) -> None:
        """Notes in its budget what the job has used, as a worker does."""
        records = self.worker.states
        state = await records.get(job_id)
        await Budgets(self.worker.bus, records, Leaders(self.worker.bus)).settle(replace(state, usage=usage))


@asynccontextmanager
async def front(data: Path, script: Script = hello, **settings: Any) -> AsyncIterator[Front]:
    """All of it, ready; the client repeats nothing by itself."""
    async with nats_server(data) as nats, front_at(nats.url, script, **settings) as running:
        yield running


@asynccontextmanager
async def front_at(nats_url: str, script: Script = hello, **settings: Any) -> AsyncIterator[Front]:
    """The same, on a server that is there."""
    async with running_gateway(nats_url, **settings) as gateway:
        async with scripted_worker(nats_url, script) as worker:
            async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=20) as client:
                yield Front(gateway, worker, client)
