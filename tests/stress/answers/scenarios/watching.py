"""Those who watch."""

from __future__ import annotations

import asyncio
import signal
import time

from tests.stress.answers.scenarios.asking import ask
from tests.stress.answers.world import AiWorld
from tests.stress.proxy import Cut


async def watch(world: AiWorld, seconds: float) -> None:
    """Many watch each answer, from anywhere in it and after it; their connections are cut, a gateway is killed."""
    asking = asyncio.create_task(ask(world, seconds, each=0.3, watchers=8, within=5))
    end = time.monotonic() + seconds
    killed = False
    while time.monotonic() < end:
        await asyncio.sleep(world.rng.uniform(0.02, 0.1))
        there = [watcher for watcher in world.watchers if not watcher.done]
        for watcher in world.rng.sample(there, min(3, len(there))):
            world.cut(watcher, world.rng.choice(list(Cut)))
        if not killed and time.monotonic() > end - seconds / 2:
            killed = True
            await world.gateways[0].end(signal.SIGKILL)
            await world.gateways[0].start()
    await asking
