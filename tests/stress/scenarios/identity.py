"""Clients' tokens end and change all the time, while connections are cut; some users are revoked in the middle."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import NamedTuple

import httpx

from tests.stress.client import StressClient
from tests.stress.identity import LONG_SECONDS, client_token, short
from tests.stress.ledger import Verdict
from tests.stress.listener import Listener, Listening
from tests.stress.proxy import Cut
from tests.stress.scenarios import clients
from tests.stress.scenarios.during import during
from tests.stress.world import ROOMS, World
from tests.support.identity import bearer
from tests.support.waiting import until

RENEW_SHARE = 0.1
"""Of the time, in which all have come back for the first time."""

REVOKED_SHARE = 0.1
"""Of the users."""

REFUSED_DELAY_SECONDS = (0.2, 0.6)
"""Before somebody who was revoked tries again."""

TICKET = "thief"
"""The client of the tickets that are used twice."""


class Revoked(NamedTuple):
    """A client that is not to get anything from the moment when the revocation was answered."""

    client: StressClient
    last: int
    """Number of the last event that was sent by then: each has the next one."""
    at: float
    """On time.monotonic."""


async def identity(world: World, seconds: float) -> None:
    """Of the clients that are revoked nothing is due any more, so they have left the world's others."""
    revoked: list[Revoked] = []
    tried = Counter[str]()
    world.token_seconds = short(len(world.clients))
    work = [
        clients.cuts(world, seconds),
        _revoke(world, seconds, revoked),
        _intrude(world, tried),
        _share_tickets(world, tried),
    ]
    work += [_renew(world, client, seconds * RENEW_SHARE) for client in world.clients]
    try:
        await during(seconds, work)
        for each in revoked:  # each comes back all the time: what it gets from now on, it gets after the barrier
            await until(lambda each=each: each.client.status in (401, 429), f"{each.client.name} is refused")
        # Nobody is cut any more, and all have short tokens: a run of a few seconds sees some of them end, too.
        await until(lambda: _ends(world) > 0, "a stream has ended with its token")
    finally:
        world.token_seconds = LONG_SECONDS
        for each in revoked:
            await each.client.stop()
    _judge(world, revoked)
    if not (tried["tickets"] and tried["wishes"]):
        world.problems.append(f"not all was tried: {dict(tried)}")


def _ends(world: World) -> int:
    """Streams that have ended with their tokens."""
    return sum(client.closings["token_expired"] for client in world.clients)


async def _renew(world: World, client: Listener, seconds: float) -> None:
    """The client comes back with a token that ends soon."""
    await asyncio.sleep(world.rng.uniform(0, seconds))
    world.cut(client, Cut.RST)


async def _revoke(world: World, seconds: float, revoked: list[Revoked]) -> None:
    shipped = {client.listening.user_id for client in world.clients if client not in world.lean}
    users = sorted({client.listening.user_id for client in world.lean} - shipped)
    chosen = world.rng.sample(users, max(1, int(len(users) * REVOKED_SHARE)))
    for user in chosen:
        await asyncio.sleep(seconds / 2 / len(chosen))
        theirs = [client for client in world.lean if client.listening.user_id == user]
        await world.load.revoke(user)
        last, at = world.ledger.sent, time.monotonic()
        for client in theirs:
            client.status, client.delay = 0, REFUSED_DELAY_SECONDS
            world.clients.remove(client)
            revoked.append(Revoked(client, last, at))
        # The barrier: at least one event to each, which they would have if they heard anything yet.
        await world.load.fill([f"user:{user}", *(f"client:{client.name}" for client in theirs)])


async def _intrude(world: World, tried: Counter[str]) -> None:
    """Somebody with a good token asks for what others may hear."""
    async with httpx.AsyncClient() as http:
        while True:
            client, other = world.rng.sample(world.lean, 2)
            own = Listening(client.listening.user_id, ())
            wish = world.rng.choice(
                [("client_id", other.name), ("user_id", f"x{other.listening.user_id}"), ("topic", ROOMS[0])]
            )
            url = f"http://127.0.0.1:{world.any_gateway()}/api/sse"
            answer = await _status(http, url, wish, bearer(client_token(client.name, own, LONG_SECONDS)))
            tried["wishes"] += answer == 403
            if answer not in (401, 403, 503):  # 401: its user was revoked
                world.problems.append(f"{client.name} asked for {wish[0]} of others and got {answer}")
            await asyncio.sleep(0.05)


async def _status(http: httpx.AsyncClient, url: str, wish: tuple[str, str], headers: dict[str, str]) -> int:
    """Of a request, whose stream is not read."""
    try:
        async with http.stream("GET", url, params=[wish], headers=headers) as response:
            return response.status_code
    except httpx.TransportError:
        return 503  # cut


async def _share_tickets(world: World, tried: Counter[str]) -> None:
    """Two use one ticket, on both gateways: an event for it reaches one connection alone."""
    while True:
        name = f"{TICKET}{tried['tickets']}"
        pair = [
            StressClient(name, Listening("thief@example.org", ()), world.ledger, lambda part=part: part.port)  # type: ignore[misc]
            for part in world.gateways
        ]
        ticket = await world.load.ticket(client_token(name, pair[0].listening, LONG_SECONDS), {})
        try:
            for client in pair:
                client.show(ticket)
                client.start()
                await until(lambda client=client: client.reconnects >= 0, "the ticket opens a stream")
                client.come_once()
            told = await world.load.receipt(f"client:{name}")
            tried["tickets"] += 1
            if told != 1:
                world.problems.append(f"an event for one ticket reached {told} connections")
        finally:
            for client in pair:
                await client.stop()
        await asyncio.sleep(0.2)


def _judge(world: World, revoked: list[Revoked]) -> None:
    total = Verdict()
    for client, last, at in revoked:
        total.add(world.ledger.judge(client.view))
        after = sum(number > last for number in client.view.numbers)
        if after:
            world.problems.append(f"{client.name} was revoked and got {after} events after that")
        if client.let_in > at:
            world.problems.append(f"{client.name} was revoked and let in {client.let_in - at:.3f} s after that")
    total.lost = 0  # what was on its way to them, and what came after
    if not total.clean:
        world.problems.append(f"of those that were revoked: {total}")
    if not revoked:
        world.problems.append("nobody was revoked")
