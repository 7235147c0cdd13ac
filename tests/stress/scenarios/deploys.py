"""Gateways that go and come back."""

from __future__ import annotations

import asyncio
import signal
import time

from gateway.app import DRAIN_SHARE
from tests.stress.world import DRAIN_SECONDS, World

PARTS = 10
MOST = 3.0
"""A part of the drain's time may see so many times its share of the reconnects, and SPARE more: clients come back
after a random time of their own, and a busy machine is late, then early."""
SPARE = 3


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
    number = 0
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
        _judge_spread(world, began, len(there))
        number += 1


def _judge_spread(world: World, since: float, there: int) -> None:
    """A drain's reconnects are spread over the time that it has: each part of that sees about its share of them."""
    part = DRAIN_SECONDS * DRAIN_SHARE / PARTS
    times = sorted(at for client in world.clients for at in client.connects if at >= since)
    busiest = max((sum(first <= at < first + part for at in times) for first in times), default=0)
    if busiest > MOST * there / PARTS + SPARE:
        world.problems.append(f"a tenth of the drain's time saw {busiest} of {there} clients come back")
