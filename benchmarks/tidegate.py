"""Tidegate as it is deployed: real processes, metrics on, tracing at 1 %."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

from benchmarks.options import Options
from benchmarks.server import Server
from tests.stress.proxy import FaultProxy, fault_proxy
from tests.support.nats import NatsServer, nats_server
from tests.support.otlp import collector
from tests.support.ports import free_port
from tests.support.processes import Running, service
from tests.support.waiting import until

CONNECTED = "event: connected"
UNLIMITED = httpx.Limits(max_connections=None, max_keepalive_connections=None)


@dataclass
class Tidegate:
    """One gateway with all that it needs."""

    server: Server
    nats: NatsServer
    processes: dict[str, Running]
    publisher_url: str
    http: httpx.AsyncClient
    """Of publisher-api."""
    monitor_port: int
    """Where NATS tells who is connected."""
    proxy: FaultProxy | None
    """Between the gateway and NATS."""

    def pid(self, part: str) -> int:
        return self.processes[part].process.pid

    async def until_active(self, count: int) -> None:
        """Returns when the gateway holds `count` streams. Raises AssertionError after half a minute."""

        async def active() -> bool:
            text = (await self.http.get(f"http://127.0.0.1:{self.server.port}/metrics")).text
            found = re.search(r"^tidegate_connections_active(?:\{.*\})? (\S+)$", text, re.M)
            return found is not None and float(found[1]) == count

        await until(active, f"{count} streams are open", 30)


@asynccontextmanager
async def tidegate(
    options: Options,
    env: Mapping[str, str] | None = None,
    *,
    worker: Mapping[str, str] | None = None,
    publisher: str = "publisher_api",
    gateway_module: str = "gateway",
    bearer: str = "",
    cuttable: bool = False,
) -> AsyncIterator[Tidegate]:
    """NATS, publisher-api and a gateway, ready; with `worker` an ai-worker too. `publisher`, `gateway_module` are the
    modules that are run as such; `bearer` is what brings the benchmark its rights in the mode `token`. If it is
    `cuttable`, the gateway reaches NATS through a proxy that can cut it off. Settings differ from the defaults only in
    the limits on connections (all come from one address) and in what `env` says."""
    async with AsyncExitStack() as stack:
        spans = await stack.enter_async_context(collector())
        gateway_port, publisher_port, monitor_port = free_port(), free_port(), free_port()
        nats = await stack.enter_async_context(nats_server(options.folder("nats"), monitor_port=monitor_port))
        proxy = await stack.enter_async_context(fault_proxy(nats.port)) if cuttable else None
        shared = {
            "TIDEGATE_NATS_URL": nats.url,
            "TIDEGATE_MAX_CONNECTIONS": "20000",
            "TIDEGATE_MAX_CONNECTIONS_PER_IP": "0",
            "TIDEGATE_DRAIN_SECONDS": "1",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{spans.endpoint}/v1/traces",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.01",
            **(env or {}),
        }
        reached = {"TIDEGATE_NATS_URL": f"nats://127.0.0.1:{proxy.port}"} if proxy else {}
        parts = [(publisher, publisher_port, shared), (gateway_module, gateway_port, {**shared, **reached})]
        if worker is not None:
            parts.append(("ai_worker", free_port(), {**shared, **worker}))
        runs = [
            await stack.enter_async_context(service(module, port, given, python=options.python))
            for module, port, given in parts
        ]
        processes = dict(zip(("publisher-api", "gateway", "ai-worker"), runs, strict=False))
        url = f"http://127.0.0.1:{publisher_port}"
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=url, timeout=60, limits=UNLIMITED, headers=headers)
        )

        async def publish(text: str) -> None:
            answer = await http.post("/api/sse/broadcast", json={"event_type": "tick", "data": text})
            answer.raise_for_status()

        gateway, writer = processes["gateway"].process.pid, processes["publisher-api"].process.pid
        beside = [writer, nats.run.process.pid]
        server = Server("Tidegate", gateway_port, "/api/sse", [gateway], publish, CONNECTED, beside)
        yield Tidegate(server, nats, processes, url, http, monitor_port, proxy)
