"""A connection to a real server with the streams made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.nats import NatsServer, nats_server
from tidegate_common.bus.connection import Bus, connect
from tidegate_common.bus.streams.definitions import StreamLimits, ensure_streams
from tidegate_common.contract.subjects import Subjects

SUBJECTS = Subjects.of("tg")


@asynccontextmanager
async def connected(url: str, limits: StreamLimits | None = None) -> AsyncIterator[Bus]:
    """A bus at `url` whose streams exist."""
    async with connect(url, SUBJECTS, "test") as bus:
        await ensure_streams(bus, limits or StreamLimits(), update=True)
        yield bus


@asynccontextmanager
async def broker(data: Path, limits: StreamLimits | None = None) -> AsyncIterator[tuple[NatsServer, Bus]]:
    """A server of its own, and a bus connected to it."""
    async with nats_server(data) as server, connected(server.url, limits) as bus:
        yield server, bus
