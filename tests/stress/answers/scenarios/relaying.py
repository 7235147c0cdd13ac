"""NATS that goes away in the middle of answers."""

from __future__ import annotations

import asyncio
import signal
import time

from tests.stress.answers.scenarios.asking import ask
from tests.stress.answers.world import ACK_SECONDS, AiWorld
from tests.stress.proxy import Cut


async def relay(world: AiWorld, seconds: float) -> None:
    """NATS is killed and started again in the middle of answers, once for longer than a worker may be silent, and
    connections to it are cut."""
    asking = asyncio.create_task(ask(world, seconds, each=0.2, watchers=2))
    await trouble(world, seconds)
    await asking


async def trouble(world: AiWorld, seconds: float) -> None:
    """What `relay` says, for so many seconds."""
    end = time.monotonic() + seconds
    await asyncio.sleep(world.rng.uniform(0.5, 1))
    await _away(world, ACK_SECONDS + world.rng.uniform(0.5, 1.5))
    while time.monotonic() < end:
        await asyncio.sleep(world.rng.uniform(0.3, 1))
        if world.rng.random() < 0.3:
            await _away(world, world.rng.uniform(0, 0.7))
        else:
            world.rng.choice([world.desk, world.desk, world.back, world.feed]).cut_all(world.rng.choice(list(Cut)))


async def _away(world: AiWorld, seconds: float) -> None:
    await world.nats.end(signal.SIGKILL)
    await asyncio.sleep(seconds)
    await world.nats.start()
