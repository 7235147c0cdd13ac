"""Events that are not stored."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from tests.stress.proxy import Cut
from tests.stress.world import ROOMS, World, users
from tests.support.waiting import until

BATCHES = 30
LINES = 20
PIECE = 3_000
"""Characters of an event: together several times what is kept for a client that does not read."""

ARRIVED_SECONDS = 10.0

UNDER_WAY_SECONDS = 1.0
"""A volatile event that was accepted is written to whoever is there, or to nobody, by then."""


async def volatile(world: World, seconds: float) -> None:
    """Some do not read: each event is written to a connection or counted as dropped. Then, with durable events and with
    clients that are cut: none comes twice, or on a connection that was opened after it."""
    await world.load.stop()
    await world.all_complete(ARRIVED_SECONDS)
    await _counted(world)
    world.load.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await world.load.volatile(_targets(world, LINES))
        for client in world.rng.sample(world.clients, max(1, len(world.clients) // 10)):
            world.cut(client, world.rng.choice(list(Cut)))
        await asyncio.sleep(world.rng.uniform(0.02, 0.2))
    _judge_replays(world)


async def _counted(world: World) -> None:
    """Nobody comes or goes, and nothing durable is sent."""
    before, reconnects = await _counts(world), sum(client.reconnects for client in world.clients)
    links = [link for client in world.clients[::5] if (link := world.link_of(client)) is not None]
    for link in links:
        link.pause(True)
    due = await _flood(world)
    for link in links:
        link.pause(False)
    counts = _Counts(0, 0, 0)

    async def adds_up() -> bool:
        nonlocal counts
        counts = _Counts(*(now - was for now, was in zip(await _counts(world), before, strict=True)))
        return counts.written + counts.dropped == due and counts.came == counts.written

    try:
        await until(adds_up, "each is written or dropped", ARRIVED_SECONDS)
    except AssertionError:
        world.problems.append(f"{due} volatile events were due: {counts}")
    if not counts.dropped:
        world.problems.append("no volatile event was dropped")
    if sum(client.reconnects for client in world.clients) != reconnects:
        world.problems.append("a client was closed for events that it need not have")


async def _flood(world: World) -> int:
    """Sends to all kinds of targets; gives how many connections listen to each event, added up."""
    due = 0
    for _ in range(BATCHES):
        targets = _targets(world, LINES)
        accepted = await world.load.volatile(targets, PIECE)
        if len(accepted) != LINES:
            world.problems.append(f"{len(accepted)} of {LINES} volatile events were accepted")
        due += sum((target or "all") in client.view.targets for target in targets for client in world.clients)
    return due


def _targets(world: World, count: int) -> list[str]:
    number = len(world.clients)
    one = (
        lambda: "",
        lambda: f"client:c{world.rng.randrange(number)}",
        lambda: f"user:u{world.rng.randrange(users(number))}@example.org",
        lambda: f"topic:{world.rng.choice(ROOMS)}",
    )
    return [world.rng.choice(one)() for _ in range(count)]


class _Counts(NamedTuple):
    """Events that gateways have written and dropped, by their own word, and those that came."""

    written: float
    dropped: float
    came: float


async def _counts(world: World) -> _Counts:
    told = await world.metrics()
    return _Counts(
        sum(each("messages_sent_total") for each in told),
        sum(each("messages_dropped_total") for each in told),
        sum(len(client.view.numbers) for client in world.clients),
    )


def _judge_replays(world: World) -> None:
    at = world.load.volatile_at
    replayed = sum(
        number in at and opened > at[number] + UNDER_WAY_SECONDS
        for client in world.clients
        for number, opened in client.without_id
    )
    if replayed:
        world.problems.append(f"{replayed} volatile events came on a connection that was opened after them")
