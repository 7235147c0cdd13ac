"""Several faults at once."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable

from tests.stress.parts import Part
from tests.stress.scenarios import brokers, clients
from tests.stress.world import World

SIZES = {200: 0.9, 8_000: 0.09, 100_000: 0.01}
"""Characters of an event, and how many of all have them."""

STARTS = 5


async def mixed(world: World, seconds: float) -> None:
    """Clients are cut, gateways cut from NATS, and stopped or killed and started again, with events of all sizes."""
    world.load.padding = sizes(world.rng)
    async with asyncio.TaskGroup() as faults:
        faults.create_task(clients.cuts(world, seconds))
        faults.create_task(brokers.cut(world, world.feed, seconds))
        faults.create_task(_restarts(world, seconds))


def sizes(rng: random.Random) -> Callable[[], int]:
    """For the load: mostly small, a few large."""
    shares = list(SIZES.values())
    return lambda: rng.choices(list(SIZES), shares)[0]


async def _restarts(world: World, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(world.rng.uniform(0.3, 1.5))
        part = world.rng.choice(world.gateways)
        how = world.rng.choice((signal.SIGTERM, signal.SIGKILL))
        code = await part.end(how)
        if how is signal.SIGTERM and code:
            world.problems.append(f"a gateway ended with {code} after SIGTERM")
        await _up(part)


async def _up(part: Part) -> None:
    """As what looks after services would: a gateway that can't reach NATS as it starts gives up, and is started again.

    Raises AssertionError where it gives up again and again.
    """
    for _ in range(STARTS):
        with contextlib.suppress(AssertionError):
            await part.start()
            return
    await part.start()
