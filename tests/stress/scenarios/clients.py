"""Faults between clients and gateways."""

from __future__ import annotations

import asyncio
import random
import time

from tests.stress.listener import Listener
from tests.stress.proxy import Cut
from tests.stress.scenarios.during import during
from tests.stress.world import World

CUT_SECONDS = (0.5, 4.0)
MISSED = 20
"""Events that each client of the storm has missed, at the least."""


async def cuts(world: World, seconds: float) -> None:
    """Every client's connection is cut, each at its own random moments, in all ways."""

    async def one(client: Listener) -> None:
        while True:
            await asyncio.sleep(random.uniform(*CUT_SECONDS))
            world.cut(client, world.rng.choice(list(Cut)))

    await during(seconds, [one(client) for client in world.clients])


async def storm(world: World, seconds: float) -> None:
    """All clients of one gateway go at one moment and are back at once, having missed events; others are watched."""
    struck = world.proxies[0]
    for client in world.clients:
        if client.gateway_port != struck.port:
            world.watch(client)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        struck.refusing = True
        struck.cut_all(Cut.RST)
        for _ in range(MISSED):
            await world.load.broadcast()
        struck.refusing = False
        await world.all_connected(60)
        await asyncio.sleep(0.5)


async def seam(world: World, seconds: float) -> None:
    """Clients come back while a burst is being published: the replay's end and the live feed's start meet."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        burst = asyncio.create_task(world.load.burst(world.rng, 400, 0.1))
        while not burst.done():
            for client in world.rng.sample(world.clients, max(1, len(world.clients) // 10)):
                world.cut(client, Cut.RST)
            await asyncio.sleep(world.rng.uniform(0.005, 0.05))
        await burst
