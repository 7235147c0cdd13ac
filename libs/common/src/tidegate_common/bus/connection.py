"""One process's connection to NATS."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from nats import errors as nats_errors
from nats.aio.client import Server
from nats.js import JetStreamContext

from tidegate_common.bus.client import BusClient
from tidegate_common.bus.foreign import Foreign
from tidegate_common.contract.subjects import Subjects
from tidegate_common.errors import BrokerUnavailable

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
"""How long a starting process waits for NATS before it gives up."""


class Bus:
    """A connection that comes back by itself, for ever, and the subjects of its namespace."""

    def __init__(self, client: BusClient, subjects: Subjects) -> None:
        self.client = client
        self.subjects = subjects
        self.jetstream: JetStreamContext = client.jetstream(timeout=5)
        self.foreign = Foreign()
        self.on_reconnect: list[Callable[[], Awaitable[None]]] = []
        """Called, in order, each time the connection is back and its subscriptions are in force again."""
        self.on_disconnect: list[Callable[[], None]] = []
        """Called, in order, each time the connection is lost, before any message of the next one can come."""

    @property
    def connected(self) -> bool:
        return bool(self.client.is_connected)

    async def round_trip(self, timeout: float = 2.0) -> None:
        """Asks the server for a sign of life. Raises BrokerUnavailable."""
        try:
            if not self.connected:
                raise BrokerUnavailable("NATS is away")
            async with asyncio.timeout(timeout):
                await self.client.flush()
        except (nats_errors.Error, TimeoutError, OSError) as error:
            raise BrokerUnavailable("NATS does not answer") from error


@asynccontextmanager
async def connect(urls: str, subjects: Subjects, name: str) -> AsyncIterator[Bus]:
    """A connection to one of `urls` (comma list), closed at the end.

    Raises BrokerUnavailable where none can be reached within CONNECT_SECONDS.
    """
    client = BusClient()
    bus = Bus(client, subjects)

    async def failed(error: Exception) -> None:
        if client.is_connected:
            log.warning("NATS: %s", str(error) or type(error).__name__)

    async def lost() -> None:
        if not client.is_closed:
            log.warning("NATS connection lost")
            client.drop_unsent()
            for listener in bus.on_disconnect:
                listener()

    async def back() -> None:
        log.info(
            "NATS connection is back",
            extra={"server": _shown(str(client.connected_url and client.connected_url.netloc))},
        )
        for listener in bus.on_reconnect:
            await listener()

    def pick(servers: list[Server], _: dict[str, Any]) -> tuple[Server, float]:
        # Jitter: the processes that lost a server come back spread over a second, not all in the same one.
        chosen = min(servers, key=lambda server: (server.reconnects, random.random()))
        return chosen, random.uniform(0.05, 1.0) if chosen.reconnects else random.uniform(0, 0.2)

    servers = [url.strip() for url in urls.split(",") if url.strip()]
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.connect(
                servers=servers,
                name=name,
                error_cb=failed,
                disconnected_cb=lost,
                reconnected_cb=back,
                reconnect_to_server_handler=pick,
                max_reconnect_attempts=-1,
                reconnect_time_wait=1,
                connect_timeout=3,
                ping_interval=10,
                max_outstanding_pings=2,
            )
    except (nats_errors.Error, TimeoutError, OSError, ValueError) as error:
        shown = ", ".join(_shown(url) for url in servers)
        reason = "" if isinstance(error, TimeoutError) else f" ({error})"
        raise BrokerUnavailable(
            f"no NATS server answers at {shown}{reason}: start one, or set TIDEGATE_NATS_URL"
        ) from error
    try:
        yield bus
    finally:
        await client.close()


def _shown(url: str) -> str:
    """`url` without what it may hold of a password."""
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    return f"{parts.hostname}:{parts.port or 4222}"
