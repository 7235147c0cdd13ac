"""Faults of NATS, and between the gateways and NATS."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.stress.proxy import Cut, FaultProxy
from tests.stress.world import World


async def nats_restart(world: World, seconds: float) -> None:
    """nats-server is killed with -9 and started again on the same store and port, under load."""
    end = time.monotonic() + seconds
    with _streams_stay(world):
        while time.monotonic() < end:
            await asyncio.sleep(world.rng.uniform(1, 2))
            await world.nats.end(signal.SIGKILL)
            await asyncio.sleep(world.rng.uniform(0, 1))
            await world.nats.start()
            await asyncio.sleep(world.rng.uniform(1, 2))


async def feed_cut(world: World, seconds: float) -> None:
    """The gateways' connections to NATS are cut, and refused for a moment."""
    with _streams_stay(world):
        await cut(world, world.feed, seconds)


async def publish_cut(world: World, seconds: float) -> None:
    """publisher-api's connection to NATS is cut, and refused for a moment: what it has said to be stored is stored."""
    with _streams_stay(world):
        await cut(world, world.back, seconds)


@contextmanager
def _streams_stay(world: World) -> Iterator[None]:
    """No client's stream may end by what is done to NATS."""
    before = [client.reconnects for client in world.clients]
    yield
    ended = sum(client.reconnects > count for client, count in zip(world.clients, before, strict=True))
    if ended:
        world.problems.append(f"{ended} streams ended, though it was NATS that was away")


async def cut(world: World, proxy: FaultProxy, seconds: float) -> None:
    """All connections through `proxy` are cut, or one, and refused for a moment."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(world.rng.uniform(0.5, 1.5))
        proxy.refusing = world.rng.random() < 0.5
        if world.rng.random() < 0.7:
            proxy.cut_all(world.rng.choice(list(Cut)))
        else:
            for link in list(proxy.links)[:1]:
                link.end(Cut.RST)
        await asyncio.sleep(world.rng.uniform(0.1, 1.0))
        proxy.refusing = False
