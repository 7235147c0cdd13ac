"""Clients that do not read."""

from __future__ import annotations

import asyncio
import random
import time

from tests.stress.listener import Listener
from tests.stress.proxy import Cut, Link
from tests.stress.scenarios.during import during
from tests.stress.world import World
from tests.support.waiting import until

RECEIVE_BYTES = 16_384
"""What the kernel keeps for a client that does not read."""

SMALL_BUFFERS = {"TIDEGATE_MAX_BACKLOG_BYTES": "65536", "TIDEGATE_SOCKET_SEND_BYTES": "16384"}

STUCK = 6
PIECES = 40
PIECE = 100_000
"""Characters of each event for clients that read nothing: 4 MB for each, 24 MB together."""

GROWTH_MB = 10.0
"""What both gateways may take more than before, meanwhile."""

TOLD_SECONDS = 5.0

WRITE_TIMEOUT = 2
HALF_OPEN = {
    "TIDEGATE_WRITE_TIMEOUT_SECONDS": str(WRITE_TIMEOUT),
    "TIDEGATE_HEARTBEAT_SECONDS": "1",
    "TIDEGATE_SOCKET_SEND_BYTES": "16384",
}
FILLING = 90_000
"""Characters that fill all buffers on the way: until then somebody acknowledges what is sent."""

FOUND_SECONDS = WRITE_TIMEOUT + 6.0
"""The kernel looks when it has something to send, at growing intervals."""


async def slow_reader(world: World, seconds: float) -> None:
    """One client in five stops reading for a while, again and again, with more coming than buffers hold."""
    await _stuck(world)
    world.load.padding = lambda: 8000
    await during(seconds, [_dozes(world, client) for client in world.clients[::5]])
    world.load.padding = lambda: 0


async def half_open(world: World, seconds: float) -> None:
    """The network of some clients is gone without a word: the gateway finds out, though it is never told."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await world.all_connected(30)
        await _dead(world, world.rng.sample(world.clients, min(5, len(world.clients))))


async def _dead(world: World, clients: list[Listener]) -> None:
    """Nothing reaches them any more, until their gateways have found out."""
    before, found = await _ended(world), 0.0
    links = _pause(world, clients)
    await world.load.fill([f"client:{client.name}" for client in clients] * 3, FILLING // 3)

    async def all_found() -> bool:
        nonlocal found
        found = await _ended(world) - before
        return found >= len(links)

    try:
        await until(all_found, "the gateways have found out", FOUND_SECONDS)
    except AssertionError:
        world.problems.append(f"{found:.0f} of {len(links)} dead connections were found in {FOUND_SECONDS:.0f} s")
    for link in links:
        link.end(Cut.RST)


async def _dozes(world: World, client: Listener) -> None:
    while True:
        await asyncio.sleep(random.uniform(0.5, 1.5))
        links = _pause(world, [client])
        try:
            await asyncio.sleep(random.uniform(1, 4))
        finally:
            for link in links:
                link.pause(False)


async def _stuck(world: World) -> None:
    """Some read nothing of far more than is kept for them: they are closed, and it takes no memory."""
    stuck = world.clients[:STUCK]
    names = [f"client:{client.name}" for client in stuck]
    before, most = [part.rss_mb for part in world.gateways], 0.0
    links = _pause(world, stuck)
    for _ in range(PIECES):
        await world.load.fill(names, PIECE)
        most = max(most, sum(part.rss_mb - was for part, was in zip(world.gateways, before, strict=True)))
    for link in links:
        link.pause(False)
    if most > GROWTH_MB:
        sent = PIECES * PIECE * len(stuck) / 1e6
        world.problems.append(f"{sent:.0f} MB for clients that do not read took {most:.0f} MB of the gateways")
    try:
        await until(lambda: all(client.closings["slow"] for client in stuck), "they are told", TOLD_SECONDS)
    except AssertionError:
        untold = [client.name for client in stuck if not client.closings["slow"]]
        world.problems.append(f"{len(untold)} of {len(stuck)} who read nothing were not told that they are slow")


def _pause(world: World, clients: list[Listener]) -> list[Link]:
    """They read nothing from now on. Gives their connections."""
    links = [link for client in clients if (link := world.link_of(client)) is not None]
    for link in links:
        link.pause(True)
    return links


async def _ended(world: World) -> float:
    """Connections that the gateways have ended since clients did not take anything."""
    told = await world.metrics()
    return sum(each("connections_closed_total", reason=reason) for each in told for reason in ("slow", "stalled"))
