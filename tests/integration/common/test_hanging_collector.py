"""An OTLP endpoint that does not answer holds up no stop."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.nats import nats_server
from tests.support.otlp import collector
from tests.support.ports import free_port
from tests.support.processes import Running, paused, running, service
from tests.support.waiting import until

STOP_SECONDS = 20.0
"""Far less than an exporter waits for its endpoint, and enough for a machine that is busy."""


class Hanging:
    """Takes connections and says nothing; `asked` are the requests that it was sent."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.url = ""

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.asked.append(await reader.readline())
            await reader.read(-1)
        finally:
            writer.close()


@asynccontextmanager
async def hanging() -> AsyncIterator[Hanging]:
    found = Hanging()
    server = await asyncio.start_server(found.take, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield found


def env(nats_url: str, endpoint: str) -> dict[str, str]:
    return {
        "TIDEGATE_NATS_URL": nats_url,
        "TIDEGATE_DRAIN_SECONDS": "1",
        "TIDEGATE_AI_BACKEND": "scripted",
        "TIDEGATE_AI_CONCURRENCY": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "60",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }


async def stops(run: Running, seconds: float = STOP_SECONDS) -> None:
    """It ends within `seconds`, as it should."""
    assert await run.stop(signal.SIGTERM, seconds) == 0, "\n".join(run.output)


@pytest.mark.parametrize("module", ["gateway", "publisher_api", "ai_worker"])
async def test_a_stop_is_over_in_its_time_though_the_collector_hangs(tmp_path: Path, module: str) -> None:
    """It took 16 to 25 seconds instead of 10: spans, then metrics, each until its exporter had given up."""
    async with nats_server(tmp_path) as server, hanging() as endpoint:
        port = free_port()
        async with service(module, port, env(server.url, endpoint.url)) as run:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                for number in range(30):  # more than one span, as far as the service makes any
                    await client.get("/openapi.json" if module == "publisher_api" else f"/v1/models/{number}")
                if module == "publisher_api":
                    await client.post("/api/sse/send", json={"client_id": "a", "event_type": "n", "data": 1})
            await until(lambda: endpoint.asked, "it is exporting")
            await stops(run)
            assert run.count("did not take the last") == 1, "\n".join(run.output)
            assert not run.said("Callback failed"), "every metric can be read from the exporter's thread"


@pytest.mark.parametrize("module", ["gateway", "publisher_api", "ai_worker"])
async def test_a_stop_is_over_in_its_time_though_nats_hangs_as_well(tmp_path: Path, module: str) -> None:
    """A worker waited for NATS to say whether there is a job, for longer than its stop may take."""
    async with nats_server(tmp_path) as server, hanging() as endpoint:
        async with service(module, free_port(), env(server.url, endpoint.url)) as run:
            await until(lambda: endpoint.asked, "it is exporting")
            async with paused(server.run):
                await stops(run, 4.5)  # NATS has five seconds to answer a request for a job


async def test_workers_and_their_parent_end_in_their_time(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, hanging() as endpoint:
        more = {"TIDEGATE_WORKERS": "2"}
        async with service("gateway", free_port(), {**env(server.url, endpoint.url), **more}) as run:
            await until(lambda: len(endpoint.asked) >= 2, "both are exporting")
            await stops(run)


async def test_a_collector_that_refuses_or_is_not_there_costs_a_stop_nothing(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        async with service("publisher_api", free_port(), env(server.url, f"http://127.0.0.1:{free_port()}")) as run:
            await until(lambda: run.said("127.0.0.1"), "it has tried")
            await stops(run)


async def test_what_is_left_is_sent_where_the_collector_answers(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, collector() as found:
        port = free_port()
        settings = env(server.url, found.endpoint)
        settings |= {"OTEL_BSP_SCHEDULE_DELAY": "60000", "OTEL_METRICS_EXPORTER": "none"}
        async with service("publisher_api", port, settings) as run:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                await client.post("/api/sse/send", json={"client_id": "a", "event_type": "n", "data": 1})
            await stops(run)
            assert any(span.name.startswith("send ") for span in found.spans)


async def test_what_can_not_start_says_so_soon_though_the_collector_hangs() -> None:
    async with hanging() as endpoint:
        settings = {**env(f"nats://127.0.0.1:{free_port()}", endpoint.url), "TIDEGATE_PORT": str(free_port())}
        async with running(sys.executable, "-m", "publisher_api", env=settings) as run:
            assert await run.process.wait() == 1
            await run.stop()
            assert run.said("no NATS server answers"), json.dumps(run.output)
