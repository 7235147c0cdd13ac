"""What a connection costs: to accept, in memory, and whether something of it stays when it is gone."""

from __future__ import annotations

import asyncio

from benchmarks.figures import Row, held, median, number
from benchmarks.options import Options
from benchmarks.tidegate import Tidegate, tidegate
from benchmarks.tools import LoadClient, load_client

SETTLE_SECONDS = 3.0
"""For what a burst of connections leaves to free itself."""


async def run(options: Options) -> list[Row]:
    """Opens and closes all connections in each round; then many come and go, and memory is held against before."""
    count = options.connections
    async with tidegate(options.folder("nats")) as whole:
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
            before = whole.server.resident()
            cpu = whole.server.cpu()
            churned = await client.churn(options.churn, whole.server.path)
            await empty(whole, client)
            spent = (whole.server.cpu() - cpu) / options.churn * 1e6
            after = whole.server.resident()
            await accept(whole, client, count)
            again = whole.server.resident()
    how = f"{count} connections, median of {options.rounds} rounds"
    grown = (
        f"{number(resident[-1] / 1024)} → {number(again / 1024)} MiB with {count}, "
        f"{number(before / 1024)} → {number(after / 1024)} MiB with none (fresh: {number(idle / 1024)})"
    )
    pace = f"{options.churn / churned.seconds:,.0f} connects/s, {spent:.0f} µs for each with its end"
    return [
        held("memory of an idle connection", (resident[0] - idle) / count, 3, "KiB", how=f"{count} connections, Pss"),
        held(f"memory after {options.churn:,} connects ÷ before", again / resident[-1], 1.05, how=f"{grown}; {pace}"),
        held("CPU to accept one and send `connected`", median(accepted), 120, "µs", how=how),
    ]


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
