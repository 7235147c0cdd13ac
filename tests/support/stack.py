"""All of Tidegate as real processes on free ports of loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.nats import NatsServer, nats_server
from tests.support.ports import free_port
from tests.support.processes import Running, service


class Stack(NamedTuple):
    nats: NatsServer
    gateways: list[str]
    """Addresses, one for each gateway."""
    publisher: str
    worker: str
    processes: dict[str, Running]


@asynccontextmanager
async def stack(data: Path, env: Mapping[str, str] | None = None, gateways: int = 1) -> AsyncIterator[Stack]:
    """NATS, publisher-api, ai-worker (scripted unless `env` says otherwise) and gateways, all ready."""
    async with AsyncExitStack() as running:
        nats = await running.enter_async_context(nats_server(data / "nats"))
        ports = [free_port() for _ in range(gateways)]
        publisher_port, worker_port = free_port(), free_port()
        publisher = f"http://127.0.0.1:{publisher_port}"
        shared = {
            "TIDEGATE_NATS_URL": nats.url,
            "TIDEGATE_AI_BACKEND": "scripted",
            "TIDEGATE_CORS_ORIGINS": ",".join(f"http://127.0.0.1:{port}" for port in ports),
            "TIDEGATE_PUBLISHER_URL": publisher,
            "TIDEGATE_DRAIN_SECONDS": "2",
            **(env or {}),
        }
        processes = {
            "publisher-api": await running.enter_async_context(service("publisher_api", publisher_port, shared)),
            "ai-worker": await running.enter_async_context(service("ai_worker", worker_port, shared)),
        }
        for number, port in enumerate(ports):
            processes[f"gateway-{number}"] = await running.enter_async_context(service("gateway", port, shared))
        addresses = [f"http://127.0.0.1:{port}" for port in ports]
        yield Stack(nats, addresses, publisher, f"http://127.0.0.1:{worker_port}", processes)
