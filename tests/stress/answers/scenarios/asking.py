"""Who asks, and what is done to workers."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

from tests.stress.answers.world import ACK_SECONDS, AiWorld
from tests.stress.parts import Part


async def ask(world: AiWorld, seconds: float, each: float, watchers: int, within: float = 1.0) -> None:
    """Asks for an answer after the other, for a third of them without a target."""
    end = time.monotonic() + seconds
    asking: list[asyncio.Task[None]] = []

    async def one(number: int) -> None:
        target: dict[str, Any] = {} if number % 3 == 0 else {"client_id": f"c{number % 7}"}
        world.watch(await world.ask(**target), watchers, within)

    while time.monotonic() < end:
        asking.append(asyncio.create_task(one(len(asking))))
        await asyncio.sleep(each)
    await asyncio.gather(*asking)


async def killed(world: AiWorld, worker: Part) -> None:
    """Ends a worker with -9, and starts another in its place."""
    await worker.end(signal.SIGKILL)
    await asyncio.sleep(world.rng.uniform(0, 0.5))
    await worker.start()


async def paused(world: AiWorld, worker: Part) -> None:
    """A worker stands still for longer than it may be silent, and goes on."""
    worker.send(signal.SIGSTOP)
    await asyncio.sleep(ACK_SECONDS + world.rng.uniform(0.5, 2))
    worker.send(signal.SIGCONT)
