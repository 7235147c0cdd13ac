"""The one retry: what NATS did not take is tried again until somebody's patience ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tidegate_common.errors import BrokerUnavailable

T = TypeVar("T")

RETRY_SECONDS = 0.2


async def insist(action: Callable[[], Awaitable[T]], seconds: float, pause: float = RETRY_SECONDS) -> T:
    """What `action` gives, tried again while NATS is away. Raises BrokerUnavailable after `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            return await action()
        except BrokerUnavailable:
            if loop.time() >= deadline:
                raise
            await asyncio.sleep(pause)
