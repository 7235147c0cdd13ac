"""A gateway, a scripted worker and OpenAI's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from openai import AsyncOpenAI

from tests.support.gateway import RunningGateway, running_gateway
from tests.support.nats import nats_server
from tests.support.working import Script, ScriptedWorker, hello, scripted_worker

ASK: list[Any] = [{"role": "user", "content": "Say hello."}]


class Front(NamedTuple):
    gateway: RunningGateway
    worker: ScriptedWorker
    client: AsyncOpenAI

    async def status(self, job_id: str | None) -> str:
        """What the job's record says."""
        return (await self.worker.states.get(job_id or "")).status.value


@asynccontextmanager
async def front(data: Path, script: Script = hello, **settings: Any) -> AsyncIterator[Front]:
    """All of it, ready; the client repeats nothing by itself."""
    async with nats_server(data) as nats, running_gateway(nats.url, **settings) as gateway:
        async with scripted_worker(nats.url, script) as worker:
            async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, timeout=20) as client:
                yield Front(gateway, worker, client)
