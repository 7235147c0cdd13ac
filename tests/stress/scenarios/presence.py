"""Counts over both gateways, under load: receipts, presence, and connections that are ended from outside."""

from __future__ import annotations

import signal
import time

from tests.stress.world import World, users
from tests.support.waiting import until

KILLED_SECONDS = 6.0
"""A gateway that was killed is out of the counts by then."""


async def receipts(world: World, seconds: float) -> None:
    """Nobody comes or goes: each receipt tells exactly how many connections the event is for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        target = world.rng.choice(("client:nobody", *world.rng.choice(world.clients).view.targets))
        due = sum(target in client.view.targets for client in world.clients)
        told = await world.load.receipt("" if target == "all" else target)
        if told != due:
            world.problems.append(f"a receipt for {target} told {told}, not {due}")


async def kicks_and_kills(world: World, seconds: float) -> None:
    """Clients are ended from outside and a gateway is killed: the counts are right soon after, and nothing is lost."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await world.all_connected(30)
        client = world.rng.choice(world.clients)
        told = client.closings["kicked"]
        ended = await world.load.kick(client.name)
        if ended != 1:
            world.problems.append(f"{client.name} had one connection, {ended} were ended")
        await until(lambda client=client, told=told: client.closings["kicked"] > told, "it is told", 10)
        await _counted(world)
    victim = world.gateways[1]
    await victim.end(signal.SIGKILL)
    left = sum(client.gateway_port != world.proxies[1].port for client in world.clients)
    await until(lambda: _is(world, left), "the killed gateway is out of the counts", KILLED_SECONDS)
    await victim.start()
    await world.all_connected(30)
    await _counted(world)


async def _counted(world: World) -> None:
    await world.all_connected(30)
    await until(lambda: _is(world, len(world.clients)), "presence of all users is right", KILLED_SECONDS)


async def _is(world: World, expected: int) -> bool:
    counts = [await world.load.count("users", f"u{number}@example.org") for number in range(users(len(world.clients)))]
    return sum(counts) == expected
