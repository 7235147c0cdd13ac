"""Jobs that are to end when nobody watches them any more."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.stress.answers.world import AiWorld
from tests.stress.proxy import Cut
from tests.support.waiting import until

DOUBT_SECONDS = 7
"""For so long a worker does not believe that a gateway that says nothing has nobody, nor that it knows all gateways."""

UNHURRIED = {"TIDEGATE_SCRIPTED_TOKEN_SECONDS": "0.1", "TIDEGATE_AI_DOUBT_SECONDS": str(DOUBT_SECONDS)}
TOKENS = 90
"""Nine seconds of answer."""

GRACE_SECONDS = 1
LEAVERS = STAYERS = 6

ENDED_SECONDS = DOUBT_SECONDS + GRACE_SECONDS + 5.0
"""There is a look each second, and it takes up to another."""

AWAY_SECONDS = 5.0
"""Longer than publishers and workers remember a gateway that says nothing, and than the grace."""

ASKED: dict[str, Any] = {"on_disconnect": "cancel", "grace_seconds": GRACE_SECONDS}


async def leave(world: AiWorld, seconds: float) -> None:
    """Who leaves has the job cancelled after its grace. Who comes back within it has not; nor has one who stays while
    the gateways can't reach NATS."""
    stayers = asyncio.create_task(_come_back(world))
    await asyncio.gather(*(_leave(world) for _ in range(LEAVERS)))
    await stayers
    await _feed_away(world)


async def _leave(world: AiWorld) -> None:
    wanted = await world.ask(endless=True, **ASKED)
    wanted.ends = frozenset({"cancelled"})
    watcher = await world.watch_now(wanted)
    await until(lambda: world.shown(wanted) >= 2, "it has begun", ENDED_SECONDS)
    await world.dismiss(watcher)

    async def ended() -> bool:
        return bool((await world.record(wanted))["status"] == "cancelled")

    try:
        await until(ended, "it is cancelled", ENDED_SECONDS)
    except AssertionError:
        world.problems.append(f"{wanted.job_id}: nobody watched for {ENDED_SECONDS:.0f} s, and it went on")
        await world.cancel(wanted)
    world.watch(wanted)


async def _come_back(world: AiWorld) -> None:
    """Cut again and again, away for less than the grace each time."""
    jobs = [await world.ask(max_tokens=TOKENS, **ASKED) for _ in range(STAYERS)]
    watchers = [await world.watch_now(wanted) for wanted in jobs]
    end = time.monotonic() + TOKENS / 10
    while time.monotonic() < end:
        await asyncio.sleep(world.rng.uniform(0.1, 0.3))
        world.cut(world.rng.choice(watchers), world.rng.choice(list(Cut)))


async def _feed_away(world: AiWorld) -> None:
    """NATS can't be reached from the gateways, whose clients stay."""
    jobs = [await world.ask(max_tokens=TOKENS, **ASKED) for _ in range(STAYERS)]
    watchers = [await world.watch_now(wanted) for wanted in jobs]
    await until(lambda: all(world.shown(wanted) >= 2 for wanted in jobs), "all have begun", ENDED_SECONDS)
    before = [watcher.reconnects for watcher in watchers]
    world.feed.refusing = True
    world.feed.cut_all(Cut.RST)
    await asyncio.sleep(AWAY_SECONDS)
    world.feed.refusing = False
    if [watcher.reconnects for watcher in watchers] != before:
        world.problems.append("a watcher's stream ended, though it was NATS that was away")
