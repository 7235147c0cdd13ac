"""What every service does with its connection to NATS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tidegate_common.bus.connection import Bus, connect
from tidegate_common.runtime.environment import CommonSettings
from tidegate_common.runtime.server import Server
from tidegate_common.telemetry import names
from tidegate_common.telemetry.providers import Telemetry


@asynccontextmanager
async def connected(settings: CommonSettings, service: str, signals: Telemetry) -> AsyncIterator[Bus]:
    """The connection of `service`, as the settings have it, and its metrics. Raises BrokerUnavailable."""
    async with connect(
        settings.nats_url,
        settings.subjects(),
        service,
        tls=settings.nats_tls(),
        key=settings.nats_key(),
        refused_seconds=settings.nats_refused_seconds,
    ) as bus:
        signals.observe(
            "counter",
            names.METRIC_UNUSABLE,
            lambda: bus.client.unusable.counts,
            "{message}",
            "Messages of NATS that could not be used",
        )
        signals.observe("counter", names.METRIC_LOST, lambda: bus.losses, "{connection}", "Connections to NATS lost")
        yield bus


async def serve(server: Server, bus: Bus, sockets: list[socket.socket] | None = None) -> None:
    """Serves until told to stop, or until NATS has refused the process for too long: then it raises BrokerRefused."""

    def stop(_: asyncio.Future[str]) -> None:
        server.should_exit = True

    bus.refused.add_done_callback(stop)
    await server.serve(sockets)
    bus.check_refused()
