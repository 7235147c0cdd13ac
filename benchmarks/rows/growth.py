"""How cost grows with connections, and what a broadcast to all does to one other client's events meanwhile."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from benchmarks.fanout import QUIET
from benchmarks.figures import Row
from benchmarks.options import Options
from benchmarks.server import event
from benchmarks.tidegate import Tidegate, tidegate
from benchmarks.tools import Account, LoadClient, load_client

SHARES = (0.1, 0.25, 0.5, 1.0)
SECONDS = 5.0
BROADCASTS = 10
"""In that time to all connections; to a tenth of them ten times as many: the events a second stay the same."""
TOKENS = 250
"""Events for the other client in that time: 50 a second, as a chat has."""


@dataclass
class Step:
    connections: int
    cpu_us: float
    kib: float
    account: Account
    other: Account
    """The other client's, during as many broadcasts again."""


async def run(options: Options) -> list[Row]:
    async with tidegate(options, QUIET) as whole:
        server = whole.server
        async with (
            load_client(options.build, server.port, server.ready) as crowd,
            load_client(options.build, server.port, server.ready, "@O=") as other,
        ):
            await other.open(1, f"{server.path}?client_id=other")
            await tell(whole, TOKENS)
            alone = await other.wait(TOKENS, 10)
            idle, have, steps = server.resident(), 0, []
            for share in SHARES:
                wanted = int(options.connections * share)
                await crowd.open(wanted - have, server.path)
                await asyncio.sleep(2)
                kib, have = (server.resident() - idle) / wanted, wanted
                steps.append(await step(whole, crowd, other, wanted, int(BROADCASTS / share), kib))
                options.say(told(steps[-1]))
    rows = [
        Row(
            f"{each.connections:,} connections",
            told(each),
            how=f"{options.connections * BROADCASTS / SECONDS:,.0f} events/s",
        )
        for each in steps
    ]
    lonely = f"p50 {alone.p50_ms:.1f} ms, p99 {alone.p99_ms:.0f} ms, last {alone.max_ms:.0f} ms"
    rows.append(Row("another client's tokens without broadcasts", lonely, how="50/s through publisher-api"))
    most = steps[-1]
    processes = 1_000_000 // most.connections
    gib = most.kib * 1_000_000 / 1024**2
    text = f"{gib:.1f} GiB in {processes} gateways beside {processes * idle / 1024**2:.1f} GiB that they take empty"
    return [*rows, Row("a million connections, reckoned", text, how="user space; the kernel's sockets come on top")]


async def step(whole: Tidegate, crowd: LoadClient, other: LoadClient, connections: int, turns: int, kib: float) -> Step:
    """Broadcasts to the crowd, first alone, then while the other client gets events of its own."""
    await other.reset()
    cpu = whole.server.cpu()
    account = await broadcasts(whole, crowd, connections, turns)
    spent = whole.server.cpu() - cpu
    telling = asyncio.create_task(tell(whole, TOKENS))
    await broadcasts(whole, crowd, connections, turns)
    await telling
    heard = await other.wait(TOKENS, 10)
    if heard.delivered != TOKENS:
        raise RuntimeError(f"{heard.delivered} of {TOKENS} events came to the other client")
    return Step(connections, spent / account.delivered * 1e6, kib, account, heard)


async def broadcasts(whole: Tidegate, crowd: LoadClient, connections: int, turns: int) -> Account:
    """Raises RuntimeError where an event is missing."""
    await crowd.reset()
    start = time.monotonic()
    for turn in range(turns):
        await asyncio.sleep(max(0.0, start + turn * SECONDS / turns - time.monotonic()))
        await whole.server.publish(event())
    account = await crowd.wait(turns * connections, 10)
    if account.delivered != turns * connections:
        raise RuntimeError(f"{account.delivered} of {turns * connections} events came")
    return account


async def tell(whole: Tidegate, count: int) -> None:
    """Durable events for the other client, evenly."""
    start, period = time.monotonic(), SECONDS / TOKENS
    under_way: list[asyncio.Future[object]] = []
    for number in range(count):
        await asyncio.sleep(max(0.0, start + number * period - time.monotonic()))
        body = {"client_id": "other", "event_type": "token", "data": f"@O={time.monotonic_ns()};"}
        under_way.append(asyncio.ensure_future(whole.http.post("/api/sse/send", json=body)))
    await asyncio.gather(*under_way)


def told(one: Step) -> str:
    """In words, for the table."""
    crowd, other = one.account, one.other
    return (
        f"{one.cpu_us:.2f} µs an event, {one.kib:.1f} KiB a connection; broadcast p50 {crowd.p50_ms:.0f} ms, "
        f"p99 {crowd.p99_ms:.0f} ms, last {crowd.max_ms:.0f} ms; another client's tokens meanwhile p50 "
        f"{other.p50_ms:.1f} ms, p99 {other.p99_ms:.0f} ms, last {other.max_ms:.0f} ms"
    )
