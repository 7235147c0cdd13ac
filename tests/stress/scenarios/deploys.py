"""Gateways that go and come back."""

from __future__ import annotations

import asyncio
import signal
import time
from bisect import bisect_right

from gateway.app import DRAIN_SHARE
from tests.stress.world import DRAIN_SECONDS, World

TOLERANCE = 1.5
"""Clients come back after a random time of their own, and a busy machine is late, then early."""


FEW_PER_SECOND = 100
"""Of fewer, chance alone brings more than TOLERANCE into one second."""


async def gateway_kill(world: World, seconds: float) -> None:
    """A gateway is killed with -9 and started again, one after the other, under load."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        part = world.rng.choice(world.gateways)
        await asyncio.sleep(world.rng.uniform(0.5, 1.5))
        await part.end(signal.SIGKILL)
        await asyncio.sleep(world.rng.uniform(0, 1))
        await part.start()


async def rolling_restart(world: World, seconds: float) -> None:
    """Each gateway in turn is told to stop under load, and started again: its clients are told `closing` first."""
    end = time.monotonic() + seconds
    number, worst = 0, 0.0
    while time.monotonic() < end:
        part, proxy = world.gateways[number % 2], world.proxies[number % 2]
        there = [client for client in world.clients if client.connected and client.gateway_port == proxy.port]
        told = {client: client.closings["drain"] for client in there}
        began = time.monotonic()
        code = await part.end(signal.SIGTERM)
        if code:
            world.problems.append(f"a gateway ended with {code} after SIGTERM")
        untold = [client.name for client, count in told.items() if client.closings["drain"] == count]
        if untold:
            world.problems.append(f"{len(untold)} of {len(there)} clients were not told closing: {untold[:5]}")
        await part.start()
        await asyncio.sleep(1)
        worst = max(worst, _busiest(world, began) / _share(len(there)))
        number += 1
    if worst > TOLERANCE:
        world.problems.append(f"a second saw {worst:.1f} times its share of reconnects")


def _share(connections: int) -> float:
    """Reconnects a second that a drain of so many is to cause: spread over the time that it has."""
    return max(FEW_PER_SECOND, connections / (DRAIN_SECONDS * DRAIN_SHARE))


def _busiest(world: World, since: float) -> int:
    """The most reconnects in any one second after `since`."""
    times = sorted(at for client in world.clients for at in client.connects if at >= since)
    return max((bisect_right(times, at + 1) - first for first, at in enumerate(times)), default=0)
