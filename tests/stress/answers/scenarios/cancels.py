"""Answers that somebody stops."""

from __future__ import annotations

import asyncio
import time

from tests.stress.answers.accounts import Wanted
from tests.stress.answers.scenarios.asking import killed
from tests.stress.answers.world import AiWorld
from tests.support.waiting import until

BEGUN_SECONDS = 20.0

ENDED_SECONDS = 15.0
"""After a cancel was accepted, with a worker that may just have died."""


async def cancel(world: AiWorld, seconds: float) -> None:
    """Answers are cancelled in the queue, in the middle, twice, by several at once, and when their worker has died."""
    end = time.monotonic() + seconds
    cancels: list[asyncio.Task[None]] = []
    while time.monotonic() < end:
        for moment in (_at_once, _in_the_middle, _some_time, _near_the_end, _never):
            cancels.append(asyncio.create_task(moment(world, f"c{len(cancels) % 5}")))
        await asyncio.sleep(world.rng.uniform(0.2, 0.6))
        if world.rng.random() < 0.3:
            await killed(world, world.rng.choice(world.workers))
    await asyncio.gather(*cancels)


async def _at_once(world: AiWorld, client_id: str) -> None:
    wanted = await world.ask(endless=True, client_id=client_id)
    world.watch(wanted, 2, within=1)
    await _cancelled(world, wanted)


async def _in_the_middle(world: AiWorld, client_id: str) -> None:
    wanted = await world.ask(endless=True, client_id=client_id)
    world.watch(wanted, 2)
    await until(lambda: world.shown(wanted) >= 2, f"{wanted.job_id} has begun", BEGUN_SECONDS)
    await _cancelled(world, wanted)


async def _some_time(world: AiWorld, client_id: str) -> None:
    wanted = await world.ask(endless=True, client_id=client_id)
    world.watch(wanted, 2, within=1)
    await asyncio.sleep(world.rng.uniform(0, 2.5))
    await _cancelled(world, wanted)


async def _near_the_end(world: AiWorld, client_id: str) -> None:
    """It may have ended by itself."""
    wanted = await world.ask(client_id=client_id)
    world.watch(wanted, 2, within=1)
    await asyncio.sleep(world.rng.uniform(0.3, 2.5))
    wanted.ends |= {"cancelled"}
    await asyncio.gather(*(world.cancel(wanted) for _ in range(world.rng.randint(1, 3))))


async def _never(world: AiWorld, client_id: str) -> None:
    world.watch(await world.ask(client_id=client_id), 2, within=1)


async def _cancelled(world: AiWorld, wanted: Wanted) -> None:
    """By one or several; it would not end by itself."""
    wanted.ends = frozenset({"cancelled"})
    await asyncio.gather(*(world.cancel(wanted) for _ in range(world.rng.randint(1, 3))))
    try:
        await until(lambda: world.over(wanted), "its end was seen", ENDED_SECONDS)
    except AssertionError:
        world.problems.append(f"{wanted.job_id} was cancelled and had not ended {ENDED_SECONDS:.0f} s later")
