"""Durable events for single clients, each with a subject of its own: at 3,000 a second, and as many as there can be."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from benchmarks.figures import Row, Yardstick, held, median
from benchmarks.options import Options
from benchmarks.tidegate import Tidegate, tidegate
from benchmarks.tools import Account, LoadClient, load_client
from benchmarks.yardsticks import echo

RATE = 3000
STEADY_EVENTS = 24_000
FLOOD_EVENTS = 60_000
STEADY_BAR, FLOOD_BAR, P99_BAR = 0.62, 0.23, 80
"""Of a bare echo's CPU for a request: the gateway's CPU for an event, and how late one may be."""


@dataclass
class Round:
    account: Account
    cpu_us: float
    rate: float
    """Events a second that the stream confirmed."""


async def run(options: Options) -> list[Row]:
    echoes = [await echo(options)]
    async with tidegate(options) as whole:
        async with load_client(options.build, whole.server.port, whole.server.ready) as client:
            await client.open(options.connections, f"{whole.server.path}?client_id=c%d")
            await asyncio.sleep(2)
            steady, flooded = [], []
            for _ in range(options.rounds):
                steady.append(await pumped(whole, client, options, STEADY_EVENTS, RATE))
                flooded.append(await pumped(whole, client, options, FLOOD_EVENTS, 0))
    echoes.append(await echo(options))
    stick = Yardstick("bare echo", tuple(each.cpu_us for each in echoes))
    subjects = f"{options.connections} subjects, durable, median of {options.rounds} rounds"
    pace = f"{median([each.rate for each in steady]):,.0f}/s; {subjects}"
    p99 = median([each.account.p99_ms for each in steady])
    p50 = median([each.account.p50_ms for each in steady])
    flooding = f"{median([each.rate for each in flooded]):,.0f}/s; {subjects}"
    slow, fast = (median([each.cpu_us for each in rounds]) for rounds in (steady, flooded))
    return [
        held("targeted, steady: gateway CPU per event", slow, STEADY_BAR, "µs", stick, how=pace),
        held("targeted, flood: gateway CPU per event", fast, FLOOD_BAR, "µs", stick, how=flooding),
        held(
            "targeted, steady: publish to socket p99", p99 * 1000, P99_BAR, "µs", stick, how=f"p50 {p50:.2f} ms; {pace}"
        ),
    ]


async def pumped(whole: Tidegate, client: LoadClient, options: Options, events: int, rate: int) -> Round:
    """One run of the pump. Raises RuntimeError where an event is missing or too many."""
    await client.reset()
    cpu = whole.server.cpu()
    command = ("-m", "benchmarks.pump", whole.nats.url, str(options.connections), str(events), str(rate))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the pump ended with exit code {process.returncode}")
    account = await client.wait(events, 10)
    if account.delivered != events:
        raise RuntimeError(f"{account.delivered} of {events} targeted events came")
    found = Round(account, (whole.server.cpu() - cpu) / events * 1e6, events / float(said))
    options.say(f"{found.cpu_us:.1f} µs at {found.rate:,.0f}/s, p50 {account.p50_ms:.2f} p99 {account.p99_ms:.2f} ms")
    return found
