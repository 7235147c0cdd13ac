"""Workers that die, or stand still, in the middle of answers."""

from __future__ import annotations

import asyncio
import time

from tests.stress.answers.accounts import Wanted
from tests.stress.answers.scenarios.asking import ask, killed, paused
from tests.stress.answers.world import AiWorld
from tests.support.waiting import until

CONTINUING = {"TIDEGATE_AI_CONTINUE": "prefix"}

ATTEMPTS = 2
JOBS = 12
FEW_ATTEMPTS = {"TIDEGATE_AI_MAX_ATTEMPTS": str(ATTEMPTS), "TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0.1"}
TOKENS = 60
"""Six seconds of answer: all attempts are under way at one moment, though they do not begin at one."""

BEGUN_SECONDS = 20.0


async def crash(world: AiWorld, seconds: float) -> None:
    """Workers are killed with -9 and started again, others paused for longer than they may be silent."""
    asking = asyncio.create_task(ask(world, seconds, each=0.15, watchers=2))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(world.rng.uniform(0.3, 1.2))
        worker = world.rng.choice(world.workers)
        if world.rng.random() < 0.5:
            await killed(world, worker)
        else:
            await paused(world, worker)
    await asking


async def go_on(world: AiWorld, seconds: float) -> None:
    """The same, with a model that goes on from what is stored: no text that was shown is taken back."""
    await crash(world, seconds)
    await world.settle()
    went_on = 0
    for wanted in world.jobs:
        wanted.goes_on = True
        attempt = (await world.record(wanted))["attempt"]
        went_on += attempt > 1 and not world.restarts(wanted)
    if not went_on:
        world.problems.append("no answer was gone on with")


async def attempts(world: AiWorld, seconds: float) -> None:
    """Each job's worker is killed as often as may be: it ends in an error, is kept, and is whole when it is retried."""
    jobs = await asyncio.gather(*(world.ask(client_id=f"c{number}", max_tokens=TOKENS) for number in range(JOBS)))
    for wanted in jobs:
        wanted.ends = frozenset({"too_many_attempts"})
        world.watch(wanted)
    for attempt in range(ATTEMPTS):
        await until(lambda begun=attempt: all(_begun(world, each, begun) for each in jobs), "all go", BEGUN_SECONDS)
        await asyncio.gather(*(killed(world, worker) for worker in world.workers))
    await world.settle()
    dead = {each["job_id"] for each in await world.dead()}
    missing = [wanted.job_id for wanted in jobs if wanted.job_id not in dead]
    if missing:
        world.problems.append(f"{len(missing)} of {len(jobs)} dead jobs are not listed: {missing[:3]}")
    for wanted in jobs:
        if wanted.job_id in dead:
            world.watch(await world.retry(wanted))
    await world.settle()
    if left := await world.dead():
        world.problems.append(f"{len(left)} jobs are still among the dead after their retry")


def _begun(world: AiWorld, wanted: Wanted, restarts: int) -> bool:
    """Somebody has seen text of it after so many restarts."""
    return world.restarts(wanted) >= restarts and world.shown(wanted) >= 2
