"""Two gateways and a publisher-api on one NATS server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.support.bus import broker
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.nats import NatsServer
from tests.support.publisher import running_publisher
from tidegate_common.bus.connection import Bus


class World:
    """Two gateways and a publisher-api on one server."""

    def __init__(
        self, server: NatsServer, bus: Bus, gateways: tuple[RunningGateway, RunningGateway], api: httpx.AsyncClient
    ) -> None:
        self.server = server
        self.bus = bus
        self.one, self.two = gateways
        self.api = api

    async def send(self, **fields: object) -> dict[str, object]:
        answer = await self.api.post("/api/sse/send", json={"event_type": "n", "data": 1, "receipt": True, **fields})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    async def connections(self, name: str) -> int:
        answer = await self.api.get(f"/api/presence/{name}")
        assert answer.status_code == 200, answer.text
        return int(answer.json()["connections"])


@asynccontextmanager
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with (
        broker(tmp_path) as (server, bus),
        running_gateway(server.url) as one,
        running_gateway(server.url) as two,
        running_publisher(server.url) as (api, _),
    ):
        yield World(server, bus, (one, two), api)
