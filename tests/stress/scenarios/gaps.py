"""Clients that come back with an id from which nothing can be replayed: told so once, and then they lose nothing."""

from __future__ import annotations

import time

import nats

from tests.stress.client import StressClient
from tests.stress.world import World
from tests.support.waiting import until

KEPT_BYTES = 1_000_000
KEPT_OF_A_SUBJECT = 60

ENV = {
    "TIDEGATE_EVENTS_MAX_BYTES": str(KEPT_BYTES),
    "TIDEGATE_EVENTS_MAX_PER_SUBJECT": str(KEPT_OF_A_SUBJECT),
}

PIECE = 15_000
"""Characters of an event that is there to drive others out."""

TOLD_SECONDS = 10.0

STREAM = "TG_EVENTS"


async def gaps(world: World, seconds: float) -> None:
    """Their id is older than the stream, or than what it keeps of a subject, of another life, garbage, or of the
    future; and once the stream is deleted under all of them."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for case in (_older_than_the_stream, _older_than_the_subject, _of_no_life, _garbage, _of_the_future):
            client = world.rng.choice(world.lean)
            await world.load.broadcast()  # its id is of now, so that no other reason applies than the case's own
            await until(lambda client=client: client.complete, f"{client.name} is there", TOLD_SECONDS)
            client.leave()
            await case(world, client)
    await _deleted(world)


async def _older_than_the_stream(world: World, client: StressClient) -> None:
    others = world.rng.sample([each.name for each in world.clients if each is not client], 10)
    names = [f"client:{name}" for name in others]
    await world.load.fill(names * (2 * KEPT_BYTES // PIECE // len(names)), PIECE)
    await _told(world, client, "expired", None, "older than the stream")


async def _older_than_the_subject(world: World, client: StressClient) -> None:
    await world.load.fill([f"client:{client.name}"] * (KEPT_OF_A_SUBJECT + 20))
    await _told(world, client, "expired", None, "older than what is kept of a subject")


async def _of_no_life(world: World, client: StressClient) -> None:
    await _told(world, client, "epoch", "zzzzzzzz-7", "of another life")


async def _garbage(world: World, client: StressClient) -> None:
    garbage = world.rng.choice(("garbage", "-", "a-b-c", "1e9", "x" * 300))
    await _told(world, client, "epoch", garbage, "garbage")


async def _of_the_future(world: World, client: StressClient) -> None:
    epoch, _, sequence = (client.last_id or "").rpartition("-")
    await _told(world, client, "epoch", f"{epoch}-{int(sequence) + 1_000_000}", "of the future")


async def _told(world: World, client: StressClient, reason: str, last_id: str | None, what: str) -> None:
    """It comes back, and is told that and no other gap. What it loses after that, or is told twice, the ledger sees."""
    client.view.expected.append(reason)
    client.come_back(last_id)
    own = client.last_id
    try:
        await until(lambda: len(client.view.gaps) >= len(client.view.expected), "it is told", TOLD_SECONDS)
    except AssertionError:
        world.problems.append(f"a client whose id is {what} ({own}) was told no gap")
        client.view.expected.pop()  # so much is known; that what it lost was not said is for the ledger
        client.last_id = None
        return
    if client.view.gaps[-1] != reason:
        world.problems.append(f"a client whose id is {what} was told {client.view.gaps[-1]}, not {reason}")


async def _deleted(world: World) -> None:
    """The stream is deleted: each client is told once, those that are there and one that comes back later."""
    await world.load.stop()
    await world.all_complete(TOLD_SECONDS)
    away = world.rng.choice(world.lean)
    away.leave()
    broker = await nats.connect(world.nats_url)
    await broker.jetstream().delete_stream(STREAM)
    await broker.close()
    for client in world.clients:
        client.view.expected.append("epoch")
    world.load.start()
    there = [client for client in world.clients if client is not away]

    def all_told() -> bool:
        return all(len(client.view.gaps) >= len(client.view.expected) for client in there)

    try:
        await until(all_told, "all are told that the stream is another", 2 * TOLD_SECONDS)
    except AssertionError:
        untold = [client.name for client in there if len(client.view.gaps) < len(client.view.expected)]
        world.problems.append(f"{len(untold)} clients were not told that the stream is another: {untold[:5]}")
    away.come_back()
