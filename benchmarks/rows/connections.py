"""What a connection costs: to accept, in memory, and whether something of it stays when it is gone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from benchmarks.figures import Row, Yardstick, bounded, held, median, number
from benchmarks.options import Options
from benchmarks.tidegate import Tidegate, tidegate
from benchmarks.tools import LoadClient, load_client
from benchmarks.yardsticks import echo

SETTLE_SECONDS = 3.0
"""For what a burst of connections leaves to free itself."""
HALVES = 2
ACCEPT_BAR = 2
"""Of a bare echo's CPU for a request."""


async def run(options: Options) -> list[Row]:
    """Opens and closes all connections in each round; then many come and go, and memory is held against before."""
    count = options.connections
    echoes = [await echo(options)]
    async with tidegate(options) as whole:
        async with load_client(options.build, whole.server.port, whole.server.ready) as client:
            await client.open(100, whole.server.path)
            await empty(whole, client)
            idle = whole.server.resident()
            accepted, resident = [], []
            for _ in range(options.rounds):
                accepted.append(await accept(whole, client, count))
                resident.append(whole.server.resident())
                options.say(f"{accepted[-1]:.0f} µs to accept, {(resident[-1] - idle) / count:.2f} KiB a connection")
                await empty(whole, client)
            after = [await come_and_go(whole, client, options) for _ in range(HALVES)]
    echoes.append(await echo(options))
    stick = Yardstick("bare echo", tuple(each.cpu_us for each in echoes))
    how = f"{count} connections, median of {options.rounds} rounds"
    grown = " → ".join(number(each / 1024) for each in (*resident, *(half.open_kib for half in after)))
    grown += f" MiB with {count} open: {options.rounds} times in a row, then after each half of the connects"
    grown += f"; {number(idle / 1024)} MiB fresh, {number(after[-1].empty_kib / 1024)} MiB with none at the end"
    pace = f"{after[-1].per_second:,.0f} connects/s, {after[-1].cpu_us:.0f} µs for each with its end"
    return [
        bounded(
            "memory of an idle connection", (resident[0] - idle) / count, 3, "KiB", how=f"{count} connections, Pss"
        ),
        bounded(
            f"memory after {options.churn:,} connects ÷ before",
            after[-1].open_kib / resident[0],
            1.05,
            how=f"{grown}; {pace}",
        ),
        held("CPU to accept one and send `connected`", median(accepted), ACCEPT_BAR, "µs", stick, how=how),
    ]


@dataclass
class Churned:
    """What came of many connects and disconnects."""

    per_second: float
    cpu_us: float
    empty_kib: int
    """Memory of the gateway without connections."""
    open_kib: int
    """With all of them open again."""


async def come_and_go(whole: Tidegate, client: LoadClient, options: Options) -> Churned:
    """One part of all connects and disconnects."""
    count = options.churn // HALVES
    cpu = whole.server.cpu()
    took = await client.churn(count, whole.server.path)
    await empty(whole, client)
    spent, left = whole.server.cpu() - cpu, whole.server.resident()
    await accept(whole, client, options.connections)
    found = Churned(count / took.seconds, spent / count * 1e6, left, whole.server.resident())
    await empty(whole, client)
    return found


async def accept(whole: Tidegate, client: LoadClient, count: int) -> float:
    """Opens `count`; microseconds of the gateway for each."""
    cpu = whole.server.cpu()
    await client.open(count, whole.server.path)
    spent = whole.server.cpu() - cpu
    await asyncio.sleep(SETTLE_SECONDS)
    return spent / count * 1e6


async def empty(whole: Tidegate, client: LoadClient) -> None:
    """Closes all and returns when the gateway has noticed."""
    await client.close()
    await whole.until_active(0)
    await asyncio.sleep(SETTLE_SECONDS)
