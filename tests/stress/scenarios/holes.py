"""Events that NATS loses on their way to a gateway."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from functools import partial

from tests.stress.client import StressClient
from tests.stress.listener import Listening
from tests.stress.world import World
from tests.support.waiting import until

QUIET = 24
"""Topics that get a single event each."""

ENV = {"TIDEGATE_AUDIT_SECONDS": "1"}

FOUND_SECONDS = 6.0
"""An audit that is under way, the time to the next one, and what it waits before it believes in a hole."""

NEWCOMER_SECONDS = 0.05
"""Between two who come; each stays for a while."""


def topics(number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A quiet topic for each client; all of them, by a wildcard, for every sixth."""
    if number % 6 == 0:
        return (f"quiet.{number % QUIET}", "quiet.*"), tuple(f"quiet.{each}" for each in range(QUIET))
    return (f"quiet.{number % QUIET}",), ()


async def holes(world: World, seconds: float) -> None:
    """A topic's only event does not reach one of the gateways, or both, while others' events overtake it and newcomers
    attach to the same topic all the time."""
    arrived: Counter[int] = Counter()

    def arrived_one(number: int) -> None:
        arrived[number] += 1

    for client in world.clients:
        client.view.may_be_late = True
        client.on_number = arrived_one
    newcomers = asyncio.create_task(_newcomers(world))
    quiet = world.rng.sample(range(QUIET), QUIET)
    async with asyncio.TaskGroup() as looking:
        for topic in quiet:
            about = partial(world.drops.drop, gateways=world.rng.choice(({0}, {1}, {0, 1})))
            number = await world.load.send(f"topic:quiet.{topic}", about)
            looking.create_task(_comes(world, number, f"topic:quiet.{topic}", arrived))
            await asyncio.sleep(seconds / QUIET)
    newcomers.cancel()
    await asyncio.wait([newcomers])
    if not world.drops.done.total():
        world.problems.append("no event was lost on its way")


async def _comes(world: World, number: int, target: str, arrived: Counter[int]) -> None:
    """All who listen have the event soon."""
    due = sum(target in client.view.targets for client in world.clients)
    try:
        await until(lambda: arrived[number] >= due, "the event that was lost on its way is there", FOUND_SECONDS)
    except AssertionError:
        lost = "lost on its way" if world.drops.done[number] else "not lost on its way"
        world.problems.append(f"{arrived[number]} of {due} had an event {lost} after {FOUND_SECONDS:.0f} s")


async def _newcomers(world: World) -> None:
    """Clients that come and go, outside of the accounts: that they are there is what is tried."""
    staying: list[StressClient] = []
    try:
        for number in itertools.count():
            asked = (f"quiet.{world.rng.randrange(QUIET)}", *(("quiet.*",) if number % 3 == 0 else ()))
            client = StressClient(f"new{number}", Listening("new", asked), world.ledger, world.any_gateway)
            client.start()
            staying.append(client)
            if len(staying) > 10:
                await staying.pop(0).stop()
            await asyncio.sleep(NEWCOMER_SECONDS)
    finally:
        for client in staying:
            await client.stop()
