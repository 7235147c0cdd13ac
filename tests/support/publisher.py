"""A publisher-api in this process on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from publisher_api.app import Built, build, serving
from publisher_api.settings import PublisherSettings
from tests.support.bus import SUBJECTS
from tests.support.least_rights import as_service
from tests.support.waiting import until
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.bus.streams.definitions import ensure_streams
from tidegate_common.runtime.tasks import end
from tidegate_common.telemetry.providers import telemetry


@asynccontextmanager
async def running_publisher(nats_url: str, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Bus]]:
    """A client of a publisher-api that listens on a free port, and the connection that it publishes on."""
    async with built_publisher(nats_url, **settings) as (client, bus, _):
        yield client, bus


@asynccontextmanager
async def built_publisher(nats_url: str, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Bus, Built]]:
    """The same with its parts."""
    nats_url = as_service(nats_url, "publisher-api")
    chosen = PublisherSettings(nats_url=nats_url, port=0, **{"drain_seconds": 1.0, **settings})
    with telemetry("publisher-api", {}) as signals:
        async with connect(nats_url, SUBJECTS, "publisher-api") as bus:
            await ensure_streams(bus, chosen.stream_limits(), update=True)
            built = await build(chosen, bus, signals)
            await built.identity.start()
            server = serving(built, chosen)
            task = asyncio.create_task(server.serve())
            telling = asyncio.create_task(built.progress.run())
            await until(lambda: server.started, "publisher-api listens")
            try:
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=20) as client:
                    yield client, bus, built
            finally:
                server.should_exit = True
                await task
                await end([telling])
                await built.identity.aclose()
