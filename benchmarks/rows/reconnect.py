"""The gateway's connection to NATS breaks and comes back, and its clients missed nothing: what that costs."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from benchmarks.fanout import QUIET
from benchmarks.figures import Row, Yardstick, bounded, held, median
from benchmarks.options import Options
from benchmarks.rows.targeted import pumped
from benchmarks.server import event
from benchmarks.tidegate import Tidegate, tidegate
from benchmarks.tools import LoadClient, load_client
from benchmarks.yardsticks import echo
from tests.stress.proxy import Cut
from tests.support.waiting import until

CLIENTS = 1000
REQUESTS_BAR = 10
LIVE_BAR = 5 * CLIENTS
"""Bare echoes: 0.3 s where one takes 60 µs."""
AWAY_SECONDS = 1.0
SETTLE_SECONDS = 5.0
"""In which a gateway that asks for each client is done."""


class Connection(msgspec.Struct):
    """What NATS tells of one."""

    start: datetime
    in_msgs: int
    """What the client has published: its requests, and little else in a gateway."""
    subscriptions: int
    name: str = ""
    """None before the client's greeting."""


class Connections(msgspec.Struct):
    connections: list[Connection]


async def run(options: Options) -> list[Row]:
    """Before each cut each client gets an event of its own, all in turn. NATS stays up: the gateway is cut off."""
    few = replace(options, connections=CLIENTS)
    echoes = [await echo(options)]
    asked, live = [], []
    async with tidegate(options, QUIET, cuttable=True) as whole:
        async with load_client(options.build, whole.server.port, whole.server.ready) as client:
            empty = await published_after_a_cut(whole)
            await client.open(CLIENTS, f"{whole.server.path}?client_id=c%d")
            for _ in range(options.rounds):
                await pumped(whole, client, few, CLIENTS, 0)
                asked.append(await published_after_a_cut(whole) - empty)
                await pumped(whole, client, few, CLIENTS, 0)
                live.append(await seconds_until_live(whole, client))
                options.say(f"{asked[-1]} requests, live after {live[-1] * 1000:.0f} ms")
    echoes.append(await echo(options))
    stick = Yardstick("bare echo", tuple(each.cpu_us / 1000 for each in echoes), "ms")
    how = f"{CLIENTS} clients, nothing published meanwhile; median of {options.rounds} rounds"
    more = f"those more than the {empty} without clients; {how}"
    return [
        bounded("NATS away and back: requests of the gateway", median(asked), REQUESTS_BAR, how=more),
        held("NATS away and back: until all are live", median(live) * 1000, LIVE_BAR, "ms", stick, how=how),
    ]


async def gateway(whole: Tidegate) -> list[Connection]:
    """The gateway's connections, as NATS has them."""
    answer = await whole.http.get(f"http://127.0.0.1:{whole.monitor_port}/connz", params={"limit": 10_000})
    found = msgspec.json.decode(answer.content, type=Connections).connections
    return [each for each in found if each.name == "gateway"]


def subscribed(connections: list[Connection]) -> int:
    return sum(each.subscriptions for each in connections)


async def cut_off(whole: Tidegate) -> datetime:
    """Cuts the gateway off from NATS and lets it come back. Returns when it came, as soon as its subscriptions have."""
    assert whole.proxy is not None
    before = await gateway(whole)
    whole.proxy.refusing = True
    whole.proxy.cut_all(Cut.RST)
    await asyncio.sleep(AWAY_SECONDS)
    whole.proxy.refusing = False

    async def back() -> bool:
        now = await gateway(whole)
        return len(now) == len(before) and subscribed(now) >= subscribed(before)

    await until(back, "the gateway is back with its subscriptions", 30)
    return max(each.start for each in await gateway(whole))


async def published_after_a_cut(whole: Tidegate) -> int:
    """By the gateway, from when it is back: its requests, and what it does at regular times."""
    await cut_off(whole)
    await asyncio.sleep(SETTLE_SECONDS)
    return sum(each.in_msgs for each in await gateway(whole))


async def seconds_until_live(whole: Tidegate, client: LoadClient) -> float:
    """From when the gateway's connection is back until each client has an event of its own that is published then."""
    await client.reset()
    came = await cut_off(whole)
    sent, data = datetime.now(UTC), event()
    lines = [json.dumps({"client_id": f"c{number}", "event_type": "tick", "data": data}) for number in range(CLIENTS)]
    headers = {"Content-Type": "application/x-ndjson"}
    answer = await whole.http.post("/api/sse/batch", content="\n".join(lines), headers=headers)
    answer.raise_for_status()
    account = await client.wait(CLIENTS, 30)
    if account.delivered != CLIENTS:
        raise RuntimeError(f"{account.delivered} of {CLIENTS} clients got their event")
    await asyncio.sleep(SETTLE_SECONDS)
    return (sent - came).total_seconds() + account.max_ms / 1000
